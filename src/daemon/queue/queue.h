/* queue: the rooms of the queue process, seen from each other.
 *
 *   queue.c     the role: peers, start, drain; the state that all share
 *   intake.c    writers: lends segments and bodies, follows what they publish
 *   dispatch.c  when and where to: jobs to delivery processes, their results
 *   settle.c    what becomes of recipients: settled, deferred, bounced, expired
 *   bounce.c    delivery status notifications, written as messages of our own
 *   compact.c   empties segments in which little is alive
 *   recipients.c  whether those exist whom local users write to
 *   submit.c    messages handed over by sendmail: control socket and drop folder
 *   control.c   the control socket: conversations (docs/control.md)
 *   answer.c    what its verbs do to the queue */
#pragma once
#include "base/buf.h"
#include "daemon/role.h"
#include "spool/schedule.h"
#include "spool/store.h"

enum { QUEUE_WRITERS_MAX = 64, QUEUE_DELIVERIES_MAX = 16 };

struct control;
struct shared;
struct drop;

/* A writer of messages: an smtpd process, or (index QUEUE_WRITERS_MAX) the queue itself. */
struct queue_writer {
    struct queue *queue;
    struct channel *channel;
    struct spool_page *page;
    struct loop_fd *bell;
    int bell_fd;
    unsigned index;
    bool told_segments, told_bodies; /* its lists of what it holds are complete */
    unsigned lent_segments, lent_bodies; /* not returned and not used up */
};

struct queue_delivery {
    struct queue *queue;
    struct channel *channel;
    unsigned index;
    uint32_t n_jobs;
    bool retired;              /* its successor has its index; it finishes what it has */
};

struct queue {
    struct role_ctx *ctx;
    struct spool_store *store;
    struct spool_schedule *schedule;
    struct queue_writer writer[QUEUE_WRITERS_MAX + 1];
    struct queue_delivery delivery[QUEUE_DELIVERIES_MAX];
    struct spool_writer *own;        /* for bounces and submitted messages */
    struct control *control;
    struct shared *shared;           /* how many sessions there are; NULL: unknown */
    struct drop *drop;
    struct jobs *jobs;
    struct loop_timer *timer;        /* the schedule's next time */
    struct loop_turn *turn;
    struct loop_timer *compact_timer;
    unsigned copying;                /* no checkpoint meanwhile */
    int control_fd, lock_fd;
    bool scanned, paused_in, paused_out, draining, pump_wanted;
};

/* ---- queue.c ---- */
/* Something may be due: looked at when the turn ends. */
void queue_wake(struct queue *q);
/* The wall clock as monotonic milliseconds, and back. */
int64_t queue_mono_of(int64_t wall_ms);
int64_t queue_wall_of(int64_t mono_ms);

/* The line of a recipient that no delivery process tried: "to=<…>, relay=none, …, status=STATUS (why)". */
void queue_tell_undelivered(struct queue *q, const char *queue_id, struct str address, const struct spool_entry *entry,
                            const char *dsn, const char *status, struct str why);
/* A new journal with everything that is alive. */
void queue_checkpoint(struct queue *q);

/* ---- intake.c ---- */
void intake_peer(struct queue *q, unsigned index, const int *fds, size_t n_fds);
int intake_start(struct queue *q, struct err *err);
/* Lends spares to those who have too few. */
void intake_lend(struct queue *q);
void intake_tell_paused(struct queue *q);
/* All writers have told what they hold, or are gone: the spool can be scanned. */
void intake_try_scan(struct queue *q);
/* A message was found (store's handler). */
void intake_message(struct queue *q, const struct spool_found *found);

/* A body file that `owner` had was named by a message: it may be lent another one. */
void intake_body_used(struct queue *q, void *owner);

/* What a writer has published is read now. */
void intake_follow(struct queue_writer *w);

/* ---- compact.c ---- */
int compact_start(struct queue *q, struct err *err);
/* A record of a message that is known already, or a copy: true, dealt with. */
bool compact_found(struct queue *q, struct spool_entry *entry, const struct spool_found *found);

/* ---- dispatch.c ---- */
int dispatch_start(struct queue *q, struct err *err);
void dispatch_peer(struct queue *q, unsigned index, int fd);
void dispatch_pump(struct queue *q);
void dispatch_segment_finished(struct queue *q, struct spool_segment *segment);
/* The configuration has changed: routes are looked up again, what waits is due now if its hop has changed. */
void dispatch_configured(struct queue *q);
/* The hop's domain block in the current configuration (-1: none), and how many jobs it takes at a time. */
void dispatch_prepare_hop(struct queue *q, struct spool_hop *hop, int block);
uint32_t dispatch_running(const struct queue *q);

