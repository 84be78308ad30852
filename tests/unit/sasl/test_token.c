/* What a first token is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_gss.h"
#include "sasl/token.h"

static void kinds_of_first_tokens(void **state)
{
    static const struct {
        struct str token;
        enum sasl_token_kind kind;
        bool ntlm;
    } rows[] = {
        { STR(TOKEN_KRB5), SASL_TOKEN_KRB5, false },
        { STR("\x60\x0b" OID_KRB5_MS), SASL_TOKEN_KRB5, false },
        { STR("\x60\x81\x0b" OID_KRB5), SASL_TOKEN_KRB5, false },
        { STR("\x60\x84\x00\x00\x00\x0b" OID_KRB5), SASL_TOKEN_KRB5, false },
        { STR(TOKEN_SPNEGO_KRB5), SASL_TOKEN_SPNEGO_KRB5, false },
        { STR(TOKEN_SPNEGO_BOTH), SASL_TOKEN_SPNEGO_KRB5, true },
        { STR(TOKEN_SPNEGO_NTLM), SASL_TOKEN_SPNEGO_NTLM, true },
        { STR("\xa0\x12\x30\x10\xa0\x0e\x30\x0c" OID_NTLMSSP), SASL_TOKEN_SPNEGO_NTLM, true },
        { STR("NTLMSSP\0\1\0\0\0"), SASL_TOKEN_NTLMSSP, false },
        { STR(""), SASL_TOKEN_UNKNOWN, false },
        { STR("NTLMSSP"), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60"), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x80\x06\x00"), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x85\x00\x00\x00\x00\x0b" OID_KRB5), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x84\xff\xff\xff\xff" OID_KRB5), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x0c" OID_KRB5), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x0a" OID_KRB5), SASL_TOKEN_UNKNOWN, false },
        { STR("\x60\x08\x06\x06\x2b\x06\x01\x05\x05\x02"), SASL_TOKEN_UNKNOWN, false },
        { STR("\xa1\x07\x30\x05\xa0\x03\x0a\x01\x00"), SASL_TOKEN_UNKNOWN, false },
        { STR("GET / HTTP/1.1"), SASL_TOKEN_UNKNOWN, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(sasl_token_kind(rows[i].token), rows[i].kind);
        assert_int_equal(sasl_token_offers_ntlm(rows[i].token), rows[i].ntlm);
    }
}

/* Cut anywhere, changed anywhere: nothing is read that isn't there (ASan says so). */
static void damaged_tokens_are_bounded(void **state)
{
    static const struct str tokens[] = { STR(TOKEN_KRB5), STR(TOKEN_SPNEGO_BOTH), STR(TOKEN_SPNEGO_NTLM) };
    for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
        for (size_t n = 0; n < tokens[t].n; n++) {
            char *copy = malloc(n + 1);
            assert_non_null(copy);
            memcpy(copy, tokens[t].p, n);
            assert_int_equal(sasl_token_kind(str_slice(copy, n)), SASL_TOKEN_UNKNOWN);
            free(copy);
            char *whole = malloc(tokens[t].n);
            assert_non_null(whole);
            for (int octet = 0; octet < 256; octet++) {
                memcpy(whole, tokens[t].p, tokens[t].n);
                whole[n] = (char)octet;
                assert_non_null(sasl_token_kind_name(sasl_token_kind(str_slice(whole, tokens[t].n))));
            }
            free(whole);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_of_first_tokens),
        cmocka_unit_test(damaged_tokens_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
