/* inbound: what the files of a client's login share.
 *
 *   inbound.c   messages from smtpd; a session from its start to its end
 *   step.c      steps of the mechanism: on the loop, or on a thread where they may wait; questions that a step asks
 *   decide.c    the end: verdict, explanation, log, answer
 *
 * A session belongs to the loop. While a step runs on a thread, `sasl` and `kerberos` belong to that step. */
#pragma once
#include "base/hash.h"

#include "base/arena.h"
#include "daemon/auth/identify.h"
#include "daemon/auth/kerberos.h"
#include "daemon/auth/ntlm_check.h"
#include "daemon/auth/verify.h"
#include "policy/access.h"
#include "sasl/server.h"

struct login_words;
struct step_job;

struct session {
    struct auth_key key;
    UT_hash_handle hh;
    struct inbound *inbound;
    struct arena arena;             /* what smtpd said about the client, for the log */
    struct ipc_auth_start start;    /* strings in the arena; cert_hash, exporter and initial are not kept */
    const struct conf *conf;        /* the snapshot that the session began under */
    const struct conf_server *server; /* of it; NULL: smtpd is a snapshot ahead or behind */
    struct access_rules rules;
    struct sasl_server *sasl;
    struct kerberos_exchange *kerberos; /* NULL: no keytab, or not a mechanism of GSS-API */
    struct step_job *job;           /* a step that runs on a thread */
    struct verify *verify;          /* a question that runs: password, verifier */
    struct ntlm_check *ntlm_check;  /* the same: NTLM */
    struct identify *identify;      /* the same: who it is */
    struct ipc_layer layer;         /* with state in layer_state */
    struct buf layer_state;
    const char *inner;              /* "krb5", "spnego-ntlm" …; NULL: nothing inside */
    char user[SASL_PRINCIPAL_MAX + 1]; /* who has been proven */
    char authzid[SASL_PRINCIPAL_MAX + 1]; /* as whom it wants to act, in its own spelling; empty: the same */
    unsigned gss_flags;
    struct loop_timer *timer;       /* an answer that waits */
    struct buf answer;
};

/* How it ends. */
struct decision {
    enum ipc_auth_result result;
    uint16_t code;
    const char *enhanced, *text, *cause;
    uint32_t rights;
    struct str user, mailbox, senders;
    const struct login_words *words; /* a refusal's reason, where more is known than the cause; NULL: that alone */
};

/* ---- inbound.c ---- */
struct inbound {
    struct auth *auth;
    struct session *sessions;
    struct query *queries;
};
void inbound_end_session(struct session *session);

/* ---- step.c ---- */
/* Takes the client's response (or begins). What follows is asked, sent or decided. */
void step_take(struct session *session, bool has_response, struct str response);
/* Nobody waits for the step that runs. */
void step_drop(struct session *session);

/* ---- decide.c ---- */
/* The end of a session: logged now, told now or after the delay. The session is gone or only waits afterwards. */
void decide(struct session *session, const struct decision *d, int64_t delay_ms);
/* The same without a session: refused at the start. */
void decide_at_start(struct inbound *inbound, struct auth_key key, const struct ipc_auth_start *start,
                     const struct decision *d);
void decide_cancelled(struct session *session);
/* The mechanism has failed. `cause` (may be NULL) is more exact than the step's own. */
void decide_failed(struct session *session, const struct sasl_step *step, const char *cause);
/* Proven: who is it, and what may it do? */
void decide_proven(struct session *session, const struct sasl_step *step);
/* NTLM's verifier has said no; `check` knows why. */
void decide_ntlm_refused(struct session *session, const struct sasl_step *step, const struct ntlm_answer *answer);
const struct decision *decide_unknown_mechanism(void);
/* What ends an exchange before it begins; NULL: nothing. */
const struct decision *decide_refusal(struct auth *auth, const struct ipc_auth_start *start,
                                      const struct sasl_mechanism *mechanism);
