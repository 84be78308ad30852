#include "sasl/ntlm_message.h"

#include "base/wire.h"

static const struct str signature = { "NTLMSSP", 8 }; /* with its NUL */

/* What we say in a Version: Windows 6.1, NTLM revision 15, as everybody else who is no Windows. */
static const struct str our_version = { "\x06\x01\0\0\0\0\0\x0f", 8 };

uint32_t ntlm_message_type(struct str message)
{
    if (message.n < signature.n + 4 || !str_starts(message, signature))
        return 0;
    struct wire w = wire_of(str_skip(message, signature.n));
    return wire_get_u32(&w);
}

/* What is read of a message: where we are, and the first octet that a payload has taken. */
struct reader {
    struct str whole;
    struct wire at;
    size_t payload_from;
    bool bad;
};

static bool begin(struct reader *r, struct str message, enum ntlm_message_type type)
{
    if (message.n > NTLM_MESSAGE_MAX || ntlm_message_type(message) != (uint32_t)type)
        return false;
    *r = (struct reader){ .whole = message, .at = wire_of(str_skip(message, signature.n + 4)), .payload_from = message.n };
    return true;
}

static size_t position(const struct reader *r)
{
    return r->whole.n - r->at.rest.n;
}

/* Length, room, offset. An empty field may point anywhere: clients leave rubbish there. */
static struct str get_field(struct reader *r)
{
    size_t n = wire_get_u16(&r->at);
    wire_get_u16(&r->at);
    size_t offset = wire_get_u32(&r->at);
    if (r->at.bad || n == 0)
        return STR_NONE;
    if (offset < signature.n + 4 || offset > r->whole.n || n > r->whole.n - offset) {
        r->bad = true;
        return STR_NONE;
    }
    if (offset < r->payload_from)
        r->payload_from = offset;
    return str_slice(r->whole.p + offset, n);
}

/* The payload must not begin inside of what was read as header. */
static bool sound(const struct reader *r)
{
    return !r->bad && !r->at.bad && r->payload_from >= position(r);
}

bool ntlm_message_read_negotiate(struct str message, struct ntlm_negotiate *ret)
{
    struct reader r;
    *ret = (struct ntlm_negotiate){ 0 };
    if (!begin(&r, message, NTLM_MESSAGE_NEGOTIATE))
        return false;
    ret->flags = wire_get_u32(&r.at);
    if (r.at.rest.n < 16) /* nothing but flags: no names */
        return sound(&r);
    struct str domain = get_field(&r), workstation = get_field(&r);
    /* Old clients say that a name is there, and where it cannot be. We don't need it. */
    if (!sound(&r))
        return true;
    if (ret->flags & NTLM_DOMAIN_SUPPLIED)
        ret->domain = domain;
    if (ret->flags & NTLM_WORKSTATION_SUPPLIED)
        ret->workstation = workstation;
    return true;
}

bool ntlm_message_read_challenge(struct str message, struct ntlm_challenge *ret)
{
    struct reader r;
    *ret = (struct ntlm_challenge){ 0 };
    if (!begin(&r, message, NTLM_MESSAGE_CHALLENGE))
        return false;
    ret->target_name = get_field(&r);
    ret->flags = wire_get_u32(&r.at);
    if (r.at.bad || r.at.rest.n < NTLM_CHALLENGE_BYTES)
        return false;
    ret->challenge = str_slice(r.at.rest.p, NTLM_CHALLENGE_BYTES);
    r.at.rest = str_skip(r.at.rest, NTLM_CHALLENGE_BYTES);
    if (ret->flags & NTLM_TARGET_INFO) {
        wire_get_u64(&r.at); /* reserved */
        ret->target_info = get_field(&r);
    }
    return sound(&r);
}

bool ntlm_message_read_authenticate(struct str message, struct ntlm_authenticate *ret)
{
    struct reader r;
    *ret = (struct ntlm_authenticate){ 0 };
    if (!begin(&r, message, NTLM_MESSAGE_AUTHENTICATE))
        return false;
    ret->lm_response = get_field(&r);
    ret->nt_response = get_field(&r);
    ret->domain = get_field(&r);
    ret->user = get_field(&r);
    ret->workstation = get_field(&r);
    /* The oldest clients end their header here. */
    if (sound(&r) && r.payload_from >= position(&r) + 12 && r.at.rest.n >= 12) {
        ret->session_key = get_field(&r);
        ret->flags = wire_get_u32(&r.at);
        ret->has_flags = true;
    }
    ret->header_bytes = r.payload_from;
    return sound(&r);
}

