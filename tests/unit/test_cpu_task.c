/* Task switches by JMP, CALL, gate and IRET. */
#include "cpu_rig.h"

#include "cpu/soft/far.h"

#define JMP_TSS2  "\xea\x00\x00\x00\x00\x50\x00"
#define CALL_TSS2 "\x9a\x00\x00\x00\x00\x50\x00"

enum { NEW_EIP = 0x6500, NEW_ESP = 0xb000 };

static bool jmp_to_tss2(struct rig *r)
{
    struct task_args a = {.sel = S_TSS2, .why = TASK_JMP, .next_rip = RIG_CODE + 7, .flags = flags_get(r->v)};
    return task_switch_to(r->v, &a);
}

static void tss32(struct rig *r, uint32_t at, uint16_t cs, uint16_t ss, uint16_t data)
{
    static const unsigned data_at[] = {0x48, 0x54, 0x58, 0x5c};
    memset(rig_at(r, at), 0, 0x68);
    st32(rig_at(r, at + 4), RIG_STACK0);
    st32(rig_at(r, at + 8), K_DATA);
    st32(rig_at(r, at + 0x20), NEW_EIP);
    st32(rig_at(r, at + 0x24), RF_FIXED | RF_CF);
    st32(rig_at(r, at + 0x28), 0xaaaa); /* EAX */
    st32(rig_at(r, at + 0x38), NEW_ESP);
    st32(rig_at(r, at + 0x4c), cs);
    st32(rig_at(r, at + 0x50), ss);
    for (unsigned i = 0; i < ARRAY_SIZE(data_at); i++)
        st32(rig_at(r, at + data_at[i]), data);
}

static void setup(struct rig *r, unsigned level)
{
    rig_protected(r, level);
    tss32(r, RIG_TSS2, K_CODE32, K_DATA, K_DATA);
    r->v->st.gpr[RAX] = 0x1111;
    r->v->st.gpr[RDI] = 0x7777;
}

static unsigned busy(struct rig *r, uint16_t sel)
{
    return rig_gdt_get(r, sel) >> 41 & 1;
}

static void jump_saves_the_old_task_and_frees_it(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    r->v->st.dr[7] = DR7_FIXED | 0x1ff;
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, NEW_EIP);
    assert_int_equal(r->v->st.gpr[RSP], NEW_ESP);
    assert_int_equal(r->v->st.gpr[RAX], 0xaaaa);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_CF);
    assert_int_equal(r->v->st.seg[SEG_TR].sel, S_TSS2);
    assert_int_equal(r->v->st.seg[SEG_DS].sel, K_DATA);
    assert_true(r->v->st.cr0 & CR0_TS);
    assert_int_equal(r->v->st.dr[7], DR7_FIXED | 0xaa);
    assert_int_equal(busy(r, S_TSS), 0);
    assert_int_equal(busy(r, S_TSS2), 1);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x20), RIG_CODE + 7);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x28), 0x1111);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x38), RIG_STACK);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x44), 0x7777);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x4c), K_CODE32);
    assert_int_equal(rig_u32(r, RIG_TSS2), 0); /* no back link */
}

static void call_nests_and_iret_returns(void **state)
{
    struct rig *r = *state;
    struct cpu_state before;
    setup(r, 0);
    r->v->st.seg[SEG_LDTR].attr |= SEGA_UNUSABLE;
    r->v->st.seg[SEG_LDTR].sel = 0;
    before = r->v->st;
    assert_int_equal(RIG_EXEC(r, callf, CALL_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.rflags, RF_FIXED | RF_CF | RF_NT);
    assert_int_equal(rig_u32(r, RIG_TSS2) & 0xffff, S_TSS);
    assert_int_equal(busy(r, S_TSS), 1);
    assert_int_equal(busy(r, S_TSS2), 1);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->st.seg[SEG_TR].sel, S_TSS);
    assert_int_equal(r->v->st.rip, before.rip + 7);
    assert_int_equal(r->v->st.rflags, before.rflags);
    assert_int_equal(r->v->st.gpr[RDI], 0x7777);
    assert_int_equal(busy(r, S_TSS2), 0);
    assert_int_equal(busy(r, S_TSS), 1);
    assert_int_equal(rig_u32(r, RIG_TSS2 + 0x24), RF_FIXED | RF_CF); /* NT is gone from the saved image */
    assert_int_equal(rig_u32(r, RIG_TSS2 + 0x20), NEW_EIP + 1);
}

