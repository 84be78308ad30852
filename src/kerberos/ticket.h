/* ticket: what can be read from the outside of a GSS-API token that carries a Kerberos AP-REQ (RFC 4120, RFC 4121,
 * RFC 4178): for whom the ticket is, in which realm, encrypted with which key. Nothing in it is proven.
 *
 * A walk over DER with bounds: no allocation, no library, any octets are safe. Text is krb5's: components joined with
 * '/', and '/', '@', '\' within a component written with a '\' before it; octets outside printable ASCII become \xHH. So
 * two names that differ never give the same text. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { KRB_TICKET_NAME_BYTES = 512, KRB_TICKET_REALM_BYTES = 256 };

enum krb_token_form {
    KRB_TOKEN_RAW,             /* RFC 4121 initial token, or a bare AP-REQ */
    KRB_TOKEN_SPNEGO_INIT,     /* NegTokenInit with an optimistic mechToken */
    KRB_TOKEN_SPNEGO_RESPONSE, /* NegTokenResp: the AP-REQ in the second message */
};

struct krb_ticket {
    enum krb_token_form form;
    char service[KRB_TICKET_NAME_BYTES]; /* "SMTPSVC/mail.corp.test", as the client wrote it */
    char realm[KRB_TICKET_REALM_BYTES];  /* the service's: "CORP.TEST" */
    bool has_kvno;
    uint32_t kvno;
    int32_t enctype;               /* of the ticket, that is of the service's key; see krb_enctype_name() */
    int32_t authenticator_enctype; /* of the session key */
    bool mutual;                   /* the client asks for mutual authentication */
};

/* False: no AP-REQ in there (a SPNEGO token without mechToken, NTLM, junk), *ret_ticket is then zeroed. */
bool krb_ticket_read(struct str token, struct krb_ticket *ret_ticket);

/* Whether the token begins with SPNEGO's framing (RFC 4178 section 4.2, RFC 2743 section 3.1), whatever is in it. */
bool krb_token_is_spnego(struct str token);

/* Whether `service` ("SMTPSVC/mail.corp.test") of `realm` is one of the `n` names allowed; letters of either case are the
 * same in the service, as they are to a domain controller, and not in the realm. A name without a realm
 * ("smtp/mail.corp.test", not "smtp/mail.corp.test@CORP.TEST") allows every one. An empty list allows nothing. */
bool krb_service_allowed(struct str service, struct str realm, const char *const *allowed, size_t n);

/* The text of a principal: parts joined with '/', "@realm" behind them unless the realm is empty. False when it does not
 * fit; `text` is then empty. */
bool krb_name_text(const struct str *part, size_t n_parts, struct str realm, char *text, size_t text_bytes);

/* "aes256-cts", "rc4-hmac", ...; "enctype-N" goes to `number` (at least 24 octets) for one without a name. */
const char *krb_enctype_name(int32_t enctype, char *number, size_t number_bytes);
