#include "sasl/ntlm_seal.h"

#include "base/secret.h"
#include "base/wire.h"

/* Each with its NUL, MS-NLMP sections 3.4.5.2 and 3.4.5.3. */
static const struct str sign_magic[] = { STR("session key to server-to-client signing key magic constant\0"),
                                         STR("session key to client-to-server signing key magic constant\0") };
static const struct str seal_magic[] = { STR("session key to server-to-client sealing key magic constant\0"),
                                         STR("session key to client-to-server sealing key magic constant\0") };

static bool derive(struct str key, struct str magic, unsigned char ret_key[NTLM_HASH_BYTES])
{
    struct buf all;
    buf_init(&all, 128);
    buf_add(&all, key);
    bool ok = buf_add(&all, magic) && ntlm_crypto_md5(buf_str(&all), ret_key);
    buf_wipe(&all);
    return ok;
}

bool ntlm_seal_keys(struct ntlm_seal_way *way, const unsigned char exported_key[NTLM_HASH_BYTES], uint32_t flags, bool by_client)
{
    struct str key = str_slice(exported_key, NTLM_HASH_BYTES);
    size_t strong = flags & NTLM_128 ? 16 : flags & NTLM_56 ? 7 : 5;
    return derive(key, sign_magic[by_client], way->sign_key) &&
           derive((struct str){ key.p, strong }, seal_magic[by_client], way->seal_key) &&
           ntlm_crypto_rc4_begin(&way->rc4, str_slice(way->seal_key, sizeof way->seal_key));
}

bool ntlm_seal_init(struct ntlm_seal *seal, const unsigned char exported_key[NTLM_HASH_BYTES], uint32_t flags, bool is_client)
{
    *seal = (struct ntlm_seal){ .flags = flags & NTLM_KEY_EXCH, .confidential = (flags & NTLM_SEAL) != 0 };
    bool ok = (flags & NTLM_ESS) && (flags & NTLM_128) && ntlm_seal_keys(&seal->send, exported_key, flags, is_client) &&
              ntlm_seal_keys(&seal->receive, exported_key, flags, !is_client);
    if (!ok)
        ntlm_seal_done(seal);
    return ok;
}

void ntlm_seal_done(struct ntlm_seal *seal)
{
    ntlm_crypto_rc4_end(&seal->send.rc4);
    ntlm_crypto_rc4_end(&seal->receive.rc4);
    secret_wipe(seal, sizeof *seal);
    seal->broken = true;
}

/* Version, checksum, counter. The checksum is over the plain text, and encrypted after the text has been. */
static bool make_signature(struct ntlm_seal *seal, struct ntlm_seal_way *way, struct str plain,
                           unsigned char ret_signature[NTLM_SEAL_SIGNATURE_BYTES])
{
    unsigned char counter[4], mac[NTLM_HASH_BYTES];
    for (size_t i = 0; i < 4; i++)
        counter[i] = (unsigned char)(way->sequence >> (8 * i));
    if (!ntlm_crypto_hmac(str_slice(way->sign_key, sizeof way->sign_key), str_slice(counter, 4), plain, STR_NONE, mac))
        return false;
    memcpy(ret_signature, "\1\0\0\0", 4);
    memcpy(ret_signature + 4, mac, 8);
    memcpy(ret_signature + 12, counter, 4);
    way->used = true;
    way->sequence++;
    return !(seal->flags & NTLM_KEY_EXCH) || ntlm_crypto_rc4(&way->rc4, str_slice(mac, 8), ret_signature + 4);
}

bool ntlm_seal_wrap(struct ntlm_seal *seal, bool confidential, struct str plain, struct buf *ret_token)
{
    size_t n = NTLM_SEAL_SIGNATURE_BYTES + plain.n;
    unsigned char *to = seal->broken ? NULL : (unsigned char *)buf_reserve(ret_token, n);
    if (!to)
        return false;
    bool ok = true;
    if (confidential)
        ok = ntlm_crypto_rc4(&seal->send.rc4, plain, to + NTLM_SEAL_SIGNATURE_BYTES);
    else if (plain.n > 0)
        memcpy(to + NTLM_SEAL_SIGNATURE_BYTES, plain.p, plain.n);
    ok = ok && make_signature(seal, &seal->send, plain, to);
    if (ok)
        ret_token->n += n;
    seal->broken = !ok;
    return ok;
}

