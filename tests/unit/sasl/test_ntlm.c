/* NTLM: the two machines against each other, and against what real and hostile peers send. */
#include "ntlm_pair.h"

#include "sasl/client.h"
#include "sasl/ntlm_text.h"
#include "sasl/server.h"

static void assert_text(struct str got, const char *want)
{
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.n ? got.p : "", want, got.n);
}

static void both_sides_agree(void **state)
{
    struct pair p;
    pair_prepare(&p);
    p.server_options.binding.cert_hash = p.client_options.binding.cert_hash = CERT_HASH;
    p.server_options.binding_required = true;
    assert_int_equal(pair_run(&p), NTLM_CAUSE_NONE);
    const struct ntlm_proof *proof = ntlm_server_proof(&p.server);
    assert_text(proof->user, "alice");
    assert_text(proof->domain, "CORP");
    assert_text(proof->workstation, "STATION");
    assert_text(proof->target, "SMTPSVC/mail.corp.test");
    assert_true(proof->has_mic && proof->has_binding);
    assert_int_equal(proof->version, 2);
    assert_memory_equal(p.server.exported_key, p.client.exported_key, NTLM_HASH_BYTES);
    assert_false(ntlm_client_seals(&p.client));
    assert_false(ntlm_server_flags(&p.server) & NTLM_SEAL);
    pair_end(&p);
}

static void each_cause_is_its_own(void **state)
{
    static const struct {
        const char *user, *password, *target, *server_hash, *client_hash;
        bool required;
        enum ntlm_cause want;
    } cases[] = {
        { "alice@corp.test", "Passw0rd.alice", "smtp/MAIL", "", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "", "", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "smtp/relay.corp.test:25", "", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "SmtpSvc/Mail.Corp.Test./corp.test", "", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "cifs/MAIL", "", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "127.0.0.1", "h", "h", false, NTLM_CAUSE_NONE },
        { "alice", "passw0rd.alice", "", "", "", false, NTLM_CAUSE_WRONG },
        { "alice", "Passw0rd.alice", "HTTP/mail.corp.test", "", "", false, NTLM_CAUSE_TARGET },
        { "alice", "Passw0rd.alice", "SMTPSVC/other.corp.test", "", "", false, NTLM_CAUSE_TARGET },
        { "alice", "Passw0rd.alice", "SMTPSVC/", "", "", false, NTLM_CAUSE_TARGET },
        { "alice", "Passw0rd.alice", "SMTPSVC/mail.corp.test", "h", "", false, NTLM_CAUSE_NONE },
        { "alice", "Passw0rd.alice", "SMTPSVC/mail.corp.test", "h", "", true, NTLM_CAUSE_BINDING_MISSING },
        { "alice", "Passw0rd.alice", "SMTPSVC/mail.corp.test", "", "", true, NTLM_CAUSE_BINDING_MISSING },
        { "alice", "Passw0rd.alice", "SMTPSVC/mail.corp.test", "h", "i", false, NTLM_CAUSE_BINDING_MISMATCH },
        { "alice", "Passw0rd.alice", "SMTPSVC/mail.corp.test", "", "h", false, NTLM_CAUSE_BINDING_MISMATCH },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p;
        pair_prepare(&p);
        p.client_options.user = str_of(cases[i].user);
        p.client_options.password = str_of(cases[i].password);
        p.client_setup.target = str_of(cases[i].target);
        p.server_options.binding.cert_hash = str_of(cases[i].server_hash);
        p.client_options.binding.cert_hash = str_of(cases[i].client_hash);
        p.server_options.binding_required = cases[i].required;
        enum ntlm_cause got = pair_run(&p);
        if (got != cases[i].want)
            print_error("case %zu: %d, not %d\n", i, (int)got, (int)cases[i].want);
        assert_int_equal(got, cases[i].want);
        pair_end(&p);
    }
}

