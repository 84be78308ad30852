/* Order matters: the root folder needs privilege; the user change gives it up; no-new-privileges lets an
 * ordinary user load the rest; seccomp comes last because it forbids the calls before it.
 *
 * Threads: the C library changes the user of all, seccomp's TSYNC covers all; Landlock holds only the thread that asks
 * for it, so each worker thread does that itself. */
#include "io/sandbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/worker.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_SANITIZED 1 /* the sanitizers' runtime makes calls that the filter does not know */
#else
#define SANDBOX_SANITIZED 0
#endif

void sandbox_allow(struct sandbox *sandbox, enum sandbox_right right, const char *path)
{
    char *copy = path && sandbox->n_paths < SANDBOX_PATHS_MAX ? str_dup(str_of(path)) : NULL;
    if (!copy)
        return;
    sandbox->path[sandbox->n_paths].path = copy;
    sandbox->path[sandbox->n_paths++].right = right;
}

void sandbox_done(struct sandbox *sandbox)
{
    for (size_t i = 0; i < sandbox->n_paths; i++)
        free((char *)(uintptr_t)sandbox->path[i].path);
    sandbox->n_paths = 0;
}

void sandbox_not_dumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* A removed folder: empty, and nothing can ever be put into it. */
static int enter_empty_root(struct err *err)
{
    char path[] = "/tmp/postern-root-XXXXXX";
    if (!mkdtemp(path))
        return err_errno(err, errno, "cannot make an empty folder under /tmp for the role's root");
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc = fd >= 0 ? 0 : err_errno(err, errno, "cannot open %s", path);
    if (rmdir(path) != 0 && rc == 0)
        rc = err_errno(err, errno, "cannot remove %s", path);
    if (rc == 0 && (fchdir(fd) != 0 || chroot(".") != 0))
        rc = err_errno(err, errno, "cannot make an empty folder the root of the role");
    if (fd >= 0)
        close(fd);
    return rc;
}

/* What even a program that root owns and everybody may run as root could not win back. */
static void drop_bounding_set(void)
{
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* fails on those that this kernel does not know */
}

/* The user is looked up before the root folder changes, and taken on after it. */
static int drop_root(const struct sandbox *sandbox, struct err *err)
{
    if (!sandbox->user)
        return err_set(err, ERR_CONFIG, "no user given for this role, and no role runs as root");
    const struct passwd *pw = getpwnam(sandbox->user);
    if (!pw)
        return err_set(err, ERR_CONFIG, "there is no user %s; run: postern setup", sandbox->user);
    if (pw->pw_uid == 0)
        return err_set(err, ERR_CONFIG, "user %s is uid 0; no role runs as root. Choose another user", sandbox->user);
    gid_t gid = pw->pw_gid;
    uid_t uid = pw->pw_uid;
    if (initgroups(sandbox->user, gid) != 0)
        return err_errno(err, errno, "cannot take on the groups of user %s", sandbox->user);
    if (sandbox->empty_root) {
        int rc = enter_empty_root(err);
        if (rc < 0)
            return rc;
    }
    drop_bounding_set();
    if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
        return err_errno(err, errno, "cannot become user %s", sandbox->user);
    return 0;
}

static int landlock_abi(void)
{
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static int landlock_add(int ruleset, const char *path, enum sandbox_right right, uint64_t handled, struct err *err)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : err_errno(err, errno, "cannot open %s", path);
    uint64_t read_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    uint64_t file_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
#ifdef LANDLOCK_ACCESS_FS_TRUNCATE
    file_rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
#endif
    uint64_t rights = right == SANDBOX_PATH_READ ? read_rights : handled & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE;
    struct landlock_path_beneath_attr attr = { .allowed_access = rights & handled, .parent_fd = fd };
    int rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
    if (rc != 0 && errno == EINVAL) { /* a file, not a folder: only the rights that files have */
        attr.allowed_access &= file_rights;
        rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
    }
    int saved = errno;
    close(fd);
    return rc == 0 ? 0 : err_errno(err, saved, "cannot allow %s in the sandbox", path);
}

/* On each thread. */
static int restrict_thread(void *arg)
{
    const int *ruleset = arg;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_landlock_restrict_self, *ruleset, 0) != 0)
        return -errno;
    return 0;
}

