#include "sasl/spnego.h"

#include "base/der.h"

enum { TAG_INIT = DER_CONTEXT_0, TAG_RESP = DER_CONTEXT_0 + 1 };

#define OID_SPNEGO STR("\x2b\x06\x01\x05\x05\x02")
#define DER_NTLMSSP STR("\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a")

static const struct str ntlm_alone = { "\x30\x0c\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a", 14 };

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
    struct str rest = field, list, oid;
    if (!der_want(&rest, DER_SEQUENCE, &list))
        return false;
    ret->mech_list = str_slice(field.p, field.n - rest.n);
    for (size_t n = 0; list.n > 0; n++) {
        if (n == SPNEGO_MECHS_MAX || !der_want(&list, DER_OID, &oid))
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
    struct str inside;
    while (fields.n > 0) {
        if (!der_next(&fields, &tag, &inside))
            return false;
        bool ok = true;
        if (tag == 0xa0)
            ok = read_mechs(inside, ret);
        else if (tag == 0xa2)
            ok = ret->has_token = der_want(&inside, DER_OCTET_STRING, &ret->token);
        else if ((tag == 0xa3 || tag == 0xa4) && inside.n > 0 && inside.p[0] == DER_OCTET_STRING) /* else negHints: a server's */
            ok = ret->has_mic = der_want(&inside, DER_OCTET_STRING, &ret->mic);
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
    if ((unsigned char)token.p[0] == DER_APPLICATION_0) {
        if (!der_want(&token, DER_APPLICATION_0, &frame) || !der_want(&frame, DER_OID, &oid) || !str_eq(oid, OID_SPNEGO))
            return false;
    }
    return der_want(&frame, TAG_INIT, &fields) && der_want(&fields, DER_SEQUENCE, &fields) &&
           read_init_fields(fields, ret);
}

static bool read_resp_field(unsigned tag, struct str inside, struct spnego_resp *ret)
{
    struct str value;
    switch (tag) {
    case 0xa0:
        if (!der_want(&inside, DER_ENUMERATED, &value) || value.n != 1 || (unsigned char)value.p[0] > SPNEGO_REQUEST_MIC)
            return false;
        ret->state = (enum spnego_state)value.p[0];
        return true;
    case 0xa1:
        if (!der_want(&inside, DER_OID, &value))
            return false;
        ret->mech = mech_of(value);
        return true;
    case 0xa2:
        return ret->has_token = der_want(&inside, DER_OCTET_STRING, &ret->token);
    case 0xa3:
        return ret->has_mic = der_want(&inside, DER_OCTET_STRING, &ret->mic);
    default: /* an extension */
        return true;
    }
}

bool spnego_read_resp(struct str token, struct spnego_resp *ret)
{
    struct str fields, inside;
    unsigned tag;
    *ret = (struct spnego_resp){ .state = SPNEGO_NO_STATE };
    if (token.n > SPNEGO_TOKEN_MAX || !der_want(&token, TAG_RESP, &fields) ||
        !der_want(&fields, DER_SEQUENCE, &fields))
        return false;
    while (fields.n > 0)
        if (!der_next(&fields, &tag, &inside) || !read_resp_field(tag, inside, ret))
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
    put_header(out, DER_OCTET_STRING, octets.n);
    buf_add(out, octets);
}

void spnego_write_init_ntlm(struct buf *out, struct str token, struct str *ret_mech_list)
{
    size_t fields = der_bytes(ntlm_alone.n) + der_bytes(der_bytes(token.n)), choice = der_bytes(fields);
    put_header(out, DER_APPLICATION_0, der_bytes(OID_SPNEGO.n) + der_bytes(choice));
    put_header(out, DER_OID, OID_SPNEGO.n);
    buf_add(out, OID_SPNEGO);
    put_header(out, TAG_INIT, choice);
    put_header(out, DER_SEQUENCE, fields);
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
    put_header(out, DER_SEQUENCE, fields);
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
