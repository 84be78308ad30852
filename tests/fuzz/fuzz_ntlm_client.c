/* What a hostile server can say to our client of NTLM, and of NTLM inside SPNEGO: challenges behind lengths of two octets;
 * the first octet's bits choose what the client wants. */
#include "fuzz_sasl_server.h"
#include "sasl/spnego_ntlm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return ntlm_crypto_init(NULL);
}

static void run_plain(const struct ntlm_client_options *options, struct str rest)
{
    struct ntlm_client client;
    struct str response;
    int rc = ntlm_client_init(&client, options, NULL);
    while (rc == 0 && rest.n > 0) {
        rc = ntlm_client_step(&client, fuzz_next(&rest), &response, NULL);
        assert(response.n <= NTLM_MESSAGE_MAX && (rc < 0 || response.n >= NTLM_AUTHENTICATE_BYTES));
    }
    assert(!ntlm_client_seals(&client) || options->want_seal);
    ntlm_client_done(&client);
}

static void run_spnego(const struct ntlm_client_options *options, struct str rest)
{
    struct spnego_ntlm_client client;
    struct ntlm_seal seal;
    struct str response;
    int rc = spnego_ntlm_client_init(&client, options, NULL);
    if (rc == 0)
        spnego_ntlm_client_first(&client, &response);
    while (rc == 0 && rest.n > 0)
        rc = spnego_ntlm_client_step(&client, fuzz_next(&rest), &response, NULL);
    spnego_ntlm_client_seal(&client, &seal);
    ntlm_seal_done(&seal);
    spnego_ntlm_client_done(&client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct sasl_ntlm_setup setup = { .challenge = "\1\2\3\4\5\6\7\10", .filetime = 130000000000000000,
                                     .session_key = "0123456789abcde", .workstation = STR("STATION"),
                                     .target = data[0] & 1 ? STR("SMTPSVC/mail.corp.test") : STR_NONE };
    struct ntlm_client_options options = { .setup = &setup, .user = STR("CORP\\alice"), .password = STR("password"),
                                           .want_seal = data[0] & 2 };
    if (data[0] & 4)
        options.binding.cert_hash = STR("0123456789abcdef0123456789abcdef");
    (data[0] & 8 ? run_spnego : run_plain)(&options, str_slice(data + 1, size - 1));
    return 0;
}
