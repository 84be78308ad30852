#include "daemon/master/rotate.h"

#include <dirent.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

enum { DAY_MS = 86400000, DATE_BYTES = 10 };

static void date_of(int64_t wall_ms, char ret_date[DATE_BYTES + 1])
{
    char text[CLOCK_TEXT_BYTES];
    clock_rfc3339(wall_ms, text);
    str_copy(str_slice(text, DATE_BYTES), ret_date, DATE_BYTES + 1);
}

/* Dates in this form sort as text. */
static void remove_older(const char *folder, const char *name, const char *oldest_date)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        struct str entry = str_of(e->d_name), base = str_of(name);
        if (entry.n != base.n + 1 + DATE_BYTES || !str_starts(entry, base) || entry.p[base.n] != '.')
            continue;
        const char *date = e->d_name + base.n + 1;
        if (date[4] == '-' && date[7] == '-' && strcmp(date, oldest_date) < 0)
            unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
}

void rotate_by_day(const char *path, uint32_t keep_days, int64_t now_wall_ms)
{
    char date[DATE_BYTES + 1], oldest[DATE_BYTES + 1], to[4096], folder[4096];
    date_of(now_wall_ms - DAY_MS, date);
    int n = snprintf(to, sizeof to, "%s.%s", path, date);
    if (n < 0 || (size_t)n >= sizeof to)
        return;
    if (access(to, F_OK) != 0)
        rename(path, to);
    const char *slash = strrchr(path, '/');
    if (!slash || !str_copy(str_slice(path, (size_t)(slash - path)), folder, sizeof folder))
        return;
    date_of(now_wall_ms - (int64_t)keep_days * DAY_MS, oldest);
    remove_older(folder[0] ? folder : "/", slash + 1, oldest);
}
