/* bounce: tells a sender what became of a message (RFC 3461, RFC 3464). Happy path: the original is read, the recipients
 * whose NOTIFY asks for this news are picked, the notification is built (smtp/dsn.h) and written as a message of our
 * own; `done` comes when it is durable.
 * Ways to fail: the original's record cannot be read, no memory, no room in the spool: negative, to be tried again. A body that
 * is damaged does not stop a bounce: then only our own trace headers are returned. */
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "daemon/queue/submit.h"
#include "io/now.h"
#include "smtp/address.h"
#include "smtp/dsn.h"

enum {
    RETURN_MAX_BYTES = 64 * 1024,     /* of the original */
    NOTICE_MAX_BYTES = 64 << 20,
    ARENA_BYTES = 32 << 20,
    DIAGNOSTIC_MAX_BYTES = 1024,
    SERVER_BYTES = 256,
    BOUNDARY_LETTERS = 24,
};

struct bounce {
    struct queue *queue;
    void (*done)(void *arg, int result);
    void *arg;
    struct loop_timer *timer; /* tells what needed no commit, from a later turn */
    int result;
    enum bounce_kind kind;    /* the gravest */
    char original_id[SPOOL_ID_TEXT_BYTES], server[SERVER_BYTES], date[CLOCK_TEXT_BYTES];
};

/* While a notification is being built. */
struct notice {
    struct bounce *bounce;
    const struct conf *conf;
    struct arena arena;
    const struct spool_envelope *envelope;
    struct smtp_dsn_recipient *recipient;
    size_t n_recipients;
    struct str remote_mta, retry_until;
    struct buf original;
    struct str returned;      /* what of it goes back */
    bool full, utf8;
};

static void answer(struct bounce *b, int result)
{
    b->done(b->arg, result);
    loop_timer_free(&b->timer);
    free(b);
}

static void on_timer(void *arg)
{
    struct bounce *b = arg;
    answer(b, b->result);
}

static void answer_later(struct bounce *b, int result)
{
    b->result = result;
    loop_timer_set(b->timer, 0);
}

/* ---- who is told ---- */

/* NOTIFY that is not given means news of failure and of delay (RFC 3461 section 4.1). */
static bool is_due(enum bounce_kind kind, uint8_t notify)
{
    static const uint8_t asks[] = { [BOUNCE_FAILED] = SPOOL_NOTIFY_FAILURE, [BOUNCE_DELAYED] = SPOOL_NOTIFY_DELAY,
                                    [BOUNCE_DELIVERED] = SPOOL_NOTIFY_SUCCESS, [BOUNCE_RELAYED] = SPOOL_NOTIFY_SUCCESS };
    unsigned bits = notify ? notify : (unsigned)SPOOL_NOTIFY_FAILURE | SPOOL_NOTIFY_DELAY;
    return !(bits & SPOOL_NOTIFY_NEVER) && (bits & asks[kind]);
}

/* Peers' words: valid UTF-8 or ASCII, and not endless. */
static struct str clean(struct notice *n, struct str s)
{
    struct str copy = arena_copy(&n->arena, str_slice(s.p, s.n < DIAGNOSTIC_MAX_BYTES ? s.n : DIAGNOSTIC_MAX_BYTES));
    if (!smtp_utf8_valid(copy)) {
        char *p = (char *)copy.p; /* the copy is ours */
        for (size_t i = 0; i < copy.n; i++)
            if (p[i] & 0x80)
                p[i] = '?';
    }
    return copy;
}

/* "class.subject.detail" (RFC 3463), or what the kind says in general. */
static struct str status_of(struct notice *n, const struct bounce_row *row)
{
    static const char *const otherwise[] = { [BOUNCE_FAILED] = "5.0.0", [BOUNCE_DELAYED] = "4.0.0",
                                             [BOUNCE_DELIVERED] = "2.0.0", [BOUNCE_RELAYED] = "2.0.0" };
    struct str rest = row->dsn, part;
    size_t parts = 0;
    for (bool more = true; more && parts < 4; parts++) {
        uint64_t value;
        more = str_cut(&rest, '.', &part);
        if (part.n > 3 || !str_to_u64(part, 999, &value) || (parts == 0 && value != 2 && value != 4 && value != 5))
            return str_of(otherwise[row->kind]);
    }
    return parts == 3 ? arena_copy(&n->arena, row->dsn) : str_of(otherwise[row->kind]);
}

