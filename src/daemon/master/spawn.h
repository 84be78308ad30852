/* spawn: the processes of the daemon: starts each, connects it with those it talks to, gives it snapshots, and
 * starts it again when it dies (at once the first time, then after 0.25 s, 0.5 s … 30 s) or hangs (master/watch.h).
 * A delivery process may ask for a successor: then it finishes what it has beside it, and ends. */
#pragma once
#include "daemon/ipc.h"
#include "daemon/master/snapshot.h"
#include "io/log.h"
#include "io/loop.h"

struct spawn;

struct spawn_options {
    struct loop *loop;
    struct log *log;
    int spool_lock_fd, shared_fd;    /* inherited or sent; stay the caller's */
    int control_fd;
    int64_t watch_every_ms;          /* how often processes are asked whether they are alive */
    /* Every process runs the snapshot of this generation. */
    void (*all_ready)(void *arg, uint64_t generation);
    /* The queue asks for a reload; answer with spawn_reloaded(). */
    void (*reload_wanted)(void *arg, uint32_t id);
    /* A process ended during start-up: the daemon cannot run. */
    void (*start_failed)(void *arg, enum role_id role, int exit_status);
    /* The last process has ended while draining. */
    void (*all_ended)(void *arg);
    void *arg;
};

int spawn_new(const struct spawn_options *options, struct spawn **ret_spawn, struct err *err);
void spawn_free(struct spawn **spawn);
/* Starts everything with this snapshot (kept by the caller). */
int spawn_start(struct spawn *spawn, const struct snapshot *snapshot, struct err *err);
/* Hands a new snapshot to every process; all_ready follows. */
void spawn_reload(struct spawn *spawn, const struct snapshot *snapshot);
/* One file of the snapshot has new contents: hands it to the processes that it is for. */
void spawn_send_file(struct spawn *spawn, const struct snapshot_file *file);
/* Tells every process that the log's destination was opened anew. */
void spawn_log_fds(struct spawn *spawn, const char *to);
void spawn_reloaded(struct spawn *spawn, uint32_t id, enum ipc_reload_result result, struct str text);
/* A child has ended (SIGCHLD). */
void spawn_reap(struct spawn *spawn);
void spawn_drain(struct spawn *spawn);
void spawn_kill(struct spawn *spawn);
