/* Logins of clients. smtpd names the mechanism and passes responses on; here is decided who it is.
 *
 * Happy path: AUTH_START makes a session; each response takes a step of the mechanism (sasl/server.h); challenges go
 * back; questions to the user store go through verify.h; the end is one AUTH_DONE and one log event.
 * Ways to fail: a mechanism that may not be used here; an address that failed too often (before the exchange and again
 * at its end, so that a hundred connections at once get no more guesses than one); wrong credentials, whose answer waits
 * longer the more there were; a store that cannot be read. smtpd cancelling, or going away, ends the session. */
#include "daemon/auth/inbound.h"
#include "io/now.h"
#include "sasl/ntlm_crypto.h"

enum { SESSION_ARENA_MAX = 16 * 1024 };

/* Who exists, asked while the store was being written. */
struct query {
    struct query *next;
    struct inbound *inbound;
    struct auth_key key;
    struct verify *verify;
};

int inbound_new(struct auth *auth, struct inbound **ret_inbound, struct err *err)
{
    *ret_inbound = calloc(1, sizeof **ret_inbound);
    if (!*ret_inbound)
        return err_errno(err, ENOMEM, "auth");
    (*ret_inbound)->auth = auth;
    return 0;
}

void inbound_end_session(struct session *session)
{
    struct inbound *inbound = session->inbound;
    HASH_DEL(inbound->sessions, session);
    step_drop(session);
    verify_drop(&session->verify);
    ntlm_check_drop(&session->ntlm_check);
    identify_drop(&session->identify);
    sasl_server_free(&session->sasl);
    kerberos_exchange_free(&session->kerberos);
    conf_unref(&session->conf);
    loop_timer_free(&session->timer);
    buf_wipe(&session->layer_state);
    buf_wipe(&session->answer);
    arena_done(&session->arena);
    free(session);
    auth_session_end(inbound->auth);
}

static bool keep_start(struct session *session, const struct ipc_auth_start *start)
{
    struct ipc_auth_start *keep = &session->start;
    const struct str *from[] = { &start->mechanism, &start->server, &start->client, &start->helo, &start->session, &start->tls };
    struct str *to[] = { &keep->mechanism, &keep->server, &keep->client, &keep->helo, &keep->session, &keep->tls };
    keep->port = start->port;
    keep->flags = start->flags;
    arena_init(&session->arena, SESSION_ARENA_MAX);
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        *to[i] = arena_copy(&session->arena, *from[i]);
        if (!to[i]->p)
            return false;
    }
    return true;
}

/* Without TLS a layer may be offered where `encryption` counts it; where TLS is demanded, it must be one that counts. */
static unsigned layers_offered(const struct session *session)
{
    const struct access_rules *rules = &session->rules;
    if ((session->start.flags & IPC_AUTH_FLAG_TLS) || rules->encryption == CONF_ENCRYPTION_TLS)
        return 0;
    bool demanded = rules->accept == CONF_ACCEPT_TLS || rules->accept == CONF_ACCEPT_AUTH_TLS;
    if (!demanded)
        return SASL_LAYER_BITS;
    return rules->encryption == CONF_ENCRYPTION_ANY ? SASL_LAYER_BIT_INTEGRITY | SASL_LAYER_BIT_CONFIDENTIALITY
                                                    : SASL_LAYER_BIT_CONFIDENTIALITY;
}

static bool allows(const struct session *session, const char *mechanism)
{
    for (size_t i = 0; i < session->rules.mechanisms.n; i++)
        if (str_eq_nocase(str_of(session->rules.mechanisms.item[i]), str_of(mechanism)))
            return true;
    return false;
}

/* The NT name of the domain that this server's clients mean; NULL: none is configured. */
static const char *netbios_domain(const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_directories; i++)
        if (conf->directory[i].netbios)
            return conf->directory[i].netbios;
    for (size_t i = 0; i < conf->n_identities; i++)
        if (conf->identity[i].netbios)
            return conf->identity[i].netbios;
    return NULL;
}

static void set_up_ntlm(const struct session *session, struct buf *names, struct sasl_ntlm_setup *setup)
{
    const struct conf_server *server = session->server;
    struct str computer = str_of(server->name);
    size_t dot = str_find(computer, '.');
    *setup = (struct sasl_ntlm_setup){
        .filetime = ntlm_filetime(now_wall_ms()), .netbios_domain = str_of(netbios_domain(session->conf)),
        .dns_computer = computer, .dns_domain = dot < computer.n ? str_skip(computer, dot + 1) : STR_NONE,
        .allow_v1 = session->rules.ntlm_v1,
    };
    now_random(setup->challenge, sizeof setup->challenge);
    for (size_t i = 0; i < server->aliases.n; i++)
        buf_addf(names, "%s%s", i ? " " : "", server->aliases.item[i]);
    setup->names = buf_str(names);
}

