/* check: what `postern check` looks at beyond the form of the configuration: a table of rows, each of which adds to
 * the list of mistakes. A row says nothing about what it cannot see for want of rights, but warns. */
#pragma once
#include "conf/conf.h"
#include "conf/mistake.h"

struct cli_check_row {
    const char *name;
    void (*run)(const struct conf *conf, struct conf_mistakes *mistakes);
};

/* check_files.c */
void cli_check_tls_files(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_password_files(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_recipient_files(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_keytabs(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_identity_tables(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_ca_file(const struct conf *conf, struct conf_mistakes *mistakes);
/* check_tls.c */
void cli_check_certificates(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_logins(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_users_db(const struct conf *conf, struct conf_mistakes *mistakes);
/* check_layout.c */
void cli_check_users(const struct conf *conf, struct conf_mistakes *mistakes);
void cli_check_folders(const struct conf *conf, struct conf_mistakes *mistakes);
