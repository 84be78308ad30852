/* Kerberos logins of a load. Each needs an AP-REQ of its own, or the server's replay cache refuses it, and making one costs
 * about what it costs the server to read it: --tokens has them made before the load begins. */
#include "cli/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "kerberos/context.h"
#include "kerberos/initiator.h"
#include "kerberos/keytab.h"
#include "kerberos/library.h"

struct bench_context {
    struct bench_context *next;
    struct krb_context *krb;
    struct sasl_gss gss;
    struct buf first;             /* the token that was made ahead; empty: none */
    enum krb_status first_status;
};

struct bench_kerberos {
    struct krb_initiator *initiator;
    struct krb_initiate_options options;
    char *target;
    struct bench_context *ready;
};

/* ---- the context behind the mechanism ---- */

static enum sasl_gss_status status_of(enum krb_status status)
{
    return status == KRB_CONTINUE ? SASL_GSS_CONTINUE : status == KRB_COMPLETE ? SASL_GSS_COMPLETE : SASL_GSS_FAILED;
}

static enum sasl_gss_status step(void *context, struct str token, struct buf *ret_token)
{
    struct bench_context *x = context;
    if (x->first.n == 0)
        return status_of(krb_context_step(x->krb, token, ret_token));
    bool ok = buf_add(ret_token, buf_str(&x->first));
    buf_clear(&x->first);
    return ok ? status_of(x->first_status) : SASL_GSS_FAILED;
}

static bool wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    return krb_context_wrap(((struct bench_context *)context)->krb, confidential, plain, ret_token);
}

static bool unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    return krb_context_unwrap(((struct bench_context *)context)->krb, token, ret_plain, ret_confidential);
}

static unsigned flags(const void *context)
{
    return krb_context_flags(((const struct bench_context *)context)->krb);
}

static struct str peer(const void *context)
{
    return krb_context_peer(((const struct bench_context *)context)->krb);
}

static uint32_t plain_max(void *context, bool confidential, uint32_t output_max)
{
    return krb_context_plain_max(((struct bench_context *)context)->krb, confidential, output_max);
}

const struct sasl_gss *bench_context_gss(const struct bench_context *context)
{
    return &context->gss;
}

void bench_context_free(struct bench_context **context)
{
    struct bench_context *x = *context;
    if (!x)
        return;
    krb_context_free(&x->krb);
    buf_done(&x->first);
    free(x);
    *context = NULL;
}

static struct bench_context *new_context(struct bench_kerberos *kerberos, struct err *err)
{
    struct krb_failure failure = { 0 };
    struct bench_context *x = calloc(1, sizeof *x);
    if (!x) {
        err_set(err, -ENOMEM, "out of memory for a login");
        return NULL;
    }
    buf_init(&x->first, KRB_TOKEN_MAX);
    x->gss = (struct sasl_gss){ .context = x, .step = step, .wrap = wrap, .unwrap = unwrap, .flags = flags, .peer = peer,
                                .plain_max = plain_max };
    if (krb_initiate_new(kerberos->initiator, &kerberos->options, &x->krb, &failure) < 0) {
        err_set(err, ERR_AUTH, "Kerberos: %s", failure.minor_text);
        bench_context_free(&x);
    }
    return x;
}

/* ---- the run's ---- */

struct bench_context *bench_kerberos_take(struct bench_kerberos *kerberos, struct err *err)
{
    struct bench_context *x = kerberos->ready;
    if (!x)
        return new_context(kerberos, err);
    kerberos->ready = x->next;
    return x;
}

static int make_ahead(struct bench_kerberos *kerberos, uint64_t tokens, struct err *err)
{
    for (uint64_t i = 0; i < tokens; i++) {
        struct bench_context *x = new_context(kerberos, err);
        if (!x)
            return ERR_AUTH;
        x->next = kerberos->ready;
        kerberos->ready = x;
        x->first_status = krb_context_step(x->krb, STR_NONE, &x->first);
        if (x->first_status == KRB_FAILED)
            return err_set(err, ERR_AUTH, "Kerberos: no token for %s: %s", kerberos->target,
                           krb_context_failure(x->krb)->minor_text);
    }
    return 0;
}

static int load_keytab(const char *path, struct krb_keytab **ret_keytab, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "%s", path);
    int rc = krb_keytab_load_fd(fd, path, ret_keytab, NULL, err);
    close(fd);
    return rc;
}

static int log_in(struct bench_kerberos *kerberos, const struct bench_options *o, struct err *err)
{
    struct krb_keytab *keytab = NULL;
    struct krb_failure failure = { 0 };
    int rc = krb_init(NULL, err);
    if (rc == 0 && o->keytab)
        rc = load_keytab(o->keytab, &keytab, err);
    if (rc < 0)
        return rc;
    struct krb_initiator_options options = { .principal = o->user, .keytab = keytab, .password = o->password };
    rc = krb_initiator_new(&options, &kerberos->initiator, &failure);
    if (rc < 0)
        err_set(err, ERR_AUTH, "Kerberos: no ticket for %s: %s", o->user, failure.minor_text);
    krb_keytab_free(&keytab);
    return rc;
}

static char *default_target(const char *host)
{
    size_t n = strlen(host) + sizeof "smtp/";
    char *text = malloc(n);
    if (text)
        snprintf(text, n, "smtp/%s", host);
    return text;
}

int bench_kerberos_new(const struct bench_options *o, bool spnego, struct bench_kerberos **ret_kerberos, struct err *err)
{
    struct bench_kerberos *kerberos = calloc(1, sizeof *kerberos);
    if (kerberos)
        kerberos->target = o->spn ? str_dup(str_of(o->spn)) : default_target(o->host);
    *ret_kerberos = kerberos;
    if (!kerberos || !kerberos->target)
        return err_set(err, -ENOMEM, "out of memory for Kerberos");
    kerberos->options = (struct krb_initiate_options){
        .target = kerberos->target, .flags = spnego ? KRB_MUTUAL : KRB_MUTUAL | KRB_INTEGRITY | KRB_SEQUENCE,
        .spnego = spnego };
    int rc = log_in(kerberos, o, err);
    return rc < 0 ? rc : make_ahead(kerberos, o->tokens, err);
}

void bench_kerberos_free(struct bench_kerberos **kerberos)
{
    if (!*kerberos)
        return;
    for (struct bench_context *x = (*kerberos)->ready, *next; x; x = next) {
        next = x->next;
        bench_context_free(&x);
    }
    krb_initiator_free(&(*kerberos)->initiator);
    free((*kerberos)->target);
    free(*kerberos);
    *kerberos = NULL;
}
