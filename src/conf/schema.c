#include "conf/schema.h"

#include "conf/form.h"

#define TOP(field) offsetof(struct conf, field)
#define SERVER(field) offsetof(struct conf_server, field)
#define HOST(field) offsetof(struct conf_host, field)
#define DOMAIN(field) offsetof(struct conf_domain, field)
#define DIRECTORY(field) offsetof(struct conf_directory, field)
#define IDENTITY(field) offsetof(struct conf_identity, field)
#define PEERS(field) offsetof(struct conf_peers, field)

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* In the order of the enums in conf.h. */
static const char *const accept_names[] = { "any", "auth", "tls", "auth+tls", "deny", NULL };
static const char *const tls_names[] = { "none", "opportunistic", "require", "verify", NULL };
static const char *const line_ends_names[] = { "strict", "repair", NULL };
static const char *const binding_names[] = { "allow", "require", NULL };
static const char *const encryption_names[] = { "tls", "layer", "any", NULL };
static const char *const send_as_names[] = { "auto", "any", "own", NULL };
static const char *const bind_names[] = { "gssapi", "starttls", "ldaps", NULL };

static const char *computed_control(const struct conf *conf, struct arena *arena)
{
    return arena_printf(arena, "%s/control", conf->spool);
}

static const char *computed_drop(const struct conf *conf, struct arena *arena)
{
    return arena_printf(arena, "%s/drop", conf->spool);
}

