/* What the machine asks about a message. Happy path: MAIL (may mail come at all?), RCPT (is the domain ours, does the
 * user exist, or may this peer relay?), DATA (a message in the spool is begun), BODY (headers are looked at, octets go
 * to the spool), COMMIT (the spool syncs; its answer becomes 250 with the queue id).
 *
 * Ways to fail: no spare segment (452 4.3.1 at MAIL), a full or failing disk (the content is read to its end, then
 * 452 or 451), a mail loop (554 5.4.6), a recipient that does not exist (550 5.1.1) or may not be reached
 * (550 5.7.1), the auth role away when a user must be looked up (451 4.3.0). */
#include <stdlib.h>

#include "daemon/smtpd/smtpd.h"
#include "io/now.h"
#include "policy/route.h"
#include "policy/sender.h"
#include "smtp/params.h"

enum { STRIP_PATTERNS_MAX = 64, REPLY_BYTES = 512, ENVELOPE_ARENA_BYTES = 8 << 20 };

struct mail {
    struct spool_message *message;
    struct smtp_header header;
    struct str strip[STRIP_PATTERNS_MAX];
    struct err error;                    /* why the content cannot be kept; code 0: it can */
    struct session *session;
    struct smtp_server_transaction *transaction;
    bool committing;
};

void mail_discard(struct session *s)
{
    struct mail *m = s->mail;
    if (!m)
        return;
    s->mail = NULL;
    if (m->committing) {
        /* The spool keeps the message (250 was not said; the client will send it again: at least once). */
        spool_message_forget(m->message);
    } else if (m->message) {
        spool_message_abort(m->message);
    }
    free(m);
}

/* At full speed a spare may be a moment late: worth a short wait before a client is sent away. */
static bool wait_for_spare(struct session *s)
{
    s->spare_wanted_since_ms = now_mono_ms();
    s->smtpd->n_waiting_for_spare++;
    return false;
}

void mail_spare_came(struct session *s, bool in_time)
{
    s->spare_wanted_since_ms = 0;
    s->smtpd->n_waiting_for_spare--;
    if (smtp_server_closed(s->machine))
        return;
    if (in_time)
        smtp_server_accept(s->machine);
    else
        smtp_server_reject(s->machine, 452, "4.3.1", "Insufficient system storage, try again later");
    session_resume(s);
}

/* Who has logged in sends as somebody that it is, where the site wants that. */
static bool may_send_as(const struct session *s, struct str sender)
{
    if (!smtp_server_authenticated(s->machine) || !sender_is_restricted(s->site->conf, s->rules.send_as))
        return true;
    return sender_is_allowed(str_of(s->mailbox), str_of(s->senders), s->rights, sender);
}

static bool on_mail(struct session *s, const struct smtp_server_event *event)
{
    struct smtpd *smtpd = s->smtpd;
    struct str sender = event->transaction->sender.text;
    s->n_mails++;
    if (!may_send_as(s, sender)) {
        smtp_server_reject(s->machine, SENDER_REPLY_CODE, SENDER_REPLY_ENHANCED, SENDER_REPLY_TEXT);
        tell_refused(s, "sender", sender, SENDER_REPLY_CODE, SENDER_REPLY_TEXT);
    } else if (smtp_server_authenticated(s->machine) && !(s->rights & IPC_RIGHT_SUBMIT)) {
        smtp_server_reject(s->machine, 550, "5.7.1", "You may not send mail through this server");
    } else if (smtpd->intake_paused) {
        smtp_server_reject(s->machine, 450, "4.3.2", "Not taking mail for the moment, try again later");
    } else if (!spool_writer_can_accept(smtpd->writer)) {
        return wait_for_spare(s);
    } else {
        smtp_server_accept(s->machine);
    }
    return true;
}

/* ---- recipients ---- */

static void lower(struct str s, char *ret, size_t bytes)
{
    size_t n = s.n < bytes - 1 ? s.n : bytes - 1;
    for (size_t i = 0; i < n; i++)
        ret[i] = ascii_lower(s.p[i]);
    ret[n] = 0;
}

/* The reply is: before <address>after. */
static void refuse_recipient(struct session *s, const struct smtp_server_recipient *r, unsigned code,
                             const char *enhanced, const char *before, const char *after)
{
    char text[REPLY_BYTES];
    snprintf(text, sizeof text, "%s <%.*s>%s", before, STR_ARG(r->address.text), after);
    smtp_server_reject(s->machine, code, enhanced, text);
    tell_refused(s, "recipient", r->address.text, code, text);
}

