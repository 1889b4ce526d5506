/* The interpreter's integer operations against the host's own: random short sequences, run natively in a thunk and by
 * engine_soft, must leave the same registers, flags and memory. Flags an instruction leaves undefined are not compared.
 * On a host that lacks POPCNT, LZCNT, BMI or ADX their opcodes are not generated.
 */
#include "cpu_rig.h"

#include <cpuid.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { MEM = 0x200000, MEM_SIZE = 4096, MEM_MID = 2048, FLAGS = 16, ROUNDS = 150000 };

/* Registers in order, then RFLAGS; in the page after the thunk's code. */
struct native {
    uint8_t *code;
    uint64_t *in, *out;
    uint8_t *mem;
};

struct test {
    uint8_t code[64];
    unsigned len;
    uint64_t undefined; /* flags not to be compared */
    uint64_t regs[17];
    uint8_t mem[MEM_SIZE];
};

static uint64_t seed = 88172645463325252;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static unsigned below(unsigned n)
{
    return (unsigned)(rnd() >> 20) % n;
}

/* Values near the edges are where flags go wrong. */
static uint64_t value(void)
{
    static const uint64_t edge[] = {0,
                                    1,
                                    2,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    0xffffffffffffffff};
    return below(3) ? rnd() >> below(64) : edge[below(ARRAY_SIZE(edge))] + below(2);
}

/* ---- the native side ---- */

static void put(uint8_t **p, const void *bytes, unsigned n)
{
    memcpy(*p, bytes, n);
    *p += n;
}

/* mov reg, [slot] (8b) or mov [slot], reg (89), RIP-relative. */
static void emit_move(uint8_t **p, uint8_t op, unsigned reg, const uint64_t *slot)
{
    uint8_t b[3] = {reg < 8 ? 0x48 : 0x4c, op, (uint8_t)(0x05 | (reg & 7) << 3)};
    int32_t rel = (int32_t)((const uint8_t *)slot - (*p + 7));
    put(p, b, 3);
    put(p, &rel, 4);
}

/* A fault's handler is a HLT. */
static void guest_init(struct rig *r)
{
    rig_long(r, 0);
    for (unsigned i = 0; i < 32; i++)
        *rig_at(r, rig_handler(i)) = 0xf4;
}

static void native_init(struct native *n)
{
    n->code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(n->code != MAP_FAILED);
    n->in = (uint64_t *)(n->code + 4096);
    n->out = n->in + 32;
    n->mem = aligned_alloc(4096, MEM_SIZE);
    assert_non_null(n->mem);
}

static void native_run(struct native *n, const struct test *t)
{
    static const uint8_t save[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
    static const uint8_t restore[] = {0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xfc, 0xc3};
    static const uint8_t popf[] = {0x50, 0x9d}, pushf[] = {0x9c, 0x58};
    uint8_t *p = n->code;
    memcpy(n->in, t->regs, sizeof t->regs);
    n->in[RDI] = (uint64_t)(uintptr_t)(n->mem + MEM_MID);
    memcpy(n->mem, t->mem, MEM_SIZE);
    put(&p, save, sizeof save);
    emit_move(&p, 0x8b, RAX, &n->in[FLAGS]);
    put(&p, popf, sizeof popf);
    for (unsigned r = 0; r < 16; r++)
        if (r != RSP)
            emit_move(&p, 0x8b, r, &n->in[r]);
    put(&p, t->code, t->len);
    for (unsigned r = 0; r < 16; r++)
        if (r != RSP)
            emit_move(&p, 0x89, r, &n->out[r]);
    put(&p, pushf, sizeof pushf);
    emit_move(&p, 0x89, RAX, &n->out[FLAGS]);
    put(&p, restore, sizeof restore);
    ((void (*)(void))(uintptr_t)n->code)();
}

/* ---- the guest side; false: it faulted (division) ---- */

static bool guest_run(struct rig *r, const struct test *t)
{
    struct soft_vcpu *v = r->v;
    uint8_t *code = rig_at(r, RIG_CODE);
    memcpy(code, t->code, t->len);
    code[t->len] = 0xf4; /* hlt */
    block_dma_write((struct soft_vm *)r->vm, RIG_CODE, t->len + 1);
    memcpy(rig_at(r, MEM), t->mem, MEM_SIZE);
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP)
            v->st.gpr[i] = t->regs[i];
    v->st.gpr[RDI] = MEM + MEM_MID;
    v->st.gpr[RSP] = RIG_STACK;
    flags_load(v, t->regs[FLAGS]);
    v->st.rip = RIG_CODE;
    v->st.activity = CPU_ACTIVE;
    struct cpu_run run = {.budget = 1000};
    engine_soft.vcpu_run((struct engine_vcpu *)v, &run);
    assert_int_equal(run.exit, CPU_EXIT_HALT);
    flags_get(v);
    return v->st.rip == RIG_CODE + t->len + 1;
}

