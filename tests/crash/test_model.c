/* The proof behind 250: scripted runs of writer, store, journal, checkpoints and reuse of segments over the model disk.
 * After every single operation the machine stops, in several ways; the spool is opened from what is left, and:
 *   a message that was acknowledged, and not noted as settled, is there, once, with its content;
 *   a message whose note was durable is not there, nor are recipients that were settled;
 *   nothing is there that was not handed in, nothing acknowledged is called damaged;
 *   and what recovery itself wrote survives the next stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <malloc.h>

#include "io/now.h"
#include "model_disk.h"
#include "spool/store.h"
#include "spool/writer.h"

enum { MESSAGES_MAX = 400, SEGMENT_BYTES = SPOOL_SEGMENT_MIN_BYTES };
#define NEVER SIZE_MAX

/* What the world knows about a message; times are counts of disk operations. */
struct fact {
    uint64_t id;
    size_t acked, failed;
    size_t settled_noted, settled_durable;
    unsigned noted_in_step;
    size_t some_durable, deferred_durable;
    bool found, settled, some_noted, deferred_noted;
    struct spool_segment *segment;
    struct spool_place place;
    uint64_t body_file;
    size_t body_bytes;
};

struct world {
    struct loop *loop;
    struct model_disk disk;
    struct spool_page page;
    struct spool_store *store;
    struct spool_writer *writer;
    struct fact fact[MESSAGES_MAX];
    unsigned n_facts;
    unsigned lent_segments, copying, moved;
    bool sync_runs, recycling;
    unsigned acknowledged_damage, failures;
    unsigned step, syncs_step; /* a sync promises the notes of earlier steps */
};

/* ---- content: everything follows from the message's number ---- */

static void body_make(unsigned serial, size_t n, unsigned char *ret)
{
    for (size_t i = 0; i < n; i++)
        ret[i] = (unsigned char)(' ' + (serial * 31 + i * 7) % 90);
    /* Every third one forges: the oldest segment's own octets, header and all, with the generation made up. */
    if (serial % 3 == 0 && n > 512) {
        for (size_t at = 0; at + 128 <= n; at += 128) {
            struct spool_record r = { .kind = SPOOL_KIND_MESSAGE, .id = 0xBAD, .length = 104, .meta_bytes = 32,
                .segment = 1, .generation = serial, .offset = (uint32_t)(at + SPOOL_BLOCK_BYTES),
                .previous_end = SPOOL_BLOCK_BYTES };
            memset(ret + at, 0, 128);
            spool_record_encode(&r, str_slice(ret + at + 72, 32), ret + at);
        }
    }
}

static size_t body_bytes_of(unsigned serial, bool large)
{
    if (large)
        return 55000 + serial % 13 * 700;
    static const size_t sizes[] = { 0, 100, 900, 3000, 5000, 20000, 60000, 1500, 65536, 120000, 200, 40000 };
    return sizes[serial * 5 % 12] + serial % 13;
}

/* Kept, for they are compared thousands of times. */
static const unsigned char *body_of(unsigned serial, bool large)
{
    static unsigned char *made[2][MESSAGES_MAX];
    unsigned char **at = &made[large][serial];
    if (!*at) {
        size_t n = body_bytes_of(serial, large);
        *at = malloc(n + 1);
        body_make(serial, n, *at);
    }
    return *at;
}

/* ---- the queue's part ---- */

static unsigned serial_of(const struct spool_envelope *e)
{
    uint64_t serial = MESSAGES_MAX;
    assert_true(str_to_u64(e->envid, MESSAGES_MAX - 1, &serial));
    return (unsigned)serial;
}

static void on_message(void *arg, const struct spool_found *found)
{
    struct world *w = arg;
    struct fact *f = &w->fact[serial_of(found->envelope)];
    if (found->copy && f->settled) {
        spool_store_settled(w->store, found->segment, found->id, found->body_file);
        return;
    }
    if (f->found) {
        assert_true(found->copy); /* otherwise none is seen twice */
        w->moved++;
        spool_store_moved(w->store, f->segment);
    }
    f->place = found->place;
    f->id = found->id;
    f->found = true;
    f->segment = found->segment;
    f->body_file = found->body_file;
}

