#include "conf/schema.h"

#include "conf/form.h"

#define TOP(field) offsetof(struct conf, field)
#define SERVER(field) offsetof(struct conf_server, field)
#define HOST(field) offsetof(struct conf_host, field)
#define DOMAIN(field) offsetof(struct conf_domain, field)

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* In the order of the enums in conf.h. */
static const char *const accept_names[] = { "any", "auth", "tls", "auth+tls", "deny", NULL };
static const char *const tls_names[] = { "none", "opportunistic", "require", "verify", NULL };
static const char *const line_ends_names[] = { "strict", "repair", NULL };

static const char *computed_control(const struct conf *conf, struct arena *arena)
{
    return arena_printf(arena, "%s/control", conf->spool);
}

static const char *computed_drop(const struct conf *conf, struct arena *arena)
{
    return arena_printf(arena, "%s/drop", conf->spool);
}

static const char *computed_mail_owner(const struct conf *conf, struct arena *arena)
{
    return arena_printf(arena, "%s-delivery", conf->user);
}

/* The first domain that we deliver for, by name, so that a dump loads again to the same. */
static const char *computed_postmaster(const struct conf *conf, struct arena *arena)
{
    for (size_t i = 0; i < conf->n_domains; i++)
        if (conf->domain[i].deliver && conf->domain[i].name[0] != '*')
            return arena_printf(arena, "postmaster@%s", conf->domain[i].name);
    return arena_printf(arena, "postmaster@%s", conf->n_servers ? conf->server[0].name : "localhost");
}

