/* Running tests on the host's CPU, in a child process that may die or hang. */
#include "oracle.h"

#include <asm/prctl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

void native_run(struct test *t);
void native_exit(void);
void native_resume(void);
void native_signal(int sig, siginfo_t *info, void *uc);
void native_on_signal(int sig, siginfo_t *info, void *uc);

struct shared {
    struct test tests[BATCH];
    _Atomic uint32_t at; /* the test the child is in */
    uint64_t rip_end;
};

struct native {
    struct shared *sh;
    uint8_t *code; /* this process' view of CODE_VA */
    int code_fd;
    int to_child, from_child;
    pid_t pid;
    unsigned slot, count;
};

/* ---- child ---- */

static void *map_at(uintptr_t va, size_t len, int prot, int fd)
{
    int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    void *p = mmap((void *)va, len, prot, flags, fd, 0);
    if (p != (void *)va)
        _exit(3);
    return p;
}

static uint64_t *ctx_word(uintptr_t va)
{
    return (uint64_t *)va;
}

static void capture(struct test *t, const ucontext_t *uc, uint64_t vec)
{
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *g = uc->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        t->r.gpr[i] = (uint64_t)g[order[i]];
    t->r.rip = (uint64_t)g[REG_RIP];
    t->r.rflags = (uint64_t)g[REG_EFL];
    t->r.vec = vec;
    t->r.err = (uint64_t)g[REG_ERR];
    t->r.cr2 = (uint64_t)g[REG_CR2];
    if (t->kind & KIND_FP)
        memcpy(t->r_fx, uc->uc_mcontext.fpregs, 512);
}

void native_on_signal(int sig, siginfo_t *info, void *opaque)
{
    ucontext_t *uc = opaque;
    struct test *t = (struct test *)*ctx_word(CTX_TEST);
    static uint64_t last;
    uint64_t run = *ctx_word(CTX_RUN);
    if (sig == SIGALRM && (!t || run != last)) { /* two ticks in one test: it hangs */
        last = run;
        return;
    }
    if (!t)
        _exit(4);
    capture(t, uc, sig == SIGALRM ? VEC_HANG : (uint64_t)uc->uc_mcontext.gregs[REG_TRAPNO]);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_resume;
    uc->uc_mcontext.gregs[REG_RSP] = (greg_t)*ctx_word(CTX_RSP);
    uc->uc_mcontext.gregs[REG_EFL] = 0x202;
    uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | SEL_UCODE;
}

static void child_signals(void)
{
    static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGALRM};
    stack_t ss = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&ss, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++) {
        struct sigaction sa = {.sa_sigaction = native_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
        sigaction(sigs[i], &sa, NULL);
    }
    struct itimerval tick = {.it_interval = {.tv_usec = 500000}, .it_value = {.tv_usec = 500000}};
    setitimer(ITIMER_REAL, &tick, NULL);
}

static void child_one(struct test *t)
{
    memcpy((void *)WINDOW_VA, t->data, WINDOW_LEN);
    memcpy((void *)TAIL_VA, t->data + WINDOW_LEN, TAIL_LEN);
    t->r.vec = 3;
    t->r.rip = t->rip + t->code_len + VEC_END_RIP;
    t->r.err = t->r.cr2 = 0;
    ++*ctx_word(CTX_RUN);
    native_run(t);
    memcpy(t->r_data, (void *)WINDOW_VA, WINDOW_LEN);
    memcpy(t->r_data + WINDOW_LEN, (void *)TAIL_VA, TAIL_LEN);
}

/* The way out of a test: jmp *CTX_EXIT, or from 32-bit code jmp SEL_UCODE:CTX_BACK. */
static void put_exit(uint8_t *p, bool code32)
{
    static const uint8_t near[3] = {0xff, 0x24, 0x25};
    if (code32) {
        p[0] = 0xea;
        st32(p + 1, CTX_BACK);
        st16(p + 5, SEL_UCODE);
    } else {
        memcpy(p, near, sizeof near);
        st32(p + 3, CTX_EXIT);
    }
}

