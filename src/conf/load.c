#include "conf/load.h"

#include <stdlib.h>

#include "conf/form.h"
#include "conf/network.h"
#include "conf/snapshot.h"
#include "conf/value.h"

struct conf *conf_ref(const struct conf *conf)
{
    struct conf_snapshot *s = (struct conf_snapshot *)conf;
    if (s)
        atomic_fetch_add(&s->refs, 1);
    return s ? &s->conf : NULL;
}

void conf_unref(const struct conf **conf)
{
    struct conf_snapshot *s = (struct conf_snapshot *)*conf;
    *conf = NULL;
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    struct arena arena = s->arena;
    free(s->written);
    free(s);
    arena_done(&arena);
}

void conf_set_delivery_processes(const struct conf *conf, uint32_t processes)
{
    ((struct conf_snapshot *)conf)->conf.delivery_processes = processes;
}

void conf_set_generation(const struct conf *conf, uint64_t generation)
{
    ((struct conf_snapshot *)conf)->conf.generation = generation;
}

/* One block's options on their way into its struct. */
struct fill {
    struct conf_draft *draft;
    const char *main_folder;
    enum conf_where where;
    void *base;
    const char *block; /* see struct conf_written */
    struct conf_place seen[CONF_OPTIONS_MAX]; /* by row of the schema; file NULL: not written */
};

static void unknown_name(struct fill *f, const struct conf_node *node)
{
    const char *names[CONF_OPTIONS_MAX], *where = conf_where_name(f->where);
    struct conf_mistakes *m = f->draft->mistakes;
    struct str name = str_of(node->name);
    conf_names(f->where, names);
    const char *inside = f->where == CONF_TOP ? "" : arena_printf(f->draft->scratch, " in a %s block", where);
    const char *nearest = conf_nearest(name, names), *hint = NULL;
    const struct conf_option *elsewhere = conf_option_elsewhere(name, f->where);
    if (elsewhere && elsewhere->where == CONF_TOP)
        hint = "it stands outside of all blocks";
    else if (elsewhere)
        hint = arena_printf(f->draft->scratch, "it stands in a %s block", conf_where_name(elsewhere->where));
    else if (nearest)
        hint = arena_printf(f->draft->scratch, "did you mean \"%s\"?", nearest);
    if (!hint) {
        struct buf all;
        buf_init(&all, 2000);
        for (size_t i = 0; names[i] && all.n < 330; i++)
            buf_addf(&all, "%s%s", i ? ", " : "there are ", names[i]);
        if (all.n >= 330)
            buf_add_c(&all, " …");
        hint = arena_printf(f->draft->scratch, "%.*s", STR_ARG(buf_str(&all)));
        buf_done(&all);
    }
    conf_mistake_add(m, node->place, node->name, hint, "%s is not known%s", node->name, inside ? inside : "");
}

/* The folder of the file that a value stands in: what a relative path starts from. */
static const char *folder_of(struct fill *f, const char *file)
{
    const char *slash = strrchr(file, '/');
    if (!slash)
        return f->main_folder;
    if (file[0] == '/')
        return slash == file ? "" : arena_printf(f->draft->scratch, "%.*s", (int)(slash - file), file);
    return arena_printf(f->draft->scratch, "%s/%.*s", f->main_folder, (int)(slash - file), file);
}

static void note_written(struct fill *f, const struct conf_option *option, struct conf_place place)
{
    struct conf_snapshot *s = f->draft->snapshot;
    if (s->n_written == s->written_cap) {
        size_t cap = s->written_cap ? s->written_cap * 2 : 64;
        struct conf_written *grown = reallocarray(s->written, cap, sizeof *grown);
        if (!grown) {
            f->draft->out_of_memory = true;
            return;
        }
        s->written = grown;
        s->written_cap = cap;
    }
    s->written[s->n_written++] = (struct conf_written){ f->block, option, place };
}

