/* verdict: the access matrix, as pure functions: what a session must bring, what it is offered, and whether a
 * recipient is taken. smtpd asks at every change of state; `postern explain` asks the same questions. */
#pragma once
#include "policy/access.h"

enum { VERDICT_MECHANISMS_BYTES = 256 };

struct verdict_session {
    const struct access_rules *rules;
    enum conf_listener_kind listener;
    bool tls_possible;       /* the server has a certificate and the keys process is there */
    bool tls_active;
    bool authenticated;
    bool channel_binding;    /* the TLS channel has something to bind to: -PLUS can be offered */
    bool layer_active;       /* a SASL layer that `encryption` counts protects the session */
};

struct verdict {
    bool deny;               /* 521 to everything */
    bool need_tls;           /* 530 5.7.0 Must issue a STARTTLS command first, until TLS is active */
    bool need_auth;          /* 530 5.7.0 Authentication required, until authenticated */
    bool offer_starttls;
    bool offer_auth;         /* at least one mechanism may be used now */
    char mechanisms[VERDICT_MECHANISMS_BYTES]; /* for the AUTH line, in the configured order, space-separated */
    char exps_mechanisms[VERDICT_MECHANISMS_BYTES]; /* the same for X-EXPS: those that Exchange knows */
};

void verdict_session(const struct verdict_session *in, struct verdict *ret);

/* Why AUTH with this mechanism is refused now (never 503: RFC 4954 reserves it). */
enum verdict_auth {
    VERDICT_AUTH_OK,
    VERDICT_AUTH_UNKNOWN,    /* 504 5.5.4 not offered to this host at all */
    VERDICT_AUTH_NEED_TLS,   /* 538 5.7.11 Encryption required for this mechanism */
    VERDICT_AUTH_STARTTLS,   /* 530 5.7.0 Must issue a STARTTLS command first */
};
enum verdict_auth verdict_mechanism(const struct verdict_session *in, struct str mechanism);

enum verdict_recipient_result {
    VERDICT_RECIPIENT_OK,      /* we deliver for it */
    VERDICT_RECIPIENT_RELAY,   /* passed on, by right */
    VERDICT_RECIPIENT_REFUSED, /* 550 5.7.1 Unable to relay for <…> */
};
struct verdict_recipient {
    const struct access_rules *rules;
    bool user_may_relay;                /* authenticated, and auth gave the right to relay */
    const struct conf_domain *block;    /* NULL: no block for this domain */
    bool postmaster;                    /* see recipient_is_postmaster() */
};
/* A domain without a block is refused even to those who may relay: there is no way to it (550 5.7.1 as well). */
enum verdict_recipient_result verdict_recipient(const struct verdict_recipient *in);

/* Mechanisms that send the password itself. */
bool verdict_is_clear_text(struct str mechanism);
