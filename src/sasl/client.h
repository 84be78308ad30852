/* client: one authentication exchange, the client's side (outbound logins, postern bench).
 *
 * sasl_client_new() checks what the mechanism needs; sasl_client_first() gives the initial response, if
 * the mechanism has one; sasl_client_step() takes each decoded challenge and gives the response. When the
 * server reports success, sasl_client_complete() must be true: SCRAM demands that the server has proven
 * that it knows the password. A step of SCRAM costs up to half a second of CPU when the server asks for
 * a million iterations: not on a loop that serves others.
 *
 * GSSAPI and GSS-SPNEGO get their context in the options, with target, credential, bindings and flags already chosen
 * (mutual authentication; confidentiality when `seal`). Their first token is made by sasl_client_new(), which may wait
 * for a KDC and fails when there is no ticket: so nothing is said to the server that cannot be finished. */
#pragma once
#include "sasl/gss.h"
#include "sasl/sasl.h"

struct sasl_ntlm_setup;  /* sasl/ntlm.h */
struct ntlm_seal;        /* sasl/ntlm_seal.h */

/* What SCRAM derived from a password with one salt and one count of iterations (RFC 5802 section 3): a client that logs in
 * again and again as the same user need not derive it again. Zeroed at first; wipe it at the end. */
struct sasl_scram_memory {
    unsigned char salt[SASL_SALT_MAX], salted_password[SASL_KEY_BYTES];
    size_t salt_bytes;
    uint64_t iterations;         /* 0: empty */
};

struct sasl_client_options {
    struct str user, authzid;    /* authzid: usually empty */
    struct str password;
    struct sasl_binding binding; /* of this connection; empty without TLS */
    bool server_offers_plus;     /* a -PLUS variant was in the server's list */
    struct str nonce;            /* sasl_nonce_text() of random octets, new for each exchange */
    struct sasl_scram_memory *scram_memory; /* of this user and password, for one thread at a time; NULL: none */
    const struct sasl_gss *gss;  /* lives as long as the exchange; NULL: no Kerberos here */
    const struct sasl_ntlm_setup *ntlm; /* NULL: no NTLM here */
    bool seal;                   /* an encrypting layer is demanded; otherwise none is taken */
    bool mutual;                 /* GSS-API: not complete unless the server has proven itself, too */
};

struct sasl_client;

/* ERR_SYNTAX: user or password is not usable; ERR_AUTH: the mechanism lacks what it needs. */
int sasl_client_new(const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                    struct sasl_client **ret_client, struct err *err);
/* NULL is fine; wipes. */
void sasl_client_free(struct sasl_client **client);
/* False: the server speaks first. The view lives until the next call. */
bool sasl_client_first(struct sasl_client *client, struct str *ret_response);
/* 0 and the response (it may be empty), or ERR_AUTH with what is wrong (ERR_CONFIG: `seal` cannot be had from this
 * server): then cancel with "*". */
int sasl_client_step(struct sasl_client *client, struct str challenge, struct str *ret_response, struct err *err);
bool sasl_client_complete(const struct sasl_client *client);
/* What starts after the server's reply 235; only when complete. */
struct sasl_layer_choice sasl_client_layer(const struct sasl_client *client);
/* As sasl_server_layer_state(). */
bool sasl_client_layer_state(struct sasl_client *client, struct buf *out);
/* As sasl_server_ntlm_seal(). */
bool sasl_client_ntlm_seal(struct sasl_client *client, struct ntlm_seal *ret_seal);

/* A mechanism's client side. `state` is state_bytes of zeroed memory that is wiped and freed for it. */
struct sasl_client_ops {
    size_t state_bytes;
    int (*init)(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                struct err *err);
    bool (*first)(void *state, struct str *ret_response);
    int (*step)(void *state, struct str challenge, struct str *ret_response, struct err *err);
    bool (*complete)(const void *state);
    struct sasl_layer_choice (*layer)(const void *state); /* NULL: never one */
    bool (*layer_state)(void *state, struct buf *out); /* NULL: never has one */
    void (*done)(void *state); /* NULL: nothing but the state's own memory */
};
extern const struct sasl_client_ops sasl_client_plain, sasl_client_login, sasl_client_scram, sasl_client_gssapi,
    sasl_client_gss_spnego, sasl_client_ntlmssp;
