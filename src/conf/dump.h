/* dump: a snapshot written back, in one canonical form that loads again to the same snapshot; and the manual
 * page's part that lists the options. Both follow the schema table. */
#pragma once
#include "base/buf.h"
#include "conf/conf.h"

enum { CONF_DUMP_NON_DEFAULT = 1 /* only what differs from the default */, CONF_DUMP_JSON = 2 };

/* False: no memory, or the buffer's cap was reached. */
bool conf_dump(const struct conf *conf, unsigned flags, struct buf *into);
/* The OPTIONS of postern.conf(5) in mdoc. */
bool conf_manual(struct buf *into);
