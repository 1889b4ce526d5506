/* Delivery through the IVT and the IDTs, double and triple faults, events at instruction boundaries. */
#include "cpu_rig.h"

/* ---- real mode ---- */

static void real_mode_pushes_three_words_and_clears_if(void **state)
{
    struct rig *r = *state;
    struct cpu_state *s = &r->v->st;
    rig_real(r);
    st32(rig_at(r, 0x21 * 4), 0x12340010);
    s->rflags = RF_FIXED | RF_IF | RF_TF | RF_CF;
    assert_true(event_deliver_interrupt(r->v, 0x21));
    assert_int_equal(s->seg[SEG_CS].sel, 0x1234);
    assert_int_equal(s->seg[SEG_CS].base, 0x12340);
    assert_int_equal(s->rip, 0x10);
    assert_int_equal(s->gpr[RSP], RIG_STACK - 6);
    assert_int_equal(ld16(rig_at(r, RIG_STACK - 6)), RIG_CODE);
    assert_int_equal(ld16(rig_at(r, RIG_STACK - 4)), 0);
    assert_int_equal(ld16(rig_at(r, RIG_STACK - 2)), RF_FIXED | RF_IF | RF_TF | RF_CF);
    assert_int_equal(s->rflags, RF_FIXED | RF_CF);
}

static void real_mode_stack_wraps_and_odd_pointer_shuts_down(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    st32(rig_at(r, 0x21 * 4), 0x12340010);
    r->v->st.gpr[RSP] = 0x55550004;
    r->v->st.seg[SEG_SS].base = 0x20000;
    assert_true(event_deliver_interrupt(r->v, 0x21));
    assert_int_equal(r->v->st.gpr[RSP], 0x5555fffe);
    assert_int_equal(ld16(rig_at(r, 0x2fffe)), RIG_CODE);
    r->v->st.gpr[RSP] = 1; /* no word fits around FFFFh: #SS, #DF, shutdown */
    assert_false(event_deliver_interrupt(r->v, 0x21));
    assert_int_equal(r->v->st.activity, CPU_SHUTDOWN);
}

static void real_mode_ivt_limit_ends_in_shutdown(void **state)
{
    struct rig *r = *state;
    rig_watch_exit(r);
    rig_real(r);
    r->v->st.idtr.limit = 0x1f;
    assert_false(event_deliver_interrupt(r->v, 0x21));
    assert_int_equal(r->v->st.activity, CPU_SHUTDOWN);
    assert_int_equal(r->run.exit, CPU_EXIT_SHUTDOWN);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK);
}

/* ---- 32-bit ---- */

static void fault_at_same_level_pushes_error_and_rf(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    assert_true(rig_raise(r, VEC_GP, true, 0x58));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK - 16);
    assert_int_equal(rig_u32(r, RIG_STACK - 16), 0x58);
    assert_int_equal(rig_u32(r, RIG_STACK - 12), RIG_CODE);
    assert_int_equal(rig_u32(r, RIG_STACK - 8), K_CODE32);
    assert_int_equal(rig_u32(r, RIG_STACK - 4), RF_FIXED | RF_IF | RF_RF);
    assert_int_equal(r->v->st.rflags, RF_FIXED);
}

static void trap_gate_keeps_if_and_clears_tf_nt(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    rig_idt32(r, 0x30, K_CODE32, A_TRAP32);
    r->v->st.rflags |= RF_TF | RF_NT;
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_IF);
    assert_int_equal(rig_u32(r, RIG_STACK - 4), RF_FIXED | RF_IF | RF_TF | RF_NT);
}

static void sixteen_bit_gate_pushes_words(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    rig_idt32(r, 0x30, K_CODE32, A_INT16);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK - 6);
    assert_int_equal(ld16(rig_at(r, RIG_STACK - 6)), RIG_CODE);
    assert_int_equal(r->v->st.rip, rig_handler(0x30) & 0xffff);
}

