/* What transcripts cannot say: times, loss, memory, the protocol log, pipelining behind STARTTLS. */
#include "smtp/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <malloc.h>

#include <cmocka.h>

static struct smtp_server_limits limits;
static struct buf trace_text;

static void trace(void *arg, bool from_client, struct str line)
{
    buf_add_c(&trace_text, from_client ? "C: " : "S: ");
    buf_add(&trace_text, line);
    buf_add_char(&trace_text, '\n');
}

static struct smtp_server *start(struct smtp_server_policy policy, struct smtp_server_budget *budget)
{
    struct smtp_server *s;
    const struct smtp_server_options options = {
        .hostname = STR("mx.test"), .limits = &limits, .policy = policy, .auth_budget = budget, .trace = trace
    };
    assert_int_equal(smtp_server_new(&options, &s), 0);
    return s;
}

static int setup(void **state)
{
    limits = smtp_server_limits_default;
    buf_init(&trace_text, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    buf_done(&trace_text);
    return 0;
}

/* Feeds until the machine needs something; answers MAIL, RCPT and DATA with yes. Returns what was used. */
static struct smtp_server_event feed(struct smtp_server *s, struct str in, int64_t now_ms)
{
    struct smtp_server_event ev;
    for (;;) {
        size_t used;
        smtp_server_feed(s, in, now_ms, &used, &ev);
        in = str_skip(in, used);
        if (ev.type == SMTP_SERVER_MAIL || ev.type == SMTP_SERVER_RCPT || ev.type == SMTP_SERVER_DATA)
            smtp_server_accept(s);
        else if (ev.type != SMTP_SERVER_HELO && ev.type != SMTP_SERVER_FLUSH && ev.type != SMTP_SERVER_BODY)
            return ev;
        if (ev.type == SMTP_SERVER_FLUSH)
            buf_done(smtp_server_output(s));
    }
}

static void expect_output(struct smtp_server *s, const char *want)
{
    struct buf *out = smtp_server_output(s);
    if (!str_eq(buf_str(out), str_of(want)))
        fail_msg("expected [%s], got [%.*s]", want, STR_ARG(buf_str(out)));
    buf_done(out);
}

static void expect_event(struct smtp_server *s, enum smtp_server_event_type type)
{
    struct smtp_server_event ev;
    size_t used;
    smtp_server_feed(s, STR_NONE, 0, &used, &ev);
    assert_int_equal(ev.type, type);
}

static struct smtp_server *in_transaction(void)
{
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    smtp_server_greet(s, 0);
    assert_int_equal(feed(s, STR("HELO c\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"), 0).type,
                     SMTP_SERVER_READ);
    buf_done(smtp_server_output(s));
    return s;
}

static void test_command_timeout(void **state)
{
    limits.command_timeout_ms = 1000;
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    assert_true(smtp_server_deadline_ms(s) == INT64_MAX);
    smtp_server_greet(s, 5000);
    buf_done(smtp_server_output(s));
    assert_int_equal(smtp_server_deadline_ms(s), 6000);
    feed(s, STR("NO"), 5900); /* a piece of a line earns nothing */
    assert_int_equal(smtp_server_deadline_ms(s), 6000);
    feed(s, STR("OP\r\n"), 5950);
    assert_int_equal(smtp_server_deadline_ms(s), 6950);
    buf_done(smtp_server_output(s));
    smtp_server_timeout(s, 6949);
    assert_int_equal(smtp_server_output(s)->n, 0);
    smtp_server_timeout(s, 6950);
    expect_event(s, SMTP_SERVER_CLOSE);
    expect_output(s, "421 4.4.2 mx.test Timeout, closing the connection\r\n");
    assert_true(smtp_server_closed(s));
    smtp_server_free(s);
}

static void test_session_timeout(void **state)
{
    limits.session_timeout_ms = 3000;
    limits.command_timeout_ms = 1000;
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    smtp_server_greet(s, 0);
    feed(s, STR("NOOP\r\n"), 2500);
    assert_int_equal(smtp_server_deadline_ms(s), 3000);
    smtp_server_free(s);
}

static void test_data_timeout(void **state)
{
    limits.data_timeout_ms = 1000;
    limits.data_grace_ms = 3000;
    limits.data_min_bytes_per_s = 10;
    struct smtp_server *s = in_transaction();
    feed(s, STR("DATA\r\n"), 10000);
    assert_int_equal(smtp_server_deadline_ms(s), 11000);
    feed(s, STR("0123456789012345678\r\n"), 10500); /* 21 octets: two seconds more in all */
    assert_int_equal(smtp_server_deadline_ms(s), 11500);
    for (int64_t now = 11000; now <= 14500; now += 500)
        feed(s, STR("x"), now);
    assert_int_equal(smtp_server_deadline_ms(s), 15000);
    smtp_server_timeout(s, 15000);
    expect_event(s, SMTP_SERVER_ABORT);
    expect_event(s, SMTP_SERVER_CLOSE);
    smtp_server_free(s);
}

static void test_no_deadline_while_asked(void **state)
{
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    smtp_server_greet(s, 0);
    struct str in = STR("HELO c\r\nMAIL FROM:<a@a.test>\r\n");
    struct smtp_server_event ev;
    do {
        size_t used;
        smtp_server_feed(s, in, 0, &used, &ev);
        in = str_skip(in, used);
    } while (ev.type != SMTP_SERVER_MAIL);
    assert_true(smtp_server_deadline_ms(s) == INT64_MAX);
    size_t used;
    smtp_server_feed(s, STR("RCPT"), 0, &used, &ev);
    assert_int_equal(ev.type, SMTP_SERVER_WAIT);
    assert_int_equal(used, 0);
    smtp_server_free(s);
}

static void test_lost(void **state)
{
    struct smtp_server *s = in_transaction();
    feed(s, STR("DATA\r\nhalf a mess"), 0);
    buf_done(smtp_server_output(s));
    smtp_server_lost(s);
    struct smtp_server_event ev;
    size_t used;
    smtp_server_feed(s, STR_NONE, 0, &used, &ev);
    assert_int_equal(ev.type, SMTP_SERVER_ABORT);
    assert_non_null(ev.transaction);
    assert_true(str_eq(ev.transaction->recipients->address.text, STR("b@b.test")));
    expect_event(s, SMTP_SERVER_CLOSE);
    expect_output(s, "");
    smtp_server_free(s);
}

static void test_lost_while_asked(void **state)
{
    struct smtp_server *s = in_transaction();
    assert_int_equal(feed(s, STR("DATA\r\nx\r\n.\r\n"), 0).type, SMTP_SERVER_COMMIT);
    smtp_server_lost(s);
    expect_event(s, SMTP_SERVER_CLOSE); /* no ABORT: the message is the caller's already */
    smtp_server_free(s);

    s = start((struct smtp_server_policy){ .mechanisms = STR("PLAIN") }, NULL);
    smtp_server_greet(s, 0);
    assert_int_equal(feed(s, STR("EHLO c\r\nAUTH PLAIN AGEAYg==\r\n"), 0).type, SMTP_SERVER_AUTH);
    smtp_server_lost(s);
    expect_event(s, SMTP_SERVER_AUTH_CANCEL);
    expect_event(s, SMTP_SERVER_CLOSE);
    smtp_server_free(s);
}

static void test_shutdown_lets_a_message_end(void **state)
{
    struct smtp_server *s = in_transaction();
    smtp_server_shutdown(s);
    assert_int_equal(feed(s, STR("DATA\r\nx\r\n.\r\nNOOP\r\n"), 0).type, SMTP_SERVER_COMMIT);
    smtp_server_committed(s, STR("Q"));
    assert_int_equal(feed(s, STR("NOOP\r\n"), 0).type, SMTP_SERVER_CLOSE);
    expect_output(s, "354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued as Q\r\n"
                     "421 4.3.2 mx.test Service shutting down, closing the connection\r\n");
    smtp_server_free(s);
}

static void test_greet_refuse(void **state)
{
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    struct smtp_server_event ev;
    size_t used;
    smtp_server_feed(s, STR("EHLO early\r\n"), 0, &used, &ev);
    assert_int_equal(ev.type, SMTP_SERVER_WAIT);
    assert_int_equal(used, 0);
    smtp_server_greet_refuse(s, 421, "4.7.0", "Too many sessions\r\nfrom you");
    expect_event(s, SMTP_SERVER_CLOSE);
    expect_output(s, "421 4.7.0 mx.test Too many sessions??from you\r\n");
    smtp_server_free(s);
}

static void test_pipelined_behind_starttls(void **state)
{
    const struct smtp_server_policy policy = { .starttls_available = true };
    struct smtp_server *s = start(policy, NULL);
    smtp_server_greet(s, 0);
    feed(s, STR("EHLO c\r\n"), 0);
    buf_done(smtp_server_output(s));
    assert_int_equal(feed(s, STR("STARTTLS\r\nMAIL FROM:<a@a.test>\r\n"), 0).type, SMTP_SERVER_CLOSE);
    expect_output(s, "501 5.5.1 mx.test Nothing may follow STARTTLS before the handshake\r\n");
    smtp_server_free(s);

    /* The same when it comes while the caller still thinks about its answer. */
    s = start(policy, NULL);
    smtp_server_greet(s, 0);
    assert_int_equal(feed(s, STR("EHLO c\r\nSTARTTLS\r\n"), 0).type, SMTP_SERVER_STARTTLS);
    assert_int_equal(feed(s, STR("N"), 0).type, SMTP_SERVER_WAIT);
    smtp_server_accept(s);
    assert_true(smtp_server_closed(s));
    assert_int_equal(feed(s, STR("N"), 0).type, SMTP_SERVER_CLOSE);
    smtp_server_free(s);
}

static void test_tls_forgets(void **state)
{
    struct smtp_server *s =
        start((struct smtp_server_policy){ .starttls_available = true, .mechanisms = STR("ECHO") }, NULL);
    smtp_server_greet(s, 0);
    assert_int_equal(feed(s, STR("EHLO c\r\nAUTH ECHO =\r\n"), 0).type, SMTP_SERVER_AUTH);
    smtp_server_auth_done(s, true, 0, NULL, NULL);
    assert_true(smtp_server_authenticated(s));
    assert_int_equal(feed(s, STR("STARTTLS\r\n"), 0).type, SMTP_SERVER_STARTTLS);
    smtp_server_accept(s);
    expect_event(s, SMTP_SERVER_WAIT);
    smtp_server_tls_started(s);
    assert_false(smtp_server_authenticated(s));
    assert_int_equal(smtp_server_helo(s).n, 0);
    assert_false(smtp_server_is_esmtp(s));
    smtp_server_free(s);
}

static void test_layer_keeps_authentication(void **state)
{
    struct smtp_server_policy policy = { .mechanisms = STR("ECHO"), .starttls_available = true };
    struct smtp_server *s = start(policy, NULL);
    smtp_server_greet(s, 0);
    assert_int_equal(feed(s, STR("EHLO c\r\nAUTH ECHO\r\n"), 0).type, SMTP_SERVER_AUTH);
    smtp_server_auth_done_layer(s, 0, NULL, NULL);
    assert_false(smtp_server_closed(s));
    /* What comes before the layer is there is not read. */
    size_t used = 1;
    struct smtp_server_event ev;
    smtp_server_feed(s, STR("NOOP\r\n"), 0, &used, &ev);
    assert_int_equal(used, 0);
    assert_int_equal(ev.type, SMTP_SERVER_WAIT);
    smtp_server_layer_started(s);
    assert_true(smtp_server_authenticated(s));
    assert_int_equal(smtp_server_helo(s).n, 0);
    buf_clear(smtp_server_output(s));
    feed(s, STR("MAIL FROM:<a@b.test>\r\nEHLO c\r\nSTARTTLS\r\n"), 0);
    struct str replies = buf_str(smtp_server_output(s));
    struct str active = STR("\r\n503 5.5.1 A security layer is already active\r\n");
    assert_true(str_starts(replies, STR("503 5.5.1 Send EHLO first\r\n")));
    assert_null(memmem(replies.p, replies.n, "250-STARTTLS", 12));
    assert_non_null(memmem(replies.p, replies.n, active.p, active.n));
    smtp_server_free(s);
}

/* In clear behind the login: with the line itself, behind a response, or while the answer is owed. */
static void test_layer_refuses_what_came_in_clear(void **state)
{
    for (int when = 0; when < 3; when++) {
        struct smtp_server *s = start((struct smtp_server_policy){ .mechanisms = STR("ECHO") }, NULL);
        smtp_server_greet(s, 0);
        feed(s, STR("EHLO c\r\n"), 0);
        if (when == 0) {
            assert_int_equal(feed(s, STR("AUTH ECHO eA==\r\nNOOP\r\n"), 0).type, SMTP_SERVER_AUTH);
        } else {
            assert_int_equal(feed(s, STR("AUTH ECHO\r\n"), 0).type, SMTP_SERVER_AUTH);
            smtp_server_auth_challenge(s, STR("x"));
            struct str more = when == 1 ? STR("eA==\r\nNOOP\r\n") : STR("eA==\r\n");
            assert_int_equal(feed(s, more, 0).type, SMTP_SERVER_AUTH_RESPONSE);
        }
        if (when == 2)
            assert_int_equal(feed(s, STR("\x16"), 0).type, SMTP_SERVER_WAIT);
        buf_clear(smtp_server_output(s));
        smtp_server_auth_done_layer(s, 0, NULL, NULL);
        assert_true(smtp_server_closed(s));
        assert_false(smtp_server_authenticated(s));
        struct str refusal = STR("501 5.5.1 mx.test Nothing may follow a login that starts a security layer\r\n");
        assert_true(str_eq(buf_str(smtp_server_output(s)), refusal));
        assert_int_equal(feed(s, STR_NONE, 0).type, SMTP_SERVER_CLOSE);
        smtp_server_free(s);
    }
}

static void test_exps_events(void **state)
{
    struct smtp_server_policy policy = { .mechanisms = STR("LOGIN"), .exps_mechanisms = STR("GSSAPI NTLM") };
    struct smtp_server *s = start(policy, NULL);
    smtp_server_greet(s, 0);
    struct smtp_server_event ev = feed(s, STR("EHLO c\r\nx-exps gssapi\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH);
    assert_true(ev.exps && !ev.has_initial);
    assert_true(str_eq(ev.mechanism, STR("GSSAPI")));
    smtp_server_auth_challenge(s, STR_NONE);
    ev = feed(s, STR("eA==\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH_RESPONSE);
    assert_true(ev.exps && str_eq(ev.data, STR("x")));
    smtp_server_auth_done(s, false, 0, NULL, NULL);
    ev = feed(s, STR("AUTH LOGIN\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH);
    assert_false(ev.exps);
    smtp_server_auth_done(s, true, 0, NULL, NULL);
    smtp_server_free(s);
}

/* A token of 64 KiB; an X-EXPS that is not offered has the limit of other commands. */
static void test_exps_takes_long_lines(void **state)
{
    size_t n = 64 * 1024 / 3 * 4;
    char *line = malloc(n + 32);
    assert_non_null(line);
    for (int offered = 0; offered < 2; offered++) {
        struct smtp_server *s = start((struct smtp_server_policy){ .exps_mechanisms = offered ? STR("GSSAPI") : STR_NONE },
                                      NULL);
        smtp_server_greet(s, 0);
        feed(s, STR("EHLO c\r\n"), 0);
        buf_clear(smtp_server_output(s));
        size_t at = (size_t)snprintf(line, 32, "X-EXPS GSSAPI ");
        memset(line + at, 'A', n);
        memcpy(line + at + n, "\r\n", 2);
        size_t half = (at + n) / 2, all = at + n + 2;
        assert_int_equal(feed(s, str_slice(line, half), 0).type, SMTP_SERVER_READ);
        struct smtp_server_event ev = feed(s, str_slice(line + half, all - half), 0);
        assert_int_equal(ev.type, offered ? SMTP_SERVER_AUTH : SMTP_SERVER_READ);
        if (offered)
            assert_int_equal(ev.data.n, n / 4 * 3);
        else
            assert_true(str_starts(buf_str(smtp_server_output(s)), STR("500 5.5.2 Line too long")));
        smtp_server_free(s);
    }
    free(line);
}

static void test_auth_events(void **state)
{
    struct smtp_server *s = start((struct smtp_server_policy){ .mechanisms = STR("LOGIN PLAIN") }, NULL);
    smtp_server_greet(s, 0);
    struct smtp_server_event ev = feed(s, STR("EHLO c\r\nauth plain =\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH);
    assert_true(ev.has_initial && ev.data.n == 0 && str_eq(ev.mechanism, STR("PLAIN")));
    smtp_server_auth_done(s, false, 0, NULL, NULL);
    ev = feed(s, STR("AUTH PLAIN\r\n"), 0);
    assert_false(ev.has_initial);
    smtp_server_auth_challenge(s, STR_NONE);
    ev = feed(s, STR("AGEAYg==\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH_RESPONSE);
    assert_true(str_eq(ev.data, STR("\0a\0b")));
    smtp_server_auth_challenge(s, STR("x"));
    ev = feed(s, STR("*\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_AUTH_CANCEL);
    smtp_server_free(s);
}

static void test_trace_masks(void **state)
{
    struct smtp_server *s = start((struct smtp_server_policy){ .mechanisms = STR("LOGIN PLAIN") }, NULL);
    smtp_server_greet(s, 0);
    feed(s, STR("EHLO c\r\nFOO bar\r\nX-EXPS NTLM c2VjcmV0\r\nAUTH PLAIN AHNlY3JldABz\r\n"), 0);
    smtp_server_auth_challenge(s, STR("secret"));
    feed(s, STR("c2VjcmV0\r\n"), 0);
    smtp_server_auth_done(s, false, 0, NULL, NULL);
    feed(s, STR("AUTH LOGIN\r\n"), 0);
    smtp_server_auth_done(s, false, 0, NULL, NULL);
    feed(s,
         STR("c2VjcmV0\r\nAUTH c2VjcmV0\r\nAUTH PLAIN\tc2VjcmV0\r\nAUTH=PLAIN c2VjcmV0\r\nAUTH FOO c2VjcmV0\r\nAUTH "
             "PLAIN c2Vj\ncmV0\r\n"),
         0);
    struct str text = buf_str(&trace_text);
    assert_non_null(memmem(text.p, text.n, "C: FOO bar\n", 11));
    assert_non_null(memmem(text.p, text.n, "C: X-EXPS NTLM [masked 8]\n", 26));
    assert_non_null(memmem(text.p, text.n, "C: AUTH PLAIN [masked 12]\nS: 334 [masked 8]\nC: [masked 8]\nS: 535", 62));
    assert_non_null(memmem(text.p, text.n, "C: AUTH FOO [masked 8]\nS: 504", 29));
    assert_null(memmem(text.p, text.n, "c2Vj", 4));
    assert_null(memmem(text.p, text.n, "AHNl", 4));
    smtp_server_free(s);
}

static void test_bodies_are_not_traced(void **state)
{
    struct smtp_server *s = in_transaction();
    feed(s, STR("DATA\r\ntop secret\r\n.\r\n"), 0);
    assert_null(memmem(trace_text.p, trace_text.n, "top secret", 10));
    assert_non_null(memmem(trace_text.p, trace_text.n, "C: DATA\nS: 354", 14));
    smtp_server_free(s);
}

static size_t heap_bytes(void)
{
    return mallinfo2().uordblks;
}

static void test_idle_memory(void **state)
{
    /* Bookkeeping of malloc itself counts too: this is what a session costs. */
    enum { SESSIONS = 100 };
    struct smtp_server *sessions[SESSIONS];
    buf_done(&trace_text);
    trace_text.max = 0;
    size_t before = heap_bytes();
    for (size_t i = 0; i < SESSIONS; i++) {
        sessions[i] = start((struct smtp_server_policy){ .mechanisms = STR("PLAIN") }, NULL);
        smtp_server_greet(sessions[i], 0);
        feed(sessions[i],
             STR("EHLO client.example.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nx\r\n.\r\n"), 0);
        smtp_server_committed(sessions[i], STR("Q"));
        feed(sessions[i], STR("NO"), 0);
        feed(sessions[i], STR("OP\r\n"), 0);
        buf_done(smtp_server_output(sessions[i]));
    }
    size_t after = heap_bytes();
    assert_true(before == 0 || after - before < SESSIONS * 1024); /* 0: a sanitizer's allocator does not count */
    for (size_t i = 0; i < SESSIONS; i++)
        smtp_server_free(sessions[i]);
}

static void test_auth_budget(void **state)
{
    struct smtp_server_budget budget = { .max_bytes = 10000 };
    char line[9000];
    memset(line, 'A', sizeof line);
    memcpy(line, "AUTH ECHO ", 10);
    struct smtp_server *s[2];
    for (size_t i = 0; i < 2; i++) {
        s[i] = start((struct smtp_server_policy){ .mechanisms = STR("ECHO") }, &budget);
        smtp_server_greet(s[i], 0);
        feed(s[i], STR("EHLO c\r\n"), 0);
        feed(s[i], str_slice(line, 4000), 0);
        buf_done(smtp_server_output(s[i]));
    }
    assert_int_equal(budget.used_bytes, 8192);
    feed(s[0], str_slice(line + 10, 5000), 0);
    assert_int_equal(budget.used_bytes, 4096);
    feed(s[0], STR("\r\n"), 0);
    expect_output(s[0], "454 4.3.0 Too many authentications at once, try again later\r\n");
    assert_int_equal(feed(s[1], STR("AA\r\n"), 0).type, SMTP_SERVER_AUTH);
    assert_true(budget.used_bytes > 0 && budget.used_bytes < 4096); /* the line is gone, the decoded octets are there */
    smtp_server_auth_done(s[1], true, 0, NULL, NULL);
    assert_int_equal(budget.used_bytes, 0);
    feed(s[1], str_slice(line, 4000), 0);
    assert_int_equal(budget.used_bytes, 4096);
    smtp_server_free(s[0]);
    smtp_server_free(s[1]);
    assert_int_equal(budget.used_bytes, 0);
}

static void test_flush(void **state)
{
    /* A group that makes a lot of output is not read to its end at once. */
    limits.max_commands = 0;
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    smtp_server_greet(s, 0);
    char group[6 * 4000];
    for (size_t i = 0; i < sizeof group; i += 6)
        memcpy(group + i, "NOOP\r\n", 6);
    struct smtp_server_event ev;
    size_t used, total = 0;
    smtp_server_feed(s, str_slice(group, sizeof group), 0, &used, &ev);
    assert_int_equal(ev.type, SMTP_SERVER_FLUSH);
    assert_true(smtp_server_output(s)->n < 17 * 1024);
    total = used;
    while (ev.type == SMTP_SERVER_FLUSH) {
        buf_done(smtp_server_output(s));
        smtp_server_feed(s, str_slice(group + total, sizeof group - total), 0, &used, &ev);
        total += used;
    }
    assert_int_equal(ev.type, SMTP_SERVER_READ);
    assert_int_equal(total, sizeof group);
    smtp_server_free(s);
}

static void test_transaction(void **state)
{
    struct smtp_server *s = start((struct smtp_server_policy){ 0 }, NULL);
    smtp_server_greet(s, 0);
    feed(s,
         STR("EHLO c\r\nMAIL FROM:<\xc3\xa9@a.test> SIZE=7 SMTPUTF8 RET=FULL ENVID=e AUTH=x+40y.test BODY=8BITMIME\r\n"
             "RCPT TO:<one@b.test> NOTIFY=NEVER\r\nRCPT TO:<two@b.test> ORCPT=rfc822;two@c.test "
             "NOTIFY=DELAY,FAILURE\r\n"),
         0);
    struct smtp_server_transaction *t = smtp_server_transaction(s);
    assert_non_null(t);
    assert_true(t->sender.utf8 && t->smtputf8 && t->body_8bit);
    assert_true(str_eq(t->sender.domain, STR("a.test")) && str_eq(t->envid, STR("e")) &&
                str_eq(t->auth, STR("x+40y.test")));
    assert_int_equal(t->size_declared_bytes, 7);
    assert_int_equal(t->ret, SMTP_RET_FULL);
    assert_int_equal(t->n_recipients, 2);
    assert_int_equal(t->recipients->notify, SMTP_NOTIFY_NEVER);
    assert_int_equal(t->recipients->orcpt.n, 0);
    assert_true(str_eq(t->recipients->next->orcpt, STR("rfc822;two@c.test")));
    assert_int_equal(t->recipients->next->notify, SMTP_NOTIFY_DELAY | SMTP_NOTIFY_FAILURE);
    struct smtp_server_event ev = feed(s, STR("DATA\r\n\xc3\xa9\r\n.\r\n"), 0);
    assert_int_equal(ev.type, SMTP_SERVER_COMMIT);
    assert_true(ev.transaction == t && t->content_8bit && t->content_bytes == 4);
    smtp_server_committed(s, STR("Q"));
    expect_event(s, SMTP_SERVER_READ);
    assert_null(smtp_server_transaction(s));
    smtp_server_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_command_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_session_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_data_timeout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_deadline_while_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_while_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shutdown_lets_a_message_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_greet_refuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelined_behind_starttls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tls_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_layer_keeps_authentication, setup, teardown),
        cmocka_unit_test_setup_teardown(test_layer_refuses_what_came_in_clear, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exps_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exps_takes_long_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auth_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trace_masks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies_are_not_traced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auth_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transaction, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
