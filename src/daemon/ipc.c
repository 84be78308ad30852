#include "daemon/ipc.h"

enum {
    NAME_MAX_BYTES = 1024,
    TEXT_MAX_BYTES = 2048,
    TOKEN_MAX_BYTES = 72 * 1024,
    HASH_MAX_BYTES = 64,
    SIGN_MAX_BYTES = 32 * 1024,
    LAYER_MAX_BYTES = 16 * 1024,
    SENDERS_MAX_BYTES = 16 * 1024,
};

const char *role_name(enum role_id role)
{
    static const char *const names[ROLE_COUNT] = { "master", "smtpd", "auth", "keys", "queue", "delivery" };
    return (unsigned)role < ROLE_COUNT ? names[role] : "unknown";
}

void ipc_put_file(struct buf *b, const struct ipc_file *m)
{
    wire_put_u8(b, (uint8_t)m->kind);
    wire_put_u8(b, m->detail);
    wire_put_str(b, m->name);
    wire_put_str(b, m->text);
}

bool ipc_get_file(struct str body, struct ipc_file *ret)
{
    struct wire w = wire_of(body);
    ret->kind = wire_get_u8(&w);
    ret->detail = wire_get_u8(&w);
    ret->name = wire_get_str(&w, NAME_MAX_BYTES);
    ret->text = wire_get_str(&w, NAME_MAX_BYTES);
    return wire_end(&w) && ret->kind < IPC_FILE_KINDS;
}

void ipc_put_reloaded(struct buf *b, const struct ipc_reloaded *m)
{
    wire_put_u8(b, (uint8_t)m->result);
    wire_put_str(b, m->text);
}

bool ipc_get_reloaded(struct str body, struct ipc_reloaded *ret)
{
    struct wire w = wire_of(body);
    ret->result = wire_get_u8(&w);
    ret->text = wire_get_str(&w, TOKEN_MAX_BYTES);
    return wire_end(&w) && ret->result < IPC_RELOAD_RESULTS;
}

void ipc_put_peer(struct buf *b, const struct ipc_peer *m)
{
    wire_put_u8(b, (uint8_t)m->role);
    wire_put_u16(b, m->index);
}

bool ipc_get_peer(struct str body, struct ipc_peer *ret)
{
    struct wire w = wire_of(body);
    ret->role = wire_get_u8(&w);
    ret->index = wire_get_u16(&w);
    return wire_end(&w) && ret->role < ROLE_COUNT;
}

void ipc_put_segment(struct buf *b, const struct ipc_segment *m)
{
    wire_put_u64(b, m->segment);
    wire_put_u64(b, m->generation);
    wire_put_u64(b, m->size_bytes);
}

bool ipc_get_segment(struct str body, struct ipc_segment *ret)
{
    struct wire w = wire_of(body);
    ret->segment = wire_get_u64(&w);
    ret->generation = wire_get_u64(&w);
    ret->size_bytes = wire_get_u64(&w);
    return wire_end(&w);
}

void ipc_put_auth_start(struct buf *b, const struct ipc_auth_start *m)
{
    wire_put_u16(b, m->flags);
    wire_put_u16(b, m->port);
    const struct str *const strings[] = { &m->mechanism, &m->server, &m->client,   &m->helo,    &m->session,
                                          &m->tls,       &m->offered, &m->cert_hash, &m->exporter, &m->initial };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        wire_put_str(b, *strings[i]);
}

bool ipc_get_auth_start(struct str body, struct ipc_auth_start *ret)
{
    struct wire w = wire_of(body);
    ret->flags = wire_get_u16(&w);
    ret->port = wire_get_u16(&w);
    struct str *const strings[] = { &ret->mechanism, &ret->server,  &ret->client, &ret->helo,
                                    &ret->session,   &ret->tls,     &ret->offered };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        *strings[i] = wire_get_str(&w, NAME_MAX_BYTES);
    ret->cert_hash = wire_get_str(&w, HASH_MAX_BYTES);
    ret->exporter = wire_get_str(&w, HASH_MAX_BYTES);
    ret->initial = wire_get_str(&w, TOKEN_MAX_BYTES);
    return wire_end(&w);
}

static void put_layer(struct buf *b, const struct ipc_layer *layer)
{
    wire_put_u8(b, (uint8_t)layer->kind);
    wire_put_u32(b, layer->peer_max_bytes);
    wire_put_str(b, layer->state);
}

