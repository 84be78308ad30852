/* The queue role: makes and lends segments, reads what writers publish, decides when and where messages go, and settles
 * what became of them. It talks to no network.
 *
 * Start: the store's journal is read; writers tell what they hold; then the spool is scanned, a fresh journal written,
 * and work begins. When this process dies, writers go on with their spares, and its successor does the same again. */
#include "daemon/queue/queue.h"

#include <stdlib.h>
#include <unistd.h>

#include "daemon/queue/recipients.h"
#include "daemon/shared.h"
#include "io/now.h"

static struct queue queue; /* as long as the process */

/* ---- clocks ---- */

int64_t queue_mono_of(int64_t wall_ms)
{
    return wall_ms - now_wall_ms() + now_mono_ms();
}

int64_t queue_wall_of(int64_t mono_ms)
{
    return mono_ms - now_mono_ms() + now_wall_ms();
}

void queue_tell_undelivered(struct queue *q, const char *queue_id, struct str address, const struct spool_entry *entry,
                            const char *dsn, const char *status, struct str why)
{
    double delay_s = (double)(now_mono_ms() - entry->born_ms) / 1000;
    log_mail(q->ctx->log, LOG_LEVEL_INFO, "error", "%s: to=<%.*s>, relay=none, delay=%.2g, delays=%.2g/0/0/0, dsn=%s, status=%s (%.*s)",
             queue_id, STR_ARG(address), delay_s, delay_s, dsn, status, STR_ARG(why));
}

/* ---- the store's handlers ---- */

static void on_message(void *arg, const struct spool_found *found)
{
    intake_message(arg, found);
}

static void on_damaged(void *arg, uint64_t segment, const struct spool_damage *damage, const char *kept_as)
{
    struct queue *q = arg;
    struct log_record r;
    log_begin(&r, q->ctx->log, damage->acknowledged ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE,
              damage->acknowledged ? "spool.damaged" : "spool.torn");
    log_int(&r, "segment", (int64_t)segment);
    log_int(&r, "from", damage->from);
    log_int(&r, "to", damage->to);
    log_cstr(&r, "kept_as", kept_as[0] ? kept_as : NULL);
    log_cstr(&r, "text", damage->acknowledged
                             ? "acknowledged mail is unreadable; its octets were set aside, see postern-spool(1)"
                             : "octets without a whole record behind the last sync; no sender was told 250 for them");
    log_end(&r);
}

static void on_spare(void *arg)
{
    intake_lend(arg);
}

static void on_finished(void *arg, struct spool_segment *segment)
{
    dispatch_segment_finished(arg, segment);
}

static void on_failed(void *arg, const struct err *why)
{
    struct queue *q = arg;
    log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.failed", "%s", err_text(why));
}

/* ---- turns and times ---- */

void queue_wake(struct queue *q)
{
    if (q->pump_wanted || !q->timer) /* peers come before begin(), which wakes it */
        return;
    q->pump_wanted = true;
    if (q->timer) /* peers may be there before the role has begun */
        loop_timer_set(q->timer, 0); /* the loop must not sleep before it was looked at */
}

static void checkpoint_entry(void *arg, struct spool_checkpoint *checkpoint)
{
    struct queue *q = arg;
    size_t cursor = 0;
    uint16_t gone[SPOOL_RECIPIENTS_MAX];
    for (struct spool_entry *e = NULL; (e = spool_schedule_walk(q->schedule, &cursor, e));) {
        struct spool_memory m = { .settled = gone, .held = e->flags & SPOOL_ENTRY_HELD,
                                  .delay_noticed = e->flags & SPOOL_ENTRY_DELAY_NOTICE };
        settle_remember(q, e, &m, gone);
        spool_store_checkpoint_entry(checkpoint, e->id, &m);
    }
}

void queue_checkpoint(struct queue *q)
{
    struct err err = { 0 };
    if (spool_store_checkpoint(q->store, checkpoint_entry, q, &err) < 0 && err.code != ERR_BUSY)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.failed", "%s", err.text);
}

static void on_turn(void *arg)
{
    struct queue *q = arg;
    if (!q->scanned)
        return;
    if (!q->copying && spool_store_wants_checkpoint(q->store))
        queue_checkpoint(q);
    if (!q->pump_wanted)
        return;
    q->pump_wanted = false;
    int64_t now_ms = now_mono_ms();
    spool_schedule_advance(q->schedule, now_ms, 0);
    if (!q->paused_out && !q->draining)
        dispatch_pump(q);
    int64_t next_ms = spool_schedule_next_ms(q->schedule);
    if (next_ms != INT64_MAX)
        loop_timer_set(q->timer, next_ms > now_ms ? next_ms - now_ms : 0);
}

