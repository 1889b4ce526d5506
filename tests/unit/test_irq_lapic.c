/* One local APIC at a time: registers, modes, priorities, LVT, timer, errors. */
#include "irq_rig.h"

/* IDs are not indices here: 3, 12Ch, FFFh. */
static const uint32_t ids[] = {3, 0x12c, 0xfff};

static void setup_x2(struct rig *r)
{
    rig_init(r, ids, 3, true);
    rig_enable(r);
}

static void setup_x(struct rig *r)
{
    rig_init(r, ids, 3, false);
    rig_enable(r);
}

static bool wrmsr(struct rig *r, uint32_t cpu, unsigned reg, uint64_t val)
{
    return fabric_msr_write(r->f, VCPU_IDX(cpu), r->now, MSR_X2APIC_FIRST + reg, val);
}

static bool rdmsr_ok(struct rig *r, uint32_t cpu, unsigned reg)
{
    uint64_t v;
    return fabric_msr_read(r->f, VCPU_IDX(cpu), r->now, MSR_X2APIC_FIRST + reg, &v);
}

static uint64_t base_of(struct rig *r, uint32_t cpu)
{
    uint64_t v = 0;
    assert_true(fabric_msr_read(r->f, VCPU_IDX(cpu), r->now, MSR_APIC_BASE, &v));
    return v;
}

static int pending(struct rig *r, uint32_t cpu)
{
    return fabric_irq_pending(r->f, VCPU_IDX(cpu));
}

static int take(struct rig *r, uint32_t cpu)
{
    return fabric_irq_take(r->f, VCPU_IDX(cpu));
}

static void power_on_state_is_the_manuals(void **state)
{
    struct rig r;
    rig_init(&r, ids, 3, false);
    assert_int_equal(base_of(&r, 0), 0xfee00900);
    assert_int_equal(base_of(&r, 1), 0xfee00800);
    assert_int_equal(rig_rd(&r, 1, APIC_ID_REG), 0x2c000000);
    assert_int_equal(rig_rd(&r, 1, APIC_SVR), 0xff);
    assert_int_equal(rig_rd(&r, 1, APIC_DFR), 0xffffffff);
    assert_int_equal(rig_rd(&r, 1, APIC_LDR), 0);
    assert_int_equal(rig_rd(&r, 1, APIC_VERSION), 0x01050014);
    for (unsigned reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg++)
        assert_int_equal(rig_rd(&r, 1, reg), APIC_LVT_MASKED);
    assert_int_equal(rig_rd(&r, 0, APIC_LVT_LINT0), 0x700);
    rig_fini(&r);
}

static void firmware_leaves_x2apic_mode_with_full_ids(void **state)
{
    struct rig r;
    rig_init(&r, ids, 3, true);
    assert_int_equal(base_of(&r, 0), 0xfee00d00);
    assert_int_equal(base_of(&r, 2), 0xfee00c00);
    assert_int_equal(rig_rd(&r, 2, APIC_ID_REG), 0xfff);
    assert_int_equal(rig_rd(&r, 1, APIC_LDR), 0x121000);
    assert_int_equal(fabric_mmio_base(r.f, VCPU_IDX(1)), UINT64_MAX);
    rig_fini(&r);
}

static void mode_transitions(void **state)
{
    struct rig r;
    setup_x(&r);
    assert_false(rig_base(&r, 1, APIC_BASE_EXTD));
    assert_false(rig_base(&r, 1, APIC_BASE_EN | 1));
    assert_false(rig_base(&r, 1, APIC_BASE_EN | BIT(52)));
    assert_true(rig_base(&r, 1, 0));
    assert_int_equal(fabric_mmio_base(r.f, VCPU_IDX(1)), UINT64_MAX);
    assert_false(rig_base(&r, 1, APIC_BASE_EN | APIC_BASE_EXTD));
    assert_true(rig_base(&r, 1, APIC_BASE_EN));
    assert_int_equal(rig_rd(&r, 1, APIC_SVR), 0xff); /* state did not survive */
    rig_wr(&r, 1, APIC_TPR, 0x35);
    rig_wr(&r, 1, APIC_SVR, 0x1aa);
    assert_true(rig_base(&r, 1, APIC_BASE_EN | APIC_BASE_EXTD));
    assert_int_equal(rig_rd(&r, 1, APIC_TPR), 0x35); /* it does, from xAPIC to x2APIC */
    assert_int_equal(rig_rd(&r, 1, APIC_SVR), 0x1aa);
    assert_int_equal(rig_rd(&r, 1, APIC_ID_REG), 0x12c);
    assert_false(rig_base(&r, 1, APIC_BASE_EN));
    assert_true(rig_base(&r, 1, APIC_BASE_EN | APIC_BASE_EXTD));
    assert_true(rig_base(&r, 1, 0));
    assert_true(rig_base(&r, 1, APIC_BASE_EN));
    assert_int_equal(rig_rd(&r, 1, APIC_ID_REG), 0x2c000000);
    rig_fini(&r);
}

