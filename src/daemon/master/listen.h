/* listen: opens a listening socket for one smtpd process. Every process has a socket of its own on the same
 * address (SO_REUSEPORT), which master keeps open, so that a worker's death loses no waiting connection. */
#pragma once
#include "base/err.h"

int listen_open(const char *address_and_port, int *ret_fd, struct err *err);
/* The control socket: a UNIX stream socket at `path`; what stands there and does not answer is replaced. */
int listen_open_control(const char *path, int *ret_fd, struct err *err);
