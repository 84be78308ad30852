#include "daemon/auth/ntlm_check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/arena.h"
#include "directory/winbind.h"
#include "io/now.h"
#include "sasl/ntlm_crypto.h"

enum { ARENA_MAX = 64 * 1024, IDLE_MAX = NTLM_CHECK_THREADS };

struct ntlm_check {
    struct worker_job job;
    struct auth *auth;
    struct auth_store *store;
    struct arena arena;
    struct ntlm_proof proof;         /* in the arena */
    bool ask_winbind, in_winbind;
    bool domain;                     /* the configuration names it: without winbind nobody can tell */
    bool silent;                     /* winbind has not answered in time */
    struct loop_timer *timer;        /* while winbind is asked */
    ntlm_check_fn *answered;         /* NULL: dropped, or answered by the timer */
    void *arg;
    int64_t deadline_mono_ms;
    struct ntlm_answer answer;
};

/* Connections to winbindd that no thread uses. */
static struct {
    pthread_mutex_t lock;
    struct winbind *idle[IDLE_MAX];
    size_t n;
} connections = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct winbind *take_connection(void)
{
    pthread_mutex_lock(&connections.lock);
    struct winbind *winbind = connections.n ? connections.idle[--connections.n] : NULL;
    pthread_mutex_unlock(&connections.lock);
    return winbind ? winbind : winbind_new();
}

static void give_connection(struct winbind *winbind)
{
    pthread_mutex_lock(&connections.lock);
    if (connections.n < IDLE_MAX) {
        connections.idle[connections.n++] = winbind;
        winbind = NULL;
    }
    pthread_mutex_unlock(&connections.lock);
    winbind_free(&winbind);
}

/* MS-ERREF section 2.3. What the account lacks besides a right password is no guess; what fails on the way to a domain
 * controller says nothing about the user. */
static const struct reason {
    uint32_t nt_status;
    const char *cause;
    enum sasl_verdict verdict;
    bool guess;
} reasons[] = {
    { 0xc000006a, "wrong-password", SASL_WRONG, true },       { 0xc0000064, "no-such-user", SASL_UNKNOWN_USER, true },
    { 0xc000006d, "wrong-password", SASL_WRONG, true },       { 0xc0000072, "account-disabled", SASL_WRONG, false },
    { 0xc0000193, "account-expired", SASL_WRONG, false },     { 0xc0000234, "account-locked", SASL_WRONG, false },
    { 0xc0000071, "password-expired", SASL_WRONG, false },    { 0xc0000224, "password-must-change", SASL_WRONG, false },
    { 0xc000006f, "logon-hours", SASL_WRONG, false },         { 0xc0000070, "workstation-not-allowed", SASL_WRONG, false },
    { 0xc000006e, "account-restricted", SASL_WRONG, false },
    { 0xc000018b, "winbind-no-trust", SASL_CANNOT_TELL, false }, { 0xc000018c, "winbind-no-trust", SASL_CANNOT_TELL, false },
    { 0xc000018d, "winbind-no-trust", SASL_CANNOT_TELL, false }, { 0xc00000dc, "winbind-no-trust", SASL_CANNOT_TELL, false },
    { 0xc0000133, "winbind-no-trust", SASL_CANNOT_TELL, false }, { 0xc0000022, "winbind-failed", SASL_CANNOT_TELL, false },
    { 0xc000005e, "no-logon-server", SASL_CANNOT_TELL, false },  { 0xc00000b5, "no-logon-server", SASL_CANNOT_TELL, false },
    { 0xc0000233, "no-logon-server", SASL_CANNOT_TELL, false },  { 0xc00000da, "no-logon-server", SASL_CANNOT_TELL, false },
};

static const struct reason *reason_of(uint32_t nt_status)
{
    static const struct reason other = { 0, "winbind-refused", SASL_WRONG, false };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].nt_status == nt_status)
            return &reasons[i];
    return &other;
}

/* ---- on a thread ---- */

static void cannot_tell(struct ntlm_answer *a, const char *cause)
{
    a->verdict = SASL_CANNOT_TELL;
    a->cause = cause;
}

static void is_nobody(struct ntlm_answer *a)
{
    a->verdict = SASL_UNKNOWN_USER;
    a->cause = "no-such-user";
    a->guess = true;
}

