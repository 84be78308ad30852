/* What is on the disk when the queue starts: the newest complete journal, the segments with their headers, the body
 * files. The records in the segments are read later (spool_store_scan), when it is known who still holds what. */
#include <fcntl.h>
#include <stdlib.h>

#include "base/wire.h"
#include "spool/store_private.h"

enum { FILES_MAX = 65536, FIRST_NUMBER_MASK = 0xffffff, REASON_MAX_BYTES = 1024, SETTLED_MAX = 10000 };

struct names {
    uint64_t *number;
    size_t n;
    bool failed;
};

static bool parse_hex(const char *name, uint64_t *ret)
{
    uint64_t v = 0;
    size_t n = 0;
    for (; name[n]; n++) {
        char c = name[n];
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 16;
        if (digit == 16 || n == 16)
            return false;
        v = v << 4 | digit;
    }
    *ret = v;
    return n > 0;
}

static void add_name(struct names *names, uint64_t number)
{
    uint64_t *p = names->n < FILES_MAX ? realloc(names->number, (names->n + 1) * sizeof *p) : NULL;
    if (!p) {
        names->failed = true;
        return;
    }
    names->number = p;
    names->number[names->n++] = number;
}

static void found_hex(void *arg, const char *name)
{
    uint64_t number;
    if (parse_hex(name, &number))
        add_name(arg, number);
}

