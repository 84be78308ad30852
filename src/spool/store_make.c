/* Makes segments and body files, on a thread: what is lent is on disk with its folder before anybody hears of it.
 * When there is no room, it is tried again in a moment. */
#include <fcntl.h>
#include <stdlib.h>

#include "spool/store_private.h"

enum { FILL_BYTES = 1024 * 1024, BODIES_AT_ONCE = 8, MAKE_RETRY_MS = 1000 };

static void make_failed(struct spool_store *store, int rc, const char *what)
{
    store_tell_failed(store, rc, what);
    loop_timer_set(store->retry, MAKE_RETRY_MS);
}

/* ---- making, on a thread ---- */

struct make_segment {
    struct worker_job job;
    struct spool_store *store;
    struct spool_segment *segment;
    bool fresh;
    int result, fd;
};

static int fill(const struct spool_disk *disk, int fd, uint64_t bytes)
{
    char *zeros = calloc(1, FILL_BYTES);
    int rc = zeros ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < bytes && rc == 0; at += FILL_BYTES) {
        uint64_t n = bytes - at < FILL_BYTES ? bytes - at : FILL_BYTES;
        struct iovec iov = { zeros, (size_t)n };
        rc = spool_disk_write_all(disk, fd, &iov, 1, (off_t)at);
    }
    free(zeros);
    return rc;
}

/* The header comes last, after the zeros are on disk: a segment without it was never lent. */
static void make_segment_work(struct worker_job *job)
{
    struct make_segment *m = (struct make_segment *)job;
    const struct spool_disk *disk = store_disk(m->store);
    struct spool_segment *s = m->segment;
    char name[32];
    store_segment_name(s->slot, name);
    int rc = 0;
    m->fd = s->fd;
    if (m->fresh) {
        m->fd = disk->open(disk, name, O_RDWR | O_CREAT | O_TRUNC, 0600);
        rc = m->fd < 0 ? m->fd : fill(disk, m->fd, s->lent.size_bytes);
        if (rc == 0)
            rc = disk->fdatasync(disk, m->fd);
    }
    unsigned char block[SPOOL_BLOCK_BYTES];
    struct spool_file_header header = { SPOOL_FILE_SEGMENT, s->lent.number, s->lent.generation, s->lent.size_bytes, s->slot };
    spool_file_header_encode(&header, block);
    struct iovec iov = { block, sizeof block };
    if (rc == 0)
        rc = spool_disk_write_all(disk, m->fd, &iov, 1, 0);
    if (rc == 0)
        rc = disk->fdatasync(disk, m->fd);
    if (rc == 0 && m->fresh)
        rc = disk->fsync_folder(disk, "segments");
    m->result = rc;
}

static void make_segment_done(struct worker_job *job)
{
    struct make_segment *m = (struct make_segment *)job;
    struct spool_store *store = m->store;
    struct spool_segment *s = m->segment;
    store->making_segments--;
    s->fd = m->fd;
    if (m->result == 0) {
        s->state = SEGMENT_SPARE;
        s->before = (struct spool_lent){ 0 };
        spool_scan_init(&s->scan, store_disk(store), s->fd, s->lent.number, s->lent.generation, SPOOL_BLOCK_BYTES);
        store->o.handlers.spare(store->o.handlers.arg);
    } else {
        s->state = m->fresh ? SEGMENT_BROKEN : SEGMENT_FREE;
        s->lent = m->fresh ? s->lent : s->before;
        if (m->fresh && s->fd >= 0) {
            char name[32];
            store_segment_name(s->slot, name);
            store_disk(store)->close(store_disk(store), s->fd);
            store_disk(store)->unlink(store_disk(store), name);
            s->fd = -1;
        }
        make_failed(store, m->result, "cannot make a segment of the spool");
    }
    free(m);
}

static struct spool_segment *slot_to_make(struct spool_store *store, bool *ret_fresh)
{
    *ret_fresh = false;
    for (size_t i = 0; i < store->n_segments; i++)
        if (store->segment[i] && store->segment[i]->state == SEGMENT_FREE &&
            store->segment[i]->lent.size_bytes == store->o.segment_bytes)
            return store->segment[i];
    *ret_fresh = true;
    for (size_t i = 0; i < store->n_segments; i++) {
        if (!store->segment[i])
            return store_add_segment(store, (uint32_t)i);
        if (store->segment[i]->state == SEGMENT_BROKEN)
            return store->segment[i];
    }
    return store_add_segment(store, (uint32_t)store->n_segments);
}

