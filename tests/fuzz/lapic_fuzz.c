/* Scripts of register accesses, messages, time and acknowledgements on a fabric of six local APICs. */
#include "irq_fuzz.h"

/* What holds whatever a guest does. */
static void check(struct fuzz_box *b, uint32_t cpu)
{
    struct lapic *l = &b->f->lapic[cpu];
    uint64_t base = 0;
    ensure(fabric_msr_read(b->f, VCPU_IDX(cpu), 0, MSR_APIC_BASE, &base));
    ensure((base & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EXTD);
    ensure(!(atomic_load(&l->irr[0]) & 0xffff) && !(l->isr[0] & 0xffff));
    ensure(atomic_load(&b->f->words[cpu]) == dest_word_of(l));
    int v = lapic_pending(l);
    ensure(v < 256 && (v < 0 || (uint32_t)v >> 4 > lapic_ppr(l) >> 4));
    ensure(l->mode == LAPIC_DISABLED || !(atomic_load(&l->flags) & LAPIC_F_SW) == !(l->svr & APIC_SVR_ENABLE));
    for (unsigned i = 0; i < LVT_COUNT && !(l->svr & APIC_SVR_ENABLE); i++)
        ensure(l->lvt[i] & APIC_LVT_MASKED || (i == LVT_LINT0 && l->bsp));
}

/* A vector that can be taken after a write has been announced. */
static void write_msr(struct fuzz_box *b, uint32_t cpu, uint64_t now, uint32_t msr, uint64_t val)
{
    uint64_t kicks = b->kicks[cpu];
    bool was = lapic_pending(&b->f->lapic[cpu]) >= 0;
    fabric_msr_write(b->f, VCPU_IDX(cpu), now, msr, val);
    ensure(was || lapic_pending(&b->f->lapic[cpu]) < 0 || b->kicks[cpu] > kicks);
}

static void step(struct fuzz_box *b, struct script *s, uint64_t *now)
{
    uint8_t op = (uint8_t)script_get(s, 1), page;
    uint32_t cpu = (op >> 4) % FUZZ_CPUS;
    vcpu_idx_t c = VCPU_IDX(cpu);
    uint64_t val;
    switch (op & 15) {
    case 0:
        fabric_deliver(b->f, fuzz_irq(s));
        break;
    case 1:
        page = (uint8_t)script_get(s, 1);
        write_msr(b, cpu, *now, 0x800 + (page & 0x3f), script_get(s, page & 0x80 ? 8 : 2));
        break;
    case 2:
        val = script_get(s, 2);
        fabric_mmio_write(b->f, c, *now, (uint32_t)val & 0xfff, (uint32_t)script_get(s, 4));
        break;
    case 3:
        fabric_mmio_read(b->f, c, *now, (uint32_t)script_get(s, 2) & 0xfff);
        break;
    case 4:
        fabric_msr_read(b->f, c, *now, 0x800 + (script_get(s, 1) & 0x3f), &val);
        break;
    case 5:
        write_msr(b, cpu, *now, MSR_APIC_BASE, APIC_BASE_DEFAULT | (script_get(s, 1) & 3) << 10);
        break;
    case 6:
        write_msr(b, cpu, *now, MSR_APIC_BASE, script_get(s, 8));
        break;
    case 7:
        ensure(fabric_irq_pending(b->f, c) < 0 || fabric_irq_take(b->f, c) < 256);
        break;
    case 8:
        fabric_events_take(b->f, c, &page);
        break;
    case 9:
        fabric_lint(b->f, c, script_get(s, 1) & 3, op & 0x80);
        break;
    case 10:
        *now += script_get(s, 3);
        fabric_timer_expire(b->f, c, *now);
        ensure(fabric_timer_deadline(b->f, c) > *now);
        break;
    case 11:
        fabric_deadline_set(b->f, c, *now, script_get(s, 4));
        break;
    case 12:
        fabric_cr8_set(b->f, c, (uint8_t)script_get(s, 1));
        break;
    case 13:
        fabric_mmio_write(b->f, c, *now, 0xf0, 0x1ff);
        fabric_msr_write(b->f, c, *now, 0x80f, 0x1ff);
        break;
    case 14:
        fabric_events_put(b->f, c, (unsigned)script_get(s, 1));
        break;
    default:
        if (script_get(s, 1) == 0x5a)
            fabric_reset(b->f);
    }
    check(b, cpu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, size};
    struct fuzz_box b;
    uint64_t now = 0;
    fuzz_box_init(&b, script_get(&s, 1) & 1);
    while (s.left)
        step(&b, &s, &now);
    fuzz_box_fini(&b);
    return 0;
}
