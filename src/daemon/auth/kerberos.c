#include "daemon/auth/kerberos.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/arena.h"
#include "daemon/auth/gss_side.h"
#include "kerberos/library.h"

enum { SLOTS = 4, ARENA_MAX = 64 * 1024 };

/* One credential. Made by the first thread that needs it. */
struct slot {
    pthread_mutex_t lock;
    struct krb_acceptor *acceptor;
    struct krb_acceptor *again;    /* without a replay cache: for a token that the first has recorded just now */
};

struct auth_keytab {
    struct auth_keytab *next;
    atomic_uint refs;
    struct krb_keytab *keys;
    enum krb_cause cause;
    uint8_t detail;
    atomic_uint turn;
    struct slot slot[SLOTS];
    char *name, *path;
};

static void free_keytab(struct auth_keytab *keytab)
{
    for (size_t i = 0; i < SLOTS; i++) {
        krb_acceptor_free(&keytab->slot[i].acceptor);
        krb_acceptor_free(&keytab->slot[i].again);
        pthread_mutex_destroy(&keytab->slot[i].lock);
    }
    krb_keytab_free(&keytab->keys);
    free(keytab->name);
    free(keytab->path);
    free(keytab);
}

struct auth_keytab *auth_keytab_new(struct auth *auth, const struct ipc_file *file, int fd)
{
    struct auth_keytab *keytab = calloc(1, sizeof *keytab);
    if (!keytab)
        return NULL;
    atomic_init(&keytab->refs, 1);
    for (size_t i = 0; i < SLOTS; i++)
        pthread_mutex_init(&keytab->slot[i].lock, NULL);
    keytab->detail = file->detail;
    keytab->name = str_dup(file->name);
    keytab->path = str_dup(file->text);
    if (!keytab->name || !keytab->path) {
        free_keytab(keytab);
        return NULL;
    }
    struct err err;
    if (krb_keytab_load_fd(fd, keytab->path, &keytab->keys, &keytab->cause, &err) < 0)
        log_event(auth->ctx->log, LOG_LEVEL_ERROR, "auth.keytab.unusable", "%s (%s): logins by Kerberos get 454 4.7.0",
                  err_text(&err), krb_cause_word(keytab->cause));
    return keytab;
}

struct auth_keytab *auth_keytab_ref(struct auth_keytab *keytab)
{
    if (keytab)
        atomic_fetch_add(&keytab->refs, 1);
    return keytab;
}

void auth_keytab_unref(struct auth_keytab **keytab)
{
    if (*keytab && atomic_fetch_sub(&(*keytab)->refs, 1) == 1)
        free_keytab(*keytab);
    *keytab = NULL;
}

const struct krb_keytab *auth_keytab_keys(const struct auth_keytab *keytab)
{
    return keytab->keys;
}

enum krb_cause auth_keytab_cause(const struct auth_keytab *keytab)
{
    return keytab->cause;
}

const char *auth_keytab_path(const struct auth_keytab *keytab)
{
    return keytab->path;
}

/* ---- of one snapshot ---- */

struct auth_keytabs {
    struct auth_keytab *first;
};

struct auth_keytabs *auth_keytabs_new(void)
{
    return calloc(1, sizeof(struct auth_keytabs));
}

void auth_keytabs_free(struct auth_keytabs **keytabs)
{
    if (!*keytabs)
        return;
    for (struct auth_keytab *keytab = (*keytabs)->first, *next; keytab; keytab = next) {
        next = keytab->next;
        auth_keytab_unref(&keytab);
    }
    free(*keytabs);
    *keytabs = NULL;
}

void auth_keytabs_put(struct auth_keytabs *keytabs, struct auth_keytab *keytab)
{
    struct auth_keytab **at = &keytabs->first;
    while (*at && ((*at)->detail != keytab->detail || strcmp((*at)->name, keytab->name) != 0))
        at = &(*at)->next;
    struct auth_keytab *before = *at;
    keytab->next = before ? before->next : NULL;
    *at = keytab;
    auth_keytab_unref(&before);
}

struct auth_keytab *auth_keytabs_find(const struct auth_keytabs *keytabs, unsigned detail, struct str name)
{
    for (struct auth_keytab *keytab = keytabs ? keytabs->first : NULL; keytab; keytab = keytab->next)
        if (keytab->detail == detail && str_eq(str_of(keytab->name), name))
            return keytab;
    return NULL;
}

/* ---- one login ---- */

struct kerberos_exchange {
    struct gss_side side;
    struct auth_keytab *keytab;
    struct slot *slot;
    struct sasl_gss gss;
    struct krb_ticket ticket;
    struct arena arena;
    const char *service[KERBEROS_SERVICES_MAX];
    size_t n_services;
    const char *rcache;
    struct buf bindings, exporter; /* application data of both kinds of channel bindings; empty: none */
    bool has_ticket, binding_required;
};

