/* A seal against its other end: both are made from states with the same key, as the two sides of a context have it.
 * (test_login.c holds seals against GSS-API's own tokens.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/wire.h"
#include "kerberos/seal.h"

enum { AES128_SHA1 = 17, AES256_SHA1 = 18, AES128_SHA256 = 19, AES256_SHA384 = 20, RC4 = 23 };

static size_t key_bytes(uint32_t type)
{
    return type == AES128_SHA1 || type == AES128_SHA256 || type == RC4 ? 16 : 32;
}

static void put_state(struct buf *b, unsigned flags, uint64_t send, uint64_t receive, uint32_t type)
{
    char key[32];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (char)(i * 7 + 1);
    wire_put_u8(b, 1);
    wire_put_u8(b, (uint8_t)flags);
    wire_put_u64(b, send);
    wire_put_u64(b, receive);
    wire_put_u32(b, type);
    wire_put_str(b, str_slice(key, key_bytes(type)));
}

static struct krb_seal *seal(unsigned flags, uint64_t send, uint64_t receive, uint32_t type)
{
    struct krb_seal *made;
    struct err err;
    struct buf b;
    buf_init(&b, KRB_SEAL_STATE_MAX);
    put_state(&b, flags, send, receive, type);
    assert_int_equal(krb_seal_new(buf_str(&b), &made, &err), 0);
    buf_wipe(&b);
    return made;
}

struct pair {
    struct krb_seal *client, *server;
    struct buf token, plain;
};

static void open_pair(struct pair *p, uint32_t type)
{
    p->client = seal(1 | 2, 100, 700, type);
    p->server = seal(2, 700, 100, type);
    buf_init(&p->token, 1 << 20);
    buf_init(&p->plain, 1 << 20);
}

static void close_pair(struct pair *p)
{
    krb_seal_free(&p->client);
    krb_seal_free(&p->server);
    buf_done(&p->token);
    buf_done(&p->plain);
}

static bool pass(struct krb_seal *from, struct krb_seal *to, struct pair *p, bool confidential, struct str plain)
{
    bool was_confidential = !confidential;
    buf_clear(&p->token);
    buf_clear(&p->plain);
    assert_true(krb_seal_wrap(from, confidential, plain, &p->token));
    return krb_seal_unwrap(to, buf_str(&p->token), &p->plain, &was_confidential) &&
           was_confidential == confidential && str_eq(buf_str(&p->plain), plain);
}

static void test_both_ways(void **state)
{
    (void)state;
    static const uint32_t types[] = { AES128_SHA1, AES256_SHA1, AES128_SHA256, AES256_SHA384 };
    static char large[60000];
    memset(large, 'x', sizeof large);
    for (size_t i = 0; i < 4; i++) {
        struct pair p;
        open_pair(&p, types[i]);
        for (int n = 0; n < 3; n++) {
            assert_true(pass(p.client, p.server, &p, true, STR("MAIL FROM:<alice@corp.test>\r\n")));
            assert_true(pass(p.server, p.client, &p, true, STR("250 2.1.0 Ok\r\n")));
            assert_true(pass(p.client, p.server, &p, false, STR("RCPT")));
            assert_true(pass(p.server, p.client, &p, false, STR("")));
            assert_true(pass(p.client, p.server, &p, true, str_slice(large, sizeof large)));
        }
        close_pair(&p);
    }
}

/* Each octet of a token matters, and so does each octet that is missing. */
static void test_damage(void **state)
{
    (void)state;
    for (int confidential = 0; confidential < 2; confidential++) {
        struct pair p;
        open_pair(&p, AES256_SHA1);
        assert_true(krb_seal_wrap(p.client, confidential, STR("DATA\r\n"), &p.token));
        bool c;
        for (size_t i = 0; i < p.token.n; i++) {
            if (i == 6 || i == 7)
                continue; /* the rotation is not protected: it only moves octets, and that is noticed */
            p.token.p[i] = (char)(p.token.p[i] ^ 1);
            assert_false(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c));
            p.token.p[i] = (char)(p.token.p[i] ^ 1);
        }
        for (size_t n = 0; n < p.token.n; n++)
            assert_false(krb_seal_unwrap(p.server, str_slice(p.token.p, n), &p.plain, &c));
        assert_int_equal(p.plain.n, 0);
        assert_true(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c));
        assert_false(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c)); /* again */
        assert_false(krb_seal_unwrap(p.client, buf_str(&p.token), &p.plain, &c)); /* reflected */
        close_pair(&p);
    }
}

