#include "base/str.h"

#include <stdlib.h>

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
            return false;
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_slice(s.p, prefix.n), prefix);
}

bool str_starts_nocase(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq_nocase(str_slice(s.p, prefix.n), prefix);
}

bool str_ends_nocase(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq_nocase(str_skip(s, s.n - suffix.n), suffix);
}

size_t str_find(struct str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? (size_t)(at - s.p) : s.n;
}

struct str str_skip(struct str s, size_t n)
{
    if (n >= s.n)
        return (struct str){ s.n ? s.p + s.n : s.p, 0 };
    return (struct str){ s.p + n, s.n - n };
}

bool str_cut(struct str *rest, char sep, struct str *ret_before)
{
    size_t at = str_find(*rest, sep);
    bool found = at < rest->n;
    *ret_before = (struct str){ rest->p, at };
    *rest = str_skip(*rest, found ? at + 1 : at);
    return found;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.n && is_blank(s.p[0]))
        s = str_skip(s, 1);
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *ret_v)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!ascii_digit(s.p[i]))
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (v > (max - digit) / 10 || digit > max)
            return false;
        v = v * 10 + digit;
    }
    *ret_v = v;
    return true;
}

bool str_glob_nocase(struct str pattern, struct str s)
{
    /* Greedy with one remembered star: linear in practice, never exponential. */
    size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = i;
        } else if (p < pattern.n && ascii_lower(pattern.p[p]) == ascii_lower(s.p[i])) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

char *str_dup(struct str s)
{
    if (s.n && memchr(s.p, 0, s.n))
        return NULL;
    char *copy = malloc(s.n + 1);
    if (!copy)
        return NULL;
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    return copy;
}

bool str_copy(struct str s, char *dst, size_t dst_bytes)
{
    if (dst_bytes)
        dst[0] = 0;
    if (s.n >= dst_bytes || (s.n && memchr(s.p, 0, s.n)))
        return false;
    if (s.n)
        memcpy(dst, s.p, s.n);
    dst[s.n] = 0;
    return true;
}
