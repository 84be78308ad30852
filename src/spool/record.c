#include "spool/record.h"

#include <endian.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "base/wire.h"
#include "spool/spool.h"

enum { RECORD_VERSION = 1, GENERATION_AT = 32, SUM_AT = 64, ID_OFFSET_BITS = 29 };
#define RECORD_MAGIC UINT32_C(0x31525350) /* "PSR1" */
#define FILE_MAGIC UINT64_C(0x31304c4f4f505350) /* "PSPOOL01" */

static void put(unsigned char *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get(const unsigned char *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint64_t spool_sum(struct str octets)
{
    return XXH3_64bits(octets.n ? octets.p : "", octets.n);
}

/* Header without the sum itself, then meta. */
static uint64_t header_sum(const unsigned char *header, struct str meta, uint64_t generation)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, generation);
    XXH3_64bits_update(&state, header, SUM_AT);
    if (meta.n)
        XXH3_64bits_update(&state, meta.p, meta.n);
    return XXH3_64bits_digest(&state);
}

void spool_record_encode(const struct spool_record *r, struct str meta, unsigned char h[SPOOL_RECORD_HEADER_BYTES])
{
    put(h, RECORD_MAGIC, 4);
    put(h + 4, RECORD_VERSION, 1);
    put(h + 5, r->kind, 1);
    put(h + 6, r->flags, 2);
    put(h + 8, r->length, 4);
    put(h + 12, r->meta_bytes, 4);
    put(h + 16, r->id, 8);
    put(h + 24, r->segment, 8);
    put(h + 32, r->generation, 8);
    put(h + 40, r->offset, 4);
    put(h + 44, r->previous_end, 4);
    put(h + 48, r->synced_to, 4);
    put(h + 52, 0, 4);
    put(h + 56, r->content_sum, 8);
    put(h + SUM_AT, header_sum(h, meta, r->generation), 8);
}

/* Whole segments are searched in steps of eight octets: one load and one comparison each. */
bool spool_record_begins(const unsigned char *p, uint64_t generation)
{
    uint64_t at_its_place;
    memcpy(&at_its_place, p + GENERATION_AT, sizeof(at_its_place));
    return at_its_place == htole64(generation) && get(p, 4) == RECORD_MAGIC;
}

size_t spool_record_search(const unsigned char *p, size_t n, uint64_t generation)
{
    size_t at = 0;
    while (at + SPOOL_RECORD_HEADER_BYTES <= n && !spool_record_begins(p + at, generation))
        at += SPOOL_RECORD_ALIGN;
    return at;
}

bool spool_record_header(const unsigned char *h, uint64_t generation, uint64_t offset, uint64_t size,
                         struct spool_record *ret)
{
    if (!spool_record_begins(h, generation) || get(h + 4, 1) != RECORD_VERSION)
        return false;
    struct spool_record r = {
        .kind = (uint8_t)get(h + 5, 1), .flags = (uint16_t)get(h + 6, 2), .length = (uint32_t)get(h + 8, 4),
        .meta_bytes = (uint32_t)get(h + 12, 4), .id = get(h + 16, 8), .segment = get(h + 24, 8),
        .generation = generation, .offset = (uint32_t)get(h + 40, 4), .previous_end = (uint32_t)get(h + 44, 4),
        .synced_to = (uint32_t)get(h + 48, 4), .content_sum = get(h + 56, 8),
    };
    if (r.kind == 0 || r.kind >= SPOOL_KINDS || r.offset != offset || offset > size ||
        r.length < SPOOL_RECORD_HEADER_BYTES || r.length > size - offset ||
        r.meta_bytes > r.length - SPOOL_RECORD_HEADER_BYTES || r.previous_end > r.offset || r.synced_to > r.offset ||
        r.previous_end < SPOOL_BLOCK_BYTES)
        return false;
    *ret = r;
    return true;
}

bool spool_record_meta_valid(const unsigned char *header, const struct spool_record *r)
{
    struct str meta = str_slice(header + SPOOL_RECORD_HEADER_BYTES, r->meta_bytes);
    return get(header + SUM_AT, 8) == header_sum(header, meta, r->generation);
}

bool spool_meta_encode(const struct spool_meta *meta, struct buf *out)
{
    wire_put_u64(out, meta->body_file);
    wire_put_u64(out, meta->body_bytes);
    wire_put_str(out, meta->prefix);
    buf_add(out, meta->envelope);
    return !out->failed;
}

bool spool_meta_decode(struct str octets, struct spool_meta *ret)
{
    struct wire w = wire_of(octets);
    ret->body_file = wire_get_u64(&w);
    ret->body_bytes = wire_get_u64(&w);
    ret->prefix = wire_get_str(&w, SPOOL_PREFIX_MAX);
    ret->envelope = w.rest;
    return !w.bad;
}

/* 29 bits of offset in units of eight octets reach 4 GiB; 35 bits of segments last for 2 EiB of mail. */
uint64_t spool_id_make(uint64_t segment, uint32_t offset)
{
    return segment << ID_OFFSET_BITS | offset / SPOOL_RECORD_ALIGN;
}

void spool_id_format(uint64_t id, char ret_text[SPOOL_ID_TEXT_BYTES])
{
    static const char digit[] = "0123456789ABCDEF";
    unsigned n = 10;
    while (n < 16 && id >> (4 * n))
        n++;
    for (unsigned i = 0; i < n; i++)
        ret_text[i] = digit[id >> (4 * (n - 1 - i)) & 15];
    ret_text[n] = 0;
}

bool spool_id_parse(struct str text, uint64_t *ret_id)
{
    uint64_t id = 0;
    if (text.n < 10 || text.n > 16)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = ascii_lower(text.p[i]);
        if (!ascii_digit(c) && (c < 'a' || c > 'f'))
            return false;
        id = id << 4 | (uint64_t)(ascii_digit(c) ? c - '0' : c - 'a' + 10);
    }
    *ret_id = id;
    return true;
}

void spool_file_header_encode(const struct spool_file_header *h, unsigned char block[SPOOL_BLOCK_BYTES])
{
    memset(block, 0, SPOOL_BLOCK_BYTES);
    put(block, FILE_MAGIC, 8);
    put(block + 8, RECORD_VERSION, 4);
    put(block + 12, (uint64_t)h->kind, 4);
    put(block + 16, h->number, 8);
    put(block + 24, h->generation, 8);
    put(block + 32, h->size_bytes, 8);
    put(block + 40, h->slot, 8);
    put(block + 48, spool_sum(str_slice(block, 48)), 8);
}

bool spool_file_header_decode(const unsigned char *block, size_t n, struct spool_file_header *ret)
{
    if (n < 56 || get(block, 8) != FILE_MAGIC || get(block + 8, 4) != RECORD_VERSION ||
        get(block + 48, 8) != spool_sum(str_slice(block, 48)))
        return false;
    uint64_t kind = get(block + 12, 4);
    if (kind != SPOOL_FILE_SEGMENT && kind != SPOOL_FILE_JOURNAL)
        return false;
    *ret = (struct spool_file_header){ .kind = (enum spool_file_kind)kind, .number = get(block + 16, 8),
        .generation = get(block + 24, 8), .size_bytes = get(block + 32, 8), .slot = get(block + 40, 8) };
    if (ret->number == 0)
        return false;
    /* A journal grows: it says nothing of its size. */
    return kind == SPOOL_FILE_JOURNAL || (ret->size_bytes >= SPOOL_BLOCK_BYTES && ret->size_bytes <= SPOOL_SEGMENT_MAX_BYTES);
}
