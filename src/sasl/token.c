#include "sasl/token.h"

/* Contents of the OBJECT IDENTIFIERs, without tag and length. */
static const struct str oid_krb5 = { "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", 9 };           /* 1.2.840.113554.1.2.2 */
static const struct str oid_krb5_microsoft = { "\x2a\x86\x48\x82\xf7\x12\x01\x02\x02", 9 }; /* 1.2.840.48018.1.2.2 */
static const struct str oid_spnego = { "\x2b\x06\x01\x05\x05\x02", 6 };                     /* 1.3.6.1.5.5.2 */
static const struct str oid_ntlmssp = { "\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a", 10 };   /* 1.3.6.1.4.1.311.2.2.10 */

enum { DER_OID = 0x06, DER_SEQUENCE = 0x30, GSS_FRAME = 0x60, CONTEXT_0 = 0xa0 };
enum { MECHS_MAX = 16, OFFERS_KRB5 = 1, OFFERS_NTLM = 2 };

/* The value of one DER element with this tag at the front of *rest, which moves behind it. Definite lengths of at most
 * four octets. */
static bool take(struct str *rest, unsigned char tag, struct str *ret_value)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    if (rest->n < 2 || p[0] != tag)
        return false;
    size_t n = p[1], header = 2;
    if (n & 0x80) {
        size_t octets = n & 0x7f;
        if (octets == 0 || octets > 4 || rest->n < 2 + octets)
            return false;
        n = 0;
        for (size_t i = 0; i < octets; i++)
            n = n << 8 | p[2 + i];
        header += octets;
    }
    if (n > rest->n - header)
        return false;
    *ret_value = str_slice(rest->p + header, n);
    *rest = str_skip(*rest, header + n);
    return true;
}

/* mechTypes of a NegTokenInit; 0 when it isn't one. */
static unsigned spnego_offers(struct str token)
{
    struct str inner = token, context, sequence, field, list, oid;
    if (token.n > 0 && (unsigned char)token.p[0] == GSS_FRAME) {
        struct str frame;
        if (!take(&inner, GSS_FRAME, &frame) || !take(&frame, DER_OID, &oid) || !str_eq(oid, oid_spnego))
            return 0;
        inner = frame;
    }
    /* Some clients leave the framing away. */
    if (!take(&inner, CONTEXT_0, &context) || !take(&context, DER_SEQUENCE, &sequence) ||
        !take(&sequence, CONTEXT_0, &field) || !take(&field, DER_SEQUENCE, &list))
        return 0;
    unsigned offers = 0;
    for (unsigned i = 0; i < MECHS_MAX && take(&list, DER_OID, &oid); i++) {
        if (str_eq(oid, oid_krb5) || str_eq(oid, oid_krb5_microsoft))
            offers |= OFFERS_KRB5;
        else if (str_eq(oid, oid_ntlmssp))
            offers |= OFFERS_NTLM;
    }
    return offers;
}

enum sasl_token_kind sasl_token_kind(struct str token)
{
    struct str rest = token, frame, oid;
    if (str_starts(token, STR("NTLMSSP\0")))
        return SASL_TOKEN_NTLMSSP;
    if (take(&rest, GSS_FRAME, &frame) && take(&frame, DER_OID, &oid) &&
        (str_eq(oid, oid_krb5) || str_eq(oid, oid_krb5_microsoft)))
        return SASL_TOKEN_KRB5;
    unsigned offers = spnego_offers(token);
    if (offers & OFFERS_KRB5)
        return SASL_TOKEN_SPNEGO_KRB5;
    return offers & OFFERS_NTLM ? SASL_TOKEN_SPNEGO_NTLM : SASL_TOKEN_UNKNOWN;
}

bool sasl_token_offers_ntlm(struct str token)
{
    return (spnego_offers(token) & OFFERS_NTLM) != 0;
}

const char *sasl_token_kind_name(enum sasl_token_kind kind)
{
    static const char *const names[] = {
        [SASL_TOKEN_UNKNOWN] = "unknown",           [SASL_TOKEN_KRB5] = "krb5",
        [SASL_TOKEN_SPNEGO_KRB5] = "spnego-krb5",   [SASL_TOKEN_SPNEGO_NTLM] = "spnego-ntlm",
        [SASL_TOKEN_NTLMSSP] = "ntlm",
    };
    return names[kind];
}
