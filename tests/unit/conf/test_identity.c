/* Kerberos, directories, identity rules and peers as the program sees them. */
#include <glob.h>

#include "memory_reader.h"

#include "conf/dump.h"

static void check(const struct conf *conf)
{
    const struct conf_server *s = &conf->server[0];
    assert_string_equal(s->keytab, "/etc/postern/mail.keytab");
    assert_int_equal(s->aliases.n, 2);
    assert_string_equal(s->aliases.item[1], "mail");
    assert_int_equal(s->spn.n, 0);
    assert_true(s->exps);
    assert_false(s->login_line);
    assert_int_equal(s->channel_binding, CONF_BINDING_ALLOW);
    assert_int_equal(s->encryption, CONF_ENCRYPTION_TLS);
    assert_int_equal(s->send_as, CONF_SEND_AS_AUTO);
    const struct conf_host *old = &s->host[0], *layers = &s->host[1];
    assert_true(old->exps && layers->exps); /* the server's */
    assert_string_equal(old->mechanisms.item[1], "NTLM");
    assert_int_equal(layers->encryption, CONF_ENCRYPTION_LAYER);
    assert_false(layers->ntlm_v1);

    assert_int_equal(conf->n_directories, 1);
    const struct conf_directory *d = &conf->directory[0];
    assert_string_equal(d->realm, "CORP.TEST");
    assert_string_equal(d->netbios, "CORP");
    assert_int_equal(d->servers.n, 2);
    assert_int_equal(d->bind, CONF_BIND_GSSAPI);
    assert_null(d->base);

    assert_int_equal(conf->n_identities, 3);
    assert_string_equal(conf->identity[0].name, "applications");
    assert_string_equal(conf->identity[0].match, "svc-(.*)@CORP\\.TEST");
    assert_string_equal(conf->identity[0].mailbox, "\\1@corp.test");
    assert_string_equal(conf->identity[1].attribute.item[1], "proxyAddresses");
    assert_null(conf->identity[2].realm);
    assert_string_equal(conf->identity[2].domain, "corp.test");

    assert_int_equal(conf->n_peers, 1);
    assert_string_equal(conf->peers[0].principals.item[0], "EX1$@CORP.TEST");
    assert_int_equal(conf->peers[0].rights.n, 4);

    const struct conf_domain *route = &conf->domain[1];
    assert_string_equal(route->auth, "X-EXPS");
    assert_false(route->auth_optional || route->seal);
    assert_string_equal(route->principal, "svc-postern@CORP.TEST");
    assert_string_equal(route->target_spn.item[0], "SMTPSVC/ex1.corp.test");
}

static void test_example(void **state)
{
    struct conf_mistakes m;
    const struct conf *conf;
    conf_mistakes_init(&m);
    assert_int_equal(conf_load_file(EXAMPLE_AD, &m, &conf, NULL), 0);
    assert_int_equal(m.n, 0);
    check(conf);
    assert_string_equal(conf->identity[0].place.file, EXAMPLE_AD);
    assert_true(conf->identity[0].place.line < conf->identity[1].place.line);
    struct conf_place nowhere = { 0 };
    assert_true(conf_place_of(conf, conf->peers[0].name, "rights", nowhere).line > conf->peers[0].place.line);

    struct buf text;
    buf_init(&text, 1 << 20);
    assert_true(conf_dump(conf, 0, &text));
    const struct memory_file files[] = { { "dump", buf_cstr(&text) }, { NULL, NULL } };
    const struct conf *again = memory_load(files);
    check(again);
    conf_unref(&again);
    buf_done(&text);
    conf_unref(&conf);
    conf_mistakes_done(&m);
}

/* What examples/ shows to copy must load. */
static void test_all_examples(void **state)
{
    glob_t found;
    assert_int_equal(glob(EXAMPLES "/*.conf", 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= 5);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct conf_mistakes m;
        const struct conf *conf = NULL;
        conf_mistakes_init(&m);
        int rc = conf_load_file(found.gl_pathv[i], &m, &conf, NULL);
        for (size_t k = 0; k < m.n; k++)
            print_error("%s:%u: %s\n", m.item[k].file, m.item[k].line, m.item[k].text);
        assert_int_equal(rc, 0);
        assert_int_equal(m.n, 0);
        conf_unref(&conf);
        conf_mistakes_done(&m);
    }
    globfree(&found);
}

static void test_values(void **state)
{
    const struct memory_file files[] = {
        { "f", "krb5_config = krb5.conf\n"
               "server \"s.test\" { listen = 127.0.0.1:25 login_line = yes send_as = own aliases = MAIL\n"
               " certificate = c channel_binding = require mechanisms = {LOGIN, NTLM, GSS-SPNEGO} keytab = k\n"
               " spn = {\"SMTPSVC/s.test@CORP.TEST\"} host 10.0.0.1 { ntlm_v1 = true send_as = any } }\n"
               "domain \"a.test\" { via = a.test auth = \"Optional:Gss-Spnego\" principal = \"p@R\" password_file = /p\n"
               " seal = true }\n"
               "identity \"n\" { realm = \"R\" netbios = nt domain = \"A.Test\" }\n" },
        { NULL, NULL },
    };
    const struct conf *conf = memory_load(files);
    const struct conf_server *s = &conf->server[0];
    assert_string_equal(conf->krb5_config, "/home/krb5.conf");
    assert_string_equal(s->keytab, "/home/k");
    assert_string_equal(s->aliases.item[0], "mail");
    assert_true(s->login_line && s->host[0].login_line && s->host[0].ntlm_v1);
    assert_int_equal(s->send_as, CONF_SEND_AS_OWN);
    assert_int_equal(s->host[0].send_as, CONF_SEND_AS_ANY);
    assert_int_equal(s->host[0].channel_binding, CONF_BINDING_REQUIRE);
    assert_string_equal(conf->domain[0].auth, "GSS-SPNEGO");
    assert_true(conf->domain[0].auth_optional && conf->domain[0].seal);
    assert_string_equal(conf->identity[0].netbios, "NT");
    assert_string_equal(conf->identity[0].domain, "a.test");
    conf_unref(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_example), cmocka_unit_test(test_all_examples),
                                       cmocka_unit_test(test_values) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