const struct conf_option conf_schema[] = {
    /* Files and users. */
    { .name = "spool", .type = CONF_PATH, .offset = TOP(spool), .fallback = "/var/spool/postern",
      .help = "The folder that holds accepted mail until it is delivered.\nIt must lie on a local disk." },
    { .name = "users", .type = CONF_PATH, .offset = TOP(users), .fallback = "/var/lib/postern/users.db",
      .help = "The user store, an SQLite database that\n.Xr postern-user 1\nwrites." },
    { .name = "keys", .type = CONF_PATH, .offset = TOP(keys), .fallback = "/var/lib/postern/keys",
      .help = "The folder of keys that Postern makes itself." },
    { .name = "control", .type = CONF_PATH, .offset = TOP(control), .computed = computed_control,
      .fallback_text = "control in the folder\n.Ic spool",
      .help = "The socket through which\n.Xr postern 1\nspeaks to the running service." },
    { .name = "drop", .type = CONF_PATH, .offset = TOP(drop), .computed = computed_drop,
      .fallback_text = "drop in the folder\n.Ic spool",
      .help = "The folder into which\n.Xr sendmail 8\nwrites while the service is down." },
    { .name = "user", .type = CONF_STRING, .offset = TOP(user), .fallback = "postern", .form = form_user,
      .help = "The stem of the system users of the processes:\n.Ar user ,\n.Ar user Ns -smtpd ,\n.Ar user Ns -auth ,\n"
              ".Ar user Ns -keys\nand\n.Ar user Ns -delivery .\nOnly looked at when the service is started as root." },
    { .name = "mail_owner", .type = CONF_STRING, .offset = TOP(mail_owner), .computed = computed_mail_owner,
      .form = form_user, .fallback_text = "the value of\n.Ic user\nwith -delivery behind it", .example = "\"vmail\"",
      .help = "The system user that Maildirs are written as." },
    { .name = "postmaster", .type = CONF_STRING, .offset = TOP(postmaster), .computed = computed_postmaster,
      .form = form_address, .fallback_text = "postmaster at the first domain, by name, with\n.Ic deliver",
      .example = "\"hostmaster@example.com\"",
      .help = "Gets the mail for\n.Aq postmaster\nand for postmaster at every domain with\n.Ic deliver ." },

    /* Surroundings. */
    { .name = "resolver", .type = CONF_STRINGS, .offset = TOP(resolver), .form = form_resolver,
      .fallback_text = "what\n.Pa /etc/resolv.conf\nnames", .example = "{\"127.0.0.1:5353\"}",
      .help = "DNS servers to ask, by address." },
    { .name = "ca_file", .type = CONF_PATH, .offset = TOP(ca_file), .fallback_text = "the certificates of the system",
      .example = "\"/etc/ssl/certs/ca-certificates.crt\"",
      .help = "The certificates, in PEM, that are trusted when a domain has\n.Ic tls No = \\(dqverify\\(dq ." },

    /* Logs. */
    { .name = "log", .type = CONF_PATH, .offset = TOP(log), .fallback = "stderr", .form = form_log,
      .example = "\"syslog\"", .help = "Where events and delivery lines go:\nstderr, syslog, journal, or a file." },
    { .name = "log_format", .type = CONF_STRING, .offset = TOP(log_format), .fallback = "text", .form = form_log_format,
      .example = "\"json\"", .help = "text, or json for one JSON object a line." },
    { .name = "session_log", .type = CONF_PATH, .offset = TOP(session_log),
      .example = "\"/var/log/postern/sessions.jsonl\"",
      .help = "A file that gets one JSON object a line for every session." },
    { .name = "session_log_days", .type = CONF_NUMBER, .offset = TOP(session_log_days), .fallback = "90", .min = 1,
      .max = 36500, .help = "How many days of the session log are kept." },

    /* What a message and a session may be. */
    { .name = "max_message_size", .type = CONF_SIZE, .offset = TOP(max_message_size), .fallback = "50M", .min = 1 * KIB,
      .max = 1024 * GIB, .help = "The largest message that is taken." },
    { .name = "max_recipients", .type = CONF_NUMBER, .offset = TOP(max_recipients), .fallback = "1000", .min = 1,
      .max = 50000, .help = "The largest number of recipients of one message." },
    { .name = "max_hops", .type = CONF_NUMBER, .offset = TOP(max_hops), .fallback = "100", .min = 1, .max = 1000,
      .help = "A message with more Received lines than this is taken for a loop." },
    { .name = "max_sessions", .type = CONF_NUMBER, .offset = TOP(max_sessions), .fallback = "10000", .max = 1000000,
      .help = "Sessions at the same time, in all; 0 for no limit." },
    { .name = "max_sessions_per_address", .type = CONF_NUMBER, .offset = TOP(max_sessions_per_address),
      .fallback = "100",
      .max = 1000000, .help = "Sessions at the same time from one address (IPv6: one /64); 0 for no limit." },
    { .name = "max_commands", .type = CONF_NUMBER, .offset = TOP(max_commands), .fallback = "100000", .max = 100000000,
      .help = "Commands in one session; 0 for no limit." },
    { .name = "max_errors", .type = CONF_NUMBER, .offset = TOP(max_errors), .fallback = "20", .max = 1000000,
      .help = "Refused commands in one session before it is ended; 0 for no limit." },
    { .name = "command_line_max", .type = CONF_SIZE, .offset = TOP(command_line_max), .fallback = "4K", .min = 512,
      .max = 64 * KIB, .help = "The longest command line, with its line end." },
    { .name = "text_line_max", .type = CONF_SIZE, .offset = TOP(text_line_max), .fallback = "1M", .min = 1 * KIB,
      .max = 1 * GIB, .help = "The longest line of a message, with its line end.\nRFC 5321 promises 1000 octets." },
    { .name = "command_timeout", .type = CONF_DURATION, .offset = TOP(command_timeout_s), .fallback = "5m", .min = 1,
      .max = DAY, .help = "How long a client may be silent between commands." },
    { .name = "data_timeout", .type = CONF_DURATION, .offset = TOP(data_timeout_s), .fallback = "5m", .min = 1,
      .max = DAY,
      .help = "How long a client may be silent within a message." },
    { .name = "session_timeout", .type = CONF_DURATION, .offset = TOP(session_timeout_s), .fallback = "2h", .min = 0,
      .max = 7 * DAY, .help = "How long a session may last; 0 for no limit." },

    /* Authentication. */
    { .name = "auth_line_max", .type = CONF_SIZE, .offset = TOP(auth_line_max), .fallback = "96K", .min = 1 * KIB,
      .max = 1 * MIB,
      .help = "The longest line within AUTH.\nKerberos tickets of large organisations need more than RFC 4954's\n"
              "12,288 octets." },
    { .name = "auth_memory", .type = CONF_SIZE, .offset = TOP(auth_memory), .fallback = "64M", .min = 1 * MIB,
      .max = 64 * GIB,
      .help = "What all AUTH lines of all sessions may occupy together.\nBeyond it AUTH is answered with 454." },
    { .name = "auth_failure_limit", .type = CONF_NUMBER, .offset = TOP(auth_failure_limit), .fallback = "20",
      .max = 60000,
      .help = "After this many failures within ten minutes an address is locked out until\n"
              "fewer remain within the last ten minutes; "
              "0 for no limit." },
    { .name = "auth_cache", .type = CONF_DURATION, .offset = TOP(auth_cache_s), .fallback = "1m", .min = 0, .max = HOUR,
      .help = "How long a verified password is remembered, as a keyed digest in memory; 0 for not at all." },

    /* Processes and storage. */
    { .name = "smtpd_processes", .type = CONF_NUMBER, .offset = TOP(smtpd_processes), .fallback = "0", .max = 64,
      .help = "Processes that speak with clients; 0 for one a processor core." },
    { .name = "delivery_processes", .type = CONF_NUMBER, .offset = TOP(delivery_processes), .fallback = "0", .max = 64,
      .help = "Processes that deliver; 0 for one." },
    { .name = "segment_size", .type = CONF_SIZE, .offset = TOP(segment_size), .fallback = "32M", .min = 1 * MIB,
      .max = 1 * GIB, .help = "The size of a file of the spool.\nSee\n.Pa docs/spool-format.md ." },

    /* Delivery. */
    { .name = "connect_timeout", .type = CONF_DURATION, .offset = TOP(connect_timeout_s), .fallback = "30s", .min = 1,
      .max = HOUR, .help = "How long to wait for a connection to a next hop." },
    { .name = "reply_timeout", .type = CONF_DURATION, .offset = TOP(reply_timeout_s), .fallback = "5m", .min = 1,
      .max = DAY,
      .help = "How long to wait for a reply of a next hop; twice as long after the end of a message." },
    { .name = "retry_min", .type = CONF_DURATION, .offset = TOP(retry_min_s), .fallback = "1m", .min = 1, .max = DAY,
      .help = "The wait before the second attempt; each further wait is about twice as long." },
    { .name = "retry_max", .type = CONF_DURATION, .offset = TOP(retry_max_s), .fallback = "1h", .min = 1,
      .max = 7 * DAY,
      .help = "The longest wait between attempts." },
    { .name = "expire_after", .type = CONF_DURATION, .offset = TOP(expire_after_s), .fallback = "5d", .min = 1,
      .max = 365 * DAY, .help = "After this time without success a message goes back to its sender." },
    { .name = "bounce_expire_after", .type = CONF_DURATION, .offset = TOP(bounce_expire_after_s), .fallback = "2d",
      .min = 1,
      .max = 365 * DAY, .help = "The same for messages without a sender: they are dropped, with an event." },
    { .name = "delay_notice", .type = CONF_DURATION, .offset = TOP(delay_notice_s), .fallback = "4h", .min = 0,
      .max = 365 * DAY, .help = "After this time the sender is told, once, that delivery is delayed; 0 for never." },

    /* server */
    { .where = CONF_SERVER, .name = "listen", .type = CONF_STRINGS, .offset = SERVER(listen), .form = form_listen,
      .example = "{\"0.0.0.0:25\", \"[::]:25\"}", .help = "Addresses and ports for SMTP; STARTTLS is offered." },
    { .where = CONF_SERVER, .name = "submission", .type = CONF_STRINGS, .offset = SERVER(submission),
      .form = form_listen,
      .example = "{\"0.0.0.0:587\"}", .help = "Addresses and ports for submission; authentication is required." },
    { .where = CONF_SERVER, .name = "submissions", .type = CONF_STRINGS, .offset = SERVER(submissions),
      .form = form_listen,
      .example = "{\"0.0.0.0:465\"}",
      .help = "Addresses and ports for submission with TLS from the first octet; authentication is required." },
    { .where = CONF_SERVER, .name = "certificate", .type = CONF_PATH, .offset = SERVER(certificate),
      .example = "\"/etc/postern/mail.pem\"",
      .help = "The certificate in PEM, with the chain behind it.\nWithout one there is no TLS." },
    { .where = CONF_SERVER, .name = "key", .type = CONF_PATH, .offset = SERVER(key),
      .example = "\"/etc/postern/mail.key\"",
      .fallback_text = "the file of the certificate", .help = "The private key in PEM." },
    { .where = CONF_SERVER, .name = "tls_min", .type = CONF_STRING, .offset = SERVER(tls_min), .fallback = "1.2",
      .form = form_tls_min, .help = "The oldest version of TLS that is spoken: 1.0, 1.1, 1.2 or 1.3." },
    { .where = CONF_SERVER, .name = "mechanisms", .type = CONF_STRINGS, .offset = SERVER(mechanisms), .upper = true,
      .fallback = "SCRAM-SHA-256 PLAIN LOGIN", .form = form_mechanism,
      .help = "SASL mechanisms to offer, in this order.\nSCRAM-SHA-256 brings SCRAM-SHA-256-PLUS with it under TLS.\n"
              "PLAIN and LOGIN are offered under TLS only (see\n.Ic plaintext ) ." },
    { .where = CONF_SERVER, .name = "accept", .type = CONF_CHOICE, .offset = SERVER(accept), .fallback = "any",
      .choices = accept_names,
      .help = "What a connecting host must bring before it may send mail: any (nothing), auth, tls, auth+tls;\n"
              "deny answers everything with 521." },
    { .where = CONF_SERVER, .name = "relay", .type = CONF_BOOL, .offset = SERVER(relay), .fallback = "false",
      .help = "May hosts send to domains that are not ours without authentication?\n"
              "For all hosts this makes an open relay, "
              "which is refused." },
    { .where = CONF_SERVER, .name = "plaintext", .type = CONF_BOOL, .offset = SERVER(plaintext), .fallback = "false",
      .help = "May PLAIN and LOGIN be used without TLS?\nBetter said for single hosts." },
    { .where = CONF_SERVER, .name = "line_ends", .type = CONF_CHOICE, .offset = SERVER(line_ends), .fallback = "strict",
      .choices = line_ends_names,
      .help = "strict refuses a bare CR or LF; repair turns a bare LF within a message into CRLF.\n"
              "It never ends the message." },
    { .where = CONF_SERVER, .name = "strip_headers", .type = CONF_STRINGS, .offset = SERVER(strip_headers),
      .form = form_header,
      .example = "{\"X-MS-Exchange-Organization-*\"}", .help = "Header fields to take out of what comes in." },
    { .where = CONF_SERVER, .name = "protocol_log", .type = CONF_PATH, .offset = SERVER(protocol_log),
      .example = "\"/var/log/postern/mail.log\"",
      .help = "A file that gets every command and reply; passwords and messages are masked." },

    /* host: what is left out is the server's */
    { .where = CONF_HOST, .name = "accept", .type = CONF_CHOICE, .offset = HOST(accept), .inherited = true,
      .choices = accept_names, .example = "\"auth+tls\"", .help = "As in the server." },
    { .where = CONF_HOST, .name = "relay", .type = CONF_BOOL, .offset = HOST(relay), .inherited = true,
      .example = "true",
      .help = "May these hosts send to domains that are not ours without authentication?" },
    { .where = CONF_HOST, .name = "plaintext", .type = CONF_BOOL, .offset = HOST(plaintext), .inherited = true,
      .example = "true", .help = "May these hosts use PLAIN and LOGIN without TLS?\nFor old devices." },
    { .where = CONF_HOST, .name = "mechanisms", .type = CONF_STRINGS, .offset = HOST(mechanisms), .inherited = true,
      .upper = true, .form = form_mechanism, .example = "{\"LOGIN\"}", .help = "As in the server." },
    { .where = CONF_HOST, .name = "line_ends", .type = CONF_CHOICE, .offset = HOST(line_ends), .inherited = true,
      .choices = line_ends_names, .example = "\"repair\"", .help = "As in the server." },
    { .where = CONF_HOST, .name = "strip_headers", .type = CONF_STRINGS, .offset = HOST(strip_headers),
      .inherited = true,
      .form = form_header, .example = "{\"X-MS-Exchange-Organization-*\"}", .help = "As in the server." },

    /* domain */
    { .where = CONF_DOMAIN, .name = "deliver", .type = CONF_STRING, .offset = DOMAIN(deliver), .form = form_deliver,
      .example = "\"maildir:/var/mail/%u\"",
      .help = "The domain is ours, and its mail goes to a Maildir, by LMTP to a socket or a host, or nowhere:\n"
              "maildir:PATH, lmtp:PATH, lmtp:HOST:PORT (24 without PORT), discard.\nIn a path\n"
              "%u is the local part in lower case,\n%d the domain and\n%a the address." },
    { .where = CONF_DOMAIN, .name = "recipients", .type = CONF_PATH, .offset = DOMAIN(recipients), .fallback = "any",
      .form = form_recipients, .example = "\"users\"",
      .help = "Who exists in a domain of ours: any, users (the user store), or a file with one address or local "
              "part a line.\n"
              "Others are refused with 550 5.1.1." },
    { .where = CONF_DOMAIN, .name = "via", .type = CONF_STRINGS, .offset = DOMAIN(via), .form = form_via,
      .example = "{\"smtp.example.com:587\"}",
      .help = "The domain is a route: next hops, tried in this order, as HOST, HOST:PORT, or mx or mx:PORT for what "
              "DNS names.\n"
              "Mail to it needs the right to relay." },
    { .where = CONF_DOMAIN, .name = "tls", .type = CONF_CHOICE, .offset = DOMAIN(tls), .fallback = "opportunistic",
      .choices = tls_names,
      .help = "TLS towards the next hop: none, opportunistic, require, or verify (its name and the chain of its "
              "certificate)." },
    { .where = CONF_DOMAIN, .name = "auth", .type = CONF_STRING, .offset = DOMAIN(auth), .upper = true,
      .form = form_mechanism,
      .example = "\"PLAIN\"", .help = "The mechanism to log in with at the next hop." },
    { .where = CONF_DOMAIN, .name = "user", .type = CONF_STRING, .offset = DOMAIN(user), .form = form_any,
      .example = "\"relay\"", .help = "The name to log in with." },
    { .where = CONF_DOMAIN, .name = "password_file", .type = CONF_PATH, .offset = DOMAIN(password_file),
      .example = "\"/etc/postern/partner.pw\"",
      .help = "The file whose first line is the password.\nroot:root 0600 is enough." },
    { .where = CONF_DOMAIN, .name = "server", .type = CONF_STRING, .offset = DOMAIN(server), .form = form_any,
      .fallback_text = "the first server", .example = "\"mail.example.com\"",
      .help = "The server whose name goes into EHLO, whose address is the source, and whose certificate is used." },
    { .where = CONF_DOMAIN, .name = "concurrency", .type = CONF_NUMBER, .offset = DOMAIN(concurrency), .fallback = "20",
      .min = 1, .max = 1000, .help = "Connections to one next hop at the same time." },
};
const size_t conf_schema_n = sizeof conf_schema / sizeof *conf_schema;

