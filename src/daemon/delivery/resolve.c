/* Happy path: the entries of `via` become hosts; "mx" asks for the exchangers first; then A and AAAA of all
 * hosts are asked at once; the last answer puts the candidates together in the hosts' order. Nothing to ask:
 * all of it happens within resolve_start(). */
#include "daemon/delivery/resolve.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ADDRESSES_PER_HOST = 8 };

struct question {
    struct resolve *resolve;
    struct host *host;      /* NULL: MX */
    struct dns_query *query;
};

struct host {
    char name[DNS_NAME_BYTES];
    uint16_t port, preference;
    uint32_t shuffle;
    uint8_t entry;          /* place in `via` */
    bool is_mx;
    bool failed;            /* the DNS did not answer */
    struct resolve_candidate literal;
    struct in_addr v4[ADDRESSES_PER_HOST];
    struct in6_addr v6[ADDRESSES_PER_HOST];
    uint8_t n_v4, n_v6;
    struct question a, aaaa;
};

struct gather {
    struct resolve_candidate candidate[RESOLVE_CANDIDATES_MAX];
    size_t n;
    unsigned loop_preference; /* exchangers from here on are left out */
    bool failed, looped, absent_smart_host;
};

struct resolve {
    struct resolve_options options;
    struct dns *dns;
    void (*done)(void *arg, const struct resolve_result *result);
    void *arg;
    struct question mx;
    char domain[DNS_NAME_BYTES];   /* options.domain as the DNS knows it */
    uint16_t mx_port;
    uint8_t mx_entry;
    unsigned n_pending;
    uint32_t random;
    bool starting;
    struct gather gather;
    struct resolve_result verdict; /* why "mx" gave nothing; text empty: it did not fail */
    size_t n_hosts;
    struct host host[RESOLVE_HOSTS_MAX];
};

bool resolve_address_parse(struct str text, uint16_t port, struct resolve_candidate *ret)
{
    char name[INET6_ADDRSTRLEN + 1];
    *ret = (struct resolve_candidate){ .port = port };
    if (text.n > 2 && text.p[0] == '[' && text.p[text.n - 1] == ']') {
        text = str_slice(text.p + 1, text.n - 2);
        if (str_starts_nocase(text, STR("IPv6:")))
            text = str_skip(text, 5);
    }
    if (!str_copy(text, name, sizeof name))
        return false;
    if (inet_pton(AF_INET, name, &ret->address.v4.sin_addr) == 1) {
        ret->address.v4.sin_family = AF_INET;
        ret->address.v4.sin_port = htons(port);
        ret->address_bytes = sizeof ret->address.v4;
    } else if (inet_pton(AF_INET6, name, &ret->address.v6.sin6_addr) == 1) {
        ret->address.v6.sin6_family = AF_INET6;
        ret->address.v6.sin6_port = htons(port);
        ret->address_bytes = sizeof ret->address.v6;
    } else {
        return false;
    }
    str_copy(str_of(name), ret->text, sizeof ret->text);
    str_copy(str_of(name), ret->host, sizeof ret->host);
    return true;
}

bool resolve_target_parse(struct str entry, uint16_t default_port, struct resolve_target *ret)
{
    *ret = (struct resolve_target){ .kind = RESOLVE_HOST, .port = default_port };
    struct str host = entry, port = STR_NONE;
    size_t bracket = entry.n && entry.p[0] == '[' ? str_find(entry, ']') : 0;
    size_t colon = bracket + str_find(str_skip(entry, bracket), ':');
    bool bare_v6 = bracket == 0 && colon < entry.n && memchr(entry.p + colon + 1, ':', entry.n - colon - 1);
    if (colon < entry.n && !bare_v6) {
        host = str_slice(entry.p, colon);
        port = str_skip(entry, colon + 1);
        uint64_t n = 0;
        if (!str_to_u64(port, 65535, &n) || n == 0)
            return false;
        ret->port = (uint16_t)n;
    }
    if (str_eq_nocase(host, STR("mx"))) {
        ret->kind = RESOLVE_MX;
        return true;
    }
    if (resolve_address_parse(host, ret->port, &ret->candidate))
        ret->kind = RESOLVE_ADDRESS;
    return host.n > 0 && str_copy(host, ret->host, sizeof ret->host);
}

