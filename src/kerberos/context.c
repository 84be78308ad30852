#include "kerberos/context.h"

#include <errno.h>
#include <stdlib.h>

#include "base/secret.h"
#include "kerberos/private.h"
#include "kerberos/ticket.h"

enum { BINDINGS_MAX = 1024 };

struct krb_context *krb_context_new(enum krb_side side, gss_cred_id_t credential, struct str bindings)
{
    struct krb_context *context = calloc(1, sizeof *context);
    if (!context)
        return NULL;
    context->side = side;
    context->credential = credential;
    context->gss = GSS_C_NO_CONTEXT;
    context->has_bindings = bindings.n > 0;
    buf_init(&context->bindings, BINDINGS_MAX);
    if (!buf_add(&context->bindings, bindings)) {
        free(context);
        return NULL;
    }
    return context;
}

void krb_context_free(struct krb_context **context)
{
    OM_uint32 ignored;
    if (!context || !*context)
        return;
    if ((*context)->gss != GSS_C_NO_CONTEXT)
        gss_delete_sec_context(&ignored, &(*context)->gss, GSS_C_NO_BUFFER);
    if ((*context)->target != GSS_C_NO_NAME)
        gss_release_name(&ignored, &(*context)->target);
    buf_done(&(*context)->bindings);
    free(*context);
    *context = NULL;
}

const struct krb_failure *krb_context_failure(const struct krb_context *context)
{
    return &context->failure;
}

unsigned krb_context_flags(const struct krb_context *context)
{
    return context->flags;
}

struct str krb_context_peer(const struct krb_context *context)
{
    return str_of(context->peer);
}

bool krb_context_spnego(const struct krb_context *context)
{
    return context->spnego;
}

void krb_context_session(const struct krb_context *context, struct krb_session *ret_session)
{
    *ret_session = context->session;
}

static gss_OID mech_of(const struct krb_context *context)
{
    return context->spnego ? &krb_oid_spnego : &krb_oid_krb5;
}

static unsigned flags_of_gss(OM_uint32 gss)
{
    static const struct {
        OM_uint32 gss;
        unsigned ours;
    } bits[] = {
        { GSS_C_MUTUAL_FLAG, KRB_MUTUAL },        { GSS_C_INTEG_FLAG, KRB_INTEGRITY },
        { GSS_C_CONF_FLAG, KRB_CONFIDENTIALITY }, { GSS_C_DELEG_FLAG, KRB_DELEGATED },
        { GSS_C_CHANNEL_BOUND_FLAG, KRB_BOUND },  { GSS_C_SEQUENCE_FLAG, KRB_SEQUENCE },
    };
    unsigned flags = 0;
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (gss & bits[i].gss)
            flags |= bits[i].ours;
    return flags;
}

/* Gives a library buffer back, its octets overwritten: they may have been plain text or a key. */
static void buffer_wipe(gss_buffer_t buffer)
{
    OM_uint32 ignored;
    if (buffer->value)
        secret_wipe(buffer->value, buffer->length);
    gss_release_buffer(&ignored, buffer);
}

/* Adds a library buffer's octets to ours; nothing is added when they do not fit. */
static bool buffer_move(gss_buffer_t from, struct buf *to)
{
    size_t n = to->n;
    bool fits = buf_add(to, str_slice(from->value, from->length));
    if (!fits)
        to->n = n;
    buffer_wipe(from);
    return fits;
}

static enum krb_status fail(struct krb_context *context, enum krb_cause cause, const char *sentence)
{
    krb_failure_set(&context->failure, cause, "%s", sentence);
    context->failed = true;
    return KRB_FAILED;
}

/* The name becomes a log field and a key of identity rules: no controls, and not shortened. */
static bool read_peer(struct krb_context *context, gss_name_t name)
{
    OM_uint32 minor;
    gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
    if (name == GSS_C_NO_NAME || GSS_ERROR(gss_display_name(&minor, name, &text, NULL)))
        return false;
    bool good = text.length > 0 && str_copy(str_slice(text.value, text.length), context->peer, sizeof context->peer);
    for (const char *p = context->peer; good && *p; p++)
        good = (unsigned char)*p >= 0x20 && *p != 0x7f;
    if (!good)
        context->peer[0] = 0;
    gss_release_buffer(&minor, &text);
    return good;
}

