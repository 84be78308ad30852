/* addresslist: the mailboxes in a To, Cc or Bcc field (RFC 5322 section 3.4): display names, comments, groups, quoted
 * local parts, route-addresses. For sendmail -t. Pure; it takes what people's programs write and refuses what is no
 * address. */
#pragma once
#include "base/str.h"

/* Calls `found` with each bare mailbox in `field` (without the field's name; may be folded). False: something that
 * is no address; *ret_bad then is that part. */
bool smtp_addresslist_each(struct str field, void (*found)(void *arg, struct str mailbox), void *arg, struct str *ret_bad);
