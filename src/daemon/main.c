/* posternd: the daemon's entry. Without --role it is master; master starts it again for each role. */
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/master/master.h"
#include "daemon/role.h"

static const struct role *const roles[] = { &role_smtpd, &role_auth, &role_keys, &role_queue, &role_delivery };

static const char usage[] = "usage: posternd [-c FILE] [-f]\n"
                            "  -c FILE   configuration (default /etc/postern/postern.conf)\n"
                            "  -f        stay in the foreground\n"
                            "See posternd(8).\n";

/* Whoever starts us may have closed them; a socket that took such a number would get what is meant for stderr. */
static void hold_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static int run_role(const char *name, const char *index_text)
{
    uint64_t index = 0;
    if (!index_text || !str_to_u64(str_of(index_text), 1000, &index))
        return EX_USAGE;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(name, role_name(roles[i]->id)) == 0)
            return role_main(roles[i], (unsigned)index, 3);
    return EX_USAGE;
}

static void tell_parent_ready(void *arg)
{
    int *fd = arg;
    if (write(*fd, "", 1) == 1)
        close(*fd);
}

/* The parent waits until every role runs, so that a script which starts posternd knows. */
static int run_in_background(const char *config_path)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return EX_OSERR;
    pid_t pid = fork();
    if (pid < 0)
        return EX_OSERR;
    if (pid == 0) {
        close(fds[0]);
        setsid();
        /* A script that reads our output must see its end; stderr stays, the log may go there. */
        int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0)
            return EX_OSERR;
        close(nothing);
        setenv(ROLE_BACKGROUND, "1", 1); /* see role.c: who logs elsewhere lets go of stderr */
        struct master_options options = { config_path, tell_parent_ready, &fds[1] };
        return master_main(&options);
    }
    close(fds[1]);
    char ready;
    if (read(fds[0], &ready, 1) == 1)
        return EX_OK;
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : EX_SOFTWARE;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "role", required_argument, NULL, 'r' }, { "index", required_argument, NULL, 'i' },
        { "help", no_argument, NULL, 'h' },       { "version", no_argument, NULL, 'V' },
        { 0 },
    };
    hold_standard_descriptors();
    const char *config_path = "/etc/postern/postern.conf", *role = NULL, *index = NULL;
    bool foreground = false;
    for (int c; (c = getopt_long(argc, argv, "c:f", longs, NULL)) != -1;) {
        switch (c) {
        case 'c': config_path = optarg; break;
        case 'f': foreground = true; break;
        case 'r': role = optarg; break;
        case 'i': index = optarg; break;
        case 'h': fputs(usage, stdout); return EX_OK;
        case 'V': puts("posternd " POSTERN_VERSION); return EX_OK;
        default: fputs(usage, stderr); return EX_USAGE;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return EX_USAGE;
    }
    if (role)
        return run_role(role, index);
    if (!foreground)
        return run_in_background(config_path);
    struct master_options options = { config_path, NULL, NULL };
    return master_main(&options);
}
