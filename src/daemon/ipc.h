/* ipc: the messages between roles: one enum for all types, one struct a message, one function to write
 * it into a body and one to read it. A reader returns false for anything but exactly that message:
 * every length is bounded, nothing may be left over, every enum is in range. Views in a message that
 * was read point into the channel's body and die with the handler.
 *
 * Who may send what is in the comment; a role that gets a type it does not expect closes the channel. */
#pragma once
#include "base/wire.h"

enum role_id { ROLE_MASTER, ROLE_SMTPD, ROLE_AUTH, ROLE_KEYS, ROLE_QUEUE, ROLE_DELIVERY, ROLE_COUNT };
const char *role_name(enum role_id role);

enum ipc_type {
    /* master → every role, in this order for each snapshot: CONFIG, FILE*, GO */
    IPC_CONFIG = 1,      /* fd 0: sealed memfd with the configuration's text (conf_load_bundle) */
    IPC_FILE,            /* fd 0: an opened file, listener or log; see struct ipc_file */
    IPC_PEER,            /* fd 0: channel to another role; smtpd↔queue: fd 1 spool page, fd 2 doorbell */
    IPC_GO,              /* all of this snapshot has been sent; id = its generation */
    IPC_DRAIN,           /* finish what runs, then exit */
    IPC_READY,           /* role → master: this generation (id) is in use */
    IPC_RELOAD,          /* queue → master, on behalf of `postern reload`; answered with RELOADED */
    IPC_RELOADED,        /* body: struct ipc_reloaded */
    IPC_LOG_FD,          /* master → role: fd 0 replaces the log's */
    IPC_ALIVE,           /* master → role, and back with the same id: the loop turns (master/watch.h) */
    IPC_SUCCESSOR,       /* delivery → master: start another one in my place, I only finish what I have */

    /* smtpd ↔ queue */
    IPC_SEGMENT_LEND = 32, /* queue → smtpd: fd 0 segment; struct ipc_segment */
    IPC_SEGMENT_RETURN,    /* smtpd → queue: will not be written again; struct ipc_segment */
    IPC_SEGMENT_HELD,      /* smtpd → queue after a new IPC_PEER: one a segment that it still holds */
    IPC_BODY_LEND,         /* queue → smtpd: fd 0 empty file; struct ipc_segment (segment = its number) */
    IPC_BODY_RETURN,       /* smtpd → queue: not used after all */
    IPC_BODY_HELD,
    IPC_INTAKE,            /* queue → smtpd: body u8, 1 = take mail, 0 = paused (MAIL gets 450 4.3.2) */

    /* smtpd ↔ auth; id = the session's question */
    IPC_AUTH_START = 64, /* smtpd → auth: struct ipc_auth_start */
    IPC_AUTH_STEP,       /* smtpd → auth: body = the client's decoded response */
    IPC_AUTH_CANCEL,     /* smtpd → auth: the session is gone or sent "*" */
    IPC_AUTH_CHALLENGE,  /* auth → smtpd: body = challenge, not encoded */
    IPC_AUTH_DONE,       /* auth → smtpd: struct ipc_auth_done */
    IPC_USER_QUERY,      /* smtpd, queue → auth: body = local part in lower case, or whole address: who exists */
    IPC_USER_ANSWER,     /* auth → smtpd, queue: body u8: 0 no, 1 yes, 2 cannot tell now */

    /* delivery ↔ auth; id = the connection's question */
    IPC_LOGIN_START = 80, /* delivery → auth: struct ipc_login_start */
    IPC_LOGIN_STEP,       /* delivery → auth: body = the server's decoded challenge */
    IPC_LOGIN_CANCEL,
    IPC_LOGIN_END,        /* delivery → auth: the next hop has decided; struct ipc_login_end */
    IPC_LOGIN_RESPONSE,   /* auth → delivery: struct ipc_login_response */
    IPC_LOGIN_FAILED,     /* auth → delivery: body = why, one sentence */

