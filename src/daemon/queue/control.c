/* control: conversations on the control socket (docs/control.md). Happy path: a connection is accepted, the kernel says who
 * it is, one line is read, answered, and the connection closed. Long answers are made while the client takes them.
 * Ways to fail: too many conversations or a silent client (ended), a malformed request (65 or 64), no right (77), a
 * client that goes away while the spool or master is still at work (the work goes on, its answer is dropped).
 * While the queue is draining nothing is answered any more: sendmail then uses the drop folder. */
#include "daemon/queue/control.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    CONVERSATIONS_MAX = 64,
    CONVERSATIONS_OTHERS_MAX = 48,         /* of users who may only submit: root gets a word in */
    CONVERSATIONS_USER_MAX = 16,
    ACCEPTS_A_TURN = 16,
    READ_BYTES = 64 * 1024,
    OUT_MAX_BYTES = 32 << 20,
    OUT_ENOUGH_BYTES = 256 * 1024,         /* more is made when this was taken */
    IDLE_MS = 30000,
    REQUEST_MS = 600000,                   /* a request must be complete within */
    WAIT_MS = 110000,                      /* the client waits for 120 s */
    ACCEPT_AGAIN_MS = 1000,
    UNTIL_SCANNED_MS = 100,
};
static const size_t content_total_max_bytes = (size_t)256 << 20; /* of all conversations */

struct control {
    struct queue *queue;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *again; /* accept was impossible, or the spool is still being read */
    LIST_HEAD(, conversation) conversations;
    unsigned n;
    size_t content_bytes;
    uint32_t last_id;
};

/* A message between submit_store() and its answer; outlives its conversation. */
struct handed_over {
    struct conversation *conversation; /* NULL: it is gone */
};

/* ---- life of a conversation ---- */

static void release_content(struct conversation *c)
{
    c->control->content_bytes -= c->request.size_bytes;
    submit_request_done(&c->request);
    json_decref(c->request_json);
    c->request_json = NULL;
    buf_done(&c->in);
}

static void conversation_free(struct conversation *c)
{
    struct control *control = c->control;
    if (c->handed_over)
        c->handed_over->conversation = NULL;
    recipients_cancel(&c->question);
    release_content(c);
    answer_free(&c->walk);
    loop_fd_free(&c->watch);
    loop_timer_free(&c->deadline);
    close(c->fd);
    buf_done(&c->out);
    LIST_REMOVE(c, entry);
    if (control->n-- == CONVERSATIONS_MAX)
        loop_fd_want(control->watch, LOOP_READ);
    free(c);
}

/* What the descriptor is watched for, and how long, in each state. */
static void enter(struct conversation *c, enum conversation_state state)
{
    static const struct {
        unsigned want;
        int64_t limit_ms;
    } rules[] = {
        [CONVERSATION_LINE] = { LOOP_READ, IDLE_MS },  [CONVERSATION_CONTENT] = { LOOP_READ, IDLE_MS },
        [CONVERSATION_WALK] = { LOOP_WRITE, IDLE_MS }, [CONVERSATION_WAIT] = { 0, WAIT_MS },
        [CONVERSATION_END] = { LOOP_WRITE, IDLE_MS },
    };
    c->state = state;
    loop_fd_want(c->watch, rules[state].want);
    loop_timer_set(c->deadline, rules[state].limit_ms);
}

/* ---- answers ---- */

void control_say(struct conversation *c, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text || !buf_add(&c->out, str_of(text)) || !buf_add_char(&c->out, '\n')) {
        c->out.failed = true;
        enter(c, CONVERSATION_END);
    }
    free(text);
}

void control_done(struct conversation *c, json_t *more)
{
    json_t *last = json_pack("{s:b,s:b}", "done", 1, "ok", 1);
    if (last && more)
        json_object_update(last, more);
    json_decref(more);
    control_say(c, last);
    enter(c, CONVERSATION_END);
}

static void refuse(struct conversation *c, int exit_status, const char *text, json_t *mistakes)
{
    json_t *last = json_pack("{s:b,s:b,s:i}", "done", 1, "ok", 0, "exit", exit_status);
    json_object_set_new(last, "error", answer_text(str_of(text)));
    if (mistakes)
        json_object_set_new(last, "mistakes", mistakes);
    control_say(c, last);
    enter(c, CONVERSATION_END);
}

void control_refuse(struct conversation *c, int exit_status, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    refuse(c, exit_status, text, NULL);
}

