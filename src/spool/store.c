#include "spool/store.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/store_private.h"

enum { FREE_SEGMENTS_KEPT = 8, FILL_BYTES = 1024 * 1024, ENVELOPE_ARENA_BYTES = 8 << 20 };

void store_segment_name(uint32_t slot, char ret_name[32])
{
    snprintf(ret_name, 32, "segments/%08u", slot);
}

void store_body_name(uint64_t number, char ret_name[32])
{
    snprintf(ret_name, 32, "bodies/%016llX", (unsigned long long)number);
}

void store_tell_failed(struct spool_store *store, int rc, const char *what)
{
    struct err err;
    err_errno(&err, -rc, "%s", what);
    store->o.handlers.failed(store->o.handlers.arg, &err);
}

/* Room may come back without any event of ours: whoever lends asks again in a moment. */
static void on_retry(void *arg)
{
    struct spool_store *store = arg;
    store->o.handlers.spare(store->o.handlers.arg);
}

/* ---- segments ---- */

struct spool_segment *store_add_segment(struct spool_store *store, uint32_t slot)
{
    if (slot >= store->n_segments) {
        struct spool_segment **table = realloc(store->segment, (slot + 1) * sizeof(*table));
        if (!table)
            return NULL;
        for (size_t i = store->n_segments; i <= slot; i++)
            table[i] = NULL;
        store->segment = table;
        store->n_segments = slot + 1;
    }
    struct spool_segment *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->slot = slot;
    s->fd = -1;
    store->segment[slot] = s;
    return s;
}

struct spool_segment *store_segment(struct spool_store *store, uint64_t number)
{
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (s && s->lent.number == number && s->state != SEGMENT_FREE && s->state != SEGMENT_BROKEN)
            return s;
    }
    return NULL;
}

unsigned store_count_segments(const struct spool_store *store, enum segment_state state)
{
    unsigned n = 0;
    for (size_t i = 0; i < store->n_segments; i++)
        n += store->segment[i] && store->segment[i]->state == state;
    return n;
}

/* ---- lending ---- */

bool spool_store_lend_segment(struct spool_store *store, void *owner, struct spool_lent *ret_lent, int *ret_fd)
{
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (!s || s->state != SEGMENT_SPARE)
            continue;
        *ret_fd = store_disk(store)->dup(store_disk(store), s->fd);
        if (*ret_fd < 0)
            return false;
        s->state = SEGMENT_LENT;
        s->owner = owner;
        *ret_lent = s->lent;
        return true;
    }
    return false;
}

bool spool_store_lend_body(struct spool_store *store, void *owner, struct spool_lent *ret_lent, int *ret_fd)
{
    if (!store->recovered) /* what lies there may belong to messages that were not read yet */
        return false;
    for (struct body *b = store->bodies; b; b = b->hh.next) {
        if (b->state != BODY_SPARE)
            continue;
        b->state = BODY_LENT;
        b->owner = owner;
        *ret_fd = b->fd;
        b->fd = -1;
        *ret_lent = (struct spool_lent){ .number = b->number };
        return true;
    }
    return false;
}

void spool_store_held(struct spool_store *store, bool is_body, const struct spool_lent *lent, void *owner)
{
    if (is_body) {
        struct body *b = store_body(store, lent->number);
        if (b && b->state != BODY_USED) {
            b->state = BODY_LENT;
            b->owner = owner;
        }
        return;
    }
    struct spool_segment *s = store_segment(store, lent->number);
    if (s && s->lent.generation == lent->generation) {
        s->state = SEGMENT_LENT;
        s->owner = owner;
    }
}

void store_free_body(struct spool_store *store, uint64_t number)
{
    char name[32];
    struct body *b = store_body(store, number);
    if (b) {
        if (b->fd >= 0)
            store_disk(store)->close(store_disk(store), b->fd);
        HASH_DEL(store->bodies, b);
        free(b);
    }
    store_body_name(number, name);
    store_disk(store)->unlink(store_disk(store), name);
}

