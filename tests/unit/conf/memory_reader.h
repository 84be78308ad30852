/* memory_reader: files that are strings, for tests of the loader. The table ends with a NULL path. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fnmatch.h>
#include <stdlib.h>

#include "conf/load.h"

struct memory_file {
    const char *path, *text;
};

static int memory_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    for (const struct memory_file *f = ctx; f->path; f++)
        if (str_eq(str_of(f->path), str_of(path)))
            return buf_add_c(into, f->text) ? 0 : err_set(err, ERR_LIMIT, "%s is too large", path);
    return err_errno(err, ENOENT, "cannot open %s", path);
}

static int memory_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    for (const struct memory_file *f = ctx; f->path; f++) {
        if (fnmatch(pattern, f->path, FNM_PATHNAME) == 0) {
            buf_add_c(into, f->path);
            buf_add_char(into, 0);
        }
    }
    return 0;
}

static inline struct conf_reader memory_reader(const struct memory_file *files)
{
    return (struct conf_reader){ (void *)files, "/home", memory_read, memory_list };
}

/* What `postern check` would print of this text: mistakes, then warnings. Freed by the caller. */
static inline char *memory_check(const struct memory_file *files)
{
    struct conf_reader reader = memory_reader(files);
    struct conf_mistakes m;
    const struct conf *conf;
    struct err err = { 0 };
    struct buf out;
    conf_mistakes_init(&m);
    buf_init(&out, 1 << 20);
    int rc = conf_load(&reader, files[0].path, NULL, &m, &conf, &err);
    assert_int_equal(rc, m.n_errors ? ERR_CONFIG : 0);
    assert_true((conf != NULL) == (rc == 0));
    conf_mistakes_print(&m, false, &out);
    conf_mistakes_print(&m, true, &out);
    conf_unref(&conf);
    conf_mistakes_done(&m);
    assert_non_null(buf_cstr(&out));
    return out.p;
}

/* A snapshot of files without mistakes. */
static inline const struct conf *memory_load(const struct memory_file *files)
{
    struct conf_reader reader = memory_reader(files);
    struct conf_mistakes m;
    const struct conf *conf;
    struct err err = { 0 };
    conf_mistakes_init(&m);
    int rc = conf_load(&reader, files[0].path, NULL, &m, &conf, &err);
    if (rc < 0) {
        struct buf out;
        buf_init(&out, 1 << 20);
        conf_mistakes_print(&m, false, &out);
        print_error("%s\n%s", err.text, buf_cstr(&out));
        buf_done(&out);
    }
    assert_int_equal(rc, 0);
    conf_mistakes_done(&m);
    return conf;
}
