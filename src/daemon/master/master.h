/* master: the parent of all roles; see master.c. */
#pragma once

struct master_options {
    const char *config_path;
    void (*ready)(void *arg); /* every role runs; may be NULL */
    void *ready_arg;
};

/* Returns the exit status (sysexits). */
int master_main(const struct master_options *options);