void control_walk(struct conversation *c)
{
    enter(c, CONVERSATION_WALK);
}

/* ---- reload ---- */

void control_reload(struct conversation *c)
{
    struct control *control = c->control;
    if (++control->last_id == 0)
        control->last_id = 1;
    struct channel *master = c->queue->ctx->master;
    if (!master || channel_send(master, IPC_RELOAD, control->last_id, STR_NONE) < 0) {
        control_refuse(c, EX_TEMPFAIL, "the queue cannot reach the master process; try again later");
        return;
    }
    c->reload_id = control->last_id;
    enter(c, CONVERSATION_WAIT);
}

void control_reloaded(struct queue *q, uint32_t id, const struct ipc_reloaded *answer)
{
    struct conversation *c = NULL;
    if (!q->control || id == 0)
        return;
    LIST_FOREACH(c, &q->control->conversations, entry) {
        if (c->reload_id == id)
            break;
    }
    if (!c)
        return; /* it did not wait */
    c->reload_id = 0;
    if (answer->result == IPC_RELOAD_DONE)
        control_done(c, answer->text.n ? json_pack("{s:o}", "warnings", answer_text(answer->text)) : NULL);
    else if (answer->result == IPC_RELOAD_REFUSED)
        refuse(c, EX_CONFIG, "the configuration has mistakes; nothing was changed", answer_text(answer->text));
    else
        control_refuse(c, EX_TEMPFAIL, "%.*s", (int)(answer->text.n < 900 ? answer->text.n : 900), answer->text.p);
}

/* ---- submit ---- */

static void submitted(void *arg, int exit_status, uint64_t id, const char *text)
{
    struct handed_over *h = arg;
    struct conversation *c = h->conversation;
    free(h);
    if (!c)
        return;
    c->handed_over = NULL;
    if (exit_status == EX_OK) {
        char queue_id[SPOOL_ID_TEXT_BYTES];
        spool_id_format(id, queue_id);
        control_done(c, json_pack("{s:s}", "queue_id", queue_id));
    } else if (c->queue->draining) {
        enter(c, CONVERSATION_END);
    } else {
        control_refuse(c, exit_status, "%s", text);
    }
}

static void hand_over(struct conversation *c)
{
    struct handed_over *h = calloc(1, sizeof *h);
    if (!h) {
        control_refuse(c, EX_TEMPFAIL, "no memory for a message; try again later");
        return;
    }
    h->conversation = c;
    c->handed_over = h;
    enter(c, CONVERSATION_WAIT);
    struct submit_message m = {
        .sender = c->request.sender, .recipient = c->request.recipient, .n_recipients = c->request.n_recipients,
        .content = str_slice(c->in.p, (size_t)c->request.size_bytes), .uid = c->uid,
    };
    submit_store(c->queue, &m, submitted, h);
    release_content(c);
}

static void take_content(struct conversation *c)
{
    if (c->in.n >= c->request.size_bytes)
        hand_over(c);
    else
        enter(c, CONVERSATION_CONTENT);
}

static void on_recipients(void *arg, enum recipients_answer answer, const bool *unknown)
{
    struct conversation *c = arg;
    size_t first = 0;
    c->question = NULL;
    while (answer == RECIPIENTS_UNKNOWN && !unknown[first])
        first++;
    switch (answer) {
    case RECIPIENTS_EXIST: take_content(c); break;
    case RECIPIENTS_UNKNOWN:
        control_refuse(c, EX_DATAERR, "there is no <%s> here: 5.1.1 no such user", submit_shown(c->request.recipient[first]).text);
        break;
    case RECIPIENTS_NOT_NOW:
        control_refuse(c, EX_TEMPFAIL, "whether the recipients exist cannot be looked up at this moment; try again later");
        break;
    }
}

