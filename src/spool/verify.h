/* verify: reads a whole spool and changes nothing in it: for `postern spool verify`, and for lists while no daemon runs.
 *
 * It goes the way that the queue goes when it starts (journal, segments, bodies), over a disk that takes no writes. */
#pragma once
#include "spool/store.h"

struct spool_verify_damage {
    uint64_t segment;             /* 0: not in a segment */
    const char *file;             /* its name below the spool */
    uint32_t from, to;            /* octets of the segment */
    uint64_t id;                  /* of a live message whose content is damaged; 0: unknown */
    bool acknowledged;            /* mail for which a sender was told 250; otherwise a torn end: harmless */
    const char *text;
};

struct spool_verify_result {
    uint64_t messages, octets;    /* that wait, and how large they are */
    uint64_t acknowledged, torn;  /* damages of either kind */
};

/* `damage` is called for each. Negative: the spool cannot be read (ERR_ABSENT: there is none). */
int spool_verify(const char *folder, void (*damage)(void *arg, const struct spool_verify_damage *damage), void *arg,
                 struct spool_verify_result *ret_result, struct err *err);
/* Calls `message` for each that waits, in no order; what it is given is valid during the call only. */
int spool_list_offline(const char *folder, void (*message)(void *arg, const struct spool_found *found), void *arg,
                       struct err *err);