static void fill_option(struct fill *f, const struct conf_node *node)
{
    struct conf_mistakes *m = f->draft->mistakes;
    const struct conf_option *option = conf_option_find(f->where, str_of(node->name));
    if (!option) {
        if (conf_block_find(f->where, str_of(node->name)))
            conf_mistake_add(m, node->place, node->name, NULL, "%s is a block: %s \"title\" { … }", node->name,
                             node->name);
        else
            unknown_name(f, node);
        return;
    }
    struct conf_place *seen = &f->seen[option - conf_schema];
    if (seen->file && !node->append) {
        conf_mistake_add(m, node->place, node->name, "keep one of the two", "%s was given already at %s:%u", node->name,
                         seen->file, seen->line);
        return;
    }
    if (!seen->file)
        note_written(f, option, node->place);
    *seen = node->place;
    struct conf_value_error e;
    const char *folder = folder_of(f, node->place.file);
    if (!folder || (!conf_value_set(option, node, folder, f->draft->arena, f->base, &e) && e.out_of_memory))
        f->draft->out_of_memory = true;
    else if (e.text[0])
        conf_mistake_add(m, e.place, node->name, e.hint, "%s", e.text);
}

/* Defaults, what is written, and what follows from that. */
static void fill_options(struct fill *f, const struct conf_node *first)
{
    for (size_t i = 0; i < conf_schema_n; i++)
        if (conf_schema[i].where == f->where && !conf_value_default(&conf_schema[i], f->draft->arena, f->base))
            f->draft->out_of_memory = true;
    for (const struct conf_node *node = first; node; node = node->next)
        if (!node->is_block)
            fill_option(f, node);
}

static bool title_is_missing(struct conf_draft *d, const struct conf_node *node, const struct conf_block *block)
{
    if (node->has_title && node->title.n)
        return false;
    conf_mistake_add(d->mistakes, node->place, node->name,
                     arena_printf(d->scratch, "write %s \"%s\" { … }", block->name, block->title),
                     "the block %s has no title", node->name);
    return true;
}

/* Blocks of one kind among `first` and its siblings, in the order of the files. NULL with *ret_n 0: none. */
static const struct conf_node **collect(struct conf_draft *d, const struct conf_node *first,
                                        const struct conf_block *block, size_t *ret_n)
{
    size_t n = 0;
    for (const struct conf_node *node = first; node; node = node->next)
        n += node->is_block && str_eq(str_of(node->name), str_of(block->name));
    if (n > CONF_BLOCKS_MAX) {
        conf_mistake_add(d->mistakes, first->place, block->name, NULL, "there are more than %d %s blocks",
                         CONF_BLOCKS_MAX, block->name);
        n = CONF_BLOCKS_MAX;
    }
    const struct conf_node **list = arena_alloc(d->scratch, (n + 1) * sizeof *list);
    *ret_n = 0;
    d->out_of_memory = d->out_of_memory || !list;
    for (const struct conf_node *node = first; node && list && *ret_n < n; node = node->next)
        if (node->is_block && str_eq(str_of(node->name), str_of(block->name)) && !title_is_missing(d, node, block))
            list[(*ret_n)++] = node;
    return list;
}

/* Blocks that may not stand here. */
static void refuse_blocks(struct fill *f, const struct conf_node *first)
{
    for (const struct conf_node *node = first; node; node = node->next) {
        if (!node->is_block || conf_block_find(f->where, str_of(node->name)))
            continue;
        const struct conf_option *option = conf_option_find(f->where, str_of(node->name));
        const struct conf_block *elsewhere = NULL;
        for (size_t i = 0; i < conf_blocks_n; i++)
            if (str_eq(str_of(conf_blocks[i].name), str_of(node->name)))
                elsewhere = &conf_blocks[i];
        if (option)
            conf_mistake_add(f->draft->mistakes, node->place, node->name,
                             arena_printf(f->draft->scratch, "write %s = …", node->name),
                             "%s is an option, not a block", node->name);
        else if (elsewhere)
            conf_mistake_add(f->draft->mistakes, node->place, node->name,
                             elsewhere->outer == CONF_TOP ? "it stands outside of all blocks"
                                                          : "it stands in a server block",
                             "the block %s cannot stand here", node->name);
        else
            unknown_name(f, node);
    }
}

