/* master: the only process that stays root. It parses nothing from outside but its configuration.
 *
 * Happy path: check the configuration, take the spool's lock, open listeners, secrets and logs, start the roles,
 * say that it is ready; then wait for signals: HUP reload, USR1 reopen logs, TERM or INT drain, CHLD restart.
 * Ways to fail: mistakes in the configuration (exit 78, all of them listed; 66 when the file cannot be
 * read), a spool that another daemon uses (exit 75), a role that cannot start (its exit status). */
#include "daemon/master/master.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/master/listen.h"
#include "daemon/master/preflight.h"
#include "daemon/master/restart.h"
#include "daemon/master/rotate.h"
#include "daemon/master/snapshot.h"
#include "daemon/master/spawn.h"
#include "daemon/master/watch.h"
#include "daemon/role.h"
#include "daemon/shared.h"
#include "io/now.h"

enum { LOCK_WAIT_MS = 30000, DRAIN_MAX_MS = 60000, RELOAD_TEXT_MAX = 60 * 1024, DAY_MS = 86400000,
       KEYTAB_LOOK_MS = 1000 };

struct master {
    const struct master_options *options;
    struct loop *loop;
    struct log *log;
    struct spawn *spawn;
    struct snapshot *snapshot;
    struct loop_signal *hup, *usr1, *term, *interrupt, *child;
    struct loop_timer *drain_limit, *midnight, *keytabs;
    int lock_fd, shared_fd, control_fd;
    uint32_t reload_id;              /* of the queue's question; 0: a signal asked */
    bool reloading;                  /* some role does not run the current snapshot yet */
    bool was_ready, draining;
    char *log_to;                    /* where the log goes since the start */
    const struct conf *started;      /* what the processes were started with */
    int exit_status;
};

static void print_mistakes(const struct buf *mistakes, const struct err *err)
{
    if (mistakes->n)
        fwrite(mistakes->p, 1, mistakes->n, stderr);
    else
        fprintf(stderr, "posternd: %s\n", err_text(err));
}

