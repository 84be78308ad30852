#include "smtp/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check(const char *text, enum smtp_address_fault want)
{
    struct smtp_address a;
    enum smtp_address_fault fault;
    bool ok = smtp_address_parse(str_of(text), &a, &fault);
    if (fault != want || ok != (want == SMTP_ADDRESS_OK))
        fail_msg("%s: fault %d, expected %d", text, fault, want);
    assert_non_null(smtp_address_fault_text(fault));
}

static void test_mailboxes(void **state)
{
    check("a@b", SMTP_ADDRESS_OK);
    check("first.last+tag@mail.example.com", SMTP_ADDRESS_OK);
    check("!#$%&'*+-/=?^_`{|}~@x.test", SMTP_ADDRESS_OK);
    check("\"a b\\\"@>\"@x.test", SMTP_ADDRESS_OK);
    check("\"\"@x.test", SMTP_ADDRESS_OK);
    check(".a..b.@x.test", SMTP_ADDRESS_OK);
    check("a@[192.0.2.1]", SMTP_ADDRESS_OK);
    check("a@[IPv6:2001:db8::1]", SMTP_ADDRESS_OK);
    check("a@[x400:what-ever]", SMTP_ADDRESS_OK);
    check("a@xn--bcher-kva.example", SMTP_ADDRESS_OK);
    check("a@under_score.test", SMTP_ADDRESS_OK);
    check("b\xc3\xbc@b\xc3\xbc.test", SMTP_ADDRESS_OK);

    check("", SMTP_ADDRESS_LOCAL_EMPTY);
    check("@x.test", SMTP_ADDRESS_LOCAL_EMPTY);
    check("a", SMTP_ADDRESS_NO_DOMAIN);
    check("a@", SMTP_ADDRESS_NO_DOMAIN);
    check("a b@x", SMTP_ADDRESS_LOCAL);
    check("a(c)@x", SMTP_ADDRESS_LOCAL);
    check("a@b@c", SMTP_ADDRESS_DOMAIN);
    check("\"a@x.test", SMTP_ADDRESS_LOCAL);
    check("\"a\\", SMTP_ADDRESS_LOCAL);
    check("\"a\"b@x", SMTP_ADDRESS_LOCAL);
    check("a\x01@x", SMTP_ADDRESS_LOCAL);
    check("a@.x", SMTP_ADDRESS_DOMAIN);
    check("a@x.", SMTP_ADDRESS_DOMAIN);
    check("a@x..y", SMTP_ADDRESS_DOMAIN);
    check("a@-x", SMTP_ADDRESS_DOMAIN);
    check("a@x-.y", SMTP_ADDRESS_DOMAIN);
    check("a@x y", SMTP_ADDRESS_DOMAIN);
    check("a@[192.0.2]", SMTP_ADDRESS_DOMAIN);
    check("a@[192.0.2.1", SMTP_ADDRESS_DOMAIN);
    check("a@[IPv6:2001::db8::1]", SMTP_ADDRESS_DOMAIN);
    check("a@[]", SMTP_ADDRESS_DOMAIN);
    check("a@[x:]", SMTP_ADDRESS_DOMAIN);
    check("\xff@x.test", SMTP_ADDRESS_UTF8);
    check("a@\xed\xa0\x80.test", SMTP_ADDRESS_UTF8);
}

static void test_lengths(void **state)
{
    char text[700];
    memset(text, 'x', sizeof text);
    text[255] = '@';
    text[257] = 0;
    check(text, SMTP_ADDRESS_OK);
    text[255] = 'x';
    text[256] = '@';
    text[258] = 0;
    check(text, SMTP_ADDRESS_LOCAL_LONG);

    struct str domain = str_slice(text, 63);
    memset(text, 'x', sizeof text);
    assert_true(smtp_address_domain_valid(domain, false));
    domain.n = 64;
    assert_false(smtp_address_domain_valid(domain, false));
    for (size_t i = 50; i < sizeof text; i += 51)
        text[i] = '.';
    domain.n = 255; /* 50 letters and a dot, five times */
    assert_false(smtp_address_domain_valid(domain, false));
    domain.n = 254;
    assert_true(smtp_address_domain_valid(domain, false));
    domain.n = 256;
    assert_false(smtp_address_domain_valid(domain, false));
}