/* What a host leaves out is the server's value: the rows of the schema say what. */
static void inherit(const struct conf_server *server, struct conf_host *host)
{
    for (size_t i = 0; i < conf_schema_n; i++) {
        const struct conf_option *to = &conf_schema[i];
        const struct conf_option *from = to->inherited ? conf_option_find(CONF_SERVER, str_of(to->name)) : NULL;
        if (from)
            conf_value_copy(from, server, to, host);
    }
}

static void fill_host(struct conf_draft *d, const char *main_folder, const struct conf_server *server,
                      const struct conf_node *node, struct conf_host *host)
{
    char right[NETWORK_TEXT_BYTES];
    struct err err = { 0 };
    struct fill f = { .draft = d, .main_folder = main_folder, .where = CONF_HOST, .base = host };
    *host = (struct conf_host){ .place = node->place, .network = arena_strdup(d->arena, node->title) };
    inherit(server, host);
    if (network_parse(node->title, host->address, &host->prefix_bits, right, &err) < 0)
        conf_mistake_add(d->mistakes, node->place, "host",
                         right[0] ? arena_printf(d->scratch, "write \"%s\"", right)
                                  : "write host \"10.1.0.0/16\" { … } or host \"192.168.7.20\" { … }",
                         "host: %s", err.text);
    d->out_of_memory = d->out_of_memory || !host->network;
    f.block = host->network;
    fill_options(&f, node->child);
    refuse_blocks(&f, node->child);
}

static void fill_server(struct conf_draft *d, const char *main_folder, size_t i)
{
    const struct conf_node *node = d->server_origin[i].node;
    struct conf_server *server = &d->server[i];
    struct fill f = { .draft = d, .main_folder = main_folder, .where = CONF_SERVER, .base = server };
    char hint[CONF_HINT_BYTES];
    server->place = node->place;
    server->name = arena_strdup(d->arena, node->title);
    d->out_of_memory = d->out_of_memory || !server->name;
    f.block = server->name;
    if (!form_server_title(node->title, hint))
        conf_mistake_add(d->mistakes, node->place, "server", hint, "server: \"%.*s\" is not a name",
                         STR_ARG(node->title));
    fill_options(&f, node->child);
    refuse_blocks(&f, node->child);

    size_t n;
    const struct conf_node **hosts = collect(d, node->child, conf_block_find(CONF_SERVER, STR("host")), &n);
    struct conf_host *host = arena_alloc(d->arena, (n + 1) * sizeof *host);
    if (!host || !hosts) {
        d->out_of_memory = true;
        return;
    }
    d->server_origin[i].host = hosts;
    server->host = host;
    server->n_hosts = n;
    for (size_t k = 0; k < n; k++)
        fill_host(d, main_folder, server, hosts[k], &host[k]);
}

static void fill_domain(struct conf_draft *d, const char *main_folder, size_t i)
{
    const struct conf_node *node = d->domain_node[i];
    struct conf_domain *domain = &d->domain[i];
    struct fill f = { .draft = d, .main_folder = main_folder, .where = CONF_DOMAIN, .base = domain };
    char hint[CONF_HINT_BYTES];
    domain->place = node->place;
    char *name = (char *)arena_strdup(d->arena, node->title);
    domain->name = name;
    f.block = name;
    d->out_of_memory = d->out_of_memory || !name;
    for (; name && *name; name++)
        *name = ascii_lower(*name);
    if (!form_domain_title(node->title, hint))
        conf_mistake_add(d->mistakes, node->place, "domain", hint, "domain: \"%.*s\" is not a domain",
                         STR_ARG(node->title));
    fill_options(&f, node->child);
    refuse_blocks(&f, node->child);
    domain->auth = domain->auth_written;
    domain->auth_optional = domain->auth && str_starts(str_of(domain->auth), STR("OPTIONAL:"));
    if (domain->auth_optional)
        domain->auth += strlen("OPTIONAL:");
}

