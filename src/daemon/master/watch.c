#include "daemon/master/watch.h"

uint32_t watch_ask(struct watch *w, bool late, bool *ret_hangs)
{
    if (late)
        w->missed = 0;
    else if (w->open)
        w->missed++;
    *ret_hangs = w->missed >= WATCH_QUESTIONS;
    w->open = true;
    return ++w->asked;
}

void watch_answered(struct watch *w, uint32_t question)
{
    w->missed = 0;
    if (question == w->asked)
        w->open = false;
}

bool watch_is_late(int64_t since_last_ms, int64_t every_ms)
{
    return since_last_ms > every_ms + every_ms / 2;
}
