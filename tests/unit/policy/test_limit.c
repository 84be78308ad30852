#include "policy/limit.h"

#include "conf/network.h"
#include "text_conf.h"

enum { MINUTE = 60000 };

static void test_lock_out(void **state)
{
    struct limit_failures f = { 0 };
    int64_t now = 1000 * MINUTE;
    assert_true(limit_expired(&f, now));
    assert_int_equal(limit_delay_ms(&f, now), 0);
    assert_false(limit_failed(&f, 3, now));
    assert_int_equal(limit_delay_ms(&f, now), 0);
    assert_false(limit_failed(&f, 3, now + MINUTE));
    assert_int_equal(limit_delay_ms(&f, now + MINUTE), 500);
    assert_false(limit_locked_out(&f, 3, now + MINUTE));
    assert_true(limit_failed(&f, 3, now + 2 * MINUTE)); /* told once */
    assert_false(limit_failed(&f, 3, now + 2 * MINUTE));
    assert_true(limit_locked_out(&f, 3, now + 2 * MINUTE));
    assert_false(limit_locked_out(&f, 0, now + 2 * MINUTE));
    /* The first two leave the window; two remain. */
    assert_true(limit_locked_out(&f, 3, now + 10 * MINUTE));
    assert_false(limit_locked_out(&f, 3, now + 11 * MINUTE));
    assert_int_equal(limit_failures_count(&f, now + 11 * MINUTE), 2);
    assert_true(limit_failed(&f, 3, now + 11 * MINUTE)); /* a lock-out of its own */
    assert_true(limit_expired(&f, now + 21 * MINUTE));
}

static void test_clock(void **state)
{
    struct limit_failures f = { 0 };
    limit_failed(&f, 10, 50 * MINUTE);
    limit_failed(&f, 10, 49 * MINUTE); /* a step back counts as now */
    assert_int_equal(limit_failures_count(&f, 49 * MINUTE), 2);
    assert_int_equal(limit_failures_count(&f, INT64_MAX / 2), 0);
    assert_int_equal(limit_failures_count(&f, -5), 2);
    limit_failed(&f, 10, 5000 * MINUTE);
    assert_int_equal(limit_failures_count(&f, 5000 * MINUTE), 1);
}

static void test_many(void **state)
{
    struct limit_failures f = { 0 };
    for (int i = 0; i < 200000; i++)
        limit_failed(&f, 0, MINUTE);
    assert_int_equal(limit_failures_count(&f, MINUTE), UINT16_MAX);
    assert_int_equal(limit_delay_ms(&f, MINUTE), LIMIT_DELAY_MAX_MS);
}

static void test_key(void **state)
{
    unsigned char a[16], b[16], key_a[16], key_b[16];
    network_address_parse(STR("2001:db8:1:2:3::1"), a);
    network_address_parse(STR("2001:db8:1:2:ffff::2"), b);
    limit_key(a, key_a);
    limit_key(b, key_b);
    assert_memory_equal(key_a, key_b, 16);
    network_address_parse(STR("10.0.0.1"), a);
    network_address_parse(STR("10.0.0.2"), b);
    limit_key(a, key_a);
    limit_key(b, key_b);
    assert_memory_not_equal(key_a, key_b, 16);
    assert_memory_equal(key_a, a, 16);
}

static void test_sessions(void **state)
{
    struct conf conf = { .max_sessions = 10, .max_sessions_per_address = 2 };
    assert_int_equal(limit_session(&conf, 1, 9), LIMIT_SESSION_OK);
    assert_int_equal(limit_session(&conf, 2, 9), LIMIT_SESSION_ADDRESS);
    assert_int_equal(limit_session(&conf, 0, 10), LIMIT_SESSION_ALL);
    conf = (struct conf){ 0 };
    assert_int_equal(limit_session(&conf, UINT32_MAX, UINT32_MAX), LIMIT_SESSION_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock_out), cmocka_unit_test(test_clock), cmocka_unit_test(test_many),
        cmocka_unit_test(test_key),      cmocka_unit_test(test_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
