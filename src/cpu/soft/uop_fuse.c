/* A flag-setting uop and the Jcc behind it in one handler. The flags are left as the first would leave them; the branch
 * is decided on the operands. u is the first uop, u + 1 the Jcc (taken), u + 2 the block's end (not taken). */
#include "cpu/soft/uop_jump.h"

#define LG(T)    LOG2_##T
#define UP(T, x) ((uint64_t)(x) << SHIFT(T))

#define BRANCH(yes)                                                                                                    \
    do {                                                                                                               \
        if (yes)                                                                                                       \
            GO_LINK(u + 1);                                                                                            \
        GO_LINK(u + 2);                                                                                                \
    } while (0)

#define END_cmp(T, cc)                                                                                                 \
    do {                                                                                                               \
        uint64_t x = UP(T, a), y = UP(T, b);                                                                           \
        cc_set(v, CC(CC_SUB, LG(T)), x - y, y);                                                                        \
        BRANCH(cond_sub(cc, x, y));                                                                                    \
    } while (0)

#define END_test(T, cc)                                                                                                \
    do {                                                                                                               \
        uint64_t x = UP(T, a & b);                                                                                     \
        cc_set(v, CC(CC_LOGIC, LG(T)), x, 0);                                                                          \
        BRANCH(cond_logic(cc, x));                                                                                     \
    } while (0)

