/* drop: the folder where sendmail leaves messages while the daemon is down (docs/control.md). Happy path: every five
 * seconds, and at the start, the folder is read; one file after the other is checked, stored, and removed once its
 * message is durable.
 * Ways to fail: what is no message is renamed to .bad, with an event; what cannot be stored now is left for the next
 * look. A file that was stored but can be neither removed nor renamed would be stored again and again: then the folder
 * is left alone, with an event, until the queue starts anew.
 * Everything in the folder is hostile: any local user can put files there through postern-drop. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/queue/submit.h"
#include "io/now.h"
#include "smtp/address.h"

enum { LOOK_EVERY_MS = 5000, UNTIL_ABLE_MS = 500, NAMES_A_TURN = 256, COMPLAIN_EVERY_MS = 600000 };

enum taken { TAKEN_STORING, TAKEN_BAD, TAKEN_LATER };

struct drop {
    struct queue *queue;
    struct loop_timer *timer;
    DIR *dir;                  /* NULL: not in the middle of a look */
    bool storing, stuck, orphan; /* orphan: freed while a message is being stored */
    int64_t complained_ms;
    char name[NAME_MAX + 1];   /* the file that is being stored, and what it holds */
    struct buf file;
    struct str content;
    json_t *object;
    struct submit_request request;
    unsigned uid;
    struct recipients_question *question;
};

static void complain(struct drop *d, const char *what, const char *name, int saved_errno)
{
    int64_t now = now_mono_ms();
    if (d->complained_ms && now - d->complained_ms < COMPLAIN_EVERY_MS)
        return; /* the same again, every five seconds */
    d->complained_ms = now;
    log_event(d->queue->ctx->log, LOG_LEVEL_ERROR, "queue.drop.failed", "%s %s in the drop folder %s: %s", what, name,
              d->queue->ctx->conf->drop, strerror(saved_errno));
}

/* ---- one file ---- */

static bool set_aside(struct drop *d, const char *name)
{
    char aside[NAME_MAX + 1];
    int stem = (int)(strlen(name) - strlen(".mail"));
    snprintf(aside, sizeof aside, "%.*s.bad", stem, name);
    int rc = renameat2(dirfd(d->dir), name, dirfd(d->dir), aside, RENAME_NOREPLACE);
    for (unsigned i = 0; rc != 0 && errno == EEXIST && i < 8; i++) {
        unsigned random;
        now_random(&random, sizeof random);
        snprintf(aside, sizeof aside, "%.*s.%08x.bad", stem < 200 ? stem : 200, name, random);
        rc = renameat2(dirfd(d->dir), name, dirfd(d->dir), aside, RENAME_NOREPLACE);
    }
    if (rc != 0 && errno != ENOENT)
        complain(d, "cannot rename", name, errno);
    return rc == 0;
}

static bool bad(struct drop *d, const char *name, const char *why)
{
    if (!set_aside(d, name))
        return false;
    struct log_record r;
    log_begin(&r, d->queue->ctx->log, LOG_LEVEL_WARNING, "queue.drop.bad");
    log_cstr(&r, "file", name);
    log_cstr(&r, "folder", d->queue->ctx->conf->drop);
    log_cstr(&r, "text", why);
    log_end(&r);
    return true;
}

