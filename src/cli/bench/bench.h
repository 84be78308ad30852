/* bench: `postern bench`, a load generator over our own client machine, and a sink over our own server machine.
 *
 *   bench.c       the verb
 *   options.c     its arguments
 *   run.c         a load: how many connections and messages, when it ends
 *   connection.c  one connection: octets between the socket (or TLS) and the client machine
 *   transport.c   its writing and reading
 *   login.c       its AUTH
 *   kerberos.c    tickets and tokens for it
 *   content.c     the messages that are sent
 *   tally.c       what is counted, percentiles
 *   report.c      the figures as text or JSON
 *   sink.c        takes messages, keeps nothing, counts
 *
 * One message is counted for one 250 to the end of data, and for nothing else. The time of a message runs from its
 * MAIL to that 250, the time of a session from connect() to the moment when it could send a message. Everything
 * runs on one thread: a CPU share near 100 % means that the generator, not the server, was the limit. */
#pragma once
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/secret.h"
#include "cli/cli.h"
#include "io/loop.h"
#include "io/tls.h"
#include "sasl/client.h"
#include "smtp/client.h"

enum {
    BENCH_RECIPIENTS_MAX = 1000,
    BENCH_SLICES = 16,
    BENCH_HEADER_BYTES = 1024,
    BENCH_SCRATCH_BYTES = 64 * 1024,
    BENCH_ERROR_KINDS = 32,
};

enum bench_mode { BENCH_MESSAGES, BENCH_SESSIONS, BENCH_IDLE, BENCH_SINK };

struct bench_options {
    enum bench_mode mode;
    const char *target;               /* as it was written */
    struct sockaddr_storage address;
    socklen_t address_bytes;
    char *host;                       /* name or address, without port */
    uint64_t connections, per_connection, messages, recipients, size_bytes, errors_max;
    uint64_t duration_ms, idle_ms, timeout_ms, tokens;
    const char *sender, *recipient, *helo, *user, *mechanism, *password_file, *keytab, *spn, *sink;
    struct secret *password;
    bool starttls, tls, no_pipelining, bdat, sessions, json;
};

/* ---- options.c ---- */
/* CLI_OK, or an exit status after the message was given. */
int bench_options_read(struct bench_options *o, int argc, char **argv);
void bench_options_done(struct bench_options *o);

/* ---- content.c: what is sent; header and body together have size_bytes octets, all lines end with CRLF ---- */
struct bench_content {
    char header[BENCH_HEADER_BYTES];  /* with the place of the message's number open */
    size_t header_bytes, number_at;
    char *block;                      /* lines of 80 octets, to be sent again and again */
    uint64_t size_bytes;
    struct smtp_client_recipient *recipient;
    char *addresses;                  /* the text of `recipient` */
    size_t n_recipients;
};
int bench_content_init(struct bench_content *content, const struct bench_options *o, struct err *err);
void bench_content_done(struct bench_content *content);
void bench_content_header(const struct bench_content *content, uint64_t number, char ret_header[BENCH_HEADER_BYTES]);
/* The octets from `at` on, as many as lie together; `header` was made by bench_content_header(). */
struct str bench_content_at(const struct bench_content *content, const char *header, uint64_t at);

/* ---- tally.c ---- */
struct bench_samples {                /* in tenths of a microsecond, up to 7 minutes */
    uint32_t *v;
    size_t n, cap;
};
void bench_samples_add(struct bench_samples *s, int64_t us);
void bench_samples_sort(struct bench_samples *s);
/* Milliseconds; sorted before. 0 without samples. */
double bench_samples_percentile(const struct bench_samples *s, unsigned percent);

struct bench_error {
    enum smtp_client_stage stage;
    unsigned code;                    /* 0: not a reply, but the connection, TLS, a time-out */
    uint64_t n;
    char text[200];                   /* of the first one */
};
struct bench_tally {
    uint64_t messages, octets, sessions, ready, errors, errors_other;
    struct bench_samples message, session;
    struct bench_error error[BENCH_ERROR_KINDS];
    size_t n_error_kinds;
    int64_t wall_us;
    double cpu_s;
};
void bench_tally_error(struct bench_tally *tally, enum smtp_client_stage stage, unsigned code, struct str text);
void bench_tally_done(struct bench_tally *tally);
double bench_cpu_s(void);

