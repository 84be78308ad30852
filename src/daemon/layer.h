/* layer: the SASL security layer of one connection, for the process that has its socket (smtpd, delivery): made from what
 * auth sent (struct ipc_layer), between the socket and the SMTP machine from the end of the login on.
 *
 * What it holds is the state of this one connection; freed, it is wiped. One thread. */
#pragma once
#include "base/buf.h"
#include "daemon/ipc.h"

struct layer;

/* Loads what a layer needs, before a sandbox closes. */
int layer_init(struct err *err);
int layer_new(const struct ipc_layer *from, struct layer **ret_layer, struct err *err);
/* NULL is fine. */
void layer_free(struct layer **layer);
/* Does what passes through it count as encrypted? Otherwise it is signed only. */
bool layer_is_confidential(const struct layer *layer);
/* "GSSAPI-confidentiality", for logs. */
const char *layer_name(const struct layer *layer);

/* Wraps; the octets for the socket stand in layer_output() until they are consumed. */
int layer_put(struct layer *layer, struct str plain, struct err *err);
struct buf *layer_output(struct layer *layer);
/* Octets of the socket; *ret_plain is what they brought, and lives until the next call. A negative code ends the
 * connection. */
int layer_take(struct layer *layer, struct str octets, struct str *ret_plain, struct err *err);
