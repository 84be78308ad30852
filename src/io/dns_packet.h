/* dns_packet: reads the answer section of a DNS message (RFC 1035 section 4). Pure; every octet is
 * hostile. */
#pragma once
#include "base/arena.h"
#include "io/dns.h"

/* Fills `ret` from the packet that answers (name, type): follows CNAMEs within it, takes the records of
 * that type which the last name owns. Everything is copied into `arena`. A record whose name could not be
 * a host name is left out. The text of `error` is static. */
void dns_packet_read(struct str packet, struct str name, enum dns_type type, struct arena *arena,
                     struct dns_answer *ret);
/* True for text that can be asked: labels of 1 to 63 printable ASCII octets, 253 in all, without last dot. */
bool dns_packet_name_valid(struct str name);
