#include "daemon/auth/identify.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/arena.h"
#include "daemon/auth/kerberos.h"
#include "directory/account.h"
#include "io/now.h"
#include "kerberos/initiator.h"

enum { ARENA_MAX = 1024 * 1024, IDLE_MAX = IDENTIFY_THREADS, RENEW_BEFORE_S = 300, LDAP_TIMEOUT_MS = 4000 };

/* A directory that somebody is logged in to. */
struct connection {
    const struct conf *conf;
    const struct conf_directory *block;
    struct auth_keytab *keytab;
    struct krb_initiator *initiator;
    struct account_directory *directory;
    struct secret *password;       /* of a simple login; NULL: GSSAPI */
};

struct lookup {
    struct worker_job job;
    struct auth *auth;
    struct identify *identify;     /* NULL: nobody waits any more; the loop's */
    bool silent;
    struct loop_timer *timer;
    struct arena arena;
    const struct conf *conf;
    const struct conf_directory *block;
    struct auth_keytab *keytab;
    struct secret *password;
    struct account_query query;    /* in the arena */
    int64_t deadline_mono_ms;
    enum identity_found found;
    struct account_answer answer;
    struct err err;
};

struct identify {
    struct auth *auth;
    const struct conf *conf;       /* the snapshot that its rules are of: directories in its questions belong to it */
    struct identity *identity;
    identify_fn *answered;
    void *arg;
    struct lookup *lookup;         /* a directory that is being asked */
};

static struct {
    pthread_mutex_t lock;
    struct connection *idle[IDLE_MAX];
    size_t n;
} connections = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- on a thread ---- */

static void free_connection(struct connection *c)
{
    account_directory_free(&c->directory);
    krb_initiator_free(&c->initiator);
    auth_keytab_unref(&c->keytab);
    secret_free(&c->password);
    conf_unref(&c->conf);
    free(c);
}

/* The keytab of the block, and the ticket that comes of it. */
static int get_credential(void *context, void **ret_credential, struct err *err)
{
    struct connection *c = context;
    struct krb_failure failure;
    if (c->initiator && krb_initiator_lifetime_s(c->initiator) > RENEW_BEFORE_S) {
        *ret_credential = krb_initiator_credential(c->initiator);
        return 0;
    }
    krb_initiator_free(&c->initiator);
    const struct krb_keytab *keys = c->keytab ? auth_keytab_keys(c->keytab) : NULL;
    if (!c->block->principal || !keys)
        return err_set(err, ERR_AUTH, "directory \"%s\" has no principal with a usable keytab", c->block->realm);
    struct krb_initiator_options options = { .principal = c->block->principal, .keytab = keys };
    if (krb_initiator_new(&options, &c->initiator, &failure) < 0)
        return err_set(err, ERR_AUTH, "%s cannot log in: %s (%s)", c->block->principal, failure.minor_text,
                       krb_cause_word(failure.cause));
    *ret_credential = krb_initiator_credential(c->initiator);
    return 0;
}

static int get_password(void *context, struct buf *into, struct err *err)
{
    const struct connection *c = context;
    if (!c->password)
        return err_set(err, ERR_AUTH, "directory \"%s\": the password_file is not usable", c->block->realm);
    return buf_add(into, secret_bytes(c->password)) ? 0 : err_errno(err, ENOMEM, "directory");
}

static struct connection *new_connection(struct lookup *l)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->conf = conf_ref(l->conf);
    c->block = l->block;
    c->keytab = auth_keytab_ref(l->keytab);
    static const enum account_protection protections[] = {
        [CONF_BIND_GSSAPI] = ACCOUNT_GSSAPI, [CONF_BIND_STARTTLS] = ACCOUNT_STARTTLS, [CONF_BIND_LDAPS] = ACCOUNT_LDAPS,
    };
    struct account_options options = {
        .realm = l->block->realm, .server = l->block->servers.item, .n_servers = l->block->servers.n,
        .protection = protections[l->block->bind], .ca = l->block->ca, .base = l->block->base,
        .timeout_ms = LDAP_TIMEOUT_MS, .credential = { .context = c, .get = get_credential },
    };
    if (l->block->password_file) {
        c->password = l->password;
        l->password = NULL;
        options.credential.password = get_password;
        options.credential.name = l->block->principal;
    }
    if (account_directory_new(&options, &c->directory, &l->err) == 0)
        return c;
    free_connection(c);
    return NULL;
}

static struct connection *take_connection(struct lookup *l)
{
    struct connection *taken = NULL;
    pthread_mutex_lock(&connections.lock);
    for (size_t i = 0; i < connections.n && !taken; i++) {
        struct connection *c = connections.idle[i];
        if (c->block == l->block && c->keytab == l->keytab) {
            taken = c;
            connections.idle[i] = connections.idle[--connections.n];
        }
    }
    pthread_mutex_unlock(&connections.lock);
    return taken ? taken : new_connection(l);
}

/* The oldest makes room: it may belong to a configuration that is gone. */
static void give_connection(struct connection *c)
{
    struct connection *old = NULL;
    pthread_mutex_lock(&connections.lock);
    if (connections.n == IDLE_MAX) {
        old = connections.idle[0];
        connections.idle[0] = c;
    } else {
        connections.idle[connections.n++] = c;
    }
    pthread_mutex_unlock(&connections.lock);
    if (old)
        free_connection(old);
}

