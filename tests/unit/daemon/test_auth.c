/* The auth role behind its channels: this program is its smtpd and its delivery. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base64.h"
#include "conf/snapshot.h"
#include "daemon/auth/auth.h"
#include "io/now.h"
#include "sasl/client.h"

enum { ITERATIONS = 4096 };

static struct {
    char folder[64], users[80];
    struct conf_snapshot snapshot; /* counted: the role keeps it */
    struct conf_domain domain[3];
    struct role_ctx ctx;
    int log_fd;
    struct channel *channel;
    /* the last message that came */
    unsigned type;
    uint32_t id;
    struct buf body;
    unsigned n_messages;
    bool closed;
} t;

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    t.type = type;
    t.id = id;
    t.n_messages++;
    buf_clear(&t.body);
    assert_true(buf_add(&t.body, body));
}

static void on_closed(void *arg, const struct err *why)
{
    t.closed = true;
    channel_free(&t.channel);
}

static const struct channel_handlers handlers = { .message = on_message, .closed = on_closed };

static struct users *open_users(void)
{
    struct users_options options = { .mode = USERS_CREATE, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users *users;
    assert_int_equal(users_open(t.users, &options, &users, NULL), 0);
    return users;
}

static void set_user(struct str name, struct str password, bool add)
{
    struct users *users = open_users();
    struct sasl_verifier v;
    struct users_verifier u = { .salt_bytes = 8, .iterations = ITERATIONS };
    assert_int_equal(sasl_verifier_make(password, STR("saltsalt"), ITERATIONS, &v, NULL), 0);
    memcpy(u.salt, v.salt, 8);
    memcpy(u.stored_key, v.stored_key, sizeof u.stored_key);
    memcpy(u.server_key, v.server_key, sizeof u.server_key);
    int rc = add ? users_add(users, name, NULL, 0, &u, 1, NULL) : users_set_password(users, name, &u, 2, NULL);
    assert_int_equal(rc, 0);
    users_close(&users);
}

static int password_fd(const char *text)
{
    int fd = memfd_create("password", 0);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void open_role(enum role_id peer)
{
    struct err err = { 0 };
    int fds[2];
    assert_int_equal(loop_new(&t.ctx.loop, &err), 0);
    t.log_fd = memfd_create("log", 0);
    struct log_options log = { .to = "/log", .fd = dup(t.log_fd), .level = LOG_LEVEL_DEBUG };
    assert_int_equal(log_new(t.ctx.loop, "auth", &log, &t.ctx.log, &err), 0);
    t.ctx.conf = &t.snapshot.conf;
    struct ipc_file file = { .kind = IPC_FILE_PASSWORD, .name = STR("partner.example") };
    role_auth.file(&t.ctx, &file, password_fd("pencil\r\nsecond line\n"));
    file.name = STR("auto.example");
    role_auth.file(&t.ctx, &file, password_fd("pencil"));
    assert_int_equal(channel_pair(fds, &err), 0);
    role_auth.peer(&t.ctx, peer, 0, &fds[0], 1);
    role_auth.configured(&t.ctx);
    assert_int_equal(role_auth.start(&t.ctx, &err), 0);
    assert_int_equal(channel_open(t.ctx.loop, fds[1], &handlers, NULL, &t.channel, &err), 0);
}

static void prepare(bool store)
{
    memset(&t, 0, sizeof t);
    snprintf(t.folder, sizeof t.folder, "/tmp/postern-test-auth-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    snprintf(t.users, sizeof t.users, "%s/users.db", t.folder);
    t.domain[0] = (struct conf_domain){ .name = "partner.example", .auth = "PLAIN", .user = "relay" };
    t.domain[1] = (struct conf_domain){ .name = "auto.example", .auth = "auto", .user = "user" };
    t.domain[2] = (struct conf_domain){ .name = "none.example" };
    atomic_init(&t.snapshot.refs, 1u << 20);
    t.snapshot.conf = (struct conf){ .users = t.users, .domain = t.domain, .n_domains = 3, .auth_state = t.folder, .auth_cache_s = 60 };
    buf_init(&t.body, CHANNEL_BODY_MAX);
    if (store)
        set_user(STR("anna"), STR("s3cret"), true);
}

static int set_up(enum role_id peer, bool store)
{
    prepare(store);
    open_role(peer);
    return 0;
}

static int smtpd_with_store(void **state)
{
    return set_up(ROLE_SMTPD, true);
}

static int smtpd_without_store(void **state)
{
    return set_up(ROLE_SMTPD, false);
}

static int delivery(void **state)
{
    return set_up(ROLE_DELIVERY, false);
}

static int tear_down(void **state)
{
    channel_free(&t.channel);
    auth_free(&t.ctx);
    log_free(&t.ctx.log);
    loop_free(&t.ctx.loop);
    close(t.log_fd);
    buf_done(&t.body);
    unlink(t.users);
    assert_int_equal(rmdir(t.folder), 0);
    return 0;
}

static void wait_for(unsigned n_messages)
{
    while (t.n_messages < n_messages && !t.closed)
        loop_run_once(t.ctx.loop, true);
    assert_int_equal(t.n_messages, n_messages);
}

static void send_start(uint32_t id, struct ipc_auth_start *m)
{
    struct buf b;
    buf_init(&b, CHANNEL_BODY_MAX);
    m->server = STR("mail.corp.test");
    m->helo = STR("client.test");
    m->session = STR("S1");
    m->port = 40112;
    if (!m->client.n)
        m->client = STR("192.0.2.1");
    if (!m->offered.n)
        m->offered = STR("SCRAM-SHA-256 PLAIN LOGIN");
    ipc_put_auth_start(&b, m);
    assert_int_equal(channel_send(t.channel, IPC_AUTH_START, id, buf_str(&b)), 0);
    buf_done(&b);
}

static void start_plain(uint32_t id, struct str initial)
{
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS | IPC_AUTH_FLAG_INITIAL, .mechanism = STR("plain"),
                                .tls = STR("TLSv1.3"), .initial = initial };
    send_start(id, &m);
}

static struct ipc_auth_done done_message(void)
{
    struct ipc_auth_done done;
    assert_int_equal(t.type, IPC_AUTH_DONE);
    assert_true(ipc_get_auth_done(buf_str(&t.body), &done));
    return done;
}

/* PLAIN from start to end: the reply's code. */
static int plain(struct str initial)
{
    start_plain(1, initial);
    wait_for(t.n_messages + 1);
    return done_message().code;
}

/* What the log says from its beginning; dies with the next call. */
static const char *log_so_far(void)
{
    static char text[64 * 1024];
    log_flush(t.ctx.log);
    ssize_t n = pread(t.log_fd, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    text[n] = 0;
    return text;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static void assert_str(struct str got, const char *want)
{
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.n ? got.p : "", want, got.n);
}

static void plain_is_accepted(void **state)
{
    start_plain(7, STR("\0Anna\0s3cret"));
    wait_for(1);
    struct ipc_auth_done done = done_message();
    assert_int_equal(t.id, 7);
    assert_int_equal(done.result, IPC_AUTH_ACCEPTED);
    assert_int_equal(done.code, 235);
    assert_int_equal(done.rights, IPC_RIGHT_SUBMIT | IPC_RIGHT_RELAY);
    assert_str(done.user, "anna");
    assert_non_null(strstr(log_so_far(), "event=auth.accept server=mail.corp.test client=192.0.2.1 port=40112 helo=client.test"
                                         " user=anna mech=PLAIN tls=TLSv1.3 result=accepted cause=none reply=235 session=S1"));
    assert_null(strstr(log_so_far(), "s3cret"));
}

static void unknown_user_and_wrong_password_look_alike(void **state)
{
    assert_int_equal(plain(STR("\0anna\0wrong")), 535);
    struct buf first;
    buf_init(&first, 1000);
    struct ipc_auth_done done = done_message();
    buf_addf(&first, "%.*s %.*s", STR_ARG(done.enhanced), STR_ARG(done.text));
    assert_str(done.cause, "bad-password");
    assert_int_equal(plain(STR("\0bob\0wrong")), 535);
    done = done_message();
    assert_str(done.cause, "unknown-user");
    char second[1000];
    snprintf(second, sizeof second, "%.*s %.*s", STR_ARG(done.enhanced), STR_ARG(done.text));
    assert_str(buf_str(&first), second);
    buf_done(&first);
    assert_int_equal(count(log_so_far(), "event=auth.reject"), 2);
    assert_non_null(strstr(log_so_far(), "user=bob mech=PLAIN tls=TLSv1.3 result=rejected cause=unknown-user reply=535"));
}

static void malformed_and_another_identity_are_refused(void **state)
{
    assert_int_equal(plain(STR("\0anna\0s3cret\0")), 501);
    assert_int_equal(plain(STR("\0anna\0")), 535);
    assert_int_equal(plain(STR("anna\0anna\0s3cret")), 235);
    assert_int_equal(plain(STR("boss\0anna\0s3cret")), 535);
    assert_str(done_message().cause, "authzid-denied");
    assert_int_equal(done_message().rights, 0);
}

static void mechanisms_must_be_offered_and_encrypted(void **state)
{
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_INITIAL, .mechanism = STR("PLAIN"), .initial = STR("\0anna\0s3cret") };
    send_start(1, &m);
    wait_for(1);
    assert_int_equal(done_message().code, 538);
    m.flags |= IPC_AUTH_FLAG_PLAINTEXT;
    send_start(1, &m);
    wait_for(2);
    assert_int_equal(done_message().code, 235);
    assert_non_null(strstr(log_so_far(), "tls=none result=accepted"));
    m.offered = STR("LOGIN");
    send_start(1, &m);
    wait_for(3);
    assert_int_equal(done_message().code, 504);
    m.mechanism = STR("X-UNKNOWN");
    m.offered = STR("X-UNKNOWN");
    send_start(1, &m);
    wait_for(4);
    assert_int_equal(done_message().code, 504);
}

static void login_in_three_steps(void **state)
{
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS, .mechanism = STR("LOGIN") };
    send_start(3, &m);
    wait_for(1);
    assert_int_equal(t.type, IPC_AUTH_CHALLENGE);
    assert_str(buf_str(&t.body), "Username:");
    channel_send(t.channel, IPC_AUTH_STEP, 3, STR("anna"));
    wait_for(2);
    assert_str(buf_str(&t.body), "Password:");
    channel_send(t.channel, IPC_AUTH_STEP, 3, STR("s3cret"));
    wait_for(3);
    assert_int_equal(done_message().code, 235);
    /* Nothing is left: a step of a session that ended is not answered, the next message is. */
    channel_send(t.channel, IPC_AUTH_STEP, 3, STR("s3cret"));
    channel_send(t.channel, IPC_USER_QUERY, 4, STR("anna@corp.test"));
    wait_for(4);
    assert_int_equal(t.type, IPC_USER_ANSWER);
}

static struct sasl_client *scram_client(struct str password)
{
    struct sasl_client_options options = { .user = STR("anna"), .password = password, .nonce = STR("clientnonce") };
    struct sasl_client *client;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256")), &options, &client, NULL), 0);
    return client;
}

static int scram(struct str user_password)
{
    struct sasl_client *client = scram_client(user_password);
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_INITIAL, .mechanism = STR("SCRAM-SHA-256") };
    sasl_client_first(client, &m.initial);
    send_start(5, &m);
    wait_for(t.n_messages + 1);
    while (t.type == IPC_AUTH_CHALLENGE) {
        struct str response;
        assert_int_equal(sasl_client_step(client, buf_str(&t.body), &response, NULL), 0);
        channel_send(t.channel, IPC_AUTH_STEP, 5, response);
        wait_for(t.n_messages + 1);
    }
    assert_int_equal(sasl_client_complete(client), done_message().code == 235);
    sasl_client_free(&client);
    return done_message().code;
}

