#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../keystore/fixture.h"
#include "io/tls_context.h"
#include "tls_pair.h"

static struct fixture_certificate ca, ec, rsa, other;
static struct tls_client_context *client;
static struct tls_tickets *tickets;

static int setup(void **state)
{
    ca = fixture_new(&(struct fixture_options){ .is_ca = true });
    ec = fixture_new(&(struct fixture_options){ .names = "DNS:mail.a.test,DNS:*.b.test", .issuer = &ca });
    rsa = fixture_new(&(struct fixture_options){ .names = "DNS:mail.a.test", .key_type = "RSA", .issuer = &ca });
    other = fixture_new(&(struct fixture_options){ .names = "DNS:partner.test", .issuer = &ca });
    unsigned char keys[TLS_TICKET_KEYS * TLS_TICKET_KEY_BYTES];
    for (size_t i = 0; i < sizeof keys; i++)
        keys[i] = (unsigned char)(i * 7 + i / 80);
    struct err err;
    assert_int_equal(tls_tickets_new(&tickets, &err), 0);
    assert_true(tls_set_ticket_keys(tickets, str_slice(keys, sizeof keys)));
    assert_false(tls_set_ticket_keys(tickets, str_slice(keys, sizeof keys - 1)));
    assert_int_equal(tls_client_context_new(str_of(ca.pem), &client, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    tls_client_context_unref(&client);
    tls_tickets_unref(&tickets);
    fixture_free(&ca);
    fixture_free(&ec);
    fixture_free(&rsa);
    fixture_free(&other);
    return 0;
}

static struct tls_server_context *server_of(const struct fixture_certificate *f, const char *name,
                                            const char *min_version, struct tls_tickets *with)
{
    struct tls_server_context *context;
    struct err err = { 0 };
    struct tls_server_options options = {
        .name = name, .certificate_pem = str_of(f->pem), .key = f->key, .min_version = min_version, .tickets = with,
    };
    int rc = tls_server_context_new(&options, &context, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    return context;
}

static void one_handshake(const struct fixture_certificate *f, int max_version, const char *version)
{
    struct tls_server_context *server = server_of(f, "mail.a.test", NULL, NULL);
    struct tls_pair pair;
    struct tls_info info;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", true);
    SSL_set_max_proto_version(pair.client->ssl, max_version);
    tls_pair_step(&pair);
    assert_int_equal(pair.client_result, TLS_DONE);
    assert_int_equal(pair.server_result, TLS_DONE);
    tls_pair_talk(&pair);
    tls_pair_check_bindings(&pair);
    tls_info(pair.server, &info);
    assert_string_equal(info.version, version);
    assert_string_equal(info.sni, "mail.a.test");
    assert_string_equal(info.server, "mail.a.test");
    assert_true(info.cipher_bits >= 128);
    assert_false(info.resumed);
    tls_info(pair.client, &info);
    assert_true(info.verified);
    assert_string_equal(info.verify_text, "");
    char p[4];
    size_t n;
    assert_int_equal(tls_shutdown(pair.client), TLS_DONE);
    assert_int_equal(tls_read(pair.server, p, sizeof p, &n), TLS_CLOSED);
    assert_string_equal(tls_error(pair.server), "the peer has closed TLS");
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

static void test_versions_and_keys(void **state)
{
    one_handshake(&ec, TLS1_3_VERSION, "TLSv1.3");
    one_handshake(&ec, TLS1_2_VERSION, "TLSv1.2");
    one_handshake(&rsa, TLS1_3_VERSION, "TLSv1.3");
    one_handshake(&rsa, TLS1_2_VERSION, "TLSv1.2");
}

static void test_old_version(void **state)
{
    struct tls_server_context *strict = server_of(&rsa, "mail.a.test", NULL, NULL);
    struct tls_server_context *lax = server_of(&rsa, "mail.a.test", "1.0", NULL);
    for (int i = 0; i < 2; i++) {
        struct tls_pair pair;
        struct tls_info info;
        tls_pair_open(&pair, i ? lax : strict, NULL, client, "mail.a.test", false);
        SSL_set_min_proto_version(pair.client->ssl, TLS1_VERSION);
        SSL_set_max_proto_version(pair.client->ssl, TLS1_VERSION);
        assert_true(SSL_set_cipher_list(pair.client->ssl, "ECDHE+AES:@SECLEVEL=0"));
        tls_pair_step(&pair);
        tls_info(pair.server, &info);
        if (i) {
            assert_int_equal(pair.server_result, TLS_DONE);
            assert_string_equal(info.version, "TLSv1");
        } else {
            assert_int_equal(pair.server_result, TLS_FAILED);
            assert_non_null(strstr(tls_error(pair.server), "tls_min"));
        }
        tls_pair_close(&pair);
    }
    tls_server_context_unref(&strict);
    tls_server_context_unref(&lax);
}

/* Static RSA would need the key to decrypt. */
static void test_no_static_rsa(void **state)
{
    struct tls_server_context *server = server_of(&rsa, "mail.a.test", NULL, NULL);
    struct tls_pair pair;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    SSL_set_max_proto_version(pair.client->ssl, TLS1_2_VERSION);
    assert_true(SSL_set_cipher_list(pair.client->ssl, "AES128-GCM-SHA256"));
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_FAILED);
    assert_non_null(strstr(tls_error(pair.server), "no cipher suite"));
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

static void test_sni(void **state)
{
    struct tls_server_context *a = server_of(&ec, "mail.a.test", "1.3", tickets);
    struct tls_server_context *b = server_of(&other, "partner.test", "1.2", tickets);
    struct tls_server_set *set;
    struct err err;
    assert_int_equal(tls_server_set_new(&set, &err), 0);
    assert_int_equal(tls_server_set_add(set, a, &err), 0);
    assert_int_equal(tls_server_set_add(set, b, &err), 0);
    static const struct {
        const char *asked, *got, *sni;
    } cases[] = {
        { "PARTNER.test", "partner.test", "PARTNER.test" },
        { "unknown.test", "mail.a.test", "unknown.test" },
        { "mail.a.test", "mail.a.test", "mail.a.test" },
        { NULL, "mail.a.test", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_pair pair;
        struct tls_info info;
        tls_pair_open(&pair, a, set, client, cases[i].asked, false);
        tls_pair_step(&pair);
        assert_int_equal(pair.server_result, TLS_DONE);
        tls_info(pair.server, &info);
        assert_string_equal(info.server, cases[i].got);
        assert_string_equal(info.sni, cases[i].sni);
        tls_pair_check_bindings(&pair);
        tls_pair_close(&pair);
    }
    /* The chosen server's least version counts, not the listener's: b allows 1.2. */
    for (int i = 0; i < 2; i++) {
        struct tls_pair pair;
        tls_pair_open(&pair, a, set, client, i ? "partner.test" : "mail.a.test", true);
        SSL_set_max_proto_version(pair.client->ssl, TLS1_2_VERSION);
        tls_pair_step(&pair);
        assert_int_equal(pair.server_result, i ? TLS_DONE : TLS_FAILED);
        tls_pair_close(&pair);
    }
    tls_server_set_unref(&set);
    tls_server_context_unref(&a);
    tls_server_context_unref(&b);
}

/* OpenSSL's own client as far as sessions go: the pair's client gives and takes them. */
static SSL_SESSION *caught;

static int catch_session(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION_free(caught);
    caught = session;
    return 1;
}

static bool resumes(struct tls_server_context *server, struct tls_server_set *set, const char *host, int version)
{
    struct tls_pair pair;
    struct tls_info info;
    tls_pair_open(&pair, server, set, client, host, false);
    SSL_set_max_proto_version(pair.client->ssl, version);
    if (caught)
        assert_int_equal(SSL_set_session(pair.client->ssl, caught), 1);
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_DONE);
    tls_pair_talk(&pair);
    tls_pair_check_bindings(&pair);
    tls_info(pair.server, &info);
    tls_pair_close(&pair);
    return info.resumed;
}

static void test_resumption(void **state)
{
    struct tls_server_context *a = server_of(&ec, "mail.a.test", NULL, tickets);
    struct tls_server_context *renewed = server_of(&rsa, "mail.a.test", NULL, tickets);
    struct tls_server_context *b = server_of(&other, "partner.test", NULL, tickets);
    struct tls_server_context *without = server_of(&ec, "mail.a.test", NULL, NULL);
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client->ctx, catch_session);
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
    for (size_t i = 0; i < 2; i++) {
        SSL_SESSION_free(caught);
        caught = NULL;
        assert_false(resumes(without, NULL, "mail.a.test", versions[i]));
        assert_false(resumes(a, NULL, "mail.a.test", versions[i]));
        assert_non_null(caught);
        assert_true(resumes(a, NULL, "mail.a.test", versions[i]));
        /* Another certificate since: resumes, and the binding is still that of the one the client saw. */
        assert_true(resumes(renewed, NULL, "mail.a.test", versions[i]));
        assert_true(resumes(renewed, NULL, "mail.a.test", versions[i]));
        /* Not at another virtual server. */
        assert_false(resumes(b, NULL, "mail.a.test", versions[i]));
    }
    SSL_SESSION_free(caught);
    caught = NULL;
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_OFF);
    tls_server_context_unref(&a);
    tls_server_context_unref(&renewed);
    tls_server_context_unref(&b);
    tls_server_context_unref(&without);
}

static void test_ticket_key_rotation(void **state)
{
    struct tls_tickets *own;
    struct err err;
    unsigned char keys[TLS_TICKET_KEYS * TLS_TICKET_KEY_BYTES] = { 1 };
    assert_int_equal(tls_tickets_new(&own, &err), 0);
    struct tls_server_context *a = server_of(&ec, "mail.a.test", NULL, own);
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    /* No keys yet: works, without tickets. */
    assert_false(resumes(a, NULL, "mail.a.test", TLS1_3_VERSION));
    assert_null(caught);
    for (unsigned char hour = 0; hour < 3; hour++) {
        memset(keys, 0, sizeof keys);
        for (size_t k = 0; k < TLS_TICKET_KEYS; k++)
            keys[k * TLS_TICKET_KEY_BYTES] = (unsigned char)(100 + hour - k);
        assert_true(tls_set_ticket_keys(own, str_slice(keys, sizeof keys)));
        assert_int_equal(resumes(a, NULL, "mail.a.test", TLS1_3_VERSION), hour > 0);
    }
    /* All three are new: the ticket is worth nothing. */
    keys[0] = 1, keys[80] = 2, keys[160] = 3;
    assert_true(tls_set_ticket_keys(own, str_slice(keys, sizeof keys)));
    assert_false(resumes(a, NULL, "mail.a.test", TLS1_3_VERSION));
    SSL_SESSION_free(caught);
    caught = NULL;
    SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_OFF);
    tls_server_context_unref(&a);
    tls_tickets_unref(&own);
}

static void check_verify(const struct fixture_certificate *f, const char *host, const char *text)
{
    struct tls_server_context *server = server_of(f, "x", NULL, NULL);
    for (int verify = 0; verify < 2; verify++) {
        struct tls_pair pair;
        struct tls_info info;
        tls_pair_open(&pair, server, NULL, client, host, verify);
        tls_pair_step(&pair);
        tls_info(pair.client, &info);
        assert_string_equal(info.verify_text, text);
        assert_int_equal(info.verified, !*text);
        assert_int_equal(pair.client_result, *text && verify ? TLS_FAILED : TLS_DONE);
        if (pair.client_result == TLS_FAILED)
            assert_non_null(strstr(tls_error(pair.client), text));
        tls_pair_close(&pair);
    }
    tls_server_context_unref(&server);
}

static void test_verify(void **state)
{
    struct fixture_certificate old = fixture_new(&(struct fixture_options){
        .names = "DNS:mail.a.test", .issuer = &ca, .from_s = -7200, .until_s = -60 });
    struct fixture_certificate self = fixture_simple("DNS:mail.a.test", "EC");
    struct fixture_certificate address = fixture_new(&(struct fixture_options){
        .names = "IP:127.0.0.1", .issuer = &ca });
    check_verify(&ec, "mail.a.test", "");
    check_verify(&ec, "x.b.test", "");
    check_verify(&address, "127.0.0.1", "");
    check_verify(&ec, "c.test", "name mismatch: expected c.test, certificate has mail.a.test, *.b.test");
    check_verify(&ec, "127.0.0.1", "name mismatch: expected 127.0.0.1, certificate has mail.a.test, *.b.test");
    check_verify(&old, "mail.a.test", "certificate has expired");
    check_verify(&self, "mail.a.test", "self-signed certificate");
    fixture_free(&old);
    fixture_free(&self);
    fixture_free(&address);
    struct tls_session *session;
    struct err err;
    assert_int_equal(tls_client_session_new(client, 0, NULL, true, NULL, &session, &err), ERR_CONFIG);
}

/* RFC 3207: what a man in the middle put behind STARTTLS is not read after the handshake. */
static void test_injection(void **state)
{
    struct tls_server_context *server = server_of(&ec, "mail.a.test", NULL, NULL);
    struct buf plain;
    struct tls_pair pair;
    struct tls_info info;
    struct err err;
    buf_init(&plain, 1000);
    buf_add_c(&plain, "MAIL FROM:<evil@test>\r\n");
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", true);
    tls_free(&pair.server);
    assert_int_equal(tls_server_session_new(server, NULL, pair.fd[0], &plain, NULL, NULL, &pair.server, &err), 0);
    assert_int_equal(plain.n, 0);
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_DONE);
    tls_pair_talk(&pair);
    tls_info(pair.server, &info);
    assert_int_equal(info.discarded_bytes, 23);
    tls_pair_close(&pair);
    buf_done(&plain);
    tls_server_context_unref(&server);
}

