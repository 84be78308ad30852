/* watch: notices a process whose loop no longer turns. Master asks every process now and then, the loop answers; one
 * that leaves WATCH_QUESTIONS questions in a row unanswered hangs. Counted are master's own questions, not seconds: if
 * the machine sleeps, everything is stopped or master itself was held up, nobody has missed anything. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { WATCH_EVERY_MS = 10000, WATCH_QUESTIONS = 6 };

/* Of one process; zeros are its beginning. */
struct watch {
    uint32_t asked, missed;
    bool open;
};
/* Time to ask: the question's number. `late`: master's own clock was held up since the last time. *ret_hangs:
 * enough. */
uint32_t watch_ask(struct watch *watch, bool late, bool *ret_hangs);
void watch_answered(struct watch *watch, uint32_t question);
/* Whether the time between two questions says that master itself did not run. */
bool watch_is_late(int64_t since_last_ms, int64_t every_ms);
