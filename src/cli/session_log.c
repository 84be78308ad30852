#include "cli/session_log.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"

enum { DATE_BYTES = 10, FILES_MAX = 100000, READ_BYTES = 65536 };

struct reading {
    int64_t since_ms;
    session_log_fn *each;
    void *arg;
    struct session_log_counts *counts;
    struct buf line;
};

struct str session_log_text(const json_t *session, const char *name, size_t max)
{
    const json_t *value = json_object_get(session, name);
    if (!json_is_string(value))
        return STR_NONE;
    size_t n = json_string_length(value);
    return str_slice(json_string_value(value), n < max ? n : max);
}

static bool take_number(struct str *text, size_t digits, int low, int high, int *ret)
{
    uint64_t v;
    if (text->n < digits || !str_to_u64(str_slice(text->p, digits), (uint64_t)high, &v) || (int)v < low)
        return false;
    *ret = (int)v;
    *text = str_skip(*text, digits);
    return true;
}

static bool take_char(struct str *text, char c)
{
    if (text->n == 0 || text->p[0] != c)
        return false;
    *text = str_skip(*text, 1);
    return true;
}

static bool take_fraction(struct str *text, int *ret_ms)
{
    int scale = 100;
    *ret_ms = 0;
    if (!take_char(text, '.'))
        return true;
    if (text->n == 0 || !ascii_digit(text->p[0]))
        return false;
    for (; text->n && ascii_digit(text->p[0]); scale /= 10, *text = str_skip(*text, 1))
        *ret_ms += (text->p[0] - '0') * scale;
    return true;
}

bool session_log_time(struct str text, int64_t *ret_ms)
{
    struct tm tm = { 0 };
    int year, month, ms = 0;
    if (!take_number(&text, 4, 1970, 9999, &year) || !take_char(&text, '-') || !take_number(&text, 2, 1, 12, &month) ||
        !take_char(&text, '-') || !take_number(&text, 2, 1, 31, &tm.tm_mday))
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    if (text.n && (!take_char(&text, 'T') || !take_number(&text, 2, 0, 23, &tm.tm_hour) || !take_char(&text, ':') ||
                   !take_number(&text, 2, 0, 59, &tm.tm_min) || !take_char(&text, ':') ||
                   !take_number(&text, 2, 0, 60, &tm.tm_sec) || !take_fraction(&text, &ms) || !take_char(&text, 'Z')))
        return false;
    int day = tm.tm_mday;
    time_t seconds = timegm(&tm);
    if (text.n || tm.tm_mday != day) /* 31 February */
        return false;
    *ret_ms = (int64_t)seconds * 1000 + ms;
    return true;
}

static bool take_line(struct reading *r)
{
    int64_t time_ms;
    bool goes_on = true;
    struct str line = str_trim(buf_str(&r->line));
    if (r->line.failed) {
        r->counts->damaged++;
    } else if (line.n) {
        json_t *session = json_loadb(line.p, line.n, 0, NULL);
        if (!json_is_object(session) || !session_log_time(session_log_text(session, "time", 64), &time_ms)) {
            r->counts->damaged++;
        } else if (time_ms >= r->since_ms) {
            r->counts->sessions++;
            goes_on = r->each(r->arg, session, time_ms);
        }
        json_decref(session);
    }
    buf_clear(&r->line);
    return goes_on;
}

static bool take_octets(struct reading *r, struct str octets)
{
    while (octets.n) {
        size_t n = str_find(octets, '\n');
        if (!r->line.failed)
            buf_add(&r->line, str_slice(octets.p, n)); /* fails, and stays so to the line's end, when it is too long */
        if (n < octets.n && !take_line(r))
            return false;
        octets = str_skip(octets, n + 1);
    }
    return true;
}

static int read_fd(struct reading *r, int fd, const char *path, struct err *err)
{
    static char block[READ_BYTES];
    ssize_t n;
    r->counts->files++;
    for (;;) {
        n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (!take_octets(r, str_slice(block, (size_t)n)))
            return err_set(err, -ENOMEM, "out of memory");
    }
    if (n < 0)
        return err_errno(err, errno, "cannot read %s", path);
    return take_line(r) ? 0 : err_set(err, -ENOMEM, "out of memory"); /* a last line without its end */
}

