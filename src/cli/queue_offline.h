/* queue_offline: what waits in the spool, read from the disk while no daemon runs. */
#pragma once
#include <jansson.h>

#include "cli/cli.h"

/* Calls `line` for each message that matches, in the shape of the control socket's queue.list. CLI_OK, or CLI_UNAVAILABLE
 * with `err` when the spool cannot be read either: never an empty success. */
int queue_offline_list(const struct conf *conf, json_t *filter, void (*line)(void *arg, json_t *object), void *arg,
                       struct err *err);
