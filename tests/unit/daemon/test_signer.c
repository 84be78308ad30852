/* smtpd's signer and the keys role, over a real channel on one loop; a TLS client on top. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>

#include "../io/tls_pair.h"
#include "../keystore/fixture.h"
#include "daemon/keys/keyring.h"
#include "daemon/role.h"
#include "daemon/smtpd/signer.h"
#include "io/tls_context.h"

static struct fixture_certificate ec, rsa, renewed;
static struct tls_client_context *client;
static struct role_ctx ctx;
static struct signer_link *link_;

static int memory_file(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    return fd;
}

static void give_key(const char *server, const char *pem)
{
    struct ipc_file file = { .kind = IPC_FILE_KEY, .name = str_of(server), .text = STR("/etc/postern/key.pem") };
    role_keys.file(&ctx, &file, memory_file(pem));
}

static void connect_link(void)
{
    struct err err;
    int fds[2];
    assert_int_equal(channel_pair(fds, &err), 0);
    role_keys.peer(&ctx, ROLE_SMTPD, 0, &fds[0], 1);
    assert_int_equal(signer_peer(link_, fds[1], &err), 0);
}

static int setup(void **state)
{
    struct err err = { 0 };
    struct log_options options = { .to = "stderr", .fd = open("/dev/null", O_WRONLY | O_CLOEXEC) };
    ec = fixture_simple("DNS:mail.a.test", "EC");
    rsa = fixture_simple("DNS:partner.test", "RSA");
    renewed = fixture_simple("DNS:mail.a.test", "EC");
    assert_int_equal(tls_client_context_new(str_of(ec.pem), &client, &err), 0);
    assert_int_equal(loop_new(&ctx.loop, &err), 0);
    assert_int_equal(log_new(ctx.loop, "keys", &options, &ctx.log, &err), 0);
    assert_int_equal(signer_new(ctx.loop, &link_, &err), 0);
    /* As role.c does it: files and peers, configured, start. */
    give_key("mail.a.test", ec.key_pem);
    give_key("partner.test", rsa.key_pem);
    assert_false(signer_available(link_));
    connect_link();
    assert_true(signer_available(link_));
    role_keys.configured(&ctx);
    return role_keys.start(&ctx, &err);
}

static int teardown(void **state)
{
    tls_client_context_unref(&client);
    signer_free(&link_);
    fixture_free(&ec);
    fixture_free(&rsa);
    fixture_free(&renewed);
    return 0;
}

static struct tls_server_context *server_of(const char *name, const struct fixture_certificate *f)
{
    struct tls_server_context *context;
    struct err err = { 0 };
    if (signer_server_context_new(link_, name, str_of(f->pem), NULL, &context, &err) < 0)
        fail_msg("%s", err.text);
    return context;
}

/* Turns the loop until the server's handshake is through or has failed. */
static void finish(struct tls_pair *pair)
{
    for (int i = 0; i < 200; i++) {
        tls_pair_step(pair);
        if (pair->server_result != TLS_WANT_SIGN)
            return;
        pair->server_ready = false;
        while (!pair->server_ready)
            loop_run_once(ctx.loop, true);
    }
    fail_msg("the handshake does not end");
}

static enum tls_result one_handshake(const char *name, const struct fixture_certificate *f)
{
    struct tls_server_context *server = server_of(name, f);
    struct tls_pair pair;
    tls_pair_open(&pair, server, NULL, client, name, false);
    finish(&pair);
    enum tls_result result = pair.server_result;
    if (result == TLS_DONE)
        tls_pair_talk(&pair);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
    return result;
}

static void test_handshakes(void **state)
{
    assert_int_equal(one_handshake("mail.a.test", &ec), TLS_DONE);
    assert_int_equal(one_handshake("partner.test", &rsa), TLS_DONE);
}

/* The ticket keys have come from keys: a second session is resumed without a signature. */
static SSL_SESSION *caught;

static int catch_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(caught);
    caught = session;
    return 1;
}

static void test_tickets(void **state)
{
    struct tls_server_context *server = server_of("mail.a.test", &ec);
    struct signer_counts before, after;
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client->ctx, catch_session);
    signer_count(link_, &before);
    for (int i = 0; i < 2; i++) {
        struct tls_pair pair;
        struct tls_info info;
        tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
        if (caught)
            SSL_set_session(pair.client->ssl, caught);
        finish(&pair);
        assert_int_equal(pair.server_result, TLS_DONE);
        tls_pair_talk(&pair);
        tls_pair_check_bindings(&pair);
        tls_info(pair.server, &info);
        assert_int_equal(info.resumed, i);
        tls_pair_close(&pair);
    }
    signer_count(link_, &after);
    assert_int_equal(after.asked, before.asked + 1);
    assert_int_equal(after.waiting, 0);
    SSL_SESSION_free(caught);
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_OFF);
    tls_server_context_unref(&server);
}

/* Many at once are signed in few turns: all requests of a turn go and come together. */
static void test_batch(void **state)
{
    enum { PAIRS = 50 };
    struct tls_server_context *server = server_of("mail.a.test", &ec);
    struct tls_pair pair[PAIRS];
    struct signer_counts counts;
    for (size_t i = 0; i < PAIRS; i++) {
        tls_pair_open(&pair[i], server, NULL, client, "mail.a.test", false);
        tls_pair_step(&pair[i]);
        assert_int_equal(pair[i].server_result, TLS_WANT_SIGN);
        pair[i].server_ready = false;
    }
    signer_count(link_, &counts);
    assert_int_equal(counts.waiting, PAIRS);
    int turns = 0;
    for (; counts.waiting; turns++) {
        loop_run_once(ctx.loop, true);
        signer_count(link_, &counts);
    }
    assert_true(turns <= 6);
    for (size_t i = 0; i < PAIRS; i++) {
        finish(&pair[i]);
        assert_int_equal(pair[i].server_result, TLS_DONE);
        tls_pair_close(&pair[i]);
    }
    tls_server_context_unref(&server);
}

