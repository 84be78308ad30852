/* AUTH: the machine's events become questions to the auth role; its answers become challenges and verdicts.
 * Ways to fail: auth is away or dies (454 4.7.0), the client cancels or goes away (auth is told). What auth says about
 * rights is all that this process knows about a user. */
#include <stdlib.h>

#include "daemon/smtpd/smtpd.h"
#include "io/now.h"

static void forget_attempt(struct session *s)
{
    free(s->mechanism);
    s->mechanism = NULL;
}

static bool unavailable(struct session *s)
{
    ask_forget(s->smtpd->asks, s);
    s->owed_since_ms = 0;
    smtp_server_auth_done(s->machine, false, 454, "4.7.0", "Authentication is not available for the moment, try again later");
    return true;
}

static bool begin(struct session *s, const struct smtp_server_event *event)
{
    struct smtpd *smtpd = s->smtpd;
    forget_attempt(s);
    s->mechanism = str_dup(event->mechanism);
    s->exps = event->exps;
    uint32_t id = smtpd->auth && s->mechanism ? ask_begin(smtpd->asks, ASK_AUTH, s) : 0;
    if (!id)
        return unavailable(s);
    unsigned char hash[TLS_HASH_MAX], exporter[TLS_EXPORTER_BYTES];
    char client[NETWORK_TEXT_BYTES];
    network_address_format(s->address, client);
    struct ipc_auth_start m = {
        .flags = (uint16_t)((s->tls ? IPC_AUTH_FLAG_TLS : 0) | (s->rules.plaintext ? IPC_AUTH_FLAG_PLAINTEXT : 0) |
                            (event->has_initial ? IPC_AUTH_FLAG_INITIAL : 0) | (s->exps ? IPC_AUTH_FLAG_EXPS : 0)),
        .port = s->port, .mechanism = event->mechanism, .server = str_of(s->server->conf->name),
        .client = str_of(client), .helo = smtp_server_helo(s->machine), .session = str_of(s->id),
        .offered = str_of(s->exps ? s->exps_mechanisms : s->mechanisms), .initial = event->data,
    };
    if (s->tls) {
        struct tls_info info;
        tls_info(s->tls, &info);
        m.tls = str_of(info.version);
        m.cert_hash = str_slice(hash, tls_session_endpoint_hash(s->tls, hash));
        m.exporter = str_slice(exporter, tls_session_exporter(s->tls, exporter));
    }
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    ipc_put_auth_start(&body, &m);
    int rc = body.failed ? ERR_LIMIT : channel_send(smtpd->auth, IPC_AUTH_START, id, buf_str(&body));
    buf_wipe(&body);
    s->owed_since_ms = now_mono_ms();
    return rc < 0 ? unavailable(s) : false;
}

static bool respond(struct session *s, const struct smtp_server_event *event)
{
    if (!s->smtpd->auth || !s->ask_id || channel_send(s->smtpd->auth, IPC_AUTH_STEP, s->ask_id, event->data) < 0)
        return unavailable(s);
    s->owed_since_ms = now_mono_ms();
    return false;
}

void smtpd_login_cancel(struct session *s)
{
    if (s->ask_id && s->mechanism && s->smtpd->auth)
        channel_send(s->smtpd->auth, IPC_AUTH_CANCEL, s->ask_id, STR_NONE);
    ask_forget(s->smtpd->asks, s);
    s->owed_since_ms = 0;
}

bool smtpd_login_event(struct session *s, const struct smtp_server_event *event)
{
    if (event->type == SMTP_SERVER_AUTH)
        return begin(s, event);
    if (event->type == SMTP_SERVER_AUTH_RESPONSE)
        return respond(s, event);
    smtpd_login_cancel(s);
    forget_attempt(s);
    return true;
}

static void replace(char **field, struct str value)
{
    free(*field);
    *field = value.n ? str_dup(value) : NULL;
}