/* ---- making instructions ---- */

#define F_AF  RF_AF
#define F_ALL RF_ARITH
#define F_BIT (RF_OF | RF_SF | RF_AF | RF_PF)
#define F_MUL (RF_SF | RF_ZF | RF_AF | RF_PF)

enum { SHIFT = 1, BITOFF = 2, HOST_BMI = 4, NOLOCK = 8, EXT = 16, REGONLY = 32, SIZED = 64, MEMONLY = 128, CL = 256 };

/* One opcode: `op` (with 0F in front if EXT), an even/odd byte/word pair unless SIZED; `ext`: ModRM.reg, or -1. */
struct pattern {
    uint8_t prefix, op;
    int8_t ext;
    uint8_t imm; /* 0 none, 1 byte, 4 operand size (at most 4) */
    uint16_t how;
    uint64_t undefined;
};

static const struct pattern patterns[] = {
    {0, 0x00, -1, 0, 0, 0},
    {0, 0x08, -1, 0, 0, F_AF},
    {0, 0x10, -1, 0, 0, 0},
    {0, 0x18, -1, 0, 0, 0},
    {0, 0x20, -1, 0, 0, F_AF},
    {0, 0x28, -1, 0, 0, 0},
    {0, 0x30, -1, 0, 0, F_AF},
    {0, 0x38, -1, 0, NOLOCK, 0},
    {0, 0x02, -1, 0, NOLOCK, 0},
    {0, 0x0a, -1, 0, NOLOCK, F_AF},
    {0, 0x12, -1, 0, NOLOCK, 0},
    {0, 0x1a, -1, 0, NOLOCK, 0},
    {0, 0x22, -1, 0, NOLOCK, F_AF},
    {0, 0x2a, -1, 0, NOLOCK, 0},
    {0, 0x32, -1, 0, NOLOCK, F_AF},
    {0, 0x3a, -1, 0, NOLOCK, 0},
    {0, 0x84, -1, 0, NOLOCK, F_AF},
    {0, 0x80, 0, 4, 0, 0},
    {0, 0x80, 1, 4, 0, F_AF},
    {0, 0x80, 2, 4, 0, 0},
    {0, 0x80, 3, 4, 0, 0},
    {0, 0x80, 4, 4, 0, F_AF},
    {0, 0x80, 5, 4, 0, 0},
    {0, 0x80, 6, 4, 0, F_AF},
    {0, 0x80, 7, 4, NOLOCK, 0},
    {0, 0x83, 0, 1, SIZED, 0},
    {0, 0x83, 2, 1, SIZED, 0},
    {0, 0x83, 5, 1, SIZED, 0},
    {0, 0x83, 7, 1, SIZED | NOLOCK, 0},
    {0, 0xf6, 0, 4, NOLOCK, F_AF},
    {0, 0xf6, 2, 0, 0, 0},
    {0, 0xf6, 3, 0, 0, 0},
    {0, 0xf6, 4, 0, NOLOCK, F_MUL},
    {0, 0xf6, 5, 0, NOLOCK, F_MUL},
    {0, 0xf6, 6, 0, NOLOCK, F_ALL},
    {0, 0xf6, 7, 0, NOLOCK, F_ALL},
    {0, 0xfe, 0, 0, 0, 0},
    {0, 0xfe, 1, 0, 0, 0},
    {0, 0x86, -1, 0, 0, 0},
    {0, 0x88, -1, 0, NOLOCK, 0},
    {0, 0x8a, -1, 0, NOLOCK, 0},
    {0, 0xc6, 0, 4, NOLOCK, 0},
    {0, 0xc0, 0, 1, SHIFT, 0},
    {0, 0xc0, 1, 1, SHIFT, 0},
    {0, 0xc0, 2, 1, SHIFT, 0},
    {0, 0xc0, 3, 1, SHIFT, 0},
    {0, 0xc0, 4, 1, SHIFT, F_AF},
    {0, 0xc0, 5, 1, SHIFT, F_AF},
    {0, 0xc0, 7, 1, SHIFT, F_AF},
    {0, 0xd0, 0, 0, NOLOCK, 0},
    {0, 0xd0, 1, 0, NOLOCK, 0},
    {0, 0xd0, 2, 0, NOLOCK, 0},
    {0, 0xd0, 3, 0, NOLOCK, 0},
    {0, 0xd0, 4, 0, NOLOCK, F_AF},
    {0, 0xd0, 5, 0, NOLOCK, F_AF},
    {0, 0xd0, 7, 0, NOLOCK, F_AF},
    {0, 0xd2, 0, 0, SHIFT | CL, 0},
    {0, 0xd2, 1, 0, SHIFT | CL, 0},
    {0, 0xd2, 2, 0, SHIFT | CL, 0},
    {0, 0xd2, 3, 0, SHIFT | CL, 0},
    {0, 0xd2, 4, 0, SHIFT | CL, F_AF},
    {0, 0xd2, 5, 0, SHIFT | CL, F_AF},
    {0, 0xd2, 7, 0, SHIFT | CL, F_AF},
    {0, 0xa4, -1, 1, EXT | SIZED | SHIFT, F_AF},
    {0, 0xac, -1, 1, EXT | SIZED | SHIFT, F_AF},
    {0, 0xa5, -1, 0, EXT | SIZED | SHIFT | CL, F_AF},
    {0, 0xad, -1, 0, EXT | SIZED | SHIFT | CL, F_AF},
    {0, 0xa3, -1, 0, EXT | SIZED | BITOFF | NOLOCK, F_BIT},
    {0, 0xab, -1, 0, EXT | SIZED | BITOFF, F_BIT},
    {0, 0xb3, -1, 0, EXT | SIZED | BITOFF, F_BIT},
    {0, 0xbb, -1, 0, EXT | SIZED | BITOFF, F_BIT},
    {0, 0xba, 4, 1, EXT | SIZED | NOLOCK, F_BIT},
    {0, 0xba, 5, 1, EXT | SIZED, F_BIT},
    {0, 0xba, 6, 1, EXT | SIZED, F_BIT},
    {0, 0xba, 7, 1, EXT | SIZED, F_BIT},
    {0, 0xaf, -1, 0, EXT | SIZED | NOLOCK, F_MUL},
    {0, 0x6b, -1, 1, SIZED | NOLOCK, F_MUL},
    {0, 0x69, -1, 4, SIZED | NOLOCK, F_MUL},
    {0, 0xb0, -1, 0, EXT, 0},
    {0, 0xc0, -1, 0, EXT, 0},
    {0, 0xb6, -1, 0, EXT | SIZED | NOLOCK, 0},
    {0, 0xb7, -1, 0, EXT | SIZED | NOLOCK, 0},
    {0, 0xbe, -1, 0, EXT | SIZED | NOLOCK, 0},
    {0, 0xbf, -1, 0, EXT | SIZED | NOLOCK, 0},
    {0, 0x63, -1, 0, SIZED | NOLOCK, 0},
    {0, 0x8d, -1, 0, SIZED | NOLOCK | MEMONLY, 0},
    {0xf3, 0xb8, -1, 0, EXT | SIZED | NOLOCK | HOST_BMI, 0},
    {0xf3, 0xbc, -1, 0, EXT | SIZED | NOLOCK | HOST_BMI, F_BIT},
    {0xf3, 0xbd, -1, 0, EXT | SIZED | NOLOCK | HOST_BMI, F_BIT},
};