static void inner_level_switches_to_the_tss_stack(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    assert_int_equal(cpl(r->v), 3);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(cpl(r->v), 0);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, K_DATA);
    assert_int_equal(r->v->st.seg[SEG_CS].sel, K_CODE32);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK0 - 20);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 4), U_DATA);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 8), RIG_STACK);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 16), U_CODE32);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), RIG_CODE);
}

static void bad_inner_stack_is_ts_with_ext(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    st32(rig_at(r, RIG_TSS + 8), U_DATA0); /* wrong RPL and DPL for CPL 0, so no handler can be entered at all */
    assert_false(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.activity, CPU_SHUTDOWN);
    rig_protected(r, 3);
    st32(rig_at(r, RIG_TSS + 8), U_DATA0);
    rig_idt32(r, VEC_TS, C_CODE32, A_INT32); /* conforming: stays on this stack */
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_TS));
    assert_int_equal(rig_u32(r, RIG_STACK - 16), (U_DATA0 & ~3) | 1);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(r->v->st.seg[SEG_CS].sel, C_CODE32 | 3);
}

static void soft_int_checks_dpl_and_pushes_next_rip(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, int, "\xcd\x40"), EXEC_FAULT);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), RIG_CODE + 2);
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, int, "\xcd\x30"), EXEC_FAULT);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u32(r, RIG_STACK0 - 24), 0x30 * 8 + 2); /* IDT, not EXT */
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), RIG_CODE);
    assert_true(rig_u32(r, RIG_STACK0 - 12) & RF_RF);
}

static void hardware_ignores_dpl_and_int1_too(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, int1, "\xf1"), EXEC_FAULT);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_DB));
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), RIG_CODE + 1);
    assert_false(rig_u32(r, RIG_STACK0 - 12) & RF_RF);
}

static void absent_gate_of_an_interrupt_is_np_with_idt_and_ext(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    rig_idt32(r, 0x30, K_CODE32, A_INT32 & ~0x80);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_NP));
    assert_int_equal(rig_u32(r, RIG_STACK - 16), 0x30 * 8 + 3);
    assert_int_equal(rig_u32(r, RIG_STACK - 12), RIG_CODE);
}

static void idt_limit_is_gp(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.idtr.limit = 0x30 * 8 + 6;
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u32(r, RIG_STACK - 16), 0x30 * 8 + 3);
}

static void contributory_pair_is_a_double_fault(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    rig_idt32(r, VEC_GP, K_CODE32, A_INT32 & ~0x80);
    assert_true(rig_raise(r, VEC_GP, true, 8));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_DF));
    assert_int_equal(rig_u32(r, RIG_STACK - 16), 0);
    assert_int_equal(rig_u32(r, RIG_STACK - 12), RIG_CODE);
}

static void benign_first_is_handled_in_turn(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    rig_idt32(r, VEC_UD, K_CODE32, A_INT32 & ~0x80);
    assert_true(rig_raise(r, VEC_UD, false, 0));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_NP));
}

static void unreachable_double_fault_shuts_down_with_state_intact(void **state)
{
    struct rig *r = *state;
    struct cpu_state before;
    rig_watch_exit(r);
    rig_protected(r, 0);
    rig_idt32(r, VEC_GP, K_CODE32, A_INT32 & ~0x80);
    rig_idt32(r, VEC_DF, K_CODE32, A_INT32 & ~0x80);
    before = r->v->st;
    assert_false(rig_raise(r, VEC_GP, true, 8));
    assert_int_equal(r->v->st.activity, CPU_SHUTDOWN);
    assert_int_equal(r->run.exit, CPU_EXIT_SHUTDOWN);
    assert_same_state(&before, &r->v->st);
}

/* ---- virtual-8086 mode ---- */

