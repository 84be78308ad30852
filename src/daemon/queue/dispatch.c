/* Jobs: which part goes to which delivery process, and what comes back. A job carries the place of the message, never its
 * body. Each process has so many jobs at a time, each next hop so many in all (its window); a hop that was not reached is
 * left alone for a while and then tried with a few.
 *
 * When a delivery process dies, its jobs return at once and count no attempt; a message whose process died three times
 * is held, with an event: something about it kills. */
#include <stdlib.h>
#include <unistd.h>

#include "daemon/queue/queue.h"
#include "io/now.h"
#include "policy/route.h"

enum {
    JOBS_MAX = 8192, JOBS_PER_DELIVERY = 2000, WINDOW_LOCAL = 1000, WINDOW_PER_CONNECTION = 50, WINDOW_PROBE = 2,
    DEATHS_MAX = 3, RETURNED_PAUSE_MS = 1000, SLOTS_STEP = 64,
};

struct job {
    uint64_t id;                 /* 0: free; the low bits are its index */
    struct spool_part *part;
    uint64_t message_id;
    uint32_t delivery;
    uint16_t n;
    uint32_t next_free;
};

struct jobs {
    struct job job[JOBS_MAX];
    uint32_t first_free;
    uint64_t sequence;
    uint32_t n;
    uint16_t *opened;            /* by segment slot: bits of the delivery processes that have it open */
    uint32_t n_slots;
};

int dispatch_start(struct queue *q, struct err *err)
{
    struct jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return err_set(err, -ENOMEM, "out of memory for jobs");
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        jobs->job[i].next_free = i + 1;
    jobs->sequence = 1;
    q->jobs = jobs;
    return 0;
}

uint32_t dispatch_running(const struct queue *q)
{
    return q->jobs->n;
}

static struct job *new_job(struct jobs *jobs)
{
    if (jobs->first_free == JOBS_MAX)
        return NULL;
    uint32_t index = jobs->first_free;
    struct job *j = &jobs->job[index];
    jobs->first_free = j->next_free;
    jobs->n++;
    j->id = jobs->sequence++ * JOBS_MAX + index;
    return j;
}

static void free_job(struct queue *q, struct job *j)
{
    struct jobs *jobs = q->jobs;
    q->delivery[j->delivery].n_jobs--;
    j->id = 0;
    j->part = NULL;
    j->next_free = jobs->first_free;
    jobs->first_free = (uint32_t)(j - jobs->job);
    jobs->n--;
}

static struct job *find_job(struct queue *q, uint64_t id, unsigned delivery)
{
    struct job *j = &q->jobs->job[id % JOBS_MAX];
    return id && j->id == id && j->delivery == delivery ? j : NULL;
}

/* ---- hops ---- */

void dispatch_prepare_hop(struct queue *q, struct spool_hop *hop, int block)
{
    const struct conf *conf = q->ctx->conf;
    hop->block_index = block;
    hop->conf_generation = conf->generation;
    uint32_t window = WINDOW_LOCAL;
    if (block >= 0 && !route_is_ours(&conf->domain[block]))
        window = conf->domain[block].concurrency * WINDOW_PER_CONNECTION;
    spool_schedule_hop_window(q->schedule, hop, window);
}

void dispatch_configured(struct queue *q)
{
    size_t cursor = 0;
    for (struct spool_hop *hop = NULL; (hop = spool_schedule_hop_walk(q->schedule, &cursor, hop));) {
        dispatch_prepare_hop(q, hop, hop->domain.n ? route_find(q->ctx->conf, hop->domain) : -1);
        hop->failures = 0;
        spool_schedule_hop_wait(q->schedule, hop, 0); /* what was mended is tried at once */
    }
    queue_wake(q);
}

static bool is_maildir(const struct conf_domain *block)
{
    return block->deliver && strncmp(block->deliver, "maildir:", 8) == 0;
}

/* Mail folders are written by the last process when mail_owner has one of its own; one hop's jobs stay with one process,
 * so that connections are used again. -1: nobody can take it now. */
static int choose_delivery(struct queue *q, const struct spool_hop *hop, const struct conf_domain *block)
{
    unsigned usual = q->ctx->conf->delivery_processes ? q->ctx->conf->delivery_processes : 1;
    unsigned first = 0, n = usual;
    if (is_maildir(block) && usual < QUEUE_DELIVERIES_MAX && q->delivery[usual].queue) {
        first = usual;
        n = 1;
    }
    for (unsigned i = 0; i < n && first + i < QUEUE_DELIVERIES_MAX; i++) {
        unsigned at = first + (unsigned)(((uintptr_t)hop >> 6) + i) % n;
        if (q->delivery[at].channel && q->delivery[at].n_jobs < JOBS_PER_DELIVERY)
            return (int)at;
    }
    return -1;
}

