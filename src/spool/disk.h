/* disk: every call by which the spool touches stable storage, and the threads on which it waits for it.
 *
 * The daemon uses spool_disk_system; the crash tests put a model disk behind the same calls, which drops,
 * tears and reorders what was not synced. Results are as the system call's: a count, or -errno. */
#pragma once
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "io/worker.h"

struct spool_disk {
    ssize_t (*pwritev)(const struct spool_disk *disk, int fd, const struct iovec *iov, int n, off_t offset);
    ssize_t (*pread)(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset);
    int (*fdatasync)(const struct spool_disk *disk, int fd);
    /* Hands a job to the threads; the model disk keeps it until the test turns it. */
    int (*submit)(const struct spool_disk *disk, struct worker_pool *pool, struct worker_job *job);
    /* Below a spool's folder; names are relative to it ("segments/000001"). Only the queue and tools. */
    int (*open)(const struct spool_disk *disk, const char *name, int flags, mode_t mode);
    int (*close)(const struct spool_disk *disk, int fd);
    int (*dup)(const struct spool_disk *disk, int fd); /* close-on-exec */
    int (*unlink)(const struct spool_disk *disk, const char *name);
    int (*fsync_folder)(const struct spool_disk *disk, const char *name);
    int (*list)(const struct spool_disk *disk, const char *folder, void (*found)(void *arg, const char *name), void *arg);
    int64_t (*size)(const struct spool_disk *disk, int fd);
    void (*random)(const struct spool_disk *disk, void *p, unsigned n);
};

/* The calls that need no folder, for writers and readers that live on lent descriptors. */
extern const struct spool_disk spool_disk_system;

/* The same, with a folder: names are resolved below it. */
struct spool_disk_folder {
    struct spool_disk disk;
    int fd;
};
int spool_disk_folder_open(const char *path, struct spool_disk_folder *ret_folder, struct err *err);
void spool_disk_folder_close(struct spool_disk_folder *folder);

/* Writes all of it, going on after a short write; a short count that makes no progress is -EIO.
 * `iov` is used up. */
int spool_disk_write_all(const struct spool_disk *disk, int fd, struct iovec *iov, int n, off_t offset);
/* Reads exactly n octets; -ENODATA when the file ends before. */
int spool_disk_read_all(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset);
