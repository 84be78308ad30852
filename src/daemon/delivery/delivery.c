/* The role: what master hands over, and the two channels. The queue's channel carries jobs; when it closes,
 * what had begun ends quietly. Auth's channel carries logins; when it closes, they fail for now.
 * A configuration that names a Maildir root which the sandbox does not know cannot be served by this
 * process: master starts a successor with the right sandbox at once, and this one finishes what it has and exits. */
#include "daemon/delivery/delivery.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/delivery/maildir.h"

enum { ANCHORS_MAX_BYTES = 16 << 20, MAILDIR_THREADS = 8, MAILDIR_WAITING_MAX = 1 << 20, ROOTS_MAX_BYTES = 256 * 1024 };

static void on_turn(void *arg);

static struct delivery *state_of(struct role_ctx *ctx)
{
    if (ctx->state)
        return ctx->state;
    struct delivery *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->ctx = ctx;
    d->ca_fd = d->spool_lock_fd = -1;
    TAILQ_INIT(&d->for_later);
    buf_init(&d->roots, ROOTS_MAX_BYTES);
    ctx->state = d;
    return d;
}

/* ---- snapshots ---- */

struct site *site_ref(struct site *site)
{
    site->refs++;
    return site;
}

void site_unref(struct site **site_at)
{
    struct site *site = *site_at;
    *site_at = NULL;
    if (site && --site->refs == 0)
        SLIST_INSERT_HEAD(&site->delivery->dead_sites, site, link);
}

static void site_free(struct site *site)
{
    dns_free(&site->dns);
    if (site->tls)
        tls_client_context_unref(&site->tls);
    conf_unref(&site->conf);
    free(site);
}

static int site_tls(struct delivery *d, struct site *site, struct err *err)
{
    /* The system's anchors are read once: the sandbox may not show them later. */
    if (!site->conf->ca_file && d->site && !d->site->conf->ca_file) {
        site->tls = tls_client_context_ref(d->site->tls);
        return 0;
    }
    struct buf pem;
    buf_init(&pem, ANCHORS_MAX_BYTES);
    int rc = d->ca_fd >= 0 ? role_read_file(d->ca_fd, &pem, err) : 0;
    if (rc == 0)
        rc = tls_client_context_new(buf_str(&pem), &site->tls, err);
    buf_done(&pem);
    return rc;
}

static int site_new(struct delivery *d, struct site **ret_site, struct err *err)
{
    struct site *site = calloc(1, sizeof *site);
    if (!site)
        return err_set(err, -ENOMEM, "out of memory");
    site->refs = 1;
    site->delivery = d;
    site->conf = conf_ref(d->ctx->conf);
    int rc = site_tls(d, site, err);
    if (rc == 0)
        rc = dns_new(d->ctx->loop, site->conf->resolver.item, site->conf->resolver.n, NULL, &site->dns, err);
    if (rc < 0) {
        site_free(site);
        return rc;
    }
    *ret_site = site;
    return 0;
}

static void each_root(const struct conf *conf, void (*root)(void *arg, const char *path), void *arg)
{
    for (size_t i = 0; i < conf->n_domains; i++) {
        struct str deliver = str_of(conf->domain[i].deliver);
        struct buf path;
        buf_init(&path, 4096);
        if (str_starts(deliver, STR("maildir:")) && maildir_root(deliver.p + strlen("maildir:"), &path) && buf_cstr(&path))
            root(arg, path.p);
        buf_done(&path);
    }
}

static bool root_is_known(const struct delivery *d, const char *path)
{
    for (const char *p = d->roots.p; p && p < d->roots.p + d->roots.n; p += strlen(p) + 1)
        if (strcmp(p, path) == 0)
            return true;
    return false;
}

static void begin_drain(struct delivery *d);

