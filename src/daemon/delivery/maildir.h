/* maildir: one message into one Maildir. Blocking: runs on a worker thread.
 *
 * The file is written in tmp/, synced, linked into new/, new/ is synced; only then it counts as delivered.
 * Lines end with LF, as Maildir readers expect. Folders are made 0700 on first delivery, missing parents
 * below the configured path too. */
#pragma once
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

enum { MAILDIR_LOCAL_MAX_BYTES = 200 };

/* Puts a recipient's address into a pattern: %u the local part in lower case (without quotes), %d the domain in
 * lower case, %a both, %% a percent sign. False: such a local part or domain names no Maildir (empty, begins
 * with '.', holds '/' or NUL, too long): bounce 5.1.3; *ret_why says which, for a person. `domain` is used when the
 * address has none. */
bool maildir_path(const char *pattern, struct str address, struct str domain, struct buf *ret_path, const char **ret_why);
/* The folder that exists before any recipient is known: the pattern up to the component that holds the
 * first %, or the parent of a pattern without one. */
bool maildir_root(const char *pattern, struct buf *ret_path);

struct maildir_source {
    /* Octets of the message with CRLF line ends: their count, 0 at the end, or negative. */
    ssize_t (*read)(void *arg, void *p, size_t n, struct err *err);
    void *arg;
};
/* `header`: what goes in front (Return-Path), LF line ends. `tag` makes the file's name telling and more
 * unique: the queue id. Returns 0, or a negative code with the reason: -ENOSPC, -EDQUOT … */
int maildir_write(const char *path, const char *tag, struct str header, const struct maildir_source *source,
                  struct err *err);
