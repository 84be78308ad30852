/* store: the queue's side of the spool: makes and lends segments and bodies, knows which messages are alive, and keeps
 * what became of them in a journal of its own.
 *
 * Folders below the spool: segments/ (files of fixed size, used again and again), bodies/ (a file each), journal/ (the
 * newest complete one counts), damaged/ (octets that were set aside). One loop, one thread; syncs and the filling of
 * segments wait on threads of its own.
 *
 * Happy path of a message: a writer's segment is followed (spool_store_follow), `message` is called for each record; the
 * queue notes what becomes of it (spool_store_note); a settled message's space is free once the note is durable; a
 * segment without live messages, not lent and not open at a delivery process, is used again under a new number.
 *
 * Recovery: spool_store_open() reads the journal; spool_store_scan() then reads each segment that no living writer
 * holds, to its end, and the rest is followed. Damage is set aside and told through `damaged`, never skipped. */
#pragma once
#include "spool/page.h"
#include "spool/scan.h"
#include "spool/spool.h"

struct spool_store;
struct spool_segment;

enum { SPOOL_STORE_BODY_SPARES = 4, SPOOL_STORE_DEFER_NAMES = 64 };

/* What the journal remembers about a message that is not settled. Recipients are indexes into its envelope. */
struct spool_memory {
    const uint16_t *settled;
    size_t n_settled;
    uint16_t attempts;            /* the highest of its parts */
    int64_t next_wall_ms;         /* 0: at once */
    struct str reason;
    bool held, delay_noticed;
};

struct spool_found {
    uint64_t id;
    struct spool_segment *segment;
    struct spool_place place;
    uint64_t body_file;           /* 0: none */
    void *body_owner;             /* whom the body file was a spare of until now; NULL: it was not */
    const struct spool_envelope *envelope;
    bool copy;                    /* it was moved here; see spool_store_moved() */
    const struct spool_memory *memory; /* NULL: nothing is known, it is new */
};

struct spool_store_handlers {
    /* A live message: keep it, it counts as one of its segment until it is settled. */
    void (*message)(void *arg, const struct spool_found *found);
    /* Set aside in damaged/; acknowledged: a sender was told 250 for it. */
    void (*damaged)(void *arg, uint64_t segment, const struct spool_damage *damage, const char *kept_as);
    /* A segment or body is ready to be lent. */
    void (*spare)(void *arg);
    /* No more messages of this segment: tell delivery to close it (IPC_SEGMENT_CLOSE), then spool_store_closed(). */
    void (*finished)(void *arg, struct spool_segment *segment);
    /* The journal or a segment failed: an event. Nothing is lost, but messages may be delivered again. */
    void (*failed)(void *arg, const struct err *why);
    void *arg;
};

struct spool_store_options {
    struct loop *loop;
    const char *folder;
    const struct spool_disk *disk; /* NULL: that folder; tests put their own here, which has the sub-folders already */
    uint64_t segment_bytes;
    struct spool_store_handlers handlers;
};

/* Makes missing sub-folders, reads the journal, makes its threads. */
int spool_store_open(const struct spool_store_options *options, struct spool_store **ret_store, struct err *err);
void spool_store_free(struct spool_store **store);

/* ---- recovery ---- */
/* A living writer holds this; to be told before spool_store_scan(). */
void spool_store_held(struct spool_store *store, bool is_body, const struct spool_lent *lent, void *owner);
/* Once, after spool_store_follow() for every living writer: reads everything that nobody holds. A checkpoint
 * should follow. */
int spool_store_scan(struct spool_store *store, struct err *err);

