/* Contexts: what all sessions of a virtual server, or of a client, have in common. */
#include "io/tls_context.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

/* No static RSA: a key elsewhere does not decrypt. The rest is what speaks with mail servers of the last
 * fifteen years: forward secrecy, AES or ChaCha20, authenticated modes first. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!kRSA:!PSK:!SRP:!AESCCM"
/* TLS 1.3: SHA-256 has instructions of its own where SHA-384 has none; a handshake hashes some 150 blocks. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS "X25519:P-256:P-384"

EVP_CIPHER *tls_ticket_cipher;

static int tls_openssl_error(struct err *err, const char *fmt, const char *what)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    char text[300];
    snprintf(text, sizeof text, "%s%s", fmt, what);
    return err_set(err, ERR_TLS, "%s: %s", text, reason ? reason : "no reason given by OpenSSL");
}

/* ---- session tickets ---- */

int tls_tickets_new(struct tls_tickets **ret_tickets, struct err *err)
{
    *ret_tickets = calloc(1, sizeof **ret_tickets);
    if (!*ret_tickets)
        return err_set(err, -ENOMEM, "no memory for session-ticket keys");
    (*ret_tickets)->refs = 1;
    return 0;
}

void tls_tickets_ref(struct tls_tickets *tickets)
{
    tickets->refs++;
}

void tls_tickets_unref(struct tls_tickets **tickets)
{
    struct tls_tickets *t = *tickets;
    *tickets = NULL;
    if (!t || --t->refs)
        return;
    OPENSSL_cleanse(t, sizeof *t);
    free(t);
}

bool tls_set_ticket_keys(struct tls_tickets *tickets, struct str keys)
{
    if (keys.n != sizeof tickets->key)
        return false;
    memcpy(tickets->key, keys.p, sizeof tickets->key);
    tickets->n_keys = TLS_TICKET_KEYS;
    return true;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(): 16 octets of name, then AES-256-CBC and HMAC-SHA-256. */
static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                      int encrypt)
{
    const struct tls_session *session = SSL_get_app_data(ssl);
    const struct tls_tickets *tickets = session->context->tickets;
    size_t i = 0;
    if (!tickets || !tickets->n_keys)
        return 0;
    while (!encrypt && i < tickets->n_keys && memcmp(name, tickets->key[i], 16) != 0)
        i++;
    if (i == tickets->n_keys)
        return 0;
    const unsigned char *key = tickets->key[i];
    char digest[] = "SHA256";
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_END };
    if (encrypt) {
        memcpy(name, key, 16);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(tls_ticket_cipher)) <= 0)
            return -1;
    }
    if (!EVP_CipherInit_ex(cipher, tls_ticket_cipher, NULL, key + 16, iv, encrypt) ||
        !EVP_MAC_init(mac, key + 48, 32, params))
        return -1;
    return encrypt || i == 0 ? 1 : 2;
}

/* A resumed session does not say which certificate its client once saw: the hash travels in the ticket. */
static int ticket_made(SSL *ssl, void *arg)
{
    unsigned char hash[TLS_HASH_MAX];
    if (SSL_session_reused(ssl))
        return 1;
    size_t n = tls_certificate_hash(SSL_get_certificate(ssl), hash);
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), hash, n);
}

/* In TLS 1.3 clients use a ticket once (RFC 8446 appendix C.4), so each resumption brings a new one. */
static SSL_TICKET_RETURN ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_bytes,
                                       SSL_TICKET_STATUS status, void *arg)
{
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS && SSL_version(ssl) < TLS1_3_VERSION ? SSL_TICKET_RETURN_USE
                                                                              : SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- server ---- */

static int min_version_of(const char *text)
{
    static const struct {
        const char *text;
        int version;
    } versions[] = {
        { "1.0", TLS1_VERSION }, { "1.1", TLS1_1_VERSION }, { "1.2", TLS1_2_VERSION }, { "1.3", TLS1_3_VERSION },
    };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        if (!strcmp(text ? text : "1.2", versions[i].text))
            return versions[i].version;
    return -1;
}

/* What servers and clients share. TLS below 1.2 signs with SHA-1, which needs security level 0. */
static bool context_configure(SSL_CTX *ctx, int min_version)
{
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_PRIORITIZE_CHACHA);
    /* One recv() brings header and body of a record; otherwise each record costs two. */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(ctx, min_version) && SSL_CTX_set_ciphersuites(ctx, SUITES) &&
           SSL_CTX_set1_groups_list(ctx, GROUPS) &&
           SSL_CTX_set_cipher_list(ctx, min_version < TLS1_2_VERSION ? CIPHERS ":@SECLEVEL=0" : CIPHERS ":@SECLEVEL=2");
}

