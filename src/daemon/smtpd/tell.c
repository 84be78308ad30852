/* What is written about a session and a message: trace headers into the message, lines into the logs. */
#include <jansson.h>
#include <stdlib.h>

#include "base/clock.h"
#include "daemon/smtpd/smtpd.h"
#include "io/now.h"
#include "smtp/trace.h"

enum { TRACE_LINE_BYTES = 4096 };

const char *tell_protocol(const struct session *s, const struct smtp_server_transaction *t)
{
    return smtp_trace_protocol(smtp_server_is_esmtp(s->machine), s->tls != NULL, smtp_server_authenticated(s->machine),
                               t->smtputf8);
}

bool tell_received(const struct session *s, const struct smtp_server_transaction *t, struct str queue_id,
                   struct buf *out)
{
    char client[NETWORK_TEXT_BYTES], date[CLOCK_TEXT_BYTES];
    network_address_format(s->address, client);
    clock_rfc5322(now_wall_ms(), date);
    struct smtp_trace trace = {
        .helo = smtp_server_helo(s->machine), .client_ip = str_of(client), .server_name = str_of(s->server->conf->name),
        .server_text = STR("Postern"), .queue_id = queue_id, .esmtp = smtp_server_is_esmtp(s->machine),
        .authenticated = smtp_server_authenticated(s->machine), .smtputf8 = t->smtputf8, .date = str_of(date),
    };
    struct tls_info info;
    if (s->tls) {
        tls_info(s->tls, &info);
        trace.tls_version = str_of(info.version);
        trace.tls_cipher = str_of(info.cipher);
        trace.tls_bits = info.cipher_bits;
    }
    if (t->n_recipients == 1)
        trace.recipient = t->recipients->address.text;
    return smtp_trace_received(&trace, out);
}

bool tell_missing_headers(const struct session *s, const struct smtp_header *header, const char *queue_id,
                          struct buf *out)
{
    char date[CLOCK_TEXT_BYTES];
    if (!header->has_date) {
        clock_rfc5322(now_wall_ms(), date);
        buf_addf(out, "Date: %s\r\n", date);
    }
    if (!header->has_message_id)
        buf_addf(out, "Message-ID: <%s.%s@%s>\r\n", queue_id, s->id, s->server->conf->name);
    return !out->failed;
}

struct str tell_user(const struct session *s)
{
    return smtp_server_authenticated(s->machine) ? str_of(s->user) : STR_NONE;
}

void tell_queued(const struct session *s, const char *queue_id)
{
    char client[NETWORK_TEXT_BYTES];
    network_address_format(s->address, client);
    struct log *log = s->smtpd->ctx->log;
    struct str user = tell_user(s);
    if (user.n && s->mechanism)
        log_mail(log, LOG_LEVEL_INFO, "smtpd", "%s: client=unknown[%s]:%u, sasl_method=%s, sasl_username=%.*s, session=%s",
                 queue_id, client, s->port, s->mechanism, STR_ARG(user), s->id);
    else
        log_mail(log, LOG_LEVEL_INFO, "smtpd", "%s: client=unknown[%s]:%u, session=%s", queue_id, client, s->port, s->id);
}

void tell_refused(const struct session *s, const char *what, struct str address, unsigned code, const char *text)
{
    char client[NETWORK_TEXT_BYTES];
    network_address_format(s->address, client);
    struct log_record r;
    log_begin(&r, s->smtpd->ctx->log, LOG_LEVEL_NOTICE, "smtpd.refused");
    log_cstr(&r, "what", what);
    log_cstr(&r, "server", s->server->conf->name);
    log_cstr(&r, "client", client);
    log_int(&r, "port", s->port);
    if (s->helo)
        log_cstr(&r, "helo", s->helo);
    if (address.n)
        log_str(&r, strcmp(what, "sender") == 0 ? "from" : "to", address);
    if (smtp_server_authenticated(s->machine)) {
        log_str(&r, "user", tell_user(s));
        log_str(&r, "mailbox", str_of(s->mailbox));
        log_str(&r, "senders", str_of(s->senders));
    }
    log_int(&r, "reply", code);
    log_cstr(&r, "text", text);
    log_cstr(&r, "session", s->id);
    log_end(&r);
}

