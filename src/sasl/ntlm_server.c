#include "sasl/ntlm_server.h"

#include "base/secret.h"
#include "base/wire.h"
#include "sasl/ntlm_text.h"

enum { PHASE_FIRST, PHASE_NEGOTIATE, PHASE_AUTHENTICATE, PHASE_CHECK, PHASE_DONE, PHASE_OVER };
enum { NETBIOS_MAX = 15, RESPONSE1_BYTES = 24 };

static enum ntlm_action fail(struct ntlm_server *server, enum ntlm_cause cause)
{
    server->phase = PHASE_OVER;
    server->cause = cause;
    return NTLM_FAILED;
}

/* A NetBIOS name: as given, or the first label of a DNS name in capitals. */
static struct str netbios_name(struct str given, struct str dns, char text[NETBIOS_MAX + 1])
{
    struct str label;
    if (given.n > 0)
        return given;
    str_cut(&dns, '.', &label);
    size_t n = label.n < NETBIOS_MAX ? label.n : NETBIOS_MAX;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(label.p[i] >= 'a' && label.p[i] <= 'z' ? label.p[i] - 32 : label.p[i]);
    return str_slice(text, n);
}

static void add_text_av(struct buf *out, enum ntlm_av id, struct str text)
{
    struct buf wide;
    buf_init(&wide, 4 * NTLM_NAME_MAX);
    if (text.n == 0 || text.n > NTLM_NAME_MAX || !ntlm_text_encode(text, &wide))
        out->failed = true;
    else
        ntlm_message_write_av(out, id, buf_str(&wide));
    buf_done(&wide);
}

/* All that old and new clients look for, and no MsvAvFlags: an empty one makes MICs of Windows fail. */
static bool add_names(struct ntlm_server *server, const struct sasl_ntlm_setup *setup)
{
    char computer_text[NETBIOS_MAX + 1], domain_text[NETBIOS_MAX + 1];
    struct str computer = netbios_name(setup->netbios_computer, setup->dns_computer, computer_text);
    struct str label, parent = setup->dns_computer, dns_domain = setup->dns_domain;
    if (dns_domain.n == 0)
        dns_domain = str_cut(&parent, '.', &label) && parent.n > 0 ? parent : setup->dns_computer;
    struct str domain = netbios_name(setup->netbios_domain, setup->dns_domain, domain_text);
    server->in_domain = domain.n > 0;
    if (!server->in_domain)
        domain = computer;
    if (!str_copy(domain, server->realm, sizeof server->realm))
        return false;
    struct buf *info = &server->info;
    add_text_av(info, NTLM_AV_NETBIOS_DOMAIN, domain);
    add_text_av(info, NTLM_AV_NETBIOS_COMPUTER, computer);
    add_text_av(info, NTLM_AV_DNS_DOMAIN, dns_domain);
    add_text_av(info, NTLM_AV_DNS_COMPUTER, setup->dns_computer);
    wire_put_u16(info, NTLM_AV_TIMESTAMP);
    wire_put_u16(info, 8);
    wire_put_u64(info, setup->filetime);
    ntlm_message_write_av(info, NTLM_AV_EOL, STR_NONE);
    const struct str names[] = { setup->dns_computer, computer, setup->names };
    for (size_t i = 0; i < 3; i++) {
        buf_add(&server->names, names[i]);
        buf_add_char(&server->names, ' ');
    }
    return !info->failed && !server->names.failed;
}

static bool add_binding(struct ntlm_server *server, const char *prefix, struct str data)
{
    return data.n == 0 || ntlm_crypto_binding(prefix, data, server->bindings[server->n_bindings++]);
}

bool ntlm_server_init(struct ntlm_server *server, const struct ntlm_server_options *options)
{
    const struct sasl_ntlm_setup *setup = options->setup;
    *server = (struct ntlm_server){ .binding_required = options->binding_required, .offer_seal = options->offer_seal,
                                    .allow_v1 = setup->allow_v1 };
    memcpy(server->server_challenge, setup->challenge, NTLM_CHALLENGE_BYTES);
    buf_init(&server->negotiate, NTLM_MESSAGE_MAX);
    buf_init(&server->challenge, NTLM_MESSAGE_MAX);
    buf_init(&server->authenticate, NTLM_MESSAGE_MAX);
    buf_init(&server->names, NTLM_NAMES_MAX);
    buf_init(&server->info, NTLM_MESSAGE_MAX);
    return ntlm_crypto_ready() && add_names(server, setup) &&
           add_binding(server, "tls-server-end-point:", options->binding.cert_hash) &&
           add_binding(server, "tls-exporter:", options->binding.exporter);
}

