#include "policy/recipient.h"

#include <stdlib.h>

#include "base/hash.h"

enum recipient_form recipient_check_local(struct str local)
{
    if (local.n == 0)
        return RECIPIENT_EMPTY;
    if (local.n > RECIPIENT_LOCAL_MAX)
        return RECIPIENT_LONG;
    if (local.p[0] == '.')
        return RECIPIENT_DOT;
    if (str_find(local, '/') < local.n)
        return RECIPIENT_SLASH;
    return str_find(local, 0) < local.n ? RECIPIENT_NUL : RECIPIENT_OK;
}

const char *recipient_form_text(enum recipient_form form)
{
    static const char *const texts[] = {
        [RECIPIENT_OK] = "the local part is fine",
        [RECIPIENT_EMPTY] = "the local part is empty",
        [RECIPIENT_DOT] = "the local part begins with a dot",
        [RECIPIENT_SLASH] = "the local part holds a slash",
        [RECIPIENT_NUL] = "the local part holds a NUL",
        [RECIPIENT_LONG] = "the local part is longer than 200 octets",
    };
    return texts[form];
}

bool recipient_is_postmaster(struct str local, struct str domain, const struct conf_domain *block)
{
    return str_eq_nocase(local, STR("postmaster")) && (domain.n == 0 || (block && block->deliver));
}

enum recipient_source recipient_source(const struct conf_domain *block)
{
    if (!block->recipients || str_eq(str_of(block->recipients), STR("any")))
        return RECIPIENT_ANY;
    return str_eq(str_of(block->recipients), STR("users")) ? RECIPIENT_USERS : RECIPIENT_FILE;
}

struct entry {
    UT_hash_handle hh;
    size_t n;
    char text[]; /* lower case */
};

struct recipient_table {
    struct entry *entries;
    size_t count;
};

void recipient_table_free(struct recipient_table **table)
{
    if (!*table)
        return;
    struct entry *entry, *next;
    HASH_ITER(hh, (*table)->entries, entry, next) {
        HASH_DEL((*table)->entries, entry);
        free(entry);
    }
    free(*table);
    *table = NULL;
}

static bool add(struct recipient_table *table, struct str text, struct err *err)
{
    struct entry *entry = malloc(sizeof *entry + text.n + 1), *old = NULL;
    if (!entry) {
        err_set(err, ERR_LIMIT, "out of memory");
        return false;
    }
    entry->n = text.n;
    for (size_t i = 0; i < text.n; i++)
        entry->text[i] = ascii_lower(text.p[i]);
    HASH_FIND(hh, table->entries, entry->text, entry->n, old);
    if (old) {
        free(entry);
        return true;
    }
    HASH_ADD_KEYPTR(hh, table->entries, entry->text, entry->n, entry);
    if (!hash_has(entry)) {
        free(entry);
        err_set(err, ERR_LIMIT, "out of memory");
        return false;
    }
    table->count++;
    return true;
}

/* One line without its comment and blanks. False: wrong, and `err` says so. */
static bool add_line(struct recipient_table *table, struct str line, size_t number, struct err *err)
{
    struct str text;
    str_cut(&line, '#', &text);
    while (text.n && text.p[text.n - 1] == '\r')
        text.n--;
    text = str_trim(text);
    if (text.n == 0)
        return true;
    bool bad = text.n > 512 || text.p[0] == '@';
    for (size_t i = 0; i < text.n; i++)
        bad = bad || (unsigned char)text.p[i] <= 0x20 || text.p[i] == 0x7f;
    if (bad) {
        err_set(err, ERR_SYNTAX, "line %zu: one address or local part stands on a line", number);
        return false;
    }
    return add(table, text, err);
}

int recipient_table_new(struct str contents, struct recipient_table **ret_table, struct err *err)
{
    *ret_table = NULL;
    if (contents.n > RECIPIENT_FILE_MAX)
        return err_set(err, ERR_LIMIT, "the list of recipients is larger than %d MiB", RECIPIENT_FILE_MAX >> 20);
    struct recipient_table *table = calloc(1, sizeof *table);
    if (!table)
        return err_set(err, ERR_LIMIT, "out of memory");
    struct err why = { 0 };
    struct str line;
    size_t number = 0;
    for (bool more = true; more;) {
        more = str_cut(&contents, '\n', &line);
        if (!add_line(table, line, ++number, &why)) {
            recipient_table_free(&table);
            return err_set(err, why.code, "%s", why.text);
        }
    }
    *ret_table = table;
    return 0;
}

static bool has(const struct recipient_table *table, const char *key, size_t n)
{
    const struct entry *entry = NULL;
    HASH_FIND(hh, table->entries, key, n, entry);
    return entry != NULL;
}

bool recipient_table_has(const struct recipient_table *table, struct str local, struct str domain)
{
    char key[512];
    if (local.n == 0 || local.n + 1 + domain.n > sizeof key)
        return false;
    for (size_t i = 0; i < local.n; i++)
        key[i] = ascii_lower(local.p[i]);
    if (has(table, key, local.n))
        return true;
    key[local.n] = '@';
    for (size_t i = 0; i < domain.n; i++)
        key[local.n + 1 + i] = ascii_lower(domain.p[i]);
    return has(table, key, local.n + 1 + domain.n);
}

size_t recipient_table_count(const struct recipient_table *table)
{
    return table->count;
}
