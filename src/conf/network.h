/* network: addresses as 16 octets (IPv4 as ::ffff:a.b.c.d), networks as address and prefix length, and
 * "address:port". Pure. */
#pragma once
#include "base/err.h"
#include "base/str.h"

enum { NETWORK_TEXT_BYTES = 64 };

/* "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"; no brackets, no zone. */
bool network_address_parse(struct str text, unsigned char ret_address[16]);
/* IPv4 in its own form, IPv6 as RFC 5952. */
void network_address_format(const unsigned char address[16], char ret_text[NETWORK_TEXT_BYTES]);
bool network_is_ipv4(const unsigned char address[16]);
bool network_is_loopback(const unsigned char address[16]);
/* Clears all bits behind the prefix. */
void network_mask(unsigned char address[16], unsigned prefix_bits);

/* "ADDRESS" or "ADDRESS/BITS". ERR_SYNTAX, also when bits behind the prefix are set: then `ret_right` holds the
 * network that was probably meant ("10.1.0.0/16"), otherwise it is empty. */
int network_parse(struct str text, unsigned char ret_address[16], unsigned *ret_prefix_bits,
                  char ret_right[NETWORK_TEXT_BYTES], struct err *err);
void network_format(const unsigned char address[16], unsigned prefix_bits, char ret_text[NETWORK_TEXT_BYTES]);

/* "10.0.0.1:25", "[::]:25"; port 1 to 65535. */
bool network_listen_parse(struct str text, unsigned char ret_address[16], uint16_t *ret_port);
/* "host", "host:port", "address", "[v6]", "[v6]:port": the host without brackets, and the port, 0 when not given.
 * False: neither a name nor an address. */
bool network_host_port_parse(struct str text, struct str *ret_host, uint16_t *ret_port);
/* Letters, digits, hyphens, dots (and underscores), labels of at most 63, at most 253 in all. */
bool network_is_name(struct str text);
