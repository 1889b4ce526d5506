/* Far jumps, calls and returns, IRET, the fast system calls, and the flag instructions. */
#include "cpu_rig.h"

#define JMPF(sel) "\xea\x34\x12\x00\x00" sel "\x00"

/* ---- JMP, CALL, RET ---- */

static void jump_to_code_of_this_level_only(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x08")), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, 0x1234);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x1b")), EXEC_FAULT); /* user code */
    assert_fault(r, VEC_GP, U_CODE32 & ~3);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x10")), EXEC_FAULT); /* data */
    assert_fault(r, VEC_GP, K_DATA);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x00")), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x08")), EXEC_FAULT);
    assert_fault(r, VEC_GP, K_CODE32);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x38")), EXEC_JUMP); /* conforming: CPL stays 3 */
    assert_int_equal(r->v->st.seg[SEG_CS].sel, C_CODE32 | 3);
    assert_int_equal(cpl(r->v), 3);
}

static void jump_checks_the_limit_of_the_target(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    assert_int_equal(RIG_EXEC(r, jmpf, "\xea\x00\x00\x01\x00\x80\x00"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    assert_int_equal(r->v->st.seg[SEG_CS].sel, K_CODE32);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x80")), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE16);
}

static void jump_between_64_bit_and_compatibility_mode(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.gpr[RBX] = 0x7000;
    st32(rig_at(r, 0x7000), 0x4321);
    st16(rig_at(r, 0x7004), K_CODE32);
    assert_int_equal(RIG_EXEC(r, jmpf, "\xff\x2b"), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE32);
    assert_int_equal(r->v->st.rip, 0x4321);
    assert_int_equal(RIG_EXEC(r, jmpf, JMPF("\x28")), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE64);
    rig_gdt(r, K_CODE64, rig_desc(0, 0xffffffff, A_KCODE64 | SEGA_DB)); /* L and D */
    st16(rig_at(r, 0x7004), K_CODE64);
    assert_int_equal(RIG_EXEC(r, jmpf, "\xff\x2b"), EXEC_FAULT);
    assert_fault(r, VEC_GP, K_CODE64);
}

static void real_mode_call_and_return(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    assert_int_equal(RIG_EXEC(r, callf, "\x9a\x10\x00\x00\x07"), EXEC_JUMP);
    assert_int_equal(r->v->st.seg[SEG_CS].base, 0x7000);
    assert_int_equal(r->v->st.rip, 0x10);
    assert_int_equal(ld16(rig_at(r, RIG_STACK - 4)), RIG_CODE + 5);
    assert_int_equal(RIG_EXEC(r, retf, "\xca\x02\x00"), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, RIG_CODE + 5);
    assert_int_equal(r->v->st.seg[SEG_CS].sel, 0);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK + 2);
}

/* A user's call through a gate with two parameters, and the return that drops them from both stacks. */
static void call_gate_copies_parameters_and_return_drops_them(void **state)
{
    struct rig *r = *state;
    struct cpu_state before;
    rig_protected(r, 3);
    rig_gdt(r, S_CALLGATE, rig_gate(K_CODE32, 0x6789, A_CALL32 | 0x60) | UINT64_C(2) << 32);
    st32(rig_at(r, RIG_STACK), 0x1111);
    st32(rig_at(r, RIG_STACK + 4), 0x2222);
    before = r->v->st;
    assert_int_equal(RIG_EXEC(r, callf, "\x9a\x00\x00\x00\x00\x60\x00"), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, 0x6789);
    assert_int_equal(cpl(r->v), 0);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK0 - 24);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 24), RIG_CODE + 7);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 20), U_CODE32);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 16), 0x1111);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 12), 0x2222);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 8), RIG_STACK);
    assert_int_equal(rig_u32(r, RIG_STACK0 - 4), U_DATA);
    assert_true(seg_load(r->v, SEG_DS, K_DATA));
    assert_int_equal(RIG_EXEC(r, retf, "\xca\x08\x00"), EXEC_JUMP);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK + 8);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(r->v->st.seg[SEG_DS].sel, 0); /* the kernel's segment is hidden */
    assert_true(r->v->st.seg[SEG_DS].attr & SEGA_UNUSABLE);
    assert_int_equal(r->v->st.seg[SEG_ES].sel, U_DATA);
    assert_int_equal(r->v->st.rip, before.rip + 7);
}

