/* PLAIN, RFC 4616: [authzid] NUL authcid NUL password, and nothing behind it. */
#include "sasl/client.h"
#include "sasl/server.h"

struct server_state {
    bool prompted;
    char authzid[SASL_USER_MAX + 1], authcid[SASL_USER_MAX + 1], password[SASL_PASSWORD_MAX + 1];
};

static bool server_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    return true;
}

static enum sasl_action parse(struct server_state *s, struct str message, struct sasl_step *ret_step)
{
    struct str authzid, authcid, password = message;
    if (!str_cut(&password, 0, &authzid) || !str_cut(&password, 0, &authcid) || str_find(password, 0) < password.n)
        return sasl_fail(ret_step, SASL_CAUSE_MALFORMED);
    if (authcid.n == 0)
        return sasl_fail(ret_step, SASL_CAUSE_EMPTY_USER);
    size_t n;
    if (!sasl_prep_user(authcid, s->authcid, &n))
        return sasl_fail(ret_step, SASL_CAUSE_BAD_USER_NAME);
    ret_step->authcid = ret_step->authzid = str_slice(s->authcid, n);
    if (authzid.n > 0) {
        if (!sasl_prep_user(authzid, s->authzid, &n))
            return sasl_fail(ret_step, SASL_CAUSE_AUTHZID);
        ret_step->authzid = str_slice(s->authzid, n);
    }
    if (password.n == 0)
        return sasl_fail(ret_step, SASL_CAUSE_EMPTY_PASSWORD);
    if (!sasl_prep(password, SASL_PASSWORD_MAX, s->password, &n))
        return sasl_fail(ret_step, SASL_CAUSE_BAD_PASSWORD);
    ret_step->password = str_slice(s->password, n);
    return SASL_CHECK_PASSWORD;
}

static enum sasl_action server_step(void *state, bool has_response, struct str response, struct sasl_step *ret_step)
{
    struct server_state *s = state;
    if (!has_response && !s->prompted) {
        s->prompted = true;
        return SASL_CHALLENGE;
    }
    return parse(s, response, ret_step);
}

const struct sasl_server_ops sasl_server_plain = {
    .state_bytes = sizeof(struct server_state), .init = server_init, .step = server_step,
};

struct client_state {
    char message[2 * SASL_USER_MAX + SASL_PASSWORD_MAX + 3];
    size_t n;
    bool sent;
};

static int client_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                       struct err *err)
{
    struct client_state *s = state;
    struct str parts[] = { options->authzid, options->user, options->password };
    /* As they were configured: whether to prepare them is the server's decision (RFC 4616 section 2). */
    if (options->user.n == 0 || options->password.n == 0)
        return err_set(err, ERR_SYNTAX, "PLAIN needs a user and a password");
    if (options->user.n > SASL_USER_MAX || options->authzid.n > SASL_USER_MAX || options->password.n > SASL_PASSWORD_MAX)
        return err_set(err, ERR_SYNTAX, "the user or the password is too long");
    for (size_t i = 0; i < 3; i++) {
        if (str_find(parts[i], 0) < parts[i].n)
            return err_set(err, ERR_SYNTAX, "the user or the password holds a NUL");
        if (i > 0)
            s->message[s->n++] = 0;
        if (parts[i].n > 0)
            memcpy(s->message + s->n, parts[i].p, parts[i].n);
        s->n += parts[i].n;
    }
    return 0;
}

static bool client_first(void *state, struct str *ret_response)
{
    struct client_state *s = state;
    s->sent = true;
    *ret_response = str_slice(s->message, s->n);
    return true;
}

static int client_step(void *state, struct str challenge, struct str *ret_response, struct err *err)
{
    struct client_state *s = state;
    if (s->sent)
        return err_set(err, ERR_AUTH, "the server goes on asking after PLAIN was answered");
    client_first(state, ret_response);
    return 0;
}

static bool client_complete(const void *state)
{
    return ((const struct client_state *)state)->sent;
}

const struct sasl_client_ops sasl_client_plain = {
    .state_bytes = sizeof(struct client_state), .init = client_init, .first = client_first, .step = client_step,
    .complete = client_complete,
};
