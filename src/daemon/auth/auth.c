/* The auth role. smtpd asks for logins of clients (inbound.c), delivery for logins at next hops (outbound.c).
 *
 * Happy path: a message comes through a peer's channel, the exchange takes a step, the answer goes back in the same
 * turn. What costs CPU or may wait (PBKDF2, a user store that is being written) goes to a worker thread and comes
 * back to the loop.
 * Ways to fail: the store is missing or damaged (454 4.7.0 and an event, until it is there); too much waits (454
 * 4.7.0); a peer speaks nonsense or goes away (its exchanges are dropped, jobs run into the void). */
#include "daemon/auth/auth.h"

#include <stdlib.h>
#include <unistd.h>

#include "conf/layout.h"
#include "daemon/auth/identify.h"
#include "daemon/auth/kerberos.h"
#include "daemon/auth/ntlm_check.h"
#include "daemon/auth/outbound.h"
#include "directory/winbind.h"
#include "kerberos/library.h"
#include "kerberos/seal.h"
#include "policy/identity.h"
#include "sasl/ntlm_crypto.h"

enum { STORE_LOG_INTERVAL_MS = 60000, THREADS_MAX = 8, SANDBOX_TEXT_MAX = 64 * 1024 };

struct bind_password {
    struct bind_password *next;
    struct secret *secret;     /* NULL: the file was not usable */
    char realm[];
};

/* An identity table that waits for its snapshot. */
struct table_file {
    struct table_file *next;
    int fd;
    char name[];
};

static struct auth *state_of(struct role_ctx *ctx)
{
    if (!ctx->state) {
        struct auth *auth = calloc(1, sizeof *auth);
        if (auth)
            auth->ctx = ctx;
        ctx->state = auth;
    }
    return ctx->state;
}

static void stop_when_idle(struct auth *auth)
{
    if (auth->draining && auth->n_sessions == 0)
        loop_stop(auth->ctx->loop);
}

bool auth_session_begin(struct auth *auth)
{
    if (auth->draining || auth->n_sessions >= AUTH_SESSIONS_MAX)
        return false;
    auth->n_sessions++;
    return true;
}

void auth_session_end(struct auth *auth)
{
    auth->n_sessions--;
    stop_when_idle(auth);
}

void auth_store_failed(struct auth *auth, const struct err *err)
{
    int64_t now = loop_now_ms(auth->ctx->loop);
    if (auth->store_failure_logged_ms && now - auth->store_failure_logged_ms < STORE_LOG_INTERVAL_MS)
        return;
    auth->store_failure_logged_ms = now;
    log_event(auth->ctx->log, LOG_LEVEL_ERROR, "auth.store.failed", "%s; logins get 454 4.7.0 until it can be read",
              err_text(err));
}

static void on_closed(void *arg, const struct err *why);

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct auth_peer *peer = arg;
    bool ok;
    if (peer->role == ROLE_DELIVERY)
        ok = outbound_message(peer->auth->outbound, peer, type, id, body);
    else /* the queue asks who exists, and logs nobody in */
        ok = (peer->role == ROLE_SMTPD || type == IPC_USER_QUERY) &&
             inbound_message(peer->auth->inbound, peer, type, id, body);
    if (ok)
        return;
    log_event(peer->auth->ctx->log, LOG_LEVEL_ERROR, "auth.peer.malformed", "%s %u sent a malformed message, type %u",
              role_name(peer->role), peer->index, type);
    on_closed(peer, NULL);
}

static void on_closed(void *arg, const struct err *why)
{
    struct auth_peer *peer = arg;
    struct auth *auth = peer->auth;
    inbound_peer_gone(auth->inbound, peer);
    outbound_peer_gone(auth->outbound, peer);
    channel_free(&peer->channel);
    for (struct auth_peer **at = &auth->peers; *at; at = &(*at)->next) {
        if (*at == peer) {
            *at = peer->next;
            break;
        }
    }
    free(peer);
}

