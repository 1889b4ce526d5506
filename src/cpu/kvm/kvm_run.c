/* vcpu_run(): KVM_RUN, what it comes back with, and how to make it come back.
 *
 * A kick sets the attention word, then immediate_exit, then sends the signal. The vCPU's thread clears immediate_exit
 * before it looks at the word, so whichever comes first, the kick is seen before or by the next KVM_RUN: the kernel
 * looks at immediate_exit before it enters the guest, and the signal ends a KVM_RUN that was past that. Signals of
 * others and EINTR without any cost one turn of the loop each; each turn looks at the word.
 */
#include "cpu/kvm/kvm.h"
#include "cpu/kvm/kvm_priv.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COMPLETIONS_MAX 256 /* KVM_RUNs that only write back an access, before the vCPU stops anyway */

/* ---- kicks ---- */

static void on_kick(int sig)
{
}

int kvm_kick_init(struct err *e)
{
    struct sigaction sa = {.sa_handler = on_kick};
    sigemptyset(&sa.sa_mask);
    if (sigaction(KVM_KICK_SIGNAL, &sa, NULL))
        return err_set(e, -errno, "cannot handle the signal that stops vCPUs: %s", strerror(errno));
    return 0;
}

static void set_immediate(struct kvm_vcpu *v, uint8_t on)
{
    __atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

void kvm_kick(struct engine_vcpu *ev, unsigned attn)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    if ((atomic_fetch_or(&v->attn, attn) & attn) == attn)
        return;
    set_immediate(v, 1);
    int tid = atomic_load(&v->tid);
    if (tid && tid != gettid())
        syscall(SYS_tgkill, getpid(), tid, KVM_KICK_SIGNAL);
}

/* ---- exits; true: go on ---- */

static bool leave(struct cpu_run *run, enum cpu_exit_kind kind)
{
    run->exit = kind;
    return false;
}

static bool fail(struct kvm_vcpu *v, struct cpu_run *run)
{
    run->err = v->text;
    return leave(run, CPU_EXIT_ERROR);
}

static void count(_Atomic uint64_t *n)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void port_access(struct kvm_vcpu *v)
{
    struct kvm_run *r = v->run;
    struct bus *ports = v->vm->cfg.ports;
    uint8_t *data = (uint8_t *)r + r->io.data_offset;
    for (uint32_t i = 0; i < r->io.count; i++, data += r->io.size) {
        uint64_t val = 0;
        if (r->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&val, data, r->io.size);
            bus_write(ports, r->io.port, r->io.size, val);
        } else {
            val = bus_read(ports, r->io.port, r->io.size);
            memcpy(data, &val, r->io.size);
        }
    }
}

/* The kernel splits accesses at page ends, so any length from 1 to 8 can come. */
static void memory_access(struct kvm_vcpu *v)
{
    struct kvm_run *r = v->run;
    struct bus *mmio = v->vm->cfg.mmio;
    unsigned len = r->mmio.len <= 8 ? r->mmio.len : 8, step = len & (len - 1) ? 1 : len;
    for (unsigned at = 0; at < len; at += step) {
        uint64_t val = 0;
        if (r->mmio.is_write) {
            memcpy(&val, r->mmio.data + at, step);
            bus_write(mmio, r->mmio.phys_addr + at, step, val);
        } else {
            val = bus_read(mmio, r->mmio.phys_addr + at, step);
            memcpy(r->mmio.data + at, &val, step);
        }
    }
}

static bool serve(struct kvm_vcpu *v, const struct cpu_run *run, void (*access)(struct kvm_vcpu *))
{
    epoch_enter(v->vm->cfg.epoch, run->epoch_slot);
    access(v);
    epoch_leave(v->vm->cfg.epoch, run->epoch_slot);
    v->incomplete = true;
    return true;
}

static void level_eoi(struct kvm_vcpu *v)
{
    if (v->vm->eoi)
        v->vm->eoi(v->vm->eoi_opaque, v->run->eoi.vector);
}

/* MSRs KVM has not come here only while -d msr is on: the guest gets its #GP as it does otherwise. */
static bool unknown_msr(struct kvm_vcpu *v, bool write)
{
    struct kvm_run *r = v->run;
    if (write)
        trace(v->vm->cfg.trace, TRACE_MSR, "cpu %u: wrmsr 0x%x = 0x%llx: #GP", v->idx.i, r->msr.index,
              (unsigned long long)r->msr.data);
    else
        trace(v->vm->cfg.trace, TRACE_MSR, "cpu %u: rdmsr 0x%x: #GP", v->idx.i, r->msr.index);
    r->msr.error = 1;
    v->incomplete = true;
    return true;
}

/* On x86 it is a guest that reports its own crash by Hyper-V's MSRs; it goes on by itself. */
static bool system_event(struct kvm_vcpu *v, struct cpu_run *run)
{
    uint32_t type = v->run->system_event.type;
    trace(v->vm->cfg.trace, TRACE_CPU, "cpu %u: the guest reports system event %u", v->idx.i, type);
    if (type == KVM_SYSTEM_EVENT_RESET || type == KVM_SYSTEM_EVENT_SHUTDOWN)
        return leave(run, CPU_EXIT_SHUTDOWN);
    return true;
}