bool ntlm_seal_unwrap(struct ntlm_seal *seal, bool confidential, struct str token, struct buf *ret_plain)
{
    if (seal->broken || token.n < NTLM_SEAL_SIGNATURE_BYTES) {
        seal->broken = true;
        return false;
    }
    struct str text = str_skip(token, NTLM_SEAL_SIGNATURE_BYTES);
    unsigned char *to = (unsigned char *)buf_reserve(ret_plain, text.n), want[NTLM_SEAL_SIGNATURE_BYTES];
    bool ok = to != NULL;
    if (ok && confidential)
        ok = ntlm_crypto_rc4(&seal->receive.rc4, text, to);
    else if (ok && text.n > 0)
        memcpy(to, text.p, text.n);
    ok = ok && make_signature(seal, &seal->receive, str_slice(to, text.n), want) &&
         secret_equal(str_slice(want, sizeof want), (struct str){ token.p, NTLM_SEAL_SIGNATURE_BYTES });
    if (ok)
        ret_plain->n += text.n;
    seal->broken = !ok;
    return ok;
}

bool ntlm_seal_sign(struct ntlm_seal *seal, struct str text, unsigned char ret_signature[NTLM_SEAL_SIGNATURE_BYTES])
{
    bool ok = !seal->broken && make_signature(seal, &seal->send, text, ret_signature);
    seal->broken = !ok;
    return ok;
}

bool ntlm_seal_verify(struct ntlm_seal *seal, struct str text, struct str signature)
{
    unsigned char want[NTLM_SEAL_SIGNATURE_BYTES];
    bool ok = !seal->broken && make_signature(seal, &seal->receive, text, want) &&
              secret_equal(str_slice(want, sizeof want), signature);
    seal->broken = !ok;
    return ok;
}

static bool restart_way(struct ntlm_seal_way *way)
{
    way->used = false;
    return ntlm_crypto_rc4_begin(&way->rc4, str_slice(way->seal_key, sizeof way->seal_key));
}

bool ntlm_seal_restart(struct ntlm_seal *seal)
{
    bool ok = !seal->broken && restart_way(&seal->send) && restart_way(&seal->receive);
    seal->broken = !ok;
    return ok;
}

static void put_way(struct buf *out, const struct ntlm_seal_way *way)
{
    buf_add(out, str_slice(way->sign_key, sizeof way->sign_key));
    buf_add(out, str_slice(way->seal_key, sizeof way->seal_key));
    wire_put_u32(out, way->sequence);
}

bool ntlm_seal_export(const struct ntlm_seal *seal, struct buf *out)
{
    if (seal->broken || seal->send.used || seal->receive.used)
        return false;
    wire_put_u32(out, seal->flags);
    wire_put_u8(out, seal->confidential);
    put_way(out, &seal->send);
    put_way(out, &seal->receive);
    return !out->failed;
}

static void get_key(struct wire *w, unsigned char key[NTLM_HASH_BYTES])
{
    if (w->rest.n < NTLM_HASH_BYTES) {
        w->bad = true;
        return;
    }
    memcpy(key, w->rest.p, NTLM_HASH_BYTES);
    w->rest = str_skip(w->rest, NTLM_HASH_BYTES);
}

static void get_way(struct wire *w, struct ntlm_seal_way *way)
{
    get_key(w, way->sign_key);
    get_key(w, way->seal_key);
    way->sequence = wire_get_u32(w);
}

bool ntlm_seal_import(struct str octets, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ 0 };
    struct wire w = wire_of(octets);
    ret_seal->flags = wire_get_u32(&w);
    ret_seal->confidential = wire_get_u8(&w) != 0;
    get_way(&w, &ret_seal->send);
    get_way(&w, &ret_seal->receive);
    bool ok = wire_end(&w) && (ret_seal->flags & ~(uint32_t)NTLM_KEY_EXCH) == 0 && ntlm_seal_restart(ret_seal);
    if (!ok)
        ntlm_seal_done(ret_seal);
    return ok;
}

static bool layer_wrap(void *context, bool confidential, struct str plain, struct buf *ret_token)
{
    return ntlm_seal_wrap(context, confidential, plain, ret_token);
}

static bool layer_unwrap(void *context, struct str token, struct buf *ret_plain, bool *ret_confidential)
{
    struct ntlm_seal *seal = context;
    *ret_confidential = seal->confidential; /* a token does not say it: it is what was negotiated */
    return ntlm_seal_unwrap(seal, seal->confidential, token, ret_plain);
}

static uint32_t layer_plain_max(void *context, bool confidential, uint32_t output_max)
{
    return output_max > NTLM_SEAL_SIGNATURE_BYTES ? output_max - NTLM_SEAL_SIGNATURE_BYTES : 0;
}

struct sasl_layer_ops ntlm_seal_layer_ops(struct ntlm_seal *seal)
{
    return (struct sasl_layer_ops){ .context = seal, .confidential = seal->confidential, .wrap = layer_wrap,
                                    .unwrap = layer_unwrap, .plain_max = layer_plain_max };
}
