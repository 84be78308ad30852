/* policy/identity: from a login to its principal, mailbox, addresses and rights. */
#include "policy/identity.h"

#include "policy/sender.h"
#include "text_conf.h"

#define HEAD "server \"s.test\" { listen = {\"127.0.0.1:25\"} }\ndomain \"corp.test\" { deliver = \"discard\" }\n"
#define DIRECTORY "directory \"CORP.TEST\" { servers = {\"ldap://dc1.corp.test\"} netbios = \"corp\" " \
                  "principal = \"svc@CORP.TEST\" keytab = \"/k\" }\n"
#define REALM "identity \"corp\" { realm = \"CORP.TEST\" domain = \"corp.test\" }\n"

static struct identity_rules *rules_of(const char *text)
{
    const struct conf *conf = text_conf(text);
    struct identity_rules *rules;
    struct err err = { 0 };
    assert_int_equal(identity_rules_new(conf, &rules, &err), 0);
    conf_unref(&conf);
    return rules;
}

static struct identity *start(struct identity_rules *rules, enum identity_class class, const char *name,
                              const char *domain)
{
    struct identity_login login = { class, str_of(name), str_of(domain) };
    struct identity *id;
    assert_int_equal(identity_new(rules, &login, &id, NULL), 0);
    return id;
}

static const char *say(const struct identity_result *r, struct buf *into)
{
    static const char *const verdicts[] = { "", "none", "refused", "later" };
    buf_clear(into);
    buf_addf(into, "%s ", r->principal);
    for (size_t i = 0; i < r->n_addresses; i++)
        buf_addf(into, "%s%s", i ? "," : "", r->address[i]);
    buf_add_c(into, verdicts[r->verdict]);
    if (r->cause)
        buf_addf(into, " %s", r->cause);
    return buf_cstr(into);
}

struct row {
    enum identity_class class;
    const char *name, *domain, *expected;
};

static void check_rows(struct identity_rules *rules, const struct row *row, size_t n)
{
    struct buf said;
    buf_init(&said, 4096);
    for (size_t i = 0; i < n; i++) {
        struct identity *id = start(rules, row[i].class, row[i].name, row[i].domain);
        assert_int_equal(identity_run(id), IDENTITY_DONE);
        const struct identity_result *r = identity_result(id);
        assert_string_equal(say(r, &said), row[i].expected);
        assert_true(r->n_steps > 0);
        assert_int_equal(r->rights, r->verdict == IDENTITY_REFUSED ? 0 : IDENTITY_RIGHTS_USER);
        identity_free(&id);
    }
    buf_done(&said);
}

static void test_same_person(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY REALM "identity \"u\" { domain = \"corp.test\" }\n");
    static const struct row rows[] = {
        { IDENTITY_KERBEROS, "alice@CORP.TEST", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_KERBEROS, "Alice@CORP.TEST", NULL, "Alice@CORP.TEST alice@corp.test" },
        { IDENTITY_NTLM, "CORP\\alice", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_NTLM, "alice", "corp", "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_NTLM, "alice", "corp.test", "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_NTLM, "alice@corp.test", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_STORE, "alice@corp.test", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_STORE, "CORP\\alice", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_STORE, "alice", NULL, "alice alice@corp.test" },
        { IDENTITY_STORE, "bob@else.test", NULL, "bob@else.test bob@else.test" },
        { IDENTITY_KERBEROS, "alice\\@corp.test@CORP.TEST", NULL, "alice@CORP.TEST alice@corp.test" },
    };
    check_rows(rules, rows, sizeof rows / sizeof *rows);
    identity_rules_unref(&rules);
}

