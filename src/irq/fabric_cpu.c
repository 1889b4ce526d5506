/* What a vCPU's own thread does with its local APIC: register accesses and their effects, acknowledging, events, the
 * timer. */
#include "irq/fabric_priv.h"
#include "irq/way.h"
#include "x86/cpu.h"

static inline struct lapic *lapic_of(struct fabric *f, vcpu_idx_t cpu)
{
    return &f->lapic[cpu.i];
}

/* Whether the engine has something to take, could it take it. */
static bool deliverable(struct lapic *l)
{
    lapic_pv_eoi_sync(l);
    uint32_t ev = atomic_load_explicit(&l->events, memory_order_relaxed);
    return ev & (LAPIC_EV_PUBLIC | LAPIC_EV_INNER) || lapic_pending(l) >= 0 || lapic_extint(l);
}

/* After a write, which can make an interrupt deliverable: have the engine ask again. */
static void repoll(struct fabric *f, vcpu_idx_t cpu)
{
    if (deliverable(lapic_of(f, cpu)))
        fabric_kick(f, cpu);
}

/* After a read, which seldom does, and was maybe made while an interrupt is held back by IF = 0. */
static void repoll_if_new(struct fabric *f, vcpu_idx_t cpu, bool was)
{
    if (!was)
        repoll(f, cpu);
}

/* Hardware posts writes to one APIC page for all; once an APIC has moved its own, that is over for good. */
static void note_base(struct fabric *f, const struct lapic *l)
{
    if (l->mode != LAPIC_DISABLED && (l->base & APIC_BASE_ADDR) != APIC_BASE_DEFAULT)
        inhibit_set(&f->inhibit, INHIBIT_APIC_BASE_MODIFIED, true);
}

static void apply(struct fabric *f, vcpu_idx_t cpu, struct lapic_effect fx)
{
    switch (fx.kind) {
    case LAPIC_SEND:
        fabric_send(f, cpu.i, fx.irq);
        break;
    case LAPIC_EOI_LEVEL:
        if (f->eoi)
            f->eoi(f->eoi_opaque, fx.vector);
        break;
    case LAPIC_MODE:
        note_base(f, lapic_of(f, cpu));
        fabric_word_changed(f, cpu.i);
        break;
    case LAPIC_NONE:
        break;
    }
    repoll(f, cpu);
}

uint32_t fabric_mmio_read(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t off)
{
    struct lapic *l = lapic_of(f, cpu);
    if (l->mode != LAPIC_XAPIC)
        return 0xffffffffu;
    bool was = deliverable(l);
    uint32_t val = lapic_read(l, now, off);
    repoll_if_new(f, cpu, was);
    return val;
}

void fabric_mmio_write(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t off, uint32_t val)
{
    struct lapic *l = lapic_of(f, cpu);
    if (l->mode == LAPIC_XAPIC && off == APIC_EOI << 4 && trace_wants(f->cfg.trace, TRACE_IRQ))
        way_eoi(f->cfg.trace, cpu, l);
    if (l->mode == LAPIC_XAPIC)
        apply(f, cpu, lapic_write(l, now, off, val));
}

gpa_t fabric_mmio_base(const struct fabric *f, vcpu_idx_t cpu)
{
    const struct lapic *l = &f->lapic[cpu.i];
    return l->mode == LAPIC_XAPIC ? l->base & APIC_BASE_ADDR : UINT64_MAX;
}

bool fabric_msr_read(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t *val)
{
    struct lapic *l = lapic_of(f, cpu);
    if (msr == MSR_APIC_BASE)
        return lapic_msr_read(l, now, msr, val);
    bool was = deliverable(l);
    bool ok = lapic_msr_read(l, now, msr, val);
    repoll_if_new(f, cpu, was);
    return ok;
}

bool fabric_msr_write(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint32_t msr, uint64_t val)
{
    struct lapic_effect fx;
    if (msr == MSR_X2APIC_FIRST + APIC_EOI && trace_wants(f->cfg.trace, TRACE_IRQ))
        way_eoi(f->cfg.trace, cpu, lapic_of(f, cpu));
    bool ok = lapic_msr_write(lapic_of(f, cpu), now, msr, val, &fx);
    apply(f, cpu, fx);
    return ok;
}

uint64_t fabric_deadline_get(struct fabric *f, vcpu_idx_t cpu)
{
    return lapic_timer_deadline(&lapic_of(f, cpu)->timer);
}

void fabric_deadline_set(struct fabric *f, vcpu_idx_t cpu, uint64_t now, uint64_t deadline)
{
    struct lapic *l = lapic_of(f, cpu);
    if (l->mode == LAPIC_DISABLED)
        return;
    lapic_timer_poll(l, now);
    lapic_timer_set_deadline(&l->timer, deadline);
    lapic_timer_poll(l, now);
    repoll(f, cpu);
}

