/* postern setup: makes the system users and folders that a configuration implies, with the right owners and modes.
 * Idempotent; prints what it changed. As an ordinary user it makes the folders that it can. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "conf/layout.h"

extern char **environ;

struct setup {
    bool root;
    unsigned changes, failures;
};

static void failed(struct setup *s, const char *what, const char *name)
{
    fprintf(stderr, "postern setup: cannot %s %s: %s\n", what, name, strerror(errno));
    s->failures++;
}

/* Runs a program of the system's user management and waits for it. */
static bool run(char *const argv[])
{
    pid_t pid;
    int status = 0;
    int rc = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (rc != 0) {
        errno = rc;
        return false;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    errno = EIO;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void make_group(struct setup *s, const char *name)
{
    char *const argv[] = { (char *)"groupadd", (char *)"--system", (char *)name, NULL };
    if (getgrnam(name))
        return;
    if (!run(argv)) {
        failed(s, "make the group", name);
        return;
    }
    printf("made group %s\n", name);
    s->changes++;
}

static bool is_member(const struct group *gr, const struct passwd *pw)
{
    for (char **name = gr->gr_mem; *name; name++)
        if (strcmp(*name, pw->pw_name) == 0)
            return true;
    return gr->gr_gid == pw->pw_gid;
}

/* A user who was there before us, or whom an earlier version made. */
static void join_group(struct setup *s, const struct layout_user *user)
{
    const struct passwd *pw = getpwnam(user->name);
    const struct group *gr = getgrnam(user->group);
    if (!pw || !gr || is_member(gr, pw))
        return;
    char *const argv[] = { (char *)"usermod", (char *)"--append", (char *)"--groups", (char *)user->group,
                           (char *)user->name, NULL };
    if (!run(argv)) {
        failed(s, "add to its group the user", user->name);
        return;
    }
    printf("user %s is now in the group %s\n", user->name, user->group);
    s->changes++;
}

static void make_user(void *arg, const struct layout_user *user)
{
    struct setup *s = arg;
    if (user->group)
        make_group(s, user->group);
    if (getpwnam(user->name)) {
        if (user->group)
            join_group(s, user);
        return;
    }
    char *argv[] = { (char *)"useradd",  (char *)"--system",       (char *)"--user-group", (char *)"--no-create-home",
                     (char *)"--home-dir", (char *)"/nonexistent", (char *)"--shell",      (char *)"/usr/sbin/nologin",
                     (char *)user->name, NULL,                     NULL,                   NULL };
    if (user->group) {
        argv[8] = (char *)"--groups";
        argv[9] = (char *)user->group;
        argv[10] = (char *)user->name;
    }
    /* A group that is there already is used. */
    if (getgrnam(user->name)) {
        argv[2] = (char *)"--gid";
        argv[3] = (char *)user->name;
    }
    if (!run(argv)) {
        failed(s, "make the user", user->name);
        return;
    }
    printf("made user %s (%s)\n", user->name, user->purpose);
    s->changes++;
}

/* Missing parents get the usual mode: they are not ours. */
static bool make_parents(const char *path)
{
    char parent[4096];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        if (!str_copy(str_slice(path, (size_t)(slash - path)), parent, sizeof parent))
            return false;
        if (mkdir(parent, 0755) != 0 && errno != EEXIST)
            return false;
    }
    return true;
}

static void own(struct setup *s, int fd, const struct layout_folder *folder, const struct stat *st)
{
    const struct passwd *pw = folder->owner ? getpwnam(folder->owner) : NULL;
    const struct group *gr = folder->group ? getgrnam(folder->group) : NULL;
    uid_t uid = pw ? pw->pw_uid : st->st_uid;
    gid_t gid = gr ? gr->gr_gid : pw ? pw->pw_gid : st->st_gid;
    if (uid == st->st_uid && gid == st->st_gid)
        return;
    if (fchown(fd, uid, gid) != 0) {
        failed(s, "change the owner of", folder->path);
        return;
    }
    printf("%s now belongs to %s\n", folder->path, folder->owner ? folder->owner : "root");
    s->changes++;
}

/* Folders of the system, which many others need as they are: giving one away would break the machine. */
static bool is_of_the_system(const char *path)
{
    static const char *const folders[] = {
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run",
        "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var",
        "/var/cache", "/var/lib", "/var/lock", "/var/log", "/var/run", "/var/spool", "/var/tmp",
    };
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (strcmp(path, folders[i]) == 0)
            return true;
    return false;
}

static void make_folder(void *arg, const struct layout_folder *folder)
{
    struct setup *s = arg;
    bool made = false;
    if (folder->owner && is_of_the_system(folder->path)) {
        fprintf(stderr, "postern setup: %s (%s) would have to belong to %s, but it is a folder of the system; choose one "
                "of its own, below it for example\n", folder->path, folder->purpose, folder->owner);
        s->failures++;
        return;
    }
    if (!make_parents(folder->path)) {
        failed(s, "make the folders above", folder->path);
        return;
    }
    if (mkdir(folder->path, 0700) == 0)
        made = true;
    else if (errno != EEXIST) {
        failed(s, "make the folder", folder->path);
        return;
    }
    int fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        failed(s, "open the folder", folder->path);
        if (fd >= 0)
            close(fd);
        return;
    }
    if (made) {
        printf("made %s (%s)\n", folder->path, folder->purpose);
        s->changes++;
    }
    if (s->root && folder->owner)
        own(s, fd, folder, &st);
    /* A folder without an owner of ours may be anybody's, /var/log for one: only what we made gets its mode. */
    if ((made || (folder->owner && s->root)) && (st.st_mode & 07777) != folder->mode) {
        if (fchmod(fd, folder->mode) != 0)
            failed(s, "change the mode of", folder->path);
        else if (!made) {
            printf("%s now has mode %04o\n", folder->path, folder->mode);
            s->changes++;
        }
    }
    close(fd);
}

static void on_conflict(void *arg, const struct layout_folder *a, const struct layout_folder *b)
{
    unsigned *conflicts = arg;
    fprintf(stderr, "postern setup: %s would have to belong to %s (%s) and to %s (%s); give each a folder of its own\n",
            a->path, a->owner, a->purpose, b->owner, b->purpose);
    ++*conflicts;
}

int cli_setup(int argc, char **argv, const struct cli_options *options)
{
    if (argc > 1)
        return cli_usage("setup", "unexpected argument %s", argv[1]);
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK)
        return status;
    struct setup s = { .root = geteuid() == 0 };
    unsigned conflicts = 0;
    if (s.root) /* otherwise all is one user's */
        layout_conflicts(conf, on_conflict, &conflicts);
    if (conflicts) {
        conf_unref(&conf);
        return CLI_CONFIG;
    }
    umask(022);
    if (s.root)
        layout_users(conf, make_user, &s);
    layout_folders(conf, make_folder, &s);
    conf_unref(&conf);
    if (s.failures)
        return s.root ? CLI_CANNOT_CREATE : CLI_NOT_PERMITTED;
    if (s.changes == 0)
        printf("nothing to do: every user and folder is there\n");
    return CLI_OK;
}
