/* Interrupt shadows, single steps and breakpoints through vcpu_run(): who may come between two instructions. Handlers
 * are a HLT with IF = 0, so that every run ends in the first one entered.
 */
#include "cpu_rig.h"

static void code(struct rig *r, const char *bytes, unsigned len)
{
    memcpy(rig_at(r, RIG_CODE), bytes, len);
    for (unsigned vector = 0; vector < 80; vector++)
        *rig_at(r, rig_handler(vector)) = 0xf4;
}

#define CODE(r, bytes) code((r), (bytes), sizeof(bytes) - 1)

static void go(struct rig *r, uint64_t budget)
{
    r->run.budget = budget;
    r->run.now = 0;
    engine_soft.vcpu_run((struct engine_vcpu *)r->v, &r->run);
    assert_null(r->v->run);
}

/* Runs into the handler of `vector`, which returns to `eip`. */
static void expect(struct rig *r, unsigned vector, uint32_t eip)
{
    go(r, 1000);
    assert_int_equal(r->run.exit, CPU_EXIT_HALT);
    assert_int_equal(r->v->st.rip, rig_handler(vector) + 1);
    assert_int_equal(rig_u32(r, r->v->st.gpr[RSP]), eip);
}

static void pend(struct rig *r, uint8_t vector)
{
    struct irq irq = {.dest = 5, .vector = vector, .assert_ = 1};
    assert_true(fabric_msr_write(r->fabric, r->v->idx, 0, 0x80f, 0x1ff));
    assert_int_equal(fabric_deliver(r->fabric, irq), 1);
}

static void sti_lets_one_more_instruction_run(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\xfa\xfb\x40\x40\xf4"); /* cli; sti; inc eax; inc eax; hlt */
    r->v->st.rflags &= ~RF_IF;
    pend(r, 0x31);
    expect(r, 0x31, RIG_CODE + 3);
    assert_int_equal(r->v->st.gpr[RAX], 1);
}

static void sti_hlt_wakes_behind_the_hlt(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\xfb\xf4\x40");
    r->v->st.rflags &= ~RF_IF;
    pend(r, 0x31);
    go(r, 1000);
    if (r->v->st.rip == RIG_CODE + 2) /* left for the HLT with the interrupt flagged: the runner comes straight back */
        assert_true(engine_soft.attn((struct engine_vcpu *)r->v) & ATTN_IRQ);
    expect(r, 0x31, RIG_CODE + 2);
}

static void sti_cli_lets_nothing_in(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\xfb\xfa\x40\xcc"); /* sti; cli; inc eax; int3 */
    r->v->st.rflags &= ~RF_IF;
    pend(r, 0x31);
    expect(r, VEC_BP, RIG_CODE + 4);
    assert_int_equal(r->v->st.gpr[RAX], 1);
}

static void sti_at_a_page_end_still_shadows(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    code(r, "", 0);
    *rig_at(r, RIG_CODE + 0xfff) = 0xfb;
    rig_at(r, RIG_CODE + 0x1000)[0] = 0x40;
    r->v->st.rip = RIG_CODE + 0xfff;
    r->v->st.rflags &= ~RF_IF;
    pend(r, 0x31);
    *rig_at(r, RIG_CODE + 0x1001) = 0xf4;
    /* The second page holds the handlers too; 31h is far from its start. */
    expect(r, 0x31, RIG_CODE + 0x1001);
}

static void popf_takes_a_waiting_interrupt_at_once(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\xfa\x68\x02\x02\x00\x00\x9d\x40\xf4"); /* cli; push 202h; popf; inc eax; hlt */
    r->v->st.rflags &= ~RF_IF;
    pend(r, 0x31);
    expect(r, 0x31, RIG_CODE + 7);
    assert_int_equal(r->v->st.gpr[RAX], 0);
}

