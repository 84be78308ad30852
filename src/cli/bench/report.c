#include "cli/bench/bench.h"

#include <jansson.h>

static double wall_s(const struct bench_tally *t)
{
    return t->wall_us > 0 ? (double)t->wall_us / 1e6 : 1e-6;
}

static json_t *times(const struct bench_samples *s)
{
    return json_pack("{s:f, s:f, s:f, s:f}", "p50", bench_samples_percentile(s, 50), "p95",
                     bench_samples_percentile(s, 95), "p99", bench_samples_percentile(s, 99), "max",
                     bench_samples_percentile(s, 100));
}

static json_t *errors(const struct bench_tally *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->n_error_kinds; i++) {
        const struct bench_error *e = &t->error[i];
        json_array_append_new(list, json_pack("{s:s, s:o, s:I, s:s}", "stage", smtp_client_stage_name(e->stage), "code",
                                              e->code ? json_integer(e->code) : json_null(), "count", (json_int_t)e->n,
                                              "text", e->text));
    }
    return list;
}

/* Ends `object`. */
static int print_json(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_REAL_PRECISION(7)) : NULL;
    json_decref(object);
    struct buf line;
    buf_init(&line, 1024 * 1024);
    buf_add_c(&line, text ? text : "");
    buf_add_char(&line, '\n');
    int status = text && !line.failed ? cli_write(buf_str(&line)) : cli_fail(CLI_SYSTEM, "out of memory for a report");
    buf_done(&line);
    free(text);
    fflush(stdout);
    return status;
}

static json_t *report_json(const struct bench_options *o, const struct bench_tally *t)
{
    double wall = wall_s(t);
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:f, s:I, s:f, s:f, s:o, s:I, s:f, s:o, s:I, s:o, s:f, s:f}", "server", o->target,
        "connections", (json_int_t)o->connections, "per_connection", (json_int_t)o->per_connection, "size",
        (json_int_t)o->size_bytes, "wall_s", wall, "messages", (json_int_t)t->messages, "messages_per_s",
        (double)t->messages / wall, "megabytes_per_s", (double)t->octets / wall / 1e6, "message_ms", times(&t->message),
        "sessions", (json_int_t)t->sessions, "sessions_per_s", (double)t->sessions / wall, "session_ms",
        times(&t->session), "error_count", (json_int_t)t->errors, "errors", errors(t), "cpu_s", t->cpu_s, "cpu_share",
        t->cpu_s / wall);
}

static void add_times(struct buf *text, const char *what, const struct bench_samples *s)
{
    if (s->n)
        buf_addf(text, "%s p50 %.3f ms, p95 %.3f ms, p99 %.3f ms, max %.3f ms\n", what, bench_samples_percentile(s, 50),
                 bench_samples_percentile(s, 95), bench_samples_percentile(s, 99), bench_samples_percentile(s, 100));
}

static void report_text(const struct bench_options *o, const struct bench_tally *t, struct buf *text)
{
    double wall = wall_s(t), share = 100 * t->cpu_s / wall;
    if (o->mode == BENCH_MESSAGES)
        buf_addf(text, "messages  %llu in %.3f s: %.1f/s, %.2f MB/s\n", (unsigned long long)t->messages, wall,
                 (double)t->messages / wall, (double)t->octets / wall / 1e6);
    add_times(text, "  latency", &t->message);
    buf_addf(text, "sessions  %llu: %.1f/s\n", (unsigned long long)t->sessions, (double)t->sessions / wall);
    add_times(text, "  set-up ", &t->session);
    buf_addf(text, "errors    %llu\n", (unsigned long long)t->errors);
    for (size_t i = 0; i < t->n_error_kinds; i++)
        buf_addf(text, "  %6llu  %s: %s\n", (unsigned long long)t->error[i].n, smtp_client_stage_name(t->error[i].stage),
                 t->error[i].text);
    if (t->errors_other)
        buf_addf(text, "  %6llu  of other kinds\n", (unsigned long long)t->errors_other);
    buf_addf(text, "generator %.2f s CPU, %.0f%% of one core%s\n", t->cpu_s, share,
             share > 90 ? ": the generator was the limit, not the server" : "");
}

int bench_report(const struct bench_options *o, const struct bench_tally *tally)
{
    if (o->json)
        return print_json(report_json(o, tally));
    struct buf text;
    buf_init(&text, 64 * 1024);
    report_text(o, tally, &text);
    int status = text.failed ? cli_fail(CLI_SYSTEM, "out of memory for a report") : cli_write(buf_str(&text));
    buf_done(&text);
    return status;
}

int bench_report_idle(const struct bench_options *o, const struct bench_tally *tally)
{
    double wall = wall_s(tally);
    if (o->json)
        return print_json(json_pack("{s:s, s:I, s:I, s:f, s:o, s:I, s:o}", "server", o->target, "connections",
                                    (json_int_t)o->connections, "ready", (json_int_t)tally->ready, "wall_s", wall,
                                    "session_ms", times(&tally->session), "error_count", (json_int_t)tally->errors,
                                    "errors", errors(tally)));
    struct buf text;
    buf_init(&text, 4096);
    buf_addf(&text, "idle      %llu of %llu connections after %.2f s\n", (unsigned long long)tally->ready,
             (unsigned long long)o->connections, wall);
    int status = cli_write(buf_str(&text));
    fflush(stdout);
    buf_done(&text);
    return status;
}
