/* The client machine against scripted servers: every script in every division of the server's octets and
 * of the body. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "smtp/client.h"

struct turn {
    const char *client; /* what must have been written before the server speaks */
    const char *server; /* NULL: it closes; "!": the deadline passes */
};

struct script {
    const char *name;
    struct smtp_client_options options;
    struct smtp_client_message message[2];
    const char *body;
    const char *mechanism, *initial;   /* answer to AUTH_NEEDED; initial NULL: none; mechanism "-": skip it */
    bool exps, layer;                  /* with X-EXPS; a security layer starts at the first READY */
    const char *response[3];           /* answers to challenges; NULL: cancel */
    struct turn turn[12];
    const char *events;
    bool quit;                         /* after the last message */
};

struct run {
    const struct script *script;
    struct smtp_client *client;
    struct buf sent, events;
    size_t body_piece, n_messages, n_responses;
    bool over, layer_active;
};

#define EHLO_REPLY(rest) "250-mx.example at your service\r\n" rest "250 HELP\r\n"
#define RCPT(a) { .address = { a, sizeof(a) - 1 } }

static const struct smtp_client_recipient one[] = { RCPT("b@example") };
static const struct smtp_client_recipient three[] = { RCPT("x@example"), RCPT("y@example"), RCPT("z@example") };
static const struct smtp_client_recipient utf8_one[] = { RCPT("\xc3\xa4@example"), RCPT("b@example") };
static const struct smtp_client_recipient evil[] = { RCPT("a@b> NOTIFY=NEVER"), RCPT("a@b\r\nDATA"),
                                                     RCPT("\"a b>\"@c"), RCPT("") };
static const struct smtp_client_recipient dsn[] = {
    { .address = { "b@example", 9 }, .notify = { "SUCCESS,DELAY", 13 }, .orcpt = { "rfc822;b+40example", 18 } },
};

static void take_output(struct run *run)
{
    struct buf *out = smtp_client_output(run->client);
    assert_false(out->failed);
    buf_add(&run->sent, buf_str(out));
    buf_consume(out, out->n);
}

static void give_body(struct run *run)
{
    struct str body = str_of(run->script->body);
    take_output(run);
    while (body.n > 0) {
        struct str slices[2];
        size_t taken = 0;
        struct str piece = str_slice(body.p, body.n < run->body_piece ? body.n : run->body_piece);
        size_t n = smtp_client_body(run->client, piece, slices, run->body_piece % 2 + 1, &taken, 1000);
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++)
            buf_add(&run->sent, slices[i]);
        body = str_skip(body, taken);
    }
    smtp_client_body_end(run->client, 1000);
}

static void note_result(struct run *run, const struct smtp_client_result *r)
{
    buf_addf(&run->events, " %d:%s:%u:%s:%.*s", smtp_client_outcome(r), smtp_client_stage_name(r->stage), r->code,
             r->enhanced, STR_ARG(r->text));
}

static void on_ready(struct run *run)
{
    const struct script *script = run->script;
    if (script->layer && !run->layer_active) {
        run->layer_active = true;
        buf_add_c(&run->events, "LAYER ");
        smtp_client_layer_started(run->client, 1000);
        return;
    }
    buf_add_c(&run->events, "READY ");
    if (run->n_messages < 2 && script->message[run->n_messages].n_recipients > 0) {
        struct smtp_client_message m = script->message[run->n_messages++];
        if (m.body_bytes == 0)
            m.body_bytes = strlen(script->body);
        assert_true(smtp_client_send(run->client, &m, 1000));
    } else if (script->quit) {
        smtp_client_quit(run->client, 1000);
    }
}

static void on_challenge(struct run *run, struct str challenge)
{
    buf_addf(&run->events, "CHALLENGE(%.*s) ", STR_ARG(challenge));
    const char *response = run->script->response[run->n_responses++];
    if (response)
        smtp_client_auth_response(run->client, str_of(response), 1000);
    else
        smtp_client_auth_cancel(run->client, 1000);
}

static void on_done(struct run *run)
{
    buf_add_c(&run->events, "DONE");
    for (size_t i = 0; i < run->script->message[run->n_messages - 1].n_recipients; i++) {
        struct smtp_client_result r = smtp_client_result(run->client, i);
        note_result(run, &r);
    }
    buf_add_c(&run->events, " ");
}

static void on_auth_needed(struct run *run, const struct smtp_client_event *event)
{
    const struct script *script = run->script;
    buf_addf(&run->events, "AUTH(%.*s%s%.*s) ", STR_ARG(event->mechanisms), event->exps_mechanisms.n ? "|" : "",
             STR_ARG(event->exps_mechanisms));
    if (strcmp(script->mechanism, "-") == 0)
        smtp_client_auth_skip(run->client);
    else
        smtp_client_auth_begin(run->client, str_of(script->mechanism), script->exps, script->initial,
                               str_of(script->initial), 1000);
}

static void steps(struct run *run, struct str in)
{
    struct smtp_client_event event;
    while (smtp_client_step(run->client, &in, 1000, &event) != SMTP_CLIENT_READ) {
        switch (event.kind) {
        case SMTP_CLIENT_STARTTLS:
            take_output(run);
            buf_add_c(&run->events, "STARTTLS ");
            smtp_client_tls_started(run->client, 1000);
            break;
        case SMTP_CLIENT_AUTH_NEEDED:
            on_auth_needed(run, &event);
            break;
        case SMTP_CLIENT_AUTH_CHALLENGE: on_challenge(run, event.challenge); break;
        case SMTP_CLIENT_READY: on_ready(run); break;
        case SMTP_CLIENT_BODY_WANTED: give_body(run); break;
        case SMTP_CLIENT_DONE: on_done(run); break;
        default:
            buf_add_c(&run->events, event.kind == SMTP_CLIENT_CLOSED ? "CLOSED" : "FAILED");
            note_result(run, &event.result);
            run->over = true;
            return;
        }
    }
    take_output(run);
    assert_int_equal(in.n, 0);
}

