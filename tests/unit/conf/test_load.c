/* Files that are right: what a snapshot holds, includes, bundles, and that a dump loads again to the same. */
#include "memory_reader.h"

#include <stdio.h>

#include "conf/dump.h"

static const struct conf_domain *domain(const struct conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->n_domains; i++)
        if (str_eq(str_of(conf->domain[i].name), str_of(name)))
            return &conf->domain[i];
    fail_msg("no domain %s", name);
    return NULL;
}

static void check_example(const struct conf *conf)
{
    assert_string_equal(conf->spool, "/var/spool/postern");
    assert_string_equal(conf->control, "/var/spool/postern/control");
    assert_string_equal(conf->mail_owner, "postern-delivery");
    assert_string_equal(conf->postmaster, "hostmaster@corp.test");
    assert_int_equal(conf->max_message_size, 50 << 20);
    assert_int_equal(conf->auth_line_max, 96 << 10);
    assert_int_equal(conf->auth_memory, 64 << 20);
    assert_int_equal(conf->session_log_days, 90);
    assert_int_equal(conf->expire_after_s, 5 * 86400);
    assert_int_equal(conf->resolver.n, 1);
    assert_int_equal(conf->n_servers, 2);
    const struct conf_server *mail = &conf->server[0], *partner = &conf->server[1];
    assert_string_equal(mail->name, "mail.corp.test");
    assert_int_equal(mail->listen.n, 2);
    assert_string_equal(mail->listen.item[1], "[::]:25");
    assert_string_equal(mail->submissions.item[0], "0.0.0.0:465");
    assert_int_equal(mail->accept, CONF_ACCEPT_ANY);
    assert_int_equal(mail->n_hosts, 2);
    const struct conf_host *scanner = &mail->host[0], *network = &mail->host[1];
    assert_string_equal(scanner->network, "192.168.7.20");
    assert_int_equal(scanner->prefix_bits, 128);
    assert_true(scanner->relay && scanner->plaintext);
    assert_int_equal(scanner->mechanisms.n, 1);
    assert_string_equal(scanner->mechanisms.item[0], "LOGIN");
    assert_int_equal(network->prefix_bits, 112);
    assert_int_equal(network->accept, CONF_ACCEPT_AUTH_TLS);
    assert_false(network->relay || network->plaintext);
    assert_int_equal(network->mechanisms.n, 3);
    assert_int_equal(partner->accept, CONF_ACCEPT_TLS);
    assert_null(partner->key);
    assert_string_equal(partner->tls_min, "1.2");
    assert_int_equal(conf->n_domains, 3);
    assert_string_equal(domain(conf, "corp.test")->deliver, "maildir:/var/mail/%u");
    assert_string_equal(domain(conf, "corp.test")->recipients, "users");
    const struct conf_domain *route = domain(conf, "partner.example");
    assert_null(route->deliver);
    assert_int_equal(route->tls, CONF_TLS_VERIFY);
    assert_string_equal(route->auth, "PLAIN");
    assert_string_equal(route->server, "mail.corp.test");
    assert_ptr_equal(route->server, mail->name);
    assert_string_equal(domain(conf, "*")->via.item[0], "mx");
    assert_int_equal(domain(conf, "*")->tls, CONF_TLS_OPPORTUNISTIC);
}

static void test_example(void **state)
{
    struct conf_mistakes m;
    const struct conf *conf;
    struct err err = { 0 };
    conf_mistakes_init(&m);
    assert_int_equal(conf_load_file(EXAMPLE, &m, &conf, &err), 0);
    assert_int_equal(m.n, 0);
    check_example(conf);
    assert_true(conf->server[0].place.line > 0);
    assert_string_equal(conf->server[0].place.file, EXAMPLE);

    const struct conf *same = conf_ref(conf);
    conf_unref(&conf);
    assert_null(conf);
    check_example(same);
    conf_unref(&same);
    conf_mistakes_done(&m);
}

