/* Elements of DER: what is one, what is not, and that nothing moves when it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/der.h"

static void elements(void **state)
{
    static const struct {
        struct str octets;
        bool good;
        unsigned tag;
        struct str inside;
        size_t left;
    } rows[] = {
        { STR("\x04\x03" "abc"), true, DER_OCTET_STRING, STR("abc"), 0 },
        { STR("\x04\x00"), true, DER_OCTET_STRING, STR(""), 0 },
        { STR("\x30\x01xrest"), true, DER_SEQUENCE, STR("x"), 4 },
        { STR("\x04\x81\x03" "abc"), true, DER_OCTET_STRING, STR("abc"), 0 },
        { STR("\x04\x84\x00\x00\x00\x03" "abc"), true, DER_OCTET_STRING, STR("abc"), 0 },
        { STR(""), false },
        { STR("\x04"), false },
        { STR("\x04\x04" "abc"), false },                 /* longer than what is there */
        { STR("\x04\x80" "abc\0\0"), false },             /* indefinite */
        { STR("\x04\x82\x00"), false },                   /* the length itself is cut off */
        { STR("\x04\x84\xff\xff\xff\xff" "abc"), false },
        { STR("\x04\x85\x00\x00\x00\x00\x03" "abc"), false }, /* more octets of length than anything needs */
        { STR("\x1f\x01x"), false },                      /* a tag of several octets */
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str rest = rows[i].octets, inside = STR("untouched");
        unsigned tag = 0;
        assert_int_equal(der_next(&rest, &tag, &inside), rows[i].good);
        if (!rows[i].good) {
            assert_ptr_equal(rest.p, rows[i].octets.p);
            assert_int_equal(rest.n, rows[i].octets.n);
            assert_true(str_eq(inside, STR("untouched")));
            continue;
        }
        assert_int_equal(tag, rows[i].tag);
        assert_true(str_eq(inside, rows[i].inside));
        assert_int_equal(rest.n, rows[i].left);
    }
}

static void another_tag_moves_nothing(void **state)
{
    struct str rest = STR("\x30\x03\x04\x01x!"), inside;
    (void)state;
    assert_false(der_want(&rest, DER_OCTET_STRING, &inside));
    assert_int_equal(rest.n, 6);
    assert_true(der_want(&rest, DER_SEQUENCE, &inside));
    assert_true(str_eq(rest, STR("!")));
    assert_true(der_want(&inside, DER_OCTET_STRING, &inside)); /* and further in, with one variable */
    assert_true(str_eq(inside, STR("x")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements),
        cmocka_unit_test(another_tag_moves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