static const struct channel_handlers peer_handlers = { .message = on_message, .closed = on_closed };

static int open_peer(struct auth_peer *peer, struct err *err)
{
    int fd = peer->fd;
    peer->fd = -1;
    return channel_open(peer->auth->ctx->loop, fd, &peer_handlers, peer, &peer->channel, err);
}

static void take_peer(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds)
{
    struct auth *auth = state_of(ctx);
    bool asks = role == ROLE_SMTPD || role == ROLE_DELIVERY || role == ROLE_QUEUE;
    struct auth_peer *peer = auth && asks ? calloc(1, sizeof *peer) : NULL;
    for (size_t i = peer ? 1 : 0; i < n_fds; i++)
        close(fds[i]);
    if (!peer)
        return;
    *peer = (struct auth_peer){ .auth = auth, .role = role, .index = index, .fd = fds[0], .next = auth->peers };
    auth->peers = peer;
    struct err err;
    if (auth->pool && open_peer(peer, &err) < 0) {
        log_event(ctx->log, LOG_LEVEL_ERROR, "auth.peer.failed", "%s", err_text(&err));
        on_closed(peer, &err);
    }
}

static void free_bind_passwords(struct bind_password **list)
{
    while (*list) {
        struct bind_password *password = *list;
        *list = password->next;
        secret_free(&password->secret);
        free(password);
    }
}

static void take_bind_password(struct auth *auth, const struct ipc_file *file, int fd)
{
    struct bind_password *password = calloc(1, sizeof *password + file->name.n + 1);
    if (password) {
        str_copy(file->name, password->realm, file->name.n + 1);
        password->secret = auth_read_password(fd);
        password->next = auth->next_bind_passwords;
        auth->next_bind_passwords = password;
    }
    close(fd);
}

const struct secret *auth_bind_password(const struct auth *auth, const char *realm)
{
    for (const struct bind_password *password = auth->bind_passwords; password; password = password->next)
        if (strcmp(password->realm, realm) == 0)
            return password->secret;
    return NULL;
}

/* Keytabs come with a snapshot, and one by one whenever a file has changed: then they are in use at once. */
static void take_keytab(struct auth *auth, const struct ipc_file *file, int fd)
{
    struct auth_keytab *keytab = auth_keytab_new(auth, file, fd);
    close(fd);
    if (!keytab)
        return;
    bool within_snapshot = !auth->keytabs || auth->ctx->snapshot_coming;
    if (within_snapshot && !auth->next_keytabs)
        auth->next_keytabs = auth_keytabs_new();
    struct auth_keytabs *into = within_snapshot ? auth->next_keytabs : auth->keytabs;
    if (into)
        auth_keytabs_put(into, keytab);
    else
        auth_keytab_unref(&keytab);
}

static void take_table(struct auth *auth, const struct ipc_file *file, int fd)
{
    struct table_file *table = calloc(1, sizeof *table + file->name.n + 1);
    if (!table || !str_copy(file->name, table->name, file->name.n + 1)) {
        free(table);
        close(fd);
        return;
    }
    table->fd = fd;
    table->next = auth->tables;
    auth->tables = table;
}

static void take_file(struct role_ctx *ctx, const struct ipc_file *file, int fd)
{
    struct auth *auth = state_of(ctx);
    struct err err;
    if (auth && !auth->outbound && outbound_new(auth, &auth->outbound, &err) < 0)
        auth->outbound = NULL;
    if (auth && auth->outbound && file->kind == IPC_FILE_PASSWORD)
        outbound_password_file(auth->outbound, file->name, fd);
    else if (auth && file->kind == IPC_FILE_KEYTAB)
        take_keytab(auth, file, fd);
    else if (auth && file->kind == IPC_FILE_BIND_PASSWORD)
        take_bind_password(auth, file, fd);
    else if (auth && file->kind == IPC_FILE_IDENTITY)
        take_table(auth, file, fd);
    else
        close(fd);
}

