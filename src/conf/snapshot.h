/* snapshot: what stands behind a struct conf, and what the loader's steps share. For src/conf only. */
#pragma once
#include <stdatomic.h>

#include "base/arena.h"
#include "conf/schema.h"

enum { CONF_ARENA_MAX = 256 << 20 };

/* An option that was written, found again by its block's name pointer, which is the block's alone. */
struct conf_written {
    const char *block;
    const struct conf_option *option;
    struct conf_place place;
};

struct conf_snapshot {
    struct conf conf;       /* first: a struct conf * is a struct conf_snapshot * */
    atomic_uint refs;
    struct arena arena;     /* all strings and arrays */
    struct conf_written *written; /* sorted by block and option once loaded */
    size_t n_written, written_cap;
};

/* Values and the nodes that they come from, side by side, until checks are done. */
struct conf_server_origin {
    const struct conf_node *node;
    const struct conf_node **host;  /* one a host block */
};
struct conf_draft {
    struct conf *conf;
    struct conf_snapshot *snapshot; /* the same */
    struct arena *arena;            /* the snapshot's */
    struct arena *scratch;          /* dies with the load */
    struct conf_mistakes *mistakes;
    const struct conf_node *top;
    struct conf_server *server;     /* conf->server, still writable; host arrays likewise */
    struct conf_server_origin *server_origin;
    struct conf_domain *domain;
    const struct conf_node **domain_node;
    bool out_of_memory;
};

/* check.c: what must stand together, and what must not. Adds to d->mistakes. */
void conf_check(struct conf_draft *d);
/* load.c: conf_load() without a bundle. */
int conf_load_with(const struct conf_reader *reader, const char *path, struct conf_mistakes *mistakes,
                   const struct conf **ret_conf, struct err *err);
