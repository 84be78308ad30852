/* Order, windows, hops that are left alone, and what a million messages cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

#include "spool/schedule.h"

static int setup(void **state)
{
    *state = spool_schedule_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct spool_schedule *s = *state;
    spool_schedule_free(&s);
    return 0;
}

static struct spool_part *add(struct spool_schedule *s, uint64_t id, const char *domain, int64_t at_ms)
{
    struct spool_entry *e = spool_schedule_add(s, id);
    struct spool_part *p = spool_schedule_add_recipient(s, e, spool_schedule_hop(s, STR("*"), str_of(domain)), 0);
    spool_schedule_wait(s, p, at_ms);
    return p;
}

static void takes_in_order_of_time(void **state)
{
    struct spool_schedule *s = *state;
    for (uint64_t i = 1; i <= 1000; i++)
        add(s, i, "a.test", (int64_t)(i * 7919 % 1000));
    size_t cursor = 0;
    struct spool_hop *h = spool_schedule_hop_walk(s, &cursor, NULL);
    spool_schedule_hop_window(s, h, 10000);
    assert_int_equal(spool_schedule_next_ms(s), 0);
    int64_t last = -1;
    for (unsigned n = 0; n < 1000; n++) {
        spool_schedule_advance(s, 1000, 1);
        struct spool_part *p = spool_schedule_take(s);
        assert_non_null(p);
        assert_true(p->timed.at_ms >= last);
        last = p->timed.at_ms;
    }
    assert_null(spool_schedule_take(s));
    assert_int_equal(spool_schedule_next_ms(s), INT64_MAX);
    assert_int_equal(spool_schedule_parts(s, SPOOL_PART_ACTIVE), 1000);
}

static void windows_and_turns(void **state)
{
    struct spool_schedule *s = *state;
    for (uint64_t i = 0; i < 10; i++) {
        add(s, 1 + i, "a.test", 0)->hop->window = 2;
        add(s, 100 + i, "b.test", 0)->hop->window = 2;
    }
    spool_schedule_advance(s, 0, 0);
    struct spool_part *p[4];
    for (unsigned i = 0; i < 4; i++)
        assert_non_null(p[i] = spool_schedule_take(s));
    assert_true(p[0]->hop != p[1]->hop && p[0]->hop == p[2]->hop && p[1]->hop == p[3]->hop);
    assert_null(spool_schedule_take(s));
    spool_schedule_remove(s, p[0]->entry);
    struct spool_part *next = spool_schedule_take(s);
    assert_non_null(next);
    assert_ptr_equal(next->hop, p[2]->hop);
}

static void a_failed_hop_is_left_alone(void **state)
{
    struct spool_schedule *s = *state;
    struct spool_part *a = add(s, 1, "a.test", 0), *b = add(s, 2, "b.test", 0);
    spool_schedule_hop_wait(s, a->hop, 5000);
    spool_schedule_advance(s, 10, 0);
    assert_ptr_equal(spool_schedule_take(s), b);
    assert_null(spool_schedule_take(s));
    assert_int_equal(spool_schedule_next_ms(s), 5000);
    spool_schedule_advance(s, 5000, 0);
    assert_ptr_equal(spool_schedule_take(s), a);
    /* Back to waiting: its time counts again. */
    spool_schedule_wait(s, a, 9000);
    assert_int_equal(spool_schedule_next_ms(s), 9000);
    assert_int_equal(a->hop->n_active, 0);
}

static void a_rested_hop_without_parts_goes(void **state)
{
    struct spool_schedule *s = *state;
    struct spool_part *a = add(s, 1, "a.test", 0);
    spool_schedule_hop_wait(s, a->hop, 100);
    spool_schedule_remove(s, a->entry);
    size_t cursor = 0;
    assert_non_null(spool_schedule_hop_walk(s, &cursor, NULL));
    spool_schedule_advance(s, 100, 0);
    cursor = 0;
    assert_null(spool_schedule_hop_walk(s, &cursor, NULL));
}

