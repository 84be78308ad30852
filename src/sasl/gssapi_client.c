/* GSSAPI (RFC 4752) and GSS-SPNEGO, the client's side, over a context of GSS-API that is given.
 *
 * The first token is made at once, so that a login for which there is no ticket is never begun. With `seal` an
 * encrypting layer is demanded, and a server that has none gets "*"; without it none is ever taken: under TLS it is of
 * no use, and elsewhere the configuration has to ask for it.
 *
 * GSS-SPNEGO knows no choice of layers: with `seal` the caller asks for confidentiality when it makes the context and
 * the layer starts when the flags have it; without, the caller must ask neither for confidentiality nor for integrity,
 * or a server that goes by the flags would start one. */
#include "sasl/client.h"
#include "sasl/gssapi.h"
#include "sasl/layer.h"

enum { OFFER_MAX = 64 };

enum wait {
    WAIT_TOKEN,   /* the context is not complete */
    WAIT_OFFER,   /* GSSAPI: the context is complete, the server says which layers it has */
    WAIT_SUCCESS, /* the server can only say yes now */
};

struct state {
    const struct sasl_gss *gss;
    enum wait wait;
    bool wrapper; /* GSSAPI, not GSS-SPNEGO */
    bool seal, mutual;
    unsigned steps;
    struct sasl_layer_choice layer;
    struct buf out;
    char authzid[SASL_PRINCIPAL_MAX + 1];
};

static int context_complete(struct state *s, struct err *err)
{
    unsigned flags = s->gss->flags(s->gss->context);
    if (s->mutual && !(flags & SASL_GSS_MUTUAL))
        return err_set(err, ERR_AUTH, "the server has not proven who it is: mutual authentication was asked for");
    if (s->seal && !(flags & SASL_GSS_CONFIDENTIALITY))
        return err_set(err, ERR_CONFIG, "seal is demanded, but the security context cannot encrypt");
    if (!s->wrapper && s->seal)
        s->layer.kind = SASL_LAYER_GSS_CONFIDENTIALITY;
    s->wait = s->wrapper ? WAIT_OFFER : WAIT_SUCCESS;
    return 0;
}

/* What there is to send is in s->out afterwards; it may be nothing. */
static int step_context(struct state *s, struct str token, struct err *err)
{
    if (++s->steps > GSSAPI_STEPS_MAX)
        return err_set(err, ERR_AUTH, "the server goes on sending tokens without an end");
    buf_clear(&s->out);
    enum sasl_gss_status status = s->gss->step(s->gss->context, token, &s->out);
    if (status == SASL_GSS_FAILED)
        return err_set(err, ERR_AUTH, "the security context could not be established");
    if (s->out.failed)
        return err_set(err, ERR_AUTH, "a token of more than %d octets, or no memory for it", SASL_MESSAGE_MAX);
    return status == SASL_GSS_COMPLETE ? context_complete(s, err) : 0;
}

static int init(struct state *s, const struct sasl_client_options *options, bool wrapper, struct err *err)
{
    s->wrapper = wrapper;
    s->gss = options->gss;
    s->seal = options->seal;
    s->mutual = options->mutual;
    buf_init(&s->out, SASL_MESSAGE_MAX);
    if (!s->gss)
        return err_set(err, ERR_AUTH, "there are no Kerberos credentials");
    if (options->authzid.n > 0 && !wrapper)
        return err_set(err, ERR_AUTH, "GSS-SPNEGO cannot carry an authorization identity");
    if (!str_copy(options->authzid, s->authzid, sizeof s->authzid))
        return err_set(err, ERR_SYNTAX, "the authorization identity is too long or holds a NUL");
    int rc = step_context(s, STR_NONE, err);
    if (rc < 0)
        return rc;
    return s->out.n > 0 ? 0 : err_set(err, ERR_AUTH, "the security context has no first token");
}

static int init_gssapi(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                       struct err *err)
{
    return init(state, options, true, err);
}

static int init_gss_spnego(void *state, const struct sasl_mechanism *mechanism,
                           const struct sasl_client_options *options, struct err *err)
{
    return init(state, options, false, err);
}

static void done(void *state)
{
    struct state *s = state;
    buf_wipe(&s->out);
}

static bool first(void *state, struct str *ret_response)
{
    struct state *s = state;
    *ret_response = buf_str(&s->out);
    return true;
}

