/* The happy path of a question: dns_query() hands it to the library with a token; resolved() reads the
 * packet into the question and sets its timer to zero; deliver() calls the owner from the next turn.
 * Ways to fail: the deadline comes first (deliver() finds no answer); the owner cancels or all is freed
 * (the token stays with the library, without a question, until the library answers). */
#include "io/dns.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unbound.h>

#include "io/dns_event.h"
#include "io/dns_packet.h"

enum { ANSWER_MAX_BYTES = 256 * 1024, RESOLVERS_TEXT_BYTES = 200, CLASS_IN = 1 };

/* What the library holds; outlives a question that was dropped. */
struct dns_token {
    struct dns_query *query; /* NULL: nobody waits any more */
    LIST_ENTRY(dns_token) entry;
};

struct dns {
    struct loop *loop;
    struct ub_ctx *ub;
    struct dns_event_base base;
    char resolvers[RESOLVERS_TEXT_BYTES]; /* for sentences */
    LIST_HEAD(, dns_token) tokens;
    LIST_HEAD(, dns_query) queries;
};

struct dns_query {
    struct dns *dns;
    struct dns_token *token; /* NULL once answered */
    struct loop_timer *timer; /* the deadline, then the delivery */
    int64_t deadline_ms;
    void (*answered)(void *arg, const struct dns_answer *answer);
    void *arg;
    bool has_answer;
    struct dns_answer answer;
    struct arena arena;
    char error[400];
    char name[DNS_NAME_BYTES];
    LIST_ENTRY(dns_query) entry;
};

/* ---- the resolver ---- */

/* "address:port", "[v6]:port" or "address" to the library's "address@port". */
static bool resolver_address(struct str text, char *ret_address, size_t address_bytes)
{
    struct str host = text, port = STR("53");
    char plain[INET6_ADDRSTRLEN];
    unsigned char octets[16];
    uint64_t number;
    if (str_starts(text, STR("["))) {
        struct str rest = str_skip(text, 1);
        if (!str_cut(&rest, ']', &host) || (rest.n && !str_starts(rest, STR(":"))))
            return false;
        port = rest.n ? str_skip(rest, 1) : port;
    } else if (str_find(text, ':') < text.n && str_find(str_skip(text, str_find(text, ':') + 1), ':') ==
               text.n - str_find(text, ':') - 1) {
        port = text;
        str_cut(&port, ':', &host);
    }
    if (!str_copy(host, plain, sizeof plain) || !str_to_u64(port, 65535, &number) || number == 0 ||
        (inet_pton(AF_INET, plain, octets) != 1 && inet_pton(AF_INET6, plain, octets) != 1))
        return false;
    return snprintf(ret_address, address_bytes, "%s@%u", plain, (unsigned)number) < (int)address_bytes;
}

static int set_resolvers(struct dns *dns, const char *const *resolver, size_t n, struct err *err)
{
    char address[INET6_ADDRSTRLEN + 8];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (!resolver_address(str_of(resolver[i]), address, sizeof address))
            return err_set(err, ERR_CONFIG, "resolver \"%s\" is not \"address:port\" or \"[IPv6 address]:port\"",
                           resolver[i]);
        int rc = ub_ctx_set_fwd(dns->ub, address);
        if (rc)
            return err_set(err, ERR_DNS, "resolver \"%s\" cannot be used: %s", resolver[i], ub_strerror(rc));
        int wrote = snprintf(dns->resolvers + used, sizeof dns->resolvers - used, "%s%s", i ? ", " : "", resolver[i]);
        used = wrote > 0 && used + (size_t)wrote < sizeof dns->resolvers ? used + (size_t)wrote : used;
    }
    if (n)
        return 0;
    int rc = ub_ctx_resolvconf(dns->ub, NULL);
    if (rc)
        return err_set(err, ERR_DNS, "/etc/resolv.conf cannot be used: %s; name servers can be set with `resolver`",
                       ub_strerror(rc));
    str_copy(STR("the servers in /etc/resolv.conf"), dns->resolvers, sizeof dns->resolvers);
    return 0;
}

static int set_options(struct dns *dns, const char *anchor_file, struct err *err)
{
    static const char *const options[][2] = {
        { "unblock-lan-zones:", "yes" },       /* reverse zones of private networks */
        { "insecure-lan-zones:", "yes" },
        { "do-not-query-localhost:", "no" },
        { "infra-keep-probing:", "yes" },      /* a resolver that was down is tried again at once */
        { "infra-cache-max-rtt:", "2000" },    /* … and waited for no longer than this a try */
        { "outgoing-range:", "512" },          /* questions in flight */
        { "num-queries-per-thread:", "512" },
        { "cache-max-negative-ttl:", "300" },  /* a domain that was just set up */
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int rc = ub_ctx_set_option(dns->ub, options[i][0], options[i][1]);
        if (rc)
            return err_set(err, ERR_DNS, "libunbound does not take the option %s %s: %s", options[i][0], options[i][1],
                           ub_strerror(rc));
    }
    int rc = anchor_file ? ub_ctx_add_ta_file(dns->ub, anchor_file) : 0;
    return rc ? err_set(err, ERR_DNS, "the trust anchor %s cannot be used: %s", anchor_file, ub_strerror(rc)) : 0;
}

