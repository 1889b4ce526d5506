/* The register file of a local APIC, in its two dresses: the xAPIC page and the x2APIC MSRs. SDM 3A, "Local APIC
 * Register Address Map" and "x2APIC Register Address Space". */
#include "irq/lapic_priv.h"
#include "x86/cpu.h"

static const struct lapic_effect no_effect = {LAPIC_NONE, 0, {0}};

/* Bits a guest may set in each LVT entry; the others are reserved (read-only ones are in lvt_readonly). */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = APIC_LVT_VECTOR | APIC_LVT_MASKED | APIC_LVT_TIMER_MODE,
    [LVT_THERMAL] = APIC_LVT_VECTOR | APIC_LVT_MASKED | 0x700,
    [LVT_PERF] = APIC_LVT_VECTOR | APIC_LVT_MASKED | 0x700,
    [LVT_LINT0] = APIC_LVT_VECTOR | APIC_LVT_MASKED | 0x700 | APIC_LVT_POLARITY | APIC_LVT_LEVEL,
    [LVT_LINT1] = APIC_LVT_VECTOR | APIC_LVT_MASKED | 0x700 | APIC_LVT_POLARITY | APIC_LVT_LEVEL,
    [LVT_ERROR] = APIC_LVT_VECTOR | APIC_LVT_MASKED,
};

#define SVR_WRITABLE (APIC_LVT_VECTOR | APIC_SVR_ENABLE | APIC_SVR_FOCUS_OFF | APIC_SVR_DIRECTED_EOI)

static inline bool is_lvt(unsigned reg)
{
    return reg >= APIC_LVT_TIMER && reg <= APIC_LVT_ERROR;
}

static inline unsigned lvt_index(unsigned reg)
{
    return reg - APIC_LVT_TIMER;
}

static uint32_t slice_atomic(const _Atomic uint64_t r[4], unsigned n)
{
    return (uint32_t)(atomic_load_explicit(&r[n >> 1], memory_order_acquire) >> (n & 1) * 32);
}

static uint32_t read_vectors(const struct lapic *l, unsigned reg)
{
    unsigned n = reg & 7;
    if (reg < APIC_TMR)
        return (uint32_t)(l->isr[n >> 1] >> (n & 1) * 32);
    return slice_atomic(reg < APIC_IRR ? l->tmr : l->irr, n);
}

/* x2APIC: the logical ID follows from the ID. SDM 3A, "Deriving Logical x2APIC ID from the Local x2APIC ID". */
static uint32_t read_ldr(const struct lapic *l)
{
    if (l->mode == LAPIC_X2APIC)
        return (l->id.id >> 4) << 16 | 1u << (l->id.id & 15);
    return l->ldr;
}

bool lapic_read_common(struct lapic *l, uint64_t now, unsigned reg, uint32_t *val)
{
    if (reg >= APIC_ISR && reg < APIC_ESR) {
        *val = read_vectors(l, reg);
        return true;
    }
    if (is_lvt(reg)) {
        *val = l->lvt[lvt_index(reg)];
        return true;
    }
    switch (reg) {
    case APIC_ID_REG:
        *val = l->mode == LAPIC_X2APIC ? l->id.id : (uint32_t)l->xid << 24;
        return true;
    case APIC_VERSION:
        *val = APIC_VERSION_VALUE;
        return true;
    case APIC_TPR:
        *val = l->tpr;
        return true;
    case APIC_PPR:
        *val = lapic_ppr(l);
        return true;
    case APIC_LDR:
        *val = read_ldr(l);
        return true;
    case APIC_SVR:
        *val = l->svr;
        return true;
    case APIC_ESR:
        *val = l->esr;
        return true;
    case APIC_ICR:
        *val = (uint32_t)l->icr;
        return true;
    case APIC_TMICT:
        *val = l->timer.initial;
        return true;
    case APIC_TMCCT:
        lapic_timer_poll(l, now);
        *val = lapic_timer_count(&l->timer, now);
        return true;
    case APIC_TDCR:
        *val = l->timer.divide;
        return true;
    default:
        return false;
    }
}

