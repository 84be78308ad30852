/* Writers: smtpd processes and the queue's own writer. Each has a few spare segments and body files; what it publishes on
 * its page is read as soon as its bell rings or a turn ends with something new.
 *
 * The bell: the queue says that it wants to be rung, looks at the pages once more, and only then sleeps; the writer
 * publishes first and looks at the wish after. So one of them always sees the other. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/queue/queue.h"
#include "io/now.h"
#include "policy/route.h"
#include "smtp/address.h"

enum { SEGMENT_SPARES = 3, OWN_SEGMENT_SPARES = 1, BODY_SPARES = 4, HELD_WAIT_MS = 10000 };

static struct loop_timer *held_limit; /* tells that a writer says nothing */

/* ---- messages ---- */

static struct spool_hop *hop_of(struct queue *q, struct str address)
{
    char domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1];
    const char *at = address.n ? memrchr(address.p, '@', address.n) : NULL;
    struct str part = at ? str_skip(address, (size_t)(at - address.p) + 1) : STR_NONE;
    if (!str_copy(part, domain, sizeof domain))
        domain[0] = 0;
    for (char *p = domain; *p; p++)
        *p = ascii_lower(*p);
    const struct conf *conf = q->ctx->conf;
    int block = domain[0] ? route_find(conf, str_of(domain)) : -1;
    struct spool_hop *hop = spool_schedule_hop(q->schedule, str_of(block >= 0 ? conf->domain[block].name : ""),
                                               str_of(domain));
    if (hop && hop->conf_generation != conf->generation)
        dispatch_prepare_hop(q, hop, block);
    return hop;
}

static bool is_settled(const struct spool_memory *m, size_t recipient)
{
    for (size_t i = 0; m && i < m->n_settled; i++)
        if (m->settled[i] == recipient)
            return true;
    return false;
}

static void schedule_parts(struct queue *q, struct spool_entry *entry, const struct spool_memory *memory)
{
    int64_t at_ms = memory && memory->next_wall_ms ? queue_mono_of(memory->next_wall_ms) : 0;
    uint32_t reason = memory && memory->reason.n ? spool_schedule_text(q->schedule, memory->reason) : 0;
    for (struct spool_part *p = entry->parts; p; p = p->next) {
        p->attempts = memory ? memory->attempts : 0;
        p->reason = reason;
        if (!(entry->flags & SPOOL_ENTRY_HELD))
            spool_schedule_wait(q->schedule, p, at_ms);
    }
}

/* A message that is not queued would be missing in the next checkpoint and so count as settled: better to end here. The
 * successor finds all of them again. */
static _Noreturn void out_of_memory(struct queue *q)
{
    log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.memory", "no memory for another message; the process ends, no mail is lost");
    log_flush(q->ctx->log);
    _exit(EX_OSERR);
}

/* A next hop that is left alone after a failure is not tried for each new message; who looks is told why. */
static void tell_resting(struct queue *q, struct spool_entry *entry, const struct spool_envelope *e)
{
    char id[SPOOL_ID_TEXT_BYTES], why[1024];
    for (struct spool_part *p = entry->parts; p; p = p->next) {
        if (!p->hop->timed.index || !p->hop->reason)
            continue;
        p->reason = p->hop->reason;
        struct str reason = spool_schedule_text_get(q->schedule, p->reason);
        snprintf(why, sizeof why, "delivery temporarily suspended: %.*s", STR_ARG(reason));
        spool_id_format(entry->id, id);
        for (uint16_t i = 0; i < p->n_recipients; i++)
            queue_tell_undelivered(q, id, e->recipient[spool_part_recipient(p, i)].address, entry, "4.4.1", "deferred",
                                   str_of(why));
    }
}