    /* smtpd, delivery ↔ keys */
    IPC_SIGN = 96,       /* struct ipc_sign */
    IPC_SIGNED,          /* body = signature; empty = refused */
    IPC_TICKET_KEYS,     /* keys → smtpd: 3 × 80 octets: session-ticket keys, newest first */

    /* queue ↔ delivery */
    IPC_SEGMENT_OPEN = 112, /* queue → delivery: fd 0 read-only segment; struct ipc_segment */
    IPC_SEGMENT_CLOSE,      /* queue → delivery: no more jobs from it */
    IPC_SEGMENT_CLOSED,     /* delivery → queue: descriptor closed; struct ipc_segment */
    IPC_JOB,                /* queue → delivery: struct ipc_job; fd 0 = body file when has_body_file */
    IPC_RESULT,             /* delivery → queue: struct ipc_result, one a job */
    IPC_JOB_CANCEL,         /* queue → delivery: give the job back (RESULT returned) if not begun */
};

/* IPC_FILE */
enum ipc_file_kind {
    IPC_FILE_LISTENER,     /* name = server, detail = enum conf_listener_kind, text = "address:port" */
    IPC_FILE_CERTIFICATE,  /* name = server; PEM chain */
    IPC_FILE_KEY,          /* name = server; PEM key: to keys only */
    IPC_FILE_PASSWORD,     /* name = domain: to auth only */
    IPC_FILE_RECIPIENTS,   /* name = domain: to smtpd and queue */
    IPC_FILE_PROTOCOL_LOG, /* name = server */
    IPC_FILE_SESSION_LOG,
    IPC_FILE_SHARED,       /* memfd: counts that mean the whole server (daemon/shared.h) */
    IPC_FILE_SPOOL_LOCK,   /* only to be kept open */
    IPC_FILE_CONTROL,      /* listening control socket, to queue */
    IPC_FILE_CA,           /* trust anchors, PEM */
    IPC_FILE_KEYTAB,       /* name = server, domain or realm, detail = enum ipc_keytab: to auth only; comes again,
                              between GO and the next CONFIG, whenever the file has changed */
    IPC_FILE_BIND_PASSWORD, /* name = realm: of a directory, to auth only */
    IPC_FILE_IDENTITY,     /* name = identity block with a table: to auth only */
    IPC_FILE_KINDS,
};
/* Whose keytab it is. */
enum ipc_keytab { IPC_KEYTAB_SERVER, IPC_KEYTAB_DOMAIN, IPC_KEYTAB_DIRECTORY, IPC_KEYTABS };
struct ipc_file {
    enum ipc_file_kind kind;
    uint8_t detail;
    struct str name, text;
};
void ipc_put_file(struct buf *b, const struct ipc_file *m);
bool ipc_get_file(struct str body, struct ipc_file *ret);

/* IPC_RELOADED */
enum ipc_reload_result { IPC_RELOAD_DONE /* text: what needs a restart, one a line */, IPC_RELOAD_REFUSED /* mistakes */,
                         IPC_RELOAD_NOT_NOW /* why */, IPC_RELOAD_RESULTS };
struct ipc_reloaded {
    enum ipc_reload_result result;
    struct str text;
};
void ipc_put_reloaded(struct buf *b, const struct ipc_reloaded *m);
bool ipc_get_reloaded(struct str body, struct ipc_reloaded *ret);

/* IPC_PEER */
struct ipc_peer {
    enum role_id role;
    uint16_t index;
};
void ipc_put_peer(struct buf *b, const struct ipc_peer *m);
bool ipc_get_peer(struct str body, struct ipc_peer *ret);

/* A segment or a body file of the spool. */
struct ipc_segment {
    uint64_t segment, generation, size_bytes;
};
void ipc_put_segment(struct buf *b, const struct ipc_segment *m);
bool ipc_get_segment(struct str body, struct ipc_segment *ret);