/* ---- segments at delivery processes ---- */

static uint16_t *opened_bits(struct jobs *jobs, uint32_t slot)
{
    if (slot >= jobs->n_slots) {
        uint32_t n = slot + SLOTS_STEP;
        uint16_t *p = realloc(jobs->opened, n * sizeof *p);
        if (!p)
            return NULL;
        memset(p + jobs->n_slots, 0, (n - jobs->n_slots) * sizeof *p);
        jobs->opened = p;
        jobs->n_slots = n;
    }
    return &jobs->opened[slot];
}

static void send_segment(struct queue_delivery *d, unsigned type, const struct spool_lent *lent, const int *fd)
{
    struct buf body;
    buf_init(&body, 64);
    ipc_put_segment(&body, &(struct ipc_segment){ lent->number, lent->generation, lent->size_bytes });
    channel_send_fds(d->channel, type, 0, buf_str(&body), fd, fd ? 1 : 0);
    buf_done(&body);
}

static bool open_segment(struct queue *q, struct queue_delivery *d, struct spool_segment *s)
{
    uint16_t *bits = opened_bits(q->jobs, spool_segment_slot(s));
    uint16_t bit = (uint16_t)(1u << d->index);
    if (!bits)
        return false;
    if (*bits & bit)
        return true;
    int fd = spool_segment_open(q->store, s);
    if (fd < 0) {
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "spool.failed", "cannot open a segment for delivery: %s", strerror(-fd));
        return false;
    }
    send_segment(d, IPC_SEGMENT_OPEN, spool_segment_lent(s), &fd);
    spool_segment_opened(s);
    *bits |= bit;
    return true;
}

void dispatch_segment_finished(struct queue *q, struct spool_segment *s)
{
    const uint16_t *bits = opened_bits(q->jobs, spool_segment_slot(s));
    for (unsigned i = 0; bits && i < QUEUE_DELIVERIES_MAX; i++)
        if ((*bits & (1u << i)) && q->delivery[i].channel)
            send_segment(&q->delivery[i], IPC_SEGMENT_CLOSE, spool_segment_lent(s), NULL);
}

static void segment_closed(struct queue *q, unsigned delivery, uint64_t number)
{
    for (uint32_t slot = 0; slot < q->jobs->n_slots; slot++) {
        struct spool_segment *s = spool_store_slot(q->store, slot);
        uint16_t bit = (uint16_t)(1u << delivery);
        if (!(q->jobs->opened[slot] & bit) || !s || spool_segment_lent(s)->number != number)
            continue;
        q->jobs->opened[slot] &= (uint16_t)~bit;
        spool_store_closed(q->store, number);
        return;
    }
}

/* ---- sending jobs ---- */

static int body_descriptor(struct queue *q, struct spool_entry *entry)
{
    struct spool_reader *reader;
    struct err err;
    if (queue_read(q, entry, &reader, &err) < 0)
        return -1;
    int fd = spool_store_body_open(q->store, spool_reader_body_file(reader));
    spool_reader_free(&reader);
    return fd;
}

static void bounce_whole_part(struct queue *q, struct spool_part *part, struct str dsn, struct str reply)
{
    static struct queue_row rows[SPOOL_RECIPIENTS_MAX];
    uint16_t n = part->n_recipients;
    for (uint16_t i = 0; i < n; i++)
        rows[i] = (struct queue_row){ .recipient = spool_part_recipient(part, i), .outcome = QUEUE_BOUNCED, .dsn = dsn,
                                      .reply = reply };
    settle_report(q, part, &(struct queue_report){ .row = rows, .n = n });
}

static void defer_whole_part(struct queue *q, struct spool_part *part, struct str reply)
{
    struct queue_row row = { .recipient = spool_part_recipient(part, 0), .outcome = QUEUE_DEFERRED, .dsn = STR("4.3.0"),
                             .reply = reply };
    settle_report(q, part, &(struct queue_report){ .row = &row, .n = 1 });
}

