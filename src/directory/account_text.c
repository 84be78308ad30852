/* account_text: the texts of LDAP: filters, names of entries, attribute descriptions. Pure. */
#include "directory/account.h"

bool account_filter_escape(struct str value, struct buf *into)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if (c < 0x20 || c >= 0x7f || c == '*' || c == '(' || c == ')' || c == '\\')
            buf_addf(into, "\\%02x", c);
        else
            buf_add_char(into, (char)c);
    }
    return !into->failed;
}

bool account_base_of_realm(const char *realm, struct buf *into)
{
    struct str rest = str_of(realm), label;
    for (bool more = rest.n > 0, first = true; more; first = false) {
        more = str_cut(&rest, '.', &label);
        buf_add_c(into, first ? "DC=" : ",DC=");
        for (size_t i = 0; i < label.n; i++) {
            unsigned char c = (unsigned char)label.p[i];
            if (ascii_alnum(label.p[i]) || c == '-' || c == '_')
                buf_add_char(into, label.p[i]);
            else
                buf_addf(into, "\\%02x", c);
        }
    }
    return !into->failed;
}

bool account_range_parse(struct str description, struct str *ret_attribute, uint32_t *ret_next)
{
    struct str rest = description, option, from;
    uint64_t first, last;
    if (!str_cut(&rest, ';', ret_attribute))
        return false;
    for (bool more = true; more;) {
        more = str_cut(&rest, ';', &option);
        if (!str_starts_nocase(option, STR("range=")))
            continue;
        option = str_skip(option, 6);
        if (!str_cut(&option, '-', &from) || !str_to_u64(from, UINT32_MAX - 1, &first))
            return false;
        *ret_next = 0;
        if (str_eq(option, STR("*")))
            return true;
        if (!str_to_u64(option, UINT32_MAX - 1, &last) || last < first)
            return false;
        *ret_next = (uint32_t)last + 1;
        return true;
    }
    return false;
}
