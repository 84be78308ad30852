#include "policy/access.h"

#include <stdlib.h>

#include "text_conf.h"

static const char *find(const struct conf *conf, const char *address)
{
    unsigned char octets[16];
    struct access_rules rules;
    assert_true(access_address_parse(str_of(address), octets));
    access_find(&conf->server[0], octets, &rules);
    return rules.network ? rules.network : "server";
}

static void test_most_specific(void **state)
{
    const struct conf *conf =
        text_conf("server \"s\" { listen = \"127.0.0.1:25\" accept = auth mechanisms = {\"SCRAM-SHA-256\"}\n"
                  "  host \"10.0.0.0/8\" { accept = any }\n  host \"10.1.0.0/16\" { relay = true }\n  host "
                  "\"10.1.2.3\" { accept = deny }\n"
                  "  host \"10.1.2.4\" { }\n  host \"2001:db8::/32\" { }\n  host \"2001:db8:1::/48\" { }\n}\ndomain "
                  "\"d\" { via = mx }");
    static const char *const rows[][2] = {
        { "10.1.2.3", "10.1.2.3" },       { "::ffff:10.1.2.3", "10.1.2.3" },     { "10.1.2.5", "10.1.0.0/16" },
        { "10.2.0.0", "10.0.0.0/8" },     { "10.255.255.255", "10.0.0.0/8" },    { "11.0.0.0", "server" },
        { "9.255.255.255", "server" },    { "2001:db8::1", "2001:db8::/32" },    { "2001:db8:1::", "2001:db8:1::/48" },
        { "2001:db9::", "server" },       { "::10.1.2.3", "server" },            { "10.1.2.4", "10.1.2.4" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(find(conf, rows[i][0]), rows[i][1]);

    unsigned char address[16];
    struct access_rules rules;
    access_address_parse(STR("10.1.9.9"), address);
    access_find(&conf->server[0], address, &rules);
    assert_int_equal(rules.accept, CONF_ACCEPT_AUTH); /* the server's, not that of the wider network */
    assert_true(rules.relay);
    assert_int_equal(rules.place.line, 3);
    assert_int_equal(rules.mechanisms.n, 1);
    access_address_parse(STR("1.1.1.1"), address);
    access_find(&conf->server[0], address, &rules);
    assert_int_equal(rules.place.line, 1);
    assert_null(rules.network);
    conf_unref(&conf);
}

/* Against the plain way of looking at every network. */
static void test_many(void **state)
{
    struct buf text;
    buf_init(&text, CONF_FILE_MAX);
    buf_add_c(&text, "server \"s\" { listen = \"127.0.0.1:25\"\n");
    uint32_t x = 1;
    for (int i = 0; i < 1000; i++) {
        x = x * 1664525 + 1013904223;
        unsigned bits = 20 + x % 13;
        uint32_t net = (10u << 24 | (x >> 8 & 0xffff) << 8 | (uint32_t)i % 7 << 4) & (0xffffffffu << (32 - bits));
        char entry[100];
        snprintf(entry, sizeof entry, "host \"%u.%u.%u.%u/%u\" {", net >> 24, net >> 16 & 255, net >> 8 & 255,
                 net & 255, bits);
        buf_add_char(&text, 0);
        text.n--;
        if (!strstr(text.p, entry))
            buf_addf(&text, "%s }\n", entry);
    }
    buf_add_c(&text, "}\ndomain \"d\" { via = mx }");
    const struct conf *conf = text_conf(buf_cstr(&text));
    const struct conf_server *server = &conf->server[0];
    for (int i = 0; i < 4000; i++) {
        x = x * 1664525 + 1013904223;
        unsigned char a[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [13] = (unsigned char)(x >> 24),
                                [14] = (unsigned char)(x >> 16), [15] = (unsigned char)(x >> 9) };
        const struct conf_host *best = NULL;
        for (size_t k = 0; k < server->n_hosts; k++) {
            unsigned char net[16];
            memcpy(net, a, 16);
            network_mask(net, server->host[k].prefix_bits);
            if (memcmp(net, server->host[k].address, 16) == 0
                && (!best || best->prefix_bits < server->host[k].prefix_bits))
                best = &server->host[k];
        }
        struct access_rules rules;
        access_find(server, a, &rules);
        assert_ptr_equal(rules.network, best ? best->network : NULL);
    }
    conf_unref(&conf);
    buf_done(&text);
}

static void test_text(void **state)
{
    unsigned char a[16];
    char text[ACCESS_ADDRESS_TEXT_BYTES];
    assert_true(access_address_parse(STR("::ffff:192.0.2.1"), a));
    access_address_format(a, text);
    assert_string_equal(text, "192.0.2.1");
    assert_false(access_address_parse(STR("192.0.2"), a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_most_specific),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