static void ignored(void *arg, int rcode, void *packet, int packet_bytes, int secure, char *why_bogus, int limited)
{
    (void)arg; /* the question that warms up is answered from inside */
}

/* Closes the library's configuration (it reads files only now) and makes its worker. */
static int finalise(struct dns *dns, const char *anchor_file, struct err *err)
{
    /* Built-in zones that would answer "no such name" without asking. */
    static const char *const zones[] = { "test.", "home.arpa." };
    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++) {
        int rc = ub_ctx_zone_remove(dns->ub, zones[i]);
        if (rc)
            return err_set(err, ERR_DNS, "the DNS library could not be set up%s%s: %s",
                           anchor_file ? " with the trust anchor " : "", anchor_file ? anchor_file : "",
                           ub_strerror(rc));
    }
    int rc = ub_resolve_event(dns->ub, "localhost.", DNS_A, CLASS_IN, NULL, ignored, NULL);
    return rc ? err_set(err, ERR_DNS, "the DNS library could not be started: %s", ub_strerror(rc)) : 0;
}

int dns_new(struct loop *loop, const char *const *resolver, size_t n_resolvers, const char *anchor_file,
            struct dns **ret_dns, struct err *err)
{
    struct dns *dns = calloc(1, sizeof *dns);
    *ret_dns = dns;
    if (!dns)
        return err_set(err, -ENOMEM, "no memory for the resolver");
    dns->loop = loop;
    dns_event_base_init(&dns->base, loop);
    dns->ub = ub_ctx_create_ub_event(&dns->base.ub);
    /* It would write to stderr; what matters comes back in sentences. */
    if (dns->ub)
        ub_ctx_debugout(dns->ub, NULL);
    int rc = dns->ub ? set_resolvers(dns, resolver, n_resolvers, err)
                     : err_set(err, ERR_DNS, "the DNS library could not be started; is there memory?");
    if (rc == 0)
        rc = set_options(dns, anchor_file, err);
    if (rc == 0)
        rc = finalise(dns, anchor_file, err);
    if (rc < 0)
        dns_free(ret_dns);
    return rc;
}

static void query_free(struct dns_query *query)
{
    if (query->token)
        query->token->query = NULL;
    LIST_REMOVE(query, entry);
    loop_timer_free(&query->timer);
    arena_done(&query->arena);
    free(query);
}

void dns_free(struct dns **ret_dns)
{
    struct dns *dns = *ret_dns;
    *ret_dns = NULL;
    if (!dns)
        return;
    while (!LIST_EMPTY(&dns->queries))
        query_free(LIST_FIRST(&dns->queries));
    if (dns->ub)
        ub_ctx_delete(dns->ub);
    while (!LIST_EMPTY(&dns->tokens)) {
        struct dns_token *token = LIST_FIRST(&dns->tokens);
        LIST_REMOVE(token, entry);
        free(token);
    }
    free(dns);
}

/* ---- questions ---- */

static const char *type_text(enum dns_type type)
{
    switch (type) {
    case DNS_A: return "A";
    case DNS_AAAA: return "AAAA";
    case DNS_MX: return "MX";
    case DNS_PTR: return "PTR";
    case DNS_TLSA: return "TLSA";
    }
    return "?";
}

