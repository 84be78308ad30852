/* AUTH (RFC 4954), and X-EXPS, Exchange's own verb for the same: mechanisms, payload and replies follow AUTH, only the
 * list of what is offered is its own. The machine reads and decodes lines; what they mean is the caller's.
 *
 * 503 comes only after a successful AUTH and inside a transaction. Every other refusal is 530, 538, 534, 504 or 501:
 * several client libraries take 503 for "already authenticated" and go on. */
#include "smtp/server_internal.h"

#include "base/base64.h"

static bool mechanism_valid(struct str name)
{
    if (name.n == 0 || name.n > SERVER_MECHANISM_MAX_BYTES)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!ascii_alnum(name.p[i]) && name.p[i] != '-' && name.p[i] != '_')
            return false;
    return true;
}

static bool check_mechanism(struct smtp_server *s, struct str name)
{
    const struct smtp_server_policy *p = &s->policy;
    if (server_word_in(s->exps ? p->exps_mechanisms : p->mechanisms, name))
        return true;
    if (!p->tls_active && server_word_in(p->mechanisms_tls, name))
        server_refuse(s, 538, "5.7.11", "Encryption required for requested authentication mechanism");
    else if (server_word_in(p->mechanisms_known, name) || server_word_in(p->mechanisms_tls, name))
        server_refuse(s, 534, "5.7.9", "Authentication mechanism is not allowed here");
    else
        server_refuse(s, 504, "5.5.4", "Unrecognized authentication mechanism");
    return false;
}

static bool check_auth(struct smtp_server *s, struct str arg, struct str *ret_name, struct str *ret_initial,
                       bool *ret_has)
{
    const char *verb = s->exps ? "X-EXPS" : "AUTH";
    *ret_has = str_cut(&arg, ' ', ret_name);
    *ret_initial = arg;
    if (s->authenticated)
        server_refuse(s, 503, "5.5.1", "Already authenticated");
    else if (s->phase != TRANSACTION_NONE)
        server_refuse(s, 503, "5.5.1", "%s not permitted during a mail transaction", verb);
    else if (s->helo_kind == HELO_NONE)
        server_refuse(s, 530, "5.5.1", "Send EHLO first");
    else if (!mechanism_valid(*ret_name))
        server_refuse(s, 501, "5.5.4", "Syntax: %s mechanism [initial-response]", verb);
    else
        return check_mechanism(s, *ret_name);
    return false;
}

/* The decoded octets go to s->auth_raw. */
static bool decode(struct smtp_server *s, struct str text)
{
    bool malformed = text.n % 4 != 0;
    server_auth_wipe(s);
    if (!malformed && text.n && !server_auth_reserve(s, text.n / 4 * 3)) {
        server_auth_broken(s, 454, "4.3.0", "Too many authentications at once, try again later");
        return false;
    }
    if (malformed || !base64_decode(text, &s->auth_raw)) {
        server_auth_broken(s, 501, "5.5.2", "Cannot decode the response: not base64");
        return false;
    }
    return true;
}

static void begin(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    struct str name, initial;
    bool has_initial;
    s->auth_tried = true;
    if (!check_auth(s, arg, &name, &initial, &has_initial))
        return;
    if (!decode(s, str_eq(initial, STR("=")) ? STR_NONE : initial)) /* "=": an empty initial response */
        return;
    for (size_t i = 0; i < name.n; i++)
        s->mechanism[i] = name.p[i] >= 'a' && name.p[i] <= 'z' ? (char)(name.p[i] - 32) : name.p[i];
    s->mechanism[name.n] = 0;
    server_ask(s, ev, SMTP_SERVER_AUTH);
    ev->mechanism = str_of(s->mechanism);
    ev->exps = s->exps;
    ev->has_initial = has_initial;
    ev->data = buf_str(&s->auth_raw);
}

void server_auth(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    s->exps = false;
    begin(s, arg, ev);
}

void server_exps(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (s->policy.exps_mechanisms.n == 0) {
        server_not_here(s, arg, ev);
        return;
    }
    s->exps = true;
    begin(s, arg, ev);
}

void server_auth_broken(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    server_auth_wipe(s);
    server_refuse(s, code, enhanced, "%s", text);
    if (s->state != SERVER_AUTH_LINE) /* the initial response: the caller knows of no exchange */
        return;
    s->pending |= PENDING_CANCEL;
    server_set_state(s, SERVER_COMMAND);
}

void server_auth_line(struct smtp_server *s, struct str line, struct smtp_server_event *ev)
{
    bool cancelled = str_eq(line, STR("*"));
    if (cancelled)
        server_trace_client(s, line);
    else
        server_trace_masked(s, STR_NONE, line.n);
    if (cancelled) {
        server_auth_broken(s, 501, "5.7.0", "Authentication cancelled");
        return;
    }
    if (!decode(s, line))
        return;
    server_ask(s, ev, SMTP_SERVER_AUTH_RESPONSE);
    ev->mechanism = str_of(s->mechanism);
    ev->exps = s->exps;
    ev->data = buf_str(&s->auth_raw);
}

/* As with STARTTLS: octets that came in clear behind the login, from the client or from somebody on the way, must not be
 * taken for what is said under the layer. */
void server_auth_layer(struct smtp_server *s, unsigned code, const char *enhanced, const char *text)
{
    server_auth_wipe(s);
    if (s->more_behind) {
        server_set_state(s, SERVER_COMMAND);
        server_refuse_close(s, 501, "5.5.1", "Nothing may follow a login that starts a security layer");
        return;
    }
    s->authenticated = true;
    server_reply(s, code ? code : 235, enhanced ? enhanced : "2.7.0",
                 str_of(text ? text : "Authentication successful"));
    server_set_state(s, SERVER_HANDSHAKE);
}