static bool service_is_allowed(const struct kerberos_exchange *x)
{
    return krb_service_allowed(str_of(x->ticket.service), str_of(x->ticket.realm), x->service, x->n_services);
}

/* With SPNEGO the ticket may come in the second token only, and a client may show more than one: krb5 then opens one of
 * them, and we do not see which. So the first that is not for us stays; all must be. */
static void look_at_ticket(struct kerberos_exchange *x, struct str token)
{
    struct krb_ticket ticket;
    if ((x->has_ticket && !service_is_allowed(x)) || !krb_ticket_read(token, &ticket))
        return;
    x->ticket = ticket;
    x->has_ticket = true;
}

/* krb5 takes every ticket that a key of the keytab opens, whichever service of the account it is for; and afterwards it
 * names the keytab's entry, not the ticket's. So the ticket's own name is compared, after it has been opened: before that
 * krb5 has the better words for what is wrong with it. A ticket that krb5 could read and we could not is none of ours. */
static bool service_is_ours(struct kerberos_exchange *x)
{
    if (!x->has_ticket)
        krb_failure_set(&x->side.failure, KRB_CAUSE_SERVICE_NOT_ALLOWED, "no ticket could be read from what the client sent");
    else if (!service_is_allowed(x))
        krb_failure_set(&x->side.failure, KRB_CAUSE_SERVICE_NOT_ALLOWED, "the ticket is for %s", x->ticket.service);
    else
        return true;
    return false;
}

static bool open_context(struct kerberos_exchange *x, struct krb_acceptor **acceptor, const char *rcache,
                         struct str bindings)
{
    struct krb_acceptor_options options = { .keytab = x->keytab->keys, .rcache = rcache };
    if (!*acceptor && krb_acceptor_new(&options, acceptor, &x->side.failure) < 0)
        return false;
    struct krb_accept_options accept = { .bindings = bindings, .bindings_required = x->binding_required };
    krb_context_free(&x->side.context);
    if (krb_accept_new(*acceptor, &accept, &x->side.context) == 0)
        return true;
    krb_failure_set(&x->side.failure, KRB_CAUSE_INTERNAL, "out of memory");
    return false;
}

/* Clients bind to the certificate (Windows) or to the exporter (RFC 9266), and a token does not say to which. The first
 * look has told that it is nobody's copy, and has recorded it; so the second look needs no replay cache. */
static enum krb_status try_exporter(struct kerberos_exchange *x, struct str token, size_t before, struct buf *ret_token)
{
    if (krb_context_failure(x->side.context)->cause != KRB_CAUSE_BAD_BINDINGS || x->exporter.n == 0)
        return KRB_FAILED;
    ret_token->n = before; /* the error token of the first look */
    if (!open_context(x, &x->slot->again, "none:", buf_str(&x->exporter)))
        return KRB_FAILED;
    return krb_context_step(x->side.context, token, ret_token);
}

/* A keytab that holds the account's own name only: krb5 finds no row of the service and cannot see that the password was
 * changed. The ticket's version tells. */
static void look_at_version(struct kerberos_exchange *x)
{
    struct krb_keytab_match match;
    if (x->side.failure.cause != KRB_CAUSE_NOT_OUR_SERVICE || !x->has_ticket || !x->ticket.has_kvno || !service_is_allowed(x))
        return;
    krb_keytab_match(x->keytab->keys, &x->ticket, &match);
    /* A keytab with names of services is another account's, however new the ticket is. */
    if (match.rows_of_service == 0 && match.rows_with_service == 0 && x->ticket.kvno > match.kvno_highest_any)
        x->side.failure.cause = KRB_CAUSE_KVNO_OLD;
}

/* krb5 passes over keys of types that its configuration excludes, and then says that no key fits. */
static void look_at_enctype(struct kerberos_exchange *x)
{
    bool doubtful = x->side.failure.cause == KRB_CAUSE_WRONG_KEY || x->side.failure.cause == KRB_CAUSE_NOT_OUR_SERVICE;
    if (doubtful && x->has_ticket && !krb_enctype_permitted(x->ticket.enctype))
        x->side.failure.cause = KRB_CAUSE_ENCTYPE_UNSUPPORTED;
}

static enum sasl_gss_status step_locked(struct kerberos_exchange *x, struct str token, struct buf *ret_token)
{
    bool first = !x->side.context;
    if (first && !open_context(x, &x->slot->acceptor, x->rcache, buf_str(&x->bindings)))
        return SASL_GSS_FAILED;
    size_t before = ret_token->n;
    enum krb_status status = krb_context_step(x->side.context, token, ret_token);
    if (status == KRB_FAILED && first)
        status = try_exporter(x, token, before, ret_token);
    if (!x->side.context)
        return SASL_GSS_FAILED;
    switch (status) {
    case KRB_CONTINUE:
        return SASL_GSS_CONTINUE;
    case KRB_COMPLETE:
        return service_is_ours(x) ? SASL_GSS_COMPLETE : SASL_GSS_FAILED;
    case KRB_FAILED:
        break;
    }
    x->side.failure = *krb_context_failure(x->side.context);
    look_at_version(x);
    look_at_enctype(x);
    return SASL_GSS_FAILED;
}

