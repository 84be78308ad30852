/* The session: greeting, EHLO, STARTTLS, AUTH, ready, QUIT. In the good case every reply leads to the next
 * command; whatever else the peer says ends in smtp_client_over*(), which settles what was under way, so
 * that the caller always hears DONE before FAILED. */
#include "smtp/client.h"

#include <assert.h>
#include <stdlib.h>

#include "smtp/client_internal.h"

enum { OUT_MAX_BYTES = 4 * 1024 * 1024, TEXTS_MAX_BYTES = 2 * 1024 * 1024, AUTH_MAX_BYTES = 96 * 1024 };

const char *smtp_client_stage_name(enum smtp_client_stage stage)
{
    static const char *const name[SMTP_CLIENT_STAGES] = {
        [SMTP_CLIENT_STAGE_GREETING] = "initial greeting", [SMTP_CLIENT_STAGE_EHLO] = "EHLO",
        [SMTP_CLIENT_STAGE_STARTTLS] = "STARTTLS",         [SMTP_CLIENT_STAGE_AUTH] = "AUTH",
        [SMTP_CLIENT_STAGE_READY] = "idle connection",     [SMTP_CLIENT_STAGE_RSET] = "RSET",
        [SMTP_CLIENT_STAGE_MAIL] = "MAIL FROM",            [SMTP_CLIENT_STAGE_RCPT] = "RCPT TO",
        [SMTP_CLIENT_STAGE_DATA] = "DATA",                 [SMTP_CLIENT_STAGE_BODY] = "message body",
        [SMTP_CLIENT_STAGE_END] = "end of DATA",           [SMTP_CLIENT_STAGE_QUIT] = "QUIT",
    };
    return stage < SMTP_CLIENT_STAGES ? name[stage] : "unknown";
}

enum smtp_client_outcome smtp_client_outcome(const struct smtp_client_result *result)
{
    unsigned class = result->code ? result->code / 100 : (unsigned)(result->enhanced[0] - '0');
    if (class == 2)
        return SMTP_CLIENT_SENT;
    return class == 5 ? SMTP_CLIENT_PERMANENT : SMTP_CLIENT_TEMPORARY;
}

/* Which states may follow; OVER may follow all. */
void smtp_client_set_state(struct smtp_client *client, enum smtp_client_state state)
{
#define TO(s) (1u << SMTP_CLIENT_##s)
    static const unsigned allowed[SMTP_CLIENT_STATES] = {
        [SMTP_CLIENT_GREETING] = TO(EHLO),
        [SMTP_CLIENT_EHLO] = TO(HELO) | TO(STARTTLS_SENT) | TO(AUTH_WAIT) | TO(IDLE),
        [SMTP_CLIENT_HELO] = TO(IDLE),
        [SMTP_CLIENT_STARTTLS_SENT] = TO(HANDSHAKE) | TO(AUTH_WAIT) | TO(IDLE),
        [SMTP_CLIENT_HANDSHAKE] = TO(EHLO),
        [SMTP_CLIENT_AUTH_WAIT] = TO(AUTH_SENT) | TO(IDLE),
        [SMTP_CLIENT_AUTH_SENT] = TO(AUTH_WAIT) | TO(IDLE),
        [SMTP_CLIENT_IDLE] = TO(SENDING) | TO(QUIT_SENT) | TO(EHLO),
        [SMTP_CLIENT_SENDING] = TO(IDLE),
    };
#undef TO
    assert(state == SMTP_CLIENT_OVER || (allowed[client->state] >> state & 1));
    client->state = state;
}

