/* Sessions. The happy path of a server's handshake with a key elsewhere:
 *   tls_handshake()      SSL_do_handshake() runs in a job, until the key (keystore/provider.c) pauses it
 *     -> TLS_WANT_SIGN
 *   job_woken()          the answer has come: the owner's ready()
 *   tls_handshake()      the job goes on to its end -> TLS_WANT_READ, later TLS_DONE
 * Ways to fail: the signature is refused (the job goes on and the handshake fails); the owner frees the
 * paused session (the job is resumed without answer, which the key takes for "given up", else its stack of
 * 32 KiB leaks); all jobs are taken (the session waits in `waiting` until another's step has ended). */
#include "io/tls_context.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/async.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

enum { JOBS_MAX = 512 /* 32 KiB each */, SNI_MAX = 255 };

static BIO_METHOD *socket_method;
static TAILQ_HEAD(tls_waiting, tls_session) waiting = TAILQ_HEAD_INITIALIZER(waiting);

/* ---- the BIO: as OpenSSL's for sockets, but without SIGPIPE and with the errno kept ---- */

static int socket_result(BIO *bio, struct tls_session *session, ssize_t n, int retry)
{
    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    else if (n < 0)
        session->io_errno = errno;
    return (int)n;
}

static int socket_read(BIO *bio, char *p, int n)
{
    struct tls_session *session = BIO_get_data(bio);
    if (session->cut || n <= 0)
        return -1;
    ssize_t got = recv(session->fd, p, (size_t)n, 0);
    session->eof |= got == 0;
    return socket_result(bio, session, got, BIO_FLAGS_READ);
}

static int socket_write(BIO *bio, const char *p, int n)
{
    struct tls_session *session = BIO_get_data(bio);
    if (session->cut || n <= 0)
        return -1;
    return socket_result(bio, session, send(session->fd, p, (size_t)n, MSG_NOSIGNAL), BIO_FLAGS_WRITE);
}

static long socket_ctrl(BIO *bio, int command, long number, void *pointer)
{
    const struct tls_session *session = BIO_get_data(bio);
    return command == BIO_CTRL_FLUSH || (command == BIO_CTRL_EOF && session->eof);
}

static BIO_METHOD *socket_method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern socket");
    if (method && BIO_meth_set_read(method, socket_read) && BIO_meth_set_write(method, socket_write) &&
        BIO_meth_set_ctrl(method, socket_ctrl))
        return method;
    BIO_meth_free(method);
    return NULL;
}

int tls_init(struct err *err)
{
    unsigned char warm[16];
    if (socket_method)
        return 0;
    if (!OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL) ||
        !ASYNC_init_thread(JOBS_MAX, 0) || RAND_bytes(warm, sizeof warm) <= 0 ||
        !(tls_ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL)) || !(socket_method = socket_method_new()))
        return err_set(err, ERR_TLS, "OpenSSL could not be started: %s", ERR_reason_error_string(ERR_peek_error()));
    return 0;
}

/* ---- errors in sentences ---- */

static enum tls_result session_fail(struct tls_session *session, enum tls_result result, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static enum tls_result session_fail(struct tls_session *session, enum tls_result result, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    session->failed = true;
    free(session->error);
    session->error = str_dup(str_of(text));
    return result;
}

/* What an administrator can do something about, in other words than OpenSSL's. */
static const char *reason_of(int reason)
{
    static const struct {
        int reason;
        const char *text;
    } reasons[] = {
        { SSL_R_NO_SHARED_CIPHER, "the peer offers no cipher suite that is allowed here" },
        { SSL_R_UNSUPPORTED_PROTOCOL, "the peer speaks only TLS versions that are not allowed here (tls_min)" },
        { SSL_R_WRONG_VERSION_NUMBER, "what the peer sent is not TLS" },
        { SSL_R_HTTP_REQUEST, "what the peer sent is HTTP, not TLS" },
        { SSL_R_TLSV1_ALERT_UNKNOWN_CA, "the peer does not trust the certificate's issuer" },
        { SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, "the peer does not accept the certificate" },
        { SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "the peer does not accept the certificate" },
        { SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "the peer finds the certificate expired" },
        { SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, "the peer does not speak the TLS versions that are allowed here" },
        { SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, "the peer found no cipher suite or parameters in common" },
        { SSL_R_TLSV1_ALERT_INTERNAL_ERROR, "the peer reported an error of its own" },
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].reason == reason)
            return reasons[i].text;
    return NULL;
}

