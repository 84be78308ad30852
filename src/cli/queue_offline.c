/* Messages are gathered before the first is handed out: the list is oldest first, the spool is not. */
#include "cli/queue_offline.h"

#include <stdlib.h>

#include "io/now.h"
#include "spool/verify.h"

struct filter {
    const char *id, *sender, *recipient, *domain, *queue;
    json_int_t older_than_s, newer_than_s; /* -1: not given */
};

struct listed {
    int64_t arrival_wall_ms;
    json_t *object;
};

struct gather {
    struct filter filter;
    int64_t now_wall_ms;
    struct listed *item;
    size_t n, cap;
    bool failed;
};

static json_t *text(struct str s)
{
    json_t *o = json_stringn(s.n ? s.p : "", s.n);
    return o ? o : json_string("?"); /* not UTF-8 */
}

static json_t *text_or_null(struct str s)
{
    return s.n ? text(s) : json_null();
}

static struct str domain_of(struct str address)
{
    while (address.n && memchr(address.p, '@', address.n))
        address = str_skip(address, str_find(address, '@') + 1);
    return address;
}

static bool is_settled(const struct spool_memory *m, size_t recipient)
{
    for (size_t i = 0; m && i < m->n_settled; i++) {
        if (m->settled[i] == recipient)
            return true;
    }
    return false;
}

static const char *queue_of(const struct spool_memory *m)
{
    return m && m->held ? "hold" : m && (m->attempts || m->next_wall_ms) ? "deferred" : "active";
}

static bool eq(const char *want, struct str have)
{
    return !want || str_eq_nocase(str_of(want), have);
}

static bool matches_recipient(const struct filter *f, const struct spool_found *found)
{
    const struct spool_envelope *e = found->envelope;
    if (!f->recipient && !f->domain)
        return true;
    for (size_t i = 0; i < e->n_recipients; i++) {
        struct str address = e->recipient[i].address;
        if (!is_settled(found->memory, i) && eq(f->recipient, address) && eq(f->domain, domain_of(address)))
            return true;
    }
    return false;
}

static bool matches(const struct gather *g, const struct spool_found *found)
{
    const struct filter *f = &g->filter;
    const struct spool_envelope *e = found->envelope;
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(found->id, id);
    int64_t age_s = (g->now_wall_ms - e->arrival_wall_ms) / 1000;
    struct str sender = e->reverse_path.n ? e->reverse_path : STR("MAILER-DAEMON");
    return eq(f->id, str_of(id)) && (eq(f->sender, sender) || (e->reverse_path.n == 0 && f->sender && !*f->sender)) &&
           eq(f->queue, str_of(queue_of(found->memory))) && (f->older_than_s < 0 || age_s > f->older_than_s) &&
           (f->newer_than_s < 0 || age_s < f->newer_than_s) && matches_recipient(f, found);
}

static json_t *recipients(const struct spool_found *found, struct str *ret_next_hop)
{
    json_t *list = json_array();
    const struct spool_memory *m = found->memory;
    for (size_t i = 0; i < found->envelope->n_recipients; i++) {
        if (is_settled(m, i))
            continue;
        json_t *o = json_object();
        *ret_next_hop = domain_of(found->envelope->recipient[i].address);
        json_object_set_new(o, "address", text(found->envelope->recipient[i].address));
        if (m && m->reason.n)
            json_object_set_new(o, "delay_reason", text(m->reason));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *message_object(const struct spool_found *found)
{
    const struct spool_envelope *e = found->envelope;
    const struct spool_memory *m = found->memory;
    struct str next_hop = STR_NONE;
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(found->id, id);
    json_t *list = recipients(found, &next_hop);
    return json_pack("{s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:i,s:o,s:o,s:o,s:o}", "queue_name", queue_of(m), "queue_id", id,
                     "arrival_time", (json_int_t)(e->arrival_wall_ms / 1000),
                     "message_size", (json_int_t)e->message_bytes,
                     "sender", e->reverse_path.n ? text(e->reverse_path) : json_string("MAILER-DAEMON"),
                     "recipients", list,
                     "next_attempt", m && m->next_wall_ms ? json_integer((json_int_t)(m->next_wall_ms / 1000)) : json_null(),
                     "attempts", m ? (int)m->attempts : 0, "next_hop", text_or_null(next_hop),
                     "server", text_or_null(e->server), "tls", text_or_null(e->tls), "auth", text_or_null(e->user));
}

static void on_message(void *arg, const struct spool_found *found)
{
    struct gather *g = arg;
    if (!matches(g, found))
        return;
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 256;
        struct listed *item = realloc(g->item, cap * sizeof *item);
        if (!item) {
            g->failed = true;
            return;
        }
        g->item = item;
        g->cap = cap;
    }
    g->item[g->n] = (struct listed){ found->envelope->arrival_wall_ms, message_object(found) };
    if (g->item[g->n].object)
        g->n++;
    else
        g->failed = true;
}

static int oldest_first(const void *a, const void *b)
{
    int64_t x = ((const struct listed *)a)->arrival_wall_ms, y = ((const struct listed *)b)->arrival_wall_ms;
    return x < y ? -1 : x > y ? 1 : 0;
}

static json_int_t seconds(json_t *filter, const char *name)
{
    json_t *value = json_object_get(filter, name);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

int queue_offline_list(const struct conf *conf, json_t *filter, void (*line)(void *arg, json_t *object), void *arg,
                       struct err *err)
{
    struct gather g = { .now_wall_ms = now_wall_ms() };
#define FILTER_TEXT(name) json_string_value(json_object_get(filter, name))
    g.filter = (struct filter){ FILTER_TEXT("id"), FILTER_TEXT("sender"), FILTER_TEXT("recipient"), FILTER_TEXT("domain"),
                                FILTER_TEXT("queue"), seconds(filter, "older_than_s"), seconds(filter, "newer_than_s") };
#undef FILTER_TEXT
    struct err why = { 0 };
    int rc = spool_list_offline(conf->spool, on_message, &g, &why);
    if (rc == 0 && g.failed)
        rc = err_set(&why, -ENOMEM, "not enough memory for the list");
    if (g.n)
        qsort(g.item, g.n, sizeof *g.item, oldest_first);
    for (size_t i = 0; i < g.n; i++) {
        if (rc == 0)
            line(arg, g.item[i].object);
        json_decref(g.item[i].object);
    }
    free(g.item);
    if (rc == 0)
        return CLI_OK;
    err_set(err, ERR_CLOSED, "posternd does not answer on %s, and its spool cannot be read: %s", conf->control,
            err_text(&why));
    return CLI_UNAVAILABLE;
}
