/* writer: a message's way from the first slice of its body to "durable".
 *
 * Happy path: write() gathers the body; commit() asks for a place, gets the trace headers for the id which that
 * place gives, and appends the record at once; at the end of the turn one sync is started for all that was
 * appended; its end calls every `done` that it covers and publishes the offset.
 * A body over 64 KiB goes into a file of its own, which is synced by the other thread before the record that names
 * it is written.
 * Failures: no segment → ERR_BUSY. A failing write or sync → its segment is retired, everybody who waits for it gets
 * the error, nothing is tried again. All of these answers come from the end of a sync (perhaps an empty one), so
 * `done` is never called from within commit(). */
#include "spool/writer.h"

#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "spool/log.h"

enum {
    WRITER_BODIES = 16,
    BODY_PATIENCE_BYTES = 1024 * 1024,        /* gathered in memory while a body file is on its way */
    BODY_WAITING_BYTES = 32 * 1024 * 1024,    /* the same, of all messages */
    BODY_SYNC_EVERY_BYTES = 8 * 1024 * 1024,  /* so that the last sync of a large body is short */
    BODY_QUEUE_MAX = 4096,
};

enum message_state { MESSAGE_OPEN, MESSAGE_BODY_SYNC, MESSAGE_WAITING, MESSAGE_FAILED };

struct spool_message {
    struct worker_job job;                    /* syncs the body file */
    TAILQ_ENTRY(spool_message) entry;         /* in writer->open or writer->waiting */
    struct spool_writer *writer;
    enum message_state state;
    bool job_runs, abandoned, forgotten;
    int result, job_result;
    struct buf body;                          /* what is not in the file */
    uint64_t body_bytes, unsynced_bytes;
    struct spool_lent file;                   /* number 0: none */
    int file_fd;
    XXH3_state_t *sum;                        /* of a body file */
    uint64_t body_sum;
    struct buf envelope;
    struct spool_commit commit;
    uint64_t id, segment;
    uint32_t end;
};
TAILQ_HEAD(message_list, spool_message);

struct spool_writer {
    struct worker_job sync_job;
    const struct spool_disk *disk;
    struct spool_page *page;
    int doorbell_fd;
    const struct spool_writer_handlers *handlers;
    void *arg;
    struct worker_pool *log_pool, *body_pool;
    struct loop_turn *turn;
    struct spool_log log;
    struct spool_log_sync sync;
    bool sync_runs, answers_wait, closing;
    struct { struct spool_lent lent; int fd; } body[WRITER_BODIES];
    unsigned n_bodies;
    struct message_list open, waiting;        /* waiting: in the order of appending */
    size_t patience_bytes;
    struct buf meta, prefix;                  /* scratch */
};

/* ---- segments and bodies ---- */

int spool_writer_lend_segment(struct spool_writer *w, const struct spool_lent *lent, int fd, struct err *err)
{
    if (lent->number == 0 || lent->size_bytes < SPOOL_SEGMENT_MIN_BYTES || lent->size_bytes > SPOOL_SEGMENT_MAX_BYTES ||
        spool_log_find(&w->log, lent->number) || !spool_log_add(&w->log, lent, fd)) {
        w->disk->close(w->disk, fd);
        return err_set(err, ERR_LIMIT, "segment %llu cannot be used", (unsigned long long)lent->number);
    }
    if (w->handlers->changed)
        w->handlers->changed(w->arg);
    return 0;
}

static int message_spill(struct spool_message *m, struct err *err);