enum smtp_client_stage smtp_client_stage(const struct smtp_client *client)
{
    static const enum smtp_client_stage stage[SMTP_CLIENT_STATES] = {
        [SMTP_CLIENT_GREETING] = SMTP_CLIENT_STAGE_GREETING,      [SMTP_CLIENT_EHLO] = SMTP_CLIENT_STAGE_EHLO,
        [SMTP_CLIENT_HELO] = SMTP_CLIENT_STAGE_EHLO,              [SMTP_CLIENT_HANDSHAKE] = SMTP_CLIENT_STAGE_STARTTLS,
        [SMTP_CLIENT_STARTTLS_SENT] = SMTP_CLIENT_STAGE_STARTTLS, [SMTP_CLIENT_AUTH_WAIT] = SMTP_CLIENT_STAGE_AUTH,
        [SMTP_CLIENT_AUTH_SENT] = SMTP_CLIENT_STAGE_AUTH,         [SMTP_CLIENT_IDLE] = SMTP_CLIENT_STAGE_READY,
        [SMTP_CLIENT_QUIT_SENT] = SMTP_CLIENT_STAGE_QUIT,         [SMTP_CLIENT_OVER] = SMTP_CLIENT_STAGE_QUIT,
    };
    return client->state == SMTP_CLIENT_SENDING ? smtp_client_sending_stage(client) : stage[client->state];
}

void smtp_client_trace(const struct smtp_client *client, char direction, struct str line)
{
    if (client->options.trace)
        client->options.trace(client->options.trace_arg, direction, line);
}

void smtp_client_command(struct smtp_client *client, struct str line)
{
    buf_add(&client->out, line);
    buf_add(&client->out, STR("\r\n"));
    smtp_client_trace(client, '>', line);
}

void smtp_client_await(struct smtp_client *client, enum smtp_client_stage stage, int64_t now_ms)
{
    const struct smtp_client_timeouts *t = &client->options.timeouts;
    int64_t wait_ms = t->command_ms;
    switch (stage) {
    case SMTP_CLIENT_STAGE_GREETING: wait_ms = t->greeting_ms; break;
    case SMTP_CLIENT_STAGE_DATA: wait_ms = t->data_ms; break;
    case SMTP_CLIENT_STAGE_BODY: wait_ms = t->block_ms; break;
    case SMTP_CLIENT_STAGE_END: wait_ms = t->end_ms; break;
    case SMTP_CLIENT_STAGE_QUIT: wait_ms = t->quit_ms; break;
    default: break;
    }
    client->deadline_ms = now_ms + wait_ms;
}

static void timeout_default(int64_t *ms, int64_t value)
{
    if (*ms <= 0)
        *ms = value;
}

static void timeouts_fill(struct smtp_client_timeouts *t)
{
    enum { MINUTE_MS = 60000 };
    timeout_default(&t->greeting_ms, 5 * MINUTE_MS);
    timeout_default(&t->command_ms, 5 * MINUTE_MS);
    timeout_default(&t->data_ms, 2 * MINUTE_MS);
    timeout_default(&t->block_ms, 3 * MINUTE_MS);
    timeout_default(&t->end_ms, 10 * MINUTE_MS);
    timeout_default(&t->quit_ms, 5000);
}

struct smtp_client *smtp_client_new(const struct smtp_client_options *options, int64_t now_ms)
{
    struct str helo = options->helo;
    if (helo.n == 0)
        return NULL;
    for (size_t i = 0; i < helo.n; i++)
        if (helo.p[i] <= ' ' || helo.p[i] == 127)
            return NULL;
    struct smtp_client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    client->options = *options;
    client->tls_active = options->tls_active;
    client->deadline_ms = -1;
    timeouts_fill(&client->options.timeouts);
    smtp_reply_parser_init(&client->parser);
    buf_init(&client->out, OUT_MAX_BYTES);
    buf_init(&client->texts, TEXTS_MAX_BYTES);
    buf_init(&client->auth, AUTH_MAX_BYTES);
    if (!str_copy(helo, client->helo, sizeof client->helo)) {
        smtp_client_free(&client);
        return NULL;
    }
    client->options.helo = str_of(client->helo);
    smtp_client_await(client, SMTP_CLIENT_STAGE_GREETING, now_ms);
    return client;
}

void smtp_client_free(struct smtp_client **client)
{
    struct smtp_client *c = *client;
    *client = NULL;
    if (!c)
        return;
    smtp_reply_parser_done(&c->parser);
    buf_wipe(&c->out);
    buf_done(&c->texts);
    buf_wipe(&c->auth);
    free(c->rcpt);
    free(c);
}

