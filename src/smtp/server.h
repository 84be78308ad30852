/* server: the receiving side of SMTP as a pure machine: octets and the time in, events and replies out.
 *
 * RFC 5321 with STARTTLS (3207), AUTH (4954), PIPELINING (2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531),
 * CHUNKING (3030, without BINARYMIME), ENHANCEDSTATUSCODES (2034) and DSN (3461). It opens no socket, reads no clock,
 * writes no log.
 *
 * The happy path of one message:
 *     smtp_server_new, smtp_server_greet, then again and again smtp_server_feed(s, octets, now, &used, &event):
 *     READ  … HELO … MAIL (accept) … RCPT (accept) … DATA (accept) … BODY, BODY, … COMMIT (committed) … READ … CLOSE
 * The caller drops `used` octets from its input and acts on the one event; while input is left, or after it answered,
 * it feeds again (empty input is fine). Replies gather in smtp_server_output(), so a pipelined group goes out in one
 * write; the caller writes it out on READ, FLUSH, CLOSE, and before a handshake, and empties it with buf_consume(), or
 * with buf_done(), which also gives its memory back (for a session that goes idle).
 *
 * Events marked "asks" wait for an answer: until it is given, feed consumes nothing and returns WAIT. Giving an answer
 * that was not asked for is a bug of the caller (assert).
 *
 * What can go wrong: a peer's mistake becomes a reply and never stops the machine, except where it says so; when
 * memory is out the peer gets 421 4.3.0 if that still fits, then CLOSE. smtp_server_timeout() and smtp_server_lost()
 * may be called in any state; feed then returns ABORT (if a transaction was open) and CLOSE.
 *
 * Only CRLF ends a line (smtp/line.h). In a command line a bare CR, a bare LF or a NUL gets 500 5.5.2 at once and the
 * line up to its real end is thrown away; a second bare LF in the same line gets 421 and CLOSE. In DATA and BDAT the
 * message is read to its real end and refused with 554 5.6.0; NUL and over-long lines alike.
 *
 * Input before the greeting is left unread (feed returns WAIT and uses nothing); a caller that wants to turn early
 * talkers away looks whether there is any and calls smtp_server_greet_refuse().
 *
 * Octets behind the STARTTLS line are refused with 501 5.5.1 and CLOSE, whether they came with it or before the 220:
 * nothing that was sent in clear can be read under TLS.
 *
 * A login that ends with a SASL security layer (RFC 4954 section 4) is answered with smtp_server_auth_done_layer(): then
 * nothing is read until smtp_server_layer_started(), and octets that stood behind the client's last clear line are
 * refused as behind STARTTLS.
 *
 * Memory: about half a KiB a session between commands. A partial line is buffered while it is pending, a transaction
 * lives in its own arena from MAIL to its end. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "smtp/address.h"

/* Zero means "no limit" for counts, sizes of messages and times. The reply that a breach gets stands beside each. */
struct smtp_server_limits {
    size_t line_max_bytes;         /* command line without CRLF, at least 512: 500 5.5.2 */
    size_t auth_line_max_bytes;    /* AUTH command and its response lines: 500 5.5.6 */
    size_t line_swallow_max_bytes; /* of one line, however bad; beyond it 421 4.7.0 and CLOSE */
    size_t text_line_max_bytes;    /* line of a message without CRLF; RFC 5321 says 998: 554 5.6.0 */
    uint64_t max_message_bytes;    /* content without dots: 552 5.3.4 at MAIL, at BDAT, or at the end of data */
    uint64_t max_swallow_bytes; /* a refused message is read to its end only if no longer: else the refusal at once, and
                                   CLOSE */
    unsigned max_recipients;    /* accepted in one transaction: 452 4.5.3 */
    unsigned
        max_commands;    /* since the last accepted message, not counting accepted RCPT and non-empty BDAT: 421 4.7.0 */
    unsigned max_errors; /* since the last accepted message: the next command gets 421 4.7.0 */
    unsigned max_auth_failures;    /* in the session: the next command gets 421 4.7.0 */
    int64_t command_timeout_ms;    /* for one whole command line: 421 4.4.2 */
    int64_t data_timeout_ms;       /* between two pieces of a message: 421 4.4.2 */
    int64_t data_grace_ms;         /* a message may take this long ... */
    uint64_t data_min_bytes_per_s; /* ... and a second more for each so many octets that came: 421 4.4.2 */
    int64_t session_timeout_ms;    /* from the greeting: 421 4.4.2 */
};
extern const struct smtp_server_limits smtp_server_limits_default;

/* Memory for AUTH lines, shared by the sessions of one process: beyond max_bytes an AUTH gets 454 4.3.0. */
struct smtp_server_budget {
    size_t used_bytes, max_bytes;
};