static void single_step_traps_after_the_next_instruction(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\x68\x02\x01\x00\x00\x9d\x40\x40\xf4"); /* push 102h; popf; inc eax; inc eax; hlt */
    expect(r, VEC_DB, RIG_CODE + 7);
    assert_int_equal(r->v->st.gpr[RAX], 1);
    assert_int_equal(r->v->st.dr[6], DR6_FIXED | DR6_BS);
    assert_true(rig_u32(r, r->v->st.gpr[RSP] + 8) & RF_TF);
    assert_false(r->v->st.rflags & RF_TF);
}

static void mov_ss_holds_the_step_back(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\x8e\xd0\x41\x41\xf4"); /* mov ss, ax; inc ecx; inc ecx; hlt */
    r->v->st.gpr[RAX] = K_DATA;
    r->v->st.rflags |= RF_TF;
    expect(r, VEC_DB, RIG_CODE + 3);
    assert_int_equal(r->v->st.gpr[RCX], 1);
}

static void breakpoint_faults_once_and_rf_gets_past_it(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\x40\x40\xf4");
    r->v->st.dr[0] = RIG_CODE + 1;
    r->v->st.dr[7] = DR7_FIXED | 2;
    mode_update(r->v);
    expect(r, VEC_DB, RIG_CODE + 1);
    assert_int_equal(r->v->st.gpr[RAX], 1);
    assert_int_equal(r->v->st.dr[6], DR6_FIXED | 1);
    *rig_at(r, rig_handler(VEC_DB)) = 0xcf; /* iret, with RF set in the image */
    st32(rig_at(r, RIG_STACK - 4), rig_u32(r, RIG_STACK - 4) | RF_RF);
    r->v->st.rip = rig_handler(VEC_DB);
    r->v->st.activity = CPU_ACTIVE;
    block_dma_write(r->v->vm, rig_handler(VEC_DB), 1);
    r->v->st.rflags &= ~RF_IF;
    st32(rig_at(r, RIG_STACK - 4), rig_u32(r, RIG_STACK - 4) & ~(uint32_t)RF_IF);
    go(r, 1000);
    assert_int_equal(r->v->st.rip, RIG_CODE + 3);
    assert_int_equal(r->v->st.gpr[RAX], 2);
    assert_int_equal(r->v->st.rflags & RF_RF, 0);
}

static void software_interrupt_and_return_in_64_bit_code(void **state)
{
    struct rig *r = *state;
    rig_long(r, 3);
    CODE(r, "\xcd\x41\x48\xff\xc0\x0f\x0b"); /* int 41h; inc rax; ud2 */
    memcpy(rig_at(r, rig_handler(0x41)), "\x48\xcf", 2);
    go(r, 1000);
    assert_int_equal(r->v->st.rip, rig_handler(VEC_UD) + 1);
    assert_int_equal(r->v->st.gpr[RAX], 1);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 40), RIG_CODE + 5);
    assert_int_equal(rig_u64(r, RIG_STACK0 - 16), RIG_STACK);
}

static void triple_fault_leaves_the_loop(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    CODE(r, "\x0f\x0b");
    r->v->st.idtr.limit = 0;
    go(r, 1000);
    assert_int_equal(r->run.exit, CPU_EXIT_SHUTDOWN);
    assert_int_equal(r->v->st.rip, RIG_CODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(sti_lets_one_more_instruction_run),
        RIG_TEST(sti_hlt_wakes_behind_the_hlt),
        RIG_TEST(sti_cli_lets_nothing_in),
        RIG_TEST(sti_at_a_page_end_still_shadows),
        RIG_TEST(popf_takes_a_waiting_interrupt_at_once),
        RIG_TEST(single_step_traps_after_the_next_instruction),
        RIG_TEST(mov_ss_holds_the_step_back),
        RIG_TEST(breakpoint_faults_once_and_rf_gets_past_it),
        RIG_TEST(software_interrupt_and_return_in_64_bit_code),
        RIG_TEST(triple_fault_leaves_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