static void test_session_goes(void **state)
{
    struct tls_server_context *server = server_of("mail.a.test", &ec);
    struct tls_pair pair;
    struct signer_counts counts;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_WANT_SIGN);
    tls_pair_close(&pair);
    signer_count(link_, &counts);
    assert_int_equal(counts.waiting, 0);
    tls_server_context_unref(&server);
    /* The late answer disturbs nobody. */
    assert_int_equal(one_handshake("mail.a.test", &ec), TLS_DONE);
}

static void test_unknown_key(void **state)
{
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_FAILED);
    assert_int_equal(one_handshake("nobody.test", &ec), TLS_FAILED);
    assert_true(signer_available(link_));
}

/* A renewed key works from the moment its file is there; the old one for one snapshot more. */
static void test_reload(void **state)
{
    give_key("mail.a.test", renewed.key_pem);
    give_key("partner.test", rsa.key_pem);
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_DONE);
    assert_int_equal(one_handshake("mail.a.test", &ec), TLS_DONE);
    role_keys.configured(&ctx);
    assert_int_equal(one_handshake("mail.a.test", &ec), TLS_DONE);
    give_key("mail.a.test", renewed.key_pem);
    give_key("partner.test", "no key");
    role_keys.configured(&ctx);
    assert_int_equal(one_handshake("mail.a.test", &ec), TLS_FAILED);
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_DONE);
    assert_int_equal(one_handshake("partner.test", &rsa), TLS_DONE);
}

/* keys dies in the middle of handshakes: they fail, later ones are refused, a successor serves again. */
static void test_keys_goes(void **state)
{
    struct tls_server_context *server = server_of("mail.a.test", &renewed);
    struct tls_pair pair;
    struct signer_counts counts;
    struct err err;
    int fds[2];
    assert_int_equal(channel_pair(fds, &err), 0);
    assert_int_equal(signer_peer(link_, fds[1], &err), 0);
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_WANT_SIGN);
    close(fds[0]);
    finish(&pair);
    assert_int_equal(pair.server_result, TLS_FAILED);
    assert_false(signer_available(link_));
    signer_count(link_, &counts);
    assert_int_equal(counts.waiting, 0);
    tls_pair_close(&pair);
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_FAILED);
    connect_link();
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_DONE);
    tls_server_context_unref(&server);
}

/* What another role sends is hostile: this one channel ends, nothing else. */
static void note_closed(void *arg, const struct err *why)
{
    *(bool *)arg = true;
}

static void ignore_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    (void)arg; /* the ticket keys */
}

static void test_malformed(void **state)
{
    static const struct channel_handlers handlers = { .message = ignore_message, .closed = note_closed };
    for (int i = 0; i < 2; i++) {
        struct channel *channel;
        struct err err;
        int fds[2];
        bool closed = false;
        assert_int_equal(channel_pair(fds, &err), 0);
        role_keys.peer(&ctx, ROLE_SMTPD, 1, &fds[0], 1);
        assert_int_equal(channel_open(ctx.loop, fds[1], &handlers, &closed, &channel, &err), 0);
        channel_send(channel, i ? IPC_SIGN : IPC_JOB, 1, STR("nonsense"));
        while (!closed)
            loop_run_once(ctx.loop, true);
        channel_free(&channel);
    }
    /* And the other way round. */
    struct channel *channel;
    struct err err;
    int fds[2];
    bool closed = false;
    assert_int_equal(channel_pair(fds, &err), 0);
    assert_int_equal(channel_open(ctx.loop, fds[0], &handlers, &closed, &channel, &err), 0);
    assert_int_equal(signer_peer(link_, fds[1], &err), 0);
    channel_send(channel, IPC_TICKET_KEYS, 0, STR("short"));
    while (!closed)
        loop_run_once(ctx.loop, true);
    channel_free(&channel);
    assert_false(signer_available(link_));
    connect_link();
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_DONE);
}

static void test_keyring_tickets(void **state)
{
    struct keyring *ring;
    struct err err;
    unsigned char first[240];
    assert_int_equal(keyring_new(&ring, &err), 0);
    assert_int_equal(keyring_tickets(ring).n, sizeof first);
    memcpy(first, keyring_tickets(ring).p, sizeof first);
    assert_memory_not_equal(first, first + 80, 80);
    assert_int_equal(keyring_rotate_tickets(ring, &err), 0);
    assert_memory_equal(keyring_tickets(ring).p + 80, first, 160);
    assert_memory_not_equal(keyring_tickets(ring).p, first, 80);
    keyring_free(&ring);
}

/* Sessions in their handshake still need keys: it ends when the last peer has gone. */
static void test_drain(void **state)
{
    role_keys.drain(&ctx);
    assert_int_equal(one_handshake("mail.a.test", &renewed), TLS_DONE);
    signer_free(&link_);
    loop_run(ctx.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshakes), cmocka_unit_test(test_tickets), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_session_goes), cmocka_unit_test(test_unknown_key), cmocka_unit_test(test_reload),
        cmocka_unit_test(test_keys_goes), cmocka_unit_test(test_malformed), cmocka_unit_test(test_keyring_tickets),
        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