static void on_damaged(void *arg, uint64_t segment, const struct spool_damage *damage, const char *kept_as)
{
    ((struct world *)arg)->acknowledged_damage += damage->acknowledged;
}

static void on_store_failed(void *arg, const struct err *why)
{
    ((struct world *)arg)->failures++;
}

static void on_finished(void *arg, struct spool_segment *segment)
{
}

static void lend(void *arg)
{
    struct world *w = arg;
    struct spool_lent lent;
    int fd;
    if (!w->writer)
        return;
    while (w->lent_segments < 2 && spool_store_lend_segment(w->store, w, &lent, &fd)) {
        w->lent_segments++;
        assert_int_equal(spool_writer_lend_segment(w->writer, &lent, fd, NULL), 0);
    }
    if (spool_store_lend_body(w->store, w, &lent, &fd))
        spool_writer_lend_body(w->writer, &lent, fd, NULL);
    spool_store_want(w->store, 1, 1);
}

static void on_segment_done(void *arg, const struct spool_lent *segment)
{
    struct world *w = arg;
    spool_store_follow(w->store, w, &w->page);
    spool_store_returned(w->store, false, segment);
    w->lent_segments--;
}

static void on_body_done(void *arg, const struct spool_lent *body)
{
    spool_store_returned(((struct world *)arg)->store, true, body);
}

static void on_body_taken(void *arg, const struct spool_lent *body)
{
}

static void on_writer_failed(void *arg, const struct err *why)
{
    ((struct world *)arg)->failures++;
}

static const struct spool_writer_handlers writer_handlers = {
    .segment_done = on_segment_done, .body_done = on_body_done, .body_taken = on_body_taken, .failed = on_writer_failed,
};

/* ---- steps ---- */

static struct world *running;

static void on_committed(void *arg, int result, uint64_t id)
{
    struct fact *f = arg;
    if (result == 0) {
        f->acked = running->disk.n_ops;
        f->id = id;
    } else {
        f->failed = running->disk.n_ops;
    }
}

static void step_commit(struct world *w)
{
    if (w->n_facts == MESSAGES_MAX || !spool_writer_can_accept(w->writer))
        return;
    unsigned serial = w->n_facts;
    struct fact *f = &w->fact[serial];
    *f = (struct fact){ .acked = NEVER, .failed = NEVER, .settled_noted = NEVER, .settled_durable = NEVER,
                        .some_durable = NEVER, .deferred_durable = NEVER, .body_bytes = body_bytes_of(serial, w->recycling) };
    struct spool_message *m = spool_message_begin(w->writer);
    if (spool_message_write(m, str_slice(body_of(serial, w->recycling), f->body_bytes), NULL) < 0) {
        spool_message_abort(m);
        return;
    }
    w->n_facts++;
    char envid[16];
    snprintf(envid, sizeof(envid), "%u", serial);
    struct spool_recipient to[] = { { .address = STR("a@b.test") }, { .address = STR("c@d.test") } };
    struct spool_envelope e = { .envid = str_of(envid), .recipient = to, .n_recipients = 2 };
    struct spool_commit c = { .envelope = &e, .done = on_committed, .arg = f };
    spool_message_commit(m, &c);
}

static struct fact *any_live(struct world *w)
{
    for (unsigned i = 0; i < w->n_facts && w->recycling; i++) {
        if (w->fact[i].found && !w->fact[i].settled)
            return &w->fact[i];
    }
    for (unsigned tries = 0; tries < 20 && w->n_facts; tries++) {
        struct fact *f = &w->fact[model_random(&w->disk, w->n_facts)];
        if (f->found && !f->settled)
            return f;
    }
    return NULL;
}