static void serve(struct run *run, const char *server, size_t piece)
{
    if (!server) {
        smtp_client_closed(run->client, NULL);
        steps(run, STR_NONE);
        return;
    }
    if (strcmp(server, "!") == 0) {
        assert_true(smtp_client_deadline_ms(run->client) > 1000);
        smtp_client_timeout(run->client);
        steps(run, STR_NONE);
        return;
    }
    struct str rest = str_of(server);
    while (rest.n > 0 && !run->over) {
        /* From memory of its own, so that a view kept too long is noticed. */
        size_t n = rest.n < piece ? rest.n : piece;
        char *copy = malloc(n);
        assert_non_null(copy);
        memcpy(copy, rest.p, n);
        steps(run, str_slice(copy, n));
        free(copy);
        rest = str_skip(rest, n);
    }
}

static void play(const struct script *script, size_t piece, size_t body_piece)
{
    struct run run = { .script = script, .body_piece = body_piece };
    buf_init(&run.sent, 1 << 20);
    buf_init(&run.events, 1 << 20);
    struct smtp_client_options options = script->options;
    options.helo = STR("me.example");
    run.client = smtp_client_new(&options, 1000);
    assert_non_null(run.client);
    for (const struct turn *turn = script->turn; turn->client; turn++) {
        if (strcmp(buf_cstr(&run.sent), turn->client) != 0)
            fail_msg("%s (pieces of %zu, %zu): wrote\n%s\ninstead of\n%s", script->name, piece, body_piece,
                     buf_cstr(&run.sent), turn->client);
        buf_clear(&run.sent);
        if (turn->server && !*turn->server)
            break;
        serve(&run, turn->server, piece);
    }
    if (strcmp(buf_cstr(&run.events), script->events) != 0)
        fail_msg("%s (pieces of %zu, %zu): events\n%s\ninstead of\n%s", script->name, piece, body_piece,
                 buf_cstr(&run.events), script->events);
    smtp_client_free(&run.client);
    buf_done(&run.sent);
    buf_done(&run.events);
}

static void play_all(const struct script *script, size_t n)
{
    static const size_t body_pieces[] = { 1, 2, 3, 5, 4096 };
    for (size_t i = 0; i < n; i++)
        for (size_t piece = 1; piece < 120; piece += piece < 20 ? 1 : 33)
            for (size_t b = 0; b < sizeof body_pieces / sizeof body_pieces[0]; b++)
                play(&script[i], piece, body_pieces[b]);
}
#define PLAY(scripts) play_all(scripts, sizeof scripts / sizeof scripts[0])

#define FROM_A .sender = { "a@here", 6 }
#define GREET { "", "220 mx.example ESMTP\r\n" }
#define SENT_OK "0:end of DATA:250:2.0.0:250 2.0.0 Ok: queued as 7"
#define QUEUED "250 2.0.0 Ok: queued as 7\r\n"

static void messages(void **state)
{
    static const struct script scripts[] = {
        { .name = "no extension at all",
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "Subject: x\r\n\r\n.dot\r\n..\r\ntext.\r\n", .quit = true,
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx.example\r\n" },
                    { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" }, { "RCPT TO:<b@example>\r\n", "250 ok\r\n" },
                    { "DATA\r\n", "354 go\r\n" },
                    { "Subject: x\r\n\r\n..dot\r\n...\r\ntext.\r\n.\r\n", QUEUED }, { "QUIT\r\n", "221 bye\r\n" } },
          .events = "READY DONE " SENT_OK " READY CLOSED 0:QUIT:221:2.0.0:221 bye" },
        { .name = "pipelined, two messages, a refused recipient",
          .message = { { FROM_A, .recipient = three, .n_recipients = 3 }, { .recipient = one, .n_recipients = 1 } },
          .body = "x",
          .turn = { GREET,
                    { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n") },
                    { "MAIL FROM:<a@here> SIZE=1\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\n"
                      "RCPT TO:<z@example>\r\nDATA\r\n",
                      "250 ok\r\n250 ok\r\n550-5.1.1 who\r\n550 5.1.1 is y\r\n250 ok\r\n354 go\r\n" },
                    { "x\r\n.\r\n", QUEUED },
                    { "MAIL FROM:<> SIZE=1\r\nRCPT TO:<b@example>\r\nDATA\r\n", "250 ok\r\n250 ok\r\n354 go\r\n" },
                    { "x\r\n.\r\n", "451 later\r\n" }, { "", "" } },
          .events = "READY DONE " SENT_OK " 2:RCPT TO:550:5.1.1:550 5.1.1 who is y " SENT_OK
                    " READY DONE 1:end of DATA:451:4.0.0:451 later READY " },
        { .name = "all refused, DATA accepted all the same, then another message",
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 }, { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nDATA\r\n", "250 ok\r\n450 no\r\n354 go\r\n" },
                    { ".\r\n", "554 no recipients\r\n" },
                    { "RSET\r\nMAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nDATA\r\n",
                      "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n" },
                    { "x\r\n.\r\n", QUEUED }, { "", "" } },
          .events = "READY DONE 1:RCPT TO:450:4.0.0:450 no READY DONE " SENT_OK " READY " },
        { .name = "all refused without pipelining: no DATA, RSET before the next",
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 }, { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" },
                    { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" }, { "RCPT TO:<b@example>\r\n", "550 no\r\n" },
                    { "RSET\r\n", "250 ok\r\n" }, { "MAIL FROM:<a@here>\r\n", "552 5.2.2 full\r\n" }, { "", "" } },
          .events = "READY DONE 2:RCPT TO:550:5.0.0:550 no READY DONE 2:MAIL FROM:552:5.2.2:552 5.2.2 full READY " },
        { .name = "MAIL refused in a pipeline",
          .message = { { FROM_A, .recipient = three, .n_recipients = 3 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\nRCPT TO:<z@example>\r\n"
                      "DATA\r\n",
                      "550 5.7.1 not you\r\n503 no\r\n503 no\r\n503 no\r\n503 no\r\n" }, { "", "" } },
          .events = "READY DONE 2:MAIL FROM:550:5.7.1:550 5.7.1 not you 2:MAIL FROM:550:5.7.1:550 5.7.1 not you "
                    "2:MAIL FROM:550:5.7.1:550 5.7.1 not you READY " },
        { .name = "DSN parameters",
          .message = { { FROM_A, .recipient = dsn, .n_recipients = 1, .ret = { "HDRS", 4 }, .envid = { "id+2B7", 6 },
                         .eightbit = true } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n250-DSN\r\n250-8BITMIME\r\n") },
                    { "MAIL FROM:<a@here> BODY=8BITMIME RET=HDRS ENVID=id+2B7\r\n"
                      "RCPT TO:<b@example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+40example\r\nDATA\r\n",
                      "250 ok\r\n250 ok\r\n554 5.6.0 no\r\n" }, { "", "" } },
          .events = "READY DONE 2:DATA:554:5.6.0:554 5.6.0 no READY " },
    };
    (void)state;
    PLAY(scripts);
}

