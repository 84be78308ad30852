/* The decision from code and text alone, as both were seen from MIT krb5 1.20 and Samba's KDC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <gssapi/gssapi.h>

#include "kerberos/failure.h"
#include "kerberos/library.h"

static const struct {
    enum krb_side side;
    uint32_t major, minor;
    const char *text, *cause;
} rows[] = {
    /* The acceptor's: one code, three causes. */
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a2c, "Request ticket server SMTPSVC/m@R kvno 4 not found in keytab; keytab is likely out of date", "kvno-old" },
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a2c, "Request ticket server SMTPSVC/m@R kvno 3 not found in keytab; ticket is likely out of date", "kvno-new" },
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a2c, "Request ticket server SMTPSVC/m@R kvno 4 found in keytab but not with enctype aes256-cts", "enctype-missing" },
    { KRB_ACCEPTOR, 0xd0000, 100001, "Request ticket server SMTPSVC/m@R kvno 4 enctype aes256-cts found in keytab but cannot decrypt ticket", "wrong-key" },
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a23, "Request ticket server SMTPSVC/m@R not found in keytab (ticket kvno 2)", "not-our-service" },
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a23, "Request ticket server A found in keytab but does not match server principal B@", "not-our-service" },
    /* A service name that the client made up to mislead. */
    { KRB_ACCEPTOR, 0xd0000, 100001, "Request ticket server x; ticket is likely out of date@R kvno 4 not found in keytab; keytab is likely out of date", "kvno-old" },
    { KRB_ACCEPTOR, 0xd0000, 0x96c73a25, "Clock skew too great", "clock-skew" },
    { KRB_ACCEPTOR, 0xd0000, 100005, "Ticket not yet valid", "ticket-not-yet-valid" },
    { KRB_ACCEPTOR, 0xd0000, 100005, "Ticket expired", "ticket-expired" },
    { KRB_ACCEPTOR, 0xd0000, 100005, "Request is a replay", "replay" },
    { KRB_ACCEPTOR, 0x40000, 0, "whatever", "bad-bindings" },
    { KRB_ACCEPTOR, 0x90000, 0, "Unknown error", "defective-token" },
    { KRB_ACCEPTOR, 0xd0000, 100001, "Success", "defective-token" },
    { KRB_ACCEPTOR, 0x70000, 0, "", "defective-token" },
    { KRB_ACCEPTOR, 0x70000, 2, "Key table file '/x' not found", "keytab-missing" },
    { KRB_ACCEPTOR, 0x70000, 0x96c73ab5, "Keytab FILE:/x is nonexistent or empty", "keytab-empty" },
    { KRB_ACCEPTOR, 0x70000, 0x96c73ad5, "Unsupported key table format version number", "keytab-unreadable" },
    { KRB_ACCEPTOR, 0xd0000, 5, "Input/output error", "kerberos-internal" },
    /* The initiator's. */
    { KRB_INITIATOR, 0xd0000, 0x96c73a07, "Server not found in Kerberos database", "spn-unknown" },
    { KRB_INITIATOR, 0xd0000, 100001, "Server SMTPSVC/x@R not found in Kerberos database", "spn-unknown" },
    { KRB_INITIATOR, 0xd0000, 100001, "Principal has multiple entries in Kerberos database", "spn-unknown" },
    { KRB_INITIATOR, 0xd0000, 100001, "Server krbtgt/FAR@R not found in Kerberos database", "realm-unknown" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a2c, "Key version is not available", "kvno-old" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a2c, "Request ticket server S kvno 3 not found in keytab; ticket is likely out of date", "kvno-old" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a1f, "Decrypt integrity check failed", "wrong-key" },
    { KRB_INITIATOR, 0xd0000, 100001, "Message stream modified", "wrong-key" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a9a, "Cannot find KDC for realm \"CORP.TEST\"", "no-kdc" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a9c, "Cannot contact any KDC for realm 'CORP.TEST'", "kdc-silent" },
    { KRB_INITIATOR, 0x70000, 0x96c73a8d, "No Kerberos credentials available (default cache: FILE:/x)", "no-credentials" },
    { KRB_INITIATOR, 0x70000, 100001, "SPNEGO cannot find mechanisms to negotiate", "no-credentials" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a0e, "KDC has no support for encryption type", "enctype-unsupported" },
    { KRB_INITIATOR, 0xd0000, 0x96c73ac8, "No credentials found with supported encryption types", "enctype-unsupported" },
    { KRB_INITIATOR, 0x70000, 0x96c73a18, "Preauthentication failed", "preauth-failed" },
    { KRB_INITIATOR, 0x70000, 0x96c73a17, "Password has expired", "password-expired" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a12, "Client's credentials have been revoked", "client-revoked" },
    { KRB_INITIATOR, 0xd0000, 0x96c73a06, "Client 'nosuch@CORP.TEST' not found in Kerberos database", "client-unknown" },
    { KRB_INITIATOR, 0xb0000, 0, "", "ticket-expired" },
};

static void test_decisions(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum krb_cause cause = krb_failure_decide(rows[i].side, rows[i].major, rows[i].minor, str_of(rows[i].text));
        if (strcmp(krb_cause_word(cause), rows[i].cause) != 0)
            fail_msg("%s: %s, not %s", rows[i].text, krb_cause_word(cause), rows[i].cause);
    }
}

static void test_words(void **state)
{
    for (unsigned i = 1; i < KRB_CAUSES; i++) {
        const char *word = krb_cause_word((enum krb_cause)i);
        assert_true(word[0]);
        assert_int_equal(krb_cause_of_word(str_of(word)), i);
    }
    assert_int_equal(krb_cause_of_word(STR("nosuch")), KRB_CAUSE_NONE);
    assert_string_equal(krb_cause_word((enum krb_cause)1000), "kerberos-internal");
    assert_true(krb_cause_temporary(KRB_CAUSE_KDC_SILENT) && krb_cause_temporary(KRB_CAUSE_CLOCK_SKEW) &&
                krb_cause_temporary(KRB_CAUSE_KVNO_OLD));
    assert_false(krb_cause_temporary(KRB_CAUSE_REPLAY) || krb_cause_temporary(KRB_CAUSE_PREAUTH_FAILED));
}

static void test_own_sentences(void **state)
{
    struct krb_failure failure;
    char longest[1000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    krb_failure_set(&failure, KRB_CAUSE_REPLAY, "one\ntwo %d \xff", 3);
    assert_string_equal(failure.minor_text, "one?two 3 ?");
    krb_failure_set(&failure, KRB_CAUSE_REPLAY, "%s", longest);
    assert_int_equal(strlen(failure.minor_text), sizeof failure.minor_text - 1);
}

static void test_init(void **state)
{
    struct err err = { 0 };
    assert_true(krb_init("/nonexistent/krb5.conf", &err) < 0);
    assert_non_null(strstr(err.text, "/nonexistent/krb5.conf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_decisions), cmocka_unit_test(test_words),
                                        cmocka_unit_test(test_own_sentences), cmocka_unit_test(test_init) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