static int open_file(struct drop *d, const char *name, struct stat *ret_st, struct err *err)
{
    /* Not blocking: a FIFO must not stop the queue. */
    int fd = openat(dirfd(d->dir), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        bool for_good = errno == ELOOP || errno == EACCES || errno == EPERM || errno == ENXIO;
        int saved = errno;
        err_errno(err, saved, "it cannot be opened");
        return for_good ? ERR_DENIED : -saved;
    }
    uint64_t size_max = d->queue->ctx->conf->max_message_size + SUBMIT_LINE_MAX_BYTES;
    int rc = 0;
    if (fstat(fd, ret_st) != 0)
        rc = err_errno(err, errno, "it cannot be looked at");
    else if (!S_ISREG(ret_st->st_mode) || ret_st->st_nlink != 1)
        rc = err_set(err, ERR_DENIED, "it is no regular file with one name");
    else if (ret_st->st_size < 1 || (uint64_t)ret_st->st_size > size_max)
        rc = err_set(err, ERR_LIMIT, "it has %lld octets; 1 to %llu are allowed (max_message_size)",
                     (long long)ret_st->st_size, (unsigned long long)size_max);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int read_file(int fd, size_t n, struct buf *into, struct err *err)
{
    char *to = buf_reserve(into, n);
    if (!to)
        return err_set(err, -ENOMEM, "no memory for %zu octets", n);
    while (into->n < n) {
        ssize_t got = read(fd, to + into->n, n - into->n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, errno, "it cannot be read");
        if (got == 0)
            return err_set(err, ERR_SYNTAX, "it became shorter while it was read");
        into->n += (size_t)got;
    }
    return 0;
}

static void let_go(struct drop *d)
{
    recipients_cancel(&d->question);
    submit_request_done(&d->request);
    json_decref(d->object);
    d->object = NULL;
    buf_done(&d->file);
}

static void stored(void *arg, int exit_status, uint64_t id, const char *text);

static void store(struct drop *d)
{
    struct submit_message m = { .sender = d->request.sender, .recipient = d->request.recipient,
                                .n_recipients = d->request.n_recipients, .content = d->content, .uid = d->uid };
    submit_store(d->queue, &m, stored, d);
}

static void on_bounced(void *arg, int result)
{
    struct drop *d = arg;
    if (result < 0)
        stored(d, EX_TEMPFAIL, 0, NULL);
    else if (d->orphan || d->request.n_recipients == 0)
        stored(d, EX_OK, 0, NULL);
    else
        store(d);
}

/* sendmail has said 0 long ago: the sender is told by mail, and the others get theirs. */
static void bounce_unknown(struct drop *d, const bool *unknown)
{
    struct submit_request *r = &d->request;
    struct spool_recipient *all = calloc(r->n_recipients, sizeof *all);
    struct bounce_row *rows = calloc(r->n_recipients, sizeof *rows);
    size_t n_rows = 0, n_known = 0;
    for (size_t i = 0; i < r->n_recipients && all && rows; i++) {
        all[i].address = r->recipient[i];
        if (unknown[i])
            rows[n_rows++] = (struct bounce_row){ .recipient = (uint16_t)i, .kind = BOUNCE_FAILED, .dsn = STR("5.1.1"),
                                                  .diagnostic = STR("no such user here") };
        else
            r->recipient[n_known++] = r->recipient[i];
    }
    if (all && rows) {
        struct spool_envelope e = { .arrival_wall_ms = now_wall_ms(), .reverse_path = r->sender, .recipient = all,
                                    .n_recipients = r->n_recipients };
        r->n_recipients = n_known;
        struct log_record log;
        log_begin(&log, d->queue->ctx->log, LOG_LEVEL_NOTICE, "queue.drop.unknown");
        log_cstr(&log, "file", d->name);
        log_int(&log, "recipients", (int64_t)n_rows);
        log_str(&log, "first", rows[0].recipient < e.n_recipients ? all[rows[0].recipient].address : STR_NONE);
        log_end(&log);
        bounce_unstored(d->queue, &e, d->content, rows, n_rows, on_bounced, d);
    } else {
        stored(d, EX_TEMPFAIL, 0, NULL);
    }
    free(all);
    free(rows);
}

static void on_recipients(void *arg, enum recipients_answer answer, const bool *unknown)
{
    struct drop *d = arg;
    d->question = NULL;
    bool bad_sender = d->request.sender.n && !smtp_address_parse(d->request.sender, NULL, NULL);
    if (answer == RECIPIENTS_NOT_NOW)
        stored(d, EX_TEMPFAIL, 0, NULL);
    else if (answer == RECIPIENTS_EXIST || bad_sender) /* then store() says so */
        store(d);
    else
        bounce_unknown(d, unknown);
}

static int hand_over(struct drop *d, const char *name, struct err *err)
{
    struct str line;
    d->content = buf_str(&d->file);
    if (!str_cut(&d->content, '\n', &line) || line.n > SUBMIT_LINE_MAX_BYTES)
        return err_set(err, ERR_SYNTAX, "it does not begin with a request in one line");
    d->object = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, NULL);
    const char *verb = json_string_value(json_object_get(d->object, "verb"));
    int rc = verb && strcmp(verb, "submit") == 0 ? submit_request_read(d->object, d->queue->ctx->conf, &d->request, err)
                                                 : err_set(err, ERR_SYNTAX, "its first line is no submit request");
    if (rc == 0 && d->request.size_bytes != d->content.n)
        rc = err_set(err, ERR_SYNTAX, "it holds %zu octets of a message, its first line says %llu", d->content.n,
                     (unsigned long long)d->request.size_bytes);
    if (rc < 0)
        return rc;
    str_copy(str_of(name), d->name, sizeof d->name);
    d->question = recipients_ask(d->queue, d->request.recipient, d->request.n_recipients, on_recipients, d);
    d->storing = d->question != NULL;
    return d->question ? 0 : err_set(err, -ENOMEM, "no memory for a message");
}

