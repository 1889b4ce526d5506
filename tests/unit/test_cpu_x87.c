/* exec_x87() against the host FPU: every encoding D8-DF, register and memory form, masked and unmasked, and sequences.
 */
#include "fpu_oracle.h"

static void decode(const uint8_t *b, struct insn *in)
{
    assert_int_equal(decode_insn(b, 15, CODE64, in), DECODE_OK);
}

/* Images of the environment hold the last instruction's addresses, which are ours and the host's: blank them. */
static void blank_pointers(const struct insn *in, struct outcome *x)
{
    unsigned ext = in->modrm >> 3 & 7;
    if ((in->flags & INSN_MEM) && ((in->opcode == 0xd9 && ext == 6) || (in->opcode == 0xdd && ext == 6)))
        memset(x->mem + (in->opsize == 2 ? 6 : 12), 0, in->opsize == 2 ? 8 : 16);
}

static void check(struct oracle *o, const uint8_t *bytes, unsigned len)
{
    struct outcome before, nat, soft;
    struct insn in;
    uint8_t padded[16] = {0};
    memcpy(padded, bytes, len);
    decode(padded, &in);
    before = (struct outcome){.fx = o->v->st.fx, .flags = o->v->st.rflags & RF_ARITH};
    memcpy(before.gpr, o->v->st.gpr, sizeof before.gpr);
    memcpy(before.mem, oracle_operand(o), OPERAND_BYTES);
    oracle_native(o, bytes, len, &nat);
    memcpy(oracle_operand(o), before.mem, OPERAND_BYTES);
    if (oracle_soft(o, &in, &soft) == EXEC_FAULT)
        soft.trap = o->v->fault.vector == VEC_UD ? SIGILL : -1;
    blank_pointers(&in, &nat);
    blank_pointers(&in, &soft);
    if (nat.trap != soft.trap || (!nat.trap && !outcome_equal(&nat, &soft, RF_ARITH)))
        oracle_fail(bytes, len, &before, &nat, &soft);
}

/* Unmask some exceptions; none may be pending. */
static void unmask(struct oracle *o)
{
    struct cpu_fx *fx = &o->v->st.fx;
    fx->fcw &= (uint16_t) ~(oracle_rand(o) & FSW_EXCEPTIONS);
    fx->fsw &= (uint16_t) ~(~fx->fcw & FSW_EXCEPTIONS);
}

static void sweep(struct oracle *o, unsigned trials, bool unmasked)
{
    oracle_catch_signals();
    for (unsigned op = 0xd8; op <= 0xdf; op++) {
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            bool mem = modrm < 0x40 && (modrm & 7) == RSI;
            if (!mem && modrm < 0xc0)
                continue;
            for (unsigned t = 0; t < trials; t++) {
                const uint8_t b[3] = {0x66, (uint8_t)op, (uint8_t)modrm};
                bool narrow = mem && (oracle_rand(o) & 7) == 0;
                rand_state(o);
                rand_st(o, oracle_operand(o));
                if (oracle_rand(o) & 1)
                    rand_vector(o, oracle_operand(o));
                if (unmasked)
                    unmask(o);
                check(o, narrow ? b : b + 1, narrow ? 3 : 2);
            }
        }
    }
}

static void every_encoding_equals_the_host(void **state)
{
    sweep(*state, 300, false);
}

static void unmasked_exceptions_equal_the_host(void **state)
{
    sweep(*state, 150, true);
}

/* ---- sequences, with the registers resident and MMX in between ---- */

static unsigned random_insn(struct oracle *o, uint8_t *b)
{
    static const uint8_t mmx[][3] = {{0x0f, 0xfc, 0xca}, {0x0f, 0x6f, 0x1e}, {0x0f, 0x77}, {0x0f, 0xef, 0x2e}};
    uint64_t r = oracle_rand(o);
    if ((r & 15) == 0) {
        const uint8_t *m = mmx[r >> 8 & 3];
        memcpy(b, m, 3);
        return m[1] == 0x77 ? 2 : 3;
    }
    b[0] = (uint8_t)(0xd8 | (r >> 8 & 7));
    /* FLDENV and FRSTOR would make the state garbage too often. */
    if (r & 0x10)
        b[1] = (uint8_t)(0xc0 | r >> 16);
    else
        b[1] = (uint8_t)((r >> 16 & (b[0] & 1 && b[0] != 0xdb && b[0] != 0xdf ? 0x18 : 0x38)) | RSI);
    return 2;
}

