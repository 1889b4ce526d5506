/* LOCKed operations and XCHG with memory, straight on guest RAM when the TLB has the page and the operand lies within
 * one cache line; any other case leaves for the slow twin, which asks lin_atomic() or stops the machine. SDM 3A,
 * "Locked Atomic Operations". */
#include "cpu/soft/uop_gen.h"

#define LG(T) LOG2_##T

/* The same operation in every case. b: the source operand. */
COLD static const struct uop *locked_slow(struct soft_vcpu *v, const struct uop *u, unsigned op, unsigned size,
                                          uint64_t b)
{
    struct rmw m = {.op = op, .size = size, .b = b & size_mask(size), .c = v->st.gpr[RAX] & size_mask(size)};
    if (!uop_address(v, u, size, ACC_WRITE))
        return uop_fault(v, u);
    v->block_left = u->left;
    if (!rmw_locked(v, &m, v->tmp))
        return uop_mem_fault(v, u);
    if (op == OP_xchg || op == OP_xadd)
        R64(u->src) = m.old;
    else if (op == OP_cmpxchg && m.old != m.c)
        v->st.gpr[RAX] = m.old;
    rmw_flags(v, &m.out);
    if (unlikely(v->smc))
        return uop_done(v, u);
    NEXT();
}

/* `p`: the operand in host memory. */
#define LOCKED(name, T, source, op, ...)                                                                               \
    COLD static HANDLER(name##_slow_##T)                                                                               \
    {                                                                                                                  \
        return locked_slow(v, u, op, sizeof(T), source);                                                               \
    }                                                                                                                  \
    static HANDLER(name##_##T)                                                                                         \
    {                                                                                                                  \
        uint64_t gva = EA_FLAT();                                                                                      \
        PROBE(e, off, w, gva);                                                                                         \
        if (unlikely(u->aflags & AF_SLOW) || !HIT(off, T) || unlikely((gva & 63) + sizeof(T) > 64))                    \
            return name##_slow_##T(v, u);                                                                              \
        guest_##T *p = (guest_##T *)(e->host + off);                                                                   \
        T b = (T)(source);                                                                                             \
        (void)b;                                                                                                       \
        __VA_ARGS__                                                                                                    \
        NEXT();                                                                                                        \
    }

typedef guest_u32 guest_uint32_t;
typedef guest_u64 guest_uint64_t;

#define UP(T, x)     ((uint64_t)(T)(x) << SHIFT(T))
#define REGISTER(T)  REG(T, u->src)
#define IMMEDIATE(T) u->imm
#define NOTHING(T)   0

#define MAKE_ARITH(form, T, source)                                                                                    \
    LOCKED(op_add_##form, T, source(T), OP_add, T r = (T)(__atomic_fetch_add(p, b, __ATOMIC_SEQ_CST) + b);             \
           cc_set(v, CC(CC_ADD, LG(T)), UP(T, r), UP(T, b));)                                                          \
    LOCKED(op_sub_##form, T, source(T), OP_sub, T r = (T)(__atomic_fetch_sub(p, b, __ATOMIC_SEQ_CST) - b);             \
           cc_set(v, CC(CC_SUB, LG(T)), UP(T, r), UP(T, b));)                                                          \
    LOCKED(op_and_##form, T, source(T), OP_and, T r = __atomic_and_fetch(p, b, __ATOMIC_SEQ_CST);                      \
           cc_set(v, CC(CC_LOGIC, LG(T)), UP(T, r), 0);)                                                               \
    LOCKED(op_or_##form, T, source(T), OP_or, T r = __atomic_or_fetch(p, b, __ATOMIC_SEQ_CST);                         \
           cc_set(v, CC(CC_LOGIC, LG(T)), UP(T, r), 0);)                                                               \
    LOCKED(op_xor_##form, T, source(T), OP_xor, T r = __atomic_xor_fetch(p, b, __ATOMIC_SEQ_CST);                      \
           cc_set(v, CC(CC_LOGIC, LG(T)), UP(T, r), 0);)

#define CARRY(T, name)                                                                                                 \
    unsigned c = flags_cf_quick(v);                                                                                    \
    if (unlikely(c > 1))                                                                                               \
        return uop_fold(v, u);

#define MAKE_BITS(T)                                                                                                   \
    LOCKED(op_bts_mi, T, u->imm, OP_bts, T old = __atomic_fetch_or(p, (T)((T)1 << b), __ATOMIC_SEQ_CST);               \
           flags_set_cf_keep_zf(v, old >> b & 1);)                                                                     \
    LOCKED(op_btr_mi, T, u->imm, OP_btr, T old = __atomic_fetch_and(p, (T) ~((T)1 << b), __ATOMIC_SEQ_CST);            \
           flags_set_cf_keep_zf(v, old >> b & 1);)                                                                     \
    LOCKED(op_btc_mi, T, u->imm, OP_btc, T old = __atomic_fetch_xor(p, (T)((T)1 << b), __ATOMIC_SEQ_CST);              \
           flags_set_cf_keep_zf(v, old >> b & 1);)

#define MAKE_OTHER(T)                                                                                                  \
    LOCKED(op_inc_mi, T, 0, OP_inc, CARRY(T, c) T r = __atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST);                      \
           cc_set(v, CC(CC_INC, LG(T)), UP(T, r), c);)                                                                 \
    LOCKED(op_dec_mi, T, 0, OP_dec, CARRY(T, c) T r = __atomic_sub_fetch(p, 1, __ATOMIC_SEQ_CST);                      \
           cc_set(v, CC(CC_DEC, LG(T)), UP(T, r), c);)                                                                 \
    LOCKED(op_xchg_mr, T, REG(T, u->src), OP_xchg, R64(u->src) = __atomic_exchange_n(p, b, __ATOMIC_SEQ_CST);)         \
    LOCKED(op_xadd_mr, T, REG(T, u->src), OP_xadd, T old = __atomic_fetch_add(p, b, __ATOMIC_SEQ_CST);                 \
           R64(u->src) = old; cc_set(v, CC(CC_ADD, LG(T)), UP(T, old + b), UP(T, b));)                                 \
    LOCKED(op_cmpxchg_mr, T, REG(T, u->src), OP_cmpxchg, T acc = (T)v->st.gpr[RAX], old = acc;                         \
           if (!__atomic_compare_exchange_n(p, &old, b, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) v->st.gpr[RAX] =   \
               old;                                                                                                    \
           cc_set(v, CC(CC_SUB, LG(T)), UP(T, acc - old), UP(T, old));)

MAKE_ARITH(mr, uint32_t, REGISTER)
MAKE_ARITH(mr, uint64_t, REGISTER)
MAKE_ARITH(mi, uint32_t, IMMEDIATE)
MAKE_ARITH(mi, uint64_t, IMMEDIATE)
MAKE_BITS(uint32_t)
MAKE_BITS(uint64_t)
MAKE_OTHER(uint32_t)
MAKE_OTHER(uint64_t)

#define PAIR(name)                                                                                                     \
    {                                                                                                                  \
        name##_uint32_t, name##_uint64_t                                                                               \
    }
#define BOTH(op)     [OP_##op] = {PAIR(op_##op##_mr), PAIR(op_##op##_mi)}
#define IMM(op)      [OP_##op] = {{NULL, NULL}, PAIR(op_##op##_mi)}
#define ONLY_REG(op) [OP_##op] = {PAIR(op_##op##_mr), {NULL, NULL}}

uop_fn *uop_locked(unsigned op, enum uop_form form, unsigned log2)
{
    static uop_fn *const table[OP_btc + 1][2][2] = {
        BOTH(add), BOTH(sub), BOTH(and), BOTH(or),       BOTH(xor),      IMM(bts),          IMM(btr),
        IMM(btc),  IMM(inc),  IMM(dec),  ONLY_REG(xchg), ONLY_REG(xadd), ONLY_REG(cmpxchg),
    };
    return log2 < 2 || op > OP_btc ? NULL : table[op][form == FORM_MI][log2 - 2];
}