void intake_message(struct queue *q, const struct spool_found *found)
{
    const struct spool_envelope *e = found->envelope;
    const struct spool_memory *memory = found->memory;
    if (compact_found(q, spool_schedule_find(q->schedule, found->id), found))
        return;
    struct spool_entry *entry = spool_schedule_add(q->schedule, found->id);
    if (!entry)
        out_of_memory(q);
    entry->born_ms = queue_mono_of(e->arrival_wall_ms);
    entry->segment = spool_segment_slot(found->segment);
    entry->offset = found->place.offset;
    entry->length = found->place.length;
    entry->n_recipients = (uint16_t)e->n_recipients;
    entry->flags = (uint8_t)((found->body_file ? SPOOL_ENTRY_BODY_FILE : 0) |
                             (e->flags & SPOOL_FLAG_BOUNCE ? SPOOL_ENTRY_BOUNCE : 0) |
                             (e->reverse_path.n ? 0 : SPOOL_ENTRY_NULL_SENDER) |
                             (memory && memory->held ? SPOOL_ENTRY_HELD : 0) |
                             (memory && memory->delay_noticed ? SPOOL_ENTRY_DELAY_NOTICE : 0));
    if (found->body_owner)
        intake_body_used(q, found->body_owner);
    for (size_t i = 0; i < e->n_recipients; i++) {
        if (e->recipient[i].notify & SPOOL_NOTIFY_SUCCESS)
            entry->flags |= SPOOL_ENTRY_NOTIFY_SUCCESS;
        if (is_settled(memory, i))
            continue;
        struct spool_hop *hop = hop_of(q, e->recipient[i].address);
        if (!hop || !spool_schedule_add_recipient(q->schedule, entry, hop, (uint16_t)i))
            out_of_memory(q);
    }
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(found->id, id);
    log_mail(q->ctx->log, LOG_LEVEL_INFO, "qmgr", "%s: from=<%.*s>, size=%llu, nrcpt=%zu (queue active)", id,
             STR_ARG(e->reverse_path), (unsigned long long)e->message_bytes, e->n_recipients);
    if (!entry->parts) { /* every recipient was settled, only the last note was lost */
        settle_recipients(q, entry, NULL, 0);
        return;
    }
    schedule_parts(q, entry, memory);
    if (!memory)
        tell_resting(q, entry, e);
    queue_wake(q);
}

/* ---- following ---- */

void intake_follow(struct queue_writer *w)
{
    struct queue *q = w->queue;
    if (!w->page || !q->scanned)
        return;
    do {
        atomic_store(&w->page->bell_wanted, 0);
        while (spool_store_follow(q->store, w, w->page))
            ;
        atomic_store(&w->page->bell_wanted, 1);
    } while (spool_store_follow(q->store, w, w->page));
}

static void on_bell(void *arg, unsigned events)
{
    struct queue_writer *w = arg;
    uint64_t count;
    (void)events;
    (void)!read(w->bell_fd, &count, sizeof count); /* only that it rang matters */
    intake_follow(w);
}

/* ---- lending ---- */

static void send_lent(struct queue_writer *w, unsigned type, const struct spool_lent *lent, int fd)
{
    struct buf body;
    buf_init(&body, 64);
    ipc_put_segment(&body, &(struct ipc_segment){ lent->number, lent->generation, lent->size_bytes });
    channel_send_fds(w->channel, type, 0, buf_str(&body), &fd, 1);
    buf_done(&body);
}

/* smtpd at full speed fills a segment in less than a second; the queue's own writer hardly ever does. */
static unsigned segment_spares(const struct queue_writer *w)
{
    return w->index == QUEUE_WRITERS_MAX ? OWN_SEGMENT_SPARES : SEGMENT_SPARES;
}

static bool lend_to(struct queue *q, struct queue_writer *w)
{
    struct spool_lent lent;
    int fd;
    bool own = w->index == QUEUE_WRITERS_MAX;
    struct err err;
    while (w->lent_segments < segment_spares(w) && spool_store_lend_segment(q->store, w, &lent, &fd)) {
        w->lent_segments++;
        if (!own)
            send_lent(w, IPC_SEGMENT_LEND, &lent, fd);
        else if (spool_writer_lend_segment(q->own, &lent, fd, &err) < 0)
            log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.lend.failed", "%s", err.text);
    }
    while (w->lent_bodies < BODY_SPARES && spool_store_lend_body(q->store, w, &lent, &fd)) {
        w->lent_bodies++;
        if (!own)
            send_lent(w, IPC_BODY_LEND, &lent, fd);
        else if (spool_writer_lend_body(q->own, &lent, fd, &err) < 0)
            log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.lend.failed", "%s", err.text);
    }
    return w->lent_segments >= segment_spares(w) && w->lent_bodies >= BODY_SPARES;
}

