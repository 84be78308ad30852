/* The only place that decides which library turns the loop. Handles of libuv must outlive uv_close(), so
 * every object here is freed in its close callback. */
#include "io/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <uv.h>

struct loop {
    uv_loop_t uv;
    uv_async_t keep;       /* keeps uv_run() waiting when nothing else is active */
    uv_prepare_t prepare;  /* runs the turns */
    TAILQ_HEAD(, loop_turn) turns[LOOP_TURN_ORDERS];
    bool stopped, walking;
};

struct loop_fd {
    uv_poll_t uv;
    void (*ready)(void *arg, unsigned events);
    void *arg;
    unsigned wanted;
};

struct loop_timer {
    uv_timer_t uv;
    void (*expired)(void *arg);
    void *arg;
};

struct loop_wake {
    uv_async_t uv;
    void (*woken)(void *arg);
    void *arg;
};

struct loop_turn {
    struct loop *loop;
    void (*turned)(void *arg); /* NULL: freed while the turns were walked */
    void *arg;
    enum loop_turn_order order;
    TAILQ_ENTRY(loop_turn) link;
};

struct loop_signal {
    uv_signal_t uv;
    void (*caught)(void *arg);
    void *arg;
};

static void on_keep(uv_async_t *uv)
{
    (void)uv; /* it only has to exist */
}

/* A freed turn stays in its list until the walk is over, so that any turn may free any other. */
static void on_prepare(uv_prepare_t *uv)
{
    struct loop *loop = uv->data;
    struct loop_turn *turn, *next;
    loop->walking = true;
    for (int order = 0; order < LOOP_TURN_ORDERS; order++)
        TAILQ_FOREACH(turn, &loop->turns[order], link)
            if (turn->turned)
                turn->turned(turn->arg);
    loop->walking = false;
    for (int order = 0; order < LOOP_TURN_ORDERS; order++) {
        for (turn = TAILQ_FIRST(&loop->turns[order]); turn; turn = next) {
            next = TAILQ_NEXT(turn, link);
            if (turn->turned)
                continue;
            TAILQ_REMOVE(&loop->turns[order], turn, link);
            free(turn);
        }
    }
}

int loop_new(struct loop **ret_loop, struct err *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return err_set(err, -ENOMEM, "out of memory for an event loop");
    int rc = uv_loop_init(&loop->uv);
    if (rc == 0) {
        rc = uv_async_init(&loop->uv, &loop->keep, on_keep);
        if (rc != 0)
            uv_loop_close(&loop->uv);
    }
    if (rc != 0) {
        free(loop);
        return err_set(err, rc, "cannot make an event loop: %s", uv_strerror(rc));
    }
    for (int order = 0; order < LOOP_TURN_ORDERS; order++)
        TAILQ_INIT(&loop->turns[order]);
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    *ret_loop = loop;
    return 0;
}

void loop_free(struct loop **loop)
{
    if (!*loop)
        return;
    uv_close((uv_handle_t *)&(*loop)->keep, NULL);
    uv_close((uv_handle_t *)&(*loop)->prepare, NULL);
    for (int i = 0; i < 8 && uv_run(&(*loop)->uv, UV_RUN_NOWAIT) != 0; i++)
        ;
    if (uv_loop_close(&(*loop)->uv) == 0)
        free(*loop);
    *loop = NULL;
}

void loop_run(struct loop *loop)
{
    while (!loop->stopped)
        uv_run(&loop->uv, UV_RUN_ONCE);
    loop->stopped = false;
}

