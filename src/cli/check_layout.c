/* check_layout: the system users and folders that a configuration implies (conf/layout.h). What `postern setup`
 * makes is a warning as long as it is missing; what stands in its way is a mistake. */
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/check.h"
#include "conf/layout.h"

struct walk {
    const struct conf *conf;
    struct conf_mistakes *mistakes;
    const char *hint;
};

static struct conf_place top(const struct conf *conf, const char *option)
{
    return conf_place_of(conf, conf->file, option, (struct conf_place){ conf->file, 0 });
}

static void look_for_user(void *arg, const struct layout_user *user)
{
    const struct walk *w = arg;
    if (!getpwnam(user->name))
        conf_warning_add(w->mistakes, top(w->conf, str_eq(str_of(user->name), str_of(w->conf->mail_owner)) ? "mail_owner" : "user"),
                         "user", w->hint, "there is no system user \"%s\" (%s)", user->name, user->purpose);
}

void cli_check_users(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct walk w = { conf, mistakes, "run postern setup as root, or start the service as an ordinary user" };
    if (geteuid() == 0)
        layout_users(conf, look_for_user, &w);
}

static void look_at_owner(const struct walk *w, const struct layout_folder *folder, const struct stat *st)
{
    const struct passwd *owner = folder->owner && geteuid() == 0 ? getpwnam(folder->owner) : NULL;
    if (owner && owner->pw_uid != st->st_uid)
        conf_warning_add(w->mistakes, top(w->conf, "user"), NULL, w->hint, "%s (%s) does not belong to the user \"%s\"",
                         folder->path, folder->purpose, folder->owner);
}

static void look_for_folder(void *arg, const struct layout_folder *folder)
{
    const struct walk *w = arg;
    struct stat st;
    if (stat(folder->path, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            conf_mistake_add(w->mistakes, top(w->conf, "spool"), NULL, "name a folder", "%s (%s) is not a folder", folder->path,
                             folder->purpose);
        else
            look_at_owner(w, folder, &st);
        return;
    }
    if (errno == ENOENT)
        conf_warning_add(w->mistakes, top(w->conf, "spool"), NULL, w->hint, "there is no folder %s (%s)", folder->path,
                         folder->purpose);
    else if (errno != EACCES || geteuid() == 0)
        conf_mistake_add(w->mistakes, top(w->conf, "spool"), NULL, NULL, "%s (%s): %s", folder->path, folder->purpose,
                         strerror(errno));
}

void cli_check_folders(const struct conf *conf, struct conf_mistakes *mistakes)
{
    struct walk w = { conf, mistakes, "postern setup makes what is missing" };
    layout_folders(conf, look_for_folder, &w);
}
