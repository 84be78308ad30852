/* check_identity: what must stand together for Kerberos, X-EXPS, directories, identity rules and peers. As in
 * check.c a rule about something missing keeps silent when that was written but is wrong. */
#include <regex.h>
#include <strings.h>

#include "conf/snapshot.h"

static bool names(struct conf_strings list, const char *item)
{
    for (size_t i = 0; i < list.n; i++)
        if (str_eq(str_of(list.item[i]), str_of(item)))
            return true;
    return false;
}

static bool is_written(const struct conf_node *block, const char *name)
{
    return conf_check_written(block->child, name) != NULL;
}

/* What a server, or one of its hosts, offers. */
struct offer {
    const struct conf_server *server;
    bool keytab, certificate;                   /* of the server; looked for once: its node may have many hosts */
    bool top;                                   /* node is the server's */
    const struct conf_node *node;               /* of the host, or the server's */
    const char *who;                            /* "server \"…\"" or "host \"…\"" */
    struct conf_strings mechanisms;
    bool exps, login_line;
    enum conf_binding binding;
    enum conf_encryption encryption;
    enum conf_accept accept;
};

static void check_kerberos_offer(struct conf_draft *d, const struct offer *o)
{
    bool ntlm = names(o->mechanisms, "NTLM"), spnego = names(o->mechanisms, "GSS-SPNEGO");
    const char *without = names(o->mechanisms, "GSSAPI") ? "GSSAPI" : spnego && !ntlm ? "GSS-SPNEGO" : NULL;
    if (without && !o->keytab && (o->top || is_written(o->node, "mechanisms")))
        conf_mistake_add(d->mistakes, conf_check_place(o->node, "mechanisms"), "keytab",
                         "add keytab = \"FILE\" to the server",
                         "%s offers %s, and server \"%s\" has no keytab", o->who, without, o->server->name);
}

static void check_offer(struct conf_draft *d, const struct offer *o)
{
    bool layers = names(o->mechanisms, "GSSAPI") || names(o->mechanisms, "GSS-SPNEGO") || names(o->mechanisms, "NTLM");
    check_kerberos_offer(d, o);
    if (o->exps && !layers && !names(o->mechanisms, "LOGIN") && (o->top || is_written(o->node, "exps")))
        conf_mistake_add(d->mistakes, conf_check_place(o->node, "exps"), "mechanisms",
                         "add GSSAPI, GSS-SPNEGO, NTLM or LOGIN to mechanisms",
                         "exps = true, and %s has no mechanism for X-EXPS", o->who);
    if (o->login_line && !names(o->mechanisms, "LOGIN") && (o->top || is_written(o->node, "login_line")))
        conf_mistake_add(d->mistakes, conf_check_place(o->node, "login_line"), "mechanisms", "add LOGIN to mechanisms",
                         "login_line = true, and %s does not offer LOGIN", o->who);
    if (o->binding == CONF_BINDING_REQUIRE && !o->certificate && (o->top || is_written(o->node, "channel_binding")))
        conf_mistake_add(d->mistakes, conf_check_place(o->node, "channel_binding"), "certificate",
                         "add certificate = \"FILE\" (and key = \"FILE\")",
                         "channel_binding = \"require\" binds logins to TLS, and server \"%s\" has no certificate",
                         o->server->name);
    bool tls = o->accept == CONF_ACCEPT_TLS || o->accept == CONF_ACCEPT_AUTH_TLS;
    if (tls && o->encryption != CONF_ENCRYPTION_TLS && !o->certificate && !layers)
        conf_mistake_add(d->mistakes, conf_check_place(o->node, "accept"), "mechanisms",
                         "add a certificate, or GSSAPI, GSS-SPNEGO or NTLM to mechanisms",
                         "nobody can encrypt: %s has no certificate and no mechanism with a layer", o->who);
}