/* What this peer is offered and must bring. The caller works it out again after TLS started and after AUTH. Strings
 * are borrowed until the next smtp_server_set_policy() or the end. Mechanism lists are separated by single spaces. */
struct smtp_server_policy {
    bool deny; /* 521 at the greeting and to everything but QUIT */
    bool starttls_available;
    bool tls_active;
    bool require_tls;      /* 530 5.7.0 Must issue a STARTTLS command first */
    bool require_auth;     /* 530 5.7.0 Authentication required */
    bool line_ends_repair; /* a bare LF in a message becomes CRLF; it never ends the message. A bare CR stays a fault */
    bool smtputf8_off;     /* not offered, refused with 555 */
    struct str mechanisms; /* offered and accepted now */
    struct str mechanisms_tls; /* would be offered under TLS: asked for without it, 538 5.7.11 */
    struct str
        mechanisms_known; /* all that this program knows: asked for but not offered, 534 5.7.9; others 504 5.5.4 */
    struct str exps_mechanisms; /* the same as `mechanisms` for X-EXPS, Exchange's verb; empty: 502 to X-EXPS */
    bool login_line; /* where LOGIN is offered, also a line "AUTH=LOGIN" (and "X-EXPS=LOGIN"), for clients that read the
                        form from before the standard */
};

struct smtp_server_options {
    struct str hostname;                     /* of the virtual server; borrowed */
    struct str banner;                       /* text behind "220 hostname ESMTP "; may be empty; borrowed */
    const struct smtp_server_limits *limits; /* borrowed; NULL: the defaults */
    struct smtp_server_budget *auth_budget;  /* borrowed; NULL: only auth_line_max_bytes bounds */
    struct smtp_server_policy policy;
    /* The protocol log: each command line and each reply line without CRLF. AUTH payloads are masked, bodies never
     * come. */
    void (*trace)(void *arg, bool from_client, struct str line);
    void *trace_arg;
};

enum smtp_server_notify { /* RFC 3461 section 4.1; 0: not given */
                          SMTP_NOTIFY_NEVER = 1,
                          SMTP_NOTIFY_SUCCESS = 2,
                          SMTP_NOTIFY_FAILURE = 4,
                          SMTP_NOTIFY_DELAY = 8,
};
enum smtp_server_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

struct smtp_server_recipient {
    struct smtp_server_recipient *next; /* in the order they came */
    struct smtp_address address;
    unsigned notify;  /* SMTP_NOTIFY_ bits */
    struct str orcpt; /* "type;xtext" as it came, checked, still encoded; empty: not given */
    void *data;       /* the caller's own, untouched by the machine */
};

/* Lives from the MAIL event to the event after COMMIT's answer, or until the feed after ABORT. */
struct smtp_server_transaction {
    struct smtp_address sender;
    struct smtp_server_recipient *recipients; /* accepted ones */
    unsigned n_recipients;
    uint64_t size_declared_bytes; /* SIZE=; 0: not given */
    bool body_8bit;               /* BODY=8BITMIME */
    bool smtputf8;
    enum smtp_server_ret ret;
    struct str envid;       /* xtext as it came, checked; empty: not given */
    struct str auth;        /* AUTH=: xtext as it came, or "<>"; empty: not given */
    bool chunking;          /* came with BDAT */
    bool content_8bit;      /* octets above 127 were seen in the content */
    uint64_t content_bytes; /* that BODY events carried */
};

enum smtp_server_event_type {
    SMTP_SERVER_READ,          /* write out the output, then bring more input */
    SMTP_SERVER_FLUSH,         /* much output is waiting: write it out, then feed the rest */
    SMTP_SERVER_WAIT,          /* an answer is still owed, nothing was used */
    SMTP_SERVER_HELO,          /* told: EHLO or HELO was accepted; data = the name */
    SMTP_SERVER_STARTTLS,      /* asks: accept (then, unless smtp_server_closed(), write out, handshake,
                                  smtp_server_tls_started) or reject (454 4.7.0) */
    SMTP_SERVER_AUTH,          /* asks: mechanism, has_initial, data; auth_challenge or auth_done */
    SMTP_SERVER_AUTH_RESPONSE, /* asks: data; auth_challenge or auth_done */
    SMTP_SERVER_AUTH_CANCEL,   /* told: the exchange ended (cancelled, malformed); the peer has its 5xx already */
    SMTP_SERVER_MAIL,          /* asks: transaction; accept or reject */
    SMTP_SERVER_RCPT,          /* asks: recipient; accept or reject */
    SMTP_SERVER_DATA,          /* asks: may the content come? accept or reject. Also before the first BDAT chunk */
    SMTP_SERVER_BODY,          /* told: data = content, dots removed, only CRLF line ends; valid until the next feed */
    SMTP_SERVER_COMMIT,        /* asks: content is complete; committed (it is durable) or reject */
    SMTP_SERVER_ABORT,         /* told: the transaction is over without COMMIT; data = why, static text */
    SMTP_SERVER_CLOSE,         /* write out the output, close. Nothing else comes */
};