static void scram_with_right_and_wrong_password(void **state)
{
    assert_int_equal(scram(STR("s3cret")), 235);
    assert_int_equal(scram(STR("wrong")), 535);
    assert_str(done_message().cause, "bad-password");
}

static void a_changed_password_counts_at_once(void **state)
{
    assert_int_equal(plain(STR("\0anna\0s3cret")), 235);
    assert_int_equal(plain(STR("\0anna\0s3cret")), 235); /* remembered */
    set_user(STR("anna"), STR("other"), false);
    assert_int_equal(plain(STR("\0anna\0s3cret")), 535);
    assert_int_equal(plain(STR("\0anna\0other")), 235);
    /* The store is made anew. */
    unlink(t.users);
    set_user(STR("carl"), STR("pw"), true);
    assert_int_equal(plain(STR("\0anna\0other")), 535);
    assert_int_equal(plain(STR("\0carl\0pw")), 235);
}

static void a_store_that_cannot_be_read_is_temporary(void **state)
{
    assert_int_equal(plain(STR("\0anna\0s3cret")), 454);
    assert_str(done_message().cause, "store-failed");
    assert_int_equal(done_message().result, IPC_AUTH_TEMPORARY);
    channel_send(t.channel, IPC_USER_QUERY, 4, STR("anna"));
    wait_for(2);
    assert_int_equal(t.body.p[0], 2);
    assert_int_equal(scram(STR("s3cret")), 454);
    assert_int_equal(count(log_so_far(), "event=auth.store.failed"), 2); /* at the start, at the first login */
    set_user(STR("anna"), STR("s3cret"), true);
    assert_int_equal(plain(STR("\0anna\0s3cret")), 235);
}