static bool get_layer(struct wire *w, struct ipc_layer *ret)
{
    ret->kind = wire_get_u8(w);
    ret->peer_max_bytes = wire_get_u32(w);
    ret->state = wire_get_str(w, LAYER_MAX_BYTES);
    return ret->kind < IPC_LAYERS && (ret->kind == IPC_LAYER_NONE) == (ret->state.n == 0);
}

void ipc_put_auth_done(struct buf *b, const struct ipc_auth_done *m)
{
    wire_put_u8(b, (uint8_t)m->result);
    wire_put_u16(b, m->code);
    wire_put_u32(b, m->rights);
    wire_put_str(b, m->enhanced);
    wire_put_str(b, m->text);
    wire_put_str(b, m->user);
    wire_put_str(b, m->cause);
    wire_put_str(b, m->mailbox);
    wire_put_str(b, m->senders);
    put_layer(b, &m->layer);
}

bool ipc_get_auth_done(struct str body, struct ipc_auth_done *ret)
{
    struct wire w = wire_of(body);
    ret->result = wire_get_u8(&w);
    ret->code = wire_get_u16(&w);
    ret->rights = wire_get_u32(&w);
    ret->enhanced = wire_get_str(&w, 16);
    ret->text = wire_get_str(&w, TEXT_MAX_BYTES);
    ret->user = wire_get_str(&w, NAME_MAX_BYTES);
    ret->cause = wire_get_str(&w, NAME_MAX_BYTES);
    ret->mailbox = wire_get_str(&w, NAME_MAX_BYTES);
    ret->senders = wire_get_str(&w, SENDERS_MAX_BYTES);
    bool layer_ok = get_layer(&w, &ret->layer);
    return layer_ok && wire_end(&w) && ret->result < IPC_AUTH_RESULTS && ret->rights <= IPC_RIGHTS_ALL;
}

void ipc_put_login_start(struct buf *b, const struct ipc_login_start *m)
{
    wire_put_u16(b, m->flags);
    wire_put_str(b, m->domain);
    wire_put_str(b, m->host);
    wire_put_str(b, m->offered);
    wire_put_str(b, m->offered_exps);
    wire_put_str(b, m->cert_hash);
    wire_put_str(b, m->exporter);
}

bool ipc_get_login_start(struct str body, struct ipc_login_start *ret)
{
    struct wire w = wire_of(body);
    ret->flags = wire_get_u16(&w);
    ret->domain = wire_get_str(&w, NAME_MAX_BYTES);
    ret->host = wire_get_str(&w, NAME_MAX_BYTES);
    ret->offered = wire_get_str(&w, TEXT_MAX_BYTES);
    ret->offered_exps = wire_get_str(&w, TEXT_MAX_BYTES);
    ret->cert_hash = wire_get_str(&w, HASH_MAX_BYTES);
    ret->exporter = wire_get_str(&w, HASH_MAX_BYTES);
    return wire_end(&w);
}

void ipc_put_login_response(struct buf *b, const struct ipc_login_response *m)
{
    wire_put_u8(b, m->has_mechanism);
    wire_put_u8(b, m->has_response);
    wire_put_u8(b, m->complete);
    wire_put_u8(b, m->exps);
    wire_put_str(b, m->mechanism);
    wire_put_str(b, m->response);
    put_layer(b, &m->layer);
}

bool ipc_get_login_response(struct str body, struct ipc_login_response *ret)
{
    struct wire w = wire_of(body);
    ret->has_mechanism = wire_get_u8(&w);
    ret->has_response = wire_get_u8(&w);
    ret->complete = wire_get_u8(&w);
    ret->exps = wire_get_u8(&w);
    ret->mechanism = wire_get_str(&w, 64);
    ret->response = wire_get_str(&w, TOKEN_MAX_BYTES);
    bool layer_ok = get_layer(&w, &ret->layer);
    return layer_ok && wire_end(&w) && ret->has_mechanism <= 1 && ret->has_response <= 1 && ret->complete <= 1 &&
           ret->exps <= 1;
}

void ipc_put_login_end(struct buf *b, const struct ipc_login_end *m)
{
    wire_put_u8(b, m->accepted);
    wire_put_u8(b, m->optional);
    wire_put_str(b, m->relay);
    wire_put_str(b, m->command);
    wire_put_str(b, m->reply);
}