static void bad_descriptors_fault_in_the_old_task(void **state)
{
    static const struct {
        uint32_t limit, attr;
        int vec;
    } cases[] = {{0x67, A_TSS32 | 2, VEC_GP}, {0x66, A_TSS32, VEC_TS}, {0x67, A_TSS32 & ~0x80, VEC_NP}};
    struct rig *r = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(r, 0);
        rig_gdt(r, S_TSS2, rig_desc(RIG_TSS2, cases[i].limit, cases[i].attr));
        struct cpu_state before = r->v->st;
        assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_FAULT);
        assert_fault(r, cases[i].vec, S_TSS2);
        assert_same_state(&before, &r->v->st);
        assert_int_equal(busy(r, S_TSS), 1);
    }
}

static void user_needs_a_gate_of_its_level(void **state)
{
    struct rig *r = *state;
    setup(r, 3);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_TSS2);
    assert_int_equal(RIG_EXEC(r, jmpf, "\xea\x00\x00\x00\x00\x58\x00"), EXEC_JUMP); /* the task gate, DPL 3 */
    assert_int_equal(r->v->st.seg[SEG_TR].sel, S_TSS2);
    assert_int_equal(cpl(r->v), 0);
}

static void bad_segments_fault_in_the_new_task(void **state)
{
    static const struct {
        uint16_t cs, ss, data;
        int vec;
        uint16_t err;
    } cases[] = {
        {0, K_DATA, K_DATA, VEC_TS, 0},
        {K_DATA, K_DATA, K_DATA, VEC_TS, K_DATA},
        {U_CODE32 & ~3, K_DATA, K_DATA, VEC_TS, U_CODE32 & ~3},
        {K_CODE32, 0, K_DATA, VEC_TS, 0},
        {K_CODE32, K_RODATA, K_DATA, VEC_TS, K_RODATA},
        {K_CODE32, K_DATA, K_XCODE, VEC_TS, K_XCODE},
        {K_CODE32, K_DATA, S_ABSENT, VEC_NP, S_ABSENT},
        {U_CODE32, U_DATA, K_DATA, VEC_TS, K_DATA},
    };
    struct rig *r = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(r, 0);
        tss32(r, RIG_TSS2, cases[i].cs, cases[i].ss, cases[i].data);
        assert_false(jmp_to_tss2(r));
        assert_fault(r, cases[i].vec, cases[i].err);
        assert_int_equal(r->v->st.seg[SEG_TR].sel, S_TSS2);
        assert_int_equal(r->v->st.rip, NEW_EIP);
    }
}

static void ldt_of_the_new_task_is_checked(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    st16(rig_at(r, RIG_TSS2 + 0x60), S_LDT);
    st64(rig_at(r, RIG_LDT + 8), rig_desc(0x1000, 0xfff, 0x0093));
    tss32(r, RIG_TSS2, K_CODE32, K_DATA, 0x0c);
    st16(rig_at(r, RIG_TSS2 + 0x60), S_LDT);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.seg[SEG_LDTR].base, RIG_LDT);
    assert_int_equal(r->v->st.seg[SEG_DS].base, 0x1000);
    setup(r, 0);
    st16(rig_at(r, RIG_TSS2 + 0x60), K_DATA);
    assert_false(jmp_to_tss2(r));
    assert_fault(r, VEC_TS, K_DATA);
}

