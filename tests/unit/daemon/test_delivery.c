/* The delivery role behind its channels: this program is its queue, its auth role, its spool and the next hops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "../keystore/fixture.h"
#include "conf/load.h"
#include "daemon/delivery/delivery.h"
#include "io/now.h"
#include "spool/record.h"

/* ---- next hops: a thread a connection ---- */

enum mode {
    HOP_OK,
    HOP_LMTP,
    HOP_CHUNKING,
    HOP_HANGS_IN_DATA,
    HOP_CLOSES_AFTER_ONE, /* 250 to the first message, then nothing but a closed socket */
    HOP_GREETS_554,
    HOP_BROKEN_TLS,       /* offers STARTTLS, then talks nonsense */
    HOP_WANTS_LOGIN,
    HOP_TLS,
};

struct hop_server {
    enum mode mode;
    int fd;
    uint16_t port;
    SSL_CTX *tls;
    atomic_uint connections, messages, tls_tries;
    char last[200 * 1024];
    size_t last_bytes;
};

struct hop_connection {
    struct hop_server *server;
    FILE *in, *out;
    int fd;
    SSL *tls;
    unsigned n_accepted;
};

static ssize_t tls_get(void *cookie, char *p, size_t n)
{
    int got = SSL_read(cookie, p, (int)n);
    return got > 0 ? got : 0;
}

static ssize_t tls_put(void *cookie, const char *p, size_t n)
{
    int put = SSL_write(cookie, p, (int)n);
    return put > 0 ? put : 0;
}

/* From here on the lines go through TLS. */
static bool start_tls(struct hop_connection *c)
{
    c->tls = SSL_new(c->server->tls);
    SSL_set_fd(c->tls, c->fd);
    if (SSL_accept(c->tls) != 1)
        return false;
    fclose(c->in);
    fclose(c->out);
    c->in = fopencookie(c->tls, "r", (cookie_io_functions_t){ .read = tls_get });
    c->out = fopencookie(c->tls, "w", (cookie_io_functions_t){ .write = tls_put });
    return true;
}

static void say(struct hop_connection *c, const char *text)
{
    fputs(text, c->out);
    fputs("\r\n", c->out);
    fflush(c->out);
}

static void take_bdat(struct hop_connection *c, size_t n)
{
    struct hop_server *s = c->server;
    s->last_bytes = fread(s->last, 1, n < sizeof s->last ? n : sizeof s->last, c->in);
    atomic_fetch_add(&s->messages, 1);
    say(c, "250 2.0.0 Ok: queued as BDAT1");
}

static void take_data(struct hop_connection *c)
{
    struct hop_server *s = c->server;
    char line[4096];
    say(c, "354 go");
    s->last_bytes = 0;
    while (fgets(line, sizeof line, c->in) && strcmp(line, ".\r\n") != 0) {
        size_t n = strlen(line), skip = line[0] == '.';
        if (s->last_bytes + n < sizeof s->last)
            memcpy(s->last + s->last_bytes, line + skip, n - skip);
        s->last_bytes += n - skip;
    }
    atomic_fetch_add(&s->messages, 1);
    for (unsigned i = 0; i < (s->mode == HOP_LMTP ? c->n_accepted : 1); i++)
        say(c, i == 1 ? "452 4.2.2 second is full" : "250 2.0.0 Ok: queued as 4F2A1");
}

static void greet(struct hop_connection *c)
{
    enum mode mode = c->server->mode;
    fputs("250-hop.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n", c->out);
    if (mode == HOP_CHUNKING)
        fputs("250-CHUNKING\r\n", c->out);
    if (mode == HOP_BROKEN_TLS || (mode == HOP_TLS && !c->tls))
        fputs("250-STARTTLS\r\n", c->out);
    if (mode == HOP_WANTS_LOGIN)
        fputs("250-AUTH PLAIN\r\n", c->out);
    say(c, "250 SIZE 10000000");
}

static const char *rcpt_reply(struct hop_connection *c, const char *line)
{
    if (strstr(line, "<unknown@"))
        return "550 5.1.1 no such user";
    if (strstr(line, "<later@"))
        return "450 4.2.1 try later";
    c->n_accepted++;
    return "250 2.1.5 Ok";
}

/* Until the other side gives up. */
static bool wait_for_end(struct hop_connection *c)
{
    while (fgetc(c->in) != EOF)
        ;
    return false;
}

/* False: the connection ends. */
static bool serve_line(struct hop_connection *c, const char *line)
{
    struct hop_server *s = c->server;
    size_t n;
    if (!strncmp(line, "EHLO", 4) || !strncmp(line, "LHLO", 4)) {
        greet(c);
    } else if (!strncmp(line, "MAIL", 4)) {
        if (s->mode == HOP_CLOSES_AFTER_ONE && atomic_load(&s->messages) == 1 && atomic_load(&s->connections) == 1)
            return false;
        c->n_accepted = 0;
        say(c, "250 2.1.0 Ok");
    } else if (!strncmp(line, "RCPT", 4)) {
        say(c, rcpt_reply(c, line));
    } else if (!strncmp(line, "DATA", 4)) {
        if (c->n_accepted == 0)
            say(c, "554 5.5.1 no valid recipients");
        else if (s->mode == HOP_HANGS_IN_DATA)
            return wait_for_end(c);
        else
            take_data(c);
    } else if (sscanf(line, "BDAT %zu LAST", &n) == 1) {
        take_bdat(c, n);
    } else if (!strncmp(line, "STARTTLS", 8)) {
        atomic_fetch_add(&s->tls_tries, 1);
        say(c, "220 go");
        if (s->mode == HOP_TLS)
            return start_tls(c);
        fgetc(c->in); /* the ClientHello is there */
        say(c, "this is not a ServerHello at all, whatever it is");
        return false;
    } else if (!strncmp(line, "AUTH PLAIN", 10)) {
        say(c, strcmp(line, "AUTH PLAIN AHUAcA==\r\n") == 0 ? "235 2.7.0 welcome" : "535 5.7.8 wrong password");
    } else if (!strncmp(line, "QUIT", 4)) {
        return false;
    } else {
        say(c, "250 Ok");
    }
    return true;
}

