#include "smtp/server_internal.h"

#include <assert.h>

#define TO(state) (1u << (state))

static const unsigned transitions[SERVER_STATES] = {
    [SERVER_START] = TO(SERVER_COMMAND) | TO(SERVER_CLOSED),
    [SERVER_COMMAND] = TO(SERVER_ASKED) | TO(SERVER_CHUNK) | TO(SERVER_CLOSED),
    [SERVER_AUTH_LINE] = TO(SERVER_ASKED) | TO(SERVER_COMMAND) | TO(SERVER_CLOSED),
    [SERVER_DATA] = TO(SERVER_ASKED) | TO(SERVER_COMMAND) | TO(SERVER_CLOSED),
    [SERVER_CHUNK] = TO(SERVER_ASKED) | TO(SERVER_COMMAND) | TO(SERVER_CLOSED),
    [SERVER_ASKED] = TO(SERVER_COMMAND) | TO(SERVER_AUTH_LINE) | TO(SERVER_DATA) | TO(SERVER_CHUNK) |
                     TO(SERVER_HANDSHAKE) | TO(SERVER_CLOSED),
    [SERVER_HANDSHAKE] = TO(SERVER_COMMAND) | TO(SERVER_CLOSED),
    [SERVER_CLOSED] = 0,
};

void server_set_state(struct smtp_server *s, enum server_state to)
{
    assert(transitions[s->state] & TO(to));
    s->state = (unsigned char)to;
    s->timing = false;
}

void server_ask(struct smtp_server *s, struct smtp_server_event *ev, enum smtp_server_event_type type)
{
    server_set_state(s, SERVER_ASKED);
    s->asked = (unsigned char)type;
    ev->type = type;
    ev->transaction = s->transaction;
}

bool server_next_pending(struct smtp_server *s, struct smtp_server_event *ev)
{
    if (s->pending & PENDING_CANCEL) {
        s->pending &= (unsigned char)~PENDING_CANCEL;
        ev->type = SMTP_SERVER_AUTH_CANCEL;
        return true;
    }
    if (s->pending & PENDING_ABORT) {
        s->pending &= (unsigned char)~PENDING_ABORT;
        s->transaction_over = true;
        ev->type = SMTP_SERVER_ABORT;
        ev->transaction = s->transaction;
        ev->data = str_of(s->abort_why);
        return true;
    }
    if (s->pending & PENDING_HELO) {
        s->pending &= (unsigned char)~PENDING_HELO;
        ev->type = SMTP_SERVER_HELO;
        ev->data = str_of(s->helo);
        return true;
    }
    return false;
}

void server_abort_transaction(struct smtp_server *s, const char *why)
{
    s->phase = TRANSACTION_NONE;
    if (s->abort_owed) {
        s->abort_owed = false;
        s->abort_why = why;
        s->pending |= PENDING_ABORT;
    }
}

void server_end_transaction(struct smtp_server *s)
{
    s->phase = TRANSACTION_NONE;
    s->abort_owed = false;
    s->transaction_over = true;
}

void server_free_transaction(struct smtp_server *s)
{
    arena_done(&s->arena);
    s->transaction = NULL;
    s->last_recipient = s->asked_recipient = NULL;
    s->transaction_over = false;
}

void server_close(struct smtp_server *s, const char *why)
{
    if (s->state == SERVER_CLOSED)
        return;
    bool asked_auth =
        s->state == SERVER_ASKED && (s->asked == SMTP_SERVER_AUTH || s->asked == SMTP_SERVER_AUTH_RESPONSE);
    if (asked_auth || s->state == SERVER_AUTH_LINE)
        s->pending |= PENDING_CANCEL;
    server_abort_transaction(s, why);
    server_set_state(s, SERVER_CLOSED);
    server_auth_wipe(s);
    buf_wipe(&s->line);
}

void server_forget_peer(struct smtp_server *s)
{
    /* Nothing that came before may be read after: the caller of the machine has brought no more than was used. */
    assert(s->line.n == 0 && !s->scan.cr && s->line_mode == LINE_NORMAL);
    free(s->helo);
    s->helo = NULL;
    s->helo_kind = HELO_NONE;
    s->pending &= (unsigned char)~PENDING_HELO;
}
