#include "conf/mistake.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void conf_mistakes_init(struct conf_mistakes *m)
{
    *m = (struct conf_mistakes){ 0 };
    arena_init(&m->arena, 4 << 20);
}

void conf_mistakes_done(struct conf_mistakes *m)
{
    arena_done(&m->arena);
    free(m->item);
    *m = (struct conf_mistakes){ 0 };
    arena_init(&m->arena, 4 << 20);
}

/* A copy of at most 400 octets, cut between characters, in which no control character can move a terminal. */
static const char *clean_copy(struct arena *arena, const char *text)
{
    struct str s = str_of(text);
    if (s.n > 400) {
        s.n = 400;
        while (s.n && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
            s.n--;
    }
    char *copy = (char *)arena_copy(arena, s).p;
    for (size_t i = 0; copy && i < s.n; i++)
        if ((unsigned char)copy[i] < 0x20 || copy[i] == 0x7f)
            copy[i] = '?';
    return copy;
}

static void add(struct conf_mistakes *m, bool warning, struct conf_place place, const char *name, const char *hint,
                const char *fmt, va_list args) __attribute__((format(printf, 6, 0)));
static void add(struct conf_mistakes *m, bool warning, struct conf_place place, const char *name, const char *hint,
                const char *fmt, va_list args)
{
    size_t *count = warning ? &m->n_warnings : &m->n_errors;
    if ((*count)++ >= CONF_MISTAKES_MAX)
        return;
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    struct conf_mistake *item = reallocarray(m->item, m->n + 1, sizeof *item);
    if (item)
        m->item = item;
    struct conf_mistake new = {
        .file = clean_copy(&m->arena, place.file ? place.file : ""),
        .line = place.line,
        .name = name ? clean_copy(&m->arena, name) : NULL,
        .text = clean_copy(&m->arena, text),
        .hint = hint ? clean_copy(&m->arena, hint) : NULL,
        .warning = warning,
    };
    if (!item || !new.file || !new.text)
        m->out_of_memory = true;
    else
        m->item[m->n++] = new;
}

void conf_mistake_add(struct conf_mistakes *m, struct conf_place place, const char *name, const char *hint,
                      const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(m, false, place, name, hint, fmt, args);
    va_end(args);
}

void conf_warning_add(struct conf_mistakes *m, struct conf_place place, const char *name, const char *hint,
                      const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(m, true, place, name, hint, fmt, args);
    va_end(args);
}

void conf_mistake_print(const struct conf_mistake *mistake, struct buf *into)
{
    buf_add_c(into, mistake->file);
    if (mistake->line)
        buf_addf(into, ":%u", mistake->line);
    buf_addf(into, ": %s%s%s%s", mistake->warning ? "warning: " : "", mistake->text, mistake->hint ? ", " : "",
             mistake->hint ? mistake->hint : "");
}

void conf_mistakes_print(const struct conf_mistakes *m, bool warnings, struct buf *into)
{
    size_t printed = 0, all = warnings ? m->n_warnings : m->n_errors;
    for (size_t i = 0; i < m->n; i++) {
        if (m->item[i].warning != warnings)
            continue;
        conf_mistake_print(&m->item[i], into);
        buf_add_char(into, '\n');
        printed++;
    }
    if (printed < all)
        buf_addf(into, "%zu more %s not shown: correct these first\n", all - printed,
                 warnings ? "warnings are" : "mistakes are");
}

static json_t *json_list(const struct conf_mistakes *m, bool warnings)
{
    json_t *list = json_array();
    for (size_t i = 0; i < m->n; i++) {
        const struct conf_mistake *x = &m->item[i];
        if (x->warning != warnings)
            continue;
        json_t *line = x->line ? json_integer(x->line) : json_null();
        json_t *row = json_pack("{s:s, s:o, s:s?, s:s, s:s?}", "file", x->file, "line", line, "name", x->name, "text",
                                x->text, "hint", x->hint);
        if (!row || json_array_append_new(list, row) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

bool conf_mistakes_json(const struct conf_mistakes *m, const char *file, struct buf *into)
{
    json_t *mistakes = json_list(m, false), *warnings = json_list(m, true);
    json_t *root = json_pack("{s:s, s:o, s:o}", "file", file, "mistakes", mistakes, "warnings", warnings);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    bool ok = text && buf_add_c(into, text) && buf_add_char(into, '\n');
    free(text);
    json_decref(root);
    return ok;
}

/* Edit distance with swaps of neighbours (optimal string alignment), letters of either case alike, `-` like `_`. */
enum { NEAREST_MAX = 40 };

static char fold(char c)
{
    return c == '-' ? '_' : ascii_lower(c);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

static size_t distance(struct str a, struct str b)
{
    size_t row[3][NEAREST_MAX + 1];
    size_t *before = row[0], *last = row[1], *now = row[2];
    for (size_t j = 0; j <= b.n; j++)
        last[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            char x = fold(a.p[i - 1]), y = fold(b.p[j - 1]);
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
            bool swapped = i > 1 && j > 1 && x == fold(b.p[j - 2]) && y == fold(a.p[i - 2]);
            if (swapped && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        size_t *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[b.n];
}

const char *conf_nearest(struct str name, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    if (name.n == 0 || name.n > NEAREST_MAX)
        return NULL;
    for (; *names; names++) {
        struct str candidate = str_of(*names);
        if (candidate.n > NEAREST_MAX)
            continue;
        size_t d = distance(name, candidate);
        if (d < best_distance) {
            best_distance = d;
            best = *names;
        }
    }
    return best_distance <= (name.n + 2) / 3 ? best : NULL;
}
