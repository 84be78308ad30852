/* postern user: who may log in. Works on the store itself, whether the daemon runs or not: it reads every change at
 * its next login. Run as root, the store and the folder it lies in are given to the users that need them. */
#include <assert.h>
#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/secret.h"
#include "cli/cli.h"
#include "cli/user_password.h"
#include "directory/users.h"
#include "io/now.h"
#include "sasl/ntlm_crypto.h"
#include "sasl/sasl.h"

enum { BUSY_TIMEOUT_MS = 5000 };

/* What a subcommand works with. */
struct job {
    const struct cli_options *options;
    const struct conf *conf;
    char name[SASL_USER_MAX + 1];
    size_t name_n;
    struct str addresses[USERS_ADDRESSES_MAX];
    size_t n_addresses;
    bool ntlm, no_ntlm; /* --ntlm, --no-ntlm */
};

static int status_of(int code)
{
    static const struct {
        int code, status;
    } table[] = {
        { ERR_SYNTAX, EX_DATAERR },  { ERR_CORRUPT, EX_DATAERR }, { ERR_LIMIT, EX_DATAERR },  { ERR_ABSENT, CLI_NO },
        { ERR_EXISTS, EX_CANTCREAT }, { ERR_BUSY, EX_TEMPFAIL },  { ERR_CONFIG, EX_CONFIG },  { ERR_STORE, EX_IOERR },
        { -EACCES, EX_NOPERM },      { -EPERM, EX_NOPERM },       { -EROFS, EX_CANTCREAT },   { -ENOENT, EX_CANTCREAT },
        { -ENOTDIR, EX_CANTCREAT },  { -EISDIR, EX_CANTCREAT },   { -ELOOP, EX_CANTCREAT },   { -ENOSPC, EX_CANTCREAT },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].code == code)
            return table[i].status;
    return EX_OSERR;
}

static int fail(int code, const struct err *err)
{
    return cli_fail((enum cli_exit)status_of(code), "%s", err_text(err));
}

/* As root: the system user that the stem and a suffix name. Otherwise the ids that mean "leave it". */
static int find_owner(const struct conf *conf, const char *suffix, uid_t *ret_uid, gid_t *ret_gid, struct err *err)
{
    *ret_uid = (uid_t)-1;
    *ret_gid = (gid_t)-1;
    if (geteuid() != 0)
        return 0;
    char name[256];
    snprintf(name, sizeof name, "%s%s", conf->user, suffix);
    const struct passwd *pw = getpwnam(name);
    if (!pw)
        return err_set(err, ERR_CONFIG, "there is no user %s; run: postern setup", name);
    *ret_uid = pw->pw_uid;
    *ret_gid = pw->pw_gid;
    return 0;
}

/* The last part of the path to the store's folder; `postern setup` makes all of it. */
static int make_folder(const struct conf *conf, struct err *err)
{
    char folder[4096];
    const char *slash = strrchr(conf->users, '/');
    size_t n = slash ? (size_t)(slash - conf->users) : 0;
    if (n == 0 || !str_copy(str_slice(conf->users, n), folder, sizeof folder))
        return 0;
    if (access(folder, F_OK) == 0)
        return 0;
    uid_t uid;
    gid_t gid;
    int rc = find_owner(conf, "", &uid, &gid, err);
    if (rc < 0)
        return rc;
    /* Others may walk through it, as the roles do; the store itself is its owner's alone. */
    if (mkdir(folder, 0755) != 0)
        return err_errno(err, errno, "cannot make the folder %s; run: postern setup", folder);
    if (uid != (uid_t)-1 && lchown(folder, uid, gid) != 0)
        return err_errno(err, errno, "cannot give the folder %s to user %s", folder, conf->user);
    return 0;
}

static int open_store(const struct job *job, enum users_mode mode, struct users **ret_users, struct err *err)
{
    struct users_options options = { .mode = mode, .busy_timeout_ms = BUSY_TIMEOUT_MS };
    int rc = mode == USERS_READ ? 0 : find_owner(job->conf, "-auth", &options.owner, &options.group, err);
    if (rc == 0 && mode == USERS_CREATE)
        rc = make_folder(job->conf, err);
    return rc < 0 ? rc : users_open(job->conf->users, &options, ret_users, err);
}

/* Of the password as it was typed: clients of NTLM do not prepare it. Who asked for it is told what that means. */
static int add_nt_hash(const struct job *job, const char *raw, struct users_verifier *verifier, struct err *err)
{
    static_assert((int)USERS_NT_HASH_BYTES == (int)NTLM_HASH_BYTES, "one kind of hash");
    int rc = ntlm_crypto_init(err);
    if (rc < 0)
        return rc;
    if (!ntlm_crypto_nt_hash(str_of(raw), verifier->nt_hash))
        return err_set(err, ERR_SYNTAX, "cannot make an NT hash of this password: it is not UTF-8");
    verifier->nt_hash_bytes = USERS_NT_HASH_BYTES;
    if (job->ntlm)
        fprintf(stderr, "postern: an NT hash of the password is stored as well; it is as good as the password: keep %s and "
                "its backups as safe\n", job->conf->users);
    return 0;
}

