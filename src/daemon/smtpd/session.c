/* One connection. Happy path: read what the socket has, feed it to the machine, act on each event, write what the
 * machine has to say, wait for more.
 *
 * Ways it stops for a while: the machine waits for an answer (session_resume() goes on), the socket takes no more
 * output (LOOP_WRITE), TLS is shaking hands. What was read and not taken stays in s->input, and nothing more is
 * read until it is gone. Ways it ends: the machine says CLOSE, the peer goes away, a deadline passes (the sweep in
 * smtpd.c calls session_sweep()). A session may be ended inside its own callbacks: then it is freed when the
 * outermost call returns. */
#include "daemon/smtpd/session.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/smtpd/signer.h"
#include "io/now.h"

enum {
    INPUT_MAX_BYTES = SMTPD_READ_BYTES,
    LAYER_INPUT_MAX_BYTES = 4 * SMTPD_READ_BYTES, /* one read may complete packets that came before */
    READS_PER_TURN = 4,
    TLS_HANDSHAKE_MS = 30000,
    SPARE_WAIT_MS = 3000,
    CLOSING_MS = 5000,
    DISCARD_MAX_BYTES = 256 * 1024,
    ASK_MS = 120000, /* auth has deadlines of its own; this one is for an auth that hangs */
};

static void run(struct session *s, struct str in);

static void unlink_session(struct session *s)
{
    if (s->smtpd->next_visited == s)
        s->smtpd->next_visited = s->next;
    *s->prev = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->smtpd->n_sessions--;
}

/* What the peer sent and nobody will read would make the kernel reset the connection, and the last reply with it. */
static void discard_unread(int fd)
{
    char block[4096];
    for (int done = 0; done < DISCARD_MAX_BYTES;) {
        ssize_t n = recv(fd, block, sizeof block, MSG_DONTWAIT);
        if (n <= 0)
            break;
        done += (int)n;
    }
}

static void destroy(struct session *s)
{
    struct smtpd *smtpd = s->smtpd;
    if (s->spare_wanted_since_ms)
        smtpd->n_waiting_for_spare--;
    smtpd_login_cancel(s);
    ask_forget(smtpd->asks, s);
    mail_discard(s);
    tell_session(s);
    tls_free(&s->tls);
    layer_free(&s->layer);
    layer_free(&s->next_layer);
    loop_fd_free(&s->watch);
    if (s->fd >= 0) {
        discard_unread(s->fd);
        close(s->fd);
    }
    smtp_server_free(s->machine);
    buf_wipe(&s->input);
    free(s->user);
    free(s->mechanism);
    free(s->helo);
    free(s->cause);
    free(s->inner);
    free(s->mailbox);
    free(s->senders);
    shared_session_end(smtpd->shared, s->shared_slot);
    unlink_session(s);
    smtpd_site_unref(&s->site);
    free(s);
    smtpd_session_ended(smtpd);
}

static void end(struct session *s)
{
    s->doomed = true;
    if (!s->running)
        destroy(s);
}

static void use_server(struct session *s, struct site_server *server)
{
    s->server = server;
    access_find(server->conf, s->address, &s->rules);
}

/* ---- TLS ---- */

static int64_t handshake_deadline(const struct session *s)
{
    int64_t limit_ms = s->server->limits.command_timeout_ms;
    return now_mono_ms() + (limit_ms && limit_ms < TLS_HANDSHAKE_MS ? limit_ms : TLS_HANDSHAKE_MS);
}

static void watch_for(struct session *s, enum tls_result result)
{
    loop_fd_want(s->watch, result == TLS_WANT_READ ? LOOP_READ : result == TLS_WANT_WRITE ? LOOP_WRITE : 0u);
}

static void choose_server_by_sni(struct session *s)
{
    struct tls_info info;
    tls_info(s->tls, &info);
    if (!info.server || strcmp(info.server, s->server->conf->name) == 0)
        return;
    for (size_t i = 0; i < s->site->conf->n_servers; i++)
        if (strcmp(s->site->server[i].conf->name, info.server) == 0)
            use_server(s, &s->site->server[i]);
}

