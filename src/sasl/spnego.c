#include "sasl/spnego.h"

enum { TAG_SEQUENCE = 0x30, TAG_OCTETS = 0x04, TAG_OID = 0x06, TAG_ENUM = 0x0a, TAG_FRAME = 0x60, TAG_INIT = 0xa0, TAG_RESP = 0xa1 };

#define OID_SPNEGO STR("\x2b\x06\x01\x05\x05\x02")
#define DER_NTLMSSP STR("\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a")

static const struct str ntlm_alone = { "\x30\x0c\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a", 14 };

/* The next element off *rest: its tag, what is in it, and the whole of it. ret_inside may be `rest`: then we go in. */
static bool der_next(struct str *rest, unsigned *ret_tag, struct str *ret_inside, struct str *ret_whole)
{
    if (rest->n < 2)
        return false;
    unsigned first = (unsigned char)rest->p[1];
    size_t n = first, header = 2;
    if (first >= 0x80) {
        size_t octets = first & 0x7f;
        if (octets == 0 || octets > 4 || rest->n < 2 + octets)
            return false;
        n = 0;
        for (size_t i = 0; i < octets; i++)
            n = n << 8 | (unsigned char)rest->p[2 + i];
        header += octets;
    }
    if (n > rest->n - header)
        return false;
    struct str whole = str_slice(rest->p, header + n);
    *rest = str_skip(*rest, whole.n);
    *ret_tag = (unsigned char)whole.p[0];
    *ret_inside = str_skip(whole, header);
    *ret_whole = whole;
    return true;
}

/* The inside of an element that must have this tag; *ret_whole may be NULL. */
static bool der_want(struct str *rest, unsigned tag, struct str *ret_inside, struct str *ret_whole)
{
    unsigned got;
    struct str whole;
    bool ok = der_next(rest, &got, ret_inside, &whole) && got == tag;
    if (ok && ret_whole)
        *ret_whole = whole;
    return ok;
}

static enum spnego_mech mech_of(struct str oid)
{
    static const struct {
        struct str oid;
        enum spnego_mech mech;
    } known[] = {
        { { "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", 9 }, SPNEGO_KRB5 },
        { { "\x2a\x86\x48\x82\xf7\x12\x01\x02\x02", 9 }, SPNEGO_KRB5_MICROSOFT },
        { { "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a", 10 }, SPNEGO_NTLMSSP },
        { { "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x1e", 10 }, SPNEGO_NEGOEX },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq(oid, known[i].oid))
            return known[i].mech;
    return SPNEGO_OTHER;
}

static bool read_mechs(struct str field, struct spnego_init *ret)
{
    struct str list, oid;
    if (!der_want(&field, TAG_SEQUENCE, &list, &ret->mech_list))
        return false;
    for (size_t n = 0; list.n > 0; n++) {
        if (n == SPNEGO_MECHS_MAX || !der_want(&list, TAG_OID, &oid, NULL))
            return false;
        enum spnego_mech mech = mech_of(oid);
        if (n == 0)
            ret->first = mech;
        ret->mechs |= mech;
    }
    return ret->first != 0;
}

static bool read_init_fields(struct str fields, struct spnego_init *ret)
{
    unsigned tag;
    struct str inside, whole;
    while (fields.n > 0) {
        if (!der_next(&fields, &tag, &inside, &whole))
            return false;
        bool ok = true;
        if (tag == 0xa0)
            ok = read_mechs(inside, ret);
        else if (tag == 0xa2)
            ok = ret->has_token = der_want(&inside, TAG_OCTETS, &ret->token, NULL);
        else if ((tag == 0xa3 || tag == 0xa4) && inside.n > 0 && inside.p[0] == TAG_OCTETS) /* else negHints: a server's */
            ok = ret->has_mic = der_want(&inside, TAG_OCTETS, &ret->mic, NULL);
        if (!ok)
            return false;
    }
    return ret->mechs != 0;
}

bool spnego_read_init(struct str token, struct spnego_init *ret)
{
    struct str frame = token, oid, fields;
    *ret = (struct spnego_init){ 0 };
    if (token.n == 0 || token.n > SPNEGO_TOKEN_MAX)
        return false;
    if ((unsigned char)token.p[0] == TAG_FRAME) {
        if (!der_want(&token, TAG_FRAME, &frame, NULL) || !der_want(&frame, TAG_OID, &oid, NULL) || !str_eq(oid, OID_SPNEGO))
            return false;
    }
    return der_want(&frame, TAG_INIT, &fields, NULL) && der_want(&fields, TAG_SEQUENCE, &fields, NULL) &&
           read_init_fields(fields, ret);
}