/* Names that look like alice and are not. */
static void test_other_people(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY REALM "identity \"u\" { domain = \"corp.test\" }\n");
    static const struct row rows[] = {
        { IDENTITY_KERBEROS, "alice@corp.test", NULL, "alice@corp.test none" },
        { IDENTITY_KERBEROS, "alice@EVIL.TEST", NULL, "alice@EVIL.TEST none" },
        { IDENTITY_KERBEROS, "alice\\@corp.test@EVIL.TEST", NULL, "alice\\@corp.test@EVIL.TEST none" },
        { IDENTITY_KERBEROS, "x\\@CORP.TEST", NULL, " refused name-malformed" },
        { IDENTITY_KERBEROS, "alice", NULL, " refused name-malformed" },
        { IDENTITY_KERBEROS, "@CORP.TEST", NULL, " refused name-malformed" },
        { IDENTITY_KERBEROS, "alice@", NULL, " refused name-malformed" },
        { IDENTITY_NTLM, "alice", NULL, " refused name-malformed" },
        { IDENTITY_NTLM, "CORP\\alice", "EVIL", " refused name-malformed" },
        { IDENTITY_NTLM, "alice", "EVIL", "EVIL\\alice none" },
        { IDENTITY_NTLM, "EVIL\\alice", NULL, "EVIL\\alice none" },
        { IDENTITY_NTLM, "bob@else.test", NULL, "bob@else.test none" },
        { IDENTITY_STORE, "a\nb", NULL, " refused name-malformed" },
        { IDENTITY_STORE, "", NULL, " refused name-malformed" },
        { IDENTITY_STORE, "CORP\\", NULL, " refused name-malformed" },
        { IDENTITY_KERBEROS, "MX1$@CORP.TEST", NULL, "MX1$@CORP.TEST none" },
        { IDENTITY_KERBEROS, "SMTPSVC/mx1@CORP.TEST", NULL, "SMTPSVC/mx1@CORP.TEST none" },
        { IDENTITY_KERBEROS, "a b@CORP.TEST", NULL, "a b@CORP.TEST none" },
    };
    check_rows(rules, rows, sizeof rows / sizeof *rows);
    identity_rules_unref(&rules);
}

static void test_rules_in_order(void **state)
{
    struct identity_rules *rules = rules_of(
        HEAD "identity \"z-first\" { match = \"guest-.*@CORP\\\\.TEST\" reject = true }\n"
             "identity \"svc\" { match = \"svc-(.*)@(CORP)\\\\.TEST\" mailbox = \"\\\\1@\\\\2.test\" }\n"
             "identity \"half\" { match = \"ali\" mailbox = \"wrong@corp.test\" }\n"
             "identity \"none\" { match = \"(x)?y@CORP\\\\.TEST\" mailbox = \"\\\\1@corp.test\" }\n"
             REALM "identity \"old\" { realm = \"OLD.TEST\" reject = true }\n");
    static const struct row rows[] = {
        { IDENTITY_KERBEROS, "svc-Scan@CORP.TEST", NULL, "svc-Scan@CORP.TEST scan@corp.test" },
        { IDENTITY_KERBEROS, "guest-1@CORP.TEST", NULL, "guest-1@CORP.TEST refused identity-rejected" },
        { IDENTITY_KERBEROS, "alice@CORP.TEST", NULL, "alice@CORP.TEST alice@corp.test" },
        { IDENTITY_KERBEROS, "xy@CORP.TEST", NULL, "xy@CORP.TEST x@corp.test" },
        { IDENTITY_KERBEROS, "y@CORP.TEST", NULL, "y@CORP.TEST y@corp.test" }, /* an empty local part is no address */
        { IDENTITY_KERBEROS, "svc-a b@CORP.TEST", NULL, "svc-a b@CORP.TEST none" },
        { IDENTITY_KERBEROS, "bob@OLD.TEST", NULL, "bob@OLD.TEST refused identity-rejected" },
    };
    check_rows(rules, rows, sizeof rows / sizeof *rows);
    identity_rules_unref(&rules);
}

static void test_steps_name_places(void **state)
{
    struct identity_rules *rules = rules_of(HEAD "identity \"other\" {\n realm = \"X.TEST\"\n domain = \"x.test\"\n}\n" REALM);
    struct identity *id = start(rules, IDENTITY_KERBEROS, "alice@CORP.TEST", NULL);
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    const struct identity_result *r = identity_result(id);
    assert_int_equal(r->n_steps, 3);
    assert_null(r->step[0].place.file);
    assert_string_equal(r->step[0].tried, "alice@CORP.TEST of Kerberos");
    assert_string_equal(r->step[1].rule, "identity \"other\"");
    assert_int_equal(r->step[1].place.line, 4);
    assert_string_equal(r->step[1].outcome, "not of realm X.TEST");
    assert_int_equal(r->step[2].place.line, 7);
    assert_string_equal(r->step[2].place.file, "f");
    assert_string_equal(r->step[2].outcome, "mailbox alice@corp.test");
    assert_true(r->step[2].decided);
    identity_free(&id);
    identity_rules_unref(&rules);
}