bool resolve_name_to_ascii(struct str name, char ret_name[DNS_NAME_BYTES])
{
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    bool ascii = true;
    for (size_t i = 0; i < name.n; i++)
        ascii = ascii && !(name.p[i] & 0x80);
    if (!str_copy(name, ret_name, DNS_NAME_BYTES))
        return false;
    if (ascii)
        return true;
    char *label = NULL;
    bool ok = idn2_to_ascii_8z(ret_name, &label, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT) == IDN2_OK &&
              str_copy(str_of(label), ret_name, DNS_NAME_BYTES);
    idn2_free(label);
    return ok;
}

static void set_verdict(struct resolve *r, bool permanent, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void set_verdict(struct resolve *r, bool permanent, const char *dsn, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->verdict.text, sizeof r->verdict.text, fmt, args);
    va_end(args);
    r->verdict.permanent = permanent;
    str_copy(str_of(dsn), r->verdict.dsn, sizeof r->verdict.dsn);
}

/* xorshift: enough to spread load, nothing depends on it being hard to guess. */
static uint32_t next_random(struct resolve *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 17;
    r->random ^= r->random << 5;
    return r->random;
}

static struct host *add_host(struct resolve *r, struct str name, uint16_t port, uint8_t entry)
{
    if (r->n_hosts == RESOLVE_HOSTS_MAX)
        return NULL;
    struct host *h = &r->host[r->n_hosts];
    *h = (struct host){ .port = port, .entry = entry };
    if (!resolve_name_to_ascii(name, h->name))
        return NULL;
    h->shuffle = next_random(r);
    resolve_address_parse(name, port, &h->literal);
    r->n_hosts++;
    return h;
}

static bool is_our_name(const struct resolve *r, const char *name)
{
    for (size_t i = 0; i < r->options.conf->n_servers; i++)
        if (str_eq_nocase(str_of(r->options.conf->server[i].name), str_of(name)))
            return true;
    return false;
}

static int compare_hosts(const void *a, const void *b)
{
    const struct host *x = a, *y = b;
    if (x->entry != y->entry)
        return x->entry < y->entry ? -1 : 1;
    if (x->preference != y->preference)
        return x->preference < y->preference ? -1 : 1;
    return x->shuffle < y->shuffle ? -1 : x->shuffle > y->shuffle;
}

static void add_address(struct gather *g, const struct host *h, int family, const void *address)
{
    if (g->n == RESOLVE_CANDIDATES_MAX)
        return;
    struct resolve_candidate *c = &g->candidate[g->n++];
    *c = (struct resolve_candidate){ .port = h->port };
    str_copy(str_of(h->name), c->host, sizeof c->host);
    inet_ntop(family, address, c->text, sizeof c->text);
    if (family == AF_INET) {
        c->address.v4.sin_family = AF_INET;
        c->address.v4.sin_port = htons(h->port);
        memcpy(&c->address.v4.sin_addr, address, sizeof c->address.v4.sin_addr);
        c->address_bytes = sizeof c->address.v4;
    } else {
        c->address.v6.sin6_family = AF_INET6;
        c->address.v6.sin6_port = htons(h->port);
        memcpy(&c->address.v6.sin6_addr, address, sizeof c->address.v6.sin6_addr);
        c->address_bytes = sizeof c->address.v6;
    }
}

static void gather_host(struct gather *g, const struct host *h)
{
    if (h->is_mx && h->preference >= g->loop_preference) {
        g->looped = true;
        return;
    }
    size_t before = g->n;
    if (h->literal.address_bytes && g->n < RESOLVE_CANDIDATES_MAX)
        g->candidate[g->n++] = h->literal;
    for (size_t i = 0; i < h->n_v4; i++)
        add_address(g, h, AF_INET, &h->v4[i]);
    for (size_t i = 0; i < h->n_v6; i++)
        add_address(g, h, AF_INET6, &h->v6[i]);
    g->failed = g->failed || h->failed;
    g->absent_smart_host = g->absent_smart_host || (!h->is_mx && g->n == before);
}

/* One of our listeners has this address and port. A wildcard listener tells nothing here; then the name, and in
 * the end the count of Received fields, notice a loop. */
