/* Messages between roles: the first octet says which; what is taken must come out again as it went in. */
#include <stdint.h>
#include <stdlib.h>

#include "daemon/ipc.h"
#include "io/channel.h"

#define AGAIN(message) \
    static void again_##message(struct str body, struct buf *out) \
    { \
        struct ipc_##message m; \
        if (ipc_get_##message(body, &m)) \
            ipc_put_##message(out, &m); \
    }
AGAIN(file)
AGAIN(peer)
AGAIN(segment)
AGAIN(auth_start)
AGAIN(auth_done)
AGAIN(login_start)
AGAIN(login_response)
AGAIN(sign)
AGAIN(job)
AGAIN(login_end)
AGAIN(reloaded)

static void again_result(struct str body, struct buf *out)
{
    struct ipc_result m;
    struct ipc_result_row row;
    if (!ipc_get_result(body, &m))
        return;
    struct wire rows = wire_of(m.rows);
    for (unsigned i = 0; i < m.n_rows && ipc_get_result_row(&rows, &row); i++)
        if (row.status >= IPC_STATUSES)
            abort();
    ipc_put_result(out, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static void (*const messages[])(struct str body, struct buf *out) = {
        again_file, again_peer, again_segment, again_auth_start, again_auth_done,
        again_login_start, again_login_response, again_sign, again_job, again_result,
        again_login_end, again_reloaded,
    };
    if (n == 0 || n - 1 > CHANNEL_BODY_MAX)
        return 0;
    struct str body = str_slice((const char *)data + 1, n - 1);
    struct buf out;
    buf_init(&out, CHANNEL_BODY_MAX);
    messages[data[0] % (sizeof messages / sizeof messages[0])](body, &out);
    if (out.failed || (out.n && !str_eq(body, buf_str(&out))))
        abort();
    buf_done(&out);
    return 0;
}
