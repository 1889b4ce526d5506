/* Segment registers, descriptor tables, and the questions about descriptors. */
#include "cpu_rig.h"

static void load_case(struct rig *r, unsigned seg, uint16_t sel, int vec, uint32_t err)
{
    struct cpu_state before = r->v->st;
    bool ok = seg_load(r->v, seg, sel);
    assert_int_equal(ok, vec < 0);
    if (ok) {
        assert_int_equal(r->v->st.seg[seg].sel, sel);
        return;
    }
    assert_fault(r, vec, err);
    assert_same_state(&before, &r->v->st);
}

static void data_loads_follow_the_table(void **state)
{
    static const struct {
        uint8_t level, seg;
        uint16_t sel;
        int vec; /* -1: loads */
    } cases[] = {
        {0, SEG_DS, K_DATA, -1},
        {0, SEG_DS, U_DATA, -1},
        {0, SEG_DS, K_RODATA, -1},
        {0, SEG_DS, K_CODE32, -1},
        {0, SEG_DS, K_XCODE, VEC_GP},
        {0, SEG_DS, K_DATA | 3, VEC_GP},
        {0, SEG_DS, S_TSS, VEC_GP},
        {0, SEG_ES, S_ABSENT, VEC_NP},
        {0, SEG_FS, 0x100, VEC_GP}, /* past the limit */
        {0, SEG_GS, 0x24, VEC_GP},  /* LDT entry past its limit */
        {0, SEG_DS, 2, -1},         /* null */
        {3, SEG_DS, K_DATA, VEC_GP},
        {3, SEG_DS, C_CODE32, -1},
        {3, SEG_DS, U_DATA, -1},
        {3, SEG_DS, U_DATA & ~3, -1},
        {0, SEG_SS, K_DATA, -1},
        {0, SEG_SS, K_RODATA, VEC_GP},
        {0, SEG_SS, U_DATA, VEC_GP},
        {0, SEG_SS, K_CODE32, VEC_GP},
        {3, SEG_SS, U_DATA, -1},
        {3, SEG_SS, U_DATA & ~3, VEC_GP},
        {3, SEG_SS, S_ABSENT | 3, VEC_SS},
    };
    struct rig *r = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        rig_protected(r, cases[i].level);
        load_case(r, cases[i].seg, cases[i].sel, cases[i].vec, cases[i].sel & 0xfffcu);
    }
}

static void null_ss_loads_in_64_bit_mode_below_level_3_only(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    load_case(r, SEG_SS, 0, VEC_GP, 0);
    rig_long(r, 0);
    load_case(r, SEG_SS, 0, -1, 0);
    assert_int_equal(cpl(r->v), 0);
    load_case(r, SEG_SS, 1, VEC_GP, 0); /* RPL is not CPL */
    rig_long(r, 3);
    load_case(r, SEG_SS, 3, VEC_GP, 0);
}

static void loads_set_the_accessed_bit_once(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    assert_true(seg_load(r->v, SEG_DS, K_RODATA));
    assert_int_equal(rig_gdt_get(r, K_RODATA) >> 40 & 0xff, 0x91);
    assert_true(r->v->st.seg[SEG_DS].attr & SEGA_ACCESSED);
    rig_protected(r, 3);
    assert_true(seg_load(r->v, SEG_DS, U_DATA0));
    assert_int_equal(rig_gdt_get(r, U_DATA0) >> 40 & 0xff, 0xf3);
}

static void user_code_may_load_from_supervisor_tables(void **state)
{
    struct rig *r = *state;
    rig_long(r, 3);
    st64(rig_at(r, RIG_PML4 + 0x2000), PTE_P | PTE_W | PTE_PS); /* tables are supervisor pages */
    tlb_flush_all(r->v);
    assert_true(seg_load(r->v, SEG_DS, U_DATA0));
    assert_int_equal(rig_gdt_get(r, U_DATA0) >> 40 & 0xff, 0xf3);
}

static void local_descriptors_come_from_the_ldt(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    st64(rig_at(r, RIG_LDT + 8), rig_desc(0x12345678, 0x4321, 0x0093));
    load_case(r, SEG_ES, 0x0c, -1, 0);
    assert_int_equal(r->v->st.seg[SEG_ES].base, 0x12345678);
    assert_int_equal(r->v->st.seg[SEG_ES].limit, 0x4321);
    assert_int_equal(RIG_EXEC(r, lldt, "\x0f\x00\xd0"), EXEC_OK); /* lldt ax = 0 */
    load_case(r, SEG_ES, 0x0c, VEC_GP, 0x0c);
}

