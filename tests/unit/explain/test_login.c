/* The sentences: right for what is known, whole when nothing is known, and safe whatever a peer sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "explain/login.h"

#define KEYTAB STR("/etc/postern/mail.keytab")

static struct login_facts kerberos(const char *cause)
{
    static const struct login_key keys[] = {
        { STR("SMTPSVC/mail.corp.test@CORP.TEST"), 3, STR("aes256-cts") },
        { STR("smtpsvc/MAIL.corp.test@CORP.TEST"), 3, STR("aes128-cts") },
        { STR("host/other.corp.test@CORP.TEST"), 9, STR("rc4-hmac") },
    };
    static const struct str services[] = { STR("SMTPSVC/mail.corp.test"), STR("smtp/mail.corp.test") };
    return (struct login_facts){
        .cause = cause, .user = STR("alice"), .client = STR("192.0.2.7"), .server = STR("mail.corp.test"),
        .mechanism = "GSSAPI", .has_ticket = true, .ticket_service = STR("SMTPSVC/mail.corp.test"),
        .ticket_realm = STR("CORP.TEST"), .has_ticket_kvno = true, .ticket_kvno = 4, .ticket_enctype = STR("aes256-cts"),
        .keytab = KEYTAB, .keys = keys, .n_keys = 3, .services = services, .n_services = 2,
        .our_time_ms = 1800000000000, .client_time_ms = 1800000000000 + 600000,
    };
}

static void why_is(const struct login_facts *facts, const char *why)
{
    struct login_words words;
    login_explain(facts, &words);
    assert_string_equal(words.why, why);
}

static void test_kvno(void **state)
{
    struct login_facts f = kerberos("kvno-old");
    struct login_words words;
    login_explain(&f, &words);
    assert_string_equal(words.why, "alice's client has a ticket for SMTPSVC/mail.corp.test kvno 4 (aes256-cts); the keytab "
                                   "/etc/postern/mail.keytab has kvno 3: the account's password was changed after the keytab "
                                   "was made");
    assert_string_equal(words.run, "klist -ket /etc/postern/mail.keytab; kvno SMTPSVC/mail.corp.test; samba-tool domain "
                                   "exportkeytab /etc/postern/mail.keytab --principal=SMTPSVC/mail.corp.test (on a Samba DC)");
    assert_int_equal(words.number, 2104);
    assert_int_equal(words.level, CATALOG_ERROR);
    /* An account's keys decrypt tickets for all of its names. */
    f.ticket_service = STR("smtp/alias.corp.test");
    f.cause = "kvno-new";
    why_is(&f, "alice's client has a ticket for smtp/alias.corp.test kvno 4 (aes256-cts); the keytab /etc/postern/mail.keytab "
               "has kvno 3 and 9: the ticket was issued before the account's password was changed");
    f.user = STR_NONE;
    f.keys = NULL;
    f.n_keys = 0;
    why_is(&f, "the client 192.0.2.7 has a ticket for smtp/alias.corp.test kvno 4 (aes256-cts); the keytab "
               "/etc/postern/mail.keytab has another key version: the ticket was issued before the account's password was "
               "changed");
}

static void test_kerberos(void **state)
{
    struct login_facts f = kerberos("not-our-service");
    why_is(&f, "alice's client has a ticket for SMTPSVC/mail.corp.test kvno 4 (aes256-cts); the keytab /etc/postern/mail.keytab "
               "has keys of SMTPSVC/mail.corp.test@CORP.TEST and host/other.corp.test@CORP.TEST and none for it: that name "
               "belongs to another account");
    f.cause = "service-not-allowed";
    f.ticket_service = STR("cifs/mail.corp.test");
    why_is(&f, "alice's client has a ticket for cifs/mail.corp.test kvno 4 (aes256-cts): the key is right, but mail.corp.test "
               "answers to SMTPSVC/mail.corp.test and smtp/mail.corp.test only");
    f = kerberos("enctype-missing");
    f.ticket_kvno = 3;
    f.ticket_enctype = STR("rc4-hmac");
    why_is(&f, "alice's client has a ticket for SMTPSVC/mail.corp.test kvno 3 (rc4-hmac); the keytab /etc/postern/mail.keytab "
               "has only aes256-cts and aes128-cts of that key: the ticket's encryption type is missing");
    f = kerberos("keytab-missing");
    f.minor_text = STR("Key table file '/x' not found");
    why_is(&f, "the keytab /etc/postern/mail.keytab of mail.corp.test does not exist, so that no ticket can be read (Kerberos "
               "says: Key table file '/x' not found)");
}

