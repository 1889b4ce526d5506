/* Moves, LEA, the stack of 64-bit code, and registers among themselves. No flags change here. */
#include "cpu/jit/emit.h"

/* ---- MOV ---- */

static void mov_rr(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size, d = edit_reg(t, in->dst.reg, T_VAL, size < 4);
    asm_mov(&t->a, size, d, read_reg(t, &in->src, T_ADDR));
    put_reg(t, in->dst.reg, d);
}

static void mov_ri(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size, d = edit_reg(t, in->dst.reg, T_VAL, size < 4);
    if (size < 4)
        asm_store_imm(&t->a, size, rm_reg(d), in->imm);
    else
        asm_mov_imm(&t->a, d, size == 4 ? (uint32_t)in->imm : in->imm);
    put_reg(t, in->dst.reg, d);
}

static void mov_rm(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    emit_operand(t, in, size, ACC_READ);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, size < 4);
    asm_load(&t->a, size, d, rm_mem(T_ADDR, 0));
    put_reg(t, in->dst.reg, d);
}

static void mov_mr(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, ACC_WRITE);
    asm_store(&t->a, in->dst.size, rm_mem(T_ADDR, 0), read_reg(t, &in->src, T_VAL));
}

static void mov_mi(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, ACC_WRITE);
    asm_store_imm(&t->a, in->dst.size, rm_mem(T_ADDR, 0), in->imm);
}

static emit_fn *mov_form(const struct insn *in)
{
    bool mem = in->flags & INSN_MEM, reg = plain_reg(&in->dst);
    if (mem && !plain_mem(in))
        return NULL;
    if (in->src.kind == OPND_IMM)
        return reg ? mov_ri : mem ? mov_mi : NULL;
    if (in->src.kind == OPND_MEM)
        return reg ? mov_rm : NULL;
    return reg ? mov_rr : mem ? mov_mr : NULL;
}

/* ---- MOVZX, MOVSX ---- */

static void extend(struct tx *t, const struct insn *in)
{
    bool sign = in->op == OP_movsx;
    struct rm from = emit_source(t, in, &in->src);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, false), size = sign ? in->dst.size : 4;
    if (in->src.size == 4)
        asm_modrm(&t->a, 8, 0x63, d, from, 0);
    else
        asm_modrm(&t->a, size, A_0F | (sign ? 0xbe : 0xb6) | (in->src.size == 2) | (in->src.size == 1 ? A_RM8 : 0), d,
                  from, 0);
    put_reg(t, in->dst.reg, d);
}

static emit_fn *extend_form(const struct insn *in)
{
    bool ok = in->src.kind == OPND_REG || plain_mem(in);
    bool sizes = in->dst.size >= 4 && in->src.size < in->dst.size && (in->src.size < 4 || in->op == OP_movsx);
    return ok && sizes ? extend : NULL;
}

/* ---- LEA ---- */

static void lea(struct tx *t, const struct insn *in)
{
    emit_address(t, in);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, false);
    asm_mov(&t->a, in->dst.size, d, T_ADDR);
    put_reg(t, in->dst.reg, d);
}

/* ---- the stack ---- */

static void push(struct tx *t, const struct insn *in)
{
    unsigned sp = host_of(RSP);
    asm_lea(&t->a, 8, T_ADDR, rm_mem(sp, -8));
    emit_probe(t, 8, ACC_WRITE);
    if (in->src.kind == OPND_IMM)
        asm_store_imm(&t->a, 8, rm_mem(T_ADDR, 0), in->imm);
    else
        asm_store(&t->a, 8, rm_mem(T_ADDR, 0), use_reg(t, in->src.reg, T_VAL));
    asm_lea(&t->a, 8, sp, rm_mem(sp, -8));
}

/* POP RSP: the popped value wins. */
static void pop(struct tx *t, const struct insn *in)
{
    unsigned sp = host_of(RSP), d = edit_reg(t, in->dst.reg, T_VAL, false);
    asm_mov(&t->a, 8, T_ADDR, sp);
    emit_probe(t, 8, ACC_READ);
    if (in->dst.reg != RSP)
        asm_lea(&t->a, 8, sp, rm_mem(sp, 8));
    asm_load(&t->a, 8, d, rm_mem(T_ADDR, 0));
    put_reg(t, in->dst.reg, d);
}

