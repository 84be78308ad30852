/* delivery: the rooms of the delivering process, seen from each other.
 *
 *   delivery.c  the role: files, peers, snapshots, sandbox, drain
 *   job.c       jobs and segments of the queue: begin, open the message, finish with one result and the log lines
 *   hop.c       one next hop: its waiting jobs and its connections, at most `concurrency` of them
 *   smtp.c      one connection: from the addresses to an SMTP or LMTP session, and messages through it
 *   conn.c      octets between that connection's socket (or TLS) and its machine
 *   login.c     AUTH: questions to the auth role
 *   local.c     jobs that need no connection: maildir, discard
 *   protocol.c  the protocol log of the server that a route names
 *   resolve.c   names to addresses
 *   maildir.c   one file in a Maildir
 *
 * A job goes: queue → job_begin() → hop (or local) → job_finish() → queue. Everything runs on one loop, but the
 * file work of Maildirs. Objects are freed only in on_turn of delivery.c, so that a callback may end anything. */
#pragma once
#include <sys/queue.h>

#include "base/hash.h"
#include "daemon/delivery/resolve.h"
#include "daemon/layer.h"
#include "daemon/role.h"
#include "io/tls.h"
#include "io/worker.h"
#include "smtp/client.h"
#include "spool/spool.h"

enum {
    DELIVERY_CHUNK_BYTES = 64 * 1024,
    DELIVERY_IDLE_MS = 3000,           /* an unused connection is kept so long */
    DELIVERY_CONNECTION_AGE_MS = 300000,
    DELIVERY_RELAY_BYTES = 512,
};

struct delivery;
struct conn;

/* What one configuration snapshot means here. Counted: jobs and hops hold the one they began with. */
struct site {
    unsigned refs;
    struct delivery *delivery;
    const struct conf *conf;
    struct dns *dns;
    struct tls_client_context *tls;
    SLIST_ENTRY(site) link;            /* among those that are to be freed */
};

/* A segment that the queue has lent. */
struct segment {
    uint64_t number, generation;
    int fd;
    unsigned refs;                     /* jobs that read it, and one for its place in the table */
    uint64_t epoch;
    struct delivery *delivery;
    UT_hash_handle hh;
};

struct job {
    TAILQ_ENTRY(job) link;
    UT_hash_handle hh;
    struct hop *hop;                   /* while it waits there */
    struct delivery *delivery;
    struct site *site;
    const struct conf_domain *block;
    struct segment *segment;
    struct spool_reader *reader;       /* NULL until job_open() */
    struct spool_place place;
    uint64_t id, message_id, epoch;
    uint64_t conf_generation;
    uint32_t attempt;
    int body_fd;
    int64_t taken_ms, setup_ms, ready_ms; /* came here; its connection began to be made; was ready */
    bool waits;                        /* may still be given back */
    bool again;                        /* was on a connection that turned out to be dead */
    uint16_t block_index, n_recipients;
    uint16_t *recipient;               /* into the envelope */
    char *next_hop;
    char qid[SPOOL_ID_TEXT_BYTES];
};
TAILQ_HEAD(job_list, job);

/* What became of one recipient. */
struct outcome {
    enum ipc_status status;
    uint8_t flags;
    char dsn[SMTP_REPLY_ENHANCED_BYTES];
    struct str reply;                  /* for the result: the peer's own words, or ours */
    struct str text;                   /* for the log; empty: the same */
};
/* Where it went. NULL = "none". */
struct way {
    const char *program;               /* in the log: "smtp", "lmtp", "local", "discard" */
    const char *relay, *remote_name, *tls, *auth;
    const char *tls_short;             /* in the log: "TLSv1.3/verified"; NULL: there was no session */
    bool hop_failed;
};

/* ---- delivery.c ---- */

