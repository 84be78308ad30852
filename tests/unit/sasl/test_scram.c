/* SCRAM-SHA-256: the published exchange of RFC 7677 section 3 on both sides, channel binding, and what each side
 * refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"
#include "sasl/client.h"
#include "sasl/server.h"

#define C1 "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define S1 "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define C2 "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define S2 "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

static struct sasl_verifier verifier;

static int make_verifier(void **state)
{
    struct buf salt;
    buf_init(&salt, 64);
    assert_true(base64_decode(STR("W22ZaJ0SNY7soEsUEjb6gQ=="), &salt));
    assert_int_equal(sasl_verifier_make(STR("pencil"), buf_str(&salt), 4096, &verifier, NULL), 0);
    buf_done(&salt);
    return 0;
}

static void assert_str(struct str got, const char *want)
{
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.n ? got.p : "", want, got.n);
}

static struct sasl_server *begin(const char *name, struct sasl_binding binding, bool plus_offered)
{
    struct sasl_server_options options = { .nonce = STR(SERVER_NONCE), .binding = binding, .plus_offered = plus_offered };
    struct sasl_server *server = sasl_server_new(sasl_mechanism_find(str_of(name)), &options);
    assert_non_null(server);
    return server;
}

static struct sasl_client *begin_client(const char *name, struct sasl_binding binding, bool plus_offered)
{
    struct sasl_client_options options = { .user = STR("user"), .password = STR("pencil"), .binding = binding,
                                           .nonce = STR("rOprNGfwEbeRWgbNEkqO"), .server_offers_plus = plus_offered };
    struct sasl_client *client;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(str_of(name)), &options, &client, NULL), 0);
    return client;
}

static void published_exchange_as_server(void **state)
{
    struct sasl_server *server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, true, STR(C1), &step), SASL_NEED_VERIFIER);
    assert_str(step.authcid, "user");
    assert_str(step.authzid, "user");
    assert_int_equal(sasl_server_verifier(server, SASL_RIGHT, &verifier, &step), SASL_CHALLENGE);
    assert_str(step.challenge, S1);
    assert_int_equal(sasl_server_step(server, true, STR(C2), &step), SASL_CHALLENGE);
    assert_str(step.challenge, S2);
    assert_int_equal(sasl_server_step(server, true, STR(""), &step), SASL_DONE);
    assert_str(step.authcid, "user");
    assert_str(step.authzid, "user");
    sasl_server_free(&server);
}

static void published_exchange_as_client(void **state)
{
    struct sasl_client *client = begin_client("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    struct str response;
    struct err err;
    assert_true(sasl_client_first(client, &response));
    assert_str(response, C1);
    assert_int_equal(sasl_client_step(client, STR(S1), &response, &err), 0);
    assert_str(response, C2);
    assert_false(sasl_client_complete(client));
    assert_int_equal(sasl_client_step(client, STR(S2), &response, &err), 0);
    assert_int_equal(response.n, 0);
    assert_true(sasl_client_complete(client));
    assert_int_equal(sasl_client_step(client, STR(""), &response, &err), ERR_AUTH);
    sasl_client_free(&client);
}

static void answer_with_memory(struct sasl_scram_memory *memory, const char *password, struct str server_first,
                               bool published)
{
    struct sasl_client_options options = { .user = STR("user"), .password = str_of(password), .scram_memory = memory,
                                           .nonce = STR("rOprNGfwEbeRWgbNEkqO") };
    struct sasl_client *client;
    struct str response;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256")), &options, &client, NULL), 0);
    assert_true(sasl_client_first(client, &response));
    assert_int_equal(sasl_client_step(client, server_first, &response, NULL), 0);
    assert_int_equal(str_eq(response, STR(C2)), published);
    sasl_client_free(&client);
}

/* Only the same salt and count come out of the memory. With them the password is not looked at, which is how a test sees
 * that it was not stretched again. */
