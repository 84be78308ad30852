/* The table of commands and what holds for all of them. */
#include "smtp/server_internal.h"

#include <stdio.h>

enum command_flags {
    NEEDS_TLS = 1,       /* where the policy requires it: 530 */
    NEEDS_AUTH = 2,      /* where the policy requires it: 530 */
    NEEDS_HELO = 4,      /* 503 */
    NO_TRANSACTION = 8,  /* 503 inside one */
    UTF8 = 16,           /* the argument may hold UTF-8; the handler says when */
    SECRET = 32,         /* the argument never reaches the protocol log */
    ALWAYS = 64,         /* even for a peer that is denied */
    LISTED = 128,        /* in HELP */
    OCTETS_FOLLOW = 256, /* BDAT: refused or not, its octets follow */
};
enum {
    MAIL_FLAGS = NEEDS_TLS | NEEDS_AUTH | NEEDS_HELO | LISTED,
    ASK_FLAGS = NEEDS_TLS | NEEDS_AUTH,
};

struct command {
    const char *name;
    unsigned flags;
    void (*handle)(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
};

/* AUTH has no NEEDS_HELO and no NO_TRANSACTION: its refusals are its own (RFC 4954 section 4; several clients take 503
 * for success). X-EXPS is AUTH under another name. What Exchange's servers say to each other beside it is known by name,
 * so that the log shows it, and refused; what it carries is never looked at. */
static const struct command commands[] = {
    { "MAIL", MAIL_FLAGS | UTF8, server_mail },
    { "RCPT", MAIL_FLAGS | UTF8, server_rcpt },
    { "DATA", MAIL_FLAGS, server_data },
    { "BDAT", MAIL_FLAGS | OCTETS_FOLLOW, server_bdat },
    { "RSET", LISTED, server_rset },
    { "EHLO", LISTED, server_ehlo },
    { "HELO", LISTED, server_helo },
    { "QUIT", LISTED | ALWAYS, server_quit },
    { "NOOP", LISTED | UTF8, server_noop },
    { "AUTH", LISTED | NEEDS_TLS | SECRET, server_auth },
    { "STARTTLS", LISTED | NEEDS_HELO | NO_TRANSACTION, server_starttls },
    { "HELP", LISTED, server_help },
    { "VRFY", LISTED | ASK_FLAGS | UTF8, server_vrfy },
    { "EXPN", ASK_FLAGS | UTF8, server_not_here },
    { "TURN", 0, server_not_here },
    { "ETRN", 0, server_not_here },
    { "ATRN", 0, server_not_here },
    { "SEND", 0, server_not_here },
    { "SOML", 0, server_not_here },
    { "SAML", 0, server_not_here },
    { "XCLIENT", 0, server_not_here },
    { "XFORWARD", 0, server_not_here },
    { "X-EXPS", NEEDS_TLS | SECRET, server_exps },
    { "X-ANONYMOUSTLS", 0, server_not_here },
    { "X-EXCHANGEAUTH", SECRET, server_not_here },
    { "X-LINK2STATE", SECRET, server_not_here },
    { "XEXCH50", 0, server_xexch50 },
    { "XRDST", 0, server_not_here },
    { "XSHADOW", 0, server_not_here },
    { "XOORG", 0, server_not_here },
    { "XPROXY", SECRET, server_not_here },
    { "XPROXYFROM", SECRET, server_not_here },
    { "XPROXYTO", SECRET, server_not_here },
    { "XSESSIONPARAMS", SECRET, server_not_here },
    { "XATTR", 0, server_not_here },
    { "XSYSPROBE", 0, server_not_here },
    { "XMESSAGECONTEXT", 0, server_not_here },
    { "GET", ALWAYS | SECRET, server_not_smtp },
    { "POST", ALWAYS | SECRET, server_not_smtp },
    { "PUT", ALWAYS | SECRET, server_not_smtp },
    { "HEAD", ALWAYS | SECRET, server_not_smtp },
    { "OPTIONS", ALWAYS | SECRET, server_not_smtp },
    { "DELETE", ALWAYS | SECRET, server_not_smtp },
    { "PATCH", ALWAYS | SECRET, server_not_smtp },
    { "CONNECT", ALWAYS | SECRET, server_not_smtp },
    { "TRACE", ALWAYS | SECRET, server_not_smtp },
};

static const struct command *find_command(struct str verb)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (str_eq_nocase(verb, str_of(commands[i].name)))
            return &commands[i];
    return NULL;
}

static bool is_text(struct str line, bool utf8)
{
    for (size_t i = 0; i < line.n; i++)
        if (((unsigned char)line.p[i] < 32 && line.p[i] != '\t') || line.p[i] == 127 || (!utf8 && (line.p[i] & 0x80)))
            return false;
    return !utf8 || smtp_utf8_valid(line);
}

