/* Happy path: IPC_JOB → a struct job → a hop or local.c → job_finish(): one IPC_RESULT, one log line a
 * recipient. Ways to fail: the segment is not ours (returned), the message cannot be read (deferred), the
 * snapshot is gone (returned) or has not come yet (waits); the queue dies: nobody is told any more. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/delivery/delivery.h"
#include "io/now.h"

enum { RESULT_ROWS_BYTES = 70 * 1024, REPLY_MAX_BYTES = 1024 };

/* ---- segments ---- */

static void segment_unref(struct segment *segment)
{
    if (--segment->refs > 0)
        return;
    close(segment->fd);
    struct delivery *d = segment->delivery;
    if (d->queue && segment->epoch == d->epoch) {
        struct buf body;
        buf_init(&body, 64);
        ipc_put_segment(&body, &(struct ipc_segment){ segment->number, segment->generation, 0 });
        channel_send(d->queue, IPC_SEGMENT_CLOSED, 0, buf_str(&body));
        buf_done(&body);
    }
    free(segment);
}

static struct segment *segment_find(struct delivery *d, uint64_t number)
{
    struct segment *segment = NULL;
    HASH_FIND(hh, d->segments, &number, sizeof number, segment);
    return segment;
}

static void segment_forget(struct delivery *d, struct segment *segment)
{
    HASH_DEL(d->segments, segment);
    segment_unref(segment);
}

static bool on_segment_open(struct delivery *d, struct str body, struct channel_fds *fds)
{
    struct ipc_segment m;
    if (!ipc_get_segment(body, &m) || fds->n != 1)
        return false;
    struct segment *old = segment_find(d, m.segment);
    if (old)
        segment_forget(d, old);
    struct segment *segment = calloc(1, sizeof *segment);
    if (!segment)
        return true; /* its jobs will be returned */
    *segment = (struct segment){ .number = m.segment, .generation = m.generation, .fd = channel_take_fd(fds, 0),
                                 .refs = 1, .epoch = d->epoch, .delivery = d };
    HASH_ADD(hh, d->segments, number, sizeof segment->number, segment);
    if (!hash_has(segment)) {
        close(segment->fd);
        free(segment);
    }
    return true;
}

static bool on_segment_close(struct delivery *d, struct str body)
{
    struct ipc_segment m;
    if (!ipc_get_segment(body, &m))
        return false;
    struct segment *segment = segment_find(d, m.segment);
    if (segment && segment->generation == m.generation)
        segment_forget(d, segment);
    return true;
}

/* ---- results ---- */

static void free_job(struct job *job)
{
    struct delivery *d = job->delivery;
    if (job->waits)
        HASH_DEL(d->jobs, job);
    if (job->reader)
        spool_reader_free(&job->reader);
    if (job->body_fd >= 0)
        close(job->body_fd);
    if (job->segment)
        segment_unref(job->segment);
    site_unref(&job->site);
    d->n_jobs--;
    free(job);
    delivery_check_drained(d);
}

static const char *or_none(const char *text)
{
    return text && text[0] ? text : "none";
}

static void send_result(struct job *job, const struct way *way, const struct outcome *outcome, size_t n)
{
    struct delivery *d = job->delivery;
    if (!d->queue || job->epoch != d->epoch)
        return;
    struct buf rows, body;
    buf_init(&rows, RESULT_ROWS_BYTES);
    buf_init(&body, CHANNEL_BODY_MAX);
    /* A thousand long replies would not fit into one message: each gets its share. */
    size_t share = (size_t)RESULT_ROWS_BYTES / job->n_recipients;
    share = share > 32 + SMTP_REPLY_ENHANCED_BYTES ? share - 32 - SMTP_REPLY_ENHANCED_BYTES : 0;
    for (size_t i = 0; i < job->n_recipients; i++) {
        const struct outcome *o = &outcome[n == 1 ? 0 : i];
        struct str reply = o->reply;
        if (reply.n > REPLY_MAX_BYTES)
            reply.n = REPLY_MAX_BYTES;
        if (reply.n > share)
            reply.n = share;
        ipc_put_result_row(&rows, &(struct ipc_result_row){ (uint8_t)o->status, o->flags, str_of(o->dsn), reply });
    }
    struct ipc_result m = { .job = job->id, .hop_failed = way->hop_failed, .relay = str_of(or_none(way->relay)),
                            .remote_name = str_of(way->remote_name ? way->remote_name : ""),
                            .tls = str_of(or_none(way->tls)), .auth = str_of(or_none(way->auth)),
                            .n_rows = job->n_recipients, .rows = buf_str(&rows) };
    ipc_put_result(&body, &m);
    channel_send(d->queue, IPC_RESULT, 0, buf_str(&body));
    buf_done(&rows);
    buf_done(&body);
}

