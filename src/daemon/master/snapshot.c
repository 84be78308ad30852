#include "daemon/master/snapshot.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/master/listen.h"
#include "daemon/role.h"
#include "daemon/shared.h"
#include "keystore/certificate.h"

enum {
    CERTIFICATE_MAX_BYTES = 1 << 20,
    PASSWORD_MAX_BYTES = 64 * 1024,
    RECIPIENTS_MAX_BYTES = 64 << 20,
    ANCHORS_MAX_BYTES = 16 << 20,
    KEYTAB_MAX_BYTES = 1 << 20,
    TABLE_MAX_BYTES = 16 << 20,
};

#define ROLE_BIT(role) (1u << (role))

struct loading {
    struct snapshot *snapshot;
    struct buf *mistakes;
};

static void mistake(struct loading *l, const struct conf_place *place, const char *text)
{
    buf_addf(l->mistakes, "%s:%u: %s\n", place->file ? place->file : "configuration", place->line, text);
}

static struct snapshot_file *add_file(struct loading *l, enum ipc_file_kind kind, const char *name, const char *text)
{
    struct snapshot *s = l->snapshot;
    if (s->n_files == SNAPSHOT_FILES_MAX)
        return NULL;
    struct snapshot_file *f = &s->file[s->n_files];
    *f = (struct snapshot_file){ .kind = kind, .fd = -1, .only_index = -1 };
    f->name = str_dup(str_of(name ? name : ""));
    f->text = str_dup(str_of(text ? text : ""));
    if (!f->name || !f->text) {
        free(f->name);
        free(f->text);
        return NULL;
    }
    s->n_files++;
    return f;
}

