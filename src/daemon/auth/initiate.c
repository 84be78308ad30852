/* Steps of outbound logins that may take long: the first token of Kerberos (a silent KDC keeps a thread for 27 s), and
 * SCRAM with as many iterations as the server likes. Ticket-granting tickets are kept in memory and used again until
 * shortly before they end. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/auth/outbound.h"
#include "io/now.h"

enum {
    IDLE_MAX = 64,
    RENEW_BEFORE_S = 120,
    INITIATE_ARENA_MAX = 16 * 1024,
    REALM_THREADS = OUTBOUND_INITIATE_THREADS / 2,
    WAITING_MAX = 200,
};

struct login_job {
    struct worker_job job;
    struct login_job *next;    /* in one of the two lists below, when it is to begin */
    struct auth *auth;
    struct login *login;       /* NULL: nobody waits any more; the loop's */
    atomic_bool dropped;
    bool begin, silent, waiting;
    const struct sasl_mechanism *mechanism;
    const struct conf_domain *block; /* of the snapshot that `kerberos` keeps; only while it is to begin */
    struct sasl_client_options options;
    struct sasl_client *client;
    struct initiate *kerberos;
    struct buf challenge;
    struct loop_timer *timer;
    int64_t deadline_mono_ms;
    struct str response;       /* in the client */
    int rc;
    struct err err;
};

/* ---- tickets that no login uses ---- */

struct idle {
    struct idle *next;
    const struct conf *conf;
    const struct conf_domain *block;
    struct auth_keytab *keytab;
    struct krb_initiator *initiator;
};

static struct {
    pthread_mutex_t lock;
    struct idle *first;
    size_t n;
} tickets = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void free_idle(struct idle *idle)
{
    krb_initiator_free(&idle->initiator);
    auth_keytab_unref(&idle->keytab);
    conf_unref(&idle->conf);
    free(idle);
}

static struct krb_initiator *take_ticket(const struct initiate *x)
{
    struct idle *found = NULL, **at;
    pthread_mutex_lock(&tickets.lock);
    for (at = &tickets.first; *at && !found;) {
        if ((*at)->block == x->block && (*at)->keytab == x->keytab) {
            found = *at;
            *at = found->next;
            tickets.n--;
        } else {
            at = &(*at)->next;
        }
    }
    pthread_mutex_unlock(&tickets.lock);
    if (!found)
        return NULL;
    struct krb_initiator *initiator = found->initiator;
    found->initiator = NULL;
    free_idle(found);
    if (krb_initiator_lifetime_s(initiator) < RENEW_BEFORE_S)
        krb_initiator_free(&initiator);
    return initiator;
}

static void keep_ticket(struct initiate *x)
{
    struct idle *idle = x->initiator && !x->spoiled && krb_initiator_lifetime_s(x->initiator) >= RENEW_BEFORE_S
                            ? calloc(1, sizeof *idle)
                            : NULL;
    struct idle *old = NULL;
    if (!idle)
        return;
    *idle = (struct idle){ .conf = conf_ref(x->conf), .block = x->block, .keytab = auth_keytab_ref(x->keytab),
                           .initiator = x->initiator };
    x->initiator = NULL;
    pthread_mutex_lock(&tickets.lock);
    idle->next = tickets.first;
    tickets.first = idle;
    if (++tickets.n > IDLE_MAX) { /* the last in the list was not used for longest */
        struct idle **at = &tickets.first;
        while ((*at)->next)
            at = &(*at)->next;
        old = *at;
        *at = NULL;
        tickets.n--;
    }
    pthread_mutex_unlock(&tickets.lock);
    if (old)
        free_idle(old);
}

void initiate_forget_tickets(void)
{
    pthread_mutex_lock(&tickets.lock);
    struct idle *first = tickets.first;
    tickets.first = NULL;
    tickets.n = 0;
    pthread_mutex_unlock(&tickets.lock);
    while (first) {
        struct idle *next = first->next;
        free_idle(first);
        first = next;
    }
}

/* ---- the context behind the mechanism ---- */

