/* ntlm_message: the three messages and the AV pairs of NTLM as octets (MS-NLMP section 2.2).
 *
 * Readers take whole messages from a hostile peer and return views into them; nothing is copied. Real clients leave
 * out what old ones did not know: a NEGOTIATE may have 16 octets (no names), 32 (no Version) or 40, with empty names
 * anywhere; an AUTHENTICATE may have a header of 52 octets (no flags and no key), 64, 72 (Version) or 88 (Version and
 * MIC). The header ends where the first payload begins. A field of no octets may point anywhere. Writers add to a
 * buffer whose `failed` tells (buf.h). */
#pragma once
#include "base/buf.h"
#include "sasl/ntlm.h"

enum ntlm_message_type { NTLM_MESSAGE_NEGOTIATE = 1, NTLM_MESSAGE_CHALLENGE = 2, NTLM_MESSAGE_AUTHENTICATE = 3 };

/* Does it begin as a message of NTLM does? 0: no; otherwise its type, which may be unknown. */
uint32_t ntlm_message_type(struct str message);

struct ntlm_negotiate {
    uint32_t flags;
    struct str domain, workstation; /* OEM; only when supplied */
};
bool ntlm_message_read_negotiate(struct str message, struct ntlm_negotiate *ret);
void ntlm_message_write_negotiate(struct buf *out, uint32_t flags);

struct ntlm_challenge {
    uint32_t flags;
    struct str target_name;  /* in the encoding that the flags say */
    struct str challenge;    /* 8 octets */
    struct str target_info;  /* AV pairs */
};
bool ntlm_message_read_challenge(struct str message, struct ntlm_challenge *ret);
void ntlm_message_write_challenge(struct buf *out, const struct ntlm_challenge *challenge);

enum { NTLM_MIC_AT = 72, NTLM_AUTHENTICATE_BYTES = 88 };

struct ntlm_authenticate {
    uint32_t flags;          /* 0 when the header has none */
    bool has_flags;
    struct str lm_response, nt_response;
    struct str domain, user, workstation; /* in the encoding that the flags say */
    struct str session_key;  /* encrypted; may be empty */
    size_t header_bytes;     /* where the payload may begin: 88 or more is room for a MIC */
};
bool ntlm_message_read_authenticate(struct str message, struct ntlm_authenticate *ret);
/* With Version and 16 octets of zero where the MIC goes (NTLM_MIC_AT from the message's begin). */
void ntlm_message_write_authenticate(struct buf *out, const struct ntlm_authenticate *authenticate);

/* AV pairs, section 2.2.2.1. */
enum ntlm_av {
    NTLM_AV_EOL, NTLM_AV_NETBIOS_COMPUTER, NTLM_AV_NETBIOS_DOMAIN, NTLM_AV_DNS_COMPUTER, NTLM_AV_DNS_DOMAIN,
    NTLM_AV_DNS_TREE, NTLM_AV_FLAGS, NTLM_AV_TIMESTAMP, NTLM_AV_SINGLE_HOST, NTLM_AV_TARGET_NAME, NTLM_AV_BINDINGS,
    NTLM_AVS,
};
enum { NTLM_AV_FLAG_CONSTRAINED = 1, NTLM_AV_FLAG_MIC = 2, NTLM_AV_FLAG_UNVERIFIED = 4 };

/* The values by id; the first of a kind counts. Unknown ids are passed over. */
struct ntlm_avs {
    struct str value[NTLM_AVS];
    bool has[NTLM_AVS];
};
/* False: a pair runs over the end, or EOL is missing. What stands behind EOL is ignored. */
bool ntlm_message_read_avs(struct str pairs, struct ntlm_avs *ret_avs);
/* MsvAvFlags, or 0. */
uint32_t ntlm_message_av_flags(const struct ntlm_avs *avs);
void ntlm_message_write_av(struct buf *out, enum ntlm_av id, struct str value);

/* The AV pairs inside an NTLMv2 response: behind 16 octets of proof and 28 of fixed blob. False: this is no NTLMv2
 * response. */
bool ntlm_message_v2_pairs(struct str nt_response, struct str *ret_pairs);