static void memory_saves_the_stretching(void **state)
{
    struct sasl_scram_memory memory = { 0 };
    char other[sizeof S1];
    answer_with_memory(&memory, "pencil", STR(S1), true);
    assert_int_equal(memory.iterations, 4096);
    answer_with_memory(&memory, "another", STR(S1), true);
    memcpy(other, S1, sizeof S1);
    char *count = strstr(other, "i=4096");
    assert_non_null(count);
    memcpy(count, "i=4097", 6);
    answer_with_memory(&memory, "pencil", str_of(other), false);
    assert_int_equal(memory.iterations, 4097);
    answer_with_memory(&memory, "pencil", STR(S1), true);
    memory.salt[0] ^= 1;
    answer_with_memory(&memory, "another", STR(S1), false);
    answer_with_memory(&memory, "pencil", STR(S1), false);
}

/* The outcome of our client against our server. */
static enum sasl_action meet(const char *name, struct sasl_binding of_server, struct sasl_binding of_client,
                             bool plus_offered, bool plus_seen, enum sasl_verdict verdict, enum sasl_cause *ret_cause)
{
    struct sasl_server *server = begin(name, of_server, plus_offered);
    struct sasl_client *client = begin_client(name, of_client, plus_seen);
    struct sasl_step step;
    struct str response;
    assert_true(sasl_client_first(client, &response));
    enum sasl_action action = sasl_server_step(server, true, response, &step);
    if (action == SASL_NEED_VERIFIER)
        action = sasl_server_verifier(server, verdict, &verifier, &step);
    while (action == SASL_CHALLENGE) {
        assert_int_equal(sasl_client_step(client, step.challenge, &response, NULL), 0);
        action = sasl_server_step(server, true, response, &step);
    }
    assert_int_equal(action == SASL_DONE, sasl_client_complete(client));
    *ret_cause = step.cause;
    sasl_server_free(&server);
    sasl_client_free(&client);
    return action;
}

