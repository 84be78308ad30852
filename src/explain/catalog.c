#include "explain/catalog.h"

#include <stdio.h>

#include "explain/catalog_rows.h"

static const struct catalog_rows *const parts[] = { &catalog_events, &catalog_logins,   &catalog_kerberos,
                                                    &catalog_ntlm,   &catalog_identity, &catalog_outbound };
enum { N_PARTS = sizeof parts / sizeof *parts };

size_t catalog_size(void)
{
    size_t n = 0;
    for (size_t i = 0; i < N_PARTS; i++)
        n += parts[i]->n;
    return n;
}

const struct catalog_entry *catalog_at(size_t i)
{
    for (size_t part = 0; part < N_PARTS; i -= parts[part++]->n)
        if (i < parts[part]->n)
            return &parts[part]->row[i];
    return NULL;
}

void catalog_id(const struct catalog_entry *entry, char ret_id[CATALOG_ID_BYTES])
{
    snprintf(ret_id, CATALOG_ID_BYTES, "PE-%u", entry->number);
}

const char *catalog_word(const struct catalog_entry *entry)
{
    const char *slash = strchr(entry->name, '/');
    return slash ? slash + 1 : entry->name;
}

bool catalog_is_cause(const struct catalog_entry *entry)
{
    return strchr(entry->name, '/') != NULL;
}

const char *catalog_level_name(enum catalog_level level)
{
    static const char *const names[] = { [CATALOG_ERROR] = "error", [CATALOG_WARNING] = "warning",
                                         [CATALOG_NOTICE] = "notice", [CATALOG_INFO] = "info" };
    return names[level];
}

const char *catalog_section_name(enum catalog_section section)
{
    static const char *const names[CATALOG_SECTIONS] = {
        [CATALOG_AUTH] = "auth",             [CATALOG_RECEIVING] = "receiving", [CATALOG_QUEUE] = "queue",
        [CATALOG_DELIVERING] = "delivering", [CATALOG_KEYS] = "keys",           [CATALOG_DAEMON] = "daemon",
        [CATALOG_LOGIN] = "login",           [CATALOG_KERBEROS] = "kerberos",   [CATALOG_NTLM] = "ntlm",
        [CATALOG_IDENTITY] = "identity",     [CATALOG_OUTBOUND] = "outbound",
    };
    return names[section];
}

const struct catalog_entry *catalog_cause(const char *event, struct str cause)
{
    const struct catalog_entry *entry;
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++) {
        struct str before, rest = str_of(entry->name);
        if (str_cut(&rest, '/', &before) && str_eq(before, str_of(event)) && str_eq(rest, cause))
            return entry;
    }
    return NULL;
}

/* A word by which alone somebody would look: a number or a symbol, not "MSExchangeTransport". */
static bool is_telling(struct str word)
{
    for (size_t i = 0; i < word.n; i++)
        if (ascii_digit(word.p[i]) || word.p[i] == '_')
            return true;
    return false;
}

static bool is_former(const char *former, struct str what)
{
    struct str rest = str_of(former), word;
    if (str_eq_nocase(rest, what))
        return true;
    while (rest.n) {
        str_cut(&rest, ' ', &word);
        if (is_telling(word) && str_eq_nocase(word, what))
            return true;
    }
    return false;
}

static bool has_former(const struct catalog_entry *entry, struct str what)
{
    for (const char *const *former = entry->former; *former; former++)
        if (is_former(*former, what))
            return true;
    return false;
}

/* A number alone is ours only where nobody else has it: whoever writes 1012 read it in another server's log. */
static bool is_ours(struct str number)
{
    const struct catalog_entry *entry;
    for (size_t i = 0; (entry = catalog_at(i)) != NULL; i++)
        if (has_former(entry, number))
            return false;
    return true;
}

static bool is_meant(const struct catalog_entry *entry, struct str what)
{
    char id[CATALOG_ID_BYTES];
    catalog_id(entry, id);
    return str_eq_nocase(str_of(entry->name), what) || str_eq_nocase(str_of(catalog_word(entry)), what) ||
           str_eq_nocase(str_of(id), what) || has_former(entry, what) || (str_eq(str_of(id + 3), what) && is_ours(what));
}

const struct catalog_entry *catalog_search(struct str what, size_t *index)
{
    const struct catalog_entry *entry;
    while ((entry = catalog_at(*index)) != NULL) {
        ++*index;
        if (is_meant(entry, what))
            return entry;
    }
    return NULL;
}
