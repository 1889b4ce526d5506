#include "irq/lapic.h"

#include "irq/lapic_priv.h"
#include "x86/cpu.h"

/* ---- bits of the 256-bit registers ---- */

static int highest_atomic(const _Atomic uint64_t r[4])
{
    for (int i = 3; i >= 0; i--) {
        uint64_t w = atomic_load_explicit(&r[i], memory_order_acquire);
        if (w)
            return i * 64 + 63 - __builtin_clzll(w);
    }
    return -1;
}

static int highest(const uint64_t r[4])
{
    for (int i = 3; i >= 0; i--)
        if (r[i])
            return i * 64 + 63 - __builtin_clzll(r[i]);
    return -1;
}

/* ---- lifecycle ---- */

static void flag_set(struct lapic *l, uint32_t flag, bool on)
{
    if (on)
        atomic_fetch_or(&l->flags, flag);
    else
        atomic_fetch_and(&l->flags, ~flag);
}

static void clear_vectors(struct lapic *l)
{
    for (unsigned i = 0; i < 4; i++) {
        atomic_store(&l->irr[i], 0);
        atomic_store(&l->tmr[i], 0);
        l->isr[i] = 0;
    }
    atomic_fetch_and(&l->flags, ~(uint32_t)LAPIC_F_LEVEL);
}

/* What power-up, INIT and disabling have in common: everything but base, mode and the x2APIC ID. */
static void reset_registers(struct lapic *l)
{
    flag_set(l, LAPIC_F_SW, false);
    clear_vectors(l);
    atomic_store(&l->errors, 0);
    l->tpr = 0;
    l->svr = 0xff;
    l->esr = 0;
    l->ldr = 0;
    l->dfr = 0xffffffffu;
    l->icr = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = APIC_LVT_MASKED;
    lapic_timer_reset(&l->timer);
}

static void reset_pv_eoi(struct lapic *l)
{
    l->pv_eoi = NULL;
    l->pv_eoi_lent = false;
    l->pv_eoi_msr = 0;
}

void lapic_set_base(struct lapic *l, uint64_t base)
{
    l->base = base;
    l->mode = !(base & APIC_BASE_EN) ? LAPIC_DISABLED : base & APIC_BASE_EXTD ? LAPIC_X2APIC : LAPIC_XAPIC;
    flag_set(l, LAPIC_F_HW, l->mode != LAPIC_DISABLED);
}

void lapic_init(struct lapic *l, apic_id_t id, bool bsp, bool x2apic, bool firmware_x2apic)
{
    memset(l, 0, sizeof *l);
    l->id = id;
    l->bsp = bsp;
    l->x2apic = x2apic;
    l->firmware_x2apic = firmware_x2apic && x2apic;
    lapic_reset(l);
}

void lapic_reset(struct lapic *l)
{
    reset_registers(l);
    atomic_store(&l->events, 0);
    atomic_store(&l->lint, 0);
    l->xid = (uint8_t)l->id.id;
    l->irq_window = false;
    reset_pv_eoi(l);
    lapic_set_base(l, APIC_BASE_DEFAULT | APIC_BASE_EN | (l->bsp ? APIC_BASE_BSP : 0) |
                          (l->firmware_x2apic ? APIC_BASE_EXTD : 0));
    if (l->bsp)
        l->lvt[LVT_LINT0] = IRQ_EXTINT << APIC_LVT_MODE_SHIFT;
}

void lapic_init_event(struct lapic *l)
{
    reset_registers(l);
    reset_pv_eoi(l);
    atomic_fetch_and(&l->events, ~(uint32_t)(LAPIC_EV_ERROR | LAPIC_EV_EXTINT));
}

/* ---- acceptance: any thread ---- */

/* The APIC logs an illegal vector instead of taking it; the owner raises the error interrupt. SDM 3A, "Error Handling".
 */
static enum lapic_taken accept_illegal(struct lapic *l)
{
    atomic_fetch_or(&l->errors, APIC_ESR_RECV_ILLEGAL);
    uint32_t old = atomic_fetch_or(&l->events, LAPIC_EV_ERROR);
    return old & LAPIC_EV_ERROR ? LAPIC_MERGED : LAPIC_TAKEN;
}

