/* Two-operand arithmetic and logic, and the one-operand INC, DEC, NEG, NOT: a handler for each operand form and size.
 */
#include "cpu/soft/uop.h"

#define LG(T) LOG2_##T

/* CF as it was. Nothing of the instruction has happened where this stands. */
#define CARRY(c)                                                                                                       \
    const unsigned c = flags_cf_quick(v);                                                                              \
    if (unlikely(c > 1))                                                                                               \
    return uop_fold(v, u)

/* What each operation does with `a` and `b`: declares r, and afterwards sets the flags. */
#define DO_add(T)  T r = (T)(a + b)
#define CC_add(T)  cc_set(v, CC(CC_ADD, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)b << SHIFT(T))
#define DO_sub(T)  T r = (T)(a - b)
#define CC_sub(T)  cc_set(v, CC(CC_SUB, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)b << SHIFT(T))
#define DO_cmp(T)  T r = (T)(a - b)
#define CC_cmp(T)  CC_sub(T)
#define DO_and(T)  T r = a & b
#define CC_and(T)  cc_set(v, CC(CC_LOGIC, LG(T)), (uint64_t)r << SHIFT(T), 0)
#define DO_test(T) T r = a & b
#define CC_test(T) CC_and(T)
#define DO_or(T)   T r = a | b
#define CC_or(T)   CC_and(T)
#define DO_xor(T)  T r = a ^ b
#define CC_xor(T)  CC_and(T)
#define DO_adc(T)                                                                                                      \
    CARRY(c);                                                                                                          \
    T r = (T)(a + b + c)
#define CC_adc(T)                                                                                                      \
    cc_set(v, c ? CC(CC_ADC1, LG(T)) : CC(CC_ADD, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)b << SHIFT(T))
#define DO_sbb(T)                                                                                                      \
    CARRY(c);                                                                                                          \
    T r = (T)(a - b - c)
#define CC_sbb(T)                                                                                                      \
    cc_set(v, c ? CC(CC_SBB1, LG(T)) : CC(CC_SUB, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)b << SHIFT(T))

/* Operations that write their destination. */
#define ALU_WRITE(op, T)                                                                                               \
    static HANDLER(op_##op##_rr_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = REG(T, u->src);                                                                      \
        DO_##op(T);                                                                                                    \
        PUT_##T(u->dst, r);                                                                                            \
        CC_##op(T);                                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_##op##_ri_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = (T)u->imm;                                                                           \
        DO_##op(T);                                                                                                    \
        PUT_##T(u->dst, r);                                                                                            \
        CC_##op(T);                                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_##op##_rm_##T, T a = REG(T, u->dst); LOAD(T, b); DO_##op(T); PUT_##T(u->dst, r); CC_##op(T);        \
                NEXT();)                                                                                               \
    MEM_HANDLER(op_##op##_mr_##T, RMW_LOAD(T, a); T b = REG(T, u->src); DO_##op(T); RMW_STORE(T, r); CC_##op(T);       \
                NEXT_STORED();)                                                                                        \
    MEM_HANDLER(op_##op##_mi_##T, RMW_LOAD(T, a); T b = (T)u->imm; DO_##op(T); RMW_STORE(T, r); CC_##op(T);            \
                NEXT_STORED();)

