/* AUTH (RFC 4954), the sender's side: commands, challenges and their base64. The mechanism itself is the
 * caller's. */
#include "base/base64.h"
#include "smtp/client_internal.h"

enum { COMMAND_LINE_MAX_BYTES = 512 };

/* `raw` in base64; an empty one is `empty`. */
static void add_response(struct smtp_client *client, struct str raw, const char *empty)
{
    if (raw.n == 0)
        buf_add_c(&client->out, empty);
    else
        base64_encode(raw, &client->out);
}

static void auth_sent(struct smtp_client *client, int64_t now_ms)
{
    smtp_client_set_state(client, SMTP_CLIENT_AUTH_SENT);
    client->pending = SMTP_CLIENT_READ;
    smtp_client_await(client, SMTP_CLIENT_STAGE_AUTH, now_ms);
}

static void trace_auth(struct smtp_client *client, bool payload)
{
    char text[sizeof client->auth_command + 8];
    int n = snprintf(text, sizeof text, "%s%s", client->auth_command, payload ? " ****" : "");
    smtp_client_trace(client, '>', str_slice(text, (size_t)n));
}

static void add_command(struct smtp_client *client, struct str mechanism, bool exps)
{
    snprintf(client->auth_command, sizeof client->auth_command, "%s %.*s", exps ? "X-EXPS" : "AUTH",
             mechanism.n > 64 ? 64 : (int)mechanism.n, mechanism.n ? mechanism.p : "");
    buf_add_c(&client->out, exps ? "X-EXPS " : "AUTH ");
    buf_add(&client->out, mechanism);
}

void smtp_client_auth_begin(struct smtp_client *client, struct str mechanism, bool exps, bool has_initial,
                            struct str initial, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_AUTH_WAIT)
        return;
    for (size_t i = 0; i < mechanism.n; i++) {
        if (ascii_alnum(mechanism.p[i]) || mechanism.p[i] == '-' || mechanism.p[i] == '_')
            continue;
        smtp_client_over(client, "4.7.0", "the mechanism's name is not fit for AUTH");
        return;
    }
    size_t line_bytes = STR("X-EXPS ").n + mechanism.n + 1 + base64_encoded_bytes(initial.n) + 2;
    bool now = has_initial && line_bytes <= COMMAND_LINE_MAX_BYTES;
    add_command(client, mechanism, exps);
    if (now) {
        buf_add_char(&client->out, ' ');
        add_response(client, initial, "=");
    }
    buf_add(&client->out, STR("\r\n"));
    client->auth_held = has_initial && !now;
    client->auth_bare = !now;
    buf_wipe(&client->auth);
    if (client->auth_held)
        buf_add(&client->auth, initial);
    trace_auth(client, now);
    auth_sent(client, now_ms);
}

static void respond(struct smtp_client *client, struct str response)
{
    add_response(client, response, "");
    buf_add(&client->out, STR("\r\n"));
    smtp_client_trace(client, '>', STR("****"));
}

void smtp_client_auth_response(struct smtp_client *client, struct str response, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_AUTH_WAIT)
        return;
    respond(client, response);
    auth_sent(client, now_ms);
}

void smtp_client_auth_cancel(struct smtp_client *client, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_AUTH_WAIT)
        return;
    client->auth_cancelled = true;
    smtp_client_command(client, STR("*"));
    auth_sent(client, now_ms);
}

void smtp_client_auth_skip(struct smtp_client *client)
{
    if (client->state == SMTP_CLIENT_AUTH_WAIT && client->options.auth_optional)
        smtp_client_become_ready(client);
}

struct str smtp_client_auth_command(const struct smtp_client *client)
{
    return str_of(client->auth_command);
}

struct smtp_client_result smtp_client_auth_result(const struct smtp_client *client)
{
    return smtp_client_result_of(client, &client->refused);
}

static void challenge(struct smtp_client *client, struct str line, int64_t now_ms)
{
    bool bare = client->auth_bare;
    client->auth_bare = false;
    if (client->auth_held) {
        client->auth_held = false;
        if (!client->auth.failed)
            respond(client, buf_str(&client->auth));
        buf_wipe(&client->auth);
        smtp_client_await(client, SMTP_CLIENT_STAGE_AUTH, now_ms);
        return;
    }
    buf_wipe(&client->auth);
    if (!base64_decode(str_trim(line), &client->auth) && !bare) {
        smtp_client_over(client, "4.7.0", "the server's challenge is not base64");
        return;
    }
    /* Exchange answers a bare AUTH with words ("334 GSSAPI supported"): they mean an empty challenge. */
    client->auth.failed = false;
    smtp_client_set_state(client, SMTP_CLIENT_AUTH_WAIT);
    client->pending = SMTP_CLIENT_AUTH_CHALLENGE;
    client->deadline_ms = -1;
}

void smtp_client_auth_reply(struct smtp_client *client, const struct smtp_reply *reply, struct str line,
                            int64_t now_ms)
{
    if (reply->code >= 400)
        smtp_client_record(client, &client->refused, SMTP_CLIENT_STAGE_AUTH, reply->code, reply->enhanced, reply->text);
    if (reply->code >= 400 && client->options.auth_optional) {
        buf_wipe(&client->auth);
        smtp_client_become_ready(client);
    } else if (client->auth_cancelled && reply->code >= 300) {
        smtp_client_over(client, "4.7.0", "authentication was given up by this side");
    } else if (reply->code == 235 && !client->auth_held && !client->auth_cancelled) {
        client->authenticated = true;
        buf_wipe(&client->auth);
        smtp_client_become_ready(client);
    } else if (reply->code == 334) {
        challenge(client, line, now_ms);
    } else if (reply->code >= 400) {
        smtp_client_over_reply(client, SMTP_CLIENT_STAGE_AUTH, reply);
    } else {
        smtp_client_out_of_step(client, reply);
    }
}
