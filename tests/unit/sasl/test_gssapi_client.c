/* GSSAPI and GSS-SPNEGO, the client's side: whole conversations over a context that is a script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_gss.h"
#include "sasl/client.h"

enum { ALL = SASL_GSS_MUTUAL | SASL_GSS_INTEGRITY | SASL_GSS_CONFIDENTIALITY, TURNS = 5 };

static const struct fake_step one_way[] = { { .status = SASL_GSS_COMPLETE, .token = "AP-REQ" },
                                            { .status = SASL_GSS_FAILED } };
static const struct fake_step both_ways[] = { { .status = SASL_GSS_CONTINUE, .token = "AP-REQ" },
                                              { .want = "AP-REP", .status = SASL_GSS_COMPLETE },
                                              { .status = SASL_GSS_FAILED } };
static const struct fake_step no_ticket[] = { { .status = SASL_GSS_FAILED } };
static const struct fake_step nothing_first[] = { { .status = SASL_GSS_CONTINUE }, { .status = SASL_GSS_FAILED } };

struct turn {
    struct str server, client;
};

struct row {
    const char *name;
    bool spnego, seal, mutual, no_gss;
    const struct fake_step *steps;
    unsigned flags;
    const char *authzid;
    struct turn turns[TURNS];  /* after the first token */
    const char *new_error;     /* sasl_client_new() fails */
    const char *error;         /* the last turn fails */
    enum sasl_layer_kind layer;
    uint32_t peer_max;
};

#define WRAPPED(text) STR("I" text "padding")

