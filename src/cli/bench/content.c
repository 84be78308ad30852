#include "cli/bench/bench.h"

#include "io/now.h"

enum { LINE_BYTES = 80, BLOCK_LINES = 1600, NUMBER_DIGITS = 16 };

/* Lines that never begin with a dot, so that nothing has to be stuffed. */
static void fill_block(char *block)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz 0123456789";
    for (size_t line = 0; line < BLOCK_LINES; line++) {
        char *p = block + line * LINE_BYTES;
        for (size_t i = 0; i < LINE_BYTES - 2; i++)
            p[i] = letters[(line * 7 + i) % (sizeof letters - 1)];
        memcpy(p + LINE_BYTES - 2, "\r\n", 2);
    }
}

/* With one recipient its address as it is; with more "1.user@…", "2.user@…". */
static int fill_recipients(struct bench_content *content, const struct bench_options *o, struct err *err)
{
    size_t n = (size_t)o->recipients, each = strlen(o->recipient) + 8;
    content->recipient = calloc(n, sizeof *content->recipient);
    content->addresses = malloc(n * each);
    if (!content->recipient || !content->addresses)
        return err_set(err, -ENOMEM, "out of memory for %zu recipients", n);
    for (size_t i = 0; i < n; i++) {
        char *text = content->addresses + i * each;
        int bytes = n == 1 ? snprintf(text, each, "%s", o->recipient)
                           : snprintf(text, each, "%zu.%s", i + 1, o->recipient);
        content->recipient[i].address = str_slice(text, (size_t)bytes);
    }
    content->n_recipients = n;
    return 0;
}

int bench_content_init(struct bench_content *content, const struct bench_options *o, struct err *err)
{
    static const char digits[] = "0000000000000000";
    int n = snprintf(content->header, BENCH_HEADER_BYTES,
                     "From: <%.200s>\r\nTo: <%.200s>\r\nSubject: postern bench\r\nMessage-ID: <%llx.", o->sender,
                     o->recipient, (unsigned long long)now_wall_ms());
    content->number_at = (size_t)n;
    n += snprintf(content->header + n, BENCH_HEADER_BYTES - (size_t)n, "%s@%.200s>\r\nX-Fill: ", digits, o->helo);
    /* The fill makes the body a whole number of lines. */
    uint64_t least = (uint64_t)n + 4 + LINE_BYTES;
    if (o->size_bytes < least)
        return err_set(err, ERR_LIMIT, "a message needs at least %llu octets here", (unsigned long long)least);
    size_t fill = (size_t)((o->size_bytes - least) % LINE_BYTES);
    memset(content->header + n, 'x', fill);
    memcpy(content->header + (size_t)n + fill, "\r\n\r\n", 4);
    content->header_bytes = (size_t)n + fill + 4;
    content->size_bytes = o->size_bytes;
    content->block = malloc(BLOCK_LINES * LINE_BYTES);
    if (!content->block)
        return err_set(err, -ENOMEM, "out of memory for a message");
    fill_block(content->block);
    return fill_recipients(content, o, err);
}

void bench_content_done(struct bench_content *content)
{
    free(content->block);
    free(content->recipient);
    free(content->addresses);
}

void bench_content_header(const struct bench_content *content, uint64_t number, char ret_header[BENCH_HEADER_BYTES])
{
    memcpy(ret_header, content->header, content->header_bytes);
    for (size_t i = NUMBER_DIGITS; i-- > 0; number /= 10)
        ret_header[content->number_at + i] = (char)('0' + number % 10);
}

struct str bench_content_at(const struct bench_content *content, const char *header, uint64_t at)
{
    if (at < content->header_bytes)
        return str_slice(header + at, content->header_bytes - (size_t)at);
    size_t from = (size_t)((at - content->header_bytes) % (BLOCK_LINES * LINE_BYTES));
    size_t n = BLOCK_LINES * LINE_BYTES - from;
    if (n > content->size_bytes - at)
        n = (size_t)(content->size_bytes - at);
    return str_slice(content->block + from, n);
}
