#include "smtp/server_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* A name is bounded and printable; whether it is a good one is for policy to say. Devices send names with '_' and the
 * like. */
static bool check_helo(struct smtp_server *s, struct str arg, const char *verb)
{
    bool ok = arg.n > 0 && arg.n <= SMTP_ADDRESS_DOMAIN_MAX_BYTES;
    for (size_t i = 0; ok && i < arg.n; i++)
        ok = arg.p[i] > 32 && arg.p[i] < 127;
    if (!ok)
        server_refuse(s, 501, NULL, "Syntax: %s name, at most 255 printable octets", verb);
    return ok;
}

static bool apply_helo(struct smtp_server *s, struct str arg, enum server_helo kind)
{
    char *name = str_dup(arg);
    if (!name) {
        server_refuse_close(s, 421, "4.3.0", "Out of memory");
        return false;
    }
    free(s->helo);
    s->helo = name;
    s->helo_kind = (unsigned char)kind;
    s->pending |= PENDING_HELO;
    server_abort_transaction(s, kind == HELO_EHLO ? "EHLO" : "HELO");
    return true;
}

void server_helo(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (check_helo(s, arg, "HELO") && apply_helo(s, arg, HELO_HELO))
        server_reply(s, 250, NULL, s->hostname);
}

static void offer(struct smtp_server *s, const char *keyword, struct str argument)
{
    char line[480];
    int n = snprintf(line, sizeof line, "%s%s%.*s", keyword, argument.n ? " " : "", STR_ARG(argument));
    server_reply_more(s, 250, NULL, str_slice(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1));
}

static void offer_logins(struct smtp_server *s, const char *verb, struct str mechanisms)
{
    if (mechanisms.n)
        offer(s, verb, mechanisms);
    if (s->policy.login_line && server_word_in(mechanisms, STR("LOGIN"))) {
        char line[24];
        snprintf(line, sizeof line, "%s=LOGIN", verb);
        offer(s, line, STR_NONE);
    }
}

void server_ehlo(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (!check_helo(s, arg, "EHLO") || !apply_helo(s, arg, HELO_EHLO))
        return;
    char size[24] = "";
    if (s->limits->max_message_bytes)
        snprintf(size, sizeof size, "%" PRIu64, s->limits->max_message_bytes);
    server_reply_more(s, 250, NULL, s->hostname);
    offer(s, "PIPELINING", STR_NONE);
    offer(s, "SIZE", str_of(size));
    if (s->policy.starttls_available && !s->policy.tls_active && !s->layer_active)
        offer(s, "STARTTLS", STR_NONE);
    if (!s->authenticated) {
        offer_logins(s, "AUTH", s->policy.mechanisms);
        offer_logins(s, "X-EXPS", s->policy.exps_mechanisms);
    }
    offer(s, "8BITMIME", STR_NONE);
    if (!s->policy.smtputf8_off)
        offer(s, "SMTPUTF8", STR_NONE);
    offer(s, "DSN", STR_NONE);
    offer(s, "ENHANCEDSTATUSCODES", STR_NONE);
    offer(s, "CHUNKING", STR_NONE);
    server_reply(s, 250, NULL, STR("HELP"));
}
