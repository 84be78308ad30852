/* One connection: addresses → socket → session → messages, one after the other.
 *
 * Happy path: conn_new() resolves, connects to the first address, runs the machine to READY, takes jobs from the
 * hop until none waits, stays idle for some seconds, says QUIT. Ways to fail while the session is set up: the next
 * address is tried; when all are through, the hop's waiting jobs get the last reason (unless another
 * connection lives). A handshake that fails where TLS was only welcome is followed by one connection without
 * it, unless we would have to show a password there. Later: the machine has told DONE, the job has its
 * outcome, and the hop makes a new connection for what waits. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/delivery/delivery.h"
#include "smtp/params.h"

enum { WORDS_MAX_BYTES = 4 * 1024 * 1024, SLICES = 32 };

struct way conn_way(const struct conn *conn)
{
    struct way way = { .program = conn->hop->lmtp ? "lmtp" : "smtp" };
    if (conn->relay[0])
        way.relay = conn->relay;
    if (conn->client) {
        struct str name = smtp_client_peer_name(conn->client);
        way.remote_name = name.n ? name.p : NULL;
        if (smtp_client_authenticated(conn->client))
            way.auth = conn->auth_text;
    }
    if (!way.remote_name && conn->at < conn->n_candidates)
        way.remote_name = conn->candidate[conn->at].host;
    way.tls = conn->tls_text;
    if (conn->client)
        way.tls_short = conn->tls_short;
    return way;
}

/* ---- the end of a connection ---- */

/* Takes it out of its hop; the memory goes at the end of the turn. */
static void bury(struct conn *conn)
{
    struct hop *hop = conn->hop;
    if (conn->state <= CONN_SETUP)
        hop->n_starting--;
    hop->n_conns--;
    conn->state = CONN_DEAD;
    resolve_cancel(&conn->resolve);
    login_end(conn);
    conn_close(conn);
    LIST_REMOVE(conn, link);
    LIST_INSERT_HEAD(&conn->delivery->dead_conns, conn, link);
}

void conn_free(struct conn *conn)
{
    LIST_REMOVE(conn, link);
    if (conn->timer)
        loop_timer_free(&conn->timer);
    smtp_client_free(&conn->client);
    buf_done(&conn->words);
    free(conn->candidate);
    free(conn->rcpt);
    free(conn->outcome);
    free(conn);
}

static void setup_failed(struct conn *conn, bool permanent)
{
    struct hop *hop = conn->hop;
    struct way way = conn_way(conn);
    way.hop_failed = true;
    if (conn->failure_rank)
        way.relay = conn->failure_relay;
    struct outcome outcome = { .status = permanent ? IPC_STATUS_BOUNCED : IPC_STATUS_DEFERRED,
                               .reply = str_of(conn->failure_text) };
    str_copy(str_of(conn->failure_dsn), outcome.dsn, sizeof outcome.dsn);
    bury(conn);
    hop_connection_failed(hop, &way, &outcome);
    hop_check(hop);
}

static void close_connection(struct conn *conn)
{
    struct hop *hop = conn->hop;
    bury(conn);
    hop_check(hop);
}

static void try_candidate(struct conn *conn);

static void failure(struct conn *conn, const char *dsn, const char *fmt, va_list args)
{
    unsigned rank = conn->state == CONN_SETUP ? 2 : 1;
    if (rank < conn->failure_rank)
        return;
    conn->failure_rank = rank;
    memcpy(conn->failure_relay, conn->relay, sizeof conn->failure_relay);
    str_copy(str_of(dsn), conn->failure_dsn, sizeof conn->failure_dsn);
    vsnprintf(conn->failure_text, sizeof conn->failure_text, fmt, args);
}

void conn_fail(struct conn *conn, bool next_address, const char *dsn, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    failure(conn, dsn, fmt, args);
    va_end(args);
    login_end(conn);
    conn_close(conn);
    conn->deadline_ms = 0;
    if (next_address && conn->at + 1 < conn->n_candidates) {
        conn->at++;
        conn->no_tls = false;
        smtp_client_free(&conn->client);
        try_candidate(conn);
    } else {
        setup_failed(conn, conn->refused_for_good);
    }
}

