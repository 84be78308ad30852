#include "sasl/server.h"

#include "base/secret.h"

#define CREDENTIALS "Authentication credentials invalid"

static const struct sasl_failure failures[SASL_CAUSES] = {
    [SASL_CAUSE_NONE] = { "none", 454, "4.7.0", "Temporary authentication failure" },
    [SASL_CAUSE_MALFORMED] = { "malformed", 501, "5.5.2", "Malformed authentication response" },
    [SASL_CAUSE_TOO_LONG] = { "too-long", 501, "5.5.2", "A name, password or token is longer than any can be" },
    [SASL_CAUSE_UNEXPECTED_INITIAL] = { "unexpected-initial-response", 501, "5.7.0",
                                        "This mechanism takes no initial response" },
    [SASL_CAUSE_EMPTY_USER] = { "empty-user", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_EMPTY_PASSWORD] = { "empty-password", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_BAD_USER_NAME] = { "bad-user-name", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_BAD_PASSWORD] = { "bad-password", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_UNKNOWN_USER] = { "unknown-user", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_AUTHZID] = { "authzid-denied", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_EXTENSION] = { "unsupported-extension", 535, "5.7.8", "A required SCRAM extension is not supported" },
    [SASL_CAUSE_BINDING_TYPE] = { "binding-unsupported", 535, "5.7.8",
                                  "This channel binding type is not supported here" },
    [SASL_CAUSE_BINDING_MISMATCH] = { "binding-mismatch", 535, "5.7.8", "Channel bindings do not match" },
    [SASL_CAUSE_DOWNGRADE] = { "downgrade", 535, "5.7.8",
                               "Channel binding was offered, and the client was told otherwise" },
    [SASL_CAUSE_NONCE] = { "nonce-mismatch", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_UNKNOWN_TOKEN] = { "unknown-token", 501, "5.5.2",
                                   "The token is neither Kerberos, SPNEGO nor NTLM" },
    [SASL_CAUSE_NO_KERBEROS] = { "no-kerberos", 454, "4.7.0", "Temporary authentication failure" },
    [SASL_CAUSE_GSS_FAILED] = { "gss-failed", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_SERVICE_NOT_ALLOWED] = { "service-not-allowed", 535, "5.7.8", "The ticket is for another service" },
    [SASL_CAUSE_BINDINGS_MISSING] = { "bindings-missing", 535, "5.7.8", "Channel bindings are required here" },
    [SASL_CAUSE_ANONYMOUS] = { "anonymous", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_LAYER_NOT_OFFERED] = { "layer-not-offered", 535, "5.7.8",
                                       "This security layer was not offered" },
    [SASL_CAUSE_LAYER_REQUIRED] = { "layer-required", 534, "5.7.9", "A security layer is required here" },
    [SASL_CAUSE_LAYER_SIZE] = { "layer-size", 535, "5.7.8", "The security layer's buffer is too small" },
    [SASL_CAUSE_NTLM_NOT_ALLOWED] = { "ntlm-not-allowed", 535, "5.7.8", "NTLM is not offered here" },
    [SASL_CAUSE_NTLM_V1] = { "ntlm-v1", 535, "5.7.8", "NTLM version 1 is not accepted here" },
    [SASL_CAUSE_NTLM_MIC] = { "ntlm-mic", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_TARGET_NAME] = { "target-name", 535, "5.7.8", "The login was meant for another server" },
    [SASL_CAUSE_MECH_LIST] = { "mech-list-mic", 535, "5.7.8", CREDENTIALS },
    [SASL_CAUSE_TEMPORARY] = { "temporary", 454, "4.7.0", "Temporary authentication failure" },
    [SASL_CAUSE_INTERNAL] = { "internal", 454, "4.7.0", "Temporary authentication failure" },
};

const struct sasl_failure *sasl_failure_of(enum sasl_cause cause)
{
    return &failures[cause < SASL_CAUSES ? cause : SASL_CAUSE_INTERNAL];
}

/* What the exchange waits for; a call that it does not wait for fails it. */
enum phase { PHASE_FIRST, PHASE_STEP, PHASE_CHECK, PHASE_VERIFIER, PHASE_NTLM, PHASE_OVER };

struct sasl_server {
    const struct sasl_mechanism *mechanism;
    enum phase phase;
    struct sasl_step last; /* its views point into the state */
    void *state;
};

struct sasl_server *sasl_server_new(const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    if (!mechanism->server)
        return NULL;
    struct sasl_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    server->mechanism = mechanism;
    server->state = calloc(1, mechanism->server->state_bytes);
    if (!server->state || !mechanism->server->init(server->state, mechanism, options))
        sasl_server_free(&server);
    return server;
}

