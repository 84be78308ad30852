/* postern pause, resume, reload, status: what the running daemon is told and asked. */
#include "cli/control.h"

/* Sends a request and prints why when it was refused. The last line goes to *ret_last. */
static int ask(const struct cli_options *options, json_t *request, json_t **ret_last)
{
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK) {
        json_decref(request);
        return status;
    }
    struct err err = { 0 };
    status = control_ask(conf, request, STR_NONE, NULL, NULL, ret_last, &err);
    const char *mistakes = json_string_value(json_object_get(*ret_last, "mistakes"));
    if (mistakes)
        fputs(mistakes, stderr);
    const char *warnings = json_string_value(json_object_get(*ret_last, "warnings"));
    if (warnings)
        fprintf(stderr, "warning: %s", warnings);
    if (status != CLI_OK)
        cli_fail(status, "%s", err.text);
    conf_unref(&conf);
    return status;
}

static int pause_or_resume(int argc, char **argv, const struct cli_options *options, const char *verb)
{
    if (argc != 2 || (strcmp(argv[1], "in") != 0 && strcmp(argv[1], "out") != 0))
        return cli_usage(verb, "say which: in (taking mail) or out (delivering it)");
    json_t *last = NULL;
    int status = ask(options, json_pack("{s:s,s:s}", "verb", verb, "what", argv[1]), &last);
    json_decref(last);
    if (status == CLI_OK && !options->json)
        printf("%s: %s\n", verb, strcmp(argv[1], "in") == 0 ? "taking mail in" : "sending mail out");
    return status;
}

int cli_pause(int argc, char **argv, const struct cli_options *options)
{
    return pause_or_resume(argc, argv, options, "pause");
}

int cli_resume(int argc, char **argv, const struct cli_options *options)
{
    return pause_or_resume(argc, argv, options, "resume");
}

/* Asks the daemon under the configuration that it runs; its file may hold mistakes by now, which the daemon tells. */
int cli_reload(int argc, char **argv, const struct cli_options *options)
{
    if (argc > 1)
        return cli_usage("reload", "unexpected argument %s", argv[1]);
    json_t *last = NULL;
    int status = ask(options, json_pack("{s:s}", "verb", "reload"), &last);
    json_decref(last);
    if (status == CLI_OK && !options->json)
        puts("every role runs the new configuration");
    return status;
}

struct status_print {
    const struct cli_options *options;
};

static void print_status(void *arg, json_t *object)
{
    const struct status_print *p = arg;
    if (p->options->json) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        return;
    }
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        printf("%-12s ", name);
        json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
        putchar('\n');
    }
}

int cli_status(int argc, char **argv, const struct cli_options *options)
{
    if (argc > 1)
        return cli_usage("status", "unexpected argument %s", argv[1]);
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK)
        return status;
    struct err err = { 0 };
    json_t *last;
    struct status_print p = { options };
    status = control_ask(conf, json_pack("{s:s}", "verb", "status"), STR_NONE, print_status, &p, &last, &err);
    json_decref(last);
    conf_unref(&conf);
    return status == CLI_OK ? CLI_OK : cli_fail(status, "%s", err.text);
}
