/* Near branches of 64-bit and flat 32-bit code, SETcc and CMOVcc. */
#include "cpu/soft/uop_jump.h"

#include "cpu/soft/event.h"

/* Past the block's last instruction. */
HANDLER(op_end)
{
    GO_LINK(u);
}

HANDLER(op_jmp)
{
    GO_LINK(u);
}

#define NEXT_RIP()   (v->rip_bias + u->off + u->len)
#define TARGET_RIP() rip_wrap(v, NEXT_RIP() + (uint64_t)(int64_t)u->disp)

HANDLER(op_jmp_far)
{
    GO_RIP(TARGET_RIP());
}

/* SDM 2, "JMP", "CALL" and "RET": a non-canonical target is the branch's own #GP(0), before anything has changed. */
COLD static const struct uop *bad_target(struct soft_vcpu *v, const struct uop *u)
{
    fault_set(v, VEC_GP, true, 0);
    return uop_fault(v, u);
}

#define CHECK_TARGET(rip)                                                                                              \
    if (unlikely(!gva_canonical(rip)))                                                                                 \
    return bad_target(v, u)

HANDLER(op_jmp_reg)
{
    uint64_t rip = R64(u->src);
    CHECK_TARGET(rip);
    GO_RIP(rip);
}

/* Its fault is the stack's, whatever segment the instruction's own operand is in. */
#define PUSH_RIP()                                                                                                     \
    uint64_t sp = v->st.gpr[RSP] - 8, back = NEXT_RIP();                                                               \
    uint8_t *top_ = tlb_write(v, sp, 8);                                                                               \
    if (likely(top_ != NULL)) {                                                                                        \
        ST(uint64_t, top_, back);                                                                                      \
    } else {                                                                                                           \
        if (!SLOW)                                                                                                     \
            return slow(v, u);                                                                                         \
        if (!uop_store_slow(v, u, sp, 8, back))                                                                        \
            return uop_stack_fault(v, u);                                                                              \
    }                                                                                                                  \
    v->st.gpr[RSP] = sp;

/* A call and its like have left this block anyway when a store was to hit it. */
#define MEM_BRANCH(name, ...)                                                                                          \
    MEM_HANDLER(name##_body, __VA_ARGS__)                                                                              \
    HANDLER(name)                                                                                                      \
    {                                                                                                                  \
        return name##_body(v, u);                                                                                      \
    }

MEM_BRANCH(op_jmp_mem, LOAD(uint64_t, rip) CHECK_TARGET(rip); GO_RIP(rip);)
MEM_BRANCH(op_call, PUSH_RIP() GO_RIP(back + (uint64_t)(int64_t)u->disp);)
MEM_BRANCH(op_call_reg, uint64_t rip = R64(u->src); CHECK_TARGET(rip); PUSH_RIP() GO_RIP(rip);)
MEM_BRANCH(op_call_mem, LOAD(uint64_t, rip) CHECK_TARGET(rip); PUSH_RIP() GO_RIP(rip);)
MEM_BRANCH(op_ret, uint64_t sp = v->st.gpr[RSP]; LOAD_AT(uint64_t, rip, sp) CHECK_TARGET(rip); v->st.gpr[RSP] = sp + 8;
           GO_RIP(rip);)
MEM_BRANCH(op_ret_imm, uint64_t sp = v->st.gpr[RSP]; LOAD_AT(uint64_t, rip, sp) CHECK_TARGET(rip);
           v->st.gpr[RSP] = sp + 8 + u->imm; GO_RIP(rip);)

/* ---- conditions ---- */

#define EACH_CC(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

COLD static HANDLER(op_jcc_ask)
{
    if (flags_cond(v, u->src))
        GO_LINK(u);
    NEXT();
}

COLD static HANDLER(op_setcc_ask)
{
    PUT_uint8_t(u->dst, flags_cond(v, u->src));
    NEXT();
}

COLD static HANDLER(op_cmov4_ask)
{
    R64(u->dst) = flags_cond(v, u->scale) ? REG(uint32_t, u->src) : REG(uint32_t, u->dst);
    NEXT();
}

COLD static HANDLER(op_cmov8_ask)
{
    if (flags_cond(v, u->scale))
        R64(u->dst) = R64(u->src);
    NEXT();
}

/* Not taken: the end uop behind is entered here, not through NEXT(). */
#define JCC(cc)                                                                                                        \
    static HANDLER(op_jcc_##cc)                                                                                        \
    {                                                                                                                  \
        enum cond_known k = cond_quick(v, cc);                                                                         \
        if (unlikely(k == COND_ASK))                                                                                   \
            return op_jcc_ask(v, u);                                                                                   \
        if (k)                                                                                                         \
            GO_LINK(u);                                                                                                \
        GO_LINK(u + 1);                                                                                                \
    }                                                                                                                  \
    static HANDLER(op_setcc_##cc)                                                                                      \
    {                                                                                                                  \
        enum cond_known k = cond_quick(v, cc);                                                                         \
        if (unlikely(k == COND_ASK))                                                                                   \
            return op_setcc_ask(v, u);                                                                                 \
        PUT_uint8_t(u->dst, k);                                                                                        \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_cmov4_##cc)                                                                                      \
    {                                                                                                                  \
        enum cond_known k = cond_quick(v, cc);                                                                         \
        if (unlikely(k == COND_ASK))                                                                                   \
            return op_cmov4_ask(v, u);                                                                                 \
        R64(u->dst) = REG(uint32_t, k ? u->src : u->dst);                                                              \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    static HANDLER(op_cmov8_##cc)                                                                                      \
    {                                                                                                                  \
        enum cond_known k = cond_quick(v, cc);                                                                         \
        if (unlikely(k == COND_ASK))                                                                                   \
            return op_cmov8_ask(v, u);                                                                                 \
        R64(u->dst) = R64(k ? u->src : u->dst);                                                                        \
        NEXT();                                                                                                        \
    }
EACH_CC(JCC)

#define JCC_ROW(cc)   op_jcc_##cc,
#define SETCC_ROW(cc) op_setcc_##cc,
#define CMOV4_ROW(cc) op_cmov4_##cc,
#define CMOV8_ROW(cc) op_cmov8_##cc,

uop_fn *uop_cond(unsigned op, bool mem, unsigned log2, unsigned cond)
{
    static uop_fn *const jcc[16] = {EACH_CC(JCC_ROW)}, *const setcc[16] = {EACH_CC(SETCC_ROW)};
    static uop_fn *const cmov[2][16] = {{EACH_CC(CMOV4_ROW)}, {EACH_CC(CMOV8_ROW)}};
    if (mem)
        return NULL;
    if (op == OP_jcc)
        return jcc[cond];
    if (op == OP_setcc)
        return setcc[cond];
    return log2 >= 2 ? cmov[log2 - 2][cond] : NULL;
}
