/* check: what must stand together, and what must not. Each rule is a function over one block or the whole; it adds
 * to the list and goes on. A rule about something missing keeps silent when that something was written but is wrong
 * or misspelt: one slip, one line. */
#include <stdio.h>
#include <stdlib.h>

#include "conf/network.h"
#include "conf/snapshot.h"

const struct conf_node *conf_check_written(const struct conf_node *first, const char *name)
{
    const char *const only[] = { name, NULL };
    const struct conf_node *found = NULL, *near = NULL;
    for (const struct conf_node *node = first; node; node = node->next) {
        if (str_eq(str_of(node->name), str_of(name)))
            found = node;
        else if (!near && conf_nearest(str_of(node->name), only))
            near = node;
    }
    return found ? found : near;
}

struct conf_place conf_check_place(const struct conf_node *block, const char *name)
{
    const struct conf_node *node = conf_check_written(block->child, name);
    return node ? node->place : block->place;
}

static bool is_clear_text(const char *mechanism)
{
    return str_eq(str_of(mechanism), STR("PLAIN")) || str_eq(str_of(mechanism), STR("LOGIN"));
}

static bool only_clear_text(struct conf_strings mechanisms)
{
    for (size_t i = 0; i < mechanisms.n; i++)
        if (!is_clear_text(mechanisms.item[i]))
            return false;
    return true;
}

static bool needs_tls(enum conf_accept accept)
{
    return accept == CONF_ACCEPT_TLS || accept == CONF_ACCEPT_AUTH_TLS;
}

static bool needs_auth(enum conf_accept accept)
{
    return accept == CONF_ACCEPT_AUTH || accept == CONF_ACCEPT_AUTH_TLS;
}

static const char *accept_name(enum conf_accept accept)
{
    return conf_option_find(CONF_SERVER, STR("accept"))->choices[accept];
}

static bool all_loopback(struct conf_strings listen)
{
    for (size_t i = 0; i < listen.n; i++) {
        unsigned char address[16];
        uint16_t port;
        if (network_listen_parse(str_of(listen.item[i]), address, &port) && !network_is_loopback(address))
            return false;
    }
    return true;
}

static bool server_is_loopback(const struct conf_server *server)
{
    return all_loopback(server->listen) && all_loopback(server->submission) && all_loopback(server->submissions);
}

static const char CERTIFICATE_HINT[] = "add certificate = \"FILE\" (and key = \"FILE\")";

/* What asks for TLS, where there is none. */
static void check_certificate(struct conf_draft *d, const struct conf_server *server,
                              const struct conf_server_origin *origin)
{
    const struct conf_node *node = origin->node;
    if (server->key && !server->certificate && !conf_check_written(node->child, "certificate"))
        conf_mistake_add(d->mistakes, conf_check_place(node, "key"), "key", CERTIFICATE_HINT,
                         "server \"%s\" has a key and no certificate", server->name);
    if (server->certificate || conf_check_written(node->child, "certificate"))
        return;
    if (needs_tls(server->accept) && server->encryption == CONF_ENCRYPTION_TLS)
        conf_mistake_add(d->mistakes, conf_check_place(node, "accept"), "certificate", CERTIFICATE_HINT,
                         "accept = \"%s\" needs TLS, and server \"%s\" has no certificate", accept_name(server->accept),
                         server->name);
    if (server->submission.n)
        conf_mistake_add(d->mistakes, conf_check_place(node, "submission"), "certificate", CERTIFICATE_HINT,
                         "submission needs TLS, and server \"%s\" has no certificate", server->name);
    if (server->submissions.n)
        conf_mistake_add(d->mistakes, conf_check_place(node, "submissions"), "certificate", CERTIFICATE_HINT,
                         "submissions needs TLS, and server \"%s\" has no certificate", server->name);
    for (size_t i = 0; i < server->n_hosts; i++)
        if (needs_tls(server->host[i].accept) && server->host[i].encryption == CONF_ENCRYPTION_TLS
            && conf_check_written(origin->host[i]->child, "accept"))
            conf_mistake_add(d->mistakes, conf_check_place(origin->host[i], "accept"), "certificate", CERTIFICATE_HINT,
                             "accept = \"%s\" for host \"%s\" needs TLS, and server \"%s\" has no certificate",
                             accept_name(server->host[i].accept), server->host[i].network, server->name);
}

