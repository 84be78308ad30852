/* Logins that work, with a KDC: raw and SPNEGO, with and without mutual authentication, bound to a channel; what the
 * outside of the token tells; and messages wrapped both ways, by GSS-API and by a seal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <unistd.h>

#include "kerberos/library.h"
#include "kerberos/seal.h"
#include "lab.h"

#define SERVICE "SMTPSVC/mail.corp.test"

static struct krb_keytab *keytab;
static struct krb_acceptor *acceptor;
static struct krb_initiator *alice;

static int set_up(void **state)
{
    struct err err = { 0 };
    if (krb_init(getenv("KRB5_CONFIG"), &err) < 0 || krb_warm_up(&err) < 0 || krb_seal_init(&err) < 0)
        fail_msg("%s", err.text);
    lab_kadmin("addprinc -randkey " SERVICE "\naddprinc -randkey smtp/mail.corp.test\naddprinc -randkey mail$\n"
               "ktadd -k %s " SERVICE " smtp/mail.corp.test\nktadd -k %s mail$\n",
               lab_path("mail.keytab"), lab_path("client.keytab"));
    keytab = lab_keytab("mail.keytab");
    acceptor = lab_acceptor(keytab);
    alice = lab_user("alice@CORP.TEST", "Alice-pass1");
    return 0;
}

static int tear_down(void **state)
{
    krb_initiator_free(&alice);
    krb_acceptor_free(&acceptor);
    krb_keytab_free(&keytab);
    return 0;
}

static void expect_complete(const struct lab_login *login)
{
    if (login->client_status == KRB_FAILED)
        fail_msg("client: %s", krb_context_failure(login->client)->minor_text);
    if (login->server_status == KRB_FAILED)
        fail_msg("server: %s", krb_context_failure(login->server)->minor_text);
    assert_int_equal(login->client_status, KRB_COMPLETE);
    assert_int_equal(login->server_status, KRB_COMPLETE);
}

static void expect_str(struct str s, const char *expected)
{
    assert_int_equal(s.n, strlen(expected));
    assert_memory_equal(s.p, expected, s.n);
}

static void logs_in(bool spnego, unsigned flags)
{
    struct lab_login login = { .target = SERVICE, .flags = flags, .spnego = spnego };
    struct krb_session session;
    struct krb_ticket ticket;
    lab_login(alice, acceptor, &login);
    expect_complete(&login);
    expect_str(krb_context_peer(login.server), "alice@CORP.TEST");
    expect_str(krb_context_peer(login.client), SERVICE);
    assert_int_equal(krb_context_spnego(login.server), spnego);
    assert_int_equal(krb_context_flags(login.server) & KRB_MUTUAL, flags & KRB_MUTUAL);
    assert_int_equal(krb_context_flags(login.server) & (KRB_BOUND | KRB_DELEGATED), 0);
    /* A server of GSS-SPNEGO starts a layer on these flags, also when nobody asked for them. */
    const unsigned protects = KRB_INTEGRITY | KRB_CONFIDENTIALITY;
    if (!(flags & protects))
        assert_int_equal(krb_context_flags(login.server) & protects, 0);
    krb_context_session(login.server, &session);
    assert_int_equal(session.enctype, 18);
    assert_in_range(session.lifetime_s, 9 * 3600, 10 * 3600 + 600);

    assert_true(krb_ticket_read(buf_str(&login.first), &ticket));
    assert_string_equal(ticket.service, SERVICE);
    assert_string_equal(ticket.realm, "CORP.TEST");
    assert_int_equal(ticket.form, spnego ? KRB_TOKEN_SPNEGO_INIT : KRB_TOKEN_RAW);
    assert_int_equal(krb_token_is_spnego(buf_str(&login.first)), spnego);
    assert_true(ticket.has_kvno);
    assert_int_equal(ticket.kvno, 2);
    assert_int_equal(ticket.enctype, 18);
    assert_int_equal(ticket.mutual, (flags & KRB_MUTUAL) != 0);
    struct krb_keytab_match match;
    krb_keytab_match(keytab, &ticket, &match);
    assert_int_equal(match.rows_of_service, 2);
    assert_true(match.same_case && match.has_kvno && match.has_enctype);
    assert_int_equal(match.kvno_highest, 2);
    lab_login_done(&login);
}