static void step_settle(struct world *w)
{
    struct fact *f = any_live(w);
    if (!f)
        return;
    f->settled = true;
    f->settled_noted = w->disk.n_ops;
    f->noted_in_step = w->step;
    spool_store_settled(w->store, f->segment, f->id, f->body_file);
}

static void step_note(struct world *w)
{
    static const uint16_t first[] = { 0 };
    struct fact *f = any_live(w);
    if (!f)
        return;
    if (model_random(&w->disk, 2)) {
        if (!f->some_noted)
            spool_store_settled_some(w->store, f->id, first, 1);
        f->some_noted = true;
    } else {
        f->deferred_noted = true;
        spool_store_deferred(w->store, f->id, 3, 1234567, STR("451 4.7.1 later"));
    }
}

static void notes_durable(struct world *w, unsigned before_step)
{
    for (unsigned i = 0; i < w->n_facts; i++) {
        struct fact *f = &w->fact[i];
        if (f->settled && f->noted_in_step < before_step && f->settled_durable == NEVER)
            f->settled_durable = w->disk.n_ops;
    }
}

static void on_synced(void *arg, int result)
{
    struct world *w = arg;
    w->sync_runs = false;
    if (result == 0)
        notes_durable(w, w->syncs_step);
}

static void step_sync(struct world *w)
{
    if (w->sync_runs)
        return;
    w->sync_runs = true;
    w->syncs_step = w->step;
    assert_int_equal(spool_store_sync(w->store, on_synced, w), 0);
    loop_run_once(w->loop, false); /* the turn's end begins it */
}

static void each_entry(void *arg, struct spool_checkpoint *checkpoint)
{
    static const uint16_t first[] = { 0 };
    struct world *w = arg;
    for (unsigned i = 0; i < w->n_facts; i++) {
        const struct fact *f = &w->fact[i];
        struct spool_memory memory = { 0 };
        if (!f->found || f->settled)
            continue;
        if (f->some_noted) {
            memory.settled = first;
            memory.n_settled = 1;
        }
        if (f->deferred_noted) {
            memory.attempts = 3;
            memory.next_wall_ms = 1234567;
        }
        spool_store_checkpoint_entry(checkpoint, f->id, &memory);
    }
}

static void step_checkpoint(struct world *w)
{
    struct err err = { 0 };
    if (w->copying)
        return;
    int rc = spool_store_checkpoint(w->store, each_entry, w, &err);
    if (rc < 0)
        return;
    notes_durable(w, UINT_MAX);
    for (unsigned i = 0; i < w->n_facts; i++) {
        if (w->fact[i].some_noted && w->fact[i].some_durable == NEVER)
            w->fact[i].some_durable = w->disk.n_ops;
        if (w->fact[i].deferred_noted && w->fact[i].deferred_durable == NEVER)
            w->fact[i].deferred_durable = w->disk.n_ops;
    }
}

static void on_copied(void *arg, int result, uint64_t id)
{
    struct world *w = arg;
    if (result == 0)
        spool_store_follow(w->store, w, &w->page);
    w->copying--;
}

static void step_copy(struct world *w)
{
    struct fact *f = any_live(w);
    struct err err = { 0 };
    if (!f || !spool_writer_can_accept(w->writer))
        return;
    w->copying++;
    if (spool_store_copy(w->store, w->writer, f->segment, f->place.offset, f->place.length, on_copied, w, &err) < 0)
        fail_msg("copy: %s", err.text);
}

static void open_store(struct world *w)
{
    struct spool_store_options options = {
        .loop = w->loop, .folder = "model", .disk = &w->disk.disk, .segment_bytes = SEGMENT_BYTES,
        .handlers = { .message = on_message, .damaged = on_damaged, .spare = lend, .finished = on_finished,
                      .failed = on_store_failed, .arg = w },
    };
    struct err err = { 0 };
    if (spool_store_open(&options, &w->store, &err) < 0)
        fail_msg("the spool does not open: %s", err.text);
}

