#include "smtp/header.h"

enum { AT_LINE, IN_NAME, IN_KEPT, IN_DROPPED, IN_BODY };

enum verdict { VERDICT_MORE, VERDICT_FIELD, VERDICT_CONTINUATION, VERDICT_NO_FIELD, VERDICT_EMPTY };

void smtp_header_init(struct smtp_header *h, const struct str *patterns, size_t n_patterns)
{
    *h = (struct smtp_header){ .patterns = patterns, .n_patterns = n_patterns };
}

/* What the start of a line is. *ret_name is without the colon and the blanks that RFC 5322 section 4.5 allows before
 * it. */
static enum verdict judge(struct str line, struct str *ret_name)
{
    if (line.n == 0)
        return VERDICT_MORE;
    if (line.p[0] == ' ' || line.p[0] == '\t')
        return VERDICT_CONTINUATION;
    if (line.p[0] == '\r')
        return VERDICT_EMPTY;
    bool blank = false;
    for (size_t i = 0; i < line.n && i <= SMTP_HEADER_NAME_MAX_BYTES; i++) {
        char c = line.p[i];
        if (c == ':' && i > 0) {
            *ret_name = str_trim(str_slice(line.p, i));
            return VERDICT_FIELD;
        }
        if (c == ' ' || c == '\t')
            blank = true;
        else if (blank || c < 33 || c > 126 || c == ':')
            return VERDICT_NO_FIELD;
    }
    return line.n > SMTP_HEADER_NAME_MAX_BYTES ? VERDICT_NO_FIELD : VERDICT_MORE;
}

static void note_field(struct smtp_header *h, struct str name)
{
    h->has_message_id |= str_eq_nocase(name, STR("Message-ID"));
    h->has_date |= str_eq_nocase(name, STR("Date"));
    h->has_from |= str_eq_nocase(name, STR("From"));
    h->has_delivered_to |= str_eq_nocase(name, STR("Delivered-To"));
}

static bool stripped(const struct smtp_header *h, struct str name)
{
    for (size_t i = 0; i < h->n_patterns; i++)
        if (str_glob_nocase(h->patterns[i], name))
            return true;
    return false;
}

/* The state behind a verdict; `dropping` says what became of the line before. */
static unsigned char enter(struct smtp_header *h, enum verdict verdict, struct str name)
{
    if (verdict == VERDICT_CONTINUATION)
        return h->dropping ? IN_DROPPED : IN_KEPT;
    if (verdict != VERDICT_FIELD) {
        h->done = true;
        return IN_BODY;
    }
    if (str_eq_nocase(name, STR("Received"))) /* stripped or not: a loop must show */
        h->n_received++;
    if (stripped(h, name))
        return IN_DROPPED;
    note_field(h, name);
    return IN_KEPT;
}

/* Adds octets to what is held until the line's start can be judged. */
static struct str feed_name(struct smtp_header *h, struct str in, size_t *used)
{
    struct str name;
    enum verdict verdict = VERDICT_MORE;
    while (verdict == VERDICT_MORE && *used < in.n) {
        h->held[h->n_held++] = in.p[(*used)++];
        verdict = judge(str_slice(h->held, h->n_held), &name);
    }
    if (verdict == VERDICT_MORE)
        return STR_NONE;
    struct str held = str_slice(h->held, h->n_held);
    h->state = enter(h, verdict, name);
    h->n_held = 0;
    if (h->state != IN_DROPPED)
        return held;
    h->stripped_bytes += held.n;
    return STR_NONE;
}

static void note_8bit(struct smtp_header *h, struct str s)
{
    for (size_t i = 0; i < s.n && !h->has_8bit; i++)
        h->has_8bit = (s.p[i] & 0x80) != 0;
}

/* From `i` to behind the end of the line or of the input. */
static size_t line_rest(struct smtp_header *h, struct str in, size_t i)
{
    struct str rest = str_skip(in, i);
    size_t n = str_find(rest, '\n');
    if (n < rest.n) {
        n++;
        h->dropping = h->state == IN_DROPPED;
        h->state = AT_LINE;
    }
    return i + n;
}

struct str smtp_header_feed(struct smtp_header *h, struct str in, size_t *ret_used)
{
    size_t i = 0;
    *ret_used = 0;
    if (h->state == IN_NAME)
        return feed_name(h, in, ret_used);
    while (i < in.n && h->state != IN_BODY) {
        if (h->state == IN_DROPPED) {
            size_t end = line_rest(h, in, i);
            h->stripped_bytes += end - i;
            *ret_used = end;
            return STR_NONE;
        }
        if (h->state == IN_KEPT) {
            size_t end = line_rest(h, in, i);
            note_8bit(h, str_slice(in.p + i, end - i));
            i = end;
            continue;
        }
        struct str name = STR_NONE;
        enum verdict verdict = judge(str_skip(in, i), &name);
        unsigned char next = verdict == VERDICT_MORE ? IN_NAME : enter(h, verdict, name);
        h->state = next;
        if (next == IN_DROPPED || next == IN_NAME) {
            *ret_used = i; /* first what is kept up to here; nothing, if the line began the input */
            return str_slice(in.p, i);
        }
    }
    *ret_used = h->state == IN_BODY ? in.n : i;
    return str_slice(in.p, *ret_used);
}

struct str smtp_header_end(struct smtp_header *h)
{
    struct str held = str_slice(h->held, h->n_held);
    h->n_held = 0;
    return held;
}
