/* answer: what the verbs of the control socket do to the queue. A verb with a filter first collects the messages that match as
 * far as memory tells (id, age, state): their ids and arrival times. Then it goes through them, a few a turn, looks each
 * up again, reads its envelope when the filter or the answer needs it, and acts. So a list of a million messages
 * blocks nothing, and messages may come and go meanwhile. */
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/queue/control.h"
#include "daemon/shared.h"
#include "smtp/address.h"

enum {
    READS_A_TURN = 64,
    ACTIONS_A_TURN = 1024,
    OUT_ENOUGH_BYTES = 256 * 1024,
    LINE_MAX_BYTES = 7 << 20,              /* the client takes 8 MiB */
    CONTENT_MAX_BYTES = 64 * 1024,
    AGE_MAX_S = 1000000000,
};

enum action { ACTION_LIST, ACTION_RETRY, ACTION_HOLD, ACTION_RELEASE, ACTION_DELETE };

struct filter {
    uint64_t id;
    bool by_id, by_sender, any;            /* any: nothing was given */
    struct str sender, recipient, domain, queue;
    int64_t older_ms, newer_ms;            /* -1: not given */
};

struct item {
    int64_t born_ms;
    uint64_t id;
};

struct answer_walk {
    enum action action;
    const char *verb;
    json_t *request;                       /* the filter's texts are its */
    struct filter filter;
    struct item *item;
    size_t n, at;
    uint64_t count, busy;
};

/* ---- texts ---- */

static size_t sequence_bytes(struct str s)
{
    for (size_t n = 1; n <= 4 && n <= s.n; n++)
        if (smtp_utf8_valid(str_slice(s.p, n)))
            return n;
    return 0;
}

json_t *answer_text(struct str s)
{
    json_t *text = !s.n ? json_string("") : memchr(s.p, 0, s.n) ? NULL : json_stringn(s.p, s.n);
    if (text)
        return text;
    struct buf clean;
    buf_init(&clean, 3 * s.n + 1);
    while (s.n) {
        size_t n = s.p[0] ? sequence_bytes(s) : 0;
        buf_add(&clean, n ? str_slice(s.p, n) : STR("\xef\xbf\xbd"));
        s = str_skip(s, n ? n : 1);
    }
    if (!clean.failed)
        text = json_stringn(clean.p, clean.n);
    buf_done(&clean);
    return text;
}

static json_t *text_or_null(struct str s)
{
    return s.n ? answer_text(s) : json_null();
}

/* Ready, but its next hop is left alone for a while after a failure. */
static bool waits_for_hop(const struct spool_part *p)
{
    return p->state == SPOOL_PART_READY && p->hop && p->hop->timed.index != 0;
}

static const char *queue_name(const struct spool_entry *e)
{
    if (e->flags & SPOOL_ENTRY_HELD)
        return "hold";
    for (const struct spool_part *p = e->parts; p; p = p->next)
        if (p->state != SPOOL_PART_WAITING && !waits_for_hop(p))
            return "active";
    return "deferred";
}

/* ---- one message ---- */

static json_t *reason_of(struct queue *q, const struct spool_part *p)
{
    uint32_t reason = p->reason;
    if (!reason && p->hop && p->hop->failures)
        reason = p->hop->reason;
    struct str text = reason ? spool_schedule_text_get(q->schedule, reason) : STR_NONE;
    return text.n ? answer_text(text) : NULL;
}

static json_t *recipients_of(struct queue *q, const struct spool_entry *e, const struct spool_envelope *envelope,
                             bool reasons)
{
    json_t *list = json_array();
    for (const struct spool_part *p = e->parts; p; p = p->next) {
        json_t *reason = reasons ? reason_of(q, p) : NULL;
        for (uint16_t i = 0; i < p->n_recipients; i++) {
            uint16_t at = spool_part_recipient(p, i);
            if (at >= envelope->n_recipients)
                continue;
            json_t *recipient = json_object();
            json_object_set_new(recipient, "address", answer_text(envelope->recipient[at].address));
            if (reason)
                json_object_set(recipient, "delay_reason", reason);
            json_array_append_new(list, recipient);
        }
        json_decref(reason);
    }
    return list;
}

