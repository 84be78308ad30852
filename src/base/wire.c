#include "base/wire.h"

static void put_le(struct buf *b, uint64_t v, size_t n)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(v >> (8 * i));
    buf_add(b, str_slice(bytes, n));
}

void wire_put_u8(struct buf *b, uint8_t v)
{
    put_le(b, v, 1);
}

void wire_put_u16(struct buf *b, uint16_t v)
{
    put_le(b, v, 2);
}

void wire_put_u32(struct buf *b, uint32_t v)
{
    put_le(b, v, 4);
}

void wire_put_u64(struct buf *b, uint64_t v)
{
    put_le(b, v, 8);
}

void wire_put_str(struct buf *b, struct str s)
{
    if (s.n > UINT32_MAX) {
        b->failed = true;
        return;
    }
    wire_put_u32(b, (uint32_t)s.n);
    buf_add(b, s);
}

static uint64_t get_le(struct wire *w, size_t n)
{
    if (w->bad || w->rest.n < n) {
        w->bad = true;
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)(unsigned char)w->rest.p[i] << (8 * i);
    w->rest = str_skip(w->rest, n);
    return v;
}

uint8_t wire_get_u8(struct wire *w)
{
    return (uint8_t)get_le(w, 1);
}

uint16_t wire_get_u16(struct wire *w)
{
    return (uint16_t)get_le(w, 2);
}

uint32_t wire_get_u32(struct wire *w)
{
    return (uint32_t)get_le(w, 4);
}

uint64_t wire_get_u64(struct wire *w)
{
    return get_le(w, 8);
}

struct str wire_get_str(struct wire *w, size_t max)
{
    size_t n = wire_get_u32(w);
    if (w->bad || n > max || n > w->rest.n) {
        w->bad = true;
        return STR_NONE;
    }
    struct str s = str_slice(w->rest.p, n);
    w->rest = str_skip(w->rest, n);
    return s;
}