/* directory, identity and peers: options only, in the order of the files. */
static void fill_simple(struct conf_draft *d, const char *main_folder, const struct conf_block *block)
{
    struct conf_simple *simple = &d->simple[block->where];
    const struct conf_node **nodes = collect(d, d->top, block, &simple->n);
    char *item = arena_alloc(d->arena, (simple->n + 1) * block->item_bytes);
    if (!nodes || !item) {
        d->out_of_memory = true;
        simple->n = 0;
        return;
    }
    simple->node = nodes;
    simple->item = item;
    for (size_t i = 0; i < simple->n; i++, item += block->item_bytes) {
        const struct conf_node *node = nodes[i];
        struct fill f = { .draft = d, .main_folder = main_folder, .where = block->where, .base = item };
        char hint[CONF_HINT_BYTES] = "";
        f.block = arena_strdup(d->arena, node->title);
        d->out_of_memory = d->out_of_memory || !f.block;
        memcpy(item + block->name_offset, &f.block, sizeof f.block);
        memcpy(item + block->place_offset, &node->place, sizeof node->place);
        if (!block->form(node->title, hint))
            conf_mistake_add(d->mistakes, node->place, block->name, hint, "%s: \"%.*s\" cannot be a title",
                             block->name, STR_ARG(node->title));
        fill_options(&f, node->child);
        refuse_blocks(&f, node->child);
    }
    const void *list = simple->item;
    memcpy((char *)d->conf + block->list_offset, &list, sizeof list);
    memcpy((char *)d->conf + block->count_offset, &simple->n, sizeof simple->n);
}

static int by_prefix_and_address(const void *a, const void *b)
{
    const struct conf_host *x = a, *y = b;
    if (x->prefix_bits != y->prefix_bits)
        return x->prefix_bits > y->prefix_bits ? -1 : 1;
    return memcmp(x->address, y->address, sizeof x->address);
}

