/* String instructions where the native oracle doesn't reach: long REPs, faults in the middle, 16-bit wrap, ports,
 * self-modifying copies.
 */
#include "cpu_rig.h"

#include <stdlib.h>

enum { FROM = 0x100000, TO = 0x140000 };

static struct insn decode(struct rig *r, const char *bytes, unsigned len)
{
    struct insn in;
    assert_int_equal(decode_insn((const uint8_t *)bytes, len, r->v->mode & MODE_CODE, &in), DECODE_OK);
    assert_int_equal(in.len, len);
    return in;
}

static enum exec_result once(struct rig *r, const struct insn *in)
{
    static exec_fn *const fn[] = {[OP_movs - OP_movs] = exec_movs, [OP_cmps - OP_movs] = exec_cmps,
                                  [OP_scas - OP_movs] = exec_scas, [OP_lods - OP_movs] = exec_lods,
                                  [OP_stos - OP_movs] = exec_stos, [OP_ins - OP_movs] = exec_ins,
                                  [OP_outs - OP_movs] = exec_outs};
    r->v->next_rip = r->v->st.rip + in->len;
    return fn[in->op - OP_movs](r->v, in);
}

/* Until it is done or faults; returns the number of calls. */
static unsigned run(struct rig *r, const char *bytes, unsigned len, enum exec_result want)
{
    struct insn in = decode(r, bytes, len);
    enum exec_result got;
    unsigned calls = 0;
    do {
        uint64_t before = r->v->st.gpr[RCX];
        got = once(r, &in);
        assert_true(got != EXEC_RESTART || r->v->st.gpr[RCX] < before);
        calls++;
    } while (got == EXEC_RESTART);
    assert_int_equal(got, want);
    return calls;
}
#define RUN(r, bytes, want) run((r), (bytes), sizeof(bytes) - 1, (want))

static void set(struct rig *r, uint64_t cx, uint64_t si, uint64_t di)
{
    r->v->st.gpr[RCX] = cx;
    r->v->st.gpr[RSI] = si;
    r->v->st.gpr[RDI] = di;
}

static void pattern(struct rig *r, uint64_t at, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        *rig_at(r, at + i) = (uint8_t)(i * 7 + (i >> 8));
}

static void a_long_copy_goes_in_bounded_pieces(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    pattern(r, FROM + 0x123, 20000);
    set(r, 20000, FROM + 0x123, TO + 0x456);
    assert_true(RUN(r, "\xf3\xa4", EXEC_OK) >= 4);
    assert_memory_equal(rig_at(r, FROM + 0x123), rig_at(r, TO + 0x456), 20000);
    assert_int_equal(*rig_at(r, TO + 0x455), 0);
    assert_int_equal(*rig_at(r, TO + 0x456 + 20000), 0);
    assert_int_equal(r->v->st.gpr[RSI], FROM + 0x123 + 20000);
    assert_int_equal(r->v->st.gpr[RDI], TO + 0x456 + 20000);
    assert_int_equal(r->v->st.gpr[RCX], 0);
}

/* One element after the other, whatever they overlap. */
static void overlapping_copies_repeat_what_they_wrote(void **state)
{
    struct rig *r = *state;
    for (unsigned distance = 1; distance < 20; distance++) {
        uint8_t want[4096];
        rig_protected(r, 0);
        pattern(r, FROM, sizeof want);
        memcpy(want, rig_at(r, FROM), sizeof want);
        for (unsigned i = 0; i < 900; i++)
            st32(want + distance + i * 4, ld32(want + i * 4));
        set(r, 900, FROM, FROM + distance);
        RUN(r, "\xf3\xa5", EXEC_OK);
        assert_memory_equal(rig_at(r, FROM), want, sizeof want);
    }
}

static void df_copies_downwards(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    pattern(r, FROM, 0x3000);
    set(r, 0x800, FROM + 0x2ffc, TO + 0x2ffc);
    r->v->st.rflags |= RF_DF;
    RUN(r, "\xf3\xa5", EXEC_OK);
    assert_memory_equal(rig_at(r, FROM + 0x1000), rig_at(r, TO + 0x1000), 0x2000);
    assert_int_equal(*rig_at(r, TO + 0xfff), 0);
    assert_int_equal(r->v->st.gpr[RSI], FROM + 0xffc);
}

