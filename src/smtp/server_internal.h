/* server_internal: what the files of the server machine share. Nobody else includes it.
 *
 * server.c          life, feed and its loop, answers
 * server_state.c    the one setter of the state, pending events, the transaction's life
 * server_reply.c    replies, refusals, the protocol log
 * server_line.c     command lines and AUTH lines from input cut anywhere
 * server_command.c  the table of commands
 * server_time.c     deadlines
 * server_helo.c … server_misc.c   one file per command or family: check (may it?), then apply */
#pragma once
#include "smtp/body.h"
#include "smtp/line.h"
#include "smtp/reply.h"
#include "smtp/server.h"

enum server_state {
    SERVER_START,     /* before the greeting */
    SERVER_COMMAND,   /* reads command lines */
    SERVER_AUTH_LINE, /* reads the response to a challenge */
    SERVER_DATA,      /* reads a message up to its dot */
    SERVER_CHUNK,     /* reads the counted octets of BDAT */
    SERVER_ASKED,     /* an event waits for its answer (s->asked) */
    SERVER_HANDSHAKE, /* 220 to STARTTLS is out, until smtp_server_tls_started() */
    SERVER_CLOSED,
    SERVER_STATES,
};

enum server_transaction_phase {
    TRANSACTION_NONE,
    TRANSACTION_MAIL,   /* MAIL was accepted */
    TRANSACTION_CHUNKS, /* a BDAT chunk was accepted */
    TRANSACTION_FAILED, /* a BDAT failed: RSET or LAST ends it (RFC 3030 section 2) */
};

enum server_helo { HELO_NONE, HELO_HELO, HELO_EHLO };

enum server_pending { /* events that are owed, in this order */
                      PENDING_CANCEL = 1,
                      PENDING_ABORT = 2,
                      PENDING_HELO = 4,
};

enum { SERVER_MECHANISM_MAX_BYTES = 20 }; /* RFC 4422 section 3.1 */

enum server_line_mode {
    LINE_NORMAL,
    LINE_REFUSED,   /* answered already; thrown away up to its CRLF */
    LINE_LONG,      /* over-long; answered at its CRLF */
    LINE_LONG_AUTH, /* the same, of AUTH */
    LINE_BUDGET,    /* no memory for AUTH lines; answered at its CRLF */
};

struct smtp_server {
    struct str hostname, banner;
    const struct smtp_server_limits *limits;
    struct smtp_server_budget *budget;
    struct smtp_server_policy policy;
    void (*trace)(void *arg, bool from_client, struct str line);
    void *trace_arg;

    unsigned char state; /* enum server_state; only server_set_state() writes it */
    unsigned char asked; /* enum smtp_server_event_type */
    unsigned char pending;
    unsigned char phase; /* enum server_transaction_phase */
    unsigned char helo_kind;
    unsigned char line_mode;
    bool authenticated, auth_tried, draining;
    bool exps;             /* the exchange that runs came with X-EXPS */
    bool layer_active;     /* a SASL security layer */
    bool more_behind;      /* input stood behind the line that is being handled */
    bool abort_owed;       /* the caller knows of a transaction that is not over */
    bool transaction_over; /* free it at the next feed */
    bool chunk_last, body_refused;
    bool line_had_bare_lf;

    unsigned n_commands, n_errors, n_auth_failures;

    bool timing; /* since_ms holds */
    int64_t started_ms, since_ms, data_started_ms;
    uint64_t data_bytes; /* of the message or chunk, as they came */
    uint64_t chunk_left_bytes;

    char *helo;
    struct smtp_line scan;
    struct buf line;     /* a partial line, only while one is pending */
    size_t line_bytes;   /* of the line now, whatever was kept of it */
    struct buf auth_raw; /* decoded response, until it is answered */
    size_t budget_held_bytes;
    struct buf out;

    struct arena arena; /* dies with the transaction */
    struct smtp_server_transaction *transaction;
    struct smtp_server_recipient *last_recipient, *asked_recipient;
    const char *abort_why;
    struct smtp_body body;
    char mechanism[SERVER_MECHANISM_MAX_BYTES + 1];
};

/* server_state.c */
void server_set_state(struct smtp_server *s, enum server_state to);
/* Returns `ev` to the caller as a question. */
void server_ask(struct smtp_server *s, struct smtp_server_event *ev, enum smtp_server_event_type type);
bool server_next_pending(struct smtp_server *s, struct smtp_server_event *ev);
void server_abort_transaction(struct smtp_server *s, const char *why);
void server_end_transaction(struct smtp_server *s);
void server_free_transaction(struct smtp_server *s);
/* CLOSE, after ABORT and AUTH_CANCEL where they are owed. */
void server_close(struct smtp_server *s, const char *why);
/* What the peer said before TLS or a SASL layer is forgotten. */
void server_forget_peer(struct smtp_server *s);

/* server_reply.c */
void server_reply(struct smtp_server *s, unsigned code, const char *enhanced, struct str text);
void server_reply_more(struct smtp_server *s, unsigned code, const char *enhanced, struct str text);
/* A refusal counts as an error of the peer. */
void server_refuse(struct smtp_server *s, unsigned code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same and CLOSE. */
void server_refuse_close(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
void server_challenge(struct smtp_server *s, struct str raw);
void server_trace_client(struct smtp_server *s, struct str line);
/* "shown [masked N]" */
void server_trace_masked(struct smtp_server *s, struct str shown, size_t masked_bytes);

/* server_line.c: true when it made an event. */
bool server_read_lines(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev);
/* Memory for a decoded AUTH response; false when the budget or memory is out. */
bool server_auth_reserve(struct smtp_server *s, size_t bytes);
void server_auth_wipe(struct smtp_server *s);

/* server_command.c */
void server_command(struct smtp_server *s, struct str line, struct smtp_server_event *ev);
void server_help(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);

/* One file per command. `arg` is what follows the verb and its space, trailing spaces removed. */
void server_helo(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_ehlo(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_starttls(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_starttls_answered(struct smtp_server *s);
void server_auth(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_exps(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_auth_line(struct smtp_server *s, struct str line, struct smtp_server_event *ev);
void server_auth_layer(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
/* A response line that cannot be read ends the exchange. */
void server_auth_broken(struct smtp_server *s, unsigned code, const char *enhanced, const char *text);
void server_mail(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_rcpt(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_rcpt_accepted(struct smtp_server *s);
void server_data(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_data_accepted(struct smtp_server *s);
bool server_read_data(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev);
void server_body_begin(struct smtp_server *s, bool dots);
void server_body_refuse(struct smtp_server *s);
void server_body_note_fault(struct smtp_server *s);
bool server_body_event(struct smtp_server *s, struct str slice, struct smtp_server_event *ev);
void server_bdat(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
/* A BDAT that was refused by a general rule: its octets are still read. */
void server_bdat_swallow(struct smtp_server *s, struct str arg);
void server_bdat_accepted(struct smtp_server *s);
void server_bdat_rejected(struct smtp_server *s);
bool server_read_chunk(struct smtp_server *s, struct str in, size_t *used, struct smtp_server_event *ev);
void server_rset(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_noop(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_quit(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_vrfy(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_not_here(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_xexch50(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);
void server_not_smtp(struct smtp_server *s, struct str arg, struct smtp_server_event *ev);

/* True when the word stands in a list separated by spaces; letters of either case. */
bool server_word_in(struct str list, struct str word);
/* A copy in the transaction's arena; false when it is full. */
bool server_copy_address(struct smtp_server *s, const struct smtp_address *from, struct smtp_address *to);
