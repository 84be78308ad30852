/* postern user, from arguments to exit status. The helpers of the command line are stood in for, so that what a verb
 * says can be looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/user_password.h"
#include "conf/load.h"
#include "directory/users.h"
#include "sasl/sasl.h"

static struct {
    char folder[64], config[96], users[128], state[96];
    char said[1024];
    struct buf out;
} t;

int cli_fail(enum cli_exit status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(t.said, sizeof t.said, fmt, args);
    va_end(args);
    return (int)status;
}

int cli_usage(const char *verb, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(t.said, sizeof t.said, fmt, args);
    va_end(args);
    return CLI_USAGE;
}

int cli_load_conf(const struct cli_options *options, const struct conf **ret_conf)
{
    struct conf_mistakes mistakes;
    conf_mistakes_init(&mistakes);
    int rc = conf_load_file(options->config, &mistakes, ret_conf, NULL);
    conf_mistakes_done(&mistakes);
    return rc == 0 ? CLI_OK : CLI_CONFIG;
}

int cli_write(struct str text)
{
    return buf_add(&t.out, text) ? CLI_OK : CLI_IO;
}

static int set_up(void **state)
{
    memset(&t, 0, sizeof t);
    snprintf(t.folder, sizeof t.folder, "/tmp/postern-test-cli-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    snprintf(t.config, sizeof t.config, "%s/postern.conf", t.folder);
    snprintf(t.state, sizeof t.state, "%s/state", t.folder);
    snprintf(t.users, sizeof t.users, "%s/users.db", t.state);
    FILE *file = fopen(t.config, "w");
    assert_non_null(file);
    fprintf(file, "spool = \"%s/spool\"\nusers = \"%s\"\nserver \"mail.test\" { listen = {\"127.0.0.1:2525\"} }\n", t.folder,
            t.users);
    fclose(file);
    buf_init(&t.out, 64 * 1024);
    return 0;
}

static int tear_down(void **state)
{
    unlink(t.users);
    rmdir(t.state);
    unlink(t.config);
    assert_int_equal(rmdir(t.folder), 0);
    buf_done(&t.out);
    return 0;
}

/* Runs the verb with `input` on its standard input. */
static int run(const char *input, bool json, const char *a, const char *b, const char *c, const char *d)
{
    char words[5][300] = { "user" };
    char *argv[6] = { words[0] };
    const char *const args[] = { a, b, c, d };
    int argc = 1, fds[2];
    while (argc <= 4 && args[argc - 1]) {
        snprintf(words[argc], sizeof words[argc], "%s", args[argc - 1]);
        argv[argc] = words[argc];
        argc++;
    }
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], input, strlen(input)), strlen(input));
    close(fds[1]);
    assert_int_equal(dup2(fds[0], STDIN_FILENO), STDIN_FILENO);
    close(fds[0]);
    buf_clear(&t.out);
    struct cli_options options = { .config = t.config, .json = json };
    return cli_user(argc, argv, &options);
}

static bool password_is(const char *name, const char *password)
{
    struct users_options options = { .mode = USERS_READ };
    struct users *users;
    struct users_verifier u;
    assert_int_equal(users_open(t.users, &options, &users, NULL), 0);
    assert_int_equal(users_find(users, str_of(name), &u, NULL), 0);
    users_close(&users);
    struct sasl_verifier v = { .salt_bytes = u.salt_bytes, .iterations = u.iterations };
    memcpy(v.salt, u.salt, sizeof v.salt);
    memcpy(v.stored_key, u.stored_key, sizeof v.stored_key);
    assert_int_equal(u.iterations, SASL_ITERATIONS);
    return sasl_verifier_check(&v, str_of(password), NULL) == 1;
}

