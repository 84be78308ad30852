#include "daemon/delivery/maildir.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/now.h"
#include "smtp/header.h"
#include "smtp/address.h"

enum { CHUNK_BYTES = 64 * 1024, PATH_MAX_BYTES = 4000, NAME_BYTES = 256 };

static bool component_fits(struct str s, size_t max, const char **ret_why, const char *what_empty, const char *what_bad)
{
    *ret_why = what_empty;
    if (s.n == 0)
        return false;
    *ret_why = what_bad;
    return s.n <= max && s.p[0] != '.' && !memchr(s.p, '/', s.n) && !memchr(s.p, 0, s.n);
}

static bool lower_into(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        buf_add_char(b, ascii_lower(s.p[i]));
    return !b->failed;
}

/* The local part without quotes, and the domain, both in lower case. */
static bool split(struct str address, struct str domain, struct buf *local, struct buf *ret_domain)
{
    size_t at = address.n;
    while (at > 0 && address.p[at - 1] != '@')
        at--;
    struct smtp_address a = { .local = at ? str_slice(address.p, at - 1) : address };
    if (at && str_skip(address, at).n)
        domain = str_skip(address, at);
    struct buf plain;
    buf_init(&plain, 2048);
    bool ok = smtp_address_local_plain(&a, &plain) && lower_into(local, buf_str(&plain)) && lower_into(ret_domain, domain);
    buf_done(&plain);
    return ok;
}

bool maildir_path(const char *pattern, struct str address, struct str domain, struct buf *ret_path, const char **ret_why)
{
    struct buf local, lower_domain;
    buf_init(&local, 2048);
    buf_init(&lower_domain, 2048);
    *ret_why = "the address cannot be taken apart";
    bool ok = split(address, domain, &local, &lower_domain) &&
              component_fits(buf_str(&local), MAILDIR_LOCAL_MAX_BYTES, ret_why, "the local part is empty",
                             "the local part begins with a dot, holds a slash or is too long for a mailbox") &&
              component_fits(buf_str(&lower_domain), MAILDIR_LOCAL_MAX_BYTES + 55, ret_why, "the domain is empty",
                             "the domain cannot name a mailbox");
    for (const char *p = pattern; ok && *p; p++) {
        if (*p != '%') {
            buf_add_char(ret_path, *p);
            continue;
        }
        p++;
        if (*p == 'u' || *p == 'a')
            buf_add(ret_path, buf_str(&local));
        if (*p == 'a')
            buf_add_char(ret_path, '@');
        if (*p == 'd' || *p == 'a')
            buf_add(ret_path, buf_str(&lower_domain));
        if (*p == '%')
            buf_add_char(ret_path, '%');
        if (!*p)
            break;
    }
    if (ok && ret_path->failed) {
        *ret_why = "the mailbox's path is too long";
        ok = false;
    }
    buf_done(&local);
    buf_done(&lower_domain);
    return ok;
}

bool maildir_root(const char *pattern, struct buf *ret_path)
{
    size_t n = strcspn(pattern, "%");
    while (n > 0 && pattern[n - 1] == '/' && !pattern[n])
        n--;
    while (n > 0 && pattern[n - 1] != '/')
        n--;
    while (n > 1 && pattern[n - 1] == '/')
        n--;
    return n > 0 && buf_add(ret_path, str_slice(pattern, n));
}

static int sync_folder(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) != 0 ? err_errno(err, errno, "cannot sync the folder %s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int make_one(char *path, struct err *err)
{
    if (mkdir(path, 0700) != 0)
        return errno == EEXIST ? 0 : err_errno(err, errno, "cannot make the folder %s", path);
    /* A folder that a crash takes away would take the mail with it. */
    char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return 0;
    *slash = 0;
    int rc = sync_folder(path, err);
    *slash = '/';
    return rc == -EACCES ? 0 : rc; /* a parent that is only searchable is not ours to sync */
}

/* The folder and what is missing above it. */
static int make_folder(const char *path, struct err *err)
{
    char part[PATH_MAX_BYTES + 16];
    if (!str_copy(str_of(path), part, sizeof part))
        return err_set(err, -ENAMETOOLONG, "the path %.100s… is too long", path);
    int rc = make_one(part, err);
    if (rc != -ENOENT)
        return rc;
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        rc = access(part, F_OK) == 0 ? 0 : make_one(part, err);
        *slash = '/';
        if (rc < 0)
            return rc;
    }
    return make_one(part, err);
}

static int make_maildir(const char *path, struct err *err)
{
    static const char *const part[] = { "", "/tmp", "/new", "/cur" };
    char name[PATH_MAX_BYTES + 16];
    int rc = 0;
    for (size_t i = 0; i < sizeof part / sizeof part[0] && rc == 0; i++) {
        snprintf(name, sizeof name, "%s%s", path, part[i]);
        rc = make_folder(name, err);
    }
    return rc;
}