#define LDAP "identity \"ldap\" { realm = \"CORP.TEST\" attribute = {\"mail\", \"proxyAddresses\"} }\n"

static void test_directory(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY LDAP REALM);
    static const struct identity_value values[] = {
        { STR("proxyaddresses"), STR("smtp:al@corp.test") },   { STR("proxyAddresses"), STR("SMTP:alice.a@corp.test") },
        { STR("proxyAddresses"), STR("X500:/o=Corp/cn=al") },  { STR("proxyAddresses"), STR("sip:a@corp.test") },
        { STR("proxyAddresses"), STR("smtp:Alice@CORP.test") }, { STR("mail"), STR("alice@corp.test") },
        { STR("mail"), STR("bad address@corp.test") },          { STR("other"), STR("eve@corp.test") },
        { STR("mail"), STR("a\0b@corp.test") },
    };
    struct identity *id = start(rules, IDENTITY_NTLM, "CORP\\alice", NULL);
    assert_int_equal(identity_run(id), IDENTITY_ASK);
    const struct identity_query *q = identity_query(id);
    assert_string_equal(q->directory->realm, "CORP.TEST");
    assert_true(str_eq(q->account, STR("alice")));
    assert_true(str_eq(q->principal, STR("alice@CORP.TEST")));
    assert_int_equal(q->attributes.n, 2);
    identity_answer(id, IDENTITY_FOUND, values, sizeof values / sizeof *values, STR_NONE);
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    const struct identity_result *r = identity_result(id);
    assert_string_equal(r->mailbox, "alice@corp.test");
    assert_int_equal(r->n_addresses, 3);
    assert_string_equal(r->address[1], "alice.a@corp.test");
    assert_string_equal(r->address[2], "al@corp.test");
    identity_free(&id);

    id = start(rules, IDENTITY_KERBEROS, "alice@CORP.TEST", NULL);
    assert_int_equal(identity_run(id), IDENTITY_ASK);
    identity_answer(id, IDENTITY_ABSENT, NULL, 0, STR_NONE);
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    assert_string_equal(identity_result(id)->mailbox, "alice@corp.test"); /* the rule behind it */
    identity_free(&id);

    id = start(rules, IDENTITY_KERBEROS, "alice@CORP.TEST", NULL);
    assert_int_equal(identity_run(id), IDENTITY_ASK);
    identity_answer(id, IDENTITY_UNREACHABLE, NULL, 0, STR("dc1 is silent"));
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    const struct identity_result *later = identity_result(id);
    assert_int_equal(later->verdict, IDENTITY_LATER); /* another rule might say otherwise: nobody is guessed */
    assert_string_equal(later->cause, "directory-down");
    assert_string_equal(later->step[later->n_steps - 1].outcome, "dc1 is silent");
    assert_int_equal(later->rights, 0);
    identity_free(&id);
    identity_rules_unref(&rules);
}

static void test_many_addresses(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY LDAP);
    struct identity_value values[IDENTITY_ADDRESSES_MAX + 10];
    char text[IDENTITY_ADDRESSES_MAX + 10][32];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        snprintf(text[i], sizeof text[i], "smtp:a%zu@corp.test", i);
        values[i] = (struct identity_value){ STR("proxyAddresses"), str_of(text[i]) };
    }
    struct identity *id = start(rules, IDENTITY_KERBEROS, "alice@CORP.TEST", NULL);
    assert_int_equal(identity_run(id), IDENTITY_ASK);
    identity_answer(id, IDENTITY_FOUND, values, sizeof values / sizeof *values, STR_NONE);
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    assert_int_equal(identity_result(id)->n_addresses, IDENTITY_ADDRESSES_MAX);
    assert_int_equal(identity_result(id)->n_steps, 3);
    identity_free(&id);
    identity_rules_unref(&rules);
}

