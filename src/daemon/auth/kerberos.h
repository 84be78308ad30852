/* kerberos: keytabs as master hands them over, and the Kerberos side of one client's login.
 *
 * A keytab belongs to a virtual server, a route or a directory, and is counted: an exchange keeps the one that it began
 * with, so a new keytab never disturbs a login. Its acceptors are made at first use, a few for each keytab, so that
 * threads do not wait for one credential's lock.
 *
 * An exchange is used by one thread at a time: auth makes it on the loop, steps it on a worker through the table that
 * the mechanism uses (sasl/gss.h), and looks at the outcome on the loop again. */
#pragma once
#include "daemon/auth/auth.h"
#include "kerberos/acceptor.h"
#include "kerberos/keytab.h"
#include "kerberos/ticket.h"
#include "sasl/gss.h"

enum { KERBEROS_SERVICES_MAX = 64 };

struct auth_keytab;
struct kerberos_exchange;

/* Reads the keytab from `fd` (which stays the caller's). NULL when out of memory. A file that is no use makes an event and
 * a keytab without keys: logins that need it are refused with auth_keytab_cause(). */
struct auth_keytab *auth_keytab_new(struct auth *auth, const struct ipc_file *file, int fd);
struct auth_keytab *auth_keytab_ref(struct auth_keytab *keytab);
void auth_keytab_unref(struct auth_keytab **keytab);
/* NULL when the file was not usable; then auth_keytab_cause() says why. */
const struct krb_keytab *auth_keytab_keys(const struct auth_keytab *keytab);
enum krb_cause auth_keytab_cause(const struct auth_keytab *keytab);
const char *auth_keytab_path(const struct auth_keytab *keytab);

/* The keytabs of one snapshot, by kind and name. */
struct auth_keytabs;
struct auth_keytabs *auth_keytabs_new(void);
void auth_keytabs_free(struct auth_keytabs **keytabs);
void auth_keytabs_put(struct auth_keytabs *keytabs, struct auth_keytab *keytab);
/* Borrowed; NULL: none. */
struct auth_keytab *auth_keytabs_find(const struct auth_keytabs *keytabs, unsigned detail, struct str name);

struct kerberos_options {
    struct auth_keytab *keytab;       /* a reference is taken */
    const struct conf_server *server; /* its names say which services a ticket may be for; borrowed */
    struct str cert_hash;             /* tls-server-end-point of this connection; empty: no TLS */
    struct str exporter;              /* tls-exporter; empty: not TLS 1.3 */
    bool binding_required;
    struct str rcache;
};
/* NULL when out of memory. */
struct kerberos_exchange *kerberos_exchange_new(const struct kerberos_options *options);
void kerberos_exchange_free(struct kerberos_exchange **exchange);
/* For struct sasl_server_options; lives as long as the exchange. */
const struct sasl_gss *kerberos_exchange_gss(const struct kerberos_exchange *exchange);

/* After a step that failed. */
const struct krb_failure *kerberos_exchange_failure(const struct kerberos_exchange *exchange);
/* The ticket that the client showed; NULL: none was seen. */
const struct krb_ticket *kerberos_exchange_ticket(const struct kerberos_exchange *exchange);
struct auth_keytab *kerberos_exchange_keytab(const struct kerberos_exchange *exchange);
/* The services that a ticket may be for. */
size_t kerberos_exchange_services(const struct kerberos_exchange *exchange, const char *const **ret_services);
/* After success: what smtpd needs for the layer (kerberos/seal.h). The context is gone then. */
int kerberos_exchange_seal(struct kerberos_exchange *exchange, struct buf *ret_state, struct err *err);