/* Beside the user store, whose folder is auth's already. */
static const char *computed_auth_state(const struct conf *conf, struct arena *arena)
{
    const char *slash = strrchr(conf->users, '/');
    return arena_printf(arena, "%.*s/auth", slash ? (int)(slash - conf->users) : 0, conf->users);
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
    { .name = "krb5_config", .type = CONF_PATH, .offset = TOP(krb5_config),
      .fallback_text = "what the system has, mostly\n.Pa /etc/krb5.conf", .example = "\"/etc/postern/krb5.conf\"",
      .help = "The configuration of Kerberos that is used instead of the system's." },
    { .name = "auth_state", .type = CONF_PATH, .offset = TOP(auth_state), .computed = computed_auth_state,
      .fallback_text = "auth in the folder of\n.Ic users",
      .help = "The folder for Kerberos's replay cache.\nOnly needed where Kerberos is used." },

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
      .help = "SASL mechanisms to offer, in this order: GSSAPI, GSS-SPNEGO, SCRAM-SHA-256, NTLM, PLAIN, LOGIN.\n"
              "SCRAM-SHA-256 brings SCRAM-SHA-256-PLUS with it under TLS.\n"
              "NTLM inside GSSAPI or GSS-SPNEGO is taken only where NTLM is offered, too.\n"
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
    { .where = CONF_SERVER, .name = "aliases", .type = CONF_STRINGS, .offset = SERVER(aliases), .form = form_alias,
      .lower = true, .example = "{\"smtp.corp.test\", \"mail\"}",
      .help = "Further names that clients use for this server.\nKerberos tickets and NTLM targets with these names are "
              "taken, too." },
    { .where = CONF_SERVER, .name = "keytab", .type = CONF_PATH, .offset = SERVER(keytab),
      .example = "\"/etc/postern/smtp.keytab\"",
      .help = "The keys of this server's service account, for GSSAPI and GSS-SPNEGO.\nSeveral servers may share one.\n"
              "root:root 0600 is enough.\nA changed file is used without reload." },
    { .where = CONF_SERVER, .name = "spn", .type = CONF_STRINGS, .offset = SERVER(spn), .form = form_spn,
      .fallback_text = "the classes SMTPSVC and smtp with the server's name, each of its\n.Ic aliases ,\nand their first labels",
      .example = "{\"SMTPSVC/mail.corp.test\", \"smtp/mail.corp.test\"}",
      .help = "The services that a ticket may be for, as CLASS/NAME or CLASS/NAME@REALM; letters of either case.\n"
              "With @REALM the ticket must be of that realm.\nA ticket for another service of the same account is refused." },
    { .where = CONF_SERVER, .name = "exps", .type = CONF_BOOL, .offset = SERVER(exps), .fallback = "false",
      .help = "Offer X-EXPS, the verb that Exchange servers log in with." },
    { .where = CONF_SERVER, .name = "login_line", .type = CONF_BOOL, .offset = SERVER(login_line), .fallback = "false",
      .help = "Offer LOGIN in the spelling AUTH=LOGIN (and X-EXPS=LOGIN) once more, for clients that know no other." },
    { .where = CONF_SERVER, .name = "channel_binding", .type = CONF_CHOICE, .offset = SERVER(channel_binding),
      .fallback = "allow", .choices = binding_names,
      .help = "Extended protection: must a login by GSSAPI, GSS-SPNEGO or NTLM be bound to its TLS connection?\n"
              "Wrong bindings are always refused; require refuses those without any." },
    { .where = CONF_SERVER, .name = "encryption", .type = CONF_CHOICE, .offset = SERVER(encryption), .fallback = "tls",
      .choices = encryption_names,
      .help = "What counts as encrypted for\n.Ic accept No = \\(dqtls\\(dq\nand\n.Ic accept No = \\(dqauth+tls\\(dq :\n"
              "tls; layer, which is TLS or a SASL layer that encrypts; any, which is TLS or any SASL layer." },
    { .where = CONF_SERVER, .name = "send_as", .type = CONF_CHOICE, .offset = SERVER(send_as), .fallback = "auto",
      .choices = send_as_names,
      .help = "Which addresses may stand in MAIL FROM after a login: any, or own, which are those that the identity\n"
              "blocks give.\nOthers are refused with 550 5.7.60.\nauto is own where there are identity blocks, "
              "otherwise any." },

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
    { .where = CONF_HOST, .name = "exps", .type = CONF_BOOL, .offset = HOST(exps), .inherited = true,
      .example = "true", .help = "As in the server." },
    { .where = CONF_HOST, .name = "login_line", .type = CONF_BOOL, .offset = HOST(login_line), .inherited = true,
      .example = "true", .help = "As in the server." },
    { .where = CONF_HOST, .name = "ntlm_v1", .type = CONF_BOOL, .offset = HOST(ntlm_v1), .fallback = "false",
      .help = "May these hosts log in with version 1 of NTLM against the user store?\n"
              "It is broken; for devices that know nothing newer." },
    { .where = CONF_HOST, .name = "channel_binding", .type = CONF_CHOICE, .offset = HOST(channel_binding),
      .inherited = true, .choices = binding_names, .example = "\"require\"", .help = "As in the server." },
    { .where = CONF_HOST, .name = "encryption", .type = CONF_CHOICE, .offset = HOST(encryption), .inherited = true,
      .choices = encryption_names, .example = "\"layer\"", .help = "As in the server." },
    { .where = CONF_HOST, .name = "send_as", .type = CONF_CHOICE, .offset = HOST(send_as), .inherited = true,
      .choices = send_as_names, .example = "\"any\"", .help = "As in the server." },

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
    { .where = CONF_DOMAIN, .name = "auth", .type = CONF_STRING, .offset = DOMAIN(auth_written), .upper = true,
      .form = form_auth, .example = "\"PLAIN\"",
      .help = "How to log in at the next hop: a mechanism; X-EXPS, which is the strongest one by that verb; or auto,\n"
              "the strongest that the next hop offers and there are credentials for.\n"
              "A login that fails defers the mail.\n"
              "With optional: before it mail goes out without a login then, and that is logged each time." },
    { .where = CONF_DOMAIN, .name = "user", .type = CONF_STRING, .offset = DOMAIN(user), .form = form_any,
      .example = "\"relay\"", .help = "The name to log in with; for NTLM with its domain, CORP\\erelay." },
    { .where = CONF_DOMAIN, .name = "password_file", .type = CONF_PATH, .offset = DOMAIN(password_file),
      .example = "\"/etc/postern/partner.pw\"",
      .help = "The file whose first line is the password of\n.Ic user\nor\n.Ic principal .\n"
              "root:root 0600 is enough." },
    { .where = CONF_DOMAIN, .name = "principal", .type = CONF_STRING, .offset = DOMAIN(principal),
      .form = form_principal, .example = "\"svc-postern@CORP.TEST\"",
      .help = "The Kerberos principal to log in as, with GSSAPI and GSS-SPNEGO." },
    { .where = CONF_DOMAIN, .name = "keytab", .type = CONF_PATH, .offset = DOMAIN(keytab),
      .example = "\"/etc/postern/svc-postern.keytab\"",
      .help = "The principal's keys, instead of a password.\nroot:root 0600 is enough.\n"
              "A changed file is used without reload." },
    { .where = CONF_DOMAIN, .name = "target_spn", .type = CONF_STRINGS, .offset = DOMAIN(target_spn),
      .form = form_spn, .fallback_text = "SMTPSVC and then smtp, with the name that the next hop announces",
      .example = "{\"SMTPSVC/exchange.corp.test\"}",
      .help = "The services to get a ticket for, tried in this order." },
    { .where = CONF_DOMAIN, .name = "seal", .type = CONF_BOOL, .offset = DOMAIN(seal), .fallback = "false",
      .help = "Where there is no TLS, encrypt the session with a layer of the login (GSSAPI, GSS-SPNEGO, NTLM), or "
              "defer." },
    { .where = CONF_DOMAIN, .name = "server", .type = CONF_STRING, .offset = DOMAIN(server), .form = form_any,
      .fallback_text = "the first server", .example = "\"mail.example.com\"",
      .help = "The server whose name goes into EHLO, whose address is the source, and whose certificate is used." },
    { .where = CONF_DOMAIN, .name = "concurrency", .type = CONF_NUMBER, .offset = DOMAIN(concurrency), .fallback = "20",
      .min = 1, .max = 1000, .help = "Connections to one next hop at the same time." },

    /* directory */
    { .where = CONF_DIRECTORY, .name = "servers", .type = CONF_STRINGS, .offset = DIRECTORY(servers), .form = form_ldap,
      .example = "{\"ldap://dc1.corp.test\", \"ldap://dc2.corp.test\"}",
      .help = "The directory's servers, asked in this order, by name: Kerberos and certificates need it." },
    { .where = CONF_DIRECTORY, .name = "bind", .type = CONF_CHOICE, .offset = DIRECTORY(bind), .fallback = "gssapi",
      .choices = bind_names,
      .help = "How the connection is protected: gssapi (Kerberos signs and encrypts), starttls, or ldaps.\n"
              "The login is Kerberos', or under TLS a simple one with\n.Ic password_file .\n"
              "Samba as it comes takes no login of Kerberos under TLS." },
    { .where = CONF_DIRECTORY, .name = "ca", .type = CONF_PATH, .offset = DIRECTORY(ca),
      .fallback_text = "the certificates of the system", .example = "\"/etc/postern/corp-ca.pem\"",
      .help = "The certificates, in PEM, that the directory's are checked against." },
    { .where = CONF_DIRECTORY, .name = "principal", .type = CONF_STRING, .offset = DIRECTORY(principal),
      .form = form_principal, .example = "\"svc-postern@CORP.TEST\"", .help = "Who asks the directory." },
    { .where = CONF_DIRECTORY, .name = "keytab", .type = CONF_PATH, .offset = DIRECTORY(keytab),
      .example = "\"/etc/postern/svc-postern.keytab\"",
      .help = "The keys of that principal.\nroot:root 0600 is enough." },
    { .where = CONF_DIRECTORY, .name = "password_file", .type = CONF_PATH, .offset = DIRECTORY(password_file),
      .example = "\"/etc/postern/svc-postern.pw\"",
      .help = "The file whose first line is the principal's password, instead of keys.\nOnly under TLS.\n"
              "root:root 0600 is enough." },
    { .where = CONF_DIRECTORY, .name = "base", .type = CONF_STRING, .offset = DIRECTORY(base), .form = form_base,
      .fallback_text = "from the realm: DC=corp,DC=test", .example = "\"OU=People,DC=corp,DC=test\"",
      .help = "Below which entry accounts are looked for." },
    { .where = CONF_DIRECTORY, .name = "netbios", .type = CONF_STRING, .offset = DIRECTORY(netbios),
      .form = form_netbios, .upper = true, .example = "\"CORP\"",
      .help = "The NT name of the realm: CORP\\ealice is alice@CORP.TEST then." },

    /* identity */
    { .where = CONF_IDENTITY, .name = "realm", .type = CONF_STRING, .offset = IDENTITY(realm), .form = form_realm,
      .fallback_text = "with\n.Ic match\nor\n.Ic table\nevery login, otherwise users of the user store",
      .example = "\"CORP.TEST\"", .help = "The rule is for logins of this Kerberos realm." },
    { .where = CONF_IDENTITY, .name = "domain", .type = CONF_STRING, .offset = IDENTITY(domain), .form = form_domain,
      .lower = true, .example = "\"corp.test\"",
      .help = "The mailbox is the name of the login at this domain.\nNames of machines and services have none." },
    { .where = CONF_IDENTITY, .name = "match", .type = CONF_STRING, .offset = IDENTITY(match), .form = form_match,
      .example = "\"^svc-(.*)@CORP\\\\.TEST$\"",
      .help = "A POSIX extended regular expression for the whole principal; the case of letters counts.\n"
              "Needs\n.Ic mailbox\nor\n.Ic reject ." },
    { .where = CONF_IDENTITY, .name = "mailbox", .type = CONF_STRING, .offset = IDENTITY(mailbox), .form = form_any,
      .example = "\"\\\\1@corp.test\"",
      .help = "The mailbox for\n.Ic match ;\n\\e1 to \\e9 stand for what the groups matched." },
    { .where = CONF_IDENTITY, .name = "attribute", .type = CONF_STRINGS, .offset = IDENTITY(attribute),
      .form = form_attribute, .example = "{\"mail\", \"proxyAddresses\"}",
      .help = "Attributes of the account in the directory of\n.Ic realm .\nThe first address is the mailbox, the "
              "others may be used as sender, too.\nOf proxyAddresses the one with SMTP: in capitals comes first." },
    { .where = CONF_IDENTITY, .name = "table", .type = CONF_PATH, .offset = IDENTITY(table),
      .example = "\"/etc/postern/identity\"",
      .help = "A file of lines: a principal or user, a mailbox, and further addresses that may be used as sender\n"
              "(*@DOMAIN for all of a domain), with blanks between them; # begins a comment." },
    { .where = CONF_IDENTITY, .name = "netbios", .type = CONF_STRING, .offset = IDENTITY(netbios),
      .form = form_netbios, .upper = true, .example = "\"CORP\"",
      .help = "The NT name of the realm, where it has no directory block." },
    { .where = CONF_IDENTITY, .name = "reject", .type = CONF_BOOL, .offset = IDENTITY(reject), .fallback = "false",
      .help = "Logins that the rule is for are refused." },

    /* peers */
    { .where = CONF_PEERS, .name = "principals", .type = CONF_STRINGS, .offset = PEERS(principals),
      .form = form_principal,
      .example = "{\"MX1$@CORP.TEST\", \"SMTPSVC/mx2.corp.test@CORP.TEST\"}",
      .help = "Who they log in as: principals, NAME@REALM, case kept." },
    { .where = CONF_PEERS, .name = "rights", .type = CONF_STRINGS, .offset = PEERS(rights), .form = form_right,
      .lower = true, .example = "{\"relay\", \"any-sender\"}",
      .help = "What they may do: submit (send to domains of ours, always there), relay (to all others), any-sender\n"
              "(use any address in MAIL FROM), headers (header fields of\n.Ic strip_headers\nstay), size (no limit of "
              "size).\nOther logins may submit and relay." },
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
    { .name = "directory", .outer = CONF_TOP, .where = CONF_DIRECTORY, .item_bytes = sizeof(struct conf_directory),
      .name_offset = DIRECTORY(realm), .place_offset = DIRECTORY(place), .list_offset = TOP(directory),
      .count_offset = TOP(n_directories), .form = form_realm,
      .title = "REALM",
      .help = "The LDAP directory of a Kerberos realm, for identity blocks with\n.Ic attribute ." },
    { .name = "identity", .outer = CONF_TOP, .where = CONF_IDENTITY, .item_bytes = sizeof(struct conf_identity),
      .name_offset = IDENTITY(name), .place_offset = IDENTITY(place), .list_offset = TOP(identity),
      .count_offset = TOP(n_identities), .form = form_any,
      .title = "NAME",
      .help = "A rule from who logged in to a mailbox.\n"
              "Rules are tried in the order of the file, and the first that gives a mailbox wins; the title is for "
              "the log.\n"
              "A rule has one of\n.Ic domain , match , attribute , table\nor\n.Ic reject .\n"
              "CORP\\ealice, alice@corp.test and alice@CORP.TEST are the same login: names of NT domains and realms in "
              "letters of either case become the realm's principal before the rules.\n"
              "A user of the user store whose name is an address has it as mailbox when no rule gives another.\n"
              ".Xr postern-whoami 1\nshows what becomes of a login." },
    { .name = "peers", .outer = CONF_TOP, .where = CONF_PEERS, .item_bytes = sizeof(struct conf_peers),
      .name_offset = PEERS(name), .place_offset = PEERS(place), .list_offset = TOP(peers),
      .count_offset = TOP(n_peers), .form = form_any,
      .title = "NAME",
      .help = "Logins that are other mail servers, and what they may do.\nThe first block that names a login holds." },
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
    static const char *const names[CONF_WHERES] = {
        "", "server", "host", "domain", "directory", "identity", "peers",
    };
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
