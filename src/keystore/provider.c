#include "keystore/provider.h"

#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

/* What keymgmt calls a key: everything about it but the private half. */
struct provider_key {
    EVP_PKEY *public_half;
    const struct signer *signer;
    size_t name_bytes;
    char name[SIGN_KEY_NAME_BYTES];
};

/* One EVP_DigestSign. */
struct provider_signature {
    const struct provider_key *key;
    const char *digest;
    enum sign_padding padding;
};

/* Lives on the paused job's stack. */
struct provider_wait {
    struct sign_waiter waiter;
    ASYNC_JOB *paused;
    bool answered;
    size_t n;
    unsigned char signature[SIGN_SIGNATURE_MAX];
};

/* Our parameter of keymgmt's import: the octets of a pointer to a struct provider_key to copy. Nobody
 * outside this file can name it in a key file; import is reached by EVP_PKEY_fromdata() only. */
#define PARAM_KEY "postern-key"

/* ---- keymgmt ---- */

static void *keymgmt_new(void *provctx)
{
    return OPENSSL_zalloc(sizeof(struct provider_key));
}

static void keymgmt_free(void *keydata)
{
    struct provider_key *key = keydata;
    if (!key)
        return;
    EVP_PKEY_free(key->public_half);
    OPENSSL_free(key);
}

/* libssl asks before it signs whether the key has a private half: it has, elsewhere. */
static int keymgmt_has(const void *keydata, int selection)
{
    return 1;
}

static int keymgmt_match(const void *keydata1, const void *keydata2, int selection)
{
    const struct provider_key *a = keydata1, *b = keydata2;
    return a->public_half && b->public_half && EVP_PKEY_eq(a->public_half, b->public_half) == 1;
}

static int keymgmt_import(void *keydata, int selection, const OSSL_PARAM params[])
{
    struct provider_key *key = keydata;
    const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, PARAM_KEY);
    const struct provider_key *from = NULL;
    const void *octets = NULL;
    size_t n = 0;
    if (!p || !OSSL_PARAM_get_octet_string_ptr(p, &octets, &n) || n != sizeof from)
        return 0;
    memcpy(&from, octets, sizeof from);
    if (!EVP_PKEY_up_ref(from->public_half))
        return 0;
    *key = *from;
    return 1;
}

static const OSSL_PARAM *keymgmt_import_types(int selection)
{
    static const OSSL_PARAM types[] = { OSSL_PARAM_octet_string(PARAM_KEY, NULL, 0), OSSL_PARAM_END };
    return types;
}

/* Only the public half can leave. If the call for a private key succeeded, libcrypto would hand a key
 * without private half to the default provider and fail there, late. */
static int keymgmt_export(void *keydata, int selection, OSSL_CALLBACK *callback, void *arg)
{
    struct provider_key *key = keydata;
    OSSL_PARAM *params = NULL;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) ||
        !EVP_PKEY_todata(key->public_half, EVP_PKEY_PUBLIC_KEY, &params))
        return 0;
    int ok = callback(params, arg);
    OSSL_PARAM_free(params);
    return ok;
}

static const OSSL_PARAM *keymgmt_export_types_ec(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return types;
}

static const OSSL_PARAM *keymgmt_export_types_rsa(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_END,
    };
    return types;
}

static int keymgmt_get_params(void *keydata, OSSL_PARAM params[])
{
    struct provider_key *key = keydata;
    return EVP_PKEY_get_params(key->public_half, params);
}

static const OSSL_PARAM *keymgmt_gettable_params(void *provctx)
{
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return gettable;
}

/* Names of our own, so that no fetch by a common name can pair the default provider's signature with a
 * key of ours. */
static const char *keymgmt_operation_ec(int operation_id)
{
    return operation_id == OSSL_OP_SIGNATURE ? "POSTERN-ECDSA" : NULL;
}

static const char *keymgmt_operation_rsa(int operation_id)
{
    return operation_id == OSSL_OP_SIGNATURE ? "POSTERN-RSA" : NULL;
}

#define KEYMGMT_COMMON \
    { OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))keymgmt_new }, \
    { OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))keymgmt_free }, \
    { OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))keymgmt_has }, \
    { OSSL_FUNC_KEYMGMT_MATCH, (void (*)(void))keymgmt_match }, \
    { OSSL_FUNC_KEYMGMT_IMPORT, (void (*)(void))keymgmt_import }, \
    { OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (void (*)(void))keymgmt_import_types }, \
    { OSSL_FUNC_KEYMGMT_EXPORT, (void (*)(void))keymgmt_export }, \
    { OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))keymgmt_get_params }, \
    { OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))keymgmt_gettable_params }

