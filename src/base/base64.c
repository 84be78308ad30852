#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool base64_encode(struct str raw, struct buf *out)
{
    char *to = buf_reserve(out, base64_encoded_bytes(raw.n));
    if (!to)
        return false;
    const unsigned char *in = (const unsigned char *)raw.p;
    for (size_t i = 0; i < raw.n; i += 3) {
        size_t left = raw.n - i;
        unsigned v = (unsigned)in[i] << 16;
        if (left > 1)
            v |= (unsigned)in[i + 1] << 8;
        if (left > 2)
            v |= in[i + 2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = left > 1 ? alphabet[v >> 6 & 63] : '=';
        *to++ = left > 2 ? alphabet[v & 63] : '=';
    }
    out->n += base64_encoded_bytes(raw.n);
    return true;
}

/* The six bits of a letter, or -1. Computed, not looked up, so that decoding a secret touches no table. */
static int letter_bits(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct str text, struct buf *out)
{
    if (text.n % 4 != 0)
        return false;
    if (text.n == 0)
        return true;
    size_t pad = text.p[text.n - 1] != '=' ? 0 : text.p[text.n - 2] != '=' ? 1 : 2;
    char *to = buf_reserve(out, text.n / 4 * 3);
    if (!to)
        return false;
    unsigned v = 0;
    for (size_t i = 0; i < text.n; i++) {
        int bits = i < text.n - pad ? letter_bits(text.p[i]) : 0;
        if (bits < 0)
            return false;
        v = v << 6 | (unsigned)bits;
        if (i % 4 == 3) {
            *to++ = (char)(v >> 16);
            *to++ = (char)(v >> 8);
            *to++ = (char)v;
            if (i + 1 == text.n && ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff))))
                return false; /* bits under the padding */
            v = 0;
        }
    }
    out->n += text.n / 4 * 3 - pad;
    return true;
}
