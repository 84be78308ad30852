#include "directory/users.h"

#include <assert.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCHEMA_VERSION = 2, VERSION_WITHOUT_NT = 1, APPLICATION_ID = 0x50737455 /* "PstU" */, LIST_COLUMNS = 6 };

static const char schema[] =
    "CREATE TABLE users (name TEXT PRIMARY KEY NOT NULL, salt BLOB NOT NULL, iterations INTEGER NOT NULL,"
    " stored_key BLOB NOT NULL, server_key BLOB NOT NULL, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,"
    " nt_hash BLOB) STRICT, WITHOUT ROWID;"
    "CREATE TABLE addresses (address TEXT PRIMARY KEY NOT NULL, user TEXT NOT NULL REFERENCES users (name)"
    " ON DELETE CASCADE) STRICT, WITHOUT ROWID;"
    "CREATE INDEX addresses_user ON addresses (user);"
    "CREATE TABLE store (secret BLOB NOT NULL) STRICT;"
    "PRAGMA application_id = 1349743701;"
    "PRAGMA user_version = 2;";
/* From version 1 to 2. */
static const char migration[] = "ALTER TABLE users ADD COLUMN nt_hash BLOB; PRAGMA user_version = 2;";
static_assert(APPLICATION_ID == 1349743701, "the schema's text and the number we look for are one");

#define ADDRESSES \
    " (SELECT group_concat(address, ' ') FROM (SELECT address FROM addresses WHERE user = name ORDER BY address))"
enum statement { FIND, FIND_NT, EXISTS, ADD, ADD_ADDRESS, SET_PASSWORD, DELETE, LIST, LIST_WITHOUT_NT, STATEMENTS };
static const char *const statements[STATEMENTS] = {
    [FIND] = "SELECT salt, iterations, stored_key, server_key FROM users WHERE name = ?1",
    [FIND_NT] = "SELECT nt_hash FROM users WHERE name = ?1",
    [EXISTS] = "SELECT 1 FROM users WHERE name = ?1 UNION ALL SELECT 1 FROM addresses WHERE address = ?1 LIMIT 1",
    [ADD] = "INSERT INTO users (name, salt, iterations, stored_key, server_key, created_ms, changed_ms, nt_hash)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
    [ADD_ADDRESS] = "INSERT INTO addresses (address, user) VALUES (?2, ?1)",
    [SET_PASSWORD] = "UPDATE users SET salt = ?2, iterations = ?3, stored_key = ?4, server_key = ?5, changed_ms = ?6,"
                     " nt_hash = ?7"
                     " WHERE name = ?1",
    [DELETE] = "DELETE FROM users WHERE name = ?1",
    [LIST] = "SELECT name, created_ms, changed_ms, iterations," ADDRESSES ", nt_hash IS NOT NULL FROM users ORDER BY name",
    [LIST_WITHOUT_NT] = "SELECT name, created_ms, changed_ms, iterations," ADDRESSES ", 0 FROM users ORDER BY name",
};

struct users {
    sqlite3 *db;
    sqlite3_stmt *stmt[STATEMENTS]; /* prepared when first needed */
    char *path;   /* as it was given: for people */
    char *real;   /* its folder without symbolic links: SQLite refuses them all, and we only one in the file's place */
    int64_t version; /* of the schema */
    dev_t device;
    ino_t inode;
    unsigned char secret[USERS_SECRET_BYTES];
};

/* SQLite's result as one of our codes, with what to do about it. */
static int fail(const struct users *users, int rc, const char *doing, struct err *err)
{
    const char *detail = users->db ? sqlite3_errmsg(users->db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, ERR_BUSY, "%s: cannot %s: another program is writing to it; try again", users->path, doing);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(err, ERR_CORRUPT, "%s: cannot %s: %s; this is not a user store, or it is damaged: restore it from a"
                       " backup, or move it away and add the users again", users->path, doing, detail);
    case SQLITE_NOMEM:
        return err_set(err, -ENOMEM, "%s: cannot %s: out of memory", users->path, doing);
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return err_set(err, -EACCES, "%s: cannot %s: %s", users->path, doing, detail);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        /* A reader meets this when a writer died in the middle: only a writer may roll its journal back. */
        if (access(users->path, R_OK) == 0 && rc != SQLITE_READONLY)
            return err_set(err, ERR_STORE, "%s: cannot %s: %s; a change to it was interrupted: run `postern user list`"
                           " as root, which repairs it", users->path, doing, detail);
        return err_set(err, -EACCES, "%s: cannot %s: %s", users->path, doing, detail);
    default:
        return err_set(err, ERR_STORE, "%s: cannot %s: %s", users->path, doing, detail);
    }
}