bool ipc_get_login_end(struct str body, struct ipc_login_end *ret)
{
    struct wire w = wire_of(body);
    ret->accepted = wire_get_u8(&w);
    ret->optional = wire_get_u8(&w);
    ret->relay = wire_get_str(&w, NAME_MAX_BYTES);
    ret->command = wire_get_str(&w, TEXT_MAX_BYTES);
    ret->reply = wire_get_str(&w, TEXT_MAX_BYTES);
    return wire_end(&w) && ret->accepted <= 1 && ret->optional <= 1;
}

void ipc_put_sign(struct buf *b, const struct ipc_sign *m)
{
    wire_put_str(b, m->key);
    wire_put_str(b, m->digest);
    wire_put_u8(b, m->padding);
    wire_put_str(b, m->data);
}

bool ipc_get_sign(struct str body, struct ipc_sign *ret)
{
    struct wire w = wire_of(body);
    ret->key = wire_get_str(&w, NAME_MAX_BYTES);
    ret->digest = wire_get_str(&w, 32);
    ret->padding = wire_get_u8(&w);
    ret->data = wire_get_str(&w, SIGN_MAX_BYTES);
    return wire_end(&w) && ret->padding <= 1;
}

void ipc_put_job(struct buf *b, const struct ipc_job *m)
{
    wire_put_u64(b, m->job);
    wire_put_u64(b, m->message_id);
    wire_put_u64(b, m->segment);
    wire_put_u64(b, m->generation);
    wire_put_u32(b, m->offset);
    wire_put_u32(b, m->length);
    wire_put_u8(b, m->has_body_file);
    wire_put_u32(b, m->attempt);
    wire_put_u16(b, m->block);
    wire_put_u64(b, m->conf_generation);
    wire_put_str(b, m->next_hop);
    wire_put_str(b, m->recipients);
}

bool ipc_get_job(struct str body, struct ipc_job *ret)
{
    struct wire w = wire_of(body);
    ret->job = wire_get_u64(&w);
    ret->message_id = wire_get_u64(&w);
    ret->segment = wire_get_u64(&w);
    ret->generation = wire_get_u64(&w);
    ret->offset = wire_get_u32(&w);
    ret->length = wire_get_u32(&w);
    ret->has_body_file = wire_get_u8(&w);
    ret->attempt = wire_get_u32(&w);
    ret->block = wire_get_u16(&w);
    ret->conf_generation = wire_get_u64(&w);
    ret->next_hop = wire_get_str(&w, NAME_MAX_BYTES);
    ret->recipients = wire_get_str(&w, IPC_JOB_RCPT_MAX * 2);
    return wire_end(&w) && ret->has_body_file <= 1 && ret->recipients.n && ret->recipients.n % 2 == 0;
}

void ipc_put_result(struct buf *b, const struct ipc_result *m)
{
    wire_put_u64(b, m->job);
    wire_put_u8(b, m->hop_failed);
    wire_put_str(b, m->relay);
    wire_put_str(b, m->remote_name);
    wire_put_str(b, m->tls);
    wire_put_str(b, m->auth);
    wire_put_u16(b, m->n_rows);
    wire_put_str(b, m->rows);
}

void ipc_put_result_row(struct buf *rows, const struct ipc_result_row *row)
{
    wire_put_u8(rows, row->status);
    wire_put_u8(rows, row->flags);
    wire_put_str(rows, row->dsn);
    wire_put_str(rows, row->reply);
}

bool ipc_get_result(struct str body, struct ipc_result *ret)
{
    struct wire w = wire_of(body);
    ret->job = wire_get_u64(&w);
    ret->hop_failed = wire_get_u8(&w);
    ret->relay = wire_get_str(&w, NAME_MAX_BYTES);
    ret->remote_name = wire_get_str(&w, NAME_MAX_BYTES);
    ret->tls = wire_get_str(&w, NAME_MAX_BYTES);
    ret->auth = wire_get_str(&w, NAME_MAX_BYTES);
    ret->n_rows = wire_get_u16(&w);
    ret->rows = wire_get_str(&w, IPC_RESULT_ROWS_MAX);
    return wire_end(&w) && ret->hop_failed <= 1 && ret->n_rows <= IPC_JOB_RCPT_MAX;
}

bool ipc_get_result_row(struct wire *rows, struct ipc_result_row *ret)
{
    ret->status = wire_get_u8(rows);
    ret->flags = wire_get_u8(rows);
    ret->dsn = wire_get_str(rows, 16);
    ret->reply = wire_get_str(rows, TEXT_MAX_BYTES);
    return !rows->bad && ret->status < IPC_STATUSES;
}
