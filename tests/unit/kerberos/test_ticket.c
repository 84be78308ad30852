/* Reading the outside of tokens made here by hand: every truncation, every bit, and names that want to be others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "kerberos/ticket.h"

/* Puts tag and length (the long form, as for real tickets) in front of what stands in `b` from `at`. */
static void enclose(struct buf *b, size_t at, unsigned tag)
{
    size_t n = b->n - at;
    assert_non_null(buf_reserve(b, 4));
    memmove(b->p + at + 4, b->p + at, n);
    b->p[at] = (char)tag;
    b->p[at + 1] = (char)0x82;
    b->p[at + 2] = (char)(n >> 8);
    b->p[at + 3] = (char)n;
    b->n += 4;
}

static void put_field(struct buf *b, unsigned n, unsigned tag, struct str value)
{
    size_t at = b->n;
    buf_add(b, value);
    enclose(b, at, tag);
    enclose(b, at, 0xa0 + n);
}

struct token {
    const struct str *part;
    size_t n_parts;
    struct str realm, kvno, enctype;
};

/* RFC 4120 section 5.5.1. */
static void put_ap_req(struct buf *b, const struct token *token)
{
    size_t start = b->n, at, names;
    put_field(b, 0, 0x02, STR("\x05"));
    put_field(b, 1, 0x02, STR("\x0e"));
    put_field(b, 2, 0x03, str_slice("\0\x20\0\0\0", 5));
    size_t ticket = b->n;
    put_field(b, 0, 0x02, STR("\x05"));
    put_field(b, 1, 0x1b, token->realm);
    at = b->n;
    put_field(b, 0, 0x02, STR("\x02"));
    names = b->n;
    for (size_t i = 0; i < token->n_parts; i++) {
        size_t part = b->n;
        buf_add(b, token->part[i]);
        enclose(b, part, 0x1b);
    }
    enclose(b, names, 0x30);
    enclose(b, names, 0xa1);
    enclose(b, at, 0x30);
    enclose(b, at, 0xa2);
    at = b->n;
    put_field(b, 0, 0x02, token->enctype);
    if (token->kvno.n)
        put_field(b, 1, 0x02, token->kvno);
    put_field(b, 2, 0x04, STR("cipher"));
    enclose(b, at, 0x30);
    enclose(b, at, 0xa3);
    enclose(b, ticket, 0x30);
    enclose(b, ticket, 0x61);
    enclose(b, ticket, 0xa3);
    at = b->n;
    put_field(b, 0, 0x02, STR("\x12"));
    put_field(b, 2, 0x04, STR("authenticator"));
    enclose(b, at, 0x30);
    enclose(b, at, 0xa4);
    enclose(b, start, 0x30);
    enclose(b, start, 0x6e);
}

static void put_raw(struct buf *b, const struct token *token)
{
    static const char head[] = "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01";
    size_t at = b->n;
    buf_add(b, str_slice(head, sizeof head)); /* 01 00: the NUL of the literal belongs to it */
    put_ap_req(b, token);
    enclose(b, at, 0x60);
}

/* NegTokenInit (framed) or NegTokenResp. */
static void put_spnego(struct buf *b, const struct token *token, bool first)
{
    size_t at = b->n;
    if (first)
        buf_add(b, STR("\x06\x06\x2b\x06\x01\x05\x05\x02"));
    size_t choice = b->n;
    if (first)
        put_field(b, 0, 0x30, STR("\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"));
    size_t inner = b->n;
    put_raw(b, token);
    enclose(b, inner, 0x04);
    enclose(b, inner, 0xa2);
    enclose(b, choice, 0x30);
    enclose(b, choice, first ? 0xa0 : 0xa1);
    if (first)
        enclose(b, at, 0x60);
}

static const struct str usual_parts[] = { { "SMTPSVC", 7 }, { "mail.corp.test", 14 } };
static const struct token usual = { usual_parts, 2, { "CORP.TEST", 9 }, { "\x04", 1 }, { "\x12", 1 } };

