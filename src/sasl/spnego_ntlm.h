/* spnego_ntlm: our NTLM machines inside SPNEGO, both sides. The dialogue of the server:
 *
 *   NegTokenInit (with NEGOTIATE, or with another mechanism's token, or none)
 *      -> NegTokenResp accept-incomplete (CHALLENGE); request-mic when NTLM was not the client's first choice
 *   NegTokenResp (AUTHENTICATE [, mechListMIC]) -> NTLM_CHECK, spnego_ntlm_server_verified()
 *      -> DONE with a last token: accept-completed [, mechListMIC]
 *
 * The last token goes to the client where the protocol around can carry one (GSS-SPNEGO sends it as a challenge and gets
 * an empty response; see the caller). mechListMIC: required when NTLM was not the client's first choice; answered when
 * the client sent one; otherwise the exchange fails with NTLM_CAUSE_MECH_LIST. After it RC4 begins again. */
#pragma once
#include "sasl/ntlm_client.h"
#include "sasl/ntlm_server.h"
#include "sasl/spnego.h"

struct spnego_ntlm_server {
    struct ntlm_server ntlm;
    unsigned char phase;
    bool mic_required, mic_seen;
    enum ntlm_cause cause;
    struct buf mech_list, mic, out;
    struct ntlm_seal seal;     /* after DONE, when keys were negotiated */
    bool has_seal;
};

bool spnego_ntlm_server_init(struct spnego_ntlm_server *server, const struct ntlm_server_options *options);
void spnego_ntlm_server_done(struct spnego_ntlm_server *server);
enum ntlm_action spnego_ntlm_server_step(struct spnego_ntlm_server *server, struct str token, struct str *ret_token);
/* After CHECK; with DONE *ret_token is the last token. */
enum ntlm_action spnego_ntlm_server_verified(struct spnego_ntlm_server *server, enum ntlm_verdict verdict,
                                             const unsigned char *session_base_key, struct str *ret_token);
/* After DONE: moves the keys out; false when there are none. */
bool spnego_ntlm_server_seal(struct spnego_ntlm_server *server, struct ntlm_seal *ret_seal);
static inline enum ntlm_cause spnego_ntlm_server_cause(const struct spnego_ntlm_server *server)
{
    return server->cause;
}

struct spnego_ntlm_client {
    struct ntlm_client ntlm;
    unsigned char phase;
    bool mic_sent;
    struct str mech_list;
    struct buf out;
    struct ntlm_seal seal;
    bool has_seal;
};

int spnego_ntlm_client_init(struct spnego_ntlm_client *client, const struct ntlm_client_options *options, struct err *err);
void spnego_ntlm_client_done(struct spnego_ntlm_client *client);
bool spnego_ntlm_client_first(struct spnego_ntlm_client *client, struct str *ret_token);
/* 0 and the next token; an empty one after the server's accept-completed. */
int spnego_ntlm_client_step(struct spnego_ntlm_client *client, struct str token, struct str *ret_token, struct err *err);
/* All that the server has to say has been heard, or what is left is only its success. */
bool spnego_ntlm_client_complete(const struct spnego_ntlm_client *client);
bool spnego_ntlm_client_seal(struct spnego_ntlm_client *client, struct ntlm_seal *ret_seal);