/* Next attempt, attempts and next hop: of the part that comes first, and the highest. */
static void add_parts(struct queue *q, const struct spool_entry *e, json_t *o)
{
    const struct spool_part *first = e->parts;
    uint16_t attempts = 0;
    int64_t next_ms = INT64_MAX;
    for (const struct spool_part *p = e->parts; p; p = p->next) {
        attempts = p->attempts > attempts ? p->attempts : attempts;
        const struct spool_timed *timed = waits_for_hop(p) ? &p->hop->timed : &p->timed;
        bool waits = timed->index != 0 && (p->state == SPOOL_PART_WAITING || waits_for_hop(p));
        if (waits && timed->at_ms < next_ms) {
            next_ms = timed->at_ms;
            first = p;
        }
    }
    json_object_set_new(o, "next_attempt", next_ms == INT64_MAX ? json_null() : json_integer(queue_wall_of(next_ms) / 1000));
    json_object_set_new(o, "attempts", json_integer(attempts));
    json_object_set_new(o, "next_hop", first && first->hop ? text_or_null(first->hop->domain) : json_null());
}

static json_t *message_object(struct queue *q, const struct spool_entry *e, const struct spool_envelope *envelope,
                              bool reasons)
{
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(e->id, id);
    json_t *o = json_object();
    json_object_set_new(o, "queue_name", json_string(queue_name(e)));
    json_object_set_new(o, "queue_id", json_string(id));
    json_object_set_new(o, "arrival_time", json_integer(envelope->arrival_wall_ms / 1000));
    json_object_set_new(o, "message_size", json_integer((json_int_t)envelope->message_bytes));
    json_object_set_new(o, "sender", envelope->reverse_path.n ? answer_text(envelope->reverse_path)
                                                              : json_string("MAILER-DAEMON"));
    json_object_set_new(o, "recipients", recipients_of(q, e, envelope, reasons));
    add_parts(q, e, o);
    json_object_set_new(o, "server", text_or_null(envelope->server));
    json_object_set_new(o, "tls", text_or_null(envelope->tls));
    json_object_set_new(o, "auth", text_or_null(envelope->user));
    return o;
}

/* A message whose record cannot be read is shown all the same: nothing that waits is hidden. */
static json_t *unreadable_object(struct queue *q, const struct spool_entry *e, const struct err *err)
{
    struct spool_envelope nothing = { .arrival_wall_ms = queue_wall_of(e->born_ms), .message_bytes = e->length };
    json_t *o = message_object(q, e, &nothing, false);
    json_object_set_new(o, "sender", json_null());
    json_object_set_new(o, "error", answer_text(str_of(err_text(err))));
    return o;
}

static void say_message(struct conversation *c, const struct spool_entry *e, const struct spool_envelope *envelope)
{
    json_t *o = message_object(c->queue, e, envelope, true);
    if (envelope->n_recipients > 1000 && json_dumpb(o, NULL, 0, JSON_COMPACT) > LINE_MAX_BYTES) {
        json_decref(o);
        o = message_object(c->queue, e, envelope, false);
    }
    control_say(c, o);
}

/* ---- filters ---- */

static int64_t age_of(const json_t *value)
{
    json_int_t s = json_integer_value(value);
    return json_is_integer(value) && s >= 0 && s <= AGE_MAX_S ? s * 1000 : -1;
}

static struct str text_of(const json_t *value)
{
    return str_slice(json_string_value(value), json_string_length(value));
}

/* False: a member that is unknown or makes no sense. It must not be passed over: `delete` would take too much. */
static bool read_member(struct filter *f, const char *name, const json_t *value)
{
    if (strcmp(name, "older_than_s") == 0)
        return (f->older_ms = age_of(value)) >= 0;
    if (strcmp(name, "newer_than_s") == 0)
        return (f->newer_ms = age_of(value)) >= 0;
    if (!json_is_string(value))
        return false;
    struct str text = text_of(value);
    if (strcmp(name, "id") == 0)
        return f->by_id = spool_id_parse(text, &f->id);
    if (strcmp(name, "sender") == 0) {
        f->by_sender = true;
        f->sender = str_eq_nocase(text, STR("MAILER-DAEMON")) || str_eq(text, STR("<>")) ? STR_NONE : text;
        return true;
    }
    if (strcmp(name, "queue") == 0) {
        f->queue = text;
        return str_eq(text, STR("active")) || str_eq(text, STR("deferred")) || str_eq(text, STR("hold"));
    }
    struct str *into = strcmp(name, "recipient") == 0 ? &f->recipient : strcmp(name, "domain") == 0 ? &f->domain : NULL;
    if (!into || !text.n)
        return false;
    *into = text;
    return true;
}

