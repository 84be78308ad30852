/* preflight: whether the users and folders that a configuration implies are there, before anything is opened. */
#pragma once
#include "base/buf.h"
#include "conf/conf.h"

/* 0, or ERR_CONFIG with a line for each thing that is missing and, last, the command that makes it. */
int preflight_check(const struct conf *conf, const char *config_path, struct buf *mistakes, struct err *err);
