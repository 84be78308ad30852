/* postern explain-event [ID|NAME]: what an event or a cause means, what is likely behind it, what to run. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "conf/mistake.h"
#include "explain/catalog.h"

enum { QUERY_BYTES = 256, TEXT_BYTES = 1 << 20 };

static json_t *json_list(const char *const *item, bool is_command)
{
    json_t *list = json_array();
    for (; *item; item++) {
        struct buf text;
        buf_init(&text, 4096);
        if (is_command)
            catalog_generic(*item, &text);
        else
            buf_add_c(&text, *item);
        json_array_append_new(list, json_stringn(text.n ? text.p : "", text.n));
        buf_done(&text);
    }
    return list;
}

static json_t *json_text(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *json_entry(const struct catalog_entry *entry)
{
    char id[CATALOG_ID_BYTES];
    json_t *o = json_object();
    catalog_id(entry, id);
    json_object_set_new(o, "id", json_string(id));
    json_object_set_new(o, "name", json_string(entry->name));
    json_object_set_new(o, "kind", json_string(catalog_is_cause(entry) ? "cause" : "event"));
    json_object_set_new(o, "level", json_string(catalog_level_name(entry->level)));
    json_object_set_new(o, "reply", json_text(entry->reply));
    json_object_set_new(o, "happened", json_string(entry->happened));
    json_object_set_new(o, "causes", json_list(entry->causes, false));
    json_object_set_new(o, "advice", json_text(entry->advice));
    json_object_set_new(o, "run", json_list(entry->run, true));
    json_object_set_new(o, "elsewhere", json_list(entry->former, false));
    return o;
}

static void add_entry(struct buf *out, const struct catalog_entry *entry)
{
    char id[CATALOG_ID_BYTES];
    catalog_id(entry, id);
    buf_addf(out, "%s  %s  (%s", id, entry->name, catalog_level_name(entry->level));
    if (entry->reply)
        buf_addf(out, "; the client is told %s", entry->reply);
    buf_addf(out, ")\n    %s\n", entry->happened);
    for (size_t i = 0; entry->causes[i]; i++)
        buf_addf(out, "%s    %zu. %s\n", i == 0 ? "Likely causes\n" : "", i + 1, entry->causes[i]);
    if (entry->advice)
        buf_addf(out, "What to do\n    %s\n", entry->advice);
    for (size_t i = 0; entry->run[i]; i++) {
        buf_add_c(out, i == 0 ? "Run\n    " : "    ");
        catalog_generic(entry->run[i], out);
        buf_add_char(out, '\n');
    }
    for (size_t i = 0; entry->former[i]; i++)
        buf_addf(out, "%s%s%s", i == 0 ? "Elsewhere\n    " : ", ", entry->former[i], entry->former[i + 1] ? "" : "\n");
}

static int write_json(json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!text)
        return cli_fail(CLI_SYSTEM, "out of memory");
    int status = cli_write(str_of(text));
    free(text);
    return status == CLI_OK ? cli_write(STR("\n")) : status;
}

static int write_buf(struct buf *out)
{
    int status = out->failed ? cli_fail(CLI_SYSTEM, "out of memory") : cli_write(buf_str(out));
    buf_done(out);
    return status;
}

static int list_all(const struct cli_options *options)
{
    const struct catalog_entry *entry;
    json_t *list = json_array();
    struct buf out;
    buf_init(&out, TEXT_BYTES);
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++) {
        char id[CATALOG_ID_BYTES];
        catalog_id(entry, id);
        if (options->json)
            json_array_append_new(list, json_entry(entry));
        else
            buf_addf(&out, "%s  %-45s %s\n", id, entry->name, entry->happened);
    }
    if (options->json) {
        buf_done(&out);
        return write_json(json_pack("{s:o}", "events", list));
    }
    json_decref(list);
    return write_buf(&out);
}

/* The name or cause that is nearest to what was asked for. */
static const char *nearest(struct str what)
{
    size_t n = 0;
    const char **names = calloc(2 * catalog_size() + 1, sizeof *names);
    const struct catalog_entry *entry;
    for (size_t i = 0; names && (entry = catalog_at(i)) != NULL; i++) {
        names[n++] = entry->name;
        names[n++] = catalog_word(entry);
    }
    const char *found = names ? conf_nearest(what, names) : NULL;
    free(names);
    return found;
}

static int not_found(struct str what)
{
    const char *hint = nearest(what);
    if (hint)
        return cli_fail(CLI_NO, "there is no event \"%.*s\", did you mean \"%s\"?", STR_ARG(what), hint);
    return cli_fail(CLI_NO, "there is no event \"%.*s\"; `postern explain-event` lists all", STR_ARG(what));
}

static int show(struct str what, const struct cli_options *options)
{
    const struct catalog_entry *entry;
    size_t index = 0, n = 0;
    json_t *list = json_array();
    struct buf out;
    buf_init(&out, TEXT_BYTES);
    while ((entry = catalog_search(what, &index)) != NULL) {
        if (options->json)
            json_array_append_new(list, json_entry(entry));
        buf_add_c(&out, n ? "\n" : "");
        add_entry(&out, entry);
        n++;
    }
    if (options->json && n) {
        buf_done(&out);
        return write_json(json_pack("{s:o}", "events", list));
    }
    json_decref(list);
    if (n)
        return write_buf(&out);
    buf_done(&out);
    return not_found(what);
}

/* For the build: the table of one section of docs/events.md. */
static int markdown(const char *name)
{
    struct buf out;
    buf_init(&out, TEXT_BYTES);
    for (int section = 0; section < CATALOG_SECTIONS; section++)
        if (strcmp(catalog_section_name((enum catalog_section)section), name) == 0) {
            catalog_markdown((enum catalog_section)section, &out);
            return write_buf(&out);
        }
    return cli_usage("explain-event", "there is no section %s", name);
}

int cli_explain_event(int argc, char **argv, const struct cli_options *options)
{
    struct buf query;
    int status;
    if (argc == 1)
        return list_all(options);
    if (argc == 3 && strcmp(argv[1], "--markdown") == 0)
        return markdown(argv[2]);
    buf_init(&query, QUERY_BYTES);
    for (int i = 1; i < argc; i++) /* MSExchangeTransport 1706, with quotes or without */
        buf_addf(&query, "%s%s", i > 1 ? " " : "", argv[i]);
    if (argv[1][0] == '-')
        status = cli_usage("explain-event", "unknown option %s", argv[1]);
    else if (query.failed || query.n == 0)
        status = cli_usage("explain-event", "that is no id and no name");
    else
        status = show(str_trim(buf_str(&query)), options);
    buf_done(&query);
    return status;
}
