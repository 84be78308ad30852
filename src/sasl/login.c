/* LOGIN, [MS-XLOGIN]: the server asks for the name, then for the password. Clients look at neither prompt's
 * text, except some that compare it with the two of the specification: so it is exactly that. */
#include "sasl/client.h"
#include "sasl/server.h"

enum ask { ASK_USER, ASK_USER_SENT, ASK_PASSWORD_SENT, ASK_OVER };

struct server_state {
    enum ask ask;
    char user[SASL_USER_MAX + 1], password[SASL_PASSWORD_MAX + 1];
};

static bool server_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    return true;
}

static enum sasl_action take_user(struct server_state *s, struct str response, struct sasl_step *ret_step)
{
    size_t n;
    if (response.n == 0)
        return sasl_fail(ret_step, SASL_CAUSE_EMPTY_USER);
    if (!sasl_prep_user(response, s->user, &n))
        return sasl_fail(ret_step, SASL_CAUSE_BAD_USER_NAME);
    ret_step->authcid = str_slice(s->user, n);
    ret_step->challenge = STR("Password:");
    s->ask = ASK_PASSWORD_SENT;
    return SASL_CHALLENGE;
}

static enum sasl_action take_password(struct server_state *s, struct str response, struct sasl_step *ret_step)
{
    size_t n;
    s->ask = ASK_OVER;
    if (response.n == 0)
        return sasl_fail(ret_step, SASL_CAUSE_EMPTY_PASSWORD);
    if (!sasl_prep(response, SASL_PASSWORD_MAX, s->password, &n))
        return sasl_fail(ret_step, SASL_CAUSE_BAD_PASSWORD);
    ret_step->authcid = str_of(s->user);
    ret_step->password = str_slice(s->password, n);
    return SASL_CHECK_PASSWORD;
}

static enum sasl_action server_step(void *state, bool has_response, struct str response, struct sasl_step *ret_step)
{
    struct server_state *s = state;
    if (s->ask == ASK_USER && !has_response) {
        s->ask = ASK_USER_SENT;
        ret_step->challenge = STR("Username:");
        return SASL_CHALLENGE;
    }
    if (s->ask == ASK_USER || s->ask == ASK_USER_SENT)
        return take_user(s, response, ret_step);
    return take_password(s, response, ret_step);
}

const struct sasl_server_ops sasl_server_login = {
    .state_bytes = sizeof(struct server_state), .init = server_init, .step = server_step,
};

struct client_state {
    char user[SASL_USER_MAX + 1], password[SASL_PASSWORD_MAX + 1];
    unsigned answered;
};

static int client_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                       struct err *err)
{
    struct client_state *s = state;
    if (options->user.n == 0 || options->password.n == 0)
        return err_set(err, ERR_SYNTAX, "LOGIN needs a user and a password");
    if (options->authzid.n > 0)
        return err_set(err, ERR_AUTH, "LOGIN cannot carry an authorization identity");
    if (!str_copy(options->user, s->user, sizeof s->user) ||
        !str_copy(options->password, s->password, sizeof s->password))
        return err_set(err, ERR_SYNTAX, "the user or the password is too long or holds a NUL");
    return 0;
}

/* Not every server takes the name as an initial response; all of them ask. */
static bool client_first(void *state, struct str *ret_response)
{
    return false;
}

static int client_step(void *state, struct str challenge, struct str *ret_response, struct err *err)
{
    struct client_state *s = state;
    if (s->answered >= 2)
        return err_set(err, ERR_AUTH, "the server goes on asking after LOGIN was answered");
    *ret_response = str_of(s->answered++ == 0 ? s->user : s->password);
    return 0;
}

static bool client_complete(const void *state)
{
    return ((const struct client_state *)state)->answered == 2;
}

const struct sasl_client_ops sasl_client_login = {
    .state_bytes = sizeof(struct client_state), .init = client_init, .first = client_first, .step = client_step,
    .complete = client_complete,
};