static void close_world(struct world *w)
{
    while (model_run_job(&w->disk))
        ;
    spool_writer_free(&w->writer);
    spool_store_free(&w->store);
    loop_free(&w->loop);
    model_disk_done(&w->disk);
}

/* A run: mostly mail and settling, syncs when they come, now and then a checkpoint or a sync that fails. */
static void run_world(struct world *w, uint64_t seed, unsigned steps, bool failing, bool recycling)
{
    memset(w, 0, sizeof(*w));
    running = w;
    w->recycling = recycling;
    model_disk_init(&w->disk, seed, true);
    assert_int_equal(loop_new(&w->loop, NULL), 0);
    open_store(w);
    assert_int_equal(spool_store_scan(w->store, NULL), 0);
    step_checkpoint(w);
    assert_int_equal(spool_writer_new(NULL, &w->disk.disk, &w->page, -1, &writer_handlers, w, &w->writer, NULL), 0);
    spool_store_want(w->store, 2, 2);
    for (unsigned i = 0; i < steps; i++) {
        w->step = i;
        uint64_t dice = model_random(&w->disk, 100);
        if (dice < 30)
            step_commit(w);
        else if (dice < 40)
            spool_writer_turn(w->writer);
        else if (dice < 65)
            model_run_job(&w->disk);
        else if (dice < 75)
            spool_store_follow(w->store, w, &w->page);
        else if (dice < 88)
            for (int n = recycling ? 4 : 1; n > 0; n--)
                step_settle(w);
        else if (dice < 90)
            step_note(w);
        else if (dice < 92)
            step_copy(w);
        else if (dice < 96)
            step_sync(w);
        else if (dice < 98)
            step_checkpoint(w);
        else if (failing && dice < 99)
            w->disk.fail_syncs = 1;
        loop_run_once(w->loop, false);
        lend(w);
    }
}

/* ---- after the stop ---- */

struct recovered {
    struct loop *loop;
    struct spool_store *store;
    struct model_disk disk;
    const struct world *of;
    bool found[MESSAGES_MAX];
    bool some[MESSAGES_MAX], deferred[MESSAGES_MAX];
    uint64_t id[MESSAGES_MAX];
    struct spool_segment *segment[MESSAGES_MAX];
    unsigned n, acknowledged_damage;
    bool check_content;
    struct spool_found pending[MESSAGES_MAX];
};

static void on_recovered(void *arg, const struct spool_found *found)
{
    struct recovered *r = arg;
    unsigned serial = serial_of(found->envelope);
    assert_true(serial < r->of->n_facts + 1);
    if (r->found[serial]) { /* original and copy: the newer one counts */
        assert_int_equal(r->id[serial], found->id);
        if (found->place.segment < r->pending[serial].place.segment) {
            spool_store_moved(r->store, found->segment);
            return;
        }
        spool_store_moved(r->store, r->pending[serial].segment);
        r->n--;
    }
    r->found[serial] = true;
    r->id[serial] = found->id;
    r->some[serial] = found->memory && found->memory->n_settled && found->memory->settled[0] == 0;
    r->deferred[serial] = found->memory && found->memory->attempts == 3;
    r->pending[serial] = *found;
    r->n++;
}

static void on_recovered_damage(void *arg, uint64_t segment, const struct spool_damage *damage, const char *kept_as)
{
    ((struct recovered *)arg)->acknowledged_damage += damage->acknowledged;
}

static void on_spare(void *arg)
{
}

static void on_recovery_failed(void *arg, const struct err *why)
{
    fail_msg("recovery: %s", why->text);
}

