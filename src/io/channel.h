/* channel: typed messages and descriptors between two roles, over one SOCK_SEQPACKET pair.
 *
 * Messages are gathered during a turn of the loop and sent together at its end, many in one packet; a
 * packet is at most CHANNEL_PACKET_MAX octets. What the kernel does not take waits in a queue of ours.
 * A malformed packet, or the other end going away, closes this one channel with a reason: nothing that
 * the other side sends reaches abort. A message carries a type (see daemon/ipc.h), an id that its sender
 * chose (an answer repeats it) and a body. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "io/loop.h"

enum {
    CHANNEL_BODY_MAX = 80 * 1024,    /* a SASL token of 64 KiB and what belongs to it */
    CHANNEL_PACKET_MAX = 96 * 1024,
    CHANNEL_FDS_MAX = 8,             /* with one message */
};

struct channel;

/* The message's descriptors. Who takes one sets its place to -1; the rest are closed after the call. */
struct channel_fds {
    int fd[CHANNEL_FDS_MAX];
    size_t n;
};
int channel_take_fd(struct channel_fds *fds, size_t i);

struct channel_handlers {
    void (*message)(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds);
    /* The channel can do no more: free it (here, if you like). */
    void (*closed)(void *arg, const struct err *why);
    /* Optional: the backlog has fallen below half of backlog_max after it was over it. */
    void (*drained)(void *arg);
};

/* Takes `fd` in every case. `handlers` must live as long as the channel. */
int channel_open(struct loop *loop, int fd, const struct channel_handlers *handlers, void *arg,
                 struct channel **ret_channel, struct err *err);
void channel_free(struct channel **channel);
/* Whom the handlers get from now on. */
void channel_set_arg(struct channel *channel, void *arg);
/* Queues a message. Descriptors are taken (closed when sent, or at once on failure).
 * Fails only when the body is too long, memory is out or the channel is closed. */
int channel_send(struct channel *channel, unsigned type, uint32_t id, struct str body);
int channel_send_fds(struct channel *channel, unsigned type, uint32_t id, struct str body, const int *fds, size_t n);
/* Octets that wait; over CHANNEL_BACKLOG_MAX a sender stops reading its own source until `drained`. */
enum { CHANNEL_BACKLOG_MAX = 1024 * 1024 };
size_t channel_backlog_bytes(const struct channel *channel);
/* Now instead of at the end of the turn. */
void channel_flush(struct channel *channel);

/* A connected pair, close-on-exec and non-blocking. */
int channel_pair(int ret_fds[2], struct err *err);

/* Blocking use, before a role's loop runs: waits for one packet's next message. The body is valid until
 * the next call. Returns 0, or negative when the other side is gone or spoke nonsense. */
struct channel_reader;
int channel_reader_new(int fd, struct channel_reader **ret_reader);
int channel_reader_next(struct channel_reader *reader, unsigned *ret_type, uint32_t *ret_id, struct str *ret_body,
                        struct channel_fds *ret_fds, struct err *err);
/* More messages of the packet that the last one was in. */
bool channel_reader_has_more(const struct channel_reader *reader);
void channel_reader_free(struct channel_reader **reader);