static void tls_failed(struct session *s)
{
    struct log_record r;
    char client[NETWORK_TEXT_BYTES];
    network_address_format(s->address, client);
    log_begin(&r, s->smtpd->ctx->log, LOG_LEVEL_NOTICE, "tls.failed");
    log_cstr(&r, "server", s->server->conf->name);
    log_cstr(&r, "client", client);
    log_int(&r, "port", s->port);
    log_cstr(&r, "cause", tls_error(s->tls));
    log_cstr(&r, "session", s->id);
    log_end(&r);
    s->no_more_input = true;
    end(s);
}

static void tls_done(struct session *s)
{
    bool first = s->phase == SESSION_HANDSHAKE && !s->starttls;
    s->phase = SESSION_TALK;
    s->deadline_ms = 0;
    choose_server_by_sni(s);
    smtp_server_set_hostname(s->machine, str_of(s->server->conf->name));
    if (!first) {
        smtp_server_tls_started(s->machine);
        s->rights = 0; /* nothing learned in clear text counts any more */
    }
    session_set_policy(s);
    if (first)
        smtp_server_greet(s->machine, now_mono_ms());
    run(s, STR_NONE);
}

static void handshake(struct session *s)
{
    enum tls_result result = tls_handshake(s->tls);
    if (result == TLS_DONE)
        tls_done(s);
    else if (result == TLS_FAILED || result == TLS_CLOSED)
        tls_failed(s);
    else
        watch_for(s, result);
}

void session_tls_ready(void *arg)
{
    struct session *s = arg;
    bool outer = !s->running;
    s->running = true;
    handshake(s);
    if (outer) {
        s->running = false;
        if (s->doomed)
            destroy(s);
    }
}

static void begin_tls(struct session *s)
{
    struct err err = { 0 };
    s->tls_wanted = false;
    s->phase = SESSION_HANDSHAKE;
    s->deadline_ms = handshake_deadline(s);
    if (tls_server_session_new(s->server->tls, s->listener->sni, s->fd, &s->input, session_tls_ready, s, &s->tls,
                               &err) < 0) {
        log_event(s->smtpd->ctx->log, LOG_LEVEL_ERROR, "tls.failed", "%s", err.text);
        end(s);
        return;
    }
    handshake(s);
}

/* ---- output ---- */

