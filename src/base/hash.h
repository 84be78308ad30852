/* hash: uthash, told that want of memory is an error and not the end of the process. After every HASH_ADD… ask
 * hash_has(): without memory for its table the object is in none, and HASH_DEL must not be called for it. */
#pragma once
#ifdef UTHASH_H
#error "include base/hash.h instead of uthash.h: without it uthash ends the process when memory is out"
#endif
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
/* The hash of uthash falls through its cases without saying so in a way that clang reads. */
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"

#define hash_has(object) ((object)->hh.tbl != NULL)
