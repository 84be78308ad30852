/* Logins at next hops, with the credentials of a domain block. delivery sees the octets that go over the wire and
 * nothing else: the password stays here.
 *
 * Happy path: LOGIN_START picks the mechanism and gives the first response; each LOGIN_STEP answers a challenge; delivery
 * cancels when the next hop has answered 235 (believed only after a response with `complete`) or anything else.
 * Ways to fail: no such block, no password, no mechanism that both sides can (the sentence says why each was skipped), a
 * server that does not prove itself: LOGIN_FAILED, and the delivery is deferred.
 * A step of SCRAM costs the server's choice of iterations, up to half a second: it runs on a worker thread. */
#include <sys/types.h>
#include <unistd.h>

#include "daemon/auth/outbound.h"
#include "io/now.h"
#include "sasl/ntlm.h"

enum { LOGIN_ARENA_MAX = 16 * 1024, REASONS_MAX = 1024 };

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
struct secret *auth_read_password(int fd)
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
    struct secret *password = auth_read_password(fd);
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
    initiate_forget_tickets();
}

struct str outbound_password(const struct outbound *outbound, struct str domain)
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

/* ---- which mechanism ---- */

static bool is_kerberos(const struct sasl_mechanism *mechanism)
{
    return mechanism->flags & SASL_GSS;
}

static bool has_password(const struct login *login)
{
    return login->block->user && outbound_password(login->outbound, login->start.domain).n > 0;
}

static bool has_kerberos(const struct login *login)
{
    return login->block->principal && (login->block->keytab || outbound_password(login->outbound, login->start.domain).n);
}

/* Under which verb it is offered; NULL: under none that may be used. */
static const char *verb_for(const struct login *login, struct str name, bool *ret_exps)
{
    bool exps_only = str_eq_nocase(str_of(login->block->auth), STR("X-EXPS"));
    *ret_exps = exps_only;
    if (!exps_only && sasl_list_has(login->start.offered, name))
        return "AUTH";
    *ret_exps = true;
    return sasl_list_has(login->start.offered_exps, name) ? "X-EXPS" : NULL;
}

/* Why not this one; NULL: it will do. *ret_cause is the word for it. */
static const char *why_not(const struct login *login, const struct sasl_mechanism *mechanism, const char **ret_cause)
{
    const struct ipc_login_start *start = &login->start;
    bool exps;
    *ret_cause = "mechanism-not-offered";
    if (!mechanism->client)
        return "is not known here";
    if (!verb_for(login, str_of(mechanism->name), &exps))
        return "is not offered";
    if ((mechanism->flags & SASL_BINDING) && start->cert_hash.n == 0 && start->exporter.n == 0)
        return "has no TLS channel to bind to";
    *ret_cause = "tls-required";
    if ((mechanism->flags & SASL_CLEARTEXT) && !(start->flags & IPC_AUTH_FLAG_TLS))
        return "would show the password without TLS";
    if (login->block->seal && !(start->flags & IPC_AUTH_FLAG_TLS) && !(mechanism->flags & (SASL_GSS | SASL_NTLM)))
        return "has no layer to seal with, and there is no TLS";
    *ret_cause = "no-credentials";
    if (is_kerberos(mechanism) && !has_kerberos(login))
        return "needs a principal with a keytab or password_file";
    if (!is_kerberos(mechanism) && !has_password(login))
        return "needs a user with a password_file";
    return NULL;
}

static bool is_asked_for(const struct login *login, const struct sasl_mechanism *mechanism)
{
    struct str auth = str_of(login->block->auth);
    bool any = str_eq_nocase(auth, STR("AUTO")) || str_eq_nocase(auth, STR("X-EXPS"));
    return any || str_eq_nocase(auth, str_of(mechanism->name));
}

static void note_reason(struct login *login, const char *mechanism, const char *reason, const char *cause)
{
    buf_addf(&login->reasons, "%s%s %s", login->reasons.n ? ", " : "", mechanism, reason);
    if (!login->cause)
        login->cause = cause;
}

/* Where the block leaves the choice open, what is neither offered nor ours to give explains nothing. */
static bool is_worth_telling(const struct login *login, const struct sasl_mechanism *mechanism)
{
    bool exps;
    struct str auth = str_of(login->block->auth);
    if (!str_eq_nocase(auth, STR("AUTO")) && !str_eq_nocase(auth, STR("X-EXPS")))
        return true;
    return verb_for(login, str_of(mechanism->name), &exps) ||
           (is_kerberos(mechanism) ? has_kerberos(login) : has_password(login));
}

/* The next mechanism that the block names, strongest first. NULL: none is left. */
static const struct sasl_mechanism *next_candidate(struct login *login)
{
    const struct sasl_mechanism *mechanism;
    while ((mechanism = sasl_mechanism_at(login->candidate))) {
        const char *cause, *reason;
        login->candidate++;
        if (!is_asked_for(login, mechanism))
            continue;
        reason = why_not(login, mechanism, &cause);
        if (!reason)
            return mechanism;
        if (is_worth_telling(login, mechanism))
            note_reason(login, mechanism->name, reason, cause);
    }
    return NULL;
}

