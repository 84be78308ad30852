#include "spool/envelope.h"

#include "base/wire.h"

enum { ENVELOPE_VERSION = 1 };

static bool fields_in_bounds(const struct spool_envelope *e)
{
    const struct str field[] = { e->reverse_path, e->envid, e->auth, e->server, e->session, e->client_address,
                                 e->client_name, e->helo, e->protocol, e->user, e->tls };
    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++) {
        if (field[i].n > SPOOL_FIELD_MAX)
            return false;
    }
    return e->ret < SPOOL_RETS && (e->flags & ~(uint32_t)SPOOL_FLAGS_ALL) == 0 && e->n_recipients >= 1 &&
           e->n_recipients <= SPOOL_RECIPIENTS_MAX;
}

bool spool_envelope_encode(const struct spool_envelope *e, struct buf *out)
{
    if (!fields_in_bounds(e))
        return false;
    wire_put_u8(out, ENVELOPE_VERSION);
    wire_put_u8(out, (uint8_t)e->ret);
    wire_put_u32(out, e->flags);
    wire_put_u64(out, (uint64_t)e->arrival_wall_ms);
    const struct str field[] = { e->reverse_path, e->envid, e->auth, e->server, e->session, e->client_address,
                                 e->client_name, e->helo, e->protocol, e->user, e->tls };
    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
        wire_put_str(out, field[i]);
    wire_put_u32(out, (uint32_t)e->n_recipients);
    for (size_t i = 0; i < e->n_recipients; i++) {
        const struct spool_recipient *r = &e->recipient[i];
        if (r->address.n > SPOOL_FIELD_MAX || r->orcpt.n > SPOOL_FIELD_MAX || r->notify > 15)
            return false;
        wire_put_str(out, r->address);
        wire_put_str(out, r->orcpt);
        wire_put_u8(out, r->notify);
    }
    return !out->failed;
}

static int decode_recipients(struct wire *w, struct arena *arena, struct spool_envelope *e, struct err *err)
{
    uint32_t n = wire_get_u32(w);
    /* A recipient takes at least nine octets: a count that the rest cannot hold allocates nothing. */
    if (w->bad || n == 0 || n > SPOOL_RECIPIENTS_MAX || n > w->rest.n / 9)
        return err_set(err, ERR_CORRUPT, "envelope: impossible number of recipients");
    struct spool_recipient *recipient = arena_alloc(arena, n * sizeof(*recipient));
    if (!recipient)
        return err_set(err, -ENOMEM, "envelope: no memory for %u recipients", n);
    for (uint32_t i = 0; i < n; i++) {
        recipient[i].address = wire_get_str(w, SPOOL_FIELD_MAX);
        recipient[i].orcpt = wire_get_str(w, SPOOL_FIELD_MAX);
        recipient[i].notify = wire_get_u8(w);
        if (recipient[i].notify > 15)
            w->bad = true;
    }
    e->recipient = recipient;
    e->n_recipients = n;
    return 0;
}

int spool_envelope_decode(struct str octets, struct arena *arena, struct spool_envelope *ret_envelope, struct err *err)
{
    struct spool_envelope e = { 0 };
    struct wire w = wire_of(octets);
    if (wire_get_u8(&w) != ENVELOPE_VERSION)
        return err_set(err, ERR_CORRUPT, "envelope: unknown version");
    uint8_t ret = wire_get_u8(&w);
    e.flags = wire_get_u32(&w);
    if (ret >= SPOOL_RETS || (e.flags & ~(uint32_t)SPOOL_FLAGS_ALL))
        return err_set(err, ERR_CORRUPT, "envelope: unknown flags");
    e.ret = (enum spool_ret)ret;
    e.arrival_wall_ms = (int64_t)wire_get_u64(&w);
    struct str *const field[] = { &e.reverse_path, &e.envid, &e.auth, &e.server, &e.session, &e.client_address,
                                  &e.client_name, &e.helo, &e.protocol, &e.user, &e.tls };
    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
        *field[i] = wire_get_str(&w, SPOOL_FIELD_MAX);
    int rc = decode_recipients(&w, arena, &e, err);
    if (rc < 0)
        return rc;
    if (!wire_end(&w))
        return err_set(err, ERR_CORRUPT, "envelope: damaged or too long");
    *ret_envelope = e;
    return 0;
}
