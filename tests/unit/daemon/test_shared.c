/* Counts of sessions that several processes keep together: limits hold, what ends is given back, also when a process or
 * a lock's holder dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/shared.h"

static int fd;
static struct conf limits;

static int make_table(void **state)
{
    (void)state;
    fd = shared_create();
    limits = (struct conf){ .max_sessions = 10, .max_sessions_per_address = 3 };
    return fd < 0 ? -1 : 0;
}

static int close_table(void **state)
{
    (void)state;
    return close(fd);
}

static void address_of(unsigned i, unsigned char ret[16])
{
    memset(ret, 0, 10);
    memset(ret + 10, 0xff, 2);
    ret[12] = 10;
    ret[13] = (unsigned char)(i >> 16);
    ret[14] = (unsigned char)(i >> 8);
    ret[15] = (unsigned char)i;
}

static enum limit_session begin(struct shared *shared, unsigned i, int *ret_slot)
{
    unsigned char address[16];
    address_of(i, address);
    return shared_session_begin(shared, &limits, address, ret_slot);
}

static void test_limits_hold_across_processes(void **state)
{
    (void)state;
    struct shared *a = shared_map(fd, 0), *b = shared_map(fd, 1);
    int slot[16], other;
    assert_int_equal(begin(a, 1, &slot[0]), LIMIT_SESSION_OK);
    assert_int_equal(begin(b, 1, &slot[1]), LIMIT_SESSION_OK);
    assert_int_equal(begin(b, 1, &slot[2]), LIMIT_SESSION_OK);
    assert_int_equal(begin(a, 1, &other), LIMIT_SESSION_ADDRESS);
    assert_int_equal(begin(a, 2, &slot[3]), LIMIT_SESSION_OK);
    assert_int_equal(shared_sessions(a), 4);
    for (unsigned i = 4; i < 10; i++)
        assert_int_equal(begin(i & 1 ? a : b, i, &slot[i]), LIMIT_SESSION_OK);
    assert_int_equal(begin(a, 100, &other), LIMIT_SESSION_ALL);
    shared_session_end(b, slot[1]);
    assert_int_equal(begin(a, 1, &slot[1]), LIMIT_SESSION_OK);
    assert_int_equal(shared_sessions(b), 10);
    shared_unmap(&a);
    shared_unmap(&b);
}

/* The successor of a process that died gives back its sessions, and no others. */
static void test_successor_gives_back(void **state)
{
    (void)state;
    struct shared *a = shared_map(fd, 0), *b = shared_map(fd, 1);
    int slot;
    for (int i = 0; i < 2; i++)
        assert_int_equal(begin(a, 1, &slot), LIMIT_SESSION_OK);
    assert_int_equal(begin(b, 1, &slot), LIMIT_SESSION_OK);
    assert_int_equal(begin(b, 1, &slot), LIMIT_SESSION_ADDRESS);
    shared_unmap(&a); /* as its process is gone */
    a = shared_map(fd, 0);
    assert_int_equal(shared_sessions(a), 1);
    assert_int_equal(begin(a, 1, &slot), LIMIT_SESSION_OK);
    assert_int_equal(begin(a, 1, &slot), LIMIT_SESSION_OK);
    assert_int_equal(begin(a, 1, &slot), LIMIT_SESSION_ADDRESS);
    shared_unmap(&a);
    shared_unmap(&b);
}

/* Addresses that share a slot do not give each other more than they have: fill many, then empty all. */
static void test_many_addresses(void **state)
{
    (void)state;
    enum { ADDRESSES = 1000 };
    struct shared *a = shared_map(fd, 0);
    static int slot[ADDRESSES][3];
    int other;
    limits.max_sessions = 0;
    for (unsigned i = 0; i < ADDRESSES; i++)
        assert_int_equal(begin(a, i, &slot[i][0]), LIMIT_SESSION_OK);
    /* Every other one leaves, so that slots before those of the rest become free. */
    for (unsigned i = 0; i < ADDRESSES; i += 2)
        shared_session_end(a, slot[i][0]);
    for (unsigned i = 1; i < ADDRESSES; i += 2) {
        assert_int_equal(begin(a, i, &slot[i][1]), LIMIT_SESSION_OK);
        assert_int_equal(begin(a, i, &slot[i][2]), LIMIT_SESSION_OK);
        assert_int_equal(begin(a, i, &other), LIMIT_SESSION_ADDRESS);
    }
    for (unsigned i = 1; i < ADDRESSES; i += 2)
        for (int k = 0; k < 3; k++)
            shared_session_end(a, slot[i][k]);
    assert_int_equal(shared_sessions(a), 0);
    shared_unmap(&a);
}

static void test_many_processes_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 4, ROUNDS = 20000 };
    limits.max_sessions = 0;
    limits.max_sessions_per_address = 1000000;
    for (unsigned p = 0; p < PROCESSES; p++) {
        if (fork() != 0)
            continue;
        struct shared *mine = shared_map(fd, p);
        int slot;
        for (unsigned i = 0; i < ROUNDS; i++) {
            if (begin(mine, 7, &slot) != LIMIT_SESSION_OK)
                _exit(1);
            shared_session_end(mine, slot);
        }
        _exit(begin(mine, 7, &slot) == LIMIT_SESSION_OK ? 0 : 1); /* one each stays open */
    }
    for (unsigned p = 0; p < PROCESSES; p++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct shared *late = shared_map(fd, PROCESSES);
    int slot;
    assert_int_equal(shared_sessions(late), PROCESSES);
    limits.max_sessions_per_address = PROCESSES;
    assert_int_equal(begin(late, 7, &slot), LIMIT_SESSION_ADDRESS);
    assert_int_equal(begin(late, 8, &slot), LIMIT_SESSION_OK);
    shared_unmap(&late);
}

static void test_index_out_of_range(void **state)
{
    (void)state;
    assert_null(shared_map(fd, SHARED_PROCESSES_MAX));
    assert_null(shared_map(-1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_limits_hold_across_processes, make_table, close_table),
        cmocka_unit_test_setup_teardown(test_successor_gives_back, make_table, close_table),
        cmocka_unit_test_setup_teardown(test_many_addresses, make_table, close_table),
        cmocka_unit_test_setup_teardown(test_many_processes_at_once, make_table, close_table),
        cmocka_unit_test_setup_teardown(test_index_out_of_range, make_table, close_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
