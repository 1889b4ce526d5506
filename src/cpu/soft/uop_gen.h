/* The generic executor's parts: every operation of the UOP group, for every operand form, size and mode. Slow and
 * complete; the specialised handlers do the frequent forms. */
#ifndef HEC_CPU_SOFT_UOP_GEN_H
#define HEC_CPU_SOFT_UOP_GEN_H

#include "cpu/soft/event.h"
#include "cpu/soft/uop.h"

/* What a pure operation makes of its operands. */
struct alu {
    uint64_t r;        /* result, in the operand's size */
    uint64_t dst, src; /* cc_dst, cc_src */
    uint32_t op;       /* cc_op */
    bool flags;        /* dst, src and op are to be set */
    bool write;        /* r is to be written */
};

/* dst = f(dst, b, c): `a` and `b` have the operand's size, zero-extended; c is shld's and shrd's count, or the
 * accumulator of cmpxchg. Reads flags, changes nothing. */
void alu_compute(const struct soft_vcpu *v, unsigned op, unsigned size, uint64_t a, uint64_t b, uint64_t c,
                 struct alu *o);

static inline void alu_flags(struct soft_vcpu *v, const struct alu *o)
{
    if (o->flags)
        cc_set(v, o->op, o->dst, o->src);
}

/* ZF, SF, PF of `r`, and CF, AF, OF as given. */
static inline void cc_explicit(struct alu *o, unsigned log2, uint64_t r, uint64_t carries)
{
    o->dst = r << (64 - (8u << log2));
    o->src = carries;
    o->op = CC(CC_EXPL, log2);
    o->flags = true;
}

static inline unsigned log2_size(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* One operation on one destination. */
struct rmw {
    unsigned op, size;
    uint64_t b, c;
    uint64_t old; /* out */
    struct alu out;
};

/* Do it atomically at a linear address. False: v->fault. */
bool rmw_locked(struct soft_vcpu *v, struct rmw *m, gva_t gva);
/* Set the flags it makes. */
void rmw_flags(struct soft_vcpu *v, const struct alu *o);

/* Operand as a value: register, memory or immediate. */
bool gen_get(struct soft_vcpu *v, const struct insn *in, const struct opnd *o, uint64_t *val);

exec_fn gen_rmw, gen_compare, gen_bit, gen_mul, gen_div, gen_scan; /* uop_gen.c, uop_gen_math.c */
exec_fn gen_move, gen_xchg, gen_xadd, gen_cmpxchg, gen_flag, gen_other, gen_crc32, gen_adx;
exec_fn gen_push, gen_pop, gen_leave, gen_jump, gen_call, gen_ret, gen_loop, gen_jcc;

#endif
