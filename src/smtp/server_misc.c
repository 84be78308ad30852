/* The commands that are one reply, and those that are known only to be refused. */
#include "smtp/server_internal.h"

void server_rset(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (arg.n) {
        server_refuse(s, 501, "5.5.4", "RSET takes no parameter");
        return;
    }
    server_abort_transaction(s, "RSET");
    server_reply(s, 250, "2.0.0", STR("Ok"));
}

void server_noop(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    server_reply(s, 250, "2.0.0", STR("Ok"));
}

void server_quit(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (arg.n) {
        server_refuse(s, 501, "5.5.4", "QUIT takes no parameter");
        return;
    }
    server_reply(s, 221, "2.0.0", STR("Bye"));
    server_close(s, "QUIT");
}

void server_vrfy(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    if (arg.n)
        server_reply(s, 252, "2.5.0", STR("Addresses are not verified; send mail to find out"));
    else
        server_refuse(s, 501, "5.5.4", "Syntax: VRFY address");
}

/* Old and foreign verbs are recognised, so that the log names them; what they carry is never looked at. */
void server_not_here(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    server_refuse(s, 502, "5.5.1", "Command not implemented");
}

/* Its sender waits for 354 before the octets it announced; after 504 it goes on without. */
void server_xexch50(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    server_refuse(s, 504, "5.5.1", s->authenticated ? "XEXCH50 is not accepted" : "Need to authenticate first");
}

void server_not_smtp(struct smtp_server *s, struct str arg, struct smtp_server_event *ev)
{
    server_refuse_close(s, 554, "5.5.1", "This is an SMTP server");
}