static void check_root(void *arg, const char *path)
{
    struct delivery *d = arg;
    if (d->draining || root_is_known(d, path))
        return;
    log_event(d->ctx->log, LOG_LEVEL_NOTICE, "delivery.restart", "the configuration names %s for mail: a new process serves it", path);
    if (d->ctx->master) /* it need not wait until the slowest next hop has answered here */
        channel_send(d->ctx->master, IPC_SUCCESSOR, 0, STR_NONE);
    begin_drain(d);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void on_configured(struct role_ctx *ctx)
{
    struct delivery *d = state_of(ctx);
    struct site *site = NULL;
    if (!d)
        return;
    struct err err = { 0 };
    protocol_configured(d);
    int rc = d->site ? 0 : tls_init(&err);
    if (rc == 0)
        rc = site_new(d, &site, &err);
    close_fd(&d->ca_fd);
    if (rc < 0) {
        d->site_error = err;
        log_event(ctx->log, LOG_LEVEL_ERROR, "delivery.configuration.failed", "%s", err_text(&err));
        if (d->site)
            begin_drain(d);
        return;
    }
    bool first = !d->site;
    site_unref(&d->site_before);
    d->site_before = d->site;
    d->site = site;
    if (first)
        return;
    each_root(site->conf, check_root, d);
    jobs_configured(d);
}

/* ---- files and channels ---- */

static void on_file(struct role_ctx *ctx, const struct ipc_file *file, int fd)
{
    struct delivery *d = state_of(ctx);
    if (d && file->kind == IPC_FILE_CA) {
        close_fd(&d->ca_fd);
        d->ca_fd = fd;
    } else if (d && file->kind == IPC_FILE_PROTOCOL_LOG) {
        protocol_file(d, file->name, fd);
    } else if (d && file->kind == IPC_FILE_SPOOL_LOCK) {
        close_fd(&d->spool_lock_fd);
        d->spool_lock_fd = fd;
    } else {
        close(fd);
    }
}

static void queue_closed(void *arg, const struct err *why)
{
    struct delivery *d = arg;
    (void)why; /* master tells that the queue ended */
    channel_free(&d->queue);
    jobs_queue_gone(d);
}

static void malformed(struct delivery *d, struct channel *channel, unsigned type)
{
    log_event(d->ctx->log, LOG_LEVEL_ERROR, "delivery.channel.malformed", "message of type %u from the %s", type,
              channel == d->queue ? "queue" : "auth role");
}

static void queue_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct delivery *d = arg;
    (void)id;
    if (job_message(d, type, body, fds))
        return;
    malformed(d, d->queue, type);
    queue_closed(d, NULL);
}

static void auth_closed(void *arg, const struct err *why)
{
    struct delivery *d = arg;
    (void)why;
    channel_free(&d->auth);
    login_auth_gone(d);
}

static void auth_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct delivery *d = arg;
    (void)fds;
    if (login_message(d, type, id, body))
        return;
    malformed(d, d->auth, type);
    auth_closed(d, NULL);
}

static const struct channel_handlers queue_handlers = { .message = queue_message, .closed = queue_closed };
static const struct channel_handlers auth_handlers = { .message = auth_message, .closed = auth_closed };

static void on_peer(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds)
{
    struct delivery *d = state_of(ctx);
    struct err err;
    int rc = 0;
    (void)index;
    for (size_t i = d && (role == ROLE_QUEUE || role == ROLE_AUTH) ? 1 : 0; i < n_fds; i++)
        close(fds[i]);
    if (!d)
        return;
    if (role == ROLE_QUEUE) {
        if (d->queue)
            queue_closed(d, NULL);
        d->epoch++;
        rc = channel_open(ctx->loop, fds[0], &queue_handlers, d, &d->queue, &err);
    } else if (role == ROLE_AUTH) {
        if (d->auth)
            auth_closed(d, NULL);
        rc = channel_open(ctx->loop, fds[0], &auth_handlers, d, &d->auth, &err);
    }
    if (rc < 0)
        log_event(ctx->log, LOG_LEVEL_ERROR, "delivery.channel.failed", "%s", err_text(&err));
}

/* ---- life ---- */

