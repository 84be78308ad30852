/* gssapi: what the files of GSSAPI and GSS-SPNEGO share: the four octets of RFC 4752 section 3.3, and NTLM in the place
 * of Kerberos. Nobody else includes it. */
#pragma once
#include "sasl/server.h"
#include "sasl/spnego_ntlm.h"

enum { GSSAPI_STEPS_MAX = 16, GSSAPI_CHOICE_BYTES = 4, GSSAPI_CHOICE_MAX = GSSAPI_CHOICE_BYTES + SASL_PRINCIPAL_MAX };

/* Bits of layers, and the longest packet that the writer takes. A server offers, a client chooses. */
struct gssapi_choice {
    unsigned layers;
    uint32_t max;
};

static inline void gssapi_choice_write(unsigned layers, uint32_t max, char ret_octets[GSSAPI_CHOICE_BYTES])
{
    ret_octets[0] = (char)layers;
    ret_octets[1] = (char)(max >> 16 & 0xff);
    ret_octets[2] = (char)(max >> 8 & 0xff);
    ret_octets[3] = (char)(max & 0xff);
}

/* `plain` has at least GSSAPI_CHOICE_BYTES. */
static inline struct gssapi_choice gssapi_choice_read(struct str plain)
{
    const unsigned char *p = (const unsigned char *)plain.p;
    return (struct gssapi_choice){ .layers = p[0], .max = (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] };
}

/* What follows a client's choice; empty is fine and stays empty. */
enum sasl_cause gssapi_authzid(struct str raw, char dst[SASL_PRINCIPAL_MAX + 1], size_t *ret_n);

/* Our own NTLM, inside SPNEGO or (`raw`) without any framing, where the token that came first has no Kerberos. In
 * GSSAPI the offer of layers follows as after Kerberos, signed with NTLM's keys, as .NET's client wants it; it never
 * offers one. In GSS-SPNEGO the layer is NTLM's own, when the client asked for sealing and it may be had. */
struct gssapi_ntlm {
    struct spnego_ntlm_server spnego; /* of which `raw` takes the inner machine alone */
    struct ntlm_seal seal;
    unsigned char wait;
    bool ready, raw, wrapper, may_go_without, has_seal;
    unsigned steps;
    struct buf out;
    char name[SASL_PRINCIPAL_MAX + 1], authzid[SASL_PRINCIPAL_MAX + 1];
    size_t authzid_n;
};

/* Not `ready` afterwards: NTLM is not allowed here, or cannot be had. */
void gssapi_ntlm_init(struct gssapi_ntlm *n, const struct sasl_server_options *options, bool wrapper);
void gssapi_ntlm_done(struct gssapi_ntlm *n);
enum sasl_action gssapi_ntlm_step(struct gssapi_ntlm *n, struct str token, struct sasl_step *ret_step);
enum sasl_action gssapi_ntlm_verified(struct gssapi_ntlm *n, enum sasl_verdict verdict,
                                      const unsigned char *session_base_key, struct str canonical,
                                      struct sasl_step *ret_step);
bool gssapi_ntlm_layer_state(struct gssapi_ntlm *n, struct buf *out);
