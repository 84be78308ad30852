/* The keys role. Happy path: master hands over the keys' files before the sandbox closes; each smtpd gets
 * the session-ticket keys when its channel opens and every hour; an IPC_SIGN is answered in the same turn,
 * all of a turn in one packet. Ways to fail: an unknown key, digest or padding is refused with an empty
 * signature and noted; a malformed message closes that one channel; a key file that does not load is an
 * event, and the server's former key stays for one snapshot more. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/keys/keyring.h"
#include "daemon/role.h"

enum { PEERS_MAX = 256, TICKETS_EVERY_MS = 3600 * 1000, REFUSED_EVERY_MS = 10 * 1000 };

struct keys_peer {
    struct keys *keys;
    int fd; /* until the loop turns; then -1 */
    enum role_id role;
    unsigned index;
    struct channel *channel;
};

struct keys {
    struct role_ctx *ctx;
    struct keyring *ring;
    struct loop_timer *tickets_timer;
    struct keys_peer *peer[PEERS_MAX];
    size_t n_peers;
    bool started, draining;
    int64_t refused_told_ms; /* when the last refusal was logged */
    uint64_t refused;        /* since then */
};

static struct keys *keys_of(struct role_ctx *ctx)
{
    /* role.c knows no hook before the first file arrives. */
    if (!ctx->state) {
        struct keys *keys = calloc(1, sizeof *keys);
        struct err err = { 0 };
        if (keys)
            keys->ctx = ctx;
        if (!keys || keyring_new(&keys->ring, &err) < 0) {
            log_event(ctx->log, LOG_LEVEL_ERROR, "keys.start.failed", "%s", keys ? err_text(&err) : "out of memory");
            free(keys);
            keys = NULL;
        }
        ctx->state = keys;
    }
    return ctx->state;
}

/* ---- peers ---- */

static void stop_when_alone(struct keys *keys)
{
    if (keys->draining && keys->n_peers == 0)
        loop_stop(keys->ctx->loop);
}

static void peer_free(struct keys_peer *peer)
{
    struct keys *keys = peer->keys;
    size_t i = 0;
    while (i < keys->n_peers && keys->peer[i] != peer)
        i++;
    if (i < keys->n_peers)
        keys->peer[i] = keys->peer[--keys->n_peers];
    channel_free(&peer->channel);
    if (peer->fd >= 0)
        close(peer->fd);
    free(peer);
    stop_when_alone(keys);
}

static void peer_closed(void *arg, const struct err *why)
{
    peer_free(arg);
}

/* A captured smtpd could ask without end: one line in ten seconds tells how often. */
static void refused(struct keys *keys, const struct keys_peer *peer, const struct err *err)
{
    int64_t now_ms = loop_now_ms(keys->ctx->loop);
    keys->refused++;
    if (keys->refused_told_ms && now_ms - keys->refused_told_ms < REFUSED_EVERY_MS)
        return;
    log_event(keys->ctx->log, LOG_LEVEL_WARNING, "keys.sign.refused",
              "%s (asked by %s %u; %llu refused since the last line)", err_text(err), role_name(peer->role),
              peer->index, (unsigned long long)keys->refused);
    keys->refused_told_ms = now_ms;
    keys->refused = 0;
}

static void peer_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct keys_peer *peer = arg;
    struct keys *keys = peer->keys;
    struct ipc_sign message;
    if (type != IPC_SIGN || !ipc_get_sign(body, &message)) {
        log_event(keys->ctx->log, LOG_LEVEL_ERROR, "keys.peer.malformed", "%s %u sent a malformed message, type %u",
                  role_name(peer->role), peer->index, type);
        peer_free(peer);
        return;
    }
    struct sign_request request = {
        .key = message.key, .digest = message.digest, .padding = message.padding, .data = message.data,
    };
    struct buf signature;
    struct err err = { 0 };
    buf_init(&signature, SIGN_SIGNATURE_MAX);
    if (keyring_sign(keys->ring, &request, &signature, &err) < 0) {
        buf_clear(&signature);
        refused(keys, peer, &err);
    }
    channel_send(peer->channel, IPC_SIGNED, id, buf_str(&signature));
    buf_done(&signature);
}

static const struct channel_handlers peer_handlers = { .message = peer_message, .closed = peer_closed };

