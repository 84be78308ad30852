/* The server machine: its life, the loop that makes events out of input, and the answers to them. The contract is in
 * server.h, who does what in server_internal.h. */
#include "smtp/server_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

enum {
    OUT_MAX_BYTES = 512 * 1024,
    OUT_FLUSH_BYTES = 16 * 1024, /* so much waiting output stops the reading */
};

const struct smtp_server_limits smtp_server_limits_default = {
    .line_max_bytes = 2048,
    .auth_line_max_bytes = 96 * 1024,
    .line_swallow_max_bytes = 1024 * 1024,
    .text_line_max_bytes = 998,
    .max_message_bytes = 50 * 1024 * 1024,
    .max_swallow_bytes = 256 * 1024 * 1024,
    .max_recipients = 1000,
    .max_commands = 1000,
    .max_errors = 20,
    .max_auth_failures = 5,
    .command_timeout_ms = 5 * 60 * 1000,
    .data_timeout_ms = 3 * 60 * 1000,
    .data_grace_ms = 10 * 60 * 1000,
    .data_min_bytes_per_s = 1000,
    .session_timeout_ms = 0,
};

int smtp_server_new(const struct smtp_server_options *options, struct smtp_server **ret)
{
    struct smtp_server *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->hostname = options->hostname;
    s->banner = options->banner;
    s->limits = options->limits ? options->limits : &smtp_server_limits_default;
    s->budget = options->auth_budget;
    s->policy = options->policy;
    s->trace = options->trace;
    s->trace_arg = options->trace_arg;
    buf_init(&s->out, OUT_MAX_BYTES);
    *ret = s;
    return 0;
}

void smtp_server_free(struct smtp_server *s)
{
    if (!s)
        return;
    buf_wipe(&s->line);
    server_auth_wipe(s);
    buf_wipe(&s->out);
    arena_done(&s->arena);
    free(s->helo);
    free(s);
}

void smtp_server_greet(struct smtp_server *s, int64_t now_ms)
{
    char text[512];
    if (s->policy.deny)
        snprintf(text, sizeof text, "%.*s does not accept mail from you", STR_ARG(s->hostname)); /* RFC 7504 */
    else
        snprintf(text, sizeof text, "%.*s ESMTP%s%.*s", STR_ARG(s->hostname), s->banner.n ? " " : "",
                 STR_ARG(s->banner));
    server_reply(s, s->policy.deny ? 521 : 220, NULL, str_of(text));
    server_set_state(s, SERVER_COMMAND);
    s->started_ms = s->since_ms = now_ms;
    s->timing = true;
}

void smtp_server_greet_refuse(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    assert(s->state == SERVER_START);
    server_refuse_close(s, code, enhanced, text);
}

void smtp_server_set_limits(struct smtp_server *s, const struct smtp_server_limits *limits)
{
    s->limits = limits;
}

void smtp_server_set_policy(struct smtp_server *s, const struct smtp_server_policy *policy)
{
    s->policy = *policy;
}

void smtp_server_set_hostname(struct smtp_server *s, struct str hostname)
{
    s->hostname = hostname;
}

struct buf *smtp_server_output(struct smtp_server *s)
{
    return &s->out;
}

/* One step of what the state reads; true when it made an event. */
static bool step(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev)
{
    switch ((enum server_state)s->state) {
    case SERVER_COMMAND:
    case SERVER_AUTH_LINE:
        return server_read_lines(s, in, used, ev);
    case SERVER_DATA:
        return *used < in.n && server_read_data(s, in, used, ev);
    case SERVER_CHUNK:
        return server_read_chunk(s, in, used, ev);
    case SERVER_ASKED:
        s->more_behind |= *used < in.n;
        ev->type = SMTP_SERVER_WAIT;
        return true;
    case SERVER_START:
    case SERVER_HANDSHAKE:
        ev->type = SMTP_SERVER_WAIT;
        return true;
    case SERVER_CLOSED:
    default:
        ev->type = SMTP_SERVER_CLOSE;
        return true;
    }
}

