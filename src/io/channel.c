/* A packet holds one or more messages: u32 body length, u16 type, u16 descriptors, u32 id, body.
 *
 * Happy path: channel_send() adds to the last packet of the queue; the end of the turn sends the queue;
 * the other side reads packets and calls `message` for each message in them.
 * Ways to fail: the kernel's buffer is full (the queue waits for LOOP_WRITE); the other side closed or
 * sent a packet that is not what the format says (`closed`, once); memory is out while queueing (closed
 * as well: a lost message would be worse). */
#include "io/channel.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/wire.h"

enum {
    MESSAGE_HEADER_BYTES = 12,
    PACKET_FDS_MAX = 64,
    PACKETS_PER_TURN = 32,
    PACKET_TARGET_BYTES = 32 * 1024, /* begin a new packet rather than grow one beyond this */
};

struct packet {
    struct packet *next;
    struct buf data;
    int fd[PACKET_FDS_MAX];
    size_t n_fds;
};

struct channel {
    struct loop *loop;
    struct loop_fd *watch;
    struct loop_turn *turn;
    const struct channel_handlers *handlers;
    void *arg;
    struct packet *first, *last;
    size_t backlog_bytes;
    struct packet *spare;       /* one kept for the next message */
    struct buf in;
    int fd;
    bool dispatching, freed, broken, was_over;
};

int channel_take_fd(struct channel_fds *fds, size_t i)
{
    if (i >= fds->n)
        return -1;
    int fd = fds->fd[i];
    fds->fd[i] = -1;
    return fd;
}

static void close_fds(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int channel_pair(int ret_fds[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0)
        return err_errno(err, errno, "cannot make a channel between roles");
    return 0;
}

/* Reads one packet and its descriptors into `in`. Returns its length, 0 at the end, or a negative code. */
static ssize_t receive_packet(int fd, struct buf *in, int *ret_fds, size_t *ret_n_fds, int flags, struct err *err)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
        struct cmsghdr align;
    } control;
    buf_clear(in);
    char *to = buf_reserve(in, CHANNEL_PACKET_MAX);
    *ret_n_fds = 0;
    if (!to)
        return err_set(err, -ENOMEM, "out of memory for a channel packet");
    struct iovec iov = { to, CHANNEL_PACKET_MAX };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };
    ssize_t n;
    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? -EAGAIN : err_errno(err, errno, "cannot read a channel");

    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && *ret_n_fds < PACKET_FDS_MAX; i++)
            memcpy(&ret_fds[(*ret_n_fds)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        close_fds(ret_fds, *ret_n_fds);
        *ret_n_fds = 0;
        return err_set(err, ERR_SYNTAX, "a channel packet is longer than %d octets", CHANNEL_PACKET_MAX);
    }
    in->n = (size_t)n;
    return n;
}

/* Takes the next message off `packet`; its descriptors come from packet_fds. */
static bool next_message(struct wire *packet, const int *packet_fds, size_t n_packet_fds, size_t *used_fds,
                         unsigned *ret_type, uint32_t *ret_id, struct str *ret_body, struct channel_fds *ret_fds)
{
    uint32_t body_bytes = wire_get_u32(packet);
    *ret_type = wire_get_u16(packet);
    uint16_t n_fds = wire_get_u16(packet);
    *ret_id = wire_get_u32(packet);
    if (packet->bad || body_bytes > CHANNEL_BODY_MAX || body_bytes > packet->rest.n || n_fds > CHANNEL_FDS_MAX ||
        n_fds > n_packet_fds - *used_fds)
        return false;
    *ret_body = str_slice(packet->rest.p, body_bytes);
    packet->rest = str_skip(packet->rest, body_bytes);
    ret_fds->n = n_fds;
    for (size_t i = 0; i < n_fds; i++)
        ret_fds->fd[i] = packet_fds[(*used_fds)++];
    return true;
}

static void destroy(struct channel *ch)
{
    for (struct packet *p = ch->first, *next; p; p = next) {
        next = p->next;
        close_fds(p->fd, p->n_fds);
        buf_wipe(&p->data);
        free(p);
    }
    if (ch->spare) {
        buf_wipe(&ch->spare->data);
        free(ch->spare);
    }
    buf_wipe(&ch->in);
    free(ch);
}

static void break_channel(struct channel *ch, const struct err *why)
{
    if (ch->broken || ch->freed)
        return;
    ch->broken = true;
    loop_fd_want(ch->watch, 0);
    bool nested = ch->dispatching;
    ch->dispatching = true;
    ch->handlers->closed(ch->arg, why);
    ch->dispatching = nested;
    if (ch->freed && !nested)
        destroy(ch);
}

