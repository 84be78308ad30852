/* What the loader says about files with mistakes: the whole list, word for word. */
#include "memory_reader.h"

#define SERVER "server \"s.test\" { listen = {\"127.0.0.1:25\"} }\n"
#define DOMAIN "domain \"d.test\" { deliver = \"discard\" }\n"
#define GOOD SERVER DOMAIN

struct row {
    const char *text, *expected;
};

static const struct row rows[] = {
    { GOOD, "" },
    { GOOD "spol = \"/x\"\n", "f:3: spol is not known, did you mean \"spool\"?\n" },
    { GOOD "certificate = \"/x\"\n", "f:3: certificate is not known, it stands in a server block\n" },
    { GOOD "max_recipients = many\n", "f:3: max_recipients: \"many\" is not a number, write a whole number\n" },
    { GOOD "max_recipients = 0\n", "f:3: max_recipients: \"0\" is too small, write 1 to 50000\n" },
    { GOOD "max_message_size = \"50X\"\n",
      "f:3: max_message_size: \"50X\" is not a size, write a number of octets, perhaps with K, M or G: \"50M\"\n" },
    { GOOD "retry_min = \"5 minutes\"\n",
      "f:3: retry_min: \"5 minutes\" is not a duration, write a number with s, m, h, d or w: \"5m\", \"1h30m\"\n" },
    { GOOD "spool = \"/a\"\nspool = \"/b\"\n", "f:4: spool was given already at f:3, keep one of the two\n" },
    { GOOD "spool = {\"/a\", \"/b\"}\n", "f:3: spool takes one value, not a list, write it without braces\n" },
    { GOOD "spool = \"\"\n", "f:3: spool: the path is empty, leave the option out or name a file\n" },
    { GOOD "spool = \"a\\nb\"\n", "f:3: spool: the value holds a control character, take it out\n" },
    { GOOD "postmaster = \"me\"\n",
      "f:3: postmaster: \"me\" is not what can stand here, write a whole address: \"hostmaster@example.com\"\n" },
    { GOOD "resolver = \"dns.example\"\n", "f:3: resolver: \"dns.example\" is not what can stand here, write the "
                                           "address of a resolver, perhaps with its port: "
                                           "\"10.0.0.1\", \"127.0.0.1:5353\"\n" },
    { GOOD "log = \"sylog\"\n", "f:3: log: \"sylog\" is not what can stand here, did you mean \"syslog\"?\n" },
    { GOOD "host \"10.0.0.0/8\" { }\n", "f:3: the block host cannot stand here, it stands in a server block\n" },
    { GOOD "sever \"x\" { }\n", "f:3: sever is not known, did you mean \"server\"?\n" },
    { GOOD "server { listen = \"127.0.0.1:26\" }\n",
      "f:3: the block server has no title, write server \"NAME\" { … }\n" },
    { GOOD "server = \"x\"\n", "f:3: server is a block: server \"title\" { … }\n" },
    { GOOD "spool \"x\" { }\n", "f:3: spool is an option, not a block, write spool = …\n" },
    /* Syntax. */
    { GOOD "spool \"/x\"\nusers = 1\n", "f:4: users is not what can stand here, an option is written spool = "
                                        "\"value\", a block spool \"title\" { … }\n" },
    { "bogus = 1\n" GOOD "spool = \"/x\n",
      "f:1: bogus is not known, there are spool, users, keys, control, drop, user, mail_owner, postmaster, resolver, "
      "ca_file, krb5_config, auth_state, "
      "log, log_format, session_log, session_log_days, max_message_size, max_recipients, max_hops, max_sessions, "
      "max_sessions_per_address, max_commands, max_errors, command_line_max, text_line_max, command_timeout, "
      "data_timeout …\n"
      "f:4: a string begins here and does not end, end it with \" on the same line\n" },
    { GOOD "/* no end", "f:3: a comment begins here and does not end, end it with */\n" },
    { GOOD "}\n", "f:3: \"}\" is not what can stand here, no block is open: take it out\n" },
    { DOMAIN "server \"s.test\" {\n listen = \"127.0.0.1:25\"\n",
      "f:2: the block server begins here and does not end, end it with }\n" },
    { GOOD "resolver = \"10.0.0.1\", \"10.0.0.2\"\n",
      "f:3: a comma is not what can stand here, several values stand in braces: { \"one\", \"two\" }\n" },
    { GOOD "spool = \"\\q\"\n", "f:3: a backslash in a string is followed by something unknown, there are \\\" \\\\ "
                                "\\n \\t \\r and \\xHH (not \\x00); "
                                "'single quotes' take all as it is\n" },
    { GOOD "spool = /x;\n", "f:3: \";\" has no meaning here, take it out, or put it in quotes\n" },
    { GOOD "\n# \xff\n", "f:4: the file is not UTF-8 text, save it as UTF-8\n" },
    { GOOD "include(\"nowhere.conf\")\nspol = 1\n", "f:3: cannot include: cannot open nowhere.conf: No such file or "
                                                    "directory, make the file, or take the include out\n"
                                                    "f:4: spol is not known, did you mean \"spool\"?\n" },
    { GOOD "include(\"f\")\n", "f:3: f includes itself, take it out\n" },
    /* What must stand together. */
    { DOMAIN, "f: there is no server, add server \"mail.example.com\" { listen = {\"0.0.0.0:25\"} }\n" },
    { SERVER, "f: warning: there is no domain: no mail is taken, add domain \"example.com\" { deliver = "
              "\"maildir:/var/mail/%u\" }\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\"\n accept = \"tls\" }\n",
      "f:3: accept = \"tls\" needs TLS, and server \"s.test\" has no certificate, add certificate = \"FILE\" (and "
      "key = "
      "\"FILE\")\n" },
    { DOMAIN "server \"s.test\" { submission = \"127.0.0.1:587\"\nsubmissions = \"127.0.0.1:465\" }\n",
      "f:2: submission needs TLS, and server \"s.test\" has no certificate, add certificate = \"FILE\" (and key = "
      "\"FILE\")\n"
      "f:3: submissions needs TLS, and server \"s.test\" has no certificate, add certificate = \"FILE\" (and key = "
      "\"FILE\")\n" },
    { DOMAIN "server \"s.test\" { submission = \"127.0.0.1:587\" certifcate = \"/x\" }\n",
      "f:2: certifcate is not known in a server block, did you mean \"certificate\"?\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\" key = \"/k\"\n host \"10.0.0.0/8\" { accept = "
             "\"auth+tls\" } }\n",
      "f:2: server \"s.test\" has a key and no certificate, add certificate = \"FILE\" (and key = \"FILE\")\n"
      "f:3: accept = \"auth+tls\" for host \"10.0.0.0/8\" needs TLS, and server \"s.test\" has no certificate, add "
      "certificate "
      "= \"FILE\" (and key = \"FILE\")\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\" accept = auth mechanisms = {PLAIN, LOGIN} }\n",
      "f:2: nobody can authenticate: PLAIN and LOGIN need TLS, and server \"s.test\" has no certificate, add a "
      "certificate, or "
      "SCRAM-SHA-256 to mechanisms\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\" mechanisms = {\"PLIAN\"} }\n",
      "f:2: mechanisms: \"PLIAN\" is not what can stand here, did you mean \"PLAIN\"?\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\" mechanisms = {\"PLAIN\", \"plain\"} }\n",
      "f:2: mechanisms: \"PLAIN\" stands here twice, once is enough\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\" accept = \"tsl\" }\n",
      "f:2: accept: \"tsl\" is not known, did you mean \"tls\"?\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1\" }\n",
      "f:2: listen: \"127.0.0.1\" is not what can stand here, the port is missing: \"127.0.0.1:25\"\n" },
    { DOMAIN "server \"s.test\" { listen = \"localhost:25\" }\n",
      "f:2: listen: \"localhost:25\" is not what can stand here, an address stands here, not a name: "
      "\"10.0.0.1:25\", "
      "\"[2001:db8::1]:25\"\n" },
    { DOMAIN "server \"s.test\" { }\n", "f:2: no server listens anywhere, add listen = {\"ADDRESS:25\"}\n" },
    { GOOD "server \"S.TEST\" { listen = \"127.0.0.1:26\" }\n",
      "f:3: server \"S.TEST\" was given already at f:1, keep one of the two\n" },
    { GOOD "domain \"D.test\" { via = mx }\n",
      "f:3: domain \"d.test\" was given already at f:2, keep one of the two\n" },
    { GOOD "server \"t.test\" { listen = \"127.0.0.1:25\" }\n",
      "f:3: 127.0.0.1:25 is taken by server \"s.test\" at f:1, and without TLS no client can ask for \"t.test\", use "
      "another "
      "address, or add a certificate\n" },
    { GOOD "server \"t.test\" { listen = \"127.0.0.1:25\" certificate = \"/c\" }\n", "" },
    { GOOD "server \"t.test\" { submission = \"127.0.0.1:25\" certificate = \"/c\" }\n",
      "f:3: 127.0.0.1:25 is taken by server \"s.test\" for another kind of port at f:1, use another port, or the "
      "same kind of "
      "port\n" },
    { DOMAIN "server \"t.test\" { listen = \"[::1]:25\" submission = \"[::1]:25\" certificate = \"/c\" }\n",
      "f:2: [::1]:25 stands twice in server \"t.test\", take one out\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\"\n host \"10.1.2.3/16\" { }\n host \"10.0.0.0/33\" { }\n "
             "host \"x\" { }\n"
             " host \"10.2.0.0/16\" { }\n host \"::ffff:10.2.0.0/112\" { } }\n",
      "f:3: host: \"10.1.2.3/16\" has bits set behind its prefix, write \"10.1.0.0/16\"\n"
      "f:4: host: \"10.0.0.0/33\": behind the / stands the number of bits, 0 to 32, write host \"10.1.0.0/16\" { … } "
      "or host "
      "\"192.168.7.20\" { … }\n"
      "f:5: host: \"x\" is not an IPv4 or IPv6 address or network, write host \"10.1.0.0/16\" { … } or host "
      "\"192.168.7.20\" { "
      "… }\n"
      "f:7: host \"::ffff:10.2.0.0/112\" was given already at f:6, keep one of the two\n" },
    { DOMAIN "server \"s.test\" { listen = \"10.0.0.1:25\"\n relay = true }\ndomain \"e.test\" { deliver = "
             "\"discard\" recipients = users }\n",
      "f:3: relay = true for all hosts of server \"s.test\" makes an open relay, write relay = true into host "
      "blocks\n"
      "f:1: warning: domain \"d.test\" takes mail for any recipient from everywhere, write recipients = \"users\" or "
      "a file\n" },
    { DOMAIN "server \"s.test\" { listen = \"127.0.0.1:25\"\n host \"0.0.0.0/0\" { relay = true }\n host \"::/0\" { "
             "relay = on }\n"
             "host \"127.0.0.0/8\" { relay = true plaintext = true } host \"10.0.0.0/8\" { relay = yes }\n"
             "host \"10.1.0.0/16\" { plaintext = true } host \"64.0.0.0/2\" { relay = true } }\n",
      "f:3: relay = true for \"0.0.0.0/0\" makes an open relay, name the networks that may relay\n"
      "f:4: relay = true for \"::/0\" makes an open relay, name the networks that may relay\n"
      "f:6: warning: plaintext = true for \"10.1.0.0/16\": passwords of a whole network may go in clear text, name "
      "single "
      "devices\n"
      "f:6: warning: relay = true for \"64.0.0.0/2\" holds for very many hosts, name smaller networks\n" },
    { SERVER "domain \"a.test\" { }\ndomain \"b.test\" { deliver = \"discard\" via = \"mx\" }\n",
      "f:2: domain \"a.test\" has neither deliver nor via, add deliver = \"maildir:/var/mail/%u\" for a domain of "
      "ours, or via = "
      "{\"mx\"} for a route\n"
      "f:3: domain \"b.test\" has both deliver and via, deliver makes it ours, via makes it a route: keep one\n" },
    { SERVER "domain \"*\" { deliver = \"discard\" }\n",
      "f:2: domain \"*\" is every other domain of the world and cannot be ours, name the domains that are ours\n" },
    { SERVER "domain \"a.test\" { deliver = \"maildir:mail/%u\" }\n",
      "f:2: deliver: \"maildir:mail/%u\" is not what can stand here, behind maildir: stands a whole path without "
      "\"..\": "
      "\"maildir:/var/mail/%u\"\n" },
    { SERVER "domain \"a.test\" { deliver = \"maildir:/mail/%n\" }\n",
      "f:2: deliver: \"maildir:/mail/%n\" is not what can stand here, there are %u (local part), %d (domain) and %a "
      "(address)\n" },
    { SERVER "domain \"a.test\" { via = \"host:99999\" }\n",
      "f:2: via: \"host:99999\" is not what can stand here, write \"mx\", \"mx:PORT\", \"HOST\", \"HOST:PORT\" or "
      "\"[ADDRESS]:PORT\"\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = \"PLAIN\" tls = \"verify\" }\n",
      "f:2: auth = \"PLAIN\" for domain \"a.test\" needs a user and a password, add user = \"NAME\" and "
      "password_file = \"FILE\"\n" },
    { SERVER
      "domain \"a.test\" { via = \"h.test\" auth = \"PLAIN\" tls = \"none\" user = u password_file = \"/p\" }\n",
      "f:2: auth = \"PLAIN\" with tls = \"none\" sends the password in clear text, write tls = \"verify\" or "
      "\"require\"\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" user = u password_file = \"/p\" }\n",
      "f:2: domain \"a.test\" has a user and no auth, add auth = \"PLAIN\" or another mechanism\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" server = \"t.test\" }\n",
      "f:2: there is no server \"t.test\", did you mean \"s.test\"?\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" recipients = \"users\" }\n",
      "f:2: recipients belongs to a domain with deliver, and \"a.test\" has none, take it out, or write deliver "
      "instead of via\n" },
    { SERVER "domain \"a.test\" { deliver = \"discard\" tls = \"none\" }\n",
      "f:2: tls belongs to a route, and domain \"a.test\" has deliver, take it out, or write via instead of "
      "deliver\n" },
    { SERVER "domain \"*\" { via = \"mx\" auth = \"SCRAM-SHA-256\" user = u password_file = \"/p\" }\n",
      "f:2: auth with via = \"mx\" in domain \"*\" shows the password to every mail server, name the hosts in "
      "via\n" },
    { SERVER "domain \"a_b..test\" { via = mx }\n", "f:2: domain: \"a_b..test\" is not a domain, the title is a "
                                                    "domain, \"*.DOMAIN\" for all below it, or \"*\" for every "
                                                    "other\n" },
    /* Kerberos, directories, identities, peers. */
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"} mechanisms = {GSSAPI} }\n" DOMAIN,
      "f:1: server \"s.test\" offers GSSAPI, and server \"s.test\" has no keytab, add keytab = \"FILE\" to the "
      "server\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"}\n host \"10.0.0.0/8\" { mechanisms = {GSS-SPNEGO} } }\n" DOMAIN,
      "f:2: host \"10.0.0.0/8\" offers GSS-SPNEGO, and server \"s.test\" has no keytab, add keytab = \"FILE\" to the "
      "server\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"} mechanisms = {GSS-SPNEGO, NTLM} }\n" DOMAIN, "" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"}\n exps = true mechanisms = {PLAIN} }\n" DOMAIN,
      "f:2: exps = true, and server \"s.test\" has no mechanism for X-EXPS, add GSSAPI, GSS-SPNEGO, NTLM or LOGIN to "
      "mechanisms\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"}\n channel_binding = require\n spn = {\"smtp/s.test\"} }\n" DOMAIN,
      "f:2: channel_binding = \"require\" binds logins to TLS, and server \"s.test\" has no certificate, add "
      "certificate = \"FILE\" (and key = \"FILE\")\n"
      "f:3: server \"s.test\" has an spn and no keytab, add keytab = \"FILE\"\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"} keytab = \"/k\" spn = {\"mail.s.test\"} }\n" DOMAIN,
      "f:1: spn: \"mail.s.test\" is not what can stand here, write CLASS/NAME, perhaps with @REALM: "
      "\"SMTPSVC/mail.corp.test\"\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"}\n host \"10.0.0.1\" { ntlm_v1 = true } login_line = true "
      "mechanisms = {PLAIN} }\n" DOMAIN,
      "f:2: login_line = true, and server \"s.test\" does not offer LOGIN, add LOGIN to mechanisms\n"
      "f:2: ntlm_v1 = true, and host \"10.0.0.1\" is not offered NTLM, add NTLM to mechanisms\n" },
    { "server \"s.test\" { listen = {\"127.0.0.1:25\"} accept = tls encryption = layer mechanisms = {PLAIN} }\n" DOMAIN,
      "f:1: nobody can encrypt: server \"s.test\" has no certificate and no mechanism with a layer, add a certificate, "
      "or GSSAPI, GSS-SPNEGO or NTLM to mechanisms\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = gssapi keytab = \"/k\" }\n",
      "f:2: auth = \"GSSAPI\" for domain \"a.test\" needs a principal and its keytab or password, add principal = "
      "\"NAME@REALM\"\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = \"optional:auto\" principal = \"a@R.TEST\" }\n",
      "f:2: auth = \"AUTO\" for domain \"a.test\" needs a principal and its keytab or password, add keytab = \"FILE\" "
      "or password_file = \"FILE\"\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = \"optional:auto\" principal = \"a@R.TEST\" keytab = \"/k\" }\n",
      "" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = \"GSAPI\" }\n",
      "f:2: auth: \"GSAPI\" is not what can stand here, did you mean \"GSSAPI\"?\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" auth = \"SCRAM-SHA-256\" user = u password_file = \"/p\" seal = true }\n",
      "f:2: auth = \"SCRAM-SHA-256\" has no layer that could encrypt, take it out and write tls = \"require\", or use "
      "GSSAPI, GSS-SPNEGO or NTLM\n" },
    { SERVER "domain \"a.test\" { via = \"h.test\" principal = \"alice\" }\n",
      "f:2: principal: \"alice\" is not what can stand here, the realm is missing: \"NAME@REALM\"\n"
      "f:2: domain \"a.test\" has a principal and no auth, add auth = \"PLAIN\" or another mechanism\n" },
    { GOOD "directory \"CORP.TEST\" { principal = \"a@CORP.TEST\" }\n",
      "f:3: directory \"CORP.TEST\" has no servers, add servers = {\"ldap://HOST\"}\n"
      "f:3: directory \"CORP.TEST\" has a principal and no keytab, add keytab = \"FILE\"\n" },
    { GOOD "directory \"CORP.TEST\" { servers = {\"ldap://10.0.0.1\"} }\n",
      "f:3: servers: \"ldap://10.0.0.1\" is not what can stand here, write the server's name: Kerberos and certificates "
      "know no addresses\n" },
    { GOOD "directory \"CORP.TEST\" { servers = {\"ldap://dc1\"} bind = ldaps }\n",
      "f:3: ldap://dc1 does not fit bind = \"ldaps\", write ldaps://HOST, or another bind\n" },
    { GOOD "directory \"R\" { servers = {\"ldap://dc1\"} principal = \"a@R\" password_file = \"/p\" }\n",
      "f:3: directory \"R\" would be sent the password without TLS, write bind = \"starttls\", or keytab instead of "
      "password_file\n" },
    { GOOD "directory \"R\" { servers = {\"ldap://dc1\"} bind = starttls password_file = \"/p\" }\n",
      "f:3: directory \"R\" has a password_file and no principal, add principal = \"NAME@REALM\"\n" },
    { GOOD "directory \"CORP/TEST\" { servers = {\"ldap://dc1\"} }\n",
      "f:3: directory: \"CORP/TEST\" cannot be a title, write a Kerberos realm: \"CORP.TEST\"\n" },
    { GOOD "directory \"A\" { servers = {\"ldap://a\"} netbios = C }\nidentity \"b\" { realm = \"B\" domain = \"b.test\" "
           "netbios = c }\n",
      "f:4: netbios = \"C\" is the NT name of A already, give each realm its own\n" },
    { GOOD "identity \"a\" { realm = \"A\" }\nidentity \"A\" { reject = true }\n",
      "f:3: identity \"a\" says nothing about a mailbox, add domain, match and mailbox, attribute, table, or reject = "
      "true\nf:4: identity \"A\" was given already at f:3, keep one of the two\n" },
    { GOOD "identity \"a\" { domain = \"a.test\"\n table = \"/t\" }\n",
      "f:4: identity \"a\" has both domain and table, make two rules of it\n" },
    { GOOD "identity \"a\" { match = \"(\" mailbox = \"a@a.test\" }\n",
      "f:3: match: \"(\" is not what can stand here, Unmatched ( or \\(\n" },
    { GOOD "identity \"a\" { match = \"a{2}\" reject = true }\n",
      "f:3: match: \"a{2}\" is not what can stand here, {…} cannot be used here: repeat the part, or write + or *\n" },
    { GOOD "identity \"a\" { match = \"(a)\\\\1\" reject = true }\n",
      "f:3: match: \"(a)\\1\" is not what can stand here, a group can be named in mailbox, not within the "
      "expression\n" },
    { GOOD "identity \"a\" { match = \"(a)b\" mailbox = \"\\\\2@a.test\" }\n",
      "f:3: mailbox = \"\\2@a.test\" names a group that match does not have, write groups of match as \"\\\\1\" to "
      "\"\\\\9\"\n" },
    { GOOD "identity \"a\" { match = \"a\" }\n",
      "f:3: identity \"a\" has a match and no mailbox, add mailbox = \"\\\\1@example.com\", or reject = true\n" },
    { GOOD "identity \"a\" { realm = \"A\" attribute = {mail} }\n",
      "f:3: identity \"a\" asks the directory of A, and there is none, add directory \"A\" { servers = "
      "{\"ldap://HOST\"} }\n" },
    { GOOD "identity \"a\" { realm = \"A\" attribute = {mail} }\ndirectory \"A\" { servers = {\"ldap://a\"} }\n",
      "f:4: identity \"a\" asks directory \"A\", which has no principal to ask as, add principal = \"NAME@REALM\" and "
      "keytab = \"FILE\"\n" },
    { GOOD "peers \"p\" { principals = {\"*@A\"} rights = {relai} }\n",
      "f:3: rights: \"relai\" is not what can stand here, did you mean \"relay\"?\n"
      "f:3: principals: \"*@A\" stands for itself, there is no *, name each of them\n" },
    { GOOD "peers \"p\" { }\n",
      "f:3: peers \"p\" names nobody, add principals = {\"MX1$@CORP.TEST\"}\n"
      "f:3: peers \"p\" gives no rights, add rights = {\"relay\", \"any-sender\"}\n" },
    { GOOD "retry_min = 2h\n", "f:3: retry_min is longer than retry_max, make retry_max larger\n" },
};

