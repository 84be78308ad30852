#include "sasl/spnego_ntlm.h"

#include "base/secret.h"

/* FIRST: nothing has been said; OPEN: NTLM is chosen and its first message is still to come. */
enum { PHASE_FIRST, PHASE_OPEN, PHASE_AUTHENTICATE, PHASE_CHECK, PHASE_DONE, PHASE_OVER };

static enum ntlm_action fail(struct spnego_ntlm_server *server, enum ntlm_cause cause)
{
    server->phase = PHASE_OVER;
    server->cause = cause;
    return NTLM_FAILED;
}

bool spnego_ntlm_server_init(struct spnego_ntlm_server *server, const struct ntlm_server_options *options)
{
    *server = (struct spnego_ntlm_server){ .phase = PHASE_FIRST, .seal = { .broken = true } };
    buf_init(&server->mech_list, SPNEGO_TOKEN_MAX);
    buf_init(&server->mic, 64);
    buf_init(&server->out, SPNEGO_TOKEN_MAX);
    return ntlm_server_init(&server->ntlm, options);
}

void spnego_ntlm_server_done(struct spnego_ntlm_server *server)
{
    ntlm_server_done(&server->ntlm);
    ntlm_seal_done(&server->seal);
    buf_done(&server->mech_list);
    buf_done(&server->mic);
    buf_done(&server->out);
    secret_wipe(server, sizeof *server);
    server->phase = PHASE_OVER;
}

static enum ntlm_action answer(struct spnego_ntlm_server *server, const struct spnego_resp *resp, struct str *ret_token)
{
    buf_clear(&server->out);
    spnego_write_resp(&server->out, resp);
    if (server->out.failed)
        return fail(server, NTLM_CAUSE_INTERNAL);
    *ret_token = buf_str(&server->out);
    return NTLM_CHALLENGE;
}

static enum ntlm_action step_negotiate(struct spnego_ntlm_server *server, struct str token, bool first, struct str *ret_token)
{
    struct spnego_resp resp = { .state = SPNEGO_ACCEPT_INCOMPLETE, .mech = first ? SPNEGO_NTLMSSP : 0, .has_token = true };
    if (token.n == 0)
        return fail(server, NTLM_CAUSE_MALFORMED);
    enum ntlm_action action = ntlm_server_step(&server->ntlm, token, &resp.token);
    if (action != NTLM_CHALLENGE)
        return fail(server, ntlm_server_cause(&server->ntlm));
    server->phase = PHASE_AUTHENTICATE;
    return answer(server, &resp, ret_token);
}

static enum ntlm_action take_init(struct spnego_ntlm_server *server, struct str token, struct str *ret_token)
{
    struct spnego_init init;
    if (!spnego_read_init(token, &init) || !(init.mechs & SPNEGO_NTLMSSP))
        return fail(server, NTLM_CAUSE_MALFORMED);
    if (!buf_add(&server->mech_list, init.mech_list))
        return fail(server, NTLM_CAUSE_INTERNAL);
    server->mic_required = init.first != SPNEGO_NTLMSSP;
    if (!server->mic_required && init.has_token)
        return step_negotiate(server, init.token, true, ret_token);
    /* The token is another mechanism's, or there is none. */
    server->phase = PHASE_OPEN;
    struct spnego_resp resp = { .mech = SPNEGO_NTLMSSP,
                                .state = server->mic_required ? SPNEGO_REQUEST_MIC : SPNEGO_ACCEPT_INCOMPLETE };
    return answer(server, &resp, ret_token);
}

