#include "daemon/auth/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/secret.h"

enum { SPARE_MAX = 8 };

struct auth_store {
    atomic_uint refs;
    char *path;
    pthread_mutex_t lock;
    struct users *spare[STORE_KINDS][SPARE_MAX]; /* open and not in use */
    size_t n_spare[STORE_KINDS];
};

struct auth_store *auth_store_new(const char *path)
{
    struct auth_store *store = calloc(1, sizeof *store);
    if (store)
        store->path = str_dup(str_of(path));
    if (!store || !store->path) {
        free(store);
        return NULL;
    }
    atomic_init(&store->refs, 1);
    pthread_mutex_init(&store->lock, NULL);
    return store;
}

struct auth_store *auth_store_ref(struct auth_store *store)
{
    atomic_fetch_add(&store->refs, 1);
    return store;
}

void auth_store_unref(struct auth_store **store_at)
{
    struct auth_store *store = *store_at;
    *store_at = NULL;
    if (!store || atomic_fetch_sub(&store->refs, 1) > 1)
        return;
    for (size_t kind = 0; kind < STORE_KINDS; kind++)
        for (size_t i = 0; i < store->n_spare[kind]; i++)
            users_close(&store->spare[kind][i]);
    pthread_mutex_destroy(&store->lock);
    free(store->path);
    free(store);
}

const char *auth_store_path(const struct auth_store *store)
{
    return store->path;
}

static int take(struct auth_store *store, enum store_kind kind, struct users **ret_users, struct err *err)
{
    struct users *users = NULL;
    pthread_mutex_lock(&store->lock);
    if (store->n_spare[kind] > 0)
        users = store->spare[kind][--store->n_spare[kind]];
    pthread_mutex_unlock(&store->lock);
    if (users && users_replaced(users))
        users_close(&users);
    *ret_users = users;
    if (users)
        return 0;
    struct users_options options = { .mode = USERS_READ, .busy_timeout_ms = kind == STORE_LOOP ? 0 : STORE_WAIT_MS };
    int rc = users_open(store->path, &options, ret_users, err);
    /* Not to be taken for a user who does not exist. */
    return rc == ERR_ABSENT ? ERR_STORE : rc;
}

static void give(struct auth_store *store, enum store_kind kind, struct users *users)
{
    pthread_mutex_lock(&store->lock);
    if (store->n_spare[kind] < SPARE_MAX) {
        store->spare[kind][store->n_spare[kind]++] = users;
        users = NULL;
    }
    pthread_mutex_unlock(&store->lock);
    users_close(&users);
}

static void copy_verifier(const struct users_verifier *from, struct sasl_verifier *to)
{
    *to = (struct sasl_verifier){ .salt_bytes = from->salt_bytes, .iterations = from->iterations };
    memcpy(to->salt, from->salt, from->salt_bytes);
    memcpy(to->stored_key, from->stored_key, sizeof to->stored_key);
    memcpy(to->server_key, from->server_key, sizeof to->server_key);
}

int auth_store_find(struct auth_store *store, enum store_kind kind, struct str user, struct sasl_verifier *ret_verifier,
                    struct err *err)
{
    struct users *users;
    struct users_verifier found;
    int rc = take(store, kind, &users, err);
    if (rc < 0)
        return rc;
    rc = users_find(users, user, &found, err);
    if (rc == 0) {
        copy_verifier(&found, ret_verifier);
        secret_wipe(&found, sizeof found);
    } else if (rc == ERR_ABSENT) {
        int fake = sasl_verifier_fake(users_secret(users), user, ret_verifier, err);
        rc = fake < 0 ? fake : rc;
    }
    give(store, kind, users);
    return rc;
}

int auth_store_exists(struct auth_store *store, enum store_kind kind, struct str text, struct err *err)
{
    struct users *users;
    int rc = take(store, kind, &users, err);
    if (rc < 0)
        return rc;
    rc = users_exists(users, text, err);
    give(store, kind, users);
    return rc;
}

int auth_store_find_nt(struct auth_store *store, struct str user, unsigned char ret_hash[USERS_NT_HASH_BYTES],
                       struct err *err)
{
    struct users *users;
    int rc = take(store, STORE_THREAD, &users, err);
    if (rc < 0)
        return rc;
    rc = users_find_nt(users, user, ret_hash, err);
    give(store, STORE_THREAD, users);
    return rc;
}
