#include "conf/lex.h"

#include "conf/load.h"

static struct conf_place here(const struct conf_lexer *l)
{
    return (struct conf_place){ l->file, l->line };
}

/* Octets of the UTF-8 character at the front of `s` (RFC 3629: shortest form, no surrogates); 0: none. */
static size_t utf8_length(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > s.n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool too_long = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool no_character = (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf4 && p[1] >= 0x90);
    return too_long || no_character ? 0 : n;
}

bool conf_lexer_init(struct conf_lexer *l, struct arena *arena, struct conf_mistakes *mistakes, const char *file,
                     struct str text)
{
    if (str_starts(text, STR("\xef\xbb\xbf")))
        text = str_skip(text, 3);
    *l = (struct conf_lexer){ .rest = text, .file = file, .line = 1, .arena = arena, .mistakes = mistakes };
    struct conf_place place = here(l);
    while (text.n) {
        size_t n = utf8_length(text);
        unsigned char c = (unsigned char)text.p[0];
        if (n == 0) {
            conf_mistake_add(mistakes, place, NULL, "save it as UTF-8", "the file is not UTF-8 text");
            return false;
        }
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) {
            conf_mistake_add(mistakes, place, NULL, "take it out", "a control character (0x%02x) stands in the file",
                             c);
            return false;
        }
        place.line += c == '\n';
        text = str_skip(text, n);
    }
    return true;
}

static char peek(const struct conf_lexer *l)
{
    return l->rest.n ? l->rest.p[0] : 0;
}

static void advance(struct conf_lexer *l, size_t n)
{
    for (size_t i = 0; i < n && i < l->rest.n; i++)
        l->line += l->rest.p[i] == '\n';
    l->rest = str_skip(l->rest, n);
}

/* False: a comment has no end. */
static bool skip_blanks(struct conf_lexer *l)
{
    for (;;) {
        char c = peek(l);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            advance(l, 1);
        } else if (c == '#' || str_starts(l->rest, STR("//"))) {
            advance(l, str_find(l->rest, '\n'));
        } else if (str_starts(l->rest, STR("/*"))) {
            struct conf_place place = here(l);
            const char *end = memmem(l->rest.p + 2, l->rest.n - 2, "*/", 2);
            if (!end) {
                conf_mistake_add(l->mistakes, place, NULL, "end it with */", "a comment begins here and does not end");
                return false;
            }
            advance(l, (size_t)(end - l->rest.p) + 2);
        } else {
            return true;
        }
    }
}

static int hex_value(char c)
{
    if (ascii_digit(c))
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What stands behind a backslash; the rest begins with it. -1: no such escape. */
static int unescape(struct conf_lexer *l)
{
    static const char from[] = "ntr\"'\\", to[] = "\n\t\r\"'\\";
    char c = peek(l);
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        advance(l, 1);
        return to[at - from];
    }
    int high = c == 'x' && l->rest.n >= 3 ? hex_value(l->rest.p[1]) : -1;
    int low = high >= 0 ? hex_value(l->rest.p[2]) : -1;
    if (low < 0)
        return -1;
    advance(l, 3);
    return high * 16 + low;
}

static struct conf_token bad(const struct conf_token *t)
{
    return (struct conf_token){ .kind = TOKEN_BAD, .place = t->place };
}

