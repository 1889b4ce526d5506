/* What registers and memory hold before an instruction: operands where they may be (or, now and then, where they
 * fault), and values on the edges. */
#include "gen.h"

#include <string.h>

/* ---- numbers ---- */

/* splitmix64 */
uint64_t rnd(struct rng *r)
{
    uint64_t z = r->s += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t rnd_value(struct rng *r)
{
    static const uint64_t edge[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
    uint64_t v = rnd(r);
    switch (rnd_n(r, 8)) {
    case 0:
        return v & 0xff;
    case 1:
        return edge[v % ARRAY_SIZE(edge)];
    case 2:
        return -edge[v % ARRAY_SIZE(edge)];
    case 3:
        return (UINT64_C(1) << (v & 63)) - (v >> 8 & 1);
    case 4:
        return (uint64_t)(int64_t)(int32_t)v;
    default:
        return v;
    }
}

/* A double's or float's bits of moderate size, so that sums and products are neither all infinite nor all zero. */
static uint64_t rnd_float_bits(struct rng *r)
{
    uint64_t v = rnd(r);
    if (one_in(r, 2)) /* double */
        return (v & UINT64_C(0x800fffffffffffff)) | (uint64_t)(0x3f0 + rnd_n(r, 0x20)) << 52;
    uint32_t lo = ((uint32_t)v & 0x807fffff) | (0x70 + rnd_n(r, 0x20)) << 23;
    uint32_t hi = ((uint32_t)(v >> 32) & 0x807fffff) | (0x70 + rnd_n(r, 0x20)) << 23;
    return lo | (uint64_t)hi << 32;
}

static uint64_t rnd_special_bits(struct rng *r)
{
    static const uint64_t special[] = {
        0,
        UINT64_C(0x8000000000000000), /* -0.0 */
        UINT64_C(0x7ff0000000000000), /* infinity */
        UINT64_C(0x7ff8000000000000), /* quiet NaN */
        UINT64_C(0xfff4000000000001), /* signalling NaN */
        1,                            /* denormals */
        UINT64_C(0x000fffffffffffff),
        UINT64_C(0x7f8000007fa00000), /* floats: infinity, signalling NaN */
        UINT64_C(0x0000000180000000),
        UINT64_C(0x7fefffffffffffff),
        UINT64_C(0x3ff0000000000000),
    };
    return special[rnd_n(r, ARRAY_SIZE(special))];
}

static void rnd_st(struct rng *r, uint8_t st[10])
{
    uint64_t m = rnd(r) | UINT64_C(1) << 63;
    uint16_t e = (uint16_t)((rnd(r) & 0x8000) | (0x3fe0 + rnd_n(r, 0x40)));
    switch (rnd_n(r, 12)) {
    case 0:
        m = 0;
        e &= 0x8000;
        break;
    case 1:
        m = UINT64_C(1) << 63;
        e |= 0x7fff;
        break;
    case 2:
        e |= 0x7fff;
        break;
    case 3:
        e &= 0x8000;
        m = rnd(r);
        break;
    case 4:
        m = rnd(r);
        e = (uint16_t)rnd(r);
        break;
    case 5:
        m = (uint64_t)rnd_n(r, 1000) << 48 | UINT64_C(1) << 63;
        break;
    default:
        break;
    }
    st64(st, m);
    st16(st + 8, e);
}

void rnd_fx(struct rng *r, uint8_t fx[512], bool x87)
{
    memset(fx, 0, 512);
    st16(fx, 0x37f);
    st32(fx + 24, 0x1f80);
    if (one_in(r, 2))
        st32(fx + 24, 0x1f80 | (rnd_n(r, 4) << 13) | (one_in(r, 4) ? 0x8000 : 0) | (one_in(r, 4) ? 0x40 : 0) |
                          (one_in(r, 4) ? rnd_n(r, 64) : 0));
    if (one_in(r, 12)) /* unmask something */
        st32(fx + 24, ld32(fx + 24) & ~(rnd_n(r, 64) << 7 | 0x3f));
    for (unsigned i = 0; i < 32; i++)
        st64(fx + 160 + i * 8, one_in(r, 3) ? rnd_float_bits(r) : one_in(r, 4) ? rnd_special_bits(r) : rnd_value(r));
    for (unsigned i = 0; i < 8; i++)
        rnd_st(r, fx + 32 + i * 16);
    fx[4] = x87 ? (uint8_t)(one_in(r, 3) ? rnd(r) : 0xff) : (uint8_t)(one_in(r, 4) ? rnd(r) : 0);
    if (!x87)
        return;
    st16(fx, (uint16_t)(0x7f | rnd_n(r, 16) << 8));
    if (one_in(r, 12))
        st16(fx, (uint16_t)(ld16(fx) & ~rnd_n(r, 64)));
    st16(fx + 2, (uint16_t)(rnd_n(r, 8) << 11 | (one_in(r, 4) ? rnd(r) & 0x4740 : 0)));
}

/* ---- where operands lie ---- */

static bool is_string(unsigned op)
{
    return op >= OP_movs && op <= OP_outs;
}

static bool is_bit_string(const struct insn *in)
{
    return in->op >= OP_bt && in->op <= OP_btc && in->src.kind == OPND_REG && in->flags & INSN_MEM;
}

/* Instructions that want their operand aligned get it so where the address is not canonical, too: which of the two
 * faults comes first is not defined. */
static uint64_t fault_target(struct gen *g, const struct shape *s, unsigned size)
{
    bool fp = s->in.op == OP_sse || s->in.op == OP_cmpxchg16b;
    switch (rnd_n(&g->rng, 4)) {
    case 0:
        return UINT64_C(0x18000000) + rnd_n(&g->rng, 4096);
    case 1:
        if (g->mode == CODE64)
            return UINT64_C(0x800000000000) + (rnd(&g->rng) & (fp ? 0xff0 : 0xfff));
        /* fall through */
    case 2:
        return DATA_VA - 1 - rnd_n(&g->rng, size);
    default:
        return DATA_VA + DATA_PAGES * 4096 - rnd_n(&g->rng, size + 1);
    }
}

static uint64_t target(struct gen *g, const struct shape *s, unsigned size)
{
    struct rng *r = &g->rng;
    bool fp = s->in.op == OP_sse || s->in.op == OP_x87;
    if (s->known && s->z.meta.isa_set == ZYDIS_ISA_SET_SHA)
        return WINDOW_VA + 32 + 16 * rnd_n(r, 20);
    if (g->fault)
        return fault_target(g, s, size);
    if (size > 128)
        return WINDOW_VA + (size >= WINDOW_LEN ? 0 : rnd_n(r, WINDOW_LEN - size)) + (one_in(r, 8) ? 1 : 0);
    if (is_string(s->in.op) || is_bit_string(&s->in) || s->in.op == OP_enter || size > 16)
        return WINDOW_VA + 180 + rnd_n(r, 150);
    if (one_in(r, 6))
        return WINDOW_VA + WINDOW_LEN / 2 - rnd_n(r, size);
    if (one_in(r, 8))
        return TAIL_VA + rnd_n(r, TAIL_LEN - 32);
    uint64_t at = WINDOW_VA + 32 + rnd_n(r, WINDOW_LEN - 64);
    return one_in(r, fp ? 5 : 2) ? at : at & ~UINT64_C(15);
}

static void patch(struct gen *g, unsigned at, unsigned size, uint64_t val)
{
    memcpy(g->t->code + at, &val, size);
}

static bool fixed(const struct gen *g, unsigned reg)
{
    return g->fixed >> reg & 1;
}

static void set_reg(struct gen *g, unsigned reg, uint64_t val, uint64_t mask)
{
    uint64_t keep = g->mode == CODE64 ? UINT64_MAX : 0xffffffff;
    g->t->gpr[reg] = (mask == UINT64_MAX ? val : (val & mask) | (rnd(&g->rng) & ~mask)) & keep;
    g->fixed |= (uint16_t)(1u << reg);
}

struct place {
    unsigned base, index, scale; /* registers 0..15, or 16: none; scale is the factor */
    uint64_t disp, mask;
    uint64_t seg;
};

static uint64_t effective(const struct gen *g, const struct place *p)
{
    uint64_t ea = p->disp;
    if (p->base < 16)
        ea += g->t->gpr[p->base];
    if (p->index < 16)
        ea += g->t->gpr[p->index] * p->scale;
    return (ea & p->mask) + p->seg;
}

static bool inside(uint64_t ea, unsigned size)
{
    return (ea >= WINDOW_VA + 16 && ea + size + 16 <= WINDOW_VA + WINDOW_LEN) || (ea == WINDOW_VA && size >= 512);
}

/* Choose base and index so that the operand lies near `at`; false if both are taken already and point elsewhere. */
static bool aim(struct gen *g, const struct place *p, uint64_t at, unsigned size)
{
    uint64_t want = (at - p->seg - p->disp) & p->mask;
    bool base = p->base < 16 && !fixed(g, p->base), index = p->index < 16 && !fixed(g, p->index);
    if (p->base == p->index && base) {
        set_reg(g, p->base, want / (p->scale + 1), p->mask);
        return true;
    }
    if (index && p->base < 16)
        set_reg(g, p->index, one_in(&g->rng, 2) ? rnd_n(&g->rng, 256) : rnd(&g->rng), UINT64_MAX);
    else if (index)
        set_reg(g, p->index, (uint64_t)((int64_t)want >> __builtin_ctz(p->scale)), p->mask);
    if (base) {
        if (p->index < 16)
            want -= g->t->gpr[p->index] * p->scale;
        set_reg(g, p->base, want, p->mask);
    } else if (p->base < 16 || !index) {
        return inside(effective(g, p), size);
    }
    return true;
}

static unsigned gpr_number(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return 16;
    return (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

/* RIP-relative or absolute: the displacement itself is chosen. */
static bool aim_displacement(struct gen *g, struct shape *s, unsigned at, uint64_t where, bool rip)
{
    unsigned n = s->z.raw.disp.size / 8;
    if (n < 4)
        return false;
    if (s->in.seg == SEG_GS && !rip)
        where -= GS_BASE;
    else if (rip)
        where -= g->t->rip + at + s->in.len + (s->in.seg == SEG_GS ? GS_BASE : 0);
    patch(g, at + s->z.raw.disp.offset, n, where);
    return true;
}

static bool settle_mem(struct gen *g, struct shape *s, unsigned at, const ZydisDecodedOperand *o)
{
    unsigned size = o->size ? o->size / 8 : 64;
    uint64_t where = target(g, s, size);
    struct place p = {.scale = o->mem.scale ? o->mem.scale : 1, .mask = size_mask(s->in.addrsize)};
    if (o->mem.disp.has_displacement)
        p.disp = (uint64_t)o->mem.disp.value;
    if (o->mem.segment == ZYDIS_REGISTER_GS)
        p.seg = GS_BASE;
    bool stack = o->mem.base == ZYDIS_REGISTER_ESP && !(s->in.flags & INSN_MODRM);
    if (s->in.addrsize == 2 && !stack)
        return true; /* the first 64 KiB are never mapped */
    if (s->in.addrsize == 4)
        where &= 0x1fffffff;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        return aim_displacement(g, s, at, where, true);
    if (o->mem.base == ZYDIS_REGISTER_NONE && o->mem.index == ZYDIS_REGISTER_NONE)
        return aim_displacement(g, s, at, where, false);
    p.base = gpr_number(o->mem.base);
    p.index = s->in.op == OP_xlat ? 16 : gpr_number(o->mem.index);
    if (p.base == RSP && !(s->in.flags & INSN_MODRM))
        p.mask = size_mask(g->mode == CODE64 ? 8 : 4); /* implied stack accesses have the stack's address size */
    return aim(g, &p, where, size);
}

static bool settle_operands(struct gen *g, struct shape *s, unsigned at)
{
    if (!s->known || s->in.op == OP_lea || s->in.op == OP_nop)
        return true;
    for (unsigned i = 0; i < s->z.operand_count; i++)
        if (s->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && s->ops[i].mem.type == ZYDIS_MEMOP_TYPE_MEM &&
            !settle_mem(g, s, at, &s->ops[i]))
            return false;
    return true;
}

/* ---- inputs of particular instructions ---- */

/* Bytes of the test's memory at `va`, or NULL. */
static uint8_t *data_at(struct test *t, uint64_t va, unsigned size)
{
    if (va >= WINDOW_VA && va + size <= WINDOW_VA + WINDOW_LEN)
        return t->data + (va - WINDOW_VA);
    if (va >= TAIL_VA && va + size <= TAIL_VA + TAIL_LEN)
        return t->data + WINDOW_LEN + (va - TAIL_VA);
    return NULL;
}

static uint64_t operand_va(const struct gen *g, const struct shape *s, unsigned at)
{
    const struct insn *in = &s->in;
    uint64_t ea = (uint64_t)in->disp;
    if (in->base < 16)
        ea += g->t->gpr[in->base];
    else if (in->base == INSN_RIP)
        ea += g->t->rip + at + in->len;
    if (in->index < 16)
        ea += g->t->gpr[in->index] << in->scale;
    return (ea & size_mask(in->addrsize)) + (in->seg == SEG_GS ? GS_BASE : 0);
}

static void put_operand(struct gen *g, const struct shape *s, unsigned at, const struct opnd *o, uint64_t val)
{
    unsigned size = o->size ? o->size : 8;
    if (o->kind == OPND_MEM) {
        uint8_t *p = data_at(g->t, operand_va(g, s, at), size);
        if (p)
            memcpy(p, &val, size);
    } else if (o->kind == OPND_REG && o->reg < 16 && !fixed(g, o->reg)) {
        set_reg(g, o->reg, val, UINT64_MAX);
    }
}

static void divide_inputs(struct gen *g, const struct shape *s, unsigned at)
{
    struct rng *r = &g->rng;
    uint64_t *gpr = g->t->gpr, divisor = rnd_value(r);
    put_operand(g, s, at, &s->in.dst, divisor);
    if (one_in(r, 4))
        return;
    bool idiv = s->in.op == OP_idiv;
    unsigned bits = s->in.opsize * 8u;
    uint64_t sign = gpr[RAX] >> (bits - 1) & 1;
    uint64_t high = one_in(r, 3) ? rnd_n(r, 16) : idiv ? 0 - sign : 0;
    if (s->in.opsize == 1 && !fixed(g, RAX))
        gpr[RAX] = (gpr[RAX] & ~UINT64_C(0xff00)) | (high & 0xff) << 8;
    else if (!fixed(g, RDX))
        gpr[RDX] = high;
}

/* Let half of all comparisons succeed. */
static void compare_inputs(struct gen *g, const struct shape *s, unsigned at)
{
    const uint64_t *gpr = g->t->gpr;
    if (one_in(&g->rng, 2))
        return;
    if (s->in.op == OP_cmpxchg) {
        put_operand(g, s, at, &s->in.dst, gpr[RAX]);
        return;
    }
    bool wide = s->in.op == OP_cmpxchg16b;
    uint8_t *p = data_at(g->t, operand_va(g, s, at), wide ? 16 : 8);
    uint64_t pair[2] = {wide ? gpr[RAX] : (uint32_t)gpr[RAX] | gpr[RDX] << 32, gpr[RDX]};
    if (p)
        memcpy(p, pair, wide ? 16 : 8);
}

static void string_inputs(struct gen *g, const struct shape *s)
{
    struct rng *r = &g->rng;
    if (!one_in(r, 16) || s->in.flags & (INSN_REP | INSN_REPNE))
        set_reg(g, RCX, rnd_n(r, 18), size_mask(s->in.addrsize));
    if (one_in(r, 2)) { /* runs of equal bytes, so that comparisons go on */
        memset(g->t->data, (int)rnd(r), WINDOW_LEN);
        if (one_in(r, 2))
            g->t->data[rnd_n(r, WINDOW_LEN)] ^= 1;
        memcpy(&g->t->gpr[RAX], g->t->data, 8);
    }
    if (one_in(r, 3))
        g->t->rflags |= 0x400;
}

static bool bit_string_inputs(struct gen *g, const struct shape *s)
{
    unsigned reg = s->in.src.reg;
    if (fixed(g, reg))
        return false;
    int64_t bit = (int64_t)rnd_n(&g->rng, 1200) - 600;
    set_reg(g, reg, (uint64_t)bit, size_mask(s->in.opsize));
    return true;
}

/* Branches land in the INT3s behind the code. */
static bool branch_inputs(struct gen *g, struct shape *s, unsigned at)
{
    struct rng *r = &g->rng;
    uint64_t land = g->t->rip + at + s->in.len + rnd_n(r, 20);
    g->t->kind |= KIND_INT3;
    if (s->in.op == OP_ret) {
        uint8_t *p = data_at(g->t, g->t->gpr[RSP], 8);
        if (p)
            st64(p, land);
        return true;
    }
    uint64_t va = s->in.src.kind == OPND_MEM ? operand_va(g, s, at) : 0;
    if (va >= DATA_VA && va < DATA_VA + DATA_PAGES * 4096 && !data_at(g->t, va, 8))
        return false; /* a target we can't choose: whether it or the stack faults first is not defined */
    if (s->in.src.kind == OPND_IMM)
        patch(g, at + s->z.raw.imm[0].offset, s->z.raw.imm[0].size / 8, rnd_n(r, 20));
    else if (s->in.src.kind == OPND_REG && fixed(g, s->in.src.reg))
        return false;
    else
        put_operand(g, s, at, &s->in.src, land);
    if (s->in.op >= OP_loop && s->in.op <= OP_jcxz)
        set_reg(g, RCX, one_in(r, 2) ? rnd_n(r, 3) : rnd_value(r), size_mask(s->in.addrsize));
    return true;
}

static bool enter_inputs(struct gen *g, unsigned at, const struct shape *s)
{
    struct rng *r = &g->rng;
    patch(g, at + s->z.raw.imm[0].offset, 2, rnd_n(r, 64));
    patch(g, at + s->z.raw.imm[1].offset, 1, one_in(r, 2) ? 0 : rnd_n(r, 5) | (one_in(r, 4) ? 0xe0 : 0));
    set_reg(g, RBP, WINDOW_VA + 200 + rnd_n(r, 150), UINT64_MAX);
    set_reg(g, RSP, WINDOW_VA + 200 + rnd_n(r, 150), UINT64_MAX);
    return true;
}

static void mxcsr_inputs(struct gen *g, const struct shape *s, unsigned at)
{
    unsigned reg = s->in.reg & 7;
    if (s->in.map != 1 || s->in.opcode != 0xae || !(s->in.flags & INSN_MEM))
        return;
    uint8_t *p = data_at(g->t, operand_va(g, s, at) + (reg == 1 ? 24 : 0), 4);
    if (p)
        st32(p, ld32(p) & ~0x20000u); /* MXCSR.MM is AMD's */
    if (p && !one_in(&g->rng, 6))
        st32(p, (ld32(p) & 0xffff) | (one_in(&g->rng, 8) ? 0 : 0x1f80));
}

bool shift_ok(const struct gen *g, const struct shape *s)
{
    const struct insn *in = &s->in;
    if ((in->op != OP_shld && in->op != OP_shrd) || in->opsize != 2)
        return true;
    uint64_t count = in->src2.kind == OPND_IMM ? in->imm : g->t->gpr[RCX];
    return (count & 31) <= 16 && (!g->seq || in->src2.kind == OPND_IMM);
}

/* Not: operands of the SHA instructions that are not aligned (AMD's CPUs don't mind); those that are neither aligned
 * nor canonical; MASKMOVQ of nothing, which may fault or not. */
static bool sse_settled(const struct gen *g, const struct shape *s, unsigned at)
{
    uint64_t va = s->in.flags & INSN_MEM ? operand_va(g, s, at) : 0;
    if (va & 15 && s->known && s->z.meta.isa_set == ZYDIS_ISA_SET_SHA)
        return false;
    if (va & 15 && g->fault && va >= UINT64_C(0x7fffffffffff))
        return false;
    return (!g->fault && s->in.addrsize != 2 && s->in.seg != SEG_CS) || s->in.map != 1 || s->in.opcode != 0xf7;
}

/* SDM 3A, "Limit Checking": whether an access that wraps around 4 GiB faults, is not defined. */
static bool wraps_4g(const struct gen *g, const struct shape *s, unsigned at)
{
    uint64_t va = s->in.flags & INSN_MODRM && s->in.flags & INSN_MEM ? operand_va(g, s, at) : 0x1000;
    return g->mode == CODE32 && (va >= 0xffffff00 || (uint32_t)(g->t->gpr[RSP] + 0x80) < 0x100);
}

static bool inputs(struct gen *g, struct shape *s, unsigned at)
{
    switch (s->in.op) {
    case OP_div:
    case OP_idiv:
        divide_inputs(g, s, at);
        return true;
    case OP_cmpxchg:
    case OP_cmpxchg8b:
    case OP_cmpxchg16b:
        compare_inputs(g, s, at);
        return true;
    case OP_jcc:
    case OP_jmp:
    case OP_call:
    case OP_ret:
    case OP_loop:
    case OP_loope:
    case OP_loopne:
    case OP_jcxz:
        return branch_inputs(g, s, at);
    case OP_enter:
        return enter_inputs(g, at, s);
    case OP_leave:
        set_reg(g, RBP, WINDOW_VA + 100 + rnd_n(&g->rng, 200), UINT64_MAX);
        return true;
    case OP_pusha:
    case OP_popa:
        set_reg(g, RSP, g->fault ? fault_target(g, s, 4) : WINDOW_VA + 100 + rnd_n(&g->rng, 300), UINT64_MAX);
        return true;
    case OP_popf:
        g->t->kind |= KIND_INT3;
        return true;
    case OP_xlat:
        set_reg(g, RBX, WINDOW_VA + 8 + rnd_n(&g->rng, 200), size_mask(s->in.addrsize));
        return true;
    case OP_sse:
        mxcsr_inputs(g, s, at);
        return sse_settled(g, s, at);
    default:
        break;
    }
    if (is_string(s->in.op))
        string_inputs(g, s);
    return !is_bit_string(&s->in) || bit_string_inputs(g, s);
}

bool values_settle(struct gen *g, struct shape *s, unsigned at)
{
    const uint8_t *code = g->t->code + at;
    if (g->fault && s->in.op == OP_popa)
        return false; /* it may have popped some registers or none */
    /* Displacements, then immediates may have been patched. */
    if (!settle_operands(g, s, at) || !shape_decode(g->mode, code, g->t->code_len - at, s) || !inputs(g, s, at))
        return false;
    return shape_decode(g->mode, code, g->t->code_len - at, s) && shift_ok(g, s) && !wraps_4g(g, s, at);
}
