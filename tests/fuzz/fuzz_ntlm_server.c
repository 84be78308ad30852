/* A whole exchange of NTLM with a hostile client: its messages behind lengths of two octets; the first octet's bits choose
 * what the server allows and what the verifier says. With the right key, whatever the proof is, all checks are reached. */
#include "fuzz_sasl_server.h"
#include "sasl/ntlm_server.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return ntlm_crypto_init(NULL);
}

static void use_layer(const struct ntlm_server *server)
{
    struct ntlm_seal seal, moved;
    struct buf octets, token;
    buf_init(&octets, NTLM_SEAL_EXPORT_MAX);
    buf_init(&token, 1000);
    if (ntlm_server_seal(server, &seal)) {
        bool exported = ntlm_seal_export(&seal, &octets), imported = ntlm_seal_import(buf_str(&octets), &moved);
        assert(exported && imported);
        bool wrapped = ntlm_seal_wrap(&moved, true, STR("EHLO"), &token);
        assert(wrapped && token.n == 20);
        ntlm_seal_done(&moved);
    }
    ntlm_seal_done(&seal);
    buf_wipe(&octets);
    buf_done(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char key[NTLM_HASH_BYTES] = "0123456789abcde", hash[NTLM_HASH_BYTES] = "abcdefghijklmno";
    if (size == 0)
        return 0;
    unsigned bits = data[0];
    struct str rest = str_slice(data + 1, size - 1), token;
    struct sasl_ntlm_setup setup = { .challenge = "\1\2\3\4\5\6\7\10", .filetime = 130000000000000000,
                                     .dns_computer = STR("mail.corp.test"), .dns_domain = STR("corp.test"),
                                     .allow_v1 = bits & 1 };
    struct ntlm_server_options options = { .setup = &setup, .binding_required = bits & 2, .offer_seal = bits & 4 };
    if (bits & 8)
        options.binding.cert_hash = STR("0123456789abcdef0123456789abcdef");
    struct ntlm_server server;
    enum ntlm_action action = NTLM_FAILED;
    if (ntlm_server_init(&server, &options))
        action = NTLM_CHALLENGE;
    while (action == NTLM_CHALLENGE && rest.n > 0) {
        action = ntlm_server_step(&server, fuzz_next(&rest), &token);
        assert(token.n <= NTLM_MESSAGE_MAX);
    }
    if (action == NTLM_CHECK) {
        const struct ntlm_proof *proof = ntlm_server_proof(&server);
        unsigned char found[NTLM_HASH_BYTES];
        assert(proof->user.n > 0 && proof->user.n <= NTLM_NAME_MAX && proof->server_challenge.n == 8);
        assert(proof->version == 2 || (proof->version == 1 && (bits & 1)));
        int rc = ntlm_crypto_check(proof, hash, found, NULL);
        assert(rc == 0 || rc == 1);
        action = ntlm_server_verified(&server, NTLM_RIGHT, bits & 16 ? NULL : key);
        assert(action == NTLM_DONE || action == NTLM_FAILED);
        if (action == NTLM_DONE)
            use_layer(&server);
    }
    ntlm_server_done(&server);
    return 0;
}
