/* access: which rules hold for a host that connects to a virtual server: those of the most specific network
 * that holds its address, or the server's own. Pure. */
#pragma once
#include "conf/conf.h"
#include "conf/network.h"

enum { ACCESS_ADDRESS_TEXT_BYTES = NETWORK_TEXT_BYTES };

/* Strings and arrays belong to the snapshot. */
struct access_rules {
    enum conf_accept accept;
    bool relay, plaintext;
    struct conf_strings mechanisms;
    enum conf_line_ends line_ends;
    struct conf_strings strip_headers;
    bool exps, login_line, ntlm_v1;
    enum conf_binding channel_binding;
    enum conf_encryption encryption;
    enum conf_send_as send_as;
    struct conf_place place; /* of the host block, or of the server when none matches */
    const char *network;     /* as written; NULL: no block matches */
};

/* A binary search for each prefix length in use: thousands of hosts cost a few comparisons. */
void access_find(const struct conf_server *server, const unsigned char address[16], struct access_rules *ret_rules);

/* IPv4 becomes ::ffff:a.b.c.d, and is written in its own form again. */
bool access_address_parse(struct str text, unsigned char ret_address[16]);
void access_address_format(const unsigned char address[16], char ret_text[ACCESS_ADDRESS_TEXT_BYTES]);