/* The trigger mode is published before the request, so that whoever sees the request also sees how it came. */
static void set_trigger(struct lapic *l, unsigned word, uint64_t bit, bool level, uint32_t flags)
{
    if (level) {
        atomic_fetch_or(&l->flags, LAPIC_F_LEVEL);
        atomic_fetch_or(&l->tmr[word], bit);
    } else if (flags & LAPIC_F_LEVEL) {
        if (atomic_load_explicit(&l->tmr[word], memory_order_relaxed) & bit)
            atomic_fetch_and(&l->tmr[word], ~bit);
    }
}

static inline enum lapic_taken accept_vector(struct lapic *l, uint8_t vector, bool level, uint32_t flags)
{
    unsigned word = vector >> 6;
    uint64_t bit = BIT(vector & 63);
    if (unlikely(vector < 16))
        return accept_illegal(l);
    if (unlikely(level || flags & LAPIC_F_LEVEL))
        set_trigger(l, word, bit, level, flags);
    uint64_t old = atomic_fetch_or(&l->irr[word], bit);
    return old & bit ? LAPIC_MERGED : LAPIC_TAKEN;
}

static enum lapic_taken event_add(struct lapic *l, uint32_t event)
{
    uint32_t old = atomic_fetch_or(&l->events, event);
    return old & event ? LAPIC_MERGED : LAPIC_TAKEN;
}

/* INIT overrides what came before it; of several SIPIs the last one's page counts. */
static enum lapic_taken event_startup(struct lapic *l, struct irq irq)
{
    uint32_t old = atomic_load(&l->events), new;
    do {
        if (irq.mode == IRQ_INIT)
            new = (old & ~(uint32_t)LAPIC_EV_PUBLIC) | LAPIC_EV_INIT;
        else
            new = (old & ~0xff00u) | LAPIC_EV_SIPI | (uint32_t)irq.vector << 8;
    } while (!atomic_compare_exchange_weak(&l->events, &old, new));
    return LAPIC_TAKEN;
}

static enum lapic_taken accept_other(struct lapic *l, struct irq irq)
{
    switch (irq.mode) {
    case IRQ_NMI:
        return event_add(l, LAPIC_EV_NMI);
    case IRQ_SMI:
        return event_add(l, LAPIC_EV_SMI);
    case IRQ_INIT:
        return irq.level && !irq.assert_ ? LAPIC_REFUSED : event_startup(l, irq);
    case IRQ_STARTUP:
        return event_startup(l, irq);
    case IRQ_EXTINT:
        return event_add(l, LAPIC_EV_EXTINT);
    default:
        return LAPIC_REFUSED;
    }
}

enum lapic_taken lapic_accept(struct lapic *l, struct irq irq)
{
    uint32_t flags = atomic_load_explicit(&l->flags, memory_order_acquire);
    if (unlikely(!(flags & LAPIC_F_HW)))
        return LAPIC_REFUSED;
    if (likely(irq.mode <= IRQ_LOWEST)) {
        if (unlikely(!(flags & LAPIC_F_SW) || (irq.level && !irq.assert_)))
            return LAPIC_REFUSED;
        return accept_vector(l, irq.vector, irq.level, flags);
    }
    return accept_other(l, irq);
}

bool lapic_lint(struct lapic *l, unsigned lint, bool level)
{
    uint32_t bit = 1u << lint;
    if (!level) {
        atomic_fetch_and(&l->lint, ~bit);
        return false;
    }
    if (atomic_fetch_or(&l->lint, bit) & bit)
        return false;
    atomic_fetch_or(&l->events, lint ? LAPIC_EV_LINT1 : LAPIC_EV_LINT0);
    return true;
}

/* ---- the owner: local sources ---- */

/* SDM 3A, "Error Handling". An error interrupt whose own vector is illegal only adds to the register. */
void lapic_error(struct lapic *l, uint32_t bits)
{
    uint32_t lvt = l->lvt[LVT_ERROR];
    atomic_fetch_or(&l->errors, bits);
    if (lvt & APIC_LVT_MASKED)
        return;
    if ((lvt & APIC_LVT_VECTOR) < 16)
        atomic_fetch_or(&l->errors, APIC_ESR_RECV_ILLEGAL);
    else
        accept_vector(l, lvt & APIC_LVT_VECTOR, false, atomic_load(&l->flags));
}

