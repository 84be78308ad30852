/* Paths of Maildirs, and a message in one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/delivery/maildir.h"

static const char *path_of(const char *pattern, struct str address)
{
    static struct buf path;
    static char text[5000];
    const char *why = NULL;
    buf_init(&path, 4000);
    bool ok = maildir_path(pattern, address, STR("hop.example"), &path, &why);
    assert_true(ok || why);
    snprintf(text, sizeof text, "%s", ok ? buf_cstr(&path) : "refused");
    buf_done(&path);
    return text;
}

static void paths(void **state)
{
    (void)state;
    assert_string_equal(path_of("/m/%u", STR("Ann@Example.ORG")), "/m/ann");
    assert_string_equal(path_of("/m/%d/%u/Maildir", STR("Ann@Example.ORG")), "/m/example.org/ann/Maildir");
    assert_string_equal(path_of("/m/%a", STR("Ann@Example.ORG")), "/m/ann@example.org");
    assert_string_equal(path_of("/m/100%%/%u%", STR("ann@x")), "/m/100%/ann");
    assert_string_equal(path_of("/m/%u", STR("\"Ann\"@x")), "/m/ann");
    assert_string_equal(path_of("/m/%u", STR("a@b@x")), "/m/a@b");
    assert_string_equal(path_of("/m/%d/%u", STR("postmaster")), "/m/hop.example/postmaster");
    assert_string_equal(path_of("/m/%u", STR("ann+tag@x")), "/m/ann+tag");
    assert_string_equal(path_of("/m/%u", STR("a..b@x")), "/m/a..b");
}

static void names_that_would_leave_the_folder(void **state)
{
    (void)state;
    assert_string_equal(path_of("/m/%u", STR("@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("\"\"@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR(".ann@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("..@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("\"..\"@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("a/b@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("\"a/b\"@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("\"\\/etc\"@x")), "refused");
    assert_string_equal(path_of("/m/%u", STR("a\0b@x")), "refused");
    assert_string_equal(path_of("/m/%d/%u", STR("a@..")), "refused");
    assert_string_equal(path_of("/m/%d/%u", STR("a@b/c")), "refused");
    char local[300];
    memset(local, 'x', sizeof local);
    memcpy(local + 200, "@x", 2);
    assert_string_not_equal(path_of("/m/%u", str_slice(local, 202)), "refused");
    memcpy(local + 200, "x@x", 3);
    assert_string_equal(path_of("/m/%u", str_slice(local, 203)), "refused");
}

static void roots(void **state)
{
    static const char *const row[][2] = { { "/var/mail/%u", "/var/mail" }, { "/srv/%d/%u", "/srv" },
                                          { "/srv/mail-%u/x", "/srv" }, { "/srv/box", "/srv" }, { "/srv/box/", "/srv" },
                                          { "/%u", "/" } };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf b;
        buf_init(&b, 100);
        assert_true(maildir_root(row[i][0], &b));
        assert_string_equal(buf_cstr(&b), row[i][1]);
        buf_done(&b);
    }
}

struct source {
    struct str rest;
    size_t piece;
    int result;
};

static ssize_t read_source(void *arg, void *p, size_t n, struct err *err)
{
    struct source *s = arg;
    if (s->rest.n == 0)
        return s->result ? err_set(err, s->result, "no more can be read") : 0;
    n = s->piece < n ? s->piece : n;
    n = n < s->rest.n ? n : s->rest.n;
    memcpy(p, s->rest.p, n);
    s->rest = str_skip(s->rest, n);
    return (ssize_t)n;
}

static char root[] = "/tmp/postern-maildir-XXXXXX";

/* The only file in a folder, its content into `ret`; the number of files. */
static unsigned look(const char *folder, char *ret, size_t ret_bytes)
{
    char path[600];
    unsigned n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        n++;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t got = read(fd, ret, ret_bytes - 1);
        assert_true(got >= 0);
        ret[got] = 0;
        close(fd);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(st.st_nlink, 1);
        unlink(path);
    }
    closedir(dir);
    return n;
}

static void message_in_all_pieces(void **state)
{
    (void)state;
    char path[100], folder[120], content[1000];
    snprintf(path, sizeof path, "%s/deep/er/ann", root);
    static const char in[] = "A: b\r\n\r\nline\r\nbare\rcr\r\r\n.dot\r\nlast\r";
    for (size_t piece = 1; piece <= sizeof in; piece++) {
        struct err err;
        struct source s = { STR("A: b\r\n\r\nline\r\nbare\rcr\r\r\n.dot\r\nlast\r"), piece, 0 };
        struct maildir_source source = { read_source, &s };
        assert_int_equal(maildir_write(path, "0123456789AB", STR("Return-Path: <>\n"), &source, &err), 0);
        snprintf(folder, sizeof folder, "%s/new", path);
        assert_int_equal(look(folder, content, sizeof content), 1);
        assert_string_equal(content, "Return-Path: <>\nA: b\n\nline\nbare\rcr\r\n.dot\nlast\r");
        snprintf(folder, sizeof folder, "%s/tmp", path);
        assert_int_equal(look(folder, content, sizeof content), 0);
    }
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(folder, sizeof folder, "%s/cur", path);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void nothing_is_left_of_a_failure(void **state)
{
    (void)state;
    char path[100], folder[120], content[1000];
    struct err err;
    snprintf(path, sizeof path, "%s/failing", root);
    struct source s = { STR("half a mess"), 4, ERR_CORRUPT };
    struct maildir_source source = { read_source, &s };
    assert_int_equal(maildir_write(path, "Q", STR(""), &source, &err), ERR_CORRUPT);
    snprintf(folder, sizeof folder, "%s/new", path);
    assert_int_equal(look(folder, content, sizeof content), 0);
    snprintf(folder, sizeof folder, "%s/tmp", path);
    assert_int_equal(look(folder, content, sizeof content), 0);

    s = (struct source){ STR("x"), 4, 0 };
    assert_true(maildir_write("/dev/null/ann", "Q", STR(""), &source, &err) < 0);
    assert_non_null(strstr(err.text, "/dev/null/ann"));
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char name[600];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (unlink(name) != 0)
            remove_tree(name);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static int remove_root(void **state)
{
    (void)state;
    remove_tree(root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(names_that_would_leave_the_folder),
        cmocka_unit_test(roots),
        cmocka_unit_test(message_in_all_pieces),
        cmocka_unit_test(nothing_is_left_of_a_failure),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
