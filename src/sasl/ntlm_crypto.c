#include "sasl/ntlm_crypto.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>

#include "base/secret.h"
#include "sasl/ntlm_message.h"
#include "sasl/ntlm_text.h"

/* Made once; then only read. */
static struct {
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *legacy, *usual;
    EVP_MD *md4, *md5;
    EVP_CIPHER *rc4, *des;
    EVP_MAC *hmac;
    bool ready;
} own;

static const char zeros[NTLM_HASH_BYTES];

static bool digest(EVP_MD *md, struct str data, unsigned char ret_hash[NTLM_HASH_BYTES])
{
    return md && EVP_Digest(data.n ? data.p : "", data.n, ret_hash, NULL, md, NULL) == 1;
}

static bool hmac(struct str key, const struct str *parts, size_t n, unsigned char ret_mac[NTLM_HASH_BYTES])
{
    OSSL_PARAM md5[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "MD5" }, 0), OSSL_PARAM_END };
    EVP_MAC_CTX *ctx = own.hmac ? EVP_MAC_CTX_new(own.hmac) : NULL;
    size_t got = 0;
    bool ok = ctx && EVP_MAC_init(ctx, (const unsigned char *)(key.n ? key.p : ""), key.n, md5) == 1;
    for (size_t i = 0; i < n && ok; i++)
        ok = parts[i].n == 0 || EVP_MAC_update(ctx, (const unsigned char *)parts[i].p, parts[i].n) == 1;
    ok = ok && EVP_MAC_final(ctx, ret_mac, &got, NTLM_HASH_BYTES) == 1 && got == NTLM_HASH_BYTES;
    EVP_MAC_CTX_free(ctx);
    return ok;
}

/* One use of each, so that nothing is left to be loaded behind a sandbox; the answer is published (MS-NLMP 4.2.2). */
static bool try_all(void)
{
    static const unsigned char want[24] = { 0x67, 0xc4, 0x30, 0x11, 0xf3, 0x02, 0x98, 0xa2, 0xad, 0x35, 0xec, 0xe6,
                                            0x4f, 0x16, 0x33, 0x1c, 0x44, 0xbd, 0xbe, 0xd9, 0x27, 0x84, 0x1f, 0x94 };
    unsigned char hash[NTLM_HASH_BYTES], other[NTLM_HASH_BYTES], response[24];
    struct str key = str_slice(hash, sizeof hash);
    return ntlm_crypto_nt_hash(STR("Password"), hash) &&
           ntlm_crypto_response1(hash, STR("\x01\x23\x45\x67\x89\xab\xcd\xef"), response) &&
           memcmp(response, want, sizeof want) == 0 && digest(own.md5, key, other) && hmac(key, &key, 1, other) &&
           ntlm_crypto_rc4_once(key, key, other);
}

static void load(void)
{
    own.library = OSSL_LIB_CTX_new();
    if (!own.library)
        return;
    own.legacy = OSSL_PROVIDER_load(own.library, "legacy");
    own.usual = OSSL_PROVIDER_load(own.library, "default");
    own.md4 = EVP_MD_fetch(own.library, "MD4", NULL);
    own.md5 = EVP_MD_fetch(own.library, "MD5", NULL);
    own.rc4 = EVP_CIPHER_fetch(own.library, "RC4", NULL);
    own.des = EVP_CIPHER_fetch(own.library, "DES-ECB", NULL);
    own.hmac = EVP_MAC_fetch(own.library, "HMAC", NULL);
    own.ready = own.md4 && own.md5 && own.rc4 && own.des && own.hmac && try_all();
}

int ntlm_crypto_init(struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return own.ready ? 0 : err_set(err, ERR_AUTH, "NTLM needs MD4, RC4 and DES of OpenSSL's legacy provider, which cannot be"
                                   " loaded: is ossl-modules/legacy.so there? (`openssl list -providers -provider legacy`)");
}

bool ntlm_crypto_ready(void)
{
    return own.ready;
}

bool ntlm_crypto_md5(struct str data, unsigned char ret_hash[NTLM_HASH_BYTES])
{
    return digest(own.md5, data, ret_hash);
}

bool ntlm_crypto_hmac(struct str key, struct str a, struct str b, struct str c, unsigned char ret_mac[NTLM_HASH_BYTES])
{
    struct str parts[] = { a, b, c };
    return hmac(key, parts, 3, ret_mac);
}

