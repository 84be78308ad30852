/* The journal: what became of messages. Notes gather during a turn and are written as one record at its end; one sync
 * is in flight at a time, begun at once when somebody waits for it, otherwise at latest a second after the first note.
 * Space comes free when the sync that covers its note has ended.
 *
 * A checkpoint is a new journal: how far each segment was read, then every live message; what a segment holds below
 * that and is not listed is settled. The old journal is removed when the new one is durable under its name.
 * Ways to fail: a write or sync that fails ends this journal for good; a checkpoint into a new file is tried, and until
 * that succeeds nothing settled is durable: after a crash messages may be delivered again, never lost. */
#include <fcntl.h>
#include <stdlib.h>

#include "base/wire.h"
#include "spool/store_private.h"

enum {
    ROWS_MAX_BYTES = 512 * 1024,
    ROWS_FLUSH_BYTES = 256 * 1024,
    REASON_MAX_BYTES = 1024,
    SYNC_AT_LATEST_MS = 1000,
    CHECKPOINT_MIN_BYTES = 32 * 1024 * 1024,
    CHECKPOINT_VERSION = 1,
};

void journal_name(uint64_t number, char ret_name[32])
{
    snprintf(ret_name, 32, "journal/%016llX", (unsigned long long)number);
}

static struct spool_log_segment *journal_segment(struct journal *j)
{
    return j->log.n ? &j->log.segment[0] : NULL;
}

static void report(struct spool_store *store, int rc, const char *what)
{
    struct err err;
    err_errno(&err, -rc, "%s", what);
    store->o.handlers.failed(store->o.handlers.arg, &err);
}

static bool append_record(struct spool_store *store, uint8_t kind, struct str rows)
{
    struct journal *j = &store->journal;
    struct spool_record record = { .kind = kind, .content_sum = spool_sum(STR_NONE) };
    struct spool_log_segment *s = spool_log_room(&j->log, (uint32_t)(SPOOL_RECORD_HEADER_BYTES + rows.n));
    return s && spool_log_append(&j->log, s, &record, rows, STR_NONE) == 0;
}

/* ---- notes ---- */

static void write_rows(struct spool_store *store)
{
    struct journal *j = &store->journal;
    if (j->rows.n && !append_record(store, SPOOL_KIND_CHANGES, buf_str(&j->rows)))
        report(store, -EIO, "cannot write the spool's journal");
    buf_clear(&j->rows);
}

static void want_sync_soon(struct journal *j)
{
    if (j->timer_set || j->syncing)
        return;
    j->timer_set = true;
    loop_timer_set(j->timer, SYNC_AT_LATEST_MS);
}

static void note(struct spool_store *store, enum journal_op op, uint64_t id)
{
    struct journal *j = &store->journal;
    if (j->rows.n > ROWS_FLUSH_BYTES)
        write_rows(store);
    wire_put_u8(&j->rows, (uint8_t)op);
    wire_put_u64(&j->rows, id);
    want_sync_soon(j);
}

static bool grow(void **item, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 64;
    void *p = realloc(*item, more * size);
    if (!p)
        return false;
    *item = p;
    *cap = more;
    return true;
}

void spool_store_settled(struct spool_store *store, struct spool_segment *segment, uint64_t id, uint64_t body_file)
{
    note(store, JOURNAL_SETTLED, id);
    struct settlings *noted = &store->journal.noted;
    void *item = noted->item;
    if (!grow(&item, &noted->cap, noted->n, sizeof *noted->item))
        return; /* its space stays in use until the next start */
    noted->item = item;
    noted->item[noted->n++] = (struct settling){ segment, body_file };
}

void spool_store_settled_some(struct spool_store *store, uint64_t id, const uint16_t *recipients, uint16_t n)
{
    note(store, JOURNAL_SETTLED_SOME, id);
    wire_put_u16(&store->journal.rows, n);
    for (uint16_t i = 0; i < n; i++)
        wire_put_u16(&store->journal.rows, recipients[i]);
}

static void put_deferred(struct buf *b, uint16_t attempts, int64_t next_wall_ms, struct str reason)
{
    if (reason.n > REASON_MAX_BYTES)
        reason.n = REASON_MAX_BYTES;
    wire_put_u16(b, attempts);
    wire_put_u64(b, (uint64_t)next_wall_ms);
    wire_put_str(b, reason);
}

