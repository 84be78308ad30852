/* scan: finds the records of one generation in a segment or journal, and says what is damaged between them.
 *
 * Used by the queue for what a writer has published, by recovery for the rest, and by verify for everything. A
 * record is taken when both its checksums are right (a body file's is checked by who reads it). The search after
 * an apparent end goes on to the limit in steps of eight octets: nothing that is valid is missed, and each record
 * names the end of the one before it, so that a lost one shows even where its block reads as never written. */
#pragma once
#include "spool/disk.h"
#include "spool/record.h"

enum { SPOOL_SCAN_DAMAGES = 64 };

struct spool_damage {
    uint32_t from, to;
    bool acknowledged;    /* below the highest synced_to: a sender was told 250 for it */
};

struct spool_scan {
    const struct spool_disk *disk;
    int fd;
    uint64_t segment, generation;
    uint64_t limit;       /* nothing at or beyond this is looked at */
    uint32_t at, end;     /* next position; end of the last record */
    uint32_t synced_to;   /* highest seen */
    uint32_t touched_to;  /* end of octets that look like ours and are no record */
    struct spool_damage damage[SPOOL_SCAN_DAMAGES];
    unsigned n_damages;   /* the last one grows when there are more */
    unsigned char *window;
    uint64_t window_at;
    size_t window_n;
};

/* `record` gets header fields and meta, valid during the call. Nonzero stops with that code. */
typedef int spool_scan_record(void *arg, const struct spool_record *record, struct str meta, struct str content);

void spool_scan_init(struct spool_scan *scan, const struct spool_disk *disk, int fd, uint64_t segment,
                     uint64_t generation, uint32_t from);
/* Up to `limit`; may be called again with a higher one. Only finds; see spool_scan_finish(). */
int spool_scan_to(struct spool_scan *scan, uint64_t limit, spool_scan_record *record, void *arg, struct err *err);
/* A record that its reader cannot use: acknowledged damage. */
void spool_scan_reject(struct spool_scan *scan, const struct spool_record *record);
/* Judges the damages: `promised` is what is known to be durable from elsewhere (0: nothing). */
void spool_scan_finish(struct spool_scan *scan, uint64_t promised);
void spool_scan_done(struct spool_scan *scan);
