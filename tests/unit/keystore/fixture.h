/* fixture: keys and certificates made at run time, for the tests of several rooms. */
#pragma once
#include <assert.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "base/str.h"

struct fixture_certificate {
    EVP_PKEY *key;
    X509 *certificate;
    char *pem;     /* the certificate */
    char *key_pem;
};

struct fixture_options {
    const char *names;                       /* "DNS:a.test,DNS:b.test"; NULL: no alternative names */
    const char *key_type;                    /* "EC" (default), "RSA", "RSA1024", "P-384" */
    const struct fixture_certificate *issuer; /* NULL: self-signed */
    long from_s, until_s;                    /* relative to now; until 0: in a day */
    bool is_ca;
};

static inline EVP_PKEY *fixture_key(const char *type)
{
    return !strcmp(type, "RSA")       ? EVP_RSA_gen(2048)
           : !strcmp(type, "RSA1024") ? EVP_RSA_gen(1024)
           : !strcmp(type, "P-384")   ? EVP_EC_gen("P-384")
                                      : EVP_EC_gen("P-256");
}

static inline char *fixture_text(BIO *bio)
{
    char *p;
    long n = BIO_get_mem_data(bio, &p);
    char *text = str_dup(str_slice(p, (size_t)n));
    BIO_free(bio);
    return text;
}

static inline void fixture_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert(extension && X509_add_ext(certificate, extension, -1));
    X509_EXTENSION_free(extension);
}

static inline struct fixture_certificate fixture_new(const struct fixture_options *options)
{
    static long serial;
    struct fixture_certificate f = { .key = fixture_key(options->key_type ? options->key_type : "EC") };
    char common_name[32];
    snprintf(common_name, sizeof common_name, "test %ld", ++serial);
    f.certificate = X509_new();
    X509_set_version(f.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(f.certificate), serial);
    X509_gmtime_adj(X509_getm_notBefore(f.certificate), options->from_s ? options->from_s : -3600);
    X509_gmtime_adj(X509_getm_notAfter(f.certificate), options->until_s ? options->until_s : 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(f.certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509_set_issuer_name(f.certificate, options->issuer ? X509_get_subject_name(options->issuer->certificate)
                                                        : X509_get_subject_name(f.certificate));
    X509_set_pubkey(f.certificate, f.key);
    if (options->names)
        fixture_extension(f.certificate, NID_subject_alt_name, options->names);
    if (options->is_ca)
        fixture_extension(f.certificate, NID_basic_constraints, "critical,CA:TRUE");
    int signed_ok = X509_sign(f.certificate, options->issuer ? options->issuer->key : f.key, EVP_sha256());
    assert(signed_ok);
    (void)signed_ok;
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, f.certificate);
    f.pem = fixture_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, f.key, NULL, NULL, 0, NULL, NULL);
    f.key_pem = fixture_text(bio);
    return f;
}

static inline struct fixture_certificate fixture_simple(const char *names, const char *key_type)
{
    return fixture_new(&(struct fixture_options){ .names = names, .key_type = key_type });
}

static inline void fixture_free(struct fixture_certificate *f)
{
    EVP_PKEY_free(f->key);
    X509_free(f->certificate);
    free(f->pem);
    free(f->key_pem);
}