void spool_store_deferred(struct spool_store *store, uint64_t id, uint16_t attempts, int64_t next_wall_ms,
                          struct str reason)
{
    note(store, JOURNAL_DEFERRED, id);
    put_deferred(&store->journal.rows, attempts, next_wall_ms, reason);
}

void spool_store_mark(struct spool_store *store, uint64_t id, enum spool_mark mark)
{
    static const enum journal_op ops[] = { JOURNAL_HELD, JOURNAL_RELEASED, JOURNAL_DELAY_NOTICED };
    note(store, ops[mark], id);
}

/* ---- syncs ---- */

static void free_settled(struct spool_store *store, struct settlings *settled)
{
    for (size_t i = 0; i < settled->n; i++) {
        struct settling *s = &settled->item[i];
        if (s->body_file)
            store_free_body(store, s->body_file);
        if (s->segment->live)
            s->segment->live--;
        store_maybe_finished(store, s->segment);
    }
    settled->n = 0;
}

static void answer(struct sync_waiters *waiters, int result)
{
    /* A waiter may ask for the next sync: work on a list of our own. */
    struct sync_waiters now = *waiters;
    *waiters = (struct sync_waiters){ 0 };
    for (size_t i = 0; i < now.n; i++)
        now.item[i].done(now.item[i].arg, result);
    free(now.item);
}

/* What this journal did not make durable, the next checkpoint does. */
static void keep_for_checkpoint(struct journal *j)
{
    for (size_t i = 0; i < j->syncing_settled.n; i++) {
        void *item = j->noted.item;
        if (!grow(&item, &j->noted.cap, j->noted.n, sizeof *j->noted.item))
            break;
        j->noted.item = item;
        j->noted.item[j->noted.n++] = j->syncing_settled.item[i];
    }
    j->syncing_settled.n = 0;
}

static void sync_work(struct worker_job *job)
{
    struct spool_store *store = (struct spool_store *)((char *)job - offsetof(struct spool_store, journal.job));
    spool_log_sync_run(store_disk(store), &store->journal.sync);
}

static void begin_sync(struct spool_store *store);

static void sync_done(struct worker_job *job)
{
    struct spool_store *store = (struct spool_store *)((char *)job - offsetof(struct spool_store, journal.job));
    struct journal *j = &store->journal;
    j->syncing = false;
    int rc = spool_log_sync_end(&j->log, &j->sync);
    if (rc == 0 && (!j->log.n || j->log.segment[0].failed))
        rc = -EIO; /* the notes were not even written */
    if (rc < 0) {
        report(store, rc, "cannot sync the spool's journal");
        keep_for_checkpoint(j);
    } else {
        free_settled(store, &j->syncing_settled);
    }
    answer(&j->syncing_waiters, rc);
    if (j->waiters.n)
        begin_sync(store);
    else if (j->noted.n || j->rows.n || spool_log_dirty(&j->log))
        want_sync_soon(j);
}

static void begin_sync(struct spool_store *store)
{
    struct journal *j = &store->journal;
    if (j->syncing)
        return;
    write_rows(store);
    loop_timer_stop(j->timer);
    j->timer_set = false;
    struct settlings settled = j->syncing_settled;
    j->syncing_settled = j->noted;
    j->noted = settled;
    j->syncing_waiters = j->waiters;
    j->waiters = (struct sync_waiters){ 0 };
    spool_log_sync_begin(&j->log, &j->sync);
    j->job = (struct worker_job){ .work = sync_work, .done = sync_done };
    j->syncing = store_disk(store)->submit(store_disk(store), j->pool, &j->job) == 0;
    if (!j->syncing)
        answer(&j->syncing_waiters, -EAGAIN);
}

static void on_timer(void *arg)
{
    struct spool_store *store = arg;
    store->journal.timer_set = false;
    begin_sync(store);
}

/* The end of a turn: notes are written at once; the sync waits for company unless somebody waits for it. */
static void on_turn(void *arg)
{
    struct spool_store *store = arg;
    if (store->journal.waiters.n)
        begin_sync(store);
    else
        write_rows(store);
}

int spool_store_sync(struct spool_store *store, void (*done)(void *arg, int result), void *arg)
{
    struct sync_waiters *w = &store->journal.waiters;
    void *item = w->item;
    if (!grow(&item, &w->cap, w->n, sizeof *w->item))
        return -ENOMEM;
    w->item = item;
    w->item[w->n++] = (struct sync_waiter){ done, arg };
    return 0;
}

/* ---- checkpoints ---- */