/* A file that somebody put there in our file's place (a link, a device) is refused, since this may run as root. */
static int remember_file(struct users *users, const struct stat *st, struct err *err)
{
    if (!S_ISREG(st->st_mode) || st->st_nlink != 1)
        return err_set(err, ERR_STORE, "%s is not a regular file with one name: no user store", users->path);
    users->device = st->st_dev;
    users->inode = st->st_ino;
    return 0;
}

/* For a reader: only a look. Opening and closing it here would end the POSIX locks that another handle of this
 * process holds on the same file. */
static int look(struct users *users, struct err *err)
{
    struct stat st;
    if (lstat(users->real, &st) == 0)
        return remember_file(users, &st, err);
    if (errno == ENOENT)
        return err_set(err, ERR_ABSENT, "there is no user store %s; `postern user add NAME` makes one", users->path);
    return err_errno(err, errno, "cannot read the user store %s", users->path);
}

/* For a writer, which has no other handle: makes the file with the right mode, gives it to its user. */
static int touch(struct users *users, const struct users_options *options, struct err *err)
{
    const char *path = users->real;
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = open(path, flags);
    if (fd < 0 && errno == ENOENT) {
        if (options->mode != USERS_CREATE)
            return look(users, err);
        fd = open(path, flags | O_CREAT | O_EXCL, 0600);
    }
    if (fd < 0)
        return err_errno(err, errno, "cannot open the user store %s", path);
    struct stat st;
    int rc = fstat(fd, &st) == 0 ? remember_file(users, &st, err) : err_errno(err, errno, "%s", path);
    if (rc == 0 && options->owner != (uid_t)-1 && st.st_uid != options->owner &&
        fchown(fd, options->owner, options->group) != 0)
        rc = err_errno(err, errno, "cannot give %s to its user", path);
    close(fd);
    return rc;
}

