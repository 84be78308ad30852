#include "sasl/gssapi.h"
#include "sasl/ntlm_mech.h"

enum { WAIT_TOKEN, WAIT_VERDICT, WAIT_EMPTY, WAIT_CHOICE, WAIT_OVER };

void gssapi_ntlm_init(struct gssapi_ntlm *n, const struct sasl_server_options *options, bool wrapper)
{
    unsigned layers = options->layers_offered & SASL_LAYER_BITS;
    n->wrapper = wrapper;
    n->may_go_without = layers == 0 || (layers & SASL_LAYER_BIT_NONE);
    n->seal.broken = true;
    buf_init(&n->out, GSSAPI_CHOICE_MAX + NTLM_SEAL_SIGNATURE_BYTES);
    if (!options->ntlm)
        return;
    struct ntlm_server_options ntlm = {
        .setup = options->ntlm, .binding = options->binding, .binding_required = options->binding_required,
        .offer_seal = !wrapper && (layers & SASL_LAYER_BIT_CONFIDENTIALITY),
    };
    n->ready = spnego_ntlm_server_init(&n->spnego, &ntlm);
    if (!n->ready) /* Kerberos can be had all the same */
        spnego_ntlm_server_done(&n->spnego);
}

void gssapi_ntlm_done(struct gssapi_ntlm *n)
{
    if (n->ready)
        spnego_ntlm_server_done(&n->spnego);
    ntlm_seal_done(&n->seal);
    buf_wipe(&n->out);
}

static enum sasl_action over(struct gssapi_ntlm *n, struct sasl_step *ret_step, enum sasl_cause cause)
{
    n->wait = WAIT_OVER;
    return sasl_fail(ret_step, cause);
}

static enum sasl_cause cause_of(const struct gssapi_ntlm *n)
{
    return ntlm_mech_cause(n->raw ? ntlm_server_cause(&n->spnego.ntlm) : spnego_ntlm_server_cause(&n->spnego));
}

static enum sasl_action take_token(struct gssapi_ntlm *n, struct str token, struct sasl_step *ret_step)
{
    /* AUTH NTLM answers an empty first token; here there is one by now. */
    if (token.n == 0 || ++n->steps > GSSAPI_STEPS_MAX)
        return over(n, ret_step, SASL_CAUSE_MALFORMED);
    enum ntlm_action action = n->raw ? ntlm_server_step(&n->spnego.ntlm, token, &ret_step->challenge)
                                     : spnego_ntlm_server_step(&n->spnego, token, &ret_step->challenge);
    const struct ntlm_proof *proof = ntlm_server_proof(&n->spnego.ntlm);
    ret_step->authcid = ntlm_mech_name(proof, n->name);
    if (action == NTLM_CHALLENGE)
        return SASL_CHALLENGE;
    if (action != NTLM_CHECK)
        return over(n, ret_step, cause_of(n));
    ret_step->ntlm = proof;
    n->wait = WAIT_VERDICT;
    return SASL_CHECK_NTLM;
}

static enum sasl_action finish(struct gssapi_ntlm *n, struct sasl_step *ret_step, enum sasl_layer_kind kind)
{
    if (kind == SASL_LAYER_NONE && !n->may_go_without)
        return over(n, ret_step, SASL_CAUSE_LAYER_REQUIRED);
    n->wait = WAIT_OVER;
    ret_step->authcid = str_of(n->name);
    ret_step->authzid = n->authzid_n ? str_slice(n->authzid, n->authzid_n) : ret_step->authcid;
    ret_step->layer.kind = kind;
    return SASL_DONE;
}

