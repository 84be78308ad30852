/* Logins of clients. smtpd names the mechanism and passes responses on; here is decided who it is.
 *
 * Happy path: AUTH_START makes a session; each response takes a step of the mechanism (sasl/server.h); challenges go
 * back; questions to the user store go through verify.h; the end is one AUTH_DONE and one log event.
 * Ways to fail: a mechanism that may not be used here; an address that failed too often (before the exchange and again
 * at its end, so that a hundred connections at once get no more guesses than one); wrong credentials, whose answer waits
 * longer the more there were; a store that cannot be read. smtpd cancelling, or going away, ends the session. */

#include "base/arena.h"
#include "base/hash.h"
#include "daemon/auth/verify.h"
#include "io/now.h"
#include "sasl/server.h"

enum { SESSION_ARENA_MAX = 16 * 1024 };

struct session {
    struct auth_key key;
    UT_hash_handle hh;
    struct inbound *inbound;
    struct arena arena;             /* what smtpd said about the client, for the log */
    struct ipc_auth_start start;    /* strings in the arena; cert_hash, exporter and initial are not kept */
    struct sasl_server *sasl;
    struct verify *verify;          /* a question that runs */
    struct loop_timer *timer;       /* an answer that waits */
    struct buf answer;
};

/* Who exists, asked while the store was being written. */
struct query {
    struct query *next;
    struct inbound *inbound;
    struct auth_key key;
    struct verify *verify;
};

struct inbound {
    struct auth *auth;
    struct session *sessions;
    struct query *queries;
};

struct decision {
    enum ipc_auth_result result;
    uint16_t code;
    const char *enhanced, *text, *cause;
    uint32_t rights;
    struct str user;
};

int inbound_new(struct auth *auth, struct inbound **ret_inbound, struct err *err)
{
    *ret_inbound = calloc(1, sizeof **ret_inbound);
    if (!*ret_inbound)
        return err_errno(err, ENOMEM, "auth");
    (*ret_inbound)->auth = auth;
    return 0;
}

static void end_session(struct session *session)
{
    struct inbound *inbound = session->inbound;
    HASH_DEL(inbound->sessions, session);
    verify_drop(&session->verify);
    sasl_server_free(&session->sasl);
    loop_timer_free(&session->timer);
    buf_done(&session->answer);
    arena_done(&session->arena);
    free(session);
    auth_session_end(inbound->auth);
}

/* One event a decision; its fields and their names are what sites filter by. */
static void log_decision(struct log *log, const struct ipc_auth_start *start, const struct decision *d)
{
    static const char *const results[IPC_AUTH_RESULTS] = {
        [IPC_AUTH_ACCEPTED] = "accepted", [IPC_AUTH_REJECTED] = "rejected",
        [IPC_AUTH_TEMPORARY] = "temporary", [IPC_AUTH_CANCELLED] = "cancelled",
    };
    struct log_record record;
    bool accepted = d->result == IPC_AUTH_ACCEPTED;
    log_begin(&record, log, accepted ? LOG_LEVEL_INFO : LOG_LEVEL_NOTICE, accepted ? "auth.accept" : "auth.reject");
    log_str(&record, "server", start->server);
    log_str(&record, "client", start->client);
    log_int(&record, "port", start->port);
    log_str(&record, "helo", start->helo);
    log_str(&record, "user", d->user);
    log_str(&record, "mech", start->mechanism);
    log_str(&record, "tls", start->tls.n > 0 ? start->tls : STR("none"));
    log_cstr(&record, "result", results[d->result]);
    log_cstr(&record, "cause", d->cause);
    log_int(&record, "reply", d->code);
    log_str(&record, "session", start->session);
    log_end(&record);
}

static void put_decision(struct buf *b, const struct decision *d)
{
    struct ipc_auth_done done = { .result = d->result, .code = d->code, .rights = d->rights,
                                  .enhanced = str_of(d->enhanced), .text = str_of(d->text), .user = d->user,
                                  .cause = str_of(d->cause) };
    ipc_put_auth_done(b, &done);
}

static void send_answer(struct session *session)
{
    channel_send(session->key.peer->channel, IPC_AUTH_DONE, (uint32_t)session->key.id, buf_str(&session->answer));
    end_session(session);
}

static void on_delay_over(void *arg)
{
    send_answer(arg);
}

/* The end of a session: logged now, told now or after the delay. */
static void decide(struct session *session, const struct decision *d, int64_t delay_ms)
{
    struct auth *auth = session->inbound->auth;
    log_decision(auth->ctx->log, &session->start, d);
    put_decision(&session->answer, d);
    sasl_server_free(&session->sasl); /* d->user points into it */
    if (delay_ms > 0 && loop_timer_new(auth->ctx->loop, on_delay_over, session, &session->timer, NULL) == 0)
        loop_timer_set(session->timer, delay_ms);
    else
        send_answer(session);
}

