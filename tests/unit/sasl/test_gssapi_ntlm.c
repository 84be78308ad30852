/* NTLM where a client says GSSAPI or GSS-SPNEGO: both machines talk to each other, through the room's tables. */
#include "ntlm_pair.h"

#include "fake_gss.h"
#include "sasl/server.h"
#include "sasl/spnego_ntlm.h"

struct talk {
    struct pair pair;
    struct spnego_ntlm_client spnego;
    struct sasl_server *server;
    struct sasl_step step;
    enum sasl_action action;
};

static void begin(struct talk *t, const char *mechanism, unsigned layers, bool raw)
{
    struct sasl_server_options options = { .ntlm = &t->pair.server_setup, .layers_offered = layers,
                                           .nonce = STR("abcdefgh") };
    t->server = sasl_server_new(sasl_mechanism_find(str_of(mechanism)), &options);
    assert_non_null(t->server);
    if (raw)
        assert_int_equal(ntlm_client_init(&t->pair.client, &t->pair.client_options, NULL), 0);
    else
        assert_int_equal(spnego_ntlm_client_init(&t->spnego, &t->pair.client_options, NULL), 0);
}

static void feed(struct talk *t, struct str token)
{
    t->action = sasl_server_step(t->server, true, token, &t->step);
}

static void verify(struct talk *t, bool with_key)
{
    unsigned char key[NTLM_HASH_BYTES];
    assert_int_equal(t->action, SASL_CHECK_NTLM);
    int rc = ntlm_crypto_check(t->step.ntlm, t->pair.nt_hash, key, NULL);
    t->action = sasl_server_ntlm(t->server, rc == 1 ? SASL_RIGHT : SASL_WRONG, with_key ? key : NULL, STR("CORP\\alice"),
                                 &t->step);
}

/* Until the server has the proof. */
static void talk_spnego(struct talk *t)
{
    struct str token, response;
    struct err err = { 0 };
    assert_true(spnego_ntlm_client_first(&t->spnego, &token));
    feed(t, token);
    assert_int_equal(t->action, SASL_CHALLENGE);
    assert_string_equal(t->step.inner, "spnego-ntlm");
    assert_int_equal(spnego_ntlm_client_step(&t->spnego, t->step.challenge, &response, &err), 0);
    feed(t, response);
}

static void talk_raw(struct talk *t)
{
    struct str response;
    struct err err = { 0 };
    feed(t, ntlm_client_first(&t->pair.client));
    assert_int_equal(t->action, SASL_CHALLENGE);
    assert_string_equal(t->step.inner, "ntlm");
    assert_int_equal(ntlm_client_step(&t->pair.client, t->step.challenge, &response, &err), 0);
    feed(t, response);
}

static void take_last(struct talk *t)
{
    struct str response;
    assert_int_equal(t->action, SASL_CHALLENGE);
    assert_int_equal(spnego_ntlm_client_step(&t->spnego, t->step.challenge, &response, NULL), 0);
    assert_int_equal(response.n, 0);
    feed(t, response);
}

static void assert_done(struct talk *t, enum sasl_layer_kind layer, const char *authzid)
{
    assert_int_equal(t->action, SASL_DONE);
    assert_true(str_eq(t->step.authcid, STR("CORP\\alice")));
    assert_true(str_eq(t->step.authzid, str_of(authzid)));
    assert_int_equal(t->step.layer.kind, layer);
}

static void end(struct talk *t, bool raw)
{
    sasl_server_free(&t->server);
    if (raw)
        ntlm_client_done(&t->pair.client);
    else
        spnego_ntlm_client_done(&t->spnego);
}

/* The wrapper follows as after Kerberos; its choice is signed with NTLM's keys. */
static void gssapi_with_spnego(void **state)
{
    struct talk t;
    struct ntlm_seal seal;
    struct buf plain, choice;
    pair_prepare(&t.pair);
    begin(&t, "GSSAPI", 0, false);
    talk_spnego(&t);
    verify(&t, true);
    take_last(&t);
    assert_int_equal(t.action, SASL_CHALLENGE);
    buf_init(&plain, 64);
    buf_init(&choice, 64);
    assert_true(spnego_ntlm_client_seal(&t.spnego, &seal));
    assert_true(ntlm_seal_unwrap(&seal, false, t.step.challenge, &plain));
    assert_true(str_eq(buf_str(&plain), STR("\1\0\0\0")));
    assert_true(ntlm_seal_wrap(&seal, false, STR("\1\0\0\0bob"), &choice));
    feed(&t, buf_str(&choice));
    assert_done(&t, SASL_LAYER_NONE, "bob");
    buf_clear(&plain);
    assert_false(sasl_server_layer_state(t.server, &plain));
    ntlm_seal_done(&seal);
    buf_done(&plain);
    buf_done(&choice);
    end(&t, false);
}

static void gssapi_with_spnego_refuses_a_forged_choice(void **state)
{
    struct talk t;
    char forged[NTLM_SEAL_SIGNATURE_BYTES + 4] = "\1\0\0\0";
    pair_prepare(&t.pair);
    begin(&t, "GSSAPI", 0, false);
    talk_spnego(&t);
    verify(&t, true);
    take_last(&t);
    assert_int_equal(t.action, SASL_CHALLENGE);
    forged[NTLM_SEAL_SIGNATURE_BYTES] = 1;
    feed(&t, str_slice(forged, sizeof forged));
    assert_int_equal(t.action, SASL_FAILED);
    assert_int_equal(t.step.cause, SASL_CAUSE_NTLM_MIC);
    end(&t, false);
}