/* Control characters of a peer do not reach the file; AUTH payloads were masked by the machine. */
static void add_printable(struct buf *b, struct str line)
{
    for (size_t i = 0; i < line.n; i++) {
        unsigned char c = (unsigned char)line.p[i];
        if (c < 0x20 || c == 0x7f)
            buf_addf(b, "\\x%02x", c);
        else
            buf_add_char(b, (char)c);
    }
}

void tell_trace(void *arg, bool from_client, struct str line)
{
    const struct session *s = arg;
    if (!s->server->protocol_log)
        return;
    char time[CLOCK_TEXT_BYTES], client[NETWORK_TEXT_BYTES];
    clock_rfc3339(now_wall_ms(), time);
    network_address_format(s->address, client);
    struct buf b;
    buf_init(&b, TRACE_LINE_BYTES);
    buf_addf(&b, "%s %s [%s]:%u %c ", time, s->id, client, s->port, from_client ? '<' : '>');
    add_printable(&b, line);
    log_stream_add(s->server->protocol_log, buf_str(&b));
    buf_done(&b);
}

static json_t *text_or_null(const char *text)
{
    json_t *value = text ? json_string(text) : NULL;
    return value ? value : json_null(); /* what is no UTF-8 is unknown */
}

static void add_tls(json_t *o, const struct session *s)
{
    struct tls_info info = { 0 };
    if (s->tls && s->phase != SESSION_HANDSHAKE)
        tls_info(s->tls, &info);
    json_object_set_new(o, "tls_version", text_or_null(info.version));
    json_object_set_new(o, "tls_cipher", text_or_null(info.cipher));
}

static void add_host_rule(json_t *o, const struct session *s)
{
    json_t *rule = json_object();
    json_object_set_new(rule, "network", text_or_null(s->rules.network));
    json_object_set_new(rule, "file", text_or_null(s->rules.place.file));
    json_object_set_new(rule, "line", json_integer(s->rules.place.line));
    json_object_set_new(o, "host_rule", rule);
}

void tell_session(const struct session *s)
{
    struct log_stream *stream = s->site->session_log;
    json_t *o = stream ? json_object() : NULL;
    if (!o)
        return;
    char time[CLOCK_TEXT_BYTES], client[NETWORK_TEXT_BYTES];
    clock_rfc3339(s->begun_wall_ms, time);
    network_address_format(s->address, client);
    json_object_set_new(o, "time", json_string(time));
    json_object_set_new(o, "session", json_string(s->id));
    json_object_set_new(o, "duration_ms", json_integer(now_mono_ms() - s->begun_mono_ms));
    json_object_set_new(o, "server", text_or_null(s->server->conf->name));
    json_object_set_new(o, "listener", text_or_null(s->listener->text));
    json_object_set_new(o, "client", json_string(client));
    json_object_set_new(o, "port", json_integer(s->port));
    json_object_set_new(o, "helo", text_or_null(s->helo));
    add_tls(o, s);
    json_object_set_new(o, "mechanism", text_or_null(s->mechanism));
    json_object_set_new(o, "inner", text_or_null(s->inner));
    json_object_set_new(o, "verb", text_or_null(s->mechanism ? s->exps ? "X-EXPS" : "AUTH" : NULL));
    json_object_set_new(o, "layer", text_or_null(s->layer ? layer_name(s->layer) : NULL));
    json_object_set_new(o, "user", text_or_null(s->user));
    json_object_set_new(o, "mailbox", text_or_null(s->mailbox));
    json_object_set_new(o, "result", text_or_null(s->auth_result));
    json_object_set_new(o, "cause", text_or_null(s->cause));
    add_host_rule(o, s);
    json_object_set_new(o, "mails", json_integer(s->n_mails));
    json_object_set_new(o, "recipients", json_integer(s->n_recipients));
    json_object_set_new(o, "relayed", json_integer(s->n_relayed));
    json_object_set_new(o, "octets", json_integer((json_int_t)s->octets_in));
    char *line = json_dumps(o, JSON_COMPACT);
    if (line)
        log_stream_add(stream, str_of(line));
    free(line);
    json_decref(o);
}