static const struct decision locked_out = {
    .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "locked-out",
    .text = "Too many failed logins from your address, try again later",
};

static bool is_locked(struct auth *auth, struct str client)
{
    return auth_limits_locked(auth->limits, client, auth->ctx->conf->auth_failure_limit, loop_now_ms(auth->ctx->loop));
}

/* Counts a guess, and says how long its answer waits. */
static int64_t count_failure(struct auth *auth, const struct ipc_auth_start *start)
{
    bool now_locked;
    uint32_t limit = auth->ctx->conf->auth_failure_limit;
    int64_t delay = auth_limits_failed(auth->limits, start->client, limit, loop_now_ms(auth->ctx->loop), &now_locked);
    if (now_locked) {
        struct log_record record;
        log_begin(&record, auth->ctx->log, LOG_LEVEL_WARNING, "auth.lockout");
        log_str(&record, "server", start->server);
        log_str(&record, "client", start->client);
        log_int(&record, "failures", limit);
        log_int(&record, "minutes", LIMITS_WINDOW_MINUTES);
        log_end(&record);
    }
    return delay;
}

/* A failure in which nothing was guessed (a client cut off from channel binding, a right that is not there) does not
 * count towards a lockout. */
static bool is_guess(enum sasl_cause cause)
{
    switch (cause) {
    case SASL_CAUSE_MALFORMED:
    case SASL_CAUSE_EMPTY_USER:
    case SASL_CAUSE_EMPTY_PASSWORD:
    case SASL_CAUSE_BAD_USER_NAME:
    case SASL_CAUSE_BAD_PASSWORD:
    case SASL_CAUSE_UNKNOWN_USER:
        return true;
    default:
        return false;
    }
}

/* While the exchange went on, others from there may have used up the guesses: then neither a right nor a wrong
 * password is told apart. */
static bool end_when_locked(struct session *session, struct str user)
{
    if (!is_locked(session->inbound->auth, session->start.client))
        return false;
    struct decision d = locked_out;
    d.user = user;
    decide(session, &d, 0);
    return true;
}

static void fail(struct session *session, const struct sasl_step *step, const char *cause)
{
    if (is_guess(step->cause) && end_when_locked(session, step->authcid))
        return;
    const struct sasl_failure *failure = sasl_failure_of(step->cause);
    struct decision d = {
        .result = failure->code / 100 == 4 ? IPC_AUTH_TEMPORARY : IPC_AUTH_REJECTED, .code = failure->code,
        .enhanced = failure->enhanced, .text = failure->text, .cause = cause ? cause : failure->cause,
        .user = step->authcid,
    };
    decide(session, &d, is_guess(step->cause) ? count_failure(session->inbound->auth, &session->start) : 0);
}

/* Proven. Every user may submit and relay; to act as somebody else is a right that nobody has. */
static void accept_user(struct session *session, const struct sasl_step *step)
{
    if (end_when_locked(session, step->authcid))
        return;
    if (!str_eq(step->authcid, step->authzid)) {
        struct sasl_step failed = *step;
        failed.cause = SASL_CAUSE_AUTHZID;
        fail(session, &failed, NULL);
        return;
    }
    struct decision d = {
        .result = IPC_AUTH_ACCEPTED, .code = 235, .enhanced = "2.7.0", .text = "Authentication successful",
        .cause = "none", .rights = IPC_RIGHT_SUBMIT | IPC_RIGHT_RELAY, .user = step->authcid,
    };
    decide(session, &d, 0);
}

static void go_on(struct session *session, enum sasl_action action, struct sasl_step *step);

static void take_answer(struct session *session, const struct verify_answer *answer)
{
    struct sasl_step step;
    enum sasl_action action;
    if (sasl_server_waits_for_verifier(session->sasl))
        action = sasl_server_verifier(session->sasl, answer->verdict, answer->verifier, &step);
    else
        action = sasl_server_checked(session->sasl, answer->verdict, &step);
    if (action == SASL_FAILED && answer->verdict == SASL_CANNOT_TELL)
        fail(session, &step, answer->cause);
    else
        go_on(session, action, &step);
}

static void on_answer(void *arg, const struct verify_answer *answer)
{
    struct session *session = arg;
    session->verify = NULL;
    take_answer(session, answer);
}

