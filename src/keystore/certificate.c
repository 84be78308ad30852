#include "keystore/certificate.h"

#include <arpa/inet.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>

enum { RSA_BITS_MIN = 2048, EXPIRES_SOON_DAYS = 14 };
#define DAY_MS (24 * 3600 * INT64_C(1000))

struct certificate {
    X509 *chain[CERTIFICATE_CHAIN_MAX];
    size_t n;
};

int certificate_read_fd(int fd, const char *file, struct buf *pem, struct err *err)
{
    for (;;) {
        char *at = buf_reserve(pem, 16 * 1024);
        if (!at)
            return err_set(err, ERR_LIMIT, "%s is larger than 1 MiB; certificates and keys are not", file);
        ssize_t n = pread(fd, at, 16 * 1024, (off_t)pem->n);
        if (n < 0)
            return err_errno(err, errno, "%s could not be read", file);
        if (n == 0)
            return 0;
        pem->n += (size_t)n;
    }
}

/* The reason of the library's last error, for the end of a sentence. */
static const char *openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return reason ? reason : "it is damaged";
}

static BIO *pem_bio(struct str pem)
{
    return pem.n && pem.n <= CERTIFICATE_FILE_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
}

/* True when the last error only says that no further block is there. */
static bool pem_ended(void)
{
    unsigned long code = ERR_peek_last_error();
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

int certificate_load(struct str pem, const char *file, struct certificate **ret_certificate, struct err *err)
{
    *ret_certificate = NULL;
    BIO *bio = pem_bio(pem);
    struct certificate *certificate = calloc(1, sizeof *certificate);
    X509 *one;
    int rc = 0;
    ERR_clear_error();
    while (certificate && bio && (one = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (certificate->n == CERTIFICATE_CHAIN_MAX) {
            X509_free(one);
            rc = err_set(err, ERR_CONFIG, "%s holds more than %d certificates; a server sends its own and the "
                         "intermediate ones", file, CERTIFICATE_CHAIN_MAX);
            break;
        }
        certificate->chain[certificate->n++] = one;
    }
    if (!certificate)
        rc = err_set(err, -ENOMEM, "no memory for the certificate in %s", file);
    else if (rc == 0 && bio && !pem_ended())
        rc = err_set(err, ERR_CONFIG, "certificate %zu in %s cannot be read: %s", certificate->n + 1, file,
                     openssl_reason());
    else if (rc == 0 && certificate->n == 0)
        rc = err_set(err, ERR_CONFIG, "%s holds no certificate (a block that begins with -----BEGIN CERTIFICATE-----)",
                     file);
    ERR_clear_error();
    BIO_free(bio);
    if (rc < 0)
        certificate_free(&certificate);
    *ret_certificate = certificate;
    return rc;
}

void certificate_free(struct certificate **certificate)
{
    if (!*certificate)
        return;
    for (size_t i = 0; i < (*certificate)->n; i++)
        X509_free((*certificate)->chain[i]);
    free(*certificate);
    *certificate = NULL;
}

/* Without it the library would ask on the terminal. */
static int no_passphrase(char *p, int n, int writing, void *encrypted)
{
    *(bool *)encrypted = true;
    return -1;
}

int certificate_key_load(struct str pem, const char *file, struct evp_pkey_st **ret_key, struct err *err)
{
    bool encrypted = false;
    BIO *bio = pem_bio(pem);
    ERR_clear_error();
    *ret_key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted) : NULL;
    int rc = 0;
    if (encrypted)
        rc = err_set(err, ERR_CONFIG, "the key in %s is encrypted with a passphrase; remove it with "
                     "`openssl pkey -in %s -out NEW`", file, file);
    else if (!*ret_key && (!bio || !memmem(pem.p, pem.n, "PRIVATE KEY-----", 16)))
        rc = err_set(err, ERR_CONFIG, "%s holds no private key (a block that begins with -----BEGIN PRIVATE KEY-----)",
                     file);
    else if (!*ret_key)
        rc = err_set(err, ERR_CONFIG, "the private key in %s cannot be read: %s", file, openssl_reason());
    ERR_clear_error();
    BIO_free(bio);
    return rc;
}

void certificate_key_free(struct evp_pkey_st **key)
{
    EVP_PKEY_free(*key);
    *key = NULL;
}

int certificate_key_load_fd(int fd, const char *file, struct evp_pkey_st **ret_key, struct err *err)
{
    struct buf pem;
    buf_init(&pem, CERTIFICATE_FILE_MAX);
    /* All of it at once: growing would leave unwiped copies of the key behind. */
    int rc = buf_reserve(&pem, CERTIFICATE_FILE_MAX) ? certificate_read_fd(fd, file, &pem, err)
                                                     : err_set(err, -ENOMEM, "no memory to read %s", file);
    if (rc == 0)
        rc = certificate_key_load(buf_str(&pem), file, ret_key, err);
    buf_wipe(&pem);
    return rc;
}

int certificate_key_matches(const struct certificate *certificate, const char *file, const struct evp_pkey_st *key,
                            const char *key_file, struct err *err)
{
    EVP_PKEY *public_half = X509_get0_pubkey(certificate->chain[0]);
    if (public_half && EVP_PKEY_eq(public_half, key) == 1)
        return 0;
    ERR_clear_error();
    if (!strcmp(file, key_file))
        return err_set(err, ERR_CONFIG, "the private key in %s does not belong to the first certificate there; the "
                       "server's own certificate must stand first", file);
    return err_set(err, ERR_CONFIG, "the private key in %s does not belong to the first certificate in %s; take the "
                   "files of one request, with the server's own certificate first", key_file, file);
}

/* ---- the check ---- */

struct check {
    const struct certificate *certificate;
    const char *file, *server;
    int64_t wall_ms;
    void (*found)(void *arg, enum certificate_fault fault, const char *text);
    void *arg;
    unsigned mistakes;
};

static void check_found(struct check *check, enum certificate_fault fault, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void check_found(struct check *check, enum certificate_fault fault, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    check->mistakes += fault == CERTIFICATE_MISTAKE;
    check->found(check->arg, fault, text);
}

static void key_text(const EVP_PKEY *key, char *ret_text, size_t text_bytes)
{
    char group[32] = "";
    if (key && EVP_PKEY_is_a(key, "EC") &&
        EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group, NULL))
        snprintf(ret_text, text_bytes, "EC %s", !strcmp(group, "prime256v1") ? "P-256" : group);
    else if (key && EVP_PKEY_is_a(key, "RSA"))
        snprintf(ret_text, text_bytes, "RSA %d", EVP_PKEY_get_bits(key));
    else
        snprintf(ret_text, text_bytes, "%s", key && EVP_PKEY_get0_type_name(key) ? EVP_PKEY_get0_type_name(key) : "?");
}

static void check_key(struct check *check)
{
    char text[32];
    EVP_PKEY *key = X509_get0_pubkey(check->certificate->chain[0]);
    key_text(key, text, sizeof text);
    if (strcmp(text, "EC P-256") != 0 && strncmp(text, "RSA ", 4) != 0)
        check_found(check, CERTIFICATE_MISTAKE, "the certificate in %s has a key of type %s; supported are P-256 and "
                    "RSA", check->file, text);
    else if (EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) < RSA_BITS_MIN)
        check_found(check, CERTIFICATE_MISTAKE, "the certificate in %s has a key of %d bits; RSA needs %d at least, "
                    "better: take P-256", check->file, EVP_PKEY_get_bits(key), RSA_BITS_MIN);
}

