/* exec_sse() against the host CPU: every opcode of the three maps that it implements, in register and memory form. */
#include "fpu_oracle.h"

struct encoding {
    uint8_t b[16];
    unsigned len;
    struct insn in;
};

/* prefix column (0 none, 66, F3, F2), REX, map, opcode, ModRM, immediate; false if that is no exec_sse() instruction.
 */
static bool encode(struct encoding *e, unsigned map, unsigned prefix, unsigned rex, unsigned opcode, unsigned modrm,
                   unsigned imm)
{
    static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0;
    memset(e->b, 0, sizeof e->b);
    if (prefix)
        e->b[n++] = prefixes[prefix];
    if (rex)
        e->b[n++] = (uint8_t)rex;
    e->b[n++] = 0x0f;
    if (map > 1)
        e->b[n++] = map == 2 ? 0x38 : 0x3a;
    e->b[n++] = (uint8_t)opcode;
    e->b[n++] = (uint8_t)modrm;
    e->b[n] = (uint8_t)imm;
    if (decode_insn(e->b, sizeof e->b, CODE64, &e->in) != DECODE_OK || e->in.op != OP_sse || e->in.map != map)
        return false;
    e->len = e->in.len;
    return true;
}

/* FXSAVE and FXRSTOR have their own test. */
static bool skipped(const struct insn *in)
{
    return in->map == 1 && in->opcode == 0xae && in->prefix == 0 && (in->modrm & 0x38) < 0x10;
}

/* RSP and R15 are not free for an instruction that names general registers, nor may RSI or RDI be a destination. */
static unsigned pick_reg(struct oracle *o)
{
    static const uint8_t regs[] = {0, 1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14};
    return regs[oracle_rand(o) % ARRAY_SIZE(regs)];
}

static bool implemented(struct oracle *o, struct encoding *e)
{
    struct outcome out;
    rand_state(o);
    return !skipped(&e->in) && (oracle_soft(o, &e->in, &out) != EXEC_FAULT || o->v->fault.vector != VEC_UD);
}

/* Run `bytes` both ways from the state in o->v and compare; o->v has the soft outcome afterwards. A native SIGFPE must
 * be #XM. Returns the executor's result. */
static enum exec_result check(struct oracle *o, const uint8_t *bytes, unsigned len, const struct insn *in)
{
    struct outcome before, nat, soft;
    struct soft_vcpu *v = o->v;
    before.fx = v->st.fx;
    memcpy(before.gpr, v->st.gpr, sizeof before.gpr);
    before.flags = v->st.rflags & RF_ARITH;
    before.trap = 0;
    memcpy(before.mem, oracle_operand(o), OPERAND_BYTES);
    oracle_native(o, bytes, len, &nat);
    memcpy(oracle_operand(o), before.mem, OPERAND_BYTES);
    enum exec_result r = oracle_soft(o, in, &soft);
    if (nat.trap == SIGFPE) {
        soft.trap = r == EXEC_FAULT && v->fault.vector == VEC_XM ? SIGFPE : -1;
        memcpy(nat.gpr, before.gpr, sizeof nat.gpr);
        nat.flags = before.flags;
        if (~v->st.fx.mxcsr >> 7 & v->st.fx.mxcsr & 0x18) /* unmasked #O, #U: see sse_fp_begin() */
            nat.fx.mxcsr |= soft.fx.mxcsr & 0x20;
    } else if (r == EXEC_FAULT) {
        soft.trap = v->fault.vector == VEC_UD ? SIGILL : -1;
    }
    if (nat.trap != soft.trap || (nat.trap != SIGILL && !outcome_equal(&nat, &soft, RF_ARITH)))
        oracle_fail(bytes, len, &before, &nat, &soft);
    return r;
}

