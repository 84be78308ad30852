/* base64: RFC 4648 section 4, strict as RFC 4954 demands: no character outside the alphabet, padding
 * only at the end, no bits left over. */
#pragma once
#include "base/buf.h"

static inline size_t base64_encoded_bytes(size_t n)
{
    return (n + 2) / 3 * 4;
}
bool base64_encode(struct str raw, struct buf *out);
/* Adds the decoded octets to `out`; false (malformed, or out is full) leaves out->n as it was. */
bool base64_decode(struct str text, struct buf *out);
