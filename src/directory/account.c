/* Happy path: connect to the first server that answers, protect the connection, log in with the caller's credential,
 * search by each filter until an entry fits, read its attributes range by range; the connection stays.
 * Ways to fail: a server is silent (the time-out, then the next one), its certificate or name is wrong, the login is
 * refused, the kept connection is dead (made again once), two entries fit. */
#include "directory/account.h"

#include <ldap.h>
#include <stdlib.h>
#include <sys/time.h>

enum { FILTER_MAX = 4096, SERVERS_MAX = 32, FITTING_MAX = 2 };

struct account_directory {
    struct arena arena;              /* of the options' copies */
    struct account_options o;
    const char **server;
    LDAP *connection;
    const char *connected_to;
};

static int no_memory(struct err *err)
{
    return err_set(err, ERR_LIMIT, "out of memory");
}

int account_directory_new(const struct account_options *options, struct account_directory **ret_directory,
                          struct err *err)
{
    struct account_directory *d = calloc(1, sizeof *d);
    struct buf base;
    *ret_directory = NULL;
    if (!d)
        return no_memory(err);
    arena_init(&d->arena, 1 << 20);
    buf_init(&base, FILTER_MAX);
    d->o = *options;
    d->o.n_servers = options->n_servers < SERVERS_MAX ? options->n_servers : SERVERS_MAX;
    d->server = arena_alloc(&d->arena, (d->o.n_servers + 1) * sizeof *d->server);
    bool ok = d->server && (options->base || account_base_of_realm(options->realm, &base));
    d->o.realm = arena_strdup(&d->arena, str_of(options->realm));
    d->o.base = ok ? arena_strdup(&d->arena, options->base ? str_of(options->base) : buf_str(&base)) : NULL;
    d->o.credential.name = arena_strdup(&d->arena, str_of(options->credential.name ? options->credential.name : ""));
    d->o.ca = options->ca ? arena_strdup(&d->arena, str_of(options->ca)) : NULL;
    ok = ok && d->o.realm && d->o.base && d->o.credential.name && (d->o.ca || !options->ca);
    for (size_t i = 0; ok && i < d->o.n_servers; i++)
        ok = (d->server[i] = arena_strdup(&d->arena, str_of(options->server[i]))) != NULL;
    d->o.server = d->server;
    buf_done(&base);
    if (!ok) {
        account_directory_free(&d);
        return no_memory(err);
    }
    *ret_directory = d;
    return 0;
}

static void disconnect(struct account_directory *d)
{
    if (d->connection)
        ldap_unbind_ext_s(d->connection, NULL, NULL);
    d->connection = NULL;
    d->connected_to = NULL;
}

void account_directory_free(struct account_directory **directory)
{
    struct account_directory *d = *directory;
    if (!d)
        return;
    disconnect(d);
    arena_done(&d->arena);
    free(d);
    *directory = NULL;
}

/* What libldap and, below it, SASL or TLS have to say. */
static int ldap_failure(LDAP *connection, int rc, const char *server, const char *step, struct err *err)
{
    char *detail = NULL;
    ldap_get_option(connection, LDAP_OPT_DIAGNOSTIC_MESSAGE, &detail);
    bool refused = rc == LDAP_INVALID_CREDENTIALS || rc == LDAP_INSUFFICIENT_ACCESS || rc == LDAP_STRONG_AUTH_REQUIRED;
    /* What GnuTLS says about a certificate gets lost on the way. */
    if (detail && str_eq(str_of(detail), STR("(unknown error code)"))) {
        ldap_memfree(detail);
        detail = ldap_strdup("no TLS; is the certificate signed by ca, and does it name the server?");
    }
    int code = err_set(err, refused ? ERR_AUTH : ERR_CLOSED, "%s: %s: %s%s%.300s", server, step, ldap_err2string(rc),
                       detail && *detail ? ": " : "", detail && *detail ? detail : "");
    ldap_memfree(detail);
    return code;
}