static void peer_begin(struct keys_peer *peer)
{
    struct keys *keys = peer->keys;
    struct err err = { 0 };
    int fd = peer->fd;
    peer->fd = -1;
    if (channel_open(keys->ctx->loop, fd, &peer_handlers, peer, &peer->channel, &err) < 0) {
        log_event(keys->ctx->log, LOG_LEVEL_ERROR, "keys.peer.failed", "%s", err_text(&err));
        peer_free(peer);
    } else if (peer->role == ROLE_SMTPD) {
        channel_send(peer->channel, IPC_TICKET_KEYS, 0, keyring_tickets(keys->ring));
    }
}

static void keys_peer(struct role_ctx *ctx, enum role_id role, unsigned index, const int *fds, size_t n_fds)
{
    struct keys *keys = keys_of(ctx);
    struct keys_peer *peer = keys && keys->n_peers < PEERS_MAX && !keys->draining ? calloc(1, sizeof *peer) : NULL;
    for (size_t i = peer ? 1 : 0; i < n_fds; i++)
        close(fds[i]);
    if (!peer)
        return;
    *peer = (struct keys_peer){ .keys = keys, .fd = fds[0], .role = role, .index = index };
    keys->peer[keys->n_peers++] = peer;
    if (keys->started)
        peer_begin(peer);
}

/* ---- keys and tickets ---- */

static void keys_file(struct role_ctx *ctx, const struct ipc_file *file, int fd)
{
    struct keys *keys = keys_of(ctx);
    char server[256], path[4096];
    struct err err = { 0 };
    /* Certificates come too; which key a request means stands in its name, so they are not needed. */
    if (keys && file->kind == IPC_FILE_KEY && str_copy(file->name, server, sizeof server) &&
        str_copy(file->text, path, sizeof path) &&
        keyring_load(keys->ring, server, path[0] ? path : "the key's file", fd, &err) < 0)
        log_event(ctx->log, LOG_LEVEL_ERROR, "keys.load.failed", "%s: %s", server, err_text(&err));
    close(fd);
}

static void keys_configured(struct role_ctx *ctx)
{
    struct keys *keys = keys_of(ctx);
    if (keys)
        keyring_turn(keys->ring);
}

static void rotate_tickets(void *arg)
{
    struct keys *keys = arg;
    struct err err = { 0 };
    loop_timer_set(keys->tickets_timer, TICKETS_EVERY_MS);
    if (keyring_rotate_tickets(keys->ring, &err) < 0) {
        log_event(keys->ctx->log, LOG_LEVEL_ERROR, "keys.tickets.failed", "%s; the former keys stay", err_text(&err));
        return;
    }
    for (size_t i = 0; i < keys->n_peers; i++)
        if (keys->peer[i]->role == ROLE_SMTPD && keys->peer[i]->channel)
            channel_send(keys->peer[i]->channel, IPC_TICKET_KEYS, 0, keyring_tickets(keys->ring));
}

/* ---- life ---- */

static int keys_start(struct role_ctx *ctx, struct err *err)
{
    struct keys *keys = keys_of(ctx);
    if (!keys)
        return err_set(err, -ENOMEM, "the keys process could not get memory or random numbers");
    int rc = keyring_warm(keys->ring, err);
    if (rc == 0)
        rc = loop_timer_new(ctx->loop, rotate_tickets, keys, &keys->tickets_timer, err);
    if (rc < 0)
        return rc;
    loop_timer_set(keys->tickets_timer, TICKETS_EVERY_MS);
    keys->started = true;
    /* From the end: one that fails takes the last one's place. */
    for (size_t i = keys->n_peers; i-- > 0;)
        peer_begin(keys->peer[i]);
    log_event(ctx->log, LOG_LEVEL_INFO, "keys.ready", "%zu private keys loaded", keyring_count(keys->ring));
    return 0;
}

/* Sessions that are still in their handshake need signatures: the last to leave ends it. */
static void keys_drain(struct role_ctx *ctx)
{
    struct keys *keys = keys_of(ctx);
    if (!keys) {
        loop_stop(ctx->loop);
        return;
    }
    keys->draining = true;
    stop_when_alone(keys);
}

static void keys_sandbox(const struct role_ctx *ctx, struct sandbox *sandbox)
{
    sandbox->empty_root = true;
}

const struct role role_keys = {
    .id = ROLE_KEYS,
    .process_name = "keys",
    .user_suffix = "-keys",
    .start = keys_start,
    .file = keys_file,
    .peer = keys_peer,
    .configured = keys_configured,
    .drain = keys_drain,
    .sandbox = keys_sandbox,
};
