/* tls: TLS on a connected, non-blocking socket, for the server (smtpd) and the client (delivery).
 *
 * The session reads and writes the socket itself, through a BIO of ours on the descriptor: no copy
 * through memory BIOs, and an idle server session holds 14 KiB. The owner watches the descriptor (loop.h)
 * and calls again for what the last result asked:
 *   TLS_WANT_READ, TLS_WANT_WRITE   when the descriptor is readable, writable
 *   TLS_WANT_SIGN                   nothing to watch: `ready` is called when the handshake can go on. Watch
 *                                   for a deadline only; do not call tls_handshake() before.
 *   TLS_CLOSED                      the peer has closed; free the session
 *   TLS_FAILED                      tls_error() says why in one sentence; free the session
 *
 * STARTTLS. Write "220 …" out completely in plain text, then make the session and hand over the input
 * buffer as `plain`: it is wiped and given back empty, so octets that were sent before the handshake
 * (RFC 3207 section 6, command injection) are gone; tls_info() counts them. From then on read only with
 * tls_read(): nobody else may read the descriptor, and nothing read before reaches the session.
 *
 * A handshake's signature may come from another process: the private key then is one that
 * keystore/provider.h made, and `key_elsewhere` is set. tls knows nothing of how it is asked; it runs the
 * handshake as an OpenSSL job that pauses. A session may be freed at any time, also when paused.
 *
 * Contexts are counted: a session keeps its own. Everything belongs to one thread. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct evp_pkey_st;
struct x509_st;
struct tls_tickets;
struct tls_server_context;
struct tls_server_set;
struct tls_client_context;
struct tls_session;

enum tls_result { TLS_DONE, TLS_WANT_READ, TLS_WANT_WRITE, TLS_WANT_SIGN, TLS_CLOSED, TLS_FAILED };

enum {
    TLS_TICKET_KEYS = 3,
    TLS_TICKET_KEY_BYTES = 80,   /* 16 name, 32 AES-256, 32 HMAC-SHA-256 */
    TLS_HASH_MAX = 64,           /* tls-server-end-point */
    TLS_EXPORTER_BYTES = 32,     /* tls-exporter */
};

/* Loads what the library would load late (algorithms, error texts, random source), before a sandbox. */
int tls_init(struct err *err);

/* Session-ticket keys of this process, shared by its server contexts. Without keys no tickets are sent. */
int tls_tickets_new(struct tls_tickets **ret_tickets, struct err *err);
void tls_tickets_unref(struct tls_tickets **tickets);
/* Exactly 3 × 80 octets, newest first (IPC_TICKET_KEYS): the first encrypts, all decrypt; a ticket of an
 * older key is renewed. False when the length is another. */
bool tls_set_ticket_keys(struct tls_tickets *tickets, struct str keys);

struct tls_server_options {
    const char *name;            /* the virtual server: what SNI is compared with, and sessions' context */
    struct str certificate_pem;  /* chain, own certificate first */
    struct evp_pkey_st *key;     /* stays the caller's; the context takes a reference of its own */
    bool key_elsewhere;          /* the key was made by keystore/provider.h: signatures may take a while */
    const char *min_version;     /* "1.0", "1.1", "1.2", "1.3"; NULL = "1.2" */
    struct tls_tickets *tickets; /* NULL: no resumption; a reference is taken */
};

int tls_server_context_new(const struct tls_server_options *options, struct tls_server_context **ret_context,
                           struct err *err);
struct tls_server_context *tls_server_context_ref(struct tls_server_context *context);
void tls_server_context_unref(struct tls_server_context **context);

/* The virtual servers that can be reached on one address. SNI chooses among them, compared without case;
 * no name or an unknown one keeps the context that the session was made with. */
int tls_server_set_new(struct tls_server_set **ret_set, struct err *err);
int tls_server_set_add(struct tls_server_set *set, struct tls_server_context *context, struct err *err);
struct tls_server_set *tls_server_set_ref(struct tls_server_set *set);
void tls_server_set_unref(struct tls_server_set **set);