void conn_quit(struct conn *conn)
{
    if (conn->state == CONN_IDLE && conn->fd >= 0) {
        smtp_client_quit(conn->client, loop_now_ms(conn->delivery->ctx->loop));
        conn_update(conn); /* its answer is of no interest */
    }
    if (conn->state != CONN_DEAD)
        close_connection(conn);
}

/* ---- the beginning ---- */

static void name_relay(struct conn *conn)
{
    const struct resolve_candidate *to = &conn->candidate[conn->at];
    if (to->port)
        snprintf(conn->relay, sizeof conn->relay, "%s[%s]:%u", to->host, to->text, to->port);
    else
        snprintf(conn->relay, sizeof conn->relay, "%s[%s]", to->host, to->text);
    conn->tls_text[0] = conn->tls_short[0] = 0;
}

static void try_candidate(struct conn *conn)
{
    struct err err;
    name_relay(conn);
    conn->state = CONN_CONNECTING;
    if (conn_connect(conn, &err) < 0)
        conn_fail(conn, true, "4.4.1", "%s", err_text(&err));
    else
        conn_update(conn);
}

static bool set_candidates(struct conn *conn, const struct resolve_candidate *candidate, size_t n)
{
    conn->candidate = calloc(n, sizeof *candidate);
    if (!conn->candidate)
        return false;
    memcpy(conn->candidate, candidate, n * sizeof *candidate);
    conn->n_candidates = n;
    return true;
}

static void resolve_failed(struct conn *conn, const char *dsn, const char *text, bool permanent)
{
    str_copy(str_of(dsn), conn->failure_dsn, sizeof conn->failure_dsn);
    str_copy(str_of(text), conn->failure_text, sizeof conn->failure_text);
    setup_failed(conn, permanent);
}

static void on_resolved(void *arg, const struct resolve_result *result)
{
    struct conn *conn = arg;
    conn->resolve = NULL;
    if (result->n == 0)
        resolve_failed(conn, result->dsn, result->text, result->permanent);
    else if (!set_candidates(conn, result->candidate, result->n))
        resolve_failed(conn, "4.3.0", "out of memory", false);
    else
        try_candidate(conn);
}

/* A socket in the file system has no name to ask for. */
static void connect_path(struct conn *conn, const char *path)
{
    struct resolve_candidate c = { .port = 0, .address_bytes = sizeof(struct sockaddr_un) };
    c.address.un.sun_family = AF_UNIX;
    str_copy(str_of(conn->hop->server ? conn->hop->server->name : "localhost"), c.host, sizeof c.host);
    if (!str_copy(str_of(path), c.address.un.sun_path, sizeof c.address.un.sun_path))
        resolve_failed(conn, "4.3.5", "the path of the LMTP socket is too long", false);
    else if (!str_copy(str_of(path), c.text, sizeof c.text) || !set_candidates(conn, &c, 1))
        resolve_failed(conn, "4.3.0", "out of memory", false);
    else
        try_candidate(conn);
}

bool conn_new(struct hop *hop)
{
    struct delivery *d = hop->site->delivery;
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return false;
    conn->delivery = d;
    conn->hop = hop;
    conn->fd = -1;
    conn->number = ++d->last_conn;
    conn->begun_ms = loop_now_ms(d->ctx->loop);
    buf_init(&conn->words, WORDS_MAX_BYTES);
    LIST_INSERT_HEAD(&hop->conns, conn, link);
    hop->n_conns++;
    hop->n_starting++;
    if (hop->lmtp && hop->via.item[0][0] == '/') {
        connect_path(conn, hop->via.item[0]);
        return true;
    }
    struct resolve_options options = {
        .via = hop->via, .domain = hop->domain, .default_port = hop->lmtp ? 24 : 25, .conf = hop->site->conf,
        .deadline_ms = conn->begun_ms + (int64_t)hop->site->conf->connect_timeout_s * 1000,
        .seed = (uint32_t)conn->begun_ms * 2654435761u ^ (uint32_t)(uintptr_t)conn,
    };
    if (resolve_start(hop->site->dns, &options, on_resolved, conn, &conn->resolve) < 0)
        resolve_failed(conn, "4.3.0", "out of memory", false);
    return true;
}