/* True: the store knows the user by an NT hash, and has decided. */
static bool check_store(struct ntlm_check *c)
{
    struct ntlm_answer *a = &c->answer;
    unsigned char hash[NTLM_HASH_BYTES];
    char user[SASL_USER_MAX + 1];
    size_t n;
    struct err err = { 0 };
    if (!sasl_prep_user(c->proof.user, user, &n))
        return false;
    int rc = auth_store_find_nt(c->store, str_slice(user, n), hash, &err);
    if (rc != 1) {
        if (rc < 0 && rc != ERR_ABSENT && !c->ask_winbind)
            cannot_tell(a, "store-failed");
        return rc < 0 && rc != ERR_ABSENT && !c->ask_winbind;
    }
    rc = ntlm_crypto_check(&c->proof, hash, a->session_base_key, &err);
    secret_wipe(hash, sizeof hash);
    if (rc == 1)
        str_copy(str_slice(user, n), a->user, sizeof a->user);
    a->verdict = rc == 1 ? SASL_RIGHT : SASL_WRONG;
    a->has_key = rc == 1;
    a->guess = rc == 0;
    a->cause = rc == 1 ? NULL : "wrong-password";
    if (rc < 0)
        cannot_tell(a, "internal");
    return true;
}

static void take_winbind(struct ntlm_check *c, enum winbind_result result, struct winbind_answer *w)
{
    static const char *const causes[] = { [WINBIND_DOWN] = "winbind-down", [WINBIND_NO_PERMISSION] = "winbind-no-permission",
                                          [WINBIND_FAILED] = "winbind-failed" };
    struct ntlm_answer *a = &c->answer;
    a->by_winbind = true;
    str_copy(str_of(w->detail), a->detail, sizeof a->detail);
    if (result == WINBIND_RIGHT) {
        a->verdict = SASL_RIGHT;
        a->cause = NULL;
        a->has_key = true;
        memcpy(a->session_base_key, w->session_base_key, sizeof a->session_base_key);
        snprintf(a->user, sizeof a->user, "%s\\%s", w->domain, w->user);
    } else if (result == WINBIND_REFUSED) {
        const struct reason *reason = reason_of(w->nt_status);
        a->verdict = reason->verdict;
        a->cause = reason->cause;
        a->guess = reason->guess;
    } else if (result == WINBIND_DOWN && !c->domain && (c->proof.domain.n == 0 || !winbind_is_installed())) {
        is_nobody(a);
    } else {
        cannot_tell(a, causes[result]);
    }
    secret_wipe(w->session_base_key, sizeof w->session_base_key);
}

static void ask_winbind(struct ntlm_check *c)
{
    struct winbind_answer answer;
    struct winbind *winbind = take_connection();
    if (!winbind) {
        cannot_tell(&c->answer, "internal");
        return;
    }
    /* In the arena each has a NUL behind it. */
    struct winbind_question question = { .user = c->proof.user.p, .domain = c->proof.domain.p,
                                         .workstation = c->proof.workstation.p,
                                         .nt_response = c->proof.nt_response, .lm_response = c->proof.lm_response };
    memcpy(question.challenge, c->proof.server_challenge.p, sizeof question.challenge);
    enum winbind_result result = winbind_ask(winbind, &question, &answer);
    take_winbind(c, result, &answer);
    if (result == WINBIND_RIGHT || result == WINBIND_REFUSED)
        give_connection(winbind);
    else
        winbind_free(&winbind); /* the next one begins afresh */
}

static void work(struct worker_job *job)
{
    struct ntlm_check *c = (struct ntlm_check *)job;
    if (now_mono_ms() > c->deadline_mono_ms)
        cannot_tell(&c->answer, "late");
    else if (c->in_winbind)
        ask_winbind(c);
    else if (check_store(c))
        return;
    else if (c->ask_winbind)
        c->in_winbind = true; /* the loop sends it on */
    else
        is_nobody(&c->answer);
}

/* ---- on the loop ---- */

static void free_check(struct ntlm_check *c)
{
    auth_store_unref(&c->store);
    loop_timer_free(&c->timer);
    secret_wipe(&c->answer, sizeof c->answer);
    arena_done(&c->arena);
    free(c);
}

static void done(struct worker_job *job);

