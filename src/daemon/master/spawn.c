/* Happy path: for each process a channel to it, fork, exec of ourselves with --role; the snapshot and one end of a
 * channel for each neighbour follow; the process says IPC_READY.
 * Ways to fail: it exits before the first IPC_READY of all (start_failed); it dies later (its neighbours see their
 * channel close; a successor gets new channels, and each neighbour an IPC_PEER with the other end). */
#include "daemon/master/spawn.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/master/watch.h"
#include "daemon/role.h"
#include "io/channel.h"
#include "spool/page.h"

enum { PROCESSES_MAX = 80, BACKOFF_FIRST_MS = 250, BACKOFF_MAX_MS = 30000, SETTLED_AFTER_MS = 60000 };

struct process {
    struct spawn *spawn;
    enum role_id role;
    unsigned index;
    pid_t pid;                   /* 0: not running */
    struct channel *channel;
    uint64_t ready_generation;   /* 0: not yet */
    struct loop_timer *restart;
    int64_t backoff_ms, started_ms;
    int page_fd, bell_fd;        /* smtpd: what it shares with the queue */
    bool told_to_drain;
    bool retired;                /* its successor has taken its place; it finishes what it has */
    struct watch watch;
};

struct spawn {
    struct spawn_options o;
    const struct snapshot *snapshot;
    struct process process[PROCESSES_MAX];
    size_t n;
    uint64_t announced_generation;
    struct loop_timer *watch_timer;
    int64_t watched_ms;
    bool started, draining;
};

/* Who talks to whom. */
static const struct { enum role_id a, b; } neighbours[] = {
    { ROLE_SMTPD, ROLE_QUEUE },    { ROLE_SMTPD, ROLE_AUTH },   { ROLE_SMTPD, ROLE_KEYS },
    { ROLE_QUEUE, ROLE_DELIVERY }, { ROLE_DELIVERY, ROLE_AUTH }, { ROLE_QUEUE, ROLE_AUTH },
};

static bool are_neighbours(enum role_id a, enum role_id b)
{
    for (size_t i = 0; i < sizeof neighbours / sizeof neighbours[0]; i++)
        if ((neighbours[i].a == a && neighbours[i].b == b) || (neighbours[i].a == b && neighbours[i].b == a))
            return true;
    return false;
}

static void start_process(struct process *p);
static void start_successor(struct process *old);

static void check_all_ready(struct spawn *spawn)
{
    uint64_t generation = spawn->snapshot->generation;
    if (spawn->announced_generation == generation)
        return;
    for (size_t i = 0; i < spawn->n; i++)
        if (!spawn->process[i].retired && spawn->process[i].ready_generation != generation)
            return;
    spawn->announced_generation = generation;
    spawn->started = true;
    spawn->o.all_ready(spawn->o.arg, generation);
}

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct process *p = arg;
    if (type == IPC_READY) {
        p->ready_generation = p->spawn->snapshot->generation & ~(uint64_t)UINT32_MAX;
        p->ready_generation |= id;
        check_all_ready(p->spawn);
    } else if (type == IPC_ALIVE) {
        watch_answered(&p->watch, id);
    } else if (type == IPC_SUCCESSOR && p->role == ROLE_DELIVERY) {
        start_successor(p);
    } else if (type == IPC_RELOAD && p->role == ROLE_QUEUE) {
        p->spawn->o.reload_wanted(p->spawn->o.arg, id);
    } else {
        log_event(p->spawn->o.log, LOG_LEVEL_ERROR, "master.message.unexpected", "%s sent message type %u",
                  role_name(p->role), type);
    }
}

static void on_closed(void *arg, const struct err *why)
{
    struct process *p = arg;
    (void)why; /* SIGCHLD tells how it ended */
    channel_free(&p->channel);
}

static const struct channel_handlers handlers = { .message = on_message, .closed = on_closed };

