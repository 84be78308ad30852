#include "policy/route.h"

bool route_is_ours(const struct conf_domain *block)
{
    return block->deliver != NULL;
}

/* Compares `prefix` followed by `name` with a block's title, in the order of memcmp() and then length. */
static int compare(struct str prefix, struct str name, struct str title)
{
    size_t n = title.n < prefix.n ? title.n : prefix.n;
    int order = n ? memcmp(prefix.p, title.p, n) : 0;
    if (order || title.n < prefix.n)
        return order ? order : 1;
    title = str_skip(title, prefix.n);
    n = title.n < name.n ? title.n : name.n;
    order = n ? memcmp(name.p, title.p, n) : 0;
    if (order)
        return order;
    return name.n < title.n ? -1 : name.n > title.n;
}

static int find(const struct conf *conf, struct str prefix, struct str name)
{
    size_t low = 0, high = conf->n_domains;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(prefix, name, str_of(conf->domain[middle].name));
        if (order == 0)
            return (int)middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

int route_find(const struct conf *conf, struct str domain)
{
    /* "*" and "*.x" are titles, not domains. */
    int found = str_find(domain, '*') == domain.n && domain.n ? find(conf, STR(""), domain) : -1;
    struct str parent = domain, label;
    while (found < 0 && str_cut(&parent, '.', &label) && parent.n)
        found = find(conf, STR("*."), parent);
    return found >= 0 ? found : find(conf, STR("*"), STR(""));
}
