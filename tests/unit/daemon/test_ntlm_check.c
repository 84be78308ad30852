/* Who decides about an NTLM answer, the store or the domain, and what becomes of it. Winbind is played here: its library's
 * functions are wrapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>
#include <unistd.h>
#include <wbclient.h>

#include "daemon/auth/ntlm_check.h"
#include "sasl/ntlm_crypto.h"

enum { ITERATIONS = 4096, MANY = 20 };
static const unsigned char challenge[NTLM_CHALLENGE_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8 };

static struct {
    char folder[64], users[80];
    struct role_ctx ctx;
    struct auth auth;
    struct conf_directory directory;
    struct conf conf;
    struct ntlm_answer answer;
    unsigned n_answers;
    /* What winbind says, and was asked. */
    wbcErr result;
    uint32_t nt_status, user_flags;
    _Atomic unsigned n_asked;
    bool hangs;
    sem_t go_on;
} t;

/* ---- winbind ---- */

struct wbcContext *__wrap_wbcCtxCreate(void);
void __wrap_wbcCtxFree(struct wbcContext *context);
void __wrap_wbcFreeMemory(void *p);
wbcErr __wrap_wbcCtxAuthenticateUserEx(struct wbcContext *context, const struct wbcAuthUserParams *params,
                                       struct wbcAuthUserInfo **ret_info, struct wbcAuthErrorInfo **ret_error);

struct wbcContext *__wrap_wbcCtxCreate(void)
{
    return malloc(1);
}

void __wrap_wbcCtxFree(struct wbcContext *context)
{
    free(context);
}

void __wrap_wbcFreeMemory(void *p)
{
    free(p);
}

wbcErr __wrap_wbcCtxAuthenticateUserEx(struct wbcContext *context, const struct wbcAuthUserParams *params,
                                       struct wbcAuthUserInfo **ret_info, struct wbcAuthErrorInfo **ret_error)
{
    static char account[] = "Alice", domain[] = "CORP", word[] = "NT_STATUS";
    atomic_fetch_add(&t.n_asked, 1);
    if (t.hangs)
        sem_wait(&t.go_on);
    if (WBC_ERROR_IS_OK(t.result)) {
        struct wbcAuthUserInfo *info = calloc(1, sizeof *info);
        *info = (struct wbcAuthUserInfo){ .account_name = account, .domain_name = domain, .user_flags = t.user_flags,
                                          .user_session_key = "0123456789abcde" };
        *ret_info = info;
    } else if (t.result == WBC_ERR_AUTH_ERROR) {
        struct wbcAuthErrorInfo *error = calloc(1, sizeof *error);
        *error = (struct wbcAuthErrorInfo){ .nt_status = t.nt_status, .nt_string = word };
        *ret_error = error;
    }
    return t.result;
}

/* ---- the store ---- */

