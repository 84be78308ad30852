/* token: what the first token of a GSS-API exchange is, read from its outside.
 *
 * "AUTH GSSAPI" means two protocols: RFC 4752 sends Kerberos as it is, Microsoft's clients send SPNEGO
 * ([MS-SSEAN]), and some put NTLMSSP there without any framing. Only the first token tells. Pure, bounded, and
 * never wrong about memory; a token that is recognized here may still be defective inside. RFC 2743 section 3.1
 * (framing), RFC 4178 section 4.2 (NegTokenInit). */
#pragma once
#include "base/str.h"

enum sasl_token_kind {
    SASL_TOKEN_UNKNOWN,
    SASL_TOKEN_KRB5,        /* Kerberos as it is */
    SASL_TOKEN_SPNEGO_KRB5, /* SPNEGO; Kerberos (also under Microsoft's old number) is among what it proposes */
    SASL_TOKEN_SPNEGO_NTLM, /* SPNEGO; NTLMSSP is, Kerberos isn't */
    SASL_TOKEN_NTLMSSP,     /* NTLMSSP without any framing */
};

enum sasl_token_kind sasl_token_kind(struct str token);
/* "krb5", "spnego-krb5", "spnego-ntlm", "ntlm", "unknown": for the log. */
const char *sasl_token_kind_name(enum sasl_token_kind kind);
/* SPNEGO that proposes NTLMSSP, beside Kerberos or alone: our own SPNEGO can go on with it. */
bool sasl_token_offers_ntlm(struct str token);
