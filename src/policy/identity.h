/* identity: from who logged in to whose mailbox that is, which addresses they may send as, and which rights they
 * have. Pure: what a rule needs from a directory is asked for and fed back; tables are handed in beforehand.
 *
 * Every mechanism ends in one name, the principal, before any rule is tried, so that the same person is the same
 * person by all of them:
 *   Kerberos  alice@CORP.TEST          as it is: the KDC's word, letters of the realm count
 *   NTLM      CORP\alice, alice with CORP.TEST, alice@corp.test   -> alice@CORP.TEST
 *   store     alice@corp.test, CORP\alice                         -> alice@CORP.TEST, where that realm is known
 *             alice, bob@elsewhere.test                           -> as it is: no realm
 * A realm is known when a directory or identity block names it; its NT name is `netbios`. An NT domain that is not
 * known stays in front of the name, so that its alice is nobody else's.
 *
 * Rules (identity blocks) are tried in the order of the file; the first that gives a mailbox, or rejects, ends
 * it. All octets of a login, a table and a directory's answer are taken for hostile: bounded, and an address with
 * anything but a plain local part and a domain is passed over. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include "conf/conf.h"

enum {
    IDENTITY_NAME_MAX = 512,       /* octets of a login's name */
    IDENTITY_ADDRESS_MAX = 320,
    IDENTITY_ADDRESSES_MAX = 256,  /* of one login; what is beyond is left out, and a step says so */
    IDENTITY_TABLE_MAX = 16 << 20, /* octets of a table */
};

/* Rights; the numbers are those of IPC_RIGHT_… in daemon/ipc.h. */
enum {
    IDENTITY_SUBMIT = 1,
    IDENTITY_RELAY = 2,
    IDENTITY_ANY_SENDER = 4,
    IDENTITY_HEADERS = 8, /* strip_headers is not applied */
    IDENTITY_SIZE = 16,   /* max_message_size is not applied */
    IDENTITY_RIGHTS_USER = IDENTITY_SUBMIT | IDENTITY_RELAY,
};

/* Who vouches for the name. */
enum identity_class {
    IDENTITY_KERBEROS, /* the KDC; name = the principal as GSS-API shows it */
    IDENTITY_NTLM,     /* the domain (winbind); name and domain as it gave them */
    IDENTITY_STORE,    /* the user store; name = the user as the store has it, by whichever mechanism */
};
struct identity_login {
    enum identity_class class;
    struct str name;
    struct str domain; /* NTLM: NT name or DNS name of the domain; empty: it stands in the name, or nowhere */
};

/* What a name on a command line most likely means: CORP\alice NTLM's, alice@CORP.TEST Kerberos', alice the store's.
 * `name` must outlive the login. */
struct identity_rules;
struct identity_login identity_login_of(const struct identity_rules *rules, struct str name);

/* The rules of one snapshot, compiled. Read-only once the tables are in, then any thread may use them. */
int identity_rules_new(const struct conf *conf, struct identity_rules **ret_rules, struct err *err);
/* The contents of a table; `name` is the title of its identity block. ERR_SYNTAX names the line, ERR_ABSENT: there
 * is no such block. A rule whose table never came answers IDENTITY_LATER. */
int identity_rules_table(struct identity_rules *rules, struct str name, struct str contents, struct err *err);
struct identity_rules *identity_rules_ref(struct identity_rules *rules);
void identity_rules_unref(struct identity_rules **rules);

/* What a rule wants to know of an account. Views live as long as the identity. */
struct identity_query {
    const struct conf_directory *directory;
    struct str account;             /* "alice", "MX1$"; empty: a service */
    struct str principal;           /* "alice@CORP.TEST" */
    struct conf_strings attributes; /* in this order */
};
enum identity_found { IDENTITY_FOUND, IDENTITY_ABSENT /* no such account */, IDENTITY_UNREACHABLE };
struct identity_value {
    struct str attribute, value;
};

enum identity_verdict {
    IDENTITY_MAILBOX,
    IDENTITY_NO_MAILBOX, /* logged in, and nobody's mailbox: a peer, a machine, a name that no rule knows */
    IDENTITY_REFUSED,    /* by a rule with reject: 535 5.7.8 */
    IDENTITY_LATER,      /* a directory or table cannot be asked now: 454 4.7.0 */
};

/* One thing that was tried, in words, for `postern whoami` and the log. */
struct identity_step {
    struct conf_place place; /* of the rule's deciding option; file NULL: built in */
    const char *rule;        /* "identity \"corp\"", "peers \"exchange\"", "name" */
    const char *tried;       /* "alice@CORP.TEST is of realm CORP.TEST" */
    const char *outcome;     /* "mailbox alice@corp.test" */
    bool decided;            /* this step made the verdict, or gave the rights */
};

struct identity_result {
    enum identity_verdict verdict;
    const char *principal;
    const char *mailbox;           /* NULL: none */
    const char *const *address;    /* what may be used as sender, the mailbox first; "*@domain" is all of a domain */
    size_t n_addresses;
    uint32_t rights;
    const struct conf_peers *peers; /* the block that gave the rights; NULL: rights of a user */
    const char *cause;             /* stable word for the log: identity-rejected, directory-down,
                                      table-missing, name-malformed; NULL with a mailbox or none */
    const struct identity_step *step;
    size_t n_steps;
};

enum identity_next { IDENTITY_DONE, IDENTITY_ASK, IDENTITY_NO_MEMORY };

/* One login on its way through the rules. It holds a reference to them; strings of the login are copied. */
struct identity;
int identity_new(struct identity_rules *rules, const struct identity_login *login, struct identity **ret_identity,
                 struct err *err);
void identity_free(struct identity **identity);
/* Goes on until it is done or has a question; after IDENTITY_ASK comes identity_answer(), and then this again. */
enum identity_next identity_run(struct identity *identity);
const struct identity_query *identity_query(const struct identity *identity);
/* Values in any order. `why`: one sentence for IDENTITY_UNREACHABLE, for the step. Everything is copied. */
void identity_answer(struct identity *identity, enum identity_found found, const struct identity_value *values,
                     size_t n_values, struct str why);
/* After IDENTITY_DONE; dies with the identity. */
const struct identity_result *identity_result(const struct identity *identity);
