/* The resolver against a small server on a loopback port, turned by the same loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/dns.h"

/* What the server says to (name, type). `records` is the answer section; \xc0\x0c is the name asked for. */
static const struct reply {
    const char *name;
    int type, rcode;
    const char *records;
    size_t records_bytes, n;
} replies[] = {
#define RECORDS(text, n) text, sizeof text - 1, n
#define RR(type, length) "\xc0\x0c\0" type "\0\1\0\0\1\x2c\0" length
    { "corp.test", DNS_MX, 0, RECORDS(RR("\x0f", "\7") "\0\x0a\2mx\xc0\x0c" RR("\x0f", "\7") "\0\x14\2my\xc0\x0c", 2) },
    { "nullmx.test", DNS_MX, 0, RECORDS(RR("\x0f", "\3") "\0\0\0", 1) },
    { "mx.corp.test", DNS_A, 0, RECORDS(RR("\1", "\4") "\x0a\1\2\3", 1) },
    { "mx.corp.test", DNS_AAAA, 0, RECORDS(RR("\x1c", "\x10") "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 1) },
    { "alias.corp.test", DNS_A, 0,
      RECORDS(RR("\5", "\5") "\2mx\xc0\x12" "\xc0\x2d\0\1\0\1\0\0\0\x3c\0\4\x0a\1\2\3", 2) },
    { "3.2.1.10.in-addr.arpa", DNS_PTR, 0, RECORDS(RR("\x0c", "\x0e") "\2mx\4corp\4test\0", 1) },
    { "_25._tcp.mx.corp.test", DNS_TLSA, 0, RECORDS(RR("\x34", "\7") "\3\1\1abcd", 1) },
    { "none.test", -1, 3, RECORDS("", 0) },
    { "broken.test", -1, 2, RECORDS("", 0) },
    { "silent.test", -1, -1, RECORDS("", 0) },
};

static struct {
    int fd;
    struct loop *loop;
    struct loop_fd *watch;
    char address[64];
    unsigned questions, silent;
} server;

static const struct reply *reply_for(const char *name, int type)
{
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        if (!strcasecmp(replies[i].name, name) && (replies[i].type == type || replies[i].type == -1))
            return &replies[i];
    return NULL;
}

/* Octets of a DNS message as the server found them. */
static void serve(void *arg, unsigned events)
{
    unsigned char p[1500];
    struct sockaddr_in from;
    socklen_t from_bytes = sizeof from;
    ssize_t n = recvfrom(server.fd, p, sizeof p, 0, (struct sockaddr *)&from, &from_bytes);
    if (n < 17)
        return;
    server.questions++;
    char name[256] = "";
    size_t at = 12, used = 0;
    while (at < (size_t)n && p[at]) {
        size_t label = p[at++];
        if (used)
            name[used++] = '.';
        assert_true(used + label < sizeof name && at + label < (size_t)n);
        memcpy(name + used, p + at, label);
        used += label;
        at += label;
    }
    name[used] = 0;
    at++;
    int type = p[at] << 8 | p[at + 1];
    const struct reply *reply = reply_for(name, type);
    if (reply && reply->rcode < 0) {
        server.silent++;
        return;
    }
    struct buf out;
    buf_init(&out, sizeof p);
    buf_add(&out, str_slice(p, at + 4));
    out.p[2] = (char)0x84;
    out.p[3] = (char)(0x80 | (reply ? reply->rcode : 0));
    memset(out.p + 6, 0, 6);
    if (reply) {
        out.p[7] = (char)reply->n;
        buf_add(&out, str_slice(reply->records, reply->records_bytes));
    }
    sendto(server.fd, out.p, out.n, 0, (struct sockaddr *)&from, from_bytes);
    buf_done(&out);
}

static int setup(void **state)
{
    struct err err;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    assert_int_equal(loop_new(&server.loop, &err), 0);
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&address, &n), 0);
    snprintf(server.address, sizeof server.address, "127.0.0.1:%d", ntohs(address.sin_port));
    assert_int_equal(loop_fd_new(server.loop, server.fd, serve, NULL, &server.watch, &err), 0);
    loop_fd_want(server.watch, LOOP_READ);
    return 0;
}

static int teardown(void **state)
{
    loop_fd_free(&server.watch);
    close(server.fd);
    loop_free(&server.loop);
    return 0;
}

