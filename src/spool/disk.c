#include "spool/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/now.h"

static ssize_t system_pwritev(const struct spool_disk *disk, int fd, const struct iovec *iov, int n, off_t offset)
{
    ssize_t done;
    do {
        done = pwritev(fd, iov, n, offset);
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

static ssize_t system_pread(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset)
{
    ssize_t done;
    do {
        done = pread(fd, p, n, offset);
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

/* EINTR aside, a sync that failed is not tried again: the kernel forgets what it could not write. */
static int system_fdatasync(const struct spool_disk *disk, int fd)
{
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int system_submit(const struct spool_disk *disk, struct worker_pool *pool, struct worker_job *job)
{
    return worker_submit(pool, job);
}

static int system_close(const struct spool_disk *disk, int fd)
{
    return close(fd) < 0 ? -errno : 0;
}

static int system_dup(const struct spool_disk *disk, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -errno : copy;
}

static int64_t system_size(const struct spool_disk *disk, int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

static void system_random(const struct spool_disk *disk, void *p, unsigned n)
{
    now_random(p, n);
}

static const struct spool_disk_folder *folder_of(const struct spool_disk *disk)
{
    return (const struct spool_disk_folder *)((const char *)disk - offsetof(struct spool_disk_folder, disk));
}

static int folder_open(const struct spool_disk *disk, const char *name, int flags, mode_t mode)
{
    int fd = openat(folder_of(disk)->fd, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    return fd < 0 ? -errno : fd;
}

static int folder_unlink(const struct spool_disk *disk, const char *name)
{
    return unlinkat(folder_of(disk)->fd, name, 0) < 0 ? -errno : 0;
}

static int folder_fsync(const struct spool_disk *disk, const char *name)
{
    int fd = openat(folder_of(disk)->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int folder_list(const struct spool_disk *disk, const char *folder, void (*found)(void *arg, const char *name),
                       void *arg)
{
    int fd = openat(folder_of(disk)->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int saved = -errno;
        close(fd);
        return saved;
    }
    errno = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.')
            found(arg, entry->d_name);
        errno = 0;
    }
    int rc = -errno;
    closedir(dir);
    return rc;
}

const struct spool_disk spool_disk_system = {
    .pwritev = system_pwritev, .pread = system_pread, .fdatasync = system_fdatasync, .submit = system_submit,
    .close = system_close, .dup = system_dup, .size = system_size, .random = system_random,
};

int spool_disk_folder_open(const char *path, struct spool_disk_folder *ret, struct err *err)
{
    *ret = (struct spool_disk_folder){ .disk = spool_disk_system, .fd = -1 };
    ret->disk.open = folder_open;
    ret->disk.unlink = folder_unlink;
    ret->disk.fsync_folder = folder_fsync;
    ret->disk.list = folder_list;
    ret->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret->fd < 0)
        return err_errno(err, errno, "cannot open the spool folder %s (postern setup makes it)", path);
    return 0;
}

void spool_disk_folder_close(struct spool_disk_folder *folder)
{
    if (folder->fd >= 0)
        close(folder->fd);
    folder->fd = -1;
}

int spool_disk_write_all(const struct spool_disk *disk, int fd, struct iovec *iov, int n, off_t offset)
{
    while (n > 0) {
        if (iov->iov_len == 0) {
            iov++;
            n--;
            continue;
        }
        ssize_t done = disk->pwritev(disk, fd, iov, n, offset);
        if (done <= 0)
            return done < 0 ? (int)done : -EIO;
        offset += done;
        while (n > 0 && (size_t)done >= iov->iov_len) {
            done -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= (size_t)done;
        }
    }
    return 0;
}

int spool_disk_read_all(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset)
{
    for (size_t at = 0; at < n;) {
        ssize_t done = disk->pread(disk, fd, (char *)p + at, n - at, offset + (off_t)at);
        if (done <= 0)
            return done < 0 ? (int)done : -ENODATA;
        at += (size_t)done;
    }
    return 0;
}