/* ---- report.c ---- */
int bench_report(const struct bench_options *o, const struct bench_tally *tally);
/* All idle connections stand; printed at once, since somebody waits for it to look at the server. */
int bench_report_idle(const struct bench_options *o, const struct bench_tally *tally);

/* ---- run.c ---- */
struct bench_connection;
struct bench_kerberos;
struct bench_run {
    const struct bench_options *o;
    struct loop *loop;
    struct loop_turn *turn;
    struct loop_timer *sweep, *end;
    struct loop_signal *interrupt, *terminate;
    struct tls_client_context *tls;
    struct bench_kerberos *kerberos;  /* NULL: no login by Kerberos */
    struct sasl_scram_memory scram;   /* as of a client that keeps what it has derived (RFC 5802 section 3) */
    struct bench_content content;
    struct bench_tally tally;
    struct bench_connection **connection;
    uint64_t n_opened, n_live, tickets;
    bool stopping, idle_reported;
    int64_t begun_us, idle_until_ms;
    double begun_cpu_s;
    char *scratch;                    /* BENCH_SCRATCH_BYTES, for one read or one TLS record at a time */
    struct err err;                   /* why no load could be made */
};
int bench_run(const struct bench_options *o);
/* The right to send one message (or to make one session); its number, counted from 0. */
bool bench_run_take(struct bench_run *run, uint64_t *ret_number);
bool bench_run_more(const struct bench_run *run);
void bench_run_error(struct bench_run *run, enum smtp_client_stage stage, unsigned code, struct str text);

/* ---- connection.c ---- */
enum bench_phase { BENCH_CLOSED, BENCH_CONNECTING, BENCH_HANDSHAKE, BENCH_TALK };
struct bench_connection {
    struct bench_run *run;
    struct smtp_client *client;
    struct loop_fd *watch;
    struct tls_session *tls;
    struct sasl_client *sasl;
    struct bench_context *gss;
    int fd;
    enum bench_phase phase;
    bool ready, want_write;
    uint64_t n_sent;
    int64_t begun_us, message_us, handshake_deadline_ms;
    /* What waits to be written: out_head octets of the machine's output, the slices, the rest of the output. */
    size_t out_head, n_slices, slice_at;
    struct str slice[BENCH_SLICES];
    uint64_t body_at;
    char header[BENCH_HEADER_BYTES];
};
struct bench_connection *bench_connection_new(struct bench_run *run);
void bench_connection_free(struct bench_connection **connection);
/* Only when closed. */
void bench_connection_open(struct bench_connection *c);
void bench_connection_check_deadline(struct bench_connection *c, int64_t now_ms);
/* Ends it as a failure of this side's doing ("why": one sentence). */
void bench_connection_fail(struct bench_connection *c, const char *why);

/* ---- transport.c ---- */
enum bench_io { BENCH_IO_DONE, BENCH_IO_WAIT, BENCH_IO_CLOSED };
/* Writes what waits. WAIT: the socket is full and is being watched for room. */
enum bench_io bench_transport_write(struct bench_connection *c);
/* Reads once into the run's scratch. *ret_more: there may be more. */
enum bench_io bench_transport_read(struct bench_connection *c, struct str *ret_in, bool *ret_more);
bool bench_transport_waits(const struct bench_connection *c);

/* ---- login.c ---- both answer the machine; false: the login cannot be made, with the reason */
bool bench_login_begin(struct bench_connection *c, struct str mechanisms, int64_t now_ms, struct err *err);
bool bench_login_step(struct bench_connection *c, struct str challenge, int64_t now_ms, struct err *err);

/* What it needs before the first login; 0 also when that is nothing. */
int bench_login_prepare(struct bench_run *run, struct err *err);
void bench_login_done(struct bench_connection *c);

/* ---- kerberos.c ---- */
struct bench_context;
/* Gets the ticket, and makes as many first tokens as the options want. To be freed after a failure, too. */
int bench_kerberos_new(const struct bench_options *o, bool spnego, struct bench_kerberos **ret_kerberos, struct err *err);
void bench_kerberos_free(struct bench_kerberos **kerberos);
/* One login's; NULL: it could not be made. */
struct bench_context *bench_kerberos_take(struct bench_kerberos *kerberos, struct err *err);
const struct sasl_gss *bench_context_gss(const struct bench_context *context);
void bench_context_free(struct bench_context **context);

/* ---- sink.c ---- */
int bench_sink(const struct bench_options *o);
