/* Generic executor: multiplication, division, scans, moves and the small ones. SDM 2, the instruction's own pages. */
#include "cpu/soft/uop_gen.h"

static uint64_t reg_get(const struct soft_vcpu *v, unsigned reg, unsigned size)
{
    return v->st.gpr[reg] & size_mask(size);
}

static void reg_put(struct soft_vcpu *v, unsigned reg, unsigned size, uint64_t val)
{
    uint64_t mask = size_mask(size), old = size >= 4 ? 0 : v->st.gpr[reg] & ~mask;
    v->st.gpr[reg] = old | (val & mask);
}

static int64_t sext(uint64_t val, unsigned size)
{
    unsigned k = 64 - size * 8;
    return (int64_t)(val << k) >> k;
}

/* ---- multiplication ---- */

/* CF = OF = the upper half says something; SF, ZF, PF (undefined) follow the lower. */
static void mul_flags(struct soft_vcpu *v, unsigned size, uint64_t low, bool carry)
{
    unsigned log2 = log2_size(size);
    cc_set(v, CC(CC_EXPL, log2), low << (64 - size * 8), carry ? RF_CF | RF_OF : 0);
}

static void mul_one(struct soft_vcpu *v, const struct insn *in, uint64_t b)
{
    unsigned size = in->dst.size, width = size * 8;
    unsigned __int128 p;
    uint64_t a = reg_get(v, RAX, size);
    if (in->op == OP_mul)
        p = (unsigned __int128)a * b;
    else
        p = (unsigned __int128)((__int128)sext(a, size) * sext(b, size));
    uint64_t low = (uint64_t)p & size_mask(size), high = (uint64_t)(p >> width) & size_mask(size);
    if (size == 1) {
        reg_put(v, RAX, 2, (uint64_t)p);
    } else {
        reg_put(v, RAX, size, low);
        reg_put(v, RDX, size, high);
    }
    uint64_t idle = in->op == OP_mul || sext(low, size) >= 0 ? 0 : size_mask(size);
    mul_flags(v, size, low, high != idle);
}

enum exec_result gen_mul(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->dst.size;
    uint64_t a, b;
    if (in->op == OP_mul || in->op == OP_imul1) {
        if (!gen_get(v, in, &in->dst, &b))
            return EXEC_FAULT;
        mul_one(v, in, b);
        return EXEC_OK;
    }
    const struct opnd *first = in->op == OP_imul2 ? &in->dst : &in->src2;
    if (!gen_get(v, in, first, &a) || !gen_get(v, in, &in->src, &b))
        return EXEC_FAULT;
    __int128 p = (__int128)sext(a, size) * sext(b, size);
    uint64_t low = (uint64_t)p & size_mask(size);
    opnd_put(v, in, &in->dst, low);
    mul_flags(v, size, low, p != sext(low, size));
    return EXEC_OK;
}

/* ---- division: #DE if the quotient does not fit; flags stay (they are undefined) ---- */

static enum exec_result div_put(struct soft_vcpu *v, unsigned size, uint64_t quot, uint64_t rem)
{
    if (size == 1) {
        reg_put(v, RAX, 2, (quot & 0xff) | (rem & 0xff) << 8);
        return EXEC_OK;
    }
    reg_put(v, RAX, size, quot);
    reg_put(v, RDX, size, rem);
    return EXEC_OK;
}

static unsigned __int128 dividend(const struct soft_vcpu *v, unsigned size)
{
    if (size == 1)
        return reg_get(v, RAX, 2);
    return (unsigned __int128)reg_get(v, RDX, size) << (size * 8) | reg_get(v, RAX, size);
}

static enum exec_result div_unsigned(struct soft_vcpu *v, unsigned size, uint64_t d)
{
    unsigned __int128 n = dividend(v, size);
    if (!d || (n >> (size * 8)) >= d)
        return exec_fault(v, VEC_DE);
    if (!(uint64_t)(n >> 64))
        return div_put(v, size, (uint64_t)n / d, (uint64_t)n % d);
    return div_put(v, size, (uint64_t)(n / d), (uint64_t)(n % d));
}

static enum exec_result div_signed(struct soft_vcpu *v, unsigned size, uint64_t divisor)
{
    unsigned k = 128 - (size == 1 ? 16 : size * 16);
    __int128 n = (__int128)(dividend(v, size) << k) >> k;
    int64_t d = sext(divisor, size);
    bool negative = (n < 0) != (d < 0);
    if (!d)
        return exec_fault(v, VEC_DE);
    unsigned __int128 un = n < 0 ? -(unsigned __int128)n : (unsigned __int128)n;
    uint64_t ud = d < 0 ? -(uint64_t)d : (uint64_t)d;
    unsigned __int128 limit = (unsigned __int128)(size_mask(size) >> 1) + negative;
    unsigned __int128 uq = un / ud;
    if (uq > limit)
        return exec_fault(v, VEC_DE);
    uint64_t rem = (uint64_t)(un % ud);
    return div_put(v, size, negative ? -(uint64_t)uq : (uint64_t)uq, n < 0 ? -rem : rem);
}

enum exec_result gen_div(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t d;
    if (!gen_get(v, in, &in->dst, &d))
        return EXEC_FAULT;
    return in->op == OP_div ? div_unsigned(v, in->dst.size, d) : div_signed(v, in->dst.size, d);
}

/* ---- bit scans ---- */

static void scan_flags(struct soft_vcpu *v, bool zf, bool cf)
{
    flags_put(v, (zf ? RF_ZF : 0) | (cf ? RF_CF : 0));
}

