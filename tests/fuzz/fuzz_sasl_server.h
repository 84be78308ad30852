/* What the targets of the server's mechanisms share. The input is the client's responses, each behind a length of two
 * octets (big-endian); the first octet's lowest bit says whether there is an initial response. The exchange ends
 * when the input does. Passwords are right when they begin with "p". */
#pragma once
#include <assert.h>
#include <stdint.h>

#include "sasl/server.h"

static inline struct str fuzz_next(struct str *rest)
{
    if (rest->n < 2) {
        *rest = STR_NONE;
        return STR_NONE;
    }
    size_t n = (size_t)((unsigned char)rest->p[0] << 8 | (unsigned char)rest->p[1]);
    struct str all = str_skip(*rest, 2);
    struct str one = { all.p, n < all.n ? n : all.n };
    *rest = str_skip(all, one.n);
    return one;
}

static inline void fuzz_check(enum sasl_action action, const struct sasl_step *step)
{
    assert(action == step->action);
    assert(step->authcid.n <= SASL_USER_MAX && step->authzid.n <= SASL_USER_MAX);
    assert(step->password.n <= SASL_PASSWORD_MAX && step->challenge.n <= SASL_MESSAGE_MAX);
    if (action == SASL_CHECK_PASSWORD)
        assert(step->authcid.n > 0 && step->password.n > 0);
    if (action == SASL_NEED_VERIFIER || action == SASL_DONE)
        assert(step->authcid.n > 0 && step->authzid.n > 0);
    if (action == SASL_FAILED)
        assert(sasl_failure_of(step->cause)->code >= 400);
}

static inline int fuzz_server(const char *mechanism, struct sasl_server_options *options, const struct sasl_verifier *verifier,
                       const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str rest = str_slice(data + 1, size - 1);
    bool initial = (data[0] & 1) != 0;
    struct sasl_server *server = sasl_server_new(sasl_mechanism_find(str_of(mechanism)), options);
    struct sasl_step step;
    if (!server)
        return 0;
    enum sasl_action action = sasl_server_step(server, initial, initial ? fuzz_next(&rest) : STR_NONE, &step);
    fuzz_check(action, &step);
    while (action != SASL_DONE && action != SASL_FAILED) {
        if (action == SASL_CHECK_PASSWORD)
            action = sasl_server_checked(server, step.password.p[0] == 'p' ? SASL_RIGHT : SASL_WRONG, &step);
        else if (action == SASL_NEED_VERIFIER)
            action = sasl_server_verifier(server, data[0] & 2 ? SASL_UNKNOWN_USER : SASL_RIGHT, verifier, &step);
        else if (rest.n == 0)
            break;
        else
            action = sasl_server_step(server, true, fuzz_next(&rest), &step);
        fuzz_check(action, &step);
    }
    sasl_server_free(&server);
    return 0;
}
