/* keytab_file: the keytab file format 0x0502 (MIT krb5 documentation, "Keytab file format"), read entry by entry.
 *
 * Pure: views into the octets, no allocation, nothing is believed. Holes (deleted entries) are passed over. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { KEYTAB_FILE_PARTS_MAX = 16, KEYTAB_FILE_KEY_MAX = 512 };

struct keytab_file_entry {
    struct str realm;
    struct str part[KEYTAB_FILE_PARTS_MAX];
    unsigned n_parts;
    int32_t name_type;
    uint32_t timestamp_s;
    uint32_t kvno;
    int32_t enctype;
    struct str key;
};

struct keytab_file {
    struct str octets;
    size_t at;
};

/* ERR_SYNTAX: not a keytab of this format; the sentence says what it is instead. */
int keytab_file_open(struct str octets, struct keytab_file *ret_file, struct err *err);
/* 1: *ret_entry is filled; 0: the end; ERR_SYNTAX: damaged here, nothing after it can be read. */
int keytab_file_next(struct keytab_file *file, struct keytab_file_entry *ret_entry, struct err *err);
