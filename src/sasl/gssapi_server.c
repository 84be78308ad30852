/* GSSAPI (RFC 4752) and GSS-SPNEGO, the server's side, over a context of GSS-API that is given.
 *
 * GSSAPI: tokens go back and forth until the context is complete. When the acceptor has a last token it goes out, and
 * the client answers with nothing; then we say in a wrapped packet which layers there are, and the client answers with
 * its choice and whom it wants to act as. A client that asks for no mutual authentication (curl) gets no last token:
 * the offer comes at once. Microsoft's clients say GSSAPI and mean SPNEGO inside the same wrapper ([MS-SSEAN]): the
 * first token tells, and the context takes either.
 *
 * GSS-SPNEGO has no such wrapper and no authorization identity. What was negotiated shows in the flags of the context:
 * libsasl starts a layer at once when integrity or confidentiality is among them, Windows and MIT's clients set these
 * flags too and start none. Nothing on the wire tells them apart. So the flags count only where the caller offers
 * layers, which it does only without TLS and by configuration; everywhere else such a login has no layer, as under TLS
 * libsasl wants it.
 *
 * Where the first token has NTLM but no Kerberos, or Kerberos is not to be had here, our own NTLM takes over
 * (gssapi_ntlm.c), if it is allowed at all.
 *
 * What the client can do wrong is bounded: tokens by SASL_MESSAGE_MAX, steps by GSSAPI_STEPS_MAX. Our own replies tell of
 * failures; error tokens of GSS-API are not passed on. */
#include "sasl/gssapi.h"
#include "sasl/layer.h"
#include "sasl/token.h"

/* What the next response is. */
enum wait {
    WAIT_START,
    WAIT_FIRST,
    WAIT_TOKEN,  /* the context is not complete */
    WAIT_EMPTY,  /* the context's last token is out */
    WAIT_CHOICE, /* the offer is out */
    WAIT_NTLM,   /* whatever NTLM waits for */
    WAIT_OVER,
};

struct state {
    const struct sasl_gss *gss;
    enum wait wait;
    enum sasl_token_kind kind;
    bool wrapper; /* GSSAPI, not GSS-SPNEGO */
    bool binding_required;
    unsigned layers, steps, flags;
    struct buf out;
    char peer[SASL_PRINCIPAL_MAX + 1], authzid[SASL_PRINCIPAL_MAX + 1];
    size_t peer_n, authzid_n;
    struct gssapi_ntlm ntlm;
};

static bool init(struct state *s, const struct sasl_server_options *options, bool wrapper)
{
    s->gss = options->gss;
    s->wrapper = wrapper;
    s->binding_required = options->binding_required;
    s->layers = options->layers_offered & SASL_LAYER_BITS;
    if (s->layers == 0)
        s->layers = SASL_LAYER_BIT_NONE;
    buf_init(&s->out, SASL_MESSAGE_MAX);
    gssapi_ntlm_init(&s->ntlm, options, wrapper);
    return true;
}

static bool init_gssapi(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    return init(state, options, true);
}

static bool init_gss_spnego(void *state, const struct sasl_mechanism *mechanism,
                            const struct sasl_server_options *options)
{
    return init(state, options, false);
}

static void done(void *state)
{
    struct state *s = state;
    buf_wipe(&s->out);
    gssapi_ntlm_done(&s->ntlm);
}

static enum sasl_action over(struct state *s, struct sasl_step *ret_step, enum sasl_cause cause)
{
    s->wait = WAIT_OVER;
    return sasl_fail(ret_step, cause);
}

static enum sasl_action send(struct state *s, struct sasl_step *ret_step, enum wait wait)
{
    if (s->out.failed)
        return over(s, ret_step, SASL_CAUSE_INTERNAL);
    s->wait = wait;
    ret_step->challenge = buf_str(&s->out);
    return SASL_CHALLENGE;
}

