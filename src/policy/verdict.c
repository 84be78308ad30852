#include "policy/verdict.h"

bool verdict_is_clear_text(struct str mechanism)
{
    return str_eq_nocase(mechanism, STR("PLAIN")) || str_eq_nocase(mechanism, STR("LOGIN"));
}

static const struct str SCRAM = { "SCRAM-SHA-256", 13 }, SCRAM_PLUS = { "SCRAM-SHA-256-PLUS", 18 };

static bool is_listed(const struct access_rules *rules, struct str mechanism)
{
    for (size_t i = 0; i < rules->mechanisms.n; i++)
        if (str_eq_nocase(str_of(rules->mechanisms.item[i]), mechanism))
            return true;
    return false;
}

/* Listed, or brought along: SCRAM-SHA-256 stands for its channel-bound form too. */
static bool is_configured(const struct access_rules *rules, struct str mechanism)
{
    return is_listed(rules, mechanism) || (str_eq_nocase(mechanism, SCRAM_PLUS) && is_listed(rules, SCRAM));
}

static bool is_submission(const struct verdict_session *in)
{
    return in->listener != CONF_LISTEN;
}

static bool demands_tls(const struct verdict_session *in)
{
    return in->rules->accept == CONF_ACCEPT_TLS || in->rules->accept == CONF_ACCEPT_AUTH_TLS;
}

static bool demands_auth(const struct verdict_session *in)
{
    return in->rules->accept == CONF_ACCEPT_AUTH || in->rules->accept == CONF_ACCEPT_AUTH_TLS || is_submission(in);
}

/* May be used in the session as it is now; says nothing about what the host must bring first. */
static bool is_usable(const struct verdict_session *in, struct str mechanism)
{
    if (str_eq_nocase(mechanism, SCRAM_PLUS))
        return in->tls_active && in->channel_binding;
    return in->tls_active || in->rules->plaintext || !verdict_is_clear_text(mechanism);
}

static void offer(struct verdict *v, struct str mechanism)
{
    size_t n = strlen(v->mechanisms);
    if (n + 1 + mechanism.n >= sizeof v->mechanisms)
        return;
    if (n)
        v->mechanisms[n++] = ' ';
    memcpy(v->mechanisms + n, mechanism.p, mechanism.n);
    v->mechanisms[n + mechanism.n] = 0;
    v->offer_auth = true;
}

static void offer_mechanisms(const struct verdict_session *in, struct verdict *v)
{
    const struct conf_strings *list = &in->rules->mechanisms;
    for (size_t i = 0; i < list->n; i++) {
        struct str mechanism = str_of(list->item[i]);
        /* The bound form stands first: clients take the first that they know. */
        if (str_eq_nocase(mechanism, SCRAM) && !is_listed(in->rules, SCRAM_PLUS) && is_usable(in, SCRAM_PLUS))
            offer(v, SCRAM_PLUS);
        if (is_usable(in, mechanism))
            offer(v, mechanism);
    }
}

void verdict_session(const struct verdict_session *in, struct verdict *ret)
{
    *ret = (struct verdict){ 0 };
    if (in->rules->accept == CONF_ACCEPT_DENY) {
        ret->deny = true;
        return;
    }
    ret->need_tls = demands_tls(in) && !in->tls_active;
    ret->need_auth = demands_auth(in) && !in->authenticated;
    ret->offer_starttls = in->tls_possible && !in->tls_active && in->listener != CONF_SUBMISSIONS;
    /* RFC 4954 section 4: no second AUTH; and a host that must begin with TLS is not shown AUTH before. */
    if (!in->authenticated && !ret->need_tls)
        offer_mechanisms(in, ret);
    /* Where only TLS opens a way to authenticate, the first thing to say is STARTTLS. */
    if (ret->need_auth && !ret->offer_auth && !in->tls_active && in->tls_possible && in->rules->mechanisms.n)
        ret->need_tls = true;
}

enum verdict_auth verdict_mechanism(const struct verdict_session *in, struct str mechanism)
{
    if (in->rules->accept == CONF_ACCEPT_DENY || !is_configured(in->rules, mechanism))
        return VERDICT_AUTH_UNKNOWN;
    if (demands_tls(in) && !in->tls_active)
        return VERDICT_AUTH_STARTTLS;
    if (is_usable(in, mechanism))
        return VERDICT_AUTH_OK;
    return verdict_is_clear_text(mechanism) ? VERDICT_AUTH_NEED_TLS : VERDICT_AUTH_UNKNOWN;
}

enum verdict_recipient_result verdict_recipient(const struct verdict_recipient *in)
{
    if (in->postmaster || (in->block && in->block->deliver))
        return VERDICT_RECIPIENT_OK;
    if (in->block && (in->rules->relay || in->user_may_relay))
        return VERDICT_RECIPIENT_RELAY;
    return VERDICT_RECIPIENT_REFUSED;
}
