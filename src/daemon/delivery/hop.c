/* A hop is where a block's mail for one place goes. Its key is the block's title and, when `via` asks for
 * mail exchangers, the recipients' domain. Jobs wait in one list; a connection that is ready takes the next.
 * A connection is begun when more jobs wait than connections are being made, up to `concurrency`. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/delivery/delivery.h"

enum { HOLD_MS = 1000 };

static bool asks_mx(const struct conf_domain *block)
{
    for (size_t i = 0; i < block->via.n; i++) {
        struct resolve_target target;
        if (resolve_target_parse(str_of(block->via.item[i]), 25, &target) && target.kind == RESOLVE_MX)
            return true;
    }
    return false;
}

static const struct conf_server *server_of(const struct conf *conf, const struct conf_domain *block)
{
    for (size_t i = 0; block->server && i < conf->n_servers; i++)
        if (str_eq_nocase(str_of(conf->server[i].name), str_of(block->server)))
            return &conf->server[i];
    return conf->n_servers ? &conf->server[0] : NULL;
}

static struct hop *hop_new(struct job *job, const char *key)
{
    struct delivery *d = job->delivery;
    struct hop *hop = calloc(1, sizeof *hop + strlen(key) + 1);
    if (!hop)
        return NULL;
    hop->domain = str_dup(str_of(job->next_hop));
    if (!hop->domain) {
        free(hop);
        return NULL;
    }
    memcpy(hop->key, key, strlen(key) + 1);
    hop->site = site_ref(job->site);
    hop->block = job->block;
    hop->server = server_of(job->site->conf, job->block);
    hop->lmtp = job->block->deliver != NULL;
    hop->via = job->block->via;
    if (hop->lmtp) {
        hop->lmtp_via[0] = job->block->deliver + strlen("lmtp:");
        hop->via = (struct conf_strings){ hop->lmtp_via, 1 };
    }
    TAILQ_INIT(&hop->waiting);
    LIST_INIT(&hop->conns);
    HASH_ADD_STR(d->hops, key, hop);
    if (!hash_has(hop)) {
        site_unref(&hop->site);
        free(hop->domain);
        free(hop);
        return NULL;
    }
    return hop;
}

static struct hop *hop_find(struct job *job)
{
    char key[1600];
    bool by_domain = !job->block->deliver && asks_mx(job->block);
    int n = snprintf(key, sizeof key, "%llu %u %s", (unsigned long long)job->conf_generation, job->block_index,
                     by_domain ? job->next_hop : "");
    struct hop *hop = NULL;
    if (n > 0 && (size_t)n < sizeof key) {
        HASH_FIND_STR(job->delivery->hops, key, hop);
        if (!hop)
            hop = hop_new(job, key);
    }
    return hop;
}

static void begin_connections(struct hop *hop)
{
    struct delivery *d = hop->site->delivery;
    unsigned most = hop->block->concurrency ? hop->block->concurrency : 20;
    while (hop->n_waiting > hop->n_starting && hop->n_conns < most && !d->draining) {
        if (hop->n_conns > 0 && loop_now_ms(d->ctx->loop) < hop->hold_until_ms)
            return;
        if (!conn_new(hop)) {
            struct outcome outcome = { .status = IPC_STATUS_DEFERRED, .dsn = "4.3.0", .reply = STR("out of memory") };
            hop_connection_failed(hop, &(struct way){ .program = hop->lmtp ? "lmtp" : "smtp" }, &outcome);
            return;
        }
    }
}

static void wake(struct hop *hop)
{
    struct conn *conn;
    LIST_FOREACH(conn, &hop->conns, link) {
        if (conn->state == CONN_IDLE) {
            conn_offer(conn);
            return;
        }
    }
    begin_connections(hop);
}

void hop_add(struct job *job)
{
    struct hop *hop = hop_find(job);
    if (!hop) {
        job_return(job);
        return;
    }
    TAILQ_INSERT_TAIL(&hop->waiting, job, link);
    job->hop = hop;
    hop->n_waiting++;
    wake(hop);
}

void hop_add_again(struct hop *hop, struct job *job)
{
    job->again = true;
    job->setup_ms = job->ready_ms = 0;
    TAILQ_INSERT_HEAD(&hop->waiting, job, link);
    job->hop = hop;
    hop->n_waiting++;
}

void hop_remove(struct job *job)
{
    TAILQ_REMOVE(&job->hop->waiting, job, link);
    job->hop->n_waiting--;
    job->hop = NULL;
}

struct job *hop_take(struct hop *hop)
{
    struct job *job = TAILQ_FIRST(&hop->waiting);
    if (job)
        hop_remove(job);
    return job;
}

void hop_connection_failed(struct hop *hop, const struct way *way, const struct outcome *outcome)
{
    hop->hold_until_ms = loop_now_ms(hop->site->delivery->ctx->loop) + HOLD_MS;
    if (hop->n_conns > 0)
        return; /* others still try, or work */
    struct job *job;
    while ((job = hop_take(hop))) {
        job->setup_ms = job->taken_ms;
        if (job_open(job))
            job_finish(job, way, outcome, 1);
    }
}

void hop_check(struct hop *hop)
{
    if (hop->n_waiting > 0)
        begin_connections(hop);
    if (hop->n_waiting > 0 || hop->n_conns > 0 || hop->dead_already)
        return;
    struct delivery *d = hop->site->delivery;
    hop->dead_already = true;
    HASH_DEL(d->hops, hop);
    LIST_INSERT_HEAD(&d->dead_hops, hop, dead);
}

void hop_free(struct hop *hop)
{
    LIST_REMOVE(hop, dead);
    site_unref(&hop->site);
    free(hop->domain);
    free(hop);
}

void hops_drop_waiting(struct delivery *d)
{
    struct hop *hop, *next;
    HASH_ITER(hh, d->hops, hop, next) {
        struct job *job;
        /* A job of a queue that died is not told about: returning it says nothing to anybody. */
        while ((job = hop_take(hop)))
            job_return(job);
    }
}

void hops_close_idle(struct delivery *d)
{
    struct hop *hop, *next;
    HASH_ITER(hh, d->hops, hop, next) {
        struct conn *conn, *following;
        for (conn = LIST_FIRST(&hop->conns); conn; conn = following) {
            following = LIST_NEXT(conn, link);
            if (conn->state != CONN_BUSY)
                conn_quit(conn);
        }
    }
}
