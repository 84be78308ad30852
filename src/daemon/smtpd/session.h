/* session: what the rest of smtpd asks of a connection beyond smtpd.h. */
#pragma once
#include "daemon/smtpd/smtpd.h"

/* Ends the session if its time is over. May free it. */
void session_sweep(struct session *s, int64_t now_ms);
/* TLS can be begun: there is a certificate, and the keys process is there. */
bool session_can_sign(const struct session *s);
/* A session has gone (smtpd.c): the last one may let a drain end. */
void smtpd_session_ended(struct smtpd *smtpd);