static void channel_binding(void **state)
{
    const struct sasl_binding none = { 0 };
    const struct sasl_binding hash = { .cert_hash = STR("0123456789abcdef0123456789abcdef") };
    const struct sasl_binding other = { .cert_hash = STR("0123456789abcdef0123456789abcdeX") };
    const struct sasl_binding both = { .cert_hash = hash.cert_hash, .exporter = STR("fedcba9876543210fedcba9876543210") };
    const char *plus = "SCRAM-SHA-256-PLUS", *bare = "SCRAM-SHA-256";
    enum sasl_cause cause;
    assert_int_equal(meet(plus, hash, hash, true, true, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(plus, both, both, true, true, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(plus, both, hash, true, true, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(plus, hash, other, true, true, SASL_RIGHT, &cause), SASL_FAILED);
    assert_int_equal(cause, SASL_CAUSE_BINDING_MISMATCH);
    assert_int_equal(meet(plus, hash, both, true, true, SASL_RIGHT, &cause), SASL_FAILED);
    assert_int_equal(cause, SASL_CAUSE_BINDING_TYPE);
    /* Without -PLUS: no TLS; TLS and both know; somebody has cut the list. */
    assert_int_equal(meet(bare, none, none, false, false, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(bare, hash, hash, true, true, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(bare, none, hash, false, false, SASL_RIGHT, &cause), SASL_DONE);
    assert_int_equal(meet(bare, hash, hash, true, false, SASL_RIGHT, &cause), SASL_FAILED);
    assert_int_equal(cause, SASL_CAUSE_DOWNGRADE);
}

static void unknown_user_goes_the_whole_way(void **state)
{
    const struct sasl_binding none = { 0 };
    enum sasl_cause cause;
    /* Even when the decoy happened to fit. */
    assert_int_equal(meet("SCRAM-SHA-256", none, none, false, false, SASL_UNKNOWN_USER, &cause), SASL_FAILED);
    assert_int_equal(cause, SASL_CAUSE_UNKNOWN_USER);
    assert_int_equal(meet("SCRAM-SHA-256", none, none, false, false, SASL_CANNOT_TELL, &cause), SASL_FAILED);
    assert_int_equal(cause, SASL_CAUSE_TEMPORARY);

    struct sasl_verifier a, b, c;
    assert_int_equal(sasl_verifier_fake(STR("secret"), STR("anna"), &a, NULL), 0);
    assert_int_equal(sasl_verifier_fake(STR("secret"), STR("anna"), &b, NULL), 0);
    assert_int_equal(sasl_verifier_fake(STR("secret"), STR("bob"), &c, NULL), 0);
    assert_memory_equal(a.salt, b.salt, SASL_SALT_BYTES);
    assert_memory_not_equal(a.salt, c.salt, SASL_SALT_BYTES);
    assert_int_equal(a.salt_bytes, SASL_SALT_BYTES);
    assert_int_equal(a.iterations, SASL_ITERATIONS);
}

static void verifier_checks_passwords(void **state)
{
    struct err err;
    struct sasl_verifier v;
    assert_int_equal(sasl_verifier_check(&verifier, STR("pencil"), &err), 1);
    assert_int_equal(sasl_verifier_check(&verifier, STR("pencils"), &err), 0);
    assert_int_equal(sasl_verifier_check(&verifier, STR(""), &err), 0);
    assert_int_equal(sasl_verifier_make(STR("x"), STR(""), 4096, &v, &err), ERR_LIMIT);
    assert_int_equal(sasl_verifier_make(STR("x"), STR("salt"), 4095, &v, &err), ERR_LIMIT);
    assert_int_equal(sasl_verifier_make(STR("x"), STR("salt"), SASL_ITERATIONS_MAX + 1, &v, &err), ERR_LIMIT);
    v = verifier;
    v.salt_bytes = SASL_SALT_MAX + 1;
    assert_int_equal(sasl_verifier_check(&v, STR("pencil"), &err), ERR_CORRUPT);
}

static void server_refuses_first_messages(void **state)
{
    const struct {
        const char *mechanism, *message;
        enum sasl_cause cause;
    } rows[] = {
        { "SCRAM-SHA-256", "", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "x,,n=user,r=abc", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,b=x,n=user,r=abc", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,a==,n=user,r=abc", SASL_CAUSE_AUTHZID },
        { "SCRAM-SHA-256", "n,,m=ext,n=user,r=abc", SASL_CAUSE_EXTENSION },
        { "SCRAM-SHA-256", "n,,n=,r=abc", SASL_CAUSE_EMPTY_USER },
        { "SCRAM-SHA-256", "n,,n=us=er,r=abc", SASL_CAUSE_BAD_USER_NAME },
        { "SCRAM-SHA-256", "n,,n=us=2cer,r=abc", SASL_CAUSE_BAD_USER_NAME },
        { "SCRAM-SHA-256", "n,,n=us=2,r=abc", SASL_CAUSE_BAD_USER_NAME },
        { "SCRAM-SHA-256", "n,,n=us\x01,r=abc", SASL_CAUSE_BAD_USER_NAME },
        { "SCRAM-SHA-256", "n,,n=user", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,n=user,", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,n=user,r=", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,n=user,r=a b", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,n=user,r=abc,", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,n=user,r=abc,junk", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "n,,r=abc,n=user", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256", "p=tls-server-end-point,,n=user,r=abc", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256-PLUS", "n,,n=user,r=abc", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256-PLUS", "y,,n=user,r=abc", SASL_CAUSE_MALFORMED },
        { "SCRAM-SHA-256-PLUS", "p=tls-unique,,n=user,r=abc", SASL_CAUSE_BINDING_TYPE },
        { "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=user,r=abc", SASL_CAUSE_BINDING_TYPE },
        { "SCRAM-SHA-256-PLUS", "p=,,n=user,r=abc", SASL_CAUSE_BINDING_TYPE },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_server *server = begin(rows[i].mechanism, (struct sasl_binding){ .cert_hash = STR("hash") }, false);
        struct sasl_step step;
        assert_int_equal(sasl_server_step(server, true, str_of(rows[i].message), &step), SASL_FAILED);
        assert_int_equal(step.cause, rows[i].cause);
        sasl_server_free(&server);
    }
    static char huge[8000];
    memset(huge, 'a', sizeof huge);
    memcpy(huge, "n,,n=user,r=", 12);
    struct sasl_server *server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, true, str_slice(huge, sizeof huge), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_TOO_LONG);
    sasl_server_free(&server);
}

static void server_takes_what_is_allowed(void **state)
{
    struct sasl_server *server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, false, STR_NONE, &step), SASL_CHALLENGE);
    assert_int_equal(step.challenge.n, 0);
    assert_int_equal(sasl_server_step(server, true, STR("y,a=Bo=2Css,n=An=3Dna,r=abc,x=ignored"), &step), SASL_NEED_VERIFIER);
    assert_str(step.authcid, "an=na");
    assert_str(step.authzid, "bo,ss");
    sasl_server_free(&server);
}

static void server_refuses_final_messages(void **state)
{
#define N "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define P ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    const struct {
        const char *message;
        enum sasl_cause cause;
    } rows[] = {
        { "", SASL_CAUSE_MALFORMED },
        { N P, SASL_CAUSE_MALFORMED },
        { "c=biws", SASL_CAUSE_MALFORMED },
        { "c=!," N P, SASL_CAUSE_MALFORMED },
        { "c=eSws," N P, SASL_CAUSE_BINDING_MISMATCH },     /* y,, */
        { "c=biwsYQ==," N P, SASL_CAUSE_BINDING_MISMATCH }, /* data behind it */
        { "c=," N P, SASL_CAUSE_BINDING_MISMATCH },
        { "c=biws,r=rOprNGfwEbeRWgbNEkqO" P, SASL_CAUSE_NONCE },
        { "c=biws,r=xOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" P, SASL_CAUSE_NONCE },
        { "c=biws," N "x" P, SASL_CAUSE_NONCE },
        { "c=biws," N, SASL_CAUSE_MALFORMED },
        { "c=biws," N ",p=", SASL_CAUSE_MALFORMED },
        { "c=biws," N ",p=YQ==", SASL_CAUSE_MALFORMED },
        { "c=biws," N P ",x=y", SASL_CAUSE_MALFORMED },
        { "c=biws," N ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=", SASL_CAUSE_MALFORMED }, /* bits left over */
        { "c=biws," N ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", SASL_CAUSE_BAD_PASSWORD },
        { "c=biws," N ",x=ext" P, SASL_CAUSE_BAD_PASSWORD }, /* the proof covers extensions too */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_server *server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
        struct sasl_step step;
        assert_int_equal(sasl_server_step(server, true, STR(C1), &step), SASL_NEED_VERIFIER);
        assert_int_equal(sasl_server_verifier(server, SASL_RIGHT, &verifier, &step), SASL_CHALLENGE);
        assert_int_equal(sasl_server_step(server, true, str_of(rows[i].message), &step), SASL_FAILED);
        assert_int_equal(step.cause, rows[i].cause);
        assert_str(step.authcid, "user");
        sasl_server_free(&server);
    }
}

static void server_wants_an_empty_end(void **state)
{
    struct sasl_server *server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    struct sasl_step step;
    sasl_server_step(server, true, STR(C1), &step);
    sasl_server_verifier(server, SASL_RIGHT, &verifier, &step);
    assert_int_equal(sasl_server_step(server, true, STR(C2), &step), SASL_CHALLENGE);
    assert_int_equal(sasl_server_step(server, true, STR("x"), &step), SASL_FAILED);
    sasl_server_free(&server);

    struct sasl_verifier weak = verifier;
    weak.iterations = 1000;
    server = begin("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    sasl_server_step(server, true, STR(C1), &step);
    assert_int_equal(sasl_server_verifier(server, SASL_RIGHT, &weak, &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_TEMPORARY);
    sasl_server_free(&server);
}

static void client_refuses_first_messages(void **state)
{
#define O "r=rOprNGfwEbeRWgbNEkqO"
    static const char *const rows[] = {
        "", "m=x," O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        O ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "r=rOprNGfwEbeRWgbNEkqX1,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        O "abc", O "abc,i=4096", O "abc,s=,i=4096", O "abc,s=!,i=4096", O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==",
        O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=", O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
        O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000001", O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999",
        O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,", O "abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,junk",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_client *client = begin_client("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
        struct str response;
        struct err err = { 0 };
        assert_true(sasl_client_first(client, &response));
        assert_int_equal(sasl_client_step(client, str_of(rows[i]), &response, &err), ERR_AUTH);
        assert_true(err.text[0] != 0);
        assert_false(sasl_client_complete(client));
        sasl_client_free(&client);
    }
}

static void client_refuses_final_messages(void **state)
{
    static const char *const rows[] = {
        "", "v=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8=", "v=YQ==", "x=y", "e=invalid-proof",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=,",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_client *client = begin_client("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
        struct str response;
        struct err err = { 0 };
        assert_true(sasl_client_first(client, &response));
        assert_int_equal(sasl_client_step(client, STR(S1), &response, &err), 0);
        assert_int_equal(sasl_client_step(client, str_of(rows[i]), &response, &err), ERR_AUTH);
        assert_false(sasl_client_complete(client));
        if (rows[i][0] == 'e')
            assert_non_null(strstr(err.text, "invalid-proof"));
        sasl_client_free(&client);
    }
}

static void client_needs_what_it_needs(void **state)
{
    struct sasl_client_options options = { .user = STR("us,er=1"), .password = STR("p"), .nonce = STR("abc"),
                                           .authzid = STR("a,b") };
    struct sasl_client *client;
    struct err err;
    struct str response;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256-PLUS")), &options, &client, &err), ERR_AUTH);
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256")), &options, &client, &err), 0);
    assert_true(sasl_client_first(client, &response));
    assert_str(response, "n,a=a=2Cb,n=us=2Cer=3D1,r=abc");
    sasl_client_free(&client);
    options.password = STR("\x01");
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256")), &options, &client, &err), ERR_SYNTAX);
    options.password = STR("p");
    options.nonce = STR("a,b");
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("SCRAM-SHA-256")), &options, &client, &err), ERR_SYNTAX);
    /* Without an initial response the message answers the empty challenge. */
    client = begin_client("SCRAM-SHA-256", (struct sasl_binding){ 0 }, false);
    assert_int_equal(sasl_client_step(client, STR(""), &response, &err), 0);
    assert_str(response, C1);
    sasl_client_free(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_exchange_as_server),
        cmocka_unit_test(published_exchange_as_client),
        cmocka_unit_test(memory_saves_the_stretching),
        cmocka_unit_test(channel_binding),
        cmocka_unit_test(unknown_user_goes_the_whole_way),
        cmocka_unit_test(verifier_checks_passwords),
        cmocka_unit_test(server_refuses_first_messages),
        cmocka_unit_test(server_takes_what_is_allowed),
        cmocka_unit_test(server_refuses_final_messages),
        cmocka_unit_test(server_wants_an_empty_end),
        cmocka_unit_test(client_refuses_first_messages),
        cmocka_unit_test(client_refuses_final_messages),
        cmocka_unit_test(client_needs_what_it_needs),
    };
    return cmocka_run_group_tests(tests, make_verifier, NULL);
}
