/* A client and a server of NTLM that talk to each other, for the tests of the machines and of SPNEGO. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sasl/ntlm_client.h"
#include "sasl/ntlm_server.h"

#define CERT_HASH STR("0123456789abcdef0123456789abcdef")

/* What a test may change before begin(). */
struct pair {
    struct sasl_ntlm_setup server_setup, client_setup;
    struct ntlm_server_options server_options;
    struct ntlm_client_options client_options;
    struct ntlm_server server;
    struct ntlm_client client;
    unsigned char nt_hash[NTLM_HASH_BYTES]; /* what the server's side stores */
};

static inline void pair_prepare(struct pair *p)
{
    *p = (struct pair){
        .server_setup = { .challenge = "\1\2\3\4\5\6\7\10", .filetime = 130000000000000000, .dns_domain = STR("corp.test"),
                          .dns_computer = STR("mail.corp.test"), .names = STR("relay.corp.test 127.0.0.1") },
        .client_setup = { .challenge = "\21\22\23\24\25\26\27\30", .session_key = "0123456789abcde",
                          .workstation = STR("STATION"), .target = STR("SMTPSVC/mail.corp.test") },
        .client_options = { .user = STR("CORP\\alice"), .password = STR("Passw0rd.alice") },
    };
    p->server_options.setup = &p->server_setup;
    p->client_options.setup = &p->client_setup;
    assert_int_equal(ntlm_crypto_init(NULL), 0);
    assert_true(ntlm_crypto_nt_hash(STR("Passw0rd.alice"), p->nt_hash));
}

static inline void pair_begin(struct pair *p)
{
    assert_true(ntlm_server_init(&p->server, &p->server_options));
    assert_int_equal(ntlm_client_init(&p->client, &p->client_options, NULL), 0);
}

static inline void pair_end(struct pair *p)
{
    ntlm_server_done(&p->server);
    ntlm_client_done(&p->client);
}

/* Up to the proof. */
static inline enum ntlm_action pair_talk(struct pair *p)
{
    struct str token, response;
    struct err err = { 0 };
    assert_int_equal(ntlm_server_step(&p->server, ntlm_client_first(&p->client), &token), NTLM_CHALLENGE);
    int rc = ntlm_client_step(&p->client, token, &response, &err);
    if (rc < 0)
        print_error("%s\n", err.text);
    assert_int_equal(rc, 0);
    return ntlm_server_step(&p->server, response, &token);
}

static inline enum ntlm_action pair_verify(struct pair *p)
{
    unsigned char key[NTLM_HASH_BYTES];
    int rc = ntlm_crypto_check(ntlm_server_proof(&p->server), p->nt_hash, key, NULL);
    return ntlm_server_verified(&p->server, rc == 1 ? NTLM_RIGHT : NTLM_WRONG, key);
}

/* The whole exchange: NTLM_CAUSE_NONE when it succeeds. */
static inline enum ntlm_cause pair_run(struct pair *p)
{
    pair_begin(p);
    enum ntlm_action action = pair_talk(p);
    if (action == NTLM_CHECK)
        action = pair_verify(p);
    enum ntlm_cause cause = ntlm_server_cause(&p->server);
    assert_int_equal(action, cause == NTLM_CAUSE_NONE ? NTLM_DONE : NTLM_FAILED);
    return cause;
}
