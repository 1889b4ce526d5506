/* Two-operand arithmetic and logic, INC, DEC, NEG, NOT. SDM 2, the instructions' own pages. */
#include "cpu/jit/emit.h"

static bool only_reads(const struct insn *in)
{
    return in->op == OP_cmp || in->op == OP_test;
}

enum asm_alu alu_of(const struct insn *in)
{
    static const uint8_t alu[] = {A_ADD, A_OR, A_ADC, A_SBB, A_AND, A_SUB, A_XOR, A_CMP};
    return alu[in->op - OP_add];
}

void emit_carry_in(struct tx *t, const struct insn *in)
{
    if (in->op == OP_adc || in->op == OP_sbb)
        eflags_load(t);
}

/* reg op= register or memory at `with`. */
static void to_register(struct tx *t, const struct insn *in, struct rm with)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true), size = in->dst.size;
    emit_carry_in(t, in);
    if (in->op == OP_test)
        asm_test(&t->a, size, with, d);
    else
        asm_alu(&t->a, alu_of(in), size, d, with);
    if (!only_reads(in))
        put_reg(t, in->dst.reg, d);
    eflags_made(t);
}

static void immediate(struct tx *t, const struct insn *in, struct rm to)
{
    emit_carry_in(t, in);
    if (in->op == OP_test)
        asm_test_imm(&t->a, in->dst.size, to, in->imm);
    else
        asm_alu_imm(&t->a, 0, alu_of(in), in->dst.size, to, in->imm);
    eflags_made(t);
}

static void alu_rr(struct tx *t, const struct insn *in)
{
    to_register(t, in, rm_reg(read_reg(t, &in->src, T_ADDR)));
}

/* CMP and TEST of AH, CH, DH, BH with an immediate or a register. */
static void high_byte(struct tx *t, const struct insn *in)
{
    unsigned d = read_reg(t, &in->dst, T_VAL);
    if (in->src.kind == OPND_IMM) {
        immediate(t, in, rm_reg(d));
        return;
    }
    unsigned s = use_reg(t, in->src.reg, T_ADDR);
    if (in->op == OP_test)
        asm_test(&t->a, 1, rm_reg(s), d);
    else
        asm_alu(&t->a, A_CMP, 1, d, rm_reg(s));
    eflags_made(t);
}

static void alu_ri(struct tx *t, const struct insn *in)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    immediate(t, in, rm_reg(d));
    if (!only_reads(in))
        put_reg(t, in->dst.reg, d);
}

static void alu_rm(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, ACC_READ);
    to_register(t, in, rm_mem(T_ADDR, 0));
}

static void alu_mi(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, only_reads(in) ? ACC_READ : ACC_WRITE);
    immediate(t, in, rm_mem(T_ADDR, 0));
}

static void alu_mr(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size;
    emit_operand(t, in, size, only_reads(in) ? ACC_READ : ACC_WRITE);
    unsigned s = read_reg(t, &in->src, T_VAL);
    emit_carry_in(t, in);
    if (in->op == OP_test)
        asm_test(&t->a, size, rm_mem(T_ADDR, 0), s);
    else
        asm_alu_to(&t->a, 0, alu_of(in), size, rm_mem(T_ADDR, 0), s);
    eflags_made(t);
}

static emit_fn *alu_form(const struct insn *in)
{
    bool mem = in->flags & INSN_MEM, reg = plain_reg(&in->dst);
    bool carry = in->op == OP_adc || in->op == OP_sbb;
    if (mem && !plain_mem(in))
        return NULL;
    if (!mem && !reg)
        return only_reads(in) && (in->src.kind == OPND_IMM || plain_reg(&in->src)) ? high_byte : NULL;
    if (in->src.kind == OPND_IMM)
        return reg ? alu_ri : alu_mi;
    if (in->src.kind == OPND_MEM)
        return reg ? alu_rm : NULL;
    if (!plain_reg(&in->src) && carry)
        return NULL;
    return reg ? alu_rr : alu_mr;
}

/* ---- one operand ---- */

void emit_unary(struct tx *t, const struct insn *in, uint32_t lock, struct rm at)
{
    static const struct {
        uint8_t opcode, digit;
    } code[] = {{0xfe, 0}, {0xfe, 1}, {0xf6, 3}, {0xf6, 2}};
    unsigned k = in->op - OP_inc;
    if (k < 2)
        eflags_part(t);
    asm_op(&t->a, in->dst.size, code[k].opcode | lock, code[k].digit, at);
    if (in->op != OP_not)
        eflags_made(t);
}

static void unary_r(struct tx *t, const struct insn *in)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    emit_unary(t, in, 0, rm_reg(d));
    put_reg(t, in->dst.reg, d);
}

static void unary_m(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, ACC_WRITE);
    emit_unary(t, in, 0, rm_mem(T_ADDR, 0));
}

static struct how how_unary(const struct insn *in)
{
    struct how h = {.flags = in->op == OP_not ? FLAGS_NONE : in->op == OP_neg ? FLAGS_SET : FLAGS_PART};
    h.fn = plain_reg(&in->dst) ? unary_r : plain_mem(in) ? unary_m : NULL;
    return h;
}

_Static_assert(OP_add == 0 && OP_test == 8 && OP_not - OP_inc == 3, "tables above are in ops.def's order");

struct how how_alu(const struct insn *in)
{
    if (in->flags & INSN_LOCK)
        return (struct how){.fn = NULL};
    if (in->op >= OP_inc && in->op <= OP_not)
        return how_unary(in);
    if (in->op > OP_test)
        return (struct how){.fn = NULL};
    bool carry = in->op == OP_adc || in->op == OP_sbb;
    return (struct how){.fn = alu_form(in), .flags = carry ? FLAGS_READ | FLAGS_SET : FLAGS_SET};
}