static void add_row(struct notice *n, const struct bounce_row *row)
{
    static const enum smtp_dsn_action actions[] = { [BOUNCE_FAILED] = SMTP_DSN_FAILED, [BOUNCE_DELAYED] = SMTP_DSN_DELAYED,
                                                    [BOUNCE_DELIVERED] = SMTP_DSN_DELIVERED,
                                                    [BOUNCE_RELAYED] = SMTP_DSN_RELAYED };
    const struct spool_recipient *to = &n->envelope->recipient[row->recipient];
    n->recipient[n->n_recipients++] = (struct smtp_dsn_recipient){
        .action = actions[row->kind], .address = to->address, .orcpt = to->orcpt, .status = status_of(n, row),
        .diagnostic = clean(n, row->diagnostic), .from_smtp = row->from_smtp,
        .remote_mta = row->from_smtp ? n->remote_mta : STR_NONE,
        .will_retry_until = row->kind == BOUNCE_DELAYED ? n->retry_until : STR_NONE,
    };
    n->utf8 |= !smtp_is_ascii(to->address) || !smtp_is_ascii(to->orcpt);
    if (row->kind < n->bounce->kind)
        n->bounce->kind = row->kind;
}

static bool pick_rows(struct notice *n, const struct bounce_row *rows, size_t n_rows)
{
    n->recipient = arena_alloc(&n->arena, (n_rows ? n_rows : 1) * sizeof *n->recipient);
    if (!n->recipient)
        return false;
    n->bounce->kind = BOUNCE_RELAYED;
    for (size_t i = 0; i < n_rows; i++)
        if (rows[i].recipient < n->envelope->n_recipients &&
            is_due(rows[i].kind, n->envelope->recipient[rows[i].recipient].notify))
            add_row(n, &rows[i]);
    return true;
}

/* ---- what is returned ---- */

int bounce_read(struct queue *q, const struct spool_entry *entry, struct spool_reader **ret_reader, int *ret_body_fd,
                struct err *err)
{
    *ret_body_fd = -1;
    int rc = queue_read(q, entry, ret_reader, err);
    uint64_t file = rc == 0 ? spool_reader_body_file(*ret_reader) : 0;
    if (!file)
        return rc;
    int fd = spool_store_body_open(q->store, file);
    if (fd < 0) /* who reads the body is told so then */
        return 0;
    struct spool_reader *whole;
    if (spool_store_read(q->store, queue_segment_of(q, entry), entry->offset, entry->length, fd, &whole, err) < 0) {
        close(fd);
        return 0;
    }
    spool_reader_free(ret_reader);
    *ret_reader = whole;
    *ret_body_fd = fd;
    return 0;
}

static bool lines_are_whole(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool bare_lf = s.p[i] == '\n' && (i == 0 || s.p[i - 1] != '\r');
        bool bare_cr = s.p[i] == '\r' && (i + 1 == s.n || s.p[i + 1] != '\n');
        if (bare_lf || bare_cr || s.p[i] == 0)
            return false;
    }
    return true;
}

/* Trace headers and as much of the body as may go back. False: what was read of the body is not what was written. */
static bool read_body(struct spool_reader *reader, struct buf *into, bool whole)
{
    for (;;) {
        size_t room = into->n < RETURN_MAX_BYTES ? RETURN_MAX_BYTES - into->n : 0;
        if (room == 0 && !whole)
            return true;
        room = room ? room : 1; /* to read up to the end, which says that the checksum is right */
        char *to = buf_reserve(into, room);
        ssize_t got = to ? spool_reader_read(reader, to, room, NULL) : -1;
        if (got <= 0)
            return got == 0;
        into->n += (size_t)got;
    }
}

static void take_original(struct notice *n, struct spool_reader *reader)
{
    struct str prefix = spool_reader_prefix(reader);
    buf_init(&n->original, SPOOL_PREFIX_MAX + RETURN_MAX_BYTES + 1);
    buf_add(&n->original, prefix);
    size_t trace_bytes = n->original.n; /* 0 when memory is short */
    bool wanted = n->bounce->kind == BOUNCE_FAILED && n->envelope->ret != SPOOL_RET_HDRS;
    bool fits = spool_reader_body_bytes(reader) + prefix.n <= RETURN_MAX_BYTES;
    if (!read_body(reader, &n->original, fits)) {
        n->original.n = trace_bytes;
        fits = false;
    }
    n->full = wanted && fits;
    n->returned = n->full ? buf_str(&n->original) : smtp_dsn_header_section(buf_str(&n->original), RETURN_MAX_BYTES);
    if (!lines_are_whole(n->returned)) {
        n->full = false;
        n->returned = prefix;
    }
}

/* ---- the notification ---- */