/* Can a host that must authenticate do so? */
static void check_reachable_auth(struct conf_draft *d, const struct conf_server *server, const struct conf_node *node,
                                 enum conf_accept accept, struct conf_strings mechanisms, bool plaintext)
{
    if (conf_check_written(node->child, "mechanisms") && mechanisms.n == 0 && needs_auth(accept))
        conf_mistake_add(d->mistakes, conf_check_place(node, "mechanisms"), "mechanisms", "name at least one",
                         "accept = \"%s\" asks for authentication, and no mechanism is offered", accept_name(accept));
    else if (accept == CONF_ACCEPT_AUTH && only_clear_text(mechanisms) && mechanisms.n && !plaintext
             && !server->certificate && !conf_check_written(node->child, "certificate"))
        conf_mistake_add(d->mistakes, conf_check_place(node, "accept"), "accept",
                         "add a certificate, or SCRAM-SHA-256 to mechanisms",
                         "nobody can authenticate: PLAIN and LOGIN need TLS, and server \"%s\" has no certificate",
                         server->name);
}

/* An open relay is a mistake, a wide one a warning; the same goes for passwords in clear text. */
static void check_fences(struct conf_draft *d, const struct conf_host *host, const struct conf_node *node)
{
    bool v4 = network_is_ipv4(host->address) && host->prefix_bits >= 96;
    unsigned bits = v4 ? host->prefix_bits - 96 : host->prefix_bits;
    if (network_is_loopback(host->address) && bits >= 8)
        return;
    if (host->relay && conf_check_written(node->child, "relay")) {
        if (bits == 0 && !needs_auth(host->accept) && host->accept != CONF_ACCEPT_DENY)
            conf_mistake_add(d->mistakes, conf_check_place(node, "relay"), "relay", "name the networks that may relay",
                             "relay = true for \"%s\" makes an open relay", host->network);
        else if (bits < (v4 ? 8u : 32u))
            conf_warning_add(d->mistakes, conf_check_place(node, "relay"), "relay", "name smaller networks",
                             "relay = true for \"%s\" holds for very many hosts", host->network);
    }
    if (host->plaintext && conf_check_written(node->child, "plaintext") && bits < (v4 ? 24u : 64u))
        conf_warning_add(d->mistakes, conf_check_place(node, "plaintext"), "plaintext", "name single devices",
                         "plaintext = true for \"%s\": passwords of a whole network may go in clear text",
                         host->network);
}

static int by_network(const void *a, const void *b)
{
    const struct conf_host *x = *(const struct conf_host *const *)a, *y = *(const struct conf_host *const *)b;
    if (x->prefix_bits != y->prefix_bits)
        return x->prefix_bits < y->prefix_bits ? -1 : 1;
    int address = memcmp(x->address, y->address, 16);
    return address ? address : x < y ? -1 : x > y;
}

static bool network_is_good(const struct conf_host *host)
{
    unsigned char address[16];
    unsigned bits;
    char right[NETWORK_TEXT_BYTES];
    return network_parse(str_of(host->network), address, &bits, right, NULL) == 0;
}

static void check_hosts(struct conf_draft *d, const struct conf_server *server, const struct conf_server_origin *origin)
{
    const struct conf_host **sorted = arena_alloc(d->scratch, (server->n_hosts + 1) * sizeof *sorted);
    size_t n = 0;
    d->out_of_memory = d->out_of_memory || !sorted;
    for (size_t i = 0; i < server->n_hosts && sorted; i++) {
        const struct conf_host *host = &server->host[i];
        check_reachable_auth(d, server, origin->host[i], host->accept, host->mechanisms, host->plaintext);
        if (!network_is_good(host))
            continue;
        check_fences(d, host, origin->host[i]);
        sorted[n++] = host;
    }
    if (n)
        qsort(sorted, n, sizeof *sorted, by_network);
    for (size_t i = 1; i < n; i++) {
        const struct conf_host *a = sorted[i - 1], *b = sorted[i];
        if (a->prefix_bits == b->prefix_bits && memcmp(a->address, b->address, 16) == 0)
            conf_mistake_add(d->mistakes, b->place, "host", "keep one of the two",
                             "host \"%s\" was given already at %s:%u", b->network, a->place.file, a->place.line);
    }
}

