/* Envelopes there and back, and every way in which one can be damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "spool/envelope.h"
#include "spool/spool.h"

static const struct spool_recipient two[] = {
    { .address = { "b@example.org", 13 }, .orcpt = { "rfc822;b@example.org", 20 }, .notify = SPOOL_NOTIFY_FAILURE },
    { .address = { "c@example.org", 13 } },
};

static struct spool_envelope sample(void)
{
    return (struct spool_envelope){
        .arrival_wall_ms = 1795284453123, .reverse_path = STR("a@example.org"), .ret = SPOOL_RET_HDRS,
        .flags = SPOOL_FLAG_8BIT | SPOOL_FLAG_SMTPUTF8, .envid = STR("E-1"), .auth = STR("<>"), .server = STR("mail.test"),
        .session = STR("S1"), .client_address = STR("192.0.2.1"), .client_name = STR("client.test"), .helo = STR("helo"),
        .protocol = STR("ESMTPSA"), .user = STR("u"), .tls = STR("TLSv1.3"), .recipient = two, .n_recipients = 2,
    };
}

static void there_and_back(void **state)
{
    struct buf b;
    struct arena arena;
    struct spool_envelope in = sample(), out;
    buf_init(&b, 4096);
    arena_init(&arena, 65536);
    assert_true(spool_envelope_encode(&in, &b));
    assert_int_equal(spool_envelope_decode(buf_str(&b), &arena, &out, NULL), 0);
    assert_int_equal(out.arrival_wall_ms, in.arrival_wall_ms);
    assert_int_equal(out.flags, in.flags);
    assert_int_equal(out.ret, in.ret);
    assert_true(str_eq(out.tls, in.tls) && str_eq(out.auth, in.auth) && str_eq(out.helo, in.helo));
    assert_int_equal(out.n_recipients, 2);
    assert_true(str_eq(out.recipient[0].orcpt, two[0].orcpt));
    assert_int_equal(out.recipient[0].notify, SPOOL_NOTIFY_FAILURE);
    assert_int_equal(out.recipient[1].orcpt.n, 0);
    arena_done(&arena);
    buf_done(&b);
}

static void every_truncation_is_corrupt(void **state)
{
    struct buf b;
    struct spool_envelope in = sample(), out;
    buf_init(&b, 4096);
    assert_true(spool_envelope_encode(&in, &b));
    for (size_t n = 0; n < b.n; n++) {
        struct arena arena;
        arena_init(&arena, 65536);
        assert_int_equal(spool_envelope_decode(str_slice(b.p, n), &arena, &out, NULL), ERR_CORRUPT);
        arena_done(&arena);
    }
    buf_add_char(&b, 0);
    struct arena arena;
    arena_init(&arena, 65536);
    assert_int_equal(spool_envelope_decode(buf_str(&b), &arena, &out, NULL), ERR_CORRUPT);
    arena_done(&arena);
    buf_done(&b);
}

static void refuses_what_is_out_of_bounds(void **state)
{
    static char large[SPOOL_FIELD_MAX + 1];
    struct buf b;
    buf_init(&b, 1 << 20);
    struct spool_envelope e = sample();
    e.helo = str_slice(large, sizeof(large));
    assert_false(spool_envelope_encode(&e, &b));
    e = sample();
    e.n_recipients = 0;
    assert_false(spool_envelope_encode(&e, &b));
    e.n_recipients = SPOOL_RECIPIENTS_MAX + 1;
    assert_false(spool_envelope_encode(&e, &b));
    e = sample();
    e.flags = 64;
    assert_false(spool_envelope_encode(&e, &b));
    struct spool_recipient r = { .address = STR("x"), .notify = 16 };
    e = sample();
    e.recipient = &r;
    e.n_recipients = 1;
    assert_false(spool_envelope_encode(&e, &b));
    buf_done(&b);
}

static void no_memory_is_not_corruption(void **state)
{
    struct buf b;
    struct arena arena;
    struct spool_envelope in = sample(), out;
    buf_init(&b, 4096);
    arena_init(&arena, 1);
    assert_true(spool_envelope_encode(&in, &b));
    assert_int_equal(spool_envelope_decode(buf_str(&b), &arena, &out, NULL), -ENOMEM);
    arena_done(&arena);
    buf_done(&b);
}

static void ids_there_and_back(void **state)
{
    const uint64_t ids[] = { 0, 1, 0xFFFFFFFFFF, 0x10000000000, UINT64_MAX, 0x123456789ABCDEF0 };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char text[SPOOL_ID_TEXT_BYTES];
        uint64_t back = 7;
        spool_id_format(ids[i], text);
        assert_true(strlen(text) >= 10 && strlen(text) <= 16);
        assert_true(spool_id_parse(str_of(text), &back));
        assert_int_equal(back, ids[i]);
    }
    uint64_t id;
    assert_true(spool_id_parse(STR("00000000aF"), &id));
    assert_false(spool_id_parse(STR("123456789"), &id));
    assert_false(spool_id_parse(STR("12345678901234567"), &id));
    assert_false(spool_id_parse(STR("123456789G"), &id));
}

static void page_keeps_the_newest(void **state)
{
    static struct spool_page page;
    uint64_t durable;
    for (uint64_t n = 1; n <= 20; n++)
        assert_false(spool_page_publish(&page, n * 3, n * 100));
    assert_false(spool_page_durable(&page, 3, &durable));
    for (uint64_t n = 20 - SPOOL_PAGE_SLOTS + 1; n <= 20; n++) {
        assert_true(spool_page_durable(&page, n * 3, &durable));
        assert_int_equal(durable, n * 100);
    }
    atomic_store(&page.bell_wanted, 1);
    assert_true(spool_page_publish(&page, 60, 4321));
    assert_true(spool_page_durable(&page, 60, &durable));
    assert_int_equal(durable, 4321);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back), cmocka_unit_test(every_truncation_is_corrupt),
        cmocka_unit_test(refuses_what_is_out_of_bounds), cmocka_unit_test(no_memory_is_not_corruption),
        cmocka_unit_test(ids_there_and_back), cmocka_unit_test(page_keeps_the_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