static void send_file(struct process *p, const struct snapshot_file *f)
{
    int fd;
    if (f->fresh_offset) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    } else {
        fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
    }
    if (fd < 0) {
        log_event(p->spawn->o.log, LOG_LEVEL_ERROR, "master.file.failed", "cannot hand %s to %s: %s", f->text,
                  role_name(p->role), strerror(errno));
        return;
    }
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    struct ipc_file m = { f->kind, f->detail, str_of(f->name), str_of(f->text) };
    ipc_put_file(&body, &m);
    channel_send_fds(p->channel, IPC_FILE, 0, buf_str(&body), &fd, 1);
    buf_done(&body);
}

static void send_descriptor(struct process *p, enum ipc_file_kind kind, int fd)
{
    struct snapshot_file f = { .kind = kind, .name = (char[]){ "" }, .text = (char[]){ "" }, .fd = fd };
    if (fd >= 0)
        send_file(p, &f);
}

static bool is_for(const struct snapshot_file *f, const struct process *p)
{
    return (f->roles & (1u << p->role)) && (f->only_index < 0 || f->only_index == (int)p->index);
}

static void send_snapshot(struct process *p)
{
    const struct snapshot *s = p->spawn->snapshot;
    uint32_t generation = (uint32_t)s->generation;
    int fd = fcntl(s->bundle_fd, F_DUPFD_CLOEXEC, 3);
    channel_send_fds(p->channel, IPC_CONFIG, generation, STR_NONE, &fd, fd >= 0 ? 1 : 0);
    for (size_t i = 0; i < s->n_files; i++) {
        const struct snapshot_file *f = &s->file[i];
        if (is_for(f, p))
            send_file(p, f);
    }
    send_descriptor(p, IPC_FILE_SHARED,
                    p->role == ROLE_SMTPD || p->role == ROLE_AUTH || p->role == ROLE_QUEUE ? p->spawn->o.shared_fd : -1);
    send_descriptor(p, IPC_FILE_SPOOL_LOCK,
                    p->role == ROLE_SMTPD || p->role == ROLE_QUEUE || p->role == ROLE_DELIVERY
                        ? p->spawn->o.spool_lock_fd : -1);
    send_descriptor(p, IPC_FILE_CONTROL, p->role == ROLE_QUEUE ? p->spawn->o.control_fd : -1);
}

static void send_peer(struct process *to, const struct process *other, int channel_fd, const struct process *smtpd)
{
    int fds[3] = { channel_fd };
    size_t n = 1;
    if (smtpd) { /* smtpd ↔ queue share a page and a doorbell */
        fds[n++] = fcntl(smtpd->page_fd, F_DUPFD_CLOEXEC, 3);
        fds[n++] = fcntl(smtpd->bell_fd, F_DUPFD_CLOEXEC, 3);
    }
    struct buf body;
    buf_init(&body, 64);
    ipc_put_peer(&body, &(struct ipc_peer){ other->role, (uint16_t)other->index });
    channel_send_fds(to->channel, IPC_PEER, 0, buf_str(&body), fds, n);
    buf_done(&body);
}

static void connect_neighbours(struct process *p)
{
    for (size_t i = 0; i < p->spawn->n; i++) {
        struct process *other = &p->spawn->process[i];
        if (other == p || !other->channel || other->retired || !are_neighbours(p->role, other->role))
            continue;
        int fds[2];
        struct err err;
        if (channel_pair(fds, &err) < 0) {
            log_event(p->spawn->o.log, LOG_LEVEL_ERROR, "master.channel.failed", "%s", err.text);
            continue;
        }
        const struct process *smtpd = p->role == ROLE_SMTPD && other->role == ROLE_QUEUE   ? p
                                      : p->role == ROLE_QUEUE && other->role == ROLE_SMTPD ? other
                                                                                           : NULL;
        send_peer(p, other, fds[0], smtpd);
        send_peer(other, p, fds[1], smtpd);
    }
}

/* In the child: descriptor 3 is the channel, everything else closes on exec. */
static void exec_role(const struct process *p, int fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    char index[16];
    snprintf(index, sizeof index, "%u", p->index);
    char role[32];
    str_copy(str_of(role_name(p->role)), role, sizeof role);
    char *const argv[] = { (char[]){ "posternd" }, (char[]){ "--role" }, role, (char[]){ "--index" }, index, NULL };
    /* From 3, where F_DUPFD leaves it, to exactly 3, and open across the exec. */
    if (fd == 3)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, 3);
    execv("/proc/self/exe", argv);
    _exit(71);
}