/* False: the login is worth nothing without its layer. */
static bool take_layer(struct session *s, const struct ipc_layer *from)
{
    struct err err;
    if (from->kind == IPC_LAYER_NONE)
        return true;
    if (!s->tls && layer_new(from, &s->next_layer, &err) == 0)
        return true;
    log_event(s->smtpd->ctx->log, LOG_LEVEL_ERROR, "smtpd.layer.failed", "session %s: %s", s->id,
              s->tls ? "auth sent a security layer for a session with TLS" : err_text(&err));
    smtp_server_auth_done(s->machine, false, 454, "4.7.0", "Temporary authentication failure");
    return false;
}

static void accepted_as(struct session *s, const struct ipc_auth_done *m)
{
    s->rights = m->rights;
    if (m->rights & IPC_RIGHT_SIZE)
        smtp_server_set_limits(s->machine, &s->server->limits_trusted);
    replace(&s->inner, m->inner);
    replace(&s->mailbox, m->mailbox);
    replace(&s->senders, m->senders);
}

static void verdict(struct session *s, const struct ipc_auth_done *m)
{
    char enhanced[16], text[512];
    bool accepted = m->result == IPC_AUTH_ACCEPTED;
    str_copy(m->enhanced, enhanced, sizeof enhanced);
    str_copy(m->text, text, sizeof text);
    replace(&s->user, m->user);
    replace(&s->cause, m->cause);
    replace(&s->inner, m->inner);
    s->auth_result = accepted ? "accepted" : m->result == IPC_AUTH_TEMPORARY ? "temporary" : "rejected";
    if (accepted && !take_layer(s, &m->layer)) {
        s->auth_result = "temporary";
        return;
    }
    if (accepted)
        accepted_as(s, m);
    unsigned code = m->code >= 400 && m->code < 600 ? m->code : 535; /* the machine takes no other refusal */
    if (s->next_layer) {
        smtp_server_auth_done_layer(s->machine, 0, NULL, NULL);
        s->layer_wanted = !smtp_server_closed(s->machine);
        return; /* what is offered changes with the layer */
    }
    smtp_server_auth_done(s->machine, accepted, accepted ? 0 : code, enhanced[0] ? enhanced : NULL,
                          text[0] ? text : NULL);
    session_set_policy(s);
}

void smtpd_login_message(struct smtpd *smtpd, unsigned type, uint32_t id, struct str body)
{
    if (type == IPC_USER_ANSWER) {
        struct session *s = ask_answered(smtpd->asks, ASK_USER, id, false);
        if (s)
            mail_user_answer(s, body.n == 1 ? (unsigned char)body.p[0] : 2);
        return;
    }
    struct session *s = ask_answered(smtpd->asks, ASK_AUTH, id, true);
    if (!s || !s->owed_since_ms)
        return; /* the session ended meanwhile; or it is the client's turn, and auth spoke out of it */
    s->owed_since_ms = 0;
    if (type != IPC_AUTH_CHALLENGE)
        ask_forget(smtpd->asks, s);
    if (type == IPC_AUTH_CHALLENGE) {
        smtp_server_auth_challenge(s->machine, body);
    } else {
        struct ipc_auth_done m;
        if (ipc_get_auth_done(body, &m))
            verdict(s, &m);
        else
            smtp_server_auth_done(s->machine, false, 454, "4.7.0", "Temporary authentication failure");
    }
    session_resume(s);
}

/* The question is forgotten already. While it is the client's turn the machine takes no answer: the next response finds
 * that there is no question. */
static void fail_auth(struct session *s)
{
    if (!s->owed_since_ms)
        return;
    unavailable(s);
    session_resume(s);
}

static void fail_user(struct session *s)
{
    mail_user_answer(s, 2);
}

void smtpd_login_auth_gone(struct smtpd *smtpd)
{
    asks_fail(smtpd->asks, ASK_AUTH, fail_auth);
    asks_fail(smtpd->asks, ASK_USER, fail_user);
}

void smtpd_login_overdue(struct session *s)
{
    log_event(s->smtpd->ctx->log, LOG_LEVEL_ERROR, "smtpd.auth.overdue", "session %s: the auth process has not answered", s->id);
    if (ask_answered(s->smtpd->asks, ASK_USER, s->ask_id, false)) {
        fail_user(s);
        return;
    }
    smtpd_login_cancel(s);
    unavailable(s);
    session_resume(s);
}
