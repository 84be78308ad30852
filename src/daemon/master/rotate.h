/* rotate: keeps a log by day. */
#pragma once
#include <stdint.h>

/* Renames `path` to `path.YYYY-MM-DD` (the day before `now_wall_ms`) unless that exists, and removes what is older
 * than `keep_days`. Whoever writes to it must then be given a new descriptor. */
void rotate_by_day(const char *path, uint32_t keep_days, int64_t now_wall_ms);