static void test_logins(void **state)
{
    for (int spnego = 0; spnego < 2; spnego++) {
        logs_in(spnego, 0);
        logs_in(spnego, KRB_MUTUAL);
        logs_in(spnego, KRB_MUTUAL | KRB_INTEGRITY | KRB_CONFIDENTIALITY | KRB_SEQUENCE);
    }
}

/* What we read from the outside is what krb5 decodes from the ticket in the client's cache. */
static void test_ticket_as_krb5_sees_it(void **state)
{
    krb5_context krb5;
    krb5_ccache ccache;
    krb5_creds wanted = { 0 }, creds;
    krb5_ticket *decoded;
    krb5_principal client;
    struct krb_ticket ticket;
    OM_uint32 minor;
    char *name;
    struct lab_login login = { .target = "smtp/mail.corp.test", .flags = KRB_MUTUAL };
    lab_login(alice, acceptor, &login);
    expect_complete(&login);
    assert_true(krb_ticket_read(buf_str(&login.first), &ticket));
    assert_int_equal(krb5_init_context(&krb5), 0);
    assert_int_equal(krb5_cc_new_unique(krb5, "MEMORY", NULL, &ccache), 0);
    assert_int_equal(krb5_parse_name(krb5, krb_initiator_principal(alice), &client), 0);
    assert_int_equal(krb5_cc_initialize(krb5, ccache, client), 0);
    assert_int_equal(gss_krb5_copy_ccache(&minor, krb_initiator_credential(alice), ccache), 0);
    wanted.client = client;
    assert_int_equal(krb5_parse_name(krb5, "smtp/mail.corp.test@CORP.TEST", &wanted.server), 0);
    assert_int_equal(krb5_cc_retrieve_cred(krb5, ccache, KRB5_TC_MATCH_SRV_NAMEONLY, &wanted, &creds), 0);
    assert_int_equal(krb5_decode_ticket(&creds.ticket, &decoded), 0);
    assert_int_equal(krb5_unparse_name_flags(krb5, decoded->server, KRB5_PRINCIPAL_UNPARSE_NO_REALM, &name), 0);
    assert_string_equal(ticket.service, name);
    assert_int_equal(ticket.kvno, decoded->enc_part.kvno);
    assert_int_equal(ticket.enctype, decoded->enc_part.enctype);
    assert_int_equal(ticket.authenticator_enctype, creds.keyblock.enctype);
    krb5_free_unparsed_name(krb5, name);
    krb5_free_ticket(krb5, decoded);
    krb5_free_cred_contents(krb5, &creds);
    krb5_free_principal(krb5, wanted.server);
    krb5_free_principal(krb5, client);
    krb5_cc_destroy(krb5, ccache);
    krb5_free_context(krb5);
    lab_login_done(&login);
}

static void bound_login(struct str client, struct str server, bool required, bool spnego, enum krb_status status,
                        unsigned bound, const char *cause)
{
    struct lab_login login = { .target = SERVICE, .flags = KRB_MUTUAL, .spnego = spnego, .client_bindings = client,
                               .server_bindings = server, .bindings_required = required };
    lab_login(alice, acceptor, &login);
    assert_int_equal(login.server_status, status);
    if (status == KRB_COMPLETE)
        assert_int_equal(krb_context_flags(login.server) & KRB_BOUND, bound);
    else
        assert_string_equal(krb_cause_word(krb_context_failure(login.server)->cause), cause);
    lab_login_done(&login);
}

