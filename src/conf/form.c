#include "conf/form.h"

#include <stdio.h>

#include "conf/network.h"

const char *const form_mechanisms[] = { "PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "GSSAPI",
                                        "GSS-SPNEGO", "NTLM", NULL };

static bool wrong(char hint[CONF_HINT_BYTES], const char *right)
{
    snprintf(hint, CONF_HINT_BYTES, "%s", right);
    return false;
}

static bool one_of(struct str value, const char *const *names, char hint[CONF_HINT_BYTES])
{
    for (const char *const *name = names; *name; name++)
        if (str_eq(value, str_of(*name)))
            return true;
    const char *nearest = conf_nearest(value, names);
    if (nearest) {
        snprintf(hint, CONF_HINT_BYTES, "did you mean \"%s\"?", nearest);
        return false;
    }
    size_t n = (size_t)snprintf(hint, CONF_HINT_BYTES, "there are ");
    for (const char *const *name = names; *name && n < CONF_HINT_BYTES; name++)
        n += (size_t)snprintf(hint + n, CONF_HINT_BYTES - n, "%s%s", name == names ? "" : ", ", *name);
    return false;
}

bool form_any(struct str value, char hint[CONF_HINT_BYTES])
{
    return value.n > 0 || wrong(hint, "leave the option out or give it a value");
}

bool form_listen(struct str value, char hint[CONF_HINT_BYTES])
{
    unsigned char address[16];
    uint16_t port;
    if (network_listen_parse(value, address, &port))
        return true;
    struct str host;
    if (network_address_parse(value, address)) {
        bool v4 = network_is_ipv4(address);
        snprintf(hint, CONF_HINT_BYTES, "the port is missing: \"%s%.*s%s:25\"", v4 ? "" : "[", STR_ARG(value),
                 v4 ? "" : "]");
        return false;
    }
    if (network_host_port_parse(value, &host, &port) && !network_address_parse(host, address))
        return wrong(hint, "an address stands here, not a name: \"10.0.0.1:25\", \"[2001:db8::1]:25\"");
    return wrong(hint, "write ADDRESS:PORT: \"0.0.0.0:25\", \"[::]:25\"");
}

bool form_mechanism(struct str value, char hint[CONF_HINT_BYTES])
{
    for (const char *const *name = form_mechanisms; *name; name++)
        if (str_eq_nocase(value, str_of(*name)))
            return true;
    return one_of(value, form_mechanisms, hint);
}

bool form_resolver(struct str value, char hint[CONF_HINT_BYTES])
{
    unsigned char address[16];
    struct str host;
    uint16_t port;
    if (network_host_port_parse(value, &host, &port) && network_address_parse(host, address))
        return true;
    return wrong(hint, "write the address of a resolver, perhaps with its port: \"10.0.0.1\", \"127.0.0.1:5353\"");
}

bool form_header(struct str value, char hint[CONF_HINT_BYTES])
{
    bool ok = value.n > 0 && value.n <= 128, letters = false;
    for (size_t i = 0; i < value.n; i++) {
        ok = ok && value.p[i] > 32 && value.p[i] < 127 && value.p[i] != ':';
        letters = letters || value.p[i] != '*';
    }
    return (ok && letters)
           || wrong(hint, "write the name of a header without its colon, perhaps with *: \"X-Internal-*\"");
}

bool form_via(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str host;
    uint16_t port;
    return network_host_port_parse(value, &host, &port)
           || wrong(hint, "write \"mx\", \"mx:PORT\", \"HOST\", \"HOST:PORT\" or \"[ADDRESS]:PORT\"");
}

/* %u, %d and %a only. */
static bool known_percents(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '%' && (++i == s.n || !strchr("uda", s.p[i])))
            return false;
    return true;
}

static bool dotdot_free(struct str path)
{
    struct str part;
    bool more = true;
    while (more) {
        more = str_cut(&path, '/', &part);
        if (str_eq(part, STR("..")))
            return false;
    }
    return true;
}

