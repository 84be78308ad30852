/* The server machine under any input, cut anywhere, with any answers. The first eight octets choose policy, limits and
 * answers; the rest is what the client sends.
 *
 * Held: content holds no bare CR, no bare LF and no NUL, whatever the cuts; a committed content ends with CRLF; ABORT
 * and COMMIT come only inside a transaction; replies are whole lines; memory is bounded; and the cuts make no
 * difference to replies and content. */
#include "base/buf.h"
#include "smtp/server.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct run {
    struct smtp_server *s;
    uint32_t answers, cuts;
    struct buf replies, content;
    bool open, cr, repair;
    unsigned n_shown;
};

#define HOLD(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "does not hold: %s (line %d)\n", #condition, __LINE__); \
            abort();                                                                \
        }                                                                           \
    } while (0)

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void check_content(struct run *r, struct str slice)
{
    HOLD(r->open && slice.n > 0);
    for (size_t i = 0; i < slice.n; i++) {
        char c = slice.p[i];
        HOLD(c != 0);
        HOLD((c == '\n') == r->cr);
        r->cr = c == '\r';
    }
    buf_add(&r->content, slice);
}

static void check_replies(struct run *r)
{
    struct buf *out = smtp_server_output(r->s);
    HOLD(out->n < 300 * 1024);
    struct str text = buf_str(out);
    if (text.n)
        HOLD(text.n >= 5 && text.p[text.n - 1] == '\n' && text.p[text.n - 2] == '\r');
    for (size_t i = 0; i < text.n; i++)
        HOLD(text.p[i] != 0 && (text.p[i] != '\n' || (i && text.p[i - 1] == '\r')));
    buf_add(&r->replies, text);
    buf_done(out);
}

static void answer_auth(struct run *r)
{
    uint32_t dice = next(&r->answers) % 4;
    if (dice == 0)
        smtp_server_auth_done(r->s, true, 0, NULL, NULL);
    else if (dice == 1)
        smtp_server_auth_done(r->s, false, 454, "4.7.0", "Not now");
    else
        smtp_server_auth_challenge(r->s, dice == 2 ? STR_NONE : STR("\0challenge\xff"));
}

static void answer(struct run *r)
{
    uint32_t dice = next(&r->answers) % 16;
    if (dice > 1)
        smtp_server_accept(r->s);
    else
        smtp_server_reject(r->s, dice ? 550 : 421, "5.7.1", "No\r\n250 \xc3\xa9");
}

static void act(struct run *r, const struct smtp_server_event *ev)
{
    switch (ev->type) {
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_AUTH_RESPONSE:
        answer_auth(r);
        break;
    case SMTP_SERVER_MAIL:
        HOLD(!r->open);
        r->open = true;
        {
            uint32_t before = r->answers;
            bool yes = next(&before) % 16 > 1;
            answer(r);
            r->open = yes;
        }
        break;
    case SMTP_SERVER_RCPT:
    case SMTP_SERVER_DATA:
        HOLD(r->open);
        r->cr = false;
        answer(r);
        break;
    case SMTP_SERVER_STARTTLS:
        answer(r);
        break;
    case SMTP_SERVER_BODY:
        check_content(r, ev->data);
        break;
    case SMTP_SERVER_COMMIT:
        HOLD(r->open && !r->cr && ev->transaction->n_recipients > 0);
        HOLD(r->content.failed || r->content.n == 0 || r->content.p[r->content.n - 1] == '\n');
        r->open = false;
        HOLD(r->content.failed || ev->transaction->content_bytes == r->content.n);
        buf_clear(&r->content);
        if (next(&r->answers) % 8)
            smtp_server_committed(r->s, STR("Q"));
        else
            smtp_server_reject(r->s, 451, "4.3.0", "Cannot store");
        break;
    case SMTP_SERVER_ABORT:
        HOLD(r->open);
        r->open = r->cr = false;
        buf_clear(&r->content);
        break;
    default:
        break;
    }
}

