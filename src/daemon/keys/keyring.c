#include "daemon/keys/keyring.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>

#include "base/hash.h"
#include "keystore/certificate.h"

enum { TICKET_KEYS = 3, TICKET_KEY_BYTES = 80 };

struct keyring_key {
    char name[SIGN_KEY_NAME_BYTES];
    EVP_PKEY *key;
    unsigned age; /* complete snapshots that did not name it */
    UT_hash_handle hh;
};

struct keyring {
    struct keyring_key *keys;
    struct secret *tickets;
};

int keyring_new(struct keyring **ret_ring, struct err *err)
{
    *ret_ring = calloc(1, sizeof **ret_ring);
    if (!*ret_ring)
        return err_set(err, -ENOMEM, "no memory for the keys");
    int rc = keyring_rotate_tickets(*ret_ring, err);
    if (rc < 0)
        keyring_free(ret_ring);
    return rc;
}

static void key_free(struct keyring *ring, struct keyring_key *key)
{
    HASH_DEL(ring->keys, key);
    EVP_PKEY_free(key->key);
    free(key);
}

void keyring_free(struct keyring **ring)
{
    if (!*ring)
        return;
    while ((*ring)->keys)
        key_free(*ring, (*ring)->keys);
    secret_free(&(*ring)->tickets);
    free(*ring);
    *ring = NULL;
}

static struct keyring_key *find(const struct keyring *ring, struct str name)
{
    struct keyring_key *key = NULL;
    HASH_FIND(hh, ring->keys, name.p, name.n, key);
    return key;
}

int keyring_load(struct keyring *ring, const char *server, const char *file, int fd, struct err *err)
{
    struct keyring_key *key = calloc(1, sizeof *key);
    if (!key)
        return err_set(err, -ENOMEM, "no memory for the key in %s", file);
    int rc = certificate_key_load_fd(fd, file, &key->key, err);
    if (rc == 0)
        rc = sign_key_name(server, key->key, key->name, err);
    if (rc < 0) {
        EVP_PKEY_free(key->key);
        free(key);
        return rc;
    }
    struct keyring_key *same = find(ring, str_of(key->name));
    if (same)
        key_free(ring, same);
    HASH_ADD_KEYPTR(hh, ring->keys, key->name, strlen(key->name), key);
    if (!hash_has(key)) {
        EVP_PKEY_free(key->key);
        free(key);
        return err_set(err, -ENOMEM, "no memory for the key in %s", file);
    }
    return 0;
}

void keyring_turn(struct keyring *ring)
{
    struct keyring_key *key, *next;
    HASH_ITER(hh, ring->keys, key, next) {
        /* 0 until its own snapshot is complete, 1 while that is the current one, 2 one later. */
        if (++key->age > 2)
            key_free(ring, key);
    }
}

size_t keyring_count(const struct keyring *ring)
{
    return HASH_COUNT(ring->keys);
}

int keyring_sign(struct keyring *ring, const struct sign_request *request, struct buf *signature, struct err *err)
{
    const struct keyring_key *key = find(ring, request->key);
    if (!key)
        return err_set(err, ERR_ABSENT, "there is no key %.*s here", STR_ARG(request->key));
    return sign_in_process(key->key, request, signature, err);
}

int keyring_warm(struct keyring *ring, struct err *err)
{
    static const char *const digests[] = { "SHA256", "SHA384", "SHA512" };
    struct keyring_key *key, *next;
    int rc = 0;
    HASH_ITER(hh, ring->keys, key, next) {
        bool rsa = EVP_PKEY_is_a(key->key, "RSA");
        for (size_t i = 0; i < sizeof digests / sizeof *digests && rc == 0; i++) {
            struct sign_request request = {
                .digest = str_of(digests[i]),
                .padding = rsa ? SIGN_PADDING_PSS : SIGN_PADDING_PKCS1,
                .data = STR("warm"),
            };
            struct buf signature;
            buf_init(&signature, SIGN_SIGNATURE_MAX);
            rc = sign_in_process(key->key, &request, &signature, err);
            buf_done(&signature);
        }
        if (rc < 0)
            return err_wrap(err, rc, "the key %s", key->name);
    }
    return 0;
}

int keyring_rotate_tickets(struct keyring *ring, struct err *err)
{
    unsigned char octets[TICKET_KEYS * TICKET_KEY_BYTES];
    const size_t fresh = ring->tickets ? TICKET_KEY_BYTES : sizeof octets;
    if (RAND_bytes(octets, (int)fresh) <= 0)
        return err_set(err, ERR_TLS, "no random numbers for session-ticket keys");
    if (ring->tickets)
        memcpy(octets + fresh, secret_bytes(ring->tickets).p, sizeof octets - fresh);
    struct secret *tickets = secret_new(str_slice(octets, sizeof octets));
    secret_wipe(octets, sizeof octets);
    if (!tickets)
        return err_set(err, -ENOMEM, "no memory for session-ticket keys");
    secret_free(&ring->tickets);
    ring->tickets = tickets;
    return 0;
}

struct str keyring_tickets(const struct keyring *ring)
{
    return secret_bytes(ring->tickets);
}
