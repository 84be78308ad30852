#include "daemon/smtpd/signer.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "base/hash.h"
#include "daemon/ipc.h"
#include "keystore/provider.h"

/* A request on its way. */
struct signer_slot {
    uint32_t id;
    struct sign_waiter *waiter;
    UT_hash_handle hh;
};

struct signer_link {
    struct loop *loop;
    struct channel *channel; /* NULL while keys is down */
    struct signer signer;
    struct tls_tickets *tickets;
    struct signer_slot *slots;
    uint32_t last_id;
    uint64_t asked, refused;
};

static void slot_answer(struct signer_link *link, struct signer_slot *slot, struct str signature)
{
    struct sign_waiter *waiter = slot->waiter;
    HASH_DEL(link->slots, slot);
    free(slot);
    waiter->slot = NULL;
    link->refused += signature.n == 0;
    /* Resumes the handshake, which may ask again, cancel others, or free its session. */
    waiter->answered(waiter, signature);
}

static int link_sign(void *arg, const struct sign_request *request, struct sign_waiter *waiter)
{
    struct signer_link *link = arg;
    link->asked++;
    struct signer_slot *slot = NULL, *taken = NULL;
    if (link->channel && channel_backlog_bytes(link->channel) < CHANNEL_BACKLOG_MAX)
        slot = calloc(1, sizeof *slot);
    if (!slot) {
        link->refused++;
        return ERR_BUSY;
    }
    do {
        slot->id = ++link->last_id;
        HASH_FIND(hh, link->slots, &slot->id, sizeof slot->id, taken);
    } while (taken);
    slot->waiter = waiter;
    struct buf body;
    buf_init(&body, CHANNEL_BODY_MAX);
    struct ipc_sign message = {
        .key = request->key, .digest = request->digest, .padding = (uint8_t)request->padding, .data = request->data,
    };
    ipc_put_sign(&body, &message);
    int rc = body.failed ? ERR_LIMIT : channel_send(link->channel, IPC_SIGN, slot->id, buf_str(&body));
    buf_done(&body);
    if (rc < 0) {
        free(slot);
        link->refused++;
        return rc;
    }
    HASH_ADD(hh, link->slots, id, sizeof slot->id, slot);
    if (!hash_has(slot)) { /* its answer will find nobody */
        free(slot);
        return -ENOMEM;
    }
    waiter->slot = slot;
    return 0;
}

static void link_cancel(void *arg, struct sign_waiter *waiter)
{
    struct signer_link *link = arg;
    struct signer_slot *slot = waiter->slot;
    if (!slot)
        return;
    HASH_DEL(link->slots, slot);
    free(slot);
    waiter->slot = NULL;
}

static void keys_gone(void *arg, const struct err *why)
{
    struct signer_link *link = arg;
    channel_free(&link->channel);
    while (link->slots)
        slot_answer(link, link->slots, STR_NONE);
}

static void keys_message(void *arg, unsigned type, uint32_t id, struct str body, struct channel_fds *fds)
{
    struct signer_link *link = arg;
    struct signer_slot *slot = NULL;
    struct err err = { 0 };
    if (type == IPC_SIGNED) {
        HASH_FIND(hh, link->slots, &id, sizeof id, slot);
        /* None: the session has gone meanwhile. */
        if (slot)
            slot_answer(link, slot, body);
    } else if (type != IPC_TICKET_KEYS || !tls_set_ticket_keys(link->tickets, body)) {
        err_set(&err, ERR_SYNTAX, "keys sent a message that is not for smtpd");
        keys_gone(link, &err);
    }
}

int signer_new(struct loop *loop, struct signer_link **ret_link, struct err *err)
{
    *ret_link = NULL;
    int rc = provider_init(err);
    if (rc == 0)
        rc = tls_init(err);
    if (rc < 0)
        return rc;
    struct signer_link *link = calloc(1, sizeof *link);
    if (!link)
        return err_set(err, -ENOMEM, "no memory for the way to the keys process");
    link->loop = loop;
    link->signer = (struct signer){ .sign = link_sign, .cancel = link_cancel, .arg = link };
    rc = tls_tickets_new(&link->tickets, err);
    if (rc < 0)
        free(link);
    else
        *ret_link = link;
    return rc;
}

void signer_free(struct signer_link **link)
{
    if (!*link)
        return;
    keys_gone(*link, NULL);
    tls_tickets_unref(&(*link)->tickets);
    free(*link);
    *link = NULL;
}

int signer_peer(struct signer_link *link, int fd, struct err *err)
{
    static const struct channel_handlers handlers = { .message = keys_message, .closed = keys_gone };
    /* A successor's channel: what waits at the old one will not be answered. */
    keys_gone(link, NULL);
    return channel_open(link->loop, fd, &handlers, link, &link->channel, err);
}

bool signer_available(const struct signer_link *link)
{
    return link->channel;
}

void signer_count(const struct signer_link *link, struct signer_counts *ret_counts)
{
    *ret_counts = (struct signer_counts){
        .asked = link->asked, .refused = link->refused, .waiting = HASH_COUNT(link->slots),
    };
}

int signer_server_context_new(struct signer_link *link, const char *server, struct str certificate_pem,
                              const char *tls_min, struct tls_server_context **ret_context, struct err *err)
{
    EVP_PKEY *key = NULL;
    *ret_context = NULL;
    int rc = provider_key_new(server, certificate_pem, &link->signer, &key, err);
    if (rc < 0)
        return rc;
    struct tls_server_options options = {
        .name = server, .certificate_pem = certificate_pem, .key = key, .key_elsewhere = true,
        .min_version = tls_min, .tickets = link->tickets,
    };
    rc = tls_server_context_new(&options, ret_context, err);
    EVP_PKEY_free(key);
    return rc;
}
