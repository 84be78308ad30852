#include "daemon/auth/identify.h"

#include <stdlib.h>

struct identify {
    struct auth *auth;
    struct identity *identity;
    identify_fn *answered; /* NULL: nobody waits any more */
    void *arg;
    struct lookup *lookup; /* a directory that is being asked */
};

static void finish(struct identify *i, const struct identity_result *result)
{
    identify_fn *answered = i->answered;
    if (answered)
        answered(i->arg, result);
    identity_free(&i->identity);
    free(i);
}
