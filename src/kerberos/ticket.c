#include "kerberos/ticket.h"

#include <stdio.h>

#include "base/der.h"

/* Tags of RFC 4120; all are below 31, so a tag is one octet. */
enum {
    APPLICATION_1 = 0x61,  /* Ticket */
    APPLICATION_14 = 0x6e, /* AP-REQ */
};

/* Goes over elements until one has this tag; fields of a SEQUENCE stand in order, so `rest` goes on behind it. */
static bool find(struct str *rest, unsigned tag, struct str *ret_value)
{
    struct str ahead = *rest;
    unsigned found;
    while (der_next(&ahead, &found, ret_value)) {
        if (found == tag) {
            *rest = ahead;
            return true;
        }
    }
    return false;
}

/* [n] EXPLICIT with one element of type `tag` in it. */
static bool field(struct str *rest, unsigned n, unsigned tag, struct str *ret_value)
{
    struct str outer;
    return find(rest, DER_CONTEXT_0 + n, &outer) && der_want(&outer, tag, ret_value);
}

/* At most 32 bits of value, in up to five octets because of the sign. */
static bool integer(struct str value, int64_t *ret_v)
{
    const unsigned char *p = (const unsigned char *)value.p;
    if (value.n == 0 || value.n > 5)
        return false;
    int64_t v = p[0] & 0x80 ? -1 : 0;
    for (size_t i = 0; i < value.n; i++)
        v = v * 256 + p[i];
    *ret_v = v;
    return v >= INT32_MIN && v <= (int64_t)UINT32_MAX;
}

/* Adds one component to a text that ends with NUL. */
static bool text_add(char *text, size_t bytes, struct str part)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = strlen(text);
    for (size_t i = 0; i < part.n; i++) {
        unsigned char c = (unsigned char)part.p[i];
        if (n + 5 > bytes)
            return false;
        if (c < 0x20 || c > 0x7e) {
            text[n++] = '\\';
            text[n++] = 'x';
            text[n++] = hex[c >> 4];
            text[n++] = hex[c & 15];
        } else {
            if (c == '/' || c == '@' || c == '\\')
                text[n++] = '\\';
            text[n++] = (char)c;
        }
    }
    text[n] = 0;
    return true;
}

bool krb_name_text(const struct str *part, size_t n_parts, struct str realm, char *text, size_t text_bytes)
{
    bool good = true;
    text[0] = 0;
    for (size_t i = 0; good && i < n_parts + (realm.n > 0); i++) {
        size_t n = strlen(text);
        if (i > 0 && n + 2 <= text_bytes)
            memcpy(text + n, i < n_parts ? "/" : "@", 2);
        good = (i == 0 || n + 2 <= text_bytes) && text_add(text, text_bytes, i < n_parts ? part[i] : realm);
    }
    if (!good)
        text[0] = 0;
    return good;
}

static bool read_name(struct str names, struct krb_ticket *ret)
{
    struct str part;
    for (unsigned i = 0; names.n; i++) {
        size_t n = strlen(ret->service);
        if (i > 0) {
            if (n + 2 > sizeof ret->service)
                return false;
            memcpy(ret->service + n, "/", 2);
        }
        if (!der_want(&names, DER_GENERAL_STRING, &part) || !text_add(ret->service, sizeof ret->service, part))
            return false;
    }
    return ret->service[0] != 0;
}

static bool read_ticket(struct str ticket, struct krb_ticket *ret)
{
    struct str fields, realm, sname, names, enc_part, number;
    int64_t v;
    if (!der_want(&ticket, DER_SEQUENCE, &fields) || !field(&fields, 1, DER_GENERAL_STRING, &realm) ||
        !field(&fields, 2, DER_SEQUENCE, &sname) || !field(&fields, 3, DER_SEQUENCE, &enc_part))
        return false;
    if (!text_add(ret->realm, sizeof ret->realm, realm))
        return false;
    if (!field(&sname, 1, DER_SEQUENCE, &names) || !read_name(names, ret))
        return false;
    if (!field(&enc_part, 0, DER_INTEGER, &number) || !integer(number, &v) || v > INT32_MAX)
        return false;
    ret->enctype = (int32_t)v;
    /* The key version is optional. Some implementations write it as a negative 32-bit number. */
    if (field(&enc_part, 1, DER_INTEGER, &number)) {
        if (!integer(number, &v))
            return false;
        ret->has_kvno = true;
        ret->kvno = (uint32_t)v;
    }
    return true;
}