static void *serve(void *arg)
{
    struct hop_connection *c = arg;
    char line[2048];
    if (c->server->mode == HOP_GREETS_554) {
        say(c, "554 5.7.1 go away");
    } else {
        say(c, "220 hop.example ESMTP");
        while (fgets(line, sizeof line, c->in) && serve_line(c, line))
            ;
    }
    fclose(c->in);
    fclose(c->out);
    SSL_free(c->tls);
    close(c->fd);
    free(c);
    return NULL;
}

static void *listen_thread(void *arg)
{
    struct hop_server *s = arg;
    int fd;
    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        struct hop_connection *c = calloc(1, sizeof *c);
        c->server = s;
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)); /* its replies are many small writes */
        c->in = fdopen(dup(fd), "r");
        c->out = fdopen(dup(fd), "w");
        atomic_fetch_add(&s->connections, 1);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, serve, c), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static struct hop_server *hop_server(enum mode mode, const char *socket_path)
{
    struct hop_server *s = calloc(1, sizeof *s); /* for the rest of the program: its threads may still look at it */
    s->mode = mode;
    union resolve_address a = { 0 };
    socklen_t n = sizeof a.v4;
    a.v4.sin_family = AF_INET;
    a.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (socket_path) {
        memset(&a, 0, sizeof a);
        a.un.sun_family = AF_UNIX;
        assert_true(str_copy(str_of(socket_path), a.un.sun_path, sizeof a.un.sun_path));
        n = sizeof a.un;
    }
    s->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, &a.any, n), 0);
    assert_int_equal(listen(s->fd, 100), 0);
    if (!socket_path) {
        assert_int_equal(getsockname(s->fd, &a.any, &n), 0);
        s->port = ntohs(a.v4.sin_port);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, listen_thread, s), 0);
    pthread_detach(thread);
    return s;
}

/* ---- the world around the role ---- */

struct row {
    uint64_t job;
    uint8_t status, flags, hop_failed;
    char dsn[12], reply[1100], relay[200], tls[100], auth[100];
};

static struct {
    char folder[64];
    struct loop *loop;
    struct role_ctx ctx;
    struct log *log;
    int log_fd;
    struct channel *queue, *auth;
    struct row row[4000];
    unsigned n_results, n_rows, segments_closed;
    struct spool_writer *writer;
    struct spool_page *page;
    int bell, segment_fd, body_fd;
    uint64_t last_message;
    int last_result;
    unsigned n_committed;
    bool wrong_password;
} t;

static void queue_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    if (type == IPC_SEGMENT_CLOSED) {
        t.segments_closed++;
        return;
    }
    struct ipc_result m;
    assert_int_equal(type, IPC_RESULT);
    assert_true(ipc_get_result(body, &m));
    struct wire w = wire_of(m.rows);
    for (unsigned i = 0; i < m.n_rows; i++) {
        struct ipc_result_row r;
        assert_true(ipc_get_result_row(&w, &r));
        struct row *row = &t.row[t.n_rows++ % (sizeof t.row / sizeof t.row[0])];
        *row = (struct row){ .job = m.job, .status = r.status, .flags = r.flags, .hop_failed = m.hop_failed };
        snprintf(row->dsn, sizeof row->dsn, "%.*s", STR_ARG(r.dsn));
        snprintf(row->reply, sizeof row->reply, "%.*s", STR_ARG(r.reply));
        snprintf(row->relay, sizeof row->relay, "%.*s", STR_ARG(m.relay));
        snprintf(row->tls, sizeof row->tls, "%.*s", STR_ARG(m.tls));
        snprintf(row->auth, sizeof row->auth, "%.*s", STR_ARG(m.auth));
    }
    assert_true(wire_end(&w));
    t.n_results++;
}

static void auth_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    if (type != IPC_LOGIN_START)
        return;
    struct ipc_login_start m;
    assert_true(ipc_get_login_start(body, &m));
    assert_true(str_eq(m.domain, STR("login.example")));
    assert_true(str_eq(m.offered, STR("PLAIN")));
    struct buf out;
    buf_init(&out, 1000);
    struct str good = STR("\0u\0p"), bad = STR("\0u\0x");
    ipc_put_login_response(&out, &(struct ipc_login_response){ .has_mechanism = 1, .has_response = 1, .complete = 1,
                                                               .mechanism = STR("PLAIN"),
                                                               .response = t.wrong_password ? bad : good });
    channel_send(t.auth, IPC_LOGIN_RESPONSE, id, buf_str(&out));
    buf_done(&out);
}

