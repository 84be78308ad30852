#include "base/der.h"

bool der_next(struct str *rest, unsigned *ret_tag, struct str *ret_inside)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    if (rest->n < 2 || (p[0] & 0x1f) == 0x1f)
        return false;
    size_t head = 2, n = p[1];
    if (n & 0x80) {
        size_t octets = n & 0x7f;
        if (octets == 0 || octets > 4 || rest->n < 2 + octets)
            return false;
        n = 0;
        for (size_t i = 0; i < octets; i++)
            n = n << 8 | p[2 + i];
        head += octets;
    }
    if (n > rest->n - head)
        return false;
    struct str inside = str_slice(rest->p + head, n);
    *ret_tag = p[0];
    *rest = str_skip(*rest, head + n);
    *ret_inside = inside;
    return true;
}

bool der_want(struct str *rest, unsigned tag, struct str *ret_inside)
{
    struct str ahead = *rest, inside;
    unsigned found;
    if (!der_next(&ahead, &found, &inside) || found != tag)
        return false;
    *rest = ahead;
    *ret_inside = inside;
    return true;
}
