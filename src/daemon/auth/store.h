/* store: the user store as the threads of auth share it.
 *
 * A handle belongs to one thread at a time, so they are taken and given back. Handles of the loop never wait
 * for a writer (ERR_BUSY: do it on a worker thread, whose handles wait up to STORE_WAIT_MS). A file that is
 * missing or was replaced is looked for again at each take, so that nothing has to be restarted after
 * `postern user add` made it. Counted by references: a job may outlive the snapshot that it began under. */
#pragma once
#include "directory/users.h"
#include "sasl/sasl.h"

enum store_kind { STORE_LOOP, STORE_THREAD, STORE_KINDS };
enum { STORE_WAIT_MS = 2000 };

struct auth_store;

/* NULL when out of memory; the file need not exist. */
struct auth_store *auth_store_new(const char *path);
struct auth_store *auth_store_ref(struct auth_store *store);
void auth_store_unref(struct auth_store **store);
const char *auth_store_path(const struct auth_store *store);

/* 0 and the verifier; ERR_ABSENT: no such user, and ret_verifier is a decoy that no password fits; ERR_BUSY
 * (STORE_LOOP) ask again on a thread; another code: the store cannot be read. */
int auth_store_find(struct auth_store *store, enum store_kind kind, struct str user, struct sasl_verifier *ret_verifier,
                    struct err *err);
/* 1, 0, or negative as above. */
int auth_store_exists(struct auth_store *store, enum store_kind kind, struct str text, struct err *err);
/* 1 and the user's NT hash (wipe it); 0: the user has none; negative as above. */
int auth_store_find_nt(struct auth_store *store, struct str user, unsigned char ret_hash[USERS_NT_HASH_BYTES],
                       struct err *err);
