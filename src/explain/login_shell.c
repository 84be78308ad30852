/* What stands for the placeholders in commands. Peers choose some of these names, and people copy commands into a
 * shell of root: so only words that no shell does anything with come through. */
#include "explain/login_words.h"

static struct str text_keytab(const struct words_view *v)
{
    return v->in ? v->in->keytab : v->out->keytab;
}

static struct str text_keytab_file(const struct words_view *v)
{
    struct str path = text_keytab(v), part;
    while (str_cut(&path, '/', &part))
        ;
    return part;
}

static struct str text_service(const struct words_view *v)
{
    return v->in && v->in->has_ticket ? v->in->ticket_service : STR_NONE;
}

static struct str text_realm(const struct words_view *v)
{
    return v->in ? v->in->ticket_realm : v->out->realm;
}

static struct str text_server(const struct words_view *v)
{
    return v->in ? v->in->server : STR_NONE;
}

static struct str text_name(const struct words_view *v)
{
    return v->in ? v->in->user : STR_NONE;
}

/* "alice" of alice, CORP\alice and alice@CORP.TEST. */
static struct str text_user(const struct words_view *v)
{
    struct str name = text_name(v), before;
    name.n = str_find(name, '@');
    size_t backslash = str_find(name, '\\');
    if (backslash < name.n)
        str_cut(&name, '\\', &before);
    return name;
}

static struct str text_domain(const struct words_view *v)
{
    return v->in ? v->in->ntlm_domain : v->out->domain;
}

static struct str text_principal(const struct words_view *v)
{
    return v->out ? v->out->principal : STR_NONE;
}

static struct str text_account(const struct words_view *v)
{
    struct str name = text_principal(v);
    name.n = str_find(name, '@');
    return str_find(name, '/') < name.n ? STR_NONE : name; /* a service name is no account */
}

static struct str text_host(const struct words_view *v)
{
    return v->out ? v->out->announced : STR_NONE;
}

static struct str text_spn(const struct words_view *v)
{
    return v->out ? v->out->spn : STR_NONE;
}

static const struct {
    const char *name;
    struct str (*text)(const struct words_view *);
    bool quoted; /* may hold '$' and '\', and stands in quotes then; never within a command's own quotes */
} shell_words[] = {
    { "keytab", text_keytab, false },   { "keytab-file", text_keytab_file, false },
    { "service", text_service, false }, { "realm", text_realm, false },
    { "server", text_server, false },   { "name", text_name, true },
    { "user", text_user, true },        { "domain", text_domain, false },
    { "account", text_account, true },  { "principal", text_principal, true },
    { "host", text_host, false },       { "spn", text_spn, false },
};

enum shell_need { SHELL_PLAIN, SHELL_QUOTES, SHELL_UNFIT };

static enum shell_need need_of(struct str s)
{
    enum shell_need need = SHELL_PLAIN;
    if (s.n == 0 || s.n > LOGIN_PART_BYTES || s.p[0] == '-')
        return SHELL_UNFIT;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '$' || c == '\\')
            need = SHELL_QUOTES;
        else if (!ascii_alnum(c) && (c == 0 || !strchr("._@:/+-", c)))
            return SHELL_UNFIT;
    }
    return need;
}

static void add_capitals(struct words_out *out, struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i] >= 'a' && name.p[i] <= 'z' ? (char)(name.p[i] - 32) : name.p[i];
        words_add(out, str_slice(&c, 1));
    }
}

bool words_put_shell(struct words_out *out, struct str name, const struct words_view *view)
{
    for (size_t i = 0; i < sizeof shell_words / sizeof *shell_words; i++) {
        if (!str_eq(str_of(shell_words[i].name), name))
            continue;
        struct str text = shell_words[i].text(view);
        enum shell_need need = need_of(text);
        if (need == SHELL_UNFIT || (need == SHELL_QUOTES && !shell_words[i].quoted)) {
            add_capitals(out, name);
            return true;
        }
        words_add(out, str_of(need == SHELL_QUOTES ? "'" : ""));
        words_add(out, text);
        words_add(out, str_of(need == SHELL_QUOTES ? "'" : ""));
        return true;
    }
    return false;
}
