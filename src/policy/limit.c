#include "policy/limit.h"

#include <string.h>

#include "conf/network.h"

enum { BUCKET_MS = LIMIT_WINDOW_MS / LIMIT_BUCKETS };

void limit_key(const unsigned char address[16], unsigned char ret_key[16])
{
    memcpy(ret_key, address, 16);
    if (!network_is_ipv4(address))
        network_mask(ret_key, 64);
}

static uint32_t minute_of(int64_t now_ms)
{
    return now_ms > 0 ? (uint32_t)(now_ms / BUCKET_MS) : 0;
}

uint32_t limit_failures_count(const struct limit_failures *f, int64_t now_ms)
{
    uint32_t now = minute_of(now_ms), sum = 0;
    /* A clock that stands or goes back a little counts as the newest minute. */
    uint32_t gone = now > f->minute ? now - f->minute : 0;
    for (uint32_t age = 0; age + gone < LIMIT_BUCKETS; age++)
        sum += f->bucket[(f->minute + LIMIT_BUCKETS - age) % LIMIT_BUCKETS];
    return sum;
}

bool limit_locked_out(const struct limit_failures *f, uint32_t failure_limit, int64_t now_ms)
{
    return failure_limit && limit_failures_count(f, now_ms) >= failure_limit;
}

/* Empties the buckets of minutes that have passed since the newest one. */
static void advance(struct limit_failures *f, int64_t now_ms)
{
    uint32_t now = minute_of(now_ms);
    if (now <= f->minute)
        return;
    if (now - f->minute >= LIMIT_BUCKETS)
        memset(f->bucket, 0, sizeof f->bucket);
    else
        for (uint32_t minute = f->minute + 1; minute <= now; minute++)
            f->bucket[minute % LIMIT_BUCKETS] = 0;
    f->minute = now;
}

bool limit_failed(struct limit_failures *f, uint32_t failure_limit, int64_t now_ms)
{
    advance(f, now_ms);
    if (!limit_locked_out(f, failure_limit, now_ms))
        f->told = false;
    uint16_t *bucket = &f->bucket[f->minute % LIMIT_BUCKETS];
    if (*bucket < UINT16_MAX)
        (*bucket)++;
    if (f->told || !limit_locked_out(f, failure_limit, now_ms))
        return false;
    f->told = true;
    return true;
}

uint32_t limit_delay_ms(const struct limit_failures *f, int64_t now_ms)
{
    uint32_t count = limit_failures_count(f, now_ms);
    if (count < 2)
        return 0;
    uint32_t shift = count - 2;
    return shift >= 4 ? LIMIT_DELAY_MAX_MS : 500u << shift;
}

bool limit_expired(const struct limit_failures *f, int64_t now_ms)
{
    return limit_failures_count(f, now_ms) == 0;
}

enum limit_session limit_session(const struct conf *conf, uint32_t of_address, uint32_t in_all)
{
    if (conf->max_sessions && in_all >= conf->max_sessions)
        return LIMIT_SESSION_ALL;
    if (conf->max_sessions_per_address && of_address >= conf->max_sessions_per_address)
        return LIMIT_SESSION_ADDRESS;
    return LIMIT_SESSION_OK;
}
