/* Finding records: clean ends, padding between batches, torn tails, damage that a later record reveals, old
 * generations, forged records inside bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

#include "spool/log.h"
#include "spool/scan.h"

enum { RECORDS_MAX = 64 };
#define GENERATION UINT64_C(0xfeedfacecafebeef)

struct fixture {
    int fd;
    struct spool_log log;
    uint64_t found[RECORDS_MAX];
    unsigned n_found;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char name[] = "/tmp/postern-scan-XXXXXX";
    f->fd = mkstemp(name);
    unlink(name);
    assert_int_equal(ftruncate(f->fd, SPOOL_SEGMENT_MIN_BYTES), 0);
    f->log.disk = &spool_disk_system;
    assert_true(spool_log_add(&f->log, &(struct spool_lent){ 5, GENERATION, SPOOL_SEGMENT_MIN_BYTES }, f->fd));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->fd);
    free(f);
    return 0;
}

/* A message with this body; its offset. */
static uint32_t append(struct fixture *f, uint64_t id, struct str body)
{
    struct buf meta;
    buf_init(&meta, 1024);
    struct spool_meta m = { 0, body.n, STR("Received: x\r\n"), STR("not decoded here") };
    assert_true(spool_meta_encode(&m, &meta));
    struct spool_log_segment *s = spool_log_room(&f->log, (uint32_t)(SPOOL_RECORD_HEADER_BYTES + meta.n + body.n));
    struct spool_record r = { .kind = SPOOL_KIND_MESSAGE, .id = id, .content_sum = spool_sum(body) };
    assert_int_equal(spool_log_append(&f->log, s, &r, buf_str(&meta), body), 0);
    buf_done(&meta);
    return r.offset;
}

static void sync_log(struct fixture *f)
{
    struct spool_log_sync sync;
    spool_log_sync_begin(&f->log, &sync);
    spool_log_sync_run(f->log.disk, &sync);
    assert_int_equal(spool_log_sync_end(&f->log, &sync), 0);
}

static int on_record(void *arg, const struct spool_record *r, struct str meta, struct str content)
{
    struct fixture *f = arg;
    f->found[f->n_found++] = r->id;
    return 0;
}

static void scan(struct fixture *f, struct spool_scan *s, uint64_t promised)
{
    f->n_found = 0;
    spool_scan_init(s, &spool_disk_system, f->fd, 5, GENERATION, SPOOL_BLOCK_BYTES);
    assert_int_equal(spool_scan_to(s, SPOOL_SEGMENT_MIN_BYTES, on_record, f, NULL), 0);
    spool_scan_finish(s, promised);
    spool_scan_done(s);
}

static void finds_all_over_batches(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    for (uint64_t id = 1; id <= 20; id++) {
        append(f, id, STR("body\r\n"));
        if (id % 3 == 0)
            sync_log(f);
    }
    scan(f, &s, 0);
    assert_int_equal(f->n_found, 20);
    assert_int_equal(s.n_damages, 0);
}

static void a_batch_never_touches_a_synced_block(void **state)
{
    struct fixture *f = *state;
    append(f, 1, STR("x"));
    sync_log(f);
    assert_int_equal(append(f, 2, STR("y")) % SPOOL_BLOCK_BYTES, 0);
    assert_true(append(f, 3, STR("z")) % SPOOL_BLOCK_BYTES != 0);
}

static void torn_tail_is_not_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    append(f, 1, STR("one"));
    sync_log(f);
    uint32_t at = append(f, 2, STR("two"));
    assert_int_equal(pwrite(f->fd, "!", 1, at + SPOOL_RECORD_HEADER_BYTES + 3), 1);
    scan(f, &s, 0);
    assert_int_equal(f->n_found, 1);
    assert_int_equal(s.n_damages, 1);
    assert_false(s.damage[0].acknowledged);
    assert_true(s.damage[0].from <= at && s.damage[0].to > at);
    scan(f, &s, at + 8); /* but somebody was promised it */
    assert_true(s.damage[0].acknowledged);
}

static void damage_below_synced_is_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    append(f, 1, STR("one"));
    uint32_t at = append(f, 2, STR("two"));
    sync_log(f);
    append(f, 3, STR("three"));
    char zeros[SPOOL_RECORD_HEADER_BYTES] = { 0 };
    assert_int_equal(pwrite(f->fd, zeros, sizeof(zeros), at), sizeof(zeros)); /* as if never written */
    scan(f, &s, 0);
    assert_int_equal(f->n_found, 2);
    assert_int_equal(f->found[1], 3);
    assert_int_equal(s.n_damages, 1);
    assert_true(s.damage[0].acknowledged);
    assert_int_equal(s.damage[0].from, at);
}

