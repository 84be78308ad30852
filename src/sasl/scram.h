/* scram: what both sides of SCRAM-SHA-256 share (RFC 5802, RFC 7677): attributes, names, nonces, channel
 * bindings, and the two signatures. Nothing here allocates but the buffers it is given. */
#pragma once
#include "sasl/crypto.h"

enum {
    SCRAM_MESSAGE_MAX = 4096,  /* octets of any one message; names and nonces are far shorter */
    SCRAM_AUTH_MESSAGE_MAX = 3 * SCRAM_MESSAGE_MAX,
};

/* Takes the next attribute, "x=value" up to a comma or the end, off *rest. False: there is none, or it is
 * malformed. */
bool scram_attribute(struct str *rest, char *ret_name, struct str *ret_value);
/* Looks through the rest for what an extension may say: false when one is malformed. */
bool scram_extensions(struct str rest);
/* Printable ASCII without a comma, 1 to SASL_NONCE_MAX octets. */
bool scram_nonce_ok(struct str nonce);
/* saslname: "=2C" and "=3D" stand for "," and "="; false when another "=" is there or it does not fit. */
bool scram_unescape(struct str escaped, char *dst, size_t dst_bytes, size_t *ret_n);
bool scram_escape(struct str name, struct buf *out);
/* The data of a binding type; empty when it is unknown here or this channel has none of it. tls-unique is
 * not known: it is unsafe without extended master secret and does not exist in TLS 1.3. */
struct str scram_binding_data(const struct sasl_binding *binding, struct str type);
/* The bare first message, the server's first, the final one without its proof. */
bool scram_auth_message(struct buf *out, struct str first_bare, struct str server_first, struct str final_bare);
/* HMAC(key, auth_message) XOR other: from a client key the proof, from a proof the client key. */
bool scram_mask(const unsigned char key[SASL_KEY_BYTES], struct str auth_message,
                const unsigned char other[SASL_KEY_BYTES], unsigned char ret_masked[SASL_KEY_BYTES]);
