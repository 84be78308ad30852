/* postern queue list|show|retry|hold|release|delete, and mailq: what waits, and what to do with it. */
#include <stdlib.h>

#include "base/clock.h"
#include "cli/control.h"
#include "cli/queue_offline.h"

static const char *const commands[] = { "list", "show", "retry", "hold", "release", "delete", NULL };

struct filter {
    const char *option, *member;
    bool duration;
};
static const struct filter filters[] = {
    { "--id", "id", false },           { "--sender", "sender", false },
    { "--recipient", "recipient", false }, { "--domain", "domain", false },
    { "--queue", "queue", false },     { "--older-than", "older_than_s", true },
    { "--newer-than", "newer_than_s", true },
};

/* Reads --OPTION VALUE pairs and bare queue ids. 0, or the exit status. */
static int read_filter(int argc, char **argv, json_t *filter, bool *ret_all)
{
    for (int i = 2; i < argc; i++) {
        const struct filter *f = NULL;
        for (size_t k = 0; k < sizeof filters / sizeof filters[0]; k++)
            if (strcmp(argv[i], filters[k].option) == 0)
                f = &filters[k];
        if (strcmp(argv[i], "--all") == 0) {
            *ret_all = true;
            continue;
        }
        if (!f && argv[i][0] == '-')
            return cli_usage("queue", "unknown option %s", argv[i]);
        if (!f) {
            json_object_set_new(filter, "id", json_string(argv[i]));
            continue;
        }
        if (++i == argc)
            return cli_usage("queue", "%s needs a value", f->option);
        uint64_t seconds;
        if (!f->duration)
            json_object_set_new(filter, f->member, json_string(argv[i]));
        else if (cli_duration(str_of(argv[i]), &seconds))
            json_object_set_new(filter, f->member, json_integer((json_int_t)seconds));
        else
            return cli_usage("queue", "%s %s is not a time such as 90s, 15m, 2h or 5d", f->option, argv[i]);
    }
    return CLI_OK;
}

static void print_json(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    if (text)
        puts(text);
    free(text);
}

struct listing {
    const struct cli_options *options;
    bool as_mailq;
    unsigned long long messages, octets;
};

