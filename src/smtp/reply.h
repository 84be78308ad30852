/* reply: writes SMTP replies (RFC 5321 section 4.2, RFC 2034, RFC 3463). Whatever text comes in, exactly the lines that
 * were asked for go out: control characters become '?', and so do octets above 127 unless `utf8`; a line is cut at 510
 * octets. */
#pragma once
#include "base/buf.h"

struct smtp_reply {
    unsigned code;        /* 200 to 599 */
    const char *enhanced; /* "2.0.0"; NULL: none */
};

/* One line: "250 2.0.0 text", or with `more` "250-2.0.0 text". */
bool smtp_reply_line(struct buf *out, struct smtp_reply reply, bool more, bool utf8, struct str text);