static void ask(struct session *session, enum verify_what what, const struct sasl_step *step)
{
    struct verify_answer answer;
    if (verify_ask(session->inbound->auth, what, step->authcid, step->password, on_answer, session, &session->verify,
                   &answer))
        take_answer(session, &answer);
}

static void go_on(struct session *session, enum sasl_action action, struct sasl_step *step)
{
    switch (action) {
    case SASL_CHALLENGE:
        channel_send(session->key.peer->channel, IPC_AUTH_CHALLENGE, (uint32_t)session->key.id, step->challenge);
        return;
    case SASL_CHECK_PASSWORD:
        ask(session, VERIFY_PASSWORD, step);
        return;
    case SASL_NEED_VERIFIER:
        ask(session, VERIFY_FIND, step);
        return;
    case SASL_DONE:
        accept_user(session, step);
        return;
    case SASL_FAILED:
        fail(session, step, NULL);
        return;
    }
}

/* What ends an exchange before it begins; NULL: nothing. */
static const struct decision *refuse_at_start(struct auth *auth, const struct ipc_auth_start *start,
                                              const struct sasl_mechanism *mechanism)
{
    static const struct decision unknown = {
        .result = IPC_AUTH_REJECTED, .code = 504, .enhanced = "5.5.4", .cause = "mechanism-not-offered",
        .text = "This authentication mechanism is not offered here",
    };
    static const struct decision cleartext = {
        .result = IPC_AUTH_REJECTED, .code = 538, .enhanced = "5.7.11", .cause = "encryption-required",
        .text = "This mechanism needs encryption: use STARTTLS first",
    };
    static const struct decision ending = {
        .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "busy",
        .text = "Temporary authentication failure",
    };
    if (!mechanism || !mechanism->server || !sasl_list_has(start->offered, start->mechanism))
        return &unknown;
    if ((mechanism->flags & SASL_CLEARTEXT) && !(start->flags & (IPC_AUTH_FLAG_TLS | IPC_AUTH_FLAG_PLAINTEXT)))
        return &cleartext;
    if (is_locked(auth, start->client))
        return &locked_out;
    return auth->draining || auth->n_sessions >= AUTH_SESSIONS_MAX ? &ending : NULL;
}

static bool keep_start(struct session *session, const struct ipc_auth_start *start)
{
    struct ipc_auth_start *keep = &session->start;
    const struct str *from[] = { &start->mechanism, &start->server, &start->client, &start->helo, &start->session, &start->tls };
    struct str *to[] = { &keep->mechanism, &keep->server, &keep->client, &keep->helo, &keep->session, &keep->tls };
    keep->port = start->port;
    keep->flags = start->flags;
    arena_init(&session->arena, SESSION_ARENA_MAX);
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        *to[i] = arena_copy(&session->arena, *from[i]);
        if (!to[i]->p)
            return false;
    }
    return true;
}

static struct sasl_server *new_exchange(const struct sasl_mechanism *mechanism, const struct ipc_auth_start *start)
{
    unsigned char octets[SASL_NONCE_BYTES];
    char nonce[SASL_NONCE_TEXT + 1];
    now_random(octets, sizeof octets);
    if (!sasl_nonce_text(octets, nonce))
        return NULL;
    struct sasl_server_options options = {
        .binding = { .cert_hash = start->cert_hash, .exporter = start->exporter },
        .plus_offered = sasl_list_has(start->offered, STR("SCRAM-SHA-256-PLUS")),
        .nonce = str_of(nonce),
    };
    return sasl_server_new(mechanism, &options);
}

static struct session *new_session(struct inbound *inbound, struct auth_key key, const struct ipc_auth_start *start,
                                   const struct sasl_mechanism *mechanism)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session || !auth_session_begin(inbound->auth)) {
        free(session);
        return NULL;
    }
    session->inbound = inbound;
    session->key = key;
    buf_init(&session->answer, CHANNEL_BODY_MAX);
    HASH_ADD(hh, inbound->sessions, key, sizeof session->key, session);
    if (!hash_has(session)) {
        auth_session_end(inbound->auth);
        free(session);
        return NULL;
    }
    session->sasl = new_exchange(mechanism, start);
    if (!keep_start(session, start) || !session->sasl) {
        end_session(session);
        return NULL;
    }
    return session;
}

static struct session *find_session(struct inbound *inbound, struct auth_key key)
{
    struct session *session = NULL;
    HASH_FIND(hh, inbound->sessions, &key, sizeof key, session);
    return session;
}