/* Asks for the password and turns it into what is stored. */
static int make_verifier(const struct job *job, bool with_nt, struct users_verifier *ret_verifier, struct err *err)
{
    char raw[USER_PASSWORD_INPUT_MAX + 1], prepared[SASL_PASSWORD_MAX + 1];
    unsigned char salt[SASL_SALT_BYTES];
    struct sasl_verifier v;
    size_t n = 0;
    int rc = user_password_read(STDIN_FILENO, raw, err);
    if (rc == 0 && raw[0] == 0)
        rc = err_set(err, ERR_SYNTAX, "an empty password is refused");
    if (rc == 0 && !sasl_prep(str_of(raw), SASL_PASSWORD_MAX, prepared, &n))
        rc = err_set(err, ERR_SYNTAX, "the password holds a character that no mechanism can carry (RFC 4013), is not UTF-8, "
                     "or is longer than %d octets", SASL_PASSWORD_MAX);
    now_random(salt, sizeof salt);
    if (rc == 0)
        rc = sasl_verifier_make(str_slice(prepared, n), str_slice(salt, sizeof salt), SASL_ITERATIONS, &v, err);
    if (rc == 0) {
        *ret_verifier = (struct users_verifier){ .salt_bytes = v.salt_bytes, .iterations = v.iterations };
        memcpy(ret_verifier->salt, v.salt, v.salt_bytes);
        memcpy(ret_verifier->stored_key, v.stored_key, sizeof v.stored_key);
        memcpy(ret_verifier->server_key, v.server_key, sizeof v.server_key);
        if (with_nt)
            rc = add_nt_hash(job, raw, ret_verifier, err);
    }
    secret_wipe(raw, sizeof raw);
    secret_wipe(prepared, sizeof prepared);
    secret_wipe(&v, sizeof v);
    return rc;
}

/* The store is opened before the password is asked for: nobody types one for nothing. */
static int run_add(struct job *job)
{
    struct users *users = NULL;
    struct users_verifier verifier;
    struct err err = { 0 };
    struct str name = str_slice(job->name, job->name_n);
    int rc = open_store(job, USERS_CREATE, &users, &err);
    if (rc == 0 && (rc = users_find(users, name, &verifier, &err)) == 0)
        rc = err_set(&err, ERR_EXISTS, "the user %s exists; `postern user passwd %s` sets a new password", job->name, job->name);
    else if (rc == ERR_ABSENT)
        rc = make_verifier(job, job->ntlm, &verifier, &err);
    if (rc == 0)
        rc = users_add(users, name, job->addresses, job->n_addresses, &verifier, now_wall_ms(), &err);
    users_close(&users);
    secret_wipe(&verifier, sizeof verifier);
    return rc < 0 ? fail(rc, &err) : CLI_OK;
}

/* A store that is not there holds no user: both are "no such user" to a script. A user who can use NTLM goes on so: the
 * old hash would let the old password in. */
static int run_passwd(struct job *job)
{
    unsigned char old_hash[USERS_NT_HASH_BYTES];
    struct users *users = NULL;
    struct users_verifier verifier;
    struct err err = { 0 };
    struct str name = str_slice(job->name, job->name_n);
    int rc = open_store(job, USERS_WRITE, &users, &err);
    if (rc == 0)
        rc = users_find_nt(users, name, old_hash, &err);
    secret_wipe(old_hash, sizeof old_hash);
    if (rc >= 0)
        rc = make_verifier(job, (rc == 1 || job->ntlm) && !job->no_ntlm, &verifier, &err);
    if (rc == 0)
        rc = users_set_password(users, name, &verifier, now_wall_ms(), &err);
    users_close(&users);
    secret_wipe(&verifier, sizeof verifier);
    return rc < 0 ? fail(rc, &err) : CLI_OK;
}

static int run_delete(struct job *job)
{
    struct users *users = NULL;
    struct err err = { 0 };
    int rc = open_store(job, USERS_WRITE, &users, &err);
    if (rc == 0)
        rc = users_delete(users, str_slice(job->name, job->name_n), &err);
    users_close(&users);
    return rc < 0 ? fail(rc, &err) : CLI_OK;
}

static int add_text(void *arg, const struct users_entry *entry)
{
    struct buf *text = arg;
    buf_add(text, entry->name);
    if (entry->addresses.n > 0 || entry->has_nt_hash)
        buf_addf(text, "\t%.*s", STR_ARG(entry->addresses));
    if (entry->has_nt_hash)
        buf_add_c(text, "\tntlm");
    return buf_add_char(text, '\n') ? 0 : ERR_LIMIT;
}

static json_t *json_time(int64_t wall_ms)
{
    char text[CLOCK_TEXT_BYTES];
    clock_rfc3339(wall_ms, text);
    return json_string(text);
}