static void check_server(struct conf_draft *d, const struct conf_server *server,
                         const struct conf_server_origin *origin)
{
    struct offer o = { .server = server, .top = true, .node = origin->node,
                       .keytab = server->keytab || is_written(origin->node, "keytab"),
                       .certificate = server->certificate || is_written(origin->node, "certificate"),
                       .who = arena_printf(d->scratch, "server \"%s\"", server->name),
                       .mechanisms = server->mechanisms, .exps = server->exps, .login_line = server->login_line,
                       .binding = server->channel_binding, .encryption = server->encryption,
                       .accept = server->accept };
    d->out_of_memory = d->out_of_memory || !o.who;
    if (!o.who)
        return;
    check_offer(d, &o);
    if (server->spn.n && !o.keytab)
        conf_mistake_add(d->mistakes, conf_check_place(origin->node, "spn"), "keytab", "add keytab = \"FILE\"",
                         "server \"%s\" has an spn and no keytab", server->name);
    for (size_t i = 0; i < server->n_hosts; i++) {
        const struct conf_host *host = &server->host[i];
        o.top = false;
        o.node = origin->host[i];
        o.who = arena_printf(d->scratch, "host \"%s\"", host->network);
        o.mechanisms = host->mechanisms;
        o.exps = host->exps;
        o.login_line = host->login_line;
        o.binding = host->channel_binding;
        o.encryption = host->encryption;
        o.accept = host->accept;
        d->out_of_memory = d->out_of_memory || !o.who;
        if (!o.who)
            return;
        check_offer(d, &o);
        if (host->ntlm_v1 && !names(host->mechanisms, "NTLM") && !names(host->mechanisms, "GSS-SPNEGO"))
            conf_mistake_add(d->mistakes, conf_check_place(o.node, "ntlm_v1"), "mechanisms", "add NTLM to mechanisms",
                             "ntlm_v1 = true, and host \"%s\" is not offered NTLM", host->network);
    }
}

enum { WANTS_PASSWORD = 1, WANTS_PRINCIPAL = 2, MAY_SEAL = 4 };
static const struct {
    const char *auth;
    unsigned traits;
} logins[] = {
    { "GSSAPI", WANTS_PRINCIPAL | MAY_SEAL },
    { "GSS-SPNEGO", WANTS_PRINCIPAL | MAY_SEAL },
    { "NTLM", WANTS_PASSWORD | MAY_SEAL },
    { "X-EXPS", WANTS_PASSWORD | WANTS_PRINCIPAL | MAY_SEAL },
    { "AUTO", WANTS_PASSWORD | WANTS_PRINCIPAL | MAY_SEAL },
};

static unsigned traits_of(const char *auth)
{
    for (size_t i = 0; i < sizeof logins / sizeof *logins; i++)
        if (str_eq(str_of(auth), str_of(logins[i].auth)))
            return logins[i].traits;
    return WANTS_PASSWORD;
}

/* Is there what the login needs? X-EXPS and auto are content with either kind. */
static void check_credentials(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node)
{
    bool user = domain->user || is_written(node, "user");
    bool password = domain->password_file || is_written(node, "password_file");
    bool principal = domain->principal || is_written(node, "principal");
    bool key = password || domain->keytab || is_written(node, "keytab");
    unsigned traits = traits_of(domain->auth);
    if ((traits & WANTS_PASSWORD && user && password) || (traits & WANTS_PRINCIPAL && principal && key))
        return;
    if (traits & WANTS_PRINCIPAL && (principal || !(traits & WANTS_PASSWORD)))
        conf_mistake_add(d->mistakes, conf_check_place(node, "auth"), principal ? "keytab" : "principal",
                         principal ? "add keytab = \"FILE\" or password_file = \"FILE\""
                         : key     ? "add principal = \"NAME@REALM\""
                                   : "add principal = \"NAME@REALM\" and keytab = \"FILE\"",
                         "auth = \"%s\" for domain \"%s\" needs a principal and its keytab or password", domain->auth,
                         domain->name);
    else
        conf_mistake_add(d->mistakes, conf_check_place(node, "auth"), user ? "password_file" : "user",
                         user       ? "add password_file = \"FILE\""
                         : password ? "add user = \"NAME\""
                                    : "add user = \"NAME\" and password_file = \"FILE\"",
                         "auth = \"%s\" for domain \"%s\" needs a user and a password", domain->auth, domain->name);
}

/* Options that do nothing without `auth`, or without the right one. */
static void check_auth_strangers(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node)
{
    static const char *const with_auth[] = { "user", "password_file", "principal", "keytab", "target_spn", "seal" };
    bool bare = !domain->auth && !is_written(node, "auth");
    const struct conf_node *child = NULL;
    for (size_t i = 0; bare && !child && i < sizeof with_auth / sizeof *with_auth; i++)
        for (child = node->child; child && !str_eq(str_of(child->name), str_of(with_auth[i])); child = child->next)
            ;
    if (child)
        conf_mistake_add(d->mistakes, child->place, "auth", "add auth = \"PLAIN\" or another mechanism",
                         "domain \"%s\" has a %s and no auth", domain->name, child->name);
    if (!domain->auth)
        return;
    if (domain->seal && !(traits_of(domain->auth) & MAY_SEAL))
        conf_mistake_add(d->mistakes, conf_check_place(node, "seal"), "seal",
                         "take it out and write tls = \"require\", or use GSSAPI, GSS-SPNEGO or NTLM",
                         "auth = \"%s\" has no layer that could encrypt", domain->auth);
    if (domain->principal && !(traits_of(domain->auth) & WANTS_PRINCIPAL))
        conf_mistake_add(d->mistakes, conf_check_place(node, "principal"), "principal",
                         "write auth = \"GSSAPI\", or user instead of principal", "auth = \"%s\" knows no principals",
                         domain->auth);
}

