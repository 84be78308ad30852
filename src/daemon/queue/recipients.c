#include "daemon/queue/recipients.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include "policy/recipient.h"
#include "policy/route.h"
#include "smtp/address.h"

enum { ANSWER_MS = 20000 };

struct recipients_question {
    LIST_ENTRY(recipients_question) entry;
    recipients_done *done;
    void *arg;
    struct loop_timer *timer; /* the end, from a later turn; and of patience */
    uint32_t first_id;        /* of the first address; the others follow */
    size_t n, n_open;
    bool not_now;
    bool *unknown, *open;     /* by address */
};

/* A file of the snapshot that is coming, or in use. */
struct table {
    LIST_ENTRY(table) entry;
    char *domain;
    int fd;                             /* -1: read */
    struct recipient_table *recipients; /* NULL: could not be read */
};

static struct {
    LIST_HEAD(, recipients_question) questions;
    LIST_HEAD(, table) tables, next_tables;
    struct channel *auth;
    uint32_t last_id;
} here;

/* ---- questions ---- */

void recipients_cancel(struct recipients_question **question)
{
    struct recipients_question *r = *question;
    *question = NULL;
    if (!r)
        return;
    LIST_REMOVE(r, entry);
    loop_timer_free(&r->timer);
    free(r->unknown);
    free(r->open);
    free(r);
}

static void on_timer(void *arg)
{
    struct recipients_question *r = arg;
    bool any = false;
    for (size_t i = 0; i < r->n; i++)
        any |= r->unknown[i];
    enum recipients_answer answer = r->n_open || r->not_now ? RECIPIENTS_NOT_NOW : any ? RECIPIENTS_UNKNOWN
                                                                                       : RECIPIENTS_EXIST;
    bool *unknown = r->unknown;
    recipients_done *done = r->done;
    void *done_arg = r->arg;
    r->unknown = NULL;
    recipients_cancel(&r);
    done(done_arg, answer, unknown);
    free(unknown);
}

static void end_if_complete(struct recipients_question *r)
{
    if (r->n_open == 0 || r->not_now)
        loop_timer_set(r->timer, 0);
}

static void lower(struct str s, char *to, size_t bytes)
{
    size_t n = s.n < bytes - 1 ? s.n : bytes - 1;
    for (size_t i = 0; i < n; i++)
        to[i] = ascii_lower(s.p[i]);
    to[n] = 0;
}

static void look_up_file(struct recipients_question *r, size_t i, const char *local, const char *domain,
                         const struct conf_domain *block)
{
    const struct table *t;
    LIST_FOREACH(t, &here.tables, entry) {
        if (strcmp(t->domain, block->name) == 0)
            break;
    }
    if (!t || !t->recipients)
        r->not_now = true;
    else
        r->unknown[i] = !recipient_table_has(t->recipients, str_of(local), str_of(domain));
}

static void ask_auth(struct recipients_question *r, size_t i, const char *local, const char *domain)
{
    char address[SMTP_ADDRESS_LOCAL_MAX_BYTES + SMTP_ADDRESS_DOMAIN_MAX_BYTES + 2];
    snprintf(address, sizeof address, "%s@%s", local, domain);
    if (!here.auth || channel_send(here.auth, IPC_USER_QUERY, r->first_id + (uint32_t)i, str_of(address)) < 0) {
        r->not_now = true;
        return;
    }
    r->open[i] = true;
    r->n_open++;
}

static void look_up(struct recipients_question *r, size_t i, struct str text, const struct conf *conf)
{
    struct smtp_address a;
    char domain[SMTP_ADDRESS_DOMAIN_MAX_BYTES + 1], local[SMTP_ADDRESS_LOCAL_MAX_BYTES + 1];
    if (!smtp_address_parse(text, &a, NULL))
        return;
    lower(a.domain, domain, sizeof domain);
    int index = route_find(conf, str_of(domain));
    const struct conf_domain *block = index < 0 ? NULL : &conf->domain[index];
    if (!block || !route_is_ours(block) || recipient_is_postmaster(a.local, str_of(domain), block))
        return;
    struct buf plain;
    buf_init(&plain, sizeof local - 1);
    bool fits = smtp_address_local_plain(&a, &plain) && recipient_check_local(buf_str(&plain)) == RECIPIENT_OK;
    lower(buf_str(&plain), local, sizeof local);
    buf_done(&plain);
    if (!fits)
        return;
    switch (recipient_source(block)) {
    case RECIPIENT_USERS: ask_auth(r, i, local, domain); break;
    case RECIPIENT_FILE: look_up_file(r, i, local, domain, block); break;
    case RECIPIENT_ANY: break;
    }
}

