/* A server that takes every message and keeps nothing, for measuring what a relay can do. SIGUSR1 prints the counts
 * so far as one JSON line, SIGINT and SIGTERM print them and end it. "last_s" is the monotonic clock at the last
 * message's end, the same clock as a script's on this machine. */
#include "cli/bench/bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/queue.h>
#include <unistd.h>

#include "io/now.h"
#include "smtp/server.h"

enum { BACKLOG = 4096, ACCEPTS_PER_TURN = 64 };

struct client {
    LIST_ENTRY(client) all;
    struct sink *sink;
    struct smtp_server *machine;
    struct loop_fd *watch;
    int fd;
    bool closing;
};

struct sink {
    struct loop *loop;
    struct loop_fd *listener;
    struct loop_signal *interrupt, *terminate, *tell;
    LIST_HEAD(, client) clients;
    int fd;
    uint64_t connections, messages, octets, refused;
    int64_t first_us, last_us;
    char *scratch;
};

static const struct smtp_server_limits no_limits = {
    .line_max_bytes = 4096, .auth_line_max_bytes = 4096, .text_line_max_bytes = 1024 * 1024,
};

static void client_free(struct client *c)
{
    LIST_REMOVE(c, all);
    loop_fd_free(&c->watch);
    smtp_server_free(c->machine);
    close(c->fd);
    free(c);
}

/* False: the connection is gone. */
static bool client_write(struct client *c)
{
    struct buf *out = smtp_server_output(c->machine);
    while (out->n > 0) {
        ssize_t n = send(c->fd, out->p, out->n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            loop_fd_want(c->watch, LOOP_WRITE);
            return true;
        }
        if (n < 0)
            return false;
        buf_consume(out, (size_t)n);
    }
    loop_fd_want(c->watch, LOOP_READ);
    return !c->closing;
}

static void take_message(struct client *c)
{
    struct sink *sink = c->sink;
    sink->last_us = now_mono_us();
    if (sink->messages++ == 0)
        sink->first_us = sink->last_us;
    smtp_server_committed(c->machine, STR("SINK"));
}

/* Returns true while the machine has more to say. */
static bool handle(struct client *c, const struct smtp_server_event *event)
{
    switch (event->type) {
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT:
    case SMTP_SERVER_DATA: smtp_server_accept(c->machine); return true;
    case SMTP_SERVER_BODY: c->sink->octets += event->data.n; return true;
    case SMTP_SERVER_COMMIT: take_message(c); return true;
    case SMTP_SERVER_STARTTLS:
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE: smtp_server_reject(c->machine, 454, "4.7.0", "Not here"); return true;
    case SMTP_SERVER_CLOSE: c->closing = true; return false;
    case SMTP_SERVER_READ:
    case SMTP_SERVER_WAIT: return false;
    default: return true;
    }
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    struct str in = STR_NONE;
    if (events & LOOP_READ) {
        ssize_t n = recv(c->fd, c->sink->scratch, BENCH_SCRATCH_BYTES, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            client_free(c);
            return;
        }
        in = str_slice(c->sink->scratch, (size_t)n);
    }
    struct smtp_server_event event;
    do {
        size_t used;
        smtp_server_feed(c->machine, in, loop_now_ms(c->sink->loop), &used, &event);
        in = str_skip(in, used);
    } while (handle(c, &event) || (in.n > 0 && !c->closing));
    if (!client_write(c))
        client_free(c);
}

static bool client_begin(struct sink *sink, int fd)
{
    static const struct smtp_server_options options = { .hostname = { "sink.bench.test", 15 }, .limits = &no_limits };
    struct err err;
    int one = 1;
    struct client *c = calloc(1, sizeof *c);
    if (!c || smtp_server_new(&options, &c->machine) < 0) {
        free(c);
        return false;
    }
    if (loop_fd_new(sink->loop, fd, on_client, c, &c->watch, &err) < 0) {
        smtp_server_free(c->machine);
        free(c);
        return false;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->sink = sink;
    c->fd = fd;
    LIST_INSERT_HEAD(&sink->clients, c, all);
    sink->connections++;
    smtp_server_greet(c->machine, loop_now_ms(sink->loop));
    if (!client_write(c))
        client_free(c);
    return true;
}

static void on_accept(void *arg, unsigned events)
{
    (void)events;
    struct sink *sink = arg;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(sink->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (!client_begin(sink, fd)) {
            sink->refused++;
            close(fd);
        }
    }
}

static void on_tell(void *arg)
{
    const struct sink *s = arg;
    printf("{\"connections\": %llu, \"messages\": %llu, \"octets\": %llu, \"refused\": %llu, \"first_s\": %.6f, "
           "\"last_s\": %.6f}\n",
           (unsigned long long)s->connections, (unsigned long long)s->messages, (unsigned long long)s->octets,
           (unsigned long long)s->refused, (double)s->first_us / 1e6, (double)s->last_us / 1e6);
    fflush(stdout);
}

static void on_end(void *arg)
{
    struct sink *sink = arg;
    on_tell(sink);
    loop_stop(sink->loop);
}

static int listen_on(struct sink *sink, const struct bench_options *o, struct err *err)
{
    int one = 1;
    sink->fd = socket(o->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (sink->fd < 0)
        return err_errno(err, errno, "%s", o->sink);
    setsockopt(sink->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(sink->fd, (const struct sockaddr *)&o->address, o->address_bytes) != 0 || listen(sink->fd, BACKLOG) != 0)
        return err_errno(err, errno, "cannot listen on %s", o->sink);
    return 0;
}

static int prepare(struct sink *sink, const struct bench_options *o, struct err *err)
{
    sink->scratch = malloc(BENCH_SCRATCH_BYTES);
    if (!sink->scratch)
        return err_set(err, -ENOMEM, "out of memory for a sink");
    int rc = listen_on(sink, o, err);
    if (rc == 0)
        rc = loop_new(&sink->loop, err);
    if (rc == 0)
        rc = loop_fd_new(sink->loop, sink->fd, on_accept, sink, &sink->listener, err);
    if (rc == 0)
        rc = loop_signal_new(sink->loop, SIGINT, on_end, sink, &sink->interrupt, err);
    if (rc == 0)
        rc = loop_signal_new(sink->loop, SIGTERM, on_end, sink, &sink->terminate, err);
    if (rc == 0)
        rc = loop_signal_new(sink->loop, SIGUSR1, on_tell, sink, &sink->tell, err);
    return rc;
}

int bench_sink(const struct bench_options *o)
{
    struct sink sink = { .fd = -1 };
    struct err err;
    int status = CLI_OK;
    LIST_INIT(&sink.clients);
    if (prepare(&sink, o, &err) < 0) {
        status = cli_fail(CLI_SYSTEM, "%s", err_text(&err));
    } else {
        loop_fd_want(sink.listener, LOOP_READ);
        fprintf(stderr, "postern bench: taking mail on %s\n", o->sink);
        loop_run(sink.loop);
    }
    while (!LIST_EMPTY(&sink.clients))
        client_free(LIST_FIRST(&sink.clients));
    loop_signal_free(&sink.interrupt);
    loop_signal_free(&sink.terminate);
    loop_signal_free(&sink.tell);
    loop_fd_free(&sink.listener);
    loop_free(&sink.loop);
    if (sink.fd >= 0)
        close(sink.fd);
    free(sink.scratch);
    return status;
}
