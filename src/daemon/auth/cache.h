/* cache: passwords that were verified a short while ago, so that a client which logs in for each message does not
 * cost a PBKDF2 each time. It keeps no password: only HMACs, under a random key that never leaves the process,
 * over user, password and the user's verifier; a changed password therefore misses by itself. Bounded; the entry
 * that expires first makes room. Any thread may call. */
#pragma once
#include <stdint.h>

#include "sasl/sasl.h"

struct auth_cache;

/* NULL when out of memory. */
struct auth_cache *auth_cache_new(void);
void auth_cache_free(struct auth_cache **cache);
/* Was exactly this verified, less than its time to live ago? */
bool auth_cache_has(struct auth_cache *cache, struct str user, struct str password,
                    const struct sasl_verifier *verifier, int64_t now_mono_ms);
void auth_cache_put(struct auth_cache *cache, struct str user, struct str password,
                    const struct sasl_verifier *verifier, int64_t now_mono_ms, int64_t ttl_ms);
