#include "smtp/body.h"
#include "smtp/line.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check_scan(struct smtp_line *l, struct str in, enum smtp_line_end want, size_t want_used, bool want_cr)
{
    size_t used;
    assert_int_equal(smtp_line_scan(l, in, &used), want);
    assert_int_equal(used, want_used);
    assert_int_equal(l->cr, want_cr);
}

static void test_ends(void **state)
{
    struct smtp_line l = { 0 };
    check_scan(&l, STR("abc"), SMTP_LINE_MORE, 3, false);
    check_scan(&l, STR(""), SMTP_LINE_MORE, 0, false);
    check_scan(&l, STR("abc\r\nd"), SMTP_LINE_CRLF, 5, false);
    check_scan(&l, STR("abc\nd"), SMTP_LINE_BARE_LF, 4, false);
    check_scan(&l, STR("abc\rd"), SMTP_LINE_BARE_CR, 4, false);
    check_scan(&l, STR("abc\r\r\n"), SMTP_LINE_BARE_CR, 4, false);
    check_scan(&l, STR("ab\0c"), SMTP_LINE_NUL, 3, false);
    check_scan(&l, STR("abc\r"), SMTP_LINE_MORE, 4, true);
    check_scan(&l, STR(""), SMTP_LINE_MORE, 0, true);
    check_scan(&l, STR("\n"), SMTP_LINE_CRLF, 1, false);
    check_scan(&l, STR("\r"), SMTP_LINE_MORE, 1, true);
    check_scan(&l, STR("\r\n"), SMTP_LINE_BARE_CR, 0, false);
    check_scan(&l, STR("\r\n"), SMTP_LINE_CRLF, 2, false);
}

/* The scanner looks at sixteen octets at a time: every place and every tail must be seen. */
static void test_every_place(void **state)
{
    static const char specials[] = { '\r', '\n', 0 };
    char text[70];
    for (size_t n = 1; n < sizeof text; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t k = 0; k < 3; k++) {
                memset(text, 'x', sizeof text);
                text[at] = specials[k];
                struct smtp_line l = { 0 };
                size_t used;
                enum smtp_line_end end = smtp_line_scan(&l, str_slice(text, n), &used);
                enum smtp_line_end want = k == 1        ? SMTP_LINE_BARE_LF
                                          : k == 2      ? SMTP_LINE_NUL
                                          : at + 1 == n ? SMTP_LINE_MORE
                                                        : SMTP_LINE_BARE_CR;
                assert_int_equal(end, want);
                assert_int_equal(used, at + 1);
                assert_false(l.high);
            }
}

static void test_high(void **state)
{
    struct smtp_line l = { 0 };
    char text[40];
    memset(text, 'x', sizeof text);
    text[3] = '\n';
    text[5] = (char)0xe9;
    size_t used;
    smtp_line_scan(&l, str_slice(text, sizeof text), &used);
    assert_false(l.high); /* behind what was used */
    smtp_line_scan(&l, str_slice(text + used, sizeof text - used), &used);
    assert_true(l.high);
}

struct outcome {
    struct buf content;
    enum smtp_body_fault fault;
    bool end;
    size_t used;
};

static void read_body(struct smtp_body b, struct str in, size_t piece, struct outcome *ret)
{
    *ret = (struct outcome){ 0 };
    buf_init(&ret->content, 1 << 20);
    while (ret->used < in.n && !b.end) {
        struct str rest = str_skip(in, ret->used);
        if (rest.n > piece)
            rest.n = piece;
        size_t used;
        struct str slice = smtp_body_next(&b, rest, &used);
        assert_true(used <= rest.n);
        buf_add(&ret->content, slice);
        ret->used += used;
    }
    if (!b.dots)
        buf_add(&ret->content, smtp_body_finish(&b));
    ret->fault = b.fault;
    ret->end = b.end;
    if (!b.fault)
        assert_int_equal(ret->content.n, b.content_bytes);
}

