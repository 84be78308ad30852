/* conf: the configuration as the program sees it. One immutable snapshot, counted by references: a
 * session keeps the one that it began with. Strings and arrays belong to the snapshot.
 *
 * conf checks form (names, types, ranges, what must stand together). Whether a key fits its certificate
 * or a folder exists is checked by the rooms that know, on behalf of `postern check` and master. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct conf_place {
    const char *file;
    unsigned line; /* 0: a default, not in the file */
};

struct conf_strings {
    const char *const *item;
    size_t n;
};

enum conf_accept { CONF_ACCEPT_ANY, CONF_ACCEPT_AUTH, CONF_ACCEPT_TLS, CONF_ACCEPT_AUTH_TLS, CONF_ACCEPT_DENY };
enum conf_tls { CONF_TLS_NONE, CONF_TLS_OPPORTUNISTIC, CONF_TLS_REQUIRE, CONF_TLS_VERIFY };
enum conf_line_ends { CONF_LINE_ENDS_STRICT, CONF_LINE_ENDS_REPAIR };
enum conf_binding { CONF_BINDING_ALLOW, CONF_BINDING_REQUIRE };
/* What satisfies accept = "tls": TLS; a SASL layer that encrypts or TLS; any SASL layer (signing too) or TLS. */
enum conf_encryption { CONF_ENCRYPTION_TLS, CONF_ENCRYPTION_LAYER, CONF_ENCRYPTION_ANY };
/* auto: "own" where there are identity blocks, otherwise "any": see policy/sender.h. */
enum conf_send_as { CONF_SEND_AS_AUTO, CONF_SEND_AS_ANY, CONF_SEND_AS_OWN };
enum conf_bind { CONF_BIND_GSSAPI, CONF_BIND_STARTTLS, CONF_BIND_LDAPS };

/* host "10.1.0.0/16" { … } within a server. What the block leaves out is the server's value: the loader
 * has filled it in, so a reader looks only here. */
struct conf_host {
    struct conf_place place;
    const char *network;            /* as written; form checked: address or address/prefix */
    unsigned char address[16];      /* IPv4 as ::ffff:a.b.c.d */
    unsigned prefix_bits;           /* 0..128, of the mapped form */
    enum conf_accept accept;
    bool relay;                     /* may send to domains that are not ours */
    bool plaintext;                 /* PLAIN and LOGIN without TLS */
    struct conf_strings mechanisms;
    enum conf_line_ends line_ends;
    struct conf_strings strip_headers;
    bool exps;                      /* X-EXPS is offered */
    bool login_line;                /* the old spelling AUTH=LOGIN (X-EXPS=LOGIN) stands in EHLO, too */
    bool ntlm_v1;                   /* NTLM version 1 against the user store; hosts only, never the server's */
    enum conf_binding channel_binding;
    enum conf_encryption encryption;
    enum conf_send_as send_as;
};

enum conf_listener_kind { CONF_LISTEN, CONF_SUBMISSION, CONF_SUBMISSIONS };

struct conf_server {
    struct conf_place place;
    const char *name;               /* the title: what it calls itself */
    struct conf_strings listen, submission, submissions; /* "address:port", "[v6]:port" */
    const char *certificate;        /* NULL: no TLS here */
    const char *key;                /* NULL: in the certificate's file */
    struct conf_strings mechanisms;
    enum conf_accept accept;
    bool relay, plaintext;          /* for hosts without a block: false unless written */
    enum conf_line_ends line_ends;
    struct conf_strings strip_headers;
    const char *tls_min;            /* "1.0" … "1.3" */
    const char *protocol_log;       /* NULL: none */
    struct conf_strings aliases;    /* further names of this server, in lower case */
    const char *keytab;             /* NULL: none, no Kerberos inbound */
    struct conf_strings spn;        /* "SMTPSVC/name" or "SMTPSVC/name@REALM"; empty: classes SMTPSVC and smtp of the
                                       name, of every alias, and of their first labels */
    bool exps, login_line;          /* for hosts without a block, as in struct conf_host */
    enum conf_binding channel_binding;
    enum conf_encryption encryption;
    enum conf_send_as send_as;
    const struct conf_host *host;   /* by prefix_bits, longest first, then by address: see policy/access.h */
    size_t n_hosts;
};

