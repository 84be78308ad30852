/* postern auth report: who still logs in by weak means, and which logins fail; from the session log. */
#define HASH_NONFATAL_OOM 1
#include <stdlib.h>
#include <uthash.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/session_log.h"
#include "explain/catalog.h"
#include "io/now.h"

enum { ROWS_MAX = 20000, KEY_BYTES = 640, TEXT_MAX = 128, USER_MAX = 256, OUT_MAX = 64 << 20 };

/* What is counted under one line of the report. `what` is a kind of weakness or a cause of failure. */
struct row {
    char *what, *mechanism, *client, *user, *tls;
    bool is_failure;
    uint64_t count;
    int64_t first_ms, last_ms;
    UT_hash_handle hh;
    char key[]; /* what makes rows different: all of the above but a failure's user and TLS, which are the last ones */
};

struct report {
    struct row *rows;
    size_t n_rows;
    bool full, out_of_memory;
    uint64_t unlisted; /* what found no row any more */
};

struct facts {
    struct str mechanism, inner, client, user, tls, result, cause;
    bool layer, mails;
    int64_t time_ms;
};

static bool is_clear_password(const struct facts *f)
{
    bool shows_password = str_eq_nocase(f->mechanism, STR("PLAIN")) || str_eq_nocase(f->mechanism, STR("LOGIN"));
    return shows_password && f->tls.n == 0 && !f->layer;
}

static bool is_ntlm(const struct facts *f)
{
    return str_eq_nocase(f->mechanism, STR("NTLM")) || str_ends_nocase(f->inner, STR("ntlm"));
}

static bool is_plain(const struct facts *f)
{
    return str_eq_nocase(f->mechanism, STR("PLAIN")) && !is_clear_password(f);
}

static bool is_login(const struct facts *f)
{
    return str_eq_nocase(f->mechanism, STR("LOGIN")) && !is_clear_password(f);
}

static bool is_old_tls(const struct facts *f)
{
    return f->tls.n && !str_eq(f->tls, STR("TLSv1.2")) && !str_eq(f->tls, STR("TLSv1.3"));
}

static bool is_plaintext(const struct facts *f)
{
    return f->tls.n == 0 && !f->layer && !is_clear_password(f);
}

/* The worst first, which is the order of the report; failures follow, by cause. */
static const struct weakness {
    const char *name, *text;
    bool needs_login; /* counts only after a login; the others also when mail came in */
    bool (*holds)(const struct facts *f);
} weaknesses[] = {
    { "password-in-clear", "a password without TLS", true, is_clear_password },
    { "ntlm", "NTLM", true, is_ntlm },
    { "old-tls", "TLS older than 1.2", false, is_old_tls },
    { "plain", "PLAIN: the password itself, within TLS", true, is_plain },
    { "login", "LOGIN: the password itself, within TLS", true, is_login },
    { "plaintext", "mail or a login without TLS", false, is_plaintext },
};
enum { N_WEAKNESSES = sizeof weaknesses / sizeof *weaknesses };

static void free_row(struct row *row)
{
    free(row->what);
    free(row->mechanism);
    free(row->client);
    free(row->user);
    free(row->tls);
    free(row);
}

static void set_text(char **field, struct str text)
{
    char *copy = str_dup(text);
    if (copy) {
        free(*field);
        *field = copy;
    }
}

static struct row *new_row(struct report *report, struct str key, bool is_failure, const char *what,
                           const struct facts *f)
{
    struct row *row = calloc(1, sizeof *row + key.n + 1);
    if (!row)
        return NULL;
    memcpy(row->key, key.p, key.n);
    row->is_failure = is_failure;
    row->first_ms = f->time_ms;
    row->what = strdup(what);
    set_text(&row->mechanism, f->mechanism);
    set_text(&row->client, f->client);
    set_text(&row->user, f->user);
    set_text(&row->tls, f->tls);
    if (row->what && row->mechanism && row->client && row->user && row->tls)
        HASH_ADD_KEYPTR(hh, report->rows, row->key, key.n, row);
    if (!row->hh.tbl) {
        free_row(row);
        return NULL;
    }
    report->n_rows++;
    return row;
}

