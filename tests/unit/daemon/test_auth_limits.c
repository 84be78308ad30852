/* Counting failures, and remembering verified passwords: both with a clock of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/auth/cache.h"
#include "daemon/auth/limits.h"

enum { MINUTE_MS = 60000, NOW_MS = 1000 * MINUTE_MS };

static int64_t fail_at(struct auth_limits *limits, const char *address, uint32_t limit, int64_t now_ms, bool *ret_locked)
{
    return auth_limits_failed(limits, str_of(address), limit, now_ms, ret_locked);
}

static void slows_down_then_locks_out(void **state)
{
    struct auth_limits *limits = auth_limits_new();
    bool locked;
    int64_t before = 0;
    for (int i = 1; i <= 10; i++) {
        assert_false(auth_limits_locked(limits, STR("192.0.2.1"), 10, NOW_MS));
        int64_t delay = fail_at(limits, "192.0.2.1", 10, NOW_MS, &locked);
        assert_int_equal(locked, i == 10);
        assert_true(i <= 5 ? delay == 0 : delay > before && delay <= LIMITS_DELAY_MAX_MS);
        before = delay;
    }
    assert_true(auth_limits_locked(limits, STR("192.0.2.1"), 10, NOW_MS));
    assert_true(auth_limits_locked(limits, STR("::ffff:192.0.2.1"), 10, NOW_MS));
    assert_false(auth_limits_locked(limits, STR("192.0.2.2"), 10, NOW_MS));
    assert_false(auth_limits_locked(limits, STR("192.0.2.1"), 0, NOW_MS));
    /* Ten minutes later it is over, and not before. */
    assert_true(auth_limits_locked(limits, STR("192.0.2.1"), 10, NOW_MS + 9 * MINUTE_MS));
    assert_false(auth_limits_locked(limits, STR("192.0.2.1"), 10, NOW_MS + 10 * MINUTE_MS));
    auth_limits_free(&limits);
}

static void the_window_slides(void **state)
{
    struct auth_limits *limits = auth_limits_new();
    bool locked;
    fail_at(limits, "192.0.2.1", 3, NOW_MS, &locked);
    fail_at(limits, "192.0.2.1", 3, NOW_MS + 5 * MINUTE_MS, &locked);
    fail_at(limits, "192.0.2.1", 3, NOW_MS + 11 * MINUTE_MS, &locked);
    assert_false(locked);
    fail_at(limits, "192.0.2.1", 3, NOW_MS + 12 * MINUTE_MS, &locked);
    assert_true(locked);
    assert_true(auth_limits_locked(limits, STR("192.0.2.1"), 3, NOW_MS + 14 * MINUTE_MS));
    assert_false(auth_limits_locked(limits, STR("192.0.2.1"), 3, NOW_MS + 15 * MINUTE_MS));
    auth_limits_free(&limits);
}

static void a_v6_network_counts_as_one(void **state)
{
    struct auth_limits *limits = auth_limits_new();
    bool locked;
    fail_at(limits, "2001:db8:0:1::1", 2, NOW_MS, &locked);
    fail_at(limits, "2001:db8:0:1:ffff::2", 2, NOW_MS, &locked);
    assert_true(locked);
    assert_true(auth_limits_locked(limits, STR("2001:db8:0:1::3"), 2, NOW_MS));
    assert_false(auth_limits_locked(limits, STR("2001:db8:0:2::1"), 2, NOW_MS));
    fail_at(limits, "no address", 1, NOW_MS, &locked);
    assert_true(auth_limits_locked(limits, STR("nor this one"), 1, NOW_MS));
    auth_limits_free(&limits);
}

static void the_table_is_bounded(void **state)
{
    struct auth_limits *limits = auth_limits_new();
    bool locked;
    char address[32];
    fail_at(limits, "192.0.2.1", 1, NOW_MS, &locked);
    for (unsigned i = 0; i < LIMITS_ADDRESSES_MAX; i++) {
        snprintf(address, sizeof address, "10.%u.%u.1", i / 256, i % 256);
        fail_at(limits, address, 1, NOW_MS, &locked);
    }
    assert_false(auth_limits_locked(limits, STR("192.0.2.1"), 1, NOW_MS)); /* the oldest went */
    assert_true(auth_limits_locked(limits, STR("10.0.0.1"), 1, NOW_MS));
    assert_true(auth_limits_locked(limits, str_of(address), 1, NOW_MS));
    auth_limits_free(&limits);
}

static void remembers_exactly_what_was_verified(void **state)
{
    struct auth_cache *cache = auth_cache_new();
    struct sasl_verifier a = { .salt = { 1 }, .salt_bytes = 8 }, b = { .salt = { 2 }, .salt_bytes = 8 };
    auth_cache_put(cache, STR("anna"), STR("pw"), &a, 1000, 5000);
    assert_true(auth_cache_has(cache, STR("anna"), STR("pw"), &a, 5999));
    assert_false(auth_cache_has(cache, STR("anna"), STR("pw"), &a, 6000));
    assert_false(auth_cache_has(cache, STR("anna"), STR("pw"), &b, 2000)); /* the password was set anew */
    assert_false(auth_cache_has(cache, STR("anna"), STR("px"), &a, 2000));
    assert_false(auth_cache_has(cache, STR("annap"), STR("w"), &a, 2000));
    assert_false(auth_cache_has(cache, STR("anna"), STR(""), &a, 2000));
    auth_cache_put(cache, STR("bob"), STR("pw"), &a, 1000, 0); /* switched off */
    assert_false(auth_cache_has(cache, STR("bob"), STR("pw"), &a, 1000));
    auth_cache_free(&cache);
    cache = auth_cache_new();
    assert_false(auth_cache_has(cache, STR("anna"), STR("pw"), &a, 2000));
    auth_cache_free(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slows_down_then_locks_out),
        cmocka_unit_test(the_window_slides),
        cmocka_unit_test(a_v6_network_counts_as_one),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(remembers_exactly_what_was_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
