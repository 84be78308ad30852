/* dns_event: libunbound's pluggable event base over io/loop.h. One base a resolver context; it must live
 * until ub_ctx_delete() has returned. */
#pragma once
#include <unbound-event.h>

#include "io/loop.h"

struct dns_event_base {
    struct ub_event_base ub; /* first: the library knows only this */
    struct loop *loop;
};

void dns_event_base_init(struct dns_event_base *base, struct loop *loop);
