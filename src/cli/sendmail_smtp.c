/* sendmail -bs: SMTP on standard input and output. The machine is the daemon's own; each message is handed over like
 * one from sendmail -t, and 250 comes when that has succeeded. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/sendmail.h"
#include "cli/submit.h"
#include "io/now.h"
#include "smtp/server.h"

enum { INPUT_BYTES = 64 * 1024, RECIPIENTS_MAX = 1000, MESSAGE_MAX_BYTES = 128 << 20 };

struct talk {
    const struct conf *conf;
    struct smtp_server *machine;
    struct buf content;
};

static bool flush_output(struct talk *t)
{
    struct buf *out = smtp_server_output(t->machine);
    while (out->n) {
        ssize_t n = write(STDOUT_FILENO, out->p, out->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        buf_consume(out, (size_t)n);
    }
    return true;
}

/* For good only what is wrong with the message or not allowed; whatever ails this machine passes. */
static void reject(struct talk *t, int status, const char *why)
{
    bool for_good = status == CLI_DATA || status == CLI_NOT_PERMITTED || status == CLI_USAGE;
    smtp_server_reject(t->machine, for_good ? 554 : 451, for_good ? "5.3.0" : "4.3.0", why);
}

static void commit(struct talk *t, const struct smtp_server_transaction *transaction)
{
    static struct str recipients[RECIPIENTS_MAX];
    size_t n = 0;
    for (const struct smtp_server_recipient *r = transaction->recipients; r && n < RECIPIENTS_MAX; r = r->next)
        recipients[n++] = r->address.text;
    struct submit m = { transaction->sender.text, recipients, n, buf_str(&t->content) };
    struct err err = { 0 };
    char id[32];
    if (t->content.failed)
        err_set(&err, -ENOMEM, "Out of memory for the message");
    int status = t->content.failed ? CLI_TRY_AGAIN : submit_message(t->conf, &m, id, sizeof id, &err);
    if (status == CLI_OK)
        smtp_server_committed(t->machine, id[0] ? str_of(id) : STR("drop"));
    else
        reject(t, status, err.text);
    buf_clear(&t->content);
}

/* False: the conversation is over. */
static bool on_event(struct talk *t, const struct smtp_server_event *event, bool *ret_read)
{
    switch (event->type) {
    case SMTP_SERVER_READ: *ret_read = true; return flush_output(t);
    case SMTP_SERVER_FLUSH: return flush_output(t);
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT: smtp_server_accept(t->machine); return true;
    case SMTP_SERVER_DATA:
        buf_clear(&t->content);
        smtp_server_accept(t->machine);
        return true;
    case SMTP_SERVER_BODY: buf_add(&t->content, event->data); return true;
    case SMTP_SERVER_COMMIT: commit(t, event->transaction); return true;
    case SMTP_SERVER_CLOSE: flush_output(t); return false;
    default: return true; /* told, or never asked for without TLS and AUTH on offer */
    }
}

static void converse(struct talk *t)
{
    static char input[INPUT_BYTES];
    struct str in = STR_NONE;
    bool at_end = false;
    smtp_server_greet(t->machine, now_mono_ms());
    for (bool want_read = false;;) {
        struct smtp_server_event event;
        size_t used;
        smtp_server_feed(t->machine, in, now_mono_ms(), &used, &event);
        in = str_skip(in, used);
        if (!on_event(t, &event, &want_read))
            return;
        if (!want_read || in.n)
            continue;
        want_read = false;
        if (at_end)
            return;
        ssize_t n = read(STDIN_FILENO, input, sizeof input);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            at_end = true;
            smtp_server_lost(t->machine);
        }
        in = str_slice(input, n > 0 ? (size_t)n : 0);
    }
}

int sendmail_smtp(const struct conf *conf)
{
    struct talk t = { .conf = conf };
    struct smtp_server_limits limits = smtp_server_limits_default;
    limits.max_message_bytes = conf->max_message_size;
    limits.max_recipients = RECIPIENTS_MAX;
    struct smtp_server_options options = { .limits = &limits,
                                           .hostname = str_of(conf->n_servers ? conf->server[0].name : "localhost") };
    if (limits.max_message_bytes == 0 || limits.max_message_bytes > MESSAGE_MAX_BYTES)
        limits.max_message_bytes = MESSAGE_MAX_BYTES;
    buf_init(&t.content, (size_t)limits.max_message_bytes + 1);
    if (smtp_server_new(&options, &t.machine) < 0)
        return cli_fail(CLI_TRY_AGAIN, "out of memory");
    converse(&t);
    smtp_server_free(t.machine);
    buf_done(&t.content);
    return CLI_OK;
}
