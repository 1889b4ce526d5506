/* Local APICs and what is pending, from and to the kernel. IA32_APIC_BASE always goes before the registers: the
 * kernel's meaning of the ID register follows the mode.
 *
 * Reset. The well-known trap is a page in x2APIC layout whose ID register is then read as an xAPIC's: KVM takes the ID
 * for modified and inhibits APICv for good. So an APIC that leaves x2APIC mode is switched off first, which gives it
 * its xAPIC ID back, and then on. APICs that are as after reset are left alone: each change costs the kernel a walk
 * over all of them.
 */
#include "cpu/kvm/kvm_priv.h"
#include "x86/apic.h"
#include "x86/cpu.h"

#include <errno.h>
#include <string.h>

enum { LVT_COUNT = 6, TIMER_DEADLINE = 2 };

static uint32_t reg_get(const uint8_t regs[1024], unsigned reg)
{
    return ld32(regs + reg * 16);
}

static void reg_set(uint8_t regs[1024], unsigned reg, uint32_t val)
{
    st32(regs + reg * 16, val);
}

static bool is_x2apic(uint64_t base)
{
    return (base & (APIC_BASE_EN | APIC_BASE_EXTD)) == (APIC_BASE_EN | APIC_BASE_EXTD);
}

/* ---- the register page ---- */

/* Without 32-bit IDs KVM shows an x2APIC's ID as an xAPIC's, cut to 8 bits. */
static int page_get(struct kvm_vcpu *v, uint64_t base, uint8_t regs[1024])
{
    struct kvm_lapic_state s;
    int rc = kvm_vcpu_iop(v, KVM_GET_LAPIC, &s);
    if (rc < 0)
        return rc;
    memcpy(regs, s.regs, sizeof s.regs);
    if (is_x2apic(base))
        reg_set(regs, APIC_ID_REG, v->id.id);
    return 0;
}

static int page_set(struct kvm_vcpu *v, uint64_t base, const uint8_t regs[1024])
{
    struct kvm_lapic_state s;
    memcpy(s.regs, regs, sizeof s.regs);
    if (is_x2apic(base) && !v->vm->wide_ids)
        reg_set((uint8_t *)s.regs, APIC_ID_REG, v->id.id << 24);
    return kvm_vcpu_iop(v, KVM_SET_LAPIC, &s);
}

/* ---- the timer ---- */

/* SDM 3A, "APIC Timer", Divide Configuration Register. */
static unsigned divide_shift(uint32_t tdcr)
{
    return (((tdcr & 3) | (tdcr & 8) >> 1) + 1) & 7;
}

static unsigned timer_mode(const uint8_t regs[1024])
{
    return reg_get(regs, APIC_LVT_TIMER) >> 17 & 3;
}

/* KVM's bus clock is 1 GHz: a count, before the divider, is 1 ns. */
static uint64_t timer_left(const uint8_t regs[1024])
{
    uint32_t count = reg_get(regs, APIC_TMCCT);
    if (timer_mode(regs) >= TIMER_DEADLINE || !reg_get(regs, APIC_TMICT) || !count)
        return HEC_NS_NEVER;
    return (uint64_t)count << divide_shift(reg_get(regs, APIC_TDCR));
}

static uint32_t timer_count(const struct cpu_apic *a)
{
    uint64_t left = a->timer_left == HEC_NS_NEVER ? 0 : a->timer_left >> divide_shift(reg_get(a->regs, APIC_TDCR));
    return (uint32_t)min_u64(left, reg_get(a->regs, APIC_TMICT));
}

/* ---- events ---- */

static void events_out(struct kvm_vcpu *v, struct cpu_apic *a)
{
    struct kvm_vcpu_events e;
    if (kvm_vcpu_iop(v, KVM_GET_VCPU_EVENTS, &e) < 0)
        return;
    a->nmi_pending = e.nmi.pending || e.nmi.injected;
    a->smi_pending = e.flags & KVM_VCPUEVENT_VALID_SMM && e.smi.pending;
    a->exception = e.exception.injected;
    a->exception_vector = a->exception ? e.exception.nr : 0;
    a->exception_has_error = a->exception && e.exception.has_error_code;
    a->exception_error = a->exception_has_error ? e.exception.error_code : 0;
    a->injected = e.interrupt.injected && !e.interrupt.soft;
    a->injected_vector = a->injected ? e.interrupt.nr : 0;
}

static void events_in(struct kvm_vcpu *v, const struct cpu_apic *a)
{
    struct kvm_vcpu_events e;
    if (kvm_vcpu_iop(v, KVM_GET_VCPU_EVENTS, &e) < 0)
        return;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    e.nmi.injected = 0;
    e.nmi.pending = a->nmi_pending;
    memset(&e.exception, 0, sizeof e.exception);
    e.exception.injected = a->exception;
    e.exception.nr = a->exception_vector;
    e.exception.has_error_code = a->exception_has_error;
    e.exception.error_code = a->exception_error;
    e.interrupt.injected = a->injected;
    e.interrupt.nr = a->injected_vector;
    e.interrupt.soft = 0;
    kvm_vcpu_iop(v, KVM_SET_VCPU_EVENTS, &e);
}