static void a_fault_leaves_the_registers_at_the_element(void **state)
{
    struct rig *r = *state;
    rig_long(r, 0);
    st64(rig_at(r, RIG_PML4 + 0x2000 + 8), 0); /* 2 .. 4 MiB */
    tlb_flush_all(r->v);
    pattern(r, FROM, 0x2000);
    set(r, 0x300, FROM, 0x200000 - 0x803); /* quadwords: the last one straddles the hole */
    RUN(r, "\xf3\x48\xa5", EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_PF);
    assert_int_equal(r->v->fault.error, PF_W);
    assert_int_equal(r->v->st.cr2, 0x200000);
    assert_int_equal(r->v->st.gpr[RCX], 0x300 - 0x100);
    assert_int_equal(r->v->st.gpr[RDI], 0x200000 - 3);
    assert_int_equal(r->v->st.gpr[RSI], FROM + 0x800);
    assert_memory_equal(rig_at(r, FROM), rig_at(r, 0x200000 - 0x803), 0x800);
    assert_int_equal(*rig_at(r, 0x200000 - 3), 0);
}

static void sixteen_bit_offsets_wrap_and_merge(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    r->v->st.seg[SEG_ES].base = TO;
    r->v->st.gpr[RAX] = 0x5a;
    set(r, 0xabcd0004, 0, 0x1234fffe);
    RUN(r, "\xf3\xaa", EXEC_OK);
    assert_int_equal(*rig_at(r, TO + 0xfffe), 0x5a);
    assert_int_equal(*rig_at(r, TO + 0xffff), 0x5a);
    assert_int_equal(*rig_at(r, TO + 1), 0x5a);
    assert_int_equal(*rig_at(r, TO + 2), 0);
    assert_int_equal(*rig_at(r, TO + 0x10000), 0);
    assert_int_equal(r->v->st.gpr[RDI], 0x12340002);
    assert_int_equal(r->v->st.gpr[RCX], 0xabcd0000);
}

static void a_word_past_the_limit_faults(void **state)
{
    struct rig *r = *state;
    rig_real(r);
    set(r, 3, 0, 0xfffd);
    RUN(r, "\xf3\xab", EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_GP);
    assert_int_equal(r->v->st.gpr[RDI], 0xffff);
    assert_int_equal(r->v->st.gpr[RCX], 2);
}

static void comparisons_stop_where_they_should(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    pattern(r, FROM, 9000);
    pattern(r, TO, 9000);
    *rig_at(r, TO + 8000) = (uint8_t)(*rig_at(r, FROM + 8000) + 1);
    set(r, 9000, FROM, TO);
    RUN(r, "\xf3\xa6", EXEC_OK);
    assert_int_equal(r->v->st.gpr[RCX], 999);
    assert_int_equal(r->v->st.gpr[RDI], TO + 8001);
    assert_int_equal(flags_get(r->v) & (RF_CF | RF_ZF), RF_CF);

    memset(rig_at(r, TO), 1, 9000);
    *rig_at(r, TO + 7777) = 0;
    r->v->st.gpr[RAX] = 0;
    set(r, 0xffffffff, 0, TO);
    RUN(r, "\xf2\xae", EXEC_OK); /* strlen */
    assert_int_equal(r->v->st.gpr[RDI], TO + 7778);
    assert_int_equal(r->v->st.gpr[RCX], 0xffffffff - 7778);
    assert_int_equal(flags_get(r->v) & RF_ZF, RF_ZF);
}

static void a_count_of_0_does_nothing(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    flags_put(r->v, RF_CF | RF_SF);
    set(r, 0, 0xfffffff0, 0xfffffff0);
    assert_int_equal(RUN(r, "\xf3\xa6", EXEC_OK), 1);
    assert_int_equal(flags_get(r->v) & RF_ARITH, RF_CF | RF_SF);
    assert_int_equal(r->v->st.gpr[RSI], 0xfffffff0);
}

/* ---- ports ---- */

struct port {
    uint8_t next;
    unsigned reads;
    uint8_t written[256];
    unsigned writes;
};

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    struct port *p = dev;
    p->reads++;
    return p->next++;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct port *p = dev;
    p->written[p->writes++ & 255] = (uint8_t)val;
}