static void check_content(struct recovered *r, unsigned serial)
{
    const struct spool_found *f = &r->pending[serial];
    struct spool_reader *reader;
    struct err err = { 0 };
    int fd = f->body_file ? spool_store_body_open(r->store, f->body_file) : -1;
    if (f->body_file && fd < 0)
        fail_msg("message %u lost its body file", serial);
    if (spool_store_read(r->store, f->segment, f->place.offset, f->place.length, fd, &reader, &err) < 0)
        fail_msg("message %u cannot be read: %s", serial, err.text);
    size_t n = body_bytes_of(serial, r->of->recycling);
    unsigned char *got = malloc(n + 1);
    size_t at = 0;
    for (ssize_t k; (k = spool_reader_read(reader, got + at, n + 1 - at, &err)) != 0; at += (size_t)k) {
        if (k < 0)
            fail_msg("message %u: %s", serial, err.text);
    }
    assert_int_equal(at, n);
    if (memcmp(body_of(serial, r->of->recycling), got, n))
        fail_msg("message %u is not what was handed in", serial);
    free(got);
    spool_reader_free(&reader);
    if (fd >= 0)
        r->disk.disk.close(&r->disk.disk, fd);
}

static void check_promises(struct recovered *r, size_t cut)
{
    for (unsigned i = 0; i < r->of->n_facts; i++) {
        const struct fact *f = &r->of->fact[i];
        bool acked = f->acked <= cut, noted = f->settled_noted <= cut, durable = f->settled_durable <= cut;
        if (acked && !noted && !r->found[i])
            fail_msg("message %u was acknowledged (operation %zu) and is lost", i, f->acked);
        if (durable && r->found[i])
            fail_msg("message %u was settled (operation %zu) and came back", i, f->settled_durable);
        if (r->found[i] && f->some_durable <= cut && !r->some[i])
            fail_msg("message %u forgot a settled recipient", i);
        if (r->found[i] && f->deferred_durable <= cut && !r->deferred[i])
            fail_msg("message %u forgot its attempts", i);
        if (r->found[i] && acked)
            assert_int_equal(r->id[i], f->id);
        if (r->found[i])
            check_content(r, i);
    }
    assert_int_equal(r->acknowledged_damage, 0);
}

static void recovered_entries(void *arg, struct spool_checkpoint *checkpoint)
{
    struct recovered *r = arg;
    for (unsigned i = 0; i < r->of->n_facts; i++) {
        struct spool_memory memory = { .attempts = r->deferred[i] ? 3 : 0 };
        static const uint16_t first[] = { 0 };
        if (r->some[i]) {
            memory.settled = first;
            memory.n_settled = 1;
        }
        if (r->found[i])
            spool_store_checkpoint_entry(checkpoint, r->id[i], &memory);
    }
}

static void recover(struct recovered *r, struct loop *loop, bool checkpoint)
{
    struct spool_store_options options = {
        .loop = loop, .folder = "model", .disk = &r->disk.disk, .segment_bytes = SEGMENT_BYTES,
        .handlers = { .message = on_recovered, .damaged = on_recovered_damage, .spare = on_spare,
                      .finished = on_finished, .failed = on_recovery_failed, .arg = r },
    };
    struct err err = { 0 };
    if (spool_store_open(&options, &r->store, &err) < 0)
        fail_msg("the spool does not open: %s", err.text);
    assert_int_equal(spool_store_scan(r->store, &err), 0);
    if (checkpoint)
        assert_int_equal(spool_store_checkpoint(r->store, recovered_entries, r, &err), 0);
}

static void stop_and_check(const struct world *w, const struct model_replay *replay, enum model_fate fate, struct loop *loop)
{
    struct recovered *r = calloc(1, sizeof(*r));
    r->of = w;
    model_replay_image(replay, fate, replay->n * 7 + (uint64_t)fate, &r->disk);
    bool twice = replay->n % 16 == 0;
    r->disk.recording = twice;
    /* What the image begins with is durable for the second stop. */
    recover(r, loop, twice);
    check_promises(r, replay->n);
    if (twice) {
        struct recovered *second = calloc(1, sizeof(*second));
        second->of = w;
        spool_store_free(&r->store);
        second->disk = r->disk;
        second->disk.recording = false;
        memset(second->disk.fd, 0, sizeof(second->disk.fd));
        recover(second, loop, false);
        assert_int_equal(second->n, r->n);
        assert_memory_equal(second->found, r->found, sizeof(r->found));
        assert_memory_equal(second->some, r->some, sizeof(r->some));
        spool_store_free(&second->store);
        r->disk = second->disk;
        free(second);
    }
    spool_store_free(&r->store);
    loop_run_once(loop, false);
    model_disk_done(&r->disk);
    free(r);
}

