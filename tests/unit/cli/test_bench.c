/* postern bench: its arguments, its messages, its percentiles, and a load against its own sink. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <jansson.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench/bench.h"

/* Of main.c, which is not in the library: where the messages go does not matter here. */
int cli_usage(const char *verb, const char *fmt, ...)
{
    (void)verb;
    (void)fmt;
    return CLI_USAGE;
}

static int read_options(struct bench_options *o, const char *const *words)
{
    char *argv[32] = { (char *)"bench" };
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    return bench_options_read(o, argc, argv);
}
#define OPTIONS(o, ...) read_options(o, (const char *const[]){ __VA_ARGS__, NULL })

static void test_options(void **state)
{
    (void)state;
    struct bench_options o;
    assert_int_equal(OPTIONS(&o, "-n", "20", "--size=50M", "-d", "0.25", "-P", "127.0.0.1:2525"), CLI_OK);
    assert_int_equal(o.connections, 20);
    assert_int_equal(o.size_bytes, 50 * 1024 * 1024);
    assert_int_equal(o.duration_ms, 250);
    assert_true(o.no_pipelining);
    assert_int_equal(o.mode, BENCH_MESSAGES);
    assert_int_equal(((struct sockaddr_in *)&o.address)->sin_port, htons(2525));
    bench_options_done(&o);

    assert_int_equal(OPTIONS(&o, "--idle", "0", "--tls", "[::1]"), CLI_OK);
    assert_int_equal(o.mode, BENCH_IDLE);
    assert_int_equal(((struct sockaddr_in6 *)&o.address)->sin6_port, htons(465));
    bench_options_done(&o);
}