static enum sasl_action finish(struct state *s, struct sasl_step *ret_step, enum sasl_layer_kind kind, uint32_t peer_max)
{
    s->wait = WAIT_OVER;
    ret_step->authzid = s->authzid_n ? str_slice(s->authzid, s->authzid_n) : ret_step->authcid;
    ret_step->layer = (struct sasl_layer_choice){ .kind = kind, .peer_max_bytes = peer_max };
    ret_step->gss_flags = s->flags;
    return SASL_DONE;
}

/* A name that a log line and a rule can hold. */
static enum sasl_cause take_peer(struct state *s)
{
    struct str peer = s->gss->peer(s->gss->context);
    if (peer.n == 0 || str_starts_nocase(peer, STR("WELLKNOWN/ANONYMOUS@")))
        return SASL_CAUSE_ANONYMOUS;
    for (size_t i = 0; i < peer.n; i++)
        if ((unsigned char)peer.p[i] < 0x20 || peer.p[i] == 0x7f)
            return SASL_CAUSE_BAD_USER_NAME;
    if (!str_copy(peer, s->peer, sizeof s->peer))
        return SASL_CAUSE_BAD_USER_NAME;
    s->peer_n = peer.n;
    return SASL_CAUSE_NONE;
}

/* The layers that both the caller and the context allow. */
static unsigned possible_layers(const struct state *s)
{
    unsigned layers = s->layers;
    if (!(s->flags & SASL_GSS_INTEGRITY))
        layers &= ~(unsigned)SASL_LAYER_BIT_INTEGRITY;
    if (!(s->flags & SASL_GSS_CONFIDENTIALITY))
        layers &= ~(unsigned)SASL_LAYER_BIT_CONFIDENTIALITY;
    return layers;
}

/* RFC 4752 section 3.2: the layers as bits, and the longest packet that we take; 0 when there is none to choose. */
static enum sasl_action offer(struct state *s, struct sasl_step *ret_step)
{
    unsigned layers = possible_layers(s);
    if (layers == 0)
        return over(s, ret_step, SASL_CAUSE_LAYER_REQUIRED);
    uint32_t max = layers & ~(unsigned)SASL_LAYER_BIT_NONE ? SASL_LAYER_RECEIVE_MAX : 0;
    char octets[GSSAPI_CHOICE_BYTES];
    gssapi_choice_write(layers, max, octets);
    buf_clear(&s->out);
    if (!s->gss->wrap(s->gss->context, false, str_slice(octets, sizeof octets), &s->out))
        return over(s, ret_step, SASL_CAUSE_INTERNAL);
    return send(s, ret_step, WAIT_CHOICE);
}

/* GSS-SPNEGO: see the top of this file. */
static enum sasl_action finish_by_flags(struct state *s, struct sasl_step *ret_step)
{
    unsigned layers = possible_layers(s);
    if (layers & SASL_LAYER_BIT_CONFIDENTIALITY)
        return finish(s, ret_step, SASL_LAYER_GSS_CONFIDENTIALITY, 0);
    /* A client that asked for confidentiality encrypts: with that it cannot be told to sign alone. */
    if ((layers & SASL_LAYER_BIT_INTEGRITY) && !(s->flags & SASL_GSS_CONFIDENTIALITY))
        return finish(s, ret_step, SASL_LAYER_GSS_INTEGRITY, 0);
    if (layers & SASL_LAYER_BIT_NONE)
        return finish(s, ret_step, SASL_LAYER_NONE, 0);
    return over(s, ret_step, SASL_CAUSE_LAYER_REQUIRED);
}

static enum sasl_action after_context(struct state *s, struct sasl_step *ret_step)
{
    return s->wrapper ? offer(s, ret_step) : finish_by_flags(s, ret_step);
}

static enum sasl_action context_complete(struct state *s, struct sasl_step *ret_step)
{
    s->flags = s->gss->flags(s->gss->context);
    enum sasl_cause cause = take_peer(s);
    ret_step->authcid = str_slice(s->peer, s->peer_n);
    if (cause == SASL_CAUSE_NONE && s->binding_required && !(s->flags & SASL_GSS_BOUND))
        cause = SASL_CAUSE_BINDINGS_MISSING;
    if (cause)
        return over(s, ret_step, cause);
    return s->out.n > 0 ? send(s, ret_step, WAIT_EMPTY) : after_context(s, ret_step);
}

