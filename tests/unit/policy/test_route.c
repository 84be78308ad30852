#include "policy/route.h"

#include "text_conf.h"

static const char *find(const struct conf *conf, const char *domain)
{
    int i = route_find(conf, str_of(domain));
    return i < 0 ? "none" : conf->domain[i].name;
}

#define HEAD "server \"s\" { listen = \"127.0.0.1:25\" }\n"

static void test_order(void **state)
{
    const struct conf *conf = text_conf(HEAD "domain \"*\" { via = mx } domain \"corp.test\" { deliver = discard }\n"
                                             "domain \"*.corp.test\" { via = h } domain \"*.a.corp.test\" { via = h }\n"
                                             "domain \"b.a.corp.test\" { via = h } domain \"corp.tes\" { via = h }\n"
                                             "domain \"\xc3\xa4.test\" { via = h } domain \"corp-x.test\" { via = h }");
    static const char *const rows[][2] = {
        { "corp.test", "corp.test" },
        { "x.corp.test", "*.corp.test" },
        { "a.corp.test", "*.corp.test" },
        { "x.a.corp.test", "*.a.corp.test" },
        { "b.a.corp.test", "b.a.corp.test" },
        { "y.b.a.corp.test", "*.a.corp.test" },
        { "corp.testx", "*" },
        { "xcorp.test", "*" },
        { "corp.tes", "corp.tes" },
        { "", "*" },
        { ".", "*" },
        { "*.corp.test", "*.corp.test" },
        { "*", "*" },
        { "\xc3\xa4.test", "\xc3\xa4.test" },
        { "corp-x.test", "corp-x.test" },
        { "..corp.test", "*.corp.test" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(find(conf, rows[i][0]), rows[i][1]);
    assert_true(route_is_ours(&conf->domain[route_find(conf, STR("corp.test"))]));
    assert_false(route_is_ours(&conf->domain[route_find(conf, STR("other.test"))]));
    conf_unref(&conf);
}

static void test_none(void **state)
{
    const struct conf *conf = text_conf(HEAD "domain \"corp.test\" { deliver = discard }");
    assert_string_equal(find(conf, "other.test"), "none");
    assert_string_equal(find(conf, "corp.test"), "corp.test");
    conf_unref(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order), cmocka_unit_test(test_none) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
