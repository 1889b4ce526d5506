/* Generic executor, first half: operations on values, and read-modify-write of any operand, LOCKed or not.
 * SDM 2, the instruction's own pages; SDM 3A, "Locked Atomic Operations". */
#include "cpu/soft/uop_gen.h"

/* ---- pure operations ---- */

static void set_add(struct alu *o, unsigned k, unsigned log2, uint64_t a, uint64_t b, uint64_t c)
{
    o->r = a + b + c;
    o->dst = o->r << k;
    o->src = b << k;
    o->op = CC(c ? CC_ADC1 : CC_ADD, log2);
}

static void set_sub(struct alu *o, unsigned k, unsigned log2, uint64_t a, uint64_t b, uint64_t c)
{
    o->r = a - b - c;
    o->dst = o->r << k;
    o->src = b << k;
    o->op = CC(c ? CC_SBB1 : CC_SUB, log2);
}

static void set_logic(struct alu *o, unsigned k, unsigned log2, uint64_t r)
{
    o->r = r;
    o->dst = r << k;
    o->src = 0;
    o->op = CC(CC_LOGIC, log2);
}

/* Shifts: counts are masked to 5 bits, 6 with 64-bit operands; a count of 0 changes nothing, flags included. */
static void shift(struct alu *o, unsigned op, unsigned size, uint64_t a, unsigned n)
{
    unsigned width = size * 8, k = 64 - width, log2 = log2_size(size);
    n &= size == 8 ? 63 : 31;
    o->flags = n != 0;
    o->r = a;
    if (!n)
        return;
    if (op == OP_shl) {
        o->src = a << (n - 1) << k;
        o->r = a << n;
        o->op = CC(CC_SHL, log2);
    } else {
        uint64_t wide = op == OP_sar ? (uint64_t)((int64_t)(a << k) >> k) : a;
        o->src = op == OP_sar ? (uint64_t)((int64_t)wide >> (n - 1)) : wide >> (n - 1);
        o->r = op == OP_sar ? (uint64_t)((int64_t)wide >> n) : wide >> n;
        o->op = CC(CC_SHR, log2);
    }
    o->dst = o->r << k;
}

/* Rotates set CF and OF and leave the rest. */
static void rotate_flags(const struct soft_vcpu *v, struct alu *o, bool cf, bool of)
{
    uint64_t f = (flags_arith(v) & ~(RF_CF | RF_OF)) | cf | (of ? RF_OF : 0);
    o->flags = true;
    o->op = CC_RFLAGS;
    o->src = f;
}

static void rotate(const struct soft_vcpu *v, struct alu *o, unsigned op, unsigned size, uint64_t a, unsigned n)
{
    unsigned width = size * 8;
    n &= size == 8 ? 63 : 31;
    o->r = a;
    if (!n)
        return;
    unsigned s = n & (width - 1);
    if (s && op == OP_rol)
        o->r = (a << s | a >> (width - s)) & size_mask(size);
    else if (s)
        o->r = (a >> s | a << (width - s)) & size_mask(size);
    bool msb = o->r >> (width - 1) & 1, next = o->r >> (width - 2) & 1;
    if (op == OP_rol)
        rotate_flags(v, o, o->r & 1, msb ^ (o->r & 1));
    else
        rotate_flags(v, o, msb, msb ^ next);
}

static void rotate_carry(const struct soft_vcpu *v, struct alu *o, unsigned op, unsigned size, uint64_t a, unsigned n)
{
    unsigned width = size * 8;
    uint64_t cf = flags_cf(v);
    n &= size == 8 ? 63 : 31;
    o->r = a;
    if (!n)
        return;
    n %= width + 1;
    for (; n; n--) { /* at most 63 steps */
        uint64_t out = op == OP_rcl ? a >> (width - 1) & 1 : a & 1;
        a = op == OP_rcl ? (a << 1 | cf) & size_mask(size) : a >> 1 | cf << (width - 1);
        cf = out;
    }
    o->r = a;
    bool msb = a >> (width - 1) & 1, next = a >> (width - 2) & 1;
    rotate_flags(v, o, cf, op == OP_rcl ? msb ^ cf : msb ^ next);
}

