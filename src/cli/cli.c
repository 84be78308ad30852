#include "cli/cli.h"

#include <stdarg.h>
#include <unistd.h>

#include "conf/load.h"

int cli_fail(enum cli_exit status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("postern: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

int cli_write(struct str text)
{
    while (text.n) {
        ssize_t n = write(STDOUT_FILENO, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_fail(CLI_IO, "cannot write to standard output: %s", strerror(errno));
        text = str_skip(text, (size_t)n);
    }
    return CLI_OK;
}

bool cli_duration(struct str text, uint64_t *ret_s)
{
    static const struct { char unit; uint64_t seconds; } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    uint64_t factor = 1;
    for (size_t i = 0; i < 4 && text.n; i++)
        if (ascii_lower(text.p[text.n - 1]) == units[i].unit) {
            factor = units[i].seconds;
            text.n--;
            break;
        }
    uint64_t value;
    if (!str_to_u64(text, 100000000, &value))
        return false;
    *ret_s = value * factor;
    return true;
}

int cli_load_conf(const struct cli_options *options, const struct conf **ret_conf)
{
    struct conf_mistakes mistakes;
    struct err err = { 0 };
    struct buf text;
    conf_mistakes_init(&mistakes);
    buf_init(&text, 1 << 20);
    int rc = conf_load_file(options->config, &mistakes, ret_conf, &err), status = CLI_OK;
    if (rc == ERR_CONFIG) {
        conf_mistakes_print(&mistakes, false, &text);
        fwrite(text.p, 1, text.n, stderr);
        status = cli_fail(CLI_CONFIG, "%s; `postern check` explains", err.text);
    } else if (rc < 0) {
        status = cli_fail(rc == ERR_LIMIT ? CLI_SYSTEM : CLI_NO_INPUT, "%s", err.text);
    }
    buf_done(&text);
    conf_mistakes_done(&mistakes);
    return status;
}
