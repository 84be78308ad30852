#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "keystore/certificate.h"
#include "keystore/sign.h"

static char *joined(const char *a, const char *b, const char *c)
{
    struct buf text;
    buf_init(&text, 100000);
    buf_add_c(&text, a);
    buf_add_c(&text, b);
    buf_add_c(&text, c);
    char *copy = str_dup(buf_str(&text));
    buf_done(&text);
    return copy;
}

static struct certificate *load(const char *pem)
{
    struct certificate *certificate;
    struct err err = { 0 };
    if (certificate_load(str_of(pem), "mail.pem", &certificate, &err) < 0)
        fail_msg("%s", err.text);
    return certificate;
}

/* What certificate_check() found: all texts, one a line. */
static char found_text[4000];

static void found(void *arg, enum certificate_fault fault, const char *text)
{
    size_t n = strlen(found_text);
    const char *word = fault == CERTIFICATE_MISTAKE ? "mistake" : "warning";
    snprintf(found_text + n, sizeof found_text - n, "%s: %s\n", word, text);
}

static unsigned check(const char *pem, const char *server)
{
    struct certificate *certificate = load(pem);
    found_text[0] = 0;
    unsigned mistakes = certificate_check(certificate, "mail.pem", server, (int64_t)time(NULL) * 1000, found, NULL);
    certificate_free(&certificate);
    return mistakes;
}

static void check_contains(const char *text)
{
    if (!strstr(found_text, text))
        fail_msg("not found: %s\nin: %s", text, found_text);
}

static void test_check(void **state)
{
    struct fixture_certificate ca = fixture_new(&(struct fixture_options){ .is_ca = true, .until_s = 40 * 86400 });
    struct fixture_certificate good = fixture_new(&(struct fixture_options){
        .names = "DNS:mail.a.test,DNS:*.b.test,IP:10.0.0.1", .issuer = &ca, .until_s = 30 * 86400 });
    char *chain = joined(good.pem, ca.pem, good.key_pem), *reversed = joined(ca.pem, good.pem, "");
    assert_int_equal(check(chain, "mail.a.test"), 0);
    assert_string_equal(found_text, "");
    assert_int_equal(check(chain, "MX.b.test"), 0);
    assert_int_equal(check(chain, "10.0.0.1"), 0);
    assert_int_equal(check(chain, NULL), 0);
    assert_string_equal(found_text, "");
    assert_int_equal(check(chain, "other.test"), 0);
    assert_string_equal(found_text, "warning: the certificate in mail.pem is for mail.a.test *.b.test 10.0.0.1, not "
                                    "for other.test; clients that verify refuse it\n");
    assert_int_equal(check(reversed, NULL), 1);
    check_contains("mistake: certificate 1 in mail.pem was not issued by certificate 2");
    free(chain);
    free(reversed);
    fixture_free(&ca);
    fixture_free(&good);
}

static void test_check_dates_and_keys(void **state)
{
    static const struct {
        struct fixture_options options;
        unsigned mistakes;
        const char *text;
    } cases[] = {
        { { .from_s = -7200, .until_s = -60 }, 0, "warning: certificate 1 in mail.pem has expired at 20" },
        { { .from_s = 3600, .until_s = 7200 }, 0, "warning: certificate 1 in mail.pem is not valid before 20" },
        { { .until_s = 86400 }, 0, "warning: certificate 1 in mail.pem expires at 20" },
        { { .key_type = "RSA1024" }, 1, "mistake: the certificate in mail.pem has a key of 1024 bits" },
        { { .key_type = "P-384" }, 1, "mistake: the certificate in mail.pem has a key of type EC secp384r1;" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture_certificate f = fixture_new(&cases[i].options);
        assert_int_equal(check(f.pem, NULL), cases[i].mistakes);
        check_contains(cases[i].text);
        fixture_free(&f);
    }
}

static void test_load_errors(void **state)
{
    struct fixture_certificate f = fixture_simple("DNS:a.test", "EC");
    struct certificate *certificate;
    struct err err;
    assert_int_equal(certificate_load(STR(""), "mail.pem", &certificate, &err), ERR_CONFIG);
    assert_int_equal(certificate_load(str_of(f.key_pem), "mail.pem", &certificate, &err), ERR_CONFIG);
    assert_string_equal(err.text,
                        "mail.pem holds no certificate (a block that begins with -----BEGIN CERTIFICATE-----)");
    f.pem[100] = '!';
    assert_int_equal(certificate_load(str_of(f.pem), "mail.pem", &certificate, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "certificate 1 in mail.pem cannot be read: "));
    assert_null(certificate);
    fixture_free(&f);
}

static void test_key(void **state)
{
    struct fixture_certificate f = fixture_simple("DNS:a.test", "EC"), g = fixture_simple("DNS:a.test", "RSA");
    struct certificate *certificate = load(f.pem);
    EVP_PKEY *key;
    struct err err;
    int fd = memfd_create("key", MFD_CLOEXEC);
    char *both = joined(f.pem, f.key_pem, "");
    assert_int_equal(write(fd, both, strlen(both)), (ssize_t)strlen(both)); /* the offset is at the end now */
    assert_int_equal(certificate_key_load_fd(fd, "mail.key", &key, &err), 0);
    assert_int_equal(certificate_key_matches(certificate, "mail.pem", key, "mail.key", &err), 0);
    assert_int_equal(certificate_key_matches(certificate, "mail.pem", g.key, "other.key", &err), ERR_CONFIG);
    assert_string_equal(err.text, "the private key in other.key does not belong to the first certificate in mail.pem; "
                                  "take the files of one request, with the server's own certificate first");
    EVP_PKEY_free(key);
    assert_int_equal(certificate_key_load(str_of(f.pem), "mail.key", &key, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "mail.key holds no private key"));
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, f.key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL);
    char *encrypted = fixture_text(bio);
    assert_int_equal(certificate_key_load(str_of(encrypted), "mail.key", &key, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "mail.key is encrypted with a passphrase"));
    assert_int_equal(ftruncate(fd, CERTIFICATE_FILE_MAX + 1), 0);
    assert_int_equal(certificate_key_load_fd(fd, "mail.key", &key, &err), ERR_LIMIT);
    close(fd);
    assert_int_equal(certificate_key_load_fd(fd, "mail.key", &key, &err), -EBADF);
    free(encrypted);
    free(both);
    certificate_free(&certificate);
    fixture_free(&f);
    fixture_free(&g);
}

