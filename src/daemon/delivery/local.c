/* Jobs that need no connection. "discard" ends at once; "maildir:" goes to a thread, which writes one file a
 * recipient, and comes back with the outcomes. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/delivery/delivery.h"
#include "daemon/delivery/maildir.h"

enum { PATH_BYTES = 4000, WHY_BYTES = 600 };

struct mailbox {
    char *path;              /* NULL: `outcome` is settled */
    struct outcome outcome;
    char why[WHY_BYTES];
};

struct maildir_job {
    struct worker_job work;
    struct job *job;
    size_t prefix_at;        /* of the trace headers */
    size_t n;
    struct mailbox box[];
};

static const struct way maildir_way = { .program = "local", .relay = "local" };

static ssize_t read_message(void *arg, void *p, size_t n, struct err *err)
{
    struct maildir_job *m = arg;
    struct str prefix = str_skip(spool_reader_prefix(m->job->reader), m->prefix_at);
    if (prefix.n == 0)
        return spool_reader_read(m->job->reader, p, n, err);
    if (n > prefix.n)
        n = prefix.n;
    memcpy(p, prefix.p, n);
    m->prefix_at += n;
    return (ssize_t)n;
}

static void add_header(struct buf *b, const char *name, struct str value, bool brackets)
{
    buf_addf(b, "%s: %s", name, brackets ? "<" : "");
    for (size_t i = 0; i < value.n; i++)
        buf_add_char(b, (unsigned char)value.p[i] < ' ' || value.p[i] == 127 ? '?' : value.p[i]);
    buf_add_c(b, brackets ? ">\n" : "\n");
}

static void settle(struct mailbox *box, enum ipc_status status, const char *dsn, const char *text)
{
    if (text != box->why)
        str_copy(str_slice(text, strnlen(text, WHY_BYTES - 1)), box->why, sizeof box->why);
    box->outcome = (struct outcome){ .status = status, .reply = str_of(box->why) };
    str_copy(str_of(dsn), box->outcome.dsn, sizeof box->outcome.dsn);
}

static void write_one(struct maildir_job *m, size_t i)
{
    struct mailbox *box = &m->box[i];
    struct err err = { 0 };
    struct buf header;
    buf_init(&header, 8192);
    add_header(&header, "Return-Path", spool_reader_envelope(m->job->reader)->reverse_path, true);
    add_header(&header, "Delivered-To", job_recipient(m->job, i)->address, false);
    m->prefix_at = 0;
    spool_reader_rewind(m->job->reader);
    struct maildir_source source = { read_message, m };
    int rc = maildir_write(box->path, m->job->qid, buf_str(&header), &source, &err);
    buf_done(&header);
    if (rc == 0)
        settle(box, IPC_STATUS_SENT, "2.0.0", "250 2.0.0 delivered to maildir");
    else
        settle(box, IPC_STATUS_DEFERRED, rc == -EDQUOT ? "4.2.2" : rc == -ENOSPC ? "4.3.1" : "4.3.0", err_text(&err));
}

static void work(struct worker_job *work)
{
    struct maildir_job *m = (struct maildir_job *)work;
    for (size_t i = 0; i < m->n; i++)
        if (m->box[i].path)
            write_one(m, i);
}

static void finish(struct maildir_job *m)
{
    struct outcome *outcome = calloc(m->n, sizeof *outcome);
    struct outcome memory = { .status = IPC_STATUS_DEFERRED, .dsn = "4.3.0", .reply = STR("out of memory") };
    for (size_t i = 0; outcome && i < m->n; i++)
        outcome[i] = m->box[i].outcome;
    job_finish(m->job, &maildir_way, outcome ? outcome : &memory, outcome ? m->n : 1);
    for (size_t i = 0; i < m->n; i++)
        free(m->box[i].path);
    free(outcome);
    free(m);
}

static void done(struct worker_job *work)
{
    finish((struct maildir_job *)work);
}

static void choose_paths(struct maildir_job *m, const char *pattern)
{
    for (size_t i = 0; i < m->n; i++) {
        struct buf path;
        const char *why;
        buf_init(&path, PATH_BYTES);
        if (!maildir_path(pattern, job_recipient(m->job, i)->address, str_of(m->job->next_hop), &path, &why))
            settle(&m->box[i], IPC_STATUS_BOUNCED, "5.1.3", why);
        else if (!(m->box[i].path = str_dup(buf_str(&path))))
            settle(&m->box[i], IPC_STATUS_DEFERRED, "4.3.0", "out of memory");
        buf_done(&path);
    }
}

static void to_maildir(struct job *job, const char *pattern)
{
    struct maildir_job *m = calloc(1, sizeof *m + job->n_recipients * sizeof m->box[0]);
    if (!m) {
        struct outcome memory = { .status = IPC_STATUS_DEFERRED, .dsn = "4.3.0", .reply = STR("out of memory") };
        job_finish(job, &maildir_way, &memory, 1);
        return;
    }
    m->work.work = work;
    m->work.done = done;
    m->job = job;
    m->n = job->n_recipients;
    job->setup_ms = job->ready_ms = loop_now_ms(job->delivery->ctx->loop);
    choose_paths(m, pattern);
    if (worker_submit(job->delivery->workers, &m->work) == 0)
        return;
    for (size_t i = 0; i < m->n; i++)
        if (m->box[i].path)
            settle(&m->box[i], IPC_STATUS_DEFERRED, "4.3.2", "too many deliveries wait for the disk");
    finish(m);
}

void local_deliver(struct job *job)
{
    const char *deliver = job->block->deliver;
    if (!job_open(job))
        return;
    if (str_starts(str_of(deliver), STR("maildir:"))) {
        to_maildir(job, deliver + strlen("maildir:"));
        return;
    }
    struct outcome outcome = { .status = IPC_STATUS_SENT, .dsn = "2.0.0", .reply = STR("250 2.0.0 discarded") };
    if (strcmp(deliver, "discard") != 0)
        outcome = (struct outcome){ .status = IPC_STATUS_DEFERRED, .dsn = "4.3.5", .reply = STR("this way to deliver is not known") };
    job_finish(job, &(struct way){ .program = "discard" }, &outcome, 1);
}
