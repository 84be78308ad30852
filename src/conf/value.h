/* value: one value of an option, from text and back. Follows the option's row in the schema. Pure. */
#pragma once
#include "conf/schema.h"

enum { CONF_VALUE_MAX = 1 << 20 };

/* Writes the value into `base` + option->offset; strings are copied into `arena`. `folder` is what a relative path
 * starts from. False: wrong; text and hint are in the two buffers. */
struct conf_value_error {
    char text[256];
    char hint[CONF_HINT_BYTES];
    struct conf_place place;
    bool out_of_memory;
};
bool conf_value_set(const struct conf_option *option, const struct conf_node *node, const char *folder,
                    struct arena *arena, void *base, struct conf_value_error *ret);
/* One row's value into another row of the same type, strings shared. */
void conf_value_copy(const struct conf_option *from, const void *from_base, const struct conf_option *to,
                     void *to_base);
/* The row's default. False: no memory. */
bool conf_value_default(const struct conf_option *option, struct arena *arena, void *base);

/* As it would be written in the file, quotes and braces included; nothing for a NULL string. */
void conf_value_write(const struct conf_option *option, const void *base, struct buf *into);
bool conf_value_equal(const struct conf_option *option, const void *base, const void *other_base);

bool conf_size_parse(struct str text, uint64_t *ret_octets);
void conf_size_format(uint64_t octets, struct buf *into);
bool conf_duration_parse(struct str text, uint64_t *ret_seconds);
void conf_duration_format(uint64_t seconds, struct buf *into);
void conf_string_write(struct str text, struct buf *into);
