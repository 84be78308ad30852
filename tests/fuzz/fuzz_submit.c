/* What a local user hands over: a request in one line, then the content. What is accepted is a message: CRLF ends its
 * lines and nothing else, no NUL, addresses by the grammar. */
#include <assert.h>

#include "daemon/queue/submit.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct conf_domain domains[] = { { .name = "corp.test", .deliver = "discard", .recipients = "any" },
                                        { .name = "remote.test" } };
static const struct conf conf = { .postmaster = "postmaster@corp.test", .max_message_size = 4096, .text_line_max = 200,
                                  .max_recipients = 4, .max_hops = 3, .domain = domains, .n_domains = 2 };

static void check_lines(struct str s)
{
    assert(s.n <= conf.max_message_size && (s.n == 0 || s.p[s.n - 1] == '\n'));
    for (size_t i = 0; i < s.n; i++) {
        assert(s.p[i] != 0);
        assert(s.p[i] != '\n' || (i > 0 && s.p[i - 1] == '\r'));
        assert(s.p[i] != '\r' || (i + 1 < s.n && s.p[i + 1] == '\n'));
    }
}

/* The same in pieces of every size gives the same. */
static int convert(struct str content, size_t piece, struct buf *out)
{
    struct submit_content c;
    submit_content_init(&c, &conf);
    int rc = 0;
    while (content.n && rc == 0) {
        size_t n = content.n < piece ? content.n : piece;
        rc = submit_content_add(&c, str_slice(content.p, n), out, NULL);
        content = str_skip(content, n);
    }
    return rc == 0 ? submit_content_end(&c, out, NULL) : rc;
}

static void fuzz_content(struct str content)
{
    struct buf whole, pieces;
    buf_init(&whole, 1 << 20);
    buf_init(&pieces, 1 << 20);
    int rc = convert(content, SUBMIT_CHUNK_BYTES, &whole), again = convert(content, 3, &pieces);
    assert((rc == 0) == (again == 0));
    if (rc == 0) {
        check_lines(buf_str(&whole));
        assert(str_eq(buf_str(&whole), buf_str(&pieces)));
    }
    buf_done(&whole);
    buf_done(&pieces);
}

static void fuzz_envelope(const struct submit_request *r)
{
    struct submit_message m = { .sender = r->sender, .recipient = r->recipient, .n_recipients = r->n_recipients };
    struct spool_recipient *recipients;
    struct arena arena;
    bool utf8;
    arena_init(&arena, 1 << 20);
    if (submit_check_envelope(&conf, &m, &arena, &recipients, &utf8, NULL) == 0) {
        assert(m.n_recipients >= 1 && m.n_recipients <= conf.max_recipients);
        for (size_t i = 0; i < m.n_recipients; i++)
            assert(smtp_address_parse(recipients[i].address, NULL, NULL));
    }
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str content = str_slice(data, n), line;
    bool two = str_cut(&content, '\n', &line);
    json_t *object = json_loadb(line.p ? line.p : "", line.n, JSON_REJECT_DUPLICATES, NULL);
    struct submit_request request;
    if (submit_request_read(object, &conf, &request, NULL) == 0) {
        assert(request.size_bytes >= 1 && request.size_bytes <= conf.max_message_size);
        fuzz_envelope(&request);
        submit_request_done(&request);
    }
    json_decref(object);
    if (two)
        fuzz_content(content);
    return 0;
}
