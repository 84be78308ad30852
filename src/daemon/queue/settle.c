/* What becomes of recipients. Sent: settled. Refused for good: a notification is made durable, then settled. Deferred: again
 * later, with exponential backoff and jitter, until the message expires; then it is bounced.
 *
 * A part whose bounce is being written is parked: out of the schedule, until bounce_send() answers. */
#include <stdlib.h>
#include <unistd.h>

#include "daemon/queue/queue.h"
#include "io/now.h"
#include "policy/route.h"

enum { BOUNCE_AGAIN_MS = 60000, BACKOFF_STEPS_MAX = 20 };

struct spool_segment *queue_segment_of(struct queue *q, const struct spool_entry *entry)
{
    return spool_store_slot(q->store, entry->segment);
}

int queue_read(struct queue *q, const struct spool_entry *entry, struct spool_reader **ret_reader, struct err *err)
{
    struct spool_segment *s = queue_segment_of(q, entry);
    return s ? spool_store_read(q->store, s, entry->offset, entry->length, -1, ret_reader, err)
             : err_set(err, ERR_ABSENT, "the message's segment is gone");
}

/* ---- settling ---- */

static uint64_t body_file_of(struct queue *q, const struct spool_entry *entry)
{
    struct spool_reader *reader;
    struct err err;
    if (!(entry->flags & SPOOL_ENTRY_BODY_FILE) || queue_read(q, entry, &reader, &err) < 0)
        return 0;
    uint64_t number = spool_reader_body_file(reader);
    spool_reader_free(&reader);
    return number;
}

static void settle_entry(struct queue *q, struct spool_entry *entry)
{
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(entry->id, id);
    log_mail(q->ctx->log, LOG_LEVEL_INFO, "qmgr", "%s: removed", id);
    spool_store_settled(q->store, queue_segment_of(q, entry), entry->id, body_file_of(q, entry));
    spool_schedule_remove(q->schedule, entry);
}

void settle_recipients(struct queue *q, struct spool_entry *entry, const uint16_t *recipients, uint16_t n)
{
    for (struct spool_part *p = entry->parts, *next; p && n; p = next) {
        next = p->next;
        if (p->state != SPOOL_PART_READY)
            (void)spool_schedule_drop_recipients(q->schedule, p, recipients, n); /* gone or not: the entry knows */
    }
    if (!entry->parts)
        settle_entry(q, entry);
    else if (n)
        spool_store_settled_some(q->store, entry->id, recipients, n);
}

void settle_remember(struct queue *q, const struct spool_entry *entry, struct spool_memory *m, uint16_t *settled)
{
    bool open[SPOOL_RECIPIENTS_MAX] = { false };
    for (const struct spool_part *p = entry->parts; p; p = p->next) {
        for (uint16_t i = 0; i < p->n_recipients; i++)
            open[spool_part_recipient(p, i)] = true;
        if (p->attempts > m->attempts)
            m->attempts = p->attempts;
        if (p->reason)
            m->reason = spool_schedule_text_get(q->schedule, p->reason);
        if (p->state == SPOOL_PART_WAITING && p->timed.index)
            m->next_wall_ms = queue_wall_of(p->timed.at_ms);
    }
    m->n_settled = 0;
    for (uint16_t i = 0; i < entry->n_recipients; i++)
        if (!open[i])
            settled[m->n_settled++] = i;
}

/* ---- backoff ---- */

/* retry_min, twice that, … retry_max, give or take a tenth, so that what failed together does not return together. */
static int64_t backoff_ms(const struct conf *conf, unsigned attempts)
{
    int64_t ms = (int64_t)conf->retry_min_s * 1000, max = (int64_t)conf->retry_max_s * 1000;
    for (unsigned i = 1; i < attempts && i < BACKOFF_STEPS_MAX && ms < max; i++)
        ms *= 2;
    if (ms > max)
        ms = max;
    uint32_t random;
    now_random(&random, sizeof random);
    return ms + (int64_t)(random % 2001) * ms / 10000 - ms / 10;
}

static int64_t age_ms(const struct spool_entry *entry)
{
    return now_mono_ms() - entry->born_ms;
}

/* ---- bounces ---- */

struct pending {
    struct queue *q;
    uint64_t id;
    int64_t again_ms;       /* when the rest of the part is due; 0: parked parts keep their time */
    uint16_t n;
    uint16_t recipient[];
};