/* KVM has no field for a pending INIT or start-up IPI; it takes both as messages. */
static void startup_in(struct kvm_vcpu *v, const struct cpu_apic *a)
{
    uint32_t hi = v->vm->wide_ids ? v->id.id & ~0xffu : 0;
    struct kvm_msi m = {.address_lo = 0xfee00000u | (v->id.id & 0xff) << 12, .address_hi = hi};
    m.data = 0x4000u | IRQ_INIT << 8;
    if (a->init_pending)
        kvm_vm_iop(v->vm, KVM_SIGNAL_MSI, &m);
    m.data = 0x4000u | IRQ_STARTUP << 8 | a->sipi_page;
    if (a->sipi_pending)
        kvm_vm_iop(v->vm, KVM_SIGNAL_MSI, &m);
}

/* ---- engine_ops ---- */

void kvm_get_apic(struct engine_vcpu *ev, struct cpu_apic *out)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    *out = (struct cpu_apic){.timer_left = HEC_NS_NEVER};
    kvm_msr_get(v, MSR_APIC_BASE, &out->base);
    if (page_get(v, out->base, out->regs) < 0)
        return;
    out->timer_left = timer_left(out->regs);
    if (timer_mode(out->regs) == TIMER_DEADLINE)
        kvm_msr_get(v, MSR_TSC_DEADLINE, &out->tsc_deadline);
    events_out(v, out);
}

bool kvm_set_apic(struct engine_vcpu *ev, const struct cpu_apic *in)
{
    struct kvm_vcpu *v = kvm_vcpu_of(ev);
    struct cpu_apic a = *in;
    reg_set(a.regs, APIC_TMCCT, timer_count(in));
    if (is_x2apic(in->base) && reg_get(in->regs, APIC_ID_REG) != v->id.id)
        return false;
    if (!kvm_msr_set(v, MSR_APIC_BASE, in->base) || page_set(v, in->base, a.regs) < 0)
        return false;
    if (timer_mode(in->regs) == TIMER_DEADLINE)
        kvm_msr_set(v, MSR_TSC_DEADLINE, in->tsc_deadline);
    events_in(v, in);
    startup_in(v, in);
    return true;
}

/* ---- reset ---- */

/* SDM 3A, "Local APIC State After Power-Up or Reset"; the boot CPU's LINT0 as firmware leaves it. */
static void reset_page(const struct kvm_vcpu *v, bool x2apic, uint8_t regs[1024])
{
    memset(regs, 0, 1024);
    reg_set(regs, APIC_ID_REG, x2apic ? v->id.id : (v->id.id & 0xff) << 24);
    if (x2apic)
        reg_set(regs, APIC_LDR, (v->id.id >> 4) << 16 | 1u << (v->id.id & 15));
    reg_set(regs, APIC_DFR, 0xffffffffu);
    reg_set(regs, APIC_SVR, 0xff);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        reg_set(regs, APIC_LVT_TIMER + i, APIC_LVT_MASKED);
    if (v->idx.i == 0)
        reg_set(regs, APIC_LVT_LINT0, IRQ_EXTINT << APIC_LVT_MODE_SHIFT);
}

static uint64_t reset_base(const struct kvm_vcpu *v)
{
    return APIC_BASE_DEFAULT | APIC_BASE_EN | (v->idx.i ? 0 : APIC_BASE_BSP) |
           (v->vm->cfg.firmware_x2apic ? APIC_BASE_EXTD : 0);
}

/* While there are few others: the walk over all that a change costs is then a walk over these. If KVM refuses, the
 * first reset tells. */
void kvm_apic_first(struct kvm_vcpu *v)
{
    if (v->vm->cfg.firmware_x2apic)
        kvm_msr_set(v, MSR_APIC_BASE, reset_base(v));
}

/* KVM's own version register stays: it says which LVT entries there are. */
static int reset_one(struct kvm_vcpu *v)
{
    bool x2apic = v->vm->cfg.firmware_x2apic;
    uint8_t want[1024], have[1024];
    uint64_t base = 0, target = reset_base(v), off = target & ~(APIC_BASE_EN | APIC_BASE_EXTD);
    if (!kvm_msr_get(v, MSR_APIC_BASE, &base))
        return -EIO;
    if (base != target && is_x2apic(base) && !kvm_msr_set(v, MSR_APIC_BASE, off))
        return -EIO;
    if (base != target && !kvm_msr_set(v, MSR_APIC_BASE, target))
        return -EINVAL;
    int rc = page_get(v, target, have);
    if (rc < 0)
        return rc;
    reset_page(v, x2apic, want);
    reg_set(want, APIC_VERSION, reg_get(have, APIC_VERSION));
    return memcmp(want, have, sizeof want) ? page_set(v, target, want) : 0;
}

int kvm_apic_reset(struct engine_vm *evm, struct err *e)
{
    struct kvm_vm *vm = kvm_vm_of(evm);
    for (uint32_t i = 0; i < vm->cfg.vcpus; i++) {
        int rc = reset_one(&vm->vcpu[i]);
        if (rc < 0)
            return err_set(e, rc, "vCPU %u (APIC ID %u): KVM does not reset its APIC%s: %s", i, vm->cfg.ids[i].id,
                           vm->cfg.firmware_x2apic ? " to x2APIC mode" : "", strerror(-rc));
    }
    int rc = vm->cfg.irqchip == ENGINE_IRQCHIP_KERNEL ? kvm_chips_reset(vm) : 0;
    return rc ? err_set(e, rc, "KVM does not reset its PIC and I/O APIC: %s", strerror(-rc)) : 0;
}
