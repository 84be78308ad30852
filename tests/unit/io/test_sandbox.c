/* The sandbox, each time in a child process: what a role may not do fails, what it needs goes on working, on the main
 * thread and on worker threads alike. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/sandbox.h"
#include "io/worker.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { FILTERED = 0 };
#else
enum { FILTERED = 1 };
#endif

static char folder[] = "/tmp/postern-test-sandbox-XXXXXX";
static bool has_landlock; /* asked before the sandbox forbids to ask */
static char inside[128], inside_file[160], outside_file[160];

static int make_folder(void **state)
{
    (void)state;
    has_landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* version */) >= 1;
    if (!mkdtemp(folder) || chmod(folder, 0755) != 0)
        return -1;
    snprintf(inside, sizeof inside, "%s/inside", folder);
    snprintf(inside_file, sizeof inside_file, "%s/file", inside);
    snprintf(outside_file, sizeof outside_file, "%s/outside", folder);
    if (mkdir(inside, 0777) != 0 || chmod(inside, 0777) != 0)
        return -1;
    int fd = open(outside_file, O_CREAT | O_WRONLY, 0644);
    return fd < 0 ? -1 : close(fd);
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(inside_file);
    unlink(outside_file);
    rmdir(inside);
    return rmdir(folder);
}

/* Runs `body` in a child. It returns 0, or the number of the line whose claim did not hold. */
static void in_child(int (*body)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define CLAIM(what) \
    do { \
        if (!(what)) { \
            dprintf(2, "line %d: %s does not hold (errno %d)\n", __LINE__, #what, errno); \
            return 1; \
        } \
    } while (0)

static int sandbox_close(const struct sandbox *s, char *ret_missing, size_t bytes, struct err *err)
{
    int rc = sandbox_drop(s, ret_missing, bytes, err);
    return rc == 0 ? sandbox_filter(s, err) : rc;
}

static struct sandbox of_this_user(void)
{
    /* Started as root, some user must be taken on; nobody exists everywhere. */
    return (struct sandbox){ .user = "nobody" };
}

static int opens(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int closed_role(void)
{
    struct sandbox s = of_this_user();
    char missing[256];
    bool root = geteuid() == 0;
    s.empty_root = root;
    CLAIM(sandbox_close(&s, missing, sizeof missing, NULL) == 0);
    CLAIM(getuid() != 0 && geteuid() != 0);
    CLAIM(root || missing[0]);
    CLAIM(!FILTERED || opens(outside_file, O_RDONLY) == -EPERM);
    CLAIM(opens(outside_file, O_RDONLY) < 0 || !(root || has_landlock));
    CLAIM(!FILTERED || (socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == EPERM));
    CLAIM(!FILTERED || (fork() == -1 && errno == EPERM));
    char *const argv[] = { NULL };
    CLAIM(!FILTERED || (execv("/bin/true", argv) == -1 && errno == EPERM));
    CLAIM(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == -1 || !FILTERED);
    return 0;
}

static void test_closed_role(void **state)
{
    (void)state;
    in_child(closed_role);
}

static int paths_hold(void)
{
    struct sandbox s = of_this_user();
    s.may_open = true;
    sandbox_allow(&s, SANDBOX_PATH_WRITE, inside);
    sandbox_allow(&s, SANDBOX_PATH_READ, "/nonexistent/and/left/out");
    CLAIM(sandbox_close(&s, NULL, 0, NULL) == 0);
    CLAIM(opens(inside_file, O_WRONLY | O_CREAT) == 0);
    CLAIM(opens(inside_file, O_RDONLY) == 0);
    CLAIM(opens(outside_file, O_RDONLY) == (has_landlock ? -EACCES : 0));
    CLAIM(unlink(inside_file) == 0);
    return 0;
}

static void test_paths_hold(void **state)
{
    (void)state;
    in_child(paths_hold);
}

struct opening {
    struct worker_job job;
    struct loop *loop;
    int outside_rc, inside_rc;
};

static void open_both(struct worker_job *job)
{
    struct opening *o = (struct opening *)job;
    o->outside_rc = opens(outside_file, O_RDONLY);
    o->inside_rc = opens(inside_file, O_WRONLY | O_CREAT);
}

static void opened(struct worker_job *job)
{
    loop_stop(((struct opening *)job)->loop);
}

/* Threads that were made before the sandbox closed are in it as well. */
static int threads_are_inside(void)
{
    struct loop *loop;
    struct worker_pool *pool;
    CLAIM(loop_new(&loop, NULL) == 0);
    CLAIM(worker_pool_new(loop, "test", 3, 8, &pool, NULL) == 0);
    struct sandbox s = of_this_user();
    s.may_open = true;
    sandbox_allow(&s, SANDBOX_PATH_WRITE, inside);
    char missing[256];
    CLAIM(sandbox_close(&s, missing, sizeof missing, NULL) == 0);
    CLAIM(!strstr(missing, "threads"));
    for (int i = 0; i < 6; i++) {
        struct opening o = { .job = { .work = open_both, .done = opened }, .loop = loop };
        CLAIM(worker_submit(pool, &o.job) == 0);
        loop_run(loop);
        CLAIM(o.outside_rc == (has_landlock ? -EACCES : 0));
        CLAIM(o.inside_rc == 0);
    }
    worker_pool_free(&pool);
    loop_free(&loop);
    return 0;
}

static void test_threads_are_inside(void **state)
{
    (void)state;
    in_child(threads_are_inside);
}

static int no_user(void)
{
    struct err err = { 0 };
    struct sandbox s = { .user = "no-such-user-of-postern" };
    if (geteuid() == 0) {
        CLAIM(sandbox_close(&s, NULL, 0, &err) == ERR_CONFIG);
        CLAIM(strstr(err.text, "postern setup"));
        s.user = "root";
        CLAIM(sandbox_close(&s, NULL, 0, &err) == ERR_CONFIG);
        s.user = NULL;
        CLAIM(sandbox_close(&s, NULL, 0, &err) == ERR_CONFIG);
    } else {
        CLAIM(sandbox_close(&s, NULL, 0, &err) == 0);
    }
    return 0;
}

static void test_no_role_as_root(void **state)
{
    (void)state;
    in_child(no_user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_role),
        cmocka_unit_test(test_paths_hold),
        cmocka_unit_test(test_threads_are_inside),
        cmocka_unit_test(test_no_role_as_root),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