static enum tls_result session_library_error(struct tls_session *session)
{
    const char *data = NULL;
    int flags = 0;
    unsigned long code = ERR_get_error_all(NULL, NULL, NULL, &data, &flags);
    const char *reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? reason_of(ERR_GET_REASON(code)) : NULL;
    if (!reason)
        reason = ERR_reason_error_string(code);
    bool has_data = (flags & ERR_TXT_STRING) && data && *data && ERR_GET_LIB(code) != ERR_LIB_SSL;
    enum tls_result result;
    if (session->verify_text && session->verify)
        result = session_fail(session, TLS_FAILED, "the peer's certificate is refused: %s", session->verify_text);
    else
        result = session_fail(session, TLS_FAILED, "TLS failed: %s%s%s", reason ? reason : "no reason given",
                              has_data ? ": " : "", has_data ? data : "");
    ERR_clear_error();
    return result;
}

/* What a call that returned `rc` asks for. */
static enum tls_result session_result(struct tls_session *session, int rc)
{
    switch (SSL_get_error(session->ssl, rc)) {
    case SSL_ERROR_NONE: return TLS_DONE;
    case SSL_ERROR_WANT_READ: return TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE: return TLS_WANT_WRITE;
    case SSL_ERROR_WANT_ASYNC: session->paused = true; return TLS_WANT_SIGN;
    case SSL_ERROR_WANT_ASYNC_JOB:
        TAILQ_INSERT_TAIL(&waiting, session, queue);
        session->queued = true;
        return TLS_WANT_SIGN;
    case SSL_ERROR_ZERO_RETURN: return session_fail(session, TLS_CLOSED, "the peer has closed TLS");
    default: break;
    }
    if (session->eof) {
        ERR_clear_error();
        return session_fail(session, TLS_CLOSED, session->done ? "the peer closed the connection without closing TLS"
                                                               : "the peer closed the connection during the handshake");
    }
    if (session->io_errno) {
        ERR_clear_error();
        bool gone = session->io_errno == ECONNRESET || session->io_errno == EPIPE;
        return session_fail(session, gone ? TLS_CLOSED : TLS_FAILED, "the connection failed: %s",
                            strerror(session->io_errno));
    }
    return session_library_error(session);
}

/* ---- making and freeing ---- */

/* The answer is there (or never will be): called by the key through the job. */
static int job_woken(SSL *ssl, void *arg)
{
    struct tls_session *session = arg;
    session->paused = false;
    if (session->ready)
        session->ready(session->arg);
    return 1;
}

/* A step has ended, so a job is free. Each that waits is asked once; who finds none queues up again. */
static void jobs_freed(void)
{
    static bool busy;
    if (busy)
        return;
    busy = true;
    struct tls_session *session;
    bool none_free = false;
    for (size_t i = 0; i < JOBS_MAX && !none_free && (session = TAILQ_FIRST(&waiting)); i++) {
        TAILQ_REMOVE(&waiting, session, queue);
        session->queued = false;
        if (session->ready)
            session->ready(session->arg);
        /* It may be gone by now: only its address is compared. */
        none_free = TAILQ_LAST(&waiting, tls_waiting) == session;
    }
    busy = false;
}