/* SHLD and SHRD; a 16-bit operand shifted by more than 16 is undefined: `b` follows again. */
static void double_shift(struct alu *o, unsigned op, unsigned size, uint64_t a, uint64_t b, unsigned n)
{
    unsigned width = size * 8, k = 64 - width, log2 = log2_size(size);
    n &= size == 8 ? 63 : 31;
    o->flags = n != 0;
    o->r = a;
    if (!n)
        return;
    unsigned __int128 all, last;
    if (op == OP_shld) {
        all = size == 2 ? (unsigned __int128)(a << 32 | b << 16 | a) << 80
                        : ((unsigned __int128)a << width | b) << (128 - 2 * width);
        last = all << (n - 1);
        o->src = (uint64_t)(last >> 127);
        o->r = (uint64_t)((all << n) >> (128 - width));
    } else {
        all = size == 2 ? (unsigned __int128)(a << 32 | b << 16 | a) : (unsigned __int128)b << width | a;
        last = all >> (n - 1);
        o->src = (uint64_t)last & 1;
        o->r = (uint64_t)(all >> n) & size_mask(size);
    }
    o->dst = o->r << k;
    o->src |= (o->r ^ a) >> (width - 1) & 1 ? RF_OF : 0;
    o->op = CC(CC_EXPL, log2);
}

static void compute_unary(const struct soft_vcpu *v, struct alu *o, unsigned op, unsigned size, uint64_t a)
{
    unsigned k = 64 - size * 8, log2 = log2_size(size);
    switch (op) {
    case OP_inc:
    case OP_dec:
        o->r = op == OP_inc ? a + 1 : a - 1;
        o->dst = o->r << k;
        o->src = flags_cf(v);
        o->op = CC(op == OP_inc ? CC_INC : CC_DEC, log2);
        break;
    case OP_neg:
        set_sub(o, k, log2, 0, a, 0);
        break;
    default: /* not */
        o->r = ~a;
        o->flags = false;
    }
}

static void compute_bit(const struct soft_vcpu *v, struct alu *o, unsigned op, unsigned size, uint64_t a, uint64_t b)
{
    uint64_t bit = BIT(b & (size * 8 - 1));
    uint64_t carry = (a & bit) != 0;
    o->r = op == OP_bts ? a | bit : op == OP_btr ? a & ~bit : a ^ bit;
    if ((uint8_t)v->cc_op == CC_RFLAGS) {
        o->src = (v->st.rflags & ~RF_CF) | carry;
        o->op = CC_RFLAGS;
        return;
    }
    o->dst = v->cc_dst;
    o->src = carry;
    o->op = (v->cc_op & ~0xffu) | CC_EXPL;
}

/* ADCX and ADOX would belong here, but leave all flags but one: gen_adx(). */
void alu_compute(const struct soft_vcpu *v, unsigned op, unsigned size, uint64_t a, uint64_t b, uint64_t c,
                 struct alu *o)
{ /* opcode switch */
    unsigned k = 64 - size * 8, log2 = log2_size(size);
    *o = (struct alu){.flags = true, .write = true};
    switch (op) {
    case OP_add:
    case OP_xadd:
        set_add(o, k, log2, a, b, 0);
        break;
    case OP_adc:
        set_add(o, k, log2, a, b, flags_cf(v));
        break;
    case OP_sub:
    case OP_cmp:
        set_sub(o, k, log2, a, b, 0);
        break;
    case OP_sbb:
        set_sub(o, k, log2, a, b, flags_cf(v));
        break;
    case OP_and:
    case OP_test:
        set_logic(o, k, log2, a & b);
        break;
    case OP_or:
        set_logic(o, k, log2, a | b);
        break;
    case OP_xor:
        set_logic(o, k, log2, a ^ b);
        break;
    case OP_shl:
    case OP_shr:
    case OP_sar:
        shift(o, op, size, a, (unsigned)b);
        break;
    case OP_rol:
    case OP_ror:
        o->flags = false;
        rotate(v, o, op, size, a, (unsigned)b);
        break;
    case OP_rcl:
    case OP_rcr:
        o->flags = false;
        rotate_carry(v, o, op, size, a, (unsigned)b);
        break;
    case OP_shld:
    case OP_shrd:
        double_shift(o, op, size, a, b, (unsigned)c);
        break;
    case OP_bts:
    case OP_btr:
    case OP_btc:
        compute_bit(v, o, op, size, a, b);
        break;
    case OP_cmpxchg: /* flags of accumulator - destination; the destination is written either way */
        set_sub(o, k, log2, c, a, 0);
        o->r = c == a ? b : a;
        break;
    case OP_xchg:
        o->r = b;
        o->flags = false;
        break;
    default:
        compute_unary(v, o, op, size, a);
    }
    o->r &= size_mask(size);
}

