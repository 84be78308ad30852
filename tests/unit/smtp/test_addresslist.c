/* addresslist: what programs write into To, Cc and Bcc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "smtp/addresslist.h"

static void join(void *arg, struct str mailbox)
{
    buf_add(arg, mailbox);
    buf_add_char(arg, '|');
}

static void check(const char *field, const char *expected)
{
    struct buf b;
    struct str bad;
    buf_init(&b, 4096);
    bool ok = smtp_addresslist_each(str_of(field), join, &b, &bad);
    if (!expected) {
        assert_false(ok);
    } else {
        assert_true(ok);
        assert_string_equal(buf_cstr(&b), expected);
    }
    buf_done(&b);
}

static void finds_mailboxes(void **state)
{
    (void)state;
    check("a@b.test", "a@b.test|");
    check(" A B <a@b.test> , c@d.test\r\n\t,\r\n e@f.test", "a@b.test|c@d.test|e@f.test|");
    check("\"Smith, John\" <j@b.test>", "j@b.test|");
    check("\"a b\"@c.test", "\"a b\"@c.test|");
    check("a@b.test (a comment, with (nested) comma), c@d.test", "a@b.test|c@d.test|");
    check("Friends: a@b.test, B <c@d.test>;, e@f.test", "a@b.test|c@d.test|e@f.test|");
    check("undisclosed-recipients:;", "");
    check("<@x.test,@y.test:a@b.test>", "a@b.test|");
    check("root", "root|");
    check("", "");
    check(", ,a@b.test,", "a@b.test|");
}

static void refuses_what_is_no_address(void **state)
{
    (void)state;
    check("a@b.test c@d.test", NULL);
    check("<a@b.test", NULL);
    check("a@b.test>", NULL);
    check("\"open <a@b.test>", NULL);
    check("a@b.test (open", NULL);
    check("<a@b.test> <c@d.test>", NULL);
    check("two words", NULL);
    check("<>", NULL);
    check("@", NULL);
    check("a\001b", NULL);
    check("a\177", NULL);
    char deep[3000];
    memset(deep, '(', sizeof deep);
    struct buf b;
    struct str bad;
    buf_init(&b, 100);
    assert_false(smtp_addresslist_each(str_slice(deep, sizeof deep), join, &b, &bad));
    memset(deep, 'a', sizeof deep);
    assert_false(smtp_addresslist_each(str_slice(deep, sizeof deep), join, &b, &bad));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(finds_mailboxes), cmocka_unit_test(refuses_what_is_no_address) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