static void interrupt_gate_to_a_task_pushes_the_error_code(void **state)
{
    struct rig *r = *state;
    setup(r, 3);
    st64(rig_at(r, RIG_IDT + VEC_GP * 8), rig_gate(S_TSS2, 0, A_TASK));
    assert_true(rig_raise(r, VEC_GP, true, 0x1234));
    assert_int_equal(r->v->st.rip, NEW_EIP);
    assert_int_equal(r->v->st.gpr[RSP], NEW_ESP - 4);
    assert_int_equal(rig_u32(r, NEW_ESP - 4), 0x1234);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x20), RIG_CODE);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x24), RF_FIXED | RF_IF | RF_RF);
    assert_true(r->v->st.rflags & RF_NT);
    assert_int_equal(cpl(r->v), 0);
}

static void double_fault_task_saves_a_broken_kernel(void **state)
{
    struct rig *r = *state;
    setup(r, 3);
    st32(rig_at(r, RIG_TSS + 8), 0); /* no kernel stack at all */
    st64(rig_at(r, RIG_IDT + VEC_DF * 8), rig_gate(S_TSS2, 0, A_TASK));
    assert_true(rig_raise(r, VEC_GP, true, 0));
    assert_int_equal(r->v->st.rip, NEW_EIP);
    assert_int_equal(rig_u32(r, NEW_ESP - 4), 0);
    assert_int_equal(rig_u32(r, RIG_TSS + 0x4c), U_CODE32);
}

static void busy_task_gate_is_gp_with_ext(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    st64(rig_at(r, RIG_IDT + 0x30 * 8), rig_gate(S_TSS, 0, A_TASK));
    assert_true(event_deliver_interrupt(r->v, 0x30));
    assert_int_equal(r->v->st.rip, rig_handler(VEC_GP));
    assert_int_equal(rig_u32(r, RIG_STACK - 16), S_TSS | 1);
}

static void trap_bit_is_a_debug_trap_before_the_first_instruction(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    st32(rig_at(r, RIG_TSS2 + 0x64), 1);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, rig_handler(VEC_DB));
    assert_true(r->v->st.dr[6] & DR6_BT);
    assert_int_equal(rig_u32(r, NEW_ESP - 12), NEW_EIP);
}

/* The new task has no usable SS, so its #TS has nowhere to go but a task of its own; without one: shutdown. */
static void fault_of_the_new_task_is_delivered_in_it(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    tss32(r, RIG_TSS2, K_CODE32, K_DATA, K_XCODE);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, rig_handler(VEC_TS));
    assert_int_equal(rig_u32(r, NEW_ESP - 16), K_XCODE);
    assert_int_equal(rig_u32(r, NEW_ESP - 12), NEW_EIP);
    setup(r, 0);
    tss32(r, RIG_TSS2, K_CODE32, 0, K_DATA);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_LEAVE);
    assert_int_equal(r->v->st.activity, CPU_SHUTDOWN);
}

static void sixteen_bit_task_and_back(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    memset(rig_at(r, RIG_TSS16), 0, 0x2c);
    st16(rig_at(r, RIG_TSS16 + 0x0e), 0x6500);
    st16(rig_at(r, RIG_TSS16 + 0x10), RF_FIXED);
    st16(rig_at(r, RIG_TSS16 + 0x12), 0xbeef); /* AX */
    st16(rig_at(r, RIG_TSS16 + 0x1a), 0x7000); /* SP */
    st16(rig_at(r, RIG_TSS16 + 0x24), K_CODE16);
    st16(rig_at(r, RIG_TSS16 + 0x26), K_STACK16);
    assert_int_equal(RIG_EXEC(r, callf, "\x9a\x00\x00\x00\x00\x88\x00"), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE16);
    assert_int_equal(r->v->st.gpr[RAX], 0xbeef);
    assert_int_equal(r->v->st.gpr[RSP], 0x7000);
    assert_true(r->v->st.seg[SEG_FS].attr & SEGA_UNUSABLE);
    assert_int_equal(ld16(rig_at(r, RIG_TSS16)), S_TSS);
    assert_int_equal(RIG_EXEC(r, iret, "\xcf"), EXEC_JUMP);
    assert_int_equal(r->v->mode & MODE_CODE, CODE32);
    assert_int_equal(r->v->st.rip, RIG_CODE + 7);
    assert_int_equal(ld16(rig_at(r, RIG_TSS16 + 0x0e)), 0x6501);
    assert_int_equal(ld16(rig_at(r, RIG_TSS16 + 0x28)), 0); /* DS */
}

