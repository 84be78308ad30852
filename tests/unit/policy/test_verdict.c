/* The access matrix: every combination is asked, and checked against rules stated once, in words of their own. */
#include "policy/verdict.h"

#include <stdio.h>

#include "text_conf.h"

static const char *const all[] = { "SCRAM-SHA-256", "PLAIN", "LOGIN" }, *const clear[] = { "PLAIN", "LOGIN" };
static const char *const plus[] = { "LOGIN", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256" };

static const struct conf_strings lists[] = { { all, 3 }, { clear, 2 }, { plus, 3 }, { NULL, 0 } };
/* Offered under TLS with and without something to bind to, without TLS, and without TLS where plaintext = true. */
static const char *const offers[][4] = {
    { "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN", "SCRAM-SHA-256 PLAIN LOGIN", "SCRAM-SHA-256",
      "SCRAM-SHA-256 PLAIN LOGIN" },
    { "PLAIN LOGIN", "PLAIN LOGIN", "", "PLAIN LOGIN" },
    { "LOGIN SCRAM-SHA-256-PLUS SCRAM-SHA-256", "LOGIN SCRAM-SHA-256", "SCRAM-SHA-256", "LOGIN SCRAM-SHA-256" },
    { "", "", "", "" },
};

static void check(const struct verdict_session *in, size_t list)
{
    const struct access_rules *r = in->rules;
    struct verdict v;
    verdict_session(in, &v);
    bool submission = in->listener != CONF_LISTEN;
    if (r->accept == CONF_ACCEPT_DENY) {
        assert_true(v.deny && !v.need_tls && !v.need_auth && !v.offer_starttls && !v.offer_auth && !v.mechanisms[0]);
        return;
    }
    assert_false(v.deny);
    bool wants_tls = r->accept == CONF_ACCEPT_TLS || r->accept == CONF_ACCEPT_AUTH_TLS;
    bool wants_auth = r->accept == CONF_ACCEPT_AUTH || r->accept == CONF_ACCEPT_AUTH_TLS || submission;
    assert_int_equal(v.need_auth, wants_auth && !in->authenticated);
    const char *offer = offers[list][in->tls_active ? !in->channel_binding : r->plaintext ? 3 : 2];
    if (in->authenticated || (wants_tls && !in->tls_active))
        offer = "";
    assert_string_equal(v.mechanisms, offer);
    assert_int_equal(v.offer_auth, offer[0] != 0);
    assert_int_equal(v.offer_starttls, in->tls_possible && !in->tls_active && in->listener != CONF_SUBMISSIONS);
    bool only_by_tls = wants_auth && !in->authenticated && !offer[0] && r->mechanisms.n && in->tls_possible;
    assert_int_equal(v.need_tls, !in->tls_active && (wants_tls || only_by_tls));
    /* A clear-text mechanism is never offered without TLS unless this host is listed. */
    if (!in->tls_active && !r->plaintext)
        assert_true(!strstr(v.mechanisms, "PLAIN") && !strstr(v.mechanisms, "LOGIN"));
    /* What is offered is accepted, and what is not offered is not. */
    static const char *const names[] = { "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", "login", "CRAM-MD5" };
    for (size_t i = 0; i < 5 && !in->authenticated; i++) {
        char word[64], padded[VERDICT_MECHANISMS_BYTES + 2];
        snprintf(word, sizeof word, " %s ", i == 3 ? "LOGIN" : names[i]);
        snprintf(padded, sizeof padded, " %s ", v.mechanisms);
        assert_int_equal(verdict_mechanism(in, str_of(names[i])) == VERDICT_AUTH_OK, strstr(padded, word) != NULL);
    }
}

static void test_all(void **state)
{
    size_t n = 0;
    for (int accept = CONF_ACCEPT_ANY; accept <= CONF_ACCEPT_DENY; accept++)
        for (int kind = CONF_LISTEN; kind <= CONF_SUBMISSIONS; kind++)
            for (size_t list = 0; list < 4; list++)
                for (unsigned bits = 0; bits < 32; bits++, n++) {
                    struct access_rules rules = { .accept = (enum conf_accept)accept, .plaintext = bits & 1,
                                                  .mechanisms = lists[list] };
                    struct verdict_session in = { &rules,   (enum conf_listener_kind)kind,
                                                  bits & 2, bits & 4,
                                                  bits & 8, bits & 16 };
                    check(&in, list);
                }
    assert_int_equal(n, 5 * 3 * 4 * 32);
}

/* ---- layers and X-EXPS ---- */

static const char *const kerberos[] = { "PLAIN", "GSSAPI", "SCRAM-SHA-256", "GSS-SPNEGO", "NTLM", "LOGIN" };

static bool in_list(const char *list, const char *name)
{
    char word[64], padded[VERDICT_MECHANISMS_BYTES + 2];
    snprintf(word, sizeof word, " %s ", name);
    snprintf(padded, sizeof padded, " %s ", list);
    return strstr(padded, word) != NULL;
}

/* What is offered under X-EXPS is what Exchange knows of what is offered. */
static void check_exps(const struct verdict_session *in, const struct verdict *v)
{
    for (size_t i = 0; i < 6; i++) {
        bool known = i == 1 || i == 3 || i == 4 || i == 5;
        assert_int_equal(in_list(v->exps_mechanisms, kerberos[i]), in->rules->exps && known && in_list(v->mechanisms, kerberos[i]));
        if (!in->authenticated)
            assert_int_equal(verdict_mechanism(in, str_of(kerberos[i])) == VERDICT_AUTH_OK, in_list(v->mechanisms, kerberos[i]));
    }
}

static void check_layer(const struct verdict_session *in)
{
    const struct access_rules *r = in->rules;
    struct verdict v;
    verdict_session(in, &v);
    bool wants_tls = r->accept == CONF_ACCEPT_TLS || r->accept == CONF_ACCEPT_AUTH_TLS;
    bool wants_auth = r->accept == CONF_ACCEPT_AUTH || r->accept == CONF_ACCEPT_AUTH_TLS || in->listener != CONF_LISTEN;
    bool encrypted = in->tls_active || in->layer_active, mail = !v.need_tls && !v.need_auth;
    check_exps(in, &v);
    /* Mail passes exactly when all that is demanded is there. */
    assert_int_equal(mail, (encrypted || !wants_tls) && (in->authenticated || !wants_auth));
    assert_int_equal(v.offer_starttls, in->tls_possible && !encrypted && in->listener != CONF_SUBMISSIONS);
    if (in->authenticated || encrypted || !wants_tls)
        return;
    /* Encryption is missing: only what may bring it is offered, where that would count. */
    bool may_come = r->encryption != CONF_ENCRYPTION_TLS;
    assert_string_equal(v.mechanisms, may_come ? "GSSAPI GSS-SPNEGO NTLM" : "");
    assert_int_equal(v.need_tls, !may_come);
    assert_int_equal(v.need_auth, may_come || wants_auth);
    assert_int_equal(verdict_mechanism(in, STR("LOGIN")), VERDICT_AUTH_STARTTLS);
}

static void test_layers(void **state)
{
    struct conf_strings list = { kerberos, 6 };
    size_t n = 0;
    for (int accept = CONF_ACCEPT_ANY; accept <= CONF_ACCEPT_AUTH_TLS; accept++)
        for (int encryption = CONF_ENCRYPTION_TLS; encryption <= CONF_ENCRYPTION_ANY; encryption++)
            for (int kind = CONF_LISTEN; kind <= CONF_SUBMISSIONS; kind++)
                for (unsigned bits = 0; bits < 64; bits++) {
                    struct access_rules rules = { .accept = (enum conf_accept)accept, .mechanisms = list,
                                                  .encryption = (enum conf_encryption)encryption,
                                                  .plaintext = bits & 1, .exps = bits & 2 };
                    struct verdict_session in = { .rules = &rules, .listener = (enum conf_listener_kind)kind,
                                                  .tls_possible = bits & 4, .tls_active = bits & 8,
                                                  .authenticated = bits & 16, .layer_active = bits & 32 };
                    /* A layer comes of a login, and not inside TLS; it is active here only where it counts. */
                    if (in.layer_active && (!in.authenticated || in.tls_active || encryption == CONF_ENCRYPTION_TLS))
                        continue;
                    check_layer(&in);
                    n++;
                }
    assert_true(n > 4 * 3 * 3 * 32);
}

static void test_no_layer_without_its_mechanisms(void **state)
{
    struct access_rules rules = { .accept = CONF_ACCEPT_TLS, .encryption = CONF_ENCRYPTION_ANY, .mechanisms = lists[0] };
    struct verdict_session in = { .rules = &rules };
    struct verdict v;
    verdict_session(&in, &v);
    assert_true(v.need_tls && !v.need_auth && !v.offer_auth);
    assert_int_equal(verdict_mechanism(&in, STR("SCRAM-SHA-256")), VERDICT_AUTH_STARTTLS);
}

static void test_refusals(void **state)
{
    struct access_rules rules = { .accept = CONF_ACCEPT_ANY, .mechanisms = lists[1] };
    struct verdict_session in = { .rules = &rules, .tls_possible = true };
    assert_int_equal(verdict_mechanism(&in, STR("PLAIN")), VERDICT_AUTH_NEED_TLS);
    assert_int_equal(verdict_mechanism(&in, STR("SCRAM-SHA-256")), VERDICT_AUTH_UNKNOWN);
    rules.accept = CONF_ACCEPT_AUTH_TLS;
    assert_int_equal(verdict_mechanism(&in, STR("PLAIN")), VERDICT_AUTH_STARTTLS);
    rules.accept = CONF_ACCEPT_DENY;
    assert_int_equal(verdict_mechanism(&in, STR("PLAIN")), VERDICT_AUTH_UNKNOWN);
    rules = (struct access_rules){ .mechanisms = lists[0] };
    assert_int_equal(verdict_mechanism(&in, STR("SCRAM-SHA-256-PLUS")), VERDICT_AUTH_UNKNOWN);
}

static void test_recipients(void **state)
{
    struct conf_domain ours = { .deliver = "discard" }, route = { 0 };
    for (unsigned bits = 0; bits < 8; bits++) {
        struct access_rules rules = { .relay = bits & 1 };
        bool user = bits & 2, postmaster = bits & 4;
        struct verdict_recipient in = { &rules, user, &ours, postmaster };
        assert_int_equal(verdict_recipient(&in), VERDICT_RECIPIENT_OK);
        in.block = &route;
        assert_int_equal(verdict_recipient(&in), postmaster                ? VERDICT_RECIPIENT_OK
                                                 : user || rules.relay ? VERDICT_RECIPIENT_RELAY
                                                                       : VERDICT_RECIPIENT_REFUSED);
        in.block = NULL;
        assert_int_equal(verdict_recipient(&in), postmaster ? VERDICT_RECIPIENT_OK : VERDICT_RECIPIENT_REFUSED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_no_layer_without_its_mechanisms),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_recipients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
