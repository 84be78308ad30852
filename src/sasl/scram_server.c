/* SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802 section 5, RFC 7677).
 *
 *   C: n,,n=user,r=nonce                       take_first(), then the caller brings the verifier
 *   S: r=nonce+ours,s=salt,i=iterations        server_verifier()
 *   C: c=gs2 header and binding,r=…,p=proof    take_final()
 *   S: v=signature                             as a challenge: SMTP has no success data
 *   C: (empty)                                 take_empty()
 *
 * An unknown user goes the whole way with a verifier that no password fits. */
#include "base/base64.h"
#include "base/secret.h"
#include "sasl/scram.h"
#include "sasl/server.h"

enum wait { WAIT_START, WAIT_FIRST, WAIT_FINAL, WAIT_EMPTY };

struct state {
    enum wait wait;
    bool plus, plus_offered, fake;
    char own_nonce[SASL_OWN_NONCE_MAX];
    size_t own_nonce_n;
    char cert_hash[SASL_BINDING_MAX], exporter[SASL_BINDING_MAX];
    struct sasl_binding binding;
    struct str binding_data; /* of the type that the client chose; empty: no binding */
    char user[SASL_USER_MAX + 1], authzid[SASL_USER_MAX + 1];
    size_t user_n, authzid_n;
    struct buf first;        /* the client's first message, whole */
    size_t header_n;         /* of it, the gs2 header; the bare message follows */
    size_t client_nonce_at, client_nonce_n;
    struct buf server_first; /* our answer, from the start of WAIT_FINAL */
    struct buf out;          /* the server's final message */
    struct sasl_verifier verifier;
};

static struct str keep_binding(struct str data, char dst[SASL_BINDING_MAX])
{
    if (data.n == 0 || data.n > SASL_BINDING_MAX)
        return STR_NONE;
    memcpy(dst, data.p, data.n);
    return str_slice(dst, data.n);
}

static bool init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    struct state *s = state;
    s->plus = (mechanism->flags & SASL_BINDING) != 0;
    s->plus_offered = options->plus_offered || s->plus;
    s->binding.cert_hash = keep_binding(options->binding.cert_hash, s->cert_hash);
    s->binding.exporter = keep_binding(options->binding.exporter, s->exporter);
    buf_init(&s->first, SCRAM_MESSAGE_MAX);
    buf_init(&s->server_first, SCRAM_MESSAGE_MAX);
    buf_init(&s->out, SCRAM_MESSAGE_MAX);
    if (!scram_nonce_ok(options->nonce) || options->nonce.n > sizeof s->own_nonce)
        return false;
    memcpy(s->own_nonce, options->nonce.p, options->nonce.n);
    s->own_nonce_n = options->nonce.n;
    return true;
}

static void done(void *state)
{
    struct state *s = state;
    buf_done(&s->first);
    buf_done(&s->server_first);
    buf_done(&s->out);
}

/* gs2-cbind-flag: what the client says about channel binding. */
static enum sasl_cause take_flag(struct state *s, struct str flag)
{
    if (str_eq(flag, STR("n")))
        return s->plus ? SASL_CAUSE_MALFORMED : SASL_CAUSE_NONE;
    if (str_eq(flag, STR("y"))) {
        if (s->plus)
            return SASL_CAUSE_MALFORMED;
        /* It can bind and believes that we cannot: somebody has shortened our list (RFC 5802 section 6). */
        return s->plus_offered ? SASL_CAUSE_DOWNGRADE : SASL_CAUSE_NONE;
    }
    if (!str_starts(flag, STR("p=")) || !s->plus)
        return SASL_CAUSE_MALFORMED;
    s->binding_data = scram_binding_data(&s->binding, str_skip(flag, 2));
    return s->binding_data.n > 0 ? SASL_CAUSE_NONE : SASL_CAUSE_BINDING_TYPE;
}

static enum sasl_cause take_name(struct str escaped, char dst[SASL_USER_MAX + 1], size_t *ret_n)
{
    char raw[4 * SASL_USER_MAX + 1];
    size_t n;
    if (!scram_unescape(escaped, raw, sizeof raw, &n) || !sasl_prep_user(str_slice(raw, n), dst, ret_n))
        return SASL_CAUSE_BAD_USER_NAME;
    return SASL_CAUSE_NONE;
}