static void test_table(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY "identity \"t\" { table = \"/t\" }\n" REALM);
    static const char text[] = "# who\n"
                               "alice@CORP.TEST\tal@corp.test  sales@corp.test *@lists.corp.test # comment\r\n"
                               "CORP\\bob robert@corp.test\n"
                               "Carol carol@corp.test\n"
                               "dave@OTHER.TEST dave@corp.test\n"
                               "eve@else.test eve@corp.test";
    struct err err = { 0 };
    struct identity *id = start(rules, IDENTITY_STORE, "carol", NULL);
    assert_int_equal(identity_run(id), IDENTITY_DONE);
    assert_int_equal(identity_result(id)->verdict, IDENTITY_LATER);
    assert_string_equal(identity_result(id)->cause, "table-missing");
    identity_free(&id);
    assert_int_equal(identity_rules_table(rules, STR("x"), STR(""), &err), ERR_ABSENT);
    assert_int_equal(identity_rules_table(rules, STR("t"), str_of(text), &err), 0);
    static const struct row rows[] = {
        { IDENTITY_NTLM, "corp\\ALICE", NULL, "ALICE@CORP.TEST al@corp.test,sales@corp.test,*@lists.corp.test" },
        { IDENTITY_KERBEROS, "bob@CORP.TEST", NULL, "bob@CORP.TEST robert@corp.test" },
        { IDENTITY_STORE, "carol", NULL, "carol carol@corp.test" },
        { IDENTITY_KERBEROS, "carol@CORP.TEST", NULL, "carol@CORP.TEST carol@corp.test" }, /* by the realm's rule */
        { IDENTITY_KERBEROS, "dave@OTHER.TEST", NULL, "dave@OTHER.TEST dave@corp.test" },
        { IDENTITY_KERBEROS, "dave@other.test", NULL, "dave@other.test none" },
        { IDENTITY_STORE, "Eve@Else.test", NULL, "Eve@Else.test eve@corp.test" },
        { IDENTITY_NTLM, "OTHER\\carol", NULL, "OTHER\\carol none" },
    };
    check_rows(rules, rows, sizeof rows / sizeof *rows);
    identity_rules_unref(&rules);
}