static void on_turn(void *arg)
{
    struct delivery *d = arg;
    struct conn *conn;
    while ((conn = LIST_FIRST(&d->dead_conns)))
        conn_free(conn);
    struct hop *hop;
    while ((hop = LIST_FIRST(&d->dead_hops)))
        hop_free(hop);
    struct site *site;
    while ((site = SLIST_FIRST(&d->dead_sites))) {
        SLIST_REMOVE_HEAD(&d->dead_sites, link);
        site_free(site);
    }
}

static int on_start(struct role_ctx *ctx, struct err *err)
{
    struct delivery *d = state_of(ctx);
    if (!d)
        return err_set(err, -ENOMEM, "out of memory");
    if (!d->site)
        return err_set(err, d->site_error.code ? d->site_error.code : ERR_CONFIG, "%s", d->site_error.text);
    int rc = layer_init(err);
    if (rc == 0)
        rc = loop_turn_new(ctx->loop, LOOP_TURN_WORK, on_turn, d, &d->turn, err);
    if (rc == 0)
        rc = worker_pool_new(ctx->loop, "maildir", MAILDIR_THREADS, MAILDIR_WAITING_MAX, &d->workers, err);
    return rc;
}

void delivery_check_drained(struct delivery *d)
{
    if (!d->draining || d->n_jobs > 0)
        return;
    if (d->queue)
        channel_flush(d->queue);
    loop_stop(d->ctx->loop);
}

static void begin_drain(struct delivery *d)
{
    if (d->draining)
        return;
    d->draining = true;
    struct job *job;
    while ((job = TAILQ_FIRST(&d->for_later))) {
        TAILQ_REMOVE(&d->for_later, job, link);
        job_return(job);
    }
    hops_drop_waiting(d);
    hops_close_idle(d);
    delivery_check_drained(d);
}

static void on_drain(struct role_ctx *ctx)
{
    struct delivery *d = state_of(ctx);
    if (d)
        begin_drain(d);
    else
        loop_stop(ctx->loop);
}

void delivery_done(struct role_ctx *ctx)
{
    struct delivery *d = ctx->state;
    channel_free(&d->queue);
    channel_free(&d->auth);
    jobs_queue_gone(d);
    worker_pool_free(&d->workers);
    site_unref(&d->site);
    site_unref(&d->site_before);
    on_turn(d);
    loop_turn_free(&d->turn);
    close_fd(&d->spool_lock_fd);
    protocol_free(d);
    buf_done(&d->roots);
    free(d);
    ctx->state = NULL;
}

static void add_root(void *arg, const char *path)
{
    struct delivery *d = arg;
    if (!root_is_known(d, path))
        buf_add(&d->roots, str_slice(path, strlen(path) + 1));
}

static void on_sandbox(const struct role_ctx *ctx, struct sandbox *sandbox)
{
    static const char *const readable[] = { "/etc/resolv.conf", "/etc/hosts", "/etc/ssl", "/usr/lib/ssl", "/usr/share/ca-certificates",
                                            "/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom" };
    const struct conf *conf = ctx->conf;
    sandbox->may_open = sandbox->may_connect = true;
    /* One process more than configured: it is the Maildirs' owner. */
    if (conf->mail_owner && ctx->index >= (conf->delivery_processes ? conf->delivery_processes : 1))
        sandbox->user = conf->mail_owner;
    for (size_t i = 0; i < sizeof readable / sizeof readable[0]; i++)
        sandbox_allow(sandbox, SANDBOX_PATH_READ, readable[i]);
    struct delivery *d = ctx->state;
    each_root(conf, add_root, d);
    /* Only now: the sandbox borrows the names, and the buffer has moved while it grew. */
    for (const char *p = d->roots.p; p && p < d->roots.p + d->roots.n; p += strlen(p) + 1)
        sandbox_allow(sandbox, SANDBOX_PATH_WRITE, p);
}

const struct role role_delivery = {
    .id = ROLE_DELIVERY,
    .process_name = "delivery",
    .user_suffix = "-delivery",
    .start = on_start,
    .file = on_file,
    .peer = on_peer,
    .configured = on_configured,
    .drain = on_drain,
    .sandbox = on_sandbox,
};
