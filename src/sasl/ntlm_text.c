#include "sasl/ntlm_text.h"

static bool put_utf8(uint32_t c, char *dst, size_t room, size_t *at)
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    if (*at + n > room)
        return false;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        dst[*at + i] = (char)(0x80 | (c & 0x3f));
    dst[*at] = (char)(lead[n] | c);
    *at += n;
    return true;
}

static uint32_t unit_at(struct str wire, size_t i)
{
    return (uint32_t)(unsigned char)wire.p[i] | (uint32_t)(unsigned char)wire.p[i + 1] << 8;
}

/* Controls have no place in a name, and would let a client write into the log's lines of others. */
static bool allowed(uint32_t c)
{
    return c >= 0x20 && (c < 0x7f || c > 0x9f);
}

static bool decode_unicode(struct str wire, char *dst, size_t room, size_t *ret_n)
{
    if (wire.n % 2 != 0)
        return false;
    for (size_t i = 0; i < wire.n; i += 2) {
        uint32_t c = unit_at(wire, i);
        if (c >= 0xdc00 && c < 0xe000)
            return false;
        if (c >= 0xd800 && c < 0xdc00) {
            i += 2;
            uint32_t low = i < wire.n ? unit_at(wire, i) : 0;
            if (low < 0xdc00 || low > 0xdfff)
                return false;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
        if (!allowed(c) || !put_utf8(c, dst, room, ret_n))
            return false;
    }
    return true;
}

static bool decode_oem(struct str wire, char *dst, size_t room, size_t *ret_n)
{
    for (size_t i = 0; i < wire.n; i++) {
        uint32_t c = (unsigned char)wire.p[i];
        if (c > 0x7e || !allowed(c) || !put_utf8(c, dst, room, ret_n))
            return false;
    }
    return true;
}

bool ntlm_text_decode(struct str wire, bool unicode, char *dst, size_t dst_bytes, struct str *ret_text)
{
    size_t n = 0;
    bool ok = unicode ? decode_unicode(wire, dst, dst_bytes - 1, &n) : decode_oem(wire, dst, dst_bytes - 1, &n);
    if (!ok)
        n = 0;
    dst[n] = 0;
    *ret_text = str_slice(dst, n);
    return ok;
}

/* The next character of a valid UTF-8 text; 0 when it is not valid. */
static uint32_t next_char(struct str *text)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    unsigned char first = (unsigned char)text->p[0];
    size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (n == 0 || n > text->n)
        return 0;
    uint32_t c = n == 1 ? first : first & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        unsigned char more = (unsigned char)text->p[i];
        if ((more & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (more & 0x3f);
    }
    if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *text = str_skip(*text, n);
    return c;
}

/* One row: the small letters from `from` to `to` and how far their capitals are. `step` 2: small and capital letters
 * alternate, and the small one is the second of each pair. */
static const struct {
    uint16_t from, to, step;
    int16_t distance;
} capitals[] = {
    { 0x0061, 0x007a, 1, -32 },  { 0x00e0, 0x00f6, 1, -32 },  { 0x00f8, 0x00fe, 1, -32 },  { 0x00ff, 0x00ff, 1, 121 },
    { 0x0101, 0x012f, 2, -1 },   { 0x0133, 0x0137, 2, -1 },   { 0x013a, 0x0148, 2, -1 },   { 0x014b, 0x0177, 2, -1 },
    { 0x017a, 0x017e, 2, -1 },   { 0x01ce, 0x01dc, 2, -1 },   { 0x01df, 0x01ef, 2, -1 },   { 0x01f9, 0x021f, 2, -1 },
    { 0x0223, 0x0233, 2, -1 },   { 0x03ac, 0x03ac, 1, -38 },  { 0x03ad, 0x03af, 1, -37 },  { 0x03b1, 0x03c1, 1, -32 },
    { 0x03c2, 0x03c2, 1, -31 },  { 0x03c3, 0x03cb, 1, -32 },  { 0x03cc, 0x03cc, 1, -64 },  { 0x03cd, 0x03ce, 1, -63 },
    { 0x0430, 0x044f, 1, -32 },  { 0x0450, 0x045f, 1, -80 },  { 0x0461, 0x0481, 2, -1 },   { 0x048b, 0x04bf, 2, -1 },
    { 0x04c2, 0x04ce, 2, -1 },   { 0x04d1, 0x052f, 2, -1 },   { 0x0561, 0x0586, 1, -48 },  { 0x1e01, 0x1e95, 2, -1 },
    { 0x1ea1, 0x1eff, 2, -1 },
};

static uint32_t upper(uint32_t c)
{
    for (size_t i = 0; i < sizeof capitals / sizeof capitals[0]; i++)
        if (c >= capitals[i].from && c <= capitals[i].to && (c - capitals[i].from) % capitals[i].step == 0)
            return (uint32_t)((int32_t)c + capitals[i].distance);
    return c;
}

static void put_unit(struct buf *out, uint32_t unit)
{
    buf_add_char(out, (char)(unit & 0xff));
    buf_add_char(out, (char)(unit >> 8));
}

static bool encode(struct str text, bool in_capitals, struct buf *out)
{
    while (text.n > 0) {
        uint32_t c = next_char(&text);
        if (c == 0)
            return false;
        if (in_capitals)
            c = upper(c);
        if (c >= 0x10000) {
            put_unit(out, 0xd800 + ((c - 0x10000) >> 10));
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        put_unit(out, c);
    }
    return !out->failed;
}

bool ntlm_text_encode(struct str text, struct buf *out)
{
    return encode(text, false, out);
}

bool ntlm_text_encode_upper(struct str text, struct buf *out)
{
    return encode(text, true, out);
}
