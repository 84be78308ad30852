/* The end of a login: who it is and what it may do, or why not; said in the log as one event, and to the client as one
 * reply. The log has the whole reason; the client gets what it can act upon, and for a wrong password exactly as much
 * as for an unknown user. */
#include "daemon/auth/inbound.h"
#include "explain/login.h"
#include "io/now.h"
#include "policy/sender.h"

enum { KEYS_SHOWN_MAX = 64 };

static const struct decision locked_out = {
    .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "locked-out",
    .text = "Too many failed logins from your address, try again later",
};

/* What is known of every login; the caller adds what it knows besides. */
static struct login_facts facts_of(const struct ipc_auth_start *start, const char *inner, const char *cause,
                                   struct str user)
{
    return (struct login_facts){ .cause = cause, .user = user, .client = start->client, .server = start->server,
                                 .mechanism = start->mechanism.p, .inner = inner, .our_time_ms = now_wall_ms() };
}

/* ---- the log ---- */

/* "submit,relay,any-sender": what was granted, right behind each login, as Exchange's protocol log says it. */
static void log_rights(struct log_record *record, uint32_t rights)
{
    static const char *const names[] = { "submit", "relay", "any-sender", "headers", "size" };
    char text[64];
    size_t n = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (rights & 1u << i)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? "," : "", names[i]);
    log_str(record, "rights", str_slice(text, n));
}

/* Every refusal has a reason: what the decision brings, or else what can be said of its cause alone. */
static void log_reason(struct log_record *record, const struct ipc_auth_start *start, const struct session *session,
                       const struct decision *d)
{
    struct login_words words;
    if (!d->words) {
        struct login_facts facts = facts_of(start, session ? session->inner : NULL, d->cause, d->user);
        login_explain(&facts, &words);
    }
    const struct login_words *w = d->words ? d->words : &words;
    log_cstr(record, "why", w->why);
    if (w->run[0])
        log_cstr(record, "run", w->run);
}

/* One event a decision; its fields and their names are what sites filter by. */
static void log_decision(struct log *log, const struct ipc_auth_start *start, const struct session *session,
                         const struct decision *d)
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
    if (start->flags & IPC_AUTH_FLAG_EXPS)
        log_cstr(&record, "verb", "X-EXPS");
    if (session && session->inner)
        log_cstr(&record, "inner", session->inner);
    if (accepted) {
        log_rights(&record, d->rights);
        if (d->mailbox.n)
            log_str(&record, "mailbox", d->mailbox);
        if (session && session->layer.kind != IPC_LAYER_NONE)
            log_cstr(&record, "layer", session->layer.kind == IPC_LAYER_GSS_INTEGRITY ? "integrity" : "confidentiality");
        if (session && session->gss_flags)
            log_cstr(&record, "delegated", session->gss_flags & SASL_GSS_DELEGATED ? "yes" : "no");
    }
    if (!accepted)
        log_reason(&record, start, session, d);
    log_end(&record);
}

static bool is_ntlm(const struct session *session)
{
    return session->inner && (strcmp(session->inner, "ntlm") == 0 || strcmp(session->inner, "spnego-ntlm") == 0);
}

/* NTLM is on its way out; who still uses it should be known. */
static void log_ntlm_use(const struct session *session, const struct decision *d)
{
    struct log_record record;
    bool instead = session->server && session->server->keytab && strcmp(session->inner, "spnego-ntlm") == 0;
    log_begin(&record, session->inbound->auth->ctx->log, LOG_LEVEL_NOTICE, "auth.ntlm");
    log_str(&record, "server", session->start.server);
    log_str(&record, "client", session->start.client);
    log_str(&record, "user", d->user);
    log_str(&record, "mech", session->start.mechanism);
    log_cstr(&record, "cause", instead ? "ntlm-instead-of-kerberos" : "ntlm");
    log_str(&record, "session", session->start.session);
    log_end(&record);
}

/* ---- the answer ---- */

static void put_decision(struct buf *b, const struct session *session, const struct decision *d)
{
    struct ipc_auth_done done = {
        .result = d->result, .code = d->code, .rights = d->rights, .enhanced = str_of(d->enhanced),
        .text = str_of(d->text), .user = d->user, .cause = str_of(d->cause),
        .inner = str_of(session ? session->inner : NULL), .mailbox = d->mailbox, .senders = d->senders,
    };
    if (session && d->result == IPC_AUTH_ACCEPTED)
        done.layer = session->layer;
    ipc_put_auth_done(b, &done);
}

