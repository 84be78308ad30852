/* Happy path: the daemon takes the message through the control socket and answers when it is durable.
 * Ways to fail: the daemon refuses (its word is final); nobody listens, or the connection breaks before an answer: then
 * postern-drop writes it into the drop folder. A break after the daemon stored it makes a duplicate, never a loss. */
#include "cli/submit.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/control.h"

extern char **environ;

static json_t *make_request(const struct submit *m)
{
    json_t *recipients = json_array();
    for (size_t i = 0; i < m->n_recipients; i++)
        json_array_append_new(recipients, json_stringn(m->recipient[i].p, m->recipient[i].n));
    return json_pack("{s:s,s:s%,s:o,s:I}", "verb", "submit", "sender", m->sender.n ? m->sender.p : "", m->sender.n,
                     "recipients", recipients, "size", (json_int_t)m->content.n);
}

/* Where the drop program is: beside this one, as in a build, or in PREFIX/lib/postern for PREFIX/bin/postern. */
static const char *drop_program(char *ret_path, size_t bytes)
{
    static const char *const places[] = { "postern-drop", "../lib/postern/postern-drop" };
    ssize_t n = readlink("/proc/self/exe", ret_path, bytes - 1);
    char *slash = n > 0 ? memrchr(ret_path, '/', (size_t)n) : NULL;
    for (size_t i = 0; slash && i < sizeof places / sizeof places[0]; i++) {
        size_t room = bytes - (size_t)(slash + 1 - ret_path);
        if (str_copy(str_of(places[i]), slash + 1, room) && access(ret_path, X_OK) == 0)
            return ret_path;
    }
    return "/usr/lib/postern/postern-drop";
}

static bool write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        s = str_skip(s, (size_t)n);
    }
    return true;
}

static int drop(const struct conf *conf, const struct submit *m, struct err *err)
{
    char path[4096];
    char *const argv[] = { (char *)drop_program(path, sizeof path), (char *)conf->drop, NULL };
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        err_errno(err, errno, "cannot make a pipe");
        return CLI_TRY_AGAIN;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[0], STDIN_FILENO);
    pid_t pid;
    int rc = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[0]);
    if (rc != 0) {
        close(fds[1]);
        err_errno(err, rc, "posternd does not answer, and %s cannot be run", argv[0]);
        return CLI_TRY_AGAIN;
    }
    signal(SIGPIPE, SIG_IGN);
    json_t *request = make_request(m);
    char *line = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    bool written = line && write_all(fds[1], str_of(line)) && write_all(fds[1], STR("\n")) && write_all(fds[1], m->content);
    free(line);
    close(fds[1]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (written && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return CLI_OK;
    err_set(err, ERR_BUSY, "posternd does not answer on %s, and the drop folder %s does not take the message", conf->control,
            conf->drop);
    return CLI_TRY_AGAIN;
}

int submit_message(const struct conf *conf, const struct submit *m, char *ret_queue_id, size_t id_bytes, struct err *err)
{
    json_t *last;
    str_copy(STR(""), ret_queue_id, id_bytes);
    int status = control_ask(conf, make_request(m), m->content, NULL, NULL, &last, err);
    const char *id = json_string_value(json_object_get(last, "queue_id"));
    if (id)
        str_copy(str_of(id), ret_queue_id, id_bytes);
    json_decref(last);
    if (status == CLI_UNAVAILABLE || status == CLI_IO)
        status = drop(conf, m, err);
    return status;
}
