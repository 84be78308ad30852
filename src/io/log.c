/* A line is made in the record's buffer, then handed to the destination: files and stderr get many
 * lines with one write at the end of a turn; syslog and journal take one datagram a line. A destination
 * that does not take more (full disk, hung journal) loses lines, never the process's time; how many were
 * lost is said as soon as it takes lines again. */
#include "io/log.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/now.h"

enum {
    LINE_MAX_BYTES = 8 * 1024,
    LINE_END_BYTES = 8,           /* kept free for what closes a line */
    PENDING_MAX_BYTES = 1024 * 1024,
    FLUSH_AT_BYTES = 32 * 1024,
};

enum destination { TO_FILE, TO_SYSLOG, TO_JOURNAL };

struct log {
    struct loop_turn *turn;
    struct buf pending;
    char host[65], process[32];
    char stamp[CLOCK_TEXT_BYTES];
    int64_t stamp_second;
    enum destination to;
    enum log_level level;
    int fd, pid;
    bool json, batched, regular;
    uint64_t lost;
};

/* syslog(3) severities; the facility is mail (2 << 3). */
static const int severity[] = { 3, 4, 5, 6, 7 };
static const char *const level_name[] = { "error", "warning", "notice", "info", "debug" };

static int connect_datagram(const char *path, struct err *err)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (!str_copy(str_of(path), addr.sun_path, sizeof addr.sun_path))
        return err_set(err, ERR_CONFIG, "log socket name %s is too long", path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a log socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
        int saved = errno;
        close(fd);
        return err_errno(err, saved, "cannot reach the log at %s", path);
    }
    return fd;
}

int log_open_destination(const char *to, int *ret_fd, struct err *err)
{
    int fd;
    if (!to || strcmp(to, "stderr") == 0)
        fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    else if (strcmp(to, "syslog") == 0)
        fd = connect_datagram("/dev/log", err);
    else if (strcmp(to, "journal") == 0)
        fd = connect_datagram("/run/systemd/journal/socket", err);
    else
        fd = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd == -1)
        return err_errno(err, errno, "cannot open the log %s", to ? to : "stderr");
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