int spool_writer_lend_body(struct spool_writer *w, const struct spool_lent *lent, int fd, struct err *err)
{
    if (lent->number == 0 || w->n_bodies == WRITER_BODIES) {
        w->disk->close(w->disk, fd);
        return err_set(err, ERR_LIMIT, "body file %llu cannot be used", (unsigned long long)lent->number);
    }
    w->body[w->n_bodies].lent = *lent;
    w->body[w->n_bodies++].fd = fd;
    struct spool_message *m;
    TAILQ_FOREACH(m, &w->open, entry) { /* one that has waited for it */
        if (m->state == MESSAGE_OPEN && m->file.number == 0 && m->body.n > SPOOL_BODY_INLINE_MAX) {
            m->result = message_spill(m, NULL);
            break;
        }
    }
    if (w->handlers->changed)
        w->handlers->changed(w->arg);
    return 0;
}

void spool_writer_held(const struct spool_writer *w, void (*held)(void *arg, bool is_body, const struct spool_lent *lent),
                       void *arg)
{
    static const struct spool_lent end = { 0 };
    for (unsigned i = 0; i < w->log.n; i++) {
        const struct spool_log_segment *s = &w->log.segment[i];
        struct spool_lent lent = { s->number, s->generation, s->size_bytes };
        held(arg, false, &lent);
    }
    held(arg, false, &end);
    for (unsigned i = 0; i < w->n_bodies; i++)
        held(arg, true, &w->body[i].lent);
    const struct message_list *lists[] = { &w->open, &w->waiting };
    for (unsigned i = 0; i < 2; i++) {
        struct spool_message *m;
        TAILQ_FOREACH(m, lists[i], entry) {
            if (m->file.number)
                held(arg, true, &m->file);
        }
    }
    held(arg, true, &end);
}

bool spool_writer_can_accept(const struct spool_writer *w)
{
    for (unsigned i = 0; i < w->log.n; i++) {
        const struct spool_log_segment *s = &w->log.segment[i];
        if (!s->full && !s->failed && (s->size_bytes - s->tail >= SPOOL_META_MAX + SPOOL_BODY_INLINE_MAX))
            return true;
    }
    return false;
}

bool spool_writer_idle(const struct spool_writer *w)
{
    const struct spool_message *m;
    TAILQ_FOREACH(m, &w->open, entry) {
        if (m->state != MESSAGE_OPEN)
            return false;
    }
    return TAILQ_EMPTY(&w->waiting) && !w->sync_runs;
}

/* ---- syncs ---- */

static void message_free(struct spool_message *m);

static void sync_work(struct worker_job *job)
{
    struct spool_writer *w = (struct spool_writer *)job;
    spool_log_sync_run(w->disk, &w->sync);
}

/* Everybody whose record is durable now, or never will be. Handlers may begin, commit and forget messages. */
static void answer_waiting(struct spool_writer *w)
{
    struct message_list answered;
    TAILQ_INIT(&answered);
    struct spool_message *m, *next;
    w->answers_wait = false;
    for (m = TAILQ_FIRST(&w->waiting); m; m = next) {
        next = TAILQ_NEXT(m, entry);
        const struct spool_log_segment *s = m->state == MESSAGE_WAITING ? spool_log_find(&w->log, m->segment) : NULL;
        if (s && s->failed)
            m->result = -EIO;
        if (m->state == MESSAGE_FAILED || s->failed || s->durable >= m->end) {
            TAILQ_REMOVE(&w->waiting, m, entry);
            TAILQ_INSERT_TAIL(&answered, m, entry);
        }
    }
    while ((m = TAILQ_FIRST(&answered)) != NULL) {
        TAILQ_REMOVE(&answered, m, entry);
        if (m->result == 0)
            atomic_fetch_add_explicit(&w->page->messages, 1, memory_order_relaxed);
        if (!m->forgotten)
            m->commit.done(m->commit.arg, m->result, m->id);
        message_free(m);
    }
}

static void publish(struct spool_writer *w)
{
    bool bell = false;
    for (unsigned i = 0; i < w->sync.n; i++) {
        const struct spool_log_segment *s = spool_log_find(&w->log, w->sync.part[i].number);
        if (!s->failed)
            bell |= spool_page_publish(w->page, s->number, s->durable);
    }
    atomic_fetch_add_explicit(&w->page->syncs, 1, memory_order_relaxed);
    if (bell && w->doorbell_fd >= 0)
        (void)!eventfd_write(w->doorbell_fd, 1);
}

