/* An APIC as plain data, and back. */
#include "irq/lapic_priv.h"

static void put(struct lapic_image *m, unsigned reg, uint32_t val)
{
    st32(m->regs + reg * 16, val);
}

static uint32_t get(const struct lapic_image *m, unsigned reg)
{
    return ld32(m->regs + reg * 16);
}

void lapic_export(struct lapic *l, uint64_t now, struct lapic_image *out)
{
    lapic_settle(l);
    lapic_timer_poll(l, now);
    *out = (struct lapic_image){.base = l->base, .timer_left = HEC_NS_NEVER};
    for (unsigned reg = 0; reg < 0x40; reg++) {
        uint32_t val;
        if (lapic_read_common(l, now, reg, &val))
            put(out, reg, val);
    }
    put(out, APIC_DFR, l->dfr);
    put(out, APIC_ICR2, (uint32_t)(l->icr >> 32));
    out->deadline = lapic_timer_deadline(&l->timer);
    if (l->timer.mode < LAPIC_TSC_DEADLINE && l->timer.next != HEC_NS_NEVER)
        out->timer_left = l->timer.next - now;
    uint32_t ev = atomic_load(&l->events);
    out->events = ev & LAPIC_EV_PUBLIC;
    if (ev & LAPIC_EV_SIPI)
        out->events |= ev & 0xff00;
}

/* Eight registers of 32 vectors; the first 16 are no vectors. */
static uint64_t vectors(const struct lapic_image *m, unsigned first, unsigned word)
{
    uint64_t v = get(m, first + word * 2) | (uint64_t)get(m, first + word * 2 + 1) << 32;
    return word ? v : v & ~UINT64_C(0xffff);
}

static void import_vectors(struct lapic *l, const struct lapic_image *in)
{
    uint64_t level = 0;
    for (unsigned i = 0; i < 4; i++) {
        atomic_store(&l->tmr[i], vectors(in, APIC_TMR, i));
        atomic_store(&l->irr[i], vectors(in, APIC_IRR, i));
        l->isr[i] = vectors(in, APIC_ISR, i);
        level |= vectors(in, APIC_TMR, i);
    }
    if (level)
        atomic_fetch_or(&l->flags, LAPIC_F_LEVEL);
    else
        atomic_fetch_and(&l->flags, ~(uint32_t)LAPIC_F_LEVEL);
}

static void import_timer(struct lapic *l, uint64_t now, const struct lapic_image *in)
{
    uint32_t lvt = l->lvt[LVT_TIMER];
    unsigned mode = (lvt & APIC_LVT_TIMER_MODE) >> 17;
    uint64_t next = HEC_NS_NEVER;
    if (mode == LAPIC_TSC_DEADLINE)
        next = in->deadline ? in->deadline : HEC_NS_NEVER;
    else if (mode < LAPIC_TSC_DEADLINE && in->timer_left < HEC_NS_NEVER - now)
        next = now + in->timer_left;
    lapic_timer_restore(&l->timer, lvt, get(in, APIC_TMICT), get(in, APIC_TDCR), next);
}

static void import_lvts(struct lapic *l, const struct lapic_image *in)
{
    lapic_put_svr(l, get(in, APIC_SVR));
    for (unsigned i = 0; i < LVT_COUNT; i++) {
        l->lvt[i] = i == LVT_LINT0 ? get(in, APIC_LVT_LINT0) & APIC_LVT_REMOTE_IRR : 0;
        lapic_put_lvt(l, i, get(in, APIC_LVT_TIMER + i));
    }
}

bool lapic_import(struct lapic *l, uint64_t now, const struct lapic_image *in)
{
    bool x2apic = (in->base & (APIC_BASE_EN | APIC_BASE_EXTD)) == (APIC_BASE_EN | APIC_BASE_EXTD);
    if (!lapic_base_valid(l, in->base) || (x2apic && get(in, APIC_ID_REG) != l->id.id))
        return false;
    lapic_pv_eoi_sync(l);
    lapic_set_base(l, in->base);
    if (!x2apic) {
        l->xid = (uint8_t)(get(in, APIC_ID_REG) >> 24);
        l->ldr = get(in, APIC_LDR) & 0xff000000u;
    }
    l->tpr = get(in, APIC_TPR) & 0xff;
    l->dfr = get(in, APIC_DFR) | 0x0fffffffu;
    l->esr = get(in, APIC_ESR);
    l->icr = get(in, APIC_ICR) | (uint64_t)get(in, APIC_ICR2) << 32;
    atomic_store(&l->errors, 0);
    import_vectors(l, in);
    import_lvts(l, in);
    import_timer(l, now, in);
    atomic_store(&l->events, in->events & (LAPIC_EV_PUBLIC | 0xff00));
    return true;
}
