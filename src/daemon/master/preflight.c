#include "daemon/master/preflight.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/layout.h"

struct check {
    struct buf *mistakes;
    bool root;
};

static void check_user(void *arg, const struct layout_user *user)
{
    struct check *c = arg;
    const struct passwd *pw = getpwnam(user->name);
    if (!pw)
        buf_addf(c->mistakes, "there is no system user %s (%s)\n", user->name, user->purpose);
    else if (pw->pw_uid == 0)
        buf_addf(c->mistakes, "user %s is uid 0: no role runs as root; choose another name with user = \"…\"\n",
                 user->name);
}

static void check_folder(void *arg, const struct layout_folder *folder)
{
    struct check *c = arg;
    struct stat st;
    if (stat(folder->path, &st) != 0) {
        buf_addf(c->mistakes, "%s is missing (%s)\n", folder->path, folder->purpose);
        return;
    }
    if (!S_ISDIR(st.st_mode)) {
        buf_addf(c->mistakes, "%s is not a folder (%s)\n", folder->path, folder->purpose);
        return;
    }
    const struct passwd *pw = c->root && folder->owner ? getpwnam(folder->owner) : NULL;
    if (pw && st.st_uid != pw->pw_uid)
        buf_addf(c->mistakes, "%s belongs to uid %u, it must belong to %s (%s)\n", folder->path, (unsigned)st.st_uid,
                 folder->owner, folder->purpose);
    if (!c->root && access(folder->path, W_OK) != 0)
        buf_addf(c->mistakes, "%s cannot be written by this user (%s)\n", folder->path, folder->purpose);
}

int preflight_check(const struct conf *conf, const char *config_path, struct buf *mistakes, struct err *err)
{
    struct check c = { mistakes, geteuid() == 0 };
    size_t before = mistakes->n;
    if (c.root)
        layout_users(conf, check_user, &c);
    layout_folders(conf, check_folder, &c);
    if (mistakes->n == before)
        return 0;
    buf_addf(mistakes, "run: postern setup -c %s\n", config_path);
    return err_set(err, ERR_CONFIG, "users or folders are missing");
}