static void reap_segments(struct spool_writer *w)
{
    struct spool_log_segment s;
    bool any = false;
    while (spool_log_reap(&w->log, &s)) {
        /* A failed one ends for the queue where its last good sync ended. */
        struct spool_lent lent = { s.number, s.generation, s.failed ? s.durable : s.end };
        w->disk->close(w->disk, s.fd);
        w->handlers->segment_done(w->arg, &lent);
        any = true;
    }
    if (any && w->handlers->changed)
        w->handlers->changed(w->arg);
}

static void sync_done(struct worker_job *job)
{
    struct spool_writer *w = (struct spool_writer *)job;
    w->sync_runs = false;
    int rc = spool_log_sync_end(&w->log, &w->sync);
    publish(w);
    if (rc < 0) {
        struct err why = { 0 };
        err_errno(&why, -rc, "a segment of the spool could not be synced; it takes no more mail");
        w->handlers->failed(w->arg, &why);
    }
    answer_waiting(w);
    reap_segments(w);
    spool_writer_turn(w);
}

void spool_writer_turn(struct spool_writer *w)
{
    if (w->sync_runs || w->closing || !(w->answers_wait || spool_log_dirty(&w->log)))
        return;
    spool_log_sync_begin(&w->log, &w->sync);
    w->sync_job = (struct worker_job){ .work = sync_work, .done = sync_done };
    w->sync_runs = true;
    int rc = w->disk->submit(w->disk, w->log_pool, &w->sync_job);
    if (rc < 0) { /* never: one job at most is in this pool */
        for (unsigned i = 0; i < w->sync.n; i++)
            w->sync.part[i].result = rc;
        sync_done(&w->sync_job);
    }
}

static void turned(void *arg)
{
    spool_writer_turn(arg);
}

/* ---- a message ---- */

struct spool_message *spool_message_begin(struct spool_writer *w)
{
    struct spool_message *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->writer = w;
    m->file_fd = -1;
    buf_init(&m->body, BODY_PATIENCE_BYTES);
    buf_init(&m->envelope, SPOOL_META_MAX);
    TAILQ_INSERT_TAIL(&w->open, m, entry);
    return m;
}

/* The message is in no list. */
static void message_free(struct spool_message *m)
{
    struct spool_writer *w = m->writer;
    if (m->body.n > SPOOL_BODY_INLINE_MAX && m->file.number == 0)
        w->patience_bytes -= m->body.n;
    if (m->file_fd >= 0)
        w->disk->close(w->disk, m->file_fd);
    /* Once a record that names it was written, the body may be needed by recovery: then it is the queue's. */
    if (m->file.number && m->end == 0 && !w->closing)
        w->handlers->body_done(w->arg, &m->file);
    if (m->sum)
        XXH3_freeState(m->sum);
    buf_done(&m->body);
    buf_done(&m->envelope);
    free(m);
}

/* Fails later, at the end of a sync. */
static void message_fail(struct spool_message *m, int result)
{
    m->state = MESSAGE_FAILED;
    m->result = result;
    TAILQ_REMOVE(&m->writer->open, m, entry);
    TAILQ_INSERT_TAIL(&m->writer->waiting, m, entry);
    m->writer->answers_wait = true;
}

static void body_work(struct worker_job *job)
{
    struct spool_message *m = (struct spool_message *)job;
    m->job_result = m->writer->disk->fdatasync(m->writer->disk, m->file_fd);
}

static void message_append(struct spool_message *m);
static void body_sync(struct spool_message *m);