static struct dns *resolver(const char *anchor_file)
{
    struct dns *dns;
    struct err err = { 0 };
    const char *list[] = { server.address };
    if (dns_new(server.loop, list, 1, anchor_file, &dns, &err) < 0)
        fail_msg("%s", err.text);
    return dns;
}

/* The last answer, copied as far as the tests look. */
static struct {
    unsigned calls;
    struct dns_answer answer;
    struct dns_record record[4];
    char canonical[DNS_NAME_BYTES], error[400], tlsa[16];
} got;

static void answered(void *arg, const struct dns_answer *answer)
{
    got.calls++;
    got.answer = *answer;
    for (size_t i = 0; i < answer->n_records && i < 4; i++)
        got.record[i] = answer->record[i];
    snprintf(got.canonical, sizeof got.canonical, "%s", answer->canonical ? answer->canonical : "");
    snprintf(got.error, sizeof got.error, "%s", answer->error ? answer->error : "");
    if (answer->type == DNS_TLSA && answer->n_records)
        assert_true(str_copy(answer->record[0].tlsa.data, got.tlsa, sizeof got.tlsa));
}

static void ask_within(struct dns *dns, const char *name, enum dns_type type, int64_t deadline_ms)
{
    struct dns_query *query;
    struct err err = { 0 };
    memset(&got, 0, sizeof got);
    if (dns_query(dns, name, type, deadline_ms, answered, NULL, &query, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(got.calls, 0); /* never from within */
    while (!got.calls)
        loop_run_once(server.loop, true);
    assert_int_equal(got.calls, 1);
}

static void ask(struct dns *dns, const char *name, enum dns_type type)
{
    ask_within(dns, name, type, 20000);
}

static void test_answers(void **state)
{
    struct dns *dns = resolver(NULL);
    ask(dns, "corp.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_FOUND);
    assert_int_equal(got.answer.n_records, 2);
    assert_int_equal(got.answer.ttl_s, 300);
    assert_false(got.answer.secure);
    size_t first = got.record[0].mx.preference == 10 ? 0 : 1;
    assert_string_equal(got.record[first].mx.host, "mx.corp.test");
    assert_string_equal(got.record[1 - first].mx.host, "my.corp.test");
    ask(dns, "nullmx.test.", DNS_MX);
    assert_int_equal(got.answer.n_records, 1);
    assert_string_equal(got.record[0].mx.host, "");
    ask(dns, "mx.corp.test", DNS_A);
    assert_memory_equal(got.record[0].a, "\x0a\1\2\3", 4);
    ask(dns, "mx.corp.test", DNS_AAAA);
    assert_memory_equal(got.record[0].aaaa, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    ask(dns, "alias.corp.test", DNS_A);
    assert_int_equal(got.answer.status, DNS_FOUND);
    assert_string_equal(got.canonical, "mx.corp.test");
    ask(dns, "_25._tcp.mx.corp.test", DNS_TLSA);
    assert_int_equal(got.record[0].tlsa.usage, 3);
    assert_string_equal(got.tlsa, "abcd");
    ask(dns, "localhost", DNS_A);
    assert_memory_equal(got.record[0].a, "\x7f\0\0\1", 4);
    dns_free(&dns);
}

/* The reverse zone of a private network is asked, too. */
static void test_reverse(void **state)
{
    struct dns *dns = resolver(NULL);
    struct in6_addr address;
    char name[DNS_NAME_BYTES];
    inet_pton(AF_INET6, "::ffff:10.1.2.3", &address);
    dns_reverse_name(&address, name);
    assert_string_equal(name, "3.2.1.10.in-addr.arpa");
    ask(dns, name, DNS_PTR);
    assert_int_equal(got.answer.status, DNS_FOUND);
    assert_string_equal(got.record[0].ptr, "mx.corp.test");
    inet_pton(AF_INET6, "2001:db8::1", &address);
    dns_reverse_name(&address, name);
    assert_string_equal(name, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    dns_free(&dns);
}

static void test_cache(void **state)
{
    struct dns *dns = resolver(NULL);
    ask(dns, "mx.corp.test", DNS_A);
    unsigned before = server.questions;
    ask(dns, "mx.corp.test", DNS_A);
    assert_int_equal(got.answer.status, DNS_FOUND);
    assert_int_equal(server.questions, before);
    dns_free(&dns);
}

static void test_failures(void **state)
{
    struct dns *dns = resolver(NULL);
    char expected[400];
    ask(dns, "none.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_NO_NAME);
    assert_int_equal(got.answer.rcode, 3);
    ask(dns, "corp.test", DNS_A);
    assert_int_equal(got.answer.status, DNS_NO_DATA);
    ask(dns, "broken.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_FAILED);
    snprintf(expected, sizeof expected, "DNS: no usable answer for broken.test MX from %s (SERVFAIL)", server.address);
    assert_string_equal(got.error, expected);
    ask_within(dns, "silent.test", DNS_MX, 200);
    assert_int_equal(got.answer.status, DNS_FAILED);
    assert_int_equal(got.answer.rcode, -1);
    snprintf(expected, sizeof expected, "DNS: no answer for silent.test MX from %s within 0.2 s", server.address);
    assert_string_equal(got.error, expected);
    /* The resolver was slow for one name; the next is asked all the same. */
    ask(dns, "nullmx.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_FOUND);
    dns_free(&dns);
}

static void test_cancel(void **state)
{
    struct dns *dns = resolver(NULL);
    struct dns_query *query, *left;
    struct err err;
    memset(&got, 0, sizeof got);
    unsigned silent = server.silent;
    assert_int_equal(dns_query(dns, "corp.test", DNS_MX, 20000, answered, NULL, &query, &err), 0);
    dns_cancel(&query);
    assert_null(query);
    dns_cancel(&query);
    /* Answered from the cache's side already, not yet delivered. */
    assert_int_equal(dns_query(dns, "localhost", DNS_A, 20000, answered, NULL, &query, &err), 0);
    dns_cancel(&query);
    /* Still open at the end. */
    assert_int_equal(dns_query(dns, "silent.test", DNS_A, 20000, answered, NULL, &left, &err), 0);
    while (server.silent == silent)
        loop_run_once(server.loop, true);
    dns_free(&dns);
    assert_int_equal(got.calls, 0);
}

/* A zone with a trust anchor whose answers carry no signature. */
static void test_bogus(void **state)
{
    char path[] = "/tmp/postern-test-anchor-XXXXXX";
    static const char anchor[] = "corp.test. IN DS 12345 13 2 "
                                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, anchor, sizeof anchor - 1), (ssize_t)sizeof anchor - 1);
    close(fd);
    struct dns *dns = resolver(path);
    unlink(path);
    ask(dns, "corp.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_FAILED);
    assert_int_equal(got.answer.n_records, 0);
    assert_non_null(strstr(got.error, "DNS: the signature of corp.test MX is wrong: "));
    /* Outside of the anchor's zone nothing is proven, and nothing wrong. */
    ask(dns, "nullmx.test", DNS_MX);
    assert_int_equal(got.answer.status, DNS_FOUND);
    assert_false(got.answer.secure);
    dns_free(&dns);
}

static void test_bad_arguments(void **state)
{
    static const char *const bad[] = { "", "localhost", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "[::1",
                                       "[::1]53", "::1:5x" };
    static const char *const good[] = { "127.0.0.1", "127.0.0.1:5353", "[::1]:5353", "[::1]", "::1" };
    struct dns *dns;
    struct err err;
    struct dns_query *query;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(dns_new(server.loop, &bad[i], 1, NULL, &dns, &err), ERR_CONFIG);
        assert_null(dns);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(dns_new(server.loop, &good[i], 1, NULL, &dns, &err), 0);
        dns_free(&dns);
    }
    assert_int_equal(dns_new(server.loop, good, 1, "/nonexistent", &dns, &err), ERR_DNS);
    assert_int_equal(dns_new(server.loop, NULL, 0, NULL, &dns, &err), 0); /* /etc/resolv.conf */
    assert_int_equal(dns_query(dns, "a b.test", DNS_A, 1000, answered, NULL, &query, &err), ERR_SYNTAX);
    assert_null(query);
    dns_free(&dns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers), cmocka_unit_test(test_reverse), cmocka_unit_test(test_cache),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_cancel), cmocka_unit_test(test_bogus),
        cmocka_unit_test(test_bad_arguments),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
