#include "cpu/soft/flags.h"

/* PF of a byte. SDM 1, "Status Flags". */
static uint64_t parity(uint64_t r)
{
    return __builtin_parity((unsigned)(r & 0xff)) ? 0 : RF_PF;
}

/* OF of an addition: both operands have one sign, the result the other. */
static uint64_t add_of(uint64_t a, uint64_t b, uint64_t r)
{
    return (a ^ r) & (b ^ r) & BIT(63) ? RF_OF : 0;
}

static uint64_t sub_of(uint64_t a, uint64_t b, uint64_t r)
{
    return (a ^ b) & (a ^ r) & BIT(63) ? RF_OF : 0;
}

/* CF, AF and OF of an addition or subtraction with carry `c`. `k` is the shift. */
static uint64_t add_flags(uint64_t r, uint64_t b, uint64_t c, unsigned k)
{
    uint64_t a = r - b - (c << k);
    return (c ? r <= b : r < b) | ((a ^ b ^ r) >> k & RF_AF) | add_of(a, b, r);
}

static uint64_t sub_flags(uint64_t r, uint64_t b, uint64_t c, unsigned k)
{
    uint64_t a = r + b + (c << k);
    return (c ? a <= b : a < b) | ((a ^ b ^ r) >> k & RF_AF) | sub_of(a, b, r);
}

/* CF, AF and OF of the last operation. */
static uint64_t carry_flags(const struct soft_vcpu *v, unsigned k)
{
    uint64_t r = v->cc_dst, s = v->cc_src, low = r >> k & 15;
    switch ((uint8_t)v->cc_op) {
    case CC_ADD:
        return add_flags(r, s, 0, k);
    case CC_ADC1:
        return add_flags(r, s, 1, k);
    case CC_SUB:
        return sub_flags(r, s, 0, k);
    case CC_SBB1:
        return sub_flags(r, s, 1, k);
    case CC_INC:
        return (s & RF_CF) | (low == 0 ? RF_AF : 0) | (r == BIT(63) ? RF_OF : 0);
    case CC_DEC:
        return (s & RF_CF) | (low == 15 ? RF_AF : 0) | (r == BIT(63) - BIT(k) ? RF_OF : 0);
    case CC_SHL:
        return s >> 63 | ((s ^ r) >> 63 ? RF_OF : 0);
    case CC_SHR:
        return (s & RF_CF) | ((r ^ r << 1) >> 63 ? RF_OF : 0);
    case CC_EXPL:
        return s & (RF_CF | RF_AF | RF_OF);
    default:
        return 0;
    }
}

uint64_t flags_arith(const struct soft_vcpu *v)
{
    if ((uint8_t)v->cc_op == CC_RFLAGS)
        return v->st.rflags & RF_ARITH;
    unsigned k = 64 - (8u << (v->cc_op >> 8));
    uint64_t f = v->cc_dst ? v->cc_dst >> 63 << 7 : RF_ZF;
    return f | parity(v->cc_dst >> k) | carry_flags(v, k);
}

uint64_t flags_get(struct soft_vcpu *v)
{
    if ((uint8_t)v->cc_op != CC_RFLAGS)
        flags_put(v, flags_arith(v));
    return v->st.rflags;
}

bool flags_cond(const struct soft_vcpu *v, unsigned cc)
{
    uint64_t f = flags_arith(v);
    bool less = !(f & RF_SF) != !(f & RF_OF), yes;
    switch (cc >> 1) {
    case 0:
        yes = f & RF_OF;
        break;
    case 1:
        yes = f & RF_CF;
        break;
    case 2:
        yes = f & RF_ZF;
        break;
    case 3:
        yes = f & (RF_CF | RF_ZF);
        break;
    case 4:
        yes = f & RF_SF;
        break;
    case 5:
        yes = f & RF_PF;
        break;
    case 6:
        yes = less;
        break;
    default:
        yes = less || f & RF_ZF;
    }
    return yes != (cc & 1);
}