static void test_rows(void **state)
{
    size_t failed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct memory_file files[] = { { "f", rows[i].text }, { NULL, NULL } };
        char *got = memory_check(files);
        if (!str_eq(str_of(got), str_of(rows[i].expected))) {
            print_error("row %zu:\n%s\nexpected:\n%sgot:\n%s\n", i, rows[i].text, rows[i].expected, got);
            failed++;
        }
        free(got);
    }
    assert_int_equal(failed, 0);
}

/* Many mistakes are counted; what is kept and printed stays bounded. */
static void test_many(void **state)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_add_c(&text, GOOD);
    for (int i = 0; i < 5000; i++)
        buf_addf(&text, "zzzz%d = 1\n", i);
    struct memory_file files[] = { { "f", buf_cstr(&text) }, { NULL, NULL } };
    char *got = memory_check(files);
    assert_non_null(strstr(got, "4800 more mistakes are not shown"));
    free(got);
    buf_done(&text);
}

static void test_json(void **state)
{
    struct conf_mistakes m;
    struct buf out;
    conf_mistakes_init(&m);
    buf_init(&out, 1 << 16);
    conf_mistake_add(&m, (struct conf_place){ "a", 3 }, "spool", NULL, "wrong\x1b[31m \"%s\"", "ä");
    conf_mistake_add(&m, (struct conf_place){ "a", 0 }, NULL, "do", "none");
    conf_warning_add(&m, (struct conf_place){ "b", 1 }, "log", "do", "careful");
    assert_true(conf_mistakes_json(&m, "a", &out));
    assert_string_equal(
        buf_cstr(&out),
        "{\"file\":\"a\",\"mistakes\":[{\"file\":\"a\",\"line\":3,\"name\":\"spool\",\"text\":\"wrong?[31m "
        "\\\"ä\\\"\","
        "\"hint\":null},{\"file\":\"a\",\"line\":null,\"name\":null,\"text\":\"none\",\"hint\":\"do\"}],"
        "\"warnings\":[{\"file\":\"b\",\"line\":1,\"name\":\"log\",\"text\":\"careful\",\"hint\":\"do\"}]}\n");
    buf_done(&out);
    conf_mistakes_done(&m);
}

static void test_nearest(void **state)
{
    const char *const names[] = { "submission", "submissions", "spool", NULL };
    assert_string_equal(conf_nearest(STR("sumbission"), names), "submission");
    assert_string_equal(conf_nearest(STR("SPOLO"), names), "spool");
    assert_null(conf_nearest(STR("xyz"), names));
    assert_null(conf_nearest(STR(""), names));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
