/* snapshot: a configuration together with everything that it names, opened: what roles work with.
 *
 * Files are read once into sealed memory files, so that all roles see the same octets however the file
 * changes meanwhile; logs are opened to append. Listeners are opened per smtpd process and live as long as
 * some snapshot names them. A snapshot that cannot be completed changes nothing. */
#pragma once
#include <sys/types.h>
#include <time.h>

#include "conf/load.h"
#include "daemon/ipc.h"

enum { SNAPSHOT_FILES_MAX = 4096 };

/* Roles that a file is for, as bits 1 << enum role_id. */
struct snapshot_file {
    enum ipc_file_kind kind;
    uint8_t detail;
    char *name, *text;
    int fd;
    unsigned roles;
    int only_index;      /* of the process within its role; -1: all */
    bool fresh_offset;   /* reopened for each receiver, which then reads from the beginning */
    /* Of a keytab: what the file was when it was read; it is read again when it has become another. */
    struct snapshot_seen {
        dev_t device;
        ino_t inode;
        off_t bytes;
        struct timespec modified, changed;
    } seen;
    bool failed;         /* it could not be read the last time, and that was told */
};

struct snapshot {
    const struct conf *conf;
    uint64_t generation;
    unsigned smtpd_processes; /* fixed when the daemon starts */
    int bundle_fd;
    struct snapshot_file *file;
    size_t n_files;
};

/* `previous` (or NULL) lends its listeners and the number of smtpd processes. Returns ERR_CONFIG with everything that is
 * wrong in `mistakes`, one a line, else a negative code and err. */
int snapshot_load(const char *path, uint64_t generation, const struct snapshot *previous, struct snapshot **ret_snapshot,
                  struct buf *mistakes, struct err *err);
void snapshot_free(struct snapshot **snapshot);
/* Looks at the keytabs, and reads those whose files have changed: `changed` gets each with its new descriptor (err
 * NULL), or, once, one that cannot be read: the old octets stay in use until it can. */
void snapshot_refresh_keytabs(struct snapshot *snapshot,
                              void (*changed)(void *arg, const struct snapshot_file *file, const struct err *err),
                              void *arg);
/* Opens the log files anew (rotation). */
void snapshot_reopen_logs(struct snapshot *snapshot);