static bool set_options(LDAP *connection, const struct account_options *o)
{
    const struct timeval limit = { .tv_sec = o->timeout_ms / 1000, .tv_usec = (o->timeout_ms % 1000) * 1000 };
    const int version = LDAP_VERSION3, demand = LDAP_OPT_X_TLS_HARD, context = 0;
    const int binding = LDAP_OPT_X_SASL_CBINDING_TLS_ENDPOINT;
    bool ok = ldap_set_option(connection, LDAP_OPT_PROTOCOL_VERSION, &version) == 0
              && ldap_set_option(connection, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) == 0
              && ldap_set_option(connection, LDAP_OPT_NETWORK_TIMEOUT, &limit) == 0
              && ldap_set_option(connection, LDAP_OPT_TIMEOUT, &limit) == 0
              && ldap_set_option(connection, LDAP_OPT_X_SASL_NOCANON, LDAP_OPT_ON) == 0;
    /* Kerberos protects the connection itself, or leaves that to TLS: Active Directory takes no layer within it. */
    if (o->protection == ACCOUNT_GSSAPI)
        return ok && ldap_set_option(connection, LDAP_OPT_X_SASL_SECPROPS, "minssf=56") == 0;
    return ok && ldap_set_option(connection, LDAP_OPT_X_SASL_SECPROPS, "maxssf=0") == 0
           && ldap_set_option(connection, LDAP_OPT_X_SASL_CBINDING, &binding) == 0
           && ldap_set_option(connection, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand) == 0
           && (!o->ca || ldap_set_option(connection, LDAP_OPT_X_TLS_CACERTFILE, o->ca) == 0)
           && ldap_set_option(connection, LDAP_OPT_X_TLS_NEWCTX, &context) == 0;
}

/* SASL asks whether it is to act for somebody else; no answer is a no. And this is the first moment at which the
 * connection takes a credential. */
static int interact(LDAP *connection, unsigned flags, void *credential, void *questions)
{
    if (credential)
        ldap_set_option(connection, LDAP_OPT_X_SASL_GSS_CREDS, credential);
    return LDAP_SUCCESS;
}

/* An empty password would be taken for no login at all, and that for a success. */
static int log_in_simple(struct account_directory *d, LDAP *connection, const char *server, struct err *err)
{
    struct buf password;
    buf_init(&password, ACCOUNT_VALUE_MAX);
    int code = d->o.protection == ACCOUNT_GSSAPI
                   ? err_set(err, ERR_CONFIG, "%s: a password is sent under TLS only", server)
                   : d->o.credential.password(d->o.credential.context, &password, err);
    if (code == 0 && password.n == 0)
        code = err_set(err, ERR_CONFIG, "%s: the password is empty", server);
    if (code == 0) {
        struct berval value = { .bv_len = password.n, .bv_val = password.p };
        int rc = ldap_sasl_bind_s(connection, d->o.credential.name, LDAP_SASL_SIMPLE, &value, NULL, NULL, NULL);
        code = rc == LDAP_SUCCESS ? 0 : ldap_failure(connection, rc, server, "login with a password", err);
    }
    buf_wipe(&password);
    return code;
}

static int log_in(struct account_directory *d, LDAP *connection, const char *server, struct err *err)
{
    void *credential = NULL;
    if (d->o.credential.password)
        return log_in_simple(d, connection, server, err);
    int code = d->o.credential.get ? d->o.credential.get(d->o.credential.context, &credential, err) : 0;
    if (code < 0)
        return code;
    int rc = ldap_sasl_interactive_bind_s(connection, NULL, "GSSAPI", NULL, NULL, LDAP_SASL_QUIET, interact, credential);
    return rc == LDAP_SUCCESS ? 0 : ldap_failure(connection, rc, server, "login by GSSAPI", err);
}

static int connect_to(struct account_directory *d, const char *server, struct err *err)
{
    LDAP *connection = NULL;
    int rc = ldap_initialize(&connection, server);
    if (rc != LDAP_SUCCESS)
        return err_set(err, ERR_LIMIT, "%s: %s", server, ldap_err2string(rc));
    const char *step = "setting up";
    if (!set_options(connection, &d->o))
        rc = LDAP_PARAM_ERROR;
    if (rc == LDAP_SUCCESS && d->o.protection == ACCOUNT_STARTTLS) {
        step = "STARTTLS";
        rc = ldap_start_tls_s(connection, NULL, NULL);
    }
    if (rc == LDAP_SUCCESS && d->o.protection != ACCOUNT_STARTTLS) {
        step = "connect";
        rc = ldap_connect(connection);
    }
    int code = rc == LDAP_SUCCESS ? 0 : ldap_failure(connection, rc, server, step, err);
    if (code == 0)
        code = log_in(d, connection, server, err);
    if (code < 0) {
        ldap_unbind_ext_s(connection, NULL, NULL);
        return code;
    }
    d->connection = connection;
    d->connected_to = server;
    return 0;
}

