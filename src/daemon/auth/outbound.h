/* outbound: what the files of a login at a next hop share.
 *
 *   outbound.c   messages from delivery, password files; a login from its start to its end; which mechanism
 *   initiate.c   Kerberos: tickets in memory, for each route; the first token, on a thread
 *   refuse.c     why it failed, in the log and for delivery
 *
 * A login belongs to the loop. While a job runs, `client` and `kerberos` belong to it. */
#pragma once
#include "base/hash.h"

#include "base/arena.h"
#include "base/secret.h"
#include "daemon/auth/auth.h"
#include "daemon/auth/gss_side.h"
#include "daemon/auth/kerberos.h"
#include "explain/login.h"
#include "kerberos/initiator.h"
#include "sasl/client.h"

enum { OUTBOUND_TARGETS_MAX = 16, OUTBOUND_INITIATE_THREADS = 8, OUTBOUND_KDC_DEADLINE_MS = 6000 };

struct credential {
    struct credential *next;
    struct secret *password;
    char domain[];
};

/* What a Kerberos login holds besides the mechanism: a ticket-granting ticket and a context. */
struct initiate {
    struct gss_side side;
    const struct conf *conf;              /* kept: block belongs to it */
    const struct conf_domain *block;
    struct auth_keytab *keytab;           /* NULL: by password */
    struct secret *password;
    struct krb_initiator *initiator;
    struct sasl_gss gss;
    struct arena arena;
    const char *target[OUTBOUND_TARGETS_MAX];
    size_t n_targets, at;                 /* the one that was tried last */
    struct buf bindings;
    unsigned flags;
    bool spnego, spoiled;                 /* spoiled: the tickets were refused, and are not kept */
};

struct login {
    struct auth_key key;
    UT_hash_handle hh;
    struct outbound *outbound;
    struct arena arena;
    struct ipc_login_start start;         /* in the arena */
    const struct conf *conf;
    const struct conf_domain *block;
    size_t candidate;                     /* index into the mechanisms: the next one to look at */
    const struct sasl_mechanism *mechanism;
    bool exps;                            /* under X-EXPS */
    struct sasl_client *client;
    struct initiate *kerberos;
    struct login_job *job;                /* that has client and kerberos meanwhile */
    struct buf reasons;                   /* why mechanisms were skipped */
    const char *cause;                    /* of the first that could not be used */
    struct krb_failure failure;           /* of the Kerberos mechanism that failed last; for the explanation */
    char spn[300];
};

struct outbound {
    struct auth *auth;
    struct login *logins;
    struct credential *credentials, *next_credentials;
};

/* ---- outbound.c ---- */
struct str outbound_password(const struct outbound *outbound, struct str domain);
void outbound_end_login(struct login *login);
/* Takes the next mechanism that can be had, or refuses. */
void outbound_go_on(struct login *login);
/* The client machine has been made: its first words go to delivery. */
void outbound_started(struct login *login);
void outbound_step_taken(struct login *login, int rc, struct str response, const struct err *err);

/* ---- initiate.c ---- */
/* Makes login->client on a thread; then outbound_started(), or outbound_go_on() with the reason noted. */
void initiate_begin(struct login *login);
/* A later step of a mechanism that may take long. */
void initiate_step(struct login *login, struct str challenge);
/* Nobody waits for the job that runs. */
void initiate_drop(struct login *login);
void initiate_free(struct initiate **initiate);
/* Gives up all tickets that no login uses: another snapshot has other blocks. */
void initiate_forget_tickets(void);
/* What delivery needs for the layer. */
int initiate_seal(struct initiate *initiate, struct buf *ret_state, struct err *err);

/* ---- refuse.c ---- */
/* Logs why, tells delivery, ends the login. */
void refuse_login(struct login *login, const char *cause, const char *detail);
/* The next hop refused what we said. */
void refuse_by_peer(struct login *login, const struct ipc_login_end *m);