static void a_writer_makes_a_login_wait_not_the_loop(void **state)
{
    sqlite3 *other;
    assert_int_equal(sqlite3_open(t.users, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    start_plain(1, STR("\0anna\0s3cret"));
    channel_send(t.channel, IPC_USER_QUERY, 2, STR("anna"));
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS, .mechanism = STR("LOGIN") };
    send_start(3, &m);
    wait_for(1); /* the loop is free: the third question is answered first */
    assert_int_equal(t.id, 3);
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    wait_for(3);
    assert_int_equal(t.type == IPC_AUTH_DONE ? done_message().code : t.body.p[0], t.type == IPC_AUTH_DONE ? 235 : 1);
}

static void who_exists(void **state)
{
    static const struct {
        const char *text;
        int answer;
    } rows[] = { { "anna", 1 }, { "ANNA@corp.test", 1 }, { "bob", 0 }, { "", 0 }, { "@", 0 } };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        channel_send(t.channel, IPC_USER_QUERY, i, str_of(rows[i].text));
        wait_for(i + 1);
        assert_int_equal(t.type, IPC_USER_ANSWER);
        assert_int_equal(t.body.n, 1);
        assert_int_equal(t.body.p[0], rows[i].answer);
    }
}

static void failures_lock_an_address_out(void **state)
{
    t.snapshot.conf.auth_failure_limit = 3;
    for (int i = 0; i < 3; i++)
        assert_int_equal(plain(STR("\0anna\0wrong")), 535);
    assert_int_equal(plain(STR("\0anna\0s3cret")), 454);
    assert_str(done_message().cause, "locked-out");
    assert_int_equal(scram(STR("s3cret")), 454);
    assert_int_equal(count(log_so_far(), "event=auth.lockout"), 1);
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS | IPC_AUTH_FLAG_INITIAL, .mechanism = STR("PLAIN"),
                                .initial = STR("\0anna\0s3cret"), .client = STR("192.0.2.2") };
    send_start(1, &m);
    wait_for(t.n_messages + 1);
    assert_int_equal(done_message().code, 235);
    t.snapshot.conf.auth_failure_limit = 0;
    assert_int_equal(plain(STR("\0anna\0s3cret")), 235);
}

