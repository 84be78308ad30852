/* MAIL FROM:<reverse-path> and its parameters. */
#include "smtp/server_internal.h"

#include "smtp/params.h"

struct refusal {
    unsigned code;
    const char *enhanced, *text;
};
static const struct refusal bad_value = { 501, "5.5.4", "Malformed value of a MAIL parameter" };
static const struct refusal not_offered = { 555, "5.5.4", "MAIL parameter not recognized or not implemented" };
static const struct refusal too_big = { 552, "5.3.4", "Message is larger than this server accepts" };

static const struct refusal *param_size(struct smtp_server *s, const struct smtp_param *p,
                                        struct smtp_server_transaction *t)
{
    if (p->value.n > 20 || p->value.n == 0) /* RFC 1870 section 6 */
        return &bad_value;
    for (size_t i = 0; i < p->value.n; i++)
        if (!ascii_digit(p->value.p[i]))
            return &bad_value;
    if (!str_to_u64(p->value, UINT64_MAX, &t->size_declared_bytes))
        return &too_big;
    uint64_t max = s->limits->max_message_bytes;
    return max && t->size_declared_bytes > max ? &too_big : NULL;
}

static const struct refusal *param_body(struct smtp_server *s, const struct smtp_param *p,
                                        struct smtp_server_transaction *t)
{
    t->body_8bit = str_eq_nocase(p->value, STR("8BITMIME"));
    if (t->body_8bit || str_eq_nocase(p->value, STR("7BIT")))
        return NULL;
    return str_eq_nocase(p->value, STR("BINARYMIME")) ? &not_offered : &bad_value;
}

static const struct refusal *param_smtputf8(struct smtp_server *s, const struct smtp_param *p,
                                            struct smtp_server_transaction *t)
{
    t->smtputf8 = true;
    return s->policy.smtputf8_off ? &not_offered : p->has_value ? &bad_value : NULL;
}

static const struct refusal *param_ret(struct smtp_server *s, const struct smtp_param *p,
                                       struct smtp_server_transaction *t)
{
    t->ret = str_eq_nocase(p->value, STR("FULL"))   ? SMTP_RET_FULL
             : str_eq_nocase(p->value, STR("HDRS")) ? SMTP_RET_HDRS
                                                    : SMTP_RET_NONE;
    return t->ret == SMTP_RET_NONE ? &bad_value : NULL;
}

static const struct refusal *param_envid(struct smtp_server *s, const struct smtp_param *p,
                                         struct smtp_server_transaction *t)
{
    t->envid = p->value;
    return p->value.n == 0 || p->value.n > 100 || !smtp_xtext_valid(p->value) ? &bad_value
                                                                              : NULL; /* RFC 3461 section 4.4 */
}

/* xtext of a mailbox, or "<>" (RFC 4954 section 5). Also from a peer that is not trusted: it is for the caller to drop
 * it. */
static const struct refusal *param_auth(struct smtp_server *s, const struct smtp_param *p,
                                        struct smtp_server_transaction *t)
{
    t->auth = p->value;
    if (str_eq(p->value, STR("<>")))
        return NULL;
    struct buf mailbox;
    buf_init(&mailbox, SMTP_ADDRESS_MAX_BYTES);
    bool ok = smtp_xtext_decode(p->value, &mailbox) && smtp_address_parse(buf_str(&mailbox), NULL, NULL);
    buf_done(&mailbox);
    return ok ? NULL : &bad_value;
}

static const struct {
    const char *keyword;
    const struct refusal *(*take)(struct smtp_server *s, const struct smtp_param *p, struct smtp_server_transaction *t);
} mail_params[] = {
    { "SIZE", param_size }, { "BODY", param_body },   { "SMTPUTF8", param_smtputf8 },
    { "RET", param_ret },   { "ENVID", param_envid }, { "AUTH", param_auth },
};