static const char *text_of(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

/* Peers' words on a terminal: control characters would be commands to it. */
static void print_clean(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static void print_recipients(json_t *object)
{
    size_t i;
    json_t *recipient;
    json_array_foreach(json_object_get(object, "recipients"), i, recipient) {
        const char *reason = json_string_value(json_object_get(recipient, "delay_reason"));
        if (reason) {
            printf("%*s(", 8, "");
            print_clean(reason);
            printf(")\n");
        }
        printf("%*s", 41, "");
        print_clean(text_of(recipient, "address"));
        putchar('\n');
    }
}

/* The columns of Postfix's mailq: '*' behind an active message's id, '!' behind a held one's. */
static void print_message(void *arg, json_t *object)
{
    struct listing *l = arg;
    json_int_t size = json_integer_value(json_object_get(object, "message_size"));
    if (l->options->json) {
        print_json(object);
    } else {
        if (l->messages == 0)
            printf("-Queue ID-      --Size-- ----Arrival Time---- -Sender/Recipient-------\n");
        char stamp[CLOCK_TEXT_BYTES], id[40];
        clock_syslog((int64_t)json_integer_value(json_object_get(object, "arrival_time")) * 1000, stamp);
        const char *queue = text_of(object, "queue_name");
        snprintf(id, sizeof id, "%s%s", text_of(object, "queue_id"),
                 strcmp(queue, "active") == 0 ? "*" : strcmp(queue, "hold") == 0 ? "!" : "");
        printf("%-15s %8lld %20s ", id, (long long)size, stamp);
        print_clean(text_of(object, "sender"));
        putchar('\n');
        print_recipients(object);
        putchar('\n');
    }
    l->messages++;
    l->octets += (unsigned long long)size;
}

static int list(const struct conf *conf, json_t *filter, const struct cli_options *options, bool as_mailq)
{
    struct listing l = { .options = options, .as_mailq = as_mailq };
    struct err err = { 0 };
    json_t *last;
    int status = control_ask(conf, json_pack("{s:s,s:O}", "verb", "queue.list", "filter", filter), STR_NONE,
                             print_message, &l, &last, &err);
    json_decref(last);
    if (status == CLI_UNAVAILABLE)
        status = queue_offline_list(conf, filter, print_message, &l, &err);
    json_decref(filter);
    if (status != CLI_OK)
        return cli_fail(status, "%s", err.text);
    if (options->json)
        return CLI_OK;
    if (l.messages)
        printf("-- %llu Kbytes in %llu Request%s.\n", l.octets / 1024, l.messages, l.messages == 1 ? "" : "s");
    else if (as_mailq)
        puts("Mail queue is empty");
    return CLI_OK;
}

static void print_shown(void *arg, json_t *object)
{
    const struct cli_options *options = arg;
    if (options->json) {
        print_json(object);
        return;
    }
    struct listing l = { .options = options };
    print_message(&l, object);
    printf("attempts %lld, next hop %s, server %s\n\n", (long long)json_integer_value(json_object_get(object, "attempts")),
           text_of(object, "next_hop"), text_of(object, "server"));
    for (const char *p = text_of(object, "content"); *p; p++)
        if ((unsigned char)*p >= 0x20 || *p == '\n' || *p == '\t')
            putchar(*p);
}

static int show(const struct conf *conf, json_t *filter, const struct cli_options *options)
{
    struct err err = { 0 };
    json_t *last, *id = json_object_get(filter, "id");
    if (!id) {
        json_decref(filter);
        return cli_usage("queue", "show needs a queue id");
    }
    int status = control_ask(conf, json_pack("{s:s,s:O}", "verb", "queue.show", "id", id), STR_NONE, print_shown,
                             (void *)options, &last, &err);
    json_decref(filter);
    json_decref(last);
    return status == CLI_OK ? CLI_OK : cli_fail(status, "%s", err.text);
}

static int change(const struct conf *conf, const char *command, json_t *filter, bool all,
                  const struct cli_options *options)
{
    char verb[32];
    snprintf(verb, sizeof verb, "queue.%s", command);
    if (json_object_size(filter) == 0 && !all && strcmp(command, "delete") == 0) {
        json_decref(filter);
        return cli_usage("queue", "delete needs a queue id, a filter, or --all");
    }
    struct err err = { 0 };
    json_t *last;
    int status = control_ask(conf, json_pack("{s:s,s:o,s:b}", "verb", verb, "filter", filter, "all", all), STR_NONE, NULL,
                             NULL, &last, &err);
    long long count = json_integer_value(json_object_get(last, "count"));
    json_decref(last);
    if (status != CLI_OK)
        return cli_fail(status, "%s", err.text);
    if (options->json)
        printf("{\"count\":%lld}\n", count);
    else
        printf("%s: %lld message%s\n", command, count, count == 1 ? "" : "s");
    return count || all ? CLI_OK : CLI_NO;
}

int cli_queue(int argc, char **argv, const struct cli_options *options)
{
    size_t command = 0;
    while (argc > 1 && commands[command] && strcmp(commands[command], argv[1]) != 0)
        command++;
    if (argc < 2 || !commands[command])
        return cli_usage("queue", argc < 2 ? "say what to do" : "unknown command %s", argc < 2 ? "" : argv[1]);
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK)
        return status;
    json_t *filter = json_object();
    bool all = false;
    status = read_filter(argc, argv, filter, &all);
    if (status != CLI_OK)
        json_decref(filter);
    else if (strcmp(argv[1], "list") == 0)
        status = list(conf, filter, options, false);
    else if (strcmp(argv[1], "show") == 0)
        status = show(conf, filter, options);
    else
        status = change(conf, argv[1], filter, all, options);
    conf_unref(&conf);
    return status;
}

int cli_mailq(int argc, char **argv, const struct cli_options *options)
{
    struct cli_options own = *options;
    for (int i = 1; i < argc; i++) { /* sendmail's mailq has options that change nothing here */
        if ((strcmp(argv[i], "-C") == 0 || strcmp(argv[i], "-c") == 0) && i + 1 < argc)
            own.config = argv[++i];
        else if (strncmp(argv[i], "-C", 2) == 0 && argv[i][2])
            own.config = argv[i] + 2;
    }
    const struct conf *conf;
    int status = cli_load_conf(&own, &conf);
    if (status != CLI_OK)
        return status;
    status = list(conf, json_object(), &own, true);
    conf_unref(&conf);
    return status;
}