const struct conf_block conf_blocks[] = {
    { .name = "server", .outer = CONF_TOP, .where = CONF_SERVER, .item_bytes = sizeof(struct conf_server),
      .name_offset = SERVER(name), .place_offset = SERVER(place), .list_offset = TOP(server),
      .count_offset = TOP(n_servers),
      .title = "NAME",
      .help = "A virtual server: an identity of its own, with a name, ports, a certificate and rules.\n"
              "Several may share an address and a port: the name that the client asks for in TLS decides, otherwise "
              "the first." },
    { .name = "host", .outer = CONF_SERVER, .where = CONF_HOST, .item_bytes = sizeof(struct conf_host),
      .name_offset = HOST(network), .place_offset = HOST(place), .list_offset = SERVER(host),
      .count_offset = SERVER(n_hosts),
      .title = "NETWORK",
      .help = "Rules for an address or a network, within a server.\nThe most specific network wins.\n"
              "What is left out is as in the server." },
    { .name = "domain", .outer = CONF_TOP, .where = CONF_DOMAIN, .item_bytes = sizeof(struct conf_domain),
      .name_offset = DOMAIN(name), .place_offset = DOMAIN(place), .list_offset = TOP(domain),
      .count_offset = TOP(n_domains),
      .title = "DOMAIN",
      .help = "Where mail for a domain goes.\n"
              "The title is a domain, *.DOMAIN for every domain below one, or * for all others.\n"
              "A domain has either\n.Ic deliver\nor\n.Ic via ." },
};
const size_t conf_blocks_n = sizeof conf_blocks / sizeof *conf_blocks;