static void add_user(struct str name, struct str password)
{
    struct users_options options = { .mode = USERS_CREATE, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct users_verifier u = { .salt_bytes = 8, .iterations = ITERATIONS, .nt_hash_bytes = USERS_NT_HASH_BYTES };
    struct users *users;
    assert_true(ntlm_crypto_nt_hash(password, u.nt_hash));
    assert_int_equal(users_open(t.users, &options, &users, NULL), 0);
    assert_int_equal(users_add(users, name, NULL, 0, &u, 1, NULL), 0);
    users_close(&users);
}

static int set_up(void **state)
{
    struct err err = { 0 };
    memset(&t, 0, sizeof t);
    assert_int_equal(ntlm_crypto_init(&err), 0);
    snprintf(t.folder, sizeof t.folder, "/tmp/postern-test-ntlm-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    snprintf(t.users, sizeof t.users, "%s/users.db", t.folder);
    add_user(STR("alice"), STR("of the store"));
    add_user(STR("anna@corp.test"), STR("of the store"));
    t.directory = (struct conf_directory){ .realm = "CORP.TEST", .netbios = "CORP" };
    t.conf = (struct conf){ .users = t.users, .directory = &t.directory, .n_directories = 1 };
    t.ctx.conf = &t.conf;
    t.auth.ctx = &t.ctx;
    t.auth.store = auth_store_new(t.users);
    sem_init(&t.go_on, 0, 0);
    assert_int_equal(loop_new(&t.ctx.loop, &err), 0);
    assert_int_equal(worker_pool_new(t.ctx.loop, "hash", 1, 100, &t.auth.pool, &err), 0);
    assert_int_equal(worker_pool_new(t.ctx.loop, "winbind", NTLM_CHECK_THREADS, 100, &t.auth.winbind_pool, &err), 0);
    return 0;
}

static int tear_down(void **state)
{
    worker_pool_free(&t.auth.pool);
    worker_pool_free(&t.auth.winbind_pool);
    auth_store_unref(&t.auth.store);
    loop_free(&t.ctx.loop);
    sem_destroy(&t.go_on);
    unlink(t.users);
    assert_int_equal(rmdir(t.folder), 0);
    return 0;
}

/* ---- questions ---- */

static void on_answer(void *arg, struct ntlm_answer *answer)
{
    t.answer = *answer;
    t.n_answers++;
}

/* What a client sends: version 2 with a blob that holds nothing but a time, or version 1. */
struct sent {
    struct ntlm_proof proof;
    unsigned char response[NTLM_HASH_BYTES + 32];
};

static void make(struct sent *s, unsigned version, const char *domain, const char *user, const char *password)
{
    unsigned char hash[NTLM_HASH_BYTES], key[NTLM_HASH_BYTES];
    struct str server = str_slice((const char *)challenge, sizeof challenge);
    struct str blob = str_slice((const char *)s->response + NTLM_HASH_BYTES, 32);
    *s = (struct sent){ .proof = { .user = str_of(user), .domain = str_of(domain), .workstation = STR("PC"),
                                   .server_challenge = server, .lm_response = STR(""), .version = version } };
    assert_true(ntlm_crypto_nt_hash(str_of(password), hash));
    if (version == 1) {
        assert_true(ntlm_crypto_response1(hash, server, s->response));
        s->proof.nt_response = str_slice((const char *)s->response, 24);
        return;
    }
    s->response[NTLM_HASH_BYTES] = s->response[NTLM_HASH_BYTES + 1] = 1;
    assert_true(ntlm_crypto_ntowf2(hash, str_of(user), str_of(domain), key));
    assert_true(ntlm_crypto_proof2(key, server, blob, s->response));
    s->proof.nt_response = str_slice((const char *)s->response, sizeof s->response);
}

static struct ntlm_check *begin(unsigned version, const char *domain, const char *user, const char *password)
{
    struct sent sent;
    const char *cause;
    make(&sent, version, domain, user, password);
    struct ntlm_check *check = ntlm_check_ask(&t.auth, &t.conf, &sent.proof, on_answer, NULL, &cause);
    memset(&sent, 0, sizeof sent); /* views of the proof end with the step */
    return check;
}

static const struct ntlm_answer *ask(unsigned version, const char *domain, const char *user, const char *password)
{
    unsigned before = t.n_answers;
    assert_non_null(begin(version, domain, user, password));
    assert_int_equal(t.n_answers, before); /* never from within */
    while (t.n_answers == before)
        loop_run_once(t.ctx.loop, true);
    return &t.answer;
}

static void expect(const struct ntlm_answer *a, enum sasl_verdict verdict, const char *user, const char *cause, bool guess)
{
    assert_int_equal(a->verdict, verdict);
    assert_string_equal(a->user, user);
    assert_string_equal(a->cause ? a->cause : "none", cause);
    assert_int_equal(a->guess, guess);
    assert_int_equal(a->has_key, verdict == SASL_RIGHT);
}

/* The store's alice and the domain's are two: the password shows which one it is, and the name in the answer is of whoever
 * has checked it, whatever domain the client wrote. */
static void store_and_domain_are_kept_apart(void **state)
{
    static const char *const others[] = { "", "STORE", "MAIL" };
    t.result = WBC_ERR_AUTH_ERROR;
    t.nt_status = 0xc000006a;
    for (size_t i = 0; i < 3; i++) {
        expect(ask(2, others[i], "Alice", "of the store"), SASL_RIGHT, "alice", "none", false);
        expect(ask(2, others[i], "alice", "of the domain"), SASL_WRONG, "", "wrong-password", true);
    }
    expect(ask(2, "", "anna@corp.test", "of the store"), SASL_RIGHT, "anna@corp.test", "none", false);
    assert_int_equal(t.n_asked, 0);
    /* In the domain's name the store's password is worth nothing. */
    expect(ask(2, "CORP", "alice", "of the store"), SASL_WRONG, "", "wrong-password", true);
    expect(ask(2, "corp.test", "alice", "of the store"), SASL_WRONG, "", "wrong-password", true);
    assert_int_equal(t.n_asked, 2);
    t.result = WBC_ERR_SUCCESS;
    expect(ask(2, "corp", "alice", "x"), SASL_RIGHT, "CORP\\Alice", "none", false);
    assert_true(t.answer.by_winbind);
    expect(ask(2, "ELSEWHERE", "bob", "x"), SASL_RIGHT, "CORP\\Alice", "none", false); /* as the domain spells it */
}

static void version_1_is_the_stores_alone(void **state)
{
    t.result = WBC_ERR_SUCCESS;
    expect(ask(1, "CORP", "alice", "of the store"), SASL_RIGHT, "alice", "none", false);
    expect(ask(1, "", "alice", "wrong"), SASL_WRONG, "", "wrong-password", true);
    expect(ask(1, "CORP", "bob", "x"), SASL_UNKNOWN_USER, "", "no-such-user", true);
    assert_int_equal(t.n_asked, 0);
}

static void a_guest_is_nobody(void **state)
{
    t.result = WBC_ERR_SUCCESS;
    t.user_flags = WBC_AUTH_USER_INFO_GUEST;
    expect(ask(2, "CORP", "whoever", "x"), SASL_UNKNOWN_USER, "", "no-such-user", true);
}

static void what_the_domain_says(void **state)
{
    static const struct {
        uint32_t nt_status;
        const char *cause;
        enum sasl_verdict verdict;
        bool guess;
    } rows[] = {
        { 0xc0000064, "no-such-user", SASL_UNKNOWN_USER, true }, { 0xc000006d, "wrong-password", SASL_WRONG, true },
        { 0xc0000072, "account-disabled", SASL_WRONG, false },   { 0xc0000224, "password-must-change", SASL_WRONG, false },
        { 0xc000018b, "winbind-no-trust", SASL_CANNOT_TELL, false }, { 0xc00000b5, "no-logon-server", SASL_CANNOT_TELL, false },
        { 0xc0000022, "winbind-failed", SASL_CANNOT_TELL, false },   { 0xc0000999, "winbind-refused", SASL_WRONG, false },
    };
    t.result = WBC_ERR_AUTH_ERROR;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        t.nt_status = rows[i].nt_status;
        expect(ask(2, "CORP", "bob", "x"), rows[i].verdict, "", rows[i].cause, rows[i].guess);
    }
    t.result = WBC_ERR_UNKNOWN_FAILURE;
    expect(ask(2, "CORP", "bob", "x"), SASL_CANNOT_TELL, "", "winbind-failed", false);
    /* Without winbind nobody can tell about the domain's users; any other name is nobody's. */
    t.result = WBC_ERR_WINBIND_NOT_AVAILABLE;
    assert_int_equal(ask(2, "CORP", "bob", "x")->verdict, SASL_CANNOT_TELL);
    expect(ask(2, "", "bob", "x"), SASL_UNKNOWN_USER, "", "no-such-user", true);
}

static void a_store_that_cannot_be_read(void **state)
{
    unlink(t.users);
    expect(ask(1, "", "alice", "of the store"), SASL_CANNOT_TELL, "", "store-failed", false);
    t.result = WBC_ERR_SUCCESS;
    expect(ask(2, "", "alice", "x"), SASL_RIGHT, "CORP\\Alice", "none", false);
}

/* Dropped in the store's pool, on the way between the pools, and in winbind's. */
static void dropped_at_any_time(void **state)
{
    struct ntlm_check *check;
    t.result = WBC_ERR_SUCCESS;
    for (int turns = 0; turns < 3; turns++) {
        check = begin(2, turns ? "ELSEWHERE" : "CORP", "bob", "x");
        for (int i = 0; i < turns; i++)
            loop_run_once(t.ctx.loop, false);
        ntlm_check_drop(&check);
        assert_null(check);
    }
    unsigned before = t.n_answers;
    ask(2, "CORP", "bob", "x");
    assert_int_equal(t.n_answers, before + 1);
    ntlm_check_drop(&check); /* NULL is fine */
}

/* All threads hang: who asks gets an answer in time, and while they are lost the next ones at once, with the reason. */
static void a_silent_winbind(void **state)
{
    struct ntlm_check *dropped;
    struct sent sent;
    const char *cause = NULL;
    t.result = WBC_ERR_SUCCESS;
    t.hangs = true;
    dropped = begin(2, "CORP", "bob", "x");
    for (int i = 0; i < NTLM_CHECK_THREADS; i++)
        assert_non_null(begin(2, "CORP", "bob", "x"));
    ntlm_check_drop(&dropped);
    while (t.n_answers < NTLM_CHECK_THREADS)
        loop_run_once(t.ctx.loop, true);
    expect(&t.answer, SASL_CANNOT_TELL, "", "winbind-silent", false);
    make(&sent, 2, "CORP", "bob", "x");
    assert_null(ntlm_check_ask(&t.auth, &t.conf, &sent.proof, on_answer, NULL, &cause));
    assert_string_equal(cause, "winbind-silent");
    expect(ask(2, "", "alice", "of the store"), SASL_RIGHT, "alice", "none", false); /* the store goes on */
    expect(ask(2, "", "bob", "x"), SASL_CANNOT_TELL, "", "winbind-silent", false);
    for (int i = 0; i < MANY; i++)
        sem_post(&t.go_on);
    while (t.auth.n_winbind_lost)
        loop_run_once(t.ctx.loop, true);
    assert_int_equal(t.n_answers, NTLM_CHECK_THREADS + 2);
    expect(ask(2, "CORP", "bob", "x"), SASL_RIGHT, "CORP\\Alice", "none", false);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(store_and_domain_are_kept_apart), IN_FOLDER(version_1_is_the_stores_alone),
        IN_FOLDER(a_guest_is_nobody),               IN_FOLDER(what_the_domain_says),
        IN_FOLDER(a_store_that_cannot_be_read),     IN_FOLDER(dropped_at_any_time),
        IN_FOLDER(a_silent_winbind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
