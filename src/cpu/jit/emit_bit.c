/* Shifts, rotates, bits, scans and multiplications. SDM 2, the instructions' own pages. */
#include "cpu/jit/emit.h"

/* ---- shifts and rotates ---- */

static enum asm_shift shift_of(const struct insn *in)
{
    static const uint8_t shift[] = {A_ROL, A_ROR, A_RCL, A_RCR, A_SHL, A_SHR, A_SAR};
    return shift[in->op - OP_rol];
}
_Static_assert(OP_sar - OP_rol == 6, "the table above is in ops.def's order");

static unsigned masked_count(const struct insn *in)
{
    return in->imm & (in->dst.size == 8 ? 63 : 31);
}

static void shift_at(struct tx *t, const struct insn *in, struct rm at)
{
    uint8_t use = t->how[t->i].flags;
    if (use == FLAGS_READ)
        eflags_load(t);
    else if (use == FLAGS_PART)
        eflags_part(t);
    if (in->src.kind == OPND_IMM)
        asm_shift_imm(&t->a, shift_of(in), in->dst.size, at, masked_count(in));
    else
        asm_shift_cl(&t->a, shift_of(in), in->dst.size, at);
    eflags_made(t);
}

static void shift_r(struct tx *t, const struct insn *in)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    shift_at(t, in, rm_reg(d));
    put_reg(t, in->dst.reg, d);
}

static void shift_m(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, ACC_WRITE);
    shift_at(t, in, rm_mem(T_ADDR, 0));
}

/* Rotates leave flags; so does a count of 0, which CL may have. The rotates through carry read one. */
static struct how how_shift(const struct insn *in)
{
    bool rotate = in->op <= OP_rcr, carry = in->op == OP_rcl || in->op == OP_rcr, by_cl = in->src.kind != OPND_IMM;
    struct how h = {.flags = carry ? FLAGS_READ : rotate || by_cl ? FLAGS_PART : FLAGS_SET};
    if (!by_cl && !masked_count(in))
        return (struct how){.fn = NULL};
    h.fn = plain_reg(&in->dst) ? shift_r : plain_mem(in) ? shift_m : NULL;
    return h;
}

static void double_shift(struct tx *t, const struct insn *in)
{
    bool right = in->op == OP_shrd, by_cl = in->src2.kind != OPND_IMM;
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true), s = use_reg(t, in->src.reg, T_ADDR);
    eflags_part(t);
    asm_modrm(&t->a, in->dst.size, A_0F | (right ? 0xac : 0xa4) | by_cl, s, rm_reg(d), !by_cl);
    if (!by_cl)
        asm_imm(&t->a, in->imm, 1);
    put_reg(t, in->dst.reg, d);
    eflags_made(t);
}

static struct how how_double_shift(const struct insn *in)
{
    bool ok = plain_reg(&in->dst) && in->dst.size >= 4 && (in->src2.kind != OPND_IMM || masked_count(in));
    return (struct how){.fn = ok ? double_shift : NULL, .flags = FLAGS_PART};
}

/* ---- BT, BTS, BTR, BTC: CF changes, ZF stays ---- */

static void bit_at(struct tx *t, const struct insn *in, struct rm at)
{
    unsigned k = in->op - OP_bt, size = in->dst.size;
    if (in->src.kind == OPND_IMM) {
        eflags_part(t);
        asm_modrm(&t->a, size, A_0F | 0xba, 4 + k, at, 1);
        asm_imm(&t->a, in->imm & (size * 8 - 1), 1);
    } else {
        unsigned s = use_reg(t, in->src.reg, T_ADDR);
        eflags_part(t);
        asm_modrm(&t->a, size, A_0F | (0xa3 + 8 * k), s, at, 0);
    }
    eflags_made(t);
}
_Static_assert(OP_btc - OP_bt == 3 && OP_bts - OP_bt == 1, "the opcodes above are in ops.def's order");

static void bit_r(struct tx *t, const struct insn *in)
{
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    bit_at(t, in, rm_reg(d));
    if (in->op != OP_bt)
        put_reg(t, in->dst.reg, d);
}

static void bit_m(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, in->dst.size, in->op == OP_bt ? ACC_READ : ACC_WRITE);
    bit_at(t, in, rm_mem(T_ADDR, 0));
}

