/* A vCPU handed from the built-in engine to KVM and back comes back as it was: registers, MSRs, FPU, and the local APIC
 * with what is pending at it. */
#include "kvm_rig.h"

#include "irq/fabric.h"

#define CPU300 3 /* rig_ids[3] */

struct both {
    struct kvm_rig k;
    struct fabric *f;
    struct engine_vm *soft;
};

static void no_kick(void *opaque, vcpu_idx_t cpu)
{
}

static void both_init(struct both *b, bool kvm)
{
    struct err e = {""};
    struct fabric_config f = {.vcpus = RIG_CPUS,
                              .ids = b->k.ids,
                              .x2apic = true,
                              .ext_dest_id = true,
                              .kick = no_kick,
                              .epoch = &b->k.epoch,
                              .trace = &b->k.trace};
    if (kvm)
        rig_make(&b->k);
    epoch_enter(&b->k.epoch, b->k.owner);
    assert_int_equal(fabric_create(&f, &b->f, &e), 0);
    struct engine_config c = b->k.cfg;
    c.fabric = b->f;
    assert_int_equal(engine_soft.vm_create(&c, &b->soft, &e), 0);
}

static void both_fini(struct both *b)
{
    engine_soft.vm_destroy(b->soft);
    fabric_destroy(b->f);
    epoch_leave(&b->k.epoch, b->k.owner);
    rig_fini(&b->k);
}

static struct engine_vcpu *soft_of(struct both *b, unsigned i)
{
    return engine_soft.vcpu(b->soft, VCPU_IDX(i));
}

/* KVM has it all now: what the engine keeps beside it must not be where the answer comes from, but for MSRs that KVM
 * has not. */
static void spoil_kept(struct kvm_vcpu *v)
{
    memset(&v->kept, 0xa5, offsetof(struct cpu_state, star));
    memset(&v->kept.fx, 0xa5, sizeof v->kept.fx);
    v->kept.activity = v->kept.nmi_blocked = v->kept.int_shadow = 0xa5;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->kept.seg[i].attr = 0;
}

/* To KVM and back to the built-in engine. */
static void there_and_back(struct both *b, unsigned i, struct cpu_state *s, struct cpu_apic *a)
{
    engine_soft.get_state(soft_of(b, i), s);
    engine_soft.get_apic(soft_of(b, i), a);
    engine_kvm.set_state(rig_vcpu(&b->k, i), s);
    assert_true(engine_kvm.set_apic(rig_vcpu(&b->k, i), a));
    spoil_kept((struct kvm_vcpu *)rig_vcpu(&b->k, i));
    engine_kvm.get_state(rig_vcpu(&b->k, i), s);
    engine_kvm.get_apic(rig_vcpu(&b->k, i), a);
    engine_soft.set_state(soft_of(b, i), s);
    assert_true(engine_soft.set_apic(soft_of(b, i), a));
    engine_soft.get_state(soft_of(b, i), s);
    engine_soft.get_apic(soft_of(b, i), a);
}

static void same_segment(const struct cpu_segment *a, const struct cpu_segment *b)
{
    assert_int_equal(a->base, b->base);
    assert_int_equal(a->limit, b->limit);
    assert_int_equal(a->attr, b->attr);
    assert_int_equal(a->sel, b->sel);
}

static void same_state(const struct cpu_state *a, const struct cpu_state *b)
{
    assert_memory_equal(a->gpr, b->gpr, sizeof a->gpr);
    assert_int_equal(a->rip, b->rip);
    assert_int_equal(a->rflags, b->rflags);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        same_segment(&a->seg[i], &b->seg[i]);
    assert_int_equal(a->gdtr.base, b->gdtr.base);
    assert_int_equal(a->gdtr.limit, b->gdtr.limit);
    assert_int_equal(a->idtr.base, b->idtr.base);
    assert_int_equal(a->idtr.limit, b->idtr.limit);
    /* cr0 .. xcr0 and the paravirtual MSRs are 64-bit words, one behind the other */
    assert_memory_equal(&a->cr0, &b->cr0, offsetof(struct cpu_state, activity) - offsetof(struct cpu_state, cr0));
    assert_int_equal(a->activity, b->activity);
    assert_int_equal(a->nmi_blocked, b->nmi_blocked);
    assert_int_equal(a->int_shadow, b->int_shadow);
    assert_int_equal(a->bsp, b->bsp);
    assert_memory_equal(&a->fx, &b->fx, sizeof a->fx);
}

