#include "daemon/auth/cache.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/secret.h"
#include "io/now.h"
#include "sasl/crypto.h"

enum { SETS = 1024, WAYS = 4 };

struct entry {
    unsigned char mac[SASL_KEY_BYTES];
    int64_t expires_mono_ms; /* 0: free */
};

struct auth_cache {
    pthread_mutex_t lock;
    unsigned char key[SASL_KEY_BYTES];
    struct entry entry[SETS][WAYS];
};

struct auth_cache *auth_cache_new(void)
{
    struct auth_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    pthread_mutex_init(&cache->lock, NULL);
    now_random(cache->key, sizeof cache->key);
    return cache;
}

void auth_cache_free(struct auth_cache **cache)
{
    if (!*cache)
        return;
    pthread_mutex_destroy(&(*cache)->lock);
    secret_wipe(*cache, sizeof **cache);
    free(*cache);
    *cache = NULL;
}

/* The lengths stand in front, so that two different pairs never give the same text. */
static bool compute_mac(const struct auth_cache *cache, struct str user, struct str password,
                        const struct sasl_verifier *verifier, unsigned char ret_mac[SASL_KEY_BYTES])
{
    char text[2 * sizeof(uint32_t) + SASL_USER_MAX + SASL_PASSWORD_MAX + sizeof *verifier];
    uint32_t lengths[2] = { (uint32_t)user.n, (uint32_t)password.n };
    if (user.n == 0 || user.n > SASL_USER_MAX || password.n == 0 || password.n > SASL_PASSWORD_MAX)
        return false;
    size_t n = sizeof lengths;
    memcpy(text, lengths, n);
    memcpy(text + n, user.p, user.n);
    n += user.n;
    memcpy(text + n, password.p, password.n);
    n += password.n;
    memcpy(text + n, verifier->salt, sizeof verifier->salt);
    n += sizeof verifier->salt;
    memcpy(text + n, verifier->stored_key, sizeof verifier->stored_key);
    n += sizeof verifier->stored_key;
    bool ok = crypto_hmac(str_slice(cache->key, sizeof cache->key), str_slice(text, n), ret_mac);
    secret_wipe(text, sizeof text);
    return ok;
}

static struct entry *set_of(struct auth_cache *cache, const unsigned char mac[SASL_KEY_BYTES])
{
    return cache->entry[(mac[0] | (unsigned)mac[1] << 8) % SETS];
}

static bool same(const struct entry *entry, const unsigned char mac[SASL_KEY_BYTES])
{
    return secret_equal(str_slice(entry->mac, SASL_KEY_BYTES), str_slice(mac, SASL_KEY_BYTES));
}

bool auth_cache_has(struct auth_cache *cache, struct str user, struct str password,
                    const struct sasl_verifier *verifier, int64_t now_mono_ms)
{
    unsigned char mac[SASL_KEY_BYTES];
    if (!compute_mac(cache, user, password, verifier, mac))
        return false;
    bool found = false;
    pthread_mutex_lock(&cache->lock);
    const struct entry *set = set_of(cache, mac);
    for (size_t i = 0; i < WAYS && !found; i++)
        found = set[i].expires_mono_ms > now_mono_ms && same(&set[i], mac);
    pthread_mutex_unlock(&cache->lock);
    return found;
}

void auth_cache_put(struct auth_cache *cache, struct str user, struct str password,
                    const struct sasl_verifier *verifier, int64_t now_mono_ms, int64_t ttl_ms)
{
    unsigned char mac[SASL_KEY_BYTES];
    if (ttl_ms <= 0 || !compute_mac(cache, user, password, verifier, mac))
        return;
    pthread_mutex_lock(&cache->lock);
    struct entry *set = set_of(cache, mac), *place = &set[0];
    for (size_t i = 0; i < WAYS; i++) {
        if (same(&set[i], mac)) {
            place = &set[i];
            break;
        }
        if (set[i].expires_mono_ms < place->expires_mono_ms)
            place = &set[i];
    }
    memcpy(place->mac, mac, sizeof place->mac);
    place->expires_mono_ms = now_mono_ms + ttl_ms;
    pthread_mutex_unlock(&cache->lock);
}
