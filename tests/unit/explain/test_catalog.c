/* The catalogue: whole, without doubles, and found under every name that somebody may know. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "explain/catalog.h"

static bool ends_list(const char *const *list, size_t max)
{
    for (size_t i = 0; i <= max; i++)
        if (!list[i])
            return true;
    return false;
}

static void test_rows(void **state)
{
    const struct catalog_entry *entry;
    unsigned former = 0;
    size_t i;
    for (i = 0; (entry = catalog_at(i)) != NULL; i++) {
        if (entry->number <= former || !entry->name || !entry->happened)
            fail_msg("PE-%u %s", entry->number, entry->name ? entry->name : "");
        former = entry->number;
        assert_true(ends_list(entry->causes, CATALOG_CAUSES_MAX));
        assert_true(ends_list(entry->run, CATALOG_RUN_MAX));
        assert_true(ends_list(entry->former, CATALOG_FORMER_MAX));
        assert_int_equal(catalog_is_cause(entry), entry->number >= 2000);
        assert_int_equal(entry->section >= CATALOG_LOGIN, entry->number >= 2000);
        assert_int_equal(entry->why != NULL, entry->number >= 2000);
        if (entry->number >= 2000 && entry->number < 3000)
            assert_non_null(entry->reply);
        if (entry->level <= CATALOG_WARNING)
            assert_true(entry->causes[0] || entry->advice); /* whoever is alarmed is told where to look */
    }
    assert_int_equal(i, catalog_size());
    assert_null(catalog_at(i + 1));
    assert_true(i > 130);
}

static void test_names_are_unique(void **state)
{
    for (size_t i = 0; i < catalog_size(); i++)
        for (size_t j = i + 1; j < catalog_size(); j++)
            assert_string_not_equal(catalog_at(i)->name, catalog_at(j)->name);
}

static void test_causes(void **state)
{
    static const char *const words[] = {
        "keytab-missing", "keytab-unreadable", "keytab-empty", "kvno-old", "kvno-new", "wrong-key", "enctype-missing",
        "not-our-service", "service-not-allowed", "clock-skew", "ticket-not-yet-valid", "ticket-expired", "replay",
        "bad-bindings", "bindings-missing", "no-credentials", "enctype-unsupported", "defective-token", "kerberos-internal",
        "ntlm-v1", "ntlm-mic", "target-name", "wrong-password", "no-such-user", "account-disabled", "account-expired",
        "account-locked", "password-expired", "password-must-change", "logon-hours", "workstation-not-allowed",
        "account-restricted", "winbind-down", "winbind-no-permission", "winbind-silent", "identity-rejected",
        "directory-down", "bad-password", "unknown-user", "locked-out", "busy",
    };
    static const char *const outbound[] = {
        "mechanism-not-offered", "spn-unknown", "no-kdc", "kdc-silent", "preauth-failed", "client-unknown", "client-revoked",
        "password-expired", "realm-unknown", "peer-refused", "no-credentials", "clock-skew", "kvno-old", "wrong-key",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!catalog_cause("auth.reject", str_of(words[i])))
            fail_msg("%s", words[i]);
    for (size_t i = 0; i < sizeof outbound / sizeof *outbound; i++)
        if (!catalog_cause("delivery.login.failed", str_of(outbound[i])))
            fail_msg("%s", outbound[i]);
    assert_non_null(catalog_cause("auth.accept", STR("no-mailbox")));
    assert_non_null(catalog_cause("auth.accept", STR("ntlm-instead-of-kerberos")));
    assert_null(catalog_cause("auth.accept", STR("kvno-old")));
    assert_null(catalog_cause("auth.reject", STR("")));
    assert_null(catalog_cause("auth", STR("reject")));
}

/* Whether the entry `number` is among those found. */
static bool finds(const char *what, unsigned number)
{
    const struct catalog_entry *entry;
    size_t index = 0;
    bool found = false;
    while ((entry = catalog_search(str_of(what), &index)) != NULL)
        found = found || entry->number == number;
    return found;
}