void job_seconds(int64_t ms, char ret_text[24])
{
    if (ms < 0)
        ms = 0;
    if (ms >= 10000) {
        snprintf(ret_text, 24, "%" PRId64, (ms + 500) / 1000);
        return;
    }
    /* Two significant digits, at most two behind the point, no zeros at the end. */
    int64_t hundredths = ms >= 1000 ? (ms + 50) / 100 * 10 : (ms + 5) / 10;
    int n = snprintf(ret_text, 24, "%" PRId64 ".%02" PRId64, hundredths / 100, hundredths % 100);
    while (ret_text[n - 1] == '0')
        ret_text[--n] = 0;
    if (ret_text[n - 1] == '.')
        ret_text[--n] = 0;
}

static void log_outcomes(struct job *job, const struct way *way, const struct outcome *outcome, size_t n)
{
    static const char *const status[] = { [IPC_STATUS_SENT] = "sent", [IPC_STATUS_DEFERRED] = "deferred",
                                          [IPC_STATUS_BOUNCED] = "bounced" };
    int64_t now_ms = loop_now_ms(job->delivery->ctx->loop);
    int64_t here_ms = now_ms - job->taken_ms;
    int64_t total_ms = now_wall_ms() - spool_reader_envelope(job->reader)->arrival_wall_ms;
    if (total_ms < here_ms)
        total_ms = here_ms; /* the wall clock was set back */
    int64_t setup_ms = job->setup_ms ? job->setup_ms : now_ms;
    int64_t ready_ms = job->ready_ms ? job->ready_ms : now_ms;
    char delay[24], part[4][24];
    job_seconds(total_ms, delay);
    job_seconds(total_ms - here_ms, part[0]);
    job_seconds(setup_ms - job->taken_ms, part[1]);
    job_seconds(ready_ms - setup_ms, part[2]);
    job_seconds(now_ms - ready_ms, part[3]);
    /* Between delays= and dsn= pflogsumm takes no further name, and line patterns want the parenthesis to end the
     * line: what the connection was stands within it. */
    char session[160] = "";
    if (way->tls_short)
        snprintf(session, sizeof session, "; tls=%s auth=%s", or_none(way->tls_short), or_none(way->auth));
    for (size_t i = 0; i < job->n_recipients; i++) {
        const struct outcome *o = &outcome[n == 1 ? 0 : i];
        struct str text = o->text.n ? o->text : o->reply;
        struct str address = job_recipient(job, i)->address;
        log_mail(job->delivery->ctx->log, LOG_LEVEL_INFO, way->program,
                 "%s: to=<%.*s>, relay=%s, delay=%s, delays=%s/%s/%s/%s, dsn=%s, status=%s (%.*s%s)",
                 job->qid, STR_ARG(address), or_none(way->relay), delay, part[0], part[1], part[2], part[3],
                 o->dsn, status[o->status], text.n > REPLY_MAX_BYTES + 256 ? REPLY_MAX_BYTES + 256 : (int)text.n,
                 text.n ? text.p : "", session);
    }
}

void job_finish(struct job *job, const struct way *way, const struct outcome *outcome, size_t n)
{
    if (job->reader)
        log_outcomes(job, way, outcome, n);
    send_result(job, way, outcome, n);
    free_job(job);
}

void job_return(struct job *job)
{
    static const struct way nowhere = { .program = "smtp" };
    struct outcome outcome = { .status = IPC_STATUS_RETURNED, .dsn = "4.3.0", .reply = STR("not tried") };
    send_result(job, &nowhere, &outcome, 1);
    free_job(job);
}

static void job_unreadable(struct job *job, const char *why)
{
    log_event(job->delivery->ctx->log, LOG_LEVEL_ERROR, "delivery.message.unreadable", "%s: %s", job->qid, why);
    static const struct way nowhere = { .program = "smtp" };
    struct outcome outcome = { .status = IPC_STATUS_DEFERRED, .dsn = "4.3.0", .reply = str_of(why) };
    send_result(job, &nowhere, &outcome, 1);
    free_job(job);
}

bool job_open(struct job *job)
{
    struct err err;
    if (job->reader)
        return true;
    job_started(job);
    int rc = spool_reader_open(&spool_disk_system, job->segment->fd, &job->place, job->body_fd, &job->reader, &err);
    if (rc < 0) {
        job->reader = NULL;
        job_unreadable(job, err_text(&err));
        return false;
    }
    size_t n = spool_reader_envelope(job->reader)->n_recipients;
    for (size_t i = 0; i < job->n_recipients; i++) {
        if (job->recipient[i] < n)
            continue;
        spool_reader_free(&job->reader);
        job_unreadable(job, "the job names a recipient that the message does not have");
        return false;
    }
    return true;
}

const struct spool_recipient *job_recipient(const struct job *job, size_t i)
{
    return &spool_reader_envelope(job->reader)->recipient[job->recipient[i]];
}

void job_started(struct job *job)
{
    if (!job->waits)
        return;
    job->waits = false;
    HASH_DEL(job->delivery->jobs, job);
}

/* ---- jobs ---- */