static void chunking(void **state)
{
#define CHUNKING EHLO_REPLY("250-CHUNKING\r\n250-PIPELINING\r\n")
    static const struct script scripts[] = {
        { .name = "BDAT after the recipients", .options = { .bdat = SMTP_CLIENT_BDAT_AFTER_RCPT },
          .message = { { FROM_A, .recipient = three, .n_recipients = 3 } }, .body = ".x\r\n.\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", CHUNKING },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\nRCPT TO:<z@example>\r\n",
                      "250 ok\r\n250 ok\r\n452 no\r\n250 ok\r\n" },
                    { "BDAT 7 LAST\r\n.x\r\n.\r\n", QUEUED }, { "", "" } },
          .events = "READY DONE " SENT_OK " 1:RCPT TO:452:4.0.0:452 no " SENT_OK " READY " },
        { .name = "nobody accepted: no BDAT; a refused chunk: RSET", .options = { .bdat = SMTP_CLIENT_BDAT_AFTER_RCPT },
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 }, { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", CHUNKING },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\n", "250 ok\r\n550 no\r\n" },
                    { "RSET\r\nMAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n" },
                    { "BDAT 3 LAST\r\nx\r\n", "554 5.6.0 bad\r\n" }, { "", "" } },
          .events = "READY DONE 2:RCPT TO:550:5.0.0:550 no READY DONE 2:end of DATA:554:5.6.0:554 5.6.0 bad READY " },
        { .name = "all in one flight", .options = { .bdat = SMTP_CLIENT_BDAT_ONE_FLIGHT },
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 }, { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", CHUNKING },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nBDAT 3 LAST\r\nx\r\n",
                      "250 ok\r\n250 ok\r\n" QUEUED },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nBDAT 3 LAST\r\nx\r\n",
                      "250 ok\r\n550 no\r\n503 nobody\r\n" }, { "", "" } },
          .events = "READY DONE " SENT_OK " READY DONE 2:RCPT TO:550:5.0.0:550 no READY " },
    };
    (void)state;
    PLAY(scripts);
}

static void lmtp(void **state)
{
    static const struct script scripts[] = {
        { .name = "a reply for each accepted recipient", .options = { .lmtp = true, .bdat = SMTP_CLIENT_BDAT_AFTER_RCPT },
          .message = { { FROM_A, .recipient = three, .n_recipients = 3 } }, .body = "x\r\n",
          .turn = { { "", "220 lmtp\r\n" },
                    { "LHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n250-CHUNKING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\nRCPT TO:<z@example>\r\n"
                      "DATA\r\n", "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n" },
                    { "x\r\n.\r\n", QUEUED "452 4.2.2 full\r\n" }, { "", "" } },
          .events = "READY DONE " SENT_OK " 2:RCPT TO:550:5.0.0:550 no 1:end of DATA:452:4.2.2:452 4.2.2 full READY " },
        { .name = "closed between two final replies", .options = { .lmtp = true },
          .message = { { FROM_A, .recipient = three, .n_recipients = 3 } }, .body = "x\r\n",
          .turn = { { "", "220 lmtp\r\n" }, { "LHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\nRCPT TO:<z@example>\r\n"
                      "DATA\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n" },
                    { "x\r\n.\r\n", QUEUED }, { "", NULL } },
          .events = "READY DONE " SENT_OK
                    " 1:end of DATA:0:4.4.2:lost connection while sending end of data -- message may be sent more than once"
                    " 1:end of DATA:0:4.4.2:lost connection while sending end of data -- message may be sent more than once"
                    " FAILED 1:end of DATA:0:4.4.2:lost connection while sending end of data -- message may be sent more "
                    "than once" },
        { .name = "LHLO refused: no HELO", .options = { .lmtp = true },
          .turn = { { "", "220 smtp\r\n" }, { "LHLO me.example\r\n", "500 what\r\n" } },
          .events = "FAILED 2:EHLO:500:5.0.0:500 what" },
    };
    (void)state;
    PLAY(scripts);
}

