/* identify: from a proven name to a mailbox, senders and rights, by the identity rules (policy/identity.h).
 *
 * Rules that need no directory are done at once; a directory is asked on threads of its own, and one that is silent
 * costs IDENTIFY_DEADLINE_MS and then a temporary failure. */
#pragma once
#include "daemon/auth/auth.h"
#include "policy/identity.h"

enum { IDENTIFY_DEADLINE_MS = 10000, IDENTIFY_THREADS = 4 };

struct identify;
/* The result dies with the call. NULL: out of memory, or the directory did not answer in time. */
typedef void identify_fn(void *arg, const struct identity_result *result);

/* `answered` is called once, on the loop, perhaps from within; unless dropped before. */
void identify_ask(struct auth *auth, const struct identity_login *login, identify_fn *answered, void *arg,
                  struct identify **ret_identify);
/* Nobody waits for the answer any more; NULL is fine. */
void identify_drop(struct identify **identify);
