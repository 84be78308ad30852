/* Notifications: who gets one, what stands in it, what it is as a message. The spool's writer is real. */
#include "queue_fixture.h"

static struct {
    unsigned calls;
    int result;
} answer;

static void on_answer(void *arg, int result)
{
    answer.calls++;
    answer.result = result;
}

static uint64_t original_id;
static void on_original(void *arg, int result, uint64_t id)
{
    assert_int_equal(result, 0);
    original_id = id;
}

static bool original_prefix(void *arg, uint64_t id, const char *queue_id, struct buf *out)
{
    return buf_add(out, STR("Received: from client by mx.corp.test\r\n"));
}

static struct spool_entry store_original(const struct spool_envelope *e, const char *body)
{
    struct spool_message *m = spool_message_begin(f.q.own);
    assert_int_equal(spool_message_write(m, str_of(body), NULL), 0);
    struct spool_commit commit = { .envelope = e, .prefix = original_prefix, .done = on_original };
    original_id = 0;
    spool_message_commit(m, &commit);
    while (!original_id)
        loop_run_once(f.ctx.loop, true);
    struct spool_entry entry;
    assert_true(find_record(original_id, &entry));
    return entry;
}

static void send_rows(const struct spool_entry *entry, const struct bounce_row *rows, size_t n)
{
    answer.calls = 0;
    bounce_send(&f.q, entry, rows, n, STR("mx.remote.test"), on_answer, NULL);
    assert_int_equal(answer.calls, 0); /* never from within the call */
    while (!answer.calls)
        loop_run_once(f.ctx.loop, true);
    loop_run_once(f.ctx.loop, false);
    assert_int_equal(answer.calls, 1);
}

static const struct spool_recipient both[] = { { .address = STR("x@remote.test"), .orcpt = STR("rfc822;old@remote.test") },
                                               { .address = STR("y@remote.test") } };
#define ENVELOPE(...) { .arrival_wall_ms = 1795290000000, .reverse_path = STR("a@corp.test"), \
                        .server = STR("mail.corp.test"), .recipient = both, .n_recipients = 2, __VA_ARGS__ }
static const char body[] = "Subject: hello\r\nFrom: a@corp.test\r\n\r\nthe text\r\n";
static const struct bounce_row failed_row = { .recipient = 0, .kind = BOUNCE_FAILED, .from_smtp = true, .dsn = STR("5.1.1"),
                                              .diagnostic = STR("550 5.1.1 no such user") };

static int setup(void **state)
{
    fixture_open();
    return 0;
}
static int teardown(void **state)
{
    fixture_close();
    return 0;
}

/* The notification that was written last. */
static char *sent(uint32_t *ret_flags)
{
    struct spool_reader *r = read_record(0);
    const struct spool_envelope *e = spool_reader_envelope(r);
    assert_int_equal(e->reverse_path.n, 0);
    assert_int_equal(e->n_recipients, 1);
    assert_int_equal(e->recipient[0].notify, SPOOL_NOTIFY_NEVER);
    assert_true(e->flags & SPOOL_FLAG_BOUNCE);
    assert_true(str_eq(e->server, STR("mail.corp.test")));
    *ret_flags = e->flags;
    char *text = read_text(r);
    spool_reader_free(&r);
    return text;
}