static void body_done(struct worker_job *job)
{
    struct spool_message *m = (struct spool_message *)job;
    m->job_runs = false;
    if (m->job_result < 0 && m->result == 0) {
        struct err why = { 0 };
        m->result = err_errno(&why, -m->job_result, "body file %llu of the spool could not be synced",
                              (unsigned long long)m->file.number);
        m->writer->handlers->failed(m->writer->arg, &why);
    }
    if (m->abandoned || (m->state == MESSAGE_BODY_SYNC && m->forgotten)) {
        TAILQ_REMOVE(&m->writer->open, m, entry);
        m->state = MESSAGE_OPEN;
        message_free(m);
        return;
    }
    if (m->state == MESSAGE_BODY_SYNC) {
        if (m->result < 0)
            message_fail(m, m->result);
        else if (m->unsynced_bytes)
            body_sync(m);
        else
            message_append(m);
    }
}

static void body_sync(struct spool_message *m)
{
    m->job = (struct worker_job){ .work = body_work, .done = body_done };
    m->unsynced_bytes = 0;
    int rc = m->writer->disk->submit(m->writer->disk, m->writer->body_pool, &m->job);
    if (rc < 0)
        m->result = rc;
    else
        m->job_runs = true;
}

/* What was gathered goes into the body file; takes one if there is none yet. */
static int message_spill(struct spool_message *m, struct err *err)
{
    struct spool_writer *w = m->writer;
    if (m->file.number == 0) {
        if (w->n_bodies == 0)
            return 0;
        if (!(m->sum = XXH3_createState()))
            return err_set(err, -ENOMEM, "no memory for a large message");
        XXH3_64bits_reset(m->sum);
        m->file = w->body[0].lent;
        m->file_fd = w->body[0].fd;
        memmove(&w->body[0], &w->body[1], --w->n_bodies * sizeof(w->body[0]));
        if (m->body.n > SPOOL_BODY_INLINE_MAX)
            w->patience_bytes -= m->body.n;
        w->handlers->body_taken(w->arg, &m->file);
    }
    uint64_t at = m->body_bytes - m->body.n;
    struct iovec iov = { m->body.p, m->body.n };
    int rc = spool_disk_write_all(w->disk, m->file_fd, &iov, 1, (off_t)at);
    if (rc < 0)
        return err_errno(err, -rc, "cannot write body file %llu of the spool", (unsigned long long)m->file.number);
    XXH3_64bits_update(m->sum, m->body.p, m->body.n);
    m->unsynced_bytes += m->body.n;
    buf_clear(&m->body);
    if (m->unsynced_bytes >= BODY_SYNC_EVERY_BYTES && !m->job_runs)
        body_sync(m);
    return m->result;
}

int spool_message_write(struct spool_message *m, struct str slice, struct err *err)
{
    struct spool_writer *w = m->writer;
    while (m->result == 0 && slice.n) {
        /* A body file takes it in pieces of 64 KiB; without one, memory does for a while. */
        bool in_file = m->file.number != 0 || w->n_bodies > 0;
        size_t limit = in_file ? SPOOL_BODY_INLINE_MAX : BODY_PATIENCE_BYTES;
        size_t take = m->body.n >= limit ? 0 : limit - m->body.n;
        take = take < slice.n ? take : slice.n;
        size_t before = m->body.n > SPOOL_BODY_INLINE_MAX ? m->body.n : 0;
        if (take && !buf_add(&m->body, str_slice(slice.p, take)))
            return m->result = err_set(err, -ENOMEM, "no memory for a message");
        m->body_bytes += take;
        slice = str_skip(slice, take);
        if (m->file.number == 0)
            w->patience_bytes += (m->body.n > SPOOL_BODY_INLINE_MAX ? m->body.n : 0) - before;
        if (in_file && (slice.n || m->body.n > SPOOL_BODY_INLINE_MAX))
            m->result = message_spill(m, err);
        else if (!in_file && (slice.n || w->patience_bytes > BODY_WAITING_BYTES))
            m->result = err_set(err, ERR_BUSY, "no spare body file is left in the spool");
    }
    if (m->result < 0 && err && err->code == 0)
        err_set(err, m->result, "the message could not be stored");
    return m->result;
}

