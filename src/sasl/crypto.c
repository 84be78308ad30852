#include "sasl/crypto.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

bool crypto_hash(struct str data, unsigned char ret_hash[SASL_KEY_BYTES])
{
    return EVP_Digest(data.p, data.n, ret_hash, NULL, EVP_sha256(), NULL) == 1;
}

bool crypto_hmac(struct str key, struct str data, unsigned char ret_mac[SASL_KEY_BYTES])
{
    if (key.n > INT_MAX)
        return false;
    return HMAC(EVP_sha256(), key.n ? key.p : "", (int)key.n, (const unsigned char *)data.p, data.n, ret_mac, NULL) != NULL;
}

bool crypto_stretch(struct str password, struct str salt, uint32_t iterations, unsigned char ret_key[SASL_KEY_BYTES])
{
    if (password.n > INT_MAX || salt.n > INT_MAX || iterations == 0 || iterations > INT_MAX)
        return false;
    return PKCS5_PBKDF2_HMAC(password.n ? password.p : "", (int)password.n, (const unsigned char *)salt.p, (int)salt.n,
                             (int)iterations, EVP_sha256(), SASL_KEY_BYTES, ret_key) == 1;
}