void smtp_client_record(struct smtp_client *client, struct smtp_client_rcpt *rcpt, enum smtp_client_stage stage,
                        uint16_t code, const char *enhanced, struct str text)
{
    rcpt->stage = stage;
    rcpt->code = code;
    char general[] = { (char)('0' + (code ? code / 100 : 4)), '.', '0', '.', '0', 0 };
    memcpy(rcpt->enhanced, general, sizeof general);
    if (enhanced[0])
        str_copy(str_of(enhanced), rcpt->enhanced, sizeof rcpt->enhanced);
    /* Many recipients share one reply: the same text again is not stored again. */
    struct buf *texts = &client->texts;
    rcpt->text_bytes = (uint32_t)text.n;
    if (text.n && texts->n >= text.n && memcmp(texts->p + texts->n - text.n, text.p, text.n) == 0) {
        rcpt->text_at = (uint32_t)(texts->n - text.n);
        return;
    }
    rcpt->text_at = (uint32_t)texts->n;
    if (!buf_add(texts, text)) {
        texts->failed = false;
        rcpt->text_bytes = 0;
    }
}

static void end_session(struct smtp_client *client)
{
    bool sending = client->state == SMTP_CLIENT_SENDING;
    /* A transaction that is over but not yet reported keeps its results. */
    bool unreported = client->pending == SMTP_CLIENT_DONE;
    if (sending)
        smtp_client_sending_abandon(client);
    smtp_client_set_state(client, SMTP_CLIENT_OVER);
    client->pending = sending || unreported ? SMTP_CLIENT_DONE : SMTP_CLIENT_FAILED;
    client->deadline_ms = -1;
}

void smtp_client_over_reply(struct smtp_client *client, enum smtp_client_stage stage, const struct smtp_reply *reply)
{
    if (client->state == SMTP_CLIENT_OVER)
        return;
    smtp_client_record(client, &client->failure, stage, reply->code, reply->enhanced, reply->text);
    end_session(client);
}

void smtp_client_over(struct smtp_client *client, const char *enhanced, const char *fmt, ...)
{
    if (client->state == SMTP_CLIENT_OVER)
        return;
    char text[SMTP_REPLY_TEXT_MAX_BYTES + 256];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t bytes = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    smtp_client_record(client, &client->failure, smtp_client_stage(client), 0, enhanced, str_slice(text, bytes));
    end_session(client);
}

void smtp_client_out_of_step(struct smtp_client *client, const struct smtp_reply *reply)
{
    smtp_client_over(client, "4.5.0", "the server answered out of step (%s): %.*s",
                     smtp_client_stage_name(smtp_client_stage(client)), STR_ARG(reply->text));
}

void smtp_client_become_ready(struct smtp_client *client)
{
    smtp_client_set_state(client, SMTP_CLIENT_IDLE);
    client->pending = SMTP_CLIENT_READY;
    client->deadline_ms = -1;
}

static void send_ehlo(struct smtp_client *client, enum smtp_client_state state, int64_t now_ms)
{
    char line[300];
    const char *verb = state == SMTP_CLIENT_HELO ? "HELO" : client->options.lmtp ? "LHLO" : "EHLO";
    int n = snprintf(line, sizeof line, "%s %s", verb, client->helo);
    /* What was said before TLS, or to another greeting, counts no more. */
    client->can = 0;
    client->size_limit = 0;
    client->mechanisms[0] = client->exps_mechanisms[0] = 0;
    smtp_client_set_state(client, state);
    smtp_client_command(client, str_slice(line, (size_t)n));
    smtp_client_await(client, SMTP_CLIENT_STAGE_EHLO, now_ms);
}

static void keep_peer_name(struct smtp_client *client, struct str line)
{
    struct str name = str_slice(line.p, str_find(line, ' '));
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= ' ' || name.p[i] == 127)
            return;
    if (name.n > 0)
        str_copy(name, client->peer_name, sizeof client->peer_name);
}