static enum ntlm_action take_resp(struct spnego_ntlm_server *server, struct str token, struct str *ret_token)
{
    struct spnego_resp resp;
    if (!spnego_read_resp(token, &resp) || !resp.has_token)
        return fail(server, NTLM_CAUSE_MALFORMED);
    if (server->phase == PHASE_OPEN)
        return step_negotiate(server, resp.token, false, ret_token);
    server->mic_seen = resp.has_mic;
    if (resp.has_mic && !buf_add(&server->mic, resp.mic))
        return fail(server, NTLM_CAUSE_MECH_LIST); /* none is that long */
    enum ntlm_action action = ntlm_server_step(&server->ntlm, resp.token, ret_token);
    if (action != NTLM_CHECK)
        return fail(server, action == NTLM_FAILED ? ntlm_server_cause(&server->ntlm) : NTLM_CAUSE_INTERNAL);
    server->phase = PHASE_CHECK;
    return NTLM_CHECK;
}

enum ntlm_action spnego_ntlm_server_step(struct spnego_ntlm_server *server, struct str token, struct str *ret_token)
{
    *ret_token = STR_NONE;
    if (token.n > SPNEGO_TOKEN_MAX)
        return fail(server, NTLM_CAUSE_TOO_LONG);
    if (server->phase == PHASE_FIRST)
        return take_init(server, token, ret_token);
    if (server->phase == PHASE_OPEN || server->phase == PHASE_AUTHENTICATE)
        return take_resp(server, token, ret_token);
    return fail(server, NTLM_CAUSE_INTERNAL);
}

/* The client's MIC over its list of mechanisms, and ours. */
static bool exchange_mics(struct spnego_ntlm_server *server, unsigned char ret_mic[NTLM_SEAL_SIGNATURE_BYTES])
{
    struct str list = buf_str(&server->mech_list);
    return server->has_seal && ntlm_seal_verify(&server->seal, list, buf_str(&server->mic)) &&
           ntlm_seal_sign(&server->seal, list, ret_mic) && ntlm_seal_restart(&server->seal);
}

enum ntlm_action spnego_ntlm_server_verified(struct spnego_ntlm_server *server, enum ntlm_verdict verdict,
                                             const unsigned char *session_base_key, struct str *ret_token)
{
    unsigned char mic[NTLM_SEAL_SIGNATURE_BYTES];
    struct spnego_resp resp = { .state = SPNEGO_ACCEPT_COMPLETED };
    *ret_token = STR_NONE;
    if (server->phase != PHASE_CHECK)
        return fail(server, NTLM_CAUSE_INTERNAL);
    if (ntlm_server_verified(&server->ntlm, verdict, session_base_key) != NTLM_DONE)
        return fail(server, ntlm_server_cause(&server->ntlm));
    server->has_seal = ntlm_server_seal(&server->ntlm, &server->seal);
    if (server->mic_required && !server->mic_seen)
        return fail(server, NTLM_CAUSE_MECH_LIST);
    if (server->mic_seen) {
        if (!exchange_mics(server, mic))
            return fail(server, NTLM_CAUSE_MECH_LIST);
        resp.has_mic = true;
        resp.mic = str_slice(mic, sizeof mic);
    }
    if (answer(server, &resp, ret_token) != NTLM_CHALLENGE)
        return NTLM_FAILED;
    server->phase = PHASE_DONE;
    return NTLM_DONE;
}

bool spnego_ntlm_server_seal(struct spnego_ntlm_server *server, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ .broken = true };
    if (server->phase != PHASE_DONE || !server->has_seal)
        return false;
    *ret_seal = server->seal;
    secret_wipe(&server->seal, sizeof server->seal);
    server->seal.broken = true;
    server->has_seal = false;
    return true;
}

int spnego_ntlm_client_init(struct spnego_ntlm_client *client, const struct ntlm_client_options *options, struct err *err)
{
    *client = (struct spnego_ntlm_client){ .phase = PHASE_FIRST, .seal = { .broken = true } };
    buf_init(&client->out, SPNEGO_TOKEN_MAX);
    return ntlm_client_init(&client->ntlm, options, err);
}

void spnego_ntlm_client_done(struct spnego_ntlm_client *client)
{
    ntlm_client_done(&client->ntlm);
    ntlm_seal_done(&client->seal);
    buf_done(&client->out);
    secret_wipe(client, sizeof *client);
}

