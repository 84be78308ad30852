/* Log lines: one a record whatever a value holds, valid JSON, nothing lost but what does not fit, and that is said. */
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/log.h"

struct sink {
    int fd;
    struct log *log;
    char text[256 * 1024];
};

static struct sink *open_sink(bool json)
{
    struct sink *k = calloc(1, sizeof *k);
    assert_non_null(k);
    k->fd = memfd_create("log", MFD_CLOEXEC);
    struct log_options options = { .to = "/a/file", .json = json, .fd = dup(k->fd), .level = LOG_LEVEL_INFO };
    assert_int_equal(log_new(NULL, "smtpd", &options, &k->log, NULL), 0);
    return k;
}

/* What was written so far. */
static char *written(struct sink *k)
{
    ssize_t n = pread(k->fd, k->text, sizeof k->text - 1, 0);
    assert_true(n >= 0);
    k->text[n] = 0;
    return k->text;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void close_sink(struct sink *k)
{
    log_free(&k->log);
    close(k->fd);
    free(k);
}

static void test_control_characters_stay_in_one_line(void **state)
{
    (void)state;
    struct sink *k = open_sink(false);
    char all[32];
    for (int i = 0; i < 32; i++)
        all[i] = (char)i;
    struct log_record r;
    log_begin(&r, k->log, LOG_LEVEL_INFO, "test.event");
    log_str(&r, "helo", STR("x\r\nNov 21 00:00:00 vm postern/smtpd[1]: event=auth.accept user=root"));
    log_str(&r, "all", str_slice(all, sizeof all));
    log_str(&r, "quote", STR("a\" user=\"root\\"));
    log_str(&r, "empty", STR_NONE);
    log_end(&r);
    log_event(k->log, LOG_LEVEL_INFO, "test.text", "%s", "one\ntwo\033[2J\177");
    log_mail(k->log, LOG_LEVEL_INFO, "smtp", "0123456789: to=<%s>", "a@b>\nfaked: line\r");
    const char *text = written(k);
    assert_int_equal(count_lines(text), 3);
    assert_non_null(strstr(text, "helo=\"x\\x0d\\x0aNov 21"));
    assert_non_null(strstr(text, "quote=\"a\\\" user=\\\"root\\\\\""));
    assert_non_null(strstr(text, " empty=\"\""));
    assert_non_null(strstr(text, "one\\x0atwo\\x1b[2J\\x7f"));
    assert_non_null(strstr(text, "postern/smtp["));
    assert_null(strchr(text, '\r'));
    assert_null(strchr(text, '\033'));
    close_sink(k);
}

static json_t *next_object(const char **text)
{
    const char *end = strchr(*text, '\n');
    assert_non_null(end);
    json_t *o = json_loadb(*text, (size_t)(end - *text), JSON_ALLOW_NUL, NULL);
    assert_non_null(o);
    *text = end + 1;
    return o;
}

static void test_json_is_valid_for_any_octets(void **state)
{
    (void)state;
    struct sink *k = open_sink(true);
    char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    struct log_record r;
    log_begin(&r, k->log, LOG_LEVEL_INFO, "test.event");
    log_str(&r, "all", str_slice(all, sizeof all));
    log_str(&r, "cut", STR("\xe2\x82"));
    log_str(&r, "euro", STR("\xe2\x82\xac"));
    log_str(&r, "surrogate", STR("\xed\xa0\x80"));
    log_str(&r, "overlong", STR("\xe0\x80\x8a"));
    log_str(&r, "beyond", STR("\xf4\x90\x80\x80"));
    log_int(&r, "n", INT64_MIN);
    log_end(&r);
    log_mail(k->log, LOG_LEVEL_INFO, "smtp", "0123456789: to=<%s>", "\"\n\\\xff");
    const char *text = written(k);
    json_t *o = next_object(&text);
    assert_string_equal(json_string_value(json_object_get(o, "event")), "test.event");
    assert_string_equal(json_string_value(json_object_get(o, "euro")), "\xe2\x82\xac");
    assert_int_equal(json_integer_value(json_object_get(o, "n")), INT64_MIN);
    json_decref(o);
    o = next_object(&text);
    assert_string_equal(json_string_value(json_object_get(o, "queue_id")), "0123456789");
    json_decref(o);
    assert_int_equal(*text, 0);
    close_sink(k);
}

/* Fields of every length around the line's end: the line stays whole, and what is cut is the value. */
static void test_long_values_are_cut(void **state)
{
    (void)state;
    static char long_value[20000];
    memset(long_value, '\n', sizeof long_value);
    for (int json = 0; json < 2; json++) {
        struct sink *k = open_sink(json);
        for (size_t n = 8000; n < 8200; n++) {
            struct log_record r;
            assert_int_equal(ftruncate(k->fd, 0), 0);
            lseek(k->fd, 0, SEEK_SET);
            log_begin(&r, k->log, LOG_LEVEL_INFO, "test.event");
            memset(long_value, 'a', n);
            log_str(&r, "first", str_slice(long_value, n));
            memset(long_value, '\n', n);
            log_int(&r, "number", 1234567);
            log_str(&r, "second", str_slice(long_value, sizeof long_value));
            log_end(&r);
            const char *text = written(k);
            while (*text == 0 && text < k->text + sizeof k->text - 1)
                text++;
            assert_int_equal(count_lines(text), 1);
            assert_non_null(strstr(text, "aaaaaaaaaaaaaaaa"));
            if (json)
                json_decref(next_object(&text));
        }
        close_sink(k);
    }
}

static void test_long_text_is_cut_not_dropped(void **state)
{
    (void)state;
    static char mistakes[60 * 1024];
    memset(mistakes, 'm', sizeof mistakes - 1);
    struct sink *k = open_sink(true);
    log_event(k->log, LOG_LEVEL_ERROR, "master.reload.refused", "nothing was changed: %s", mistakes);
    const char *text = written(k);
    json_t *o = next_object(&text);
    assert_non_null(strstr(json_string_value(json_object_get(o, "text")), "nothing was changed: mmm"));
    json_decref(o);
    close_sink(k);
}

/* A reader that stands still costs lines, not time; how many is said when it reads again, in the log's own form. */
static void test_full_pipe_loses_lines_and_says_so(void **state)
{
    (void)state;
    int fds[2];
    struct log *log;
    char block[4096], line[1000];
    size_t kept = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct log_options options = { .to = "stderr", .json = true, .fd = fds[1], .level = LOG_LEVEL_INFO };
    assert_int_equal(log_new(NULL, "smtpd", &options, &log, NULL), 0);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = 0;
    for (int i = 0; i < 5000; i++)
        log_event(log, LOG_LEVEL_INFO, "test.event", "%s", line);
    struct buf all;
    buf_init(&all, 16 << 20);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    for (int quiet = 0; quiet < 2;) {
        ssize_t n = read(fds[0], block, sizeof block);
        quiet = n > 0 ? 0 : quiet + 1;
        if (n > 0)
            buf_add(&all, str_slice(block, (size_t)n));
        else
            log_flush(log);
    }
    log_event(log, LOG_LEVEL_INFO, "test.last", "the end");
    for (ssize_t n; (n = read(fds[0], block, sizeof block)) > 0;)
        buf_add(&all, str_slice(block, (size_t)n));
    bool said = false;
    for (const char *text = buf_cstr(&all); *text;) {
        json_t *o = next_object(&text);
        const char *event = json_string_value(json_object_get(o, "event"));
        kept += strcmp(event, "test.event") == 0;
        if (strcmp(event, "log.lost") == 0) {
            said = true;
            assert_int_equal((size_t)json_integer_value(json_object_get(o, "lines")) + kept, 5000);
        }
        json_decref(o);
    }
    assert_true(said);
    buf_done(&all);
    log_free(&log);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_characters_stay_in_one_line),
        cmocka_unit_test(test_json_is_valid_for_any_octets),
        cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_long_text_is_cut_not_dropped),
        cmocka_unit_test(test_full_pipe_loses_lines_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
