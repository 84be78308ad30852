/* The socket of one connection: connect, handshake, read, write. What the octets mean is smtp.c's. Nothing here
 * frees the connection; a callback that finds it dead returns. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/delivery/delivery.h"

enum { READ_BYTES = 16 * 1024, OUTPUT_FULL_BYTES = 64 * 1024, READS_PER_TURN = 16 };

static void on_ready(void *arg, unsigned events);

/* The server's first listening address, when it is one address and of the peer's family, is our source. */
static int bind_source(const struct conn *conn, int fd, struct err *err)
{
    const struct conf_server *server = conn->hop->server;
    const struct resolve_candidate *to = &conn->candidate[conn->at];
    struct resolve_target source;
    if (!conn->hop->block->server || !server || server->listen.n == 0 ||
        !resolve_target_parse(str_of(server->listen.item[0]), 25, &source) || source.kind != RESOLVE_ADDRESS ||
        source.candidate.address.any.sa_family != to->address.any.sa_family)
        return 0;
    struct sockaddr_in *v4 = &source.candidate.address.v4;
    struct sockaddr_in6 *v6 = &source.candidate.address.v6;
    bool is_v4 = source.candidate.address.any.sa_family == AF_INET;
    if (is_v4 ? v4->sin_addr.s_addr == INADDR_ANY : IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr))
        return 0;
    if (is_v4)
        v4->sin_port = 0;
    else
        v6->sin6_port = 0;
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, &source.candidate.address.any, source.candidate.address_bytes) != 0)
        return err_errno(err, errno, "cannot use %s as source address", source.candidate.text);
    return 0;
}

int conn_connect(struct conn *conn, struct err *err)
{
    struct loop *loop = conn->delivery->ctx->loop;
    const struct resolve_candidate *to = &conn->candidate[conn->at];
    conn->fd = socket(to->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        return err_errno(err, errno, "cannot make a socket");
    int rc = to->port ? bind_source(conn, conn->fd, err) : 0;
    int on = 1;
    if (to->port)
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (rc == 0 && connect(conn->fd, &to->address.any, to->address_bytes) != 0 && errno != EINPROGRESS)
        rc = err_set(err, -errno, "connect to %s: %s", conn->relay, strerror(errno));
    if (rc == 0)
        rc = loop_fd_new(loop, conn->fd, on_ready, conn, &conn->watch, err);
    if (rc < 0) {
        conn_close(conn);
        return rc;
    }
    conn->state = CONN_CONNECTING;
    conn->deadline_ms = loop_now_ms(loop) + (int64_t)conn->hop->site->conf->connect_timeout_s * 1000;
    loop_fd_want(conn->watch, LOOP_WRITE);
    return 0;
}

void conn_close(struct conn *conn)
{
    if (conn->tls) {
        if (!conn->handshaking)
            tls_shutdown(conn->tls);
        tls_free(&conn->tls);
    }
    conn->handshaking = false;
    layer_free(&conn->layer);
    layer_free(&conn->next_layer);
    if (conn->watch)
        loop_fd_free(&conn->watch);
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
}

/* ---- TLS ---- */

static void handshake(struct conn *conn)
{
    switch (tls_handshake(conn->tls)) {
    case TLS_DONE:
        conn->handshaking = false;
        loop_fd_want(conn->watch, LOOP_READ);
        smtp_tls_done(conn);
        break;
    case TLS_WANT_READ: loop_fd_want(conn->watch, LOOP_READ); break;
    case TLS_WANT_WRITE: loop_fd_want(conn->watch, LOOP_WRITE); break;
    default: smtp_tls_failed(conn, tls_error(conn->tls)); break;
    }
}

bool conn_start_tls(struct conn *conn, bool verify, struct err *err)
{
    const struct resolve_candidate *to = &conn->candidate[conn->at];
    int rc = tls_client_session_new(conn->hop->site->tls, conn->fd, to->port ? to->host : NULL, verify, NULL, &conn->tls, err);
    if (rc < 0) {
        conn->tls = NULL;
        return false;
    }
    conn->handshaking = true;
    handshake(conn);
    return true;
}

/* ---- octets ---- */

/* Octets read, 0 at the end, -EAGAIN, or another negative code with *ret_why. */
static ssize_t read_some(struct conn *conn, char *p, size_t n, const char **ret_why)
{
    *ret_why = NULL;
    if (!conn->tls) {
        ssize_t got;
        do
            got = recv(conn->fd, p, n, 0);
        while (got < 0 && errno == EINTR);
        if (got < 0 && errno != EAGAIN)
            *ret_why = strerror(errno);
        return got < 0 ? -errno : got;
    }
    size_t got = 0;
    switch (tls_read(conn->tls, p, n, &got)) {
    case TLS_DONE: return (ssize_t)got;
    case TLS_WANT_READ:
    case TLS_WANT_WRITE: return -EAGAIN;
    case TLS_CLOSED: return 0;
    default: *ret_why = tls_error(conn->tls); return ERR_TLS;
    }
}

static void read_input(struct conn *conn)
{
    char in[READ_BYTES];
    for (int i = 0; i < READS_PER_TURN && conn->state != CONN_DEAD && conn->fd >= 0; i++) {
        const char *why;
        ssize_t n = read_some(conn, in, sizeof in, &why);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            smtp_closed(conn, why);
            return;
        }
        struct str octets = str_slice(in, (size_t)n);
        struct err err;
        if (conn->layer && layer_take(conn->layer, octets, &octets, &err) < 0) {
            smtp_closed(conn, err_text(&err));
            return;
        }
        smtp_input(conn, octets);
        /* A short read emptied the socket; TLS may hold more inside. */
        if (!conn->tls && (size_t)n < sizeof in)
            return;
        if (conn->handshaking)
            return;
    }
}