static struct sasl_server *new_exchange(const struct session *session, const struct sasl_mechanism *mechanism,
                                        const struct ipc_auth_start *start)
{
    unsigned char octets[SASL_NONCE_BYTES];
    char nonce[SASL_NONCE_TEXT + 1];
    struct sasl_ntlm_setup ntlm;
    struct buf names;
    now_random(octets, sizeof octets);
    if (!sasl_nonce_text(octets, nonce))
        return NULL;
    struct sasl_server_options options = {
        .binding = { .cert_hash = start->cert_hash, .exporter = start->exporter },
        .plus_offered = sasl_list_has(start->offered, STR("SCRAM-SHA-256-PLUS")),
        .nonce = str_of(nonce),
    };
    buf_init(&names, NTLM_NAMES_MAX);
    if (session->server) {
        options.gss = session->kerberos ? kerberos_exchange_gss(session->kerberos) : NULL;
        options.layers_offered = layers_offered(session);
        options.binding_required = session->rules.channel_binding == CONF_BINDING_REQUIRE;
        if (allows(session, "NTLM") && ntlm_crypto_ready()) {
            set_up_ntlm(session, &names, &ntlm);
            options.ntlm = &ntlm;
        }
    }
    struct sasl_server *exchange = sasl_server_new(mechanism, &options);
    buf_done(&names);
    return exchange;
}

/* The rules come from our own snapshot: smtpd says only where the client is, and which server it talks to. */
static void find_rules(struct session *session)
{
    unsigned char address[16];
    const struct conf *conf = session->conf;
    for (size_t i = 0; i < conf->n_servers && !session->server; i++)
        if (str_eq(str_of(conf->server[i].name), session->start.server))
            session->server = &conf->server[i];
    if (session->server && access_address_parse(session->start.client, address))
        access_find(session->server, address, &session->rules);
    else
        session->server = NULL;
}

static bool open_kerberos(struct session *session, const struct sasl_mechanism *mechanism,
                          const struct ipc_auth_start *start)
{
    struct auth *auth = session->inbound->auth;
    if (!(mechanism->flags & SASL_GSS) || !session->server || !session->server->keytab)
        return true;
    struct auth_keytab *keytab = auth_keytabs_find(auth->keytabs, IPC_KEYTAB_SERVER, start->server);
    if (!keytab || !auth->rcache)
        return keytab == NULL;
    struct kerberos_options options = {
        .keytab = keytab, .server = session->server, .cert_hash = start->cert_hash,
        .exporter = start->exporter, .rcache = str_of(auth->rcache),
        .binding_required = session->rules.channel_binding == CONF_BINDING_REQUIRE,
    };
    session->kerberos = kerberos_exchange_new(&options);
    return session->kerberos;
}

static struct session *new_session(struct inbound *inbound, struct auth_key key, const struct ipc_auth_start *start,
                                   const struct sasl_mechanism *mechanism)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session || !auth_session_begin(inbound->auth)) {
        free(session);
        return NULL;
    }
    session->inbound = inbound;
    session->key = key;
    session->conf = conf_ref(inbound->auth->ctx->conf);
    buf_init(&session->answer, CHANNEL_BODY_MAX);
    buf_init(&session->layer_state, CHANNEL_BODY_MAX);
    HASH_ADD(hh, inbound->sessions, key, sizeof session->key, session);
    if (!hash_has(session)) {
        auth_session_end(inbound->auth);
        conf_unref(&session->conf);
        free(session);
        return NULL;
    }
    bool ok = keep_start(session, start);
    if (ok)
        find_rules(session);
    if (ok && open_kerberos(session, mechanism, start))
        session->sasl = new_exchange(session, mechanism, start);
    if (!session->sasl) {
        inbound_end_session(session);
        return NULL;
    }
    return session;
}

/* What it needs is configured here. */
static bool is_usable(const struct session *session, const struct sasl_mechanism *mechanism)
{
    bool ntlm = session->server && allows(session, "NTLM") && ntlm_crypto_ready();
    if (mechanism->flags & SASL_GSS)
        return session->kerberos || ntlm;
    return !(mechanism->flags & SASL_NTLM) || ntlm;
}

static struct session *find_session(struct inbound *inbound, struct auth_key key)
{
    struct session *session = NULL;
    HASH_FIND(hh, inbound->sessions, &key, sizeof key, session);
    return session;
}