/* ---- the session ---- */

static void steps(struct conn *conn, struct str in);

static enum smtp_client_tls tls_level(const struct conn *conn)
{
    switch (conn->hop->block->tls) {
    case CONF_TLS_NONE: return SMTP_CLIENT_TLS_NONE;
    case CONF_TLS_OPPORTUNISTIC: return conn->no_tls ? SMTP_CLIENT_TLS_NONE : SMTP_CLIENT_TLS_OPPORTUNISTIC;
    default: return SMTP_CLIENT_TLS_REQUIRE;
    }
}

void smtp_connected(struct conn *conn)
{
    struct loop *loop = conn->delivery->ctx->loop;
    /* RFC 5321 section 4.5.3.2's proportions, with reply_timeout for its five minutes. */
    int64_t t = (int64_t)conn->hop->site->conf->reply_timeout_s * 1000;
    struct smtp_client_options options = {
        .helo = str_of(conn->hop->server ? conn->hop->server->name : "localhost"), .lmtp = conn->hop->lmtp,
        .tls = tls_level(conn), .bdat = SMTP_CLIENT_BDAT_AFTER_RCPT, .want_auth = conn->hop->block->auth != NULL,
        .auth_optional = conn->hop->block->auth_optional,
        .trace = protocol_trace, .trace_arg = conn,
        .timeouts = { .greeting_ms = t, .command_ms = t, .data_ms = t * 2 / 5, .block_ms = t * 3 / 5, .end_ms = t * 2 },
    };
    conn->state = CONN_SETUP;
    conn->deadline_ms = 0;
    smtp_client_free(&conn->client);
    conn->client = smtp_client_new(&options, loop_now_ms(loop));
    if (!conn->client)
        conn_fail(conn, false, "4.3.0", "out of memory, or the server's name is not fit for EHLO");
    else
        conn_update(conn);
}

/* ---- a message ---- */

static const char *notify_text(uint8_t notify)
{
    static const char *const text[8] = { "", "SUCCESS", "FAILURE", "SUCCESS,FAILURE", "DELAY", "SUCCESS,DELAY",
                                         "FAILURE,DELAY", "SUCCESS,FAILURE,DELAY" };
    return notify & SPOOL_NOTIFY_NEVER ? "NEVER" : text[notify >> 1 & 7];
}

/* Adds to conn->words, which has the room already: earlier views stay valid. */
static struct str add_xtext(struct conn *conn, struct str prefix, struct str raw)
{
    size_t from = conn->words.n;
    if (!buf_add(&conn->words, prefix) || !smtp_xtext_encode(raw, &conn->words))
        return STR_NONE;
    return str_slice(conn->words.p + from, conn->words.n - from);
}

static struct str add_orcpt(struct conn *conn, struct str orcpt)
{
    size_t type = str_find(orcpt, ';');
    if (type == orcpt.n)
        return STR_NONE;
    return add_xtext(conn, str_slice(orcpt.p, type + 1), str_skip(orcpt, type + 1));
}

static bool reserve_message(struct conn *conn, const struct job *job)
{
    const struct spool_envelope *envelope = spool_reader_envelope(job->reader);
    size_t n = job->n_recipients, words = envelope->envid.n * 3 + 16;
    for (size_t i = 0; i < n; i++)
        words += job_recipient(job, i)->orcpt.n * 3 + 16;
    buf_clear(&conn->words);
    if (!buf_reserve(&conn->words, words))
        return false;
    if (n <= conn->rcpt_cap)
        return true;
    struct smtp_client_recipient *rcpt = reallocarray(conn->rcpt, n, sizeof *rcpt);
    if (rcpt)
        conn->rcpt = rcpt;
    struct outcome *outcome = reallocarray(conn->outcome, n, sizeof *outcome);
    if (outcome)
        conn->outcome = outcome;
    if (!rcpt || !outcome)
        return false;
    conn->rcpt_cap = n;
    return true;
}