static bool is_our_address(const struct resolve *r, const struct resolve_candidate *c)
{
    for (size_t i = 0; i < r->options.conf->n_servers; i++) {
        const struct conf_strings *listen = &r->options.conf->server[i].listen;
        for (size_t k = 0; k < listen->n; k++) {
            struct resolve_target ours;
            if (resolve_target_parse(str_of(listen->item[k]), 25, &ours) && ours.kind == RESOLVE_ADDRESS &&
                ours.port == c->port && strcmp(ours.candidate.text, c->text) == 0)
                return true;
        }
    }
    return false;
}

static bool is_ourselves(struct resolve *r, const struct host *h)
{
    if (!h->is_mx || is_our_name(r, h->name))
        return h->is_mx;
    struct gather *g = &r->gather;
    g->n = 0;
    g->loop_preference = UINT16_MAX + 1u;
    gather_host(g, h);
    bool ours = false;
    for (size_t i = 0; i < g->n; i++)
        ours = ours || is_our_address(r, &g->candidate[i]);
    return ours;
}

/* Before anything is gathered for good: an equal of ourselves must not come first by chance. */
static unsigned find_loop(struct resolve *r)
{
    unsigned preference = UINT16_MAX + 1u;
    for (size_t i = 0; i < r->n_hosts; i++)
        if (is_ourselves(r, &r->host[i]) && r->host[i].preference < preference)
            preference = r->host[i].preference;
    return preference;
}

static void no_candidates(struct resolve *r, const struct gather *g)
{
    if (r->verdict.text[0] && !r->verdict.permanent)
        return;
    if (g->failed)
        set_verdict(r, false, "4.4.3", "Host or domain name not found. Name service error for name=%s: try again",
                    r->n_hosts ? r->host[0].name : r->options.domain);
    else if (g->absent_smart_host)
        set_verdict(r, false, "4.4.4", "no address found for the configured next hop %s",
                    r->n_hosts ? r->host[0].name : r->options.domain);
    else if (g->looped)
        set_verdict(r, true, "5.4.6", "mail for %s loops back to myself", r->options.domain);
    else if (!r->verdict.text[0])
        set_verdict(r, true, "5.4.4", "no mail exchanger of %s has an address", r->options.domain);
}

static void finish(struct resolve *r)
{
    struct gather *g = &r->gather;
    qsort(r->host, r->n_hosts, sizeof r->host[0], compare_hosts);
    unsigned loop = find_loop(r);
    memset(g, 0, sizeof *g);
    g->loop_preference = loop;
    for (size_t i = 0; i < r->n_hosts; i++)
        gather_host(g, &r->host[i]);
    if (g->n == 0)
        no_candidates(r, g);
    r->verdict.candidate = g->candidate;
    r->verdict.n = g->n;
    r->done(r->arg, &r->verdict);
    free(r);
}

static void settle(struct resolve *r)
{
    if (r->n_pending == 0 && !r->starting)
        finish(r);
}

static void on_address(void *arg, const struct dns_answer *answer)
{
    struct question *q = arg;
    struct host *h = q->host;
    q->query = NULL;
    if (answer->status == DNS_FAILED)
        h->failed = true;
    for (size_t i = 0; i < answer->n_records; i++) {
        if (answer->type == DNS_A && h->n_v4 < ADDRESSES_PER_HOST)
            memcpy(&h->v4[h->n_v4++], answer->record[i].a, 4);
        if (answer->type == DNS_AAAA && h->n_v6 < ADDRESSES_PER_HOST)
            memcpy(&h->v6[h->n_v6++], answer->record[i].aaaa, 16);
    }
    q->resolve->n_pending--;
    settle(q->resolve);
}

static void ask(struct resolve *r, struct question *q, struct host *h, const char *name, enum dns_type type,
                void (*answered)(void *arg, const struct dns_answer *answer))
{
    struct err err;
    *q = (struct question){ .resolve = r, .host = h };
    int rc = dns_query(r->dns, name, type, r->options.deadline_ms, answered, q, &q->query, &err);
    if (rc == 0)
        r->n_pending++;
    else if (h)
        h->failed = rc == -ENOMEM;
    else
        set_verdict(r, rc != -ENOMEM, rc == -ENOMEM ? "4.3.0" : "5.1.2", "cannot ask for the mail exchangers of %s: %s",
                    name, err.text);
}

