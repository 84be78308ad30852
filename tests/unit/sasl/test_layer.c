/* The framing of security layers: pieces, bounds, and what ends it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_gss.h"
#include "sasl/layer.h"

static struct fake_gss fake;

static struct sasl_layer *begin(bool confidential, uint32_t receive_max, uint32_t peer_max)
{
    struct sasl_gss gss = fake_table(&fake);
    struct sasl_layer_ops ops = sasl_layer_ops_of_gss(&gss, confidential);
    struct sasl_layer_limits limits = { .receive_max = receive_max, .peer_max = peer_max };
    struct err err = { 0 };
    return sasl_layer_new(&ops, &limits, &err);
}

static void one_packet(void **state)
{
    struct sasl_layer *layer = begin(true, 0, 0);
    struct buf out;
    struct err err = { 0 };
    buf_init(&out, 1024);
    assert_int_equal(sasl_layer_encode(layer, STR("NOOP\r\n"), &out, &err), 0);
    assert_true(str_eq(buf_str(&out), STR("\0\0\0\x0e" "ENOOP\r\npadding")));
    assert_int_equal(sasl_layer_encode(layer, STR(""), &out, &err), 0);
    assert_int_equal(out.n, 18);
    buf_done(&out);
    sasl_layer_free(&layer);
    assert_null(layer);
}

/* Octet by octet, and two packets at once: the same text. */
static void partial_input(void **state)
{
    struct str in = STR("\0\0\0\x09" "Iapadding" "\0\0\0\x0a" "Ibcpadding" "\0\0");
    struct sasl_layer *layer = begin(false, 0, 0);
    struct buf plain;
    struct err err = { 0 };
    size_t used, at = 0;
    buf_init(&plain, 1024);
    for (size_t n = 1; n <= in.n; n++) {
        int rc = sasl_layer_decode(layer, str_slice(in.p + at, n - at), &used, &plain, &err);
        assert_int_equal(rc, n == 13 || n == 27);
        assert_int_equal(used, rc == 0 ? 0 : n - at);
        at += used;
    }
    assert_true(str_eq(buf_str(&plain), STR("abc")));
    buf_clear(&plain);
    assert_int_equal(sasl_layer_decode(layer, in, &used, &plain, &err), 1);
    assert_int_equal(used, 13);
    assert_true(str_eq(buf_str(&plain), STR("a")));
    buf_done(&plain);
    sasl_layer_free(&layer);
}

static void long_text_becomes_packets_that_the_peer_takes(void **state)
{
    char text[1000];
    memset(text, 'x', sizeof text);
    struct sasl_layer *layer = begin(true, 0, 108);
    struct buf out, plain;
    struct err err = { 0 };
    buf_init(&out, 64 * 1024);
    buf_init(&plain, 64 * 1024);
    assert_int_equal(sasl_layer_encode(layer, str_slice(text, sizeof text), &out, &err), 0);
    assert_int_equal(out.n, 10 * (100 + FAKE_OVERHEAD + SASL_LAYER_LENGTH_BYTES));
    struct str rest = buf_str(&out);
    for (int packets = 0; packets < 10; packets++) {
        size_t used;
        assert_int_equal(sasl_layer_decode(layer, rest, &used, &plain, &err), 1);
        assert_int_equal(used, 112);
        rest = str_skip(rest, used);
    }
    assert_int_equal(rest.n, 0);
    assert_true(str_eq(buf_str(&plain), str_slice(text, sizeof text)));
    buf_done(&out);
    buf_done(&plain);
    sasl_layer_free(&layer);
}

static void what_ends_a_layer(void **state)
{
    static const struct {
        struct str in;
        const char *says;
    } rows[] = {
        { STR("\0\0\0\0"), "empty packet" },
        { STR("\0\0\0\x65"), "101 octets" },
        { STR("EHLO x\r\n"), "not wrapped" },
        { STR("\xff\xff\xff\xff"), "4294967295 octets" },
        { STR("\0\0\0\x01x"), "does not unwrap" },
        { STR("\0\0\0\x09" "Epaddinx?"), "does not unwrap" },
        { STR("\0\0\0\x09" "Iapadding"), "not encrypted" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_layer *layer = begin(true, 100, 0);
        struct buf plain;
        struct err err = { 0 };
        size_t used = 1;
        buf_init(&plain, 1024);
        assert_int_equal(sasl_layer_decode(layer, rows[i].in, &used, &plain, &err), ERR_AUTH);
        assert_non_null(strstr(err_text(&err), rows[i].says));
        assert_int_equal(used, 0);
        assert_int_equal(sasl_layer_decode(layer, STR("\0\0\0\x09" "Eapadding"), &used, &plain, &err), ERR_AUTH);
        assert_int_equal(sasl_layer_encode(layer, STR("x"), &plain, &err), ERR_AUTH);
        buf_done(&plain);
        sasl_layer_free(&layer);
    }
}

static void no_room(void **state)
{
    struct buf small;
    struct err err = { 0 };
    size_t used;
    assert_null(begin(true, 0, SASL_LAYER_PEER_MIN - 1));
    struct sasl_layer *layer = begin(true, 0, SASL_LAYER_PEER_MIN);
    assert_non_null(layer);
    buf_init(&small, 10);
    assert_int_equal(sasl_layer_encode(layer, STR("hello"), &small, &err), ERR_LIMIT);
    sasl_layer_free(&layer);
    layer = begin(true, 0, 0);
    buf_clear(&small);
    assert_int_equal(sasl_layer_decode(layer, STR("\0\0\0\x13" "Eabcdefghijkpadding"), &used, &small, &err), ERR_LIMIT);
    sasl_layer_free(&layer);
    layer = begin(true, 0, 0);
    fake.cannot_wrap = true;
    buf_clear(&small);
    assert_int_equal(sasl_layer_encode(layer, STR("x"), &small, &err), ERR_AUTH);
    fake.cannot_wrap = false;
    sasl_layer_free(&layer);
    buf_done(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_packet),
        cmocka_unit_test(partial_input),
        cmocka_unit_test(long_text_becomes_packets_that_the_peer_takes),
        cmocka_unit_test(what_ends_a_layer),
        cmocka_unit_test(no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
