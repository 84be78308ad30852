#include "base/arena.h"

#include <stdarg.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    alignas(max_align_t) char data[];
};

enum { ARENA_BLOCK_BYTES = 2048 - sizeof(struct arena_block) };

void arena_done(struct arena *a)
{
    while (a->head) {
        struct arena_block *next = a->head->next;
        free(a->head);
        a->head = next;
    }
    a->used_bytes = 0;
}

void *arena_alloc(struct arena *a, size_t n)
{
    const size_t align = alignof(max_align_t);
    if (n > a->max_bytes)
        return NULL;
    n = (n + align - 1) & ~(align - 1);

    struct arena_block *b = a->head;
    if (!b || b->size - b->used < n) {
        size_t size = n > ARENA_BLOCK_BYTES ? n : ARENA_BLOCK_BYTES;
        if (size > a->max_bytes - a->used_bytes)
            size = n;
        if (a->used_bytes > a->max_bytes || size > a->max_bytes - a->used_bytes)
            return NULL;
        b = malloc(sizeof *b + size);
        if (!b)
            return NULL;
        *b = (struct arena_block){ .next = a->head, .size = size };
        a->head = b;
        a->used_bytes += size;
    }
    void *p = b->data + b->used;
    b->used += n;
    memset(p, 0, n);
    return p;
}

struct str arena_copy(struct arena *a, struct str s)
{
    char *p = s.n < SIZE_MAX ? arena_alloc(a, s.n + 1) : NULL;
    if (!p)
        return STR_NONE;
    if (s.n)
        memcpy(p, s.p, s.n);
    return (struct str){ p, s.n };
}

const char *arena_strdup(struct arena *a, struct str s)
{
    return arena_copy(a, s).p;
}

const char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (!p)
        return NULL;
    va_start(args, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, args);
    va_end(args);
    return p;
}