static enum sasl_action take_token(struct state *s, struct str token, struct sasl_step *ret_step)
{
    if (token.n == 0 || ++s->steps > GSSAPI_STEPS_MAX)
        return over(s, ret_step, SASL_CAUSE_MALFORMED);
    buf_clear(&s->out);
    switch (s->gss->step(s->gss->context, token, &s->out)) {
    case SASL_GSS_CONTINUE:
        return send(s, ret_step, WAIT_TOKEN);
    case SASL_GSS_COMPLETE:
        return s->out.failed ? over(s, ret_step, SASL_CAUSE_INTERNAL) : context_complete(s, ret_step);
    case SASL_GSS_FAILED:
    default:
        return over(s, ret_step, SASL_CAUSE_GSS_FAILED);
    }
}

static enum sasl_action take_ntlm(struct state *s, struct str token, struct sasl_step *ret_step)
{
    if (!s->ntlm.ready)
        return over(s, ret_step, SASL_CAUSE_NTLM_NOT_ALLOWED);
    s->wait = WAIT_NTLM;
    s->ntlm.raw = s->kind == SASL_TOKEN_NTLMSSP;
    return gssapi_ntlm_step(&s->ntlm, token, ret_step);
}

static enum sasl_action take_first(struct state *s, struct str token, struct sasl_step *ret_step)
{
    s->kind = sasl_token_kind(token);
    /* SPNEGO that proposes both, where there is no keytab. */
    if (s->kind == SASL_TOKEN_SPNEGO_KRB5 && !s->gss && s->ntlm.ready && sasl_token_offers_ntlm(token))
        s->kind = SASL_TOKEN_SPNEGO_NTLM;
    if (s->kind == SASL_TOKEN_UNKNOWN)
        return over(s, ret_step, SASL_CAUSE_UNKNOWN_TOKEN);
    ret_step->inner = sasl_token_kind_name(s->kind);
    if (s->kind == SASL_TOKEN_SPNEGO_NTLM || s->kind == SASL_TOKEN_NTLMSSP)
        return take_ntlm(s, token, ret_step);
    return s->gss ? take_token(s, token, ret_step) : over(s, ret_step, SASL_CAUSE_NO_KERBEROS);
}

enum sasl_cause gssapi_authzid(struct str raw, char dst[SASL_PRINCIPAL_MAX + 1], size_t *ret_n)
{
    *ret_n = 0;
    if (raw.n == 0)
        return SASL_CAUSE_NONE;
    if (str_find(raw, 0) < raw.n)
        return SASL_CAUSE_MALFORMED; /* RFC 4752 section 3.1: not terminated with NUL */
    return sasl_prep(raw, SASL_PRINCIPAL_MAX, dst, ret_n) ? SASL_CAUSE_NONE : SASL_CAUSE_AUTHZID;
}

/* `choice` is one of the bits that were offered. */
static enum sasl_cause check_size(struct state *s, unsigned choice, uint32_t size)
{
    bool confidential = choice == SASL_LAYER_BIT_CONFIDENTIALITY;
    if (choice == SASL_LAYER_BIT_NONE)
        return SASL_CAUSE_NONE; /* it should be 0; some name their buffer all the same, and it means nothing */
    if (size < SASL_LAYER_PEER_MIN || s->gss->plain_max(s->gss->context, confidential, size) == 0)
        return SASL_CAUSE_LAYER_SIZE;
    return SASL_CAUSE_NONE;
}