bool spool_store_taken(struct spool_store *store, uint64_t body_file)
{
    struct body *b = store_body(store, body_file);
    if (!b || b->state != BODY_LENT || b->taken)
        return false;
    return b->taken = true;
}

void spool_store_returned(struct spool_store *store, bool is_body, const struct spool_lent *lent)
{
    if (is_body) {
        struct body *b = store_body(store, lent->number);
        if (b && b->state == BODY_LENT)
            store_free_body(store, lent->number);
        return;
    }
    struct spool_segment *s = store_segment(store, lent->number);
    if (!s || s->state != SEGMENT_LENT || s->lent.generation != lent->generation)
        return;
    uint64_t used = lent->size_bytes < s->lent.size_bytes ? lent->size_bytes : s->lent.size_bytes;
    store_read_segment(store, s, used);
    store_close_segment(store, s, 0);
}

/* ---- reading ---- */

struct reading {
    struct spool_store *store;
    struct spool_segment *segment;
};

static int on_record(void *arg, const struct spool_record *record, struct str octets, struct str content)
{
    struct reading *reading = arg;
    struct spool_store *store = reading->store;
    struct spool_segment *s = reading->segment;
    (void)content;
    struct spool_meta meta;
    if (record->kind != SPOOL_KIND_MESSAGE || !spool_meta_decode(octets, &meta))
        return 0;
    struct spool_memory memory = { 0 };
    bool known = false;
    s->messages++;
    if (!store->recovered && recover_look(store, record->id, s->lent.number, record->offset, &memory, &known)) {
        if (meta.body_file)
            store_free_body(store, meta.body_file);
        return 0;
    }
    struct arena arena;
    struct spool_envelope envelope;
    arena_init(&arena, ENVELOPE_ARENA_BYTES);
    struct err err = { 0 };
    if (spool_envelope_decode(meta.envelope, &arena, &envelope, &err) < 0) {
        store->o.handlers.failed(store->o.handlers.arg, &err);
        spool_scan_reject(&s->scan, record);
    } else {
        struct body *b = meta.body_file ? store_body(store, meta.body_file) : NULL;
        if (meta.body_file && !b)
            b = store_add_body(store, meta.body_file, BODY_USED);
        envelope.message_bytes = meta.prefix.n + meta.body_bytes;
        void *body_owner = b && b->state == BODY_LENT && !b->taken ? b->owner : NULL;
        if (b)
            b->state = BODY_USED;
        s->live++;
        struct spool_found found = { .id = record->id, .segment = s, .body_file = meta.body_file,
                                     .body_owner = body_owner, .envelope = &envelope,
                                     .place = { s->lent.number, s->lent.generation, record->offset, record->length },
                                     .copy = record->flags & SPOOL_RECORD_COPY,
                                     .memory = known ? &memory : NULL };
        store->o.handlers.message(store->o.handlers.arg, &found);
    }
    arena_done(&arena);
    return 0;
}

void store_read_segment(struct spool_store *store, struct spool_segment *s, uint64_t limit)
{
    struct reading reading = { store, s };
    struct err err = { 0 };
    if (limit > s->lent.size_bytes)
        limit = s->lent.size_bytes;
    if (limit <= s->scan.at)
        return;
    if (spool_scan_to(&s->scan, limit, on_record, &reading, &err) < 0) {
        s->unreadable = true;
        store->o.handlers.failed(store->o.handlers.arg, &err);
    }
}

