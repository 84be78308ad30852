/* Command lines and AUTH response lines, from input cut anywhere.
 *
 * A line that lies whole in the input is used where it lies. Only what must wait for more input is copied, and the copy
 * is given back at the line's end, so that an idle session holds none. Copies are wiped: an AUTH line holds a password.
 *
 * What goes wrong: a bare CR, bare LF or NUL is answered at once and the line thrown away up to its CRLF; an over-long
 * line, or one there is no AUTH memory for, is thrown away and answered at its CRLF. */
#include "smtp/server_internal.h"

#include <assert.h>

enum { LINE_FIRST_BYTES = 256, AUTH_HEAD_BYTES = sizeof "X-EXPS " - 1 };

static bool is_auth(const struct smtp_server *s, struct str head)
{
    return s->state == SERVER_AUTH_LINE || str_starts_nocase(head, STR("AUTH ")) ||
           (s->policy.exps_mechanisms.n && str_starts_nocase(head, STR("X-EXPS ")));
}

static size_t line_limit(const struct smtp_server *s, struct str head)
{
    return is_auth(s, head) ? s->limits->auth_line_max_bytes : s->limits->line_max_bytes;
}

/* Books what this session holds for AUTH; false when all sessions together would hold too much. */
static bool budget_book(struct smtp_server *s, size_t line_cap, size_t raw_cap)
{
    size_t held = (line_cap > s->limits->line_max_bytes ? line_cap : 0) + raw_cap;
    struct smtp_server_budget *b = s->budget;
    if (b) {
        size_t others = b->used_bytes - s->budget_held_bytes;
        if (held > s->budget_held_bytes && (others > b->max_bytes || held > b->max_bytes - others))
            return false;
        b->used_bytes = others + held;
    }
    s->budget_held_bytes = held;
    return true;
}

bool server_auth_reserve(struct smtp_server *s, size_t bytes)
{
    server_auth_wipe(s);
    s->auth_raw.max = bytes;
    return budget_book(s, s->line.cap, bytes) && buf_reserve(&s->auth_raw, bytes);
}

void server_auth_wipe(struct smtp_server *s)
{
    buf_wipe(&s->auth_raw);
    budget_book(s, s->line.cap, 0);
}

static void line_drop(struct smtp_server *s)
{
    buf_wipe(&s->line);
    budget_book(s, 0, s->auth_raw.cap);
}

/* buf_reserve() would leave a copy of what was there in freed memory. */
static bool line_grow(struct smtp_server *s, size_t need)
{
    if (need <= s->line.cap)
        return true;
    size_t cap = LINE_FIRST_BYTES;
    while (cap < need)
        cap *= 2;
    if (!budget_book(s, cap, s->auth_raw.cap))
        return false;
    char *p = malloc(cap);
    if (!p)
        return false;
    size_t n = s->line.n;
    if (n)
        memcpy(p, s->line.p, n);
    buf_wipe(&s->line);
    s->line.p = p;
    s->line.n = n;
    s->line.cap = cap;
    return true;
}

/* Puts a piece of the line by. False, and the mode says why, when the line cannot be had. */
static bool line_keep(struct smtp_server *s, struct str piece)
{
    while (piece.n) {
        size_t limit = line_limit(s, buf_str(&s->line));
        if (s->line.n >= limit) {
            s->line_mode = is_auth(s, buf_str(&s->line)) ? LINE_LONG_AUTH : LINE_LONG;
            line_drop(s);
            return false;
        }
        size_t n = piece.n < limit - s->line.n ? piece.n : limit - s->line.n;
        /* Only so much at first that the next turn can tell an AUTH line. */
        if (s->line.n < AUTH_HEAD_BYTES && n > AUTH_HEAD_BYTES)
            n = AUTH_HEAD_BYTES;
        if (!line_grow(s, s->line.n + n)) {
            s->line_mode = LINE_BUDGET;
            line_drop(s);
            return false;
        }
        memcpy(s->line.p + s->line.n, piece.p, n);
        s->line.n += n;
        piece = str_skip(piece, n);
    }
    return true;
}

static void line_over(struct smtp_server *s)
{
    line_drop(s);
    s->line_mode = LINE_NORMAL;
    s->line_bytes = 0;
    s->line_had_bare_lf = false;
    s->timing = false;
}