static void check_order(struct check *check)
{
    const struct certificate *c = check->certificate;
    for (size_t i = 0; i + 1 < c->n; i++) {
        if (X509_check_issued(c->chain[i + 1], c->chain[i]) == X509_V_OK)
            continue;
        check_found(check, CERTIFICATE_MISTAKE, "certificate %zu in %s was not issued by certificate %zu, which "
                    "follows it; the server's own comes first, then the one that issued it, and so on", i + 1,
                    check->file, i + 2);
        return;
    }
}

static int64_t asn1_time_ms(const ASN1_TIME *t)
{
    struct tm tm = { 0 };
    return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) * 1000 : 0;
}

static void check_dates(struct check *check)
{
    char day[32];
    for (size_t i = 0; i < check->certificate->n; i++) {
        const X509 *one = check->certificate->chain[i];
        int64_t from_ms = asn1_time_ms(X509_get0_notBefore(one)), to_ms = asn1_time_ms(X509_get0_notAfter(one));
        time_t named = (time_t)((check->wall_ms < from_ms ? from_ms : to_ms) / 1000);
        struct tm tm;
        gmtime_r(&named, &tm);
        strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &tm);
        if (check->wall_ms < from_ms)
            check_found(check, CERTIFICATE_WARNING, "certificate %zu in %s is not valid before %s; clients refuse it "
                        "until then (or this machine's clock is wrong)", i + 1, check->file, day);
        else if (check->wall_ms >= to_ms)
            check_found(check, CERTIFICATE_WARNING, "certificate %zu in %s has expired at %s; clients that verify "
                        "refuse it: renew it", i + 1, check->file, day);
        else if (to_ms - check->wall_ms < EXPIRES_SOON_DAYS * DAY_MS)
            check_found(check, CERTIFICATE_WARNING, "certificate %zu in %s expires at %s; renew it", i + 1, check->file,
                        day);
    }
}

