/* line: the one place in the program that decides what ends a line of SMTP: CR LF, and nothing else
 * (RFC 5321 sections 2.3.8 and 4.1.1.4). Commands, DATA and BDAT are all read through it.
 *
 * It scans input in pieces cut anywhere and stops at the first thing that matters. It copies nothing. */
#pragma once
#include "base/str.h"

enum smtp_line_end {
    SMTP_LINE_MORE, /* the input is used up and no line ended; l->cr: its last octet was a CR, not yet judged */
    SMTP_LINE_CRLF, /* used up to and with the LF of a CR LF; the CR may have been the end of the input before */
    SMTP_LINE_BARE_CR, /* used up to and with a CR that no LF follows (0 used when that CR ended the input before) */
    SMTP_LINE_BARE_LF, /* used up to and with an LF that no CR precedes */
    SMTP_LINE_NUL,     /* used up to and with a NUL */
};

struct smtp_line {
    bool cr;   /* the octet before this input was a CR, not yet judged */
    bool high; /* an octet above 127 was seen; the caller clears it */
};

enum smtp_line_end smtp_line_scan(struct smtp_line *l, struct str in, size_t *ret_used);