static void work(struct worker_job *job)
{
    struct lookup *l = (struct lookup *)job;
    l->found = IDENTITY_UNREACHABLE;
    if (now_mono_ms() > l->deadline_mono_ms) {
        err_set(&l->err, ERR_BUSY, "too many wait for the directory");
        return;
    }
    struct connection *c = take_connection(l);
    if (!c)
        return;
    int rc = account_find(c->directory, &l->query, &l->arena, &l->answer, &l->err);
    if (rc == 0)
        l->found = l->answer.found ? IDENTITY_FOUND : IDENTITY_ABSENT;
    if (rc == 0 || rc == ERR_CORRUPT)
        give_connection(c);
    else
        free_connection(c);
}

/* ---- on the loop ---- */

static void run(struct identify *i);

static void free_identify(struct identify *i)
{
    identity_free(&i->identity);
    conf_unref(&i->conf);
    free(i);
}

static void finish(struct identify *i, const struct identity_result *result)
{
    if (i->answered)
        i->answered(i->arg, result);
    free_identify(i);
}

static void free_lookup(struct lookup *l)
{
    loop_timer_free(&l->timer);
    auth_keytab_unref(&l->keytab);
    secret_free(&l->password);
    conf_unref(&l->conf);
    arena_done(&l->arena);
    free(l);
}

static void feed(struct identify *i, const struct lookup *l)
{
    struct identity_value *values = calloc(l->answer.n_values + 1, sizeof *values);
    size_t n = 0;
    for (; values && l->found == IDENTITY_FOUND && n < l->answer.n_values; n++)
        values[n] = (struct identity_value){ .attribute = str_of(l->answer.value[n].attribute),
                                             .value = l->answer.value[n].value };
    identity_answer(i->identity, values ? l->found : IDENTITY_UNREACHABLE, values, n, str_of(err_text(&l->err)));
    free(values);
}

static void log_unreachable(const struct lookup *l)
{
    log_event(l->auth->ctx->log, LOG_LEVEL_ERROR, "auth.directory.failed", "directory \"%s\": %s", l->block->realm,
              err_text(&l->err));
}

static void lookup_done(struct worker_job *job)
{
    struct lookup *l = (struct lookup *)job;
    struct identify *i = l->identify;
    if (l->silent)
        l->auth->n_directory_lost--;
    if (l->found == IDENTITY_UNREACHABLE)
        log_unreachable(l);
    if (i) {
        i->lookup = NULL;
        feed(i, l);
    }
    free_lookup(l);
    if (i)
        run(i);
}

static void on_silent(void *arg)
{
    struct lookup *l = arg;
    struct identify *i = l->identify;
    l->silent = true;
    l->auth->n_directory_lost++;
    l->identify = NULL;
    if (i) {
        i->lookup = NULL;
        finish(i, NULL);
    }
}

static bool copy_query(struct lookup *l, const struct identity_query *query)
{
    const char **attribute = arena_alloc(&l->arena, (query->attributes.n + 1) * sizeof *attribute);
    l->query.account = arena_copy(&l->arena, query->account);
    l->query.principal = arena_copy(&l->arena, query->principal);
    for (size_t i = 0; attribute && i < query->attributes.n; i++)
        attribute[i] = query->attributes.item[i]; /* the snapshot's, which l->conf keeps */
    l->query.attribute = attribute;
    l->query.n_attributes = query->attributes.n;
    return attribute && l->query.account.p && l->query.principal.p;
}

static bool ask_directory(struct identify *i, const struct identity_query *query)
{
    struct auth *auth = i->auth;
    struct lookup *l = auth->n_directory_lost < IDENTIFY_THREADS ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return false;
    l->job = (struct worker_job){ .work = work, .done = lookup_done };
    l->auth = auth;
    l->identify = i;
    l->conf = conf_ref(i->conf);
    l->block = query->directory;
    l->keytab = auth_keytab_ref(auth_keytabs_find(auth->keytabs, IPC_KEYTAB_DIRECTORY, str_of(l->block->realm)));
    const struct secret *password = auth_bind_password(auth, l->block->realm);
    l->password = password ? secret_new(secret_bytes(password)) : NULL;
    l->deadline_mono_ms = now_mono_ms() + IDENTIFY_DEADLINE_MS;
    arena_init(&l->arena, ARENA_MAX);
    if (!copy_query(l, query) || loop_timer_new(auth->ctx->loop, on_silent, l, &l->timer, NULL) < 0 ||
        worker_submit(auth->directory_pool, &l->job) < 0) {
        free_lookup(l);
        return false;
    }
    i->lookup = l;
    loop_timer_set(l->timer, IDENTIFY_DEADLINE_MS);
    return true;
}

static void run(struct identify *i)
{
    switch (identity_run(i->identity)) {
    case IDENTITY_DONE:
        finish(i, identity_result(i->identity));
        return;
    case IDENTITY_ASK:
        if (ask_directory(i, identity_query(i->identity)))
            return;
        identity_answer(i->identity, IDENTITY_UNREACHABLE, NULL, 0, STR("the directory is silent, or too many ask it"));
        run(i);
        return;
    case IDENTITY_NO_MEMORY:
        finish(i, NULL);
        return;
    }
}

void identify_ask(struct auth *auth, const struct identity_login *login, identify_fn *answered, void *arg,
                  struct identify **ret_identify)
{
    struct err err;
    struct identify *i = calloc(1, sizeof *i);
    *ret_identify = NULL;
    if (!i || !auth->rules || identity_new(auth->rules, login, &i->identity, &err) < 0) {
        free(i);
        answered(arg, NULL);
        return;
    }
    i->auth = auth;
    i->conf = conf_ref(auth->rules_conf);
    i->answered = answered;
    i->arg = arg;
    *ret_identify = i; /* before: the answer clears it */
    run(i);
}

void identify_drop(struct identify **identify)
{
    struct identify *i = *identify;
    *identify = NULL;
    if (!i || !i->lookup)
        return; /* without a question it is on its way out already */
    i->lookup->identify = NULL;
    free_identify(i);
}