struct spool_checkpoint {
    struct spool_store *store;
    struct buf rows;
    bool failed;
};

static void flush_rows(struct spool_checkpoint *c, uint8_t kind)
{
    if (c->rows.n && !append_record(c->store, kind, buf_str(&c->rows)))
        c->failed = true;
    if (c->rows.failed)
        c->failed = true;
    buf_clear(&c->rows);
}

void spool_store_checkpoint_entry(struct spool_checkpoint *c, uint64_t id, const struct spool_memory *m)
{
    if (c->rows.n > ROWS_FLUSH_BYTES)
        flush_rows(c, SPOOL_KIND_ENTRIES);
    wire_put_u64(&c->rows, id);
    wire_put_u8(&c->rows, (uint8_t)((m->held ? 1 : 0) | (m->delay_noticed ? 2 : 0)));
    put_deferred(&c->rows, m->attempts, m->next_wall_ms, m->reason);
    wire_put_u16(&c->rows, (uint16_t)m->n_settled);
    for (size_t i = 0; i < m->n_settled; i++)
        wire_put_u16(&c->rows, m->settled[i]);
}

static void put_segment(struct spool_checkpoint *c, const struct spool_lent *lent, uint32_t slot, uint32_t read_to)
{
    wire_put_u64(&c->rows, lent->number);
    wire_put_u64(&c->rows, lent->generation);
    wire_put_u32(&c->rows, slot);
    wire_put_u32(&c->rows, read_to);
}

static void put_segments(struct spool_checkpoint *c)
{
    struct spool_store *store = c->store;
    for (size_t i = 0; i < store->n_segments; i++) {
        const struct spool_segment *s = store->segment[i];
        if (!s || s->state == SEGMENT_BROKEN)
            continue;
        if (c->rows.n > ROWS_FLUSH_BYTES)
            flush_rows(c, SPOOL_KIND_SEGMENTS);
        /* What waits to be used again still shows its old messages to who reads it: all are settled. */
        if (s->before.number)
            put_segment(c, &s->before, s->slot, UINT32_MAX);
        bool whole = s->state == SEGMENT_FREE || (s->state == SEGMENT_CLOSED && !s->unreadable);
        if (s->state != SEGMENT_MAKING)
            put_segment(c, &s->lent, s->slot, whole ? UINT32_MAX : s->scan.at);
    }
    flush_rows(c, SPOOL_KIND_SEGMENTS);
}

