/* keyring: the private TLS keys of all virtual servers, by the names that requests use (sign_key_name()),
 * and the keys of session tickets. No I/O but reading a key's descriptor; it writes no log.
 *
 * Keys of the snapshot before stay until the next one: smtpd may still show the old certificate while
 * keys has the new key already. */
#pragma once
#include "base/secret.h"
#include "keystore/sign.h"

struct keyring;

int keyring_new(struct keyring **ret_ring, struct err *err);
void keyring_free(struct keyring **ring);

/* Loads the key of `server` from `fd` (not closed); `file` is for the error text. It can be used at once. */
int keyring_load(struct keyring *ring, const char *server, const char *file, int fd, struct err *err);
/* A snapshot is complete: keys that it did not name go when the next one is complete. */
void keyring_turn(struct keyring *ring);
size_t keyring_count(const struct keyring *ring);
/* Adds a signature. ERR_ABSENT: no such key; otherwise as sign_in_process(). */
int keyring_sign(struct keyring *ring, const struct sign_request *request, struct buf *signature, struct err *err);
/* One signature with each key, so that what the library loads late is there before a sandbox. */
int keyring_warm(struct keyring *ring, struct err *err);

/* Session-ticket keys, newest first (IPC_TICKET_KEYS). Rotating puts a new one in front. */
int keyring_rotate_tickets(struct keyring *ring, struct err *err);
struct str keyring_tickets(const struct keyring *ring);
