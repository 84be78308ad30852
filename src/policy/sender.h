/* sender: may this login put that address into MAIL FROM? Pure. smtpd asks at MAIL; what it needs came with auth's
 * answer: the rights and the addresses, as text. */
#pragma once
#include "base/buf.h"
#include "policy/identity.h"

#define SENDER_REPLY_CODE 550
#define SENDER_REPLY_ENHANCED "5.7.60"
#define SENDER_REPLY_TEXT "Client does not have permissions to send as this sender"

enum { SENDER_TEXT_MAX = 32 * 1024 };

/* Is there anything to check here? `send_as` is that of the host's access_rules. */
bool sender_is_restricted(const struct conf *conf, enum conf_send_as send_as);

/* The addresses of a result without its mailbox, separated by spaces: what goes beside the mailbox to smtpd. False:
 * no memory, or they did not all fit into SENDER_TEXT_MAX; those that did are there. */
bool sender_text(const struct identity_result *result, struct buf *into);

/* `mailbox` and `senders` as auth sent them; empty: none. `sender` stands without <>; empty is the null sender, which
 * everybody may use (bounces, read receipts). Letters of either case are the same. */
bool sender_is_allowed(struct str mailbox, struct str senders, uint32_t rights, struct str sender);
