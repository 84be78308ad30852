/* Handshakes whose key is elsewhere: the provider, as io/tls.h drives it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <sys/resource.h>

#include "../io/tls_pair.h"
#include "fixture.h"
#include "io/tls_context.h"
#include "keystore/provider.h"

enum { HELD_MAX = 1024 };

/* A signer that keeps requests until release(), or answers at once. */
static struct {
    bool at_once, refuse, unreachable;
    EVP_PKEY *key;
    struct {
        struct sign_waiter *waiter;
        unsigned char signature[SIGN_SIGNATURE_MAX];
        size_t n;
    } held[HELD_MAX];
    size_t n, cancelled;
    char key_name[SIGN_KEY_NAME_BYTES];
} box;

static int box_sign(void *arg, const struct sign_request *request, struct sign_waiter *waiter)
{
    if (box.unreachable)
        return ERR_CLOSED;
    struct buf signature;
    struct err err = { 0 };
    buf_init(&signature, SIGN_SIGNATURE_MAX);
    assert_true(str_copy(request->key, box.key_name, sizeof box.key_name));
    if (!box.refuse && sign_in_process(box.key, request, &signature, &err) < 0)
        fail_msg("%s", err.text);
    if (box.at_once) {
        waiter->answered(waiter, buf_str(&signature));
    } else {
        assert_true(box.n < HELD_MAX);
        box.held[box.n].waiter = waiter;
        box.held[box.n].n = signature.n;
        if (signature.n)
            memcpy(box.held[box.n].signature, signature.p, signature.n);
        box.n++;
    }
    buf_done(&signature);
    return 0;
}

static void box_cancel(void *arg, struct sign_waiter *waiter)
{
    for (size_t i = 0; i < box.n; i++) {
        if (box.held[i].waiter == waiter) {
            box.held[i].waiter = NULL;
            box.cancelled++;
        }
    }
}

static void box_release(void)
{
    for (size_t i = 0; i < box.n; i++)
        if (box.held[i].waiter)
            box.held[i].waiter->answered(box.held[i].waiter, str_slice(box.held[i].signature, box.held[i].n));
    box.n = 0;
}

static const struct signer box_signer = { .sign = box_sign, .cancel = box_cancel };
static struct fixture_certificate ec, rsa;
static struct tls_client_context *client;

static int setup(void **state)
{
    struct err err;
    ec = fixture_simple("DNS:mail.a.test", "EC");
    rsa = fixture_simple("DNS:mail.a.test", "RSA");
    return tls_client_context_new(str_of(ec.pem), &client, &err);
}

static int teardown(void **state)
{
    tls_client_context_unref(&client);
    fixture_free(&ec);
    fixture_free(&rsa);
    return 0;
}

static struct tls_server_context *server_of(const struct fixture_certificate *f, const char *min_version)
{
    struct tls_server_context *context;
    EVP_PKEY *key;
    struct err err = { 0 };
    memset(&box, 0, sizeof box);
    box.key = f->key;
    if (provider_key_new("mail.a.test", str_of(f->pem), &box_signer, &key, &err) < 0)
        fail_msg("%s", err.text);
    struct tls_server_options options = {
        .name = "mail.a.test", .certificate_pem = str_of(f->pem), .key = key, .key_elsewhere = true,
        .min_version = min_version,
    };
    if (tls_server_context_new(&options, &context, &err) < 0)
        fail_msg("%s", err.text);
    EVP_PKEY_free(key);
    return context;
}

