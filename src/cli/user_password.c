#include "cli/user_password.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "base/secret.h"

static volatile sig_atomic_t caught;

static void on_signal(int signum)
{
    caught = signum;
}

/* Octet by octet: what follows the line on a pipe is not ours. */
static int read_line(int fd, char text[USER_PASSWORD_INPUT_MAX + 1], struct err *err)
{
    size_t n = 0;
    for (;;) {
        char c;
        ssize_t got = read(fd, &c, 1);
        if (got < 0 && errno == EINTR && !caught)
            continue;
        if (got < 0)
            return err_errno(err, errno, "cannot read the password");
        if (got == 0 && n == 0)
            return err_set(err, ERR_SYNTAX, "no password came on standard input");
        if (got == 0 || c == '\n')
            break;
        if (c == 0)
            return err_set(err, ERR_SYNTAX, "the password holds a NUL");
        if (n == USER_PASSWORD_INPUT_MAX)
            return err_set(err, ERR_SYNTAX, "the password is longer than %d octets", USER_PASSWORD_INPUT_MAX);
        text[n++] = c;
    }
    if (n > 0 && text[n - 1] == '\r')
        n--;
    text[n] = 0;
    return 0;
}

static void say(int fd, const char *text)
{
    (void)!write(fd, text, strlen(text)); /* the terminal is gone: then the read fails too */
}

static int ask_twice(int fd, char text[USER_PASSWORD_INPUT_MAX + 1], struct err *err)
{
    char again[USER_PASSWORD_INPUT_MAX + 1];
    say(STDERR_FILENO, "Password: ");
    int rc = read_line(fd, text, err);
    say(STDERR_FILENO, "\n");
    if (rc < 0)
        return rc;
    say(STDERR_FILENO, "Again: ");
    rc = read_line(fd, again, err);
    say(STDERR_FILENO, "\n");
    if (rc == 0 && !secret_equal(str_of(text), str_of(again)))
        rc = err_set(err, ERR_SYNTAX, "the two passwords differ; nothing was changed");
    secret_wipe(again, sizeof again);
    return rc;
}

/* A signal that ends or stops the program must not leave the terminal without echo. */
static int ask_without_echo(int fd, char text[USER_PASSWORD_INPUT_MAX + 1], struct err *err)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP };
    enum { N = sizeof signals / sizeof signals[0] };
    struct termios before, silent;
    struct sigaction old[N], action = { .sa_handler = on_signal }; /* no SA_RESTART: the read ends */
    if (tcgetattr(fd, &before) != 0)
        return err_errno(err, errno, "cannot ask for the password");
    caught = 0;
    for (size_t i = 0; i < N; i++)
        sigaction(signals[i], &action, &old[i]);
    silent = before;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    int rc = tcsetattr(fd, TCSAFLUSH, &silent) == 0 ? ask_twice(fd, text, err)
                                                    : err_errno(err, errno, "cannot switch the terminal's echo off");
    tcsetattr(fd, TCSAFLUSH, &before);
    for (size_t i = 0; i < N; i++)
        sigaction(signals[i], &old[i], NULL);
    if (caught)
        raise(caught);
    return rc;
}

int user_password_read(int fd, char ret_text[USER_PASSWORD_INPUT_MAX + 1], struct err *err)
{
    ret_text[0] = 0;
    int rc = isatty(fd) ? ask_without_echo(fd, ret_text, err) : read_line(fd, ret_text, err);
    if (rc < 0)
        secret_wipe(ret_text, USER_PASSWORD_INPUT_MAX + 1);
    return rc;
}
