#include "sasl/ntlm_client.h"

#include "base/secret.h"
#include "base/wire.h"
#include "sasl/ntlm_message.h"
#include "sasl/ntlm_text.h"

/* "CORP\alice" is split; "alice@corp.test" stays whole with an empty domain, as Windows sends it. */
static int take_user(struct ntlm_client *client, const struct ntlm_client_options *options, struct err *err)
{
    struct str user = options->user, domain = options->setup->domain, before;
    if (str_cut(&user, '\\', &before))
        domain = before;
    else
        user = options->user;
    if (user.n == 0 || !str_copy(user, client->user, sizeof client->user) ||
        !str_copy(domain, client->domain, sizeof client->domain))
        return err_set(err, ERR_SYNTAX, "NTLM needs a user and a domain of at most %d octets", NTLM_NAME_MAX);
    if (options->password.n == 0)
        return err_set(err, ERR_SYNTAX, "NTLM needs a password");
    if (!ntlm_crypto_nt_hash(options->password, client->nt_hash))
        return err_set(err, ERR_SYNTAX, "the password for NTLM is not valid UTF-8, or too long");
    return 0;
}

int ntlm_client_init(struct ntlm_client *client, const struct ntlm_client_options *options, struct err *err)
{
    const struct sasl_ntlm_setup *setup = options->setup;
    *client = (struct ntlm_client){ .filetime = setup->filetime };
    buf_init(&client->negotiate, NTLM_MESSAGE_MAX);
    buf_init(&client->authenticate, NTLM_MESSAGE_MAX);
    memcpy(client->client_challenge, setup->challenge, NTLM_CHALLENGE_BYTES);
    memcpy(client->exported_key, setup->session_key, NTLM_HASH_BYTES);
    int rc = ntlm_crypto_init(err);
    if (rc == 0)
        rc = take_user(client, options, err);
    if (rc < 0)
        return rc;
    if (!str_copy(setup->workstation, client->workstation, sizeof client->workstation) ||
        !str_copy(setup->target, client->target, sizeof client->target))
        return err_set(err, ERR_SYNTAX, "a name for NTLM is longer than %d octets", NTLM_NAME_MAX);
    client->has_binding = options->binding.cert_hash.n > 0;
    if (client->has_binding && !ntlm_crypto_binding("tls-server-end-point:", options->binding.cert_hash, client->binding))
        return err_set(err, ERR_AUTH, "cannot bind NTLM to the TLS channel: OpenSSL failed");
    client->flags = NTLM_UNICODE | NTLM_REQUEST_TARGET | NTLM_NTLM | NTLM_ALWAYS_SIGN | NTLM_ESS | NTLM_TARGET_INFO |
                    NTLM_VERSION | NTLM_128 | NTLM_KEY_EXCH | NTLM_SIGN;
    if (options->want_seal)
        client->flags |= NTLM_SEAL;
    ntlm_message_write_negotiate(&client->negotiate, client->flags);
    return client->negotiate.failed ? err_errno(err, ENOMEM, "NTLM") : 0;
}

void ntlm_client_done(struct ntlm_client *client)
{
    buf_done(&client->negotiate);
    buf_wipe(&client->authenticate);
    secret_wipe(client, sizeof *client);
}

struct str ntlm_client_first(struct ntlm_client *client)
{
    return buf_str(&client->negotiate);
}

/* The server's AV pairs and ours behind them (MS-NLMP section 3.1.5.1.2). */
static bool add_pairs(struct ntlm_client *client, const struct ntlm_avs *avs, struct buf *out)
{
    static const char no_binding[NTLM_HASH_BYTES];
    uint32_t flags = ntlm_message_av_flags(avs) | (client->want_mic ? NTLM_AV_FLAG_MIC : 0);
    for (enum ntlm_av id = NTLM_AV_NETBIOS_COMPUTER; id <= NTLM_AV_TIMESTAMP; id++)
        if (avs->has[id] && id != NTLM_AV_FLAGS)
            ntlm_message_write_av(out, id, avs->value[id]);
    if (flags) {
        wire_put_u16(out, NTLM_AV_FLAGS);
        wire_put_u16(out, 4);
        wire_put_u32(out, flags);
    }
    ntlm_message_write_av(out, NTLM_AV_BINDINGS, client->has_binding ? str_slice(client->binding, NTLM_HASH_BYTES)
                                                                      : str_slice(no_binding, NTLM_HASH_BYTES));
    if (client->target[0]) {
        struct buf wide;
        buf_init(&wide, 4 * NTLM_NAME_MAX);
        if (ntlm_text_encode(str_of(client->target), &wide))
            ntlm_message_write_av(out, NTLM_AV_TARGET_NAME, buf_str(&wide));
        else
            out->failed = true;
        buf_done(&wide);
    }
    ntlm_message_write_av(out, NTLM_AV_EOL, STR_NONE);
    wire_put_u32(out, 0);
    return !out->failed;
}

/* The NTLMv2 response: proof, then the blob it is over; and the session base key. */
static bool make_response(struct ntlm_client *client, const struct ntlm_challenge *challenge, const struct ntlm_avs *avs,
                          struct buf *out, unsigned char ret_base_key[NTLM_HASH_BYTES])
{
    unsigned char key[NTLM_HASH_BYTES], proof[NTLM_HASH_BYTES];
    struct str stamp = avs->value[NTLM_AV_TIMESTAMP];
    struct wire w = wire_of(stamp);
    uint64_t filetime = stamp.n == 8 ? wire_get_u64(&w) : client->filetime;
    memset(proof, 0, sizeof proof);
    buf_add(out, str_slice(proof, sizeof proof));
    wire_put_u64(out, 0x0101);
    wire_put_u64(out, filetime);
    buf_add(out, str_slice(client->client_challenge, NTLM_CHALLENGE_BYTES));
    wire_put_u32(out, 0);
    bool ok = add_pairs(client, avs, out) &&
              ntlm_crypto_ntowf2(client->nt_hash, str_of(client->user), str_of(client->domain), key) &&
              ntlm_crypto_proof2(key, challenge->challenge, str_skip(buf_str(out), NTLM_HASH_BYTES), proof) &&
              ntlm_crypto_hmac(str_slice(key, sizeof key), str_slice(proof, sizeof proof), STR_NONE, STR_NONE, ret_base_key);
    if (ok)
        memcpy(out->p, proof, sizeof proof);
    secret_wipe(key, sizeof key);
    return ok;
}