struct delivery {
    struct role_ctx *ctx;
    struct site *site, *site_before;   /* the queue may be a snapshot behind */
    SLIST_HEAD(, site) dead_sites;
    int ca_fd;                         /* of the snapshot that is being handed over; -1 */
    int spool_lock_fd;
    struct channel *queue, *auth;
    uint64_t epoch;                    /* counts queues */
    struct segment *segments;
    struct job *jobs;                  /* by id: those that may be given back */
    struct job_list for_later;         /* for a snapshot that has not come yet */
    unsigned n_jobs;
    struct hop *hops;
    struct conn *logins;               /* by question */
    uint32_t last_question;
    struct worker_pool *workers;
    struct loop_turn *turn;
    LIST_HEAD(, conn) dead_conns;
    LIST_HEAD(, hop) dead_hops;
    bool draining;
    SLIST_HEAD(, protocol_log) protocol_logs;
    uint32_t last_conn;
    struct err site_error;             /* why there is no site yet */
    struct buf roots;                  /* what the sandbox lets us write below, NUL behind each */
    char chunk[DELIVERY_CHUNK_BYTES];
};

struct site *site_ref(struct site *site);
void site_unref(struct site **site);
/* Gives everything back, after a drain: for tests, a process just ends. */
void delivery_done(struct role_ctx *ctx);
/* A job has ended: perhaps the last one that a drain waits for. */
void delivery_check_drained(struct delivery *delivery);

/* ---- job.c ---- */

/* All messages of the queue's channel. False: malformed. */
bool job_message(struct delivery *delivery, unsigned type, struct str body, struct channel_fds *fds);
/* Opens the message, once. On failure the job has been finished and is gone. */
bool job_open(struct job *job);
/* From now on it is not given back. */
void job_started(struct job *job);
/* One outcome a recipient, or one for all of them. Sends the result, logs, frees the job. */
void job_finish(struct job *job, const struct way *way, const struct outcome *outcome, size_t n);
/* Not tried. */
void job_return(struct job *job);
/* The queue has gone: forgets what waits and lets the rest end quietly. */
void jobs_queue_gone(struct delivery *delivery);
/* A snapshot has come. */
void jobs_configured(struct delivery *delivery);
const struct spool_recipient *job_recipient(const struct job *job, size_t i);
/* "0.12", "3.4", "27": seconds as Postfix writes them. */
void job_seconds(int64_t ms, char ret_text[24]);

/* ---- local.c ---- */

void local_deliver(struct job *job);

/* ---- hop.c ---- */

struct hop {
    UT_hash_handle hh;
    LIST_ENTRY(hop) dead;
    struct site *site;
    const struct conf_domain *block;
    const struct conf_server *server;  /* whose name and address we use */
    struct job_list waiting;
    unsigned n_waiting;
    LIST_HEAD(, conn) conns;
    unsigned n_conns, n_starting;
    int64_t hold_until_ms;             /* no new connection before, while another lives: one has just failed */
    bool lmtp, dead_already;
    char *domain;
    struct conf_strings via;
    const char *lmtp_via[1];
    char key[];
};

void hop_add(struct job *job);
/* At the front: it was on a dead connection. */
void hop_add_again(struct hop *hop, struct job *job);
void hop_remove(struct job *job);
/* The next job for a connection that is ready; NULL: none waits. */
struct job *hop_take(struct hop *hop);
/* All that wait get this outcome, unless a connection lives that may take them. */
void hop_connection_failed(struct hop *hop, const struct way *way, const struct outcome *outcome);
/* A connection has left the hop. */
void hop_check(struct hop *hop);
void hop_free(struct hop *hop);
/* Those that wait go back to the queue (drain), or away (the queue died). */
void hops_drop_waiting(struct delivery *delivery);
void hops_close_idle(struct delivery *delivery);

/* ---- smtp.c, conn.c ---- */

enum conn_state { CONN_RESOLVING, CONN_CONNECTING, CONN_SETUP, CONN_IDLE, CONN_BUSY, CONN_DEAD };