static void check_server(struct conf_draft *d, const struct conf_server *server,
                         const struct conf_server_origin *origin)
{
    const struct conf_node *node = origin->node;
    check_certificate(d, server, origin);
    check_reachable_auth(d, server, node, server->accept, server->mechanisms, server->plaintext);
    if (server->relay && !needs_auth(server->accept) && server->accept != CONF_ACCEPT_DENY
        && !server_is_loopback(server))
        conf_mistake_add(d->mistakes, conf_check_place(node, "relay"), "relay", "write relay = true into host blocks",
                         "relay = true for all hosts of server \"%s\" makes an open relay", server->name);
    if (server->plaintext && !server_is_loopback(server))
        conf_warning_add(d->mistakes, conf_check_place(node, "plaintext"), "plaintext", "write it into host blocks",
                         "plaintext = true for all hosts of server \"%s\": passwords may go in clear text",
                         server->name);
    if (server->tls_min && strcmp(server->tls_min, "1.2") < 0)
        conf_warning_add(d->mistakes, conf_check_place(node, "tls_min"), "tls_min", "1.2 is the default",
                         "TLS %s is broken and kept only for devices that know nothing newer", server->tls_min);
    check_hosts(d, server, origin);
}

/* One listening address, for finding pairs. */
struct listener {
    unsigned char address[16];
    uint16_t port;
    enum conf_listener_kind kind;
    size_t server;
    const char *text;
    struct conf_place place;
};

static int by_address(const void *a, const void *b)
{
    const struct listener *x = a, *y = b;
    if (x->port != y->port)
        return x->port < y->port ? -1 : 1;
    int address = memcmp(x->address, y->address, 16);
    if (address)
        return address;
    return x->server != y->server ? (x->server < y->server ? -1 : 1) : (int)x->kind - (int)y->kind;
}

static void add_listeners(struct conf_draft *d, size_t server, enum conf_listener_kind kind, struct listener *list,
                          size_t *n)
{
    static const char *const names[] = { "listen", "submission", "submissions" };
    const struct conf_server *s = &d->server[server];
    struct conf_strings strings = kind == CONF_LISTEN       ? s->listen
                                  : kind == CONF_SUBMISSION ? s->submission
                                                            : s->submissions;
    struct conf_place place = conf_check_place(d->server_origin[server].node, names[kind]);
    for (size_t i = 0; i < strings.n; i++) {
        struct listener *l = &list[*n];
        *l = (struct listener){ .kind = kind, .server = server, .text = strings.item[i], .place = place };
        if (network_listen_parse(str_of(l->text), l->address, &l->port))
            (*n)++;
    }
}

/* Two servers may share an address and port for one kind: the name in the TLS handshake decides. */
static void check_listener_pair(struct conf_draft *d, const struct listener *a, const struct listener *b)
{
    const struct conf_server *server = &d->server[a->server], *other = &d->server[b->server];
    if (a->server == b->server)
        conf_mistake_add(d->mistakes, b->place, "listen", "take one out", "%s stands twice in server \"%s\"", b->text,
                         server->name);
    else if (a->kind != b->kind)
        conf_mistake_add(d->mistakes, b->place, "listen", "use another port, or the same kind of port",
                         "%s is taken by server \"%s\" for another kind of port at %s:%u", b->text, server->name,
                         a->place.file, a->place.line);
    else if (!other->certificate && !conf_check_written(d->server_origin[b->server].node->child, "certificate"))
        conf_mistake_add(d->mistakes, b->place, "listen", "use another address, or add a certificate",
                         "%s is taken by server \"%s\" at %s:%u, and without TLS no client can ask for \"%s\"", b->text,
                         server->name, a->place.file, a->place.line, other->name);
}