static enum sasl_cause take_bare(struct state *s, struct str bare)
{
    char name;
    struct str value, rest = bare;
    if (!scram_attribute(&rest, &name, &value))
        return SASL_CAUSE_MALFORMED;
    if (name == 'm')
        return SASL_CAUSE_EXTENSION; /* mandatory, and we know none */
    if (name != 'n')
        return SASL_CAUSE_MALFORMED;
    if (value.n == 0)
        return SASL_CAUSE_EMPTY_USER;
    enum sasl_cause cause = take_name(value, s->user, &s->user_n);
    if (cause)
        return cause;
    if (!scram_attribute(&rest, &name, &value) || name != 'r' || !scram_nonce_ok(value) || !scram_extensions(rest))
        return SASL_CAUSE_MALFORMED;
    s->client_nonce_at = (size_t)(value.p - s->first.p);
    s->client_nonce_n = value.n;
    return SASL_CAUSE_NONE;
}

static enum sasl_cause parse_first(struct state *s)
{
    struct str flag, authzid, rest = buf_str(&s->first);
    if (!str_cut(&rest, ',', &flag) || !str_cut(&rest, ',', &authzid))
        return SASL_CAUSE_MALFORMED;
    s->header_n = s->first.n - rest.n;
    enum sasl_cause cause = take_flag(s, flag);
    if (cause == SASL_CAUSE_NONE && authzid.n > 0) {
        if (!str_starts(authzid, STR("a=")))
            return SASL_CAUSE_MALFORMED;
        if (take_name(str_skip(authzid, 2), s->authzid, &s->authzid_n))
            return SASL_CAUSE_AUTHZID;
    }
    return cause ? cause : take_bare(s, rest);
}

static enum sasl_action take_first(struct state *s, struct str response, struct sasl_step *ret_step)
{
    if (!buf_add(&s->first, response))
        return sasl_fail(ret_step, response.n > SCRAM_MESSAGE_MAX ? SASL_CAUSE_TOO_LONG : SASL_CAUSE_INTERNAL);
    enum sasl_cause cause = parse_first(s);
    ret_step->authcid = str_slice(s->user, s->user_n);
    ret_step->authzid = s->authzid_n ? str_slice(s->authzid, s->authzid_n) : ret_step->authcid;
    return cause ? sasl_fail(ret_step, cause) : SASL_NEED_VERIFIER;
}

static enum sasl_action server_verifier(void *state, enum sasl_verdict verdict, const struct sasl_verifier *verifier,
                                        struct sasl_step *ret_step)
{
    struct state *s = state;
    if (verdict == SASL_CANNOT_TELL || !verifier)
        return sasl_fail(ret_step, SASL_CAUSE_TEMPORARY);
    s->fake = verdict != SASL_RIGHT;
    s->verifier = *verifier;
    if (s->verifier.salt_bytes == 0 || s->verifier.salt_bytes > SASL_SALT_MAX ||
        s->verifier.iterations < SASL_ITERATIONS_MIN)
        return sasl_fail(ret_step, SASL_CAUSE_TEMPORARY);
    buf_add(&s->server_first, STR("r="));
    buf_add(&s->server_first, str_slice(s->first.p + s->client_nonce_at, s->client_nonce_n));
    buf_add(&s->server_first, str_slice(s->own_nonce, s->own_nonce_n));
    buf_add(&s->server_first, STR(",s="));
    base64_encode(str_slice(s->verifier.salt, s->verifier.salt_bytes), &s->server_first);
    if (!buf_addf(&s->server_first, ",i=%u", s->verifier.iterations))
        return sasl_fail(ret_step, SASL_CAUSE_INTERNAL);
    s->wait = WAIT_FINAL;
    ret_step->challenge = buf_str(&s->server_first);
    return SASL_CHALLENGE;
}

/* c= must be exactly the header that was sent, then the binding's data. */
static enum sasl_cause check_binding(struct state *s, struct str text)
{
    struct buf got;
    buf_init(&got, SCRAM_MESSAGE_MAX);
    enum sasl_cause cause = SASL_CAUSE_MALFORMED;
    if (base64_decode(text, &got)) {
        struct str all = buf_str(&got), header = str_slice(s->first.p, s->header_n);
        bool same = str_starts(all, header) && secret_equal(str_skip(all, header.n), s->binding_data);
        cause = same ? SASL_CAUSE_NONE : SASL_CAUSE_BINDING_MISMATCH;
    }
    buf_done(&got);
    return cause;
}

static bool nonce_is_ours(const struct state *s, struct str nonce)
{
    struct str client = str_slice(s->first.p + s->client_nonce_at, s->client_nonce_n);
    return str_starts(nonce, client) && secret_equal(str_skip(nonce, client.n), str_slice(s->own_nonce, s->own_nonce_n));
}

/* RFC 5802 section 3: H(ClientProof XOR HMAC(StoredKey, AuthMessage)) is StoredKey. Then our signature goes to
 * s->out. Both are computed whatever the proof, so that a wrong one takes as long. */
