/* client: the sending side of an SMTP (RFC 5321) or LMTP (RFC 2033) connection.
 *
 * Pure: octets of the server and the time go in, octets for the server and events come out. It opens no
 * socket, makes no handshake, reads no clock. Times are monotonic milliseconds of the caller's clock.
 *
 * The caller's loop: read from the socket, call smtp_client_step() until it says READ, write what
 * smtp_client_output() holds, wait for input or for smtp_client_deadline_ms(). Every event but READ asks
 * for something, see the enum. After DONE the machine says READY again: the connection can be used for
 * the next message. Every transaction that was begun gets exactly one DONE, also when the connection
 * breaks; FAILED or CLOSED follows then.
 *
 * Order at the start: greeting, EHLO or LHLO (HELO when EHLO is refused), STARTTLS as the level wants and
 * EHLO again, AUTH when wanted. A SASL security layer begins where READY says that the login is done: put it
 * between, then smtp_client_layer_started(), which says EHLO again (RFC 4954 section 4). A demand of ours that
 * the peer cannot meet is FAILED with code 0: a temporary, local reason.
 *
 * What a peer cannot take is decided here, without asking it, for all recipients: a message over its SIZE
 * limit (5.3.4), 8-bit content without 8BITMIME (5.6.3; RFC 6152 section 3 leaves conversion or refusal,
 * we never convert), SMTPUTF8 without the extension (5.6.7; RFC 6531). */
#pragma once
#include "base/buf.h"
#include "smtp/reply_parser.h"

enum smtp_client_tls {
    SMTP_CLIENT_TLS_NONE,
    SMTP_CLIENT_TLS_OPPORTUNISTIC, /* if offered; refused with a reply: goes on without */
    SMTP_CLIENT_TLS_REQUIRE,       /* whose certificate it is, is the caller's to check: see smtp_client_tls_started */
};

/* How a body travels when the peer offers CHUNKING (RFC 3030); LMTP always uses DATA. DATA and AFTER_RCPT
 * take the same two round trips. ONE_FLIGHT takes one, but sends the body before anybody has agreed to
 * it: only to a peer that is known to skip the chunk when it refuses the recipients. */
enum smtp_client_bdat { SMTP_CLIENT_BDAT_NEVER, SMTP_CLIENT_BDAT_AFTER_RCPT, SMTP_CLIENT_BDAT_ONE_FLIGHT };
/* Larger bodies wait for the recipients' replies even with ONE_FLIGHT. */
enum { SMTP_CLIENT_ONE_FLIGHT_MAX_BYTES = 256 * 1024 };

/* How far it had come: which command a reply answers. */
enum smtp_client_stage {
    SMTP_CLIENT_STAGE_GREETING,
    SMTP_CLIENT_STAGE_EHLO,
    SMTP_CLIENT_STAGE_STARTTLS,
    SMTP_CLIENT_STAGE_AUTH,
    SMTP_CLIENT_STAGE_READY, /* between two transactions */
    SMTP_CLIENT_STAGE_RSET,
    SMTP_CLIENT_STAGE_MAIL,
    SMTP_CLIENT_STAGE_RCPT,
    SMTP_CLIENT_STAGE_DATA,  /* DATA or BDAT itself */
    SMTP_CLIENT_STAGE_BODY,  /* while the body was sent */
    SMTP_CLIENT_STAGE_END,   /* after the final dot or the last chunk */
    SMTP_CLIENT_STAGE_QUIT,
    SMTP_CLIENT_STAGES,
};
/* "RCPT TO", "end of DATA": as "(in reply to … command)" wants it. */
const char *smtp_client_stage_name(enum smtp_client_stage stage);

/* Zero means RFC 5321 section 4.5.3.2's value. */
struct smtp_client_timeouts {
    int64_t greeting_ms; /* 5 minutes */
    int64_t command_ms;  /* EHLO, STARTTLS, AUTH, RSET, MAIL, RCPT: 5 minutes */
    int64_t data_ms;     /* the reply to DATA: 2 minutes */
    int64_t block_ms;    /* between two calls of smtp_client_body(): 3 minutes */
    int64_t end_ms;      /* after the final dot: 10 minutes */
    int64_t quit_ms;     /* ours: 5 seconds */
};

