#include "kerberos/acceptor.h"

#include <stdlib.h>

#include "kerberos/private.h"

struct krb_acceptor {
    gss_cred_id_t credential;
};

int krb_acceptor_new(const struct krb_acceptor_options *options, struct krb_acceptor **ret_acceptor,
                     struct krb_failure *ret_failure)
{
    gss_key_value_element_desc elements[] = {
        { "keytab", krb_keytab_name(options->keytab) },
        { "rcache", options->rcache },
    };
    gss_key_value_set_desc store = { 2, elements };
    OM_uint32 minor, major;
    struct krb_acceptor *acceptor = calloc(1, sizeof *acceptor);
    *ret_acceptor = NULL;
    if (!acceptor) {
        krb_failure_set(ret_failure, KRB_CAUSE_INTERNAL, "out of memory");
        return -ENOMEM;
    }
    major = krb_credential(GSS_C_ACCEPT, &store, &acceptor->credential, &minor);
    if (GSS_ERROR(major)) {
        krb_failure_gss(ret_failure, KRB_ACCEPTOR, major, minor, &krb_oid_krb5);
        free(acceptor);
        return ERR_AUTH;
    }
    *ret_acceptor = acceptor;
    return 0;
}

void krb_acceptor_free(struct krb_acceptor **acceptor)
{
    OM_uint32 ignored;
    if (!acceptor || !*acceptor)
        return;
    gss_release_cred(&ignored, &(*acceptor)->credential);
    free(*acceptor);
    *acceptor = NULL;
}

int krb_accept_new(struct krb_acceptor *acceptor, const struct krb_accept_options *options,
                   struct krb_context **ret_context)
{
    *ret_context = krb_context_new(KRB_ACCEPTOR, acceptor->credential, options->bindings);
    if (!*ret_context)
        return -ENOMEM;
    (*ret_context)->bindings_required = options->bindings_required;
    return 0;
}