uint64_t spool_message_body_bytes(const struct spool_message *m)
{
    return m->body_bytes;
}

/* Headers for this place's id, then envelope: into w->meta. */
static int build_meta(struct spool_writer *w, struct spool_message *m)
{
    char text[SPOOL_ID_TEXT_BYTES];
    spool_id_format(m->id, text);
    buf_clear(&w->prefix);
    buf_clear(&w->meta);
    if (m->commit.prefix && !m->commit.prefix(m->commit.arg, m->id, text, &w->prefix))
        return ERR_LIMIT;
    struct spool_meta meta = { m->file.number, m->body_bytes, buf_str(&w->prefix), buf_str(&m->envelope) };
    if (w->prefix.failed || !spool_meta_encode(&meta, &w->meta))
        return ERR_LIMIT;
    return 0;
}

/* The record is written, or the message fails; what is left is to wait for a sync. */
static void write_record(struct spool_message *m, struct spool_log_segment *s, struct spool_record *r, struct str meta,
                         struct str content)
{
    struct spool_writer *w = m->writer;
    int rc = spool_log_append(&w->log, s, r, meta, content);
    if (rc < 0) {
        struct err why = { 0 };
        err_errno(&why, -rc, "segment %llu of the spool could not be written; it takes no more mail",
                  (unsigned long long)s->number);
        w->handlers->failed(w->arg, &why);
        message_fail(m, rc);
        return;
    }
    m->segment = s->number;
    m->end = s->end;
    m->state = MESSAGE_WAITING;
    buf_done(&m->body); /* a thousand messages may wait for one slow sync */
    TAILQ_REMOVE(&w->open, m, entry);
    TAILQ_INSERT_TAIL(&w->waiting, m, entry);
}

static void message_append(struct spool_message *m)
{
    struct spool_writer *w = m->writer;
    struct spool_log_segment *s = spool_log_room(&w->log, SPOOL_RECORD_HEADER_BYTES);
    for (;;) {
        if (!s) {
            message_fail(m, ERR_BUSY);
            return;
        }
        m->id = spool_id_make(s->number, s->tail);
        int rc = build_meta(w, m);
        if (rc < 0) {
            message_fail(m, rc);
            return;
        }
        /* Does not fit: the next segment gives another id, and so other headers. */
        struct spool_log_segment *fits = spool_log_room(&w->log, (uint32_t)(SPOOL_RECORD_HEADER_BYTES + w->meta.n + m->body.n));
        if (fits == s)
            break;
        s = fits;
    }
    struct spool_record r = { .kind = SPOOL_KIND_MESSAGE, .id = m->id };
    r.content_sum = m->file.number ? m->body_sum : spool_sum(buf_str(&m->body));
    write_record(m, s, &r, buf_str(&w->meta), buf_str(&m->body));
}

int spool_writer_copy(struct spool_writer *w, const struct spool_copy *copy)
{
    struct spool_message *m = spool_message_begin(w);
    if (!m)
        return -ENOMEM;
    m->commit = (struct spool_commit){ .done = copy->done, .arg = copy->arg };
    m->id = copy->id;
    struct spool_record r = { .kind = SPOOL_KIND_MESSAGE, .flags = SPOOL_RECORD_COPY, .id = copy->id,
                              .content_sum = copy->content_sum };
    size_t n = SPOOL_RECORD_HEADER_BYTES + copy->meta.n + copy->content.n;
    struct spool_log_segment *s = spool_log_room(&w->log, (uint32_t)n);
    if (s)
        write_record(m, s, &r, copy->meta, copy->content);
    else
        message_fail(m, ERR_BUSY);
    return 0;
}