static void relocation_moves_the_page(void **state)
{
    struct rig r;
    setup_x(&r);
    assert_true(fabric_msr_write(r.f, VCPU_IDX(1), r.now, MSR_APIC_BASE, 0xfed40800));
    assert_int_equal(fabric_mmio_base(r.f, VCPU_IDX(1)), 0xfed40000);
    assert_int_equal(fabric_mmio_base(r.f, VCPU_IDX(2)), 0xfee00000);
    rig_fini(&r);
}

static void no_x2apic_without_cpuid(void **state)
{
    struct lapic *l = aligned_alloc(64, sizeof *l);
    struct lapic_effect fx;
    lapic_init(l, APIC_ID(7), false, false, false);
    assert_false(lapic_msr_write(l, 0, MSR_APIC_BASE, 0xfee00c00, &fx));
    assert_false(lapic_msr_write(l, 0, 0x808, 0, &fx));
    free(l);
}

static void x2apic_reserved_bits_and_registers_fault(void **state)
{
    static const unsigned no_write[] = {APIC_ID_REG, APIC_VERSION,  APIC_APR,     APIC_PPR, APIC_RRD, APIC_LDR,
                                        APIC_DFR,    APIC_ISR,      APIC_ISR + 7, APIC_TMR, APIC_IRR, APIC_IRR + 7,
                                        APIC_ICR2,   APIC_LVT_CMCI, APIC_TMCCT,   0,        1,        4,
                                        0x3a};
    static const unsigned no_read[] = {APIC_APR,      APIC_EOI,      APIC_RRD, APIC_DFR, APIC_ICR2,
                                       APIC_SELF_IPI, APIC_LVT_CMCI, 0,        0x3d};
    struct rig r;
    setup_x2(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(no_write); i++)
        assert_false(wrmsr(&r, 1, no_write[i], 0));
    for (unsigned i = 0; i < ARRAY_SIZE(no_read); i++)
        assert_false(rdmsr_ok(&r, 1, no_read[i]));
    assert_false(wrmsr(&r, 1, APIC_TPR, 0x100));
    assert_false(wrmsr(&r, 1, APIC_EOI, 1));
    assert_false(wrmsr(&r, 1, APIC_ESR, 1));
    assert_false(wrmsr(&r, 1, APIC_SVR, 0x400));
    assert_false(wrmsr(&r, 1, APIC_SELF_IPI, 0x131));
    assert_false(wrmsr(&r, 1, APIC_TDCR, 4));
    assert_false(wrmsr(&r, 1, APIC_TPR, BIT(32)));
    assert_false(wrmsr(&r, 1, APIC_LVT_TIMER, 0x80000));
    assert_false(wrmsr(&r, 1, APIC_LVT_ERROR, 0x400));
    for (unsigned bit = 0; bit < 32; bit++) {
        bool bad = bit >= 20 || bit == 17 || bit == 16 || bit == 13;
        assert_int_equal(wrmsr(&r, 1, APIC_ICR, UINT64_C(0x7777) << 32 | 0x31 | BIT(bit)), !bad);
    }
    assert_true(wrmsr(&r, 1, APIC_ICR, UINT64_C(0xabcdef01) << 32 | 0x31));
    assert_int_equal(rig_rd(&r, 1, APIC_ICR), UINT64_C(0xabcdef0100000031));
    rig_fini(&r);
    setup_x(&r);
    assert_false(rdmsr_ok(&r, 1, APIC_TPR));
    rig_fini(&r);
}

static uint64_t deadline(struct rig *r)
{
    return fabric_timer_deadline(r->f, VCPU_IDX(1));
}

static void expire_at(struct rig *r, uint64_t now)
{
    r->now = now;
    fabric_timer_expire(r->f, VCPU_IDX(1), now);
}

