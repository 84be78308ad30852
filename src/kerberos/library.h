/* library: what the process does once before any other call of this room.
 *
 * MIT krb5 reads $KRB5_CONFIG whenever it makes a context, that is inside every GSS-API call, and it is ignored in a
 * process with file capabilities or set-user-id (AT_SECURE). So it is set once, before threads exist, and the file must
 * stay readable afterwards.
 *
 * What must stay readable (Landlock) for a process that accepts: the krb5.conf named here (and what it includes),
 * /etc/gss, and the folder of the replay cache (read, write, make files). For one that initiates also: /etc/hosts,
 * /etc/resolv.conf, /etc/nsswitch.conf, /etc/host.conf, /etc/gai.conf, /etc/localtime, and LIBDIR/krb5/plugins, whose
 * subfolder libkrb5 is listed for each KDC that is looked for. Plug-in folders that cannot be listed are passed over.
 * Processes that only seal (seal.h) need none of this. Keytabs are not among them: they come as descriptors (keytab.h).
 *
 * System calls beside the usual: access, newfstatat, lseek, getrandom, fcntl(F_OFD_SETLKW) on the replay cache, mlock;
 * for initiators socket (AF_INET, AF_INET6, AF_NETLINK and AF_UNIX, as getaddrinfo asks), connect, bind, getsockname,
 * sendto, recvfrom, recvmsg, sendmmsg, ioctl(FIONBIO), poll. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Sets KRB5_CONFIG; NULL leaves the system's (/etc/krb5.conf). No threads may exist yet. ERR_CONFIG when the file cannot
 * be read or is not a krb5.conf; the sentence names it. */
int krb_init(const char *config_path, struct err *err);
/* Loads now what krb5 would load late with dlopen(): GSS mechanisms of /etc/gss/mech.d and preauth plug-ins of
 * LIBDIR/krb5/plugins. Call it before the sandbox closes, after krb_init(). Needs no KDC and opens no socket. What was
 * loaded stays for the life of the process. */
int krb_warm_up(struct err *err);
/* Does krb5.conf (permitted_enctypes) let this encryption type be used? True when that cannot be told. */
bool krb_enctype_permitted(int32_t enctype);
