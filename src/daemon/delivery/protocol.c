/* protocol: what is said to next hops, in the protocol log of the server that a route names. The machine masks AUTH and
 * leaves bodies out. Logs are kept by the server's name, not by snapshot: after a rotation all connections write into
 * the new file. */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/delivery/delivery.h"
#include "io/now.h"

enum { LINE_BYTES = 8192 };

struct protocol_log {
    SLIST_ENTRY(protocol_log) link;
    struct log_stream *stream;
    bool named;                        /* by the snapshot that is being handed over */
    bool on;
    char server[];
};

static struct protocol_log *find(const struct delivery *d, struct str server)
{
    struct protocol_log *log;
    SLIST_FOREACH(log, &d->protocol_logs, link) {
        if (str_eq(str_of(log->server), server))
            return log;
    }
    return NULL;
}

void protocol_file(struct delivery *d, struct str server, int fd)
{
    struct protocol_log *log = find(d, server);
    if (log) {
        log_stream_set_fd(log->stream, fd);
        log->named = true;
        return;
    }
    log = calloc(1, sizeof *log + server.n + 1);
    if (!log || log_stream_new(d->ctx->loop, fd, &log->stream, NULL) < 0) {
        free(log);
        close(fd);
        return; /* mail goes out without it */
    }
    memcpy(log->server, server.p, server.n);
    log->named = true;
    SLIST_INSERT_HEAD(&d->protocol_logs, log, link);
}

void protocol_configured(struct delivery *d)
{
    struct protocol_log *log;
    SLIST_FOREACH(log, &d->protocol_logs, link) {
        log->on = log->named;
        log->named = false;
    }
}

void protocol_free(struct delivery *d)
{
    struct protocol_log *log;
    while ((log = SLIST_FIRST(&d->protocol_logs))) {
        SLIST_REMOVE_HEAD(&d->protocol_logs, link);
        log_stream_free(&log->stream);
        free(log);
    }
}

static void add_printable(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c == 0x7f)
            buf_addf(b, "\\x%02x", c);
        else
            buf_add_char(b, s.p[i]);
    }
}

void protocol_trace(void *arg, char direction, struct str line)
{
    const struct conn *conn = arg;
    const char *server = conn->hop->block->server;
    const struct protocol_log *log = server ? find(conn->delivery, str_of(server)) : NULL;
    if (!log || !log->on)
        return;
    char time[CLOCK_TEXT_BYTES];
    struct buf b;
    clock_rfc3339(now_wall_ms(), time);
    buf_init(&b, LINE_BYTES);
    buf_addf(&b, "%s OUT%02X%08X %s %c%c ", time, conn->delivery->ctx->index & 0xff, conn->number, conn->relay,
             direction, direction);
    add_printable(&b, str_slice(line.p, line.n < LINE_BYTES / 8 ? line.n : LINE_BYTES / 8));
    log_stream_add(log->stream, buf_str(&b));
    buf_done(&b);
}