struct maker {
    struct test *t;
    uint8_t rex;
};

static void byte(struct test *t, unsigned b)
{
    t->code[t->len++] = (uint8_t)b;
}

/* A register that is neither RSP nor RDI. */
static unsigned reg(void)
{
    static const uint8_t regs[] = {0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    return regs[below(sizeof regs)];
}

static void immediate(struct test *t, unsigned bytes)
{
    uint64_t v = value();
    for (unsigned i = 0; i < bytes; i++)
        byte(t, (unsigned)(v >> (i * 8)) & 0xff);
}

static void undefined_of_shift(struct test *t, const struct pattern *p, unsigned size, unsigned count)
{
    count &= size == 8 ? 63 : 31;
    if (!count) {
        t->undefined = 0; /* nothing changes */
        return;
    }
    if (count != 1)
        t->undefined |= RF_OF;
    if (count >= size * 8) /* beyond the operand: CF is undefined for the plain shifts */
        t->undefined |= RF_CF;
}

/* One instruction; false: this combination is not for us. */
static bool instruction(struct test *t, const struct pattern *p, bool first)
{
    static const uint8_t sizes[] = {2, 4, 4, 8, 8};
    bool is_byte = !(p->how & SIZED) && below(3) == 0, mem = (p->how & MEMONLY) || (!(p->how & REGONLY) && below(2));
    unsigned size = is_byte ? 1 : sizes[below(sizeof sizes)];
    unsigned g = p->ext >= 0 ? (unsigned)p->ext : reg(), m = reg();
    bool high = is_byte && below(4) == 0; /* no REX: AH, CH, DH, BH */
    bool bits = p->how & BITOFF;
    if (p->how & BITOFF && size == 2 && mem)
        return false;
    if (high) {
        g = p->ext >= 0 ? g : below(8) == 7 ? 4 : below(7);
        m = below(7);
    }
    if ((p->how & (EXT | SHIFT)) == (EXT | SHIFT) && size == 2)
        return false; /* SHLD and SHRD of 16 bits beyond 16: undefined result */
    bool lock = mem && !(p->how & (NOLOCK | SHIFT)) && below(3) == 0;
    if (lock)
        byte(t, 0xf0);
    if (p->prefix)
        byte(t, p->prefix);
    if (size == 2)
        byte(t, 0x66);
    if (!high)
        byte(t, 0x40 | (size == 8) << 3 | (p->ext < 0 && g >= 8) << 2 | ((!mem || p->how & MEMONLY) && m >= 8));
    if (p->how & EXT)
        byte(t, 0x0f);
    byte(t, p->op | (!(p->how & SIZED) && !is_byte));
    int disp = (int)below(200) - 100;
    if (p->how & MEMONLY && (m & 7) == 4)
        return false; /* LEA takes any base without a SIB byte; RDI differs between the two sides */
    byte(t, p->how & MEMONLY ? 0x40 | (g & 7) << 3 | (m & 7)
            : mem            ? 0x47 | (g & 7) << 3
                             : 0xc0 | (g & 7) << 3 | (m & 7));
    if (mem)
        byte(t, (unsigned)disp & 0xff);
    unsigned imm_at = t->len;
    immediate(t, p->imm == 1 ? 1 : p->imm == 4 ? (size < 4 ? size : 4) : 0);
    if (!first)
        return true;
    t->undefined = p->undefined;
    if (bits && mem)
        t->regs[g] = (uint64_t)((int64_t)below(8000) - 4000);
    if (p->how & SHIFT)
        undefined_of_shift(t, p, size, p->how & CL ? (unsigned)t->regs[RCX] : t->code[imm_at]);
    return true;
}

/* Operations that define all six flags, so that what follows meets each lazy kind. */
static void preamble(struct test *t)
{
    static const uint8_t ops[][2] = {{0x01, 0}, {0x29, 0}, {0x39, 0}, {0x11, 0},
                                     {0x19, 0}, {0xff, 0}, {0xff, 1}, {0xf7, 3}};
    unsigned i = below(ARRAY_SIZE(ops)), wide = below(2);
    byte(t, wide ? 0x49 : 0x41);
    byte(t, ops[i][0]);
    byte(t, 0xc0 | (i < 5 ? below(2) * 3 : ops[i][1]) << 3 | (8 + below(6)) % 8);
}

/* What reads flags: setcc, cmovcc, adc, sbb, jcc over an instruction, all of a defined state. */
static void reader(struct test *t)
{
    static const uint8_t adds[] = {0x48, 0x83, 0xc3, 0x11};
    unsigned cc = below(16);
    switch (below(4)) {
    case 0:
        byte(t, 0x40), byte(t, 0x0f), byte(t, 0x90 | cc), byte(t, 0xc6);
        break;
    case 1:
        byte(t, 0x48 + below(2) * -8), byte(t, 0x0f), byte(t, 0x40 | cc), byte(t, 0xd9);
        break;
    case 2:
        byte(t, 0x48), byte(t, below(2) ? 0x11 : 0x19), byte(t, 0xc8);
        break;
    default:
        byte(t, 0x70 | cc), byte(t, sizeof adds);
        for (unsigned i = 0; i < sizeof adds; i++)
            byte(t, adds[i]);
    }
}

static void fresh(struct test *t)
{
    memset(t, 0, offsetof(struct test, regs));
    for (unsigned i = 0; i < 16; i++)
        t->regs[i] = value();
    t->regs[FLAGS] = RF_FIXED | (rnd() & RF_ARITH) | RF_IF;
    for (unsigned i = MEM_MID - 128; i < MEM_MID + 128; i += 8)
        st64(t->mem + i, value());
}

static void explain(const struct test *t, const struct native *n, const struct soft_vcpu *v)
{
    print_error("code:");
    for (unsigned i = 0; i < t->len; i++)
        print_error(" %02x", t->code[i]);
    print_error("\n");
    for (unsigned i = 0; i <= FLAGS; i++) {
        uint64_t mine = i < FLAGS ? v->st.gpr[i] : v->st.rflags;
        print_error("%2u: in %016lx native %016lx guest %016lx%s\n", i, t->regs[i], n->out[i], mine,
                    i == RSP || i == RDI || mine == n->out[i] ? "" : "  <");
    }
}

static bool agree(struct rig *r, const struct test *t, const struct native *n)
{
    const struct soft_vcpu *v = r->v;
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP && i != RDI && v->st.gpr[i] != n->out[i])
            return false;
    if ((v->st.rflags ^ n->out[FLAGS]) & RF_ARITH & ~t->undefined)
        return false;
    return !memcmp(rig_at(r, MEM), n->mem, MEM_SIZE);
}