static void decided_here(void **state)
{
    static const struct script scripts[] = {
        { .name = "SMTPUTF8 not offered", .message = { { FROM_A, .recipient = one, .n_recipients = 1, .smtputf8 = true } },
          .body = "x\r\n", .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-8BITMIME\r\n") }, { "", "" } },
          .events = "READY DONE 2:MAIL FROM:0:5.6.7:SMTPUTF8 is required, but was not offered by the server READY " },
        { .name = "one address needs SMTPUTF8", .message = { { FROM_A, .recipient = utf8_one, .n_recipients = 2 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("") }, { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" },
                    { "RCPT TO:<b@example>\r\n", "250 ok\r\n" }, { "DATA\r\n", "354 go\r\n" },
                    { "x\r\n.\r\n", QUEUED }, { "", "" } },
          .events = "READY DONE 2:RCPT TO:0:5.6.7:SMTPUTF8 is required, but was not offered by the server " SENT_OK
                    " READY " },
        { .name = "SMTPUTF8 offered", .message = { { FROM_A, .recipient = utf8_one, .n_recipients = 1, .smtputf8 = true,
                                                    .eightbit = true } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-SMTPUTF8\r\n250-8bitmime\r\n") },
                    { "MAIL FROM:<a@here> BODY=8BITMIME SMTPUTF8\r\n", "250 ok\r\n" },
                    { "RCPT TO:<\xc3\xa4@example>\r\n", "451 4.3.0 no\r\n" }, { "", "" } },
          .events = "READY DONE 1:RCPT TO:451:4.3.0:451 4.3.0 no READY " },
        { .name = "8BITMIME not offered", .message = { { FROM_A, .recipient = one, .n_recipients = 1, .eightbit = true } },
          .body = "x\r\n", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", "" } },
          .events = "READY DONE 2:MAIL FROM:0:5.6.3:the message has 8-bit content, but 8BITMIME was not offered by the "
                    "server READY " },
        { .name = "too large", .message = { { FROM_A, .recipient = one, .n_recipients = 1, .body_bytes = 1001 } },
          .body = "x\r\n", .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-SIZE 1000\r\n") }, { "", "" } },
          .events = "READY DONE 2:MAIL FROM:0:5.3.4:message size 1001 exceeds size limit 1000 of the server READY " },
        { .name = "addresses that would be commands", .message = { { FROM_A, .recipient = evil, .n_recipients = 4 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" },
                    { "RCPT TO:<\"a b>\"@c>\r\n", "550 no\r\n" }, { "", "" } },
          .events = "READY DONE 2:RCPT TO:0:5.1.3:the address cannot be written into a RCPT command "
                    "2:RCPT TO:0:5.1.3:the address cannot be written into a RCPT command 2:RCPT TO:550:5.0.0:550 no "
                    "2:RCPT TO:0:5.1.3:the address cannot be written into a RCPT command READY " },
        { .name = "a sender that would be a command",
          .message = { { .sender = { "a@b\nX", 5 }, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", "" } },
          .events = "READY DONE 2:MAIL FROM:0:5.1.7:the sender's address cannot be written into a MAIL command READY " },
    };
    (void)state;
    PLAY(scripts);
}

static void beginnings(void **state)
{
#define TLS_OFFER EHLO_REPLY("250-STARTTLS\r\n250-AUTH PLAIN\r\n")
    static const struct script scripts[] = {
        { .name = "EHLO refused", .turn = { GREET, { "EHLO me.example\r\n", "502 what\r\n" },
                                            { "HELO me.example\r\n", "250 hi\r\n" }, { "", "" } }, .events = "READY " },
        { .name = "HELO refused", .turn = { GREET, { "EHLO me.example\r\n", "502 what\r\n" },
                                            { "HELO me.example\r\n", "550 no\r\n" } },
          .events = "FAILED 2:EHLO:550:5.0.0:550 no" },
        { .name = "EHLO deferred", .turn = { GREET, { "EHLO me.example\r\n", "450 4.7.1 wait\r\n" } },
          .events = "FAILED 1:EHLO:450:4.7.1:450 4.7.1 wait" },
        { .name = "greeted with no", .turn = { { "", "554-go\r\n554 away\r\n" } },
          .events = "FAILED 2:initial greeting:554:5.0.0:554 go away" },
        { .name = "not SMTP", .turn = { { "", "SSH-2.0-OpenSSH_9.2\r\n" } },
          .events = "FAILED 1:initial greeting:0:4.5.0:the server's answer to initial greeting is not SMTP, or too long" },
        { .name = "TLS if offered", .options = { .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "STARTTLS\r\n", "220 go\r\n" },
                    { "EHLO me.example\r\n", EHLO_REPLY("") }, { "", "" } },
          .events = "STARTTLS READY " },
        { .name = "TLS not offered, not needed", .options = { .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("") }, { "", "" } }, .events = "READY " },
        { .name = "TLS refused, not needed", .options = { .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "STARTTLS\r\n", "454 later\r\n" }, { "", "" } },
          .events = "READY " },
        { .name = "TLS offered, not wanted", .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "", "" } },
          .events = "READY " },
        { .name = "TLS required, not offered", .options = { .tls = SMTP_CLIENT_TLS_REQUIRE },
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("") } },
          .events = "FAILED 1:EHLO:0:4.7.4:TLS is required, but was not offered by the server" },
        { .name = "TLS required, HELO only", .options = { .tls = SMTP_CLIENT_TLS_REQUIRE },
          .turn = { GREET, { "EHLO me.example\r\n", "500 what\r\n" }, { "HELO me.example\r\n", "250 hi\r\n" } },
          .events = "FAILED 1:EHLO:0:4.7.4:TLS is required, but was not offered by the server" },
        { .name = "TLS required, refused", .options = { .tls = SMTP_CLIENT_TLS_REQUIRE },
          .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "STARTTLS\r\n", "554 no\r\n" } },
          .events = "FAILED 1:STARTTLS:0:4.7.4:TLS is required, but the server refused STARTTLS: 554 no" },
        { .name = "421 instead of TLS", .options = { .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "STARTTLS\r\n", "421 4.3.2 bye\r\n" } },
          .events = "FAILED 1:STARTTLS:421:4.3.2:421 4.3.2 bye" },
        { .name = "TLS from the first octet", .options = { .tls = SMTP_CLIENT_TLS_REQUIRE, .tls_active = true },
          .turn = { GREET, { "EHLO me.example\r\n", TLS_OFFER }, { "", "" } }, .events = "READY " },
        { .name = "greeting timed out", .turn = { { "", "!" } },
          .events = "FAILED 1:initial greeting:0:4.4.2:conversation timed out while waiting for the greeting" },
        { .name = "closed at once", .turn = { { "", NULL } },
          .events = "FAILED 1:initial greeting:0:4.4.2:lost connection while waiting for the greeting" },
        { .name = "closed while idle", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", NULL } },
          .events = "READY CLOSED 1:idle connection:0:4.4.2:lost connection while idle" },
        { .name = "421 while idle", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", "421 bye\r\n" } },
          .events = "READY CLOSED 1:idle connection:421:4.0.0:421 bye" },
        { .name = "chatter while idle", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", "250 ok\r\n" } },
          .events = "READY FAILED 1:idle connection:0:4.5.0:the server answered out of step (idle connection): 250 ok" },
    };
    (void)state;
    PLAY(scripts);
}