static void v86_interrupt_pushes_nine_words_and_iret_restores(void **state)
{
    struct rig *r = *state;
    struct cpu_state before;
    rig_v86(r, 0);
    before = r->v->st;
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK0 - 36);
    assert_false(r->v->st.rflags & RF_VM);
    assert_int_equal(cpl(r->v), 0);
    assert_int_equal(r->v->st.seg[SEG_DS].attr & SEGA_UNUSABLE, SEGA_UNUSABLE);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 4), 0x800);  /* GS */
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), 0x800); /* SS */
    assert_int_equal(rig_u32(r, RIG_STACK0 - 24), 0x1000);
    assert_true(rig_u32(r, RIG_STACK0 - 28) & RF_VM);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_same_state(&before, &r->v->st);
}

static void v86_int_n_wants_iopl_3_but_int3_does_not(void **state)
{
    struct rig *r = *state;
    rig_v86(r, 2);
    assert_int_equal(RIG_EXEC(r, int, "\xcd\x40"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    rig_idt32(r, VEC_BP, K_CODE32, A_INT32 | 0x60);
    assert_int_equal(RIG_EXEC(r, int3, "\xcc"), EXEC_FAULT);
    assert_int_equal(r->v->fault.kind, FAULT_SOFT_INT);
    rig_v86(r, 3);
    assert_int_equal(RIG_EXEC(r, int, "\xcd\x40"), EXEC_FAULT);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(0x40));
    assert_int_equal(rig_u32(r, RIG_STACK0 - 36), 2);
}

static void v86_handler_must_be_at_level_0(void **state)
{
    struct rig *r = *state;
    rig_v86(r, 3);
    rig_idt32(r, 0x40, C_CODE32, A_INT32 | 0x60);
    assert_int_equal(RIG_EXEC(r, int, "\xcd\x40"), EXEC_FAULT);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u32(r, RIG_STACK0 - 40), C_CODE32);
}

/* ---- 64-bit ---- */

static void long_mode_aligns_and_always_pushes_the_stack(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.gpr[RSP] = RIG_STACK + 9;
    assert_true(rig_raise(r, VEC_PF, true, 2));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK - 48);
    assert_int_equal(rig_u64(r, RIG_STACK - 8), K_DATA);
    assert_int_equal(rig_u64(r, RIG_STACK - 16), RIG_STACK + 9);
    assert_int_equal(rig_u64(r, RIG_STACK - 32), K_CODE64);
    assert_int_equal(rig_u64(r, RIG_STACK - 40), RIG_CODE);
    assert_int_equal(rig_u64(r, RIG_STACK - 48), 2);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, K_DATA);
}

static void long_mode_level_change_nulls_ss(void **state)
{
    struct rig *r = *state;
    rig_long(r, 3);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK0 - 40);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, 0);
    assert_true(r->v->st.seg[SEG_SS].attr & SEGA_UNUSABLE);
    assert_int_equal(cpl(r->v), 0);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 8), U_DATA);
}

static void ist_is_used_at_any_level(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    rig_idt64(r, VEC_NMI, A_INT32, 1);
    assert_true(event_deliver_interrupt(r->v, VEC_NMI));
    assert_int_equal(r->v->st.gpr[RSP], RIG_IST1 - 40);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, K_DATA);
    assert_true(r->v->st.nmi_blocked);
    rig_long(r, 3);
    rig_idt64(r, VEC_NMI, A_INT32, 1);
    assert_true(event_deliver_interrupt(r->v, VEC_NMI));
    assert_int_equal(r->v->st.gpr[RSP], RIG_IST1 - 40);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, 0);
}

static void long_mode_wants_64_bit_handlers_and_16_byte_gates(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    st64(rig_at(r, RIG_IDT + 0x30 * 16), rig_gate(K_CODE32, 0x100, A_INT32));
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP]), K_CODE32 | 1);
    rig_long(r, 0);
    st32(rig_at(r, RIG_IDT + 0x30 * 16 + 8), 0x00123456); /* handler past the canonical hole's start */
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP]), 1);
    rig_long(r, 0);
    st64(rig_at(r, RIG_IDT + 0x30 * 16), rig_gate(K_CODE64, 0x100, A_INT16));
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(rig_u64(r, r->v->st.gpr[RSP]), 0x30 * 8 + 3);
}

