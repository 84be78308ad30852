/* SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's side: the dialogue is drawn in scram_server.c. The
 * server is believed only after its signature was right. */
#include "base/base64.h"
#include "base/secret.h"
#include "sasl/client.h"
#include "sasl/scram.h"

enum wait { WAIT_START, WAIT_SERVER_FIRST, WAIT_SERVER_FINAL, WAIT_NOTHING };

struct state {
    enum wait wait;
    char password[SASL_PASSWORD_MAX + 1];
    size_t password_n;
    char own_nonce[SASL_OWN_NONCE_MAX];
    size_t own_nonce_n;
    char binding_data[SASL_BINDING_MAX];
    size_t binding_n;
    struct buf first;   /* our first message, whole */
    size_t header_n;    /* of it, the gs2 header */
    struct buf final;
    unsigned char expected[SASL_KEY_BYTES]; /* the server's signature */
    struct sasl_scram_memory *memory;
};

static void done(void *state)
{
    struct state *s = state;
    buf_done(&s->first);
    buf_done(&s->final);
}

/* The header: exporter before certificate hash, as RFC 9266 section 3 wants it. */
static int add_header(struct state *s, bool plus, const struct sasl_client_options *options, struct err *err)
{
    const struct sasl_binding *b = &options->binding;
    bool can_bind = b->exporter.n > 0 || b->cert_hash.n > 0;
    if (plus) {
        struct str data = b->exporter.n > 0 ? b->exporter : b->cert_hash;
        if (data.n > sizeof s->binding_data)
            return err_set(err, ERR_AUTH, "channel-binding data of %zu octets", data.n);
        memcpy(s->binding_data, data.p, data.n);
        s->binding_n = data.n;
        buf_addf(&s->first, "p=%s,", b->exporter.n > 0 ? "tls-exporter" : "tls-server-end-point");
    } else {
        /* "y": we could bind, but the server did not offer it; if it did, it will notice that somebody cut its list. */
        buf_add_c(&s->first, can_bind && !options->server_offers_plus ? "y," : "n,");
    }
    if (options->authzid.n > 0) {
        buf_add_c(&s->first, "a=");
        scram_escape(options->authzid, &s->first);
    }
    buf_add_char(&s->first, ',');
    s->header_n = s->first.n;
    return 0;
}

static int init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                struct err *err)
{
    struct state *s = state;
    char user[SASL_USER_MAX + 1];
    size_t user_n;
    buf_init(&s->first, SCRAM_MESSAGE_MAX);
    buf_init(&s->final, SCRAM_MESSAGE_MAX);
    if (!sasl_prep(options->user, SASL_USER_MAX, user, &user_n) || options->authzid.n > SASL_USER_MAX)
        return err_set(err, ERR_SYNTAX, "the user's name is empty, too long or not acceptable to SASLprep (RFC 4013)");
    if (!sasl_prep(options->password, SASL_PASSWORD_MAX, s->password, &s->password_n))
        return err_set(err, ERR_SYNTAX, "the password is empty, too long or not acceptable to SASLprep (RFC 4013)");
    if (!scram_nonce_ok(options->nonce) || options->nonce.n > sizeof s->own_nonce)
        return err_set(err, ERR_SYNTAX, "the nonce for SCRAM is not usable");
    s->memory = options->scram_memory;
    memcpy(s->own_nonce, options->nonce.p, options->nonce.n);
    s->own_nonce_n = options->nonce.n;
    int rc = add_header(s, (mechanism->flags & SASL_BINDING) != 0, options, err);
    if (rc < 0)
        return rc;
    buf_add_c(&s->first, "n=");
    scram_escape(str_slice(user, user_n), &s->first);
    buf_add_c(&s->first, ",r=");
    buf_add(&s->first, str_slice(s->own_nonce, s->own_nonce_n));
    return !s->first.failed ? 0 : err_errno(err, ENOMEM, "SCRAM");
}

static bool first(void *state, struct str *ret_response)
{
    struct state *s = state;
    s->wait = WAIT_SERVER_FIRST;
    *ret_response = buf_str(&s->first);
    return true;
}

