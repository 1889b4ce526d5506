/* Host instructions, one a call: the only writer of executable bytes. SDM 2, "Instruction Format" and "Instruction Set
 * Reference". Only what translated code needs can be said here; nothing is ever copied from a guest.
 *
 * Code is written at `at` and will run at `at + run`. Out of room: `full` is set, nothing more is written, and the
 * caller throws the piece away. One thread at a time.
 */
#ifndef HEC_CPU_JIT_ASM_H
#define HEC_CPU_JIT_ASM_H

#include "base/bits.h"

enum host_reg { H_AX, H_CX, H_DX, H_BX, H_SP, H_BP, H_SI, H_DI, H_8, H_9, H_10, H_11, H_12, H_13, H_14, H_15, H_NONE };

struct asm_buf {
    uint8_t *at, *end;
    intptr_t run;
    bool full;
};

/* The r/m operand: a register, base + (index << scale) + disp, or an address near the code. */
struct rm {
    enum { RM_REG, RM_MEM, RM_NEAR } kind;
    uint8_t reg, base, index, scale;
    int32_t disp;
    const void *near;
};

static inline struct rm rm_reg(unsigned r)
{
    return (struct rm){.kind = RM_REG, .reg = (uint8_t)r};
}

static inline struct rm rm_mem(unsigned base, int32_t disp)
{
    return (struct rm){.kind = RM_MEM, .base = (uint8_t)base, .index = H_NONE, .disp = disp};
}

/* Base, index or both; the index is never RSP. */
static inline struct rm rm_sib(unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    return (struct rm){
        .kind = RM_MEM, .base = (uint8_t)base, .index = (uint8_t)index, .scale = (uint8_t)scale, .disp = disp};
}

/* `p` is where the running code finds it, within 2 GiB. */
static inline struct rm rm_near(const void *p)
{
    return (struct rm){.kind = RM_NEAR, .near = p};
}

/* An opcode: its last byte, and what comes before it. */
enum asm_op {
    A_0F = 1 << 8,
    A_0F38 = 2 << 8,
    A_F3 = 1 << 10,
    A_F2 = 1 << 11,
    A_LOCK = 1 << 12,
    A_RM8 = 1 << 13, /* the r/m is a byte, whatever the operand size */
    A_66 = 1 << 14
};

/* Opcode with ModRM; `reg` is a register or the opcode's extension. Size 1, 2, 4 or 8 chooses 66 and REX.W; whether the
 * opcode itself differs for bytes is the caller's business. `imm_len` bytes of immediate follow (asm_imm). */
void asm_modrm(struct asm_buf *a, unsigned size, uint32_t op, unsigned reg, struct rm rm, unsigned imm_len);
void asm_imm(struct asm_buf *a, uint64_t imm, unsigned len);
void asm_byte(struct asm_buf *a, uint8_t byte);

/* As asm_modrm() for the many opcodes whose byte form is the even one. */
void asm_op(struct asm_buf *a, unsigned size, uint32_t op, unsigned reg, struct rm rm);

/* ---- the instructions ---- */

enum asm_alu { A_ADD, A_OR, A_ADC, A_SBB, A_AND, A_SUB, A_XOR, A_CMP };
enum asm_shift { A_ROL, A_ROR, A_RCL, A_RCR, A_SHL, A_SHR, A_SAR = 7 };
enum asm_cond { A_O, A_NO, A_B, A_AE, A_E, A_NE, A_BE, A_A, A_S, A_NS, A_P, A_NP, A_L, A_GE, A_LE, A_G };

void asm_load(struct asm_buf *a, unsigned size, unsigned reg, struct rm from); /* mov; 4 bytes clear the upper half */
void asm_load_high(struct asm_buf *a, unsigned reg,
                   unsigned of); /* movzx from AH, CH, DH, BH; both of the first four */
void asm_store(struct asm_buf *a, unsigned size, struct rm to, unsigned reg);
void asm_store_imm(struct asm_buf *a, unsigned size, struct rm to, uint64_t imm); /* sign-extended from 32 bits */
void asm_mov(struct asm_buf *a, unsigned size, unsigned to, unsigned from);
void asm_mov_imm(struct asm_buf *a, unsigned reg, uint64_t imm); /* all 64 bits */
void asm_lea(struct asm_buf *a, unsigned size, unsigned reg, struct rm from);
void asm_alu(struct asm_buf *a, enum asm_alu op, unsigned size, unsigned reg, struct rm with); /* reg op= with */
void asm_alu_to(struct asm_buf *a, uint32_t lock, enum asm_alu op, unsigned size, struct rm to, unsigned reg);
void asm_alu_imm(struct asm_buf *a, uint32_t lock, enum asm_alu op, unsigned size, struct rm to, uint64_t imm);
void asm_test(struct asm_buf *a, unsigned size, struct rm rm, unsigned reg);
void asm_test_imm(struct asm_buf *a, unsigned size, struct rm rm, uint64_t imm);
void asm_shift_imm(struct asm_buf *a, enum asm_shift op, unsigned size, struct rm to, unsigned n);
void asm_shift_cl(struct asm_buf *a, enum asm_shift op, unsigned size, struct rm to);
void asm_push(struct asm_buf *a, unsigned reg);
void asm_pop(struct asm_buf *a, unsigned reg);
void asm_ret(struct asm_buf *a);
void asm_jmp_rm(struct asm_buf *a, struct rm to);
void asm_call_rm(struct asm_buf *a, struct rm to);
void asm_jmp(struct asm_buf *a, const void *to); /* `to` and below: where the code runs, within 2 GiB */
void asm_call(struct asm_buf *a, const void *to);
void asm_jcc_to(struct asm_buf *a, enum asm_cond cc, const void *to);

/* A jump to a place not known yet: what asm_land() wants. */
uint8_t *asm_jcc(struct asm_buf *a, enum asm_cond cc);
uint8_t *asm_jmp_ahead(struct asm_buf *a);
/* Let the jump lead here. */
void asm_land(struct asm_buf *a, uint8_t *jump);

static inline void *asm_here(const struct asm_buf *a)
{
    return a->at + a->run;
}

#endif