/* IPC_AUTH_START. Auth believes smtpd only about these: where the client comes from, which virtual
 * server it talks to, and what the TLS channel is. */
enum { IPC_AUTH_FLAG_TLS = 1, IPC_AUTH_FLAG_PLAINTEXT = 2 /* PLAIN without TLS allowed to this host */,
       IPC_AUTH_FLAG_INITIAL = 4 /* an initial response was sent, perhaps empty */,
       IPC_AUTH_FLAG_EXPS = 8 /* the verb was X-EXPS */,
       IPC_AUTH_FLAG_LAYER = 16 /* a SASL security layer may follow: there is no TLS, and the rules want one */ };
struct ipc_auth_start {
    uint16_t flags;
    uint16_t port;            /* the client's */
    struct str mechanism, server, client, helo, session; /* client = address as text */
    struct str tls;           /* "TLSv1.3" … or empty, for the log */
    struct str cert_hash;     /* tls-server-end-point: the hash; empty = none */
    struct str exporter;      /* tls-exporter: 32 octets; empty = not TLS 1.3 */
    struct str offered;       /* mechanisms that were offered, space-separated (SCRAM's downgrade check) */
    struct str initial;
};
void ipc_put_auth_start(struct buf *b, const struct ipc_auth_start *m);
bool ipc_get_auth_start(struct str body, struct ipc_auth_start *ret);

/* The security layer that begins after 235 (sasl/layer.h). The state is what wraps and unwraps the octets of this one
 * connection: an exported GSS context, or the keys of an NTLM session. A secret: wipe what held it. */
enum ipc_layer_kind { IPC_LAYER_NONE, IPC_LAYER_GSS_INTEGRITY, IPC_LAYER_GSS_CONFIDENTIALITY, IPC_LAYER_NTLM, IPC_LAYERS };
struct ipc_layer {
    enum ipc_layer_kind kind;
    uint32_t peer_max_bytes;   /* of one wrapped packet that the peer takes */
    struct str state;
};

/* IPC_AUTH_DONE */
enum ipc_auth_result { IPC_AUTH_ACCEPTED, IPC_AUTH_REJECTED, IPC_AUTH_TEMPORARY, IPC_AUTH_CANCELLED, IPC_AUTH_RESULTS };
enum { IPC_RIGHT_SUBMIT = 1, IPC_RIGHT_RELAY = 2, IPC_RIGHT_ANY_SENDER = 4, IPC_RIGHT_HEADERS = 8 /* strip_headers spares
       them */, IPC_RIGHT_SIZE = 16 /* max_message_size does not hold */, IPC_RIGHTS_ALL = 31 };
struct ipc_auth_done {
    enum ipc_auth_result result;
    uint16_t code;             /* SMTP reply */
    uint32_t rights;
    struct str enhanced, text; /* "5.7.8", "Authentication credentials invalid" */
    struct str user;           /* who it is, or who it said it is */
    struct str cause;          /* stable word for the log: bad-password, unknown-user, locked-out … */
    struct str inner;          /* what was inside the mechanism: "krb5", "spnego-ntlm" …; empty: nothing */
    struct str mailbox;        /* whose mail it is, by the identity rules; empty: they name none */
    struct str senders;        /* further addresses that it may send as, separated by spaces */
    struct ipc_layer layer;
};
void ipc_put_auth_done(struct buf *b, const struct ipc_auth_done *m);
bool ipc_get_auth_done(struct str body, struct ipc_auth_done *ret);

