/* Generic executor: the stack, and near branches, in every mode. SDM 1, "Procedure Calls, Interrupts, and Exceptions".
 */
#include "cpu/soft/uop_gen.h"

/* A near branch's target must be fetchable before anything of the branch happens. */
static bool target_ok(struct soft_vcpu *v, uint64_t rip)
{
    bool ok = (v->mode & MODE_CODE) == CODE64 ? gva_canonical(rip) : rip <= v->st.seg[SEG_CS].limit;
    if (!ok)
        fault_set(v, VEC_GP, true, 0);
    return ok;
}

static enum exec_result go(struct soft_vcpu *v, uint64_t rip)
{
    if (!target_ok(v, rip))
        return EXEC_FAULT;
    v->st.rip = rip;
    return EXEC_JUMP;
}

/* Where a JMP or CALL leads, cut to the operand size. */
static bool target(struct soft_vcpu *v, const struct insn *in, uint64_t *rip)
{
    if (in->src.kind == OPND_IMM)
        *rip = v->next_rip + in->imm;
    else if (!opnd_get(v, in, &in->src, rip))
        return false;
    *rip &= size_mask(in->opsize);
    return true;
}

enum exec_result gen_jump(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t rip;
    return target(v, in, &rip) ? go(v, rip) : EXEC_FAULT;
}

enum exec_result gen_jcc(struct soft_vcpu *v, const struct insn *in)
{
    return flags_cond(v, in->cond) ? gen_jump(v, in) : EXEC_OK;
}

enum exec_result gen_call(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t rip;
    if (!target(v, in, &rip) || !target_ok(v, rip) || !stack_push(v, in->opsize, v->next_rip & size_mask(in->opsize)))
        return EXEC_FAULT;
    v->st.rip = rip;
    return EXEC_JUMP;
}

/* RSP += n at the stack's width. */
static void stack_release(struct soft_vcpu *v, uint64_t n)
{
    uint64_t mask = (v->mode & MODE_CODE) == CODE64 ? ~UINT64_C(0) : v->mode & MODE_SS32 ? 0xffffffff : 0xffff;
    v->st.gpr[RSP] = (v->st.gpr[RSP] & ~mask) | ((v->st.gpr[RSP] + n) & mask);
}

enum exec_result gen_ret(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t rip, rsp = v->st.gpr[RSP];
    if (!stack_pop(v, in->opsize, &rip))
        return EXEC_FAULT;
    if (!target_ok(v, rip)) {
        v->st.gpr[RSP] = rsp;
        return EXEC_FAULT;
    }
    if (in->src.kind == OPND_IMM)
        stack_release(v, in->imm);
    v->st.rip = rip;
    return EXEC_JUMP;
}

/* LOOP, LOOPE, LOOPNE, JCXZ: rCX has the address size; it is written only if the branch can be taken. */
enum exec_result gen_loop(struct soft_vcpu *v, const struct insn *in)
{
    struct opnd count = {.kind = OPND_REG, .size = in->addrsize, .reg = RCX};
    uint64_t n, rip = 0;
    opnd_get(v, in, &count, &n);
    bool taken = in->op == OP_jcxz ? !n : n != 1;
    if (in->op == OP_loope || in->op == OP_loopne)
        taken = taken && flags_cond(v, 4) == (in->op == OP_loope);
    if (taken && (!target(v, in, &rip) || !target_ok(v, rip)))
        return EXEC_FAULT;
    if (in->op != OP_jcxz)
        opnd_put(v, in, &count, (n - 1) & size_mask(count.size));
    if (!taken)
        return EXEC_OK;
    v->st.rip = rip;
    return EXEC_JUMP;
}

enum exec_result gen_push(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val;
    if (in->src.kind == OPND_IMM)
        val = in->imm & size_mask(in->opsize);
    else if (!opnd_get(v, in, &in->src, &val))
        return EXEC_FAULT;
    return stack_push(v, in->opsize, val) ? EXEC_OK : EXEC_FAULT;
}

