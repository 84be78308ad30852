/* Every fault that a KDC, a keytab and two clocks can bring about, each with its own cause; raw and through SPNEGO, where
 * the library's code is private and the text decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kerberos/library.h"
#include "lab.h"

#define SERVICE "SMTPSVC/mail.corp.test"

static struct krb_initiator *alice;

static int set_up(void **state)
{
    struct err err = { 0 };
    if (krb_init(getenv("KRB5_CONFIG"), &err) < 0 || krb_warm_up(&err) < 0)
        fail_msg("%s", err.text);
    lab_kadmin("addprinc -randkey " SERVICE "\naddprinc -randkey SMTPSVC/other.corp.test\n"
               "ktadd -k %s " SERVICE "\nktadd -k %s SMTPSVC/other.corp.test\n",
               lab_path("mail.keytab"), lab_path("other.keytab"));
    alice = lab_user("alice@CORP.TEST", "Alice-pass1");
    return 0;
}

static int tear_down(void **state)
{
    krb_initiator_free(&alice);
    return 0;
}

static int right_clock(void **state)
{
    lab_clock_offset_s = 0;
    setenv("KRB5_CONFIG", lab_path("krb5.conf"), 1);
    return 0;
}

static void expect_refusal(struct krb_initiator *initiator, const struct krb_keytab *keytab, const char *cause)
{
    struct krb_acceptor *acceptor = lab_acceptor(keytab);
    for (int spnego = 0; spnego < 2; spnego++)
        assert_string_equal(lab_refusal(initiator, acceptor, SERVICE, spnego), cause);
    krb_acceptor_free(&acceptor);
}

static void test_changed_password(void **state)
{
    /* The client's ticket is of the older key in the second half. */
    struct krb_keytab *older = lab_keytab("mail.keytab");
    struct krb_acceptor *acceptor = lab_acceptor(older);
    struct lab_login login = { .target = SERVICE };
    lab_login(alice, acceptor, &login); /* alice's ticket is in her cache now */
    assert_int_equal(login.server_status, KRB_COMPLETE);
    lab_login_done(&login);
    krb_acceptor_free(&acceptor);

    lab_kadmin("ktadd -k %s " SERVICE "\n", lab_path("newer.keytab"));
    struct krb_initiator *bob = lab_user("bob@CORP.TEST", "Bob-pass1");
    expect_refusal(bob, older, "kvno-old");
    struct krb_keytab *newer = lab_keytab("newer.keytab");
    expect_refusal(alice, newer, "kvno-new");
    krb_keytab_free(&newer);
    krb_keytab_free(&older);
    krb_initiator_free(&bob);
    lab_kadmin("ktadd -k %s " SERVICE "\n", lab_path("fresh.keytab"));
    krb_initiator_free(&alice);
    alice = lab_user("alice@CORP.TEST", "Alice-pass1");
}

static void test_keytabs_that_do_not_fit(void **state)
{
    struct krb_keytab *spoilt = lab_keytab_changed("fresh.keytab", 0, 0, true);
    expect_refusal(alice, spoilt, "wrong-key");
    krb_keytab_free(&spoilt);
    struct krb_keytab *aes128 = lab_keytab_changed("fresh.keytab", 17, 0, false);
    expect_refusal(alice, aes128, "enctype-missing");
    krb_keytab_free(&aes128);
    struct krb_keytab *other = lab_keytab("other.keytab");
    expect_refusal(alice, other, "not-our-service");
    krb_keytab_free(&other);
    /* A wrong number on the right key does no harm. */
    struct krb_keytab *renumbered = lab_keytab_changed("fresh.keytab", 0, 1, false);
    struct krb_acceptor *acceptor = lab_acceptor(renumbered);
    struct lab_login login = { .target = SERVICE };
    lab_login(alice, acceptor, &login);
    assert_int_equal(login.server_status, KRB_COMPLETE);
    lab_login_done(&login);
    krb_acceptor_free(&acceptor);
    krb_keytab_free(&renumbered);
}

/* The acceptor's clock is moved between the client's token and the server's look at it. */
static const char *refused_when(long offset_s, bool spnego, struct buf *ret_error)
{
    struct krb_keytab *keytab = lab_keytab("fresh.keytab");
    struct krb_acceptor *acceptor = lab_acceptor(keytab);
    struct krb_initiate_options initiate = { .target = SERVICE, .flags = KRB_MUTUAL, .spnego = spnego };
    struct krb_accept_options accept = { 0 };
    struct krb_context *client, *server;
    struct krb_failure failure;
    struct buf token;
    buf_init(&token, KRB_TOKEN_MAX);
    assert_int_equal(krb_initiate_new(alice, &initiate, &client, &failure), 0);
    assert_int_equal(krb_accept_new(acceptor, &accept, &server), 0);
    assert_int_equal(krb_context_step(client, STR_NONE, &token), KRB_CONTINUE);
    lab_clock_offset_s = offset_s;
    assert_int_equal(krb_context_step(server, buf_str(&token), ret_error), KRB_FAILED);
    lab_clock_offset_s = 0;
    const char *word = krb_cause_word(krb_context_failure(server)->cause);
    krb_context_free(&client);
    krb_context_free(&server);
    krb_acceptor_free(&acceptor);
    krb_keytab_free(&keytab);
    buf_done(&token);
    return word;
}

