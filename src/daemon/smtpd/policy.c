/* What a session is offered and must bring, worked out again at every change of its state: the rules of the host
 * (policy/verdict.h) as the machine wants them. */
#include "daemon/smtpd/session.h"

#include <string.h>

#include "daemon/smtpd/signer.h"

/* Asked for where it is not offered: 534; what is not in here: 504. */
static const char known[] = "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN";
static const char known_with_kerberos[] = "GSSAPI GSS-SPNEGO SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN";

bool session_can_sign(const struct session *s)
{
    return s->server->tls && signer_available(s->smtpd->signer);
}

/* A restarting keys process takes nothing out of what is offered: who finds no STARTTLS would go on in clear. */
static const char *mechanisms_when(const struct session *s, bool tls)
{
    struct verdict_session in = {
        .rules = &s->rules, .listener = s->listener->kind, .tls_possible = s->server->tls != NULL, .tls_active = tls,
        .channel_binding = tls,
    };
    struct verdict out;
    verdict_session(&in, &out);
    return smtpd_site_list(s->site, out.mechanisms);
}

static bool layer_counts(const struct session *s)
{
    return s->rules.encryption == CONF_ENCRYPTION_ANY ||
           (s->rules.encryption == CONF_ENCRYPTION_LAYER && layer_is_confidential(s->layer));
}

void session_set_policy(struct session *s)
{
    struct verdict_session in = {
        .rules = &s->rules, .listener = s->listener->kind, .tls_possible = s->server->tls != NULL, .tls_active = s->tls != NULL,
        .authenticated = smtp_server_authenticated(s->machine), .channel_binding = s->tls != NULL,
        .layer_active = s->layer && layer_counts(s),
    };
    struct verdict v;
    verdict_session(&in, &v);
    s->mechanisms = smtpd_site_list(s->site, v.mechanisms);
    s->exps_mechanisms = smtpd_site_list(s->site, v.exps_mechanisms);
    struct smtp_server_policy policy = {
        .deny = v.deny, .starttls_available = v.offer_starttls, .tls_active = s->tls != NULL,
        .require_tls = v.need_tls, .require_auth = v.need_auth,
        .line_ends_repair = s->rules.line_ends == CONF_LINE_ENDS_REPAIR,
        .mechanisms = str_of(s->mechanisms), .mechanisms_tls = str_of(s->tls ? NULL : mechanisms_when(s, true)),
        .mechanisms_known = str_of(s->server->conf->keytab ? known_with_kerberos : known), .exps_mechanisms = str_of(s->exps_mechanisms),
        .login_line = s->rules.login_line,
    };
    smtp_server_set_policy(s->machine, &policy);
}
