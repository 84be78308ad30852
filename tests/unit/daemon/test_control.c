/* The control socket and the drop folder: real sockets, files and a real writer; settling is a fake that counts. Who is
 * at the other end is told by getsockopt(), which the build wraps. */
#include "queue_fixture.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/socket.h>
#include <sys/un.h>

static unsigned peer_uid;
static char socket_path[128];

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
    int rc = __real_getsockopt(fd, level, name, value, n);
    if (level == SOL_SOCKET && name == SO_PEERCRED)
        ((struct ucred *)value)->uid = peer_uid;
    return rc;
}

static int setup(void **state)
{
    fixture_open();
    peer_uid = 0;
    snprintf(socket_path, sizeof socket_path, "%s/control", f.folder);
    f.q.control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    assert_true(str_copy(str_of(socket_path), name.sun_path, sizeof name.sun_path));
    assert_int_equal(bind(f.q.control_fd, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(f.q.control_fd, 128), 0);
    assert_int_equal(control_start(&f.q, f.q.control_fd, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    control_free(&f.q);
    drop_free(&f.q);
    close(f.q.control_fd);
    unlink(socket_path);
    fixture_close();
    return 0;
}

/* ---- a client ---- */

static int call(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    str_copy(str_of(socket_path), name.sun_path, sizeof name.sun_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof name), 0);
    return fd;
}

/* Turns the loop until the queue has closed the conversation; all that it said, NUL behind it. */
static struct buf hear(int fd)
{
    struct buf b;
    buf_init(&b, 64 << 20);
    for (;;) {
        loop_run_once(f.ctx.loop, false);
        char *to = buf_reserve(&b, 65536);
        ssize_t n = recv(fd, to, 65536, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            break;
        assert_true(n > 0 || errno == EAGAIN);
        b.n += n > 0 ? (size_t)n : 0;
    }
    assert_non_null(buf_cstr(&b));
    close(fd);
    return b;
}

static void say(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = send(fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            s = str_skip(s, (size_t)n);
        else if (errno != EAGAIN)
            return; /* it has hung up */
        loop_run_once(f.ctx.loop, false);
    }
}

static json_t *lines; /* of the last answer, without the last */

/* Asks; returns the last line (borrowed). */
static json_t *ask_octets(struct str request)
{
    static json_t *last;
    json_decref(last);
    json_decref(lines);
    int fd = call();
    say(fd, request);
    struct buf b = hear(fd);
    lines = json_array();
    struct str rest = buf_str(&b), line;
    last = NULL;
    while (str_cut(&rest, '\n', &line)) {
        json_t *o = json_loadb(line.p, line.n, 0, NULL);
        assert_non_null(o);
        assert_null(last); /* nothing behind the last line */
        if (json_is_true(json_object_get(o, "done")))
            last = o;
        else
            json_array_append_new(lines, o);
    }
    buf_done(&b);
    assert_non_null(last);
    return last;
}

static json_t *ask(const char *request)
{
    return ask_octets(str_of(request));
}

static json_int_t number(json_t *o, const char *name)
{
    assert_true(json_is_integer(json_object_get(o, name)));
    return json_integer_value(json_object_get(o, name));
}

static const char *text(json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void assert_ok(json_t *last)
{
    if (!json_is_true(json_object_get(last, "ok")))
        fail_msg("refused: %s", text(last, "error"));
}

static void assert_refused(json_t *last, int status)
{
    assert_true(json_is_false(json_object_get(last, "ok")));
    assert_int_equal(number(last, "exit"), status);
    assert_true(strlen(text(last, "error")) > 10);
}

/* ---- submit ---- */

static json_t *submit(const char *sender, const char *recipients, struct str content)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_addf(&b, "{\"verb\":\"submit\",\"sender\":\"%s\",\"recipients\":[%s],\"size\":%zu}\n", sender, recipients, content.n);
    buf_add(&b, content);
    json_t *last = ask_octets(buf_str(&b));
    buf_done(&b);
    return last;
}

static uint64_t id_of(json_t *last)
{
    uint64_t id = 0;
    assert_true(spool_id_parse(str_of(text(last, "queue_id")), &id));
    return id;
}

static void submit_stores_with_crlf(void **state)
{
    peer_uid = 4711;
    json_t *last = submit("a@corp.test", "\"x@remote.test\",\"b@corp.test\",\"Postmaster\"",
                          STR("Subject: x\n\none\r\ntwo\rthree\r\r\n\xff no end"));
    assert_ok(last);
    assert_int_equal(messages_durable(), 1);
    struct spool_reader *r = read_record(id_of(last));
    const struct spool_envelope *e = spool_reader_envelope(r);
    assert_true(str_eq(e->reverse_path, STR("a@corp.test")));
    assert_int_equal(e->n_recipients, 3);
    assert_true(str_eq(e->recipient[1].address, STR("b@corp.test")));
    assert_true(str_eq(e->recipient[2].address, str_of(f.ctx.conf->postmaster)));
    assert_int_equal(e->flags, SPOOL_FLAG_8BIT);
    char *stored = read_text(r);
    char *body = strstr(stored, "Subject: ");
    assert_non_null(body);
    assert_string_equal(body, "Subject: x\r\n\r\none\r\ntwo\r\nthree\r\n\r\n\xff no end\r\n");
    assert_ptr_equal(strstr(stored, "Received: by mx.corp.test (Postern, from userid 4711)\r\n\tid "), stored);
    free(stored);
    spool_reader_free(&r);
    assert_true(logged("uid=4711 from=<a@corp.test>"));
}

static void submit_in_small_pieces(void **state)
{
    const char request[] = "{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":8}\nA: b\n\nc\n and more";
    int fd = call();
    for (size_t i = 0; i < sizeof request - 1; i++)
        say(fd, str_slice(request + i, 1));
    struct buf b = hear(fd);
    assert_non_null(strstr(b.p, "\"ok\":true"));
    buf_done(&b);
    struct spool_reader *r = read_record(0);
    assert_int_equal(spool_reader_envelope(r)->reverse_path.n, 0);
    char *stored = read_text(r);
    assert_non_null(strstr(stored, "A: b\r\n\r\nc\r\n"));
    assert_null(strstr(stored, "more"));
    free(stored);
    spool_reader_free(&r);
}

static void submit_refuses_bad_input(void **state)
{
    static const struct {
        const char *sender, *recipients;
        struct str content;
        int status;
    } cases[] = {
        { "a@corp.test", "\"x@remote.test\"", { "a\0b\n", 4 }, 65 },
        { "a@corp.test", "\"x@remote.test\"", { "", 0 }, 65 },
        { "a@corp.test", "", { "a\n", 2 }, 65 },
        { "a@corp.test", "1", { "a\n", 2 }, 65 },
        { "a@corp.test", "\"x\"", { "a\n", 2 }, 65 },
        { "a@corp.test", "\"x@nowhere.test\"", { "a\n", 2 }, 65 },
        { "a@corp.test", "\"../../x@corp.test\"", { "a\n", 2 }, 65 },
        { "a b", "\"x@remote.test\"", { "a\n", 2 }, 65 },
        { "a@corp.test", "\"x@remote.test\\r\\nX: y\"", { "a\n", 2 }, 65 },
        { "a@corp.test", "\"x@remote.test\",\"x@remote.test\",\"x@remote.test\",\"x@remote.test\",\"x@remote.test\",\"x@remote.test\"",
          { "a\n", 2 }, 65 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(submit(cases[i].sender, cases[i].recipients, cases[i].content), cases[i].status);
    char *long_line = calloc(1, 3000);
    memset(long_line, 'x', 2999);
    assert_refused(submit("a@corp.test", "\"x@remote.test\"", str_slice(long_line, 2999)), 65);
    free(long_line);
    struct buf loop;
    buf_init(&loop, 1000);
    for (int i = 0; i < 11; i++)
        buf_add(&loop, STR("Received: x\n"));
    assert_refused(submit("a@corp.test", "\"x@remote.test\"", buf_str(&loop)), 65);
    buf_done(&loop);
    assert_refused(ask("{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":200001}\n"), 65);
    assert_refused(ask("{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":-1}\n"), 65);
    assert_int_equal(messages_durable(), 0);
}

static void line_ends_may_make_it_too_large(void **state)
{
    char *lf = malloc(150000);
    memset(lf, '\n', 150000);
    assert_refused(submit("a@corp.test", "\"x@remote.test\"", str_slice(lf, 150000)), 65);
    free(lf);
}

static void paused_or_full_is_try_again(void **state)
{
    assert_ok(ask("{\"verb\":\"pause\",\"what\":\"in\"}\n"));
    assert_refused(submit("a@corp.test", "\"x@remote.test\"", STR("a\n")), 75);
    assert_ok(ask("{\"verb\":\"resume\",\"what\":\"in\"}\n"));
    char *large = malloc(60000);
    memset(large, '\n', 30000);
    json_t *last = NULL;
    for (int i = 0; i < 1000 && (!last || json_is_true(json_object_get(last, "ok"))); i++)
        last = submit("a@corp.test", "\"x@remote.test\"", str_slice(large, 30000));
    assert_refused(last, 75);
    free(large);
}

static void draining_answers_nothing(void **state)
{
    f.q.draining = true;
    int fd = call();
    struct buf b = hear(fd);
    assert_int_equal(b.n, 0);
    buf_done(&b);
}

/* ---- who may what ---- */

static void others_may_only_submit(void **state)
{
    peer_uid = 4711;
    static const char *const verbs[] = { "queue.list", "queue.delete", "pause", "status", "reload", "queue.show", "what" };
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        char request[100];
        snprintf(request, sizeof request, "{\"verb\":\"%s\",\"all\":true,\"what\":\"in\"}\n", verbs[i]);
        assert_refused(ask(request), 77);
    }
    assert_false(f.q.paused_in);
    assert_ok(submit("a@corp.test", "\"x@remote.test\"", STR("a\n")));
}

static void one_user_does_not_take_all(void **state)
{
    int fds[16];
    peer_uid = 4711;
    for (size_t i = 0; i < 16; i++) {
        fds[i] = call();
        loop_run_once(f.ctx.loop, false);
    }
    assert_refused(ask("{\"verb\":\"status\"}\n"), 75);
    peer_uid = 0;
    assert_ok(ask("{\"verb\":\"status\"}\n"));
    for (size_t i = 0; i < 16; i++)
        close(fds[i]);
    peer_uid = 4711;
    for (int i = 0; i < 10; i++)
        loop_run_once(f.ctx.loop, false);
    assert_refused(ask("{\"verb\":\"status\"}\n"), 77); /* there is room again */
}

static void nonsense_is_refused(void **state)
{
    assert_refused(ask("\n"), 65);
    assert_refused(ask("{{{\n"), 65);
    assert_refused(ask("[1]\n"), 64);
    assert_refused(ask("{\"verb\":1}\n"), 64);
    assert_refused(ask("{\"verb\":\"status\",\"verb\":\"status\"}\n"), 65);
    assert_refused(ask("{\"verb\":\"dance\"}\n"), 64);
    assert_refused(ask("{\"verb\":\"pause\"}\n"), 64);
    assert_refused(ask("{\"verb\":\"submit\"}\n"), 65);
    char *endless = malloc(3 << 20);
    memset(endless, '[', 3 << 20);
    assert_refused(ask_octets(str_slice(endless, 3 << 20)), 65);
    endless[1 << 20] = '\n'; /* nested too deep */
    assert_refused(ask_octets(str_slice(endless, (1 << 20) + 1)), 65);
    free(endless);
}

/* ---- the queue ---- */

static struct spool_entry *queued(const char *sender, const char *recipient, const char *domain, int64_t age_ms)
{
    char list[100];
    snprintf(list, sizeof list, "\"%s\"", recipient);
    uint64_t id = id_of(submit(sender, list, STR("Subject: x\n\n\xc3\xa9\xff\n")));
    struct spool_entry at, *e = spool_schedule_add(f.q.schedule, id);
    assert_true(find_record(id, &at));
    e->offset = at.offset;
    e->length = at.length;
    e->n_recipients = 1;
    e->born_ms = loop_now_ms(f.ctx.loop) - age_ms;
    struct spool_hop *hop = spool_schedule_hop(f.q.schedule, str_of(domain), str_of(domain));
    struct spool_part *part = spool_schedule_add_recipient(f.q.schedule, e, hop, 0);
    part->attempts = 3;
    part->reason = spool_schedule_text(f.q.schedule, STR("connect: refused \xff"));
    spool_schedule_wait(f.q.schedule, part, 5000000);
    return e;
}

static void lists_oldest_first(void **state)
{
    queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    struct spool_entry *old = queued("", "Y@corp.test", "corp.test", 7200000);
    assert_int_equal(number(ask("{\"verb\":\"queue.list\"}\n"), "count"), 2);
    assert_int_equal(json_array_size(lines), 2);
    json_t *m = json_array_get(lines, 0);
    char id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(old->id, id);
    assert_string_equal(text(m, "queue_id"), id);
    assert_string_equal(text(m, "queue_name"), "deferred");
    assert_string_equal(text(m, "sender"), "MAILER-DAEMON");
    assert_string_equal(text(m, "next_hop"), "corp.test");
    assert_string_equal(text(m, "server"), "mx.corp.test");
    assert_true(json_is_null(json_object_get(m, "tls")));
    assert_int_equal(number(m, "attempts"), 3);
    assert_int_equal(number(m, "next_attempt"), 6000);
    assert_true(number(m, "arrival_time") > 1000000000);
    assert_true(number(m, "message_size") > 80);
    json_t *recipient = json_array_get(json_object_get(m, "recipients"), 0);
    assert_string_equal(text(recipient, "address"), "Y@corp.test");
    assert_string_equal(text(recipient, "delay_reason"), "connect: refused \xef\xbf\xbd");
}

static void filters_match(void **state)
{
    struct spool_entry *e = queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    queued("b@corp.test", "y@remote.test", "remote.test", 7200000);
    queued("", "z@corp.test", "corp.test", 7200000)->flags = SPOOL_ENTRY_HELD;
    char by_id[100], id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(e->id, id);
    snprintf(by_id, sizeof by_id, "\"id\":\"%s\"", id);
    const struct {
        const char *filter;
        int count;
    } cases[] = {
        { "", 3 }, { by_id, 1 }, { "\"id\":\"1234567890\"", 0 }, { "\"sender\":\"A@corp.test\"", 1 },
        { "\"sender\":\"MAILER-DAEMON\"", 1 }, { "\"sender\":\"\"", 1 }, { "\"recipient\":\"y@remote.test\"", 1 },
        { "\"domain\":\"REMOTE.test\"", 2 }, { "\"domain\":\"remote.test\",\"sender\":\"b@corp.test\"", 1 },
        { "\"queue\":\"hold\"", 1 }, { "\"queue\":\"deferred\"", 2 }, { "\"queue\":\"active\"", 0 },
        { "\"older_than_s\":3600", 2 }, { "\"newer_than_s\":3600", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char request[200];
        snprintf(request, sizeof request, "{\"verb\":\"queue.list\",\"filter\":{%s}}\n", cases[i].filter);
        json_t *last = ask(request);
        assert_ok(last);
        assert_int_equal(number(last, "count"), cases[i].count);
        assert_int_equal(json_array_size(lines), cases[i].count);
    }
    static const char *const wrong[] = { "\"sendr\":\"a\"", "\"id\":\"xyz!\"", "\"queue\":\"all\"", "\"older_than_s\":-1",
                                         "\"older_than_s\":9223372036854775807", "\"newer_than_s\":\"1\"", "\"sender\":1",
                                         "\"domain\":\"\"" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char request[200];
        snprintf(request, sizeof request, "{\"verb\":\"queue.delete\",\"all\":true,\"filter\":{%s}}\n", wrong[i]);
        assert_refused(ask(request), 64);
    }
    assert_refused(ask("{\"verb\":\"queue.list\",\"filter\":[]}\n"), 64);
    assert_int_equal(f.deleted, 0);
}

static void unreadable_messages_are_listed(void **state)
{
    queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    f.refuse_read = true;
    assert_int_equal(number(ask("{\"verb\":\"queue.list\"}\n"), "count"), 1);
    assert_string_equal(text(json_array_get(lines, 0), "error"), "this record is damaged");
    assert_int_equal(number(ask("{\"verb\":\"queue.list\",\"filter\":{\"domain\":\"remote.test\"}}\n"), "count"), 0);
}

static void long_lists_come_in_pieces(void **state)
{
    struct spool_entry *one = queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    struct spool_hop *hop = spool_schedule_hop(f.q.schedule, STR("remote.test"), STR("remote.test"));
    for (uint64_t i = 1; i < 5000; i++) {
        struct spool_entry *e = spool_schedule_add(f.q.schedule, one->id + (i << 32));
        e->offset = one->offset;
        e->length = one->length;
        e->born_ms = (int64_t)i - 5000000;
        spool_schedule_wait(f.q.schedule, spool_schedule_add_recipient(f.q.schedule, e, hop, 0), 5000000);
    }
    int fd = call();
    say(fd, STR("{\"verb\":\"queue.list\"}\n"));
    for (int i = 0; i < 200; i++) /* nobody reads: it waits */
        loop_run_once(f.ctx.loop, false);
    struct spool_entry *gone = spool_schedule_find(f.q.schedule, one->id + (UINT64_C(4999) << 32));
    settle_delete(&f.q, gone);
    struct buf b = hear(fd);
    size_t n = 0;
    for (size_t i = 0; i < b.n; i++)
        n += b.p[i] == '\n';
    assert_int_equal(n, 5000);
    assert_non_null(strstr(b.p, "\"count\":4999"));
    buf_done(&b);
    assert_int_equal(number(ask("{\"verb\":\"queue.retry\",\"filter\":{}}\n"), "count"), 4999);
    assert_int_equal(f.retried, 4999);
    assert_int_equal(number(ask("{\"verb\":\"queue.delete\",\"all\":true}\n"), "count"), 4999);
    assert_int_equal(spool_schedule_entries(f.q.schedule), 0);
}

static void shows_content(void **state)
{
    struct spool_entry *e = queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    char request[100], id[SPOOL_ID_TEXT_BYTES];
    spool_id_format(e->id, id);
    snprintf(request, sizeof request, "{\"verb\":\"queue.show\",\"id\":\"%s\"}\n", id);
    assert_ok(ask(request));
    const char *content = text(json_array_get(lines, 0), "content");
    assert_non_null(strstr(content, "Subject: x\r\n\r\n\xc3\xa9\xef\xbf\xbd\r\n"));
    assert_ptr_equal(strstr(content, "Received: "), content);
    assert_refused(ask("{\"verb\":\"queue.show\",\"id\":\"0A00000140\"}\n"), 66);
    assert_refused(ask("{\"verb\":\"queue.show\"}\n"), 66);
    f.refuse_read = true;
    assert_refused(ask(request), 74);
}

static void changes_what_matches(void **state)
{
    queued("a@corp.test", "x@remote.test", "remote.test", 10000);
    queued("b@corp.test", "y@remote.test", "remote.test", 10000);
    assert_int_equal(number(ask("{\"verb\":\"queue.hold\",\"filter\":{\"sender\":\"a@corp.test\"}}\n"), "count"), 1);
    assert_int_equal(f.held, 1);
    assert_ok(ask("{\"verb\":\"status\"}\n"));
    assert_int_equal(number(json_array_get(lines, 0), "hold"), 1);
    assert_int_equal(number(json_array_get(lines, 0), "deferred"), 1);
    assert_int_equal(number(ask("{\"verb\":\"queue.retry\"}\n"), "count"), 1); /* what is held waits for a release */
    assert_int_equal(number(ask("{\"verb\":\"queue.release\"}\n"), "count"), 1);
    assert_refused(ask("{\"verb\":\"queue.delete\",\"filter\":{}}\n"), 64);
    assert_refused(ask("{\"verb\":\"queue.delete\"}\n"), 64);
    f.refuse_delete = true;
    assert_refused(ask("{\"verb\":\"queue.delete\",\"filter\":{\"domain\":\"remote.test\"}}\n"), 75);
    f.refuse_delete = false;
    assert_int_equal(number(ask("{\"verb\":\"queue.delete\",\"filter\":{\"sender\":\"b@corp.test\"}}\n"), "count"), 1);
    assert_int_equal(f.deleted, 1);
    assert_true(f.woken > 0);
    assert_true(logged("verb=queue.delete uid=0 messages=1"));
}

static void pauses_and_resumes(void **state)
{
    assert_ok(ask("{\"verb\":\"pause\",\"what\":\"in\"}\n"));
    assert_ok(ask("{\"verb\":\"pause\",\"what\":\"out\"}\n"));
    assert_true(f.q.paused_in && f.q.paused_out && f.told_paused == 1);
    assert_ok(ask("{\"verb\":\"status\"}\n"));
    assert_true(json_is_true(json_object_get(json_array_get(lines, 0), "paused_out")));
    assert_ok(ask("{\"verb\":\"resume\",\"what\":\"in\"}\n"));
    assert_ok(ask("{\"verb\":\"resume\",\"what\":\"out\"}\n"));
    assert_false(f.q.paused_in || f.q.paused_out);
    assert_int_equal(f.told_paused, 2);
    assert_int_equal(f.woken, 2);
}

static uint32_t reload_id;
static void on_master(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    if (type == IPC_RELOAD)
        reload_id = id;
}
static void on_closed(void *arg, const struct err *why)
{
}

static void reload_waits_for_master(void **state)
{
    static const struct channel_handlers handlers = { .message = on_master, .closed = on_closed };
    struct channel *master;
    int fds[2];
    assert_refused(ask("{\"verb\":\"reload\"}\n"), 75); /* there is no master */
    assert_int_equal(channel_pair(fds, NULL), 0);
    assert_int_equal(channel_open(f.ctx.loop, fds[0], &handlers, NULL, &f.ctx.master, NULL), 0);
    assert_int_equal(channel_open(f.ctx.loop, fds[1], &handlers, NULL, &master, NULL), 0);
    for (int mistaken = 0; mistaken < 2; mistaken++) {
        int fd = call();
        reload_id = 0;
        say(fd, STR("{\"verb\":\"reload\"}\n"));
        while (!reload_id)
            loop_run_once(f.ctx.loop, true);
        const struct ipc_reloaded done = { IPC_RELOAD_DONE, STR_NONE }, refused = { IPC_RELOAD_REFUSED, STR("a.conf:1: no\n") };
        control_reloaded(&f.q, reload_id + 1, &done); /* not its */
        control_reloaded(&f.q, reload_id, mistaken ? &refused : &done);
        control_reloaded(&f.q, reload_id, &done);     /* twice */
        struct buf b = hear(fd);
        assert_non_null(strstr(b.p, mistaken ? "\"exit\":78" : "\"ok\":true"));
        assert_int_equal(strstr(b.p, "\"mistakes\":\"a.conf:1: no\\n\"") != NULL, mistaken);
        buf_done(&b);
    }
    channel_free(&f.ctx.master);
    channel_free(&master);
}

static void clients_may_go_away(void **state)
{
    int fd = call();
    say(fd, STR("{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":2}\na\n"));
    close(fd); /* the message is kept all the same */
    while (messages_durable() == 0)
        loop_run_once(f.ctx.loop, true);
    fd = call();
    say(fd, STR("{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":20}\na\n"));
    close(fd); /* half a message is none */
    for (int i = 0; i < 10; i++)
        loop_run_once(f.ctx.loop, false);
    fd = call();
    say(fd, STR("{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@remote.test\"],\"size\":2}\na\n"));
    control_free(&f.q); /* the queue ends */
    close(fd);
    spool_writer_free(&f.q.own);
    assert_true(messages_durable() <= 2);
}

/* ---- the drop folder ---- */

static void leave(const char *name, const char *content)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f.drop_path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0640);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
}

static bool is_there(const char *name, bool remove)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f.drop_path, name);
    struct stat st;
    bool there = lstat(path, &st) == 0;
    if (there && remove)
        (void)(unlink(path) == 0 || rmdir(path) == 0);
    return there;
}

#define REQUEST(size) "{\"verb\":\"submit\",\"sender\":\"a@corp.test\",\"recipients\":[\"x@remote.test\"],\"size\":" size "}\n"

static void drop_folder_is_taken_in(void **state)
{
    char path[256];
    leave("good.mail", REQUEST("10") "Subject: x");
    leave("large.mail", REQUEST("10") "Subject: xy");
    leave("line.mail", "nothing");
    leave("verb.mail", "{\"verb\":\"queue.delete\",\"all\":true}\n");
    leave("route.mail", "{\"verb\":\"submit\",\"sender\":\"\",\"recipients\":[\"x@nowhere.test\"],\"size\":2}\na\n");
    leave("empty.mail", "");
    leave(".being-written", REQUEST("1"));
    leave("other.txt", "x");
    leave("link.bad", "older");
    snprintf(path, sizeof path, "%s/link.mail", f.drop_path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/fifo.mail", f.drop_path);
    assert_int_equal(mkfifo(path, 0644), 0);
    snprintf(path, sizeof path, "%s/folder.mail", f.drop_path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(drop_start(&f.q, NULL), 0);
    static const char *const bad[] = { "large", "line", "verb", "route", "empty", "fifo", "folder" };
    char name[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(name, sizeof name, "%s.bad", bad[i]);
        while (!is_there(name, true))
            loop_run_once(f.ctx.loop, true);
    }
    while (is_there("good.mail", false) || is_there("link.mail", false))
        loop_run_once(f.ctx.loop, true);
    assert_int_equal(messages_durable(), 1);
    assert_true(logged("queue.drop.bad"));
    snprintf(path, sizeof path, "uid=%u from=<a@corp.test>", (unsigned)geteuid());
    assert_true(logged(path));
    assert_true(is_there(".being-written", true) && is_there("other.txt", true) && is_there("link.bad", true));
    drop_free(&f.q);
    /* link.bad was taken: the link went aside under another name */
    DIR *dir = opendir(f.drop_path);
    unsigned others = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        snprintf(name, sizeof name, "%.60s", e->d_name);
        others += str_starts(str_of(name), STR("link.")) && is_there(name, true);
    }
    closedir(dir);
    assert_int_equal(others, 1);
}

static void drop_folder_waits_while_paused(void **state)
{
    f.q.paused_in = true;
    leave("good.mail", REQUEST("10") "Subject: x");
    assert_int_equal(drop_start(&f.q, NULL), 0);
    for (int i = 0; i < 10; i++)
        loop_run_once(f.ctx.loop, false);
    assert_int_equal(messages_durable(), 0);
    assert_true(is_there("good.mail", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(submit_stores_with_crlf, setup, teardown),
        cmocka_unit_test_setup_teardown(submit_in_small_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(submit_refuses_bad_input, setup, teardown),
        cmocka_unit_test_setup_teardown(line_ends_may_make_it_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(paused_or_full_is_try_again, setup, teardown),
        cmocka_unit_test_setup_teardown(draining_answers_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(others_may_only_submit, setup, teardown),
        cmocka_unit_test_setup_teardown(one_user_does_not_take_all, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_oldest_first, setup, teardown),
        cmocka_unit_test_setup_teardown(filters_match, setup, teardown),
        cmocka_unit_test_setup_teardown(unreadable_messages_are_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lists_come_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(shows_content, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_what_matches, setup, teardown),
        cmocka_unit_test_setup_teardown(pauses_and_resumes, setup, teardown),
        cmocka_unit_test_setup_teardown(reload_waits_for_master, setup, teardown),
        cmocka_unit_test_setup_teardown(clients_may_go_away, setup, teardown),
        cmocka_unit_test_setup_teardown(drop_folder_is_taken_in, setup, teardown),
        cmocka_unit_test_setup_teardown(drop_folder_waits_while_paused, setup, teardown),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(lines);
    return rc;
}