static void set_up_ntlm(const struct login *login, struct sasl_ntlm_setup *setup, char target[300])
{
    *setup = (struct sasl_ntlm_setup){ .filetime = ntlm_filetime(now_wall_ms()) };
    now_random(setup->challenge, sizeof setup->challenge);
    now_random(setup->session_key, sizeof setup->session_key);
    if (login->block->target_spn.n)
        snprintf(target, 300, "%s", login->block->target_spn.item[0]);
    else
        snprintf(target, 300, "SMTPSVC/%.*s", STR_ARG(login->start.host));
    setup->target = str_of(target);
}

static int new_client(struct login *login, struct err *err)
{
    unsigned char octets[SASL_NONCE_BYTES];
    char nonce[SASL_NONCE_TEXT + 1], target[300];
    struct sasl_ntlm_setup ntlm;
    now_random(octets, sizeof octets);
    if (!sasl_nonce_text(octets, nonce))
        return err_errno(err, ENOMEM, "auth");
    struct sasl_client_options options = {
        .user = str_of(login->block->user), .password = outbound_password(login->outbound, login->start.domain),
        .nonce = str_of(nonce),
        .binding = { .cert_hash = login->start.cert_hash, .exporter = login->start.exporter },
        .server_offers_plus = sasl_list_has(login->start.offered, STR("SCRAM-SHA-256-PLUS")),
        .seal = login->block->seal && !(login->start.flags & IPC_AUTH_FLAG_TLS),
    };
    if (login->mechanism->flags & SASL_NTLM) {
        set_up_ntlm(login, &ntlm, target);
        options.ntlm = &ntlm;
    }
    return sasl_client_new(login->mechanism, &options, &login->client, err);
}

static void refuse_without_mechanism(struct login *login)
{
    char detail[REASONS_MAX + 300];
    snprintf(detail, sizeof detail, "%.*s", STR_ARG(buf_str(&login->reasons)));
    if (login->reasons.n == 0)
        snprintf(detail, sizeof detail, "%s is no mechanism that is known here", login->block->auth);
    refuse_login(login, login->cause ? login->cause : "mechanism-not-offered", detail);
}

void outbound_go_on(struct login *login)
{
    struct err err;
    login->mechanism = next_candidate(login);
    if (!login->mechanism) {
        refuse_without_mechanism(login);
        return;
    }
    verb_for(login, str_of(login->mechanism->name), &login->exps);
    if (is_kerberos(login->mechanism)) {
        initiate_begin(login);
        return;
    }
    if (new_client(login, &err) == 0) {
        outbound_started(login);
        return;
    }
    note_reason(login, login->mechanism->name, err_text(&err), "no-credentials");
    outbound_go_on(login);
}

/* ---- to delivery ---- */

static enum ipc_layer_kind layer_kind(enum sasl_layer_kind kind)
{
    switch (kind) {
    case SASL_LAYER_GSS_INTEGRITY: return IPC_LAYER_GSS_INTEGRITY;
    case SASL_LAYER_GSS_CONFIDENTIALITY: return IPC_LAYER_GSS_CONFIDENTIALITY;
    case SASL_LAYER_NTLM_SIGN:
    case SASL_LAYER_NTLM_SEAL: return IPC_LAYER_NTLM;
    default: return IPC_LAYER_NONE;
    }
}

/* With the last token goes what begins after 235. */
static int add_layer(struct login *login, struct ipc_login_response *m, struct buf *state, struct err *err)
{
    if (!m->complete)
        return 0;
    struct sasl_layer_choice choice = sasl_client_layer(login->client);
    m->layer.kind = layer_kind(choice.kind);
    m->layer.peer_max_bytes = choice.peer_max_bytes;
    if (m->layer.kind == IPC_LAYER_NONE)
        return 0;
    int rc = 0;
    if (login->kerberos && m->layer.kind != IPC_LAYER_NTLM)
        rc = initiate_seal(login->kerberos, state, err);
    else if (!sasl_client_layer_state(login->client, state))
        rc = err_set(err, ERR_AUTH, "there are no keys for the security layer");
    m->layer.state = buf_str(state);
    return rc;
}

static void send_response(struct login *login, struct ipc_login_response *m)
{
    struct buf b, state;
    struct err err;
    buf_init(&b, CHANNEL_BODY_MAX);
    buf_init(&state, CHANNEL_BODY_MAX);
    if (add_layer(login, m, &state, &err) < 0) {
        refuse_login(login, "internal", err_text(&err));
    } else {
        ipc_put_login_response(&b, m);
        channel_send(login->key.peer->channel, IPC_LOGIN_RESPONSE, (uint32_t)login->key.id, buf_str(&b));
    }
    buf_wipe(&b);
    buf_wipe(&state);
}

