/* params: ESMTP parameters of MAIL and RCPT (RFC 5321 section 4.1.2) and xtext (RFC 3461 section 4). Checks, never
 * repairs. */
#pragma once
#include "base/buf.h"

struct smtp_param {
    struct str keyword; /* compared without case */
    struct str value;
    bool has_value;
};

enum smtp_params_step { SMTP_PARAMS_END, SMTP_PARAMS_ONE, SMTP_PARAMS_BAD };

/* Takes the next " KEYWORD" or " KEYWORD=value" from *rest; spaces at the end are no parameter. With `utf8`, a value
 * may hold valid UTF-8 (RFC 6531 section 3.3). */
enum smtp_params_step smtp_params_next(struct str *rest, bool utf8, struct smtp_param *ret);

/* True when `s` is well-formed xtext. */
bool smtp_xtext_valid(struct str s);
/* Adds the decoded octets; false when malformed or `out` is full (it may then hold a part). */
bool smtp_xtext_decode(struct str s, struct buf *out);
bool smtp_xtext_encode(struct str raw, struct buf *out);
/* ORCPT: "addr-type;xtext", at most 500 octets (RFC 3461 section 4.2); with `utf8`, utf-8-addr-unitext (RFC 6533
 * section 3) too. */
bool smtp_orcpt_valid(struct str s, bool utf8);
