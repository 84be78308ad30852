/* str, buf, arena, wire, base64, clock: the ground that everything stands on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/wire.h"

static void cuts_and_trims(void **state)
{
    (void)state;
    struct str rest = STR("a=b=c"), before;
    assert_true(str_cut(&rest, '=', &before));
    assert_true(str_eq(before, STR("a")) && str_eq(rest, STR("b=c")));
    rest = STR("none");
    assert_false(str_cut(&rest, '=', &before));
    assert_true(str_eq(before, STR("none")) && rest.n == 0);
    assert_true(str_eq(str_trim(STR(" \t x y \t")), STR("x y")));
    assert_true(str_ends_nocase(STR("mail.Corp.TEST"), STR(".corp.test")));
    assert_false(str_ends_nocase(STR("est"), STR("test")));
}

static void parses_numbers_with_bounds(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
    assert_false(str_to_u64(STR("18446744073709551616"), UINT64_MAX, &v));
    assert_false(str_to_u64(STR("101"), 100, &v));
    assert_true(str_to_u64(STR("100"), 100, &v) && v == 100);
    static const char *const bad[] = { "", "-1", "+1", " 1", "1 ", "0x1", "1e3" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(str_to_u64(str_of(bad[i]), 1000, &v));
    assert_false(str_to_u64(STR("5"), 4, &v));
    assert_int_equal(v, 100);
}

static void globs(void **state)
{
    (void)state;
    assert_true(str_glob_nocase(STR("X-MS-*"), STR("x-ms-exchange")));
    assert_true(str_glob_nocase(STR("*"), STR("")));
    assert_true(str_glob_nocase(STR("a*b*c"), STR("aXbYbZc")));
    assert_false(str_glob_nocase(STR("a*b*c"), STR("aXbYbZ")));
    assert_false(str_glob_nocase(STR("abc"), STR("ab")));
}

static void a_buffer_stops_at_its_cap(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_true(buf_add_c(&b, "12345678"));
    assert_false(buf_addf(&b, "%d", 999));
    assert_true(b.failed && b.n == 8);
    assert_false(buf_add_char(&b, '9')); /* once failed, all that follows is refused */
    buf_clear(&b);
    assert_true(buf_add_c(&b, "1234567890"));
    assert_string_equal(buf_cstr(&b), "1234567890");
    buf_consume(&b, 9);
    assert_true(str_eq(buf_str(&b), STR("0")));
    buf_done(&b);
}

static void an_arena_stops_at_its_cap(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 8192);
    size_t got = 0;
    while (arena_alloc(&a, 100))
        got++;
    assert_in_range(got, 50, 82);
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_done(&a);
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 5), "x-5");
    arena_done(&a);
}

static void base64_is_strict(void **state)
{
    (void)state;
    static const struct { const char *raw, *text; } pairs[] = {
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foobar", "Zm9vYmFy" },
    };
    struct buf b;
    buf_init(&b, 64);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        buf_clear(&b);
        assert_true(base64_encode(str_of(pairs[i].raw), &b) && str_eq(buf_str(&b), str_of(pairs[i].text)));
        buf_clear(&b);
        assert_true(base64_decode(str_of(pairs[i].text), &b) && str_eq(buf_str(&b), str_of(pairs[i].raw)));
    }
    static const char *const bad[] = { "Zg=", "Zg", "Zh==", "Zm9=", "Z===", "====", "Zm9v ", "Zm=v", "Zm9v\n", "Zg==Zg==" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_clear(&b);
        assert_false(base64_decode(str_of(bad[i]), &b));
        assert_int_equal(b.n, 0);
    }
    buf_done(&b);
}

static void wire_reads_what_it_wrote_and_nothing_else(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    wire_put_u8(&b, 250);
    wire_put_u16(&b, 65000);
    wire_put_u32(&b, 4000000000u);
    wire_put_u64(&b, UINT64_MAX - 1);
    wire_put_str(&b, STR("hello"));
    for (size_t cut = 0; cut <= b.n; cut++) {
        struct wire w = wire_of(str_slice(b.p, cut));
        uint8_t v8 = wire_get_u8(&w);
        uint16_t v16 = wire_get_u16(&w);
        uint32_t v32 = wire_get_u32(&w);
        uint64_t v64 = wire_get_u64(&w);
        struct str s = wire_get_str(&w, 5);
        assert_int_equal(wire_end(&w), cut == b.n);
        if (cut == b.n)
            assert_true(v8 == 250 && v16 == 65000 && v32 == 4000000000u && v64 == UINT64_MAX - 1 && str_eq(s, STR("hello")));
    }
    struct wire w = wire_of(str_skip(buf_str(&b), 15));
    assert_int_equal(wire_get_str(&w, 4).n, 0); /* longer than its bound */
    assert_true(w.bad);
    buf_done(&b);
}

static void writes_points_in_time(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_BYTES];
    clock_rfc3339(1795284453123, text);
    assert_string_equal(text, "2026-11-21T18:07:33.123Z");
    setenv("TZ", "UTC", 1);
    clock_rfc5322(1795284453123, text);
    assert_string_equal(text, "Sat, 21 Nov 2026 18:07:33 +0000");
}

static void errors_keep_their_context(void **state)
{
    (void)state;
    struct err err = { 0 };
    assert_int_equal(err_errno(&err, ENOENT, "cannot open %s", "x"), -ENOENT);
    assert_int_equal(err_wrap(&err, ERR_CONFIG, "server %s", "a"), ERR_CONFIG);
    assert_string_equal(err_text(&err), "server a: cannot open x: No such file or directory");
    assert_int_equal(err_set(NULL, ERR_LIMIT, "nobody listens"), ERR_LIMIT);
}

static void secrets_compare(void **state)
{
    (void)state;
    struct secret *s = secret_new(STR("pa\0ss"));
    assert_true(secret_equal(secret_bytes(s), STR("pa\0ss")));
    assert_false(secret_equal(secret_bytes(s), STR("pa\0sz")));
    assert_false(secret_equal(secret_bytes(s), STR("pa")));
    secret_free(&s);
    assert_null(s);
    secret_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_and_trims),
        cmocka_unit_test(parses_numbers_with_bounds),
        cmocka_unit_test(globs),
        cmocka_unit_test(a_buffer_stops_at_its_cap),
        cmocka_unit_test(an_arena_stops_at_its_cap),
        cmocka_unit_test(base64_is_strict),
        cmocka_unit_test(wire_reads_what_it_wrote_and_nothing_else),
        cmocka_unit_test(writes_points_in_time),
        cmocka_unit_test(errors_keep_their_context),
        cmocka_unit_test(secrets_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