static void child_main(struct native *n, int in, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_at(DATA_VA, DATA_PAGES * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
    map_at(CODE_VA, CODE_LEN, PROT_READ | PROT_WRITE | PROT_EXEC, n->code_fd);
    map_at(CTX_VA, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, -1);
    put_exit((uint8_t *)CTX_BACK, false);
    *ctx_word(CTX_EXIT) = (uintptr_t)native_exit;
    __asm__ volatile("fxsave64 (%0)" : : "r"((void *)CTX_CLEAN) : "memory");
    syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)GS_BASE);
    child_signals();
    uint16_t range[2];
    while (read(in, range, sizeof range) == sizeof range) {
        for (unsigned i = range[0]; i < range[1]; i++) {
            n->sh->at = i;
            child_one(&n->sh->tests[i]);
        }
        if (write(out, range, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- parent ---- */

static int spawn(struct native *n)
{
    int down[2], up[2];
    if (pipe(down) || pipe(up))
        return -errno;
    n->pid = fork();
    if (n->pid < 0)
        return -errno;
    if (!n->pid) {
        close(down[1]);
        close(up[0]);
        child_main(n, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    n->to_child = down[1];
    n->from_child = up[0];
    return 0;
}

static void reap(struct native *n)
{
    kill(n->pid, SIGKILL);
    waitpid(n->pid, NULL, 0);
    close(n->to_child);
    close(n->from_child);
}

int native_open(struct native **out)
{
    struct native *n = calloc(1, sizeof *n);
    if (!n)
        return -ENOMEM;
    n->sh = mmap(NULL, sizeof *n->sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    n->code_fd = memfd_create("oracle-code", MFD_CLOEXEC);
    if (n->sh == MAP_FAILED || n->code_fd < 0 || ftruncate(n->code_fd, CODE_LEN))
        return -errno;
    n->code = mmap(NULL, CODE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, n->code_fd, 0);
    if (n->code == MAP_FAILED)
        return -errno;
    *out = n;
    signal(SIGPIPE, SIG_IGN); /* a child that is gone is noticed by native_wait() */
    return spawn(n);
}

void native_close(struct native *n)
{
    reap(n);
    munmap(n->code, CODE_LEN);
    munmap(n->sh, sizeof *n->sh);
    close(n->code_fd);
    free(n);
}

struct test *native_tests(struct native *n)
{
    return n->sh->tests;
}

static void ask(struct native *n, unsigned from)
{
    uint16_t range[2] = {(uint16_t)from, (uint16_t)n->count};
    if (write(n->to_child, range, sizeof range) != sizeof range)
        n->sh->at = from;
}

static void put_code(struct native *n, const struct test *t)
{
    uint8_t *p = n->code + (t->rip - CODE_VA);
    memcpy(p, t->code, t->code_len);
    if (t->kind & KIND_INT3)
        return;
    put_exit(p + t->code_len, t->kind & KIND_32);
}

void native_start(struct native *n, unsigned count)
{
    const struct test *t = n->sh->tests;
    uint64_t page = (t[0].rip - CODE_VA) & ~UINT64_C(0xfff);
    n->count = count;
    memset(n->code + page, 0xcc, count * SLOT + 4096 <= CODE_LEN - page ? count * SLOT + 4096 : CODE_LEN - page);
    for (unsigned i = 0; i < count; i++)
        put_code(n, &t[i]);
    ask(n, 0);
}

void native_wait(struct native *n)
{
    for (;;) {
        struct pollfd p = {.fd = n->from_child, .events = POLLIN};
        char done;
        if (poll(&p, 1, 30000) > 0 && read(n->from_child, &done, 1) == 1)
            return;
        unsigned at = n->sh->at;
        n->sh->tests[at].r.vec = VEC_DIED;
        reap(n);
        if (spawn(n) || at + 1 >= n->count)
            return;
        ask(n, at + 1);
    }
}