static void authentication(void **state)
{
#define AUTH_OFFER EHLO_REPLY("250-AUTH PLAIN LOGIN\r\n250-AUTH=LOGIN\r\n")
#define LONG_100 "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
    static const struct script scripts[] = {
        { .name = "initial response", .options = { .want_auth = true }, .mechanism = "PLAIN", .initial = "u",
          .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH PLAIN dQ==\r\n", "235 2.7.0 ok\r\n" },
                    { "MAIL FROM:<a@here> AUTH=<>\r\n", "250 ok\r\n" }, { "RCPT TO:<b@example>\r\n", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) READY " },
        { .name = "empty initial response", .options = { .want_auth = true }, .mechanism = "EXTERNAL", .initial = "",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH EXTERNAL =\r\n", "235 2.7.0 ok\r\n" }, { "", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) READY " },
        { .name = "challenges", .options = { .want_auth = true }, .mechanism = "LOGIN", .response = { "user", "" },
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n" },
                    { "dXNlcg==\r\n", "334 UGFzc3dvcmQ6\r\n" }, { "\r\n", "235 ok\r\n" }, { "", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) CHALLENGE(Username:) CHALLENGE(Password:) READY " },
        { .name = "plain words in the first 334", .options = { .want_auth = true }, .mechanism = "GSSAPI",
          .response = { "token" },
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH GSSAPI\r\n", "334 GSSAPI supported\r\n" },
                    { "dG9rZW4=\r\n", "235 ok\r\n" }, { "", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) CHALLENGE() READY " },
        { .name = "plain words later", .options = { .want_auth = true }, .mechanism = "GSSAPI", .initial = "a",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH GSSAPI YQ==\r\n", "334 GSSAPI supported\r\n" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) FAILED 1:AUTH:0:4.7.0:the server's challenge is not base64" },
        { .name = "long initial response is held back", .options = { .want_auth = true }, .mechanism = "X",
          .initial = LONG_100 LONG_100 LONG_100 LONG_100,
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH X\r\n", "334 \r\n" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) " },
        { .name = "wrong password", .options = { .want_auth = true }, .mechanism = "PLAIN", .initial = "u",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH PLAIN dQ==\r\n", "535 5.7.8 bad\r\n" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) FAILED 2:AUTH:535:5.7.8:535 5.7.8 bad" },
        { .name = "cancelled", .options = { .want_auth = true }, .mechanism = "LOGIN",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH LOGIN\r\n", "334 eA==\r\n" },
                    { "*\r\n", "501 5.7.0 cancelled\r\n" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) CHALLENGE(x) FAILED 1:AUTH:0:4.7.0:authentication was given up by this side" },
        { .name = "not offered", .options = { .want_auth = true },
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" } },
          .events = "FAILED 1:EHLO:0:4.7.0:the server offers no authentication, but this route demands it" },
        { .name = "only what is offered under TLS counts",
          .options = { .want_auth = true, .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-STARTTLS\r\n250-AUTH PLAIN\r\n") },
                    { "STARTTLS\r\n", "220 go\r\n" }, { "EHLO me.example\r\n", "250 mx\r\n" } },
          .events = "STARTTLS FAILED 1:EHLO:0:4.7.0:the server offers no authentication, but this route demands it" },
    };
    (void)state;
    PLAY(scripts);
}

static void exps_and_layers(void **state)
{
#define EXPS_OFFER EHLO_REPLY("250-X-EXPS GSSAPI NTLM LOGIN\r\n250-X-EXPS=LOGIN\r\n250-AUTH LOGIN\r\n")
#define LONG_BASE64 "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Nj" \
    "c4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0" \
    "NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMT" \
    "IzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5" \
    "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Nj" \
    "c4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OQ=="
#define LONG_400 LONG_100 LONG_100 LONG_100 LONG_100
    static const struct script scripts[] = {
        { .name = "X-EXPS", .options = { .want_auth = true }, .mechanism = "NTLM", .exps = true, .response = { "a", "b" },
          .turn = { GREET, { "EHLO me.example\r\n", EXPS_OFFER }, { "X-EXPS NTLM\r\n", "334 ntlm supported\r\n" },
                    { "YQ==\r\n", "334 eA==\r\n" }, { "Yg==\r\n", "235 2.7.0 ok\r\n" }, { "", "" } },
          .events = "AUTH(LOGIN|GSSAPI NTLM LOGIN LOGIN) CHALLENGE() CHALLENGE(x) READY " },
        { .name = "X-EXPS alone", .options = { .want_auth = true }, .mechanism = "GSSAPI", .exps = true, .initial = "t",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-x-exps GSSAPI\r\n") },
                    { "X-EXPS GSSAPI dA==\r\n", "535 5.7.3 no\r\n" } },
          .events = "AUTH(|GSSAPI) FAILED 2:AUTH:535:5.7.3:535 5.7.3 no" },
        { .name = "words for a token that was held back", .options = { .want_auth = true }, .mechanism = "GSSAPI",
          .exps = true, .initial = LONG_400, .response = { "c" },
          .turn = { GREET, { "EHLO me.example\r\n", EXPS_OFFER }, { "X-EXPS GSSAPI\r\n", "334 GSSAPI supported\r\n" },
                    { LONG_BASE64 "\r\n", "334 eA==\r\n" }, { "Yw==\r\n", "235 2.7.0 ok\r\n" }, { "", "" } },
          .events = "AUTH(LOGIN|GSSAPI NTLM LOGIN LOGIN) CHALLENGE(x) READY " },
        { .name = "a layer", .options = { .want_auth = true, .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC }, .mechanism = "PLAIN",
          .initial = "u", .layer = true, .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-AUTH PLAIN\r\n") },
                    { "AUTH PLAIN dQ==\r\n", "235 2.7.0 ok\r\n" },
                    { "EHLO me.example\r\n", EHLO_REPLY("250-STARTTLS\r\n250-AUTH PLAIN\r\n250-8BITMIME\r\n") },
                    { "MAIL FROM:<a@here> AUTH=<>\r\n", "" } },
          .events = "AUTH(PLAIN) LAYER READY " },
        { .name = "optional, not offered", .options = { .want_auth = true, .auth_optional = true },
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "", "" } }, .events = "READY " },
        { .name = "optional, refused", .options = { .want_auth = true, .auth_optional = true }, .mechanism = "PLAIN",
          .initial = "u", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH PLAIN dQ==\r\n", "535 5.7.8 bad\r\n" },
                    { "MAIL FROM:<a@here>\r\n", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) READY " },
        { .name = "optional, skipped", .options = { .want_auth = true, .auth_optional = true }, .mechanism = "-",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) READY " },
        { .name = "optional, given up", .options = { .want_auth = true, .auth_optional = true }, .mechanism = "LOGIN",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH LOGIN\r\n", "334 eA==\r\n" },
                    { "*\r\n", "501 5.7.0 cancelled\r\n" }, { "", "" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) CHALLENGE(x) READY " },
        { .name = "optional, and the server leaves", .options = { .want_auth = true, .auth_optional = true },
          .mechanism = "PLAIN", .initial = "u",
          .turn = { GREET, { "EHLO me.example\r\n", AUTH_OFFER }, { "AUTH PLAIN dQ==\r\n", "421 4.7.0 bye\r\n" } },
          .events = "AUTH(PLAIN LOGIN LOGIN) FAILED 1:AUTH:421:4.7.0:421 4.7.0 bye" },
    };
    (void)state;
    PLAY(scripts);
}

static void breaks(void **state)
{
#define LOST(stage, what) "1:" stage ":0:4.4.2:" what
    static const struct script scripts[] = {
        { .name = "421 to a recipient", .message = { { FROM_A, .recipient = three, .n_recipients = 3 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<x@example>\r\nRCPT TO:<y@example>\r\nRCPT TO:<z@example>\r\nDATA\r\n",
                      "250 ok\r\n550 no\r\n421 4.3.2 down\r\n" } },
          .events = "READY DONE 2:RCPT TO:550:5.0.0:550 no 1:RCPT TO:421:4.3.2:421 4.3.2 down "
                    "1:RCPT TO:421:4.3.2:421 4.3.2 down FAILED 1:RCPT TO:421:4.3.2:421 4.3.2 down" },
        { .name = "timeout at RCPT", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" },
                    { "RCPT TO:<b@example>\r\n", "!" } },
          .events = "READY DONE " LOST("RCPT TO", "conversation timed out while sending RCPT TO") " FAILED "
                    LOST("RCPT TO", "conversation timed out while sending RCPT TO") },
        { .name = "closed after the dot", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "MAIL FROM:<a@here>\r\n", "250 ok\r\n" },
                    { "RCPT TO:<b@example>\r\n", "250 ok\r\n" }, { "DATA\r\n", "354 go\r\n" }, { ".\r\n", "421 no\r\n" } },
          .events = "READY DONE 1:end of DATA:421:4.0.0:421 no FAILED 1:end of DATA:421:4.0.0:421 no" },
        { .name = "354 to MAIL", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "MAIL FROM:<a@here>\r\n", "354 ok\r\n" } },
          .events = "READY DONE 1:RCPT TO:0:4.5.0:the server answered out of step (RCPT TO): 354 ok "
                    "FAILED 1:RCPT TO:0:4.5.0:the server answered out of step (RCPT TO): 354 ok" },
        { .name = "250 to DATA", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nDATA\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n" } },
          .events = "READY DONE 1:DATA:0:4.5.0:the server answered out of step (DATA): 250 ok "
                    "FAILED 1:DATA:0:4.5.0:the server answered out of step (DATA): 250 ok" },
        { .name = "QUIT unanswered", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "QUIT\r\n", "!" } },
          .quit = true, .events = "READY CLOSED 1:QUIT:0:4.4.2:conversation timed out while sending QUIT" },
    };
    (void)state;
    PLAY(scripts);
}