static struct conf_token lex_string(struct conf_lexer *l, struct conf_token t)
{
    char quote = peek(l), text[CONF_STRING_MAX];
    size_t n = 0;
    advance(l, 1);
    while (peek(l) != quote) {
        int c = (unsigned char)peek(l);
        if (l->rest.n == 0 || c == '\n') {
            conf_mistake_add(l->mistakes, t.place, NULL, quote == '"' ? "end it with \" on the same line"
                                                                      : "end it with ' on the same line",
                             "a string begins here and does not end");
            return bad(&t);
        }
        advance(l, 1);
        if (c == '\\' && quote == '"')
            c = unescape(l);
        if (c <= 0 || n == sizeof text) {
            conf_mistake_add(
                l->mistakes, t.place, NULL,
                c <= 0 ? "there are \\\" \\\\ \\n \\t \\r and \\xHH (not \\x00); 'single quotes' take all as it is"
                       : "shorten it",
                c <= 0 ? "a backslash in a string is followed by something unknown"
                       : "the string is longer than %d octets",
                CONF_STRING_MAX);
            return bad(&t);
        }
        text[n++] = (char)c;
    }
    advance(l, 1);
    struct str s = str_slice(text, n);
    for (struct str rest = s; rest.n;) {
        size_t length = utf8_length(rest);
        if (length == 0) {
            conf_mistake_add(l->mistakes, t.place, NULL, "write UTF-8", "the string is not UTF-8 text");
            return bad(&t);
        }
        rest = str_skip(rest, length);
    }
    t.kind = TOKEN_STRING;
    t.text = arena_copy(l->arena, s);
    return t;
}

static bool ends_word(char c)
{
    return (unsigned char)c <= 0x20 || strchr("\"'{}(),=#;", c);
}

static struct conf_token lex_word(struct conf_lexer *l, struct conf_token t)
{
    size_t n = 0;
    while (n < l->rest.n && !ends_word(l->rest.p[n]) && !(n && str_starts(str_skip(l->rest, n), STR("+="))))
        n++;
    if (n == 0 || n > CONF_STRING_MAX) {
        char c[2] = { peek(l), 0 };
        conf_mistake_add(l->mistakes, t.place, NULL, n ? "shorten it" : "take it out, or put it in quotes",
                         n ? "a word is too long%s" : "\"%s\" has no meaning here", n ? "" : c);
        return bad(&t);
    }
    t.kind = TOKEN_WORD;
    t.text = arena_copy(l->arena, str_slice(l->rest.p, n));
    advance(l, n);
    return t;
}

struct conf_token conf_lexer_next(struct conf_lexer *l)
{
    static const struct {
        char c;
        enum conf_token_kind kind;
    } sign[] = {
        { '=', TOKEN_ASSIGN }, { '{', TOKEN_OPEN }, { '}', TOKEN_CLOSE }, { ',', TOKEN_COMMA },
        { '(', TOKEN_PAREN_OPEN }, { ')', TOKEN_PAREN_CLOSE },
    };
    bool ok = skip_blanks(l);
    struct conf_token t = { .kind = TOKEN_END, .place = here(l) };
    if (!ok)
        return bad(&t);
    if (l->rest.n == 0)
        return t;
    if (str_starts(l->rest, STR("+="))) {
        advance(l, 2);
        t.kind = TOKEN_APPEND;
        return t;
    }
    for (size_t i = 0; i < sizeof sign / sizeof *sign; i++) {
        if (peek(l) == sign[i].c) {
            advance(l, 1);
            t.kind = sign[i].kind;
            return t;
        }
    }
    return peek(l) == '"' || peek(l) == '\'' ? lex_string(l, t) : lex_word(l, t);
}

const char *conf_token_text(struct arena *arena, const struct conf_token *token)
{
    static const char *const fixed[] = {
        [TOKEN_END] = "the end of the file",
        [TOKEN_ASSIGN] = "\"=\"",
        [TOKEN_APPEND] = "\"+=\"",
        [TOKEN_OPEN] = "\"{\"",
        [TOKEN_CLOSE] = "\"}\"",
        [TOKEN_COMMA] = "a comma",
        [TOKEN_PAREN_OPEN] = "\"(\"",
        [TOKEN_PAREN_CLOSE] = "\")\"",
        [TOKEN_BAD] = "an error",
    };
    const char *text = NULL;
    if (token->kind == TOKEN_WORD || token->kind == TOKEN_STRING)
        text = arena_printf(arena, token->kind == TOKEN_WORD ? "%.*s" : "\"%.*s\"", STR_ARG(token->text));
    else
        text = fixed[token->kind];
    return text ? text : "something";
}
