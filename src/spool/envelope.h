/* envelope: what a message carries beside its content, as it lies in the spool (docs/spool-format.md).
 *
 * Encoding writes fields behind each other with base/wire.h. Decoding takes any octets: every length is
 * bounded, nothing may be left over, enumerations are in range; views in a decoded envelope point into the
 * octets that were read, the array of recipients lies in the arena. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    SPOOL_RECIPIENTS_MAX = 10000,
    SPOOL_FIELD_MAX = 4096,            /* octets of any one string; an address is at most 1 KiB before that */
};

/* DSN parameters (RFC 3461 sections 4.1 and 4.3). */
enum { SPOOL_NOTIFY_NEVER = 1, SPOOL_NOTIFY_SUCCESS = 2, SPOOL_NOTIFY_FAILURE = 4, SPOOL_NOTIFY_DELAY = 8 };
enum spool_ret { SPOOL_RET_UNSET, SPOOL_RET_FULL, SPOOL_RET_HDRS, SPOOL_RETS };

enum {
    SPOOL_FLAG_8BIT = 1,               /* BODY=8BITMIME was declared */
    SPOOL_FLAG_SMTPUTF8 = 2,
    SPOOL_FLAG_BOUNCE = 4,             /* one of our own notifications */
    SPOOL_FLAGS_ALL = 7,
};

struct spool_recipient {
    struct str address;                /* without brackets, as given at RCPT */
    struct str orcpt;                  /* "rfc822;…", xtext decoded; empty: not given */
    uint8_t notify;                    /* SPOOL_NOTIFY_ bits; 0: not given */
};

struct spool_envelope {
    int64_t arrival_wall_ms;
    struct str reverse_path;           /* without brackets; empty = null */
    enum spool_ret ret;
    uint32_t flags;
    struct str envid;                  /* xtext decoded */
    struct str auth;                   /* MAIL's AUTH=, xtext decoded; "<>" kept; empty: not given */
    struct str server;                 /* virtual server that took it */
    struct str session;                /* session id, as in the logs */
    struct str client_address, client_name, helo;
    struct str protocol;               /* "ESMTPSA" … */
    struct str user;                   /* who was authenticated; empty: nobody */
    struct str tls;                    /* "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty: none */
    uint64_t message_bytes;            /* prefix and body together; filled in by who reads the record, not encoded */
    const struct spool_recipient *recipient;
    size_t n_recipients;
};

/* Adds the encoding to `out`; false when a bound above is broken or `out` is full. */
bool spool_envelope_encode(const struct spool_envelope *envelope, struct buf *out);
/* ERR_CORRUPT for anything that spool_envelope_encode() does not write, -ENOMEM when the arena is full. */
int spool_envelope_decode(struct str octets, struct arena *arena, struct spool_envelope *ret_envelope, struct err *err);
