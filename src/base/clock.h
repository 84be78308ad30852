/* clock: writes points in time. It reads no clock: see io/now.h. Times are milliseconds since
 * 1970-01-01 UTC. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { CLOCK_TEXT_BYTES = 128 };

/* "2026-11-21T18:07:33.123Z" (RFC 3339, UTC). */
void clock_rfc3339(int64_t wall_ms, char ret_text[CLOCK_TEXT_BYTES]);
/* "Sat, 21 Nov 2026 18:07:33 +0000" (RFC 5322 section 3.3), in local time. */
void clock_rfc5322(int64_t wall_ms, char ret_text[CLOCK_TEXT_BYTES]);
/* "Nov 21 18:07:33" (RFC 3164), in local time. */
void clock_syslog(int64_t wall_ms, char ret_text[CLOCK_TEXT_BYTES]);