/* A new master waits for the roles of one that died: they finish their syncs and replies first. */
static int take_spool_lock(struct master *m, const char *spool, struct err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", spool);
    m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (m->lock_fd < 0)
        return err_errno(err, errno, "cannot open the spool's lock %s (run: postern setup)", path);
    int64_t until = now_mono_ms() + LOCK_WAIT_MS;
    bool told = false;
    while (flock(m->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (now_mono_ms() > until)
            return err_set(err, ERR_BUSY, "another posternd uses the spool %s (see: fuser %s)", spool, path);
        if (!told)
            log_event(m->log, LOG_LEVEL_NOTICE, "master.lock.wait", "waiting for the spool %s", spool);
        log_flush(m->log); /* no loop turns yet */
        told = true;
        usleep(20000);
    }
    return 0;
}

static int open_common(struct master *m, struct err *err)
{
    const struct conf *conf = m->snapshot->conf;
    int rc = listen_open_control(conf->control, &m->control_fd, err);
    if (rc == 0) {
        m->shared_fd = shared_create();
        if (m->shared_fd < 0)
            rc = err_errno(err, -m->shared_fd, "cannot make the shared table");
    }
    return rc;
}

static void on_all_ready(void *arg, uint64_t generation)
{
    struct master *m = arg;
    bool first = !m->was_ready;
    m->was_ready = true;
    m->reloading = false;
    struct log_record r;
    log_begin(&r, m->log, LOG_LEVEL_NOTICE, first ? "master.ready" : "master.reloaded");
    log_cstr(&r, "config", m->options->config_path);
    log_int(&r, "generation", (int64_t)generation);
    log_end(&r);
    log_flush(m->log);
    sd_notify(0, "READY=1");
    if (first)
        role_let_go_of_stderr(m->log_to);
    if (first && m->options->ready)
        m->options->ready(m->options->ready_arg);
    struct buf restart;
    buf_init(&restart, RELOAD_TEXT_MAX);
    if (!first && restart_needed(m->started, m->snapshot->conf, &restart))
        log_event(m->log, LOG_LEVEL_WARNING, "master.restart.needed", "%.*s", STR_ARG(buf_str(&restart)));
    if (m->reload_id)
        spawn_reloaded(m->spawn, m->reload_id, IPC_RELOAD_DONE, buf_str(&restart));
    buf_done(&restart);
    m->reload_id = 0;
}

/* Rejects with the reasons, or hands the new snapshot to the roles. */
static void reload(struct master *m, uint32_t id)
{
    struct buf mistakes;
    struct err err = { 0 };
    struct snapshot *next = NULL;
    buf_init(&mistakes, RELOAD_TEXT_MAX);
    int rc = m->draining     ? err_set(&err, ERR_BUSY, "posternd is ending")
             : !m->was_ready ? err_set(&err, ERR_BUSY, "posternd is starting; try again when it is ready")
                             : 0;
    if (rc == 0)
        rc = snapshot_load(m->options->config_path, m->snapshot->generation + 1, m->snapshot, &next,
                           &mistakes, &err);
    if (rc < 0) {
        if (mistakes.n == 0)
            buf_addf(&mistakes, "%s\n", err.text);
        log_event(m->log, LOG_LEVEL_ERROR, "master.reload.refused", "nothing was changed: %.*s",
                  STR_ARG(buf_str(&mistakes)));
        if (id)
            spawn_reloaded(m->spawn, id, rc == ERR_CONFIG ? IPC_RELOAD_REFUSED : IPC_RELOAD_NOT_NOW, buf_str(&mistakes));
    } else {
        /* One that is still under way may never end, if a role cannot run it: this one takes its place. */
        if (m->reloading && m->reload_id)
            spawn_reloaded(m->spawn, m->reload_id, IPC_RELOAD_NOT_NOW,
                           STR("another reload came before every process ran this configuration\n"));
        sd_notify(0, "RELOADING=1");
        struct snapshot *old = m->snapshot;
        m->reloading = true;
        m->reload_id = id;
        m->snapshot = next;
        spawn_reload(m->spawn, next);
        snapshot_free(&old);
    }
    buf_done(&mistakes);
}

static void on_reload_wanted(void *arg, uint32_t id)
{
    reload(arg, id);
}

static void on_hup(void *arg)
{
    struct master *m = arg;
    if (!m->draining)
        reload(m, 0);
}

static void reopen_logs(struct master *m)
{
    int fd;
    const char *to = m->log_to; /* `log` itself changes with a restart only: roles have made their logs for it */
    if (log_open_destination(to, &fd, NULL) == 0)
        log_set_fd(m->log, fd);
    spawn_log_fds(m->spawn, to);
    snapshot_reopen_logs(m->snapshot);
    spawn_reload(m->spawn, m->snapshot);
}

static void on_usr1(void *arg)
{
    struct master *m = arg;
    if (!m->draining)
        reopen_logs(m);
}

static void on_drain_limit(void *arg)
{
    struct master *m = arg;
    log_event(m->log, LOG_LEVEL_WARNING, "master.drain.timeout", "some roles did not end within %d s; ended by force, "
              "their mail is in the spool", DRAIN_MAX_MS / 1000);
    spawn_kill(m->spawn);
}

static void drain(struct master *m, int exit_status)
{
    if (m->draining)
        return;
    m->draining = true;
    m->exit_status = exit_status;
    sd_notify(0, "STOPPING=1");
    loop_timer_set(m->drain_limit, DRAIN_MAX_MS);
    spawn_drain(m->spawn);
}

static void on_term(void *arg)
{
    drain(arg, EX_OK);
}

static void on_child(void *arg)
{
    struct master *m = arg;
    spawn_reap(m->spawn);
}

static void on_start_failed(void *arg, enum role_id role, int exit_status)
{
    struct master *m = arg;
    log_event(m->log, LOG_LEVEL_ERROR, "master.start.failed", "the %s process could not start; its own message says why",
              role_name(role));
    drain(m, exit_status ? exit_status : EX_SOFTWARE);
}

static void on_all_ended(void *arg)
{
    struct master *m = arg;
    loop_stop(m->loop);
}

/* The session log is kept by day: at midnight UTC the file gets its day's date behind its name. */
static void rotate_session_log(struct master *m)
{
    const struct conf *conf = m->snapshot->conf;
    int64_t now = now_wall_ms();
    loop_timer_set(m->midnight, DAY_MS - now % DAY_MS);
    if (!conf->session_log)
        return;
    rotate_by_day(conf->session_log, conf->session_log_days, now);
    reopen_logs(m);
}

static void on_midnight(void *arg)
{
    rotate_session_log(arg);
}

static void on_keytab_changed(void *arg, const struct snapshot_file *file, const struct err *err)
{
    struct master *m = arg;
    if (!err)
        spawn_send_file(m->spawn, file);
    struct log_record r;
    log_begin(&r, m->log, err ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE,
              err ? "master.keytab.failed" : "master.keytab.changed");
    log_cstr(&r, "file", file->text);
    log_cstr(&r, "of", file->name);
    if (err)
        log_cstr(&r, "text", err_text(err));
    log_end(&r);
}

/* A look costs a stat() a keytab, works on every file system, and sees a file that was put in the place of another. */
static void on_keytabs(void *arg)
{
    struct master *m = arg;
    if (m->draining)
        return;
    snapshot_refresh_keytabs(m->snapshot, on_keytab_changed, m);
    loop_timer_set(m->keytabs, KEYTAB_LOOK_MS);
}

static int watch(struct master *m, struct err *err)
{
    int rc = loop_signal_new(m->loop, SIGHUP, on_hup, m, &m->hup, err);
    if (rc == 0)
        rc = loop_signal_new(m->loop, SIGUSR1, on_usr1, m, &m->usr1, err);
    if (rc == 0)
        rc = loop_signal_new(m->loop, SIGTERM, on_term, m, &m->term, err);
    if (rc == 0)
        rc = loop_signal_new(m->loop, SIGINT, on_term, m, &m->interrupt, err);
    if (rc == 0)
        rc = loop_signal_new(m->loop, SIGCHLD, on_child, m, &m->child, err);
    if (rc == 0)
        rc = loop_timer_new(m->loop, on_drain_limit, m, &m->drain_limit, err);
    if (rc == 0)
        rc = loop_timer_new(m->loop, on_midnight, m, &m->midnight, err);
    if (rc == 0)
        rc = loop_timer_new(m->loop, on_keytabs, m, &m->keytabs, err);
    if (rc == 0)
        loop_timer_set(m->keytabs, KEYTAB_LOOK_MS);
    if (rc == 0)
        loop_timer_set(m->midnight, DAY_MS - now_wall_ms() % DAY_MS);
    return rc;
}

static int open_log(struct master *m, const struct conf *conf, struct err *err)
{
    struct log_options options = { .to = conf->log, .level = LOG_LEVEL_INFO,
                                   .json = strcmp(conf->log_format, "json") == 0 };
    m->log_to = conf->log ? str_dup(str_of(conf->log)) : NULL;
    int rc = log_open_destination(options.to, &options.fd, err);
    return rc < 0 ? rc : log_new(m->loop, "master", &options, &m->log, err);
}

/* For tests, which cannot wait a minute for a process that hangs. */
static int64_t watch_every_ms(void)
{
    uint64_t ms;
    return str_to_u64(str_of(getenv("POSTERN_WATCH_MS")), 3600000, &ms) && ms > 0 ? (int64_t)ms : WATCH_EVERY_MS;
}

static int start_roles(struct master *m, struct err *err)
{
    struct spawn_options options = {
        .loop = m->loop, .log = m->log, .spool_lock_fd = m->lock_fd, .shared_fd = m->shared_fd,
        .control_fd = m->control_fd, .all_ready = on_all_ready, .reload_wanted = on_reload_wanted,
        .start_failed = on_start_failed, .watch_every_ms = watch_every_ms(), .all_ended = on_all_ended, .arg = m,
    };
    int rc = spawn_new(&options, &m->spawn, err);
    if (rc == 0)
        rc = watch(m, err);
    if (rc == 0)
        rc = spawn_start(m->spawn, m->snapshot, err);
    return rc;
}

/* What can be said without touching anything: form, users, folders. */
static int check_first(struct master *m, const struct conf **ret_conf, struct buf *mistakes, struct err *err)
{
    struct conf_mistakes found;
    conf_mistakes_init(&found);
    int rc = conf_load_file(m->options->config_path, &found, ret_conf, err);
    conf_mistakes_print(&found, false, mistakes);
    conf_mistakes_done(&found);
    if (rc == 0)
        rc = preflight_check(*ret_conf, m->options->config_path, mistakes, err);
    return rc;
}

static int start_from(struct master *m, const struct conf *conf, struct buf *mistakes, struct err *err)
{
    int rc = loop_new(&m->loop, err);
    if (rc == 0)
        rc = open_log(m, conf, err);
    if (rc == 0)
        rc = take_spool_lock(m, conf->spool, err);
    if (rc == 0)
        rc = snapshot_load(m->options->config_path, 1, NULL, &m->snapshot, mistakes, err);
    if (rc == 0)
        m->started = conf_ref(m->snapshot->conf);
    if (rc == 0)
        rc = open_common(m, err);
    if (rc == 0)
        rc = start_roles(m, err);
    return rc;
}

int master_main(const struct master_options *options)
{
    static struct master m = { .lock_fd = -1, .shared_fd = -1, .control_fd = -1 };
    struct err err = { 0 };
    struct buf mistakes;
    const struct conf *conf = NULL;
    buf_init(&mistakes, RELOAD_TEXT_MAX);
    m.options = options;
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    role_raise_descriptor_limit(); /* a listener a process, and all that is on its way to roles */

    int rc = check_first(&m, &conf, &mistakes, &err);
    bool unreadable = rc < 0 && rc != ERR_CONFIG;
    if (rc == 0)
        rc = start_from(&m, conf, &mistakes, &err);
    conf_unref(&conf);
    if (rc < 0)
        print_mistakes(&mistakes, &err);
    buf_done(&mistakes);
    if (rc < 0)
        return unreadable ? EX_NOINPUT : rc == ERR_CONFIG ? EX_CONFIG : rc == ERR_BUSY ? EX_TEMPFAIL : EX_OSERR;
    loop_run(m.loop);
    if (m.exit_status == EX_OK)
        log_event(m.log, LOG_LEVEL_NOTICE, "master.ended", "every role has ended");
    log_flush(m.log);
    unlink(m.snapshot->conf->control);
    return m.exit_status;
}