static void page_fault_on_the_new_stack_is_promoted(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.gpr[RSP] = RIG_UNMAPPED + 0x100;
    rig_idt64(r, VEC_DF, A_INT32, 1);
    r->v->st.cr2 = 0x1234;
    assert_true(rig_raise(r, VEC_PF, true, 0));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_DF));
    assert_int_equal(r->v->st.gpr[RSP], RIG_IST1 - 48);
    assert_int_equal(rig_u64(r, RIG_IST1 - 48), 0);
    assert_int_equal(rig_u64(r, RIG_IST1 - 40), RIG_CODE);
    assert_int_equal(rig_u64(r, RIG_IST1 - 16), RIG_UNMAPPED + 0x100);
    assert_in_range(r->v->st.cr2, RIG_UNMAPPED, RIG_UNMAPPED + 0x100);
}

static void page_fault_while_delivering_an_interrupt_stands_alone(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    rig_idt64(r, VEC_PF, A_INT32, 1);
    r->v->st.gpr[RSP] = RIG_UNMAPPED + 0x100;
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_PF));
    assert_int_equal(rig_u64(r, RIG_IST1 - 48), PF_W);
    assert_int_equal(rig_u64(r, RIG_IST1 - 40), RIG_CODE);
}

static void frame_across_an_absent_page_writes_nothing(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    rig_idt64(r, VEC_PF, A_INT32, 1);
    memset(rig_at(r, 0x200000), 0xaa, 64);
    st64(rig_at(r, RIG_PML4 + 0x2000), 0); /* the first 2 MiB go: even the tables; so move them up */
    for (uint64_t p = 0; p < 0x20000; p += 8)
        st64(rig_at(r, 0x300000 + p), rig_u64(r, p));
    struct cpu_state *s = &r->v->st;
    s->gdtr.base += 0x300000;
    s->idtr.base += 0x300000;
    s->seg[SEG_TR].base += 0x300000;
    st64(rig_at(r, 0x300000 + RIG_TSS + 36), 0x380000);
    s->gpr[RSP] = 0x200010; /* 16 bytes of the frame fit, the rest is below 2 MiB */
    tlb_flush_all(r->v);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(s->rip, rig_handler(VEC_PF));
    assert_int_equal(s->gpr[RSP], 0x380000 - 48);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(*rig_at(r, 0x200000 + i), 0xaa);
}

static void non_canonical_stack_is_ss(void **state)
{
    struct rig *r = *state;
    rig_long(r, 3);
    st64(rig_at(r, RIG_TSS + 4), UINT64_C(0x0000800000000100));
    rig_idt64(r, VEC_SS, A_INT32, 1);
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_SS));
    assert_int_equal(rig_u64(r, RIG_IST1 - 48), 1);
}

/* ---- debug ---- */

static void debug_trap_sets_dr6_and_leaves_rf(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.dr[7] = DR7_FIXED | DR7_GD;
    r->v->st.dr[6] = DR6_FIXED | 3;
    event_raise_db(r->v, DR6_BS);
    assert_true(event_deliver_fault(r->v));
    assert_int_equal(r->v->st.dr[6], DR6_FIXED | DR6_BS);
    assert_int_equal(r->v->st.dr[7], DR7_FIXED);
    assert_false(rig_u32(r, RIG_STACK - 4) & RF_RF);
    event_raise_db(r->v, DR6_BD);
    assert_true(event_deliver_fault(r->v));
    assert_true(rig_u32(r, RIG_STACK - 12 - 4) & RF_RF);
}

/* ---- events at a boundary ---- */

static struct irq ipi(uint32_t id, enum irq_mode mode, uint8_t vector)
{
    return (struct irq){.dest = id, .mode = mode, .vector = vector, .assert_ = 1};
}

static void apic_on(struct rig *r, struct soft_vcpu *v)
{
    assert_true(fabric_msr_write(r->fabric, v->idx, 0, 0x80f, 0x1ff));
}

