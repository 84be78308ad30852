/* sandbox: what a process gives up before it reads a byte from outside.
 *
 * Fill a struct sandbox, then sandbox_drop() and sandbox_filter() once: user and groups, empty root, Landlock, seccomp, in
 * the order that works. Started as an ordinary user, root and user change are left out and the text in
 * ret_missing says so. Seccomp answers EPERM for what the role may not do and kills the process for what
 * only an intruder would call. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

enum { SANDBOX_PATHS_MAX = 64 };
enum sandbox_right { SANDBOX_PATH_READ, SANDBOX_PATH_WRITE /* create, write, rename, remove below it */ };

struct sandbox {
    const char *user;      /* system user to become when started as root; NULL: stay */
    bool empty_root;       /* chroot into an empty folder (only when root) */
    bool may_open;         /* open files by name (within the paths below) */
    bool may_connect;      /* socket(), connect(), bind() */
    struct {
        const char *path;
        enum sandbox_right right;
    } path[SANDBOX_PATHS_MAX];
    size_t n_paths;
};

/* The path is copied. One that does not exist is left out silently (a folder
 * may appear later under a listed parent). */
void sandbox_allow(struct sandbox *sandbox, enum sandbox_right right, const char *path);
/* Gives the copies of the paths back. */
void sandbox_done(struct sandbox *sandbox);
/* First half: user, root folder, Landlock. No return from here. The kernel holds threads one by one: worker threads
 * (io/worker.h) that are there already are held too, and all that are made after it; a library's own threads are not,
 * unless they are made after it. ret_missing (may be NULL): one line that says what this kernel or user lacks. */
int sandbox_drop(const struct sandbox *sandbox, char *ret_missing, size_t missing_bytes, struct err *err);
/* Second half: the system call filter, for all threads. No thread can be made after it. */
int sandbox_filter(const struct sandbox *sandbox, struct err *err);
/* First thing in main of a process that handles secrets: no core, no tracing by the same user. */
void sandbox_not_dumpable(void);
