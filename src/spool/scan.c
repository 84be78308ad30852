#include "spool/scan.h"

#include "spool/spool.h"

#include <stdlib.h>

/* Twice the largest record of a segment; a journal's records are smaller. */
enum { WINDOW_BYTES = 2 * 1024 * 1024 };

void spool_scan_init(struct spool_scan *scan, const struct spool_disk *disk, int fd, uint64_t segment,
                     uint64_t generation, uint32_t from)
{
    *scan = (struct spool_scan){ .disk = disk, .fd = fd, .segment = segment, .generation = generation, .at = from,
                                 .end = from };
}

void spool_scan_done(struct spool_scan *scan)
{
    free(scan->window);
    scan->window = NULL;
}

/* Makes n octets at `at` visible, as far as the file and the limit reach. */
static int window_load(struct spool_scan *s, uint64_t at, size_t n, struct err *err)
{
    if (at >= s->window_at && at + n <= s->window_at + s->window_n)
        return 0;
    if (!s->window && !(s->window = malloc(WINDOW_BYTES)))
        return err_set(err, -ENOMEM, "no memory to read a segment");
    uint64_t left = s->limit - at;
    size_t want = left < WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
    s->window_at = at;
    s->window_n = 0;
    while (s->window_n < want) {
        ssize_t done = s->disk->pread(s->disk, s->fd, s->window + s->window_n, want - s->window_n,
                                      (off_t)(at + s->window_n));
        if (done < 0)
            return err_errno(err, (int)-done, "cannot read segment %llu of the spool", (unsigned long long)s->segment);
        if (done == 0)
            break;
        s->window_n += (size_t)done;
    }
    return 0;
}

static void add_damage(struct spool_scan *s, uint32_t from, uint32_t to, bool acknowledged)
{
    if (s->n_damages == SPOOL_SCAN_DAMAGES) {
        s->damage[s->n_damages - 1].to = to;
        s->damage[s->n_damages - 1].acknowledged |= acknowledged;
        return;
    }
    s->damage[s->n_damages++] = (struct spool_damage){ from, to, acknowledged };
}

void spool_scan_reject(struct spool_scan *s, const struct spool_record *r)
{
    add_damage(s, r->offset, r->offset + r->length, true);
}

/* A whole and valid record at s->at: 1; none: 0. */
static int find_here(struct spool_scan *s, struct spool_record *r, struct err *err)
{
    const unsigned char *p = s->window + (s->at - s->window_at);
    if (!spool_record_begins(p, s->generation))
        return 0;
    if (s->touched_to < s->at + SPOOL_RECORD_HEADER_BYTES)
        s->touched_to = s->at + SPOOL_RECORD_HEADER_BYTES;
    if (!spool_record_header(p, s->generation, s->at, s->limit, r) || r->segment != s->segment ||
        r->length > WINDOW_BYTES)
        return 0;
    int rc = window_load(s, s->at, r->length, err);
    if (rc < 0)
        return rc;
    if (s->touched_to < s->at + r->length)
        s->touched_to = s->at + r->length;
    if (s->at + r->length > s->window_at + s->window_n)
        return 0;
    p = s->window + (s->at - s->window_at);
    if (!spool_record_meta_valid(p, r))
        return 0;
    struct spool_meta meta;
    struct str m = str_slice(p + SPOOL_RECORD_HEADER_BYTES, r->meta_bytes);
    bool in_file = r->kind == SPOOL_KIND_MESSAGE && spool_meta_decode(m, &meta) && meta.body_file;
    size_t head = SPOOL_RECORD_HEADER_BYTES + r->meta_bytes;
    return in_file || spool_sum(str_slice(p + head, r->length - head)) == r->content_sum;
}

static int take(struct spool_scan *s, const struct spool_record *r, spool_scan_record *record, void *arg)
{
    if (r->previous_end > s->end)
        add_damage(s, s->end, r->previous_end, false);
    const unsigned char *p = s->window + (s->at - s->window_at);
    size_t head = SPOOL_RECORD_HEADER_BYTES + r->meta_bytes;
    s->end = spool_align(r->offset + r->length, SPOOL_RECORD_ALIGN);
    s->at = s->end;
    s->touched_to = s->end;
    if (s->synced_to < r->synced_to)
        s->synced_to = r->synced_to;
    return record(arg, r, str_slice(p + SPOOL_RECORD_HEADER_BYTES, r->meta_bytes), str_slice(p + head, r->length - head));
}

int spool_scan_to(struct spool_scan *s, uint64_t limit, spool_scan_record *record, void *arg, struct err *err)
{
    s->limit = limit;
    s->window_n = 0; /* what was read before may have been written since */
    while (s->at + (uint64_t)SPOOL_RECORD_HEADER_BYTES <= limit) {
        int rc = window_load(s, s->at, SPOOL_RECORD_HEADER_BYTES, err);
        if (rc < 0)
            return rc;
        if (s->at + (uint64_t)SPOOL_RECORD_HEADER_BYTES > s->window_at + s->window_n)
            break; /* the file is shorter */
        s->at += (uint32_t)spool_record_search(s->window + (s->at - s->window_at), s->window_n - (s->at - s->window_at),
                                               s->generation);
        if (s->at + (uint64_t)SPOOL_RECORD_HEADER_BYTES > s->window_at + s->window_n)
            continue;
        struct spool_record r;
        rc = find_here(s, &r, err);
        if (rc > 0)
            rc = take(s, &r, record, arg);
        else if (rc == 0)
            s->at += SPOOL_RECORD_ALIGN;
        if (rc < 0)
            return rc;
    }
    return 0;
}

void spool_scan_finish(struct spool_scan *s, uint64_t promised)
{
    uint64_t to = s->touched_to > promised ? s->touched_to : promised;
    if (to > s->end)
        add_damage(s, s->end, (uint32_t)to, false);
    uint64_t durable = promised > s->synced_to ? promised : s->synced_to;
    for (unsigned i = 0; i < s->n_damages; i++)
        s->damage[i].acknowledged |= s->damage[i].from < durable;
}
