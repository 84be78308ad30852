/* layout: the system users and folders that a configuration implies: one list for whoever makes them
 * (`postern setup`) and whoever looks whether they are there (master, `postern check`). Pure. */
#pragma once
#include "conf/conf.h"

struct layout_user {
    const char *name;     /* valid during the call only, as everything here */
    const char *group;    /* supplementary group, or NULL */
    const char *purpose;
};
/* The roles' users: stem, stem-smtpd, stem-keys, stem-auth, stem-delivery, and mail_owner. */
void layout_users(const struct conf *conf, void (*user)(void *arg, const struct layout_user *user), void *arg);

/* Does anything here log in, or let log in, by Kerberos or NTLM? */
bool layout_uses_kerberos(const struct conf *conf);
bool layout_uses_ntlm(const struct conf *conf);

struct layout_folder {
    const char *path;
    const char *owner, *group; /* NULL: whoever makes it */
    unsigned mode;
    const char *purpose;
};
/* Parents first. A Maildir pattern's folder is the part before its first "%". */
void layout_folders(const struct conf *conf, void (*folder)(void *arg, const struct layout_folder *folder), void *arg);
/* Two settings that name one folder, which cannot belong to two users. */
void layout_conflicts(const struct conf *conf,
                      void (*conflict)(void *arg, const struct layout_folder *a, const struct layout_folder *b), void *arg);
