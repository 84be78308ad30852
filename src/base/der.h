/* der: a walk over DER (X.690), as far as Kerberos tickets, SPNEGO and GSS-API framing need it: definite lengths of at
 * most four octets, tags of one octet. Views into what is read, no allocation; any octets are safe. */
#pragma once
#include "base/str.h"

enum {
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_OCTET_STRING = 0x04,
    DER_OID = 0x06,
    DER_ENUMERATED = 0x0a,
    DER_GENERAL_STRING = 0x1b,
    DER_SEQUENCE = 0x30,
    DER_APPLICATION_0 = 0x60, /* RFC 2743 section 3.1: an initial token */
    DER_CONTEXT_0 = 0xa0,
};

/* One element off the front of *rest: its tag, and what is in it. ret_inside may be `rest`: then we go in. False: no whole
 * element stands there; nothing has moved. */
bool der_next(struct str *rest, unsigned *ret_tag, struct str *ret_inside);
/* The same for an element that must have this tag. */
bool der_want(struct str *rest, unsigned tag, struct str *ret_inside);