/* A sealed copy of a file in memory. */
static int copy_to_memory(const char *path, size_t max, int *ret_fd, struct err *err)
{
    int from = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (from < 0)
        return err_errno(err, errno, "cannot read %s", path);
    int to = memfd_create("postern", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int rc = to < 0 ? err_errno(err, errno, "cannot make a file in memory for %s", path) : 0;
    char block[16 * 1024];
    size_t total = 0;
    while (rc == 0) {
        ssize_t n = read(from, block, sizeof block);
        if (n < 0)
            rc = err_errno(err, errno, "cannot read %s", path);
        if (n <= 0)
            break;
        total += (size_t)n;
        if (total > max)
            rc = err_set(err, ERR_LIMIT, "%s is longer than %zu octets", path, max);
        else if (write(to, block, (size_t)n) != n)
            rc = err_errno(err, errno, "cannot copy %s", path);
    }
    explicit_bzero(block, sizeof block);
    close(from);
    if (rc == 0)
        fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    else if (to >= 0)
        close(to);
    if (rc == 0)
        *ret_fd = to;
    return rc;
}

/* Only the certificates of a PEM file, for the roles that must not see a key that stands in the same file. */
static int certificates_only(const char *path, int *ret_fd, struct err *err)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
    struct buf pem;
    buf_init(&pem, CERTIFICATE_MAX_BYTES);
    int from = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int rc = from < 0 ? err_errno(err, errno, "cannot read %s", path) : role_read_file(from, &pem, err);
    int to = rc < 0 ? -1 : memfd_create("postern", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct str rest = buf_str(&pem);
    while (to >= 0 && rest.n) {
        const char *at = memmem(rest.p, rest.n, begin, sizeof begin - 1);
        struct str block = at ? str_skip(rest, (size_t)(at - rest.p)) : STR_NONE;
        const char *stop = block.n ? memmem(block.p, block.n, end, sizeof end - 1) : NULL;
        if (!stop)
            break;
        size_t n = (size_t)(stop - block.p) + sizeof end - 1;
        if (write(to, block.p, n) != (ssize_t)n || write(to, "\n", 1) != 1)
            rc = err_errno(err, errno, "cannot copy %s", path);
        rest = str_skip(block, n);
    }
    buf_wipe(&pem);
    if (from >= 0)
        close(from);
    if (rc == 0 && to < 0)
        rc = err_errno(err, errno, "cannot make a file in memory for %s", path);
    if (rc == 0) {
        fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        *ret_fd = to;
    } else if (to >= 0) {
        close(to);
    }
    return rc;
}

struct wanted {
    const struct conf_place *place;
    enum ipc_file_kind kind;
    const char *name, *path;
    size_t max_bytes;
    unsigned roles;
    uint8_t detail;
};

static struct snapshot_seen look(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return (struct snapshot_seen){ 0 };
    return (struct snapshot_seen){ st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim };
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_look(const struct snapshot_seen *a, const struct snapshot_seen *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes
           && same_time(a->modified, b->modified) && same_time(a->changed, b->changed);
}

/* The descriptor, which is the snapshot's; -1: there is no such file, or it was noted as a mistake. */
static int load_file(struct loading *l, const struct wanted *w)
{
    if (!w->path)
        return -1;
    struct err err = { 0 };
    int fd = -1;
    struct snapshot_file *f = NULL;
    struct snapshot_seen seen = look(w->path); /* before it is read: what changes meanwhile is read again */
    int rc = w->kind == IPC_FILE_CERTIFICATE ? certificates_only(w->path, &fd, &err)
                                             : copy_to_memory(w->path, w->max_bytes, &fd, &err);
    if (rc == 0) {
        f = add_file(l, w->kind, w->name, w->path);
        if (!f) {
            rc = err_set(&err, ERR_LIMIT, "too many files");
            close(fd);
        }
    }
    if (rc < 0) {
        mistake(l, w->place, err.text);
        return -1;
    }
    f->fd = fd;
    f->roles = w->roles;
    f->detail = w->detail;
    f->seen = seen;
    f->fresh_offset = true;
    return fd;
}

/* The roles would find out, too, but then it would be too late to change nothing. */
static void check_pair(struct loading *l, const struct conf_server *server, int certificate_fd, int key_fd)
{
    const char *key_file = server->key ? server->key : server->certificate;
    struct certificate *certificate = NULL;
    struct evp_pkey_st *key = NULL;
    struct err err = { 0 };
    struct buf pem;
    buf_init(&pem, CERTIFICATE_FILE_MAX);
    int rc = certificate_read_fd(certificate_fd, server->certificate, &pem, &err);
    if (rc == 0)
        rc = certificate_load(buf_str(&pem), server->certificate, &certificate, &err);
    if (rc == 0)
        rc = certificate_key_load_fd(key_fd, key_file, &key, &err);
    if (rc == 0)
        rc = certificate_key_matches(certificate, server->certificate, key, key_file, &err);
    if (rc < 0)
        mistake(l, &server->place, err.text);
    buf_wipe(&pem);
    certificate_key_free(&key);
    certificate_free(&certificate);
}

static int open_append(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

static void open_log_file(struct loading *l, const struct conf_place *place, enum ipc_file_kind kind,
                          const char *name, const char *path)
{
    if (!path)
        return;
    int fd = open_append(path);
    if (fd < 0) {
        struct err err;
        err_errno(&err, errno, "cannot open the log %s", path);
        mistake(l, place, err.text);
        return;
    }
    struct snapshot_file *f = add_file(l, kind, name, path);
    if (!f) {
        close(fd);
        return;
    }
    f->fd = fd;
    f->roles = ROLE_BIT(ROLE_SMTPD) | (kind == IPC_FILE_PROTOCOL_LOG ? ROLE_BIT(ROLE_DELIVERY) : 0);
}

static int borrowed_listener(const struct snapshot *previous, const struct snapshot_file *like)
{
    for (size_t i = 0; previous && i < previous->n_files; i++) {
        const struct snapshot_file *f = &previous->file[i];
        if (f->kind == IPC_FILE_LISTENER && f->only_index == like->only_index && strcmp(f->text, like->text) == 0)
            return fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
    }
    return -1;
}

static bool already_open(const struct loading *l, const char *address)
{
    for (size_t i = 0; i < l->snapshot->n_files; i++)
        if (l->snapshot->file[i].kind == IPC_FILE_LISTENER && strcmp(l->snapshot->file[i].text, address) == 0)
            return true;
    return false;
}

static void load_listeners(struct loading *l, const struct snapshot *previous, const struct conf_server *server,
                           const struct conf_strings *addresses, enum conf_listener_kind kind)
{
    for (size_t i = 0; i < addresses->n; i++) {
        if (already_open(l, addresses->item[i]))
            continue; /* a virtual server before this one: SNI chooses between them */
        for (unsigned p = 0; p < l->snapshot->smtpd_processes; p++) {
            struct snapshot_file *f = add_file(l, IPC_FILE_LISTENER, server->name, addresses->item[i]);
            if (!f) {
                mistake(l, &server->place, "too many listeners");
                return;
            }
            f->detail = (uint8_t)kind;
            f->roles = ROLE_BIT(ROLE_SMTPD);
            f->only_index = (int)p;
            f->fd = borrowed_listener(previous, f);
            struct err err = { 0 };
            if (f->fd < 0 && listen_open(addresses->item[i], &f->fd, &err) < 0) {
                mistake(l, &server->place, err.text);
                return;
            }
        }
    }
}

static unsigned count_smtpd(const struct conf *conf)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = conf->smtpd_processes ? conf->smtpd_processes : cores > 0 ? (unsigned)cores : 1;
    return n < SHARED_PROCESSES_MAX ? n : SHARED_PROCESSES_MAX;
}

static void load_keytab(struct loading *l, const struct conf_place *place, enum ipc_keytab whose, const char *name,
                        const char *path)
{
    struct wanted w = { .place = place, .kind = IPC_FILE_KEYTAB, .name = name, .path = path,
                        .max_bytes = KEYTAB_MAX_BYTES, .roles = ROLE_BIT(ROLE_AUTH), .detail = (uint8_t)whose };
    load_file(l, &w);
}

static void load_server(struct loading *l, const struct snapshot *previous, size_t index)
{
    const struct conf_server *server = &l->snapshot->conf->server[index];
    struct wanted w = { .place = &server->place, .kind = IPC_FILE_CERTIFICATE, .name = server->name,
                        .path = server->certificate, .max_bytes = CERTIFICATE_MAX_BYTES,
                        .roles = ROLE_BIT(ROLE_SMTPD) | ROLE_BIT(ROLE_KEYS) };
    int certificate_fd = load_file(l, &w);
    if (server->certificate) {
        w.kind = IPC_FILE_KEY;
        w.path = server->key ? server->key : server->certificate;
        w.roles = ROLE_BIT(ROLE_KEYS);
        int key_fd = load_file(l, &w);
        if (certificate_fd >= 0 && key_fd >= 0)
            check_pair(l, server, certificate_fd, key_fd);
    }
    load_keytab(l, &server->place, IPC_KEYTAB_SERVER, server->name, server->keytab);
    open_log_file(l, &server->place, IPC_FILE_PROTOCOL_LOG, server->name, server->protocol_log);
    load_listeners(l, previous, server, &server->listen, CONF_LISTEN);
    load_listeners(l, previous, server, &server->submission, CONF_SUBMISSION);
    load_listeners(l, previous, server, &server->submissions, CONF_SUBMISSIONS);
}

static void load_domain(struct loading *l, const struct conf_domain *domain)
{
    struct wanted w = { .place = &domain->place, .kind = IPC_FILE_PASSWORD, .name = domain->name,
                        .path = domain->password_file, .max_bytes = PASSWORD_MAX_BYTES,
                        .roles = ROLE_BIT(ROLE_AUTH) };
    load_file(l, &w);
    load_keytab(l, &domain->place, IPC_KEYTAB_DOMAIN, domain->name, domain->keytab);
    if (domain->deliver && domain->recipients && domain->recipients[0] == '/') {
        w.kind = IPC_FILE_RECIPIENTS;
        w.path = domain->recipients;
        w.max_bytes = RECIPIENTS_MAX_BYTES;
        w.roles = ROLE_BIT(ROLE_SMTPD) | ROLE_BIT(ROLE_QUEUE);
        load_file(l, &w);
    }
}

static void load_identities(struct loading *l)
{
    const struct conf *conf = l->snapshot->conf;
    for (size_t i = 0; i < conf->n_directories; i++) {
        const struct conf_directory *directory = &conf->directory[i];
        struct wanted w = { .place = &directory->place, .kind = IPC_FILE_BIND_PASSWORD, .name = directory->realm,
                            .path = directory->password_file, .max_bytes = PASSWORD_MAX_BYTES,
                            .roles = ROLE_BIT(ROLE_AUTH) };
        load_file(l, &w);
        load_keytab(l, &directory->place, IPC_KEYTAB_DIRECTORY, directory->realm, directory->keytab);
    }
    for (size_t i = 0; i < conf->n_identities; i++) {
        struct wanted w = { .place = &conf->identity[i].place, .kind = IPC_FILE_IDENTITY,
                            .name = conf->identity[i].name, .path = conf->identity[i].table,
                            .max_bytes = TABLE_MAX_BYTES, .roles = ROLE_BIT(ROLE_AUTH) };
        load_file(l, &w);
    }
}

static int store_bundle(struct snapshot *snapshot, const struct buf *bundle, struct err *err)
{
    int fd = memfd_create("postern-conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a file in memory for the configuration");
    for (size_t done = 0; done < bundle->n;) {
        ssize_t n = write(fd, bundle->p + done, bundle->n - done);
        if (n < 0) {
            int saved = errno;
            close(fd);
            return err_errno(err, saved, "cannot copy the configuration");
        }
        done += (size_t)n;
    }
    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    snapshot->bundle_fd = fd;
    return 0;
}

static int load_conf(const char *path, struct snapshot *snapshot, struct buf *mistakes_text, struct err *err)
{
    struct conf_mistakes mistakes;
    struct buf bundle;
    conf_mistakes_init(&mistakes);
    buf_init(&bundle, CONF_BUNDLE_MAX);
    int rc = conf_bundle_write(path, &bundle, &mistakes, &snapshot->conf, err);
    if (rc == 0)
        rc = store_bundle(snapshot, &bundle, err);
    conf_mistakes_print(&mistakes, false, mistakes_text);
    buf_done(&bundle);
    conf_mistakes_done(&mistakes);
    return rc;
}

int snapshot_load(const char *path, uint64_t generation, const struct snapshot *previous, struct snapshot **ret_snapshot,
                  struct buf *mistakes, struct err *err)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (s)
        s->file = calloc(SNAPSHOT_FILES_MAX, sizeof *s->file);
    if (!s || !s->file) {
        free(s);
        return err_set(err, -ENOMEM, "out of memory for the configuration");
    }
    s->bundle_fd = -1;
    s->generation = generation;
    int rc = load_conf(path, s, mistakes, err);
    if (rc == 0) {
        struct loading l = { s, mistakes };
        const struct conf *conf = s->conf;
        conf_set_generation(conf, generation);
        static const struct conf_place nowhere = { NULL, 0 };
        struct conf_place top = conf->file ? (struct conf_place){ conf->file, 0 } : nowhere;
        s->smtpd_processes = previous ? previous->smtpd_processes : count_smtpd(conf);
        for (size_t i = 0; i < conf->n_servers; i++)
            load_server(&l, previous, i);
        for (size_t i = 0; i < conf->n_domains; i++)
            load_domain(&l, &conf->domain[i]);
        load_identities(&l);
        struct wanted ca = { .place = &top, .kind = IPC_FILE_CA, .name = "", .path = conf->ca_file,
                             .max_bytes = ANCHORS_MAX_BYTES, .roles = ROLE_BIT(ROLE_DELIVERY) };
        load_file(&l, &ca);
        open_log_file(&l, &top, IPC_FILE_SESSION_LOG, "", conf->session_log);
        if (mistakes->n)
            rc = err_set(err, ERR_CONFIG, "%s cannot be used", path);
    }
    if (rc < 0) {
        snapshot_free(&s);
        return rc;
    }
    *ret_snapshot = s;
    return 0;
}

void snapshot_refresh_keytabs(struct snapshot *s,
                              void (*changed)(void *arg, const struct snapshot_file *file, const struct err *err),
                              void *arg)
{
    for (size_t i = 0; i < s->n_files; i++) {
        struct snapshot_file *f = &s->file[i];
        if (f->kind != IPC_FILE_KEYTAB)
            continue;
        struct snapshot_seen now = look(f->text);
        if (same_look(&now, &f->seen) && !f->failed)
            continue;
        struct err err = { 0 };
        int fd = -1;
        if (copy_to_memory(f->text, KEYTAB_MAX_BYTES, &fd, &err) < 0) {
            if (!f->failed)
                changed(arg, f, &err);
            f->failed = true;
            continue;
        }
        close(f->fd);
        f->fd = fd;
        f->seen = now;
        f->failed = false;
        changed(arg, f, NULL);
    }
}

void snapshot_reopen_logs(struct snapshot *s)
{
    for (size_t i = 0; i < s->n_files; i++) {
        struct snapshot_file *f = &s->file[i];
        if (f->kind != IPC_FILE_PROTOCOL_LOG && f->kind != IPC_FILE_SESSION_LOG)
            continue;
        int fd = open_append(f->text);
        if (fd < 0)
            continue; /* the old one still takes lines */
        close(f->fd);
        f->fd = fd;
    }
}

void snapshot_free(struct snapshot **snapshot)
{
    struct snapshot *s = *snapshot;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_files; i++) {
        if (s->file[i].fd >= 0)
            close(s->file[i].fd);
        free(s->file[i].name);
        free(s->file[i].text);
    }
    if (s->bundle_fd >= 0)
        close(s->bundle_fd);
    conf_unref(&s->conf);
    free(s->file);
    free(s);
    *snapshot = NULL;
}