#define FUSED(op, cc, T)                                                                                               \
    static HANDLER(op_##op##_##cc##_rr_##T)                                                                            \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = REG(T, u->src);                                                                      \
        END_##op(T, cc);                                                                                               \
    }                                                                                                                  \
    static HANDLER(op_##op##_##cc##_ri_##T)                                                                            \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = (T)u->imm;                                                                           \
        END_##op(T, cc);                                                                                               \
    }                                                                                                                  \
    MEM_HANDLER(op_##op##_##cc##_rm_##T, T a = REG(T, u->dst); LOAD(T, b) END_##op(T, cc);)                            \
    MEM_HANDLER(op_##op##_##cc##_mr_##T, LOAD(T, a) T b = REG(T, u->src); END_##op(T, cc);)                            \
    MEM_HANDLER(op_##op##_##cc##_mi_##T, LOAD(T, a) T b = (T)u->imm; END_##op(T, cc);)

/* Writers of a register: ADD, SUB, AND, OR with S and Z conditions, whose result says all, and SUB with any. */
#define END_sub(T, cc)                                                                                                 \
    do {                                                                                                               \
        uint64_t x = UP(T, a), y = UP(T, b);                                                                           \
        PUT_##T(u->dst, (T)(a - b));                                                                                   \
        cc_set(v, CC(CC_SUB, LG(T)), x - y, y);                                                                        \
        BRANCH(cond_sub(cc, x, y));                                                                                    \
    } while (0)
#define END_add(T, cc)                                                                                                 \
    do {                                                                                                               \
        T r = (T)(a + b);                                                                                              \
        PUT_##T(u->dst, r);                                                                                            \
        cc_set(v, CC(CC_ADD, LG(T)), UP(T, r), UP(T, b));                                                              \
        BRANCH(cc >> 1 == 1 ? (r < b) != (cc & 1) : cond_logic(cc, UP(T, r)));                                         \
    } while (0)
#define END_and(T, cc)                                                                                                 \
    do {                                                                                                               \
        T r = a & b;                                                                                                   \
        PUT_##T(u->dst, r);                                                                                            \
        cc_set(v, CC(CC_LOGIC, LG(T)), UP(T, r), 0);                                                                   \
        BRANCH(cond_logic(cc, UP(T, r)));                                                                              \
    } while (0)

#define WRITER(op, cc, T)                                                                                              \
    static HANDLER(op_##op##_##cc##_rr_##T)                                                                            \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = REG(T, u->src);                                                                      \
        END_##op(T, cc);                                                                                               \
    }                                                                                                                  \
    static HANDLER(op_##op##_##cc##_ri_##T)                                                                            \
    {                                                                                                                  \
        T a = REG(T, u->dst), b = (T)u->imm;                                                                           \
        END_##op(T, cc);                                                                                               \
    }

#define ONE(op, cc, T)                                                                                                 \
    static HANDLER(op_##op##_##cc##_rr_##T)                                                                            \
    {                                                                                                                  \
        T r = (T)(REG(T, u->dst) ONE_##op);                                                                            \
        unsigned c = flags_cf_quick(v);                                                                                \
        if (unlikely(c > 1))                                                                                           \
            return uop_fold(v, u);                                                                                     \
        PUT_##T(u->dst, r);                                                                                            \
        cc_set(v, CC(KIND_##op, LG(T)), UP(T, r), c);                                                                  \
        BRANCH(cond_logic(cc, UP(T, r)));                                                                              \
    }
#define ONE_inc  +1
#define ONE_dec  -1
#define KIND_inc CC_INC
#define KIND_dec CC_DEC

/* SHR and friends by a constant, then Z or NZ. */
#define SHIFTED(op, cc, T)                                                                                             \
    static HANDLER(op_##op##_##cc##_ri_##T)                                                                            \
    {                                                                                                                  \
        unsigned n = (uint8_t)u->imm;                                                                                  \
        T a = REG(T, u->dst), r = (T)(a >> n);                                                                         \
        PUT_##T(u->dst, r);                                                                                            \
        cc_set(v, CC(CC_SHR, LG(T)), UP(T, r), (uint64_t)(a >> (n - 1)));                                              \
        BRANCH(cond_logic(cc, UP(T, r)));                                                                              \
    }

#define BIT_TEST(op, cc, T)                                                                                            \
    static HANDLER(op_##op##_##cc##_rr_##T)                                                                            \
    {                                                                                                                  \
        bool c = REG(T, u->dst) >> (REG(T, u->src) & (sizeof(T) * 8 - 1)) & 1;                                         \
        flags_set_cf_keep_zf(v, c);                                                                                    \
        BRANCH(c != (cc & 1));                                                                                         \
    }                                                                                                                  \
    static HANDLER(op_##op##_##cc##_ri_##T)                                                                            \
    {                                                                                                                  \
        bool c = REG(T, u->dst) >> (uint8_t)u->imm & 1;                                                                \
        flags_set_cf_keep_zf(v, c);                                                                                    \
        BRANCH(c != (cc & 1));                                                                                         \
    }                                                                                                                  \
    MEM_HANDLER(op_##op##_##cc##_mi_##T, LOAD(T, a) bool c = a >> (uint8_t)u->imm & 1; flags_set_cf_keep_zf(v, c);     \
                BRANCH(c != (cc & 1));)

/* The conditions compilers use after each. */
#define CCS_cmp(X, op, T)                                                                                              \
    X(op, 2, T)                                                                                                        \
    X(op, 3, T)                                                                                                        \
    X(op, 4, T)                                                                                                        \
    X(op, 5, T) X(op, 6, T) X(op, 7, T) X(op, 8, T) X(op, 9, T) X(op, 12, T) X(op, 13, T) X(op, 14, T) X(op, 15, T)
#define CCS_test(X, op, T) X(op, 4, T) X(op, 5, T) X(op, 8, T) X(op, 9, T) X(op, 14, T) X(op, 15, T)
#define CCS_sub(X, op, T)                                                                                              \
    X(op, 2, T) X(op, 3, T) X(op, 4, T) X(op, 5, T) X(op, 6, T) X(op, 7, T) X(op, 8, T) X(op, 9, T)
#define CCS_add(X, op, T) X(op, 2, T) X(op, 3, T) X(op, 4, T) X(op, 5, T) X(op, 8, T) X(op, 9, T)
#define CCS_zs(X, op, T)  X(op, 4, T) X(op, 5, T) X(op, 8, T) X(op, 9, T)
#define CCS_z(X, op, T)   X(op, 4, T) X(op, 5, T)
#define CCS_c(X, op, T)   X(op, 2, T) X(op, 3, T)

CCS_cmp(FUSED, cmp, uint8_t) CCS_cmp(FUSED, cmp, uint16_t) CCS_cmp(FUSED, cmp, uint32_t) CCS_cmp(FUSED, cmp, uint64_t)
    CCS_test(FUSED, test, uint8_t) CCS_test(FUSED, test, uint16_t) CCS_test(FUSED, test, uint32_t)
        CCS_test(FUSED, test, uint64_t) CCS_sub(WRITER, sub, uint32_t) CCS_sub(WRITER, sub, uint64_t)
            CCS_add(WRITER, add, uint32_t) CCS_add(WRITER, add, uint64_t) CCS_zs(WRITER, and, uint8_t)
                CCS_zs(WRITER, and, uint32_t) CCS_zs(WRITER, and, uint64_t) CCS_zs(ONE, inc, uint32_t)
                    CCS_zs(ONE, inc, uint64_t) CCS_zs(ONE, dec, uint32_t) CCS_zs(ONE, dec, uint64_t)
                        CCS_z(SHIFTED, shr, uint32_t) CCS_z(SHIFTED, shr, uint64_t) CCS_c(BIT_TEST, bt, uint32_t)
                            CCS_c(BIT_TEST, bt, uint64_t)

#define CASE(op, form, cc, T) ((OP_##op << 12) | (FORM_##form << 8) | (LG(T) << 4) | (cc))
#define ENTRY(op, form, FORM, cc, T)                                                                                   \
    case CASE(op, FORM, cc, T):                                                                                        \
        return op_##op##_##cc##_##form##_##T;
#define FUSED_ENTRIES(op, cc, T)                                                                                       \
    ENTRY(op, rr, RR, cc, T)                                                                                           \
    ENTRY(op, ri, RI, cc, T) ENTRY(op, rm, RM, cc, T) ENTRY(op, mr, MR, cc, T) ENTRY(op, mi, MI, cc, T)
#define WRITER_ENTRIES(op, cc, T) ENTRY(op, rr, RR, cc, T) ENTRY(op, ri, RI, cc, T)
#define ONE_ENTRIES(op, cc, T)    ENTRY(op, rr, RR, cc, T)
#define SHIFT_ENTRIES(op, cc, T)  ENTRY(op, ri, RI, cc, T)
#define BIT_ENTRIES(op, cc, T)    ENTRY(op, rr, RR, cc, T) ENTRY(op, ri, RI, cc, T) ENTRY(op, mi, MI, cc, T)

                                uop_fn *uop_fused(unsigned op, enum uop_form form, unsigned log2, unsigned cond)
{
    switch (op << 12 | form << 8 | log2 << 4 | cond) {
        CCS_cmp(FUSED_ENTRIES, cmp, uint8_t) CCS_cmp(FUSED_ENTRIES, cmp, uint16_t) CCS_cmp(FUSED_ENTRIES, cmp, uint32_t)
            CCS_cmp(FUSED_ENTRIES, cmp, uint64_t) CCS_test(FUSED_ENTRIES, test, uint8_t)
                CCS_test(FUSED_ENTRIES, test, uint16_t) CCS_test(FUSED_ENTRIES, test, uint32_t)
                    CCS_test(FUSED_ENTRIES, test, uint64_t) CCS_sub(WRITER_ENTRIES, sub, uint32_t)
                        CCS_sub(WRITER_ENTRIES, sub, uint64_t) CCS_add(WRITER_ENTRIES, add, uint32_t)
                            CCS_add(WRITER_ENTRIES, add, uint64_t) CCS_zs(WRITER_ENTRIES, and, uint8_t)
                                CCS_zs(WRITER_ENTRIES, and, uint32_t) CCS_zs(WRITER_ENTRIES, and, uint64_t)
                                    CCS_zs(ONE_ENTRIES, inc, uint32_t) CCS_zs(ONE_ENTRIES, inc, uint64_t)
                                        CCS_zs(ONE_ENTRIES, dec, uint32_t) CCS_zs(ONE_ENTRIES, dec, uint64_t)
                                            CCS_z(SHIFT_ENTRIES, shr, uint32_t) CCS_z(SHIFT_ENTRIES, shr, uint64_t)
                                                CCS_c(BIT_ENTRIES, bt, uint32_t)
                                                    CCS_c(BIT_ENTRIES, bt, uint64_t) default : return NULL;
    }
}
