/* ntlm_mech: what every mechanism that carries our NTLM (NTLM, GSSAPI, GSS-SPNEGO) needs between the machines' words and
 * the room's. */
#pragma once
#include "sasl/ntlm_server.h"
#include "sasl/server.h"

enum sasl_cause ntlm_mech_cause(enum ntlm_cause cause);
enum ntlm_verdict ntlm_mech_verdict(enum sasl_verdict verdict);
/* "DOMAIN\user", or the user alone when the client sent no domain: how it is called until somebody has verified it. */
struct str ntlm_mech_name(const struct ntlm_proof *proof, char text[SASL_PRINCIPAL_MAX + 1]);
/* Exports a seal when there is one, and finishes it in any case: for layer_state. */
bool ntlm_mech_export(struct ntlm_seal *seal, bool has_seal, struct buf *out);
