/* One connection of a load. Happy path: connect, (TLS,) feed the machine what comes, answer its events at once, write
 * what it has to say. A connection that ends for whatever reason is closed here and opened again by the run's turn. */
#include "cli/bench/bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "io/now.h"

static void talk(struct bench_connection *c, struct str in);

struct bench_connection *bench_connection_new(struct bench_run *run)
{
    struct bench_connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->run = run;
    c->fd = -1;
    return c;
}

static void close_all(struct bench_connection *c)
{
    if (c->phase == BENCH_CLOSED)
        return;
    bench_login_done(c);
    tls_free(&c->tls);
    smtp_client_free(&c->client);
    loop_fd_free(&c->watch);
    close(c->fd);
    c->fd = -1;
    c->phase = BENCH_CLOSED;
    c->run->n_live--;
    if (c->ready)
        c->run->tally.ready--;
    c->ready = false;
}

void bench_connection_free(struct bench_connection **connection)
{
    if (!*connection)
        return;
    close_all(*connection);
    free(*connection);
    *connection = NULL;
}

void bench_connection_fail(struct bench_connection *c, const char *why)
{
    static const enum smtp_client_stage stage[] = {
        [BENCH_CONNECTING] = SMTP_CLIENT_STAGE_GREETING,
        [BENCH_HANDSHAKE] = SMTP_CLIENT_STAGE_STARTTLS,
        [BENCH_TALK] = SMTP_CLIENT_STAGE_AUTH,
        [BENCH_CLOSED] = SMTP_CLIENT_STAGE_GREETING,
    };
    bench_run_error(c->run, stage[c->phase], 0, str_of(why));
    close_all(c);
}

/* ---- the machine's events; false: the connection is closed or waits for something other than the machine ---- */

static bool on_starttls(struct bench_connection *c, const struct smtp_client_event *event);

static bool on_auth_needed(struct bench_connection *c, const struct smtp_client_event *event)
{
    struct err err;
    if (bench_login_begin(c, event->mechanisms, loop_now_ms(c->run->loop), &err))
        return true;
    bench_connection_fail(c, err_text(&err));
    return false;
}

static bool on_auth_challenge(struct bench_connection *c, const struct smtp_client_event *event)
{
    struct err err;
    if (bench_login_step(c, event->challenge, loop_now_ms(c->run->loop), &err))
        return true;
    bench_connection_fail(c, err_text(&err));
    return false;
}

static void first_ready(struct bench_connection *c)
{
    c->ready = true;
    c->run->tally.ready++;
    c->run->tally.sessions++;
    bench_samples_add(&c->run->tally.session, now_mono_us() - c->begun_us);
}

static bool begin_message(struct bench_connection *c)
{
    const struct bench_options *o = c->run->o;
    uint64_t number;
    if ((o->per_connection && c->n_sent >= o->per_connection) || !bench_run_take(c->run, &number))
        return false;
    const struct bench_content *content = &c->run->content;
    struct smtp_client_message message = { .sender = str_of(o->sender), .recipient = content->recipient,
        .n_recipients = content->n_recipients, .body_bytes = content->size_bytes };
    bench_content_header(content, number, c->header);
    c->body_at = 0;
    c->message_us = now_mono_us();
    return smtp_client_send(c->client, &message, loop_now_ms(c->run->loop));
}

static bool on_ready(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    if (c->sasl && !sasl_client_complete(c->sasl)) {
        bench_connection_fail(c, "the server reported success, but did not prove that it knows the password");
        return false;
    }
    bench_login_done(c);
    if (!c->ready)
        first_ready(c);
    if (c->run->o->mode == BENCH_IDLE && !c->run->stopping)
        return true;
    if (c->run->o->mode != BENCH_MESSAGES || !begin_message(c))
        smtp_client_quit(c->client, loop_now_ms(c->run->loop));
    return true;
}

