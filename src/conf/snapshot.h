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
/* A block without blocks in it: directory, identity, peers. In the order of the files. */
struct conf_simple {
    void *item;
    const struct conf_node **node;
    size_t n;
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
    struct conf_simple simple[CONF_WHERES];
    bool out_of_memory;
};

/* check.c: what must stand together, and what must not. Adds to d->mistakes. */
void conf_check(struct conf_draft *d);
/* The child that sets `name`, or is a slip for it; NULL: nothing is there. */
const struct conf_node *conf_check_written(const struct conf_node *first, const char *name);
/* Where a block's option was written, or the block. */
struct conf_place conf_check_place(const struct conf_node *block, const char *name);
/* check_identity.c: Kerberos, directories, identity rules and peers. */
void conf_check_identity(struct conf_draft *d);
/* The login of a route. */
void conf_check_auth(struct conf_draft *d, const struct conf_domain *domain, const struct conf_node *node);
/* Equal titles among the blocks of a kind. */
struct conf_titled {
    const char *name;
    struct conf_place place;
};
void conf_check_twice(struct conf_draft *d, struct conf_titled *list, size_t n, const char *kind);
/* load.c: conf_load() without a bundle. */
int conf_load_with(const struct conf_reader *reader, const char *path, struct conf_mistakes *mistakes,
                   const struct conf **ret_conf, struct err *err);