static enum sasl_action take_plain_choice(struct state *s, struct str plain, struct sasl_step *ret_step)
{
    static const enum sasl_layer_kind kinds[] = {
        [SASL_LAYER_BIT_NONE] = SASL_LAYER_NONE,
        [SASL_LAYER_BIT_INTEGRITY] = SASL_LAYER_GSS_INTEGRITY,
        [SASL_LAYER_BIT_CONFIDENTIALITY] = SASL_LAYER_GSS_CONFIDENTIALITY,
    };
    if (plain.n < GSSAPI_CHOICE_BYTES)
        return over(s, ret_step, SASL_CAUSE_MALFORMED);
    struct gssapi_choice chosen = gssapi_choice_read(plain);
    unsigned choice = chosen.layers, layers = possible_layers(s);
    bool one = choice == SASL_LAYER_BIT_NONE || choice == SASL_LAYER_BIT_INTEGRITY ||
               choice == SASL_LAYER_BIT_CONFIDENTIALITY;
    if (!one || !(layers & choice))
        return over(s, ret_step, choice == SASL_LAYER_BIT_NONE ? SASL_CAUSE_LAYER_REQUIRED : SASL_CAUSE_LAYER_NOT_OFFERED);
    enum sasl_cause cause = check_size(s, choice, chosen.max);
    if (cause == SASL_CAUSE_NONE)
        cause = gssapi_authzid(str_skip(plain, GSSAPI_CHOICE_BYTES), s->authzid, &s->authzid_n);
    if (cause)
        return over(s, ret_step, cause);
    return finish(s, ret_step, kinds[choice], choice == SASL_LAYER_BIT_NONE ? 0 : chosen.max);
}

static enum sasl_action take_choice(struct state *s, struct str response, struct sasl_step *ret_step)
{
    struct buf plain;
    bool confidential = false;
    buf_init(&plain, GSSAPI_CHOICE_MAX);
    ret_step->authcid = str_slice(s->peer, s->peer_n);
    enum sasl_action action;
    if (response.n == 0)
        action = over(s, ret_step, SASL_CAUSE_MALFORMED);
    else if (s->gss->unwrap(s->gss->context, response, &plain, &confidential))
        action = take_plain_choice(s, buf_str(&plain), ret_step);
    else
        action = over(s, ret_step, plain.failed ? SASL_CAUSE_TOO_LONG : SASL_CAUSE_GSS_FAILED);
    buf_wipe(&plain);
    return action;
}

static enum sasl_action step(void *state, bool has_response, struct str response, struct sasl_step *ret_step)
{
    struct state *s = state;
    switch (s->wait) {
    case WAIT_START:
        s->wait = WAIT_FIRST;
        return has_response ? take_first(s, response, ret_step) : SASL_CHALLENGE;
    case WAIT_FIRST:
        return take_first(s, response, ret_step);
    case WAIT_TOKEN:
        return take_token(s, response, ret_step);
    case WAIT_EMPTY:
        ret_step->authcid = str_slice(s->peer, s->peer_n);
        return response.n == 0 ? after_context(s, ret_step) : over(s, ret_step, SASL_CAUSE_MALFORMED);
    case WAIT_CHOICE:
        return take_choice(s, response, ret_step);
    case WAIT_NTLM:
        return gssapi_ntlm_step(&s->ntlm, response, ret_step);
    case WAIT_OVER:
        break;
    }
    return over(s, ret_step, SASL_CAUSE_INTERNAL);
}

static enum sasl_action verified(void *state, enum sasl_verdict verdict, const unsigned char *session_base_key,
                                 struct str canonical, struct sasl_step *ret_step)
{
    return gssapi_ntlm_verified(&((struct state *)state)->ntlm, verdict, session_base_key, canonical, ret_step);
}

static bool layer_state(void *state, struct buf *out)
{
    return gssapi_ntlm_layer_state(&((struct state *)state)->ntlm, out);
}

const struct sasl_server_ops sasl_server_gssapi = {
    .state_bytes = sizeof(struct state), .init = init_gssapi, .step = step, .ntlm = verified,
    .layer_state = layer_state, .done = done,
};
const struct sasl_server_ops sasl_server_gss_spnego = {
    .state_bytes = sizeof(struct state), .init = init_gss_spnego, .step = step, .ntlm = verified,
    .layer_state = layer_state, .done = done,
};