struct smtp_client_options {
    struct str helo;             /* our name; copied */
    bool lmtp;
    bool tls_active;             /* TLS from the first octet: the caller has made the handshake already */
    bool want_auth;
    bool auth_optional;          /* none offered, or refused (but for a 421): READY without, smtp_client_auth_result() */
    bool no_pipelining;          /* do not use it although offered */
    enum smtp_client_tls tls;
    enum smtp_client_bdat bdat;
    struct smtp_client_timeouts timeouts;
    /* For a protocol log. Called with every command and every reply line, without its end; '>' is to the
     * server. AUTH's payload is masked, a body is one line "[body, N octets]". May be NULL. */
    void (*trace)(void *arg, char direction, struct str line);
    void *trace_arg;
};

enum smtp_client_event_kind {
    SMTP_CLIENT_READ,           /* write the output, then wait for octets or the deadline */
    SMTP_CLIENT_STARTTLS,       /* write the output, make the handshake, then smtp_client_tls_started() */
    SMTP_CLIENT_AUTH_NEEDED,    /* mechanisms: smtp_client_auth_begin(), or give the connection up */
    SMTP_CLIENT_AUTH_CHALLENGE, /* challenge: smtp_client_auth_response() or _auth_cancel() */
    SMTP_CLIENT_READY,          /* smtp_client_send() or smtp_client_quit() */
    SMTP_CLIENT_BODY_WANTED,    /* smtp_client_body() until all is taken, then smtp_client_body_end() */
    SMTP_CLIENT_DONE,           /* smtp_client_result() for each recipient */
    SMTP_CLIENT_FAILED,         /* `result` says why; close the connection */
    SMTP_CLIENT_CLOSED,         /* ended in order (QUIT, or while nothing was under way); close */
};

/* One outcome. `code` 0 is a decision of this side; its kind is then the first digit of `enhanced`. */
struct smtp_client_result {
    enum smtp_client_stage stage;
    uint16_t code;
    char enhanced[SMTP_REPLY_ENHANCED_BYTES]; /* never empty: "4.0.0" and the like when the peer gave none */
    struct str text;                          /* one printable line: the whole reply, or our own sentence */
};
enum smtp_client_outcome { SMTP_CLIENT_SENT, SMTP_CLIENT_TEMPORARY, SMTP_CLIENT_PERMANENT };
enum smtp_client_outcome smtp_client_outcome(const struct smtp_client_result *result);

struct smtp_client_event {
    enum smtp_client_event_kind kind;
    struct str mechanisms;            /* AUTH_NEEDED: as offered, space-separated; one of both lists may be empty */
    struct str exps_mechanisms;       /* AUTH_NEEDED: the same under X-EXPS, Exchange's verb */
    struct str challenge;             /* AUTH_CHALLENGE: decoded; dies with the next call */
    struct smtp_client_result result; /* FAILED */
};

/* What the peer offers. A session that fell back to HELO offers nothing. */
enum {
    SMTP_CLIENT_CAN_PIPELINING = 1,
    SMTP_CLIENT_CAN_SIZE = 2,
    SMTP_CLIENT_CAN_8BITMIME = 4,
    SMTP_CLIENT_CAN_SMTPUTF8 = 8,
    SMTP_CLIENT_CAN_CHUNKING = 16,
    SMTP_CLIENT_CAN_DSN = 32,
    SMTP_CLIENT_CAN_STARTTLS = 64,
    SMTP_CLIENT_CAN_AUTH = 128,
    SMTP_CLIENT_CAN_ENHANCED = 256,
    SMTP_CLIENT_CAN_EXPS = 512,
};

struct smtp_client;

/* NULL when out of memory or when the name is not fit for a command line. */
struct smtp_client *smtp_client_new(const struct smtp_client_options *options, int64_t now_ms);
void smtp_client_free(struct smtp_client **client);

/* Takes octets from the front of *in (what it leaves there is to be offered again) and says what comes
 * next. To be called again after every event but READ, FAILED and CLOSED; after an event that asks for
 * something and before it was answered it only looks for a 421 or a peer out of step. */
enum smtp_client_event_kind smtp_client_step(struct smtp_client *client, struct str *in, int64_t now_ms,
                                             struct smtp_client_event *ret_event);
/* Octets for the server; the caller consumes what it has written. */
struct buf *smtp_client_output(struct smtp_client *client);
/* When smtp_client_timeout() is due; -1: nothing is waited for. */
int64_t smtp_client_deadline_ms(const struct smtp_client *client);
/* The deadline has passed, the server has closed, or the socket failed (`why`: one sentence, may be NULL).
 * The next step gives DONE when a transaction was under way, then FAILED or CLOSED. */
