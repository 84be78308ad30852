/* SPNEGO's tokens, and the server's side of NTLM inside it. The first octet chooses: 0 reads the rest as one token in both
 * ways; otherwise messages behind lengths of two octets. */
#include "fuzz_sasl_server.h"
#include "sasl/spnego_ntlm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return ntlm_crypto_init(NULL);
}

static bool inside(struct str part, struct str whole)
{
    return part.n == 0 || (part.p >= whole.p && part.n <= whole.n && part.p + part.n <= whole.p + whole.n);
}

static void read_token(struct str token)
{
    struct spnego_init init;
    struct spnego_resp resp, back;
    if (spnego_read_init(token, &init))
        assert(init.first && inside(init.mech_list, token) && inside(init.token, token) && inside(init.mic, token));
    if (!spnego_read_resp(token, &resp))
        return;
    assert(inside(resp.token, token) && inside(resp.mic, token));
    if (resp.mech)
        resp.mech = SPNEGO_NTLMSSP;
    struct buf out;
    buf_init(&out, 2 * SPNEGO_TOKEN_MAX);
    spnego_write_resp(&out, &resp);
    if (!out.failed && out.n <= SPNEGO_TOKEN_MAX && !(resp.has_mic && str_eq(resp.mic, resp.token))) {
        bool read = spnego_read_resp(buf_str(&out), &back);
        assert(read && back.state == resp.state && str_eq(back.token, resp.token) && str_eq(back.mic, resp.mic));
    }
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char key[NTLM_HASH_BYTES] = "0123456789abcde";
    if (size == 0)
        return 0;
    struct str rest = str_slice(data + 1, size - 1), token;
    if (data[0] == 0) {
        read_token(rest);
        return 0;
    }
    struct sasl_ntlm_setup setup = { .challenge = "\1\2\3\4\5\6\7\10", .filetime = 130000000000000000,
                                     .dns_computer = STR("mail.corp.test") };
    struct ntlm_server_options options = { .setup = &setup, .offer_seal = data[0] & 2 };
    struct spnego_ntlm_server server;
    enum ntlm_action action = spnego_ntlm_server_init(&server, &options) ? NTLM_CHALLENGE : NTLM_FAILED;
    while (action == NTLM_CHALLENGE && rest.n > 0)
        action = spnego_ntlm_server_step(&server, fuzz_next(&rest), &token);
    if (action == NTLM_CHECK)
        spnego_ntlm_server_verified(&server, NTLM_RIGHT, key, &token);
    spnego_ntlm_server_done(&server);
    return 0;
}
