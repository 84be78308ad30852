/* body: the content of a message as it comes behind DATA (dots, ends at a dot alone) or BDAT (counted octets).
 *
 * What it hands out has its dots removed and only CRLF line ends, in slices that point into the input. The first fault
 * stops the output for good; a DATA body is still read to its real end, CRLF "." CRLF, so that nothing of it is taken
 * for commands.
 *
 * With `repair` a bare LF is handed out as CRLF. It is no line start for dots: "\n.\n" and "\n.\r\n" are content, never
 * an end. A content that does not end with a line end gets one (BDAT only: DATA cannot be such). */
#pragma once
#include "smtp/line.h"

enum smtp_body_fault {
    SMTP_BODY_FINE,
    SMTP_BODY_BARE_CR,
    SMTP_BODY_BARE_LF,
    SMTP_BODY_NUL,
    SMTP_BODY_LONG_LINE,
    SMTP_BODY_TOO_BIG,
};

struct smtp_body {
    bool dots, repair;
    bool end; /* DATA: the end was read */
    enum smtp_body_fault fault;
    size_t text_line_max_bytes; /* without CRLF; 0: no limit */
    uint64_t max_bytes;         /* of content; 0: no limit */
    uint64_t content_bytes;     /* handed out so far; of a message at fault it says nothing */
    size_t line_bytes;
    unsigned char at;      /* enum in body.c; 0 = start of a line */
    struct smtp_line line; /* line.high: octets above 127 came */
};

/* One slice of content (maybe empty), valid as long as the input; *ret_used octets of the input are done. Call until
 * the input is used up or b->end. A fault shows in b->fault. */
struct str smtp_body_next(struct smtp_body *b, struct str in, size_t *ret_used);
/* BDAT LAST: judges a CR at the very end and hands out the CRLF that is missing, if one is. */
struct str smtp_body_finish(struct smtp_body *b);