static bool context_use_chain(SSL_CTX *ctx, struct str pem)
{
    BIO *bio = pem.n <= INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    X509 *one = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    bool ok = one && SSL_CTX_use_certificate(ctx, one) > 0;
    X509_free(one);
    while (ok && (one = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        ok = SSL_CTX_add1_chain_cert(ctx, one) > 0;
        X509_free(one);
    }
    BIO_free(bio);
    /* The end of the file is an error to the PEM reader. */
    if (ok)
        ERR_clear_error();
    return ok;
}

static bool context_use_tickets(SSL_CTX *ctx, const char *name)
{
    unsigned char id[SHA256_DIGEST_LENGTH];
    /* A session of one virtual server must not be resumed at another: its rules may differ. */
    SHA256((const unsigned char *)name, strlen(name), id);
    return SSL_CTX_set_session_id_context(ctx, id, sizeof id) && SSL_CTX_set_num_tickets(ctx, 1) &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key) &&
           SSL_CTX_set_session_ticket_cb(ctx, ticket_made, ticket_opened, NULL);
}

static int server_context_fill(struct tls_server_context *context, const struct tls_server_options *options,
                               struct err *err)
{
    context->refs = 1;
    context->key_elsewhere = options->key_elsewhere;
    context->min_version = min_version_of(options->min_version);
    if (context->min_version < 0)
        return err_set(err, ERR_CONFIG, "tls_min of %s is \"%s\"; it can be 1.0, 1.1, 1.2 or 1.3", options->name,
                       options->min_version);
    context->name = str_dup(str_of(options->name));
    context->ctx = SSL_CTX_new(TLS_server_method());
    if (!context->name || !context->ctx)
        return err_set(err, -ENOMEM, "no memory for the TLS context of %s", options->name);
    if (options->tickets) {
        tls_tickets_ref(options->tickets);
        context->tickets = options->tickets;
    }
    if (!context_configure(context->ctx, context->min_version) || !context_use_tickets(context->ctx, options->name))
        return tls_openssl_error(err, "TLS could not be set up for ", options->name);
    SSL_CTX_set_client_hello_cb(context->ctx, tls_client_hello, NULL);
    if (!context_use_chain(context->ctx, options->certificate_pem))
        return tls_openssl_error(err, "the certificate cannot be used for ", options->name);
    /* A key of another type would go into a place of its own, unseen by the first call. */
    if (SSL_CTX_use_PrivateKey(context->ctx, options->key) <= 0 || SSL_CTX_check_private_key(context->ctx) <= 0)
        return tls_openssl_error(err, "the private key cannot be used with the certificate of ", options->name);
    return 0;
}

int tls_server_context_new(const struct tls_server_options *options, struct tls_server_context **ret_context,
                           struct err *err)
{
    struct tls_server_context *context = calloc(1, sizeof *context);
    int rc = context ? tls_init(err) : err_set(err, -ENOMEM, "no memory for the TLS context of %s", options->name);
    if (rc == 0) {
        ERR_clear_error();
        rc = server_context_fill(context, options, err);
    }
    if (context && rc < 0) {
        context->refs = 1;
        tls_server_context_unref(&context);
    }
    *ret_context = context;
    return rc;
}

