#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "conf/network.h"

static void test_address(void **state)
{
    static const char *const good[][2] = {
        { "10.0.0.1", "10.0.0.1" },
        { "::1", "::1" },
        { "2001:DB8:0:0::1", "2001:db8::1" },
        { "::ffff:1.2.3.4", "1.2.3.4" },
    };
    static const char *const bad[] = { "", "10.0.0", "10.0.0.256", "010.0.0.1", "[::1]", "::1%lo", "1.2.3.4 ", "host" };
    unsigned char address[16];
    char text[NETWORK_TEXT_BYTES];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(network_address_parse(str_of(good[i][0]), address));
        network_address_format(address, text);
        assert_string_equal(text, good[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(network_address_parse(str_of(bad[i]), address));
    assert_false(network_address_parse(STR("1.2.3.4\0x"), address));
}

static void test_network(void **state)
{
    static const struct {
        const char *text, *canonical, *right;
        unsigned bits;
    } rows[] = {
        { "10.1.0.0/16", "10.1.0.0/16", NULL, 112 }, { "10.1.2.3", "10.1.2.3/32", NULL, 128 },
        { "0.0.0.0/0", "0.0.0.0/0", NULL, 96 },      { "::/0", "::/0", NULL, 0 },
        { "2001:db8::/32", "2001:db8::/32", NULL, 32 }, { "::ffff:10.0.0.0/104", "10.0.0.0/8", NULL, 104 },
        { "10.1.2.3/16", NULL, "10.1.0.0/16", 0 },   { "2001:db8::1/64", NULL, "2001:db8::/64", 0 },
        { "10.0.0.0/33", NULL, "", 0 },              { "10.0.0.0/", NULL, "", 0 },
        { "10.0.0.0/-1", NULL, "", 0 },              { "::/129", NULL, "", 0 },
        { "10.0.0.0/255.0.0.0", NULL, "", 0 },       { "/8", NULL, "", 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char address[16];
        unsigned bits = 0;
        char right[NETWORK_TEXT_BYTES], text[NETWORK_TEXT_BYTES];
        struct err err = { 0 };
        int rc = network_parse(str_of(rows[i].text), address, &bits, right, &err);
        if (!rows[i].canonical) {
            assert_int_equal(rc, ERR_SYNTAX);
            assert_string_equal(right, rows[i].right);
            assert_true(err.text[0] != 0);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(bits, rows[i].bits);
        network_format(address, bits, text);
        assert_string_equal(text, rows[i].canonical);
    }
}

static void test_listen(void **state)
{
    static const char *const bad[] = {
        "",      ":25",     "10.0.0.1",      "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "::1:25",
        "[::1]", "[::1]25", "[10.0.0.1]:25", "host:25",   "[::1:25",    "10.0.0.1:25x"
    };
    unsigned char address[16];
    uint16_t port;
    assert_true(network_listen_parse(STR("10.0.0.1:25"), address, &port));
    assert_int_equal(port, 25);
    assert_true(network_is_ipv4(address));
    assert_true(network_listen_parse(STR("[::]:65535"), address, &port));
    assert_int_equal(port, 65535);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(network_listen_parse(str_of(bad[i]), address, &port));
}

static void test_host_port(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } rows[] = {
        { "mx", "mx", 0 },
        { "mx:2526", "mx", 2526 },
        { "smtp.partner.example:587", "smtp.partner.example", 587 },
        { "10.0.0.1", "10.0.0.1", 0 },
        { "10.0.0.1:26", "10.0.0.1", 26 },
        { "[::1]:26", "::1", 26 },
        { "::1", "::1", 0 },
        { "[::1]", "::1", 0 },
        { "a_b.example", "a_b.example", 0 },
        { "", NULL, 0 },
        { "host:", NULL, 0 },
        { "host:0", NULL, 0 },
        { "host:70000", NULL, 0 },
        { "a..b", NULL, 0 },
        { "-a", NULL, 0 },
        { "a b", NULL, 0 },
        { "10.0.0.300", NULL, 0 },
        { "host.", NULL, 0 },
        { "[host]:25", NULL, 0 },
        { "::1:99999x", NULL, 0 },
        { "a.b:25:26", NULL, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str host;
        uint16_t port = 9;
        bool ok = network_host_port_parse(str_of(rows[i].text), &host, &port);
        if (ok != (rows[i].host != NULL))
            print_error("%s\n", rows[i].text);
        assert_int_equal(ok, rows[i].host != NULL);
        if (ok) {
            assert_true(str_eq(host, str_of(rows[i].host)));
            assert_int_equal(port, rows[i].port);
        }
    }
}

static void test_mask(void **state)
{
    unsigned char a[16];
    memset(a, 0xff, sizeof a);
    network_mask(a, 3);
    assert_int_equal(a[0], 0xe0);
    assert_int_equal(a[1], 0);
    memset(a, 0xff, sizeof a);
    network_mask(a, 128);
    assert_int_equal(a[15], 0xff);
    network_mask(a, 127);
    assert_int_equal(a[15], 0xfe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address), cmocka_unit_test(test_network),   cmocka_unit_test(test_listen),
        cmocka_unit_test(test_host_port), cmocka_unit_test(test_mask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
