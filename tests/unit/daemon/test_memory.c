/* No memory for a hash table is an answer, not the end of the process. Here memory is out when a test says so: behind
 * the object itself, where uthash makes its table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/auth/limits.h"
#include "daemon/smtpd/smtpd.h"

static int allocations_left = -1; /* -1: no end */

static bool is_out(void)
{
    return allocations_left == 0 || (allocations_left > 0 && allocations_left-- == 0);
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return is_out() ? NULL : __real_malloc(n);
}

/* The compiler makes one of malloc() and memset(). */
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return is_out() ? NULL : __real_calloc(n, size);
}

static void failures_of_an_address(void **state)
{
    (void)state;
    struct auth_limits *limits = auth_limits_new();
    bool locked_out = false;
    allocations_left = 1;
    assert_int_equal(auth_limits_failed(limits, STR("192.0.2.1"), 1, 0, &locked_out), 0);
    assert_false(locked_out);
    allocations_left = -1;
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
    allocations_left = 1;
    assert_int_equal(ask_begin(asks, ASK_USER, &session), 0);
    assert_int_equal(session.ask_id, 0);
    allocations_left = -1;
    uint32_t id = ask_begin(asks, ASK_USER, &session);
    assert_true(id != 0);
    assert_ptr_equal(ask_answered(asks, ASK_USER, id, false), &session);
    free(asks);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(failures_of_an_address),
                                        cmocka_unit_test(questions_of_sessions) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