static enum sasl_gss_status step(void *context, struct str token, struct buf *ret_token)
{
    struct kerberos_exchange *x = context;
    if (!x->keytab->keys) {
        krb_failure_set(&x->side.failure, x->keytab->cause, "the keytab %s could not be read", x->keytab->path);
        return SASL_GSS_FAILED;
    }
    look_at_ticket(x, token);
    pthread_mutex_lock(&x->slot->lock);
    enum sasl_gss_status status = step_locked(x, token, ret_token);
    pthread_mutex_unlock(&x->slot->lock);
    return status;
}

static void add_service(struct kerberos_exchange *x, const char *class, struct str host)
{
    const char *name = arena_printf(&x->arena, "%s/%.*s", class, STR_ARG(host));
    if (name && x->n_services < KERBEROS_SERVICES_MAX)
        x->service[x->n_services++] = name;
}

/* A name and its first label: clients within a domain leave the rest out. */
static void add_services(struct kerberos_exchange *x, const char *class, const char *name)
{
    struct str host = str_of(name);
    size_t dot = str_find(host, '.');
    add_service(x, class, host);
    if (dot < host.n)
        add_service(x, class, str_slice(host.p, dot));
}

/* As configured; otherwise both classes of every name of the server: what Exchange's peers ask for, and what
 * everybody else does. */
static void list_services(struct kerberos_exchange *x, const struct conf_server *server)
{
    static const char *const classes[] = { "SMTPSVC", "smtp" };
    for (size_t i = 0; i < server->spn.n && x->n_services < KERBEROS_SERVICES_MAX; i++) {
        const char *name = arena_strdup(&x->arena, str_of(server->spn.item[i]));
        if (name)
            x->service[x->n_services++] = name;
    }
    if (server->spn.n)
        return;
    for (size_t c = 0; c < 2; c++) {
        add_services(x, classes[c], server->name);
        for (size_t i = 0; i < server->aliases.n; i++)
            add_services(x, classes[c], server->aliases.item[i]);
    }
}

struct kerberos_exchange *kerberos_exchange_new(const struct kerberos_options *options)
{
    struct kerberos_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->keytab = auth_keytab_ref(options->keytab);
    x->slot = &x->keytab->slot[atomic_fetch_add(&x->keytab->turn, 1) % SLOTS];
    x->gss = gss_side_table(&x->side, step);
    arena_init(&x->arena, ARENA_MAX);
    buf_init(&x->bindings, 256);
    buf_init(&x->exporter, 256);
    list_services(x, options->server);
    x->rcache = arena_strdup(&x->arena, options->rcache);
    x->binding_required = options->binding_required && options->cert_hash.n > 0;
    if (options->cert_hash.n > 0)
        krb_binding_build(KRB_BINDING_SERVER_END_POINT, options->cert_hash, &x->bindings);
    if (options->exporter.n > 0)
        krb_binding_build(KRB_BINDING_EXPORTER, options->exporter, &x->exporter);
    if (!x->rcache || x->bindings.failed || x->exporter.failed)
        kerberos_exchange_free(&x);
    return x;
}

void kerberos_exchange_free(struct kerberos_exchange **exchange)
{
    struct kerberos_exchange *x = *exchange;
    if (!x)
        return;
    krb_context_free(&x->side.context);
    auth_keytab_unref(&x->keytab);
    buf_done(&x->bindings);
    buf_done(&x->exporter);
    arena_done(&x->arena);
    free(x);
    *exchange = NULL;
}

const struct sasl_gss *kerberos_exchange_gss(const struct kerberos_exchange *exchange)
{
    return &exchange->gss;
}

const struct krb_failure *kerberos_exchange_failure(const struct kerberos_exchange *exchange)
{
    return &exchange->side.failure;
}

const struct krb_ticket *kerberos_exchange_ticket(const struct kerberos_exchange *exchange)
{
    return exchange->has_ticket ? &exchange->ticket : NULL;
}

struct auth_keytab *kerberos_exchange_keytab(const struct kerberos_exchange *exchange)
{
    return exchange->keytab;
}

size_t kerberos_exchange_services(const struct kerberos_exchange *exchange, const char *const **ret_services)
{
    *ret_services = exchange->service;
    return exchange->n_services;
}

int kerberos_exchange_seal(struct kerberos_exchange *exchange, struct buf *ret_state, struct err *err)
{
    return gss_side_seal(&exchange->side, ret_state, err);
}
