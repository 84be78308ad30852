/* provider: private keys that are not here, for OpenSSL.
 *
 * A built-in OpenSSL provider "postern" knows keys that consist of a public half and a name. A signature
 * with such a key asks a struct signer (sign.h) and pauses the OpenSSL job it runs in (ASYNC_pause_job)
 * until the answer is there; then it calls the job's own callback (ASYNC_WAIT_CTX_set_callback, which is
 * what SSL_set_async_callback sets), so that who runs the job can resume it. A job that is resumed before
 * its answer was given up: the signature fails and the signer is told to forget it. Outside a job only a
 * signer that answers at once can be used.
 *
 * Limits: the key signs whole messages (digest_sign) for TLS. It decrypts nothing, so suites with static
 * RSA must be switched off (!kRSA). */
#pragma once
#include "keystore/sign.h"

/* Loads the default provider and ours, once per process, before a sandbox. May be called again. */
int provider_init(struct err *err);
/* A key whose public half is that of the first certificate in `certificate_pem`; sign_key_name() says how
 * requests call it. `signer` stays the caller's and must outlive the key. Free with EVP_PKEY_free(). */
int provider_key_new(const char *server, struct str certificate_pem, const struct signer *signer,
                     struct evp_pkey_st **ret_key, struct err *err);