/* False: refused, with an answer. */
static bool read_filter(struct conversation *c, json_t *request, struct filter *f)
{
    json_t *object = json_object_get(request, "filter");
    const char *name;
    json_t *value;
    *f = (struct filter){ .older_ms = -1, .newer_ms = -1, .any = json_object_size(object) == 0 };
    if (object && !json_is_object(object)) {
        control_refuse(c, EX_USAGE, "the filter is no JSON object (docs/control.md)");
        return false;
    }
    json_object_foreach(object, name, value) {
        if (!read_member(f, name, value)) {
            control_refuse(c, EX_USAGE, "the filter's \"%.40s\" is unknown or not a value for it (docs/control.md)", name);
            return false;
        }
    }
    return true;
}

static bool matches_memory(const struct filter *f, const struct spool_entry *e, int64_t now_ms)
{
    int64_t age_ms = now_ms - e->born_ms;
    return (f->older_ms < 0 || age_ms >= f->older_ms) && (f->newer_ms < 0 || age_ms < f->newer_ms) &&
           (!f->by_id || e->id == f->id) && (!f->queue.n || str_eq(f->queue, str_of(queue_name(e))));
}

static bool needs_envelope(const struct filter *f)
{
    return f->by_sender || f->recipient.n || f->domain.n;
}

static bool recipient_matches(const struct filter *f, struct str address)
{
    struct smtp_address a;
    if (f->recipient.n && !str_eq_nocase(f->recipient, address))
        return false;
    return !f->domain.n || (smtp_address_parse(address, &a, NULL) && str_eq_nocase(f->domain, a.domain));
}

static bool matches_envelope(const struct filter *f, const struct spool_entry *e, const struct spool_envelope *envelope)
{
    if (f->by_sender && !str_eq_nocase(f->sender, envelope->reverse_path))
        return false;
    if (!f->recipient.n && !f->domain.n)
        return true;
    for (const struct spool_part *p = e->parts; p; p = p->next)
        for (uint16_t i = 0; i < p->n_recipients; i++) {
            uint16_t at = spool_part_recipient(p, i);
            if (at < envelope->n_recipients && recipient_matches(f, envelope->recipient[at].address))
                return true;
        }
    return false;
}

/* ---- walks ---- */

static void act(struct conversation *c, struct answer_walk *w, struct spool_entry *e)
{
    struct queue *q = c->queue;
    bool held = (e->flags & SPOOL_ENTRY_HELD) != 0;
    switch (w->action) {
    case ACTION_LIST: break;
    case ACTION_RETRY:
        if (held)
            return; /* it waits for a release */
        settle_retry_now(q, e);
        break;
    case ACTION_HOLD: settle_hold(q, e, true); break;
    case ACTION_RELEASE:
        if (!held)
            return;
        settle_hold(q, e, false);
        break;
    case ACTION_DELETE:
        if (!settle_delete(q, e)) {
            w->busy++;
            return;
        }
        break;
    }
    w->count++;
}

/* True: the message had to be read. */
static bool visit(struct conversation *c, struct answer_walk *w, struct spool_entry *e)
{
    bool list = w->action == ACTION_LIST;
    if (!list && !needs_envelope(&w->filter)) {
        act(c, w, e);
        return false;
    }
    struct err err = { 0 };
    struct spool_reader *reader = NULL;
    int rc = queue_read(c->queue, e, &reader, &err);
    const struct spool_envelope *envelope = rc == 0 ? spool_reader_envelope(reader) : NULL;
    bool matches = envelope ? matches_envelope(&w->filter, e, envelope) : list && !needs_envelope(&w->filter);
    if (matches && envelope && list)
        say_message(c, e, envelope);
    else if (matches && list)
        control_say(c, unreadable_object(c->queue, e, &err));
    spool_reader_free(&reader);
    if (matches)
        act(c, w, e);
    return true;
}

