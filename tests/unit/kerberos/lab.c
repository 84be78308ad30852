#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kerberos/keytab_file.h"
#include "lab.h"

long lab_clock_offset_s;

/* libkrb5 asks the time with these two; the program's own definitions come before libc's, where a library can see them. */
__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    *now = (struct timeval){ exact.tv_sec + lab_clock_offset_s, exact.tv_nsec / 1000 };
    return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *ret_now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (ret_now)
        *ret_now = exact.tv_sec + lab_clock_offset_s;
    return exact.tv_sec + lab_clock_offset_s;
}

const char *lab_path(const char *name)
{
    static char paths[8][300];
    static unsigned turn;
    const char *folder = getenv("LAB_MIT");
    assert_non_null(folder); /* run it below tests/lab/mit with DIR */
    char *path = paths[turn++ % 8];
    assert_true(snprintf(path, sizeof *paths, "%s/%s", folder, name) < (int)sizeof *paths);
    return path;
}

void lab_kadmin(const char *fmt, ...)
{
    char commands[2048];
    int in[2], status;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(commands, sizeof commands, fmt, args);
    va_end(args);
    assert_true(n > 0 && (size_t)n < sizeof commands);
    assert_int_equal(pipe(in), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(in[0], 0);
        close(in[0]);
        close(in[1]);
        execl(getenv("LAB_MIT_COMMAND"), "mit", "kadmin", getenv("LAB_MIT"), (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    assert_int_equal(write(in[1], commands, (size_t)n), n);
    close(in[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

struct krb_keytab *lab_keytab(const char *name)
{
    struct krb_keytab *keytab;
    struct err err = { 0 };
    int fd = open(lab_path(name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    if (krb_keytab_load_fd(fd, name, &keytab, NULL, &err) < 0)
        fail_msg("%s", err.text);
    close(fd);
    return keytab;
}

static void put(struct buf *b, uint32_t v, unsigned octets)
{
    while (octets-- > 0)
        buf_add_char(b, (char)(v >> (8 * octets)));
}

static void put_counted(struct buf *b, struct str s)
{
    put(b, (uint32_t)s.n, 2);
    buf_add(b, s);
}

static void put_entry(struct buf *file, const struct keytab_file_entry *entry, bool spoil)
{
    struct buf b;
    buf_init(&b, 4096);
    put(&b, entry->n_parts, 2);
    put_counted(&b, entry->realm);
    for (unsigned i = 0; i < entry->n_parts; i++)
        put_counted(&b, entry->part[i]);
    put(&b, (uint32_t)entry->name_type, 4);
    put(&b, entry->timestamp_s, 4);
    put(&b, entry->kvno & 0xff, 1);
    put(&b, (uint32_t)entry->enctype, 2);
    put_counted(&b, entry->key);
    if (spoil)
        b.p[b.n - 1] ^= 1;
    put(&b, entry->kvno, 4);
    assert_false(b.failed);
    put_counted(file, STR_NONE);
    put_counted(file, buf_str(&b)); /* together a length of 32 bits */
    buf_done(&b);
}

struct krb_keytab *lab_keytab_changed(const char *name, int32_t only_enctype, uint32_t kvno, bool spoil)
{
    char octets[16384];
    struct keytab_file reader;
    struct keytab_file_entry entry;
    struct krb_keytab *keytab;
    struct buf changed;
    struct err err = { 0 };
    int fd = open(lab_path(name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, octets, sizeof octets);
    assert_true(n > 0 && n < (ssize_t)sizeof octets);
    close(fd);
    assert_int_equal(keytab_file_open(str_slice(octets, (size_t)n), &reader, &err), 0);
    buf_init(&changed, 65536);
    put(&changed, 0x0502, 2);
    while (keytab_file_next(&reader, &entry, &err) > 0) {
        if (only_enctype && entry.enctype != only_enctype)
            continue;
        if (kvno)
            entry.kvno = kvno;
        put_entry(&changed, &entry, spoil);
    }
    if (krb_keytab_load(buf_str(&changed), name, &keytab, NULL, &err) < 0)
        fail_msg("%s", err.text);
    buf_wipe(&changed);
    return keytab;
}

struct krb_acceptor *lab_acceptor(const struct krb_keytab *keytab)
{
    char rcache[320];
    struct krb_failure failure;
    struct krb_acceptor *acceptor;
    snprintf(rcache, sizeof rcache, "file2:%s", lab_path("rcache"));
    struct krb_acceptor_options options = { .keytab = keytab, .rcache = rcache };
    if (krb_acceptor_new(&options, &acceptor, &failure) < 0)
        fail_msg("%s: %s", failure.major_text, failure.minor_text);
    return acceptor;
}

struct krb_initiator *lab_user(const char *principal, const char *password)
{
    struct krb_failure failure;
    struct krb_initiator *initiator;
    struct secret *secret = secret_new(str_of(password));
    struct krb_initiator_options options = { .principal = principal, .password = secret };
    if (krb_initiator_new(&options, &initiator, &failure) < 0)
        fail_msg("%s: %s", krb_cause_word(failure.cause), failure.minor_text);
    secret_free(&secret);
    return initiator;
}

void lab_login(struct krb_initiator *initiator, struct krb_acceptor *acceptor, struct lab_login *login)
{
    struct krb_failure failure;
    struct buf token, answer;
    struct krb_initiate_options initiate = { .target = login->target, .flags = login->flags, .spnego = login->spnego,
                                             .bindings = login->client_bindings };
    struct krb_accept_options accept = { .bindings = login->server_bindings,
                                         .bindings_required = login->bindings_required };
    buf_init(&token, KRB_TOKEN_MAX);
    buf_init(&answer, KRB_TOKEN_MAX);
    buf_init(&login->first, KRB_TOKEN_MAX);
    buf_init(&login->error, KRB_TOKEN_MAX);
    assert_int_equal(krb_initiate_new(initiator, &initiate, &login->client, &failure), 0);
    assert_int_equal(krb_accept_new(acceptor, &accept, &login->server), 0);
    login->client_status = login->server_status = KRB_CONTINUE;
    for (unsigned turn = 0; login->client_status == KRB_CONTINUE || login->server_status == KRB_CONTINUE; turn++) {
        assert_true(turn < 5);
        if (login->client_status == KRB_CONTINUE) {
            buf_clear(&token);
            login->client_status = krb_context_step(login->client, buf_str(&answer), &token);
            if (login->client_status == KRB_FAILED)
                break;
            if (turn == 0)
                buf_add(&login->first, buf_str(&token));
        }
        if (login->server_status == KRB_CONTINUE) {
            buf_clear(&answer);
            login->server_status = krb_context_step(login->server, buf_str(&token), &answer);
            if (login->server_status == KRB_FAILED) {
                buf_add(&login->error, buf_str(&answer));
                break;
            }
        }
    }
    buf_done(&token);
    buf_done(&answer);
}

void lab_login_done(struct lab_login *login)
{
    krb_context_free(&login->client);
    krb_context_free(&login->server);
    buf_done(&login->first);
    buf_done(&login->error);
}

const char *lab_refusal(struct krb_initiator *initiator, struct krb_acceptor *acceptor, const char *target, bool spnego)
{
    struct lab_login login = { .target = target, .flags = KRB_MUTUAL, .spnego = spnego };
    lab_login(initiator, acceptor, &login);
    if (login.client_status == KRB_FAILED)
        fail_msg("the client: %s", krb_context_failure(login.client)->minor_text);
    assert_int_equal(login.server_status, KRB_FAILED);
    print_message("%s: %s\n", krb_cause_word(krb_context_failure(login.server)->cause),
                  krb_context_failure(login.server)->minor_text);
    const char *word = krb_cause_word(krb_context_failure(login.server)->cause);
    lab_login_done(&login);
    return word;
}