void loop_run_once(struct loop *loop, bool block)
{
    uv_run(&loop->uv, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
    uv_async_send(&loop->keep);
}

int64_t loop_now_ms(const struct loop *loop)
{
    return (int64_t)uv_now(&loop->uv);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void close_handle(uv_handle_t *handle, void *object)
{
    handle->data = object;
    uv_close(handle, on_closed);
}

static void on_poll(uv_poll_t *uv, int status, int events)
{
    struct loop_fd *fd = uv->data;
    unsigned ready = 0;
    /* An error shows as whatever is waited for: the read or write that follows says what it is. libuv has stopped
     * watching; not every error is the end of a descriptor (a refused datagram), so the watch goes on. */
    if (status < 0) {
        unsigned wanted = fd->wanted;
        ready = wanted;
        fd->wanted = 0;
        loop_fd_want(fd, wanted);
    }
    if (events & (UV_READABLE | UV_DISCONNECT))
        ready |= LOOP_READ;
    if (events & UV_WRITABLE)
        ready |= LOOP_WRITE;
    if (ready & fd->wanted)
        fd->ready(fd->arg, ready & fd->wanted);
}

int loop_fd_new(struct loop *loop, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                struct loop_fd **ret_fd, struct err *err)
{
    struct loop_fd *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(err, -ENOMEM, "out of memory for a watched descriptor");
    int rc = uv_poll_init(&loop->uv, &f->uv, fd);
    if (rc != 0) {
        free(f);
        return err_set(err, rc, "cannot watch descriptor %d: %s", fd, uv_strerror(rc));
    }
    f->uv.data = f;
    f->ready = ready;
    f->arg = arg;
    *ret_fd = f;
    return 0;
}

void loop_fd_want(struct loop_fd *fd, unsigned events)
{
    if (events == fd->wanted)
        return;
    fd->wanted = events;
    if (events == 0) {
        uv_poll_stop(&fd->uv);
        return;
    }
    int uv_events = (events & LOOP_READ ? UV_READABLE : 0) | (events & LOOP_WRITE ? UV_WRITABLE : 0);
    int rc = uv_poll_start(&fd->uv, uv_events, on_poll);
    assert(rc == 0); /* fails only on a handle that is being closed */
    (void)rc;
}

void loop_fd_free(struct loop_fd **fd)
{
    if (!*fd)
        return;
    uv_poll_stop(&(*fd)->uv);
    close_handle((uv_handle_t *)&(*fd)->uv, *fd);
    *fd = NULL;
}

static void on_timer(uv_timer_t *uv)
{
    struct loop_timer *timer = uv->data;
    timer->expired(timer->arg);
}

int loop_timer_new(struct loop *loop, void (*expired)(void *arg), void *arg, struct loop_timer **ret_timer,
                   struct err *err)
{
    struct loop_timer *timer = calloc(1, sizeof *timer);
    if (!timer)
        return err_set(err, -ENOMEM, "out of memory for a timer");
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    timer->expired = expired;
    timer->arg = arg;
    *ret_timer = timer;
    return 0;
}

void loop_timer_set(struct loop_timer *timer, int64_t after_ms)
{
    uv_timer_start(&timer->uv, on_timer, after_ms > 0 ? (uint64_t)after_ms : 0, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

void loop_timer_free(struct loop_timer **timer)
{
    if (!*timer)
        return;
    uv_timer_stop(&(*timer)->uv);
    close_handle((uv_handle_t *)&(*timer)->uv, *timer);
    *timer = NULL;
}

static void on_wake(uv_async_t *uv)
{
    struct loop_wake *wake = uv->data;
    wake->woken(wake->arg);
}

int loop_wake_new(struct loop *loop, void (*woken)(void *arg), void *arg, struct loop_wake **ret_wake,
                  struct err *err)
{
    struct loop_wake *wake = calloc(1, sizeof *wake);
    if (!wake)
        return err_set(err, -ENOMEM, "out of memory for a wake-up");
    int rc = uv_async_init(&loop->uv, &wake->uv, on_wake);
    if (rc != 0) {
        free(wake);
        return err_set(err, rc, "cannot make a wake-up: %s", uv_strerror(rc));
    }
    wake->uv.data = wake;
    wake->woken = woken;
    wake->arg = arg;
    *ret_wake = wake;
    return 0;
}

void loop_wake_send(struct loop_wake *wake)
{
    uv_async_send(&wake->uv);
}

void loop_wake_free(struct loop_wake **wake)
{
    if (!*wake)
        return;
    close_handle((uv_handle_t *)&(*wake)->uv, *wake);
    *wake = NULL;
}

int loop_turn_new(struct loop *loop, enum loop_turn_order order, void (*turned)(void *arg), void *arg,
                  struct loop_turn **ret_turn, struct err *err)
{
    struct loop_turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        return err_set(err, -ENOMEM, "out of memory for a turn's end");
    *turn = (struct loop_turn){ .loop = loop, .turned = turned, .arg = arg, .order = order };
    TAILQ_INSERT_TAIL(&loop->turns[order], turn, link);
    *ret_turn = turn;
    return 0;
}

void loop_turn_free(struct loop_turn **turn_at)
{
    struct loop_turn *turn = *turn_at;
    if (!turn)
        return;
    *turn_at = NULL;
    if (turn->loop->walking) {
        turn->turned = NULL;
        return;
    }
    TAILQ_REMOVE(&turn->loop->turns[turn->order], turn, link);
    free(turn);
}

static void on_signal(uv_signal_t *uv, int signum)
{
    (void)signum; /* one handle a signal */
    struct loop_signal *signal = uv->data;
    signal->caught(signal->arg);
}

int loop_signal_new(struct loop *loop, int signum, void (*caught)(void *arg), void *arg,
                    struct loop_signal **ret_signal, struct err *err)
{
    struct loop_signal *signal = calloc(1, sizeof *signal);
    if (!signal)
        return err_set(err, -ENOMEM, "out of memory for a signal");
    uv_signal_init(&loop->uv, &signal->uv);
    signal->uv.data = signal;
    signal->caught = caught;
    signal->arg = arg;
    int rc = uv_signal_start(&signal->uv, on_signal, signum);
    if (rc != 0) {
        close_handle((uv_handle_t *)&signal->uv, signal);
        return err_set(err, rc, "cannot catch signal %d: %s", signum, uv_strerror(rc));
    }
    *ret_signal = signal;
    return 0;
}

void loop_signal_free(struct loop_signal **signal)
{
    if (!*signal)
        return;
    uv_signal_stop(&(*signal)->uv);
    close_handle((uv_handle_t *)&(*signal)->uv, *signal);
    *signal = NULL;
}