static void big_real_mode_keeps_the_limit(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    assert_true(seg_load(r->v, SEG_FS, 0)); /* a null one becomes usable again */
    r->v->st.cr0 &= ~CR0_PE;
    mode_update(r->v);
    assert_true(seg_load(r->v, SEG_DS, 0x1234));
    assert_int_equal(r->v->st.seg[SEG_DS].base, 0x12340);
    assert_int_equal(r->v->st.seg[SEG_DS].limit, 0xffffffff);
    assert_true(seg_load(r->v, SEG_FS, 0x1000));
    assert_false(r->v->st.seg[SEG_FS].attr & SEGA_UNUSABLE);
}

static void mov_and_pop_ss_leave_a_shadow(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.gpr[RAX] = K_DATA;
    assert_int_equal(RIG_EXEC(r, mov_to_seg, "\x8e\xd0"), EXEC_END);
    assert_int_equal(r->v->st.int_shadow, 2);
    rig_protected(r, 0);
    r->v->st.int_shadow = 0;
    st32(rig_at(r, RIG_STACK), K_STACK16);
    assert_int_equal(RIG_EXEC(r, pop_seg, "\x17"), EXEC_END);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK + 4);
    assert_int_equal(r->v->st.int_shadow, 2);
    assert_false(r->v->st.seg[SEG_SS].attr & SEGA_DB);
}

static void faulting_pop_leaves_the_stack_pointer(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    st32(rig_at(r, RIG_STACK), S_ABSENT);
    assert_int_equal(RIG_EXEC(r, pop_seg, "\x1f"), EXEC_FAULT);
    assert_fault(r, VEC_NP, S_ABSENT);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK);
}

static void push_of_a_selector_writes_a_word_of_a_dword_slot(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    st32(rig_at(r, RIG_STACK - 4), 0xdeadbeef);
    assert_int_equal(RIG_EXEC(r, push_seg, "\x0e"), EXEC_OK);
    assert_int_equal(r->v->st.gpr[RSP], RIG_STACK - 4);
    assert_int_equal(rig_u32(r, RIG_STACK - 4), 0xdead0000 | K_CODE32);
    rig_long(r, 0);
    st64(rig_at(r, RIG_STACK - 8), UINT64_MAX);
    assert_int_equal(RIG_EXEC(r, push_seg, "\x0f\xa0"), EXEC_OK);
    assert_int_equal(rig_u64(r, RIG_STACK - 8), K_DATA);
}

static void load_far_pointer_is_all_or_nothing(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.gpr[RBX] = 0x7000;
    r->v->st.gpr[RAX] = 1;
    st32(rig_at(r, 0x7000), 0x11223344);
    st16(rig_at(r, 0x7004), K_RODATA);
    assert_int_equal(RIG_EXEC(r, load_far_ptr, "\xc4\x03"), EXEC_END); /* ES can't be written: no longer flat */
    assert_int_equal(r->v->st.gpr[RAX], 0x11223344);
    assert_int_equal(r->v->st.seg[SEG_ES].sel, K_RODATA);
    st16(rig_at(r, 0x7004), S_ABSENT);
    st32(rig_at(r, 0x7000), 0x55);
    assert_int_equal(RIG_EXEC(r, load_far_ptr, "\x0f\xb5\x03"), EXEC_FAULT);
    assert_int_equal(r->v->st.gpr[RAX], 0x11223344);
}

/* ---- LLDT, LTR ---- */