static void many_at_once_get_no_more_guesses(void **state)
{
    enum { ATTEMPTS = 20 };
    t.snapshot.conf.auth_failure_limit = 4;
    for (uint32_t id = 1; id <= ATTEMPTS; id++)
        start_plain(id, STR("\0anna\0wrong"));
    wait_for(ATTEMPTS);
    const char *log = log_so_far();
    assert_int_equal(count(log, "cause=bad-password"), 4);
    assert_int_equal(count(log, "cause=locked-out"), ATTEMPTS - 4);
    assert_int_equal(count(log, "event=auth.lockout"), 1);
}

static void cancelled_exchanges_are_forgotten(void **state)
{
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS, .mechanism = STR("LOGIN") };
    send_start(3, &m);
    wait_for(1);
    channel_send(t.channel, IPC_AUTH_CANCEL, 3, STR_NONE);
    start_plain(4, STR("\0anna\0s3cret"));
    channel_send(t.channel, IPC_AUTH_CANCEL, 4, STR_NONE); /* while a thread works on it */
    channel_send(t.channel, IPC_USER_QUERY, 5, STR("anna"));
    wait_for(2);
    assert_int_equal(t.id, 5);
    assert_int_equal(count(log_so_far(), "result=cancelled cause=cancelled reply=501"), 2);
    assert_int_equal(((struct auth *)t.ctx.state)->n_sessions, 0);
}

static void smtpd_going_away_ends_its_exchanges(void **state)
{
    struct auth *auth = t.ctx.state;
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS, .mechanism = STR("LOGIN") };
    send_start(3, &m);
    start_plain(4, STR("\0anna\0s3cret"));
    wait_for(1);
    channel_free(&t.channel);
    while (auth->peers)
        loop_run_once(t.ctx.loop, true);
    assert_int_equal(auth->n_sessions, 0);
}