static void test_not_tls(void **state)
{
    static const struct {
        const char *sent, *text;
    } cases[] = {
        { "EHLO client.test\r\n", "TLS failed: what the peer sent is not TLS" },
        { "GET / HTTP/1.1\r\n\r\n", "TLS failed: what the peer sent is HTTP, not TLS" },
        { "", "the peer closed the connection during the handshake" },
    };
    struct tls_server_context *server = server_of(&ec, "mail.a.test", NULL, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd[2];
        struct tls_session *session;
        struct err err;
        char p[4];
        size_t n;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        assert_int_equal(tls_server_session_new(server, NULL, fd[0], NULL, NULL, NULL, &session, &err), 0);
        assert_int_equal(tls_handshake(session), TLS_WANT_READ);
        assert_int_equal(tls_read(session, p, sizeof p, &n), TLS_FAILED);
        assert_string_equal(tls_error(session), "");
        assert_int_equal(write(fd[1], cases[i].sent, strlen(cases[i].sent)), (ssize_t)strlen(cases[i].sent));
        shutdown(fd[1], SHUT_WR);
        enum tls_result result = tls_handshake(session);
        assert_int_equal(result, *cases[i].sent ? TLS_FAILED : TLS_CLOSED);
        assert_string_equal(tls_error(session), cases[i].text);
        assert_int_equal(tls_handshake(session), TLS_FAILED);
        tls_free(&session);
        close(fd[0]);
        close(fd[1]);
    }
    tls_server_context_unref(&server);
}