/* "AUTH PLAIN LOGIN", and the old form "AUTH=PLAIN". What does not fit is as if not offered. */
static void keep_mechanisms(char *list, size_t list_bytes, struct str words)
{
    size_t n = strlen(list);
    for (size_t i = 0; i < words.n && n + 2 < list_bytes; i++) {
        char c = words.p[i];
        bool space = c == ' ' || c == '\t';
        if (space ? n == 0 || list[n - 1] == ' ' : !ascii_alnum(c) && c != '-' && c != '_')
            continue;
        list[n++] = space ? ' ' : c;
    }
    if (n > 0 && list[n - 1] != ' ')
        list[n++] = ' ';
    list[n] = 0;
}

static void keep_capability(struct smtp_client *client, struct str line)
{
    static const struct {
        const char *keyword;
        unsigned can;
    } row[] = {
        { "PIPELINING", SMTP_CLIENT_CAN_PIPELINING }, { "SIZE", SMTP_CLIENT_CAN_SIZE },
        { "8BITMIME", SMTP_CLIENT_CAN_8BITMIME },     { "SMTPUTF8", SMTP_CLIENT_CAN_SMTPUTF8 },
        { "CHUNKING", SMTP_CLIENT_CAN_CHUNKING },     { "DSN", SMTP_CLIENT_CAN_DSN },
        { "STARTTLS", SMTP_CLIENT_CAN_STARTTLS },     { "AUTH", SMTP_CLIENT_CAN_AUTH },
        { "ENHANCEDSTATUSCODES", SMTP_CLIENT_CAN_ENHANCED }, { "X-EXPS", SMTP_CLIENT_CAN_EXPS },
    };
    size_t word = 0;
    while (word < line.n && line.p[word] != ' ' && line.p[word] != '=')
        word++;
    struct str keyword = str_slice(line.p, word);
    struct str rest = str_trim(str_skip(line, word + 1));
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        if (!str_eq_nocase(keyword, str_of(row[i].keyword)))
            continue;
        client->can |= row[i].can;
        if (row[i].can == SMTP_CLIENT_CAN_SIZE)
            str_to_u64(rest, UINT64_MAX, &client->size_limit);
        if (row[i].can == SMTP_CLIENT_CAN_AUTH)
            keep_mechanisms(client->mechanisms, sizeof client->mechanisms, rest);
        if (row[i].can == SMTP_CLIENT_CAN_EXPS)
            keep_mechanisms(client->exps_mechanisms, sizeof client->exps_mechanisms, rest);
    }
}

/* EHLO is answered and TLS is as it will be. */
static void after_tls(struct smtp_client *client)
{
    bool none = client->mechanisms[0] == 0 && client->exps_mechanisms[0] == 0;
    if (!client->options.want_auth || client->authenticated || (none && client->options.auth_optional)) {
        smtp_client_become_ready(client);
        return;
    }
    if (none) {
        smtp_client_over(client, "4.7.0", "the server offers no authentication, but this route demands it");
        return;
    }
    smtp_client_set_state(client, SMTP_CLIENT_AUTH_WAIT);
    client->pending = SMTP_CLIENT_AUTH_NEEDED;
    client->deadline_ms = -1;
}

static void after_ehlo(struct smtp_client *client, int64_t now_ms)
{
    /* Who is authenticated before TLS speaks through a security layer by now. */
    bool wanted = client->options.tls != SMTP_CLIENT_TLS_NONE && !client->tls_active && !client->authenticated;
    if (wanted && (client->can & SMTP_CLIENT_CAN_STARTTLS)) {
        smtp_client_set_state(client, SMTP_CLIENT_STARTTLS_SENT);
        smtp_client_command(client, STR("STARTTLS"));
        smtp_client_await(client, SMTP_CLIENT_STAGE_STARTTLS, now_ms);
    } else if (wanted && client->options.tls == SMTP_CLIENT_TLS_REQUIRE) {
        smtp_client_over(client, "4.7.4", "TLS is required, but was not offered by the server");
    } else {
        after_tls(client);
    }
}