static void test_skew(void **state)
{
    struct login_facts f = kerberos("clock-skew");
    f.has_ticket = false;
    why_is(&f, "alice's client has a Kerberos ticket, but the client's clock is 10 minutes ahead of ours; Kerberos allows five "
               "minutes");
    f.client_time_ms = f.our_time_ms - 90000;
    why_is(&f, "alice's client has a Kerberos ticket, but the client's clock is 90 seconds behind ours; Kerberos allows five "
               "minutes");
    f.client_time_ms = f.our_time_ms + 3 * 86400000LL;
    why_is(&f, "alice's client has a Kerberos ticket, but the client's clock is 3 days ahead of ours; Kerberos allows five "
               "minutes");
    f.client_time_ms = 0;
    why_is(&f, "alice's client has a Kerberos ticket, but the client's clock and ours are too far apart (ours says "
               "2027-01-15T08:00:00.000Z); Kerberos allows five minutes");
    f.client_time_ms = INT64_MIN;
    f.our_time_ms = INT64_MAX;
    struct login_words words;
    login_explain(&f, &words);
    assert_non_null(strstr(words.why, "too far apart"));
    f.client_time_ms = 1;
    login_explain(&f, &words);
    assert_non_null(strstr(words.why, "days behind ours"));
}

static void test_ntlm(void **state)
{
    struct login_facts f = { .cause = "wrong-password", .user = STR("CORP\\alice"), .client = STR("192.0.2.7"),
                             .server = STR("mail.corp.test"), .mechanism = "NTLM", .ntlm_domain = STR("CORP"),
                             .ntlm_workstation = STR("PC7"), .ntlm_target = STR("SMTPSVC/old.corp.test") };
    struct login_words words;
    login_explain(&f, &words);
    assert_string_equal(words.why, "the domain says that the password of CORP\\alice is wrong (from PC7)");
    assert_string_equal(words.run, "wbinfo -a alice; samba-tool user show alice (on a Samba DC)");
    f.cause = "target-name";
    why_is(&f, "CORP\\alice's client on PC7 meant to log in at SMTPSVC/old.corp.test, which is none of the names of "
               "mail.corp.test");
    f.cause = "no-mailbox";
    login_explain(&f, &words);
    assert_string_equal(words.run, "postern whoami 'CORP\\alice'");
    f.cause = "ntlm-instead-of-kerberos";
    login_explain(&f, &words);
    assert_int_equal(words.number, 2002);
}

