#include "smtp/dsn.h"

enum { FOLD_AT = 76 };

static const struct {
    const char *action, *subject, *intro;
} words[] = {
    [SMTP_DSN_FAILED] = { "failed", "Undelivered: your message was not delivered",
                          "Your message could not be delivered to:" },
    [SMTP_DSN_DELAYED] = { "delayed", "Delayed: your message is still being tried",
                           "Your message has not been delivered yet to the recipients below. You need not send it again;\r\n"
                           "it will be tried further:" },
    [SMTP_DSN_DELIVERED] = { "delivered", "Delivered: your message has arrived", "Your message was delivered to:" },
    [SMTP_DSN_RELAYED] = { "relayed", "Relayed: your message was passed on",
                           "Your message was passed on to a server that does not confirm delivery:" },
    [SMTP_DSN_EXPANDED] = { "expanded", "Expanded: your message went to a list", "Your message was passed on to a list:" },
};

/* Peers' words go into header fields: nothing but printable characters, so that no line can be forged. */
static void add_clean(struct buf *out, struct str s, bool utf8)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = c >= 0x20 && c < 0x7f;
        buf_add_char(out, plain || (utf8 && c >= 0x80) ? (char)c : ' ');
    }
}

/* "Name: value", folded at spaces so that a long reply stays within a line's length. */
static void add_field(struct buf *out, const char *name, const char *type, struct str value, bool utf8)
{
    size_t line = out->n;
    buf_addf(out, "%s: ", name);
    if (type)
        buf_addf(out, "%s; ", type);
    while (value.n) {
        size_t word = str_find(value, ' ');
        if (out->n - line + word > FOLD_AT && out->n - line > 24) {
            buf_add(out, STR("\r\n "));
            line = out->n;
        }
        add_clean(out, str_slice(value.p, word), utf8);
        value = str_skip(value, word);
        if (value.n) {
            buf_add_char(out, ' ');
            value = str_skip(value, 1);
        }
        if (out->failed)
            return;
    }
    buf_add(out, STR("\r\n"));
}

/* The type of an address in a report (RFC 6533 section 3). */
static const char *address_type(struct str address)
{
    for (size_t i = 0; i < address.n; i++)
        if ((unsigned char)address.p[i] >= 0x80)
            return "utf-8";
    return "rfc822";
}