static void queue_closed(void *arg, const struct err *why)
{
    channel_free(&t.queue);
}

static void auth_closed(void *arg, const struct err *why)
{
    channel_free(&t.auth);
}

static const struct channel_handlers queue_handlers = { .message = queue_message, .closed = queue_closed };
static const struct channel_handlers auth_handlers = { .message = auth_message, .closed = auth_closed };

static void connect_role(enum role_id role)
{
    int fds[2];
    struct err err;
    assert_int_equal(channel_pair(fds, &err), 0);
    bool queue = role == ROLE_QUEUE;
    assert_int_equal(channel_open(t.loop, fds[0], queue ? &queue_handlers : &auth_handlers, NULL, queue ? &t.queue : &t.auth, &err), 0);
    role_delivery.peer(&t.ctx, role, 0, &fds[1], 1);
}

static int temp_file(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", t.folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static const struct conf *load_conf(const char *domains, uint64_t generation)
{
    char path[200];
    snprintf(path, sizeof path, "%s/postern.conf", t.folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "spool = \"%s/spool\"\nusers = \"%s/users.db\"\nkeys = \"%s/keys\"\nreply_timeout = \"2s\"\nconnect_timeout = \"5s\"\n"
               "resolver = {\"127.0.0.1:1\"}\nserver \"me.example\" { listen = {\"127.0.0.1:1\"} }\n%s", t.folder, t.folder, t.folder, domains);
    fclose(f);
    struct conf_mistakes mistakes;
    struct err err = { 0 };
    const struct conf *conf = NULL;
    conf_mistakes_init(&mistakes);
    int rc = conf_load_file(path, &mistakes, &conf, &err);
    for (size_t i = 0; rc < 0 && i < mistakes.n; i++)
        fprintf(stderr, "%u: %s\n", mistakes.item[i].line, mistakes.item[i].text);
    assert_int_equal(rc, 0);
    conf_mistakes_done(&mistakes);
    conf_set_generation(conf, generation);
    return conf;
}

static void on_committed(void *arg, int result, uint64_t id)
{
    t.last_result = result;
    t.last_message = id;
    t.n_committed++;
}

static bool add_received(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    return buf_addf(out, "Received: by me.example id %s\r\n", queue_id);
}

static void ignore_segment(void *arg, const struct spool_lent *lent)
{
}

static void ignore_error(void *arg, const struct err *why)
{
}

static const struct spool_writer_handlers writer_handlers = {
    .segment_done = ignore_segment, .body_done = ignore_segment, .body_taken = ignore_segment, .failed = ignore_error,
};

/* A message in the spool; its place. */
static struct spool_place store(const char *const *rcpt, size_t n, struct str body, uint32_t flags)
{
    struct spool_recipient recipient[1000] = { 0 };
    for (size_t i = 0; i < n; i++)
        recipient[i] = (struct spool_recipient){ .address = str_of(rcpt[i]), .notify = SPOOL_NOTIFY_FAILURE };
    struct spool_envelope envelope = { .arrival_wall_ms = now_wall_ms(), .reverse_path = STR("sender@here.example"),
                                       .recipient = recipient, .n_recipients = n, .server = STR("me.example"), .flags = flags };
    struct spool_message *m = spool_message_begin(t.writer);
    assert_non_null(m);
    assert_int_equal(spool_message_write(m, body, NULL), 0);
    unsigned before = t.n_committed;
    spool_message_commit(m, &(struct spool_commit){ &envelope, add_received, on_committed, NULL });
    while (t.n_committed == before)
        loop_run_once(t.loop, true);
    assert_int_equal(t.last_result, 0);
    /* Where the id says. */
    unsigned char header[SPOOL_RECORD_HEADER_BYTES];
    for (uint32_t offset = SPOOL_BLOCK_BYTES;; offset += 8) {
        struct spool_record r;
        if (spool_id_make(1, offset) != t.last_message)
            continue;
        assert_int_equal(pread(t.segment_fd, header, sizeof header, offset), sizeof header);
        assert_true(spool_record_header(header, 77, offset, SPOOL_SEGMENT_MIN_BYTES, &r));
        return (struct spool_place){ 1, 77, offset, r.length };
    }
}

static uint64_t job_number;

static uint64_t send_job(const struct spool_place *place, const char *domain, size_t n_recipients, bool body_file)
{
    const struct conf *conf = t.ctx.conf;
    uint16_t block = 0;
    while (strcmp(conf->domain[block].name, domain) != 0)
        block++;
    struct buf recipients, body;
    buf_init(&recipients, 4000);
    buf_init(&body, 8000);
    for (size_t i = 0; i < n_recipients; i++)
        wire_put_u16(&recipients, (uint16_t)i);
    struct ipc_job m = { .job = ++job_number, .message_id = t.last_message, .segment = place->segment,
                         .generation = place->generation, .offset = place->offset, .length = place->length, .attempt = 1,
                         .block = block, .conf_generation = conf->generation, .next_hop = str_of(domain),
                         .recipients = buf_str(&recipients), .has_body_file = body_file };
    ipc_put_job(&body, &m);
    int fd = body_file ? dup(t.body_fd) : -1;
    channel_send_fds(t.queue, IPC_JOB, 0, buf_str(&body), &fd, body_file ? 1 : 0);
    buf_done(&recipients);
    buf_done(&body);
    return job_number;
}

static void wait_results(unsigned n)
{
    while (t.n_results < n)
        loop_run_once(t.loop, true);
    assert_int_equal(t.n_results, n);
}

static void expect_row(unsigned i, enum ipc_status status, const char *dsn, const char *reply)
{
    assert_true(i < t.n_rows);
    if (t.row[i].status != status || strcmp(t.row[i].dsn, dsn) != 0 || !strstr(t.row[i].reply, reply))
        fail_msg("row %u: %d %s %s instead of %d %s %s", i, t.row[i].status, t.row[i].dsn, t.row[i].reply, status, dsn, reply);
}

static void log_text(char *ret, size_t bytes)
{
    log_flush(t.log);
    ssize_t n = pread(t.log_fd, ret, bytes - 1, 0);
    assert_true(n >= 0);
    ret[n] = 0;
}

static void lend_segment(void)
{
    struct buf body;
    buf_init(&body, 100);
    ipc_put_segment(&body, &(struct ipc_segment){ 1, 77, SPOOL_SEGMENT_MIN_BYTES });
    int fd = dup(t.segment_fd);
    channel_send_fds(t.queue, IPC_SEGMENT_OPEN, 0, buf_str(&body), &fd, 1);
    buf_done(&body);
}

static void begin_with_ca(const char *domains, const char *ca_pem)
{
    struct err err = { 0 };
    memset(&t, 0, sizeof t);
    snprintf(t.folder, sizeof t.folder, "/tmp/postern-delivery-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    assert_int_equal(loop_new(&t.loop, &err), 0);
    t.log_fd = temp_file("log");
    char path[200];
    snprintf(path, sizeof path, "%s/log", t.folder);
    assert_int_equal(log_new(t.loop, "delivery", &(struct log_options){ .to = path, .fd = open(path, O_WRONLY | O_APPEND),
                                                                       .level = LOG_LEVEL_INFO }, &t.log, &err), 0);
    t.ctx = (struct role_ctx){ .loop = t.loop, .log = t.log, .conf = load_conf(domains, 1) };
    connect_role(ROLE_QUEUE);
    connect_role(ROLE_AUTH);
    if (ca_pem) {
        int fd = temp_file("ca.pem");
        assert_int_equal(write(fd, ca_pem, strlen(ca_pem)), strlen(ca_pem));
        role_delivery.file(&t.ctx, &(struct ipc_file){ .kind = IPC_FILE_CA }, fd);
    }
    role_delivery.configured(&t.ctx);
    assert_int_equal(role_delivery.start(&t.ctx, &err), 0);
    struct sandbox sandbox = { 0 };
    role_delivery.sandbox(&t.ctx, &sandbox);
    assert_true(sandbox.may_connect && sandbox.may_open);
    sandbox_done(&sandbox);
    int page_fd = spool_page_create();
    t.page = spool_page_map(page_fd);
    close(page_fd);
    t.bell = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(spool_writer_new(t.loop, &spool_disk_system, t.page, t.bell, &writer_handlers, NULL, &t.writer, &err), 0);
    t.segment_fd = temp_file("segment");
    assert_int_equal(ftruncate(t.segment_fd, SPOOL_SEGMENT_MIN_BYTES), 0);
    assert_int_equal(spool_writer_lend_segment(t.writer, &(struct spool_lent){ 1, 77, SPOOL_SEGMENT_MIN_BYTES }, dup(t.segment_fd), &err), 0);
    t.body_fd = temp_file("body");
    assert_int_equal(spool_writer_lend_body(t.writer, &(struct spool_lent){ 100, 0, 0 }, dup(t.body_fd), &err), 0);
    lend_segment();
}

static void begin(const char *domains)
{
    begin_with_ca(domains, NULL);
}

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char name[600];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (unlink(name) != 0)
            remove_tree(name);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

/* Drains the role as master would; the role stops the loop. */
static void end(void)
{
    struct delivery *d = t.ctx.state;
    role_delivery.drain(&t.ctx);
    loop_run(t.loop);
    assert_int_equal(d->n_jobs, 0);
    spool_writer_free(&t.writer);
    spool_page_unmap(t.page);
    delivery_done(&t.ctx);
    channel_free(&t.queue);
    channel_free(&t.auth);
    log_free(&t.log);
    for (int i = 0; i < 5; i++)
        loop_run_once(t.loop, false);
    loop_free(&t.loop);
    close(t.log_fd);
    close(t.segment_fd);
    close(t.body_fd);
    close(t.bell);
    conf_unref(&t.ctx.conf);
    remove_tree(t.folder);
}

static char domains[2000];
#define DOMAINS(...) (snprintf(domains, sizeof domains, __VA_ARGS__), domains)

/* ---- tests ---- */

static const char *const three[] = { "ann@x.example", "unknown@x.example", "later@x.example" };
static const char *const one[] = { "ann@x.example" };
static const char *const two[] = { "ann@x.example", "bob@x.example" };

static void relays_over_one_connection(void **state)
{
    struct hop_server *hop = hop_server(HOP_OK, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} tls = \"opportunistic\" concurrency = 1 }\n", hop->port));
    struct spool_place place = store(three, 3, STR("Subject: hello\r\n\r\n.dot\r\nbody\r\n"), 0);
    for (unsigned i = 1; i <= 20; i++) {
        send_job(&place, "x.example", 3, false);
        wait_results(i);
    }
    assert_int_equal(atomic_load(&hop->connections), 1);
    assert_int_equal(atomic_load(&hop->messages), 20);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "250 2.0.0 Ok: queued as 4F2A1");
    assert_int_equal(t.row[0].flags, IPC_RESULT_PEER_DSN);
    expect_row(1, IPC_STATUS_BOUNCED, "5.1.1", "550 5.1.1 no such user");
    expect_row(2, IPC_STATUS_DEFERRED, "4.2.1", "450 4.2.1 try later");
    char relay[60], text[20000], expected[400];
    snprintf(relay, sizeof relay, "127.0.0.1[127.0.0.1]:%u", hop->port);
    assert_string_equal(t.row[0].relay, relay);
    assert_string_equal(t.row[0].tls, "none");
    hop->last[hop->last_bytes] = 0;
    assert_non_null(strstr(hop->last, "Received: by me.example id "));
    assert_non_null(strstr(hop->last, "\r\nSubject: hello\r\n\r\n.dot\r\nbody\r\n"));
    log_text(text, sizeof text);
    snprintf(expected, sizeof expected, "to=<ann@x.example>, relay=%s, delay=", relay);
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, ", dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4F2A1; tls=none auth=none)\n"));
    snprintf(expected, sizeof expected, "dsn=5.1.1, status=bounced (host %s said: 550 5.1.1 no such user (in reply to RCPT TO command); tls=none auth=none)\n", relay);
    assert_non_null(strstr(text, expected));
    end();
}

