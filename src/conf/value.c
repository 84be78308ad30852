#include "conf/value.h"

#include <stdarg.h>
#include <stdio.h>

static bool fail(struct conf_value_error *e, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool fail(struct conf_value_error *e, const char *hint, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
    snprintf(e->hint, sizeof e->hint, "%s", hint);
    return false;
}

static bool no_memory(struct conf_value_error *e)
{
    e->out_of_memory = true;
    return fail(e, "", "out of memory");
}

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit size_units[] = {
    { "G", 1 << 30 }, { "M", 1 << 20 }, { "K", 1 << 10 }, { "", 1 }, { NULL, 0 }
};
static const struct unit time_units[] = { { "w", 604800 }, { "d", 86400 }, { "h", 3600 },
                                          { "m", 60 },     { "s", 1 },     { NULL, 0 } };

/* The digits at the front of *s. */
static bool take_number(struct str *s, uint64_t *ret)
{
    size_t n = 0;
    while (n < s->n && ascii_digit(s->p[n]))
        n++;
    if (!str_to_u64(str_slice(s->p, n), UINT64_MAX, ret))
        return false;
    *s = str_skip(*s, n);
    return true;
}

bool conf_size_parse(struct str text, uint64_t *ret_octets)
{
    uint64_t v;
    if (!take_number(&text, &v))
        return false;
    /* "50M", "50MB" and "50MiB" are the same: nobody means millions. */
    text = str_trim(text);
    if (text.n > 2 && str_ends_nocase(text, STR("iB")))
        text.n -= 2;
    else if (text.n > 1 && str_ends_nocase(text, STR("B")))
        text.n--;
    for (const struct unit *u = size_units; u->name; u++)
        if (str_eq_nocase(text, str_of(u->name)))
            return !__builtin_mul_overflow(v, u->factor, ret_octets);
    return false;
}

void conf_size_format(uint64_t octets, struct buf *into)
{
    const struct unit *u = size_units;
    while (octets == 0 ? u->factor != 1 : octets % u->factor != 0)
        u++;
    buf_addf(into, "%llu%s", (unsigned long long)(octets / u->factor), u->name);
}

bool conf_duration_parse(struct str text, uint64_t *ret_seconds)
{
    uint64_t sum = 0, v, last_factor = UINT64_MAX;
    if (str_to_u64(text, UINT64_MAX, ret_seconds))
        return true; /* without a unit: seconds */
    if (text.n == 0)
        return false;
    while (text.n) {
        const struct unit *u = time_units;
        if (!take_number(&text, &v) || text.n == 0)
            return false;
        while (u->name && u->name[0] != ascii_lower(text.p[0]))
            u++;
        /* "1h30m", largest first and each once. */
        if (!u->name || u->factor >= last_factor || __builtin_mul_overflow(v, u->factor, &v)
            || __builtin_add_overflow(sum, v, &sum))
            return false;
        last_factor = u->factor;
        text = str_skip(text, 1);
    }
    *ret_seconds = sum;
    return true;
}

void conf_duration_format(uint64_t seconds, struct buf *into)
{
    if (seconds == 0)
        buf_add_c(into, "0");
    for (const struct unit *u = time_units; u->name && seconds; u++) {
        if (seconds >= u->factor)
            buf_addf(into, "%llu%s", (unsigned long long)(seconds / u->factor), u->name);
        seconds %= u->factor;
    }
}

static void format_amount(const struct conf_option *option, uint64_t v, struct buf *into)
{
    if (option->type == CONF_SIZE)
        conf_size_format(v, into);
    else if (option->type == CONF_DURATION)
        conf_duration_format(v, into);
    else
        buf_addf(into, "%llu", (unsigned long long)v);
}

static bool set_amount(const struct conf_option *option, struct str text, void *at, struct conf_value_error *e)
{
    uint64_t v;
    bool ok = option->type == CONF_SIZE       ? conf_size_parse(text, &v)
              : option->type == CONF_DURATION ? conf_duration_parse(text, &v)
                                              : str_to_u64(text, UINT64_MAX, &v);
    if (!ok)
        return fail(e,
                    option->type == CONF_SIZE       ? "write a number of octets, perhaps with K, M or G: \"50M\""
                    : option->type == CONF_DURATION ? "write a number with s, m, h, d or w: \"5m\", \"1h30m\""
                                                    : "write a whole number",
                    "%s: \"%.*s\" is not a %s", option->name, STR_ARG(text),
                    option->type == CONF_SIZE ? "size" : option->type == CONF_DURATION ? "duration" : "number");
    if (v < option->min || v > option->max) {
        struct buf hint;
        buf_init(&hint, CONF_HINT_BYTES);
        buf_add_c(&hint, "write ");
        format_amount(option, option->min, &hint);
        buf_add_c(&hint, " to ");
        format_amount(option, option->max, &hint);
        const char *text_hint = buf_cstr(&hint);
        fail(e, text_hint ? text_hint : "", "%s: \"%.*s\" is too %s", option->name, STR_ARG(text),
             v < option->min ? "small" : "large");
        buf_done(&hint);
        return false;
    }
    if (option->type == CONF_SIZE)
        memcpy(at, &v, sizeof v);
    else
        memcpy(at, &(uint32_t){ (uint32_t)v }, sizeof(uint32_t));
    return true;
}

static bool set_bool(const struct conf_option *option, struct str text, void *at, struct conf_value_error *e)
{
    static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (str_eq_nocase(text, str_of(words[i]))) {
            memcpy(at, &(bool){ i % 2 == 1 }, sizeof(bool));
            return true;
        }
    }
    return fail(e, "write true or false", "%s: \"%.*s\" is neither true nor false", option->name, STR_ARG(text));
}