void ntlm_server_done(struct ntlm_server *server)
{
    buf_done(&server->negotiate);
    buf_done(&server->challenge);
    buf_wipe(&server->authenticate);
    buf_done(&server->names);
    buf_done(&server->info);
    secret_wipe(server, sizeof *server);
    server->phase = PHASE_OVER;
}

static uint32_t choose_flags(const struct ntlm_server *server, uint32_t asked)
{
    uint32_t echoed = NTLM_SIGN | NTLM_ESS | NTLM_VERSION | NTLM_128 | NTLM_KEY_EXCH | NTLM_56;
    if (server->offer_seal && (asked & NTLM_ESS) && (asked & NTLM_128))
        echoed |= NTLM_SEAL;
    return (asked & echoed) | (asked & NTLM_UNICODE ? NTLM_UNICODE : NTLM_OEM) | NTLM_REQUEST_TARGET | NTLM_NTLM |
           NTLM_ALWAYS_SIGN | NTLM_TARGET_INFO | (server->in_domain ? NTLM_TARGET_TYPE_DOMAIN : NTLM_TARGET_TYPE_SERVER);
}

static enum ntlm_action take_negotiate(struct ntlm_server *server, struct str token, struct str *ret_token)
{
    struct ntlm_negotiate negotiate;
    struct buf target;
    if (!ntlm_message_read_negotiate(token, &negotiate))
        return fail(server, NTLM_CAUSE_MALFORMED);
    server->flags = choose_flags(server, negotiate.flags);
    buf_init(&target, 4 * NTLM_NAME_MAX);
    if (server->flags & NTLM_UNICODE)
        ntlm_text_encode(str_of(server->realm), &target);
    else
        buf_add_c(&target, server->realm);
    struct ntlm_challenge challenge = {
        .flags = server->flags, .target_name = buf_str(&target), .target_info = buf_str(&server->info),
        .challenge = str_slice(server->server_challenge, NTLM_CHALLENGE_BYTES),
    };
    ntlm_message_write_challenge(&server->challenge, &challenge);
    bool ok = !target.failed && !server->challenge.failed && buf_add(&server->negotiate, token);
    buf_done(&target);
    if (!ok)
        return fail(server, NTLM_CAUSE_INTERNAL);
    server->phase = PHASE_AUTHENTICATE;
    *ret_token = buf_str(&server->challenge);
    return NTLM_CHALLENGE;
}

/* A client that says it cannot do Unicode may still write it: the zero in ASCII's second octet tells. */
static bool get_name(struct str wire, bool unicode, char *dst, struct str *ret_text)
{
    if (!unicode && wire.n >= 2 && wire.p[1] == 0)
        unicode = true;
    return ntlm_text_decode(wire, unicode, dst, NTLM_NAME_MAX + 1, ret_text);
}

static bool get_names(struct ntlm_server *server)
{
    const struct ntlm_authenticate *m = &server->message;
    struct ntlm_proof *p = &server->proof;
    uint32_t flags = m->has_flags && (m->flags & (NTLM_UNICODE | NTLM_OEM)) ? m->flags : server->flags;
    bool unicode = (flags & NTLM_UNICODE) != 0;
    return get_name(m->user, unicode, server->user, &p->user) && get_name(m->domain, unicode, server->domain, &p->domain) &&
           get_name(m->workstation, unicode, server->workstation, &p->workstation);
}

static bool is_zero(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != 0)
            return false;
    return true;
}

/* With extended session security the old answer is to both challenges (MS-NLMP section 3.3.1). */
static bool mix_challenges(struct ntlm_server *server)
{
    unsigned char both[2 * NTLM_CHALLENGE_BYTES], hash[NTLM_HASH_BYTES];
    memcpy(both, server->server_challenge, NTLM_CHALLENGE_BYTES);
    memcpy(both + NTLM_CHALLENGE_BYTES, server->message.lm_response.p, NTLM_CHALLENGE_BYTES);
    if (!ntlm_crypto_md5(str_slice(both, sizeof both), hash))
        return false;
    memcpy(server->effective_challenge, hash, NTLM_CHALLENGE_BYTES);
    return true;
}

