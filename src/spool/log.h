/* log: appends records to the segments that it was given, and groups their syncs. It waits for nothing itself: who
 * owns it runs spool_log_sync_run() on a thread.
 *
 * Happy path: append writes at once; sync_begin takes down how far each segment was written and moves the tail to
 * the next block, so that no block whose sync has begun is written again; sync_run waits for the disk; sync_end
 * moves `durable`. One sync is in flight at a time; what is appended meanwhile goes with the next.
 * A write or sync that fails marks its segment as failed for good: nothing in it becomes durable any more. */
#pragma once
#include "spool/disk.h"
#include "spool/record.h"
#include "spool/spool.h"

enum { SPOOL_LOG_SEGMENTS = 8 };

struct spool_log_segment {
    uint64_t number, generation, size_bytes;
    int fd;
    uint32_t tail;          /* where the next record goes */
    uint32_t end;           /* of the last record, rounded up */
    uint32_t durable;       /* all up to here is on disk */
    bool syncing, failed, full;
};

struct spool_log {
    const struct spool_disk *disk;
    struct spool_log_segment segment[SPOOL_LOG_SEGMENTS]; /* in the order of use */
    unsigned n;
    bool may_grow;          /* the last segment takes records beyond its size (journal) */
};

/* A fresh segment, its header block written and synced. False when there are too many; fd stays the caller's then. */
bool spool_log_add(struct spool_log *log, const struct spool_lent *lent, int fd);
/* The segment that takes a record of `length` octets, NULL when none does. Those that are passed over are full. */
struct spool_log_segment *spool_log_room(struct spool_log *log, uint32_t length);
/* Appends to `segment` (from spool_log_room with no append between). record: kind, flags, id, content_sum; the rest is
 * filled in. A failure has marked the segment. */
int spool_log_append(struct spool_log *log, struct spool_log_segment *segment, struct spool_record *record, struct str meta,
                     struct str content);
struct spool_log_segment *spool_log_find(struct spool_log *log, uint64_t number);

struct spool_log_sync {
    unsigned n;
    struct {
        uint64_t number;
        int fd;
        uint32_t to;
        int result;
    } part[SPOOL_LOG_SEGMENTS];
};
bool spool_log_dirty(const struct spool_log *log);
void spool_log_sync_begin(struct spool_log *log, struct spool_log_sync *ret_sync);
void spool_log_sync_run(const struct spool_disk *disk, struct spool_log_sync *sync); /* any thread */
/* The first failure, or 0. */
int spool_log_sync_end(struct spool_log *log, const struct spool_log_sync *sync);
/* Takes out one segment that is full and durable, or failed, and that no sync holds. */
bool spool_log_reap(struct spool_log *log, struct spool_log_segment *ret_segment);