static const struct refusal *take_param(struct smtp_server *s, const struct smtp_param *p, unsigned *seen,
                                        struct smtp_server_transaction *t)
{
    static const struct refusal twice = { 501, "5.5.4", "A MAIL parameter was given twice" };
    for (size_t i = 0; i < sizeof mail_params / sizeof *mail_params; i++) {
        if (!str_eq_nocase(p->keyword, str_of(mail_params[i].keyword)))
            continue;
        if (*seen & (1u << i))
            return &twice;
        *seen |= 1u << i;
        return mail_params[i].take(s, p, t);
    }
    return &not_offered;
}

static const struct refusal *take_params(struct smtp_server *s, struct str rest, struct smtp_server_transaction *t)
{
    static const struct refusal malformed = { 501, "5.5.4",
                                              "Malformed parameters; syntax: MAIL FROM:<address> [KEYWORD=value ...]" };
    static const struct refusal without_ehlo = { 555, "5.5.4", "MAIL takes parameters only after EHLO" };
    struct smtp_param p;
    unsigned seen = 0;
    for (;;) {
        enum smtp_params_step step = smtp_params_next(&rest, !s->policy.smtputf8_off, &p);
        if (step == SMTP_PARAMS_END)
            return NULL;
        const struct refusal *no = step == SMTP_PARAMS_BAD        ? &malformed
                                   : s->helo_kind == HELO_HELO ? &without_ehlo
                                                               : take_param(s, &p, &seen, t);
        if (no)
            return no;
    }
}

static bool check_mail(struct smtp_server *s, struct str arg, struct smtp_server_transaction *t)
{
    if (s->phase != TRANSACTION_NONE) {
        server_refuse(s, 503, "5.5.1", "A mail transaction is open already; RSET ends it");
        return false;
    }
    if (!str_starts_nocase(arg, STR("FROM:"))) {
        server_refuse(s, 501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]");
        return false;
    }
    struct str rest = str_skip(arg, 5);
    while (rest.n &&
           rest.p[0] == ' ') /* against the grammar, but what many devices send, and without a second meaning */
        rest = str_skip(rest, 1);
    enum smtp_address_fault fault;
    if (!smtp_address_parse_path(&rest, SMTP_ADDRESS_NULL_OK, &t->sender, &fault)) {
        server_refuse(s, 501, "5.1.7", "%s", smtp_address_fault_text(fault));
        return false;
    }
    const struct refusal *no = take_params(s, rest, t);
    if (no)
        server_refuse(s, no->code, no->enhanced, "%s", no->text);
    else if (!t->smtputf8 && !smtp_is_ascii(arg))
        server_refuse(s, 553, "5.6.7", "An address that is not ASCII needs SMTPUTF8");
    else
        return true;
    return false;
}

static size_t arena_max_bytes(const struct smtp_server *s)
{
    enum { BASE = 64 * 1024, A_RECIPIENT = 2048, LARGEST = 64 * 1024 * 1024 };
    size_t n = s->limits->max_recipients;
    return n == 0 || n > (LARGEST - BASE) / A_RECIPIENT ? LARGEST : BASE + n * A_RECIPIENT;
}

static bool apply_mail(struct smtp_server *s, const struct smtp_server_transaction *t)
{
    server_free_transaction(s); /* of one that is over */
    arena_init(&s->arena, arena_max_bytes(s));
    struct smtp_server_transaction *kept = arena_alloc(&s->arena, sizeof *kept);
    if (!kept)
        return false;
    *kept = *t;
    kept->envid = arena_copy(&s->arena, t->envid);
    kept->auth = arena_copy(&s->arena, t->auth);
    if (!kept->envid.p || !kept->auth.p || !server_copy_address(s, &t->sender, &kept->sender)) {
        arena_done(&s->arena);
        return false;
    }
    s->transaction = kept;
    return true;
}

void server_mail(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    struct smtp_server_transaction t = { 0 };
    if (!check_mail(s, arg, &t))
        return;
    if (!apply_mail(s, &t)) {
        server_refuse(s, 452, "4.3.1", "Out of memory, try again later");
        return;
    }
    s->abort_owed = true;
    server_ask(s, ev, SMTP_SERVER_MAIL);
}
