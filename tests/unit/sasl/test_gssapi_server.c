/* GSSAPI and GSS-SPNEGO, the server's side: whole conversations over a context that is a script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_gss.h"
#include "sasl/server.h"

enum { ALL = SASL_GSS_MUTUAL | SASL_GSS_INTEGRITY | SASL_GSS_CONFIDENTIALITY, TURNS = 6 };
enum { NONE = SASL_LAYER_BIT_NONE, INTEGRITY = SASL_LAYER_BIT_INTEGRITY, PRIVACY = SASL_LAYER_BIT_CONFIDENTIALITY };

static const struct fake_step at_once[] = { { .status = SASL_GSS_COMPLETE }, { .status = SASL_GSS_FAILED } };
static const struct fake_step with_reply[] = { { .status = SASL_GSS_COMPLETE, .token = "AP-REP" },
                                               { .status = SASL_GSS_FAILED } };
static const struct fake_step two_tokens[] = { { .status = SASL_GSS_CONTINUE, .token = "more" },
                                               { .want = "second", .status = SASL_GSS_COMPLETE, .token = "last" },
                                               { .status = SASL_GSS_FAILED } };
static const struct fake_step refused[] = { { .status = SASL_GSS_FAILED } };
static const struct fake_step endless[] = {
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE },
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE },
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE },
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE },
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE },
    { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_FAILED },
};

struct turn {
    struct str client, server; /* the challenge that comes back, but for the last turn */
};

struct row {
    const char *name;
    bool spnego, no_initial, binding_required, no_gss;
    const struct fake_step *steps;
    unsigned flags, layers;
    const char *peer; /* NULL: alice@CORP.TEST */
    struct turn turns[TURNS];
    enum sasl_cause cause;  /* NONE: it succeeds */
    enum sasl_layer_kind layer;
    uint32_t peer_max;
    const char *authzid;    /* NULL: the same as the peer */
    const char *inner;
};

#define WRAPPED(text) STR("I" text "padding")
#define KRB5 STR(TOKEN_KRB5)
#define OFFER_NONE WRAPPED("\1\0\0\0")
#define OFFER_ALL WRAPPED("\7\1\0\0")
#define CHOICE(text) WRAPPED(text)

