/* keytab: a keytab in memory, for this process under a name of its own, and its rows for explanations.
 *
 * Master opens the file (it may be root's alone) and passes the descriptor; nothing here opens a path but
 * krb_keytab_stat(). Each load gets a new name ("MEMORY:postern-7"), so that credentials made from an older one go on
 * until they are freed: to take a new keytab is to load it, to make new acceptors and initiators from it, and to free
 * the old ones. A struct krb_keytab does not change after loading; any thread may read it. It must live until
 * krb_acceptor_new()/krb_initiator_new() returned; after that the library holds its own reference.
 *
 * Files are of format 0x0502, at most 1 MiB; rows over 1,000 are not taken, and krb_keytab_truncated() says so. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/str.h"
#include "kerberos/failure.h"
#include "kerberos/ticket.h"

enum { KRB_KEYTAB_FILE_MAX = 1024 * 1024, KRB_KEYTAB_ROWS_MAX = 1000 };

struct krb_keytab_row {
    const char *principal; /* "SMTPSVC/mail.corp.test@CORP.TEST", text as in ticket.h */
    uint32_t kvno;
    int32_t enctype;
    int64_t timestamp_s;   /* when it was written, since 1970; 0: unknown */
};

struct krb_keytab;

/* `file` (a path) is for the sentences only. Reads from the start whatever the descriptor's offset is; the descriptor
 * stays the caller's. On failure *ret_cause (may be NULL) is keytab-unreadable, keytab-empty or kerberos-internal. */
int krb_keytab_load_fd(int fd, const char *file, struct krb_keytab **ret_keytab, enum krb_cause *ret_cause,
                       struct err *err);
/* The same from octets; the caller wipes them. */
int krb_keytab_load(struct str octets, const char *file, struct krb_keytab **ret_keytab, enum krb_cause *ret_cause,
                    struct err *err);
/* NULL is fine; sets *keytab to NULL. */
void krb_keytab_free(struct krb_keytab **keytab);

/* "MEMORY:postern-7". */
const char *krb_keytab_name(const struct krb_keytab *keytab);
/* In the order of the file. */
const struct krb_keytab_row *krb_keytab_rows(const struct krb_keytab *keytab, size_t *ret_n);
bool krb_keytab_truncated(const struct krb_keytab *keytab);

/* A ticket held against a keytab, for the sentence after a refusal. */
struct krb_keytab_match {
    unsigned rows_of_service;   /* rows whose principal is the ticket's service and realm, any case */
    unsigned rows_with_service; /* rows of any service: principals with a '/' */
    bool same_case;             /* one of them is written as the ticket writes it */
    uint32_t kvno_highest;      /* of those rows; 0 without any */
    bool has_kvno;              /* one has the ticket's kvno */
    bool has_enctype;           /* one has the ticket's kvno and enctype */
    uint32_t kvno_highest_any;  /* of all rows: keytabs that hold only HOST$ */
    int64_t newest_s;           /* timestamp of the newest row of the service, or of all when there is none */
};
void krb_keytab_match(const struct krb_keytab *keytab, const struct krb_ticket *ticket,
                      struct krb_keytab_match *ret_match);

/* The identity of a file on disk, to notice that it was changed or replaced. */
struct krb_keytab_identity {
    uint64_t device, inode, bytes;
    struct timespec modified, changed;
};
/* Negated errno. */
int krb_keytab_stat(const char *path, struct krb_keytab_identity *ret_identity);
int krb_keytab_stat_fd(int fd, struct krb_keytab_identity *ret_identity);
bool krb_keytab_same(const struct krb_keytab_identity *a, const struct krb_keytab_identity *b);
