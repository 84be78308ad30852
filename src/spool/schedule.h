/* schedule: the queue in memory: messages, their parts (one a next hop), next hops, and who is next.
 *
 * Pure: it reads no clock and touches no disk. Times are monotonic milliseconds. A queued message to one recipient
 * takes at most 200 octets: entry, part, its place in the heap and in the index. An entry belongs to the
 * schedule; its parts to the entry; a hop lives while it has parts. */
#pragma once
#include <sys/queue.h>

#include "base/str.h"
#include "spool/spool.h"

struct spool_timed {          /* in a heap, by time */
    int64_t at_ms;
    uint32_t index;           /* from 1; 0: in no heap */
};

enum spool_part_state {
    SPOOL_PART_WAITING,       /* for its next attempt (heap), or held: in no list */
    SPOOL_PART_READY,         /* in its hop's list */
    SPOOL_PART_ACTIVE,        /* with a delivery process */
};

struct spool_part {
    struct spool_timed timed; /* first: next attempt */
    uint8_t state;
    bool expired_checked;
    uint16_t attempts;
    struct spool_entry *entry;
    struct spool_part *next;  /* of the entry */
    struct spool_hop *hop;
    TAILQ_ENTRY(spool_part) ready;
    uint16_t n_recipients, recipient; /* one: its index; more: */
    uint32_t reason;          /* last failure: index into the table of texts; 0: none */
    uint16_t *recipients;
};

enum {
    SPOOL_ENTRY_HELD = 1, SPOOL_ENTRY_BODY_FILE = 2, SPOOL_ENTRY_DELAY_NOTICE = 4 /* was sent */,
    SPOOL_ENTRY_BOUNCE = 8, SPOOL_ENTRY_COPYING = 16, SPOOL_ENTRY_NULL_SENDER = 32,
    SPOOL_ENTRY_NOTIFY_SUCCESS = 64 /* asked for by at least one recipient */,
};
struct spool_entry {
    uint64_t id;
    struct spool_entry *next_in_index;
    struct spool_part *parts;
    int64_t born_ms;          /* arrival on the monotonic clock; may be before its zero */
    uint32_t segment;         /* index into the store's table */
    uint32_t offset, length;
    uint16_t n_recipients;
    uint8_t flags, deaths;    /* deaths: delivery processes that died with it */
};

struct spool_hop {
    struct spool_timed timed; /* first: until when it is left alone after a failure */
    char *key;
    struct str block, domain; /* into key: title of the domain block, recipients' domain */
    struct spool_hop *next_in_index;
    TAILQ_HEAD(, spool_part) ready;
    TAILQ_ENTRY(spool_hop) runnable; /* has ready parts, is not left alone, is below its window */
    bool is_runnable;
    uint32_t n_parts, n_active, window;
    uint32_t failures;        /* in a row */
    int block_index;          /* in the current configuration */
    uint64_t conf_generation;
    uint32_t reason;
};

struct spool_schedule;
struct spool_schedule *spool_schedule_new(void);
void spool_schedule_free(struct spool_schedule **schedule);

/* NULL: out of memory, or (add) the id is there already. */
struct spool_entry *spool_schedule_add(struct spool_schedule *schedule, uint64_t id);
struct spool_entry *spool_schedule_find(const struct spool_schedule *schedule, uint64_t id);
/* With its parts, which must not be active. */
void spool_schedule_remove(struct spool_schedule *schedule, struct spool_entry *entry);
size_t spool_schedule_entries(const struct spool_schedule *schedule);
size_t spool_schedule_parts(const struct spool_schedule *schedule, enum spool_part_state state);
/* Walks all entries: start with *cursor = 0, NULL at the end. Other entries than `last` may be removed, none
 * added, during a walk. */
struct spool_entry *spool_schedule_walk(const struct spool_schedule *schedule, size_t *cursor, struct spool_entry *last);

struct spool_hop *spool_schedule_hop(struct spool_schedule *schedule, struct str block, struct str domain);
/* Adds a recipient to the entry's part for this hop, or makes it (WAITING, in no heap). */
struct spool_part *spool_schedule_add_recipient(struct spool_schedule *schedule, struct spool_entry *entry,
                                                struct spool_hop *hop, uint16_t recipient);
uint16_t spool_part_recipient(const struct spool_part *part, uint16_t i);
/* Takes recipients out of a part that is not ready (each index of the envelope once). True: the part is gone. */
bool spool_schedule_drop_recipients(struct spool_schedule *schedule, struct spool_part *part,
                                    const uint16_t *recipients, uint16_t n);
/* Takes the whole part out, whatever its state but ACTIVE. */
void spool_schedule_drop_part(struct spool_schedule *schedule, struct spool_part *part);

/* The next attempt is at `at_ms`. From any state. */
void spool_schedule_wait(struct spool_schedule *schedule, struct spool_part *part, int64_t at_ms);
/* Out of heap and list, until spool_schedule_wait(). */
void spool_schedule_park(struct spool_schedule *schedule, struct spool_part *part);
/* Leaves the hop alone until at_ms (0: no longer). */
void spool_schedule_hop_wait(struct spool_schedule *schedule, struct spool_hop *hop, int64_t at_ms);
/* The hop's window has changed. */
void spool_schedule_hop_window(struct spool_schedule *schedule, struct spool_hop *hop, uint32_t window);
/* Moves what is due into the lists of ready parts; at most `max` (0: all). */
void spool_schedule_advance(struct spool_schedule *schedule, int64_t now_ms, size_t max);
/* When advance() has work next; INT64_MAX: never. */
int64_t spool_schedule_next_ms(const struct spool_schedule *schedule);
/* The next part for a delivery process, ACTIVE from now on; hops take turns. NULL: none. */
struct spool_part *spool_schedule_take(struct spool_schedule *schedule);
struct spool_hop *spool_schedule_hop_walk(const struct spool_schedule *schedule, size_t *cursor, struct spool_hop *last);

/* Texts of failures, each kept once, at most SPOOL_TEXT_MAX octets of it. A number stands for one until so many newer
 * ones have come that its place was needed; then it stands for nothing, never for another text. 0: an empty text. */
enum { SPOOL_TEXT_MAX = 512 };
uint32_t spool_schedule_text(struct spool_schedule *schedule, struct str text);
struct str spool_schedule_text_get(const struct spool_schedule *schedule, uint32_t text);