static void fill_fx(struct cpu_fx *fx)
{
    fx->fcw = 0x27f;
    fx->fsw = 0x3800;
    fx->ftw_abridged = 0x81;
    fx->mxcsr = 0x1fa0;
    for (unsigned i = 0; i < 8; i++)
        for (unsigned j = 0; j < 10; j++)
            fx->st[i][j] = (uint8_t)(i * 16 + j + 1);
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 16; j++)
            fx->xmm[i][j] = (uint8_t)(i * 17 + j);
}

/* 64-bit mode, every field its own value. */
static void fill_state(struct cpu_state *s, bool bsp)
{
    const uint32_t data = SEGA_ACCESSED | SEGA_RW | SEGA_S | SEGA_P | SEGA_DB | SEGA_G;
    cpu_state_reset(s, bsp);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = UINT64_C(0x0123456789abcd00) + i;
    s->rip = UINT64_C(0xffff800000001234);
    s->rflags = 0x246;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = (struct cpu_segment){.sel = 0x10, .limit = UINT32_MAX, .attr = data};
    s->seg[SEG_CS] = (struct cpu_segment){
        .sel = 8, .limit = UINT32_MAX, .attr = SEGA_ACCESSED | SEGA_RW | SEGA_CODE | SEGA_S | SEGA_P | SEGA_G | SEGA_L};
    s->seg[SEG_FS].base = UINT64_C(0x7f0000001000);
    s->seg[SEG_GS].base = UINT64_C(0xffff888000002000);
    s->seg[SEG_TR] = (struct cpu_segment){.sel = 0x40, .base = 0x5000, .limit = 0x67, .attr = 0xb | SEGA_P};
    s->gdtr = (struct cpu_dtable){.base = 0x4000, .limit = 0x7f};
    s->idtr = (struct cpu_dtable){.base = 0x6000, .limit = 0xfff};
    s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG | CR0_MP;
    s->cr2 = UINT64_C(0xdeadbeef000);
    s->cr3 = 0x10000;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_PGE;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->dr[0] = 0x1000;
    s->dr[3] = 0x2000;
    s->star = UINT64_C(0x0023001000000000);
    s->lstar = UINT64_C(0xffff800000100000);
    s->cstar = UINT64_C(0xffff800000200000);
    s->fmask = 0x47700;
    s->kernel_gs_base = UINT64_C(0x7f0000003000);
    s->sysenter_cs = 0x10;
    s->sysenter_esp = UINT64_C(0xffff800000300000);
    s->sysenter_eip = UINT64_C(0xffff800000400000);
    s->tsc_aux = 0x123;
    s->mtrr_def_type = 0xc06;
    s->mtrr_fixed[2] = 0;
    s->mtrr_fixed[10] = UINT64_C(0x0606060606060606);
    s->mtrr_phys[0] = 0x80000000;
    s->mtrr_phys[1] = UINT64_C(0x3f80000800);
    s->tsc_offset = UINT64_C(0x1000000000);
    s->tsc_adjust = UINT64_C(0x1000);
    s->umwait_control = 0xc000;
    s->feat_ctl = 1;
    fill_fx(&s->fx);
}

static void state_returns(void **state)
{
    struct both b;
    struct cpu_state s, back;
    struct cpu_apic a;
    RIG_OR_SKIP(&b.k);
    both_init(&b, true);
    for (unsigned round = 0; round < 3; round++) {
        unsigned i = round == 1 ? CPU300 : 0;
        fill_state(&s, i == 0);
        if (round == 1) {
            s.nmi_blocked = 1;
            s.activity = CPU_HALTED;
        }
        if (round == 2)
            s.int_shadow = 2;
        engine_soft.set_state(soft_of(&b, i), &s);
        there_and_back(&b, i, &back, &a);
        same_state(&s, &back);
    }
    both_fini(&b);
}