static const struct row rows[] = {
    { .name = "no mutual authentication", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\1\0\0\0"), WRAPPED("\1\0\0\0") } } },
    { .name = "mutual authentication", .steps = both_ways, .flags = ALL, .mutual = true,
      .turns = { { STR("AP-REP"), STR("") }, { WRAPPED("\1\0\0\0"), WRAPPED("\1\0\0\0") } } },
    { .name = "Exchange: a size without a layer", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\1\0\xbb\x80"), WRAPPED("\1\0\0\0") } } },
    { .name = "an authorization identity", .steps = one_way, .flags = ALL, .authzid = "bob",
      .turns = { { WRAPPED("\7\0\xff\xff"), WRAPPED("\1\0\0\0bob") } } },
    { .name = "seal", .steps = both_ways, .flags = ALL, .seal = true, .mutual = true,
      .turns = { { STR("AP-REP"), STR("") }, { WRAPPED("\7\0\xff\xff"), WRAPPED("\4\1\0\0") } },
      .layer = SASL_LAYER_GSS_CONFIDENTIALITY, .peer_max = 65535 },
    { .name = "an empty challenge before the success", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\1\0\0\0"), WRAPPED("\1\0\0\0") }, { STR(""), STR("") } } },
    { .name = "seal, and the server cannot", .steps = one_way, .flags = ALL, .seal = true,
      .turns = { { WRAPPED("\1\0\0\0") } }, .error = "offers no encrypting layer" },
    { .name = "seal, and the server only signs", .steps = one_way, .flags = ALL, .seal = true,
      .turns = { { WRAPPED("\3\0\xff\xff") } }, .error = "only integrity" },
    { .name = "seal, and the server's buffer is too small", .steps = one_way, .flags = ALL, .seal = true,
      .turns = { { WRAPPED("\4\0\0\x3f") } }, .error = "63 octets" },
    { .name = "seal, and the context cannot", .steps = one_way, .flags = SASL_GSS_INTEGRITY, .seal = true,
      .new_error = "cannot encrypt" },
    { .name = "the server demands a layer", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\6\0\xff\xff") } }, .error = "demands a security layer" },
    { .name = "an offer too long", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\1\0\0\0\0") } }, .error = "5 octets" },
    { .name = "an offer that is not wrapped", .steps = one_way, .flags = ALL,
      .turns = { { STR("\1\0\0\0") } }, .error = "does not unwrap" },
    { .name = "no offer", .steps = one_way, .flags = ALL, .turns = { { STR("") } }, .error = "does not unwrap" },
    { .name = "asked again after the end", .steps = one_way, .flags = ALL,
      .turns = { { WRAPPED("\1\0\0\0"), WRAPPED("\1\0\0\0") }, { STR("x") } }, .error = "goes on asking" },
    { .name = "the server has not proven itself", .steps = both_ways, .flags = SASL_GSS_INTEGRITY, .mutual = true,
      .turns = { { STR("AP-REP") } }, .error = "has not proven" },
    { .name = "a wrong answer", .steps = both_ways, .flags = ALL, .mutual = true,
      .turns = { { STR("KRB-ERROR") } }, .error = "could not be established" },
    { .name = "no ticket", .steps = no_ticket, .new_error = "could not be established" },
    { .name = "no first token", .steps = nothing_first, .new_error = "no first token" },
    { .name = "no credentials", .no_gss = true, .new_error = "no Kerberos credentials" },

    { .name = "GSS-SPNEGO", .spnego = true, .steps = both_ways, .flags = SASL_GSS_MUTUAL, .mutual = true,
      .turns = { { STR("AP-REP"), STR("") } } },
    { .name = "GSS-SPNEGO, seal", .spnego = true, .steps = both_ways, .flags = ALL, .seal = true,
      .turns = { { STR("AP-REP"), STR("") } }, .layer = SASL_LAYER_GSS_CONFIDENTIALITY },
    { .name = "GSS-SPNEGO, no layer though the flags are there", .spnego = true, .steps = one_way, .flags = ALL },
    { .name = "GSS-SPNEGO cannot be somebody else", .spnego = true, .steps = one_way, .flags = ALL, .authzid = "bob",
      .new_error = "authorization identity" },
};

static void assert_str(struct str got, struct str want)
{
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.n ? got.p : "", want.n ? want.p : "", want.n);
}

static void answer_turns(const struct row *row, struct sasl_client *client)
{
    size_t n = 0;
    while (n < TURNS && row->turns[n].server.p)
        n++;
    for (size_t i = 0; i < n; i++) {
        struct err err = { 0 };
        struct str response;
        int rc = sasl_client_step(client, row->turns[i].server, &response, &err);
        if (i + 1 == n && row->error) {
            assert_true(rc == ERR_AUTH || rc == ERR_CONFIG);
            assert_non_null(strstr(err_text(&err), row->error));
            return;
        }
        assert_int_equal(rc, 0);
        assert_str(response, row->turns[i].client);
    }
    struct sasl_layer_choice layer = sasl_client_layer(client);
    assert_true(sasl_client_complete(client));
    assert_int_equal(layer.kind, row->layer);
    assert_int_equal(layer.peer_max_bytes, row->peer_max);
}

static void play(const struct row *row)
{
    struct fake_gss fake = { .steps = row->steps, .flag_bits = row->flags };
    struct sasl_gss gss = fake_table(&fake);
    struct sasl_client_options options = { .authzid = str_of(row->authzid), .gss = row->no_gss ? NULL : &gss,
                                           .seal = row->seal, .mutual = row->mutual };
    struct sasl_client *client;
    struct err err = { 0 };
    struct str first = STR_NONE;
    int rc = sasl_client_new(sasl_mechanism_find(row->spnego ? STR("GSS-SPNEGO") : STR("GSSAPI")), &options, &client,
                             &err);
    if (row->new_error) {
        assert_true(rc == ERR_AUTH || rc == ERR_CONFIG);
        assert_non_null(strstr(err_text(&err), row->new_error));
        assert_null(client);
        return;
    }
    assert_int_equal(rc, 0);
    assert_true(sasl_client_first(client, &first));
    assert_str(first, STR("AP-REQ"));
    if (row->turns[0].server.p)
        assert_false(sasl_client_complete(client));
    answer_turns(row, client);
    sasl_client_free(&client);
}

static void conversations(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        print_message("%s\n", rows[i].name);
        play(&rows[i]);
    }
}

/* An error after the choice was made must not be taken for success. */
static void not_complete_without_an_offer(void **state)
{
    struct fake_gss fake = { .steps = one_way, .flag_bits = ALL };
    struct sasl_gss gss = fake_table(&fake);
    struct sasl_client_options options = { .gss = &gss, .seal = true };
    struct sasl_client *client;
    struct str response;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("GSSAPI")), &options, &client, NULL), 0);
    assert_int_equal(sasl_client_step(client, STR("I\1\0\0\0padding"), &response, NULL), ERR_CONFIG);
    assert_false(sasl_client_complete(client));
    assert_int_equal(sasl_client_layer(client).kind, SASL_LAYER_NONE);
    sasl_client_free(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations),
        cmocka_unit_test(not_complete_without_an_offer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