struct conf_domain {
    struct conf_place place;
    const char *name;               /* lower case; "*" = every other; "*.example" = every name below it */
    const char *deliver;            /* NULL: a route. "maildir:…", "lmtp:…", "discard" */
    const char *recipients;         /* "any", "users" or a file */
    struct conf_strings via;        /* "mx", "mx:2526", "host", "host:port", "[address]:port" */
    enum conf_tls tls;
    const char *auth;               /* NULL, or in upper case: a mechanism, "X-EXPS" or "AUTO" */
    bool auth_optional;             /* "optional:" stood before it: without a login mail goes out all the same */
    const char *auth_written;       /* for the schema: with "OPTIONAL:" */
    const char *user, *password_file;
    const char *principal;          /* of the Kerberos login, "name@REALM"; NULL: none */
    const char *keytab;             /* its key, or NULL: password_file holds its password */
    struct conf_strings target_spn; /* in this order; empty: SMTPSVC and smtp of the name that the peer announces */
    bool seal;                      /* ask for a SASL layer that encrypts where there is no TLS, and go without none */
    const char *server;             /* NULL: the first server */
    uint32_t concurrency;           /* connections to one next hop at a time */
};

/* directory "REALM" { … }: where the accounts of a Kerberos realm are looked up. */
struct conf_directory {
    struct conf_place place;
    const char *realm;              /* the title, case kept */
    struct conf_strings servers;    /* "ldap://host[:port]", "ldaps://host[:port]"; asked in this order */
    enum conf_bind bind;
    const char *ca;                 /* trust anchors in PEM; NULL: the system's */
    const char *principal, *keytab; /* who asks; NULL: a credential of the environment (`postern whoami`) */
    const char *password_file;      /* under TLS: the principal's password instead, by a simple bind */
    const char *base;               /* NULL: from the realm, "DC=CORP,DC=TEST" */
    const char *netbios;            /* the realm's NT name, "CORP"; NULL: none */
};

/* identity "NAME" { … }: one rule from a login's principal to its mailbox. Which options it has makes its kind:
 * see policy/identity.h. */
struct conf_identity {
    struct conf_place place;
    const char *name;
    const char *realm;              /* NULL: users of the store, or (with match or table) any */
    const char *domain;             /* lower case */
    const char *match, *mailbox;    /* POSIX extended regular expression; its \1 … \9 in mailbox */
    struct conf_strings attribute;
    const char *table;
    const char *netbios;
    bool reject;                    /* whoever the rule is for is refused */
};

/* peers "NAME" { … }: logins that are trusted servers. */
struct conf_peers {
    struct conf_place place;
    const char *name;
    struct conf_strings principals;
    struct conf_strings rights;     /* "submit", "relay", "any-sender", "headers", "size" */
};

struct conf {
    /* All paths are absolute: a relative one was taken from the folder of the file that names it. */
    const char *spool, *users, *keys, *control, *drop, *user, *mail_owner, *postmaster;
    struct conf_strings resolver;
    const char *log;                /* "stderr", "syslog", "journal" or a file */
    const char *log_format;         /* "text" or "json" */
    const char *session_log;        /* NULL: none */
    uint32_t session_log_days;
    const char *krb5_config;        /* NULL: the system's */
    const char *auth_state;         /* a folder that auth alone writes: Kerberos's replay cache */
    const char *ca_file;            /* trust anchors for tls = "verify"; NULL: the system's */

    uint64_t max_message_size, auth_line_max, auth_memory, segment_size;
    uint64_t command_line_max, text_line_max; /* octets of a command line, of a line of a message; CRLF counted */
    uint32_t max_recipients, max_sessions, max_sessions_per_address, auth_failure_limit; /* 0 = no limit */
    uint32_t max_commands, max_errors, max_hops;
    uint32_t smtpd_processes, delivery_processes; /* 0: one a processor core; one */
    uint32_t command_timeout_s, data_timeout_s, session_timeout_s, connect_timeout_s, reply_timeout_s;
    uint32_t auth_cache_s;          /* how long a verified password is remembered; 0: not at all */
    uint32_t retry_min_s, retry_max_s, expire_after_s, bounce_expire_after_s, delay_notice_s;
    uint64_t generation;            /* set by master, counts reloads */

    const struct conf_server *server;
    size_t n_servers;
    const struct conf_domain *domain; /* by name, in the order of memcmp(): see policy/route.h */
    size_t n_domains;
    const struct conf_directory *directory; /* these three in the order of the file */
    size_t n_directories;
    const struct conf_identity *identity;
    size_t n_identities;
    const struct conf_peers *peers;
    size_t n_peers;
    const char *file;               /* as it was named on the command line */
};

/* Any thread may count; NULL is fine. Loading is in conf/load.h. */
struct conf *conf_ref(const struct conf *conf);
void conf_unref(const struct conf **conf);

/* Where an option was written: `block` is conf->file for the top level, otherwise the block's own name pointer
 * (server->name, domain->name, host->network), `option` its name. Not written: the block's place is what is left,
 * so the answer is `otherwise`. */
struct conf_place conf_place_of(const struct conf *conf, const char *block, const char *option,
                                struct conf_place otherwise);