void fabric_pv_eoi_set(struct fabric *f, vcpu_idx_t cpu, uint64_t msr, uint8_t *flag)
{
    struct lapic *l = lapic_of(f, cpu);
    lapic_pv_eoi_sync(l);
    l->pv_eoi_msr = msr;
    l->pv_eoi = flag;
}

uint64_t fabric_pv_eoi_get(const struct fabric *f, vcpu_idx_t cpu)
{
    return f->lapic[cpu.i].pv_eoi_msr;
}

uint8_t fabric_cr8_get(struct fabric *f, vcpu_idx_t cpu)
{
    return (uint8_t)(lapic_of(f, cpu)->tpr >> 4);
}

void fabric_cr8_set(struct fabric *f, vcpu_idx_t cpu, uint8_t cr8)
{
    lapic_of(f, cpu)->tpr = (uint32_t)(cr8 & 0xf) << 4;
    repoll(f, cpu);
}

/* INHIBIT_IRQWIN lasts from when an ExtINT is seen to when it is taken or gone. */
static inline void irq_window(struct fabric *f, struct lapic *l, bool waits)
{
    if (likely(l->irq_window == waits))
        return;
    l->irq_window = waits;
    if (waits)
        inhibit_hold(&f->inhibit, INHIBIT_IRQWIN);
    else
        inhibit_release(&f->inhibit, INHIBIT_IRQWIN);
}

int fabric_irq_pending(struct fabric *f, vcpu_idx_t cpu)
{
    struct lapic *l = lapic_of(f, cpu);
    lapic_settle(l);
    bool extint = lapic_extint(l);
    irq_window(f, l, extint);
    return extint ? FABRIC_IRQ_EXTINT : lapic_pending(l);
}

static __attribute__((noinline, cold)) int take_traced(struct fabric *f, vcpu_idx_t cpu)
{
    struct lapic *l = lapic_of(f, cpu);
    int pending = lapic_pending(l), vector = lapic_take(l);
    bool flow = vector == pending && f->flows && fabric_flow_unmark(f, cpu.i, (uint8_t)vector);
    way_take(f->cfg.trace, cpu, l->id, vector, vector == pending, flow);
    return vector;
}

int fabric_irq_take(struct fabric *f, vcpu_idx_t cpu)
{
    struct lapic *l = lapic_of(f, cpu);
    if (likely(!lapic_extint(l)))
        return trace_wants(f->cfg.trace, TRACE_IRQ) ? take_traced(f, cpu) : lapic_take(l);
    irq_window(f, l, false);
    atomic_fetch_and(&l->events, ~(uint32_t)LAPIC_EV_EXTINT);
    return f->cfg.extint_ack ? f->cfg.extint_ack(f->cfg.extint_opaque) : (int)(l->svr & APIC_LVT_VECTOR);
}

unsigned fabric_events_take(struct fabric *f, vcpu_idx_t cpu, uint8_t *sipi)
{
    struct lapic *l = lapic_of(f, cpu);
    lapic_settle(l);
    uint32_t ev = atomic_fetch_and(&l->events, ~(uint32_t)LAPIC_EV_PUBLIC);
    if (ev & LAPIC_EV_SIPI)
        *sipi = (uint8_t)(ev >> 8);
    if (trace_wants(f->cfg.trace, TRACE_IRQ) && ev & LAPIC_EV_PUBLIC)
        way_events(f->cfg.trace, cpu, l, ev, *sipi);
    if (ev & LAPIC_EV_INIT) {
        lapic_init_event(l);
        fabric_word_changed(f, cpu.i);
    }
    return ev & LAPIC_EV_PUBLIC;
}

void fabric_events_put(struct fabric *f, vcpu_idx_t cpu, unsigned events)
{
    atomic_fetch_or(&lapic_of(f, cpu)->events, events & LAPIC_EV_PUBLIC);
}

bool fabric_events_pending(const struct fabric *f, vcpu_idx_t cpu)
{
    uint32_t ev = atomic_load_explicit(&f->lapic[cpu.i].events, memory_order_acquire);
    return (ev & (LAPIC_EV_PUBLIC | LAPIC_EV_INNER)) != 0;
}

uint64_t fabric_timer_deadline(const struct fabric *f, vcpu_idx_t cpu)
{
    return atomic_load_explicit(&f->lapic[cpu.i].timer.published, memory_order_acquire);
}

void fabric_timer_expire(struct fabric *f, vcpu_idx_t cpu, uint64_t now)
{
    if (lapic_timer_poll(lapic_of(f, cpu), now))
        repoll(f, cpu);
}

void fabric_export(struct fabric *f, vcpu_idx_t cpu, uint64_t now, struct lapic_image *out)
{
    lapic_export(lapic_of(f, cpu), now, out);
}

bool fabric_import(struct fabric *f, vcpu_idx_t cpu, uint64_t now, const struct lapic_image *in)
{
    if (!lapic_import(lapic_of(f, cpu), now, in))
        return false;
    note_base(f, lapic_of(f, cpu));
    fabric_word_changed(f, cpu.i);
    fabric_kick(f, cpu);
    return true;
}