static void priorities_decide_what_is_taken(void **state)
{
    struct rig r;
    setup_x2(&r);
    assert_int_equal(pending(&r, 1), -1);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0x45)), 1);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0x4f)), 1);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0xe0)), 1);
    assert_int_equal(pending(&r, 1), 0xe0);
    assert_int_equal(take(&r, 1), 0xe0);
    assert_int_equal(rig_rd(&r, 1, APIC_PPR), 0xe0);
    assert_int_equal(pending(&r, 1), -1);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(take(&r, 1), 0x4f);
    assert_int_equal(pending(&r, 1), -1); /* 45h is of the same class */
    rig_wr(&r, 1, APIC_TPR, 0x4a);
    assert_int_equal(rig_rd(&r, 1, APIC_PPR), 0x4a);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(pending(&r, 1), -1); /* TPR holds it */
    fabric_cr8_set(r.f, VCPU_IDX(1), 3);
    assert_int_equal(rig_rd(&r, 1, APIC_TPR), 0x30);
    assert_int_equal(fabric_cr8_get(r.f, VCPU_IDX(1)), 3);
    assert_int_equal(take(&r, 1), 0x45);
    rig_wr(&r, 1, APIC_EOI, 0);
    rig_wr(&r, 1, APIC_EOI, 0);          /* nothing in service: nothing happens */
    assert_int_equal(take(&r, 1), 0xff); /* spurious */
    rig_fini(&r);
}

static void what_makes_a_vector_deliverable_kicks_its_owner(void **state)
{
    struct rig r;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_TPR, 0xf0);
    fabric_deliver(r.f, rig_fixed(0x12c, 0x45));
    r.kicks[1] = 0;
    fabric_cr8_set(r.f, VCPU_IDX(1), 8);
    assert_int_equal(r.kicks[1], 0);
    fabric_cr8_set(r.f, VCPU_IDX(1), 0);
    assert_int_equal(r.kicks[1], 1);
    assert_int_equal(take(&r, 1), 0x45);
    fabric_deliver(r.f, rig_fixed(0x12c, 0x46));
    r.kicks[1] = 0;
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(r.kicks[1], 1);
    assert_int_equal(r.kicks[0] + r.kicks[2], 0);
    assert_int_equal(take(&r, 1), 0x46);
    /* LINT1 as NMI, and a line that is high when LINT0 is unmasked */
    r.kicks[1] = 0;
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x700 | APIC_LVT_MASKED);
    fabric_lint(r.f, VCPU_IDX(1), 0, true);
    assert_int_equal(pending(&r, 1), -1);
    r.kicks[1] = 0;
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x700);
    assert_int_equal(r.kicks[1], 1);
    assert_int_equal(pending(&r, 1), FABRIC_IRQ_EXTINT);
    rig_fini(&r);
}

static void a_question_does_not_kick_for_what_is_known(void **state)
{
    struct rig r;
    setup_x2(&r);
    fabric_deliver(r.f, rig_fixed(0x12c, 0x45));
    r.kicks[1] = 0;
    base_of(&r, 1);
    rig_rd(&r, 1, APIC_TPR);
    fabric_irq_pending(r.f, VCPU_IDX(1));
    expire_at(&r, r.now + 1);
    assert_int_equal(r.kicks[1], 0); /* held back by IF = 0, say */
    assert_int_equal(take(&r, 1), 0x45);
    rig_wr(&r, 1, APIC_EOI, 0);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x40);
    rig_wr(&r, 1, APIC_TMICT, 100);
    r.now += 1000;
    assert_int_equal(r.kicks[1], 0);
    rig_rd(&r, 1, APIC_TMCCT); /* sees that the timer is due */
    assert_int_equal(r.kicks[1], 1);
    rig_fini(&r);
}