static bool read_resp_field(unsigned tag, struct str inside, struct spnego_resp *ret)
{
    struct str value;
    switch (tag) {
    case 0xa0:
        if (!der_want(&inside, TAG_ENUM, &value, NULL) || value.n != 1 || (unsigned char)value.p[0] > SPNEGO_REQUEST_MIC)
            return false;
        ret->state = (enum spnego_state)value.p[0];
        return true;
    case 0xa1:
        if (!der_want(&inside, TAG_OID, &value, NULL))
            return false;
        ret->mech = mech_of(value);
        return true;
    case 0xa2:
        return ret->has_token = der_want(&inside, TAG_OCTETS, &ret->token, NULL);
    case 0xa3:
        return ret->has_mic = der_want(&inside, TAG_OCTETS, &ret->mic, NULL);
    default: /* an extension */
        return true;
    }
}

bool spnego_read_resp(struct str token, struct spnego_resp *ret)
{
    struct str fields, inside, whole;
    unsigned tag;
    *ret = (struct spnego_resp){ .state = SPNEGO_NO_STATE };
    if (token.n > SPNEGO_TOKEN_MAX || !der_want(&token, TAG_RESP, &fields, NULL) ||
        !der_want(&fields, TAG_SEQUENCE, &fields, NULL))
        return false;
    while (fields.n > 0)
        if (!der_next(&fields, &tag, &inside, &whole) || !read_resp_field(tag, inside, ret))
            return false;
    /* Windows 2000 repeats the token where the MIC belongs. */
    if (ret->has_mic && ret->has_token && str_eq(ret->mic, ret->token))
        ret->has_mic = false;
    return true;
}

/* Tag and length of `n` octets that the caller adds. */
static void put_header(struct buf *out, unsigned tag, size_t n)
{
    buf_add_char(out, (char)tag);
    if (n < 0x80) {
        buf_add_char(out, (char)n);
    } else if (n < 0x100) {
        buf_add(out, STR("\x81"));
        buf_add_char(out, (char)n);
    } else if (n < 0x10000) {
        buf_add(out, STR("\x82"));
        buf_add_char(out, (char)(n >> 8));
        buf_add_char(out, (char)n);
    } else {
        out->failed = true;
    }
}

static size_t der_bytes(size_t n)
{
    return n + (n < 0x80 ? 2 : n < 0x100 ? 3 : 4);
}

/* [number] { octets } */
static void put_octets(struct buf *out, unsigned tag, struct str octets)
{
    put_header(out, tag, der_bytes(octets.n));
    put_header(out, TAG_OCTETS, octets.n);
    buf_add(out, octets);
}

void spnego_write_init_ntlm(struct buf *out, struct str token, struct str *ret_mech_list)
{
    size_t fields = der_bytes(ntlm_alone.n) + der_bytes(der_bytes(token.n)), choice = der_bytes(fields);
    put_header(out, TAG_FRAME, der_bytes(OID_SPNEGO.n) + der_bytes(choice));
    put_header(out, TAG_OID, OID_SPNEGO.n);
    buf_add(out, OID_SPNEGO);
    put_header(out, TAG_INIT, choice);
    put_header(out, TAG_SEQUENCE, fields);
    put_header(out, 0xa0, ntlm_alone.n);
    buf_add(out, ntlm_alone);
    put_octets(out, 0xa2, token);
    *ret_mech_list = ntlm_alone;
}

void spnego_write_resp(struct buf *out, const struct spnego_resp *resp)
{
    size_t fields = (resp->state != SPNEGO_NO_STATE ? 5 : 0) + (resp->mech ? der_bytes(DER_NTLMSSP.n) : 0) +
                    (resp->has_token ? der_bytes(der_bytes(resp->token.n)) : 0) +
                    (resp->has_mic ? der_bytes(der_bytes(resp->mic.n)) : 0);
    put_header(out, TAG_RESP, der_bytes(fields));
    put_header(out, TAG_SEQUENCE, fields);
    if (resp->state != SPNEGO_NO_STATE) {
        buf_add(out, STR("\xa0\x03\x0a\x01"));
        buf_add_char(out, (char)resp->state);
    }
    if (resp->mech) {
        put_header(out, 0xa1, DER_NTLMSSP.n);
        buf_add(out, DER_NTLMSSP);
    }
    if (resp->has_token)
        put_octets(out, 0xa2, resp->token);
    if (resp->has_mic)
        put_octets(out, 0xa3, resp->mic);
}