static bool set_choice(const struct conf_option *option, struct str text, void *at, struct conf_value_error *e)
{
    struct buf hint;
    buf_init(&hint, CONF_HINT_BYTES - 1);
    for (int i = 0; option->choices[i]; i++) {
        if (str_eq_nocase(text, str_of(option->choices[i]))) {
            memcpy(at, &i, sizeof i);
            buf_done(&hint);
            return true;
        }
        buf_addf(&hint, "%s%s", i == 0 ? "choose one of " : ", ", option->choices[i]);
    }
    const char *nearest = conf_nearest(text, option->choices), *all = buf_cstr(&hint);
    fail(e, all ? all : "", "%s: \"%.*s\" is not known", option->name, STR_ARG(text));
    if (nearest)
        snprintf(e->hint, sizeof e->hint, "did you mean \"%s\"?", nearest);
    buf_done(&hint);
    return false;
}

/* The form of a string, and its copy; a path becomes a whole one. */
static const char *copy_string(const struct conf_option *option, struct str text, const char *folder,
                               struct arena *arena, struct conf_value_error *e)
{
    char hint[CONF_HINT_BYTES] = "";
    for (size_t i = 0; i < text.n; i++) {
        if ((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f) {
            fail(e, "take it out", "%s: the value holds a control character", option->name);
            return NULL;
        }
    }
    if (option->form && !option->form(text, hint)) {
        fail(e, hint, "%s: \"%.*s\" is not what can stand here", option->name, STR_ARG(text));
        return NULL;
    }
    bool is_path = option->type == CONF_PATH && (option->form != NULL ? str_find(text, '/') < text.n : true);
    if (is_path && text.n == 0) {
        fail(e, "leave the option out or name a file", "%s: the path is empty", option->name);
        return NULL;
    }
    const char *copy = is_path && text.p[0] != '/' && folder ? arena_printf(arena, "%s/%.*s", folder, STR_ARG(text))
                                                             : arena_strdup(arena, text);
    if (!copy)
        no_memory(e);
    for (char *c = (char *)copy; option->upper && c && *c; c++)
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 32);
    for (char *c = (char *)copy; option->lower && c && *c; c++)
        *c = ascii_lower(*c);
    return copy;
}

static bool has_string(const char *const *item, size_t n, const char *s)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_nocase(str_of(item[i]), str_of(s)))
            return true;
    return false;
}

static bool set_strings(const struct conf_option *option, const struct conf_node *node, const char *folder,
                        struct arena *arena, void *at, struct conf_value_error *e)
{
    struct conf_strings old = { 0 };
    if (node->append)
        memcpy(&old, at, sizeof old);
    if (old.n + node->n_values > CONF_LIST_MAX)
        return fail(e, "shorten it", "%s: the list has more than %d values", option->name, CONF_LIST_MAX);
    const char **item = arena_alloc(arena, (old.n + node->n_values + 1) * sizeof *item);
    if (!item)
        return no_memory(e);
    size_t n = 0;
    for (; n < old.n; n++)
        item[n] = old.item[n];
    for (size_t i = 0; i < node->n_values; i++) {
        e->place = node->value[i].place;
        item[n] = copy_string(option, node->value[i].text, folder, arena, e);
        if (!item[n])
            return false;
        /* Long lists are left alone: looking for a pair costs the square. */
        if (n < 1000 && has_string(item, n, item[n]))
            return fail(e, "once is enough", "%s: \"%s\" stands here twice", option->name, item[n]);
        n++;
    }
    memcpy(at, &(struct conf_strings){ item, n }, sizeof(struct conf_strings));
    return true;
}

