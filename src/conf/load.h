/* load: from text to a snapshot.
 *
 * The syntax is that of libconfuse: `name = value`, strings in double quotes (escapes \n \t \" \\ \xHH) or
 * single ones (none), lists in braces, titled blocks, comments with #, // and between slash-stars,
 * include("FILE") with a path relative to the including file or a pattern ("conf.d/x*.conf"). Every file is read
 * through a reader, so that a test or a role without a file system loads as master does.
 *
 * A bundle is the record of what a reader answered, in order: file names with their contents. Loading it gives
 * the same snapshot and the same places, whatever has happened to the files since. Master makes it while it
 * checks, and hands it to the roles in a sealed memfd (IPC_CONFIG).
 *
 * All of it is bounded: CONF_FILE_MAX octets a file, CONF_TOTAL_MAX in all, CONF_FILES_MAX files,
 * CONF_DEPTH_MAX includes deep, CONF_LIST_MAX values in a list, CONF_BLOCKS_MAX blocks of a kind. */
#pragma once
#include "base/buf.h"
#include "conf/conf.h"
#include "conf/mistake.h"

enum {
    CONF_FILE_MAX = 8 << 20,
    CONF_TOTAL_MAX = 32 << 20,
    CONF_BUNDLE_MAX = 40 << 20,
    CONF_FILES_MAX = 1000,
    CONF_DEPTH_MAX = 10,
    CONF_LIST_MAX = 10000,
    CONF_BLOCKS_MAX = 100000,
    CONF_STRING_MAX = 4096,
};

struct conf_reader {
    void *ctx;
    const char *folder; /* what relative paths start from when the main file's is relative too; absolute */
    /* The whole file into `into`, whose cap is the limit. 0, or a negative errno with a text. */
    int (*read)(void *ctx, const char *path, struct buf *into, struct err *err);
    /* The names that match a shell pattern, each followed by NUL, sorted. None is not an error. */
    int (*list)(void *ctx, const char *pattern, struct buf *into, struct err *err);
};

/* Returns 0 with a snapshot (one reference; perhaps with warnings), ERR_CONFIG with mistakes, or another
 * negative code and a text when `path` itself cannot be read or memory is out. `mistakes` has been initialised
 * by the caller. With `ret_bundle` (a buffer with cap CONF_BUNDLE_MAX, or NULL) the bundle is written too. */
int conf_load(const struct conf_reader *reader, const char *path, struct buf *ret_bundle,
              struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err);

/* From the file system; see conf_load(). */
int conf_load_file(const char *path, struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err);
/* The same, and the bundle for the roles. */
int conf_bundle_write(const char *path, struct buf *ret_bundle, struct conf_mistakes *mistakes,
                      const struct conf **ret_conf, struct err *err);
/* A malformed bundle is ERR_CORRUPT. */
int conf_load_bundle(struct str bundle, struct conf_mistakes *mistakes, const struct conf **ret_conf, struct err *err);
/* The same snapshot with master's count of reloads in it; only before it is shared. */
void conf_set_generation(const struct conf *conf, uint64_t generation);
/* A number of processes counts from the start of the daemon to its end, whatever a reload says. */
void conf_set_delivery_processes(const struct conf *conf, uint32_t processes);
