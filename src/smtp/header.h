/* header: a streaming look at the header section of a message whose line ends are already checked (RFC 5322
 * section 2.2).
 *
 * Feed it the content in slices as they come; it hands back what to keep, in order. Fields whose name matches a strip
 * pattern vanish with their continuation lines. Only the start of a field's first line is held back (at most
 * SMTP_HEADER_NAME_MAX_BYTES) until its name is known; everything else passes through without a copy. Behind the empty
 * line all passes through. A message without a header section (a first line that is no field) is all body. */
#pragma once
#include "base/str.h"

enum { SMTP_HEADER_NAME_MAX_BYTES = 77 }; /* "Name:" longer than this is never stripped nor counted */

struct smtp_header {
    /* What was seen so far. */
    unsigned n_received;
    bool has_message_id, has_date, has_from, has_delivered_to;
    bool has_8bit; /* octets above 127 in the header section */
    bool done;     /* the empty line, or the first line of a body, was reached */
    uint64_t stripped_bytes;
    /* Inner state. */
    const struct str *patterns;
    size_t n_patterns;
    unsigned char state;
    unsigned char n_held;
    bool dropping; /* the line before was dropped */
    char held[SMTP_HEADER_NAME_MAX_BYTES + 3];
};

/* `patterns` (with '*', any case) are borrowed while the scanner is used. */
void smtp_header_init(struct smtp_header *h, const struct str *patterns, size_t n_patterns);
/* Takes some of `in` (ret_used) and hands back one slice to keep (maybe empty; it points into `in` or into *h and is
 * valid until the next call). Call until `in` is used up; a call may use nothing and hand back nothing, the next one
 * goes on. */
struct str smtp_header_feed(struct smtp_header *h, struct str in, size_t *ret_used);
/* At the end of the content: what was still held back. */
struct str smtp_header_end(struct smtp_header *h);