static void a_disabled_apic_takes_what_the_manual_lets_it(void **state)
{
    struct rig r;
    uint8_t page;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_LVT_ERROR, 0x41);
    fabric_deliver(r.f, rig_fixed(0x12c, 0x45));
    rig_wr(&r, 1, APIC_SVR, 0xff);
    assert_int_equal(rig_rd(&r, 1, APIC_LVT_ERROR), APIC_LVT_MASKED | 0x41);
    rig_wr(&r, 1, APIC_LVT_ERROR, 0x42);
    assert_int_equal(rig_rd(&r, 1, APIC_LVT_ERROR), APIC_LVT_MASKED | 0x42);
    assert_int_equal(pending(&r, 1), 0x45); /* what was held stays */
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 0x55)), 0);
    assert_int_equal(fabric_deliver(r.f, (struct irq){.dest = 0x12c, .mode = IRQ_NMI, .assert_ = 1}), 1);
    assert_int_equal(fabric_deliver(r.f, (struct irq){.dest = 0x12c, .mode = IRQ_INIT, .assert_ = 1}), 1);
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(1), &page), FABRIC_EV_INIT); /* the NMI was before it */
    rig_base(&r, 1, 0);
    assert_int_equal(fabric_deliver(r.f, (struct irq){.dest = 0x12c, .mode = IRQ_NMI, .assert_ = 1}), 0);
    rig_fini(&r);
}

static void init_keeps_base_and_mode(void **state)
{
    struct rig r;
    uint8_t page = 0;
    setup_x2(&r);
    rig_wr(&r, 2, APIC_TPR, 0x20);
    fabric_deliver(r.f, rig_fixed(0xfff, 0x45));
    fabric_deliver(r.f, (struct irq){.dest = 0xfff, .mode = IRQ_INIT, .assert_ = 1});
    fabric_deliver(r.f, (struct irq){.dest = 0xfff, .mode = IRQ_INIT, .level = 1, .assert_ = 0}); /* de-assert */
    fabric_deliver(r.f, (struct irq){.dest = 0xfff, .mode = IRQ_STARTUP, .vector = 0x9a, .assert_ = 1});
    assert_true(fabric_events_pending(r.f, VCPU_IDX(2)));
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(2), &page), FABRIC_EV_INIT | FABRIC_EV_SIPI);
    assert_int_equal(page, 0x9a);
    assert_false(fabric_events_pending(r.f, VCPU_IDX(2)));
    assert_int_equal(base_of(&r, 2), 0xfee00c00);
    assert_int_equal(rig_rd(&r, 2, APIC_TPR), 0);
    assert_int_equal(rig_rd(&r, 2, APIC_SVR), 0xff);
    assert_int_equal(pending(&r, 2), -1);
    assert_int_equal(rig_rd(&r, 2, APIC_LDR), 0xff8000);
    fabric_events_put(r.f, VCPU_IDX(2), FABRIC_EV_NMI);
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(2), &page), FABRIC_EV_NMI);
    rig_fini(&r);
}

static void illegal_vectors_are_logged(void **state)
{
    struct rig r;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_LVT_ERROR, 0x51);
    assert_int_equal(fabric_deliver(r.f, rig_fixed(0x12c, 5)), 1);
    assert_int_equal(pending(&r, 1), 0x51);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), 0); /* a write latches */
    rig_wr(&r, 1, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), APIC_ESR_RECV_ILLEGAL);
    rig_wr(&r, 1, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), 0);
    rig_wr(&r, 1, APIC_ICR, UINT64_C(0xfff) << 32 | 0xf);
    rig_wr(&r, 1, APIC_SELF_IPI, 3);
    rig_wr(&r, 1, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), APIC_ESR_SEND_ILLEGAL);
    rig_wr(&r, 2, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 2, APIC_ESR), 0); /* not sent */
    rig_wr(&r, 2, APIC_LVT_ERROR, 0x1);           /* its own vector is illegal: no recursion */
    fabric_deliver(r.f, rig_fixed(0xfff, 1));
    assert_int_equal(pending(&r, 2), -1);
    rig_fini(&r);
}

static void unknown_xapic_registers_are_logged_and_harmless(void **state)
{
    struct rig r;
    setup_x(&r);
    for (uint32_t off = 0; off < 0x1000; off++) {
        if (off >> 4 == APIC_ICR)
            continue;
        fabric_mmio_read(r.f, VCPU_IDX(1), r.now, off);
        fabric_mmio_write(r.f, VCPU_IDX(1), r.now, off, 0);
    }
    rig_wr(&r, 1, APIC_ESR, 0);
    rig_wr(&r, 1, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), 0);
    fabric_mmio_read(r.f, VCPU_IDX(1), r.now, 0x400);
    rig_wr(&r, 1, APIC_ESR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ESR), APIC_ESR_BAD_REGISTER);
    rig_fini(&r);
}