static bool soft_valid(struct oracle *o, const uint8_t *b)
{
    struct outcome out;
    struct insn in;
    uint8_t padded[16] = {b[0], b[1], b[2]};
    struct cpu_state saved = o->v->st;
    uint8_t mem[OPERAND_BYTES];
    memcpy(mem, oracle_operand(o), sizeof mem);
    decode(padded, &in);
    bool ok = oracle_soft(o, &in, &out) == EXEC_OK;
    o->v->st = saved;
    memcpy(oracle_operand(o), mem, sizeof mem);
    return ok;
}

static void one_sequence(struct oracle *o)
{
    enum { LENGTH = 12 };
    struct outcome before, nat, soft = {.trap = 0};
    uint8_t b[64] = {0};
    unsigned n = 0, at[LENGTH + 1];
    rand_state(o);
    o->v->st.fx.ftw_abridged = (uint8_t)oracle_rand(o);
    for (unsigned i = 0; i < LENGTH;) {
        unsigned len = random_insn(o, b + n);
        if (!soft_valid(o, b + n))
            continue;
        at[i++] = n;
        n += len;
    }
    before = (struct outcome){.fx = o->v->st.fx};
    memcpy(before.mem, oracle_operand(o), OPERAND_BYTES);
    oracle_native(o, b, n, &nat);
    memcpy(oracle_operand(o), before.mem, OPERAND_BYTES);
    fpu_enter(o->v);
    for (unsigned i = 0; i < LENGTH; i++) {
        struct insn in;
        decode(b + at[i], &in);
        assert_int_equal(in.op == OP_sse ? exec_sse(o->v, &in) : exec_x87(o->v, &in), EXEC_OK);
        if (i == LENGTH / 2)
            fpu_sync(o->v);
    }
    fpu_leave(o->v);
    soft.fx = o->v->st.fx;
    memcpy(soft.gpr, o->v->st.gpr, sizeof soft.gpr);
    soft.flags = flags_get(o->v) & RF_ARITH;
    memcpy(soft.mem, oracle_operand(o), OPERAND_BYTES);
    if (nat.trap || !outcome_equal(&nat, &soft, RF_ARITH))
        oracle_fail(b, n, &before, &nat, &soft);
}

static void sequences_equal_the_host(void **state)
{
    oracle_catch_signals();
    for (unsigned i = 0; i < 20000; i++)
        one_sequence(*state);
}

/* ---- by hand ---- */

static enum exec_result run(struct oracle *o, const char *bytes, unsigned len)
{
    struct insn in;
    uint8_t b[16] = {0};
    memcpy(b, bytes, len);
    decode(b, &in);
    o->v->next_rip = o->v->st.rip + len;
    enum exec_result r = in.op == OP_sse ? exec_sse(o->v, &in) : exec_x87(o->v, &in);
    if (r == EXEC_OK)
        o->v->st.rip += len;
    return r;
}
#define RUN(o, s)        run(o, s, sizeof(s) - 1)
#define OK(o, s)         assert_int_equal(RUN(o, s), EXEC_OK)
#define FAULT(o, s, vec) expect_fault(o, RUN(o, s), vec)

static void expect_fault(struct oracle *o, enum exec_result r, unsigned vector)
{
    assert_int_equal(r, EXEC_FAULT);
    assert_int_equal(o->v->fault.vector, vector);
}

static void pending_exception_is_mf_at_the_next_waiting_instruction(void **state)
{
    struct oracle *o = *state;
    rand_state(o);
    fpu_enter(o->v);
    OK(o, "\xdb\xe3");
    st16(oracle_operand(o), 0x37b); /* zero divide unmasked */
    OK(o, "\xd9\x2e");
    OK(o, "\xd9\xe8");
    OK(o, "\xd9\xee");
    OK(o, "\xde\xf9");
    OK(o, "\xdf\xe0");
    assert_int_equal(o->v->st.gpr[RAX] & 0x80ff, 0x8084);
    FAULT(o, "\xd9\xe8", VEC_MF);
    FAULT(o, "\x9b", VEC_MF);
    FAULT(o, "\xd9\x2e", VEC_MF);
    FAULT(o, "\x0f\xfc\xc1", VEC_MF);
    OK(o, "\xd9\x7e\x10");
    OK(o, "\xdb\xe2");
    OK(o, "\x9b");
    OK(o, "\xd9\xe8");
    /* Unmasking what is already in the status word makes it pending. */
    OK(o, "\xdb\xe3");
    OK(o, "\xd9\xe8");
    OK(o, "\xd9\xee");
    OK(o, "\xde\xf9");
    OK(o, "\x9b");
    OK(o, "\xd9\x2e");
    FAULT(o, "\x9b", VEC_MF);
    fpu_leave(o->v);
    assert_int_equal(o->v->st.fx.fsw & 0x8084, 0x8084);
}