/* A bit number in a register may lie anywhere around a memory operand: that is the generic executor's. */
static struct how how_bits(const struct insn *in)
{
    bool imm = in->src.kind == OPND_IMM, mem = imm && plain_mem(in);
    struct how h = {.flags = FLAGS_PART};
    h.fn = plain_reg(&in->dst) ? bit_r : mem ? bit_m : NULL;
    return h;
}

/* ---- BSF, BSR, POPCNT, IMUL: dst = f(src) ---- */

static uint32_t scan_code(const struct insn *in)
{
    switch (in->op) {
    case OP_bsf:
        return A_0F | 0xbc;
    case OP_bsr:
        return A_0F | 0xbd;
    case OP_popcnt:
        return A_0F | A_F3 | 0xb8;
    default:
        return A_0F | 0xaf;
    }
}

static void scan(struct tx *t, const struct insn *in)
{
    struct rm from = emit_source(t, in, &in->src);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    asm_modrm(&t->a, in->dst.size, scan_code(in), d, from, 0);
    put_reg(t, in->dst.reg, d);
    eflags_made(t);
}

static void imul3(struct tx *t, const struct insn *in)
{
    bool small = in->imm == (uint64_t)(int64_t)(int8_t)in->imm;
    unsigned size = in->dst.size, len = small ? 1 : size < 4 ? size : 4;
    struct rm from = emit_source(t, in, &in->src);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, size < 4);
    asm_modrm(&t->a, size, small ? 0x6b : 0x69, d, from, len);
    asm_imm(&t->a, in->imm, len);
    put_reg(t, in->dst.reg, d);
    eflags_made(t);
}

/* MUL and IMUL of RAX: RDX is the host's own, RAX is moved to where the instruction wants it. */
static void mul(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size, ax = host_of(RAX), digit = in->op == OP_mul ? 4 : 5;
    struct rm with = emit_source(t, in, &in->dst);
    eflags_spoil(t);
    asm_mov(&t->a, 8, H_AX, ax);
    asm_modrm(&t->a, size, 0xf7, digit, with, 0);
    asm_mov(&t->a, 8, ax, H_AX);
    eflags_made(t);
}

/* Unsigned: the quotient fits if RDX is below the divisor, which is none of 0 then; else C raises #DE. The divisor is
 * read once: another vCPU may write it. */
static void divide(struct tx *t, const struct insn *in)
{
    unsigned size = in->dst.size, ax = host_of(RAX), by = T_VAL;
    if (in->dst.kind == OPND_MEM) {
        emit_operand(t, in, size, ACC_READ);
        asm_load(&t->a, size, by, rm_mem(T_ADDR, 0));
    } else {
        by = use_reg(t, in->dst.reg, T_VAL);
    }
    eflags_spoil(t);
    asm_alu(&t->a, A_CMP, size, H_DX, rm_reg(by));
    emit_slow(t, A_AE, SLOW_GENERIC);
    asm_mov(&t->a, 8, H_AX, ax);
    asm_modrm(&t->a, size, 0xf7, 6, rm_reg(by), 0);
    asm_mov(&t->a, 8, ax, H_AX);
    eflags_made(t);
}

static bool plain(const struct insn *in, const struct opnd *o)
{
    return o->kind == OPND_MEM ? plain_mem(in) : plain_reg(o);
}

static struct how all_flags(bool ok, emit_fn *fn)
{
    return (struct how){.fn = ok ? fn : NULL, .flags = FLAGS_SET};
}

struct how how_bit(const struct insn *in)
{ /* opcode switch */
    const struct how none = {.fn = NULL};
    if (in->flags & INSN_LOCK)
        return none;
    switch (in->op) {
    case OP_rol:
    case OP_ror:
    case OP_rcl:
    case OP_rcr:
    case OP_shl:
    case OP_shr:
    case OP_sar:
        return how_shift(in);
    case OP_shld:
    case OP_shrd:
        return how_double_shift(in);
    case OP_bt:
    case OP_bts:
    case OP_btr:
    case OP_btc:
        return how_bits(in);
    case OP_bsf:
    case OP_bsr:
    case OP_imul2:
    case OP_popcnt:
        return all_flags(plain(in, &in->src), scan);
    case OP_imul3:
        return all_flags(plain(in, &in->src), imul3);
    case OP_mul:
    case OP_imul1:
        return all_flags(in->dst.size >= 4 && plain(in, &in->dst), mul);
    case OP_div:
        return all_flags(in->dst.size >= 4 && plain(in, &in->dst), divide);
    default:
        return none;
    }
}
