/* file: the reader that reads the file system; the only place in this room that does. */
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/load.h"

static int read_all(int fd, const char *path, struct buf *into, struct err *err)
{
    for (;;) {
        char chunk[16384];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "cannot read %s", path);
        if (!buf_add(into, str_slice(chunk, (size_t)n)))
            return err_set(err, ERR_LIMIT, "%s is larger than %zu octets", path, into->max);
    }
}

static int file_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_errno(err, errno, "cannot open %s", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) < 0)
        rc = err_errno(err, errno, "cannot look at %s", path);
    else if (S_ISDIR(st.st_mode))
        rc = err_errno(err, EISDIR, "cannot read %s", path);
    else
        rc = read_all(fd, path, into, err);
    close(fd);
    return rc;
}

static int file_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    glob_t found;
    int rc = glob(pattern, GLOB_ERR, NULL, &found);
    if (rc == GLOB_NOMATCH)
        return 0;
    if (rc != 0)
        return err_set(err, rc == GLOB_NOSPACE ? -ENOMEM : -EIO, "%s", rc == GLOB_NOSPACE ? "out of memory"
                                                                                           : "a folder cannot be read");
    for (size_t i = 0; i < found.gl_pathc; i++) {
        buf_add_c(into, found.gl_pathv[i]);
        buf_add_char(into, 0);
    }
    globfree(&found);
    return into->failed ? err_set(err, ERR_LIMIT, "too many files match") : 0;
}

static int load(const char *path, struct buf *ret_bundle, struct conf_mistakes *mistakes, const struct conf **ret_conf,
                struct err *err)
{
    char folder[PATH_MAX];
    *ret_conf = NULL;
    if (!getcwd(folder, sizeof folder)) {
        /* Only a relative path needs it. */
        if (path[0] != '/')
            return err_errno(err, errno, "cannot tell the current folder");
        folder[0] = 0;
    }
    struct conf_reader reader = { NULL, folder, file_read, file_list };
    return conf_load(&reader, path, ret_bundle, mistakes, ret_conf, err);
}

int conf_load_file(const char *path, struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err)
{
    return load(path, NULL, mistakes, ret_conf, err);
}

int conf_bundle_write(const char *path, struct buf *ret_bundle, struct conf_mistakes *mistakes,
                      const struct conf **ret_conf, struct err *err)
{
    return load(path, ret_bundle, mistakes, ret_conf, err);
}
