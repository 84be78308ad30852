#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "conf/schema.h"
#include "conf/value.h"

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t octets;
        const char *written;
    } rows[] = {
        { "0", 0, "0" },          { "50M", 50 << 20, "50M" }, { "50m", 50 << 20, "50M" }, { "96KiB", 96 << 10, "96K" },
        { "96 KB", 96 << 10, "96K" }, { "1025", 1025, "1025" }, { "2048", 2048, "2K" },   { "1G", 1 << 30, "1G" },
    };
    static const char *const bad[] = {
        "", "M", "-1", "1.5M", "50X", "99999999999999999999", "18446744073709551615G", "1 2"
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v = 1;
        struct buf b;
        buf_init(&b, 100);
        assert_true(conf_size_parse(str_of(rows[i].text), &v));
        assert_int_equal(v, rows[i].octets);
        conf_size_format(v, &b);
        assert_string_equal(buf_cstr(&b), rows[i].written);
        buf_done(&b);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(conf_size_parse(str_of(bad[i]), &(uint64_t){ 0 }));
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t seconds;
        const char *written;
    } rows[] = {
        { "0", 0, "0" }, { "30s", 30, "30s" }, { "5m", 300, "5m" }, { "5d", 432000, "5d" }, { "90", 90, "1m30s" },
        { "1h30m", 5400, "1h30m" }, { "1w", 604800, "1w" }, { "36H", 129600, "1d12h" },
    };
    static const char *const bad[] = { "", "m", "5 m", "30m1h", "1h1h", "5x", "5m5", "-1s", "99999999999999999999d" };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v = 1;
        struct buf b;
        buf_init(&b, 100);
        assert_true(conf_duration_parse(str_of(rows[i].text), &v));
        assert_int_equal(v, rows[i].seconds);
        conf_duration_format(v, &b);
        assert_string_equal(buf_cstr(&b), rows[i].written);
        buf_done(&b);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(conf_duration_parse(str_of(bad[i]), &(uint64_t){ 0 }));
}

/* Every row's own default and example must pass the row's own checks, and be explained. */
static void test_schema(void **state)
{
    for (size_t i = 0; i < conf_schema_n; i++) {
        const struct conf_option *option = &conf_schema[i];
        union {
            struct conf top;
            struct conf_server server;
            struct conf_host host;
            struct conf_domain domain;
        } base = { 0 };
        struct arena arena;
        arena_init(&arena, 1 << 20);
        if (!conf_value_default(option, &arena, &base))
            fail_msg("the default of %s is refused", option->name);
        assert_true(option->help && option->help[0]);
        bool amount = option->type == CONF_SIZE || option->type == CONF_DURATION || option->type == CONF_NUMBER;
        assert_int_equal(amount, option->max > 0);
        assert_ptr_equal(conf_option_find(option->where, str_of(option->name)), option);
        if (option->type == CONF_DURATION || option->type == CONF_NUMBER)
            assert_true(option->max <= UINT32_MAX);
        arena_done(&arena);
    }
    assert_true(conf_schema_n < CONF_OPTIONS_MAX);
    const char *names[CONF_OPTIONS_MAX];
    conf_names(CONF_SERVER, names);
    assert_string_equal(names[0], "listen");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