static void test_bindings(void **state)
{
    struct buf ours, other;
    buf_init(&ours, 200);
    buf_init(&other, 200);
    assert_true(krb_binding_build(KRB_BINDING_SERVER_END_POINT, STR("0123456789abcdef0123456789abcdef"), &ours));
    assert_true(krb_binding_build(KRB_BINDING_EXPORTER, STR("0123456789abcdef0123456789abcdef"), &other));
    expect_str(buf_str(&ours), "tls-server-end-point:0123456789abcdef0123456789abcdef");
    expect_str(buf_str(&other), "tls-exporter:0123456789abcdef0123456789abcdef");
    struct str a = buf_str(&ours), b = buf_str(&other);
    for (int spnego = 0; spnego < 2; spnego++) {
        bound_login(a, a, true, spnego, KRB_COMPLETE, KRB_BOUND, NULL);
        bound_login(STR_NONE, a, false, spnego, KRB_COMPLETE, 0, NULL);
        bound_login(a, STR_NONE, false, spnego, KRB_COMPLETE, 0, NULL);
        bound_login(STR_NONE, a, true, spnego, KRB_FAILED, 0, "bindings-missing");
        bound_login(b, a, false, spnego, KRB_FAILED, 0, "bad-bindings");
    }
    buf_done(&ours);
    buf_done(&other);
}

/* A server that turns a login down for want of bindings must not tell the client that it is in. */
static void test_no_token_after_missing_bindings(void **state)
{
    struct lab_login login = { .target = SERVICE, .flags = KRB_MUTUAL, .server_bindings = STR("tls-exporter:x"),
                               .bindings_required = true };
    lab_login(alice, acceptor, &login);
    assert_int_equal(login.server_status, KRB_FAILED);
    assert_int_equal(login.error.n, 0);
    struct buf out;
    bool confidential;
    buf_init(&out, 1000);
    assert_false(krb_context_wrap(login.server, false, STR("x"), &out));
    assert_false(krb_context_unwrap(login.server, STR("x"), &out, &confidential));
    assert_int_equal(krb_context_plain_max(login.server, false, 65536), 0);
    assert_int_equal(krb_context_step(login.server, buf_str(&login.first), &out), KRB_FAILED);
    buf_done(&out);
    lab_login_done(&login);
}

static void send_message(struct krb_context *from, struct krb_context *to, bool confidential)
{
    struct buf token, plain;
    bool really;
    buf_init(&token, 100000);
    buf_init(&plain, 100000);
    assert_true(krb_context_wrap(from, confidential, STR("MAIL FROM:<a@b>\r\n"), &token));
    assert_int_equal(memmem(token.p, token.n, "MAIL", 4) == NULL, confidential);
    assert_true(krb_context_unwrap(to, buf_str(&token), &plain, &really));
    assert_int_equal(really, confidential);
    expect_str(buf_str(&plain), "MAIL FROM:<a@b>\r\n");
    /* Once more is a replay, and one bit more is damage; neither adds a single octet. */
    size_t n = plain.n;
    assert_false(krb_context_unwrap(to, buf_str(&token), &plain, &really));
    assert_string_equal(krb_cause_word(krb_context_failure(to)->cause), "replay");
    token.p[token.n - 1] ^= 1;
    assert_false(krb_context_unwrap(to, buf_str(&token), &plain, &really));
    assert_string_equal(krb_cause_word(krb_context_failure(to)->cause), "defective-token");
    assert_int_equal(plain.n, n);
    buf_done(&token);
    buf_done(&plain);
}

static void test_messages(void **state)
{
    for (int spnego = 0; spnego < 2; spnego++) {
        struct lab_login login = { .target = SERVICE, .spnego = spnego,
                                   .flags = KRB_MUTUAL | KRB_INTEGRITY | KRB_CONFIDENTIALITY | KRB_SEQUENCE };
        lab_login(alice, acceptor, &login);
        expect_complete(&login);
        for (int confidential = 0; confidential < 2; confidential++) {
            send_message(login.client, login.server, confidential);
            send_message(login.server, login.client, confidential);
            uint32_t max = krb_context_plain_max(login.server, confidential, 65536);
            assert_in_range(max, 65000, 65535);
            assert_int_equal(krb_context_plain_max(login.server, confidential, 8), 0);
            struct buf plain, token;
            buf_init(&plain, 65536);
            buf_init(&token, 65536);
            memset(buf_reserve(&plain, max), 'x', max);
            assert_true(krb_context_wrap(login.server, confidential, str_slice(plain.p, max), &token));
            assert_true(token.n <= 65536);
            bool really;
            buf_clear(&plain);
            assert_true(krb_context_unwrap(login.client, buf_str(&token), &plain, &really));
            assert_int_equal(plain.n, max);
            buf_done(&plain);
            buf_done(&token);
        }
        lab_login_done(&login);
    }
}

