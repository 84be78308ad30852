/* signer: smtpd's way to the keys process: signatures for handshakes and the session-ticket keys.
 *
 * Requests go out as IPC_SIGN, gathered by the channel within a turn; IPC_SIGNED resumes the session that
 * waits (its `ready`, see io/tls.h). While keys is down, requests are refused at once and those that wait
 * fail: handshakes fail, and STARTTLS should be answered 454 4.7.0 as long as signer_available() is false. */
#pragma once
#include "io/channel.h"
#include "io/tls.h"
#include "keystore/sign.h"

struct signer_link;

struct signer_counts {
    uint64_t asked, refused; /* refused: also those that failed because keys went away */
    size_t waiting;
};

int signer_new(struct loop *loop, struct signer_link **ret_link, struct err *err);
/* Contexts made with it must have been freed before, with their sessions. */
void signer_free(struct signer_link **link);

/* The channel to keys, the first or one to its successor (struct role's `peer`, ROLE_KEYS); takes `fd`. */
int signer_peer(struct signer_link *link, int fd, struct err *err);
bool signer_available(const struct signer_link *link);
void signer_count(const struct signer_link *link, struct signer_counts *ret_counts);

/* A virtual server's context, with its key in the keys process and tickets under the keys from there. */
int signer_server_context_new(struct signer_link *link, const char *server, struct str certificate_pem,
                              const char *tls_min, struct tls_server_context **ret_context, struct err *err);