static void xapic_registers_read_back(void **state)
{
    struct rig r;
    setup_x(&r);
    rig_wr(&r, 1, APIC_LDR, 0xffffffff);
    assert_int_equal(rig_rd(&r, 1, APIC_LDR), 0xff000000);
    rig_wr(&r, 1, APIC_DFR, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_DFR), 0x0fffffff);
    rig_wr(&r, 1, APIC_ID_REG, 0xaa123456);
    assert_int_equal(rig_rd(&r, 1, APIC_ID_REG), 0xaa000000);
    rig_wr(&r, 1, APIC_ICR2, 0x11223344);
    assert_int_equal(rig_rd(&r, 1, APIC_ICR2), 0x11000000);
    rig_wr(&r, 1, APIC_ICR, 0x31 | APIC_ICR_BUSY);
    assert_int_equal(rig_rd(&r, 1, APIC_ICR), 0x31);
    rig_wr(&r, 1, APIC_SVR, 0xffffffff);
    assert_int_equal(rig_rd(&r, 1, APIC_SVR), 0x13ff);
    rig_wr(&r, 1, APIC_LVT_PERF, 0xffffffff);
    assert_int_equal(rig_rd(&r, 1, APIC_LVT_PERF), 0x107ff);
    assert_int_equal(fabric_mmio_read(r.f, VCPU_IDX(1), r.now, (APIC_VERSION << 4) + 2), 0x0105);
    assert_int_equal(fabric_mmio_read(r.f, VCPU_IDX(1), r.now, (APIC_VERSION << 4) + 4), 0);
    rig_fini(&r);
}

static void requests_show_in_irr_isr_tmr(void **state)
{
    struct rig r;
    struct irq level = rig_fixed(0x12c, 0xb7);
    level.level = 1;
    setup_x(&r);
    assert_int_equal(fabric_deliver(r.f, level), 1);
    assert_int_equal(rig_rd(&r, 1, APIC_IRR + 5), 1u << 23);
    assert_int_equal(rig_rd(&r, 1, APIC_TMR + 5), 1u << 23);
    assert_int_equal(take(&r, 1), 0xb7);
    assert_int_equal(rig_rd(&r, 1, APIC_IRR + 5), 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ISR + 5), 1u << 23);
    level.level = 0;
    fabric_deliver(r.f, level);
    assert_int_equal(rig_rd(&r, 1, APIC_TMR + 5), 0);
    level.level = 1;
    level.assert_ = 0;
    assert_int_equal(fabric_deliver(r.f, level), 0);
    rig_fini(&r);
}

static unsigned eois;
static uint8_t eoi_vector;

static void count_eoi(void *opaque, uint8_t vector)
{
    eois++;
    eoi_vector = vector;
}

static void only_level_vectors_tell_the_io_apic(void **state)
{
    struct rig r;
    struct irq level = rig_fixed(0x12c, 0x61);
    level.level = 1;
    setup_x2(&r);
    fabric_set_eoi(r.f, count_eoi, NULL);
    eois = 0;
    fabric_deliver(r.f, rig_fixed(0x12c, 0x61));
    take(&r, 1);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(eois, 0);
    fabric_deliver(r.f, level);
    take(&r, 1);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(eoi_vector, 0x61);
    rig_wr(&r, 1, APIC_SVR, 0x1ff | APIC_SVR_DIRECTED_EOI);
    fabric_deliver(r.f, level);
    take(&r, 1);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(eois, 1);
    rig_fini(&r);
}

