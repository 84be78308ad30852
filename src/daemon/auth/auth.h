/* auth: what the files of this role share. All of it belongs to the loop's thread, except a job while it is on a
 * worker thread. */
#pragma once
#include "base/secret.h"
#include "daemon/auth/cache.h"
#include "daemon/auth/limits.h"
#include "daemon/auth/store.h"
#include "daemon/role.h"
#include "io/worker.h"

enum {
    AUTH_SESSIONS_MAX = 20000,  /* exchanges at one time, both directions; beyond it 454 4.7.0 */
    AUTH_QUEUE_MAX = 2000,      /* jobs that wait for a thread: beyond it 454 4.7.0 */
    AUTH_DEADLINE_MS = 10000,   /* a job that has not begun by then is given up: 454 4.7.0 */
    AUTH_DRAIN_MS = 5000,
};

struct inbound;
struct outbound;
struct auth_keytabs;
struct identity_rules;
struct bind_password;
struct table_file;

struct auth {
    struct role_ctx *ctx;
    /* Pools of their own: what waits in one does not make another wait. */
    struct worker_pool *pool;           /* PBKDF2, the user store */
    struct worker_pool *accept_pool;    /* Kerberos, inbound: files only */
    struct worker_pool *initiate_pool;  /* Kerberos, outbound: a silent KDC takes 27 s of a thread */
    struct worker_pool *winbind_pool, *directory_pool;
    unsigned n_winbind_lost, n_directory_lost; /* threads that nobody waits for any more */
    struct auth_keytabs *keytabs, *next_keytabs; /* of this snapshot; of one that is being handed over */
    struct identity_rules *rules;
    const struct conf *rules_conf;      /* the snapshot that the rules are of */
    struct bind_password *bind_passwords, *next_bind_passwords; /* of directories */
    struct table_file *tables;          /* identity tables of the next snapshot */
    char *rcache;                       /* "file2:PATH" */
    struct buf sandbox_paths;           /* what the closed sandbox allows, to see when it is not enough */
    struct auth_cache *cache;
    struct auth_limits *limits;
    struct auth_store *store;
    struct auth_peer *peers;
    struct inbound *inbound;
    struct outbound *outbound;
    struct loop_timer *drain_timer;
    int64_t store_failure_logged_ms;
    size_t n_sessions;
    bool draining;
};

/* A channel to an smtpd or a delivery process. Sessions point at it and end with it. */
struct auth_peer {
    struct auth *auth;
    struct auth_peer *next;
    enum role_id role;
    unsigned index;
    int fd;                   /* until the loop turns */
    struct channel *channel;
};

/* One exchange belongs to the process that asked, and has the id that it chose. */
struct auth_key {
    struct auth_peer *peer;
    uintptr_t id;             /* of pointer size: the key has no padding */
};

/* Each exchange counts from its start to its end; false: too many, or the role is about to end. */
bool auth_session_begin(struct auth *auth);
void auth_session_end(struct auth *auth);
/* The first line of a password file; NULL when it is empty or too long. */
struct secret *auth_read_password(int fd);
/* The password that a directory is asked with; NULL: none. */
const struct secret *auth_bind_password(const struct auth *auth, const char *realm);
/* Ends everything of the role; the loop stays. For a process that goes on without it: a test. */
void auth_free(struct role_ctx *ctx);
/* One event for a store that cannot be read, at most one a minute. */
void auth_store_failed(struct auth *auth, const struct err *err);

/* Inbound: AUTH_* and USER_QUERY from smtpd. False: what came is no message that a peer may send. */
int inbound_new(struct auth *auth, struct inbound **ret_inbound, struct err *err);
void inbound_free(struct inbound **inbound);
bool inbound_message(struct inbound *inbound, struct auth_peer *peer, unsigned type, uint32_t id, struct str body);
void inbound_peer_gone(struct inbound *inbound, struct auth_peer *peer);

/* Outbound: LOGIN_* from delivery; false as above. */
int outbound_new(struct auth *auth, struct outbound **ret_outbound, struct err *err);
void outbound_free(struct outbound **outbound);
/* A password file of the next snapshot; takes fd. outbound_configured() puts all of them into use. */
void outbound_password_file(struct outbound *outbound, struct str domain, int fd);
void outbound_configured(struct outbound *outbound);
bool outbound_message(struct outbound *outbound, struct auth_peer *peer, unsigned type, uint32_t id, struct str body);
void outbound_peer_gone(struct outbound *outbound, struct auth_peer *peer);