static void recipients_come_and_go(void **state)
{
    struct spool_schedule *s = *state;
    struct spool_entry *e = spool_schedule_add(s, 1);
    struct spool_hop *h = spool_schedule_hop(s, STR("*"), STR("a.test"));
    struct spool_part *p = NULL;
    for (uint16_t i = 0; i < 100; i++)
        assert_non_null(p = spool_schedule_add_recipient(s, e, h, i));
    assert_null(e->parts->next);
    assert_int_equal(p->n_recipients, 100);
    uint16_t drop[50];
    for (uint16_t i = 0; i < 50; i++)
        drop[i] = (uint16_t)(2 * i);
    assert_false(spool_schedule_drop_recipients(s, p, drop, 50));
    assert_int_equal(p->n_recipients, 50);
    assert_int_equal(spool_part_recipient(p, 49), 99);
    for (uint16_t i = 0; i < 49; i++)
        drop[i] = (uint16_t)(2 * i + 1);
    assert_false(spool_schedule_drop_recipients(s, p, drop, 49));
    assert_int_equal(spool_part_recipient(p, 0), 99);
    assert_null(p->recipients);
    drop[0] = 99;
    assert_true(spool_schedule_drop_recipients(s, p, drop, 1));
    assert_null(e->parts);
    assert_ptr_equal(spool_schedule_find(s, 1), e);
}

static void ids_are_unique(void **state)
{
    struct spool_schedule *s = *state;
    assert_non_null(spool_schedule_add(s, 7));
    assert_null(spool_schedule_add(s, 7));
    assert_int_equal(spool_schedule_entries(s), 1);
}

static void a_walk_sees_each_once(void **state)
{
    struct spool_schedule *s = *state;
    for (uint64_t i = 1; i <= 5000; i++)
        add(s, i, "a.test", 0);
    size_t cursor = 0, n = 0;
    uint64_t sum = 0;
    for (struct spool_entry *e = NULL; (e = spool_schedule_walk(s, &cursor, e)) != NULL;) {
        n++;
        sum += e->id;
    }
    for (uint64_t i = 1; i <= 5000; i += 2)
        spool_schedule_remove(s, spool_schedule_find(s, i));
    assert_int_equal(n, 5000);
    assert_int_equal(sum, 5000 * 5001 / 2);
    assert_int_equal(spool_schedule_entries(s), 2500);
}

static void texts_never_stand_for_others(void **state)
{
    struct spool_schedule *s = *state;
    uint32_t first = spool_schedule_text(s, STR("451 try later"));
    assert_int_equal(spool_schedule_text(s, STR("451 try later")), first);
    assert_true(str_eq(spool_schedule_text_get(s, first), STR("451 try later")));
    assert_int_equal(spool_schedule_text(s, STR("")), 0);
    for (unsigned i = 0; i < 70000; i++) {
        char text[64];
        snprintf(text, sizeof(text), "452 busy, ref %u", i);
        uint32_t n = spool_schedule_text(s, str_of(text));
        assert_true(str_eq(spool_schedule_text_get(s, n), str_of(text)));
    }
    assert_int_equal(spool_schedule_text_get(s, first).n, 0);
    assert_true(str_eq(spool_schedule_text_get(s, spool_schedule_text(s, STR("451 try later"))), STR("451 try later")));
}

static size_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long total = 0, resident = 0;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &total, &resident), 2);
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#ifdef __SANITIZE_ADDRESS__
enum { OCTETS_MAX = 600 }; /* red zones and quarantine are the sanitizer's */
#else
enum { OCTETS_MAX = 200 };
#endif

static void a_million_messages(void **state)
{
    struct spool_schedule *s = *state;
    /* Entry, part, heap place at its largest growth, index. */
    assert_true(sizeof(struct spool_entry) + sizeof(struct spool_part) + 8 * 3 / 2 + 8 <= 200);
    size_t before = resident_bytes();
    uint64_t n = 1000000;
    for (uint64_t i = 1; i <= n; i++) {
        char domain[32];
        snprintf(domain, sizeof(domain), "d%u.test", (unsigned)(i % 1000));
        add(s, i << 20 | 512, domain, (int64_t)(i * 2654435761u % 100000));
    }
    size_t used = resident_bytes() - before;
    print_message("%zu octets a message\n", used / n);
    assert_true(used / n <= OCTETS_MAX);
    spool_schedule_advance(s, 100000, 0);
    assert_int_equal(spool_schedule_parts(s, SPOOL_PART_READY), n);
    size_t taken = 0;
    for (struct spool_part *p; (p = spool_schedule_take(s)) != NULL; taken++)
        spool_schedule_remove(s, p->entry);
    assert_int_equal(taken, n);
    assert_int_equal(spool_schedule_entries(s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(takes_in_order_of_time), T(windows_and_turns), T(a_failed_hop_is_left_alone), T(a_rested_hop_without_parts_goes),
        T(recipients_come_and_go), T(ids_are_unique), T(a_walk_sees_each_once), T(texts_never_stand_for_others),
        T(a_million_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