static void test_clocks(void **state)
{
    struct buf error;
    buf_init(&error, KRB_TOKEN_MAX);
    for (int spnego = 0; spnego < 2; spnego++) {
        assert_string_equal(refused_when(600, spnego, &error), "clock-skew");
        assert_string_equal(refused_when(-3600, spnego, &error), "ticket-not-yet-valid");
        assert_string_equal(refused_when(11 * 3600, spnego, &error), "ticket-expired");
    }
    assert_true(error.n > 0);
    buf_done(&error);
    /* The client's own ticket has ended: it notices before it sends. */
    struct krb_keytab *keytab = lab_keytab("fresh.keytab");
    struct krb_acceptor *acceptor = lab_acceptor(keytab);
    struct lab_login login = { .target = SERVICE };
    lab_clock_offset_s = 11 * 3600;
    assert_int_equal(krb_initiator_lifetime_s(alice), 0);
    lab_login(alice, acceptor, &login);
    assert_int_equal(login.client_status, KRB_FAILED);
    assert_string_equal(krb_cause_word(krb_context_failure(login.client)->cause), "ticket-expired");
    lab_login_done(&login);
    krb_acceptor_free(&acceptor);
    krb_keytab_free(&keytab);
}

static void test_replay(void **state)
{
    struct krb_keytab *keytab = lab_keytab("fresh.keytab");
    /* Two acceptors, as two threads have them, share the cache. */
    struct krb_acceptor *acceptor[2] = { lab_acceptor(keytab), lab_acceptor(keytab) };
    for (int spnego = 0; spnego < 2; spnego++) {
        struct lab_login login = { .target = SERVICE, .spnego = spnego };
        struct krb_accept_options accept = { 0 };
        struct buf out;
        lab_login(alice, acceptor[0], &login);
        assert_int_equal(login.server_status, KRB_COMPLETE);
        buf_init(&out, KRB_TOKEN_MAX);
        for (int i = 0; i < 2; i++) {
            struct krb_context *again;
            assert_int_equal(krb_accept_new(acceptor[i], &accept, &again), 0);
            assert_int_equal(krb_context_step(again, buf_str(&login.first), &out), KRB_FAILED);
            assert_string_equal(krb_cause_word(krb_context_failure(again)->cause), "replay");
            krb_context_free(&again);
        }
        buf_done(&out);
        lab_login_done(&login);
    }
    krb_acceptor_free(&acceptor[0]);
    krb_acceptor_free(&acceptor[1]);
    krb_keytab_free(&keytab);
}

/* Another process accepts, so that nothing of the server's own text is in this one: what the client learns is in the
 * error token. */