static void put_table(struct auth *auth, struct identity_rules *rules, const struct table_file *table)
{
    struct buf text;
    struct err err;
    buf_init(&text, IDENTITY_TABLE_MAX);
    if (role_read_file(table->fd, &text, &err) < 0 ||
        identity_rules_table(rules, str_of(table->name), buf_str(&text), &err) < 0)
        log_event(auth->ctx->log, LOG_LEVEL_ERROR, "auth.identity.failed", "identity \"%s\": %s", table->name,
                  err_text(&err));
    buf_done(&text);
}

static void use_rules(struct auth *auth)
{
    struct identity_rules *rules = NULL;
    struct err err;
    int rc = identity_rules_new(auth->ctx->conf, &rules, &err);
    if (rc < 0)
        log_event(auth->ctx->log, LOG_LEVEL_ERROR, "auth.identity.failed", "%s", err_text(&err));
    while (auth->tables) {
        struct table_file *table = auth->tables;
        auth->tables = table->next;
        if (rules)
            put_table(auth, rules, table);
        close(table->fd);
        free(table);
    }
    if (!rules)
        return;
    identity_rules_unref(&auth->rules);
    conf_unref(&auth->rules_conf);
    auth->rules = rules;
    auth->rules_conf = conf_ref(auth->ctx->conf);
}

static void use_keytabs(struct auth *auth)
{
    auth_keytabs_free(&auth->keytabs);
    auth->keytabs = auth->next_keytabs ? auth->next_keytabs : auth_keytabs_new();
    auth->next_keytabs = NULL;
    free(auth->rcache);
    if (asprintf(&auth->rcache, "file2:%s/rcache", auth->ctx->conf->auth_state) < 0)
        auth->rcache = NULL;
}

static void use_store(struct auth *auth)
{
    const char *path = auth->ctx->conf->users;
    if (auth->store && strcmp(auth_store_path(auth->store), path) == 0)
        return;
    struct auth_store *store = auth_store_new(path);
    if (!store)
        return;
    auth_store_unref(&auth->store);
    auth->store = store;
}

static void restart_if_closed_in(struct auth *auth);
static void drain(struct role_ctx *ctx);

/* The path may be another one; handles in use stay with the old store until they are given back. */
static void configured(struct role_ctx *ctx)
{
    struct auth *auth = state_of(ctx);
    if (!auth)
        return; /* start() says so */
    use_store(auth);
    use_keytabs(auth);
    free_bind_passwords(&auth->bind_passwords);
    auth->bind_passwords = auth->next_bind_passwords;
    auth->next_bind_passwords = NULL;
    use_rules(auth);
    auth->store_failure_logged_ms = 0;
    if (auth->outbound)
        outbound_configured(auth->outbound);
    restart_if_closed_in(auth);
}

/* OpenSSL and SQLite load and seed what they need at first use: before the sandbox. The look at the store tells the
 * administrator at once when it is not there; many a site has no users, so it ends nothing. */
static int warm(struct auth *auth, struct err *err)
{
    struct sasl_verifier verifier;
    struct err store_err = { 0 };
    int rc = sasl_verifier_make(STR("password"), STR("salt"), SASL_ITERATIONS_MIN, &verifier, err);
    if (rc == 0)
        rc = krb_init(auth->ctx->conf->krb5_config, err);
    if (rc == 0)
        rc = krb_seal_init(err);
    if (rc == 0)
        rc = krb_warm_up(err);
    if (rc < 0)
        return rc;
    if (ntlm_crypto_init(&store_err) < 0)
        log_event(auth->ctx->log, LOG_LEVEL_WARNING, "auth.ntlm.unavailable", "%s", err_text(&store_err));
    if (auth_store_exists(auth->store, STORE_LOOP, STR("postmaster"), &store_err) < 0)
        log_event(auth->ctx->log, LOG_LEVEL_WARNING, "auth.store.failed", "%s", err_text(&store_err));
    return 0;
}

