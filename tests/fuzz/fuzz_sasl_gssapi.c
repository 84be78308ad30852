/* What a hostile client can say in GSSAPI and GSS-SPNEGO, over a context that does what the input says.
 *
 * Octet 0: 1 initial response, 2 GSS-SPNEGO, 4 no keytab, 8 NTLM is allowed, 16 bindings are demanded, 32 the NTLM proof
 * is right, 64 its key is not known. Octet 1: layers offered, then flags of the context. Octet 2: steps that the context
 * takes (2 bits), whether it gives a last token, fails, or has no name. Then responses behind lengths of two octets. */
#include "fuzz_sasl_server.h"
#include "sasl/layer.h"
#include "sasl/ntlm.h"
#include "sasl/ntlm_crypto.h"

enum { INITIAL = 1, SPNEGO = 2, NO_GSS = 4, NTLM = 8, BINDING = 16, RIGHT = 32, NO_KEY = 64 };
enum { STEPS = 3, LAST_TOKEN = 4, FAILS = 8, NO_NAME = 16 };

struct context {
    uint8_t control, steps;
    unsigned flag_bits;
};

static enum sasl_gss_status step(void *context, struct str token, struct buf *ret_token)
{
    struct context *c = context;
    assert(token.n > 0 && token.n <= SASL_MESSAGE_MAX && ret_token->n == 0);
    if (c->steps++ < (c->control & STEPS)) {
        buf_add(ret_token, STR("more"));
        return SASL_GSS_CONTINUE;
    }
    if (c->control & LAST_TOKEN)
        buf_add(ret_token, STR("last"));
    return c->control & FAILS ? SASL_GSS_FAILED : SASL_GSS_COMPLETE;
}

static bool wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    return buf_add_char(ret_token, confidential) && buf_add(ret_token, plain);
}

static bool unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    assert(token.n > 0);
    *ret_confidential = token.p[0] & 1;
    return !(token.p[0] & 2) && buf_add(ret_plain, str_skip(token, 1));
}

static unsigned flags(const void *context)
{
    return ((const struct context *)context)->flag_bits;
}

static struct str peer(const void *context)
{
    return ((const struct context *)context)->control & NO_NAME ? STR_NONE : STR("alice@CORP.TEST");
}

static uint32_t plain_max(void *context, bool confidential, uint32_t output_max)
{
    return output_max - 1;
}

static void check(enum sasl_action action, const struct sasl_step *s, unsigned layers)
{
    assert(action == s->action);
    assert(s->authcid.n <= SASL_PRINCIPAL_MAX && s->authzid.n <= SASL_PRINCIPAL_MAX);
    if (action == SASL_CHECK_NTLM)
        assert(s->ntlm);
    if (action == SASL_FAILED)
        assert(sasl_failure_of(s->cause)->code >= 400);
    if (action != SASL_DONE)
        return;
    assert(s->authcid.n > 0 && s->authzid.n > 0 && str_find(s->authzid, 0) == s->authzid.n);
    unsigned bit = s->layer.kind == SASL_LAYER_NONE ? SASL_LAYER_BIT_NONE :
                   s->layer.kind == SASL_LAYER_GSS_INTEGRITY ? SASL_LAYER_BIT_INTEGRITY : SASL_LAYER_BIT_CONFIDENTIALITY;
    assert(bit & (layers ? layers : SASL_LAYER_BIT_NONE));
}

static enum sasl_action answer_ntlm(struct sasl_server *server, uint8_t control, struct sasl_step *s)
{
    static const unsigned char key[SASL_NTLM_KEY_BYTES] = "0123456789abcdef";
    return sasl_server_ntlm(server, control & RIGHT ? SASL_RIGHT : SASL_WRONG, control & NO_KEY ? NULL : key,
                            control & RIGHT ? STR("CORP\\alice") : STR_NONE, s);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return ntlm_crypto_init(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct context context = { .control = data[2], .flag_bits = data[1] >> 3 };
    struct sasl_gss gss = { &context, step, wrap, unwrap, flags, peer, plain_max };
    struct sasl_ntlm_setup setup = { .challenge = "\1\2\3\4\5\6\7\10", .filetime = 130000000000000000, .allow_v1 = true,
                                     .dns_domain = STR("corp.test"), .dns_computer = STR("mail.corp.test") };
    struct sasl_server_options options = { .gss = data[0] & NO_GSS ? NULL : &gss, .ntlm = data[0] & NTLM ? &setup : NULL,
        .layers_offered = data[1] & SASL_LAYER_BITS, .binding_required = data[0] & BINDING };
    struct sasl_server *server = sasl_server_new(sasl_mechanism_find(data[0] & SPNEGO ? STR("GSS-SPNEGO") : STR("GSSAPI")),
                                                 &options);
    if (!server)
        return 0;
    struct str rest = str_slice(data + 3, size - 3);
    bool initial = data[0] & INITIAL;
    struct sasl_step s;
    enum sasl_action action = sasl_server_step(server, initial, initial ? fuzz_next(&rest) : STR_NONE, &s);
    check(action, &s, options.layers_offered);
    while (action == SASL_CHECK_NTLM || (action == SASL_CHALLENGE && rest.n > 0)) {
        if (action == SASL_CHECK_NTLM)
            action = answer_ntlm(server, data[0], &s);
        else
            action = sasl_server_step(server, true, fuzz_next(&rest), &s);
        check(action, &s, options.layers_offered);
    }
    sasl_server_free(&server);
    return 0;
}
