#include "fuzz_sasl_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sasl_server_options options = { .nonce = STR("nonce") };
    return fuzz_server("PLAIN", &options, NULL, data, size);
}
