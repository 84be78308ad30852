#include "smtp/addresslist.h"

#include "smtp/address.h"

enum { ENTRY_MAX_BYTES = 1024 };

/* One entry of the list with comments and folding white space taken out of where they may stand. */
struct entry {
    char text[ENTRY_MAX_BYTES]; /* what stands outside of <>, without comments */
    size_t n;
    char angle[ENTRY_MAX_BYTES]; /* what stands between < and > */
    size_t n_angle;
    bool has_angle, in_angle, quoted, escaped, too_long, broken;
    unsigned depth; /* of comments */
};

static void add_char(struct entry *e, char c)
{
    char *to = e->in_angle ? e->angle : e->text;
    size_t *n = e->in_angle ? &e->n_angle : &e->n;
    if (*n == ENTRY_MAX_BYTES)
        e->too_long = true;
    else
        to[(*n)++] = c;
}

/* True when `c` was taken as part of a quoted string, a comment or white space. */
static bool take_special(struct entry *e, char c)
{
    if (e->escaped) {
        e->escaped = false;
        if (!e->depth)
            add_char(e, c);
        return true;
    }
    if ((e->quoted || e->depth) && c == '\\') {
        e->escaped = true;
        if (!e->depth)
            add_char(e, c);
        return true;
    }
    if (!e->depth && c == '"') {
        e->quoted = !e->quoted;
        add_char(e, c);
        return true;
    }
    if (e->quoted) {
        add_char(e, c);
        return true;
    }
    if (c == '(') {
        e->depth++;
        return true;
    }
    if (c == ')' && e->depth) {
        e->depth--;
        return true;
    }
    return e->depth > 0;
}

static void take_plain(struct entry *e, char c)
{
    if (c == '<') {
        e->broken |= e->has_angle;
        e->has_angle = e->in_angle = true;
    } else if (c == '>') {
        e->broken |= !e->in_angle;
        e->in_angle = false;
    } else if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
        add_char(e, c);
    } else if (!e->in_angle && e->n) {
        add_char(e, ' ');
    }
}

/* An address, or a local part alone: what would be an address with any domain behind it. */
static bool is_mailbox(struct str s)
{
    static const struct str domain = { "@x", 2 };
    char full[ENTRY_MAX_BYTES + 2];
    struct smtp_address parsed;
    if (smtp_address_parse(s, &parsed, NULL))
        return true;
    if (s.n == 0 || s.n > ENTRY_MAX_BYTES || str_find(s, '@') < s.n)
        return false;
    memcpy(full, s.p, s.n);
    memcpy(full + s.n, domain.p, domain.n);
    return smtp_address_parse(str_slice(full, s.n + domain.n), &parsed, NULL);
}

/* Hands over the entry's mailbox. True also for an empty entry, which RFC 5322 section 4.4 tolerates. */
static bool finish(const struct entry *e, void (*found)(void *arg, struct str mailbox), void *arg)
{
    struct str mailbox = e->has_angle ? str_slice(e->angle, e->n_angle) : str_trim(str_slice(e->text, e->n));
    if (e->too_long || e->broken || e->in_angle || e->quoted || e->depth || e->escaped)
        return false;
    if (!e->has_angle && mailbox.n == 0)
        return true;
    /* A source route in front of the address means nothing any more (RFC 5321 appendix C). */
    if (mailbox.n && mailbox.p[0] == '@')
        mailbox = str_skip(mailbox, str_find(mailbox, ':') + 1);
    if (!is_mailbox(mailbox))
        return false;
    found(arg, mailbox);
    return true;
}

bool smtp_addresslist_each(struct str field, void (*found)(void *arg, struct str mailbox), void *arg, struct str *ret_bad)
{
    struct entry e = { .n = 0 };
    size_t begin = 0;
    bool in_group = false;
    for (size_t i = 0; i <= field.n; i++) {
        char c = i < field.n ? field.p[i] : ',';
        bool last = i == field.n;
        if (!last && take_special(&e, c))
            continue;
        if (!last && c == ':' && !e.in_angle && !in_group) { /* "Name: a@b, c@d;" */
            in_group = true;
            e = (struct entry){ .n = 0 };
        } else if (last || (c == ',' && !e.in_angle) || (c == ';' && in_group && !e.in_angle)) {
            if (!finish(&e, found, arg)) {
                *ret_bad = str_trim(str_slice(field.p + begin, i - begin));
                return false;
            }
            in_group = in_group && c != ';';
            begin = i + 1;
            e = (struct entry){ .n = 0 };
        } else {
            take_plain(&e, c);
        }
    }
    return true;
}
