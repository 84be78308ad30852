#include "cli/control.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_TIMEOUT_MS = 120000, LINE_MAX_BYTES = 8 << 20, READ_BYTES = 64 * 1024 };

static int connect_control(const char *path, struct err *err)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    if (!str_copy(str_of(path), name.sun_path, sizeof name.sun_path))
        return err_set(err, ERR_CONFIG, "the control socket's name %s is too long", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(err, errno, "cannot make a socket");
    const struct timeval patience = { .tv_sec = ANSWER_TIMEOUT_MS / 1000 };
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* a daemon that hangs reads nothing */
    if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0) {
        int saved = errno;
        close(fd);
        return err_errno(err, saved, "posternd does not answer on %s", path);
    }
    return fd;
}

static bool send_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        s = str_skip(s, (size_t)n);
    }
    return true;
}

/* True: `in` holds a line up to *ret_line (with its end). */
static bool read_line(int fd, struct buf *in, size_t *ret_line, struct err *err)
{
    size_t looked = 0;
    for (;;) {
        struct str rest = str_skip(buf_str(in), looked);
        size_t at = str_find(rest, '\n');
        if (at < rest.n) {
            *ret_line = looked + at + 1;
            return true;
        }
        looked = in->n;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int ready = poll(&p, 1, ANSWER_TIMEOUT_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        char *to = ready > 0 ? buf_reserve(in, READ_BYTES) : NULL;
        ssize_t n = to ? recv(fd, to, READ_BYTES, 0) : -1;
        if (n <= 0) {
            err_set(err, ERR_CLOSED, ready == 0 ? "posternd did not answer within %d s"
                                                : "posternd ended the connection without an answer (%d s at most)",
                    ANSWER_TIMEOUT_MS / 1000);
            return false;
        }
        in->n += (size_t)n;
    }
}

static int verdict(json_t *last, struct err *err)
{
    if (json_is_true(json_object_get(last, "ok")))
        return CLI_OK;
    const char *text = json_string_value(json_object_get(last, "error"));
    err_set(err, ERR_DENIED, "%s", text ? text : "posternd refused, without saying why");
    json_int_t status = json_integer_value(json_object_get(last, "exit"));
    return status > 0 && status < 128 ? (int)status : CLI_SYSTEM;
}

static int read_answer(int fd, void (*line)(void *arg, json_t *object), void *arg, json_t **ret_last, struct err *err)
{
    struct buf in;
    buf_init(&in, LINE_MAX_BYTES);
    int status = CLI_IO;
    for (size_t length; read_line(fd, &in, &length, err); buf_consume(&in, length)) {
        json_t *object = json_loadb(in.p, length - 1, 0, NULL);
        if (!json_is_object(object)) {
            json_decref(object);
            err_set(err, ERR_SYNTAX, "posternd answered with something that is no JSON object");
            break;
        }
        if (json_is_true(json_object_get(object, "done"))) {
            status = verdict(object, err);
            *ret_last = object;
            break;
        }
        if (line)
            line(arg, object);
        json_decref(object);
    }
    buf_done(&in);
    return status;
}

int control_ask(const struct conf *conf, json_t *request, struct str octets, void (*line)(void *arg, json_t *object),
                void *arg, json_t **ret_last, struct err *err)
{
    *ret_last = NULL;
    int fd = connect_control(conf->control, err);
    if (fd < 0) {
        json_decref(request);
        return CLI_UNAVAILABLE;
    }
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    bool sent = text && send_all(fd, str_of(text)) && send_all(fd, STR("\n")) && send_all(fd, octets);
    free(text);
    (void)sent; /* a refusal may come before all was sent: the answer tells */
    int status = read_answer(fd, line, arg, ret_last, err);
    close(fd);
    return status;
}