static int add_json(void *arg, const struct users_entry *entry)
{
    json_t *list = arg, *addresses = json_array();
    struct str rest = entry->addresses, address;
    while (rest.n > 0) {
        if (!str_cut(&rest, ' ', &address))
            rest = STR_NONE;
        json_array_append_new(addresses, json_stringn(address.p, address.n));
    }
    json_t *user = json_pack("{s:o, s:o, s:o, s:o, s:I, s:b}", "name", json_stringn(entry->name.p, entry->name.n), "addresses",
                             addresses, "created", json_time(entry->created_ms), "changed", json_time(entry->changed_ms),
                             "iterations", (json_int_t)entry->iterations, "ntlm", (int)entry->has_nt_hash);
    return user && json_array_append_new(list, user) == 0 ? 0 : -ENOMEM;
}

static int collect(const struct job *job, struct users *users, struct buf *out, struct err *err)
{
    if (!job->options->json)
        return users_list(users, add_text, out, err);
    json_t *list = json_array();
    int rc = users_list(users, add_json, list, err);
    json_t *all = json_pack("{s:o}", "users", list);
    char *text = rc == 0 && all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text && !(buf_add_c(out, text) && buf_add_char(out, '\n')))
        rc = ERR_LIMIT;
    else if (!text && rc == 0)
        rc = -ENOMEM;
    free(text);
    json_decref(all);
    return rc;
}

/* Opened for writing where that is possible: a writer completes the roll-back of a change that was interrupted. */
static int run_list(struct job *job)
{
    struct users *users = NULL;
    struct err err = { 0 };
    struct buf out;
    int rc = open_store(job, USERS_WRITE, &users, &err);
    if (rc == -EACCES || rc == -EROFS)
        rc = open_store(job, USERS_READ, &users, &err);
    if (rc < 0)
        return rc == ERR_ABSENT ? cli_fail(CLI_NO_INPUT, "%s", err_text(&err)) : fail(rc, &err);
    buf_init(&out, (size_t)1 << 30);
    rc = collect(job, users, &out, &err);
    users_close(&users);
    if (rc < 0 && !err.code)
        err_set(&err, rc, "the list of users does not fit into memory");
    int status = rc < 0 ? fail(rc, &err) : cli_write(buf_str(&out));
    buf_done(&out);
    return status;
}

static const struct {
    const char *name;
    int (*run)(struct job *job);
    bool takes_name, takes_addresses, takes_ntlm, takes_no_ntlm;
} actions[] = {
    { "add", run_add, true, true, true, false },
    { "passwd", run_passwd, true, false, true, true },
    { "list", run_list, false, false, false, false },
    { "delete", run_delete, true, false, false, false },
};
enum { N_ACTIONS = sizeof actions / sizeof actions[0] };

/* Addresses are compared in lower case. argv is ours to change. */
static int take_address(struct job *job, char *text)
{
    if (job->n_addresses == USERS_ADDRESSES_MAX)
        return cli_fail(CLI_DATA, "a user has at most %d addresses", USERS_ADDRESSES_MAX);
    for (char *at = text; *at; at++)
        *at = ascii_lower(*at);
    job->addresses[job->n_addresses++] = str_of(text);
    return CLI_OK;
}

static int parse(int argc, char **argv, size_t action, struct job *job)
{
    const char *name = NULL;
    for (int i = 2; i < argc; i++) {
        if (actions[action].takes_addresses && strcmp(argv[i], "--address") == 0) {
            if (++i == argc)
                return cli_usage("user", "--address needs a mail address");
            int status = take_address(job, argv[i]);
            if (status != CLI_OK)
                return status;
        } else if (actions[action].takes_ntlm && strcmp(argv[i], "--ntlm") == 0) {
            job->ntlm = true;
        } else if (actions[action].takes_no_ntlm && strcmp(argv[i], "--no-ntlm") == 0) {
            job->no_ntlm = true;
        } else if (argv[i][0] == '-' && argv[i][1] != 0) {
            return cli_usage("user", "unknown option %s", argv[i]);
        } else if (!actions[action].takes_name || name) {
            return cli_usage("user", "%s is one argument too many", argv[i]);
        } else {
            name = argv[i];
        }
    }
    if (job->ntlm && job->no_ntlm)
        return cli_usage("user", "--ntlm and --no-ntlm are opposites");
    if (!actions[action].takes_name)
        return CLI_OK;
    if (!name)
        return cli_usage("user", "%s needs a NAME", actions[action].name);
    if (!sasl_prep_user(str_of(name), job->name, &job->name_n))
        return cli_fail(CLI_DATA, "a user's name is UTF-8 of 1 to %d octets without control characters (RFC 4013)", SASL_USER_MAX);
    return CLI_OK;
}

int cli_user(int argc, char **argv, const struct cli_options *options)
{
    size_t action = 0;
    if (argc < 2)
        return cli_usage("user", "which of add, passwd, list, delete?");
    while (action < N_ACTIONS && strcmp(argv[1], actions[action].name) != 0)
        action++;
    if (action == N_ACTIONS)
        return cli_usage("user", "unknown command %s; there are add, passwd, list and delete", argv[1]);
    struct job job = { .options = options };
    int status = parse(argc, argv, action, &job);
    if (status != CLI_OK)
        return status;
    status = cli_load_conf(options, &job.conf);
    if (status != CLI_OK)
        return status;
    status = actions[action].run(&job);
    conf_unref(&job.conf);
    return status;
}
