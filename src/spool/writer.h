/* writer: what only the spool's own files and its tests need of a writer. With loop == NULL it makes no threads; its jobs go
 * to disk->submit(), and the crash tests end each turn themselves. */
#pragma once
#include "spool/spool.h"

void spool_writer_turn(struct spool_writer *writer);

/* A message that moves out of a nearly empty segment: the same record, with its id, in a segment of this writer. */
struct spool_copy {
    uint64_t id;
    struct str meta, content; /* read during the call */
    uint64_t content_sum;
    void (*done)(void *arg, int result, uint64_t id); /* as with a commit */
    void *arg;
};
/* -ENOMEM: `done` will not be called. */
int spool_writer_copy(struct spool_writer *writer, const struct spool_copy *copy);
