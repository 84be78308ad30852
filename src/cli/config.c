/* postern config: shows the configuration as it is understood. */
#include "cli/cli.h"
#include "conf/dump.h"

enum { DUMP_MAX_BYTES = 256 << 20 };

static int finish(struct buf *text, bool ok)
{
    int status = ok ? cli_write(buf_str(text)) : cli_fail(CLI_SYSTEM, "not enough memory for the dump");
    buf_done(text);
    return status;
}

int cli_config(int argc, char **argv, const struct cli_options *options)
{
    bool dump = false, manual = false;
    unsigned flags = options->json ? CONF_DUMP_JSON : 0;
    for (int i = 1; i < argc; i++) {
        struct str arg = str_of(argv[i]);
        if (str_eq(arg, STR("--dump")))
            dump = true;
        else if (str_eq(arg, STR("--non-default")))
            flags |= CONF_DUMP_NON_DEFAULT;
        else if (str_eq(arg, STR("--man"))) /* for the build: the list of options in the manual page */
            manual = true;
        else
            return cli_usage("config", "\"%s\" is not known here", argv[i]);
    }
    struct buf text;
    buf_init(&text, DUMP_MAX_BYTES);
    if (manual)
        return finish(&text, conf_manual(&text));
    if (!dump)
        return cli_usage("config", "say --dump");
    const struct conf *conf;
    int status = cli_load_conf(options, &conf);
    if (status == CLI_OK)
        status = finish(&text, conf_dump(conf, flags, &text));
    conf_unref(&conf);
    return status;
}