static bool send_message(struct conn *conn, struct job *job, int64_t now_ms)
{
    const struct spool_envelope *envelope = spool_reader_envelope(job->reader);
    if (!reserve_message(conn, job))
        return false;
    for (size_t i = 0; i < job->n_recipients; i++) {
        const struct spool_recipient *r = job_recipient(job, i);
        conn->rcpt[i] = (struct smtp_client_recipient){ .address = r->address, .notify = str_of(notify_text(r->notify)),
                                                        .orcpt = r->orcpt.n ? add_orcpt(conn, r->orcpt) : STR_NONE };
    }
    struct smtp_client_message message = {
        .sender = envelope->reverse_path, .recipient = conn->rcpt, .n_recipients = job->n_recipients,
        .body_bytes = spool_reader_prefix(job->reader).n + spool_reader_body_bytes(job->reader),
        .eightbit = envelope->flags & SPOOL_FLAG_8BIT, .smtputf8 = envelope->flags & SPOOL_FLAG_SMTPUTF8,
        .envid = envelope->envid.n ? add_xtext(conn, STR_NONE, envelope->envid) : STR_NONE,
    };
    if (envelope->ret != SPOOL_RET_UNSET)
        message.ret = envelope->ret == SPOOL_RET_FULL ? STR("FULL") : STR("HDRS");
    conn->body_sent = 0;
    spool_reader_rewind(job->reader);
    return smtp_client_send(conn->client, &message, now_ms);
}

/* The next job that can be read. False: none waits. */
static bool begin_job(struct conn *conn)
{
    struct job *job;
    int64_t now_ms = loop_now_ms(conn->delivery->ctx->loop);
    while ((job = hop_take(conn->hop))) {
        if (!job_open(job))
            continue;
        int64_t setup_ms = conn->n_messages ? now_ms : conn->begun_ms;
        job->setup_ms = setup_ms > job->taken_ms ? setup_ms : job->taken_ms;
        job->ready_ms = now_ms;
        if (send_message(conn, job, now_ms)) {
            conn->job = job;
            conn->state = CONN_BUSY;
            conn->deadline_ms = 0;
            return true;
        }
        struct outcome outcome = { .status = IPC_STATUS_DEFERRED, .dsn = "4.3.0", .reply = STR("out of memory") };
        struct way way = conn_way(conn);
        job_finish(job, &way, &outcome, 1);
    }
    return false;
}

/* False: the session has failed. */
static bool login_is_over(struct conn *conn)
{
    if (conn->login_begun && smtp_client_authenticated(conn->client)) {
        if (!conn->login_complete) {
            conn_fail(conn, false, "4.7.8", "%s accepted the login without proving that it knows the password", conn->relay);
            return false;
        }
        login_decided(conn, true, STR_NONE);
        snprintf(conn->auth_text, sizeof conn->auth_text, "%s%s", conn->exps ? "X-EXPS " : "", conn->mechanism);
    } else if (conn->login_begun) { /* it was optional, and refused */
        struct smtp_client_result r = smtp_client_auth_result(conn->client);
        login_decided(conn, false, r.text);
        layer_free(&conn->next_layer);
    }
    login_end(conn);
    return true;
}

/* From here on all is wrapped; the machine says EHLO again, and is ready again after it. */
static bool begin_layer(struct conn *conn, int64_t now_ms)
{
    if (conn->next_layer) {
        conn->layer = conn->next_layer;
        conn->next_layer = NULL;
        snprintf(conn->auth_text, sizeof conn->auth_text, "%s%s/%s", conn->exps ? "X-EXPS " : "", conn->mechanism,
                 layer_is_confidential(conn->layer) ? "confidentiality" : "integrity");
        smtp_client_layer_started(conn->client, now_ms);
        return true;
    }
    if (conn->hop->block->seal && !conn->tls && !conn->layer) {
        conn_fail(conn, false, "4.7.5", "%s: the domain block demands a sealed session, and there is none", conn->relay);
        return true;
    }
    return false;
}