/* The enctype is the last arc of the object identifier in the second element (1.2.840.113554.1.2.2.4.N). */
static int32_t read_enctype(gss_ctx_id_t gss)
{
    static const char prefix[] = "\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x04";
    OM_uint32 minor;
    gss_buffer_set_t set = GSS_C_NO_BUFFER_SET;
    int32_t enctype = 0;
    if (GSS_ERROR(gss_inquire_sec_context_by_oid(&minor, gss, GSS_C_INQ_SSPI_SESSION_KEY, &set)))
        return 0;
    if (set->count >= 2) {
        struct str oid = str_slice(set->elements[1].value, set->elements[1].length);
        if (str_starts(oid, str_slice(prefix, sizeof prefix - 1)))
            for (oid = str_skip(oid, sizeof prefix - 1); oid.n > 0 && enctype < 1 << 20; oid = str_skip(oid, 1))
                enctype = enctype << 7 | (oid.p[0] & 0x7f);
    }
    for (size_t i = 0; i < set->count; i++)
        secret_wipe(set->elements[i].value, set->elements[i].length);
    gss_release_buffer_set(&minor, &set);
    return enctype;
}

static void read_session(struct krb_context *context, OM_uint32 lifetime_s)
{
    context->session.lifetime_s = lifetime_s == GSS_C_INDEFINITE ? UINT32_MAX : lifetime_s;
    context->session.enctype = read_enctype(context->gss);
}

static enum krb_status complete_accept(struct krb_context *context, gss_name_t client, OM_uint32 flags,
                                       OM_uint32 lifetime_s)
{
    context->flags = flags_of_gss(flags);
    if (flags & GSS_C_ANON_FLAG)
        return fail(context, KRB_CAUSE_CLIENT_UNKNOWN, "the client is anonymous");
    if (!read_peer(context, client))
        return fail(context, KRB_CAUSE_CLIENT_UNKNOWN, "the client's name is too long, or has control characters");
    if (context->bindings_required && !(context->flags & KRB_BOUND))
        return fail(context, KRB_CAUSE_BINDINGS_MISSING, "the client did not bind its login to the TLS channel");
    read_session(context, lifetime_s);
    context->complete = true;
    return KRB_COMPLETE;
}

static enum krb_status step_accept(struct krb_context *context, gss_buffer_t in, gss_channel_bindings_t bindings,
                                   gss_buffer_t out)
{
    gss_name_t client = GSS_C_NO_NAME;
    gss_cred_id_t delegated = GSS_C_NO_CREDENTIAL;
    OM_uint32 minor, ignored, flags = 0, lifetime_s = 0;
    if (!context->started)
        context->spnego = krb_token_is_spnego(str_slice(in->value, in->length));
    OM_uint32 major = gss_accept_sec_context(&minor, &context->gss, context->credential, in, bindings, &client, NULL,
                                             out, &flags, &lifetime_s, &delegated);
    enum krb_status status = KRB_CONTINUE;
    if (GSS_ERROR(major)) {
        krb_failure_gss(&context->failure, KRB_ACCEPTOR, major, minor, mech_of(context));
        status = KRB_FAILED;
    } else if (!(major & GSS_S_CONTINUE_NEEDED)) {
        status = complete_accept(context, client, flags, lifetime_s);
        if (status == KRB_FAILED)
            buffer_wipe(out); /* it would tell the client that it is in */
    }
    gss_release_name(&ignored, &client);
    gss_release_cred(&ignored, &delegated); /* that it came is all that is recorded */
    return status;
}

static OM_uint32 initiate(struct krb_context *context, gss_ctx_id_t *gss, gss_OID mech, gss_buffer_t in,
                          gss_channel_bindings_t bindings, gss_buffer_t out, OM_uint32 *ret_flags,
                          OM_uint32 *ret_lifetime_s, OM_uint32 *ret_minor)
{
    return gss_init_sec_context(ret_minor, context->credential, gss, context->target, mech, context->wanted_flags, 0,
                                bindings, in, NULL, out, ret_flags, ret_lifetime_s);
}

/* SPNEGO may say no more than that it found no mechanism. The same step in Kerberos alone tells why; what failed at the
 * KDC fails there again. */
