/* AUTH at a next hop: auth holds the password and runs the mechanism; this file carries tokens. */
#include <stdio.h>

#include "daemon/delivery/delivery.h"

enum { LOGIN_TIMEOUT_MS = 60000, REPLY_MAX_BYTES = 1500 };

static struct conn *find(struct delivery *d, uint32_t question)
{
    struct conn *conn = NULL;
    HASH_FIND(hh, d->logins, &question, sizeof question, conn);
    return conn;
}

static void wait_for_auth(struct conn *conn)
{
    conn->deadline_ms = loop_now_ms(conn->delivery->ctx->loop) + LOGIN_TIMEOUT_MS;
}

void login_begin(struct conn *conn, struct str mechanisms, struct str exps_mechanisms)
{
    struct delivery *d = conn->delivery;
    if (!d->auth) {
        conn_fail(conn, false, "4.7.0", "%s: our authentication service is restarting", conn->relay);
        return;
    }
    do
        conn->question = ++d->last_question;
    while (conn->question == 0 || find(d, conn->question));
    HASH_ADD(hh, d->logins, question, sizeof conn->question, conn);
    if (!hash_has(conn)) {
        conn->question = 0;
        conn_fail(conn, false, "4.3.0", "%s: out of memory", conn->relay);
        return;
    }
    conn->login_begun = true;
    conn->login_complete = false;
    conn->mechanism[0] = 0;
    struct ipc_login_start m = { .flags = conn->tls ? IPC_AUTH_FLAG_TLS : 0, .domain = str_of(conn->hop->block->name),
                                 .host = smtp_client_peer_name(conn->client), .offered = mechanisms,
                                 .offered_exps = exps_mechanisms };
    unsigned char hash[TLS_HASH_MAX], exporter[TLS_EXPORTER_BYTES];
    if (conn->tls) {
        m.cert_hash = str_slice(hash, tls_session_endpoint_hash(conn->tls, hash));
        m.exporter = str_slice(exporter, tls_session_exporter(conn->tls, exporter));
    }
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    ipc_put_login_start(&body, &m);
    channel_send(d->auth, IPC_LOGIN_START, conn->question, buf_str(&body));
    buf_done(&body);
    wait_for_auth(conn);
}

void login_challenge(struct conn *conn, struct str challenge)
{
    struct delivery *d = conn->delivery;
    if (!d->auth || !conn->question || channel_send(d->auth, IPC_LOGIN_STEP, conn->question, challenge) < 0)
        conn_fail(conn, false, "4.7.0", "%s: our authentication service is restarting", conn->relay);
    else
        wait_for_auth(conn);
}

/* What the next hop made of it, for auth's event. */
void login_decided(struct conn *conn, bool accepted, struct str reply)
{
    struct delivery *d = conn->delivery;
    if (!conn->question || !d->auth)
        return;
    struct ipc_login_end m = { .accepted = accepted, .optional = conn->hop->block->auth_optional,
                               .relay = str_of(conn->relay), .command = smtp_client_auth_command(conn->client),
                               .reply = str_slice(reply.p, reply.n < REPLY_MAX_BYTES ? reply.n : REPLY_MAX_BYTES) };
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    ipc_put_login_end(&body, &m);
    channel_send(d->auth, IPC_LOGIN_END, conn->question, buf_str(&body));
    buf_done(&body);
    HASH_DEL(d->logins, conn);
    conn->question = 0;
}

void login_end(struct conn *conn)
{
    struct delivery *d = conn->delivery;
    conn->login_begun = false;
    if (!conn->question)
        return;
    HASH_DEL(d->logins, conn);
    if (d->auth)
        channel_send(d->auth, IPC_LOGIN_CANCEL, conn->question, STR_NONE);
    conn->question = 0;
}

static bool on_response(struct conn *conn, struct str body)
{
    struct ipc_login_response m;
    if (!ipc_get_login_response(body, &m))
        return false;
    if (!conn)
        return true;
    int64_t now_ms = loop_now_ms(conn->delivery->ctx->loop);
    conn->deadline_ms = 0;
    conn->login_complete = m.complete;
    struct err err;
    int rc = 0;
    layer_free(&conn->next_layer);
    if (m.layer.kind != IPC_LAYER_NONE)
        rc = conn->tls ? err_set(&err, ERR_AUTH, "there is TLS already") : layer_new(&m.layer, &conn->next_layer, &err);
    if (rc < 0) {
        conn_fail(conn, false, "4.7.0", "%s: the security layer of the login cannot be used: %s", conn->relay, err_text(&err));
        return true;
    }
    if (m.has_mechanism) {
        str_copy(m.mechanism, conn->mechanism, sizeof conn->mechanism);
        conn->exps = m.exps;
        smtp_client_auth_begin(conn->client, m.mechanism, m.exps, m.has_response, m.response, now_ms);
    } else {
        smtp_client_auth_response(conn->client, m.response, now_ms);
    }
    smtp_input(conn, STR_NONE);
    return true;
}

/* Auth has said why in the log. */
static void on_refused(struct conn *conn, struct str why)
{
    if (!conn)
        return;
    HASH_DEL(conn->delivery->logins, conn);
    conn->question = 0;
    conn->login_begun = false;
    conn->deadline_ms = 0;
    if (!conn->hop->block->auth_optional) {
        conn_fail(conn, false, "4.7.8", "cannot log in at %s: %.*s", conn->relay, STR_ARG(why));
        return;
    }
    if (conn->mechanism[0])
        smtp_client_auth_cancel(conn->client, loop_now_ms(conn->delivery->ctx->loop));
    else
        smtp_client_auth_skip(conn->client);
    smtp_input(conn, STR_NONE);
}

bool login_message(struct delivery *d, unsigned type, uint32_t id, struct str body)
{
    struct conn *conn = find(d, id);
    if (type == IPC_LOGIN_RESPONSE)
        return on_response(conn, body);
    if (type != IPC_LOGIN_FAILED)
        return false;
    on_refused(conn, body);
    return true;
}

void login_auth_gone(struct delivery *d)
{
    struct conn *conn, *next;
    HASH_ITER(hh, d->logins, conn, next) {
        HASH_DEL(d->logins, conn);
        conn->question = 0;
        conn_fail(conn, false, "4.7.0", "%s: our authentication service is restarting", conn->relay);
    }
}
