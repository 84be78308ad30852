/* limit: the arithmetic of "too often", for one address: how many AUTH failures in the last ten minutes, how long
 * to wait before the next answer, whether the address is locked out; and how many sessions are too many. Pure:
 * whoever calls it keeps the table and brings the time (milliseconds, monotonic). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"

enum { LIMIT_WINDOW_MS = 10 * 60 * 1000, LIMIT_BUCKETS = 10, LIMIT_DELAY_MAX_MS = 8000 };

/* Fixed size and without pointers: it may lie in shared memory. All zero = no failure yet. */
struct limit_failures {
    uint32_t minute;                 /* number of the newest bucket's minute */
    uint16_t bucket[LIMIT_BUCKETS];  /* failures by minute, newest at minute % LIMIT_BUCKETS */
    bool told;                       /* the lock-out's event was raised */
};

/* What an address is counted under: IPv4 itself, IPv6 its /64, since a client chooses the rest. */
void limit_key(const unsigned char address[16], unsigned char ret_key[16]);

/* Notes a failure. True once per lock-out: the address has just been locked out, raise the event. */
bool limit_failed(struct limit_failures *f, uint32_t failure_limit, int64_t now_ms);
/* Failures in the window. */
uint32_t limit_failures_count(const struct limit_failures *f, int64_t now_ms);
/* `failure_limit` 0: never. */
bool limit_locked_out(const struct limit_failures *f, uint32_t failure_limit, int64_t now_ms);
/* How long to hold back the next reply to a failure: 0 for the first, then 0.5 s, 1 s, 2 s … */
uint32_t limit_delay_ms(const struct limit_failures *f, int64_t now_ms);
/* The record may be thrown away. */
bool limit_expired(const struct limit_failures *f, int64_t now_ms);

enum limit_session { LIMIT_SESSION_OK, LIMIT_SESSION_ADDRESS /* too many of this address: 421 4.7.0 */,
                     LIMIT_SESSION_ALL /* too many in all: 421 4.3.2 */ };
/* Counts without the new one. */
enum limit_session limit_session(const struct conf *conf, uint32_t of_address, uint32_t in_all);
