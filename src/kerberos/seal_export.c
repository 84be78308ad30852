/* The half of seal.h that knows GSS-API: only auth links it. */
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>

#include "base/secret.h"
#include "base/wire.h"
#include "kerberos/seal.h"
#include "kerberos/seal_state.h"

static const gss_krb5_lucid_key_t *effective_key(const gss_krb5_lucid_context_v1_t *lucid)
{
    return lucid->cfx_kd.have_acceptor_subkey ? &lucid->cfx_kd.acceptor_subkey : &lucid->cfx_kd.ctx_key;
}

static void put_state(const gss_krb5_lucid_context_v1_t *lucid, struct buf *b)
{
    const gss_krb5_lucid_key_t *key = effective_key(lucid);
    wire_put_u8(b, KRB_SEAL_STATE_VERSION);
    wire_put_u8(b, (uint8_t)((lucid->initiate ? 1 : 0) | (lucid->cfx_kd.have_acceptor_subkey ? 2 : 0)));
    wire_put_u64(b, lucid->send_seq);
    wire_put_u64(b, lucid->recv_seq);
    wire_put_u32(b, key->type);
    wire_put_str(b, str_slice(key->data, key->length));
}

int krb_seal_export(void **gss_context, struct buf *ret_state, struct err *err)
{
    OM_uint32 minor = 0;
    void *opaque = NULL;
    gss_ctx_id_t context = *gss_context;
    OM_uint32 major = gss_krb5_export_lucid_sec_context(&minor, &context, 1, &opaque);
    if (GSS_ERROR(major))
        return err_set(err, ERR_AUTH, "the security context cannot be exported (code %08x/%u)", major, minor);
    *gss_context = context;
    const gss_krb5_lucid_context_v1_t *lucid = opaque;
    int rc = 0;
    if (lucid->version != 1 || lucid->protocol != 1 || !krb_seal_knows(effective_key(lucid)->type))
        rc = err_set(err, ERR_AUTH, "the ticket's encryption type has no security layer here: it must be AES");
    else
        put_state(lucid, ret_state);
    gss_krb5_free_lucid_sec_context(&minor, opaque);
    if (context)
        gss_delete_sec_context(&minor, &context, GSS_C_NO_BUFFER);
    *gss_context = NULL;
    return rc < 0 ? rc : ret_state->failed ? err_errno(err, ENOMEM, "security layer") : 0;
}

/* By the session key, which the mechanism tells without giving the context up. */
bool krb_seal_possible(void *gss_context)
{
    OM_uint32 minor;
    gss_buffer_set_t set = GSS_C_NO_BUFFER_SET;
    bool possible = false;
    if (!gss_context ||
        GSS_ERROR(gss_inquire_sec_context_by_oid(&minor, gss_context, GSS_C_INQ_SSPI_SESSION_KEY, &set)))
        return false;
    /* The second element is an OID 1.2.840.113554.1.2.2.4.N whose last arc is the encryption type. */
    if (set->count >= 2 && set->elements[1].length > 0) {
        const unsigned char *oid = set->elements[1].value;
        possible = krb_seal_knows(oid[set->elements[1].length - 1]);
    }
    for (size_t i = 0; i < set->count; i++)
        secret_wipe(set->elements[i].value, set->elements[i].length);
    gss_release_buffer_set(&minor, &set);
    return possible;
}
