/* secret: octets that must not leak: wiped when freed, kept out of core dumps and (where the limit
 * allows) out of swap. There is no formatter, so a secret cannot be printed by accident. */
#pragma once
#include "base/str.h"

struct secret;

/* A copy of `s`, at most 64 KiB; NULL when out of memory. The caller wipes its own original. */
struct secret *secret_new(struct str s);
/* NULL is fine; sets *secret to NULL. */
void secret_free(struct secret **secret);
/* Borrowed; dies with the secret. */
struct str secret_bytes(const struct secret *secret);
/* Takes the same time wherever the first difference is; lengths are not hidden. */
bool secret_equal(struct str a, struct str b);
void secret_wipe(void *p, size_t n);