static void test_absent(void **state)
{
    struct conf_mistakes m;
    const struct conf *conf;
    struct err err = { 0 };
    conf_mistakes_init(&m);
    assert_int_equal(conf_load_file("/nonexistent/postern.conf", &m, &conf, &err), -ENOENT);
    assert_string_equal(err.text, "cannot open /nonexistent/postern.conf: No such file or directory");
    assert_int_equal(conf_load_file("/", &m, &conf, &err), -EISDIR);
    assert_null(conf);
    assert_int_equal(m.n, 0);
    conf_mistakes_done(&m);
}

static const struct memory_file several[] = {
    { "etc/main.conf", "include(\"conf.d/*.conf\")\ninclude('one.inc') // what follows\nspool = rel/spool\n"
                       "domain \"*\" { via = {'mx', \"h\\x41.test\",} }\n" },
    { "etc/conf.d/10.conf", "server \"s.test\" {\n  listen = 127.0.0.1:25\n  certificate = \"tls/c.pem\"\n"
                            "  include(\"../hosts.inc\")\n}\n" },
    { "etc/conf.d/20.conf", "/* nothing\n\n */ domain \"d.test\" { deliver = \"discard\" }" },
    { "etc/conf.d/../hosts.inc", "\nhost \"10.0.0.0/8\" { mechanisms += {\"login\"} }\nhost \"10.1.1.1\" { }\n" },
    { "etc/one.inc", "users = \"users.db\"\r\nsession_log = \"/abs/s.jsonl\"\r\n" },
    { NULL, NULL },
};

static void test_includes(void **state)
{
    const struct memory_file files[] = {
        several[0], several[1],
        several[2], { several[3].path, "\nhost \"10.0.0.0/8\" { mechanisms = \"login\" }\nhost \"10.1.1.1\" { }\n" },
        several[4], { NULL, NULL },
    };
    const struct conf *conf = memory_load(files);
    assert_string_equal(conf->spool, "/home/etc/rel/spool");
    assert_string_equal(conf->users, "/home/etc/users.db");
    assert_string_equal(conf->session_log, "/abs/s.jsonl");
    const struct conf_server *s = &conf->server[0];
    assert_string_equal(s->certificate, "/home/etc/conf.d/tls/c.pem");
    assert_string_equal(s->place.file, "etc/conf.d/10.conf");
    assert_int_equal(s->n_hosts, 2);
    assert_string_equal(s->host[0].network, "10.1.1.1");
    assert_string_equal(s->host[1].place.file, "etc/conf.d/../hosts.inc");
    assert_int_equal(s->host[1].place.line, 2);
    assert_string_equal(s->host[1].mechanisms.item[0], "LOGIN");
    struct conf_place place = conf_place_of(conf, s->name, "certificate", s->place);
    assert_string_equal(place.file, "etc/conf.d/10.conf");
    assert_int_equal(place.line, 3);
    place = conf_place_of(conf, conf->file, "session_log", (struct conf_place){ 0 });
    assert_string_equal(place.file, "etc/one.inc");
    assert_int_equal(place.line, 2);
    assert_int_equal(conf_place_of(conf, s->host[1].network, "mechanisms", s->place).line, 2);
    assert_int_equal(conf_place_of(conf, s->host[0].network, "mechanisms", s->place).line, s->place.line);
    assert_int_equal(s->host[0].mechanisms.n, 3);
    const struct conf_domain *d = domain(conf, "*");
    assert_int_equal(d->via.n, 2);
    assert_string_equal(d->via.item[1], "hA.test");
    assert_string_equal(conf->postmaster, "postmaster@d.test");
    conf_unref(&conf);
}

/* += adds; what is there already is a mistake that names its own file and line. */
static void test_append(void **state)
{
    char *got = memory_check(several);
    assert_string_equal(got, "etc/conf.d/../hosts.inc:2: mechanisms: \"LOGIN\" stands here twice, once is enough\n");
    free(got);
    const struct memory_file files[] = {
        { "f", "server \"s\" { listen = \"127.0.0.1:1\" listen += {\"127.0.0.1:2\", \"127.0.0.1:3\"} }\ndomain \"d\" "
               "{ via=mx }" },
        { NULL, NULL },
    };
    const struct conf *conf = memory_load(files);
    assert_int_equal(conf->server[0].listen.n, 3);
    conf_unref(&conf);
}

