/* Keytab files: what is read, what is refused and with which cause, and how a ticket is held against the rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "kerberos/keytab.h"
#include "kerberos/keytab_file.h"

static void put(struct buf *b, uint32_t v, unsigned octets)
{
    while (octets-- > 0)
        buf_add_char(b, (char)(v >> (8 * octets)));
}

static void put_counted(struct buf *b, const char *text, size_t n)
{
    put(b, (uint32_t)n, 2);
    buf_add(b, str_slice(text, n));
}

/* `host` may be NULL: a name of one part. kvno over 255 goes into the 32-bit field behind the key. */
static void put_entry(struct buf *file, const char *service, const char *host, uint32_t kvno, uint32_t enctype, size_t key_bytes)
{
    struct buf b;
    char key[64] = "0123456789abcdef0123456789abcdef";
    buf_init(&b, 4096);
    put(&b, host ? 2 : 1, 2);
    put_counted(&b, "CORP.TEST", 9);
    put_counted(&b, service, strlen(service));
    if (host)
        put_counted(&b, host, strlen(host));
    put(&b, 1, 4);
    put(&b, 1700000000 + kvno, 4);
    put(&b, kvno & 0xff, 1);
    put(&b, enctype, 2);
    put_counted(&b, key, key_bytes);
    if (kvno > 255)
        put(&b, kvno, 4);
    put(file, (uint32_t)b.n, 4);
    buf_add(file, buf_str(&b));
    assert_false(b.failed || file->failed);
    buf_done(&b);
}

static void begin(struct buf *file)
{
    buf_init(file, KRB_KEYTAB_FILE_MAX);
    put(file, 0x0502, 2);
}

static struct krb_keytab *load(struct buf *file)
{
    struct krb_keytab *keytab;
    struct err err = { 0 };
    if (krb_keytab_load(buf_str(file), "test.keytab", &keytab, NULL, &err) < 0)
        fail_msg("%s", err.text);
    buf_done(file);
    return keytab;
}

static void refused(struct str octets, const char *cause, const char *text)
{
    struct krb_keytab *keytab;
    enum krb_cause found;
    struct err err = { 0 };
    assert_true(krb_keytab_load(octets, "test.keytab", &keytab, &found, &err) < 0);
    assert_null(keytab);
    assert_string_equal(krb_cause_word(found), cause);
    assert_non_null(strstr(err.text, "test.keytab"));
    if (!strstr(err.text, text))
        fail_msg("%s", err.text);
}

static void test_rows(void **state)
{
    struct buf file;
    size_t n;
    begin(&file);
    put_entry(&file, "SMTPSVC", "mail.corp.test", 3, 18, 32);
    put(&file, (uint32_t)-10, 4);
    buf_add_c(&file, "0123456789"); /* a deleted entry */
    put_entry(&file, "mail$", NULL, 300, 17, 16);
    put_entry(&file, "odd/name", NULL, 1, 999, 5);
    put(&file, 0, 4);
    buf_add_c(&file, "room that was kept");
    struct krb_keytab *keytab = load(&file);
    const struct krb_keytab_row *row = krb_keytab_rows(keytab, &n);
    assert_int_equal(n, 3);
    assert_string_equal(row[0].principal, "SMTPSVC/mail.corp.test@CORP.TEST");
    assert_int_equal(row[0].kvno, 3);
    assert_int_equal(row[0].enctype, 18);
    assert_int_equal(row[0].timestamp_s, 1700000003);
    assert_string_equal(row[1].principal, "mail$@CORP.TEST");
    assert_int_equal(row[1].kvno, 300);
    assert_string_equal(row[2].principal, "odd\\/name@CORP.TEST");
    assert_false(krb_keytab_truncated(keytab));
    assert_true(str_starts(str_of(krb_keytab_name(keytab)), STR("MEMORY:")));
    krb_keytab_free(&keytab);
    assert_null(keytab);
    krb_keytab_free(&keytab);
}

static void test_refused(void **state)
{
    struct buf file;
    refused(STR_NONE, "keytab-unreadable", "is empty");
    refused(STR("[libdefaults]\n"), "keytab-unreadable", "does not begin like a keytab");
    refused(STR("\x05\x01"), "keytab-unreadable", "0x0501");
    refused(STR("\x05\x02"), "keytab-empty", "holds no key");
    begin(&file);
    put_entry(&file, "a", "b", 1, 18, 31); /* no AES-256 key */
    put_entry(&file, "a", "b", 1, 999, 32);
    refused(buf_str(&file), "keytab-empty", "2 entries");
    buf_done(&file);
    begin(&file);
    put_entry(&file, "SMTPSVC", "mail", 1, 18, 32);
    size_t whole = file.n;
    for (size_t n = 3; n < whole; n++)
        refused(str_slice(file.p, n), "keytab-unreadable", n < 6 ? "cut off" : "longer than the file");
    /* A length that ends inside of the entry: damaged, at its offset. */
    file.p[5] = (char)(file.p[5] - 12);
    refused(buf_str(&file), "keytab-unreadable", "offset 2 is damaged");
    buf_done(&file);
    char many[200] = "\x05\x02";
    memcpy(many + 2, "\0\0\0\x10\0\0", 6); /* no part in the name */
    refused(str_slice(many, 22), "keytab-unreadable", "damaged");
    memcpy(many + 6, "\0\x20", 2);
    refused(str_slice(many, 22), "keytab-unreadable", "damaged");
}

