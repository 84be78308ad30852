/* RCPT TO:<forward-path> and its parameters. */
#include "smtp/server_internal.h"

#include "smtp/params.h"

static bool take_notify(struct str value, unsigned *ret_bits)
{
    static const struct {
        const char *word;
        unsigned bit;
    } words[] = { { "NEVER", SMTP_NOTIFY_NEVER },
                  { "SUCCESS", SMTP_NOTIFY_SUCCESS },
                  { "FAILURE", SMTP_NOTIFY_FAILURE },
                  { "DELAY", SMTP_NOTIFY_DELAY } };
    bool more = true;
    while (more) {
        struct str word;
        more = str_cut(&value, ',', &word);
        unsigned bit = 0;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (str_eq_nocase(word, str_of(words[i].word)))
                bit = words[i].bit;
        if (!bit)
            return false;
        *ret_bits |= bit;
    }
    return !(*ret_bits & SMTP_NOTIFY_NEVER) || *ret_bits == SMTP_NOTIFY_NEVER; /* RFC 3461 section 4.1 */
}

/* A code for server_refuse, 0 when all is well. */
static unsigned take_params(struct smtp_server *s, struct str rest, struct smtp_server_recipient *r)
{
    struct smtp_param p;
    bool seen_notify = false, seen_orcpt = false;
    for (;;) {
        enum smtp_params_step step = smtp_params_next(&rest, s->transaction->smtputf8, &p);
        if (step == SMTP_PARAMS_END)
            return 0;
        if (step == SMTP_PARAMS_BAD)
            return 501;
        if (s->helo_kind == HELO_HELO) /* nothing was offered, nothing can be asked for */
            return 555;
        if (str_eq_nocase(p.keyword, STR("NOTIFY"))) {
            if (seen_notify || !take_notify(p.value, &r->notify))
                return 501;
            seen_notify = true;
        } else if (str_eq_nocase(p.keyword, STR("ORCPT"))) {
            if (seen_orcpt || !smtp_orcpt_valid(p.value, s->transaction->smtputf8))
                return 501;
            seen_orcpt = true;
            r->orcpt = p.value;
        } else {
            return 555;
        }
    }
}

static bool check_address(struct smtp_server *s, struct str *rest, struct smtp_server_recipient *r)
{
    enum smtp_address_fault fault;
    if (!smtp_address_parse_path(rest, SMTP_ADDRESS_POSTMASTER_OK, &r->address, &fault)) {
        /* A local part that cannot be is "no such mailbox", as it is for one that policy refuses. */
        bool local = fault == SMTP_ADDRESS_LOCAL_EMPTY || fault == SMTP_ADDRESS_LOCAL_LONG;
        server_refuse(s, local ? 550 : 501, "5.1.3", "%s", smtp_address_fault_text(fault));
        return false;
    }
    if (r->address.utf8 && !s->transaction->smtputf8) {
        server_refuse(s, 553, "5.6.7", "An address that is not ASCII needs SMTPUTF8");
        return false;
    }
    return true;
}

static bool check_rcpt(struct smtp_server *s, struct str arg, struct smtp_server_recipient *r)
{
    if (s->phase != TRANSACTION_MAIL) {
        server_refuse(s, 503, "5.5.1",
                      s->phase == TRANSACTION_NONE ? "Send MAIL first" : "The content has begun already");
        return false;
    }
    if (!str_starts_nocase(arg, STR("TO:"))) {
        server_refuse(s, 501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]");
        return false;
    }
    struct str rest = str_skip(arg, 3);
    while (rest.n && rest.p[0] == ' ') /* as in MAIL */
        rest = str_skip(rest, 1);
    if (!check_address(s, &rest, r))
        return false;
    unsigned code = take_params(s, rest, r);
    if (code) {
        server_refuse(s, code, "5.5.4",
                      code == 555 ? "RCPT parameter not recognized or not implemented"
                                  : "Malformed or repeated RCPT parameter");
        return false;
    }
    if (s->limits->max_recipients && s->transaction->n_recipients >= s->limits->max_recipients) {
        /* No error of the peer: it sends the rest in the next transaction (RFC 5321 section 4.5.3.1.10). */
        server_reply(s, 452, "4.5.3", STR("Too many recipients"));
        return false;
    }
    return true;
}

void server_rcpt(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    struct smtp_server_recipient r = { 0 };
    if (!check_rcpt(s, arg, &r))
        return;
    struct smtp_server_recipient *kept = arena_alloc(&s->arena, sizeof *kept);
    if (kept) {
        kept->notify = r.notify;
        kept->orcpt = arena_copy(&s->arena, r.orcpt);
    }
    if (!kept || !kept->orcpt.p || !server_copy_address(s, &r.address, &kept->address)) {
        server_reply(s, 452, "4.5.3", STR("Too many recipients for this server's memory"));
        return;
    }
    s->asked_recipient = kept;
    server_ask(s, ev, SMTP_SERVER_RCPT);
    ev->recipient = kept;
}

void server_rcpt_accepted(struct smtp_server *s)
{
    if (s->last_recipient)
        s->last_recipient->next = s->asked_recipient;
    else
        s->transaction->recipients = s->asked_recipient;
    s->last_recipient = s->asked_recipient;
    s->transaction->n_recipients++;
    s->n_commands--; /* a useful one */
    server_reply(s, 250, "2.1.5", STR("Ok"));
}