static bool take_start(struct inbound *inbound, struct auth_key key, struct str body)
{
    static const struct decision no_memory = {
        .result = IPC_AUTH_TEMPORARY, .code = 454, .enhanced = "4.7.0", .cause = "internal",
        .text = "Temporary authentication failure",
    };
    struct ipc_auth_start start;
    if (!ipc_get_auth_start(body, &start))
        return false;
    struct session *before = find_session(inbound, key);
    if (before)
        inbound_end_session(before);
    const struct sasl_mechanism *mechanism = sasl_mechanism_find(start.mechanism);
    if (mechanism)
        start.mechanism = str_of(mechanism->name); /* not as the client spelt it */
    const struct decision *refusal = decide_refusal(inbound->auth, &start, mechanism);
    struct session *session = refusal ? NULL : new_session(inbound, key, &start, mechanism);
    if (!session) {
        decide_at_start(inbound, key, &start, refusal ? refusal : &no_memory);
        return true;
    }
    if (!is_usable(session, mechanism)) {
        decide(session, decide_unknown_mechanism(), 0);
        return true;
    }
    bool initial = (start.flags & IPC_AUTH_FLAG_INITIAL) != 0;
    step_take(session, initial, initial ? start.initial : STR_NONE);
    return true;
}

static void take_step(struct session *session, struct str body)
{
    if (session->job || session->verify || session->ntlm_check || session->identify || session->timer)
        return; /* out of turn: what runs is answered, and nothing more */
    step_take(session, true, body);
}

static void cancel(struct session *session)
{
    if (!session->timer)
        decide_cancelled(session);
    inbound_end_session(session);
}

static void send_existence(struct auth_key key, const struct verify_answer *answer)
{
    char word = answer->verdict == SASL_RIGHT ? 1 : answer->verdict == SASL_UNKNOWN_USER ? 0 : 2;
    channel_send(key.peer->channel, IPC_USER_ANSWER, (uint32_t)key.id, str_slice(&word, 1));
}

static void end_query(struct query *query)
{
    for (struct query **at = &query->inbound->queries; *at; at = &(*at)->next) {
        if (*at == query) {
            *at = query->next;
            break;
        }
    }
    verify_drop(&query->verify);
    free(query);
}

static void on_existence(void *arg, const struct verify_answer *answer)
{
    struct query *query = arg;
    query->verify = NULL;
    send_existence(query->key, answer);
    end_query(query);
}

static void take_query(struct inbound *inbound, struct auth_key key, struct str body)
{
    struct verify_answer answer = { .verdict = SASL_UNKNOWN_USER };
    struct query *query = body.n > 0 && body.n <= SASL_USER_MAX ? calloc(1, sizeof *query) : NULL;
    if (!query) { /* longer than any name */
        send_existence(key, &answer);
        return;
    }
    *query = (struct query){ .inbound = inbound, .key = key, .next = inbound->queries };
    inbound->queries = query;
    if (verify_ask(inbound->auth, VERIFY_EXISTS, body, STR_NONE, on_existence, query, &query->verify, &answer))
        on_existence(query, &answer);
}

bool inbound_message(struct inbound *inbound, struct auth_peer *peer, unsigned type, uint32_t id, struct str body)
{
    struct auth_key key = { .peer = peer, .id = id };
    struct session *session = find_session(inbound, key);
    switch (type) {
    case IPC_AUTH_START:
        return take_start(inbound, key, body);
    case IPC_AUTH_STEP:
        if (session)
            take_step(session, body);
        return true;
    case IPC_AUTH_CANCEL:
        if (session)
            cancel(session);
        return true;
    case IPC_USER_QUERY:
        take_query(inbound, key, body);
        return true;
    default:
        return false;
    }
}

void inbound_peer_gone(struct inbound *inbound, struct auth_peer *peer)
{
    if (!inbound)
        return;
    struct session *session, *next_session;
    HASH_ITER(hh, inbound->sessions, session, next_session)
        if (session->key.peer == peer)
            inbound_end_session(session);
    for (struct query *query = inbound->queries, *next; query; query = next) {
        next = query->next;
        if (query->key.peer == peer)
            end_query(query);
    }
}

void inbound_free(struct inbound **inbound)
{
    if (!*inbound)
        return;
    while ((*inbound)->sessions)
        inbound_end_session((*inbound)->sessions);
    while ((*inbound)->queries)
        end_query((*inbound)->queries);
    free(*inbound);
    *inbound = NULL;
}
