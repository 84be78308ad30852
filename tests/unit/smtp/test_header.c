#include "smtp/header.h"
#include "smtp/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check(struct str pattern, struct str in, struct str want, struct smtp_header *ret)
{
    for (size_t piece = 1; piece <= in.n + 1; piece++) {
        struct buf out;
        buf_init(&out, 1 << 16);
        smtp_header_init(ret, &pattern, pattern.n ? 1 : 0);
        for (size_t at = 0; at < in.n;) {
            struct str rest = str_skip(in, at);
            if (rest.n > piece)
                rest.n = piece;
            while (rest.n) {
                size_t used;
                buf_add(&out, smtp_header_feed(ret, rest, &used));
                rest = str_skip(rest, used);
                at += used;
            }
        }
        buf_add(&out, smtp_header_end(ret));
        if (!str_eq(buf_str(&out), want))
            fail_msg("in pieces of %zu: [%.*s]", piece, STR_ARG(buf_str(&out)));
        assert_int_equal(ret->stripped_bytes, in.n - want.n);
        buf_done(&out);
    }
}

static void test_fields(void **state)
{
    struct smtp_header h;
    struct str in = STR("received: a\r\n\tb\r\nReceived : c\r\nMessage-Id: <x>\r\nX: Date: no\r\nFROM:a\r\n\r\nDate: "
                        "body\r\nReceived: body\r\n");
    check(STR_NONE, in, in, &h);
    assert_int_equal(h.n_received, 2);
    assert_true(h.has_message_id && h.has_from && h.done);
    assert_false(h.has_date || h.has_8bit || h.has_delivered_to);
    in = STR("Subject: \xc3\xa9\r\nDate: x\r\nDelivered-To: me\r\n");
    check(STR_NONE, in, in, &h);
    assert_true(h.has_8bit && h.has_date && h.has_delivered_to);
    assert_false(h.done);
}

static void test_strip(void **state)
{
    struct smtp_header h;
    check(STR("X-MS-Exchange-Organization-*"),
          STR("A: 1\r\nx-ms-exchange-organization-SCL: -1\r\n more\r\n\tmore\r\nX-MS-Exchange-Organization-: z\r\nB: "
              "2\r\n b\r\nX-MS-EXCHANGE-ORGANIZATION-AuthAs: y\r\n"
              "\r\nX-MS-Exchange-Organization-SCL: body\r\n"),
          STR("A: 1\r\nB: 2\r\n b\r\n\r\nX-MS-Exchange-Organization-SCL: body\r\n"), &h);
    check(STR("Received"), STR("Received: 1\r\nReceived: 2\r\n\r\n"), STR("\r\n"), &h);
    assert_int_equal(h.n_received, 2);
    check(STR("Date"), STR("Date: 1\r\n\r\n"), STR("\r\n"), &h);
    assert_false(h.has_date);
    check(STR("*"), STR("Date: 1\r\n x"), STR(""), &h);
}

static void test_no_header(void **state)
{
    struct smtp_header h;
    static const char *const bodies[] = {
        "",
        "hello world\r\nReceived: x\r\n",
        "\r\nReceived: x\r\n",
        ": x\r\nReceived: x\r\n",
        "no colon\r\nReceived: x\r\n",
        "Rec",
        "\xc3\xa9: x\r\nReceived: x\r\n",
        "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEEEEEEEEEEFFFFFFFFFFGGGGGGGGGGHHHHHHHHHHIIIIIIIIII: x\r\nReceived: "
        "x\r\n",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        check(STR("Received"), str_of(bodies[i]), str_of(bodies[i]), &h);
        assert_int_equal(h.n_received, 0);
    }
}

static void test_received(void **state)
{
    struct smtp_trace t = {
        .helo = STR("client.test"),
        .client_name = STR("c.test"),
        .client_ip = STR("192.0.2.1"),
        .server_name = STR("mx.test"),
        .queue_id = STR("0123456789"),
        .tls_version = STR("TLSv1.3"),
        .tls_cipher = STR("TLS_AES_256_GCM_SHA384"),
        .tls_bits = 256,
        .esmtp = true,
        .authenticated = true,
        .recipient = STR("ben@b.test"),
        .date = STR("Sat, 21 Nov 2026 18:07:33 +0000"),
    };
    struct buf b;
    buf_init(&b, 4096);
    assert_true(smtp_trace_received(&t, &b));
    assert_true(str_eq(buf_str(&b), STR("Received: from client.test (c.test [192.0.2.1])\r\n"
                                        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256 bits))\r\n"
                                        "\tby mx.test with ESMTPSA id 0123456789\r\n"
                                        "\tfor <ben@b.test>;\r\n"
                                        "\tSat, 21 Nov 2026 18:07:33 +0000\r\n")));
    buf_clear(&b);
    t = (struct smtp_trace){ .helo = STR("x\r\nBcc:(y)"),
                              .client_ip = STR("2001:db8::1"),
                              .server_name = STR("mx.test"),
                              .server_text = STR("Postern"),
                              .queue_id = STR("1"),
                              .date = STR("now") };
    assert_true(smtp_trace_received(&t, &b));
    assert_true(str_eq(buf_str(&b), STR("Received: from x??Bcc:?y? (unknown [IPv6:2001:db8::1])\r\n"
                                        "\tby mx.test (Postern) with SMTP id 1;\r\n\tnow\r\n")));
    buf_done(&b);
}

static void test_protocol(void **state)
{
    assert_string_equal(smtp_trace_protocol(false, false, false, false), "SMTP");
    assert_string_equal(smtp_trace_protocol(true, false, false, false), "ESMTP");
    assert_string_equal(smtp_trace_protocol(true, true, false, false), "ESMTPS");
    assert_string_equal(smtp_trace_protocol(true, false, true, false), "ESMTPA");
    assert_string_equal(smtp_trace_protocol(true, true, true, false), "ESMTPSA");
    assert_string_equal(smtp_trace_protocol(true, true, true, true), "UTF8SMTPSA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),   cmocka_unit_test(test_strip),    cmocka_unit_test(test_no_header),
        cmocka_unit_test(test_received), cmocka_unit_test(test_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