static void found_decimal(void *arg, const char *name)
{
    uint64_t number;
    if (str_to_u64(str_of(name), FILES_MAX, &number))
        add_name(arg, number);
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int list(struct spool_store *store, const char *folder, void (*found)(void *arg, const char *name),
                struct names *names, struct err *err)
{
    int rc = store_disk(store)->list(store_disk(store), folder, found, names);
    if (rc < 0)
        return err_errno(err, -rc, "cannot list %s in the spool %s", folder, store->o.folder);
    if (names->failed)
        return err_set(err, -ENOMEM, "too many files in %s of the spool %s", folder, store->o.folder);
    if (names->n)
        qsort(names->number, names->n, sizeof *names->number, newest_first);
    return 0;
}

/* ---- the journal ---- */

struct replay {
    struct spool_store *store;
    const struct spool_scan *scan;
    bool begun, ended, bad;
};

static struct remembered *find_memory(const struct spool_store *store, uint64_t id)
{
    struct remembered *m;
    HASH_FIND(hh, store->memory, &id, sizeof id, m);
    return m;
}

static struct remembered *memory_of(struct spool_store *store, uint64_t id)
{
    struct remembered *m = find_memory(store, id);
    if (m)
        return m;
    m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->id = id;
    HASH_ADD(hh, store->memory, id, sizeof m->id, m);
    if (!hash_has(m)) {
        free(m);
        return NULL;
    }
    return m;
}

static bool settle_some(struct remembered *m, struct wire *w)
{
    uint16_t n = wire_get_u16(w);
    if (w->bad || n > SETTLED_MAX || (size_t)n * 2 > w->rest.n)
        return false;
    if (n == 0)
        return true;
    uint16_t *p = m->n_settled <= SETTLED_MAX ? realloc(m->settled_some, (m->n_settled + (size_t)n) * sizeof *p) : NULL;
    if (!p)
        return false;
    m->settled_some = p;
    for (uint16_t i = 0; i < n; i++)
        m->settled_some[m->n_settled++] = wire_get_u16(w);
    return true;
}

static void defer(struct remembered *m, struct wire *w)
{
    m->attempts = wire_get_u16(w);
    m->next_wall_ms = (int64_t)wire_get_u64(w);
    struct str reason = wire_get_str(w, REASON_MAX_BYTES);
    free(m->reason);
    m->reason = reason.n ? str_dup(reason) : NULL;
}

static bool replay_changes(struct spool_store *store, struct wire *w)
{
    while (w->rest.n && !w->bad) {
        uint8_t op = wire_get_u8(w);
        struct remembered *m = memory_of(store, wire_get_u64(w));
        if (!m || w->bad)
            return false;
        switch (op) {
        case JOURNAL_SETTLED: m->settled = true; break;
        case JOURNAL_SETTLED_SOME:
            if (!settle_some(m, w))
                return false;
            break;
        case JOURNAL_DEFERRED: defer(m, w); break;
        case JOURNAL_HELD: m->held = true; break;
        case JOURNAL_RELEASED: m->held = false; break;
        case JOURNAL_DELAY_NOTICED: m->delay_noticed = true; break;
        default: return false;
        }
    }
    return !w->bad;
}

static bool replay_entries(struct spool_store *store, struct wire *w)
{
    while (w->rest.n && !w->bad) {
        struct remembered *m = memory_of(store, wire_get_u64(w));
        uint8_t flags = wire_get_u8(w);
        if (!m || w->bad)
            return false;
        m->listed = true;
        m->held = flags & 1;
        m->delay_noticed = flags & 2;
        defer(m, w);
        if (!settle_some(m, w))
            return false;
    }
    return !w->bad;
}

static bool replay_segments(struct spool_store *store, struct wire *w)
{
    while (w->rest.n && !w->bad) {
        struct scanned *s = calloc(1, sizeof *s), *known;
        if (!s)
            return false;
        s->segment = wire_get_u64(w);
        s->generation = wire_get_u64(w);
        s->slot = wire_get_u32(w);
        s->to = wire_get_u32(w);
        HASH_FIND(hh, store->scanned, &s->segment, sizeof s->segment, known);
        if (w->bad || known) {
            free(s);
            return !w->bad;
        }
        HASH_ADD(hh, store->scanned, segment, sizeof s->segment, s);
        if (!hash_has(s)) {
            free(s);
            return false;
        }
    }
    return !w->bad;
}

static int replay_record(void *arg, const struct spool_record *record, struct str meta, struct str content)
{
    struct replay *r = arg;
    struct wire w = wire_of(meta);
    (void)content;
    bool ok = true;
    switch (record->kind) {
    case SPOOL_KIND_CHECKPOINT:
        r->begun = true;
        ok = wire_get_u32(&w) == 1;
        r->store->next_number = wire_get_u64(&w);
        r->store->next_body = wire_get_u64(&w);
        ok = ok && wire_end(&w);
        break;
    case SPOOL_KIND_SEGMENTS: ok = replay_segments(r->store, &w); break;
    case SPOOL_KIND_ENTRIES: ok = replay_entries(r->store, &w); break;
    /* Its end may be on the disk without its middle: what is missing there would count as settled. */
    case SPOOL_KIND_CHECKPOINT_END: r->ended = r->begun && !r->bad && r->scan->n_damages == 0; break;
    case SPOOL_KIND_CHANGES: ok = replay_changes(r->store, &w); break;
    default: ok = false; break;
    }
    r->bad |= !ok;
    return 0;
}

void recover_forget(struct spool_store *store)
{
    struct remembered *m, *next_m;
    HASH_ITER(hh, store->memory, m, next_m) {
        HASH_DEL(store->memory, m);
        free(m->settled_some);
        free(m->reason);
        free(m);
    }
    struct scanned *s, *next_s;
    HASH_ITER(hh, store->scanned, s, next_s) {
        HASH_DEL(store->scanned, s);
        free(s);
    }
}

static void tell(struct spool_store *store, const char *fmt, uint64_t number)
{
    struct err err;
    char name[32];
    journal_name(number, name);
    err_set(&err, ERR_CORRUPT, "%s %s", name, fmt);
    store->o.handlers.failed(store->o.handlers.arg, &err);
}

/* 1: complete, and taken over; 0: not complete. */
static int replay_journal(struct spool_store *store, uint64_t number, struct err *err)
{
    const struct spool_disk *disk = store_disk(store);
    unsigned char block[SPOOL_BLOCK_BYTES];
    struct spool_file_header header;
    char name[32];
    journal_name(number, name);
    int fd = disk->open(disk, name, O_RDONLY, 0);
    if (fd < 0)
        return err_errno(err, -fd, "cannot open %s in the spool", name);
    struct replay replay = { .store = store };
    int rc = spool_disk_read_all(disk, fd, block, sizeof block, 0);
    bool valid = rc == 0 && spool_file_header_decode(block, sizeof block, &header) && header.kind == SPOOL_FILE_JOURNAL &&
                 header.number == number;
    if (valid) {
        struct spool_scan scan;
        int64_t size = disk->size(disk, fd);
        spool_scan_init(&scan, disk, fd, number, header.generation, SPOOL_BLOCK_BYTES);
        replay.scan = &scan;
        rc = spool_scan_to(&scan, size > 0 ? (uint64_t)size : 0, replay_record, &replay, err);
        spool_scan_finish(&scan, 0);
        for (unsigned i = 0; i < scan.n_damages; i++)
            if (scan.damage[i].acknowledged)
                tell(store, "is damaged: some messages may be delivered again", number);
        spool_scan_done(&scan);
    }
    /* What is acted upon now was perhaps only in memory when the last queue died. */
    if (rc >= 0 && valid && replay.ended)
        rc = disk->fdatasync(disk, fd);
    disk->close(disk, fd);
    if (replay.bad)
        tell(store, "holds notes that make no sense: some messages may be delivered again", number);
    if (rc < 0 && valid)
        return err_set(err, rc, "cannot read %s in the spool", name);
    return replay.ended;
}

int recover_journal(struct spool_store *store, struct err *err)
{
    struct names names = { 0 };
    store_disk(store)->random(store_disk(store), &store->next_number, sizeof store->next_number);
    uint64_t first = (store->next_number & FIRST_NUMBER_MASK) + 1;
    store->next_number = first;
    int rc = list(store, "journal", found_hex, &names, err);
    bool complete = false;
    for (size_t i = 0; i < names.n && rc >= 0 && !complete; i++) {
        rc = replay_journal(store, names.number[i], err);
        complete = rc == 1;
        if (!complete) {
            recover_forget(store);
            store->next_number = first;
        }
    }
    if (rc >= 0 && names.n) {
        store->journal.number = names.number[0];
        store->journal_lost = !complete;
    }
    free(names.number);
    return rc < 0 ? rc : 0;
}

void recover_drop_journals(struct spool_store *store, uint64_t before)
{
    struct names names = { 0 };
    if (list(store, "journal", found_hex, &names, NULL) == 0) {
        for (size_t i = 0; i < names.n; i++) {
            char name[32];
            journal_name(names.number[i], name);
            if (names.number[i] < before)
                store_disk(store)->unlink(store_disk(store), name);
        }
    }
    free(names.number);
}

bool recover_look(const struct spool_store *store, uint64_t id, uint64_t segment, uint32_t offset,
                  struct spool_memory *ret, bool *ret_known)
{
    const struct remembered *m = find_memory(store, id);
    const struct scanned *s;
    if (m && m->settled)
        return true;
    HASH_FIND(hh, store->scanned, &segment, sizeof segment, s);
    if (s && offset < s->to && !(m && m->listed))
        return true;
    *ret_known = m != NULL;
    if (m)
        *ret = (struct spool_memory){ .settled = m->settled_some, .n_settled = m->n_settled, .attempts = m->attempts,
                                      .next_wall_ms = m->next_wall_ms, .reason = str_of(m->reason), .held = m->held,
                                      .delay_noticed = m->delay_noticed };
    return false;
}

/* ---- segments ---- */

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* The journal may know which generation a segment with an unreadable header has. */
static bool header_from_journal(const struct spool_store *store, uint32_t slot, uint64_t size, struct spool_file_header *ret)
{
    for (const struct scanned *s = store->scanned; s; s = s->hh.next) {
        if (s->slot != slot)
            continue;
        *ret = (struct spool_file_header){ SPOOL_FILE_SEGMENT, s->segment, s->generation, size, slot };
        return true;
    }
    return false;
}

static int recover_segment(struct spool_store *store, uint32_t slot, struct err *err)
{
    const struct spool_disk *disk = store_disk(store);
    unsigned char block[SPOOL_BLOCK_BYTES] = { 0 };
    struct spool_file_header header;
    char name[32];
    store_segment_name(slot, name);
    int fd = disk->open(disk, name, O_RDWR, 0);
    if (fd < 0)
        return err_errno(err, -fd, "cannot open %s in the spool %s", name, store->o.folder);
    int64_t size = disk->size(disk, fd);
    (void)spool_disk_read_all(disk, fd, block, sizeof block, 0);
    bool valid = spool_file_header_decode(block, sizeof block, &header) && header.kind == SPOOL_FILE_SEGMENT &&
                 header.slot == slot && header.size_bytes <= (uint64_t)(size > 0 ? size : 0);
    if (!valid && all_zero(block, sizeof block)) { /* was being made: never lent */
        disk->close(disk, fd);
        disk->unlink(disk, name);
        return 0;
    }
    if (!valid && !header_from_journal(store, slot, (uint64_t)(size > 0 ? size : 0), &header)) {
        disk->close(disk, fd);
        return err_set(err, ERR_CORRUPT, "%s in the spool %s has no readable header and the journal does not know it; "
                       "move it away to start without it, and keep it: it may hold mail", name, store->o.folder);
    }
    struct spool_segment *s = store_add_segment(store, slot);
    if (!s) {
        disk->close(disk, fd);
        return err_set(err, -ENOMEM, "out of memory for the spool");
    }
    s->fd = fd;
    s->state = SEGMENT_CLOSED;
    s->lent = (struct spool_lent){ header.number, header.generation, header.size_bytes };
    spool_scan_init(&s->scan, disk, fd, header.number, header.generation, SPOOL_BLOCK_BYTES);
    if (header.number >= store->next_number)
        store->next_number = header.number + 1;
    return 0;
}

int recover_segments(struct spool_store *store, struct err *err)
{
    struct names names = { 0 };
    int rc = list(store, "segments", found_decimal, &names, err);
    for (size_t i = 0; i < names.n && rc == 0; i++)
        rc = recover_segment(store, (uint32_t)names.number[i], err);
    free(names.number);
    if (store->journal_lost && store->n_segments) /* without segments the first start was cut short: nothing is lost */
        tell(store, "and those before it are not complete: all messages in the spool are delivered again",
             store->journal.number);
    return rc;
}

int recover_bodies(struct spool_store *store, struct err *err)
{
    struct names names = { 0 };
    int rc = list(store, "bodies", found_hex, &names, err);
    for (size_t i = 0; i < names.n && rc == 0; i++) {
        if (!store_add_body(store, names.number[i], BODY_SPARE))
            rc = err_set(err, -ENOMEM, "out of memory for the spool");
        if (names.number[i] >= store->next_body)
            store->next_body = names.number[i] + 1;
    }
    free(names.number);
    return rc;
}
