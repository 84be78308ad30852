/* A context of GSS-API for tests: a list of steps, and packets that can be read. A wrapped packet is a letter (E
 * encrypted, I signed), the text, and seven octets of "padding". */
#pragma once
#include "sasl/gss.h"

enum { FAKE_OVERHEAD = 8 };

struct fake_step {
    const char *want;               /* the token that must come; NULL: any */
    enum sasl_gss_status status;
    const char *token;              /* what goes out; NULL: nothing */
};

struct fake_gss {
    const struct fake_step *steps;  /* ended by one with FAILED */
    size_t at;
    unsigned flag_bits;
    struct str name;
    bool cannot_wrap;
};

static inline enum sasl_gss_status fake_step_one(void *context, struct str token, struct buf *ret_token)
{
    struct fake_gss *f = context;
    const struct fake_step *step = &f->steps[f->at];
    if (step->status == SASL_GSS_FAILED || (step->want && !str_eq(token, str_of(step->want))))
        return SASL_GSS_FAILED;
    f->at++;
    buf_add_c(ret_token, step->token ? step->token : "");
    return step->status;
}

static inline bool fake_wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    const struct fake_gss *f = context;
    return !f->cannot_wrap && buf_add_char(ret_token, confidential ? 'E' : 'I') && buf_add(ret_token, plain) &&
           buf_add(ret_token, STR("padding"));
}

static inline bool fake_unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    if (token.n < FAKE_OVERHEAD || (token.p[0] != 'E' && token.p[0] != 'I') ||
        !str_eq(str_skip(token, token.n - 7), STR("padding")))
        return false;
    *ret_confidential = token.p[0] == 'E';
    return buf_add(ret_plain, str_slice(token.p + 1, token.n - FAKE_OVERHEAD));
}

static inline unsigned fake_flags(const void *context)
{
    return ((const struct fake_gss *)context)->flag_bits;
}

static inline struct str fake_peer(const void *context)
{
    return ((const struct fake_gss *)context)->name;
}

static inline uint32_t fake_plain_max(void *context, bool confidential, uint32_t output_max)
{
    return output_max > FAKE_OVERHEAD ? output_max - FAKE_OVERHEAD : 0;
}

static inline struct sasl_gss fake_table(struct fake_gss *fake)
{
    return (struct sasl_gss){ .context = fake, .step = fake_step_one, .wrap = fake_wrap, .unwrap = fake_unwrap,
                              .flags = fake_flags, .peer = fake_peer, .plain_max = fake_plain_max };
}

/* The first tokens of the mechanisms, no longer than it takes to tell them. */
#define TOKEN_KRB5 "\x60\x0b\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
#define OID_KRB5 "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
#define OID_KRB5_MS "\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"
#define OID_NTLMSSP "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
#define TOKEN_SPNEGO_KRB5 "\x60\x1b\x06\x06\x2b\x06\x01\x05\x05\x02\xa0\x11\x30\x0f\xa0\x0d\x30\x0b" OID_KRB5
#define TOKEN_SPNEGO_NTLM "\x60\x1c\x06\x06\x2b\x06\x01\x05\x05\x02\xa0\x12\x30\x10\xa0\x0e\x30\x0c" OID_NTLMSSP
#define TOKEN_SPNEGO_BOTH "\x60\x27\x06\x06\x2b\x06\x01\x05\x05\x02\xa0\x1d\x30\x1b\xa0\x19\x30\x17" OID_KRB5_MS OID_NTLMSSP