static void reply_greeting(struct smtp_client *client, const struct smtp_reply *reply, int64_t now_ms)
{
    if (reply->code == 220)
        send_ehlo(client, SMTP_CLIENT_EHLO, now_ms);
    else if (reply->code >= 400)
        smtp_client_over_reply(client, SMTP_CLIENT_STAGE_GREETING, reply);
    else
        smtp_client_out_of_step(client, reply);
}

static void reply_ehlo(struct smtp_client *client, const struct smtp_reply *reply, int64_t now_ms)
{
    bool helo = client->state == SMTP_CLIENT_HELO;
    if (reply->code / 100 == 2) {
        after_ehlo(client, now_ms); /* after HELO nothing is offered */
    } else if (reply->code / 100 == 5 && !helo && !client->options.lmtp) {
        send_ehlo(client, SMTP_CLIENT_HELO, now_ms);
    } else if (reply->code >= 400) {
        smtp_client_over_reply(client, SMTP_CLIENT_STAGE_EHLO, reply);
    } else {
        smtp_client_out_of_step(client, reply);
    }
}

static void reply_starttls(struct smtp_client *client, const struct smtp_reply *reply, bool more_input)
{
    if (reply->code == 220 && more_input) {
        /* Somebody on the way put plain text behind the reply, to be read as if it had come under TLS. */
        smtp_client_over(client, "4.7.0", "the server sent more than its reply to STARTTLS before the handshake");
    } else if (reply->code == 220) {
        smtp_client_set_state(client, SMTP_CLIENT_HANDSHAKE);
        client->pending = SMTP_CLIENT_STARTTLS;
        client->deadline_ms = -1;
    } else if (reply->code < 400) {
        smtp_client_out_of_step(client, reply);
    } else if (client->options.tls == SMTP_CLIENT_TLS_REQUIRE) {
        smtp_client_over(client, "4.7.4", "TLS is required, but the server refused STARTTLS: %.*s",
                         STR_ARG(reply->text));
    } else {
        after_tls(client);
    }
}

static bool expects_reply(const struct smtp_client *client)
{
    switch (client->state) {
    case SMTP_CLIENT_HANDSHAKE:
    case SMTP_CLIENT_AUTH_WAIT:
    case SMTP_CLIENT_IDLE:
    case SMTP_CLIENT_OVER: return false;
    case SMTP_CLIENT_SENDING: return smtp_client_sending_expects(client);
    default: return true;
    }
}

/* A reply to nothing. A server may take its leave at any time (RFC 5321 section 3.8). */
static void unsolicited(struct smtp_client *client, const struct smtp_reply *reply)
{
    client->orderly = client->state == SMTP_CLIENT_IDLE && reply->code == 421;
    if (reply->code >= 400)
        smtp_client_over_reply(client, smtp_client_stage(client), reply);
    else
        smtp_client_out_of_step(client, reply);
}

static void take_reply(struct smtp_client *client, struct str line, bool more_input, int64_t now_ms)
{
    struct smtp_reply reply = smtp_reply_parser_reply(&client->parser);
    if (!expects_reply(client)) {
        unsolicited(client, &reply);
        return;
    }
    if (reply.code == 421 && client->state != SMTP_CLIENT_SENDING && client->state != SMTP_CLIENT_QUIT_SENT) {
        smtp_client_over_reply(client, smtp_client_stage(client), &reply);
        return;
    }
    switch (client->state) {
    case SMTP_CLIENT_GREETING: reply_greeting(client, &reply, now_ms); break;
    case SMTP_CLIENT_EHLO:
    case SMTP_CLIENT_HELO: reply_ehlo(client, &reply, now_ms); break;
    case SMTP_CLIENT_STARTTLS_SENT: reply_starttls(client, &reply, more_input); break;
    case SMTP_CLIENT_AUTH_SENT: smtp_client_auth_reply(client, &reply, line, now_ms); break;
    case SMTP_CLIENT_SENDING: smtp_client_sending_reply(client, &reply, more_input, now_ms); break;
    default:
        client->orderly = true; /* QUIT is answered, with whatever */
        smtp_client_over_reply(client, SMTP_CLIENT_STAGE_QUIT, &reply);
        break;
    }
}