static void many_jobs_at_once(void **state)
{
    enum { JOBS = 600 };
    struct hop_server *hop = hop_server(HOP_OK, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} concurrency = 5 }\n", hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    for (unsigned i = 0; i < JOBS; i++)
        send_job(&place, "x.example", 1, false);
    wait_results(JOBS);
    assert_in_range(atomic_load(&hop->connections), 1, 5);
    assert_int_equal(atomic_load(&hop->messages), JOBS);
    uint64_t sum = 0;
    for (unsigned i = 0; i < JOBS; i++)
        sum += t.row[i].job;
    assert_int_equal(sum, (2 * job_number - JOBS + 1) * JOBS / 2); /* each exactly once */
    end();
}

static void large_message_through_bdat_and_data(void **state)
{
    struct hop_server *chunking = hop_server(HOP_CHUNKING, NULL), *plain = hop_server(HOP_OK, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} }\ndomain \"y.example\" { via = {\"127.0.0.1:%u\"} }\n",
                  chunking->port, plain->port));
    struct buf body;
    buf_init(&body, 1 << 20);
    for (int i = 0; body.n < 150 * 1024; i++)
        buf_addf(&body, "%sline %d of a longish message\r\n", i % 7 ? "" : ".", i);
    struct spool_place place = store(one, 1, buf_str(&body), 0);
    send_job(&place, "x.example", 1, true);
    send_job(&place, "y.example", 1, true);
    wait_results(2);
    struct hop_server *const hop[] = { chunking, plain };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(t.row[i].status, IPC_STATUS_SENT);
        assert_true(hop[i]->last_bytes > body.n);
        assert_memory_equal(hop[i]->last + hop[i]->last_bytes - body.n, body.p, body.n);
        assert_memory_equal(hop[i]->last, "Received:", 9);
    }
    buf_done(&body);
    end();
}

