/* A writer on real files and threads: what is committed is read back; what cannot be stored is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "spool/record.h"
#include "spool/spool.h"

struct fixture {
    struct loop *loop;
    struct spool_page *page;
    struct spool_writer *writer;
    struct spool_lent segment[3];
    int segment_fd[3], body_fd[3], bell;
    unsigned returned, bodies_returned, bodies_taken, failed, done;
    uint64_t last_end;
    int result;
    uint64_t id;
    bool refuse_sync;
};
static struct fixture *current;

static void on_segment(void *arg, const struct spool_lent *segment)
{
    struct fixture *f = arg;
    f->returned++;
    f->last_end = segment->size_bytes;
}

static void on_body(void *arg, const struct spool_lent *body)
{
    ((struct fixture *)arg)->bodies_returned++;
}

static void on_taken(void *arg, const struct spool_lent *body)
{
    ((struct fixture *)arg)->bodies_taken++;
}

static void on_failed(void *arg, const struct err *why)
{
    ((struct fixture *)arg)->failed++;
}

static const struct spool_writer_handlers handlers = {
    .segment_done = on_segment, .body_done = on_body, .body_taken = on_taken, .failed = on_failed,
};

static int broken_sync(const struct spool_disk *disk, int fd)
{
    return current->refuse_sync ? -EIO : spool_disk_system.fdatasync(disk, fd);
}

static struct spool_disk disk;

static int temp_file(size_t bytes)
{
    char name[] = "/tmp/postern-spool-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    current = f;
    disk = spool_disk_system;
    disk.fdatasync = broken_sync;
    struct err err = { 0 };
    assert_int_equal(loop_new(&f->loop, &err), 0);
    int fd = spool_page_create();
    f->page = spool_page_map(fd);
    close(fd);
    f->bell = eventfd(0, EFD_NONBLOCK);
    assert_true(spool_writer_new(f->loop, &disk, f->page, f->bell, &handlers, f, &f->writer, &err) >= 0);
    for (unsigned i = 0; i < 3; i++) {
        f->segment_fd[i] = temp_file(SPOOL_SEGMENT_MIN_BYTES);
        f->segment[i] = (struct spool_lent){ i + 1, 0x1234567890abcdef + i, SPOOL_SEGMENT_MIN_BYTES };
        assert_int_equal(spool_writer_lend_segment(f->writer, &f->segment[i], dup(f->segment_fd[i]), &err), 0);
        f->body_fd[i] = temp_file(0);
    }
    *state = f;
    return 0;
}

static void lend_body(struct fixture *f, unsigned i)
{
    assert_int_equal(spool_writer_lend_body(f->writer, &(struct spool_lent){ 100 + i, 0, 0 }, dup(f->body_fd[i]), NULL), 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    spool_writer_free(&f->writer);
    spool_page_unmap(f->page);
    loop_free(&f->loop);
    for (unsigned i = 0; i < 3; i++) {
        close(f->segment_fd[i]);
        close(f->body_fd[i]);
    }
    close(f->bell);
    free(f);
    return 0;
}

static bool add_received(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    return buf_addf(out, "Received: by test id %s\r\n", queue_id);
}

static void on_done(void *arg, int result, uint64_t id)
{
    struct fixture *f = arg;
    f->done++;
    f->result = result;
    f->id = id;
}

static struct spool_message *begin(struct fixture *f, size_t body_bytes)
{
    struct spool_message *m = spool_message_begin(f->writer);
    char line[1024];
    for (size_t i = 0; i < sizeof(line); i++)
        line[i] = (char)('a' + i % 23);
    for (size_t at = 0; at < body_bytes; at += sizeof(line)) {
        size_t n = body_bytes - at < sizeof(line) ? body_bytes - at : sizeof(line);
        if (spool_message_write(m, str_slice(line, n), NULL) < 0) {
            spool_message_abort(m);
            return NULL;
        }
    }
    return m;
}

static void commit(struct fixture *f, struct spool_message *m)
{
    struct spool_recipient to = { .address = STR("b@example.org") };
    struct spool_envelope e = { .reverse_path = STR("a@example.org"), .recipient = &to, .n_recipients = 1 };
    struct spool_commit c = { .envelope = &e, .prefix = add_received, .done = on_done, .arg = f };
    spool_message_commit(m, &c);
}

static void wait_done(struct fixture *f, unsigned n)
{
    while (f->done < n)
        loop_run_once(f->loop, true);
}

static struct spool_place place_at(struct fixture *f, unsigned i, uint32_t offset)
{
    unsigned char header[SPOOL_RECORD_HEADER_BYTES];
    struct spool_record r;
    assert_int_equal(pread(f->segment_fd[i], header, sizeof(header), offset), sizeof(header));
    assert_true(spool_record_header(header, f->segment[i].generation, offset, SPOOL_SEGMENT_MIN_BYTES, &r));
    return (struct spool_place){ f->segment[i].number, f->segment[i].generation, offset, r.length };
}

static void commits_small(void **state)
{
    struct fixture *f = *state;
    commit(f, begin(f, 1000));
    assert_int_equal(f->done, 0);
    wait_done(f, 1);
    assert_int_equal(f->result, 0);
    struct spool_place place = place_at(f, 0, SPOOL_BLOCK_BYTES);
    struct spool_reader *r;
    struct err err = { 0 };
    assert_int_equal(spool_reader_open(&disk, f->segment_fd[0], &place, -1, &r, &err), 0);
    assert_int_equal(spool_reader_id(r), f->id);
    char text[SPOOL_ID_TEXT_BYTES];
    spool_id_format(f->id, text);
    assert_non_null(memmem(spool_reader_prefix(r).p, spool_reader_prefix(r).n, text, strlen(text)));
    assert_true(str_eq(spool_reader_envelope(r)->reverse_path, STR("a@example.org")));
    char body[2000];
    assert_int_equal(spool_reader_read(r, body, sizeof(body), &err), 1000);
    assert_int_equal(spool_reader_read(r, body, sizeof(body), &err), 0);
    spool_reader_free(&r);
    uint64_t durable;
    assert_true(spool_page_durable(f->page, 1, &durable));
    assert_true(durable >= place.offset + place.length);
}

static void commits_large_into_a_body_file(void **state)
{
    struct fixture *f = *state;
    lend_body(f, 0);
    commit(f, begin(f, 300000));
    wait_done(f, 1);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->bodies_taken, 1);
    assert_int_equal(f->bodies_returned, 0);
    struct spool_place place = place_at(f, 0, SPOOL_BLOCK_BYTES);
    struct spool_reader *r;
    struct err err = { 0 };
    assert_int_equal(spool_reader_open(&disk, f->segment_fd[0], &place, f->body_fd[0], &r, &err), 0);
    assert_int_equal(spool_reader_body_file(r), 100);
    size_t total = 0;
    char p[7777];
    for (ssize_t n; (n = spool_reader_read(r, p, sizeof(p), &err)) > 0;)
        total += (size_t)n;
    assert_int_equal(total, 300000);
    /* One octet of the body changes: the last read says so. */
    assert_int_equal(pwrite(f->body_fd[0], "!", 1, 150000), 1);
    spool_reader_rewind(r);
    ssize_t n;
    while ((n = spool_reader_read(r, p, sizeof(p), &err)) > 0)
        ;
    assert_int_equal(n, ERR_CORRUPT);
    spool_reader_free(&r);
}

