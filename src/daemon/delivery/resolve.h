/* resolve: from a `via` list and a recipient's domain to addresses to connect to, in the order in which to
 * try them (RFC 5321 section 5, RFC 7505).
 *
 * "mx" stands for the domain's mail exchangers: best preference first, equal ones in random order, each
 * with its IPv4 addresses before its IPv6 ones (receivers judge IPv6 senders harder); no MX record: the
 * domain itself. An exchanger that is this server, and all that are not better, are left out. Every other
 * entry is a host or an address, in the order given. Nothing at all is either for good (the domain does not
 * exist, takes no mail, loops back) or for now (the DNS did not answer). A named smart host that cannot be
 * found is always for now: that is our configuration's mistake, not the sender's.
 * The DNS is asked for A-labels: names in UTF-8 are converted first (RFC 5891). */
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "conf/conf.h"
#include "io/dns.h"

enum { RESOLVE_HOSTS_MAX = 24, RESOLVE_CANDIDATES_MAX = 32, RESOLVE_TEXT_BYTES = 400 };

union resolve_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

struct resolve_candidate {
    char host[DNS_NAME_BYTES];                 /* the name that TLS verifies; the address' text for a literal */
    char text[sizeof(struct sockaddr_un)];     /* "192.0.2.1", "2001:db8::1", "/run/lmtp" */
    uint16_t port;                             /* 0: a socket in the file system */
    union resolve_address address;
    socklen_t address_bytes;
};

struct resolve_result {
    const struct resolve_candidate *candidate; /* valid during the callback */
    size_t n;                                  /* 0: `permanent`, `dsn` and `text` say why */
    bool permanent;
    char dsn[12];
    char text[RESOLVE_TEXT_BYTES];
};

struct resolve_options {
    struct conf_strings via;
    const char *domain;          /* what "mx" is asked for; may be an address literal "[192.0.2.1]" */
    uint16_t default_port;       /* 25, or 24 for LMTP */
    const struct conf *conf;     /* whose servers are ourselves */
    int64_t deadline_ms;         /* of loop_now_ms() */
    uint32_t seed;               /* for the order among equals */
};

struct resolve;

/* `done` is called once, perhaps from inside this call when no question is needed; not after
 * resolve_cancel(). The resolution frees itself after `done`. Options are copied, but what they point to must
 * live until then. -ENOMEM: `done` is not called. */
int resolve_start(struct dns *dns, const struct resolve_options *options,
                  void (*done)(void *arg, const struct resolve_result *result), void *arg,
                  struct resolve **ret_resolve);
void resolve_cancel(struct resolve **resolve);

/* The name as the DNS knows it, without a dot at its end. False: too long, or no name that IDNA allows. */
bool resolve_name_to_ascii(struct str name, char ret_name[DNS_NAME_BYTES]);

/* One entry of `via`. */
enum resolve_kind { RESOLVE_MX, RESOLVE_HOST, RESOLVE_ADDRESS };
struct resolve_target {
    enum resolve_kind kind;
    uint16_t port;
    char host[DNS_NAME_BYTES];           /* empty for "mx" */
    struct resolve_candidate candidate;  /* RESOLVE_ADDRESS */
};
bool resolve_target_parse(struct str entry, uint16_t default_port, struct resolve_target *ret);
/* "192.0.2.1", "[2001:db8::1]", "[IPv6:2001:db8::1]" and a port as an address. */
bool resolve_address_parse(struct str text, uint16_t port, struct resolve_candidate *ret);