static void ready(struct conn *conn)
{
    int64_t now_ms = loop_now_ms(conn->delivery->ctx->loop);
    if (conn->state == CONN_SETUP) {
        if (!login_is_over(conn) || begin_layer(conn, now_ms))
            return;
        conn->hop->n_starting--;
    }
    conn->state = CONN_IDLE;
    if (now_ms - conn->begun_ms > DELIVERY_CONNECTION_AGE_MS && conn->n_messages > 0)
        conn_quit(conn);
    else if (!begin_job(conn)) {
        conn->deadline_ms = now_ms + DELIVERY_IDLE_MS;
        if (conn->delivery->draining)
            conn_quit(conn);
    }
}

void conn_offer(struct conn *conn)
{
    if (conn->state != CONN_IDLE || !begin_job(conn))
        return;
    steps(conn, STR_NONE);
}

/* ---- the body ---- */

static bool add_chunk(struct conn *conn, struct str chunk, int64_t now_ms)
{
    struct buf *out = smtp_client_output(conn->client);
    conn->body_sent += chunk.n;
    while (chunk.n > 0) {
        struct str slice[SLICES];
        size_t taken = 0;
        size_t n = smtp_client_body(conn->client, chunk, slice, SLICES, &taken, now_ms);
        for (size_t i = 0; i < n; i++)
            buf_add(out, slice[i]);
        if (taken == 0)
            return false;
        chunk = str_skip(chunk, taken);
    }
    return !out->failed;
}

/* As much as the output has room for. */
static void feed_body(struct conn *conn)
{
    struct spool_reader *reader = conn->job->reader;
    struct delivery *d = conn->delivery;
    int64_t now_ms = loop_now_ms(d->ctx->loop);
    struct str prefix = spool_reader_prefix(reader);
    uint64_t all = prefix.n + spool_reader_body_bytes(reader);
    while (smtp_client_body_open(conn->client) && smtp_client_output(conn->client)->n < DELIVERY_CHUNK_BYTES) {
        struct err err;
        struct str chunk = conn->body_sent < prefix.n ? str_skip(prefix, (size_t)conn->body_sent) : STR_NONE;
        if (chunk.n == 0 && conn->body_sent < all) {
            ssize_t n = spool_reader_read(reader, d->chunk, sizeof d->chunk, &err);
            chunk = str_slice(d->chunk, n > 0 ? (size_t)n : 0);
            if (n < 0)
                log_event(d->ctx->log, LOG_LEVEL_ERROR, "delivery.message.unreadable", "%s: %s", conn->job->qid, err_text(&err));
        }
        /* Too short is noticed by the machine, which then sends no end. */
        if (chunk.n == 0 || !add_chunk(conn, chunk, now_ms) || conn->body_sent == all) {
            smtp_client_body_end(conn->client, now_ms);
            break;
        }
    }
}

void smtp_writable(struct conn *conn)
{
    if (conn->state != CONN_BUSY)
        return;
    feed_body(conn);
    steps(conn, STR_NONE);
}

/* ---- the outcome ---- */

/* Nothing was said but good-bye: it had been closed at the other end while it was idle. */
static bool was_dead_already(const struct conn *conn)
{
    if (conn->n_messages == 0 || conn->job->again)
        return false;
    for (size_t i = 0; i < conn->job->n_recipients; i++) {
        struct smtp_client_result r = smtp_client_result(conn->client, i);
        bool gone = r.code == 421 || (r.code == 0 && strcmp(r.enhanced, "4.4.2") == 0);
        if (!gone || (r.stage != SMTP_CLIENT_STAGE_MAIL && r.stage != SMTP_CLIENT_STAGE_RSET))
            return false;
    }
    return true;
}

static void add_text(struct conn *conn, struct outcome *o, const struct smtp_client_result *r)
{
    size_t from = conn->words.n;
    buf_addf(&conn->words, "%s %s said: %.*s (in reply to %s%s)", conn->hop->lmtp ? "lmtp host" : "host", conn->relay,
             STR_ARG(r->text), smtp_client_stage_name(r->stage), r->stage == SMTP_CLIENT_STAGE_END ? "" : " command");
    if (!conn->words.failed)
        o->text = str_slice(conn->words.p + from, conn->words.n - from);
}

