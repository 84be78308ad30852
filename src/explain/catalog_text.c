/* The catalogue as a document: Markdown tables. */
#include "explain/catalog.h"

void catalog_generic(const char *text, struct buf *into)
{
    for (; *text; text++) {
        const char *end = *text == '{' ? strchr(text, '}') : NULL;
        for (const char *c = text + 1; end && c < end; c++)
            buf_add_char(into, *c >= 'a' && *c <= 'z' ? (char)(*c - 32) : *c);
        if (end)
            text = end;
        else
            buf_add_char(into, *text);
    }
}

/* A cell ends at '|'. */
static void add_cell(struct buf *into, const char *text)
{
    for (; *text; text++)
        buf_addf(into, *text == '|' ? "\\%c" : "%c", *text);
}

static void add_list(struct buf *into, const char *const *item, const char *between)
{
    for (size_t i = 0; item[i]; i++) {
        buf_add_c(into, i ? between : "");
        add_cell(into, item[i]);
    }
    if (!item[0])
        buf_add_c(into, "–");
}

/* A command in `…`; where to run it stands behind it in parentheses and is no part of it. */
static void add_command(struct buf *into, const char *command)
{
    struct buf text;
    buf_init(&text, 1024);
    catalog_generic(command, &text);
    const char *c = buf_cstr(&text);
    const char *where = c && text.n && text.p[text.n - 1] == ')' ? strrchr(c, '(') : NULL;
    bool has_place = where && where > c && where[-1] == ' ';
    if (has_place)
        text.p[where - c - 1] = 0;
    if (c) {
        buf_add_char(into, '`');
        add_cell(into, c);
        buf_add_char(into, '`');
    }
    if (has_place) {
        buf_add_char(into, ' ');
        add_cell(into, where);
    }
    into->failed = into->failed || text.failed;
    buf_done(&text);
}

static void add_advice(struct buf *into, const struct catalog_entry *entry)
{
    if (entry->advice)
        add_cell(into, entry->advice);
    else
        buf_add_c(into, entry->run[0] ? "" : "–");
    for (size_t i = 0; entry->run[i]; i++) {
        buf_add_c(into, i || entry->advice ? "; " : "");
        add_command(into, entry->run[i]);
    }
}

static void add_row(struct buf *into, const struct catalog_entry *entry, bool is_causes)
{
    char id[CATALOG_ID_BYTES];
    catalog_id(entry, id);
    buf_addf(into, "| %s | `%s` | %s | ", id, is_causes ? catalog_word(entry) : entry->name,
             catalog_level_name(entry->level));
    if (is_causes)
        buf_addf(into, "%s | ", entry->reply ? entry->reply : "–");
    add_cell(into, entry->happened);
    buf_add_c(into, " | ");
    add_list(into, entry->causes, "; ");
    buf_add_c(into, " | ");
    add_advice(into, entry);
    buf_add_c(into, " | ");
    add_list(into, entry->former, ", ");
    buf_add_c(into, " |\n");
}

void catalog_markdown(enum catalog_section section, struct buf *into)
{
    bool is_causes = section >= CATALOG_LOGIN;
    const struct catalog_entry *entry;
    buf_addf(into, "| id | %s | level | %swhat happened | likely causes | what to do, what to run | elsewhere |\n",
             is_causes ? "cause" : "event", is_causes ? "reply | " : "");
    buf_addf(into, "|---|---|---|%s---|---|---|---|\n", is_causes ? "---|" : "");
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++)
        if (entry->section == section)
            add_row(into, entry, is_causes);
}