static void make(struct buf *b, const struct token *token, enum krb_token_form form)
{
    buf_init(b, 65536);
    if (form == KRB_TOKEN_RAW)
        put_raw(b, token);
    else
        put_spnego(b, token, form == KRB_TOKEN_SPNEGO_INIT);
    assert_false(b->failed);
}

static void test_forms(void **state)
{
    for (enum krb_token_form form = KRB_TOKEN_RAW; form <= KRB_TOKEN_SPNEGO_RESPONSE; form++) {
        struct buf b;
        struct krb_ticket ticket;
        make(&b, &usual, form);
        assert_true(krb_ticket_read(buf_str(&b), &ticket));
        assert_int_equal(ticket.form, form);
        assert_string_equal(ticket.service, "SMTPSVC/mail.corp.test");
        assert_string_equal(ticket.realm, "CORP.TEST");
        assert_true(ticket.has_kvno && ticket.mutual);
        assert_int_equal(ticket.kvno, 4);
        assert_int_equal(ticket.enctype, 18);
        assert_int_equal(ticket.authenticator_enctype, 18);
        assert_int_equal(krb_token_is_spnego(buf_str(&b)), form == KRB_TOKEN_SPNEGO_INIT);
        buf_done(&b);
    }
}

/* Exact copies on the heap, so that a sanitizer sees any octet read beyond the end. */
static bool read_copy(struct str token, struct krb_ticket *ret_ticket)
{
    char *copy = malloc(token.n + 1);
    char *exact = realloc(copy, token.n ? token.n : 1);
    memcpy(exact, token.p, token.n);
    bool found = krb_ticket_read(str_slice(exact, token.n), ret_ticket);
    free(exact);
    return found;
}

static void test_damage(void **state)
{
    for (enum krb_token_form form = KRB_TOKEN_RAW; form <= KRB_TOKEN_SPNEGO_RESPONSE; form++) {
        struct buf b;
        struct krb_ticket ticket;
        make(&b, &usual, form);
        for (size_t n = 0; n < b.n; n++) {
            assert_false(read_copy(str_slice(b.p, n), &ticket));
            assert_int_equal(ticket.service[0], 0);
        }
        for (size_t i = 0; i < b.n * 8; i++) {
            b.p[i / 8] ^= (char)(1 << (i % 8));
            bool found = read_copy(buf_str(&b), &ticket);
            assert_int_equal(found, ticket.service[0] != 0);
            b.p[i / 8] ^= (char)(1 << (i % 8));
        }
        buf_done(&b);
    }
}

static bool read_token(const struct token *token, struct krb_ticket *ret_ticket)
{
    struct buf b;
    make(&b, token, KRB_TOKEN_RAW);
    bool found = krb_ticket_read(buf_str(&b), ret_ticket);
    buf_done(&b);
    return found;
}

static void test_key_versions(void **state)
{
    struct krb_ticket ticket;
    struct token token = usual;
    token.kvno = STR_NONE;
    assert_true(read_token(&token, &ticket));
    assert_false(ticket.has_kvno);
    token.kvno = str_slice("\0\xff\xff\xff\xff", 5);
    assert_true(read_token(&token, &ticket));
    assert_int_equal(ticket.kvno, UINT32_MAX);
    token.kvno = STR("\xff\xff\xff\xfe"); /* the same with its sign lost */
    assert_true(read_token(&token, &ticket));
    assert_int_equal(ticket.kvno, UINT32_MAX - 1);
    token.kvno = STR("\x01\x02\x03\x04\x05");
    assert_false(read_token(&token, &ticket));
    token.kvno = STR("\x01\x02\x03\x04\x05\x06");
    assert_false(read_token(&token, &ticket));
    token = usual;
    token.enctype = STR("\xff\x79"); /* private enctypes are negative */
    assert_true(read_token(&token, &ticket));
    assert_int_equal(ticket.enctype, -135);
}

