#include "kerberos/initiator.h"

#include <stdlib.h>
#include <time.h>

#include "kerberos/private.h"

struct krb_initiator {
    krb5_context krb5;
    krb5_ccache ccache; /* MEMORY:, named by the library, ours alone */
    gss_cred_id_t credential;
    gss_cred_id_t unprotected; /* the same, for contexts that protect no messages */
    char *principal;
    int64_t end_s; /* of the ticket-granting ticket, since 1970 */
};

/* The library wants a NUL at the end. */
static krb5_error_code ask_with_password(krb5_context krb5, krb5_principal client, const struct secret *password,
                                         krb5_get_init_creds_opt *opt, krb5_creds *ret_creds)
{
    struct str octets = secret_bytes(password);
    char *text = octets.n < SIZE_MAX && !memchr(octets.p, 0, octets.n) ? malloc(octets.n + 1) : NULL;
    if (!text)
        return ENOMEM;
    memcpy(text, octets.p, octets.n);
    text[octets.n] = 0;
    krb5_error_code code = krb5_get_init_creds_password(krb5, ret_creds, client, text, NULL, NULL, 0, NULL, opt);
    secret_wipe(text, octets.n);
    free(text);
    return code;
}

static krb5_error_code ask_with_keytab(krb5_context krb5, krb5_principal client, const struct krb_keytab *keytab,
                                       krb5_get_init_creds_opt *opt, krb5_creds *ret_creds)
{
    krb5_keytab handle;
    krb5_error_code code = krb5_kt_resolve(krb5, krb_keytab_name(keytab), &handle);
    if (code)
        return code;
    code = krb5_get_init_creds_keytab(krb5, ret_creds, client, handle, 0, NULL, opt);
    krb5_kt_close(krb5, handle);
    return code;
}

static krb5_error_code ask(struct krb_initiator *initiator, const struct krb_initiator_options *options,
                           krb5_creds *ret_creds)
{
    krb5_principal client = NULL;
    krb5_get_init_creds_opt *opt = NULL;
    krb5_error_code code = krb5_parse_name(initiator->krb5, options->principal, &client);
    if (!code)
        code = krb5_get_init_creds_opt_alloc(initiator->krb5, &opt);
    if (!code) {
        krb5_get_init_creds_opt_set_change_password_prompt(opt, 0);
        code = options->keytab ? ask_with_keytab(initiator->krb5, client, options->keytab, opt, ret_creds)
                               : ask_with_password(initiator->krb5, client, options->password, opt, ret_creds);
    }
    krb5_get_init_creds_opt_free(initiator->krb5, opt);
    krb5_free_principal(initiator->krb5, client);
    return code;
}

static krb5_error_code keep(struct krb_initiator *initiator, krb5_creds *creds)
{
    char *text = NULL;
    krb5_error_code code = krb5_cc_new_unique(initiator->krb5, "MEMORY", NULL, &initiator->ccache);
    if (!code)
        code = krb5_cc_initialize(initiator->krb5, initiator->ccache, creds->client);
    if (!code)
        code = krb5_cc_store_cred(initiator->krb5, initiator->ccache, creds);
    if (!code)
        code = krb5_unparse_name(initiator->krb5, creds->client, &text);
    if (!code && !(initiator->principal = strdup(text)))
        code = ENOMEM;
    krb5_free_unparsed_name(initiator->krb5, text);
    /* krb5 timestamps are 32 bits without a sign in effect, good until 2106. */
    initiator->end_s = (int64_t)(uint32_t)creds->times.endtime;
    return code;
}

/* The credentials that GSS-API takes, over the cache just filled. Two, because krb5 sets the flags for integrity and
 * confidentiality whatever is asked for, and only an option of the credential keeps it from that. */
static int make_credential(struct krb_initiator *initiator, struct krb_failure *ret_failure)
{
    char *name = NULL;
    krb5_error_code code = krb5_cc_get_full_name(initiator->krb5, initiator->ccache, &name);
    if (code) {
        krb_failure_krb5(ret_failure, KRB_INITIATOR, initiator->krb5, code);
        return ERR_AUTH;
    }
    gss_key_value_element_desc element = { "ccache", name };
    gss_key_value_set_desc store = { 1, &element };
    gss_buffer_desc nothing = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor, major = krb_credential(GSS_C_INITIATE, &store, &initiator->credential, &minor);
    if (!GSS_ERROR(major))
        major = krb_credential(GSS_C_INITIATE, &store, &initiator->unprotected, &minor);
    if (!GSS_ERROR(major))
        major = gss_set_cred_option(&minor, &initiator->unprotected, (gss_OID)(uintptr_t)GSS_KRB5_CRED_NO_CI_FLAGS_X,
                                    &nothing);
    krb5_free_string(initiator->krb5, name);
    if (!GSS_ERROR(major))
        return 0;
    krb_failure_gss(ret_failure, KRB_INITIATOR, major, minor, &krb_oid_krb5);
    return ERR_AUTH;
}