/* One opcode, register (mod 3) or memory form ([RSI]), with random registers. Returns trials made. */
static unsigned try_opcode(struct oracle *o, unsigned map, unsigned prefix, unsigned opcode, bool mem, unsigned trials,
                           uint32_t mxcsr_clear)
{
    unsigned made = 0;
    for (unsigned t = 0; t < trials; t++) {
        struct encoding e;
        unsigned reg = pick_reg(o), rm = mem ? RSI : pick_reg(o), w = oracle_rand(o) & 1;
        unsigned rex = 0x40 | w << 3 | (reg >> 3) << 2 | rm >> 3;
        unsigned modrm = (mem ? 0 : 0xc0) | (reg & 7) << 3 | (rm & 7);
        if (!encode(&e, map, prefix, rex, opcode, modrm, (unsigned)oracle_rand(o)) || !implemented(o, &e))
            continue;
        rand_state(o);
        if (map == 1 && opcode == 0xae && mem) /* LDMXCSR */
            st32(oracle_operand(o), (uint32_t)oracle_rand(o) & 0xffff);
        if (map == 1 && opcode == 0x2a && mem) { /* CVTPI2PS: processors differ in whether this is an MMX instruction */
            o->v->st.fx.fsw &= (uint16_t)~FSW_TOP;
            o->v->st.fx.ftw_abridged = 0xff;
        }
        if (mxcsr_clear && !(map == 3 && (opcode & 0xfe) == 0x40)) /* DPPS, DPPD: see sse_fp_begin() */
            o->v->st.fx.mxcsr &= ~(uint32_t)(oracle_rand(o) & mxcsr_clear);
        check(o, e.b, e.len, &e.in);
        made++;
    }
    return made;
}

