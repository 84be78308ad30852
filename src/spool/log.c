#include "spool/log.h"

bool spool_log_add(struct spool_log *log, const struct spool_lent *lent, int fd)
{
    if (log->n == SPOOL_LOG_SEGMENTS)
        return false;
    log->segment[log->n++] = (struct spool_log_segment){
        .number = lent->number, .generation = lent->generation, .size_bytes = lent->size_bytes, .fd = fd,
        .tail = SPOOL_BLOCK_BYTES, .end = SPOOL_BLOCK_BYTES, .durable = SPOOL_BLOCK_BYTES,
    };
    return true;
}

struct spool_log_segment *spool_log_room(struct spool_log *log, uint32_t length)
{
    for (unsigned i = 0; i < log->n; i++) {
        struct spool_log_segment *s = &log->segment[i];
        if (s->full || s->failed)
            continue;
        uint64_t limit = log->may_grow ? SPOOL_SEGMENT_MAX_BYTES : s->size_bytes;
        if (s->tail + (uint64_t)length + SPOOL_RECORD_ALIGN <= limit)
            return s;
        s->full = true;
    }
    return NULL;
}

int spool_log_append(struct spool_log *log, struct spool_log_segment *s, struct spool_record *r, struct str meta,
                     struct str content)
{
    unsigned char header[SPOOL_RECORD_HEADER_BYTES];
    r->length = (uint32_t)(sizeof(header) + meta.n + content.n);
    r->meta_bytes = (uint32_t)meta.n;
    r->segment = s->number;
    r->generation = s->generation;
    r->offset = s->tail;
    r->previous_end = s->end;
    r->synced_to = s->durable;
    spool_record_encode(r, meta, header);
    struct iovec iov[] = {
        { header, sizeof(header) }, { (void *)(uintptr_t)meta.p, meta.n }, { (void *)(uintptr_t)content.p, content.n },
    };
    int rc = spool_disk_write_all(log->disk, s->fd, iov, 3, s->tail);
    if (rc < 0) {
        s->failed = true;
        return rc;
    }
    s->end = spool_align(s->tail + r->length, SPOOL_RECORD_ALIGN);
    s->tail = s->end;
    return 0;
}

struct spool_log_segment *spool_log_find(struct spool_log *log, uint64_t number)
{
    for (unsigned i = 0; i < log->n; i++) {
        if (log->segment[i].number == number)
            return &log->segment[i];
    }
    return NULL;
}

static bool segment_dirty(const struct spool_log_segment *s)
{
    return !s->failed && s->end > s->durable;
}

bool spool_log_dirty(const struct spool_log *log)
{
    for (unsigned i = 0; i < log->n; i++) {
        if (segment_dirty(&log->segment[i]))
            return true;
    }
    return false;
}

void spool_log_sync_begin(struct spool_log *log, struct spool_log_sync *sync)
{
    sync->n = 0;
    for (unsigned i = 0; i < log->n; i++) {
        struct spool_log_segment *s = &log->segment[i];
        if (!segment_dirty(s))
            continue;
        sync->part[sync->n].number = s->number;
        sync->part[sync->n].fd = s->fd;
        sync->part[sync->n].to = s->end;
        sync->part[sync->n].result = 0;
        sync->n++;
        s->syncing = true;
        s->tail = spool_align(s->tail, SPOOL_BLOCK_BYTES);
    }
}

void spool_log_sync_run(const struct spool_disk *disk, struct spool_log_sync *sync)
{
    for (unsigned i = 0; i < sync->n; i++)
        sync->part[i].result = disk->fdatasync(disk, sync->part[i].fd);
}

int spool_log_sync_end(struct spool_log *log, const struct spool_log_sync *sync)
{
    int first = 0;
    for (unsigned i = 0; i < sync->n; i++) {
        struct spool_log_segment *s = spool_log_find(log, sync->part[i].number);
        s->syncing = false;
        if (sync->part[i].result < 0) {
            s->failed = true;
            first = first ? first : sync->part[i].result;
        } else if (!s->failed) {
            s->durable = sync->part[i].to;
        }
    }
    return first;
}

bool spool_log_reap(struct spool_log *log, struct spool_log_segment *ret)
{
    for (unsigned i = 0; i < log->n; i++) {
        struct spool_log_segment *s = &log->segment[i];
        if (s->syncing || !(s->failed || (s->full && s->end <= s->durable)))
            continue;
        *ret = *s;
        memmove(s, s + 1, (log->n - i - 1) * sizeof(*s));
        log->n--;
        return true;
    }
    return false;
}
