#include "io/dns_event.h"

#include <stdlib.h>
#include <sys/time.h>
#include <unbound.h>

/* An event of the library: a descriptor, a timeout, or both, in libevent's manner: it fires once, unless
 * it is persistent. Adding it again while it is added changes its timeout. */
struct dns_event {
    struct ub_event ub; /* first: the library knows only this */
    struct loop *loop;
    int fd;
    short bits;
    void (*callback)(int fd, short bits, void *arg);
    void *arg;
    struct loop_fd *watch;     /* NULL: not added, or no descriptor */
    struct loop_timer *timer;  /* made at first use, kept */
    int64_t timeout_ms;
};

static struct dns_event *event_of(struct ub_event *ub)
{
    return (struct dns_event *)(void *)ub;
}

static int64_t timeout_ms_of(const struct timeval *tv)
{
    return (int64_t)tv->tv_sec * 1000 + (tv->tv_usec + 999) / 1000;
}

static int event_del(struct ub_event *ub)
{
    struct dns_event *event = event_of(ub);
    loop_fd_free(&event->watch);
    if (event->timer)
        loop_timer_stop(event->timer);
    return 0;
}

/* The callback may free the event: nothing of it is touched afterwards. */
static void event_fire(struct dns_event *event, short bits)
{
    if (!(event->bits & UB_EV_PERSIST))
        event_del(&event->ub);
    else if (event->bits & UB_EV_TIMEOUT && event->timer)
        loop_timer_set(event->timer, event->timeout_ms);
    event->callback(event->fd, bits, event->arg);
}

static void event_ready(void *arg, unsigned events)
{
    struct dns_event *event = arg;
    event_fire(event, (short)((events & LOOP_READ ? UB_EV_READ : 0) | (events & LOOP_WRITE ? UB_EV_WRITE : 0)));
}

static void event_expired(void *arg)
{
    event_fire(arg, UB_EV_TIMEOUT);
}

static int event_start_timer(struct dns_event *event, const struct timeval *tv)
{
    if (!event->timer && loop_timer_new(event->loop, event_expired, event, &event->timer, NULL) < 0)
        return -1;
    event->timeout_ms = timeout_ms_of(tv);
    loop_timer_set(event->timer, event->timeout_ms);
    return 0;
}

static int event_add(struct ub_event *ub, struct timeval *tv)
{
    struct dns_event *event = event_of(ub);
    unsigned want = (event->bits & UB_EV_READ ? LOOP_READ : 0) | (event->bits & UB_EV_WRITE ? LOOP_WRITE : 0);
    if (want && event->fd >= 0) {
        if (!event->watch && loop_fd_new(event->loop, event->fd, event_ready, event, &event->watch, NULL) < 0)
            return -1;
        loop_fd_want(event->watch, want);
    }
    return tv && event->bits & UB_EV_TIMEOUT ? event_start_timer(event, tv) : 0;
}

static void event_add_bits(struct ub_event *ub, short bits)
{
    event_of(ub)->bits |= bits;
}

static void event_del_bits(struct ub_event *ub, short bits)
{
    event_of(ub)->bits = (short)(event_of(ub)->bits & ~bits);
}

static void event_set_fd(struct ub_event *ub, int fd)
{
    event_of(ub)->fd = fd;
}

static void event_free(struct ub_event *ub)
{
    struct dns_event *event = event_of(ub);
    loop_fd_free(&event->watch);
    loop_timer_free(&event->timer);
    free(event);
}

static int event_add_timer(struct ub_event *ub, struct ub_event_base *base, void (*callback)(int, short, void *),
                           void *arg, struct timeval *tv)
{
    struct dns_event *event = event_of(ub);
    event->callback = callback;
    event->arg = arg;
    event->fd = -1;
    event->bits |= UB_EV_TIMEOUT;
    return event_start_timer(event, tv);
}

static struct ub_event *event_new(struct ub_event_base *ub_base, int fd, short bits,
                                  void (*callback)(int, short, void *), void *arg)
{
    /* Signals are never asked for here: ub_resolve_event() uses descriptors and timers only. */
    static struct ub_event_vmt vmt = {
        .add_bits = event_add_bits, .del_bits = event_del_bits, .set_fd = event_set_fd, .free = event_free,
        .add = event_add, .del = event_del, .add_timer = event_add_timer, .del_timer = event_del,
    };
    struct dns_event *event = calloc(1, sizeof *event);
    if (!event)
        return NULL;
    *event = (struct dns_event){
        .ub = { UB_EVENT_MAGIC, &vmt }, .loop = ((struct dns_event_base *)(void *)ub_base)->loop,
        .fd = fd, .bits = bits, .callback = callback, .arg = arg,
    };
    return &event->ub;
}

void dns_event_base_init(struct dns_event_base *base, struct loop *loop)
{
    static struct ub_event_base_vmt vmt = { .new_event = event_new };
    *base = (struct dns_event_base){ .ub = { UB_EVENT_MAGIC, &vmt }, .loop = loop };
}
