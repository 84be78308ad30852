/* ntlm_crypto: the hashes, responses and keys of NTLM (MS-NLMP sections 3.3 and 3.4).
 *
 * MD4, RC4 and DES come from OpenSSL's legacy provider, in a library context of their own, so that nothing else in the
 * program can use them by accident. ntlm_crypto_init() loads them: call it once per process, before the sandbox and
 * before threads. Without it, or where the provider is missing, all of this fails. Functions return false only then,
 * or when memory runs out. Keys and hashes are the caller's to wipe. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "sasl/ntlm.h"

/* 0; ERR_AUTH: OpenSSL's legacy provider is not there. May be called again: then it only says how the first went. */
int ntlm_crypto_init(struct err *err);
bool ntlm_crypto_ready(void);

bool ntlm_crypto_md5(struct str data, unsigned char ret_hash[NTLM_HASH_BYTES]);
/* HMAC-MD5 over up to three parts. */
bool ntlm_crypto_hmac(struct str key, struct str a, struct str b, struct str c, unsigned char ret_mac[NTLM_HASH_BYTES]);

/* RC4 with its key stream kept between calls. */
struct evp_cipher_ctx_st;
struct ntlm_rc4 {
    struct evp_cipher_ctx_st *ctx;
};
bool ntlm_crypto_rc4_begin(struct ntlm_rc4 *rc4, struct str key); /* also again: from the key's start */
bool ntlm_crypto_rc4(struct ntlm_rc4 *rc4, struct str in, unsigned char *out);
void ntlm_crypto_rc4_end(struct ntlm_rc4 *rc4);
bool ntlm_crypto_rc4_once(struct str key, struct str in, unsigned char *out);

/* MD4 of the password (UTF-8 here) in UTF-16LE: what the user store keeps for NTLM. As good as the password.
 * False also when the password is no UTF-8. */
bool ntlm_crypto_nt_hash(struct str password, unsigned char ret_hash[NTLM_HASH_BYTES]);
/* NTOWFv2. */
bool ntlm_crypto_ntowf2(const unsigned char nt_hash[NTLM_HASH_BYTES], struct str user, struct str domain,
                        unsigned char ret_key[NTLM_HASH_BYTES]);
/* The 24 octets of DESL(nt_hash, challenge): the NT response of version 1. */
bool ntlm_crypto_response1(const unsigned char nt_hash[NTLM_HASH_BYTES], struct str challenge, unsigned char ret_response[24]);
/* NTProofStr over the server's challenge and the client's blob. */
bool ntlm_crypto_proof2(const unsigned char ntowf2[NTLM_HASH_BYTES], struct str challenge, struct str blob,
                        unsigned char ret_proof[NTLM_HASH_BYTES]);

/* Verifies a proof against a stored hash: 1 = right, 0 = wrong, negative = could not tell. The domain is taken as it was
 * sent, in upper case, and empty, as Windows does. With 1 the session base key is for sasl_server_ntlm(). */
int ntlm_crypto_check(const struct ntlm_proof *proof, const unsigned char nt_hash[NTLM_HASH_BYTES],
                      unsigned char ret_session_base_key[NTLM_HASH_BYTES], struct err *err);

/* Key exchange key (KXKEY). `server_challenge` is the one sent, `lm_response` as received; both matter to version 1 only. */
bool ntlm_crypto_exchange_key(unsigned version, uint32_t flags, const unsigned char session_base_key[NTLM_HASH_BYTES],
                              struct str server_challenge, struct str lm_response,
                              unsigned char ret_key[NTLM_HASH_BYTES]);
/* HMAC-MD5 over the three messages; the third with zeros in its MIC (`authenticate` is not changed). */
bool ntlm_crypto_mic(const unsigned char exported_key[NTLM_HASH_BYTES], struct str negotiate, struct str challenge,
                     struct str authenticate, unsigned char ret_mic[NTLM_HASH_BYTES]);
/* MsvAvChannelBindings: MD5 over RFC 4121 section 4.1.1.2 with the application data `prefix` + `data`
 * ("tls-server-end-point:" and the certificate's hash). */
bool ntlm_crypto_binding(const char *prefix, struct str data, unsigned char ret_hash[NTLM_HASH_BYTES]);