static void accept_recipient(struct session *s, bool relayed)
{
    s->n_recipients++;
    s->n_relayed += relayed;
    smtp_server_accept(s->machine);
}

/* Asks auth whether a user exists (the address without quotes, in lower case); the answer comes through
 * mail_user_answer(). */
static bool look_up_user(struct session *s, const struct smtp_server_recipient *r,
                         const char plain_local[SMTP_ADDRESS_LOCAL_MAX_BYTES + 1])
{
    char address[SMTP_ADDRESS_LOCAL_MAX_BYTES + SMTP_ADDRESS_DOMAIN_MAX_BYTES + 2], domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1];
    lower(r->address.domain, domain, sizeof domain);
    snprintf(address, sizeof address, "%s@%s", plain_local, domain);
    uint32_t id = s->smtpd->auth ? ask_begin(s->smtpd->asks, ASK_USER, s) : 0;
    if (!id || channel_send(s->smtpd->auth, IPC_USER_QUERY, id, str_of(address)) < 0) {
        ask_forget(s->smtpd->asks, s);
        refuse_recipient(s, r, 451, "4.3.0", "Cannot look up", " for the moment, try again later");
        return true;
    }
    s->asked = r;
    s->owed_since_ms = now_mono_ms();
    return false;
}

static bool local_recipient(struct session *s, const struct smtp_server_recipient *r, int block_index)
{
    const struct conf_domain *block = &s->site->conf->domain[block_index];
    char plain[SMTP_ADDRESS_LOCAL_MAX_BYTES + 1];
    struct buf local;
    buf_init(&local, sizeof plain);
    smtp_address_local_plain(&r->address, &local);
    enum recipient_form form = recipient_check_local(buf_str(&local));
    lower(buf_str(&local), plain, sizeof plain);
    buf_done(&local);
    if (form != RECIPIENT_OK) {
        char after[128];
        snprintf(after, sizeof after, ": %s", recipient_form_text(form));
        refuse_recipient(s, r, 550, "5.1.3", "Bad recipient address", after);
        return true;
    }
    switch (recipient_source(block)) {
    case RECIPIENT_USERS: return look_up_user(s, r, plain);
    case RECIPIENT_FILE:
        if (!s->site->recipients[block_index] ||
            !recipient_table_has(s->site->recipients[block_index], str_of(plain), r->address.domain)) {
            refuse_recipient(s, r, 550, "5.1.1", "No such user here:", "");
            return true;
        }
        break;
    case RECIPIENT_ANY: break;
    }
    accept_recipient(s, false);
    return true;
}

static bool on_rcpt(struct session *s, const struct smtp_server_event *event)
{
    const struct smtp_server_recipient *r = event->recipient;
    const struct conf *conf = s->site->conf;
    char domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1];
    lower(r->address.domain, domain, sizeof domain);
    int index = domain[0] ? route_find(conf, str_of(domain)) : -1;
    const struct conf_domain *block = index >= 0 ? &conf->domain[index] : NULL;
    bool postmaster = recipient_is_postmaster(r->address.local, str_of(domain), block);
    struct verdict_recipient in = { .rules = &s->rules, .user_may_relay = (s->rights & IPC_RIGHT_RELAY) != 0,
                                    .block = block, .postmaster = postmaster };
    switch (verdict_recipient(&in)) {
    case VERDICT_RECIPIENT_REFUSED:
        refuse_recipient(s, r, 550, "5.7.1", "Unable to relay for", "");
        return true;
    case VERDICT_RECIPIENT_RELAY: accept_recipient(s, true); return true;
    case VERDICT_RECIPIENT_OK: break;
    }
    if (postmaster) {
        accept_recipient(s, false);
        return true;
    }
    return local_recipient(s, r, index);
}

void mail_user_answer(struct session *s, unsigned answer)
{
    const struct smtp_server_recipient *r = s->asked;
    s->asked = NULL;
    s->owed_since_ms = 0;
    if (answer == 1)
        accept_recipient(s, false);
    else if (answer == 0)
        refuse_recipient(s, r, 550, "5.1.1", "No such user here:", "");
    else
        refuse_recipient(s, r, 451, "4.3.0", "Cannot look up", " for the moment, try again later");
    session_resume(s);
}

