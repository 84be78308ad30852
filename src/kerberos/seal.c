#include "kerberos/seal.h"

#include "kerberos/seal_state.h"

#include <krb5/krb5.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "base/wire.h"

enum {
    HEADER_BYTES = 16,
    FLAG_ACCEPTOR = 1,       /* sent by the acceptor */
    FLAG_SEALED = 2,
    FLAG_ACCEPTOR_SUBKEY = 4,
    USAGE_ACCEPTOR_SEAL = 22, /* RFC 4121 section 2. Of all wrap tokens: the SIGN usages are for MIC tokens alone */
    USAGE_INITIATOR_SEAL = 24,
    FIRST_AHEAD_MAX = 2, /* RFC 4752's offer or choice, and SPNEGO's mechListMIC */
    KEY_MAX_BYTES = 64,
};

struct krb_seal {
    krb5_key key;
    krb5_cksumtype checksum;
    size_t checksum_bytes;
    bool initiator, acceptor_subkey, received_any;
    uint64_t send_seq, receive_seq;
};

/* Of the process: the functions used here take it as a handle and read no file. */
static krb5_context context;

int krb_seal_init(struct err *err)
{
    if (context)
        return 0;
    krb5_error_code rc = krb5_init_context(&context);
    if (rc != 0) {
        context = NULL;
        return err_set(err, ERR_AUTH, "the Kerberos library does not start (code %ld): look at krb5.conf", (long)rc);
    }
    return 0;
}

/* The encryption types whose contexts use RFC 4121 tokens, and the checksum that goes with each. */
static const struct {
    krb5_enctype enctype;
    krb5_cksumtype checksum;
} known[] = {
    { ENCTYPE_AES128_CTS_HMAC_SHA1_96, CKSUMTYPE_HMAC_SHA1_96_AES128 },
    { ENCTYPE_AES256_CTS_HMAC_SHA1_96, CKSUMTYPE_HMAC_SHA1_96_AES256 },
    { ENCTYPE_AES128_CTS_HMAC_SHA256_128, CKSUMTYPE_HMAC_SHA256_128_AES128 },
    { ENCTYPE_AES256_CTS_HMAC_SHA384_192, CKSUMTYPE_HMAC_SHA384_192_AES256 },
};

bool krb_seal_knows(uint32_t enctype)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].enctype == (krb5_enctype)enctype)
            return true;
    return false;
}

static bool take_key(struct krb_seal *seal, uint32_t type, struct str octets)
{
    size_t seed_bytes = 0, key_bytes = 0, i = 0;
    while (i < sizeof known / sizeof known[0] && known[i].enctype != (krb5_enctype)type)
        i++;
    if (i == sizeof known / sizeof known[0])
        return false;
    seal->checksum = known[i].checksum;
    krb5_keyblock block = { .enctype = known[i].enctype, .length = (unsigned)octets.n,
                            .contents = (krb5_octet *)(uintptr_t)octets.p };
    return krb5_c_keylengths(context, known[i].enctype, &seed_bytes, &key_bytes) == 0 && octets.n == key_bytes &&
           krb5_c_checksum_length(context, seal->checksum, &seal->checksum_bytes) == 0 &&
           krb5_k_create_key(context, &block, &seal->key) == 0;
}

int krb_seal_new(struct str state, struct krb_seal **ret_seal, struct err *err)
{
    struct wire w = wire_of(state);
    struct krb_seal *seal = context ? calloc(1, sizeof *seal) : NULL;
    *ret_seal = NULL;
    if (!seal)
        return err_errno(err, ENOMEM, "security layer");
    uint8_t version = wire_get_u8(&w), flags = wire_get_u8(&w);
    seal->initiator = flags & 1;
    seal->acceptor_subkey = flags & 2;
    seal->send_seq = wire_get_u64(&w);
    seal->receive_seq = wire_get_u64(&w);
    uint32_t type = wire_get_u32(&w);
    struct str key = wire_get_str(&w, KEY_MAX_BYTES);
    if (!wire_end(&w) || version != KRB_SEAL_STATE_VERSION || flags > 3 || !take_key(seal, type, key)) {
        krb_seal_free(&seal);
        return err_set(err, ERR_SYNTAX, "the state of a security layer is not what was exported");
    }
    *ret_seal = seal;
    return 0;
}

