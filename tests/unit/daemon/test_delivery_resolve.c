/* The resolver of next hops with a DNS of our own: dns_query() and dns_cancel() are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/delivery/resolve.h"

/* One line of the zone: "example MX 10 a.example", "a.example A 192.0.2.1", "bad FAIL". */
static const char *const zone[] = {
    "two MX 20 b.two", "two MX 10 a.two", "a.two A 192.0.2.1", "a.two AAAA 2001:db8::1", "b.two A 192.0.2.2",
    "equal MX 10 a.two", "equal MX 10 b.two", "equal MX 10 c.equal", "c.equal A 192.0.2.3",
    "null MX 0 .", "plain A 192.0.2.9", "noaddress MX 10 nowhere.noaddress", "slow FAIL", "slowhost MX 10 slow",
    "ours MX 10 a.two", "ours MX 20 ME.example", "ours MX 20 b.two", "ours MX 30 c.equal",
    "best MX 10 me.example", "best MX 20 a.two", "me.example A 192.0.2.77",
    "byaddress MX 5 alias.example", "byaddress MX 6 a.two", "alias.example A 192.0.2.78",
    "smart.example A 198.51.100.1", "half MX 10 slow", "half MX 20 a.two",
};

struct dns_query {
    char name[256];
    enum dns_type type;
    void (*answered)(void *arg, const struct dns_answer *answer);
    void *arg;
    struct dns_query *next;
};

static struct dns_query *pending;
static unsigned n_cancelled;

int dns_query(struct dns *dns, const char *name, enum dns_type type, int64_t deadline_ms,
              void (*answered)(void *arg, const struct dns_answer *answer), void *arg, struct dns_query **ret_query,
              struct err *err)
{
    (void)dns;
    (void)deadline_ms;
    if (strchr(name, '!'))
        return err_set(err, ERR_SYNTAX, "not a name");
    struct dns_query *q = calloc(1, sizeof *q);
    assert_non_null(q);
    *q = (struct dns_query){ .type = type, .answered = answered, .arg = arg, .next = pending };
    str_copy(str_of(name), q->name, sizeof q->name);
    pending = q;
    *ret_query = q;
    return 0;
}

static void forget(struct dns_query *q)
{
    struct dns_query **at = &pending;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    free(q);
}

void dns_cancel(struct dns_query **query)
{
    if (*query) {
        forget(*query);
        n_cancelled++;
    }
    *query = NULL;
}

static bool add_record(struct dns_record *r, enum dns_type type, const char *kind, const char *value)
{
    if (type == DNS_MX && strcmp(kind, "MX") == 0) {
        unsigned preference = 0;
        assert_int_equal(sscanf(value, "%u %255s", &preference, r->mx.host), 2);
        r->mx.preference = (uint16_t)preference;
        if (strcmp(r->mx.host, ".") == 0)
            r->mx.host[0] = 0;
        return true;
    }
    struct resolve_candidate c;
    if ((type != DNS_A || strcmp(kind, "A")) && (type != DNS_AAAA || strcmp(kind, "AAAA")))
        return false;
    assert_true(resolve_address_parse(str_of(value), 0, &c));
    memcpy(type == DNS_A ? r->a : r->aaaa, type == DNS_A ? (void *)&c.address.v4.sin_addr : (void *)&c.address.v6.sin6_addr,
           type == DNS_A ? 4 : 16);
    return true;
}

/* Answers what was asked last. */
static void answer_one(void)
{
    struct dns_query q = *pending;
    struct dns_record record[16] = { 0 };
    struct dns_answer answer = { .type = q.type, .status = DNS_NO_NAME, .record = record };
    forget(pending);
    for (size_t i = 0; i < sizeof zone / sizeof zone[0]; i++) {
        char name[64], kind[8], value[64];
        int n = sscanf(zone[i], "%63s %7s %63[^\n]", name, kind, value);
        if (strcmp(name, q.name) != 0)
            continue;
        if (n == 2)
            answer.status = DNS_FAILED;
        else if (add_record(&record[answer.n_records], q.type, kind, value))
            answer.n_records++;
        if (answer.status == DNS_NO_NAME)
            answer.status = DNS_NO_DATA;
    }
    if (answer.n_records)
        answer.status = DNS_FOUND;
    if (answer.status == DNS_FAILED)
        answer.error = "SERVFAIL";
    q.answered(q.arg, &answer);
}

static const char *const listens[] = { "0.0.0.0:25", "192.0.2.78:25" };
static const struct conf_server server = { .name = "me.example", .listen = { listens, 2 } };
static const struct conf conf = { .server = &server, .n_servers = 1 };

static char got[2000];

static void on_resolved(void *arg, const struct resolve_result *r)
{
    (void)arg;
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s[%s]:%u ", r->candidate[i].host, r->candidate[i].text,
                              r->candidate[i].port);
    if (r->n == 0)
        snprintf(got, sizeof got, "%s %s", r->permanent ? "bounce" : "defer", r->dsn);
}

static const char *resolve_seeded(const char *const *via, size_t n, const char *domain, uint32_t seed)
{
    struct resolve *resolve = NULL;
    struct resolve_options options = { .via = { via, n }, .domain = domain, .default_port = 25, .conf = &conf, .seed = seed };
    got[0] = 0;
    assert_int_equal(resolve_start(NULL, &options, on_resolved, NULL, &resolve), 0);
    while (pending)
        answer_one();
    return got;
}

static const char *resolve(const char *via, const char *domain)
{
    return resolve_seeded(&via, 1, domain, 7);
}

