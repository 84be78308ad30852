/* buf: octets that grow up to a cap set at birth.
 *
 * A failed growth (cap reached, out of memory) sets `failed` and keeps what was there; all later
 * additions are refused too, so that a sequence of additions needs one check at its end. */
#pragma once
#include <stdarg.h>

#include "base/str.h"

struct buf {
    char *p;
    size_t n;       /* octets in use */
    size_t cap;     /* octets allocated */
    size_t max;     /* never more than this */
    bool failed;
};

static inline void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}
/* Gives the memory back; the cap stays, so the buffer can be used again. NULL-safe members. */
void buf_done(struct buf *b);
/* The same, octets overwritten first: for what may have held a password. */
void buf_wipe(struct buf *b);
/* Empties it and clears `failed`; keeps the memory. */
void buf_clear(struct buf *b);

bool buf_add(struct buf *b, struct str s);
bool buf_add_c(struct buf *b, const char *c);
bool buf_add_char(struct buf *b, char c);
bool buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_addv(struct buf *b, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
/* Room for `n` more octets at b->p + b->n; the caller adds to b->n what it used. NULL when refused. */
char *buf_reserve(struct buf *b, size_t n);
/* Drops the first `n` octets. */
void buf_consume(struct buf *b, size_t n);
/* Ends it with a NUL that is not counted; NULL when refused. */
const char *buf_cstr(struct buf *b);

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){ b->p, b->n };
}