static void refuse_line(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    if (s->state == SERVER_AUTH_LINE)
        server_auth_broken(s, code, enhanced, text);
    else
        server_refuse(s, code, enhanced, "%s", text);
}

static void line_fault(struct smtp_server *s, enum smtp_line_end end)
{
    static const char *const texts[] = {
        [SMTP_LINE_BARE_CR] = "A CR without LF in the line; only CRLF ends a line",
        [SMTP_LINE_BARE_LF] = "An LF without CR in the line; only CRLF ends a line",
        [SMTP_LINE_NUL] = "A NUL octet in the line",
    };
    bool lf = end == SMTP_LINE_BARE_LF;
    if (s->line_mode == LINE_REFUSED) {
        if (lf && s->line_had_bare_lf)
            server_refuse_close(s, 421, "4.7.0", "Lines must end with CRLF, closing the connection");
    } else {
        line_drop(s);
        s->line_mode = LINE_REFUSED;
        server_trace_client(s, STR("[line refused]"));
        refuse_line(s, 500, "5.5.2", texts[end]);
    }
    s->line_had_bare_lf |= lf;
}

static void line_thrown_away(struct smtp_server *s)
{
    unsigned char mode = s->line_mode;
    if (mode != LINE_REFUSED)
        server_trace_client(s, STR("[line refused]"));
    line_over(s);
    if (mode == LINE_LONG)
        refuse_line(s, 500, "5.5.2", "Line too long");
    else if (mode == LINE_LONG_AUTH)
        refuse_line(s, 500, "5.5.6", "Authentication exchange line is too long");
    else if (mode == LINE_BUDGET)
        refuse_line(s, 454, "4.3.0", "Too many authentications at once, try again later");
}

/* The line in s->line and `piece`, without CRLF, is complete. */
static void line_done(struct smtp_server *s, struct str piece, bool more_input, struct smtp_server_event *ev)
{
    struct str line = piece;
    if (s->line.n) {
        if (line_keep(s, piece))
            line = buf_str(&s->line);
    } else if (piece.n > line_limit(s, piece)) {
        s->line_mode = is_auth(s, piece) ? LINE_LONG_AUTH : LINE_LONG;
    }
    if (s->line_mode != LINE_NORMAL) {
        line_thrown_away(s);
        return;
    }
    s->more_behind = more_input;
    if (s->state == SERVER_AUTH_LINE)
        server_auth_line(s, line, ev);
    else
        server_command(s, line, ev);
    line_over(s);
}

/* With its CRLF. Never less than what may be a good line. */
static size_t swallow_max_bytes(const struct smtp_server *s)
{
    const struct smtp_server_limits *l = s->limits;
    size_t good = (l->line_max_bytes > l->auth_line_max_bytes ? l->line_max_bytes : l->auth_line_max_bytes) + 2;
    if (l->line_swallow_max_bytes == 0)
        return SIZE_MAX;
    return l->line_swallow_max_bytes > good ? l->line_swallow_max_bytes : good;
}

bool server_read_lines(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev)
{
    struct str rest = str_skip(in, *used);
    if (rest.n == 0)
        return false;
    if (rest.p[0] == 0x16 && s->line_bytes == 0 && s->state == SERVER_COMMAND) { /* a TLS handshake record */
        *used = in.n;
        server_refuse_close(s, 554, "5.5.1", "This port speaks SMTP first, TLS only after STARTTLS");
        return false;
    }
    bool held = s->scan.cr;
    size_t n;
    enum smtp_line_end end = smtp_line_scan(&s->scan, rest, &n);
    *used += n;
    s->line_bytes += n;
    if (s->line_bytes > swallow_max_bytes(s)) {
        server_refuse_close(s, 421, "4.7.0", "Endless line, closing the connection");
        return false;
    }
    if (end == SMTP_LINE_CRLF) {
        if (s->line_mode == LINE_NORMAL)
            line_done(s, str_slice(rest.p, held ? 0 : n - 2), *used < in.n, ev);
        else
            line_thrown_away(s);
    } else if (end != SMTP_LINE_MORE) {
        line_fault(s, end);
    } else if (s->line_mode == LINE_NORMAL) {
        line_keep(s, str_slice(rest.p, n - s->scan.cr));
    }
    return s->state == SERVER_ASKED;
}
