/* PLAIN and LOGIN, and what all mechanisms share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sasl/client.h"
#include "sasl/server.h"

static struct sasl_server *begin(const char *name)
{
    struct sasl_server_options options = { .nonce = STR("abcdefghijklmnop") };
    const struct sasl_mechanism *mechanism = sasl_mechanism_find(str_of(name));
    assert_non_null(mechanism);
    struct sasl_server *server = sasl_server_new(mechanism, &options);
    assert_non_null(server);
    return server;
}

static void assert_str(struct str got, const char *want)
{
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.n ? got.p : "", want, got.n);
}

static void mechanisms_are_found_by_name(void **state)
{
    assert_string_equal(sasl_mechanism_find(STR("scram-sha-256-plus"))->name, "SCRAM-SHA-256-PLUS");
    assert_null(sasl_mechanism_find(STR("SCRAM-SHA-1")));
    assert_null(sasl_mechanism_find(STR("")));
    for (size_t i = 1; sasl_mechanism_at(i); i++)
        assert_true(sasl_mechanism_at(i)->strength < sasl_mechanism_at(i - 1)->strength);
    assert_true(sasl_list_has(STR("PLAIN  login"), STR("LOGIN")));
    assert_false(sasl_list_has(STR("PLAINS LOGIN"), STR("PLAIN")));
    assert_false(sasl_list_has(STR(""), STR("")));
}

static void plain_with_initial_response(void **state)
{
    struct sasl_server *server = begin("PLAIN");
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, true, STR("\0Anna\0s3cret"), &step), SASL_CHECK_PASSWORD);
    assert_str(step.authcid, "anna");
    assert_str(step.authzid, "anna");
    assert_str(step.password, "s3cret");
    assert_int_equal(sasl_server_checked(server, SASL_RIGHT, &step), SASL_DONE);
    assert_str(step.authcid, "anna");
    assert_str(step.authzid, "anna");
    assert_int_equal(step.password.n, 0);
    sasl_server_free(&server);
    assert_null(server);
}

static void plain_after_an_empty_challenge(void **state)
{
    struct sasl_server *server = begin("PLAIN");
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, false, STR_NONE, &step), SASL_CHALLENGE);
    assert_int_equal(step.challenge.n, 0);
    assert_int_equal(sasl_server_step(server, true, STR("boss\0anna\0s3cret"), &step), SASL_CHECK_PASSWORD);
    assert_str(step.authzid, "boss");
    assert_int_equal(sasl_server_checked(server, SASL_WRONG, &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_BAD_PASSWORD);
    assert_str(step.authcid, "anna");
    assert_int_equal(sasl_server_step(server, true, STR("\0anna\0s3cret"), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_INTERNAL);
    sasl_server_free(&server);
}

static void plain_refuses(void **state)
{
    static char long_password[SASL_PASSWORD_MAX + 10], long_user[SASL_USER_MAX + 10];
    memset(long_password, 'p', sizeof long_password);
    memcpy(long_password, "\0u\0", 3);
    memset(long_user, 'u', sizeof long_user);
    long_user[0] = 0;
    memcpy(long_user + sizeof long_user - 2, "\0p", 2);
    const struct {
        struct str message;
        enum sasl_cause cause;
    } rows[] = {
        { STR(""), SASL_CAUSE_MALFORMED },
        { STR("anna"), SASL_CAUSE_MALFORMED },
        { STR("\0anna"), SASL_CAUSE_MALFORMED },
        { STR("\0anna\0pw\0"), SASL_CAUSE_MALFORMED },
        { STR("\0anna\0pw\0more"), SASL_CAUSE_MALFORMED },
        { STR("\0\0"), SASL_CAUSE_EMPTY_USER },
        { STR("\0\0pw"), SASL_CAUSE_EMPTY_USER },
        { STR("\0anna\0"), SASL_CAUSE_EMPTY_PASSWORD },
        { STR("\0an\xff\0pw"), SASL_CAUSE_BAD_USER_NAME },
        { STR("\0an\x01\0pw"), SASL_CAUSE_BAD_USER_NAME },
        { STR("\0anna\0p\xffw"), SASL_CAUSE_BAD_PASSWORD },
        { STR("b\xff\0anna\0pw"), SASL_CAUSE_AUTHZID },
        { { long_password, sizeof long_password }, SASL_CAUSE_BAD_PASSWORD },
        { { long_user, sizeof long_user }, SASL_CAUSE_BAD_USER_NAME },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sasl_server *server = begin("PLAIN");
        struct sasl_step step;
        assert_int_equal(sasl_server_step(server, true, rows[i].message, &step), SASL_FAILED);
        assert_int_equal(step.cause, rows[i].cause);
        sasl_server_free(&server);
    }
}

static void login_asks_twice(void **state)
{
    struct sasl_server *server = begin("LOGIN");
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, false, STR_NONE, &step), SASL_CHALLENGE);
    assert_str(step.challenge, "Username:");
    assert_int_equal(sasl_server_step(server, true, STR("ANNA"), &step), SASL_CHALLENGE);
    assert_str(step.challenge, "Password:");
    assert_int_equal(sasl_server_step(server, true, STR("s3cret"), &step), SASL_CHECK_PASSWORD);
    assert_str(step.authcid, "anna");
    assert_str(step.password, "s3cret");
    assert_int_equal(sasl_server_checked(server, SASL_UNKNOWN_USER, &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_UNKNOWN_USER);
    sasl_server_free(&server);
}

static void login_takes_the_name_at_once(void **state)
{
    struct sasl_server *server = begin("LOGIN");
    struct sasl_step step;
    assert_int_equal(sasl_server_step(server, true, STR("anna"), &step), SASL_CHALLENGE);
    assert_str(step.challenge, "Password:");
    assert_int_equal(sasl_server_step(server, true, STR(""), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_EMPTY_PASSWORD);
    assert_str(step.authcid, "anna");
    sasl_server_free(&server);

    server = begin("LOGIN");
    assert_int_equal(sasl_server_step(server, true, STR(""), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_EMPTY_USER);
    sasl_server_free(&server);

    server = begin("LOGIN");
    assert_int_equal(sasl_server_step(server, true, STR("an\0na"), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_BAD_USER_NAME);
    sasl_server_free(&server);
}

static void answers_out_of_turn_end_the_exchange(void **state)
{
    struct sasl_server *server = begin("PLAIN");
    struct sasl_step step;
    assert_int_equal(sasl_server_checked(server, SASL_RIGHT, &step), SASL_FAILED);
    assert_int_equal(sasl_server_verifier(server, SASL_RIGHT, NULL, &step), SASL_FAILED);
    sasl_server_free(&server);

    server = begin("PLAIN");
    assert_int_equal(sasl_server_step(server, true, STR("\0a\0b"), &step), SASL_CHECK_PASSWORD);
    assert_int_equal(sasl_server_step(server, true, STR("\0a\0b"), &step), SASL_FAILED);
    assert_int_equal(sasl_server_checked(server, SASL_RIGHT, &step), SASL_FAILED);
    sasl_server_free(&server);

    static char huge[SASL_MESSAGE_MAX + 1];
    server = begin("LOGIN");
    assert_int_equal(sasl_server_step(server, true, str_slice(huge, sizeof huge), &step), SASL_FAILED);
    assert_int_equal(step.cause, SASL_CAUSE_TOO_LONG);
    sasl_server_free(&server);
}

static void unknown_user_and_wrong_password_look_alike(void **state)
{
    const struct sasl_failure *wrong = sasl_failure_of(SASL_CAUSE_BAD_PASSWORD);
    const struct sasl_failure *unknown = sasl_failure_of(SASL_CAUSE_UNKNOWN_USER);
    assert_int_equal(wrong->code, 535);
    assert_int_equal(unknown->code, wrong->code);
    assert_string_equal(unknown->enhanced, wrong->enhanced);
    assert_string_equal(unknown->text, wrong->text);
    assert_string_not_equal(unknown->cause, wrong->cause);
    for (int cause = 0; cause < SASL_CAUSES; cause++)
        assert_non_null(sasl_failure_of((enum sasl_cause)cause)->cause);
    assert_int_equal(sasl_failure_of(SASL_CAUSE_TEMPORARY)->code, 454);
}

static void names_are_prepared(void **state)
{
    char name[SASL_USER_MAX + 1], text[64];
    size_t n;
    assert_true(sasl_prep_user(STR("Anna.Example"), name, &n));
    assert_str(str_slice(name, n), "anna.example");
    /* RFC 4013 section 3 */
    assert_true(sasl_prep(STR("I\xc2\xadX"), 63, text, &n));
    assert_str(str_slice(text, n), "IX");
    assert_true(sasl_prep(STR("\xc2\xaa"), 63, text, &n));
    assert_str(str_slice(text, n), "a");
    assert_true(sasl_prep(STR("\xe2\x85\xa8"), 63, text, &n));
    assert_str(str_slice(text, n), "IX");
    assert_false(sasl_prep(STR("\x07"), 63, text, &n));
    assert_false(sasl_prep(STR("\xd8\xa7\x31"), 63, text, &n));
    /* and what is not text at all */
    assert_false(sasl_prep(STR(""), 63, text, &n));
    assert_false(sasl_prep(STR("\xc2\xad"), 63, text, &n)); /* mapped to nothing */
    assert_false(sasl_prep(STR("a\0b"), 63, text, &n));
    assert_false(sasl_prep(STR("\xc3\xa9\0b"), 63, text, &n));
    assert_false(sasl_prep(STR("\xed\xa0\x80"), 63, text, &n));
    assert_false(sasl_prep(STR("abcdef"), 5, text, &n));
    assert_int_equal(n, 0);
}