static struct spool_part *part_of(struct spool_entry *entry, uint16_t recipient)
{
    for (struct spool_part *p = entry->parts; p; p = p->next)
        for (uint16_t i = 0; i < p->n_recipients; i++)
            if (spool_part_recipient(p, i) == recipient)
                return p;
    return NULL;
}

static void on_bounced(void *arg, int result)
{
    struct pending *pending = arg;
    struct queue *q = pending->q;
    struct spool_entry *entry = q->draining ? NULL : spool_schedule_find(q->schedule, pending->id);
    struct spool_part *part = entry ? part_of(entry, pending->recipient[0]) : NULL;
    if (part && result < 0) {
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.bounce.failed", "a notification could not be written; tried again in %d s",
                  BOUNCE_AGAIN_MS / 1000);
        if (!(entry->flags & SPOOL_ENTRY_HELD))
            spool_schedule_wait(q->schedule, part, now_mono_ms() + BOUNCE_AGAIN_MS);
    } else if (part) {
        uint16_t rest = 0;
        bool has_rest = false;
        for (uint16_t i = 0; i < part->n_recipients && !has_rest; i++) {
            rest = spool_part_recipient(part, i);
            has_rest = true;
            for (uint16_t k = 0; k < pending->n; k++)
                has_rest = has_rest && pending->recipient[k] != rest;
        }
        settle_recipients(q, entry, pending->recipient, pending->n);
        if (has_rest && (entry = spool_schedule_find(q->schedule, pending->id)) && (part = part_of(entry, rest)) &&
            !(entry->flags & SPOOL_ENTRY_HELD))
            spool_schedule_wait(q->schedule, part, pending->again_ms);
    }
    queue_wake(q);
    free(pending);
}

/* Parks the part, writes the notification, settles these recipients when it is durable. */
static void bounce_recipients(struct queue *q, struct spool_part *part, const struct bounce_row *rows, uint16_t n,
                              struct str remote_mta, int64_t again_ms)
{
    struct pending *pending = malloc(sizeof *pending + n * sizeof(uint16_t));
    if (!pending) {
        spool_schedule_wait(q->schedule, part, now_mono_ms() + BOUNCE_AGAIN_MS);
        return;
    }
    *pending = (struct pending){ .q = q, .id = part->entry->id, .again_ms = again_ms, .n = n };
    for (uint16_t i = 0; i < n; i++)
        pending->recipient[i] = rows[i].recipient;
    spool_schedule_park(q->schedule, part);
    bounce_send(q, part->entry, rows, n, remote_mta, on_bounced, pending);
}

static void on_told(void *arg, int result)
{
    (void)arg, (void)result; /* a notice that is lost is not mail that is lost; bounce.c has logged it */
}

static void tell_success(struct queue *q, struct spool_part *part, const struct queue_report *report)
{
    struct spool_entry *entry = part->entry;
    const struct conf *conf = q->ctx->conf;
    if (!(entry->flags & SPOOL_ENTRY_NOTIFY_SUCCESS))
        return;
    int block = part->hop->block_index;
    bool local = block >= 0 && (size_t)block < conf->n_domains && route_is_ours(&conf->domain[block]);
    struct bounce_row *rows = calloc(report->n, sizeof *rows);
    size_t n = 0;
    for (size_t i = 0; rows && i < report->n; i++) {
        const struct queue_row *r = &report->row[i];
        if (r->outcome == QUEUE_SENT && !r->peer_dsn)
            rows[n++] = (struct bounce_row){ .recipient = r->recipient, .kind = local ? BOUNCE_DELIVERED : BOUNCE_RELAYED,
                                             .from_smtp = r->from_smtp, .dsn = r->dsn, .diagnostic = r->reply };
    }
    if (n)
        bounce_send(q, entry, rows, n, report->remote_mta, on_told, NULL);
    free(rows);
}

/* ---- reports ---- */

static struct str first_reason(const struct queue_report *report)
{
    for (size_t i = 0; i < report->n; i++)
        if (report->row[i].outcome == QUEUE_DEFERRED)
            return report->row[i].reply;
    return STR_NONE;
}

/* A hop that was not reached is left alone, longer each time; one that was reached gets its window back. */
static void judge_hop(struct queue *q, struct spool_hop *hop, bool failed, struct str reason)
{
    if (!failed && hop->failures) {
        hop->failures = 0;
        dispatch_prepare_hop(q, hop, hop->block_index);
    } else if (failed) {
        int64_t now_ms = now_mono_ms();
        if (reason.n)
            hop->reason = spool_schedule_text(q->schedule, reason);
        if (!hop->timed.index) { /* several jobs of one try fail together */
            hop->failures++;
            spool_schedule_hop_wait(q->schedule, hop, now_ms + backoff_ms(q->ctx->conf, hop->failures));
            spool_schedule_hop_window(q->schedule, hop, 2);
        }
    }
}