/* What a machine that is fed octet by octet cannot notice: too many replies at once. */
static void replies_too_many(void **state)
{
    static const struct script scripts[] = {
        { .name = "octets behind the reply to STARTTLS", .options = { .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC },
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-STARTTLS\r\n") },
                    { "STARTTLS\r\n", "220 go\r\n250 injected\r\n" } },
          .events = "FAILED 1:STARTTLS:0:4.7.0:the server sent more than its reply to STARTTLS before the handshake" },
        { .name = "the final reply before the body", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-PIPELINING\r\n") },
                    { "MAIL FROM:<a@here>\r\nRCPT TO:<b@example>\r\nDATA\r\n", "250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n" } },
          .events = "READY DONE 1:message body:0:4.5.0:the server answered out of step (message body): 354 go "
                    "FAILED 1:message body:0:4.5.0:the server answered out of step (message body): 354 go" },
        { .name = "RCPT answered before it was asked", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" }, { "MAIL FROM:<a@here>\r\n", "250 ok\r\n250 ok\r\n" } },
          .events = "READY DONE 1:RCPT TO:0:4.5.0:the server answered out of step (RCPT TO): 250 ok "
                    "FAILED 1:RCPT TO:0:4.5.0:the server answered out of step (RCPT TO): 250 ok" },
        { .name = "more behind EHLO", .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n250 more\r\n" } },
          .events = "FAILED 1:idle connection:0:4.5.0:the server answered out of step (idle connection): 250 more" },
        { .name = "refused and dismissed in one", .message = { { FROM_A, .recipient = one, .n_recipients = 1 } },
          .body = "x\r\n",
          .turn = { GREET, { "EHLO me.example\r\n", "250 mx\r\n" },
                    { "MAIL FROM:<a@here>\r\n", "550 5.7.1 no\r\n421 bye\r\n" } },
          .events = "READY DONE 2:MAIL FROM:550:5.7.1:550 5.7.1 no CLOSED 1:idle connection:421:4.0.0:421 bye" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++)
        play(&scripts[i], 4096, 4096);
}

