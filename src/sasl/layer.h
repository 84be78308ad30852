/* layer: the framing of a SASL security layer over an octet stream, RFC 4422 section 3.7: each packet is four
 * octets of length, the most significant first, and then one wrapped token.
 *
 * Used between the connection and the SMTP machine (smtpd, delivery) after the login that agreed on the layer. The
 * wrapping itself is behind a table, filled from a GSS-API context or from the keys of NTLM.
 * Bounds: a received packet has at most receive_max octets, a sent one at most peer_max (longer text becomes several
 * packets). A packet that is empty, too long, or does not unwrap, ends the connection: the stream can't be trusted any
 * more, and after the first such fault the layer refuses everything. A layer is used by one thread at a time. */
#pragma once
#include "base/buf.h"
#include "base/err.h"
#include "sasl/gss.h"

enum {
    SASL_LAYER_RECEIVE_MAX = 65536,  /* what we announce as our buffer: the longest packet without its length */
    SASL_LAYER_PEER_MIN = 64,        /* a peer that takes less is not worth talking to */
    SASL_LAYER_LENGTH_BYTES = 4,
};

/* As in struct sasl_gss; `confidential`: every packet is to be, and has to be, encrypted. */
struct sasl_layer_ops {
    void *context;
    bool confidential;
    bool (*wrap)(void *context, bool confidential, struct str plain, struct buf *ret_token);
    bool (*unwrap)(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential);
    uint32_t (*plain_max)(void *context, bool confidential, uint32_t output_max);
};
struct sasl_layer_ops sasl_layer_ops_of_gss(const struct sasl_gss *gss, bool confidential);

struct sasl_layer_limits {
    uint32_t receive_max; /* 0: SASL_LAYER_RECEIVE_MAX */
    uint32_t peer_max;    /* struct sasl_layer_choice: what the peer takes; 0: it did not say, SASL_LAYER_RECEIVE_MAX */
};

struct sasl_layer;

/* NULL and ERR_AUTH when the peer's limit leaves no room for a single octet; out of memory. */
struct sasl_layer *sasl_layer_new(const struct sasl_layer_ops *ops, const struct sasl_layer_limits *limits,
                                  struct err *err);
/* NULL is fine; wipes. */
void sasl_layer_free(struct sasl_layer **layer);
/* Adds all of `plain` to `out`, as packets. 0; ERR_AUTH: it could not be wrapped; ERR_LIMIT: `out` is full (it is
 * then useless: part of a packet may be in it). */
int sasl_layer_encode(struct sasl_layer *layer, struct str plain, struct buf *out, struct err *err);
/* Takes at most one packet from the front of `in`. 1: a packet, *ret_used octets of `in` are done with and what was in
 * it stands at the end of `plain`; 0: it isn't all there yet, nothing was used; ERR_AUTH: what the peer did, in `err`;
 * ERR_LIMIT: no room in `plain`. Call it until it gives no 1. */
int sasl_layer_decode(struct sasl_layer *layer, struct str in, size_t *ret_used, struct buf *plain, struct err *err);
