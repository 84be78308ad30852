/* The receiving role: talks to clients and to nobody else outside. It opens no file by name and connects nowhere;
 * what it works with comes as descriptors from master, and all questions go to other roles.
 *
 * When a neighbour is away: auth → AUTH gets 454 4.7.0; keys → STARTTLS gets 454 4.7.0; queue → mail is taken while
 * spare segments last, then MAIL gets 452 4.3.1. */
#include "daemon/smtpd/smtpd.h"

#include <stdlib.h>
#include <unistd.h>

#include "daemon/smtpd/session.h"
#include "daemon/smtpd/signer.h"
#include "io/now.h"

enum { SWEEP_MS = 1000 };

static struct smtpd smtpd; /* as long as the process */

/* ---- queue ---- */

static void send_segment(unsigned type, const struct spool_lent *lent)
{
    if (!smtpd.queue)
        return; /* a new queue asks what is held */
    struct buf body;
    buf_init(&body, 64);
    ipc_put_segment(&body, &(struct ipc_segment){ lent->number, lent->generation, lent->size_bytes });
    channel_send(smtpd.queue, type, 0, buf_str(&body));
    buf_done(&body);
}

static void on_segment_done(void *arg, const struct spool_lent *segment)
{
    (void)arg;
    send_segment(IPC_SEGMENT_RETURN, segment);
}

static void on_body_done(void *arg, const struct spool_lent *body)
{
    (void)arg;
    send_segment(IPC_BODY_RETURN, body);
}

static void on_body_taken(void *arg, const struct spool_lent *body)
{
    (void)arg;
    send_segment(IPC_BODY_HELD, body); /* upon which the queue lends the next */
}

static void on_spool_failed(void *arg, const struct err *why)
{
    (void)arg;
    log_event(smtpd.ctx->log, LOG_LEVEL_ERROR, "spool.sync.failed",
              "%s; what waited for it was refused with 451, the segment takes no more", err_text(why));
}

/* The first spare has come: from now on mail can be taken. */
static void on_spool_changed(void *arg)
{
    (void)arg;
    if (smtpd.ctx->ready_owed && spool_writer_can_accept(smtpd.writer))
        role_say_ready(smtpd.ctx);
    smtpd.spare_came = true; /* looked at when the turn ends: sessions go on outside of the writer's calls */
}

static const struct spool_writer_handlers writer_handlers = {
    .segment_done = on_segment_done, .body_done = on_body_done, .body_taken = on_body_taken, .failed = on_spool_failed,
    .changed = on_spool_changed,
};

static void say_held(void *arg, bool is_body, const struct spool_lent *lent)
{
    (void)arg;
    send_segment(is_body ? IPC_BODY_HELD : IPC_SEGMENT_HELD, lent);
}

static void take_lent(unsigned type, struct str body, struct channel_fds *fds)
{
    struct ipc_segment m;
    struct err err;
    int fd = channel_take_fd(fds, 0);
    if (!ipc_get_segment(body, &m) || fd < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    struct spool_lent lent = { m.segment, m.generation, m.size_bytes };
    int rc = type == IPC_SEGMENT_LEND ? spool_writer_lend_segment(smtpd.writer, &lent, fd, &err)
                                      : spool_writer_lend_body(smtpd.writer, &lent, fd, &err);
    if (rc < 0)
        log_event(smtpd.ctx->log, LOG_LEVEL_ERROR, "spool.lend.failed", "%s", err.text);
}

static void on_queue_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    (void)arg, (void)id;
    if (type == IPC_SEGMENT_LEND || type == IPC_BODY_LEND)
        take_lent(type, body, fds);
    else if (type == IPC_INTAKE && body.n == 1)
        smtpd.intake_paused = body.p[0] == 0;
}

static void on_queue_closed(void *arg, const struct err *why)
{
    (void)arg, (void)why; /* master tells that it died */
    channel_free(&smtpd.queue);
}

static const struct channel_handlers queue_handlers = { .message = on_queue_message, .closed = on_queue_closed };