static bool is_regular(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static void on_turn(void *arg)
{
    log_flush(arg);
}

int log_new(struct loop *loop, const char *process, const struct log_options *options, struct log **ret_log,
            struct err *err)
{
    struct log *log = calloc(1, sizeof *log);
    if (!log)
        return err_set(err, -ENOMEM, "out of memory for the log");
    log->fd = options->fd;
    log->regular = is_regular(options->fd);
    log->json = options->json;
    log->level = options->level;
    log->pid = (int)getpid();
    log->stamp_second = -1;
    log->to = options->to && strcmp(options->to, "syslog") == 0    ? TO_SYSLOG
              : options->to && strcmp(options->to, "journal") == 0 ? TO_JOURNAL
                                                                   : TO_FILE;
    buf_init(&log->pending, PENDING_MAX_BYTES);
    str_copy(str_of(process), log->process, sizeof log->process);
    if (gethostname(log->host, sizeof log->host - 1) != 0 || !log->host[0])
        str_copy(STR("localhost"), log->host, sizeof log->host);
    if (loop) {
        int rc = loop_turn_new(loop, LOOP_TURN_LOG, on_turn, log, &log->turn, err);
        if (rc < 0) {
            free(log);
            return rc;
        }
        log->batched = true;
    }
    *ret_log = log;
    return 0;
}

void log_free(struct log **log)
{
    if (!*log)
        return;
    log_flush(*log);
    loop_turn_free(&(*log)->turn);
    buf_done(&(*log)->pending);
    if ((*log)->fd >= 0)
        close((*log)->fd);
    free(*log);
    *log = NULL;
}

void log_set_fd(struct log *log, int fd)
{
    log_flush(log);
    if (log->fd >= 0)
        close(log->fd);
    log->fd = fd;
    log->regular = is_regular(fd);
}

/* How much to write at once. A pipe or terminal is shared with other processes and may block: it gets whole lines that
 * fit into one atomic write, and only when it has room for them; 0: it has none. */
static size_t next_write(int fd, bool regular, struct str s)
{
    if (regular)
        return s.n;
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    if (poll(&p, 1, 0) != 1)
        return 0;
    if (s.n <= PIPE_BUF)
        return s.n;
    const char *end = memrchr(s.p, '\n', PIPE_BUF);
    return end ? (size_t)(end - s.p) + 1 : PIPE_BUF;
}

/* Writes whole lines as far as the descriptor takes them. */
static void write_pending(int fd, bool regular, struct buf *pending)
{
    size_t done = 0;
    while (fd >= 0 && done < pending->n) {
        struct str rest = str_slice(pending->p + done, pending->n - done);
        size_t some = next_write(fd, regular, rest);
        ssize_t n = some ? write(fd, rest.p, some) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    buf_consume(pending, done);
}

void log_flush(struct log *log)
{
    if (log->to == TO_FILE && log->pending.n)
        write_pending(log->fd, log->regular, &log->pending);
}

static const char *stamp(struct log *log, int64_t wall_ms)
{
    if (wall_ms / 1000 != log->stamp_second) {
        log->stamp_second = wall_ms / 1000;
        clock_syslog(wall_ms, log->stamp);
    }
    return log->stamp;
}

static void emit(struct log *log, enum log_level level, struct str tag, struct str line);

static void say_lost(struct log *log)
{
    uint64_t lost = log->lost;
    struct log_record r;
    log->lost = 0;
    log_begin(&r, log, LOG_LEVEL_WARNING, "log.lost");
    log_int(&r, "lines", (int64_t)lost);
    log_cstr(&r, "text", "the log did not take them");
    log_end(&r);
    if (log->lost) /* nor this one */
        log->lost = lost;
}

static void emit_file(struct log *log, struct str tag, struct str line, int64_t now_ms)
{
    if (log->pending.n + line.n + 512 > PENDING_MAX_BYTES) {
        log->lost++;
        return;
    }
    if (log->json)
        buf_add(&log->pending, line);
    else
        buf_addf(&log->pending, "%s %s postern/%.*s[%d]: %.*s", stamp(log, now_ms), log->host, STR_ARG(tag), log->pid,
                 STR_ARG(line));
    buf_add_char(&log->pending, '\n');
    if (!log->batched || log->pending.n > FLUSH_AT_BYTES)
        log_flush(log);
}

static void emit_datagram(struct log *log, enum log_level level, struct str tag, struct str line, int64_t now_ms)
{
    struct buf packet;
    buf_init(&packet, LINE_MAX_BYTES * 8);
    if (log->to == TO_SYSLOG)
        buf_addf(&packet, "<%d>%s postern/%.*s[%d]: %.*s", (2 << 3) | severity[level], stamp(log, now_ms), STR_ARG(tag),
                 log->pid, STR_ARG(line));
    else
        buf_addf(&packet, "PRIORITY=%d\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=postern/%.*s\nSYSLOG_PID=%d\nMESSAGE=%.*s\n",
                 severity[level], STR_ARG(tag), log->pid, STR_ARG(line));
    if (send(log->fd, packet.p, packet.n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log->lost++;
    buf_done(&packet);
}

static void emit(struct log *log, enum log_level level, struct str tag, struct str line)
{
    if (log->lost && log->pending.n < PENDING_MAX_BYTES / 2)
        say_lost(log);
    int64_t now_ms = now_wall_ms();
    if (log->to == TO_FILE)
        emit_file(log, tag, line, now_ms);
    else
        emit_datagram(log, level, tag, line, now_ms);
}

/* The length of the valid UTF-8 sequence at s.p, 0 when there is none. */
static size_t utf8_length(struct str s)
{
    unsigned char c = (unsigned char)s.p[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || n > s.n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)s.p[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates and what lies beyond U+10FFFF (RFC 3629 section 3) are no UTF-8 either. */
    unsigned char second = n > 1 ? (unsigned char)s.p[1] : 0;
    bool bad = (c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
               (c == 0xf4 && second > 0x8f);
    return bad ? 0 : n;
}

static void add_json_string(struct buf *b, struct str s)
{
    buf_add_char(b, '"');
    while (s.n) {
        size_t n = utf8_length(s);
        unsigned char c = (unsigned char)s.p[0];
        if (n == 0) {
            buf_add_c(b, "\\ufffd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            buf_add_char(b, '\\');
            buf_add_char(b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            buf_addf(b, "\\u%04x", c);
        } else {
            buf_add(b, str_slice(s.p, n));
        }
        s = str_skip(s, n);
    }
    buf_add_char(b, '"');
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == '"' || s.p[i] == '\\' || s.p[i] == 0x7f)
            return false;
    return s.n > 0;
}

/* Control characters cannot reach a line: a value with a line end in it stays one line. */
static void add_escaped(struct buf *b, struct str s, bool quotes)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c == 0x7f)
            buf_addf(b, "\\x%02x", c);
        else if (quotes && (c == '"' || c == '\\'))
            buf_addf(b, "\\%c", c);
        else
            buf_add_char(b, (char)c);
    }
}

static void begin_json(struct log *log, struct buf *b, enum log_level level, struct str program, const char *event)
{
    char time[CLOCK_TEXT_BYTES];
    clock_rfc3339(now_wall_ms(), time);
    buf_addf(b, "{\"time\":\"%s\",\"level\":\"%s\",\"process\":\"%.*s\",\"pid\":%d,\"event\":\"%s\"", time,
             level_name[level], STR_ARG(program), log->pid, event);
}

void log_begin(struct log_record *record, struct log *log, enum log_level level, const char *event)
{
    *record = (struct log_record){ .log = log, .level = level, .json = log->json };
    buf_init(&record->text, LINE_MAX_BYTES - LINE_END_BYTES);
    if (level > log->level)
        record->log = NULL;
    else if (log->json)
        begin_json(log, &record->text, level, str_of(log->process), event);
    else
        buf_addf(&record->text, "event=%s", event);
}

static void add_field(struct log_record *record, const char *name, struct str value)
{
    struct buf *b = &record->text;
    size_t before = b->n;
    if (record->json) {
        buf_addf(b, ",\"%s\":", name);
        add_json_string(b, value);
    } else {
        buf_addf(b, " %s=", name);
        bool quotes = !is_plain(value);
        if (quotes)
            buf_add_char(b, '"');
        add_escaped(b, value, quotes);
        if (quotes)
            buf_add_char(b, '"');
    }
    if (b->failed)
        b->n = before;
}

void log_str(struct log_record *record, const char *name, struct str value)
{
    if (!record->log)
        return;
    add_field(record, name, value);
    /* What does not fit is cut, and the field left out only when nothing of it fits: never what stands before it. */
    for (size_t n = value.n; record->text.failed; n /= 2) {
        record->text.failed = false;
        if (n == 0)
            return;
        add_field(record, name, str_slice(value.p, n / 2));
    }
}

void log_cstr(struct log_record *record, const char *name, const char *value)
{
    if (value)
        log_str(record, name, str_of(value));
}

void log_int(struct log_record *record, const char *name, int64_t value)
{
    if (!record->log)
        return;
    if (record->json)
        buf_addf(&record->text, ",\"%s\":%lld", name, (long long)value);
    else
        buf_addf(&record->text, " %s=%lld", name, (long long)value);
    record->text.failed = false; /* all or nothing of it */
}

void log_end(struct log_record *record)
{
    if (record->log) {
        record->text.max = LINE_MAX_BYTES;
        if (record->json)
            buf_add_char(&record->text, '}');
        emit(record->log, record->level, str_of(record->log->process), buf_str(&record->text));
    }
    buf_done(&record->text);
}

void log_event(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
{
    char text[LINE_MAX_BYTES]; /* what is longer is cut */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct log_record record;
    log_begin(&record, log, level, event);
    log_str(&record, "text", str_of(text));
    log_end(&record);
}

void log_mail(struct log *log, enum log_level level, const char *program, const char *fmt, ...)
{
    if (level > log->level)
        return;
    char text[LINE_MAX_BYTES]; /* what is longer is cut */
    struct buf line;
    buf_init(&line, LINE_MAX_BYTES * 7); /* each octet escaped, and what stands around it */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (log->json) {
        begin_json(log, &line, level, str_of(program), "mail");
        struct str rest = str_of(text), queue_id;
        buf_add_c(&line, ",\"queue_id\":");
        str_cut(&rest, ':', &queue_id);
        add_json_string(&line, queue_id);
        buf_add_c(&line, ",\"message\":");
        add_json_string(&line, str_trim(rest));
        buf_add_char(&line, '}');
    } else {
        add_escaped(&line, str_of(text), false);
    }
    emit(log, level, str_of(program), buf_str(&line));
    buf_done(&line);
}

struct log_stream {
    struct loop_turn *turn;
    struct buf pending;
    bool regular;
    int fd;
};

static void on_stream_turn(void *arg)
{
    struct log_stream *stream = arg;
    if (stream->pending.n)
        write_pending(stream->fd, stream->regular, &stream->pending);
}

int log_stream_new(struct loop *loop, int fd, struct log_stream **ret_stream, struct err *err)
{
    struct log_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return err_set(err, -ENOMEM, "out of memory for a log file");
    buf_init(&stream->pending, PENDING_MAX_BYTES);
    stream->fd = fd;
    stream->regular = is_regular(fd);
    int rc = loop_turn_new(loop, LOOP_TURN_LOG, on_stream_turn, stream, &stream->turn, err);
    if (rc < 0) {
        free(stream);
        return rc;
    }
    *ret_stream = stream;
    return 0;
}

void log_stream_set_fd(struct log_stream *stream, int fd)
{
    on_stream_turn(stream);
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = fd;
    stream->regular = is_regular(fd);
}

void log_stream_add(struct log_stream *stream, struct str line)
{
    if (stream->fd < 0 || stream->pending.n + line.n + 1 > PENDING_MAX_BYTES)
        return;
    buf_add(&stream->pending, line);
    buf_add_char(&stream->pending, '\n');
    if (stream->pending.n > FLUSH_AT_BYTES)
        on_stream_turn(stream);
}

void log_stream_free(struct log_stream **stream)
{
    if (!*stream)
        return;
    on_stream_turn(*stream);
    loop_turn_free(&(*stream)->turn);
    buf_done(&(*stream)->pending);
    if ((*stream)->fd >= 0)
        close((*stream)->fd);
    free(*stream);
    *stream = NULL;
}
