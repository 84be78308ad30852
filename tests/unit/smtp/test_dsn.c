/* dsn: the report's shape, and that nothing a peer says can forge a line of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "smtp/dsn.h"

static const char *build(const struct smtp_dsn *d, struct buf *out)
{
    buf_init(out, 1 << 20);
    assert_true(smtp_dsn_build(d, out));
    return buf_cstr(out);
}

static struct smtp_dsn base(const struct smtp_dsn_recipient *r, size_t n)
{
    return (struct smtp_dsn){
        .reporting_mta = STR("mail.corp.test"), .to = STR("a@corp.test"), .date = STR("Sat, 21 Nov 2026 18:07:33 +0000"),
        .arrival_date = STR("Sat, 21 Nov 2026 18:00:00 +0000"), .message_id = STR("x@mail.corp.test"),
        .boundary = STR("b0undary"), .queue_id = STR("0A00000140"), .original = STR("Subject: hi\r\n\r\n"),
        .recipient = r, .n_recipients = n,
    };
}

static void tells_a_failure(void **state)
{
    (void)state;
    struct smtp_dsn_recipient r = { .action = SMTP_DSN_FAILED, .address = STR("b@d.test"), .orcpt = STR("rfc822;B@d.test"),
                                    .status = STR("5.1.1"), .diagnostic = STR("550 5.1.1 No such user"),
                                    .remote_mta = STR("mx.d.test"), .from_smtp = true };
    struct smtp_dsn d = base(&r, 1);
    d.envid = STR("QQ314159");
    struct buf out;
    const char *text = build(&d, &out);
    static const char *const lines[] = {
        "\r\nTo: <a@corp.test>\r\n", "\r\nAuto-Submitted: auto-replied\r\n", "report-type=delivery-status",
        "\r\nReporting-MTA: dns; mail.corp.test\r\n", "\r\nOriginal-Envelope-Id: QQ314159\r\n",
        "\r\n\r\nOriginal-Recipient: rfc822; B@d.test\r\nFinal-Recipient: rfc822; b@d.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "\r\nRemote-MTA: dns; mx.d.test\r\n", "\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n",
        "Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\n", "\r\n--b0undary--\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr(text, lines[i]));
    assert_null(strstr(text, "8bit"));
    buf_done(&out);
}

static void a_reply_cannot_forge_a_line(void **state)
{
    (void)state;
    struct smtp_dsn_recipient r = { .action = SMTP_DSN_FAILED, .address = STR("b@d.test\r\nBcc: x@y"), .status = STR("5.0.0"),
                                    .diagnostic = STR("550 no\r\nStatus: 2.0.0\r\n\r\n--b0undary--") };
    struct smtp_dsn d = base(&r, 1);
    struct buf out;
    const char *text = build(&d, &out);
    assert_null(strstr(text, "\r\nStatus: 2.0.0"));
    assert_null(strstr(text, "\r\nBcc:"));
    const char *end = strstr(text, "\r\n--b0undary--\r\n");
    assert_non_null(end);
    assert_string_equal(end, "\r\n--b0undary--\r\n");
    buf_done(&out);
}

static void folds_long_replies(void **state)
{
    (void)state;
    char reply[1200];
    for (size_t i = 0; i < sizeof reply - 1; i++)
        reply[i] = i % 9 == 8 ? ' ' : 'x';
    reply[sizeof reply - 1] = 0;
    struct smtp_dsn_recipient r = { .action = SMTP_DSN_DELAYED, .address = STR("b@d.test"), .status = STR("4.4.1"),
                                    .diagnostic = str_of(reply), .will_retry_until = STR("Thu, 26 Nov 2026 18:07:33 +0000") };
    struct smtp_dsn d = base(&r, 1);
    struct buf out;
    const char *text = build(&d, &out);
    const char *field = strstr(text, "Diagnostic-Code:");
    assert_non_null(field);
    for (size_t line = 0; field[0] && strncmp(field, "\r\nWill", 6) != 0; field++) {
        line = field[0] == '\n' ? 0 : line + 1;
        assert_true(line < 100);
    }
    assert_non_null(strstr(text, "\r\nWill-Retry-Until: Thu, 26 Nov 2026"));
    buf_done(&out);
}

static void marks_what_needs_utf8(void **state)
{
    (void)state;
    struct smtp_dsn_recipient r = { .action = SMTP_DSN_DELIVERED, .address = STR("b\xc3\xbc@d.test"), .status = STR("2.0.0") };
    struct smtp_dsn d = base(&r, 1);
    d.utf8 = d.full = true;
    struct buf out;
    const char *text = build(&d, &out);
    assert_non_null(strstr(text, "Content-Type: message/global-delivery-status\r\n"));
    assert_non_null(strstr(text, "Final-Recipient: utf-8; b\xc3\xbc@d.test\r\n"));
    assert_non_null(strstr(text, "Content-Type: message/global\r\n"));
    buf_done(&out);
}

static void cuts_the_header_section(void **state)
{
    (void)state;
    assert_true(str_eq(smtp_dsn_header_section(STR("A: 1\r\nB: 2\r\n\r\nbody\r\n"), 1000), STR("A: 1\r\nB: 2\r\n\r\n")));
    assert_true(str_eq(smtp_dsn_header_section(STR("A: 1\r\nB: 2\r\n\r\nbody\r\n"), 10), STR("A: 1\r\n")));
    assert_true(str_eq(smtp_dsn_header_section(STR("A: 1"), 10), STR("A: 1")));
    assert_int_equal(smtp_dsn_header_section(STR(""), 10).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_a_failure), cmocka_unit_test(a_reply_cannot_forge_a_line),
        cmocka_unit_test(folds_long_replies), cmocka_unit_test(marks_what_needs_utf8),
        cmocka_unit_test(cuts_the_header_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