/* `json` is the conversation's from here on. */
static void begin_submit(struct conversation *c, json_t *json)
{
    const struct conf *conf = c->queue->ctx->conf;
    struct control *control = c->control;
    struct err err = { 0 };
    c->request_json = json;
    if (c->queue->paused_in) {
        control_refuse(c, EX_TEMPFAIL, "taking mail in is paused (postern resume in); try again later");
        return;
    }
    struct submit_request request;
    int rc = submit_request_read(json, conf, &request, &err);
    if (rc < 0) {
        control_refuse(c, rc == -ENOMEM ? EX_TEMPFAIL : EX_DATAERR, "%s", err_text(&err));
        return;
    }
    size_t most = conf->max_message_size > content_total_max_bytes ? conf->max_message_size : content_total_max_bytes;
    if (request.size_bytes > most - control->content_bytes) {
        submit_request_done(&request);
        control_refuse(c, EX_TEMPFAIL, "too many large messages are being handed over; try again later");
        return;
    }
    c->request = request;
    control->content_bytes += request.size_bytes;
    c->in.max = (size_t)request.size_bytes + READ_BYTES + SUBMIT_LINE_MAX_BYTES;
    enter(c, CONVERSATION_WAIT);
    c->question = recipients_ask(c->queue, request.recipient, request.n_recipients, on_recipients, c);
    if (!c->question)
        control_refuse(c, EX_TEMPFAIL, "no memory for a message; try again later");
}

/* ---- requests ---- */

static void begin_request(struct conversation *c, size_t line_bytes)
{
    json_error_t error;
    json_t *json = json_loadb(c->in.p, line_bytes, JSON_REJECT_DUPLICATES, &error);
    const char *verb = json_string_value(json_object_get(json, "verb"));
    buf_consume(&c->in, line_bytes + 1);
    if (!json_is_object(json) || !verb) {
        control_refuse(c, json ? EX_USAGE : EX_DATAERR, "the request is no JSON object with a verb%s%s (docs/control.md)",
                       json ? "" : ": ", json ? "" : error.text);
    } else if (strcmp(verb, "submit") == 0) {
        begin_submit(c, json);
        return;
    } else if (!c->admin) {
        control_refuse(c, EX_NOPERM, "only root and the user that the daemon runs as may do this; run it with sudo");
    } else {
        answer_begin(c, verb, json);
    }
    json_decref(json);
}

static void look_for_line(struct conversation *c)
{
    struct str rest = str_skip(buf_str(&c->in), c->looked);
    size_t at = str_find(rest, '\n');
    if (at < rest.n && c->looked + at <= SUBMIT_LINE_MAX_BYTES) {
        begin_request(c, c->looked + at);
        return;
    }
    c->looked = c->in.n;
    if (c->in.n > SUBMIT_LINE_MAX_BYTES)
        control_refuse(c, EX_DATAERR, "the request's line is longer than %d octets", SUBMIT_LINE_MAX_BYTES);
}

/* False: the conversation is over. */
static bool receive(struct conversation *c)
{
    size_t room = READ_BYTES;
    if (c->state == CONVERSATION_CONTENT && c->request.size_bytes - c->in.n < room)
        room = (size_t)(c->request.size_bytes - c->in.n);
    char *to = buf_reserve(&c->in, room);
    if (!to) {
        control_refuse(c, EX_TEMPFAIL, "no memory for a request; try again later");
        return true;
    }
    ssize_t n = recv(c->fd, to, room, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0 || loop_now_ms(c->queue->ctx->loop) - c->begun_ms > REQUEST_MS)
        return false;
    c->in.n += (size_t)n;
    loop_timer_set(c->deadline, IDLE_MS);
    if (c->state == CONVERSATION_LINE)
        look_for_line(c);
    else if (c->in.n == c->request.size_bytes)
        hand_over(c);
    return true;
}

static bool transmit(struct conversation *c)
{
    if (c->state == CONVERSATION_WALK && c->out.n < OUT_ENOUGH_BYTES) {
        answer_more(c);
        loop_timer_set(c->deadline, IDLE_MS);
    }
    if (c->out.failed)
        return false;
    if (c->out.n) {
        ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        buf_consume(&c->out, (size_t)n);
        loop_timer_set(c->deadline, IDLE_MS);
    }
    return c->out.n || c->state != CONVERSATION_END;
}

static void on_ready(void *arg, unsigned events)
{
    struct conversation *c = arg;
    bool reads = c->state == CONVERSATION_LINE || c->state == CONVERSATION_CONTENT;
    bool goes_on = reads ? receive(c) : transmit(c);
    (void)events;
    if (!goes_on)
        conversation_free(c);
}

static void on_deadline(void *arg)
{
    struct conversation *c = arg;
    if (c->state != CONVERSATION_WAIT) {
        conversation_free(c);
        return;
    }
    if (c->handed_over)
        c->handed_over->conversation = NULL;
    c->handed_over = NULL;
    c->reload_id = 0;
    recipients_cancel(&c->question);
    control_refuse(c, EX_TEMPFAIL, "no answer came within %d s; it may still be done", WAIT_MS / 1000);
}