static void check_path(const char *text, unsigned flags, enum smtp_address_fault want, const char *mailbox,
                       const char *rest_want)
{
    struct smtp_address a;
    enum smtp_address_fault fault;
    struct str rest = str_of(text);
    bool ok = smtp_address_parse_path(&rest, flags, &a, &fault);
    if (fault != want || ok != (want == SMTP_ADDRESS_OK))
        fail_msg("%s: fault %d, expected %d", text, fault, want);
    if (!ok)
        return;
    assert_true(str_eq(a.text, str_of(mailbox)));
    assert_true(str_eq(rest, str_of(rest_want)));
}

static void test_paths(void **state)
{
    const unsigned null = SMTP_ADDRESS_NULL_OK, postmaster = SMTP_ADDRESS_POSTMASTER_OK;
    check_path("<a@b> X=1", null, SMTP_ADDRESS_OK, "a@b", " X=1");
    check_path("<>", null, SMTP_ADDRESS_OK, "", "");
    check_path("<>", postmaster, SMTP_ADDRESS_NULL, "", "");
    check_path("<PostMaster>", postmaster, SMTP_ADDRESS_OK, "PostMaster", "");
    check_path("<postmaster>", null, SMTP_ADDRESS_NO_DOMAIN, "", "");
    check_path("<@x.test,@y.test:a@b>", 0, SMTP_ADDRESS_OK, "a@b", "");
    check_path("<@x.test,y.test:a@b>", 0, SMTP_ADDRESS_ROUTE, "", "");
    check_path("<@:a@b>", 0, SMTP_ADDRESS_ROUTE, "", "");
    check_path("<@x.test:>", 0, SMTP_ADDRESS_LOCAL_EMPTY, "", "");
    check_path("<\">\"@b>z", 0, SMTP_ADDRESS_OK, "\">\"@b", "z");
    check_path("<a@b", 0, SMTP_ADDRESS_BRACKETS, "", "");
    check_path("a@b>", 0, SMTP_ADDRESS_BRACKETS, "", "");
    check_path("<<a@b>>", 0, SMTP_ADDRESS_LOCAL, "", "");
    check_path("< a@b>", 0, SMTP_ADDRESS_LOCAL, "", "");
    check_path("", 0, SMTP_ADDRESS_BRACKETS, "", "");
}

static void check_plain(const char *text, const char *want)
{
    struct smtp_address a;
    assert_true(smtp_address_parse(str_of(text), &a, NULL));
    struct buf b;
    buf_init(&b, 300);
    assert_true(smtp_address_local_plain(&a, &b));
    assert_true(str_eq(buf_str(&b), str_of(want)));
    buf_done(&b);
}

static void test_local_plain(void **state)
{
    check_plain("a.b@x", "a.b");
    check_plain("\"a b\"@x", "a b");
    check_plain("\"a\\\"b\\\\\"@x", "a\"b\\");
    check_plain("\"\"@x", "");
}

static void test_utf8(void **state)
{
    assert_true(smtp_utf8_valid(STR("\xf4\x8f\xbf\xbf")));
    assert_true(smtp_utf8_valid(STR("\xe0\xa0\x80 z")));
    assert_false(smtp_utf8_valid(STR("\xf4\x90\x80\x80")));
    assert_false(smtp_utf8_valid(STR("\xc0\x80")));
    assert_false(smtp_utf8_valid(STR("\xe0\x9f\xbf")));
    assert_false(smtp_utf8_valid(STR("\xe2\x82")));
    assert_false(smtp_utf8_valid(STR("\x80")));
    assert_true(smtp_is_ascii(STR("abc")));
    assert_false(smtp_is_ascii(STR("ab\x80")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailboxes),   cmocka_unit_test(test_lengths), cmocka_unit_test(test_paths),
        cmocka_unit_test(test_local_plain), cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