void intake_lend(struct queue *q)
{
    if (!q->scanned)
        return;
    unsigned segments = 1, bodies = 1; /* one ahead, for whoever asks next */
    for (unsigned i = 0; i <= QUEUE_WRITERS_MAX; i++) {
        struct queue_writer *w = &q->writer[i];
        bool there = i == QUEUE_WRITERS_MAX ? q->own != NULL : w->channel != NULL;
        if (!there || lend_to(q, w))
            continue;
        segments += segment_spares(w) > w->lent_segments ? segment_spares(w) - w->lent_segments : 0;
        bodies += BODY_SPARES > w->lent_bodies ? BODY_SPARES - w->lent_bodies : 0;
    }
    spool_store_want(q->store, segments, bodies);
}

void intake_body_used(struct queue *q, void *owner)
{
    struct queue_writer *w = owner;
    if (w && w->lent_bodies)
        w->lent_bodies--;
    intake_lend(q);
}

static void returned(struct queue_writer *w, bool is_body, const struct spool_lent *lent)
{
    struct queue *q = w->queue;
    unsigned *count = is_body ? &w->lent_bodies : &w->lent_segments;
    if (*count && (!is_body || spool_store_taken(q->store, lent->number)))
        --*count;
    if (!is_body)
        intake_follow(w);
    spool_store_returned(q->store, is_body, lent);
    intake_lend(q);
}

/* ---- recovery ---- */

void intake_try_scan(struct queue *q)
{
    if (q->scanned)
        return;
    for (unsigned i = 0; i < QUEUE_WRITERS_MAX; i++)
        if (q->writer[i].channel && !(q->writer[i].told_segments && q->writer[i].told_bodies))
            return;
    loop_timer_free(&held_limit);
    struct err err = { 0 };
    for (unsigned i = 0; i < QUEUE_WRITERS_MAX; i++)
        if (q->writer[i].channel && q->writer[i].page)
            spool_store_follow(q->store, &q->writer[i], q->writer[i].page);
    int rc = spool_store_scan(q->store, &err);
    if (rc < 0)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.failed", "%s", err.text);
    q->scanned = true;
    queue_checkpoint(q);
    size_t n = spool_schedule_entries(q->schedule);
    log_event(q->ctx->log, LOG_LEVEL_NOTICE, "queue.ready", "%zu messages in the spool", n);
    for (unsigned i = 0; i < QUEUE_WRITERS_MAX; i++)
        if (q->writer[i].channel)
            intake_follow(&q->writer[i]);
    intake_lend(q);
    queue_wake(q);
    if (spool_writer_can_accept(q->own)) /* else when the first spare has come */
        role_say_ready(q->ctx);
}

static void on_held_limit(void *arg)
{
    struct queue *q = arg;
    /* It may write to its segments at any time, so they cannot be used for others: waiting is all that is safe. */
    log_event(q->ctx->log, LOG_LEVEL_WARNING, "queue.writer.silent", "a process that takes mail has not said for %d s which "
              "segments it holds; nothing is delivered before it does, or ends", HELD_WAIT_MS / 1000);
    loop_timer_set(held_limit, HELD_WAIT_MS);
}

static void held(struct queue_writer *w, bool is_body, const struct spool_lent *lent)
{
    bool *told = is_body ? &w->told_bodies : &w->told_segments;
    if (lent->number == 0) {
        *told = true;
        intake_try_scan(w->queue);
        return;
    }
    if (w->queue->scanned) { /* not what it held before, but what it begins to fill now */
        if (is_body && spool_store_taken(w->queue->store, lent->number))
            intake_body_used(w->queue, w);
        return;
    }
    spool_store_held(w->queue->store, is_body, lent, w);
    if (is_body)
        w->lent_bodies++;
    else
        w->lent_segments++;
}

/* ---- channels ---- */

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct queue_writer *w = arg;
    struct ipc_segment m;
    (void)id, (void)fds;
    if (!ipc_get_segment(body, &m))
        return;
    struct spool_lent lent = { m.segment, m.generation, m.size_bytes };
    switch (type) {
    case IPC_SEGMENT_RETURN: returned(w, false, &lent); break;
    case IPC_BODY_RETURN: returned(w, true, &lent); break;
    case IPC_SEGMENT_HELD: held(w, false, &lent); break;
    case IPC_BODY_HELD: held(w, true, &lent); break;
    default: break;
    }
}

