#include "smtp/address.h"

#include <arpa/inet.h>

static const char *const fault_texts[SMTP_ADDRESS_FAULTS] = {
    [SMTP_ADDRESS_OK] = "Fine",
    [SMTP_ADDRESS_BRACKETS] = "The address must stand in angle brackets",
    [SMTP_ADDRESS_ROUTE] = "Malformed source route",
    [SMTP_ADDRESS_LOCAL_EMPTY] = "The part before the @ is empty",
    [SMTP_ADDRESS_LOCAL_LONG] = "The part before the @ is longer than 255 octets",
    [SMTP_ADDRESS_LOCAL] = "Malformed part before the @",
    [SMTP_ADDRESS_NO_DOMAIN] = "The address needs a domain",
    [SMTP_ADDRESS_DOMAIN] = "Malformed domain",
    [SMTP_ADDRESS_UTF8] = "The address is not valid UTF-8",
    [SMTP_ADDRESS_LONG] = "The address is too long",
    [SMTP_ADDRESS_NULL] = "The null address is not a recipient",
};

const char *smtp_address_fault_text(enum smtp_address_fault fault)
{
    return fault_texts[fault < SMTP_ADDRESS_FAULTS ? fault : SMTP_ADDRESS_OK];
}

bool smtp_is_ascii(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] & 0x80)
            return false;
    return true;
}

/* Octets of the UTF-8 sequence at `p`, 0 when malformed. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    static const struct {
        unsigned char first, last, second_min, second_max, length;
    } rows[] = {
        /* RFC 3629 section 4, row by row */
        { 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (p[0] < rows[r].first || p[0] > rows[r].last)
            continue;
        size_t length = rows[r].length;
        if (length > n || (length > 1 && (p[1] < rows[r].second_min || p[1] > rows[r].second_max)))
            return 0;
        for (size_t i = 2; i < length; i++)
            if ((p[i] & 0xc0) != 0x80)
                return 0;
        return length;
    }
    return 0;
}