static void tell(struct ntlm_check *c, struct ntlm_answer *a)
{
    ntlm_check_fn *answered = c->answered;
    c->answered = NULL;
    if (!answered)
        return;
    a->domain = c->proof.domain;
    a->workstation = c->proof.workstation;
    answered(c->arg, a);
}

static void winbind_done(struct worker_job *job)
{
    struct ntlm_check *c = (struct ntlm_check *)job;
    if (c->silent)
        c->auth->n_winbind_lost--;
    tell(c, &c->answer);
    free_check(c);
}

/* The thread goes on by itself, in minutes. */
static void on_silent(void *arg)
{
    struct ntlm_check *c = arg;
    c->silent = true;
    c->auth->n_winbind_lost++;
    struct ntlm_answer silent = { .verdict = SASL_CANNOT_TELL, .cause = "winbind-silent", .by_winbind = true };
    tell(c, &silent);
}

static bool send_on(struct ntlm_check *c)
{
    struct auth *auth = c->auth;
    if (auth->n_winbind_lost >= NTLM_CHECK_THREADS) {
        cannot_tell(&c->answer, "winbind-silent");
        return false;
    }
    c->in_winbind = true;
    c->job = (struct worker_job){ .work = work, .done = winbind_done };
    if (loop_timer_new(auth->ctx->loop, on_silent, c, &c->timer, NULL) < 0 ||
        worker_submit(auth->winbind_pool, &c->job) < 0) {
        cannot_tell(&c->answer, "busy");
        return false;
    }
    loop_timer_set(c->timer, NTLM_CHECK_DEADLINE_MS);
    return true;
}

static void done(struct worker_job *job)
{
    struct ntlm_check *c = (struct ntlm_check *)job;
    if (c->in_winbind && c->answered && send_on(c))
        return;
    tell(c, &c->answer);
    free_check(c);
}

static bool same_name(const char *name, struct str domain)
{
    return name && str_eq_nocase(str_of(name), domain);
}

/* Is this domain a Windows domain that the configuration names? */
static bool is_directory(const struct conf *conf, struct str domain)
{
    for (size_t i = 0; i < conf->n_directories; i++)
        if (same_name(conf->directory[i].netbios, domain) || same_name(conf->directory[i].realm, domain))
            return true;
    for (size_t i = 0; i < conf->n_identities; i++)
        if (same_name(conf->identity[i].netbios, domain) || same_name(conf->identity[i].realm, domain))
            return true;
    return false;
}

static bool keep_proof(struct ntlm_check *c, const struct ntlm_proof *proof)
{
    const struct str *from[] = { &proof->user, &proof->domain, &proof->workstation, &proof->server_challenge,
                                 &proof->nt_response, &proof->lm_response };
    struct str *to[] = { &c->proof.user, &c->proof.domain, &c->proof.workstation, &c->proof.server_challenge,
                         &c->proof.nt_response, &c->proof.lm_response };
    arena_init(&c->arena, ARENA_MAX);
    c->proof.version = proof->version;
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        *to[i] = arena_copy(&c->arena, *from[i]);
        if (!to[i]->p)
            return false;
    }
    return proof->server_challenge.n == NTLM_CHALLENGE_BYTES;
}

struct ntlm_check *ntlm_check_ask(struct auth *auth, const struct conf *conf, const struct ntlm_proof *proof,
                                  ntlm_check_fn *answered, void *arg, const char **ret_cause)
{
    struct ntlm_check *c = calloc(1, sizeof *c);
    *ret_cause = "internal";
    if (!c)
        return NULL;
    *c = (struct ntlm_check){ .job = { .work = work, .done = done }, .auth = auth, .answered = answered, .arg = arg };
    c->store = auth_store_ref(auth->store);
    c->deadline_mono_ms = now_mono_ms() + AUTH_DEADLINE_MS;
    c->answer.cause = "busy"; /* send_on() may know better */
    c->domain = is_directory(conf, proof->domain);
    c->ask_winbind = proof->version == 2;
    bool ask_store = !c->domain || proof->version == 1;
    if (keep_proof(c, proof) && (ask_store ? worker_submit(auth->pool, &c->job) == 0 : send_on(c)))
        return c;
    *ret_cause = c->answer.cause;
    free_check(c);
    return NULL;
}

void ntlm_check_drop(struct ntlm_check **check)
{
    if (*check)
        (*check)->answered = NULL;
    *check = NULL;
}
