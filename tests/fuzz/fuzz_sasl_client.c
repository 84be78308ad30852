/* What a hostile server can say to our clients: challenges behind a length of two octets; the first octet chooses the
 * mechanism. */
#include <assert.h>

#include "fuzz_sasl_server.h"
#include "sasl/client.h"

/* A million iterations are allowed, and half a second each would be all that this target does. */
static bool is_slow(struct str challenge)
{
    for (; challenge.n > 2; challenge = str_skip(challenge, 1)) {
        uint64_t iterations;
        struct str rest = str_skip(challenge, 2), number;
        str_cut(&rest, ',', &number);
        if (str_starts(challenge, STR("i=")) && (!str_to_u64(number, UINT32_MAX, &iterations) || iterations > 4100) &&
            number.n > 4)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", "LOGIN" };
    struct sasl_client_options options = { .user = STR("user"), .password = STR("pencil"), .nonce = STR("rOprNGfwEbeRWgbNEkqO"),
                                           .binding = { .exporter = STR("0123456789abcdef") } };
    struct sasl_client *client;
    struct str response;
    if (size == 0)
        return 0;
    struct str rest = str_slice(data + 1, size - 1);
    if (sasl_client_new(sasl_mechanism_find(str_of(names[data[0] & 3])), &options, &client, NULL) < 0)
        return 0;
    if (data[0] & 4)
        sasl_client_first(client, &response);
    while (rest.n > 0) {
        struct str challenge = fuzz_next(&rest);
        if (is_slow(challenge) || sasl_client_step(client, challenge, &response, NULL) < 0)
            break;
        assert(response.n <= SASL_MESSAGE_MAX);
    }
    sasl_client_free(&client);
    return 0;
}