void smtp_client_timeout(struct smtp_client *client);
void smtp_client_closed(struct smtp_client *client, const char *why);

/* Answers STARTTLS: the handshake is made and found good. A handshake that failed ends the connection; a
 * new one, without TLS, is the caller's decision. */
void smtp_client_tls_started(struct smtp_client *client, int64_t now_ms);

/* Answers AUTH_NEEDED; `exps`: the verb is X-EXPS. An initial response too long for a command line of 512 octets is
 * kept back until the server asks (RFC 4954 section 4); what stands in that first 334 then doesn't matter: Exchange
 * writes words there. */
void smtp_client_auth_begin(struct smtp_client *client, struct str mechanism, bool exps, bool has_initial,
                            struct str initial, int64_t now_ms);
/* Answers AUTH_NEEDED where the login is optional: READY, not authenticated. */
void smtp_client_auth_skip(struct smtp_client *client);
void smtp_client_auth_response(struct smtp_client *client, struct str response, int64_t now_ms);
/* Sends "*"; the session then fails with stage AUTH, or is READY without where the login is optional. */
void smtp_client_auth_cancel(struct smtp_client *client, int64_t now_ms);
/* From the first READY, authenticated: a SASL security layer is in its place. Everything from here on is given to the
 * layer before it is written, and comes out of it before it is read. */
void smtp_client_layer_started(struct smtp_client *client, int64_t now_ms);
/* The last AUTH or X-EXPS command, without what it carried; empty before. */
struct str smtp_client_auth_command(const struct smtp_client *client);
/* How the server refused it. code 0: it did not. The text lives until the next message is begun. */
struct smtp_client_result smtp_client_auth_result(const struct smtp_client *client);

/* A message. All of it, recipients too, must stay valid until DONE. Addresses without <>; empty sender is
 * the null reverse-path. Strings are sent as they are: an address or parameter that does not fit into a
 * command line is refused here (5.1.3, 5.1.7), never sent. */
struct smtp_client_recipient {
    struct str address;
    struct str notify; /* DSN: "SUCCESS,FAILURE" …; empty: not sent */
    struct str orcpt;  /* DSN: "rfc822;xtext"; empty: not sent */
};
struct smtp_client_message {
    struct str sender;
    const struct smtp_client_recipient *recipient;
    size_t n_recipients;
    uint64_t body_bytes;  /* exactly what smtp_client_body() will be given: CRLF lines, not dot-stuffed */
    bool eightbit;        /* content with octets over 127 */
    bool smtputf8;
    struct str ret;       /* DSN: "FULL", "HDRS" or empty */
    struct str envid;     /* DSN: xtext or empty */
};
/* Answers READY. False when out of memory: the machine stays READY. */
bool smtp_client_send(struct smtp_client *client, const struct smtp_client_message *message, int64_t now_ms);

/* Answers BODY_WANTED, as often as needed. Turns the front of `chunk` into at most n_slices slices to be
 * written in this order, after what the output holds; they point into `chunk` or to constant memory.
 * Returns their number, and in *ret_taken the octets of `chunk` that they stand for. Dot-stuffs for DATA
 * (RFC 5321 section 4.5.2); with BDAT there is one slice. More than body_bytes is never taken. */
size_t smtp_client_body(struct smtp_client *client, struct str chunk, struct str *slices, size_t n_slices,
                        size_t *ret_taken, int64_t now_ms);
/* All of the body has been taken; adds what ends it to the output. A body shorter than promised (say, a
 * read error) ends the connection instead, so that no half message is taken for a whole one. */
void smtp_client_body_end(struct smtp_client *client, int64_t now_ms);
/* False once the peer has answered before the body's end: stop, there is nothing more to send. */
bool smtp_client_body_open(const struct smtp_client *client);

/* From DONE until the next smtp_client_send(). True: the next hop took over the sender's wishes for DSNs. */
struct smtp_client_result smtp_client_result(const struct smtp_client *client, size_t recipient);
bool smtp_client_used_dsn(const struct smtp_client *client);

/* From READY: sends QUIT; CLOSED follows. */
void smtp_client_quit(struct smtp_client *client, int64_t now_ms);

unsigned smtp_client_capabilities(const struct smtp_client *client); /* SMTP_CLIENT_CAN_… */
bool smtp_client_authenticated(const struct smtp_client *client);
/* The name that the peer gave in its answer to EHLO, else in its greeting; empty before. */
struct str smtp_client_peer_name(const struct smtp_client *client);
