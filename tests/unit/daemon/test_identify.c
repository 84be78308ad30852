/* From a proven name to a mailbox in auth: without a directory, with one that is down, with one that is silent while nobody
 * waits any more and the configuration changes. */
#include "../policy/text_conf.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/auth/identify.h"

#define HEAD "server \"s.test\" { listen = {\"127.0.0.1:25\"} }\ndomain \"corp.test\" { deliver = \"discard\" }\n"
#define STORE "identity \"store\" { domain = \"corp.test\" }\n"
#define CORP "identity \"corp\" { realm = \"CORP.TEST\" domain = \"corp.test\" }\n"
#define ASKING "identity \"corp\" { realm = \"CORP.TEST\" attribute = {\"mail\"} }\n"

static struct {
    struct role_ctx ctx;
    struct auth auth;
    const struct conf *conf;
    int log_fd, listener;
    uint16_t port;
    struct identify *identify;
    unsigned n_answers;
    bool had_result;
    enum identity_verdict verdict;
    char mailbox[100], cause[100];
} t;

static void use(const char *text)
{
    struct err err = { 0 };
    const struct conf *conf = text_conf(text);
    identity_rules_unref(&t.auth.rules);
    conf_unref(&t.auth.rules_conf);
    assert_int_equal(identity_rules_new(conf, &t.auth.rules, &err), 0);
    t.auth.rules_conf = conf;
    t.ctx.conf = conf;
}

static void use_directory(void)
{
    char text[1000];
    snprintf(text, sizeof text, HEAD "directory \"CORP.TEST\" { servers = {\"ldap://localhost:%u\"} bind = \"starttls\" "
             "principal = \"svc@CORP.TEST\" password_file = \"/p\" }\n" ASKING, t.port);
    use(text);
}

static int set_up(void **state)
{
    struct err err = { 0 };
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    memset(&t, 0, sizeof t);
    t.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(t.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(t.listener, (struct sockaddr *)&address, &n), 0);
    t.port = ntohs(address.sin_port);
    t.auth.ctx = &t.ctx;
    assert_int_equal(loop_new(&t.ctx.loop, &err), 0);
    t.log_fd = memfd_create("log", 0);
    struct log_options log = { .to = "/log", .fd = dup(t.log_fd), .level = LOG_LEVEL_DEBUG };
    assert_int_equal(log_new(t.ctx.loop, "auth", &log, &t.ctx.log, &err), 0);
    assert_int_equal(worker_pool_new(t.ctx.loop, "ldap", IDENTIFY_THREADS, 2, &t.auth.directory_pool, &err), 0);
    return 0;
}

static void close_listener(void)
{
    if (t.listener >= 0)
        close(t.listener);
    t.listener = -1;
}

static int tear_down(void **state)
{
    close_listener();
    worker_pool_free(&t.auth.directory_pool);
    identity_rules_unref(&t.auth.rules);
    conf_unref(&t.auth.rules_conf);
    log_free(&t.ctx.log);
    loop_free(&t.ctx.loop);
    close(t.log_fd);
    return 0;
}

static void on_identified(void *arg, const struct identity_result *result)
{
    t.identify = NULL;
    t.n_answers++;
    t.had_result = result;
    t.mailbox[0] = t.cause[0] = 0;
    if (!result)
        return;
    t.verdict = result->verdict;
    str_copy(str_of(result->mailbox), t.mailbox, sizeof t.mailbox);
    str_copy(str_of(result->cause), t.cause, sizeof t.cause);
}

static void ask(enum identity_class class, const char *name)
{
    struct identity_login login = { .class = class, .name = str_of(name) };
    identify_ask(&t.auth, &login, on_identified, NULL, &t.identify);
}

/* The answer comes from within, and then there is nothing left to drop. */
static void without_a_directory(void **state)
{
    use(HEAD STORE CORP);
    ask(IDENTITY_STORE, "anna");
    assert_int_equal(t.n_answers, 1);
    assert_null(t.identify);
    assert_string_equal(t.mailbox, "anna@corp.test");
    ask(IDENTITY_KERBEROS, "alice@CORP.TEST");
    assert_string_equal(t.mailbox, "alice@corp.test");
    ask(IDENTITY_KERBEROS, "alice@EVIL.TEST");
    assert_true(t.had_result && t.verdict == IDENTITY_NO_MAILBOX);
    assert_string_equal(t.mailbox, "");
    assert_int_equal(t.n_answers, 3);
    identify_drop(&t.identify);
}

static void without_rules(void **state)
{
    ask(IDENTITY_STORE, "anna");
    assert_int_equal(t.n_answers, 1);
    assert_false(t.had_result);
    assert_null(t.identify);
}

static void a_directory_that_is_down(void **state)
{
    use_directory();
    ask(IDENTITY_KERBEROS, "alice@CORP.TEST");
    assert_int_equal(t.n_answers, 0);
    assert_non_null(t.identify);
    while (!t.n_answers)
        loop_run_once(t.ctx.loop, true);
    assert_true(t.had_result && t.verdict == IDENTITY_LATER);
    assert_string_equal(t.cause, "directory-down");
    ask(IDENTITY_STORE, "anna"); /* of no realm: no directory is asked */
    assert_int_equal(t.n_answers, 2);
}

/* All threads ask a directory that says nothing. The logins go away, and so does their snapshot; then the directory does. */
static void dropped_while_the_configuration_changes(void **state)
{
    struct identify *asked[IDENTIFY_THREADS];
    assert_int_equal(listen(t.listener, 2 * IDENTIFY_THREADS), 0);
    use_directory();
    for (int i = 0; i < IDENTIFY_THREADS; i++) {
        ask(IDENTITY_KERBEROS, "alice@CORP.TEST");
        asked[i] = t.identify;
        assert_non_null(asked[i]);
        while (worker_waiting(t.auth.directory_pool))
            sched_yield(); /* until a thread has it */
    }
    for (int i = 0; i < IDENTIFY_THREADS; i++)
        identify_drop(&asked[i]);
    use(HEAD STORE);
    ask(IDENTITY_STORE, "anna");
    assert_int_equal(t.n_answers, 1);
    close_listener(); /* which resets what nobody has accepted */
    worker_pool_free(&t.auth.directory_pool);
    assert_int_equal(t.n_answers, 1);
}

/* More questions than may wait: an answer at once, for this moment only. */
static void too_many(void **state)
{
    struct identify *asked[IDENTIFY_THREADS + 2];
    assert_int_equal(listen(t.listener, 2 * IDENTIFY_THREADS), 0);
    use_directory();
    for (int i = 0; i < IDENTIFY_THREADS + 2; i++) {
        ask(IDENTITY_KERBEROS, "alice@CORP.TEST");
        asked[i] = t.identify;
        assert_non_null(asked[i]);
        while (i < IDENTIFY_THREADS && worker_waiting(t.auth.directory_pool))
            sched_yield();
    }
    ask(IDENTITY_KERBEROS, "alice@CORP.TEST");
    assert_int_equal(t.n_answers, 1);
    assert_true(t.verdict == IDENTITY_LATER);
    for (int i = 0; i < IDENTIFY_THREADS + 2; i++)
        identify_drop(&asked[i]);
    close_listener();
}

#define IN_AUTH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_AUTH(without_a_directory), IN_AUTH(without_rules), IN_AUTH(a_directory_that_is_down),
        IN_AUTH(dropped_while_the_configuration_changes), IN_AUTH(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
