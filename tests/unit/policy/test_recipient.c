#include "policy/recipient.h"

#include "text_conf.h"

static void test_local(void **state)
{
    char longest[201];
    memset(longest, 'a', sizeof longest);
    static const struct {
        const char *p;
        size_t n;
        enum recipient_form form;
    } rows[] = {
        { "user", 4, RECIPIENT_OK },     { "a b", 3, RECIPIENT_OK },    { "a.", 2, RECIPIENT_OK },
        { "\xc3\xa4", 2, RECIPIENT_OK }, { "", 0, RECIPIENT_EMPTY },    { ".a", 2, RECIPIENT_DOT },
        { "..", 2, RECIPIENT_DOT },      { "a/b", 3, RECIPIENT_SLASH }, { "/", 1, RECIPIENT_SLASH },
        { "a\0b", 3, RECIPIENT_NUL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(recipient_check_local(str_slice(rows[i].p, rows[i].n)), rows[i].form);
        assert_non_null(recipient_form_text(rows[i].form));
    }
    assert_int_equal(recipient_check_local(str_slice(longest, 200)), RECIPIENT_OK);
    assert_int_equal(recipient_check_local(str_slice(longest, 201)), RECIPIENT_LONG);
}

static void test_postmaster(void **state)
{
    struct conf_domain ours = { .deliver = "discard" }, route = { 0 };
    assert_true(recipient_is_postmaster(STR("PostMaster"), STR(""), NULL));
    assert_true(recipient_is_postmaster(STR("postmaster"), STR("d.test"), &ours));
    assert_false(recipient_is_postmaster(STR("postmaster"), STR("d.test"), &route));
    assert_false(recipient_is_postmaster(STR("postmaster"), STR("d.test"), NULL));
    assert_false(recipient_is_postmaster(STR("postmaster2"), STR("d.test"), &ours));
}

static void test_table(void **state)
{
    struct recipient_table *table;
    struct err err = { 0 };
    assert_int_equal(
        recipient_table_new(STR("# who\n\nAlice\r\nbob@D.test # there only\n  carol \nalice\n\tx@y"), &table, &err),
        0);
    assert_int_equal(recipient_table_count(table), 4);
    assert_true(recipient_table_has(table, STR("alice"), STR("d.test")));
    assert_true(recipient_table_has(table, STR("ALICE"), STR("e.test")));
    assert_true(recipient_table_has(table, STR("Bob"), STR("d.TEST")));
    assert_false(recipient_table_has(table, STR("bob"), STR("e.test")));
    assert_false(recipient_table_has(table, STR("dave"), STR("d.test")));
    assert_false(recipient_table_has(table, STR(""), STR("d.test")));
    assert_true(recipient_table_has(table, STR("x"), STR("y")));
    recipient_table_free(&table);
    assert_null(table);
    assert_int_equal(recipient_table_new(STR(""), &table, &err), 0);
    assert_false(recipient_table_has(table, STR("a"), STR("b")));
    recipient_table_free(&table);
    assert_int_equal(recipient_table_new(STR("good\nalice bob\n"), &table, &err), ERR_SYNTAX);
    assert_string_equal(err.text, "line 2: one address or local part stands on a line");
    assert_int_equal(recipient_table_new(STR("@d.test"), &table, &err), ERR_SYNTAX);
    assert_int_equal(recipient_table_new(STR("a\0b"), &table, &err), ERR_SYNTAX);
}

static void test_source(void **state)
{
    assert_int_equal(recipient_source(&(struct conf_domain){ .recipients = "any" }), RECIPIENT_ANY);
    assert_int_equal(recipient_source(&(struct conf_domain){ .recipients = "users" }), RECIPIENT_USERS);
    assert_int_equal(recipient_source(&(struct conf_domain){ .recipients = "/etc/r" }), RECIPIENT_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local), cmocka_unit_test(test_postmaster), cmocka_unit_test(test_table),
        cmocka_unit_test(test_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