static void send_answer(struct session *session)
{
    channel_send(session->key.peer->channel, IPC_AUTH_DONE, (uint32_t)session->key.id, buf_str(&session->answer));
    inbound_end_session(session);
}

static void on_delay_over(void *arg)
{
    send_answer(arg);
}

void decide(struct session *session, const struct decision *d, int64_t delay_ms)
{
    struct auth *auth = session->inbound->auth;
    log_decision(auth->ctx->log, &session->start, session, d);
    if (d->result == IPC_AUTH_ACCEPTED && is_ntlm(session))
        log_ntlm_use(session, d);
    put_decision(&session->answer, session, d);
    sasl_server_free(&session->sasl); /* d->user may point into it */
    if (delay_ms > 0 && loop_timer_new(auth->ctx->loop, on_delay_over, session, &session->timer, NULL) == 0)
        loop_timer_set(session->timer, delay_ms);
    else
        send_answer(session);
}

void decide_at_start(struct inbound *inbound, struct auth_key key, const struct ipc_auth_start *start,
                     const struct decision *d)
{
    struct buf b;
    buf_init(&b, CHANNEL_BODY_MAX);
    log_decision(inbound->auth->ctx->log, start, NULL, d);
    put_decision(&b, NULL, d);
    channel_send(key.peer->channel, IPC_AUTH_DONE, (uint32_t)key.id, buf_str(&b));
    buf_done(&b);
}

void decide_cancelled(struct session *session)
{
    struct decision d = { .result = IPC_AUTH_CANCELLED, .code = 501, .cause = "cancelled" };
    if (session->user[0])
        d.user = str_of(session->user);
    else if (session->sasl)
        d.user = sasl_server_authcid(session->sasl);
    log_decision(session->inbound->auth->ctx->log, &session->start, session, &d);
}

/* ---- guesses ---- */

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

/* ---- why ---- */

static void fill_keys(const struct session *session, struct login_facts *facts, struct login_key keys[KEYS_SHOWN_MAX],
                      char numbers[KEYS_SHOWN_MAX][24])
{
    struct auth_keytab *keytab = kerberos_exchange_keytab(session->kerberos);
    size_t n = 0;
    const struct krb_keytab *table = auth_keytab_keys(keytab);
    const struct krb_keytab_row *rows = table ? krb_keytab_rows(table, &n) : NULL;
    for (size_t i = 0; i < n && i < KEYS_SHOWN_MAX; i++)
        keys[i] = (struct login_key){
            .principal = str_of(rows[i].principal), .kvno = rows[i].kvno,
            .enctype = str_of(krb_enctype_name(rows[i].enctype, numbers[i], sizeof numbers[i])),
        };
    facts->keytab = str_of(auth_keytab_path(keytab));
    facts->keys = keys;
    facts->n_keys = n < KEYS_SHOWN_MAX ? n : KEYS_SHOWN_MAX;
}

static void fill_ticket(const struct session *session, struct login_facts *facts, char number[24])
{
    const struct krb_ticket *ticket = kerberos_exchange_ticket(session->kerberos);
    if (!ticket)
        return;
    facts->has_ticket = true;
    facts->ticket_service = str_of(ticket->service);
    facts->ticket_realm = str_of(ticket->realm);
    facts->has_ticket_kvno = ticket->has_kvno;
    facts->ticket_kvno = ticket->kvno;
    facts->ticket_enctype = str_of(krb_enctype_name(ticket->enctype, number, 24));
}

