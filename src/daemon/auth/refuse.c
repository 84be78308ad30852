/* A login at a next hop that failed: one event with the whole reason, one sentence for the queue. */
#include "daemon/auth/outbound.h"
#include "io/now.h"

static void base_facts(const struct login *login, const char *cause, struct login_outbound_facts *facts)
{
    *facts = (struct login_outbound_facts){
        .cause = cause, .domain = login->start.domain, .peer = login->start.host, .announced = login->start.host,
        .offered = login->start.offered.n ? login->start.offered : login->start.offered_exps,
        .spn = str_of(login->spn), .our_time_ms = now_wall_ms(),
    };
    if (login->mechanism)
        facts->mechanism = login->mechanism->name;
    else if (login->block)
        facts->mechanism = login->block->auth;
    if (!login->block || !login->block->principal)
        return;
    facts->principal = str_of(login->block->principal);
    size_t at = str_find(facts->principal, '@');
    facts->realm = at < facts->principal.n ? str_skip(facts->principal, at + 1) : STR_NONE;
    facts->keytab = str_of(login->block->keytab);
}

static void log_failure(const struct login *login, const struct login_outbound_facts *facts,
                        const struct login_words *words, const char *detail, bool optional)
{
    struct log_record r;
    log_begin(&r, login->outbound->auth->ctx->log, LOG_LEVEL_WARNING, "delivery.login.failed");
    log_str(&r, "domain", facts->domain);
    log_str(&r, "peer", facts->peer);
    log_cstr(&r, "mech", facts->mechanism ? facts->mechanism : "none");
    log_cstr(&r, "cause", facts->cause);
    if (facts->spn.n)
        log_str(&r, "spn", facts->spn);
    if (facts->command.n)
        log_str(&r, "command", facts->command);
    if (facts->reply.n)
        log_str(&r, "reply", facts->reply);
    log_cstr(&r, "why", words->why);
    if (detail && detail[0])
        log_cstr(&r, "detail", detail);
    if (words->run[0])
        log_cstr(&r, "run", words->run);
    if (optional)
        log_cstr(&r, "result", "going on without a login");
    log_end(&r);
}

void refuse_login(struct login *login, const char *cause, const char *detail)
{
    struct login_outbound_facts facts;
    struct login_words words;
    char why[2 * LOGIN_WHY_BYTES], id[32] = "";
    base_facts(login, cause, &facts);
    facts.kdc_text = str_of(login->failure.minor_text);
    login_explain_outbound(&facts, &words);
    bool optional = login->block && login->block->auth_optional;
    log_failure(login, &facts, &words, detail, optional);
    if (words.number)
        snprintf(id, sizeof id, " (PE-%u)", words.number);
    bool more = detail && detail[0];
    snprintf(why, sizeof why, "%s%s%s%.*s", words.why, id, more ? ": " : "", more ? LOGIN_WHY_BYTES - 64 : 0,
             more ? detail : "");
    channel_send(login->key.peer->channel, IPC_LOGIN_FAILED, (uint32_t)login->key.id, str_of(why));
    outbound_end_login(login);
}

/* A ticket for a service whose password has changed since would be refused for as long as it lives. */
void refuse_by_peer(struct login *login, const struct ipc_login_end *m)
{
    if (login->kerberos)
        login->kerberos->spoiled = true;
    struct login_outbound_facts facts;
    struct login_words words;
    uint64_t code = 0;
    if (m->reply.n >= 3)
        str_to_u64(str_slice(m->reply.p, 3), 999, &code);
    base_facts(login, code / 100 == 4 ? "peer-temporary" : "peer-refused", &facts);
    facts.peer = m->relay;
    facts.command = m->command;
    facts.reply = m->reply;
    facts.reply_code = (unsigned)code;
    login_explain_outbound(&facts, &words);
    log_failure(login, &facts, &words, NULL, m->optional);
}
