/* The first octet chooses the type, the rest is a DNS message that answers "a.test". */
#include "io/dns_packet.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const enum dns_type types[] = { DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TLSA };
    struct arena arena;
    struct dns_answer answer;
    if (n == 0)
        return 0;
    arena_init(&arena, 256 * 1024);
    dns_packet_read(str_slice(data + 1, n - 1), STR("a.test"), types[data[0] % 5], &arena, &answer);
    assert((answer.status == DNS_FOUND) == (answer.n_records > 0));
    assert((answer.status == DNS_FAILED) == (answer.error != NULL));
    assert(answer.n_records <= DNS_RECORDS_MAX);
    for (size_t i = 0; i < answer.n_records && answer.type == DNS_MX; i++)
        assert(!answer.record[i].mx.host[0] || dns_packet_name_valid(str_of(answer.record[i].mx.host)));
    arena_done(&arena);
    return 0;
}
