/* ntlm_seal: signing and sealing after an exchange of NTLM (MS-NLMP section 3.4), and the mechListMIC of SPNEGO.
 *
 * A sealed message is a signature of 16 octets, then the text, encrypted (or plain when it is only signed). Each
 * direction has one RC4 stream and one counter; a message that is lost, repeated or changed ends it: after a failure
 * every later call fails. Only extended session security with 128-bit keys is known here. Wipes itself. */
#pragma once
#include "sasl/layer.h"
#include "sasl/ntlm_crypto.h"

enum { NTLM_SEAL_SIGNATURE_BYTES = 16, NTLM_SEAL_EXPORT_MAX = 128 };

struct ntlm_seal_way {
    unsigned char sign_key[NTLM_HASH_BYTES], seal_key[NTLM_HASH_BYTES];
    struct ntlm_rc4 rc4;
    uint32_t sequence;
    bool used;       /* the RC4 stream is not at its start */
};

struct ntlm_seal {
    struct ntlm_seal_way send, receive;
    uint32_t flags;  /* NTLM_KEY_EXCH: checksums go through RC4, too */
    bool confidential; /* NTLM_SEAL was negotiated */
    bool broken;
};

/* One direction's keys from the session key, of the strength that the flags say (section 3.4.5). For ntlm_seal_init(),
 * which wants all 128 bits. */
bool ntlm_seal_keys(struct ntlm_seal_way *way, const unsigned char exported_key[NTLM_HASH_BYTES], uint32_t flags,
                    bool by_client);
/* False: the flags lack ESS or 128 bits, or the crypto library failed. Zeroed or finished before. */
bool ntlm_seal_init(struct ntlm_seal *seal, const unsigned char exported_key[NTLM_HASH_BYTES], uint32_t flags, bool is_client);
void ntlm_seal_done(struct ntlm_seal *seal);
/* Adds signature and text. `confidential` false: signed only. */
bool ntlm_seal_wrap(struct ntlm_seal *seal, bool confidential, struct str plain, struct buf *ret_token);
bool ntlm_seal_unwrap(struct ntlm_seal *seal, bool confidential, struct str token, struct buf *ret_plain);
/* A signature of its own. */
bool ntlm_seal_sign(struct ntlm_seal *seal, struct str text, unsigned char ret_signature[NTLM_SEAL_SIGNATURE_BYTES]);
bool ntlm_seal_verify(struct ntlm_seal *seal, struct str text, struct str signature);
/* After the mechListMIC: both RC4 streams begin again, the counters go on (MS-SPNG section 3.3.5.1). */
bool ntlm_seal_restart(struct ntlm_seal *seal);
/* For another process, before the first wrapped message (after it: false). At most NTLM_SEAL_EXPORT_MAX octets, secret.
 * The importer must have called ntlm_crypto_init(). */
bool ntlm_seal_export(const struct ntlm_seal *seal, struct buf *out);
bool ntlm_seal_import(struct str octets, struct ntlm_seal *ret_seal);
/* For sasl_layer_new(): the seal is the context, and lives as long as the layer. Sealed when that was negotiated, otherwise
 * only signed. */
struct sasl_layer_ops ntlm_seal_layer_ops(struct ntlm_seal *seal);
