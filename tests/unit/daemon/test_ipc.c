/* Messages between roles: what is written is read again; anything else, cut, lengthened or made up, is refused and never
 * read beyond its end (each body lies at the end of an allocation of its own, for the address sanitizer). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/ipc.h"
#include "io/channel.h"

/* Reads a body and writes what was read. */
static bool again_file(struct str body, struct buf *out)
{
    struct ipc_file m;
    bool ok = ipc_get_file(body, &m);
    if (ok)
        ipc_put_file(out, &m);
    return ok;
}

static bool again_reloaded(struct str body, struct buf *out)
{
    struct ipc_reloaded m;
    bool ok = ipc_get_reloaded(body, &m);
    if (ok)
        ipc_put_reloaded(out, &m);
    return ok;
}

static bool again_peer(struct str body, struct buf *out)
{
    struct ipc_peer m;
    bool ok = ipc_get_peer(body, &m);
    if (ok)
        ipc_put_peer(out, &m);
    return ok;
}

static bool again_segment(struct str body, struct buf *out)
{
    struct ipc_segment m;
    bool ok = ipc_get_segment(body, &m);
    if (ok)
        ipc_put_segment(out, &m);
    return ok;
}

static bool again_auth_start(struct str body, struct buf *out)
{
    struct ipc_auth_start m;
    bool ok = ipc_get_auth_start(body, &m);
    if (ok)
        ipc_put_auth_start(out, &m);
    return ok;
}

static bool again_auth_done(struct str body, struct buf *out)
{
    struct ipc_auth_done m;
    bool ok = ipc_get_auth_done(body, &m);
    if (ok)
        ipc_put_auth_done(out, &m);
    return ok;
}

static bool again_login_start(struct str body, struct buf *out)
{
    struct ipc_login_start m;
    bool ok = ipc_get_login_start(body, &m);
    if (ok)
        ipc_put_login_start(out, &m);
    return ok;
}

static bool again_login_end(struct str body, struct buf *out)
{
    struct ipc_login_end m;
    bool ok = ipc_get_login_end(body, &m);
    if (ok)
        ipc_put_login_end(out, &m);
    return ok;
}

static bool again_login_response(struct str body, struct buf *out)
{
    struct ipc_login_response m;
    bool ok = ipc_get_login_response(body, &m);
    if (ok)
        ipc_put_login_response(out, &m);
    return ok;
}

static bool again_sign(struct str body, struct buf *out)
{
    struct ipc_sign m;
    bool ok = ipc_get_sign(body, &m);
    if (ok)
        ipc_put_sign(out, &m);
    return ok;
}

static bool again_job(struct str body, struct buf *out)
{
    struct ipc_job m;
    bool ok = ipc_get_job(body, &m);
    if (ok)
        ipc_put_job(out, &m);
    return ok;
}

static bool again_result(struct str body, struct buf *out)
{
    struct ipc_result m;
    bool ok = ipc_get_result(body, &m);
    if (ok)
        ipc_put_result(out, &m);
    return ok;
}

static bool again_rows(struct str body, struct buf *out)
{
    struct wire rows = wire_of(body);
    struct ipc_result_row row;
    while (rows.rest.n) {
        if (!ipc_get_result_row(&rows, &row))
            return false;
        ipc_put_result_row(out, &row);
    }
    return !rows.bad;
}

static void put_file(struct buf *b)
{
    ipc_put_file(b, &(struct ipc_file){ IPC_FILE_CA, 255, STR("mail.corp.test"), STR("/etc/postern/mail.pem") });
}

static void put_reloaded(struct buf *b)
{
    ipc_put_reloaded(b, &(struct ipc_reloaded){ IPC_RELOAD_NOT_NOW, STR("another reload came") });
}

static void put_peer(struct buf *b)
{
    ipc_put_peer(b, &(struct ipc_peer){ ROLE_DELIVERY, 65535 });
}

static void put_segment(struct buf *b)
{
    ipc_put_segment(b, &(struct ipc_segment){ UINT64_MAX, 1, 1ULL << 40 });
}

static void put_auth_start(struct buf *b)
{
    struct ipc_auth_start m = {
        .flags = IPC_AUTH_FLAG_TLS | IPC_AUTH_FLAG_INITIAL, .port = 65535, .mechanism = STR("SCRAM-SHA-256-PLUS"),
        .server = STR("mail.corp.test"), .client = STR("192.0.2.1"), .helo = STR("x"), .session = STR("0123"),
        .tls = STR("TLSv1.3"), .cert_hash = STR("01234567890123456789012345678901"),
        .exporter = STR("abcdefghijklmnopqrstuvwxyzabcdef"), .offered = STR("PLAIN LOGIN"), .initial = STR("\0a\0b"),
    };
    ipc_put_auth_start(b, &m);
}

