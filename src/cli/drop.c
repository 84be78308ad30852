/* postern-drop FOLDER: writes a message from standard input into the drop folder, as one synced file. Installed
 * set-group-id postern-drop, so that any local user can leave mail while the daemon is down; therefore it does nothing
 * else: no configuration, no library, no environment. What it writes is checked by the queue (docs/control.md). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { MESSAGE_MAX_BYTES = 128 << 20, NAME_BYTES = 64 };

static int fail(const char *what)
{
    fprintf(stderr, "postern-drop: %s: %s\n", what, strerror(errno));
    return EX_TEMPFAIL;
}

static int copy_input(int to)
{
    static char block[64 * 1024];
    size_t total = 0;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail("cannot read the message");
        if (n == 0)
            return total ? 0 : EX_NOINPUT;
        total += (size_t)n;
        if (total > MESSAGE_MAX_BYTES) {
            errno = EFBIG;
            return fail("cannot take the message");
        }
        for (ssize_t done = 0; done < n;) {
            ssize_t wrote = write(to, block + done, (size_t)(n - done));
            if (wrote < 0 && errno != EINTR)
                return fail("cannot write the message");
            done += wrote > 0 ? wrote : 0;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: postern-drop FOLDER\n");
        return EX_USAGE;
    }
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a write error, not a death with half a file */
    umask(0);
    int folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0) /* the group may enter and write, not list */
        folder = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (folder < 0 || fstat(folder, &st) != 0)
        return fail(argv[1]);
    /* With the group's right, only into a folder that is meant for it. */
    if (getegid() != getgid() && st.st_gid != getegid()) {
        errno = EPERM;
        return fail(argv[1]);
    }
    unsigned char random[8];
    char name[NAME_BYTES], hidden[NAME_BYTES];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return fail("no random octets");
    unsigned long long id = 0;
    for (size_t i = 0; i < sizeof random; i++)
        id = id << 8 | random[i];
    snprintf(name, sizeof name, "%016llx.mail", id);
    snprintf(hidden, sizeof hidden, ".%016llx", id);
    int fd = openat(folder, hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return fail(argv[1]);
    int rc = copy_input(fd);
    if (rc == 0 && (fchown(fd, (uid_t)-1, st.st_gid) != 0 && errno != EPERM))
        rc = fail("cannot give the file to the folder's group");
    if (rc == 0 && fsync(fd) != 0)
        rc = fail("cannot sync the message");
    if (rc == 0 && renameat(folder, hidden, folder, name) != 0)
        rc = fail("cannot name the message");
    if (rc != 0) {
        unlinkat(folder, hidden, 0);
        return rc;
    }
    /* The name must last too; a folder that this user may not read is synced through the file system. */
    if (fsync(folder) != 0 && syncfs(fd) != 0)
        return fail("cannot sync the drop folder");
    return EX_OK;
}