static void interrupt_waits_for_if_and_shadow(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    apic_on(r, r->v);
    assert_int_equal(fabric_deliver(r->fabric, ipi(5, IRQ_FIXED, 0x31)), 1);
    r->v->st.rflags &= ~RF_IF;
    assert_true(event_service(r->v));
    assert_true(r->v->irq_waiting);
    assert_int_equal(r->v->st.rip, RIG_CODE);
    atomic_store(&r->v->attn, 0);
    assert_int_equal(RIG_EXEC(r, sti, "\xfb"), EXEC_END);
    assert_int_equal(r->v->st.int_shadow, 1);
    assert_true(atomic_load(&r->v->attn) & ATTN_IRQ);
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.rip, RIG_CODE + 1);
    assert_true(r->v->irq_waiting);
    r->v->st.int_shadow = 0;
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(0x31));
    assert_false(r->v->irq_waiting);
}

static void halt_ends_with_a_deliverable_interrupt_only(void **state)
{
    struct rig *r = *state;
    rig_watch_exit(r);
    rig_protected(r, 0);
    apic_on(r, r->v);
    r->v->st.activity = CPU_HALTED;
    r->v->st.rflags &= ~RF_IF;
    assert_false(event_service(r->v));
    assert_int_equal(r->run.exit, CPU_EXIT_HALT);
    fabric_deliver(r->fabric, ipi(5, IRQ_FIXED, 0x31));
    assert_false(event_service(r->v));
    assert_int_equal(r->v->st.activity, CPU_HALTED);
    r->v->st.rflags |= RF_IF;
    r->v->st.int_shadow = 1; /* sti; hlt */
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.activity, CPU_ACTIVE);
    assert_int_equal(r->v->st.rip, rig_handler(0x31));
    assert_int_equal(rig_u32(r, RIG_STACK - 12), RIG_CODE);
}

static void nmi_is_held_back_until_iret(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.activity = CPU_HALTED;
    fabric_deliver(r->fabric, ipi(5, IRQ_NMI, 0));
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_NMI));
    fabric_deliver(r->fabric, ipi(5, IRQ_NMI, 0));
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK - 12);
    atomic_store(&r->v->attn, 0);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_false(r->v->st.nmi_blocked);
    assert_true(atomic_load(&r->v->attn) & ATTN_IRQ);
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_NMI));
    assert_int_equal(rig_u32(r, RIG_STACK - 12), RIG_CODE);
}

static void tpause_ends_at_its_deadline_or_by_a_masked_interrupt(void **state)
{
    struct rig *r = *state;
    rig_watch_exit(r);
    rig_protected(r, 0);
    apic_on(r, r->v);
    r->v->st.rflags &= ~RF_IF;
    r->v->tpause_until = UINT64_MAX - 1;
    assert_false(event_service(r->v));
    assert_int_equal(r->run.exit, CPU_EXIT_TPAUSE);
    assert_true(r->run.until == UINT64_MAX - 1);
    fabric_deliver(r->fabric, ipi(5, IRQ_FIXED, 0x31));
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.rip, RIG_CODE);
    assert_int_equal(r->v->tpause_until, 0);
}

static void init_and_sipi_start_the_other_cpu(void **state)
{
    struct rig *r = *state;
    struct cpu_state *s = &r->other->st;
    rig_watch_exit(r);
    assert_int_equal(s->activity, CPU_WAIT_SIPI);
    assert_false(event_service(r->other));
    assert_int_equal(r->run.exit, CPU_EXIT_HALT);
    s->gpr[RBX] = 7;
    s->cr0 = CR0_PE | CR0_CD;
    fabric_deliver(r->fabric, ipi(300, IRQ_INIT, 0));
    assert_false(event_service(r->other));
    assert_int_equal(s->gpr[RBX], 0);
    assert_int_equal(s->cr0, CR0_ET | CR0_CD);
    fabric_deliver(r->fabric, ipi(300, IRQ_STARTUP, 0x9a));
    assert_true(event_service(r->other));
    assert_int_equal(s->seg[SEG_CS].sel, 0x9a00);
    assert_int_equal(s->seg[SEG_CS].base, 0x9a000);
    assert_int_equal(s->rip, 0);
    assert_int_equal(s->activity, CPU_ACTIVE);
    s->rip = 0x55;
    fabric_deliver(r->fabric, ipi(300, IRQ_STARTUP, 0x10)); /* a second one changes nothing */
    assert_true(event_service(r->other));
    assert_int_equal(s->rip, 0x55);
}