bool ntlm_crypto_rc4_begin(struct ntlm_rc4 *rc4, struct str key)
{
    if (!rc4->ctx)
        rc4->ctx = EVP_CIPHER_CTX_new();
    return rc4->ctx && own.rc4 && key.n == NTLM_HASH_BYTES &&
           EVP_EncryptInit_ex2(rc4->ctx, own.rc4, (const unsigned char *)key.p, NULL, NULL) == 1;
}

bool ntlm_crypto_rc4(struct ntlm_rc4 *rc4, struct str in, unsigned char *out)
{
    int n = 0;
    if (in.n == 0)
        return rc4->ctx != NULL;
    return rc4->ctx && in.n <= INT_MAX &&
           EVP_EncryptUpdate(rc4->ctx, out, &n, (const unsigned char *)in.p, (int)in.n) == 1 && (size_t)n == in.n;
}

void ntlm_crypto_rc4_end(struct ntlm_rc4 *rc4)
{
    EVP_CIPHER_CTX_free(rc4->ctx); /* wipes */
    rc4->ctx = NULL;
}

bool ntlm_crypto_rc4_once(struct str key, struct str in, unsigned char *out)
{
    struct ntlm_rc4 rc4 = { 0 };
    bool ok = ntlm_crypto_rc4_begin(&rc4, key) && ntlm_crypto_rc4(&rc4, in, out);
    ntlm_crypto_rc4_end(&rc4);
    return ok;
}

bool ntlm_crypto_nt_hash(struct str password, unsigned char ret_hash[NTLM_HASH_BYTES])
{
    struct buf wide;
    buf_init(&wide, 8192);
    bool ok = ntlm_text_encode(password, &wide) && digest(own.md4, buf_str(&wide), ret_hash);
    buf_wipe(&wide);
    return ok;
}

static bool ntowf2(const unsigned char nt_hash[NTLM_HASH_BYTES], struct str user, struct str domain, bool upper_domain,
                   unsigned char ret_key[NTLM_HASH_BYTES])
{
    struct buf name;
    buf_init(&name, 4 * NTLM_NAME_MAX);
    bool ok = ntlm_text_encode_upper(user, &name) &&
              (upper_domain ? ntlm_text_encode_upper(domain, &name) : ntlm_text_encode(domain, &name));
    struct str text = buf_str(&name);
    ok = ok && hmac(str_slice(nt_hash, NTLM_HASH_BYTES), &text, 1, ret_key);
    buf_done(&name);
    return ok;
}

bool ntlm_crypto_ntowf2(const unsigned char nt_hash[NTLM_HASH_BYTES], struct str user, struct str domain,
                        unsigned char ret_key[NTLM_HASH_BYTES])
{
    return ntowf2(nt_hash, user, domain, false, ret_key);
}

/* DES with a key of 56 bits, spread over eight octets with room for parity. */
static bool des(const unsigned char key[7], struct str block, unsigned char out[8])
{
    unsigned char spread[8];
    for (unsigned i = 0; i < 8; i++) {
        unsigned high = i > 0 ? (unsigned)key[i - 1] << (8 - i) : 0, low = i < 7 ? (unsigned)key[i] >> i : 0;
        spread[i] = (unsigned char)((high | low) & 0xfe);
    }
    int n = 0;
    EVP_CIPHER_CTX *ctx = own.des ? EVP_CIPHER_CTX_new() : NULL;
    bool ok = ctx && EVP_EncryptInit_ex2(ctx, own.des, spread, NULL, NULL) == 1 && EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
              EVP_EncryptUpdate(ctx, out, &n, (const unsigned char *)block.p, (int)block.n) == 1 && n == 8;
    EVP_CIPHER_CTX_free(ctx);
    secret_wipe(spread, sizeof spread);
    return ok;
}

bool ntlm_crypto_response1(const unsigned char nt_hash[NTLM_HASH_BYTES], struct str challenge, unsigned char ret_response[24])
{
    unsigned char keys[21] = { 0 };
    bool ok = challenge.n == NTLM_CHALLENGE_BYTES;
    memcpy(keys, nt_hash, NTLM_HASH_BYTES);
    for (size_t i = 0; i < 3 && ok; i++)
        ok = des(keys + 7 * i, challenge, ret_response + 8 * i);
    secret_wipe(keys, sizeof keys);
    return ok;
}

bool ntlm_crypto_proof2(const unsigned char ntowf2_key[NTLM_HASH_BYTES], struct str challenge, struct str blob,
                        unsigned char ret_proof[NTLM_HASH_BYTES])
{
    return ntlm_crypto_hmac(str_slice(ntowf2_key, NTLM_HASH_BYTES), challenge, blob, STR_NONE, ret_proof);
}