static enum sasl_gss_status step(void *context, struct str token, struct buf *ret_token)
{
    struct initiate *x = context;
    switch (krb_context_step(x->side.context, token, ret_token)) {
    case KRB_CONTINUE: return SASL_GSS_CONTINUE;
    case KRB_COMPLETE: return SASL_GSS_COMPLETE;
    case KRB_FAILED: break;
    }
    x->side.failure = *krb_context_failure(x->side.context);
    /* That a service is not known says nothing against the ticket-granting ticket. */
    x->spoiled = x->side.failure.cause != KRB_CAUSE_SPN_UNKNOWN;
    return SASL_GSS_FAILED;
}

int initiate_seal(struct initiate *initiate, struct buf *ret_state, struct err *err)
{
    return gss_side_seal(&initiate->side, ret_state, err);
}

void initiate_free(struct initiate **initiate)
{
    struct initiate *x = *initiate;
    if (!x)
        return;
    krb_context_free(&x->side.context);
    keep_ticket(x);
    krb_initiator_free(&x->initiator);
    secret_free(&x->password);
    auth_keytab_unref(&x->keytab);
    conf_unref(&x->conf);
    buf_done(&x->bindings);
    arena_done(&x->arena);
    free(x);
    *initiate = NULL;
}

/* Exchange's own class first: its peers are registered under it, the others under both. */
static void list_targets(struct initiate *x, struct str host)
{
    static const char *const classes[] = { "SMTPSVC", "smtp" };
    const struct conf_strings *configured = &x->block->target_spn;
    for (size_t i = 0; i < configured->n && x->n_targets < OUTBOUND_TARGETS_MAX; i++)
        x->target[x->n_targets++] = configured->item[i];
    for (size_t i = 0; i < 2 && configured->n == 0; i++) {
        const char *target = arena_printf(&x->arena, "%s/%.*s", classes[i], STR_ARG(host));
        if (target)
            x->target[x->n_targets++] = target;
    }
}

static struct initiate *new_initiate(const struct login *login)
{
    struct auth *auth = login->outbound->auth;
    struct initiate *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    bool tls = login->start.flags & IPC_AUTH_FLAG_TLS;
    x->conf = conf_ref(login->conf);
    x->block = login->block;
    x->gss = gss_side_table(&x->side, step);
    arena_init(&x->arena, INITIATE_ARENA_MAX);
    buf_init(&x->bindings, 256);
    x->spnego = strcmp(login->mechanism->name, "GSS-SPNEGO") == 0;
    x->flags = KRB_MUTUAL | KRB_INTEGRITY | KRB_SEQUENCE | (x->block->seal && !tls ? KRB_CONFIDENTIALITY : 0u);
    if (x->spnego && !(x->flags & KRB_CONFIDENTIALITY)) /* libsasl's servers take it for the wish for a layer */
        x->flags = KRB_MUTUAL;
    list_targets(x, login->start.host);
    /* RFC 4752 has no channel bindings; who looks at them takes Windows's. */
    if (login->start.cert_hash.n)
        krb_binding_build(KRB_BINDING_SERVER_END_POINT, login->start.cert_hash, &x->bindings);
    x->keytab = auth_keytab_ref(auth_keytabs_find(auth->keytabs, IPC_KEYTAB_DOMAIN, login->start.domain));
    if (!x->keytab)
        x->password = secret_new(outbound_password(login->outbound, login->start.domain));
    return x;
}

/* ---- on a thread ---- */

static bool open_initiator(struct initiate *x)
{
    x->initiator = take_ticket(x);
    if (x->initiator)
        return true;
    if (x->keytab && !auth_keytab_keys(x->keytab)) {
        krb_failure_set(&x->side.failure, auth_keytab_cause(x->keytab), "the keytab %s could not be read",
                        auth_keytab_path(x->keytab));
        return false;
    }
    struct krb_initiator_options options = {
        .principal = x->block->principal, .keytab = x->keytab ? auth_keytab_keys(x->keytab) : NULL,
        .password = x->password,
    };
    return krb_initiator_new(&options, &x->initiator, &x->side.failure) == 0;
}