static void dispatch_packet(struct channel *ch, const int *fds, size_t n_fds)
{
    struct wire packet = wire_of(buf_str(&ch->in));
    size_t used_fds = 0;
    while (packet.rest.n && !ch->freed && !ch->broken) {
        unsigned type;
        uint32_t id;
        struct str body;
        struct channel_fds taken;
        if (!next_message(&packet, fds, n_fds, &used_fds, &type, &id, &body, &taken)) {
            struct err err;
            err_set(&err, ERR_SYNTAX, "the other side sent a malformed message");
            break_channel(ch, &err);
            break;
        }
        ch->handlers->message(ch->arg, type, id, body, &taken);
        close_fds(taken.fd, taken.n);
    }
    close_fds(fds + used_fds, n_fds - used_fds);
}

static void read_packets(struct channel *ch)
{
    for (int i = 0; i < PACKETS_PER_TURN && !ch->freed && !ch->broken; i++) {
        int fds[PACKET_FDS_MAX];
        size_t n_fds;
        struct err err;
        ssize_t n = receive_packet(ch->fd, &ch->in, fds, &n_fds, MSG_DONTWAIT, &err);
        if (n == -EAGAIN)
            return;
        if (n == 0)
            err_set(&err, ERR_CLOSED, "the other side closed the channel");
        if (n <= 0) {
            break_channel(ch, &err);
            return;
        }
        dispatch_packet(ch, fds, n_fds);
        explicit_bzero(ch->in.p, (size_t)n);
    }
}

static ssize_t send_packet(int fd, const struct packet *p)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * PACKET_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov = { p->data.p, p->data.n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (p->n_fds) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * p->n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * p->n_fds);
        memcpy(CMSG_DATA(c), p->fd, sizeof(int) * p->n_fds);
    }
    ssize_t n;
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void release_packet(struct channel *ch, struct packet *p)
{
    close_fds(p->fd, p->n_fds);
    p->n_fds = 0;
    p->next = NULL;
    if (p->data.n)
        explicit_bzero(p->data.p, p->data.n); /* AUTH passes through here */
    buf_clear(&p->data);
    if (ch->spare) {
        buf_done(&p->data);
        free(p);
    } else {
        ch->spare = p;
    }
}

/* Sends what the kernel takes; leaves the rest for LOOP_WRITE. */
static void send_queue(struct channel *ch)
{
    while (ch->first && !ch->broken) {
        struct packet *p = ch->first;
        /* Memory was out for what should have been in it; an empty packet would be the end to its reader. */
        ssize_t n = p->data.n ? send_packet(ch->fd, p) : 0;
        if (n == -EAGAIN || n == -ENOBUFS || n == -ETOOMANYREFS)
            break;
        if (n < 0) {
            struct err err;
            err_errno(&err, (int)-n, "cannot write to a channel");
            break_channel(ch, &err);
            return;
        }
        ch->backlog_bytes -= p->data.n;
        ch->first = p->next;
        if (!ch->first)
            ch->last = NULL;
        release_packet(ch, p);
    }
    if (ch->broken)
        return;
    loop_fd_want(ch->watch, LOOP_READ | (ch->first ? LOOP_WRITE : 0u));
    if (ch->was_over && ch->backlog_bytes < CHANNEL_BACKLOG_MAX / 2) {
        ch->was_over = false;
        if (ch->handlers->drained)
            ch->handlers->drained(ch->arg);
    }
}

static void on_ready(void *arg, unsigned events)
{
    struct channel *ch = arg;
    ch->dispatching = true;
    if (events & LOOP_WRITE)
        send_queue(ch);
    if ((events & LOOP_READ) && !ch->freed && !ch->broken)
        read_packets(ch);
    ch->dispatching = false;
    if (ch->freed)
        destroy(ch);
}

static void on_turn(void *arg)
{
    struct channel *ch = arg;
    if (!ch->first || ch->broken)
        return;
    ch->dispatching = true;
    send_queue(ch);
    ch->dispatching = false;
    if (ch->freed)
        destroy(ch);
}

void channel_set_arg(struct channel *ch, void *arg)
{
    ch->arg = arg;
}

int channel_open(struct loop *loop, int fd, const struct channel_handlers *handlers, void *arg,
                 struct channel **ret_channel, struct err *err)
{
    struct channel *ch = calloc(1, sizeof *ch);
    int rc = ch ? 0 : err_set(err, -ENOMEM, "out of memory for a channel");
    if (rc == 0) {
        *ch = (struct channel){ .loop = loop, .handlers = handlers, .arg = arg, .fd = fd };
        buf_init(&ch->in, CHANNEL_PACKET_MAX);
        rc = loop_fd_new(loop, fd, on_ready, ch, &ch->watch, err);
    }
    if (rc == 0)
        rc = loop_turn_new(loop, LOOP_TURN_WRITE, on_turn, ch, &ch->turn, err);
    if (rc < 0) {
        if (ch)
            loop_fd_free(&ch->watch);
        free(ch);
        close(fd);
        return rc;
    }
    loop_fd_want(ch->watch, LOOP_READ);
    *ret_channel = ch;
    return 0;
}

