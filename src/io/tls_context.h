/* tls_context: what tls.c and tls_context.c know of each other. */
#pragma once
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "io/tls.h"

struct tls_tickets {
    unsigned refs;
    size_t n_keys;
    unsigned char key[TLS_TICKET_KEYS][TLS_TICKET_KEY_BYTES];
};

struct tls_server_context {
    unsigned refs;
    SSL_CTX *ctx;
    char *name;
    int min_version;
    bool key_elsewhere;
    struct tls_tickets *tickets;
};

struct tls_server_set {
    unsigned refs;
    struct tls_server_context **context;
    size_t n;
    bool key_elsewhere; /* any of them */
};

struct tls_client_context {
    unsigned refs;
    SSL_CTX *ctx;
};

struct tls_session {
    SSL *ssl;
    int fd;
    int io_errno;              /* of the descriptor's last failure */
    bool eof;                  /* the peer ended its direction */
    bool cut;                  /* being freed: the descriptor is not touched any more */
    bool done;                 /* handshake is through */
    bool failed;
    bool paused;               /* SSL_do_handshake() stands in a job that waits for its signature */
    bool queued;               /* waits for a free job */
    bool verify;
    size_t discarded_bytes;
    void (*ready)(void *arg);
    void *arg;
    struct tls_server_context *context; /* the one in use, after SNI */
    struct tls_server_set *set;
    struct tls_client_context *client;
    char *name;                /* SNI: as received, or as sent */
    char *verify_text;
    char *error;
    TAILQ_ENTRY(tls_session) queue;
};

/* Counted references, for the three kinds of contexts. */
void tls_tickets_ref(struct tls_tickets *tickets);
struct tls_server_context *tls_server_set_find(const struct tls_server_set *set, struct str name);
/* SSL_CTX_set_client_hello_cb(): notes the name and switches to its context (tls.c). */
int tls_client_hello(SSL *ssl, int *ret_alert, void *arg);
/* SSL_set_verify() at a client: notes the first thing that is wrong (tls.c). */
int tls_verify(int ok, X509_STORE_CTX *store);
/* Prefetched by tls_init(). */
extern EVP_CIPHER *tls_ticket_cipher;
