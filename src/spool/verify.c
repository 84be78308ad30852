#include "spool/verify.h"

#include <fcntl.h>
#include <stdlib.h>

#include "spool/store_private.h"

enum { READ_BYTES = 256 * 1024 };

/* A spool's folder that cannot be written. */
struct reader_disk {
    struct spool_disk disk;
    struct spool_disk_folder folder;
};

static const struct spool_disk *below(const struct spool_disk *disk)
{
    return &((const struct reader_disk *)disk)->folder.disk;
}

static ssize_t no_pwritev(const struct spool_disk *disk, int fd, const struct iovec *iov, int n, off_t offset)
{
    return -EROFS;
}

static int no_fdatasync(const struct spool_disk *disk, int fd)
{
    return 0;
}

static int read_open(const struct spool_disk *disk, const char *name, int flags, mode_t mode)
{
    return flags & (O_CREAT | O_TRUNC) ? -EROFS : below(disk)->open(below(disk), name, O_RDONLY, 0);
}

static int no_name(const struct spool_disk *disk, const char *name)
{
    return 0;
}

/* A spool in which nothing was ever kept lacks folders: they are empty then. */
static int read_list(const struct spool_disk *disk, const char *folder, void (*found)(void *arg, const char *name),
                     void *arg)
{
    int rc = below(disk)->list(below(disk), folder, found, arg);
    return rc == -ENOENT ? 0 : rc;
}

static int reader_disk_open(const char *folder, struct reader_disk *ret, struct err *err)
{
    int rc = spool_disk_folder_open(folder, &ret->folder, err);
    if (rc < 0)
        return rc == -ENOENT ? ERR_ABSENT : rc;
    ret->disk = ret->folder.disk;
    ret->disk.pwritev = no_pwritev;
    ret->disk.fdatasync = no_fdatasync;
    ret->disk.open = read_open;
    ret->disk.unlink = no_name;
    ret->disk.fsync_folder = no_name;
    ret->disk.list = read_list;
    int fd = ret->folder.disk.open(&ret->folder.disk, "segments", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        spool_disk_folder_close(&ret->folder);
        return fd == -ENOENT ? err_set(err, ERR_ABSENT, "%s holds no spool: no daemon has run with it yet", folder)
                             : err_errno(err, -fd, "cannot open the folder segments in the spool %s", folder);
    }
    ret->disk.close(&ret->disk, fd);
    return 0;
}

struct verify {
    struct reader_disk disk;
    struct spool_store *store;
    void (*damage)(void *arg, const struct spool_verify_damage *damage);
    void (*message)(void *arg, const struct spool_found *found);
    void *arg;
    struct spool_verify_result result;
    char *block;
};

static void tell(struct verify *v, const struct spool_verify_damage *damage)
{
    v->result.acknowledged += damage->acknowledged;
    v->result.torn += !damage->acknowledged;
    if (v->damage)
        v->damage(v->arg, damage);
}

static const char *name_of(const struct verify *v, uint64_t number, char ret_name[32])
{
    const struct spool_segment *s = v->store ? store_segment(v->store, number) : NULL;
    if (!s)
        return "";
    store_segment_name(s->slot, ret_name);
    return ret_name;
}

static void on_damaged(void *arg, uint64_t segment, const struct spool_damage *d, const char *kept_as)
{
    char name[32];
    struct spool_verify_damage damage = { segment, name_of(arg, segment, name), d->from, d->to, 0, d->acknowledged,
        d->acknowledged ? "octets that held acknowledged mail are damaged" : "a write that was cut short" };
    tell(arg, &damage);
}

static void on_failed(void *arg, const struct err *why)
{
    struct spool_verify_damage damage = { .file = "", .acknowledged = true, .text = err_text(why) };
    tell(arg, &damage);
}

/* Reads it to its end, as delivery will. */
static int read_message(struct verify *v, const struct spool_found *found, struct err *err)
{
    struct spool_reader *reader = NULL;
    const struct spool_disk *disk = &v->disk.disk;
    int body_fd = found->body_file ? spool_store_body_open(v->store, found->body_file) : -1;
    if (found->body_file && body_fd < 0)
        return err_errno(err, -body_fd, "body file %llu cannot be opened", (unsigned long long)found->body_file);
    int rc = spool_store_read(v->store, found->segment, found->place.offset, found->place.length, body_fd, &reader, err);
    ssize_t n = rc;
    while (rc >= 0 && (n = spool_reader_read(reader, v->block, READ_BYTES, err)) > 0)
        ;
    spool_reader_free(&reader);
    if (body_fd >= 0)
        disk->close(disk, body_fd);
    return (int)n;
}

static void on_message(void *arg, const struct spool_found *found)
{
    struct verify *v = arg;
    struct err err = { 0 };
    if (v->message) {
        v->message(v->arg, found);
        return;
    }
    v->result.messages++;
    v->result.octets += found->envelope->message_bytes;
    if (read_message(v, found, &err) < 0) {
        char name[32];
        struct spool_verify_damage damage = { found->place.segment, name_of(v, found->place.segment, name), found->place.offset,
            found->place.offset + found->place.length, found->id, true, err_text(&err) };
        tell(v, &damage);
    }
}

static void nothing(void *arg)
{
}

static void nothing_finished(void *arg, struct spool_segment *segment)
{
}

static int run(struct verify *v, const char *folder, struct err *err)
{
    struct loop *loop = NULL;
    int rc = reader_disk_open(folder, &v->disk, err);
    if (rc < 0)
        return rc;
    struct spool_store_options options = {
        .folder = folder, .disk = &v->disk.disk, .segment_bytes = SPOOL_SEGMENT_MIN_BYTES,
        .handlers = { .message = on_message, .damaged = on_damaged, .spare = nothing, .finished = nothing_finished,
                      .failed = on_failed, .arg = v },
    };
    rc = loop_new(&loop, err);
    options.loop = loop;
    if (rc == 0)
        rc = spool_store_open(&options, &v->store, err);
    if (rc == 0)
        rc = spool_store_scan(v->store, err);
    spool_store_free(&v->store);
    loop_free(&loop);
    spool_disk_folder_close(&v->disk.folder);
    return rc;
}

int spool_verify(const char *folder, void (*damage)(void *arg, const struct spool_verify_damage *damage), void *arg,
                 struct spool_verify_result *ret_result, struct err *err)
{
    struct verify v = { .damage = damage, .arg = arg, .block = malloc(READ_BYTES) };
    if (!v.block)
        return err_set(err, -ENOMEM, "no memory to read the spool");
    int rc = run(&v, folder, err);
    free(v.block);
    *ret_result = v.result;
    return rc;
}

int spool_list_offline(const char *folder, void (*message)(void *arg, const struct spool_found *found), void *arg,
                       struct err *err)
{
    struct verify v = { .message = message, .arg = arg };
    return run(&v, folder, err);
}
