/* STARTTLS (RFC 3207). The caller is asked first, because the role that signs handshakes may be away (454 4.7.0). */
#include "smtp/server_internal.h"

static bool check_starttls(struct smtp_server *s, struct str arg)
{
    if (s->policy.tls_active)
        server_refuse(s, 503, "5.5.1", "TLS is already active");
    else if (s->layer_active)
        server_refuse(s, 503, "5.5.1", "A security layer is already active");
    else if (!s->policy.starttls_available)
        server_refuse(s, 502, "5.5.1", "STARTTLS is not offered here");
    else if (arg.n)
        server_refuse(s, 501, "5.5.4", "STARTTLS takes no parameter");
    else
        return true;
    return false;
}

/* Whoever put it there, the client or somebody on the way: nothing of it may be taken for what is said under TLS. */
static void refuse_pipelined(struct smtp_server *s)
{
    server_refuse_close(s, 501, "5.5.1", "Nothing may follow STARTTLS before the handshake");
}

void server_starttls(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (!check_starttls(s, arg))
        return;
    if (s->more_behind)
        refuse_pipelined(s);
    else
        server_ask(s, ev, SMTP_SERVER_STARTTLS);
}

void server_starttls_answered(struct smtp_server *s)
{
    if (s->more_behind) { /* it came while the answer was owed */
        refuse_pipelined(s);
        return;
    }
    server_reply(s, 220, "2.0.0", STR("Ready to start TLS"));
    server_set_state(s, SERVER_HANDSHAKE);
}
