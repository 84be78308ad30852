#include "daemon/auth/verify.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "io/now.h"

struct verify {
    struct worker_job job;
    struct auth *auth;
    struct auth_store *store;
    atomic_bool dropped;
    verify_fn *answered;
    void *arg;
    enum verify_what what;
    int64_t deadline_mono_ms, ttl_ms;
    char user[SASL_USER_MAX + 1], password[SASL_PASSWORD_MAX + 1];
    size_t user_n, password_n;
    bool looked_up;                 /* verifier and verdict are there */
    struct sasl_verifier verifier;
    struct verify_answer answer;
    struct err store_err;
};

static void cannot_tell(struct verify_answer *answer, const char *cause)
{
    *answer = (struct verify_answer){ .verdict = SASL_CANNOT_TELL, .cause = cause };
}

/* The store's word as an answer; the same on the loop and on a thread. */
static void take_lookup(struct verify_answer *answer, enum verify_what what, int rc, const struct sasl_verifier *verifier)
{
    if (what == VERIFY_EXISTS)
        *answer = (struct verify_answer){ .verdict = rc == 1 ? SASL_RIGHT : SASL_UNKNOWN_USER };
    else
        *answer = (struct verify_answer){ .verdict = rc == 0 ? SASL_RIGHT : SASL_UNKNOWN_USER, .verifier = verifier };
    if (rc < 0 && rc != ERR_ABSENT)
        cannot_tell(answer, "store-failed");
}

static int look_up(struct auth_store *store, enum store_kind kind, enum verify_what what, struct str user,
                   struct sasl_verifier *ret_verifier, struct err *err)
{
    if (what == VERIFY_EXISTS)
        return auth_store_exists(store, kind, user, err);
    return auth_store_find(store, kind, user, ret_verifier, err);
}

/* A user who does not exist costs the same PBKDF2 as a wrong password. */
static void check_password(struct verify *v)
{
    struct str user = str_slice(v->user, v->user_n), password = str_slice(v->password, v->password_n);
    bool known = v->answer.verdict == SASL_RIGHT;
    /* The same may have been verified while this waited: many connections that log in at once. */
    if (known && auth_cache_has(v->auth->cache, user, password, &v->verifier, now_mono_ms()))
        return;
    int rc = sasl_verifier_check(&v->verifier, password, &v->store_err);
    if (rc < 0)
        cannot_tell(&v->answer, "store-failed");
    else if (known && rc == 0)
        v->answer.verdict = SASL_WRONG;
    else if (known)
        auth_cache_put(v->auth->cache, user, password, &v->verifier, now_mono_ms(), v->ttl_ms);
}

static void work(struct worker_job *job)
{
    struct verify *v = (struct verify *)job;
    if (atomic_load(&v->dropped))
        return;
    if (now_mono_ms() > v->deadline_mono_ms) {
        cannot_tell(&v->answer, "late");
        return;
    }
    if (!v->looked_up) {
        int rc = look_up(v->store, STORE_THREAD, v->what, str_slice(v->user, v->user_n), &v->verifier, &v->store_err);
        take_lookup(&v->answer, v->what, rc, &v->verifier);
    }
    if (v->what == VERIFY_PASSWORD && v->answer.verdict != SASL_CANNOT_TELL)
        check_password(v);
}

static void free_verify(struct verify *v)
{
    auth_store_unref(&v->store);
    secret_wipe(v, sizeof *v);
    free(v);
}

static void done(struct worker_job *job)
{
    struct verify *v = (struct verify *)job;
    if (!atomic_load(&v->dropped)) {
        if (v->answer.cause && strcmp(v->answer.cause, "store-failed") == 0)
            auth_store_failed(v->auth, &v->store_err);
        v->answered(v->arg, &v->answer);
    }
    free_verify(v);
}

/* Without a thread: everything but a PBKDF2. True when *ret_answer is final. */
static bool answer_at_once(struct auth *auth, enum verify_what what, struct str user, struct str password,
                           struct sasl_verifier *verifier, bool *ret_looked_up, struct verify_answer *ret_answer)
{
    struct err err = { 0 };
    int rc = look_up(auth->store, STORE_LOOP, what, user, verifier, &err);
    *ret_looked_up = rc != ERR_BUSY;
    if (rc == ERR_BUSY)
        return false;
    take_lookup(ret_answer, what, rc, verifier);
    if (ret_answer->verdict == SASL_CANNOT_TELL)
        auth_store_failed(auth, &err);
    if (what != VERIFY_PASSWORD || ret_answer->verdict == SASL_CANNOT_TELL)
        return true;
    return ret_answer->verdict == SASL_RIGHT &&
           auth_cache_has(auth->cache, user, password, verifier, loop_now_ms(auth->ctx->loop));
}

bool verify_ask(struct auth *auth, enum verify_what what, struct str user, struct str password, verify_fn *answered,
                void *arg, struct verify **ret_verify, struct verify_answer *ret_answer)
{
    static struct sasl_verifier found; /* of the loop's thread alone */
    bool looked_up;
    *ret_verify = NULL;
    if (answer_at_once(auth, what, user, password, &found, &looked_up, ret_answer))
        return true;
    struct verify *v = calloc(1, sizeof *v);
    if (!v || user.n > SASL_USER_MAX || password.n > SASL_PASSWORD_MAX) {
        free(v);
        cannot_tell(ret_answer, "internal");
        return true;
    }
    atomic_init(&v->dropped, false);
    v->job = (struct worker_job){ .work = work, .done = done };
    v->auth = auth;
    v->store = auth_store_ref(auth->store);
    v->answered = answered;
    v->arg = arg;
    v->what = what;
    v->deadline_mono_ms = now_mono_ms() + AUTH_DEADLINE_MS;
    v->ttl_ms = (int64_t)auth->ctx->conf->auth_cache_s * 1000;
    memcpy(v->user, user.p, v->user_n = user.n);
    if (password.n > 0)
        memcpy(v->password, password.p, v->password_n = password.n);
    v->looked_up = looked_up;
    if (looked_up) {
        v->verifier = found;
        v->answer = *ret_answer;
        v->answer.verifier = &v->verifier;
    }
    if (worker_submit(auth->pool, &v->job) < 0) {
        free_verify(v);
        cannot_tell(ret_answer, "busy");
        return true;
    }
    *ret_verify = v;
    return false;
}

void verify_drop(struct verify **verify)
{
    if (*verify)
        atomic_store(&(*verify)->dropped, true);
    *verify = NULL;
}
