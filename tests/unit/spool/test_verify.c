/* A spool on a real file system: what the store kept is listed and verified without it; damage is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/store.h"
#include "spool/verify.h"

struct fixture {
    char folder[64];
    struct loop *loop;
    struct spool_store *store;
    struct spool_writer *writer;
    struct spool_page page;
    unsigned done, messages, lent;
    uint64_t id[8];
    struct spool_segment *segment[8];
    uint64_t body_file[8];
    struct spool_place place[8];
};

static void on_message(void *arg, const struct spool_found *found)
{
    struct fixture *f = arg;
    f->segment[f->messages] = found->segment;
    f->place[f->messages] = found->place;
    f->body_file[f->messages] = found->body_file;
    f->id[f->messages++] = found->id;
}

static void lend(void *arg)
{
    struct fixture *f = arg;
    struct spool_lent lent;
    int fd;
    while (f->writer && f->lent < 1 && spool_store_lend_segment(f->store, f, &lent, &fd)) {
        f->lent++;
        assert_int_equal(spool_writer_lend_segment(f->writer, &lent, fd, NULL), 0);
    }
    if (f->writer && spool_store_lend_body(f->store, f, &lent, &fd))
        assert_int_equal(spool_writer_lend_body(f->writer, &lent, fd, NULL), 0);
}

static void on_damaged(void *arg, uint64_t segment, const struct spool_damage *damage, const char *kept_as)
{
    fail_msg("damage in a sound spool");
}

static void on_failed(void *arg, const struct err *why)
{
    fail_msg("%s", why->text);
}

static void ignore_segment(void *arg, struct spool_segment *segment)
{
}

static void ignore_lent(void *arg, const struct spool_lent *lent)
{
}

static const struct spool_writer_handlers writer_handlers = {
    .segment_done = ignore_lent, .body_done = ignore_lent, .body_taken = ignore_lent, .failed = on_failed,
};

static void no_entries(void *arg, struct spool_checkpoint *checkpoint)
{
}

static void open_store(struct fixture *f)
{
    struct spool_store_options options = {
        .loop = f->loop, .folder = f->folder, .segment_bytes = SPOOL_SEGMENT_MIN_BYTES,
        .handlers = { on_message, on_damaged, lend, ignore_segment, on_failed, f },
    };
    struct err err = { 0 };
    if (spool_store_open(&options, &f->store, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(spool_store_scan(f->store, &err), 0);
    assert_int_equal(spool_store_checkpoint(f->store, no_entries, f, &err), 0);
}

static void on_done(void *arg, int result, uint64_t id)
{
    assert_int_equal(result, 0);
    ((struct fixture *)arg)->done++;
}

static void add_message(struct fixture *f, size_t bytes)
{
    static char body[200000];
    memset(body, 'x', sizeof(body));
    struct spool_message *m = spool_message_begin(f->writer);
    while (spool_message_write(m, str_slice(body, bytes), NULL) < 0)
        fail();
    struct spool_recipient to[] = { { .address = STR("a@b.test") }, { .address = STR("c@d.test") } };
    struct spool_envelope e = { .reverse_path = STR("s@x.test"), .recipient = to, .n_recipients = 2 };
    struct spool_commit c = { .envelope = &e, .done = on_done, .arg = f };
    unsigned before = f->done;
    spool_message_commit(m, &c);
    while (f->done == before)
        loop_run_once(f->loop, true);
}

static void on_synced(void *arg, int result)
{
    assert_int_equal(result, 0);
    ((struct fixture *)arg)->done++;
}

static void close_all(struct fixture *f)
{
    spool_writer_free(&f->writer);
    spool_store_free(&f->store);
}

/* Four messages: settled, deferred with one recipient settled, held, one with a body file. */
static int setup(void **state)
{
    static const uint16_t first[] = { 0 };
    struct fixture *f = calloc(1, sizeof(*f));
    memcpy(f->folder, "/tmp/postern-verify-XXXXXX", 27);
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(loop_new(&f->loop, NULL), 0);
    open_store(f);
    assert_int_equal(spool_writer_new(f->loop, &spool_disk_system, &f->page, -1, &writer_handlers, f, &f->writer, NULL), 0);
    spool_store_want(f->store, 1, 1);
    while (f->lent == 0 || !spool_writer_can_accept(f->writer))
        loop_run_once(f->loop, true);
    struct spool_lent lent;
    int fd;
    while (!spool_store_lend_body(f->store, f, &lent, &fd))
        loop_run_once(f->loop, true);
    assert_int_equal(spool_writer_lend_body(f->writer, &lent, fd, NULL), 0);
    add_message(f, 100);
    add_message(f, 5000);
    add_message(f, 0);
    add_message(f, 150000);
    while (f->messages < 4)
        spool_store_follow(f->store, f, &f->page);
    spool_store_settled(f->store, f->segment[0], f->id[0], 0);
    spool_store_settled_some(f->store, f->id[1], first, 1);
    spool_store_deferred(f->store, f->id[1], 2, 1795284753000, STR("451 later"));
    spool_store_mark(f->store, f->id[2], SPOOL_MARK_HELD);
    unsigned before = f->done;
    assert_int_equal(spool_store_sync(f->store, on_synced, f), 0);
    while (f->done == before)
        loop_run_once(f->loop, true);
    close_all(f);
    *state = f;
    return 0;
}