/* Keeps a copy of the octets that make no sense; the segment itself will be used again. */
static void set_aside(struct spool_store *store, struct spool_segment *s, const struct spool_damage *damage)
{
    const struct spool_disk *disk = store_disk(store);
    char name[96];
    snprintf(name, sizeof name, "damaged/%llu-%u-%u", (unsigned long long)s->lent.number, damage->from, damage->to);
    int fd = disk->open(disk, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char *block = malloc(FILL_BYTES);
    int rc = fd < 0 ? fd : block ? 0 : -ENOMEM;
    for (uint64_t at = damage->from; at < damage->to && rc >= 0;) {
        size_t n = damage->to - at < FILL_BYTES ? (size_t)(damage->to - at) : FILL_BYTES;
        ssize_t got = disk->pread(disk, s->fd, block, n, (off_t)at);
        if (got <= 0)
            break;
        struct iovec iov = { block, (size_t)got };
        rc = spool_disk_write_all(disk, fd, &iov, 1, (off_t)(at - damage->from));
        at += (uint64_t)got;
    }
    if (fd >= 0) {
        disk->fdatasync(disk, fd);
        disk->close(disk, fd);
        disk->fsync_folder(disk, "damaged");
    }
    free(block);
    store->o.handlers.damaged(store->o.handlers.arg, s->lent.number, damage, rc < 0 ? "" : name);
}

void store_close_segment(struct spool_store *store, struct spool_segment *s, uint64_t promised)
{
    spool_scan_finish(&s->scan, promised);
    for (unsigned i = 0; i < s->scan.n_damages; i++)
        set_aside(store, s, &s->scan.damage[i]);
    spool_scan_done(&s->scan);
    s->state = SEGMENT_CLOSED;
    s->owner = NULL;
    store_maybe_finished(store, s);
}

bool spool_store_follow(struct spool_store *store, void *owner, const struct spool_page *page)
{
    bool any = false;
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        uint64_t durable;
        if (!s || s->state != SEGMENT_LENT || s->owner != owner || !spool_page_durable(page, s->lent.number, &durable) ||
            durable <= s->scan.at)
            continue;
        store_read_segment(store, s, durable);
        any = true;
    }
    return any;
}

void spool_store_owner_gone(struct spool_store *store, void *owner, const struct spool_page *page)
{
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (!s || s->state != SEGMENT_LENT || s->owner != owner)
            continue;
        uint64_t durable = 0;
        if (page)
            spool_page_durable(page, s->lent.number, &durable);
        store_read_segment(store, s, s->lent.size_bytes);
        store_close_segment(store, s, durable);
    }
    for (struct body *b = store->bodies, *next; b; b = next) {
        next = b->hh.next;
        if (b->state == BODY_LENT && b->owner == owner)
            store_free_body(store, b->number);
    }
}

/* ---- the end of a segment ---- */

static void drop_surplus(struct spool_store *store)
{
    unsigned n = store_count_segments(store, SEGMENT_FREE);
    for (size_t i = store->n_segments; i-- > 0 && n > FREE_SEGMENTS_KEPT;) {
        struct spool_segment *s = store->segment[i];
        if (!s || s->state != SEGMENT_FREE)
            continue;
        char name[32];
        store_segment_name(s->slot, name);
        store_disk(store)->close(store_disk(store), s->fd);
        store_disk(store)->unlink(store_disk(store), name);
        s->fd = -1;
        s->state = SEGMENT_BROKEN;
        n--;
    }
}

void store_maybe_finished(struct spool_store *store, struct spool_segment *s)
{
    if (s->state != SEGMENT_CLOSED || s->live || s->unreadable || !store->recovered)
        return;
    if (s->opened) {
        if (!s->told_finished) {
            s->told_finished = true;
            store->o.handlers.finished(store->o.handlers.arg, s);
        }
        return;
    }
    s->state = SEGMENT_FREE;
    drop_surplus(store);
}

const struct spool_lent *spool_segment_lent(const struct spool_segment *segment)
{
    return &segment->lent;
}

uint32_t spool_segment_slot(const struct spool_segment *segment)
{
    return segment->slot;
}

struct spool_segment *spool_store_slot(struct spool_store *store, uint32_t slot)
{
    return slot < store->n_segments ? store->segment[slot] : NULL;
}

int spool_segment_open(struct spool_store *store, const struct spool_segment *segment)
{
    char name[32];
    store_segment_name(segment->slot, name);
    return store_disk(store)->open(store_disk(store), name, O_RDONLY, 0);
}

