/* SPNEGO: its octets, and NTLM inside it. */
#include "ntlm_pair.h"

#include "sasl/spnego_ntlm.h"

static void reads_and_writes_tokens(void **state)
{
    static const size_t sizes[] = { 0, 1, 100, 127, 128, 200, 255, 256, 5000, 60000 };
    static char text[60000];
    memset(text, 't', sizeof text);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf out;
        struct str list, token = str_slice(text, sizes[i]);
        struct spnego_init init;
        struct spnego_resp resp = { .state = SPNEGO_ACCEPT_INCOMPLETE, .mech = SPNEGO_NTLMSSP, .has_token = true,
                                    .token = token, .has_mic = true, .mic = STR("0123456789abcdef") }, back;
        buf_init(&out, SPNEGO_TOKEN_MAX);
        spnego_write_init_ntlm(&out, token, &list);
        assert_true(spnego_read_init(buf_str(&out), &init));
        assert_true(init.first == SPNEGO_NTLMSSP && init.mechs == SPNEGO_NTLMSSP && init.has_token && !init.has_mic);
        assert_true(str_eq(init.token, token) && str_eq(init.mech_list, list));
        for (size_t n = 0; n < out.n; n += 1 + out.n / 300)
            assert_false(spnego_read_init((struct str){ out.p, n }, &init));
        buf_clear(&out);
        spnego_write_resp(&out, &resp);
        assert_true(spnego_read_resp(buf_str(&out), &back));
        assert_true(back.state == resp.state && back.mech == SPNEGO_NTLMSSP && str_eq(back.token, token));
        assert_true(back.has_mic && str_eq(back.mic, resp.mic));
        for (size_t n = 0; n < out.n; n += 1 + out.n / 300)
            assert_false(spnego_read_resp((struct str){ out.p, n }, &back));
        buf_done(&out);
    }
}

/* Kerberos first with its token, then NTLM: what a client in a domain sends when it falls back. */
static const struct str krb5_first = { "\x60\x30\x06\x06\x2b\x06\x01\x05\x05\x02\xa0\x26\x30\x24"
                                       "\xa0\x19\x30\x17\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
                                       "\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
                                       "\xa2\x07\x04\x05" "AP-RE", 50 };

