/* crypto: the three functions of SHA-256 that SCRAM is made of. All return false only when the crypto
 * library fails (out of memory, no such algorithm). */
#pragma once
#include "sasl/sasl.h"

bool crypto_hash(struct str data, unsigned char ret_hash[SASL_KEY_BYTES]);
bool crypto_hmac(struct str key, struct str data, unsigned char ret_mac[SASL_KEY_BYTES]);
/* RFC 5802's Hi(): PBKDF2 with HMAC-SHA-256 and one block. */
bool crypto_stretch(struct str password, struct str salt, uint32_t iterations, unsigned char ret_key[SASL_KEY_BYTES]);