static void lint_pins_follow_the_lvt(void **state)
{
    struct rig r;
    uint8_t page;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_LVT_LINT1, 0x400);
    fabric_lint(r.f, VCPU_IDX(1), 1, true);
    fabric_lint(r.f, VCPU_IDX(1), 1, true);
    assert_int_equal(r.kicks[1], 1);
    assert_true(fabric_events_pending(r.f, VCPU_IDX(1)));
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(1), &page), FABRIC_EV_NMI);
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(1), &page), 0);
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x700);
    fabric_lint(r.f, VCPU_IDX(1), 0, true);
    r.pic_vector = 0x0b;
    assert_int_equal(take(&r, 1), 0x0b);
    assert_int_equal(r.inta, 1);
    fabric_lint(r.f, VCPU_IDX(1), 0, false);
    assert_int_equal(pending(&r, 1), -1);
    /* fixed, edge then level with remote IRR */
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x38);
    fabric_lint(r.f, VCPU_IDX(1), 0, true);
    assert_int_equal(pending(&r, 1), 0x38);
    take(&r, 1);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(pending(&r, 1), -1);
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x39 | APIC_LVT_LEVEL);
    assert_int_equal(pending(&r, 1), 0x39);
    assert_true(rig_rd(&r, 1, APIC_LVT_LINT0) & APIC_LVT_REMOTE_IRR);
    take(&r, 1);
    assert_int_equal(pending(&r, 1), -1);
    rig_wr(&r, 1, APIC_LVT_LINT0, 0x39 | APIC_LVT_LEVEL); /* remote IRR is not the guest's to clear */
    assert_true(rig_rd(&r, 1, APIC_LVT_LINT0) & APIC_LVT_REMOTE_IRR);
    assert_int_equal(rig_rd(&r, 1, APIC_IRR + 1), 0);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(take(&r, 1), 0x39);
    fabric_lint(r.f, VCPU_IDX(1), 0, false);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(pending(&r, 1), -1);
    assert_false(rig_rd(&r, 1, APIC_LVT_LINT0) & APIC_LVT_REMOTE_IRR);
    rig_fini(&r);
}

static void a_disabled_apic_is_a_wire(void **state)
{
    struct rig r;
    uint8_t page;
    setup_x(&r);
    rig_base(&r, 1, 0);
    fabric_lint(r.f, VCPU_IDX(1), 0, true);
    assert_int_equal(pending(&r, 1), FABRIC_IRQ_EXTINT);
    fabric_lint(r.f, VCPU_IDX(1), 1, true);
    assert_int_equal(fabric_events_take(r.f, VCPU_IDX(1), &page), FABRIC_EV_NMI);
    rig_fini(&r);
}

static void extint_messages_are_acknowledged_once(void **state)
{
    struct rig r;
    setup_x2(&r);
    r.pic_vector = 0x77;
    assert_int_equal(fabric_deliver(r.f, (struct irq){.dest = 0x12c, .mode = IRQ_EXTINT, .assert_ = 1}), 1);
    assert_int_equal(pending(&r, 1), FABRIC_IRQ_EXTINT);
    assert_int_equal(take(&r, 1), 0x77);
    assert_int_equal(pending(&r, 1), -1);
    rig_fini(&r);
}

static void one_shot_counts_down_once(void **state)
{
    struct rig r;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_TDCR, 3); /* by 16 */
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x40);
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    rig_wr(&r, 1, APIC_TMICT, 1000);
    assert_int_equal(deadline(&r), 1000 + 16000);
    r.now = 1000 + 15;
    assert_int_equal(rig_rd(&r, 1, APIC_TMCCT), 1000);
    r.now = 1000 + 16 * 400;
    assert_int_equal(rig_rd(&r, 1, APIC_TMCCT), 600);
    rig_wr(&r, 1, APIC_TDCR, 0xb); /* by 1: the 600 left go faster now */
    assert_int_equal(deadline(&r), r.now + 600);
    expire_at(&r, r.now + 599);
    assert_int_equal(pending(&r, 1), -1);
    r.kicks[1] = 0;
    expire_at(&r, r.now + 1);
    assert_int_equal(pending(&r, 1), 0x40);
    assert_int_equal(r.kicks[1], 1);
    expire_at(&r, r.now + 5000);
    assert_int_equal(r.kicks[1], 1); /* asking again does not kick again */
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    assert_int_equal(rig_rd(&r, 1, APIC_TMCCT), 0);
    assert_int_equal(rig_rd(&r, 1, APIC_TMICT), 1000);
    rig_fini(&r);
}

static void divider_codes(void **state)
{
    static const unsigned by[8] = {2, 4, 8, 16, 32, 64, 128, 1};
    struct rig r;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x40);
    for (unsigned i = 0; i < 8; i++) {
        rig_wr(&r, 1, APIC_TMICT, 0);
        rig_wr(&r, 1, APIC_TDCR, (i & 3) | (i & 4) << 1);
        rig_wr(&r, 1, APIC_TMICT, 0xffffffff);
        assert_true(deadline(&r) == r.now + UINT64_C(0xffffffff) * by[i]);
    }
    rig_fini(&r);
}