bool conf_value_set(const struct conf_option *option, const struct conf_node *node, const char *folder,
                    struct arena *arena, void *base, struct conf_value_error *e)
{
    void *at = (char *)base + option->offset;
    *e = (struct conf_value_error){ .place = node->place };
    if (option->type == CONF_STRINGS)
        return set_strings(option, node, folder, arena, at, e);
    if (node->append)
        return fail(e, "write =", "%s takes one value, nothing can be added to it", option->name);
    if (node->n_values != 1)
        return fail(e, "write it without braces", "%s takes one value, not a list", option->name);
    struct str text = node->value[0].text;
    e->place = node->value[0].place;
    switch (option->type) {
    case CONF_BOOL: return set_bool(option, text, at, e);
    case CONF_SIZE:
    case CONF_DURATION:
    case CONF_NUMBER: return set_amount(option, text, at, e);
    case CONF_CHOICE: return set_choice(option, text, at, e);
    case CONF_STRING:
    case CONF_PATH:
    case CONF_STRINGS: break;
    }
    const char *copy = copy_string(option, text, folder, arena, e);
    if (copy)
        memcpy(at, &copy, sizeof copy);
    return copy != NULL;
}

void conf_value_copy(const struct conf_option *from, const void *from_base, const struct conf_option *to,
                     void *to_base)
{
    static const size_t bytes[] = {
        [CONF_STRING] = sizeof(char *),   [CONF_PATH] = sizeof(char *),       [CONF_STRINGS] = sizeof(struct conf_strings),
        [CONF_BOOL] = sizeof(bool),       [CONF_SIZE] = sizeof(uint64_t),     [CONF_DURATION] = sizeof(uint32_t),
        [CONF_NUMBER] = sizeof(uint32_t), [CONF_CHOICE] = sizeof(int),
    };
    memcpy((char *)to_base + to->offset, (const char *)from_base + from->offset, bytes[to->type]);
}

bool conf_value_default(const struct conf_option *option, struct arena *arena, void *base)
{
    struct conf_value value[8];
    struct conf_node node = { .name = option->name, .value = value, .is_list = true };
    if (!option->fallback)
        return true;
    struct str rest = str_of(option->fallback), word;
    bool more = rest.n > 0;
    while (more && node.n_values < sizeof value / sizeof *value) {
        word = rest;
        if (option->type == CONF_STRINGS)
            more = str_cut(&rest, ' ', &word);
        else
            more = false;
        value[node.n_values++] = (struct conf_value){ .text = word };
    }
    struct conf_value_error e;
    return conf_value_set(option, &node, NULL, arena, base, &e);
}

void conf_string_write(struct str text, struct buf *into)
{
    buf_add_char(into, '"');
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c == '"' || c == '\\')
            buf_addf(into, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_addf(into, "\\x%02x", c);
        else
            buf_add_char(into, (char)c);
    }
    buf_add_char(into, '"');
}

/* Any number, as the widest. */
static uint64_t amount_at(const struct conf_option *option, const void *at)
{
    uint64_t wide;
    uint32_t narrow;
    if (option->type == CONF_SIZE) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

void conf_value_write(const struct conf_option *option, const void *base, struct buf *into)
{
    const void *at = (const char *)base + option->offset;
    struct conf_strings strings;
    const char *string;
    bool flag;
    int choice;
    switch (option->type) {
    case CONF_STRING:
    case CONF_PATH:
        memcpy(&string, at, sizeof string);
        if (string)
            conf_string_write(str_of(string), into);
        break;
    case CONF_STRINGS:
        memcpy(&strings, at, sizeof strings);
        buf_add_c(into, "{");
        for (size_t i = 0; i < strings.n; i++) {
            buf_add_c(into, i ? ", " : "");
            conf_string_write(str_of(strings.item[i]), into);
        }
        buf_add_c(into, "}");
        break;
    case CONF_BOOL:
        memcpy(&flag, at, sizeof flag);
        buf_add_c(into, flag ? "true" : "false");
        break;
    case CONF_CHOICE:
        memcpy(&choice, at, sizeof choice);
        conf_string_write(str_of(option->choices[choice]), into);
        break;
    case CONF_NUMBER:
        format_amount(option, amount_at(option, at), into);
        break;
    case CONF_SIZE:
    case CONF_DURATION:
        buf_add_char(into, '"');
        format_amount(option, amount_at(option, at), into);
        buf_add_char(into, '"');
        break;
    }
}

bool conf_value_equal(const struct conf_option *option, const void *base, const void *other_base)
{
    struct buf a, b;
    buf_init(&a, CONF_VALUE_MAX);
    buf_init(&b, CONF_VALUE_MAX);
    conf_value_write(option, base, &a);
    conf_value_write(option, other_base, &b);
    bool equal = !a.failed && !b.failed && str_eq(buf_str(&a), buf_str(&b));
    buf_done(&a);
    buf_done(&b);
    return equal;
}