static void make_one_segment(struct spool_store *store)
{
    bool fresh;
    struct spool_segment *s = slot_to_make(store, &fresh);
    struct make_segment *m = calloc(1, sizeof *m);
    if (!s || !m) {
        free(m);
        return;
    }
    s->state = SEGMENT_MAKING;
    s->owner = NULL;
    s->live = s->opened = s->messages = 0;
    s->straggles = false;
    s->told_finished = false;
    s->before = fresh ? (struct spool_lent){ 0 } : s->lent;
    s->lent = (struct spool_lent){ .number = store->next_number++, .size_bytes = store->o.segment_bytes };
    store_disk(store)->random(store_disk(store), &s->lent.generation, sizeof s->lent.generation);
    *m = (struct make_segment){ .job = { .work = make_segment_work, .done = make_segment_done }, .store = store,
                                .segment = s, .fresh = fresh, .fd = -1 };
    store->making_segments++;
    if (store_disk(store)->submit(store_disk(store), store->maker, &m->job) < 0) {
        store->making_segments--;
        s->state = fresh ? SEGMENT_BROKEN : SEGMENT_FREE;
        s->lent = fresh ? s->lent : s->before;
        free(m);
    }
}

struct make_bodies {
    struct worker_job job;
    struct spool_store *store;
    uint64_t number[BODIES_AT_ONCE];
    int fd[BODIES_AT_ONCE], result;
};

static void make_bodies_work(struct worker_job *job)
{
    struct make_bodies *m = (struct make_bodies *)job;
    const struct spool_disk *disk = store_disk(m->store);
    char name[32];
    for (unsigned i = 0; i < BODIES_AT_ONCE; i++) {
        store_body_name(m->number[i], name);
        m->fd[i] = disk->open(disk, name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (m->fd[i] < 0)
            m->result = m->fd[i];
    }
    int rc = disk->fsync_folder(disk, "bodies");
    if (rc < 0)
        m->result = rc;
}

static void make_bodies_done(struct worker_job *job)
{
    struct make_bodies *m = (struct make_bodies *)job;
    struct spool_store *store = m->store;
    store->making_bodies -= BODIES_AT_ONCE;
    for (unsigned i = 0; i < BODIES_AT_ONCE; i++) {
        if (m->fd[i] < 0)
            continue;
        struct body *b = m->result == 0 ? store_add_body(store, m->number[i], BODY_SPARE) : NULL;
        if (b)
            b->fd = m->fd[i];
        else
            store_disk(store)->close(store_disk(store), m->fd[i]);
    }
    if (m->result < 0)
        make_failed(store, m->result, "cannot make files for large messages in the spool");
    else
        store->o.handlers.spare(store->o.handlers.arg);
    free(m);
}

struct body *store_add_body(struct spool_store *store, uint64_t number, enum body_state state)
{
    struct body *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    *b = (struct body){ .number = number, .fd = -1, .state = state };
    HASH_ADD(hh, store->bodies, number, sizeof b->number, b);
    if (!hash_has(b)) {
        free(b);
        return NULL;
    }
    return b;
}

struct body *store_body(struct spool_store *store, uint64_t number)
{
    struct body *b;
    HASH_FIND(hh, store->bodies, &number, sizeof number, b);
    return b;
}

static void make_some_bodies(struct spool_store *store)
{
    struct make_bodies *m = calloc(1, sizeof *m);
    if (!m)
        return;
    m->job = (struct worker_job){ .work = make_bodies_work, .done = make_bodies_done };
    m->store = store;
    for (unsigned i = 0; i < BODIES_AT_ONCE; i++)
        m->number[i] = store->next_body++;
    store->making_bodies += BODIES_AT_ONCE;
    if (store_disk(store)->submit(store_disk(store), store->maker, &m->job) < 0) {
        store->making_bodies -= BODIES_AT_ONCE;
        free(m);
    }
}

static unsigned count_bodies(struct spool_store *store, enum body_state state)
{
    unsigned n = 0;
    for (struct body *b = store->bodies; b; b = b->hh.next)
        n += b->state == state;
    return n;
}

void spool_store_want(struct spool_store *store, unsigned segments, unsigned bodies)
{
    while (store_count_segments(store, SEGMENT_SPARE) + store->making_segments < segments) {
        unsigned before = store->making_segments;
        make_one_segment(store);
        if (store->making_segments == before)
            break;
    }
    while (count_bodies(store, BODY_SPARE) + store->making_bodies < bodies) {
        unsigned before = store->making_bodies;
        make_some_bodies(store);
        if (store->making_bodies == before)
            break;
    }
}
