/* spool: the promise behind 250. A message that was committed is on stable storage and will be delivered or
 * bounced at least once, whatever dies meanwhile.
 *
 * This page is what receiving and delivering processes know of the spool; a second engine can stand behind it.
 * The writing side works on one loop and never blocks it: syncs wait on threads of the writer's own. The queue's
 * side is spool/store.h. How it lies on disk: docs/spool-format.md. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "io/loop.h"
#include "spool/disk.h"
#include "spool/envelope.h"
#include "spool/page.h"

/* Where a message lies. Segment numbers are never used twice. */
struct spool_place {
    uint64_t segment, generation;
    uint32_t offset, length;
};

/* A message's id comes from its segment and offset, never from the clock, and is never used twice. Its text
 * is the queue id of the logs: 10 to 16 upper-case hexadecimal digits. */
enum { SPOOL_ID_TEXT_BYTES = 17 };
void spool_id_format(uint64_t id, char ret_text[SPOOL_ID_TEXT_BYTES]);
bool spool_id_parse(struct str text, uint64_t *ret_id); /* also the letters in lower case */

/* ---- writing ---- */

struct spool_writer;
struct spool_message;

enum {
    SPOOL_BODY_INLINE_MAX = 64 * 1024, /* a larger body goes into a file of its own */
    SPOOL_PREFIX_MAX = 64 * 1024,      /* trace headers */
    SPOOL_META_MAX = 768 * 1024,       /* envelope and trace headers together */
};

struct spool_lent {                    /* the body of IPC_SEGMENT_* and IPC_BODY_* (struct ipc_segment) */
    uint64_t number, generation, size_bytes;
};

struct spool_writer_handlers {
    /* This segment takes no more records (size_bytes = octets in use): tell the queue, IPC_SEGMENT_RETURN. */
    void (*segment_done)(void *arg, const struct spool_lent *segment);
    /* This body file was not used after all and is not empty any more: IPC_BODY_RETURN. A body that a message
     * names is the queue's from then on, without a word. */
    void (*body_done)(void *arg, const struct spool_lent *body);
    /* A message has begun to use this body file: IPC_BODY_HELD, upon which the queue lends the next. */
    void (*body_taken)(void *arg, const struct spool_lent *body);
    /* A write or sync failed, the segment is retired: raise an event. */
    void (*failed)(void *arg, const struct err *why);
    /* Optional: spool_writer_can_accept() may have changed. */
    void (*changed)(void *arg);
};

/* Makes two threads (log, bodies): call it before a sandbox closes. `page` and `doorbell_fd` are borrowed and
 * outlive the writer; disk is &spool_disk_system. */
int spool_writer_new(struct loop *loop, const struct spool_disk *disk, struct spool_page *page, int doorbell_fd,
                     const struct spool_writer_handlers *handlers, void *arg, struct spool_writer **ret_writer,
                     struct err *err);
/* Everything still open fails with ERR_CLOSED through its `done`; running syncs are waited for. */
void spool_writer_free(struct spool_writer **writer);
/* What the queue lends (IPC_SEGMENT_LEND, IPC_BODY_LEND). Takes `fd` in every case. */
int spool_writer_lend_segment(struct spool_writer *writer, const struct spool_lent *segment, int fd, struct err *err);
int spool_writer_lend_body(struct spool_writer *writer, const struct spool_lent *body, int fd, struct err *err);
/* After a new IPC_PEER to the queue: calls `held` for each segment (IPC_SEGMENT_HELD), then each body
 * (IPC_BODY_HELD); after each list once with number 0, which the queue needs as its end. */
void spool_writer_held(const struct spool_writer *writer, void (*held)(void *arg, bool is_body, const struct spool_lent *lent),
                       void *arg);
/* False: no spare is left; MAIL gets 452 4.3.1. */
bool spool_writer_can_accept(const struct spool_writer *writer);
/* Nothing waits for a sync (for draining). */
bool spool_writer_idle(const struct spool_writer *writer);

/* One message; NULL when out of memory. */
struct spool_message *spool_message_begin(struct spool_writer *writer);
/* A slice of the body, CRLF line ends, dots unstuffed. Fails with -ENOMEM, ERR_BUSY (no body file came in time: 452
 * 4.3.1) or what the disk said; the message can then only be aborted. */
int spool_message_write(struct spool_message *message, struct str slice, struct err *err);
uint64_t spool_message_body_bytes(const struct spool_message *message);

struct spool_commit {
    const struct spool_envelope *envelope; /* read during the call only */
    /* Adds the headers in front of the body (Received: … id QID). Called from spool_message_commit(), or later when
     * a body file must be synced first (not after spool_message_forget()); perhaps more than once, with another id:
     * the last one counts. May be NULL. */
    bool (*prefix)(void *arg, uint64_t id, const char *queue_id, struct buf *out);
    /* 0: durable, say 250. Negative: nothing was kept, 451 4.3.0 (ERR_BUSY: 452 4.3.1, ERR_LIMIT: 552 5.3.4).
     * Called exactly once, never from inside spool_message_commit(). */
    void (*done)(void *arg, int result, uint64_t id);
    void *arg;
};
/* The message is the spool's from here on, also when it fails later. */
void spool_message_commit(struct spool_message *message, const struct spool_commit *commit);
/* The client of a committed message has gone away: neither `prefix` nor `done` will be called; the message may well
 * be kept. Not to be called after `done`. */
void spool_message_forget(struct spool_message *message);
/* Instead of a commit. */
void spool_message_abort(struct spool_message *message);

/* ---- reading ---- */

struct spool_reader;

/* Opens the message at `place`; checks the record. Descriptors are borrowed; body_fd is -1 unless the message has
 * a body file. ERR_CORRUPT: it is not what was written. */
int spool_reader_open(const struct spool_disk *disk, int segment_fd, const struct spool_place *place, int body_fd,
                      struct spool_reader **ret_reader, struct err *err);
void spool_reader_free(struct spool_reader **reader);
uint64_t spool_reader_id(const struct spool_reader *reader);
const struct spool_envelope *spool_reader_envelope(const struct spool_reader *reader);
/* 0: the body is in the record; else the number of its file. */
uint64_t spool_reader_body_file(const struct spool_reader *reader);
/* The headers that we put in front; borrowed. */
struct str spool_reader_prefix(const struct spool_reader *reader);
uint64_t spool_reader_body_bytes(const struct spool_reader *reader);
/* The record as it lies there, for who copies it; borrowed. */
void spool_reader_record(const struct spool_reader *reader, struct str *ret_meta, struct str *ret_content,
                         uint64_t *ret_content_sum);
/* The next octets of the body (without the prefix) into p: their count, 0 at the end, or negative. The octets that
 * complete the body are handed out only when its checksum is right: who reads to 0 has read what was written;
 * ERR_CORRUPT otherwise, so never end a DATA after an error. */
ssize_t spool_reader_read(struct spool_reader *reader, void *p, size_t n, struct err *err);
void spool_reader_rewind(struct spool_reader *reader);
