/* address: mailboxes and paths of the SMTP envelope (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
 *
 * It checks and never repairs: what is not a path by the grammar is refused, and what is accepted is kept as the
 * octets that came. Views point into the text that was parsed. Bounds: local part 255 octets (RFC 5321 says 64; longer
 * ones exist in the field, BATV and VERP among them), domain 255, mailbox 320, whole path with a source route 1024. */
#pragma once
#include "base/buf.h"

enum {
    SMTP_ADDRESS_LOCAL_MAX_BYTES = 255,
    SMTP_ADDRESS_DOMAIN_MAX_BYTES = 255,
    SMTP_ADDRESS_MAX_BYTES = 320,
    SMTP_ADDRESS_PATH_MAX_BYTES = 1024,
};

struct smtp_address {
    struct str text;   /* local@domain as written, without <> and without a source route; empty: the null path <> */
    struct str local;  /* as written, quotes included */
    struct str domain; /* empty for <postmaster>; "[192.0.2.1]" with its brackets for a literal */
    bool literal;      /* the domain is an address literal */
    bool utf8;         /* holds octets above 127, so it needs SMTPUTF8 */
};

enum smtp_address_flags {
    SMTP_ADDRESS_NULL_OK = 1,       /* <> (a reverse-path) */
    SMTP_ADDRESS_POSTMASTER_OK = 2, /* <postmaster> in either case, without a domain (a forward-path) */
};

enum smtp_address_fault {
    SMTP_ADDRESS_OK,
    SMTP_ADDRESS_BRACKETS, /* not in <> */
    SMTP_ADDRESS_ROUTE,    /* malformed source route */
    SMTP_ADDRESS_LOCAL_EMPTY,
    SMTP_ADDRESS_LOCAL_LONG,
    SMTP_ADDRESS_LOCAL, /* a character that a local part cannot hold, or an open quote */
    SMTP_ADDRESS_NO_DOMAIN,
    SMTP_ADDRESS_DOMAIN, /* malformed or too long */
    SMTP_ADDRESS_UTF8,   /* octets above 127 that are not UTF-8 */
    SMTP_ADDRESS_LONG,
    SMTP_ADDRESS_NULL, /* <> where a mailbox is needed */
    SMTP_ADDRESS_FAULTS,
};
/* A few words for a reply. */
const char *smtp_address_fault_text(enum smtp_address_fault fault);

/* A bare mailbox, without <>. `ret` and `ret_fault` may be NULL. Dots at the ends of a local part or in a row are let
 * through: such mailboxes exist, and whether a domain of ours has one is for policy to say. */
bool smtp_address_parse(struct str text, struct smtp_address *ret, enum smtp_address_fault *ret_fault);
/* A path in angle brackets at the start of *rest; a source route before the mailbox is checked and dropped
 * (RFC 5321 appendix C). On success *rest is what follows the '>'. */
bool smtp_address_parse_path(struct str *rest, unsigned flags, struct smtp_address *ret,
                             enum smtp_address_fault *ret_fault);
/* A host name of letters, digits, '-' and '_' in labels of 1 to 63 octets, no dot at the end; with `utf8`, valid UTF-8
 * above 127 too. */
bool smtp_address_domain_valid(struct str domain, bool utf8);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]" or a general literal "[tag:text]". */
bool smtp_address_literal_valid(struct str literal);
/* The local part without its quotes and backslashes, the form in which two local parts are compared. */
bool smtp_address_local_plain(const struct smtp_address *a, struct buf *out);
/* RFC 3629: shortest forms only, no surrogates, nothing above U+10FFFF. ASCII is valid. */
bool smtp_utf8_valid(struct str s);
bool smtp_is_ascii(struct str s);