static void plain_and_login_of_the_client(void **state)
{
    struct sasl_client_options options = { .user = STR("Anna"), .password = STR("s3cret") };
    struct sasl_client *client;
    struct err err;
    struct str response;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("PLAIN")), &options, &client, &err), 0);
    assert_false(sasl_client_complete(client));
    assert_true(sasl_client_first(client, &response));
    assert_int_equal(response.n, 12);
    assert_memory_equal(response.p, "\0Anna\0s3cret", 12);
    assert_true(sasl_client_complete(client));
    assert_int_equal(sasl_client_step(client, STR(""), &response, &err), ERR_AUTH);
    sasl_client_free(&client);

    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("LOGIN")), &options, &client, &err), 0);
    assert_false(sasl_client_first(client, &response));
    assert_int_equal(sasl_client_step(client, STR("User Name\0"), &response, &err), 0);
    assert_str(response, "Anna");
    assert_false(sasl_client_complete(client));
    assert_int_equal(sasl_client_step(client, STR(""), &response, &err), 0);
    assert_str(response, "s3cret");
    assert_true(sasl_client_complete(client));
    assert_int_equal(sasl_client_step(client, STR(""), &response, &err), ERR_AUTH);
    sasl_client_free(&client);

    options.password = STR_NONE;
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("LOGIN")), &options, &client, &err), ERR_SYNTAX);
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("PLAIN")), &options, &client, &err), ERR_SYNTAX);
    assert_null(client);
    options.password = STR("a\0b");
    assert_int_equal(sasl_client_new(sasl_mechanism_find(STR("PLAIN")), &options, &client, &err), ERR_SYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mechanisms_are_found_by_name),
        cmocka_unit_test(plain_with_initial_response),
        cmocka_unit_test(plain_after_an_empty_challenge),
        cmocka_unit_test(plain_refuses),
        cmocka_unit_test(login_asks_twice),
        cmocka_unit_test(login_takes_the_name_at_once),
        cmocka_unit_test(answers_out_of_turn_end_the_exchange),
        cmocka_unit_test(unknown_user_and_wrong_password_look_alike),
        cmocka_unit_test(names_are_prepared),
        cmocka_unit_test(plain_and_login_of_the_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
