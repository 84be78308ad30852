#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "io/dns_packet.h"

/* Header: answer, rcode, one question, n answers; then the question "a.test" of type t. */
#define HEADER(rcode, n) "\x12\x34\x81" rcode "\0\1\0" n "\0\0\0\0"
#define QUESTION(type) "\1a\4test\0\0" type "\0\1"
#define RR(owner, type, ttl, length) owner "\0" type "\0\1\0\0\0" ttl "\0" length
#define PACKET(text) STR(text)

static struct arena arena;
static struct dns_answer answer;

static void read_packet(struct str packet, enum dns_type type)
{
    arena_done(&arena);
    arena_init(&arena, 256 * 1024);
    /* On the heap, at its exact size, for the sanitizer. */
    char *p = malloc(packet.n ? packet.n : 1);
    if (packet.n)
        memcpy(p, packet.p, packet.n);
    dns_packet_read(str_slice(p, packet.n), STR("A.test"), type, &arena, &answer);
    free(p);
}

static void test_mx(void **state)
{
    read_packet(PACKET(HEADER("\x80", "\3") QUESTION("\x0f")
                       RR("\xc0\x0c", "\x0f", "\x3c", "\7") "\0\x0a\2m1\xc0\x0c"
                       RR("\xc0\x0c", "\x0f", "\x1e", "\5") "\0\5\1x\0"
                       RR("\1b\xc0\x0e", "\x0f", "\1", "\5") "\0\1\1y\0"), DNS_MX);
    assert_int_equal(answer.status, DNS_FOUND);
    assert_int_equal(answer.n_records, 2);
    assert_int_equal(answer.ttl_s, 30);
    assert_string_equal(answer.canonical, "A.test");
    assert_int_equal(answer.record[0].mx.preference, 10);
    assert_string_equal(answer.record[0].mx.host, "m1.a.test");
    assert_int_equal(answer.record[1].mx.preference, 5);
    assert_string_equal(answer.record[1].mx.host, "x");
    /* Null MX */
    read_packet(PACKET(HEADER("\x80", "\1") QUESTION("\x0f") RR("\xc0\x0c", "\x0f", "\1", "\3") "\0\0\0"), DNS_MX);
    assert_int_equal(answer.n_records, 1);
    assert_string_equal(answer.record[0].mx.host, "");
}