/* When the rest of the part is due, and the note of it. */
static int64_t defer(struct queue *q, struct spool_part *part, const struct queue_report *report)
{
    struct spool_entry *entry = part->entry;
    struct str reason = first_reason(report);
    if (part->attempts < UINT16_MAX)
        part->attempts++;
    part->reason = spool_schedule_text(q->schedule, reason);
    int64_t at_ms = report->hop_failed && part->hop->timed.index ? part->hop->timed.at_ms
                                                                 : now_mono_ms() + backoff_ms(q->ctx->conf, part->attempts);
    spool_store_deferred(q->store, entry->id, part->attempts, queue_wall_of(at_ms), reason);
    return at_ms;
}

static void settle_sent(struct queue *q, struct spool_entry *entry, const struct queue_report *report)
{
    static uint16_t sent[SPOOL_RECIPIENTS_MAX];
    uint16_t n = 0;
    for (size_t i = 0; i < report->n; i++)
        if (report->row[i].outcome == QUEUE_SENT)
            sent[n++] = report->row[i].recipient;
    if (n)
        settle_recipients(q, entry, sent, n);
}

static uint16_t bounced_rows(const struct queue_report *report, struct bounce_row *rows)
{
    uint16_t n = 0;
    for (size_t i = 0; i < report->n; i++) {
        const struct queue_row *r = &report->row[i];
        if (r->outcome == QUEUE_BOUNCED)
            rows[n++] = (struct bounce_row){ .recipient = r->recipient, .kind = BOUNCE_FAILED, .from_smtp = r->from_smtp,
                                             .dsn = r->dsn, .diagnostic = r->reply };
    }
    return n;
}

static void maybe_tell_delay(struct queue *q, struct spool_part *part, const struct queue_report *report)
{
    struct spool_entry *entry = part->entry;
    uint32_t after_s = q->ctx->conf->delay_notice_s;
    if (!after_s || (entry->flags & (SPOOL_ENTRY_DELAY_NOTICE | SPOOL_ENTRY_NULL_SENDER)) ||
        age_ms(entry) < (int64_t)after_s * 1000)
        return;
    struct bounce_row row = { .recipient = spool_part_recipient(part, 0), .kind = BOUNCE_DELAYED, .dsn = STR("4.4.7"),
                              .diagnostic = first_reason(report) };
    entry->flags |= SPOOL_ENTRY_DELAY_NOTICE;
    spool_store_mark(q->store, entry->id, SPOOL_MARK_DELAY_NOTICED);
    bounce_send(q, entry, &row, 1, report->remote_mta, on_told, NULL);
}

void settle_report(struct queue *q, struct spool_part *part, const struct queue_report *report)
{
    struct spool_entry *entry = part->entry;
    uint64_t id = entry->id;
    uint16_t first_open = UINT16_MAX, n_sent = 0, n_deferred = 0;
    for (size_t i = 0; i < report->n; i++) {
        n_sent = (uint16_t)(n_sent + (report->row[i].outcome == QUEUE_SENT));
        n_deferred = (uint16_t)(n_deferred + (report->row[i].outcome == QUEUE_DEFERRED));
        if (report->row[i].outcome != QUEUE_SENT && first_open == UINT16_MAX)
            first_open = report->row[i].recipient;
    }
    judge_hop(q, part->hop, report->hop_failed, first_reason(report));
    tell_success(q, part, report);
    spool_schedule_park(q->schedule, part); /* no longer at a delivery process */
    /* The rest of a part with more recipients than a job takes goes on at once. */
    int64_t again_ms = n_deferred ? defer(q, part, report) : now_mono_ms();
    if (n_deferred)
        maybe_tell_delay(q, part, report);
    bool more = part->n_recipients > report->n;
    uint16_t beyond = more ? spool_part_recipient(part, part->n_recipients - 1) : first_open;
    settle_sent(q, entry, report);
    entry = spool_schedule_find(q->schedule, id);
    part = entry && beyond != UINT16_MAX ? part_of(entry, beyond) : NULL;
    if (!part)
        return;
    struct bounce_row *rows = calloc(report->n, sizeof *rows);
    uint16_t n = rows ? bounced_rows(report, rows) : 0;
    if (n)
        bounce_recipients(q, part, rows, n, report->remote_mta, again_ms);
    else if (!(entry->flags & SPOOL_ENTRY_HELD))
        spool_schedule_wait(q->schedule, part, again_ms);
    free(rows);
}

