/* Both kinds of security layers, as smtpd and delivery use them: from auth's message to plain octets and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/wire.h"
#include "daemon/layer.h"
#include "sasl/layer.h"
#include "sasl/ntlm_seal.h"

enum { AES256_SHA1 = 18, LARGE_BYTES = 1 << 20 };

static void put_krb_state(struct buf *b, bool initiator)
{
    wire_put_u8(b, 1);
    wire_put_u8(b, initiator ? 3 : 2);
    wire_put_u64(b, initiator ? 100 : 700);
    wire_put_u64(b, initiator ? 700 : 100);
    wire_put_u32(b, AES256_SHA1);
    wire_put_str(b, STR("an octet string of thirty-two oc"));
}

static void put_ntlm_state(struct buf *b, bool client, bool sealed)
{
    static const unsigned char key[NTLM_HASH_BYTES] = { 1, 2, 3 };
    uint32_t flags = NTLM_SIGN | NTLM_ESS | NTLM_128 | NTLM_KEY_EXCH | (sealed ? NTLM_SEAL : 0);
    struct ntlm_seal seal;
    assert_true(ntlm_seal_init(&seal, key, flags, client));
    assert_true(ntlm_seal_export(&seal, b));
    ntlm_seal_done(&seal);
}

static void put_state(struct buf *b, enum ipc_layer_kind kind, bool client, bool sealed)
{
    buf_init(b, 4096);
    if (kind == IPC_LAYER_NTLM)
        put_ntlm_state(b, client, sealed);
    else
        put_krb_state(b, client);
    assert_false(b->failed);
}

static struct layer *open_layer(enum ipc_layer_kind kind, bool client, bool sealed, uint32_t peer_max)
{
    struct ipc_layer from = { .kind = kind, .peer_max_bytes = peer_max };
    struct layer *layer;
    struct buf state;
    struct err err = { 0 };
    put_state(&state, kind, client, sealed);
    from.state = buf_str(&state);
    if (layer_new(&from, &layer, &err) < 0)
        fail_msg("%s", err.text);
    buf_wipe(&state);
    return layer;
}

static const struct kind {
    enum ipc_layer_kind kind;
    bool sealed;
    const char *name;
} kinds[] = {
    { IPC_LAYER_GSS_INTEGRITY, false, "GSSAPI-integrity" },
    { IPC_LAYER_GSS_CONFIDENTIALITY, true, "GSSAPI-confidentiality" },
    { IPC_LAYER_NTLM, true, "NTLM-confidentiality" },
    { IPC_LAYER_NTLM, false, "NTLM-integrity" },
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* What `to` gets of what `from` has to send, in pieces of that size. */
static void pass(struct layer *from, struct layer *to, struct str text, size_t piece)
{
    struct err err = { 0 };
    struct buf got;
    struct str plain;
    buf_init(&got, 2 * LARGE_BYTES);
    assert_int_equal(layer_put(from, text, &err), 0);
    for (struct buf *out = layer_output(from); out->n; buf_consume(out, out->n < piece ? out->n : piece)) {
        if (layer_take(to, str_slice(out->p, out->n < piece ? out->n : piece), &plain, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(buf_add(&got, plain));
    }
    assert_true(str_eq(buf_str(&got), text));
    buf_done(&got);
}

static void both_ways(void **state)
{
    char *large = malloc(LARGE_BYTES);
    assert_non_null(large);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        large[i] = (char)(i * i >> 3);
    for (size_t i = 0; i < KINDS; i++) {
        struct layer *client = open_layer(kinds[i].kind, true, kinds[i].sealed, 0);
        struct layer *server = open_layer(kinds[i].kind, false, kinds[i].sealed, 4096);
        assert_string_equal(layer_name(server), kinds[i].name);
        assert_int_equal(layer_is_confidential(client), kinds[i].sealed);
        pass(client, server, STR("EHLO client.test\r\n"), 1);
        pass(server, client, STR("250-mail.corp.test\r\n250 HELP\r\n"), 3);
        pass(client, server, str_slice(large, LARGE_BYTES), 65536);
        pass(server, client, str_slice(large, LARGE_BYTES), 1000);
        pass(client, server, STR("."), 100);
        layer_free(&client);
        layer_free(&server);
        layer_free(&server);
    }
    free(large);
}

static void readable_only_where_it_may_be(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        struct layer *layer = open_layer(kinds[i].kind, true, kinds[i].sealed, 0);
        struct err err;
        assert_int_equal(layer_put(layer, STR("MAIL FROM:<alice@corp.test>"), &err), 0);
        struct str out = buf_str(layer_output(layer));
        assert_int_equal(memmem(out.p, out.n, "alice", 5) != NULL, !kinds[i].sealed);
        layer_free(&layer);
    }
}

static void must_end(struct layer *layer, struct str octets)
{
    struct err err = { 0 };
    struct str plain;
    assert_true(layer_take(layer, octets, &plain, &err) < 0);
    assert_true(err.text[0] != 0);
    /* And for good. */
    assert_true(layer_take(layer, STR("\0\0\0\1x"), &plain, &err) < 0);
}

/* Clear text, lengths that were not agreed on, and octets that nobody with the key has wrapped. */
static void hostile_input(void **state)
{
    const struct str rows[] = {
        STR("EHLO client.test\r\n"), STR("\0\0\0\0"), STR("\xff\xff\xff\xff"), STR("\0\1\0\1"), STR("\0\0\0\1x"),
        STR("\0\0\0\x10" "abcdefghijklmnop"), STR("\0\0\0\x10\5\4\4\xff\0\0\0\0\0\0\0\0\0\0\0\x64"),
        STR("\0\0\0\x20\5\4\6\xff\0\0\xff\xff\0\0\0\0\0\0\0\x64" "abcdefghijklmnop"),
    };
    for (size_t i = 0; i < KINDS; i++) {
        for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
            struct layer *layer = open_layer(kinds[i].kind, false, kinds[i].sealed, 0);
            must_end(layer, rows[row]);
            layer_free(&layer);
        }
    }
}