static void lmtp_over_a_socket(void **state)
{
    char path[100];
    snprintf(path, sizeof path, "/tmp/postern-lmtp-%d", (int)getpid());
    unlink(path);
    struct hop_server *hop = hop_server(HOP_LMTP, path);
    begin(DOMAINS("domain \"x.example\" { deliver = \"lmtp:%s\" }\n", path));
    struct spool_place place = store(two, 2, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "x.example", 2, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "250 2.0.0 Ok");
    expect_row(1, IPC_STATUS_DEFERRED, "4.2.2", "452 4.2.2 second is full");
    assert_int_equal(atomic_load(&hop->messages), 1);
    char text[4000];
    log_text(text, sizeof text);
    assert_non_null(strstr(text, "postern/lmtp["));
    end();
    unlink(path);
}

static void closed_idle_connection_costs_nothing(void **state)
{
    struct hop_server *hop = hop_server(HOP_CLOSES_AFTER_ONE, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} concurrency = 1 }\n", hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "x.example", 1, false);
    send_job(&place, "x.example", 1, false);
    wait_results(2);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "Ok");
    expect_row(1, IPC_STATUS_SENT, "2.0.0", "Ok");
    assert_int_equal(atomic_load(&hop->connections), 2);
    end();
}

static void hop_that_hangs(void **state)
{
    struct hop_server *hop = hop_server(HOP_HANGS_IN_DATA, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} concurrency = 1 }\n", hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "x.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_DEFERRED, "4.4.2", "timed out while sending DATA command");
    assert_int_equal(t.row[0].hop_failed, 0);
    end();
}