static void reset_state_returns(void **state)
{
    struct both b;
    struct cpu_state s, back;
    struct cpu_apic a;
    RIG_OR_SKIP(&b.k);
    both_init(&b, true);
    for (unsigned i = 0; i < RIG_CPUS; i++) {
        cpu_state_reset(&s, i == 0);
        engine_soft.set_state(soft_of(&b, i), &s);
        there_and_back(&b, i, &back, &a);
        same_state(&s, &back);
    }
    s.activity = CPU_SHUTDOWN;
    engine_kvm.set_state(rig_vcpu(&b.k, 1), &s);
    engine_kvm.get_state(rig_vcpu(&b.k, 1), &back);
    assert_int_equal(back.activity, CPU_SHUTDOWN);
    assert_int_equal(rig_run(&b.k, 1).exit, CPU_EXIT_SHUTDOWN);
    both_fini(&b);
}

/* ---- APICs ---- */

static void put(struct cpu_apic *a, unsigned reg, uint32_t val)
{
    st32(a->regs + reg * 16, val);
}

static uint32_t get(const struct cpu_apic *a, unsigned reg)
{
    return ld32(a->regs + reg * 16);
}

static void put_vector(struct cpu_apic *a, unsigned first, uint8_t v)
{
    put(a, first + v / 32, get(a, first + v / 32) | 1u << v % 32);
}

static void fill_apic(struct cpu_apic *a, bool x2apic, uint32_t id)
{
    a->base = APIC_BASE_DEFAULT | APIC_BASE_EN | (x2apic ? APIC_BASE_EXTD : 0) | (id ? 0 : APIC_BASE_BSP);
    memset(a->regs, 0, sizeof a->regs);
    put(a, APIC_ID_REG, x2apic ? id : (id & 0xff) << 24);
    put(a, APIC_VERSION, APIC_VERSION_VALUE);
    put(a, APIC_LDR, x2apic ? (id >> 4) << 16 | 1u << (id & 15) : 0x02000000);
    put(a, APIC_DFR, 0xffffffff);
    put(a, APIC_SVR, 0x1f0 | APIC_SVR_ENABLE);
    put(a, APIC_TPR, 0x20);
    put(a, APIC_PPR, 0x40);
    put_vector(a, APIC_ISR, 0x41);
    put_vector(a, APIC_IRR, 0x31);
    put_vector(a, APIC_IRR, 0xef);
    put_vector(a, APIC_TMR, 0x31);
    put(a, APIC_LVT_TIMER, 0x200ec);
    put(a, APIC_LVT_THERMAL, 0x100fa);
    put(a, APIC_LVT_PERF, 0x400);
    put(a, APIC_LVT_LINT0, 0x10700);
    put(a, APIC_LVT_LINT1, 0x400);
    put(a, APIC_LVT_ERROR, 0xfe);
    put(a, APIC_TDCR, 0xb);
    put(a, APIC_ICR, 0x000c00fd);
    if (!x2apic)
        put(a, APIC_ICR2, 0x05000000);
    a->timer_left = HEC_NS_NEVER;
}

static void same_apic(const struct cpu_apic *a, const struct cpu_apic *b)
{
    assert_int_equal(a->base, b->base);
    for (unsigned reg = 0; reg < 0x40; reg++)
        if (reg != APIC_TMCCT && get(a, reg) != get(b, reg))
            fail_msg("APIC register %02x: %08x, then %08x", reg, get(a, reg), get(b, reg));
    assert_int_equal(a->tsc_deadline, b->tsc_deadline);
    assert_int_equal(a->timer_left == HEC_NS_NEVER, b->timer_left == HEC_NS_NEVER);
    assert_int_equal(a->nmi_pending, b->nmi_pending);
    assert_int_equal(a->exception, b->exception);
    assert_int_equal(a->exception_vector, b->exception_vector);
    assert_int_equal(a->exception_error, b->exception_error);
    assert_int_equal(a->injected, b->injected);
    assert_int_equal(a->injected_vector, b->injected_vector);
}

static void apic_returns(struct both *b, unsigned i, const struct cpu_apic *a)
{
    struct cpu_state s;
    struct cpu_apic back;
    assert_true(engine_soft.set_apic(soft_of(b, i), a));
    engine_soft.get_apic(soft_of(b, i), &back);
    same_apic(a, &back);
    if (!b->k.vm) /* no /dev/kvm: the built-in engine alone */
        return;
    there_and_back(b, i, &s, &back);
    same_apic(a, &back);
}

