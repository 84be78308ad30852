/* tls_pair: a client and a server session over a socket pair, driven in turns. */
#pragma once
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/tls.h"

struct tls_pair {
    int fd[2]; /* server, client */
    struct tls_session *server, *client;
    enum tls_result server_result, client_result;
    bool server_ready; /* the signer's answer has come */
};

static inline void tls_pair_ready(void *arg)
{
    struct tls_pair *pair = arg;
    pair->server_ready = true;
}

/* `host` NULL: without SNI. */
static inline void tls_pair_open(struct tls_pair *pair, struct tls_server_context *server, struct tls_server_set *set,
                                 struct tls_client_context *client, const char *host, bool verify)
{
    struct err err;
    *pair = (struct tls_pair){ .server_ready = true };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair->fd), 0);
    assert_int_equal(
        tls_server_session_new(server, set, pair->fd[0], NULL, tls_pair_ready, pair, &pair->server, &err), 0);
    assert_int_equal(tls_client_session_new(client, pair->fd[1], host, verify, NULL, &pair->client, &err), 0);
}

static inline bool tls_pair_ended(enum tls_result result)
{
    return result == TLS_DONE || result == TLS_FAILED || result == TLS_CLOSED;
}

/* Until both ends are done or have failed, or the server waits for a signature. */
static inline void tls_pair_step(struct tls_pair *pair)
{
    pair->server_result = pair->client_result = TLS_WANT_READ;
    for (int i = 0; i < 20; i++) {
        if (!tls_pair_ended(pair->client_result))
            pair->client_result = tls_handshake(pair->client);
        if (pair->client_result == TLS_FAILED)
            shutdown(pair->fd[1], SHUT_RDWR);
        if (!tls_pair_ended(pair->server_result))
            pair->server_result = tls_handshake(pair->server);
        if (pair->server_result == TLS_WANT_SIGN)
            return;
        if (pair->server_result == TLS_FAILED)
            shutdown(pair->fd[0], SHUT_RDWR);
        if (tls_pair_ended(pair->server_result) && tls_pair_ended(pair->client_result))
            return;
    }
}

/* OpenSSL's client does not use a session again that ended without close_notify. */
static inline void tls_pair_close(struct tls_pair *pair)
{
    if (pair->client)
        tls_shutdown(pair->client);
    tls_free(&pair->server);
    tls_free(&pair->client);
    close(pair->fd[0]);
    close(pair->fd[1]);
}

/* A few octets in both directions; takes in the tickets that the server has sent. */
static inline void tls_pair_talk(struct tls_pair *pair)
{
    char p[16];
    size_t n;
    assert_int_equal(tls_write(pair->client, "hello", 5, &n), TLS_DONE);
    assert_int_equal(n, 5);
    assert_int_equal(tls_read(pair->server, p, sizeof p, &n), TLS_DONE);
    assert_int_equal(n, 5);
    assert_memory_equal(p, "hello", 5);
    assert_int_equal(tls_read(pair->server, p, sizeof p, &n), TLS_WANT_READ);
    assert_int_equal(tls_write(pair->server, "world!", 6, &n), TLS_DONE);
    assert_int_equal(tls_read(pair->client, p, sizeof p, &n), TLS_DONE);
    assert_int_equal(n, 6);
    assert_memory_equal(p, "world!", 6);
}

/* Both ends must come to the same channel bindings. */
static inline void tls_pair_check_bindings(const struct tls_pair *pair)
{
    unsigned char a[TLS_HASH_MAX], b[TLS_HASH_MAX];
    size_t n = tls_session_endpoint_hash(pair->server, a);
    assert_int_equal(n, 32);
    assert_int_equal(tls_session_endpoint_hash(pair->client, b), n);
    assert_memory_equal(a, b, n);
    struct tls_info info;
    tls_info(pair->server, &info);
    size_t expected = strcmp(info.version, "TLSv1.3") == 0 ? TLS_EXPORTER_BYTES : 0;
    assert_int_equal(tls_session_exporter(pair->server, a), expected);
    assert_int_equal(tls_session_exporter(pair->client, b), expected);
    assert_memory_equal(a, b, expected);
}
