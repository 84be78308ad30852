/* spnego: the tokens of SPNEGO as octets (RFC 4178 section 4.2, with what [MS-SPNG] adds), for the case in which our
 * own NTLM runs inside: where there is Kerberos, MIT's library does all of SPNEGO.
 *
 * Readers take whole tokens from a hostile peer and return views; DER with definite lengths only, at most
 * SPNEGO_TOKEN_MAX octets. Writers add to a buffer whose `failed` tells. */
#pragma once
#include "base/buf.h"

enum { SPNEGO_TOKEN_MAX = 64 * 1024, SPNEGO_MECHS_MAX = 16 };

enum spnego_mech { SPNEGO_KRB5 = 1, SPNEGO_KRB5_MICROSOFT = 2, SPNEGO_NTLMSSP = 4, SPNEGO_NEGOEX = 8, SPNEGO_OTHER = 16 };

struct spnego_init {
    struct str mech_list;      /* the DER of the whole MechTypeList: what mechListMIC is over */
    unsigned mechs;            /* SPNEGO_... bits of all */
    enum spnego_mech first;    /* the preferred one: the optimistic token is for it */
    bool has_token, has_mic;
    struct str token, mic;
};
/* With the framing of RFC 2743 section 3.1 (0x60 ... 1.3.6.1.5.5.2) or without it (0xa0), as some clients send it. */
bool spnego_read_init(struct str token, struct spnego_init *ret);

enum spnego_state { SPNEGO_ACCEPT_COMPLETED, SPNEGO_ACCEPT_INCOMPLETE, SPNEGO_REJECT, SPNEGO_REQUEST_MIC, SPNEGO_NO_STATE };

struct spnego_resp {
    enum spnego_state state;   /* SPNEGO_NO_STATE: absent */
    enum spnego_mech mech;     /* 0: absent */
    bool has_token, has_mic;
    struct str token, mic;
};
bool spnego_read_resp(struct str token, struct spnego_resp *ret);

/* NegTokenInit with NTLMSSP alone, framed. *ret_mech_list is a view into a constant: what mechListMIC is over. */
void spnego_write_init_ntlm(struct buf *out, struct str token, struct str *ret_mech_list);
/* `mech` 0 or SPNEGO_NTLMSSP. */
void spnego_write_resp(struct buf *out, const struct spnego_resp *resp);