/* ---- content ---- */

static bool on_data(struct session *s, const struct smtp_server_event *event)
{
    (void)event;
    struct mail *m = calloc(1, sizeof *m);
    if (m)
        m->message = spool_message_begin(s->smtpd->writer);
    if (!m || !m->message) {
        free(m);
        smtp_server_reject(s->machine, 452, "4.3.1", "Out of memory, try again later");
        return true;
    }
    m->session = s;
    bool trusted = smtp_server_authenticated(s->machine) && (s->rights & IPC_RIGHT_HEADERS);
    size_t n = trusted ? 0 : s->rules.strip_headers.n < STRIP_PATTERNS_MAX ? s->rules.strip_headers.n : STRIP_PATTERNS_MAX;
    for (size_t i = 0; i < n; i++)
        m->strip[i] = str_of(s->rules.strip_headers.item[i]);
    smtp_header_init(&m->header, m->strip, n);
    s->mail = m;
    smtp_server_accept(s->machine);
    return true;
}

static void keep(struct mail *m, struct str slice)
{
    if (slice.n && m->error.code == 0)
        spool_message_write(m->message, slice, &m->error);
}

static bool on_body(struct session *s, const struct smtp_server_event *event)
{
    struct mail *m = s->mail;
    struct str in = event->data;
    while (in.n && !m->header.done) {
        size_t used = 0;
        keep(m, smtp_header_feed(&m->header, in, &used));
        in = str_skip(in, used);
    }
    keep(m, in);
    return true;
}

static bool add_prefix(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    (void)id;
    const struct mail *m = arg;
    const struct session *s = m->session;
    /* The line is out before the queue can know of the message, so that each log tells its story in order. */
    tell_queued(s, queue_id);
    if (!tell_received(s, m->transaction, str_of(queue_id), out))
        return false;
    bool submission = s->listener->kind != CONF_LISTEN || smtp_server_authenticated(s->machine);
    return !submission || tell_missing_headers(s, &m->header, queue_id, out);
}

/* No room, as opposed to a disk that fails: 452, not 451. */
static bool is_full(int code)
{
    return code == ERR_BUSY || code == -ENOSPC || code == -EDQUOT || code == -EFBIG;
}

static void committed(void *arg, int result, uint64_t id)
{
    struct mail *m = arg;
    struct session *s = m->session;
    char queue_id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(id, queue_id);
    s->mail = NULL;
    if (result == 0) {
        smtp_server_committed(s->machine, str_of(queue_id));
    } else if (is_full(result)) {
        smtp_server_reject(s->machine, 452, "4.3.1", "Insufficient system storage, try again later");
    } else if (result == ERR_LIMIT) {
        smtp_server_reject(s->machine, 552, "5.3.4", "Envelope and trace headers are too large");
    } else {
        smtp_server_reject(s->machine, 451, "4.3.0", "The message could not be stored, try again later");
    }
    free(m);
    session_resume(s);
}

static void decode_xtext(struct arena *arena, struct str xtext, struct str *ret)
{
    struct buf plain;
    buf_init(&plain, SPOOL_FIELD_MAX);
    if (xtext.n && smtp_xtext_decode(xtext, &plain))
        *ret = arena_copy(arena, buf_str(&plain));
    buf_done(&plain);
}

static struct str decode_orcpt(struct arena *arena, struct str orcpt)
{
    struct str type, rest = orcpt, value = STR_NONE;
    if (!orcpt.n || !str_cut(&rest, ';', &type))
        return STR_NONE;
    decode_xtext(arena, rest, &value);
    const char *text = value.n ? arena_printf(arena, "%.*s;%.*s", STR_ARG(type), STR_ARG(value)) : NULL;
    return str_of(text);
}

/* <postmaster> and postmaster@ours are delivered to the configured address. */
static struct str recipient_address(const struct session *s, const struct smtp_server_recipient *r)
{
    const struct conf *conf = s->site->conf;
    char domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1];
    lower(r->address.domain, domain, sizeof domain);
    int index = domain[0] ? route_find(conf, str_of(domain)) : -1;
    const struct conf_domain *block = index >= 0 ? &conf->domain[index] : NULL;
    if (conf->postmaster && recipient_is_postmaster(r->address.local, str_of(domain), block))
        return str_of(conf->postmaster);
    return r->address.text;
}