/* The first target that the KDC knows. */
static int open_client(struct login_job *job)
{
    struct initiate *x = job->kerberos;
    int rc = ERR_AUTH;
    if (!open_initiator(x))
        return err_set(&job->err, ERR_AUTH, "%s", x->side.failure.minor_text);
    for (size_t i = 0; i < x->n_targets && !job->client; i++) {
        struct krb_initiate_options options = { .target = x->target[i], .flags = x->flags,
                                                .bindings = buf_str(&x->bindings), .spnego = x->spnego };
        x->at = i;
        x->side.failure = (struct krb_failure){ 0 };
        krb_context_free(&x->side.context);
        if (krb_initiate_new(x->initiator, &options, &x->side.context, &x->side.failure) < 0)
            rc = err_set(&job->err, ERR_AUTH, "%s", x->side.failure.minor_text);
        else
            rc = sasl_client_new(job->mechanism, &job->options, &job->client, &job->err);
        if (rc < 0 && x->side.failure.cause != KRB_CAUSE_SPN_UNKNOWN)
            break;
    }
    return rc;
}

static void work(struct worker_job *worker_job)
{
    struct login_job *job = (struct login_job *)worker_job;
    if (atomic_load(&job->dropped))
        job->rc = ERR_CLOSED;
    else if (now_mono_ms() > job->deadline_mono_ms)
        job->rc = err_set(&job->err, ERR_BUSY, "the login waited too long for its turn");
    else if (job->begin)
        job->rc = open_client(job);
    else
        job->rc = sasl_client_step(job->client, buf_str(&job->challenge), &job->response, &job->err);
}

/* ---- on the loop ---- */

static void free_job(struct login_job *job)
{
    loop_timer_free(&job->timer);
    sasl_client_free(&job->client);
    initiate_free(&job->kerberos);
    buf_done(&job->challenge);
    free(job);
}

/* ---- whose turn it is ----
 *
 * A KDC that is silent keeps a thread for 27 s: one realm gets half of the threads at most, and what comes beyond waits
 * here, in order. While all of its threads are lost, its logins are refused at once. */

static struct {
    struct login_job *running, *waiting;
    unsigned n_waiting;
} queue; /* the loop's */

static struct str realm_of(const struct conf_domain *block)
{
    struct str realm = str_of(block->principal), name;
    return str_cut(&realm, '@', &name) ? realm : STR_NONE;
}

static unsigned count_running(struct str realm, bool only_silent)
{
    unsigned n = 0;
    for (const struct login_job *job = queue.running; job; job = job->next)
        n += (job->silent || !only_silent) && str_eq(realm_of(job->block), realm);
    return n;
}

static void leave(struct login_job **list, const struct login_job *job)
{
    while (*list && *list != job)
        list = &(*list)->next;
    if (*list)
        *list = job->next;
}

static int run(struct login_job *job)
{
    int rc = worker_submit(job->auth->initiate_pool, &job->job);
    if (rc < 0)
        return rc;
    job->next = queue.running;
    queue.running = job;
    return 0;
}

static int run_or_wait(struct login_job *job)
{
    if (count_running(realm_of(job->block), false) < REALM_THREADS)
        return run(job);
    if (queue.n_waiting == WAITING_MAX)
        return ERR_BUSY;
    struct login_job **end = &queue.waiting;
    while (*end)
        end = &(*end)->next;
    *end = job;
    job->waiting = true;
    queue.n_waiting++;
    return 0;
}

static void run_those_who_wait(void)
{
    for (struct login_job *job = queue.waiting, *next; job; job = next) {
        next = job->next;
        if (count_running(realm_of(job->block), false) == REALM_THREADS)
            continue;
        leave(&queue.waiting, job);
        if (run(job) < 0) { /* the pool is full with other realms: until one of them is done */
            job->next = queue.waiting;
            queue.waiting = job;
            return;
        }
        job->waiting = false;
        queue.n_waiting--;
    }
}

static void note_failure(struct login *login, const struct login_job *job)
{
    const struct initiate *x = job->kerberos;
    login->failure = x->side.failure;
    const char *target = x->n_targets ? x->target[x->at] : "";
    str_copy(str_slice(target, strnlen(target, sizeof login->spn - 1)), login->spn, sizeof login->spn);
    const char *cause = x->side.failure.cause != KRB_CAUSE_NONE ? krb_cause_word(x->side.failure.cause) : "kerberos-internal";
    buf_addf(&login->reasons, "%s%s: %s", login->reasons.n ? ", " : "", login->mechanism->name, err_text(&job->err));
    login->cause = cause;
}