const struct conf_option *conf_option_find(enum conf_where where, struct str name)
{
    for (size_t i = 0; i < conf_schema_n; i++)
        if (conf_schema[i].where == where && str_eq(name, str_of(conf_schema[i].name)))
            return &conf_schema[i];
    return NULL;
}

const struct conf_block *conf_block_find(enum conf_where outer, struct str name)
{
    for (size_t i = 0; i < conf_blocks_n; i++)
        if (conf_blocks[i].outer == outer && str_eq(name, str_of(conf_blocks[i].name)))
            return &conf_blocks[i];
    return NULL;
}

const struct conf_option *conf_option_elsewhere(struct str name, enum conf_where not_here)
{
    for (size_t i = 0; i < conf_schema_n; i++)
        if (conf_schema[i].where != not_here && str_eq(name, str_of(conf_schema[i].name)))
            return &conf_schema[i];
    return NULL;
}

const char *conf_where_name(enum conf_where where)
{
    static const char *const names[CONF_WHERES] = { "", "server", "host", "domain" };
    return names[where];
}

void conf_names(enum conf_where where, const char *ret_names[CONF_OPTIONS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < conf_schema_n && n < CONF_OPTIONS_MAX - 2; i++)
        if (conf_schema[i].where == where)
            ret_names[n++] = conf_schema[i].name;
    for (size_t i = 0; i < conf_blocks_n && n < CONF_OPTIONS_MAX - 2; i++)
        if (conf_blocks[i].outer == where)
            ret_names[n++] = conf_blocks[i].name;
    ret_names[n] = NULL;
}
