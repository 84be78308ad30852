#include "base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void buf_done(struct buf *b)
{
    free(b->p);
    *b = (struct buf){ .max = b->max };
}

void buf_wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_done(b);
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed || n > b->max || b->n > b->max - n) {
        b->failed = true;
        return NULL;
    }
    size_t need = b->n + n;
    if (need > b->cap || !b->p) {
        size_t cap = b->cap < 64 ? 64 : b->cap;
        while (cap < need)
            cap *= 2;
        /* One octet over the cap, for buf_cstr(). */
        if (cap > b->max + 1)
            cap = b->max + 1;
        char *p = realloc(b->p, cap);
        if (!p) {
            b->failed = true;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

bool buf_add(struct buf *b, struct str s)
{
    if (s.n == 0)
        return !b->failed;
    char *at = buf_reserve(b, s.n);
    if (!at)
        return false;
    memcpy(at, s.p, s.n);
    b->n += s.n;
    return true;
}

bool buf_add_c(struct buf *b, const char *c)
{
    return buf_add(b, str_of(c));
}

bool buf_add_char(struct buf *b, char c)
{
    return buf_add(b, (struct str){ &c, 1 });
}

bool buf_addv(struct buf *b, const char *fmt, va_list args)
{
    char small[256];
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, fmt, args);
    bool ok = false;
    if (n < 0) {
        b->failed = true;
    } else if ((size_t)n < sizeof small) {
        ok = buf_add(b, str_slice(small, (size_t)n));
    } else {
        char *large = malloc((size_t)n + 1);
        if (large) {
            vsnprintf(large, (size_t)n + 1, fmt, again);
            ok = buf_add(b, str_slice(large, (size_t)n));
        } else {
            b->failed = true;
        }
        free(large);
    }
    va_end(again);
    return ok;
}

bool buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool ok = buf_addv(b, fmt, args);
    va_end(args);
    return ok;
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->n);
    if (n && n < b->n)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

const char *buf_cstr(struct buf *b)
{
    if (b->failed)
        return NULL;
    if (b->n + 1 > b->cap) {
        char *p = realloc(b->p, b->n + 1);
        if (!p)
            return NULL;
        b->p = p;
        b->cap = b->n + 1;
    }
    b->p[b->n] = 0;
    return b->p;
}
