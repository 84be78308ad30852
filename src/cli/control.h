/* control: one request to the running daemon through its control socket (docs/control.md). Blocking, with a deadline
 * for each piece of the answer. */
#pragma once
#include <jansson.h>

#include "cli/cli.h"

/* Sends `request` (and `octets` behind it), calls `line` for each object before the last one, and gives the last one
 * to *ret_last (caller decrefs). Returns CLI_OK, the exit status that the daemon named, CLI_UNAVAILABLE when nobody
 * listens, or CLI_IO; unless CLI_OK, `err` says why. */
int control_ask(const struct conf *conf, json_t *request, struct str octets, void (*line)(void *arg, json_t *object),
                void *arg, json_t **ret_last, struct err *err);
