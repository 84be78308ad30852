/* seal_state: what the two halves of seal.h agree on: seal_export.c writes a state, seal.c reads it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { KRB_SEAL_STATE_VERSION = 1 };

/* Encryption types whose contexts use the tokens of RFC 4121. */
bool krb_seal_knows(uint32_t enctype);
