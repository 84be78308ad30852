/* seal: wraps and unwraps the octets of one established GSS-API context (RFC 4121 section 4.2), outside of GSS-API.
 *
 * auth accepts or initiates a context and exports what a session needs (krb_seal_export): one key, direction and
 * sequence numbers. smtpd or delivery makes a seal of it and protects the session's octets. GSS-API's own import reads
 * configuration files at each call, which those processes may not; a seal opens nothing after krb_seal_init().
 *
 * Only contexts with the tokens of RFC 4121 (AES and later) can be exported: krb_seal_export() fails with ERR_AUTH for
 * RC4 and DES, and no layer is offered then. Tokens must arrive in order and without gaps, as a stream brings them; a
 * token that is damaged, repeated or missing ends the stream. The first token may be up to two ahead, because an exported
 * context does not tell how many tokens the exchange itself took: so somebody on the way who cuts off the very first one
 * is not noticed by this.
 *
 * The state holds a session key: wipe what held it. One seal belongs to one thread at a time. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

struct krb_seal;

enum { KRB_SEAL_STATE_MAX = 256 };

/* Makes what the library needs, once, before a sandbox closes. */
int krb_seal_init(struct err *err);

/* Takes the context (gss_ctx_id_t, established) apart: it is gone afterwards, *gss_context is NULL. Adds the state. */
int krb_seal_export(void **gss_context, struct buf *ret_state, struct err *err);
/* Could this context be exported? Asked before a layer is offered; leaves it as it is. */
bool krb_seal_possible(void *gss_context);

/* ERR_SYNTAX: no state that krb_seal_export() wrote. */
int krb_seal_new(struct str state, struct krb_seal **ret_seal, struct err *err);
/* NULL is fine; wipes. */
void krb_seal_free(struct krb_seal **seal);

/* Adds one wrap token. */
bool krb_seal_wrap(struct krb_seal *seal, bool confidential, struct str plain, struct buf *ret_token);
/* One whole token. False: damaged, out of order, or from another context. */
bool krb_seal_unwrap(struct krb_seal *seal, struct str token, struct buf *ret_plain, bool *ret_confidential);
/* The most octets that fit into a token of `token_max` octets; 0: none. */
uint32_t krb_seal_plain_max(const struct krb_seal *seal, bool confidential, uint32_t token_max);
