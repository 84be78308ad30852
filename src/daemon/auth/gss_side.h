/* gss_side: what logins in both directions share of Kerberos: the table that a mechanism uses (sasl/gss.h) over a security
 * context (kerberos/context.h), and the context's way to smtpd or delivery for a layer.
 *
 * It stands first in what holds it, so that the step, which each direction has of its own, finds its holder. Used by one
 * thread at a time. */
#pragma once
#include "base/err.h"
#include "kerberos/context.h"
#include "sasl/gss.h"

struct gss_side {
    struct krb_context *context;   /* NULL before the first step */
    struct krb_failure failure;    /* why a step or a token failed */
};

typedef enum sasl_gss_status gss_side_step_fn(void *side, struct str token, struct buf *ret_token);

/* The table lives as long as the side. */
struct sasl_gss gss_side_table(struct gss_side *side, gss_side_step_fn *step);
/* After success: what a layer needs (kerberos/seal.h). The context is gone then. */
int gss_side_seal(struct gss_side *side, struct buf *ret_state, struct err *err);
