/* login: why a login failed, in one sentence for the log: `why=`, and what to do about it: `run=`.
 *
 * Two composers: login_explain() for logins of clients here (auth.reject, auth.accept), login_explain_outbound() for
 * ours at a next hop (delivery.login.failed). The caller fills in what it knows and leaves the rest zero; every part
 * has words for when it is unknown. What peers said is taken in cut to LOGIN_PART_BYTES octets, control characters and
 * octets that are no UTF-8 as '?'; a name with blanks or quotes stands in single quotes. In `run` a peer's word stands
 * only where a shell takes it as a plain word; otherwise its placeholder in capitals stays, because commands are
 * copied. No secret belongs into the facts. Pure: no I/O, no clock, no allocation; any octets are fit to be facts. */
#pragma once
#include "explain/catalog.h"

enum { LOGIN_WHY_BYTES = 1536, LOGIN_RUN_BYTES = 768, LOGIN_PART_BYTES = 256 };

/* A row of a keytab. */
struct login_key {
    struct str principal;   /* "SMTPSVC/mail.corp.test@CORP.TEST" */
    uint32_t kvno;
    struct str enctype;     /* "aes256-cts" */
};

struct login_facts {
    const char *cause;      /* the word of `cause=`; an unknown one gets a general sentence */
    struct str user;        /* as the client wrote it, or the principal; empty: unknown */
    struct str client;      /* its address */
    struct str server;      /* the virtual server's name */
    const char *mechanism;  /* "GSSAPI"; NULL: unknown */
    const char *inner;      /* "spnego-ntlm"; NULL: unknown */

    bool has_ticket;        /* the outside of a ticket was read */
    struct str ticket_service;  /* "SMTPSVC/mail.corp.test" */
    struct str ticket_realm;
    bool has_ticket_kvno;
    uint32_t ticket_kvno;
    struct str ticket_enctype;

    struct str keytab;      /* its path */
    const struct login_key *keys;
    size_t n_keys;
    const struct str *services; /* that this virtual server answers to */
    size_t n_services;

    int64_t our_time_ms;    /* wall clock; 0: unknown */
    int64_t client_time_ms; /* from its ticket request or its error; 0: unknown */
    struct str major_text, minor_text; /* GSS-API's */

    struct str ntlm_domain, ntlm_workstation, ntlm_target; /* as the client wrote them */
    struct str mailbox;     /* what the identity rules made of the user; or the address that it wanted to send as */
    struct str detail;      /* what a library or service said: winbind's status, the LDAP error */
};

struct login_outbound_facts {
    const char *cause;
    struct str domain;      /* the domain block */
    struct str peer;        /* "mx.partner.test[192.0.2.9]:25" */
    struct str announced;   /* the name in its banner or EHLO reply */
    struct str offered;     /* mechanisms, as it announced them */
    const char *mechanism;  /* that was tried or asked for; NULL: none */
    struct str principal;   /* ours */
    struct str keytab;
    struct str spn;         /* the target that was tried */
    struct str realm;
    struct str kdc_text;    /* the KDC's or GSS-API's error */
    struct str command;     /* what we sent, without tokens: "AUTH GSSAPI" */
    unsigned reply_code;    /* 0: none */
    struct str reply;       /* the whole reply of the peer: "535 5.7.3 Authentication unsuccessful" */
    int64_t our_time_ms, peer_time_ms;
};

struct login_words {
    char why[LOGIN_WHY_BYTES]; /* ends with NUL, without a full stop */
    char run[LOGIN_RUN_BYTES]; /* commands, with "; " between them; empty: nothing to run */
    unsigned number;           /* of the catalogue's entry (2104 is PE-2104); 0: the cause is not in it */
    enum catalog_level level;  /* that the line deserves */
};

void login_explain(const struct login_facts *facts, struct login_words *ret_words);
void login_explain_outbound(const struct login_outbound_facts *facts, struct login_words *ret_words);