static void test_bounded(void **state)
{
    struct buf file;
    size_t n;
    begin(&file);
    for (unsigned i = 0; i < KRB_KEYTAB_ROWS_MAX + 5; i++)
        put_entry(&file, "SMTPSVC", "mail", i + 1, 18, 32);
    struct krb_keytab *keytab = load(&file);
    krb_keytab_rows(keytab, &n);
    assert_int_equal(n, KRB_KEYTAB_ROWS_MAX);
    assert_true(krb_keytab_truncated(keytab));
    krb_keytab_free(&keytab);
}

static void test_match(void **state)
{
    struct buf file;
    struct krb_keytab_match match;
    struct krb_ticket ticket = { .service = "SMTPSVC/mail.corp.test", .realm = "CORP.TEST", .has_kvno = true, .kvno = 4,
                                 .enctype = 18 };
    begin(&file);
    put_entry(&file, "smtpsvc", "MAIL.corp.test", 3, 18, 32);
    put_entry(&file, "SMTPSVC", "mail.corp.test", 4, 17, 16);
    put_entry(&file, "mail$", NULL, 9, 18, 32);
    struct krb_keytab *keytab = load(&file);
    krb_keytab_match(keytab, &ticket, &match);
    assert_int_equal(match.rows_of_service, 2);
    assert_true(match.same_case && match.has_kvno);
    assert_false(match.has_enctype);
    assert_int_equal(match.kvno_highest, 4);
    assert_int_equal(match.kvno_highest_any, 9);
    assert_int_equal(match.newest_s, 1700000004);
    ticket.enctype = 17;
    krb_keytab_match(keytab, &ticket, &match);
    assert_true(match.has_enctype);
    assert_true(str_copy(STR("HTTP/mail.corp.test"), ticket.service, sizeof ticket.service));
    krb_keytab_match(keytab, &ticket, &match);
    assert_int_equal(match.rows_of_service, 0);
    assert_false(match.same_case || match.has_kvno || match.has_enctype);
    assert_int_equal(match.kvno_highest, 0);
    assert_int_equal(match.newest_s, 1700000009);
    krb_keytab_free(&keytab);
}

static void test_descriptors(void **state)
{
    char folder[] = "/tmp/postern-test-keytab-XXXXXX", path[80], other[80];
    struct krb_keytab_identity before, same, after;
    struct krb_keytab *keytab;
    enum krb_cause cause;
    struct err err = { 0 };
    struct buf file;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/k", folder);
    snprintf(other, sizeof other, "%s/l", folder);
    assert_int_equal(krb_keytab_stat(path, &before), -ENOENT);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_true(krb_keytab_load_fd(fd, path, &keytab, &cause, &err) < 0);
    assert_string_equal(krb_cause_word(cause), "keytab-unreadable");
    begin(&file);
    put_entry(&file, "SMTPSVC", "mail", 1, 18, 32);
    assert_int_equal(write(fd, file.p, file.n), file.n); /* the offset stands at the end now */
    if (krb_keytab_load_fd(fd, path, &keytab, &cause, &err) < 0)
        fail_msg("%s", err.text);
    krb_keytab_free(&keytab);
    assert_int_equal(krb_keytab_stat(path, &before), 0);
    assert_int_equal(krb_keytab_stat_fd(fd, &same), 0);
    assert_true(krb_keytab_same(&before, &same));
    int second = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(second, file.p, file.n), file.n);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(krb_keytab_stat(path, &after), 0);
    assert_false(krb_keytab_same(&before, &after));
    assert_int_equal(ftruncate(second, KRB_KEYTAB_FILE_MAX + 1), 0);
    assert_true(krb_keytab_load_fd(second, path, &keytab, &cause, &err) < 0);
    assert_int_equal(err.code, ERR_LIMIT);
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(krb_keytab_load_fd(directory, folder, &keytab, &cause, &err) < 0);
    assert_true(krb_keytab_load_fd(-1, path, &keytab, &cause, &err) < 0);
    close(fd);
    close(second);
    close(directory);
    buf_done(&file);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_refused), cmocka_unit_test(test_match),
        cmocka_unit_test(test_bounded), cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
