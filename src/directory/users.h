/* users: the embedded user store: who may log in, in one SQLite file.
 *
 * It holds no password: only the salt, the iteration count and the two keys that SCRAM-SHA-256 needs (RFC 5802
 * section 3, RFC 7677), which check a PLAIN password as well; and, for users that were given one on request, the NT hash
 * that NTLM needs. Names and addresses are stored as they are compared: the caller prepares them (SASLprep, ASCII
 * letters in lower case). The schema has a version: a store of version 1, which knew no NT hashes, is read as it is and
 * brought to version 2 when it is opened for writing; any other is refused, not guessed at. The file uses a rollback
 * journal, so that a reader needs nothing but the right to read it: `postern user` may write while the daemon runs, and a
 * reader then waits for at most busy_timeout_ms. The daemon never creates or changes the file.
 *
 * One handle belongs to one thread at a time. Everything read is checked: a damaged or foreign file is an error.
 * Codes: ERR_ABSENT no such file or user, ERR_BUSY somebody writes, ERR_CORRUPT not what was written,
 * ERR_EXISTS, ERR_STORE, or a negated errno. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

enum {
    USERS_NAME_MAX = 255,
    USERS_SALT_MAX = 64,
    USERS_KEY_BYTES = 32,
    USERS_SECRET_BYTES = 32,
    USERS_NT_HASH_BYTES = 16,
    USERS_ADDRESSES_MAX = 100,
};

enum users_mode {
    USERS_READ,   /* the daemon */
    USERS_WRITE,
    USERS_CREATE, /* like WRITE; a missing file is made, mode 0600 */
};

struct users_options {
    enum users_mode mode;
    int busy_timeout_ms; /* 0: ERR_BUSY at once */
    /* With WRITE and CREATE: who shall own the file; (uid_t)-1 leaves it. Journals follow the file. */
    uid_t owner;
    gid_t group;
};

struct users_verifier {
    unsigned char salt[USERS_SALT_MAX];
    uint32_t salt_bytes;
    uint32_t iterations;
    unsigned char stored_key[USERS_KEY_BYTES];
    unsigned char server_key[USERS_KEY_BYTES];
    /* Only for writing; users_find() leaves them empty. */
    uint32_t nt_hash_bytes; /* 0: the user has no NTLM; or USERS_NT_HASH_BYTES */
    unsigned char nt_hash[USERS_NT_HASH_BYTES];
};

struct users;

int users_open(const char *path, const struct users_options *options, struct users **ret_users, struct err *err);
/* NULL is fine. */
void users_close(struct users **users);
/* The path names another file by now, or none: open it again. */
bool users_replaced(const struct users *users);
/* Random, made with the store: what verifiers of users who do not exist are derived from. */
struct str users_secret(const struct users *users);

/* 0 and the verifier; ERR_ABSENT: no such user. */
int users_find(struct users *users, struct str name, struct users_verifier *ret_verifier, struct err *err);
/* 1 and the NT hash (as good as the password: wipe it); 0: the user has none, and so no NTLM; ERR_ABSENT. */
int users_find_nt(struct users *users, struct str name, unsigned char ret_hash[USERS_NT_HASH_BYTES], struct err *err);
/* 1 when `text` is a user's name, one of the users' addresses, or an address whose local part is a user's
 * name; 0 when not. Letters of either case. */
int users_exists(struct users *users, struct str text, struct err *err);

/* ERR_EXISTS: the name or one of the addresses is taken. All or nothing. */
int users_add(struct users *users, struct str name, const struct str *addresses, size_t n_addresses,
              const struct users_verifier *verifier, int64_t now_wall_ms, struct err *err);
int users_set_password(struct users *users, struct str name, const struct users_verifier *verifier,
                       int64_t now_wall_ms, struct err *err);
int users_delete(struct users *users, struct str name, struct err *err);

struct users_entry {
    struct str name;
    struct str addresses;  /* separated by spaces; empty = none */
    int64_t created_ms, changed_ms; /* wall time; changed = the password */
    uint32_t iterations;
    bool has_nt_hash;
};
/* Calls `each` for every user by name; a negative return of it ends the list and is returned. */
int users_list(struct users *users, int (*each)(void *arg, const struct users_entry *entry), void *arg, struct err *err);