static void close_if_told(struct smtp_server *s)
{
    bool between = s->phase == TRANSACTION_NONE || s->phase == TRANSACTION_FAILED;
    if (s->out.failed) {
        s->out.failed = false;
        server_refuse_close(s, 421, "4.3.0", "Out of memory");
        s->out.failed = false;
    } else if (s->draining && between && (s->state == SERVER_COMMAND || s->state == SERVER_AUTH_LINE)) {
        server_refuse_close(s, 421, "4.3.2", "Service shutting down, closing the connection");
    }
}

static void next_event(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev)
{
    for (;;) {
        close_if_told(s);
        if (server_next_pending(s, ev))
            return;
        if (s->out.n >= OUT_FLUSH_BYTES && s->state != SERVER_CLOSED) {
            ev->type = SMTP_SERVER_FLUSH;
            return;
        }
        if (step(s, in, used, ev))
            return;
        bool more = *used < in.n || s->pending || s->state == SERVER_CLOSED || s->out.failed ||
                    (s->state == SERVER_CHUNK && s->chunk_left_bytes == 0);
        if (!more && !(s->draining && s->state == SERVER_COMMAND && s->phase == TRANSACTION_NONE)) {
            ev->type = SMTP_SERVER_READ;
            return;
        }
    }
}

static void note_time(struct smtp_server *s, int64_t now_ms, bool progress)
{
    bool content = s->state == SERVER_DATA || s->state == SERVER_CHUNK;
    if (!s->timing && (content || s->state == SERVER_COMMAND || s->state == SERVER_AUTH_LINE)) {
        s->timing = true;
        s->since_ms = s->data_started_ms = now_ms;
    } else if (content && progress) {
        s->since_ms = now_ms;
    }
}

void smtp_server_feed(struct smtp_server *s, struct str in, int64_t now_ms, size_t *ret_used,
                      struct smtp_server_event *ret_event)
{
    *ret_used = 0;
    *ret_event = (struct smtp_server_event){ .type = SMTP_SERVER_READ };
    if (s->transaction_over && !(s->pending & PENDING_ABORT))
        server_free_transaction(s);
    next_event(s, in, ret_used, ret_event);
    note_time(s, now_ms, *ret_used > 0);
}

void smtp_server_accept(struct smtp_server *s)
{
    assert(s->state == SERVER_ASKED);
    switch ((enum smtp_server_event_type)s->asked) {
    case SMTP_SERVER_STARTTLS:
        server_starttls_answered(s);
        return;
    case SMTP_SERVER_MAIL:
        s->phase = TRANSACTION_MAIL;
        server_reply(s, 250, "2.1.0", STR("Ok"));
        break;
    case SMTP_SERVER_RCPT:
        server_rcpt_accepted(s);
        break;
    case SMTP_SERVER_DATA:
        if (s->transaction->chunking)
            server_bdat_accepted(s);
        else
            server_data_accepted(s);
        return;
    default: /* accept() answers nothing else */
        assert(s->asked == SMTP_SERVER_DATA);
    }
    server_set_state(s, SERVER_COMMAND);
}

void smtp_server_reject(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    assert(s->state == SERVER_ASKED && s->asked != SMTP_SERVER_AUTH && s->asked != SMTP_SERVER_AUTH_RESPONSE);
    assert(code >= 400 && code < 600);
    server_refuse(s, code, enhanced, "%s", text);
    bool chunk = s->asked == SMTP_SERVER_DATA && s->transaction->chunking;
    if (s->asked == SMTP_SERVER_MAIL || s->asked == SMTP_SERVER_COMMIT)
        server_end_transaction(s);
    if (code == 421)
        server_close(s, "refused with 421");
    else if (chunk)
        server_bdat_rejected(s);
    else
        server_set_state(s, SERVER_COMMAND);
}

