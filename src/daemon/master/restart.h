/* restart: which changes of a configuration take effect only when posternd is started again. Pure. */
#pragma once
#include "base/buf.h"
#include "conf/conf.h"

/* Adds one line for each: `log: …`. Returns how many. `started` is what the processes were started with. */
size_t restart_needed(const struct conf *started, const struct conf *now, struct buf *ret_lines);