/* What goes onto the socket. */
static struct buf *output(struct conn *conn)
{
    return conn->layer ? layer_output(conn->layer) : smtp_client_output(conn->client);
}

static bool wrap_output(struct conn *conn)
{
    struct buf *plain = smtp_client_output(conn->client);
    struct err err;
    bool ok = plain->n == 0 || layer_put(conn->layer, buf_str(plain), &err) == 0;
    buf_clear(plain);
    return ok;
}

/* Writes as much as goes. False: the connection broke. */
static bool write_output(struct conn *conn, const char **ret_why)
{
    struct buf *out = output(conn);
    size_t done = 0;
    bool ok = true, more = true;
    if (conn->layer && !wrap_output(conn)) {
        *ret_why = "the security layer failed";
        return false;
    }
    while (done < out->n && ok && more) {
        if (conn->tls) {
            size_t n = 0;
            enum tls_result result = tls_write(conn->tls, out->p + done, out->n - done, &n);
            more = result == TLS_DONE;
            ok = more || result == TLS_WANT_READ || result == TLS_WANT_WRITE;
            done += more ? n : 0;
            *ret_why = ok ? NULL : tls_error(conn->tls);
        } else {
            ssize_t n = send(conn->fd, out->p + done, out->n - done, MSG_NOSIGNAL);
            more = n > 0 || (n < 0 && errno == EINTR);
            ok = more || (n < 0 && errno == EAGAIN);
            done += n > 0 ? (size_t)n : 0;
            *ret_why = ok ? NULL : strerror(errno);
        }
    }
    buf_consume(out, done);
    /* What a large message needed is given back. */
    if (out->n == 0 && out->cap > 4 * OUTPUT_FULL_BYTES)
        buf_done(out);
    return ok;
}

static void on_timer(void *arg)
{
    struct conn *conn = arg;
    conn->timer_at_ms = 0;
    if (conn->state == CONN_DEAD)
        return;
    smtp_timer(conn);
}

/* The timer is only ever moved forward in time when it fires: most deadlines are met. */
static void arm_timer(struct conn *conn)
{
    int64_t at = conn->deadline_ms ? conn->deadline_ms : -1;
    int64_t machine = conn->client ? smtp_client_deadline_ms(conn->client) : -1;
    if (machine >= 0 && (at < 0 || machine < at))
        at = machine;
    if (at < 0 || (conn->timer_at_ms && conn->timer_at_ms <= at))
        return;
    struct loop *loop = conn->delivery->ctx->loop;
    if (!conn->timer && loop_timer_new(loop, on_timer, conn, &conn->timer, NULL) < 0)
        return;
    int64_t after_ms = at - loop_now_ms(loop);
    loop_timer_set(conn->timer, after_ms > 0 ? after_ms : 1);
    conn->timer_at_ms = at;
}

void conn_update(struct conn *conn)
{
    while (conn->state != CONN_DEAD && conn->client && conn->fd >= 0 && !conn->handshaking) {
        const char *why = NULL;
        if (!write_output(conn, &why)) {
            smtp_closed(conn, why);
            return;
        }
        size_t left = output(conn)->n;
        loop_fd_want(conn->watch, left ? LOOP_READ | LOOP_WRITE : LOOP_READ);
        if (left >= OUTPUT_FULL_BYTES || !smtp_client_body_open(conn->client))
            break;
        smtp_writable(conn);
        if (conn->state == CONN_DEAD || (!smtp_client_output(conn->client)->n && output(conn)->n == left))
            break;
    }
    if (conn->state != CONN_DEAD)
        arm_timer(conn);
}

static void connected(struct conn *conn)
{
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0)
        error = errno;
    if (error) {
        conn_fail(conn, true, "4.4.1", "connect to %s: %s", conn->relay, strerror(error));
        return;
    }
    loop_fd_want(conn->watch, LOOP_READ);
    smtp_connected(conn);
}

static void on_ready(void *arg, unsigned events)
{
    struct conn *conn = arg;
    if (conn->state == CONN_DEAD)
        return;
    if (conn->state == CONN_CONNECTING) {
        connected(conn);
    } else if (conn->handshaking) {
        handshake(conn);
        /* The server's first octets may already lie within the session. */
        if (conn->state != CONN_DEAD && conn->tls && !conn->handshaking)
            read_input(conn);
    } else {
        if (events & LOOP_READ)
            read_input(conn);
        if (events & LOOP_WRITE)
            conn_update(conn);
    }
}