static int session_new(SSL_CTX *ctx, int fd, struct buf *plain, struct tls_session **ret_session, struct err *err)
{
    struct tls_session *session = calloc(1, sizeof *session);
    *ret_session = session;
    if (!session)
        return err_set(err, -ENOMEM, "no memory for a TLS session");
    session->fd = fd;
    session->ssl = SSL_new(ctx);
    BIO *bio = session->ssl ? BIO_new(socket_method) : NULL;
    if (!bio || !SSL_set_app_data(session->ssl, session)) {
        BIO_free(bio);
        tls_free(ret_session);
        return err_set(err, -ENOMEM, "no memory for a TLS session");
    }
    BIO_set_data(bio, session);
    BIO_set_init(bio, 1);
    SSL_set_bio(session->ssl, bio, bio);
    if (plain) {
        session->discarded_bytes = plain->n;
        buf_wipe(plain);
    }
    return 0;
}

int tls_server_session_new(struct tls_server_context *context, struct tls_server_set *set, int fd,
                           struct buf *plain, void (*ready)(void *arg), void *arg, struct tls_session **ret_session,
                           struct err *err)
{
    int rc = session_new(context->ctx, fd, plain, ret_session, err);
    if (rc < 0)
        return rc;
    struct tls_session *session = *ret_session;
    session->context = tls_server_context_ref(context);
    session->set = set ? tls_server_set_ref(set) : NULL;
    session->ready = ready;
    session->arg = arg;
    /* Without keys OpenSSL would send an empty ticket, which is malformed in TLS 1.3. */
    if (!context->tickets || !context->tickets->n_keys) {
        SSL_set_options(session->ssl, SSL_OP_NO_TICKET);
        SSL_set_num_tickets(session->ssl, 0);
    }
    SSL_set_accept_state(session->ssl);
    if (context->key_elsewhere || (set && set->key_elsewhere)) {
        SSL_set_mode(session->ssl, SSL_MODE_ASYNC);
        SSL_set_async_callback(session->ssl, job_woken);
        SSL_set_async_callback_arg(session->ssl, session);
    }
    return 0;
}

static bool is_address(const char *host)
{
    unsigned char octets[16];
    return inet_pton(AF_INET, host, octets) == 1 || inet_pton(AF_INET6, host, octets) == 1;
}

static bool client_expect(struct tls_session *session, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(session->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    session->name = str_dup(str_of(host));
    if (!session->name)
        return false;
    if (is_address(host))
        return X509_VERIFY_PARAM_set1_ip_asc(param, host);
    return SSL_set_tlsext_host_name(session->ssl, host) && X509_VERIFY_PARAM_set1_host(param, host, 0);
}

int tls_client_session_new(struct tls_client_context *context, int fd, const char *host, bool verify,
                           struct buf *plain, struct tls_session **ret_session, struct err *err)
{
    *ret_session = NULL;
    if (verify && !host)
        return err_set(err, ERR_CONFIG, "a certificate cannot be verified without a name to expect");
    int rc = session_new(context->ctx, fd, plain, ret_session, err);
    if (rc < 0)
        return rc;
    struct tls_session *session = *ret_session;
    session->client = tls_client_context_ref(context);
    session->verify = verify;
    SSL_set_connect_state(session->ssl);
    SSL_set_verify(session->ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, tls_verify);
    if (host && !client_expect(session, host)) {
        tls_free(ret_session);
        ERR_clear_error();
        return err_set(err, ERR_TLS, "%.200s cannot be used as a host name for TLS", host);
    }
    return 0;
}

void tls_free(struct tls_session **ret_session)
{
    struct tls_session *session = *ret_session;
    *ret_session = NULL;
    if (!session)
        return;
    if (session->queued)
        TAILQ_REMOVE(&waiting, session, queue);
    session->cut = true;
    /* Never free a session whose job has not ended: see the top of this file. */
    bool job_ended = false;
    while (session->ssl && SSL_waiting_for_async(session->ssl)) {
        SSL_do_handshake(session->ssl);
        job_ended = true;
    }
    ERR_clear_error();
    SSL_free(session->ssl);
    tls_server_context_unref(&session->context);
    tls_server_set_unref(&session->set);
    tls_client_context_unref(&session->client);
    free(session->name);
    free(session->verify_text);
    free(session->error);
    free(session);
    if (job_ended)
        jobs_freed();
}

/* ---- callbacks during the handshake ---- */

int tls_client_hello(SSL *ssl, int *ret_alert, void *arg)
{
    struct tls_session *session = SSL_get_app_data(ssl);
    const unsigned char *p;
    size_t n;
    /* RFC 6066 section 3: u16 length of the list, u8 type 0, u16 length of the name, the name. */
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) || n < 5 || p[2] != 0)
        return SSL_CLIENT_HELLO_SUCCESS;
    size_t name_bytes = (size_t)p[3] << 8 | p[4];
    if (name_bytes > n - 5 || name_bytes > SNI_MAX)
        return SSL_CLIENT_HELLO_SUCCESS;
    struct str name = str_slice(p + 5, name_bytes);
    /* After a HelloRetryRequest the callback comes again. */
    free(session->name);
    session->name = str_dup(name);
    struct tls_server_context *chosen = session->set ? tls_server_set_find(session->set, name) : NULL;
    if (!chosen || chosen == session->context)
        return SSL_CLIENT_HELLO_SUCCESS;
    if (!SSL_set_SSL_CTX(ssl, chosen->ctx) || !SSL_set_min_proto_version(ssl, chosen->min_version)) {
        *ret_alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    tls_server_context_ref(chosen);
    tls_server_context_unref(&session->context);
    session->context = chosen;
    return SSL_CLIENT_HELLO_SUCCESS;
}