static void a_lost_block_in_the_middle_loses_no_later_record(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    static char body[5000];
    for (uint64_t id = 1; id <= 10; id++) {
        append(f, id, str_slice(body, sizeof(body)));
        sync_log(f);
    }
    static char zeros[SPOOL_BLOCK_BYTES];
    assert_int_equal(pwrite(f->fd, zeros, sizeof(zeros), 3 * SPOOL_BLOCK_BYTES), sizeof(zeros));
    scan(f, &s, 0);
    assert_int_equal(f->n_found, 9);
    assert_int_equal(s.n_damages, 1);
    assert_true(s.damage[0].acknowledged);
}

static void an_old_generation_is_the_end(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    for (uint64_t id = 1; id <= 30; id++)
        append(f, id, STR("an old message"));
    f->log.n = 0;
    assert_true(spool_log_add(&f->log, &(struct spool_lent){ 5, GENERATION + 1, SPOOL_SEGMENT_MIN_BYTES }, f->fd));
    append(f, 100, STR("new"));
    f->n_found = 0;
    spool_scan_init(&s, &spool_disk_system, f->fd, 5, GENERATION + 1, SPOOL_BLOCK_BYTES);
    assert_int_equal(spool_scan_to(&s, SPOOL_SEGMENT_MIN_BYTES, on_record, f, NULL), 0);
    spool_scan_finish(&s, 0);
    spool_scan_done(&s);
    assert_int_equal(f->n_found, 1);
    assert_int_equal(f->found[0], 100);
    assert_int_equal(s.n_damages, 0);
}

/* A body that holds an exact record, made by somebody who knows everything but the generation, block-aligned. */
static void a_forged_record_is_never_taken(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    static char body[40000];
    for (uint32_t at = 0; at + 512 < sizeof(body); at += 8) {
        struct spool_record forged = { .kind = SPOOL_KIND_MESSAGE, .id = 666, .length = 80, .meta_bytes = 8, .segment = 5,
            .generation = GENERATION ^ 1, .offset = at, .previous_end = SPOOL_BLOCK_BYTES };
        if (at % 80 == 0)
            spool_record_encode(&forged, str_slice(body + at + 72, 8), (unsigned char *)body + at);
    }
    uint32_t at = append(f, 1, str_slice(body, sizeof(body)));
    sync_log(f);
    append(f, 2, STR("next"));
    assert_int_equal(pwrite(f->fd, "\0\0\0\0", 4, at), 4); /* the outer header is lost: the search walks over the body */
    scan(f, &s, 0);
    assert_int_equal(f->n_found, 1);
    assert_int_equal(f->found[0], 2);
    assert_true(s.damage[0].acknowledged);
}

static void following_sees_each_record_once(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    spool_scan_init(&s, &spool_disk_system, f->fd, 5, GENERATION, SPOOL_BLOCK_BYTES);
    for (uint64_t id = 1; id <= 30; id++) {
        append(f, id, STR("followed"));
        if (id % 4)
            continue;
        append(f, ++id, STR("in the same batch"));
        sync_log(f);
        append(f, ++id, STR("not durable yet"));
        assert_int_equal(spool_scan_to(&s, f->log.segment[0].durable, on_record, f, NULL), 0);
        assert_int_equal(f->n_found, id - 1);
    }
    for (unsigned i = 0; i < f->n_found; i++)
        assert_int_equal(f->found[i], i + 1);
    spool_scan_done(&s);
}

static void any_flipped_octet_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct spool_scan s;
    uint32_t at = append(f, 1, STR("a body that matters"));
    uint32_t end = f->log.segment[0].end;
    sync_log(f);
    append(f, 2, STR("two"));
    unsigned length = SPOOL_RECORD_HEADER_BYTES + 20 + 13 + 16 + 19;
    assert_true(end - at >= length && end - at < length + SPOOL_RECORD_ALIGN);
    for (uint32_t i = 0; i < length; i++) {
        char c, d;
        assert_int_equal(pread(f->fd, &c, 1, at + i), 1);
        d = (char)(c ^ 0x10);
        assert_int_equal(pwrite(f->fd, &d, 1, at + i), 1);
        scan(f, &s, 0);
        assert_int_equal(f->n_found, 1);
        assert_int_equal(f->found[0], 2);
        assert_true(s.n_damages == 1 && s.damage[0].acknowledged);
        assert_int_equal(pwrite(f->fd, &c, 1, at + i), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(finds_all_over_batches), T(a_batch_never_touches_a_synced_block), T(torn_tail_is_not_acknowledged),
        T(damage_below_synced_is_acknowledged), T(a_lost_block_in_the_middle_loses_no_later_record),
        T(an_old_generation_is_the_end), T(a_forged_record_is_never_taken), T(following_sees_each_record_once),
        T(any_flipped_octet_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