struct server_first {
    struct str nonce;
    struct buf salt;
    uint64_t iterations;
};

static int parse_server_first(const struct state *s, struct str message, struct server_first *ret, struct err *err)
{
    char name;
    struct str value, own = str_slice(s->own_nonce, s->own_nonce_n);
    if (str_starts(message, STR("m=")))
        return err_set(err, ERR_AUTH, "the server demands a SCRAM extension that is not known here");
    if (!scram_attribute(&message, &name, &ret->nonce) || name != 'r')
        return err_set(err, ERR_AUTH, "the server's first SCRAM message is malformed");
    if (!scram_nonce_ok(ret->nonce) || !str_starts(ret->nonce, own) || ret->nonce.n == own.n)
        return err_set(err, ERR_AUTH, "the server's SCRAM nonce does not continue ours");
    if (!scram_attribute(&message, &name, &value) || name != 's' || !base64_decode(value, &ret->salt) || ret->salt.n == 0)
        return err_set(err, ERR_AUTH, "the server's SCRAM salt is missing or malformed");
    if (!scram_attribute(&message, &name, &value) || name != 'i' || !str_to_u64(value, UINT32_MAX, &ret->iterations))
        return err_set(err, ERR_AUTH, "the server's SCRAM iteration count is missing or malformed");
    if (ret->iterations < SASL_ITERATIONS_MIN)
        return err_set(err, ERR_AUTH, "the server wants only %u SCRAM iterations; fewer than %d are unsafe (RFC 7677)",
                       (unsigned)ret->iterations, SASL_ITERATIONS_MIN);
    if (ret->iterations > SASL_ITERATIONS_MAX)
        return err_set(err, ERR_AUTH, "the server wants %u SCRAM iterations; more than %d are refused",
                       (unsigned)ret->iterations, SASL_ITERATIONS_MAX);
    if (!scram_extensions(message))
        return err_set(err, ERR_AUTH, "the server's first SCRAM message has malformed extensions");
    return 0;
}

/* c= and r=, to s->final. */
static bool add_final_bare(struct state *s, struct str nonce)
{
    struct buf binding;
    buf_init(&binding, SCRAM_MESSAGE_MAX);
    buf_add(&binding, str_slice(s->first.p, s->header_n));
    buf_add(&binding, str_slice(s->binding_data, s->binding_n));
    buf_add_c(&s->final, "c=");
    bool ok = !binding.failed && base64_encode(buf_str(&binding), &s->final);
    buf_done(&binding);
    buf_add_c(&s->final, ",r=");
    return buf_add(&s->final, nonce) && ok;
}

static bool salt_password(struct state *s, const struct server_first *m, unsigned char ret_salted[SASL_KEY_BYTES])
{
    struct sasl_scram_memory *memory = m->salt.n <= SASL_SALT_MAX ? s->memory : NULL;
    if (memory && memory->iterations == m->iterations &&
        str_eq(str_slice(memory->salt, memory->salt_bytes), buf_str(&m->salt))) {
        memcpy(ret_salted, memory->salted_password, SASL_KEY_BYTES);
        return true;
    }
    if (!crypto_stretch(str_slice(s->password, s->password_n), buf_str(&m->salt), (uint32_t)m->iterations, ret_salted))
        return false;
    if (memory) {
        memory->salt_bytes = m->salt.n;
        memory->iterations = m->iterations;
        memcpy(memory->salt, m->salt.p, m->salt.n);
        memcpy(memory->salted_password, ret_salted, SASL_KEY_BYTES);
    }
    return true;
}