void krb_seal_free(struct krb_seal **seal)
{
    if (!*seal)
        return;
    krb5_k_free_key(context, (*seal)->key);
    free(*seal);
    *seal = NULL;
}

static void put_header(unsigned char h[HEADER_BYTES], unsigned flags, size_t ec, uint64_t seq)
{
    h[0] = 0x05;
    h[1] = 0x04;
    h[2] = (unsigned char)flags;
    h[3] = 0xff;
    h[4] = (unsigned char)(ec >> 8);
    h[5] = (unsigned char)ec;
    h[6] = h[7] = 0; /* RRC: we never rotate */
    for (int i = 0; i < 8; i++)
        h[8 + i] = (unsigned char)(seq >> (56 - 8 * i));
}

static krb5_keyusage usage(bool by_initiator)
{
    return by_initiator ? USAGE_INITIATOR_SEAL : USAGE_ACCEPTOR_SEAL;
}

static krb5_data data_of(struct str s)
{
    return (krb5_data){ .length = (unsigned)s.n, .data = (char *)(uintptr_t)s.p };
}

/* E(plain | header): section 4.2.4. */
static bool encrypt(struct krb_seal *seal, struct str plain, const unsigned char header[HEADER_BYTES], struct buf *out)
{
    size_t n = 0;
    krb5_enctype enctype = krb5_k_key_enctype(context, seal->key);
    char *input = malloc(plain.n + HEADER_BYTES);
    bool ok = input && krb5_c_encrypt_length(context, enctype, plain.n + HEADER_BYTES, &n) == 0 && n < UINT32_MAX;
    char *room = ok ? buf_reserve(out, n) : NULL;
    if (room) {
        if (plain.n > 0)
            memcpy(input, plain.p, plain.n);
        memcpy(input + plain.n, header, HEADER_BYTES);
        krb5_data in = data_of(str_slice(input, plain.n + HEADER_BYTES));
        krb5_enc_data cipher = { .enctype = enctype, .ciphertext = { .length = (unsigned)n, .data = room } };
        ok = krb5_k_encrypt(context, seal->key, usage(seal->initiator), NULL, &in, &cipher) == 0;
        if (ok)
            out->n += cipher.ciphertext.length;
    }
    if (input)
        secret_wipe(input, plain.n + HEADER_BYTES);
    free(input);
    return ok && room;
}

/* Of plain | header with EC and RRC zero. */
static bool sum(struct krb_seal *seal, bool by_initiator, struct str plain, const unsigned char header[HEADER_BYTES],
                const krb5_data *expected, struct buf *out)
{
    unsigned char zeroed[HEADER_BYTES];
    memcpy(zeroed, header, HEADER_BYTES);
    memset(zeroed + 4, 0, 4);
    krb5_crypto_iov iov[3] = {
        { .flags = KRB5_CRYPTO_TYPE_DATA, .data = data_of(plain) },
        { .flags = KRB5_CRYPTO_TYPE_DATA, .data = data_of(str_slice((const char *)zeroed, HEADER_BYTES)) },
        { .flags = KRB5_CRYPTO_TYPE_CHECKSUM },
    };
    if (expected) {
        krb5_boolean valid = 0;
        iov[2].data = *expected;
        return krb5_k_verify_checksum_iov(context, seal->checksum, seal->key, usage(by_initiator), iov, 3,
                                          &valid) == 0 &&
               valid;
    }
    char *room = buf_reserve(out, seal->checksum_bytes);
    iov[2].data = (krb5_data){ .length = (unsigned)seal->checksum_bytes, .data = room };
    if (!room || krb5_k_make_checksum_iov(context, seal->checksum, seal->key, usage(by_initiator), iov, 3) != 0)
        return false;
    out->n += seal->checksum_bytes;
    return true;
}

bool krb_seal_wrap(struct krb_seal *seal, bool confidential, struct str plain, struct buf *ret_token)
{
    unsigned char header[HEADER_BYTES];
    unsigned flags = (seal->initiator ? 0u : FLAG_ACCEPTOR) | (confidential ? FLAG_SEALED : 0u) |
                     (seal->acceptor_subkey ? FLAG_ACCEPTOR_SUBKEY : 0u);
    put_header(header, flags, confidential ? 0 : seal->checksum_bytes, seal->send_seq);
    bool ok = buf_add(ret_token, str_slice((const char *)header, HEADER_BYTES));
    if (confidential)
        ok = ok && encrypt(seal, plain, header, ret_token);
    else
        ok = ok && buf_add(ret_token, plain) && sum(seal, seal->initiator, plain, header, NULL, ret_token);
    seal->send_seq++;
    return ok;
}