bool smtp_utf8_valid(struct str s)
{
    for (size_t i = 0; i < s.n;) {
        size_t length = utf8_sequence((const unsigned char *)s.p + i, s.n - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

bool smtp_address_domain_valid(struct str domain, bool utf8)
{
    if (domain.n == 0 || domain.n > SMTP_ADDRESS_DOMAIN_MAX_BYTES)
        return false;
    size_t label = 0;
    for (size_t i = 0; i < domain.n; i++) {
        char c = domain.p[i];
        bool last = i + 1 == domain.n || domain.p[i + 1] == '.';
        if (c == '.') {
            if (label == 0 || i + 1 == domain.n)
                return false;
            label = 0;
            continue;
        }
        if (c == '-' ? label == 0 || last : !ascii_alnum(c) && c != '_' && !(utf8 && (c & 0x80)))
            return false;
        /* 63 octets is a limit of A-labels; a U-label's own length says little, the domain's bound holds it. */
        if (++label > 63 && !utf8)
            return false;
    }
    return !utf8 || smtp_utf8_valid(domain);
}

bool smtp_address_literal_valid(struct str literal)
{
    if (literal.n < 3 || literal.n > SMTP_ADDRESS_DOMAIN_MAX_BYTES || literal.p[0] != '[' ||
        literal.p[literal.n - 1] != ']')
        return false;
    struct str inner = str_slice(literal.p + 1, literal.n - 2), tag;
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char address[sizeof(struct in6_addr)];
    struct str rest = inner;
    if (!str_cut(&rest, ':', &tag))
        return str_copy(inner, text, sizeof text) && inet_pton(AF_INET, text, address) == 1;
    if (str_eq_nocase(tag, STR("IPv6")))
        return str_copy(rest, text, sizeof text) && inet_pton(AF_INET6, text, address) == 1;
    /* General-address-literal: Ldh-str ":" 1*dcontent */
    if (tag.n == 0 || rest.n == 0 || tag.p[tag.n - 1] == '-')
        return false;
    for (size_t i = 0; i < tag.n; i++)
        if (!ascii_alnum(tag.p[i]) && tag.p[i] != '-')
            return false;
    for (size_t i = 0; i < rest.n; i++)
        if (rest.p[i] < 33 || rest.p[i] > 126 || rest.p[i] == '[' || rest.p[i] == '\\' || rest.p[i] == ']')
            return false;
    return true;
}

static bool is_atext(char c)
{
    return ascii_alnum(c) || (c & 0x80) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

/* Octets of the local part at the start of `s`, 0 when malformed. */
static size_t local_octets(struct str s)
{
    size_t i = 0;
    if (s.n && s.p[0] == '"') {
        for (i = 1; i < s.n && s.p[i] != '"'; i++) {
            if (s.p[i] == '\\' && ++i == s.n)
                return 0;
            if ((unsigned char)s.p[i] < 32 || s.p[i] == 127)
                return 0;
        }
        return i < s.n ? i + 1 : 0;
    }
    while (i < s.n && (is_atext(s.p[i]) || s.p[i] == '.'))
        i++;
    return i;
}

static bool fail(enum smtp_address_fault fault, enum smtp_address_fault *ret_fault)
{
    if (ret_fault)
        *ret_fault = fault;
    return fault == SMTP_ADDRESS_OK;
}

bool smtp_address_parse(struct str text, struct smtp_address *ret, enum smtp_address_fault *ret_fault)
{
    if (text.n == 0 || text.p[0] == '@')
        return fail(SMTP_ADDRESS_LOCAL_EMPTY, ret_fault);
    size_t n = local_octets(text);
    if (n == 0)
        return fail(SMTP_ADDRESS_LOCAL, ret_fault);
    if (n > SMTP_ADDRESS_LOCAL_MAX_BYTES)
        return fail(SMTP_ADDRESS_LOCAL_LONG, ret_fault);
    if (n == text.n)
        return fail(SMTP_ADDRESS_NO_DOMAIN, ret_fault);
    if (text.p[n] != '@')
        return fail(SMTP_ADDRESS_LOCAL, ret_fault);

    struct smtp_address a = { .text = text, .local = str_slice(text.p, n), .domain = str_skip(text, n + 1) };
    if (a.domain.n == 0)
        return fail(SMTP_ADDRESS_NO_DOMAIN, ret_fault);
    a.utf8 = !smtp_is_ascii(text);
    if (a.utf8 && !smtp_utf8_valid(text))
        return fail(SMTP_ADDRESS_UTF8, ret_fault);
    a.literal = a.domain.p[0] == '[';
    if (a.literal ? !smtp_address_literal_valid(a.domain) : !smtp_address_domain_valid(a.domain, a.utf8))
        return fail(SMTP_ADDRESS_DOMAIN, ret_fault);
    if (text.n > SMTP_ADDRESS_MAX_BYTES)
        return fail(SMTP_ADDRESS_LONG, ret_fault);
    if (ret)
        *ret = a;
    return fail(SMTP_ADDRESS_OK, ret_fault);
}

/* Index of the '>' that ends the path, outside quotes; path.n when there is none. */
static size_t path_end(struct str path)
{
    bool quoted = false;
    for (size_t i = 0; i < path.n; i++) {
        if (quoted && path.p[i] == '\\')
            i++;
        else if (path.p[i] == '"')
            quoted = !quoted;
        else if (path.p[i] == '>' && !quoted)
            return i;
    }
    return path.n;
}

/* "@a.example,@b.example:" before the mailbox. One that begins with '@' and no route has an empty local part. */
static bool drop_route(struct str *mailbox)
{
    struct str route, hop;
    struct str rest = *mailbox;
    if (!str_cut(&rest, ':', &route))
        return true;
    bool more = true;
    while (more) {
        more = str_cut(&route, ',', &hop);
        if (hop.n < 2 || hop.p[0] != '@' || !smtp_address_domain_valid(str_skip(hop, 1), true))
            return false;
    }
    *mailbox = rest;
    return true;
}

bool smtp_address_parse_path(struct str *rest, unsigned flags, struct smtp_address *ret,
                             enum smtp_address_fault *ret_fault)
{
    if (rest->n == 0 || rest->p[0] != '<')
        return fail(SMTP_ADDRESS_BRACKETS, ret_fault);
    size_t end = path_end(*rest);
    if (end == rest->n)
        return fail(SMTP_ADDRESS_BRACKETS, ret_fault);
    if (end > SMTP_ADDRESS_PATH_MAX_BYTES)
        return fail(SMTP_ADDRESS_LONG, ret_fault);
    struct str path = str_slice(rest->p + 1, end - 1);
    struct smtp_address a = { .text = path, .local = path };

    bool special = (path.n == 0 && (flags & SMTP_ADDRESS_NULL_OK)) ||
                   ((flags & SMTP_ADDRESS_POSTMASTER_OK) && str_eq_nocase(path, STR("postmaster")));
    if (!special) {
        if (path.n == 0)
            return fail(SMTP_ADDRESS_NULL, ret_fault);
        if (path.p[0] == '@' && !drop_route(&path))
            return fail(SMTP_ADDRESS_ROUTE, ret_fault);
        if (!smtp_address_parse(path, &a, ret_fault))
            return false;
    }
    *rest = str_skip(*rest, end + 1);
    if (ret)
        *ret = a;
    return fail(SMTP_ADDRESS_OK, ret_fault);
}

bool smtp_address_local_plain(const struct smtp_address *a, struct buf *out)
{
    struct str s = a->local;
    if (s.n < 2 || s.p[0] != '"')
        return buf_add(out, s);
    for (size_t i = 1; i + 1 < s.n; i++) {
        if (s.p[i] == '\\' && i + 2 < s.n)
            i++;
        if (!buf_add_char(out, s.p[i]))
            return false;
    }
    return !out->failed;
}
