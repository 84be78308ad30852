/* sendmail: what programs that send mail expect under that name: -t -i -oi -f -F -bs -bp -bi -q, and newaliases. The
 * message is read from standard input, gets the headers that it lacks, and is handed over (submit.c). */
#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "cli/control.h"
#include "cli/sendmail.h"
#include "cli/submit.h"
#include "io/now.h"
#include "smtp/addresslist.h"

enum { RECIPIENTS_MAX = 1000, MESSAGE_MAX_BYTES = 128 << 20 };

struct outgoing {
    struct arena arena;
    struct str recipient[RECIPIENTS_MAX];
    size_t n_recipients;
    struct buf input, content;
    const char *domain;   /* for addresses without one */
    bool too_many, has_from, has_date, has_id, has_to;
};

static void add_recipient(void *arg, struct str mailbox)
{
    struct outgoing *o = arg;
    if (o->n_recipients == RECIPIENTS_MAX) {
        o->too_many = true;
        return;
    }
    struct str full = mailbox;
    if (str_find(mailbox, '@') == mailbox.n)
        full = str_of(arena_printf(&o->arena, "%.*s@%s", STR_ARG(mailbox), o->domain));
    else
        full = arena_copy(&o->arena, mailbox);
    for (size_t i = 0; i < o->n_recipients; i++)
        if (str_eq_nocase(o->recipient[i], full))
            return;
    o->recipient[o->n_recipients++] = full;
}

/* Reads standard input to its end, or to a line with a single dot unless -i. Line ends are left to the queue. */
static int read_message(struct outgoing *o, bool dot_ends)
{
    for (;;) {
        char *to = buf_reserve(&o->input, 64 * 1024);
        if (!to)
            return cli_fail(CLI_DATA, "the message is longer than %d octets", MESSAGE_MAX_BYTES);
        ssize_t n = read(STDIN_FILENO, to, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_fail(CLI_IO, "cannot read the message: %s", strerror(errno));
        if (n == 0)
            break;
        o->input.n += (size_t)n;
    }
    struct str all = buf_str(&o->input);
    for (size_t at = 0; dot_ends && at < all.n;) {
        struct str rest = str_skip(all, at);
        size_t line = str_find(rest, '\n');
        if (str_eq(str_slice(rest.p, line), STR(".")) || str_eq(str_slice(rest.p, line), STR(".\r"))) {
            o->input.n = at;
            break;
        }
        at += line + 1;
    }
    return CLI_OK;
}

/* The next header field with its continuation lines; empty at the end of the header section. */
static struct str next_field(struct str *rest)
{
    struct str start = *rest;
    size_t n = 0;
    do {
        size_t line = str_find(str_skip(start, n), '\n');
        n += line + 1 > start.n - n ? start.n - n : line + 1;
    } while (n < start.n && (start.p[n] == ' ' || start.p[n] == '\t'));
    struct str name, field = str_slice(start.p, n), value = field;
    if (!str_cut(&value, ':', &name) || name.n == 0)
        return STR_NONE;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || (unsigned char)name.p[i] > 126)
            return STR_NONE;
    *rest = str_skip(start, n);
    return field;
}

static bool is_field(struct str field, const char *name)
{
    struct str before;
    return str_cut(&field, ':', &before) && str_eq_nocase(before, str_of(name));
}

/* Copies the header section without Bcc, takes recipients from it with -t, notes what it has. */
static int read_headers(struct outgoing *o, bool from_headers, struct buf *kept, struct str *ret_body)
{
    struct str rest = buf_str(&o->input);
    for (struct str field; rest.n && (field = next_field(&rest)).n;) {
        bool bcc = is_field(field, "Bcc");
        bool names_recipients = bcc || is_field(field, "To") || is_field(field, "Cc");
        struct str value = field, name, bad;
        str_cut(&value, ':', &name);
        if (from_headers && names_recipients && !smtp_addresslist_each(value, add_recipient, o, &bad))
            return cli_fail(CLI_DATA, "in %.*s: this is no address: %.*s", STR_ARG(name), STR_ARG(bad));
        o->has_from |= is_field(field, "From");
        o->has_date |= is_field(field, "Date");
        o->has_id |= is_field(field, "Message-ID");
        o->has_to |= !bcc && names_recipients;
        if (!bcc && !is_field(field, "Return-Path"))
            buf_add(kept, field);
    }
    *ret_body = rest;
    return CLI_OK;
}