/* CC_RFLAGS results carry whole RFLAGS bits in src. */
void rmw_flags(struct soft_vcpu *v, const struct alu *o)
{
    if (!o->flags)
        return;
    if (o->op == CC_RFLAGS)
        flags_put(v, o->src);
    else
        cc_set(v, o->op, o->dst, o->src);
}

/* ---- operands ---- */

bool gen_get(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t *val)
{
    if (o->kind == OPND_IMM) {
        *val = in->imm & size_mask(o->size);
        return true;
    }
    return opnd_get(v, in, o, val);
}

/* ---- read-modify-write ---- */

static void rmw_compute(const struct soft_vcpu *v, struct rmw *m, uint64_t old)
{
    m->old = old;
    alu_compute(v, m->op, m->size, old, m->b, m->c, &m->out);
}

#define CAS(T)                                                                                                         \
    do {                                                                                                               \
        T want = (T)old;                                                                                               \
        done = __atomic_compare_exchange_n((T *)p, &want, (T)m->out.r, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
        old = want;                                                                                                    \
    } while (0)

/* Straight on guest RAM. The operand lies within a cache line, so the host's compare-and-swap is atomic, aligned or
 * not. */
GUEST_RACY static void rmw_atomic(const struct soft_vcpu *v, struct rmw *m, uint8_t *p)
{
    uint64_t old = guest_ld(p, m->size);
    for (bool done = false; !done;) {
        rmw_compute(v, m, old);
        switch (m->size) {
        case 1:
            CAS(uint8_t);
            break;
        case 2:
            CAS(guest_u16);
            break;
        case 4:
            CAS(guest_u32);
            break;
        default:
            CAS(guest_u64);
        }
    }
}

static bool rmw_plain(struct soft_vcpu *v, struct rmw *m, gva_t gva)
{
    uint64_t old = 0;
    if (!lin_probe_write(v, gva, m->size, ACC_WRITE) || !lin_read(v, gva, &old, m->size, ACC_READ))
        return false;
    rmw_compute(v, m, old);
    return lin_write(v, gva, &m->out.r, m->size, ACC_WRITE);
}

bool rmw_locked(struct soft_vcpu *v, struct rmw *m, gva_t gva)
{
    bool via_excl;
    uint8_t *p = lin_atomic(v, gva, m->size, &via_excl);
    if (p) {
        rmw_atomic(v, m, p);
        return true;
    }
    if (!via_excl)
        return false;
    excl_begin(v);
    bool ok = rmw_plain(v, m, gva);
    excl_end(v);
    return ok;
}

static bool rmw_mem(struct soft_vcpu *v, const struct insn *in, struct rmw *m)
{
    gva_t gva;
    if (!opnd_linear(v, in, m->size, ACC_WRITE, &gva))
        return false;
    bool ok = in->flags & INSN_LOCK || m->op == OP_xchg ? rmw_locked(v, m, gva) : rmw_plain(v, m, gva);
    if (!ok && in->seg == SEG_SS && (v->mode & MODE_CODE) == CODE64)
        fault_stack(v);
    return ok;
}

static bool rmw_reg(struct soft_vcpu *v, const struct insn *in, struct rmw *m)
{
    uint64_t old;
    if (!opnd_get(v, in, &in->dst, &old))
        return false;
    rmw_compute(v, m, old);
    return true; /* the caller writes, in its order */
}

/* dst = op(dst, b, c), without the flags; a register destination is left to the caller. */
static bool rmw(struct soft_vcpu *v, const struct insn *in, struct rmw *m)
{
    m->op = in->op;
    m->size = in->dst.size;
    return in->dst.kind == OPND_MEM ? rmw_mem(v, in, m) : rmw_reg(v, in, m);
}

static void rmw_finish(struct soft_vcpu *v, const struct insn *in, const struct rmw *m)
{
    if (in->dst.kind == OPND_REG)
        opnd_put(v, in, &in->dst, m->out.r);
    rmw_flags(v, &m->out);
}

/* add or adc sbb and sub xor inc dec neg not, shifts and rotates. */
enum exec_result gen_rmw(struct soft_vcpu *v, const struct insn *in)
{
    struct rmw m = {0};
    if (in->src.kind != OPND_NONE && !gen_get(v, in, &in->src, &m.b))
        return EXEC_FAULT;
    if (in->src2.kind != OPND_NONE && !gen_get(v, in, &in->src2, &m.c))
        return EXEC_FAULT;
    if (!rmw(v, in, &m))
        return EXEC_FAULT;
    rmw_finish(v, in, &m);
    return EXEC_OK;
}

enum exec_result gen_compare(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a, b;
    struct alu o;
    if (!gen_get(v, in, &in->dst, &a) || !gen_get(v, in, &in->src, &b))
        return EXEC_FAULT;
    alu_compute(v, in->op, in->dst.size, a, b, 0, &o);
    alu_flags(v, &o);
    return EXEC_OK;
}

enum exec_result gen_xchg(struct soft_vcpu *v, const struct insn *in)
{
    struct rmw m = {0};
    if (!opnd_get(v, in, &in->src, &m.b) || !rmw(v, in, &m))
        return EXEC_FAULT;
    opnd_put(v, in, &in->src, m.old);
    rmw_finish(v, in, &m);
    return EXEC_OK;
}

enum exec_result gen_xadd(struct soft_vcpu *v, const struct insn *in)
{
    return gen_xchg(v, in); /* the same exchange; alu_compute() adds */
}

enum exec_result gen_cmpxchg(struct soft_vcpu *v, const struct insn *in)
{
    struct opnd acc = {.kind = OPND_REG, .size = in->dst.size, .reg = RAX};
    struct rmw m = {0};
    if (!opnd_get(v, in, &in->src, &m.b) || !opnd_get(v, in, &acc, &m.c) || !rmw(v, in, &m))
        return EXEC_FAULT;
    if (m.c == m.old) {
        rmw_finish(v, in, &m);
        return EXEC_OK;
    }
    opnd_put(v, in, &acc, m.old); /* a register destination stays as it is, upper half included */
    rmw_flags(v, &m.out);
    return EXEC_OK;
}

/* BT and friends. With a register offset a memory operand is a bit string: the word `offset / width` away. */
enum exec_result gen_bit(struct soft_vcpu *v, const struct insn *in)
{
    struct insn at = *in;
    struct rmw m = {0};
    uint64_t a;
    if (!gen_get(v, in, &in->src, &m.b))
        return EXEC_FAULT;
    if (in->dst.kind == OPND_MEM && in->src.kind == OPND_REG) {
        unsigned k = 64 - in->src.size * 8, width = in->dst.size * 8;
        int64_t bit = (int64_t)(m.b << k) >> k;
        at.disp += (bit >> __builtin_ctz(width)) * in->dst.size;
    }
    if (in->op == OP_bt) {
        if (!opnd_get(v, &at, &at.dst, &a))
            return EXEC_FAULT;
        flags_set_cf_keep_zf(v, a >> (m.b & (in->dst.size * 8 - 1)) & 1);
        return EXEC_OK;
    }
    if (!rmw(v, &at, &m))
        return EXEC_FAULT;
    rmw_finish(v, &at, &m);
    return EXEC_OK;
}