static bool shut_down(struct kvm_vcpu *v, struct cpu_run *run)
{
    trace(v->vm->cfg.trace, TRACE_CPU, "cpu%u: shutdown", v->idx.i);
    v->shutdown = true;
    return leave(run, CPU_EXIT_SHUTDOWN);
}

/* Opcode switch: one case an exit. */
static bool handle(struct kvm_vcpu *v, struct cpu_run *run)
{
    count(&v->exits);
    switch (v->run->exit_reason) {
    case KVM_EXIT_IO:
        count(&v->pio);
        return serve(v, run, port_access);
    case KVM_EXIT_MMIO:
        count(&v->mmio);
        return serve(v, run, memory_access);
    case KVM_EXIT_IOAPIC_EOI:
        return serve(v, run, level_eoi);
    case KVM_EXIT_X86_RDMSR:
        return unknown_msr(v, false);
    case KVM_EXIT_X86_WRMSR:
        return unknown_msr(v, true);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_TPR_ACCESS:
        return true;
    case KVM_EXIT_HLT: /* the kernel's APIC waits by itself, so this is no more than a turn of the loop */
        sched_yield();
        return true;
    case KVM_EXIT_SHUTDOWN:
        return shut_down(v, run);
    case KVM_EXIT_SYSTEM_EVENT:
        return system_event(v, run);
    case KVM_EXIT_INTERNAL_ERROR:
        kvm_report_internal(v);
        return fail(v, run);
    case KVM_EXIT_FAIL_ENTRY:
        kvm_report_entry(v);
        return fail(v, run);
    default:
        kvm_report_exit(v);
        return fail(v, run);
    }
}

/* ---- the loop ---- */

static int enter_guest(struct kvm_vcpu *v)
{
    v->incomplete = false;
    return kvm_io(v->vm->sys, v->fd, KVM_RUN, 0);
}

/* KVM_RUN said no. EAGAIN: a vCPU that waited for its start-up IPI has changed state, enter it again. */
static bool refused(struct kvm_vcpu *v, struct cpu_run *run, int rc)
{
    if (rc == -EINTR) {
        count(&v->signals);
        set_immediate(v, 0); /* before the loop looks at the attention word */
        return true;
    }
    if (rc == -EAGAIN)
        return true;
    kvm_report_run(v, rc);
    return fail(v, run);
}

/* An instruction whose access was served is not over before the kernel has written its result back. */
static bool complete(struct kvm_vcpu *v, struct cpu_run *run)
{
    for (unsigned i = 0; v->incomplete && i < COMPLETIONS_MAX; i++) {
        set_immediate(v, 1);
        int rc = enter_guest(v);
        if (rc ? !refused(v, run, rc) : !handle(v, run))
            return false;
    }
    set_immediate(v, 0);
    return leave(run, CPU_EXIT_KICKED);
}

static bool attend(struct kvm_vcpu *v, struct cpu_run *run)
{
    set_immediate(v, 0);
    uint32_t attn = atomic_exchange(&v->attn, 0);
    return attn & ATTN_EXIT ? complete(v, run) : true;
}

/* The boot CPU takes the PIC's interrupts: when it can, the kernel says so (KVM_EXIT_IRQ_WINDOW_OPEN), by LINT0's
 * rules. Linux, Documentation/virt/kvm/api.rst, "KVM_INTERRUPT". */
static void inject_extint(struct kvm_vcpu *v, const struct cpu_run *run)
{
    const struct engine_config *c = &v->vm->cfg;
    epoch_enter(c->epoch, run->epoch_slot);
    struct kvm_interrupt i = {.irq = c->extint_ack(c->extint_opaque)};
    epoch_leave(c->epoch, run->epoch_slot);
    int rc = kvm_vcpu_iop(v, KVM_INTERRUPT, &i);
    if (rc < 0)
        trace(c->trace, TRACE_IRQ, "irq: KVM refuses the PIC's vector %02Xh: %s", i.irq, strerror(-rc));
    v->run->ready_for_interrupt_injection = 0;
}

static void offer_extint(struct kvm_vcpu *v, const struct cpu_run *run)
{
    bool waits = atomic_load(&v->vm->irq.intr);
    if (waits && v->run->ready_for_interrupt_injection && !v->incomplete && v->vm->cfg.extint_ack) {
        inject_extint(v, run);
        waits = atomic_load(&v->vm->irq.intr);
    }
    v->run->request_interrupt_window = waits;
}

static bool turn(struct kvm_vcpu *v, struct cpu_run *run)
{
    if (unlikely(atomic_load(&v->attn)) && !attend(v, run))
        return false;
    if (v->idx.i == 0 && v->vm->cfg.irqchip == ENGINE_IRQCHIP_SPLIT)
        offer_extint(v, run);
    int rc = enter_guest(v);
    return likely(!rc) ? handle(v, run) : refused(v, run, rc);
}

void kvm_vcpu_run(struct engine_vcpu *ev, struct cpu_run *run)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    run->used = 0;
    run->until = 0;
    run->has_yield_to = false;
    run->err = NULL;
    if (v->shutdown) {
        leave(run, CPU_EXIT_SHUTDOWN);
        return;
    }
    if (v->refused_rc) {
        kvm_report_state(v);
        fail(v, run);
        return;
    }
    atomic_store(&v->tid, gettid());
    while (turn(v, run))
        ;
    atomic_store(&v->tid, 0);
}