/* ---- accepting ---- */

static int conversation_new(struct control *control, int fd, unsigned uid, struct conversation **ret)
{
    struct conversation *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    struct loop *loop = control->queue->ctx->loop;
    *c = (struct conversation){ .control = control, .queue = control->queue, .fd = fd, .uid = uid,
                                .admin = uid == 0 || uid == geteuid(), .begun_ms = loop_now_ms(loop) };
    buf_init(&c->in, SUBMIT_LINE_MAX_BYTES + 2 * READ_BYTES);
    buf_init(&c->out, OUT_MAX_BYTES);
    int rc = loop_fd_new(loop, fd, on_ready, c, &c->watch, NULL);
    if (rc == 0)
        rc = loop_timer_new(loop, on_deadline, c, &c->deadline, NULL);
    if (rc < 0) {
        loop_fd_free(&c->watch);
        free(c);
        return rc;
    }
    LIST_INSERT_HEAD(&control->conversations, c, entry);
    control->n++;
    enter(c, CONVERSATION_LINE);
    *ret = c;
    return 0;
}

static bool has_room_for(const struct control *control, unsigned uid)
{
    unsigned others = 0, own = 0;
    const struct conversation *c;
    if (uid == 0 || uid == geteuid())
        return true;
    LIST_FOREACH(c, &control->conversations, entry) {
        others += !c->admin;
        own += c->uid == uid;
    }
    return others < CONVERSATIONS_OTHERS_MAX && own < CONVERSATIONS_USER_MAX;
}

static void converse(struct control *control, int fd)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    struct conversation *c;
    if (control->queue->draining || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || n != sizeof peer) {
        close(fd);
        return;
    }
    if (!has_room_for(control, peer.uid)) {
        static const char busy[] = "{\"done\":true,\"ok\":false,\"exit\":75,\"error\":\"too many conversations at the "
                                   "control socket; try again later\"}\n";
        (void)!send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL);
        close(fd);
    } else if (conversation_new(control, fd, peer.uid, &c) < 0) {
        close(fd);
    }
}

static void on_connections(void *arg, unsigned events)
{
    struct control *control = arg;
    (void)events;
    if (!control->queue->scanned) { /* nobody is told of a queue that is only half known; they wait in the backlog */
        loop_fd_want(control->watch, 0);
        loop_timer_set(control->again, UNTIL_SCANNED_MS);
        return;
    }
    for (unsigned i = 0; i < ACCEPTS_A_TURN && control->n < CONVERSATIONS_MAX; i++) {
        int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            converse(control, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN) { /* no descriptors or memory: it would be ready for ever */
            log_event(control->queue->ctx->log, LOG_LEVEL_ERROR, "queue.control.failed",
                      "cannot accept a connection to the control socket: %s", strerror(errno));
            loop_fd_want(control->watch, 0);
            loop_timer_set(control->again, ACCEPT_AGAIN_MS);
        }
        break;
    }
    if (control->n >= CONVERSATIONS_MAX)
        loop_fd_want(control->watch, 0); /* conversation_free() goes on */
}

static void accept_again(void *arg)
{
    struct control *control = arg;
    if (control->n < CONVERSATIONS_MAX)
        loop_fd_want(control->watch, LOOP_READ);
}

int control_start(struct queue *q, int listening_fd, struct err *err)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return err_set(err, -ENOMEM, "no memory for the control socket");
    control->queue = q;
    control->fd = listening_fd;
    LIST_INIT(&control->conversations);
    int rc = loop_fd_new(q->ctx->loop, listening_fd, on_connections, control, &control->watch, err);
    if (rc == 0)
        rc = loop_timer_new(q->ctx->loop, accept_again, control, &control->again, err);
    if (rc < 0) {
        loop_fd_free(&control->watch);
        free(control);
        return rc;
    }
    loop_fd_want(control->watch, LOOP_READ);
    q->control = control;
    return 0;
}

void control_free(struct queue *q)
{
    struct control *control = q->control;
    q->control = NULL;
    if (!control)
        return;
    struct conversation *c;
    while ((c = LIST_FIRST(&control->conversations)) != NULL)
        conversation_free(c);
    loop_fd_free(&control->watch);
    loop_timer_free(&control->again);
    free(control);
}