/* No two names have one text, whatever octets are in them. */
static void test_names(void **state)
{
    static char longest[600];
    struct krb_ticket ticket;
    struct str one[] = { STR("SMTPSVC/mail.corp.test") }, at[] = { STR("a@b"), STR("c\\d") };
    struct str odd[] = { { "a\0\n\xff", 4 } }, three[] = { STR("a"), STR("b"), STR("c") };
    struct token token = usual;
    token.part = one, token.n_parts = 1;
    assert_true(read_token(&token, &ticket));
    assert_string_equal(ticket.service, "SMTPSVC\\/mail.corp.test");
    token.part = at, token.n_parts = 2;
    assert_true(read_token(&token, &ticket));
    assert_string_equal(ticket.service, "a\\@b/c\\\\d");
    token.part = odd, token.n_parts = 1;
    assert_true(read_token(&token, &ticket));
    assert_string_equal(ticket.service, "a\\x00\\x0a\\xff");
    token.part = three, token.n_parts = 3;
    assert_true(read_token(&token, &ticket));
    assert_string_equal(ticket.service, "a/b/c");
    token.n_parts = 0;
    assert_false(read_token(&token, &ticket));
    memset(longest, 'x', sizeof longest);
    one[0] = str_slice(longest, sizeof longest);
    token.part = one, token.n_parts = 1;
    assert_false(read_token(&token, &ticket));
    one[0].n = 500;
    assert_true(read_token(&token, &ticket));
    token.realm = str_slice(longest, 300);
    assert_false(read_token(&token, &ticket));
}

static void test_other_tokens(void **state)
{
    struct krb_ticket ticket;
    const struct str others[] = {
        STR(""), STR("x"), STR("NTLMSSP"), { "\x60\x80\0\0", 4 }, STR("\x60\x84\xff\xff\xff\xff"), STR("\x60\x85\1\1\1\1\1"),
        STR("\x7f\x81\x01\x00"), STR("\xa1\x02\x30\x7f"),
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(read_copy(others[i], &ticket));
}

static void test_allowed(void **state)
{
    static const char *const allowed[] = { "SMTPSVC/mail.corp.test", "smtp/mail.corp.test", "MAIL$" };
    assert_true(krb_service_allowed(STR("SMTPSVC/mail.corp.test"), STR("CORP.TEST"), allowed, 3));
    assert_true(krb_service_allowed(STR("smtpsvc/MAIL.CORP.TEST"), STR("CORP.TEST"), allowed, 3));
    assert_true(krb_service_allowed(STR("SMTP/mail.corp.test"), STR("CORP.TEST"), allowed, 3));
    assert_true(krb_service_allowed(STR("mail$"), STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR("HTTP/mail.corp.test"), STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR("SMTPSVC/mail.corp.test.evil"), STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR("SMTPSVC\\/mail.corp.test"), STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR("SMTPSVC/mail"), STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR_NONE, STR("CORP.TEST"), allowed, 3));
    assert_false(krb_service_allowed(STR("SMTPSVC/mail.corp.test"), STR("CORP.TEST"), allowed, 0));
    /* With a realm it is of that realm alone. */
    static const char *const ours[] = { "smtp/mail.corp.test@CORP.TEST" };
    assert_true(krb_service_allowed(STR("smtp/MAIL.corp.test"), STR("CORP.TEST"), ours, 1));
    assert_false(krb_service_allowed(STR("smtp/mail.corp.test"), STR("corp.test"), ours, 1));
    assert_false(krb_service_allowed(STR("smtp/mail.corp.test"), STR("OTHER.TEST"), ours, 1));
    assert_false(krb_service_allowed(STR("smtp/mail.corp.test"), STR_NONE, ours, 1));
}

static void test_enctype_names(void **state)
{
    char number[24];
    assert_string_equal(krb_enctype_name(18, number, sizeof number), "aes256-cts");
    assert_string_equal(krb_enctype_name(23, number, sizeof number), "rc4-hmac");
    assert_string_equal(krb_enctype_name(-135, number, sizeof number), "enctype--135");
    assert_string_equal(krb_enctype_name(INT32_MIN, number, sizeof number), "enctype--2147483648");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),        cmocka_unit_test(test_damage),  cmocka_unit_test(test_key_versions),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_allowed), cmocka_unit_test(test_other_tokens),
        cmocka_unit_test(test_enctype_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