void channel_free(struct channel **channel)
{
    struct channel *ch = *channel;
    if (!ch)
        return;
    *channel = NULL;
    assert(!ch->freed);
    /* A last try for what was queued; nobody is called back any more. */
    for (const struct packet *p = ch->broken ? NULL : ch->first; p && send_packet(ch->fd, p) >= 0;)
        p = p->next;
    ch->freed = true;
    loop_turn_free(&ch->turn);
    loop_fd_free(&ch->watch);
    close(ch->fd);
    if (!ch->dispatching)
        destroy(ch);
}

static struct packet *packet_with_room(struct channel *ch, size_t bytes, size_t n_fds)
{
    struct packet *p = ch->last;
    if (p && p->n_fds + n_fds <= PACKET_FDS_MAX &&
        (p->data.n + bytes <= PACKET_TARGET_BYTES || p->data.n == 0))
        return p;
    p = ch->spare;
    ch->spare = NULL;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        buf_init(&p->data, CHANNEL_PACKET_MAX);
    }
    if (ch->last)
        ch->last->next = p;
    else
        ch->first = p;
    ch->last = p;
    return p;
}

int channel_send_fds(struct channel *ch, unsigned type, uint32_t id, struct str body, const int *fds, size_t n)
{
    assert(n <= CHANNEL_FDS_MAX && type <= UINT16_MAX);
    struct packet *p = NULL;
    if (!ch->broken && body.n <= CHANNEL_BODY_MAX)
        p = packet_with_room(ch, MESSAGE_HEADER_BYTES + body.n, n);
    if (!p || !buf_reserve(&p->data, MESSAGE_HEADER_BYTES + body.n)) {
        close_fds(fds, n);
        return ch->broken ? ERR_CLOSED : body.n > CHANNEL_BODY_MAX ? ERR_LIMIT : -ENOMEM;
    }
    wire_put_u32(&p->data, (uint32_t)body.n);
    wire_put_u16(&p->data, (uint16_t)type);
    wire_put_u16(&p->data, (uint16_t)n);
    wire_put_u32(&p->data, id);
    buf_add(&p->data, body);
    for (size_t i = 0; i < n; i++)
        p->fd[p->n_fds++] = fds[i];
    ch->backlog_bytes += MESSAGE_HEADER_BYTES + body.n;
    if (ch->backlog_bytes > CHANNEL_BACKLOG_MAX)
        ch->was_over = true;
    return 0;
}

int channel_send(struct channel *ch, unsigned type, uint32_t id, struct str body)
{
    return channel_send_fds(ch, type, id, body, NULL, 0);
}

size_t channel_backlog_bytes(const struct channel *ch)
{
    return ch->backlog_bytes;
}

void channel_flush(struct channel *ch)
{
    bool nested = ch->dispatching;
    ch->dispatching = true;
    if (ch->first && !ch->broken)
        send_queue(ch);
    ch->dispatching = nested;
    if (ch->freed && !nested)
        destroy(ch);
}

struct channel_reader {
    struct buf in;
    struct wire packet;
    int packet_fd[PACKET_FDS_MAX];
    size_t n_packet_fds, used_fds;
    int fd;
};

int channel_reader_new(int fd, struct channel_reader **ret_reader)
{
    struct channel_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return -ENOMEM;
    buf_init(&reader->in, CHANNEL_PACKET_MAX);
    reader->fd = fd;
    *ret_reader = reader;
    return 0;
}

int channel_reader_next(struct channel_reader *reader, unsigned *ret_type, uint32_t *ret_id, struct str *ret_body,
                        struct channel_fds *ret_fds, struct err *err)
{
    if (reader->packet.rest.n == 0) {
        int flags = fcntl(reader->fd, F_GETFL);
        if (flags >= 0 && (flags & O_NONBLOCK))
            fcntl(reader->fd, F_SETFL, flags & ~O_NONBLOCK);
        close_fds(reader->packet_fd + reader->used_fds, reader->n_packet_fds - reader->used_fds);
        reader->used_fds = 0;
        ssize_t n = receive_packet(reader->fd, &reader->in, reader->packet_fd, &reader->n_packet_fds, 0, err);
        if (n == 0)
            return err_set(err, ERR_CLOSED, "the other side closed the channel");
        if (n < 0)
            return (int)n;
        reader->packet = wire_of(buf_str(&reader->in));
    }
    if (!next_message(&reader->packet, reader->packet_fd, reader->n_packet_fds, &reader->used_fds, ret_type, ret_id,
                      ret_body, ret_fds))
        return err_set(err, ERR_SYNTAX, "the other side sent a malformed message");
    return 0;
}

bool channel_reader_has_more(const struct channel_reader *reader)
{
    return reader->packet.rest.n > 0;
}

void channel_reader_free(struct channel_reader **reader)
{
    if (!*reader)
        return;
    int flags = fcntl((*reader)->fd, F_GETFL);
    if (flags >= 0)
        fcntl((*reader)->fd, F_SETFL, flags | O_NONBLOCK);
    close_fds((*reader)->packet_fd + (*reader)->used_fds, (*reader)->n_packet_fds - (*reader)->used_fds);
    buf_done(&(*reader)->in);
    free(*reader);
    *reader = NULL;
}