void outbound_started(struct login *login)
{
    struct ipc_login_response m = { .has_mechanism = 1, .mechanism = str_of(login->mechanism->name),
                                    .exps = login->exps };
    m.has_response = sasl_client_first(login->client, &m.response);
    m.complete = sasl_client_complete(login->client);
    send_response(login, &m);
}

void outbound_step_taken(struct login *login, int rc, struct str response, const struct err *err)
{
    if (rc < 0) {
        const char *cause = rc == ERR_CONFIG ? "seal-impossible" : "peer-unproven";
        if (login->kerberos && login->kerberos->side.failure.cause != KRB_CAUSE_NONE) {
            login->failure = login->kerberos->side.failure;
            cause = krb_cause_word(login->failure.cause);
        }
        refuse_login(login, cause, err_text(err));
        return;
    }
    struct ipc_login_response m = { .has_response = 1, .response = response,
                                    .complete = sasl_client_complete(login->client) };
    send_response(login, &m);
}

/* ---- from delivery ---- */

void outbound_end_login(struct login *login)
{
    struct outbound *outbound = login->outbound;
    HASH_DEL(outbound->logins, login);
    initiate_drop(login);
    sasl_client_free(&login->client);
    initiate_free(&login->kerberos);
    conf_unref(&login->conf);
    buf_done(&login->reasons);
    arena_done(&login->arena);
    free(login);
    auth_session_end(outbound->auth);
}

static bool keep_start(struct login *login, const struct ipc_login_start *start)
{
    const struct str *from[] = { &start->domain, &start->host, &start->offered, &start->offered_exps,
                                 &start->cert_hash, &start->exporter };
    struct str *to[] = { &login->start.domain, &login->start.host, &login->start.offered, &login->start.offered_exps,
                         &login->start.cert_hash, &login->start.exporter };
    login->start.flags = start->flags;
    arena_init(&login->arena, LOGIN_ARENA_MAX);
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        *to[i] = arena_copy(&login->arena, *from[i]);
        if (!to[i]->p)
            return false;
    }
    return true;
}

static void send_busy(struct auth_key key)
{
    struct str why = STR("too many logins at one time, or the service is ending");
    channel_send(key.peer->channel, IPC_LOGIN_FAILED, (uint32_t)key.id, why);
}

static bool take_start(struct outbound *outbound, struct auth_key key, struct login *before, struct str body)
{
    struct ipc_login_start start;
    if (!ipc_get_login_start(body, &start))
        return false;
    if (before)
        outbound_end_login(before);
    struct login *login = calloc(1, sizeof *login);
    if (!login || !auth_session_begin(outbound->auth)) {
        free(login);
        send_busy(key);
        return true;
    }
    login->key = key;
    login->outbound = outbound;
    login->conf = conf_ref(outbound->auth->ctx->conf);
    buf_init(&login->reasons, REASONS_MAX);
    HASH_ADD(hh, outbound->logins, key, sizeof login->key, login);
    if (!hash_has(login)) {
        auth_session_end(outbound->auth);
        conf_unref(&login->conf);
        free(login);
        send_busy(key);
        return true;
    }
    login->block = find_domain(login->conf, start.domain);
    if (!keep_start(login, &start))
        refuse_login(login, "internal", "out of memory");
    else if (!login->block || !login->block->auth)
        refuse_login(login, "no-credentials", "the domain block has no auth");
    else
        outbound_go_on(login);
    return true;
}

static void take_step(struct login *login, struct str challenge)
{
    struct str response;
    struct err err = { 0 };
    if (login->job || !login->client)
        return; /* out of turn: the step that runs is answered */
    if (!(login->mechanism->flags & SASL_CLEARTEXT)) {
        initiate_step(login, challenge);
        return;
    }
    int rc = sasl_client_step(login->client, challenge, &response, &err);
    outbound_step_taken(login, rc, response, &err);
}

static bool take_end(struct login *login, struct str body)
{
    struct ipc_login_end m;
    if (!ipc_get_login_end(body, &m))
        return false;
    if (login && !m.accepted)
        refuse_by_peer(login, &m);
    if (login)
        outbound_end_login(login);
    return true;
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
            outbound_end_login(login);
        return true;
    case IPC_LOGIN_END:
        return take_end(login, body);
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
            outbound_end_login(login);
}

void outbound_free(struct outbound **outbound)
{
    if (!*outbound)
        return;
    while ((*outbound)->logins)
        outbound_end_login((*outbound)->logins);
    free_credentials(&(*outbound)->credentials);
    free_credentials(&(*outbound)->next_credentials);
    initiate_forget_tickets();
    free(*outbound);
    *outbound = NULL;
}