static void init_restarts_the_boot_cpu_at_the_reset_vector(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.activity = CPU_HALTED;
    fabric_deliver(r->fabric, ipi(5, IRQ_INIT, 0));
    assert_true(event_service(r->v));
    assert_int_equal(r->v->st.seg[SEG_CS].base, 0xffff0000);
    assert_int_equal(r->v->st.rip, 0xfff0);
    assert_int_equal(r->v->st.efer, 0);
    assert_int_equal(r->v->mode & (MODE_CODE | MODE_PE), CODE16);
}

static void triple_fault_stays_shut_down(void **state)
{
    struct rig *r = *state;
    rig_watch_exit(r);
    rig_protected(r, 0);
    r->v->fault = (struct fault){.kind = FAULT_SHUTDOWN};
    assert_false(event_deliver_fault(r->v));
    r->run.exit = CPU_EXIT_BUDGET;
    assert_false(event_service(r->v));
    assert_int_equal(r->run.exit, CPU_EXIT_SHUTDOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(real_mode_pushes_three_words_and_clears_if),
        RIG_TEST(real_mode_stack_wraps_and_odd_pointer_shuts_down),
        RIG_TEST(real_mode_ivt_limit_ends_in_shutdown),
        RIG_TEST(fault_at_same_level_pushes_error_and_rf),
        RIG_TEST(trap_gate_keeps_if_and_clears_tf_nt),
        RIG_TEST(sixteen_bit_gate_pushes_words),
        RIG_TEST(inner_level_switches_to_the_tss_stack),
        RIG_TEST(bad_inner_stack_is_ts_with_ext),
        RIG_TEST(soft_int_checks_dpl_and_pushes_next_rip),
        RIG_TEST(hardware_ignores_dpl_and_int1_too),
        RIG_TEST(absent_gate_of_an_interrupt_is_np_with_idt_and_ext),
        RIG_TEST(idt_limit_is_gp),
        RIG_TEST(contributory_pair_is_a_double_fault),
        RIG_TEST(benign_first_is_handled_in_turn),
        RIG_TEST(unreachable_double_fault_shuts_down_with_state_intact),
        RIG_TEST(v86_interrupt_pushes_nine_words_and_iret_restores),
        RIG_TEST(v86_int_n_wants_iopl_3_but_int3_does_not),
        RIG_TEST(v86_handler_must_be_at_level_0),
        RIG_TEST(long_mode_aligns_and_always_pushes_the_stack),
        RIG_TEST(long_mode_level_change_nulls_ss),
        RIG_TEST(ist_is_used_at_any_level),
        RIG_TEST(long_mode_wants_64_bit_handlers_and_16_byte_gates),
        RIG_TEST(page_fault_on_the_new_stack_is_promoted),
        RIG_TEST(page_fault_while_delivering_an_interrupt_stands_alone),
        RIG_TEST(frame_across_an_absent_page_writes_nothing),
        RIG_TEST(non_canonical_stack_is_ss),
        RIG_TEST(debug_trap_sets_dr6_and_leaves_rf),
        RIG_TEST(interrupt_waits_for_if_and_shadow),
        RIG_TEST(halt_ends_with_a_deliverable_interrupt_only),
        RIG_TEST(nmi_is_held_back_until_iret),
        RIG_TEST(tpause_ends_at_its_deadline_or_by_a_masked_interrupt),
        RIG_TEST(init_and_sipi_start_the_other_cpu),
        RIG_TEST(init_restarts_the_boot_cpu_at_the_reset_vector),
        RIG_TEST(triple_fault_stays_shut_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
