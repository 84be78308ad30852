/* postern spool verify: is everything that was acknowledged still what was written? */
#include <fcntl.h>
#include <jansson.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/cli.h"
#include "spool/verify.h"

enum { ATTEMPTS_WHILE_IT_RUNS = 3 };

struct report {
    json_t *damages;
    bool failed;
};

static void on_damage(void *arg, const struct spool_verify_damage *d)
{
    struct report *r = arg;
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(d->id, id);
    json_t *o = json_pack("{s:o,s:o,s:o,s:o,s:o,s:b,s:s}",
                          "segment", d->segment ? json_integer((json_int_t)d->segment) : json_null(),
                          "file", *d->file ? json_string(d->file) : json_null(),
                          "from", d->segment ? json_integer(d->from) : json_null(),
                          "to", d->segment ? json_integer(d->to) : json_null(),
                          "queue_id", d->id ? json_string(id) : json_null(),
                          "acknowledged", d->acknowledged, "text", d->text);
    if (!o || json_array_append_new(r->damages, o) < 0)
        r->failed = true;
}

/* The daemon holds the lock as long as it lives. */
static bool daemon_runs(const char *spool)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/lock", spool);
    int fd = n > 0 && (size_t)n < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    bool runs = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0;
    if (fd >= 0)
        close(fd);
    return runs;
}

static void print_text(const struct report *r, const struct spool_verify_result *result)
{
    size_t i;
    json_t *d;
    json_array_foreach(r->damages, i, d) {
        printf("%s: ", json_is_true(json_object_get(d, "acknowledged")) ? "DAMAGED" : "note");
        if (json_is_integer(json_object_get(d, "segment")))
            printf("%s (segment %lld), octets %lld to %lld: ", json_string_value(json_object_get(d, "file")),
                   (long long)json_integer_value(json_object_get(d, "segment")),
                   (long long)json_integer_value(json_object_get(d, "from")),
                   (long long)json_integer_value(json_object_get(d, "to")));
        const char *id = json_string_value(json_object_get(d, "queue_id"));
        if (id)
            printf("message %s: ", id);
        printf("%s\n", json_string_value(json_object_get(d, "text")));
    }
    printf("%llu messages wait, %llu octets; %llu damages to acknowledged mail\n", (unsigned long long)result->messages,
           (unsigned long long)result->octets, (unsigned long long)result->acknowledged);
}

static int exit_status(int rc)
{
    return rc == ERR_ABSENT ? CLI_NO_INPUT : rc == -EACCES || rc == -EPERM ? CLI_NOT_PERMITTED : CLI_IO;
}

static int verify(const struct conf *conf, const struct cli_options *options)
{
    struct report r = { 0 };
    struct spool_verify_result result = { 0 };
    struct err err = { 0 };
    int rc = 0;
    /* What changes under the reader may look damaged: only what looks so again and again is. */
    for (int attempt = 0; attempt < ATTEMPTS_WHILE_IT_RUNS; attempt++) {
        json_decref(r.damages);
        r.damages = json_array();
        rc = spool_verify(conf->spool, on_damage, &r, &result, &err);
        if ((rc == 0 && result.acknowledged == 0) || !daemon_runs(conf->spool))
            break;
    }
    int status = result.acknowledged ? CLI_NO : CLI_OK;
    if (rc < 0)
        status = cli_fail(exit_status(rc), "%s", err.text);
    else if (r.failed || !r.damages)
        status = cli_fail(CLI_SYSTEM, "out of memory");
    else if (options->json) {
        json_t *o = json_pack("{s:I,s:I,s:O}", "messages", (json_int_t)result.messages, "octets", (json_int_t)result.octets,
                              "damages", r.damages);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    } else {
        print_text(&r, &result);
    }
    json_decref(r.damages);
    return status;
}

int cli_spool(int argc, char **argv, const struct cli_options *options)
{
    if (argc != 2 || strcmp(argv[1], "verify") != 0)
        return cli_usage("spool", argc > 1 ? "unknown command %s" : "say what to do: verify", argc > 1 ? argv[1] : "");
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK)
        return status;
    status = verify(conf, options);
    conf_unref(&conf);
    return status;
}
