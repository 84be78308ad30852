/* str: a view of octets that somebody else owns. Never NUL-terminated by promise; may hold NUL.
 * All comparisons of letters are ASCII only: SMTP, SASL and configuration keywords are ASCII. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){ "" literal, sizeof(literal) - 1 })
#define STR_NONE ((struct str){ NULL, 0 })
/* For printf: printf("%.*s", STR_ARG(s)); the view must be shorter than INT_MAX. */
#define STR_ARG(s) (int)(s).n, (s).n ? (s).p : ""

static inline struct str str_of(const char *c)
{
    return (struct str){ c, c ? strlen(c) : 0 };
}

static inline struct str str_slice(const void *p, size_t n)
{
    return (struct str){ p, n };
}

bool str_eq(struct str a, struct str b);
bool str_eq_nocase(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_starts_nocase(struct str s, struct str prefix);
bool str_ends_nocase(struct str s, struct str suffix);
/* Index of the first `c`, or s.n when absent. */
size_t str_find(struct str s, char c);
/* Without the first `n` octets (at most all of them). */
struct str str_skip(struct str s, size_t n);
/* Splits at the first `sep`: what stands before goes to *ret_before, the rest stays in *rest.
 * False, and everything in *ret_before, when there is no `sep`. */
bool str_cut(struct str *rest, char sep, struct str *ret_before);
/* Without leading and trailing spaces and tabs. */
struct str str_trim(struct str s);
/* Decimal digits only, no sign, no space, at most `max`. False leaves *ret_v alone. */
bool str_to_u64(struct str s, uint64_t max, uint64_t *ret_v);
/* Shell-like match with `*` only, letters of either case. */
bool str_glob_nocase(struct str pattern, struct str s);
/* A NUL-terminated copy on the heap; NULL when out of memory or when `s` holds a NUL. */
char *str_dup(struct str s);
/* Copies into dst and ends it with NUL; false (and an empty dst) when it does not fit or holds a NUL. */
bool str_copy(struct str s, char *dst, size_t dst_bytes);

static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}
static inline bool ascii_digit(char c)
{
    return c >= '0' && c <= '9';
}
static inline bool ascii_alnum(char c)
{
    return ascii_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}
