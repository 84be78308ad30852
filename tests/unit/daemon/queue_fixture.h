/* What tests of the queue's rooms stand on: a loop, a configuration, a log that can be read, a real writer with one
 * segment, and a queue around them. The rooms that are not under test (settle.c, intake.c, queue.c) are fakes here, so a
 * test program must not use their real functions. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/load.h"
#include "daemon/queue/queue.h"
#include "spool/record.h"
#include "spool/scan.h"

struct fixture {
    struct queue q;
    struct role_ctx ctx;
    char folder[64], log_path[128], drop_path[128];
    struct spool_page *page;
    int segment_fd;
    struct spool_lent segment;
    unsigned woken, told_paused, deleted, held, released, retried;
    bool refuse_delete, refuse_read;
};
static struct fixture f;

/* ---- fakes ---- */

void queue_wake(struct queue *q)
{
    f.woken++;
}
int64_t queue_mono_of(int64_t wall_ms)
{
    return wall_ms - 1000000;
}
int64_t queue_wall_of(int64_t mono_ms)
{
    return mono_ms + 1000000;
}
void intake_tell_paused(struct queue *q)
{
    f.told_paused++;
}
bool settle_delete(struct queue *q, struct spool_entry *entry)
{
    if (f.refuse_delete)
        return false;
    f.deleted++;
    while (entry->parts)
        spool_schedule_drop_part(q->schedule, entry->parts);
    spool_schedule_remove(q->schedule, entry);
    return true;
}
void settle_hold(struct queue *q, struct spool_entry *entry, bool hold)
{
    *(hold ? &f.held : &f.released) += 1;
    entry->flags = (uint8_t)(hold ? entry->flags | SPOOL_ENTRY_HELD : entry->flags & ~SPOOL_ENTRY_HELD);
}
void settle_retry_now(struct queue *q, struct spool_entry *entry)
{
    f.retried++;
}
struct spool_segment *queue_segment_of(struct queue *q, const struct spool_entry *entry)
{
    return NULL;
}
int queue_read(struct queue *q, const struct spool_entry *entry, struct spool_reader **ret_reader, struct err *err)
{
    if (f.refuse_read)
        return err_set(err, ERR_CORRUPT, "this record is damaged");
    struct spool_place place = { f.segment.number, f.segment.generation, entry->offset, entry->length };
    return spool_reader_open(&spool_disk_system, f.segment_fd, &place, -1, ret_reader, err);
}

/* ---- the spool ---- */

struct found {
    uint64_t id;
    uint32_t offset, length;
};
static int keep_found(void *arg, const struct spool_record *r, struct str meta, struct str content)
{
    struct found *found = arg;
    if (found->id == 0 || found->id == r->id)
        *found = (struct found){ found->id, r->offset, r->length };
    return 0;
}

/* The record of this id; 0: the last one. False: there is none. */
static bool find_record(uint64_t id, struct spool_entry *ret)
{
    struct spool_scan scan;
    struct found found = { .id = id };
    spool_scan_init(&scan, &spool_disk_system, f.segment_fd, f.segment.number, f.segment.generation, SPOOL_BLOCK_BYTES);
    assert_int_equal(spool_scan_to(&scan, f.segment.size_bytes, keep_found, &found, NULL), 0);
    spool_scan_done(&scan);
    *ret = (struct spool_entry){ .id = id, .offset = found.offset, .length = found.length };
    return found.length != 0;
}

static struct spool_reader *read_record(uint64_t id)
{
    struct spool_entry entry;
    struct spool_reader *reader = NULL;
    struct err err = { 0 };
    assert_true(find_record(id, &entry));
    assert_int_equal(queue_read(&f.q, &entry, &reader, &err), 0);
    return reader;
}

/* The whole of it as text, NUL behind it; to be freed. */
static char *read_text(struct spool_reader *reader)
{
    struct str prefix = spool_reader_prefix(reader);
    size_t n = prefix.n + (size_t)spool_reader_body_bytes(reader), at = prefix.n;
    char *text = calloc(1, n + 1);
    memcpy(text, prefix.p, prefix.n);
    for (ssize_t got; (got = spool_reader_read(reader, text + at, n - at, NULL)) > 0;)
        at += (size_t)got;
    assert_int_equal(at, n);
    return text;
}