static void test_search(void **state)
{
    assert_true(finds("kvno-old", 2104) && finds("kvno-old", 3018));
    assert_true(finds("KVNO-Old", 2104));
    assert_true(finds("auth.reject/kvno-old", 2104) && !finds("auth.reject/kvno-old", 3018));
    assert_true(finds("PE-2104", 2104) && finds("pe-2104", 2104) && finds("2104", 2104));
    assert_true(finds("auth.lockout", 1003));
    assert_true(finds("1706", 1301) && finds("MSExchangeTransport 1706", 1301) && finds("msexchangetransport 1706", 2217));
    assert_true(finds("7004", 3028) && finds("7010", 1101) && finds("1035", 1002) && finds("1012", 1003) && finds("12014", 1402));
    assert_true(finds("2017", 1301) && !finds("2017", 2017) && finds("PE-2017", 2017)); /* theirs, where both have it */
    assert_true(finds("40960", 2002) && finds("LSASRV 40961", 2002) && finds("KDC 11", 3006));
    assert_true(finds("0x80090322", 2104) && finds("0x80090322", 3020) && finds("SEC_E_WRONG_PRINCIPAL", 2104));
    assert_true(finds("KRB_AP_ERR_SKEW", 2110) && finds("0xc000006a", 2204) && finds("BackConnectionHostNames", 2203));
    size_t index = 0;
    assert_null(catalog_search(STR("MSExchangeTransport"), &index));
    assert_null(catalog_search(STR(""), &(size_t){ 0 }));
    assert_null(catalog_search(STR("170"), &(size_t){ 0 }));
    assert_null(catalog_search(STR("kvno"), &(size_t){ 0 }));
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static void test_markdown(void **state)
{
    size_t rows = 0;
    for (int section = 0; section < CATALOG_SECTIONS; section++) {
        struct buf out;
        buf_init(&out, 1 << 20);
        catalog_markdown((enum catalog_section)section, &out);
        const char *text = buf_cstr(&out);
        assert_non_null(text);
        assert_null(strstr(text, "{keytab}"));
        rows += count(text, "\n| PE-");
        assert_int_equal(count(text, "`") % 2, 0);
        buf_done(&out);
    }
    assert_int_equal(rows, catalog_size());
    struct buf out;
    buf_init(&out, 1 << 20);
    catalog_markdown(CATALOG_KERBEROS, &out);
    assert_non_null(strstr(buf_cstr(&out), "`klist -ket KEYTAB`; `kvno SERVICE`; `samba-tool domain exportkeytab KEYTAB "
                                           "--principal=SERVICE` (on a Samba DC)"));
    buf_clear(&out);
    catalog_markdown(CATALOG_OUTBOUND, &out);
    assert_non_null(strstr(buf_cstr(&out), "`Get-ReceiveConnector \\| fl Name")); /* a '|' would end the cell */
    buf_clear(&out);
    catalog_generic("a {keytab} {keytab-file} {x", &out);
    assert_string_equal(buf_cstr(&out), "a KEYTAB KEYTAB-FILE {x");
    buf_done(&out);
}

static void test_words(void **state)
{
    char id[CATALOG_ID_BYTES];
    const struct catalog_entry *entry = catalog_cause("auth.reject", STR("kvno-old"));
    catalog_id(entry, id);
    assert_string_equal(id, "PE-2104");
    assert_string_equal(catalog_word(entry), "kvno-old");
    assert_string_equal(catalog_word(catalog_at(0)), "auth.accept");
    assert_string_equal(catalog_level_name(entry->level), "error");
    assert_string_equal(catalog_section_name(entry->section), "kerberos");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),   cmocka_unit_test(test_names_are_unique), cmocka_unit_test(test_causes),
        cmocka_unit_test(test_search), cmocka_unit_test(test_markdown),         cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