static bool on_done(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    struct bench_tally *tally = &c->run->tally;
    bool accepted = false;
    for (size_t i = 0; i < c->run->content.n_recipients; i++) {
        struct smtp_client_result r = smtp_client_result(c->client, i);
        if (r.stage == SMTP_CLIENT_STAGE_END && r.code == 250)
            accepted = true;
        else
            bench_run_error(c->run, r.stage, r.code, r.text);
    }
    if (accepted) {
        tally->messages++;
        tally->octets += c->run->content.size_bytes;
        bench_samples_add(&tally->message, now_mono_us() - c->message_us);
    }
    c->n_sent++;
    return true;
}

static bool on_failed(struct bench_connection *c, const struct smtp_client_event *event)
{
    bench_run_error(c->run, event->result.stage, event->result.code, event->result.text);
    close_all(c);
    return false;
}

static bool on_closed(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    close_all(c);
    return false;
}

/* Gives the machine as much of the body as there are slices for; false when the body is not wanted. */
static void supply_body(struct bench_connection *c)
{
    const struct bench_content *content = &c->run->content;
    int64_t now_ms = loop_now_ms(c->run->loop);
    c->slice_at = c->n_slices = 0;
    c->out_head = smtp_client_output(c->client)->n;
    while (c->n_slices < BENCH_SLICES && c->body_at < content->size_bytes) {
        size_t taken;
        size_t n = smtp_client_body(c->client, bench_content_at(content, c->header, c->body_at),
                                    c->slice + c->n_slices, BENCH_SLICES - c->n_slices, &taken, now_ms);
        if (n == 0)
            break;
        c->n_slices += n;
        c->body_at += taken;
    }
    if (c->body_at == content->size_bytes)
        smtp_client_body_end(c->client, now_ms);
}

/* Writes all that can be written; false: closed. */
static bool flush(struct bench_connection *c)
{
    enum bench_io io;
    while ((io = bench_transport_write(c)) == BENCH_IO_DONE && smtp_client_body_open(c->client))
        supply_body(c);
    if (io != BENCH_IO_CLOSED)
        return true;
    smtp_client_closed(c->client, c->tls ? tls_error(c->tls) : strerror(errno));
    talk(c, STR_NONE);
    return false;
}

static bool on_body_wanted(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    supply_body(c);
    return true;
}

static bool on_read(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    flush(c);
    return false;
}

static void talk(struct bench_connection *c, struct str in)
{
    static bool (*const handle[])(struct bench_connection *c, const struct smtp_client_event *event) = {
        [SMTP_CLIENT_READ] = on_read,
        [SMTP_CLIENT_STARTTLS] = on_starttls,
        [SMTP_CLIENT_AUTH_NEEDED] = on_auth_needed,
        [SMTP_CLIENT_AUTH_CHALLENGE] = on_auth_challenge,
        [SMTP_CLIENT_READY] = on_ready,
        [SMTP_CLIENT_BODY_WANTED] = on_body_wanted,
        [SMTP_CLIENT_DONE] = on_done,
        [SMTP_CLIENT_FAILED] = on_failed,
        [SMTP_CLIENT_CLOSED] = on_closed,
    };
    struct smtp_client_event event;
    enum smtp_client_event_kind kind;
    do
        kind = smtp_client_step(c->client, &in, loop_now_ms(c->run->loop), &event);
    while (handle[kind](c, &event));
}

/* ---- the socket's events ---- */

static void handshake(struct bench_connection *c)
{
    enum tls_result result = tls_handshake(c->tls);
    if (result == TLS_WANT_READ || result == TLS_WANT_WRITE) {
        loop_fd_want(c->watch, result == TLS_WANT_READ ? LOOP_READ : LOOP_WRITE);
    } else if (result == TLS_DONE) {
        c->phase = BENCH_TALK;
        c->handshake_deadline_ms = 0;
        loop_fd_want(c->watch, LOOP_READ);
        if (!c->run->o->tls)
            smtp_client_tls_started(c->client, loop_now_ms(c->run->loop));
        talk(c, STR_NONE);
    } else {
        char why[300];
        snprintf(why, sizeof why, "TLS handshake: %s", tls_error(c->tls));
        bench_connection_fail(c, why);
    }
}

