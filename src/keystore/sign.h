/* sign: signatures with a key that may be somewhere else.
 *
 * Who needs a signature fills a struct sign_request and a struct sign_waiter and asks a struct signer;
 * the answer comes through waiter->answered, at once or in a later turn of the loop. The daemon's signer
 * (daemon/smtpd/signer.h) asks the keys process; sign_in_process() is what that process does in the end.
 * The octets to be signed are handed over whole, not hashed and not padded: the holder of the key sees
 * what it signs and cannot be used for raw RSA. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct evp_pkey_st;

enum {
    SIGN_DATA_MAX = 16 * 1024,  /* TLS 1.3 signs 130 to 146 octets, TLS 1.2 two randoms and a key share */
    SIGN_SIGNATURE_MAX = 1024,  /* RSA-8192 */
    SIGN_KEY_NAME_BYTES = 256 + 17,
};

/* As in struct ipc_sign. An EC key takes SIGN_PADDING_PKCS1 for "none". */
enum sign_padding { SIGN_PADDING_PKCS1 = 0, SIGN_PADDING_PSS = 1 /* salt as long as the digest */ };

struct sign_request {
    struct str key;            /* name of the key: see sign_key_name() */
    struct str digest;         /* "SHA256", "SHA384", "SHA512"; "SHA1", "MD5-SHA1" for TLS before 1.2 */
    enum sign_padding padding;
    struct str data;
};

/* Belongs to the one who waits and must stay where it is until it was answered or cancelled. */
struct sign_waiter {
    /* Called once; an empty signature means refused or unreachable. The view dies with the call. */
    void (*answered)(struct sign_waiter *waiter, struct str signature);
    void *slot; /* the signer's own */
};

struct signer {
    /* Copies what it needs of `request`. Negative: refused at once, `answered` will not be called. May
     * call `answered` before it returns 0. */
    int (*sign)(void *arg, const struct sign_request *request, struct sign_waiter *waiter);
    /* The waiter goes away: its answer, if one comes, is dropped. */
    void (*cancel)(void *arg, struct sign_waiter *waiter);
    void *arg;
};

/* The name as in struct sign_request ("SHA2-256" is "SHA256"), static; NULL: TLS does not sign with it. */
const char *sign_digest_name(struct str digest);
/* The name of a key: "server/0123456789abcdef", with a fingerprint of its public half. While a renewed key
 * spreads through the processes, both ends still mean the same one. `key` may be the private key or the
 * certificate's public one. ERR_LIMIT when `server` is too long, ERR_TLS for another kind of key. */
int sign_key_name(const char *server, const struct evp_pkey_st *key, char ret_name[SIGN_KEY_NAME_BYTES],
                  struct err *err);
/* One signature with a loaded private key (EC P-256 or RSA); adds it to `signature`. ERR_DENIED for an
 * unknown digest, padding that does not fit the key or too much data; request->key is not looked at. */
int sign_in_process(struct evp_pkey_st *key, const struct sign_request *request, struct buf *signature,
                    struct err *err);
