/* postern whoami: who is this login, and why: the identity rules run here, as they are in the configuration, and every
 * step is shown with the line that it comes from. Directories are asked by this command itself: with the directory's
 * keytab where it may be read, otherwise with the ticket of who calls. */
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "directory/account.h"
#include "policy/identity.h"

enum { DIRECTORY_TIMEOUT_MS = 5000, ANSWER_ARENA_MAX = 64 << 20 };

static int read_table(struct identity_rules *rules, const struct conf_identity *block)
{
    struct err err = { 0 };
    struct buf text;
    buf_init(&text, IDENTITY_TABLE_MAX + 65536);
    int fd = open(block->table, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc = -1;
    if (fd < 0)
        err_errno(&err, errno, "cannot open %s", block->table);
    for (ssize_t n = 1; fd >= 0 && n > 0;) {
        char *room = buf_reserve(&text, 65536);
        n = room ? read(fd, room, 65536) : -1;
        text.n += n > 0 ? (size_t)n : 0;
        rc = n == 0 ? 0 : -1;
        if (n < 0)
            err_set(&err, ERR_LIMIT, "cannot read %s, or it is too large", block->table);
    }
    if (rc == 0)
        rc = identity_rules_table(rules, str_of(block->name), buf_str(&text), &err);
    if (rc < 0)
        fprintf(stderr, "postern whoami: identity \"%s\": %s\n", block->name, err_text(&err));
    if (fd >= 0)
        close(fd);
    buf_done(&text);
    return rc;
}

/* MIT Kerberos gets the ticket by itself, from the keytab into memory, or takes the one that is there. */
static void prepare_ticket(const struct conf *conf, const struct conf_directory *directory)
{
    char name[4200];
    if (conf->krb5_config)
        setenv("KRB5_CONFIG", conf->krb5_config, 1);
    if (!directory->keytab || access(directory->keytab, R_OK) != 0)
        return;
    snprintf(name, sizeof name, "FILE:%s", directory->keytab);
    setenv("KRB5_CLIENT_KTNAME", name, 1);
    setenv("KRB5CCNAME", "MEMORY:postern-whoami", 1);
}

/* The first line of the directory's password_file. */
static int read_password(void *context, struct buf *into, struct err *err)
{
    const struct conf_directory *directory = context;
    int fd = open(directory->password_file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char *room = buf_reserve(into, ACCOUNT_VALUE_MAX);
    ssize_t n = fd >= 0 && room ? read(fd, room, ACCOUNT_VALUE_MAX) : -1;
    int rc = n < 0 ? err_errno(err, errno, "cannot read %s", directory->password_file) : 0;
    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i < n && room[i] != '\n' && room[i] != '\r'; i++)
        into->n++;
    return rc;
}

static void ask_directory(const struct conf *conf, struct identity *id)
{
    static const enum account_protection protections[] = {
        [CONF_BIND_GSSAPI] = ACCOUNT_GSSAPI, [CONF_BIND_STARTTLS] = ACCOUNT_STARTTLS, [CONF_BIND_LDAPS] = ACCOUNT_LDAPS,
    };
    const struct identity_query *query = identity_query(id);
    const struct conf_directory *block = query->directory;
    struct account_options options = {
        .realm = block->realm, .server = block->servers.item, .n_servers = block->servers.n,
        .protection = protections[block->bind], .ca = block->ca, .base = block->base,
        .timeout_ms = DIRECTORY_TIMEOUT_MS,
    };
    if (block->password_file)
        options.credential = (struct account_credential){ .context = (void *)block, .password = read_password,
                                                          .name = block->principal };
    struct account_query question = { query->account, query->principal, query->attributes.item, query->attributes.n };
    struct account_directory *directory = NULL;
    struct account_answer answer = { 0 };
    struct identity_value *values = NULL;
    struct arena arena;
    struct err err = { 0 };
    arena_init(&arena, ANSWER_ARENA_MAX);
    prepare_ticket(conf, block);
    int rc = account_directory_new(&options, &directory, &err);
    if (rc == 0)
        rc = account_find(directory, &question, &arena, &answer, &err);
    if (rc == 0)
        values = arena_alloc(&arena, (answer.n_values + 1) * sizeof *values);
    for (size_t i = 0; values && i < answer.n_values; i++)
        values[i] = (struct identity_value){ str_of(answer.value[i].attribute), answer.value[i].value };
    if (rc < 0 || !values)
        identity_answer(id, IDENTITY_UNREACHABLE, NULL, 0, str_of(rc < 0 ? err_text(&err) : "out of memory"));
    else
        identity_answer(id, answer.found ? IDENTITY_FOUND : IDENTITY_ABSENT, values, answer.n_values, STR_NONE);
    account_directory_free(&directory);
    arena_done(&arena);
}

static const char *const verdicts[] = {
    [IDENTITY_MAILBOX] = "mailbox", [IDENTITY_NO_MAILBOX] = "none", [IDENTITY_REFUSED] = "refused",
    [IDENTITY_LATER] = "later",
};
static const char *const right_names[] = { "submit", "relay", "any-sender", "headers", "size" };
enum { N_RIGHTS = sizeof right_names / sizeof *right_names };

static void print_text(const struct identity_result *r, struct buf *out)
{
    static const char *const endings[] = {
        [IDENTITY_MAILBOX] = "", [IDENTITY_NO_MAILBOX] = "none", [IDENTITY_REFUSED] = "none: the login is refused",
        [IDENTITY_LATER] = "not known now: logins get 454 4.7.0",
    };
    for (size_t i = 0; i < r->n_steps; i++) {
        const struct identity_step *s = &r->step[i];
        if (s->place.file && s->place.line)
            buf_addf(out, "%s:%u: ", s->place.file, s->place.line);
        buf_addf(out, "%s: %s: %s\n", s->rule, s->tried, s->outcome);
    }
    buf_addf(out, "principal: %s\nmailbox: %s\n", r->principal, r->mailbox ? r->mailbox : endings[r->verdict]);
    for (size_t i = 1; i < r->n_addresses; i++)
        buf_addf(out, "%s%s", i == 1 ? "may send as: " : " ", r->address[i]);
    buf_add_c(out, r->n_addresses > 1 ? "\nrights:" : "rights:");
    for (size_t i = 0; i < N_RIGHTS; i++)
        if (r->rights & (1u << i))
            buf_addf(out, " %s", right_names[i]);
    buf_add_c(out, r->rights ? "\n" : " none\n");
}

static bool print_json(const char *login, const struct identity_result *r, struct buf *out)
{
    json_t *top = json_object(), *steps = json_array(), *addresses = json_array(), *rights = json_array();
    for (size_t i = 0; i < r->n_steps; i++) {
        const struct identity_step *s = &r->step[i];
        json_t *step = json_object();
        json_object_set_new(step, "file", s->place.file ? json_string(s->place.file) : json_null());
        json_object_set_new(step, "line", s->place.line ? json_integer(s->place.line) : json_null());
        json_object_set_new(step, "rule", json_string(s->rule));
        json_object_set_new(step, "tried", json_string(s->tried));
        json_object_set_new(step, "outcome", json_string(s->outcome));
        json_object_set_new(step, "decided", json_boolean(s->decided));
        json_array_append_new(steps, step);
    }
    for (size_t i = 0; i < r->n_addresses; i++)
        json_array_append_new(addresses, json_string(r->address[i]));
    for (size_t i = 0; i < N_RIGHTS; i++)
        if (r->rights & (1u << i))
            json_array_append_new(rights, json_string(right_names[i]));
    json_object_set_new(top, "login", json_string(login));
    json_object_set_new(top, "principal", json_string(r->principal));
    json_object_set_new(top, "verdict", json_string(verdicts[r->verdict]));
    json_object_set_new(top, "cause", r->cause ? json_string(r->cause) : json_null());
    json_object_set_new(top, "mailbox", r->mailbox ? json_string(r->mailbox) : json_null());
    json_object_set_new(top, "addresses", addresses);
    json_object_set_new(top, "rights", rights);
    json_object_set_new(top, "peers", r->peers ? json_string(r->peers->name) : json_null());
    json_object_set_new(top, "steps", steps);
    char *text = json_dumps(top, JSON_INDENT(2));
    bool ok = text && buf_add_c(out, text) && buf_add_char(out, '\n');
    free(text);
    json_decref(top);
    return ok;
}

static int show(const char *login, const struct identity_result *r, bool json)
{
    static const int statuses[] = {
        [IDENTITY_MAILBOX] = CLI_OK, [IDENTITY_NO_MAILBOX] = CLI_NO, [IDENTITY_REFUSED] = CLI_NO,
        [IDENTITY_LATER] = CLI_TRY_AGAIN,
    };
    struct buf out;
    bool ok = true;
    buf_init(&out, 16 << 20);
    if (json)
        ok = print_json(login, r, &out);
    else
        print_text(r, &out);
    int status = ok && !out.failed ? cli_write(buf_str(&out)) : cli_fail(CLI_SYSTEM, "not enough memory");
    buf_done(&out);
    return status ? status : statuses[r->verdict];
}

static int run(const struct conf *conf, const char *name, bool json)
{
    struct identity_rules *rules = NULL;
    struct identity *id = NULL;
    struct err err = { 0 };
    int rc = identity_rules_new(conf, &rules, &err), status = CLI_SYSTEM;
    for (size_t i = 0; rc == 0 && i < conf->n_identities; i++)
        if (conf->identity[i].table)
            read_table(rules, &conf->identity[i]);
    if (rc == 0) {
        struct identity_login login = identity_login_of(rules, str_of(name));
        rc = identity_new(rules, &login, &id, &err);
    }
    enum identity_next next = IDENTITY_NO_MEMORY;
    while (rc == 0 && (next = identity_run(id)) == IDENTITY_ASK)
        ask_directory(conf, id);
    if (rc == 0 && next == IDENTITY_DONE)
        status = show(name, identity_result(id), json);
    else
        status = cli_fail(CLI_SYSTEM, "%s", rc < 0 ? err_text(&err) : "not enough memory");
    identity_free(&id);
    if (rules)
        identity_rules_unref(&rules);
    return status;
}

int cli_whoami(int argc, char **argv, const struct cli_options *options)
{
    const char *name = NULL;
    bool all = true;
    for (int i = 1; i < argc; i++) {
        if (all && str_eq(str_of(argv[i]), STR("--")))
            all = false;
        else if (all && argv[i][0] == '-')
            return cli_usage("whoami", "\"%s\" is not known here", argv[i]);
        else if (name)
            return cli_usage("whoami", "one login at a time");
        else
            name = argv[i];
    }
    if (!name)
        return cli_usage("whoami", "say who: alice@CORP.TEST, CORP\\\\alice, alice");
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status == CLI_OK)
        status = run(conf, name, options->json);
    conf_unref(&conf);
    return status;
}