static void failure_returns_the_whole_message(void **state)
{
    struct spool_envelope e = ENVELOPE(.envid = STR("env-7"));
    struct spool_entry entry = store_original(&e, body);
    send_rows(&entry, &failed_row, 1);
    assert_int_equal(answer.result, 0);
    assert_int_equal(messages_durable(), 2);
    uint32_t flags;
    char *text = sent(&flags);
    assert_int_equal(flags, SPOOL_FLAG_BOUNCE);
    assert_ptr_equal(strstr(text, "Received: by mail.corp.test (Postern)\r\n\tid "), text);
    assert_non_null(strstr(text, "\r\nTo: <a@corp.test>\r\n"));
    assert_non_null(strstr(text, "Original-Envelope-Id: env-7"));
    assert_non_null(strstr(text, "Original-Recipient: rfc822; old@remote.test"));
    assert_non_null(strstr(text, "Final-Recipient: rfc822; x@remote.test"));
    assert_null(strstr(text, "y@remote.test"));
    assert_non_null(strstr(text, "Remote-MTA: dns; mx.remote.test"));
    assert_non_null(strstr(text, "Status: 5.1.1\r\n"));
    assert_non_null(strstr(text, "message/rfc822"));
    assert_non_null(strstr(text, "the text\r\n"));
    assert_true(logged("sender non-delivery notification: "));
    free(text);
}

static void headers_when_asked_or_too_large(void **state)
{
    struct spool_envelope e = ENVELOPE(.ret = SPOOL_RET_HDRS);
    struct spool_entry entry = store_original(&e, body);
    uint32_t flags;
    send_rows(&entry, &failed_row, 1);
    char *text = sent(&flags);
    assert_non_null(strstr(text, "text/rfc822-headers"));
    assert_non_null(strstr(text, "Subject: hello"));
    assert_null(strstr(text, "the text"));
    free(text);

    char *large = calloc(1, 65536);
    size_t n = (size_t)snprintf(large, 65536, "%s", body);
    while (n < 65520)
        n += (size_t)snprintf(large + n, 65536 - n, "0123456789\r\n");
    struct spool_envelope full = ENVELOPE(.ret = SPOOL_RET_FULL);
    entry = store_original(&full, large);
    free(large);
    send_rows(&entry, &failed_row, 1);
    text = sent(&flags);
    assert_non_null(strstr(text, "text/rfc822-headers"));
    assert_null(strstr(text, "the text"));
    free(text);
}

static void delay_and_success_have_their_words(void **state)
{
    struct spool_recipient asks[] = { { .address = STR("x@remote.test"), .notify = SPOOL_NOTIFY_DELAY },
                                      { .address = STR("y@remote.test"), .notify = SPOOL_NOTIFY_SUCCESS } };
    struct spool_envelope e = ENVELOPE(.ret = SPOOL_RET_FULL);
    e.recipient = asks;
    struct spool_entry entry = store_original(&e, body);
    struct bounce_row rows[] = { { .recipient = 0, .kind = BOUNCE_DELAYED, .dsn = STR("4.4.1"), .diagnostic = STR("refused") },
                                 { .recipient = 1, .kind = BOUNCE_DELAYED, .dsn = STR("4.4.1"), .diagnostic = STR("refused") } };
    uint32_t flags;
    send_rows(&entry, rows, 2);
    char *text = sent(&flags);
    assert_non_null(strstr(text, "Action: delayed"));
    assert_non_null(strstr(text, "Will-Retry-Until: "));
    assert_null(strstr(text, "y@remote.test"));
    assert_null(strstr(text, "the text"));
    assert_true(logged("sender delay notification: "));
    free(text);

    rows[0].kind = rows[1].kind = BOUNCE_DELIVERED;
    rows[1].dsn = STR("not\r\na status");
    send_rows(&entry, rows, 2);
    text = sent(&flags);
    assert_non_null(strstr(text, "Action: delivered"));
    assert_non_null(strstr(text, "Status: 2.0.0\r\n"));
    assert_null(strstr(text, "x@remote.test"));
    assert_true(logged("sender delivery status notification: "));
    free(text);
}

static void nothing_is_due(void **state)
{
    struct spool_recipient never[] = { { .address = STR("x@remote.test"), .notify = SPOOL_NOTIFY_NEVER },
                                       { .address = STR("y@remote.test"), .notify = SPOOL_NOTIFY_SUCCESS } };
    struct spool_envelope e = ENVELOPE(.ret = SPOOL_RET_UNSET);
    e.recipient = never;
    struct spool_entry entry = store_original(&e, body);
    struct bounce_row rows[] = { failed_row, failed_row, failed_row };
    rows[1].recipient = 1;
    rows[2].recipient = 77; /* no recipient of this message */
    send_rows(&entry, rows, 3);
    assert_int_equal(answer.result, 0);
    assert_int_equal(messages_durable(), 1);
    assert_false(logged("queue.bounce.dropped"));
}

