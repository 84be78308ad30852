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

/* Brings a layer of its own, which may count as encryption. */
static bool has_layer(struct str mechanism)
{
    return str_eq_nocase(mechanism, STR("GSSAPI")) || str_eq_nocase(mechanism, STR("GSS-SPNEGO")) ||
           str_eq_nocase(mechanism, STR("NTLM"));
}

static bool exchange_knows(struct str mechanism)
{
    return has_layer(mechanism) || str_eq_nocase(mechanism, STR("LOGIN"));
}

static bool lacks_encryption(const struct verdict_session *in)
{
    return demands_tls(in) && !in->tls_active && !in->layer_active;
}

/* Encryption is demanded, and a login may bring it. */
static bool layer_may_come(const struct verdict_session *in)
{
    if (in->rules->encryption == CONF_ENCRYPTION_TLS || in->authenticated)
        return false;
    for (size_t i = 0; i < in->rules->mechanisms.n; i++)
        if (has_layer(str_of(in->rules->mechanisms.item[i])))
            return true;
    return false;
}

/* May be used in the session as it is now; says nothing about what the host must bring first. */
static bool is_usable(const struct verdict_session *in, struct str mechanism)
{
    if (lacks_encryption(in) && !has_layer(mechanism))
        return false;
    if (str_eq_nocase(mechanism, SCRAM_PLUS))
        return in->tls_active && in->channel_binding;
    return in->tls_active || in->rules->plaintext || !verdict_is_clear_text(mechanism);
}

static void add_name(char list[VERDICT_MECHANISMS_BYTES], struct str mechanism)
{
    size_t n = strlen(list);
    if (n + 1 + mechanism.n >= VERDICT_MECHANISMS_BYTES)
        return;
    if (n)
        list[n++] = ' ';
    memcpy(list + n, mechanism.p, mechanism.n);
    list[n + mechanism.n] = 0;
}

static void offer(const struct verdict_session *in, struct verdict *v, struct str mechanism)
{
    add_name(v->mechanisms, mechanism);
    if (in->rules->exps && exchange_knows(mechanism))
        add_name(v->exps_mechanisms, mechanism);
    v->offer_auth = true;
}

static void offer_mechanisms(const struct verdict_session *in, struct verdict *v)
{
    const struct conf_strings *list = &in->rules->mechanisms;
    for (size_t i = 0; i < list->n; i++) {
        struct str mechanism = str_of(list->item[i]);
        /* The bound form stands first: clients take the first that they know. */
        if (str_eq_nocase(mechanism, SCRAM) && !is_listed(in->rules, SCRAM_PLUS) && is_usable(in, SCRAM_PLUS))
            offer(in, v, SCRAM_PLUS);
        if (is_usable(in, mechanism))
            offer(in, v, mechanism);
    }
}

void verdict_session(const struct verdict_session *in, struct verdict *ret)
{
    *ret = (struct verdict){ 0 };
    if (in->rules->accept == CONF_ACCEPT_DENY) {
        ret->deny = true;
        return;
    }
    ret->need_tls = lacks_encryption(in) && !layer_may_come(in);
    ret->need_auth = (demands_auth(in) || (lacks_encryption(in) && layer_may_come(in))) && !in->authenticated;
    ret->offer_starttls = in->tls_possible && !in->tls_active && !in->layer_active && in->listener != CONF_SUBMISSIONS;
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
    if (lacks_encryption(in) && !(layer_may_come(in) && has_layer(mechanism)))
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
