#include "smtp/params.h"

#include "smtp/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_params(void **state)
{
    struct str rest = STR("  SIZE=10 SMTPUTF8  X-a=<b>  ");
    struct smtp_param p;
    assert_int_equal(smtp_params_next(&rest, false, &p), SMTP_PARAMS_ONE);
    assert_true(str_eq(p.keyword, STR("SIZE")) && str_eq(p.value, STR("10")) && p.has_value);
    assert_int_equal(smtp_params_next(&rest, false, &p), SMTP_PARAMS_ONE);
    assert_true(str_eq(p.keyword, STR("SMTPUTF8")) && !p.has_value && p.value.n == 0);
    assert_int_equal(smtp_params_next(&rest, false, &p), SMTP_PARAMS_ONE);
    assert_true(str_eq(p.keyword, STR("X-a")) && str_eq(p.value, STR("<b>")));
    assert_int_equal(smtp_params_next(&rest, false, &p), SMTP_PARAMS_END);
}

static void test_bad_params(void **state)
{
    static const char *const bad[] = { "SIZE=1", " =1",     " -A=1",   " A=",         " A=b=c",
                                       " A_B",   " A=\x01", " A=\x7f", " A=\xc3\xa9", "\tA=1" };
    struct smtp_param p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct str rest = str_of(bad[i]);
        if (smtp_params_next(&rest, false, &p) != SMTP_PARAMS_BAD)
            fail_msg("[%s] was let through", bad[i]);
    }
    struct str rest = STR(" A=\xc3\xa9");
    assert_int_equal(smtp_params_next(&rest, true, &p), SMTP_PARAMS_ONE);
    rest = STR(" A=\xc3");
    assert_int_equal(smtp_params_next(&rest, true, &p), SMTP_PARAMS_BAD);
}

static void test_xtext(void **state)
{
    struct buf b;
    buf_init(&b, 100);
    assert_true(smtp_xtext_encode(STR("a+b=c d\xff"), &b));
    assert_true(str_eq(buf_str(&b), STR("a+2Bb+3Dc+20d+FF")));
    struct buf back;
    buf_init(&back, 100);
    assert_true(smtp_xtext_decode(buf_str(&b), &back));
    assert_true(str_eq(buf_str(&back), STR("a+b=c d\xff")));
    buf_done(&b);
    buf_done(&back);
    assert_false(smtp_xtext_valid(STR("a+2b")));
    assert_false(smtp_xtext_valid(STR("a+2")));
    assert_false(smtp_xtext_valid(STR("a+")));
    assert_false(smtp_xtext_valid(STR("a b")));
    assert_false(smtp_xtext_valid(STR("a=b")));
    assert_true(smtp_xtext_valid(STR("")));
}

static void test_orcpt(void **state)
{
    assert_true(smtp_orcpt_valid(STR("rfc822;a@b"), false));
    assert_false(smtp_orcpt_valid(STR("rfc822;"), false));
    assert_false(smtp_orcpt_valid(STR(";a@b"), false));
    assert_false(smtp_orcpt_valid(STR("a@b"), false));
    assert_false(smtp_orcpt_valid(STR("rfc822;a+b"), false));
    assert_true(smtp_orcpt_valid(STR("utf-8;\xc3\xa9@b"), true));
    assert_false(smtp_orcpt_valid(STR("utf-8;\xc3\xa9@b"), false));
    char text[502] = "rfc822;";
    memset(text + 7, 'x', sizeof text - 7);
    assert_true(smtp_orcpt_valid(str_slice(text, 500), false));
    assert_false(smtp_orcpt_valid(str_slice(text, 501), false));
}

static void check_reply(struct smtp_reply reply, bool more, bool utf8, struct str text, struct str want)
{
    struct buf b;
    buf_init(&b, 1000);
    assert_true(smtp_reply_line(&b, reply, more, utf8, text));
    assert_true(str_eq(buf_str(&b), want));
    buf_done(&b);
}

static void test_reply(void **state)
{
    check_reply((struct smtp_reply){ 250, "2.0.0" }, false, false, STR("Ok"), STR("250 2.0.0 Ok\r\n"));
    check_reply((struct smtp_reply){ 250, NULL }, true, false, STR("SIZE"), STR("250-SIZE\r\n"));
    check_reply((struct smtp_reply){ 550, "5.7.1" }, false, false, STR("a\r\n250 b\xc3\xa9\x7f"),
                STR("550 5.7.1 a??250 b???\r\n"));
    check_reply((struct smtp_reply){ 550, "5.7.1" }, false, true, STR("\xc3\xa9"), STR("550 5.7.1 \xc3\xa9\r\n"));

    char text[600];
    memset(text, 'x', sizeof text);
    struct buf b;
    buf_init(&b, 1000);
    assert_true(smtp_reply_line(&b, (struct smtp_reply){ 250, NULL }, false, false, str_slice(text, sizeof text)));
    assert_int_equal(b.n, 512);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_params), cmocka_unit_test(test_bad_params), cmocka_unit_test(test_xtext),
        cmocka_unit_test(test_orcpt),  cmocka_unit_test(test_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
