/* ntlm_check: is what an NTLM client sent the right answer to our challenge?
 *
 * Users of the embedded store that were given an NT hash are checked against it; everybody else by winbind, that is by
 * the domain. Which of the two: a domain that a `directory` block names (its netbios name or realm) is winbind's; for
 * any other domain the store is asked first. Version 1 is checked against the store only.
 *
 * winbind is asked on threads of its own, because a hung winbindd blocks its caller for five minutes: after
 * NTLM_CHECK_DEADLINE_MS the login gets a temporary failure, and while all threads are lost in it no more are asked. */
#pragma once
#include "daemon/auth/auth.h"
#include "sasl/ntlm.h"
#include "sasl/server.h"

enum { NTLM_CHECK_DEADLINE_MS = 5000, NTLM_CHECK_THREADS = 2 };

struct ntlm_answer {
    enum sasl_verdict verdict;
    bool has_key;
    unsigned char session_base_key[SASL_NTLM_KEY_BYTES];
    char user[512];          /* "CORP\alice", or a name of the store */
    bool by_winbind;
    const char *cause;       /* stable word; NULL with SASL_RIGHT */
    bool guess;              /* refused because of name or password: it counts towards a lockout */
    struct str domain, workstation; /* as the client wrote them; they die with the call */
    char detail[200];        /* what winbind said: "NT_STATUS_ACCOUNT_DISABLED (0xc0000072)" */
};

struct ntlm_check;
typedef void ntlm_check_fn(void *arg, struct ntlm_answer *answer);

/* `answered` is called once, on the loop, unless dropped before; never from within. NULL: it cannot be told now, and
 * *ret_cause says why. */
struct ntlm_check *ntlm_check_ask(struct auth *auth, const struct conf *conf, const struct ntlm_proof *proof,
                                  ntlm_check_fn *answered, void *arg, const char **ret_cause);
/* Nobody waits for the answer any more; NULL is fine. */
void ntlm_check_drop(struct ntlm_check **check);