void spool_message_commit(struct spool_message *m, const struct spool_commit *commit)
{
    m->commit = *commit;
    if (m->result == 0 && !spool_envelope_encode(commit->envelope, &m->envelope))
        m->result = ERR_LIMIT;
    m->commit.envelope = NULL;
    if (m->result == 0 && m->file.number == 0 && m->body.n > SPOOL_BODY_INLINE_MAX && m->writer->n_bodies == 0)
        m->result = ERR_BUSY;
    if (m->result == 0 && m->file.number == 0 && m->body.n > SPOOL_BODY_INLINE_MAX)
        m->result = message_spill(m, NULL);
    if (m->result == 0 && m->file.number) {
        m->state = MESSAGE_BODY_SYNC;
        if (m->body.n)
            m->result = message_spill(m, NULL);
        m->body_sum = XXH3_64bits_digest(m->sum);
        if (m->result == 0 && !m->job_runs)
            body_sync(m);
        if (m->result == 0)
            return;
    }
    if (m->result < 0 && !m->job_runs)
        message_fail(m, m->result);
    else if (m->result == 0)
        message_append(m);
    else
        m->state = MESSAGE_BODY_SYNC; /* body_done() fails it */
}

void spool_message_forget(struct spool_message *m)
{
    m->forgotten = true;
}

void spool_message_abort(struct spool_message *m)
{
    if (m->job_runs) {
        m->abandoned = true;
        return;
    }
    TAILQ_REMOVE(&m->writer->open, m, entry);
    message_free(m);
}

/* ---- life ---- */

int spool_writer_new(struct loop *loop, const struct spool_disk *disk, struct spool_page *page, int doorbell_fd,
                     const struct spool_writer_handlers *handlers, void *arg, struct spool_writer **ret_writer,
                     struct err *err)
{
    struct spool_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, -ENOMEM, "no memory for a spool writer");
    *w = (struct spool_writer){ .disk = disk, .page = page, .doorbell_fd = doorbell_fd, .handlers = handlers, .arg = arg,
                                .log = { .disk = disk } };
    TAILQ_INIT(&w->open);
    TAILQ_INIT(&w->waiting);
    buf_init(&w->meta, SPOOL_META_MAX);
    buf_init(&w->prefix, SPOOL_PREFIX_MAX);
    int rc = 0;
    if (loop) {
        rc = worker_pool_new(loop, "spool-log", 1, 4, &w->log_pool, err);
        if (rc >= 0)
            rc = worker_pool_new(loop, "spool-body", 1, BODY_QUEUE_MAX, &w->body_pool, err);
        if (rc >= 0)
            rc = loop_turn_new(loop, LOOP_TURN_WORK, turned, w, &w->turn, err);
    }
    if (rc < 0) {
        spool_writer_free(&w);
        return rc;
    }
    *ret_writer = w;
    return 0;
}

void spool_writer_free(struct spool_writer **writer)
{
    struct spool_writer *w = *writer;
    *writer = NULL;
    if (!w)
        return;
    w->closing = true;
    loop_turn_free(&w->turn);
    worker_pool_free(&w->log_pool); /* waits for the sync that runs; sync_done() ends it */
    worker_pool_free(&w->body_pool);
    struct message_list *lists[] = { &w->waiting, &w->open };
    for (unsigned i = 0; i < 2; i++) {
        struct spool_message *m;
        while ((m = TAILQ_FIRST(lists[i])) != NULL) {
            TAILQ_REMOVE(lists[i], m, entry);
            m->result = ERR_CLOSED;
            if (m->state != MESSAGE_OPEN && !m->forgotten)
                m->commit.done(m->commit.arg, ERR_CLOSED, 0);
            message_free(m);
        }
    }
    for (unsigned i = 0; i < w->log.n; i++)
        w->disk->close(w->disk, w->log.segment[i].fd);
    for (unsigned i = 0; i < w->n_bodies; i++)
        w->disk->close(w->disk, w->body[i].fd);
    buf_done(&w->meta);
    buf_done(&w->prefix);
    free(w);
}