static void faults_by_state(void **state)
{
    struct oracle *o = *state;
    const uint64_t cr0 = o->v->st.cr0;
    rand_state(o);
    o->v->st.cr0 = cr0 | CR0_TS;
    FAULT(o, "\xd9\xe8", VEC_NM);
    FAULT(o, "\x9b", VEC_NM);
    o->v->st.cr0 = (cr0 & ~CR0_MP) | CR0_TS;
    OK(o, "\x9b");
    o->v->st.cr0 = cr0 | CR0_EM;
    FAULT(o, "\xdf\xe0", VEC_NM);
    OK(o, "\x9b");
    o->v->st.cr0 = cr0;
}

static void pointers_are_the_guests(void **state)
{
    struct oracle *o = *state;
    rand_state(o);
    fpu_enter(o->v);
    o->v->st.rip = 0x123456789000;
    OK(o, "\xdd\x46\x08");
    OK(o, "\xdf\xe0");
    OK(o, "\x48\x0f\xae\x06");
    struct cpu_fx img;
    memcpy(&img, oracle_operand(o), sizeof img);
    assert_int_equal(img.fip, 0x123456789000);
    assert_int_equal(img.fdp, (uintptr_t)oracle_operand(o) + 8);
    assert_int_equal(img.fop, 0x546);
    OK(o, "\xd9\x36");
    assert_int_equal(ld32(oracle_operand(o) + 12), 0x56789000);
    assert_int_equal(ld32(oracle_operand(o) + 16), 0x5460000);
    o->v->mode &= ~(uint32_t)MODE_PE;
    OK(o, "\xd9\x36");
    assert_int_equal(ld32(oracle_operand(o) + 12), 0xffff9000);
    assert_int_equal(ld32(oracle_operand(o) + 16), 0x5678546);
    OK(o, "\xd9\x26");
    assert_int_equal(o->v->st.fx.fip, 0x56789000);
    assert_int_equal(o->v->st.fx.fop, 0x546);
    fpu_leave(o->v);
}

/* A store that faults has popped nothing; one that crosses pages stores all. */
static void store_across_pages(void **state)
{
    struct oracle *o = *state;
    rand_state(o);
    fpu_enter(o->v);
    OK(o, "\xdb\xe3");
    OK(o, "\xd9\xeb");
    o->v->st.gpr[RSI] = (uint64_t)(uintptr_t)o->page + 4096 - 4;
    memset(o->page + 4096 - 16, 0xaa, 32);
    oracle_map(o, 1, false);
    FAULT(o, "\xdb\x3e", VEC_PF);
    assert_int_equal(o->v->st.cr2, (uintptr_t)o->page + 4096);
    assert_int_equal(o->page[4095], 0xaa);
    OK(o, "\xdf\xe0");
    assert_int_equal(o->v->st.gpr[RAX] & FSW_TOP, 7 << FSW_TOP_SHIFT);
    oracle_map(o, 1, true);
    OK(o, "\xdb\x3e");
    static const uint8_t pi[10] = {0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40};
    assert_memory_equal(o->page + 4096 - 4, pi, 10);
    OK(o, "\xdb\x2e");
    OK(o, "\xdf\xe0");
    assert_int_equal(o->v->st.gpr[RAX] & FSW_TOP, 7 << FSW_TOP_SHIFT);
    fpu_leave(o->v);
    assert_memory_equal(o->v->st.fx.st[0], pi, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_encoding_equals_the_host, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(unmasked_exceptions_equal_the_host, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(sequences_equal_the_host, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(pending_exception_is_mf_at_the_next_waiting_instruction, oracle_setup,
                                        oracle_teardown),
        cmocka_unit_test_setup_teardown(faults_by_state, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(pointers_are_the_guests, oracle_setup, oracle_teardown),
        cmocka_unit_test_setup_teardown(store_across_pages, oracle_setup, oracle_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
