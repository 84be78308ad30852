#include "daemon/auth/limits.h"

#include <arpa/inet.h>
#include <stdlib.h>

#include "base/hash.h"

struct key {
    unsigned char address[16];
};

struct row {
    struct key key;
    int64_t minute;                       /* of count[minute % LIMITS_WINDOW_MINUTES], the newest */
    uint32_t count[LIMITS_WINDOW_MINUTES];
    UT_hash_handle hh;                    /* in the order of the last failure, oldest first */
};

struct auth_limits {
    struct row *rows;
};

struct auth_limits *auth_limits_new(void)
{
    return calloc(1, sizeof(struct auth_limits));
}

static void drop(struct auth_limits *limits, struct row *row)
{
    HASH_DEL(limits->rows, row);
    free(row);
}

void auth_limits_free(struct auth_limits **limits)
{
    if (!*limits)
        return;
    while ((*limits)->rows)
        drop(*limits, (*limits)->rows);
    free(*limits);
    *limits = NULL;
}

/* What is no address counts as one and the same client. */
static struct key key_of(struct str address)
{
    struct key key = { { 0 } };
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char v4[4], v6[16];
    if (!str_copy(address, text, sizeof text))
        return key;
    if (inet_pton(AF_INET, text, v4) == 1) {
        memcpy(key.address + 12, v4, sizeof v4);
        key.address[10] = key.address[11] = 0xff;
    } else if (inet_pton(AF_INET6, text, v6) == 1) {
        bool mapped = IN6_IS_ADDR_V4MAPPED((struct in6_addr *)(void *)v6);
        memcpy(key.address, v6, mapped ? 16 : 8);
    }
    return key;
}

/* Forgets the minutes that have left the window. */
static uint64_t advance(struct row *row, int64_t minute)
{
    if (minute - row->minute >= LIMITS_WINDOW_MINUTES) {
        memset(row->count, 0, sizeof row->count);
        row->minute = minute;
    }
    while (row->minute < minute)
        row->count[++row->minute % LIMITS_WINDOW_MINUTES] = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < LIMITS_WINDOW_MINUTES; i++)
        sum += row->count[i];
    return sum;
}

static struct row *find(struct auth_limits *limits, const struct key *key)
{
    struct row *row = NULL;
    HASH_FIND(hh, limits->rows, key, sizeof *key, row);
    return row;
}

bool auth_limits_locked(struct auth_limits *limits, struct str address, uint32_t limit, int64_t now_mono_ms)
{
    if (limit == 0)
        return false;
    struct key key = key_of(address);
    struct row *row = find(limits, &key);
    return row && advance(row, now_mono_ms / 60000) >= limit;
}

/* The row, moved to the end of the table's order; NULL when out of memory. */
static struct row *touch(struct auth_limits *limits, const struct key *key, int64_t minute)
{
    struct row *row = find(limits, key);
    if (row) {
        HASH_DEL(limits->rows, row);
    } else {
        if (HASH_COUNT(limits->rows) >= LIMITS_ADDRESSES_MAX)
            drop(limits, limits->rows);
        row = calloc(1, sizeof *row);
        if (!row)
            return NULL;
        row->key = *key;
        row->minute = minute;
    }
    HASH_ADD(hh, limits->rows, key, sizeof row->key, row);
    if (!hash_has(row)) {
        free(row);
        return NULL;
    }
    return row;
}

int64_t auth_limits_failed(struct auth_limits *limits, struct str address, uint32_t limit, int64_t now_mono_ms,
                           bool *ret_locked_out)
{
    *ret_locked_out = false;
    if (limit == 0)
        return 0;
    struct key key = key_of(address);
    int64_t minute = now_mono_ms / 60000;
    struct row *row = touch(limits, &key, minute);
    if (!row)
        return 0;
    uint64_t failures = advance(row, minute) + 1;
    row->count[minute % LIMITS_WINDOW_MINUTES]++;
    *ret_locked_out = failures == limit;
    if (failures <= limit / 2)
        return 0;
    int64_t delay = (int64_t)(failures - limit / 2) * LIMITS_DELAY_STEP_MS;
    return delay < LIMITS_DELAY_MAX_MS ? delay : LIMITS_DELAY_MAX_MS;
}
