/* record: the unit of every log of the spool, and the header block of a file of records.
 *
 * A record is a header of SPOOL_RECORD_HEADER_BYTES, `meta` (what its kind needs to be understood) and content (a
 * message's body). Its first checksum covers header and meta and is seeded with the file's generation, 64 random
 * bits that nobody outside sees, so octets that a client sent are never taken for a record. The second is that of
 * the content. All numbers are little-endian. Layout: docs/spool-format.md. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

enum {
    SPOOL_BLOCK_BYTES = 4096,        /* a batch begins on such a boundary */
    SPOOL_RECORD_HEADER_BYTES = 72,
    SPOOL_RECORD_ALIGN = 8,
    SPOOL_SEGMENT_MIN_BYTES = 1024 * 1024,
};
#define SPOOL_SEGMENT_MAX_BYTES (UINT64_C(2) << 30)

enum spool_kind {
    SPOOL_KIND_MESSAGE = 1,
    SPOOL_KIND_CHECKPOINT,           /* journal: begins it */
    SPOOL_KIND_SEGMENTS,             /* journal: rows about segments */
    SPOOL_KIND_ENTRIES,              /* journal: rows about messages that are not settled */
    SPOOL_KIND_CHECKPOINT_END,
    SPOOL_KIND_CHANGES,              /* journal: settled, deferred, held, released … in order */
    SPOOL_KINDS,
};

enum { SPOOL_RECORD_COPY = 1 };      /* flags: a straggler that was moved here with its id */

struct spool_record {
    uint8_t kind;
    uint16_t flags;
    uint32_t length;                 /* header, meta and content */
    uint32_t meta_bytes;
    uint64_t id;
    uint64_t segment, generation;
    uint32_t offset;                 /* of itself */
    uint32_t previous_end;           /* where the record before it ends, rounded up: a gap shows */
    uint32_t synced_to;              /* known durable when it was written */
    uint64_t content_sum;            /* XXH3 of the content, or of the body file */
};

static inline uint32_t spool_align(uint32_t offset, uint32_t to)
{
    return (offset + to - 1) / to * to;
}
uint64_t spool_sum(struct str octets);
void spool_record_encode(const struct spool_record *record, struct str meta,
                         unsigned char ret_header[SPOOL_RECORD_HEADER_BYTES]);
/* Reads a header and checks what can be checked without meta: magic, version, kind, lengths, and that it is the
 * record of (segment, generation) at `offset` in a file of `size` octets. */
bool spool_record_header(const unsigned char *header, uint64_t generation, uint64_t offset, uint64_t size,
                         struct spool_record *ret_record);
/* The seeded checksum over header and meta, which follows it in memory. */
bool spool_record_meta_valid(const unsigned char *header, const struct spool_record *record);
/* The first octets of a record, for a quick search. */
bool spool_record_begins(const unsigned char *p, uint64_t generation);
/* The first multiple of SPOOL_RECORD_ALIGN where one begins, or where a header no longer fits. */
size_t spool_record_search(const unsigned char *p, size_t n, uint64_t generation);

/* A message's meta. */
struct spool_meta {
    uint64_t body_file;              /* 0: the body is the record's content */
    uint64_t body_bytes;
    struct str prefix;               /* trace headers */
    struct str envelope;             /* encoded */
};
bool spool_meta_encode(const struct spool_meta *meta, struct buf *out);
bool spool_meta_decode(struct str octets, struct spool_meta *ret_meta);

/* Ids of messages. */
uint64_t spool_id_make(uint64_t segment, uint32_t offset);

/* The first block of a file of records. */
enum spool_file_kind { SPOOL_FILE_SEGMENT = 1, SPOOL_FILE_JOURNAL };
struct spool_file_header {
    enum spool_file_kind kind;
    uint64_t number, generation, size_bytes;
    uint64_t slot;                   /* the file's name */
};
void spool_file_header_encode(const struct spool_file_header *header, unsigned char ret_block[SPOOL_BLOCK_BYTES]);
bool spool_file_header_decode(const unsigned char *block, size_t n, struct spool_file_header *ret_header);
