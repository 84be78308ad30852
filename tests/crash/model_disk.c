#include "model_disk.h"

#include <assert.h>
#include <fcntl.h>

static struct model_disk *model_of(const struct spool_disk *disk)
{
    return (struct model_disk *)(uintptr_t)disk;
}

uint64_t model_random(struct model_disk *m, uint64_t below)
{
    uint64_t z = m->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % below;
}

static void file_write(struct model_file *f, size_t offset, const unsigned char *data, size_t n)
{
    if (offset + n > f->cap) {
        size_t cap = (offset + n) * 3 / 2;
        f->data = realloc(f->data, cap);
        assert(f->data);
        memset(f->data + f->cap, 0, cap - f->cap);
        f->cap = cap;
    }
    memcpy(f->data + offset, data, n);
    if (f->size < offset + n)
        f->size = offset + n;
}

static struct model_op *add_op(struct model_disk *m, enum model_op_kind kind, int file)
{
    static struct model_op ignored;
    if (!m->recording)
        return &ignored;
    if (m->n_ops == m->cap_ops) {
        m->cap_ops = m->cap_ops ? m->cap_ops * 2 : 1024;
        m->op = realloc(m->op, m->cap_ops * sizeof(*m->op));
        assert(m->op);
    }
    m->op[m->n_ops] = (struct model_op){ .kind = kind, .file = file };
    return &m->op[m->n_ops++];
}

static ssize_t model_pwritev(const struct spool_disk *disk, int fd, const struct iovec *iov, int n, off_t offset)
{
    struct model_disk *m = model_of(disk);
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    unsigned char *data = malloc(total + 1);
    assert(data && m->fd[fd]);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len)
            memcpy(data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    file_write(&m->file[m->fd[fd] - 1], (size_t)offset, data, total);
    if (!m->recording) {
        free(data);
        return (ssize_t)total;
    }
    struct model_op *op = add_op(m, MODEL_WRITE, m->fd[fd] - 1);
    op->offset = (size_t)offset;
    op->n = total;
    op->data = data;
    return (ssize_t)total;
}

static ssize_t model_pread(const struct spool_disk *disk, int fd, void *p, size_t n, off_t offset)
{
    struct model_disk *m = model_of(disk);
    const struct model_file *f = &m->file[m->fd[fd] - 1];
    assert(m->fd[fd]);
    if ((size_t)offset >= f->size)
        return 0;
    n = n < f->size - (size_t)offset ? n : f->size - (size_t)offset;
    memcpy(p, f->data + offset, n);
    return (ssize_t)n;
}

static int model_fdatasync(const struct spool_disk *disk, int fd)
{
    struct model_disk *m = model_of(disk);
    assert(m->fd[fd]);
    if (m->fail_syncs) {
        m->fail_syncs--;
        return -EIO;
    }
    add_op(m, MODEL_SYNC, m->fd[fd] - 1);
    return 0;
}

static int model_submit(const struct spool_disk *disk, struct worker_pool *pool, struct worker_job *job)
{
    struct model_disk *m = model_of(disk);
    assert(m->n_jobs < MODEL_JOBS);
    m->job_pool[m->n_jobs] = pool;
    m->job[m->n_jobs++] = job;
    return 0;
}

bool model_run_job(struct model_disk *m)
{
    if (m->n_jobs == 0)
        return false;
    /* A pool without threads (a writer's two) cannot be told from its other: any order is as good. */
    int i = (int)model_random(m, (uint64_t)m->n_jobs);
    for (int k = 0; k < i; k++) {
        if (m->job_pool[k] == m->job_pool[i] && m->job_pool[k])
            i = k;
    }
    struct worker_job *job = m->job[i];
    memmove(&m->job[i], &m->job[i + 1], (size_t)(m->n_jobs - i - 1) * sizeof(m->job[0]));
    memmove(&m->job_pool[i], &m->job_pool[i + 1], (size_t)(m->n_jobs - i - 1) * sizeof(m->job_pool[0]));
    m->n_jobs--;
    job->work(job);
    job->done(job);
    return true;
}

static int new_fd(struct model_disk *m, int file)
{
    for (int fd = 1; fd < MODEL_FDS; fd++) {
        if (m->fd[fd] == 0) {
            m->fd[fd] = file + 1;
            return fd;
        }
    }
    return -EMFILE;
}