/* A changed octet anywhere in the first two messages, or in the MIC, is noticed by the MIC. */
static void somebody_in_between_is_noticed(void **state)
{
    for (int change = 0; change < 3; change++) {
        struct pair p;
        struct str token, response;
        char copy[2048];
        pair_prepare(&p);
        pair_begin(&p);
        struct str negotiate = ntlm_client_first(&p.client);
        memcpy(copy, negotiate.p, negotiate.n);
        if (change == 0)
            copy[16] = 1; /* the length of a domain that nobody needs */
        assert_int_equal(ntlm_server_step(&p.server, str_slice(copy, negotiate.n), &token), NTLM_CHALLENGE);
        memcpy(copy, token.p, token.n);
        if (change == 1)
            copy[48] ^= 1; /* Version */
        assert_int_equal(ntlm_client_step(&p.client, str_slice(copy, token.n), &response, NULL), 0);
        memcpy(copy, response.p, response.n);
        if (change == 2)
            copy[NTLM_MIC_AT] ^= 1;
        assert_int_equal(ntlm_server_step(&p.server, str_slice(copy, response.n), &token), NTLM_CHECK);
        assert_int_equal(pair_verify(&p), NTLM_FAILED);
        assert_int_equal(ntlm_server_cause(&p.server), NTLM_CAUSE_MIC);
        pair_end(&p);
    }
}

static void verdicts_become_causes(void **state)
{
    static const struct {
        enum ntlm_verdict verdict;
        enum ntlm_cause want;
    } cases[] = { { NTLM_WRONG, NTLM_CAUSE_WRONG }, { NTLM_UNKNOWN_USER, NTLM_CAUSE_UNKNOWN_USER },
                  { NTLM_CANNOT_TELL, NTLM_CAUSE_TEMPORARY }, { NTLM_RIGHT, NTLM_CAUSE_MIC } };
    for (size_t i = 0; i < 4; i++) {
        struct pair p;
        pair_prepare(&p);
        pair_begin(&p);
        assert_int_equal(pair_talk(&p), NTLM_CHECK);
        assert_int_equal(ntlm_server_verified(&p.server, cases[i].verdict, NULL), NTLM_FAILED);
        assert_int_equal(ntlm_server_cause(&p.server), cases[i].want);
        assert_int_equal(ntlm_server_verified(&p.server, NTLM_RIGHT, NULL), NTLM_FAILED);
        pair_end(&p);
    }
}