static struct job *job_new(struct delivery *d, const struct ipc_job *m)
{
    struct job *job = calloc(1, sizeof *job + m->recipients.n + m->next_hop.n + 1);
    if (!job)
        return NULL;
    job->recipient = (uint16_t *)(job + 1);
    job->next_hop = (char *)(job + 1) + m->recipients.n;
    job->n_recipients = (uint16_t)(m->recipients.n / 2);
    for (size_t i = 0; i < job->n_recipients; i++)
        job->recipient[i] = (uint16_t)((unsigned char)m->recipients.p[2 * i] | (unsigned char)m->recipients.p[2 * i + 1] << 8);
    if (!str_copy(m->next_hop, job->next_hop, m->next_hop.n + 1)) {
        free(job);
        return NULL;
    }
    job->delivery = d;
    job->id = m->job;
    job->message_id = m->message_id;
    job->place = (struct spool_place){ m->segment, m->generation, m->offset, m->length };
    job->epoch = d->epoch;
    job->conf_generation = m->conf_generation;
    job->attempt = m->attempt;
    job->block_index = m->block;
    job->body_fd = -1;
    job->taken_ms = loop_now_ms(d->ctx->loop);
    spool_id_format(m->message_id, job->qid);
    HASH_ADD(hh, d->jobs, id, sizeof job->id, job);
    if (!hash_has(job)) {
        free(job);
        return NULL;
    }
    d->n_jobs++;
    job->waits = true;
    return job;
}

static struct site *site_of(struct delivery *d, uint64_t generation)
{
    if (d->site && d->site->conf->generation == generation)
        return d->site;
    return d->site_before && d->site_before->conf->generation == generation ? d->site_before : NULL;
}

/* To where its block says; waits for a snapshot that the queue has before us. */
static void job_begin(struct job *job)
{
    struct delivery *d = job->delivery;
    if (d->site && job->conf_generation > d->site->conf->generation) {
        TAILQ_INSERT_TAIL(&d->for_later, job, link);
        return;
    }
    struct site *site = site_of(d, job->conf_generation);
    if (!site || job->block_index >= site->conf->n_domains) {
        job_return(job); /* the queue asks again with a newer snapshot */
        return;
    }
    job->site = site_ref(site);
    job->block = &site->conf->domain[job->block_index];
    const char *deliver = job->block->deliver;
    if (!deliver || str_starts(str_of(deliver), STR("lmtp:")))
        hop_add(job);
    else
        local_deliver(job);
}

void jobs_configured(struct delivery *d)
{
    struct job_list list = TAILQ_HEAD_INITIALIZER(list);
    TAILQ_CONCAT(&list, &d->for_later, link);
    struct job *job;
    while ((job = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, job, link);
        job_begin(job);
    }
}

/* A job that we cannot even hold: the result needs no more than its number. */
static void refuse(struct delivery *d, const struct ipc_job *m)
{
    struct job job = { .delivery = d, .id = m->job, .epoch = d->epoch, .n_recipients = (uint16_t)(m->recipients.n / 2) };
    struct outcome outcome = { .status = IPC_STATUS_RETURNED, .dsn = "4.3.0", .reply = STR("not tried") };
    send_result(&job, &(struct way){ .program = "smtp" }, &outcome, 1);
}

static bool on_job(struct delivery *d, struct str body, struct channel_fds *fds)
{
    struct ipc_job m;
    if (!ipc_get_job(body, &m) || fds->n != m.has_body_file)
        return false;
    struct job *known = NULL;
    HASH_FIND(hh, d->jobs, &m.job, sizeof m.job, known);
    struct segment *segment = segment_find(d, m.segment);
    bool fits = segment && segment->generation == m.generation && !d->draining && !known;
    struct job *job = fits ? job_new(d, &m) : NULL;
    if (!job) {
        refuse(d, &m);
        return true;
    }
    job->segment = segment;
    segment->refs++;
    if (m.has_body_file)
        job->body_fd = channel_take_fd(fds, 0);
    job_begin(job);
    return true;
}

static bool on_cancel(struct delivery *d, struct str body)
{
    struct wire w = wire_of(body);
    uint64_t id = wire_get_u64(&w);
    if (!wire_end(&w))
        return false;
    struct job *job = NULL;
    HASH_FIND(hh, d->jobs, &id, sizeof id, job);
    if (!job)
        return true; /* begun or ended: its result comes, or has come */
    if (job->hop)
        hop_remove(job);
    else
        TAILQ_REMOVE(&d->for_later, job, link);
    job_return(job);
    return true;
}

bool job_message(struct delivery *d, unsigned type, struct str body, struct channel_fds *fds)
{
    switch (type) {
    case IPC_JOB: return on_job(d, body, fds);
    case IPC_JOB_CANCEL: return on_cancel(d, body);
    case IPC_SEGMENT_OPEN: return on_segment_open(d, body, fds);
    case IPC_SEGMENT_CLOSE: return on_segment_close(d, body);
    default: return false;
    }
}

void jobs_queue_gone(struct delivery *d)
{
    d->epoch++; /* results and closed segments of the old one are not told to the new one */
    struct job *job;
    while ((job = TAILQ_FIRST(&d->for_later))) {
        TAILQ_REMOVE(&d->for_later, job, link);
        free_job(job);
    }
    hops_drop_waiting(d);
    struct segment *segment, *next;
    HASH_ITER(hh, d->segments, segment, next)
        segment_forget(d, segment);
}