static void test_outbound(void **state)
{
    struct login_outbound_facts f = {
        .cause = "peer-refused", .domain = STR("partner.test"), .peer = STR("mx.partner.test[192.0.2.9]:25"),
        .announced = STR("mx.partner.test"), .offered = STR("NTLM LOGIN"), .mechanism = "GSSAPI",
        .principal = STR("MAIL$@CORP.TEST"), .keytab = KEYTAB, .spn = STR("SMTPSVC/mx.partner.test"),
        .realm = STR("CORP.TEST"), .command = STR("X-EXPS GSSAPI"), .reply_code = 535,
        .reply = STR("535 5.7.3 Authentication unsuccessful"),
    };
    struct login_words words;
    login_explain_outbound(&f, &words);
    assert_string_equal(words.why, "mx.partner.test[192.0.2.9]:25 refused our login by GSSAPI as MAIL$@CORP.TEST: it answered "
                                   "X-EXPS GSSAPI with 535 5.7.3 Authentication unsuccessful");
    assert_string_equal(words.run, "kinit -k -t /etc/postern/mail.keytab 'MAIL$@CORP.TEST'; postern queue retry --domain "
                                   "partner.test");
    f.reply = STR("5.7.3 Authentication unsuccessful");
    login_explain_outbound(&f, &words);
    assert_non_null(strstr(words.why, "with 535 5.7.3 Authentication unsuccessful"));
    f.cause = "spn-unknown";
    f.kdc_text = STR("Server not found in Kerberos database");
    login_explain_outbound(&f, &words);
    assert_string_equal(words.why, "the KDC of CORP.TEST has no ticket for SMTPSVC/mx.partner.test, the name of "
                                   "mx.partner.test[192.0.2.9]:25: no account has that service principal name, or two have it "
                                   "(Kerberos says: Server not found in Kerberos database)");
    assert_string_equal(words.run, "kvno SMTPSVC/mx.partner.test; ldapsearch -LLL -Y GSSAPI "
                                   "'(servicePrincipalName=SMTPSVC/mx.partner.test)' sAMAccountName; setspn -Q "
                                   "SMTPSVC/mx.partner.test (on Windows)");
    f.cause = "mechanism-not-offered";
    login_explain_outbound(&f, &words);
    assert_string_equal(words.why, "mx.partner.test[192.0.2.9]:25 does not offer GSSAPI, which domain partner.test asks for; it "
                                   "offers NTLM LOGIN");
}

static bool is_whole(const char *text)
{
    size_t n = strlen(text);
    return n > 10 && !strchr(text, '{') && !strchr(text, '}') && !strstr(text, "  ") && text[n - 1] != ' ' && text[n - 1] != '.';
}

/* Every cause: a sentence of its own, without a placeholder left, with and without facts. */
static void test_every_cause(void **state)
{
    enum { MAX = 256 };
    static struct login_words words[MAX], bare;
    size_t n = 0;
    const struct catalog_entry *entry;
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++) {
        struct login_facts f = kerberos(catalog_word(entry));
        if (!catalog_is_cause(entry))
            continue;
        assert_true(n < MAX);
        if (entry->section == CATALOG_OUTBOUND) {
            login_explain_outbound(&(struct login_outbound_facts){ .cause = f.cause }, &bare);
            login_explain_outbound(&(struct login_outbound_facts){ .cause = f.cause, .peer = STR("mx"), .keytab = KEYTAB },
                                   &words[n]);
        } else {
            login_explain(&(struct login_facts){ .cause = f.cause }, &bare);
            login_explain(&f, &words[n]);
        }
        if (!is_whole(bare.why) || !is_whole(words[n].why))
            fail_msg("%s: \"%s\" \"%s\"", entry->name, bare.why, words[n].why);
        assert_int_equal(words[n].number, entry->number);
        assert_int_equal(bare.number, entry->number);
        if (strchr(bare.run, '{') || strchr(words[n].run, '{'))
            fail_msg("%s: %s", entry->name, bare.run);
        for (size_t j = 0; j < n; j++)
            assert_string_not_equal(words[j].why, words[n].why);
        n++;
    }
    assert_true(n > 90);
}

static void test_unknown_cause(void **state)
{
    struct login_words words;
    login_explain(&(struct login_facts){ .cause = "no-such\ncause", .detail = STR("x") }, &words);
    assert_string_equal(words.why, "the login failed for a reason that has no explanation yet: no-such?cause (x)");
    assert_int_equal(words.number, 0);
    assert_string_equal(words.run, "");
    login_explain(&(struct login_facts){ 0 }, &words);
    assert_string_equal(words.why, "the login failed for a reason that has no explanation yet: ");
    /* A cause of the other side has words too: a directory is asked with a ticket of ours. */
    login_explain(&(struct login_facts){ .cause = "kdc-silent" }, &words);
    assert_int_equal(words.number, 3008);
    assert_true(is_whole(words.why));
}