static void count(struct report *report, bool is_failure, const char *what, const struct facts *f)
{
    char key[KEY_BYTES];
    struct row *row;
    int n = snprintf(key, sizeof key, "%d\n%s\n%.*s\n%.*s\n%.*s\n%.*s", is_failure, what, STR_ARG(f->mechanism),
                     STR_ARG(f->client), is_failure ? 0 : (int)f->user.n, f->user.n ? f->user.p : "",
                     is_failure ? 0 : (int)f->tls.n, f->tls.n ? f->tls.p : "");
    size_t key_n = n < 0 ? 0 : (size_t)n < sizeof key ? (size_t)n : sizeof key - 1;
    HASH_FIND(hh, report->rows, key, key_n, row);
    if (!row && report->n_rows >= ROWS_MAX) {
        report->unlisted++;
        return;
    }
    row = row ? row : new_row(report, str_slice(key, key_n), is_failure, what, f);
    if (!row) {
        report->out_of_memory = true;
        return;
    }
    row->count++;
    row->first_ms = f->time_ms < row->first_ms ? f->time_ms : row->first_ms;
    if (f->time_ms >= row->last_ms) {
        row->last_ms = f->time_ms;
        set_text(&row->user, f->user);
        set_text(&row->tls, f->tls);
    }
}

static bool take_session(void *arg, const json_t *session, int64_t time_ms)
{
    struct report *report = arg;
    struct facts f = {
        .mechanism = session_log_text(session, "mechanism", TEXT_MAX),
        .inner = session_log_text(session, "inner", TEXT_MAX),
        .client = session_log_text(session, "client", TEXT_MAX),
        .user = session_log_text(session, "user", USER_MAX),
        .tls = session_log_text(session, "tls_version", 32),
        .result = session_log_text(session, "result", 32),
        .cause = session_log_text(session, "cause", 64),
        .layer = json_is_string(json_object_get(session, "layer")),
        .mails = json_integer_value(json_object_get(session, "mails")) > 0,
        .time_ms = time_ms,
    };
    bool accepted = str_eq(f.result, STR("accepted"));
    char cause[65];
    for (size_t i = 0; i < N_WEAKNESSES; i++)
        if ((accepted || (!weaknesses[i].needs_login && f.mails)) && weaknesses[i].holds(&f))
            count(report, false, weaknesses[i].name, &f);
    if (f.result.n && !accepted)
        count(report, true, f.cause.n && str_copy(f.cause, cause, sizeof cause) ? cause : "unknown", &f);
    return !report->out_of_memory;
}

static int rank_of(const struct row *row)
{
    int rank = 0;
    while (rank < N_WEAKNESSES && strcmp(weaknesses[rank].name, row->what) != 0)
        rank++;
    return row->is_failure ? N_WEAKNESSES + 1 : rank;
}

static int by_rank(const struct row *a, const struct row *b)
{
    int rank_a = rank_of(a), rank_b = rank_of(b);
    if (rank_a != rank_b)
        return rank_a < rank_b ? -1 : 1;
    int by_cause = strcmp(a->what, b->what);
    if (by_cause != 0)
        return by_cause;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    return a->last_ms != b->last_ms ? (a->last_ms > b->last_ms ? -1 : 1) : strcmp(a->key, b->key);
}

static json_t *json_time(int64_t ms)
{
    char text[CLOCK_TEXT_BYTES];
    clock_rfc3339(ms, text);
    return json_string(text);
}

static json_t *json_text(const char *text)
{
    json_t *value = text[0] ? json_string(text) : NULL;
    return value ? value : json_null(); /* a text that was cut within a character is no text */
}