static const struct row rows[] = {
    { .name = "curl: no mutual authentication, the offer at once", .steps = at_once, .flags = SASL_GSS_INTEGRITY,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0") } }, .inner = "krb5" },
    { .name = "no initial response", .no_initial = true, .steps = at_once, .flags = ALL,
      .turns = { { STR(""), STR("") }, { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0") } } },
    { .name = "a last token first", .steps = with_reply, .flags = ALL,
      .turns = { { KRB5, STR("AP-REP") }, { STR(""), OFFER_NONE }, { CHOICE("\1\0\0\0") } } },
    { .name = "SPNEGO inside", .steps = two_tokens, .flags = ALL, .inner = "spnego-krb5",
      .turns = { { STR(TOKEN_SPNEGO_KRB5), STR("more") }, { STR("second"), STR("last") }, { STR(""), OFFER_NONE },
                 { CHOICE("\1\0\0\0") } } },
    { .name = "an authorization identity", .steps = at_once, .flags = ALL, .authzid = "bob@corp.test",
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0bob@corp.test") } } },
    { .name = "a size without a layer means nothing", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\1\0\0") } } },
    { .name = "confidentiality", .steps = at_once, .flags = ALL, .layers = NONE | INTEGRITY | PRIVACY,
      .turns = { { KRB5, OFFER_ALL }, { CHOICE("\4\0\xff\xff") } }, .layer = SASL_LAYER_GSS_CONFIDENTIALITY,
      .peer_max = 65535 },
    { .name = "integrity", .steps = at_once, .flags = ALL, .layers = NONE | INTEGRITY | PRIVACY,
      .turns = { { KRB5, OFFER_ALL }, { CHOICE("\2\0\1\0") } }, .layer = SASL_LAYER_GSS_INTEGRITY, .peer_max = 256 },
    { .name = "only what the context can is offered", .steps = at_once, .flags = SASL_GSS_INTEGRITY,
      .layers = NONE | INTEGRITY | PRIVACY, .turns = { { KRB5, WRAPPED("\3\1\0\0") }, { CHOICE("\4\0\xff\xff") } },
      .cause = SASL_CAUSE_LAYER_NOT_OFFERED },
    { .name = "a layer is demanded", .steps = at_once, .flags = ALL, .layers = PRIVACY,
      .turns = { { KRB5, WRAPPED("\4\1\0\0") }, { CHOICE("\1\0\0\0") } }, .cause = SASL_CAUSE_LAYER_REQUIRED },
    { .name = "a layer is demanded, the context can none", .steps = at_once, .flags = SASL_GSS_INTEGRITY,
      .layers = PRIVACY, .turns = { { KRB5 } }, .cause = SASL_CAUSE_LAYER_REQUIRED },
    { .name = "two layers at once", .steps = at_once, .flags = ALL, .layers = NONE | INTEGRITY | PRIVACY,
      .turns = { { KRB5, OFFER_ALL }, { CHOICE("\6\0\xff\xff") } }, .cause = SASL_CAUSE_LAYER_NOT_OFFERED },
    { .name = "no layer chosen, not even none", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\0\0\0\0") } }, .cause = SASL_CAUSE_LAYER_NOT_OFFERED },
    { .name = "layer 128", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\x80\0\0\0") } }, .cause = SASL_CAUSE_LAYER_NOT_OFFERED },
    { .name = "a buffer without room", .steps = at_once, .flags = ALL, .layers = NONE | INTEGRITY | PRIVACY,
      .turns = { { KRB5, OFFER_ALL }, { CHOICE("\4\0\0\x3f") } }, .cause = SASL_CAUSE_LAYER_SIZE },
    { .name = "a layer without a buffer", .steps = at_once, .flags = ALL, .layers = NONE | INTEGRITY | PRIVACY,
      .turns = { { KRB5, OFFER_ALL }, { CHOICE("\2\0\0\0") } }, .cause = SASL_CAUSE_LAYER_SIZE },
    { .name = "a choice too short", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "an empty choice", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { STR("") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "a choice that is not wrapped", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { STR("\1\0\0\0") } }, .cause = SASL_CAUSE_GSS_FAILED },
    { .name = "a NUL behind the authorization identity", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0bob\0") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "a NUL alone", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0\0") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "an authorization identity that is not UTF-8", .steps = at_once, .flags = ALL,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0b\xff") } }, .cause = SASL_CAUSE_AUTHZID },
    { .name = "more than nothing after the last token", .steps = with_reply, .flags = ALL,
      .turns = { { KRB5, STR("AP-REP") }, { STR("x") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "the context refuses", .steps = refused, .turns = { { KRB5 } }, .cause = SASL_CAUSE_GSS_FAILED,
      .inner = "krb5" },
    { .name = "an empty second token", .steps = two_tokens,
      .turns = { { STR(TOKEN_SPNEGO_KRB5), STR("more") }, { STR("") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "channel bindings are there", .steps = at_once, .flags = ALL | SASL_GSS_BOUND, .binding_required = true,
      .turns = { { KRB5, OFFER_NONE }, { CHOICE("\1\0\0\0") } } },
    { .name = "channel bindings are missing", .steps = at_once, .flags = ALL, .binding_required = true,
      .turns = { { KRB5 } }, .cause = SASL_CAUSE_BINDINGS_MISSING },
    { .name = "anonymous", .steps = at_once, .flags = ALL, .peer = "", .turns = { { KRB5 } },
      .cause = SASL_CAUSE_ANONYMOUS },
    { .name = "the anonymous principal", .steps = at_once, .flags = ALL, .turns = { { KRB5 } },
      .peer = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS", .cause = SASL_CAUSE_ANONYMOUS },
    { .name = "a name for the log's confusion", .steps = at_once, .flags = ALL, .peer = "a\nb@C", .turns = { { KRB5 } },
      .cause = SASL_CAUSE_BAD_USER_NAME },
    { .name = "no keytab", .no_gss = true, .turns = { { KRB5 } }, .cause = SASL_CAUSE_NO_KERBEROS, .inner = "krb5" },
    { .name = "neither this nor that", .steps = at_once, .turns = { { STR("hello") } },
      .cause = SASL_CAUSE_UNKNOWN_TOKEN },
    { .name = "an empty initial response", .steps = at_once, .turns = { { STR("") } },
      .cause = SASL_CAUSE_UNKNOWN_TOKEN },
    { .name = "NTLM without framing, where it is off", .steps = at_once, .turns = { { STR("NTLMSSP\0\1\0\0\0") } },
      .cause = SASL_CAUSE_NTLM_NOT_ALLOWED, .inner = "ntlm" },
    { .name = "SPNEGO with NTLM alone, where it is off", .steps = at_once, .turns = { { STR(TOKEN_SPNEGO_NTLM) } },
      .cause = SASL_CAUSE_NTLM_NOT_ALLOWED, .inner = "spnego-ntlm" },

    { .name = "GSS-SPNEGO without layers", .spnego = true, .steps = with_reply, .flags = ALL,
      .turns = { { STR(TOKEN_SPNEGO_KRB5), STR("AP-REP") }, { STR("") } } },
    { .name = "GSS-SPNEGO at once", .spnego = true, .steps = at_once, .flags = ALL,
      .turns = { { STR(TOKEN_SPNEGO_KRB5) } } },
    { .name = "GSS-SPNEGO, libsasl, confidentiality", .spnego = true, .steps = with_reply, .flags = ALL,
      .layers = NONE | INTEGRITY | PRIVACY, .turns = { { STR(TOKEN_SPNEGO_KRB5), STR("AP-REP") }, { STR("") } },
      .layer = SASL_LAYER_GSS_CONFIDENTIALITY },
    { .name = "GSS-SPNEGO, integrity", .spnego = true, .steps = at_once, .flags = SASL_GSS_INTEGRITY,
      .layers = NONE | INTEGRITY | PRIVACY, .turns = { { STR(TOKEN_SPNEGO_KRB5) } }, .layer = SASL_LAYER_GSS_INTEGRITY },
    { .name = "GSS-SPNEGO, the client asks for no layer", .spnego = true, .steps = at_once, .flags = SASL_GSS_MUTUAL,
      .layers = NONE | INTEGRITY | PRIVACY, .turns = { { STR(TOKEN_SPNEGO_KRB5) } } },
    { .name = "GSS-SPNEGO, a layer is demanded", .spnego = true, .steps = at_once, .flags = SASL_GSS_INTEGRITY,
      .layers = PRIVACY, .turns = { { STR(TOKEN_SPNEGO_KRB5) } }, .cause = SASL_CAUSE_LAYER_REQUIRED },
    { .name = "GSS-SPNEGO knows no choice", .spnego = true, .steps = with_reply, .flags = ALL,
      .turns = { { STR(TOKEN_SPNEGO_KRB5), STR("AP-REP") }, { CHOICE("\1\0\0\0") } }, .cause = SASL_CAUSE_MALFORMED },
    { .name = "GSS-SPNEGO, channel bindings are missing", .spnego = true, .steps = at_once, .flags = ALL,
      .binding_required = true, .turns = { { STR(TOKEN_SPNEGO_KRB5) } }, .cause = SASL_CAUSE_BINDINGS_MISSING },
};

static void assert_str(struct str got, struct str want)
{
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.n ? got.p : "", want.n ? want.p : "", want.n);
}

static void check_end(const struct row *row, enum sasl_action action, const struct sasl_step *step)
{
    const char *peer = row->peer ? row->peer : "alice@CORP.TEST";
    assert_int_equal(action, row->cause ? SASL_FAILED : SASL_DONE);
    assert_int_equal(step->cause, row->cause);
    if (row->inner)
        assert_string_equal(step->inner, row->inner);
    if (row->cause)
        return;
    assert_str(step->authcid, str_of(peer));
    assert_str(step->authzid, str_of(row->authzid ? row->authzid : peer));
    assert_int_equal(step->layer.kind, row->layer);
    assert_int_equal(step->layer.peer_max_bytes, row->peer_max);
    assert_int_equal(step->gss_flags, row->flags);
}

static void play(const struct row *row)
{
    struct fake_gss fake = { .steps = row->steps, .flag_bits = row->flags,
                             .name = str_of(row->peer ? row->peer : "alice@CORP.TEST") };
    struct sasl_gss gss = fake_table(&fake);
    struct sasl_server_options options = { .nonce = STR("abcdefgh"), .gss = row->no_gss ? NULL : &gss,
        .layers_offered = row->layers, .binding_required = row->binding_required };
    struct sasl_server *server = sasl_server_new(sasl_mechanism_find(row->spnego ? STR("GSS-SPNEGO") : STR("GSSAPI")),
                                                 &options);
    assert_non_null(server);
    size_t n = TURNS;
    while (n > 1 && !row->turns[n - 1].client.p)
        n--;
    for (size_t i = 0; i < n; i++) {
        struct sasl_step step;
        enum sasl_action action = sasl_server_step(server, i > 0 || !row->no_initial, row->turns[i].client, &step);
        if (i + 1 == n) {
            check_end(row, action, &step);
            break;
        }
        assert_int_equal(action, SASL_CHALLENGE);
        assert_str(step.challenge, row->turns[i].server);
    }
    struct sasl_step after;
    assert_int_equal(sasl_server_step(server, true, STR("x"), &after), SASL_FAILED);
    assert_int_equal(after.cause, SASL_CAUSE_INTERNAL);
    sasl_server_free(&server);
}

static void conversations(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        print_message("%s\n", rows[i].name);
        play(&rows[i]);
    }
}

static struct sasl_server *begin_with(struct fake_gss *fake, struct sasl_gss *gss)
{
    *gss = fake_table(fake);
    struct sasl_server_options options = { .gss = gss };
    struct sasl_server *server = sasl_server_new(sasl_mechanism_find(STR("GSSAPI")), &options);
    assert_non_null(server);
    return server;
}

static void steps_are_bounded(void **state)
{
    struct fake_gss fake = { .steps = endless };
    struct sasl_gss gss;
    struct sasl_step step;
    struct sasl_server *server = begin_with(&fake, &gss);
    unsigned n = 0;
    while (sasl_server_step(server, true, KRB5, &step) == SASL_CHALLENGE)
        assert_true(++n < 32);
    assert_int_equal(step.cause, SASL_CAUSE_MALFORMED);
    sasl_server_free(&server);
}

static void long_authzid_and_long_token(void **state)
{
    static char text[SASL_MESSAGE_MAX + 1];
    struct fake_gss fake = { .steps = at_once, .flag_bits = ALL, .name = STR("alice@CORP.TEST") };
    struct sasl_gss gss;
    struct sasl_step step;
    memset(text, 'x', sizeof text);
    memcpy(text, "I\1\0\0\0", 5);
    for (size_t more = 0; more < 2; more++) {
        size_t n = 5 + SASL_PRINCIPAL_MAX + more + 7;
        struct sasl_server *server = begin_with(&fake, &gss);
        fake.at = 0;
        assert_int_equal(sasl_server_step(server, true, KRB5, &step), SASL_CHALLENGE);
        memcpy(text + n - 7, "padding", 7);
        assert_int_equal(sasl_server_step(server, true, str_slice(text, n), &step), more ? SASL_FAILED : SASL_DONE);
        assert_int_equal(step.cause, more ? SASL_CAUSE_TOO_LONG : SASL_CAUSE_NONE);
        memset(text + n - 7, 'x', 7);
        sasl_server_free(&server);
    }
    struct sasl_server *server = begin_with(&fake, &gss);
    assert_int_equal(sasl_server_step(server, true, str_slice(text, sizeof text), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_TOO_LONG);
    sasl_server_free(&server);
}

static void nothing_can_be_wrapped(void **state)
{
    struct fake_gss fake = { .steps = at_once, .flag_bits = ALL, .name = STR("alice@CORP.TEST"), .cannot_wrap = true };
    struct sasl_gss gss;
    struct sasl_step step;
    struct sasl_server *server = begin_with(&fake, &gss);
    assert_int_equal(sasl_server_step(server, true, KRB5, &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_INTERNAL);
    assert_str(step.authcid, STR("alice@CORP.TEST"));
    struct buf out;
    buf_init(&out, 64);
    assert_false(sasl_server_layer_state(server, &out));
    sasl_server_free(&server);
}

static void questions_out_of_turn(void **state)
{
    struct fake_gss fake = { .steps = at_once, .flag_bits = ALL, .name = STR("alice@CORP.TEST") };
    struct sasl_gss gss;
    struct sasl_step step;
    struct sasl_server *server = begin_with(&fake, &gss);
    assert_int_equal(sasl_server_ntlm(server, SASL_RIGHT, NULL, STR("A\\b"), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_INTERNAL);
    sasl_server_free(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations),
        cmocka_unit_test(steps_are_bounded),
        cmocka_unit_test(long_authzid_and_long_token),
        cmocka_unit_test(nothing_can_be_wrapped),
        cmocka_unit_test(questions_out_of_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