static int check1(const struct ntlm_proof *proof, const unsigned char nt_hash[NTLM_HASH_BYTES],
                  unsigned char ret_key[NTLM_HASH_BYTES])
{
    unsigned char want[24];
    if (!ntlm_crypto_response1(nt_hash, proof->server_challenge, want))
        return -1;
    bool right = secret_equal(proof->nt_response, str_slice(want, sizeof want));
    secret_wipe(want, sizeof want);
    return !right ? 0 : digest(own.md4, str_slice(nt_hash, NTLM_HASH_BYTES), ret_key) ? 1 : -1;
}

static int check2(const struct ntlm_proof *proof, struct str domain, bool upper_domain,
                  const unsigned char nt_hash[NTLM_HASH_BYTES], unsigned char ret_key[NTLM_HASH_BYTES])
{
    unsigned char key[NTLM_HASH_BYTES], want[NTLM_HASH_BYTES];
    struct str sent = { proof->nt_response.p, NTLM_HASH_BYTES }, own_proof = str_slice(want, sizeof want);
    int result = -1;
    if (ntowf2(nt_hash, proof->user, domain, upper_domain, key) &&
        ntlm_crypto_proof2(key, proof->server_challenge, str_skip(proof->nt_response, NTLM_HASH_BYTES), want))
        result = secret_equal(sent, own_proof) ? 1 : 0;
    if (result == 1 && !hmac(str_slice(key, sizeof key), &own_proof, 1, ret_key))
        result = -1;
    secret_wipe(key, sizeof key);
    secret_wipe(want, sizeof want);
    return result;
}

int ntlm_crypto_check(const struct ntlm_proof *proof, const unsigned char nt_hash[NTLM_HASH_BYTES],
                      unsigned char ret_session_base_key[NTLM_HASH_BYTES], struct err *err)
{
    struct str pairs;
    int result = 0;
    if (proof->version == 1) {
        result = check1(proof, nt_hash, ret_session_base_key);
    } else if (ntlm_message_v2_pairs(proof->nt_response, &pairs)) {
        result = check2(proof, proof->domain, false, nt_hash, ret_session_base_key);
        if (result == 0 && proof->domain.n > 0)
            result = check2(proof, proof->domain, true, nt_hash, ret_session_base_key);
        if (result == 0 && proof->domain.n > 0)
            result = check2(proof, STR_NONE, false, nt_hash, ret_session_base_key);
    }
    return result >= 0 ? result : err_set(err, ERR_AUTH, "cannot compute an answer of NTLM: OpenSSL failed, or is out of memory");
}

bool ntlm_crypto_exchange_key(unsigned version, uint32_t flags, const unsigned char session_base_key[NTLM_HASH_BYTES],
                              struct str server_challenge, struct str lm_response,
                              unsigned char ret_key[NTLM_HASH_BYTES])
{
    if (version == 1 && (flags & NTLM_ESS)) {
        struct str nonce = { lm_response.p, lm_response.n < NTLM_CHALLENGE_BYTES ? lm_response.n : NTLM_CHALLENGE_BYTES };
        return ntlm_crypto_hmac(str_slice(session_base_key, NTLM_HASH_BYTES), server_challenge, nonce, STR_NONE, ret_key);
    }
    memcpy(ret_key, session_base_key, NTLM_HASH_BYTES);
    return true;
}

bool ntlm_crypto_mic(const unsigned char exported_key[NTLM_HASH_BYTES], struct str negotiate, struct str challenge,
                     struct str authenticate, unsigned char ret_mic[NTLM_HASH_BYTES])
{
    if (authenticate.n < NTLM_AUTHENTICATE_BYTES)
        return false;
    struct str parts[] = { negotiate, challenge, { authenticate.p, NTLM_MIC_AT }, str_slice(zeros, sizeof zeros),
                           str_skip(authenticate, NTLM_AUTHENTICATE_BYTES) };
    return hmac(str_slice(exported_key, NTLM_HASH_BYTES), parts, 5, ret_mic);
}

bool ntlm_crypto_binding(const char *prefix, struct str data, unsigned char ret_hash[NTLM_HASH_BYTES])
{
    struct buf all;
    size_t n = strlen(prefix) + data.n;
    buf_init(&all, 1024);
    /* No addresses: their types and lengths are 0. */
    buf_add(&all, str_slice(zeros, 16));
    for (size_t i = 0; i < 4; i++)
        buf_add_char(&all, (char)(n >> (8 * i)));
    buf_add_c(&all, prefix);
    bool ok = buf_add(&all, data) && digest(own.md5, buf_str(&all), ret_hash);
    buf_done(&all);
    return ok;
}