struct tls_server_context *tls_server_context_ref(struct tls_server_context *context)
{
    context->refs++;
    return context;
}

void tls_server_context_unref(struct tls_server_context **context)
{
    struct tls_server_context *c = *context;
    *context = NULL;
    if (!c || --c->refs)
        return;
    SSL_CTX_free(c->ctx);
    tls_tickets_unref(&c->tickets);
    free(c->name);
    free(c);
}

int tls_server_set_new(struct tls_server_set **ret_set, struct err *err)
{
    *ret_set = calloc(1, sizeof **ret_set);
    if (!*ret_set)
        return err_set(err, -ENOMEM, "no memory for the TLS contexts of an address");
    (*ret_set)->refs = 1;
    return 0;
}

int tls_server_set_add(struct tls_server_set *set, struct tls_server_context *context, struct err *err)
{
    struct tls_server_context **grown = realloc(set->context, (set->n + 1) * sizeof *grown);
    if (!grown)
        return err_set(err, -ENOMEM, "no memory for the TLS contexts of an address");
    set->context = grown;
    set->context[set->n++] = tls_server_context_ref(context);
    set->key_elsewhere |= context->key_elsewhere;
    return 0;
}

struct tls_server_set *tls_server_set_ref(struct tls_server_set *set)
{
    set->refs++;
    return set;
}

void tls_server_set_unref(struct tls_server_set **set)
{
    struct tls_server_set *s = *set;
    *set = NULL;
    if (!s || --s->refs)
        return;
    for (size_t i = 0; i < s->n; i++)
        tls_server_context_unref(&s->context[i]);
    free(s->context);
    free(s);
}

struct tls_server_context *tls_server_set_find(const struct tls_server_set *set, struct str name)
{
    for (size_t i = 0; i < set->n; i++)
        if (str_eq_nocase(str_of(set->context[i]->name), name))
            return set->context[i];
    return NULL;
}

/* ---- client ---- */

static int anchors_add(X509_STORE *store, struct str pem, struct err *err)
{
    BIO *bio = pem.n <= INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    X509 *one;
    size_t n = 0;
    while (bio && (one = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        n += X509_STORE_add_cert(store, one) > 0;
        X509_free(one);
    }
    BIO_free(bio);
    ERR_clear_error();
    return n ? 0 : err_set(err, ERR_CONFIG, "the file of trust anchors (ca_file) holds no certificate in PEM form");
}

int tls_client_context_new(struct str ca_pem, struct tls_client_context **ret_context, struct err *err)
{
    *ret_context = NULL;
    int rc = tls_init(err);
    if (rc < 0)
        return rc;
    struct tls_client_context *context = calloc(1, sizeof *context);
    SSL_CTX *ctx = context ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (!ctx) {
        free(context);
        return err_set(err, -ENOMEM, "no memory for the TLS context of a client");
    }
    *context = (struct tls_client_context){ .refs = 1, .ctx = ctx };
    if (!context_configure(ctx, TLS1_2_VERSION))
        rc = tls_openssl_error(err, "TLS could not be set up", " for outgoing connections");
    else if (ca_pem.n)
        rc = anchors_add(SSL_CTX_get_cert_store(ctx), ca_pem, err);
    /* Debian's bundle; elsewhere the file that OpenSSL was built for. None at all: nothing can be verified,
     * which a session that must verify will say. */
    else if (!SSL_CTX_load_verify_file(ctx, "/etc/ssl/certs/ca-certificates.crt"))
        SSL_CTX_load_verify_file(ctx, X509_get_default_cert_file());
    ERR_clear_error();
    if (rc < 0)
        tls_client_context_unref(&context);
    *ret_context = context;
    return rc;
}

struct tls_client_context *tls_client_context_ref(struct tls_client_context *context)
{
    context->refs++;
    return context;
}

void tls_client_context_unref(struct tls_client_context **context)
{
    struct tls_client_context *c = *context;
    *context = NULL;
    if (!c || --c->refs)
        return;
    SSL_CTX_free(c->ctx);
    free(c);
}