static bool fill_envelope(const struct session *s, const struct smtp_server_transaction *t, struct arena *arena,
                          struct spool_envelope *e)
{
    struct spool_recipient *recipients = arena_alloc(arena, t->n_recipients * sizeof *recipients);
    if (!recipients)
        return false;
    size_t n = 0;
    bool any_utf8 = false;
    for (const struct smtp_server_recipient *r = t->recipients; r && n < t->n_recipients; r = r->next) {
        recipients[n].address = recipient_address(s, r);
        any_utf8 = any_utf8 || r->address.utf8;
        recipients[n].orcpt = decode_orcpt(arena, r->orcpt);
        recipients[n++].notify = (uint8_t)r->notify;
    }
    e->recipient = recipients;
    e->n_recipients = n;
    e->reverse_path = t->sender.text;
    e->ret = t->ret == SMTP_RET_FULL ? SPOOL_RET_FULL : t->ret == SMTP_RET_HDRS ? SPOOL_RET_HDRS : SPOOL_RET_UNSET;
    /* What was announced but is not needed does not keep the message from older hops. */
    bool needs_utf8 = t->smtputf8 && (any_utf8 || t->sender.utf8 || s->mail->header.has_8bit);
    e->flags = (t->body_8bit || t->content_8bit ? (unsigned)SPOOL_FLAG_8BIT : 0u) |
               (needs_utf8 ? (unsigned)SPOOL_FLAG_SMTPUTF8 : 0u);
    decode_xtext(arena, t->envid, &e->envid);
    if (str_eq(t->auth, STR("<>")))
        e->auth = t->auth;
    else
        decode_xtext(arena, t->auth, &e->auth);
    return true;
}

static bool begin_commit(struct session *s, struct mail *m)
{
    struct smtp_server_transaction *t = smtp_server_transaction(s->machine);
    char client[NETWORK_TEXT_BYTES], tls[128] = "";
    network_address_format(s->address, client);
    if (s->tls) {
        struct tls_info info;
        tls_info(s->tls, &info);
        snprintf(tls, sizeof tls, "%s %s", info.version, info.cipher);
    }
    struct spool_envelope e = {
        .arrival_wall_ms = now_wall_ms(), .server = str_of(s->server->conf->name), .session = str_of(s->id),
        .client_address = str_of(client), .client_name = STR("unknown"), .helo = smtp_server_helo(s->machine),
        .protocol = str_of(tell_protocol(s, t)), .user = tell_user(s), .tls = str_of(tls),
    };
    struct arena arena;
    arena_init(&arena, ENVELOPE_ARENA_BYTES);
    bool ok = fill_envelope(s, t, &arena, &e);
    if (ok) {
        m->transaction = t;
        m->committing = true;
        struct spool_commit commit = { .envelope = &e, .prefix = add_prefix, .done = committed, .arg = m };
        spool_message_commit(m->message, &commit);
    }
    arena_done(&arena);
    return ok;
}

static bool on_commit(struct session *s, const struct smtp_server_event *event)
{
    (void)event;
    struct mail *m = s->mail;
    keep(m, smtp_header_end(&m->header));
    if (m->header.n_received > s->site->conf->max_hops) {
        mail_discard(s);
        smtp_server_reject(s->machine, 554, "5.4.6", "Too many Received headers: this message is going in a circle");
        return true;
    }
    if (m->error.code == 0 && begin_commit(s, m))
        return false;
    bool full = is_full(m->error.code);
    if (m->error.code)
        log_event(s->smtpd->ctx->log, LOG_LEVEL_ERROR, "spool.write.failed", "session %s: %s", s->id, m->error.text);
    mail_discard(s);
    if (full)
        smtp_server_reject(s->machine, 452, "4.3.1", "Insufficient system storage, try again later");
    else
        smtp_server_reject(s->machine, 451, "4.3.0", "The message could not be stored, try again later");
    return true;
}

bool mail_event(struct session *s, const struct smtp_server_event *event)
{
    switch (event->type) {
    case SMTP_SERVER_MAIL: return on_mail(s, event);
    case SMTP_SERVER_RCPT: return on_rcpt(s, event);
    case SMTP_SERVER_DATA: return on_data(s, event);
    case SMTP_SERVER_BODY: return on_body(s, event);
    default: return on_commit(s, event);
    }
}