static char *mismatch_text(const char *expected, X509 *certificate)
{
    char text[400];
    size_t used = (size_t)snprintf(text, sizeof text, "name mismatch: expected %.120s, certificate has ", expected);
    GENERAL_NAMES *names = certificate ? X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL) : NULL;
    size_t before = used;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        int n = ASN1_STRING_length(name->d.dNSName);
        if (n > 0 && used + (size_t)n + 3 < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", used > before ? ", " : "", n,
                                     (const char *)ASN1_STRING_get0_data(name->d.dNSName));
    }
    GENERAL_NAMES_free(names);
    if (used == before)
        snprintf(text + used, sizeof text - used, "no host name");
    return str_dup(str_of(text));
}

int tls_verify(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_session *session = SSL_get_app_data(ssl);
    if (ok)
        return 1;
    int error = X509_STORE_CTX_get_error(store);
    bool mismatch = error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH;
    if (!session->verify_text)
        session->verify_text = mismatch ? mismatch_text(session->name, X509_STORE_CTX_get0_cert(store))
                                        : str_dup(str_of(X509_verify_cert_error_string(error)));
    return !session->verify;
}

/* ---- work ---- */

enum tls_result tls_handshake(struct tls_session *session)
{
    if (session->failed)
        return TLS_FAILED;
    if (session->done)
        return TLS_DONE;
    /* To go on now would tell the key that it was given up. */
    if (session->paused || session->queued)
        return TLS_WANT_SIGN;
    ERR_clear_error();
    int rc = SSL_do_handshake(session->ssl);
    enum tls_result result = rc == 1 ? TLS_DONE : session_result(session, rc);
    bool job_ended = (SSL_get_mode(session->ssl) & SSL_MODE_ASYNC) && result != TLS_WANT_SIGN;
    if (result == TLS_DONE) {
        session->done = true;
        /* Else every read and write would run in a job. */
        SSL_clear_mode(session->ssl, SSL_MODE_ASYNC);
    }
    if (job_ended)
        jobs_freed();
    return result;
}

enum tls_result tls_read(struct tls_session *session, void *p, size_t n, size_t *ret_n)
{
    *ret_n = 0;
    if (session->failed || !session->done)
        return TLS_FAILED;
    ERR_clear_error();
    int rc = SSL_read_ex(session->ssl, p, n, ret_n);
    return rc == 1 ? TLS_DONE : session_result(session, rc);
}

