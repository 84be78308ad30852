#include "io/dns_packet.h"

#include <assert.h>

enum {
    HEADER_BYTES = 12,
    LABEL_MAX = 63,
    NAME_TEXT_MAX = 253,
    POINTERS_MAX = 32, /* in one name: a chain of thousands would only cost time */
    CNAME_MAX = 16,
    TYPE_CNAME = 5,
    CLASS_IN = 1,
};

/* A place in the packet; `bad` once something reached over its end. */
struct reader {
    struct str packet;
    size_t at;
    bool bad;
};

struct resource {
    char owner[DNS_NAME_BYTES];
    unsigned type, class;
    uint32_t ttl_s;
    size_t data_at, data_bytes;
};

static unsigned get_u8(struct reader *r)
{
    if (r->at >= r->packet.n) {
        r->bad = true;
        return 0;
    }
    return (unsigned char)r->packet.p[r->at++];
}

static unsigned get_u16(struct reader *r)
{
    unsigned high = get_u8(r);
    return high << 8 | get_u8(r);
}

static uint32_t get_u32(struct reader *r)
{
    uint32_t high = get_u16(r);
    return high << 16 | get_u16(r);
}

static bool name_char(char c)
{
    return c > ' ' && c < 127 && c != '.' && c != '\\' && c != '"' && c != '@' && c != ';' && c != '(' && c != ')';
}

bool dns_packet_name_valid(struct str name)
{
    size_t label_bytes = 0;
    if (name.n == 0 || name.n > NAME_TEXT_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        bool dot = name.p[i] == '.';
        if (dot ? label_bytes == 0 : !name_char(name.p[i]) || label_bytes == LABEL_MAX)
            return false;
        label_bytes = dot ? 0 : label_bytes + 1;
    }
    return label_bytes > 0;
}

/* Adds one label; false when it does not fit or could not be written as text without escapes. */
static bool add_label(struct reader *r, size_t n, char *name, size_t *used)
{
    bool ok = *used + n + 1 <= NAME_TEXT_MAX + 1;
    if (ok && *used)
        name[(*used)++] = '.';
    for (size_t i = 0; i < n; i++) {
        char c = (char)get_u8(r);
        ok = ok && name_char(c);
        if (ok)
            name[(*used)++] = c;
    }
    return ok;
}

/* Reads a name as text without last dot; "" = the root. False when it is not a host's (the reader goes on
 * behind it) or the packet is bad. A pointer must lead before the part that it stands in (RFC 1035 section
 * 4.1.4: a prior occurrence), so the walk ends. */
static bool get_name(struct reader *r, char ret_name[DNS_NAME_BYTES])
{
    static_assert(DNS_NAME_BYTES > NAME_TEXT_MAX + 1, "a label's dot and the NUL must fit");
    size_t used = 0, part_at = r->at, back_to = 0;
    bool ok = true;
    for (unsigned pointers = 0;;) {
        unsigned n = get_u8(r);
        if (n == 0 || r->bad)
            break;
        if (n <= LABEL_MAX) {
            ok = add_label(r, n, ret_name, &used) && ok;
            continue;
        }
        size_t target = (n & 0x3f) << 8 | get_u8(r);
        if (n < 0xc0 || target >= part_at || ++pointers > POINTERS_MAX)
            r->bad = true;
        if (r->bad)
            break;
        if (!back_to)
            back_to = r->at;
        r->at = part_at = target;
    }
    if (back_to)
        r->at = back_to;
    ok = ok && used <= NAME_TEXT_MAX && !r->bad;
    ret_name[ok ? used : 0] = 0;
    return ok;
}

/* The next resource record; its owner is "\1" (no name has that) when it is not a host's. */
static void get_resource(struct reader *r, struct resource *ret)
{
    if (!get_name(r, ret->owner))
        memcpy(ret->owner, "\1", 2);
    ret->type = get_u16(r);
    ret->class = get_u16(r);
    ret->ttl_s = get_u32(r);
    if (ret->ttl_s > INT32_MAX) /* RFC 2181 section 8 */
        ret->ttl_s = 0;
    ret->data_bytes = get_u16(r);
    ret->data_at = r->at;
    if (ret->data_bytes > r->packet.n - r->at)
        r->bad = true;
    else
        r->at += ret->data_bytes;
}

/* A reader for the data alone. Names in it may point anywhere before. */
static struct reader data_reader(const struct reader *r, const struct resource *resource)
{
    return (struct reader){ .packet = { r->packet.p, resource->data_at + resource->data_bytes },
                            .at = resource->data_at };
}

static bool get_octets(struct reader *r, unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)get_u8(r);
    return !r->bad && r->at == r->packet.n;
}

static bool get_tlsa(struct reader *r, struct arena *arena, struct dns_record *ret)
{
    ret->tlsa.usage = (uint8_t)get_u8(r);
    ret->tlsa.selector = (uint8_t)get_u8(r);
    ret->tlsa.matching = (uint8_t)get_u8(r);
    if (r->bad || r->at == r->packet.n)
        return false;
    ret->tlsa.data = arena_copy(arena, str_slice(r->packet.p + r->at, r->packet.n - r->at));
    return ret->tlsa.data.p;
}

