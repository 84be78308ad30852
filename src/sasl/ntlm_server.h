/* ntlm_server: the server's side of one NTLM exchange (MS-NLMP section 3.2.5), apart from any framing.
 *
 *   ntlm_server_init
 *   step(NEGOTIATE) -> CHALLENGE; step(AUTHENTICATE) -> CHECK (somebody verifies ntlm_server_proof());
 *   ntlm_server_verified() -> DONE or FAILED
 *
 * An empty first token (AUTH NTLM without initial response) gives an empty CHALLENGE. Once the proof has been verified
 * the AV pairs inside it can be believed, and only then they are looked at:
 *   - MIC: when MsvAvFlags has bit 2, the message must have one, and it must be right.
 *   - Channel bindings: what the client sent must be of this TLS channel; none (absent or zero) passes unless they are
 *     required. A client that bound to a channel although we have none talks to us through somebody else: refused.
 *   - Target name: absent, empty or flagged as unverified passes. Otherwise the host must be one of our names and the
 *     service SMTPSVC, smtp, host, or cifs, which libraries made for SMB write whatever they speak (impacket).
 * NTLMv1 (and LM) is refused unless allowed, anonymous always. NTLM_SEAL is granted in the challenge only if
 * `offer_seal`; NTLM_SIGN is always echoed, because clients set it without meaning to sign a stream of SMTP. */
#pragma once
#include "sasl/ntlm_message.h"
#include "sasl/ntlm_seal.h"
#include "sasl/sasl.h"

enum ntlm_action { NTLM_CHALLENGE, NTLM_CHECK, NTLM_DONE, NTLM_FAILED };

enum ntlm_cause {
    NTLM_CAUSE_NONE,
    NTLM_CAUSE_MALFORMED,
    NTLM_CAUSE_TOO_LONG,         /* a name or a message */
    NTLM_CAUSE_ANONYMOUS,
    NTLM_CAUSE_V1,               /* NTLMv1 or LM where they are not allowed */
    NTLM_CAUSE_WRONG,            /* the verifier says so */
    NTLM_CAUSE_UNKNOWN_USER,
    NTLM_CAUSE_MIC,              /* missing or wrong: somebody changed a message */
    NTLM_CAUSE_BINDING_MISMATCH,
    NTLM_CAUSE_BINDING_MISSING,
    NTLM_CAUSE_TARGET,           /* meant for another server: relayed, or a name that we do not know is ours */
    NTLM_CAUSE_MECH_LIST,        /* inside SPNEGO: its MIC is missing or wrong */
    NTLM_CAUSE_TEMPORARY,
    NTLM_CAUSE_INTERNAL,
    NTLM_CAUSES,
};

enum ntlm_verdict { NTLM_RIGHT, NTLM_WRONG, NTLM_UNKNOWN_USER, NTLM_CANNOT_TELL };

struct ntlm_server_options {
    const struct sasl_ntlm_setup *setup;
    struct sasl_binding binding; /* of this connection; empty without TLS */
    bool binding_required;
    bool offer_seal;
};

struct ntlm_server {
    unsigned char phase;
    bool binding_required, offer_seal, allow_v1;
    bool in_domain;
    char realm[NTLM_NAME_MAX + 1]; /* the target name that we send: the domain, or without one ourselves */
    enum ntlm_cause cause;
    uint32_t flags;              /* negotiated */
    unsigned char server_challenge[NTLM_CHALLENGE_BYTES], effective_challenge[NTLM_CHALLENGE_BYTES];
    unsigned char bindings[2][NTLM_HASH_BYTES]; /* what a client may have bound to */
    size_t n_bindings;
    struct buf negotiate, challenge, authenticate;
    struct buf names, info;      /* our own names; the AV pairs that we send */
    char user[NTLM_NAME_MAX + 1], domain[NTLM_NAME_MAX + 1], workstation[NTLM_NAME_MAX + 1], target[NTLM_NAME_MAX + 1];
    struct ntlm_authenticate message; /* views into `authenticate`, as are the next two */
    struct ntlm_avs avs;
    struct ntlm_proof proof;
    unsigned char exported_key[NTLM_HASH_BYTES];
    bool has_key;
};

/* False: out of memory, a name in the setup is not usable, or ntlm_crypto_init() has not succeeded. Call
 * ntlm_server_done() in any case. */
bool ntlm_server_init(struct ntlm_server *server, const struct ntlm_server_options *options);
void ntlm_server_done(struct ntlm_server *server); /* wipes */
/* With CHALLENGE *ret_token is what to send; it lives until the next call. */
enum ntlm_action ntlm_server_step(struct ntlm_server *server, struct str token, struct str *ret_token);
/* After CHECK. `session_base_key` (16 octets) may be NULL: then there is no layer, and a client's MIC cannot be
 * checked and fails the exchange. */
enum ntlm_action ntlm_server_verified(struct ntlm_server *server, enum ntlm_verdict verdict,
                                      const unsigned char *session_base_key);
/* After DONE: keys for sealing or signing. False when they were not negotiated. */
bool ntlm_server_seal(const struct ntlm_server *server, struct ntlm_seal *ret_seal);

static inline enum ntlm_cause ntlm_server_cause(const struct ntlm_server *server)
{
    return server->cause;
}
/* Valid from CHECK on; views live as long as the exchange. */
static inline const struct ntlm_proof *ntlm_server_proof(const struct ntlm_server *server)
{
    return &server->proof;
}
/* After DONE: NTLM_SIGN, NTLM_SEAL, ... as both sides have agreed. */
static inline uint32_t ntlm_server_flags(const struct ntlm_server *server)
{
    return server->flags;
}