/* Raise LVT entry `n` as an edge. SDM 3A, "Local Vector Table". */
static void local_deliver(struct lapic *l, unsigned n)
{
    uint32_t lvt = l->lvt[n];
    uint8_t mode = n == LVT_TIMER ? IRQ_FIXED : lvt >> APIC_LVT_MODE_SHIFT & 7;
    if (lvt & APIC_LVT_MASKED || l->mode == LAPIC_DISABLED)
        return;
    if (mode == IRQ_FIXED && (lvt & APIC_LVT_VECTOR) < 16)
        lapic_error(l, APIC_ESR_RECV_ILLEGAL);
    else if (mode == IRQ_FIXED)
        accept_vector(l, lvt & APIC_LVT_VECTOR, false, atomic_load(&l->flags));
    else if (mode == IRQ_NMI || mode == IRQ_SMI || mode == IRQ_INIT)
        accept_other(l, (struct irq){.mode = mode, .assert_ = 1});
}

static bool lint0_is_level(const struct lapic *l)
{
    uint32_t lvt = l->lvt[LVT_LINT0];
    return (lvt & (APIC_LVT_LEVEL | APIC_LVT_MASKED | 7u << APIC_LVT_MODE_SHIFT)) == APIC_LVT_LEVEL;
}

/* A level-triggered LINT0 requests again and again until the line falls; remote IRR holds it back between acceptance
 * and EOI. */
void lapic_lint0_level(struct lapic *l)
{
    uint32_t *lvt = &l->lvt[LVT_LINT0];
    if (!lint0_is_level(l) || *lvt & APIC_LVT_REMOTE_IRR || !(atomic_load(&l->lint) & 1) || l->mode == LAPIC_DISABLED)
        return;
    if ((*lvt & APIC_LVT_VECTOR) < 16) {
        lapic_error(l, APIC_ESR_RECV_ILLEGAL);
        return;
    }
    *lvt |= APIC_LVT_REMOTE_IRR;
    accept_vector(l, *lvt & APIC_LVT_VECTOR, true, 0);
}

/* With the APIC disabled LINT1 is the NMI pin. SDM 3A, "Local APIC Status and Location". */
static void lint_rose(struct lapic *l, unsigned lint)
{
    if (l->mode == LAPIC_DISABLED) {
        if (lint)
            event_add(l, LAPIC_EV_NMI);
        return;
    }
    if (!lint && lint0_is_level(l))
        lapic_lint0_level(l);
    else
        local_deliver(l, lint ? LVT_LINT1 : LVT_LINT0);
}

void lapic_settle(struct lapic *l)
{
    lapic_pv_eoi_sync(l);
    if (likely(!(atomic_load_explicit(&l->events, memory_order_acquire) & LAPIC_EV_INNER)))
        return;
    uint32_t ev = atomic_fetch_and(&l->events, ~(uint32_t)LAPIC_EV_INNER);
    if (ev & LAPIC_EV_ERROR)
        lapic_error(l, 0);
    if (ev & LAPIC_EV_LINT0)
        lint_rose(l, 0);
    if (ev & LAPIC_EV_LINT1)
        lint_rose(l, 1);
}

bool lapic_timer_poll(struct lapic *l, uint64_t now)
{
    if (!lapic_timer_expire(&l->timer, now))
        return false;
    local_deliver(l, LVT_TIMER);
    return true;
}

/* ---- the owner: priorities, acknowledge, EOI ---- */

uint32_t lapic_ppr(const struct lapic *l)
{
    int isrv = highest(l->isr);
    uint32_t isr_class = isrv < 0 ? 0 : (uint32_t)isrv & 0xf0;
    return (l->tpr & 0xf0) >= isr_class ? l->tpr : isr_class;
}

int lapic_pending(const struct lapic *l)
{
    int v = highest_atomic(l->irr);
    if (v < 0 || l->mode == LAPIC_DISABLED)
        return -1;
    return (uint32_t)v >> 4 > lapic_ppr(l) >> 4 ? v : -1;
}

