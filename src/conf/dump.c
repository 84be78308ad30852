#include "conf/dump.h"

#include <jansson.h>
#include <stdlib.h>

#include "conf/schema.h"
#include "conf/value.h"

/* Is this value what it would be if nothing was written? `outer` is the server of a host, otherwise NULL. */
static bool is_default(const struct conf_option *option, const struct conf *conf, const void *base,
                       const struct conf_server *outer)
{
    union {
        struct conf top;
        struct conf_server server;
        struct conf_host host;
        struct conf_domain domain;
        struct conf_directory directory;
        struct conf_identity identity;
        struct conf_peers peers;
    } plain = { 0 };
    struct arena arena;
    arena_init(&arena, 1 << 20);
    bool known = true;
    if (option->inherited) {
        conf_value_copy(conf_option_find(CONF_SERVER, str_of(option->name)), outer, option, &plain);
    } else if (option->computed) {
        const char *value = option->computed(conf, &arena);
        memcpy((char *)&plain + option->offset, &value, sizeof value);
    } else {
        known = conf_value_default(option, &arena, &plain);
    }
    bool equal = known && conf_value_equal(option, base, &plain);
    arena_done(&arena);
    return equal;
}

struct dump {
    const struct conf *conf;
    bool non_default;
};

static void indent(struct buf *into, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        buf_add_c(into, "    ");
}

static void text_options(const struct dump *d, enum conf_where where, const void *base, const struct conf_server *outer,
                         unsigned depth, struct buf *into)
{
    for (size_t i = 0; i < conf_schema_n; i++) {
        const struct conf_option *option = &conf_schema[i];
        if (option->where != where || (d->non_default && is_default(option, d->conf, base, outer)))
            continue;
        struct buf value;
        buf_init(&value, CONF_VALUE_MAX);
        conf_value_write(option, base, &value);
        if (value.n) { /* no string: nothing to write */
            indent(into, depth);
            buf_addf(into, "%s = ", option->name);
            buf_add(into, buf_str(&value));
            buf_add_char(into, '\n');
        }
        into->failed = into->failed || value.failed;
        buf_done(&value);
    }
}

static void text_title(struct buf *into, unsigned depth, const char *kind, const char *title)
{
    if (depth == 0)
        buf_add_char(into, '\n');
    indent(into, depth);
    buf_addf(into, "%s ", kind);
    conf_string_write(str_of(title), into);
    buf_add_c(into, " {\n");
}

struct item {
    const void *base;
    const char *title;
    struct conf_place place;
};

/* The number of blocks of a simple kind (options only, in the order of the file), and one of them. */
static size_t simple_count(const struct conf *conf, const struct conf_block *block)
{
    size_t n = 0;
    if (block->outer == CONF_TOP && block->form)
        memcpy(&n, (const char *)conf + block->count_offset, sizeof n);
    return n;
}

static struct item simple_item(const struct conf *conf, const struct conf_block *block, size_t i)
{
    const char *list;
    struct item item;
    memcpy(&list, (const char *)conf + block->list_offset, sizeof list);
    item.base = list + i * block->item_bytes;
    memcpy(&item.title, (const char *)item.base + block->name_offset, sizeof item.title);
    memcpy(&item.place, (const char *)item.base + block->place_offset, sizeof item.place);
    return item;
}

static void text_simple(const struct dump *d, struct buf *into)
{
    for (size_t b = 0; b < conf_blocks_n; b++) {
        for (size_t i = 0; i < simple_count(d->conf, &conf_blocks[b]); i++) {
            struct item item = simple_item(d->conf, &conf_blocks[b], i);
            text_title(into, 0, conf_blocks[b].name, item.title);
            text_options(d, conf_blocks[b].where, item.base, NULL, 1, into);
            buf_add_c(into, "}\n");
        }
    }
}

/* A route has no recipients, a domain of ours no TLS towards a next hop, and without a login there is none to
 * seal: the reader refuses them. */
static bool is_stranger(const struct conf_domain *domain, struct str line)
{
    static const char *const of_routes[] = { "tls = ", "via = " }, *const of_logins[] = { "target_spn = ", "seal = " };
    struct str option = str_trim(line);
    for (size_t i = 0; i < 2; i++)
        if ((domain->deliver && str_starts(option, str_of(of_routes[i])))
            || (!domain->auth && str_starts(option, str_of(of_logins[i]))))
            return true;
    return !domain->deliver && str_starts(option, STR("recipients = "));
}