/* What a peer chose must neither end the line, nor sound like us, nor run in an administrator's shell. */
static void test_hostile(void **state)
{
    struct login_facts f = kerberos("kvno-old");
    struct login_words words;
    f.user = STR("x' \n\x1b[2J\xff\xc2\x9b\xc3\xa9");
    f.ticket_service = STR("$(reboot)/mail");
    f.keytab = STR("/etc/a b");
    login_explain(&f, &words);
    assert_non_null(strstr(words.why, "'x? ??[2J???\xc3\xa9''s client"));
    assert_non_null(strstr(words.why, "a ticket for '$(reboot)/mail' kvno 4"));
    assert_string_equal(words.run, "klist -ket KEYTAB; kvno SERVICE; samba-tool domain exportkeytab KEYTAB "
                                   "--principal=SERVICE (on a Samba DC)");
    static const char *const bad[] = { "-x", "a;b", "a`b`", "a b", "a'b", "a\"b", "a|b", "a&b", "a>b", "a\nb", "a*b", "a#b",
                                       "a(b", "~", "a!b", "\xc3\xa9", "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f = kerberos("spn-unknown");
        login_explain_outbound(&(struct login_outbound_facts){ .cause = "spn-unknown", .spn = str_of(bad[i]),
                                                               .principal = str_of(bad[i]) }, &words);
        assert_string_equal(words.run, "kvno SPN; ldapsearch -LLL -Y GSSAPI '(servicePrincipalName=SPN)' sAMAccountName; setspn "
                                       "-Q SPN (on Windows)");
    }
    /* Within a command's own quotes nothing may need quotes. */
    login_explain_outbound(&(struct login_outbound_facts){ .cause = "spn-unknown", .spn = STR("a$b") }, &words);
    assert_non_null(strstr(words.run, "'(servicePrincipalName=SPN)'"));
}

static void test_bounds(void **state)
{
    enum { LONG = 100000, MANY = 3000 };
    char *text = malloc(LONG);
    struct login_key *keys = calloc(MANY, sizeof *keys);
    struct str *services = calloc(MANY, sizeof *services);
    const struct catalog_entry *entry;
    struct login_words words;
    for (size_t i = 0; i < LONG; i++)
        text[i] = "\xc3\xa9"[i % 2];
    for (uint32_t i = 0; i < MANY; i++) {
        keys[i] = (struct login_key){ str_slice(text, i), i, str_slice(text, i) };
        services[i] = str_slice(text, i);
    }
    struct str s = str_slice(text, LONG);
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++) {
        login_explain(&(struct login_facts){ catalog_word(entry), s, s, s, "GSSAPI", NULL, true, s, s, true, UINT32_MAX, s, s, keys,
                                             MANY, services, MANY, 1, 2, s, s, s, s, s, s, s }, &words);
        assert_true(strlen(words.why) < sizeof words.why && strlen(words.run) < sizeof words.run);
        login_explain_outbound(&(struct login_outbound_facts){ catalog_word(entry), s, s, s, s, "NTLM", s, s, s, s, s, s, 535, s, 1, 2 },
                               &words);
        assert_true(strlen(words.why) < sizeof words.why && strlen(words.run) < sizeof words.run);
        size_t n = strlen(words.why);
        assert_false(n && (unsigned char)words.why[n - 1] == 0xc3); /* no half character */
    }
    free(services);
    free(keys);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvno),        cmocka_unit_test(test_kerberos),      cmocka_unit_test(test_skew),
        cmocka_unit_test(test_ntlm),        cmocka_unit_test(test_outbound),      cmocka_unit_test(test_every_cause),
        cmocka_unit_test(test_unknown_cause), cmocka_unit_test(test_hostile),     cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
