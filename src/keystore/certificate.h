/* certificate: loads certificate chains and private keys from PEM and says what is wrong with them, one
 * sentence a fault that names the file. `postern check` and master use it before anything else does.
 *
 * `file` in these calls is only for the sentences. Files are read from the start whatever the
 * descriptor's offset is, 1 MiB at most; octets that may hold a private key are wiped. Callers free keys
 * with EVP_PKEY_free(). No clock is read: the time comes in. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct evp_pkey_st;
struct certificate;

enum { CERTIFICATE_FILE_MAX = 1024 * 1024, CERTIFICATE_CHAIN_MAX = 16, CERTIFICATE_NAME_BYTES = 256 };

/* A whole file into `pem`, whose cap should be CERTIFICATE_FILE_MAX; wipe it with buf_wipe(). */
int certificate_read_fd(int fd, const char *file, struct buf *pem, struct err *err);

/* The chain in a PEM text, own certificate first; other blocks (a key) are passed over. */
int certificate_load(struct str pem, const char *file, struct certificate **ret_certificate, struct err *err);
void certificate_free(struct certificate **certificate);
/* The private key in a PEM text; other blocks are passed over. */
int certificate_key_load(struct str pem, const char *file, struct evp_pkey_st **ret_key, struct err *err);
/* NULL is fine. */
void certificate_key_free(struct evp_pkey_st **key);
int certificate_key_load_fd(int fd, const char *file, struct evp_pkey_st **ret_key, struct err *err);

/* ERR_CONFIG unless `key` is the private half of the certificate's key. */
int certificate_key_matches(const struct certificate *certificate, const char *file, const struct evp_pkey_st *key,
                            const char *key_file, struct err *err);

enum certificate_fault { CERTIFICATE_WARNING, CERTIFICATE_MISTAKE /* TLS would not work */ };

/* Calls `found` for each fault: key type and size, order of the chain, dates, names. `server` is the name
 * that clients expect; NULL: names are not looked at. Returns the number of mistakes. */
unsigned certificate_check(const struct certificate *certificate, const char *file, const char *server,
                           int64_t wall_ms,
                           void (*found)(void *arg, enum certificate_fault fault, const char *text), void *arg);

/* For reports. Times in milliseconds since 1970. */
struct certificate_info {
    int64_t not_before_ms, not_after_ms;
    char names[1024];      /* DNS names and addresses, separated by spaces */
    char key[32];          /* "EC P-256", "RSA 2048" */
};
void certificate_describe(const struct certificate *certificate, struct certificate_info *ret_info);
