/* recipients: whether those whom a local user writes to exist, asked before a message is taken (recipients = "users" or
 * a file; smtpd asks the same at RCPT). Happy path: domains of files are looked up at once, users are asked of auth,
 * one question an address; `done` comes when all are answered.
 * Ways to fail: auth is away or silent, a file is not there, no memory: then nobody knows, and it is asked again
 * later. */
#pragma once
#include "daemon/queue/queue.h"

struct recipients_question;

/* What was found. `unknown` has a place for each address, in their order; it lives during the call. */
enum recipients_answer { RECIPIENTS_EXIST, RECIPIENTS_UNKNOWN, RECIPIENTS_NOT_NOW };
typedef void recipients_done(void *arg, enum recipients_answer answer, const bool *unknown);

/* done() is called exactly once from a later turn, unless it is cancelled. Addresses that are malformed or without a
 * route count as existing: who stores the message says more about them. NULL: no memory. */
struct recipients_question *recipients_ask(struct queue *q, const struct str *address, size_t n, recipients_done *done,
                                           void *arg);
void recipients_cancel(struct recipients_question **question);

/* The role's: a channel to auth, files of the next snapshot (takes fd), the snapshot. */
void recipients_peer(struct queue *q, int fd);
void recipients_file(struct queue *q, struct str domain, int fd);
void recipients_configured(struct queue *q);
