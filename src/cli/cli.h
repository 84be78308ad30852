/* cli: `postern VERB …`. One file a verb; a verb parses its own arguments, writes to stdout what was asked for and
 * to stderr what went wrong, and returns the exit status. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "base/buf.h"
#include "conf/conf.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_NO = 1,            /* the answer to the question is no */
    CLI_USAGE = 64,
    CLI_DATA = 65,         /* input that is not what it should be */
    CLI_NO_INPUT = 66,
    CLI_UNAVAILABLE = 69,  /* the service is down */
    CLI_SYSTEM = 71,
    CLI_CANNOT_CREATE = 73,
    CLI_IO = 74,
    CLI_TRY_AGAIN = 75,
    CLI_NOT_PERMITTED = 77,
    CLI_CONFIG = 78,
};

struct cli_options {
    const char *config;    /* -c FILE, or the default */
    bool config_given;
    bool json;             /* --json anywhere among the arguments */
    bool terminal;         /* stdout is one */
    bool color;            /* and wants colours (NO_COLOR, TERM) */
};

/* argv[0] is the verb; -c FILE and --json have been taken out of argv, which ends with NULL. */
typedef int cli_verb_fn(int argc, char **argv, const struct cli_options *options);

struct cli_verb {
    const char *name;
    cli_verb_fn *run;
    const char *usage;     /* "check [-c FILE] [--json]" */
    const char *summary;   /* one line for --help */
    bool hidden;           /* for the build only: not in --help */
    bool as_program;       /* a name that the program may have (argv[0]: sendmail, mailq …): gets argv untouched */
};

cli_verb_fn cli_auth, cli_bench, cli_check, cli_config, cli_explain_event, cli_mailq, cli_newaliases, cli_pause,
    cli_queue, cli_reload, cli_resume, cli_sendmail, cli_setup, cli_spool, cli_status, cli_user, cli_whoami;

/* "postern: text" on stderr; returns `status`. */
int cli_fail(enum cli_exit status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "postern VERB: text" and the verb's usage on stderr; returns CLI_USAGE. */
int cli_usage(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Loads the configuration that a verb works on; prints mistakes and returns the exit status when it cannot. */
int cli_load_conf(const struct cli_options *options, const struct conf **ret_conf);
/* "90", "90s", "15m", "2h", "5d" in seconds; letters of either case. False: no such thing. */
bool cli_duration(struct str text, uint64_t *ret_s);
/* Writes all of it to stdout; CLI_OK, or CLI_IO with a message. */
int cli_write(struct str text);
