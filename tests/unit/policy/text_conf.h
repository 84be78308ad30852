/* text_conf: a snapshot from one string, for tests of decisions. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "conf/load.h"

static inline int text_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    return buf_add_c(into, ctx) ? 0 : err_set(err, ERR_LIMIT, "too large");
}

static inline int text_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    return 0;
}

static inline const struct conf *text_conf(const char *text)
{
    struct conf_reader reader = { (void *)text, "/", text_read, text_list };
    struct conf_mistakes m;
    const struct conf *conf;
    struct err err = { 0 };
    conf_mistakes_init(&m);
    assert_int_equal(conf_load(&reader, "f", NULL, &m, &conf, &err), 0);
    conf_mistakes_done(&m);
    return conf;
}