static void test_table_mistakes(void **state)
{
    struct identity_rules *rules = rules_of(HEAD "identity \"t\" { table = \"/t\" }\n");
    static const struct {
        const char *text, *expected;
    } rows[] = {
        { "alice\n", "/t: line 1: a mailbox must stand behind the name" },
        { "\n\nalice al\n", "/t: line 3: \"al\" is not an address" },
        { "alice *@corp.test\n", "/t: line 1: \"*@corp.test\" is not an address" },
        { "alice a@corp.test\nALICE b@corp.test\n", "/t: line 2: ALICE stands in line 1 already" },
        { "a\\b\\c a@corp.test\n", "/t: line 1: the first word is no name of a login" },
        { "\x01 a@corp.test\n", "/t: line 1: the first word is no name of a login" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = { 0 };
        assert_int_equal(identity_rules_table(rules, STR("t"), str_of(rows[i].text), &err), ERR_SYNTAX);
        assert_string_equal(err.text, rows[i].expected);
    }
    identity_rules_unref(&rules);
}

static void test_peers(void **state)
{
    struct identity_rules *rules = rules_of(
        HEAD DIRECTORY LDAP "peers \"mx\" { principals = {\"MX1$@CORP.TEST\", \"SMTPSVC/mx2@CORP.TEST\", "
                            "\"gw@else.test\"} rights = {relay, any-sender, headers, size} }\n"
                            "peers \"late\" { principals = {\"MX1$@CORP.TEST\"} rights = {submit} }\n"
                            "peers \"in\" { principals = {\"IN$@CORP.TEST\"} rights = {submit} }\n");
    static const struct {
        enum identity_class class;
        const char *name;
        uint32_t rights;
    } rows[] = {
        { IDENTITY_KERBEROS, "MX1$@CORP.TEST", 31 },
        { IDENTITY_KERBEROS, "SMTPSVC/mx2@CORP.TEST", 31 },
        { IDENTITY_NTLM, "corp\\mx1$", 31 },
        { IDENTITY_STORE, "GW@else.test", 31 },
        { IDENTITY_KERBEROS, "IN$@CORP.TEST", IDENTITY_SUBMIT },
        { IDENTITY_KERBEROS, "MX1$@corp.test", IDENTITY_RIGHTS_USER },
        { IDENTITY_STORE, "mx1$", IDENTITY_RIGHTS_USER },
        { IDENTITY_NTLM, "EVIL\\MX1$", IDENTITY_RIGHTS_USER },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct identity *id = start(rules, rows[i].class, rows[i].name, NULL);
        assert_int_equal(identity_run(id), IDENTITY_DONE); /* the directory is not asked for a peer */
        assert_int_equal(identity_result(id)->rights, rows[i].rights);
        assert_int_equal(identity_result(id)->peers != NULL, rows[i].rights != IDENTITY_RIGHTS_USER);
        identity_free(&id);
    }
    identity_rules_unref(&rules);
}

static void test_thousands_of_rules(void **state)
{
    struct buf text;
    buf_init(&text, 4 << 20);
    buf_add_c(&text, HEAD);
    for (int i = 0; i < 5000; i++)
        buf_addf(&text, "identity \"r%d\" { match = \"u%d@.*\" mailbox = \"m%d@corp.test\" }\n", i, i, i);
    struct identity_rules *rules = rules_of(buf_cstr(&text));
    static const struct row row = { IDENTITY_KERBEROS, "u4999@CORP.TEST", NULL, "u4999@CORP.TEST m4999@corp.test" };
    check_rows(rules, &row, 1);
    identity_rules_unref(&rules);
    buf_done(&text);
}

static void test_guess_of_class(void **state)
{
    struct identity_rules *rules = rules_of(HEAD DIRECTORY REALM);
    static const struct {
        const char *name;
        enum identity_class class;
    } rows[] = {
        { "alice", IDENTITY_STORE }, { "CORP\\alice", IDENTITY_NTLM }, { "alice@CORP.TEST", IDENTITY_KERBEROS },
        { "alice@corp.test", IDENTITY_NTLM }, { "alice@else.test", IDENTITY_STORE },
        { "alice@OTHER.TEST", IDENTITY_KERBEROS }, { "alice@", IDENTITY_STORE }, { "", IDENTITY_STORE },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(identity_login_of(rules, str_of(rows[i].name)).class, rows[i].class);
    identity_rules_unref(&rules);
}

static void test_sender(void **state)
{
    const char *address[] = { "alice@corp.test", "sales@corp.test", "*@lists.corp.test" };
    struct identity_result r = { .address = address, .n_addresses = 3 };
    struct buf text;
    buf_init(&text, SENDER_TEXT_MAX);
    assert_true(sender_text(&r, &text));
    assert_true(str_eq(buf_str(&text), STR("sales@corp.test *@lists.corp.test")));
    struct str mailbox = STR("alice@corp.test"), more = buf_str(&text);
    assert_true(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("Alice@Corp.test")));
    assert_true(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("sales@corp.test")));
    assert_true(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("any@lists.corp.test")));
    assert_true(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("")));
    assert_false(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("bob@corp.test")));
    assert_false(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("@lists.corp.test")));
    assert_false(sender_is_allowed(mailbox, more, IDENTITY_RIGHTS_USER, STR("x@evil.lists.corp.test")));
    assert_true(sender_is_allowed(mailbox, more, IDENTITY_ANY_SENDER, STR("bob@corp.test")));
    assert_true(sender_is_allowed(STR_NONE, STR_NONE, 0, STR_NONE));
    assert_false(sender_is_allowed(STR_NONE, STR_NONE, 0, STR("alice@corp.test")));
    buf_done(&text);

    struct conf conf = { .n_identities = 0 };
    assert_false(sender_is_restricted(&conf, CONF_SEND_AS_AUTO));
    assert_true(sender_is_restricted(&conf, CONF_SEND_AS_OWN));
    conf.n_identities = 1;
    assert_true(sender_is_restricted(&conf, CONF_SEND_AS_AUTO));
    assert_false(sender_is_restricted(&conf, CONF_SEND_AS_ANY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_person), cmocka_unit_test(test_other_people),
        cmocka_unit_test(test_rules_in_order), cmocka_unit_test(test_steps_name_places),
        cmocka_unit_test(test_directory), cmocka_unit_test(test_many_addresses),
        cmocka_unit_test(test_table), cmocka_unit_test(test_table_mistakes),
        cmocka_unit_test(test_peers), cmocka_unit_test(test_thousands_of_rules),
        cmocka_unit_test(test_guess_of_class), cmocka_unit_test(test_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
