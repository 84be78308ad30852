/* submit: takes a message that sendmail handed over. Happy path: addresses and content are checked while the content goes
 * into the spool through the queue's own writer; its sync ends with `done` and the queue id.
 * Ways to fail: bad input (65), no room or memory, a failing disk (75). All of these are told from a later turn of the
 * loop. */
#include "daemon/queue/submit.h"

#include <stdlib.h>
#include <sysexits.h>

#include "base/clock.h"
#include "io/now.h"

enum { ARENA_BYTES = 4 << 20, SERVER_BYTES = 256 };

struct submission {
    struct queue *queue;
    void (*done)(void *arg, int exit_status, uint64_t id, const char *text);
    void *arg;
    struct loop_timer *timer; /* tells a failure from a later turn */
    unsigned uid;
    char server[SERVER_BYTES], date[CLOCK_TEXT_BYTES];
    char *sender;
    int exit_status;
    struct err error;
};

static int exit_of(int code)
{
    return code == ERR_SYNTAX || code == ERR_LIMIT || code == ERR_DENIED ? EX_DATAERR : EX_TEMPFAIL;
}

static void answer(struct submission *s, int exit_status, uint64_t id, const char *text)
{
    s->done(s->arg, exit_status, id, text);
    loop_timer_free(&s->timer);
    free(s->sender);
    free(s);
}

static void on_timer(void *arg)
{
    struct submission *s = arg;
    answer(s, s->exit_status, 0, err_text(&s->error));
}

static bool add_prefix(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    (void)id;
    const struct submission *s = arg;
    return buf_addf(out, "Received: by %s (Postern, from userid %u)\r\n\tid %s; %s\r\n", s->server, s->uid, queue_id, s->date);
}

static void committed(void *arg, int result, uint64_t id)
{
    struct submission *s = arg;
    if (result == 0) {
        char queue_id[SPOOL_ID_TEXT_BYTES];
        spool_id_format(id, queue_id);
        log_mail(s->queue->ctx->log, LOG_LEVEL_INFO, "pickup", "%s: uid=%u from=<%s>", queue_id, s->uid, s->sender);
        answer(s, EX_OK, id, NULL);
    } else if (result == ERR_LIMIT) {
        answer(s, EX_DATAERR, 0, "the message has too many or too long addresses; send it in parts");
    } else if (result == ERR_BUSY) {
        answer(s, EX_TEMPFAIL, 0, "the spool has no room at this moment; try again later");
    } else {
        answer(s, EX_TEMPFAIL, 0, "the message could not be stored; try again later (the daemon's log says why)");
    }
}

static int write_content(struct submission *s, struct spool_message *message, struct str content, bool *ret_high)
{
    struct submit_content c;
    submit_content_init(&c, s->queue->ctx->conf);
    struct buf out;
    buf_init(&out, 2 * SUBMIT_CHUNK_BYTES + 2);
    int rc = 0;
    while (content.n && rc == 0) {
        struct str chunk = str_slice(content.p, content.n < SUBMIT_CHUNK_BYTES ? content.n : SUBMIT_CHUNK_BYTES);
        content = str_skip(content, chunk.n);
        buf_clear(&out);
        rc = submit_content_add(&c, chunk, &out, &s->error);
        if (rc == 0 && content.n == 0)
            rc = submit_content_end(&c, &out, &s->error);
        if (rc == 0)
            rc = spool_message_write(message, buf_str(&out), &s->error);
    }
    buf_done(&out);
    *ret_high = c.high;
    return rc;
}

static int store(struct submission *s, const struct submit_message *m, struct arena *arena)
{
    struct queue *q = s->queue;
    struct spool_recipient *recipients = NULL;
    bool utf8 = false, high = false;
    if (m->content.n == 0)
        return err_set(&s->error, ERR_SYNTAX, "the message is empty");
    int rc = submit_check_envelope(q->ctx->conf, m, arena, &recipients, &utf8, &s->error);
    if (rc < 0)
        return rc;
    struct spool_message *message = q->own ? spool_message_begin(q->own) : NULL;
    s->sender = str_dup(m->sender);
    if (!message || !s->sender) {
        if (message)
            spool_message_abort(message);
        return err_set(&s->error, -ENOMEM, "no memory for a message; try again later");
    }
    rc = write_content(s, message, m->content, &high);
    if (rc < 0) {
        spool_message_abort(message);
        return rc;
    }
    struct spool_envelope e = {
        .arrival_wall_ms = now_wall_ms(), .reverse_path = m->sender, .server = str_of(s->server),
        .flags = (high || utf8 ? (unsigned)SPOOL_FLAG_8BIT : 0u) | (utf8 ? (unsigned)SPOOL_FLAG_SMTPUTF8 : 0u),
        .recipient = recipients, .n_recipients = m->n_recipients,
    };
    clock_rfc5322(e.arrival_wall_ms, s->date);
    struct spool_commit commit = { .envelope = &e, .prefix = add_prefix, .done = committed, .arg = s };
    spool_message_commit(message, &commit);
    return 0;
}

void submit_store(struct queue *q, const struct submit_message *m,
                  void (*done)(void *arg, int exit_status, uint64_t id, const char *text), void *arg)
{
    struct submission *s = calloc(1, sizeof *s);
    /* The timer is made first: a failure must be told from a later turn. */
    if (!s || loop_timer_new(q->ctx->loop, on_timer, s, &s->timer, NULL) < 0) {
        free(s);
        done(arg, EX_TEMPFAIL, 0, "no memory for a message; try again later");
        return;
    }
    const struct conf *conf = q->ctx->conf;
    *s = (struct submission){ .queue = q, .done = done, .arg = arg, .uid = m->uid, .timer = s->timer };
    if (!str_copy(str_of(conf->n_servers ? conf->server[0].name : "localhost"), s->server, sizeof s->server))
        str_copy(STR("localhost"), s->server, sizeof s->server);
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    int rc = store(s, m, &arena);
    arena_done(&arena);
    if (rc < 0) {
        if (exit_of(rc) == EX_TEMPFAIL)
            log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.submit.failed", "%s", err_text(&s->error));
        s->exit_status = exit_of(rc);
        loop_timer_set(s->timer, 0);
    }
}