uint32_t lapic_read(struct lapic *l, uint64_t now, uint32_t off)
{
    unsigned reg = off >> 4 & 0xff;
    uint32_t val = 0;
    if ((off & 0xf) > 3)
        return 0;
    lapic_settle(l);
    switch (reg) {
    case APIC_DFR:
        val = l->dfr;
        break;
    case APIC_ICR2:
        val = (uint32_t)(l->icr >> 32);
        break;
    case APIC_APR:
    case APIC_RRD:
    case APIC_EOI:
        break;
    default:
        if (!lapic_read_common(l, now, reg, &val))
            lapic_error(l, APIC_ESR_BAD_REGISTER);
    }
    return val >> (off & 3) * 8;
}

bool lapic_msr_read(struct lapic *l, uint64_t now, uint32_t msr, uint64_t *val)
{
    uint32_t low = 0;
    if (msr == MSR_APIC_BASE) {
        *val = l->base;
        return true;
    }
    unsigned reg = msr - MSR_X2APIC_FIRST;
    if (l->mode != LAPIC_X2APIC || reg > 0x3f)
        return false;
    lapic_settle(l);
    if (reg == APIC_ICR) {
        *val = l->icr;
        return true;
    }
    if (!lapic_read_common(l, now, reg, &low))
        return false;
    *val = low;
    return true;
}

/* ---- writes both dresses have ---- */

/* SDM 3A, "Local APIC State After It Has Been Software Disabled": the mask bits are set and stay so. */
void lapic_put_svr(struct lapic *l, uint32_t val)
{
    l->svr = val & SVR_WRITABLE;
    if (l->svr & APIC_SVR_ENABLE) {
        atomic_fetch_or(&l->flags, LAPIC_F_SW);
        return;
    }
    atomic_fetch_and(&l->flags, ~(uint32_t)LAPIC_F_SW);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] |= APIC_LVT_MASKED;
}

static void write_svr(struct lapic *l, uint32_t val)
{
    lapic_put_svr(l, val);
    if (!(l->svr & APIC_SVR_ENABLE))
        lapic_timer_set_lvt(&l->timer, l->lvt[LVT_TIMER]);
}

void lapic_put_lvt(struct lapic *l, unsigned n, uint32_t val)
{
    uint32_t *lvt = &l->lvt[n];
    val &= lvt_writable[n];
    if (!(l->svr & APIC_SVR_ENABLE))
        val |= APIC_LVT_MASKED;
    if (n == LVT_LINT0 && val & APIC_LVT_LEVEL)
        val |= *lvt & APIC_LVT_REMOTE_IRR;
    *lvt = val;
}

static void write_lvt(struct lapic *l, unsigned n, uint32_t val)
{
    lapic_put_lvt(l, n, val);
    if (n == LVT_TIMER)
        lapic_timer_set_lvt(&l->timer, l->lvt[n]);
    else if (n == LVT_LINT0)
        lapic_lint0_level(l);
}

/* SDM 3A, "Interrupt Command Register (ICR)". The trigger mode counts for INIT alone; a fixed IPI with an illegal
 * vector is logged, not sent. */
static struct lapic_effect send(struct lapic *l, uint32_t low, uint32_t dest, bool dest8)
{
    struct irq irq = {.dest = dest,
                      .vector = (uint8_t)low,
                      .mode = low >> 8 & 7,
                      .logical = low >> 11 & 1,
                      .assert_ = low >> 14 & 1,
                      .level = low >> 15 & 1,
                      .shorthand = low >> 18 & 3,
                      .dest8 = dest8};
    if (irq.mode != IRQ_INIT) {
        irq.level = 0;
        irq.assert_ = 1;
    }
    if (irq.mode <= IRQ_LOWEST && irq.vector < 16) {
        lapic_error(l, APIC_ESR_SEND_ILLEGAL);
        return no_effect;
    }
    return (struct lapic_effect){.kind = LAPIC_SEND, .irq = irq};
}

static void write_esr(struct lapic *l)
{
    l->esr = atomic_exchange(&l->errors, 0);
}

