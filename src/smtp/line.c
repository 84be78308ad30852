#include "smtp/line.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static bool matters(char c)
{
    return c == '\r' || c == '\n' || c == 0;
}

/* Octets before the first CR, LF or NUL. Sixteen at a time: every octet of every message passes here once. */
static size_t plain_octets(const char *p, size_t n, bool *high)
{
    size_t i = 0;
    unsigned highs = 0;
#ifdef __SSE2__
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'), nul = _mm_setzero_si128();
    for (; n - i >= 16; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf)), _mm_cmpeq_epi8(v, nul));
        unsigned hits = (unsigned)_mm_movemask_epi8(hit), tops = (unsigned)_mm_movemask_epi8(v);
        if (hits) {
            highs |= tops & ((hits & -hits) - 1);
            *high |= highs != 0;
            return i + (size_t)__builtin_ctz(hits);
        }
        highs |= tops;
    }
#endif
    for (; i < n && !matters(p[i]); i++)
        highs |= (unsigned char)p[i] & 0x80u;
    *high |= highs != 0;
    return i;
}

enum smtp_line_end smtp_line_scan(struct smtp_line *l, struct str in, size_t *ret_used)
{
    *ret_used = 0;
    if (in.n == 0)
        return SMTP_LINE_MORE;
    if (l->cr) {
        l->cr = false;
        *ret_used = in.p[0] == '\n';
        return in.p[0] == '\n' ? SMTP_LINE_CRLF : SMTP_LINE_BARE_CR;
    }
    size_t at = plain_octets(in.p, in.n, &l->high);
    *ret_used = at < in.n ? at + 1 : at;
    if (at == in.n)
        return SMTP_LINE_MORE;
    if (in.p[at] == '\n')
        return SMTP_LINE_BARE_LF;
    if (in.p[at] == 0)
        return SMTP_LINE_NUL;
    if (at + 1 == in.n) {
        l->cr = true;
        return SMTP_LINE_MORE;
    }
    if (in.p[at + 1] != '\n')
        return SMTP_LINE_BARE_CR;
    *ret_used = at + 2;
    return SMTP_LINE_CRLF;
}