static void test_order(void **state)
{
    (void)state;
    struct pair p;
    bool c;
    open_pair(&p, AES128_SHA1);
    assert_true(pass(p.client, p.server, &p, true, STR("one")));
    assert_true(krb_seal_wrap(p.client, true, STR("two"), &p.token));
    buf_clear(&p.token);
    assert_true(krb_seal_wrap(p.client, true, STR("three"), &p.token)); /* "two" was lost */
    assert_false(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c));
    close_pair(&p);
    /* The first token may be a little ahead, not far. */
    open_pair(&p, AES128_SHA1);
    for (int i = 0; i < 3; i++) {
        buf_clear(&p.token);
        assert_true(krb_seal_wrap(p.client, true, STR("x"), &p.token));
    }
    assert_true(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c));
    close_pair(&p);
    open_pair(&p, AES128_SHA1);
    for (int i = 0; i < 4; i++) {
        buf_clear(&p.token);
        assert_true(krb_seal_wrap(p.client, true, STR("x"), &p.token));
    }
    assert_false(krb_seal_unwrap(p.server, buf_str(&p.token), &p.plain, &c));
    close_pair(&p);
}

/* Windows rotates by 28: what is sealed lies with its end in front. */
static void test_rotated(void **state)
{
    (void)state;
    struct pair p;
    bool c;
    static const size_t by[] = { 1, 12, 28, 1000 };
    open_pair(&p, AES256_SHA1);
    for (size_t i = 0; i < 4; i++) {
        char turned[200];
        buf_clear(&p.token);
        buf_clear(&p.plain);
        assert_true(krb_seal_wrap(p.client, true, STR("rotated"), &p.token));
        size_t n = p.token.n - 16, r = by[i] % n;
        memcpy(turned, p.token.p, 16);
        memcpy(turned + 16, p.token.p + p.token.n - r, r);
        memcpy(turned + 16 + r, p.token.p + 16, n - r);
        turned[6] = (char)(by[i] >> 8);
        turned[7] = (char)by[i];
        assert_true(krb_seal_unwrap(p.server, str_slice(turned, p.token.n), &p.plain, &c));
        assert_true(str_eq(buf_str(&p.plain), STR("rotated")));
    }
    close_pair(&p);
}

static void test_sizes(void **state)
{
    (void)state;
    static char octets[4096];
    for (int confidential = 0; confidential < 2; confidential++) {
        struct pair p;
        open_pair(&p, AES256_SHA384);
        uint32_t max = krb_seal_plain_max(p.server, confidential, sizeof octets);
        assert_true(max > sizeof octets - 100 && max < sizeof octets);
        assert_true(krb_seal_wrap(p.server, confidential, str_slice(octets, max), &p.token));
        assert_int_equal(p.token.n, sizeof octets);
        assert_int_equal(krb_seal_plain_max(p.server, confidential, 10), 0);
        close_pair(&p);
    }
}

static void test_foreign_states(void **state)
{
    (void)state;
    struct krb_seal *made;
    struct err err;
    struct buf b;
    buf_init(&b, KRB_SEAL_STATE_MAX);
    put_state(&b, 0, 1, 1, RC4);
    assert_int_equal(krb_seal_new(buf_str(&b), &made, &err), ERR_SYNTAX);
    buf_clear(&b);
    put_state(&b, 3, 1, 1, AES256_SHA1);
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(krb_seal_new(str_slice(b.p, n), &made, &err), ERR_SYNTAX);
    b.p[0] = 9;
    assert_int_equal(krb_seal_new(buf_str(&b), &made, &err), ERR_SYNTAX);
    buf_done(&b);
}

int main(void)
{
    struct err err;
    if (krb_seal_init(&err) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways), cmocka_unit_test(test_damage),  cmocka_unit_test(test_order),
        cmocka_unit_test(test_rotated),   cmocka_unit_test(test_sizes),   cmocka_unit_test(test_foreign_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
