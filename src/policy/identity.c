#include "policy/identity.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "policy/identity_internal.h"

enum { ARENA_MAX = 4 << 20, GROUPS = 10, STEPS_MAX = 512, SAY_BYTES = 1200 };

struct step_list {
    struct identity_step *item;
    size_t n, cap;
};

struct identity {
    struct arena arena;
    struct identity_rules *rules;
    struct identity_principal principal;
    struct identity_result result;
    struct identity_query query;
    struct step_list steps;
    const char **address;
    size_t next_rule;
    bool canonical, asking, answered, done, no_memory;
    enum identity_found found;
    const char *why;
    const struct conf_peers *peers;
};

struct identity_rules *identity_rules_ref(struct identity_rules *rules)
{
    atomic_fetch_add(&rules->refs, 1);
    return rules;
}

void identity_rules_unref(struct identity_rules **rules)
{
    struct identity_rules *r = *rules;
    *rules = NULL;
    if (!r || atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    for (size_t i = 0; i < r->conf->n_identities; i++) {
        if (r->rule[i].has_expression)
            regfree(&r->rule[i].expression);
        identity_table_free(&r->rule[i].table);
    }
    free(r->rule);
    conf_unref(&r->conf);
    free(r);
}

int identity_rules_new(const struct conf *conf, struct identity_rules **ret_rules, struct err *err)
{
    struct identity_rules *r = calloc(1, sizeof *r);
    *ret_rules = NULL;
    if (r)
        r->rule = calloc(conf->n_identities + 1, sizeof *r->rule);
    if (!r || !r->rule) {
        free(r);
        return err_set(err, ERR_LIMIT, "out of memory for the identity rules");
    }
    atomic_init(&r->refs, 1);
    r->conf = conf_ref(conf);
    for (size_t i = 0; i < conf->n_identities; i++) {
        if (!conf->identity[i].match)
            continue;
        if (regcomp(&r->rule[i].expression, conf->identity[i].match, REG_EXTENDED) != 0) {
            identity_rules_unref(&r);
            return err_set(err, ERR_CONFIG, "identity \"%s\": match cannot be used", conf->identity[i].name);
        }
        r->rule[i].has_expression = true;
    }
    *ret_rules = r;
    return 0;
}

int identity_rules_table(struct identity_rules *rules, struct str name, struct str contents, struct err *err)
{
    const struct conf *conf = rules->conf;
    for (size_t i = 0; i < conf->n_identities; i++) {
        if (!str_eq_nocase(str_of(conf->identity[i].name), name) || !conf->identity[i].table)
            continue;
        struct identity_table *table;
        int rc = identity_table_new(conf, contents, &table, err);
        if (rc < 0)
            return err_wrap(err, rc, "%s", conf->identity[i].table);
        identity_table_free(&rules->rule[i].table);
        rules->rule[i].table = table;
        return 0;
    }
    return err_set(err, ERR_ABSENT, "no identity block with a table is called \"%.*s\"", STR_ARG(name));
}

/* A text for a step; an empty one when no more steps are told, so that thousands of rules cost no memory. */
static const char *say(struct identity *id, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *say(struct identity *id, const char *fmt, ...)
{
    char text[SAY_BYTES];
    va_list args;
    if (id->steps.n >= STEPS_MAX)
        return "";
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return arena_strdup(&id->arena, str_of(text));
}

/* Strings are the arena's or literals; NULL is noted as want of memory. */
static void add_step(struct identity *id, struct conf_place place, const char *rule, const char *tried,
                     const char *outcome, bool decided)
{
    struct step_list *steps = &id->steps;
    if (!rule || !tried || !outcome) {
        id->no_memory = true;
        return;
    }
    if (steps->n >= STEPS_MAX && !decided)
        return; /* what comes after so many rules is done, and not told */
    if (steps->n == steps->cap) {
        size_t cap = steps->cap ? steps->cap * 2 : 16;
        struct identity_step *grown = reallocarray(steps->item, cap, sizeof *grown);
        if (!grown) {
            id->no_memory = true;
            return;
        }
        steps->item = grown;
        steps->cap = cap;
    }
    steps->item[steps->n++] = (struct identity_step){ place, rule, tried, outcome, decided };
}

static const char *rule_name(struct identity *id, const struct conf_identity *rule)
{
    return say(id, "identity \"%s\"", rule->name);
}

static void finish(struct identity *id, enum identity_verdict verdict, const char *cause)
{
    struct identity_result *r = &id->result;
    id->done = true;
    r->verdict = verdict;
    r->cause = cause;
    if (verdict == IDENTITY_REFUSED || verdict == IDENTITY_LATER) {
        r->rights = 0;
        r->mailbox = NULL;
        r->n_addresses = 0;
    }
}

int identity_new(struct identity_rules *rules, const struct identity_login *login, struct identity **ret_identity,
                 struct err *err)
{
    struct identity *id = calloc(1, sizeof *id);
    *ret_identity = NULL;
    if (!id)
        return err_set(err, ERR_LIMIT, "out of memory for an identity");
    arena_init(&id->arena, ARENA_MAX);
    id->rules = identity_rules_ref(rules);
    id->result.principal = "";
    enum identity_form form = identity_principal_make(rules->conf, login, &id->arena, &id->principal);
    static const char *const vouches[] = {
        [IDENTITY_KERBEROS] = "Kerberos", [IDENTITY_NTLM] = "the NT domain", [IDENTITY_STORE] = "the user store",
    };
    if (form == IDENTITY_FORM_BAD) {
        add_step(id, (struct conf_place){ 0 }, "name", "the name of the login", "it is malformed", true);
        finish(id, IDENTITY_REFUSED, "name-malformed");
    } else if (form == IDENTITY_FORM_OK) {
        const char *how = id->principal.how;
        id->result.principal = id->principal.text;
        const char *tried = login->domain.n ? say(id, "%.*s\\%.*s of %s", STR_ARG(login->domain),
                                                           STR_ARG(login->name), vouches[login->class])
                                            : say(id, "%.*s of %s", STR_ARG(login->name),
                                                           vouches[login->class]);
        add_step(id, (struct conf_place){ 0 }, "name", tried,
                 say(id, "principal %s%s%s", id->principal.text, how ? ": " : "", how ? how : ""), false);
    }
    if (form == IDENTITY_FORM_NO_MEMORY || id->no_memory) {
        identity_free(&id);
        return err_set(err, ERR_LIMIT, "out of memory for an identity");
    }
    *ret_identity = id;
    return 0;
}

void identity_free(struct identity **identity)
{
    struct identity *id = *identity;
    if (!id)
        return;
    identity_rules_unref(&id->rules);
    free(id->steps.item);
    arena_done(&id->arena);
    free(id);
    *identity = NULL;
}

/* Kerberos names are what they are; the others are the same in letters of either case. */
static bool is_peer(const struct identity_principal *p, struct str peer)
{
    if (p->class == IDENTITY_KERBEROS)
        return str_eq(str_of(p->text), peer);
    if (p->realm.n == 0)
        return str_eq_nocase(str_of(p->text), peer);
    size_t at = p->name.n;
    return peer.n == strlen(p->text) && str_eq_nocase(str_slice(peer.p, at), p->name)
           && str_eq(str_skip(peer, at), str_skip(str_of(p->text), at));
}

static uint32_t rights_of(struct conf_strings names)
{
    static const struct {
        const char *name;
        uint32_t right;
    } rights[] = {
        { "submit", IDENTITY_SUBMIT },   { "relay", IDENTITY_RELAY }, { "any-sender", IDENTITY_ANY_SENDER },
        { "headers", IDENTITY_HEADERS }, { "size", IDENTITY_SIZE },
    };
    uint32_t sum = IDENTITY_SUBMIT;
    for (size_t i = 0; i < names.n; i++)
        for (size_t k = 0; k < sizeof rights / sizeof *rights; k++)
            if (str_eq(str_of(names.item[i]), str_of(rights[k].name)))
                sum |= rights[k].right;
    return sum;
}

static void find_rights(struct identity *id)
{
    const struct conf *conf = id->rules->conf;
    id->result.rights = IDENTITY_RIGHTS_USER;
    for (size_t i = 0; i < conf->n_peers && !id->peers; i++)
        for (size_t k = 0; k < conf->peers[i].principals.n && !id->peers; k++)
            if (is_peer(&id->principal, str_of(conf->peers[i].principals.item[k])))
                id->peers = &conf->peers[i];
    if (!id->peers)
        return;
    id->result.peers = id->peers;
    id->result.rights = rights_of(id->peers->rights);
    struct buf words;
    buf_init(&words, 256);
    buf_add_c(&words, "rights submit");
    for (size_t i = 0; i < id->peers->rights.n; i++)
        if (!str_eq(str_of(id->peers->rights.item[i]), STR("submit")))
            buf_addf(&words, " %s", id->peers->rights.item[i]);
    add_step(id, conf_place_of(conf, id->peers->name, "principals", id->peers->place),
             say(id, "peers \"%s\"", id->peers->name),
             say(id, "%s is a trusted peer", id->principal.text),
             words.failed ? NULL : arena_strdup(&id->arena, buf_str(&words)), true);
    buf_done(&words);
}

/* One more address; the first becomes the mailbox. What is there already, or too much, is passed over. */
static bool add_address(struct identity *id, struct str text)
{
    struct identity_result *r = &id->result;
    if (!id->address)
        id->address = arena_alloc(&id->arena, IDENTITY_ADDRESSES_MAX * sizeof *id->address);
    for (size_t i = 0; id->address && i < r->n_addresses; i++)
        if (str_eq_nocase(str_of(id->address[i]), text))
            return true;
    if (r->n_addresses == IDENTITY_ADDRESSES_MAX)
        return false;
    const char *copy = id->address ? arena_strdup(&id->arena, text) : NULL;
    if (!copy) {
        id->no_memory = true;
        return true;
    }
    id->address[r->n_addresses++] = copy;
    r->address = id->address;
    r->mailbox = id->address[0];
    return true;
}

enum outcome { PASSED, DECIDED, ASKING };

static struct conf_place place_of(struct identity *id, const struct conf_identity *rule, const char *option)
{
    return conf_place_of(id->rules->conf, rule->name, option, rule->place);
}

static enum outcome pass(struct identity *id, const struct conf_identity *rule, const char *option, const char *tried,
                         const char *outcome)
{
    add_step(id, place_of(id, rule, option), rule_name(id, rule), tried, outcome, false);
    return PASSED;
}

static enum outcome give_mailbox(struct identity *id, const struct conf_identity *rule, const char *option,
                                 const char *tried)
{
    size_t more = id->result.n_addresses - 1;
    if (id->no_memory)
        return DECIDED;
    const char *outcome =
        more ? say(id, "mailbox %s, and %zu address%s to send as", id->result.mailbox, more,
                            more == 1 ? "" : "es")
             : say(id, "mailbox %s", id->result.mailbox);
    add_step(id, place_of(id, rule, option), rule_name(id, rule), tried, outcome, true);
    finish(id, IDENTITY_MAILBOX, NULL);
    return DECIDED;
}

static enum outcome later(struct identity *id, const struct conf_identity *rule, const char *option, const char *tried,
                          const char *why, const char *cause)
{
    add_step(id, place_of(id, rule, option), rule_name(id, rule), tried, why, true);
    finish(id, IDENTITY_LATER, cause);
    return DECIDED;
}

static enum outcome reject(struct identity *id, const struct conf_identity *rule, const char *tried)
{
    add_step(id, place_of(id, rule, "reject"), rule_name(id, rule), tried, "the login is refused", true);
    finish(id, IDENTITY_REFUSED, "identity-rejected");
    return DECIDED;
}

static enum outcome run_domain(struct identity *id, const struct conf_identity *rule)
{
    const struct identity_principal *p = &id->principal;
    char lower[IDENTITY_NAME_MAX + 1];
    for (size_t i = 0; i < p->name.n; i++)
        lower[i] = ascii_lower(p->name.p[i]);
    lower[p->name.n] = 0;
    const char *tried = p->realm.n ? say(id, "%s is of realm %s", p->text, rule->realm)
                                   : say(id, "%s is a user of the user store", p->text);
    const char *mailbox = arena_printf(&id->arena, "%s@%s", lower, rule->domain);
    if (!p->person)
        return pass(id, rule, "domain", tried, "the name is a machine's or a service's: it has no mailbox");
    id->no_memory = id->no_memory || !mailbox;
    if (!mailbox || !identity_is_address(str_of(mailbox), false))
        return pass(id, rule, "domain", tried, "the name cannot stand before the @ of an address");
    add_address(id, str_of(mailbox));
    return give_mailbox(id, rule, "domain", tried);
}

/* `mailbox` with the groups in their places, in lower case; NULL: it is no address. */
static const char *fill_mailbox(struct identity *id, const char *form, const char *subject, const regmatch_t *group)
{
    struct buf made;
    buf_init(&made, IDENTITY_ADDRESS_MAX);
    for (const char *c = form; *c; c++) {
        if (*c != '\\' || !ascii_digit(c[1])) {
            buf_add_char(&made, ascii_lower(*c));
            continue;
        }
        const regmatch_t *g = &group[*++c - '0'];
        for (regoff_t i = g->rm_so; g->rm_so >= 0 && i < g->rm_eo; i++)
            buf_add_char(&made, ascii_lower(subject[i]));
    }
    bool ok = !made.failed && identity_is_address(buf_str(&made), false);
    const char *copy = ok ? arena_strdup(&id->arena, buf_str(&made)) : "";
    buf_done(&made);
    id->no_memory = id->no_memory || !copy;
    return copy && copy[0] ? copy : NULL;
}

static enum outcome run_match(struct identity *id, const struct conf_identity *rule, const struct identity_rule *compiled)
{
    const char *text = id->principal.text;
    regmatch_t group[GROUPS];
    const char *tried = say(id, "%s against %s", text, rule->match);
    bool hit = regexec(&compiled->expression, text, GROUPS, group, 0) == 0 && group[0].rm_so == 0
               && (size_t)group[0].rm_eo == strlen(text);
    if (!hit)
        return pass(id, rule, "match", tried, "no match");
    if (rule->reject)
        return reject(id, rule, tried);
    const char *mailbox = fill_mailbox(id, rule->mailbox, text, group);
    if (!mailbox)
        return pass(id, rule, "mailbox", tried, "it matches, and what mailbox makes of it is no address");
    add_address(id, str_of(mailbox));
    return give_mailbox(id, rule, "match", tried);
}

static enum outcome run_table(struct identity *id, const struct conf_identity *rule, const struct identity_rule *compiled)
{
    if (!compiled->table)
        return later(id, rule, "table", say(id, "%s in %s", id->principal.text, rule->table),
                     "the table could not be read", "table-missing");
    const struct identity_row *row = identity_table_find(compiled->table, &id->principal);
    if (!row)
        return pass(id, rule, "table", say(id, "%s in %s", id->principal.text, rule->table),
                    "it is not there");
    for (size_t i = 0; i < row->n_addresses; i++)
        add_address(id, str_of(row->address[i]));
    return give_mailbox(id, rule, "table",
                        say(id, "%s in %s:%zu", id->principal.text, rule->table, row->line));
}

static enum outcome ask(struct identity *id, const struct conf_identity *rule)
{
    const struct conf *conf = id->rules->conf;
    const struct conf_directory *directory = NULL;
    for (size_t i = 0; i < conf->n_directories && !directory; i++)
        if (str_eq(str_of(conf->directory[i].realm), str_of(rule->realm)))
            directory = &conf->directory[i];
    if (!directory)
        return later(id, rule, "attribute", id->principal.text, "there is no directory for its realm",
                     "directory-down");
    bool service = str_find(id->principal.name, '/') < id->principal.name.n;
    id->query = (struct identity_query){
        .directory = directory, .account = service ? STR_NONE : id->principal.name,
        .principal = str_of(id->principal.text), .attributes = rule->attribute,
    };
    id->asking = true;
    id->answered = false;
    id->found = IDENTITY_UNREACHABLE;
    id->why = "no answer came";
    return ASKING;
}

static enum outcome run_answer(struct identity *id, const struct conf_identity *rule)
{
    const char *tried = say(id, "%s in the directory of %s", id->principal.text, rule->realm);
    id->asking = false;
    if (id->found == IDENTITY_UNREACHABLE)
        return later(id, rule, "attribute", tried, id->why, "directory-down");
    if (id->found == IDENTITY_ABSENT)
        return pass(id, rule, "attribute", tried, "there is no such account");
    if (id->result.n_addresses == 0)
        return pass(id, rule, "attribute", tried, "the account has no address in these attributes");
    return give_mailbox(id, rule, "attribute", tried);
}

static enum outcome run_attribute(struct identity *id, const struct conf_identity *rule)
{
    if (id->asking)
        return run_answer(id, rule);
    if (id->peers)
        return pass(id, rule, "attribute", id->principal.text, "not asked: a trusted peer needs no mailbox");
    return ask(id, rule);
}

static bool is_for(const struct identity_principal *p, const struct conf_identity *rule)
{
    if (rule->realm)
        return str_eq(p->realm, str_of(rule->realm));
    bool plain = p->realm.n == 0 && p->class == IDENTITY_STORE && str_find(p->name, '\\') == p->name.n
                 && str_find(p->name, '@') == p->name.n;
    return !rule->domain || plain;
}

static enum outcome run_rule(struct identity *id, size_t index)
{
    const struct conf_identity *rule = &id->rules->conf->identity[index];
    const struct identity_rule *compiled = &id->rules->rule[index];
    const struct identity_principal *p = &id->principal;
    if (!is_for(p, rule))
        return pass(id, rule, rule->realm ? "realm" : "domain", p->text,
                    rule->realm ? say(id, "not of realm %s", rule->realm)
                                : "not a bare name of the user store");
    if (compiled->has_expression)
        return run_match(id, rule, compiled);
    if (rule->reject)
        return reject(id, rule, p->text);
    if (rule->domain)
        return run_domain(id, rule);
    return rule->table ? run_table(id, rule, compiled) : run_attribute(id, rule);
}

/* After all rules. The user store's own word: who is called by an address has it. */
static void fall_back(struct identity *id)
{
    const struct identity_principal *p = &id->principal;
    if (p->class == IDENTITY_STORE && p->realm.n == 0 && identity_is_address(str_of(p->text), false)) {
        add_address(id, str_of(p->text));
        add_step(id, (struct conf_place){ 0 }, "user store", "the user's name is an address", "it is the mailbox", true);
        finish(id, IDENTITY_MAILBOX, NULL);
        return;
    }
    add_step(id, (struct conf_place){ 0 }, "end", id->rules->conf->n_identities ? "no rule is left" : "there are no rules",
             "no mailbox", true);
    finish(id, IDENTITY_NO_MAILBOX, NULL);
}

enum identity_next identity_run(struct identity *id)
{
    if (!id->done && !id->canonical) {
        id->canonical = true;
        find_rights(id);
    }
    while (!id->done && !id->no_memory) {
        if (id->next_rule == id->rules->conf->n_identities) {
            fall_back(id);
            break;
        }
        if (run_rule(id, id->next_rule) == ASKING)
            return id->no_memory ? IDENTITY_NO_MEMORY : IDENTITY_ASK;
        id->next_rule++;
    }
    id->result.step = id->steps.item;
    id->result.n_steps = id->steps.n;
    return id->no_memory ? IDENTITY_NO_MEMORY : IDENTITY_DONE;
}

const struct identity_query *identity_query(const struct identity *id)
{
    return &id->query;
}

/* "SMTP:…" in capitals is the first of its kind, "smtp:…" any other; other kinds (X500, SIP …) are no mail. */
static bool take_value(struct identity *id, const struct identity_value *value, bool only_primary)
{
    struct str text = value->value;
    bool primary = str_starts(text, STR("SMTP:"));
    if (str_starts_nocase(text, STR("smtp:")))
        text = str_skip(text, 5);
    if (only_primary != primary || !identity_is_address(text, false))
        return true;
    return add_address(id, text);
}

void identity_answer(struct identity *id, enum identity_found found, const struct identity_value *values,
                     size_t n_values, struct str why)
{
    if (!id->asking || id->answered)
        return;
    bool room = true;
    id->answered = true;
    id->found = found;
    id->why = arena_strdup(&id->arena, str_slice(why.p, why.n < 500 ? why.n : 500));
    id->no_memory = id->no_memory || !id->why;
    const struct conf_strings wanted = id->query.attributes;
    for (size_t a = 0; found == IDENTITY_FOUND && a < wanted.n; a++)
        for (int pass_number = 0; pass_number < 2; pass_number++)
            for (size_t i = 0; i < n_values && room; i++)
                if (str_eq_nocase(values[i].attribute, str_of(wanted.item[a])))
                    room = take_value(id, &values[i], pass_number == 0);
    if (!room)
        add_step(id, id->query.directory->place, "directory", id->query.principal.p,
                 say(id, "there are more than %d addresses: the others are left out",
                              IDENTITY_ADDRESSES_MAX), false);
}

const struct identity_result *identity_result(const struct identity *id)
{
    return &id->result;
}