static void put_auth_done(struct buf *b)
{
    struct ipc_auth_done m = { IPC_AUTH_CANCELLED, 535, 7, STR("5.7.8"), STR("no"), STR("alice"), STR("bad-password"),
                               STR("alice@corp.test"), STR("a@corp.test"), { IPC_LAYER_NTLM, 65536, STR("keys") } };
    ipc_put_auth_done(b, &m);
}

static void put_login_start(struct buf *b)
{
    struct ipc_login_start m = { 1, STR("partner.example"), STR("smtp.partner.example"), STR("PLAIN"), STR("NTLM"), STR("h"),
                                 STR("e") };
    ipc_put_login_start(b, &m);
}

static void put_login_response(struct buf *b)
{
    struct ipc_login_response m = { 1, 1, 0, 1, STR("PLAIN"), STR("\0a\0b"), { IPC_LAYER_NONE, 0, STR_NONE } };
    ipc_put_login_response(b, &m);
}

static void put_login_end(struct buf *b)
{
    struct ipc_login_end m = { 0, 1, STR("mx[192.0.2.1]:25"), STR("AUTH GSSAPI"), STR("535 5.7.3 no") };
    ipc_put_login_end(b, &m);
}

static void put_sign(struct buf *b)
{
    ipc_put_sign(b, &(struct ipc_sign){ STR("mail.corp.test/0123"), STR("SHA256"), 1, STR("octets") });
}

static void put_job(struct buf *b)
{
    struct ipc_job m = { .job = 1, .message_id = 2, .segment = 3, .generation = 4, .offset = 5, .length = 6,
                         .has_body_file = 1, .attempt = 7, .block = 8, .conf_generation = 9,
                         .next_hop = STR("partner.example"), .recipients = STR("\0\0\1\0") };
    ipc_put_job(b, &m);
}

static void put_rows(struct buf *b)
{
    ipc_put_result_row(b, &(struct ipc_result_row){ IPC_STATUS_BOUNCED, 1, STR("5.1.1"), STR("550 5.1.1 no") });
    ipc_put_result_row(b, &(struct ipc_result_row){ IPC_STATUS_RETURNED, 0, STR_NONE, STR_NONE });
}

static void put_result(struct buf *b)
{
    struct buf rows;
    buf_init(&rows, 4096);
    put_rows(&rows);
    struct ipc_result m = { .job = 1, .hop_failed = 1, .relay = STR("h[192.0.2.1]:25"), .remote_name = STR("h"),
                            .tls = STR("none"), .auth = STR("none"), .n_rows = 2, .rows = buf_str(&rows) };
    ipc_put_result(b, &m);
    buf_done(&rows);
}

static const struct message {
    const char *name;
    void (*put)(struct buf *b);
    bool (*again)(struct str body, struct buf *out);
    bool list; /* a shorter one may be right */
} messages[] = {
    { "file", put_file, again_file, false },
    { "peer", put_peer, again_peer, false },
    { "reloaded", put_reloaded, again_reloaded, false },
    { "segment", put_segment, again_segment, false },
    { "auth_start", put_auth_start, again_auth_start, false },
    { "auth_done", put_auth_done, again_auth_done, false },
    { "login_start", put_login_start, again_login_start, false },
    { "login_response", put_login_response, again_login_response, false },
    { "login_end", put_login_end, again_login_end, false },
    { "sign", put_sign, again_sign, false },
    { "job", put_job, again_job, false },
    { "result", put_result, again_result, false },
    { "rows", put_rows, again_rows, true },
};
enum { N_MESSAGES = sizeof messages / sizeof messages[0] };

static bool read_copy(const struct message *m, struct str body, struct buf *out)
{
    char *copy = malloc(body.n ? body.n : 1);
    assert_non_null(copy);
    if (body.n)
        memcpy(copy, body.p, body.n);
    buf_clear(out);
    bool ok = m->again(str_slice(copy, body.n), out);
    free(copy);
    return ok;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct buf b, out;
        buf_init(&b, CHANNEL_BODY_MAX);
        buf_init(&out, CHANNEL_BODY_MAX);
        messages[i].put(&b);
        assert_false(b.failed);
        assert_true(read_copy(&messages[i], buf_str(&b), &out));
        assert_true(str_eq(buf_str(&b), buf_str(&out)));
        buf_done(&b);
        buf_done(&out);
    }
}