static void gate_privilege_is_checked_before_its_target(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    rig_gdt(r, S_CALLGATE, rig_gate(K_CODE32, 0x6789, A_CALL32)); /* DPL 0 */
    assert_int_equal(RIG_EXEC(r, callf, "\x9a\x00\x00\x00\x00\x60\x00"), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_CALLGATE);
    rig_gdt(r, S_CALLGATE, rig_gate(K_CODE32, 0x6789, A_CALL32 | 0x60)); /* a JMP may not go inwards */
    assert_int_equal(RIG_EXEC(r, jmpf, "\xea\x00\x00\x00\x00\x60\x00"), EXEC_FAULT);
    assert_fault(r, VEC_GP, K_CODE32);
    rig_gdt(r, S_CALLGATE, rig_gate(K_CODE32, 0x6789, (A_CALL32 | 0x60) & ~0x80));
    assert_int_equal(RIG_EXEC(r, callf, "\x9a\x00\x00\x00\x00\x60\x00"), EXEC_FAULT);
    assert_fault(r, VEC_NP, S_CALLGATE);
}

static void call_through_a_64_bit_gate(void **state)
{
    struct rig *r = *state;
    rig_long(r, 3);
    rig_gdt(r, S_CALLGATE, rig_gate(K_CODE64, 0x6789, A_CALL32 | 0x60));
    st64(rig_at(r, RIG_GDT + S_CALLGATE + 8), 0);
    r->v->st.gpr[RBX] = 0x7000;
    st16(rig_at(r, 0x7004), S_CALLGATE);
    assert_int_equal(RIG_EXEC(r, callf, "\xff\x1b"), EXEC_JUMP);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK0 - 32);
    assert_int_equal(r->v->st.seg[SEG_SS].sel, 0);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 8), U_DATA);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 16), RIG_STACK);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 32), RIG_CODE + 2);
    assert_int_equal(RIG_EXEC(r, retf, "\x48\xcb"), EXEC_JUMP);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK);
    st64(rig_at(r, RIG_GDT + S_CALLGATE + 8), UINT64_C(4) << 40);
    assert_int_equal(RIG_EXEC(r, callf, "\xff\x1b"), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_CALLGATE);
}

static void return_never_goes_inwards(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    st32(rig_at(r, RIG_STACK), 0x10);
    st32(rig_at(r, RIG_STACK + 4), K_CODE32);
    assert_int_equal(RIG_EXEC(r, retf, "\xcb"), EXEC_FAULT);
    assert_fault(r, VEC_GP, K_CODE32);
    st32(rig_at(r, RIG_STACK + 4), 0);
    assert_int_equal(RIG_EXEC(r, retf, "\xcb"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK);
}

/* ---- IRET ---- */

static void iret_frame(struct rig *r, uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp, uint64_t ss)
{
    uint64_t w[] = {rip, cs, flags, rsp, ss};
    for (unsigned i = 0; i < 5; i++) {
        if (r->v->mode & CODE64)
            st64(rig_at(r, RIG_STACK + i * 8), w[i]);
        else
            st32(rig_at(r, RIG_STACK + i * 4), (uint32_t)w[i]);
    }
}

static void iretq_always_pops_the_stack(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    iret_frame(r, 0x7777, K_CODE64, RF_FIXED | RF_CF | RF_RF, 0x123458, K_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, 0x7777);
    assert_int_equal(r->v->st.gpr[RSP], 0x123458);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_CF | RF_RF);
}

static void iretq_takes_a_null_ss_below_level_3_only(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    iret_frame(r, 0x7777, K_CODE64, RF_FIXED, RIG_STACK, 0);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_JUMP);
    assert_true(r->v->st.seg[SEG_SS].attr & SEGA_UNUSABLE);
    assert_int_equal(cpl(r->v), 0);
    iret_frame(r, 0x7777, U_CODE64, RF_FIXED, RIG_STACK, 3);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    iret_frame(r, 0x7777, K_CODE32, RF_FIXED, RIG_STACK, 0); /* not into compatibility mode */
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
}