static void periodic_keeps_its_phase_and_coalesces(void **state)
{
    struct rig r;
    setup_x2(&r);
    rig_wr(&r, 1, APIC_TDCR, 0xb);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x20040);
    rig_wr(&r, 1, APIC_TMICT, 100000);
    expire_at(&r, 101000);
    assert_int_equal(take(&r, 1), 0x40);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(deadline(&r), 201000);
    expire_at(&r, 651234);
    assert_int_equal(take(&r, 1), 0x40);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(pending(&r, 1), -1);
    assert_int_equal(deadline(&r), 701000);
    assert_int_equal(rig_rd(&r, 1, APIC_TMCCT), 701000 - 651234);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x30040); /* masked: counts on, wakes nobody */
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    r.now = 1001000 + 7;
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x20040);
    assert_int_equal(pending(&r, 1), -1);
    assert_int_equal(deadline(&r), 1101000);
    rig_wr(&r, 1, APIC_TMICT, 1); /* absurdly short */
    assert_int_equal(deadline(&r), r.now + LAPIC_MIN_PERIOD_NS);
    expire_at(&r, r.now + LAPIC_MIN_PERIOD_NS);
    assert_int_equal(deadline(&r), r.now + LAPIC_MIN_PERIOD_NS);
    rig_wr(&r, 1, APIC_TMICT, 0);
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    rig_fini(&r);
}

static void tsc_deadline_fires_once_and_disarms(void **state)
{
    struct rig r;
    vcpu_idx_t c = VCPU_IDX(1);
    setup_x2(&r);
    fabric_deadline_set(r.f, c, r.now, 5000); /* not in that mode */
    assert_int_equal(fabric_deadline_get(r.f, c), 0);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x40040);
    rig_wr(&r, 1, APIC_TMICT, 500); /* ignored */
    assert_int_equal(rig_rd(&r, 1, APIC_TMICT), 0);
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    fabric_deadline_set(r.f, c, r.now, 5000);
    assert_int_equal(fabric_deadline_get(r.f, c), 5000);
    assert_int_equal(deadline(&r), 5000);
    assert_int_equal(rig_rd(&r, 1, APIC_TMCCT), 0);
    fabric_deadline_set(r.f, c, r.now, 0);
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    fabric_deadline_set(r.f, c, r.now, 6000);
    expire_at(&r, 6000);
    assert_int_equal(take(&r, 1), 0x40);
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_int_equal(fabric_deadline_get(r.f, c), 0);
    r.kicks[1] = 0;
    fabric_deadline_set(r.f, c, r.now, r.now - 1); /* already past: at once */
    assert_int_equal(r.kicks[1], 1);
    assert_int_equal(pending(&r, 1), 0x40);
    fabric_deadline_set(r.f, c, r.now, 9000);
    rig_wr(&r, 1, APIC_LVT_TIMER, 0x41); /* another mode: disarmed */
    assert_int_equal(deadline(&r), HEC_NS_NEVER);
    assert_int_equal(fabric_deadline_get(r.f, c), 0);
    rig_fini(&r);
}

static void hot_state_is_small(void **state)
{
    assert_true(sizeof(struct lapic) <= 512);
    assert_true(offsetof(struct lapic, tmr) == 64);
}

/* A handler that ends its interrupt by clearing the bit. */
static void pv_eoi_saves_the_write(void **state)
{
    static const uint32_t two[] = {5, 300};
    vcpu_idx_t c = VCPU_IDX(1);
    uint8_t flag = 0;
    struct rig r;
    rig_init(&r, two, 2, true);
    rig_enable(&r);
    fabric_pv_eoi_set(r.f, c, 0x1001, &flag);
    assert_int_equal(fabric_pv_eoi_get(r.f, c), 0x1001);
    fabric_deliver(r.f, rig_fixed(300, 0x55));
    assert_int_equal(fabric_irq_take(r.f, c), 0x55);
    assert_int_equal(flag, 1); /* lent */
    flag = 0;                  /* and used */
    assert_int_equal(rig_rd(&r, 1, APIC_ISR + 2), 0);
    assert_int_equal(rig_rd(&r, 1, APIC_PPR), 0);
    fabric_deliver(r.f, rig_fixed(300, 0x56));
    assert_int_equal(fabric_irq_take(r.f, c), 0x56);
    assert_int_equal(flag, 1);
    fabric_deliver(r.f, rig_fixed(300, 0x52)); /* of the same class: waits for the EOI, which must be seen */
    assert_int_equal(fabric_irq_pending(r.f, c), -1);
    assert_int_equal(flag, 0); /* taken back */
    unsigned kicks = r.kicks[1];
    rig_wr(&r, 1, APIC_EOI, 0);
    assert_true(r.kicks[1] > kicks);
    assert_int_equal(fabric_irq_take(r.f, c), 0x52);
    flag = 0; /* used, and nobody has looked yet when the next one comes */
    fabric_deliver(r.f, rig_fixed(300, 0x31));
    assert_int_equal(fabric_irq_pending(r.f, c), 0x31);
    fabric_deliver(r.f, rig_fixed(300, 0x21));
    assert_int_equal(fabric_irq_take(r.f, c), 0x31); /* another waits: not lent */
    assert_int_equal(flag, 0);
    rig_wr(&r, 1, APIC_EOI, 0);
    rig_got(&r, 1, 0x21);
    rig_fini(&r);
}

