/* The reader of session logs: times, files of former days, and lines that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/session_log.h"

static char folder[] = "/tmp/postern-sessions-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, struct str text)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text.p, text.n), (ssize_t)text.n);
    close(fd);
}

struct seen {
    char ids[64];
    uint64_t n, stop_at;
};

static bool take(void *arg, const json_t *session, int64_t time_ms)
{
    struct seen *seen = arg;
    struct str id = session_log_text(session, "session", 1);
    assert_true(seen->n + 1 < sizeof seen->ids);
    seen->ids[seen->n++] = id.n ? id.p[0] : '-';
    return seen->n != seen->stop_at;
}

static int read_all(int64_t since_ms, struct seen *seen, struct session_log_counts *counts)
{
    struct err err = { 0 };
    int rc = session_log_read(path_of("s.json"), since_ms, take, seen, counts, &err);
    assert_true(rc == 0 || err.text[0]);
    return rc;
}

static int64_t ms_of(const char *text)
{
    int64_t ms = -1;
    return session_log_time(str_of(text), &ms) ? ms : -1;
}

static void test_time(void **state)
{
    static const char *const bad[] = { "", "2026", "2026-11", "2026-13-01", "2026-02-31", "1969-12-31", "2026-11-21T", "x",
                                       "2026-11-21T18:07:33", "2026-11-21T18:07:33.Z", "2026-11-21T24:00:00Z",
                                       "2026-11-21T18:07:33+00:00", "2026-11-21 18:07:33Z", "2026-11-21Zx", "+026-11-21" };
    assert_int_equal(ms_of("1970-01-01"), 0);
    assert_int_equal(ms_of("2026-11-21"), 1795219200000);
    assert_int_equal(ms_of("2026-11-21T18:07:33Z"), 1795219200000 + ((18 * 60 + 7) * 60 + 33) * 1000);
    assert_int_equal(ms_of("2026-11-21T18:07:33.123Z"), ms_of("2026-11-21T18:07:33Z") + 123);
    assert_int_equal(ms_of("2026-11-21T18:07:33.1239Z"), ms_of("2026-11-21T18:07:33Z") + 123);
    assert_int_equal(ms_of("2028-02-29"), ms_of("2028-02-28") + 86400000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (ms_of(bad[i]) != -1)
            fail_msg("%s", bad[i]);
}

#define LINE(id, time) "{\"time\":\"" time "\",\"session\":\"" id "\"}\n"

static void test_files(void **state)
{
    struct seen seen = { 0 };
    struct session_log_counts counts;
    assert_int_equal(read_all(0, &seen, &counts), ERR_ABSENT);
    write_file("s.json.2026-11-19", STR(LINE("A", "2026-11-19T01:00:00.000Z")));
    assert_int_equal(read_all(0, &seen, &counts), 0); /* the present one may not be there yet */
    write_file("s.json", STR(LINE("D", "2026-11-21T01:00:00.000Z") LINE("E", "2026-11-21T02:00:00.000Z")));
    write_file("s.json.2026-11-20", STR(LINE("B", "2026-11-20T01:00:00.000Z") LINE("C", "2026-11-20T02:00:00.000Z")));
    write_file("s.json.old", STR(LINE("X", "2026-11-20T01:00:00.000Z")));
    write_file("s.json.2026-99-99", STR(LINE("X", "2026-11-20T01:00:00.000Z")));
    write_file("t.json.2026-11-20", STR(LINE("X", "2026-11-20T01:00:00.000Z")));
    seen = (struct seen){ 0 };
    assert_int_equal(read_all(0, &seen, &counts), 0);
    assert_string_equal(seen.ids, "ABCDE");
    assert_int_equal(counts.files, 3);
    assert_int_equal(counts.sessions, 5);
    assert_int_equal(counts.damaged, 0);
    seen = (struct seen){ 0 };
    assert_int_equal(read_all(ms_of("2026-11-20T02:00:00Z"), &seen, &counts), 0);
    assert_string_equal(seen.ids, "CDE");
    seen = (struct seen){ .stop_at = 2 };
    assert_int_equal(read_all(0, &seen, &counts), -ENOMEM);
    /* Long before: not opened at all. */
    struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
    assert_int_equal(utimensat(AT_FDCWD, path_of("s.json.2026-11-19"), times, 0), 0);
    seen = (struct seen){ 0 };
    assert_int_equal(read_all(ms_of("2026-11-01"), &seen, &counts), 0);
    assert_string_equal(seen.ids, "BCDE");
    assert_int_equal(counts.files, 2);
    unlink(path_of("s.json"));
    assert_int_equal(mkfifo(path_of("s.json"), 0600), 0); /* nobody writes there: must not wait */
    seen = (struct seen){ 0 };
    assert_int_equal(read_all(0, &seen, &counts), 0);
    assert_string_equal(seen.ids, "ABC");
    unlink(path_of("s.json"));
}

static void test_damaged(void **state)
{
    struct seen seen = { 0 };
    struct session_log_counts counts;
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_add(&text, STR(LINE("A", "2026-11-21T01:00:00.000Z") "\n  \nnonsense\n{\"time\":\"2026-11-21T01:0\n{}\n[1]\n"
                       "{\"time\":17}\n{\"time\":\"yesterday\"}\n\xff\xfe\0\n" LINE("B", "2026-11-21T01:00:00.000Z")));
    buf_add_c(&text, "{\"time\":\"2026-11-21T01:00:00.000Z\",\"session\":\"");
    for (size_t i = 0; i < 3 * SESSION_LOG_LINE_MAX; i++)
        buf_add_char(&text, 'x');
    buf_add_c(&text, "\"}\n");
    for (size_t i = 0; i < 10000; i++)
        buf_add_char(&text, '[');
    buf_add_c(&text, "\n{\"time\":\"2026-11-21T01:00:00Z\",\"session\":5}\n"
                     "{\"time\":\"2026-11-21T01:00:00Z\",\"session\":\"C\"}"); /* without its end */
    write_file("s.json", buf_str(&text));
    buf_done(&text);
    assert_int_equal(read_all(0, &seen, &counts), 0);
    assert_string_equal(seen.ids, "AB-C");
    assert_int_equal(counts.sessions, 4);
    assert_int_equal(counts.damaged, 9);
}

static int set_up(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_files(void **state)
{
    static const char *const names[] = { "s.json", "s.json.2026-11-19", "s.json.2026-11-20", "s.json.old", "s.json.2026-99-99",
                                         "t.json.2026-11-20" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return 0;
}

static int tear_down(void **state)
{
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),
        cmocka_unit_test_teardown(test_files, remove_files),
        cmocka_unit_test_teardown(test_damaged, remove_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
