/* parse: text to a tree of options and blocks; includes are already in their place. Knows the syntax, not the
 * names (see conf/load.h for what it looks like). Pure but for its reader. */
#pragma once
#include "base/arena.h"
#include "conf/load.h"

enum { CONF_BLOCK_DEPTH_MAX = 8, CONF_NAME_MAX = 64, CONF_PARSE_NO_MEMORY = 1 };

struct conf_value {
    struct str text;          /* a NUL stands behind it, none within; UTF-8 */
    struct conf_place place;
};

/* An option, `name = value`, or a block, `name "title" { … }`. Everything belongs to the parser's arena. */
struct conf_node {
    struct conf_node *next;
    const char *name;
    struct conf_place place;
    bool is_block, has_title;
    struct str title;
    struct conf_node *child;  /* what stands in the block */
    bool is_list;             /* written in braces */
    bool append;              /* += */
    struct conf_value *value;
    size_t n_values;
};

struct conf_parser {
    const struct conf_reader *reader;
    struct arena *arena;
    struct conf_mistakes *mistakes;
    size_t total_bytes;
    unsigned n_files, include_depth, block_depth;
    const struct conf_source *source; /* the innermost file */
    int failed;               /* a negative code, or CONF_PARSE_NO_MEMORY: not the text's fault */
};

/* False after a syntax error (it is among the mistakes) or when p->failed is set. `err` is filled when `path`
 * itself cannot be read. */
bool conf_parse(struct conf_parser *p, const char *path, struct conf_node **ret_first, struct err *err);