static ssize_t write_some(struct session *s, const char *p, size_t n, bool *ret_again)
{
    *ret_again = false;
    if (s->tls) {
        size_t done = 0;
        enum tls_result result = tls_write(s->tls, p, n, &done);
        if (result == TLS_DONE)
            return (ssize_t)done;
        *ret_again = result == TLS_WANT_WRITE || result == TLS_WANT_READ;
        return -1;
    }
    ssize_t done = send(s->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    *ret_again = done < 0 && (errno == EAGAIN || errno == EINTR);
    return done;
}

/* False: it cannot be wrapped. */
static bool wrap_output(struct session *s, struct buf *out)
{
    struct err err;
    if (layer_put(s->layer, buf_str(out), &err) == 0) {
        buf_done(out);
        return true;
    }
    log_event(s->smtpd->ctx->log, LOG_LEVEL_ERROR, "smtpd.layer.failed", "session %s: %s", s->id, err_text(&err));
    return false;
}

static void lose(struct session *s)
{
    smtp_server_lost(s->machine);
    buf_clear(smtp_server_output(s->machine));
    s->no_more_input = true;
    end(s);
}

/* True when all of it is out; false when the socket takes no more, or the connection is gone (then doomed). */
static bool write_out(struct session *s, struct buf *out)
{
    while (out->n) {
        bool again;
        ssize_t n = write_some(s, out->p, out->n, &again);
        if (n > 0) {
            buf_consume(out, (size_t)n);
        } else if (again) {
            return false;
        } else {
            buf_clear(out);
            lose(s);
            return false;
        }
    }
    if (out->cap)
        buf_done(out); /* an idle session holds no buffer */
    return true;
}

/* The same for what the machine has said. Under a layer it is wrapped only when all that was wrapped before is out: what
 * a slow reader has not taken stays in the machine, which then goes no further. */
static bool flush(struct session *s)
{
    struct buf *out = smtp_server_output(s->machine);
    if (!s->layer)
        return write_out(s, out);
    bool all_out = write_out(s, layer_output(s->layer));
    if (!all_out || !out->n)
        return all_out;
    if (!wrap_output(s, out)) {
        lose(s);
        return false;
    }
    return write_out(s, layer_output(s->layer));
}

/* ---- events ---- */

static bool on_helo(struct session *s, const struct smtp_server_event *event)
{
    free(s->helo);
    s->helo = str_dup(event->data);
    return true;
}

static bool on_starttls(struct session *s, const struct smtp_server_event *event)
{
    (void)event;
    if (!session_can_sign(s)) {
        smtp_server_reject(s->machine, 454, "4.7.0", "TLS is not available for the moment, try again later");
        return true;
    }
    smtp_server_accept(s->machine);
    if (smtp_server_closed(s->machine))
        return true; /* octets came behind the command: the machine has refused it */
    s->starttls = true;
    s->tls_wanted = true;
    s->deadline_ms = handshake_deadline(s); /* the 220 must get out, too */
    return false;
}

static bool on_abort(struct session *s, const struct smtp_server_event *event)
{
    (void)event;
    mail_discard(s);
    return true;
}

/* The machine takes no answer any more: whatever is still being asked or stored is forgotten now, not only when the
 * last reply has gone out. */
static bool on_close(struct session *s)
{
    smtpd_login_cancel(s);
    mail_discard(s);
    s->phase = SESSION_CLOSING;
    s->deadline_ms = now_mono_ms() + CLOSING_MS;
    return false;
}

/* How each event is met. True: feed again; false: stop here (an answer comes later, or nothing more to do). */
static bool on_event(struct session *s, const struct smtp_server_event *event)
{
    switch (event->type) {
    case SMTP_SERVER_HELO: return on_helo(s, event);
    case SMTP_SERVER_STARTTLS: return on_starttls(s, event);
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE:
    case SMTP_SERVER_AUTH_CANCEL: return smtpd_login_event(s, event);
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT:
    case SMTP_SERVER_DATA:
    case SMTP_SERVER_BODY:
    case SMTP_SERVER_COMMIT: return mail_event(s, event);
    case SMTP_SERVER_ABORT: return on_abort(s, event);
    case SMTP_SERVER_FLUSH: return flush(s);
    case SMTP_SERVER_CLOSE: return on_close(s);
    case SMTP_SERVER_READ:
        if (!s->no_more_input)
            return false;
        smtp_server_lost(s->machine); /* all that came before the peer's end has had its answer */
        return true;
    case SMTP_SERVER_WAIT: return false;
    }
    return false;
}

static void keep_rest(struct session *s, struct str rest)
{
    if (s->phase == SESSION_CLOSING) {
        buf_wipe(&s->input);
        return;
    }
    bool inside = s->input.n && rest.p >= s->input.p && rest.p <= s->input.p + s->input.n;
    if (inside) {
        buf_consume(&s->input, (size_t)(rest.p - s->input.p));
    } else {
        assert(s->input.n == 0);
        if (!buf_add(&s->input, rest)) { /* at most one read, which fits: memory is out. No octet may go missing */
            s->no_more_input = true;
            end(s);
        }
    }
    if (s->input.n == 0)
        buf_wipe(&s->input); /* an idle session holds no buffer, and this one may have held a password */
}

/* TLS reads ahead: what came with the end of the handshake, or behind the last record, may wait inside it. Once a read
 * has said that no whole record is there, only the socket can bring more. */
static bool tls_holds_input(const struct session *s)
{
    return s->tls && !s->tls_read_dry && tls_pending(s->tls);
}

/* The 235 is out: all that follows is wrapped, in both directions. What came in clear behind the login cannot be told
 * from what somebody put there. */
static void begin_layer(struct session *s)
{
    s->layer_wanted = false;
    s->layer = s->next_layer;
    s->next_layer = NULL;
    if (s->input.n) {
        lose(s);
        return;
    }
    s->input.max = LAYER_INPUT_MAX_BYTES;
    smtp_server_layer_started(s->machine);
    session_set_policy(s);
    run(s, STR_NONE);
}

static void after_run(struct session *s)
{
    if (s->doomed)
        return;
    bool out_done = flush(s);
    if (s->doomed)
        return;
    if (s->tls_wanted && out_done) {
        begin_tls(s);
        return;
    }
    if (s->layer_wanted && out_done) {
        begin_layer(s);
        return;
    }
    if (s->phase == SESSION_CLOSING && out_done) {
        if (s->tls)
            tls_shutdown(s->tls);
        end(s);
        return;
    }
    unsigned want = out_done ? 0 : LOOP_WRITE;
    if (s->phase == SESSION_TALK && s->input.n == 0 && !s->no_more_input && out_done && !s->tls_wanted && !s->layer_wanted) {
        want |= LOOP_READ;
        /* Octets inside TLS do not make the descriptor readable; that it is writable wakes us in the next turn. */
        if (tls_holds_input(s))
            want |= LOOP_WRITE;
    }
    loop_fd_want(s->watch, want);
}

static void run(struct session *s, struct str in)
{
    bool outer = !s->running;
    s->running = true;
    int64_t now_ms = loop_now_ms(s->smtpd->ctx->loop);
    while (!s->doomed) {
        struct smtp_server_event event;
        size_t used = 0;
        smtp_server_feed(s->machine, in, now_ms, &used, &event);
        in = str_skip(in, used);
        if (!on_event(s, &event))
            break;
    }
    if (!s->doomed)
        keep_rest(s, in);
    after_run(s);
    if (outer) {
        s->running = false;
        if (s->doomed)
            destroy(s);
    }
}

void session_resume(struct session *s)
{
    if (s->running || s->doomed || s->phase == SESSION_HANDSHAKE)
        return; /* the running feed goes on by itself */
    if (s->phase == SESSION_CLOSING)
        run(s, STR_NONE);
    else
        run(s, buf_str(&s->input));
}

/* ---- input ---- */

enum input { INPUT_SOME, INPUT_NONE_NOW, INPUT_ENDED /* the peer may still read */, INPUT_LOST };

static void input_over(struct session *s, enum input how)
{
    s->no_more_input = true;
    if (how == INPUT_LOST)
        smtp_server_lost(s->machine);
    run(s, STR_NONE); /* after INPUT_ENDED: an answer that is owed is waited for, and sent */
}

static enum input read_some(struct session *s, char *p, size_t n, size_t *ret_n)
{
    *ret_n = 0;
    if (s->tls) {
        enum tls_result result = tls_read(s->tls, p, n, ret_n);
        s->tls_read_dry = result != TLS_DONE;
        return result == TLS_DONE                                     ? INPUT_SOME
               : result == TLS_WANT_READ || result == TLS_WANT_WRITE ? INPUT_NONE_NOW
                                                                      : INPUT_LOST;
    }
    ssize_t got = recv(s->fd, p, n, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? INPUT_NONE_NOW : INPUT_LOST;
    *ret_n = (size_t)got;
    return got ? INPUT_SOME : INPUT_ENDED;
}

static bool unwrap_input(struct session *s, struct str *octets)
{
    struct err err;
    if (layer_take(s->layer, *octets, octets, &err) == 0)
        return true;
    log_event(s->smtpd->ctx->log, LOG_LEVEL_WARNING, "smtpd.layer.failed", "session %s: %s", s->id, err_text(&err));
    lose(s);
    return false;
}

static void read_input(struct session *s)
{
    char *p = s->smtpd->scratch;
    for (int i = 0; i < READS_PER_TURN && !s->doomed; i++) {
        if (s->input.n || s->no_more_input || s->phase != SESSION_TALK || s->tls_wanted || s->layer_wanted)
            return;
        size_t n;
        enum input how = read_some(s, p, SMTPD_READ_BYTES, &n);
        if (how == INPUT_NONE_NOW)
            return;
        if (how != INPUT_SOME) {
            input_over(s, how);
            return;
        }
        s->octets_in += n;
        struct str plain = str_slice(p, n);
        if (s->layer && !unwrap_input(s, &plain))
            return;
        run(s, plain);
        if (!smtp_server_authenticated(s->machine))
            explicit_bzero(p, n); /* a password may have been among it */
        /* A short read has emptied the socket; TLS may hold more than the socket shows. */
        if (n < SMTPD_READ_BYTES && !s->doomed && !(s->tls && tls_pending(s->tls)))
            return;
    }
}

static void on_ready(void *arg, unsigned events)
{
    struct session *s = arg;
    s->running = true;
    if (s->phase == SESSION_HANDSHAKE) {
        handshake(s);
    } else {
        if (events & LOOP_WRITE)
            run(s, buf_str(&s->input));
        if (!s->doomed && ((events & LOOP_READ) || tls_holds_input(s)))
            read_input(s);
    }
    s->running = false;
    if (s->doomed)
        destroy(s);
}

/* ---- life ---- */

static void make_id(struct smtpd *smtpd, char ret_id[SMTPD_ID_BYTES])
{
    snprintf(ret_id, SMTPD_ID_BYTES, "%016llX", (unsigned long long)(smtpd->id_base + smtpd->id_count++));
}

static int make_machine(struct session *s)
{
    struct smtp_server_options options = {
        .hostname = str_of(s->server->conf->name), .banner = STR("Postern"), .limits = &s->server->limits,
        .auth_budget = &s->smtpd->auth_budget,
    };
    /* Also when this server keeps no log: SNI may name one that does. */
    options.trace = tell_trace;
    options.trace_arg = s;
    return smtp_server_new(&options, &s->machine);
}

/* Too many sessions: one line, without waiting for anything. */
static void turn_away(int fd, enum limit_session why)
{
    struct str line = why == LIMIT_SESSION_ALL
                          ? STR("421 4.3.2 Too many connections, try again later\r\n")
                          : STR("421 4.7.0 Too many connections from your address, try again later\r\n");
    (void)!send(fd, line.p, line.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    discard_unread(fd);
    close(fd);
}

static struct session *make_session(struct smtpd *smtpd, struct site_listener *listener, int fd,
                                    const unsigned char address[16], uint16_t port)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    struct err err;
    s->smtpd = smtpd;
    s->listener = listener;
    s->fd = fd;
    s->port = port;
    memcpy(s->address, address, sizeof s->address);
    s->phase = SESSION_TALK;
    make_id(smtpd, s->id);
    buf_init(&s->input, INPUT_MAX_BYTES);
    use_server(s, listener->server);
    if (make_machine(s) < 0 || loop_fd_new(smtpd->ctx->loop, fd, on_ready, s, &s->watch, &err) < 0) {
        smtp_server_free(s->machine);
        free(s);
        return NULL;
    }
    s->site = smtpd_site_ref(listener->site);
    s->begun_mono_ms = loop_now_ms(smtpd->ctx->loop);
    s->begun_wall_ms = now_wall_ms();
    s->next = smtpd->sessions;
    s->prev = &smtpd->sessions;
    if (s->next)
        s->next->prev = &s->next;
    smtpd->sessions = s;
    smtpd->n_sessions++;
    return s;
}

void session_begin(struct smtpd *smtpd, struct site_listener *listener, int fd, const unsigned char address[16],
                   uint16_t port)
{
    int slot;
    enum limit_session limit = shared_session_begin(smtpd->shared, listener->site->conf, address, &slot);
    if (limit != LIMIT_SESSION_OK) {
        turn_away(fd, limit);
        return;
    }
    struct session *s = make_session(smtpd, listener, fd, address, port);
    if (!s) {
        shared_session_end(smtpd->shared, slot);
        turn_away(fd, LIMIT_SESSION_ALL);
        return;
    }
    s->shared_slot = slot;
    s->running = true;
    if (listener->kind == CONF_SUBMISSIONS) {
        if (session_can_sign(s)) {
            begin_tls(s);
        } else { /* without keys there is no way to say anything on this port */
            log_event(smtpd->ctx->log, LOG_LEVEL_WARNING, "tls.failed", "%s: the keys process is not there",
                      listener->text);
            end(s);
        }
    } else {
        session_set_policy(s);
        smtp_server_greet(s->machine, s->begun_mono_ms);
        run(s, STR_NONE);
    }
    s->running = false;
    if (s->doomed)
        destroy(s);
}

void session_shutdown(struct session *s)
{
    if (s->phase == SESSION_HANDSHAKE) {
        end(s);
        return;
    }
    smtp_server_shutdown(s->machine);
    session_resume(s);
}

void session_sweep(struct session *s, int64_t now_ms)
{
    if (s->phase != SESSION_TALK || s->tls_wanted) {
        if (s->deadline_ms <= now_ms)
            end(s);
        return;
    }
    if (s->spare_wanted_since_ms && now_ms - s->spare_wanted_since_ms >= SPARE_WAIT_MS) {
        mail_spare_came(s, false);
        return;
    }
    if (s->owed_since_ms && now_ms - s->owed_since_ms >= ASK_MS) {
        smtpd_login_overdue(s);
        return;
    }
    if (smtp_server_deadline_ms(s->machine) > now_ms)
        return;
    smtp_server_timeout(s->machine, now_ms);
    session_resume(s);
}