static json_t *json_row(const struct row *row)
{
    const struct catalog_entry *entry = row->is_failure ? catalog_cause("auth.reject", str_of(row->what)) : NULL;
    json_t *o = json_object();
    char id[CATALOG_ID_BYTES] = "";
    if (entry)
        catalog_id(entry, id);
    json_object_set_new(o, row->is_failure ? "cause" : "what", json_text(row->what));
    if (row->is_failure)
        json_object_set_new(o, "id", json_text(id));
    json_object_set_new(o, "mechanism", json_text(row->mechanism));
    json_object_set_new(o, "client", json_text(row->client));
    json_object_set_new(o, "user", json_text(row->user));
    json_object_set_new(o, "tls_version", json_text(row->tls));
    json_object_set_new(o, "count", json_integer((json_int_t)row->count));
    json_object_set_new(o, "first", json_time(row->first_ms));
    json_object_set_new(o, "last", json_time(row->last_ms));
    return o;
}

static int print_json(const struct report *report, const struct session_log_counts *counts, int64_t since_ms)
{
    json_t *weak = json_array(), *failures = json_array();
    for (const struct row *row = report->rows; row; row = row->hh.next)
        json_array_append_new(row->is_failure ? failures : weak, json_row(row));
    json_t *o = json_pack("{s:o,s:I,s:I,s:I,s:o,s:o}", "since", since_ms ? json_time(since_ms) : json_null(),
                          "sessions", (json_int_t)counts->sessions, "damaged", (json_int_t)counts->damaged,
                          "unlisted", (json_int_t)report->unlisted, "weak", weak, "failures", failures);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text)
        return cli_fail(CLI_SYSTEM, "out of memory");
    int status = cli_write(str_of(text));
    free(text);
    return status == CLI_OK ? cli_write(STR("\n")) : status;
}