static int find_file(const struct model_disk *m, const char *name)
{
    for (int i = 0; i < m->n_files; i++) {
        if (m->file[i].exists && !strcmp(m->file[i].name, name))
            return i;
    }
    return -1;
}

static int model_open(const struct spool_disk *disk, const char *name, int flags, mode_t mode)
{
    struct model_disk *m = model_of(disk);
    int i = find_file(m, name);
    if (i >= 0 && (flags & O_EXCL))
        return -EEXIST;
    if (i < 0 && !(flags & O_CREAT))
        return -ENOENT;
    if (i < 0) {
        assert(m->n_files < MODEL_FILES);
        i = m->n_files++;
        m->file[i] = (struct model_file){ .exists = true };
        assert(strlen(name) < sizeof(m->file[i].name));
        memcpy(m->file[i].name, name, strlen(name));
        add_op(m, MODEL_CREATE, i);
    } else if (flags & O_TRUNC) {
        memset(m->file[i].data, 0, m->file[i].cap);
        m->file[i].size = 0;
        add_op(m, MODEL_TRUNCATE, i);
    }
    return new_fd(m, i);
}

static int model_close(const struct spool_disk *disk, int fd)
{
    assert(model_of(disk)->fd[fd]);
    model_of(disk)->fd[fd] = 0;
    return 0;
}

static int model_dup(const struct spool_disk *disk, int fd)
{
    return new_fd(model_of(disk), model_of(disk)->fd[fd] - 1);
}

static int model_unlink(const struct spool_disk *disk, const char *name)
{
    int i = find_file(model_of(disk), name);
    if (i < 0)
        return -ENOENT;
    model_of(disk)->file[i].exists = false;
    add_op(model_of(disk), MODEL_UNLINK, i);
    return 0;
}

static bool in_folder(const char *name, const char *folder)
{
    size_t n = strlen(folder);
    return !strncmp(name, folder, n) && name[n] == '/';
}

static int model_fsync_folder(const struct spool_disk *disk, const char *name)
{
    struct model_op *op = add_op(model_of(disk), MODEL_SYNC_FOLDER, -1);
    assert(strlen(name) < sizeof(op->folder));
    memcpy(op->folder, name, strlen(name) + 1);
    return 0;
}

static int model_list(const struct spool_disk *disk, const char *folder, void (*found)(void *arg, const char *name), void *arg)
{
    const struct model_disk *m = model_of(disk);
    for (int i = 0; i < m->n_files; i++) {
        if (m->file[i].exists && in_folder(m->file[i].name, folder))
            found(arg, m->file[i].name + strlen(folder) + 1);
    }
    return 0;
}

static int64_t model_size(const struct spool_disk *disk, int fd)
{
    const struct model_disk *m = model_of(disk);
    return (int64_t)m->file[m->fd[fd] - 1].size;
}

static void model_fill_random(const struct spool_disk *disk, void *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ((unsigned char *)p)[i] = (unsigned char)model_random(model_of(disk), 256);
}

void model_disk_init(struct model_disk *m, uint64_t seed, bool recording)
{
    memset(m, 0, sizeof(*m));
    m->disk = (struct spool_disk){ .pwritev = model_pwritev, .pread = model_pread, .fdatasync = model_fdatasync,
        .submit = model_submit, .open = model_open, .close = model_close, .dup = model_dup, .unlink = model_unlink,
        .fsync_folder = model_fsync_folder, .list = model_list, .size = model_size, .random = model_fill_random };
    m->random = seed;
    m->recording = recording;
}

void model_disk_done(struct model_disk *m)
{
    for (int i = 0; i < m->n_files; i++)
        free(m->file[i].data);
    for (size_t i = 0; i < m->n_ops; i++)
        free(m->op[i].data);
    free(m->op);
}

/* ---- what is left of it ---- */

void model_replay_init(struct model_replay *r, const struct model_disk *of)
{
    memset(r, 0, sizeof(*r));
    r->of = of;
}

static void apply(struct model_file *f, const struct model_op *op)
{
    if (op->kind == MODEL_WRITE)
        file_write(f, op->offset, op->data, op->n);
    if (op->kind == MODEL_TRUNCATE) {
        if (f->cap)
            memset(f->data, 0, f->cap);
        f->size = 0;
    }
}