static void test_describe(void **state)
{
    struct fixture_certificate f = fixture_simple("DNS:a.test,DNS:b.test", "RSA");
    struct certificate *certificate = load(f.pem);
    struct certificate_info info;
    certificate_describe(certificate, &info);
    assert_string_equal(info.names, "a.test b.test");
    assert_string_equal(info.key, "RSA 2048");
    assert_int_equal(info.not_after_ms - info.not_before_ms, (86400 + 3600) * INT64_C(1000));
    certificate_free(&certificate);
    fixture_free(&f);
}

static void test_sign(void **state)
{
    struct fixture_certificate ec = fixture_simple("DNS:a.test", "EC"), rsa = fixture_simple("DNS:a.test", "RSA");
    static char large[SIGN_DATA_MAX + 1];
    const struct {
        EVP_PKEY *key;
        const char *digest;
        enum sign_padding padding;
        struct str data;
        int rc;
    } cases[] = {
        { ec.key, "SHA256", SIGN_PADDING_PKCS1, STR("x"), 0 },
        { ec.key, "SHA2-384", SIGN_PADDING_PKCS1, STR("x"), 0 },
        { rsa.key, "SHA512", SIGN_PADDING_PSS, STR("x"), 0 },
        { rsa.key, "MD5-SHA1", SIGN_PADDING_PKCS1, STR("x"), 0 },
        { ec.key, "SHA256", SIGN_PADDING_PSS, STR("x"), ERR_DENIED },
        { ec.key, "MD5", SIGN_PADDING_PKCS1, STR("x"), ERR_DENIED },
        { rsa.key, "", SIGN_PADDING_PKCS1, STR("x"), ERR_DENIED },
        { rsa.key, "SHA256", SIGN_PADDING_PKCS1, { large, sizeof large }, ERR_DENIED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf signature;
        struct err err;
        struct sign_request request = {
            .digest = str_of(cases[i].digest), .padding = cases[i].padding, .data = cases[i].data,
        };
        buf_init(&signature, SIGN_SIGNATURE_MAX);
        assert_int_equal(sign_in_process(cases[i].key, &request, &signature, &err), cases[i].rc);
        assert_int_equal(signature.n > 0, cases[i].rc == 0);
        if (cases[i].rc == 0) {
            EVP_MD_CTX *md = EVP_MD_CTX_new();
            EVP_PKEY_CTX *ctx;
            assert_int_equal(EVP_DigestVerifyInit_ex(md, &ctx, cases[i].digest, NULL, NULL, cases[i].key, NULL), 1);
            if (cases[i].padding == SIGN_PADDING_PSS) {
                EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING);
                EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST);
            }
            assert_int_equal(EVP_DigestVerify(md, (const unsigned char *)signature.p, signature.n,
                                              (const unsigned char *)cases[i].data.p, cases[i].data.n), 1);
            EVP_MD_CTX_free(md);
        }
        buf_done(&signature);
    }
    fixture_free(&ec);
    fixture_free(&rsa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check), cmocka_unit_test(test_check_dates_and_keys), cmocka_unit_test(test_load_errors),
        cmocka_unit_test(test_key), cmocka_unit_test(test_describe), cmocka_unit_test(test_sign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