/* A word where the mechanism belongs may be a part of a password, put there by mistake. */
static bool may_show_mechanism(const struct smtp_server *s, struct str word)
{
    const struct smtp_server_policy *p = &s->policy;
    if (server_word_in(p->mechanisms, word) || server_word_in(p->mechanisms_known, word) ||
        server_word_in(p->exps_mechanisms, word))
        return true;
    for (size_t i = 0; i < word.n; i++)
        if (ascii_lower(word.p[i]) == word.p[i] && !ascii_digit(word.p[i]) && word.p[i] != '-')
            return false;
    return word.n <= SERVER_MECHANISM_MAX_BYTES;
}

static void trace_auth(struct smtp_server *s, struct str line, struct str verb, struct str arg)
{
    struct str word, rest = arg;
    bool more = str_cut(&rest, ' ', &word);
    if (!may_show_mechanism(s, word))
        server_trace_masked(s, verb, arg.n);
    else if (more)
        server_trace_masked(s, str_slice(line.p, (size_t)(word.p + word.n - line.p)), rest.n);
    else
        server_trace_client(s, line);
}

static void trace_command(struct smtp_server *s, const struct command *c, struct str line, struct str verb,
                          struct str arg)
{
    if (!s->trace)
        return;
    /* Who got AUTH refused may go on with the next line of it: an unknown word is then a password. */
    bool like_auth = !c && (s->auth_tried || str_starts_nocase(line, STR("AUTH")));
    if (!is_text(line, true) || like_auth) {
        server_trace_masked(s, STR_NONE, line.n);
    } else if (!c || !(c->flags & SECRET)) {
        server_trace_client(s, line);
    } else if (c->handle == server_auth || c->handle == server_exps) {
        trace_auth(s, line, verb, arg);
    } else if (arg.n == 0) {
        server_trace_client(s, line);
    } else {
        server_trace_masked(s, verb, arg.n);
    }
}

/* What the policy and the state of the session say before the command is looked at. */
static bool may_run(struct smtp_server *s, const struct command *c)
{
    const struct smtp_server_policy *p = &s->policy;
    if (p->deny && !(c->flags & ALWAYS))
        server_refuse(s, 521, "5.7.1", "%.*s does not accept mail from you", STR_ARG(s->hostname));
    else if ((c->flags & NEEDS_TLS) && p->require_tls && !p->tls_active)
        server_refuse(s, 530, "5.7.0", "Must issue a STARTTLS command first");
    else if ((c->flags & NEEDS_AUTH) && p->require_auth && !s->authenticated)
        server_refuse(s, 530, "5.7.0", "Authentication required");
    else if ((c->flags & NEEDS_HELO) && s->helo_kind == HELO_NONE)
        server_refuse(s, 503, "5.5.1", "Send EHLO first");
    else if ((c->flags & NO_TRANSACTION) && s->phase != TRANSACTION_NONE)
        server_refuse(s, 503, "5.5.1", "%s not permitted during a mail transaction", c->name);
    else
        return true;
    return false;
}

static bool limits_reached(struct smtp_server *s)
{
    const struct smtp_server_limits *l = s->limits;
    const char *text = NULL;
    if (l->max_errors && s->n_errors >= l->max_errors)
        text = "Too many errors, closing the connection";
    else if (l->max_auth_failures && s->n_auth_failures >= l->max_auth_failures)
        text = "Too many failed authentications, closing the connection";
    else if (l->max_commands && s->n_commands > l->max_commands)
        text = "Too many commands, closing the connection";
    if (text)
        server_refuse_close(s, 421, "4.7.0", text);
    return text != NULL;
}

void server_command(struct smtp_server *s, struct str line, struct smtp_server_event *ev)
{
    while (line.n && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t')) /* RFC 5321 section 4.1.1 */
        line.n--;
    struct str verb, arg = line;
    str_cut(&arg, ' ', &verb);
    const struct command *c = find_command(verb);
    trace_command(s, c, line, verb, arg);
    s->n_commands++;
    if (limits_reached(s))
        return;
    if (!is_text(line, c && (c->flags & UTF8))) {
        server_refuse(s, 500, "5.5.2", "Characters in the command that do not belong there");
    } else if (!c && s->policy.deny) {
        server_refuse(s, 521, "5.7.1", "%.*s does not accept mail from you", STR_ARG(s->hostname));
    } else if (!c) {
        server_refuse(s, 500, "5.5.2", line.n ? "Command not recognized" : "Empty command");
    } else if (may_run(s, c)) {
        c->handle(s, arg, ev);
        return;
    }
    if (c && (c->flags & OCTETS_FOLLOW))
        server_bdat_swallow(s, arg);
}

void server_help(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    char names[160];
    size_t n = 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if ((commands[i].flags & LISTED) && n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, " %s", commands[i].name);
    server_reply_more(s, 214, "2.0.0", STR("Commands:"));
    server_reply(s, 214, "2.0.0", str_of(names + 1));
}
