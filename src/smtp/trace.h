/* trace: the Received field that this server adds (RFC 5321 section 4.4, RFC 3848).
 * Pure: everything, the date too, comes in; lines are folded with CRLF TAB and end in CRLF. What came from the peer
 * (the HELO name, addresses) is made harmless: control characters, parentheses and backslashes become '?'. */
#pragma once
#include "base/buf.h"

struct smtp_trace {
    struct str helo;        /* as the peer said it; may be empty */
    struct str client_name; /* verified reverse name; empty: "unknown" */
    struct str client_ip;   /* "192.0.2.1" or "2001:db8::1" */
    struct str server_name;
    struct str server_text; /* "(Postern)"-like comment without parentheses; empty: none */
    struct str queue_id;
    struct str tls_version; /* "TLSv1.3"; empty: no TLS */
    struct str tls_cipher;
    unsigned tls_bits; /* 0: left out */
    struct str user;   /* authenticated identity, shown only if the caller sets it; empty: not shown */
    bool esmtp, authenticated, smtputf8;
    struct str recipient; /* the only one; empty when there are several (RFC 5321 section 7.6 is about blind copies) */
    struct str date;      /* RFC 5322 date, see clock_rfc5322() */
};

bool smtp_trace_received(const struct smtp_trace *t, struct buf *out);
/* "SMTP", "ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA", "UTF8SMTPSA" ... (RFC 3848, RFC 6531 section 4.3). */
const char *smtp_trace_protocol(bool esmtp, bool tls, bool authenticated, bool smtputf8);
