/* arena: memory that dies together. One owner; nothing in an inner arena may be pointed to from an
 * outer one. Allocation fails (NULL) when the arena's cap is reached or memory is out. */
#pragma once
#include "base/str.h"

struct arena_block;

struct arena {
    struct arena_block *head;
    size_t used_bytes; /* of all blocks, as allocated */
    size_t max_bytes;
};

static inline void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){ .max_bytes = max_bytes };
}
/* Gives everything back; the arena can be used again. */
void arena_done(struct arena *a);

/* Zeroed, aligned for any type. */
void *arena_alloc(struct arena *a, size_t n);
/* A copy that also has a NUL behind it; {NULL, 0} when refused. */
struct str arena_copy(struct arena *a, struct str s);
const char *arena_strdup(struct arena *a, struct str s);
const char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