static char *dump(const struct conf *conf, unsigned flags)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_true(conf_dump(conf, flags, &out));
    assert_non_null(buf_cstr(&out));
    return out.p;
}

static void check_round_trip(const struct conf *conf)
{
    static const unsigned flags[] = { 0, CONF_DUMP_NON_DEFAULT };
    char *whole = dump(conf, 0);
    for (size_t i = 0; i < 2; i++) {
        char *text = dump(conf, flags[i]);
        const struct memory_file files[] = { { "dump", text }, { NULL, NULL } };
        const struct conf *again = memory_load(files);
        char *whole_again = dump(again, 0), *text_again = dump(again, flags[i]);
        assert_string_equal(whole_again, whole);
        assert_string_equal(text_again, text);
        conf_unref(&again);
        free(whole_again);
        free(text_again);
        free(text);
    }
    free(whole);
}

static void test_round_trip(void **state)
{
    struct conf_mistakes m;
    const struct conf *conf;
    conf_mistakes_init(&m);
    assert_int_equal(conf_load_file(EXAMPLE, &m, &conf, NULL), 0);
    check_round_trip(conf);
    conf_unref(&conf);
    conf_mistakes_done(&m);
    const struct memory_file odd[] = {
        { "f",
          "postmaster = \"a@b.test\" spool = 'sp \"ace\\' retry_min = 61s auth_cache = 0 max_message_size = 1025\n"
          "server \"s.test\" { listen = {} mechanisms = {} strip_headers = {\"X-*\", 'Y-\"q'} submission = "
          "\"127.0.0.1:587\""
          " certificate = c host \"::/0\" { mechanisms = {\"PLAIN\"} strip_headers = {} line_ends = repair }"
          " host \"10.0.0.0/8\" { accept = deny } }\n"
          "domain \"*.d.test\" { deliver = \"lmtp:/run/x y\" recipients = ./r concurrency = 3 }\n"
          "domain \"e.test\" { via = {\"mx:26\", \"[::1]\", \"1.2.3.4:5\", \"::1\"} tls = require auth = plain user "
          "= \"\xc3\xa4\" "
          "password_file = p }" },
        { NULL, NULL },
    };
    conf = memory_load(odd);
    assert_string_equal(conf->spool, "/home/sp \"ace\\");
    check_round_trip(conf);
    conf_unref(&conf);
}

static void test_json_dump(void **state)
{
    const struct memory_file files[] = {
        { "f", "max_hops = 30 retry_min = 2m server \"s\" { listen = \"127.0.0.1:1\" host \"10.0.0.0/8\" { relay = "
               "yes } }\n"
               "domain \"d\" { via=mx }" },
        { NULL, NULL },
    };
    const struct conf *conf = memory_load(files);
    char *text = dump(conf, CONF_DUMP_JSON | CONF_DUMP_NON_DEFAULT);
    struct buf flat;
    buf_init(&flat, 1 << 20);
    for (const char *c = text; *c; c++)
        if (*c != ' ' && *c != '\n')
            buf_add_char(&flat, *c);
    assert_string_equal(
        buf_cstr(&flat),
        "{\"max_hops\":30,\"retry_min\":120,\"file\":\"f\",\"servers\":[{\"name\":\"s\",\"file\":\"f\",\"line\":1,"
        "\"listen\":[\"127.0.0.1:1\"],\"hosts\":[{\"network\":\"10.0.0.0/"
        "8\",\"file\":\"f\",\"line\":1,\"relay\":true}]}],"
        "\"domains\":[{\"name\":\"d\",\"file\":\"f\",\"line\":2,\"via\":[\"mx\"]}]}");
    buf_done(&flat);
    free(text);
    text = dump(conf, CONF_DUMP_JSON);
    assert_non_null(strstr(text, "\"max_message_size\": 52428800"));
    assert_non_null(strstr(text, "\"session_log\": null"));
    free(text);
    conf_unref(&conf);
}

