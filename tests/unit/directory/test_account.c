/* directory/account: the texts of LDAP, and what becomes of servers that are not there. The rest needs a directory:
 * the tests in the domain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "directory/account.h"

static void test_escape(void **state)
{
    static const struct {
        struct str in;
        const char *expected;
    } rows[] = {
        { STR("alice"), "alice" },
        { STR("MX1$"), "MX1$" },
        { STR("*)(objectClass=*"), "\\2a\\29\\28objectClass=\\2a" },
        { STR("a\\b"), "a\\5cb" },
        { STR("a\0b"), "a\\00b" },
        { STR("\xc3\xa9"), "\\c3\\a9" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf out;
        buf_init(&out, 100);
        assert_true(account_filter_escape(rows[i].in, &out));
        assert_string_equal(buf_cstr(&out), rows[i].expected);
        buf_done(&out);
    }
    struct buf small;
    buf_init(&small, 3);
    assert_false(account_filter_escape(STR("alice"), &small));
    buf_done(&small);
}

static void test_base(void **state)
{
    struct buf out;
    buf_init(&out, 100);
    assert_true(account_base_of_realm("CORP.TEST", &out));
    assert_string_equal(buf_cstr(&out), "DC=CORP,DC=TEST");
    buf_clear(&out);
    assert_true(account_base_of_realm("A,B+C", &out));
    assert_string_equal(buf_cstr(&out), "DC=A\\2cB\\2bC");
    buf_done(&out);
}

static void test_range(void **state)
{
    static const struct {
        const char *text;
        bool is_range;
        uint32_t next;
    } rows[] = {
        { "member", false, 0 },
        { "member;binary", false, 0 },
        { "member;range=0-1499", true, 1500 },
        { "member;Range=1500-*", true, 0 },
        { "member;binary;range=1-1", true, 2 },
        { "member;range=5-4", false, 0 },
        { "member;range=", false, 0 },
        { "member;range=-1", false, 0 },
        { "member;range=0-4294967295", false, 0 },
        { "member;range=0-99999999999999999999", false, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str attribute;
        uint32_t next = 0;
        assert_int_equal(account_range_parse(str_of(rows[i].text), &attribute, &next), rows[i].is_range);
        if (rows[i].is_range) {
            assert_true(str_eq(attribute, STR("member")));
            assert_int_equal(next, rows[i].next);
        }
    }
}

static int find_at(const char *url, struct err *err)
{
    static const char *const attribute[] = { "mail" };
    const struct account_options options = { .realm = "CORP.TEST", .server = &url, .n_servers = 1, .timeout_ms = 200 };
    const struct account_query query = { STR("alice"), STR("alice@CORP.TEST"), attribute, 1 };
    struct account_directory *directory;
    struct account_answer answer;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    assert_int_equal(account_directory_new(&options, &directory, err), 0);
    int rc = account_find(directory, &query, &arena, &answer, err);
    assert_false(answer.found);
    account_directory_free(&directory);
    arena_done(&arena);
    return rc;
}

/* A port that is closed, and one that takes the connection and never answers. */
static void test_no_server(void **state)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    struct err err = { 0 };
    char url[64];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    snprintf(url, sizeof url, "ldap://127.0.0.1:%u", ntohs(address.sin_port));
    assert_int_equal(find_at(url, &err), ERR_CLOSED);
    assert_non_null(strstr(err.text, url));
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(find_at(url, &err), ERR_CLOSED);
    assert_non_null(strstr(err.text, url));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape), cmocka_unit_test(test_base), cmocka_unit_test(test_range),
        cmocka_unit_test(test_no_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