static void random_letters(char *p, size_t n)
{
    unsigned char octets[BOUNDARY_LETTERS];
    now_random(octets, (unsigned)n);
    for (size_t i = 0; i < n; i++)
        p[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[octets[i] & 31];
}

static bool build(struct notice *n, struct buf *out, bool *ret_8bit)
{
    struct bounce *b = n->bounce;
    char boundary[BOUNDARY_LETTERS], id[BOUNDARY_LETTERS], arrival[CLOCK_TEXT_BYTES];
    do
        random_letters(boundary, sizeof boundary);
    while (memmem(n->returned.p, n->returned.n, boundary, sizeof boundary));
    random_letters(id, sizeof id);
    const char *message_id = arena_printf(&n->arena, "%.*s@%s", (int)sizeof id, id, b->server);
    clock_rfc5322(n->envelope->arrival_wall_ms, arrival);
    struct smtp_dsn dsn = {
        .reporting_mta = str_of(b->server), .to = n->envelope->reverse_path, .date = str_of(b->date),
        .arrival_date = str_of(arrival), .message_id = str_of(message_id), .boundary = str_slice(boundary, sizeof boundary),
        .queue_id = str_of(b->original_id), .envid = n->envelope->envid, .postmaster = str_of(n->conf->postmaster),
        .original = n->returned, .full = n->full, .utf8 = n->utf8, .body_8bit = !smtp_is_ascii(n->returned),
        .recipient = n->recipient, .n_recipients = n->n_recipients,
    };
    *ret_8bit = dsn.utf8 || dsn.body_8bit;
    return message_id && smtp_dsn_build(&dsn, out);
}

static bool add_prefix(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    (void)id;
    const struct bounce *b = arg;
    return buf_addf(out, "Received: by %s (Postern)\r\n\tid %s; %s\r\n", b->server, queue_id, b->date);
}

static void committed(void *arg, int result, uint64_t id)
{
    static const char *const words[] = { [BOUNCE_FAILED] = "sender non-delivery notification",
                                         [BOUNCE_DELAYED] = "sender delay notification",
                                         [BOUNCE_DELIVERED] = "sender delivery status notification",
                                         [BOUNCE_RELAYED] = "sender delivery status notification" };
    struct bounce *b = arg;
    if (result == 0) {
        char queue_id[SPOOL_ID_TEXT_BYTES];
        spool_id_format(id, queue_id);
        log_mail(b->queue->ctx->log, LOG_LEVEL_INFO, "bounce", "%s: %s: %s", b->original_id, words[b->kind], queue_id);
    }
    answer(b, result);
}

/* A notification asks for no news about itself (RFC 3461 section 6.2: NOTIFY=NEVER). */
static int store(struct notice *n, struct str text, bool body_8bit)
{
    struct bounce *b = n->bounce;
    struct spool_message *message = b->queue->own ? spool_message_begin(b->queue->own) : NULL;
    if (!message)
        return -ENOMEM;
    int rc = spool_message_write(message, text, NULL);
    if (rc < 0) {
        spool_message_abort(message);
        return rc;
    }
    struct spool_recipient to = { .address = n->envelope->reverse_path, .notify = SPOOL_NOTIFY_NEVER };
    struct spool_envelope e = {
        .arrival_wall_ms = now_wall_ms(), .server = str_of(b->server), .recipient = &to, .n_recipients = 1,
        .flags = (unsigned)SPOOL_FLAG_BOUNCE | (body_8bit ? (unsigned)SPOOL_FLAG_8BIT : 0u) |
                 (n->utf8 ? (unsigned)SPOOL_FLAG_SMTPUTF8 : 0u),
    };
    struct spool_commit commit = { .envelope = &e, .prefix = add_prefix, .done = committed, .arg = b };
    spool_message_commit(message, &commit);
    return 0;
}

static void take_unstored(struct notice *n, struct str original)
{
    struct submit_content content;
    submit_content_init(&content, n->conf);
    buf_init(&n->original, 2 * (size_t)RETURN_MAX_BYTES + 4);
    struct str begin = str_slice(original.p, original.n < RETURN_MAX_BYTES ? original.n : RETURN_MAX_BYTES);
    submit_content_add(&content, begin, &n->original, NULL); /* up to what no message may hold */
    n->full = false;
    n->returned = smtp_dsn_header_section(buf_str(&n->original), RETURN_MAX_BYTES);
    if (!lines_are_whole(n->returned))
        n->returned = STR_NONE;
}

static void drop(struct queue *q, const char *id, const struct bounce_row *rows, size_t n, const char *reason)
{
    size_t failed = 0;
    for (size_t i = 0; i < n; i++)
        failed += rows[i].kind == BOUNCE_FAILED;
    if (failed == 0)
        return; /* nobody misses news of delay or success */
    struct log_record r;
    log_begin(&r, q->ctx->log, LOG_LEVEL_WARNING, "queue.bounce.dropped");
    log_cstr(&r, "id", id);
    log_int(&r, "recipients", (int64_t)failed);
    log_cstr(&r, "reason", reason);
    log_end(&r);
}

/* 1: nothing is due. 0: committed() will come. Without a reader it is about `unstored`. */
static int notify(struct notice *n, struct spool_reader *reader, struct str unstored, const struct bounce_row *rows,
                  size_t n_rows)
{
    struct bounce *b = n->bounce;
    const struct spool_envelope *e = n->envelope;
    if (e->reverse_path.n == 0 || (e->flags & SPOOL_FLAG_BOUNCE)) {
        drop(b->queue, b->original_id, rows, n_rows, e->reverse_path.n ? "it is a notification itself" : "it has no sender");
        return 1;
    }
    struct str server = e->server.n || n->conf->n_servers == 0 ? e->server : str_of(n->conf->server[0].name);
    if (!server.n || !str_copy(server, b->server, sizeof b->server))
        str_copy(STR("localhost"), b->server, sizeof b->server);
    char until[CLOCK_TEXT_BYTES];
    clock_rfc5322(now_wall_ms(), b->date);
    clock_rfc5322(e->arrival_wall_ms + (int64_t)n->conf->expire_after_s * 1000, until);
    n->retry_until = str_of(until);
    n->utf8 = (e->flags & SPOOL_FLAG_SMTPUTF8) || !smtp_is_ascii(e->reverse_path);
    if (!pick_rows(n, rows, n_rows))
        return -ENOMEM;
    if (n->n_recipients == 0)
        return 1;
    if (reader)
        take_original(n, reader);
    else
        take_unstored(n, unstored);
    struct buf text;
    buf_init(&text, NOTICE_MAX_BYTES);
    bool body_8bit;
    int rc = build(n, &text, &body_8bit) ? store(n, buf_str(&text), body_8bit) : -ENOMEM;
    buf_done(&text);
    return rc;
}

/* The timer is made first: what needs no commit must be told from a later turn. */
static struct bounce *bounce_new(struct queue *q, void (*done)(void *arg, int result), void *arg)
{
    struct bounce *b = calloc(1, sizeof *b);
    if (!b || loop_timer_new(q->ctx->loop, on_timer, b, &b->timer, NULL) < 0) {
        free(b);
        done(arg, -ENOMEM);
        return NULL;
    }
    b->queue = q;
    b->done = done;
    b->arg = arg;
    return b;
}

void bounce_unstored(struct queue *q, const struct spool_envelope *envelope, struct str original,
                     const struct bounce_row *rows, size_t n_rows, void (*done)(void *arg, int result), void *arg)
{
    struct bounce *b = bounce_new(q, done, arg);
    if (!b)
        return;
    str_copy(STR("(drop)"), b->original_id, sizeof b->original_id);
    struct notice n = { .bounce = b, .conf = q->ctx->conf, .envelope = envelope };
    arena_init(&n.arena, ARENA_BYTES);
    int rc = notify(&n, NULL, original, rows, n_rows);
    buf_done(&n.original);
    arena_done(&n.arena);
    if (rc != 0)
        answer_later(b, rc < 0 ? rc : 0);
}

void bounce_send(struct queue *q, const struct spool_entry *entry, const struct bounce_row *rows, size_t n_rows,
                 struct str remote_mta, void (*done)(void *arg, int result), void *arg)
{
    struct bounce *b = bounce_new(q, done, arg);
    if (!b)
        return;
    spool_id_format(entry->id, b->original_id);
    if (entry->flags & (SPOOL_ENTRY_BOUNCE | SPOOL_ENTRY_NULL_SENDER)) {
        drop(q, b->original_id, rows, n_rows,
             entry->flags & SPOOL_ENTRY_BOUNCE ? "it is a notification itself" : "it has no sender");
        answer_later(b, 0);
        return;
    }
    struct err err = { 0 };
    struct spool_reader *reader = NULL;
    int body_fd = -1, rc = bounce_read(q, entry, &reader, &body_fd, &err);
    if (rc < 0) {
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.bounce.failed", "%s: %s", b->original_id, err_text(&err));
        answer_later(b, rc);
        return;
    }
    struct notice n = { .bounce = b, .conf = q->ctx->conf, .envelope = spool_reader_envelope(reader), .remote_mta = remote_mta };
    arena_init(&n.arena, ARENA_BYTES);
    rc = notify(&n, reader, STR_NONE, rows, n_rows);
    buf_done(&n.original);
    arena_done(&n.arena);
    spool_reader_free(&reader);
    if (body_fd >= 0)
        close(body_fd);
    if (rc != 0)
        answer_later(b, rc < 0 ? rc : 0);
}
