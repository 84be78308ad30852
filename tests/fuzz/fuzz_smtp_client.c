/* Anything for a server. The first octet chooses the options, the second how the rest is divided; then
 * come the server's octets. Nothing may crash, hang, or leave a transaction without its one DONE. */
#include <assert.h>
#include <stdlib.h>

#include "smtp/client.h"

static const struct smtp_client_recipient recipients[] = {
    { .address = { "a@example", 9 }, .notify = { "NEVER", 5 } },
    { .address = { "b@example", 9 } },
    { .address = { "\xc3\xa4@example", 10 } },
};
static const char body[] = "Subject: x\r\n\r\n.\r\n..a\r\nlast line without end";

struct run {
    struct smtp_client *client;
    unsigned begun, done, answers;
    bool over, layer;
    uint8_t options;
};

static void ignore_trace(void *arg, char direction, struct str line)
{
    (void)arg;
    assert(direction == '<' || direction == '>');
    assert(!memchr(line.p, '\n', line.n));
}

static void begin(struct run *run)
{
    struct smtp_client_message m = { .sender = STR("me@here"), .recipient = recipients, .n_recipients = 3,
        .body_bytes = sizeof body - 1, .eightbit = run->options & 1, .ret = STR("FULL"), .envid = STR("x") };
    if (run->begun >= 4) {
        smtp_client_quit(run->client, 0);
        return;
    }
    assert(smtp_client_send(run->client, &m, 0));
    run->begun++;
}

static void give_body(struct run *run)
{
    struct str rest = str_slice(body, sizeof body - 1);
    while (rest.n > 0) {
        struct str slice[2];
        size_t taken = 0;
        smtp_client_body(run->client, str_slice(rest.p, rest.n < 7 ? rest.n : 7), slice, 2, &taken, 0);
        assert(taken > 0);
        rest = str_skip(rest, taken);
    }
    smtp_client_body_end(run->client, 0);
}

static void answer(struct run *run, const struct smtp_client_event *event)
{
    switch (event->kind) {
    case SMTP_CLIENT_STARTTLS: smtp_client_tls_started(run->client, 0); break;
    case SMTP_CLIENT_AUTH_NEEDED:
        smtp_client_auth_begin(run->client, STR("PLAIN"), run->options & 4, run->options & 2, STR("abc"), 0);
        break;
    case SMTP_CLIENT_AUTH_CHALLENGE:
        if (run->answers++ < 3)
            smtp_client_auth_response(run->client, event->challenge.n ? STR("x") : STR(""), 0);
        else
            smtp_client_auth_cancel(run->client, 0);
        break;
    case SMTP_CLIENT_READY:
        assert(run->begun == run->done);
        if (smtp_client_authenticated(run->client) && !run->layer && (run->options & 1)) {
            run->layer = true;
            smtp_client_layer_started(run->client, 0);
            break;
        }
        begin(run);
        break;
    case SMTP_CLIENT_BODY_WANTED: give_body(run); break;
    case SMTP_CLIENT_DONE:
        run->done++;
        for (size_t i = 0; i < 3; i++) {
            struct smtp_client_result r = smtp_client_result(run->client, i);
            assert(r.enhanced[0]);
            for (size_t k = 0; k < r.text.n; k++)
                assert((unsigned char)r.text.p[k] >= ' ');
        }
        break;
    default: run->over = true; break;
    }
}

static void steps(struct run *run, struct str in)
{
    struct smtp_client_event event;
    while (!run->over && smtp_client_step(run->client, &in, 0, &event) != SMTP_CLIENT_READ)
        answer(run, &event);
    buf_clear(smtp_client_output(run->client));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint8_t o = data[0];
    struct run run = { .options = o };
    struct smtp_client_options options = { .helo = STR("me"), .lmtp = o & 4, .want_auth = o & 8, .auth_optional = o & 1,
        .tls = (enum smtp_client_tls)((o >> 4) % 3), .bdat = (enum smtp_client_bdat)((o >> 6) % 3),
        .trace = data[1] & 128 ? ignore_trace : NULL };
    run.client = smtp_client_new(&options, 0);
    if (!run.client)
        return 0;
    size_t piece = (data[1] & 63u) + 1, at = 2;
    while (at < size && !run.over) {
        size_t n = size - at < piece ? size - at : piece;
        char *copy = malloc(n);
        if (!copy)
            break;
        memcpy(copy, data + at, n);
        steps(&run, str_slice(copy, n));
        free(copy);
        at += n;
        piece = piece == 64 ? 4096 : piece;
    }
    if (!run.over) {
        if (data[1] & 64)
            smtp_client_timeout(run.client);
        else
            smtp_client_closed(run.client, "the input's end");
        steps(&run, STR_NONE);
        assert(run.over);
    }
    assert(run.begun == run.done);
    smtp_client_free(&run.client);
    return 0;
}
