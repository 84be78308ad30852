#include "conf/layout.h"

#include <stdio.h>

enum { NAME_BYTES = 128, PATH_BYTES = 4096, AUTH = 3 /* in role_users */ };
/* Who may use winbind's privileged pipe, on Debian. */
#define WINBIND_GROUP "winbindd_priv"

static const struct {
    const char *suffix, *purpose;
} role_users[] = {
    { "", "owns the spool" },
    { "-smtpd", "talks to clients" },
    { "-keys", "holds the TLS keys" },
    { "-auth", "holds the user store and credentials" },
    { "-delivery", "delivers" },
};

static bool lists(const struct conf_strings *list, struct str name)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq_nocase(str_of(list->item[i]), name))
            return true;
    return false;
}

bool layout_uses_ntlm(const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_servers; i++) {
        const struct conf_server *server = &conf->server[i];
        if (lists(&server->mechanisms, STR("NTLM")))
            return true;
        for (size_t h = 0; h < server->n_hosts; h++)
            if (lists(&server->host[h].mechanisms, STR("NTLM")))
                return true;
    }
    return false;
}

bool layout_uses_kerberos(const struct conf *conf)
{
    bool any = conf->n_directories > 0;
    for (size_t i = 0; i < conf->n_servers; i++)
        any = any || conf->server[i].keytab;
    for (size_t i = 0; i < conf->n_domains; i++)
        any = any || conf->domain[i].principal;
    return any;
}

void layout_users(const struct conf *conf, void (*user)(void *arg, const struct layout_user *user), void *arg)
{
    char name[NAME_BYTES], drop[NAME_BYTES];
    snprintf(drop, sizeof drop, "%s-drop", conf->user);
    bool mail_owner_told = !conf->mail_owner;
    for (size_t i = 0; i < sizeof role_users / sizeof role_users[0]; i++) {
        snprintf(name, sizeof name, "%s%s", conf->user, role_users[i].suffix);
        struct layout_user u = { name, i == 0 ? drop : NULL, role_users[i].purpose };
        if (i == AUTH && layout_uses_ntlm(conf))
            u.group = WINBIND_GROUP;
        user(arg, &u);
        mail_owner_told = mail_owner_told || strcmp(conf->mail_owner, name) == 0;
    }
    if (!mail_owner_told)
        user(arg, &(struct layout_user){ conf->mail_owner, NULL, "owns the Maildirs" });
}

/* The folder that `path` is in; false for a name without one. */
static bool parent_of(const char *path, char ret_parent[PATH_BYTES])
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    return str_copy(str_slice(path, n), ret_parent, PATH_BYTES);
}

struct folders {
    void (*folder)(void *arg, const struct layout_folder *folder);
    void *arg;
};

static void tell(const struct folders *to, const char *path, const char *owner, const char *group, unsigned mode,
                 const char *purpose)
{
    to->folder(to->arg, &(struct layout_folder){ path, owner, group, mode, purpose });
}

static void tell_parent(const struct folders *to, const char *file, const char *owner, unsigned mode,
                        const char *purpose)
{
    char parent[PATH_BYTES];
    if (file && file[0] == '/' && parent_of(file, parent))
        tell(to, parent, owner, NULL, mode, purpose);
}

static void tell_maildir(const struct folders *to, const struct conf *conf, const struct conf_domain *domain)
{
    static const char scheme[] = "maildir:";
    char fixed[PATH_BYTES], parent[PATH_BYTES];
    if (!domain->deliver || strncmp(domain->deliver, scheme, sizeof scheme - 1) != 0)
        return;
    struct str rest = str_of(domain->deliver + sizeof scheme - 1), before;
    str_cut(&rest, '%', &before);
    if (str_copy(before, fixed, sizeof fixed) && parent_of(fixed, parent))
        tell(to, parent, conf->mail_owner, NULL, 0751, "Maildirs are made below it");
}

void layout_folders(const struct conf *conf, void (*folder)(void *arg, const struct layout_folder *folder), void *arg)
{
    const struct folders to = { folder, arg };
    char auth[NAME_BYTES], keys[NAME_BYTES], drop[NAME_BYTES];
    snprintf(auth, sizeof auth, "%s-auth", conf->user);
    snprintf(keys, sizeof keys, "%s-keys", conf->user);
    snprintf(drop, sizeof drop, "%s-drop", conf->user);

    /* Passable for all, since the control socket is in it; what it holds is in folders of mode 0700. */
    tell(&to, conf->spool, conf->user, NULL, 0711, "the spool");
    if (conf->drop)
        tell(&to, conf->drop, conf->user, drop, 0730, "what sendmail leaves while the daemon is down");
    tell_parent(&to, conf->users, auth, 0700, "the user store");
    if (layout_uses_kerberos(conf))
        tell(&to, conf->auth_state, auth, NULL, 0700, "Kerberos's replay cache");
    if (conf->keys)
        tell(&to, conf->keys, keys, NULL, 0700, "TLS keys");
    for (size_t i = 0; i < conf->n_domains; i++)
        tell_maildir(&to, conf, &conf->domain[i]);
    tell_parent(&to, conf->log, NULL, 0750, "the log");
    tell_parent(&to, conf->session_log, NULL, 0750, "the session log");
    for (size_t i = 0; i < conf->n_servers; i++)
        tell_parent(&to, conf->server[i].protocol_log, NULL, 0750, "a protocol log");
}

/* Every folder is held against those behind it: the list is told again for each, since its rows do not last. */
struct conflicts {
    const struct conf *conf;
    void (*conflict)(void *arg, const struct layout_folder *a, const struct layout_folder *b);
    void *arg;
    const struct layout_folder *a;
    size_t at, inner_at;
};

static void compare(void *arg, const struct layout_folder *b)
{
    struct conflicts *c = arg;
    if (c->inner_at++ <= c->at || !c->a->owner || !b->owner)
        return;
    if (strcmp(c->a->path, b->path) == 0 && strcmp(c->a->owner, b->owner) != 0)
        c->conflict(c->arg, c->a, b);
}

static void compare_with_rest(void *arg, const struct layout_folder *a)
{
    struct conflicts *c = arg;
    c->a = a;
    c->inner_at = 0;
    layout_folders(c->conf, compare, c);
    c->at++;
}

void layout_conflicts(const struct conf *conf,
                      void (*conflict)(void *arg, const struct layout_folder *a, const struct layout_folder *b), void *arg)
{
    struct conflicts c = { .conf = conf, .conflict = conflict, .arg = arg };
    layout_folders(conf, compare_with_rest, &c);
}