static bool send_job(struct queue *q, struct queue_delivery *d, struct spool_part *part)
{
    struct spool_entry *entry = part->entry;
    struct spool_segment *s = queue_segment_of(q, entry);
    struct job *j = s && open_segment(q, d, s) ? new_job(q->jobs) : NULL;
    if (!j)
        return false;
    unsigned char recipients[IPC_JOB_RCPT_MAX * 2];
    uint16_t n = part->n_recipients < IPC_JOB_RCPT_MAX ? part->n_recipients : IPC_JOB_RCPT_MAX;
    for (uint16_t i = 0; i < n; i++) {
        uint16_t r = spool_part_recipient(part, i);
        recipients[i * 2] = (unsigned char)r;
        recipients[i * 2 + 1] = (unsigned char)(r >> 8);
    }
    j->part = part;
    j->message_id = entry->id;
    j->delivery = d->index;
    j->n = n;
    d->n_jobs++;
    bool has_body = entry->flags & SPOOL_ENTRY_BODY_FILE;
    int body_fd = has_body ? body_descriptor(q, entry) : -1;
    if (has_body && body_fd < 0) {
        free_job(q, j);
        return false;
    }
    const struct spool_lent *lent = spool_segment_lent(s);
    struct ipc_job m = { .job = j->id, .message_id = entry->id, .segment = lent->number, .generation = lent->generation,
                         .offset = entry->offset, .length = entry->length, .has_body_file = has_body,
                         .attempt = part->attempts + 1u, .block = (uint16_t)part->hop->block_index,
                         .conf_generation = part->hop->conf_generation, .next_hop = part->hop->domain,
                         .recipients = str_slice(recipients, (size_t)n * 2) };
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    ipc_put_job(&body, &m);
    int rc = channel_send_fds(d->channel, IPC_JOB, 0, buf_str(&body), &body_fd, has_body ? 1 : 0);
    buf_done(&body);
    if (rc < 0)
        free_job(q, j);
    return rc == 0;
}

/* False: nothing can be sent now. */
static bool dispatch_part(struct queue *q, struct spool_part *part)
{
    const struct conf *conf = q->ctx->conf;
    struct spool_hop *hop = part->hop;
    if (hop->conf_generation != conf->generation)
        dispatch_prepare_hop(q, hop, hop->domain.n ? route_find(conf, hop->domain) : -1);
    if (settle_expired(q, part))
        return true;
    if (hop->block_index < 0) {
        bounce_whole_part(q, part, STR("5.4.4"), STR("no domain block of the configuration says where mail for this domain goes"));
        return true;
    }
    int delivery = choose_delivery(q, hop, &conf->domain[hop->block_index]);
    if (delivery < 0) { /* the process is away or full: again soon, without counting */
        spool_schedule_wait(q->schedule, part, now_mono_ms() + 100);
        return false;
    }
    if (!send_job(q, &q->delivery[delivery], part))
        defer_whole_part(q, part, STR("the message cannot be read from the spool for the moment"));
    return true;
}

void dispatch_pump(struct queue *q)
{
    unsigned stalled = 0;
    struct spool_part *part;
    while (q->jobs->n < JOBS_MAX - 1 && stalled < 64 && (part = spool_schedule_take(q->schedule)))
        if (!dispatch_part(q, part))
            stalled++;
    /* This runs at the end of a turn, perhaps behind the channels' own: what was sent must not wait for the next one. */
    for (unsigned i = 0; i < QUEUE_DELIVERIES_MAX; i++)
        if (q->delivery[i].channel)
            channel_flush(q->delivery[i].channel);
}

/* ---- results ---- */

static bool read_rows(const struct ipc_result *m, const struct job *j, struct queue_row *rows, struct queue_report *report,
                      bool *ret_returned)
{
    struct wire w = wire_of(m->rows);
    bool from_smtp = m->remote_name.n > 0;
    if (m->n_rows != j->n)
        return false;
    for (uint16_t i = 0; i < m->n_rows; i++) {
        struct ipc_result_row r;
        if (!ipc_get_result_row(&w, &r))
            return false;
        *ret_returned |= r.status == IPC_STATUS_RETURNED;
        rows[i] = (struct queue_row){
            .recipient = spool_part_recipient(j->part, i), .dsn = r.dsn, .reply = r.reply, .from_smtp = from_smtp,
            .outcome = r.status == IPC_STATUS_SENT ? QUEUE_SENT : r.status == IPC_STATUS_BOUNCED ? QUEUE_BOUNCED : QUEUE_DEFERRED,
            .peer_dsn = r.flags & IPC_RESULT_PEER_DSN,
        };
    }
    *report = (struct queue_report){ .row = rows, .n = m->n_rows, .hop_failed = m->hop_failed, .remote_mta = m->remote_name };
    return wire_end(&w);
}

