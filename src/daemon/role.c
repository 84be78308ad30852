/* Happy path: master's messages up to IPC_GO are read blocking; `start` makes threads and loads what is
 * loaded late; the sandbox closes; the loop turns until `drain` stops it. Later snapshots come through the
 * loop: IPC_CONFIG is kept aside, files are handed over, IPC_GO switches.
 * Ways to fail: master goes away before IPC_GO (exit 75) or after (drain); a snapshot that does not load
 * (master has checked it, so only memory: exit 71); a sandbox that does not close (exit 71). */
#include "daemon/role.h"

#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "conf/load.h"
#include "io/worker.h"

struct role_process {
    const struct role *role;
    struct role_ctx ctx;
    const struct conf *next_conf; /* a snapshot whose IPC_GO has not come yet */
    bool draining;
};

int role_read_file(int fd, struct buf *into, struct err *err)
{
    off_t at = 0;
    for (;;) {
        char *to = buf_reserve(into, 16 * 1024);
        size_t room = 16 * 1024;
        if (!to) { /* near the cap: what is left of it */
            into->failed = false;
            room = into->max - into->n;
            to = room ? buf_reserve(into, room) : NULL;
            if (!to)
                return err_set(err, ERR_LIMIT, "a file is longer than %zu octets", into->max);
        }
        ssize_t n = pread(fd, to, room, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "cannot read a file that master opened");
        if (n == 0)
            return 0;
        into->n += (size_t)n;
        at += n;
    }
}

/* Who a process is depends on its index: that must mean the same to the queue and to every delivery process. */
static void keep_process_counts(const struct conf *conf)
{
    const char *text = getenv(ROLE_DELIVERIES);
    uint64_t n;
    if (text && str_to_u64(str_of(text), UINT32_MAX, &n))
        conf_set_delivery_processes(conf, (uint32_t)n);
}

static int load_snapshot(struct role_process *process, int fd, uint64_t generation, struct err *err)
{
    struct buf text;
    buf_init(&text, CONF_BUNDLE_MAX);
    const struct conf *conf = NULL;
    int rc = fd < 0 ? err_set(err, ERR_SYNTAX, "master sent a configuration without its text") : 0;
    if (rc == 0)
        rc = role_read_file(fd, &text, err);
    if (rc == 0) {
        struct conf_mistakes mistakes;
        conf_mistakes_init(&mistakes);
        rc = conf_load_bundle(buf_str(&text), &mistakes, &conf, err);
        if (rc == ERR_CONFIG)
            err_set(err, rc, "master's configuration does not load here");
        conf_mistakes_done(&mistakes);
    }
    if (fd >= 0)
        close(fd);
    buf_done(&text);
    if (rc < 0)
        return rc;
    conf_set_generation(conf, generation);
    keep_process_counts(conf);
    conf_unref(&process->next_conf);
    process->next_conf = conf;
    process->ctx.snapshot_coming = true;
    return 0;
}

/* What comes from master, before and after the loop begins. */
static int take_message(struct role_process *process, unsigned type, uint32_t id, struct str body,
                        struct channel_fds *fds, struct err *err)
{
    struct role_ctx *ctx = &process->ctx;
    struct ipc_file file;
    struct ipc_peer peer;
    switch (type) {
    case IPC_CONFIG:
        return load_snapshot(process, channel_take_fd(fds, 0), id, err);
    case IPC_FILE:
        if (!ipc_get_file(body, &file) || fds->n != 1)
            return err_set(err, ERR_SYNTAX, "master sent a malformed file message");
        if (process->role->file)
            process->role->file(ctx, &file, channel_take_fd(fds, 0));
        return 0;
    case IPC_PEER:
        if (!ipc_get_peer(body, &peer) || fds->n < 1)
            return err_set(err, ERR_SYNTAX, "master sent a malformed peer message");
        process->role->peer(ctx, peer.role, peer.index, fds->fd, fds->n);
        fds->n = 0;
        return 0;
    case IPC_LOG_FD:
        if (fds->n == 1)
            log_set_fd(ctx->log, channel_take_fd(fds, 0));
        return 0;
    default:
        return err_set(err, ERR_SYNTAX, "master sent an unknown message, type %u", type);
    }
}

