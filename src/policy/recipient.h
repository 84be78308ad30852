/* recipient: what may stand before the @ of an address that we deliver to, who exists, and the postmaster. Pure. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include "conf/conf.h"

enum { RECIPIENT_LOCAL_MAX = 200, RECIPIENT_FILE_MAX = 64 << 20 };

enum recipient_form { RECIPIENT_OK, RECIPIENT_EMPTY, RECIPIENT_DOT, RECIPIENT_SLASH, RECIPIENT_NUL, RECIPIENT_LONG };

/* `local` without quotes or escapes. Everything but RECIPIENT_OK is answered with 550 5.1.3: the local part
 * becomes part of a path. */
enum recipient_form recipient_check_local(struct str local);
/* "the local part is empty" … for the reply. */
const char *recipient_form_text(enum recipient_form form);

/* <postmaster> (no domain: `domain` empty) or postmaster@ours (`block` is ours): goes to conf->postmaster and is
 * always accepted (RFC 5321 section 4.5.1). */
bool recipient_is_postmaster(struct str local, struct str domain, const struct conf_domain *block);

/* recipients = "FILE": one address or local part a line, # comments. Whole addresses count for their domain only,
 * local parts for every domain that names the file. Letters of either case are the same. */
struct recipient_table;
int recipient_table_new(struct str contents, struct recipient_table **ret_table, struct err *err);
void recipient_table_free(struct recipient_table **table);
bool recipient_table_has(const struct recipient_table *table, struct str local, struct str domain);
size_t recipient_table_count(const struct recipient_table *table);

/* What `recipients` of a domain block means. */
enum recipient_source { RECIPIENT_ANY, RECIPIENT_USERS, RECIPIENT_FILE };
enum recipient_source recipient_source(const struct conf_domain *block);
