/* ntlm_text: names between UTF-16LE, as NTLM carries them, and UTF-8, as we do.
 *
 * Decoding refuses lone surrogates, NUL and other control characters, and what is longer than the given room.
 * Without negotiated Unicode a name is in the client's OEM code page, which nobody tells us: only ASCII is taken. */
#pragma once
#include "base/buf.h"

/* Writes at most dst_bytes - 1 octets and a NUL. False: not decodable, or too long; dst is then empty. */
bool ntlm_text_decode(struct str wire, bool unicode, char *dst, size_t dst_bytes, struct str *ret_text);
/* Adds the text as UTF-16LE; false when it is no UTF-8 or does not fit. */
bool ntlm_text_encode(struct str text, struct buf *out);
/* The same in upper case, as NTOWFv2 wants the user's name: letters that have one capital in the scripts of Europe,
 * with Windows' table (no locale, no special cases such as the German sharp s). */
bool ntlm_text_encode_upper(struct str text, struct buf *out);