/* CMP and TEST. */
#define ALU_READ(op, T)                                                                                                \
    static HANDLER(op_##op##_rr_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = REG(T, u->src);                                                                      \
        DO_##op(T);                                                                                                    \
        CC_##op(T);                                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_##op##_ri_##T)                                                                                   \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = (T)u->imm;                                                                           \
        DO_##op(T);                                                                                                    \
        CC_##op(T);                                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_##op##_rm_##T, T a = REG(T, u->dst); LOAD(T, b); DO_##op(T); CC_##op(T); NEXT();)                   \
    MEM_HANDLER(op_##op##_mr_##T, LOAD(T, a); T b = REG(T, u->src); DO_##op(T); CC_##op(T); NEXT();)                   \
    MEM_HANDLER(op_##op##_mi_##T, LOAD(T, a); T b = (T)u->imm; DO_##op(T); CC_##op(T); NEXT();)

#define EACH_SIZE(X, op) X(op, uint8_t) X(op, uint16_t) X(op, uint32_t) X(op, uint64_t)

EACH_SIZE(ALU_WRITE, add)
EACH_SIZE(ALU_WRITE, or)
EACH_SIZE(ALU_WRITE, adc)
EACH_SIZE(ALU_WRITE, sbb)
EACH_SIZE(ALU_WRITE, and)
EACH_SIZE(ALU_WRITE, sub)
EACH_SIZE(ALU_WRITE, xor)
EACH_SIZE(ALU_READ, cmp)
EACH_SIZE(ALU_READ, test)

#define ALU_FORM(op, form)                                                                                             \
    {                                                                                                                  \
        op_##op##_##form##_uint8_t, op_##op##_##form##_uint16_t, op_##op##_##form##_uint32_t,                          \
            op_##op##_##form##_uint64_t                                                                                \
    }
#define ALU_ROW(op)                                                                                                    \
    [OP_##op - OP_add] = {ALU_FORM(op, rr), ALU_FORM(op, ri), ALU_FORM(op, rm), ALU_FORM(op, mr), ALU_FORM(op, mi)}

uop_fn *uop_alu(unsigned op, enum uop_form form, unsigned log2)
{
    static uop_fn *const table[OP_test - OP_add + 1][FORM_COUNT][4] = {
        ALU_ROW(add), ALU_ROW(or),  ALU_ROW(adc), ALU_ROW(sbb),  ALU_ROW(and),
        ALU_ROW(sub), ALU_ROW(xor), ALU_ROW(cmp), ALU_ROW(test),
    };
    return table[op - OP_add][form][log2];
}

/* ---- INC, DEC, NEG, NOT ---- */

#define DO_inc(T)                                                                                                      \
    CARRY(c);                                                                                                          \
    T r = (T)(a + 1)
#define CC_inc(T) cc_set(v, CC(CC_INC, LG(T)), (uint64_t)r << SHIFT(T), c)
#define DO_dec(T)                                                                                                      \
    CARRY(c);                                                                                                          \
    T r = (T)(a - 1)
#define CC_dec(T) cc_set(v, CC(CC_DEC, LG(T)), (uint64_t)r << SHIFT(T), c)
#define DO_neg(T) T r = (T)-a
#define CC_neg(T) cc_set(v, CC(CC_SUB, LG(T)), (uint64_t)r << SHIFT(T), (uint64_t)a << SHIFT(T))
#define DO_not(T) T r = (T)~a
#define CC_not(T) (void)0

#define UNARY(op, T)                                                                                                   \
    static HANDLER(op_##op##_r_##T)                                                                                    \
    {                                                                                                                  \
        T a = REG(T, u->dst);                                                                                          \
        DO_##op(T);                                                                                                    \
        PUT_##T(u->dst, r);                                                                                            \
        CC_##op(T);                                                                                                    \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    MEM_HANDLER(op_##op##_m_##T, RMW_LOAD(T, a); DO_##op(T); RMW_STORE(T, r); CC_##op(T); NEXT_STORED();)

EACH_SIZE(UNARY, inc)
EACH_SIZE(UNARY, dec)
EACH_SIZE(UNARY, neg)
EACH_SIZE(UNARY, not )

#define UNARY_ROW(op) [OP_##op - OP_inc] = {ALU_FORM(op, r), ALU_FORM(op, m)}

uop_fn *uop_unary(unsigned op, bool mem, unsigned log2)
{
    static uop_fn *const table[OP_not - OP_inc + 1][2][4] = {UNARY_ROW(inc), UNARY_ROW(dec), UNARY_ROW(neg),
                                                             UNARY_ROW(not )};
    return table[op - OP_inc][mem][log2];
}
