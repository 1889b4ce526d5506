#include "vm/vm.h"

#include "vm/accel.h"
#include "vm/machine.h"
#include "vm/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define PROGRESS_MS 100
#define IDLE_MS     1000

struct session {
    const struct vm_config *cfg;
    struct machine *m;
    int signal_fd;
    sigset_t old_mask;
    uint64_t host_start, tidied;
    bool dead_said;
    bool triple_said;
    bool waits; /* -S: nothing runs before SIGCONT */
    bool over;
    int exit_code;
};

static int signals_open(struct session *s, struct err *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (s->waits)
        sigaddset(&set, SIGCONT);
    pthread_sigmask(SIG_BLOCK, &set, &s->old_mask);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? err_set(e, -errno, "cannot watch for signals: %s", strerror(errno)) : 0;
}

/* Signals that came and were not read would strike once unblocked: read them all. The last one that ends the machine,
 * or 0; *go_on: SIGCONT was among them. */
static int signals_take(struct session *s, bool *go_on)
{
    struct signalfd_siginfo info;
    int last = 0;
    *go_on = false;
    while (read(s->signal_fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGCONT)
            *go_on = true;
        else
            last = (int)info.ssi_signo;
    return last;
}

static void signals_close(struct session *s)
{
    bool go_on;
    if (s->signal_fd >= 0) {
        signals_take(s, &go_on);
        close(s->signal_fd);
    }
    pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
}

/* A line of our own on standard error, past the status line. */
static void say(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct session *s, const char *fmt, ...)
{
    va_list ap;
    if (s->cfg->progress)
        s->cfg->progress(s->cfg->progress_opaque, NULL);
    va_start(ap, fmt);
    fputs("hecaton: ", stderr);
    vfprintf(stderr, fmt, ap);
    putc('\n', stderr);
    va_end(ap);
}

static void end(struct session *s, int code)
{
    s->over = true;
    s->exit_code = code;
}

static int reset(struct session *s, const struct machine_event *ev, struct err *e)
{
    /* A guest that comes to the same end again and again is told of once. */
    if (ev->triple_fault && !s->triple_said)
        say(s, "triple fault on vCPU %u: %s", ev->cpu.i,
            s->cfg->no_reboot ? "ending, as -no-reboot asks"
                              : "resetting the machine, now and whenever it happens again");
    s->triple_said |= ev->triple_fault;
    if (s->cfg->no_reboot) {
        end(s, 0);
        return 0;
    }
    machine_stop(s->m);
    s->dead_said = false;
    int rc = machine_boot(s->m, e);
    return rc ? rc : machine_start(s->m, e);
}

static int handle(struct session *s, const struct machine_event *ev, struct err *e)
{
    if (ev->error[0])
        return err_set(e, -EIO, "vCPU %u: %s", ev->cpu.i, ev->error);
    switch (ev->req) {
    case VM_REQ_RESET:
        return reset(s, ev, e);
    case VM_REQ_POWEROFF:
        if (!s->cfg->no_shutdown)
            end(s, 0);
        else
            say(s, "the guest switched itself off; -no-shutdown keeps the process until Ctrl-C");
        break;
    case VM_REQ_PANIC:
        say(s, "the guest reported a panic");
        break;
    case VM_REQ_EXIT:
        end(s, ev->code);
        break;
    }
    return 0;
}

/* A machine in which nothing can happen any more: say so once, and leave it, as QEMU does. */
static int look_for_death(struct session *s, struct err *e)
{
    if (s->dead_said || s->waits || !machine_stuck(s->m))
        return 0;
    machine_stop(s->m);
    if (machine_is_dead(s->m)) {
        say(s, "every CPU is halted with interrupts off; the guest will not go on. Ctrl-C ends it");
        s->dead_said = true;
    }
    return machine_start(s->m, e);
}

static void show_progress(struct session *s)
{
    struct vm_stats st;
    if (!s->cfg->progress)
        return;
    machine_stats(s->m, &st);
    st.host_ns = clock_host_ns() - s->host_start;
    s->cfg->progress(s->cfg->progress_opaque, &st);
}

/* Housekeeping, about once a second. */
static void tidy(struct session *s)
{
    uint64_t now = clock_host_ns();
    if (now - s->tidied < NS_PER_SEC)
        return;
    s->tidied = now;
    machine_tidy(s->m);
}

static int watch(struct session *s, struct err *e)
{
    int rc = 0;
    while (!s->over && !rc) {
        struct pollfd p[2] = {{.fd = machine_event_fd(s->m), .events = POLLIN}, {.fd = s->signal_fd, .events = POLLIN}};
        int n = poll(p, 2, s->cfg->progress ? PROGRESS_MS : IDLE_MS);
        if (n < 0 && errno != EINTR)
            return err_set(e, -errno, "poll: %s", strerror(errno));
        bool go_on;
        int sig = signals_take(s, &go_on);
        if (sig) {
            end(s, 128 + sig);
            machine_discard_output(s->m);
            break;
        }
        if (go_on && s->waits) {
            s->waits = false;
            rc = machine_start(s->m, e);
            continue;
        }
        struct machine_event ev = machine_take_event(s->m);
        if (ev.pending)
            rc = handle(s, &ev, e);
        else
            rc = look_for_death(s, e);
        show_progress(s);
        tidy(s);
    }
    return rc;
}

/* With -sandbox on it is had or the machine is not run; by itself it is had where it can be. */
static int enter_sandbox(struct session *s, struct err *e)
{
    struct err why = {{0}};
    if (s->cfg->sandbox == VM_OFF)
        return 0;
    int rc = sandbox_enter(&why);
    if (rc && s->cfg->sandbox == VM_ON)
        return err_set(e, rc, "%s", why.msg);
    if (rc)
        say(s, "%s; going on without", why.msg);
    return 0;
}

static void warn_of_software_kvm(struct session *s)
{
    if (s->cfg->engine == VM_ACCEL_KVM && s->cfg->kvm_in_software && machine_has_kernel(s->m))
        say(s, "this host's KVM is one in software (no VMX or SVM): bare-metal programs and kernels of its own "
               "paravirtual kind run there, an unmodified kernel crawls or stops; -accel soft runs it");
}

/* All that needs more of the host than running does. */
static int get_ready(struct session *s, struct err *e)
{
    int rc = machine_boot(s->m, e);
    rc = rc ? rc : machine_prepare(s->m, e);
    rc = rc ? rc : enter_sandbox(s, e);
    if (!rc)
        warn_of_software_kvm(s);
    return rc;
}

static int run_machine(struct session *s, struct err *e)
{
    int rc = get_ready(s, e);
    if (!rc && s->waits)
        say(s, "built, and waiting: kill -CONT %d lets it run", (int)getpid());
    else if (!rc)
        rc = machine_start(s->m, e);
    if (rc)
        return rc;
    rc = watch(s, e);
    machine_hurry_output(s->m);
    machine_stop(s->m);
    if (!rc && s->cfg->deterministic)
        say(s, "state hash %016llx", (unsigned long long)machine_hash(s->m));
    return rc;
}

/* KVM may fail where its limits gave no reason to expect it; if the list goes on, so do we. */
static int create(struct session *s, struct vm_config *soft, struct err *e)
{
    struct err first = {{0}}, second = {{0}};
    int rc = machine_create(s->cfg, &s->m, &first);
    if (!rc)
        return 0;
    if (accel_may_fall_back(s->cfg)) {
        *soft = *s->cfg;
        soft->engine = VM_ACCEL_SOFT;
        if (!config_check(soft, &second) && !machine_create(soft, &s->m, &second)) {
            s->cfg = soft;
            say(s, "the built-in engine runs this machine, not KVM: %s", first.msg);
            return 0;
        }
    }
    return err_set(e, rc, "%s", first.msg);
}

/* A signal came while the machine was built: that is why it was not, or it matters more. */
static bool interrupted(struct session *s)
{
    bool go_on;
    int sig = s->signal_fd >= 0 ? signals_take(s, &go_on) : 0;
    if (sig)
        end(s, 128 + sig);
    return sig;
}

int vm_run(const struct vm_config *c, int *exit_code, struct err *e)
{
    struct session s = {.cfg = c, .signal_fd = -1, .host_start = clock_host_ns(), .waits = c->paused};
    struct vm_config soft;
    int rc = signals_open(&s, e);
    if (!rc)
        rc = create(&s, &soft, e);
    if (!rc)
        rc = run_machine(&s, e);
    if (rc && !s.m && interrupted(&s))
        rc = 0;
    signals_close(&s); /* a second signal ends even a host that does not get done with a disk */
    if (s.m)
        machine_destroy(s.m);
    *exit_code = s.exit_code;
    return rc;
}