/* A memory destination based on rSP is addressed with the popped rSP; if it faults, rSP is as before. */
enum exec_result gen_pop(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val, rsp = v->st.gpr[RSP];
    if (!stack_pop(v, in->opsize, &val))
        return EXEC_FAULT;
    if (opnd_put(v, in, &in->dst, val))
        return EXEC_OK;
    v->st.gpr[RSP] = rsp;
    return EXEC_FAULT;
}

enum exec_result gen_leave(struct soft_vcpu *v, const struct insn *in)
{
    struct opnd bp = {.kind = OPND_REG, .size = in->opsize, .reg = RBP};
    uint64_t val, rsp = v->st.gpr[RSP];
    stack_release(v, v->st.gpr[RBP] - rsp);
    if (!stack_pop(v, in->opsize, &val)) {
        v->st.gpr[RSP] = rsp;
        return EXEC_FAULT;
    }
    opnd_put(v, in, &bp, val);
    return EXEC_OK;
}

/* ---- the table of all operations ---- */

/* PAUSE is a uop of its own; outside of one it only counts. */
static enum exec_result gen_pause(struct soft_vcpu *v, const struct insn *in)
{
    v->pauses++;
    return EXEC_OK;
}

/* Left to itself clang-format indents each entry further than the last. */
/* clang-format off */
#define GEN_TABLE                                                                                                      \
    G(add, rmw) G(or, rmw) G(adc, rmw) G(sbb, rmw) G(and, rmw) G(sub, rmw) G(xor, rmw) G(cmp, compare)                 \
    G(test, compare) G(mov, move) G(xchg, xchg) G(xadd, xadd) G(cmpxchg, cmpxchg) G(inc, rmw) G(dec, rmw) G(neg, rmw)  \
    G(not, rmw) G(mul, mul) G(imul1, mul) G(imul2, mul) G(imul3, mul) G(div, div) G(idiv, div) G(rol, rmw)             \
    G(ror, rmw) G(rcl, rmw) G(rcr, rmw) G(shl, rmw) G(shr, rmw) G(sar, rmw) G(shld, rmw) G(shrd, rmw) G(bt, bit)       \
    G(bts, bit) G(btr, bit) G(btc, bit) G(bsf, scan) G(bsr, scan) G(tzcnt, scan) G(lzcnt, scan) G(popcnt, scan)        \
    G(bswap, move) G(movbe, move) G(movzx, move) G(movsx, move) G(lea, move) G(cbw, move) G(cwd, move) G(setcc, move)  \
    G(cmovcc, move) G(jcc, jcc) G(jmp, jump) G(call, call) G(ret, ret) G(loop, loop) G(loope, loop) G(loopne, loop)    \
    G(jcxz, loop) G(push, push) G(pop, pop) G(leave, leave) G(lahf, flag) G(sahf, flag) G(clc, flag) G(stc, flag)      \
    G(cmc, flag) G(cld, flag) G(std, flag) G(nop, other) G(pause, pause) G(crc32, crc32) G(adcx, adx) G(adox, adx)     \
    G(movnti, move) G(lfence, other) G(mfence, other) G(sfence, other)
/* clang-format on */

exec_fn *exec_of(unsigned op)
{
    static exec_fn *const table[OP_COUNT] = {
#define G(id, fn) [OP_##id] = gen_##fn,
        GEN_TABLE
#undef G
#define EXEC_ENTRY_UOP(id)
#define EXEC_ENTRY_STR(id) [OP_##id] = exec_##id,
#define EXEC_ENTRY_BCD(id) [OP_##id] = exec_##id,
#define EXEC_ENTRY_FAR(id) [OP_##id] = exec_##id,
#define EXEC_ENTRY_SYS(id) [OP_##id] = exec_##id,
#define EXEC_ENTRY_SSE(id) [OP_##id] = exec_##id,
#define EXEC_ENTRY_X87(id) [OP_##id] = exec_##id,
#define OP(id, group)      EXEC_ENTRY_##group(id)
#include "cpu/soft/ops.def"
#undef OP
    };
    return table[op];
}
