/* identity_internal: what the files of identity share. For src/policy only. */
#pragma once
#include <regex.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "policy/identity.h"

/* A login's one name. Strings belong to the arena that it was made in. */
struct identity_principal {
    const char *text;  /* "alice@CORP.TEST", "OTHER\\alice", "alice" */
    struct str name;   /* before the realm */
    struct str realm;  /* empty: none */
    bool person;       /* neither a machine (…$) nor a service (…/…) */
    enum identity_class class;
    const char *how;   /* why it is another text than that of the login, for the step; NULL: it is the same */
};
enum identity_form { IDENTITY_FORM_OK, IDENTITY_FORM_BAD, IDENTITY_FORM_NO_MEMORY };
enum identity_form identity_principal_make(const struct conf *conf, const struct identity_login *login,
                                           struct arena *arena, struct identity_principal *ret);
/* The known realm of that name, or of that NT name, letters of either case; NULL: none. */
const char *identity_realm_find(const struct conf *conf, struct str name);
/* One plain address: dot-atom @ domain. `or_domain`: "*@domain" is one, too. */
bool identity_is_address(struct str text, bool or_domain);

struct identity_row {
    size_t line;
    const char *const *address; /* the mailbox first */
    size_t n_addresses;
};
struct identity_table;
int identity_table_new(const struct conf *conf, struct str contents, struct identity_table **ret_table,
                       struct err *err);
void identity_table_free(struct identity_table **table);
const struct identity_row *identity_table_find(const struct identity_table *table,
                                               const struct identity_principal *principal);

struct identity_rule {
    regex_t expression;
    bool has_expression;
    struct identity_table *table;
};
struct identity_rules {
    atomic_uint refs;
    const struct conf *conf;
    struct identity_rule *rule; /* one an identity block */
};
