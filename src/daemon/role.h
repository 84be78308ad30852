/* role: what every process of the daemon has in common.
 *
 * posternd forks and re-executes itself with --role; the child finds its channel to master on
 * descriptor 3. role_main() then: reads what master sends until IPC_GO (configuration, files, peers),
 * calls `start` (load late libraries, make threads), drops user and rights, calls `begin`, closes the sandbox,
 * tells master that it is ready, and turns the loop. Master going away ends it through `drain`. */
#pragma once
#include "conf/conf.h"
#include "daemon/ipc.h"
#include "io/channel.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/sandbox.h"

struct role_ctx {
    struct loop *loop;
    struct log *log;
    struct channel *master;
    const struct conf *conf;  /* the current snapshot; take a reference to keep it beyond a callback */
    unsigned index;           /* of this process within its role */
    void *state;              /* the role's own */
    bool snapshot_coming;     /* between IPC_CONFIG and IPC_GO: files that come now are the next snapshot's */
    uint32_t ready_owed;      /* generation whose IPC_READY is owed; 0: none */
};

struct role {
    enum role_id id;
    const char *process_name; /* in logs: "smtpd", "smtp" … */
    const char *user_suffix;  /* "-smtpd"; "" for queue */

    /* Before the sandbox, after the first snapshot's files and peers were handed over: make threads,
     * load what libraries load late, open stores. Failing ends the process with the text. */
    int (*start)(struct role_ctx *ctx, struct err *err);
    /* After user, root folder and Landlock have changed, before the system call filter: open what the role's user
     * owns, make threads that touch files. May be NULL. */
    int (*begin)(struct role_ctx *ctx, struct err *err);
    /* An opened file, listener or log (see enum ipc_file_kind). Takes `fd`. Before `configured` each time. */
    void (*file)(struct role_ctx *ctx, const struct ipc_file *file, int fd);
    /* A channel to another role: the first one, or one to its successor. Takes `fds`. Kept raw until start:
     * before the loop turns only remember it; see role_peer_open(). */
    void (*peer)(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds);
    /* A whole snapshot has arrived (ctx->conf). First call comes right before `start`. Switch to it; then
     * role.c tells master. NULL: nothing to do. */
    void (*configured)(struct role_ctx *ctx);
    /* Finish what runs and call loop_stop(); new work is refused from now on. */
    void (*drain)(struct role_ctx *ctx);
    /* Other messages from master (IPC_RELOADED). May be NULL. */
    void (*message)(struct role_ctx *ctx, unsigned type, uint32_t id, struct str body, struct channel_fds *fds);
    /* Optional: false while the role cannot do its work yet; it then calls role_say_ready() when it can. */
    bool (*is_ready)(struct role_ctx *ctx);
    /* Fills what the process may touch once the sandbox is closed. */
    void (*sandbox)(const struct role_ctx *ctx, struct sandbox *sandbox);
};

extern const struct role role_smtpd, role_auth, role_keys, role_queue, role_delivery;

/* Tells master that the role can do its work, if that was still owed. */
void role_say_ready(struct role_ctx *ctx);

/* The whole of an opened file or memfd, from its beginning whatever its offset is. */
int role_read_file(int fd, struct buf *into, struct err *err);

/* As many descriptors as the hard limit allows. */
void role_raise_descriptor_limit(void);

/* Set in the environment of every role: how many delivery processes this daemon began with. */
#define ROLE_DELIVERIES "POSTERN_DELIVERIES"
/* Set in the environment of a daemon that runs in the background. */
#define ROLE_BACKGROUND "POSTERN_BACKGROUND"
/* In the background, a process whose log goes elsewhere closes its stderr, so that who started it sees its end. */
void role_let_go_of_stderr(const char *log_to);

/* The whole life of a role's process; returns its exit status (sysexits). */
int role_main(const struct role *role, unsigned index, int master_fd);