struct recipients_question *recipients_ask(struct queue *q, const struct str *address, size_t n, recipients_done *done,
                                           void *arg)
{
    struct recipients_question *r = calloc(1, sizeof *r);
    if (r) {
        *r = (struct recipients_question){ .done = done, .arg = arg, .n = n, .first_id = here.last_id + 1,
                                           .unknown = calloc(n, sizeof *r->unknown),
                                           .open = calloc(n, sizeof *r->open) };
        here.last_id += (uint32_t)n;
    }
    if (!r || !r->unknown || !r->open || loop_timer_new(q->ctx->loop, on_timer, r, &r->timer, NULL) < 0) {
        if (r) {
            free(r->unknown);
            free(r->open);
        }
        free(r);
        return NULL;
    }
    LIST_INSERT_HEAD(&here.questions, r, entry);
    loop_timer_set(r->timer, ANSWER_MS);
    for (size_t i = 0; i < n; i++)
        look_up(r, i, address[i], q->ctx->conf);
    end_if_complete(r);
    return r;
}

/* ---- auth ---- */

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct recipients_question *r;
    (void)arg, (void)fds;
    if (type != IPC_USER_ANSWER || body.n != 1)
        return;
    LIST_FOREACH(r, &here.questions, entry) {
        if (id - r->first_id < r->n)
            break;
    }
    size_t i = r ? id - r->first_id : 0;
    if (!r || !r->open[i])
        return; /* it was cancelled */
    r->open[i] = false;
    r->n_open--;
    r->unknown[i] = body.p[0] == 0;
    r->not_now |= body.p[0] != 0 && body.p[0] != 1;
    end_if_complete(r);
}

static void on_closed(void *arg, const struct err *why)
{
    struct recipients_question *r;
    (void)arg, (void)why; /* master tells that it died */
    channel_free(&here.auth);
    LIST_FOREACH(r, &here.questions, entry) {
        if (r->n_open)
            loop_timer_set(r->timer, 0);
    }
}

static const struct channel_handlers handlers = { .message = on_message, .closed = on_closed };

void recipients_peer(struct queue *q, int fd)
{
    struct err err;
    if (here.auth)
        on_closed(NULL, NULL);
    if (channel_open(q->ctx->loop, fd, &handlers, NULL, &here.auth, &err) < 0)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "role.channel.failed", "%s", err.text);
}

/* ---- files ---- */

void recipients_file(struct queue *q, struct str domain, int fd)
{
    struct table *t = calloc(1, sizeof *t);
    (void)q;
    if (t)
        t->domain = str_dup(domain);
    if (!t || !t->domain) {
        free(t);
        close(fd);
        return; /* as if it could not be read */
    }
    t->fd = fd;
    LIST_INSERT_HEAD(&here.next_tables, t, entry);
}

static void read_table(struct queue *q, struct table *t)
{
    struct buf text;
    struct err err = { 0 };
    buf_init(&text, RECIPIENT_FILE_MAX);
    int rc = role_read_file(t->fd, &text, &err);
    if (rc == 0)
        rc = recipient_table_new(buf_str(&text), &t->recipients, &err);
    buf_done(&text);
    close(t->fd);
    t->fd = -1;
    if (rc < 0)
        log_event(q->ctx->log, LOG_LEVEL_ERROR, "queue.submit.failed", "the recipients of %s cannot be read: %s",
                  t->domain,
                  err_text(&err));
}

void recipients_configured(struct queue *q)
{
    struct table *t;
    while ((t = LIST_FIRST(&here.tables)) != NULL) {
        LIST_REMOVE(t, entry);
        recipient_table_free(&t->recipients);
        free(t->domain);
        free(t);
    }
    while ((t = LIST_FIRST(&here.next_tables)) != NULL) {
        LIST_REMOVE(t, entry);
        LIST_INSERT_HEAD(&here.tables, t, entry);
        read_table(q, t);
    }
}