static void ask_again(struct krb_context *context, gss_channel_bindings_t bindings)
{
    OM_uint32 minor, ignored;
    gss_ctx_id_t gss = GSS_C_NO_CONTEXT;
    gss_buffer_desc in = GSS_C_EMPTY_BUFFER, out = GSS_C_EMPTY_BUFFER;
    OM_uint32 major = initiate(context, &gss, &krb_oid_krb5, &in, bindings, &out, NULL, NULL, &minor);
    if (GSS_ERROR(major))
        krb_failure_gss(&context->failure, KRB_INITIATOR, major, minor, &krb_oid_krb5);
    if (gss != GSS_C_NO_CONTEXT)
        gss_delete_sec_context(&ignored, &gss, GSS_C_NO_BUFFER);
    gss_release_buffer(&ignored, &out);
}

static enum krb_status complete_initiate(struct krb_context *context, OM_uint32 flags, OM_uint32 lifetime_s)
{
    gss_name_t peer = GSS_C_NO_NAME;
    OM_uint32 ignored;
    context->flags = flags_of_gss(flags);
    if ((context->wanted_flags & GSS_C_MUTUAL_FLAG) && !(flags & GSS_C_MUTUAL_FLAG))
        return fail(context, KRB_CAUSE_INTERNAL, "the server did not prove who it is");
    if (GSS_ERROR(gss_inquire_context(&ignored, context->gss, NULL, &peer, NULL, NULL, NULL, NULL, NULL)) ||
        !read_peer(context, peer)) {
        gss_release_name(&ignored, &peer);
        return fail(context, KRB_CAUSE_INTERNAL, "the service's name cannot be shown");
    }
    gss_release_name(&ignored, &peer);
    /* A target without a realm keeps the mark of the referral realm: an '@' with nothing behind it. */
    size_t n = strlen(context->peer);
    if (n > 1 && context->peer[n - 1] == '@' && context->peer[n - 2] != '\\')
        context->peer[n - 1] = 0;
    read_session(context, lifetime_s);
    context->complete = true;
    return KRB_COMPLETE;
}

static enum krb_status step_initiate(struct krb_context *context, gss_buffer_t in, gss_channel_bindings_t bindings,
                                     gss_buffer_t out)
{
    OM_uint32 minor, flags = 0, lifetime_s = 0;
    OM_uint32 major = initiate(context, &context->gss, mech_of(context), in, bindings, out, &flags, &lifetime_s,
                               &minor);
    if (GSS_ERROR(major)) {
        krb_failure_gss(&context->failure, KRB_INITIATOR, major, minor, mech_of(context));
        enum krb_cause cause = context->failure.cause;
        if (context->spnego && !context->started && (cause == KRB_CAUSE_INTERNAL || cause == KRB_CAUSE_NO_CREDENTIALS))
            ask_again(context, bindings);
        return KRB_FAILED;
    }
    return major & GSS_S_CONTINUE_NEEDED ? KRB_CONTINUE : complete_initiate(context, flags, lifetime_s);
}

enum krb_status krb_context_step(struct krb_context *context, struct str token, struct buf *ret_token)
{
    /* Address type 0 on both sides, as RFC 5929 bindings are used with GSS-API; only the application data counts. */
    struct gss_channel_bindings_struct bindings = {
        .initiator_addrtype = GSS_C_AF_UNSPEC,
        .acceptor_addrtype = GSS_C_AF_UNSPEC,
        .application_data = { context->bindings.n, context->bindings.p },
    };
    gss_channel_bindings_t bound = context->has_bindings ? &bindings : GSS_C_NO_CHANNEL_BINDINGS;
    gss_buffer_desc in = { token.n, (void *)(uintptr_t)token.p }, out = GSS_C_EMPTY_BUFFER;
    if (context->failed || context->complete)
        return fail(context, KRB_CAUSE_DEFECTIVE_TOKEN, "a token came after the end");
    if (token.n > KRB_TOKEN_MAX)
        return fail(context, KRB_CAUSE_DEFECTIVE_TOKEN, "the token is longer than 65536 octets");
    if (token.n == 0 && (context->side == KRB_ACCEPTOR || context->started))
        return fail(context, KRB_CAUSE_DEFECTIVE_TOKEN, "the token is empty");
    enum krb_status status = context->side == KRB_ACCEPTOR ? step_accept(context, &in, bound, &out)
                                                           : step_initiate(context, &in, bound, &out);
    context->started = true;
    if (!buffer_move(&out, ret_token) && status != KRB_FAILED)
        status = fail(context, KRB_CAUSE_INTERNAL, "our token is longer than its buffer");
    if (status == KRB_FAILED) {
        context->failed = true;
        context->complete = false;
    }
    return status;
}