static void remove_below(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        char name[512];
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        if (unlink(name) < 0) {
            remove_below(name);
            rmdir(name);
        }
    }
    if (dir)
        closedir(dir);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close_all(f);
    loop_free(&f->loop);
    remove_below(f->folder);
    rmdir(f->folder);
    free(f);
    return 0;
}

struct listed {
    unsigned n, held, deferred;
    uint64_t octets;
};

static void on_listed(void *arg, const struct spool_found *found)
{
    struct listed *l = arg;
    l->n++;
    l->octets += found->envelope->message_bytes;
    l->held += found->memory && found->memory->held;
    if (found->memory && found->memory->attempts == 2 && found->memory->n_settled == 1 &&
        str_eq(found->memory->reason, STR("451 later")) && found->memory->next_wall_ms == 1795284753000)
        l->deferred++;
}

static void lists_what_waits(void **state)
{
    struct fixture *f = *state;
    struct listed l = { 0 };
    struct err err = { 0 };
    assert_int_equal(spool_list_offline(f->folder, on_listed, &l, &err), 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.held, 1);
    assert_int_equal(l.deferred, 1);
    assert_int_equal(l.octets, 5000 + 0 + 150000);
}

struct damages {
    unsigned n, acknowledged;
    uint64_t id;
};

static void on_damage(void *arg, const struct spool_verify_damage *d)
{
    struct damages *damages = arg;
    damages->n++;
    damages->acknowledged += d->acknowledged;
    if (d->id)
        damages->id = d->id;
}

static void a_sound_spool_is_sound(void **state)
{
    struct fixture *f = *state;
    struct damages d = { 0 };
    struct spool_verify_result r;
    assert_int_equal(spool_verify(f->folder, on_damage, &d, &r, NULL), 0);
    assert_int_equal(d.n, 0);
    assert_int_equal(r.messages, 3);
    assert_int_equal(r.octets, 155000);
    /* and nothing was changed by looking */
    assert_int_equal(spool_verify(f->folder, on_damage, &d, &r, NULL), 0);
    assert_int_equal(r.messages, 3);
}

static void change(struct fixture *f, const char *folder, off_t at)
{
    char path[512], name[300] = "";
    snprintf(path, sizeof(path), "%s/%s", f->folder, folder);
    DIR *dir = opendir(path);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (e->d_name[0] != '.' && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && st.st_size > at)
            snprintf(name, sizeof(name), "%s", e->d_name);
    }
    int fd = openat(dirfd(dir), name, O_RDWR);
    char c;
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
    closedir(dir);
}

static void a_damaged_record_is_told(void **state)
{
    struct fixture *f = *state;
    struct damages d = { 0 };
    struct spool_verify_result r;
    change(f, "segments", f->place[1].offset + 200);
    assert_int_equal(spool_verify(f->folder, on_damage, &d, &r, NULL), 0);
    assert_int_equal(d.acknowledged, 1);
    assert_int_equal(r.messages, 2);
}

static void a_damaged_body_file_is_told(void **state)
{
    struct fixture *f = *state;
    struct damages d = { 0 };
    struct spool_verify_result r;
    change(f, "bodies", 70000);
    assert_int_equal(spool_verify(f->folder, on_damage, &d, &r, NULL), 0);
    assert_int_equal(r.acknowledged, 1);
    assert_int_equal(d.id, f->id[3]);
}

static void a_missing_body_file_is_told(void **state)
{
    struct fixture *f = *state;
    struct damages d = { 0 };
    struct spool_verify_result r;
    char path[512];
    snprintf(path, sizeof(path), "%s/bodies/%016llX", f->folder, (unsigned long long)f->body_file[3]);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(spool_verify(f->folder, on_damage, &d, &r, NULL), 0);
    assert_int_equal(d.id, f->id[3]);
}

static void no_spool_is_not_an_empty_one(void **state)
{
    struct fixture *f = *state;
    struct listed l = { 0 };
    struct err err = { 0 };
    assert_int_equal(spool_list_offline("/nonexistent/spool", on_listed, &l, &err), ERR_ABSENT);
    assert_true(err.text[0]);
    char path[512];
    snprintf(path, sizeof(path), "%s/bodies", f->folder);
    assert_int_equal(spool_list_offline(path, on_listed, &l, &err), ERR_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(lists_what_waits), T(a_sound_spool_is_sound), T(a_damaged_record_is_told), T(a_damaged_body_file_is_told),
        T(a_missing_body_file_is_told), T(no_spool_is_not_an_empty_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