static void names_add(char *names, size_t names_bytes, struct str name)
{
    size_t used = strlen(names);
    if (memchr(name.p, 0, name.n) || used + name.n + 2 > names_bytes)
        return;
    snprintf(names + used, names_bytes - used, "%s%.*s", used ? " " : "", STR_ARG(name));
}

static void names_of(const X509 *certificate, char *ret_names, size_t names_bytes)
{
    ret_names[0] = 0;
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(alternatives, i);
        char text[INET6_ADDRSTRLEN];
        if (name->type == GEN_DNS) {
            names_add(ret_names, names_bytes,
                      str_slice(ASN1_STRING_get0_data(name->d.dNSName), (size_t)ASN1_STRING_length(name->d.dNSName)));
        } else if (name->type == GEN_IPADD) {
            int n = ASN1_STRING_length(name->d.iPAddress);
            if ((n == 4 || n == 16) &&
                inet_ntop(n == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name->d.iPAddress), text, sizeof text))
                names_add(ret_names, names_bytes, str_of(text));
        }
    }
    GENERAL_NAMES_free(alternatives);
}

static void check_names(struct check *check)
{
    X509 *own = check->certificate->chain[0];
    char names[512];
    if (!check->server || X509_check_host(own, check->server, strlen(check->server), 0, NULL) == 1 ||
        X509_check_ip_asc(own, check->server, 0) == 1)
        return;
    names_of(own, names, sizeof names);
    check_found(check, CERTIFICATE_WARNING, "the certificate in %s is for %s, not for %s; clients that verify refuse "
                "it", check->file, names[0] ? names : "no host name", check->server);
}

unsigned certificate_check(const struct certificate *certificate, const char *file, const char *server,
                           int64_t wall_ms,
                           void (*found)(void *arg, enum certificate_fault fault, const char *text), void *arg)
{
    struct check check = {
        .certificate = certificate, .file = file, .server = server, .wall_ms = wall_ms, .found = found, .arg = arg,
    };
    check_key(&check);
    check_order(&check);
    check_dates(&check);
    check_names(&check);
    ERR_clear_error();
    return check.mistakes;
}

void certificate_describe(const struct certificate *certificate, struct certificate_info *ret_info)
{
    const X509 *own = certificate->chain[0];
    *ret_info = (struct certificate_info){
        .not_before_ms = asn1_time_ms(X509_get0_notBefore(own)),
        .not_after_ms = asn1_time_ms(X509_get0_notAfter(own)),
    };
    names_of(own, ret_info->names, sizeof ret_info->names);
    key_text(X509_get0_pubkey(own), ret_info->key, sizeof ret_info->key);
    ERR_clear_error();
}