static void apics_return(void **state)
{
    struct both b;
    struct cpu_state s;
    struct cpu_apic a = {0};
    rig_prepare(&b.k);
    both_init(&b, rig_have_kvm());
    for (unsigned i = 0; i < RIG_CPUS; i++) {
        fill_state(&s, i == 0);
        engine_soft.set_state(soft_of(&b, i), &s);
        fill_apic(&a, true, rig_ids[i]);
        a.nmi_pending = i & 1;
        apic_returns(&b, i, &a);
    }
    a.nmi_pending = false;
    fill_apic(&a, false, 1);
    apic_returns(&b, 1, &a);
    both_fini(&b);
}

static void pending_events_return(void **state)
{
    struct both b;
    struct cpu_state s;
    struct cpu_apic a = {0};
    rig_prepare(&b.k);
    both_init(&b, rig_have_kvm());
    fill_state(&s, false);
    engine_soft.set_state(soft_of(&b, CPU300), &s);
    fill_apic(&a, true, 300);
    a.exception = a.exception_has_error = true;
    a.exception_vector = 14;
    a.exception_error = 2;
    apic_returns(&b, CPU300, &a);
    a.exception = a.exception_has_error = false;
    a.exception_vector = 0;
    a.exception_error = 0;
    a.injected = true;
    a.injected_vector = 0x41;
    apic_returns(&b, CPU300, &a);
    both_fini(&b);
}

/* A start-up IPI that was pending has been taken when KVM gives the state back. */
static void startup_returns_taken(void **state)
{
    struct both b;
    struct cpu_state s;
    struct cpu_apic a = {0};
    RIG_OR_SKIP(&b.k);
    both_init(&b, true);
    cpu_state_reset(&s, false);
    engine_soft.set_state(soft_of(&b, CPU300), &s);
    fill_apic(&a, true, 300);
    a.sipi_pending = true;
    a.sipi_page = 0x12;
    assert_true(engine_soft.set_apic(soft_of(&b, CPU300), &a));
    engine_soft.get_apic(soft_of(&b, CPU300), &a);
    assert_true(a.sipi_pending);
    assert_int_equal(a.sipi_page, 0x12);
    there_and_back(&b, CPU300, &s, &a);
    assert_false(a.sipi_pending);
    assert_int_equal(s.activity, CPU_ACTIVE);
    assert_int_equal(s.seg[SEG_CS].sel, 0x1200);
    assert_int_equal(s.rip, 0);
    both_fini(&b);
}

static void timers_go_on(void **state)
{
    struct both b;
    struct cpu_state s;
    struct cpu_apic a = {0};
    RIG_OR_SKIP(&b.k);
    both_init(&b, true);
    fill_state(&s, false);
    engine_soft.set_state(soft_of(&b, CPU300), &s);
    fill_apic(&a, true, 300);
    put(&a, APIC_TMICT, 0xffffffff);
    a.timer_left = 0xfffffff0;
    assert_true(engine_soft.set_apic(soft_of(&b, CPU300), &a));
    there_and_back(&b, CPU300, &s, &a);
    assert_int_equal(get(&a, APIC_TMICT), 0xffffffff);
    assert_true(a.timer_left <= 0xfffffff0 && a.timer_left > 0x10000000);
    put(&a, APIC_LVT_TIMER, 0x400ec);
    put(&a, APIC_TMICT, 0);
    a.timer_left = HEC_NS_NEVER;
    a.tsc_deadline = UINT64_C(1) << 60;
    apic_returns(&b, CPU300, &a);
    both_fini(&b);
}

static void impossible_apics_are_refused(void **state)
{
    struct both b;
    struct cpu_apic a = {0}, was;
    rig_prepare(&b.k);
    both_init(&b, rig_have_kvm());
    for (unsigned kind = 0; kind < 3; kind++) {
        fill_apic(&a, true, 300);
        if (kind == 0)
            put(&a, APIC_ID_REG, 299);
        else
            a.base = kind == 1 ? APIC_BASE_DEFAULT | APIC_BASE_EXTD : a.base | 1;
        engine_soft.get_apic(soft_of(&b, CPU300), &was);
        assert_false(engine_soft.set_apic(soft_of(&b, CPU300), &a));
        engine_soft.get_apic(soft_of(&b, CPU300), &a);
        same_apic(&was, &a);
        fill_apic(&a, true, 300);
        if (kind == 0)
            put(&a, APIC_ID_REG, 299);
        else
            a.base = kind == 1 ? APIC_BASE_DEFAULT | APIC_BASE_EXTD : a.base | 1;
        if (b.k.vm)
            assert_false(engine_kvm.set_apic(rig_vcpu(&b.k, CPU300), &a));
    }
    both_fini(&b);
}