/* The writer has died: what it left is read to its end. Before the scan of a start it then counts as held by nobody. */
static void writer_gone(struct queue_writer *w)
{
    struct queue *q = w->queue;
    channel_free(&w->channel);
    loop_fd_free(&w->bell);
    if (q->store)
        spool_store_owner_gone(q->store, w, w->page);
    spool_page_unmap(w->page);
    if (w->bell_fd >= 0)
        close(w->bell_fd);
    *w = (struct queue_writer){ .queue = q, .index = w->index, .bell_fd = -1 };
    intake_try_scan(q);
}

static void on_closed(void *arg, const struct err *why)
{
    (void)why; /* master tells that it died */
    writer_gone(arg);
}

static const struct channel_handlers handlers = { .message = on_message, .closed = on_closed };

void intake_tell_paused(struct queue *q)
{
    for (unsigned i = 0; i < QUEUE_WRITERS_MAX; i++)
        if (q->writer[i].channel)
            channel_send(q->writer[i].channel, IPC_INTAKE, 0, q->paused_in ? STR("\0") : STR("\1"));
}

void intake_peer(struct queue *q, unsigned index, const int *fds, size_t n_fds)
{
    struct queue_writer *w = &q->writer[index];
    (void)n_fds;
    struct err err;
    if (w->channel)
        writer_gone(w);
    *w = (struct queue_writer){ .queue = q, .index = index, .bell_fd = fds[2], .page = spool_page_map(fds[1]) };
    close(fds[1]);
    if (channel_open(q->ctx->loop, fds[0], &handlers, w, &w->channel, &err) < 0 ||
        loop_fd_new(q->ctx->loop, w->bell_fd, on_bell, w, &w->bell, &err) < 0) {
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "role.channel.failed", "%s", err.text);
        return;
    }
    loop_fd_want(w->bell, LOOP_READ);
    if (w->page)
        atomic_store(&w->page->bell_wanted, 1);
    if (q->paused_in)
        channel_send(w->channel, IPC_INTAKE, 0, STR("\0"));
    if (q->scanned) /* a new process holds nothing yet */
        intake_lend(q);
}

/* ---- the queue's own writer ---- */

static void own_segment_done(void *arg, const struct spool_lent *lent)
{
    returned(arg, false, lent);
}

static void own_body_done(void *arg, const struct spool_lent *lent)
{
    returned(arg, true, lent);
}

static void own_body_taken(void *arg, const struct spool_lent *lent)
{
    struct queue_writer *w = arg;
    if (spool_store_taken(w->queue->store, lent->number))
        intake_body_used(w->queue, w);
}

static void own_failed(void *arg, const struct err *why)
{
    struct queue_writer *w = arg;
    log_event(w->queue->ctx->log, LOG_LEVEL_ERROR, "spool.sync.failed", "%s", err_text(why));
}

/* From now on sendmail is served. */
static void own_changed(void *arg)
{
    struct queue_writer *w = arg;
    if (w->queue->ctx->ready_owed && w->queue->scanned && spool_writer_can_accept(w->queue->own))
        role_say_ready(w->queue->ctx);
}

static const struct spool_writer_handlers own_handlers = {
    .segment_done = own_segment_done, .body_done = own_body_done, .body_taken = own_body_taken,
    .failed = own_failed, .changed = own_changed,
};

int intake_start(struct queue *q, struct err *err)
{
    struct queue_writer *w = &q->writer[QUEUE_WRITERS_MAX];
    *w = (struct queue_writer){ .queue = q, .index = QUEUE_WRITERS_MAX, .told_segments = true, .told_bodies = true };
    int page_fd = spool_page_create();
    w->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->page = page_fd >= 0 ? spool_page_map(page_fd) : NULL;
    if (page_fd >= 0)
        close(page_fd);
    if (!w->page || w->bell_fd < 0)
        return err_errno(err, errno, "cannot make the queue's own page");
    int rc = loop_fd_new(q->ctx->loop, w->bell_fd, on_bell, w, &w->bell, err);
    if (rc < 0)
        return rc;
    loop_fd_want(w->bell, LOOP_READ);
    atomic_store(&w->page->bell_wanted, 1);
    rc = spool_writer_new(q->ctx->loop, &spool_disk_system, w->page, w->bell_fd, &own_handlers, w, &q->own, err);
    if (rc == 0)
        rc = loop_timer_new(q->ctx->loop, on_held_limit, q, &held_limit, err);
    if (rc < 0)
        return rc;
    loop_timer_set(held_limit, HELD_WAIT_MS);
    intake_try_scan(q);
    return 0;
}