void smtp_server_committed(struct smtp_server *s, struct str queue_id)
{
    assert(s->state == SERVER_ASKED && s->asked == SMTP_SERVER_COMMIT);
    char text[128];
    snprintf(text, sizeof text, "Ok: queued as %.*s", STR_ARG(queue_id));
    server_reply(s, 250, "2.0.0", str_of(text));
    s->n_commands = s->n_errors = 0;
    server_end_transaction(s);
    server_set_state(s, SERVER_COMMAND);
}

void smtp_server_auth_challenge(struct smtp_server *s, struct str raw)
{
    assert(s->state == SERVER_ASKED && (s->asked == SMTP_SERVER_AUTH || s->asked == SMTP_SERVER_AUTH_RESPONSE));
    server_auth_wipe(s);
    server_challenge(s, raw);
    server_set_state(s, SERVER_AUTH_LINE);
}

void smtp_server_auth_done(struct smtp_server *s, bool accepted, unsigned code, const char *enhanced, const char *text)
{
    assert(s->state == SERVER_ASKED && (s->asked == SMTP_SERVER_AUTH || s->asked == SMTP_SERVER_AUTH_RESPONSE));
    server_auth_wipe(s);
    if (accepted) {
        s->authenticated = true;
        server_reply(s, code ? code : 235, enhanced ? enhanced : "2.7.0",
                     str_of(text ? text : "Authentication successful"));
    } else {
        assert(code == 0 || (code >= 400 && code < 600));
        if (code == 0 || code >= 500)
            s->n_auth_failures++;
        server_reply(s, code ? code : 535, enhanced ? enhanced : "5.7.8",
                     str_of(text ? text : "Authentication credentials invalid"));
    }
    server_set_state(s, SERVER_COMMAND);
    if (code == 421)
        server_close(s, "refused with 421");
}

void smtp_server_auth_done_layer(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    assert(s->state == SERVER_ASKED && (s->asked == SMTP_SERVER_AUTH || s->asked == SMTP_SERVER_AUTH_RESPONSE));
    server_auth_layer(s, code, enhanced, text);
}

void smtp_server_tls_started(struct smtp_server *s)
{
    assert(s->state == SERVER_HANDSHAKE && s->asked == SMTP_SERVER_STARTTLS);
    server_forget_peer(s);
    s->authenticated = false;
    server_set_state(s, SERVER_COMMAND);
}

void smtp_server_layer_started(struct smtp_server *s)
{
    assert(s->state == SERVER_HANDSHAKE && s->authenticated);
    server_forget_peer(s);
    s->layer_active = true;
    server_set_state(s, SERVER_COMMAND);
}

void smtp_server_lost(struct smtp_server *s)
{
    server_close(s, "connection lost");
}

void smtp_server_shutdown(struct smtp_server *s)
{
    s->draining = true;
}

struct str smtp_server_helo(const struct smtp_server *s)
{
    return str_of(s->helo);
}

bool smtp_server_is_esmtp(const struct smtp_server *s)
{
    return s->helo_kind == HELO_EHLO;
}

bool smtp_server_authenticated(const struct smtp_server *s)
{
    return s->authenticated;
}

bool smtp_server_closed(const struct smtp_server *s)
{
    return s->state == SERVER_CLOSED;
}

struct smtp_server_transaction *smtp_server_transaction(struct smtp_server *s)
{
    return s->transaction;
}

bool server_word_in(struct str list, struct str word)
{
    struct str one;
    bool more = true;
    while (more) {
        more = str_cut(&list, ' ', &one);
        if (one.n && str_eq_nocase(one, word))
            return true;
    }
    return false;
}

bool server_copy_address(struct smtp_server *s, const struct smtp_address *from, struct smtp_address *to)
{
    struct str text = arena_copy(&s->arena, from->text);
    if (!text.p)
        return false;
    *to = *from;
    to->text = text;
    to->local = str_slice(text.p, from->local.n);
    to->domain = str_slice(text.p + (from->domain.n ? text.n - from->domain.n : text.n), from->domain.n);
    return true;
}