static bool is_clear_text(const char *mechanism)
{
    return str_eq(str_of(mechanism), STR("PLAIN")) || str_eq(str_of(mechanism), STR("LOGIN"));
}

void conf_check_auth(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node)
{
    check_auth_strangers(d, domain, node);
    if (!domain->auth)
        return;
    check_credentials(d, domain, node);
    if (is_clear_text(domain->auth) && domain->tls == CONF_TLS_NONE)
        conf_mistake_add(d->mistakes, conf_check_place(node, "auth"), "tls", "write tls = \"verify\" or \"require\"",
                         "auth = \"%s\" with tls = \"none\" sends the password in clear text", domain->auth);
    else if (is_clear_text(domain->auth) && domain->tls == CONF_TLS_OPPORTUNISTIC && !is_written(node, "tls"))
        conf_warning_add(d->mistakes, conf_check_place(node, "auth"), "tls", "write tls = \"verify\" or \"require\"",
                         "auth = \"%s\" without TLS being required: the password is not sent when there is none",
                         domain->auth);
    for (size_t i = 0; i < domain->via.n && domain->name[0] == '*'; i++)
        if (str_eq(str_of(domain->via.item[i]), STR("mx")) || str_starts(str_of(domain->via.item[i]), STR("mx:")))
            conf_mistake_add(d->mistakes, conf_check_place(node, "auth"), "auth", "name the hosts in via",
                             "auth with via = \"mx\" in domain \"%s\" shows the password to every mail server",
                             domain->name);
}

/* Realms are upper case nearly everywhere, and letters of another case make another realm. */
static void check_realm_case(struct conf_draft *d, const char *realm, struct conf_place place, const char *option)
{
    bool lower = false;
    for (const char *c = realm; c && *c; c++)
        lower = lower || (*c >= 'a' && *c <= 'z');
    if (lower)
        conf_warning_add(d->mistakes, place, option, "realms are mostly written in capitals",
                         "the realm \"%s\" has small letters, and CORP.TEST and corp.test are two realms", realm);
}

static void check_directory(struct conf_draft *d, const struct conf_directory *directory, const struct conf_node *node)
{
    const char *scheme = directory->bind == CONF_BIND_LDAPS ? "ldaps://" : "ldap://";
    check_realm_case(d, directory->realm, node->place, "directory");
    if (directory->servers.n == 0 && !is_written(node, "servers"))
        conf_mistake_add(d->mistakes, node->place, "servers", "add servers = {\"ldap://HOST\"}",
                         "directory \"%s\" has no servers", directory->realm);
    for (size_t i = 0; i < directory->servers.n; i++)
        if (!str_starts(str_of(directory->servers.item[i]), str_of(scheme)))
            conf_mistake_add(d->mistakes, conf_check_place(node, "servers"), "bind",
                             directory->bind == CONF_BIND_LDAPS ? "write ldaps://HOST, or another bind"
                                                                : "write bind = \"ldaps\", or ldap://HOST",
                             "%s does not fit bind = \"%s\"", directory->servers.item[i],
                             conf_option_find(CONF_DIRECTORY, STR("bind"))->choices[directory->bind]);
    bool principal = directory->principal || is_written(node, "principal");
    bool keytab = directory->keytab || is_written(node, "keytab") || is_written(node, "password_file");
    if (directory->password_file && directory->bind == CONF_BIND_GSSAPI)
        conf_mistake_add(d->mistakes, conf_check_place(node, "password_file"), "bind",
                         "write bind = \"starttls\", or keytab instead of password_file",
                         "directory \"%s\" would be sent the password without TLS", directory->realm);
    if (directory->password_file && directory->keytab)
        conf_mistake_add(d->mistakes, conf_check_place(node, "password_file"), "password_file", "keep one of the two",
                         "directory \"%s\" has both a keytab and a password_file", directory->realm);
    if (principal != keytab)
        conf_mistake_add(d->mistakes, conf_check_place(node, principal               ? "principal"
                                                          : directory->password_file ? "password_file"
                                                                                     : "keytab"),
                         principal ? "keytab" : "principal",
                         principal ? "add keytab = \"FILE\"" : "add principal = \"NAME@REALM\"",
                         "directory \"%s\" has a %s and no %s", directory->realm,
                         principal                  ? "principal"
                         : directory->password_file ? "password_file"
                                                    : "keytab",
                         principal ? "keytab" : "principal");
}

