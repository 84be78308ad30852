/* Addresses, parameters, xtext and the header scanner under any input. */
#include "smtp/address.h"
#include "smtp/header.h"
#include "smtp/params.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void fuzz_address(struct str in)
{
    struct smtp_address a;
    enum smtp_address_fault fault;
    struct str rest = in;
    bool ok = smtp_address_parse_path(&rest, SMTP_ADDRESS_NULL_OK | SMTP_ADDRESS_POSTMASTER_OK, &a, &fault);
    assert(ok == (fault == SMTP_ADDRESS_OK));
    if (!ok)
        return;
    assert(a.text.n <= SMTP_ADDRESS_MAX_BYTES && rest.p >= in.p && rest.p + rest.n == in.p + in.n);
    for (size_t i = 0; i < a.text.n; i++)
        assert((unsigned char)a.text.p[i] >= 32 && a.text.p[i] != 127);
    assert(smtp_utf8_valid(a.text) && a.utf8 == !smtp_is_ascii(a.text));
    if (a.domain.n) {
        assert(a.text.n == a.local.n + 1 + a.domain.n);
        assert(smtp_address_parse(a.text, NULL, NULL)); /* what was accepted is accepted again */
    }
    struct buf plain;
    buf_init(&plain, SMTP_ADDRESS_MAX_BYTES);
    bool fits = smtp_address_local_plain(&a, &plain);
    assert(fits && plain.n <= a.local.n);
    buf_done(&plain);
}

static void fuzz_params(struct str in)
{
    struct smtp_param p;
    while (smtp_params_next(&in, true, &p) == SMTP_PARAMS_ONE) {
        (void)smtp_orcpt_valid(p.value, true);
        struct buf raw, back;
        buf_init(&raw, 1 << 16);
        buf_init(&back, 1 << 18);
        bool valid = smtp_xtext_valid(p.value);
        assert(valid == smtp_xtext_decode(p.value, &raw) || raw.failed);
        if (valid && smtp_xtext_encode(buf_str(&raw), &back))
            assert(back.n >= raw.n);
        buf_done(&raw);
        buf_done(&back);
    }
}

static size_t header_pass(struct str in, size_t piece, struct smtp_header *h, struct buf *out)
{
    static const struct str patterns[] = { { "X-*", 3 }, { "Received", 8 } };
    smtp_header_init(h, patterns, 2);
    while (in.n) {
        struct str part = str_slice(in.p, in.n < piece ? in.n : piece);
        size_t used;
        struct str kept = smtp_header_feed(h, part, &used);
        assert(used <= part.n);
        buf_add(out, kept);
        in = str_skip(in, used);
    }
    buf_add(out, smtp_header_end(h));
    return out->n;
}

static void fuzz_header(struct str in)
{
    struct smtp_header whole, cut;
    struct buf a, b;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    header_pass(in, SIZE_MAX, &whole, &a);
    header_pass(in, 3, &cut, &b);
    assert(str_eq(buf_str(&a), buf_str(&b)));
    assert(whole.n_received == cut.n_received && whole.done == cut.done && whole.has_date == cut.has_date);
    assert(whole.stripped_bytes == cut.stripped_bytes && a.n + whole.stripped_bytes == in.n);
    buf_done(&a);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str in = str_slice(data, n);
    fuzz_address(in);
    fuzz_params(in);
    fuzz_header(in);
    return 0;
}
