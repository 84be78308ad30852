#include "kerberos/keytab.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "kerberos/keytab_file.h"
#include "kerberos/private.h"

struct krb_keytab {
    char name[40];
    krb5_context krb5;
    krb5_keytab handle; /* keeps the keys while this lives */
    struct arena arena; /* the rows' text */
    struct krb_keytab_row *row;
    size_t n_rows;
    bool truncated;
};

static int refuse(enum krb_cause *ret_cause, enum krb_cause cause, int code)
{
    if (ret_cause)
        *ret_cause = cause;
    return code;
}

/* Text as in ticket.h; NULL when out of memory or over what the arena may hold. */
static const char *entry_principal(struct arena *arena, const struct keytab_file_entry *entry)
{
    char text[KRB_TICKET_NAME_BYTES];
    if (!krb_name_text(entry->part, entry->n_parts, entry->realm, text, sizeof text))
        return NULL;
    return arena_strdup(arena, str_of(text));
}

/* A key of the wrong size for its enctype never comes near the library's ciphers; one of an enctype that this krb5
 * does not know is no use to it. */
static krb5_error_code add_key(struct krb_keytab *keytab, const struct keytab_file_entry *entry)
{
    krb5_data part[KEYTAB_FILE_PARTS_MAX];
    size_t key_bytes = 0, ignored;
    if (krb5_c_keylengths(keytab->krb5, entry->enctype, &ignored, &key_bytes) || key_bytes != entry->key.n)
        return 0;
    for (unsigned i = 0; i < entry->n_parts; i++)
        part[i] = (krb5_data){ .length = (unsigned)entry->part[i].n, .data = (char *)(uintptr_t)entry->part[i].p };
    krb5_principal_data principal = {
        .realm = { .length = (unsigned)entry->realm.n, .data = (char *)(uintptr_t)entry->realm.p },
        .data = part, .length = (krb5_int32)entry->n_parts, .type = entry->name_type,
    };
    krb5_keytab_entry row = {
        .principal = &principal, .timestamp = (krb5_timestamp)entry->timestamp_s, .vno = entry->kvno,
        .key = { .enctype = entry->enctype, .length = (unsigned)entry->key.n,
                 .contents = (krb5_octet *)(uintptr_t)entry->key.p },
    };
    return krb5_kt_add_entry(keytab->krb5, keytab->handle, &row); /* copies everything */
}

static int load_rows(struct krb_keytab *keytab, struct str octets, const char *file, enum krb_cause *ret_cause,
                     struct err *err)
{
    struct keytab_file reader;
    struct keytab_file_entry entry;
    struct err inner = { 0 };
    int more = keytab_file_open(octets, &reader, &inner);
    if (more < 0)
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE, err_set(err, more, "keytab %s: %s", file, inner.text));
    while ((more = keytab_file_next(&reader, &entry, &inner)) > 0) {
        if (keytab->n_rows == KRB_KEYTAB_ROWS_MAX) {
            keytab->truncated = true;
            return 0;
        }
        struct krb_keytab_row *row = &keytab->row[keytab->n_rows];
        *row = (struct krb_keytab_row){ .principal = entry_principal(&keytab->arena, &entry), .kvno = entry.kvno,
                                        .enctype = entry.enctype, .timestamp_s = entry.timestamp_s };
        if (!row->principal)
            return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE,
                          err_set(err, ERR_LIMIT, "keytab %s: entry %zu has a name that is too long", file,
                                  keytab->n_rows + 1));
        if (add_key(keytab, &entry))
            return refuse(ret_cause, KRB_CAUSE_INTERNAL, err_set(err, -ENOMEM, "keytab %s: out of memory", file));
        keytab->n_rows++;
    }
    if (more < 0)
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE, err_set(err, more, "keytab %s: %s", file, inner.text));
    return 0;
}

static int load(struct krb_keytab *keytab, struct str octets, const char *file, enum krb_cause *ret_cause,
                struct err *err)
{
    static atomic_ulong generation;
    snprintf(keytab->name, sizeof keytab->name, "MEMORY:postern-%lu", atomic_fetch_add(&generation, 1) + 1);
    arena_init(&keytab->arena, (size_t)KRB_KEYTAB_ROWS_MAX * (KRB_TICKET_NAME_BYTES + 64));
    keytab->row = calloc(KRB_KEYTAB_ROWS_MAX, sizeof *keytab->row);
    if (!keytab->row)
        return refuse(ret_cause, KRB_CAUSE_INTERNAL, err_set(err, -ENOMEM, "keytab %s: out of memory", file));
    krb5_error_code code = krb5_init_context(&keytab->krb5);
    if (!code)
        code = krb5_kt_resolve(keytab->krb5, keytab->name, &keytab->handle);
    if (code) {
        const char *text = krb5_get_error_message(keytab->krb5, code);
        int rc = err_set(err, ERR_CONFIG, "keytab %s: Kerberos cannot start: %s", file, text);
        krb5_free_error_message(keytab->krb5, text);
        return refuse(ret_cause, KRB_CAUSE_INTERNAL, rc);
    }
    int rc = load_rows(keytab, octets, file, ret_cause, err);
    if (rc < 0)
        return rc;
    if (krb5_kt_have_content(keytab->krb5, keytab->handle))
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_EMPTY,
                      err_set(err, ERR_ABSENT, "keytab %s holds no key that can be used (%zu entries); "
                              "write keys into it with ktutil or samba-tool", file, keytab->n_rows));
    return 0;
}