static void test_addresses(void **state)
{
    /* The CNAME stands behind what it leads to. */
    read_packet(PACKET(HEADER("\x80", "\3") QUESTION("\1")
                       RR("\1c\0", "\1", "\1", "\4") "\x0a\0\0\1"
                       RR("\1c\0", "\1", "\1", "\4") "\x0a\0\0\2"
                       RR("\xc0\x0c", "\5", "\1", "\3") "\1c\0"), DNS_A);
    assert_int_equal(answer.n_records, 2);
    assert_string_equal(answer.canonical, "c");
    assert_memory_equal(answer.record[1].a, "\x0a\0\0\2", 4);
    read_packet(PACKET(HEADER("\x80", "\1") QUESTION("\x1c") RR("\xc0\x0c", "\x1c", "\1", "\x10")
                       "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"), DNS_AAAA);
    assert_int_equal(answer.n_records, 1);
    assert_memory_equal(answer.record[0].aaaa, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    /* An address of five octets is none. */
    read_packet(PACKET(HEADER("\x80", "\1") QUESTION("\1") RR("\xc0\x0c", "\1", "\1", "\5") "\x0a\0\0\1\1"), DNS_A);
    assert_int_equal(answer.status, DNS_FAILED);
    /* CNAMEs in a circle */
    read_packet(PACKET(HEADER("\x80", "\2") QUESTION("\1") RR("\xc0\x0c", "\5", "\1", "\3") "\1c\0"
                       RR("\1c\0", "\5", "\1", "\2") "\xc0\x0c"), DNS_A);
    assert_int_equal(answer.status, DNS_NO_DATA);
}

static void test_others(void **state)
{
    read_packet(PACKET(HEADER("\x80", "\1") QUESTION("\x0c") RR("\xc0\x0c", "\x0c", "\1", "\6") "\4host\0"), DNS_PTR);
    assert_string_equal(answer.record[0].ptr, "host");
    read_packet(PACKET(HEADER("\x80", "\1") QUESTION("\x34") RR("\xc0\x0c", "\x34", "\1", "\5") "\3\1\1hh"), DNS_TLSA);
    assert_int_equal(answer.record[0].tlsa.usage, 3);
    assert_true(str_eq(answer.record[0].tlsa.data, STR("hh")));
    read_packet(PACKET(HEADER("\x83", "\0") QUESTION("\1")), DNS_A);
    assert_int_equal(answer.status, DNS_NO_NAME);
    read_packet(PACKET(HEADER("\x80", "\0") QUESTION("\1")), DNS_A);
    assert_int_equal(answer.status, DNS_NO_DATA);
    assert_int_equal(answer.rcode, 0);
    read_packet(PACKET(HEADER("\x82", "\0") QUESTION("\1")), DNS_A);
    assert_int_equal(answer.status, DNS_FAILED);
    assert_int_equal(answer.rcode, 2);
}

static void test_malformed(void **state)
{
    const struct str packets[] = {
        PACKET(""),
        PACKET("\x12\x34\x81\x80"),
        PACKET("\x12\x34\1\x80\0\1\0\1\0\0\0\0" QUESTION("\1")), /* a question */
        PACKET(HEADER("\x80", "\1") QUESTION("\1")), /* cut off */
        PACKET(HEADER("\x80", "\1") QUESTION("\1") RR("\xc0\x0c", "\1", "\1", "\x09") "\x0a\0\0\1"), /* data too long */
        PACKET(HEADER("\x80", "\1") QUESTION("\1") RR("\xc0\x18", "\1", "\1", "\4") "\x0a\0\0\1"), /* to itself */
        PACKET(HEADER("\x80", "\1") QUESTION("\1") RR("\xc0\xff", "\1", "\1", "\4") "\x0a\0\0\1"), /* … ahead */
        PACKET(HEADER("\x80", "\1") QUESTION("\1") RR("\x80\x0c", "\1", "\1", "\4") "\x0a\0\0\1"), /* unknown label */
        PACKET(HEADER("\x80", "\1") QUESTION("\x0f") RR("\xc0\x0c", "\x0f", "\1", "\5") "\0\1\1 \0"), /* MX host " " */
        PACKET(HEADER("\x80", "\1") QUESTION("\x0f") RR("\xc0\x0c", "\x0f", "\1", "\6") "\0\1\1x\0z"), /* too long */
        PACKET(HEADER("\x80", "\1") QUESTION("\x0f") RR("\xc0\x0c", "\x0f", "\1", "\4") "\0\1\5x"), /* name is cut */
    };
    for (size_t i = 0; i < sizeof packets / sizeof *packets; i++) {
        enum dns_type type = i < 8 ? DNS_A : DNS_MX;
        read_packet(packets[i], type);
        assert_int_equal(answer.status, DNS_FAILED);
        assert_int_equal(answer.n_records, 0);
        assert_non_null(answer.error);
    }
}

/* Every cut of a good packet is read without harm and never gives a record that is not there. */
static void test_cuts(void **state)
{
    struct str whole =
        PACKET(HEADER("\x80", "\1") QUESTION("\x0f") RR("\xc0\x0c", "\x0f", "\x3c", "\7") "\0\x0a\2m1\xc0\x0c");
    for (size_t n = 0; n < whole.n; n++) {
        read_packet(str_slice(whole.p, n), DNS_MX);
        assert_int_equal(answer.status, DNS_FAILED);
    }
}

static void test_many(void **state)
{
    struct buf packet;
    buf_init(&packet, 65535);
    buf_add(&packet, PACKET("\x12\x34\x81\x80\0\1\xff\xff\0\0\0\0" QUESTION("\1")));
    for (int i = 0; i < 300; i++)
        buf_add(&packet, PACKET(RR("\xc0\x0c", "\1", "\1", "\4") "\x0a\0\0\1"));
    read_packet(buf_str(&packet), DNS_A);
    assert_int_equal(answer.status, DNS_FAILED); /* 65,535 were promised */
    packet.p[6] = 300 >> 8;
    packet.p[7] = (char)(300 & 255);
    read_packet(buf_str(&packet), DNS_A);
    assert_int_equal(answer.n_records, DNS_RECORDS_MAX);
    buf_done(&packet);
}

static void test_names(void **state)
{
    char text[300];
    memset(text, 'a', sizeof text);
    assert_true(dns_packet_name_valid(STR("mail.corp.test")));
    assert_true(dns_packet_name_valid(STR("_25._tcp.mail.corp.test")));
    assert_true(dns_packet_name_valid(str_slice(text, 63)));
    assert_false(dns_packet_name_valid(str_slice(text, 64)));
    assert_false(dns_packet_name_valid(STR("")));
    assert_false(dns_packet_name_valid(STR(".")));
    assert_false(dns_packet_name_valid(STR("a..b")));
    assert_false(dns_packet_name_valid(STR("a.")));
    assert_false(dns_packet_name_valid(STR("a b")));
    assert_false(dns_packet_name_valid(STR("a\\046b")));
    assert_false(dns_packet_name_valid(STR("b\303\274cher.test")));
    for (size_t i = 49; i < sizeof text; i += 50)
        text[i] = '.';
    assert_true(dns_packet_name_valid(str_slice(text, 253)));
    assert_false(dns_packet_name_valid(str_slice(text, 254)));
}

static int teardown(void **state)
{
    arena_done(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx), cmocka_unit_test(test_addresses), cmocka_unit_test(test_others),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_cuts), cmocka_unit_test(test_many),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
