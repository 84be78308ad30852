/* DATA, and what DATA and BDAT have in common: the content's check and its refusal. */
#include "smtp/server_internal.h"

#include <inttypes.h>

static bool check_data(struct smtp_server *s, struct str arg)
{
    if (s->phase == TRANSACTION_NONE)
        server_refuse(s, 503, "5.5.1", "Send MAIL and RCPT first");
    else if (s->phase != TRANSACTION_MAIL)
        server_refuse(s, 503, "5.5.1", "DATA cannot follow BDAT");
    else if (arg.n)
        server_refuse(s, 501, "5.5.4", "DATA takes no parameter");
    else if (s->transaction->n_recipients == 0)
        server_refuse(s, 554, "5.5.1", "No valid recipients"); /* RFC 2920 section 3.1: not 354 behind refused RCPTs */
    else
        return true;
    return false;
}

void server_data(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (check_data(s, arg))
        server_ask(s, ev, SMTP_SERVER_DATA);
}

void server_body_begin(struct smtp_server *s, bool dots)
{
    s->body = (struct smtp_body){
        .dots = dots,
        .repair = s->policy.line_ends_repair,
        .text_line_max_bytes = s->limits->text_line_max_bytes,
        .max_bytes = s->limits->max_message_bytes,
    };
    s->body_refused = false;
}

void server_data_accepted(struct smtp_server *s)
{
    server_body_begin(s, true);
    s->data_bytes = 0;
    server_reply(s, 354, NULL, STR("End data with <CR><LF>.<CR><LF>"));
    server_set_state(s, SERVER_DATA);
}

static const char *abort_text(enum smtp_body_fault fault)
{
    static const char *const texts[] = {
        [SMTP_BODY_BARE_CR] = "bare CR in the message", [SMTP_BODY_BARE_LF] = "bare LF in the message",
        [SMTP_BODY_NUL] = "NUL in the message",         [SMTP_BODY_LONG_LINE] = "line too long in the message",
        [SMTP_BODY_TOO_BIG] = "message too big",
    };
    return texts[fault];
}

/* The reply to a message whose content is at fault. */
void server_body_refuse(struct smtp_server *s)
{
    switch (s->body.fault) {
    case SMTP_BODY_BARE_CR:
    case SMTP_BODY_BARE_LF:
        server_refuse(s, 554, "5.6.0", "Message refused: bare %s in it, only CRLF ends a line (RFC 5321 section 2.3.8)",
                      s->body.fault == SMTP_BODY_BARE_CR ? "CR" : "LF");
        break;
    case SMTP_BODY_NUL:
        server_refuse(s, 554, "5.6.0", "Message refused: NUL octet in it");
        break;
    case SMTP_BODY_LONG_LINE:
        server_refuse(s, 554, "5.6.0", "Message refused: line longer than %zu octets (RFC 5321 section 4.5.3.1.6)",
                      s->limits->text_line_max_bytes);
        break;
    default:
        server_refuse(s, 552, "5.3.4", "Message is larger than %" PRIu64 " octets", s->limits->max_message_bytes);
        break;
    }
}

/* Content at fault: the caller drops what it stored now, the peer hears of it at the message's end. */
void server_body_note_fault(struct smtp_server *s)
{
    if (s->body.fault && !s->body_refused) {
        s->body_refused = true;
        server_abort_transaction(s, abort_text(s->body.fault));
    }
}

bool server_body_event(struct smtp_server *s, struct str slice, struct smtp_server_event *ev)
{
    if (slice.n == 0 || s->body_refused)
        return false;
    s->transaction->content_bytes = s->body.content_bytes;
    s->transaction->content_8bit |= s->body.line.high;
    ev->type = SMTP_SERVER_BODY;
    ev->data = slice;
    ev->transaction = s->transaction;
    return true;
}

bool server_read_data(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev)
{
    size_t n;
    struct str slice = smtp_body_next(&s->body, str_skip(in, *used), &n);
    *used += n;
    s->data_bytes += n;
    server_body_note_fault(s);
    if (s->body_refused && s->limits->max_swallow_bytes && s->data_bytes > s->limits->max_swallow_bytes) {
        server_body_refuse(s);
        server_close(s, "endless message");
        return false;
    }
    if (s->body.end && slice.n == 0) {
        if (s->body_refused) {
            server_body_refuse(s);
            server_set_state(s, SERVER_COMMAND);
            return false;
        }
        s->abort_owed = false;
        server_ask(s, ev, SMTP_SERVER_COMMIT);
        return true;
    }
    return server_body_event(s, slice, ev);
}