static enum sasl_cause check_proof(struct state *s, const unsigned char proof[SASL_KEY_BYTES], struct str final_bare)
{
    struct buf message;
    unsigned char client_key[SASL_KEY_BYTES], stored_key[SASL_KEY_BYTES], signature[SASL_KEY_BYTES];
    buf_init(&message, SCRAM_AUTH_MESSAGE_MAX);
    struct str first_bare = str_skip(buf_str(&s->first), s->header_n);
    bool ok = scram_auth_message(&message, first_bare, buf_str(&s->server_first), final_bare) &&
              scram_mask(s->verifier.stored_key, buf_str(&message), proof, client_key) &&
              crypto_hash(str_slice(client_key, sizeof client_key), stored_key) &&
              crypto_hmac(str_slice(s->verifier.server_key, SASL_KEY_BYTES), buf_str(&message), signature);
    bool right = ok && secret_equal(str_slice(stored_key, sizeof stored_key),
                                    str_slice(s->verifier.stored_key, sizeof s->verifier.stored_key));
    secret_wipe(client_key, sizeof client_key);
    buf_done(&message);
    if (!ok)
        return SASL_CAUSE_INTERNAL;
    if (s->fake)
        return SASL_CAUSE_UNKNOWN_USER;
    if (!right)
        return SASL_CAUSE_BAD_PASSWORD;
    buf_add(&s->out, STR("v="));
    return base64_encode(str_slice(signature, sizeof signature), &s->out) ? SASL_CAUSE_NONE : SASL_CAUSE_INTERNAL;
}

static bool take_proof(struct str text, unsigned char ret_proof[SASL_KEY_BYTES])
{
    struct buf proof;
    buf_init(&proof, SASL_KEY_BYTES + 1); /* the decoder wants room for whole groups */
    bool ok = base64_decode(text, &proof) && proof.n == SASL_KEY_BYTES;
    if (ok)
        memcpy(ret_proof, proof.p, SASL_KEY_BYTES);
    buf_wipe(&proof);
    return ok;
}

static enum sasl_cause parse_final(struct state *s, struct str message)
{
    char name;
    struct str value, rest = message;
    if (!scram_attribute(&rest, &name, &value) || name != 'c')
        return SASL_CAUSE_MALFORMED;
    enum sasl_cause cause = check_binding(s, value);
    if (cause)
        return cause;
    if (!scram_attribute(&rest, &name, &value) || name != 'r')
        return SASL_CAUSE_MALFORMED;
    if (!nonce_is_ours(s, value))
        return SASL_CAUSE_NONCE;
    while (scram_attribute(&rest, &name, &value)) {
        unsigned char proof[SASL_KEY_BYTES];
        if (name != 'p')
            continue; /* an extension that we may ignore */
        if (rest.n > 0 || !take_proof(value, proof))
            return SASL_CAUSE_MALFORMED;
        struct str final_bare = str_slice(message.p, (size_t)(value.p - message.p) - strlen(",p="));
        cause = check_proof(s, proof, final_bare);
        secret_wipe(proof, sizeof proof);
        return cause;
    }
    return SASL_CAUSE_MALFORMED;
}

static enum sasl_action take_final(struct state *s, struct str response, struct sasl_step *ret_step)
{
    if (response.n > SCRAM_MESSAGE_MAX)
        return sasl_fail(ret_step, SASL_CAUSE_TOO_LONG);
    enum sasl_cause cause = parse_final(s, response);
    if (cause)
        return sasl_fail(ret_step, cause);
    s->wait = WAIT_EMPTY;
    ret_step->challenge = buf_str(&s->out);
    return SASL_CHALLENGE;
}

static enum sasl_action server_step(void *state, bool has_response, struct str response, struct sasl_step *ret_step)
{
    struct state *s = state;
    switch (s->wait) {
    case WAIT_START:
        s->wait = WAIT_FIRST;
        return has_response ? take_first(s, response, ret_step) : SASL_CHALLENGE;
    case WAIT_FIRST:
        return take_first(s, response, ret_step);
    case WAIT_FINAL:
        return take_final(s, response, ret_step);
    case WAIT_EMPTY:
        return response.n == 0 ? SASL_DONE : sasl_fail(ret_step, SASL_CAUSE_MALFORMED);
    }
    return sasl_fail(ret_step, SASL_CAUSE_INTERNAL);
}

const struct sasl_server_ops sasl_server_scram = {
    .state_bytes = sizeof(struct state), .init = init, .step = server_step, .verifier = server_verifier, .done = done,
};