static void waits_for_a_body_file(void **state)
{
    struct fixture *f = *state;
    struct spool_message *m = begin(f, 200000);
    lend_body(f, 1);
    assert_int_equal(f->bodies_taken, 1);
    assert_int_equal(spool_message_body_bytes(m), 200000);
    commit(f, m);
    wait_done(f, 1);
    assert_int_equal(f->result, 0);
    assert_null(begin(f, 2000000)); /* none left: its patience ends at 1 MiB */
}

static void aborted_body_goes_back(void **state)
{
    struct fixture *f = *state;
    lend_body(f, 0);
    spool_message_abort(begin(f, 300000));
    assert_int_equal(f->bodies_returned, 1);
}

static void failing_sync_fails_all_and_retires(void **state)
{
    struct fixture *f = *state;
    f->refuse_sync = true;
    commit(f, begin(f, 1000));
    commit(f, begin(f, 1000));
    wait_done(f, 2);
    assert_int_equal(f->result, -EIO);
    assert_int_equal(f->returned, 1);
    assert_int_equal(f->last_end, SPOOL_BLOCK_BYTES);
    assert_int_equal(f->failed, 1);
    f->refuse_sync = false;
    commit(f, begin(f, 1000));
    wait_done(f, 3);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->id >> 29, 2);
}

static void fills_segments_then_refuses(void **state)
{
    struct fixture *f = *state;
    unsigned n = 0, ok = 0;
    while (spool_writer_can_accept(f->writer) || n == 0) {
        commit(f, begin(f, 60000));
        wait_done(f, ++n);
        ok += f->result == 0;
    }
    assert_int_equal(f->returned, 2);
    assert_true(ok >= 32);
    for (unsigned i = 0; i < 30; i++) {
        commit(f, begin(f, 60000));
        wait_done(f, ++n);
    }
    assert_int_equal(f->result, ERR_BUSY);
    assert_int_equal(f->returned, 3);
}

static void many_share_a_sync(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 100; i++)
        commit(f, begin(f, 100));
    wait_done(f, 100);
    assert_int_equal(f->result, 0);
    assert_int_equal(atomic_load(&f->page->syncs), 1);
    assert_int_equal(atomic_load(&f->page->messages), 100);
}

static void rings_only_when_wanted(void **state)
{
    struct fixture *f = *state;
    eventfd_t value;
    commit(f, begin(f, 100));
    wait_done(f, 1);
    assert_int_equal(eventfd_read(f->bell, &value), -1);
    atomic_store(&f->page->bell_wanted, 1);
    commit(f, begin(f, 100));
    wait_done(f, 2);
    assert_int_equal(eventfd_read(f->bell, &value), 0);
}

static void forgets(void **state)
{
    struct fixture *f = *state;
    struct spool_message *m = begin(f, 100);
    commit(f, m);
    spool_message_forget(m);
    commit(f, begin(f, 100));
    wait_done(f, 1);
    while (!spool_writer_idle(f->writer))
        loop_run_once(f->loop, true);
    assert_int_equal(f->done, 1);
}

static void count_held(void *arg, bool is_body, const struct spool_lent *lent)
{
    unsigned *n = arg;
    n[is_body ? 1 : 0] += lent->number != 0;
    n[2] += lent->number == 0;
}

static void tells_what_it_holds(void **state)
{
    struct fixture *f = *state;
    lend_body(f, 0);
    lend_body(f, 1);
    struct spool_message *m = begin(f, 300000);
    unsigned n[3] = { 0 };
    spool_writer_held(f->writer, count_held, n);
    assert_int_equal(n[0], 3);
    assert_int_equal(n[1], 2);
    assert_int_equal(n[2], 2);
    spool_message_abort(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(commits_small), T(commits_large_into_a_body_file), T(waits_for_a_body_file), T(aborted_body_goes_back),
        T(failing_sync_fails_all_and_retires), T(fills_segments_then_refuses), T(many_share_a_sync),
        T(rings_only_when_wanted), T(forgets), T(tells_what_it_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
