/* Identity rules under any names and any answers of a directory. The input is cut at NULs: the first part is the text
 * of the identity and peers blocks, or, when that does not load, a fixed one stands for it; then come the contents
 * of a table, the domain of an NT login, and names. Whatever comes out must be a plain address, and only a directory
 * or a table that is missing may be waited for. */
#include <assert.h>
#include <stdlib.h>

#include "conf/load.h"
#include "policy/identity.h"
#include "policy/sender.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FRAME "server \"s.test\" { listen = {\"127.0.0.1:25\"} }\ndomain \"corp.test\" { deliver = \"discard\" }\n" \
              "directory \"CORP.TEST\" { servers = {\"ldap://dc\"} netbios = CORP principal = \"a@B\" keytab = \"/k\" }\n"
#define RULES "identity a { match = \"svc-(.*)@(.*)\" mailbox = \"\\\\1@\\\\2\" }\nidentity t { table = \"/t\" }\n" \
              "identity l { realm = \"CORP.TEST\" attribute = {mail, proxyAddresses} }\n" \
              "identity c { realm = \"CORP.TEST\" domain = \"corp.test\" }\nidentity u { domain = \"corp.test\" }\n" \
              "peers p { principals = {\"MX1$@CORP.TEST\"} rights = {any-sender} }\n"

static struct buf text;

static int fuzz_read(void *ctx, const char *path, struct buf *into, struct err *err)
{
    return buf_add(into, buf_str(&text)) ? 0 : err_set(err, ERR_LIMIT, "too large");
}

static int fuzz_list(void *ctx, const char *pattern, struct buf *into, struct err *err)
{
    return 0;
}

static const struct conf *load(struct str rules)
{
    struct conf_reader reader = { NULL, "/", fuzz_read, fuzz_list };
    struct conf_mistakes m;
    const struct conf *conf;
    buf_init(&text, 1 << 20);
    buf_add_c(&text, FRAME);
    buf_add(&text, rules);
    conf_mistakes_init(&m);
    int rc = conf_load(&reader, "f", NULL, &m, &conf, NULL);
    conf_mistakes_done(&m);
    buf_done(&text);
    return rc == 0 ? conf : NULL;
}

static void check_result(const struct identity_result *r)
{
    struct buf senders;
    buf_init(&senders, 1 << 20);
    assert((r->verdict == IDENTITY_MAILBOX) == (r->mailbox != NULL));
    assert(r->n_addresses <= IDENTITY_ADDRESSES_MAX && r->n_steps > 0);
    for (size_t i = 0; i < r->n_addresses; i++)
        for (const char *c = r->address[i]; *c; c++)
            assert(*c > 32 && *c < 127);
    for (const char *c = r->principal; *c; c++)
        assert((unsigned char)*c >= 32 && *c != 127);
    if (r->verdict == IDENTITY_REFUSED || r->verdict == IDENTITY_LATER)
        assert(r->rights == 0 && r->n_addresses == 0 && r->cause);
    sender_text(r, &senders);
    if (r->mailbox)
        assert(sender_is_allowed(str_of(r->mailbox), buf_str(&senders), r->rights, str_of(r->mailbox)));
    buf_done(&senders);
}

static void run(struct identity_rules *rules, const struct identity_login *login, struct str answer)
{
    struct identity *id;
    enum identity_next next;
    int questions = 0;
    if (identity_new(rules, login, &id, NULL) < 0)
        return;
    while ((next = identity_run(id)) == IDENTITY_ASK) {
        struct identity_value values[3] = { { STR("mail"), answer }, { STR("PROXYADDRESSES"), login->name },
                                            { STR("proxyAddresses"), answer } };
        assert(identity_query(id)->directory && ++questions < 1000);
        identity_answer(id, (enum identity_found)(answer.n % 3), values, answer.n % 4, answer);
    }
    if (next == IDENTITY_DONE)
        check_result(identity_result(id));
    identity_free(&id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str rest = str_slice((const char *)data, n), blocks, table, domain, name;
    struct identity_rules *rules;
    str_cut(&rest, 0, &blocks);
    static const struct conf *fixed; /* loading takes longer than all that follows */
    if (!fixed)
        fixed = load(STR(RULES));
    const struct conf *conf = blocks.n && blocks.n < 1024 ? load(blocks) : NULL;
    assert(fixed);
    if (!conf)
        conf = conf_ref(fixed);
    int rc = identity_rules_new(conf, &rules, NULL);
    assert(rc == 0);
    str_cut(&rest, 0, &table);
    for (size_t i = 0; i < conf->n_identities; i++)
        if (conf->identity[i].table)
            identity_rules_table(rules, str_of(conf->identity[i].name), table, NULL);
    str_cut(&rest, 0, &domain);
    for (int i = 0; i < 8 && rest.n; i++) {
        str_cut(&rest, 0, &name);
        for (int class = IDENTITY_KERBEROS; class <= IDENTITY_STORE; class++) {
            struct identity_login login = { (enum identity_class)class, name, i % 2 ? domain : STR_NONE };
            run(rules, &login, rest.n ? rest : domain);
        }
        struct identity_login guessed = identity_login_of(rules, name);
        run(rules, &guessed, STR("alice@corp.test"));
    }
    identity_rules_unref(&rules);
    conf_unref(&conf);
    return 0;
}