static void add_headers(const struct smtp_dsn *d, enum smtp_dsn_action worst, struct buf *out)
{
    buf_addf(out, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\r\n", STR_ARG(d->reporting_mta));
    buf_add(out, STR("To: <"));
    add_clean(out, d->to, true);
    buf_add(out, STR(">\r\n"));
    buf_addf(out, "Subject: %s\r\n", words[worst].subject);
    buf_addf(out, "Date: %.*s\r\n", STR_ARG(d->date));
    buf_addf(out, "Message-ID: <%.*s>\r\n", STR_ARG(d->message_id));
    buf_add(out, STR("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"));
    buf_addf(out, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%.*s\"\r\n",
             STR_ARG(d->boundary));
    if (d->utf8 || d->body_8bit)
        buf_add(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_add(out, STR("\r\nThis is a delivery status notification in MIME format.\r\n\r\n"));
}

static void add_human(const struct smtp_dsn *d, struct buf *out)
{
    buf_addf(out, "--%.*s\r\nContent-Type: text/plain; charset=%s\r\n", STR_ARG(d->boundary), d->utf8 ? "utf-8" : "us-ascii");
    if (d->utf8)
        buf_add(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_addf(out, "\r\nThis is the mail system at %.*s.\r\n", STR_ARG(d->reporting_mta));
    for (size_t action = 0; action < sizeof words / sizeof words[0]; action++) {
        bool told = false;
        for (size_t i = 0; i < d->n_recipients; i++) {
            const struct smtp_dsn_recipient *r = &d->recipient[i];
            if (r->action != action)
                continue;
            if (!told)
                buf_addf(out, "\r\n%s\r\n\r\n", words[action].intro);
            told = true;
            buf_add(out, STR("  <"));
            add_clean(out, r->address, true);
            buf_add(out, STR(">\r\n    "));
            add_clean(out, r->diagnostic, d->utf8);
            buf_add(out, STR("\r\n"));
        }
    }
    buf_add(out, STR("\r\nFor help, write to "));
    if (d->postmaster.n)
        add_clean(out, d->postmaster, d->utf8);
    else
        buf_addf(out, "postmaster@%.*s", STR_ARG(d->reporting_mta));
    buf_addf(out, " and include this report. The message's queue id was %.*s.\r\n\r\n", STR_ARG(d->queue_id));
}

static void add_recipient(const struct smtp_dsn_recipient *r, bool utf8, struct buf *out)
{
    buf_add(out, STR("\r\n"));
    if (r->orcpt.n) {
        struct str value = r->orcpt, type;
        if (str_cut(&value, ';', &type) && type.n && type.n < 32) {
            char name[32];
            str_copy(type, name, sizeof name);
            add_field(out, "Original-Recipient", name, value, utf8);
        }
    }
    add_field(out, "Final-Recipient", address_type(r->address), r->address, utf8);
    buf_addf(out, "Action: %s\r\n", words[r->action].action);
    add_field(out, "Status", NULL, r->status, false);
    if (r->remote_mta.n)
        add_field(out, "Remote-MTA", "dns", r->remote_mta, utf8);
    if (r->diagnostic.n)
        add_field(out, "Diagnostic-Code", r->from_smtp ? "smtp" : "x-postern", r->diagnostic, utf8);
    if (r->will_retry_until.n)
        add_field(out, "Will-Retry-Until", NULL, r->will_retry_until, false);
}

static void add_machine(const struct smtp_dsn *d, struct buf *out)
{
    buf_addf(out, "--%.*s\r\nContent-Type: message/%s\r\n", STR_ARG(d->boundary),
             d->utf8 ? "global-delivery-status" : "delivery-status");
    if (d->utf8)
        buf_add(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_add(out, STR("\r\n"));
    add_field(out, "Reporting-MTA", "dns", d->reporting_mta, d->utf8);
    if (d->envid.n)
        add_field(out, "Original-Envelope-Id", NULL, d->envid, d->utf8);
    add_field(out, "Arrival-Date", NULL, d->arrival_date, false);
    for (size_t i = 0; i < d->n_recipients; i++)
        add_recipient(&d->recipient[i], d->utf8, out);
    buf_add(out, STR("\r\n"));
}

static void add_original(const struct smtp_dsn *d, struct buf *out)
{
    const char *type = d->full ? (d->utf8 ? "message/global" : "message/rfc822")
                               : (d->utf8 ? "message/global-headers" : "text/rfc822-headers");
    buf_addf(out, "--%.*s\r\nContent-Type: %s\r\n", STR_ARG(d->boundary), type);
    if (d->utf8 || d->body_8bit)
        buf_add(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_add(out, STR("\r\n"));
    buf_add(out, d->original);
    if (d->original.n < 2 || memcmp(d->original.p + d->original.n - 2, "\r\n", 2) != 0)
        buf_add(out, STR("\r\n"));
    buf_addf(out, "\r\n--%.*s--\r\n", STR_ARG(d->boundary));
}

bool smtp_dsn_build(const struct smtp_dsn *d, struct buf *out)
{
    enum smtp_dsn_action worst = SMTP_DSN_EXPANDED;
    for (size_t i = 0; i < d->n_recipients; i++)
        if (d->recipient[i].action < worst)
            worst = d->recipient[i].action;
    add_headers(d, worst, out);
    add_human(d, out);
    add_machine(d, out);
    add_original(d, out);
    return !out->failed;
}

struct str smtp_dsn_header_section(struct str message, size_t max)
{
    size_t end = 0; /* of the last whole line that is kept */
    while (end < message.n && end < max) {
        struct str rest = str_skip(message, end);
        const char *lf = memmem(rest.p, rest.n, "\r\n", 2);
        size_t line = lf ? (size_t)(lf - rest.p) + 2 : rest.n;
        if (end + line > max)
            break;
        end += line;
        if (line == 2)
            break;
    }
    return str_slice(message.p, end);
}
