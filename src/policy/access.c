#include "policy/access.h"

bool access_address_parse(struct str text, unsigned char ret_address[16])
{
    return network_address_parse(text, ret_address);
}

void access_address_format(const unsigned char address[16], char ret_text[ACCESS_ADDRESS_TEXT_BYTES])
{
    network_address_format(address, ret_text);
}

/* Hosts lie by prefix length, longest first, and by address within one. The end of the run that begins at `first`. */
static size_t run_end(const struct conf_server *server, size_t first)
{
    size_t low = first + 1, high = server->n_hosts;
    unsigned bits = server->host[first].prefix_bits;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (server->host[middle].prefix_bits == bits)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct conf_host *find_in_run(const struct conf_server *server, size_t low, size_t high,
                                           const unsigned char address[16])
{
    unsigned char network[16];
    memcpy(network, address, 16);
    network_mask(network, server->host[low].prefix_bits);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(network, server->host[middle].address, 16);
        if (order == 0)
            return &server->host[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static const struct conf_host *find_host(const struct conf_server *server, const unsigned char address[16])
{
    for (size_t first = 0, end; first < server->n_hosts; first = end) {
        end = run_end(server, first);
        const struct conf_host *host = find_in_run(server, first, end, address);
        if (host)
            return host;
    }
    return NULL;
}

void access_find(const struct conf_server *server, const unsigned char address[16], struct access_rules *ret_rules)
{
    const struct conf_host *host = find_host(server, address);
    if (host)
        *ret_rules = (struct access_rules){
            .accept = host->accept, .relay = host->relay, .plaintext = host->plaintext, .mechanisms = host->mechanisms,
            .line_ends = host->line_ends, .strip_headers = host->strip_headers, .exps = host->exps,
            .login_line = host->login_line, .ntlm_v1 = host->ntlm_v1, .channel_binding = host->channel_binding,
            .encryption = host->encryption, .send_as = host->send_as, .place = host->place, .network = host->network,
        };
    else
        *ret_rules = (struct access_rules){
            .accept = server->accept, .relay = server->relay, .plaintext = server->plaintext,
            .mechanisms = server->mechanisms, .line_ends = server->line_ends, .strip_headers = server->strip_headers,
            .exps = server->exps, .login_line = server->login_line, .channel_binding = server->channel_binding,
            .encryption = server->encryption, .send_as = server->send_as, .place = server->place,
        };
}