static void switch_snapshot(struct role_process *process)
{
    if (!process->next_conf)
        return;
    const struct conf *old = process->ctx.conf;
    process->ctx.conf = process->next_conf;
    process->next_conf = NULL;
    process->ctx.snapshot_coming = false;
    if (process->role->configured)
        process->role->configured(&process->ctx);
    conf_unref(&old);
}

void role_say_ready(struct role_ctx *ctx)
{
    if (ctx->ready_owed && ctx->master)
        channel_send(ctx->master, IPC_READY, ctx->ready_owed, STR_NONE);
    ctx->ready_owed = 0;
}

static void owe_ready(struct role_process *process, uint32_t generation)
{
    process->ctx.ready_owed = generation;
    if (!process->role->is_ready || process->role->is_ready(&process->ctx))
        role_say_ready(&process->ctx);
}

static void begin_drain(struct role_process *process)
{
    if (process->draining)
        return;
    process->draining = true;
    process->role->drain(&process->ctx);
}

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct role_process *process = arg;
    if (type == IPC_GO) {
        switch_snapshot(process);
        owe_ready(process, id);
        return;
    }
    if (type == IPC_DRAIN) {
        begin_drain(process);
        return;
    }
    if (type == IPC_ALIVE) {
        channel_send(process->ctx.master, IPC_ALIVE, id, STR_NONE);
        return;
    }
    struct err err = { 0 };
    int rc = 0;
    if (type == IPC_CONFIG || type == IPC_FILE || type == IPC_PEER || type == IPC_LOG_FD)
        rc = take_message(process, type, id, body, fds, &err);
    else if (process->role->message)
        process->role->message(&process->ctx, type, id, body, fds);
    if (rc < 0)
        log_event(process->ctx.log, LOG_LEVEL_ERROR, "role.snapshot.failed", "%s", err_text(&err));
}

static void on_master_gone(void *arg, const struct err *why)
{
    struct role_process *process = arg;
    if (!process->draining)
        log_event(process->ctx.log, LOG_LEVEL_WARNING, "role.master.gone", "%s; finishing what runs", err_text(why));
    channel_free(&process->ctx.master);
    begin_drain(process);
}

static const struct channel_handlers master_handlers = { .message = on_message, .closed = on_master_gone };

static int read_until_go(struct role_process *process, int master_fd, uint32_t *ret_generation, struct err *err)
{
    struct channel_reader *reader = NULL;
    int rc = channel_reader_new(master_fd, &reader);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    /* Behind GO in the same packet may stand what master sent since, a successor's channel for one. */
    for (bool told_to_go = false; !told_to_go || channel_reader_has_more(reader);) {
        unsigned type;
        uint32_t id;
        struct str body;
        struct channel_fds fds;
        rc = channel_reader_next(reader, &type, &id, &body, &fds, err);
        if (rc < 0)
            break;
        if (type == IPC_GO) {
            told_to_go = true;
            *ret_generation = id;
            continue;
        }
        rc = take_message(process, type, id, body, &fds, err);
        for (size_t i = 0; i < fds.n; i++)
            if (fds.fd[i] >= 0)
                close(fds.fd[i]);
        if (rc < 0)
            break;
    }
    channel_reader_free(&reader);
    if (rc == 0 && !process->next_conf)
        rc = err_set(err, ERR_SYNTAX, "master sent no configuration");
    return rc;
}

void role_let_go_of_stderr(const char *log_to)
{
    bool logs_there = !log_to || strcmp(log_to, "stderr") == 0;
    int nothing = getenv(ROLE_BACKGROUND) && !logs_there ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    if (nothing < 0)
        return;
    dup2(nothing, STDERR_FILENO);
    close(nothing);
}

