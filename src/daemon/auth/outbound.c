/* Logins at next hops, with the credentials of a domain block. delivery sees the octets that go over the wire and
 * nothing else: the password stays here.
 *
 * Happy path: LOGIN_START picks the mechanism and gives the first response; each LOGIN_STEP answers a challenge; delivery
 * cancels when the next hop has answered 235 (believed only after a response with `complete`) or anything else.
 * Ways to fail: no such block, no password, no mechanism that both sides can (the sentence says why each was skipped), a
 * server that does not prove itself: LOGIN_FAILED, and the delivery is deferred.
 * A step of SCRAM costs the server's choice of iterations, up to half a second: it runs on a worker thread. */
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/secret.h"
#include "base/hash.h"
#include "daemon/auth/auth.h"
#include "io/now.h"
#include "sasl/client.h"

struct credential {
    struct credential *next;
    struct secret *password;
    char domain[];
};

struct login {
    struct auth_key key;
    UT_hash_handle hh;
    struct outbound *outbound;
    const struct sasl_mechanism *mechanism;
    struct sasl_client *client;
    struct step_job *job;      /* a step on a thread; it has the client meanwhile */
};

struct step_job {
    struct worker_job job;
    struct login *login;       /* NULL: nobody waits any more; the loop's */
    atomic_bool dropped;
    struct sasl_client *client;
    struct buf challenge;
    int64_t deadline_mono_ms;
    struct str response;       /* in the client */
    int rc;
    struct err err;
};

struct outbound {
    struct auth *auth;
    struct login *logins;
    struct credential *credentials, *next_credentials;
};

int outbound_new(struct auth *auth, struct outbound **ret_outbound, struct err *err)
{
    *ret_outbound = calloc(1, sizeof **ret_outbound);
    if (!*ret_outbound)
        return err_errno(err, ENOMEM, "auth");
    (*ret_outbound)->auth = auth;
    return 0;
}

static void free_credentials(struct credential **list)
{
    while (*list) {
        struct credential *credential = *list;
        *list = credential->next;
        secret_free(&credential->password);
        free(credential);
    }
}

