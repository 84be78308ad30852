/* The Kerberos side of a login in auth, with tickets of a real KDC (tests/lab/mit): which services it lets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "../kerberos/lab.h"
#include "daemon/auth/kerberos.h"
#include "kerberos/library.h"

static struct auth_keytab *keytab;
static struct krb_initiator *alice;

static int set_up(void **state)
{
    struct err err = { 0 };
    struct auth auth = { 0 };
    if (krb_init(getenv("KRB5_CONFIG"), &err) < 0 || krb_warm_up(&err) < 0)
        fail_msg("%s", err.text);
    lab_kadmin("addprinc -randkey SMTPSVC/mail.corp.test\naddprinc -randkey HTTP/mail.corp.test\n"
               "ktadd -k %s SMTPSVC/mail.corp.test HTTP/mail.corp.test\n", lab_path("mail.keytab"));
    struct ipc_file file = { .name = STR("mail.corp.test"), .text = str_of(lab_path("mail.keytab")) };
    int fd = open(lab_path("mail.keytab"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    keytab = auth_keytab_new(&auth, &file, fd);
    close(fd);
    assert_non_null(keytab);
    alice = lab_user("alice@CORP.TEST", "Alice-pass1");
    return 0;
}

static int tear_down(void **state)
{
    krb_initiator_free(&alice);
    auth_keytab_unref(&keytab);
    return 0;
}

/* The client's first token. */
static void get_token(const char *target, bool spnego, struct str bindings, struct buf *ret_token)
{
    struct krb_initiate_options options = { .target = target, .bindings = bindings, .spnego = spnego };
    struct krb_context *client;
    struct krb_failure failure;
    buf_init(ret_token, 1 << 17);
    assert_int_equal(krb_initiate_new(alice, &options, &client, &failure), 0);
    assert_int_not_equal(krb_context_step(client, STR_NONE, ret_token), KRB_FAILED);
    krb_context_free(&client);
}

/* What auth makes of a token: NULL, or the cause of the refusal. */
static const char *verdict(struct conf_server *server, struct str cert_hash, bool required, struct str token)
{
    struct kerberos_options options = { .keytab = keytab, .server = server, .cert_hash = cert_hash,
                                        .exporter = cert_hash.n ? STR("exported") : STR_NONE,
                                        .binding_required = required };
    char rcache[512];
    snprintf(rcache, sizeof rcache, "file2:%s", lab_path("rcache"));
    options.rcache = str_of(rcache);
    struct kerberos_exchange *x = kerberos_exchange_new(&options);
    struct buf out;
    buf_init(&out, 1 << 17);
    assert_non_null(x);
    const struct sasl_gss *gss = kerberos_exchange_gss(x);
    const char *cause = NULL;
    if (gss->step(gss->context, token, &out) == SASL_GSS_FAILED)
        cause = krb_cause_word(kerberos_exchange_failure(x)->cause);
    else
        assert_true(str_eq(gss->peer(gss->context), STR("alice@CORP.TEST")));
    buf_done(&out);
    kerberos_exchange_free(&x);
    return cause;
}

static const char *try(struct conf_server *server, const char *target, bool spnego)
{
    struct buf token;
    get_token(target, spnego, STR_NONE, &token);
    const char *cause = verdict(server, STR_NONE, false, buf_str(&token));
    buf_done(&token);
    return cause;
}

static struct conf_server mail = { .name = "mail.corp.test" };

static void a_ticket_for_us_and_one_for_a_neighbour(void **state)
{
    for (int spnego = 0; spnego < 2; spnego++) {
        assert_null(try(&mail, "SMTPSVC/mail.corp.test", spnego));
        assert_string_equal(try(&mail, "HTTP/mail.corp.test", spnego), "service-not-allowed");
    }
}

static void what_spn_names_is_allowed_and_nothing_else(void **state)
{
    static const char *const web[] = { "http/MAIL.corp.test@CORP.TEST" }, *const far[] = { "HTTP/mail.corp.test@FAR.TEST" };
    struct conf_server server = { .name = "mail.corp.test", .spn = { web, 1 } };
    assert_null(try(&server, "HTTP/mail.corp.test", false));
    assert_string_equal(try(&server, "SMTPSVC/mail.corp.test", false), "service-not-allowed");
    server.spn = (struct conf_strings){ far, 1 };
    assert_string_equal(try(&server, "HTTP/mail.corp.test", false), "service-not-allowed");
}

