/* smtpd: the rooms of the receiving process, seen from each other.
 *
 *   smtpd.c     the role: files, peers, start, drain
 *   site.c      what one configuration snapshot means here: TLS contexts, recipient tables, listeners, logs
 *   accept.c    new connections
 *   session.c   one connection: octets between the socket (or TLS) and the SMTP machine
 *   policy.c    what a session is offered and must bring
 *   mail.c      what the machine asks about a message: sender, recipients, content, commit
 *   login.c     AUTH: questions to the auth role
 *   tell.c      Received header, log lines, protocol log, session log
 *   ask.c       questions to other roles, by number, so that they can die with their session */
#pragma once
#include "base/buf.h"
#include "daemon/layer.h"
#include "daemon/role.h"
#include "daemon/shared.h"
#include "io/tls.h"
#include "policy/recipient.h"
#include "policy/verdict.h"
#include "smtp/header.h"
#include "smtp/server.h"
#include "spool/spool.h"

struct session;
struct asks;
struct signer_link;

enum { SMTPD_ID_BYTES = 20, SMTPD_READ_BYTES = 64 * 1024 };

/* ---- site.c ---- */

struct site_server {
    const struct conf_server *conf;
    struct tls_server_context *tls;      /* NULL: no certificate */
    struct log_stream *protocol_log;     /* NULL: none */
    struct smtp_server_limits limits;
    struct smtp_server_limits limits_trusted; /* for logins with the right to any size */
};

struct site_listener {
    struct site *site;
    struct site_server *server;
    enum conf_listener_kind kind;
    struct tls_server_set *sni;          /* the virtual servers on this address */
    char *text;
    int fd;
    struct loop_fd *watch;
};

/* Counted: every session holds the one that it began with. */
struct site {
    unsigned refs;
    struct smtpd *smtpd;
    const struct conf *conf;
    struct site_server *server;          /* as conf->server */
    struct recipient_table **recipients; /* as conf->domain; NULL where it names no file */
    struct site_listener *listener;
    size_t n_listeners;
    struct log_stream *session_log;
    char **list;                         /* of mechanisms, each that was ever offered: sessions borrow them */
    size_t n_lists;
};

/* Files of a snapshot that has not been switched to yet. */
struct staged_file {
    struct staged_file *next;
    enum ipc_file_kind kind;
    uint8_t detail;
    char *name, *text;
    int fd;
};

struct smtpd {
    struct role_ctx *ctx;
    struct site *site;
    struct staged_file *staged;
    struct shared *shared;
    struct spool_writer *writer;
    struct spool_page *page;
    int bell_fd, spool_lock_fd;
    struct channel *queue, *auth;
    struct signer_link *signer;
    struct asks *asks;
    struct smtp_server_budget auth_budget;
    struct session *sessions;            /* doubly linked */
    struct session *next_visited;        /* by each_session() in smtpd.c; moves on when that one goes */
    uint32_t n_sessions, n_processes, n_waiting_for_spare;
    bool spare_came;
    struct loop_turn *turn;
    struct loop_timer *sweep;
    uint64_t id_base, id_count;
    bool draining, intake_paused;
    char *scratch;                       /* SMTPD_READ_BYTES, for one read at a time */
};

void smtpd_site_stage(struct smtpd *smtpd, const struct ipc_file *file, int fd);
/* Builds the site of smtpd->ctx->conf from what is staged; on failure the old one stays. */
int smtpd_site_build(struct smtpd *smtpd, struct site **ret_site, struct err *err);
void smtpd_site_listen(struct site *site);
/* Takes up what accept.c stopped watching because nothing more could be accepted. */
void smtpd_site_accept_again(struct site *site);
void smtpd_site_stop_listening(struct site *site);
struct site *smtpd_site_ref(struct site *site);
void smtpd_site_unref(struct site **site);
/* The same text, as long as the site lives; NULL when out of memory. There are few different ones. */
const char *smtpd_site_list(struct site *site, const char *text);

/* ---- accept.c ---- */
void accept_ready(void *listener, unsigned events);

/* ---- session.c ---- */

enum session_phase { SESSION_HANDSHAKE, SESSION_TALK, SESSION_CLOSING };

