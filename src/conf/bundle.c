/* bundle: what a reader answered, recorded and played back. The record of one load, in order; a replay that asks
 * anything else is another program's bundle, and refused. Written with base/wire.h:
 *
 *     u32 magic, folder, main path, then rows { u8 kind, name, answer } and u8 0 at the end. */
#include "base/wire.h"
#include "conf/load.h"
#include "conf/snapshot.h"

enum { BUNDLE_MAGIC = 0x31434e50 /* "PNC1" */, BUNDLE_END = 0, BUNDLE_FILE = 1, BUNDLE_LIST = 2 };

struct recorder {
    const struct conf_reader *from;
    struct buf *into;
};

static void record(struct recorder *r, uint8_t kind, const char *name, const struct buf *answer)
{
    wire_put_u8(r->into, kind);
    wire_put_str(r->into, str_of(name));
    wire_put_str(r->into, buf_str(answer));
}

static int record_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    struct recorder *r = ctx;
    int rc = r->from->read(r->from->ctx, path, into, err);
    if (rc == 0)
        record(r, BUNDLE_FILE, path, into);
    return rc;
}

static int record_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    struct recorder *r = ctx;
    int rc = r->from->list(r->from->ctx, pattern, into, err);
    if (rc == 0)
        record(r, BUNDLE_LIST, pattern, into);
    return rc;
}

int conf_load(const struct conf_reader *reader, const char *path, struct buf *ret_bundle,
              struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err)
{
    if (!ret_bundle)
        return conf_load_with(reader, path, mistakes, ret_conf, err);
    struct recorder recorder = { reader, ret_bundle };
    struct conf_reader recording = { &recorder, reader->folder, record_read, record_list };
    buf_clear(ret_bundle);
    wire_put_u32(ret_bundle, BUNDLE_MAGIC);
    wire_put_str(ret_bundle, str_of(reader->folder));
    wire_put_str(ret_bundle, str_of(path));
    int rc = conf_load_with(&recording, path, mistakes, ret_conf, err);
    wire_put_u8(ret_bundle, BUNDLE_END);
    if (rc == 0 && ret_bundle->failed) {
        conf_unref(ret_conf);
        return err_set(err, ERR_LIMIT, "%s: all files together are larger than %d MiB", path, CONF_BUNDLE_MAX >> 20);
    }
    return rc;
}

static int play(void *ctx, uint8_t kind, const char *name, struct buf *into, struct err *err)
{
    struct wire *wire = ctx;
    uint8_t is = wire_get_u8(wire);
    struct str is_name = wire_get_str(wire, CONF_BUNDLE_MAX), answer = wire_get_str(wire, CONF_BUNDLE_MAX);
    wire->bad = wire->bad || is != kind || !str_eq(is_name, str_of(name));
    if (wire->bad)
        return err_set(err, ERR_CORRUPT, "the configuration's bundle does not hold %s", name);
    if (!buf_add(into, answer))
        return err_set(err, ERR_LIMIT, "%s is larger than %zu octets", name, into->max);
    return 0;
}

static int play_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    return play(ctx, BUNDLE_FILE, path, into, err);
}

static int play_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    return play(ctx, BUNDLE_LIST, pattern, into, err);
}

int conf_load_bundle(struct str bundle, struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err)
{
    struct wire wire = wire_of(bundle);
    uint32_t magic = wire_get_u32(&wire);
    char folder[CONF_STRING_MAX], path[CONF_STRING_MAX];
    bool copied = str_copy(wire_get_str(&wire, sizeof folder), folder, sizeof folder);
    copied = str_copy(wire_get_str(&wire, sizeof path), path, sizeof path) && copied;
    *ret_conf = NULL;
    if (wire.bad || !copied || magic != BUNDLE_MAGIC)
        return err_set(err, ERR_CORRUPT, "this is not a bundle of configuration files");
    struct conf_reader reader = { &wire, folder, play_read, play_list };
    int rc = conf_load_with(&reader, path, mistakes, ret_conf, err);
    if (wire.bad || (rc == 0 && (wire_get_u8(&wire) != BUNDLE_END || !wire_end(&wire)))) {
        conf_unref(ret_conf);
        return err_set(err, ERR_CORRUPT, "the configuration's bundle is not whole");
    }
    return rc;
}
