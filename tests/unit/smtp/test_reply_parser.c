/* Replies whole, in pieces, and malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "smtp/reply_parser.h"

/* Feeds `text` in pieces of `piece` octets; what came of it as "LINE:…|LAST:…|" or "BAD". */
static void run(const char *text, size_t piece, struct buf *ret)
{
    struct smtp_reply_parser parser;
    smtp_reply_parser_init(&parser);
    struct str rest = str_of(text);
    bool bad = false;
    while (rest.n > 0 && !bad) {
        struct str in = str_slice(rest.p, rest.n < piece ? rest.n : piece);
        rest = str_skip(rest, in.n);
        enum smtp_reply_progress progress;
        do {
            struct str line;
            progress = smtp_reply_parser_feed(&parser, &in, &line);
            if (progress == SMTP_REPLY_LINE)
                buf_addf(ret, "LINE:%.*s|", STR_ARG(line));
            if (progress == SMTP_REPLY_LAST) {
                struct smtp_reply reply = smtp_reply_parser_reply(&parser);
                buf_addf(ret, "LAST:%.*s=%u/%s/%.*s|", STR_ARG(line), reply.code, reply.enhanced, STR_ARG(reply.text));
            }
            bad = progress == SMTP_REPLY_BAD;
        } while (in.n > 0 && !bad);
    }
    if (bad)
        buf_add_c(ret, "BAD");
    smtp_reply_parser_done(&parser);
}

static void replies_in_all_pieces(void **state)
{
    static const struct {
        const char *in, *out;
    } row[] = {
        { "250 ok\r\n", "LAST:ok=250//250 ok|" },
        { "250\r\n", "LAST:=250//250|" },
        { "250 \r\n", "LAST:=250//250|" },
        { "250 ok\n", "LAST:ok=250//250 ok|" },
        { "250 2.1.5 fine\r\n", "LAST:2.1.5 fine=250/2.1.5/250 2.1.5 fine|" },
        { "250 2.1.5\r\n", "LAST:2.1.5=250/2.1.5/250 2.1.5|" },
        { "250-a b\r\n250-c\r\n250 d\r\n", "LINE:a b|LINE:c|LAST:d=250//250 a b c d|" },
        { "550-5.1.1 no\r\n550 5.1.1 such\r\n", "LINE:5.1.1 no|LAST:5.1.1 such=550/5.1.1/550 5.1.1 no such|" },
        { "550 5.10.211 x\r\n", "LAST:5.10.211 x=550/5.10.211/550 5.10.211 x|" },
        { "550 4.1.1 class of another code\r\n",
          "LAST:4.1.1 class of another code=550//550 4.1.1 class of another code|" },
        { "550 5.1.1111 x\r\n", "LAST:5.1.1111 x=550//550 5.1.1111 x|" },
        { "550 5.1 x\r\n", "LAST:5.1 x=550//550 5.1 x|" },
        { "250 a\x01\x1b[31m\r\n", "LAST:a\x01\x1b[31m=250//250 a??[31m|" },
        { "250 a\r\n354 b\r\n", "LAST:a=250//250 a|LAST:b=354//354 b|" },
        { "250-\r\n250 \r\n", "LINE:|LAST:=250//250|" },
        { "250-a\r\n251 b\r\n", "LINE:a|BAD" },
        { "150 a\r\n", "BAD" },
        { "650 a\r\n", "BAD" },
        { "25\r\n", "BAD" },
        { "2500 x\r\n", "BAD" },
        { "250x\r\n", "BAD" },
        { "\r\n", "BAD" },
        { "HTTP/1.1 400 Bad Request\r\n", "BAD" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        for (size_t piece = 1; piece <= strlen(row[i].in); piece++) {
            struct buf out;
            buf_init(&out, 65536);
            run(row[i].in, piece, &out);
            assert_string_equal(buf_cstr(&out), row[i].out);
            buf_done(&out);
        }
    }
}

static void bounds(void **state)
{
    (void)state;
    struct buf in, out;
    buf_init(&in, 4 * SMTP_REPLY_LINE_MAX_BYTES);
    buf_init(&out, 16 * SMTP_REPLY_LINE_MAX_BYTES);
    for (int i = 0; i < SMTP_REPLY_LINES_MAX + 1; i++)
        buf_add_c(&in, "250-line\r\n");
    run(buf_cstr(&in), in.n, &out);
    assert_true(str_ends_nocase(buf_str(&out), STR("BAD")));

    for (size_t piece = 1000; piece < 300000; piece += 280000) {
        buf_clear(&in);
        buf_clear(&out);
        buf_add_c(&in, "250 ");
        while (in.n <= SMTP_REPLY_LINE_MAX_BYTES)
            buf_add_c(&in, "0123456789");
        buf_add_c(&in, "\r\n");
        run(buf_cstr(&in), piece, &out);
        assert_string_equal(buf_cstr(&out), "BAD");
    }

    /* A long line within the bound is whole; what is kept of it for the log is not. */
    buf_clear(&in);
    buf_clear(&out);
    buf_add_c(&in, "334 ");
    for (int i = 0; i < 9000; i++)
        buf_add_c(&in, "0123456789");
    buf_add_c(&in, "\r\n");
    run(buf_cstr(&in), 4096, &out);
    assert_true(out.n > 90000 && out.n < 90000 + SMTP_REPLY_TEXT_MAX_BYTES + 100);
    buf_done(&in);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_in_all_pieces),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