/* A message being written: first the header with where the payload will be, then the payload. */
struct writer {
    struct buf *out;
    size_t start, next;
    struct str payload[6];
    size_t n;
};

static struct writer begin_message(struct buf *out, enum ntlm_message_type type, size_t header_bytes)
{
    struct writer w = { .out = out, .start = out->n, .next = header_bytes };
    buf_add(out, signature);
    wire_put_u32(out, (uint32_t)type);
    return w;
}

static void put_field(struct writer *w, struct str value)
{
    if (value.n > UINT16_MAX) {
        w->out->failed = true;
        return;
    }
    wire_put_u16(w->out, (uint16_t)value.n);
    wire_put_u16(w->out, (uint16_t)value.n);
    wire_put_u32(w->out, (uint32_t)w->next);
    w->payload[w->n++] = value;
    w->next += value.n;
}

static void end_message(struct writer *w)
{
    for (size_t i = 0; i < w->n; i++)
        buf_add(w->out, w->payload[i]);
    if (w->out->n - w->start > NTLM_MESSAGE_MAX)
        w->out->failed = true;
}

void ntlm_message_write_negotiate(struct buf *out, uint32_t flags)
{
    struct writer w = begin_message(out, NTLM_MESSAGE_NEGOTIATE, 40);
    wire_put_u32(out, flags);
    put_field(&w, STR_NONE);
    put_field(&w, STR_NONE);
    buf_add(out, our_version);
    end_message(&w);
}

void ntlm_message_write_challenge(struct buf *out, const struct ntlm_challenge *challenge)
{
    struct writer w = begin_message(out, NTLM_MESSAGE_CHALLENGE, 56);
    put_field(&w, challenge->target_name);
    wire_put_u32(out, challenge->flags);
    buf_add(out, challenge->challenge);
    wire_put_u64(out, 0);
    put_field(&w, challenge->target_info);
    if (challenge->flags & NTLM_VERSION)
        buf_add(out, our_version);
    else
        wire_put_u64(out, 0);
    end_message(&w);
}

void ntlm_message_write_authenticate(struct buf *out, const struct ntlm_authenticate *authenticate)
{
    static const char no_mic[NTLM_HASH_BYTES];
    struct writer w = begin_message(out, NTLM_MESSAGE_AUTHENTICATE, NTLM_AUTHENTICATE_BYTES);
    put_field(&w, authenticate->lm_response);
    put_field(&w, authenticate->nt_response);
    put_field(&w, authenticate->domain);
    put_field(&w, authenticate->user);
    put_field(&w, authenticate->workstation);
    put_field(&w, authenticate->session_key);
    wire_put_u32(out, authenticate->flags);
    buf_add(out, our_version);
    buf_add(out, str_slice(no_mic, sizeof no_mic));
    end_message(&w);
}

bool ntlm_message_read_avs(struct str pairs, struct ntlm_avs *ret_avs)
{
    *ret_avs = (struct ntlm_avs){ 0 };
    struct wire w = wire_of(pairs);
    for (;;) {
        unsigned id = wire_get_u16(&w);
        size_t n = wire_get_u16(&w);
        if (w.bad || n > w.rest.n)
            return false;
        if (id == NTLM_AV_EOL)
            return true;
        if (id < NTLM_AVS && !ret_avs->has[id]) {
            ret_avs->has[id] = true;
            ret_avs->value[id] = str_slice(w.rest.p, n);
        }
        w.rest = str_skip(w.rest, n);
    }
}

uint32_t ntlm_message_av_flags(const struct ntlm_avs *avs)
{
    struct wire w = wire_of(avs->value[NTLM_AV_FLAGS]);
    return wire_get_u32(&w);
}

void ntlm_message_write_av(struct buf *out, enum ntlm_av id, struct str value)
{
    if (value.n > UINT16_MAX) {
        out->failed = true;
        return;
    }
    wire_put_u16(out, (uint16_t)id);
    wire_put_u16(out, (uint16_t)value.n);
    buf_add(out, value);
}

bool ntlm_message_v2_pairs(struct str nt_response, struct str *ret_pairs)
{
    enum { PROOF = 16, BLOB = 28 };
    *ret_pairs = STR_NONE;
    if (nt_response.n < PROOF + BLOB || nt_response.p[PROOF] != 1 || nt_response.p[PROOF + 1] != 1)
        return false;
    *ret_pairs = str_skip(nt_response, PROOF + BLOB);
    return true;
}