static void end_walk(struct conversation *c, struct answer_walk *w)
{
    if (w->action != ACTION_LIST) {
        struct log_record r;
        log_begin(&r, c->queue->ctx->log, LOG_LEVEL_NOTICE, "queue.command");
        log_cstr(&r, "verb", w->verb);
        log_int(&r, "uid", c->uid);
        log_int(&r, "messages", (int64_t)w->count);
        log_end(&r);
        queue_wake(c->queue);
    }
    if (w->count == 0 && w->busy)
        control_refuse(c, EX_TEMPFAIL, "%llu message%s being delivered at this moment and cannot be deleted; hold %s, then "
                                       "delete",
                       (unsigned long long)w->busy, w->busy == 1 ? " is" : "s are", w->busy == 1 ? "it" : "them");
    else
        control_done(c, json_pack("{s:I}", "count", (json_int_t)w->count));
}

void answer_more(struct conversation *c)
{
    struct answer_walk *w = c->walk;
    size_t reads = 0, actions = 0;
    while (w->at < w->n && reads < READS_A_TURN && actions < ACTIONS_A_TURN && c->out.n < OUT_ENOUGH_BYTES) {
        struct spool_entry *e = spool_schedule_find(c->queue->schedule, w->item[w->at++].id);
        if (e)
            reads += visit(c, w, e);
        actions++;
    }
    if (w->at == w->n && !c->out.failed)
        end_walk(c, w);
}

static int by_age(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->born_ms != y->born_ms)
        return x->born_ms < y->born_ms ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool collect(struct queue *q, struct answer_walk *w)
{
    size_t room = w->filter.by_id ? 1 : spool_schedule_entries(q->schedule);
    int64_t now_ms = loop_now_ms(q->ctx->loop);
    w->item = calloc(room ? room : 1, sizeof *w->item);
    if (!w->item)
        return false;
    size_t cursor = 0;
    struct spool_entry *e = w->filter.by_id ? spool_schedule_find(q->schedule, w->filter.id)
                                            : spool_schedule_walk(q->schedule, &cursor, NULL);
    while (e && w->n < room) {
        if (matches_memory(&w->filter, e, now_ms))
            w->item[w->n++] = (struct item){ e->born_ms, e->id };
        e = w->filter.by_id ? NULL : spool_schedule_walk(q->schedule, &cursor, e);
    }
    if (w->action == ACTION_LIST && w->n > 1)
        qsort(w->item, w->n, sizeof *w->item, by_age);
    return true;
}

static void begin_walk(struct conversation *c, enum action action, const char *verb, json_t *request)
{
    struct filter filter;
    if (!read_filter(c, request, &filter))
        return;
    if (action == ACTION_DELETE && filter.any && !json_is_true(json_object_get(request, "all"))) {
        control_refuse(c, EX_USAGE, "an empty filter would delete every message; say so with \"all\": true");
        return;
    }
    struct answer_walk *w = c->walk = calloc(1, sizeof *w);
    if (w)
        *w = (struct answer_walk){ .action = action, .verb = verb, .request = json_incref(request), .filter = filter };
    if (!w || !collect(c->queue, w))
        control_refuse(c, EX_TEMPFAIL, "no memory to go through the queue; try again later");
    else
        control_walk(c);
}

void answer_free(struct answer_walk **walk)
{
    struct answer_walk *w = *walk;
    *walk = NULL;
    if (!w)
        return;
    json_decref(w->request);
    free(w->item);
    free(w);
}

/* ---- the other verbs ---- */