enum tls_result tls_write(struct tls_session *session, const void *p, size_t n, size_t *ret_n)
{
    *ret_n = 0;
    if (session->failed || !session->done)
        return TLS_FAILED;
    if (n == 0)
        return TLS_DONE;
    ERR_clear_error();
    int rc = SSL_write_ex(session->ssl, p, n, ret_n);
    return rc == 1 ? TLS_DONE : session_result(session, rc);
}

bool tls_pending(const struct tls_session *session)
{
    return SSL_has_pending(session->ssl);
}

enum tls_result tls_shutdown(struct tls_session *session)
{
    if (session->failed || !session->done)
        return TLS_FAILED;
    ERR_clear_error();
    int rc = SSL_shutdown(session->ssl);
    return rc >= 0 ? TLS_DONE : session_result(session, rc);
}

const char *tls_error(const struct tls_session *session)
{
    if (!session->failed)
        return "";
    return session->error ? session->error : "TLS failed, and memory is out";
}

/* ---- what came of it ---- */

void tls_info(const struct tls_session *session, struct tls_info *ret_info)
{
    int bits = SSL_get_cipher_bits(session->ssl, NULL);
    bool has_peer = session->client && SSL_get0_peer_certificate(session->ssl);
    const char *text = session->verify_text   ? session->verify_text
                       : !session->client     ? ""
                       : !has_peer            ? "the peer showed no certificate"
                       : !session->name       ? "no name was expected"
                                              : "";
    *ret_info = (struct tls_info){
        .version = SSL_get_version(session->ssl),
        .cipher = SSL_get_cipher_name(session->ssl),
        .cipher_bits = bits > 0 ? (unsigned)bits : 0,
        .resumed = SSL_session_reused(session->ssl),
        .sni = session->name ? session->name : "",
        .server = session->context ? session->context->name : NULL,
        .verified = session->done && has_peer && !*text && SSL_get_verify_result(session->ssl) == X509_V_OK,
        .verify_text = text,
        .discarded_bytes = session->discarded_bytes,
    };
}

size_t tls_certificate_hash(const struct x509_st *certificate, unsigned char ret_hash[TLS_HASH_MAX])
{
    int digest = NID_undef;
    unsigned n = 0;
    if (!certificate || !X509_get_signature_info((X509 *)(uintptr_t)certificate, &digest, NULL, NULL, NULL))
        return 0;
    if (digest == NID_md5 || digest == NID_sha1)
        digest = NID_sha256;
    const EVP_MD *md = EVP_get_digestbynid(digest);
    if (!md || EVP_MD_get_size(md) > TLS_HASH_MAX || !X509_digest(certificate, md, ret_hash, &n))
        return 0;
    return n;
}

size_t tls_session_endpoint_hash(const struct tls_session *session, unsigned char ret_hash[TLS_HASH_MAX])
{
    if (!session->done)
        return 0;
    if (session->client)
        return tls_certificate_hash(SSL_get0_peer_certificate(session->ssl), ret_hash);
    if (!SSL_session_reused(session->ssl))
        return tls_certificate_hash(SSL_get_certificate(session->ssl), ret_hash);
    void *data = NULL;
    size_t n = 0;
    if (!SSL_SESSION_get0_ticket_appdata(SSL_get_session(session->ssl), &data, &n) || n > TLS_HASH_MAX)
        return 0;
    if (n)
        memcpy(ret_hash, data, n);
    return n;
}

size_t tls_session_exporter(const struct tls_session *session, unsigned char ret_octets[TLS_EXPORTER_BYTES])
{
    static const char label[] = "EXPORTER-Channel-Binding";
    if (!session->done || SSL_version(session->ssl) != TLS1_3_VERSION ||
        SSL_export_keying_material(session->ssl, ret_octets, TLS_EXPORTER_BYTES, label, sizeof label - 1, NULL, 0,
                                   0) != 1)
        return 0;
    return TLS_EXPORTER_BYTES;
}