static void leave(struct tx *t, const struct insn *in)
{
    unsigned sp = host_of(RSP), bp = host_of(RBP);
    asm_mov(&t->a, 8, T_ADDR, bp);
    emit_probe(t, 8, ACC_READ);
    asm_lea(&t->a, 8, sp, rm_mem(bp, 8));
    asm_load(&t->a, 8, bp, rm_mem(T_ADDR, 0));
}

/* ---- registers among themselves ---- */

static void xchg(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    unsigned d = use_reg(t, in->dst.reg, T_VAL), s = use_reg(t, in->src.reg, T_ADDR);
    asm_mov(&t->a, size, T_FLAGS, d);
    asm_mov(&t->a, size, d, s);
    asm_mov(&t->a, size, s, T_FLAGS);
    put_reg(t, in->dst.reg, d);
    put_reg(t, in->src.reg, s);
}

static void bswap(struct tx *t, const struct insn *in)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    if (in->dst.size == 8 || d >= 8)
        asm_byte(&t->a, (uint8_t)(0x40 | (in->dst.size == 8) << 3 | d >> 3));
    asm_byte(&t->a, 0x0f);
    asm_byte(&t->a, (uint8_t)(0xc8 | (d & 7)));
    put_reg(t, in->dst.reg, d);
}

/* CWDE, CDQE. */
static void cbw(struct tx *t, const struct insn *in)
{
    unsigned ax = host_of(RAX);
    if (in->opsize == 8)
        asm_modrm(&t->a, 8, 0x63, ax, rm_reg(ax), 0);
    else
        asm_modrm(&t->a, 4, A_0F | 0xbf, ax, rm_reg(ax), 0);
}

/* CDQ, CQO: guest RDX is the host's. */
static void cwd(struct tx *t, const struct insn *in)
{
    asm_mov(&t->a, 8, H_AX, host_of(RAX));
    if (in->opsize == 8)
        asm_byte(&t->a, 0x48);
    asm_byte(&t->a, 0x99);
}

static void nothing(struct tx *t, const struct insn *in)
{
}

/* The one that is too many is the interpreter's. */
static void pause_spin(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    asm_alu_imm(&t->a, 0, A_CMP, 4, VCPU(pauses), PAUSES_MOST - 1);
    emit_slow(t, A_AE, SLOW_LEAVE);
    asm_alu_imm(&t->a, 0, A_ADD, 4, VCPU(pauses), 1);
}

static void mfence(struct tx *t, const struct insn *in)
{
    asm_byte(&t->a, 0x0f);
    asm_byte(&t->a, 0xae);
    asm_byte(&t->a, 0xf0);
}

static emit_fn *stack_form(const struct insn *in)
{
    const struct opnd *o = in->op == OP_push ? &in->src : &in->dst;
    if (in->opsize != 8)
        return NULL;
    if (in->op == OP_leave)
        return leave;
    if (in->op == OP_pop)
        return plain_reg(o) ? pop : NULL;
    return plain_reg(o) || o->kind == OPND_IMM ? push : NULL;
}

static emit_fn *mov_like(const struct insn *in)
{ /* opcode switch */
    switch (in->op) {
    case OP_mov:
    case OP_movnti:
        return mov_form(in);
    case OP_movzx:
    case OP_movsx:
        return extend_form(in);
    case OP_lea:
        return in->dst.size >= 4 && plain_mem(in) ? lea : NULL;
    case OP_push:
    case OP_pop:
    case OP_leave:
        return stack_form(in);
    case OP_xchg:
        return plain_reg(&in->dst) && plain_reg(&in->src) && in->dst.size >= 4 ? xchg : NULL;
    case OP_bswap:
        return in->dst.size >= 4 ? bswap : NULL;
    case OP_cbw:
        return in->opsize >= 4 ? cbw : NULL;
    case OP_cwd:
        return in->opsize >= 4 ? cwd : NULL;
    case OP_nop:
    case OP_lfence:
    case OP_sfence:
    case OP_prefetch:
        return nothing;
    case OP_mfence:
        return mfence;
    case OP_pause:
        return pause_spin;
    default:
        return NULL;
    }
}

struct how how_mov(const struct insn *in)
{
    return (struct how){.fn = mov_like(in), .flags = FLAGS_NONE};
}