/* A new empty journal as the log's only segment; the old one's descriptor goes to *ret_old. */
static int new_file(struct spool_store *store, int *ret_old, struct err *err)
{
    struct journal *j = &store->journal;
    const struct spool_disk *disk = store_disk(store);
    char name[32];
    uint64_t number = j->number + 1;
    journal_name(number, name);
    int fd = disk->open(disk, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return err_errno(err, -fd, "cannot make the journal %s in the spool", name);
    struct spool_lent lent = { .number = number };
    disk->random(disk, &lent.generation, sizeof lent.generation);
    unsigned char block[SPOOL_BLOCK_BYTES];
    struct spool_file_header header = { .kind = SPOOL_FILE_JOURNAL, .number = number, .generation = lent.generation,
                                        .size_bytes = SPOOL_SEGMENT_MAX_BYTES /* it grows */ };
    spool_file_header_encode(&header, block);
    struct iovec iov = { block, sizeof block };
    int rc = spool_disk_write_all(disk, fd, &iov, 1, 0);
    if (rc < 0) {
        disk->close(disk, fd);
        disk->unlink(disk, name);
        return err_errno(err, -rc, "cannot write the journal %s in the spool", name);
    }
    *ret_old = j->log.n ? j->log.segment[0].fd : -1;
    j->log.n = 0;
    spool_log_add(&j->log, &lent, fd);
    j->number = number;
    return 0;
}

static int write_checkpoint(struct spool_store *store, void (*each)(void *arg, struct spool_checkpoint *checkpoint),
                            void *arg)
{
    struct spool_checkpoint c = { .store = store };
    buf_init(&c.rows, ROWS_MAX_BYTES);
    wire_put_u32(&c.rows, CHECKPOINT_VERSION);
    wire_put_u64(&c.rows, store->next_number);
    wire_put_u64(&c.rows, store->next_body);
    flush_rows(&c, SPOOL_KIND_CHECKPOINT);
    put_segments(&c);
    each(arg, &c);
    flush_rows(&c, SPOOL_KIND_ENTRIES);
    if (!append_record(store, SPOOL_KIND_CHECKPOINT_END, STR("end")))
        c.failed = true;
    buf_done(&c.rows);
    return c.failed ? -EIO : 0;
}

static int sync_now(struct spool_store *store)
{
    struct journal *j = &store->journal;
    spool_log_sync_begin(&j->log, &j->sync);
    spool_log_sync_run(store_disk(store), &j->sync);
    int rc = spool_log_sync_end(&j->log, &j->sync);
    return rc < 0 ? rc : store_disk(store)->fsync_folder(store_disk(store), "journal");
}

bool spool_store_wants_checkpoint(const struct spool_store *store)
{
    const struct journal *j = &store->journal;
    if (j->syncing || !store->recovered || !j->log.n)
        return false;
    const struct spool_log_segment *s = &j->log.segment[0];
    return s->failed || s->end > j->bytes_at_checkpoint * 2 + CHECKPOINT_MIN_BYTES;
}

int spool_store_checkpoint(struct spool_store *store, void (*each)(void *arg, struct spool_checkpoint *checkpoint),
                           void *arg, struct err *err)
{
    struct journal *j = &store->journal;
    if (j->syncing)
        return err_set(err, ERR_BUSY, "a sync of the journal is under way");
    if (j->log.n)
        write_rows(store);
    buf_clear(&j->rows); /* before the first journal: what they say is in the checkpoint */
    int old_fd = -1;
    struct spool_log before = j->log;
    /* Segments that were removed must not come back with messages that this checkpoint says nothing of. */
    int rc = store_disk(store)->fsync_folder(store_disk(store), "segments");
    if (rc < 0)
        return err_errno(err, -rc, "cannot sync the folder segments of the spool");
    rc = new_file(store, &old_fd, err);
    if (rc < 0)
        return rc;
    rc = write_checkpoint(store, each, arg);
    if (rc == 0)
        rc = sync_now(store);
    const struct spool_disk *disk = store_disk(store);
    char name[32];
    if (rc < 0) {
        /* Back to the old one. The new file may be complete on the disk, and would count after a crash though it knows
         * nothing of later notes: unless it is surely gone, the old one takes no more. */
        disk->close(disk, j->log.segment[0].fd);
        journal_name(j->number, name);
        int gone = disk->unlink(disk, name);
        if (gone == 0)
            gone = disk->fsync_folder(disk, "journal");
        j->log = before;
        if (gone < 0 && j->log.n)
            j->log.segment[0].failed = true;
        return err_errno(err, -rc, "cannot write a new journal in the spool");
    }
    j->bytes_at_checkpoint = journal_segment(j)->end;
    if (old_fd >= 0)
        disk->close(disk, old_fd);
    recover_drop_journals(store, j->number);
    /* All that was noted before is part of what is durable now. */
    free_settled(store, &j->noted);
    answer(&j->waiters, 0);
    return 0;
}

int journal_open(struct spool_store *store, struct err *err)
{
    struct journal *j = &store->journal;
    j->log.disk = store_disk(store);
    j->log.may_grow = true;
    buf_init(&j->rows, ROWS_MAX_BYTES);
    int rc = loop_timer_new(store->o.loop, on_timer, store, &j->timer, err);
    if (rc == 0)
        rc = loop_turn_new(store->o.loop, LOOP_TURN_WORK, on_turn, store, &store->turn, err);
    if (rc == 0)
        rc = worker_pool_new(store->o.loop, "spool-journal", 1, 16, &j->pool, err);
    return rc;
}

void journal_close(struct spool_store *store)
{
    struct journal *j = &store->journal;
    if (j->pool && j->log.n) { /* the last notes */
        write_rows(store);
        worker_pool_free(&j->pool);
        (void)sync_now(store); /* nothing waits for it; without it messages are delivered again */
    }
    worker_pool_free(&j->pool);
    loop_timer_free(&j->timer);
    loop_turn_free(&store->turn);
    for (unsigned i = 0; i < j->log.n; i++)
        if (j->log.segment[i].fd >= 0)
            store_disk(store)->close(store_disk(store), j->log.segment[i].fd);
    j->log.n = 0;
    buf_done(&j->rows);
    free(j->noted.item);
    free(j->syncing_settled.item);
    free(j->waiters.item);
    free(j->syncing_waiters.item);
    j->noted = j->syncing_settled = (struct settlings){ 0 };
}
