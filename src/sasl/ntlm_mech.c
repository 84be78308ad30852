/* The mechanism NTLM ([MS-SMTPNTLM]): our two machines behind the tables of the room.
 *
 * A layer starts only where it was offered (a server without TLS whose `encryption` allows one) and the client asked for
 * sealing; signing alone never starts one, because clients set its flag without meaning the stream of SMTP. */
#include <stdio.h>

#include "sasl/client.h"
#include "sasl/ntlm_client.h"
#include "sasl/ntlm_mech.h"
#include "sasl/server.h"

static const enum sasl_cause causes[NTLM_CAUSES] = {
    [NTLM_CAUSE_NONE] = SASL_CAUSE_INTERNAL,
    [NTLM_CAUSE_MALFORMED] = SASL_CAUSE_MALFORMED,
    [NTLM_CAUSE_TOO_LONG] = SASL_CAUSE_TOO_LONG,
    [NTLM_CAUSE_ANONYMOUS] = SASL_CAUSE_ANONYMOUS,
    [NTLM_CAUSE_V1] = SASL_CAUSE_NTLM_V1,
    [NTLM_CAUSE_WRONG] = SASL_CAUSE_BAD_PASSWORD,
    [NTLM_CAUSE_UNKNOWN_USER] = SASL_CAUSE_UNKNOWN_USER,
    [NTLM_CAUSE_MIC] = SASL_CAUSE_NTLM_MIC,
    [NTLM_CAUSE_BINDING_MISMATCH] = SASL_CAUSE_BINDING_MISMATCH,
    [NTLM_CAUSE_BINDING_MISSING] = SASL_CAUSE_BINDINGS_MISSING,
    [NTLM_CAUSE_TARGET] = SASL_CAUSE_TARGET_NAME,
    [NTLM_CAUSE_MECH_LIST] = SASL_CAUSE_MECH_LIST,
    [NTLM_CAUSE_TEMPORARY] = SASL_CAUSE_TEMPORARY,
    [NTLM_CAUSE_INTERNAL] = SASL_CAUSE_INTERNAL,
};

enum sasl_cause ntlm_mech_cause(enum ntlm_cause cause)
{
    return causes[cause < NTLM_CAUSES ? cause : NTLM_CAUSE_INTERNAL];
}

enum ntlm_verdict ntlm_mech_verdict(enum sasl_verdict verdict)
{
    static const enum ntlm_verdict verdicts[] = {
        [SASL_RIGHT] = NTLM_RIGHT, [SASL_WRONG] = NTLM_WRONG, [SASL_UNKNOWN_USER] = NTLM_UNKNOWN_USER,
        [SASL_CANNOT_TELL] = NTLM_CANNOT_TELL,
    };
    return verdicts[verdict];
}

struct str ntlm_mech_name(const struct ntlm_proof *proof, char text[SASL_PRINCIPAL_MAX + 1])
{
    int n = snprintf(text, SASL_PRINCIPAL_MAX + 1, "%.*s%s%.*s", STR_ARG(proof->domain), proof->domain.n ? "\\" : "",
                     STR_ARG(proof->user));
    return str_slice(text, n < 0 || n > SASL_PRINCIPAL_MAX ? 0 : (size_t)n);
}

static bool import_seal(bool exported, struct buf *octets, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ .broken = true };
    bool ok = exported && ntlm_seal_import(buf_str(octets), ret_seal);
    buf_wipe(octets);
    return ok;
}

bool sasl_server_ntlm_seal(struct sasl_server *server, struct ntlm_seal *ret_seal)
{
    struct buf octets;
    buf_init(&octets, NTLM_SEAL_EXPORT_MAX);
    return import_seal(sasl_server_layer_state(server, &octets), &octets, ret_seal);
}

bool sasl_client_ntlm_seal(struct sasl_client *client, struct ntlm_seal *ret_seal)
{
    struct buf octets;
    buf_init(&octets, NTLM_SEAL_EXPORT_MAX);
    return import_seal(sasl_client_layer_state(client, &octets), &octets, ret_seal);
}

struct server_state {
    struct ntlm_server ntlm;
    unsigned layers_offered;
    char name[SASL_PRINCIPAL_MAX + 1];
};

static bool server_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options)
{
    struct server_state *s = state;
    if (!options->ntlm)
        return false;
    s->layers_offered = options->layers_offered ? options->layers_offered : SASL_LAYER_BIT_NONE;
    struct ntlm_server_options ntlm = {
        .setup = options->ntlm, .binding = options->binding, .binding_required = options->binding_required,
        .offer_seal = (s->layers_offered & SASL_LAYER_BIT_CONFIDENTIALITY) != 0,
    };
    return ntlm_server_init(&s->ntlm, &ntlm);
}

