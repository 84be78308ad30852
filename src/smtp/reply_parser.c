#include "smtp/reply_parser.h"

void smtp_reply_parser_init(struct smtp_reply_parser *parser)
{
    *parser = (struct smtp_reply_parser){ .reply_over = true };
    buf_init(&parser->line, SMTP_REPLY_LINE_MAX_BYTES);
    buf_init(&parser->text, SMTP_REPLY_TEXT_MAX_BYTES);
}

void smtp_reply_parser_done(struct smtp_reply_parser *parser)
{
    buf_done(&parser->line);
    buf_done(&parser->text);
}

bool smtp_reply_parser_busy(const struct smtp_reply_parser *parser)
{
    return parser->line.n > 0 || !parser->reply_over;
}

/* One of "1.2.3": at most three digits. */
static size_t enhanced_number(struct str s)
{
    size_t n = 0;
    while (n < s.n && n < 3 && ascii_digit(s.p[n]))
        n++;
    return n;
}

size_t smtp_reply_enhanced(uint16_t code, struct str text, char ret_enhanced[SMTP_REPLY_ENHANCED_BYTES])
{
    ret_enhanced[0] = 0;
    if (text.n < 5 || text.p[0] != '0' + code / 100 || !memchr("245", text.p[0], 3) || text.p[1] != '.')
        return 0;
    size_t subject = enhanced_number(str_skip(text, 2));
    size_t at = 2 + subject;
    if (subject == 0 || at >= text.n || text.p[at] != '.')
        return 0;
    size_t detail = enhanced_number(str_skip(text, at + 1));
    at += 1 + detail;
    if (detail == 0 || (at < text.n && text.p[at] != ' '))
        return 0;
    if (!str_copy(str_slice(text.p, at), ret_enhanced, SMTP_REPLY_ENHANCED_BYTES))
        return 0;
    return at < text.n ? at + 1 : at;
}

static bool code_of(struct str line, uint16_t *ret_code)
{
    if (line.n < 3 || line.p[0] < '2' || line.p[0] > '5' || !ascii_digit(line.p[1]) || !ascii_digit(line.p[2]))
        return false;
    *ret_code = (uint16_t)((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0'));
    return true;
}

/* Adds to the kept text what fits, without control characters. */
static void keep(struct buf *text, struct str s)
{
    size_t room = text->max - text->n;
    if (s.n > room)
        s.n = room;
    char *at = buf_reserve(text, s.n);
    if (!at)
        return;
    for (size_t i = 0; i < s.n; i++)
        at[i] = (unsigned char)s.p[i] < ' ' || s.p[i] == 127 ? '?' : s.p[i];
    text->n += s.n;
}

/* The code, and the same enhanced code on every line, are kept once. */
static void keep_line(struct smtp_reply_parser *parser, struct str content)
{
    char enhanced[SMTP_REPLY_ENHANCED_BYTES];
    size_t prefix = smtp_reply_enhanced(parser->code, content, enhanced);
    if (parser->n_lines == 0) {
        char code[4] = { (char)('0' + parser->code / 100), (char)('0' + parser->code / 10 % 10),
                         (char)('0' + parser->code % 10), 0 };
        buf_clear(&parser->text);
        keep(&parser->text, str_of(code));
        memcpy(parser->enhanced, enhanced, sizeof enhanced);
    } else if (strcmp(enhanced, parser->enhanced) == 0) {
        content = str_skip(content, prefix);
    }
    content = str_trim(content);
    if (content.n == 0)
        return;
    keep(&parser->text, STR(" "));
    keep(&parser->text, content);
}

static enum smtp_reply_progress take_line(struct smtp_reply_parser *parser, struct str line, struct str *ret_line)
{
    uint16_t code = 0;
    if (!code_of(line, &code))
        return SMTP_REPLY_BAD;
    bool last = line.n == 3 || line.p[3] != '-';
    if (line.n > 3 && !memchr("- \t", line.p[3], 3))
        return SMTP_REPLY_BAD;
    if (parser->reply_over)
        parser->n_lines = 0;
    else if (code != parser->code)
        return SMTP_REPLY_BAD;
    if (parser->n_lines >= SMTP_REPLY_LINES_MAX)
        return SMTP_REPLY_BAD;
    parser->code = code;
    *ret_line = str_skip(line, 4);
    keep_line(parser, *ret_line);
    parser->n_lines++;
    parser->reply_over = last;
    return last ? SMTP_REPLY_LAST : SMTP_REPLY_LINE;
}

/* The line that was handed out last lies in parser->line until now. */
static void drop_taken(struct smtp_reply_parser *parser)
{
    size_t n = parser->line.n;
    if (n == 0 || parser->line.p[n - 1] != '\n')
        return;
    if (parser->line.cap > 4096)
        buf_done(&parser->line);
    else
        buf_clear(&parser->line);
}

enum smtp_reply_progress smtp_reply_parser_feed(struct smtp_reply_parser *parser, struct str *in, struct str *ret_line)
{
    *ret_line = STR_NONE;
    drop_taken(parser);
    const char *end = in->n ? memchr(in->p, '\n', in->n) : NULL;
    struct str part = end ? str_slice(in->p, (size_t)(end - in->p) + 1) : *in;
    struct str line = part;
    if (!end || parser->line.n > 0) {
        /* A line that came in one piece is used where it lies. */
        if (!buf_add(&parser->line, part))
            return SMTP_REPLY_BAD;
        line = buf_str(&parser->line);
    }
    *in = str_skip(*in, part.n);
    if (!end)
        return SMTP_REPLY_MORE;
    if (line.n > SMTP_REPLY_LINE_MAX_BYTES)
        return SMTP_REPLY_BAD;
    line.n--;
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    return take_line(parser, line, ret_line);
}

struct smtp_reply smtp_reply_parser_reply(const struct smtp_reply_parser *parser)
{
    struct smtp_reply reply = { .code = parser->code, .text = buf_str(&parser->text) };
    memcpy(reply.enhanced, parser->enhanced, sizeof reply.enhanced);
    return reply;
}