/* IPC_LOGIN_START: log in at a next hop with the credentials of a domain block. */
struct ipc_login_start {
    uint16_t flags;           /* IPC_AUTH_FLAG_TLS */
    struct str domain;        /* the block's title */
    struct str host;          /* the name the peer announces */
    struct str offered;       /* mechanisms that the peer offers, space-separated */
    struct str offered_exps;  /* the same under X-EXPS */
    struct str cert_hash, exporter;
};
void ipc_put_login_start(struct buf *b, const struct ipc_login_start *m);
bool ipc_get_login_start(struct str body, struct ipc_login_start *ret);
struct ipc_login_response {
    uint8_t has_mechanism;    /* first answer: use this mechanism; response = initial response if has_response */
    uint8_t has_response;
    uint8_t complete;         /* believe a 235 from now on; before it the server has not proven itself (SCRAM) */
    uint8_t exps;             /* with has_mechanism: the verb is X-EXPS */
    struct str mechanism, response;
    struct ipc_layer layer;   /* with complete: begins after 235 */
};
void ipc_put_login_response(struct buf *b, const struct ipc_login_response *m);
bool ipc_get_login_response(struct str body, struct ipc_login_response *ret);

/* IPC_LOGIN_END: what the next hop made of the login, for auth's event. */
struct ipc_login_end {
    uint8_t accepted;
    uint8_t optional;         /* refused, and the delivery goes on without */
    struct str relay;         /* "host[address]:port" */
    struct str command, reply; /* the last command, without secrets, and the whole reply */
};
void ipc_put_login_end(struct buf *b, const struct ipc_login_end *m);
bool ipc_get_login_end(struct str body, struct ipc_login_end *ret);

/* IPC_SIGN */
struct ipc_sign {
    struct str key;           /* virtual server */
    struct str digest;        /* "SHA256" …; the octets to sign are not hashed yet */
    uint8_t padding;          /* RSA: 0 = PKCS#1 v1.5, 1 = PSS with salt = digest; EC: 0 */
    struct str data;
};
void ipc_put_sign(struct buf *b, const struct ipc_sign *m);
bool ipc_get_sign(struct str body, struct ipc_sign *ret);

/* IPC_JOB: where the message lies, which of its recipients, and where they go. */
enum { IPC_JOB_RCPT_MAX = 1000 };
struct ipc_job {
    uint64_t job, message_id;
    uint64_t segment, generation;
    uint32_t offset, length;
    uint8_t has_body_file;
    uint32_t attempt;         /* 1 = first */
    uint16_t block;           /* index of the domain block in the snapshot of `conf_generation` */
    uint64_t conf_generation;
    struct str next_hop;      /* the recipients' domain (lower case): what `via = mx` resolves */
    struct str recipients;    /* u16 little-endian each: index into the envelope */
};
void ipc_put_job(struct buf *b, const struct ipc_job *m);
bool ipc_get_job(struct str body, struct ipc_job *ret);

/* IPC_RESULT: one row a recipient, in the job's order. */
enum ipc_status { IPC_STATUS_SENT, IPC_STATUS_DEFERRED, IPC_STATUS_BOUNCED, IPC_STATUS_RETURNED /* not tried */,
                  IPC_STATUSES };
enum { IPC_RESULT_ROWS_MAX = 75 * 1024 }; /* octets; with all else it fits into a message */
enum { IPC_RESULT_PEER_DSN = 1 /* the next hop took over the duty to send DSNs */ };
struct ipc_result_row {
    uint8_t status;           /* enum ipc_status */
    uint8_t flags;
    struct str dsn;           /* "2.0.0" */
    struct str reply;         /* "250 2.0.0 Ok: queued as …": diagnostic, one line */
};
struct ipc_result {
    uint64_t job;
    uint8_t hop_failed;       /* the next hop itself was not reached: back off from it, not from the message */
    struct str relay;         /* "host[address]:port", "local" … */
    struct str remote_name;   /* MTA name for DSNs */
    struct str tls, auth;     /* "TLSv1.3 …, verified" or "none"; mechanism or "none" */
    uint16_t n_rows;
    struct str rows;          /* n_rows rows, read with ipc_get_result_row */
};
void ipc_put_result(struct buf *b, const struct ipc_result *m);
void ipc_put_result_row(struct buf *rows, const struct ipc_result_row *row);
bool ipc_get_result(struct str body, struct ipc_result *ret);
bool ipc_get_result_row(struct wire *rows, struct ipc_result_row *ret);
