#include "cli/queue_offline.h"

int queue_offline_list(const struct conf *conf, json_t *filter, void (*line)(void *arg, json_t *object), void *arg,
                       struct err *err)
{
    (void)filter, (void)line, (void)arg;
    err_set(err, ERR_CLOSED, "posternd does not answer on %s; is it running? (posternd -c FILE)", conf->control);
    return CLI_UNAVAILABLE;
}
