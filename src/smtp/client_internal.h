/* client_internal: what client.c (the session), client_send.c (one message) and client_auth.c share.
 * Nobody else includes it. */
#pragma once
#include "smtp/client.h"

enum smtp_client_state {
    SMTP_CLIENT_GREETING,  /* waits for the greeting */
    SMTP_CLIENT_EHLO,      /* EHLO or LHLO is out */
    SMTP_CLIENT_HELO,
    SMTP_CLIENT_STARTTLS_SENT,
    SMTP_CLIENT_HANDSHAKE, /* the caller's turn */
    SMTP_CLIENT_AUTH_WAIT, /* the caller's turn */
    SMTP_CLIENT_AUTH_SENT,
    SMTP_CLIENT_IDLE,      /* ready for a message */
    SMTP_CLIENT_SENDING,   /* a message is under way */
    SMTP_CLIENT_QUIT_SENT,
    SMTP_CLIENT_OVER,
    SMTP_CLIENT_STATES,
};

enum smtp_client_rcpt_state {
    SMTP_CLIENT_RCPT_LIVE,     /* to be offered, or offered and not answered */
    SMTP_CLIENT_RCPT_ACCEPTED, /* waits for the message's outcome */
    SMTP_CLIENT_RCPT_SETTLED,  /* has its result */
    SMTP_CLIENT_RCPT_LOCAL,    /* settled here, never offered */
};

struct smtp_client_rcpt {
    enum smtp_client_rcpt_state state;
    enum smtp_client_stage stage;
    uint16_t code;
    char enhanced[SMTP_REPLY_ENHANCED_BYTES];
    uint32_t text_at, text_bytes; /* in struct smtp_client's texts */
};

/* Slots are the commands of a transaction in their order: 0 RSET, 1 MAIL, 2 … n + 1 RCPT, n + 2 DATA or
 * BDAT. Those that are not needed are stepped over. Replies come in the same order. */
enum { SMTP_CLIENT_SLOT_RSET, SMTP_CLIENT_SLOT_MAIL, SMTP_CLIENT_SLOT_RCPT };

struct smtp_client_sending {
    struct smtp_client_message message;
    size_t next;        /* slot to be written */
    size_t got;         /* slot whose reply comes next; == next: nothing is outstanding */
    size_t n_accepted;
    size_t final_rcpt;  /* LMTP: whose final reply comes next */
    uint64_t body_left; /* octets */
    bool with_rset, with_bdat, one_flight;
    bool stopped;       /* no further command */
    bool body_open;     /* the caller supplies */
    bool body_over;     /* its end has been written: the final replies are outstanding */
    bool empty_data;    /* 354 for nobody: the final reply means nothing */
    bool line_start;    /* of the body, for dot-stuffing */
    bool used_dsn;
};

struct smtp_client {
    struct smtp_client_options options;
    struct smtp_reply_parser parser;
    struct buf out;
    struct buf texts;             /* of results, of the failure */
    struct buf auth;              /* an initial response that is held back; a decoded challenge */
    enum smtp_client_state state;
    enum smtp_client_event_kind pending; /* READ: nothing to tell */
    int64_t deadline_ms;
    unsigned can;
    uint64_t size_limit;          /* 0: none known */
    bool tls_active, authenticated;
    bool dirty;                   /* a transaction was left open: RSET first */
    bool auth_held;               /* `auth` is the initial response to be sent when asked */
    bool auth_bare;               /* AUTH went without one: the first 334 may be plain words */
    bool auth_cancelled;
    bool orderly;                 /* over, and nothing is wrong */
    struct smtp_client_rcpt failure; /* why it is over */
    struct smtp_client_rcpt refused; /* the reply to a login that was optional */
    struct smtp_client_sending sending;
    struct smtp_client_rcpt *rcpt;
    size_t rcpt_cap;
    char helo[256], peer_name[256], mechanisms[512], exps_mechanisms[512], auth_command[80];
};

/* client.c */
void smtp_client_set_state(struct smtp_client *client, enum smtp_client_state state);
void smtp_client_trace(const struct smtp_client *client, char direction, struct str line);
/* Adds a command and its CRLF; traces it. */
void smtp_client_command(struct smtp_client *client, struct str line);
void smtp_client_await(struct smtp_client *client, enum smtp_client_stage stage, int64_t now_ms);
enum smtp_client_stage smtp_client_stage(const struct smtp_client *client);
/* The connection is of no more use, by what the peer said or by our own finding ("4.4.2", a sentence). */
void smtp_client_over_reply(struct smtp_client *client, enum smtp_client_stage stage, const struct smtp_reply *reply);
void smtp_client_over(struct smtp_client *client, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void smtp_client_out_of_step(struct smtp_client *client, const struct smtp_reply *reply);
void smtp_client_become_ready(struct smtp_client *client);
struct smtp_client_result smtp_client_result_of(const struct smtp_client *client, const struct smtp_client_rcpt *rcpt);
void smtp_client_record(struct smtp_client *client, struct smtp_client_rcpt *rcpt, enum smtp_client_stage stage,
                        uint16_t code, const char *enhanced, struct str text);

/* client_send.c */
void smtp_client_sending_reply(struct smtp_client *client, const struct smtp_reply *reply, bool more_input,
                               int64_t now_ms);
bool smtp_client_sending_expects(const struct smtp_client *client);
enum smtp_client_stage smtp_client_sending_stage(const struct smtp_client *client);
/* Everybody without a result gets the failure's. */
void smtp_client_sending_abandon(struct smtp_client *client);

/* client_auth.c */
void smtp_client_auth_reply(struct smtp_client *client, const struct smtp_reply *reply, struct str line,
                            int64_t now_ms);