/* Changed, repeated, left out, sent back to its sender; and no octet of what stands behind a bad packet gets through. */
static void changed_on_the_way(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        for (int how = 0; how < 4; how++) {
            struct layer *client = open_layer(kinds[i].kind, true, kinds[i].sealed, 0);
            struct layer *server = open_layer(kinds[i].kind, false, kinds[i].sealed, 0);
            struct err err;
            struct str plain;
            pass(client, server, STR("one"), 100);
            assert_int_equal(layer_put(client, STR("two"), &err), 0);
            struct buf *out = layer_output(client);
            if (how == 0)
                out->p[out->n - 1] = (char)(out->p[out->n - 1] ^ 1);
            if (how == 1)
                assert_int_equal(layer_take(server, buf_str(out), &plain, &err), 0);
            if (how == 2)
                buf_clear(out);
            assert_int_equal(layer_put(client, STR("three"), &err), 0);
            must_end(how == 3 ? client : server, buf_str(out));
            layer_free(&client);
            layer_free(&server);
        }
    }
}

/* A peer that only signs where encryption was agreed on. */
static void signed_is_not_sealed(void **state)
{
    static const enum ipc_layer_kind weak[] = { IPC_LAYER_GSS_INTEGRITY, IPC_LAYER_NTLM };
    static const enum ipc_layer_kind strong[] = { IPC_LAYER_GSS_CONFIDENTIALITY, IPC_LAYER_NTLM };
    for (size_t i = 0; i < 2; i++) {
        struct layer *client = open_layer(weak[i], true, false, 0), *server = open_layer(strong[i], false, true, 0);
        struct err err;
        assert_int_equal(layer_put(client, STR("MAIL FROM:<>\r\n"), &err), 0);
        must_end(server, buf_str(layer_output(client)));
        layer_free(&client);
        layer_free(&server);
    }
}

static void states_that_auth_never_sends(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        struct buf full;
        struct layer *layer;
        struct err err = { 0 };
        put_state(&full, kinds[i].kind, false, kinds[i].sealed);
        for (size_t n = 0; n < full.n; n++) {
            struct ipc_layer from = { .kind = kinds[i].kind, .state = str_slice(full.p, n) };
            assert_true(layer_new(&from, &layer, &err) < 0);
            assert_null(layer);
        }
        /* The other kind's, and a peer that takes next to nothing. */
        struct ipc_layer from = { .kind = kinds[i].kind == IPC_LAYER_NTLM ? IPC_LAYER_GSS_INTEGRITY : IPC_LAYER_NTLM,
                                  .state = buf_str(&full) };
        assert_true(layer_new(&from, &layer, &err) < 0);
        from.kind = kinds[i].kind;
        from.peer_max_bytes = 16;
        assert_true(layer_new(&from, &layer, &err) < 0);
        assert_null(layer);
        buf_done(&full);
    }
}

static int init(void **state)
{
    struct err err = { 0 };
    return layer_init(&err) < 0 || ntlm_crypto_init(&err) < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),
        cmocka_unit_test(readable_only_where_it_may_be),
        cmocka_unit_test(hostile_input),
        cmocka_unit_test(changed_on_the_way),
        cmocka_unit_test(signed_is_not_sealed),
        cmocka_unit_test(states_that_auth_never_sends),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