static void add_passwd_delete(void **state)
{
    struct stat st;
    assert_int_equal(run("s3cret\nmore\n", false, "add", "Anna", NULL, NULL), CLI_OK);
    assert_int_equal(stat(t.users, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(password_is("anna", "s3cret"));
    assert_int_equal(run("other\n", false, "add", "anna", NULL, NULL), EX_CANTCREAT);
    assert_non_null(strstr(t.said, "postern user passwd anna"));
    assert_true(password_is("anna", "s3cret"));
    assert_int_equal(run("other\r\n", false, "passwd", "ANNA", NULL, NULL), CLI_OK);
    assert_true(password_is("anna", "other"));
    assert_int_equal(run("pw\n", false, "passwd", "bob", NULL, NULL), 1);
    assert_int_equal(run("", false, "delete", "bob", NULL, NULL), 1);
    assert_int_equal(run("", false, "delete", "anna", NULL, NULL), CLI_OK);
    assert_int_equal(run("", false, "delete", "anna", NULL, NULL), 1);
}

static void bad_passwords_are_refused(void **state)
{
    assert_int_equal(run("\n", false, "add", "anna", NULL, NULL), CLI_DATA);
    assert_non_null(strstr(t.said, "empty"));
    assert_int_equal(run("", false, "add", "anna", NULL, NULL), CLI_DATA);
    assert_int_equal(run("a\x01z\n", false, "add", "anna", NULL, NULL), CLI_DATA);
    assert_int_equal(run("a\xffz\n", false, "add", "anna", NULL, NULL), CLI_DATA);
    char huge[USER_PASSWORD_INPUT_MAX + 10];
    memset(huge, 'a', sizeof huge);
    huge[sizeof huge - 1] = 0;
    assert_int_equal(run(huge, false, "add", "anna", NULL, NULL), CLI_DATA);
    huge[SASL_PASSWORD_MAX + 1] = 0;
    assert_int_equal(run(huge, false, "add", "anna", NULL, NULL), CLI_DATA);
    assert_int_equal(run("no end of line", false, "add", "anna", NULL, NULL), CLI_OK);
    assert_true(password_is("anna", "no end of line"));
}

static void lists(void **state)
{
    assert_int_equal(run("", false, "list", NULL, NULL, NULL), CLI_NO_INPUT);
    assert_non_null(strstr(t.said, "there is no user store"));
    assert_int_equal(run("pw\n", false, "add", "--address", "Info@corp.test", "zoe"), CLI_OK);
    assert_int_equal(run("pw\n", false, "add", "anna", NULL, NULL), CLI_OK);
    assert_int_equal(run("", false, "list", NULL, NULL, NULL), CLI_OK);
    assert_string_equal(buf_cstr(&t.out), "anna\nzoe\tinfo@corp.test\n");
    assert_int_equal(run("", true, "list", NULL, NULL, NULL), CLI_OK);
    json_t *all = json_loads(buf_cstr(&t.out), 0, NULL);
    json_t *users = json_object_get(all, "users");
    assert_int_equal(json_array_size(users), 2);
    json_t *zoe = json_array_get(users, 1);
    assert_string_equal(json_string_value(json_object_get(zoe, "name")), "zoe");
    assert_string_equal(json_string_value(json_array_get(json_object_get(zoe, "addresses"), 0)), "info@corp.test");
    assert_int_equal(json_array_size(json_object_get(json_array_get(users, 0), "addresses")), 0);
    assert_int_equal(json_integer_value(json_object_get(zoe, "iterations")), SASL_ITERATIONS);
    assert_non_null(strstr(json_string_value(json_object_get(zoe, "created")), "T"));
    json_decref(all);
}

static void usage_and_data_errors(void **state)
{
    assert_int_equal(run("", false, NULL, NULL, NULL, NULL), CLI_USAGE);
    assert_int_equal(run("", false, "rename", "anna", NULL, NULL), CLI_USAGE);
    assert_int_equal(run("", false, "add", NULL, NULL, NULL), CLI_USAGE);
    assert_int_equal(run("", false, "add", "--address", NULL, NULL), CLI_USAGE);
    assert_int_equal(run("", false, "add", "--force", "anna", NULL), CLI_USAGE);
    assert_int_equal(run("", false, "delete", "anna", "bob", NULL), CLI_USAGE);
    assert_int_equal(run("", false, "list", "anna", NULL, NULL), CLI_USAGE);
    assert_int_equal(run("pw\n", false, "add", "an\x01na", NULL, NULL), CLI_DATA);
    assert_int_equal(run("pw\n", false, "add", "an na", NULL, NULL), CLI_DATA);
    assert_int_equal(run("pw\n", false, "add", "--address", "noat", "anna"), CLI_DATA);
    assert_int_equal(mkdir(t.state, 0700) == 0 || errno == EEXIST, 1);
    unlink(t.users);
    assert_int_equal(symlink("/dev/null", t.users), 0);
    assert_int_equal(run("pw\n", false, "add", "anna", NULL, NULL), CLI_CANNOT_CREATE);
}

/* At a terminal: asked twice, without echo; the terminal is as before afterwards. */
static int at_terminal(const char *typed, char *ret_text)
{
    int master, slave;
    struct err err = { 0 };
    struct termios before, after;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* Echo is off now, so typing may begin: the change throws away what came before it. */
        struct termios now;
        do
            tcgetattr(slave, &now);
        while (now.c_lflag & ECHO);
        _exit(write(master, typed, strlen(typed)) == (ssize_t)strlen(typed) ? 0 : 1);
    }
    int rc = user_password_read(slave, ret_text, &err), status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    close(master);
    close(slave);
    return rc;
}

static void asks_twice_at_a_terminal(void **state)
{
    char text[USER_PASSWORD_INPUT_MAX + 1];
    assert_int_equal(at_terminal("s3cret\ns3cret\n", text), 0);
    assert_string_equal(text, "s3cret");
    assert_int_equal(at_terminal("s3cret\nother\n", text), ERR_SYNTAX);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(add_passwd_delete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_passwords_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(usage_and_data_errors, set_up, tear_down),
        cmocka_unit_test(asks_twice_at_a_terminal),
    };
    /* As root the verb looks for Postern's system users; here there need be none. */
    if (geteuid() == 0 && (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return 1;
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* the leak checker looks at its own process */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
