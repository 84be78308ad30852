/* store_private: what the files of the store share; see store.h. */
#pragma once

#include "base/hash.h"
#include "io/worker.h"
#include "spool/log.h"
#include "spool/store.h"

enum segment_state {
    SEGMENT_MAKING,   /* a thread fills it, or writes its new header */
    SEGMENT_SPARE,    /* ready to be lent */
    SEGMENT_LENT,
    SEGMENT_CLOSED,   /* no more records; used again when nothing in it is alive */
    SEGMENT_FREE,     /* may be used again under a new number */
    SEGMENT_BROKEN,   /* could not be made: its place in the table stays empty */
};

struct spool_segment {
    struct spool_lent lent;
    uint32_t slot;            /* the file's name; its index in the table too */
    enum segment_state state;
    int fd;
    void *owner;
    struct spool_scan scan;
    uint32_t messages;        /* that were ever found in it */
    uint32_t live;            /* those that are not durably settled */
    bool straggles;           /* when it was last looked for */
    uint32_t opened;          /* at delivery processes */
    bool told_finished;
    bool unreadable;          /* the disk failed while it was read: never used again, read anew at the next start */
    struct spool_lent before; /* while a new header is written: what the one on disk may still say */
};

enum body_state { BODY_SPARE, BODY_LENT, BODY_USED };

struct body {
    uint64_t number;
    int fd;                   /* -1 once a message uses it */
    enum body_state state;
    bool taken;               /* lent, and no spare any more: a message is being written into it */
    void *owner;
    UT_hash_handle hh;
};

/* Space that comes free when the note about it is durable. */
struct settling {
    struct spool_segment *segment;
    uint64_t body_file;
};
struct settlings {
    struct settling *item;
    size_t n, cap;
};

struct sync_waiter {
    void (*done)(void *arg, int result);
    void *arg;
};
struct sync_waiters {
    struct sync_waiter *item;
    size_t n, cap;
};

struct journal {
    struct spool_log log;
    uint64_t number;
    struct buf rows;              /* notes of this turn */
    struct worker_pool *pool;
    struct worker_job job;
    struct spool_log_sync sync;
    bool syncing;
    struct settlings noted, syncing_settled;
    struct sync_waiters waiters, syncing_waiters;
    struct loop_timer *timer;     /* sync at latest */
    bool timer_set;
    uint64_t bytes_at_checkpoint;
};

/* What the journal says about a message, while recovery runs. */
struct remembered {
    uint64_t id;
    bool settled, held, delay_noticed, listed;
    uint16_t attempts, n_settled;
    int64_t next_wall_ms;
    uint16_t *settled_some;
    char *reason;
    UT_hash_handle hh;
};
/* How far the newest checkpoint had read a segment: what lies before that and is not listed is settled. */
struct scanned {
    uint64_t segment, generation;
    uint32_t slot, to;
    UT_hash_handle hh;
};

struct spool_store {
    struct spool_store_options o;
    struct spool_disk_folder disk;
    struct spool_segment **segment; /* by slot */
    size_t n_segments;
    struct body *bodies;
    uint64_t next_number, next_body;
    struct worker_pool *maker;
    struct loop_timer *retry;      /* after a failure to make something */
    unsigned making_segments, making_bodies;
    unsigned wanted_segments, wanted_bodies;
    struct journal journal;
    struct loop_turn *turn;
    struct remembered *memory;
    struct scanned *scanned;
    bool recovered, journal_lost;
};

static inline const struct spool_disk *store_disk(const struct spool_store *store)
{
    return store->o.disk ? store->o.disk : &store->disk.disk;
}

/* ---- store.c ---- */
/* The handler `failed` with "what: strerror". */
void store_tell_failed(struct spool_store *store, int rc, const char *what);
unsigned store_count_segments(const struct spool_store *store, enum segment_state state);
struct spool_segment *store_add_segment(struct spool_store *store, uint32_t slot);
struct spool_segment *store_segment(struct spool_store *store, uint64_t number);
void store_segment_name(uint32_t slot, char ret_name[32]);
void store_body_name(uint64_t number, char ret_name[32]);
/* Tells the queue about the records of a segment up to `limit`. */
void store_read_segment(struct spool_store *store, struct spool_segment *segment, uint64_t limit);
/* No more records: damage is judged, and set aside. */
void store_close_segment(struct spool_store *store, struct spool_segment *segment, uint64_t promised);
/* One message of it is durably settled, or was never alive. */
void store_maybe_finished(struct spool_store *store, struct spool_segment *segment);
void store_free_body(struct spool_store *store, uint64_t number);
/* ---- store_make.c ---- */
/* NULL: there is no such body. */
struct body *store_body(struct spool_store *store, uint64_t number);
struct body *store_add_body(struct spool_store *store, uint64_t number, enum body_state state);

/* ---- store_journal.c ---- */
enum journal_op {
    JOURNAL_SETTLED = 1, JOURNAL_SETTLED_SOME, JOURNAL_DEFERRED, JOURNAL_HELD, JOURNAL_RELEASED, JOURNAL_DELAY_NOTICED,
};
int journal_open(struct spool_store *store, struct err *err);
void journal_close(struct spool_store *store);
void journal_name(uint64_t number, char ret_name[32]);

/* ---- store_recover.c ---- */
int recover_journal(struct spool_store *store, struct err *err);
/* Removes the journals before this one. */
void recover_drop_journals(struct spool_store *store, uint64_t before);
int recover_segments(struct spool_store *store, struct err *err);
int recover_bodies(struct spool_store *store, struct err *err);
/* True: the message is settled. Otherwise *ret_memory is filled; *ret_known says whether there is anything in it. */
bool recover_look(const struct spool_store *store, uint64_t id, uint64_t segment, uint32_t offset,
                  struct spool_memory *ret_memory, bool *ret_known);
void recover_forget(struct spool_store *store);