static void iretq_to_user_and_to_compatibility_mode(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.seg[SEG_GS].base = 0x123456789abc;
    iret_frame(r, 0x7777, U_CODE64, RF_FIXED | RF_IF, 0x8880, U_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_JUMP);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(r->v->st.gpr[RSP], 0x8880);
    assert_int_equal(r->v->st.seg[SEG_DS].sel, 0); /* was the kernel's */
    assert_int_equal(r->v->st.seg[SEG_GS].base, 0x123456789abc);
    rig_long(r, 0);
    iret_frame(r, 0x7777, U_CODE32, RF_FIXED | RF_IF, 0x8880, U_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE32);
    assert_int_equal(cpl(r->v), 3);
}

static void faulting_iret_unblocks_nmis_and_changes_nothing_else(void **state)
{
    struct rig *r = *state;
    struct cpu_state before;
    rig_long(r, 0);
    iret_frame(r, UINT64_C(0x800000000000), U_CODE64, RF_FIXED, RIG_STACK, U_DATA);
    r->v->st.nmi_blocked = 1;
    before = r->v->st;
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    assert_same_state(&before, &r->v->st);
    assert_int_equal(r->v->st.nmi_blocked, 0);
    iret_frame(r, 0x7777, U_CODE64, RF_FIXED, RIG_STACK, S_ABSENT | 3);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_SS, S_ABSENT);
    r->v->st.gpr[RSP] = RIG_UNMAPPED - 16; /* the frame's tail is not there */
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_PF);
    assert_int_equal(r->v->st.gpr[RSP], RIG_UNMAPPED - 16);
}

static void iret_changes_only_the_flags_the_level_may(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    iret_frame(r, 0x7777, U_CODE32, RF_FIXED | RF_IOPL | RF_ZF | RF_VM, 0, 0);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_IF | RF_ZF); /* IF, IOPL, VM as they were */
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK + 12);
    rig_protected(r, 0);
    iret_frame(r, 0x7777, U_CODE32, RF_FIXED | RF_IOPL, 0x4440, U_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_IOPL);
    assert_int_equal(r->v->st.gpr[RSP], 0x4440);
    assert_int_equal(r->v->st.seg[SEG_ES].sel, 0);
}