struct trace_log {
    struct buf text;
};

static void trace(void *arg, char direction, struct str line)
{
    struct trace_log *log = arg;
    buf_addf(&log->text, "%c %.*s\n", direction, STR_ARG(line));
}

static void protocol_log_masks_secrets(void **state)
{
    (void)state;
    struct trace_log log;
    buf_init(&log.text, 65536);
    struct script script = { .name = "trace", .options = { .want_auth = true, .trace = trace, .trace_arg = &log },
        .mechanism = "LOGIN", .response = { "user", "hunter2" },
        .message = { { FROM_A, .recipient = one, .n_recipients = 1 } }, .body = "secret body\r\n",
        .turn = { GREET, { "EHLO me.example\r\n", EHLO_REPLY("250-AUTH LOGIN\r\n250-PIPELINING\r\n") },
                  { "AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n" }, { "dXNlcg==\r\n", "334 UGFzc3dvcmQ6\r\n" },
                  { "aHVudGVyMg==\r\n", "235 ok\r\n" },
                  { "MAIL FROM:<a@here> AUTH=<>\r\nRCPT TO:<b@example>\r\nDATA\r\n", "250 1\r\n250 2\r\n354 3\r\n" },
                  { "secret body\r\n.\r\n", QUEUED }, { "", "" } },
        .events = "AUTH(LOGIN) CHALLENGE(Username:) CHALLENGE(Password:) READY DONE " SENT_OK " READY " };
    play(&script, 4096, 4096);
    assert_string_equal(buf_cstr(&log.text),
        "< 220 mx.example ESMTP\n> EHLO me.example\n< 250-mx.example at your service\n< 250-AUTH LOGIN\n"
        "< 250-PIPELINING\n< 250 HELP\n> AUTH LOGIN\n< 334 ****\n> ****\n< 334 ****\n> ****\n< 235 ok\n"
        "> MAIL FROM:<a@here> AUTH=<>\n> RCPT TO:<b@example>\n> DATA\n< 250 1\n< 250 2\n< 354 3\n> [body, 13 octets]\n"
        "< 250 2.0.0 Ok: queued as 7\n");
    buf_done(&log.text);
}

static struct smtp_client *started(const char *script, enum smtp_client_event_kind expect)
{
    struct smtp_client *client = smtp_client_new(&(struct smtp_client_options){ .helo = STR("me") }, 0);
    assert_non_null(client);
    struct str in = str_of(script);
    struct smtp_client_event event;
    assert_int_equal(smtp_client_step(client, &in, 0, &event), expect);
    buf_clear(smtp_client_output(client));
    return client;
}

/* What came in clear with the reply to a login is seen before a layer can begin. */
static void clear_text_behind_a_login(void **state)
{
    (void)state;
    struct smtp_client_options options = { .helo = STR("me"), .want_auth = true };
    struct smtp_client *client = smtp_client_new(&options, 0);
    struct smtp_client_event event;
    struct str in = STR("220 hi\r\n250-mx\r\n250 AUTH PLAIN\r\n");
    assert_non_null(client);
    while (smtp_client_step(client, &in, 0, &event) == SMTP_CLIENT_READ && in.n > 0)
        continue;
    smtp_client_auth_begin(client, STR("PLAIN"), false, true, STR("secret"), 0);
    in = STR("235 ok\r\n250");
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_FAILED);
    smtp_client_free(&client);
}

static void optional_login_tells_what_was_refused(void **state)
{
    (void)state;
    struct smtp_client_options options = { .helo = STR("me"), .want_auth = true, .auth_optional = true };
    struct smtp_client *client = smtp_client_new(&options, 0);
    struct smtp_client_event event;
    struct str in = STR("220 hi\r\n250-mx\r\n250 X-EXPS NTLM\r\n");
    assert_non_null(client);
    assert_int_equal(smtp_client_auth_command(client).n, 0);
    while (smtp_client_step(client, &in, 0, &event) == SMTP_CLIENT_READ && in.n > 0)
        continue;
    assert_int_equal(event.kind, SMTP_CLIENT_AUTH_NEEDED);
    smtp_client_auth_begin(client, STR("NTLM"), true, true, STR("secret"), 0);
    in = STR("535 5.7.3 no\r\n");
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_READY);
    assert_false(smtp_client_authenticated(client));
    assert_true(str_eq(smtp_client_auth_command(client), STR("X-EXPS NTLM")));
    struct smtp_client_result result = smtp_client_auth_result(client);
    assert_int_equal(result.code, 535);
    assert_string_equal(result.enhanced, "5.7.3");
    assert_true(str_eq(result.text, STR("535 5.7.3 no")));
    smtp_client_layer_started(client, 0); /* not authenticated: no layer, and nothing is said */
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_READ);
    smtp_client_free(&client);
}