struct smtp_server_event {
    enum smtp_server_event_type type;
    struct str data;
    struct str mechanism;                        /* upper case */
    bool exps;                                   /* AUTH, AUTH_RESPONSE: the verb was X-EXPS */
    bool has_initial;                            /* AUTH carried an initial response; an empty one ("=") too */
    struct smtp_server_transaction *transaction; /* MAIL to COMMIT, ABORT */
    struct smtp_server_recipient *recipient;     /* RCPT; joins the transaction when accepted */
};

struct smtp_server;

/* 0 or -ENOMEM. */
int smtp_server_new(const struct smtp_server_options *options, struct smtp_server **ret);
/* NULL is fine. What AUTH left in buffers is wiped. */
void smtp_server_free(struct smtp_server *s);

/* 220, or 521 when the policy denies. Starts the clock of the session. */
void smtp_server_greet(struct smtp_server *s, int64_t now_ms);
/* The greeting is this refusal (421, 554), and CLOSE follows. `text` as in smtp_server_reject(). */
void smtp_server_greet_refuse(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
/* From the next command on; borrowed. */
void smtp_server_set_limits(struct smtp_server *s, const struct smtp_server_limits *limits);
void smtp_server_set_policy(struct smtp_server *s, const struct smtp_server_policy *policy);
/* The virtual server is another one (SNI): before the greeting, or before smtp_server_tls_started(). Borrowed. */
void smtp_server_set_hostname(struct smtp_server *s, struct str hostname);

/* now_ms: monotonic. See the top of this file. */
void smtp_server_feed(struct smtp_server *s, struct str in, int64_t now_ms, size_t *ret_used,
                      struct smtp_server_event *ret_event);
struct buf *smtp_server_output(struct smtp_server *s);

void smtp_server_accept(struct smtp_server *s);
/* code 400 to 599; enhanced "5.7.1" or NULL; text one line, control characters in it are replaced. 421 closes. */
void smtp_server_reject(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
/* 250 2.0.0 Ok: queued as QID. Only after the message is durable. */
void smtp_server_committed(struct smtp_server *s, struct str queue_id);
/* 334 with `raw` in base64; empty: "334 ". */
void smtp_server_auth_challenge(struct smtp_server *s, struct str raw);
/* Accepted: 235 2.7.0, code, enhanced and text may be 0 and NULL for the usual words. Refused: 4xx or 5xx; 0 and NULL
 * give 535 5.7.8. */
void smtp_server_auth_done(struct smtp_server *s, bool accepted, unsigned code, const char *enhanced, const char *text);
/* Accepted, and a SASL security layer begins behind the 235: then, unless smtp_server_closed() (octets came in clear
 * behind the login), write out, put the layer between, and smtp_server_layer_started(). What comes from the client after
 * the 235 was written belongs to the layer. code, enhanced and text as in smtp_server_auth_done(). */
void smtp_server_auth_done_layer(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
/* The handshake after STARTTLS is done: all that was learned from the peer is forgotten (RFC 3207 section 4.2).
 * Call smtp_server_set_policy() before the next feed. (TLS from the first octet needs only policy.tls_active.) */
void smtp_server_tls_started(struct smtp_server *s);
/* The SASL security layer is in its place: forget the EHLO, stay authenticated (RFC 4954 section 4). STARTTLS is neither
 * offered nor accepted any more. */
void smtp_server_layer_started(struct smtp_server *s);

/* When smtp_server_timeout() is due; INT64_MAX: never (an answer is owed, or closed). */
int64_t smtp_server_deadline_ms(const struct smtp_server *s);
/* 421 4.4.2, ABORT, CLOSE. Harmless before the deadline: then it does nothing. */
void smtp_server_timeout(struct smtp_server *s, int64_t now_ms);
/* The connection is gone: ABORT if a transaction is open, CLOSE. No output. An answer that is owed is no longer
 * expected. */
void smtp_server_lost(struct smtp_server *s);
/* 421 4.3.2 and CLOSE, at once between transactions, otherwise when the open one is over. */
void smtp_server_shutdown(struct smtp_server *s);

/* Borrowed, until the next event. */
struct str smtp_server_helo(const struct smtp_server *s);
bool smtp_server_is_esmtp(const struct smtp_server *s); /* EHLO, not HELO */
bool smtp_server_authenticated(const struct smtp_server *s);
bool smtp_server_closed(const struct smtp_server *s);
/* NULL when there is none. */
struct smtp_server_transaction *smtp_server_transaction(struct smtp_server *s);
