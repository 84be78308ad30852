/* A step of the mechanism, and what it asks for. Steps of Kerberos read files (replay cache, krb5.conf) and run on the
 * threads of their own pool; all others take some microseconds and run on the loop. */
#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/auth/inbound.h"
#include "io/now.h"

struct step_job {
    struct worker_job job;
    struct session *session;       /* NULL: nobody waits any more; the loop's */
    atomic_bool dropped;
    struct sasl_server *sasl;
    struct kerberos_exchange *kerberos;
    bool has_response, late;
    struct buf response;
    int64_t deadline_mono_ms;
    enum sasl_action action;
    struct sasl_step step;
};

static void go_on(struct session *session, enum sasl_action action, struct sasl_step *step);

static void fail_temporarily(struct session *session, const char *cause)
{
    struct sasl_step step = { .action = SASL_FAILED, .cause = SASL_CAUSE_TEMPORARY };
    decide_failed(session, &step, cause);
}

/* ---- on a thread ---- */

static void work(struct worker_job *worker_job)
{
    struct step_job *job = (struct step_job *)worker_job;
    job->late = now_mono_ms() > job->deadline_mono_ms;
    if (!job->late && !atomic_load(&job->dropped))
        job->action = sasl_server_step(job->sasl, job->has_response, buf_str(&job->response), &job->step);
}

static void free_job(struct step_job *job)
{
    sasl_server_free(&job->sasl);
    kerberos_exchange_free(&job->kerberos);
    buf_wipe(&job->response);
    free(job);
}

static void done(struct worker_job *worker_job)
{
    struct step_job *job = (struct step_job *)worker_job;
    struct session *session = job->session;
    if (session) {
        session->job = NULL;
        session->sasl = job->sasl;
        session->kerberos = job->kerberos;
        job->sasl = NULL;
        job->kerberos = NULL;
        if (job->late)
            fail_temporarily(session, "late");
        else
            go_on(session, job->action, &job->step);
    }
    free_job(job);
}

static void step_on_thread(struct session *session, bool has_response, struct str response)
{
    struct auth *auth = session->inbound->auth;
    struct step_job *job = calloc(1, sizeof *job);
    if (!job) {
        fail_temporarily(session, "internal");
        return;
    }
    job->job = (struct worker_job){ .work = work, .done = done };
    job->session = session;
    atomic_init(&job->dropped, false);
    job->has_response = has_response;
    job->deadline_mono_ms = now_mono_ms() + AUTH_DEADLINE_MS;
    buf_init(&job->response, CHANNEL_BODY_MAX);
    if (!buf_add(&job->response, response)) {
        free_job(job);
        fail_temporarily(session, "internal");
        return;
    }
    /* All before it is handed over: the thread may begin at once. */
    job->sasl = session->sasl;
    job->kerberos = session->kerberos;
    session->sasl = NULL;
    session->kerberos = NULL;
    session->job = job;
    if (worker_submit(auth->accept_pool, &job->job) < 0) {
        session->job = NULL;
        free_job(job);
        fail_temporarily(session, "busy");
    }
}

void step_drop(struct session *session)
{
    if (!session->job)
        return;
    atomic_store(&session->job->dropped, true);
    session->job->session = NULL;
    session->job = NULL;
}

/* ---- what a step asks for ---- */

static void take_answer(struct session *session, const struct verify_answer *answer)
{
    struct sasl_step step;
    enum sasl_action action;
    if (sasl_server_waits_for_verifier(session->sasl))
        action = sasl_server_verifier(session->sasl, answer->verdict, answer->verifier, &step);
    else
        action = sasl_server_checked(session->sasl, answer->verdict, &step);
    if (action == SASL_FAILED && answer->verdict == SASL_CANNOT_TELL)
        decide_failed(session, &step, answer->cause);
    else
        go_on(session, action, &step);
}

static void on_answer(void *arg, const struct verify_answer *answer)
{
    struct session *session = arg;
    session->verify = NULL;
    take_answer(session, answer);
}