void lapic_pv_eoi_sync(struct lapic *l)
{
    if (likely(!l->pv_eoi_lent))
        return;
    l->pv_eoi_lent = false;
    if (!(__atomic_fetch_and(l->pv_eoi, (uint8_t)~1, __ATOMIC_ACQ_REL) & 1))
        lapic_eoi(l);
}

/* Lend the guest the bit, if its clearing it would be all that the EOI is: no I/O APIC to tell, nothing that waits to
 * be delivered next. What comes later takes the bit back first. */
static void lend_pv_eoi(struct lapic *l, int v)
{
    if (highest_atomic(l->irr) >= 0 || atomic_load_explicit(&l->tmr[v >> 6], memory_order_relaxed) & BIT(v & 63))
        return;
    __atomic_fetch_or(l->pv_eoi, 1, __ATOMIC_RELEASE);
    l->pv_eoi_lent = true;
}

uint8_t lapic_take(struct lapic *l)
{
    lapic_pv_eoi_sync(l);
    int v = lapic_pending(l);
    if (v < 0)
        return l->svr & APIC_LVT_VECTOR;
    atomic_fetch_and(&l->irr[v >> 6], ~BIT(v & 63));
    l->isr[v >> 6] |= BIT(v & 63);
    if (l->pv_eoi)
        lend_pv_eoi(l, v);
    return (uint8_t)v;
}

bool lapic_extint(const struct lapic *l)
{
    if (unlikely(atomic_load_explicit(&l->events, memory_order_relaxed) & LAPIC_EV_EXTINT))
        return true;
    if (likely(!(atomic_load_explicit(&l->lint, memory_order_acquire) & 1)))
        return false;
    uint32_t lvt = l->lvt[LVT_LINT0];
    return l->mode == LAPIC_DISABLED ||
           (lvt & (APIC_LVT_MASKED | 7u << APIC_LVT_MODE_SHIFT)) == IRQ_EXTINT << APIC_LVT_MODE_SHIFT;
}

/* SDM 3A, "Signaling Interrupt Servicing Completion". With EOI-broadcast suppression the I/O APIC is told by its own
 * EOI register. */
struct lapic_effect lapic_eoi(struct lapic *l)
{
    struct lapic_effect fx = {LAPIC_NONE, 0, {0}};
    int v = highest(l->isr);
    if (v < 0)
        return fx;
    l->isr[v >> 6] &= ~BIT(v & 63);
    if (likely(!(atomic_load_explicit(&l->tmr[v >> 6], memory_order_acquire) & BIT(v & 63))))
        return fx;
    if (l->lvt[LVT_LINT0] & APIC_LVT_REMOTE_IRR && (l->lvt[LVT_LINT0] & APIC_LVT_VECTOR) == (uint32_t)v) {
        l->lvt[LVT_LINT0] &= ~APIC_LVT_REMOTE_IRR;
        lapic_lint0_level(l);
    }
    if (!(l->svr & APIC_SVR_DIRECTED_EOI)) {
        fx.kind = LAPIC_EOI_LEVEL;
        fx.vector = (uint8_t)v;
    }
    return fx;
}

/* ---- IA32_APIC_BASE ---- */

bool lapic_base_valid(const struct lapic *l, uint64_t val)
{
    uint64_t known = APIC_BASE_ADDR | APIC_BASE_EN | APIC_BASE_BSP | (l->x2apic ? APIC_BASE_EXTD : 0);
    return !(val & ~known) && (val & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EXTD;
}

/* SDM 3A, "x2APIC State Transitions" and "Enabling or Disabling the Local APIC". */
bool lapic_base_write(struct lapic *l, uint64_t val, struct lapic_effect *fx)
{
    uint64_t on = val & (APIC_BASE_EN | APIC_BASE_EXTD);
    if (!lapic_base_valid(l, val))
        return false;
    if (l->mode == LAPIC_X2APIC && on == APIC_BASE_EN)
        return false;
    if (l->mode == LAPIC_DISABLED && on & APIC_BASE_EXTD)
        return false;
    uint8_t old = l->mode;
    lapic_set_base(l, val);
    fx->kind = LAPIC_MODE;
    if (l->mode == old)
        return true;
    if (l->mode == LAPIC_X2APIC) {
        l->icr &= 0xffffffffu;
    } else {
        reset_registers(l);
        l->xid = (uint8_t)l->id.id;
    }
    return true;
}
