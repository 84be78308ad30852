/* server: one authentication exchange, the server's side.
 *
 * sasl_server_new(), then sasl_server_step() with each decoded response of the client, and whatever the
 * step asks for. Each call fills a struct sasl_step: what to do next. Views in it live until the next
 * call on the same exchange.
 *
 *   happy path of PLAIN: step -> CHECK_PASSWORD, checked(RIGHT) -> DONE
 *   of LOGIN:            step -> CHALLENGE, step -> CHALLENGE, step -> CHECK_PASSWORD, checked -> DONE
 *   of SCRAM:            step -> NEED_VERIFIER, verifier() -> CHALLENGE, step -> CHALLENGE (the server's
 *                        signature: SMTP has no success data, RFC 4954 section 4), step (empty) -> DONE
 *   of GSSAPI:           step -> CHALLENGE until the context is complete, step -> CHALLENGE (which layers there
 *                        are), step -> DONE with the client's choice
 *   of GSS-SPNEGO:       step -> CHALLENGE until the context is complete -> DONE; the context's flags decide the layer
 *   of NTLM:             step -> CHALLENGE, step -> CHECK_NTLM, ntlm() -> DONE
 *   ways to fail:        any call -> FAILED with the reply and the cause; the exchange is then over.
 *
 * A server of SCRAM may send "e=…" before it fails (RFC 5802 section 7); as SMTP has its own reply for
 * that, this one does not.
 *
 * The cause "gss-failed" is a placeholder: the filler of struct sasl_gss holds the reason. The caller replaces the
 * step's cause (service-not-allowed; temporary, when keytab, clock or KDC are at fault) before it answers. */
#pragma once
#include "sasl/gss.h"
#include "sasl/sasl.h"

struct sasl_ntlm_setup;  /* sasl/ntlm.h */
struct ntlm_proof;
struct ntlm_seal;

enum { SASL_NTLM_KEY_BYTES = 16 };

enum sasl_action {
    SASL_CHALLENGE,      /* send `challenge` (it may be empty), then step with the response */
    SASL_CHECK_PASSWORD, /* is `password` right for `authcid`? then sasl_server_checked() */
    SASL_NEED_VERIFIER,  /* look up `authcid`, then sasl_server_verifier() */
    SASL_CHECK_NTLM,     /* is the answer in `ntlm` right? then sasl_server_ntlm() */
    SASL_DONE,           /* `authcid` is proven; it wants to act as `authzid` */
    SASL_FAILED,
};

/* Why an exchange failed. The words are stable: they are `cause=` in the log. */
enum sasl_cause {
    SASL_CAUSE_NONE,
    SASL_CAUSE_MALFORMED,         /* "malformed" */
    SASL_CAUSE_TOO_LONG,          /* "too-long" */
    SASL_CAUSE_UNEXPECTED_INITIAL,/* "unexpected-initial-response" */
    SASL_CAUSE_EMPTY_USER,        /* "empty-user" */
    SASL_CAUSE_EMPTY_PASSWORD,    /* "empty-password" */
    SASL_CAUSE_BAD_USER_NAME,     /* "bad-user-name": SASLprep refuses it */
    SASL_CAUSE_BAD_PASSWORD,      /* "bad-password" */
    SASL_CAUSE_UNKNOWN_USER,      /* "unknown-user" */
    SASL_CAUSE_AUTHZID,           /* "authzid-denied" */
    SASL_CAUSE_EXTENSION,         /* "unsupported-extension": SCRAM's m= */
    SASL_CAUSE_BINDING_TYPE,      /* "binding-unsupported" */
    SASL_CAUSE_BINDING_MISMATCH,  /* "binding-mismatch": somebody in between, or a wrong certificate */
    SASL_CAUSE_DOWNGRADE,         /* "downgrade": the client believes that -PLUS was not offered */
    SASL_CAUSE_NONCE,             /* "nonce-mismatch" */
    SASL_CAUSE_UNKNOWN_TOKEN,     /* "unknown-token": neither Kerberos, SPNEGO nor NTLM */
    SASL_CAUSE_NO_KERBEROS,       /* "no-kerberos": a ticket, and no keytab to read it with */
    SASL_CAUSE_GSS_FAILED,        /* "gss-failed": whoever filled struct sasl_gss knows why, and whether 454 or 535 */
    SASL_CAUSE_SERVICE_NOT_ALLOWED, /* "service-not-allowed": a ticket for another service of the same account */
    SASL_CAUSE_BINDINGS_MISSING,  /* "bindings-missing": channel bindings are demanded, the client gave none */
    SASL_CAUSE_ANONYMOUS,         /* "anonymous": a context without a name */
    SASL_CAUSE_LAYER_NOT_OFFERED, /* "layer-not-offered": the client chose what was not in the list */
    SASL_CAUSE_LAYER_REQUIRED,    /* "layer-required": the client wants none, or cannot */
    SASL_CAUSE_LAYER_SIZE,        /* "layer-size": the client's buffer is too small for any packet */
    SASL_CAUSE_NTLM_NOT_ALLOWED,  /* "ntlm-not-allowed": NTLM inside another mechanism, where it is off */
    SASL_CAUSE_NTLM_V1,           /* "ntlm-v1": the old answer */
    SASL_CAUSE_NTLM_MIC,          /* "ntlm-mic": somebody changed the messages, or the client computes it wrongly */
    SASL_CAUSE_TARGET_NAME,       /* "target-name": the client meant another server: relayed, or an unknown alias */
    SASL_CAUSE_MECH_LIST,         /* "mech-list-mic": somebody changed SPNEGO's list of mechanisms */
    SASL_CAUSE_TEMPORARY,         /* "temporary": the caller could not tell */
    SASL_CAUSE_INTERNAL,          /* "internal": out of memory, or the crypto library failed */
    SASL_CAUSES,
};
struct sasl_failure {
    const char *cause;
    uint16_t code;        /* SMTP's reply */
    const char *enhanced;
    const char *text;     /* the same for an unknown user and for a wrong password */
};
const struct sasl_failure *sasl_failure_of(enum sasl_cause cause);

