#include "vm/sandbox.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CALL(name) SCMP_SYS(name)

/* ---- the list ---- */

/* Whatever the arguments are. A subsystem that needs more adds its group here. */
/* clang-format off */
static const int always[] = {
    /* every thread: locks, scheduling, its end */
    CALL(futex), CALL(set_robust_list), CALL(rseq), CALL(set_tid_address), CALL(sched_yield),
    CALL(sched_getaffinity), CALL(gettid), CALL(getpid), CALL(exit), CALL(exit_group), CALL(restart_syscall),
    CALL(membarrier),
    /* signals: the kick, those that end the machine */
    CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(sigaltstack),
    /* memory: the allocator, thread stacks, RAM given back at a reset (mmap and mprotect: without PROT_EXEC, below) */
    CALL(brk), CALL(munmap), CALL(mremap), CALL(madvise),
    /* time */
    CALL(clock_gettime), CALL(clock_getres), CALL(clock_nanosleep), CALL(nanosleep), CALL(gettimeofday), CALL(time),
    /* files and terminals that are open: console, trace, kernel images, disks (ioctl: below) */
    CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64), CALL(preadv), CALL(pwritev),
    CALL(preadv2), CALL(pwritev2), CALL(lseek), CALL(close), CALL(fstat), CALL(newfstatat), CALL(stat), CALL(lstat),
    CALL(statx), CALL(fcntl), CALL(fsync), CALL(fdatasync), CALL(fallocate), CALL(ftruncate), CALL(sync_file_range),
    CALL(fadvise64), CALL(flock), CALL(access), CALL(faccessat), CALL(readlink), CALL(readlinkat), CALL(getcwd),
    /* a UNIX socket's name goes when the machine does */
    CALL(unlink), CALL(unlinkat),
    /* waiting */
    CALL(poll), CALL(ppoll), CALL(select), CALL(pselect6), CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait),
    CALL(epoll_pwait), CALL(epoll_pwait2), CALL(eventfd2), CALL(timerfd_create), CALL(timerfd_settime),
    CALL(timerfd_gettime), CALL(signalfd4), CALL(pipe2),
    /* disks: the ring is set up before, its buffers are registered as they come */
    CALL(io_uring_enter), CALL(io_uring_register),
    /* networks and remote disks: a guest's connections through the user-mode network stack, NBD, console sockets */
    CALL(socket), CALL(connect), CALL(bind), CALL(listen), CALL(accept), CALL(accept4), CALL(shutdown),
    CALL(sendto), CALL(recvfrom), CALL(sendmsg), CALL(recvmsg), CALL(sendmmsg), CALL(recvmmsg), CALL(getsockopt),
    CALL(setsockopt), CALL(getsockname), CALL(getpeername), CALL(socketpair),
    /* children that were started before: their end is waited for */
    CALL(wait4), CALL(waitid), CALL(pidfd_open), CALL(pidfd_send_signal),
    /* what the C library asks of the host by the way */
    CALL(getrandom), CALL(uname), CALL(sysinfo), CALL(getrusage), CALL(getuid), CALL(geteuid), CALL(getgid),
    CALL(getegid), CALL(getdents64),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    /* the sanitizers' own: the leak check stops all threads from a process of its own */
    CALL(ptrace), CALL(clone), CALL(prctl), CALL(process_vm_readv), CALL(kill), CALL(tkill), CALL(getppid),
    CALL(mprotect), CALL(mmap), CALL(setitimer), CALL(personality), CALL(getdents),
#endif
};
/* clang-format on */

/* Only with these arguments. */
struct rule {
    int call;
    unsigned n;
    struct scmp_arg_cmp arg[2];
};

/* clang-format off */
#define IS(i, v)         {(i), SCMP_CMP_EQ, (v), 0}
#define IS_NOT(i, v)     {(i), SCMP_CMP_NE, (v), 0}
#define BITS(i, mask, v) {(i), SCMP_CMP_MASKED_EQ, (mask), (v)}
/* clang-format on */