static void test_bundle(void **state)
{
    const struct memory_file files[] = {
        several[0], several[1],     several[2], { several[3].path, "host \"10.0.0.0/8\" { }\n" },
        several[4], { NULL, NULL },
    };
    struct conf_reader reader = memory_reader(files);
    struct conf_mistakes m;
    const struct conf *conf, *again;
    struct err err = { 0 };
    struct buf bundle;
    conf_mistakes_init(&m);
    buf_init(&bundle, CONF_BUNDLE_MAX);
    assert_int_equal(conf_load(&reader, "etc/main.conf", &bundle, &m, &conf, &err), 0);
    assert_int_equal(conf_load_bundle(buf_str(&bundle), &m, &again, &err), 0);
    char *a = dump(conf, CONF_DUMP_JSON), *b = dump(again, CONF_DUMP_JSON); /* with files and lines */
    assert_string_equal(a, b);
    conf_set_generation(again, 7);
    assert_int_equal(again->generation, 7);
    conf_unref(&again);
    /* Cut anywhere, or with anything behind it, it is not a bundle. */
    for (size_t n = 0; n < bundle.n; n++) {
        conf_mistakes_done(&m);
        assert_int_equal(conf_load_bundle(str_slice(bundle.p, n), &m, &again, &err), ERR_CORRUPT);
        assert_null(again);
    }
    conf_mistakes_done(&m);
    buf_add_char(&bundle, 'x');
    assert_int_equal(conf_load_bundle(buf_str(&bundle), &m, &again, &err), ERR_CORRUPT);
    free(a);
    free(b);
    conf_unref(&conf);
    buf_done(&bundle);
    conf_mistakes_done(&m);
}

/* Sizes that somebody will have: ten thousand hosts and domains load in no time, and nothing is quadratic. */
static void test_large(void **state)
{
    struct buf text;
    buf_init(&text, CONF_FILE_MAX);
    buf_add_c(&text, "server \"s\" { listen = \"127.0.0.1:25\"\n");
    for (int i = 0; i < 20000; i++)
        buf_addf(&text, "host \"10.%d.%d.%d\" { relay = true }\n", i >> 16, (i >> 8) & 255, i & 255);
    buf_add_c(&text, "}\n");
    for (int i = 0; i < 20000; i++)
        buf_addf(&text, "domain \"d%d.test\" { deliver = \"discard\" }\n", i);
    const struct memory_file files[] = { { "f", buf_cstr(&text) }, { NULL, NULL } };
    const struct conf *conf = memory_load(files);
    assert_int_equal(conf->server[0].n_hosts, 20000);
    assert_int_equal(conf->n_domains, 20000);
    conf_unref(&conf);
    buf_done(&text);
}

static void test_depth(void **state)
{
    struct memory_file files[] = {
        { "a", "include(\"b\")" }, { "b", "include(\"c\")" }, { "c", "include(\"d\")" }, { "d", "include(\"e\")" },
        { "e", "include(\"g\")" }, { "g", "include(\"h\")" }, { "h", "include(\"i\")" }, { "i", "include(\"j\")" },
        { "j", "include(\"k\")" }, { "k", "\ninclude(\"l\")" }, { "l", "" }, { NULL, NULL },
    };
    char *got = memory_check(files);
    assert_non_null(strstr(got, "k:2: files include files more than 10 deep\n"));
    free(got);
    struct memory_file deep[] = {
        { "f", "a \"1\" { b \"2\" { c \"3\" { d \"4\" { e \"5\" { f \"6\" { g \"7\" { h \"8\" { i \"9\" {" },
        { NULL, NULL }
    };
    got = memory_check(deep);
    assert_non_null(strstr(got, "blocks stand in blocks more than 8 deep"));
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),   cmocka_unit_test(test_absent),    cmocka_unit_test(test_includes),
        cmocka_unit_test(test_append),    cmocka_unit_test(test_round_trip), cmocka_unit_test(test_json_dump),
        cmocka_unit_test(test_bundle),    cmocka_unit_test(test_large),     cmocka_unit_test(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