/* How many threads this process has; 0: cannot tell. */
static unsigned count_threads(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/task");
    for (const struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static int close_landlock(const struct sandbox *sandbox, struct buf *missing, struct err *err)
{
    int abi = landlock_abi();
    if (abi < 1) {
        buf_add_c(missing, "this kernel has no Landlock; ");
        return 0;
    }
    uint64_t handled = (1ULL << 13) - 1; /* ABI 1: execute … make_sym */
    if (abi >= 2)
        handled |= LANDLOCK_ACCESS_FS_REFER;
#ifdef LANDLOCK_ACCESS_FS_TRUNCATE
    if (abi >= 3)
        handled |= LANDLOCK_ACCESS_FS_TRUNCATE;
#endif
    struct landlock_ruleset_attr attr = { .handled_access_fs = handled };
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0)
        return err_errno(err, errno, "cannot make a Landlock rule set");
    if (count_threads() > worker_threads() + 1)
        buf_add_c(missing, "a library's own threads are outside of Landlock; ");
    int rc = 0;
    for (size_t i = 0; i < sandbox->n_paths && rc == 0; i++)
        rc = landlock_add(ruleset, sandbox->path[i].path, sandbox->path[i].right, handled, err);
    if (rc == 0) {
        rc = worker_on_every_thread(restrict_thread, &ruleset);
        rc = rc < 0 ? rc : restrict_thread(&ruleset);
        if (rc < 0)
            rc = err_errno(err, -rc, "cannot close the Landlock sandbox");
    }
    close(ruleset);
    return rc;
}

/* Calls of a running role: descriptors, memory, threads, time. */
static const int always[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
    SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(pwritev2), SCMP_SYS(sendfile), SCMP_SYS(copy_file_range),
    SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(sendmmsg),
    SCMP_SYS(recvmmsg), SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(listen), SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(close), SCMP_SYS(close_range), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(fcntl),
    SCMP_SYS(ioctl), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(fstatfs),
    SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(flock),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_create1), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
    SCMP_SYS(eventfd2), SCMP_SYS(pipe2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
    SCMP_SYS(getegid), SCMP_SYS(getgroups), SCMP_SYS(getrandom), SCMP_SYS(getrusage), SCMP_SYS(getcpu), SCMP_SYS(uname), SCMP_SYS(sysinfo),
    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mprotect),
    SCMP_SYS(mlock), SCMP_SYS(munlock), SCMP_SYS(msync), SCMP_SYS(membarrier),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigpending),
    SCMP_SYS(sigaltstack), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(wait4), SCMP_SYS(memfd_create),
};
/* Refused with EPERM unless the role may, as is everything that no table names: libraries try and cope. */
static const int opening[] = {
    SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(access),
    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64),
    SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(rmdir), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rename),
    SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(link), SCMP_SYS(linkat), SCMP_SYS(chmod), SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat), SCMP_SYS(fchown), SCMP_SYS(fchownat), SCMP_SYS(utimensat), SCMP_SYS(getcwd), SCMP_SYS(statfs),
    SCMP_SYS(truncate), SCMP_SYS(fadvise64), SCMP_SYS(umask), SCMP_SYS(syncfs), SCMP_SYS(sync_file_range),
};
static const int connecting[] = { SCMP_SYS(socket), SCMP_SYS(connect), SCMP_SYS(bind) };
/* What nothing here ever calls, and an intruder would: the end of the process. */
static const int deadly[] = {
    SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(mount), SCMP_SYS(umount2),
    SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(setns), SCMP_SYS(unshare), SCMP_SYS(bpf), SCMP_SYS(userfaultfd),
    SCMP_SYS(perf_event_open), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(add_key), SCMP_SYS(keyctl),
    SCMP_SYS(request_key), SCMP_SYS(setuid), SCMP_SYS(setgid), SCMP_SYS(setreuid), SCMP_SYS(setregid),
    SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(setgroups), SCMP_SYS(capset), SCMP_SYS(personality),
    SCMP_SYS(open_by_handle_at), SCMP_SYS(name_to_handle_at), SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(iopl),
    SCMP_SYS(ioperm), SCMP_SYS(modify_ldt), SCMP_SYS(acct), SCMP_SYS(quotactl), SCMP_SYS(syslog),
};

static int add_rules(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = seccomp_rule_add(ctx, action, calls[i], 0);
    return rc;
}

#define CALLS(table) table, sizeof table / sizeof table[0]

static int close_seccomp(const struct sandbox *sandbox, struct err *err)
{
    /* What no table names is refused, not deadly: a tracer that makes a call fail (the tests of failing syncs) shows
     * the filter a call of number -1, and a newer C library may try calls that did not exist when this was written. */
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!ctx)
        return err_set(err, -ENOMEM, "out of memory for the system call filter");
    /* Threads on all cores: the filter covers those that were made before it. */
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0)
        (void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree; older kernels decline */
    if (rc == 0)
        rc = add_rules(ctx, SCMP_ACT_ALLOW, CALLS(always));
    if (rc == 0)
        rc = add_rules(ctx, SCMP_ACT_KILL_PROCESS, CALLS(deadly));
    if (rc == 0 && sandbox->may_open)
        rc = add_rules(ctx, SCMP_ACT_ALLOW, CALLS(opening));
    if (rc == 0 && sandbox->may_connect)
        rc = add_rules(ctx, SCMP_ACT_ALLOW, CALLS(connecting));
    /* abort() and the C library signal our own threads only; roles of an ordinary user share one uid. */
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A0(SCMP_CMP_EQ, 0));
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(err, -rc, "cannot load the system call filter");
}

int sandbox_drop(const struct sandbox *sandbox, char *ret_missing, size_t missing_bytes, struct err *err)
{
    struct buf missing;
    buf_init(&missing, 512);
    int rc = 0;
    if (geteuid() == 0)
        rc = drop_root(sandbox, err);
    else
        buf_add_c(&missing, "not started as root: all roles run as this user, without an empty root folder; ");
    if (SANDBOX_SANITIZED)
        buf_add_c(&missing, "built with a sanitizer: no system call filter; ");
    if (rc == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        rc = err_errno(err, errno, "cannot set no-new-privileges");
    if (rc == 0)
        rc = close_landlock(sandbox, &missing, err);
    sandbox_not_dumpable(); /* changing the user has set it back */
    if (ret_missing)
        str_copy(str_trim(buf_str(&missing)), ret_missing, missing_bytes);
    buf_done(&missing);
    return rc;
}

int sandbox_filter(const struct sandbox *sandbox, struct err *err)
{
    return SANDBOX_SANITIZED ? 0 : close_seccomp(sandbox, err);
}