/* A refused login is refused by all servers of the realm; other failures may be one server's. */
static int connect_any(struct account_directory *d, struct err *err)
{
    int rc = err_set(err, ERR_CONFIG, "the directory of %s has no servers", d->o.realm);
    for (size_t i = 0; i < d->o.n_servers; i++) {
        rc = connect_to(d, d->server[i], err);
        if (rc == 0 || rc == ERR_AUTH)
            break;
    }
    return rc;
}

/* The answer as it grows. */
struct gathering {
    struct arena *arena;
    struct account_value *value;
    size_t n;
    bool full, no_memory;
};

static void gather(struct gathering *g, const char *attribute, const struct berval *const *values)
{
    for (size_t i = 0; values && values[i]; i++) {
        g->full = g->full || g->n == ACCOUNT_VALUES_MAX;
        if (g->full)
            return;
        if (values[i]->bv_len > ACCOUNT_VALUE_MAX)
            continue;
        struct str copy = arena_copy(g->arena, str_slice(values[i]->bv_val, values[i]->bv_len));
        if (!copy.p) {
            g->no_memory = true;
            return;
        }
        g->value[g->n++] = (struct account_value){ attribute, copy };
    }
}

/* One search; *ret_message is to be freed whatever comes back. */
static int search(struct account_directory *d, const char *base, int scope, const char *filter,
                  const char *const *attribute, LDAPMessage **ret_message, struct err *err)
{
    struct timeval limit = { .tv_sec = d->o.timeout_ms / 1000, .tv_usec = (d->o.timeout_ms % 1000) * 1000 };
    *ret_message = NULL;
    int rc = ldap_search_ext_s(d->connection, base, scope, filter, (char **)attribute, 0, NULL, NULL, &limit, FITTING_MAX,
                               ret_message);
    /* Two fit already, that is enough to know. */
    if (rc == LDAP_SUCCESS || (rc == LDAP_SIZELIMIT_EXCEEDED && *ret_message))
        return 0;
    if (rc == LDAP_NO_SUCH_OBJECT)
        return err_set(err, ERR_CONFIG, "%s: there is no entry %s", d->connected_to, base);
    return ldap_failure(d->connection, rc, d->connected_to, "search", err);
}

/* The rest of an attribute that the server cut: asked from `next` on until it says that this was the end. */
static int read_ranges(struct account_directory *d, const char *entry, const char *attribute, uint32_t next,
                       struct gathering *g, struct err *err)
{
    while (next && !g->full && !g->no_memory) {
        const char *asked = arena_printf(g->arena, "%s;range=%u-*", attribute, next);
        const char *const list[] = { asked, NULL };
        LDAPMessage *message = NULL;
        uint32_t after = 0;
        if (!asked)
            return no_memory(err);
        int rc = search(d, entry, LDAP_SCOPE_BASE, "(objectClass=*)", list, &message, err);
        LDAPMessage *first = rc == 0 ? ldap_first_entry(d->connection, message) : NULL;
        BerElement *at = NULL;
        for (char *name = first ? ldap_first_attribute(d->connection, first, &at) : NULL; name;
             name = ldap_next_attribute(d->connection, first, at)) {
            struct str plain;
            uint32_t behind;
            if (account_range_parse(str_of(name), &plain, &behind) && str_eq_nocase(plain, str_of(attribute))) {
                struct berval **values = ldap_get_values_len(d->connection, first, name);
                gather(g, attribute, (const struct berval *const *)values);
                ldap_value_free_len(values);
                after = behind;
            }
            ldap_memfree(name);
        }
        ber_free(at, 0);
        ldap_msgfree(message);
        if (rc < 0)
            return rc;
        next = after > next ? after : 0; /* a server that repeats itself is not asked for ever */
    }
    return 0;
}

static int read_entry(struct account_directory *d, LDAPMessage *entry, struct gathering *g,
                      struct account_answer *ret_answer, struct err *err)
{
    char *dn = ldap_get_dn(d->connection, entry);
    const char *entry_name = arena_strdup(g->arena, str_of(dn));
    ldap_memfree(dn);
    g->value = arena_alloc(g->arena, ACCOUNT_VALUES_MAX * sizeof *g->value);
    if (!entry_name || !g->value)
        return no_memory(err);
    int rc = 0;
    BerElement *at = NULL;
    for (char *name = ldap_first_attribute(d->connection, entry, &at); name;
         name = ldap_next_attribute(d->connection, entry, at)) {
        struct str plain = str_of(name);
        uint32_t next = 0;
        account_range_parse(str_of(name), &plain, &next);
        const char *attribute = arena_strdup(g->arena, plain);
        struct berval **values = ldap_get_values_len(d->connection, entry, name);
        if (attribute)
            gather(g, attribute, (const struct berval *const *)values);
        g->no_memory = g->no_memory || !attribute;
        ldap_value_free_len(values);
        ldap_memfree(name);
        if (attribute && next && rc == 0)
            rc = read_ranges(d, entry_name, attribute, next, g, err);
    }
    ber_free(at, 0);
    if (rc == 0 && g->no_memory)
        rc = no_memory(err);
    *ret_answer = (struct account_answer){ .found = rc == 0, .name = entry_name, .value = g->value, .n_values = g->n };
    return rc;
}