struct conn {
    LIST_ENTRY(conn) link;             /* in its hop, then among the dead */
    UT_hash_handle hh;                 /* among those with a question to auth */
    struct delivery *delivery;
    struct hop *hop;
    enum conn_state state;
    uint32_t number;                   /* for the protocol log */
    struct resolve *resolve;
    struct resolve_candidate *candidate;
    size_t n_candidates, at;
    bool no_tls;                       /* the handshake with this address failed and TLS was not demanded */
    struct smtp_client *client;
    struct tls_session *tls;
    bool handshaking;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer;
    int64_t timer_at_ms;               /* 0: not set */
    int64_t begun_ms, deadline_ms;     /* of connecting, a handshake, an answer of auth, idleness; 0: none */
    uint64_t n_messages;
    struct job *job;
    struct smtp_client_recipient *rcpt;
    size_t rcpt_cap;
    struct buf words;                  /* strings of this message: ORCPT, ENVID */
    uint64_t body_sent;                /* octets of prefix and body */
    uint32_t question;                 /* 0: none */
    bool login_begun, login_complete, exps;
    struct layer *layer, *next_layer;  /* SASL security layer; the one that begins after 235 */
    char mechanism[64], auth_text[128]; /* what was used; for the log, with its layer */
    char relay[DELIVERY_RELAY_BYTES], tls_text[160], tls_short[64];
    bool refused_for_good;             /* 521 (RFC 7504) */
    /* Of the address that came furthest: a server that refused us tells more than one that is not there. */
    unsigned failure_rank;
    char failure_dsn[SMTP_REPLY_ENHANCED_BYTES], failure_text[1400], failure_relay[DELIVERY_RELAY_BYTES];
    struct outcome *outcome;           /* as many as rcpt */
};

/* Begins a connection for `hop`; false: out of memory. */
bool conn_new(struct hop *hop);
/* There may be a job for it. */
void conn_offer(struct conn *conn);
void conn_free(struct conn *conn);
/* Ends an idle connection in order. */
void conn_quit(struct conn *conn);
/* This session is of no use: `dsn` and the sentence say why. Tries the next address when `next_address`. */
void conn_fail(struct conn *conn, bool next_address, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
struct way conn_way(const struct conn *conn);

/* conn.c: the socket of the current candidate. */
int conn_connect(struct conn *conn, struct err *err);
void conn_close(struct conn *conn);
/* Writes what the machine has to say, watches for what is wanted, arms the timer. */
void conn_update(struct conn *conn);
/* smtp.c: what conn.c has for the machine. */
void smtp_connected(struct conn *conn);
void smtp_input(struct conn *conn, struct str octets);
void smtp_writable(struct conn *conn);     /* the output has room */
void smtp_closed(struct conn *conn, const char *why);
void smtp_timer(struct conn *conn);
void smtp_tls_done(struct conn *conn);
void smtp_tls_failed(struct conn *conn, const char *why);
bool conn_start_tls(struct conn *conn, bool verify, struct err *err);

/* ---- protocol.c ---- */

/* A log of the next snapshot; takes fd. */
void protocol_file(struct delivery *delivery, struct str server, int fd);
void protocol_configured(struct delivery *delivery);
void protocol_free(struct delivery *delivery);
/* smtp_client's trace; arg is the connection. */
void protocol_trace(void *arg, char direction, struct str line);

/* ---- login.c ---- */

void login_begin(struct conn *conn, struct str mechanisms, struct str exps_mechanisms);
/* The next hop has answered the login; auth writes the event. */
void login_decided(struct conn *conn, bool accepted, struct str reply);
void login_challenge(struct conn *conn, struct str challenge);
/* The connection ends, or the session is ready: auth may forget it. */
void login_end(struct conn *conn);
bool login_message(struct delivery *delivery, unsigned type, uint32_t id, struct str body);
void login_auth_gone(struct delivery *delivery);