static int add_always(scmp_filter_ctx f)
{
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(always) && !rc; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, always[i], 0);
    return rc;
}

static int add_limited(scmp_filter_ctx f)
{
    const struct rule rules[] = {
        /* more threads, no processes: CLONE_THREAD or nothing */
        {CALL(clone), 1, {BITS(0, CLONE_THREAD, CLONE_THREAD)}},
        {CALL(prctl), 1, {IS(0, PR_SET_NAME)}},
        {CALL(tgkill), 1, {IS(0, (scmp_datum_t)getpid())}},
        /* memory that can be executed is not had any more */
        {CALL(mmap), 1, {BITS(2, PROT_EXEC, 0)}},
        {CALL(mprotect), 1, {BITS(2, PROT_EXEC, 0)}},
        /* files are read (the kernel, at a guest's reset; the C library's own), not written or made */
        {CALL(openat), 1, {BITS(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)}},
        {CALL(open), 1, {BITS(1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)}},
        /* KVM and terminals; but nothing is typed into somebody else's */
        {CALL(ioctl), 1, {IS_NOT(1, TIOCSTI)}},
        {CALL(prlimit64), 1, {IS(2, 0)}},
        {CALL(getrlimit), 0, {{0}}},
    };
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(rules) && !rc; i++)
        rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, rules[i].call, rules[i].n, rules[i].arg);
    /* clone3's flags are out of a filter's sight: the C library then takes clone */
    return rc ? rc : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);
}

/* ---- refusals ---- */

static void refuse(void *ucontext)
{
    ucontext_t *u = ucontext;
    u->uc_mcontext.gregs[REG_RAX] = -EPERM;
}

static void refuse_silently(int sig, siginfo_t *info, void *ucontext)
{
    refuse(ucontext);
}

static int catch_refusals(void (*fn)(int, siginfo_t *, void *))
{
    struct sigaction a = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO};
    return sigaction(SIGSYS, &a, NULL) ? -errno : 0;
}

/* Only what a signal handler may do. That the first one has been told is known by which handler is installed. */
static void refuse_and_tell(int sig, siginfo_t *info, void *ucontext)
{
    static const char head[] = "hecaton: the sandbox refused system call ";
    static const char tail[] = ", and will refuse others silently; -sandbox off lifts it, if this was no attack\n";
    char line[sizeof head + sizeof tail + 12], digit[12];
    unsigned n = (unsigned)info->si_syscall, at = sizeof head - 1, d = 0;
    catch_refusals(refuse_silently);
    memcpy(line, head, at);
    do
        digit[d++] = (char)('0' + n % 10);
    while ((n /= 10) && d < sizeof digit);
    while (d)
        line[at++] = digit[--d];
    memcpy(line + at, tail, sizeof tail - 1);
    int saved = errno;
    (void)!write(2, line, at + sizeof tail - 1);
    errno = saved;
    refuse(ucontext);
}

/* ---- entering ---- */

static int build(scmp_filter_ctx f)
{
    int rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    rc = rc ? rc : seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    rc = rc ? rc : add_always(f);
    rc = rc ? rc : add_limited(f);
    /* what a vCPU's exits ask for comes first */
    rc = rc ? rc : seccomp_syscall_priority(f, CALL(ioctl), UINT8_MAX);
    return rc ? rc : seccomp_syscall_priority(f, CALL(futex), UINT8_MAX - 1);
}

int sandbox_enter(struct err *e)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
    if (!f)
        return err_set(e, -ENOMEM, "out of memory for the sandbox");
    int rc = build(f);
    rc = rc ? rc : catch_refusals(refuse_and_tell);
    rc = rc ? rc : seccomp_load(f);
    seccomp_release(f);
    return rc ? err_set(e, rc, "cannot enter the sandbox (seccomp): %s: -sandbox off does without", strerror(-rc)) : 0;
}
