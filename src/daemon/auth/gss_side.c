#include "daemon/auth/gss_side.h"

#include "kerberos/seal.h"

static bool wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    struct gss_side *side = context;
    return krb_context_wrap(side->context, confidential, plain, ret_token);
}

static bool unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    struct gss_side *side = context;
    bool ok = krb_context_unwrap(side->context, token, ret_plain, ret_confidential);
    if (!ok)
        side->failure = *krb_context_failure(side->context);
    return ok;
}

/* Only contexts that can be taken apart have a layer here: kerberos/seal.h. */
static unsigned flags(const void *context)
{
    const struct gss_side *side = context;
    unsigned all = krb_context_flags(side->context);
    unsigned layers = SASL_GSS_INTEGRITY | SASL_GSS_CONFIDENTIALITY;
    return krb_seal_possible(krb_context_gss(side->context)) ? all : all & ~layers;
}

static struct str peer(const void *context)
{
    const struct gss_side *side = context;
    return krb_context_peer(side->context);
}

static uint32_t plain_max(void *context, bool confidential, uint32_t output_max)
{
    struct gss_side *side = context;
    return krb_context_plain_max(side->context, confidential, output_max);
}

struct sasl_gss gss_side_table(struct gss_side *side, gss_side_step_fn *step)
{
    return (struct sasl_gss){ .context = side, .step = step, .wrap = wrap, .unwrap = unwrap, .flags = flags, .peer = peer,
                              .plain_max = plain_max };
}

int gss_side_seal(struct gss_side *side, struct buf *ret_state, struct err *err)
{
    void *context = krb_context_take_gss(side->context);
    return krb_seal_export(&context, ret_state, err);
}
