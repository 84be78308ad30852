#include "sasl/token.h"

#include "base/der.h"
#include "sasl/spnego.h"

/* Contents of the OBJECT IDENTIFIERs, without tag and length. */
static const struct str oid_krb5 = { "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", 9 };           /* 1.2.840.113554.1.2.2 */
static const struct str oid_krb5_microsoft = { "\x2a\x86\x48\x82\xf7\x12\x01\x02\x02", 9 }; /* 1.2.840.48018.1.2.2 */
/* What a NegTokenInit proposes, as SPNEGO_ bits; 0 when it isn't one. */
static unsigned spnego_offers(struct str token)
{
    struct spnego_init init;
    return spnego_read_init(token, &init) ? init.mechs : 0;
}

enum sasl_token_kind sasl_token_kind(struct str token)
{
    struct str rest = token, frame, oid;
    if (str_starts(token, STR("NTLMSSP\0")))
        return SASL_TOKEN_NTLMSSP;
    if (der_want(&rest, DER_APPLICATION_0, &frame) && der_want(&frame, DER_OID, &oid) &&
        (str_eq(oid, oid_krb5) || str_eq(oid, oid_krb5_microsoft)))
        return SASL_TOKEN_KRB5;
    unsigned offers = spnego_offers(token);
    if (offers & (SPNEGO_KRB5 | SPNEGO_KRB5_MICROSOFT))
        return SASL_TOKEN_SPNEGO_KRB5;
    return offers & SPNEGO_NTLMSSP ? SASL_TOKEN_SPNEGO_NTLM : SASL_TOKEN_UNKNOWN;
}

bool sasl_token_offers_ntlm(struct str token)
{
    return (spnego_offers(token) & SPNEGO_NTLMSSP) != 0;
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