static void query_failed(struct dns_query *query, int rcode, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void query_failed(struct dns_query *query, int rcode, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(query->error, sizeof query->error, fmt, args);
    va_end(args);
    query->has_answer = true;
    query->answer = (struct dns_answer){
        .type = query->answer.type, .status = DNS_FAILED, .rcode = rcode, .error = query->error,
    };
}

static void query_read(struct dns_query *query, struct str packet, bool secure)
{
    enum dns_type type = query->answer.type;
    dns_packet_read(packet, str_of(query->name), type, &query->arena, &query->answer);
    query->has_answer = true;
    query->answer.secure = secure;
    if (query->answer.status == DNS_FAILED)
        query_failed(query, query->answer.rcode, "DNS: %s for %s %s from %s", query->answer.error, query->name,
                     type_text(type), query->dns->resolvers);
}

static const char *rcode_text(int rcode)
{
    static const char *const names[] = { "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED" };
    return rcode >= 0 && (size_t)rcode < sizeof names / sizeof *names ? names[rcode] : "error";
}

/* The library's answer. `secure` is 0 unsigned, 1 bogus, 2 proven; bogus comes with rcode 0 and data. */
static void resolved(void *arg, int rcode, void *packet, int packet_bytes, int secure, char *why_bogus, int limited)
{
    struct dns_token *token = arg;
    struct dns_query *query = token->query;
    LIST_REMOVE(token, entry);
    free(token);
    if (!query)
        return;
    query->token = NULL;
    const char *type = type_text(query->answer.type);
    if (secure == 1)
        query_failed(query, rcode, "DNS: the signature of %s %s is wrong: %s", query->name, type,
                     why_bogus ? why_bogus : "no reason given");
    else if (rcode == 3 && (!packet || packet_bytes <= 0))
        query_failed(query, rcode, "DNS: %s %s: an answer without content", query->name, type);
    else if (rcode != 0 && rcode != 3)
        query_failed(query, rcode, "DNS: no usable answer for %s %s from %s (%s)", query->name, type,
                     query->dns->resolvers, rcode_text(rcode));
    else
        query_read(query, str_slice(packet, packet_bytes > 0 ? (size_t)packet_bytes : 0), secure == 2);
    /* Not from here: the library may be in the middle of dns_query(), and does not expect new questions. */
    loop_timer_set(query->timer, 0);
}

static void deliver(void *arg)
{
    struct dns_query *query = arg;
    if (!query->has_answer)
        query_failed(query, -1, "DNS: no answer for %s %s from %s within %lld.%01lld s", query->name,
                     type_text(query->answer.type), query->dns->resolvers, (long long)query->deadline_ms / 1000,
                     (long long)query->deadline_ms % 1000 / 100);
    query->answered(query->arg, &query->answer);
    query_free(query);
}

static int query_start(struct dns_query *query, struct err *err)
{
    struct dns *dns = query->dns;
    struct dns_token *token = calloc(1, sizeof *token);
    char absolute[DNS_NAME_BYTES + 1];
    if (!token || loop_timer_new(dns->loop, deliver, query, &query->timer, err) < 0) {
        free(token);
        return err_set(err, -ENOMEM, "no memory for a question to the DNS");
    }
    token->query = query;
    query->token = token;
    LIST_INSERT_HEAD(&dns->tokens, token, entry);
    loop_timer_set(query->timer, query->deadline_ms);
    snprintf(absolute, sizeof absolute, "%s.", query->name);
    int rc = ub_resolve_event(dns->ub, absolute, (int)query->answer.type, CLASS_IN, token, resolved, NULL);
    if (rc == 0)
        return 0;
    /* It was refused, so resolved() will not be called. */
    query->token = NULL;
    LIST_REMOVE(token, entry);
    free(token);
    return err_set(err, ERR_DNS, "DNS: %s cannot be asked: %s", query->name, ub_strerror(rc));
}

int dns_query(struct dns *dns, const char *name, enum dns_type type, int64_t deadline_ms,
              void (*answered)(void *arg, const struct dns_answer *answer), void *arg, struct dns_query **ret_query,
              struct err *err)
{
    struct str text = str_of(name);
    *ret_query = NULL;
    if (text.n && text.p[text.n - 1] == '.')
        text.n--;
    if (!dns_packet_name_valid(text))
        return err_set(err, ERR_SYNTAX, "\"%.100s\" is not a name that the DNS can be asked for", name);
    struct dns_query *query = calloc(1, sizeof *query);
    if (!query)
        return err_set(err, -ENOMEM, "no memory for a question to the DNS");
    *query = (struct dns_query){ .dns = dns, .answered = answered, .arg = arg, .deadline_ms = deadline_ms };
    query->answer.type = type;
    arena_init(&query->arena, ANSWER_MAX_BYTES);
    str_copy(text, query->name, sizeof query->name);
    LIST_INSERT_HEAD(&dns->queries, query, entry);
    int rc = query_start(query, err);
    if (rc < 0) {
        query_free(query);
        return rc;
    }
    *ret_query = query;
    return 0;
}

void dns_cancel(struct dns_query **query)
{
    if (*query)
        query_free(*query);
    *query = NULL;
}

void dns_reverse_name(const struct in6_addr *address, char ret_name[DNS_NAME_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *octets = address->s6_addr;
    if (IN6_IS_ADDR_V4MAPPED(address)) {
        snprintf(ret_name, DNS_NAME_BYTES, "%u.%u.%u.%u.in-addr.arpa", octets[15], octets[14], octets[13], octets[12]);
        return;
    }
    char *at = ret_name;
    for (int i = 15; i >= 0; i--) {
        *at++ = hex[octets[i] & 15];
        *at++ = '.';
        *at++ = hex[octets[i] >> 4];
        *at++ = '.';
    }
    memcpy(at, "ip6.arpa", sizeof "ip6.arpa");
}
