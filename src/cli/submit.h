/* submit: hands a message to the daemon, or, when it is down, to the drop folder. */
#pragma once
#include "cli/cli.h"

struct submit {
    struct str sender;         /* empty: null reverse-path */
    const struct str *recipient;
    size_t n_recipients;
    struct str content;
};

/* CLI_OK: it is on disk (ret_queue_id: the daemon's id, "" from the drop folder). Otherwise the exit status (75 when
 * nothing took it) and `err`. */
int submit_message(const struct conf *conf, const struct submit *message, char *ret_queue_id, size_t id_bytes,
                   struct err *err);
