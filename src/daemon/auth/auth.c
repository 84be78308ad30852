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

enum { STORE_LOG_INTERVAL_MS = 60000, THREADS_MAX = 8 };

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
    bool ok = peer->role == ROLE_QUEUE && type != IPC_USER_QUERY ? false
              : peer->role != ROLE_DELIVERY                      ? inbound_message(peer->auth->inbound, peer, type, id, body)
                                                                 : outbound_message(peer->auth->outbound, peer, type, id, body);
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
    struct auth_peer *peer = auth && (role == ROLE_SMTPD || role == ROLE_DELIVERY || role == ROLE_QUEUE) ? calloc(1, sizeof *peer) : NULL;
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

static void take_file(struct role_ctx *ctx, const struct ipc_file *file, int fd)
{
    struct auth *auth = state_of(ctx);
    struct err err;
    if (auth && !auth->outbound && outbound_new(auth, &auth->outbound, &err) < 0)
        auth->outbound = NULL;
    if (auth && auth->outbound && file->kind == IPC_FILE_PASSWORD)
        outbound_password_file(auth->outbound, file->name, fd);
    else
        close(fd);
}

/* The path may be another one; handles in use stay with the old store until they are given back. */
static void configured(struct role_ctx *ctx)
{
    struct auth *auth = state_of(ctx);
    if (!auth)
        return; /* start() says so */
    if (!auth->store || strcmp(auth_store_path(auth->store), ctx->conf->users) != 0) {
        struct auth_store *store = auth_store_new(ctx->conf->users);
        if (store) {
            auth_store_unref(&auth->store);
            auth->store = store;
        }
    }
    auth->store_failure_logged_ms = 0;
    if (auth->outbound)
        outbound_configured(auth->outbound);
}

/* OpenSSL and SQLite load and seed what they need at first use: before the sandbox. The look at the store tells the
 * administrator at once when it is not there; many a site has no users, so it ends nothing. */
static int warm(struct auth *auth, struct err *err)
{
    struct sasl_verifier verifier;
    struct err store_err = { 0 };
    int rc = sasl_verifier_make(STR("password"), STR("salt"), SASL_ITERATIONS_MIN, &verifier, err);
    if (rc < 0)
        return rc;
    if (auth_store_exists(auth->store, STORE_LOOP, STR("postmaster"), &store_err) < 0)
        log_event(auth->ctx->log, LOG_LEVEL_WARNING, "auth.store.failed", "%s", err_text(&store_err));
    return 0;
}

static void drain_is_over(void *arg)
{
    struct auth *auth = arg;
    loop_stop(auth->ctx->loop);
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
        rc = worker_pool_new(ctx->loop, "auth-hash", threads, AUTH_QUEUE_MAX, &auth->pool, err);
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

/* The folder of the store, because SQLite looks for a journal beside it, and because the file may be replaced. The
 * text must live as long as sandbox_drop() needs it. */
static void fill_sandbox(const struct role_ctx *ctx, struct sandbox *sandbox)
{
    static char folder[4096];
    const char *slash = strrchr(ctx->conf->users, '/');
    size_t n = slash ? (size_t)(slash - ctx->conf->users) : 0;
    sandbox->may_open = true;
    if (n > 0 && str_copy(str_slice(ctx->conf->users, n), folder, sizeof folder))
        sandbox_allow(sandbox, SANDBOX_PATH_READ, folder);
    sandbox_allow(sandbox, SANDBOX_PATH_READ, "/dev/urandom");
}

const struct role role_auth = {
    .id = ROLE_AUTH, .process_name = "auth", .user_suffix = "-auth",
    .start = start, .file = take_file, .peer = take_peer, .configured = configured, .drain = drain,
    .sandbox = fill_sandbox,
};