static const OSSL_DISPATCH keymgmt_ec[] = {
    KEYMGMT_COMMON,
    { OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (void (*)(void))keymgmt_export_types_ec },
    { OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (void (*)(void))keymgmt_operation_ec },
    { 0, NULL },
};
static const OSSL_DISPATCH keymgmt_rsa[] = {
    KEYMGMT_COMMON,
    { OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (void (*)(void))keymgmt_export_types_rsa },
    { OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (void (*)(void))keymgmt_operation_rsa },
    { 0, NULL },
};

/* ---- signature ---- */

static void *signature_new(void *provctx, const char *propq)
{
    return OPENSSL_zalloc(sizeof(struct provider_signature));
}

static void signature_free(void *ctx)
{
    OPENSSL_free(ctx);
}

static void *signature_dup(void *ctx)
{
    return OPENSSL_memdup(ctx, sizeof(struct provider_signature));
}

static int signature_set_params(void *ctx, const OSSL_PARAM params[])
{
    struct provider_signature *signature = ctx;
    const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
    int mode = 0;
    /* As a number or as a word: libcrypto sends either. Salt length and MGF digest are not looked at:
     * TLS knows one of each (RFC 8446 section 4.2.3), and that is what the holder of the key uses. */
    if (p && p->data_type == OSSL_PARAM_UTF8_STRING) {
        if (!p->data)
            return 0;
        mode = !strcmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PSS)      ? RSA_PKCS1_PSS_PADDING
               : !strcmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) ? RSA_PKCS1_PADDING
                                                                  : 0;
    } else if (p && !OSSL_PARAM_get_int(p, &mode)) {
        return 0;
    }
    if (p && mode != RSA_PKCS1_PSS_PADDING && mode != RSA_PKCS1_PADDING)
        return 0;
    if (p)
        signature->padding = mode == RSA_PKCS1_PSS_PADDING ? SIGN_PADDING_PSS : SIGN_PADDING_PKCS1;
    return 1;
}

static const OSSL_PARAM *signature_settable_params(void *ctx, void *provctx)
{
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    return settable;
}

static int signature_digest_sign_init(void *ctx, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    struct provider_signature *signature = ctx;
    signature->key = keydata;
    signature->digest = digest ? sign_digest_name(str_of(digest)) : NULL;
    if (!signature->digest) {
        ERR_raise_data(ERR_LIB_PROV, ERR_R_UNSUPPORTED, "no signatures with digest %s", digest ? digest : "(none)");
        return 0;
    }
    return params ? signature_set_params(ctx, params) : 1;
}

static void provider_answered(struct sign_waiter *waiter, struct str signature)
{
    struct provider_wait *wait = (struct provider_wait *)(void *)waiter;
    wait->answered = true;
    if (signature.n <= sizeof wait->signature) {
        wait->n = signature.n;
        if (signature.n)
            memcpy(wait->signature, signature.p, signature.n);
    }
    ASYNC_callback_fn wake = NULL;
    void *arg = NULL;
    /* The callback may resume the job at once, and with it end the stack that `wait` lies on. */
    if (wait->paused && ASYNC_WAIT_CTX_get_callback(ASYNC_get_wait_ctx(wait->paused), &wake, &arg) && wake)
        wake(arg);
}

/* Pauses the job once: it goes on with the answer, or without because its owner gave it up. */
static bool provider_wait(struct provider_wait *wait, const struct signer *signer)
{
    if (!wait->answered) {
        wait->paused = ASYNC_get_current_job();
        if (wait->paused)
            ASYNC_pause_job();
        wait->paused = NULL;
    }
    if (!wait->answered)
        signer->cancel(signer->arg, &wait->waiter);
    return wait->answered && wait->n;
}

static int signature_digest_sign(void *ctx, unsigned char *out, size_t *out_bytes, size_t out_max,
                                 const unsigned char *data, size_t data_bytes)
{
    struct provider_signature *signature = ctx;
    const struct provider_key *key = signature->key;
    if (!out) {
        *out_bytes = (size_t)EVP_PKEY_get_size(key->public_half);
        return 1;
    }
    struct provider_wait wait = { .waiter = { .answered = provider_answered } };
    struct sign_request request = {
        .key = { key->name, key->name_bytes },
        .digest = str_of(signature->digest),
        .padding = signature->padding,
        .data = str_slice(data, data_bytes),
    };
    if (key->signer->sign(key->signer->arg, &request, &wait.waiter) < 0 || !provider_wait(&wait, key->signer)) {
        ERR_raise_data(ERR_LIB_PROV, ERR_R_OPERATION_FAIL, "no signature with the key of %s", key->name);
        return 0;
    }
    if (wait.n > out_max)
        return 0;
    memcpy(out, wait.signature, wait.n);
    *out_bytes = wait.n;
    return 1;
}