static int fork_process(struct process *p, struct err *err)
{
    int fds[2];
    int rc = channel_pair(fds, err);
    if (rc < 0)
        return rc;
    pid_t pid = fork();
    if (pid == 0)
        exec_role(p, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return err_errno(err, errno, "cannot start a process for %s", role_name(p->role));
    }
    p->pid = pid;
    p->ready_generation = 0;
    p->watch = (struct watch){ 0 };
    p->started_ms = loop_now_ms(p->spawn->o.loop);
    return channel_open(p->spawn->o.loop, fds[0], &handlers, p, &p->channel, err);
}

static int make_page(struct process *p, struct err *err)
{
    if (p->page_fd >= 0)
        close(p->page_fd);
    p->page_fd = spool_page_create();
    if (p->bell_fd < 0)
        p->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->page_fd < 0 || p->bell_fd < 0)
        return err_errno(err, errno, "cannot make the page that smtpd and queue share");
    return 0;
}

static void schedule_restart(struct process *p)
{
    int64_t ran_ms = loop_now_ms(p->spawn->o.loop) - p->started_ms;
    if (ran_ms > SETTLED_AFTER_MS)
        p->backoff_ms = 0;
    loop_timer_set(p->restart, p->backoff_ms);
    p->backoff_ms = p->backoff_ms == 0 ? BACKOFF_FIRST_MS : p->backoff_ms * 2;
    if (p->backoff_ms > BACKOFF_MAX_MS)
        p->backoff_ms = BACKOFF_MAX_MS;
}

static void start_process(struct process *p)
{
    struct err err = { 0 };
    int rc = p->role == ROLE_SMTPD ? make_page(p, &err) : 0;
    if (rc == 0)
        rc = fork_process(p, &err);
    if (rc < 0) {
        log_event(p->spawn->o.log, LOG_LEVEL_ERROR, "master.start.failed", "%s", err.text);
        schedule_restart(p);
        return;
    }
    send_snapshot(p);
    connect_neighbours(p);
    channel_send(p->channel, IPC_GO, (uint32_t)p->spawn->snapshot->generation, STR_NONE);
    channel_flush(p->channel);
}

static void on_restart(void *arg)
{
    struct process *p = arg;
    if (!p->spawn->draining && p->pid == 0)
        start_process(p);
}

