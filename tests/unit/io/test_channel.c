/* channel and worker on a real loop: order, descriptors, back-pressure, malformed packets, the other end's death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <semaphore.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/wire.h"
#include "io/channel.h"
#include "io/worker.h"

struct end {
    struct loop *loop;
    struct channel *channel;
    unsigned messages, closed, drained, last_id, fds;
    size_t octets;
    bool free_in_handler;
};

static void on_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct end *e = arg;
    assert_int_equal(type, 7);
    assert_int_equal(id, e->last_id + 1); /* in order, none lost */
    e->last_id = id;
    e->messages++;
    e->octets += body.n;
    e->fds += (unsigned)fds->n;
    if (e->free_in_handler)
        channel_free(&e->channel);
}

static void on_closed(void *arg, const struct err *why)
{
    struct end *e = arg;
    assert_true(why->code < 0 && why->text[0]);
    e->closed++;
    channel_free(&e->channel);
}

static void on_drained(void *arg)
{
    ((struct end *)arg)->drained++;
}

static const struct channel_handlers handlers = { on_message, on_closed, on_drained };

static void open_pair(struct end *a, struct end *b, int *ret_raw)
{
    int fds[2];
    *a = *b = (struct end){ 0 };
    assert_int_equal(loop_new(&a->loop, NULL), 0);
    b->loop = a->loop;
    assert_int_equal(channel_pair(fds, NULL), 0);
    assert_int_equal(channel_open(a->loop, fds[0], &handlers, a, &a->channel, NULL), 0);
    if (ret_raw)
        *ret_raw = fds[1];
    else
        assert_int_equal(channel_open(a->loop, fds[1], &handlers, b, &b->channel, NULL), 0);
}

static void close_pair(struct end *a, struct end *b)
{
    channel_free(&a->channel);
    channel_free(&b->channel);
    loop_free(&a->loop);
}

static void carries_many_messages_in_order(void **state)
{
    (void)state;
    struct end a, b;
    open_pair(&a, &b, NULL);
    static char body[CHANNEL_BODY_MAX];
    unsigned sent = 0;
    size_t octets = 0;
    for (unsigned i = 0; i < 3000; i++) {
        size_t n = i % 50 == 0 ? sizeof body : i % 97;
        assert_int_equal(channel_send(a.channel, 7, ++sent, str_slice(body, n)), 0);
        octets += n;
    }
    assert_true(channel_backlog_bytes(a.channel) > CHANNEL_BACKLOG_MAX);
    while (b.messages < sent)
        loop_run_once(a.loop, true);
    assert_int_equal(b.octets, octets);
    while (!a.drained)
        loop_run_once(a.loop, true);
    assert_int_equal(a.drained, 1);
    assert_int_equal(channel_send(a.channel, 7, 1, (struct str){ body, CHANNEL_BODY_MAX + 1 }), ERR_LIMIT);
    close_pair(&a, &b);
}

