/* check_layout: the system users and folders that a configuration implies (conf/layout.h). What `postern setup`
 * makes is a warning as long as it is missing; what stands in its way is a mistake. */
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/check.h"
#include "conf/layout.h"

struct walk {
    const struct conf *conf;
    struct conf_mistakes *mistakes;
    struct buf missing; /* names, ", " between them */
};

static struct conf_place top(const struct conf *conf, const char *option)
{
    return conf_place_of(conf, conf->file, option, (struct conf_place){ conf->file, 0 });
}

static void add_missing(struct walk *w, const char *name)
{
    if (!w->missing.n || !memmem(w->missing.p, w->missing.n, name, strlen(name)))
        buf_addf(&w->missing, "%s%s", w->missing.n ? ", " : "", name);
}

static void look_for_user(void *arg, const struct layout_user *user)
{
    if (!getpwnam(user->name))
        add_missing(arg, user->name);
}

void cli_check_users(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct walk w = { .conf = conf, .mistakes = mistakes };
    if (geteuid() != 0)
        return; /* then all roles are the user who starts the service */
    buf_init(&w.missing, 4096);
    layout_users(conf, look_for_user, &w);
    if (w.missing.n)
        conf_warning_add(mistakes, top(conf, "user"), "user", "run postern setup",
                         "these system users are missing: %.*s", STR_ARG(buf_str(&w.missing)));
    buf_done(&w.missing);
}

static void look_at_owner(const struct walk *w, const struct layout_folder *folder, const struct stat *st)
{
    const struct passwd *owner = folder->owner && geteuid() == 0 ? getpwnam(folder->owner) : NULL;
    if (owner && owner->pw_uid != st->st_uid)
        conf_warning_add(w->mistakes, top(w->conf, "user"), NULL, "run postern setup",
                         "%s (%s) does not belong to the user \"%s\"", folder->path, folder->purpose, folder->owner);
}

static void look_for_folder(void *arg, const struct layout_folder *folder)
{
    struct walk *w = arg;
    struct stat st;
    if (stat(folder->path, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            conf_mistake_add(w->mistakes, top(w->conf, "spool"), NULL, "name a folder", "%s (%s) is not a folder",
                             folder->path, folder->purpose);
        else
            look_at_owner(w, folder, &st);
        return;
    }
    if (errno == ENOENT)
        add_missing(w, folder->path);
    else if (errno != EACCES || geteuid() == 0)
        conf_mistake_add(w->mistakes, top(w->conf, "spool"), NULL, NULL, "%s (%s): %s", folder->path, folder->purpose,
                         strerror(errno));
}

static void on_conflict(void *arg, const struct layout_folder *a, const struct layout_folder *b)
{
    const struct walk *w = arg;
    conf_mistake_add(w->mistakes, top(w->conf, "spool"), NULL, "give each a folder of its own",
                     "%s would have to belong to \"%s\" (%s) and to \"%s\" (%s)", a->path, a->owner, a->purpose, b->owner,
                     b->purpose);
}

void cli_check_folders(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct walk w = { .conf = conf, .mistakes = mistakes };
    buf_init(&w.missing, 65536);
    layout_folders(conf, look_for_folder, &w);
    if (geteuid() == 0) /* for others every folder is that user's */
        layout_conflicts(conf, on_conflict, &w);
    if (w.missing.n)
        conf_warning_add(mistakes, top(conf, "spool"), NULL, "run postern setup", "these folders are missing: %.*s",
                         STR_ARG(buf_str(&w.missing)));
    buf_done(&w.missing);
}