int krb_keytab_load(struct str octets, const char *file, struct krb_keytab **ret_keytab, enum krb_cause *ret_cause,
                    struct err *err)
{
    struct krb_keytab *keytab = calloc(1, sizeof *keytab);
    *ret_keytab = NULL;
    if (!keytab)
        return refuse(ret_cause, KRB_CAUSE_INTERNAL, err_set(err, -ENOMEM, "keytab %s: out of memory", file));
    int rc = load(keytab, octets, file, ret_cause, err);
    if (rc < 0)
        krb_keytab_free(&keytab);
    *ret_keytab = keytab;
    return rc;
}

static int read_fd(int fd, struct buf *octets)
{
    for (;;) {
        char *p = buf_reserve(octets, 16384);
        if (!p)
            return ERR_LIMIT;
        ssize_t n = pread(fd, p, 16384, (off_t)octets->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        octets->n += (size_t)n;
    }
}

int krb_keytab_load_fd(int fd, const char *file, struct krb_keytab **ret_keytab, enum krb_cause *ret_cause,
                       struct err *err)
{
    struct buf octets;
    struct stat st;
    *ret_keytab = NULL;
    if (fstat(fd, &st) < 0)
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE, err_errno(err, errno, "keytab %s", file));
    if (!S_ISREG(st.st_mode))
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE, err_set(err, ERR_CONFIG, "keytab %s is no file", file));
    if (st.st_size > KRB_KEYTAB_FILE_MAX)
        return refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE,
                      err_set(err, ERR_LIMIT, "keytab %s is over 1 MiB", file));
    /* Reserved whole, so that growing leaves no copy of a key behind in freed memory. */
    buf_init(&octets, KRB_KEYTAB_FILE_MAX + 32768);
    int rc = buf_reserve(&octets, (size_t)st.st_size + 32768) ? read_fd(fd, &octets) : -ENOMEM;
    if (rc == ERR_LIMIT)
        refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE,
               err_set(err, rc, "keytab %s grew beyond 1 MiB while it was read", file));
    else if (rc < 0)
        refuse(ret_cause, KRB_CAUSE_KEYTAB_UNREADABLE, err_errno(err, -rc, "keytab %s", file));
    else
        rc = krb_keytab_load(buf_str(&octets), file, ret_keytab, ret_cause, err);
    buf_wipe(&octets);
    return rc;
}

void krb_keytab_free(struct krb_keytab **keytab)
{
    if (!keytab || !*keytab)
        return;
    if ((*keytab)->handle)
        krb5_kt_close((*keytab)->krb5, (*keytab)->handle);
    krb5_free_context((*keytab)->krb5);
    arena_done(&(*keytab)->arena);
    free((*keytab)->row);
    free(*keytab);
    *keytab = NULL;
}

const char *krb_keytab_name(const struct krb_keytab *keytab)
{
    return keytab->name;
}

const struct krb_keytab_row *krb_keytab_rows(const struct krb_keytab *keytab, size_t *ret_n)
{
    *ret_n = keytab->n_rows;
    return keytab->row;
}

bool krb_keytab_truncated(const struct krb_keytab *keytab)
{
    return keytab->truncated;
}

void krb_keytab_match(const struct krb_keytab *keytab, const struct krb_ticket *ticket,
                      struct krb_keytab_match *ret_match)
{
    char wanted[KRB_TICKET_NAME_BYTES + KRB_TICKET_REALM_BYTES + 1];
    int64_t newest_any_s = 0;
    snprintf(wanted, sizeof wanted, "%s@%s", ticket->service, ticket->realm);
    *ret_match = (struct krb_keytab_match){ 0 };
    for (size_t i = 0; i < keytab->n_rows; i++) {
        const struct krb_keytab_row *row = &keytab->row[i];
        ret_match->rows_with_service += str_find(str_of(row->principal), '/') < strlen(row->principal);
        if (row->kvno > ret_match->kvno_highest_any)
            ret_match->kvno_highest_any = row->kvno;
        if (row->timestamp_s > newest_any_s)
            newest_any_s = row->timestamp_s;
        if (!str_eq_nocase(str_of(row->principal), str_of(wanted)))
            continue;
        ret_match->rows_of_service++;
        ret_match->same_case |= str_eq(str_of(row->principal), str_of(wanted));
        if (row->kvno > ret_match->kvno_highest)
            ret_match->kvno_highest = row->kvno;
        if (row->timestamp_s > ret_match->newest_s)
            ret_match->newest_s = row->timestamp_s;
        if (ticket->has_kvno && row->kvno == ticket->kvno) {
            ret_match->has_kvno = true;
            ret_match->has_enctype |= row->enctype == ticket->enctype;
        }
    }
    if (ret_match->rows_of_service == 0)
        ret_match->newest_s = newest_any_s;
}

static int identity_of(int rc, const struct stat *st, struct krb_keytab_identity *ret)
{
    if (rc < 0)
        return -errno;
    *ret = (struct krb_keytab_identity){ .device = st->st_dev, .inode = st->st_ino, .bytes = (uint64_t)st->st_size,
                                         .modified = st->st_mtim, .changed = st->st_ctim };
    return 0;
}

int krb_keytab_stat(const char *path, struct krb_keytab_identity *ret_identity)
{
    struct stat st;
    return identity_of(stat(path, &st), &st, ret_identity);
}

int krb_keytab_stat_fd(int fd, struct krb_keytab_identity *ret_identity)
{
    struct stat st;
    return identity_of(fstat(fd, &st), &st, ret_identity);
}

bool krb_keytab_same(const struct krb_keytab_identity *a, const struct krb_keytab_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}
