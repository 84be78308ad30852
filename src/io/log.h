/* log: what a process tells the administrator.
 *
 * Three shapes. An event has a stable name and fields (docs/events.md lists them). A mail line has the
 * shape that tools for Postfix parse: "postern/smtp[PID]: QID: text". Both go to the destination that
 * `log` names (stderr, syslog, journal, a file), as text or as JSON lines. A stream is a file of its own
 * (protocol log, session log). All are gathered during a turn and written at its end with one call.
 * Nothing here takes a struct secret. Control characters in values are escaped, so a peer cannot forge
 * a line. */
#pragma once
#include "base/buf.h"
#include "io/loop.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct log;

struct log_options {
    const char *to;      /* "stderr", "syslog", "journal" or a path that `fd` already is */
    bool json;
    int fd;              /* the opened destination: stderr, a file, a connected /dev/log; taken */
    enum log_level level;
};

int log_new(struct loop *loop /* NULL: every record is written at once */, const char *process,
            const struct log_options *options, struct log **ret_log, struct err *err);
void log_free(struct log **log);
/* Opens what `to` names; to be called before a sandbox. */
int log_open_destination(const char *to, int *ret_fd, struct err *err);
/* Another descriptor for the same destination (rotation, syslog restarted); taken. */
void log_set_fd(struct log *log, int fd);
void log_flush(struct log *log);

/* Event: log_begin(), fields, log_end(). Never fails towards the caller. `record` holds one at a time. */
struct log_record {
    struct log *log;
    enum log_level level;
    struct buf text;
    bool json;
};
void log_begin(struct log_record *record, struct log *log, enum log_level level, const char *event);
void log_str(struct log_record *record, const char *name, struct str value);
void log_cstr(struct log_record *record, const char *name, const char *value); /* NULL: left out */
void log_int(struct log_record *record, const char *name, int64_t value);
void log_end(struct log_record *record);
/* An event with one field, text=. */
void log_event(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "postern/PROGRAM[PID]: text": PROGRAM is Postfix's name for the step: smtpd, cleanup, qmgr, smtp, lmtp,
 * local, bounce, pickup. The caller has put the queue id into the text. */
void log_mail(struct log *log, enum log_level level, const char *program, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A file of lines of its own; fd is taken, -1 = drop what is added. */
struct log_stream;
int log_stream_new(struct loop *loop, int fd, struct log_stream **ret_stream, struct err *err);
void log_stream_set_fd(struct log_stream *stream, int fd);
void log_stream_add(struct log_stream *stream, struct str line_without_end);
void log_stream_free(struct log_stream **stream);
