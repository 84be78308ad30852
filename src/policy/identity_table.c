/* identity_table: a file of lines: a principal or user, a mailbox, further addresses. The names in it are made
 * canonical as those of logins are; letters before the @ are the same in either case. */
#include <stdlib.h>

#include "policy/identity_internal.h"

/* Without this uthash ends the process when it has no memory. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
/* The hash of uthash falls through its cases without saying so in a way that clang reads. */
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"

enum { LINE_MAX_BYTES = 8192, KEY_BYTES = IDENTITY_NAME_MAX + 256, ARENA_FACTOR = 32, ARENA_LEAST = 1 << 16 };

struct entry {
    UT_hash_handle hh;
    struct identity_row row;
    size_t n;
    char key[];
};

struct identity_table {
    struct arena arena; /* of the entries and what they name */
    struct entry *entries;
};

void identity_table_free(struct identity_table **table)
{
    if (!*table)
        return;
    HASH_CLEAR(hh, (*table)->entries);
    arena_done(&(*table)->arena);
    free(*table);
    *table = NULL;
}

static size_t key_of(const struct identity_principal *principal, char key[KEY_BYTES])
{
    struct str text = str_of(principal->text);
    size_t folded = principal->realm.n ? principal->name.n : text.n;
    if (text.n > KEY_BYTES)
        return 0;
    for (size_t i = 0; i < text.n; i++)
        key[i] = i < folded ? ascii_lower(text.p[i]) : text.p[i];
    return text.n;
}

/* The next word of a line; false: that was the last one. */
static bool next_word(struct str *line, struct str *ret_word)
{
    *line = str_trim(*line);
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ' && line->p[n] != '\t')
        n++;
    *ret_word = str_slice(line->p, n);
    *line = str_skip(*line, n);
    return n > 0;
}

/* A name in a table may be of any class: where the realm is known it is that realm's, CORP\alice likewise; otherwise
 * an @ before capitals begins a realm that only Kerberos knows. The text is the same in each case. */
static enum identity_form make_principal(const struct conf *conf, struct str word, struct arena *arena,
                                         struct identity_principal *ret)
{
    struct identity_login login = { .class = IDENTITY_STORE, .name = word };
    enum identity_form form = identity_principal_make(conf, &login, arena, ret);
    size_t at = form == IDENTITY_FORM_OK && ret->realm.n == 0 ? str_find(str_of(ret->text), '@') : 0;
    bool small = false;
    for (size_t i = at; at && i < strlen(ret->text); i++)
        small = small || (ret->text[i] >= 'a' && ret->text[i] <= 'z');
    if (at == 0 || at == strlen(ret->text) || small)
        return form;
    login.class = IDENTITY_KERBEROS;
    return identity_principal_make(conf, &login, arena, ret);
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_LIMIT, "out of memory");
}

static int add_entry(struct identity_table *table, const struct identity_principal *principal, size_t number,
                     const struct str *address, size_t n_addresses, struct err *err)
{
    char key[KEY_BYTES];
    size_t n = key_of(principal, key);
    struct entry *old = NULL, *entry = arena_alloc(&table->arena, sizeof *entry + n);
    const char **list = arena_alloc(&table->arena, n_addresses * sizeof *list);
    if (!entry || !list)
        return no_memory(err);
    HASH_FIND(hh, table->entries, key, n, old);
    if (old)
        return err_set(err, ERR_SYNTAX, "line %zu: %s stands in line %zu already", number, principal->text,
                       old->row.line);
    for (size_t i = 0; i < n_addresses; i++)
        if (!(list[i] = arena_strdup(&table->arena, address[i])))
            return no_memory(err);
    entry->row = (struct identity_row){ number, list, n_addresses };
    entry->n = n;
    memcpy(entry->key, key, n);
    HASH_ADD_KEYPTR(hh, table->entries, entry->key, entry->n, entry);
    return entry->hh.tbl ? 0 : no_memory(err);
}

static int add_line(const struct conf *conf, struct identity_table *table, struct str line, size_t number,
                    struct err *err)
{
    struct str text, name, address[IDENTITY_ADDRESSES_MAX];
    struct identity_principal principal;
    size_t n = 0;
    str_cut(&line, '#', &text);
    if (text.n && text.p[text.n - 1] == '\r')
        text.n--;
    if (text.n > LINE_MAX_BYTES)
        return err_set(err, ERR_SYNTAX, "line %zu is longer than %d octets", number, LINE_MAX_BYTES);
    if (!next_word(&text, &name))
        return 0;
    for (struct str word; next_word(&text, &word);) {
        if (n == IDENTITY_ADDRESSES_MAX)
            return err_set(err, ERR_SYNTAX, "line %zu has more than %d addresses", number, IDENTITY_ADDRESSES_MAX);
        if (!identity_is_address(word, n > 0))
            return err_set(err, ERR_SYNTAX, "line %zu: \"%.*s\" is not an address", number, (int)(word.n < 100 ? word.n : 100),
                           word.p);
        address[n++] = word;
    }
    if (n == 0)
        return err_set(err, ERR_SYNTAX, "line %zu: a mailbox must stand behind the name", number);
    enum identity_form form = make_principal(conf, name, &table->arena, &principal);
    if (form == IDENTITY_FORM_NO_MEMORY)
        return no_memory(err);
    if (form == IDENTITY_FORM_BAD)
        return err_set(err, ERR_SYNTAX, "line %zu: the first word is no name of a login", number);
    return add_entry(table, &principal, number, address, n, err);
}

int identity_table_new(const struct conf *conf, struct str contents, struct identity_table **ret_table,
                       struct err *err)
{
    *ret_table = NULL;
    if (contents.n > IDENTITY_TABLE_MAX)
        return err_set(err, ERR_LIMIT, "the table is larger than %d MiB", IDENTITY_TABLE_MAX >> 20);
    struct identity_table *table = calloc(1, sizeof *table);
    if (!table)
        return no_memory(err);
    arena_init(&table->arena, contents.n * ARENA_FACTOR + ARENA_LEAST);
    struct str line;
    size_t number = 0;
    for (bool more = true; more;) {
        more = str_cut(&contents, '\n', &line);
        int rc = add_line(conf, table, line, ++number, err);
        if (rc < 0) {
            identity_table_free(&table);
            return rc;
        }
    }
    *ret_table = table;
    return 0;
}

const struct identity_row *identity_table_find(const struct identity_table *table,
                                               const struct identity_principal *principal)
{
    char key[KEY_BYTES];
    size_t n = key_of(principal, key);
    struct entry *entry = NULL;
    HASH_FIND(hh, table->entries, key, n, entry);
    return entry ? &entry->row : NULL;
}
