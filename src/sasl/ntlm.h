/* ntlm: what the parts of our NTLM share (MS-NLMP): the numbers of the protocol, what a side is given for one exchange,
 * and the proof that somebody has to verify. The parts: ntlm_text.h (UTF-16), ntlm_message.h (the three messages),
 * ntlm_crypto.h (keys and responses), ntlm_server.h and ntlm_client.h (the two machines), ntlm_seal.h (session
 * protection), spnego.h and spnego_ntlm.h (the same inside SPNEGO).
 *
 * Pure, like the whole room: time and random octets are given. Every view in a setup is UTF-8 and is copied by the
 * machine that gets it. */
#pragma once
#include <stdint.h>

#include "base/str.h"

enum {
    NTLM_HASH_BYTES = 16,       /* NT hash, session keys, MIC, channel-binding hash */
    NTLM_CHALLENGE_BYTES = 8,
    NTLM_NAME_MAX = 255,        /* octets of UTF-8 in any one name */
    NTLM_NAMES_MAX = 4096,      /* octets of the list of a server's own names */
    NTLM_MESSAGE_MAX = 16 * 1024, /* real ones stay below 2 KiB */
};

/* NegotiateFlags, MS-NLMP section 2.2.2.5. */
enum {
    NTLM_UNICODE = 0x00000001,
    NTLM_OEM = 0x00000002,
    NTLM_REQUEST_TARGET = 0x00000004,
    NTLM_SIGN = 0x00000010,
    NTLM_SEAL = 0x00000020,
    NTLM_DATAGRAM = 0x00000040,
    NTLM_LM_KEY = 0x00000080,
    NTLM_NTLM = 0x00000200,
    NTLM_ANONYMOUS = 0x00000800,
    NTLM_DOMAIN_SUPPLIED = 0x00001000,
    NTLM_WORKSTATION_SUPPLIED = 0x00002000,
    NTLM_ALWAYS_SIGN = 0x00008000,
    NTLM_TARGET_TYPE_DOMAIN = 0x00010000,
    NTLM_TARGET_TYPE_SERVER = 0x00020000,
    NTLM_ESS = 0x00080000,      /* extended session security */
    NTLM_TARGET_INFO = 0x00800000,
    NTLM_VERSION = 0x02000000,
    NTLM_128 = 0x20000000,
    NTLM_KEY_EXCH = 0x40000000,
};
static const uint32_t NTLM_56 = 0x80000000u; /* does not fit an enumeration constant */

/* What one side is told for one exchange. Members that are not for this side are ignored. */
struct sasl_ntlm_setup {
    unsigned char challenge[NTLM_CHALLENGE_BYTES]; /* random, new for each exchange: the server's or the client's */
    uint64_t filetime;          /* now, in units of 100 ns since 1601: ntlm_filetime() */
    /* Of a server: */
    struct str netbios_domain, netbios_computer; /* "CORP", "MAIL"; made from the DNS names when empty */
    struct str dns_domain, dns_computer;         /* "corp.test", "mail.corp.test" */
    struct str names;           /* separated by spaces: what the host part of a client's target name may be, besides these */
    bool allow_v1;
    /* Of a client: */
    unsigned char session_key[NTLM_HASH_BYTES]; /* random: becomes the exported session key */
    struct str domain;          /* of the user; empty when the name is "CORP\alice" or "alice@corp.test" */
    struct str workstation;     /* our own name; may be empty */
    struct str target;          /* "SMTPSVC/mail.corp.test"; empty: no target name is sent */
};

/* What a client has sent to show that it knows a password. Views live until the next call on the exchange. For
 * winbind (wbcAuthenticateUserEx, level RESPONSE) and for ntlm_crypto_check(). */
struct ntlm_proof {
    struct str user, domain, workstation; /* UTF-8 as sent; domain and workstation may be empty; user may be a UPN */
    struct str server_challenge; /* 8 octets: what the responses answer (mixed with the client's for version 1 with ESS) */
    struct str nt_response, lm_response;
    unsigned version;            /* 1 or 2 */
    /* For the log; to be believed only when the proof is right: */
    struct str target;           /* "SMTPSVC/mail.corp.test": whom the client believes to talk to; empty: it does not say */
    bool has_mic, has_binding;   /* the client protects its messages; it has bound itself to a TLS channel */
};

/* Wall time (milliseconds since 1970) as FILETIME. */
static inline uint64_t ntlm_filetime(int64_t wall_ms)
{
    return (uint64_t)(wall_ms + INT64_C(11644473600000)) * 10000u;
}