/* The proof, and the signature that the server will have to show. */
static bool prove(struct state *s, const struct server_first *m, struct str auth_message,
                  unsigned char ret_proof[SASL_KEY_BYTES])
{
    unsigned char salted[SASL_KEY_BYTES], client_key[SASL_KEY_BYTES], stored_key[SASL_KEY_BYTES];
    unsigned char server_key[SASL_KEY_BYTES];
    struct str key = str_slice(salted, sizeof salted);
    bool ok = salt_password(s, m, salted) &&
              crypto_hmac(key, STR("Client Key"), client_key) &&
              crypto_hash(str_slice(client_key, sizeof client_key), stored_key) &&
              crypto_hmac(key, STR("Server Key"), server_key) &&
              scram_mask(stored_key, auth_message, client_key, ret_proof) &&
              crypto_hmac(str_slice(server_key, sizeof server_key), auth_message, s->expected);
    secret_wipe(salted, sizeof salted);
    secret_wipe(client_key, sizeof client_key);
    secret_wipe(stored_key, sizeof stored_key);
    secret_wipe(server_key, sizeof server_key);
    return ok;
}

static int answer(struct state *s, struct str challenge, const struct server_first *m, struct err *err)
{
    struct buf message;
    unsigned char proof[SASL_KEY_BYTES];
    buf_init(&message, SCRAM_AUTH_MESSAGE_MAX);
    struct str first_bare = str_skip(buf_str(&s->first), s->header_n);
    bool ok = add_final_bare(s, m->nonce) &&
              scram_auth_message(&message, first_bare, challenge, buf_str(&s->final)) &&
              prove(s, m, buf_str(&message), proof);
    buf_done(&message);
    if (ok) {
        buf_add_c(&s->final, ",p=");
        ok = base64_encode(str_slice(proof, sizeof proof), &s->final);
    }
    secret_wipe(proof, sizeof proof);
    secret_wipe(s->password, sizeof s->password);
    return ok ? 0 : err_set(err, ERR_AUTH, "the SCRAM proof could not be computed");
}

static int take_server_first(struct state *s, struct str challenge, struct str *ret_response, struct err *err)
{
    struct server_first m = { 0 };
    if (challenge.n > SCRAM_MESSAGE_MAX)
        return err_set(err, ERR_AUTH, "the server's first SCRAM message has %zu octets", challenge.n);
    buf_init(&m.salt, 1024);
    int rc = parse_server_first(s, challenge, &m, err);
    if (rc == 0)
        rc = answer(s, challenge, &m, err);
    buf_done(&m.salt);
    if (rc < 0)
        return rc;
    s->wait = WAIT_SERVER_FINAL;
    *ret_response = buf_str(&s->final);
    return 0;
}

static int take_server_final(struct state *s, struct str challenge, struct err *err)
{
    char name;
    struct str value;
    struct buf signature;
    if (!scram_attribute(&challenge, &name, &value) || (name != 'v' && name != 'e'))
        return err_set(err, ERR_AUTH, "the server's final SCRAM message is malformed");
    if (name == 'e')
        return err_set(err, ERR_AUTH, "the server refuses: %.*s", (int)(value.n < 60 ? value.n : 60), value.p);
    buf_init(&signature, SASL_KEY_BYTES + 1); /* the decoder wants room for whole groups */
    bool right = base64_decode(value, &signature) && scram_extensions(challenge) &&
                 secret_equal(buf_str(&signature), str_slice(s->expected, sizeof s->expected));
    buf_done(&signature);
    if (!right)
        return err_set(err, ERR_AUTH, "the server's SCRAM signature is wrong: it does not know the password");
    s->wait = WAIT_NOTHING;
    return 0;
}

static int step(void *state, struct str challenge, struct str *ret_response, struct err *err)
{
    struct state *s = state;
    switch (s->wait) {
    case WAIT_START: /* the empty challenge of a server that got no initial response */
        first(s, ret_response);
        return 0;
    case WAIT_SERVER_FIRST:
        return take_server_first(s, challenge, ret_response, err);
    case WAIT_SERVER_FINAL:
        return take_server_final(s, challenge, err);
    case WAIT_NOTHING:
        break;
    }
    return err_set(err, ERR_AUTH, "the server goes on asking after SCRAM was complete");
}

static bool complete(const void *state)
{
    return ((const struct state *)state)->wait == WAIT_NOTHING;
}

const struct sasl_client_ops sasl_client_scram = {
    .state_bytes = sizeof(struct state), .init = init, .first = first, .step = step, .complete = complete, .done = done,
};