static void take_line(struct smtp_client *client, struct str line, bool last, bool more_input, int64_t now_ms)
{
    if (client->options.trace) {
        char text[1024];
        bool mask = client->state == SMTP_CLIENT_AUTH_SENT && client->parser.code == 334;
        int n = snprintf(text, sizeof text, "%u%c%.*s", client->parser.code, last ? ' ' : '-',
                         mask ? 4 : line.n > 900 ? 900 : (int)line.n, mask ? "****" : line.n ? line.p : "");
        smtp_client_trace(client, '<', str_slice(text, (size_t)n));
    }
    if (client->parser.code / 100 == 2 && client->parser.n_lines == 1) {
        if (client->state == SMTP_CLIENT_GREETING || client->state == SMTP_CLIENT_EHLO)
            keep_peer_name(client, line);
    } else if (client->state == SMTP_CLIENT_EHLO && client->parser.code / 100 == 2) {
        keep_capability(client, line);
    }
    if (last)
        take_reply(client, line, more_input, now_ms);
}

/* Before these the peer must have been silent: what it has said already is looked at first. */
static bool wants_silence(enum smtp_client_event_kind kind)
{
    return kind == SMTP_CLIENT_READY || kind == SMTP_CLIENT_AUTH_NEEDED || kind == SMTP_CLIENT_AUTH_CHALLENGE;
}

struct smtp_client_result smtp_client_result_of(const struct smtp_client *client, const struct smtp_client_rcpt *rcpt)
{
    struct smtp_client_result result = { .stage = rcpt->stage, .code = rcpt->code,
        .text = str_slice(client->texts.p ? client->texts.p + rcpt->text_at : NULL, rcpt->text_bytes) };
    memcpy(result.enhanced, rcpt->enhanced, sizeof rcpt->enhanced);
    return result;
}

static void fill_event(struct smtp_client *client, struct smtp_client_event *event)
{
    if (event->kind == SMTP_CLIENT_AUTH_NEEDED) {
        event->mechanisms = str_trim(str_of(client->mechanisms));
        event->exps_mechanisms = str_trim(str_of(client->exps_mechanisms));
    }
    if (event->kind == SMTP_CLIENT_AUTH_CHALLENGE)
        event->challenge = buf_str(&client->auth);
    if (event->kind == SMTP_CLIENT_FAILED || event->kind == SMTP_CLIENT_CLOSED)
        event->result = smtp_client_result_of(client, &client->failure);
}

static enum smtp_client_event_kind tell(struct smtp_client *client, struct smtp_client_event *ret_event)
{
    *ret_event = (struct smtp_client_event){ .kind = client->pending };
    if (client->pending == SMTP_CLIENT_FAILED && client->orderly)
        ret_event->kind = SMTP_CLIENT_CLOSED;
    fill_event(client, ret_event);
    if (client->pending == SMTP_CLIENT_DONE)
        client->pending = client->state == SMTP_CLIENT_OVER ? SMTP_CLIENT_FAILED : SMTP_CLIENT_READY;
    else if (client->pending != SMTP_CLIENT_FAILED)
        client->pending = SMTP_CLIENT_READ;
    return ret_event->kind;
}