static void gssapi_with_ntlm_alone(void **state)
{
    struct talk t;
    pair_prepare(&t.pair);
    begin(&t, "GSSAPI", 0, true);
    talk_raw(&t);
    verify(&t, true);
    assert_int_equal(t.action, SASL_CHALLENGE); /* the offer: there is no last token of NTLM's */
    assert_int_equal(t.step.challenge.n, NTLM_SEAL_SIGNATURE_BYTES + 4);
    feed(&t, STR("x"));
    assert_int_equal(t.step.cause, SASL_CAUSE_NTLM_MIC);
    end(&t, true);
}

static void gss_spnego_ends_with_the_last_token(void **state)
{
    struct talk t;
    pair_prepare(&t.pair);
    begin(&t, "GSS-SPNEGO", 0, false);
    talk_spnego(&t);
    verify(&t, true);
    take_last(&t);
    assert_done(&t, SASL_LAYER_NONE, "CORP\\alice");
    end(&t, false);
}

static void gss_spnego_seals(void **state)
{
    struct talk t;
    struct ntlm_seal client, server;
    struct buf exported, out, plain;
    pair_prepare(&t.pair);
    t.pair.client_options.want_seal = true;
    begin(&t, "GSS-SPNEGO", SASL_LAYER_BITS, false);
    talk_spnego(&t);
    verify(&t, true);
    take_last(&t);
    assert_done(&t, SASL_LAYER_NTLM_SEAL, "CORP\\alice");
    buf_init(&exported, NTLM_SEAL_EXPORT_MAX);
    buf_init(&out, 128);
    buf_init(&plain, 128);
    assert_true(sasl_server_layer_state(t.server, &exported));
    assert_true(ntlm_seal_import(buf_str(&exported), &server));
    assert_true(spnego_ntlm_client_seal(&t.spnego, &client));
    assert_true(ntlm_seal_wrap(&client, true, STR("EHLO x\r\n"), &out));
    assert_true(ntlm_seal_unwrap(&server, true, buf_str(&out), &plain));
    assert_true(str_eq(buf_str(&plain), STR("EHLO x\r\n")));
    ntlm_seal_done(&client);
    ntlm_seal_done(&server);
    buf_wipe(&exported);
    buf_done(&out);
    buf_done(&plain);
    end(&t, false);
}

static void a_layer_is_demanded_that_ntlm_has_not(void **state)
{
    struct talk t;
    pair_prepare(&t.pair);
    begin(&t, "GSS-SPNEGO", SASL_LAYER_BIT_CONFIDENTIALITY, false);
    talk_spnego(&t);
    verify(&t, true);
    take_last(&t);
    assert_int_equal(t.action, SASL_FAILED);
    assert_int_equal(t.step.cause, SASL_CAUSE_LAYER_REQUIRED);
    end(&t, false);
}

static void wrong_password(void **state)
{
    struct talk t;
    pair_prepare(&t.pair);
    t.pair.client_options.password = STR("wrong");
    begin(&t, "GSS-SPNEGO", 0, false);
    talk_spnego(&t);
    verify(&t, true);
    assert_int_equal(t.action, SASL_FAILED);
    assert_int_equal(t.step.cause, SASL_CAUSE_BAD_PASSWORD);
    assert_true(str_eq(t.step.authcid, STR("CORP\\alice")));
    end(&t, false);
}

static void out_of_turn(void **state)
{
    struct talk t;
    struct str token;
    pair_prepare(&t.pair);
    begin(&t, "GSSAPI", 0, false);
    assert_true(spnego_ntlm_client_first(&t.spnego, &token));
    feed(&t, token);
    feed(&t, STR(""));
    assert_int_equal(t.action, SASL_FAILED);
    assert_int_equal(t.step.cause, SASL_CAUSE_MALFORMED);
    end(&t, false);
}

/* SPNEGO that proposes both, and Kerberos is not to be had: NTLM with a MIC over the list of mechanisms. */
static void kerberos_first_without_keytab(void **state)
{
    struct talk t;
    pair_prepare(&t.pair);
    begin(&t, "GSSAPI", 0, true);
    feed(&t, STR(TOKEN_SPNEGO_BOTH));
    assert_int_equal(t.action, SASL_CHALLENGE);
    assert_string_equal(t.step.inner, "spnego-ntlm");
    end(&t, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gssapi_with_spnego),
        cmocka_unit_test(gssapi_with_spnego_refuses_a_forged_choice),
        cmocka_unit_test(gssapi_with_ntlm_alone),
        cmocka_unit_test(gss_spnego_ends_with_the_last_token),
        cmocka_unit_test(gss_spnego_seals),
        cmocka_unit_test(a_layer_is_demanded_that_ntlm_has_not),
        cmocka_unit_test(wrong_password),
        cmocka_unit_test(out_of_turn),
        cmocka_unit_test(kerberos_first_without_keytab),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
