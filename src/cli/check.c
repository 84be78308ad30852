/* postern check: all mistakes of the configuration, and of what it names on this machine. */
#include "cli/check.h"

#include "cli/cli.h"
#include "conf/load.h"

static const struct cli_check_row rows[] = {
    { "certificates and keys", cli_check_tls_files },
    { "what is in them", cli_check_certificates },
    { "password files", cli_check_password_files },
    { "logins at next hops", cli_check_logins },
    { "the user store", cli_check_users_db },
    { "lists of recipients", cli_check_recipient_files },
    { "keytabs", cli_check_keytabs },
    { "tables of identities", cli_check_identity_tables },
    { "trust anchors and krb5.conf", cli_check_ca_file },
    { "system users", cli_check_users },
    { "folders", cli_check_folders },
};

static int print(const struct cli_options *options, const struct conf_mistakes *mistakes)
{
    struct buf out, warnings;
    buf_init(&out, 8 << 20);
    buf_init(&warnings, 8 << 20);
    conf_mistakes_print(mistakes, true, &warnings);
    if (warnings.n)
        fwrite(warnings.p, 1, warnings.n, stderr);
    bool ok = true;
    if (options->json)
        ok = conf_mistakes_json(mistakes, options->config, &out);
    else
        conf_mistakes_print(mistakes, false, &out);
    if (!options->json && mistakes->n_errors == 0 && options->terminal)
        buf_addf(&out, "%s: no mistakes\n", options->config);
    int status = ok && !out.failed ? cli_write(buf_str(&out)) : cli_fail(CLI_SYSTEM, "not enough memory");
    buf_done(&out);
    buf_done(&warnings);
    return status ? status : mistakes->n_errors ? CLI_CONFIG : CLI_OK;
}

int cli_check(int argc, char **argv, const struct cli_options *options)
{
    if (argc > 1)
        return cli_usage("check", "\"%s\" is not known here", argv[1]);
    struct conf_mistakes mistakes;
    const struct conf *conf;
    struct err err = { 0 };
    conf_mistakes_init(&mistakes);
    int rc = conf_load_file(options->config, &mistakes, &conf, &err), status;
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        rows[i].run(conf, &mistakes);
    if (rc < 0 && rc != ERR_CONFIG)
        status = cli_fail(rc == ERR_LIMIT ? CLI_SYSTEM : CLI_NO_INPUT, "%s", err.text);
    else
        status = print(options, &mistakes);
    conf_unref(&conf);
    conf_mistakes_done(&mistakes);
    return status;
}