enum smtp_client_event_kind smtp_client_step(struct smtp_client *client, struct str *in, int64_t now_ms,
                                             struct smtp_client_event *ret_event)
{
    for (;;) {
        if (client->out.failed)
            smtp_client_over(client, "4.3.0", "out of memory while talking to the server");
        bool waiting = client->pending != SMTP_CLIENT_READ;
        if (waiting && (in->n == 0 || !wants_silence(client->pending)))
            return tell(client, ret_event);
        if (client->state == SMTP_CLIENT_OVER || (!waiting && in->n == 0)) {
            *ret_event = (struct smtp_client_event){ .kind = SMTP_CLIENT_READ };
            return SMTP_CLIENT_READ;
        }
        struct str line;
        enum smtp_reply_progress progress = smtp_reply_parser_feed(&client->parser, in, &line);
        if (progress == SMTP_REPLY_BAD)
            smtp_client_over(client, "4.5.0", "the server's answer to %s is not SMTP, or too long",
                             smtp_client_stage_name(smtp_client_stage(client)));
        else if (progress != SMTP_REPLY_MORE)
            take_line(client, line, progress == SMTP_REPLY_LAST, in->n > 0, now_ms);
        else if (waiting)
            smtp_client_over(client, "4.5.0", "the server spoke out of turn (%s)",
                             smtp_client_stage_name(smtp_client_stage(client)));
    }
}

struct buf *smtp_client_output(struct smtp_client *client)
{
    return &client->out;
}

int64_t smtp_client_deadline_ms(const struct smtp_client *client)
{
    return client->deadline_ms;
}

static const char *doing(const struct smtp_client *client)
{
    static const char *const text[SMTP_CLIENT_STAGES] = {
        [SMTP_CLIENT_STAGE_GREETING] = "waiting for the greeting", [SMTP_CLIENT_STAGE_EHLO] = "performing the EHLO handshake",
        [SMTP_CLIENT_STAGE_STARTTLS] = "starting TLS",             [SMTP_CLIENT_STAGE_AUTH] = "authenticating",
        [SMTP_CLIENT_STAGE_READY] = "idle",                        [SMTP_CLIENT_STAGE_RSET] = "sending RSET",
        [SMTP_CLIENT_STAGE_MAIL] = "sending MAIL FROM",            [SMTP_CLIENT_STAGE_RCPT] = "sending RCPT TO",
        [SMTP_CLIENT_STAGE_DATA] = "sending DATA command",         [SMTP_CLIENT_STAGE_BODY] = "sending message body",
        [SMTP_CLIENT_STAGE_END] = "sending end of data -- message may be sent more than once",
        [SMTP_CLIENT_STAGE_QUIT] = "sending QUIT",
    };
    return text[smtp_client_stage(client)];
}

void smtp_client_timeout(struct smtp_client *client)
{
    client->orderly = client->state == SMTP_CLIENT_QUIT_SENT;
    smtp_client_over(client, "4.4.2", "conversation timed out while %s", doing(client));
}

void smtp_client_closed(struct smtp_client *client, const char *why)
{
    client->orderly = client->state == SMTP_CLIENT_QUIT_SENT || client->state == SMTP_CLIENT_IDLE;
    smtp_client_over(client, "4.4.2", "lost connection while %s%s%s", doing(client), why ? ": " : "",
                     why ? why : "");
}

void smtp_client_tls_started(struct smtp_client *client, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_HANDSHAKE)
        return;
    client->tls_active = true;
    send_ehlo(client, SMTP_CLIENT_EHLO, now_ms);
}

void smtp_client_layer_started(struct smtp_client *client, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_IDLE || !client->authenticated)
        return;
    client->pending = SMTP_CLIENT_READ;
    send_ehlo(client, SMTP_CLIENT_EHLO, now_ms);
}

void smtp_client_quit(struct smtp_client *client, int64_t now_ms)
{
    if (client->state != SMTP_CLIENT_IDLE)
        return;
    smtp_client_set_state(client, SMTP_CLIENT_QUIT_SENT);
    client->pending = SMTP_CLIENT_READ;
    smtp_client_command(client, STR("QUIT"));
    smtp_client_await(client, SMTP_CLIENT_STAGE_QUIT, now_ms);
}

unsigned smtp_client_capabilities(const struct smtp_client *client)
{
    return client->can;
}

bool smtp_client_authenticated(const struct smtp_client *client)
{
    return client->authenticated;
}

struct str smtp_client_peer_name(const struct smtp_client *client)
{
    return str_of(client->peer_name);
}
