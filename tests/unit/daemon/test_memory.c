/* No memory for a hash table is an answer, not the end of the process. malloc() fails here when a test says so (uthash
 * takes its tables from it; what the rooms themselves make comes from calloc()). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/auth/limits.h"
#include "daemon/smtpd/smtpd.h"

static bool without_memory;

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return without_memory ? NULL : __real_malloc(n);
}

static void failures_of_an_address(void **state)
{
    (void)state;
    struct auth_limits *limits = auth_limits_new();
    bool locked_out = false;
    without_memory = true;
    assert_int_equal(auth_limits_failed(limits, STR("192.0.2.1"), 1, 0, &locked_out), 0);
    assert_false(locked_out);
    without_memory = false;
    auth_limits_failed(limits, STR("192.0.2.1"), 1, 0, &locked_out);
    assert_true(locked_out);
    auth_limits_free(&limits);
}

static void questions_of_sessions(void **state)
{
    (void)state;
    struct asks *asks;
    struct session session = { 0 };
    assert_int_equal(asks_new(&asks), 0);
    without_memory = true;
    assert_int_equal(ask_begin(asks, ASK_USER, &session), 0);
    assert_int_equal(session.ask_id, 0);
    without_memory = false;
    uint32_t id = ask_begin(asks, ASK_USER, &session);
    assert_true(id != 0);
    assert_ptr_equal(ask_answered(asks, ASK_USER, id, false), &session);
    free(asks);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(failures_of_an_address), cmocka_unit_test(questions_of_sessions) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
