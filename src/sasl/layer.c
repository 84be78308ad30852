#include "sasl/layer.h"

#include <stdlib.h>

struct sasl_layer {
    struct sasl_layer_ops ops;
    uint32_t receive_max;
    uint32_t plain_max; /* of one packet that is sent */
    uint32_t peer_max;
    bool broken;
};

struct sasl_layer_ops sasl_layer_ops_of_gss(const struct sasl_gss *gss, bool confidential)
{
    return (struct sasl_layer_ops){ .context = gss->context, .confidential = confidential, .wrap = gss->wrap,
                                    .unwrap = gss->unwrap, .plain_max = gss->plain_max };
}

struct sasl_layer *sasl_layer_new(const struct sasl_layer_ops *ops, const struct sasl_layer_limits *limits,
                                  struct err *err)
{
    struct sasl_layer *layer = calloc(1, sizeof *layer);
    if (!layer) {
        err_errno(err, ENOMEM, "security layer");
        return NULL;
    }
    layer->ops = *ops;
    layer->receive_max = limits->receive_max ? limits->receive_max : SASL_LAYER_RECEIVE_MAX;
    layer->peer_max = limits->peer_max ? limits->peer_max : SASL_LAYER_RECEIVE_MAX;
    /* Peers that take 16 MiB exist; nothing is gained by packets beyond what we take ourselves. */
    if (layer->peer_max > SASL_LAYER_RECEIVE_MAX)
        layer->peer_max = SASL_LAYER_RECEIVE_MAX;
    layer->plain_max = layer->peer_max < SASL_LAYER_PEER_MIN ? 0 :
                       ops->plain_max(ops->context, ops->confidential, layer->peer_max);
    if (layer->plain_max == 0 || layer->plain_max > layer->peer_max) {
        err_set(err, ERR_AUTH, "security layer: packets of %u octets, all that the peer takes, have no room for text",
                layer->peer_max);
        sasl_layer_free(&layer);
    }
    return layer;
}

void sasl_layer_free(struct sasl_layer **layer)
{
    free(*layer);
    *layer = NULL;
}

static int broken(struct sasl_layer *layer, struct err *err, const char *what)
{
    layer->broken = true;
    return err_set(err, ERR_AUTH, "security layer: %s", what);
}

static int encode_packet(struct sasl_layer *layer, struct str plain, struct buf *out, struct err *err)
{
    size_t at = out->n;
    bool ok = buf_add(out, STR("\0\0\0\0"));
    if (ok && !layer->ops.wrap(layer->ops.context, layer->ops.confidential, plain, out) && !out->failed)
        return broken(layer, err, "the text could not be wrapped");
    if (!ok || out->failed) {
        layer->broken = true;
        return err_set(err, ERR_LIMIT, "security layer: no room for a packet of %zu octets", plain.n);
    }
    size_t n = out->n - at - SASL_LAYER_LENGTH_BYTES;
    if (n == 0 || n > layer->peer_max)
        return broken(layer, err, "a packet came out longer than the peer takes");
    for (unsigned i = 0; i < SASL_LAYER_LENGTH_BYTES; i++)
        out->p[at + i] = (char)(n >> (24 - 8 * i) & 0xff);
    return 0;
}

int sasl_layer_encode(struct sasl_layer *layer, struct str plain, struct buf *out, struct err *err)
{
    if (layer->broken)
        return err_set(err, ERR_AUTH, "security layer: it has failed before");
    while (plain.n > 0) {
        struct str piece = str_slice(plain.p, plain.n < layer->plain_max ? plain.n : layer->plain_max);
        int rc = encode_packet(layer, piece, out, err);
        if (rc < 0)
            return rc;
        plain = str_skip(plain, piece.n);
    }
    return 0;
}

int sasl_layer_decode(struct sasl_layer *layer, struct str in, size_t *ret_used, struct buf *plain, struct err *err)
{
    *ret_used = 0;
    if (layer->broken)
        return err_set(err, ERR_AUTH, "security layer: it has failed before");
    if (in.n < SASL_LAYER_LENGTH_BYTES)
        return 0;
    uint32_t n = 0;
    for (unsigned i = 0; i < SASL_LAYER_LENGTH_BYTES; i++)
        n = n << 8 | (unsigned char)in.p[i];
    if (n == 0)
        return broken(layer, err, "the peer sent an empty packet");
    if (n > layer->receive_max) {
        layer->broken = true;
        return err_set(err, ERR_AUTH, "security layer: the peer sent a packet of %u octets, or text that is not wrapped; "
                       "%u were agreed on", n, layer->receive_max);
    }
    if (in.n - SASL_LAYER_LENGTH_BYTES < n)
        return 0;
    bool confidential = false;
    struct str token = str_slice(in.p + SASL_LAYER_LENGTH_BYTES, n);
    if (!layer->ops.unwrap(layer->ops.context, token, plain, &confidential)) {
        layer->broken = true;
        if (plain->failed)
            return err_set(err, ERR_LIMIT, "security layer: no room for what is in a packet of %u octets", n);
        return err_set(err, ERR_AUTH, "security layer: a packet does not unwrap: it was changed, repeated or lost one "
                       "before it");
    }
    if (layer->ops.confidential && !confidential)
        return broken(layer, err, "the peer sent a packet that is not encrypted");
    *ret_used = SASL_LAYER_LENGTH_BYTES + n;
    return 1;
}