static void on_timer(void *arg)
{
    struct queue *q = arg;
    q->pump_wanted = true;
}

/* ---- the role ---- */

static void peer(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds)
{
    queue.ctx = ctx;
    if (role == ROLE_SMTPD && n_fds == 3 && index < QUEUE_WRITERS_MAX) {
        intake_peer(&queue, index, fds, n_fds);
    } else if (role == ROLE_DELIVERY && n_fds == 1 && index < QUEUE_DELIVERIES_MAX) {
        dispatch_peer(&queue, index, fds[0]);
    } else if (role == ROLE_AUTH && n_fds == 1) {
        recipients_peer(&queue, fds[0]);
    } else {
        for (size_t i = 0; i < n_fds; i++)
            close(fds[i]);
    }
}

static void file(struct role_ctx *ctx, const struct ipc_file *f, int fd)
{
    queue.ctx = ctx;
    if (f->kind == IPC_FILE_SPOOL_LOCK && queue.lock_fd <= 0) {
        queue.lock_fd = fd; /* kept open: a new master waits until we are gone */
    } else if (f->kind == IPC_FILE_CONTROL && queue.control_fd <= 0) {
        queue.control_fd = fd;
    } else if (f->kind == IPC_FILE_SHARED && !queue.shared) {
        queue.shared = shared_map_to_look(fd);
        close(fd);
    } else if (f->kind == IPC_FILE_RECIPIENTS) {
        recipients_file(&queue, f->name, fd);
    } else {
        close(fd); /* a later snapshot brings the same ones again */
    }
}

static void configured(struct role_ctx *ctx)
{
    queue.ctx = ctx;
    recipients_configured(&queue);
    if (queue.scanned)
        dispatch_configured(&queue);
}

/* As the role's own user: what is made belongs to it. */
static int begin(struct role_ctx *ctx, struct err *err)
{
    struct queue *q = &queue;
    q->ctx = ctx;
    struct spool_store_options options = {
        .loop = ctx->loop, .folder = ctx->conf->spool, .segment_bytes = ctx->conf->segment_size,
        .handlers = { on_message, on_damaged, on_spare, on_finished, on_failed, q },
    };
    q->schedule = spool_schedule_new();
    int rc = q->schedule ? 0 : err_set(err, -ENOMEM, "out of memory for the queue");
    if (rc == 0)
        rc = spool_store_open(&options, &q->store, err);
    if (rc == 0)
        rc = loop_timer_new(ctx->loop, on_timer, q, &q->timer, err);
    if (rc == 0)
        loop_timer_set(q->timer, 0);
    if (rc == 0)
        rc = loop_turn_new(ctx->loop, LOOP_TURN_WORK, on_turn, q, &q->turn, err);
    if (rc == 0)
        rc = dispatch_start(q, err);
    if (rc == 0)
        rc = intake_start(q, err);
    if (rc == 0)
        rc = compact_start(q, err);
    if (rc == 0 && q->control_fd > 0)
        rc = control_start(q, q->control_fd, err);
    if (rc == 0)
        rc = drop_start(q, err);
    return rc;
}

static bool is_ready(struct role_ctx *ctx)
{
    (void)ctx;
    return queue.scanned && queue.own && spool_writer_can_accept(queue.own);
}

static void message(struct role_ctx *ctx, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct ipc_reloaded m;
    (void)ctx, (void)fds;
    if (type == IPC_RELOADED && ipc_get_reloaded(body, &m))
        control_reloaded(&queue, id, &m);
}

/* Deliveries have ended before (master drains in that order); what they reported is noted, and the store's end syncs it. */
static void drain(struct role_ctx *ctx)
{
    queue.draining = true;
    drop_free(&queue);
    control_free(&queue);
    loop_timer_free(&queue.compact_timer);
    spool_writer_free(&queue.own);
    spool_store_free(&queue.store);
    loop_turn_free(&queue.turn);
    loop_stop(ctx->loop);
}

static void sandbox(const struct role_ctx *ctx, struct sandbox *sb)
{
    sb->may_open = true;
    sandbox_allow(sb, SANDBOX_PATH_WRITE, ctx->conf->spool);
    if (ctx->conf->drop)
        sandbox_allow(sb, SANDBOX_PATH_WRITE, ctx->conf->drop);
}

const struct role role_queue = {
    .id = ROLE_QUEUE, .process_name = "qmgr", .user_suffix = "", .begin = begin, .file = file, .peer = peer,
    .configured = configured, .message = message, .drain = drain, .is_ready = is_ready, .sandbox = sandbox,
};