static void explain_kerberos(const struct session *session, const char *cause, struct str user,
                             struct login_words *ret_words)
{
    struct login_facts facts = facts_of(&session->start, session->inner, cause, user);
    struct login_key keys[KEYS_SHOWN_MAX];
    static char numbers[KEYS_SHOWN_MAX][24]; /* of the loop's thread alone */
    char number[24];
    struct str services[KERBEROS_SERVICES_MAX];
    const char *const *service;
    fill_ticket(session, &facts, number);
    fill_keys(session, &facts, keys, numbers);
    facts.n_services = kerberos_exchange_services(session->kerberos, &service);
    for (size_t i = 0; i < facts.n_services; i++)
        services[i] = str_of(service[i]);
    facts.services = services;
    const struct krb_failure *failure = kerberos_exchange_failure(session->kerberos);
    facts.major_text = str_of(failure->major_text);
    facts.minor_text = str_of(failure->minor_text);
    login_explain(&facts, ret_words);
}

/* ---- refused ---- */

/* For reasons that lie outside of the mechanism: ours to mend, or somebody who may not. */
static const struct sasl_failure *outside(bool temporary)
{
    static const struct sasl_failure later = { .code = 454, .enhanced = "4.7.0", .text = "Temporary authentication failure" };
    static const struct sasl_failure never = { .code = 535, .enhanced = "5.7.8", .text = "Authentication unsuccessful" };
    return temporary ? &later : &never;
}

static struct decision refusal(const struct sasl_failure *failure, const char *cause, struct str user)
{
    return (struct decision){ .result = failure->code / 100 == 4 ? IPC_AUTH_TEMPORARY : IPC_AUTH_REJECTED,
                              .code = failure->code, .enhanced = failure->enhanced, .text = failure->text,
                              .cause = cause, .user = user };
}

/* A guess counts, and its answer waits; one too many is not told whether it was right. */
static void refuse(struct session *session, const struct decision *d, bool guess)
{
    if (guess && end_when_locked(session, d->user))
        return;
    decide(session, d, guess ? count_failure(session->inbound->auth, &session->start) : 0);
}

/* Kerberos knows more than "gss-failed": its cause decides about the reply, too. Clients that are told of a number look
 * it up; it gives nothing away that the client could not know from its own ticket. */
static void refuse_kerberos(struct session *session, const struct sasl_step *step)
{
    enum krb_cause cause = kerberos_exchange_failure(session->kerberos)->cause;
    struct decision d = refusal(outside(krb_cause_temporary(cause)), krb_cause_word(cause), step->authcid);
    struct login_words words;
    char text[128];
    explain_kerberos(session, d.cause, d.user, &words);
    d.words = &words;
    if (words.number) {
        snprintf(text, sizeof text, "%s (PE-%u)", d.text, words.number);
        d.text = text;
    }
    refuse(session, &d, false);
}

void decide_failed(struct session *session, const struct sasl_step *step, const char *cause)
{
    if (step->cause == SASL_CAUSE_GSS_FAILED && session->kerberos) {
        refuse_kerberos(session, step);
        return;
    }
    const struct sasl_failure *failure = sasl_failure_of(step->cause);
    struct decision d = refusal(failure, cause ? cause : failure->cause, step->authcid);
    refuse(session, &d, is_guess(step->cause));
}

void decide_ntlm_refused(struct session *session, const struct sasl_step *step, const struct ntlm_answer *answer)
{
    const struct sasl_failure *failure = sasl_failure_of(step->cause);
    struct decision d = refusal(failure, answer->cause ? answer->cause : failure->cause, step->authcid);
    struct login_facts facts = facts_of(&session->start, session->inner, d.cause, d.user);
    struct login_words words;
    facts.detail = str_of(answer->detail);
    facts.ntlm_domain = answer->domain;
    facts.ntlm_workstation = answer->workstation;
    login_explain(&facts, &words);
    d.words = &words;
    refuse(session, &d, answer->guess);
}

static void refuse_identity(struct session *session, const struct identity_result *result)
{
    bool temporary = !result || result->verdict == IDENTITY_LATER;
    struct decision d = refusal(outside(temporary), result && result->cause ? result->cause : "directory-down",
                                str_of(session->user));
    struct login_facts facts = facts_of(&session->start, session->inner, d.cause, d.user);
    struct login_words words;
    if (result && result->n_steps > 0)
        facts.detail = str_of(result->step[result->n_steps - 1].outcome);
    login_explain(&facts, &words);
    d.words = &words;
    refuse(session, &d, false);
}

/* ---- proven ---- */

/* Clients of Kerberos name themselves as they like: the principal, the account, the mailbox. All of these are the same
 * person; anybody else is not. */
