/* shared: how many sessions there are, in all and by address, in one memory file that all smtpd processes map.
 *
 * A table of slots, chosen by a keyed hash of the address, a few tries each; when all are taken by other
 * addresses with open sessions, the address is not counted (the limit on all sessions still holds). Each process
 * counts its own sessions, so those of one that died are given back when its successor begins. A slot is locked
 * for a few instructions; a process that died in them leaves the lock to be taken over. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "policy/limit.h"

enum { SHARED_PROCESSES_MAX = 64 };

struct shared;

/* For master: a memory file of the right size; -errno. */
int shared_create(void);
/* For the process of this index, whose earlier counts are cleared. NULL with errno set; `fd` may be closed. */
struct shared *shared_map(int fd, unsigned index);

/* NULL is fine. */
void shared_unmap(struct shared **shared);

/* Counts a new session of this address unless `conf` says it is one too many. *ret_slot goes to shared_session_end(). */
enum limit_session shared_session_begin(struct shared *shared, const struct conf *conf,
                                        const unsigned char address[16], int *ret_slot);
void shared_session_end(struct shared *shared, int slot);
uint32_t shared_sessions(const struct shared *shared);

/* For who only wants to know how many sessions there are: nothing is counted or cleared. NULL with errno set. */
struct shared *shared_map_to_look(int fd);
