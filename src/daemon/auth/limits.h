/* limits: repeated failures from one address first slow down, then lock it out.
 *
 * Failures of the last ten minutes are counted in one-minute steps: an IPv4 address, or the /64 network of an
 * IPv6 one (a guesser has all of it). From half of the limit on, each failure is answered later; at the limit the
 * address is locked out until enough of its failures are older than ten minutes. A success forgives nothing:
 * otherwise one known password would pay for guessing others. Bounded: the address not seen for longest goes. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { LIMITS_WINDOW_MINUTES = 10, LIMITS_ADDRESSES_MAX = 20000, LIMITS_DELAY_STEP_MS = 250, LIMITS_DELAY_MAX_MS = 4000 };

struct auth_limits;

struct auth_limits *auth_limits_new(void);
void auth_limits_free(struct auth_limits **limits);
/* `limit` as configured: 0 = there is none. */
bool auth_limits_locked(struct auth_limits *limits, struct str address, uint32_t limit, int64_t now_mono_ms);
/* Counts a failure. Returns how long its answer waits, in ms; *ret_locked_out: this one reached the limit. */
int64_t auth_limits_failed(struct auth_limits *limits, struct str address, uint32_t limit, int64_t now_mono_ms,
                           bool *ret_locked_out);
