/* err: why an operation failed, in one sentence for a person, and a code for the caller.
 *
 * Functions that can fail return 0 (or a useful non-negative number) or a negative code, and fill the
 * last parameter `struct err *` once, where the fault is known. `err` may be NULL. A peer's mistake is
 * not an err: it is an ordinary value that becomes a reply. */
#pragma once
#include <errno.h>
#include <stddef.h>

/* System failures are the negated errno; these are ours. */
enum {
    ERR_SYNTAX = -1000,  /* malformed input */
    ERR_LIMIT = -1001,   /* a bound of ours was reached */
    ERR_CORRUPT = -1002, /* stored data that is not what was written */
    ERR_CONFIG = -1003,  /* the configuration asks for what cannot be */
    ERR_CLOSED = -1004,  /* the other side went away */
    ERR_TLS = -1005,
    ERR_BUSY = -1006,    /* try again later */
    ERR_ABSENT = -1007,  /* no such thing */
    ERR_EXISTS = -1008,
    ERR_DENIED = -1009,
    ERR_DNS = -1010,
    ERR_STORE = -1011,   /* the user store failed */
    ERR_AUTH = -1012,
};

struct err {
    int code;
    char text[512];
};

/* Both return `code`, so that a failing function can end with `return err_set(...)`. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Adds "context: " in front of what is there. */
int err_wrap(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The negated errno with "…: strerror". */
int err_errno(struct err *err, int saved_errno, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *err_text(const struct err *err);
