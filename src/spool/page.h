/* page: the 4 KiB that one writer and the queue share. The writer tells how far its segments are durable;
 * the queue tells whether it sleeps. It is a hint: the queue checks every record that it reads, and after
 * a crash nothing of the page is used.
 *
 * Publishing: durable offset first (release), then `bell_wanted` is read; the queue sets `bell_wanted` first,
 * then looks at the offsets once more, then sleeps. Both use sequentially consistent operations, so one of
 * them sees the other: no wake-up is lost. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SPOOL_PAGE_BYTES = 4096, SPOOL_PAGE_SLOTS = 8 };

struct spool_page {
    _Atomic uint32_t bell_wanted;
    _Atomic uint32_t closed;          /* 1: the writer has ended in good order */
    struct {
        _Atomic uint64_t segment;     /* 0: unused */
        _Atomic uint64_t durable;     /* octets of the segment that are on disk */
    } slot[SPOOL_PAGE_SLOTS];         /* the newest segments of this writer; one is overwritten by the 8th after it */
    _Atomic uint64_t syncs, messages; /* since the writer began, for status */
};

/* For master: a zeroed memfd of SPOOL_PAGE_BYTES; -errno. */
int spool_page_create(void);
/* Maps it; NULL with errno set. The descriptor may be closed afterwards. */
struct spool_page *spool_page_map(int fd);
void spool_page_unmap(struct spool_page *page);

/* Writer. True: the queue sleeps, ring the doorbell. */
bool spool_page_publish(struct spool_page *page, uint64_t segment, uint64_t durable);
/* Queue. True and the offset when the writer has published for this segment. */
bool spool_page_durable(const struct spool_page *page, uint64_t segment, uint64_t *ret_durable);
