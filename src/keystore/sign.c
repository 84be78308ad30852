#include "keystore/sign.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

enum { FINGERPRINT_BYTES = 8 };

static const struct {
    struct str alias; /* as OpenSSL 3 calls it */
    const char *name;
} digests[] = {
    { { "SHA2-256", 8 }, "SHA256" },
    { { "SHA2-384", 8 }, "SHA384" },
    { { "SHA2-512", 8 }, "SHA512" },
    { { "SHA1", 4 }, "SHA1" },
    { { "MD5-SHA1", 8 }, "MD5-SHA1" },
};

const char *sign_digest_name(struct str digest)
{
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++)
        if (str_eq_nocase(digest, digests[i].alias) || str_eq_nocase(digest, str_of(digests[i].name)))
            return digests[i].name;
    return NULL;
}

/* Hashes a number, not an encoding: the same point can be written in two ways. */
static bool sign_fingerprint(const EVP_PKEY *key, unsigned char ret_digest[EVP_MAX_MD_SIZE])
{
    unsigned char octets[2048];
    BIGNUM *number = NULL;
    bool rsa = EVP_PKEY_is_a(key, "RSA");
    if (!EVP_PKEY_get_bn_param(key, rsa ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_EC_PUB_X, &number))
        return false;
    int n = BN_num_bytes(number);
    bool ok = n <= (int)sizeof octets && BN_bn2bin(number, octets) == n &&
              EVP_Digest(octets, (size_t)n, ret_digest, NULL, EVP_sha256(), NULL);
    BN_free(number);
    return ok;
}

int sign_key_name(const char *server, const struct evp_pkey_st *key, char ret_name[SIGN_KEY_NAME_BYTES],
                  struct err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t n = strlen(server);
    ret_name[0] = 0;
    if (n + 1 + 2 * FINGERPRINT_BYTES >= SIGN_KEY_NAME_BYTES)
        return err_set(err, ERR_LIMIT, "the server name %.40s… is too long for the name of a key", server);
    if (!sign_fingerprint(key, digest)) {
        ERR_clear_error();
        return err_set(err, ERR_TLS, "the key of %s is neither EC nor RSA; make one with P-256", server);
    }
    n = (size_t)snprintf(ret_name, SIGN_KEY_NAME_BYTES, "%s/", server);
    for (size_t i = 0; i < FINGERPRINT_BYTES; i++)
        n += (size_t)snprintf(ret_name + n, SIGN_KEY_NAME_BYTES - n, "%02x", digest[i]);
    return 0;
}

static bool sign_padded(EVP_PKEY_CTX *ctx, const struct sign_request *request)
{
    return request->padding != SIGN_PADDING_PSS ||
           (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 &&
            EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) > 0);
}

int sign_in_process(struct evp_pkey_st *key, const struct sign_request *request, struct buf *signature,
                    struct err *err)
{
    const char *digest = sign_digest_name(request->digest);
    bool rsa = EVP_PKEY_is_a(key, "RSA");
    if (!digest)
        return err_set(err, ERR_DENIED, "a signature with the digest \"%.*s\" was asked for, which TLS does not use",
                       STR_ARG(request->digest));
    if (!rsa && (request->padding != SIGN_PADDING_PKCS1 || !EVP_PKEY_is_a(key, "EC")))
        return err_set(err, ERR_DENIED, "a padding or key type that does not fit was asked for");
    if (request->data.n > SIGN_DATA_MAX)
        return err_set(err, ERR_DENIED, "%zu octets to sign are more than a handshake has", request->data.n);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *ctx = NULL; /* belongs to md */
    size_t n = SIGN_SIGNATURE_MAX;
    char *at = buf_reserve(signature, n);
    int rc = 0;
    if (!md || !at)
        rc = err_set(err, -ENOMEM, "no memory for a signature");
    else if (EVP_DigestSignInit_ex(md, &ctx, digest, NULL, NULL, key, NULL) <= 0 || !sign_padded(ctx, request) ||
             EVP_DigestSign(md, (unsigned char *)at, &n, (const unsigned char *)request->data.p, request->data.n) <= 0)
        rc = err_set(err, ERR_TLS, "the key could not sign: %s", ERR_reason_error_string(ERR_peek_last_error()));
    else
        signature->n += n;
    ERR_clear_error();
    EVP_MD_CTX_free(md);
    return rc;
}
