/* verify: questions to the user store. What takes some 20 us (a lookup, a password verified a short while ago) is
 * answered at once; a PBKDF2, or a lookup while somebody writes to the store, is answered by a worker thread. */
#pragma once
#include "daemon/auth/auth.h"
#include "sasl/server.h"

enum verify_what {
    VERIFY_FIND,     /* the verifier of a user, for SCRAM */
    VERIFY_PASSWORD, /* is this the user's password? */
    VERIFY_EXISTS,   /* is there such a user or address? */
};

struct verify_answer {
    enum sasl_verdict verdict;            /* EXISTS: SASL_RIGHT = yes, SASL_UNKNOWN_USER = no */
    const struct sasl_verifier *verifier; /* FIND: the user's, or a decoy; NULL with SASL_CANNOT_TELL */
    const char *cause;                    /* why CANNOT_TELL, for the log: "store-failed", "busy", "late" */
};

typedef void verify_fn(void *arg, const struct verify_answer *answer);

struct verify;

/* True: *ret_answer is filled (its verifier lives until the next question). False: *ret_verify runs, and `answered` is
 * called once, on the loop, unless it is dropped before. */
bool verify_ask(struct auth *auth, enum verify_what what, struct str user, struct str password, verify_fn *answered,
                void *arg, struct verify **ret_verify, struct verify_answer *ret_answer);
/* Nobody waits for the answer any more; NULL is fine. */
void verify_drop(struct verify **verify);