static enum sasl_action server_step(void *state, bool has_response, struct str response, struct sasl_step *ret_step)
{
    struct server_state *s = state;
    ret_step->inner = "ntlm";
    enum ntlm_action action = ntlm_server_step(&s->ntlm, response, &ret_step->challenge);
    const struct ntlm_proof *proof = ntlm_server_proof(&s->ntlm);
    ret_step->authcid = ntlm_mech_name(proof, s->name); /* also of those that are refused at once */
    if (action == NTLM_CHALLENGE)
        return SASL_CHALLENGE;
    if (action != NTLM_CHECK)
        return sasl_fail(ret_step, ntlm_mech_cause(ntlm_server_cause(&s->ntlm)));
    ret_step->ntlm = proof;
    return SASL_CHECK_NTLM;
}

static enum sasl_action server_verified(void *state, enum sasl_verdict verdict, const unsigned char *session_base_key,
                                        struct str canonical, struct sasl_step *ret_step)
{
    struct server_state *s = state;
    if (ntlm_server_verified(&s->ntlm, ntlm_mech_verdict(verdict), session_base_key) != NTLM_DONE)
        return sasl_fail(ret_step, ntlm_mech_cause(ntlm_server_cause(&s->ntlm)));
    if (canonical.n > 0) {
        if (!str_copy(canonical, s->name, sizeof s->name))
            return sasl_fail(ret_step, SASL_CAUSE_INTERNAL);
        ret_step->authcid = ret_step->authzid = str_of(s->name);
    }
    if (ntlm_server_flags(&s->ntlm) & NTLM_SEAL)
        ret_step->layer.kind = SASL_LAYER_NTLM_SEAL;
    else if (!(s->layers_offered & SASL_LAYER_BIT_NONE))
        return sasl_fail(ret_step, SASL_CAUSE_LAYER_REQUIRED);
    return SASL_DONE;
}

bool ntlm_mech_export(struct ntlm_seal *seal, bool has_seal, struct buf *out)
{
    bool ok = has_seal && ntlm_seal_export(seal, out);
    ntlm_seal_done(seal);
    return ok;
}

static bool server_layer_state(void *state, struct buf *out)
{
    struct server_state *s = state;
    struct ntlm_seal seal;
    return ntlm_mech_export(&seal, ntlm_server_seal(&s->ntlm, &seal), out);
}

static void server_done(void *state)
{
    ntlm_server_done(&((struct server_state *)state)->ntlm);
}

const struct sasl_server_ops sasl_server_ntlmssp = {
    .state_bytes = sizeof(struct server_state), .init = server_init, .step = server_step, .ntlm = server_verified,
    .layer_state = server_layer_state, .done = server_done,
};

struct client_state {
    struct ntlm_client ntlm;
    bool begun;
};

static int client_init(void *state, const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                       struct err *err)
{
    struct client_state *s = state;
    if (!options->ntlm)
        return err_set(err, ERR_AUTH, "NTLM is not set up here");
    struct ntlm_client_options ntlm = { .setup = options->ntlm, .user = options->user, .password = options->password,
                                        .binding = options->binding, .want_seal = options->seal };
    return ntlm_client_init(&s->ntlm, &ntlm, err);
}

/* Windows' clients wait for the first 334, whatever it says, and not all servers take an initial response. */
static bool client_first(void *state, struct str *ret_response)
{
    return false;
}

static int client_step(void *state, struct str challenge, struct str *ret_response, struct err *err)
{
    struct client_state *s = state;
    if (s->begun)
        return ntlm_client_step(&s->ntlm, challenge, ret_response, err);
    s->begun = true;
    *ret_response = ntlm_client_first(&s->ntlm);
    return 0;
}

static bool client_complete(const void *state)
{
    return ((const struct client_state *)state)->ntlm.complete;
}

static struct sasl_layer_choice client_layer(const void *state)
{
    const struct client_state *s = state;
    return (struct sasl_layer_choice){ .kind = ntlm_client_seals(&s->ntlm) ? SASL_LAYER_NTLM_SEAL : SASL_LAYER_NONE };
}

static bool client_layer_state(void *state, struct buf *out)
{
    struct client_state *s = state;
    struct ntlm_seal seal;
    return ntlm_mech_export(&seal, ntlm_client_seal(&s->ntlm, &seal), out);
}

static void client_done(void *state)
{
    ntlm_client_done(&((struct client_state *)state)->ntlm);
}

const struct sasl_client_ops sasl_client_ntlmssp = {
    .state_bytes = sizeof(struct client_state), .init = client_init, .first = client_first, .step = client_step,
    .complete = client_complete, .layer = client_layer, .layer_state = client_layer_state, .done = client_done,
};