static void task_in_virtual_8086_mode(void **state)
{
    struct rig *r = *state;
    setup(r, 0);
    tss32(r, RIG_TSS2, 0x600, 0x800, 0x900);
    st32(rig_at(r, RIG_TSS2 + 0x24), RF_FIXED | RF_VM);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.seg[SEG_CS].base, 0x6000);
    assert_int_equal(r->v->st.seg[SEG_DS].base, 0x9000);
    assert_int_equal(cpl(r->v), 3);
    assert_int_equal(r->v->mode & MODE_CODE, CODE16);
}

/* The new TSS lies in a page that is not there: a page fault, and the old task goes on as if nothing had happened. */
static void page_fault_on_the_new_tss_belongs_to_the_old_task(void **state)
{
    struct rig *r = *state;
    enum { PD = 0x20000, PT = 0x21000 };
    setup(r, 0);
    st32(rig_at(r, PD), PT | PTE_P | PTE_W);
    for (uint32_t i = 0; i < 1024; i++)
        st32(rig_at(r, PT + i * 4), i << 12 | PTE_P | PTE_W);
    st32(rig_at(r, PT + 0xc * 4), 0);
    rig_gdt(r, S_TSS2, rig_desc(0xbfc0, 0x67, A_TSS32)); /* its second half is in page Ch */
    tss32(r, 0xbfc0, K_CODE32, K_DATA, K_DATA);
    st32(rig_at(r, 0xbfc0 + 0x1c), PD);
    r->v->st.cr3 = PD;
    r->v->st.cr0 |= CR0_PG;
    tlb_flush_all(r->v);
    mode_update(r->v);
    struct cpu_state before = r->v->st;
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_PF);
    assert_int_equal(r->v->st.cr2, 0xc000);
    before.cr2 = 0xc000;
    assert_same_state(&before, &r->v->st);
    assert_int_equal(busy(r, S_TSS), 1);
    assert_int_equal(busy(r, S_TSS2), 0);
    st32(rig_at(r, PT + 0xc * 4), 0xc000 | PTE_P | PTE_W);
    assert_int_equal(RIG_EXEC(r, jmpf, JMP_TSS2), EXEC_JUMP);
    assert_int_equal(r->v->st.rip, NEW_EIP);
    assert_int_equal(r->v->st.cr3, PD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(jump_saves_the_old_task_and_frees_it),
        RIG_TEST(call_nests_and_iret_returns),
        RIG_TEST(bad_descriptors_fault_in_the_old_task),
        RIG_TEST(user_needs_a_gate_of_its_level),
        RIG_TEST(bad_segments_fault_in_the_new_task),
        RIG_TEST(ldt_of_the_new_task_is_checked),
        RIG_TEST(interrupt_gate_to_a_task_pushes_the_error_code),
        RIG_TEST(double_fault_task_saves_a_broken_kernel),
        RIG_TEST(busy_task_gate_is_gp_with_ext),
        RIG_TEST(trap_bit_is_a_debug_trap_before_the_first_instruction),
        RIG_TEST(fault_of_the_new_task_is_delivered_in_it),
        RIG_TEST(sixteen_bit_task_and_back),
        RIG_TEST(task_in_virtual_8086_mode),
        RIG_TEST(page_fault_on_the_new_tss_belongs_to_the_old_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