static int acquire(struct krb_initiator *initiator, const struct krb_initiator_options *options,
                   struct krb_failure *ret_failure)
{
    krb5_creds creds = { 0 };
    krb5_error_code code = krb5_init_context(&initiator->krb5);
    if (!code)
        code = ask(initiator, options, &creds);
    bool asked = code == 0;
    if (!code)
        code = keep(initiator, &creds);
    krb5_free_cred_contents(initiator->krb5, &creds);
    if (!code)
        return make_credential(initiator, ret_failure);
    krb_failure_krb5(ret_failure, KRB_INITIATOR, initiator->krb5, code);
    /* A KDC that wants no preauthentication sends an answer that a wrong key does not decrypt. */
    if (!asked && ret_failure->cause == KRB_CAUSE_WRONG_KEY)
        ret_failure->cause = KRB_CAUSE_PREAUTH_FAILED;
    return ERR_AUTH;
}

int krb_initiator_new(const struct krb_initiator_options *options, struct krb_initiator **ret_initiator,
                      struct krb_failure *ret_failure)
{
    *ret_initiator = NULL;
    if (!options->principal || !options->principal[0] || !options->keytab == !options->password) {
        krb_failure_set(ret_failure, KRB_CAUSE_NO_CREDENTIALS,
                        "a principal and either a keytab or a password are needed");
        return ERR_CONFIG;
    }
    struct krb_initiator *initiator = calloc(1, sizeof *initiator);
    if (!initiator) {
        krb_failure_set(ret_failure, KRB_CAUSE_INTERNAL, "out of memory");
        return -ENOMEM;
    }
    int rc = acquire(initiator, options, ret_failure);
    if (rc < 0)
        krb_initiator_free(&initiator);
    *ret_initiator = initiator;
    return rc;
}

void krb_initiator_free(struct krb_initiator **initiator)
{
    OM_uint32 ignored;
    if (!initiator || !*initiator)
        return;
    gss_release_cred(&ignored, &(*initiator)->credential);
    gss_release_cred(&ignored, &(*initiator)->unprotected);
    if ((*initiator)->ccache)
        krb5_cc_destroy((*initiator)->krb5, (*initiator)->ccache);
    krb5_free_context((*initiator)->krb5);
    free((*initiator)->principal);
    free(*initiator);
    *initiator = NULL;
}

uint32_t krb_initiator_lifetime_s(const struct krb_initiator *initiator)
{
    int64_t left_s = initiator->end_s - (int64_t)time(NULL);
    return left_s > 0 ? (uint32_t)left_s : 0;
}

const char *krb_initiator_principal(const struct krb_initiator *initiator)
{
    return initiator->principal;
}

void *krb_initiator_credential(const struct krb_initiator *initiator)
{
    return initiator->credential;
}

/* "class/host" gets an empty realm, which krb5 calls the referral realm: it asks the client's own KDC, which may
 * point on, and no name is looked up in DNS. */
static OM_uint32 import_target(const char *target, gss_name_t *ret_name, OM_uint32 *ret_minor)
{
    char text[KRB_PEER_MAX];
    const char *slash = strchr(target, '/'), *at = strchr(target, '@');
    bool principal = slash && (!at || slash < at);
    int n = snprintf(text, sizeof text, "%s%s", target, principal && !at ? "@" : "");
    *ret_minor = 0;
    if (n <= 0 || (size_t)n >= sizeof text)
        return GSS_S_BAD_NAME;
    gss_buffer_desc name = { (size_t)n, text };
    gss_OID type = principal ? (gss_OID)(uintptr_t)GSS_KRB5_NT_PRINCIPAL_NAME : GSS_C_NT_HOSTBASED_SERVICE;
    return gss_import_name(ret_minor, &name, type, ret_name);
}

static OM_uint32 wanted_flags(unsigned flags)
{
    OM_uint32 wanted = 0;
    if (flags & KRB_MUTUAL)
        wanted |= GSS_C_MUTUAL_FLAG;
    if (flags & KRB_INTEGRITY)
        wanted |= GSS_C_INTEG_FLAG;
    if (flags & KRB_CONFIDENTIALITY)
        wanted |= GSS_C_CONF_FLAG;
    if (flags & KRB_SEQUENCE)
        wanted |= GSS_C_SEQUENCE_FLAG | GSS_C_REPLAY_FLAG;
    return wanted;
}

int krb_initiate_new(struct krb_initiator *initiator, const struct krb_initiate_options *options,
                     struct krb_context **ret_context, struct krb_failure *ret_failure)
{
    OM_uint32 minor;
    bool protects = options->flags & (KRB_INTEGRITY | KRB_CONFIDENTIALITY);
    struct krb_context *context = krb_context_new(
        KRB_INITIATOR, protects ? initiator->credential : initiator->unprotected, options->bindings);
    *ret_context = NULL;
    if (!context) {
        krb_failure_set(ret_failure, KRB_CAUSE_INTERNAL, "out of memory");
        return -ENOMEM;
    }
    OM_uint32 major = import_target(options->target, &context->target, &minor);
    if (GSS_ERROR(major)) {
        krb_failure_gss(ret_failure, KRB_INITIATOR, major, minor, &krb_oid_krb5);
        krb_context_free(&context);
        return ERR_CONFIG;
    }
    context->wanted_flags = wanted_flags(options->flags);
    context->spnego = options->spnego;
    *ret_context = context;
    return 0;
}