/* ---- auth ---- */

static void on_auth_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    (void)arg, (void)fds;
    if (type == IPC_AUTH_CHALLENGE || type == IPC_AUTH_DONE || type == IPC_USER_ANSWER)
        smtpd_login_message(&smtpd, type, id, body);
}

static void on_auth_closed(void *arg, const struct err *why)
{
    (void)arg, (void)why;
    channel_free(&smtpd.auth);
    if (smtpd.asks)
        smtpd_login_auth_gone(&smtpd);
}

static const struct channel_handlers auth_handlers = { .message = on_auth_message, .closed = on_auth_closed };

/* ---- the role ---- */

static void open_peer(const struct channel_handlers *handlers, int fd, struct channel **channel)
{
    struct err err;
    channel_free(channel);
    if (channel_open(smtpd.ctx->loop, fd, handlers, NULL, channel, &err) < 0)
        log_event(smtpd.ctx->log, LOG_LEVEL_ERROR, "role.channel.failed", "%s", err.text);
}

static int ensure_signer(struct err *err)
{
    return smtpd.signer ? 0 : signer_new(smtpd.ctx->loop, &smtpd.signer, err);
}

static void open_keys(int fd)
{
    struct err err;
    int rc = ensure_signer(&err);
    if (rc == 0)
        rc = signer_peer(smtpd.signer, fd, &err);
    else
        close(fd);
    if (rc < 0)
        log_event(smtpd.ctx->log, LOG_LEVEL_ERROR, "role.channel.failed", "%s", err.text);
}

static void peer(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds)
{
    (void)index;
    smtpd.ctx = ctx;
    size_t taken = 1;
    if (role == ROLE_QUEUE && n_fds == 3) {
        open_peer(&queue_handlers, fds[0], &smtpd.queue);
        if (!smtpd.page) { /* a later queue shares the page that this process already has */
            smtpd.page = spool_page_map(fds[1]);
            smtpd.bell_fd = fds[2];
            taken = 3;
            close(fds[1]);
        } else if (smtpd.queue && smtpd.writer) {
            spool_writer_held(smtpd.writer, say_held, NULL);
        }
    } else if (role == ROLE_AUTH) {
        on_auth_closed(NULL, NULL); /* a successor: what waits at the one before will not be answered */
        open_peer(&auth_handlers, fds[0], &smtpd.auth);
    } else if (role == ROLE_KEYS) {
        open_keys(fds[0]);
    } else {
        taken = 0;
    }
    for (size_t i = taken; i < n_fds; i++)
        close(fds[i]);
}

static void file(struct role_ctx *ctx, const struct ipc_file *f, int fd)
{
    smtpd.ctx = ctx;
    if (f->kind == IPC_FILE_SHARED) {
        if (!smtpd.shared)
            smtpd.shared = shared_map(fd, ctx->index);
        close(fd);
    } else if (f->kind == IPC_FILE_SPOOL_LOCK) {
        if (smtpd.spool_lock_fd > 0)
            close(smtpd.spool_lock_fd);
        smtpd.spool_lock_fd = fd; /* kept open: a new master waits until we are gone */
    } else {
        smtpd_site_stage(&smtpd, f, fd);
    }
}

static void set_budget(const struct conf *conf)
{
    smtpd.auth_budget.max_bytes = (size_t)(conf->auth_memory / smtpd.n_processes);
}

static int switch_site(struct err *err)
{
    struct site *next = NULL;
    int rc = smtpd_site_build(&smtpd, &next, err);
    if (rc < 0)
        return rc;
    set_budget(smtpd.ctx->conf);
    struct site *old = smtpd.site;
    smtpd.site = next;
    if (old)
        smtpd_site_stop_listening(old);
    if (!smtpd.draining)
        smtpd_site_listen(next);
    smtpd_site_unref(&old);
    return 0;
}

