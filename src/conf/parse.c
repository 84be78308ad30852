#include "conf/parse.h"

#include "conf/lex.h"

/* A file that is being read; the chain of them finds a file that includes itself. */
struct conf_source {
    const struct conf_source *outer;
    const char *path;
};

struct item_list {
    struct conf_node **tail;
};

static bool parse_file(struct conf_parser *p, const char *path, struct conf_place from, struct item_list *into,
                       struct err *err);
static bool parse_items(struct conf_parser *p, struct conf_lexer *l, const struct conf_node *block,
                        struct item_list *into);

static bool out_of_memory(struct conf_parser *p)
{
    p->failed = CONF_PARSE_NO_MEMORY;
    return false;
}

static bool unexpected(struct conf_parser *p, const struct conf_token *t, const char *name, const char *hint)
{
    if (t->kind != TOKEN_BAD) /* which has been noted */
        conf_mistake_add(p->mistakes, t->place, name, hint, "%s is not what can stand here",
                         conf_token_text(p->arena, t));
    return false;
}

static bool is_option_name(struct str s)
{
    if (s.n == 0 || s.n > CONF_NAME_MAX || ascii_digit(s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_alnum(s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
            return false;
    return true;
}

static struct conf_node *add_node(struct conf_parser *p, struct item_list *into, const struct conf_token *name)
{
    struct conf_node *node = arena_alloc(p->arena, sizeof *node);
    if (!node) {
        out_of_memory(p);
        return NULL;
    }
    node->name = name->text.p;
    node->place = name->place;
    *into->tail = node;
    into->tail = &node->next;
    return node;
}

/* An option that breaks off is a syntax error and nothing else. */
static bool take_back(struct item_list *into, struct item_list before)
{
    *into = before;
    *into->tail = NULL;
    return false;
}

/* Grows by doubling: the arena keeps the outgrown ones until the load ends, which at most doubles the list. */
static bool add_value(struct conf_parser *p, struct conf_node *node, size_t *cap, const struct conf_token *t)
{
    if (node->n_values == CONF_LIST_MAX) {
        conf_mistake_add(p->mistakes, t->place, node->name, "shorten it", "the list has more than %d values",
                         CONF_LIST_MAX);
        return false;
    }
    if (node->n_values == *cap) {
        size_t grown = *cap ? *cap * 2 : 4;
        struct conf_value *value = arena_alloc(p->arena, grown * sizeof *value);
        if (!value || !t->text.p)
            return out_of_memory(p);
        if (node->n_values)
            memcpy(value, node->value, node->n_values * sizeof *value);
        node->value = value;
        *cap = grown;
    }
    if (!t->text.p)
        return out_of_memory(p);
    node->value[node->n_values++] = (struct conf_value){ t->text, t->place };
    return true;
}

static bool parse_list(struct conf_parser *p, struct conf_lexer *l, struct conf_node *node)
{
    static const char hint[] = "a list is written { \"one\", \"two\" }";
    size_t cap = 0;
    node->is_list = true;
    for (;;) {
        struct conf_token t = conf_lexer_next(l);
        if (t.kind == TOKEN_CLOSE)
            return true;
        if (t.kind != TOKEN_WORD && t.kind != TOKEN_STRING)
            return unexpected(p, &t, node->name, hint);
        if (!add_value(p, node, &cap, &t))
            return false;
        t = conf_lexer_next(l);
        if (t.kind == TOKEN_CLOSE)
            return true;
        if (t.kind != TOKEN_COMMA)
            return unexpected(p, &t, node->name, hint);
    }
}

static bool parse_option(struct conf_parser *p, struct conf_lexer *l, struct conf_node *node)
{
    struct conf_token t = conf_lexer_next(l);
    size_t cap = 0;
    if (t.kind == TOKEN_OPEN)
        return parse_list(p, l, node);
    if (t.kind == TOKEN_WORD || t.kind == TOKEN_STRING)
        return add_value(p, node, &cap, &t);
    return unexpected(p, &t, node->name,
                      "behind = stands a value: name = \"value\", or a list: name = { \"one\", \"two\" }");
}

static bool parse_block(struct conf_parser *p, struct conf_lexer *l, struct conf_node *node)
{
    node->is_block = true;
    if (p->block_depth == CONF_BLOCK_DEPTH_MAX) {
        conf_mistake_add(p->mistakes, node->place, node->name, NULL, "blocks stand in blocks more than %d deep",
                         CONF_BLOCK_DEPTH_MAX);
        return false;
    }
    struct item_list children = { &node->child };
    p->block_depth++;
    bool ok = parse_items(p, l, node, &children);
    p->block_depth--;
    return ok;
}

static const char *join_path(struct arena *arena, const char *including, struct str path)
{
    const char *slash = strrchr(including, '/');
    if (str_starts(path, STR("/")) || !slash)
        return arena_strdup(arena, path);
    return arena_printf(arena, "%.*s/%.*s", (int)(slash - including), including, STR_ARG(path));
}

static bool include_pattern(struct conf_parser *p, const char *pattern, struct conf_place place, struct item_list *into)
{
    struct buf names;
    struct err err = { 0 };
    buf_init(&names, 1 << 20);
    int rc = p->reader->list(p->reader->ctx, pattern, &names, &err);
    bool ok = true;
    if (rc < 0)
        conf_mistake_add(p->mistakes, place, "include", NULL, "cannot look for %s: %s", pattern, err_text(&err));
    struct str rest = buf_str(&names), name;
    while (rc >= 0 && ok && str_cut(&rest, 0, &name)) {
        const char *path = arena_strdup(p->arena, name);
        ok = path ? parse_file(p, path, place, into, NULL) : out_of_memory(p);
    }
    buf_done(&names);
    return ok;
}

/* `include` has been read, and the parenthesis behind it. */
static bool parse_include(struct conf_parser *p, struct conf_lexer *l, struct item_list *into)
{
    struct conf_token name = conf_lexer_next(l);
    if (name.kind != TOKEN_STRING && name.kind != TOKEN_WORD)
        return unexpected(p, &name, "include", "it is written include(\"FILE\")");
    struct conf_token t = conf_lexer_next(l);
    if (t.kind != TOKEN_PAREN_CLOSE)
        return unexpected(p, &t, "include", "it is written include(\"FILE\")");
    const char *path = name.text.p ? join_path(p->arena, l->file, name.text) : NULL;
    if (!path)
        return out_of_memory(p);
    if (strpbrk(name.text.p, "*?["))
        return include_pattern(p, path, name.place, into);
    return parse_file(p, path, name.place, into, NULL);
}

static bool parse_named(struct conf_parser *p, struct conf_lexer *l, const struct conf_token *name,
                        struct item_list *into)
{
    struct conf_token t = conf_lexer_next(l);
    if (t.kind == TOKEN_PAREN_OPEN && str_eq(name->text, STR("include")))
        return parse_include(p, l, into);
    if (!is_option_name(name->text))
        return unexpected(p, name, NULL, "an option is written name = value, a block name \"title\" { … }");
    struct item_list before = *into;
    struct conf_node *node = add_node(p, into, name);
    if (!node)
        return false;
    if (t.kind == TOKEN_ASSIGN || t.kind == TOKEN_APPEND) {
        node->append = t.kind == TOKEN_APPEND;
        return parse_option(p, l, node) || take_back(into, before);
    }
    if (t.kind == TOKEN_STRING || t.kind == TOKEN_WORD) {
        node->has_title = true;
        node->title = t.text;
        if (!t.text.p)
            return out_of_memory(p);
        struct conf_token open = conf_lexer_next(l);
        if (open.kind != TOKEN_OPEN) {
            take_back(into, before);
            return unexpected(p, &open, node->name,
                              arena_printf(p->arena,
                                           "an option is written %s = \"value\", a block "
                                           "%s \"title\" { … }",
                                           node->name, node->name));
        }
        return parse_block(p, l, node);
    }
    if (t.kind == TOKEN_OPEN)
        return parse_block(p, l, node);
    take_back(into, before);
    return unexpected(p, &t, node->name, arena_printf(p->arena, "behind %s stands = or, for a block, \"title\" {",
                                                      node->name));
}

/* Up to the end of the block, or of the file when `block` is NULL. */
static bool parse_items(struct conf_parser *p, struct conf_lexer *l, const struct conf_node *block,
                        struct item_list *into)
{
    for (;;) {
        struct conf_token t = conf_lexer_next(l);
        if (t.kind == TOKEN_END) {
            if (block)
                conf_mistake_add(p->mistakes, block->place, block->name, "end it with }",
                                 "the block %s begins here and does not end", block->name);
            return !block;
        }
        if (t.kind == TOKEN_CLOSE && block)
            return true;
        if (t.kind != TOKEN_WORD)
            return unexpected(p, &t, NULL, t.kind == TOKEN_CLOSE ? "no block is open: take it out"
                              : t.kind == TOKEN_COMMA ? "several values stand in braces: { \"one\", \"two\" }"
                              : "an option is written name = value, a block name \"title\" { … }");
        if (!t.text.p)
            return out_of_memory(p);
        if (!parse_named(p, l, &t, into))
            return false;
    }
}

/* May this file be read here? False: no, and noted. */
static bool may_include(struct conf_parser *p, const char *path, struct conf_place from)
{
    for (const struct conf_source *s = p->source; s; s = s->outer) {
        if (str_eq(str_of(s->path), str_of(path))) {
            conf_mistake_add(p->mistakes, from, "include", "take it out", "%s includes itself", path);
            return false;
        }
    }
    if (p->include_depth == CONF_DEPTH_MAX || p->n_files == CONF_FILES_MAX) {
        conf_mistake_add(p->mistakes, from, "include", NULL,
                         p->include_depth == CONF_DEPTH_MAX ? "files include files more than %d deep"
                                                            : "there are more than %d files",
                         p->include_depth == CONF_DEPTH_MAX ? CONF_DEPTH_MAX : CONF_FILES_MAX);
        return false;
    }
    return true;
}

static bool read_file(struct conf_parser *p, const char *path, struct conf_place from, struct buf *text,
                      struct err *err)
{
    struct err why = { 0 };
    int rc = p->reader->read(p->reader->ctx, path, text, &why);
    if (rc == 0 && p->total_bytes + text->n > CONF_TOTAL_MAX)
        rc = err_set(&why, ERR_LIMIT, "all files together are larger than %d MiB", CONF_TOTAL_MAX >> 20);
    if (rc == 0) {
        p->total_bytes += text->n;
        return true;
    }
    if (!from.file) { /* the main file: the caller's answer, not a mistake within it */
        p->failed = rc;
        if (err)
            *err = why;
        return false;
    }
    conf_mistake_add(p->mistakes, from, "include", rc == -ENOENT ? "make the file, or take the include out" : NULL,
                     "cannot include: %s", err_text(&why));
    return false;
}

static bool parse_file(struct conf_parser *p, const char *path, struct conf_place from, struct item_list *into,
                       struct err *err)
{
    if (!may_include(p, path, from))
        return true; /* what stands behind it is looked at all the same */
    struct buf text;
    buf_init(&text, CONF_FILE_MAX);
    struct conf_source source = { p->source, path };
    struct conf_lexer lexer;
    bool ok = true;
    if (read_file(p, path, from, &text, err)) {
        p->n_files++;
        p->include_depth++;
        p->source = &source;
        ok = conf_lexer_init(&lexer, p->arena, p->mistakes, path, buf_str(&text)) && parse_items(p, &lexer, NULL, into);
        p->source = source.outer;
        p->include_depth--;
    }
    buf_done(&text);
    return ok && !p->failed;
}

bool conf_parse(struct conf_parser *p, const char *path, struct conf_node **ret_first, struct err *err)
{
    *ret_first = NULL;
    struct item_list top = { ret_first };
    return parse_file(p, path, (struct conf_place){ 0 }, &top, err);
}
