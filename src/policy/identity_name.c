/* identity_name: one name for one person, whatever the mechanism calls them. */
#include "conf/network.h"
#include "policy/identity_internal.h"

static bool is_nt_name(const char *netbios, struct str name)
{
    return netbios && str_eq_nocase(str_of(netbios), name);
}

const char *identity_realm_find(const struct conf *conf, struct str name)
{
    for (size_t i = 0; i < conf->n_directories && name.n; i++) {
        const struct conf_directory *d = &conf->directory[i];
        if (str_eq_nocase(str_of(d->realm), name) || is_nt_name(d->netbios, name))
            return d->realm;
    }
    for (size_t i = 0; i < conf->n_identities && name.n; i++) {
        const struct conf_identity *r = &conf->identity[i];
        if (r->realm && (str_eq_nocase(str_of(r->realm), name) || is_nt_name(r->netbios, name)))
            return r->realm;
    }
    return NULL;
}

bool identity_is_address(struct str text, bool or_domain)
{
    struct str domain = text, local;
    if (text.n > IDENTITY_ADDRESS_MAX || !str_cut(&domain, '@', &local) || local.n == 0 || local.n > 64
        || !network_is_name(domain))
        return false;
    if (or_domain && str_eq(local, STR("*")))
        return true;
    for (size_t i = 0; i < local.n; i++) {
        bool dot = local.p[i] == '.';
        if (dot && (i == 0 || i + 1 == local.n || local.p[i - 1] == '.'))
            return false;
        if (!dot && !ascii_alnum(local.p[i]) && (local.p[i] == 0 || !strchr("!#$%&'+-/=?^_`{|}~", local.p[i])))
            return false;
    }
    return true;
}

/* Nothing that would forge a line of a log, or end a string. */
static bool is_clean(struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f)
            return false;
    return text.n > 0 && text.n <= IDENTITY_NAME_MAX;
}

static size_t last_of(struct str text, char c)
{
    for (size_t i = text.n; i > 0; i--)
        if (text.p[i - 1] == c)
            return i - 1;
    return text.n;
}

static enum identity_form finish(struct arena *arena, struct str name, struct str realm, const char *how,
                                 struct identity_principal *ret)
{
    ret->how = how;
    ret->text = realm.n ? arena_printf(arena, "%.*s@%.*s", STR_ARG(name), STR_ARG(realm)) : arena_strdup(arena, name);
    if (!ret->text)
        return IDENTITY_FORM_NO_MEMORY;
    ret->name = str_slice(ret->text, name.n);
    ret->realm = realm.n ? str_skip(str_of(ret->text), name.n + 1) : STR_NONE;
    ret->person = name.n && name.p[name.n - 1] != '$' && str_find(name, '/') == name.n;
    return IDENTITY_FORM_OK;
}

/* GSS-API writes an @ within a name as \@: alice\@corp.test@CORP.TEST is an enterprise name, which the KDC took for
 * an account of its realm. Only where both are the same realm is it alice@CORP.TEST. */
static enum identity_form from_kerberos(const struct identity_login *login, struct arena *arena,
                                        struct identity_principal *ret)
{
    size_t at = last_of(login->name, '@');
    if (at == 0 || at + 1 >= login->name.n || login->name.p[at - 1] == '\\')
        return IDENTITY_FORM_BAD;
    struct str name = str_slice(login->name.p, at), realm = str_skip(login->name, at + 1);
    size_t inner = last_of(name, '@');
    if (inner < name.n && inner > 1 && name.p[inner - 1] == '\\' && str_eq_nocase(str_skip(name, inner + 1), realm)
        && str_find(str_slice(name.p, inner - 1), '@') == inner - 1)
        return finish(arena, str_slice(name.p, inner - 1), realm, "an enterprise name of its own realm", ret);
    return finish(arena, name, realm, NULL, ret);
}

/* CORP\alice, alice with CORP, alice@corp.test. */
static enum identity_form from_windows(const struct conf *conf, const struct identity_login *login,
                                       struct arena *arena, struct identity_principal *ret)
{
    struct str name = login->name, domain = login->domain;
    size_t backslash = str_find(name, '\\'), at = last_of(name, '@');
    if (backslash < name.n && domain.n)
        return IDENTITY_FORM_BAD;
    if (backslash < name.n) {
        domain = str_slice(name.p, backslash);
        name = str_skip(name, backslash + 1);
        if (domain.n == 0 || name.n == 0 || str_find(name, '\\') < name.n)
            return IDENTITY_FORM_BAD;
    }
    if (domain.n) {
        const char *realm = identity_realm_find(conf, domain);
        const char *whole = realm ? NULL : arena_printf(arena, "%.*s\\%.*s", STR_ARG(domain), STR_ARG(name));
        if (!realm && !whole)
            return IDENTITY_FORM_NO_MEMORY;
        if (!realm)
            return finish(arena, str_of(whole), STR_NONE, "no realm has this NT name", ret);
        return finish(arena, name, str_of(realm), "its NT domain is this realm", ret);
    }
    if (at > 0 && at < name.n) {
        const char *realm = identity_realm_find(conf, str_skip(name, at + 1));
        if (realm)
            return finish(arena, str_slice(name.p, at), str_of(realm), "its domain is this realm", ret);
    }
    return finish(arena, name, STR_NONE, NULL, ret);
}

enum identity_form identity_principal_make(const struct conf *conf, const struct identity_login *login,
                                           struct arena *arena, struct identity_principal *ret)
{
    *ret = (struct identity_principal){ .class = login->class };
    if (!is_clean(login->name) || (login->domain.n && !is_clean(login->domain)))
        return IDENTITY_FORM_BAD;
    if (login->class == IDENTITY_KERBEROS)
        return from_kerberos(login, arena, ret);
    /* The word of a domain is worth nothing without the domain: it would be the store's alice. */
    bool bare = login->domain.n == 0 && str_find(login->name, '\\') == login->name.n
                && str_find(login->name, '@') == login->name.n;
    if (login->class == IDENTITY_NTLM && bare)
        return IDENTITY_FORM_BAD;
    return from_windows(conf, login, arena, ret);
}

static bool has_small_letters(struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] >= 'a' && text.p[i] <= 'z')
            return true;
    return false;
}

struct identity_login identity_login_of(const struct identity_rules *rules, struct str name)
{
    struct identity_login login = { .class = IDENTITY_STORE, .name = name };
    size_t at = last_of(name, '@');
    struct str behind = str_skip(name, at + (at < name.n));
    const char *realm = identity_realm_find(rules->conf, behind);
    if (str_find(name, '\\') < name.n && at == name.n)
        login.class = IDENTITY_NTLM;
    else if (behind.n && ((realm && str_eq(str_of(realm), behind)) || (!realm && !has_small_letters(behind))))
        login.class = IDENTITY_KERBEROS;
    else if (realm)
        login.class = IDENTITY_NTLM;
    return login;
}