static bool take_start(struct inbound *inbound, struct auth_key key, struct str body)
{
    static const struct decision no_memory = {
        .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "internal",
        .text = "Temporary authentication failure",
    };
    struct ipc_auth_start start;
    if (!ipc_get_auth_start(body, &start))
        return false;
    struct session *before = find_session(inbound, key);
    if (before)
        end_session(before);
    const struct sasl_mechanism *mechanism = sasl_mechanism_find(start.mechanism);
    if (mechanism)
        start.mechanism = str_of(mechanism->name); /* not as the client spelt it */
    const struct decision *refusal = refuse_at_start(inbound->auth, &start, mechanism);
    struct session *session = refusal ? NULL : new_session(inbound, key, &start, mechanism);
    if (!session) {
        const struct decision *d = refusal ? refusal : &no_memory;
        struct buf b;
        buf_init(&b, CHANNEL_BODY_MAX);
        log_decision(inbound->auth->ctx->log, &start, d);
        put_decision(&b, d);
        channel_send(key.peer->channel, IPC_AUTH_DONE, (uint32_t)key.id, buf_str(&b));
        buf_done(&b);
        return true;
    }
    struct sasl_step step;
    bool initial = (start.flags & IPC_AUTH_FLAG_INITIAL) != 0;
    go_on(session, sasl_server_step(session->sasl, initial, initial ? start.initial : STR_NONE, &step), &step);
    return true;
}

static void take_step(struct session *session, struct str body)
{
    struct sasl_step step;
    if (session->verify || session->timer)
        return; /* out of turn: what runs is answered, and nothing more */
    go_on(session, sasl_server_step(session->sasl, true, body, &step), &step);
}

static void cancel(struct session *session)
{
    if (!session->timer) {
        struct decision d = { .result = IPC_AUTH_CANCELLED, .code = 501, .cause = "cancelled",
                              .user = sasl_server_authcid(session->sasl) };
        log_decision(session->inbound->auth->ctx->log, &session->start, &d);
    }
    end_session(session);
}

static void send_existence(struct auth_key key, const struct verify_answer *answer)
{
    char word = answer->verdict == SASL_RIGHT ? 1 : answer->verdict == SASL_UNKNOWN_USER ? 0 : 2;
    channel_send(key.peer->channel, IPC_USER_ANSWER, (uint32_t)key.id, str_slice(&word, 1));
}

static void end_query(struct query *query)
{
    for (struct query **at = &query->inbound->queries; *at; at = &(*at)->next) {
        if (*at == query) {
            *at = query->next;
            break;
        }
    }
    verify_drop(&query->verify);
    free(query);
}

static void on_existence(void *arg, const struct verify_answer *answer)
{
    struct query *query = arg;
    query->verify = NULL;
    send_existence(query->key, answer);
    end_query(query);
}

static void take_query(struct inbound *inbound, struct auth_key key, struct str body)
{
    struct verify_answer answer = { .verdict = SASL_UNKNOWN_USER };
    struct query *query = body.n > 0 && body.n <= SASL_USER_MAX ? calloc(1, sizeof *query) : NULL;
    if (!query) { /* longer than any name */
        send_existence(key, &answer);
        return;
    }
    *query = (struct query){ .inbound = inbound, .key = key, .next = inbound->queries };
    inbound->queries = query;
    if (verify_ask(inbound->auth, VERIFY_EXISTS, body, STR_NONE, on_existence, query, &query->verify, &answer))
        on_existence(query, &answer);
}

bool inbound_message(struct inbound *inbound, struct auth_peer *peer, unsigned type, uint32_t id, struct str body)
{
    struct auth_key key = { .peer = peer, .id = id };
    struct session *session = find_session(inbound, key);
    switch (type) {
    case IPC_AUTH_START:
        return take_start(inbound, key, body);
    case IPC_AUTH_STEP:
        if (session)
            take_step(session, body);
        return true;
    case IPC_AUTH_CANCEL:
        if (session)
            cancel(session);
        return true;
    case IPC_USER_QUERY:
        take_query(inbound, key, body);
        return true;
    default:
        return false;
    }
}

void inbound_peer_gone(struct inbound *inbound, struct auth_peer *peer)
{
    if (!inbound)
        return;
    struct session *session, *next_session;
    HASH_ITER(hh, inbound->sessions, session, next_session)
        if (session->key.peer == peer)
            end_session(session);
    for (struct query *query = inbound->queries, *next; query; query = next) {
        next = query->next;
        if (query->key.peer == peer)
            end_query(query);
    }
}

void inbound_free(struct inbound **inbound)
{
    if (!*inbound)
        return;
    while ((*inbound)->sessions)
        end_session((*inbound)->sessions);
    while ((*inbound)->queries)
        end_query((*inbound)->queries);
    free(*inbound);
    *inbound = NULL;
}