static enum ntlm_cause classify1(struct ntlm_server *server)
{
    struct str lm = server->message.lm_response;
    if (!server->allow_v1 || server->message.nt_response.n != RESPONSE1_BYTES)
        return NTLM_CAUSE_V1; /* LM alone is never enough */
    server->proof.version = 1;
    /* Some negotiate extended session security and then answer as if they had not. */
    if (lm.n != RESPONSE1_BYTES || !is_zero(str_skip(lm, NTLM_CHALLENGE_BYTES)))
        server->flags &= ~(uint32_t)NTLM_ESS;
    return !(server->flags & NTLM_ESS) || mix_challenges(server) ? NTLM_CAUSE_NONE : NTLM_CAUSE_INTERNAL;
}

static enum ntlm_cause classify2(struct ntlm_server *server)
{
    struct str pairs;
    struct ntlm_proof *p = &server->proof;
    const struct ntlm_avs *avs = &server->avs;
    if (!ntlm_message_v2_pairs(server->message.nt_response, &pairs) || !ntlm_message_read_avs(pairs, &server->avs))
        return NTLM_CAUSE_MALFORMED;
    p->version = 2;
    p->has_mic = (ntlm_message_av_flags(avs) & NTLM_AV_FLAG_MIC) != 0;
    p->has_binding = !is_zero(avs->value[NTLM_AV_BINDINGS]);
    return ntlm_text_decode(avs->value[NTLM_AV_TARGET_NAME], true, server->target, sizeof server->target, &p->target)
               ? NTLM_CAUSE_NONE
               : NTLM_CAUSE_MALFORMED;
}

static enum ntlm_action take_authenticate(struct ntlm_server *server, struct str token)
{
    struct ntlm_authenticate *m = &server->message;
    if (!buf_add(&server->authenticate, token))
        return fail(server, token.n > NTLM_MESSAGE_MAX ? NTLM_CAUSE_TOO_LONG : NTLM_CAUSE_INTERNAL);
    if (!ntlm_message_read_authenticate(buf_str(&server->authenticate), m) || !get_names(server))
        return fail(server, NTLM_CAUSE_MALFORMED);
    if (m->has_flags) /* what the client has let go of; never more than was granted */
        server->flags &= m->flags | NTLM_TARGET_INFO | NTLM_REQUEST_TARGET;
    if (m->user.n == 0 || (m->flags & NTLM_ANONYMOUS))
        return fail(server, NTLM_CAUSE_ANONYMOUS);
    memcpy(server->effective_challenge, server->server_challenge, NTLM_CHALLENGE_BYTES);
    enum ntlm_cause cause = m->nt_response.n > RESPONSE1_BYTES ? classify2(server) : classify1(server);
    if (cause != NTLM_CAUSE_NONE)
        return fail(server, cause);
    server->proof.server_challenge = str_slice(server->effective_challenge, NTLM_CHALLENGE_BYTES);
    server->proof.nt_response = m->nt_response;
    server->proof.lm_response = m->lm_response;
    server->phase = PHASE_CHECK;
    return NTLM_CHECK;
}

enum ntlm_action ntlm_server_step(struct ntlm_server *server, struct str token, struct str *ret_token)
{
    *ret_token = STR_NONE;
    if (token.n > NTLM_MESSAGE_MAX)
        return fail(server, NTLM_CAUSE_TOO_LONG);
    if (server->phase == PHASE_FIRST && token.n == 0) {
        server->phase = PHASE_NEGOTIATE;
        return NTLM_CHALLENGE;
    }
    if (server->phase == PHASE_FIRST || server->phase == PHASE_NEGOTIATE)
        return take_negotiate(server, token, ret_token);
    if (server->phase == PHASE_AUTHENTICATE)
        return take_authenticate(server, token);
    return fail(server, NTLM_CAUSE_INTERNAL);
}

static bool find_keys(struct ntlm_server *server, const unsigned char *session_base_key)
{
    const struct ntlm_authenticate *m = &server->message;
    unsigned char key[NTLM_HASH_BYTES];
    bool ok = ntlm_crypto_exchange_key(server->proof.version, server->flags, session_base_key,
                                       str_slice(server->server_challenge, NTLM_CHALLENGE_BYTES), m->lm_response, key);
    if (ok && (server->flags & NTLM_KEY_EXCH)) {
        /* A client that promised a key and sent none has none. */
        server->has_key = m->session_key.n == NTLM_HASH_BYTES;
        if (server->has_key)
            ok = ntlm_crypto_rc4_once(str_slice(key, sizeof key), m->session_key, server->exported_key);
    } else if (ok) {
        server->has_key = true;
        memcpy(server->exported_key, key, sizeof key);
    }
    secret_wipe(key, sizeof key);
    return ok;
}

