#include "smtp/params.h"

#include "smtp/address.h"

enum smtp_params_step smtp_params_next(struct str *rest, bool utf8, struct smtp_param *ret)
{
    if (str_trim(*rest).n == 0)
        return SMTP_PARAMS_END;
    if (rest->p[0] != ' ')
        return SMTP_PARAMS_BAD;
    while (rest->n && rest->p[0] == ' ')
        *rest = str_skip(*rest, 1);
    struct str one;
    if (str_cut(rest, ' ', &one))
        *rest = str_slice(rest->p - 1, rest->n + 1); /* the space that the next one begins with */
    ret->has_value = str_cut(&one, '=', &ret->keyword);
    ret->value = one;
    if (ret->keyword.n == 0 || ret->keyword.p[0] == '-' || (ret->has_value && one.n == 0))
        return SMTP_PARAMS_BAD;
    for (size_t i = 0; i < ret->keyword.n; i++)
        if (!ascii_alnum(ret->keyword.p[i]) && ret->keyword.p[i] != '-')
            return SMTP_PARAMS_BAD;
    for (size_t i = 0; i < one.n; i++)
        if ((unsigned char)one.p[i] < 33 || one.p[i] == '=' || one.p[i] == 127 || (!utf8 && (one.p[i] & 0x80)))
            return SMTP_PARAMS_BAD;
    return utf8 && !smtp_utf8_valid(one) ? SMTP_PARAMS_BAD : SMTP_PARAMS_ONE;
}

static int hex_upper(char c)
{
    return ascii_digit(c) ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The octet at s.p[*i], moving *i behind it; -1 when malformed. RFC 3461: xchar is 33 to 126 without '+' and '='. */
static int xtext_octet(struct str s, size_t *i)
{
    char c = s.p[(*i)++];
    if (c < 33 || c > 126 || c == '=')
        return -1;
    if (c != '+')
        return c;
    if (s.n - *i < 2)
        return -1;
    int high = hex_upper(s.p[*i]), low = hex_upper(s.p[*i + 1]);
    *i += 2;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool smtp_xtext_valid(struct str s)
{
    for (size_t i = 0; i < s.n;)
        if (xtext_octet(s, &i) < 0)
            return false;
    return true;
}

bool smtp_xtext_decode(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n;) {
        int octet = xtext_octet(s, &i);
        if (octet < 0 || !buf_add_char(out, (char)octet))
            return false;
    }
    return true;
}

bool smtp_xtext_encode(struct str raw, struct buf *out)
{
    for (size_t i = 0; i < raw.n; i++) {
        char c = raw.p[i];
        if (c < 33 || c > 126 || c == '+' || c == '=')
            buf_addf(out, "+%02X", (unsigned)(unsigned char)c);
        else
            buf_add_char(out, c);
    }
    return !out->failed;
}

bool smtp_orcpt_valid(struct str s, bool utf8)
{
    struct str type;
    if (s.n > 500 || !str_cut(&s, ';', &type) || type.n == 0 || s.n == 0)
        return false;
    for (size_t i = 0; i < type.n; i++)
        if (!ascii_alnum(type.p[i]) && type.p[i] != '-')
            return false;
    /* utf-8-addr-unitext is checked as the parameter's value was: printable, valid UTF-8, no '='. */
    return (utf8 && str_eq_nocase(type, STR("utf-8")) && smtp_utf8_valid(s)) || smtp_xtext_valid(s);
}