static unsigned sweep(struct oracle *o, unsigned trials, uint32_t mxcsr_clear)
{
    unsigned opcodes = 0;
    oracle_catch_signals();
    for (unsigned map = 1; map <= 3; map++)
        for (unsigned prefix = 0; prefix < 4; prefix++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                for (unsigned mem = 0; mem < 2; mem++)
                    opcodes += try_opcode(o, map, prefix, opcode, mem, trials, mxcsr_clear) > 0;
    return opcodes;
}

/* Losing an opcode must not pass unseen: 683 forms, less those the host lacks. */
static void every_opcode_equals_the_host(void **state)
{
    struct oracle *o = *state;
    unsigned lacking = 0;
    lacking += o->model.std1_ecx >> 25 & 1 ? 0 : 12; /* AES */
    lacking += o->model.std1_ecx >> 1 & 1 ? 0 : 2;   /* PCLMULQDQ */
    lacking += o->model.std7_ebx >> 29 & 1 ? 0 : 14; /* SHA */
    assert_int_equal(sweep(o, 150, 0), 683 - lacking);
}

static void unmasked_exceptions_are_xm_and_keep_the_result(void **state)
{
    sweep(*state, 60, 0x1f80);
}

static enum exec_result run(struct oracle *o, const char *bytes, unsigned len)
{
    struct insn in;
    uint8_t b[16] = {0};
    memcpy(b, bytes, len);
    assert_int_equal(decode_insn(b, sizeof b, CODE64, &in), DECODE_OK);
    o->v->st.rip = 0x1000;
    o->v->next_rip = 0x1000 + len;
    return exec_sse(o->v, &in);
}
#define RUN(o, s) run(o, s, sizeof(s) - 1)

static void expect_fault(struct oracle *o, enum exec_result r, unsigned vector)
{
    assert_int_equal(r, EXEC_FAULT);
    assert_int_equal(o->v->fault.vector, vector);
}

static void faults_by_state(void **state)
{
    struct oracle *o = *state;
    const uint64_t cr0 = o->v->st.cr0, cr4 = o->v->st.cr4;
    rand_state(o);
    o->v->st.cr0 = cr0 | CR0_TS;
    expect_fault(o, RUN(o, "\x0f\x58\xc1"), VEC_NM);
    expect_fault(o, RUN(o, "\x0f\xfc\xc1"), VEC_NM);
    expect_fault(o, RUN(o, "\x0f\xae\x06"), VEC_NM);
    o->v->st.cr0 = cr0 | CR0_EM;
    expect_fault(o, RUN(o, "\x0f\x58\xc1"), VEC_UD);
    expect_fault(o, RUN(o, "\x0f\xfc\xc1"), VEC_UD);
    expect_fault(o, RUN(o, "\x0f\xae\x06"), VEC_NM);
    o->v->st.cr0 = cr0;
    o->v->st.cr4 = cr4 & ~CR4_OSFXSR;
    expect_fault(o, RUN(o, "\x0f\x58\xc1"), VEC_UD);
    assert_int_equal(RUN(o, "\x0f\xfc\xc1"), EXEC_OK);
    o->v->st.cr4 = cr4 & ~CR4_OSXMMEXCPT;
    o->v->st.fx.mxcsr = 0;
    st32(o->v->st.fx.xmm[0], 1);
    expect_fault(o, RUN(o, "\xf3\x0f\x5e\xc0"), VEC_UD);
    o->v->st.cr4 = cr4;
    expect_fault(o, RUN(o, "\xf3\x0f\x5e\xc0"), VEC_XM);
    /* #MF before an MMX instruction. */
    o->v->st.fx.fcw = 0x37e;
    o->v->st.fx.fsw = 1;
    expect_fault(o, RUN(o, "\x0f\xfc\xc1"), VEC_MF);
    /* A feature CPUID does not offer. */
    o->model.std1_ecx = 0;
    expect_fault(o, RUN(o, "\x66\x0f\x38\xdc\xc1"), VEC_UD);
    expect_fault(o, RUN(o, "\x66\x0f\x38\x00\xc1"), VEC_UD);
}

static void misaligned_operands(void **state)
{
    struct oracle *o = *state;
    rand_state(o);
    o->v->st.gpr[RSI] += 8;
    expect_fault(o, RUN(o, "\x0f\x58\x06"), VEC_GP);
    expect_fault(o, RUN(o, "\x0f\x28\x06"), VEC_GP);
    expect_fault(o, RUN(o, "\x0f\x29\x06"), VEC_GP);
    expect_fault(o, RUN(o, "\x0f\xae\x06"), VEC_GP);
    expect_fault(o, RUN(o, "\x0f\xae\x0e"), VEC_GP);
    assert_int_equal(RUN(o, "\x0f\x10\x06"), EXEC_OK);
    assert_memory_equal(o->v->st.fx.xmm[0], oracle_operand(o) + 8, 16);
    assert_int_equal(RUN(o, "\x0f\x11\x06"), EXEC_OK);
    st32(oracle_operand(o) + 8, 0x10000);
    expect_fault(o, RUN(o, "\x0f\xae\x16"), VEC_GP);
}

static void fxsave_round_trip(void **state)
{
    struct oracle *o = *state;
    struct cpu_fx img, nat;
    rand_state(o);
    o->v->st.fx.fip = UINT64_C(0x123456789abcdef0);
    o->v->st.fx.fop = 0x123;
    struct cpu_fx before = o->v->st.fx;
    memset(oracle_operand(o), 0xa5, 512);
    assert_int_equal(RUN(o, "\x48\x0f\xae\x06"), EXEC_OK);
    memcpy(&img, oracle_operand(o), 512);
    assert_memory_equal(img.xmm, before.xmm, sizeof img.xmm);
    assert_memory_equal(img.st, before.st, sizeof img.st);
    assert_int_equal(img.fip, before.fip);
    assert_int_equal(img.fop, before.fop);
    assert_int_equal(img.reserved1[95], 0xa5);
    /* Any image: what the host makes of the x87 half is what we make of it. */
    for (unsigned i = 0; i < 2000; i++) {
        for (unsigned j = 0; j < 512; j += 8)
            st64(oracle_operand(o) + j, oracle_rand(o));
        st32(oracle_operand(o) + 24, (uint32_t)oracle_rand(o) & 0xffff);
        __asm__ volatile("fxrstor64 (%1)\n\tfxsave64 %0\n\tfninit\n\tldmxcsr %2"
                         : "=m"(nat)
                         : "r"(oracle_operand(o)), "m"((const uint32_t){0x1f80})
                         : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
        assert_int_equal(RUN(o, "\x48\x0f\xae\x0e"), EXEC_OK);
        assert_int_equal(o->v->st.fx.fcw, nat.fcw);
        assert_int_equal(o->v->st.fx.ftw_abridged, nat.ftw_abridged);
        assert_int_equal(o->v->st.fx.mxcsr, nat.mxcsr);
        assert_int_equal(o->v->st.fx.fsw, nat.fsw);
        assert_memory_equal(o->v->st.fx.st, nat.st, sizeof nat.st);
        assert_memory_equal(o->v->st.fx.xmm, nat.xmm, sizeof nat.xmm);
    }
    st32(oracle_operand(o) + 24, 0x10000);
    before = o->v->st.fx;
    expect_fault(o, RUN(o, "\x0f\xae\x0e"), VEC_GP);
    assert_memory_equal(&before, &o->v->st.fx, sizeof before);
}

static void operands_across_pages(void **state)
{
    struct oracle *o = *state;
    uint8_t x[16];
    rand_state(o);
    o->v->st.gpr[RSI] = (uint64_t)(uintptr_t)o->page + 4096 - 6;
    memcpy(x, o->v->st.fx.xmm[1], 16);
    assert_int_equal(RUN(o, "\x0f\x11\x0e"), EXEC_OK);
    assert_memory_equal(o->page + 4096 - 6, x, 16);
    assert_int_equal(RUN(o, "\xf3\x0f\x6f\x16"), EXEC_OK);
    assert_memory_equal(o->v->st.fx.xmm[2], x, 16);
    oracle_map(o, 1, false);
    memset(o->page + 4096 - 6, 0x55, 16);
    expect_fault(o, RUN(o, "\x0f\x11\x0e"), VEC_PF);
    expect_fault(o, RUN(o, "\xf3\x0f\x6f\x1e"), VEC_PF);
    expect_fault(o, RUN(o, "\xf2\x0f\x58\x0e"), VEC_PF);
    /* MASKMOVDQU writes what the mask says, or nothing if one of those bytes faults. */
    o->v->st.gpr[RDI] = o->v->st.gpr[RSI];
    memset(o->v->st.fx.xmm[3], 0, 16);
    o->v->st.fx.xmm[3][0] = o->v->st.fx.xmm[3][8] = 0x80;
    expect_fault(o, RUN(o, "\x66\x0f\xf7\xcb"), VEC_PF);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(o->page[4096 - 6 + i], 0x55);
    o->v->st.fx.xmm[3][8] = 0;
    assert_int_equal(RUN(o, "\x66\x0f\xf7\xcb"), EXEC_OK);
    assert_int_equal(o->page[4096 - 6], x[0]);
    assert_int_equal(o->page[4096 - 5], 0x55);
    oracle_map(o, 1, true);
}

static enum exec_result run32(struct oracle *o, const char *bytes, unsigned len)
{
    struct insn in;
    uint8_t b[16] = {0};
    memcpy(b, bytes, len);
    assert_int_equal(decode_insn(b, sizeof b, CODE32, &in), DECODE_OK);
    o->v->next_rip = o->v->st.rip + len;
    return exec_sse(o->v, &in);
}
#define RUN32(o, s) run32(o, s, sizeof(s) - 1)

static void segments_and_eight_registers_outside_64_bit_mode(void **state)
{
    struct oracle *o = *state;
    const uint32_t data = SEGA_P | SEGA_S | SEGA_RW | SEGA_ACCESSED | SEGA_DB;
    rand_state(o);
    o->v->st.cr0 = CR0_PE | CR0_ET | CR0_NE;
    o->v->st.efer = 0;
    o->v->st.seg[SEG_CS].attr = SEGA_P | SEGA_S | SEGA_CODE | SEGA_RW | SEGA_DB;
    o->v->st.seg[SEG_DS] = (struct cpu_segment){.base = ORACLE_PAGE_GPA, .limit = 0x2ff, .attr = data};
    o->v->st.seg[SEG_SS] = (struct cpu_segment){.base = ORACLE_PAGE_GPA + 0x100, .limit = 0xff, .attr = data};
    mode_update(o->v);
    tlb_flush_all(o->v);
    o->v->st.gpr[RSI] = 0x2f0;
    o->v->st.gpr[RBP] = 0xf0;
    assert_int_equal(RUN32(o, "\x0f\x10\x0e"), EXEC_OK);
    assert_memory_equal(o->v->st.fx.xmm[1], o->page + 0x2f0, 16);
    assert_int_equal(RUN32(o, "\x0f\x11\x4d\x00"), EXEC_OK);
    assert_memory_equal(o->v->st.fx.xmm[1], o->page + 0x1f0, 16);
    expect_fault(o, RUN32(o, "\x0f\x10\x4e\x01"), VEC_GP);
    expect_fault(o, RUN32(o, "\x0f\x10\x4d\x01"), VEC_SS);
    o->v->st.gpr[RSI] = 0;
    memset(o->page, 0xa5, 512);
    assert_int_equal(RUN32(o, "\x0f\xae\x06"), EXEC_OK);
    assert_memory_equal(o->page + 160 + 7 * 16, o->v->st.fx.xmm[7], 16);
    assert_int_equal(o->page[160 + 8 * 16], 0xa5);
    memcpy(o->page + 160, "overwritten here", 16);
    struct cpu_fx before = o->v->st.fx;
    assert_int_equal(RUN32(o, "\x0f\xae\x0e"), EXEC_OK);
    assert_memory_equal(o->v->st.fx.xmm[0], "overwritten here", 16);
    assert_memory_equal(o->v->st.fx.xmm[8], before.xmm[8], 8 * 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_opcode_equals_the_host, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(unmasked_exceptions_are_xm_and_keep_the_result, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(faults_by_state, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(misaligned_operands, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(fxsave_round_trip, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(operands_across_pages, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(segments_and_eight_registers_outside_64_bit_mode, oracle_setup,
                                        oracle_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
