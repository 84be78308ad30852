/* worker: threads that do what may block, and report back to the loop.
 *
 * A pool has its own threads and its own bounded queue: no kind of waiting blocks another (see the
 * budget in ARCHITECTURE.md). Threads are made by worker_pool_new(), before any sandbox closes. */
#pragma once
#include "io/loop.h"

struct worker_pool;

struct worker_job {
    void (*work)(struct worker_job *job); /* on a thread */
    void (*done)(struct worker_job *job); /* back on the loop; may free the job */
    struct worker_job *next;              /* the pool's */
};

int worker_pool_new(struct loop *loop, const char *name, unsigned threads, unsigned queue_max,
                    struct worker_pool **ret_pool, struct err *err);
/* Takes the job (embedded in the caller's own structure) or returns ERR_BUSY when queue_max wait. */
int worker_submit(struct worker_pool *pool, struct worker_job *job);
/* Runs `call` once on each thread of every pool of this process and waits for all of them; for what a thread must do
 * itself, like giving up rights. 0, or the first negative code that a call returned. Jobs that run are waited for. */
int worker_on_every_thread(int (*call)(void *arg), void *arg);
/* Threads of all pools. */
unsigned worker_threads(void);
/* Jobs of all pools that wait or run. */
unsigned worker_busy(void);
unsigned worker_waiting(struct worker_pool *pool);
/* Waits for running jobs; queued ones are called back without work having run only if `done` tolerates
 * it: the pool is freed at the end of a process. */
void worker_pool_free(struct worker_pool **pool);
