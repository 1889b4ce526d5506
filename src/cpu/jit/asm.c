#include "cpu/jit/asm.h"

#include <assert.h>
#include <string.h>

enum { LONGEST = 15 };

void asm_byte(struct asm_buf *a, uint8_t byte)
{
    if (a->full || a->end - a->at < LONGEST)
        a->full = true;
    else
        *a->at++ = byte;
}

void asm_imm(struct asm_buf *a, uint64_t imm, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        asm_byte(a, (uint8_t)(imm >> (8 * i)));
}

/* ---- prefixes, ModRM, SIB ---- */

static uint8_t rex(unsigned size, uint32_t op, unsigned reg, struct rm rm)
{
    unsigned r = (size == 8) << 3 | reg >> 3 << 2;
    bool spl = size == 1 && reg >= 4; /* SPL, BPL, SIL, DIL; harmless before an extension of the opcode */
    if (rm.kind == RM_REG) {
        r |= rm.reg >> 3;
        spl |= (size == 1 || op & A_RM8) && rm.reg >= 4;
    } else if (rm.kind == RM_MEM) {
        r |= (rm.index != H_NONE ? rm.index >> 3 << 1 : 0) | (rm.base != H_NONE ? rm.base >> 3 : 0);
    }
    return (uint8_t)(r || spl ? 0x40 | r : 0);
}

static void prefixes(struct asm_buf *a, unsigned size, uint32_t op, uint8_t rex_byte)
{
    if (op & A_LOCK)
        asm_byte(a, 0xf0);
    if (size == 2 || op & A_66)
        asm_byte(a, 0x66);
    if (op & A_F3)
        asm_byte(a, 0xf3);
    if (op & A_F2)
        asm_byte(a, 0xf2);
    if (rex_byte)
        asm_byte(a, rex_byte);
    if (op & (A_0F | A_0F38))
        asm_byte(a, 0x0f);
    if (op & A_0F38)
        asm_byte(a, 0x38);
}

static bool disp8(int32_t d)
{
    return d == (int8_t)d;
}

static void memory(struct asm_buf *a, unsigned reg, struct rm rm)
{
    bool no_base = rm.base == H_NONE, sib = no_base || rm.index != H_NONE || (rm.base & 7) == H_SP;
    unsigned mod = no_base ? 0 : rm.disp == 0 && (rm.base & 7) != H_BP ? 0 : disp8(rm.disp) ? 1 : 2;
    assert(rm.index != H_SP);
    asm_byte(a, (uint8_t)(mod << 6 | (reg & 7) << 3 | (sib ? H_SP : rm.base & 7)));
    if (sib)
        asm_byte(a, (uint8_t)(rm.scale << 6 | (rm.index == H_NONE ? H_SP : rm.index & 7) << 3 |
                              (no_base ? H_BP : rm.base & 7)));
    if (mod == 1)
        asm_imm(a, (uint8_t)rm.disp, 1);
    else if (mod == 2 || no_base)
        asm_imm(a, (uint32_t)rm.disp, 4);
}

/* A displacement from the end of `len` more bytes. */
static void relative(struct asm_buf *a, const void *to, unsigned len)
{
    intptr_t d = (intptr_t)to - ((intptr_t)asm_here(a) + 4 + (intptr_t)len);
    assert(a->full || d == (int32_t)d);
    asm_imm(a, (uint32_t)d, 4);
}

void asm_modrm(struct asm_buf *a, unsigned size, uint32_t op, unsigned reg, struct rm rm, unsigned imm_len)
{
    if (a->end - a->at < 2 * LONGEST) {
        a->full = true;
        return;
    }
    prefixes(a, size, op, rex(size, op, reg, rm));
    asm_byte(a, (uint8_t)op);
    if (rm.kind == RM_REG) {
        asm_byte(a, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm.reg & 7)));
    } else if (rm.kind == RM_NEAR) {
        asm_byte(a, (uint8_t)((reg & 7) << 3 | 5));
        relative(a, rm.near, imm_len);
    } else {
        memory(a, reg, rm);
    }
}

void asm_op(struct asm_buf *a, unsigned size, uint32_t op, unsigned reg, struct rm rm)
{
    asm_modrm(a, size, op | (size > 1), reg, rm, 0);
}

/* ---- moves ---- */

void asm_load(struct asm_buf *a, unsigned size, unsigned reg, struct rm from)
{
    asm_op(a, size, 0x8a, reg, from);
}

void asm_load_high(struct asm_buf *a, unsigned reg, unsigned of)
{
    assert(reg < H_SP && of < H_SP);
    asm_byte(a, 0x0f);
    asm_byte(a, 0xb6);
    asm_byte(a, (uint8_t)(0xc0 | reg << 3 | (4 + of)));
}

void asm_store(struct asm_buf *a, unsigned size, struct rm to, unsigned reg)
{
    asm_op(a, size, 0x88, reg, to);
}