static const struct smtp_server_limits limits_small = { .line_max_bytes = 600,
                                                        .auth_line_max_bytes = 1000,
                                                        .line_swallow_max_bytes = 3000,
                                                        .text_line_max_bytes = 50,
                                                        .max_message_bytes = 300,
                                                        .max_swallow_bytes = 2000,
                                                        .max_recipients = 3,
                                                        .max_commands = 50,
                                                        .max_errors = 20,
                                                        .command_timeout_ms = 1000,
                                                        .data_timeout_ms = 1000,
                                                        .data_grace_ms = 5000,
                                                        .data_min_bytes_per_s = 10 };
static const struct smtp_server_limits limits_none = { .line_max_bytes = 2048, .auth_line_max_bytes = 96 * 1024 };

static void play(const uint8_t *head, struct str in, bool cut, struct run *r)
{
    uint8_t flags = head[0];
    struct smtp_server_budget budget = { .max_bytes = 4000 };
    const struct smtp_server_options options = {
        .hostname = STR("mx.test"),
        .limits = flags & 1   ? &limits_small
                  : flags & 2 ? &limits_none
                              : NULL,
        .auth_budget = flags & 4 ? &budget : NULL,
        .policy = { .deny = head[1] == 255,
                    .starttls_available = head[1] & 1,
                    .require_tls = head[1] & 2 && head[1] & 4,
                    .require_auth = head[1] & 8 && head[1] & 16,
                    .line_ends_repair = head[1] & 32,
                    .mechanisms = STR("PLAIN LOGIN"),
                    .mechanisms_tls = STR("PLAIN LOGIN"),
                    .mechanisms_known = STR("SCRAM-SHA-256"),
                    .exps_mechanisms = head[1] & 64 ? STR("PLAIN LOGIN") : STR_NONE,
                    .login_line = head[1] & 64 },
    };
    *r = (struct run){ .answers = head[2] | (uint32_t)head[3] << 8, .cuts = head[4] | (uint32_t)head[5] << 8 };
    buf_init(&r->replies, 1 << 20);
    buf_init(&r->content, 1 << 20);
    if (smtp_server_new(&options, &r->s) != 0)
        return;
    smtp_server_greet(r->s, 0);
    size_t at = 0, end = cut ? 0 : in.n;
    struct smtp_server_event ev = { SMTP_SERVER_READ };
    while (ev.type != SMTP_SERVER_CLOSE && ev.type != SMTP_SERVER_WAIT && (at < in.n || ev.type != SMTP_SERVER_READ)) {
        if (ev.type == SMTP_SERVER_READ && cut)
            end = at + 1 + next(&r->cuts) % (head[6] + 1u);
        if (end > in.n)
            end = in.n;
        size_t used;
        smtp_server_feed(r->s, str_slice(in.p + at, end - at), (int64_t)at, &used, &ev);
        HOLD(used <= end - at);
        at += used;
        HOLD(ev.type != SMTP_SERVER_READ || at == end);
        act(r, &ev);
        check_replies(r);
        (void)smtp_server_deadline_ms(r->s);
    }
    if (head[7] & 1)
        smtp_server_lost(r->s);
    else
        smtp_server_timeout(r->s, INT64_MAX - 1);
    for (int i = 0; i < 3; i++) {
        size_t used;
        smtp_server_feed(r->s, STR_NONE, 0, &used, &ev);
        act(r, &ev);
    }
    HOLD(!smtp_server_closed(r->s) || !r->open);
    smtp_server_free(r->s);
    HOLD(budget.used_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 8)
        return 0;
    struct str in = str_slice(data + 8, n - 8);
    struct run whole, cut;
    play(data, in, false, &whole);
    play(data, in, true, &cut);
    /* Whether something stands behind STARTTLS is told by what has come, and only a line that came in pieces takes
     * memory. */
    if (!(data[1] & 1) && !(data[0] & 4)) {
        HOLD(str_eq(buf_str(&whole.replies), buf_str(&cut.replies)));
        HOLD(whole.replies.failed == cut.replies.failed);
    }
    buf_done(&whole.replies);
    buf_done(&whole.content);
    buf_done(&cut.replies);
    buf_done(&cut.content);
    return 0;
}
