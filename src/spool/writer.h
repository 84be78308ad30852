/* writer: what the crash tests need to turn a writer without a loop. With loop == NULL the writer makes no threads;
 * its jobs go to disk->submit(), and the test ends each turn itself. */
#pragma once
#include "spool/spool.h"

void spool_writer_turn(struct spool_writer *writer);
