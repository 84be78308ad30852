/* loop: the event loop of a process. Only src/io/ knows which library turns it (libuv).
 *
 * One loop, one thread: nothing here may be called from another thread except loop_wake_send().
 * A callback may free its own object and any other; memory goes back after the turn. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct loop_fd;
struct loop_timer;
struct loop_wake;
struct loop_turn;

int loop_new(struct loop **ret_loop, struct err *err);
/* Everything made on it must have been freed before. */
void loop_free(struct loop **loop);
/* Turns until loop_stop() was called. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* One turn: waits at most for one event when `block`. For tests. */
void loop_run_once(struct loop *loop, bool block);
/* Monotonic milliseconds, read once a turn. */
int64_t loop_now_ms(const struct loop *loop);

/* A descriptor that is watched; the descriptor stays the caller's, who closes it after loop_fd_free(). */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
int loop_fd_new(struct loop *loop, int fd, void (*ready)(void *arg, unsigned events), void *arg,
                struct loop_fd **ret_fd, struct err *err);
/* What to wait for from now on: LOOP_READ | LOOP_WRITE, 0 = nothing. Cheap when unchanged. */
void loop_fd_want(struct loop_fd *fd, unsigned events);
void loop_fd_free(struct loop_fd **fd);

/* One shot; set again from its own callback for a period. Setting a set timer moves it. */
int loop_timer_new(struct loop *loop, void (*expired)(void *arg), void *arg, struct loop_timer **ret_timer,
                   struct err *err);
void loop_timer_set(struct loop_timer *timer, int64_t after_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_free(struct loop_timer **timer);

/* Wakes the loop from any thread; several sends may become one call. */
int loop_wake_new(struct loop *loop, void (*woken)(void *arg), void *arg, struct loop_wake **ret_wake,
                  struct err *err);
void loop_wake_send(struct loop_wake *wake);
void loop_wake_free(struct loop_wake **wake);

/* Called at the end of every turn, before the loop sleeps: first those that work on what a turn gathered, then logs,
 * then channels: what the first ones send leaves in the same turn, and a line is out before another process can go on
 * from what it tells. */
enum loop_turn_order { LOOP_TURN_WORK, LOOP_TURN_LOG, LOOP_TURN_WRITE, LOOP_TURN_ORDERS };
int loop_turn_new(struct loop *loop, enum loop_turn_order order, void (*turned)(void *arg), void *arg,
                  struct loop_turn **ret_turn, struct err *err);
void loop_turn_free(struct loop_turn **turn);

/* A signal as an event (master, tools). */
struct loop_signal;
int loop_signal_new(struct loop *loop, int signum, void (*caught)(void *arg), void *arg,
                    struct loop_signal **ret_signal, struct err *err);
void loop_signal_free(struct loop_signal **signal);
