/* schema: every option there is, in one table: name, type, range, default, where it may stand, where it goes, what
 * it means. The loader, the checker, the dump and postern.conf(5) all follow it. */
#pragma once
#include "base/arena.h"
#include "conf/conf.h"
#include "conf/parse.h"

enum conf_where {
    CONF_TOP, CONF_SERVER, CONF_HOST, CONF_DOMAIN, CONF_DIRECTORY, CONF_IDENTITY, CONF_PEERS, CONF_WHERES
};

enum conf_type {
    CONF_STRING,   /* const char * */
    CONF_PATH,     /* const char *, absolute */
    CONF_STRINGS,  /* struct conf_strings */
    CONF_BOOL,     /* bool */
    CONF_SIZE,     /* uint64_t, octets */
    CONF_DURATION, /* uint32_t, seconds */
    CONF_NUMBER,   /* uint32_t */
    CONF_CHOICE,   /* enum: the index into `choices` */
};

enum { CONF_HINT_BYTES = 160 };

struct conf_option {
    const char *name;
    enum conf_where where;
    enum conf_type type;
    size_t offset;              /* in the struct of `where` */
    uint64_t min, max;          /* of sizes, durations (in seconds) and numbers */
    const char *fallback;       /* the default as it would be written; lists: separated by spaces; NULL: none */
    bool inherited;             /* CONF_HOST: the default is the server's value */
    const char *const *choices; /* CONF_CHOICE: what may be written */
    /* The form of one string or list value. False: wrong, and `hint` says what would be right. */
    bool (*form)(struct str value, char hint[CONF_HINT_BYTES]);
    bool upper, lower;          /* stored in upper, lower case */
    /* The default when it follows from others. */
    const char *(*computed)(const struct conf *conf, struct arena *arena);
    const char *fallback_text;  /* for the manual: what a computed default is */
    const char *help;           /* for the manual, in mdoc */
    const char *example;        /* a value as it would be written */
};

/* A titled block. */
struct conf_block {
    const char *name;
    enum conf_where outer, where;
    size_t item_bytes, name_offset, place_offset, list_offset, count_offset; /* the last two: in the outer struct */
    /* The form of the title; NULL: checked by the loader. False: wrong, and `hint` says what would be right. */
    bool (*form)(struct str title, char hint[CONF_HINT_BYTES]);
    const char *title;          /* for the manual: what the title is */
    const char *help;
};

extern const struct conf_option conf_schema[];
extern const size_t conf_schema_n;
extern const struct conf_block conf_blocks[];
extern const size_t conf_blocks_n;

enum { CONF_OPTIONS_MAX = 200 };

/* NULL: no such option there. */
const struct conf_option *conf_option_find(enum conf_where where, struct str name);
const struct conf_block *conf_block_find(enum conf_where outer, struct str name);
/* The same option in another kind of block, or NULL. */
const struct conf_option *conf_option_elsewhere(struct str name, enum conf_where not_here);
/* "server", "host", "domain" …, or "" for the top level. */
const char *conf_where_name(enum conf_where where);
/* Names of options and blocks that may stand there; ends with NULL. */
void conf_names(enum conf_where where, const char *ret_names[CONF_OPTIONS_MAX]);
