/* dns: questions to the DNS, asynchronous, over the loop; can validate DNSSEC.
 *
 * One resolver per process and configuration; it opens files (resolv.conf, trust anchor) only in
 * dns_new(), so make it before the sandbox closes. Afterwards it needs socket, bind, connect, sendto and
 * recvfrom. A cache lives inside; a new configuration means a new resolver. The library's built-in local
 * zones are removed: names below .test and reverse zones of private networks are asked like any other. Only
 * "localhost" is answered from inside (RFC 6761 section 6.3). /etc/hosts is not read: MX hosts are the DNS's. */
#pragma once
#include <netinet/in.h>

#include "base/err.h"
#include "base/str.h"
#include "io/loop.h"

struct dns;
struct dns_query;

enum dns_type { DNS_A = 1, DNS_PTR = 12, DNS_MX = 15, DNS_AAAA = 28, DNS_TLSA = 52 };

enum {
    DNS_NAME_BYTES = 256,     /* text without the last dot, and its NUL */
    DNS_RECORDS_MAX = 256,    /* more in one answer are left out */
    DNS_ADDRESS_TEXT_BYTES = 64,
};

enum dns_status {
    DNS_FOUND,    /* at least one record */
    DNS_NO_DATA,  /* the name exists, without records of this type */
    DNS_NO_NAME,  /* NXDOMAIN */
    DNS_FAILED,   /* no answer, a server's failure, a bogus signature, nonsense: try later; see `error` */
};

struct dns_record {
    uint32_t ttl_s;
    union {
        unsigned char a[4];
        unsigned char aaaa[16];
        struct {
            uint16_t preference;
            char host[DNS_NAME_BYTES]; /* "" = the root: null MX (RFC 7505) */
        } mx;
        char ptr[DNS_NAME_BYTES];
        struct {
            uint8_t usage, selector, matching;
            struct str data;
        } tlsa;
    };
};

/* Valid during the callback. */
struct dns_answer {
    enum dns_type type;
    enum dns_status status;
    int rcode;               /* of the answer, RFC 1035 section 4.1.1; -1 when there was none */
    bool secure;             /* proven by DNSSEC */
    uint32_t ttl_s;          /* the smallest of the records' */
    const char *canonical;   /* the name that owns the records, after CNAMEs */
    const struct dns_record *record;
    size_t n_records;
    const char *error;       /* one sentence for DNS_FAILED, else NULL */
};

/* `resolver`: "address:port", "[v6]:port" or a bare address (port 53); none: those of /etc/resolv.conf.
 * `anchor_file`: trust anchor (dns-root-data's /usr/share/dns/root.key); answers are then validated, and zones
 * that the root does not know are bogus. NULL: nothing is validated and nothing is `secure`. */
int dns_new(struct loop *loop, const char *const *resolver, size_t n_resolvers, const char *anchor_file,
            struct dns **ret_dns, struct err *err);
/* Open questions are dropped without a callback. */
void dns_free(struct dns **dns);

/* Asks; `answered` is called once from a later turn of the loop, or never after dns_cancel(). At the
 * deadline it gets DNS_FAILED. `name` is text without or with a last dot. Negative (and no call) when the
 * name is not one or memory is out. */
int dns_query(struct dns *dns, const char *name, enum dns_type type, int64_t deadline_ms,
              void (*answered)(void *arg, const struct dns_answer *answer), void *arg, struct dns_query **ret_query,
              struct err *err);
/* NULL is fine; sets *query to NULL. Not after `answered` was called (nor within it). */
void dns_cancel(struct dns_query **query);

/* "4.3.2.1.in-addr.arpa" or the ip6.arpa name of an address. */
void dns_reverse_name(const struct in6_addr *address, char ret_name[DNS_NAME_BYTES]);