/* The groups that `mailbox` names must be in `match`, and an @ must stand in it. */
static void check_mailbox(struct conf_draft *d, const struct conf_identity *rule, const struct conf_node *node)
{
    regex_t compiled;
    size_t groups = 9, at = str_find(str_of(rule->mailbox), '@');
    if (rule->match && regcomp(&compiled, rule->match, REG_EXTENDED) == 0) {
        groups = compiled.re_nsub;
        regfree(&compiled);
    }
    for (const char *c = rule->mailbox; *c; c++) {
        if (*c != '\\')
            continue;
        c++;
        if (*c < '1' || *c > '9' || (size_t)(*c - '0') > groups) {
            conf_mistake_add(d->mistakes, conf_check_place(node, "mailbox"), "mailbox",
                             "write groups of match as \"\\\\1\" to \"\\\\9\"",
                             "mailbox = \"%s\" names a group that match does not have", rule->mailbox);
            return;
        }
    }
    if (at == 0 || at + 1 >= strlen(rule->mailbox))
        conf_mistake_add(d->mistakes, conf_check_place(node, "mailbox"), "mailbox", "write \"\\\\1@example.com\"",
                         "mailbox = \"%s\" makes no address", rule->mailbox);
}

static const struct conf_directory *find_directory(const struct conf *conf, const char *realm)
{
    for (size_t i = 0; i < conf->n_directories; i++)
        if (str_eq(str_of(conf->directory[i].realm), str_of(realm)))
            return &conf->directory[i];
    return NULL;
}

static void check_attribute(struct conf_draft *d, const struct conf_identity *rule, const struct conf_node *node)
{
    if (!rule->realm && is_written(node, "realm"))
        return;
    const struct conf_directory *directory = rule->realm ? find_directory(d->conf, rule->realm) : NULL;
    if (!rule->realm)
        conf_mistake_add(d->mistakes, conf_check_place(node, "attribute"), "realm", "add realm = \"REALM\"",
                         "identity \"%s\" asks a directory and names no realm", rule->name);
    else if (!directory)
        conf_mistake_add(d->mistakes, conf_check_place(node, "attribute"), "directory",
                         arena_printf(d->scratch, "add directory \"%s\" { servers = {\"ldap://HOST\"} }", rule->realm),
                         "identity \"%s\" asks the directory of %s, and there is none", rule->name, rule->realm);
    else if (!directory->keytab && !directory->principal)
        conf_mistake_add(d->mistakes, directory->place, "keytab",
                         "add principal = \"NAME@REALM\" and keytab = \"FILE\"",
                         "identity \"%s\" asks directory \"%s\", which has no principal to ask as", rule->name,
                         directory->realm);
}

/* The options that make a rule what it is; one of them may stand in it. */
static const char *const kinds[] = { "domain", "match", "attribute", "table" };

static void check_rule(struct conf_draft *d, const struct conf_identity *rule, const struct conf_node *node)
{
    const bool has[] = { rule->domain, rule->match, rule->attribute.n > 0, rule->table };
    const char *first = NULL, *second = NULL;
    bool slip = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        slip = slip || (!has[i] && is_written(node, kinds[i]));
        if (has[i] && first)
            second = kinds[i];
        else if (has[i])
            first = kinds[i];
    }
    if (rule->realm)
        check_realm_case(d, rule->realm, conf_check_place(node, "realm"), "realm");
    if (second)
        conf_mistake_add(d->mistakes, conf_check_place(node, second), second, "make two rules of it",
                         "identity \"%s\" has both %s and %s", rule->name, first, second);
    else if (!first && !rule->reject && !slip && !is_written(node, "reject"))
        conf_mistake_add(d->mistakes, node->place, "domain",
                         "add domain, match and mailbox, attribute, table, or reject = true",
                         "identity \"%s\" says nothing about a mailbox", rule->name);
    else if (rule->reject && first && !rule->match)
        conf_mistake_add(d->mistakes, conf_check_place(node, "reject"), "reject", "name whom by realm or match",
                         "identity \"%s\" has both %s and reject", rule->name, first);
    if (rule->match && !rule->mailbox && !rule->reject && !is_written(node, "mailbox"))
        conf_mistake_add(d->mistakes, conf_check_place(node, "match"), "mailbox",
                         "add mailbox = \"\\\\1@example.com\", or reject = true",
                         "identity \"%s\" has a match and no mailbox", rule->name);
    if (rule->mailbox && !rule->match && !is_written(node, "match"))
        conf_mistake_add(d->mistakes, conf_check_place(node, "mailbox"), "match", "add match = \"EXPRESSION\"",
                         "identity \"%s\" has a mailbox and no match", rule->name);
    else if (rule->mailbox)
        check_mailbox(d, rule, node);
    if (rule->attribute.n)
        check_attribute(d, rule, node);
    if (rule->netbios && !rule->realm && !is_written(node, "realm"))
        conf_mistake_add(d->mistakes, conf_check_place(node, "netbios"), "realm", "add realm = \"REALM\"",
                         "identity \"%s\" gives an NT name to no realm", rule->name);
}

