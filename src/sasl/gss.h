/* gss: a GSS-API security context behind a table, so that the logic of the mechanisms stays pure: the room of
 * Kerberos fills it with its contexts, a test with what it likes.
 *
 * Shapes: tokens and plain octets are not encoded. What a call gives is added to its buffer, whose cap bounds it;
 * a call that fails may have added something, which is then worth nothing (except the error token of a step).
 * Ownership: `context` is the implementer's and lives longer than every exchange that uses the table. One context
 * is used by one thread at a time. Calls may block (files, a KDC). Every token comes from a peer and is hostile.
 * Why something failed stays with the implementer, who knows it best; here it is a status. */
#pragma once
#include <stdint.h>

#include "base/buf.h"

enum sasl_gss_status { SASL_GSS_CONTINUE, SASL_GSS_COMPLETE, SASL_GSS_FAILED };

enum {
    SASL_GSS_MUTUAL = 1,
    SASL_GSS_INTEGRITY = 2,
    SASL_GSS_CONFIDENTIALITY = 4,
    SASL_GSS_DELEGATED = 8,
    SASL_GSS_BOUND = 16,         /* channel bindings were checked, and are those of this connection */
    SASL_GSS_SEQUENCE = 32,
};

struct sasl_gss {
    void *context;
    /* One token in, one token out (it may be empty). With FAILED ret_token may hold an error token for the peer. */
    enum sasl_gss_status (*step)(void *context, struct str token, struct buf *ret_token);
    bool (*wrap)(void *context, bool confidential, struct str plain, struct buf *ret_token);
    bool (*unwrap)(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential);
    unsigned (*flags)(const void *context);  /* SASL_GSS_..., after COMPLETE */
    struct str (*peer)(const void *context); /* the principal as text, after COMPLETE: "alice@CORP.TEST" */
    /* How many plain octets fit into a token of output_max; 0: none (gss_wrap_size_limit). */
    uint32_t (*plain_max)(void *context, bool confidential, uint32_t output_max);
};