static void add_missing_headers(struct outgoing *o, struct str sender, const char *full_name)
{
    char date[CLOCK_TEXT_BYTES];
    unsigned long long random;
    now_random(&random, sizeof random);
    clock_rfc5322(now_wall_ms(), date);
    if (!o->has_from && full_name)
        buf_addf(&o->content, "From: %s <%.*s>\n", full_name, STR_ARG(sender));
    else if (!o->has_from)
        buf_addf(&o->content, "From: %.*s\n", STR_ARG(sender));
    if (!o->has_date)
        buf_addf(&o->content, "Date: %s\n", date);
    if (!o->has_id)
        buf_addf(&o->content, "Message-ID: <%llx.%llx@%s>\n", (unsigned long long)now_wall_ms(), random, o->domain);
    if (!o->has_to)
        buf_add(&o->content, STR("To: undisclosed-recipients:;\n"));
}

static int build(struct outgoing *o, const struct sendmail_options *options, struct str sender)
{
    struct str body;
    struct buf kept;
    buf_init(&kept, MESSAGE_MAX_BYTES);
    int status = read_headers(o, options->recipients_from_headers, &kept, &body);
    if (status == CLI_OK) {
        add_missing_headers(o, sender, options->full_name);
        buf_add(&o->content, buf_str(&kept));
        if (body.n == 0 || (body.p[0] != '\n' && !str_starts(body, STR("\r\n"))))
            buf_add(&o->content, STR("\n"));
        buf_add(&o->content, body);
        if (o->content.failed)
            status = cli_fail(CLI_DATA, "the message is too long");
    }
    buf_done(&kept);
    return status;
}