/* One NT name is one realm's. */
static void check_netbios(struct conf_draft *d)
{
    const struct conf *conf = d->conf;
    for (size_t i = 0; i < conf->n_directories + conf->n_identities; i++) {
        bool rule = i >= conf->n_directories;
        const struct conf_identity *r = rule ? &conf->identity[i - conf->n_directories] : NULL;
        const char *name = rule ? r->netbios : conf->directory[i].netbios;
        const char *realm = rule ? r->realm : conf->directory[i].realm;
        struct conf_place place = rule ? r->place : conf->directory[i].place;
        for (size_t k = 0; name && realm && k < i; k++) {
            bool other_rule = k >= conf->n_directories;
            const struct conf_identity *o = other_rule ? &conf->identity[k - conf->n_directories] : NULL;
            const char *other = other_rule ? o->netbios : conf->directory[k].netbios;
            const char *other_realm = other_rule ? o->realm : conf->directory[k].realm;
            if (!other || !other_realm || strcmp(name, other) != 0 || strcmp(realm, other_realm) == 0)
                continue;
            conf_mistake_add(d->mistakes, place, "netbios", "give each realm its own",
                             "netbios = \"%s\" is the NT name of %s already", name, other_realm);
            break;
        }
    }
}

static void check_peers(struct conf_draft *d, const struct conf_peers *peers, const struct conf_node *node)
{
    if (peers->principals.n == 0 && !is_written(node, "principals"))
        conf_mistake_add(d->mistakes, node->place, "principals", "add principals = {\"MX1$@CORP.TEST\"}",
                         "peers \"%s\" names nobody", peers->name);
    for (size_t i = 0; i < peers->principals.n; i++)
        if (strchr(peers->principals.item[i], '*'))
            conf_mistake_add(d->mistakes, conf_check_place(node, "principals"), "principals", "name each of them",
                             "principals: \"%s\" stands for itself, there is no *", peers->principals.item[i]);
    if (peers->rights.n == 0 && !is_written(node, "rights"))
        conf_mistake_add(d->mistakes, node->place, "rights", "add rights = {\"relay\", \"any-sender\"}",
                         "peers \"%s\" gives no rights", peers->name);
}

static void check_titles(struct conf_draft *d)
{
    for (size_t b = 0; b < conf_blocks_n; b++) {
        const struct conf_block *block = &conf_blocks[b];
        const struct conf_simple *simple = &d->simple[block->where];
        if (simple->n == 0)
            continue;
        struct conf_titled *list = arena_alloc(d->scratch, simple->n * sizeof *list);
        for (size_t i = 0; list && i < simple->n; i++) {
            const char *item = (const char *)simple->item + i * block->item_bytes;
            memcpy(&list[i].name, item + block->name_offset, sizeof list[i].name);
            memcpy(&list[i].place, item + block->place_offset, sizeof list[i].place);
        }
        conf_check_twice(d, list, list ? simple->n : 0, block->name);
    }
}

void conf_check_identity(struct conf_draft *d)
{
    const struct conf *conf = d->conf;
    for (size_t i = 0; i < conf->n_servers; i++)
        check_server(d, &d->server[i], &d->server_origin[i]);
    for (size_t i = 0; i < conf->n_directories; i++)
        check_directory(d, &conf->directory[i], d->simple[CONF_DIRECTORY].node[i]);
    for (size_t i = 0; i < conf->n_identities; i++)
        check_rule(d, &conf->identity[i], d->simple[CONF_IDENTITY].node[i]);
    for (size_t i = 0; i < conf->n_peers; i++)
        check_peers(d, &conf->peers[i], d->simple[CONF_PEERS].node[i]);
    check_netbios(d);
    check_titles(d);
}