static void ask_addresses(struct resolve *r)
{
    r->starting = true;
    for (size_t i = 0; i < r->n_hosts; i++) {
        struct host *h = &r->host[i];
        if (h->literal.address_bytes)
            continue;
        ask(r, &h->a, h, h->name, DNS_A, on_address);
        ask(r, &h->aaaa, h, h->name, DNS_AAAA, on_address);
    }
    r->starting = false;
    settle(r);
}

/* The implicit MX of RFC 5321 section 5.1. */
static void add_domain_itself(struct resolve *r)
{
    struct host *h = add_host(r, str_of(r->options.domain), r->mx_port, r->mx_entry);
    if (h)
        h->is_mx = true;
}

static void add_exchangers(struct resolve *r, const struct dns_answer *answer)
{
    if (answer->n_records == 1 && !answer->record[0].mx.host[0]) {
        set_verdict(r, true, "5.1.10", "domain %s does not accept mail (null MX)", r->options.domain);
        return;
    }
    for (size_t i = 0; i < answer->n_records; i++) {
        const struct dns_record *record = &answer->record[i];
        if (!record->mx.host[0])
            continue;
        struct host *h = add_host(r, str_of(record->mx.host), r->mx_port, r->mx_entry);
        if (!h)
            return;
        h->is_mx = true;
        h->preference = record->mx.preference;
    }
}

static void on_mx(void *arg, const struct dns_answer *answer)
{
    struct question *q = arg;
    struct resolve *r = q->resolve;
    q->query = NULL;
    r->n_pending--;
    switch (answer->status) {
    case DNS_FOUND: add_exchangers(r, answer); break;
    case DNS_NO_DATA: add_domain_itself(r); break;
    case DNS_NO_NAME:
        set_verdict(r, true, "5.1.2", "Host or domain name not found. Name service error for name=%s type=MX: Host not found",
                    r->options.domain);
        break;
    default:
        set_verdict(r, false, "4.4.3", "Host or domain name not found. Name service error for name=%s type=MX: %s",
                    r->options.domain, answer->error ? answer->error : "try again");
        break;
    }
    ask_addresses(r);
}

static void add_entry(struct resolve *r, size_t i, bool *ret_mx)
{
    struct resolve_target target;
    if (!resolve_target_parse(str_of(r->options.via.item[i]), r->options.default_port, &target)) {
        set_verdict(r, false, "4.3.5", "the configured next hop %s is malformed", r->options.via.item[i]);
    } else if (target.kind != RESOLVE_MX) {
        add_host(r, str_of(target.host), target.port, (uint8_t)i);
    } else if (!*ret_mx) {
        *ret_mx = true;
        r->mx_port = target.port;
        r->mx_entry = (uint8_t)i;
    }
}

int resolve_start(struct dns *dns, const struct resolve_options *options,
                  void (*done)(void *arg, const struct resolve_result *result), void *arg,
                  struct resolve **ret_resolve)
{
    struct resolve *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->options = *options;
    r->dns = dns;
    r->done = done;
    r->arg = arg;
    r->random = options->seed ? options->seed : 1;
    *ret_resolve = r;
    bool mx = false;
    for (size_t i = 0; i < options->via.n && i < RESOLVE_HOSTS_MAX; i++)
        add_entry(r, i, &mx);
    struct resolve_candidate literal;
    if (mx && options->domain[0] == '[' && resolve_address_parse(str_of(options->domain), r->mx_port, &literal))
        add_domain_itself(r);
    else if (mx && !resolve_name_to_ascii(str_of(options->domain), r->domain))
        set_verdict(r, true, "5.1.2", "%s is no name that the DNS can have", options->domain);
    else if (mx)
        ask(r, &r->mx, NULL, r->domain, DNS_MX, on_mx);
    if (r->n_pending == 0)
        ask_addresses(r);
    return 0;
}

void resolve_cancel(struct resolve **resolve)
{
    struct resolve *r = *resolve;
    *resolve = NULL;
    if (!r)
        return;
    dns_cancel(&r->mx.query);
    for (size_t i = 0; i < r->n_hosts; i++) {
        dns_cancel(&r->host[i].a.query);
        dns_cancel(&r->host[i].aaaa.query);
    }
    free(r);
}