static void put_element(unsigned char tag, struct str value, struct buf *out)
{
    unsigned char head[4] = { tag, 0x82, (unsigned char)(value.n >> 8), (unsigned char)value.n };
    buf_add(out, str_slice((const char *)head, sizeof head));
    buf_add(out, value);
}

/* DER again, with another text in the place of the strings that are `old`. "01 00" looks like an element, too. */
static void replace(struct str in, struct str old, struct str new, struct buf *out)
{
    while (in.n > 0) {
        const unsigned char *p = (const unsigned char *)in.p;
        size_t head = 2, n = p[1];
        if (n & 0x80) {
            assert_true(n == 0x81 || n == 0x82);
            head = n == 0x81 ? 3 : 4;
            n = head == 3 ? p[2] : (size_t)p[2] << 8 | p[3];
        }
        struct str value = str_slice(in.p + head, n);
        struct buf inner;
        buf_init(&inner, 1 << 17);
        if (p[0] & 0x20)
            replace(value, old, new, &inner);
        if (p[0] & 0x20)
            put_element(p[0], buf_str(&inner), out);
        else if (str_eq(value, old))
            put_element(p[0], new, out);
        else
            buf_add(out, str_slice(in.p, head + n));
        buf_done(&inner);
        in = str_skip(in, head + n);
    }
}

/* A ticket's name is not protected, so a client can write one that we have no room for; krb5 has. */
static void what_cannot_be_read_is_not_for_us(void **state)
{
    char name[KRB_TICKET_NAME_BYTES + 1];
    struct buf token, turned;
    struct krb_ticket ticket;
    memset(name, 'a', sizeof name);
    get_token("HTTP/mail.corp.test", false, STR_NONE, &token);
    buf_init(&turned, 1 << 17);
    replace(buf_str(&token), STR("mail.corp.test"), str_slice(name, sizeof name), &turned);
    assert_true(turned.n > token.n + 400);
    assert_false(krb_ticket_read(buf_str(&turned), &ticket));
    assert_string_equal(verdict(&mail, STR_NONE, false, buf_str(&turned)), "service-not-allowed");
    buf_done(&turned);
    buf_done(&token);
}

/* Both kinds, and a token that was taken by the second look is as used up as any other. */
static void bindings(void **state)
{
    struct buf token, data;
    for (int spnego = 0; spnego < 2; spnego++) {
        buf_init(&data, 256);
        krb_binding_build(KRB_BINDING_EXPORTER, STR("exported"), &data);
        get_token("SMTPSVC/mail.corp.test", spnego, buf_str(&data), &token);
        assert_null(verdict(&mail, STR("hash"), true, buf_str(&token)));
        assert_string_equal(verdict(&mail, STR("hash"), true, buf_str(&token)), "replay");
        buf_done(&token);
        get_token("HTTP/mail.corp.test", spnego, buf_str(&data), &token);
        assert_string_equal(verdict(&mail, STR("hash"), true, buf_str(&token)), "service-not-allowed");
        buf_done(&token);
        buf_done(&data);
    }
    buf_init(&data, 256);
    krb_binding_build(KRB_BINDING_SERVER_END_POINT, STR("hash"), &data);
    get_token("SMTPSVC/mail.corp.test", false, buf_str(&data), &token);
    assert_string_equal(verdict(&mail, STR("other"), false, buf_str(&token)), "bad-bindings");
    buf_done(&token);
    get_token("SMTPSVC/mail.corp.test", false, buf_str(&data), &token);
    assert_null(verdict(&mail, STR("hash"), true, buf_str(&token)));
    assert_string_equal(verdict(&mail, STR("hash"), true, buf_str(&token)), "replay");
    buf_done(&token);
    get_token("SMTPSVC/mail.corp.test", false, STR_NONE, &token);
    assert_string_equal(verdict(&mail, STR("hash"), true, buf_str(&token)), "bindings-missing");
    buf_done(&token);
    buf_done(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticket_for_us_and_one_for_a_neighbour),
        cmocka_unit_test(what_spn_names_is_allowed_and_nothing_else),
        cmocka_unit_test(what_cannot_be_read_is_not_for_us),
        cmocka_unit_test(bindings),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
