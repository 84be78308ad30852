/* Included into every file by the build: calls that have no bound, no error or a shell behind them do
 * not compile here. The remedy stands beside each. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat strncat strncpy stpcpy /* str_copy, buf_add */
#pragma GCC poison sprintf vsprintf gets                /* snprintf, buf_addf */
#pragma GCC poison strtok atoi atol atoll               /* str_cut, str_to_u64 */
#undef alloca
#pragma GCC poison alloca tmpnam mktemp                 /* arena_alloc, mkstemp */
#pragma GCC poison system popen                         /* process_spawn */
#pragma GCC poison localtime gmtime asctime             /* localtime_r, clock_rfc3339; ctime is a field's name in krb5.h */
