/* dsn: builds a delivery status notification (RFC 3464 in the multipart/report of RFC 6522; RFC 6533 for addresses
 * that need UTF-8). Pure: the original's header comes as octets, times as text. Lines end in CRLF. */
#pragma once
#include "base/buf.h"

enum smtp_dsn_action { SMTP_DSN_FAILED, SMTP_DSN_DELAYED, SMTP_DSN_DELIVERED, SMTP_DSN_RELAYED, SMTP_DSN_EXPANDED };

struct smtp_dsn_recipient {
    enum smtp_dsn_action action;
    struct str address;        /* Final-Recipient */
    struct str orcpt;          /* "rfc822;a@b", decoded; empty: not given */
    struct str status;         /* "5.1.1" */
    struct str diagnostic;     /* the next hop's reply or our own reason, one line */
    struct str remote_mta;     /* name of the next hop; empty: it was our own decision */
    bool from_smtp;            /* the diagnostic is an SMTP reply */
    struct str will_retry_until; /* RFC 5322 date, for SMTP_DSN_DELAYED; empty: left out */
};

struct smtp_dsn {
    struct str reporting_mta;  /* the virtual server's name */
    struct str to;             /* the original's reverse-path: never empty, a bounce is not bounced */
    struct str date;           /* RFC 5322, now */
    struct str arrival_date;   /* RFC 5322 */
    struct str message_id;     /* without angle brackets */
    struct str boundary;       /* letters and digits that do not occur in the original */
    struct str queue_id;       /* of the original */
    struct str envid;          /* decoded; empty: not given */
    struct str postmaster;     /* whom to ask; empty: postmaster@reporting_mta */
    struct str original;       /* what is returned: header section, or the whole message when `full` */
    bool full;
    bool utf8;                 /* addresses or original need SMTPUTF8 */
    bool body_8bit;
    const struct smtp_dsn_recipient *recipient;
    size_t n_recipients;
};

/* Adds header and body; false when `out` is full. The parts stand in the order that people read. */
bool smtp_dsn_build(const struct smtp_dsn *dsn, struct buf *out);
/* The header section of a message with its end, at most `max` octets, cut at a line: what RET=HDRS returns. */
struct str smtp_dsn_header_section(struct str message, size_t max);