static int get_number(struct users *users, const char *sql, int64_t *ret_number)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(users->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret_number = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return rc == SQLITE_ROW ? SQLITE_OK : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

static int read_secret(struct users *users)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(users->db, "SELECT secret FROM store", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && sqlite3_column_bytes(stmt, 0) != USERS_SECRET_BYTES)) {
        rc = SQLITE_CORRUPT;
    } else if (rc == SQLITE_ROW) {
        memcpy(users->secret, sqlite3_column_blob(stmt, 0), USERS_SECRET_BYTES);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int run(struct users *users, const char *sql)
{
    return sqlite3_exec(users->db, sql, NULL, NULL, NULL);
}

static int make_schema(struct users *users, struct err *err)
{
    unsigned char secret[USERS_SECRET_BYTES];
    sqlite3_stmt *stmt = NULL;
    if (getentropy(secret, sizeof secret) != 0)
        return err_errno(err, errno, "no random numbers for a new user store");
    int rc = run(users, "BEGIN IMMEDIATE");
    int64_t version = 0;
    if (rc == SQLITE_OK)
        rc = get_number(users, "PRAGMA user_version", &version);
    if (rc == SQLITE_OK && version == 0) { /* else somebody else has just made it */
        rc = run(users, schema);
        if (rc == SQLITE_OK)
            rc = sqlite3_prepare_v2(users->db, "INSERT INTO store (secret) VALUES (?1)", -1, &stmt, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_bind_blob(stmt, 1, secret, sizeof secret, SQLITE_STATIC);
        if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
            rc = SQLITE_OK;
        sqlite3_finalize(stmt);
    }
    if (rc == SQLITE_OK)
        rc = run(users, "COMMIT");
    explicit_bzero(secret, sizeof secret);
    return rc == SQLITE_OK ? 0 : fail(users, rc, "make it", err);
}

/* Brings a store of version 1 to ours; another writer may have been faster. */
static int migrate(struct users *users, struct err *err)
{
    int rc = run(users, "BEGIN IMMEDIATE");
    if (rc == SQLITE_OK)
        rc = get_number(users, "PRAGMA user_version", &users->version);
    if (rc == SQLITE_OK && users->version == VERSION_WITHOUT_NT)
        rc = run(users, migration);
    if (rc == SQLITE_OK)
        rc = run(users, "COMMIT");
    if (rc != SQLITE_OK)
        return fail(users, rc, "bring it to the current version", err);
    users->version = SCHEMA_VERSION;
    return 0;
}

static int check_schema(struct users *users, enum users_mode mode, struct err *err)
{
    int64_t application = 0, tables = 0;
    int rc = get_number(users, "PRAGMA user_version", &users->version);
    if (rc == SQLITE_OK)
        rc = get_number(users, "PRAGMA application_id", &application);
    if (rc == SQLITE_OK)
        rc = get_number(users, "SELECT count(*) FROM sqlite_schema", &tables);
    if (rc != SQLITE_OK)
        return fail(users, rc, "read it", err);
    if (mode == USERS_CREATE && users->version == 0 && application == 0 && tables == 0) {
        rc = make_schema(users, err);
        if (rc < 0)
            return rc;
        users->version = SCHEMA_VERSION;
    } else if (application != APPLICATION_ID) {
        return err_set(err, ERR_CORRUPT, "%s is not a user store; move it away, and `postern user add NAME` makes one",
                       users->path);
    }
    if (users->version == VERSION_WITHOUT_NT && mode != USERS_READ && (rc = migrate(users, err)) < 0)
        return rc;
    if (users->version != SCHEMA_VERSION && users->version != VERSION_WITHOUT_NT)
        return err_set(err, ERR_STORE, "%s has version %lld of the user store; this program knows versions %d to %d",
                       users->path, (long long)users->version, VERSION_WITHOUT_NT, SCHEMA_VERSION);
    rc = read_secret(users);
    return rc == SQLITE_OK ? 0 : fail(users, rc, "read it", err);
}

/* The folder may be reached through symbolic links, as sites move their data; the file itself may be none. */
static int resolve_folder(struct users *users, struct err *err)
{
    const char *slash = strrchr(users->path, '/');
    char *folder = slash ? str_dup(str_slice(users->path, (size_t)(slash - users->path) + 1)) : str_dup(STR("."));
    char *real = folder ? realpath(folder, NULL) : NULL;
    int saved = errno;
    free(folder);
    if (!real && saved == ENOENT)
        return err_set(err, ERR_ABSENT, "there is no user store %s: its folder is missing; run: postern setup", users->path);
    if (!real)
        return err_errno(err, saved, "cannot reach the folder of the user store %s", users->path);
    if (asprintf(&users->real, "%s/%s", real, slash ? slash + 1 : users->path) < 0)
        users->real = NULL;
    free(real);
    return users->real ? 0 : err_errno(err, ENOMEM, "%s", users->path);
}

static int connect_store(struct users *users, const struct users_options *options, struct err *err)
{
    int flags = (options->mode == USERS_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) | SQLITE_OPEN_NOMUTEX |
                SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW;
    int rc = sqlite3_open_v2(users->real, &users->db, flags, NULL);
    if (rc != SQLITE_OK)
        return fail(users, rc, "open it", err);
    sqlite3_extended_result_codes(users->db, 1);
    sqlite3_busy_timeout(users->db, options->busy_timeout_ms);
    /* The file may have come from anywhere: nothing in its schema may run code or reach the file's internals. */
    sqlite3_db_config(users->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(users->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(users->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(users->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    rc = run(users, "PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON; PRAGMA cell_size_check = ON;"
                    " PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON");
    return rc == SQLITE_OK ? 0 : fail(users, rc, "open it", err);
}

int users_open(const char *path, const struct users_options *options, struct users **ret_users, struct err *err)
{
    *ret_users = NULL;
    struct users *users = calloc(1, sizeof *users);
    if (users)
        users->path = str_dup(str_of(path));
    if (!users || !users->path) {
        free(users);
        return err_errno(err, ENOMEM, "%s", path);
    }
    int rc = resolve_folder(users, err);
    if (rc == 0)
        rc = options->mode == USERS_READ ? look(users, err) : touch(users, options, err);
    if (rc == 0)
        rc = connect_store(users, options, err);
    if (rc == 0)
        rc = check_schema(users, options->mode, err);
    if (rc < 0)
        users_close(&users);
    *ret_users = users;
    return rc;
}

void users_close(struct users **users_at)
{
    struct users *users = *users_at;
    if (!users)
        return;
    for (size_t i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(users->stmt[i]);
    sqlite3_close(users->db);
    explicit_bzero(users->secret, sizeof users->secret);
    free(users->real);
    free(users->path);
    free(users);
    *users_at = NULL;
}

bool users_replaced(const struct users *users)
{
    struct stat st;
    return stat(users->real, &st) != 0 || st.st_dev != users->device || st.st_ino != users->inode;
}

struct str users_secret(const struct users *users)
{
    return str_slice(users->secret, sizeof users->secret);
}

/* The statement with ?1 bound to `name`; done with it, reset() it. */
static int begin(struct users *users, enum statement which, struct str name, sqlite3_stmt **ret_stmt)
{
    if (!users->stmt[which]) {
        int rc = sqlite3_prepare_v3(users->db, statements[which], -1, SQLITE_PREPARE_PERSISTENT, &users->stmt[which], NULL);
        if (rc != SQLITE_OK)
            return rc;
    }
    *ret_stmt = users->stmt[which];
    if (name.n == 0)
        return SQLITE_OK;
    return sqlite3_bind_text64(*ret_stmt, 1, name.p, name.n, SQLITE_STATIC, SQLITE_UTF8);
}

static void reset(struct users *users, enum statement which)
{
    if (users->stmt[which]) {
        sqlite3_reset(users->stmt[which]);
        sqlite3_clear_bindings(users->stmt[which]);
    }
}

static bool get_blob(sqlite3_stmt *stmt, int column, void *to, int min_bytes, int max_bytes)
{
    int n = sqlite3_column_bytes(stmt, column);
    const void *blob = sqlite3_column_blob(stmt, column);
    if (n < min_bytes || n > max_bytes || !blob)
        return false;
    memcpy(to, blob, (size_t)n);
    return true;
}

static int get_verifier(sqlite3_stmt *stmt, struct users_verifier *ret_verifier)
{
    struct users_verifier v = { 0 };
    int64_t iterations = sqlite3_column_int64(stmt, 1);
    bool ok = get_blob(stmt, 0, v.salt, 1, USERS_SALT_MAX) && iterations > 0 && iterations <= INT32_MAX &&
              get_blob(stmt, 2, v.stored_key, USERS_KEY_BYTES, USERS_KEY_BYTES) &&
              get_blob(stmt, 3, v.server_key, USERS_KEY_BYTES, USERS_KEY_BYTES);
    v.salt_bytes = (uint32_t)sqlite3_column_bytes(stmt, 0);
    v.iterations = (uint32_t)iterations;
    if (ok)
        *ret_verifier = v;
    explicit_bzero(&v, sizeof v);
    return ok ? SQLITE_OK : SQLITE_CORRUPT;
}

int users_find(struct users *users, struct str name, struct users_verifier *ret_verifier, struct err *err)
{
    sqlite3_stmt *stmt;
    int rc = begin(users, FIND, name, &stmt);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    bool absent = rc == SQLITE_DONE;
    if (rc == SQLITE_ROW)
        rc = get_verifier(stmt, ret_verifier);
    int result = absent ? err_set(err, ERR_ABSENT, "there is no user %.*s in %s", STR_ARG(name), users->path)
                        : rc == SQLITE_OK ? 0 : fail(users, rc, "look up a user", err);
    reset(users, FIND);
    return result;
}

/* A writer may have brought the store to the next version since it was opened. */
static bool knows_nt(struct users *users)
{
    int64_t version;
    if (users->version == VERSION_WITHOUT_NT && get_number(users, "PRAGMA user_version", &version) == SQLITE_OK)
        users->version = version;
    return users->version != VERSION_WITHOUT_NT;
}

static int get_nt(sqlite3_stmt *stmt, unsigned char ret_hash[USERS_NT_HASH_BYTES], bool *ret_has)
{
    *ret_has = sqlite3_column_type(stmt, 0) != SQLITE_NULL;
    return !*ret_has || get_blob(stmt, 0, ret_hash, USERS_NT_HASH_BYTES, USERS_NT_HASH_BYTES) ? SQLITE_OK : SQLITE_CORRUPT;
}

int users_find_nt(struct users *users, struct str name, unsigned char ret_hash[USERS_NT_HASH_BYTES], struct err *err)
{
    sqlite3_stmt *stmt;
    bool has = false;
    enum statement which = knows_nt(users) ? FIND_NT : FIND; /* in an old store only whether the user is there */
    int rc = begin(users, which, name, &stmt);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    bool absent = rc == SQLITE_DONE;
    if (rc == SQLITE_ROW)
        rc = which == FIND_NT ? get_nt(stmt, ret_hash, &has) : SQLITE_OK;
    int result = absent ? err_set(err, ERR_ABSENT, "there is no user %.*s in %s", STR_ARG(name), users->path)
                        : rc == SQLITE_OK ? has : fail(users, rc, "look up a user", err);
    reset(users, which);
    return result;
}

static int is_there(struct users *users, struct str text, struct err *err)
{
    sqlite3_stmt *stmt;
    if (text.n == 0)
        return 0;
    int rc = begin(users, EXISTS, text, &stmt);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    int result = rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : fail(users, rc, "look up a recipient", err);
    reset(users, EXISTS);
    return result;
}

int users_exists(struct users *users, struct str text, struct err *err)
{
    char lower[512];
    if (!str_copy(text, lower, sizeof lower))
        return 0;
    size_t at = text.n; /* of the last "@" */
    for (size_t i = 0; i < text.n; i++) {
        lower[i] = ascii_lower(lower[i]);
        if (lower[i] == '@')
            at = i;
    }
    int rc = is_there(users, str_slice(lower, text.n), err);
    return rc == 0 && at < text.n ? is_there(users, str_slice(lower, at), err) : rc;
}

static int bind_verifier(sqlite3_stmt *stmt, const struct users_verifier *v, int64_t now_wall_ms)
{
    if (v->salt_bytes == 0 || v->salt_bytes > USERS_SALT_MAX ||
        (v->nt_hash_bytes != 0 && v->nt_hash_bytes != USERS_NT_HASH_BYTES))
        return SQLITE_MISUSE;
    int rc = sqlite3_bind_blob(stmt, 2, v->salt, (int)v->salt_bytes, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(stmt, 3, v->iterations);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_blob(stmt, 4, v->stored_key, USERS_KEY_BYTES, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_blob(stmt, 5, v->server_key, USERS_KEY_BYTES, SQLITE_STATIC);
    if (rc == SQLITE_OK && v->nt_hash_bytes)
        rc = sqlite3_bind_blob(stmt, 7, v->nt_hash, USERS_NT_HASH_BYTES, SQLITE_STATIC);
    return rc == SQLITE_OK ? sqlite3_bind_int64(stmt, 6, now_wall_ms) : rc;
}

static bool name_ok(struct str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || name.p[i] == 0x7f || name.p[i] == '/')
            return false;
    return name.n > 0 && name.n <= USERS_NAME_MAX;
}

static int insert(struct users *users, struct str name, const struct str *addresses, size_t n_addresses,
                  const struct users_verifier *verifier, int64_t now_wall_ms)
{
    sqlite3_stmt *stmt;
    int rc = begin(users, ADD, name, &stmt);
    if (rc == SQLITE_OK)
        rc = bind_verifier(stmt, verifier, now_wall_ms);
    if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
        rc = SQLITE_OK;
    reset(users, ADD);
    for (size_t i = 0; i < n_addresses && rc == SQLITE_OK; i++) {
        rc = begin(users, ADD_ADDRESS, name, &stmt);
        if (rc == SQLITE_OK)
            rc = sqlite3_bind_text64(stmt, 2, addresses[i].p, addresses[i].n, SQLITE_STATIC, SQLITE_UTF8);
        if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_DONE)
            rc = SQLITE_OK;
        reset(users, ADD_ADDRESS);
    }
    return rc;
}

int users_add(struct users *users, struct str name, const struct str *addresses, size_t n_addresses,
              const struct users_verifier *verifier, int64_t now_wall_ms, struct err *err)
{
    if (!name_ok(name))
        return err_set(err, ERR_SYNTAX, "a user's name has 1 to %d octets and no space, control character or slash",
                       USERS_NAME_MAX);
    if (n_addresses > USERS_ADDRESSES_MAX)
        return err_set(err, ERR_LIMIT, "a user has at most %d addresses", USERS_ADDRESSES_MAX);
    for (size_t i = 0; i < n_addresses; i++)
        if (!name_ok(addresses[i]) || str_find(addresses[i], '@') == addresses[i].n)
            return err_set(err, ERR_SYNTAX, "%.*s is not a mail address", STR_ARG(addresses[i]));
    int rc = run(users, "BEGIN IMMEDIATE");
    if (rc == SQLITE_OK) {
        rc = insert(users, name, addresses, n_addresses, verifier, now_wall_ms);
        if (rc == SQLITE_OK)
            rc = run(users, "COMMIT");
    }
    if (rc == SQLITE_OK)
        return 0;
    int result = (rc & 0xff) == SQLITE_CONSTRAINT
                     ? err_set(err, ERR_EXISTS, "the user %.*s, or one of the addresses, is in %s already", STR_ARG(name),
                               users->path)
                     : fail(users, rc, "add a user", err);
    if (!sqlite3_get_autocommit(users->db))
        run(users, "ROLLBACK");
    return result;
}

/* Runs a statement that changes one user. */
static int change(struct users *users, enum statement which, struct str name, const struct users_verifier *verifier,
                  int64_t now_wall_ms, struct err *err)
{
    sqlite3_stmt *stmt;
    int rc = begin(users, which, name, &stmt);
    if (rc == SQLITE_OK && verifier)
        rc = bind_verifier(stmt, verifier, now_wall_ms);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    int result = 0;
    if (rc != SQLITE_DONE)
        result = fail(users, rc, "change a user", err);
    else if (sqlite3_changes(users->db) == 0)
        result = err_set(err, ERR_ABSENT, "there is no user %.*s in %s", STR_ARG(name), users->path);
    reset(users, which);
    return result;
}

int users_set_password(struct users *users, struct str name, const struct users_verifier *verifier,
                       int64_t now_wall_ms, struct err *err)
{
    return change(users, SET_PASSWORD, name, verifier, now_wall_ms, err);
}

int users_delete(struct users *users, struct str name, struct err *err)
{
    return change(users, DELETE, name, NULL, 0, err);
}

static struct str get_text(sqlite3_stmt *stmt, int column)
{
    const void *text = sqlite3_column_text(stmt, column);
    return text ? str_slice(text, (size_t)sqlite3_column_bytes(stmt, column)) : STR_NONE;
}

int users_list(struct users *users, int (*each)(void *arg, const struct users_entry *entry), void *arg, struct err *err)
{
    sqlite3_stmt *stmt;
    enum statement which = knows_nt(users) ? LIST : LIST_WITHOUT_NT;
    int rc = begin(users, which, STR_NONE, &stmt), result = 0;
    while (rc == SQLITE_OK && result >= 0 && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        assert(sqlite3_column_count(stmt) == LIST_COLUMNS);
        struct users_entry entry = {
            .name = get_text(stmt, 0), .created_ms = sqlite3_column_int64(stmt, 1),
            .changed_ms = sqlite3_column_int64(stmt, 2), .iterations = (uint32_t)sqlite3_column_int64(stmt, 3),
            .addresses = get_text(stmt, 4), .has_nt_hash = sqlite3_column_int(stmt, 5) != 0,
        };
        result = each(arg, &entry);
        rc = SQLITE_OK;
    }
    if (result >= 0)
        result = rc == SQLITE_DONE ? 0 : fail(users, rc, "list the users", err);
    reset(users, which);
    return result;
}
