/* user_password: a password from whoever runs the command: asked for twice, without echo, at a terminal;
 * otherwise one line. */
#pragma once
#include "base/err.h"

enum { USER_PASSWORD_INPUT_MAX = 4096 };

/* The line without its end, as a C string (the caller wipes it). ERR_SYNTAX: the two differ, nothing came, a NUL,
 * or too long; -EINTR: interrupted (a signal that ends the program is raised again). */
int user_password_read(int fd, char ret_text[USER_PASSWORD_INPUT_MAX + 1], struct err *err);
