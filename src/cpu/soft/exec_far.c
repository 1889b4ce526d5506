/* Flags, software interrupts, segment registers and their bases: the near half of the FAR group. SDM 2, by mnemonic. */
#include "cpu/soft/far.h"

void far_load_flags(struct soft_vcpu *v, uint64_t rflags)
{
    bool rises = !(v->st.rflags & RF_IF) && (rflags & RF_IF);
    flags_load(v, rflags);
    if (rises && v->irq_waiting)
        attn_self(v);
}

enum exec_result far_jump(struct soft_vcpu *v, const struct cpu_segment *cs, uint64_t rip)
{
    v->st.seg[SEG_CS] = *cs;
    v->st.rip = rip;
    mode_update(v);
    return EXEC_JUMP;
}

/* ---- flags ---- */

/* Virtual-8086 mode without VME: PUSHF, POPF, INT n, CLI and STI want IOPL 3. */
static bool v86_denied(const struct soft_vcpu *v)
{
    return in_v86(v) && iopl(v) < 3;
}

enum exec_result exec_pushf(struct soft_vcpu *v, const struct insn *in)
{
    if (v86_denied(v))
        return exec_fault_err(v, VEC_GP, 0);
    return stack_push(v, in->opsize, flags_get(v) & ~(RF_VM | RF_RF)) ? EXEC_OK : EXEC_FAULT;
}

/* Flags a POPF may change at this CPL. */
static uint64_t popf_mask(const struct soft_vcpu *v, unsigned size)
{
    uint64_t can = RF_ARITH | RF_TF | RF_DF | RF_NT | RF_AC | RF_ID;
    if (cpl(v) <= iopl(v))
        can |= RF_IF;
    if (cpl(v) == 0)
        can |= RF_IOPL;
    return can & size_mask(size);
}

/* The block goes on unless the change asks for single steps, alignment checks or a waiting interrupt. */
enum exec_result exec_popf(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t val, can = popf_mask(v, in->opsize);
    if (v86_denied(v))
        return exec_fault_err(v, VEC_GP, 0);
    if (!stack_pop(v, in->opsize, &val))
        return EXEC_FAULT;
    uint64_t old = flags_get(v), now = (old & ~can & ~RF_RF) | (val & can);
    far_load_flags(v, now);
    if ((old ^ now) & (RF_TF | RF_AC)) {
        mode_update(v);
        return EXEC_END;
    }
    return (now & ~old & RF_IF) ? EXEC_END : EXEC_OK;
}

enum exec_result exec_cli(struct soft_vcpu *v, const struct insn *in)
{
    if (in_protected(v) && cpl(v) > iopl(v))
        return exec_fault_err(v, VEC_GP, 0);
    v->st.rflags &= ~RF_IF;
    return EXEC_OK;
}

/* Interrupts are taken between blocks. If none waits and another instruction of this block follows, that one runs
 * before any is taken, which is all a shadow promises. */
static bool shadow_is_free(const struct soft_vcpu *v)
{
    return v->block_left > 1 && !v->irq_waiting && !atomic_load_explicit(&v->attn, memory_order_relaxed);
}

enum exec_result exec_sti(struct soft_vcpu *v, const struct insn *in)
{
    if (in_protected(v) && cpl(v) > iopl(v))
        return exec_fault_err(v, VEC_GP, 0);
    if (v->st.rflags & RF_IF)
        return EXEC_OK;
    v->st.rflags |= RF_IF;
    if (shadow_is_free(v))
        return EXEC_OK;
    v->st.int_shadow = 1;
    if (v->irq_waiting)
        attn_self(v);
    return EXEC_END;
}

/* ---- software interrupts ---- */

static enum exec_result soft_int(struct soft_vcpu *v, unsigned kind, uint8_t vector)
{
    v->fault = (struct fault){.kind = (uint8_t)kind, .vector = vector};
    return EXEC_FAULT;
}

enum exec_result exec_int(struct soft_vcpu *v, const struct insn *in)
{
    if (v86_denied(v))
        return exec_fault_err(v, VEC_GP, 0);
    return soft_int(v, FAULT_SOFT_INT, (uint8_t)in->imm);
}

enum exec_result exec_int3(struct soft_vcpu *v, const struct insn *in)
{
    return soft_int(v, FAULT_SOFT_INT, VEC_BP);
}

enum exec_result exec_int1(struct soft_vcpu *v, const struct insn *in)
{
    return soft_int(v, FAULT_ICEBP, VEC_DB);
}

enum exec_result exec_into(struct soft_vcpu *v, const struct insn *in)
{
    return flags_get(v) & RF_OF ? soft_int(v, FAULT_SOFT_INT, VEC_OF) : EXEC_OK;
}

