/* Shifts, rotates, bit tests, scans and multiplication, on registers. */
#include "cpu/soft/uop.h"

#define LG(T) LOG2_##T

/* Shifts by a count that is not 0 (masked already). */
#define SHIFT_shl(T, n)                                                                                                \
    T r = (T)(a << (n));                                                                                               \
    cc_set(v, CC(CC_SHL, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)a << ((n)-1) << SHIFT(T))
#define SHIFT_shr(T, n)                                                                                                \
    T r = (T)(a >> (n));                                                                                               \
    cc_set(v, CC(CC_SHR, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)(a >> ((n)-1)))
#define SHIFT_sar(T, n)                                                                                                \
    T r = (T)((s##T)a >> (n));                                                                                         \
    cc_set(v, CC(CC_SHR, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)((s##T)a >> ((n)-1)))

typedef int32_t suint32_t;
typedef int64_t suint64_t;

#define SHIFTS(op, T)                                                                                                  \
    static HANDLER(op_##op##_i_##T)                                                                                    \
    {                                                                                                                  \
        unsigned n = (uint8_t)u->imm;                                                                                  \
        T a = REG(T, u->dst);                                                                                          \
        SHIFT_##op(T, n);                                                                                              \
        PUT_##T(u->dst, r);                                                                                            \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_##op##_cl_##T)                                                                                   \
    {                                                                                                                  \
        unsigned n = v->st.gpr[RCX] & (sizeof(T) * 8 - 1);                                                             \
        T a = REG(T, u->dst);                                                                                          \
        if (unlikely(!n)) {                                                                                            \
            PUT_##T(u->dst, a);                                                                                        \
            NEXT();                                                                                                    \
        }                                                                                                              \
        SHIFT_##op(T, n);                                                                                              \
        PUT_##T(u->dst, r);                                                                                            \
        NEXT();                                                                                                        \
    }

#define BOTH(X, op) X(op, uint32_t) X(op, uint64_t)
BOTH(SHIFTS, shl)
BOTH(SHIFTS, shr)
BOTH(SHIFTS, sar)

/* CF and OF change, the others stay: AF must be known, ZF, SF and PF go on coming from cc_dst. False: fold first. */
ALWAYS_INLINE bool rotate_flags(struct soft_vcpu *v, uint64_t carries)
{
    uint64_t r = v->cc_dst, s = v->cc_src, af = 0;
    unsigned k = 64 - (8u << (v->cc_op >> 8));
    switch ((uint8_t)v->cc_op) {
    case CC_RFLAGS:
        v->st.rflags = (v->st.rflags & ~(RF_CF | RF_OF)) | carries;
        return true;
    case CC_EXPL:
        af = s & RF_AF;
        break;
    case CC_ADD:
        af = ((r - s) ^ r ^ s) >> k & RF_AF;
        break;
    case CC_SUB:
        af = ((r + s) ^ r ^ s) >> k & RF_AF;
        break;
    case CC_LOGIC:
    case CC_SHL:
    case CC_SHR:
        break;
    default:
        return false;
    }
    v->cc_src = carries | af;
    v->cc_op = (v->cc_op & ~0xffu) | CC_EXPL;
    return true;
}

#define ROTATE(T)                                                                                                      \
    static HANDLER(op_rol_i_##T)                                                                                       \
    {                                                                                                                  \
        const unsigned w = sizeof(T) * 8, n = (uint8_t)u->imm;                                                         \
        T a = REG(T, u->dst), r = (T)(a << n | a >> (w - n));                                                          \
        if (unlikely(!rotate_flags(v, (r & 1) | ((r ^ r >> (w - 1)) & 1) << 11)))                                      \
            return uop_fold(v, u);                                                                                     \
        PUT_##T(u->dst, r);                                                                                            \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_ror_i_##T)                                                                                       \
    {                                                                                                                  \
        const unsigned w = sizeof(T) * 8, n = (uint8_t)u->imm;                                                         \
        T a = REG(T, u->dst), r = (T)(a >> n | a << (w - n));                                                          \
        if (unlikely(!rotate_flags(v, r >> (w - 1) | ((r >> (w - 1) ^ r >> (w - 2)) & 1) << 11)))                      \
            return uop_fold(v, u);                                                                                     \
        PUT_##T(u->dst, r);                                                                                            \
        NEXT();                                                                                                        \
    }
ROTATE(uint32_t)
ROTATE(uint64_t)

uop_fn *uop_shift(unsigned op, bool by_cl, unsigned log2)
{
    bool wide = log2 == 3;
    switch (op) {
    case OP_shl:
        return by_cl ? (wide ? op_shl_cl_uint64_t : op_shl_cl_uint32_t)
                     : (wide ? op_shl_i_uint64_t : op_shl_i_uint32_t);
    case OP_shr:
        return by_cl ? (wide ? op_shr_cl_uint64_t : op_shr_cl_uint32_t)
                     : (wide ? op_shr_i_uint64_t : op_shr_i_uint32_t);
    case OP_sar:
        return by_cl ? (wide ? op_sar_cl_uint64_t : op_sar_cl_uint32_t)
                     : (wide ? op_sar_i_uint64_t : op_sar_i_uint32_t);
    case OP_rol:
        return by_cl ? NULL : wide ? op_rol_i_uint64_t : op_rol_i_uint32_t;
    case OP_ror:
        return by_cl ? NULL : wide ? op_ror_i_uint64_t : op_ror_i_uint32_t;
    default:
        return NULL;
    }
}

/* ---- bit tests ---- */

#define BIT_bt(T)  (void)0
#define BIT_bts(T) PUT_##T(u->dst, a | (T)((T)1 << n))
#define BIT_btr(T) PUT_##T(u->dst, a & ~(T)((T)1 << n))
#define BIT_btc(T) PUT_##T(u->dst, a ^ (T)((T)1 << n))

#define BITS(op, T)                                                                                                    \
    static HANDLER(op_##op##_rr_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst);                                                                                          \
        unsigned n = REG(T, u->src) & (sizeof(T) * 8 - 1);                                                             \
        flags_set_cf_keep_zf(v, a >> n & 1);                                                                           \
        BIT_##op(T);                                                                                                   \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_##op##_ri_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst);                                                                                          \
        unsigned n = (uint8_t)u->imm;                                                                                  \
        flags_set_cf_keep_zf(v, a >> n & 1);                                                                           \
        BIT_##op(T);                                                                                                   \
        NEXT();                                                                                                        \
    }
BOTH(BITS, bt)
BOTH(BITS, bts)
BOTH(BITS, btr)
BOTH(BITS, btc)

#define BT_MEM(T) MEM_HANDLER(op_bt_mi_##T, LOAD(T, a) flags_set_cf_keep_zf(v, a >> (uint8_t)u->imm & 1); NEXT();)
BT_MEM(uint32_t)
BT_MEM(uint64_t)

/* ---- scans: ZF by the source (TZCNT: by the result); a zero source leaves BSF's and BSR's destination alone ---- */

#define LOW_uint32_t(a)  ((unsigned)__builtin_ctz(a))
#define LOW_uint64_t(a)  ((unsigned)__builtin_ctzll(a))
#define HIGH_uint32_t(a) (31u - (unsigned)__builtin_clz(a))
#define HIGH_uint64_t(a) (63u - (unsigned)__builtin_clzll(a))

/* EXPL with a result that gives the ZF wanted and nothing else. */
#define ZF_ONLY(zf, cf) cc_set(v, CC(CC_EXPL, 3), (zf) ? 0 : 0x100, cf)

#define SCANS(T)                                                                                                       \
    static HANDLER(op_bsf_rr_##T)                                                                                      \
    {                                                                                                                  \
        T a = REG(T, u->src);                                                                                          \
        ZF_ONLY(!a, 0);                                                                                                \
        if (likely(a))                                                                                                 \
            R64(u->dst) = LOW_##T(a);                                                                                  \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_bsr_rr_##T)                                                                                      \
    {                                                                                                                  \
        T a = REG(T, u->src);                                                                                          \
        ZF_ONLY(!a, 0);                                                                                                \
        if (likely(a))                                                                                                 \
            R64(u->dst) = HIGH_##T(a);                                                                                 \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_tzcnt_rr_##T)                                                                                    \
    {                                                                                                                  \
        T a = REG(T, u->src);                                                                                          \
        unsigned n = a ? LOW_##T(a) : (unsigned)sizeof(T) * 8;                                                         \
        ZF_ONLY(!n, !a);                                                                                               \
        R64(u->dst) = n;                                                                                               \
        NEXT();                                                                                                        \
    }
SCANS(uint32_t)
SCANS(uint64_t)

/* Without the POPCNT instruction: the host need not have it. */
#define POPCNT(T)                                                                                                      \
    static HANDLER(op_popcnt_rr_##T)                                                                                   \
    {                                                                                                                  \
        uint64_t x = REG(T, u->src);                                                                                   \
        flags_put(v, x ? 0 : RF_ZF);                                                                                   \
        x -= x >> 1 & UINT64_C(0x5555555555555555);                                                                    \
        x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));                              \
        x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);                                                             \
        R64(u->dst) = x * UINT64_C(0x0101010101010101) >> 56;                                                          \
        NEXT();                                                                                                        \
    }
POPCNT(uint32_t)
POPCNT(uint64_t)

/* ---- IMUL with two and three operands: CF = OF = the product does not fit ---- */

#define MUL_FLAGS(T, r, wide) cc_set(v, CC(CC_EXPL, LG(T)), (uint64_t)(T)(r) << SHIFT(T), (wide) ? RF_CF | RF_OF : 0)

#define MUL_uint32_t(x, y)                                                                                             \
    int64_t p = (int64_t)(int32_t)(x) * (int32_t)(y);                                                                  \
    MUL_FLAGS(uint32_t, p, p != (int32_t)p);                                                                           \
    R64(u->dst) = (uint32_t)p
#define MUL_uint64_t(x, y)                                                                                             \
    int64_t p;                                                                                                         \
    bool wide = __builtin_mul_overflow((int64_t)(x), (int64_t)(y), &p);                                                \
    MUL_FLAGS(uint64_t, p, wide);                                                                                      \
    R64(u->dst) = (uint64_t)p

#define IMUL(T)                                                                                                        \
    static HANDLER(op_imul2_rr_##T)                                                                                    \
    {                                                                                                                  \
        MUL_##T(REG(T, u->dst), REG(T, u->src));                                                                       \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_imul3_rr_##T)                                                                                    \
    {                                                                                                                  \
        MUL_##T(REG(T, u->src), u->imm);                                                                               \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_imul2_rm_##T, LOAD(T, b) MUL_##T(REG(T, u->dst), b); NEXT();)
IMUL(uint32_t)
IMUL(uint64_t)

#define PAIR(name)                                                                                                     \
    {                                                                                                                  \
        name##_uint32_t, name##_uint64_t                                                                               \
    }
#define BIT_ROW(op) [OP_##op - OP_imul2] = {[FORM_RR] = PAIR(op_##op##_rr), [FORM_RI] = PAIR(op_##op##_ri)}
#define ONE_ROW(op) [OP_##op - OP_imul2] = {[FORM_RR] = PAIR(op_##op##_rr)}

uop_fn *uop_bits(unsigned op, enum uop_form form, unsigned log2)
{
    static uop_fn *const table[OP_popcnt - OP_imul2 + 1][FORM_COUNT][2] = {
        [OP_bt - OP_imul2] = {[FORM_RR] = PAIR(op_bt_rr), [FORM_RI] = PAIR(op_bt_ri), [FORM_MI] = PAIR(op_bt_mi)},
        BIT_ROW(bts),
        BIT_ROW(btr),
        BIT_ROW(btc),
        ONE_ROW(bsf),
        ONE_ROW(bsr),
        ONE_ROW(tzcnt),
        ONE_ROW(popcnt),
        ONE_ROW(imul3),
        [OP_imul2 - OP_imul2] = {[FORM_RR] = PAIR(op_imul2_rr), [FORM_RM] = PAIR(op_imul2_rm)},
    };
    return log2 < 2 ? NULL : table[op - OP_imul2][form][log2 - 2];
}