static bool take_sequence(struct krb_seal *seal, const unsigned char header[HEADER_BYTES])
{
    uint64_t seq = 0;
    for (int i = 0; i < 8; i++)
        seq = seq << 8 | header[8 + i];
    uint64_t ahead = seq - seal->receive_seq;
    if (ahead > (seal->received_any ? 0 : FIRST_AHEAD_MAX))
        return false;
    seal->received_any = true;
    seal->receive_seq = seq + 1;
    return true;
}

/* Undoes the sender's rotation to the right (section 4.2.5). */
static void rotate_back(const char *from, size_t n, size_t rrc, char *to)
{
    size_t left = n ? rrc % n : 0;
    memcpy(to, from + left, n - left);
    memcpy(to + n - left, from, left);
}

static bool decrypt(struct krb_seal *seal, char *body, size_t n, const unsigned char header[HEADER_BYTES], size_t ec,
                    struct buf *ret_plain)
{
    krb5_enctype enctype = krb5_k_key_enctype(context, seal->key);
    krb5_enc_data cipher = { .enctype = enctype, .ciphertext = { .length = (unsigned)n, .data = body } };
    char *room = malloc(n);
    krb5_data plain = { .length = (unsigned)n, .data = room };
    unsigned char expected[HEADER_BYTES];
    memcpy(expected, header, HEADER_BYTES);
    expected[6] = expected[7] = 0;
    bool ok = room && krb5_k_decrypt(context, seal->key, usage(!seal->initiator), NULL, &cipher, &plain) == 0 &&
              plain.length >= HEADER_BYTES + ec &&
              memcmp(room + plain.length - HEADER_BYTES, expected, HEADER_BYTES) == 0 &&
              buf_add(ret_plain, str_slice(room, plain.length - HEADER_BYTES - ec));
    if (room)
        secret_wipe(room, n);
    free(room);
    return ok;
}

static bool open_token(struct krb_seal *seal, const unsigned char header[HEADER_BYTES], char *body, size_t n,
                       struct buf *ret_plain)
{
    size_t ec = (size_t)header[4] << 8 | header[5];
    if (header[2] & FLAG_SEALED)
        return decrypt(seal, body, n, header, ec, ret_plain);
    if (ec != seal->checksum_bytes || n < ec)
        return false;
    krb5_data checksum = data_of(str_slice(body + n - ec, ec));
    struct str plain = str_slice(body, n - ec);
    return sum(seal, !seal->initiator, plain, header, &checksum, NULL) && buf_add(ret_plain, plain);
}

bool krb_seal_unwrap(struct krb_seal *seal, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    if (token.n < HEADER_BYTES || token.n > UINT32_MAX / 2)
        return false;
    const unsigned char *header = (const unsigned char *)token.p;
    unsigned flags = (seal->initiator ? FLAG_ACCEPTOR : 0u) | (seal->acceptor_subkey ? FLAG_ACCEPTOR_SUBKEY : 0u);
    if (header[0] != 0x05 || header[1] != 0x04 || header[3] != 0xff || (header[2] & ~(unsigned)FLAG_SEALED) != flags)
        return false;
    size_t n = token.n - HEADER_BYTES, rrc = (size_t)header[6] << 8 | header[7];
    char *body = malloc(n + 1);
    if (!body)
        return false;
    rotate_back(token.p + HEADER_BYTES, n, rrc, body);
    *ret_confidential = header[2] & FLAG_SEALED;
    bool ok = open_token(seal, header, body, n, ret_plain) && take_sequence(seal, header);
    secret_wipe(body, n);
    free(body);
    return ok;
}

uint32_t krb_seal_plain_max(const struct krb_seal *seal, bool confidential, uint32_t token_max)
{
    size_t n = 0, around = HEADER_BYTES + seal->checksum_bytes;
    if (confidential) {
        if (krb5_c_encrypt_length(context, krb5_k_key_enctype(context, seal->key), HEADER_BYTES, &n) != 0)
            return 0;
        around = HEADER_BYTES + n;
    }
    return token_max > around ? token_max - (uint32_t)around : 0;
}