static int open_log(struct role_process *process, struct err *err)
{
    const struct conf *conf = process->next_conf ? process->next_conf : process->ctx.conf;
    struct log_options options = { .to = conf ? conf->log : "stderr", .level = LOG_LEVEL_INFO,
                                   .json = conf && strcmp(conf->log_format, "json") == 0 };
    int rc = log_open_destination(options.to, &options.fd, err);
    if (rc < 0) { /* master has checked it; lines must not be lost for a race */
        options.to = "stderr";
        rc = log_open_destination(options.to, &options.fd, err);
    }
    return rc < 0 ? rc : log_new(process->ctx.loop, process->role->process_name, &options, &process->ctx.log, err);
}

static int close_sandbox(struct role_process *process, struct err *err)
{
    struct role_ctx *ctx = &process->ctx;
    char user[64];
    struct sandbox sandbox = { 0 };
    snprintf(user, sizeof user, "%s%s", ctx->conf->user, process->role->user_suffix);
    sandbox.user = user;
    process->role->sandbox(ctx, &sandbox);
    char missing[256];
    int rc = sandbox_drop(&sandbox, missing, sizeof missing, err);
    if (rc == 0 && missing[0])
        log_event(ctx->log, LOG_LEVEL_NOTICE, "role.sandbox.partial", "%s", missing);
    if (rc == 0 && process->role->begin)
        rc = process->role->begin(ctx, err);
    if (rc == 0)
        rc = sandbox_filter(&sandbox, err);
    sandbox_done(&sandbox);
    return rc;
}

/* As many descriptors as the hard limit allows: each session is one. */
void role_raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void warm_libraries(void)
{
    time_t now = time(NULL);
    struct tm tm;
    tzset();
    localtime_r(&now, &tm); /* opens the time zone's file once */
}

static int start(struct role_process *process, int master_fd, struct err *err)
{
    struct role_ctx *ctx = &process->ctx;
    uint32_t generation = 0;
    int rc = loop_new(&ctx->loop, err);
    if (rc == 0) { /* until the configuration says where to */
        struct log_options options = { .to = "stderr", .level = LOG_LEVEL_INFO };
        rc = log_open_destination("stderr", &options.fd, err);
        if (rc == 0)
            rc = log_new(ctx->loop, process->role->process_name, &options, &ctx->log, err);
    }
    if (rc == 0)
        rc = read_until_go(process, master_fd, &generation, err);
    if (rc == 0) {
        log_free(&ctx->log);
        rc = open_log(process, err);
    }
    if (rc == 0) {
        role_let_go_of_stderr(process->next_conf->log);
        warm_libraries();
        switch_snapshot(process);
        rc = process->role->start ? process->role->start(ctx, err) : 0;
    }
    if (rc == 0)
        rc = close_sandbox(process, err);
    if (rc == 0)
        rc = channel_open(ctx->loop, master_fd, &master_handlers, process, &ctx->master, err);
    if (rc == 0)
        owe_ready(process, generation);
    return rc;
}

int role_main(const struct role *role, unsigned index, int master_fd)
{
    sandbox_not_dumpable();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a failed write, not a death */
    signal(SIGHUP, SIG_IGN); /* these are master's to understand */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    prctl(PR_SET_NAME, role->process_name, 0, 0, 0);
    role_raise_descriptor_limit();

    static struct role_process process; /* as long as the process */
    process.role = role;
    process.ctx.index = index;
    struct err err = { 0 };
    int rc = start(&process, master_fd, &err);
    if (rc < 0) {
        if (process.ctx.log) {
            log_event(process.ctx.log, LOG_LEVEL_ERROR, "role.start.failed", "%s", err_text(&err));
            log_flush(process.ctx.log);
        }
        return rc == ERR_CLOSED ? EX_TEMPFAIL : rc == ERR_CONFIG ? EX_CONFIG : EX_OSERR;
    }
    loop_run(process.ctx.loop);
    if (process.ctx.master)
        channel_flush(process.ctx.master);
    log_flush(process.ctx.log);
    /* A thread that still waits for somebody (a KDC, winbind) would run into libraries that exit() takes down. */
    if (worker_busy() > 0)
        _exit(EX_OK);
    return EX_OK;
}