static void check_listeners(struct conf_draft *d)
{
    size_t all = 0, n = 0;
    for (size_t i = 0; i < d->conf->n_servers; i++)
        all += d->server[i].listen.n + d->server[i].submission.n + d->server[i].submissions.n;
    struct listener *list = arena_alloc(d->scratch, (all + 1) * sizeof *list);
    if (!list) {
        d->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < d->conf->n_servers; i++)
        for (int kind = CONF_LISTEN; kind <= CONF_SUBMISSIONS; kind++)
            add_listeners(d, i, (enum conf_listener_kind)kind, list, &n);
    if (n == 0 && d->conf->n_servers && !conf_check_written(d->server_origin[0].node->child, "listen"))
        conf_mistake_add(d->mistakes, d->server[0].place, "listen", "add listen = {\"ADDRESS:25\"}",
                         "no server listens anywhere");
    if (n)
        qsort(list, n, sizeof *list, by_address);
    size_t first = 0;
    for (size_t i = 1; i < n; i++) {
        bool same = list[i].port == list[first].port && memcmp(list[i].address, list[first].address, 16) == 0;
        if (same && list[i].server == list[i - 1].server)
            check_listener_pair(d, &list[i - 1], &list[i]);
        else if (same)
            check_listener_pair(d, &list[first], &list[i]);
        else
            first = i;
    }
}

static const struct conf_server *find_server(const struct conf_draft *d, const char *name)
{
    for (size_t i = 0; i < d->conf->n_servers; i++)
        if (str_eq_nocase(str_of(d->server[i].name), str_of(name)))
            return &d->server[i];
    return NULL;
}

static void check_domain_server(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node)
{
    if (!domain->server || find_server(d, domain->server))
        return;
    const char **names = arena_alloc(d->scratch, (d->conf->n_servers + 1) * sizeof *names);
    if (!names) {
        d->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < d->conf->n_servers; i++)
        names[i] = d->server[i].name;
    const char *nearest = conf_nearest(str_of(domain->server), names);
    if (!nearest && d->conf->n_servers == 1)
        nearest = names[0];
    conf_mistake_add(d->mistakes, conf_check_place(node, "server"), "server",
                     nearest ? arena_printf(d->scratch, "did you mean \"%s\"?", nearest)
                             : "name the title of a server block",
                     "there is no server \"%s\"", domain->server);
}

/* Options that mean nothing in a domain of this kind. */
static void check_domain_strangers(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node)
{
    static const char *const of_routes[] = { "tls",       "auth",   "user",       "password_file", "server",
                                             "principal", "keytab", "target_spn", "seal" };
    if (domain->deliver)
        for (size_t i = 0; i < sizeof of_routes / sizeof *of_routes; i++)
            for (const struct conf_node *child = node->child; child; child = child->next)
                if (!child->is_block && str_eq(str_of(child->name), str_of(of_routes[i])))
                    conf_mistake_add(
                        d->mistakes, child->place, child->name, "take it out, or write via instead of deliver",
                        "%s belongs to a route, and domain \"%s\" has deliver", child->name, domain->name);
    for (const struct conf_node *child = node->child; child && !domain->deliver; child = child->next)
        if (!child->is_block && str_eq(str_of(child->name), STR("recipients")))
            conf_mistake_add(d->mistakes, child->place, child->name, "take it out, or write deliver instead of via",
                             "recipients belongs to a domain with deliver, and \"%s\" has none", domain->name);
}

static void check_domain(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node,
                         bool open)
{
    bool has_deliver = domain->deliver || conf_check_written(node->child, "deliver");
    bool has_via = domain->via.n || (conf_check_written(node->child, "via") && conf_check_written(node->child, "via")->n_values);
    if (has_deliver && has_via) {
        conf_mistake_add(d->mistakes, node->place, "via", "deliver makes it ours, via makes it a route: keep one",
                         "domain \"%s\" has both deliver and via", domain->name);
        return;
    }
    if (!has_deliver && !has_via)
        conf_mistake_add(d->mistakes, node->place, "deliver",
                         "add deliver = \"maildir:/var/mail/%u\" for a domain of ours, or via = {\"mx\"} for a route",
                         "domain \"%s\" has neither deliver nor via", domain->name);
    if (domain->deliver && str_eq(str_of(domain->name), STR("*")))
        conf_mistake_add(d->mistakes, conf_check_place(node, "deliver"), "deliver", "name the domains that are ours",
                         "domain \"*\" is every other domain of the world and cannot be ours");
    if (domain->deliver || has_via)
        check_domain_strangers(d, domain, node);
    check_domain_server(d, domain, node);
    if (!domain->deliver)
        conf_check_auth(d, domain, node);
    if (domain->deliver && open && str_eq(str_of(domain->recipients), STR("any")))
        conf_warning_add(d->mistakes, conf_check_place(node, "recipients"), "recipients",
                         "write recipients = \"users\" or a file",
                         "domain \"%s\" takes mail for any recipient from everywhere", domain->name);
}

