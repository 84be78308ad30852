#include "smtp/server_internal.h"

static int64_t sooner(int64_t deadline_ms, int64_t from_ms, int64_t limit_ms)
{
    if (limit_ms <= 0 || from_ms > INT64_MAX - limit_ms)
        return deadline_ms;
    return from_ms + limit_ms < deadline_ms ? from_ms + limit_ms : deadline_ms;
}

/* A message must not only go on, it must come to its end: time is earned by octets. */
static int64_t data_deadline_ms(const struct smtp_server *s)
{
    int64_t deadline_ms = sooner(INT64_MAX, s->since_ms, s->limits->data_timeout_ms);
    uint64_t rate = s->limits->data_min_bytes_per_s;
    if (s->limits->data_grace_ms <= 0 || rate == 0)
        return deadline_ms;
    uint64_t earned_s = s->data_bytes / rate;
    if (earned_s > INT32_MAX)
        return deadline_ms;
    return sooner(deadline_ms, s->data_started_ms, s->limits->data_grace_ms + (int64_t)earned_s * 1000);
}

int64_t smtp_server_deadline_ms(const struct smtp_server *s)
{
    if (s->state == SERVER_START || s->state == SERVER_ASKED || s->state == SERVER_HANDSHAKE ||
        s->state == SERVER_CLOSED)
        return INT64_MAX;
    int64_t deadline_ms = INT64_MAX;
    if (s->timing && (s->state == SERVER_DATA || s->state == SERVER_CHUNK))
        deadline_ms = data_deadline_ms(s);
    else if (s->timing)
        deadline_ms = sooner(deadline_ms, s->since_ms, s->limits->command_timeout_ms);
    return sooner(deadline_ms, s->started_ms, s->limits->session_timeout_ms);
}

void smtp_server_timeout(struct smtp_server *s, int64_t now_ms)
{
    if (smtp_server_deadline_ms(s) <= now_ms)
        server_refuse_close(s, 421, "4.4.2", "Timeout, closing the connection");
}