static bool get_data(struct reader *r, enum dns_type type, struct arena *arena, struct dns_record *ret)
{
    switch (type) {
    case DNS_A: return get_octets(r, ret->a, sizeof ret->a);
    case DNS_AAAA: return get_octets(r, ret->aaaa, sizeof ret->aaaa);
    case DNS_MX: ret->mx.preference = (uint16_t)get_u16(r); return get_name(r, ret->mx.host) && r->at == r->packet.n;
    case DNS_PTR: return get_name(r, ret->ptr) && *ret->ptr && r->at == r->packet.n;
    case DNS_TLSA: return get_tlsa(r, arena, ret);
    }
    return false;
}

static bool owned_by(const struct resource *resource, struct str name)
{
    return resource->class == CLASS_IN && str_eq_nocase(str_of(resource->owner), name);
}

/* Where the CNAMEs of the answer section lead from `name`. */
static void follow_cnames(const struct reader *answers, unsigned n, char name[DNS_NAME_BYTES])
{
    struct resource resource;
    for (unsigned hop = 0; hop < CNAME_MAX; hop++) {
        struct reader r = *answers;
        bool moved = false;
        for (unsigned i = 0; i < n && !r.bad && !moved; i++) {
            char target[DNS_NAME_BYTES];
            get_resource(&r, &resource);
            if (r.bad || resource.type != TYPE_CNAME || !owned_by(&resource, str_of(name)))
                continue;
            struct reader data = data_reader(&r, &resource);
            moved = get_name(&data, target) && *target;
            if (moved)
                memcpy(name, target, sizeof target);
        }
        if (!moved)
            return;
    }
}

static void packet_failed(struct dns_answer *ret, const char *why)
{
    ret->status = DNS_FAILED;
    ret->n_records = 0;
    ret->error = why;
}

/* All records of the type that `ret->canonical` owns. */
static void collect(struct reader *r, unsigned n, struct arena *arena, struct dns_answer *ret)
{
    struct dns_record *records = arena_alloc(arena, (n < DNS_RECORDS_MAX ? n : DNS_RECORDS_MAX) * sizeof *records);
    struct resource resource;
    unsigned unusable = 0;
    if (n && !records) {
        packet_failed(ret, "no memory for the records");
        return;
    }
    ret->record = records;
    ret->ttl_s = INT32_MAX;
    for (unsigned i = 0; i < n && !r->bad; i++) {
        get_resource(r, &resource);
        if (r->bad || resource.type != (unsigned)ret->type || !owned_by(&resource, str_of(ret->canonical)) ||
            ret->n_records == DNS_RECORDS_MAX)
            continue;
        struct reader data = data_reader(r, &resource);
        struct dns_record *record = &records[ret->n_records];
        if (!get_data(&data, ret->type, arena, record)) {
            unusable++;
            continue;
        }
        record->ttl_s = resource.ttl_s;
        ret->ttl_s = resource.ttl_s < ret->ttl_s ? resource.ttl_s : ret->ttl_s;
        ret->n_records++;
    }
    if (r->bad)
        packet_failed(ret, "the answer is malformed");
    else if (!ret->n_records && unusable)
        packet_failed(ret, "the answer holds no usable record");
    else
        ret->status = ret->n_records ? DNS_FOUND : ret->rcode == 3 ? DNS_NO_NAME : DNS_NO_DATA;
    if (!ret->n_records)
        ret->ttl_s = 0;
}

void dns_packet_read(struct str packet, struct str name, enum dns_type type, struct arena *arena,
                     struct dns_answer *ret)
{
    struct reader r = { .packet = packet };
    char owner[DNS_NAME_BYTES];
    *ret = (struct dns_answer){ .type = type, .rcode = -1 };
    get_u16(&r); /* id: the library has compared it */
    unsigned flags = get_u16(&r), questions = get_u16(&r), answers = get_u16(&r);
    r.at = HEADER_BYTES;
    if (packet.n < HEADER_BYTES || !(flags & 0x8000) || !str_copy(name, owner, sizeof owner)) {
        packet_failed(ret, "the answer is malformed");
        return;
    }
    ret->rcode = (int)(flags & 0x0f);
    if (ret->rcode != 0 && ret->rcode != 3) {
        packet_failed(ret, "the resolver refused or failed");
        return;
    }
    for (unsigned i = 0; i < questions && !r.bad; i++) {
        char asked[DNS_NAME_BYTES];
        get_name(&r, asked);
        get_u32(&r);
    }
    /* Eleven octets are the least that a record takes: a count that lies costs no memory. */
    if (answers > packet.n / 11)
        answers = (unsigned)(packet.n / 11) + 1;
    follow_cnames(&r, answers, owner);
    ret->canonical = arena_strdup(arena, str_of(owner));
    if (!ret->canonical)
        packet_failed(ret, "no memory for the records");
    else
        collect(&r, answers, arena, ret);
}
