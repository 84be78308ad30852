#include "smtp/server_internal.h"

#include "base/base64.h"

#include <stdarg.h>
#include <stdio.h>

static void reply_line(struct smtp_server *s, unsigned code, const char *enhanced, bool more, struct str text)
{
    size_t start = s->out.n;
    bool utf8 = s->transaction && s->transaction->smtputf8; /* RFC 6531 section 3.7.4.2 */
    if (smtp_reply_line(&s->out, (struct smtp_reply){ code, enhanced }, more, utf8, text) && s->trace)
        s->trace(s->trace_arg, false, str_slice(s->out.p + start, s->out.n - start - 2));
}

void server_reply(struct smtp_server *s, unsigned code, const char *enhanced, struct str text)
{
    reply_line(s, code, enhanced, false, text);
}

void server_reply_more(struct smtp_server *s, unsigned code, const char *enhanced, struct str text)
{
    reply_line(s, code, enhanced, true, text);
}

void server_refuse(struct smtp_server *s, unsigned code, const char *enhanced, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    s->n_errors++;
    reply_line(s, code, enhanced, false, str_of(text));
}

void server_refuse_close(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    server_refuse(s, code, enhanced, "%.*s %s", STR_ARG(s->hostname), text);
    server_close(s, text);
}

void server_challenge(struct smtp_server *s, struct str raw)
{
    buf_add(&s->out, STR("334 "));
    base64_encode(raw, &s->out);
    buf_add(&s->out, STR("\r\n"));
    if (s->trace && !s->out.failed) {
        char shown[64];
        int n = snprintf(shown, sizeof shown, "334 [masked %zu]", base64_encoded_bytes(raw.n));
        s->trace(s->trace_arg, false, raw.n ? str_slice(shown, (size_t)n) : STR("334 "));
    }
}

void server_trace_client(struct smtp_server *s, struct str line)
{
    if (s->trace)
        s->trace(s->trace_arg, true, line);
}

void server_trace_masked(struct smtp_server *s, struct str shown, size_t masked_bytes)
{
    if (!s->trace)
        return;
    char text[96];
    if (shown.n > 40)
        shown.n = 40;
    int n = snprintf(text, sizeof text, "%.*s%s[masked %zu]", STR_ARG(shown), shown.n ? " " : "", masked_bytes);
    s->trace(s->trace_arg, true, str_slice(text, (size_t)n));
}