static void iret_with_nt_is_a_fault_in_long_mode(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.rflags |= RF_NT;
    iret_frame(r, 0x7777, K_CODE64, RF_FIXED, RIG_STACK, K_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
}

static void iret_raising_if_asks_for_the_waiting_interrupt(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.rflags &= ~RF_IF;
    r->v->irq_waiting = true;
    atomic_store(&r->v->attn, 0);
    iret_frame(r, 0x7777, K_CODE64, RF_FIXED | RF_IF, RIG_STACK, K_DATA);
    assert_int_equal(RIG_EXEC(r, iret, "\x48\xcf"), EXEC_JUMP);
    assert_true(atomic_load(&r->v->attn) & ATTN_IRQ);
}

/* ---- fast system calls ---- */

static void syscall_and_sysret_round_trip(void **state)
{
    struct rig *r = *state;
    struct cpu_state *s = &r->v->st;
    rig_long(r, 3);
    s->star = UINT64_C(0x0020000800000000); /* kernel CS 8, user base 20h */
    s->lstar = UINT64_C(0xffffffff81000000);
    s->fmask = RF_IF | RF_TF | RF_AC;
    s->rflags |= RF_CF | RF_AC;
    assert_int_equal(RIG_EXEC(r, syscall, "\x0f\x05"), EXEC_JUMP);
    assert_true(s->rip == s->lstar);
    assert_int_equal(s->gpr[RCX], RIG_CODE + 2);
    assert_int_equal(s->gpr[R11], RF_FIXED | RF_IF | RF_CF | RF_AC);
    assert_int_equal(s->rflags, RF_FIXED | RF_CF);
    assert_int_equal(s->seg[SEG_CS].sel, 8);
    assert_int_equal(s->seg[SEG_SS].sel, 0x10);
    assert_int_equal(cpl(r->v), 0);
    assert_int_equal(s->seg[SEG_CS].attr, A_KCODE64);
    s->gpr[R11] |= RF_RF | RF_VM;
    assert_int_equal(RIG_EXEC(r, sysret, "\x48\x0f\x07"), EXEC_JUMP);
    assert_int_equal(s->rip, RIG_CODE + 2);
    assert_int_equal(s->seg[SEG_CS].sel, 0x33);
    assert_int_equal(s->seg[SEG_SS].sel, 0x2b);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(s->rflags, RF_FIXED | RF_IF | RF_CF | RF_AC);
}

static void sysret_faults_at_level_0_for_a_bad_rcx(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.gpr[RCX] = UINT64_C(0x800000000000);
    assert_int_equal(RIG_EXEC(r, sysret, "\x48\x0f\x07"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    assert_int_equal(cpl(r->v), 0);
    r->v->st.star = UINT64_C(0x0023000000000000);
    assert_int_equal(RIG_EXEC(r, sysret, "\x0f\x07"), EXEC_JUMP); /* to compatibility mode: ECX */
    assert_int_equal(r->v->st.rip, 0);
    assert_int_equal(r->v->mode & MODE_CODE, CODE32);
    assert_int_equal(r->v->st.seg[SEG_CS].sel, 0x23);
    rig_long(r, 3);
    assert_int_equal(RIG_EXEC(r, sysret, "\x48\x0f\x07"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    r->v->st.efer &= ~EFER_SCE;
    assert_int_equal(RIG_EXEC(r, syscall, "\x0f\x05"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_UD);
}

static void sysenter_and_sysexit(void **state)
{
    struct rig *r = *state;
    struct cpu_state *s = &r->v->st;
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, sysenter, "\x0f\x34"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    s->sysenter_cs = 8;
    s->sysenter_esp = 0x7000;
    s->sysenter_eip = 0x6000;
    assert_int_equal(RIG_EXEC(r, sysenter, "\x0f\x34"), EXEC_JUMP);
    assert_int_equal(s->rip, 0x6000);
    assert_int_equal(s->gpr[RSP], 0x7000);
    assert_int_equal(s->rflags, RF_FIXED);
    assert_int_equal(cpl(r->v), 0);
    s->gpr[RCX] = 0x9100;
    s->gpr[RDX] = 0x5100;
    assert_int_equal(RIG_EXEC(r, sysexit, "\x0f\x35"), EXEC_JUMP);
    assert_int_equal(s->seg[SEG_CS].sel, 0x1b);
    assert_int_equal(s->seg[SEG_SS].sel, 0x23);
    assert_int_equal(s->gpr[RSP], 0x9100);
    assert_int_equal(s->rip, 0x5100);
    assert_int_equal(RIG_EXEC(r, sysexit, "\x0f\x35"), EXEC_FAULT); /* CPL 3 */
}

static void swapgs_and_the_base_instructions(void **state)
{
    struct rig *r = *state;
    struct cpu_state *s = &r->v->st;
    rig_long(r, 0);
    s->seg[SEG_GS].base = 1;
    s->kernel_gs_base = 2;
    assert_int_equal(RIG_EXEC(r, swapgs, "\x0f\x01\xf8"), EXEC_OK);
    assert_int_equal(s->seg[SEG_GS].base, 2);
    assert_int_equal(s->kernel_gs_base, 1);
    s->gpr[RAX] = UINT64_C(0x800000000000);
    assert_int_equal(RIG_EXEC(r, wrgsbase, "\xf3\x48\x0f\xae\xd8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    s->gpr[RAX] = UINT64_C(0xffff800000001234);
    assert_int_equal(RIG_EXEC(r, wrfsbase, "\xf3\x48\x0f\xae\xd0"), EXEC_OK);
    assert_int_equal(RIG_EXEC(r, rdfsbase, "\xf3\x0f\xae\xc1"), EXEC_OK); /* ecx */
    assert_int_equal(s->gpr[RCX], 0x1234);
    rig_long(r, 3);
    assert_int_equal(RIG_EXEC(r, swapgs, "\x0f\x01\xf8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    s->cr4 &= ~CR4_FSGSBASE;
    assert_int_equal(RIG_EXEC(r, rdfsbase, "\xf3\x0f\xae\xc1"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_UD);
}

/* ---- flags ---- */

static void popf_keeps_what_the_level_may_not_touch(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    st32(rig_at(r, RIG_STACK), RF_CF | RF_IOPL | RF_VM | RF_RF | RF_AC);
    assert_int_equal(RIG_EXEC(r, popf, "\x9d"), EXEC_END);
    assert_int_equal(flags_get(r->v), RF_FIXED | RF_IF | RF_CF | RF_AC);
    r->v->st.rflags |= RF_RF;
    assert_int_equal(RIG_EXEC(r, pushf, "\x9c"), EXEC_OK);
    assert_int_equal(rig_u32(r, RIG_STACK), RF_FIXED | RF_IF | RF_CF | RF_AC);
    rig_protected(r, 0);
    st32(rig_at(r, RIG_STACK), RF_IOPL);
    assert_int_equal(RIG_EXEC(r, popf, "\x66\x9d"), EXEC_OK);
    assert_int_equal(flags_get(r->v), RF_FIXED | RF_IOPL);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK + 2);
}

static void cli_and_sti_want_iopl(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, cli, "\xfa"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    r->v->st.rflags |= RF_IOPL;
    assert_int_equal(RIG_EXEC(r, cli, "\xfa"), EXEC_OK);
    assert_int_equal(RIG_EXEC(r, sti, "\xfb"), EXEC_END);
    assert_int_equal(r->v->st.int_shadow, 1);
    r->v->st.int_shadow = 0;
    assert_int_equal(RIG_EXEC(r, sti, "\xfb"), EXEC_OK); /* IF was 1: no shadow */
    assert_int_equal(r->v->st.int_shadow, 0);
    r->v->st.rflags &= ~RF_IF;
    r->v->block_left = 2; /* the instruction behind it runs before any interrupt anyway */
    assert_int_equal(RIG_EXEC(r, sti, "\xfb"), EXEC_OK);
    assert_int_equal(r->v->st.int_shadow, 0);
    r->v->st.rflags &= ~RF_IF;
    r->v->irq_waiting = true;
    assert_int_equal(RIG_EXEC(r, sti, "\xfb"), EXEC_END);
    assert_int_equal(r->v->st.int_shadow, 1);
    r->v->block_left = 0;
    rig_v86(r, 2);
    assert_int_equal(RIG_EXEC(r, pushf, "\x9c"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
}

static void v86_iret_keeps_iopl_and_vm(void **state)
{
    struct rig *r = *state;
    rig_v86(r, 3);
    st16(rig_at(r, 0x9000), 0x123);
    st16(rig_at(r, 0x9002), 0x456);
    st16(rig_at(r, 0x9004), RF_CF);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_CF | RF_VM | RF_IOPL);
    assert_int_equal(r->v->st.seg[SEG_CS].base, 0x4560);
    assert_int_equal(r->v->st.rip, 0x123);
    assert_int_equal(cpl(r->v), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(jump_to_code_of_this_level_only),
        RIG_TEST(jump_checks_the_limit_of_the_target),
        RIG_TEST(jump_between_64_bit_and_compatibility_mode),
        RIG_TEST(real_mode_call_and_return),
        RIG_TEST(call_gate_copies_parameters_and_return_drops_them),
        RIG_TEST(gate_privilege_is_checked_before_its_target),
        RIG_TEST(call_through_a_64_bit_gate),
        RIG_TEST(return_never_goes_inwards),
        RIG_TEST(iretq_always_pops_the_stack),
        RIG_TEST(iretq_takes_a_null_ss_below_level_3_only),
        RIG_TEST(iretq_to_user_and_to_compatibility_mode),
        RIG_TEST(faulting_iret_unblocks_nmis_and_changes_nothing_else),
        RIG_TEST(iret_changes_only_the_flags_the_level_may),
        RIG_TEST(iret_with_nt_is_a_fault_in_long_mode),
        RIG_TEST(iret_raising_if_asks_for_the_waiting_interrupt),
        RIG_TEST(syscall_and_sysret_round_trip),
        RIG_TEST(sysret_faults_at_level_0_for_a_bad_rcx),
        RIG_TEST(sysenter_and_sysexit),
        RIG_TEST(swapgs_and_the_base_instructions),
        RIG_TEST(popf_keeps_what_the_level_may_not_touch),
        RIG_TEST(cli_and_sti_want_iopl),
        RIG_TEST(v86_iret_keeps_iopl_and_vm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
