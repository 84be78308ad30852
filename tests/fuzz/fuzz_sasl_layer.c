/* Octets from a peer through a security layer, in pieces. Octet 0: 1 packets must be encrypted, the rest is the size of
 * the pieces; octets 1 and 2: the longest packet that is taken. What came out goes in again and must come out as it was. */
#include <assert.h>
#include <stdlib.h>

#include "sasl/layer.h"

enum { PLAIN_MAX = 256 * 1024 };

/* A letter, the text, and the letter again. */
static bool wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    char letter = confidential ? 'E' : 'I';
    return buf_add_char(ret_token, letter) && buf_add(ret_token, plain) && buf_add_char(ret_token, letter);
}

static bool unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    assert(token.n > 0);
    if (token.n < 2 || token.p[0] != token.p[token.n - 1] || (token.p[0] != 'E' && token.p[0] != 'I'))
        return false;
    *ret_confidential = token.p[0] == 'E';
    return buf_add(ret_plain, str_slice(token.p + 1, token.n - 2));
}

static uint32_t plain_max(void *context, bool confidential, uint32_t output_max)
{
    return output_max > 2 ? output_max - 2 : 0;
}

static int drain(struct sasl_layer *layer, struct buf *in, struct buf *plain, uint32_t max)
{
    size_t used;
    int rc;
    while ((rc = sasl_layer_decode(layer, buf_str(in), &used, plain, NULL)) == 1) {
        assert(used > SASL_LAYER_LENGTH_BYTES && used <= (size_t)max + SASL_LAYER_LENGTH_BYTES);
        buf_consume(in, used);
    }
    assert(used == 0);
    return rc;
}

static void there_and_back(const struct sasl_layer_ops *ops, struct str text, uint32_t max)
{
    struct sasl_layer_limits limits = { .receive_max = max, .peer_max = max };
    struct sasl_layer *layer = sasl_layer_new(ops, &limits, NULL);
    struct buf wire, plain;
    if (!layer)
        return;
    buf_init(&wire, 4 * PLAIN_MAX);
    buf_init(&plain, PLAIN_MAX);
    assert(sasl_layer_encode(layer, text, &wire, NULL) == 0);
    assert(drain(layer, &wire, &plain, max) == 0);
    assert(wire.n == 0 && str_eq(buf_str(&plain), text));
    buf_done(&wire);
    buf_done(&plain);
    sasl_layer_free(&layer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct sasl_layer_ops ops = { .confidential = data[0] & 1, .wrap = wrap, .unwrap = unwrap, .plain_max = plain_max };
    uint32_t max = (uint32_t)data[1] << 8 | data[2];
    if (max < SASL_LAYER_PEER_MIN)
        max = SASL_LAYER_PEER_MIN;
    struct sasl_layer_limits limits = { .receive_max = max };
    struct sasl_layer *layer = sasl_layer_new(&ops, &limits, NULL);
    if (!layer)
        return 0;
    struct buf in, plain;
    buf_init(&in, PLAIN_MAX);
    buf_init(&plain, PLAIN_MAX);
    size_t piece = (data[0] >> 1) + 1u;
    int rc = 0;
    for (size_t at = 3; at < size && rc == 0; at += piece) {
        if (!buf_add(&in, str_slice(data + at, size - at < piece ? size - at : piece)))
            break;
        rc = drain(layer, &in, &plain, max);
    }
    if (!plain.failed)
        there_and_back(&ops, buf_str(&plain), max);
    buf_done(&in);
    buf_done(&plain);
    sasl_layer_free(&layer);
    return 0;
}