static uint64_t messages_durable(void)
{
    return atomic_load(&f.page->messages);
}

static void spool_event(void *arg, const struct spool_lent *lent)
{
}
static void spool_failed(void *arg, const struct err *why)
{
    fail_msg("the spool failed: %s", err_text(why));
}

/* ---- log ---- */

static bool logged(const char *text)
{
    log_flush(f.ctx.log);
    struct buf b;
    buf_init(&b, 1 << 20);
    int fd = open(f.log_path, O_RDONLY);
    assert_int_equal(role_read_file(fd, &b, NULL), 0);
    close(fd);
    bool found = b.n && memmem(b.p, b.n, text, strlen(text)) != NULL;
    buf_done(&b);
    return found;
}

/* ---- life ---- */

static const struct conf *fixture_conf(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/postern.conf", f.folder);
    FILE *file = fopen(path, "w");
    fprintf(file, "spool = \"%s/spool\"\nusers = \"%s/users.db\"\nkeys = \"%s/keys\"\ndrop = \"%s\"\nmax_message_size = 200000\n"
                  "max_recipients = 5\nmax_hops = 10\ntext_line_max = 2000\n"
                  "server \"mx.corp.test\" { listen = {\"127.0.0.1:1\"} }\n"
                  "domain \"corp.test\" { deliver = \"maildir:%s/%%u\" recipients = \"any\" }\n"
                  "domain \"remote.test\" { via = \"host\" }\n",
            f.folder, f.folder, f.folder, f.drop_path, f.folder);
    fclose(file);
    struct conf_mistakes mistakes;
    const struct conf *conf = NULL;
    conf_mistakes_init(&mistakes);
    int rc = conf_load_file(path, &mistakes, &conf, NULL);
    for (size_t i = 0; rc < 0 && i < mistakes.n; i++)
        fprintf(stderr, "%u: %s\n", mistakes.item[i].line, mistakes.item[i].text);
    assert_int_equal(rc, 0);
    conf_mistakes_done(&mistakes);
    unlink(path);
    return conf;
}

static void fixture_open(void)
{
    static const struct spool_writer_handlers handlers = { .segment_done = spool_event, .body_done = spool_event,
                                                           .body_taken = spool_event, .failed = spool_failed };
    memset(&f, 0, sizeof f);
    struct err err = { 0 };
    snprintf(f.folder, sizeof f.folder, "/tmp/postern-queue-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.log_path, sizeof f.log_path, "%s/log", f.folder);
    snprintf(f.drop_path, sizeof f.drop_path, "%s/drop", f.folder);
    assert_int_equal(mkdir(f.drop_path, 0700), 0);
    assert_int_equal(loop_new(&f.ctx.loop, &err), 0);
    struct log_options options = { .to = f.log_path, .level = LOG_LEVEL_INFO };
    assert_int_equal(log_open_destination(f.log_path, &options.fd, &err), 0);
    assert_int_equal(log_new(f.ctx.loop, "qmgr", &options, &f.ctx.log, &err), 0);
    f.ctx.conf = fixture_conf();
    int fd = spool_page_create();
    f.page = spool_page_map(fd);
    close(fd);
    fd = open(f.folder, O_TMPFILE | O_RDWR, 0600);
    assert_true(fd >= 0 && ftruncate(fd, SPOOL_SEGMENT_MIN_BYTES) == 0);
    f.segment_fd = fd;
    f.segment = (struct spool_lent){ 1, 0x1234567890abcdef, SPOOL_SEGMENT_MIN_BYTES };
    f.q = (struct queue){ .ctx = &f.ctx, .schedule = spool_schedule_new(), .scanned = true };
    assert_int_equal(spool_writer_new(f.ctx.loop, &spool_disk_system, f.page, -1, &handlers, NULL, &f.q.own, &err), 0);
    assert_int_equal(spool_writer_lend_segment(f.q.own, &f.segment, dup(fd), &err), 0);
}

static void fixture_close(void)
{
    spool_writer_free(&f.q.own);
    spool_schedule_free(&f.q.schedule);
    log_free(&f.ctx.log);
    loop_free(&f.ctx.loop);
    conf_unref(&f.ctx.conf);
    spool_page_unmap(f.page);
    close(f.segment_fd);
    unlink(f.log_path);
    assert_int_equal(rmdir(f.drop_path), 0);
    rmdir(f.folder);
}