static void notifications_are_not_bounced(void **state)
{
    struct spool_envelope null_sender = ENVELOPE(.ret = SPOOL_RET_UNSET);
    null_sender.reverse_path = STR_NONE;
    struct spool_entry entry = store_original(&null_sender, body);
    send_rows(&entry, &failed_row, 1);
    assert_int_equal(answer.result, 0);
    assert_true(logged("queue.bounce.dropped"));
    assert_true(logged("it has no sender"));
    assert_false(logged("it is a notification itself"));

    struct spool_envelope own = ENVELOPE(.flags = SPOOL_FLAG_BOUNCE);
    entry = store_original(&own, body);
    send_rows(&entry, &failed_row, 1);
    entry.flags = SPOOL_ENTRY_BOUNCE;
    send_rows(&entry, &failed_row, 1);
    assert_true(logged("it is a notification itself"));
    assert_int_equal(messages_durable(), 2);
}

static void utf8_makes_it_smtputf8(void **state)
{
    struct spool_recipient to[] = { { .address = STR("j\xc3\xb6rg@remote.test") }, { .address = STR("y@remote.test") } };
    struct spool_envelope e = ENVELOPE(.flags = SPOOL_FLAG_SMTPUTF8 | SPOOL_FLAG_8BIT);
    e.recipient = to;
    struct spool_entry entry = store_original(&e, "Subject: caf\xc3\xa9\r\n\r\ntext\r\n");
    struct bounce_row row = failed_row;
    row.diagnostic = STR("550 gone \xff\xfe\r\nX-Forged: yes");
    send_rows(&entry, &row, 1);
    uint32_t flags;
    char *text = sent(&flags);
    assert_int_equal(flags, SPOOL_FLAG_BOUNCE | SPOOL_FLAG_SMTPUTF8 | SPOOL_FLAG_8BIT);
    assert_non_null(strstr(text, "Final-Recipient: utf-8; j\xc3\xb6rg@remote.test"));
    assert_null(strstr(text, "\r\nX-Forged"));
    assert_null(strchr(text, 0xff));
    free(text);
}

static void what_cannot_be_read_is_tried_again(void **state)
{
    struct spool_envelope e = ENVELOPE(.ret = SPOOL_RET_UNSET);
    struct spool_entry entry = store_original(&e, body);
    f.refuse_read = true;
    send_rows(&entry, &failed_row, 1);
    assert_true(answer.result < 0);
    assert_true(logged("queue.bounce.failed"));
}

static void no_room_is_tried_again(void **state)
{
    struct spool_envelope e = ENVELOPE(.ret = SPOOL_RET_UNSET);
    struct spool_entry entry = store_original(&e, body);
    char *filler = calloc(1, 60001);
    memset(filler, 'x', 60000);
    while (spool_writer_can_accept(f.q.own))
        (void)store_original(&e, filler);
    struct bounce_row row = failed_row;
    for (int i = 0; i < 10000; i++) { /* until the last octets of the segment are used too */
        send_rows(&entry, &row, 1);
        if (answer.result < 0)
            break;
    }
    assert_int_equal(answer.result, ERR_BUSY);
    free(filler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failure_returns_the_whole_message, setup, teardown),
        cmocka_unit_test_setup_teardown(headers_when_asked_or_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(delay_and_success_have_their_words, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_due, setup, teardown),
        cmocka_unit_test_setup_teardown(notifications_are_not_bounced, setup, teardown),
        cmocka_unit_test_setup_teardown(utf8_makes_it_smtputf8, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(no_room_is_tried_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
