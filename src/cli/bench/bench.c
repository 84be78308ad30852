#include "cli/bench/bench.h"

#include <signal.h>
#include <sys/resource.h>

/* Thousands of connections are this verb's business. */
static void lift_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int cli_bench(int argc, char **argv, const struct cli_options *options)
{
    struct bench_options o;
    int status = bench_options_read(&o, argc, argv);
    o.json = options->json;
    if (status == CLI_OK) {
        lift_descriptor_limit();
        signal(SIGPIPE, SIG_IGN);
        status = o.mode == BENCH_SINK ? bench_sink(&o) : bench_run(&o);
    }
    bench_options_done(&o);
    return status;
}
