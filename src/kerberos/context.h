/* context: one GSS-API security context over Kerberos, of either side (acceptor.h and initiator.h make them), while it
 * is negotiated and afterwards.
 *
 * A context belongs to one thread at a time. Steps may block: an acceptor's on files only (milliseconds), an
 * initiator's first step on a KDC (27 s when it is silent); nothing here has a time-out. Tokens out of the peer's hands
 * are safe up to KRB_TOKEN_MAX octets; what is longer is a defective token. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "kerberos/failure.h"

enum { KRB_TOKEN_MAX = 65536, KRB_PEER_MAX = 512 };

enum krb_status { KRB_CONTINUE, KRB_COMPLETE, KRB_FAILED };

/* The same bits as src/sasl's SASL_GSS_... */
enum {
    KRB_MUTUAL = 1,
    KRB_INTEGRITY = 2,
    KRB_CONFIDENTIALITY = 4,
    KRB_DELEGATED = 8, /* the client forwarded its own ticket */
    KRB_BOUND = 16,    /* channel bindings were sent by both sides and are the same */
    KRB_SEQUENCE = 32,
};

struct krb_context;

void krb_context_free(struct krb_context **context);

/* Takes the peer's token (empty: an initiator's first step) and adds ours to *ret_token. With COMPLETE a token that is
 * not empty is still to be sent. With FAILED it may hold an error token (KRB-ERROR): pass it on, it is how the peer
 * learns why; krb_context_failure() then says it to us. */
enum krb_status krb_context_step(struct krb_context *context, struct str token, struct buf *ret_token);
/* After FAILED, or after a wrap or unwrap that returned false. */
const struct krb_failure *krb_context_failure(const struct krb_context *context);

/* After COMPLETE. */
unsigned krb_context_flags(const struct krb_context *context);
/* Acceptor: the client, "alice@CORP.TEST". Initiator: the service as it was asked for. Borrowed. At most KRB_PEER_MAX
 * octets, no controls. */
struct str krb_context_peer(const struct krb_context *context);
/* The token negotiated was SPNEGO's. */
bool krb_context_spnego(const struct krb_context *context);

/* For the log. */
struct krb_session {
    int32_t enctype;      /* of the key that protects messages; 0: unknown */
    uint32_t lifetime_s;  /* until the ticket ends */
};
void krb_context_session(const struct krb_context *context, struct krb_session *ret_session);

/* RFC 4752 messages and security layers. False: see krb_context_failure(); the buffer is as it was. A confidential
 * wrap that would not be confidential is a failure. unwrap refuses replayed and reordered tokens (when the context has
 * sequence numbers). */
bool krb_context_wrap(struct krb_context *context, bool confidential, struct str plain, struct buf *ret_token);
bool krb_context_unwrap(struct krb_context *context, struct str token, struct buf *ret_plain, bool *ret_confidential);
/* The largest plain text whose wrapped token has at most `output_max_bytes`; 0 when there is none. */
uint32_t krb_context_plain_max(const struct krb_context *context, bool confidential, uint32_t output_max_bytes);

/* The library's own handle (gss_ctx_id_t), for what this header does not do (seal.h); NULL before the first step.
 * Borrowed. */
void *krb_context_gss(const struct krb_context *context);
/* The same after COMPLETE, and it is the caller's from now on. Flags, peer and session stay here; wrap and unwrap
 * fail. */
void *krb_context_take_gss(struct krb_context *context);

/* The application data of channel bindings for KRB 5: "tls-server-end-point:" or "tls-exporter:" and `octets`
 * (RFC 5929 section 4, RFC 9266). Only one kind can be tried at a login: a token that failed with the wrong one is burnt
 * in the replay cache. Windows sends tls-server-end-point. */
enum krb_binding { KRB_BINDING_SERVER_END_POINT, KRB_BINDING_EXPORTER };
bool krb_binding_build(enum krb_binding kind, struct str octets, struct buf *ret_application_data);
