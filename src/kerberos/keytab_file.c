#include "kerberos/keytab_file.h"

static bool take(struct str *rest, size_t n, struct str *ret)
{
    if (rest->n < n)
        return false;
    *ret = str_slice(rest->p, n);
    *rest = str_skip(*rest, n);
    return true;
}

/* Big-endian; version 0x0502 is the same on every machine. */
static bool take_number(struct str *rest, size_t octets, uint32_t *ret)
{
    struct str s;
    if (!take(rest, octets, &s))
        return false;
    *ret = 0;
    for (size_t i = 0; i < octets; i++)
        *ret = *ret << 8 | (unsigned char)s.p[i];
    return true;
}

/* u16 length, then the octets. */
static bool take_counted(struct str *rest, struct str *ret)
{
    uint32_t n;
    return take_number(rest, 2, &n) && take(rest, n, ret);
}

int keytab_file_open(struct str octets, struct keytab_file *ret_file, struct err *err)
{
    *ret_file = (struct keytab_file){ .octets = octets, .at = 2 };
    if (octets.n == 0)
        return err_set(err, ERR_SYNTAX, "the file is empty");
    if (octets.n < 2 || octets.p[0] != 5)
        return err_set(err, ERR_SYNTAX, "it does not begin like a keytab (05 02)");
    if (octets.p[1] != 2)
        return err_set(err, ERR_SYNTAX, "keytab format 0x05%02x is not read here, only 0x0502; write it anew with ktutil",
                       (unsigned)(unsigned char)octets.p[1]);
    return 0;
}

static bool read_entry(struct str rest, struct keytab_file_entry *ret)
{
    uint32_t n_parts, number;
    *ret = (struct keytab_file_entry){ 0 };
    if (!take_number(&rest, 2, &n_parts) || n_parts == 0 || n_parts > KEYTAB_FILE_PARTS_MAX ||
        !take_counted(&rest, &ret->realm))
        return false;
    for (ret->n_parts = 0; ret->n_parts < n_parts; ret->n_parts++)
        if (!take_counted(&rest, &ret->part[ret->n_parts]))
            return false;
    if (!take_number(&rest, 4, &number))
        return false;
    ret->name_type = (int32_t)number;
    if (!take_number(&rest, 4, &ret->timestamp_s) || !take_number(&rest, 1, &ret->kvno) ||
        !take_number(&rest, 2, &number))
        return false;
    ret->enctype = (int32_t)(int16_t)number;
    if (!take_counted(&rest, &ret->key) || ret->key.n > KEYTAB_FILE_KEY_MAX)
        return false;
    /* What follows is optional: the whole version number, when the one octet above is too small for it. Zero means
     * that a writer only padded. */
    if (take_number(&rest, 4, &number) && number != 0)
        ret->kvno = number;
    return true;
}

int keytab_file_next(struct keytab_file *file, struct keytab_file_entry *ret_entry, struct err *err)
{
    for (;;) {
        struct str rest = str_skip(file->octets, file->at), entry;
        uint32_t size;
        if (rest.n == 0)
            return 0;
        if (!take_number(&rest, 4, &size))
            return err_set(err, ERR_SYNTAX, "the keytab is cut off at offset %zu", file->at);
        if (size == 0)
            return 0; /* room that was kept for entries to come */
        bool hole = size & 0x80000000u;
        if (hole)
            size = -size;
        if (!take(&rest, size, &entry))
            return err_set(err, ERR_SYNTAX, "the entry at offset %zu is longer than the file", file->at);
        size_t at = file->at;
        file->at += 4 + (size_t)size;
        if (hole)
            continue;
        if (!read_entry(entry, ret_entry))
            return err_set(err, ERR_SYNTAX, "the entry at offset %zu is damaged", at);
        return 1;
    }
}