enum exec_result gen_scan(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->dst.size, width = size * 8;
    uint64_t a, r;
    if (!gen_get(v, in, &in->src, &a))
        return EXEC_FAULT;
    unsigned low = a ? (unsigned)__builtin_ctzll(a) : width;
    unsigned high = a ? 63 - (unsigned)__builtin_clzll(a) : 0;
    switch (in->op) {
    case OP_popcnt:
        r = (unsigned)__builtin_popcountll(a);
        flags_put(v, a ? 0 : RF_ZF);
        break;
    case OP_tzcnt:
        r = low;
        scan_flags(v, !low, !a);
        break;
    case OP_lzcnt:
        r = a ? width - 1 - high : width;
        scan_flags(v, !r, !a);
        break;
    default: /* bsf, bsr: a zero source leaves the destination alone */
        scan_flags(v, !a, false);
        if (!a)
            return EXEC_OK;
        r = in->op == OP_bsf ? low : high;
    }
    opnd_put(v, in, &in->dst, r);
    return EXEC_OK;
}

/* ---- moves ---- */

static uint64_t byte_swap(uint64_t a, unsigned size)
{
    return size == 1 ? a : __builtin_bswap64(a) >> (64 - size * 8);
}

static enum exec_result move_value(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a;
    if (!gen_get(v, in, &in->src, &a))
        return EXEC_FAULT;
    if (in->op == OP_movsx)
        a = (uint64_t)sext(a, in->src.size) & size_mask(in->dst.size);
    else if (in->op == OP_movbe)
        a = byte_swap(a, in->dst.size);
    return opnd_put(v, in, &in->dst, a) ? EXEC_OK : EXEC_FAULT;
}

/* A conditional move reads its source and, being 4 bytes wide, clears the upper half even when it does not move. */
static enum exec_result move_if(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a, old;
    if (!gen_get(v, in, &in->src, &a) || !opnd_get(v, in, &in->dst, &old))
        return EXEC_FAULT;
    opnd_put(v, in, &in->dst, flags_cond(v, in->cond) ? a : old);
    return EXEC_OK;
}

/* The sign of rAX spread over rDX. */
static enum exec_result convert(struct soft_vcpu *v, const struct insn *in)
{
    unsigned size = in->opsize;
    if (in->op == OP_cbw)
        reg_put(v, RAX, size, (uint64_t)sext(reg_get(v, RAX, size / 2), size / 2));
    else
        reg_put(v, RDX, size, sext(reg_get(v, RAX, size), size) < 0 ? ~UINT64_C(0) : 0);
    return EXEC_OK;
}

enum exec_result gen_move(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a;
    switch (in->op) {
    case OP_lea:
        opnd_put(v, in, &in->dst, insn_offset(v, in) & size_mask(in->dst.size));
        return EXEC_OK;
    case OP_cbw:
    case OP_cwd:
        return convert(v, in);
    case OP_bswap: /* of 16 bits: undefined, processors give 0 */
        opnd_get(v, in, &in->dst, &a);
        opnd_put(v, in, &in->dst, in->dst.size == 2 ? 0 : byte_swap(a, in->dst.size));
        return EXEC_OK;
    case OP_setcc:
        return opnd_put(v, in, &in->dst, flags_cond(v, in->cond)) ? EXEC_OK : EXEC_FAULT;
    case OP_cmovcc:
        return move_if(v, in);
    default: /* mov movzx movsx movbe movnti */
        return move_value(v, in);
    }
}

/* ---- ADCX, ADOX, CRC32 ---- */

enum exec_result gen_adx(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a, b, flag = in->op == OP_adcx ? RF_CF : RF_OF;
    if (!gen_get(v, in, &in->dst, &a) || !gen_get(v, in, &in->src, &b))
        return EXEC_FAULT;
    uint64_t f = flags_get(v);
    unsigned __int128 sum = (unsigned __int128)a + b + !!(f & flag);
    flags_put(v, sum >> (in->dst.size * 8) ? f | flag : f & ~flag);
    opnd_put(v, in, &in->dst, (uint64_t)sum & size_mask(in->dst.size));
    return EXEC_OK;
}

/* Castagnoli's polynomial, reflected; no inversions. */
enum exec_result gen_crc32(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t a, b;
    if (!gen_get(v, in, &in->dst, &a) || !gen_get(v, in, &in->src, &b))
        return EXEC_FAULT;
    uint32_t crc = (uint32_t)a;
    for (unsigned i = 0; i < in->src.size; i++) {
        crc ^= (uint8_t)(b >> (i * 8));
        for (unsigned n = 0; n < 8; n++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    opnd_put(v, in, &in->dst, crc);
    return EXEC_OK;
}

/* ---- flag instructions, hints, fences ---- */

enum exec_result gen_flag(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t f = flags_get(v), ah = v->st.gpr[RAX] >> 8 & 0xff;
    const uint64_t low = RF_SF | RF_ZF | RF_AF | RF_PF | RF_CF;
    switch (in->op) {
    case OP_clc:
        f &= ~RF_CF;
        break;
    case OP_stc:
        f |= RF_CF;
        break;
    case OP_cmc:
        f ^= RF_CF;
        break;
    case OP_cld:
        f &= ~RF_DF;
        break;
    case OP_std:
        f |= RF_DF;
        break;
    case OP_sahf:
        f = (f & ~low) | (ah & low);
        break;
    default: /* lahf */
        v->st.gpr[RAX] = (v->st.gpr[RAX] & ~UINT64_C(0xff00)) | (f & low) << 8 | RF_FIXED << 8;
    }
    flags_load(v, f);
    return EXEC_OK;
}

enum exec_result gen_other(struct soft_vcpu *v, const struct insn *in)
{
    if (in->op == OP_mfence)
        atomic_thread_fence(memory_order_seq_cst);
    return EXEC_OK; /* nop, lfence, sfence: loads and stores are in order as they are */
}