/* The server's side goes on as a seal (another process), the client's stays GSS-API. */
static void test_seal_takes_over(void **state)
{
    for (int spnego = 0; spnego < 2; spnego++) {
        struct lab_login login = { .target = SERVICE, .spnego = spnego,
                                   .flags = KRB_MUTUAL | KRB_INTEGRITY | KRB_CONFIDENTIALITY | KRB_SEQUENCE };
        struct krb_seal *seal;
        struct err err = { 0 };
        struct buf exported, token, plain;
        bool really;
        lab_login(alice, acceptor, &login);
        expect_complete(&login);
        send_message(login.client, login.server, false);
        assert_true(krb_seal_possible(krb_context_gss(login.server)));
        buf_init(&exported, KRB_SEAL_STATE_MAX);
        buf_init(&token, 4096);
        buf_init(&plain, 4096);
        void *gss = krb_context_take_gss(login.server);
        assert_null(krb_context_gss(login.server));
        assert_false(krb_context_wrap(login.server, true, STR("x"), &plain));
        if (krb_seal_export(&gss, &exported, &err) < 0 || krb_seal_new(buf_str(&exported), &seal, &err) < 0)
            fail_msg("%s", err.text);
        expect_str(krb_context_peer(login.server), "alice@CORP.TEST");
        for (int confidential = 0; confidential < 2; confidential++) {
            assert_true(krb_seal_wrap(seal, confidential, STR("250 ok\r\n"), &token));
            assert_true(krb_context_unwrap(login.client, buf_str(&token), &plain, &really));
            assert_int_equal(really, confidential);
            expect_str(buf_str(&plain), "250 ok\r\n");
            buf_clear(&token);
            buf_clear(&plain);
            assert_true(krb_context_wrap(login.client, confidential, STR("QUIT\r\n"), &token));
            assert_true(krb_seal_unwrap(seal, buf_str(&token), &plain, &really));
            assert_int_equal(really, confidential);
            expect_str(buf_str(&plain), "QUIT\r\n");
            buf_clear(&token);
            buf_clear(&plain);
        }
        krb_seal_free(&seal);
        buf_wipe(&exported);
        buf_done(&token);
        buf_done(&plain);
        lab_login_done(&login);
    }
}

static void test_initiator_with_keytab(void **state)
{
    struct krb_keytab *client = lab_keytab("client.keytab");
    struct krb_initiator_options options = { .principal = "mail$@CORP.TEST", .keytab = client };
    struct krb_initiator *initiator;
    struct krb_failure failure;
    assert_int_equal(krb_initiator_new(&options, &initiator, &failure), 0);
    krb_keytab_free(&client);
    assert_string_equal(krb_initiator_principal(initiator), "mail$@CORP.TEST");
    assert_in_range(krb_initiator_lifetime_s(initiator), 9 * 3600, 10 * 3600);
    /* The host-based form, as krb5.conf's domain_realm sends it. */
    struct lab_login login = { .target = "smtp@mail.corp.test", .flags = KRB_MUTUAL };
    lab_login(initiator, acceptor, &login);
    expect_complete(&login);
    expect_str(krb_context_peer(login.server), "mail$@CORP.TEST");
    lab_login_done(&login);
    krb_initiator_free(&initiator);
}

/* A new keytab: acceptors made from the older one go on until they are freed. */
static void test_keytab_generations(void **state)
{
    struct krb_keytab *first = lab_keytab("mail.keytab"), *second = lab_keytab("mail.keytab");
    struct krb_acceptor *old = lab_acceptor(first);
    assert_string_not_equal(krb_keytab_name(first), krb_keytab_name(second));
    krb_keytab_free(&first);
    struct lab_login login = { .target = SERVICE };
    lab_login(alice, old, &login);
    expect_complete(&login);
    lab_login_done(&login);
    krb_acceptor_free(&old);
    krb_keytab_free(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logins),
        cmocka_unit_test(test_ticket_as_krb5_sees_it),
        cmocka_unit_test(test_bindings),
        cmocka_unit_test(test_no_token_after_missing_bindings),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_seal_takes_over),
        cmocka_unit_test(test_initiator_with_keytab),
        cmocka_unit_test(test_keytab_generations),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