static void client_hears(const struct krb_keytab *keytab, bool spnego, const char *cause)
{
    struct krb_initiate_options initiate = { .target = SERVICE, .flags = KRB_MUTUAL, .spnego = spnego };
    struct krb_context *client;
    struct krb_failure failure;
    struct buf token;
    int answer[2], status;
    buf_init(&token, KRB_TOKEN_MAX);
    assert_int_equal(krb_initiate_new(alice, &initiate, &client, &failure), 0);
    assert_int_equal(krb_context_step(client, STR_NONE, &token), KRB_CONTINUE);
    assert_int_equal(pipe(answer), 0);
    pid_t child = fork();
    if (child == 0) {
        struct krb_accept_options accept = { 0 };
        struct krb_context *server;
        struct buf error;
        buf_init(&error, KRB_TOKEN_MAX);
        krb_accept_new(lab_acceptor(keytab), &accept, &server);
        bool failed = krb_context_step(server, buf_str(&token), &error) == KRB_FAILED;
        _exit(failed && write(answer[1], error.p, error.n) == (ssize_t)error.n ? 0 : 1);
    }
    close(answer[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    char error[4096];
    ssize_t n = read(answer[0], error, sizeof error);
    assert_true(n > 0);
    close(answer[0]);
    buf_clear(&token);
    assert_int_equal(krb_context_step(client, str_slice(error, (size_t)n), &token), KRB_FAILED);
    print_message("client: %s: %s\n", krb_cause_word(krb_context_failure(client)->cause),
                  krb_context_failure(client)->minor_text);
    assert_string_equal(krb_cause_word(krb_context_failure(client)->cause), cause);
    krb_context_free(&client);
    buf_done(&token);
}

static void test_what_the_client_hears(void **state)
{
    struct krb_keytab *old = lab_keytab("mail.keytab"), *other = lab_keytab("other.keytab");
    struct krb_keytab *spoilt = lab_keytab_changed("fresh.keytab", 0, 0, true);
    for (int spnego = 0; spnego < 2; spnego++) {
        client_hears(old, spnego, "kvno-old");
        client_hears(spoilt, spnego, "wrong-key");
        client_hears(other, spnego, "not-our-service");
    }
    krb_keytab_free(&old);
    krb_keytab_free(&other);
    krb_keytab_free(&spoilt);
}

static void expect_no_ticket(const char *target, bool spnego, const char *cause)
{
    struct krb_initiate_options initiate = { .target = target, .flags = KRB_MUTUAL, .spnego = spnego };
    struct krb_context *client;
    struct krb_failure failure;
    struct buf token;
    buf_init(&token, KRB_TOKEN_MAX);
    assert_int_equal(krb_initiate_new(alice, &initiate, &client, &failure), 0);
    assert_int_equal(krb_context_step(client, STR_NONE, &token), KRB_FAILED);
    print_message("%s: %s\n", krb_cause_word(krb_context_failure(client)->cause), krb_context_failure(client)->minor_text);
    assert_string_equal(krb_cause_word(krb_context_failure(client)->cause), cause);
    assert_int_equal(krb_context_step(client, STR_NONE, &token), KRB_FAILED);
    krb_context_free(&client);
    buf_done(&token);
}

static void put_configuration(const char *name, const char *libdefaults, const char *realms)
{
    FILE *f = fopen(lab_path(name), "w");
    assert_non_null(f);
    fprintf(f, "[libdefaults]\ndefault_realm = CORP.TEST\ndns_lookup_kdc = false\ndns_canonicalize_hostname = false\n"
            "%s\n[realms]\n%s\n", libdefaults, realms);
    assert_int_equal(fclose(f), 0);
    setenv("KRB5_CONFIG", lab_path(name), 1);
}

static void test_targets(void **state)
{
    char realm[100];
    lab_kadmin("addprinc -randkey -e aes128-cts:normal SMTPSVC/small.corp.test\n"
               "setstr SMTPSVC/small.corp.test session_enctypes aes128-cts\n");
    for (int spnego = 0; spnego < 2; spnego++) {
        expect_no_ticket("SMTPSVC/nosuch.corp.test", spnego, "spn-unknown");
        expect_no_ticket("smtp@nosuch.corp.test", spnego, "spn-unknown");
        expect_no_ticket("SMTPSVC/mail.far.test@FAR.TEST", spnego, "realm-unknown");
    }
    snprintf(realm, sizeof realm, "CORP.TEST = {\n kdc = 127.0.0.1:%s\n}", getenv("LAB_MIT_PORT"));
    put_configuration("aes256.conf", "permitted_enctypes = aes256-cts", realm);
    for (int spnego = 0; spnego < 2; spnego++)
        expect_no_ticket("SMTPSVC/small.corp.test", spnego, "enctype-unsupported");
    /* Nobody listens on port 1. */
    put_configuration("dead.conf", "", "CORP.TEST = {\n kdc = 127.0.0.1:1\n}");
    for (int spnego = 0; spnego < 2; spnego++)
        expect_no_ticket("SMTPSVC/other.corp.test", spnego, "kdc-silent");
}

static void expect_no_initiator(const char *principal, const char *password, const struct krb_keytab *keytab,
                                const char *cause)
{
    struct secret *secret = password ? secret_new(str_of(password)) : NULL;
    struct krb_initiator_options options = { .principal = principal, .password = secret, .keytab = keytab };
    struct krb_initiator *initiator;
    struct krb_failure failure;
    assert_true(krb_initiator_new(&options, &initiator, &failure) < 0);
    assert_null(initiator);
    print_message("%s: %s\n", krb_cause_word(failure.cause), failure.minor_text);
    assert_string_equal(krb_cause_word(failure.cause), cause);
    secret_free(&secret);
}

static void test_initiators(void **state)
{
    lab_kadmin("addprinc -pw Carol-pass1 +requires_preauth carol\naddprinc -pw Dave-pass1 -allow_tix dave\n"
               "addprinc -pw Erin-pass1 -pwexpire yesterday erin\naddprinc -pw Frank-pass1 -expire yesterday frank\n"
               "addprinc -randkey relay$\nktadd -k %s relay$\naddprinc -randkey gone$\n"
               "ktadd -k %s gone$\ncpw -randkey gone$\n",
               lab_path("relay.keytab"), lab_path("gone.keytab"));
    expect_no_initiator("alice@CORP.TEST", "wrong", NULL, "preauth-failed"); /* decided here: no preauthentication */
    expect_no_initiator("carol@CORP.TEST", "wrong", NULL, "preauth-failed"); /* decided by the KDC */
    expect_no_initiator("nosuch@CORP.TEST", "x", NULL, "client-unknown");
    expect_no_initiator("dave@CORP.TEST", "Dave-pass1", NULL, "client-revoked");
    expect_no_initiator("erin@CORP.TEST", "Erin-pass1", NULL, "password-expired");
    expect_no_initiator("frank@CORP.TEST", "Frank-pass1", NULL, "client-revoked");
    expect_no_initiator("alice@FAR.TEST", "x", NULL, "no-kdc");
    expect_no_initiator("", "x", NULL, "no-credentials");
    expect_no_initiator("alice@CORP.TEST", NULL, NULL, "no-credentials");
    struct krb_keytab *relay = lab_keytab("relay.keytab"), *gone = lab_keytab("gone.keytab");
    expect_no_initiator("alice@CORP.TEST", NULL, relay, "keytab-empty");
    expect_no_initiator("gone$@CORP.TEST", NULL, gone, "preauth-failed");
    krb_keytab_free(&relay);
    krb_keytab_free(&gone);
    put_configuration("dead.conf", "", "CORP.TEST = {\n kdc = 127.0.0.1:1\n}");
    expect_no_initiator("alice@CORP.TEST", "Alice-pass1", NULL, "kdc-silent");
}

static void test_garbage(void **state)
{
    static const unsigned char ntlm[] = "NTLMSSP\0\1\0\0\0\7\2\10\0";
    struct krb_keytab *keytab = lab_keytab("fresh.keytab");
    struct krb_acceptor *acceptor = lab_acceptor(keytab);
    struct krb_accept_options accept = { 0 };
    struct buf out, big;
    buf_init(&out, KRB_TOKEN_MAX);
    buf_init(&big, KRB_TOKEN_MAX + 1);
    memset(buf_reserve(&big, KRB_TOKEN_MAX + 1), 'x', KRB_TOKEN_MAX + 1);
    const struct str junk[] = { STR_NONE, STR("x"), STR("hello world, this is no token"),
                                str_slice(ntlm, sizeof ntlm), str_slice(big.p, KRB_TOKEN_MAX),
                                str_slice(big.p, KRB_TOKEN_MAX + 1) };
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++) {
        struct krb_context *server;
        assert_int_equal(krb_accept_new(acceptor, &accept, &server), 0);
        assert_int_equal(krb_context_step(server, junk[i], &out), KRB_FAILED);
        assert_string_equal(krb_cause_word(krb_context_failure(server)->cause), "defective-token");
        krb_context_free(&server);
    }
    for (int spnego = 0; spnego < 2; spnego++) {
        struct lab_login login = { .target = SERVICE, .spnego = spnego };
        lab_login(alice, acceptor, &login);
        for (size_t n = 0; n < login.first.n; n += n < 80 ? 1 : 37) {
            struct krb_context *server;
            assert_int_equal(krb_accept_new(acceptor, &accept, &server), 0);
            enum krb_status status = krb_context_step(server, str_slice(login.first.p, n), &out);
            assert_int_not_equal(status, KRB_COMPLETE);
            if (status == KRB_FAILED)
                assert_string_equal(krb_cause_word(krb_context_failure(server)->cause), "defective-token");
            buf_clear(&out);
            krb_context_free(&server);
        }
        lab_login_done(&login);
    }
    buf_done(&out);
    buf_done(&big);
    krb_acceptor_free(&acceptor);
    krb_keytab_free(&keytab);
}

static void test_bad_replay_cache(void **state)
{
    struct krb_keytab *keytab = lab_keytab("fresh.keytab");
    struct krb_acceptor_options options = { .keytab = keytab, .rcache = "nosuchtype:/x" };
    struct krb_acceptor *acceptor;
    struct krb_failure failure;
    assert_true(krb_acceptor_new(&options, &acceptor, &failure) < 0);
    assert_null(acceptor);
    assert_string_equal(krb_cause_word(failure.cause), "kerberos-internal");
    assert_true(strlen(failure.minor_text) > 0);
    krb_keytab_free(&keytab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changed_password),
        cmocka_unit_test(test_keytabs_that_do_not_fit),
        cmocka_unit_test_teardown(test_clocks, right_clock),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_what_the_client_hears),
        cmocka_unit_test_teardown(test_targets, right_clock),
        cmocka_unit_test_teardown(test_initiators, right_clock),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_bad_replay_cache),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