/* The built-in engine alone: what a hand-over found on its way is delivered by the next run. */
static void handed_interrupt_is_delivered(void **state)
{
    static const uint8_t code[] = {0xf4}, handler[] = {0xb0, 0x77, 0xe6, RIG_DONE, 0xf4}; /* mov al; out; hlt */
    struct both b;
    struct cpu_state s;
    struct cpu_apic a;
    rig_prepare(&b.k);
    both_init(&b, false);
    struct engine_vcpu *v = soft_of(&b, 0);
    rig_start_state(&s);
    memcpy(b.k.ram.low + RIG_CODE, code, sizeof code);
    memcpy(b.k.ram.low + 0x2000, handler, sizeof handler);
    st32(b.k.ram.low + 0x41 * 4, 0x2000);
    engine_soft.set_state(v, &s);
    engine_soft.get_apic(v, &a);
    a.injected = true;
    a.injected_vector = 0x41;
    assert_true(engine_soft.set_apic(v, &a));
    struct cpu_run run = {.budget = 1000};
    engine_soft.vcpu_run(v, &run);
    assert_int_equal(b.k.done, 0x77);
    engine_soft.get_apic(v, &a);
    assert_false(a.injected);
    both_fini(&b);
}

/* ---- reset ---- */

static void reset_after_x2apic(void **state)
{
    struct kvm_rig r;
    struct err e = {""};
    struct cpu_apic a, now;
    RIG_OR_SKIP(&r);
    rig_make(&r);
    for (unsigned i = 0; i < RIG_CPUS; i++)
        rig_apic(&r, i, true);
    assert_int_equal(engine_kvm.apic_reset(r.vm, &e), 0);
    for (unsigned i = 0; i < RIG_CPUS; i++) {
        engine_kvm.get_apic(rig_vcpu(&r, i), &now);
        assert_int_equal(now.base, APIC_BASE_DEFAULT | APIC_BASE_EN | (i ? 0 : APIC_BASE_BSP));
        assert_int_equal(get(&now, APIC_ID_REG), (rig_ids[i] & 0xff) << 24);
        assert_int_equal(get(&now, APIC_SVR), 0xff);
        assert_int_equal(get(&now, APIC_LVT_LINT0), i ? 0x10000 : 0x700);
    }
    engine_kvm.get_apic(rig_vcpu(&r, 3), &a);
    assert_int_equal(engine_kvm.apic_reset(r.vm, &e), 0);
    engine_kvm.get_apic(rig_vcpu(&r, 3), &now);
    assert_memory_equal(a.regs, now.regs, sizeof a.regs);
    rig_fini(&r);
}

static void firmware_x2apic(void **state)
{
    struct kvm_rig r;
    struct err e = {""};
    struct cpu_apic now;
    RIG_OR_SKIP(&r);
    r.cfg.firmware_x2apic = true;
    rig_make(&r);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(engine_kvm.apic_reset(r.vm, &e), 0);
        for (unsigned i = 0; i < RIG_CPUS; i++) {
            engine_kvm.get_apic(rig_vcpu(&r, i), &now);
            assert_true(now.base & APIC_BASE_EXTD);
            assert_int_equal(get(&now, APIC_ID_REG), rig_ids[i]);
        }
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_returns),
        cmocka_unit_test(reset_state_returns),
        cmocka_unit_test(apics_return),
        cmocka_unit_test(pending_events_return),
        cmocka_unit_test(startup_returns_taken),
        cmocka_unit_test(timers_go_on),
        cmocka_unit_test(impossible_apics_are_refused),
        cmocka_unit_test(handed_interrupt_is_delivered),
        cmocka_unit_test(reset_after_x2apic),
        cmocka_unit_test(firmware_x2apic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