static void ltr_marks_busy_and_refuses_busy(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    r->v->st.gpr[RAX] = S_TSS2;
    assert_int_equal(RIG_EXEC(r, ltr, "\x0f\x00\xd8"), EXEC_OK);
    assert_int_equal(rig_gdt_get(r, S_TSS2) >> 40 & 0xff, 0x8b);
    assert_int_equal(r->v->st.seg[SEG_TR].attr & SEGA_TYPE, 11);
    assert_int_equal(r->v->st.seg[SEG_TR].base, RIG_TSS2);
    assert_int_equal(RIG_EXEC(r, ltr, "\x0f\x00\xd8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_TSS2);
    r->v->st.gpr[RAX] = 0;
    assert_int_equal(RIG_EXEC(r, ltr, "\x0f\x00\xd8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
    rig_protected(r, 3);
    assert_int_equal(RIG_EXEC(r, ltr, "\x0f\x00\xd8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
}

static void long_mode_system_descriptors_have_16_bytes(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    r->v->st.gpr[RAX] = S_TSS;
    rig_gdt(r, S_TSS, rig_desc(RIG_TSS, 0x67, A_TSS32));
    st64(rig_at(r, RIG_GDT + S_TSS + 8), 0xffff8880);
    assert_int_equal(RIG_EXEC(r, ltr, "\x0f\x00\xd8"), EXEC_OK);
    assert_int_equal(r->v->st.seg[SEG_TR].base, UINT64_C(0xffff888000000000) | RIG_TSS);
    r->v->st.gpr[RAX] = S_LDT;
    st64(rig_at(r, RIG_GDT + S_LDT + 8), 0x00008880); /* not canonical */
    assert_int_equal(RIG_EXEC(r, lldt, "\x0f\x00\xd0"), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_LDT);
    st64(rig_at(r, RIG_GDT + S_LDT + 8), UINT64_C(1) << 40); /* a type in the upper half */
    assert_int_equal(RIG_EXEC(r, lldt, "\x0f\x00\xd0"), EXEC_FAULT);
    r->v->st.gdtr.limit = S_LDT + 7; /* only its lower half is inside */
    assert_int_equal(RIG_EXEC(r, lldt, "\x0f\x00\xd0"), EXEC_FAULT);
    assert_fault(r, VEC_GP, S_LDT);
}

static void table_instructions_do_not_exist_in_real_mode(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    assert_int_equal(RIG_EXEC(r, lldt, "\x0f\x00\xd0"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_UD);
    assert_int_equal(RIG_EXEC(r, lar, "\x0f\x02\xc0"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_UD);
    assert_int_equal(RIG_EXEC(r, str, "\x0f\x00\xc8"), EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_UD);
}

static void store_of_selectors_obeys_umip(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    r->v->st.gpr[RAX] = UINT64_MAX;
    assert_int_equal(RIG_EXEC(r, str, "\x0f\x00\xc8"), EXEC_OK);
    assert_int_equal(r->v->st.gpr[RAX], S_TSS);
    r->v->st.cr4 |= CR4_UMIP;
    assert_int_equal(RIG_EXEC(r, str, "\x0f\x00\xc8"), EXEC_FAULT);
    assert_fault(r, VEC_GP, 0);
}

/* ---- LAR, LSL, VERR, VERW ---- */

static bool ask(struct rig *r, exec_fn *fn, const char *bytes, uint16_t sel, uint64_t *val)
{
    r->v->st.gpr[RAX] = sel;
    r->v->st.gpr[RCX] = 0x77;
    r->v->st.rip = RIG_CODE;
    flags_put(r->v, RF_CF);
    assert_int_equal(rig_exec(r, fn, bytes, 3), EXEC_OK);
    *val = r->v->st.gpr[RCX];
    assert_true(flags_get(r->v) & RF_CF);
    return flags_get(r->v) & RF_ZF;
}

static void lar_and_lsl_answer_by_zf(void **state)
{
    struct rig *r = *state;
    uint64_t val;
    rig_protected(r, 0);
    assert_true(ask(r, exec_lar, "\x0f\x02\xc8", K_DATA, &val));
    assert_int_equal(val, 0x00c09300);
    assert_true(ask(r, exec_lsl, "\x0f\x03\xc8", K_DATA, &val));
    assert_int_equal(val, 0xffffffff);
    assert_true(ask(r, exec_lsl, "\x0f\x03\xc8", S_TSS, &val));
    assert_int_equal(val, 0x67);
    assert_true(ask(r, exec_lar, "\x0f\x02\xc8", S_TASKGATE, &val));
    assert_false(ask(r, exec_lsl, "\x0f\x03\xc8", S_TASKGATE, &val));
    assert_int_equal(val, 0x77);
    assert_false(ask(r, exec_lar, "\x0f\x02\xc8", 0, &val));
    assert_false(ask(r, exec_lar, "\x0f\x02\xc8", 0x100, &val));
    assert_false(ask(r, exec_lar, "\x0f\x02\xc8", K_DATA | 3, &val));
    rig_protected(r, 3);
    assert_false(ask(r, exec_lar, "\x0f\x02\xc8", K_DATA, &val));
    assert_true(ask(r, exec_lar, "\x0f\x02\xc8", C_CODE32, &val));
    rig_long(r, 0);
    assert_false(ask(r, exec_lar, "\x0f\x02\xc8", S_TASKGATE, &val));
    assert_true(ask(r, exec_lsl, "\x0f\x03\xc8", S_TSS, &val));
}

static void verr_and_verw_answer_by_zf(void **state)
{
    struct rig *r = *state;
    uint64_t val;
    rig_protected(r, 0);
    assert_true(ask(r, exec_verr, "\x0f\x00\xe0", K_RODATA, &val));
    assert_false(ask(r, exec_verw, "\x0f\x00\xe8", K_RODATA, &val));
    assert_true(ask(r, exec_verw, "\x0f\x00\xe8", K_DATA, &val));
    assert_false(ask(r, exec_verr, "\x0f\x00\xe0", K_XCODE, &val));
    assert_false(ask(r, exec_verw, "\x0f\x00\xe8", K_CODE32, &val));
    assert_false(ask(r, exec_verr, "\x0f\x00\xe0", S_TSS, &val));
    rig_protected(r, 3);
    assert_false(ask(r, exec_verr, "\x0f\x00\xe0", K_DATA, &val));
    assert_true(ask(r, exec_verr, "\x0f\x00\xe0", C_CODE32, &val));
}

/* ---- stacks ---- */

static void expand_down_stack_has_its_room_above_the_limit(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    seg_from_desc(&r->v->st.seg[SEG_SS], K_STACK16, rig_desc(0, 0x7fff, 0x0097));
    mode_update(r->v);
    r->v->st.gpr[RSP] = 0x8004;
    assert_true(stack_push(r->v, 4, 1));
    assert_false(stack_push(r->v, 4, 1));
    assert_fault(r, VEC_SS, 0);
    assert_int_equal(r->v->st.gpr[RSP], 0x8000);
    assert_false(event_deliver_interrupt(r->v, 0x30)); /* nor does any frame fit */
}

static void sixteen_bit_stack_pointer_wraps_and_keeps_the_rest(void **state)
{
    struct rig *r = *state;
    uint64_t val;
    rig_real(r);
    r->v->st.gpr[RSP] = 0xabcd0000;
    assert_true(stack_push(r->v, 2, 0x1234));
    assert_int_equal(r->v->st.gpr[RSP], 0xabcdfffe);
    assert_true(stack_pop(r->v, 2, &val));
    assert_int_equal(val, 0x1234);
    assert_int_equal(r->v->st.gpr[RSP], 0xabcd0000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(data_loads_follow_the_table),
        RIG_TEST(null_ss_loads_in_64_bit_mode_below_level_3_only),
        RIG_TEST(loads_set_the_accessed_bit_once),
        RIG_TEST(user_code_may_load_from_supervisor_tables),
        RIG_TEST(local_descriptors_come_from_the_ldt),
        RIG_TEST(big_real_mode_keeps_the_limit),
        RIG_TEST(mov_and_pop_ss_leave_a_shadow),
        RIG_TEST(faulting_pop_leaves_the_stack_pointer),
        RIG_TEST(push_of_a_selector_writes_a_word_of_a_dword_slot),
        RIG_TEST(load_far_pointer_is_all_or_nothing),
        RIG_TEST(ltr_marks_busy_and_refuses_busy),
        RIG_TEST(long_mode_system_descriptors_have_16_bytes),
        RIG_TEST(table_instructions_do_not_exist_in_real_mode),
        RIG_TEST(store_of_selectors_obeys_umip),
        RIG_TEST(lar_and_lsl_answer_by_zf),
        RIG_TEST(verr_and_verw_answer_by_zf),
        RIG_TEST(expand_down_stack_has_its_room_above_the_limit),
        RIG_TEST(sixteen_bit_stack_pointer_wraps_and_keeps_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