static void one_handshake(const struct fixture_certificate *f, int version, bool at_once)
{
    struct tls_server_context *server = server_of(f, version < TLS1_2_VERSION ? "1.0" : NULL);
    struct tls_pair pair;
    char name[SIGN_KEY_NAME_BYTES];
    box.at_once = at_once;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    SSL_set_min_proto_version(pair.client->ssl, version);
    SSL_set_max_proto_version(pair.client->ssl, version);
    if (version < TLS1_2_VERSION)
        assert_true(SSL_set_cipher_list(pair.client->ssl, "ECDHE+AES:@SECLEVEL=0"));
    pair.server_ready = false;
    tls_pair_step(&pair);
    if (!at_once) {
        assert_int_equal(pair.server_result, TLS_WANT_SIGN);
        /* Calling too early does no harm. */
        assert_int_equal(tls_handshake(pair.server), TLS_WANT_SIGN);
        assert_int_equal(box.n, 1);
        assert_false(pair.server_ready);
        box_release();
        assert_true(pair.server_ready);
        tls_pair_step(&pair);
    }
    assert_int_equal(pair.server_result, TLS_DONE);
    assert_int_equal(pair.client_result, TLS_DONE);
    tls_pair_talk(&pair);
    tls_pair_check_bindings(&pair);
    assert_int_equal(sign_key_name("mail.a.test", f->key, name, NULL), 0);
    assert_string_equal(box.key_name, name);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

static void test_handshakes(void **state)
{
    static const int versions[] = { TLS1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION };
    for (size_t i = 0; i < 3; i++) {
        for (int at_once = 0; at_once < 2; at_once++) {
            one_handshake(&ec, versions[i], at_once);
            one_handshake(&rsa, versions[i], at_once);
        }
    }
}

/* Refused at once, refused later, unreachable: the handshake fails with a reason; the client is told. */
static void test_signer_fails(void **state)
{
    for (int i = 0; i < 3; i++) {
        struct tls_server_context *server = server_of(&ec, NULL);
        struct tls_pair pair;
        tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
        box.refuse = true;
        box.at_once = i == 0;
        box.unreachable = i == 1;
        tls_pair_step(&pair);
        if (i == 2) {
            assert_int_equal(pair.server_result, TLS_WANT_SIGN);
            box_release();
            tls_pair_step(&pair);
        }
        assert_int_equal(pair.server_result, TLS_FAILED);
        assert_non_null(strstr(tls_error(pair.server), "no signature with the key of mail.a.test"));
        assert_int_equal(pair.client_result, TLS_FAILED);
        assert_string_equal(tls_error(pair.client), "TLS failed: the peer reported an error of its own");
        tls_pair_close(&pair);
        tls_server_context_unref(&server);
    }
}

/* A signature of another key must not pass the client. */
static void test_wrong_key(void **state)
{
    struct fixture_certificate wrong = fixture_simple("DNS:mail.a.test", "EC");
    struct tls_server_context *server = server_of(&ec, NULL);
    struct tls_pair pair;
    box.key = wrong.key;
    box.at_once = true;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    tls_pair_step(&pair);
    assert_int_equal(pair.client_result, TLS_FAILED);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
    fixture_free(&wrong);
}

/* The client has gone, or a time limit came: a session is freed while its job stands still. The leak
 * checker would tell of the job's stack. */
static void test_free_paused(void **state)
{
    struct tls_server_context *server = server_of(&ec, NULL);
    for (int i = 0; i < 20; i++) {
        struct tls_pair pair;
        tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
        tls_pair_step(&pair);
        assert_int_equal(pair.server_result, TLS_WANT_SIGN);
        tls_pair_close(&pair);
        assert_int_equal(box.cancelled, i + 1);
    }
    /* The answers come too late. */
    box_release();
    tls_server_context_unref(&server);
}

static void free_when_ready(void *arg)
{
    struct tls_pair *pair = arg;
    tls_free(&pair->server);
}

static void test_free_in_ready(void **state)
{
    struct tls_server_context *server = server_of(&ec, NULL);
    struct tls_pair pair;
    struct err err;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    tls_free(&pair.server);
    assert_int_equal(
        tls_server_session_new(server, NULL, pair.fd[0], NULL, free_when_ready, &pair, &pair.server, &err), 0);
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_WANT_SIGN);
    box_release();
    assert_null(pair.server);
    tls_pair_close(&pair);
    tls_server_context_unref(&server);
}