static void text_dump(const struct dump *d, struct buf *into)
{
    text_options(d, CONF_TOP, d->conf, NULL, 0, into);
    for (size_t i = 0; i < d->conf->n_servers; i++) {
        const struct conf_server *server = &d->conf->server[i];
        text_title(into, 0, "server", server->name);
        text_options(d, CONF_SERVER, server, NULL, 1, into);
        for (size_t k = 0; k < server->n_hosts; k++) {
            text_title(into, 1, "host", server->host[k].network);
            text_options(d, CONF_HOST, &server->host[k], server, 2, into);
            buf_add_c(into, "    }\n");
        }
        buf_add_c(into, "}\n");
    }
    for (size_t i = 0; i < d->conf->n_domains; i++) {
        const struct conf_domain *domain = &d->conf->domain[i];
        text_title(into, 0, "domain", domain->name);
        struct buf all;
        buf_init(&all, CONF_VALUE_MAX);
        text_options(d, CONF_DOMAIN, domain, NULL, 1, &all);
        struct str rest = buf_str(&all), line;
        while (str_cut(&rest, '\n', &line)) {
            if (!is_stranger(domain, line)) {
                buf_add(into, line);
                buf_add_char(into, '\n');
            }
        }
        into->failed = into->failed || all.failed;
        buf_done(&all);
        buf_add_c(into, "}\n");
    }
    text_simple(d, into);
}

static json_t *json_value(const struct conf_option *option, const void *base)
{
    const char *at = (const char *)base + option->offset, *string;
    struct conf_strings strings;
    uint64_t wide;
    uint32_t narrow;
    bool flag;
    int choice;
    switch (option->type) {
    case CONF_STRING:
    case CONF_PATH:
        memcpy(&string, at, sizeof string);
        return string ? json_string(string) : json_null();
    case CONF_STRINGS: {
        json_t *list = json_array();
        memcpy(&strings, at, sizeof strings);
        for (size_t i = 0; i < strings.n; i++)
            json_array_append_new(list, json_string(strings.item[i]));
        return list;
    }
    case CONF_BOOL:
        memcpy(&flag, at, sizeof flag);
        return json_boolean(flag);
    case CONF_CHOICE:
        memcpy(&choice, at, sizeof choice);
        return json_string(option->choices[choice]);
    case CONF_SIZE:
        memcpy(&wide, at, sizeof wide);
        return json_integer((json_int_t)wide);
    case CONF_DURATION:
    case CONF_NUMBER:
        memcpy(&narrow, at, sizeof narrow);
        return json_integer(narrow);
    }
    return json_null();
}

static json_t *json_block(const struct dump *d, enum conf_where where, const void *base, const char *title_name,
                          const char *title, struct conf_place place, const struct conf_server *outer)
{
    json_t *o = json_object();
    if (title_name) {
        json_object_set_new(o, title_name, json_string(title));
        json_object_set_new(o, "file", json_string(place.file));
        json_object_set_new(o, "line", json_integer(place.line));
    }
    for (size_t i = 0; i < conf_schema_n; i++)
        if (conf_schema[i].where == where && !(d->non_default && is_default(&conf_schema[i], d->conf, base, outer)))
            json_object_set_new(o, conf_schema[i].name, json_value(&conf_schema[i], base));
    return o;
}

static json_t *json_dump(const struct dump *d)
{
    json_t *top = json_block(d, CONF_TOP, d->conf, NULL, NULL, (struct conf_place){ 0 }, NULL);
    json_t *servers = json_array(), *domains = json_array();
    json_object_set_new(top, "file", json_string(d->conf->file));
    for (size_t i = 0; i < d->conf->n_servers; i++) {
        const struct conf_server *s = &d->conf->server[i];
        json_t *o = json_block(d, CONF_SERVER, s, "name", s->name, s->place, NULL), *hosts = json_array();
        for (size_t k = 0; k < s->n_hosts; k++)
            json_array_append_new(hosts, json_block(d, CONF_HOST, &s->host[k], "network", s->host[k].network,
                                                    s->host[k].place, s));
        json_object_set_new(o, "hosts", hosts);
        json_array_append_new(servers, o);
    }
    for (size_t i = 0; i < d->conf->n_domains; i++)
        json_array_append_new(domains, json_block(d, CONF_DOMAIN, &d->conf->domain[i], "name", d->conf->domain[i].name,
                                                  d->conf->domain[i].place, NULL));
    for (size_t b = 0; b < conf_blocks_n; b++) {
        static const char *const plural[CONF_WHERES] = {
            [CONF_DIRECTORY] = "directories", [CONF_IDENTITY] = "identities", [CONF_PEERS] = "peers",
        };
        const struct conf_block *block = &conf_blocks[b];
        json_t *list = json_array();
        for (size_t i = 0; i < simple_count(d->conf, block); i++) {
            struct item item = simple_item(d->conf, block, i);
            json_array_append_new(list, json_block(d, block->where, item.base,
                                                   block->where == CONF_DIRECTORY ? "realm" : "name", item.title,
                                                   item.place, NULL));
        }
        if (plural[block->where] && (json_array_size(list) || !d->non_default))
            json_object_set_new(top, plural[block->where], list);
        else
            json_decref(list);
    }
    json_object_set_new(top, "servers", servers);
    json_object_set_new(top, "domains", domains);
    return top;
}

bool conf_dump(const struct conf *conf, unsigned flags, struct buf *into)
{
    struct dump d = { conf, flags & CONF_DUMP_NON_DEFAULT };
    if (!(flags & CONF_DUMP_JSON)) {
        text_dump(&d, into);
        return !into->failed;
    }
    json_t *root = json_dump(&d);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    bool ok = text && buf_add_c(into, text) && buf_add_char(into, '\n');
    free(text);
    json_decref(root);
    return ok;
}
