/* route: which domain block a recipient's domain belongs to: its own, else the longest "*.parent" above it, else
 * "*". Pure. */
#pragma once
#include "conf/conf.h"

/* `domain` in lower case and without a final dot. The index into conf->domain, or -1: no block. */
int route_find(const struct conf *conf, struct str domain);
/* We deliver for it (the block has `deliver`); otherwise it is a route, and mail to it needs the right to relay. */
bool route_is_ours(const struct conf_domain *block);
