/* private: what the files of this room share: the shape of a context, and how the libraries' errors become failures. */
#pragma once
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>

#include "kerberos/context.h"

/* 1.2.840.113554.1.2.2 and 1.3.6.1.5.5.2; not const because GSS-API's prototypes are not. */
extern gss_OID_desc krb_oid_krb5, krb_oid_spnego;

struct krb_context {
    enum krb_side side;
    gss_cred_id_t credential; /* borrowed from the acceptor or initiator */
    gss_ctx_id_t gss;
    gss_name_t target;        /* initiator's; owned */
    OM_uint32 wanted_flags;   /* initiator's */
    struct buf bindings;
    bool has_bindings, bindings_required;
    bool spnego, started, complete, failed;
    unsigned flags;
    char peer[KRB_PEER_MAX + 1];
    struct krb_session session;
    struct krb_failure failure;
};

/* With a copy of the bindings; NULL when out of memory or when they are longer than 1 KiB. */
struct krb_context *krb_context_new(enum krb_side side, gss_cred_id_t credential, struct str bindings);

/* Both fill texts and cause. `mech` is the one whose minor it is. */
void krb_failure_gss(struct krb_failure *ret_failure, enum krb_side side, OM_uint32 major, OM_uint32 minor,
                     gss_OID mech);
void krb_failure_krb5(struct krb_failure *ret_failure, enum krb_side side, krb5_context krb5, krb5_error_code code);
/* One credential for raw Kerberos and for SPNEGO, inside which only Kerberos is negotiated. */
OM_uint32 krb_credential(gss_cred_usage_t usage, gss_const_key_value_set_t store, gss_cred_id_t *ret_credential,
                         OM_uint32 *ret_minor);