bool form_deliver(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str rest = value, kind, host;
    uint16_t port;
    if (str_eq(value, STR("discard")))
        return true;
    if (str_cut(&rest, ':', &kind) && str_eq(kind, STR("maildir"))) {
        if (!str_starts(rest, STR("/")) || !dotdot_free(rest))
            return wrong(hint, "behind maildir: stands a whole path without \"..\": \"maildir:/var/mail/%u\"");
        return known_percents(rest) || wrong(hint, "there are %u (local part), %d (domain) and %a (address)");
    }
    if (str_eq(kind, STR("lmtp"))) {
        if (str_starts(rest, STR("/")))
            return true;
        return network_host_port_parse(rest, &host, &port)
               || wrong(hint, "behind lmtp: stands a socket or a host: \"lmtp:/run/dovecot/lmtp\", \"lmtp:host:24\"");
    }
    return wrong(hint, "write \"maildir:/var/mail/%u\", \"lmtp:/run/dovecot/lmtp\", \"lmtp:HOST:24\" or \"discard\"");
}

bool form_address(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str domain = value, local;
    bool ok = str_cut(&domain, '@', &local) && local.n > 0 && local.n <= 64 && network_is_name(domain);
    for (size_t i = 0; i < local.n; i++)
        ok = ok && (unsigned char)local.p[i] > 32 && local.p[i] != 127 && !strchr("\"\\<>()[],;:/", local.p[i]);
    return (ok && local.p[0] != '.') || wrong(hint, "write a whole address: \"hostmaster@example.com\"");
}

bool form_user(struct str value, char hint[CONF_HINT_BYTES])
{
    bool ok = value.n > 0 && value.n <= 32 && !ascii_digit(value.p[0]) && value.p[0] != '-';
    for (size_t i = 0; i < value.n; i++)
        ok = ok && (ascii_alnum(value.p[i]) || value.p[i] == '_' || value.p[i] == '-' || value.p[i] == '.');
    return ok || wrong(hint, "write the name of a system user: \"postern\"");
}

bool form_tls_min(struct str value, char hint[CONF_HINT_BYTES])
{
    static const char *const names[] = { "1.0", "1.1", "1.2", "1.3", NULL };
    return one_of(value, names, hint);
}

bool form_log(struct str value, char hint[CONF_HINT_BYTES])
{
    static const char *const names[] = { "stderr", "syslog", "journal", NULL };
    return str_find(value, '/') < value.n || one_of(value, names, hint)
           || (!str_starts(str_of(hint), STR("did"))
               && wrong(hint, "write \"stderr\", \"syslog\", \"journal\" or the path of a file, with a /"));
}

bool form_recipients(struct str value, char hint[CONF_HINT_BYTES])
{
    return str_eq(value, STR("any")) || str_eq(value, STR("users")) || str_find(value, '/') < value.n
           || wrong(hint, "write \"any\", \"users\" or the path of a file, with a /");
}

bool form_log_format(struct str value, char hint[CONF_HINT_BYTES])
{
    static const char *const names[] = { "text", "json", NULL };
    return one_of(value, names, hint);
}

bool form_server_title(struct str value, char hint[CONF_HINT_BYTES])
{
    return network_is_name(value)
           || wrong(hint, "the title is the name that the server gives itself: server \"mail.example.com\"");
}

bool form_domain_title(struct str value, char hint[CONF_HINT_BYTES])
{
    struct str name = value;
    if (str_starts(name, STR("*.")))
        name = str_skip(name, 2);
    /* Internationalised domains: octets of UTF-8 count as letters. */
    char ascii[256];
    bool fits = name.n > 0 && name.n < sizeof ascii;
    for (size_t i = 0; fits && i < name.n; i++)
        ascii[i] = (unsigned char)name.p[i] >= 0x80 ? 'x' : name.p[i];
    return (fits && network_is_name(str_slice(ascii, name.n))) || str_eq(value, STR("*"))
           || wrong(hint, "the title is a domain, \"*.DOMAIN\" for all below it, or \"*\" for every other");
}