static void on_result(struct queue_delivery *d, struct str body)
{
    static struct queue_row rows[IPC_JOB_RCPT_MAX];
    struct queue *q = d->queue;
    struct ipc_result m;
    struct job *j = ipc_get_result(body, &m) ? find_job(q, m.job, d->index) : NULL;
    if (!j)
        return;
    struct queue_report report;
    bool was_returned = false;
    struct spool_part *part = j->part;
    bool good = read_rows(&m, j, rows, &report, &was_returned);
    free_job(q, j);
    if (!good)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.result.malformed", "from delivery process %u", d->index);
    if (!good || was_returned)
        spool_schedule_wait(q->schedule, part, now_mono_ms() + RETURNED_PAUSE_MS);
    else
        settle_report(q, part, &report);
    queue_wake(q);
}

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct queue_delivery *d = arg;
    struct ipc_segment m;
    (void)id, (void)fds;
    if (type == IPC_RESULT)
        on_result(d, body);
    else if (type == IPC_SEGMENT_CLOSED && ipc_get_segment(body, &m))
        segment_closed(d->queue, d->index, m.segment);
}

/* ---- a delivery process goes ---- */

static void give_back(struct queue *q, struct job *j)
{
    struct spool_part *part = j->part;
    struct spool_entry *entry = part->entry;
    free_job(q, j);
    if (entry->deaths < DEATHS_MAX)
        entry->deaths++;
    spool_schedule_wait(q->schedule, part, 0);
    if (entry->deaths < DEATHS_MAX || (entry->flags & SPOOL_ENTRY_HELD))
        return;
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(entry->id, id);
    log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.held", "%s: three delivery processes have died with this message; it is "
              "held. Look at it with: postern queue show %s", id, id);
    settle_hold(q, entry, true);
}

static void delivery_gone(struct queue_delivery *d)
{
    struct queue *q = d->queue;
    channel_free(&d->channel);
    d->queue = d->retired ? NULL : q; /* its place is free again */
    for (uint32_t slot = 0; slot < q->jobs->n_slots; slot++) {
        struct spool_segment *s = spool_store_slot(q->store, slot);
        if (q->jobs->opened[slot] & (1u << d->index)) {
            q->jobs->opened[slot] &= (uint16_t)~(1u << d->index);
            if (s)
                spool_store_closed(q->store, spool_segment_lent(s)->number);
        }
    }
    for (uint32_t i = 0; i < JOBS_MAX && d->n_jobs; i++)
        if (q->jobs->job[i].id && q->jobs->job[i].delivery == d->index)
            give_back(q, &q->jobs->job[i]);
    queue_wake(q);
}

static void on_closed(void *arg, const struct err *why)
{
    (void)why; /* master tells that it died */
    struct queue_delivery *d = arg;
    if (d->queue->draining || !d->queue->jobs)
        channel_free(&d->channel);
    else
        delivery_gone(d);
}

static const struct channel_handlers handlers = { .message = on_message, .closed = on_closed };

/* A successor has come while it still runs: what it has in hand stays its own, in another place. False: no place. */
static bool set_aside(struct queue *q, struct queue_delivery *d)
{
    unsigned to = QUEUE_DELIVERIES_MAX - 1;
    unsigned usual = q->ctx->conf->delivery_processes ? q->ctx->conf->delivery_processes : 1;
    while (to > usual && q->delivery[to].queue)
        to--;
    if (to <= usual || !q->jobs)
        return false;
    struct queue_delivery *aside = &q->delivery[to];
    *aside = *d;
    aside->index = to;
    aside->retired = true;
    channel_set_arg(aside->channel, aside);
    *d = (struct queue_delivery){ .queue = q, .index = d->index };
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (q->jobs->job[i].id && q->jobs->job[i].delivery == d->index)
            q->jobs->job[i].delivery = to;
    for (uint32_t slot = 0; slot < q->jobs->n_slots; slot++) {
        uint16_t *bits = &q->jobs->opened[slot];
        if (*bits & (1u << d->index))
            *bits = (uint16_t)((*bits & ~(1u << d->index)) | 1u << to);
    }
    return true;
}

void dispatch_peer(struct queue *q, unsigned index, int fd)
{
    struct queue_delivery *d = &q->delivery[index];
    struct err err;
    if (d->channel && !set_aside(q, d))
        delivery_gone(d);
    *d = (struct queue_delivery){ .queue = q, .index = index };
    if (channel_open(q->ctx->loop, fd, &handlers, d, &d->channel, &err) < 0)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "role.channel.failed", "%s", err.text);
    queue_wake(q);
}