/* ---- segment registers ---- */

/* A load of SS holds interrupts and debug traps off until the next instruction, which loads RSP, is done. `mode` is
 * that of before: while it stays, so may the block. */
static enum exec_result loaded(struct soft_vcpu *v, unsigned seg, uint32_t mode)
{
    if (seg == SEG_SS)
        v->st.int_shadow = 2;
    return seg == SEG_SS || v->mode != mode ? EXEC_END : EXEC_OK;
}

enum exec_result exec_mov_to_seg(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t sel;
    uint32_t mode = v->mode;
    if (!opnd_get(v, in, &in->src, &sel) || !seg_load(v, in->dst.reg, (uint16_t)sel))
        return EXEC_FAULT;
    return loaded(v, in->dst.reg, mode);
}

enum exec_result exec_mov_from_seg(struct soft_vcpu *v, const struct insn *in)
{
    return opnd_put(v, in, &in->dst, v->st.seg[in->src.reg].sel) ? EXEC_OK : EXEC_FAULT;
}

/* With a 32-bit operand only the low word of the slot is written, as current processors do. */
enum exec_result exec_push_seg(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t sel = v->st.seg[in->src.reg].sel;
    uint64_t old = v->st.gpr[RSP];
    if (in->opsize != 4)
        return stack_push(v, in->opsize, sel) ? EXEC_OK : EXEC_FAULT;
    stack_move(v, -2);
    if (stack_push(v, 2, sel))
        return EXEC_OK;
    v->st.gpr[RSP] = old;
    return EXEC_FAULT;
}

/* RSP moves in the size of the stack popped from, which POP SS replaces. */
enum exec_result exec_pop_seg(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t sel, old = v->st.gpr[RSP];
    uint32_t mode = v->mode;
    if (!stack_pop(v, in->opsize, &sel))
        return EXEC_FAULT;
    if (!seg_load(v, in->dst.reg, (uint16_t)sel)) {
        v->st.gpr[RSP] = old;
        return EXEC_FAULT;
    }
    return loaded(v, in->dst.reg, mode);
}

enum exec_result exec_load_far_ptr(struct soft_vcpu *v, const struct insn *in)
{
    uint8_t b[10] = {0};
    uint64_t off = 0;
    uint32_t mode = v->mode;
    if (!opnd_read(v, in, b, in->opsize + 2u) || !seg_load(v, in->src2.reg, ld16(b + in->opsize)))
        return EXEC_FAULT;
    memcpy(&off, b, in->opsize);
    if (!opnd_put(v, in, &in->dst, off))
        return EXEC_FAULT;
    return loaded(v, in->src2.reg, mode);
}

/* ---- FS and GS bases ---- */

static bool fsgsbase_ok(struct soft_vcpu *v)
{
    return in_code64(v) && (v->st.cr4 & CR4_FSGSBASE);
}

static enum exec_result read_base(struct soft_vcpu *v, const struct insn *in, unsigned seg)
{
    if (!fsgsbase_ok(v))
        return exec_fault(v, VEC_UD);
    return opnd_put(v, in, &in->dst, v->st.seg[seg].base) ? EXEC_OK : EXEC_FAULT;
}

static enum exec_result write_base(struct soft_vcpu *v, const struct insn *in, unsigned seg)
{
    uint64_t base;
    if (!fsgsbase_ok(v))
        return exec_fault(v, VEC_UD);
    if (!opnd_get(v, in, &in->src, &base))
        return EXEC_FAULT;
    if (!is_canonical(base))
        return exec_fault_err(v, VEC_GP, 0);
    v->st.seg[seg].base = base;
    return EXEC_OK;
}

enum exec_result exec_rdfsbase(struct soft_vcpu *v, const struct insn *in)
{
    return read_base(v, in, SEG_FS);
}

enum exec_result exec_rdgsbase(struct soft_vcpu *v, const struct insn *in)
{
    return read_base(v, in, SEG_GS);
}

enum exec_result exec_wrfsbase(struct soft_vcpu *v, const struct insn *in)
{
    return write_base(v, in, SEG_FS);
}

enum exec_result exec_wrgsbase(struct soft_vcpu *v, const struct insn *in)
{
    return write_base(v, in, SEG_GS);
}

enum exec_result exec_swapgs(struct soft_vcpu *v, const struct insn *in)
{
    uint64_t base = v->st.seg[SEG_GS].base;
    if (!in_code64(v))
        return exec_fault(v, VEC_UD);
    if (cpl(v))
        return exec_fault_err(v, VEC_GP, 0);
    v->st.seg[SEG_GS].base = v->st.kernel_gs_base;
    v->st.kernel_gs_base = base;
    return EXEC_OK;
}