int spool_store_body_open(struct spool_store *store, uint64_t body_file)
{
    char name[32];
    store_body_name(body_file, name);
    return store_disk(store)->open(store_disk(store), name, O_RDONLY, 0);
}

int spool_store_read(struct spool_store *store, const struct spool_segment *s, uint32_t offset, uint32_t length,
                     int body_fd, struct spool_reader **ret_reader, struct err *err)
{
    struct spool_place place = { s->lent.number, s->lent.generation, offset, length };
    return spool_reader_open(store_disk(store), s->fd, &place, body_fd, ret_reader, err);
}

void spool_segment_opened(struct spool_segment *segment)
{
    segment->opened++;
}

void spool_store_closed(struct spool_store *store, uint64_t number)
{
    struct spool_segment *s = store_segment(store, number);
    if (!s || !s->opened)
        return;
    s->opened--;
    store_maybe_finished(store, s);
}

/* ---- open and close ---- */

static int make_folders(struct spool_store *store, struct err *err)
{
    static const char *const names[] = { "segments", "bodies", "journal", "damaged" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mkdirat(store->disk.fd, names[i], 0700) != 0 && errno != EEXIST)
            return err_errno(err, errno, "cannot make the folder %s in the spool %s", names[i], store->o.folder);
    return 0;
}

int spool_store_open(const struct spool_store_options *options, struct spool_store **ret_store, struct err *err)
{
    struct spool_store *store = calloc(1, sizeof *store);
    if (!store)
        return err_set(err, -ENOMEM, "out of memory for the spool");
    store->o = *options;
    store->disk.fd = -1;
    store->next_body = 1;
    int rc = options->disk ? 0 : spool_disk_folder_open(options->folder, &store->disk, err);
    if (rc == 0 && !options->disk)
        rc = make_folders(store, err);
    if (rc == 0)
        rc = loop_timer_new(options->loop, on_retry, store, &store->retry, err);
    if (rc == 0)
        rc = worker_pool_new(options->loop, "spool-maker", 1, 4096, &store->maker, err);
    if (rc == 0)
        rc = recover_journal(store, err);
    if (rc == 0)
        rc = recover_segments(store, err);
    if (rc == 0)
        rc = recover_bodies(store, err);
    if (rc == 0)
        rc = journal_open(store, err);
    if (rc < 0) {
        spool_store_free(&store);
        return rc;
    }
    *ret_store = store;
    return 0;
}

int spool_store_scan(struct spool_store *store, struct err *err)
{
    (void)err;
    assert(!store->recovered);
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (!s || s->state != SEGMENT_CLOSED)
            continue;
        store_read_segment(store, s, s->lent.size_bytes);
        store_close_segment(store, s, 0);
    }
    store->recovered = true;
    for (size_t i = 0; i < store->n_segments; i++)
        if (store->segment[i])
            store_maybe_finished(store, store->segment[i]);
    /* Files that no message names and nobody holds. */
    for (struct body *b = store->bodies, *next; b; b = next) {
        next = b->hh.next;
        if (b->state == BODY_SPARE)
            store_free_body(store, b->number);
    }
    return 0;
}

void spool_store_free(struct spool_store **store_at)
{
    struct spool_store *store = *store_at;
    if (!store)
        return;
    worker_pool_free(&store->maker);
    loop_timer_free(&store->retry);
    journal_close(store);
    recover_forget(store);
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (!s)
            continue;
        spool_scan_done(&s->scan);
        if (s->fd >= 0)
            store_disk(store)->close(store_disk(store), s->fd);
        free(s);
    }
    for (struct body *b = store->bodies, *next; b; b = next) {
        next = b->hh.next;
        if (b->fd >= 0)
            store_disk(store)->close(store_disk(store), b->fd);
        HASH_DEL(store->bodies, b);
        free(b);
    }
    free(store->segment);
    spool_disk_folder_close(&store->disk);
    free(store);
    *store_at = NULL;
}