static void ask(struct session *session, enum verify_what what, const struct sasl_step *step)
{
    struct verify_answer answer;
    if (verify_ask(session->inbound->auth, what, step->authcid, step->password, on_answer, session, &session->verify,
                   &answer))
        take_answer(session, &answer);
}

static void on_ntlm_answer(void *arg, struct ntlm_answer *answer)
{
    struct session *session = arg;
    struct sasl_step step;
    session->ntlm_check = NULL;
    enum sasl_action action = sasl_server_ntlm(session->sasl, answer->verdict,
                                               answer->has_key ? answer->session_base_key : NULL,
                                               str_of(answer->user), &step);
    secret_wipe(answer->session_base_key, sizeof answer->session_base_key);
    if (action == SASL_FAILED && answer->verdict != SASL_RIGHT)
        decide_ntlm_refused(session, &step, answer);
    else
        go_on(session, action, &step);
}

static void ask_ntlm(struct session *session, const struct sasl_step *step)
{
    const char *cause;
    session->ntlm_check = ntlm_check_ask(session->inbound->auth, session->conf, step->ntlm, on_ntlm_answer, session, &cause);
    if (!session->ntlm_check)
        fail_temporarily(session, cause);
}

/* What smtpd will protect the session with. */
static int take_layer(struct session *session, const struct sasl_layer_choice *choice, struct err *err)
{
    int rc = 0;
    switch (choice->kind) {
    case SASL_LAYER_NONE:
        return 0;
    case SASL_LAYER_GSS_INTEGRITY:
    case SASL_LAYER_GSS_CONFIDENTIALITY:
        session->layer.kind = choice->kind == SASL_LAYER_GSS_INTEGRITY ? IPC_LAYER_GSS_INTEGRITY
                                                                       : IPC_LAYER_GSS_CONFIDENTIALITY;
        rc = kerberos_exchange_seal(session->kerberos, &session->layer_state, err);
        break;
    case SASL_LAYER_NTLM_SIGN:
    case SASL_LAYER_NTLM_SEAL:
        session->layer.kind = IPC_LAYER_NTLM;
        if (!sasl_server_layer_state(session->sasl, &session->layer_state))
            rc = err_set(err, ERR_AUTH, "NTLM has no keys for the layer");
        break;
    }
    session->layer.peer_max_bytes = choice->peer_max_bytes;
    session->layer.state = buf_str(&session->layer_state);
    return rc;
}

static void finish(struct session *session, const struct sasl_step *step)
{
    struct err err;
    session->inner = step->inner;
    session->gss_flags = step->gss_flags;
    if (take_layer(session, &step->layer, &err) < 0) {
        log_event(session->inbound->auth->ctx->log, LOG_LEVEL_ERROR, "auth.layer.failed", "session %.*s: %s",
                  STR_ARG(session->start.session), err_text(&err));
        fail_temporarily(session, "internal");
        return;
    }
    decide_proven(session, step);
}

static void go_on(struct session *session, enum sasl_action action, struct sasl_step *step)
{
    if (step->inner)
        session->inner = step->inner;
    switch (action) {
    case SASL_CHALLENGE:
        channel_send(session->key.peer->channel, IPC_AUTH_CHALLENGE, (uint32_t)session->key.id, step->challenge);
        return;
    case SASL_CHECK_PASSWORD:
        ask(session, VERIFY_PASSWORD, step);
        return;
    case SASL_NEED_VERIFIER:
        ask(session, VERIFY_FIND, step);
        return;
    case SASL_CHECK_NTLM:
        ask_ntlm(session, step);
        return;
    case SASL_DONE:
        finish(session, step);
        return;
    case SASL_FAILED:
        decide_failed(session, step, NULL);
        return;
    }
}

void step_take(struct session *session, bool has_response, struct str response)
{
    if (session->kerberos) {
        step_on_thread(session, has_response, response);
        return;
    }
    struct sasl_step step;
    go_on(session, sasl_server_step(session->sasl, has_response, response, &step), &step);
}