/* 0 with *ret_answer->found, or without when nothing fits this filter. */
static int try_filter(struct account_directory *d, const struct account_query *query, const char *filter,
                      struct arena *arena, struct account_answer *ret_answer, struct err *err)
{
    const char *list[ACCOUNT_ATTRIBUTES_MAX + 1] = { 0 };
    struct gathering g = { .arena = arena };
    LDAPMessage *message = NULL;
    for (size_t i = 0; i < query->n_attributes && i < ACCOUNT_ATTRIBUTES_MAX; i++)
        list[i] = query->attribute[i];
    int rc = search(d, d->o.base, LDAP_SCOPE_SUBTREE, filter, list, &message, err);
    int n = rc == 0 ? ldap_count_entries(d->connection, message) : 0;
    if (n > 1)
        rc = err_set(err, ERR_CORRUPT, "%s: more than one account fits %s", d->connected_to, filter);
    else if (n == 1)
        rc = read_entry(d, ldap_first_entry(d->connection, message), &g, ret_answer, err);
    ldap_msgfree(message);
    return rc;
}

enum { FILTERS = 2 };

/* In the order in which they are tried; an empty one ends them. */
static bool make_filters(const struct account_query *query, struct buf filter[FILTERS])
{
    struct buf value;
    size_t at = query->principal.n;
    while (at > 0 && query->principal.p[at - 1] != '@')
        at--;
    struct str service = at ? str_slice(query->principal.p, at - 1) : query->principal;
    buf_init(&value, FILTER_MAX / 3);
    bool ok = account_filter_escape(query->account.n ? query->account : service, &value);
    ok = ok && buf_addf(&filter[0], query->account.n ? "(sAMAccountName=%.*s)" : "(servicePrincipalName=%.*s)",
                        STR_ARG(buf_str(&value)));
    buf_clear(&value);
    ok = ok && account_filter_escape(query->principal, &value);
    ok = ok && buf_addf(&filter[1], "(|(userPrincipalName=%.*s)(krbPrincipalName=%.*s))", STR_ARG(buf_str(&value)),
                        STR_ARG(buf_str(&value)));
    buf_done(&value);
    return ok && buf_cstr(&filter[0]) && buf_cstr(&filter[1]);
}

static int find_once(struct account_directory *d, const struct account_query *query, const struct buf filter[FILTERS],
                     struct arena *arena, struct account_answer *ret_answer, struct err *err)
{
    int rc = d->connection ? 0 : connect_any(d, err);
    for (size_t i = 0; i < FILTERS && rc == 0 && !ret_answer->found; i++)
        rc = try_filter(d, query, filter[i].p, arena, ret_answer, err);
    ret_answer->server = rc == 0 ? d->connected_to : NULL;
    if (rc == ERR_CLOSED || rc == ERR_AUTH)
        disconnect(d);
    return rc;
}

int account_find(struct account_directory *d, const struct account_query *query, struct arena *arena,
                 struct account_answer *ret_answer, struct err *err)
{
    struct buf filter[FILTERS];
    bool kept = d->connection != NULL;
    *ret_answer = (struct account_answer){ 0 };
    for (size_t i = 0; i < FILTERS; i++)
        buf_init(&filter[i], FILTER_MAX);
    int rc = make_filters(query, filter) ? 0 : err_set(err, ERR_LIMIT, "the name of the account is too long");
    if (rc == 0)
        rc = find_once(d, query, filter, arena, ret_answer, err);
    if (rc == ERR_CLOSED && kept) {
        *ret_answer = (struct account_answer){ 0 };
        rc = find_once(d, query, filter, arena, ret_answer, err);
    }
    for (size_t i = 0; i < FILTERS; i++)
        buf_done(&filter[i]);
    return rc;
}
