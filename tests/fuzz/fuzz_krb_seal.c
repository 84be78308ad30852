/* A security layer of Kerberos against its peer. Octet 0: 1 and 2 the encryption type, 4 encrypted, 8 the rest is a token
 * as it is, 16 the rest is a state. Otherwise the rest from octet 4 is wrapped, octets 1 and 2 say which octet of the token
 * is changed on the way, and octet 3 how: with 0 it must arrive as it was, and not otherwise. */
#include "kerberos/seal.h"

#include <assert.h>

#include "base/wire.h"

enum { TOKEN_MAX = 1 << 20, ROTATION_AT = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct krb_seal *seal_of(struct str state)
{
    struct krb_seal *seal;
    struct err err;
    if (krb_seal_init(&err) < 0)
        return NULL;
    return krb_seal_new(state, &seal, &err) == 0 ? seal : NULL;
}

static struct krb_seal *make(bool initiator, unsigned type)
{
    static const struct {
        uint32_t number;
        size_t key_bytes;
    } types[] = { { 17, 16 }, { 18, 32 }, { 19, 16 }, { 20, 32 } };
    static const char key[32] = "an octet string of thirty-two oc";
    struct buf state;
    buf_init(&state, KRB_SEAL_STATE_MAX);
    wire_put_u8(&state, 1);
    wire_put_u8(&state, initiator ? 3 : 2);
    wire_put_u64(&state, initiator ? 100 : 700);
    wire_put_u64(&state, initiator ? 700 : 100);
    wire_put_u32(&state, types[type].number);
    wire_put_str(&state, str_slice(key, types[type].key_bytes));
    struct krb_seal *seal = seal_of(buf_str(&state));
    buf_done(&state);
    assert(seal);
    return seal;
}

/* Whatever comes out of what nobody with the key has made is a mistake. */
static void take_token(struct krb_seal *seal, struct str token)
{
    struct buf plain;
    bool confidential;
    buf_init(&plain, TOKEN_MAX);
    assert(!krb_seal_unwrap(seal, token, &plain, &confidential));
    assert(plain.n == 0);
    buf_done(&plain);
}

static void take_state(struct str octets)
{
    struct krb_seal *seal = seal_of(octets);
    struct buf token;
    buf_init(&token, TOKEN_MAX);
    if (seal) {
        assert(krb_seal_wrap(seal, true, STR("x"), &token));
        take_token(seal, buf_str(&token)); /* our own, sent back */
        assert(krb_seal_plain_max(seal, true, 65536) < 65536);
    }
    krb_seal_free(&seal);
    buf_done(&token);
}

static void pass(unsigned type, bool confidential, const uint8_t *data, size_t n)
{
    struct krb_seal *client = make(true, type), *server = make(false, type);
    struct buf token, plain;
    struct str text = str_slice(data + 3, n - 3);
    bool was_confidential;
    buf_init(&token, TOKEN_MAX);
    buf_init(&plain, TOKEN_MAX);
    assert(krb_seal_wrap(client, confidential, text, &token));
    assert(text.n <= krb_seal_plain_max(client, confidential, (uint32_t)token.n));
    size_t at = ((size_t)data[0] << 8 | data[1]) % token.n;
    token.p[at] = (char)(token.p[at] ^ data[2]);
    bool ok = krb_seal_unwrap(server, buf_str(&token), &plain, &was_confidential);
    if (data[2] == 0)
        assert(ok && was_confidential == confidential && str_eq(buf_str(&plain), text));
    else if (at != ROTATION_AT && at != ROTATION_AT + 1) /* it is not protected, and a whole turn changes nothing */
        assert(!ok);
    if (ok)
        assert(str_eq(buf_str(&plain), text));
    krb_seal_free(&client);
    krb_seal_free(&server);
    buf_done(&token);
    buf_done(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0 || n > 70000)
        return 0;
    struct str rest = str_slice(data + 1, n - 1);
    if (data[0] & 16) {
        take_state(rest);
    } else if (data[0] & 8) {
        struct krb_seal *seal = make(false, data[0] & 3);
        take_token(seal, rest);
        krb_seal_free(&seal);
    } else if (n >= 4) {
        pass(data[0] & 3, (data[0] & 4) != 0, data + 1, n - 1);
    }
    return 0;
}