static void check_body(struct smtp_body b, struct str in, size_t want_used, struct str want,
                       enum smtp_body_fault want_fault)
{
    for (size_t piece = 1; piece <= in.n + 1; piece++) {
        struct outcome o;
        read_body(b, in, piece, &o);
        assert_int_equal(o.fault, want_fault);
        assert_int_equal(o.used, want_used);
        assert_int_equal(o.end, b.dots);
        if (!want_fault)
            assert_true(str_eq(buf_str(&o.content), want));
        buf_done(&o.content);
    }
}

static void test_dots(void **state)
{
    const struct smtp_body data = { .dots = true };
    check_body(data, STR(".\r\nX"), 3, STR(""), SMTP_BODY_FINE);
    check_body(data, STR("a\r\n.\r\nX"), 6, STR("a\r\n"), SMTP_BODY_FINE);
    check_body(data, STR("..\r\n...\r\n.a\r\na.\r\n.\r\n"), 20, STR(".\r\n..\r\na\r\na.\r\n"), SMTP_BODY_FINE);
    check_body(data, STR("\r\n\r\n.\r\n"), 7, STR("\r\n\r\n"), SMTP_BODY_FINE);
    check_body(data, STR("\n.\r\n\r\n.\r\n"), 9, STR_NONE, SMTP_BODY_BARE_LF);
    check_body(data, STR(".\n.\r\r\n.\r\n"), 9, STR_NONE, SMTP_BODY_BARE_LF);
    check_body(data, STR(".\r.\r\n.\r\n"), 8, STR_NONE, SMTP_BODY_BARE_CR);
    check_body(data, STR("\r\r\n.\r\n"), 6, STR_NONE, SMTP_BODY_BARE_CR);
    check_body(data, STR("a\0\r\n.\r\n"), 7, STR_NONE, SMTP_BODY_NUL);
}

static void test_repair(void **state)
{
    const struct smtp_body data = { .dots = true, .repair = true }, chunk = { .repair = true };
    check_body(data, STR("\n.\n.\r\n\n..\r\n.\r\n"), 14, STR("\r\n.\r\n.\r\n\r\n..\r\n"), SMTP_BODY_FINE);
    check_body(data, STR(".\n.\r\n.\r\n"), 8, STR("\r\n.\r\n"), SMTP_BODY_FINE);
    check_body(data, STR("a\r.\n\r\n.\r\n"), 9, STR_NONE, SMTP_BODY_BARE_CR);
    check_body(chunk, STR("a\nb\n"), 4, STR("a\r\nb\r\n"), SMTP_BODY_FINE);
}

static void test_chunks(void **state)
{
    const struct smtp_body chunk = { 0 };
    check_body(chunk, STR(".\r\n.a"), 5, STR(".\r\n.a\r\n"), SMTP_BODY_FINE);
    check_body(chunk, STR(".\r\n"), 3, STR(".\r\n"), SMTP_BODY_FINE);
    check_body(chunk, STR("a\r"), 2, STR_NONE, SMTP_BODY_BARE_CR);
    check_body(chunk, STR("\r\r\n"), 3, STR_NONE, SMTP_BODY_BARE_CR);
    check_body(chunk, STR("\na"), 2, STR_NONE, SMTP_BODY_BARE_LF);
    check_body(chunk, STR(""), 0, STR(""), SMTP_BODY_FINE);
}

static void test_body_limits(void **state)
{
    const struct smtp_body lines = { .dots = true, .text_line_max_bytes = 3 }, size = { .dots = true, .max_bytes = 7 };
    check_body(lines, STR("abc\r\n.abc\r\n.\r\n"), 14, STR("abc\r\nabc\r\n"), SMTP_BODY_FINE);
    check_body(lines, STR("abcd\r\n.\r\n"), 9, STR_NONE, SMTP_BODY_LONG_LINE);
    check_body(size, STR("abcde\r\n.\r\n"), 10, STR("abcde\r\n"), SMTP_BODY_FINE);
    check_body(size, STR("abcdef\r\n.\r\n"), 11, STR_NONE, SMTP_BODY_TOO_BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),        cmocka_unit_test(test_every_place), cmocka_unit_test(test_high),
        cmocka_unit_test(test_dots),        cmocka_unit_test(test_repair),      cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_body_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