static int by_name(const void *a, const void *b)
{
    const struct conf_domain *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* What follows from other values; checks come before, since sorting parts values from their nodes. */
static void finish(struct conf_draft *d)
{
    for (size_t i = 0; i < d->conf->n_servers; i++) /* the arena's, writable until the snapshot is handed out */
        qsort((struct conf_host *)d->server[i].host, d->server[i].n_hosts, sizeof *d->server[i].host,
              by_prefix_and_address);
    qsort(d->domain, d->conf->n_domains, sizeof *d->domain, by_name);
    for (size_t i = 0; i < d->conf->n_domains; i++) /* spelled as the block spells it */
        for (size_t k = 0; d->domain[i].server && k < d->conf->n_servers; k++)
            if (str_eq_nocase(str_of(d->domain[i].server), str_of(d->server[k].name)))
                d->domain[i].server = d->server[k].name;
    for (size_t i = 0; i < conf_schema_n; i++) {
        const char *value;
        void *at = (char *)d->conf + conf_schema[i].offset;
        if (!conf_schema[i].computed)
            continue;
        memcpy(&value, at, sizeof value);
        if (value)
            continue;
        value = conf_schema[i].computed(d->conf, d->arena);
        memcpy(at, &value, sizeof value);
        d->out_of_memory = d->out_of_memory || !value;
    }
}

static void fill_all(struct conf_draft *d, const char *main_folder)
{
    struct fill f = {
        .draft = d, .main_folder = main_folder, .where = CONF_TOP, .base = d->conf, .block = d->conf->file
    };
    size_t n_servers, n_domains;
    fill_options(&f, d->top);
    refuse_blocks(&f, d->top);
    const struct conf_node **servers = collect(d, d->top, conf_block_find(CONF_TOP, STR("server")), &n_servers);
    d->domain_node = collect(d, d->top, conf_block_find(CONF_TOP, STR("domain")), &n_domains);
    d->server = arena_alloc(d->arena, (n_servers + 1) * sizeof *d->server);
    d->domain = arena_alloc(d->arena, (n_domains + 1) * sizeof *d->domain);
    d->server_origin = arena_alloc(d->scratch, (n_servers + 1) * sizeof *d->server_origin);
    if (!servers || !d->domain_node || !d->server || !d->domain || !d->server_origin) {
        d->out_of_memory = true;
        return;
    }
    d->conf->server = d->server;
    d->conf->n_servers = n_servers;
    d->conf->domain = d->domain;
    d->conf->n_domains = n_domains;
    for (size_t i = 0; i < n_servers; i++) {
        d->server_origin[i].node = servers[i];
        fill_server(d, main_folder, i);
    }
    for (size_t i = 0; i < n_domains; i++)
        fill_domain(d, main_folder, i);
    for (size_t i = 0; i < conf_blocks_n; i++)
        if (conf_blocks[i].outer == CONF_TOP && conf_blocks[i].form)
            fill_simple(d, main_folder, &conf_blocks[i]);
}

/* Places outlive the parse: the names of files move from the scratch arena into the snapshot's, each once. */
struct moved_files {
    struct {
        const char *from, *to;
    } file[CONF_FILES_MAX];
    size_t n, last;
};

static void move_place(struct conf_draft *d, struct moved_files *m, struct conf_place *place)
{
    size_t i = m->last;
    if (i >= m->n || m->file[i].from != place->file)
        for (i = 0; i < m->n && m->file[i].from != place->file; i++)
            ;
    if (i == m->n && m->n < CONF_FILES_MAX) {
        m->file[m->n].from = place->file;
        m->file[m->n++].to = arena_strdup(d->arena, str_of(place->file));
    }
    m->last = i;
    place->file = i < m->n ? m->file[i].to : NULL;
    d->out_of_memory = d->out_of_memory || !place->file;
}

static int by_block_and_option(const void *a, const void *b)
{
    const struct conf_written *x = a, *y = b;
    if (x->block != y->block)
        return (uintptr_t)x->block < (uintptr_t)y->block ? -1 : 1;
    return x->option != y->option ? (x->option < y->option ? -1 : 1) : 0;
}

static void keep_places(struct conf_draft *d)
{
    struct moved_files *m = arena_alloc(d->scratch, sizeof *m);
    struct conf_snapshot *s = d->snapshot;
    if (!m) {
        d->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < d->conf->n_servers; i++) {
        move_place(d, m, &d->server[i].place);
        for (size_t k = 0; k < d->server[i].n_hosts; k++) /* writable until the snapshot is handed out */
            move_place(d, m, &((struct conf_host *)d->server[i].host)[k].place);
    }
    for (size_t i = 0; i < d->conf->n_domains; i++)
        move_place(d, m, &d->domain[i].place);
    for (size_t i = 0; i < conf_blocks_n; i++) {
        struct conf_simple *simple = &d->simple[conf_blocks[i].where];
        for (size_t k = 0; k < simple->n; k++)
            move_place(d, m, (struct conf_place *)((char *)simple->item + k * conf_blocks[i].item_bytes
                                                   + conf_blocks[i].place_offset));
    }
    for (size_t i = 0; i < s->n_written; i++)
        move_place(d, m, &s->written[i].place);
    if (s->n_written)
        qsort(s->written, s->n_written, sizeof *s->written, by_block_and_option);
}

struct conf_place conf_place_of(const struct conf *conf, const char *block, const char *option,
                                struct conf_place otherwise)
{
    const struct conf_snapshot *s = (const struct conf_snapshot *)conf;
    for (int where = CONF_TOP; where < CONF_WHERES; where++) {
        struct conf_written key = { block, conf_option_find((enum conf_where)where, str_of(option)), { 0 } };
        const struct conf_written *found =
            key.option && s->n_written ? bsearch(&key, s->written, s->n_written, sizeof key, by_block_and_option)
                                       : NULL;
        if (found)
            return found->place;
    }
    return otherwise;
}

static int order_of(const struct conf_mistake *x, const struct conf_mistake *y, const char *main_file)
{
    bool main_x = str_eq(str_of(x->file), str_of(main_file)), main_y = str_eq(str_of(y->file), str_of(main_file));
    if (main_x != main_y)
        return main_x ? -1 : 1;
    int by_file = strcmp(x->file, y->file);
    if (by_file)
        return by_file;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* By place, the main file first. Insertion keeps those of one line as they were found; there are few. */
static void sort_mistakes(struct conf_mistakes *m, size_t n, const char *main_file)
{
    for (size_t i = 1; i < n; i++) {
        struct conf_mistake item = m->item[i];
        size_t k = i;
        for (; k > 0 && order_of(&m->item[k - 1], &item, main_file) > 0; k--)
            m->item[k] = m->item[k - 1];
        m->item[k] = item;
    }
}

/* What was found, in the order of reading; a syntax error (the last that the parser noted) ends the list. */
static void order_mistakes(struct conf_mistakes *m, bool parsed, size_t n_by_parser, const char *main_file)
{
    size_t n = m->n;
    if (!parsed && n_by_parser) {
        struct conf_mistake last = m->item[n_by_parser - 1];
        memmove(&m->item[n_by_parser - 1], &m->item[n_by_parser], (n - n_by_parser) * sizeof last);
        m->item[--n] = last;
    }
    sort_mistakes(m, n, main_file);
}

static int no_memory(struct err *err, const char *path)
{
    return err_set(err, ERR_LIMIT, "%s: the configuration needs more memory than there is", path);
}

static int build(const struct conf_reader *reader, const char *path, struct conf_snapshot *s, struct arena *scratch,
                 struct conf_mistakes *mistakes, struct err *err)
{
    struct conf_parser parser = { .reader = reader, .arena = scratch, .mistakes = mistakes };
    struct conf_draft d = {
        .conf = &s->conf, .snapshot = s, .arena = &s->arena, .scratch = scratch, .mistakes = mistakes
    };
    struct conf_node *top = NULL;
    const char *main_path = arena_strdup(scratch, str_of(path));
    s->conf.file = arena_strdup(&s->arena, str_of(path));
    if (!main_path || !s->conf.file)
        return no_memory(err, path);
    bool parsed = conf_parse(&parser, main_path, &top, err);
    if (!parsed && parser.failed)
        return parser.failed == CONF_PARSE_NO_MEMORY ? no_memory(err, path) : parser.failed;
    size_t n_by_parser = mistakes->n;
    d.top = top;
    fill_all(&d, reader->folder);
    /* What must stand together is not known when the end is missing. */
    if (parsed && !d.out_of_memory)
        conf_check(&d);
    if (!d.out_of_memory) {
        finish(&d);
        keep_places(&d);
    }
    order_mistakes(mistakes, parsed, n_by_parser, path);
    if (d.out_of_memory || mistakes->out_of_memory)
        return no_memory(err, path);
    if (mistakes->n_errors)
        return err_set(err, ERR_CONFIG, "%s: %zu mistake%s", path, mistakes->n_errors,
                       mistakes->n_errors == 1 ? "" : "s");
    return 0;
}

int conf_load_with(const struct conf_reader *reader, const char *path, struct conf_mistakes *mistakes,
                   const struct conf **ret_conf, struct err *err)
{
    struct conf_snapshot *s = calloc(1, sizeof *s);
    struct arena scratch;
    *ret_conf = NULL;
    if (!s)
        return no_memory(err, path);
    arena_init(&scratch, CONF_ARENA_MAX);
    arena_init(&s->arena, CONF_ARENA_MAX);
    atomic_init(&s->refs, 1);
    int rc = build(reader, path, s, &scratch, mistakes, err);
    arena_done(&scratch);
    const struct conf *conf = &s->conf;
    if (rc < 0)
        conf_unref(&conf);
    *ret_conf = conf;
    return rc;
}