static void configured(struct role_ctx *ctx)
{
    smtpd.ctx = ctx;
    if (!smtpd.writer)
        return; /* the first snapshot is taken up by start() */
    struct err err;
    if (switch_site(&err) < 0)
        log_event(ctx->log, LOG_LEVEL_ERROR, "role.snapshot.failed", "%s; the configuration before stays in use", err.text);
}

static void finish_drain(void)
{
    if (!smtpd.draining || smtpd.n_sessions || !spool_writer_idle(smtpd.writer))
        return;
    smtpd_site_unref(&smtpd.site); /* writes out its logs */
    loop_stop(smtpd.ctx->loop);
}

void smtpd_session_ended(struct smtpd *which)
{
    (void)which;
    finish_drain();
}

/* `each` may end any session: a handshake that ends makes room for another, which may fail then and there. */
static void each_session(void (*each)(struct session *s))
{
    for (struct session *s = smtpd.sessions; s; s = smtpd.next_visited) {
        smtpd.next_visited = s->next;
        each(s);
    }
}

static void go_on_with_spare(struct session *s)
{
    if (s->spare_wanted_since_ms && spool_writer_can_accept(smtpd.writer))
        mail_spare_came(s, true);
}

static void on_turn(void *arg)
{
    (void)arg;
    if (!smtpd.spare_came)
        return;
    smtpd.spare_came = false;
    if (smtpd.n_waiting_for_spare)
        each_session(go_on_with_spare);
}

static void sweep_session(struct session *s)
{
    session_sweep(s, now_mono_ms());
}

static void on_sweep(void *arg)
{
    (void)arg;
    each_session(sweep_session);
    if (smtpd.site && !smtpd.draining)
        smtpd_site_accept_again(smtpd.site);
    loop_timer_set(smtpd.sweep, SWEEP_MS);
    finish_drain();
}

static int start(struct role_ctx *ctx, struct err *err)
{
    smtpd.ctx = ctx;
    if (!smtpd.page || !smtpd.shared)
        return err_set(err, ERR_BUSY, "the queue process is not there yet");
    now_random(&smtpd.id_base, sizeof smtpd.id_base);
    smtpd.id_base &= ~(uint64_t)UINT32_MAX;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    smtpd.n_processes = ctx->conf->smtpd_processes ? ctx->conf->smtpd_processes : cores > 0 ? (unsigned)cores : 1;
    smtpd.scratch = malloc(SMTPD_READ_BYTES);
    int rc = smtpd.scratch ? asks_new(&smtpd.asks) : -ENOMEM;
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    rc = ensure_signer(err);
    if (rc == 0)
        rc = layer_init(err);
    if (rc < 0)
        return rc;
    rc = spool_writer_new(ctx->loop, &spool_disk_system, smtpd.page, smtpd.bell_fd, &writer_handlers, NULL,
                          &smtpd.writer, err);
    if (rc == 0)
        rc = loop_timer_new(ctx->loop, on_sweep, NULL, &smtpd.sweep, err);
    if (rc == 0)
        rc = loop_turn_new(ctx->loop, LOOP_TURN_WORK, on_turn, NULL, &smtpd.turn, err);
    if (rc < 0)
        return rc;
    loop_timer_set(smtpd.sweep, SWEEP_MS);
    if (smtpd.queue)
        spool_writer_held(smtpd.writer, say_held, NULL);
    return switch_site(err);
}

static void drain(struct role_ctx *ctx)
{
    (void)ctx;
    smtpd.draining = true;
    smtpd_site_stop_listening(smtpd.site);
    each_session(session_shutdown);
    finish_drain();
}

static bool is_ready(struct role_ctx *ctx)
{
    (void)ctx;
    return spool_writer_can_accept(smtpd.writer);
}

static void sandbox(const struct role_ctx *ctx, struct sandbox *sb)
{
    (void)ctx;
    sb->empty_root = true;
}

const struct role role_smtpd = {
    .id = ROLE_SMTPD, .process_name = "smtpd", .user_suffix = "-smtpd", .start = start, .file = file, .peer = peer,
    .configured = configured, .drain = drain, .is_ready = is_ready, .sandbox = sandbox,
};