void model_replay_to(struct model_replay *r, size_t n)
{
    for (; r->n < n; r->n++) {
        const struct model_op *op = &r->of->op[r->n];
        if (op->kind == MODEL_SYNC) {
            for (size_t i = r->synced_at[op->file]; i < r->n; i++) {
                if (r->of->op[i].file == op->file)
                    apply(&r->durable[op->file], &r->of->op[i]);
            }
            r->synced_at[op->file] = r->n;
        }
        if (op->kind == MODEL_CREATE)
            memcpy(r->durable[op->file].name, r->of->file[op->file].name, sizeof(r->durable[0].name));
        if (op->kind == MODEL_CREATE || op->kind == MODEL_UNLINK)
            r->name_synced[op->file] = false;
        if (op->kind != MODEL_SYNC_FOLDER)
            continue;
        for (size_t i = 0; i < r->n; i++) { /* names as they are now */
            const struct model_op *o = &r->of->op[i];
            if ((o->kind == MODEL_CREATE || o->kind == MODEL_UNLINK) && in_folder(r->of->file[o->file].name, op->folder)) {
                r->durable[o->file].exists = o->kind == MODEL_CREATE;
                r->name_synced[o->file] = true;
            }
        }
    }
}

static void copy_some(struct model_disk *image, struct model_file *f, const struct model_op *op, enum model_fate fate)
{
    if (op->kind != MODEL_WRITE || fate == MODEL_EVERYTHING) {
        apply(f, op);
        return;
    }
    for (size_t at = 0; at < op->n;) {
        size_t n = MODEL_SECTOR - (op->offset + at) % MODEL_SECTOR;
        n = n < op->n - at ? n : op->n - at;
        if (model_random(image, 2))
            file_write(f, op->offset + at, op->data + at, n);
        at += n;
    }
}

static void tear(struct model_disk *image, struct model_file *f, const struct model_op *op)
{
    unsigned char garbage[4096];
    size_t block = op->offset / sizeof(garbage) * sizeof(garbage);
    if (op->kind != MODEL_WRITE || op->n == 0 || model_random(image, 2) || (block == 0 && in_folder(f->name, "segments")))
        return;
    for (size_t i = 0; i < sizeof(garbage); i++)
        garbage[i] = (unsigned char)(block + i * 37);
    file_write(f, block, garbage, sizeof(garbage));
}

void model_replay_image(const struct model_replay *r, enum model_fate fate, uint64_t seed, struct model_disk *image)
{
    model_disk_init(image, seed, false);
    bool named[MODEL_FILES];
    for (int i = 0; i < r->of->n_files; i++)
        named[i] = r->durable[i].exists;
    for (size_t i = 0; i < r->n; i++) { /* names whose folder was not synced since: each may have come through */
        const struct model_op *op = &r->of->op[i];
        if ((op->kind == MODEL_CREATE || op->kind == MODEL_UNLINK) && !r->name_synced[op->file] &&
            (fate == MODEL_EVERYTHING || (fate >= MODEL_SOME && model_random(image, 2))))
            named[op->file] = op->kind == MODEL_CREATE;
    }
    for (int i = 0; i < r->of->n_files; i++) {
        if (!named[i])
            continue;
        struct model_file *f = &image->file[image->n_files++];
        const struct model_file *d = &r->durable[i];
        *f = (struct model_file){ .exists = true };
        memcpy(f->name, d->name, sizeof(f->name));
        if (d->size)
            file_write(f, 0, d->data, d->size);
        for (size_t k = r->synced_at[i]; fate != MODEL_NOTHING && k < r->n; k++) {
            if (r->of->op[k].file == i && r->of->op[k].kind <= MODEL_TRUNCATE)
                copy_some(image, f, &r->of->op[k], fate);
        }
        for (size_t k = r->synced_at[i]; fate == MODEL_TORN && k < r->n; k++) {
            if (r->of->op[k].file == i)
                tear(image, f, &r->of->op[k]);
        }
    }
}

void model_replay_done(struct model_replay *r)
{
    for (int i = 0; i < MODEL_FILES; i++)
        free(r->durable[i].data);
}