static void foreign_and_damaged_tokens(void **state)
{
    struct spnego_init init;
    struct spnego_resp resp;
    assert_true(spnego_read_init(krb5_first, &init));
    assert_int_equal(init.first, SPNEGO_KRB5);
    assert_int_equal(init.mechs, SPNEGO_KRB5 | SPNEGO_NTLMSSP);
    assert_true(spnego_read_init(str_skip(krb5_first, 10), &init)); /* without the frame */
    static const struct str bad[] = {
        { "", 0 }, { "\x60", 1 }, { "\x60\x80", 2 }, { "\x60\x85\1\1\1\1\1", 7 }, { "\xa0\x02\x30\x00", 4 },
        { "\xa0\x06\x30\x04\xa0\x02\x30\x00", 8 }, { "\xa1\x02\x30\x00", 4 }, { "NTLMSSP\0\1\0\0\0", 12 },
        { "\xa0\x84\xff\xff\xff\xff\x30", 7 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(spnego_read_init(bad[i], &init));
    assert_true(spnego_read_resp(STR("\xa1\x02\x30\x00"), &resp)); /* all is optional */
    assert_int_equal(resp.state, SPNEGO_NO_STATE);
    assert_false(spnego_read_resp(STR("\xa1\x07\x30\x05\xa0\x03\x0a\x01\x09"), &resp));
    assert_false(spnego_read_resp(STR("\xa1\x07\x30\x05\xa0\x03\x0a\x01"), &resp));
}

static enum ntlm_action verify(struct spnego_ntlm_server *server, const struct pair *p, struct str *ret_token)
{
    unsigned char key[NTLM_HASH_BYTES];
    int rc = ntlm_crypto_check(ntlm_server_proof(&server->ntlm), p->nt_hash, key, NULL);
    return spnego_ntlm_server_verified(server, rc == 1 ? NTLM_RIGHT : NTLM_WRONG, key, ret_token);
}

static void carry_text(struct ntlm_seal *from, struct ntlm_seal *to)
{
    struct buf token, plain;
    buf_init(&token, 100);
    buf_init(&plain, 100);
    assert_true(ntlm_seal_wrap(from, true, STR("EHLO"), &token));
    assert_true(ntlm_seal_unwrap(to, true, buf_str(&token), &plain));
    assert_true(str_eq(buf_str(&plain), STR("EHLO")));
    buf_done(&token);
    buf_done(&plain);
}

static void both_sides_agree(void **state)
{
    struct pair p;
    struct spnego_ntlm_server server;
    struct spnego_ntlm_client client;
    struct ntlm_seal ours, theirs, none;
    struct str token, response;
    pair_prepare(&p);
    p.server_options.offer_seal = p.client_options.want_seal = true;
    assert_true(spnego_ntlm_server_init(&server, &p.server_options));
    assert_int_equal(spnego_ntlm_client_init(&client, &p.client_options, NULL), 0);
    assert_true(spnego_ntlm_client_first(&client, &response));
    assert_int_equal(spnego_ntlm_server_step(&server, response, &token), NTLM_CHALLENGE);
    assert_false(spnego_ntlm_client_complete(&client));
    assert_int_equal(spnego_ntlm_client_step(&client, token, &response, NULL), 0);
    assert_true(spnego_ntlm_client_complete(&client));
    assert_int_equal(spnego_ntlm_server_step(&server, response, &token), NTLM_CHECK);
    assert_int_equal(verify(&server, &p, &token), NTLM_DONE);
    struct spnego_resp resp;
    assert_true(spnego_read_resp(token, &resp));
    assert_true(resp.state == SPNEGO_ACCEPT_COMPLETED && resp.has_mic);
    assert_int_equal(spnego_ntlm_client_step(&client, token, &response, NULL), 0);
    assert_int_equal(response.n, 0);
    assert_true(spnego_ntlm_server_seal(&server, &ours));
    assert_true(spnego_ntlm_client_seal(&client, &theirs));
    struct buf octets;
    buf_init(&octets, NTLM_SEAL_EXPORT_MAX);
    assert_true(ntlm_seal_export(&ours, &octets)); /* RC4 has begun again after the MICs, the counters have not */
    assert_int_equal(ours.send.sequence, 1);
    buf_wipe(&octets);
    carry_text(&ours, &theirs);
    carry_text(&theirs, &ours);
    assert_false(spnego_ntlm_server_seal(&server, &none)); /* moved out once */
    ntlm_seal_done(&ours);
    ntlm_seal_done(&theirs);
    spnego_ntlm_server_done(&server);
    spnego_ntlm_client_done(&client);
}

/* The second message of a client that fell back; change: 0 nothing, 1 its MIC is wrong, 2 it has none. */
static enum ntlm_cause fall_back(int change)
{
    struct pair p;
    struct spnego_ntlm_server server;
    struct str token, authenticate;
    struct spnego_resp resp;
    struct spnego_init init;
    struct ntlm_seal seal;
    struct buf out;
    unsigned char mic[NTLM_SEAL_SIGNATURE_BYTES];
    pair_prepare(&p);
    pair_begin(&p);
    buf_init(&out, SPNEGO_TOKEN_MAX);
    assert_true(spnego_read_init(krb5_first, &init));
    assert_true(spnego_ntlm_server_init(&server, &p.server_options));
    assert_int_equal(spnego_ntlm_server_step(&server, krb5_first, &token), NTLM_CHALLENGE);
    assert_true(spnego_read_resp(token, &resp));
    assert_true(resp.state == SPNEGO_REQUEST_MIC && resp.mech == SPNEGO_NTLMSSP && !resp.has_token);
    resp = (struct spnego_resp){ .state = SPNEGO_NO_STATE, .has_token = true, .token = ntlm_client_first(&p.client) };
    spnego_write_resp(&out, &resp);
    assert_int_equal(spnego_ntlm_server_step(&server, buf_str(&out), &token), NTLM_CHALLENGE);
    assert_true(spnego_read_resp(token, &resp));
    assert_int_equal(resp.state, SPNEGO_ACCEPT_INCOMPLETE);
    assert_int_equal(ntlm_client_step(&p.client, resp.token, &authenticate, NULL), 0);
    assert_true(ntlm_client_seal(&p.client, &seal));
    assert_true(ntlm_seal_sign(&seal, init.mech_list, mic));
    mic[5] = (unsigned char)(mic[5] ^ (change == 1));
    resp = (struct spnego_resp){ .state = SPNEGO_NO_STATE, .has_token = true, .token = authenticate, .has_mic = change != 2,
                                 .mic = str_slice(mic, sizeof mic) };
    buf_clear(&out);
    spnego_write_resp(&out, &resp);
    assert_int_equal(spnego_ntlm_server_step(&server, buf_str(&out), &token), NTLM_CHECK);
    enum ntlm_action action = verify(&server, &p, &token);
    enum ntlm_cause cause = spnego_ntlm_server_cause(&server);
    assert_int_equal(action, cause == NTLM_CAUSE_NONE ? NTLM_DONE : NTLM_FAILED);
    if (cause == NTLM_CAUSE_NONE) {
        assert_true(spnego_read_resp(token, &resp));
        assert_true(resp.has_mic && ntlm_seal_verify(&seal, init.mech_list, resp.mic));
    }
    ntlm_seal_done(&seal);
    buf_done(&out);
    spnego_ntlm_server_done(&server);
    pair_end(&p);
    return cause;
}

static void a_second_choice_needs_the_mic(void **state)
{
    assert_int_equal(fall_back(0), NTLM_CAUSE_NONE);
    assert_int_equal(fall_back(1), NTLM_CAUSE_MECH_LIST);
    assert_int_equal(fall_back(2), NTLM_CAUSE_MECH_LIST);
}

static void failures_pass_through(void **state)
{
    struct pair p;
    struct spnego_ntlm_server server;
    struct spnego_ntlm_client client;
    struct str token, response;
    struct err err;
    pair_prepare(&p);
    p.client_options.password = STR("wrong");
    assert_true(spnego_ntlm_server_init(&server, &p.server_options));
    assert_int_equal(spnego_ntlm_client_init(&client, &p.client_options, NULL), 0);
    assert_int_equal(spnego_ntlm_client_step(&client, STR("GSSAPI supported"), &response, NULL), 0);
    assert_int_equal(spnego_ntlm_server_step(&server, response, &token), NTLM_CHALLENGE);
    assert_int_equal(spnego_ntlm_client_step(&client, token, &response, NULL), 0);
    assert_int_equal(spnego_ntlm_server_step(&server, response, &token), NTLM_CHECK);
    assert_int_equal(verify(&server, &p, &token), NTLM_FAILED);
    assert_int_equal(spnego_ntlm_server_cause(&server), NTLM_CAUSE_WRONG);
    assert_int_equal(spnego_ntlm_server_step(&server, response, &token), NTLM_FAILED);
    assert_int_equal(spnego_ntlm_client_step(&client, STR("\xa1\x07\x30\x05\xa0\x03\x0a\x01\x02"), &response, &err), ERR_AUTH);
    assert_non_null(strstr(err.text, "rejects"));
    spnego_ntlm_server_done(&server);
    spnego_ntlm_client_done(&client);
    assert_true(spnego_ntlm_server_init(&server, &p.server_options));
    assert_int_equal(spnego_ntlm_server_step(&server, STR("\x60\x02\x06\x00"), &token), NTLM_FAILED);
    assert_int_equal(spnego_ntlm_server_cause(&server), NTLM_CAUSE_MALFORMED);
    spnego_ntlm_server_done(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes_tokens), cmocka_unit_test(foreign_and_damaged_tokens),
        cmocka_unit_test(both_sides_agree), cmocka_unit_test(a_second_choice_needs_the_mic),
        cmocka_unit_test(failures_pass_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