static bool read_ap_req(struct str token, struct krb_ticket *ret)
{
    struct str outer, fields, options, choice, ticket, authenticator, number;
    int64_t v;
    if (!der_want(&token, APPLICATION_14, &outer) || !der_want(&outer, DER_SEQUENCE, &fields) ||
        !field(&fields, 2, DER_BIT_STRING, &options) || options.n < 2 ||
        !find(&fields, DER_CONTEXT_0 + 3, &choice) || !der_want(&choice, APPLICATION_1, &ticket) ||
        !read_ticket(ticket, ret))
        return false;
    ret->mutual = options.p[1] & 0x20; /* bit 2 of ap-options */
    if (!field(&fields, 4, DER_SEQUENCE, &authenticator) || !field(&authenticator, 0, DER_INTEGER, &number) ||
        !integer(number, &v) || v > INT32_MAX)
        return false;
    ret->authenticator_enctype = (int32_t)v;
    return true;
}

/* RFC 4121 section 4.1: 60 len OID 01 00 AP-REQ; or the AP-REQ alone. */
static bool read_krb5(struct str token, struct krb_ticket *ret)
{
    struct str inner, oid;
    if (read_ap_req(token, ret))
        return true;
    if (!der_want(&token, DER_APPLICATION_0, &inner) || !der_want(&inner, DER_OID, &oid) ||
        !str_starts(inner, (struct str){ "\x01\x00", 2 }))
        return false;
    return read_ap_req(str_skip(inner, 2), ret);
}

static const char oid_spnego[] = "\x2b\x06\x01\x05\x05\x02";

bool krb_token_is_spnego(struct str token)
{
    struct str framed, oid;
    return der_want(&token, DER_APPLICATION_0, &framed) && der_want(&framed, DER_OID, &oid) &&
           str_eq(oid, str_of(oid_spnego));
}

/* Finds what a SPNEGO message carries: mechToken or responseToken, both [2] OCTET STRING. */
static bool spnego_inner(struct str token, struct str *ret_inner, enum krb_token_form *ret_form)
{
    struct str framed, oid, choice, fields;
    *ret_form = KRB_TOKEN_SPNEGO_RESPONSE;
    if (der_want(&token, DER_APPLICATION_0, &framed)) {
        if (!der_want(&framed, DER_OID, &oid) || !str_eq(oid, str_of(oid_spnego)))
            return false;
        token = framed;
    }
    if (der_want(&token, DER_CONTEXT_0, &choice))
        *ret_form = KRB_TOKEN_SPNEGO_INIT;
    else if (!der_want(&token, DER_CONTEXT_0 + 1, &choice))
        return false;
    return der_want(&choice, DER_SEQUENCE, &fields) && field(&fields, 2, DER_OCTET_STRING, ret_inner);
}

bool krb_ticket_read(struct str token, struct krb_ticket *ret_ticket)
{
    struct str inner;
    enum krb_token_form form;
    *ret_ticket = (struct krb_ticket){ .form = KRB_TOKEN_RAW };
    if (read_krb5(token, ret_ticket))
        return true;
    *ret_ticket = (struct krb_ticket){ .form = KRB_TOKEN_RAW };
    if (spnego_inner(token, &inner, &form) && read_krb5(inner, ret_ticket)) {
        ret_ticket->form = form;
        return true;
    }
    *ret_ticket = (struct krb_ticket){ .form = KRB_TOKEN_RAW };
    return false;
}

bool krb_service_allowed(struct str service, struct str realm, const char *const *allowed, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct str wanted_realm = str_of(allowed[i]), wanted;
        bool any_realm = !str_cut(&wanted_realm, '@', &wanted);
        if (service.n > 0 && str_eq_nocase(service, wanted) && (any_realm || str_eq(realm, wanted_realm)))
            return true;
    }
    return false;
}

const char *krb_enctype_name(int32_t enctype, char *number, size_t number_bytes)
{
    static const struct {
        int32_t enctype;
        const char *name;
    } names[] = {
        { 1, "des-cbc-crc" },          { 2, "des-cbc-md4" },          { 3, "des-cbc-md5" },
        { 16, "des3-cbc-sha1" },       { 17, "aes128-cts" },          { 18, "aes256-cts" },
        { 19, "aes128-sha2" },         { 20, "aes256-sha2" },         { 23, "rc4-hmac" },
        { 24, "rc4-hmac-exp" },        { 25, "camellia128-cts" },     { 26, "camellia256-cts" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].enctype == enctype)
            return names[i].name;
    snprintf(number, number_bytes, "enctype-%d", (int)enctype);
    return number;
}