static struct outcome outcome_of(struct conn *conn, const struct smtp_client_result *r)
{
    static const enum ipc_status status[] = { [SMTP_CLIENT_SENT] = IPC_STATUS_SENT,
                                              [SMTP_CLIENT_TEMPORARY] = IPC_STATUS_DEFERRED,
                                              [SMTP_CLIENT_PERMANENT] = IPC_STATUS_BOUNCED };
    struct outcome o = { .status = status[smtp_client_outcome(r)], .reply = r->text };
    memcpy(o.dsn, r->enhanced, sizeof o.dsn);
    if (o.status == IPC_STATUS_SENT && smtp_client_used_dsn(conn->client))
        o.flags = IPC_RESULT_PEER_DSN;
    if (o.status != IPC_STATUS_SENT && r->code)
        add_text(conn, &o, r);
    return o;
}

static void message_done(struct conn *conn)
{
    struct job *job = conn->job;
    conn->job = NULL;
    conn->state = CONN_IDLE;
    conn->n_messages++;
    size_t words = 64;
    for (size_t i = 0; i < job->n_recipients; i++)
        words += smtp_client_result(conn->client, i).text.n + sizeof conn->relay + 64;
    buf_clear(&conn->words);
    buf_reserve(&conn->words, words); /* so that views into it stay */
    for (size_t i = 0; i < job->n_recipients; i++) {
        struct smtp_client_result r = smtp_client_result(conn->client, i);
        conn->outcome[i] = outcome_of(conn, &r);
    }
    struct way way = conn_way(conn);
    job_finish(job, &way, conn->outcome, job->n_recipients);
}

/* RFC 5321 section 5.1: that one host takes nothing now is no reason to wait while there is another. */
static bool next_host_may_take_it(const struct conn *conn)
{
    if (conn->hop->lmtp || conn->n_messages > 0 || conn->at + 1 >= conn->n_candidates || conn->delivery->draining)
        return false;
    for (size_t i = 0; i < conn->job->n_recipients; i++) {
        struct smtp_client_result r = smtp_client_result(conn->client, i);
        if (r.stage != SMTP_CLIENT_STAGE_MAIL || r.code / 100 != 4)
            return false;
    }
    return conn->job->n_recipients > 0;
}

static void take_job_to_next_host(struct conn *conn)
{
    struct smtp_client_result r = smtp_client_result(conn->client, 0);
    hop_add_again(conn->hop, conn->job);
    conn->job = NULL;
    conn->state = CONN_SETUP; /* as if it had been said to EHLO */
    conn->hop->n_starting++;
    conn_fail(conn, true, r.enhanced[0] == '4' ? r.enhanced : "4.0.0", "host %s said: %.*s (in reply to MAIL command)", conn->relay,
              STR_ARG(r.text));
}

static void on_done(struct conn *conn)
{
    if (next_host_may_take_it(conn)) {
        take_job_to_next_host(conn);
        return;
    }
    if (was_dead_already(conn) && !conn->delivery->draining) {
        hop_add_again(conn->hop, conn->job);
        conn->job = NULL;
        conn->state = CONN_IDLE;
        return;
    }
    message_done(conn);
}

static void on_failed(struct conn *conn, const struct smtp_client_result *r)
{
    if (conn->state != CONN_SETUP) {
        close_connection(conn);
        return;
    }
    if (r->stage == SMTP_CLIENT_STAGE_AUTH && r->code) {
        login_decided(conn, false, r->text);
        conn_fail(conn, false, "4.7.8", "SASL authentication failed; server %s said: %.*s", conn->relay, STR_ARG(r->text));
        return;
    }
    conn->refused_for_good = r->code == 521 && r->stage == SMTP_CLIENT_STAGE_GREETING;
    if (r->code)
        conn_fail(conn, true, conn->refused_for_good ? r->enhanced : "4.0.0", "host %s refused to talk to me: %.*s", conn->relay,
                  STR_ARG(r->text));
    else
        conn_fail(conn, true, r->enhanced, "%s: %.*s", conn->relay, STR_ARG(r->text));
}

static void start_tls(struct conn *conn)
{
    struct err err;
    conn->deadline_ms = loop_now_ms(conn->delivery->ctx->loop) + (int64_t)conn->hop->site->conf->reply_timeout_s * 1000;
    if (!conn_start_tls(conn, conn->hop->block->tls == CONF_TLS_VERIFY, &err))
        smtp_tls_failed(conn, err_text(&err));
}