static void deadlines_follow_the_phase(void **state)
{
    (void)state;
    struct smtp_client *client = started("220 hi\r\n", SMTP_CLIENT_READ);
    assert_int_equal(smtp_client_deadline_ms(client), 300000);
    struct str in = STR("250-mx\r\n250 PIPELINING\r\n");
    struct smtp_client_event event;
    assert_int_equal(smtp_client_step(client, &in, 7, &event), SMTP_CLIENT_READY);
    assert_string_equal(smtp_client_peer_name(client).p, "mx");
    assert_int_equal(smtp_client_deadline_ms(client), -1);
    struct smtp_client_message m = { .recipient = one, .n_recipients = 1, .body_bytes = 2 };
    assert_true(smtp_client_send(client, &m, 1000));
    assert_int_equal(smtp_client_deadline_ms(client), 301000);
    in = STR("250 ok\r\n250 ok\r\n");
    assert_int_equal(smtp_client_step(client, &in, 2000, &event), SMTP_CLIENT_READ);
    assert_int_equal(smtp_client_deadline_ms(client), 122000); /* DATA */
    in = STR("354 ok\r\n");
    assert_int_equal(smtp_client_step(client, &in, 3000, &event), SMTP_CLIENT_BODY_WANTED);
    assert_int_equal(smtp_client_deadline_ms(client), 183000);
    struct str slice;
    size_t taken = 0;
    assert_int_equal(smtp_client_body(client, STR("x\ny"), &slice, 1, &taken, 4000), 1);
    assert_int_equal(taken, 2); /* no more than was promised */
    assert_int_equal(smtp_client_deadline_ms(client), 184000);
    smtp_client_body_end(client, 5000);
    assert_int_equal(smtp_client_deadline_ms(client), 605000);
    smtp_client_free(&client);
}

static void short_body_is_not_passed_off_as_whole(void **state)
{
    (void)state;
    struct smtp_client *client = started("220 hi\r\n", SMTP_CLIENT_READ);
    struct str in = STR("250 mx\r\n");
    struct smtp_client_event event;
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_READY);
    struct smtp_client_message m = { .recipient = one, .n_recipients = 1, .body_bytes = 10 };
    assert_true(smtp_client_send(client, &m, 0));
    for (int i = 0; i < 2; i++) {
        in = STR("250 ok\r\n");
        assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_READ);
    }
    in = STR("354 ok\r\n");
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_BODY_WANTED);
    buf_clear(smtp_client_output(client));
    struct str slice;
    size_t taken = 0;
    smtp_client_body(client, STR("x\r\n"), &slice, 1, &taken, 0);
    smtp_client_body_end(client, 0);
    assert_int_equal(smtp_client_output(client)->n, 0);
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_DONE);
    struct smtp_client_result result = smtp_client_result(client, 0);
    assert_int_equal(smtp_client_outcome(&result), SMTP_CLIENT_TEMPORARY);
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_FAILED);
    smtp_client_free(&client);
}

/* A thousand recipients, and replies that come while commands still wait to be written. */
static void many_recipients_go_in_windows(void **state)
{
    (void)state;
    enum { N = 1000 };
    static char address[N][120];
    static struct smtp_client_recipient rcpt[N];
    for (int i = 0; i < N; i++) {
        int n = snprintf(address[i], sizeof address[i], "recipient-number-%d-of-a-rather-long-list@some.domain.example", i);
        rcpt[i].address = str_slice(address[i], (size_t)n);
    }
    struct smtp_client *client = started("220 hi\r\n", SMTP_CLIENT_READ);
    struct str in = STR("250-mx\r\n250 PIPELINING\r\n");
    struct smtp_client_event event;
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_READY);
    struct smtp_client_message m = { .recipient = rcpt, .n_recipients = N, .body_bytes = 0 };
    assert_true(smtp_client_send(client, &m, 0));
    size_t lines = 0, answered = 0;
    enum smtp_client_event_kind kind = SMTP_CLIENT_READ;
    while (kind == SMTP_CLIENT_READ) {
        struct buf *out = smtp_client_output(client);
        assert_true(out->n < 64 * 1024);
        for (size_t i = 0; i < out->n; i++)
            lines += out->p[i] == '\n';
        buf_clear(out);
        assert_true(answered < lines);
        in = answered == N + 1 ? STR("354 go\r\n") : answered % 2 ? STR("250 ok\r\n") : STR("250 very ok\r\n");
        answered++;
        kind = smtp_client_step(client, &in, 0, &event);
    }
    assert_int_equal(kind, SMTP_CLIENT_BODY_WANTED);
    assert_int_equal(answered, N + 2);
    smtp_client_body_end(client, 0);
    in = STR("250 done\r\n");
    assert_int_equal(smtp_client_step(client, &in, 0, &event), SMTP_CLIENT_DONE);
    struct smtp_client_result result = smtp_client_result(client, N - 1);
    assert_true(str_eq(result.text, STR("250 done")));
    smtp_client_free(&client);
}

static void names_that_are_no_names(void **state)
{
    (void)state;
    assert_null(smtp_client_new(&(struct smtp_client_options){ .helo = STR("") }, 0));
    assert_null(smtp_client_new(&(struct smtp_client_options){ .helo = STR("a b") }, 0));
    assert_null(smtp_client_new(&(struct smtp_client_options){ .helo = STR("a\r\nMAIL") }, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(chunking),
        cmocka_unit_test(lmtp),
        cmocka_unit_test(decided_here),
        cmocka_unit_test(beginnings),
        cmocka_unit_test(authentication),
        cmocka_unit_test(exps_and_layers),
        cmocka_unit_test(clear_text_behind_a_login),
        cmocka_unit_test(optional_login_tells_what_was_refused),
        cmocka_unit_test(breaks),
        cmocka_unit_test(replies_too_many),
        cmocka_unit_test(protocol_log_masks_secrets),
        cmocka_unit_test(deadlines_follow_the_phase),
        cmocka_unit_test(short_body_is_not_passed_off_as_whole),
        cmocka_unit_test(many_recipients_go_in_windows),
        cmocka_unit_test(names_that_are_no_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