static bool usable(struct krb_context *context)
{
    if (context->complete && context->gss != GSS_C_NO_CONTEXT)
        return true;
    krb_failure_set(&context->failure, KRB_CAUSE_INTERNAL, "there is no complete context");
    return false;
}

bool krb_context_wrap(struct krb_context *context, bool confidential, struct str plain, struct buf *ret_token)
{
    gss_buffer_desc in = { plain.n, (void *)(uintptr_t)plain.p }, out = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor;
    int really = 0;
    if (!usable(context))
        return false;
    OM_uint32 major = gss_wrap(&minor, context->gss, confidential, GSS_C_QOP_DEFAULT, &in, &really, &out);
    if (GSS_ERROR(major)) {
        krb_failure_gss(&context->failure, context->side, major, minor, mech_of(context));
        return false;
    }
    if (confidential && !really) {
        krb_failure_set(&context->failure, KRB_CAUSE_INTERNAL, "the session cannot encrypt");
        buffer_wipe(&out);
        return false;
    }
    if (buffer_move(&out, ret_token))
        return true;
    krb_failure_set(&context->failure, KRB_CAUSE_INTERNAL, "the wrapped token is longer than its buffer");
    return false;
}

/* On a copy: the library turns the octets of its input around in place. */
static OM_uint32 unwrap_copy(struct krb_context *context, struct str token, gss_buffer_t out, int *ret_confidential,
                             OM_uint32 *ret_minor)
{
    struct buf copy;
    buf_init(&copy, token.n);
    *ret_minor = ENOMEM;
    OM_uint32 major = GSS_S_FAILURE;
    if (buf_add(&copy, token)) {
        gss_buffer_desc in = { copy.n, copy.p };
        major = gss_unwrap(ret_minor, context->gss, &in, out, ret_confidential, NULL);
    }
    buf_wipe(&copy);
    return major;
}

bool krb_context_unwrap(struct krb_context *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor;
    int confidential = 0;
    *ret_confidential = false;
    if (!usable(context))
        return false;
    OM_uint32 major = unwrap_copy(context, token, &out, &confidential, &minor);
    if (major != GSS_S_COMPLETE) {
        krb_failure_gss(&context->failure, context->side, major, minor, mech_of(context));
        /* Not errors to GSS-API, but on a stream of octets in order they can only be an attack. */
        context->failure.cause = major & (GSS_S_DUPLICATE_TOKEN | GSS_S_OLD_TOKEN) && !GSS_ERROR(major)
                                     ? KRB_CAUSE_REPLAY : KRB_CAUSE_DEFECTIVE_TOKEN;
        buffer_wipe(&out);
        return false;
    }
    *ret_confidential = confidential != 0;
    if (buffer_move(&out, ret_plain))
        return true;
    krb_failure_set(&context->failure, KRB_CAUSE_INTERNAL, "the plain text is longer than its buffer");
    return false;
}

uint32_t krb_context_plain_max(const struct krb_context *context, bool confidential, uint32_t output_max_bytes)
{
    OM_uint32 minor, plain_max = 0;
    if (!context->complete || context->gss == GSS_C_NO_CONTEXT ||
        GSS_ERROR(gss_wrap_size_limit(&minor, context->gss, confidential, GSS_C_QOP_DEFAULT, output_max_bytes,
                                      &plain_max)))
        return 0;
    return plain_max < output_max_bytes ? plain_max : 0;
}

void *krb_context_gss(const struct krb_context *context)
{
    return context->gss;
}

void *krb_context_take_gss(struct krb_context *context)
{
    gss_ctx_id_t gss = context->complete ? context->gss : GSS_C_NO_CONTEXT;
    if (context->complete)
        context->gss = GSS_C_NO_CONTEXT;
    return gss;
}

bool krb_binding_build(enum krb_binding kind, struct str octets, struct buf *ret_application_data)
{
    return buf_add(ret_application_data,
                   kind == KRB_BINDING_SERVER_END_POINT ? STR("tls-server-end-point:") : STR("tls-exporter:")) &&
           buf_add(ret_application_data, octets);
}