static int add_process(struct spawn *spawn, enum role_id role, unsigned index, struct err *err)
{
    if (spawn->n == PROCESSES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d processes asked for", PROCESSES_MAX);
    struct process *p = &spawn->process[spawn->n++];
    *p = (struct process){ .spawn = spawn, .role = role, .index = index, .page_fd = -1, .bell_fd = -1 };
    return loop_timer_new(spawn->o.loop, on_restart, p, &p->restart, err);
}

/* ---- a delivery process that may not serve the new configuration ---- */

static struct process *place_for_successor(struct spawn *spawn, const struct process *old)
{
    for (size_t i = 0; i < spawn->n; i++) {
        struct process *p = &spawn->process[i];
        if (p->retired && p->pid == 0 && !p->channel) {
            p->retired = p->told_to_drain = false;
            p->index = old->index;
            p->backoff_ms = 0;
            return p;
        }
    }
    struct err err;
    return add_process(spawn, old->role, old->index, &err) == 0 ? &spawn->process[spawn->n - 1] : NULL;
}

static void start_successor(struct process *old)
{
    struct spawn *spawn = old->spawn;
    if (old->retired || spawn->draining)
        return;
    struct process *p = place_for_successor(spawn, old);
    if (!p) /* it ends when it has done what it has, and is started again */
        return;
    old->retired = true;
    start_process(p);
}

/* ---- processes that hang ---- */

static void say_hung(const struct process *p)
{
    struct log_record r;
    log_begin(&r, p->spawn->o.log, LOG_LEVEL_ERROR, "master.role.hung");
    log_cstr(&r, "role", role_name(p->role));
    log_int(&r, "index", p->index);
    log_int(&r, "seconds", WATCH_QUESTIONS * p->spawn->o.watch_every_ms / 1000);
    log_end(&r);
}

static void on_watch(void *arg)
{
    struct spawn *spawn = arg;
    int64_t now_ms = loop_now_ms(spawn->o.loop);
    bool late = watch_is_late(now_ms - spawn->watched_ms, spawn->o.watch_every_ms);
    spawn->watched_ms = now_ms;
    loop_timer_set(spawn->watch_timer, spawn->o.watch_every_ms);
    for (size_t i = 0; i < spawn->n; i++) {
        struct process *p = &spawn->process[i];
        bool hangs;
        if (!p->channel || !p->ready_generation || spawn->draining)
            continue; /* one that starts may read a large spool first */
        uint32_t question = watch_ask(&p->watch, late, &hangs);
        if (hangs) {
            say_hung(p);
            kill(p->pid, SIGKILL); /* SIGCHLD brings the rest */
        } else {
            channel_send(p->channel, IPC_ALIVE, question, STR_NONE);
        }
    }
}

int spawn_new(const struct spawn_options *options, struct spawn **ret_spawn, struct err *err)
{
    struct spawn *spawn = calloc(1, sizeof *spawn);
    if (!spawn)
        return err_set(err, -ENOMEM, "out of memory");
    spawn->o = *options;
    *ret_spawn = spawn;
    int rc = loop_timer_new(spawn->o.loop, on_watch, spawn, &spawn->watch_timer, err);
    if (rc == 0)
        loop_timer_set(spawn->watch_timer, spawn->o.watch_every_ms);
    spawn->watched_ms = loop_now_ms(spawn->o.loop);
    return rc;
}

int spawn_start(struct spawn *spawn, const struct snapshot *snapshot, struct err *err)
{
    const struct conf *conf = snapshot->conf;
    spawn->snapshot = snapshot;
    /* Mail owned by a user of its own is written by a process that is that user. */
    char usual[80];
    snprintf(usual, sizeof usual, "%s-delivery", conf->user);
    bool own_mail_process = geteuid() == 0 && conf->mail_owner && strcmp(conf->mail_owner, usual) != 0;
    unsigned deliveries = conf->delivery_processes ? conf->delivery_processes : 1;
    char count[16];
    snprintf(count, sizeof count, "%u", deliveries);
    setenv(ROLE_DELIVERIES, count, 1); /* a reload may name another number; it counts from the next start */

    int rc = add_process(spawn, ROLE_QUEUE, 0, err);
    if (rc == 0)
        rc = add_process(spawn, ROLE_KEYS, 0, err);
    if (rc == 0)
        rc = add_process(spawn, ROLE_AUTH, 0, err);
    for (unsigned i = 0; i < deliveries + (own_mail_process ? 1 : 0) && rc == 0; i++)
        rc = add_process(spawn, ROLE_DELIVERY, i, err);
    for (unsigned i = 0; i < snapshot->smtpd_processes && rc == 0; i++)
        rc = add_process(spawn, ROLE_SMTPD, i, err);
    for (size_t i = 0; i < spawn->n && rc == 0; i++)
        start_process(&spawn->process[i]);
    return rc;
}

void spawn_reload(struct spawn *spawn, const struct snapshot *snapshot)
{
    spawn->snapshot = snapshot;
    for (size_t i = 0; i < spawn->n; i++) {
        struct process *p = &spawn->process[i];
        if (!p->channel || p->retired)
            continue; /* its successor starts with this snapshot, or has it */
        send_snapshot(p);
        channel_send(p->channel, IPC_GO, (uint32_t)snapshot->generation, STR_NONE);
    }
}

void spawn_send_file(struct spawn *spawn, const struct snapshot_file *file)
{
    for (size_t i = 0; i < spawn->n; i++)
        if (spawn->process[i].channel && is_for(file, &spawn->process[i]))
            send_file(&spawn->process[i], file);
}

void spawn_log_fds(struct spawn *spawn, const char *to)
{
    for (size_t i = 0; i < spawn->n; i++) {
        int fd;
        if (spawn->process[i].channel && log_open_destination(to, &fd, NULL) == 0)
            channel_send_fds(spawn->process[i].channel, IPC_LOG_FD, 0, STR_NONE, &fd, 1);
    }
}

void spawn_reloaded(struct spawn *spawn, uint32_t id, enum ipc_reload_result result, struct str text)
{
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    ipc_put_reloaded(&body, &(struct ipc_reloaded){ result, text });
    for (size_t i = 0; i < spawn->n; i++)
        if (spawn->process[i].role == ROLE_QUEUE && spawn->process[i].channel)
            channel_send(spawn->process[i].channel, IPC_RELOADED, id, buf_str(&body));
    buf_done(&body);
}

static void process_ended(struct process *p, int status)
{
    struct spawn *spawn = p->spawn;
    bool was_ready = p->ready_generation != 0;
    p->pid = 0;
    p->ready_generation = 0;
    channel_free(&p->channel);
    bool ended_well = p->retired && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (spawn->draining || ended_well)
        return;
    struct log_record r;
    log_begin(&r, spawn->o.log, LOG_LEVEL_ERROR, "master.role.died");
    log_cstr(&r, "role", role_name(p->role));
    log_int(&r, "index", p->index);
    if (WIFSIGNALED(status))
        log_cstr(&r, "signal", strsignal(WTERMSIG(status)));
    else
        log_int(&r, "exit", WEXITSTATUS(status));
    log_end(&r);
    if (p->retired)
        return;
    if (!spawn->started && !was_ready) {
        spawn->o.start_failed(spawn->o.arg, p->role, WIFEXITED(status) ? WEXITSTATUS(status) : 70);
        return;
    }
    schedule_restart(p);
}

/* Who receives and who delivers ends first; those that they need end after them. */
static bool ends_first(enum role_id role)
{
    return role == ROLE_SMTPD || role == ROLE_DELIVERY;
}

static void drain_stage(struct spawn *spawn)
{
    bool first_running = false, any_running = false;
    for (size_t i = 0; i < spawn->n; i++) {
        any_running |= spawn->process[i].pid != 0;
        first_running |= spawn->process[i].pid != 0 && ends_first(spawn->process[i].role);
    }
    if (!any_running) {
        spawn->o.all_ended(spawn->o.arg);
        return;
    }
    for (size_t i = 0; i < spawn->n; i++) {
        struct process *p = &spawn->process[i];
        if (p->channel && !p->told_to_drain && (ends_first(p->role) || !first_running)) {
            p->told_to_drain = true;
            channel_send(p->channel, IPC_DRAIN, 0, STR_NONE);
        }
    }
}

void spawn_reap(struct spawn *spawn)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < spawn->n; i++)
            if (spawn->process[i].pid == pid)
                process_ended(&spawn->process[i], status);
    }
    if (spawn->draining)
        drain_stage(spawn);
}

void spawn_drain(struct spawn *spawn)
{
    spawn->draining = true;
    for (size_t i = 0; i < spawn->n; i++)
        loop_timer_stop(spawn->process[i].restart);
    drain_stage(spawn);
}

void spawn_kill(struct spawn *spawn)
{
    for (size_t i = 0; i < spawn->n; i++)
        if (spawn->process[i].pid)
            kill(spawn->process[i].pid, SIGKILL);
}

void spawn_free(struct spawn **spawn_at)
{
    struct spawn *spawn = *spawn_at;
    if (!spawn)
        return;
    for (size_t i = 0; i < spawn->n; i++) {
        struct process *p = &spawn->process[i];
        channel_free(&p->channel);
        loop_timer_free(&p->restart);
        if (p->page_fd >= 0)
            close(p->page_fd);
        if (p->bell_fd >= 0)
            close(p->bell_fd);
    }
    loop_timer_free(&spawn->watch_timer);
    free(spawn);
    *spawn_at = NULL;
}
