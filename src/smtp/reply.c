#include "smtp/reply.h"

enum { REPLY_LINE_MAX_BYTES = 510 };

bool smtp_reply_line(struct buf *out, struct smtp_reply reply, bool more, bool utf8, struct str text)
{
    size_t start = out->n;
    buf_addf(out, "%03u%c%s%s", reply.code % 1000, more ? '-' : ' ', reply.enhanced ? reply.enhanced : "",
             reply.enhanced && text.n ? " " : "");
    size_t room = REPLY_LINE_MAX_BYTES - (out->n - start);
    if (text.n > room) {
        text.n = room;
        while (text.n && (text.p[text.n] & 0xc0) == 0x80) /* not in the middle of a character */
            text.n--;
    }
    char *to = buf_reserve(out, text.n + 2);
    if (!to)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        *to++ = c < 32 || c == 127 || (c > 127 && !utf8) ? '?' : text.p[i];
    }
    *to++ = '\r';
    *to++ = '\n';
    out->n += text.n + 2;
    return true;
}
