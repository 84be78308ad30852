/* reply_parser: replies of an SMTP or LMTP server (RFC 5321 section 4.2), one line at a time, in
 * constant memory. Pure: octets in, lines out.
 *
 * Strict about what keeps two sides in step: three digits 2xx to 5xx, the same code on every line of a
 * reply, bounds on the length of a line and on the number of lines. Tolerant about what does not: a bare
 * LF ends a line, the text may be missing, control characters in it become '?'. */
#pragma once
#include "base/buf.h"

enum {
    SMTP_REPLY_LINE_MAX_BYTES = 128 * 1024, /* a 334 carries a SASL challenge of up to 64 KiB in base64 */
    SMTP_REPLY_LINES_MAX = 256,
    SMTP_REPLY_TEXT_MAX_BYTES = 1024,       /* what is kept of all lines together, for a log */
    SMTP_REPLY_ENHANCED_BYTES = 12,
};

/* A whole reply; the text dies with the next line that is read. */
struct smtp_reply {
    uint16_t code;
    char enhanced[SMTP_REPLY_ENHANCED_BYTES]; /* "5.1.1"; empty: the peer gave none that fits the code */
    struct str text;                          /* "550 5.1.1 no such user": one printable line */
};

struct smtp_reply_parser {
    struct buf line;       /* the part of a line that has arrived */
    struct buf text;
    char enhanced[SMTP_REPLY_ENHANCED_BYTES];
    uint16_t code;
    uint16_t n_lines;      /* of the reply that is being read */
    bool reply_over;       /* the line before ended a reply */
};

enum smtp_reply_progress {
    SMTP_REPLY_MORE, /* everything was taken, no line is complete */
    SMTP_REPLY_LINE, /* one line, more of the same reply to come */
    SMTP_REPLY_LAST, /* the line that ends the reply */
    SMTP_REPLY_BAD,  /* not SMTP, or over a bound; the connection is of no more use */
};

void smtp_reply_parser_init(struct smtp_reply_parser *parser);
void smtp_reply_parser_done(struct smtp_reply_parser *parser);
/* Takes octets from the front of *in, at most to the end of one line. On LINE and LAST *ret_line is that
 * line's text, raw, without code, separator and line end; it is valid until the next call and while the
 * octets of *in are. */
enum smtp_reply_progress smtp_reply_parser_feed(struct smtp_reply_parser *parser, struct str *in, struct str *ret_line);
/* After LAST: the reply as a whole. */
struct smtp_reply smtp_reply_parser_reply(const struct smtp_reply_parser *parser);
/* True in the middle of a line or of a reply of several lines. */
bool smtp_reply_parser_busy(const struct smtp_reply_parser *parser);

/* The enhanced status code (RFC 3463) at the start of a reply's text, when its class fits `code`;
 * ret_enhanced is empty otherwise. Returns how many octets it took with the space behind it. */
size_t smtp_reply_enhanced(uint16_t code, struct str text, char ret_enhanced[SMTP_REPLY_ENHANCED_BYTES]);