/* The peer goes away without close_notify, and writing meets a closed socket: no signal, a sentence. */
static void test_gone(void **state)
{
    struct tls_server_context *server = server_of(&ec, "mail.a.test", NULL, NULL);
    struct tls_pair pair;
    char p[4];
    size_t n;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", true);
    tls_pair_step(&pair);
    shutdown(pair.fd[1], SHUT_RDWR);
    assert_int_equal(tls_write(pair.server, "x", 1, &n), TLS_CLOSED);
    assert_string_equal(tls_error(pair.server), "the connection failed: Broken pipe");
    tls_pair_close(&pair);
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", true);
    tls_pair_step(&pair);
    shutdown(pair.fd[1], SHUT_RDWR);
    assert_int_equal(tls_read(pair.server, p, sizeof p, &n), TLS_CLOSED);
    assert_string_equal(tls_error(pair.server), "the peer closed the connection without closing TLS");
    assert_int_equal(tls_shutdown(pair.server), TLS_FAILED);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

/* More than the socket takes: partial writes, from a buffer that moves. */
static void test_much(void **state)
{
    enum { TOTAL = 3 * 1024 * 1024 };
    struct tls_server_context *server = server_of(&ec, "mail.a.test", NULL, NULL);
    struct tls_pair pair;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", true);
    tls_pair_step(&pair);
    char *sent = malloc(TOTAL), *got = malloc(TOTAL), *moved = malloc(TOTAL);
    for (size_t i = 0; i < TOTAL; i++)
        sent[i] = (char)(i * 31 >> 3);
    size_t out = 0, in = 0;
    bool blocked = false;
    while (in < TOTAL) {
        size_t n;
        if (out < TOTAL) {
            memcpy(moved, sent + out, TOTAL - out);
            enum tls_result result = tls_write(pair.client, moved, TOTAL - out, &n);
            assert_true(result == TLS_DONE || result == TLS_WANT_WRITE);
            out += n;
            if (result == TLS_DONE)
                continue;
            blocked = true;
        }
        while (tls_read(pair.server, got + in, TOTAL - in, &n) == TLS_DONE && (in += n) < TOTAL)
            ;
    }
    assert_true(blocked);
    assert_false(tls_pending(pair.server));
    assert_memory_equal(sent, got, TOTAL);
    free(sent);
    free(got);
    free(moved);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

static void test_bad_options(void **state)
{
    struct tls_server_context *context;
    struct tls_client_context *without;
    struct err err;
    struct tls_server_options options = {
        .name = "mail.a.test", .certificate_pem = str_of(ec.pem), .key = other.key,
    };
    assert_int_equal(tls_server_context_new(&options, &context, &err), ERR_TLS);
    assert_string_equal(err.text,
                        "the private key cannot be used with the certificate of mail.a.test: key values mismatch");
    options.key = ec.key;
    options.min_version = "1.4";
    assert_int_equal(tls_server_context_new(&options, &context, &err), ERR_CONFIG);
    options.min_version = NULL;
    options.certificate_pem = STR("nothing");
    assert_int_equal(tls_server_context_new(&options, &context, &err), ERR_TLS);
    assert_null(context);
    assert_int_equal(tls_client_context_new(STR("nothing"), &without, &err), ERR_CONFIG);
    assert_null(without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_and_keys), cmocka_unit_test(test_old_version),
        cmocka_unit_test(test_no_static_rsa), cmocka_unit_test(test_sni),
        cmocka_unit_test(test_resumption), cmocka_unit_test(test_ticket_key_rotation),
        cmocka_unit_test(test_verify), cmocka_unit_test(test_injection),
        cmocka_unit_test(test_not_tls), cmocka_unit_test(test_gone),
        cmocka_unit_test(test_much), cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