enum sasl_verdict { SASL_RIGHT, SASL_WRONG, SASL_UNKNOWN_USER, SASL_CANNOT_TELL };

struct sasl_step {
    enum sasl_action action;
    enum sasl_cause cause;       /* with SASL_FAILED */
    struct str challenge;        /* not encoded */
    struct str authcid;          /* prepared (sasl_prep_user), a principal or DOMAIN\user as it is; as far as it is
                                  * known also with FAILED */
    struct str authzid;          /* prepared, beside a principal as it is; equal to authcid when the client named none */
    struct str password;         /* prepared; with CHECK_PASSWORD */
    const struct ntlm_proof *ntlm; /* with CHECK_NTLM */
    struct sasl_layer_choice layer; /* with DONE */
    const char *inner;           /* what was inside, as far as it is known: "krb5", "spnego-krb5", "ntlm", "spnego-ntlm" */
    unsigned gss_flags;          /* with DONE of a GSS-API context: SASL_GSS_... */
};

struct sasl_server_options {
    struct sasl_binding binding;
    bool plus_offered;           /* SCRAM-…-PLUS was in the list that this client saw */
    struct str nonce;            /* sasl_nonce_text() of random octets, new for each exchange */
    const struct sasl_gss *gss;  /* lives as long as the exchange; NULL: no Kerberos here */
    const struct sasl_ntlm_setup *ntlm; /* NULL: no NTLM here, neither alone nor inside GSSAPI or SPNEGO */
    unsigned layers_offered;     /* bits SASL_LAYER_BIT_...: none without TLS; 0: only NONE */
    bool binding_required;       /* a login that isn't bound to this TLS channel fails */
};

struct sasl_server;

/* NULL when out of memory. Copies what it needs of the options. */
struct sasl_server *sasl_server_new(const struct sasl_mechanism *mechanism, const struct sasl_server_options *options);
/* NULL is fine; wipes. */
void sasl_server_free(struct sasl_server **server);
const struct sasl_mechanism *sasl_server_mechanism(const struct sasl_server *server);
/* The exchange asked for a verifier and has none yet. */
bool sasl_server_waits_for_verifier(const struct sasl_server *server);
/* As far as the client has said it; lives as long as the exchange. */
struct str sasl_server_authcid(const struct sasl_server *server);

/* The first call: `has_response` says whether there was an initial response (it may be empty). */
enum sasl_action sasl_server_step(struct sasl_server *server, bool has_response, struct str response,
                                  struct sasl_step *ret_step);
/* The answer to CHECK_PASSWORD; only then. */
enum sasl_action sasl_server_checked(struct sasl_server *server, enum sasl_verdict verdict, struct sasl_step *ret_step);
/* The answer to NEED_VERIFIER; only then. SASL_RIGHT with the user's verifier; SASL_UNKNOWN_USER with a decoy
 * (sasl_verifier_fake): the exchange goes on and fails at its end as with a wrong password; SASL_CANNOT_TELL. */
enum sasl_action sasl_server_verifier(struct sasl_server *server, enum sasl_verdict verdict,
                                      const struct sasl_verifier *verifier, struct sasl_step *ret_step);
/* The answer to CHECK_NTLM; only then. With SASL_RIGHT: the session base key (NULL: not known, then neither MIC nor
 * layer can be had), and the user as "DOMAIN\user", as whoever checked it spells it (empty: as the client does). */
enum sasl_action sasl_server_ntlm(struct sasl_server *server, enum sasl_verdict verdict,
                                  const unsigned char session_base_key[SASL_NTLM_KEY_BYTES], struct str canonical,
                                  struct sasl_step *ret_step);
/* After DONE with a layer of NTLM: what wraps and unwraps the octets of this connection, for another process
 * (ntlm_seal_import()); a secret. False: there is none here (a layer of GSS-API is exported by whoever filled the table),
 * or `out` is full. */
bool sasl_server_layer_state(struct sasl_server *server, struct buf *out);
/* The same for this process: ntlm_seal.h. One of the two, once; ntlm_seal_done() is the caller's, also after false. */
bool sasl_server_ntlm_seal(struct sasl_server *server, struct ntlm_seal *ret_seal);

/* A mechanism's server side. `state` is state_bytes of zeroed memory that is wiped and freed for it. */
struct sasl_server_ops {
    size_t state_bytes;
    bool (*init)(void *state, const struct sasl_mechanism *mechanism, const struct sasl_server_options *options);
    enum sasl_action (*step)(void *state, bool has_response, struct str response, struct sasl_step *ret_step);
    enum sasl_action (*verifier)(void *state, enum sasl_verdict verdict, const struct sasl_verifier *verifier,
                                 struct sasl_step *ret_step); /* NULL: never asks */
    enum sasl_action (*ntlm)(void *state, enum sasl_verdict verdict, const unsigned char *session_base_key,
                             struct str canonical, struct sasl_step *ret_step); /* NULL: never asks */
    bool (*layer_state)(void *state, struct buf *out); /* NULL: never has one */
    void (*done)(void *state); /* NULL: nothing but the state's own memory */
};
extern const struct sasl_server_ops sasl_server_plain, sasl_server_login, sasl_server_scram, sasl_server_gssapi,
    sasl_server_gss_spnego, sasl_server_ntlmssp;

/* For mechanisms: fills ret_step and returns SASL_FAILED. */
enum sasl_action sasl_fail(struct sasl_step *ret_step, enum sasl_cause cause);
