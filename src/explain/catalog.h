/* catalog: everything that Postern tells by name, in one table: events, and the causes of logins that failed or that
 * an administrator should know of. docs/events.md and `postern explain-event` are printed from it.
 *
 * An event's name has dots ("auth.lockout"); a cause stands behind its event and a slash ("auth.reject/kvno-old", where
 * the log says event=auth.reject cause=kvno-old). Names and numbers are stable: a number is never given to something
 * else, and a name that is no longer used leaves a gap. All texts are ours and constant. `why` and `run` hold
 * placeholders such as {keytab}: explain/login.h puts in what is known. Pure: no I/O, no allocation. */
#pragma once
#include "base/buf.h"

/* The order of sections is that of docs/events.md. */
enum catalog_section {
    CATALOG_AUTH,       /* PE-10xx */
    CATALOG_RECEIVING,  /* PE-11xx */
    CATALOG_QUEUE,      /* PE-12xx */
    CATALOG_DELIVERING, /* PE-13xx */
    CATALOG_KEYS,       /* PE-14xx */
    CATALOG_DAEMON,     /* PE-15xx */
    CATALOG_LOGIN,      /* PE-20xx: causes of auth.accept and auth.reject: passwords, SCRAM, all mechanisms */
    CATALOG_KERBEROS,   /* PE-21xx: causes of auth.reject by Kerberos */
    CATALOG_NTLM,       /* PE-22xx: the same by NTLM */
    CATALOG_IDENTITY,   /* PE-23xx: proven, but not somebody here */
    CATALOG_OUTBOUND,   /* PE-30xx: causes of delivery.login.failed */
    CATALOG_SECTIONS,
};

enum catalog_level { CATALOG_ERROR, CATALOG_WARNING, CATALOG_NOTICE, CATALOG_INFO };

enum { CATALOG_CAUSES_MAX = 5, CATALOG_RUN_MAX = 6, CATALOG_FORMER_MAX = 8, CATALOG_ID_BYTES = 16 };

struct catalog_entry {
    unsigned number;                              /* 2101 is PE-2101 */
    enum catalog_section section;
    enum catalog_level level;
    const char *name;                             /* "auth.lockout", "auth.reject/kvno-old" */
    const char *reply;                            /* that the client gets: "454 4.7.0"; NULL: none, or it depends */
    const char *happened;                         /* a sentence */
    const char *why;                              /* of a cause: the log's sentence, with placeholders */
    const char *causes[CATALOG_CAUSES_MAX + 1];   /* the likeliest first; ends with NULL */
    const char *advice;                           /* what to do, in words; NULL: nothing */
    const char *run[CATALOG_RUN_MAX + 1];         /* commands, to look first, then to repair; ends with NULL */
    const char *former[CATALOG_FORMER_MAX + 1];   /* what others call it: "MSExchangeTransport 1706"; ends with NULL */
};

size_t catalog_size(void);
/* In the order of their numbers; NULL behind the last. */
const struct catalog_entry *catalog_at(size_t i);
/* "auth.reject", and `cause` as in the log; NULL: no such entry. */
const struct catalog_entry *catalog_cause(const char *event, struct str cause);
/* A name, a cause alone ("kvno-old"), an id ("PE-2101", "2101" when nobody else uses that number), or what others call
 * it, whole or one word of it ("MSExchangeTransport 1706", "1706", "0x80090322", "KRB_AP_ERR_MODIFIED"). Letters of
 * either case. The first entry at or behind *index that is meant, and *index behind it; NULL: no more. */
const struct catalog_entry *catalog_search(struct str what, size_t *index);
/* "PE-2101" */
void catalog_id(const struct catalog_entry *entry, char ret_id[CATALOG_ID_BYTES]);
/* What stands behind the slash; the whole name of an event. */
const char *catalog_word(const struct catalog_entry *entry);
bool catalog_is_cause(const struct catalog_entry *entry);
const char *catalog_level_name(enum catalog_level level);
/* "kerberos": the name of a section in the template of docs/events.md. */
const char *catalog_section_name(enum catalog_section section);
/* A command as a person reads it who knows nothing more: {keytab} becomes KEYTAB. */
void catalog_generic(const char *text, struct buf *into);
/* The table of a section for docs/events.md. */
void catalog_markdown(enum catalog_section section, struct buf *into);
