/* lab: what the tests share that run below tests/lab/mit, with a KDC of their own: principals and keytabs made when they
 * are needed, logins between an initiator and an acceptor, and a clock that can be moved. Everything asserts. */
#pragma once
#include "kerberos/acceptor.h"
#include "kerberos/initiator.h"
#include "kerberos/keytab.h"
#include "kerberos/ticket.h"

/* Seconds added to what gettimeofday() and time() say in this process; the KDC's clock stays right. */
extern long lab_clock_offset_s;

/* "$LAB_MIT/NAME"; the text lives until the eighth call after this one. */
const char *lab_path(const char *name);
/* kadmin.local commands, one a line. */
void lab_kadmin(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct krb_keytab *lab_keytab(const char *name);
/* The rows of a keytab file of that enctype (0: all), kvno set (0: as it is), keys spoilt on request. */
struct krb_keytab *lab_keytab_changed(const char *name, int32_t only_enctype, uint32_t kvno, bool spoil);
/* Replay cache "file2:$LAB_MIT/rcache". */
struct krb_acceptor *lab_acceptor(const struct krb_keytab *keytab);
struct krb_initiator *lab_user(const char *principal, const char *password);

struct lab_login {
    const char *target;
    unsigned flags;
    bool spnego;
    struct str client_bindings, server_bindings;
    bool bindings_required;
    /* After lab_login(): */
    struct krb_context *client, *server;
    enum krb_status client_status, server_status;
    struct buf first; /* the client's first token */
    struct buf error; /* the server's last token when it failed */
};
/* Runs to the end, or until one side fails. */
void lab_login(struct krb_initiator *initiator, struct krb_acceptor *acceptor, struct lab_login *login);
void lab_login_done(struct lab_login *login);
/* One login that must fail at the acceptor: its cause word. */
const char *lab_refusal(struct krb_initiator *initiator, struct krb_acceptor *acceptor, const char *target, bool spnego);