static void show(struct conversation *c, json_t *request)
{
    const json_t *text = json_object_get(request, "id");
    uint64_t id = 0;
    struct spool_entry *e = json_is_string(text) && spool_id_parse(text_of(text), &id)
                                ? spool_schedule_find(c->queue->schedule, id) : NULL;
    if (!e) {
        control_refuse(c, EX_NOINPUT, "there is no message with this id in the queue (postern queue list)");
        return;
    }
    struct err err = { 0 };
    struct spool_reader *reader = NULL;
    int body_fd = -1;
    if (bounce_read(c->queue, e, &reader, &body_fd, &err) < 0) {
        control_refuse(c, EX_IOERR, "the message cannot be read: %s", err_text(&err));
        return;
    }
    struct buf content;
    buf_init(&content, CONTENT_MAX_BYTES);
    struct str prefix = spool_reader_prefix(reader);
    buf_add(&content, str_slice(prefix.p, prefix.n < CONTENT_MAX_BYTES ? prefix.n : CONTENT_MAX_BYTES));
    ssize_t n = 1;
    for (size_t room; n > 0 && (room = CONTENT_MAX_BYTES - content.n) > 0 && buf_reserve(&content, room);) {
        n = spool_reader_read(reader, content.p + content.n, room, &err);
        content.n += n > 0 ? (size_t)n : 0;
    }
    json_t *o = message_object(c->queue, e, spool_reader_envelope(reader), true);
    json_object_set_new(o, "content", answer_text(buf_str(&content)));
    control_say(c, o);
    if (n < 0)
        control_refuse(c, EX_IOERR, "the message cannot be read to its end: %s", err_text(&err));
    else
        control_done(c, NULL);
    buf_done(&content);
    spool_reader_free(&reader);
    if (body_fd >= 0)
        close(body_fd);
}

static void status(struct conversation *c)
{
    struct queue *q = c->queue;
    json_int_t held = 0, active = 0, deferred = 0;
    size_t cursor = 0;
    for (struct spool_entry *e = NULL; (e = spool_schedule_walk(q->schedule, &cursor, e)) != NULL;) {
        const char *name = queue_name(e);
        held += name[0] == 'h';
        active += name[0] == 'a';
        deferred += name[0] == 'd';
    }
    json_t *sessions = q->shared ? json_integer(shared_sessions(q->shared)) : json_null();
    control_say(c, json_pack("{s:I,s:I,s:I,s:b,s:b,s:o,s:I}", "active", active, "deferred", deferred, "hold", held,
                             "paused_in", (int)q->paused_in, "paused_out", (int)q->paused_out, "sessions", sessions,
                             "generation", (json_int_t)q->ctx->conf->generation));
    control_done(c, NULL);
}

static void pause_or_resume(struct conversation *c, json_t *request, bool pause)
{
    struct queue *q = c->queue;
    const char *what = json_string_value(json_object_get(request, "what"));
    bool in = what && strcmp(what, "in") == 0;
    if (!in && !(what && strcmp(what, "out") == 0)) {
        control_refuse(c, EX_USAGE, "say what: \"in\" (taking mail) or \"out\" (delivering it)");
        return;
    }
    if (in) {
        q->paused_in = pause;
        intake_tell_paused(q);
    } else {
        q->paused_out = pause;
        queue_wake(q);
    }
    struct log_record r;
    log_begin(&r, q->ctx->log, LOG_LEVEL_NOTICE, pause ? "queue.paused" : "queue.resumed");
    log_cstr(&r, "what", in ? "in" : "out");
    log_int(&r, "uid", c->uid);
    log_end(&r);
    control_done(c, NULL);
}

void answer_begin(struct conversation *c, const char *verb, json_t *request)
{
    static const struct {
        const char *verb;
        enum action action;
    } walks[] = { { "queue.list", ACTION_LIST },       { "queue.retry", ACTION_RETRY },   { "queue.hold", ACTION_HOLD },
                  { "queue.release", ACTION_RELEASE }, { "queue.delete", ACTION_DELETE } };
    for (size_t i = 0; i < sizeof walks / sizeof walks[0]; i++)
        if (strcmp(verb, walks[i].verb) == 0) {
            begin_walk(c, walks[i].action, walks[i].verb, request);
            return;
        }
    if (strcmp(verb, "queue.show") == 0)
        show(c, request);
    else if (strcmp(verb, "status") == 0)
        status(c);
    else if (strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0)
        pause_or_resume(c, request, verb[0] == 'p');
    else if (strcmp(verb, "reload") == 0)
        control_reload(c);
    else
        control_refuse(c, EX_USAGE, "there is no verb \"%.40s\" (docs/control.md)", verb);
}
