#include "kerberos/library.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "kerberos/private.h"

gss_OID_desc krb_oid_krb5 = { 9, "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02" };
gss_OID_desc krb_oid_spnego = { 6, "\x2b\x06\x01\x05\x05\x02" };

static int err_krb5(struct err *err, krb5_context krb5, krb5_error_code code, const char *what)
{
    const char *text = krb5_get_error_message(krb5, code);
    int rc = err_set(err, ERR_CONFIG, "%s: %s", what, text);
    krb5_free_error_message(krb5, text);
    return rc;
}

int krb_init(const char *config_path, struct err *err)
{
    krb5_context krb5;
    if (config_path) {
        if (access(config_path, R_OK) < 0)
            return err_errno(err, errno, "krb5_config %s cannot be read", config_path);
        if (setenv("KRB5_CONFIG", config_path, 1) < 0)
            return err_errno(err, errno, "setenv KRB5_CONFIG");
    }
    krb5_error_code code = krb5_init_context(&krb5);
    if (code)
        return err_krb5(err, NULL, code, config_path ? config_path : "the system's krb5.conf");
    krb5_free_context(krb5);
    return 0;
}

/* Kept for the life of the process: plug-ins are unloaded with the last krb5_context that holds them, and a sandbox may
 * not let them be opened again. */
static krb5_context warm_krb5;
static krb5_init_creds_context warm_request;

/* Making the first message of a request for initial credentials loads the preauth plug-ins; it is never sent. Whether the
 * message itself can be made (the configuration may allow no enctype) is for those to say who want one. */
static krb5_error_code warm_preauth(void)
{
    krb5_principal nobody = NULL;
    krb5_data in = { 0 }, out = { 0 }, realm = { 0 };
    unsigned flags;
    krb5_error_code code = krb5_init_context(&warm_krb5);
    if (code)
        return code;
    code = krb5_build_principal(warm_krb5, &nobody, 7, "INVALID", "warm-up", NULL);
    if (!code)
        code = krb5_init_creds_init(warm_krb5, nobody, NULL, NULL, 0, NULL, &warm_request);
    if (!code && krb5_init_creds_step(warm_krb5, warm_request, &in, &out, &realm, &flags) == 0) {
        krb5_free_data_contents(warm_krb5, &out);
        krb5_free_data_contents(warm_krb5, &realm);
    }
    krb5_free_principal(warm_krb5, nobody);
    return code;
}

int krb_warm_up(struct err *err)
{
    OM_uint32 minor;
    gss_OID_set mechs = GSS_C_NO_OID_SET;
    if (warm_krb5)
        return 0;
    krb5_error_code code = warm_preauth();
    if (code) {
        int rc = err_krb5(err, warm_krb5, code, "Kerberos plug-ins");
        krb5_free_context(warm_krb5);
        warm_krb5 = NULL;
        return rc;
    }
    if (GSS_ERROR(gss_indicate_mechs(&minor, &mechs)))
        return err_set(err, ERR_CONFIG, "GSS-API mechanisms could not be loaded (/etc/gss/mech.d)");
    gss_release_oid_set(&minor, &mechs);
    tzset(); /* the library writes local time somewhere */
    return 0;
}

/* Kerberos first and alone: asked for both at once, the library is content when SPNEGO finds any other mechanism that the
 * machine has (gss-ntlmssp), and the fault would show at each login instead of here. */
OM_uint32 krb_credential(gss_cred_usage_t usage, gss_const_key_value_set_t store, gss_cred_id_t *ret_credential,
                         OM_uint32 *ret_minor)
{
    gss_OID_set_desc krb5 = { 1, &krb_oid_krb5 };
    OM_uint32 ignored, major;
    *ret_credential = GSS_C_NO_CREDENTIAL;
    major = gss_acquire_cred_from(ret_minor, GSS_C_NO_NAME, GSS_C_INDEFINITE, &krb5, usage, store, ret_credential, NULL,
                                  NULL);
    if (!GSS_ERROR(major))
        major = gss_add_cred_from(ret_minor, *ret_credential, GSS_C_NO_NAME, &krb_oid_spnego, usage, GSS_C_INDEFINITE,
                                  GSS_C_INDEFINITE, store, NULL, NULL, NULL, NULL);
    if (!GSS_ERROR(major))
        major = gss_set_neg_mechs(ret_minor, *ret_credential, &krb5);
    if (GSS_ERROR(major))
        gss_release_cred(&ignored, ret_credential);
    return major;
}

bool krb_enctype_permitted(int32_t enctype)
{
    krb5_context krb5;
    krb5_enctype *list = NULL;
    bool permitted = false;
    if (krb5_init_context(&krb5) != 0)
        return true;
    if (krb5_get_permitted_enctypes(krb5, &list) != 0)
        permitted = true;
    for (size_t i = 0; list && list[i] != 0; i++)
        permitted = permitted || list[i] == enctype;
    krb5_free_enctypes(krb5, list);
    krb5_free_context(krb5);
    return permitted;
}