static struct str sender_of(struct outgoing *o, const struct sendmail_options *options)
{
    if (options->sender) {
        struct str s = str_of(options->sender);
        if (s.n >= 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
            s = str_slice(s.p + 1, s.n - 2);
        if (s.n == 0 || str_find(s, '@') < s.n)
            return s;
        return str_of(arena_printf(&o->arena, "%.*s@%s", STR_ARG(s), o->domain));
    }
    const struct passwd *pw = getpwuid(getuid());
    return str_of(arena_printf(&o->arena, "%s@%s", pw ? pw->pw_name : "unknown", o->domain));
}

int sendmail_send(const struct conf *conf, const struct sendmail_options *options)
{
    struct outgoing *o = calloc(1, sizeof *o);
    if (!o)
        return cli_fail(CLI_TRY_AGAIN, "out of memory");
    arena_init(&o->arena, 16 << 20);
    buf_init(&o->input, MESSAGE_MAX_BYTES);
    buf_init(&o->content, MESSAGE_MAX_BYTES);
    o->domain = conf->n_servers ? conf->server[0].name : "localhost";
    struct err err = { 0 };
    struct str sender = sender_of(o, options), bad;
    int status = CLI_OK;
    for (size_t i = 0; i < options->n_recipients && status == CLI_OK; i++)
        if (!smtp_addresslist_each(str_of(options->recipient[i]), add_recipient, o, &bad))
            status = cli_fail(CLI_DATA, "this is no address: %.*s", STR_ARG(bad));
    if (status == CLI_OK)
        status = read_message(o, !options->dot_is_text);
    if (status == CLI_OK)
        status = build(o, options, sender);
    if (status == CLI_OK && o->too_many)
        status = cli_fail(CLI_DATA, "more than %d recipients", RECIPIENTS_MAX);
    if (status == CLI_OK && o->n_recipients == 0)
        status = cli_fail(CLI_USAGE, "no recipients; name them, or use -t to take them from the message");
    if (status == CLI_OK) {
        struct submit m = { sender, o->recipient, o->n_recipients, buf_str(&o->content) };
        char id[32];
        status = submit_message(conf, &m, id, sizeof id, &err);
        if (status != CLI_OK)
            cli_fail(status, "%s", err.text);
    }
    arena_done(&o->arena);
    buf_done(&o->input);
    buf_done(&o->content);
    free(o);
    return status;
}

static int flush_queue(const struct conf *conf)
{
    struct err err = { 0 };
    json_t *last;
    int status = control_ask(conf, json_pack("{s:s,s:{}}", "verb", "queue.retry", "filter"), STR_NONE, NULL, NULL, &last, &err);
    json_decref(last);
    return status == CLI_OK ? CLI_OK : cli_fail(status, "%s", err.text);
}

/* The value of an option: behind its letter, or the next argument. */
static const char *value_of(int argc, char **argv, int *i)
{
    if (argv[*i][2])
        return argv[*i] + 2;
    return ++*i < argc ? argv[*i] : NULL;
}

enum mode { SEND, SMTP, LIST, ALIASES, FLUSH, UNKNOWN /* -bd, -bt …: nothing to be done silently */ };

/* Options that take a value, are accepted and change nothing here. */
static bool takes_unused_value(char letter)
{
    return strchr("BLNOoRVXhprAD", letter) != NULL;
}

/* Letters without a value, together or alone: -t, -i, -ti, -it, and those that change nothing here. */
static bool take_flags(const char *letters, struct sendmail_options *o)
{
    if (strspn(letters, "itGmnsvx") != strlen(letters))
        return false;
    o->recipients_from_headers |= strchr(letters, 't') != NULL;
    o->dot_is_text |= strchr(letters, 'i') != NULL;
    return true;
}

static bool read_options(int argc, char **argv, struct sendmail_options *o, enum mode *mode, const char **config)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--") == 0) {
            i++;
            break;
        }
        if (strcmp(arg, "-oi") == 0)
            o->dot_is_text = true;
        else if (take_flags(arg + 1, o))
            continue;
        else if (arg[1] == 'f' || arg[1] == 'r')
            o->sender = value_of(argc, argv, &i);
        else if (arg[1] == 'F')
            o->full_name = value_of(argc, argv, &i);
        else if (arg[1] == 'C')
            *config = value_of(argc, argv, &i);
        else if (arg[1] == 'b')
            *mode = arg[2] == 's' ? SMTP : arg[2] == 'p' ? LIST : arg[2] == 'i' ? ALIASES : arg[2] == 'm' ? SEND : UNKNOWN;
        else if (arg[1] == 'q')
            *mode = FLUSH;
        else if (takes_unused_value(arg[1]))
            (void)value_of(argc, argv, &i);
        else
            return false;
    }
    o->recipient = i < argc ? argv + i : NULL;
    o->n_recipients = i < argc ? (size_t)(argc - i) : 0;
    return true;
}

int cli_sendmail(int argc, char **argv, const struct cli_options *options)
{
    struct sendmail_options o = { 0 };
    struct cli_options own = *options;
    enum mode mode = SEND;
    if (!read_options(argc, argv, &o, &mode, &own.config) || !own.config || mode == UNKNOWN)
        return cli_fail(CLI_USAGE, "usage: sendmail [-t] [-i] [-f sender] [-F name] [-bs|-bp|-q] [recipient ...]");
    const struct conf *conf;
    if (mode == ALIASES)
        return CLI_OK; /* there is no alias file to build */
    if (mode == LIST)
        return cli_mailq(1, argv, &own);
    int status = cli_load_conf(&own, &conf);
    if (status != CLI_OK)
        return status;
    status = mode == FLUSH ? flush_queue(conf) : mode == SMTP ? sendmail_smtp(conf) : sendmail_send(conf, &o);
    conf_unref(&conf);
    return status;
}

int cli_newaliases(int argc, char **argv, const struct cli_options *options)
{
    (void)argc, (void)argv, (void)options;
    return CLI_OK; /* there is no alias file to build */
}
