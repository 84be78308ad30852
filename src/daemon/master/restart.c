#include "daemon/master/restart.h"

#include <stddef.h>

/* What is opened, forked or fenced in once: sockets, logs, users, the number of processes, folders in sandboxes. */
static const struct {
    const char *name;
    size_t offset;
    enum { TEXT, NUMBER_32, NUMBER_64 } type;
} options[] = {
    { "spool", offsetof(struct conf, spool), TEXT },
    { "users", offsetof(struct conf, users), TEXT },
    { "control", offsetof(struct conf, control), TEXT },
    { "drop", offsetof(struct conf, drop), TEXT },
    { "user", offsetof(struct conf, user), TEXT },
    { "mail_owner", offsetof(struct conf, mail_owner), TEXT },
    { "log", offsetof(struct conf, log), TEXT },
    { "log_format", offsetof(struct conf, log_format), TEXT },
    { "smtpd_processes", offsetof(struct conf, smtpd_processes), NUMBER_32 },
    { "delivery_processes", offsetof(struct conf, delivery_processes), NUMBER_32 },
    { "segment_size", offsetof(struct conf, segment_size), NUMBER_64 },
};

static bool differs(const struct conf *a, const struct conf *b, size_t i)
{
    const char *x = (const char *)a + options[i].offset, *y = (const char *)b + options[i].offset;
    if (options[i].type != TEXT)
        return memcmp(x, y, options[i].type == NUMBER_32 ? sizeof(uint32_t) : sizeof(uint64_t)) != 0;
    const char *s, *t;
    memcpy(&s, x, sizeof s);
    memcpy(&t, y, sizeof t);
    return !str_eq(str_of(s), str_of(t));
}

size_t restart_needed(const struct conf *started, const struct conf *now, struct buf *ret_lines)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (!differs(started, now, i))
            continue;
        n++;
        buf_addf(ret_lines, "%s: the new value counts when posternd is started again; until then it is as before\n",
                 options[i].name);
    }
    return n;
}