void settle_returned(struct queue *q, struct spool_part *part)
{
    spool_schedule_wait(q->schedule, part, 0);
    queue_wake(q);
}

/* Postfix's line for the message, and one for each recipient. */
static void tell_expired(struct queue *q, const struct spool_part *part, struct str why)
{
    const struct spool_entry *entry = part->entry;
    struct spool_reader *reader;
    struct err err;
    if (queue_read(q, entry, &reader, &err) < 0)
        return;
    const struct spool_envelope *e = spool_reader_envelope(reader);
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(entry->id, id);
    log_mail(q->ctx->log, LOG_LEVEL_INFO, "qmgr", "%s: from=<%.*s>, status=expired, returned to sender", id,
             STR_ARG(e->reverse_path));
    for (uint16_t i = 0; i < part->n_recipients; i++) {
        uint16_t r = spool_part_recipient(part, i);
        if (r < e->n_recipients)
            queue_tell_undelivered(q, id, e->recipient[r].address, entry, "5.4.7", "bounced", why);
    }
    spool_reader_free(&reader);
}

bool settle_expired(struct queue *q, struct spool_part *part)
{
    struct spool_entry *entry = part->entry;
    const struct conf *conf = q->ctx->conf;
    uint32_t after_s = entry->flags & SPOOL_ENTRY_NULL_SENDER ? conf->bounce_expire_after_s : conf->expire_after_s;
    if (!part->attempts || age_ms(entry) < (int64_t)after_s * 1000)
        return false;
    char text[1024];
    struct str reason = spool_schedule_text_get(q->schedule, part->reason);
    int length = snprintf(text, sizeof text, "not delivered within %u s; the last try: %.*s", after_s, STR_ARG(reason));
    struct str diagnostic = str_slice(text, length < (int)sizeof text ? (size_t)length : sizeof text - 1);
    struct bounce_row *rows = calloc(part->n_recipients, sizeof *rows);
    if (!rows)
        return false;
    for (uint16_t i = 0; i < part->n_recipients; i++)
        rows[i] = (struct bounce_row){ .recipient = spool_part_recipient(part, i), .kind = BOUNCE_FAILED,
                                       .dsn = STR("5.4.7"), .diagnostic = diagnostic };
    tell_expired(q, part, diagnostic);
    bounce_recipients(q, part, rows, part->n_recipients, STR_NONE, 0);
    free(rows);
    return true;
}

/* ---- commands ---- */

bool settle_delete(struct queue *q, struct spool_entry *entry)
{
    for (const struct spool_part *p = entry->parts; p; p = p->next)
        if (p->state == SPOOL_PART_ACTIVE)
            return false;
    while (entry->parts)
        spool_schedule_drop_part(q->schedule, entry->parts);
    settle_entry(q, entry);
    return true;
}

void settle_hold(struct queue *q, struct spool_entry *entry, bool hold)
{
    bool held = entry->flags & SPOOL_ENTRY_HELD;
    if (held == hold)
        return;
    entry->flags = (uint8_t)(hold ? entry->flags | SPOOL_ENTRY_HELD : entry->flags & ~SPOOL_ENTRY_HELD);
    entry->deaths = 0;
    spool_store_mark(q->store, entry->id, hold ? SPOOL_MARK_HELD : SPOOL_MARK_RELEASED);
    for (struct spool_part *p = entry->parts; p; p = p->next) {
        if (p->state == SPOOL_PART_ACTIVE)
            continue;
        if (hold)
            spool_schedule_park(q->schedule, p);
        else
            spool_schedule_wait(q->schedule, p, 0);
    }
    queue_wake(q);
}

void settle_retry_now(struct queue *q, struct spool_entry *entry)
{
    if (entry->flags & SPOOL_ENTRY_HELD)
        return;
    for (struct spool_part *p = entry->parts; p; p = p->next) {
        if (p->state != SPOOL_PART_WAITING || !p->timed.index)
            continue; /* at a delivery process, or its bounce is being written */
        spool_schedule_hop_wait(q->schedule, p->hop, 0);
        spool_schedule_wait(q->schedule, p, 0);
    }
    queue_wake(q);
}
