/* The sandbox, each time in a process of its own: what it is left with, and what it is told. */
#include "vm/sandbox.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NO_SANDBOX = 77 };

/* What `body` answers and what it leaves on standard error, in a process of its own. */
struct outcome {
    int status;
    char said[4096];
};

static struct outcome run(int (*body)(void))
{
    struct outcome o = {.status = -1};
    int p[2];
    assert_int_equal(pipe(p), 0);
    pid_t pid = fork();
    if (!pid) {
        struct err e = {{0}};
        dup2(p[1], 2);
        close(p[0]);
        close(p[1]);
        _exit(body ? body() : sandbox_enter(&e) ? NO_SANDBOX : 0);
    }
    close(p[1]);
    size_t n = 0;
    for (ssize_t got; n < sizeof o.said - 1 && (got = read(p[0], o.said + n, sizeof o.said - 1 - n)) > 0;)
        n += (size_t)got;
    close(p[0]);
    assert_int_equal(waitpid(pid, &o.status, 0), pid);
    return o;
}

static void enter(void)
{
    struct err e = {{0}};
    if (sandbox_enter(&e))
        _exit(NO_SANDBOX);
}

static unsigned lines(const char *s)
{
    unsigned n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

/* ---- refused ---- */

#define REFUSED(call)                                                                                                  \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        if ((long)(call) != -1 || errno != EPERM)                                                                      \
            return __LINE__ % 250 + 1;                                                                                 \
    } while (0)

static int forbidden(void)
{
    char *argv[] = {"/bin/true", NULL};
    enter();
    REFUSED(execve("/bin/true", argv, argv));
    REFUSED(syscall(SYS_fork));
    REFUSED(syscall(SYS_vfork));
    REFUSED(syscall(SYS_open, "/tmp/hecaton-sandbox-test", O_CREAT | O_RDWR, 0600));
    REFUSED(open("/dev/null", O_WRONLY));
    REFUSED(open("/dev/null", O_RDWR));
    REFUSED(rename("/nowhere/a", "/nowhere/b"));
    REFUSED(mkdir("/nowhere/a", 0700));
    REFUSED(chmod("/nowhere/a", 0700));
    REFUSED(setuid(getuid()));
    REFUSED(syscall(SYS_mount, "a", "/nowhere", "b", 0, NULL));
    REFUSED(syscall(SYS_bpf, 0, NULL, 0));
    REFUSED(syscall(SYS_keyctl, 0, 0));
    REFUSED(syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0));
    REFUSED(syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0));
    REFUSED(syscall(SYS_io_uring_setup, 8, NULL));
    REFUSED(syscall(SYS_tgkill, 1, 1, 0));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    REFUSED(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL));
    REFUSED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    REFUSED(kill(getpid(), 0));
    REFUSED(prctl(PR_SET_DUMPABLE, 1));
    REFUSED(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#endif
    return 0;
}

static void what_is_not_listed_is_refused_and_told_once(void **state)
{
    struct outcome o = run(forbidden);
    assert_true(WIFEXITED(o.status));
    if (WEXITSTATUS(o.status))
        print_message("line %d (mod 250)\n", WEXITSTATUS(o.status) - 1);
    assert_int_equal(WEXITSTATUS(o.status), 0);
    assert_int_equal(lines(o.said), 1);
    char number[16];
    snprintf(number, sizeof number, "call %d,", SYS_execve);
    assert_non_null(strstr(o.said, number));
    assert_non_null(strstr(o.said, "-sandbox off"));
}

/* ---- allowed ---- */

static void *thread(void *arg)
{
    prctl(PR_SET_NAME, "CPU 12/KVM");
    atomic_store((atomic_int *)arg, 1);
    return NULL;
}

static int threads(void)
{
    pthread_t t;
    atomic_int ran = 0;
    if (pthread_create(&t, NULL, thread, &ran) || pthread_join(t, NULL) || !ran)
        return 1;
    return 0;
}

static int reads_files(void)
{
    char c;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || read(fd, &c, 1) != 1;
    close(fd);
    return rc;
}

static int what_a_machine_needs(void)
{
    enter();
    if (threads())
        return 2;
    if (reads_files())
        return 3;
    void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise(p, 1 << 20, MADV_DONTNEED) || munmap(p, 1 << 20))
        return 4;
    int ev = eventfd(0, EFD_CLOEXEC);
    if (ev < 0 || eventfd_write(ev, 1))
        return 5;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return 6;
    if (syscall(SYS_tgkill, getpid(), gettid(), 0))
        return 7;
    free(malloc(64 << 20));
    close(s);
    close(ev);
    return 0;
}

static void what_a_machine_needs_is_left(void **state)
{
    struct outcome o = run(what_a_machine_needs);
    assert_true(WIFEXITED(o.status));
    assert_int_equal(WEXITSTATUS(o.status), 0);
    assert_string_equal(o.said, "");
}

/* ---- threads that were there before ---- */

struct early {
    pthread_barrier_t in, out;
    atomic_int result;
};

static void *early_thread(void *arg)
{
    struct early *x = arg;
    pthread_barrier_wait(&x->in);
    errno = 0;
    atomic_store(&x->result, mkdir("/nowhere/a", 0700) == -1 && errno == EPERM);
    pthread_barrier_wait(&x->out);
    return NULL;
}

static int early(void)
{
    struct early x = {.result = 0};
    pthread_t t;
    pthread_barrier_init(&x.in, NULL, 2);
    pthread_barrier_init(&x.out, NULL, 2);
    if (pthread_create(&t, NULL, early_thread, &x))
        return 2;
    enter();
    pthread_barrier_wait(&x.in);
    pthread_barrier_wait(&x.out);
    pthread_join(t, NULL);
    return !atomic_load(&x.result);
}

static void threads_that_exist_are_in_it_too(void **state)
{
    struct outcome o = run(early);
    assert_true(WIFEXITED(o.status));
    assert_int_equal(WEXITSTATUS(o.status), 0);
    assert_int_equal(lines(o.said), 1);
}

/* ---- another ABI ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static int old_abi(void)
{
    long rc;
    enter();
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20) : "memory"); /* i386's getpid */
    return 0;
}

static void another_abi_ends_the_process(void **state)
{
    struct outcome o = run(old_abi);
    assert_true(WIFSIGNALED(o.status));
    assert_int_equal(WTERMSIG(o.status), SIGSYS);
}
#else
static void another_abi_ends_the_process(void **state)
{
    skip(); /* the sanitizer's own handlers have SIGSYS */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_listed_is_refused_and_told_once),
        cmocka_unit_test(what_a_machine_needs_is_left),
        cmocka_unit_test(threads_that_exist_are_in_it_too),
        cmocka_unit_test(another_abi_ends_the_process),
    };
#if defined(__SANITIZE_THREAD__)
    print_message(
        "skipped: ThreadSanitizer delivers signals later, so that a refusal can't be answered in its handler\n");
    return 77;
#endif
    struct outcome o = run(NULL);
    if (WIFEXITED(o.status) && WEXITSTATUS(o.status) == NO_SANDBOX) {
        print_message("skipped: this host's kernel has no seccomp for us\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
