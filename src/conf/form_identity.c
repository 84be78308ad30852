/* form_identity: what the values of Kerberos, directories and identity rules must look like. */
#include <regex.h>
#include <stdio.h>

#include "conf/form.h"
#include "conf/network.h"

enum { MATCH_MAX = 256, PRINCIPAL_MAX = 512 };

const char *const form_rights[] = { "submit", "relay", "any-sender", "headers", "size", NULL };

static bool wrong(char hint[CONF_HINT_BYTES], const char *right)
{
    snprintf(hint, CONF_HINT_BYTES, "%s", right);
    return false;
}

/* Visible ASCII without `not_these`. */
static bool visible(struct str value, const char *not_these)
{
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] <= 32 || value.p[i] >= 127 || strchr(not_these, value.p[i]))
            return false;
    return value.n > 0 && value.n <= PRINCIPAL_MAX;
}

bool form_auth(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str name = value;
    if (str_starts_nocase(name, STR("optional:")))
        name = str_skip(name, strlen("optional:"));
    if (str_eq_nocase(name, STR("auto")) || str_eq_nocase(name, STR("X-EXPS")))
        return true;
    if (str_eq_nocase(name, STR("SPNEGO")))
        return wrong(hint, "did you mean \"GSS-SPNEGO\"?");
    return form_mechanism(name, hint);
}

bool form_alias(struct str value, char hint[CONF_HINT_BYTES])
{
    return network_is_name(value) || wrong(hint, "write a name of this host: \"smtp.example.com\" or \"smtp\"");
}

bool form_domain(struct str value, char hint[CONF_HINT_BYTES])
{
    return network_is_name(value) || wrong(hint, "write a domain: \"example.com\"");
}

bool form_realm(struct str value, char hint[CONF_HINT_BYTES])
{
    return (visible(value, "@/\\\"") && value.n <= 255) || wrong(hint, "write a Kerberos realm: \"CORP.TEST\"");
}

bool form_spn(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str rest = value, service, class, unused;
    bool has_realm = str_cut(&rest, '@', &service);
    bool ok = !has_realm || form_realm(rest, hint);
    ok = ok && visible(service, "@\\\"") && str_cut(&service, '/', &class) && class.n && service.n
         && !str_cut(&service, '/', &unused);
    return ok || wrong(hint, "write CLASS/NAME, perhaps with @REALM: \"SMTPSVC/mail.corp.test\"");
}

bool form_principal(struct str value, char hint[CONF_HINT_BYTES])
{
    size_t at = value.n;
    while (at > 0 && value.p[at - 1] != '@')
        at--;
    if (at > 1 && visible(str_slice(value.p, at - 1), "\"") && form_realm(str_skip(value, at), hint))
        return true;
    return at == 0 && visible(value, "\"")
               ? wrong(hint, "the realm is missing: \"NAME@REALM\"")
               : wrong(hint, "write a principal with its realm: \"alice@CORP.TEST\", \"MX1$@CORP.TEST\"");
}

bool form_netbios(struct str value, char hint[CONF_HINT_BYTES])
{
    return (visible(value, "\\/:*?\"<>|@") && value.n <= 15)
           || wrong(hint, "write the NT name of the domain, at most 15 letters: \"CORP\"");
}

bool form_ldap(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str rest = value, host;
    unsigned char address[16];
    uint16_t port;
    if (!str_starts(rest, STR("ldap://")) && !str_starts(rest, STR("ldaps://")))
        return wrong(hint, "write \"ldap://HOST\" or \"ldap://HOST:PORT\"");
    rest = str_skip(rest, str_find(rest, '/') + 2);
    if (network_host_port_parse(rest, &host, &port) && !str_eq(host, STR("mx")))
        return !network_address_parse(host, address)
               || wrong(hint, "write the server's name: Kerberos and certificates know no addresses");
    return wrong(hint, "behind ldap:// stand a host and perhaps a port, and nothing else: \"ldap://dc1.corp.test\"");
}

bool form_base(struct str value, char hint[CONF_HINT_BYTES])
{
    size_t equals = str_find(value, '=');
    return (equals > 0 && equals < value.n && value.n <= 1000)
           || wrong(hint, "write the name of an entry: \"OU=People,DC=corp,DC=test\"");
}

bool form_attribute(struct str value, char hint[CONF_HINT_BYTES])
{
    bool ok = value.n > 0 && value.n <= 64 && !ascii_digit(value.p[0]);
    for (size_t i = 0; i < value.n; i++)
        ok = ok && (ascii_alnum(value.p[i]) || value.p[i] == '-');
    return ok || wrong(hint, "write the name of an attribute: \"mail\"");
}

/* What makes the time or the memory of a match grow without measure is left out: references back within the
 * expression, and counted repetition. */
bool form_match(struct str value, char hint[CONF_HINT_BYTES])
{
    char text[MATCH_MAX + 1], why[CONF_HINT_BYTES];
    if (value.n == 0 || !str_copy(value, text, sizeof text))
        return wrong(hint, "write a regular expression of at most 256 octets");
    for (size_t i = 0; i < value.n; i++) {
        if (text[i] == '{')
            return wrong(hint, "{…} cannot be used here: repeat the part, or write + or *");
        if (text[i] == '\\' && i + 1 < value.n && ascii_digit(text[++i]))
            return wrong(hint, "a group can be named in mailbox, not within the expression");
    }
    regex_t compiled;
    int rc = regcomp(&compiled, text, REG_EXTENDED);
    if (rc) {
        regerror(rc, &compiled, why, sizeof why);
        return wrong(hint, why);
    }
    regfree(&compiled);
    return true;
}

bool form_right(struct str value, char hint[CONF_HINT_BYTES])
{
    for (const char *const *name = form_rights; *name; name++)
        if (str_eq_nocase(value, str_of(*name)))
            return true;
    const char *nearest = conf_nearest(value, form_rights);
    if (!nearest)
        return wrong(hint, "there are submit, relay, any-sender, headers, size");
    snprintf(hint, CONF_HINT_BYTES, "did you mean \"%s\"?", nearest);
    return false;
}