static void begin_tls(struct bench_connection *c)
{
    struct err err;
    c->phase = BENCH_HANDSHAKE;
    c->handshake_deadline_ms = loop_now_ms(c->run->loop) + (int64_t)c->run->o->timeout_ms;
    if (tls_client_session_new(c->run->tls, c->fd, c->run->o->host, false, NULL, &c->tls, &err) < 0)
        bench_connection_fail(c, err_text(&err));
    else
        handshake(c);
}

static bool on_starttls(struct bench_connection *c, const struct smtp_client_event *event)
{
    (void)event;
    begin_tls(c);
    return false;
}

static void connected(struct bench_connection *c)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error) {
        char why[200];
        snprintf(why, sizeof why, "connect: %s", strerror(error));
        bench_connection_fail(c, why);
        return;
    }
    c->phase = BENCH_TALK;
    loop_fd_want(c->watch, LOOP_READ);
    if (c->run->o->tls)
        begin_tls(c);
}

static void readable(struct bench_connection *c)
{
    bool more = true;
    while (more && c->phase == BENCH_TALK) {
        struct str in = STR_NONE;
        enum bench_io io = bench_transport_read(c, &in, &more);
        if (io == BENCH_IO_CLOSED)
            smtp_client_closed(c->client, NULL);
        if (io != BENCH_IO_WAIT)
            talk(c, in);
    }
}

static void on_event(void *arg, unsigned events)
{
    struct bench_connection *c = arg;
    if (c->phase == BENCH_CONNECTING) {
        connected(c);
    } else if (c->phase == BENCH_HANDSHAKE) {
        handshake(c);
    } else if (c->phase == BENCH_TALK) {
        if ((events & LOOP_WRITE) && !flush(c))
            return;
        if (events & LOOP_READ)
            readable(c);
    }
}

static struct smtp_client *new_machine(const struct bench_run *run)
{
    const struct bench_options *o = run->o;
    int64_t wait_ms = (int64_t)o->timeout_ms;
    struct smtp_client_options options = { .helo = str_of(o->helo), .tls_active = o->tls, .want_auth = o->user != NULL,
        .no_pipelining = o->no_pipelining,
        .tls = o->starttls ? SMTP_CLIENT_TLS_REQUIRE : SMTP_CLIENT_TLS_NONE,
        .bdat = o->bdat ? SMTP_CLIENT_BDAT_ONE_FLIGHT : SMTP_CLIENT_BDAT_NEVER,
        .timeouts = { wait_ms, wait_ms, wait_ms, wait_ms, wait_ms, wait_ms } };
    return smtp_client_new(&options, loop_now_ms(run->loop));
}

void bench_connection_open(struct bench_connection *c)
{
    struct bench_run *run = c->run;
    struct err err;
    int one = 1;
    c->fd = socket(run->o->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        bench_run_error(run, SMTP_CLIENT_STAGE_GREETING, 0, str_of(strerror(errno)));
        return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    run->n_live++;
    c->phase = BENCH_CONNECTING;
    c->n_slices = c->slice_at = c->out_head = 0;
    c->n_sent = 0;
    c->begun_us = now_mono_us();
    c->client = new_machine(run);
    if (!c->client || loop_fd_new(run->loop, c->fd, on_event, c, &c->watch, &err) < 0)
        bench_connection_fail(c, "out of memory for a connection");
    else if (connect(c->fd, (const struct sockaddr *)&run->o->address, run->o->address_bytes) != 0 && errno != EINPROGRESS)
        bench_connection_fail(c, strerror(errno));
    else
        loop_fd_want(c->watch, LOOP_WRITE);
}

void bench_connection_check_deadline(struct bench_connection *c, int64_t now_ms)
{
    if (c->phase == BENCH_HANDSHAKE && now_ms > c->handshake_deadline_ms) {
        bench_connection_fail(c, "TLS handshake: timed out");
    } else if (c->phase == BENCH_CONNECTING || c->phase == BENCH_TALK) {
        int64_t deadline_ms = smtp_client_deadline_ms(c->client);
        if (deadline_ms < 0 || now_ms < deadline_ms)
            return;
        smtp_client_timeout(c->client);
        talk(c, STR_NONE);
    }
}
