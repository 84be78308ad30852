/* sendmail: the parts of the sendmail command. */
#pragma once
#include "cli/cli.h"

struct sendmail_options {
    const char *sender, *full_name;   /* NULL: the user who runs it; none */
    char **recipient;
    size_t n_recipients;
    bool recipients_from_headers, dot_is_text;
};

/* Reads a message from standard input and hands it over. */
int sendmail_send(const struct conf *conf, const struct sendmail_options *options);
/* -bs: SMTP on standard input and output, over the same machine as the daemon's. */
int sendmail_smtp(const struct conf *conf);
