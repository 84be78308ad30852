#include "io/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>

struct worker_pool {
    LIST_ENTRY(worker_pool) entry;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct worker_job *first, *last;   /* waiting */
    struct worker_job *done_first, *done_last;
    struct loop_wake *wake;
    pthread_t *thread;
    unsigned n_threads, n_waiting, n_running, queue_max;
    bool stopping;
    int (*call)(void *arg);            /* worker_on_every_thread() */
    void *call_arg;
    uint64_t call_number;
    unsigned n_called;
    int call_result;
};

static LIST_HEAD(, worker_pool) pools = LIST_HEAD_INITIALIZER(pools); /* the loop thread's */

static void append(struct worker_job **first, struct worker_job **last, struct worker_job *job)
{
    job->next = NULL;
    if (*last)
        (*last)->next = job;
    else
        *first = job;
    *last = job;
}

static struct worker_job *take_first(struct worker_job **first, struct worker_job **last)
{
    struct worker_job *job = *first;
    *first = job->next;
    if (!*first)
        *last = NULL;
    return job;
}

/* With the lock held. */
static void answer_call(struct worker_pool *pool)
{
    int rc = pool->call(pool->call_arg);
    if (rc < 0 && pool->call_result == 0)
        pool->call_result = rc;
    pool->n_called++;
    pthread_cond_broadcast(&pool->more);
}

static void *run_thread(void *arg)
{
    struct worker_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (uint64_t called = 0;;) {
        while (!pool->first && !pool->stopping && called == pool->call_number)
            pthread_cond_wait(&pool->more, &pool->lock);
        if (called != pool->call_number) {
            called = pool->call_number;
            answer_call(pool);
            continue;
        }
        if (!pool->first)
            break;
        struct worker_job *job = take_first(&pool->first, &pool->last);
        pool->n_waiting--;
        pool->n_running++;
        pthread_mutex_unlock(&pool->lock);
        job->work(job);
        pthread_mutex_lock(&pool->lock);
        pool->n_running--;
        bool first_done = !pool->done_first;
        append(&pool->done_first, &pool->done_last, job);
        if (first_done) {
            /* Not with the lock held: who wakes up would run into it and sleep again. */
            pthread_mutex_unlock(&pool->lock);
            loop_wake_send(pool->wake);
            pthread_mutex_lock(&pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void on_woken(void *arg)
{
    struct worker_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    struct worker_job *job = pool->done_first;
    pool->done_first = pool->done_last = NULL;
    pthread_mutex_unlock(&pool->lock);
    while (job) {
        struct worker_job *next = job->next;
        job->done(job);
        job = next;
    }
}

static int start_threads(struct worker_pool *pool, const char *name, unsigned threads, struct err *err)
{
    /* Signals belong to the loop's thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    for (unsigned i = 0; i < threads && rc == 0; i++) {
        rc = pthread_create(&pool->thread[i], NULL, run_thread, pool);
        if (rc == 0) {
            pthread_setname_np(pool->thread[i], name);
            pool->n_threads++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? 0 : err_errno(err, rc, "cannot start a thread for %s", name);
}

int worker_pool_new(struct loop *loop, const char *name, unsigned threads, unsigned queue_max,
                    struct worker_pool **ret_pool, struct err *err)
{
    struct worker_pool *pool = calloc(1, sizeof *pool);
    if (pool)
        pool->thread = calloc(threads, sizeof *pool->thread);
    if (!pool || !pool->thread) {
        free(pool);
        return err_set(err, -ENOMEM, "out of memory for the %s threads", name);
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pool->queue_max = queue_max;
    LIST_INSERT_HEAD(&pools, pool, entry);
    int rc = loop_wake_new(loop, on_woken, pool, &pool->wake, err);
    if (rc == 0)
        rc = start_threads(pool, name, threads, err);
    if (rc < 0) {
        worker_pool_free(&pool);
        return rc;
    }
    *ret_pool = pool;
    return 0;
}

int worker_on_every_thread(int (*call)(void *arg), void *arg)
{
    int rc = 0;
    struct worker_pool *pool;
    LIST_FOREACH(pool, &pools, entry) {
        pthread_mutex_lock(&pool->lock);
        pool->call = call;
        pool->call_arg = arg;
        pool->call_number++;
        pool->n_called = 0;
        pool->call_result = 0;
        pthread_cond_broadcast(&pool->more);
        while (pool->n_called < pool->n_threads)
            pthread_cond_wait(&pool->more, &pool->lock);
        if (rc == 0)
            rc = pool->call_result;
        pthread_mutex_unlock(&pool->lock);
    }
    return rc;
}

unsigned worker_threads(void)
{
    unsigned n = 0;
    const struct worker_pool *pool;
    LIST_FOREACH(pool, &pools, entry)
        n += pool->n_threads;
    return n;
}

unsigned worker_busy(void)
{
    unsigned n = 0;
    struct worker_pool *pool;
    LIST_FOREACH(pool, &pools, entry) {
        pthread_mutex_lock(&pool->lock);
        n += pool->n_waiting + pool->n_running;
        pthread_mutex_unlock(&pool->lock);
    }
    return n;
}

int worker_submit(struct worker_pool *pool, struct worker_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool room = pool->n_waiting < pool->queue_max && !pool->stopping;
    if (room) {
        append(&pool->first, &pool->last, job);
        pool->n_waiting++;
    }
    pthread_mutex_unlock(&pool->lock);
    if (room)
        pthread_cond_signal(&pool->more);
    return room ? 0 : ERR_BUSY;
}

unsigned worker_waiting(struct worker_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    unsigned n = pool->n_waiting;
    pthread_mutex_unlock(&pool->lock);
    return n;
}

void worker_pool_free(struct worker_pool **pool_at)
{
    struct worker_pool *pool = *pool_at;
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->thread[i], NULL);
    LIST_REMOVE(pool, entry);
    if (pool->wake)
        on_woken(pool);
    loop_wake_free(&pool->wake);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool->thread);
    free(pool);
    *pool_at = NULL;
}