static void drain_is_over(void *arg)
{
    struct auth *auth = arg;
    loop_stop(auth->ctx->loop);
}

/* Each kind of waiting has threads of its own, all made now: no thread can be made once the sandbox is closed. */
static int make_pools(struct auth *auth, unsigned cores, struct err *err)
{
    const struct {
        const char *name;
        unsigned threads, queue_max;
        struct worker_pool **pool;
    } pools[] = {
        { "auth-hash", cores, AUTH_QUEUE_MAX, &auth->pool },
        { "auth-accept", cores, AUTH_QUEUE_MAX, &auth->accept_pool },
        { "auth-initiate", OUTBOUND_INITIATE_THREADS, 200, &auth->initiate_pool },
        { "auth-winbind", NTLM_CHECK_THREADS, 500, &auth->winbind_pool },
        { "auth-ldap", IDENTIFY_THREADS, 500, &auth->directory_pool },
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof pools / sizeof pools[0]; i++)
        rc = worker_pool_new(auth->ctx->loop, pools[i].name, pools[i].threads, pools[i].queue_max, pools[i].pool, err);
    return rc;
}

static int start(struct role_ctx *ctx, struct err *err)
{
    struct auth *auth = state_of(ctx);
    if (auth) {
        auth->cache = auth_cache_new();
        auth->limits = auth_limits_new();
    }
    if (!auth || !auth->cache || !auth->limits || !auth->store)
        return err_errno(err, ENOMEM, "auth");
    int rc = inbound_new(auth, &auth->inbound, err);
    if (rc == 0 && !auth->outbound)
        rc = outbound_new(auth, &auth->outbound, err);
    if (rc == 0)
        rc = warm(auth, err);
    if (rc == 0)
        rc = loop_timer_new(ctx->loop, drain_is_over, auth, &auth->drain_timer, err);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (unsigned)cores;
    if (rc == 0)
        rc = make_pools(auth, threads, err);
    for (struct auth_peer *peer = auth->peers, *next; peer && rc == 0; peer = next) {
        next = peer->next;
        rc = open_peer(peer, err);
    }
    return rc;
}

void auth_free(struct role_ctx *ctx)
{
    struct auth *auth = ctx->state;
    while (auth->peers)
        on_closed(auth->peers, NULL);
    inbound_free(&auth->inbound);
    outbound_free(&auth->outbound);
    worker_pool_free(&auth->pool);
    worker_pool_free(&auth->accept_pool);
    worker_pool_free(&auth->initiate_pool);
    worker_pool_free(&auth->winbind_pool);
    worker_pool_free(&auth->directory_pool);
    auth_keytabs_free(&auth->keytabs);
    auth_keytabs_free(&auth->next_keytabs);
    free_bind_passwords(&auth->bind_passwords);
    free_bind_passwords(&auth->next_bind_passwords);
    identity_rules_unref(&auth->rules);
    conf_unref(&auth->rules_conf);
    free(auth->rcache);
    buf_done(&auth->sandbox_paths);
    loop_timer_free(&auth->drain_timer);
    auth_store_unref(&auth->store);
    auth_cache_free(&auth->cache);
    auth_limits_free(&auth->limits);
    free(auth);
    ctx->state = NULL;
}

static void drain(struct role_ctx *ctx)
{
    struct auth *auth = ctx->state;
    auth->draining = true;
    loop_timer_set(auth->drain_timer, AUTH_DRAIN_MS);
    stop_when_idle(auth);
}

/* ---- sandbox ---- */

static bool initiates(const struct conf *conf)
{
    bool any = conf->n_directories > 0;
    for (size_t i = 0; i < conf->n_domains; i++)
        any = any || conf->domain[i].principal;
    return any;
}