static int open_descriptors(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void closes_descriptors_that_nobody_takes(void **state)
{
    (void)state;
    struct end a, b;
    open_pair(&a, &b, NULL);
    int before = open_descriptors();
    for (unsigned i = 1; i <= 40; i++) {
        int fds[CHANNEL_FDS_MAX];
        for (int k = 0; k < CHANNEL_FDS_MAX; k++)
            fds[k] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(channel_send_fds(a.channel, 7, i, STR("x"), fds, CHANNEL_FDS_MAX), 0);
    }
    while (b.messages < 40)
        loop_run_once(a.loop, true);
    assert_int_equal(b.fds, 40 * CHANNEL_FDS_MAX);
    assert_int_equal(open_descriptors(), before);
    close_pair(&a, &b);
}

static void a_handler_may_free_its_channel(void **state)
{
    (void)state;
    struct end a, b;
    open_pair(&a, &b, NULL);
    b.free_in_handler = true;
    for (unsigned i = 1; i <= 10; i++)
        channel_send(a.channel, 7, i, STR("x"));
    while (!a.closed)
        loop_run_once(a.loop, true);
    assert_int_equal(b.messages, 1);
    assert_null(b.channel);
    close_pair(&a, &b);
}

static void nonsense_closes_the_channel_and_nothing_else(void **state)
{
    (void)state;
    static const char *const packets[] = { "\xff\xff\xff\xff\x07\0\0\0\x01\0\0\0", "\x05\0\0\0\x07\0\0\0\x01\0\0\0ab",
                                           "\0\0\0\0\x07\0\x01\0\x01\0\0\0", "short" };
    static const size_t lengths[] = { 12, 14, 12, 5 };
    for (size_t i = 0; i < 4; i++) {
        struct end a, b;
        int raw;
        open_pair(&a, &b, &raw);
        assert_int_equal(send(raw, packets[i], lengths[i], 0), (ssize_t)lengths[i]);
        while (!a.closed)
            loop_run_once(a.loop, true);
        assert_int_equal(a.messages, 0);
        close(raw);
        close_pair(&a, &b);
    }
}

static void reads_blocking_before_the_loop(void **state)
{
    (void)state;
    struct end a, b;
    int raw;
    open_pair(&a, &b, &raw);
    channel_send(a.channel, 7, 1, STR("one"));
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    channel_send_fds(a.channel, 7, 2, STR("two"), &fd, 1);
    channel_flush(a.channel);
    struct channel_reader *reader;
    assert_int_equal(channel_reader_new(raw, &reader), 0);
    unsigned type;
    uint32_t id;
    struct str body;
    struct channel_fds fds;
    assert_int_equal(channel_reader_next(reader, &type, &id, &body, &fds, NULL), 0);
    assert_true(id == 1 && str_eq(body, STR("one")) && fds.n == 0);
    assert_int_equal(channel_reader_next(reader, &type, &id, &body, &fds, NULL), 0);
    assert_true(id == 2 && str_eq(body, STR("two")) && fds.n == 1);
    close(channel_take_fd(&fds, 0));
    channel_free(&a.channel);
    assert_int_equal(channel_reader_next(reader, &type, &id, &body, &fds, NULL), ERR_CLOSED);
    channel_reader_free(&reader);
    close(raw);
    close_pair(&a, &b);
}

struct sum {
    struct worker_job job;
    unsigned in, out;
    unsigned *done;
};

static void add(struct worker_job *job)
{
    struct sum *s = (struct sum *)job;
    s->out = s->in * 2;
}

static void added(struct worker_job *job)
{
    struct sum *s = (struct sum *)job;
    assert_int_equal(s->out, s->in * 2);
    ++*s->done;
}

struct hold {
    struct worker_job job;
    sem_t begun, go_on;
    bool done;
};

static void hold(struct worker_job *job)
{
    struct hold *h = (struct hold *)job;
    sem_post(&h->begun);
    sem_wait(&h->go_on);
}

static void held(struct worker_job *job)
{
    ((struct hold *)job)->done = true;
}

/* One that runs, one that waits, none. */
static void workers_that_are_busy(void **state)
{
    struct loop *loop;
    struct worker_pool *pool;
    struct hold one = { .job = { .work = hold, .done = held } }, two = { .job = { .work = hold, .done = held } };
    struct hold *both[] = { &one, &two };
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(worker_pool_new(loop, "test", 1, 10, &pool, NULL), 0);
    assert_int_equal(worker_busy(), 0);
    for (int i = 0; i < 2; i++) {
        sem_init(&both[i]->begun, 0, 0);
        sem_init(&both[i]->go_on, 0, 0);
        assert_int_equal(worker_submit(pool, &both[i]->job), 0);
    }
    sem_wait(&one.begun);
    assert_int_equal(worker_busy(), 2);
    sem_post(&one.go_on);
    sem_wait(&two.begun);
    assert_int_equal(worker_busy(), 1);
    sem_post(&two.go_on);
    while (!two.done)
        loop_run_once(loop, true);
    assert_true(one.done);
    assert_int_equal(worker_busy(), 0);
    worker_pool_free(&pool);
    loop_free(&loop);
}

static void workers_report_back(void **state)
{
    (void)state;
    struct loop *loop;
    struct worker_pool *pool;
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(worker_pool_new(loop, "test", 2, 1000, &pool, NULL), 0);
    unsigned done = 0;
    static struct sum sums[1000];
    for (unsigned i = 0; i < 1000; i++) {
        sums[i] = (struct sum){ .job = { .work = add, .done = added }, .in = i, .done = &done };
        assert_int_equal(worker_submit(pool, &sums[i].job), 0);
    }
    while (done < 1000)
        loop_run_once(loop, true);
    worker_pool_free(&pool);
    loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_many_messages_in_order),
        cmocka_unit_test(closes_descriptors_that_nobody_takes),
        cmocka_unit_test(a_handler_may_free_its_channel),
        cmocka_unit_test(nonsense_closes_the_channel_and_nothing_else),
        cmocka_unit_test(reads_blocking_before_the_loop),
        cmocka_unit_test(workers_that_are_busy),
        cmocka_unit_test(workers_report_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