static void exchangers(void **state)
{
    (void)state;
    assert_string_equal(resolve("mx", "two"), "a.two[192.0.2.1]:25 a.two[2001:db8::1]:25 b.two[192.0.2.2]:25 ");
    assert_string_equal(resolve("MX:2526", "two"), "a.two[192.0.2.1]:2526 a.two[2001:db8::1]:2526 b.two[192.0.2.2]:2526 ");
    assert_string_equal(resolve("mx", "plain"), "plain[192.0.2.9]:25 ");
    assert_string_equal(resolve("mx", "[192.0.2.5]"), "192.0.2.5[192.0.2.5]:25 ");
    assert_string_equal(resolve("mx", "half"), "a.two[192.0.2.1]:25 a.two[2001:db8::1]:25 ");
}

static void no_way(void **state)
{
    (void)state;
    assert_string_equal(resolve("mx", "null"), "bounce 5.1.10");
    assert_string_equal(resolve("mx", "nonexistent"), "bounce 5.1.2");
    assert_string_equal(resolve("mx", "not!aname"), "bounce 5.1.2");
    assert_string_equal(resolve("mx", "noaddress"), "bounce 5.4.4");
    assert_string_equal(resolve("mx", "slow"), "defer 4.4.3");
    assert_string_equal(resolve("mx", "slowhost"), "defer 4.4.3");
    assert_string_equal(resolve("unknown.example:25", "two"), "defer 4.4.4");
    assert_string_equal(resolve("slow", "two"), "defer 4.4.3");
    assert_string_equal(resolve("host:0", "two"), "defer 4.3.5");
}

static void loops_are_cut(void **state)
{
    (void)state;
    assert_string_equal(resolve("mx", "ours"), "a.two[192.0.2.1]:25 a.two[2001:db8::1]:25 ");
    assert_string_equal(resolve("mx", "best"), "bounce 5.4.6");
    assert_string_equal(resolve("mx", "byaddress"), "bounce 5.4.6");
    /* Another port is another server. */
    assert_string_equal(resolve("mx:2526", "byaddress"),
                        "alias.example[192.0.2.78]:2526 a.two[192.0.2.1]:2526 a.two[2001:db8::1]:2526 ");
    /* A smart host is what the administrator says. */
    assert_string_equal(resolve("me.example:26", "two"), "me.example[192.0.2.77]:26 ");
}

static void named_hosts_in_their_order(void **state)
{
    (void)state;
    assert_string_equal(resolve("smart.example:587", "x"), "smart.example[198.51.100.1]:587 ");
    assert_string_equal(resolve("[2001:db8::7]:26", "x"), "2001:db8::7[2001:db8::7]:26 ");
    assert_string_equal(resolve("127.0.0.1:2526", "x"), "127.0.0.1[127.0.0.1]:2526 ");
    const char *via[] = { "smart.example", "mx:26", "[192.0.2.8]", "unknown.example" };
    assert_string_equal(resolve_seeded(via, 4, "plain", 1),
                        "smart.example[198.51.100.1]:25 plain[192.0.2.9]:26 192.0.2.8[192.0.2.8]:25 ");
    assert_string_equal(resolve_seeded(via, 4, "null", 1), "smart.example[198.51.100.1]:25 192.0.2.8[192.0.2.8]:25 ");
}

static void equals_are_shuffled(void **state)
{
    (void)state;
    const char *via = "mx";
    unsigned first[3] = { 0 };
    for (uint32_t seed = 1; seed <= 300; seed++) {
        const char *order = resolve_seeded(&via, 1, "equal", seed * 2654435761u);
        first[order[0] - 'a']++;
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(first[i], 40, 200);
}

static void fail_if_called(void *arg, const struct resolve_result *r)
{
    (void)arg;
    (void)r;
    fail();
}

static void cancelled(void **state)
{
    (void)state;
    const char *via = "mx";
    struct resolve_options options = { .via = { &via, 1 }, .domain = "two", .default_port = 25, .conf = &conf, .seed = 1 };
    for (int answers = 0; answers < 2; answers++) {
        struct resolve *r = NULL;
        assert_int_equal(resolve_start(NULL, &options, fail_if_called, NULL, &r), 0);
        for (int i = 0; i < answers; i++)
            answer_one();
        n_cancelled = 0;
        resolve_cancel(&r);
        assert_null(r);
        assert_null(pending);
        assert_int_equal(n_cancelled, answers ? 4 : 1);
    }
}

static void names_in_utf8(void **state)
{
    (void)state;
    char name[DNS_NAME_BYTES];
    assert_true(resolve_name_to_ascii(STR("b\xc3\xbc" "cher.example."), name));
    assert_string_equal(name, "xn--bcher-kva.example");
    assert_true(resolve_name_to_ascii(STR("stra\xc3\x9f" "e.example"), name)); /* IDNA 2008: not strasse */
    assert_string_equal(name, "xn--strae-oqa.example");
    assert_true(resolve_name_to_ascii(STR("Plain_name.example"), name));
    assert_string_equal(name, "Plain_name.example");
    assert_false(resolve_name_to_ascii(STR("a\xff.example"), name));
    assert_false(resolve_name_to_ascii(STR("a\xe2\x80\xa8.example"), name)); /* a line separator */
    char longest[400];
    memset(longest, 'a', sizeof longest);
    assert_false(resolve_name_to_ascii(str_slice(longest, sizeof longest), name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_in_utf8), cmocka_unit_test(exchangers), cmocka_unit_test(no_way),   cmocka_unit_test(loops_are_cut),
        cmocka_unit_test(named_hosts_in_their_order),             cmocka_unit_test(equals_are_shuffled),
        cmocka_unit_test(cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
