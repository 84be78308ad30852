/* acceptor: the server's Kerberos credential: a keytab and a replay cache.
 *
 * Any key of the keytab is accepted (GSS_C_NO_NAME): which service name a client may use is the caller's decision, read
 * from the token before the first step (krb_ticket_read, krb_service_allowed), because krb5 itself takes every name of
 * the same account. Accept-only, so that the delegation flag is true when it is set.
 *
 * One acceptor is used by one thread at a time, and so are the contexts made from it: four threads on one credential wait
 * for each other's lock. Make one per thread, each with a replay cache of its own kind below. The acceptor must outlive
 * its contexts until they are COMPLETE or FAILED. */
#pragma once
#include "base/str.h"
#include "kerberos/context.h"
#include "kerberos/keytab.h"

struct krb_acceptor;

struct krb_acceptor_options {
    const struct krb_keytab *keytab;
    /* "file2:PATH" (made when missing; grows by 16 octets a login within the clock skew), "none:" for tests. All
     * acceptors that hold the same key must share the file, or a token can be used once with each: files may be shared
     * between threads and processes. */
    const char *rcache;
};

int krb_acceptor_new(const struct krb_acceptor_options *options, struct krb_acceptor **ret_acceptor,
                     struct krb_failure *ret_failure);
void krb_acceptor_free(struct krb_acceptor **acceptor);

struct krb_accept_options {
    struct str bindings;    /* application data (krb_binding_build); empty: none */
    bool bindings_required; /* a client that sends none fails with bindings-missing; needs `bindings` */
};
/* Takes raw Kerberos and SPNEGO tokens, whichever the client sends first. Copies the bindings. */
int krb_accept_new(struct krb_acceptor *acceptor, const struct krb_accept_options *options,
                   struct krb_context **ret_context);
