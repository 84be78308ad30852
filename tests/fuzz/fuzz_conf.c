/* The configuration reader under any text. The input is cut at NULs into files: the first is the main one, every
 * other name (and every pattern) is answered with the second, third … in turn. What loads must also load from its
 * bundle and from its dump, to the same; mistakes must print and be valid JSON. */
#include <assert.h>
#include <stdlib.h>

#include "conf/dump.h"
#include "conf/load.h"
#include "policy/access.h"
#include "policy/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct files {
    struct str first, rest;
    unsigned asked;
};

static int fuzz_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    struct files *f = ctx;
    struct str text = f->first;
    if (!str_eq(str_of(path), STR("f"))) {
        if (f->rest.n == 0 || f->asked++ > 50)
            return err_errno(err, ENOENT, "cannot open %s", path);
        str_cut(&f->rest, 0, &text);
    }
    return buf_add(into, text) ? 0 : err_set(err, ERR_LIMIT, "too large");
}

static int fuzz_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    buf_add(into, str_slice("d/1\0d/2", 8));
    return 0;
}

static struct buf dump(const struct conf *conf, unsigned flags)
{
    struct buf out;
    buf_init(&out, 64 << 20);
    bool ok = conf_dump(conf, flags, &out);
    assert(ok);
    return out;
}

static void check_again(const struct conf *conf, unsigned flags)
{
    struct buf text = dump(conf, flags), again_text;
    struct files files = { .first = buf_str(&text) };
    struct conf_reader reader = { &files, "/", fuzz_read, fuzz_list };
    struct conf_mistakes m;
    const struct conf *again;
    conf_mistakes_init(&m);
    int rc = conf_load(&reader, "f", NULL, &m, &again, NULL);
    if (rc == 0) {
        again_text = dump(again, flags);
        assert(str_eq(buf_str(&text), buf_str(&again_text)));
        buf_done(&again_text);
        conf_unref(&again);
    } else {
        fwrite(text.p, 1, text.n, stderr);
        struct buf why;
        buf_init(&why, 1 << 20);
        conf_mistakes_print(&m, false, &why);
        fwrite(why.p, 1, why.n, stderr);
        abort();
    }
    conf_mistakes_done(&m);
    buf_done(&text);
}

static void check_bundle(const struct conf *conf, struct str bundle)
{
    struct conf_mistakes m;
    const struct conf *again;
    conf_mistakes_init(&m);
    int rc = conf_load_bundle(bundle, &m, &again, NULL);
    assert(rc == 0);
    struct buf a = dump(conf, CONF_DUMP_JSON), b = dump(again, CONF_DUMP_JSON);
    assert(str_eq(buf_str(&a), buf_str(&b)));
    buf_done(&a);
    buf_done(&b);
    conf_unref(&again);
    conf_mistakes_done(&m);
}

static void ask_policy(const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_domains; i++) {
        int found = route_find(conf, str_of(conf->domain[i].name));
        assert(found >= 0);
        assert(str_find(str_of(conf->domain[i].name), '*') == 0 || (size_t)found == i);
    }
    for (size_t i = 0; i < conf->n_servers; i++)
        for (size_t k = 0; k < conf->server[i].n_hosts; k++) {
            struct access_rules rules;
            access_find(&conf->server[i], conf->server[i].host[k].address, &rules);
            assert(rules.network);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct files files = { 0 };
    struct conf_mistakes m;
    const struct conf *conf;
    struct buf bundle, out;
    files.rest = str_slice(data, n);
    str_cut(&files.rest, 0, &files.first);
    struct conf_reader reader = { &files, "/", fuzz_read, fuzz_list };
    conf_mistakes_init(&m);
    buf_init(&bundle, CONF_BUNDLE_MAX);
    buf_init(&out, 16 << 20);
    int rc = conf_load(&reader, "f", &bundle, &m, &conf, NULL);
    assert(rc == 0 || rc == ERR_CONFIG);
    assert((rc == 0) == (m.n_errors == 0));
    conf_mistakes_print(&m, false, &out);
    bool ok = conf_mistakes_json(&m, "f", &out);
    assert(ok);
    if (rc == 0) {
        check_bundle(conf, buf_str(&bundle));
        check_again(conf, 0);
        check_again(conf, CONF_DUMP_NON_DEFAULT);
        ask_policy(conf);
    }
    conf_unref(&conf);
    if (conf_load_bundle(str_slice(data, n), &m, &conf, NULL) == 0)
        conf_unref(&conf);
    buf_done(&out);
    buf_done(&bundle);
    conf_mistakes_done(&m);
    return 0;
}
