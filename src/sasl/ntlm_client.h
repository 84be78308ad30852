/* ntlm_client: the client's side of one NTLM exchange (MS-NLMP section 3.1.5), apart from any framing: NTLMv2 only,
 * with MIC whenever the server sends a timestamp, channel bindings and the target name.
 *
 *   ntlm_client_init, ntlm_client_first() -> NEGOTIATE, ntlm_client_step(CHALLENGE) -> AUTHENTICATE
 *
 * A first challenge that is no message of NTLM ("334 ntlm supported": [MS-SMTPNTLM] section 2.2.1.2) is the caller's to
 * pass over. Failures are one sentence and ERR_AUTH. */
#pragma once
#include "sasl/ntlm_seal.h"
#include "sasl/sasl.h"

struct ntlm_client_options {
    const struct sasl_ntlm_setup *setup;
    struct str user, password;   /* "alice", "CORP\alice" or "alice@corp.test"; as configured */
    struct sasl_binding binding; /* cert_hash counts */
    bool want_seal;              /* ask for sealing; without it an exchange never leads to a layer */
};

struct ntlm_client {
    uint32_t flags;              /* asked for, then negotiated */
    unsigned char client_challenge[NTLM_CHALLENGE_BYTES];
    uint64_t filetime;
    unsigned char nt_hash[NTLM_HASH_BYTES], exported_key[NTLM_HASH_BYTES], binding[NTLM_HASH_BYTES];
    bool has_binding, complete, want_mic;
    char user[NTLM_NAME_MAX + 1], domain[NTLM_NAME_MAX + 1], workstation[NTLM_NAME_MAX + 1], target[NTLM_NAME_MAX + 1];
    struct buf negotiate, authenticate;
};

int ntlm_client_init(struct ntlm_client *client, const struct ntlm_client_options *options, struct err *err);
void ntlm_client_done(struct ntlm_client *client); /* wipes; also after a failed init */
/* The view lives as long as the client. */
struct str ntlm_client_first(struct ntlm_client *client);
int ntlm_client_step(struct ntlm_client *client, struct str challenge, struct str *ret_response, struct err *err);
/* After step: keys for sealing or signing; false when they were not negotiated. */
bool ntlm_client_seal(const struct ntlm_client *client, struct ntlm_seal *ret_seal);
/* Sealing was asked for and granted: a layer starts after the server's success. */
static inline bool ntlm_client_seals(const struct ntlm_client *client)
{
    return client->complete && (client->flags & NTLM_SEAL);
}