static bool encode_name(const char *text, bool unicode, struct buf *out)
{
    return unicode ? ntlm_text_encode(str_of(text), out) : buf_add_c(out, text);
}

/* What is built for the last message. */
struct parts {
    struct buf response, user, domain, workstation;
    unsigned char base_key[NTLM_HASH_BYTES], encrypted_key[NTLM_HASH_BYTES], mic[NTLM_HASH_BYTES];
};

static bool make_message(struct ntlm_client *client, struct parts *p, struct str challenge)
{
    static const char no_lm[24];
    bool exchange = (client->flags & NTLM_KEY_EXCH) != 0, unicode = (client->flags & NTLM_UNICODE) != 0;
    struct str base = str_slice(p->base_key, NTLM_HASH_BYTES);
    if (!exchange)
        memcpy(client->exported_key, p->base_key, NTLM_HASH_BYTES);
    else if (!ntlm_crypto_rc4_once(base, str_slice(client->exported_key, NTLM_HASH_BYTES), p->encrypted_key))
        return false;
    if (!encode_name(client->user, unicode, &p->user) || !encode_name(client->domain, unicode, &p->domain) ||
        !encode_name(client->workstation, unicode, &p->workstation))
        return false;
    struct ntlm_authenticate message = {
        .flags = client->flags, .lm_response = str_slice(no_lm, sizeof no_lm), .nt_response = buf_str(&p->response),
        .user = buf_str(&p->user), .domain = buf_str(&p->domain), .workstation = buf_str(&p->workstation),
        .session_key = exchange ? str_slice(p->encrypted_key, NTLM_HASH_BYTES) : STR_NONE,
    };
    ntlm_message_write_authenticate(&client->authenticate, &message);
    if (client->authenticate.failed)
        return false;
    if (!client->want_mic)
        return true;
    if (!ntlm_crypto_mic(client->exported_key, buf_str(&client->negotiate), challenge, buf_str(&client->authenticate), p->mic))
        return false;
    memcpy(client->authenticate.p + NTLM_MIC_AT, p->mic, NTLM_HASH_BYTES);
    return true;
}

static int check_challenge(struct ntlm_client *client, struct str token, struct ntlm_challenge *challenge,
                           struct ntlm_avs *avs, struct err *err)
{
    if (!ntlm_message_read_challenge(token, challenge))
        return err_set(err, ERR_AUTH, "the server's challenge is no message of NTLM, or is malformed");
    if (!(challenge->flags & NTLM_TARGET_INFO) || !ntlm_message_read_avs(challenge->target_info, avs))
        return err_set(err, ERR_AUTH, "the server's NTLM challenge has no target information: it knows only NTLMv1, which is"
                       " not sent");
    uint32_t needed = client->flags & NTLM_SEAL ? NTLM_SEAL | NTLM_ESS | NTLM_128 : 0;
    if ((challenge->flags & needed) != needed)
        return err_set(err, ERR_CONFIG, "the server does not grant NTLM sealing with 128 bits (its flags are 0x%08x)",
                       (unsigned)challenge->flags);
    return 0;
}

int ntlm_client_step(struct ntlm_client *client, struct str token, struct str *ret_response, struct err *err)
{
    struct ntlm_challenge challenge;
    struct ntlm_avs avs;
    *ret_response = STR_NONE;
    if (client->complete)
        return err_set(err, ERR_AUTH, "the server goes on asking after NTLM was answered");
    int rc = check_challenge(client, token, &challenge, &avs, err);
    if (rc < 0)
        return rc;
    client->flags &= challenge.flags | NTLM_VERSION;
    if (!(client->flags & NTLM_UNICODE))
        client->flags |= NTLM_OEM;
    client->want_mic = avs.value[NTLM_AV_TIMESTAMP].n == 8;
    struct parts p = { 0 };
    buf_init(&p.response, NTLM_MESSAGE_MAX / 2);
    buf_init(&p.user, 4 * NTLM_NAME_MAX);
    buf_init(&p.domain, 4 * NTLM_NAME_MAX);
    buf_init(&p.workstation, 4 * NTLM_NAME_MAX);
    bool ok = make_response(client, &challenge, &avs, &p.response, p.base_key) && make_message(client, &p, token);
    buf_done(&p.response);
    buf_done(&p.user);
    buf_done(&p.domain);
    buf_done(&p.workstation);
    secret_wipe(&p, sizeof p);
    if (!ok)
        return err_set(err, ERR_AUTH, "cannot make an answer of NTLM: a name is no UTF-8, the server's challenge is too long, or"
                       " OpenSSL failed");
    client->complete = true;
    *ret_response = buf_str(&client->authenticate);
    return 0;
}

bool ntlm_client_seal(const struct ntlm_client *client, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ .broken = true };
    return client->complete && (client->flags & (NTLM_SIGN | NTLM_SEAL)) &&
           ntlm_seal_init(ret_seal, client->exported_key, client->flags, true);
}
