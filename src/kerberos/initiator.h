/* initiator: a client's Kerberos credential in memory: a principal with a keytab or a password, its ticket-granting
 * ticket, and the service tickets got with it.
 *
 * Everything here may block for 27 s and longer on a KDC that is silent, and only the thread that called: call it on
 * workers. There is no renewal in place: shortly before krb_initiator_lifetime_s() ends make a new one, and free
 * the old one when its last context is done. One initiator is used by one thread at a time. */
#pragma once
#include "base/secret.h"
#include "base/str.h"
#include "kerberos/context.h"
#include "kerberos/keytab.h"

struct krb_initiator;

struct krb_initiator_options {
    const char *principal;           /* "mail$@CORP.TEST"; without realm: krb5.conf's default_realm */
    const struct krb_keytab *keytab; /* either this */
    const struct secret *password;   /* or this */
};

/* Asks a KDC for the ticket-granting ticket. Returns 0 or a negative code with *ret_failure. */
int krb_initiator_new(const struct krb_initiator_options *options, struct krb_initiator **ret_initiator,
                      struct krb_failure *ret_failure);
void krb_initiator_free(struct krb_initiator **initiator);
/* Seconds until its ticket-granting ticket ends; 0: ended. */
uint32_t krb_initiator_lifetime_s(const struct krb_initiator *initiator);
/* The principal as the KDC gave it. */
const char *krb_initiator_principal(const struct krb_initiator *initiator);
/* The credential itself (gss_cred_id_t), for libraries that do GSS-API by themselves, such as libldap. Borrowed. */
void *krb_initiator_credential(const struct krb_initiator *initiator);

struct krb_initiate_options {
    /* "SMTPSVC/mail.corp.test[@REALM]" is taken as it stands (without a realm the client's KDC finds it);
     * "smtp@mail.corp.test" goes the way of krb5.conf: dns_canonicalize_hostname, domain_realm. */
    const char *target;
    unsigned flags;      /* KRB_MUTUAL, KRB_INTEGRITY, KRB_CONFIDENTIALITY, KRB_SEQUENCE */
    struct str bindings; /* application data (krb_binding_build); empty: none */
    bool spnego;
};
/* Asks nobody yet: the first krb_context_step(), with an empty token, gets the service ticket. Which of several targets
 * is tried next after KRB_CAUSE_SPN_UNKNOWN is the caller's business. Copies what it needs; the initiator must outlive
 * the context until COMPLETE or FAILED. */
int krb_initiate_new(struct krb_initiator *initiator, const struct krb_initiate_options *options,
                     struct krb_context **ret_context, struct krb_failure *ret_failure);