/* NEGOTIATE as curl and swaks send it (32 octets, OEM, empty names at 0), and shorter and longer ones. */
static void short_first_messages_are_taken(void **state)
{
    static const struct str messages[] = {
        { "NTLMSSP\0\1\0\0\0\x06\x82\x08\0" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0", 32 },
        { "NTLMSSP\0\1\0\0\0\x07\x82\x08\xa2", 16 },
        { "NTLMSSP\0\1\0\0\0\x07\xb2\x08\xa2" "\x04\0\x04\0\x20\0\0\0" "\0\0\0\0\0\0\0\0" "CORP", 36 },
        { "NTLMSSP\0\1\0\0\0\x07\xb2\x08\xa2" "\x04\0\x04\0\xff\xff\0\0" "\x01\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0", 40 },
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct pair p;
        struct str token;
        struct ntlm_challenge challenge;
        struct ntlm_avs avs;
        pair_prepare(&p);
        pair_begin(&p);
        assert_int_equal(ntlm_server_step(&p.server, STR_NONE, &token), NTLM_CHALLENGE);
        assert_int_equal(token.n, 0);
        assert_int_equal(ntlm_server_step(&p.server, messages[i], &token), NTLM_CHALLENGE);
        assert_true(ntlm_message_read_challenge(token, &challenge));
        assert_int_equal(challenge.flags & NTLM_UNICODE, i == 0 ? 0 : NTLM_UNICODE);
        assert_true(str_eq(challenge.target_name, i == 0 ? STR("CORP") : STR("C\0O\0R\0P\0")));
        assert_true(ntlm_message_read_avs(challenge.target_info, &avs));
        for (enum ntlm_av id = NTLM_AV_NETBIOS_COMPUTER; id <= NTLM_AV_DNS_DOMAIN; id++)
            assert_true(avs.has[id]);
        assert_int_equal(avs.value[NTLM_AV_TIMESTAMP].n, 8);
        assert_false(avs.has[NTLM_AV_FLAGS]);
        pair_end(&p);
    }
}

/* AUTHENTICATE as a client of old builds it: a header of 64 octets, OEM names, responses given. */
static struct str old_authenticate(struct buf *out, uint32_t flags, struct str lm, struct str nt, struct str user)
{
    struct str parts[] = { lm, nt, STR("CORP"), user, STR("OLD"), STR_NONE };
    size_t at = 64;
    buf_init(out, 4096);
    buf_add(out, STR("NTLMSSP\0\3\0\0\0"));
    for (size_t i = 0; i < 6; i++) {
        const char field[] = { (char)parts[i].n, 0, (char)parts[i].n, 0, (char)at, (char)(at >> 8), 0, 0 };
        buf_add(out, str_slice(field, 8));
        at += parts[i].n;
    }
    for (unsigned i = 0; i < 32; i += 8)
        buf_add_char(out, (char)(flags >> i));
    for (size_t i = 0; i < 6; i++)
        buf_add(out, parts[i]);
    return buf_str(out);
}

/* One exchange whose second message is `old_authenticate`; the NT hash's answer to version 1 goes in when `nt` is empty. */
static enum ntlm_cause run_old(bool allow_v1, uint32_t flags, bool with_nt, const char *user)
{
    struct pair p;
    struct str token;
    struct buf message;
    unsigned char nt[24], mixed[16], lm[24] = { 0 };
    pair_prepare(&p);
    p.server_setup.allow_v1 = allow_v1;
    pair_begin(&p);
    struct buf first;
    buf_init(&first, 100);
    ntlm_message_write_negotiate(&first, flags);
    assert_int_equal(ntlm_server_step(&p.server, buf_str(&first), &token), NTLM_CHALLENGE);
    buf_done(&first);
    memcpy(lm, "clientno", 8);
    if (flags & NTLM_ESS) {
        unsigned char both[16];
        memcpy(both, p.server_setup.challenge, 8);
        memcpy(both + 8, lm, 8);
        assert_true(ntlm_crypto_md5(str_slice(both, 16), mixed));
    } else {
        memcpy(mixed, p.server_setup.challenge, 8);
    }
    assert_true(ntlm_crypto_response1(p.nt_hash, str_slice(mixed, 8), nt));
    struct str third = old_authenticate(&message, flags, str_slice(lm, 24), with_nt ? str_slice(nt, 24) : STR_NONE, str_of(user));
    enum ntlm_action action = ntlm_server_step(&p.server, third, &token);
    if (action == NTLM_CHECK)
        action = pair_verify(&p);
    enum ntlm_cause cause = ntlm_server_cause(&p.server);
    assert_int_equal(action, cause == NTLM_CAUSE_NONE ? NTLM_DONE : NTLM_FAILED);
    if (cause == NTLM_CAUSE_NONE)
        assert_int_equal(ntlm_server_proof(&p.server)->version, 1);
    buf_done(&message);
    pair_end(&p);
    return cause;
}

static void version_1_only_where_it_is_allowed(void **state)
{
    const uint32_t oem = NTLM_OEM | NTLM_NTLM;
    assert_int_equal(run_old(false, oem, true, "alice"), NTLM_CAUSE_V1);
    assert_int_equal(run_old(false, oem | NTLM_ESS, true, "alice"), NTLM_CAUSE_V1);
    assert_int_equal(run_old(true, oem, true, "alice"), NTLM_CAUSE_NONE);
    assert_int_equal(run_old(true, oem | NTLM_ESS, true, "alice"), NTLM_CAUSE_NONE);
    assert_int_equal(run_old(true, oem, false, "alice"), NTLM_CAUSE_V1); /* LM alone never */
    assert_int_equal(run_old(true, oem, true, ""), NTLM_CAUSE_ANONYMOUS);
    assert_int_equal(run_old(true, oem | NTLM_ANONYMOUS, true, "alice"), NTLM_CAUSE_ANONYMOUS);
    assert_int_equal(run_old(true, oem, true, "al\x01ice"), NTLM_CAUSE_MALFORMED);
}

static void layers_carry_text_both_ways(void **state)
{
    struct pair p;
    struct ntlm_seal server, client, moved, refused;
    struct buf token, plain, octets;
    pair_prepare(&p);
    p.client_options.want_seal = p.server_options.offer_seal = true;
    assert_int_equal(pair_run(&p), NTLM_CAUSE_NONE);
    assert_true(ntlm_client_seals(&p.client));
    assert_true(ntlm_server_seal(&p.server, &server));
    assert_true(ntlm_client_seal(&p.client, &client));
    buf_init(&token, 10000);
    buf_init(&plain, 10000);
    buf_init(&octets, NTLM_SEAL_EXPORT_MAX);
    assert_true(ntlm_seal_export(&server, &octets));
    assert_true(ntlm_seal_import(buf_str(&octets), &moved));
    struct sasl_layer_ops to = ntlm_seal_layer_ops(&client), from = ntlm_seal_layer_ops(&moved);
    for (size_t i = 0; i < 20; i++) {
        bool confidential = false;
        struct str text = str_slice("MAIL FROM:<alice@corp.test>\r\n", i);
        struct sasl_layer_ops *a = i % 2 ? &to : &from, *b = i % 2 ? &from : &to;
        buf_clear(&token);
        buf_clear(&plain);
        assert_true(a->wrap(a->context, true, text, &token));
        assert_int_equal(a->plain_max(a->context, true, (uint32_t)token.n), i);
        assert_true(b->unwrap(b->context, buf_str(&token), &plain, &confidential));
        assert_true(confidential && str_eq(buf_str(&plain), text));
    }
    assert_false(ntlm_seal_export(&moved, &octets)); /* too late */
    buf_clear(&token);
    assert_true(ntlm_seal_wrap(&client, true, STR("DATA"), &token));
    token.p[18] ^= 1;
    assert_false(ntlm_seal_unwrap(&moved, true, buf_str(&token), &plain));
    token.p[18] ^= 1;
    assert_false(ntlm_seal_unwrap(&moved, true, buf_str(&token), &plain)); /* it stays broken */
    for (size_t n = 0; n < octets.n; n++)
        assert_false(ntlm_seal_import((struct str){ octets.p, n }, &refused));
    ntlm_seal_done(&server);
    ntlm_seal_done(&client);
    ntlm_seal_done(&moved);
    buf_done(&token);
    buf_done(&plain);
    buf_done(&octets);
    pair_end(&p);
}

static void sealing_needs_both_sides(void **state)
{
    struct pair p;
    struct str token, response;
    struct err err;
    pair_prepare(&p);
    p.client_options.want_seal = true;
    pair_begin(&p);
    assert_int_equal(ntlm_server_step(&p.server, ntlm_client_first(&p.client), &token), NTLM_CHALLENGE);
    assert_int_equal(ntlm_client_step(&p.client, token, &response, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "sealing"));
    pair_end(&p);
    p.client_options.want_seal = false;
    p.server_options.offer_seal = true;
    assert_int_equal(pair_run(&p), NTLM_CAUSE_NONE);
    assert_false(ntlm_server_flags(&p.server) & NTLM_SEAL);
    pair_end(&p);
}

/* Every prefix and every flipped octet of each message: an answer, never a crash, and never a login. */
static void damaged_messages_never_log_in(void **state)
{
    for (int which = 0; which < 2; which++) {
        for (size_t at = 0;; at++) {
            struct pair p;
            struct str token, sent;
            char copy[2048];
            pair_prepare(&p);
            pair_begin(&p);
            sent = ntlm_client_first(&p.client);
            if (which == 1) {
                assert_int_equal(ntlm_server_step(&p.server, sent, &token), NTLM_CHALLENGE);
                assert_int_equal(ntlm_client_step(&p.client, token, &sent, NULL), 0);
            }
            bool more = at < sent.n;
            if (more) {
                memcpy(copy, sent.p, sent.n);
                enum ntlm_action action = ntlm_server_step(&p.server, str_slice(copy, at), &token);
                if (which == 1)
                    assert_int_equal(action, NTLM_FAILED);
                pair_end(&p);
                pair_begin(&p);
                if (which == 1) {
                    assert_int_equal(ntlm_server_step(&p.server, ntlm_client_first(&p.client), &token), NTLM_CHALLENGE);
                    assert_int_equal(ntlm_client_step(&p.client, token, &sent, NULL), 0);
                    memcpy(copy, sent.p, sent.n);
                    copy[at] ^= 0x40;
                    if (ntlm_server_step(&p.server, str_slice(copy, sent.n), &token) == NTLM_CHECK)
                        assert_int_equal(pair_verify(&p), NTLM_FAILED);
                }
            }
            pair_end(&p);
            if (!more)
                break;
        }
    }
}

static void the_client_refuses_bad_challenges(void **state)
{
    static const struct {
        struct str challenge;
        const char *say;
    } cases[] = {
        { { "", 0 }, "malformed" },
        { { "ntlm supported", 14 }, "malformed" },
        { { "NTLMSSP\0\2\0\0\0" "\0\0\0\0\x38\0\0\0" "\x01\x82\0\0" "12345678" "\0\0\0\0\0\0\0\0", 40 }, "NTLMv1" },
        { { "NTLMSSP\0\2\0\0\0" "\0\0\0\0\x38\0\0\0" "\x01\x82\x80\0" "12345678" "\0\0\0\0\0\0\0\0" "\x08\0\x08\0\x40\0\0\0", 48 },
          "malformed" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p;
        struct err err = { 0 };
        struct str response;
        pair_prepare(&p);
        pair_begin(&p);
        assert_int_equal(ntlm_client_step(&p.client, cases[i].challenge, &response, &err), ERR_AUTH);
        assert_non_null(strstr(err.text, cases[i].say));
        pair_end(&p);
    }
}

static void names_in_all_letters(void **state)
{
    static const struct {
        const char *text, *upper;
    } cases[] = { { "zoë", "ZOË" }, { "straße", "STRAßE" }, { "жанна", "ЖАННА" }, { "ωμέγα", "ΩΜΈΓΑ" }, { "ÿŷž", "ŸŶŽ" },
                  { "a😀b", "A😀B" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf wide;
        char text[64];
        struct str got;
        buf_init(&wide, 1000);
        assert_true(ntlm_text_encode(str_of(cases[i].text), &wide));
        assert_true(ntlm_text_decode(buf_str(&wide), true, text, sizeof text, &got));
        assert_string_equal(text, cases[i].text);
        buf_clear(&wide);
        assert_true(ntlm_text_encode_upper(str_of(cases[i].text), &wide));
        assert_true(ntlm_text_decode(buf_str(&wide), true, text, sizeof text, &got));
        assert_string_equal(text, cases[i].upper);
        assert_false(ntlm_text_decode(buf_str(&wide), true, text, 4, &got)); /* no room */
        assert_string_equal(text, "");
        buf_done(&wide);
    }
    static const char *const bad[] = { "\xff", "\xc0\x80", "\xed\xa0\x80", "a\xe2\x82", "\xf5\x80\x80\x80" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf wide;
        buf_init(&wide, 100);
        assert_false(ntlm_text_encode(str_of(bad[i]), &wide));
        buf_done(&wide);
    }
    static const struct str bad_wide[] = { { "a", 1 }, { "\0\xd8", 2 }, { "\0\xdc", 2 }, { "\0\xd8z\0", 4 }, { "\0\0", 2 },
                                           { "\n\0", 2 } };
    for (size_t i = 0; i < sizeof bad_wide / sizeof bad_wide[0]; i++) {
        char text[64];
        struct str got;
        assert_false(ntlm_text_decode(bad_wide[i], true, text, sizeof text, &got));
    }
}

/* Through the room's tables, as auth and the outbound client use it. */
static void as_a_mechanism(void **state)
{
    struct pair p;
    struct sasl_step step;
    struct str response;
    struct buf ours, theirs;
    unsigned char key[NTLM_HASH_BYTES];
    pair_prepare(&p);
    const struct sasl_mechanism *mechanism = sasl_mechanism_find(STR("ntlm"));
    struct sasl_server_options so = { .ntlm = &p.server_setup,
                                      .layers_offered = SASL_LAYER_BIT_NONE | SASL_LAYER_BIT_CONFIDENTIALITY };
    struct sasl_client_options co = { .user = STR("CORP\\alice"), .password = STR("Passw0rd.alice"), .ntlm = &p.client_setup,
                                      .seal = true };
    struct sasl_server *server = sasl_server_new(mechanism, &so);
    struct sasl_client *client;
    assert_int_equal(sasl_client_new(mechanism, &co, &client, NULL), 0);
    assert_false(sasl_client_first(client, &response));
    assert_int_equal(sasl_server_step(server, false, STR_NONE, &step), SASL_CHALLENGE);
    assert_int_equal(sasl_client_step(client, STR("ntlm supported"), &response, NULL), 0);
    assert_int_equal(sasl_server_step(server, true, response, &step), SASL_CHALLENGE);
    assert_int_equal(sasl_client_step(client, step.challenge, &response, NULL), 0);
    assert_true(sasl_client_complete(client));
    assert_int_equal(sasl_server_step(server, true, response, &step), SASL_CHECK_NTLM);
    assert_text(step.authcid, "CORP\\alice");
    assert_string_equal(step.inner, "ntlm");
    assert_int_equal(ntlm_crypto_check(step.ntlm, p.nt_hash, key, NULL), 1);
    assert_int_equal(sasl_server_ntlm(server, SASL_RIGHT, key, STR("CORP\\Alice"), &step), SASL_DONE);
    assert_text(step.authcid, "CORP\\Alice");
    assert_int_equal(step.layer.kind, SASL_LAYER_NTLM_SEAL);
    assert_int_equal(sasl_client_layer(client).kind, SASL_LAYER_NTLM_SEAL);
    buf_init(&ours, NTLM_SEAL_EXPORT_MAX);
    buf_init(&theirs, NTLM_SEAL_EXPORT_MAX);
    assert_true(sasl_server_layer_state(server, &ours));
    assert_true(sasl_client_layer_state(client, &theirs));
    assert_int_equal(ours.n, theirs.n);
    buf_wipe(&ours);
    buf_wipe(&theirs);
    struct ntlm_seal server_seal, client_seal;
    struct buf token;
    buf_init(&token, 100);
    assert_true(sasl_server_ntlm_seal(server, &server_seal));
    assert_true(sasl_client_ntlm_seal(client, &client_seal));
    assert_true(ntlm_seal_layer_ops(&client_seal).confidential);
    assert_true(ntlm_seal_wrap(&client_seal, true, STR("NOOP"), &token));
    assert_true(ntlm_seal_unwrap(&server_seal, true, buf_str(&token), &ours));
    assert_true(str_eq(buf_str(&ours), STR("NOOP")));
    ntlm_seal_done(&server_seal);
    ntlm_seal_done(&client_seal);
    buf_done(&token);
    buf_done(&ours);
    sasl_client_free(&client);
    sasl_server_free(&server);

    so.layers_offered = SASL_LAYER_BIT_CONFIDENTIALITY; /* demanded, and the client asks for none */
    co.seal = false;
    server = sasl_server_new(mechanism, &so);
    assert_int_equal(sasl_client_new(mechanism, &co, &client, NULL), 0);
    assert_int_equal(sasl_client_step(client, STR_NONE, &response, NULL), 0);
    assert_int_equal(sasl_server_step(server, true, response, &step), SASL_CHALLENGE);
    assert_int_equal(sasl_client_step(client, step.challenge, &response, NULL), 0);
    assert_int_equal(sasl_server_step(server, true, response, &step), SASL_CHECK_NTLM);
    assert_int_equal(ntlm_crypto_check(step.ntlm, p.nt_hash, key, NULL), 1);
    assert_int_equal(sasl_server_ntlm(server, SASL_RIGHT, key, STR_NONE, &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_LAYER_REQUIRED);
    assert_false(sasl_server_ntlm_seal(server, &server_seal));
    sasl_client_free(&client);
    sasl_server_free(&server);
    so.ntlm = NULL;
    assert_null(sasl_server_new(mechanism, &so));
    co.ntlm = NULL;
    assert_int_equal(sasl_client_new(mechanism, &co, &client, NULL), ERR_AUTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_agree), cmocka_unit_test(each_cause_is_its_own),
        cmocka_unit_test(somebody_in_between_is_noticed), cmocka_unit_test(verdicts_become_causes),
        cmocka_unit_test(short_first_messages_are_taken), cmocka_unit_test(version_1_only_where_it_is_allowed),
        cmocka_unit_test(layers_carry_text_both_ways), cmocka_unit_test(sealing_needs_both_sides),
        cmocka_unit_test(damaged_messages_never_log_in), cmocka_unit_test(the_client_refuses_bad_challenges),
        cmocka_unit_test(names_in_all_letters), cmocka_unit_test(as_a_mechanism),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