static bool acts_as_itself(const struct session *session, const struct identity_result *result, struct str senders)
{
    struct str want = str_of(session->authzid), principal = str_of(session->user), account;
    if (want.n == 0 || str_eq_nocase(want, principal) || str_eq_nocase(want, str_of(result->principal)))
        return true;
    struct str rest = str_of(result->principal);
    str_cut(&rest, '@', &account);
    return str_eq_nocase(want, account) || sender_is_allowed(str_of(result->mailbox), senders, 0, want);
}

static void on_identified(void *arg, const struct identity_result *result)
{
    struct session *session = arg;
    session->identify = NULL;
    if (!result || result->verdict == IDENTITY_LATER || result->verdict == IDENTITY_REFUSED) {
        refuse_identity(session, result);
        return;
    }
    struct buf senders;
    buf_init(&senders, SENDER_TEXT_MAX);
    sender_text(result, &senders);
    if (!acts_as_itself(session, result, buf_str(&senders))) {
        struct sasl_step failed = { .action = SASL_FAILED, .cause = SASL_CAUSE_AUTHZID, .authcid = str_of(session->user) };
        buf_done(&senders);
        decide_failed(session, &failed, NULL);
        return;
    }
    bool nobody = !result->mailbox && !result->peers && session->conf->n_identities > 0;
    struct decision d = {
        .result = IPC_AUTH_ACCEPTED, .code = 235, .enhanced = "2.7.0", .text = "Authentication successful",
        .cause = nobody ? "no-mailbox" : "none", .rights = result->rights, .user = str_of(session->user),
        .mailbox = result->mailbox ? str_of(result->mailbox) : STR_NONE, .senders = buf_str(&senders),
    };
    decide(session, &d, 0);
    buf_done(&senders);
}

/* The user store's names are prepared by SASL; the others are as the domain or the KDC spells them. */
static enum identity_class class_of(const struct session *session, struct str user)
{
    if (!session->inner)
        return IDENTITY_STORE;
    if (is_ntlm(session))
        return str_find(user, '\\') < user.n ? IDENTITY_NTLM : IDENTITY_STORE;
    return IDENTITY_KERBEROS;
}

void decide_proven(struct session *session, const struct sasl_step *step)
{
    if (end_when_locked(session, step->authcid))
        return;
    bool same = str_eq(step->authcid, step->authzid);
    if (!same && !session->inner) {
        struct sasl_step failed = *step;
        failed.cause = SASL_CAUSE_AUTHZID;
        decide_failed(session, &failed, NULL);
        return;
    }
    str_copy(step->authcid, session->user, sizeof session->user);
    if (!same)
        str_copy(step->authzid, session->authzid, sizeof session->authzid);
    struct identity_login login = { .class = class_of(session, step->authcid), .name = str_of(session->user) };
    identify_ask(session->inbound->auth, &login, on_identified, session, &session->identify);
}

/* ---- before it begins ---- */

const struct decision *decide_unknown_mechanism(void)
{
    static const struct decision unknown = {
        .result = IPC_AUTH_REJECTED, .code = 504, .enhanced = "5.5.4", .cause = "mechanism-not-offered",
        .text = "This authentication mechanism is not offered here",
    };
    return &unknown;
}

const struct decision *decide_refusal(struct auth *auth, const struct ipc_auth_start *start,
                                      const struct sasl_mechanism *mechanism)
{
    static const struct decision cleartext = {
        .result = IPC_AUTH_REJECTED, .code = 538, .enhanced = "5.7.11", .cause = "encryption-required",
        .text = "This mechanism needs encryption: use STARTTLS first",
    };
    static const struct decision ending = {
        .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "busy",
        .text = "Temporary authentication failure",
    };
    if (!mechanism || !mechanism->server || !sasl_list_has(start->offered, start->mechanism))
        return decide_unknown_mechanism();
    if ((mechanism->flags & SASL_CLEARTEXT) && !(start->flags & (IPC_AUTH_FLAG_TLS | IPC_AUTH_FLAG_PLAINTEXT)))
        return &cleartext;
    if (is_locked(auth, start->client))
        return &locked_out;
    return auth->draining || auth->n_sessions >= AUTH_SESSIONS_MAX ? &ending : NULL;
}
