#include "daemon/layer.h"

#include <stdlib.h>

#include "kerberos/seal.h"
#include "sasl/layer.h"
#include "sasl/ntlm_seal.h"

enum {
    INPUT_MAX_BYTES = 2 * (SASL_LAYER_RECEIVE_MAX + SASL_LAYER_LENGTH_BYTES),
    OUTPUT_MAX_BYTES = 64 * 1024 * 1024, /* its filler stops far before: what the machine gathers in one turn */
};

struct layer {
    enum ipc_layer_kind kind;
    struct sasl_layer *sasl;
    struct krb_seal *seal;
    struct ntlm_seal ntlm;
    struct buf input, plain, output;
};

int layer_init(struct err *err)
{
    struct err ignored;
    ntlm_crypto_init(&ignored); /* auth says so when it cannot be had */
    /* Only cryptography is used here: a krb5.conf with mistakes in it is auth's to complain about. */
    setenv("KRB5_CONFIG", "/dev/null", 1);
    return krb_seal_init(err);
}

static bool gss_wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    return krb_seal_wrap(context, confidential, plain, ret_token);
}

static bool gss_unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    return krb_seal_unwrap(context, token, ret_plain, ret_confidential);
}

static uint32_t gss_plain_max(void *context, bool confidential, uint32_t output_max)
{
    return krb_seal_plain_max(context, confidential, output_max);
}

static int fill_ops(struct layer *l, const struct ipc_layer *from, struct sasl_layer_ops *ops, struct err *err)
{
    if (from->kind == IPC_LAYER_NTLM) {
        if (!ntlm_seal_import(from->state, &l->ntlm))
            return err_set(err, ERR_SYNTAX, "the keys of an NTLM layer are not what auth exports");
        *ops = ntlm_seal_layer_ops(&l->ntlm);
        return 0;
    }
    *ops = (struct sasl_layer_ops){ .confidential = from->kind == IPC_LAYER_GSS_CONFIDENTIALITY, .wrap = gss_wrap,
                                    .unwrap = gss_unwrap, .plain_max = gss_plain_max };
    int rc = krb_seal_new(from->state, &l->seal, err);
    ops->context = l->seal;
    return rc;
}

int layer_new(const struct ipc_layer *from, struct layer **ret_layer, struct err *err)
{
    struct layer *l = calloc(1, sizeof *l);
    struct sasl_layer_ops ops;
    *ret_layer = NULL;
    if (!l)
        return err_errno(err, ENOMEM, "security layer");
    l->kind = from->kind;
    buf_init(&l->input, INPUT_MAX_BYTES);
    buf_init(&l->plain, INPUT_MAX_BYTES);
    buf_init(&l->output, OUTPUT_MAX_BYTES);
    int rc = fill_ops(l, from, &ops, err);
    struct sasl_layer_limits limits = { .peer_max = from->peer_max_bytes };
    if (rc == 0) {
        l->sasl = sasl_layer_new(&ops, &limits, err);
        rc = l->sasl ? 0 : ERR_AUTH;
    }
    if (rc < 0)
        layer_free(&l);
    *ret_layer = l;
    return rc;
}

void layer_free(struct layer **layer)
{
    struct layer *l = *layer;
    if (!l)
        return;
    sasl_layer_free(&l->sasl);
    krb_seal_free(&l->seal);
    ntlm_seal_done(&l->ntlm);
    buf_wipe(&l->input);
    buf_wipe(&l->plain);
    buf_done(&l->output);
    free(l);
    *layer = NULL;
}

bool layer_is_confidential(const struct layer *layer)
{
    return layer->kind == IPC_LAYER_GSS_CONFIDENTIALITY || (layer->kind == IPC_LAYER_NTLM && layer->ntlm.confidential);
}

const char *layer_name(const struct layer *layer)
{
    if (layer->kind == IPC_LAYER_NTLM)
        return layer_is_confidential(layer) ? "NTLM-confidentiality" : "NTLM-integrity";
    return layer_is_confidential(layer) ? "GSSAPI-confidentiality" : "GSSAPI-integrity";
}

int layer_put(struct layer *layer, struct str plain, struct err *err)
{
    return sasl_layer_encode(layer->sasl, plain, &layer->output, err);
}

struct buf *layer_output(struct layer *layer)
{
    return &layer->output;
}

int layer_take(struct layer *layer, struct str octets, struct str *ret_plain, struct err *err)
{
    buf_clear(&layer->plain);
    if (!buf_add(&layer->input, octets))
        return err_errno(err, ENOMEM, "security layer");
    for (;;) {
        size_t used = 0;
        int rc = sasl_layer_decode(layer->sasl, buf_str(&layer->input), &used, &layer->plain, err);
        if (rc < 0)
            return rc;
        buf_consume(&layer->input, used);
        if (rc == 0)
            break;
    }
    if (layer->input.n == 0)
        buf_wipe(&layer->input);
    *ret_plain = buf_str(&layer->plain);
    return 0;
}
