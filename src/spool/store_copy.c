/* Stragglers. The order that keeps the promise: the copy is durable, then the original stops to count; both carry one id, and
 * recovery keeps one. */
#include "spool/store_private.h"
#include "spool/writer.h"

enum { ALIVE_LESS_THAN = 8 /* one in so many */ };

struct spool_segment *spool_store_straggling(struct spool_store *store)
{
    struct spool_segment *found = NULL;
    for (size_t i = 0; i < store->n_segments; i++) {
        struct spool_segment *s = store->segment[i];
        if (!s)
            continue;
        bool straggles = s->state == SEGMENT_CLOSED && s->live && !s->unreadable &&
                         (uint64_t)s->live * ALIVE_LESS_THAN < s->messages;
        if (straggles && s->straggles && !found)
            found = s;
        s->straggles = straggles;
    }
    return found;
}

int spool_store_copy(struct spool_store *store, struct spool_writer *writer, const struct spool_segment *segment,
                     uint32_t offset, uint32_t length, void (*done)(void *arg, int result, uint64_t id), void *arg,
                     struct err *err)
{
    struct spool_reader *reader;
    int rc = spool_store_read(store, segment, offset, length, -1, &reader, err);
    if (rc < 0)
        return rc;
    struct spool_copy copy = { .id = spool_reader_id(reader), .done = done, .arg = arg };
    spool_reader_record(reader, &copy.meta, &copy.content, &copy.content_sum);
    rc = spool_writer_copy(writer, &copy);
    spool_reader_free(&reader);
    return rc < 0 ? err_set(err, rc, "no memory to copy a message") : 0;
}

void spool_store_moved(struct spool_store *store, struct spool_segment *segment)
{
    if (segment->live)
        segment->live--;
    store_maybe_finished(store, segment);
}
