/* sasl: what the server and the client side of all mechanisms have in common: the table of mechanisms,
 * channel bindings, SCRAM verifiers, the preparation of names and passwords.
 *
 * The room is pure: octets in, the next action out. It opens nothing, reads no clock and draws no random
 * numbers (the caller gives them). Every octet from a peer is hostile and bounded. Derived keys and
 * passwords are wiped before their memory goes back. Steps of one exchange may run on any thread, one at
 * a time. */
#pragma once
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    SASL_USER_MAX = 255,         /* octets of a name or an authorization identity, prepared */
    SASL_PASSWORD_MAX = 1024,    /* octets of a password, prepared */
    SASL_NONCE_BYTES = 24,       /* random octets that a caller gives for SCRAM */
    SASL_NONCE_TEXT = 32,        /* the same as text */
    SASL_OWN_NONCE_MAX = 64,
    SASL_NONCE_MAX = 512,        /* octets of a peer's nonce */
    SASL_SALT_MAX = 64,
    SASL_SALT_BYTES = 16,        /* of the salts that we make */
    SASL_KEY_BYTES = 32,         /* SHA-256 */
    SASL_BINDING_MAX = 128,      /* octets of channel-binding data */
    SASL_MESSAGE_MAX = 64 * 1024,
    SASL_PRINCIPAL_MAX = 511,    /* octets of a principal as text, and of an authorization identity beside it */
    SASL_ITERATIONS_MIN = 4096,  /* RFC 7677 section 4; below it both sides refuse */
    SASL_ITERATIONS = 10000,     /* of the verifiers that we make: 5 ms for one PLAIN login without cache */
    SASL_ITERATIONS_MAX = 1000000, /* a client does not let a server burn more of its time */
};

/* Both sides of the TLS channel know these; empty = not there. */
struct sasl_binding {
    struct str cert_hash;        /* tls-server-end-point, RFC 5929 section 4 */
    struct str exporter;         /* tls-exporter, RFC 9266; TLS 1.3 only */
};

enum sasl_flag {
    SASL_CLEARTEXT = 1,          /* shows the password to the server: TLS first */
    SASL_SERVER_FIRST = 2,       /* an initial response is a mistake (501 5.7.0) */
    SASL_BINDING = 4,            /* needs channel-binding data */
    SASL_BLOCKING = 8,           /* making and stepping an exchange may wait for files or a KDC: on a worker */
    SASL_GSS = 16,               /* needs a context of GSS-API, or on the server's side NTLM in its stead */
    SASL_NTLM = 32,              /* needs struct sasl_ntlm_setup */
};

/* Security layers (RFC 4422 section 3.7), as bits of RFC 4752 section 3.3. A set without NONE demands a layer; an empty
 * set is NONE alone. */
enum sasl_layer_bit {
    SASL_LAYER_BIT_NONE = 1,
    SASL_LAYER_BIT_INTEGRITY = 2,
    SASL_LAYER_BIT_CONFIDENTIALITY = 4,
    SASL_LAYER_BITS = 7,
};
enum sasl_layer_kind {
    SASL_LAYER_NONE,
    SASL_LAYER_GSS_INTEGRITY,
    SASL_LAYER_GSS_CONFIDENTIALITY,
    SASL_LAYER_NTLM_SIGN,
    SASL_LAYER_NTLM_SEAL,
};
/* What a finished exchange agreed on: it starts with the first octet after the reply 235. */
struct sasl_layer_choice {
    enum sasl_layer_kind kind;
    uint32_t peer_max_bytes;     /* the longest packet that the peer takes; 0: it did not say */
};
/* "none", "gss-integrity", "gss-confidentiality", "ntlm-sign", "ntlm-seal": for the log. */
const char *sasl_layer_kind_name(enum sasl_layer_kind kind);
/* Nobody on the way can read what goes through it. */
bool sasl_layer_is_confidential(enum sasl_layer_kind kind);

struct sasl_server_ops;
struct sasl_client_ops;

struct sasl_mechanism {
    const char *name;
    unsigned flags;
    unsigned strength;           /* a client that may choose takes the highest */
    const struct sasl_server_ops *server; /* NULL: not on this side */
    const struct sasl_client_ops *client;
};

/* By name, letters of either case; NULL when unknown. */
const struct sasl_mechanism *sasl_mechanism_find(struct str name);
/* All, strongest first; NULL ends it. "auto" goes through them in this order: GSSAPI and GSS-SPNEGO prove both sides
 * and no password is there to be guessed; then SCRAM, bound before unbound; NTLM, which shows no password but whose
 * answers can be guessed offline and relayed; at last those that hand the password over, PLAIN before LOGIN. */
const struct sasl_mechanism *sasl_mechanism_at(size_t i);
/* Is `name` one of the space-separated names in `list`? */
bool sasl_list_has(struct str list, struct str name);

/* What a server keeps of a password (RFC 5802 section 3). It can check a password and an exchange of
 * SCRAM; whoever steals it has to guess. Wipe it all the same. */
struct sasl_verifier {
    unsigned char salt[SASL_SALT_MAX];
    uint32_t salt_bytes;
    uint32_t iterations;
    unsigned char stored_key[SASL_KEY_BYTES];
    unsigned char server_key[SASL_KEY_BYTES];
};

/* `password` must be prepared. Takes about 0.55 ms per 1,000 iterations: not on a loop. */
int sasl_verifier_make(struct str password, struct str salt, uint32_t iterations, struct sasl_verifier *ret_verifier,
                       struct err *err);
/* 1 = the password is right, 0 = wrong, negative = could not tell. Takes as long as sasl_verifier_make(). */
int sasl_verifier_check(const struct sasl_verifier *verifier, struct str password, struct err *err);
/* What stands in for a user who does not exist, so that a guesser cannot tell: always the same for one
 * name and one secret. No password fits it. */
int sasl_verifier_fake(struct str secret, struct str user, struct sasl_verifier *ret_verifier, struct err *err);

/* Random octets as a nonce for SCRAM. */
bool sasl_nonce_text(const unsigned char octets[SASL_NONCE_BYTES], char ret_text[SASL_NONCE_TEXT + 1]);

/* SASLprep, RFC 4013, as a query string. Writes at most `max` octets and a NUL to `dst` (max + 1 octets).
 * False: not valid UTF-8, a forbidden character, a NUL, empty, or too long; dst is then empty. */
bool sasl_prep(struct str raw, size_t max, char *dst, size_t *ret_n);
/* A user's name as it is stored and compared: SASLprep, then ASCII letters in lower case. Other letters
 * keep their case, as everywhere in this program. */
bool sasl_prep_user(struct str raw, char dst[SASL_USER_MAX + 1], size_t *ret_n);