static void on_event(struct conn *conn, const struct smtp_client_event *event)
{
    switch (event->kind) {
    case SMTP_CLIENT_STARTTLS: start_tls(conn); break;
    case SMTP_CLIENT_AUTH_NEEDED: login_begin(conn, event->mechanisms, event->exps_mechanisms); break;
    case SMTP_CLIENT_AUTH_CHALLENGE: login_challenge(conn, event->challenge); break;
    case SMTP_CLIENT_READY: ready(conn); break;
    case SMTP_CLIENT_BODY_WANTED: feed_body(conn); break;
    case SMTP_CLIENT_DONE: on_done(conn); break;
    case SMTP_CLIENT_FAILED: on_failed(conn, &event->result); break;
    default: close_connection(conn); break;
    }
}

/* All that the machine has to tell, then the socket's turn. A connection that has been given up, or goes on with
 * another address, has another machine: the rest of `in` is nobody's. */
static void steps(struct conn *conn, struct str in)
{
    struct smtp_client *client = conn->client;
    struct smtp_client_event event;
    int64_t now_ms = loop_now_ms(conn->delivery->ctx->loop);
    while (conn->state != CONN_DEAD && conn->client == client && conn->fd >= 0 &&
           smtp_client_step(client, &in, now_ms, &event) != SMTP_CLIENT_READ)
        on_event(conn, &event);
    if (conn->state != CONN_DEAD && conn->client == client)
        conn_update(conn);
}

void smtp_input(struct conn *conn, struct str octets)
{
    if (conn->client)
        steps(conn, octets);
}

void smtp_closed(struct conn *conn, const char *why)
{
    if (!conn->client)
        return;
    smtp_client_closed(conn->client, why);
    buf_clear(smtp_client_output(conn->client));
    steps(conn, STR_NONE);
}

void smtp_tls_done(struct conn *conn)
{
    struct tls_info info;
    tls_info(conn->tls, &info);
    snprintf(conn->tls_text, sizeof conn->tls_text, "%s %s%s", info.version, info.cipher, info.verified ? ", verified" : "");
    snprintf(conn->tls_short, sizeof conn->tls_short, "%s%s", info.version, info.verified ? "/verified" : "");
    conn->deadline_ms = 0;
    smtp_client_tls_started(conn->client, loop_now_ms(conn->delivery->ctx->loop));
    conn_update(conn);
}

void smtp_tls_failed(struct conn *conn, const char *why)
{
    char text[600];
    str_copy(str_slice(why, strnlen(why, sizeof text - 1)), text, sizeof text);
    bool welcome_only = conn->hop->block->tls == CONF_TLS_OPPORTUNISTIC && !conn->hop->block->auth;
    if (!welcome_only) {
        conn_fail(conn, true, "4.7.5", "Cannot start TLS with %s: %s", conn->relay, text);
        return;
    }
    log_event(conn->delivery->ctx->log, LOG_LEVEL_NOTICE, "delivery.tls.fallback", "%s: %s; trying without TLS", conn->relay, text);
    conn->no_tls = true;
    conn_close(conn);
    smtp_client_free(&conn->client);
    try_candidate(conn);
}

void smtp_timer(struct conn *conn)
{
    int64_t now_ms = loop_now_ms(conn->delivery->ctx->loop);
    int64_t machine = conn->client ? smtp_client_deadline_ms(conn->client) : -1;
    if (conn->deadline_ms && now_ms >= conn->deadline_ms) {
        conn->deadline_ms = 0;
        if (conn->state == CONN_CONNECTING)
            conn_fail(conn, true, "4.4.1", "connect to %s: Connection timed out", conn->relay);
        else if (conn->handshaking)
            smtp_tls_failed(conn, "the handshake timed out");
        else if (conn->question)
            conn_fail(conn, false, "4.7.0", "%s: our authentication service did not answer in time", conn->relay);
        else
            conn_quit(conn);
        return;
    }
    if (machine >= 0 && now_ms >= machine) {
        smtp_client_timeout(conn->client);
        steps(conn, STR_NONE);
        return;
    }
    conn_update(conn);
}
