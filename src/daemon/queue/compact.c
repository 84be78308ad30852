/* Compaction: one message that waits for days must not keep a whole segment. Now and then a closed segment with little alive is
 * looked for, and what is alive is copied into a segment of the queue's own writer; when a copy is found there like any new
 * message, the entry points to it, and the segment that nothing points to any more is used again.
 *
 * A message that is settled while its copy is under way: the copy is found without an entry and settled as well. */
#include "daemon/queue/queue.h"

enum { LOOK_EVERY_MS = 30000, COPIES_AT_ONCE = 256 };

static void on_copied(void *arg, int result, uint64_t id)
{
    struct queue *q = arg;
    (void)id; /* a copy that failed is tried again the next time */
    if (result == 0 && q->store)
        intake_follow(&q->writer[QUEUE_WRITERS_MAX]);
    q->copying--;
}

static void look(void *arg)
{
    struct queue *q = arg;
    loop_timer_set(q->compact_timer, LOOK_EVERY_MS);
    struct spool_segment *s = q->scanned && !q->copying && !q->draining ? spool_store_straggling(q->store) : NULL;
    if (!s || !spool_writer_can_accept(q->own))
        return;
    uint32_t slot = spool_segment_slot(s);
    size_t cursor = 0;
    for (struct spool_entry *e = NULL; q->copying < COPIES_AT_ONCE && (e = spool_schedule_walk(q->schedule, &cursor, e));) {
        struct err err = { 0 };
        if (e->segment != slot)
            continue;
        if (spool_store_copy(q->store, q->own, s, e->offset, e->length, on_copied, q, &err) == 0)
            q->copying++;
        else
            log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.failed", "a message cannot be copied: %s", err_text(&err));
    }
}

bool compact_found(struct queue *q, struct spool_entry *entry, const struct spool_found *found)
{
    if (!entry && found->copy && q->scanned) {
        spool_store_settled(q->store, found->segment, found->id, found->body_file);
        return true;
    }
    if (!entry)
        return false;
    struct spool_segment *known = queue_segment_of(q, entry);
    if (found->place.segment < spool_segment_lent(known)->number) {
        spool_store_moved(q->store, found->segment);
        return true;
    }
    entry->segment = spool_segment_slot(found->segment);
    entry->offset = found->place.offset;
    entry->length = found->place.length;
    spool_store_moved(q->store, known);
    return true;
}

int compact_start(struct queue *q, struct err *err)
{
    int rc = loop_timer_new(q->ctx->loop, look, q, &q->compact_timer, err);
    if (rc == 0)
        loop_timer_set(q->compact_timer, LOOK_EVERY_MS);
    return rc;
}