static enum taken take(struct drop *d, const char *name)
{
    struct err err = { 0 };
    struct stat st;
    int fd = open_file(d, name, &st, &err);
    int rc = fd;
    if (fd >= 0) {
        buf_init(&d->file, (size_t)st.st_size);
        d->uid = st.st_uid;
        rc = read_file(fd, (size_t)st.st_size, &d->file, &err);
        close(fd);
        if (rc == 0)
            rc = hand_over(d, name, &err);
    }
    if (rc >= 0)
        return TAKEN_STORING;
    let_go(d);
    if (rc == ERR_SYNTAX || rc == ERR_LIMIT || rc == ERR_DENIED) {
        bad(d, name, err_text(&err));
        return TAKEN_BAD;
    }
    if (rc != -ENOENT)
        complain(d, "cannot take", name, rc < 0 && rc > -1000 ? -rc : EIO);
    return TAKEN_LATER;
}

/* ---- the folder ---- */

static void end_look(struct drop *d)
{
    if (d->dir)
        closedir(d->dir);
    d->dir = NULL;
    if (!d->stuck)
        loop_timer_set(d->timer, LOOK_EVERY_MS);
}

static void stored(void *arg, int exit_status, uint64_t id, const char *text)
{
    (void)id;
    struct drop *d = arg;
    d->storing = false;
    let_go(d);
    if (d->orphan) {
        free(d);
        return;
    }
    if (exit_status == EX_OK) {
        if (unlinkat(dirfd(d->dir), d->name, 0) != 0 && errno != ENOENT &&
            !bad(d, d->name, "its message was stored, but the file could not be removed")) {
            d->stuck = true;
            log_event(d->queue->ctx->log, LOG_LEVEL_ERROR, "queue.drop.stuck",
                      "%s/%s was taken but cannot be removed: %s. Remove it, give the folder's rights back and restart; "
                      "until then the drop folder is left alone",
                      d->queue->ctx->conf->drop, d->name, strerror(errno));
            end_look(d);
            return;
        }
    } else if (exit_status == EX_DATAERR) {
        bad(d, d->name, text);
    } else {
        end_look(d); /* no room now: no use in trying the others */
        return;
    }
    loop_timer_set(d->timer, 0);
}

static bool open_folder(struct drop *d)
{
    const char *path = d->queue->ctx->conf->drop;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    d->dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (d->dir)
        return true;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    if (saved != ENOENT) /* no folder: sendmail has none to use either */
        complain(d, "cannot read", path, saved);
    return false;
}

static bool is_message(const char *name)
{
    return name[0] != '.' && str_ends_nocase(str_of(name), STR(".mail")) && strcmp(name + strlen(name) - 5, ".mail") == 0;
}

static void look(void *arg)
{
    struct drop *d = arg;
    struct queue *q = d->queue;
    if (d->storing || d->stuck || q->draining)
        return;
    if (!q->scanned || !q->own || !spool_writer_can_accept(q->own)) { /* as at every start */
        loop_timer_set(d->timer, UNTIL_ABLE_MS);
        return;
    }
    if (q->paused_in || (!d->dir && !open_folder(d))) {
        end_look(d);
        return;
    }
    for (unsigned i = 0; i < NAMES_A_TURN; i++) {
        struct dirent *e = readdir(d->dir);
        if (!e) {
            end_look(d);
            return;
        }
        if (!is_message(e->d_name))
            continue;
        if (take(d, e->d_name) == TAKEN_STORING)
            return; /* stored() goes on */
        break;
    }
    loop_timer_set(d->timer, 0);
}

int drop_start(struct queue *q, struct err *err)
{
    struct drop *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(err, -ENOMEM, "no memory for the drop folder");
    d->queue = q;
    int rc = loop_timer_new(q->ctx->loop, look, d, &d->timer, err);
    if (rc < 0) {
        free(d);
        return rc;
    }
    loop_timer_set(d->timer, 0);
    q->drop = d;
    return 0;
}

void drop_free(struct queue *q)
{
    struct drop *d = q->drop;
    q->drop = NULL;
    if (!d)
        return;
    loop_timer_free(&d->timer);
    if (d->dir)
        closedir(d->dir);
    d->dir = NULL;
    d->orphan = true;
    if (d->question) { /* nothing has been stored yet */
        let_go(d);
        d->storing = false;
    }
    if (!d->storing)
        free(d);
}
