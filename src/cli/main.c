/* postern: the command line. Finds the verb, takes out what all verbs share, and runs it. A new verb is a file and
 * a row in the table here. */
#include <unistd.h>

#include "cli/cli.h"
#include "conf/mistake.h"

#define CLI_DEFAULT_CONFIG "/etc/postern/postern.conf"

static const struct cli_verb verbs[] = {
    { .name = "check",
      .run = cli_check,
      .usage = "check [-c FILE] [--json]",
      .summary = "look for mistakes in the configuration and in the files that it names" },
    { .name = "config",
      .run = cli_config,
      .usage = "config --dump [--non-default] [-c FILE] [--json]",
      .summary = "show the configuration as it is understood" },
    { .name = "setup",
      .run = cli_setup,
      .usage = "setup [-c FILE]",
      .summary = "make the system users and folders that the configuration names" },
    { .name = "user",
      .run = cli_user,
      .usage = "user add|passwd|list|delete [NAME] [--address ADDRESS] [--ntlm|--no-ntlm] [-c FILE] [--json]",
      .summary = "say who may log in" },
    { .name = "whoami",
      .run = cli_whoami,
      .usage = "whoami NAME [-c FILE] [--json]",
      .summary = "show whose mailbox a login is, and why" },
    { .name = "queue", .run = cli_queue,
      .usage = "queue list|show|retry|hold|release|delete [ID] [--sender A] [--recipient A] [--domain D] [--queue Q]\n"
               "       [--older-than T] [--newer-than T] [--all] [-c FILE] [--json]",
      .summary = "what waits, and what to do with it" },
    { .name = "spool", .run = cli_spool, .usage = "spool verify [-c FILE] [--json]",
      .summary = "look whether everything that was acknowledged is still what was written" },
    { .name = "pause", .run = cli_pause, .usage = "pause in|out [-c FILE]", .summary = "stop taking mail, or delivering it" },
    { .name = "resume", .run = cli_resume, .usage = "resume in|out [-c FILE]", .summary = "the opposite" },
    { .name = "reload", .run = cli_reload, .usage = "reload [-c FILE]",
      .summary = "take up the changed configuration; with a mistake nothing changes" },
    { .name = "status", .run = cli_status, .usage = "status [-c FILE] [--json]", .summary = "how the daemon is" },
    { .name = "explain-event", .run = cli_explain_event, .usage = "explain-event [ID|NAME] [--json]",
      .summary = "what an event or the cause of a failed login means, and what to do about it" },
    { .name = "auth", .run = cli_auth, .usage = "auth report [--since DURATION|DATE] [-c FILE] [--json]",
      .summary = "who still logs in by weak means, and which logins fail" },
    { .name = "sendmail", .run = cli_sendmail, .as_program = true, .usage = "sendmail", .summary = "" },
    { .name = "mailq", .run = cli_mailq, .as_program = true, .usage = "mailq", .summary = "" },
    { .name = "newaliases", .run = cli_newaliases, .as_program = true, .usage = "newaliases", .summary = "" },
    { .name = "bench", .run = cli_bench, .usage = "bench [OPTION ...] HOST[:PORT] | bench --sink ADDRESS:PORT",
      .summary = "load a server with mail and measure it" },
};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static const struct cli_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < N_VERBS; i++)
        if (str_eq(str_of(name), str_of(verbs[i].name)))
            return &verbs[i];
    return NULL;
}

int cli_usage(const char *verb, const char *fmt, ...)
{
    va_list args;
    const struct cli_verb *row = find_verb(verb);
    va_start(args, fmt);
    fprintf(stderr, "postern %s: ", verb);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\nusage: postern %s\n", row ? row->usage : verb);
    va_end(args);
    return CLI_USAGE;
}

static int show_help(void)
{
    printf("usage: postern [-c FILE] VERB ...\n\nVerbs:\n");
    for (size_t i = 0; i < N_VERBS; i++)
        if (!verbs[i].hidden && !verbs[i].as_program)
            printf("  %-13s %s\n", verbs[i].name, verbs[i].summary);
    printf("\n  -c FILE    the configuration, otherwise %s\n"
           "  --json     answer in JSON\n"
           "  --help     this, or with a verb what it takes\n"
           "  --version  the version\n"
           "\nThe manual: man postern, man postern-VERB, man postern.conf\n", CLI_DEFAULT_CONFIG);
    return fflush(stdout) == 0 ? CLI_OK : CLI_IO;
}

static int unknown_verb(const char *name)
{
    const char *names[N_VERBS + 1] = { NULL };
    size_t n = 0;
    for (size_t i = 0; i < N_VERBS; i++)
        if (!verbs[i].hidden)
            names[n++] = verbs[i].name;
    const char *nearest = conf_nearest(str_of(name), names);
    if (nearest)
        return cli_fail(CLI_USAGE, "there is no verb \"%s\", did you mean \"%s\"?", name, nearest);
    return cli_fail(CLI_USAGE, "there is no verb \"%s\"; `postern --help` lists them", name);
}

/* What the command line says to all verbs. */
struct shared {
    struct cli_options options;
    bool help, version;
};

/* Takes shared options out of argv, up to "--" (which stays, for the verb); the rest closes ranks. -1: usage. */
static int take_shared(int argc, char **argv, struct shared *s)
{
    int kept = 1;
    bool all = true;
    for (int i = 1; i < argc; i++) {
        struct str arg = str_of(argv[i]);
        all = all && !str_eq(arg, STR("--"));
        if (all && (str_eq(arg, STR("-c")) || str_eq(arg, STR("--config")))) {
            if (++i == argc)
                return -1;
            s->options.config = argv[i];
            s->options.config_given = true;
        } else if (all && str_eq(arg, STR("--json"))) {
            s->options.json = true;
        } else if (all && (str_eq(arg, STR("--help")) || str_eq(arg, STR("-h")))) {
            s->help = true;
        } else if (all && str_eq(arg, STR("--version"))) {
            s->version = true;
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    return kept;
}

int main(int argc, char **argv)
{
    struct shared s = { .options.config = CLI_DEFAULT_CONFIG };
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    const struct cli_verb *verb = argc ? find_verb(slash ? slash + 1 : argv[0]) : NULL;
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    s.options.terminal = isatty(STDOUT_FILENO);
    s.options.color = s.options.terminal && !(no_color && *no_color) && term && !str_eq(str_of(term), STR("dumb"));
    if (verb && verb->as_program)
        return verb->run(argc, argv, &s.options);

    int n = take_shared(argc, argv, &s);
    if (n < 0)
        return cli_fail(CLI_USAGE, "-c needs the name of a file");
    if (s.version) {
        puts("postern " POSTERN_VERSION);
        return CLI_OK;
    }
    verb = n > 1 ? find_verb(argv[1]) : NULL;
    if (s.help && verb) {
        printf("usage: postern %s\n%s\n", verb->usage, verb->summary);
        return CLI_OK;
    }
    if (s.help)
        return show_help();
    if (n < 2)
        return cli_fail(CLI_USAGE, "say what to do; `postern --help` lists the verbs");
    return verb ? verb->run(n - 1, argv + 1, &s.options) : unknown_verb(argv[1]);
}