/* Clients choose their names: control characters would be commands to a terminal, and tabs other columns. */
static void add_clean(struct buf *out, const char *text, const char *otherwise)
{
    for (const char *c = text[0] ? text : otherwise; *c; c++)
        buf_add_char(out, (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c);
}

static void add_columns(struct buf *out, const struct row *row, bool terminal)
{
    char first[CLOCK_TEXT_BYTES], last[CLOCK_TEXT_BYTES];
    struct buf user, client;
    buf_init(&user, 1024);
    buf_init(&client, 1024);
    clock_rfc3339(row->first_ms, first);
    clock_rfc3339(row->last_ms, last);
    add_clean(&user, row->user, "-");
    add_clean(&client, row->client, "-");
    if (terminal)
        buf_addf(out, "  %8llu  %-15.*s  %-24.*s  %-14.14s %-7.7s  %.16s  %.16s\n", (unsigned long long)row->count,
                 STR_ARG(buf_str(&client)), STR_ARG(buf_str(&user)), row->mechanism[0] ? row->mechanism : "-",
                 row->tls[0] ? row->tls : "none", first, last);
    else
        buf_addf(out, "%s\t%s\t%llu\t%.*s\t%.*s\t%s\t%s\t%s\t%s\n", row->is_failure ? "failure" : "weak", row->what,
                 (unsigned long long)row->count, STR_ARG(buf_str(&client)), STR_ARG(buf_str(&user)),
                 row->mechanism[0] ? row->mechanism : "-", row->tls[0] ? row->tls : "-", first, last);
    buf_done(&user);
    buf_done(&client);
}

static void add_heading(struct buf *out, const struct row *row)
{
    if (row->is_failure) {
        const struct catalog_entry *entry = catalog_cause("auth.reject", str_of(row->what));
        buf_addf(out, "\nrefused, %s: %s\n", row->what, entry ? entry->happened : "see the log");
    } else {
        buf_addf(out, "\n%s\n", weaknesses[rank_of(row)].text);
    }
    buf_addf(out, "  %8s  %-15s  %-24s  %-14s  %-7s  %-16s  %s\n", "times", "from",
             row->is_failure ? "user (the last one)" : "user", "mechanism", "TLS", "first (UTC)", "last (UTC)");
}

static void add_table(struct buf *out, const struct report *report)
{
    const struct row *former = NULL;
    for (const struct row *row = report->rows; row; former = row, row = row->hh.next) {
        if (!former || former->is_failure != row->is_failure || strcmp(former->what, row->what) != 0)
            add_heading(out, row);
        add_columns(out, row, true);
    }
}

static int print_text(const struct report *report, const struct session_log_counts *counts, int64_t since_ms,
                      bool terminal)
{
    char since[CLOCK_TEXT_BYTES];
    struct buf out;
    buf_init(&out, OUT_MAX);
    clock_rfc3339(since_ms, since);
    if (terminal) {
        buf_addf(&out, "%llu sessions%s%.16s%s\n", (unsigned long long)counts->sessions, since_ms ? " since " : "",
                 since_ms ? since : "", report->n_rows ? "" : "; nobody logs in by weak means, and nothing failed");
        add_table(&out, report);
    } else {
        for (const struct row *row = report->rows; row; row = row->hh.next)
            add_columns(&out, row, false);
    }
    int status = out.failed ? cli_fail(CLI_SYSTEM, "out of memory") : cli_write(buf_str(&out));
    buf_done(&out);
    if (counts->damaged)
        cli_fail(CLI_OK, "%llu lines of the session log are damaged and were skipped",
                 (unsigned long long)counts->damaged);
    if (report->unlisted)
        cli_fail(CLI_OK, "%llu sessions are not listed: there are more than %d different ones",
                 (unsigned long long)report->unlisted, ROWS_MAX);
    return status;
}

static int read_since(const char *text, int64_t *ret_ms)
{
    uint64_t seconds;
    int64_t now = now_wall_ms();
    if (cli_duration(str_of(text), &seconds)) {
        *ret_ms = (int64_t)seconds > now / 1000 ? 0 : now - (int64_t)seconds * 1000;
        return CLI_OK;
    }
    if (session_log_time(str_of(text), ret_ms))
        return CLI_OK;
    return cli_usage("auth", "--since %s is neither a time such as 12h or 7d nor a date such as 2026-11-01", text);
}

static int read_failed(int rc, const char *path, const struct err *err)
{
    if (rc == ERR_ABSENT)
        return cli_fail(CLI_NO_INPUT, "there is no session log %s yet: the daemon writes it when sessions end", path);
    bool denied = rc == -EACCES || rc == -EPERM;
    return cli_fail(denied ? CLI_NOT_PERMITTED : rc == -ENOMEM ? CLI_SYSTEM : CLI_IO, "%s", err_text(err));
}

static int report_on(const char *path, int64_t since_ms, const struct cli_options *options)
{
    struct report report = { 0 };
    struct session_log_counts counts;
    struct err err = { 0 };
    int status = CLI_OK, rc = session_log_read(path, since_ms, take_session, &report, &counts, &err);
    if (rc == 0) {
        HASH_SORT(report.rows, by_rank);
        status = options->json ? print_json(&report, &counts, since_ms)
                               : print_text(&report, &counts, since_ms, options->terminal);
    } else {
        status = read_failed(rc, path, &err);
    }
    struct row *row, *next;
    HASH_ITER(hh, report.rows, row, next) {
        HASH_DEL(report.rows, row);
        free_row(row);
    }
    return status;
}

int cli_auth(int argc, char **argv, const struct cli_options *options)
{
    int64_t since_ms = 0;
    const struct conf *conf;
    if (argc < 2)
        return cli_usage("auth", "say what to do: report");
    if (strcmp(argv[1], "report") != 0)
        return cli_usage("auth", "there is no command %s", argv[1]);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--since") != 0)
            return cli_usage("auth", "unknown option %s", argv[i]);
        if (++i == argc)
            return cli_usage("auth", "--since needs a value");
        if (read_since(argv[i], &since_ms) != CLI_OK)
            return CLI_USAGE;
    }
    int status = cli_load_conf(options, &conf);
    if (status != CLI_OK)
        return status;
    if (conf->session_log)
        status = report_on(conf->session_log, since_ms, options);
    else
        status = cli_fail(CLI_NO_INPUT, "%s sets no session_log, so there is nothing to report from; set it, then "
                          "`postern reload`", options->config);
    conf_unref(&conf);
    return status;
}
