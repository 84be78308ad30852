/* A keytab file: read entry by entry, and loaded into the library. */
#include "kerberos/keytab.h"
#include "kerberos/keytab_file.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str octets = str_slice(data, n);
    struct keytab_file file;
    struct keytab_file_entry entry;
    struct krb_keytab *keytab;
    enum krb_cause cause = KRB_CAUSE_NONE;
    struct err err = { 0 };
    size_t entries = 0, rows = 0;
    int more = keytab_file_open(octets, &file, &err);
    while (more >= 0 && (more = keytab_file_next(&file, &entry, &err)) > 0) {
        entries++;
        assert(entry.n_parts > 0 && entry.n_parts <= KEYTAB_FILE_PARTS_MAX && entry.key.n <= KEYTAB_FILE_KEY_MAX);
    }
    assert((more < 0) == (err.code != 0));
    int rc = krb_keytab_load(octets, "f", &keytab, &cause, &err);
    assert((rc == 0) == (keytab != NULL) && (rc < 0) == (cause != KRB_CAUSE_NONE));
    if (keytab) {
        krb_keytab_rows(keytab, &rows);
        assert(rows > 0 && rows <= KRB_KEYTAB_ROWS_MAX && rows <= entries);
    }
    krb_keytab_free(&keytab);
    return 0;
}