static void test_options_refused(void **state)
{
    (void)state;
    struct bench_options o;
    static const char *const bad[][4] = {
        { "-n", "1", NULL },        { "-n", "0", "127.0.0.1" },  { "-n", "x", "127.0.0.1" },  { "-d", "0", "127.0.0.1" },
        { "-d", "1.", "127.0.0.1" }, { "-s", "4T", "127.0.0.1" }, { "--who", "127.0.0.1" },   { "127.0.0.1", "127.0.0.1" },
        { "-u", "me", "127.0.0.1" }, { "-TS", "127.0.0.1" },      { "-K", "[::1]:1", "[::1]" }, { "-s" },
        { "-s", "99999999999999999G", "127.0.0.1" },              { "-qI0", "127.0.0.1" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(read_options(&o, bad[i]), CLI_USAGE);
        bench_options_done(&o);
    }
}

static void check_content(uint64_t size, uint64_t number)
{
    struct bench_options o;
    struct bench_content content = { 0 };
    struct err err;
    char header[BENCH_HEADER_BYTES], digits[32];
    assert_int_equal(OPTIONS(&o, "127.0.0.1"), CLI_OK);
    o.size_bytes = size;
    assert_int_equal(bench_content_init(&content, &o, &err), 0);
    bench_content_header(&content, number, header);
    struct buf all;
    buf_init(&all, 1024 * 1024);
    while (all.n < size)
        assert_true(buf_add(&all, bench_content_at(&content, header, all.n)));
    assert_int_equal(all.n, size);
    snprintf(digits, sizeof digits, ".%016llu@", (unsigned long long)number);
    assert_non_null(memmem(all.p, all.n, digits, strlen(digits)));
    assert_non_null(memmem(all.p, all.n, "\r\n\r\n", 4));
    assert_memory_equal(all.p + all.n - 2, "\r\n", 2);
    for (size_t i = 1; i < all.n; i++) {
        assert_int_equal(all.p[i] == '\n', all.p[i - 1] == '\r');
        assert_false(all.p[i] == '.' && all.p[i - 1] == '\n');
    }
    buf_done(&all);
    bench_content_done(&content);
    bench_options_done(&o);
}

/* Every size has whole lines only, and exactly its octets. */
static void test_content(void **state)
{
    (void)state;
    for (uint64_t size = 400; size < 600; size++)
        check_content(size, size);
    check_content(4096, 1234567890123456);
    check_content(300 * 1000 + 7, 0);
}

static void test_content_too_small(void **state)
{
    (void)state;
    struct bench_options o;
    struct bench_content content = { 0 };
    struct err err;
    assert_int_equal(OPTIONS(&o, "-s", "100", "127.0.0.1"), CLI_OK);
    assert_int_equal(bench_content_init(&content, &o, &err), ERR_LIMIT);
    bench_content_done(&content);
    bench_options_done(&o);
}

static void test_percentiles(void **state)
{
    (void)state;
    struct bench_samples s = { 0 };
    assert_true(bench_samples_percentile(&s, 50) == 0.0);
    for (int i = 100; i > 0; i--)
        bench_samples_add(&s, i * 1000);
    bench_samples_sort(&s);
    assert_true(bench_samples_percentile(&s, 50) == 50.0);
    assert_true(bench_samples_percentile(&s, 99) == 99.0);
    assert_true(bench_samples_percentile(&s, 100) == 100.0);
    free(s.v);
}

static void test_errors_are_told_apart(void **state)
{
    (void)state;
    struct bench_tally tally = { 0 };
    for (unsigned i = 0; i < 3; i++) {
        bench_tally_error(&tally, SMTP_CLIENT_STAGE_RCPT, 550, STR("550 no"));
        bench_tally_error(&tally, SMTP_CLIENT_STAGE_RCPT, 451, STR("451 later"));
    }
    assert_int_equal(tally.errors, 6);
    assert_int_equal(tally.n_error_kinds, 2);
    assert_int_equal(tally.error[0].n, 3);
    for (unsigned code = 400; code < 500; code++)
        bench_tally_error(&tally, SMTP_CLIENT_STAGE_END, code, STR("x"));
    assert_int_equal(tally.n_error_kinds, BENCH_ERROR_KINDS);
    assert_int_equal(tally.errors, 106);
    bench_tally_done(&tally);
}

/* A port that nobody has, or had a moment ago. */
static unsigned free_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

struct child {
    pid_t pid;
    FILE *out, *err;
};

/* `words` as `postern bench` in a process of its own. */
static struct child begin(const char *const *words)
{
    int out[2], err[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char *argv[32] = { (char *)"bench" };
        int argc = 1;
        for (; words[argc - 1]; argc++)
            argv[argc] = (char *)(uintptr_t)words[argc - 1];
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        for (int i = 0; i < 2; i++) {
            close(out[i]);
            close(err[i]);
        }
        struct cli_options options = { .json = true };
        int status = cli_bench(argc, argv, &options);
        fflush(stdout);
        _exit(status);
    }
    close(out[1]);
    close(err[1]);
    return (struct child){ pid, fdopen(out[0], "r"), fdopen(err[0], "r") };
}
#define BEGIN(...) begin((const char *const[]){ __VA_ARGS__, NULL })

static json_t *read_object(struct child *c)
{
    json_error_t error;
    json_t *object = json_loadf(c->out, JSON_DISABLE_EOF_CHECK, &error);
    assert_non_null(object);
    return object;
}

static int finish(struct child *c)
{
    int status;
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    fclose(c->out);
    fclose(c->err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static json_int_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static struct child begin_sink(char address[32])
{
    char line[200];
    snprintf(address, 32, "127.0.0.1:%u", free_port());
    struct child sink = BEGIN("--sink", address);
    assert_non_null(fgets(line, sizeof line, sink.err)); /* it listens */
    return sink;
}

static void test_load_against_sink(void **state)
{
    (void)state;
    char address[32];
    struct child sink = begin_sink(address);

    struct child load = BEGIN("-n", "3", "-k", "7", "-m", "50", "-r", "2", "-s", "5000", address);
    json_t *report = read_object(&load);
    assert_int_equal(finish(&load), CLI_OK);
    assert_int_equal(number(report, "messages"), 50);
    assert_int_equal(number(report, "error_count"), 0);
    assert_true(number(report, "sessions") >= 50 / 7);
    json_decref(report);

    load = BEGIN("-P", "-b", "-n", "2", "-m", "4", "-s", "3M", address);
    report = read_object(&load);
    assert_int_equal(finish(&load), CLI_OK);
    assert_int_equal(number(report, "messages"), 4);
    json_decref(report);

    load = BEGIN("-q", "-n", "2", "-m", "10", address);
    report = read_object(&load);
    assert_int_equal(finish(&load), CLI_OK);
    assert_int_equal(number(report, "sessions"), 10);
    assert_int_equal(number(report, "messages"), 0);
    json_decref(report);

    kill(sink.pid, SIGTERM);
    json_t *counts = read_object(&sink);
    assert_int_equal(finish(&sink), CLI_OK);
    assert_int_equal(number(counts, "messages"), 54);
    assert_int_equal(number(counts, "octets"), 50 * 5000 + 4 * 3 * 1024 * 1024);
    json_decref(counts);
}

static void test_idle(void **state)
{
    (void)state;
    char address[32];
    struct child sink = begin_sink(address);
    struct child idle = BEGIN("-I", "0", "-n", "150", address);
    json_t *report = read_object(&idle);
    assert_int_equal(number(report, "ready"), 150);
    json_decref(report);
    kill(idle.pid, SIGTERM);
    assert_int_equal(finish(&idle), CLI_OK);
    kill(sink.pid, SIGTERM);
    json_t *counts = read_object(&sink);
    assert_int_equal(number(counts, "connections"), 150);
    json_decref(counts);
    assert_int_equal(finish(&sink), CLI_OK);
}

/* A server that refuses is counted, not mistaken for one that works; the sink offers neither TLS nor AUTH. */
static void test_failures_are_counted(void **state)
{
    (void)state;
    char address[32], nobody[32];
    struct child sink = begin_sink(address);
    snprintf(nobody, sizeof nobody, "127.0.0.1:%u", free_port());
    const char *const *const load[] = {
        (const char *const[]){ "-T", "-e", "5", address, NULL },
        (const char *const[]){ "-u", "me", "-p", "/dev/null", "-e", "5", address, NULL },
        (const char *const[]){ "-e", "5", nobody, NULL },
    };
    for (size_t i = 0; i < sizeof load / sizeof load[0]; i++) {
        struct child child = begin(load[i]);
        json_t *report = read_object(&child);
        assert_int_equal(finish(&child), CLI_NO);
        assert_int_equal(number(report, "messages"), 0);
        assert_int_equal(number(report, "error_count"), 5);
        json_decref(report);
    }
    kill(sink.pid, SIGTERM);
    assert_int_equal(finish(&sink), CLI_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_options_refused),
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_content_too_small),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_errors_are_told_apart),
        cmocka_unit_test(test_load_against_sink),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_failures_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