static void pv_eoi_is_not_for_level_interrupts_and_ends_with_init(void **state)
{
    static const uint32_t two[] = {5, 300};
    vcpu_idx_t c = VCPU_IDX(1);
    uint8_t flag = 0x80, page;
    struct rig r;
    rig_init(&r, two, 2, true);
    rig_enable(&r);
    fabric_pv_eoi_set(r.f, c, 1, &flag);
    struct irq level = rig_fixed(300, 0x61);
    level.level = 1;
    fabric_deliver(r.f, level);
    assert_int_equal(fabric_irq_take(r.f, c), 0x61);
    assert_int_equal(flag, 0x80);
    fabric_deliver(r.f, rig_fixed(300, 0x71)); /* nested in it */
    assert_int_equal(fabric_irq_take(r.f, c), 0x71);
    assert_int_equal(flag, 0x81);
    flag = 0x80;
    fabric_cr8_set(r.f, c, 0);
    assert_int_equal(rig_rd(&r, 1, APIC_ISR + 3), 2); /* 61h alone */
    fabric_deliver(r.f, rig_fixed(300, 0x72));
    assert_int_equal(fabric_irq_take(r.f, c), 0x72);
    assert_int_equal(flag, 0x81);
    fabric_deliver(r.f, (struct irq){.dest = 300, .mode = IRQ_INIT, .assert_ = 1});
    fabric_events_take(r.f, c, &page);
    assert_int_equal(fabric_pv_eoi_get(r.f, c), 0);
    assert_null(r.f->lapic[1].pv_eoi);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_on_state_is_the_manuals),
        cmocka_unit_test(firmware_leaves_x2apic_mode_with_full_ids),
        cmocka_unit_test(mode_transitions),
        cmocka_unit_test(relocation_moves_the_page),
        cmocka_unit_test(no_x2apic_without_cpuid),
        cmocka_unit_test(x2apic_reserved_bits_and_registers_fault),
        cmocka_unit_test(priorities_decide_what_is_taken),
        cmocka_unit_test(what_makes_a_vector_deliverable_kicks_its_owner),
        cmocka_unit_test(a_question_does_not_kick_for_what_is_known),
        cmocka_unit_test(a_disabled_apic_takes_what_the_manual_lets_it),
        cmocka_unit_test(init_keeps_base_and_mode),
        cmocka_unit_test(illegal_vectors_are_logged),
        cmocka_unit_test(unknown_xapic_registers_are_logged_and_harmless),
        cmocka_unit_test(xapic_registers_read_back),
        cmocka_unit_test(requests_show_in_irr_isr_tmr),
        cmocka_unit_test(only_level_vectors_tell_the_io_apic),
        cmocka_unit_test(lint_pins_follow_the_lvt),
        cmocka_unit_test(a_disabled_apic_is_a_wire),
        cmocka_unit_test(extint_messages_are_acknowledged_once),
        cmocka_unit_test(one_shot_counts_down_once),
        cmocka_unit_test(divider_codes),
        cmocka_unit_test(periodic_keeps_its_phase_and_coalesces),
        cmocka_unit_test(tsc_deadline_fires_once_and_disarms),
        cmocka_unit_test(hot_state_is_small),
        cmocka_unit_test(pv_eoi_saves_the_write),
        cmocka_unit_test(pv_eoi_is_not_for_level_interrupts_and_ends_with_init),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