static void test_every_cut_and_a_longer_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct buf b, out;
        buf_init(&b, CHANNEL_BODY_MAX);
        buf_init(&out, CHANNEL_BODY_MAX);
        messages[i].put(&b);
        size_t whole = b.n, taken = 0;
        for (size_t n = 0; n < whole; n++)
            taken += read_copy(&messages[i], str_slice(b.p, n), &out);
        assert_int_equal(taken, messages[i].list ? 2 : 0); /* none, and the first row alone */
        buf_add_char(&b, 0);
        assert_false(read_copy(&messages[i], buf_str(&b), &out));
        buf_done(&b);
        buf_done(&out);
    }
}

/* Each octet in turn set to extremes: whatever is still taken is written back as it was read. */
static void test_changed_octets(void **state)
{
    (void)state;
    static const unsigned char values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct buf b, out;
        buf_init(&b, CHANNEL_BODY_MAX);
        buf_init(&out, CHANNEL_BODY_MAX);
        messages[i].put(&b);
        for (size_t at = 0; at < b.n; at++) {
            char was = b.p[at];
            for (size_t v = 0; v < sizeof values; v++) {
                b.p[at] = (char)values[v];
                if (read_copy(&messages[i], buf_str(&b), &out)) {
                    /* Views into a copy that is gone are not looked at: only what was written while it was there. */
                    assert_true(str_eq(buf_str(&b), buf_str(&out)));
                }
            }
            b.p[at] = was;
        }
        buf_done(&b);
        buf_done(&out);
    }
}

static void test_garbage(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    char octets[300];
    struct buf out;
    buf_init(&out, CHANNEL_BODY_MAX);
    for (int round = 0; round < 20000; round++) {
        for (size_t k = 0; k < sizeof octets; k++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            /* Mostly zero, so that lengths are small enough to be believed. */
            octets[k] = seed & 7 ? 0 : (char)(seed >> 32);
        }
        struct str body = str_slice(octets, (size_t)(seed % sizeof octets));
        for (size_t i = 0; i < N_MESSAGES; i++)
            if (read_copy(&messages[i], body, &out))
                assert_true(str_eq(body, buf_str(&out)));
    }
    buf_done(&out);
}

static void test_values_out_of_range(void **state)
{
    (void)state;
    struct buf b;
    struct ipc_file file = { .kind = IPC_FILE_KINDS };
    struct ipc_peer peer = { .role = ROLE_COUNT };
    struct ipc_auth_done done = { .result = IPC_AUTH_RESULTS };
    struct ipc_job job = { .next_hop = STR("x") };
    buf_init(&b, CHANNEL_BODY_MAX);
    ipc_put_file(&b, &file);
    assert_false(ipc_get_file(buf_str(&b), &file));
    buf_clear(&b);
    ipc_put_peer(&b, &peer);
    assert_false(ipc_get_peer(buf_str(&b), &peer));
    buf_clear(&b);
    ipc_put_auth_done(&b, &done);
    assert_false(ipc_get_auth_done(buf_str(&b), &done));
    buf_clear(&b);
    ipc_put_job(&b, &job); /* no recipient */
    assert_false(ipc_get_job(buf_str(&b), &job));
    buf_clear(&b);
    job.recipients = STR("odd");
    ipc_put_job(&b, &job);
    assert_false(ipc_get_job(buf_str(&b), &job));
    buf_done(&b);
    assert_string_equal(role_name(ROLE_COUNT), "unknown");
    assert_string_equal(role_name((enum role_id)-1), "unknown");
}

/* The longest of every field together still fits into a message. */
static void test_largest_messages_fit(void **state)
{
    (void)state;
    static char fill[80 * 1024];
    memset(fill, 'x', sizeof fill);
    struct str name = str_slice(fill, 1024);
    struct buf b;
    struct ipc_auth_start start = { .mechanism = name, .server = name, .client = name, .helo = name, .session = name,
                                    .tls = name, .offered = name, .cert_hash = str_slice(fill, 64),
                                    .exporter = str_slice(fill, 64), .initial = str_slice(fill, 72 * 1024) };
    buf_init(&b, CHANNEL_BODY_MAX);
    ipc_put_auth_start(&b, &start);
    assert_false(b.failed);
    assert_true(ipc_get_auth_start(buf_str(&b), &start));
    buf_clear(&b);
    struct ipc_result result = { .relay = name, .remote_name = name, .tls = name, .auth = name, .n_rows = 1000,
                                 .rows = str_slice(fill, IPC_RESULT_ROWS_MAX) };
    ipc_put_result(&b, &result);
    assert_false(b.failed);
    assert_true(ipc_get_result(buf_str(&b), &result));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_cut_and_a_longer_one),
        cmocka_unit_test(test_changed_octets),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_largest_messages_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
