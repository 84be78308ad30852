#include "cli/bench/bench.h"

#include "io/now.h"
#include "sasl/ntlm.h"

static const struct sasl_mechanism *choose(const struct bench_options *o, struct str offered)
{
    if (o->mechanism)
        return sasl_list_has(offered, str_of(o->mechanism)) ? sasl_mechanism_find(str_of(o->mechanism)) : NULL;
    const struct sasl_mechanism *m;
    for (size_t i = 0; (m = sasl_mechanism_at(i)) != NULL; i++)
        if (m->client && !(m->flags & (SASL_GSS | SASL_NTLM)) && sasl_list_has(offered, str_of(m->name)))
            return m;
    return NULL;
}

static void set_up_ntlm(const struct bench_options *o, struct sasl_ntlm_setup *ret_setup)
{
    *ret_setup = (struct sasl_ntlm_setup){ .filetime = ntlm_filetime(now_wall_ms()), .workstation = str_of(o->helo) };
    now_random(ret_setup->challenge, sizeof ret_setup->challenge);
    now_random(ret_setup->session_key, sizeof ret_setup->session_key);
}

static int make(struct bench_connection *c, const struct sasl_mechanism *mechanism, struct str offered,
                struct err *err)
{
    unsigned char octets[SASL_NONCE_BYTES], hash[TLS_HASH_MAX], exporter[TLS_EXPORTER_BYTES];
    char nonce[SASL_NONCE_TEXT + 1];
    struct sasl_ntlm_setup ntlm;
    now_random(octets, sizeof octets);
    if (!sasl_nonce_text(octets, nonce))
        return err_set(err, ERR_AUTH, "no nonce could be made");
    const struct bench_options *o = c->run->o;
    struct sasl_client_options options = { .user = str_of(o->user), .password = secret_bytes(o->password),
        .nonce = str_of(nonce), .server_offers_plus = sasl_list_has(offered, STR("SCRAM-SHA-256-PLUS")),
        .scram_memory = &c->run->scram };
    if (mechanism->flags & SASL_GSS) {
        c->gss = bench_kerberos_take(c->run->kerberos, err);
        if (!c->gss)
            return ERR_AUTH;
        options.gss = bench_context_gss(c->gss);
        options.mutual = true;
    } else if (mechanism->flags & SASL_NTLM) {
        set_up_ntlm(o, &ntlm);
        options.ntlm = &ntlm;
    }
    if (c->tls) {
        options.binding.cert_hash = str_slice(hash, tls_session_endpoint_hash(c->tls, hash));
        options.binding.exporter = str_slice(exporter, tls_session_exporter(c->tls, exporter));
    }
    return sasl_client_new(mechanism, &options, &c->sasl, err);
}

bool bench_login_begin(struct bench_connection *c, struct str mechanisms, int64_t now_ms, struct err *err)
{
    const struct sasl_mechanism *mechanism = choose(c->run->o, mechanisms);
    if (!mechanism) {
        err_set(err, ERR_AUTH, "the server offers no mechanism that is wanted here (it offers: %.*s)",
                STR_ARG(mechanisms));
        return false;
    }
    if (make(c, mechanism, mechanisms, err) < 0)
        return false;
    struct str initial;
    bool has_initial = sasl_client_first(c->sasl, &initial);
    smtp_client_auth_begin(c->client, str_of(mechanism->name), false, has_initial, initial, now_ms);
    return true;
}

bool bench_login_step(struct bench_connection *c, struct str challenge, int64_t now_ms, struct err *err)
{
    struct str response;
    if (sasl_client_step(c->sasl, challenge, &response, err) < 0)
        return false;
    smtp_client_auth_response(c->client, response, now_ms);
    return true;
}

int bench_login_prepare(struct bench_run *run, struct err *err)
{
    const struct bench_options *o = run->o;
    const struct sasl_mechanism *m = o->mechanism ? sasl_mechanism_find(str_of(o->mechanism)) : NULL;
    if (!o->user || !m || !(m->flags & SASL_GSS))
        return 0;
    return bench_kerberos_new(o, strcmp(m->name, "GSS-SPNEGO") == 0, &run->kerberos, err);
}

void bench_login_done(struct bench_connection *c)
{
    sasl_client_free(&c->sasl);
    bench_context_free(&c->gss);
}