/* The first line of the file, without its end. The buffer is ours, because a growing one would leave copies. */
static struct secret *read_password(int fd)
{
    char text[SASL_PASSWORD_MAX + 2];
    size_t n = 0;
    while (n < sizeof text) {
        ssize_t got = pread(fd, text + n, sizeof text - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    struct str rest = str_slice(text, n), line;
    str_cut(&rest, '\n', &line);
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    struct secret *password = line.n > 0 && line.n <= SASL_PASSWORD_MAX ? secret_new(line) : NULL;
    secret_wipe(text, sizeof text);
    return password;
}

void outbound_password_file(struct outbound *outbound, struct str domain, int fd)
{
    struct secret *password = read_password(fd);
    close(fd);
    struct credential *credential = password ? calloc(1, sizeof *credential + domain.n + 1) : NULL;
    if (!credential || !str_copy(domain, credential->domain, domain.n + 1)) {
        log_event(outbound->auth->ctx->log, LOG_LEVEL_ERROR, "auth.password.unusable",
                  "domain \"%.*s\": the first line of the password_file is empty or longer than %d octets",
                  STR_ARG(domain), SASL_PASSWORD_MAX);
        secret_free(&password);
        free(credential);
        return;
    }
    credential->password = password;
    credential->next = outbound->next_credentials;
    outbound->next_credentials = credential;
}

void outbound_configured(struct outbound *outbound)
{
    free_credentials(&outbound->credentials);
    outbound->credentials = outbound->next_credentials;
    outbound->next_credentials = NULL;
}

static struct str find_password(const struct outbound *outbound, struct str domain)
{
    for (const struct credential *c = outbound->credentials; c; c = c->next)
        if (str_eq(str_of(c->domain), domain))
            return secret_bytes(c->password);
    return STR_NONE;
}

static const struct conf_domain *find_domain(const struct conf *conf, struct str name)
{
    for (size_t i = 0; i < conf->n_domains; i++)
        if (str_eq(str_of(conf->domain[i].name), name))
            return &conf->domain[i];
    return NULL;
}

/* Why not this one; NULL: it will do. */
static const char *why_not(const struct sasl_mechanism *mechanism, const struct ipc_login_start *start)
{
    if (!mechanism->client)
        return "is not known here";
    if (!sasl_list_has(start->offered, str_of(mechanism->name)))
        return "is not offered";
    if ((mechanism->flags & SASL_BINDING) && start->cert_hash.n == 0 && start->exporter.n == 0)
        return "has no TLS channel to bind to";
    if ((mechanism->flags & SASL_CLEARTEXT) && !(start->flags & IPC_AUTH_FLAG_TLS))
        return "would show the password without TLS";
    return NULL;
}

/* The mechanism that the block names, or with "auto" the strongest that both sides can. */
static const struct sasl_mechanism *choose(const struct conf_domain *block, const struct ipc_login_start *start,
                                           struct err *err)
{
    struct buf reasons;
    const struct sasl_mechanism *mechanism = NULL;
    bool any = str_eq_nocase(str_of(block->auth), STR("auto"));
    buf_init(&reasons, sizeof err->text / 2);
    for (size_t i = 0; !mechanism && sasl_mechanism_at(i); i++) {
        const struct sasl_mechanism *candidate = sasl_mechanism_at(i);
        if (!any && !str_eq_nocase(str_of(block->auth), str_of(candidate->name)))
            continue;
        const char *reason = why_not(candidate, start);
        if (!reason)
            mechanism = candidate;
        else
            buf_addf(&reasons, "%s%s %s", reasons.n ? ", " : "", candidate->name, reason);
    }
    if (!mechanism && reasons.n == 0)
        err_set(err, ERR_AUTH, "domain \"%s\": auth = \"%s\" is no mechanism that is known here", block->name, block->auth);
    else if (!mechanism)
        err_set(err, ERR_AUTH, "cannot log in at %.*s: %.*s (it offers: %.*s)", STR_ARG(start->host), STR_ARG(buf_str(&reasons)),
                start->offered.n < 120 ? (int)start->offered.n : 120, start->offered.n ? start->offered.p : "");
    buf_done(&reasons);
    return mechanism;
}

static int new_client(struct outbound *outbound, const struct ipc_login_start *start,
                      const struct sasl_mechanism **ret_mechanism, struct sasl_client **ret_client, struct err *err)
{
    const struct conf_domain *block = find_domain(outbound->auth->ctx->conf, start->domain);
    if (!block || !block->auth)
        return err_set(err, ERR_AUTH, "domain \"%.*s\" has no auth", STR_ARG(start->domain));
    struct str password = find_password(outbound, start->domain);
    if (!block->user || password.n == 0)
        return err_set(err, ERR_AUTH, "domain \"%s\" has auth, but no user or no usable password_file", block->name);
    *ret_mechanism = choose(block, start, err);
    if (!*ret_mechanism)
        return ERR_AUTH;
    unsigned char octets[SASL_NONCE_BYTES];
    char nonce[SASL_NONCE_TEXT + 1];
    now_random(octets, sizeof octets);
    if (!sasl_nonce_text(octets, nonce))
        return err_errno(err, ENOMEM, "auth");
    struct sasl_client_options options = {
        .user = str_of(block->user), .password = password, .nonce = str_of(nonce),
        .binding = { .cert_hash = start->cert_hash, .exporter = start->exporter },
        .server_offers_plus = sasl_list_has(start->offered, STR("SCRAM-SHA-256-PLUS")),
    };
    return sasl_client_new(*ret_mechanism, &options, ret_client, err);
}

static void send_failed(struct auth_key key, const struct err *err)
{
    channel_send(key.peer->channel, IPC_LOGIN_FAILED, (uint32_t)key.id, str_of(err_text(err)));
}

static void send_response(struct auth_key key, struct ipc_login_response *m)
{
    struct buf b;
    buf_init(&b, CHANNEL_BODY_MAX);
    ipc_put_login_response(&b, m);
    channel_send(key.peer->channel, IPC_LOGIN_RESPONSE, (uint32_t)key.id, buf_str(&b));
    buf_wipe(&b);
}

static void end_login(struct login *login)
{
    struct outbound *outbound = login->outbound;
    HASH_DEL(outbound->logins, login);
    if (login->job) {
        atomic_store(&login->job->dropped, true);
        login->job->login = NULL;
    }
    sasl_client_free(&login->client);
    free(login);
    auth_session_end(outbound->auth);
}

static void fail_login(struct login *login, const struct err *err)
{
    send_failed(login->key, err);
    end_login(login);
}

static bool take_start(struct outbound *outbound, struct auth_key key, struct login *before, struct str body)
{
    struct ipc_login_start start;
    struct err err = { 0 };
    if (!ipc_get_login_start(body, &start))
        return false;
    if (before)
        end_login(before);
    struct login *login = calloc(1, sizeof *login);
    if (!login || !auth_session_begin(outbound->auth)) {
        free(login);
        err_set(&err, ERR_BUSY, "too many logins at one time, or the service is ending");
        send_failed(key, &err);
        return true;
    }
    login->key = key;
    login->outbound = outbound;
    HASH_ADD(hh, outbound->logins, key, sizeof login->key, login);
    if (!hash_has(login)) {
        auth_session_end(outbound->auth);
        free(login);
        err_set(&err, ERR_BUSY, "out of memory");
        send_failed(key, &err);
        return true;
    }
    if (new_client(outbound, &start, &login->mechanism, &login->client, &err) < 0) {
        fail_login(login, &err);
        return true;
    }
    struct ipc_login_response m = { .has_mechanism = 1, .mechanism = str_of(login->mechanism->name) };
    m.has_response = sasl_client_first(login->client, &m.response);
    m.complete = sasl_client_complete(login->client);
    send_response(key, &m);
    return true;
}

static void take_result(struct login *login, int rc, struct str response, const struct err *err)
{
    if (rc < 0) {
        fail_login(login, err);
        return;
    }
    struct ipc_login_response m = { .has_response = 1, .response = response,
                                    .complete = sasl_client_complete(login->client) };
    send_response(login->key, &m);
}

static void step_work(struct worker_job *worker_job)
{
    struct step_job *job = (struct step_job *)worker_job;
    if (atomic_load(&job->dropped))
        job->rc = ERR_CLOSED;
    else if (now_mono_ms() > job->deadline_mono_ms)
        job->rc = err_set(&job->err, ERR_BUSY, "the login waited too long for its turn");
    else
        job->rc = sasl_client_step(job->client, buf_str(&job->challenge), &job->response, &job->err);
}

static void free_job(struct step_job *job)
{
    sasl_client_free(&job->client);
    buf_done(&job->challenge);
    free(job);
}

static void step_done(struct worker_job *worker_job)
{
    struct step_job *job = (struct step_job *)worker_job;
    struct login *login = job->login;
    if (login) {
        login->job = NULL;
        login->client = job->client;
        job->client = NULL;
        take_result(login, job->rc, job->response, &job->err);
    }
    free_job(job);
}

static void step_on_thread(struct login *login, struct str challenge)
{
    struct auth *auth = login->outbound->auth;
    struct err err = { 0 };
    struct step_job *job = calloc(1, sizeof *job);
    if (job) {
        job->job = (struct worker_job){ .work = step_work, .done = step_done };
        atomic_init(&job->dropped, false);
        buf_init(&job->challenge, CHANNEL_BODY_MAX);
        job->deadline_mono_ms = now_mono_ms() + AUTH_DEADLINE_MS;
    }
    if (!job || !buf_add(&job->challenge, challenge)) {
        if (job)
            free_job(job);
        err_errno(&err, ENOMEM, "auth");
        fail_login(login, &err);
        return;
    }
    /* All before it is handed over: the thread may begin at once. */
    job->login = login;
    job->client = login->client;
    login->client = NULL;
    login->job = job;
    if (worker_submit(auth->pool, &job->job) < 0) {
        login->job = NULL;
        free_job(job);
        err_set(&err, ERR_BUSY, "too many logins at one time");
        fail_login(login, &err);
    }
}

static void take_step(struct login *login, struct str challenge)
{
    struct str response;
    struct err err = { 0 };
    if (login->job)
        return; /* out of turn: the step that runs is answered */
    if (!(login->mechanism->flags & SASL_CLEARTEXT)) {
        step_on_thread(login, challenge);
        return;
    }
    int rc = sasl_client_step(login->client, challenge, &response, &err);
    take_result(login, rc, response, &err);
}

bool outbound_message(struct outbound *outbound, struct auth_peer *peer, unsigned type, uint32_t id, struct str body)
{
    struct auth_key key = { .peer = peer, .id = id };
    struct login *login = NULL;
    HASH_FIND(hh, outbound->logins, &key, sizeof key, login);
    switch (type) {
    case IPC_LOGIN_START:
        return take_start(outbound, key, login, body);
    case IPC_LOGIN_STEP:
        if (login)
            take_step(login, body);
        return true;
    case IPC_LOGIN_CANCEL:
        if (login)
            end_login(login);
        return true;
    default:
        return false;
    }
}

void outbound_peer_gone(struct outbound *outbound, struct auth_peer *peer)
{
    if (!outbound)
        return;
    struct login *login, *next;
    HASH_ITER(hh, outbound->logins, login, next)
        if (login->key.peer == peer)
            end_login(login);
}

void outbound_free(struct outbound **outbound)
{
    if (!*outbound)
        return;
    while ((*outbound)->logins)
        end_login((*outbound)->logins);
    free_credentials(&(*outbound)->credentials);
    free_credentials(&(*outbound)->next_credentials);
    free(*outbound);
    *outbound = NULL;
}
