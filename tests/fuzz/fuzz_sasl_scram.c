/* The exchange published in RFC 7677 is a seed, so its nonces and verifier are the target's. */
#include "base/base64.h"
#include "fuzz_sasl_server.h"

static struct sasl_verifier verifier;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct buf salt;
    buf_init(&salt, 64);
    base64_decode(STR("W22ZaJ0SNY7soEsUEjb6gQ=="), &salt);
    sasl_verifier_make(STR("pencil"), buf_str(&salt), 4096, &verifier, NULL);
    buf_done(&salt);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sasl_server_options options = {
        .nonce = STR("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"),
        .binding = { .cert_hash = STR("0123456789abcdef0123456789abcdef") },
        .plus_offered = size > 0 && (data[0] & 4),
    };
    return fuzz_server(size > 0 && (data[0] & 8) ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256", &options, &verifier, data, size);
}