static void begun(struct login *login, struct login_job *job)
{
    if (job->rc < 0) {
        note_failure(login, job);
        outbound_go_on(login);
        return;
    }
    const char *target = job->kerberos->target[job->kerberos->at];
    str_copy(str_slice(target, strnlen(target, sizeof login->spn - 1)), login->spn, sizeof login->spn);
    login->client = job->client;
    login->kerberos = job->kerberos;
    job->client = NULL;
    job->kerberos = NULL;
    outbound_started(login);
}

static void stepped(struct login *login, struct login_job *job)
{
    login->client = job->client;
    login->kerberos = job->kerberos;
    job->client = NULL;
    job->kerberos = NULL;
    outbound_step_taken(login, job->rc, job->response, &job->err);
}

static void done(struct worker_job *worker_job)
{
    struct login_job *job = (struct login_job *)worker_job;
    struct login *login = job->login;
    if (job->begin)
        leave(&queue.running, job);
    if (login) {
        login->job = NULL;
        if (job->begin)
            begun(login, job);
        else
            stepped(login, job);
    }
    free_job(job);
    run_those_who_wait();
}

static void drop_waiting(struct login_job *job)
{
    leave(&queue.waiting, job);
    queue.n_waiting--;
    free_job(job);
}

/* The KDC is silent; the thread comes back by itself. */
static void on_silent(void *arg)
{
    struct login_job *job = arg;
    struct login *login = job->login;
    job->silent = true;
    job->login = NULL;
    if (job->waiting)
        drop_waiting(job);
    if (!login)
        return;
    login->job = NULL;
    login->cause = "kdc-silent";
    buf_addf(&login->reasons, "%s%s: no KDC answered within %d s", login->reasons.n ? ", " : "", login->mechanism->name,
             OUTBOUND_KDC_DEADLINE_MS / 1000);
    outbound_go_on(login);
}

static struct login_job *new_job(struct login *login, bool begin)
{
    struct login_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->job = (struct worker_job){ .work = work, .done = done };
    job->auth = login->outbound->auth;
    atomic_init(&job->dropped, false);
    job->begin = begin;
    job->mechanism = login->mechanism;
    job->block = login->block;
    job->login = login;
    buf_init(&job->challenge, CHANNEL_BODY_MAX);
    job->deadline_mono_ms = now_mono_ms() + AUTH_DEADLINE_MS;
    return job;
}

void initiate_begin(struct login *login)
{
    struct auth *auth = login->outbound->auth;
    if (count_running(realm_of(login->block), true) == REALM_THREADS) {
        refuse_login(login, "kdc-silent", "too many logins wait for a KDC that does not answer");
        return;
    }
    struct login_job *job = new_job(login, true);
    if (job)
        job->kerberos = new_initiate(login);
    if (!job || !job->kerberos || job->kerberos->bindings.failed ||
        loop_timer_new(auth->ctx->loop, on_silent, job, &job->timer, NULL) < 0) {
        if (job)
            free_job(job);
        refuse_login(login, "internal", "out of memory");
        return;
    }
    job->options = (struct sasl_client_options){
        .gss = &job->kerberos->gss, .mutual = true,
        .seal = login->block->seal && !(login->start.flags & IPC_AUTH_FLAG_TLS),
    };
    login->job = job;
    if (run_or_wait(job) < 0) {
        login->job = NULL;
        free_job(job);
        refuse_login(login, "kdc-silent", "too many logins wait for a ticket");
        return;
    }
    loop_timer_set(job->timer, OUTBOUND_KDC_DEADLINE_MS);
}

void initiate_step(struct login *login, struct str challenge)
{
    struct auth *auth = login->outbound->auth;
    struct login_job *job = new_job(login, false);
    if (!job || !buf_add(&job->challenge, challenge)) {
        if (job)
            free_job(job);
        refuse_login(login, "internal", "out of memory");
        return;
    }
    job->client = login->client;
    job->kerberos = login->kerberos;
    login->client = NULL;
    login->kerberos = NULL;
    login->job = job;
    if (worker_submit(job->kerberos ? auth->accept_pool : auth->pool, &job->job) < 0) {
        login->job = NULL;
        free_job(job);
        refuse_login(login, "busy", "too many logins at one time");
    }
}

void initiate_drop(struct login *login)
{
    if (!login->job)
        return;
    struct login_job *job = login->job;
    login->job = NULL;
    job->login = NULL;
    if (job->waiting)
        drop_waiting(job);
    else
        atomic_store(&job->dropped, true);
}