void sasl_server_free(struct sasl_server **server)
{
    struct sasl_server *s = *server;
    if (!s)
        return;
    if (s->state) {
        if (s->mechanism->server->done)
            s->mechanism->server->done(s->state);
        secret_wipe(s->state, s->mechanism->server->state_bytes);
        free(s->state);
    }
    free(s);
    *server = NULL;
}

const struct sasl_mechanism *sasl_server_mechanism(const struct sasl_server *server)
{
    return server->mechanism;
}

bool sasl_server_waits_for_verifier(const struct sasl_server *server)
{
    return server->phase == PHASE_VERIFIER;
}

struct str sasl_server_authcid(const struct sasl_server *server)
{
    return server->last.authcid;
}

enum sasl_action sasl_fail(struct sasl_step *ret_step, enum sasl_cause cause)
{
    ret_step->action = SASL_FAILED;
    ret_step->cause = cause;
    return SASL_FAILED;
}

static enum sasl_action settle(struct sasl_server *server, enum sasl_action action, struct sasl_step *step)
{
    static const enum phase next[] = {
        [SASL_CHALLENGE] = PHASE_STEP, [SASL_CHECK_PASSWORD] = PHASE_CHECK, [SASL_NEED_VERIFIER] = PHASE_VERIFIER,
        [SASL_CHECK_NTLM] = PHASE_NTLM, [SASL_DONE] = PHASE_OVER,      [SASL_FAILED] = PHASE_OVER,
    };
    step->action = action;
    /* Who it was stays known in later steps: a failure's log line names the user. */
    if (step->authcid.n == 0)
        step->authcid = server->last.authcid;
    if (step->authzid.n == 0)
        step->authzid = server->last.authzid.n ? server->last.authzid : step->authcid;
    if (!step->inner)
        step->inner = server->last.inner;
    server->last = *step;
    server->phase = next[action];
    return action;
}

enum sasl_action sasl_server_step(struct sasl_server *server, bool has_response, struct str response,
                                  struct sasl_step *ret_step)
{
    *ret_step = (struct sasl_step){ 0 };
    bool first = server->phase == PHASE_FIRST;
    if (!first && (server->phase != PHASE_STEP || !has_response))
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_INTERNAL), ret_step);
    if (first && has_response && (server->mechanism->flags & SASL_SERVER_FIRST))
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_UNEXPECTED_INITIAL), ret_step);
    if (response.n > SASL_MESSAGE_MAX)
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_TOO_LONG), ret_step);
    enum sasl_action action = server->mechanism->server->step(server->state, has_response, response, ret_step);
    return settle(server, action, ret_step);
}

enum sasl_action sasl_server_checked(struct sasl_server *server, enum sasl_verdict verdict, struct sasl_step *ret_step)
{
    static const enum sasl_cause causes[] = {
        [SASL_RIGHT] = SASL_CAUSE_NONE,
        [SASL_WRONG] = SASL_CAUSE_BAD_PASSWORD,
        [SASL_UNKNOWN_USER] = SASL_CAUSE_UNKNOWN_USER,
        [SASL_CANNOT_TELL] = SASL_CAUSE_TEMPORARY,
    };
    *ret_step = (struct sasl_step){ 0 };
    if (server->phase != PHASE_CHECK)
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_INTERNAL), ret_step);
    if (verdict == SASL_RIGHT)
        return settle(server, SASL_DONE, ret_step);
    return settle(server, sasl_fail(ret_step, causes[verdict]), ret_step);
}

enum sasl_action sasl_server_ntlm(struct sasl_server *server, enum sasl_verdict verdict,
                                  const unsigned char session_base_key[SASL_NTLM_KEY_BYTES], struct str canonical,
                                  struct sasl_step *ret_step)
{
    *ret_step = (struct sasl_step){ 0 };
    if (server->phase != PHASE_NTLM)
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_INTERNAL), ret_step);
    const struct sasl_server_ops *ops = server->mechanism->server;
    enum sasl_action action = ops->ntlm(server->state, verdict, session_base_key, canonical, ret_step);
    return settle(server, action, ret_step);
}

enum sasl_action sasl_server_verifier(struct sasl_server *server, enum sasl_verdict verdict,
                                      const struct sasl_verifier *verifier, struct sasl_step *ret_step)
{
    *ret_step = (struct sasl_step){ 0 };
    if (server->phase != PHASE_VERIFIER)
        return settle(server, sasl_fail(ret_step, SASL_CAUSE_INTERNAL), ret_step);
    enum sasl_action action = server->mechanism->server->verifier(server->state, verdict, verifier, ret_step);
    return settle(server, action, ret_step);
}

bool sasl_server_layer_state(struct sasl_server *server, struct buf *out)
{
    const struct sasl_server_ops *ops = server->mechanism->server;
    return server->last.action == SASL_DONE && ops->layer_state && ops->layer_state(server->state, out);
}
