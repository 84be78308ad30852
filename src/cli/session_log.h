/* session_log: reads what smtpd wrote to `session_log`: one JSON object a line, in a file a day (NAME.YYYY-MM-DD) and
 * the present one (NAME). No daemon is needed. What is no line of ours is counted and skipped: a file may have been
 * cut, edited or filled by somebody else. Memory does not grow with the files. */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { SESSION_LOG_LINE_MAX = 65536 };

/* `session` is the reader's; `time_ms` is its `time`. False ends the reading (out of memory). */
typedef bool session_log_fn(void *arg, const json_t *session, int64_t time_ms);

struct session_log_counts {
    uint64_t files, sessions, damaged; /* damaged: lines that are no session */
};

/* Older files first; only sessions that began at `since_ms` (wall clock) or later. Files that were last written before
 * are not opened. 0, or a negative code: ERR_ABSENT when there is no file at all, -EACCES, -ENOMEM ... */
int session_log_read(const char *path, int64_t since_ms, session_log_fn *each, void *arg,
                     struct session_log_counts *ret_counts, struct err *err);

/* "2026-11-21T18:07:33.123Z", with or without fractions; or "2026-11-21", its midnight. UTC. */
bool session_log_time(struct str text, int64_t *ret_ms);
/* A member's text, as far as the first `max` octets; empty when it is absent or no text. */
struct str session_log_text(const json_t *session, const char *name, size_t max);
