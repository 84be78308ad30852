/* The user store: what it keeps, what it refuses, and how it stands writers and damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "directory/users.h"

static char folder[64], path[80];

static int make_folder(void **state)
{
    snprintf(folder, sizeof folder, "/tmp/postern-test-users-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/users.db", folder);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* no journal is left behind */
    return 0;
}

static struct users *open_as(enum users_mode mode)
{
    struct users_options options = { .mode = mode, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users *users;
    struct err err = { 0 };
    int rc = users_open(path, &options, &users, &err);
    if (rc < 0)
        print_error("%s\n", err.text);
    assert_int_equal(rc, 0);
    return users;
}

static int open_error(enum users_mode mode, struct err *err)
{
    struct users_options options = { .mode = mode, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users *users;
    int rc = users_open(path, &options, &users, err);
    assert_null(users);
    return rc;
}

static struct users_verifier verifier_of(unsigned char c)
{
    struct users_verifier v = { .salt_bytes = 16, .iterations = 10000 };
    memset(v.salt, c, 16);
    memset(v.stored_key, c + 1, sizeof v.stored_key);
    memset(v.server_key, c + 2, sizeof v.server_key);
    return v;
}

static void missing_file_is_not_made_by_a_reader(void **state)
{
    struct err err;
    assert_int_equal(open_error(USERS_READ, &err), ERR_ABSENT);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "postern user add"));
    assert_int_equal(open_error(USERS_WRITE, &err), ERR_ABSENT);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void keeps_what_was_added(void **state)
{
    struct users *writer = open_as(USERS_CREATE), *reader = open_as(USERS_READ);
    struct users_verifier a = verifier_of('a'), got;
    struct err err;
    struct stat st;
    struct str addresses[] = { STR("anna.example@corp.test"), STR("info@corp.test") };
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(users_find(reader, STR("anna"), &got, &err), ERR_ABSENT);
    assert_int_equal(users_add(writer, STR("anna"), addresses, 2, &a, 1000, &err), 0);
    assert_int_equal(users_find(reader, STR("anna"), &got, &err), 0);
    assert_memory_equal(&got, &a, sizeof a);
    assert_int_equal(users_find(reader, STR("ann"), &got, &err), ERR_ABSENT);
    assert_int_equal(users_find(reader, STR(""), &got, &err), ERR_ABSENT);
    assert_int_equal(users_find(reader, STR("anna\0"), &got, &err), ERR_ABSENT);

    assert_int_equal(users_exists(reader, STR("Anna"), &err), 1);
    assert_int_equal(users_exists(reader, STR("anna@CORP.test"), &err), 1);
    assert_int_equal(users_exists(reader, STR("Info@corp.test"), &err), 1);
    assert_int_equal(users_exists(reader, STR("info"), &err), 0);
    assert_int_equal(users_exists(reader, STR("bob@corp.test"), &err), 0);
    assert_int_equal(users_exists(reader, STR(""), &err), 0);
    assert_int_equal(users_exists(reader, STR("@corp.test"), &err), 0);

    assert_int_equal(users_secret(reader).n, USERS_SECRET_BYTES);
    assert_memory_equal(users_secret(reader).p, users_secret(writer).p, USERS_SECRET_BYTES);
    users_close(&writer);
    users_close(&reader);
    assert_null(reader);
}

static void changes_are_all_or_nothing(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a'), b = verifier_of('b'), got;
    struct err err;
    struct str taken[] = { STR("free@corp.test"), STR("anna@corp.test") };
    assert_int_equal(users_add(users, STR("anna"), &taken[1], 1, &a, 1000, &err), 0);
    assert_int_equal(users_add(users, STR("anna"), NULL, 0, &b, 1000, &err), ERR_EXISTS);
    assert_int_equal(users_add(users, STR("bob"), taken, 2, &b, 1000, &err), ERR_EXISTS);
    assert_int_equal(users_exists(users, STR("bob"), &err), 0);
    assert_int_equal(users_exists(users, STR("free@corp.test"), &err), 0);

    assert_int_equal(users_set_password(users, STR("bob"), &b, 2000, &err), ERR_ABSENT);
    assert_int_equal(users_set_password(users, STR("anna"), &b, 2000, &err), 0);
    assert_int_equal(users_find(users, STR("anna"), &got, &err), 0);
    assert_memory_equal(&got, &b, sizeof b);

    assert_int_equal(users_delete(users, STR("bob"), &err), ERR_ABSENT);
    assert_int_equal(users_delete(users, STR("anna"), &err), 0);
    assert_int_equal(users_exists(users, STR("x"), &err), 0);
    assert_int_equal(users_exists(users, STR("anna@corp.test"), &err), 0);
    users_close(&users);
}

static void refuses_names_that_cannot_be(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a');
    struct err err;
    static const char *const bad[] = { "", "an na", "an\tna", "an/na", "an\x7fna" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(users_add(users, str_of(bad[i]), NULL, 0, &a, 1, &err), ERR_SYNTAX);
    char huge[USERS_NAME_MAX + 1];
    memset(huge, 'a', sizeof huge);
    assert_int_equal(users_add(users, str_slice(huge, sizeof huge), NULL, 0, &a, 1, &err), ERR_SYNTAX);
    assert_int_equal(users_add(users, str_slice(huge, USERS_NAME_MAX), NULL, 0, &a, 1, &err), 0);
    struct str address = STR("no-at-sign");
    assert_int_equal(users_add(users, STR("anna"), &address, 1, &a, 1, &err), ERR_SYNTAX);
    users_close(&users);
}

static int remember(void *arg, const struct users_entry *entry)
{
    char *text = arg;
    size_t n = strlen(text);
    snprintf(text + n, 400 - n, "%.*s(%.*s)%lld/%lld/%u;", STR_ARG(entry->name), STR_ARG(entry->addresses),
             (long long)entry->created_ms, (long long)entry->changed_ms, entry->iterations);
    return 0;
}

static int stop_at_once(void *arg, const struct users_entry *entry)
{
    ++*(int *)arg;
    return ERR_CLOSED;
}

static void lists_by_name(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a');
    struct err err;
    struct str addresses[] = { STR("b@x"), STR("a@x") };
    char text[400] = "";
    int calls = 0;
    assert_int_equal(users_list(users, remember, text, &err), 0);
    assert_string_equal(text, "");
    assert_int_equal(users_add(users, STR("bob"), addresses, 2, &a, 1, &err), 0);
    assert_int_equal(users_add(users, STR("anna"), NULL, 0, &a, 2, &err), 0);
    assert_int_equal(users_set_password(users, STR("anna"), &a, 3, &err), 0);
    assert_int_equal(users_list(users, remember, text, &err), 0);
    assert_string_equal(text, "anna()2/3/10000;bob(a@x b@x)1/1/10000;");
    assert_int_equal(users_list(users, stop_at_once, &calls, &err), ERR_CLOSED);
    assert_int_equal(calls, 1);
    users_close(&users);
}

static void a_writer_makes_others_wait(void **state)
{
    struct users *users = open_as(USERS_CREATE), *reader = open_as(USERS_READ);
    struct users_verifier a = verifier_of('a'), got;
    struct err err;
    sqlite3 *other;
    assert_int_equal(users_add(users, STR("anna"), NULL, 0, &a, 1, &err), 0);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(users_find(reader, STR("anna"), &got, &err), ERR_BUSY);
    assert_int_equal(users_exists(reader, STR("anna"), &err), ERR_BUSY);
    assert_int_equal(users_add(users, STR("bob"), NULL, 0, &a, 1, &err), ERR_BUSY);
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    assert_int_equal(users_find(reader, STR("anna"), &got, &err), 0);
    assert_int_equal(users_add(users, STR("bob"), NULL, 0, &a, 1, &err), 0);
    assert_int_equal(users_add(reader, STR("carl"), NULL, 0, &a, 1, &err), -EACCES);
    users_close(&users);
    users_close(&reader);
}

static void write_file(const char *text, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
}

static void foreign_and_damaged_files_are_refused(void **state)
{
    struct err err;
    static char junk[8192];
    memset(junk, 'x', sizeof junk);
    write_file(junk, sizeof junk);
    assert_int_equal(open_error(USERS_READ, &err), ERR_CORRUPT);
    assert_int_equal(open_error(USERS_CREATE, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, path));
    write_file("", 0);
    assert_int_equal(open_error(USERS_READ, &err), ERR_CORRUPT);

    unlink(path);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE users (name)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(open_error(USERS_READ, &err), ERR_CORRUPT);
    assert_int_equal(open_error(USERS_CREATE, &err), ERR_CORRUPT);

    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(open_error(USERS_READ, &err), ERR_STORE);
    assert_int_equal(open_error(USERS_WRITE, &err), -EISDIR);
    rmdir(path);
    assert_int_equal(symlink("/dev/null", path), 0);
    assert_int_equal(open_error(USERS_CREATE, &err), -ELOOP);
    assert_int_equal(open_error(USERS_READ, &err), ERR_STORE);
    unlink(path);
}

static void damaged_rows_and_other_versions_are_refused(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a'), got;
    struct err err;
    sqlite3 *db;
    assert_int_equal(users_add(users, STR("anna"), NULL, 0, &a, 1, &err), 0);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE users SET stored_key = x'00'", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(users_find(users, STR("anna"), &got, &err), ERR_CORRUPT);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 3", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(open_error(USERS_READ, &err), ERR_STORE);
    assert_non_null(strstr(err.text, "version 3"));
    users_close(&users);
}

static void keeps_nt_hashes_of_some(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a'), b = verifier_of('b'), got;
    unsigned char hash[USERS_NT_HASH_BYTES];
    struct err err;
    b.nt_hash_bytes = USERS_NT_HASH_BYTES;
    memset(b.nt_hash, 'n', sizeof b.nt_hash);
    assert_int_equal(users_add(users, STR("anna"), NULL, 0, &a, 1, &err), 0);
    assert_int_equal(users_add(users, STR("bob"), NULL, 0, &b, 1, &err), 0);
    assert_int_equal(users_find_nt(users, STR("anna"), hash, &err), 0);
    assert_int_equal(users_find_nt(users, STR("carl"), hash, &err), ERR_ABSENT);
    assert_int_equal(users_find_nt(users, STR("bob"), hash, &err), 1);
    assert_memory_equal(hash, b.nt_hash, sizeof hash);
    assert_int_equal(users_find(users, STR("bob"), &got, &err), 0);
    assert_int_equal(got.nt_hash_bytes, 0); /* who does not ask for it does not get it */
    assert_int_equal(users_set_password(users, STR("anna"), &b, 2, &err), 0);
    assert_int_equal(users_set_password(users, STR("bob"), &a, 2, &err), 0);
    assert_int_equal(users_find_nt(users, STR("anna"), hash, &err), 1);
    assert_int_equal(users_find_nt(users, STR("bob"), hash, &err), 0);
    b.nt_hash_bytes = 15;
    assert_true(users_set_password(users, STR("bob"), &b, 2, &err) < 0);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE users SET nt_hash = x'00'", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(users_find_nt(users, STR("anna"), hash, &err), ERR_CORRUPT);
    users_close(&users);
}

static int count_nt(void *arg, const struct users_entry *entry)
{
    *(int *)arg += entry->has_nt_hash ? 100 : 1;
    return 0;
}

/* As version 1 wrote it: read as it is, and brought to version 2 by the first who writes. */
static void stores_of_version_1_go_on(void **state)
{
    static const char old[] =
        "CREATE TABLE users (name TEXT PRIMARY KEY NOT NULL, salt BLOB NOT NULL, iterations INTEGER NOT NULL,"
        " stored_key BLOB NOT NULL, server_key BLOB NOT NULL, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL)"
        " STRICT, WITHOUT ROWID;"
        "CREATE TABLE addresses (address TEXT PRIMARY KEY NOT NULL, user TEXT NOT NULL REFERENCES users (name)"
        " ON DELETE CASCADE) STRICT, WITHOUT ROWID;"
        "CREATE INDEX addresses_user ON addresses (user);"
        "CREATE TABLE store (secret BLOB NOT NULL) STRICT;"
        "INSERT INTO store VALUES (zeroblob(32));"
        "INSERT INTO users VALUES ('anna', x'00', 4096, zeroblob(32), zeroblob(32), 1, 1);"
        "PRAGMA application_id = 1349743701; PRAGMA user_version = 1;";
    unsigned char hash[USERS_NT_HASH_BYTES];
    struct users_verifier b = verifier_of('b'), got;
    struct err err;
    int sum = 0;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, old, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);

    struct users *reader = open_as(USERS_READ);
    assert_int_equal(users_find(reader, STR("anna"), &got, &err), 0);
    assert_int_equal(users_find_nt(reader, STR("anna"), hash, &err), 0);
    assert_int_equal(users_find_nt(reader, STR("bob"), hash, &err), ERR_ABSENT);
    assert_int_equal(users_list(reader, count_nt, &sum, &err), 0);
    assert_int_equal(sum, 1);

    struct users *writer = open_as(USERS_WRITE);
    b.nt_hash_bytes = USERS_NT_HASH_BYTES;
    assert_int_equal(users_find(writer, STR("anna"), &got, &err), 0);
    assert_int_equal(users_set_password(writer, STR("anna"), &b, 2, &err), 0);
    assert_int_equal(users_find_nt(reader, STR("anna"), hash, &err), 1); /* the daemon's handle from before sees it */
    assert_int_equal(users_list(reader, count_nt, &sum, &err), 0);
    assert_int_equal(sum, 101);
    users_close(&writer);
    writer = open_as(USERS_WRITE);
    users_close(&writer);
    users_close(&reader);
}

static void a_folder_may_be_a_link(void **state)
{
    struct users_options options = { .mode = USERS_CREATE, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users *users;
    char link[80], through[100];
    snprintf(link, sizeof link, "%s-link", folder);
    snprintf(through, sizeof through, "%s/users.db", link);
    assert_int_equal(symlink(folder, link), 0);
    assert_int_equal(users_open(through, &options, &users, NULL), 0);
    assert_false(users_replaced(users));
    users_close(&users);
    unlink(link);
    struct err err;
    assert_int_equal(users_open(through, &options, &users, &err), ERR_ABSENT);
    assert_non_null(strstr(err.text, "postern setup"));
    users = open_as(USERS_READ);
    users_close(&users);
}

/* A writer that dies in the middle leaves its journal; only a writer can roll it back. */
static void an_interrupted_change_is_rolled_back_by_a_writer(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    struct users_verifier a = verifier_of('a'), got;
    struct err err;
    int status;
    char name[300];
    memset(name, 'n', sizeof name);
    for (int i = 0; i < 100; i++) {
        int n = snprintf(name, sizeof name, "user%0200d", i);
        assert_int_equal(users_add(users, str_slice(name, (size_t)n), NULL, 0, &a, 1, &err), 0);
    }
    users_close(&users);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sqlite3 *db;
        sqlite3_open(path, &db);
        int rc = sqlite3_exec(db, "PRAGMA cache_size = 2; PRAGMA cache_spill = 2; BEGIN; UPDATE users SET salt = x'00', iterations = 1",
                              NULL, NULL, NULL);
        _exit(rc == SQLITE_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(open_error(USERS_READ, &err), ERR_STORE);
    assert_non_null(strstr(err.text, "postern user list"));
    users = open_as(USERS_WRITE);
    assert_int_equal(users_find(users, str_of(name), &got, &err), 0);
    assert_memory_equal(&got, &a, sizeof a);
    users_close(&users);
    users = open_as(USERS_READ);
    assert_int_equal(users_find(users, str_of(name), &got, &err), 0);
    users_close(&users);
}

static void notices_that_the_file_was_replaced(void **state)
{
    struct users *users = open_as(USERS_CREATE);
    assert_false(users_replaced(users));
    unlink(path);
    assert_true(users_replaced(users));
    struct users *other = open_as(USERS_CREATE);
    assert_true(users_replaced(users));
    assert_false(users_replaced(other));
    users_close(&other);
    users_close(&users);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(missing_file_is_not_made_by_a_reader),
        IN_FOLDER(keeps_what_was_added),
        IN_FOLDER(changes_are_all_or_nothing),
        IN_FOLDER(refuses_names_that_cannot_be),
        IN_FOLDER(lists_by_name),
        IN_FOLDER(a_writer_makes_others_wait),
        IN_FOLDER(foreign_and_damaged_files_are_refused),
        IN_FOLDER(damaged_rows_and_other_versions_are_refused),
        IN_FOLDER(keeps_nt_hashes_of_some),
        IN_FOLDER(stores_of_version_1_go_on),
        IN_FOLDER(a_folder_may_be_a_link),
        IN_FOLDER(an_interrupted_change_is_rolled_back_by_a_writer),
        IN_FOLDER(notices_that_the_file_was_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