static bool host_has_bmi(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_POPCNT))
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI))
        return false;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & bit_LZCNT;
}

static void check(struct rig *r, struct native *n, const struct test *t)
{
    if (!guest_run(r, t))
        return; /* #DE, which the host would take as SIGFPE */
    native_run(n, t);
    if (!agree(r, t, n)) {
        explain(t, n, r->v);
        fail_msg("the interpreter and the host disagree");
    }
}

static void random_instructions_do_as_the_host_does(void **state)
{
    struct rig *r = *state;
    struct native n;
    struct test t;
    bool bmi = host_has_bmi();
    native_init(&n);
    guest_init(r);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct pattern *p = &patterns[below(ARRAY_SIZE(patterns))];
        fresh(&t);
        if (p->how & HOST_BMI && !bmi)
            continue;
        if (!(p->how & (CL | BITOFF)) && below(2))
            preamble(&t);
        if (!instruction(&t, p, true))
            continue;
        check(r, &n, &t);
    }
    munmap(n.code, 8192);
    free(n.mem);
}

/* cmp, test, add, sub, and, inc, dec, shr followed by a reader: fused and not. */
static void conditions_agree_after_every_kind_of_operation(void **state)
{
    struct rig *r = *state;
    struct native n;
    struct test t;
    native_init(&n);
    guest_init(r);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const struct pattern *p = &patterns[below(ARRAY_SIZE(patterns))];
        fresh(&t);
        if (p->undefined || p->how & (SHIFT | HOST_BMI))
            continue;
        if (!instruction(&t, p, true))
            continue;
        reader(&t);
        if (below(2))
            reader(&t);
        check(r, &n, &t);
    }
    munmap(n.code, 8192);
    free(n.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(random_instructions_do_as_the_host_does),
        RIG_TEST(conditions_agree_after_every_kind_of_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
