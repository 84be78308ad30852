#include "daemon/smtpd/smtpd.h"

#include <stdlib.h>

#include "base/hash.h"

struct ask {
    uint32_t id;
    enum ask_kind kind;
    struct session *session;
    UT_hash_handle hh;
};

struct asks {
    struct ask *by_id;
    uint32_t last_id;
};

int asks_new(struct asks **ret_asks)
{
    *ret_asks = calloc(1, sizeof **ret_asks);
    return *ret_asks ? 0 : -ENOMEM;
}

static struct ask *find(struct asks *asks, uint32_t id)
{
    struct ask *ask;
    HASH_FIND(hh, asks->by_id, &id, sizeof id, ask);
    return ask;
}

static void drop(struct asks *asks, struct ask *ask)
{
    ask->session->ask_id = 0;
    HASH_DEL(asks->by_id, ask);
    free(ask);
}

uint32_t ask_begin(struct asks *asks, enum ask_kind kind, struct session *s)
{
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask)
        return 0;
    do
        ask->id = ++asks->last_id;
    while (ask->id == 0 || find(asks, ask->id));
    ask->kind = kind;
    ask->session = s;
    HASH_ADD(hh, asks->by_id, id, sizeof ask->id, ask);
    if (!hash_has(ask)) {
        free(ask);
        return 0;
    }
    s->ask_id = ask->id;
    return ask->id;
}

struct session *ask_answered(struct asks *asks, enum ask_kind kind, uint32_t id, bool keep)
{
    struct ask *ask = find(asks, id);
    if (!ask || ask->kind != kind)
        return NULL;
    struct session *s = ask->session;
    if (!keep)
        drop(asks, ask);
    return s;
}

void ask_forget(struct asks *asks, struct session *s)
{
    struct ask *ask = s->ask_id ? find(asks, s->ask_id) : NULL;
    if (ask)
        drop(asks, ask);
}

void asks_fail(struct asks *asks, enum ask_kind kind, void (*each)(struct session *s))
{
    struct ask *ask, *next;
    HASH_ITER(hh, asks->by_id, ask, next) {
        if (ask->kind != kind)
            continue;
        struct session *s = ask->session;
        drop(asks, ask);
        each(s);
    }
}