struct session {
    struct session *next, **prev;
    struct smtpd *smtpd;
    struct site *site;
    struct site_listener *listener;
    struct site_server *server;          /* changes when SNI names another one */
    struct smtp_server *machine;
    struct loop_fd *watch;
    struct tls_session *tls;
    struct layer *layer, *next_layer;    /* SASL security layer; the one that begins when the 235 is out. NULL: none */
    struct buf input;                    /* read and not yet taken: small, and mostly empty */
    struct access_rules rules;
    const char *mechanisms;              /* offered now; the site's */
    const char *exps_mechanisms;         /* the same under X-EXPS */
    struct mail *mail;                   /* from the DATA event to COMMIT's answer, and its recipients' questions */
    uint32_t ask_id;                     /* 0: nothing is being asked */
    const struct smtp_server_recipient *asked; /* whose user is being looked up */
    int64_t begun_mono_ms, begun_wall_ms;
    int64_t deadline_ms;                 /* of a handshake, or of the last reply's way out */
    int64_t spare_wanted_since_ms;       /* MAIL waits for a spare segment; 0: it does not */
    int64_t owed_since_ms;               /* auth owes an answer since then; 0: it owes none */
    int shared_slot, fd;
    uint16_t port;
    uint8_t phase;
    bool running, doomed, tls_wanted, no_more_input, starttls;
    bool layer_wanted;                   /* begins when the 235 is out */
    bool exps;                           /* the login's verb was X-EXPS */
    bool tls_read_dry;                   /* the last read found no whole record inside TLS */
    unsigned char address[16];
    char id[SMTPD_ID_BYTES];
    /* For the session log and the envelope. */
    char *user, *mechanism, *helo, *cause, *inner, *mailbox;
    char *senders;                       /* what the user may send as beside the mailbox, separated by spaces */
    uint32_t rights, n_mails, n_recipients, n_relayed;
    uint64_t octets_in;
    const char *auth_result;
};

void session_begin(struct smtpd *smtpd, struct site_listener *listener, int fd, const unsigned char address[16],
                   uint16_t port);
/* An answer was given to the machine outside of a feed: go on. */
void session_resume(struct session *s);
/* Works out again what is offered and demanded. */
void session_set_policy(struct session *s);
void session_shutdown(struct session *s);
void session_tls_ready(void *session);

/* ---- mail.c ---- each returns false when the machine waits for an answer that comes later */
bool mail_event(struct session *s, const struct smtp_server_event *event);
void mail_discard(struct session *s);
/* The wait for a spare segment is over. */
void mail_spare_came(struct session *s, bool in_time);
void mail_user_answer(struct session *s, unsigned answer);

/* ---- login.c ---- */
bool smtpd_login_event(struct session *s, const struct smtp_server_event *event);
void smtpd_login_cancel(struct session *s);
/* What auth was asked has waited too long: the peer gets a temporary refusal. */
void smtpd_login_overdue(struct session *s);
void smtpd_login_message(struct smtpd *smtpd, unsigned type, uint32_t id, struct str body);
void smtpd_login_auth_gone(struct smtpd *smtpd);

/* ---- tell.c ---- */
bool tell_received(const struct session *s, const struct smtp_server_transaction *t, struct str queue_id,
                   struct buf *out);
/* Message-ID and Date where a submitted message has none. */
bool tell_missing_headers(const struct session *s, const struct smtp_header *header, const char *queue_id,
                          struct buf *out);
/* "ESMTPSA" … */
const char *tell_protocol(const struct session *s, const struct smtp_server_transaction *t);
/* Who has proven to be who; empty: nobody. s->user may be only what somebody said. */
struct str tell_user(const struct session *s);
void tell_queued(const struct session *s, const char *queue_id);
void tell_refused(const struct session *s, const char *what, struct str address, unsigned code, const char *text);
void tell_trace(void *session, bool from_client, struct str line);
void tell_session(const struct session *s);

/* ---- ask.c ---- */
enum ask_kind { ASK_AUTH, ASK_USER };
int asks_new(struct asks **ret_asks);
/* The question's number, never 0; 0 when memory is out. A session has one question at a time. */
uint32_t ask_begin(struct asks *asks, enum ask_kind kind, struct session *s);
/* Whose question this number is, and forgets it unless `keep`. NULL: nobody's any more. */
struct session *ask_answered(struct asks *asks, enum ask_kind kind, uint32_t id, bool keep);
void ask_forget(struct asks *asks, struct session *s);
/* Calls `each` for every open question of a kind, after forgetting it. */
void asks_fail(struct asks *asks, enum ask_kind kind, void (*each)(struct session *s));