/* The client seals from now on: then so must we be able to. */
static enum ntlm_cause check_seal(const struct ntlm_server *server)
{
    uint32_t needed = NTLM_ESS | NTLM_128;
    return !(server->flags & NTLM_SEAL) || (server->has_key && (server->flags & needed) == needed) ? NTLM_CAUSE_NONE
                                                                                                    : NTLM_CAUSE_MALFORMED;
}

static enum ntlm_cause check_mic(const struct ntlm_server *server)
{
    unsigned char want[NTLM_HASH_BYTES];
    struct str message = buf_str(&server->authenticate);
    if (!server->proof.has_mic)
        return NTLM_CAUSE_NONE;
    if (!server->has_key || server->message.header_bytes < NTLM_AUTHENTICATE_BYTES)
        return NTLM_CAUSE_MIC;
    if (!ntlm_crypto_mic(server->exported_key, buf_str(&server->negotiate), buf_str(&server->challenge), message, want))
        return NTLM_CAUSE_INTERNAL;
    struct str sent = str_slice(message.p + NTLM_MIC_AT, NTLM_HASH_BYTES);
    return secret_equal(sent, str_slice(want, sizeof want)) ? NTLM_CAUSE_NONE : NTLM_CAUSE_MIC;
}

static enum ntlm_cause check_binding(const struct ntlm_server *server)
{
    struct str sent = server->avs.value[NTLM_AV_BINDINGS];
    if (!server->proof.has_binding)
        return server->binding_required ? NTLM_CAUSE_BINDING_MISSING : NTLM_CAUSE_NONE;
    for (size_t i = 0; i < server->n_bindings; i++)
        if (secret_equal(sent, str_slice(server->bindings[i], NTLM_HASH_BYTES)))
            return NTLM_CAUSE_NONE;
    return NTLM_CAUSE_BINDING_MISMATCH;
}

/* "class/host", "class/host:port", "class/host/realm", or a host alone. */
static enum ntlm_cause check_target(const struct ntlm_server *server)
{
    static const struct str services = { "SMTPSVC smtp host cifs", 22 };
    struct str rest = server->proof.target, service, host, port;
    if (rest.n == 0 || (ntlm_message_av_flags(&server->avs) & NTLM_AV_FLAG_UNVERIFIED))
        return NTLM_CAUSE_NONE;
    if (str_cut(&rest, '/', &service)) {
        if (!sasl_list_has(services, service))
            return NTLM_CAUSE_TARGET;
        str_cut(&rest, '/', &host);
    } else {
        host = service;
    }
    if (host.n > 0 && host.p[0] != '[') {
        port = host;
        str_cut(&port, ':', &host);
    }
    if (host.n > 0 && host.p[host.n - 1] == '.')
        host.n--;
    return host.n > 0 && sasl_list_has(buf_str(&server->names), host) ? NTLM_CAUSE_NONE : NTLM_CAUSE_TARGET;
}

enum ntlm_action ntlm_server_verified(struct ntlm_server *server, enum ntlm_verdict verdict,
                                      const unsigned char *session_base_key)
{
    static const enum ntlm_cause causes[] = {
        [NTLM_RIGHT] = NTLM_CAUSE_NONE, [NTLM_WRONG] = NTLM_CAUSE_WRONG, [NTLM_UNKNOWN_USER] = NTLM_CAUSE_UNKNOWN_USER,
        [NTLM_CANNOT_TELL] = NTLM_CAUSE_TEMPORARY,
    };
    static enum ntlm_cause (*const checks[])(const struct ntlm_server *) = { check_mic, check_binding, check_target,
                                                                            check_seal };
    if (server->phase != PHASE_CHECK)
        return fail(server, NTLM_CAUSE_INTERNAL);
    if (verdict != NTLM_RIGHT)
        return fail(server, causes[verdict]);
    if (session_base_key && !find_keys(server, session_base_key))
        return fail(server, NTLM_CAUSE_INTERNAL);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        enum ntlm_cause cause = checks[i](server);
        if (cause != NTLM_CAUSE_NONE)
            return fail(server, cause);
    }
    server->phase = PHASE_DONE;
    return NTLM_DONE;
}

bool ntlm_server_seal(const struct ntlm_server *server, struct ntlm_seal *ret_seal)
{
    *ret_seal = (struct ntlm_seal){ .broken = true };
    return server->phase == PHASE_DONE && server->has_key && (server->flags & (NTLM_SIGN | NTLM_SEAL)) &&
           ntlm_seal_init(ret_seal, server->exported_key, server->flags, false);
}
