#include "smtp/trace.h"

const char *smtp_trace_protocol(bool esmtp, bool tls, bool authenticated, bool smtputf8)
{
    static const char *const names[2][2][2] = {
        /* [smtputf8][tls][authenticated] */
        { { "ESMTP", "ESMTPA" }, { "ESMTPS", "ESMTPSA" } },
        { { "UTF8SMTP", "UTF8SMTPA" }, { "UTF8SMTPS", "UTF8SMTPSA" } },
    };
    /* RFC 3848 knows no SMTPS or SMTPA: who said HELO under TLS is told by the ESMTP words. */
    return !esmtp && !tls && !authenticated && !smtputf8 ? "SMTP" : names[smtputf8][tls][authenticated];
}

static void add_clean(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool harmless = c > 32 && c != 127 && c != '(' && c != ')' && c != '\\';
        buf_add_char(out, harmless ? s.p[i] : '?');
    }
}

static void add_from(const struct smtp_trace *t, struct buf *out)
{
    buf_add(out, STR("Received: from "));
    add_clean(out, t->helo.n ? t->helo : STR("unknown"));
    buf_add(out, STR(" ("));
    add_clean(out, t->client_name.n ? t->client_name : STR("unknown"));
    buf_add_c(out, str_find(t->client_ip, ':') < t->client_ip.n ? " [IPv6:" : " [");
    add_clean(out, t->client_ip);
    buf_add(out, STR("])\r\n"));
}

static void add_security(const struct smtp_trace *t, struct buf *out)
{
    if (t->tls_version.n) {
        buf_add(out, STR("\t(using "));
        add_clean(out, t->tls_version);
        buf_add(out, STR(" with cipher "));
        add_clean(out, t->tls_cipher);
        if (t->tls_bits)
            buf_addf(out, " (%u bits)", t->tls_bits);
        buf_add(out, STR(")\r\n"));
    }
    if (t->user.n) {
        buf_add(out, STR("\t(authenticated as "));
        add_clean(out, t->user);
        buf_add(out, STR(")\r\n"));
    }
}

bool smtp_trace_received(const struct smtp_trace *t, struct buf *out)
{
    add_from(t, out);
    add_security(t, out);
    buf_add(out, STR("\tby "));
    add_clean(out, t->server_name);
    if (t->server_text.n) {
        buf_add(out, STR(" ("));
        add_clean(out, t->server_text);
        buf_add(out, STR(")"));
    }
    buf_addf(out, " with %s id ", smtp_trace_protocol(t->esmtp, t->tls_version.n > 0, t->authenticated, t->smtputf8));
    add_clean(out, t->queue_id);
    if (t->recipient.n) {
        buf_add(out, STR("\r\n\tfor <"));
        add_clean(out, t->recipient);
        buf_add(out, STR(">"));
    }
    buf_add(out, STR(";\r\n\t"));
    buf_add(out, t->date);
    return buf_add(out, STR("\r\n"));
}