/* ---- settle.c ---- */
enum queue_outcome { QUEUE_SENT, QUEUE_DEFERRED, QUEUE_BOUNCED };
struct queue_row {
    uint16_t recipient;
    enum queue_outcome outcome;
    bool peer_dsn;             /* the next hop took over the duty to send DSNs */
    bool from_smtp;            /* `reply` is an SMTP reply of remote_mta */
    struct str dsn, reply;     /* "5.1.1", one line */
};
struct queue_report {
    struct queue_row *row;
    size_t n;
    bool hop_failed;
    struct str remote_mta;
};
/* Applies what a delivery process said about a part (ACTIVE until now). */
void settle_report(struct queue *q, struct spool_part *part, const struct queue_report *report);
/* The part returns as it was: nothing was tried. */
void settle_returned(struct queue *q, struct spool_part *part);
/* All recipients of the part are expired by their time in the queue? Then it is bounced and true. */
bool settle_expired(struct queue *q, struct spool_part *part);
/* Recipients are done with: noted, taken out of part, entry and store as far as nothing is left. */
void settle_recipients(struct queue *q, struct spool_entry *entry, const uint16_t *recipients, uint16_t n);
/* The whole message is dropped without a word (queue delete). Not while a part is ACTIVE: then false. */
bool settle_delete(struct queue *q, struct spool_entry *entry);
void settle_hold(struct queue *q, struct spool_entry *entry, bool hold);
void settle_retry_now(struct queue *q, struct spool_entry *entry);
/* What the journal should remember of a live message; `settled` has room for all recipients. */
void settle_remember(struct queue *q, const struct spool_entry *entry, struct spool_memory *m, uint16_t *settled);
int queue_read(struct queue *q, const struct spool_entry *entry, struct spool_reader **ret_reader, struct err *err);
struct spool_segment *queue_segment_of(struct queue *q, const struct spool_entry *entry);

/* ---- bounce.c ---- */
enum bounce_kind { BOUNCE_FAILED, BOUNCE_DELAYED, BOUNCE_DELIVERED, BOUNCE_RELAYED };
struct bounce_row {
    uint16_t recipient;
    enum bounce_kind kind;
    bool from_smtp;
    struct str dsn, diagnostic;
};
/* Writes a notification about these recipients to the message's sender as a message of our own. done(arg, result) is
 * called exactly once, never from within the call (but when not even the few octets for it can be had: then at once,
 * -ENOMEM): 0 = durable, or none is due (null sender, NOTIFY=NEVER, a bounce of ours: then dropped with an event);
 * negative = it could not be written, try again later. Rows are read during the call only. The entry may be gone when
 * `done` comes: pass its id. */
void bounce_send(struct queue *q, const struct spool_entry *entry, const struct bounce_row *rows, size_t n,
                 struct str remote_mta, void (*done)(void *arg, int result), void *arg);

/* The same for recipients of a message that is not ours yet: `original` are its octets (any line ends), of which the
 * header section is returned. The postmaster hears nothing; rows are the envelope's. */
void bounce_unstored(struct queue *q, const struct spool_envelope *envelope, struct str original,
                     const struct bounce_row *rows, size_t n, void (*done)(void *arg, int result), void *arg);

/* Opens a message with its body file, if it has one: queue_read() alone gives what lies in the segment. A body that cannot
 * be opened fails when it is read. *ret_body_fd (-1: none) is to be closed behind the reader. */
int bounce_read(struct queue *q, const struct spool_entry *entry, struct spool_reader **ret_reader, int *ret_body_fd,
                struct err *err);

/* ---- submit.c ---- */
struct submit_message {
    struct str sender;
    const struct str *recipient;
    size_t n_recipients;
    struct str content;              /* any line ends */
    unsigned uid;
};
/* Checks it as hostile input, makes it durable. done(arg, result, id, text): 0, or the exit status (65 bad, 75 later) with
 * a sentence. Exactly once, never from within the call (but out of memory: 75 at once). `m` is read during the call. */
void submit_store(struct queue *q, const struct submit_message *m,
                  void (*done)(void *arg, int exit_status, uint64_t id, const char *text), void *arg);
/* Looks into the drop folder now and then. */
int drop_start(struct queue *q, struct err *err);
void drop_free(struct queue *q);

/* ---- control.c, answer.c ---- */
int control_start(struct queue *q, int listening_fd, struct err *err);
void control_free(struct queue *q);
/* Master's answer to a reload that a conversation asked for. */
void control_reloaded(struct queue *q, uint32_t id, const struct ipc_reloaded *answer);