/* A context may go while sessions that began with it go on (reload). */
static void test_context_goes_first(void **state)
{
    struct tls_server_context *server = server_of(&ec, NULL);
    struct tls_pair pair;
    tls_pair_open(&pair, server, NULL, client, "mail.a.test", false);
    tls_pair_step(&pair);
    tls_server_context_unref(&server);
    box_release();
    tls_pair_step(&pair);
    assert_int_equal(pair.server_result, TLS_DONE);
    tls_pair_talk(&pair);
    tls_pair_close(&pair);
}

/* More handshakes at once than there are jobs: the rest waits for its turn and is woken. */
static void test_more_than_jobs(void **state)
{
    enum { PAIRS = 600, JOBS = 512 };
    struct rlimit limit; /* an ordinary user's shell mostly allows 1,024 */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct tls_server_context *server = server_of(&ec, NULL);
    struct tls_pair *pair = calloc(PAIRS, sizeof *pair);
    for (size_t i = 0; i < PAIRS; i++) {
        tls_pair_open(&pair[i], server, NULL, client, "mail.a.test", false);
        tls_pair_step(&pair[i]);
        assert_int_equal(pair[i].server_result, TLS_WANT_SIGN);
        pair[i].server_ready = false;
    }
    assert_int_equal(box.n, JOBS);
    /* One that waits for a job goes away. */
    tls_pair_close(&pair[PAIRS - 1]);
    size_t done = 0;
    for (int round = 0; round < 20 && done < PAIRS - 1; round++) {
        box_release();
        for (size_t i = 0; i < PAIRS - 1; i++) {
            if (!pair[i].server || !pair[i].server_ready)
                continue;
            pair[i].server_ready = false;
            tls_pair_step(&pair[i]);
            if (pair[i].server_result == TLS_WANT_SIGN)
                continue;
            assert_int_equal(pair[i].server_result, TLS_DONE);
            tls_pair_close(&pair[i]);
            done++;
        }
    }
    assert_int_equal(done, PAIRS - 1);
    free(pair);
    tls_server_context_unref(&server);
}

static void test_bad_keys(void **state)
{
    struct fixture_certificate p384 = fixture_simple(NULL, "P-384");
    EVP_PKEY *key;
    struct err err;
    char longname[300];
    memset(longname, 'a', sizeof longname - 1);
    longname[sizeof longname - 1] = 0;
    assert_int_equal(provider_key_new("a", STR("nothing"), &box_signer, &key, &err), ERR_TLS);
    assert_null(key);
    assert_int_equal(provider_key_new(longname, str_of(ec.pem), &box_signer, &key, &err), ERR_LIMIT);
    assert_null(key);
    assert_int_equal(provider_key_new("a", str_of(p384.pem), &box_signer, &key, &err), 0);
    EVP_PKEY_free(key);
    fixture_free(&p384);
}

/* The certificate and the key must belong together here too, and the private half must not come out. */
static void test_public_half(void **state)
{
    EVP_PKEY *key;
    struct err err;
    struct tls_server_context *context;
    assert_int_equal(provider_key_new("a", str_of(rsa.pem), &box_signer, &key, &err), 0);
    assert_int_equal(EVP_PKEY_eq(key, rsa.key), 1);
    assert_int_not_equal(EVP_PKEY_eq(key, ec.key), 1);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 0);
    BIO_free(bio);
    struct tls_server_options options = { .name = "a", .certificate_pem = str_of(ec.pem), .key = key };
    assert_int_equal(tls_server_context_new(&options, &context, &err), ERR_TLS);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshakes), cmocka_unit_test(test_signer_fails),
        cmocka_unit_test(test_wrong_key), cmocka_unit_test(test_free_paused),
        cmocka_unit_test(test_free_in_ready), cmocka_unit_test(test_context_goes_first),
        cmocka_unit_test(test_more_than_jobs), cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_public_half),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
