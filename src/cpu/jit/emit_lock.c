/* Read-modify-writes that other vCPUs see whole: LOCK, and XCHG with memory. SDM 3A, "Locked Atomic Operations". The
 * host's own instruction on guest RAM; an operand that isn't aligned goes the slow way, where one that crosses a cache
 * line stops the other workers instead of the host's bus. */
#include "cpu/jit/emit.h"

static void locked_operand(struct tx *t, const struct insn *in, unsigned size)
{
    emit_operand(t, in, size, ACC_WRITE);
    if (size == 1)
        return;
    asm_test_imm(&t->a, 1, rm_reg(T_ADDR), size - 1);
    emit_slow(t, A_NE, SLOW_GENERIC);
}

static void locked_alu(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    enum asm_alu op = alu_of(in);
    locked_operand(t, in, size);
    unsigned s = in->src.kind == OPND_REG ? use_reg(t, in->src.reg, T_VAL) : H_NONE;
    emit_carry_in(t, in);
    if (s == H_NONE)
        asm_alu_imm(&t->a, A_LOCK, op, size, rm_mem(T_ADDR, 0), in->imm);
    else
        asm_alu_to(&t->a, A_LOCK, op, size, rm_mem(T_ADDR, 0), s);
    eflags_made(t);
}

static void locked_unary(struct tx *t, const struct insn *in)
{
    locked_operand(t, in, in->dst.size);
    emit_unary(t, in, A_LOCK, rm_mem(T_ADDR, 0));
}

static void locked_bit(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    locked_operand(t, in, size);
    eflags_part(t);
    asm_modrm(&t->a, size, A_0F | A_LOCK | 0xba, 4 + (in->op - OP_bt), rm_mem(T_ADDR, 0), 1);
    asm_imm(&t->a, in->imm & (size * 8 - 1), 1);
    eflags_made(t);
}

/* The register is written, too. */
static void locked_xadd(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    locked_operand(t, in, size);
    unsigned s = use_reg(t, in->src.reg, T_VAL);
    asm_op(&t->a, size, A_0F | A_LOCK | 0xc0, s, rm_mem(T_ADDR, 0));
    put_reg(t, in->src.reg, s);
    eflags_made(t);
}

static void xchg_mem(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    locked_operand(t, in, size);
    unsigned s = use_reg(t, in->src.reg, T_VAL);
    asm_op(&t->a, size, 0x86, s, rm_mem(T_ADDR, 0));
    put_reg(t, in->src.reg, s);
}

static void cmpxchg(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size, ax = host_of(RAX);
    locked_operand(t, in, size);
    unsigned s = use_reg(t, in->src.reg, T_VAL);
    asm_mov(&t->a, 8, H_AX, ax);
    asm_op(&t->a, size, A_0F | (in->flags & INSN_LOCK ? A_LOCK : 0) | 0xb0, s, rm_mem(T_ADDR, 0));
    asm_mov(&t->a, 8, ax, H_AX);
    eflags_made(t);
}

/* Guest RBX, RCX and RDX are the host's. Only ZF changes. */
static void cmpxchg_wide(struct tx *t, const struct insn *in)
{
    unsigned size = in->op == OP_cmpxchg16b ? 16 : 8, ax = host_of(RAX);
    locked_operand(t, in, size);
    eflags_part(t);
    asm_mov(&t->a, 8, H_AX, ax);
    asm_modrm(&t->a, size / 2, A_0F | (in->flags & INSN_LOCK ? A_LOCK : 0) | 0xc7, 1, rm_mem(T_ADDR, 0), 0);
    asm_mov(&t->a, 8, ax, H_AX);
    eflags_made(t);
}

static struct how locked(emit_fn *fn, enum flag_use flags)
{
    return (struct how){.fn = fn, .flags = (uint8_t)flags};
}

struct how how_lock(const struct insn *in)
{ /* opcode switch */
    const struct how none = {.fn = NULL};
    bool reg = plain_reg(&in->src), lock = in->flags & INSN_LOCK;
    if (!plain_mem(in))
        return none;
    switch (in->op) {
    case OP_add:
    case OP_or:
    case OP_and:
    case OP_sub:
    case OP_xor:
        return lock && (reg || in->src.kind == OPND_IMM) ? locked(locked_alu, FLAGS_SET) : none;
    case OP_adc:
    case OP_sbb:
        return lock && (reg || in->src.kind == OPND_IMM) ? locked(locked_alu, FLAGS_READ | FLAGS_SET) : none;
    case OP_inc:
    case OP_dec:
        return lock ? locked(locked_unary, FLAGS_PART) : none;
    case OP_neg:
        return lock ? locked(locked_unary, FLAGS_SET) : none;
    case OP_not:
        return lock ? locked(locked_unary, FLAGS_NONE) : none;
    case OP_bts:
    case OP_btr:
    case OP_btc:
        return lock && in->src.kind == OPND_IMM ? locked(locked_bit, FLAGS_PART) : none;
    case OP_xadd:
        return lock && reg ? locked(locked_xadd, FLAGS_SET) : none;
    case OP_xchg:
        return reg && in->dst.kind == OPND_MEM ? locked(xchg_mem, FLAGS_NONE) : none;
    case OP_cmpxchg:
        return reg ? locked(cmpxchg, FLAGS_SET) : none;
    case OP_cmpxchg8b:
    case OP_cmpxchg16b:
        return locked(cmpxchg_wide, FLAGS_PART);
    default:
        return none;
    }
}