/* "1700000000.M123456P42Q7.QID.host": no two deliveries share one. */
static void unique_name(const char *tag, char ret_name[NAME_BYTES])
{
    static atomic_uint counter;
    static _Thread_local char host[65];
    if (!host[0]) {
        if (gethostname(host, sizeof host - 1) != 0 || !host[0])
            str_copy(STR("localhost"), host, sizeof host);
        for (char *p = host; *p; p++)
            if (*p == '/' || *p == ':')
                *p = '_';
    }
    int64_t wall_ms = now_wall_ms();
    snprintf(ret_name, NAME_BYTES, "%lld.M%lldP%dQ%u.%s.%s", (long long)(wall_ms / 1000),
             (long long)(wall_ms % 1000 * 1000 + now_mono_us() % 1000), (int)getpid(), atomic_fetch_add(&counter, 1), tag,
             host);
}

/* CRLF to LF; `out` holds n + 1 octets. A CR at the end waits in *cr for what follows. */
static size_t to_lf(const char *in, size_t n, char *out, bool *cr)
{
    size_t at = 0, to = 0;
    while (at < n) {
        if (*cr && in[at] != '\n')
            out[to++] = '\r';
        const char *found = memchr(in + at, '\r', n - at);
        size_t plain = found ? (size_t)(found - in) - at : n - at;
        memcpy(out + to, in + at, plain);
        to += plain;
        at += plain + (found ? 1 : 0);
        *cr = found != NULL;
    }
    return to;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Writes a piece of the content with LF, without a Return-Path that somebody else has put in (RFC 5321 section 4.4). */
static int write_piece(int fd, struct smtp_header *scan, struct str piece, char *out, bool *cr)
{
    int rc = 0;
    while (piece.n && rc == 0) {
        size_t used = piece.n;
        struct str keep = scan->done ? piece : smtp_header_feed(scan, piece, &used);
        rc = write_all(fd, out, to_lf(keep.p, keep.n, out, cr));
        piece = str_skip(piece, used);
    }
    return rc;
}

static int write_content(int fd, struct str header, const struct maildir_source *source, struct err *err)
{
    static const struct str ours[] = { { "Return-Path", 11 } };
    char *chunk = malloc(2 * CHUNK_BYTES + 1);
    if (!chunk)
        return err_set(err, -ENOMEM, "out of memory");
    char *out = chunk + CHUNK_BYTES;
    bool cr = false;
    ssize_t n = 1;
    struct smtp_header scan;
    smtp_header_init(&scan, ours, 1);
    int rc = write_all(fd, header.p, header.n);
    while (rc == 0 && n > 0) {
        n = source->read(source->arg, chunk, CHUNK_BYTES, err);
        if (n > 0)
            rc = write_piece(fd, &scan, str_slice(chunk, (size_t)n), out, &cr);
    }
    struct str held = smtp_header_end(&scan);
    if (rc == 0 && n == 0)
        rc = write_all(fd, out, to_lf(held.p, held.n, out, &cr));
    if (rc == 0 && n == 0 && cr)
        rc = write_all(fd, "\r", 1);
    free(chunk);
    if (n < 0)
        return (int)n;
    return rc < 0 ? err_errno(err, -rc, "cannot write the message") : 0;
}

static int put_into_new(const char *path, const char *tmp, const char *name, struct err *err)
{
    char target[PATH_MAX_BYTES + NAME_BYTES + 16];
    snprintf(target, sizeof target, "%s/new/%s", path, name);
    if (link(tmp, target) != 0)
        return err_errno(err, errno, "cannot link the message into %s/new", path);
    snprintf(target, sizeof target, "%s/new", path);
    int rc = sync_folder(target, err);
    if (rc < 0) {
        /* It may or may not be there after a crash; to be tried again it must not be there now. */
        snprintf(target, sizeof target, "%s/new/%s", path, name);
        unlink(target);
    }
    return rc;
}

int maildir_write(const char *path, const char *tag, struct str header, const struct maildir_source *source,
                  struct err *err)
{
    char name[NAME_BYTES], tmp[PATH_MAX_BYTES + NAME_BYTES + 16];
    if (strlen(path) > PATH_MAX_BYTES)
        return err_set(err, -ENAMETOOLONG, "the path %.100s… is too long", path);
    unique_name(tag, name);
    snprintf(tmp, sizeof tmp, "%s/tmp/%s", path, name);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        int made = make_maildir(path, err);
        if (made < 0)
            return made;
        fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    if (fd < 0)
        return err_errno(err, errno, "cannot make a file in %s/tmp", path);
    int rc = write_content(fd, header, source, err);
    if (rc == 0 && fsync(fd) != 0)
        rc = err_errno(err, errno, "cannot sync the message in %s", path);
    if (close(fd) != 0 && rc == 0)
        rc = err_errno(err, errno, "cannot close the message in %s", path);
    if (rc == 0)
        rc = put_into_new(path, tmp, name, err);
    unlink(tmp);
    return rc;
}
