/* wire: numbers and strings in a byte sequence, little-endian, for messages between roles and for
 * envelopes on disk. Writing fails with the buffer (see buf.h); reading fails softly: after the first
 * value that does not fit, `bad` is set and every later value is zero or empty. */
#pragma once
#include "base/buf.h"

void wire_put_u8(struct buf *b, uint8_t v);
void wire_put_u16(struct buf *b, uint16_t v);
void wire_put_u32(struct buf *b, uint32_t v);
void wire_put_u64(struct buf *b, uint64_t v);
/* A u32 length, then the octets. */
void wire_put_str(struct buf *b, struct str s);

struct wire {
    struct str rest;
    bool bad;
};

static inline struct wire wire_of(struct str s)
{
    return (struct wire){ .rest = s };
}
uint8_t wire_get_u8(struct wire *w);
uint16_t wire_get_u16(struct wire *w);
uint32_t wire_get_u32(struct wire *w);
uint64_t wire_get_u64(struct wire *w);
/* A view into what is read; over `max` octets is bad. */
struct str wire_get_str(struct wire *w, size_t max);
/* Nothing was bad and nothing is left over. */
static inline bool wire_end(const struct wire *w)
{
    return !w->bad && w->rest.n == 0;
}