/* False: not writable, or none of that number. Timer registers see expiries up to `now` first. */
static bool write_common(struct lapic *l, uint64_t now, unsigned reg, uint32_t val, struct lapic_effect *fx)
{
    if (is_lvt(reg)) {
        lapic_timer_poll(l, now);
        write_lvt(l, lvt_index(reg), val);
        return true;
    }
    switch (reg) {
    case APIC_TPR:
        l->tpr = val & 0xff;
        return true;
    case APIC_EOI:
        *fx = lapic_eoi(l);
        return true;
    case APIC_SVR:
        lapic_timer_poll(l, now);
        write_svr(l, val);
        return true;
    case APIC_ESR:
        write_esr(l);
        return true;
    case APIC_TMICT:
        lapic_timer_poll(l, now);
        lapic_timer_set_initial(&l->timer, now, val);
        return true;
    case APIC_TDCR:
        lapic_timer_poll(l, now);
        lapic_timer_set_divide(&l->timer, now, val);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC ---- */

static bool is_readonly(unsigned reg)
{
    return reg == APIC_VERSION || reg == APIC_APR || reg == APIC_PPR || reg == APIC_RRD ||
           (reg >= APIC_ISR && reg < APIC_ESR) || reg == APIC_TMCCT;
}

struct lapic_effect lapic_write(struct lapic *l, uint64_t now, uint32_t off, uint32_t val)
{
    struct lapic_effect fx = no_effect;
    unsigned reg = off >> 4 & 0xff;
    if (off & 0xf)
        return fx;
    lapic_settle(l);
    switch (reg) {
    case APIC_ID_REG:
        l->xid = (uint8_t)(val >> 24);
        fx.kind = LAPIC_MODE;
        break;
    case APIC_LDR:
        l->ldr = val & 0xff000000u;
        fx.kind = LAPIC_MODE;
        break;
    case APIC_DFR:
        l->dfr = val | 0x0fffffffu;
        fx.kind = LAPIC_MODE;
        break;
    case APIC_ICR:
        l->icr = (l->icr & ~UINT64_C(0xffffffff)) | (val & ~(APIC_ICR_RESERVED | APIC_ICR_BUSY));
        fx = send(l, val, (uint32_t)(l->icr >> 56), true);
        break;
    case APIC_ICR2:
        l->icr = (l->icr & 0xffffffffu) | (uint64_t)(val & 0xff000000u) << 32;
        break;
    default:
        if (!write_common(l, now, reg, val, &fx) && !is_readonly(reg))
            lapic_error(l, APIC_ESR_BAD_REGISTER);
    }
    return fx;
}

/* ---- x2APIC ---- */

/* Reserved bits of a register: writing one is #GP. SDM 3A, "Reserved Bit Checking". */
static uint32_t x2_reserved(unsigned reg)
{
    if (is_lvt(reg))
        return ~(lvt_writable[lvt_index(reg)] | APIC_LVT_STATUS |
                 (reg == APIC_LVT_LINT0 || reg == APIC_LVT_LINT1 ? APIC_LVT_REMOTE_IRR : 0));
    switch (reg) {
    case APIC_TPR:
    case APIC_SELF_IPI:
        return ~0xffu;
    case APIC_EOI:
    case APIC_ESR:
        return ~0u;
    case APIC_SVR:
        return ~SVR_WRITABLE;
    case APIC_TDCR:
        return ~0xbu;
    default:
        return 0;
    }
}

bool lapic_msr_write(struct lapic *l, uint64_t now, uint32_t msr, uint64_t val, struct lapic_effect *fx)
{
    *fx = no_effect;
    lapic_settle(l);
    if (msr == MSR_APIC_BASE)
        return lapic_base_write(l, val, fx);
    unsigned reg = msr - MSR_X2APIC_FIRST;
    uint32_t low = (uint32_t)val;
    if (l->mode != LAPIC_X2APIC || reg > 0x3f)
        return false;
    if (reg == APIC_ICR) {
        if (low & APIC_ICR_RESERVED)
            return false;
        l->icr = val & ~(uint64_t)APIC_ICR_BUSY;
        *fx = send(l, low, (uint32_t)(val >> 32), false);
        return true;
    }
    if (val >> 32 || low & x2_reserved(reg))
        return false;
    if (reg == APIC_SELF_IPI) {
        *fx = send(l, low | IRQ_SELF << 18, 0, false);
        return true;
    }
    return write_common(l, now, reg, low, fx);
}
