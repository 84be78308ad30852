/* manual: the OPTIONS of postern.conf(5), from the schema. */
#include "conf/dump.h"
#include "conf/schema.h"
#include "conf/value.h"

/* Text in lines of at most 78 columns, as mandoc's lint asks for; lines that are requests stay whole. */
static void add_text(struct buf *into, const char *text)
{
    struct str rest = str_of(text), line, word;
    for (bool more = true; more;) {
        more = str_cut(&rest, '\n', &line);
        bool request = str_starts(line, STR("."));
        size_t column = 0;
        for (bool words = line.n > 0; words;) {
            words = str_cut(&line, ' ', &word);
            if (column && !request && column + 1 + word.n > 78) {
                buf_add_char(into, '\n');
                column = 0;
            }
            buf_addf(into, "%s%.*s", column ? " " : "", STR_ARG(word));
            column += word.n + (column != 0);
        }
        buf_add_char(into, '\n');
    }
}

/* A value as it would be written, from the text of the default. */
static void write_fallback(const struct conf_option *option, struct buf *into)
{
    struct str rest = str_of(option->fallback), word;
    bool plain = option->type == CONF_BOOL || option->type == CONF_NUMBER;
    if (option->type != CONF_STRINGS) {
        buf_addf(into, plain ? "%s" : "\\(dq%s\\(dq", option->fallback);
        return;
    }
    buf_add_char(into, '{');
    for (bool more = rest.n > 0, first = true; more; first = false) {
        more = str_cut(&rest, ' ', &word);
        buf_addf(into, "%s\\(dq%.*s\\(dq", first ? "" : ", ", STR_ARG(word));
    }
    buf_add_char(into, '}');
}

static const char *value_name(const struct conf_option *option)
{
    static const char *const names[] = {
        [CONF_STRING] = "TEXT", [CONF_PATH] = "FILE", [CONF_STRINGS] = "LIST", [CONF_BOOL] = "true | false",
        [CONF_SIZE] = "SIZE",   [CONF_DURATION] = "DURATION", [CONF_NUMBER] = "NUMBER",
    };
    return names[option->type];
}

/* In a macro's arguments quotes would be eaten, and `|` is punctuation to it. */
static void write_quoted(const char *text, struct buf *into)
{
    for (; *text; text++) {
        if (*text == '"')
            buf_add_c(into, "\\(dq");
        else if (*text == '\\')
            buf_add_c(into, "\\e");
        else
            buf_add_char(into, *text);
    }
}

static void write_heading(const struct conf_option *option, struct buf *into)
{
    buf_addf(into, ".It Ic %s No = ", option->name);
    if (option->type == CONF_CHOICE) {
        for (size_t i = 0; option->choices[i]; i++)
            buf_addf(into, "%s\\(dq%s\\(dq", i ? " \\(ba " : "", option->choices[i]);
    } else if (option->type == CONF_BOOL) {
        buf_add_c(into, "true \\(ba false");
    } else {
        buf_addf(into, "Ar %s", value_name(option));
    }
    buf_add_char(into, '\n');
}

static void write_amount(const struct conf_option *option, uint64_t amount, struct buf *into)
{
    if (option->type == CONF_SIZE)
        conf_size_format(amount, into);
    else if (option->type == CONF_DURATION)
        conf_duration_format(amount, into);
    else
        buf_addf(into, "%llu", (unsigned long long)amount);
}

static void write_default(const struct conf_option *option, struct buf *into)
{
    if (option->fallback && option->fallback[0]) {
        buf_add_c(into, "Default:\n.Li ");
        write_fallback(option, into);
        buf_add_c(into, " .\n");
    } else if (option->fallback_text) {
        const char *last_line = strrchr(option->fallback_text, '\n');
        bool ends_in_macro = last_line && last_line[1] == '.';
        buf_addf(into, "Default: %s%s.\n", option->fallback_text, ends_in_macro ? " " : "");
    } else if (option->inherited) {
        buf_add_c(into, "Default: the value of the server.\n");
    }
}

static void write_option(const struct conf_option *option, struct buf *into)
{
    write_heading(option, into);
    add_text(into, option->help);
    if (option->max) {
        buf_add_c(into, "Range: ");
        write_amount(option, option->min, into);
        buf_add_c(into, " to ");
        write_amount(option, option->max, into);
        buf_add_c(into, ".\n");
    }
    write_default(option, into);
    if (option->example) {
        buf_addf(into, "Example:\n.Li %s = ", option->name);
        write_quoted(option->example, into);
        buf_add_c(into, " .\n");
    }
}

static void write_options(enum conf_where where, struct buf *into)
{
    buf_add_c(into, ".Bl -tag -width Ds\n");
    for (size_t i = 0; i < conf_schema_n; i++)
        if (conf_schema[i].where == where)
            write_option(&conf_schema[i], into);
    buf_add_c(into, ".El\n");
}

bool conf_manual(struct buf *into)
{
    buf_add_c(into, ".Sh OPTIONS\n.Ss Outside of blocks\n");
    write_options(CONF_TOP, into);
    for (size_t i = 0; i < conf_blocks_n; i++) {
        const struct conf_block *block = &conf_blocks[i];
        buf_addf(into, ".Ss %s \\(dq%s\\(dq { ... }\n", block->name, block->title);
        add_text(into, block->help);
        write_options(block->where, into);
    }
    return !into->failed;
}