static void add_path(struct buf *text, char right, const char *path)
{
    buf_addf(text, "%c%s", right, path);
    buf_add_char(text, 0);
}

/* What this configuration needs, as "r/path", "w/path", with a NUL behind each, and "c" for sockets. The folder of the
 * store, because SQLite looks for a journal beside it, and because the file may be replaced. */
static void list_needs(const struct conf *conf, struct buf *text)
{
    static const char *const resolving[] = { "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf",
                                             "/etc/gai.conf", "/etc/services", "/run/systemd/resolve", "/etc/ssl",
                                             "/usr/share/ca-certificates", "/etc/ldap", "/usr/lib", "/lib", "/etc/sasl2",
                                             "/etc/ld.so.cache", "/etc/protocols" };
    char folder[4096];
    const char *slash = strrchr(conf->users, '/');
    size_t n = slash ? (size_t)(slash - conf->users) : 0;
    if (n > 0 && str_copy(str_slice(conf->users, n), folder, sizeof folder))
        add_path(text, 'r', folder);
    add_path(text, 'r', "/dev/urandom");
    if (!layout_uses_kerberos(conf) && !layout_uses_ntlm(conf))
        return;
    add_path(text, 'w', conf->auth_state);
    add_path(text, 'r', conf->krb5_config ? conf->krb5_config : "/etc/krb5.conf");
    add_path(text, 'r', "/etc/krb5.conf.d");
    add_path(text, 'r', "/etc/gss");
    add_path(text, 'r', "/etc/passwd"); /* krb5 looks itself up */
    add_path(text, 'r', "/etc/nsswitch.conf");
    if (!initiates(conf) && !layout_uses_ntlm(conf))
        return;
    for (size_t i = 0; i < sizeof resolving / sizeof resolving[0]; i++)
        add_path(text, 'r', resolving[i]);
    for (size_t i = 0; i < conf->n_directories; i++)
        if (conf->directory[i].ca)
            add_path(text, 'r', conf->directory[i].ca);
    if (layout_uses_ntlm(conf)) {
        add_path(text, 'r', WINBIND_PIPE_FOLDER);
        add_path(text, 'r', WINBIND_PRIVILEGED_FOLDER);
    }
    add_path(text, 'c', "");
}

static void fill_sandbox(const struct role_ctx *ctx, struct sandbox *sandbox)
{
    struct auth *auth = ctx->state;
    buf_init(&auth->sandbox_paths, SANDBOX_TEXT_MAX);
    list_needs(ctx->conf, &auth->sandbox_paths);
    sandbox->may_open = true;
    for (const char *p = auth->sandbox_paths.p; p && p < auth->sandbox_paths.p + auth->sandbox_paths.n;
         p += strlen(p) + 1) {
        if (*p == 'c')
            sandbox->may_connect = true;
        else
            sandbox_allow(sandbox, *p == 'w' ? SANDBOX_PATH_WRITE : SANDBOX_PATH_READ, p + 1);
    }
}

/* The sandbox cannot be opened again: a configuration that needs more is served by a new process. */
static void restart_if_closed_in(struct auth *auth)
{
    struct buf needs;
    if (!auth->sandbox_paths.n || auth->draining)
        return;
    buf_init(&needs, SANDBOX_TEXT_MAX);
    list_needs(auth->ctx->conf, &needs);
    if (!str_eq(buf_str(&needs), buf_str(&auth->sandbox_paths))) {
        log_event(auth->ctx->log, LOG_LEVEL_NOTICE, "auth.restart",
                  "the configuration names other files or services: a new process will serve it");
        drain(auth->ctx);
    }
    buf_done(&needs);
}

const struct role role_auth = {
    .id = ROLE_AUTH, .process_name = "auth", .user_suffix = "-auth",
    .start = start, .file = take_file, .peer = take_peer, .configured = configured, .drain = drain,
    .sandbox = fill_sandbox,
};