static unsigned imm_bytes(unsigned size)
{
    return size < 4 ? size : 4;
}

void asm_store_imm(struct asm_buf *a, unsigned size, struct rm to, uint64_t imm)
{
    asm_modrm(a, size, 0xc6 | (size > 1), 0, to, imm_bytes(size));
    asm_imm(a, imm, imm_bytes(size));
}

void asm_mov(struct asm_buf *a, unsigned size, unsigned to, unsigned from)
{
    if (to != from || size == 4)
        asm_op(a, size, 0x8a, to, rm_reg(from));
}

void asm_mov_imm(struct asm_buf *a, unsigned reg, uint64_t imm)
{
    if (imm == (uint64_t)(int64_t)(int32_t)imm && imm >> 31) {
        asm_store_imm(a, 8, rm_reg(reg), imm);
        return;
    }
    bool wide = imm >> 32;
    if (wide || reg >= 8)
        asm_byte(a, (uint8_t)(0x40 | wide << 3 | reg >> 3));
    asm_byte(a, (uint8_t)(0xb8 | (reg & 7)));
    asm_imm(a, imm, wide ? 8 : 4);
}

void asm_lea(struct asm_buf *a, unsigned size, unsigned reg, struct rm from)
{
    asm_modrm(a, size, 0x8d, reg, from, 0);
}

/* ---- arithmetic ---- */

void asm_alu(struct asm_buf *a, enum asm_alu op, unsigned size, unsigned reg, struct rm with)
{
    asm_op(a, size, (uint32_t)op << 3 | 2, reg, with);
}

void asm_alu_to(struct asm_buf *a, uint32_t lock, enum asm_alu op, unsigned size, struct rm to, unsigned reg)
{
    asm_op(a, size, (uint32_t)op << 3 | lock, reg, to);
}

void asm_alu_imm(struct asm_buf *a, uint32_t lock, enum asm_alu op, unsigned size, struct rm to, uint64_t imm)
{
    bool small = size > 1 && imm == (uint64_t)(int64_t)(int8_t)imm;
    unsigned len = small ? 1 : imm_bytes(size);
    asm_modrm(a, size, (size == 1 ? 0x80 : small ? 0x83 : 0x81) | lock, op, to, len);
    asm_imm(a, imm, len);
}

void asm_test(struct asm_buf *a, unsigned size, struct rm rm, unsigned reg)
{
    asm_op(a, size, 0x84, reg, rm);
}

void asm_test_imm(struct asm_buf *a, unsigned size, struct rm rm, uint64_t imm)
{
    asm_modrm(a, size, 0xf6 | (size > 1), 0, rm, imm_bytes(size));
    asm_imm(a, imm, imm_bytes(size));
}

void asm_shift_imm(struct asm_buf *a, enum asm_shift op, unsigned size, struct rm to, unsigned n)
{
    asm_modrm(a, size, 0xc0 | (size > 1), op, to, 1);
    asm_imm(a, n, 1);
}

void asm_shift_cl(struct asm_buf *a, enum asm_shift op, unsigned size, struct rm to)
{
    asm_op(a, size, 0xd2, op, to);
}

/* ---- control ---- */

void asm_push(struct asm_buf *a, unsigned reg)
{
    if (reg >= 8)
        asm_byte(a, 0x41);
    asm_byte(a, (uint8_t)(0x50 | (reg & 7)));
}

void asm_pop(struct asm_buf *a, unsigned reg)
{
    if (reg >= 8)
        asm_byte(a, 0x41);
    asm_byte(a, (uint8_t)(0x58 | (reg & 7)));
}

void asm_ret(struct asm_buf *a)
{
    asm_byte(a, 0xc3);
}

void asm_jmp_rm(struct asm_buf *a, struct rm to)
{
    asm_modrm(a, 4, 0xff, 4, to, 0);
}

void asm_call_rm(struct asm_buf *a, struct rm to)
{
    asm_modrm(a, 4, 0xff, 2, to, 0);
}

void asm_jmp(struct asm_buf *a, const void *to)
{
    asm_byte(a, 0xe9);
    relative(a, to, 0);
}

void asm_call(struct asm_buf *a, const void *to)
{
    asm_byte(a, 0xe8);
    relative(a, to, 0);
}

void asm_jcc_to(struct asm_buf *a, enum asm_cond cc, const void *to)
{
    asm_byte(a, 0x0f);
    asm_byte(a, (uint8_t)(0x80 | cc));
    relative(a, to, 0);
}

uint8_t *asm_jcc(struct asm_buf *a, enum asm_cond cc)
{
    asm_jcc_to(a, cc, asm_here(a));
    return a->at;
}

uint8_t *asm_jmp_ahead(struct asm_buf *a)
{
    asm_jmp(a, asm_here(a));
    return a->at;
}

void asm_land(struct asm_buf *a, uint8_t *jump)
{
    int32_t d = (int32_t)(a->at - jump);
    if (!a->full)
        memcpy(jump - 4, &d, 4);
}
