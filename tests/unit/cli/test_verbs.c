/* The program itself: exit codes, and what goes where. Scripts rely on both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "../keystore/fixture.h"

extern char **environ;
static char folder[] = "/tmp/postern-cli-XXXXXX";

struct result {
    int status;
    char out[65536], err[16384];
};

static const char *path_of(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void read_file(const char *path, char *into, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, into, size - 1);
    assert_true(n >= 0);
    into[n] = 0;
    close(fd);
}

static void run(struct result *r, char **argv)
{
    posix_spawn_file_actions_t files;
    const char *out = path_of("out"), *err = path_of("err");
    pid_t pid;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&files, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(posix_spawn(&pid, POSTERN, &files, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&files);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    r->status = WEXITSTATUS(status);
    read_file(out, r->out, sizeof r->out);
    read_file(err, r->err, sizeof r->err);
}
#define RUN(r, ...) run(r, (char *[]){ "postern", __VA_ARGS__, NULL })

/* A certificate with its key, as `postern check` wants it. */
static void write_certificate(mode_t mode)
{
    struct fixture_certificate f = fixture_simple("DNS:s.test", "EC");
    char both[8192];
    snprintf(both, sizeof both, "%s%s", f.pem, f.key_pem);
    write_file("c.pem", both, mode);
    fixture_free(&f);
}

/* Everything that the files name exists. */
static const char *good_conf(void)
{
    static char text[4096];
    snprintf(text, sizeof text,
             "spool = \"%s/s\" drop = \"%s/d\" users = \"%s/a/u.db\" keys = \"%s/k\" user = \"root\"\n"
             "server \"s.test\" { listen = \"127.0.0.1:2525\"\n certificate = \"c.pem\"\n }\n"
             "domain \"d.test\" { deliver = \"discard\" }\n",
             folder, folder, folder, folder);
    return text;
}

static void test_usage(void **state)
{
    struct result r;
    run(&r, (char *[]){ "postern", NULL });
    assert_int_equal(r.status, 64);
    RUN(&r, "chekc");
    assert_int_equal(r.status, 64);
    assert_string_equal(r.err, "postern: there is no verb \"chekc\", did you mean \"check\"?\n");
    assert_string_equal(r.out, "");
    RUN(&r, "check", "-c");
    assert_int_equal(r.status, 64);
    RUN(&r, "check", "--jsno");
    assert_int_equal(r.status, 64);
    assert_non_null(strstr(r.err, "usage: postern check"));
    RUN(&r, "--help");
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "check "));
    RUN(&r, "check", "--help");
    assert_int_equal(r.status, 0);
    RUN(&r, "--version");
    assert_int_equal(r.status, 0);
    assert_true(str_starts(str_of(r.out), STR("postern ")));
}

static void test_check(void **state)
{
    struct result r;
    char *conf = (char *)path_of("postern.conf");
    char kept[256];
    str_copy(str_of(conf), kept, sizeof kept);
    RUN(&r, "check", "-c", (char *)path_of("absent.conf"));
    assert_int_equal(r.status, 66);
    assert_string_equal(r.out, "");

    write_file("postern.conf", good_conf(), 0644);
    write_certificate(0600);
    RUN(&r, "check", "-c", kept);
    assert_string_equal(r.out, "");
    assert_int_equal(r.status, 0);
    RUN(&r, "-c", kept, "check", "--json");
    assert_int_equal(r.status, 0);
    json_t *root = json_loads(r.out, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "file")), kept);
    assert_int_equal(json_array_size(json_object_get(root, "mistakes")), 0);
    assert_true(json_is_array(json_object_get(root, "mistakes")));
    json_decref(root);

    write_certificate(0644); /* for everybody to read */
    RUN(&r, "check", "-c", kept);
    assert_int_equal(r.status, 78);
    assert_non_null(strstr(r.out, "postern.conf:3: certificate: everybody on this machine may read "));
    write_file("c.pem", "-----BEGIN CERTIFICATE-----\n", 0644);
    RUN(&r, "check", "-c", kept);
    assert_int_equal(r.status, 78);
    assert_non_null(strstr(r.out, " holds no private key, "));
    unlink(path_of("c.pem"));
    RUN(&r, "check", "-c", kept, "--json");
    assert_int_equal(r.status, 78);
    root = json_loads(r.out, 0, NULL);
    json_t *mistake = json_array_get(json_object_get(root, "mistakes"), 0);
    assert_int_equal(json_integer_value(json_object_get(mistake, "line")), 3);
    assert_string_equal(json_string_value(json_object_get(mistake, "name")), "certificate");
    assert_true(json_is_string(json_object_get(mistake, "text")) && json_is_string(json_object_get(mistake, "hint")));
    json_decref(root);
}

static void test_files(void **state)
{
    struct result r;
    char text[8192], kept[256];
    str_copy(str_of(path_of("files.conf")), kept, sizeof kept);
    snprintf(text, sizeof text, "%s%s", good_conf(),
             "domain \"e.test\" { deliver = \"discard\"\n recipients = \"./list\" }\n"
             "domain \"f.test\" { via = \"h.test\" tls = \"verify\" auth = \"PLAIN\" user = \"u\"\n password_file = "
             "\"pw\" }\n");
    write_file("files.conf", text, 0644);
    write_certificate(0600);
    write_file("list", "alice\nbob bob\n", 0644);
    write_file("pw", "", 0644);
    RUN(&r, "check", "-c", kept);
    assert_int_equal(r.status, 78);
    assert_non_null(strstr(r.out, "files.conf:7: recipients: "));
    assert_non_null(strstr(r.out, "line 2: one address or local part stands on a line"));
    assert_non_null(strstr(r.out, "files.conf:9: password_file: everybody on this machine may read "));
    assert_non_null(strstr(r.out, "/pw is empty, write the password into its first line"));
    write_file("list", "alice\n", 0644);
    write_file("pw", "secret\n", 0600);
    RUN(&r, "check", "-c", kept);
    assert_string_equal(r.out, "");
    assert_int_equal(r.status, 0);
    /* Warnings go to stderr and change nothing. */
    snprintf(text, sizeof text, "%sserver \"t.test\" { listen = \"0.0.0.0:2526\" }\n", good_conf());
    write_file("files.conf", text, 0644);
    RUN(&r, "check", "-c", kept);
    assert_string_equal(r.out, "");
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.err, "files.conf:5: warning: domain \"d.test\" takes mail for any recipient"));
}

static void test_config(void **state)
{
    struct result r;
    char kept[256];
    str_copy(str_of(path_of("postern.conf")), kept, sizeof kept);
    write_file("postern.conf", good_conf(), 0644);
    RUN(&r, "config", "-c", kept);
    assert_int_equal(r.status, 64);
    RUN(&r, "config", "--dump", "--non-default", "-c", kept);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "server \"s.test\" {\n    listen = {\"127.0.0.1:2525\"}\n"));
    assert_null(strstr(r.out, "max_hops"));
    RUN(&r, "config", "--dump", "--json", "-c", kept);
    json_t *root = json_loads(r.out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(root, "max_message_size")), 50 << 20);
    json_decref(root);
    write_file("postern.conf", "spol = 1\n", 0644);
    RUN(&r, "config", "--dump", "-c", kept);
    assert_int_equal(r.status, 78);
    assert_string_equal(r.out, "");
    assert_non_null(strstr(r.err, "postern.conf:1: spol is not known, did you mean \"spool\"?\n"));
}

static int set_up(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = { "out", "err", "postern.conf", "files.conf", "c.pem", "list", "pw" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