/* Without keys nothing can be signed: then the login ends as [MS-SSEAN]'s example does, without an offer. */
static enum sasl_action after_context(struct gssapi_ntlm *n, struct sasl_step *ret_step)
{
    char octets[GSSAPI_CHOICE_BYTES];
    bool sealed = !n->wrapper && (ntlm_server_flags(&n->spnego.ntlm) & NTLM_SEAL);
    n->has_seal = n->raw ? ntlm_server_seal(&n->spnego.ntlm, &n->seal) : spnego_ntlm_server_seal(&n->spnego, &n->seal);
    if (sealed)
        return n->has_seal ? finish(n, ret_step, SASL_LAYER_NTLM_SEAL) : over(n, ret_step, SASL_CAUSE_LAYER_REQUIRED);
    if (!n->wrapper || !n->has_seal || !n->may_go_without)
        return finish(n, ret_step, SASL_LAYER_NONE);
    gssapi_choice_write(SASL_LAYER_BIT_NONE, 0, octets);
    buf_clear(&n->out);
    if (!ntlm_seal_wrap(&n->seal, false, str_slice(octets, sizeof octets), &n->out))
        return over(n, ret_step, SASL_CAUSE_INTERNAL);
    n->wait = WAIT_CHOICE;
    ret_step->challenge = buf_str(&n->out);
    return SASL_CHALLENGE;
}

static enum sasl_action take_choice(struct gssapi_ntlm *n, struct str response, struct sasl_step *ret_step)
{
    buf_clear(&n->out);
    if (response.n > NTLM_SEAL_SIGNATURE_BYTES + GSSAPI_CHOICE_MAX)
        return over(n, ret_step, SASL_CAUSE_TOO_LONG);
    if (!ntlm_seal_unwrap(&n->seal, false, response, &n->out))
        return over(n, ret_step, SASL_CAUSE_NTLM_MIC);
    struct str plain = buf_str(&n->out);
    if (plain.n < GSSAPI_CHOICE_BYTES)
        return over(n, ret_step, SASL_CAUSE_MALFORMED);
    if (gssapi_choice_read(plain).layers != SASL_LAYER_BIT_NONE)
        return over(n, ret_step, SASL_CAUSE_LAYER_NOT_OFFERED);
    enum sasl_cause cause = gssapi_authzid(str_skip(plain, GSSAPI_CHOICE_BYTES), n->authzid, &n->authzid_n);
    return cause ? over(n, ret_step, cause) : finish(n, ret_step, SASL_LAYER_NONE);
}

enum sasl_action gssapi_ntlm_step(struct gssapi_ntlm *n, struct str token, struct sasl_step *ret_step)
{
    switch (n->wait) {
    case WAIT_TOKEN:
        return take_token(n, token, ret_step);
    case WAIT_EMPTY:
        return token.n == 0 ? after_context(n, ret_step) : over(n, ret_step, SASL_CAUSE_MALFORMED);
    case WAIT_CHOICE:
        return take_choice(n, token, ret_step);
    default:
        return over(n, ret_step, SASL_CAUSE_INTERNAL);
    }
}

enum sasl_action gssapi_ntlm_verified(struct gssapi_ntlm *n, enum sasl_verdict verdict,
                                      const unsigned char *session_base_key, struct str canonical,
                                      struct sasl_step *ret_step)
{
    enum ntlm_verdict v = ntlm_mech_verdict(verdict);
    struct str last = STR_NONE;
    enum ntlm_action action = n->raw ? ntlm_server_verified(&n->spnego.ntlm, v, session_base_key)
                                     : spnego_ntlm_server_verified(&n->spnego, v, session_base_key, &last);
    if (action != NTLM_DONE)
        return over(n, ret_step, cause_of(n));
    if (canonical.n > 0 && !str_copy(canonical, n->name, sizeof n->name))
        return over(n, ret_step, SASL_CAUSE_INTERNAL);
    ret_step->authcid = str_of(n->name);
    if (last.n == 0)
        return after_context(n, ret_step);
    n->wait = WAIT_EMPTY;
    ret_step->challenge = last;
    return SASL_CHALLENGE;
}

bool gssapi_ntlm_layer_state(struct gssapi_ntlm *n, struct buf *out)
{
    bool has_seal = n->has_seal && !n->wrapper;
    n->has_seal = false;
    return ntlm_mech_export(&n->seal, has_seal, out);
}