/* ---- lending ---- */
/* A ready spare, or NULL; *ret_fd is a descriptor of the caller's. From now on lent to `owner`. */
bool spool_store_lend_segment(struct spool_store *store, void *owner, struct spool_lent *ret_lent, int *ret_fd);
bool spool_store_lend_body(struct spool_store *store, void *owner, struct spool_lent *ret_lent, int *ret_fd);
/* Wants at least so many spares; they arrive through `spare`. */
void spool_store_want(struct spool_store *store, unsigned segments, unsigned bodies);
/* The writer has begun to fill this body file. True: it was a spare of its until now. */
bool spool_store_taken(struct spool_store *store, uint64_t body_file);
/* The writer will not write to it again; `used` is the end of its records. */
void spool_store_returned(struct spool_store *store, bool is_body, const struct spool_lent *lent);
/* Reads what its page says is durable in the segments lent to `owner`. True: there was something. */
bool spool_store_follow(struct spool_store *store, void *owner, const struct spool_page *page);
/* The writer has died: what it left is read to its end by the rules of recovery. */
void spool_store_owner_gone(struct spool_store *store, void *owner, const struct spool_page *page);

/* ---- reading, for delivery and lists ---- */
const struct spool_lent *spool_segment_lent(const struct spool_segment *segment);
/* A small number that stands for a segment as long as a message in it is alive. */
uint32_t spool_segment_slot(const struct spool_segment *segment);
struct spool_segment *spool_store_slot(struct spool_store *store, uint32_t slot);
/* A new read-only descriptor. */
int spool_segment_open(struct spool_store *store, const struct spool_segment *segment);
int spool_store_body_open(struct spool_store *store, uint64_t body_file);
int spool_store_read(struct spool_store *store, const struct spool_segment *segment, uint32_t offset, uint32_t length,
                     int body_fd, struct spool_reader **ret_reader, struct err *err);
/* Delivery processes that have it open. */
void spool_segment_opened(struct spool_segment *segment);
void spool_store_closed(struct spool_store *store, uint64_t number);

/* ---- what became of messages: written at the end of the turn, synced at latest after a second ---- */
/* The whole message is settled: its entry may go; its space follows when the note is durable. */
void spool_store_settled(struct spool_store *store, struct spool_segment *segment, uint64_t id, uint64_t body_file);
void spool_store_settled_some(struct spool_store *store, uint64_t id, const uint16_t *recipients, uint16_t n);
void spool_store_deferred(struct spool_store *store, uint64_t id, uint16_t attempts, int64_t next_wall_ms,
                          struct str reason);
/* ---- stragglers: a nearly empty segment is emptied by copying what is alive into one of the queue's own writer ---- */
/* A closed segment with less than an eighth of its messages alive, now and when this was called last; or NULL. */
struct spool_segment *spool_store_straggling(struct spool_store *store);
/* Copies one of its messages, with its id; done(arg, result, id) as with a commit. The copy arrives through `message` like
 * any record, marked `copy`, when the writer's page is followed. No checkpoint may be written until then: if the message is
 * settled meanwhile, the note about it must still be there when the copy is found. */
int spool_store_copy(struct spool_store *store, struct spool_writer *writer, const struct spool_segment *segment,
                     uint32_t offset, uint32_t length, void (*done)(void *arg, int result, uint64_t id), void *arg,
                     struct err *err);
/* Of two records of one message, which `message` has told (also after a restart, in any order), the one in `segment` counts no more. */
void spool_store_moved(struct spool_store *store, struct spool_segment *segment);

enum spool_mark { SPOOL_MARK_HELD, SPOOL_MARK_RELEASED, SPOOL_MARK_DELAY_NOTICED };
void spool_store_mark(struct spool_store *store, uint64_t id, enum spool_mark mark);
/* Calls done(arg) when all notes made until now are durable; the sync begins at once. */
int spool_store_sync(struct spool_store *store, void (*done)(void *arg, int result), void *arg);
/* True: the journal has grown enough; write a new one with spool_store_checkpoint(). */
bool spool_store_wants_checkpoint(const struct spool_store *store);
/* `each` calls spool_store_checkpoint_entry() for every live message. */
struct spool_checkpoint;
int spool_store_checkpoint(struct spool_store *store, void (*each)(void *arg, struct spool_checkpoint *checkpoint), void *arg,
                           struct err *err);
void spool_store_checkpoint_entry(struct spool_checkpoint *checkpoint, uint64_t id, const struct spool_memory *memory);
