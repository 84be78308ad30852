/* BDAT (RFC 3030): content in chunks of counted octets. Whatever is said about a chunk, its octets are read, never
 * taken for commands; a refusal goes out at once, what is left of the chunk is thrown away in silence. After a refusal
 * the transaction is gone, and BDAT gets 503 until the chunk that is LAST, or RSET. A chunk size that cannot be read
 * leaves no way to tell octets from commands: 501 and CLOSE. */
#include "smtp/server_internal.h"

static bool parse(struct str arg, uint64_t *ret_size, bool *ret_last)
{
    struct str size;
    *ret_last = str_cut(&arg, ' ', &size);
    if (*ret_last && !str_eq_nocase(arg, STR("LAST")))
        return false;
    return str_to_u64(size, INT64_MAX, ret_size);
}

/* Reads `arg` into s->chunk_...; false when the connection had to be closed. */
static bool take_size(struct smtp_server *s, struct str arg)
{
    if (parse(arg, &s->chunk_left_bytes, &s->chunk_last))
        return true;
    server_refuse_close(s, 501, "5.5.4", "Syntax: BDAT size [LAST]");
    return false;
}

static void swallow(struct smtp_server *s)
{
    s->body_refused = true;
    s->data_bytes = 0;
    if (s->phase == TRANSACTION_FAILED && s->chunk_last)
        s->phase = TRANSACTION_NONE;
    if (s->limits->max_swallow_bytes && s->chunk_left_bytes > s->limits->max_swallow_bytes)
        server_close(s, "chunk too big to be thrown away");
    else
        server_set_state(s, SERVER_CHUNK);
}

void server_bdat_swallow(struct smtp_server *s, struct str arg)
{
    if (take_size(s, arg))
        swallow(s);
}

static bool check_bdat(struct smtp_server *s)
{
    uint64_t max = s->limits->max_message_bytes;
    if (s->phase == TRANSACTION_NONE) {
        server_refuse(s, 503, "5.5.1", "Send MAIL and RCPT first");
    } else if (s->phase == TRANSACTION_FAILED) {
        server_refuse(s, 503, "5.5.1", "An earlier chunk was refused; send RSET");
    } else if (s->transaction->n_recipients == 0) {
        server_refuse(s, 554, "5.5.1", "No valid recipients");
    } else if (max && s->chunk_left_bytes > max - (s->phase == TRANSACTION_CHUNKS ? s->body.content_bytes : 0)) {
        s->body.fault = SMTP_BODY_TOO_BIG;
        server_body_refuse(s);
        server_abort_transaction(s, "message too big");
        s->phase = TRANSACTION_FAILED;
    } else {
        return true;
    }
    return false;
}

void server_bdat(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (!take_size(s, arg))
        return;
    if (!check_bdat(s))
        swallow(s);
    else if (s->phase == TRANSACTION_MAIL)
        server_ask(s, ev, SMTP_SERVER_DATA);
    else
        server_bdat_accepted(s);
    if (ev->type == SMTP_SERVER_DATA)
        s->transaction->chunking = true;
}

void server_bdat_accepted(struct smtp_server *s)
{
    if (s->phase == TRANSACTION_MAIL) {
        server_body_begin(s, false);
        s->phase = TRANSACTION_CHUNKS;
    }
    s->data_bytes = 0;
    if (s->chunk_left_bytes)
        s->n_commands--; /* a useful one */
    server_set_state(s, SERVER_CHUNK);
}

void server_bdat_rejected(struct smtp_server *s)
{
    server_abort_transaction(s, "content refused");
    s->phase = TRANSACTION_FAILED;
    swallow(s);
}

static bool chunk_done(struct smtp_server *s, struct smtp_server_event *ev)
{
    if (!s->body_refused && s->chunk_last) {
        s->abort_owed = false;
        server_ask(s, ev, SMTP_SERVER_COMMIT);
        return true;
    }
    if (!s->body_refused) {
        server_reply(s, 250, "2.0.0", STR("Ok: chunk received"));
    }
    server_set_state(s, SERVER_COMMAND);
    return false;
}

/* One slice of the chunk; the CRLF that a last chunk lacks counts as one. */
static struct str chunk_slice(struct smtp_server *s, struct str in, size_t *used)
{
    struct str piece = str_skip(in, *used), slice = STR_NONE;
    if (piece.n > s->chunk_left_bytes)
        piece.n = (size_t)s->chunk_left_bytes;
    size_t n = piece.n;
    if (!s->body_refused && n)
        slice = smtp_body_next(&s->body, piece, &n);
    s->chunk_left_bytes -= n;
    *used += n;
    s->data_bytes += n;
    return slice;
}

bool server_read_chunk(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev)
{
    struct str slice = chunk_slice(s, in, used);
    if (slice.n == 0 && s->chunk_left_bytes == 0 && s->chunk_last && !s->body_refused)
        slice = smtp_body_finish(&s->body);
    if (s->body.fault && !s->body_refused) {
        server_body_note_fault(s);
        server_body_refuse(s);
        s->phase = s->chunk_last ? TRANSACTION_NONE : TRANSACTION_FAILED;
    }
    if (server_body_event(s, slice, ev))
        return true;
    return s->chunk_left_bytes == 0 && chunk_done(s, ev);
}