/* A regular file that was written since; -1 with errno, or -2: nothing to read there. */
static int open_file(int folder, const char *name, int64_t since_ms, struct stat *ret_st)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -1;
    if (fstat(fd, ret_st) == 0 && S_ISREG(ret_st->st_mode) && (int64_t)ret_st->st_mtim.tv_sec * 1000 + 999 >= since_ms)
        return fd;
    close(fd);
    return -2;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names NAME.YYYY-MM-DD in the folder; these dates sort as text. */
static char **list_days(int folder, const char *name, size_t *ret_n)
{
    char **found = NULL;
    int copy = dup(folder);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    *ret_n = 0;
    if (!dir && copy >= 0)
        close(copy);
    for (struct dirent *e; dir && *ret_n < FILES_MAX && (e = readdir(dir));) {
        struct str entry = str_of(e->d_name), base = str_of(name);
        int64_t day;
        if (entry.n != base.n + 1 + DATE_BYTES || !str_starts(entry, base) || entry.p[base.n] != '.' ||
            !session_log_time(str_skip(entry, base.n + 1), &day))
            continue;
        char **grown = reallocarray(found, *ret_n + 1, sizeof *found);
        if (!grown)
            break;
        found = grown;
        found[*ret_n] = str_dup(entry);
        *ret_n += found[*ret_n] != NULL;
    }
    if (dir)
        closedir(dir);
    if (found)
        qsort(found, *ret_n, sizeof *found, by_name);
    return found;
}

/* The present file is opened first: should it be renamed to its day meanwhile, it is known by its inode. */
static int read_folder(struct reading *r, int folder, const char *name, struct err *err)
{
    struct stat now = { 0 }, st;
    size_t n;
    bool denied = false;
    int rc = 0, fd = open_file(folder, name, r->since_ms, &now);
    bool any = fd != -1;
    denied = fd == -1 && errno == EACCES;
    char **day = list_days(folder, name, &n);
    for (size_t i = 0; i < n; i++) {
        int day_fd = rc == 0 ? open_file(folder, day[i], r->since_ms, &st) : -2;
        any = any || day_fd != -1;
        denied = denied || (day_fd == -1 && errno == EACCES);
        if (day_fd >= 0 && (fd < 0 || st.st_dev != now.st_dev || st.st_ino != now.st_ino))
            rc = read_fd(r, day_fd, day[i], err);
        if (day_fd >= 0)
            close(day_fd);
        free(day[i]);
    }
    free(day);
    if (fd >= 0) {
        rc = rc == 0 ? read_fd(r, fd, name, err) : rc;
        close(fd);
    }
    if (rc == 0 && denied)
        return err_set(err, -EACCES, "may not read %s", name);
    return rc == 0 && !any ? err_set(err, ERR_ABSENT, "there is no %s", name) : rc;
}

int session_log_read(const char *path, int64_t since_ms, session_log_fn *each, void *arg,
                     struct session_log_counts *ret_counts, struct err *err)
{
    struct reading r = { .since_ms = since_ms, .each = each, .arg = arg, .counts = ret_counts };
    const char *slash = strrchr(path, '/');
    struct str above = !slash ? STR(".") : str_slice(path, slash == path ? 1 : (size_t)(slash - path));
    char *folder_name = str_dup(above);
    *ret_counts = (struct session_log_counts){ 0 };
    if (!folder_name)
        return err_set(err, -ENOMEM, "out of memory");
    int folder = open(folder_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        int rc = err_errno(err, errno, "cannot open %s", folder_name);
        free(folder_name);
        return rc == -ENOENT ? ERR_ABSENT : rc;
    }
    buf_init(&r.line, SESSION_LOG_LINE_MAX);
    int rc = read_folder(&r, folder, slash ? slash + 1 : path, err);
    if (rc < 0)
        err_wrap(err, rc, "%s", folder_name);
    buf_done(&r.line);
    close(folder);
    free(folder_name);
    return rc;
}
