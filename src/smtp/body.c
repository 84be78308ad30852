#include "smtp/body.h"

#include <assert.h>

enum {
    AT_START, /* behind CRLF, or at the very beginning: a dot here is framing */
    AT_DOT,   /* a dot at the start was taken away; CRLF now is the end */
    AT_MIDDLE,
    AT_REPAIRED, /* behind a bare LF that went out as CRLF: a line start for people, not for dots */
};

static void fault(struct smtp_body *b, enum smtp_body_fault what)
{
    if (!b->fault)
        b->fault = what;
}

static struct str hand_out(const struct smtp_body *b, struct str slice)
{
    return b->fault ? STR_NONE : slice;
}

/* Counted as it is scanned, not as it is handed out: which fault is the first must not hang on the input's cuts. */
static void count(struct smtp_body *b, size_t n)
{
    if (b->max_bytes && n > b->max_bytes - b->content_bytes)
        fault(b, SMTP_BODY_TOO_BIG);
    else
        b->content_bytes += n;
}

static void add_text(struct smtp_body *b, size_t n)
{
    if (n == 0)
        return;
    b->at = AT_MIDDLE;
    b->line_bytes += n;
    if (b->text_line_max_bytes && b->line_bytes > b->text_line_max_bytes)
        fault(b, SMTP_BODY_LONG_LINE);
    count(b, n);
}

/* Behind a CRLF that is content. */
static void line_start(struct smtp_body *b, unsigned char at)
{
    count(b, 2);
    b->at = at;
    b->line_bytes = 0;
}

/* One step of the scan from in.p[*i]: moves *i, and says whether the run of content [from, *to) must be handed out now;
 * *ret_static is then what follows it that is not in the input. */
enum step { STEP_ON, STEP_OUT, STEP_OUT_CRLF };

static enum step step_bare_lf(struct smtp_body *b, size_t from, size_t text_end, size_t *i, size_t *to)
{
    if (!b->repair) {
        fault(b, SMTP_BODY_BARE_LF);
        b->at = AT_MIDDLE;
        return STEP_ON;
    }
    if (text_end > from) { /* first what stands before the LF; the LF is looked at again */
        *to = *i = text_end;
        return STEP_OUT;
    }
    line_start(b, AT_REPAIRED);
    return STEP_OUT_CRLF;
}

static enum step body_step(struct smtp_body *b, struct str in, size_t from, size_t *i, size_t *to)
{
    bool held = b->line.cr;
    size_t used, start = *i;
    enum smtp_line_end end = smtp_line_scan(&b->line, str_skip(in, start), &used);
    *i = *to = start + used;
    switch (end) {
    case SMTP_LINE_MORE:
        *to -= b->line.cr;
        add_text(b, *to - start);
        return STEP_OUT;
    case SMTP_LINE_CRLF: {
        size_t text = held ? 0 : used - 2;
        if (b->at == AT_DOT && text == 0) {
            b->end = true;
            *to = from;
            return STEP_OUT;
        }
        add_text(b, text);
        line_start(b, AT_START);
        return held ? STEP_OUT_CRLF : STEP_ON;
    }
    case SMTP_LINE_BARE_LF:
        add_text(b, used - 1);
        return step_bare_lf(b, from, start + used - 1, i, to);
    case SMTP_LINE_BARE_CR:
        add_text(b, used ? used - 1 : 0);
        fault(b, SMTP_BODY_BARE_CR);
        break;
    case SMTP_LINE_NUL:
        add_text(b, used - 1);
        fault(b, SMTP_BODY_NUL);
        break;
    }
    b->at = AT_MIDDLE;
    return STEP_ON;
}

struct str smtp_body_next(struct smtp_body *b, struct str in, size_t *ret_used)
{
    size_t from = 0, i = 0, to = 0;
    enum step step = STEP_ON;
    while (step == STEP_ON && i < in.n) {
        /* A held CR belongs to the line before, whatever the next octet is. */
        if (b->at == AT_START && b->dots && in.p[i] == '.' && !b->line.cr) {
            if (to > from)
                break;
            from = to = ++i;
            b->at = AT_DOT;
            continue;
        }
        step = body_step(b, in, from, &i, &to);
    }
    *ret_used = i;
    if (step == STEP_OUT_CRLF) {
        assert(b->fault || i == 1 || from == i - 1);
        return hand_out(b, STR("\r\n"));
    }
    return hand_out(b, str_slice(in.p ? in.p + from : NULL, to - from));
}

struct str smtp_body_finish(struct smtp_body *b)
{
    if (b->line.cr)
        fault(b, SMTP_BODY_BARE_CR);
    if (b->at != AT_MIDDLE)
        return STR_NONE;
    line_start(b, AT_START);
    return hand_out(b, STR("\r\n"));
}
