/* failure: why Kerberos said no, as one word that never changes and the library's own texts.
 *
 * krb5 gives its reason in the minor code; through SPNEGO that code is private and only the text is left, and the
 * acceptor tells "keytab too old" from "ticket too old" by text alone. So the cause is decided on code and text
 * together. The same code means different things on the two sides: what the acceptor sees in its own keytab, the
 * initiator hears in the peer's KRB-ERROR. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum krb_side { KRB_ACCEPTOR, KRB_INITIATOR };

enum krb_cause {
    KRB_CAUSE_NONE,                 /* "" */
    KRB_CAUSE_KEYTAB_MISSING,       /* keytab-missing: there is no such file */
    KRB_CAUSE_KEYTAB_UNREADABLE,    /* keytab-unreadable: permission, or not a keytab */
    KRB_CAUSE_KEYTAB_EMPTY,         /* keytab-empty: no key in it (initiator: none for the principal) */
    KRB_CAUSE_KVNO_OLD,             /* kvno-old: the keytab is older than the ticket. Initiator: the peer's keytab */
    KRB_CAUSE_KVNO_NEW,             /* kvno-new: the ticket is older than the keytab */
    KRB_CAUSE_WRONG_KEY,            /* wrong-key: right kvno, but the key does not decrypt */
    KRB_CAUSE_ENCTYPE_MISSING,      /* enctype-missing: the keytab lacks the ticket's enctype */
    KRB_CAUSE_NOT_OUR_SERVICE,      /* not-our-service: ticket for another account or principal */
    KRB_CAUSE_SERVICE_NOT_ALLOWED,  /* service-not-allowed: same account, other service name (the caller's check) */
    KRB_CAUSE_CLOCK_SKEW,           /* clock-skew */
    KRB_CAUSE_TICKET_NOT_YET_VALID, /* ticket-not-yet-valid */
    KRB_CAUSE_TICKET_EXPIRED,       /* ticket-expired */
    KRB_CAUSE_REPLAY,               /* replay */
    KRB_CAUSE_BAD_BINDINGS,         /* bad-bindings: the peer bound to another TLS channel */
    KRB_CAUSE_BINDINGS_MISSING,     /* bindings-missing: required, and the peer sent none */
    KRB_CAUSE_NO_KDC,               /* no-kdc: no address of a KDC is known for the realm */
    KRB_CAUSE_KDC_SILENT,           /* kdc-silent: no KDC answered */
    KRB_CAUSE_SPN_UNKNOWN,          /* spn-unknown: the KDC does not know the service, or knows it twice */
    KRB_CAUSE_PREAUTH_FAILED,       /* preauth-failed: wrong password or stale keytab */
    KRB_CAUSE_CLIENT_UNKNOWN,       /* client-unknown */
    KRB_CAUSE_CLIENT_REVOKED,       /* client-revoked: disabled, expired, locked out or outside its hours */
    KRB_CAUSE_PASSWORD_EXPIRED,     /* password-expired */
    KRB_CAUSE_NO_CREDENTIALS,       /* no-credentials */
    KRB_CAUSE_ENCTYPE_UNSUPPORTED,  /* enctype-unsupported: KDC, service and we share none */
    KRB_CAUSE_REALM_UNKNOWN,        /* realm-unknown */
    KRB_CAUSE_DEFECTIVE_TOKEN,      /* defective-token: octets that are no token, or a wrap token that does not verify */
    KRB_CAUSE_INTERNAL,             /* kerberos-internal: anything else; the texts say what */
    KRB_CAUSES,
};

struct krb_failure {
    uint32_t major, minor; /* as the library gave them; the minor is private through SPNEGO */
    enum krb_cause cause;
    char major_text[200];
    char minor_text[400];  /* printable; what the library said, for the log */
};

/* The stable word: "kvno-old". */
const char *krb_cause_word(enum krb_cause cause);
/* KRB_CAUSE_NONE when there is no such word. */
enum krb_cause krb_cause_of_word(struct str word);
/* Whether a login that failed so deserves 454 4.7.0 (clock, keytab, KDC: not the client's credentials) rather than
 * 535 5.7.8. */
bool krb_cause_temporary(enum krb_cause cause);

/* The decision itself, without the library: `minor` may be private, `text` is the minor's. */
enum krb_cause krb_failure_decide(enum krb_side side, uint32_t major, uint32_t minor, struct str text);
/* A failure of our own, with a sentence. */
void krb_failure_set(struct krb_failure *ret_failure, enum krb_cause cause, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
