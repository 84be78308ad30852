/* Writing and reading of one connection. Everything that waits goes into one sendmsg(), or into TLS records of 16
 * KiB; the body is never copied on the plain path. */
#include "cli/bench/bench.h"

#include <errno.h>

enum { RECORD_BYTES = 16 * 1024 };

bool bench_transport_waits(const struct bench_connection *c)
{
    return c->n_slices > c->slice_at || smtp_client_output(c->client)->n > 0;
}

static size_t gather(const struct bench_connection *c, struct iovec vec[BENCH_SLICES + 2])
{
    struct buf *out = smtp_client_output(c->client);
    size_t n = 0, head = c->n_slices > c->slice_at ? c->out_head : out->n;
    if (head > 0)
        vec[n++] = (struct iovec){ out->p, head };
    for (size_t i = c->slice_at; i < c->n_slices; i++)
        vec[n++] = (struct iovec){ (void *)(uintptr_t)c->slice[i].p, c->slice[i].n };
    if (out->n > head)
        vec[n++] = (struct iovec){ out->p + head, out->n - head };
    return n;
}

static void written(struct bench_connection *c, size_t n)
{
    struct buf *out = smtp_client_output(c->client);
    if (c->n_slices > c->slice_at) {
        size_t k = n < c->out_head ? n : c->out_head;
        buf_consume(out, k);
        c->out_head -= k;
        n -= k;
        while (n > 0 && c->slice_at < c->n_slices) {
            struct str *slice = &c->slice[c->slice_at];
            k = n < slice->n ? n : slice->n;
            *slice = str_skip(*slice, k);
            n -= k;
            if (slice->n == 0)
                c->slice_at++;
        }
    }
    buf_consume(out, n);
}

static enum bench_io write_plain(struct bench_connection *c, struct iovec *vec, size_t n, size_t *ret_n)
{
    struct msghdr message = { .msg_iov = vec, .msg_iovlen = n };
    ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    *ret_n = sent > 0 ? (size_t)sent : 0;
    if (sent >= 0)
        return BENCH_IO_DONE;
    return errno == EAGAIN || errno == EINTR ? BENCH_IO_WAIT : BENCH_IO_CLOSED;
}

static enum bench_io write_tls(struct bench_connection *c, const struct iovec *vec, size_t n, size_t *ret_n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n && bytes < RECORD_BYTES; i++) {
        size_t k = vec[i].iov_len < RECORD_BYTES - bytes ? vec[i].iov_len : RECORD_BYTES - bytes;
        memcpy(c->run->scratch + bytes, vec[i].iov_base, k);
        bytes += k;
    }
    *ret_n = 0;
    enum tls_result result = tls_write(c->tls, c->run->scratch, bytes, ret_n);
    if (result == TLS_DONE)
        return BENCH_IO_DONE;
    return result == TLS_WANT_WRITE || result == TLS_WANT_READ ? BENCH_IO_WAIT : BENCH_IO_CLOSED;
}

enum bench_io bench_transport_write(struct bench_connection *c)
{
    while (bench_transport_waits(c)) {
        struct iovec vec[BENCH_SLICES + 2];
        size_t n = gather(c, vec), done = 0;
        enum bench_io io = c->tls ? write_tls(c, vec, n, &done) : write_plain(c, vec, n, &done);
        if (io == BENCH_IO_WAIT)
            loop_fd_want(c->watch, LOOP_READ | LOOP_WRITE);
        if (io != BENCH_IO_DONE)
            return io;
        written(c, done);
    }
    loop_fd_want(c->watch, LOOP_READ);
    return BENCH_IO_DONE;
}

enum bench_io bench_transport_read(struct bench_connection *c, struct str *ret_in, bool *ret_more)
{
    size_t got = 0;
    *ret_more = false;
    if (c->tls) {
        enum tls_result result = tls_read(c->tls, c->run->scratch, BENCH_SCRATCH_BYTES, &got);
        if (result == TLS_WANT_READ || result == TLS_WANT_WRITE)
            return BENCH_IO_WAIT;
        if (result != TLS_DONE)
            return BENCH_IO_CLOSED;
        *ret_more = true;
    } else {
        ssize_t n = recv(c->fd, c->run->scratch, BENCH_SCRATCH_BYTES, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return BENCH_IO_WAIT;
        if (n <= 0)
            return BENCH_IO_CLOSED;
        got = (size_t)n;
        *ret_more = got == BENCH_SCRATCH_BYTES;
    }
    *ret_in = str_slice(c->run->scratch, got);
    return BENCH_IO_DONE;
}