static const OSSL_DISPATCH signature[] = {
    { OSSL_FUNC_SIGNATURE_NEWCTX, (void (*)(void))signature_new },
    { OSSL_FUNC_SIGNATURE_FREECTX, (void (*)(void))signature_free },
    { OSSL_FUNC_SIGNATURE_DUPCTX, (void (*)(void))signature_dup },
    { OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (void (*)(void))signature_digest_sign_init },
    { OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (void (*)(void))signature_digest_sign },
    { OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (void (*)(void))signature_set_params },
    { OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, (void (*)(void))signature_settable_params },
    { 0, NULL },
};

/* ---- the provider ---- */

static const OSSL_ALGORITHM *provider_query(void *provctx, int operation_id, int *no_cache)
{
    static const OSSL_ALGORITHM keymgmts[] = {
        { "EC:id-ecPublicKey", "provider=postern", keymgmt_ec, NULL },
        { "RSA:rsaEncryption", "provider=postern", keymgmt_rsa, NULL },
        { NULL, NULL, NULL, NULL },
    };
    static const OSSL_ALGORITHM signatures[] = {
        { "POSTERN-ECDSA", "provider=postern", signature, NULL },
        { "POSTERN-RSA", "provider=postern", signature, NULL },
        { NULL, NULL, NULL, NULL },
    };
    *no_cache = 0;
    return operation_id == OSSL_OP_KEYMGMT     ? keymgmts
           : operation_id == OSSL_OP_SIGNATURE ? signatures
                                               : NULL;
}

static int provider_entry(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **ret_out,
                          void **ret_provctx)
{
    static const OSSL_DISPATCH functions[] = {
        { OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))provider_query },
        { 0, NULL },
    };
    /* Never looked at, but libcrypto takes NULL for a provider without a context. */
    *ret_provctx = (void *)(uintptr_t)handle;
    *ret_out = functions;
    return 1;
}

static int provider_openssl_error(struct err *err, const char *what)
{
    char text[256] = "unknown";
    unsigned long code = ERR_peek_last_error();
    if (code)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return err_set(err, ERR_TLS, "OpenSSL could not %s: %s", what, text);
}

int provider_init(struct err *err)
{
    static OSSL_PROVIDER *standard, *postern; /* for the life of the process */
    if (postern)
        return 0;
    /* Loading any provider by name switches off the automatic default one. The `?` makes "not postern" a
     * wish: ephemeral keys and peers' certificates stay away from our keymgmt, our own signature can
     * still be found. */
    if (!standard && !(standard = OSSL_PROVIDER_load(NULL, "default")))
        return provider_openssl_error(err, "load its default provider");
    if (!EVP_set_default_properties(NULL, "?provider!=postern"))
        return provider_openssl_error(err, "set the default properties");
    if (!OSSL_PROVIDER_add_builtin(NULL, "postern", provider_entry) ||
        !(postern = OSSL_PROVIDER_load(NULL, "postern")))
        return provider_openssl_error(err, "load the built-in provider for keys");
    return 0;
}

static EVP_PKEY *provider_public_half(struct str certificate_pem)
{
    BIO *bio = certificate_pem.n <= INT32_MAX ? BIO_new_mem_buf(certificate_pem.p, (int)certificate_pem.n) : NULL;
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *public_half = certificate ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    BIO_free(bio);
    return public_half;
}

int provider_key_new(const char *server, struct str certificate_pem, const struct signer *signer,
                     struct evp_pkey_st **ret_key, struct err *err)
{
    struct provider_key key = { .signer = signer };
    *ret_key = NULL;
    int rc = provider_init(err);
    if (rc < 0)
        return rc;
    key.public_half = provider_public_half(certificate_pem);
    if (!key.public_half)
        return provider_openssl_error(err, "read the certificate's public key");
    rc = sign_key_name(server, key.public_half, key.name, err);
    key.name_bytes = strlen(key.name);
    const char *type = EVP_PKEY_is_a(key.public_half, "RSA") ? "RSA" : "EC";
    const struct provider_key *pointer = &key;
    OSSL_PARAM params[] = { OSSL_PARAM_octet_string(PARAM_KEY, &pointer, sizeof pointer), OSSL_PARAM_END };
    EVP_PKEY_CTX *ctx = rc == 0 ? EVP_PKEY_CTX_new_from_name(NULL, type, "provider=postern") : NULL;
    if (rc == 0 && (!ctx || EVP_PKEY_fromdata_init(ctx) <= 0 ||
                    EVP_PKEY_fromdata(ctx, ret_key, EVP_PKEY_KEYPAIR, params) <= 0))
        rc = provider_openssl_error(err, "make the key object");
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key.public_half);
    return rc;
}