/* Our answer: the layer, the longest packet that we take (0 without layer), whom we want to be. */
static int choose(struct state *s, const struct gssapi_choice *offered, struct err *err)
{
    unsigned layers = offered->layers;
    unsigned choice = s->seal ? SASL_LAYER_BIT_CONFIDENTIALITY : SASL_LAYER_BIT_NONE;
    uint32_t max = s->seal ? SASL_LAYER_RECEIVE_MAX : 0;
    if (s->seal && !(layers & choice))
        return err_set(err, ERR_CONFIG, "seal is demanded, but the server offers no encrypting layer%s",
                       layers & SASL_LAYER_BIT_INTEGRITY ? ", only integrity" : "");
    if (!(layers & choice))
        return err_set(err, ERR_AUTH, "the server demands a security layer, but the configuration does not (seal)");
    if (s->seal && (offered->max < SASL_LAYER_PEER_MIN || s->gss->plain_max(s->gss->context, true, offered->max) == 0))
        return err_set(err, ERR_CONFIG, "the server takes packets of %u octets only, too few to encrypt into",
                       offered->max);
    struct buf plain;
    char octets[GSSAPI_CHOICE_BYTES];
    gssapi_choice_write(choice, max, octets);
    buf_init(&plain, GSSAPI_CHOICE_MAX);
    buf_clear(&s->out);
    bool ok = buf_add(&plain, str_slice(octets, sizeof octets)) && buf_add_c(&plain, s->authzid) &&
              s->gss->wrap(s->gss->context, false, buf_str(&plain), &s->out) && !s->out.failed;
    buf_done(&plain);
    if (!ok)
        return err_set(err, ERR_AUTH, "the choice of a security layer could not be wrapped");
    if (s->seal)
        s->layer = (struct sasl_layer_choice){ .kind = SASL_LAYER_GSS_CONFIDENTIALITY, .peer_max_bytes = offered->max };
    return 0;
}

/* Exchange offers "no layer" together with a size (01 00 bb 80), which RFC 4752 forbids and which means nothing. */
static int take_offer(struct state *s, struct str challenge, struct err *err)
{
    struct buf plain;
    bool confidential = false;
    buf_init(&plain, OFFER_MAX);
    bool ok = challenge.n > 0 && s->gss->unwrap(s->gss->context, challenge, &plain, &confidential);
    if (!ok || plain.n != GSSAPI_CHOICE_BYTES) {
        size_t n = plain.n;
        buf_done(&plain);
        return ok ? err_set(err, ERR_AUTH, "the server's offer of layers has %zu octets instead of 4", n)
                  : err_set(err, ERR_AUTH, "the server's offer of layers does not unwrap");
    }
    struct gssapi_choice offered = gssapi_choice_read(buf_str(&plain));
    buf_done(&plain);
    int rc = choose(s, &offered, err);
    if (rc == 0)
        s->wait = WAIT_SUCCESS;
    return rc;
}

static int step(void *state, struct str challenge, struct str *ret_response, struct err *err)
{
    struct state *s = state;
    int rc = 0;
    if (s->wait == WAIT_OFFER) {
        rc = take_offer(s, challenge, err);
    } else if (s->wait == WAIT_TOKEN) {
        rc = step_context(s, challenge, err);
    } else if (challenge.n == 0 && s->steps++ < GSSAPI_STEPS_MAX) {
        buf_clear(&s->out); /* success data that is empty, where the protocol has none (RFC 4954 section 4) */
    } else {
        rc = err_set(err, ERR_AUTH, "the server goes on asking after the login was complete");
    }
    *ret_response = rc < 0 ? STR_NONE : buf_str(&s->out);
    return rc;
}

static bool complete(const void *state)
{
    return ((const struct state *)state)->wait == WAIT_SUCCESS;
}

static struct sasl_layer_choice layer(const void *state)
{
    return ((const struct state *)state)->layer;
}

const struct sasl_client_ops sasl_client_gssapi = {
    .state_bytes = sizeof(struct state), .init = init_gssapi, .first = first, .step = step, .complete = complete,
    .layer = layer, .done = done,
};
const struct sasl_client_ops sasl_client_gss_spnego = {
    .state_bytes = sizeof(struct state), .init = init_gss_spnego, .first = first, .step = step, .complete = complete,
    .layer = layer, .done = done,
};