/* `plain` as told above; NULL on a port that speaks TLS from the first octet. `set` may be NULL. `ready`
 * is called as ready(arg) from the signer's answer, or from tls_handshake() or tls_free() of another session
 * that made room; never from within a call of this file on the same session. The descriptor stays the
 * caller's and outlives the session. */
int tls_server_session_new(struct tls_server_context *context, struct tls_server_set *set, int fd,
                           struct buf *plain, void (*ready)(void *arg), void *arg, struct tls_session **ret_session,
                           struct err *err);

/* Trust anchors as PEM text; empty = the system's file, read now (before a sandbox). */
int tls_client_context_new(struct str ca_pem, struct tls_client_context **ret_context, struct err *err);
struct tls_client_context *tls_client_context_ref(struct tls_client_context *context);
void tls_client_context_unref(struct tls_client_context **context);
/* `host`: name for SNI and for the check of the certificate (an IP literal is not sent as SNI); NULL = no
 * SNI, and no name can be verified. `verify`: the handshake fails unless chain and name are right;
 * otherwise the outcome is only told (tls_info). `plain`: as for the server, after the 220 was read. */
int tls_client_session_new(struct tls_client_context *context, int fd, const char *host, bool verify,
                           struct buf *plain, struct tls_session **ret_session, struct err *err);

/* One step. TLS_DONE: encrypted from now on. */
enum tls_result tls_handshake(struct tls_session *session);
/* At least one octet with TLS_DONE. Read until TLS_WANT_READ: what is left inside the session makes the
 * descriptor not readable. */
enum tls_result tls_read(struct tls_session *session, void *p, size_t n, size_t *ret_n);
/* May take less than `n`; after TLS_WANT_* call again with at least the same octets (they may have moved). */
enum tls_result tls_write(struct tls_session *session, const void *p, size_t n, size_t *ret_n);
/* True when octets wait inside the session: after a pause in reading call tls_read() before watching the
 * descriptor again. */
bool tls_pending(const struct tls_session *session);
/* Sends close_notify and does not wait for the peer's. TLS_DONE, TLS_WANT_WRITE or TLS_FAILED. */
enum tls_result tls_shutdown(struct tls_session *session);
/* In every state; NULL is fine. */
void tls_free(struct tls_session **session);
/* Why the last call returned TLS_FAILED or TLS_CLOSED; "" otherwise. */
const char *tls_error(const struct tls_session *session);

/* After the handshake; views live as long as the session. */
struct tls_info {
    const char *version;      /* "TLSv1.3" */
    const char *cipher;       /* "TLS_AES_256_GCM_SHA384" */
    unsigned cipher_bits;
    bool resumed;
    const char *sni;          /* what the client asked for (server) or we sent (client); "" = none */
    const char *server;       /* virtual server whose certificate was used; NULL at a client */
    bool verified;            /* client: chain and name are right */
    const char *verify_text;  /* client: "" when verified, else why not */
    size_t discarded_bytes;   /* plain text that stood behind STARTTLS and was dropped */
};
void tls_info(const struct tls_session *session, struct tls_info *ret_info);

/* Channel bindings, the same octets at both ends. Both return the length, 0 = not available.
 * tls-server-end-point (RFC 5929 section 4): hash of the certificate that the client saw, also when the
 * session was resumed. */
size_t tls_session_endpoint_hash(const struct tls_session *session, unsigned char ret_hash[TLS_HASH_MAX]);
/* tls-exporter (RFC 9266): on TLS 1.3 only. */
size_t tls_session_exporter(const struct tls_session *session, unsigned char ret_octets[TLS_EXPORTER_BYTES]);
/* The hash of RFC 5929 section 4.1 for one certificate. */
size_t tls_certificate_hash(const struct x509_st *certificate, unsigned char ret_hash[TLS_HASH_MAX]);