static int by_named(const void *a, const void *b)
{
    const struct conf_titled *x = a, *y = b;
    int rc = strcasecmp(x->name, y->name);
    return rc ? rc : x < y ? -1 : x > y;
}

/* Of equal titles, the later one is the mistake. */
void conf_check_twice(struct conf_draft *d, struct conf_titled *list, size_t n, const char *kind)
{
    if (!list) {
        d->out_of_memory = true;
        return;
    }
    if (n)
        qsort(list, n, sizeof *list, by_named);
    for (size_t i = 1; i < n; i++) {
        if (strcasecmp(list[i - 1].name, list[i].name) != 0)
            continue;
        struct conf_titled *first = &list[i - 1], *second = &list[i];
        if (str_eq(str_of(first->place.file), str_of(second->place.file)) && first->place.line > second->place.line) {
            first = &list[i];
            second = &list[i - 1];
        }
        conf_mistake_add(d->mistakes, second->place, kind, "keep one of the two",
                         "%s \"%s\" was given already at %s:%u", kind, second->name, first->place.file,
                         first->place.line);
    }
}

static void check_titles(struct conf_draft *d)
{
    struct conf_titled *list = arena_alloc(d->scratch, (d->conf->n_servers + d->conf->n_domains + 1) * sizeof *list);
    for (size_t i = 0; list && i < d->conf->n_servers; i++)
        list[i] = (struct conf_titled){ d->server[i].name, d->server[i].place };
    conf_check_twice(d, list, d->conf->n_servers, "server");
    for (size_t i = 0; list && i < d->conf->n_domains; i++)
        list[i] = (struct conf_titled){ d->domain[i].name, d->domain[i].place };
    conf_check_twice(d, list, d->conf->n_domains, "domain");
}

static struct conf_place top_place(const struct conf_draft *d, const char *name)
{
    const struct conf_node *node = conf_check_written(d->top, name);
    return node ? node->place : (struct conf_place){ d->conf->file, 0 };
}

static void check_top(struct conf_draft *d)
{
    const struct conf *conf = d->conf;
    if (conf->n_servers == 0)
        conf_mistake_add(d->mistakes, (struct conf_place){ conf->file, 0 }, "server",
                         "add server \"mail.example.com\" { listen = {\"0.0.0.0:25\"} }", "there is no server");
    if (conf->n_domains == 0)
        conf_warning_add(d->mistakes, (struct conf_place){ conf->file, 0 }, "domain",
                         "add domain \"example.com\" { deliver = \"maildir:/var/mail/%u\" }",
                         "there is no domain: no mail is taken");
    if (strlen(conf->user) > 32 - strlen("-delivery"))
        conf_mistake_add(d->mistakes, top_place(d, "user"), "user", "shorten it",
                         "with -delivery behind it, user = \"%s\" "
                         "is longer than 32 letters",
                         conf->user);
    if (conf->retry_min_s > conf->retry_max_s)
        conf_mistake_add(d->mistakes, top_place(d, "retry_min"), "retry_min", "make retry_max larger",
                         "retry_min is longer than retry_max");
    if (conf->auth_memory < conf->auth_line_max)
        conf_mistake_add(d->mistakes, top_place(d, "auth_memory"), "auth_memory", "make it larger",
                         "auth_memory is smaller than auth_line_max");
}

void conf_check(struct conf_draft *d)
{
    bool open = false;
    check_top(d);
    check_titles(d);
    for (size_t i = 0; i < d->conf->n_servers; i++) {
        check_server(d, &d->server[i], &d->server_origin[i]);
        open = open || !server_is_loopback(&d->server[i]);
    }
    check_listeners(d);
    for (size_t i = 0; i < d->conf->n_domains; i++)
        check_domain(d, &d->domain[i], d->domain_node[i], open);
    conf_check_identity(d);
}