static void nonsense_ends_the_channel(void **state)
{
    channel_send(t.channel, IPC_AUTH_START, 1, STR("nonsense"));
    while (!t.closed)
        loop_run_once(t.ctx.loop, true);
    assert_null(((struct auth *)t.ctx.state)->peers);
    assert_non_null(strstr(log_so_far(), "event=auth.peer.malformed"));
}

static void draining_refuses_new_logins(void **state)
{
    struct ipc_auth_start m = { .flags = IPC_AUTH_FLAG_TLS, .mechanism = STR("LOGIN") };
    send_start(3, &m);
    wait_for(1);
    role_auth.drain(&t.ctx);
    assert_int_equal(plain(STR("\0anna\0s3cret")), 454);
    channel_send(t.channel, IPC_AUTH_CANCEL, 3, STR_NONE);
    loop_run(t.ctx.loop); /* until the last exchange has ended */
}

/* Runs in a child, because a sandbox does not open again. 0: logins work,
 * and nothing but the store can be read. */
static int use_in_sandbox(void)
{
    struct sandbox sandbox = { 0 };
    struct err err = { 0 };
    role_auth.sandbox(&t.ctx, &sandbox);
    if (geteuid() == 0 && (chown(t.folder, 65534, 65534) != 0 || chown(t.users, 65534, 65534) != 0 ||
                           setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return 1;
    if (sandbox_drop(&sandbox, NULL, 0, &err) < 0 || sandbox_filter(&sandbox, &err) < 0)
        return 2;
    if (plain(STR("\0anna\0s3cret")) != 235 || plain(STR("\0anna\0wrong")) != 535 || scram(STR("s3cret")) != 235)
        return 3;
    if (open("/etc/passwd", O_RDONLY) >= 0 || open(t.users, O_RDWR) >= 0)
        return 4;
    return 0;
}

static void works_in_its_sandbox(void **state)
{
    int status;
    prepare(true);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* threads do not survive a fork: it makes its own */
        open_role(ROLE_SMTPD);
        _exit(use_in_sandbox());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    unlink(t.users);
    assert_int_equal(rmdir(t.folder), 0);
    assert_int_equal(status, 0);
}

static void send_login(uint32_t id, const char *domain, const char *offered, uint16_t flags, struct str cert_hash)
{
    struct ipc_login_start m = { .flags = flags, .domain = str_of(domain), .host = STR("smtp.partner.example"),
                                 .offered = str_of(offered), .cert_hash = cert_hash };
    struct buf b;
    buf_init(&b, CHANNEL_BODY_MAX);
    ipc_put_login_start(&b, &m);
    channel_send(t.channel, IPC_LOGIN_START, id, buf_str(&b));
    buf_done(&b);
    wait_for(t.n_messages + 1);
}

static void outbound_plain(void **state)
{
    struct ipc_login_response m;
    send_login(9, "partner.example", "LOGIN PLAIN", IPC_AUTH_FLAG_TLS, STR_NONE);
    assert_int_equal(t.type, IPC_LOGIN_RESPONSE);
    assert_int_equal(t.id, 9);
    assert_true(ipc_get_login_response(buf_str(&t.body), &m));
    assert_str(m.mechanism, "PLAIN");
    assert_true(m.has_response && m.complete);
    assert_int_equal(m.response.n, 13);
    assert_memory_equal(m.response.p, "\0relay\0pencil", 13);
    channel_send(t.channel, IPC_LOGIN_CANCEL, 9, STR_NONE);
    assert_null(strstr(log_so_far(), "pencil"));
}

static void outbound_says_why_not(void **state)
{
    static const struct {
        const char *domain, *offered, *want;
        uint16_t flags;
    } rows[] = {
        { "partner.example", "PLAIN", "PLAIN would show the password without TLS", 0 },
        { "partner.example", "LOGIN", "PLAIN is not offered", IPC_AUTH_FLAG_TLS },
        { "none.example", "PLAIN", "has no auth", IPC_AUTH_FLAG_TLS },
        { "nowhere.example", "PLAIN", "has no auth", IPC_AUTH_FLAG_TLS },
        { "auto.example", "SCRAM-SHA-256-PLUS LOGIN", "SCRAM-SHA-256-PLUS has no TLS channel to bind to, SCRAM-SHA-256 is not"
          " offered, NTLM is not offered, PLAIN is not offered, LOGIN would show the password without TLS", 0 },
    };
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        send_login(i, rows[i].domain, rows[i].offered, rows[i].flags, STR_NONE);
        assert_int_equal(t.type, IPC_LOGIN_FAILED);
        assert_non_null(strstr(buf_cstr(&t.body), rows[i].want));
    }
    t.domain[1].auth = "CRAM-MD5";
    send_login(99, "auto.example", "CRAM-MD5", IPC_AUTH_FLAG_TLS, STR_NONE);
    assert_non_null(strstr(buf_cstr(&t.body), "no mechanism that is known here"));
    assert_int_equal(((struct auth *)t.ctx.state)->n_sessions, 0);
}

static void outbound_auto_takes_the_strongest(void **state)
{
    static const struct {
        const char *offered, *want, *hash;
    } rows[] = {
        { "LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "SCRAM-SHA-256-PLUS", "hash" },
        { "LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "" },
        { "LOGIN PLAIN", "PLAIN", "hash" },
        { "login gssapi", "LOGIN", "hash" },
    };
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ipc_login_response m;
        send_login(i, "auto.example", rows[i].offered, IPC_AUTH_FLAG_TLS, str_of(rows[i].hash));
        assert_true(ipc_get_login_response(buf_str(&t.body), &m));
        assert_str(m.mechanism, rows[i].want);
    }
}

/* RFC 7677's server messages, with our nonce in front. */
static void outbound_scram_wants_proof_of_the_server(void **state)
{
    struct ipc_login_response m;
    char challenge[400];
    send_login(9, "auto.example", "SCRAM-SHA-256", 0, STR_NONE);
    assert_true(ipc_get_login_response(buf_str(&t.body), &m));
    assert_true(m.has_response && !m.complete);
    assert_true(str_starts(m.response, STR("n,,n=user,r=")));
    struct str nonce = str_skip(m.response, 12);
    snprintf(challenge, sizeof challenge, "r=%.*sMORE,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", STR_ARG(nonce));
    channel_send(t.channel, IPC_LOGIN_STEP, 9, str_of(challenge));
    wait_for(2);
    assert_true(ipc_get_login_response(buf_str(&t.body), &m));
    assert_true(m.has_response && !m.has_mechanism && !m.complete);
    assert_true(str_starts(m.response, STR("c=biws,r=")));
    channel_send(t.channel, IPC_LOGIN_STEP, 9, STR("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    wait_for(3);
    assert_int_equal(t.type, IPC_LOGIN_FAILED);
    assert_non_null(strstr(buf_cstr(&t.body), "signature is wrong"));
    /* Cancelled while a thread computes. */
    send_login(10, "auto.example", "SCRAM-SHA-256", 0, STR_NONE);
    channel_send(t.channel, IPC_LOGIN_STEP, 10, str_of(challenge));
    channel_send(t.channel, IPC_LOGIN_CANCEL, 10, STR_NONE);
    send_login(11, "partner.example", "PLAIN", IPC_AUTH_FLAG_TLS, STR_NONE);
    assert_int_equal(t.id, 11);
    channel_send(t.channel, IPC_LOGIN_CANCEL, 11, STR_NONE);
}

#define WITH(test, setup) cmocka_unit_test_setup_teardown(test, setup, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(plain_is_accepted, smtpd_with_store),
        WITH(unknown_user_and_wrong_password_look_alike, smtpd_with_store),
        WITH(malformed_and_another_identity_are_refused, smtpd_with_store),
        WITH(mechanisms_must_be_offered_and_encrypted, smtpd_with_store),
        WITH(login_in_three_steps, smtpd_with_store),
        WITH(scram_with_right_and_wrong_password, smtpd_with_store),
        WITH(a_changed_password_counts_at_once, smtpd_with_store),
        WITH(a_store_that_cannot_be_read_is_temporary, smtpd_without_store),
        WITH(a_writer_makes_a_login_wait_not_the_loop, smtpd_with_store),
        WITH(who_exists, smtpd_with_store),
        WITH(failures_lock_an_address_out, smtpd_with_store),
        WITH(many_at_once_get_no_more_guesses, smtpd_with_store),
        WITH(cancelled_exchanges_are_forgotten, smtpd_with_store),
        WITH(smtpd_going_away_ends_its_exchanges, smtpd_with_store),
        WITH(nonsense_ends_the_channel, smtpd_with_store),
        WITH(draining_refuses_new_logins, smtpd_with_store),
        cmocka_unit_test(works_in_its_sandbox),
        WITH(outbound_plain, delivery),
        WITH(outbound_says_why_not, delivery),
        WITH(outbound_auto_takes_the_strongest, delivery),
        WITH(outbound_scram_wants_proof_of_the_server, delivery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