static void map_port(struct rig *r, struct port *p)
{
    static const struct bus_ops ops = {port_read, port_write};
    struct bus_region region = {.base = 0x1f0, .len = 8, .ops = &ops, .dev = p, .name = "test"};
    memset(p, 0, sizeof *p);
    assert_int_equal(bus_map(&r->ports, &region, NULL), 0);
    r->v->st.gpr[RDX] = 0x1f0;
}

static void ports_move_one_element_each(void **state)
{
    struct rig *r = *state;
    struct port p;
    rig_protected(r, 0);
    map_port(r, &p);
    set(r, 200, 0, TO);
    RUN(r, "\xf3\x6c", EXEC_OK);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(*rig_at(r, TO + i), i);
    set(r, 200, TO, 0);
    RUN(r, "\xf3\x64\x6e", EXEC_OK); /* FS: is as flat as DS here */
    assert_int_equal(p.writes, 200);
    assert_memory_equal(p.written, rig_at(r, TO), 200);
}

static void a_store_that_will_fault_reads_no_port(void **state)
{
    struct rig *r = *state;
    struct port p;
    rig_long(r, 0);
    map_port(r, &p);
    st64(rig_at(r, RIG_PML4 + 0x2000 + 8), 0);
    tlb_flush_all(r->v);
    set(r, 10, 0, 0x200000 - 4);
    RUN(r, "\xf3\x6c", EXEC_FAULT);
    assert_int_equal(p.reads, 4);
    assert_int_equal(r->v->st.gpr[RCX], 6);
    assert_int_equal(r->v->st.gpr[RDI], 0x200000);
}

static void without_the_right_a_count_of_0_faults_too(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 3);
    set(r, 0, TO, TO);
    RUN(r, "\xf3\x6e", EXEC_FAULT);
    assert_int_equal(r->v->fault.vector, VEC_GP);
}

/* ---- through vcpu_run() ---- */

static void a_copy_over_the_next_instruction_is_seen(void **state)
{
    struct rig *r = *state;
    rig_protected(r, 0);
    memcpy(rig_at(r, RIG_CODE), "\xf3\xa4\x40\xf4", 4); /* rep movsb; inc eax -> inc ebx; hlt */
    *rig_at(r, FROM) = 0x43;
    set(r, 1, FROM, RIG_CODE + 2);
    r->v->st.gpr[RAX] = r->v->st.gpr[RBX] = 0;
    r->v->st.rflags &= ~RF_IF;
    r->run.budget = 1000;
    engine_soft.vcpu_run((struct engine_vcpu *)r->v, &r->run);
    assert_int_equal(r->run.exit, CPU_EXIT_HALT);
    assert_int_equal(r->v->st.gpr[RAX], 0);
    assert_int_equal(r->v->st.gpr[RBX], 1);
}

static void a_long_rep_ends_at_the_budget_and_goes_on(void **state)
{
    struct rig *r = *state;
    unsigned runs = 0;
    rig_protected(r, 0);
    memcpy(rig_at(r, RIG_CODE), "\xf3\xaa\xf4", 3);
    r->v->st.gpr[RAX] = 0x77;
    set(r, 0x20000, 0, TO);
    r->v->st.rflags &= ~RF_IF;
    do {
        r->run.budget = 3;
        engine_soft.vcpu_run((struct engine_vcpu *)r->v, &r->run);
        assert_true(++runs < 1000);
    } while (r->run.exit == CPU_EXIT_BUDGET);
    assert_int_equal(r->run.exit, CPU_EXIT_HALT);
    assert_true(runs > 5);
    assert_int_equal(*rig_at(r, TO + 0x1ffff), 0x77);
    assert_int_equal(*rig_at(r, TO + 0x20000), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_long_copy_goes_in_bounded_pieces),
        TEST(overlapping_copies_repeat_what_they_wrote),
        TEST(df_copies_downwards),
        TEST(a_fault_leaves_the_registers_at_the_element),
        TEST(sixteen_bit_offsets_wrap_and_merge),
        TEST(a_word_past_the_limit_faults),
        TEST(comparisons_stop_where_they_should),
        TEST(a_count_of_0_does_nothing),
        TEST(ports_move_one_element_each),
        TEST(a_store_that_will_fault_reads_no_port),
        TEST(without_the_right_a_count_of_0_faults_too),
        TEST(a_copy_over_the_next_instruction_is_seen),
        TEST(a_long_rep_ends_at_the_budget_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
