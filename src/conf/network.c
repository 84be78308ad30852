#include "conf/network.h"

#include <arpa/inet.h>
#include <stdio.h>

static const unsigned char mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

bool network_address_parse(struct str text, unsigned char ret_address[16])
{
    char copy[INET6_ADDRSTRLEN + 1];
    if (!str_copy(text, copy, sizeof copy))
        return false;
    struct in_addr v4;
    if (inet_pton(AF_INET, copy, &v4) == 1) {
        memcpy(ret_address, mapped_prefix, sizeof mapped_prefix);
        memcpy(ret_address + 12, &v4, 4);
        return true;
    }
    struct in6_addr v6;
    if (inet_pton(AF_INET6, copy, &v6) != 1)
        return false;
    memcpy(ret_address, &v6, 16);
    return true;
}

bool network_is_ipv4(const unsigned char address[16])
{
    return memcmp(address, mapped_prefix, sizeof mapped_prefix) == 0;
}

bool network_is_loopback(const unsigned char address[16])
{
    static const unsigned char v6[16] = { [15] = 1 };
    return network_is_ipv4(address) ? address[12] == 127 : memcmp(address, v6, 16) == 0;
}

void network_address_format(const unsigned char address[16], char ret_text[NETWORK_TEXT_BYTES])
{
    const char *text = network_is_ipv4(address) ? inet_ntop(AF_INET, address + 12, ret_text, NETWORK_TEXT_BYTES)
                                                : inet_ntop(AF_INET6, address, ret_text, NETWORK_TEXT_BYTES);
    if (!text)
        ret_text[0] = 0;
}

void network_mask(unsigned char address[16], unsigned prefix_bits)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = prefix_bits > i * 8 ? prefix_bits - i * 8 : 0;
        if (bits < 8)
            address[i] = (unsigned char)(address[i] & (0xff00u >> bits));
    }
}

void network_format(const unsigned char address[16], unsigned prefix_bits, char ret_text[NETWORK_TEXT_BYTES])
{
    bool v4 = network_is_ipv4(address) && prefix_bits >= 96;
    if (v4)
        network_address_format(address, ret_text);
    else if (!inet_ntop(AF_INET6, address, ret_text, NETWORK_TEXT_BYTES))
        ret_text[0] = 0;
    size_t n = strlen(ret_text);
    snprintf(ret_text + n, NETWORK_TEXT_BYTES - n, "/%u", v4 ? prefix_bits - 96 : prefix_bits);
}

int network_parse(struct str text, unsigned char ret_address[16], unsigned *ret_prefix_bits,
                  char ret_right[NETWORK_TEXT_BYTES], struct err *err)
{
    struct str rest = text, host;
    bool has_prefix = str_cut(&rest, '/', &host);
    ret_right[0] = 0;
    if (!network_address_parse(host, ret_address))
        return err_set(err, ERR_SYNTAX, "\"%.*s\" is not an IPv4 or IPv6 address or network", STR_ARG(text));
    /* Written as IPv4: ::ffff:10.0.0.0/104 counts its bits as IPv6 does. */
    bool v4 = str_find(host, ':') == host.n;
    uint64_t bits = v4 ? 32 : 128;
    if (has_prefix && !str_to_u64(rest, bits, &bits))
        return err_set(err, ERR_SYNTAX, "\"%.*s\": behind the / stands the number of bits, 0 to %d", STR_ARG(text),
                       v4 ? 32 : 128);
    *ret_prefix_bits = (unsigned)bits + (v4 ? 96 : 0);
    unsigned char masked[16];
    memcpy(masked, ret_address, 16);
    network_mask(masked, *ret_prefix_bits);
    if (memcmp(masked, ret_address, 16) != 0) {
        network_format(masked, *ret_prefix_bits, ret_right);
        return err_set(err, ERR_SYNTAX, "\"%.*s\" has bits set behind its prefix", STR_ARG(text));
    }
    return 0;
}

static bool parse_port(struct str text, uint16_t *ret_port)
{
    uint64_t port;
    if (!str_to_u64(text, UINT16_MAX, &port) || port == 0)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

/* "[…]" or "[…]:port": what stands between the brackets, and what follows the colon. */
static bool cut_brackets(struct str text, struct str *ret_host, struct str *ret_port, bool *ret_has_port)
{
    struct str rest = str_skip(text, 1);
    if (!str_cut(&rest, ']', ret_host))
        return false;
    *ret_has_port = rest.n > 0;
    *ret_port = str_skip(rest, 1);
    return rest.n == 0 || rest.p[0] == ':';
}

bool network_listen_parse(struct str text, unsigned char ret_address[16], uint16_t *ret_port)
{
    struct str host, port;
    bool has_port;
    if (str_starts(text, STR("["))) {
        if (!cut_brackets(text, &host, &port, &has_port) || str_find(host, ':') == host.n)
            return false;
    } else {
        port = text;
        has_port = str_cut(&port, ':', &host);
    }
    return has_port && network_address_parse(host, ret_address) && parse_port(port, ret_port);
}

bool network_is_name(struct str text)
{
    if (text.n == 0 || text.n > 253)
        return false;
    bool more = true;
    while (more) {
        struct str label;
        more = str_cut(&text, '.', &label);
        if (label.n == 0 || label.n > 63 || label.p[0] == '-' || label.p[label.n - 1] == '-')
            return false;
        for (size_t i = 0; i < label.n; i++)
            if (!ascii_alnum(label.p[i]) && label.p[i] != '-' && label.p[i] != '_')
                return false;
        if (more && text.n == 0)
            return false;
    }
    return true;
}

bool network_host_port_parse(struct str text, struct str *ret_host, uint16_t *ret_port)
{
    unsigned char address[16];
    struct str port;
    bool has_port;
    *ret_port = 0;
    if (str_starts(text, STR("["))) {
        if (!cut_brackets(text, ret_host, &port, &has_port) || !network_address_parse(*ret_host, address))
            return false;
    } else if (network_address_parse(text, address)) {
        *ret_host = text;
        return true;
    } else {
        port = text;
        has_port = str_cut(&port, ':', ret_host);
        /* Something like "10.0.0.300" is a slip, not a name: no top-level domain is a number. */
        struct str tail = *ret_host, label = tail;
        while (str_cut(&tail, '.', &label))
            ;
        if (!network_is_name(*ret_host) || (!network_address_parse(*ret_host, address) && ascii_digit(label.p[0]) &&
                                            str_to_u64(label, UINT64_MAX, &(uint64_t){ 0 })))
            return false;
    }
    return !has_port || parse_port(port, ret_port);
}