/* Headers that were written over older ones. */
static unsigned reused(const struct world *w)
{
    unsigned n = 0;
    for (size_t i = 0; i < w->disk.n_ops; i++) {
        const struct model_op *op = &w->disk.op[i];
        n += op->kind == MODEL_WRITE && op->offset == 0 && op->n == SPOOL_BLOCK_BYTES &&
             !strncmp(w->disk.file[op->file].name, "segments/", 9);
    }
    for (int i = 0; i < w->disk.n_files; i++)
        n -= !strncmp(w->disk.file[i].name, "segments/", 9) && n > 0;
    return n;
}

static void explore(uint64_t seed, unsigned steps, bool failing, bool recycling)
{
    static struct world w;
    static struct model_replay replay;
    struct loop *loop;
    assert_int_equal(loop_new(&loop, NULL), 0);
    run_world(&w, seed, steps, failing, recycling);
    unsigned acked = 0, settled = 0;
    for (unsigned i = 0; i < w.n_facts; i++) {
        acked += w.fact[i].acked != NEVER;
        settled += w.fact[i].settled_durable != NEVER;
    }
    print_message("seed %llu: %u messages, %u acknowledged, %u durably settled, %zu operations, %u moved, %u reused, %u failures\n",
                  (unsigned long long)seed, w.n_facts, acked, settled, w.disk.n_ops, w.moved, reused(&w), w.failures);
    assert_true(acked > 5 && settled > 2);
    assert_int_equal(w.acknowledged_damage, 0);
    assert_true(failing || w.failures == 0);
    assert_true(!recycling || reused(&w) || failing);
    model_replay_init(&replay, &w.disk);
    for (size_t n = 1; n <= w.disk.n_ops; n++) {
        model_replay_to(&replay, n);
        stop_and_check(&w, &replay, n % 2 ? MODEL_NOTHING : MODEL_EVERYTHING, loop);
        stop_and_check(&w, &replay, MODEL_SOME, loop);
        stop_and_check(&w, &replay, MODEL_TORN, loop);
    }
    model_replay_done(&replay);
    close_world(&w);
    loop_free(&loop);
}

static void every_stop(void **state)
{
    explore(1, 220, false, false);
}

static void every_stop_with_failing_syncs(void **state)
{
    explore(5, 220, true, false);
}

static void every_stop_with_reuse_of_segments(void **state)
{
    explore(3, 420, false, true);
}

static void every_stop_with_reuse_and_failures(void **state)
{
    explore(103, 300, true, true); /* stops in the middle of a checkpoint whose end came through */
}

/* test_crash_model FROM TO: other worlds. */
static unsigned first_seed, last_seed;
static void other_worlds(void **state)
{
    for (unsigned seed = first_seed; seed <= last_seed; seed++)
        explore(seed, 300, seed % 2, seed % 4 >= 2);
}

int main(int argc, char **argv)
{
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* thousands of disks are made and forgotten: keep their memory */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    if (argc == 3) {
        const struct CMUnitTest others[] = { cmocka_unit_test(other_worlds) };
        first_seed = (unsigned)strtoul(argv[1], NULL, 10);
        last_seed = (unsigned)strtoul(argv[2], NULL, 10);
        return cmocka_run_group_tests(others, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stop), cmocka_unit_test(every_stop_with_failing_syncs),
        cmocka_unit_test(every_stop_with_reuse_of_segments), cmocka_unit_test(every_stop_with_reuse_and_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
