#include "cpu/soft/apic_state.h"

#include "cpu/soft/event.h"
#include "irq/lapic.h"

#define MSR_PV_FIRST 0x4b564d00u

/* Nobody runs the vCPU, so its own time is the machine's. */
static uint64_t now_of(const struct soft_vcpu *v)
{
    return guest_clock_now(v->vm->cfg.clock);
}

void soft_get_apic(struct engine_vcpu *ev, struct cpu_apic *out)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    struct lapic_image m;
    fabric_export(v->vm->cfg.fabric, v->idx, now_of(v), &m);
    const struct handed *h = &v->handed;
    *out = (struct cpu_apic){.exception = h->exception,
                             .exception_vector = h->exception_vector,
                             .exception_has_error = h->has_error,
                             .exception_error = h->error,
                             .injected = h->injected,
                             .injected_vector = h->injected_vector};
    out->base = m.base;
    out->timer_left = m.timer_left;
    out->tsc_deadline = m.deadline ? m.deadline + v->st.tsc_offset : 0;
    memcpy(out->regs, m.regs, sizeof out->regs);
    out->nmi_pending = m.events & LAPIC_EV_NMI;
    out->smi_pending = m.events & LAPIC_EV_SMI;
    out->init_pending = m.events & LAPIC_EV_INIT;
    out->sipi_pending = m.events & LAPIC_EV_SIPI;
    out->sipi_page = (uint8_t)(m.events >> 8);
}

/* As a guest's write of the MSR: what has passed is due at once, 0 disarms. */
static uint64_t deadline_in(const struct soft_vcpu *v, uint64_t tsc, uint64_t now)
{
    uint64_t cur = now + v->st.tsc_offset, ahead = tsc > cur ? tsc - cur : 0;
    if (!tsc)
        return 0;
    uint64_t at = ahead ? now + ahead : tsc - v->st.tsc_offset;
    return at && at < HEC_NS_NEVER ? at : 1;
}

bool soft_set_apic(struct engine_vcpu *ev, const struct cpu_apic *in)
{
    struct soft_vcpu *v = (struct soft_vcpu *)ev;
    uint64_t now = now_of(v);
    struct lapic_image m = {
        .base = in->base, .timer_left = in->timer_left, .deadline = deadline_in(v, in->tsc_deadline, now)};
    memcpy(m.regs, in->regs, sizeof m.regs);
    m.events = (in->nmi_pending ? LAPIC_EV_NMI : 0) | (in->smi_pending ? LAPIC_EV_SMI : 0) |
               (in->init_pending ? LAPIC_EV_INIT : 0) | (in->sipi_pending ? LAPIC_EV_SIPI : 0) |
               (in->sipi_pending ? (uint32_t)in->sipi_page << 8 : 0);
    if (!fabric_import(v->vm->cfg.fabric, v->idx, now, &m))
        return false;
    v->handed = (struct handed){.exception = in->exception,
                                .exception_vector = in->exception_vector,
                                .has_error = in->exception_has_error,
                                .error = in->exception_error,
                                .injected = in->injected,
                                .injected_vector = in->injected_vector};
    attn_self(v);
    return true;
}

/* An exception goes first: SDM 3A, "Prioritization of Concurrent Events". The interrupt has been acknowledged, so it is
 * delivered whatever IF says by then. */
bool handed_take(struct soft_vcpu *v)
{
    struct handed h = v->handed;
    v->handed = (struct handed){0};
    if (h.exception) {
        fault_set(v, h.exception_vector, h.has_error, h.error);
        if (!event_deliver_fault(v))
            return false;
    }
    return !h.injected || event_deliver_interrupt(v, h.injected_vector);
}

/* ---- paravirtual MSRs ---- */

void soft_get_pv(struct soft_vcpu *v, struct cpu_state *out)
{
    for (unsigned i = 0; v->vm->cfg.pv && i < CPU_PV_MSRS; i++) {
        uint64_t val;
        if (pv_msr_read(v->vm->cfg.pv, v->idx, MSR_PV_FIRST + i, &val))
            out->pv_msr[i] = val;
    }
}

/* Writing one has effects on guest memory, so only what differs is written. */
void soft_set_pv(struct soft_vcpu *v, const struct cpu_state *in)
{
    for (unsigned i = 0; v->vm->cfg.pv && i < CPU_PV_MSRS; i++) {
        uint64_t val;
        if (pv_msr_read(v->vm->cfg.pv, v->idx, MSR_PV_FIRST + i, &val) && val != in->pv_msr[i])
            pv_msr_write(v->vm->cfg.pv, v->idx, now_of(v), MSR_PV_FIRST + i, in->pv_msr[i]);
    }
}