static void hops_that_cannot_be_reached(void **state)
{
    struct hop_server *rude = hop_server(HOP_GREETS_554, NULL), *good = hop_server(HOP_OK, NULL);
    int unused = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    assert_int_equal(bind(unused, (struct sockaddr *)&a, n), 0); /* bound, not listening: refused */
    assert_int_equal(getsockname(unused, (struct sockaddr *)&a, &n), 0);
    unsigned closed_port = ntohs(a.sin_port);
    begin(DOMAINS("domain \"refused.example\" { via = {\"127.0.0.1:%u\"} }\ndomain \"rude.example\" { via = {\"127.0.0.1:%u\"} }\n"
                  "domain \"both.example\" { via = {\"127.0.0.1:%u\", \"127.0.0.1:%u\", \"127.0.0.1:%u\"} }\n"
                  "domain \"strict.example\" { via = {\"127.0.0.1:%u\"} tls = \"require\" }\n"
                  "domain \"nodns.example\" { via = {\"mx\"} }\n",
                  closed_port, rude->port, closed_port, rude->port, good->port, good->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "refused.example", 1, false);
    send_job(&place, "refused.example", 1, false);
    wait_results(2);
    expect_row(0, IPC_STATUS_DEFERRED, "4.4.1", "Connection refused");
    assert_int_equal(t.row[0].hop_failed, 1);
    expect_row(1, IPC_STATUS_DEFERRED, "4.4.1", "Connection refused");
    send_job(&place, "rude.example", 1, false);
    wait_results(3);
    expect_row(2, IPC_STATUS_DEFERRED, "4.0.0", "refused to talk to me: 554 5.7.1 go away");
    send_job(&place, "both.example", 1, false);
    wait_results(4);
    expect_row(3, IPC_STATUS_SENT, "2.0.0", "Ok");
    send_job(&place, "strict.example", 1, false);
    wait_results(5);
    expect_row(4, IPC_STATUS_DEFERRED, "4.7.4", "TLS is required, but was not offered");
    assert_int_equal(t.row[4].hop_failed, 1);
    send_job(&place, "nodns.example", 1, false);
    wait_results(6);
    assert_int_equal(t.row[5].status, IPC_STATUS_DEFERRED);
    assert_string_equal(t.row[5].dsn, "4.4.3");
    close(unused);
    end();
}

static void handshake_that_fails(void **state)
{
    struct hop_server *hop = hop_server(HOP_BROKEN_TLS, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} tls = \"opportunistic\" }\n"
                  "domain \"y.example\" { via = {\"127.0.0.1:%u\"} tls = \"verify\" }\n", hop->port, hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "x.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "Ok");
    assert_int_equal(atomic_load(&hop->tls_tries), 1);
    assert_int_equal(atomic_load(&hop->connections), 2);
    send_job(&place, "y.example", 1, false);
    wait_results(2);
    expect_row(1, IPC_STATUS_DEFERRED, "4.7.5", "Cannot start TLS");
    assert_int_equal(atomic_load(&hop->messages), 1);
    end();
}

static struct hop_server *tls_server(const struct fixture_certificate *f)
{
    struct hop_server *hop = hop_server(HOP_TLS, NULL);
    hop->tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(hop->tls, f->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(hop->tls, f->key), 1);
    return hop;
}

static void certificates_are_checked_when_demanded(void **state)
{
    struct fixture_certificate ca = fixture_new(&(struct fixture_options){ .is_ca = true });
    struct fixture_certificate good = fixture_new(&(struct fixture_options){ .names = "DNS:localhost", .issuer = &ca });
    struct fixture_certificate other = fixture_new(&(struct fixture_options){ .names = "DNS:other.example", .issuer = &ca });
    struct hop_server *right = tls_server(&good), *wrong = tls_server(&other);
    begin_with_ca(DOMAINS("ca_file = \"/dev/null\"\n"
                          "domain \"right.example\" { via = {\"localhost:%u\"} tls = \"verify\" }\n"
                          "domain \"wrong.example\" { via = {\"localhost:%u\"} tls = \"verify\" }\n"
                          "domain \"lax.example\" { via = {\"localhost:%u\"} tls = \"require\" }\n",
                          right->port, wrong->port, wrong->port), ca.pem);
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "right.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "Ok");
    assert_non_null(strstr(t.row[0].tls, "TLSv1.3 "));
    assert_non_null(strstr(t.row[0].tls, ", verified"));
    send_job(&place, "right.example", 1, false);
    wait_results(2);
    assert_int_equal(atomic_load(&right->connections), 1);
    send_job(&place, "wrong.example", 1, false);
    wait_results(3);
    expect_row(2, IPC_STATUS_DEFERRED, "4.7.5", "Cannot start TLS");
    assert_int_equal(atomic_load(&wrong->messages), 0);
    send_job(&place, "lax.example", 1, false);
    wait_results(4);
    expect_row(3, IPC_STATUS_SENT, "2.0.0", "Ok");
    assert_null(strstr(t.row[3].tls, "verified"));
    char text[8000];
    log_text(text, sizeof text);
    assert_non_null(strstr(text, "queued as 4F2A1; tls=TLSv1.3/verified auth=none)\n"));
    assert_non_null(strstr(text, "queued as 4F2A1; tls=TLSv1.3 auth=none)\n"));
    end();
    fixture_free(&ca);
    fixture_free(&good);
    fixture_free(&other);
}

static void logs_in(void **state)
{
    struct hop_server *hop = hop_server(HOP_WANTS_LOGIN, NULL), *open = hop_server(HOP_OK, NULL);
    begin(DOMAINS("domain \"login.example\" { via = {\"127.0.0.1:%u\"} auth = \"PLAIN\" user = \"u\" password_file = \"/dev/null\" }\n"
                  "domain \"nologin.example\" { via = {\"127.0.0.1:%u\"} auth = \"PLAIN\" user = \"u\" password_file = \"/dev/null\" }\n",
                  hop->port, open->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "login.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_SENT, "2.0.0", "Ok");
    assert_string_equal(t.row[0].auth, "PLAIN");
    send_job(&place, "nologin.example", 1, false);
    wait_results(2);
    expect_row(1, IPC_STATUS_DEFERRED, "4.7.0", "offers no authentication");
    assert_int_equal(atomic_load(&open->messages), 0);
    end();
}

static void wrong_password_defers(void **state)
{
    struct hop_server *hop = hop_server(HOP_WANTS_LOGIN, NULL);
    begin(DOMAINS("domain \"login.example\" { via = {\"127.0.0.1:%u\"} auth = \"PLAIN\" user = \"u\" password_file = \"/dev/null\" }\n", hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    t.wrong_password = true;
    send_job(&place, "login.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_DEFERRED, "4.7.8", "535 5.7.8 wrong password");
    assert_int_equal(t.row[0].hop_failed, 1);
    assert_int_equal(atomic_load(&hop->messages), 0);
    channel_free(&t.auth); /* auth dies */
    for (int i = 0; i < 3; i++)
        loop_run_once(t.loop, false);
    send_job(&place, "login.example", 1, false);
    wait_results(2);
    expect_row(1, IPC_STATUS_DEFERRED, "4.7.0", "authentication service is restarting");
    end();
}

static unsigned count_files(const char *folder)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static void maildir_and_discard(void **state)
{
    static const char *const mixed[] = { "Ann@x.example", "../bob@x.example", ".carl@x.example" };
    char root[] = "/tmp/postern-maildirs-XXXXXX", path[200], text[8000];
    assert_non_null(mkdtemp(root));
    begin(DOMAINS("domain \"x.example\" { deliver = \"maildir:%s/%%u\" }\ndomain \"y.example\" { deliver = \"discard\" }\n", root));
    struct spool_place place = store(mixed, 3, STR("Subject: hello\r\n\r\nbody\r\n"), 0);
    send_job(&place, "x.example", 3, false);
    send_job(&place, "y.example", 3, false);
    wait_results(2);
    unsigned maildir = strcmp(t.row[0].relay, "local") == 0 ? 0 : 3;
    expect_row(maildir, IPC_STATUS_SENT, "2.0.0", "delivered to maildir");
    expect_row(maildir + 1, IPC_STATUS_BOUNCED, "5.1.3", "slash");
    expect_row(maildir + 2, IPC_STATUS_BOUNCED, "5.1.3", "dot");
    expect_row(3 - maildir, IPC_STATUS_SENT, "2.0.0", "250 2.0.0 discarded");
    snprintf(path, sizeof path, "%s/ann/new", root);
    assert_int_equal(count_files(path), 1);
    assert_int_equal(count_files(root), 1);
    log_text(text, sizeof text);
    assert_non_null(strstr(text, "to=<Ann@x.example>, relay=local, delay="));
    assert_non_null(strstr(text, "relay=none, delay="));
    assert_non_null(strstr(text, "status=sent (250 2.0.0 discarded)\n"));
    end();
    remove_tree(root);
}

static void needs_smtputf8(void **state)
{
    struct hop_server *hop = hop_server(HOP_OK, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} }\n", hop->port));
    struct spool_place place = store(one, 1, STR("Subject: hello\r\n\r\nbody\r\n"), SPOOL_FLAG_SMTPUTF8);
    send_job(&place, "x.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_BOUNCED, "5.6.7", "SMTPUTF8 is required");
    end();
}

static void jobs_that_cannot_be(void **state)
{
    begin(DOMAINS("domain \"y.example\" { deliver = \"discard\" }\n"));
    struct spool_place place = store(one, 1, STR("x\r\n"), 0), wrong = place;
    wrong.segment = 9;
    send_job(&wrong, "y.example", 1, false);
    wait_results(1);
    expect_row(0, IPC_STATUS_RETURNED, "4.3.0", "");
    wrong = place;
    wrong.offset += 8;
    send_job(&wrong, "y.example", 1, false);
    wait_results(2);
    expect_row(1, IPC_STATUS_DEFERRED, "4.3.0", "");
    send_job(&place, "y.example", 2, false); /* a recipient that is not there */
    wait_results(3);
    expect_row(2, IPC_STATUS_DEFERRED, "4.3.0", "recipient");
    struct buf body;
    buf_init(&body, 100);
    ipc_put_segment(&body, &(struct ipc_segment){ 1, 77, 0 });
    channel_send(t.queue, IPC_SEGMENT_CLOSE, 0, buf_str(&body));
    buf_done(&body);
    while (t.segments_closed == 0)
        loop_run_once(t.loop, true);
    send_job(&place, "y.example", 1, false);
    wait_results(4);
    expect_row(4, IPC_STATUS_RETURNED, "4.3.0", "");
    end();
}

static void job_for_a_snapshot_to_come(void **state)
{
    begin(DOMAINS("domain \"y.example\" { deliver = \"discard\" }\n"));
    struct spool_place place = store(one, 1, STR("x\r\n"), 0);
    const struct conf *old = t.ctx.conf, *next = load_conf(domains, 2);
    t.ctx.conf = next;
    send_job(&place, "y.example", 1, false); /* the queue is ahead */
    t.ctx.conf = old;
    for (int i = 0; i < 5; i++)
        loop_run_once(t.loop, false);
    assert_int_equal(t.n_results, 0);
    uint64_t cancelled = 0;
    t.ctx.conf = next;
    cancelled = send_job(&place, "y.example", 1, false);
    struct buf body;
    buf_init(&body, 100);
    wire_put_u64(&body, cancelled);
    channel_send(t.queue, IPC_JOB_CANCEL, 0, buf_str(&body));
    buf_done(&body);
    wait_results(1);
    expect_row(0, IPC_STATUS_RETURNED, "4.3.0", "");
    assert_int_equal(t.row[0].job, cancelled);
    role_delivery.configured(&t.ctx);
    wait_results(2);
    expect_row(1, IPC_STATUS_SENT, "2.0.0", "discarded");
    t.ctx.conf = old; /* and the queue is behind */
    send_job(&place, "y.example", 1, false);
    wait_results(3);
    expect_row(2, IPC_STATUS_SENT, "2.0.0", "discarded");
    t.ctx.conf = next;
    conf_unref(&old);
    end();
}

/* Waits until the next hop has the message, without an answer. */
static void queue_dies_in_the_middle(void **state)
{
    struct hop_server *hop = hop_server(HOP_HANGS_IN_DATA, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} concurrency = 1 }\ndomain \"y.example\" { deliver = \"discard\" }\n", hop->port));
    struct delivery *d = t.ctx.state;
    struct spool_place place = store(one, 1, STR("x\r\n"), 0);
    for (int i = 0; i < 5; i++)
        send_job(&place, "x.example", 1, false);
    while (atomic_load(&hop->connections) == 0 || d->n_jobs < 5)
        loop_run_once(t.loop, true);
    while (!d->hops || !LIST_FIRST(&d->hops->conns) || LIST_FIRST(&d->hops->conns)->state != CONN_BUSY)
        loop_run_once(t.loop, true);
    channel_free(&t.queue);
    while (d->n_jobs > 1)
        loop_run_once(t.loop, true);
    connect_role(ROLE_QUEUE);
    lend_segment();
    send_job(&place, "y.example", 1, false);
    wait_results(1); /* of the new queue's job */
    assert_int_equal(t.row[0].job, job_number);
    while (d->n_jobs > 0)
        loop_run_once(t.loop, true);
    assert_int_equal(t.n_results, 1);
    assert_int_equal(t.segments_closed, 0);
    end();
}

static void drain_finishes_what_runs(void **state)
{
    struct hop_server *hop = hop_server(HOP_HANGS_IN_DATA, NULL);
    begin(DOMAINS("domain \"x.example\" { via = {\"127.0.0.1:%u\"} concurrency = 1 }\n", hop->port));
    struct delivery *d = t.ctx.state;
    struct spool_place place = store(one, 1, STR("x\r\n"), 0);
    for (int i = 0; i < 3; i++)
        send_job(&place, "x.example", 1, false);
    while (!d->hops || !LIST_FIRST(&d->hops->conns) || LIST_FIRST(&d->hops->conns)->state != CONN_BUSY)
        loop_run_once(t.loop, true);
    role_delivery.drain(&t.ctx);
    wait_results(3);
    expect_row(0, IPC_STATUS_RETURNED, "4.3.0", "");
    expect_row(1, IPC_STATUS_RETURNED, "4.3.0", "");
    expect_row(2, IPC_STATUS_DEFERRED, "4.4.2", "timed out");
    end();
}

static void nonsense_closes_the_channel(void **state)
{
    begin(DOMAINS("domain \"y.example\" { deliver = \"discard\" }\n"));
    channel_send(t.queue, IPC_JOB, 0, STR("nonsense"));
    while (t.queue)
        loop_run_once(t.loop, true);
    end();
}

static void seconds(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } row[] = { { -5, "0" }, { 0, "0" }, { 4, "0" }, { 5, "0.01" }, { 50, "0.05" }, { 120, "0.12" }, { 100, "0.1" },
                { 995, "1" }, { 1000, "1" }, { 1260, "1.3" }, { 9949, "9.9" }, { 10400, "10" }, { 10500, "11" },
                { 86400000, "86400" } };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char text[24];
        job_seconds(row[i].ms, text);
        assert_string_equal(text, row[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds),
        cmocka_unit_test(relays_over_one_connection),
        cmocka_unit_test(many_jobs_at_once),
        cmocka_unit_test(large_message_through_bdat_and_data),
        cmocka_unit_test(lmtp_over_a_socket),
        cmocka_unit_test(closed_idle_connection_costs_nothing),
        cmocka_unit_test(hop_that_hangs),
        cmocka_unit_test(hops_that_cannot_be_reached),
        cmocka_unit_test(handshake_that_fails),
        cmocka_unit_test(certificates_are_checked_when_demanded),
        cmocka_unit_test(logs_in),
        cmocka_unit_test(wrong_password_defers),
        cmocka_unit_test(maildir_and_discard),
        cmocka_unit_test(needs_smtputf8),
        cmocka_unit_test(jobs_that_cannot_be),
        cmocka_unit_test(job_for_a_snapshot_to_come),
        cmocka_unit_test(queue_dies_in_the_middle),
        cmocka_unit_test(drain_finishes_what_runs),
        cmocka_unit_test(nonsense_closes_the_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