bool spnego_ntlm_client_first(struct spnego_ntlm_client *client, struct str *ret_token)
{
    buf_clear(&client->out);
    spnego_write_init_ntlm(&client->out, ntlm_client_first(&client->ntlm), &client->mech_list);
    client->phase = PHASE_OPEN;
    *ret_token = buf_str(&client->out);
    return !client->out.failed;
}

/* Our MIC goes along whenever there are keys for it: with a MIC inside NTLM it is mandatory (MS-SPNG 3.3.5.1). */
static int take_challenge(struct spnego_ntlm_client *client, const struct spnego_resp *resp, struct str *ret_token,
                          struct err *err)
{
    struct spnego_resp reply = { .state = SPNEGO_NO_STATE, .has_token = true };
    unsigned char mic[NTLM_SEAL_SIGNATURE_BYTES];
    if (!resp->has_token || (resp->mech && resp->mech != SPNEGO_NTLMSSP))
        return err_set(err, ERR_AUTH, "the server wants another mechanism than NTLM inside SPNEGO");
    int rc = ntlm_client_step(&client->ntlm, resp->token, &reply.token, err);
    if (rc < 0)
        return rc;
    client->has_seal = ntlm_client_seal(&client->ntlm, &client->seal);
    if (client->has_seal) {
        if (!ntlm_seal_sign(&client->seal, client->mech_list, mic))
            return err_set(err, ERR_AUTH, "cannot sign SPNEGO's list of mechanisms: OpenSSL failed");
        reply.has_mic = client->mic_sent = true;
        reply.mic = str_slice(mic, sizeof mic);
    }
    buf_clear(&client->out);
    spnego_write_resp(&client->out, &reply);
    if (client->out.failed)
        return err_errno(err, ENOMEM, "SPNEGO");
    client->phase = PHASE_AUTHENTICATE;
    *ret_token = buf_str(&client->out);
    return 0;
}

static int take_last(struct spnego_ntlm_client *client, const struct spnego_resp *resp, struct err *err)
{
    if (resp->state != SPNEGO_ACCEPT_COMPLETED)
        return err_set(err, ERR_AUTH, "the server goes on asking after NTLM was answered");
    if (resp->has_mic && !(client->mic_sent && ntlm_seal_verify(&client->seal, client->mech_list, resp->mic)))
        return err_set(err, ERR_AUTH, "the server's MIC over the list of mechanisms is wrong: somebody is in between");
    client->phase = PHASE_DONE;
    return 0;
}

int spnego_ntlm_client_step(struct spnego_ntlm_client *client, struct str token, struct str *ret_token, struct err *err)
{
    struct spnego_resp resp;
    *ret_token = STR_NONE;
    if (client->phase == PHASE_FIRST) /* the empty challenge, or a text, of a server that got no initial response */
        return spnego_ntlm_client_first(client, ret_token) ? 0 : err_errno(err, ENOMEM, "SPNEGO");
    if (!spnego_read_resp(token, &resp))
        return err_set(err, ERR_AUTH, "the server's answer is no SPNEGO, or is malformed");
    if (resp.state == SPNEGO_REJECT)
        return err_set(err, ERR_AUTH, "the server rejects NTLM inside SPNEGO");
    if (client->phase == PHASE_OPEN)
        return take_challenge(client, &resp, ret_token, err);
    if (client->phase == PHASE_AUTHENTICATE)
        return take_last(client, &resp, err);
    return err_set(err, ERR_AUTH, "the server goes on asking after SPNEGO was complete");
}

bool spnego_ntlm_client_complete(const struct spnego_ntlm_client *client)
{
    return client->phase == PHASE_AUTHENTICATE || client->phase == PHASE_DONE;
}

bool spnego_ntlm_client_seal(struct spnego_ntlm_client *client, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ .broken = true };
    if (!spnego_ntlm_client_complete(client) || !client->has_seal || !ntlm_seal_restart(&client->seal))
        return false;
    *ret_seal = client->seal;
    secret_wipe(&client->seal, sizeof client->seal);
    client->seal.broken = true;
    client->has_seal = false;
    return true;
}
