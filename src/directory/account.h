/* account: looks up one account of a Kerberos realm in its LDAP directory. Blocking, for worker threads: a directory
 * belongs to one thread at a time, and every step is bounded by the time-out.
 *
 * The room knows no Kerberos: the credential comes from the caller's table, is asked for on the thread that binds,
 * and is handed on to SASL GSSAPI as it is (a gss_cred_id_t). Time spent in there (a KDC that is silent) is the
 * caller's to bound: get the credential and, best, the service's ticket before.
 *
 * Connections are protected by Kerberos itself (sign and seal, at least 56 bits), or by TLS with the server's name
 * checked. Referrals are not followed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    ACCOUNT_VALUES_MAX = 4096,       /* of one answer, all attributes together */
    ACCOUNT_VALUE_MAX = 4096,        /* octets; a longer value is left out */
    ACCOUNT_ATTRIBUTES_MAX = 64,
};

enum account_protection { ACCOUNT_GSSAPI, ACCOUNT_STARTTLS, ACCOUNT_LDAPS };

struct account_credential {
    void *context;
    /* Makes this thread ready to log in; *ret_credential is a gss_cred_id_t, or NULL for what the thread or the
     * environment has by itself (KRB5CCNAME, gss_krb5_ccache_name()). Negative: cannot, err says why. */
    int (*get)(void *context, void **ret_credential, struct err *err);
    /* Under TLS, instead: a simple login as `name` with the password that `password` puts into the buffer, which is
     * wiped after use. NULL: GSSAPI. */
    int (*password)(void *context, struct buf *into, struct err *err);
    const char *name;
};

struct account_options {
    const char *realm;
    const char *const *server;       /* "ldap://host[:port]", "ldaps://host[:port]": asked in this order */
    size_t n_servers;
    enum account_protection protection;
    const char *ca;                  /* PEM file; NULL: the system's */
    const char *base;                /* NULL: from the realm, "DC=CORP,DC=TEST" */
    unsigned timeout_ms;             /* of each server and each step: connect, TLS, login, search */
    struct account_credential credential;
};

struct account_value {
    const char *attribute;
    struct str value;
};
struct account_answer {
    bool found;
    const char *name;                /* of the entry */
    const struct account_value *value;
    size_t n_values;
    const char *server;              /* who answered */
};

struct account_directory;
/* Copies the options; connects to nothing. */
int account_directory_new(const struct account_options *options, struct account_directory **ret_directory,
                          struct err *err);
void account_directory_free(struct account_directory **directory);

/* What is looked for: the account by sAMAccountName and, when there is none, the principal by userPrincipalName; a
 * service (`account` empty) by servicePrincipalName of the principal's part before the @. */
struct account_query {
    struct str account, principal;
    const char *const *attribute;
    size_t n_attributes;
};
/* Connects and logs in when need be, and keeps the connection; one that turns out dead is made again once. 0 with
 * *ret_answer (in `arena`; found = false: no such account), ERR_CORRUPT: more than one account fits; ERR_AUTH: the
 * login was refused; other negative codes: no server could be asked. `err` names the server and the step. */
int account_find(struct account_directory *directory, const struct account_query *query, struct arena *arena,
                 struct account_answer *ret_answer, struct err *err);

/* RFC 4515: what a value must look like within a filter. False: no memory. */
bool account_filter_escape(struct str value, struct buf *into);
/* "CORP.TEST" -> "DC=CORP,DC=TEST", escaped (RFC 4514). */
bool account_base_of_realm(const char *realm, struct buf *into);
/* "servicePrincipalName;range=0-1499": the attribute's own name, and where the next range begins (0: that was all).
 * False: no such option in it. */
bool account_range_parse(struct str description, struct str *ret_attribute, uint32_t *ret_next);
