/* x86 bytes -> struct insn. Pure: no state, any thread. Section: SDM 2, "Instruction Format" and "Opcode Map".
 *
 * The decoder normalises integer and system instructions into an operation and up to three operands, so that whoever
 * executes them never looks at opcode bytes. SSE and x87 instructions keep their bytes (map, prefix, opcode, modrm):
 * their executors dispatch on those. It decides #UD only for encodings that exist in no mode of the CPU we model
 * (unknown opcode, LOCK where it is not allowed, invalid in this code size); checks that need CPU state (CPL, CR0, CR4,
 * CPUID) belong to the executors.
 */
#ifndef HEC_CPU_SOFT_DECODE_H
#define HEC_CPU_SOFT_DECODE_H

#include "cpu/state.h"

enum op {
#define OP(id, group) OP_##id,
#include "cpu/soft/ops.def"
#undef OP
    OP_COUNT
};

enum opnd_kind { OPND_NONE, OPND_REG, OPND_MEM, OPND_IMM };

/* A general register operand: 0..15, or for a byte operand without REX 16..19 = AH, CH, DH, BH. */
enum { OPND_AH = 16 };

struct opnd {
    uint8_t kind; /* enum opnd_kind */
    uint8_t size; /* bytes: 1, 2, 4, 8 (0 where the operation defines it) */
    uint8_t reg;  /* OPND_REG: register number (general, segment, control or debug as the op says) */
};

enum insn_flag {
    INSN_LOCK = 1u << 0,
    INSN_REP = 1u << 1,   /* F3 present */
    INSN_REPNE = 1u << 2, /* F2 present */
    INSN_REX = 1u << 3,   /* any REX prefix */
    INSN_REX_W = 1u << 4,
    INSN_OPSIZE = 1u << 5, /* 66 present */
    INSN_MODRM = 1u << 6,
    INSN_MEM = 1u << 7 /* ModRM names memory (mod != 3), or a moffs/string/XLAT address applies */
};

enum { INSN_NO_REG = 16, INSN_RIP = 17 }; /* values of base and index besides 0..15 */

struct insn {
    uint16_t op;      /* enum op */
    uint8_t len;      /* bytes, 1..15 */
    uint8_t cond;     /* jcc/setcc/cmovcc: condition code 0..15 */
    uint16_t flags;   /* enum insn_flag */
    uint8_t opsize;   /* effective operand size in bytes: 2, 4, 8 (1 for byte forms); in 64-bit mode already 8 where the
                         operation defaults to 64 (push, pop, near branches, ...) */
    uint8_t addrsize; /* 2, 4, 8 */
    struct opnd dst, src, src2; /* dst also first source; src2: third operand (imul3, shld count, enter level) */
    uint8_t seg;      /* segment of the memory operand: the default (DS, or SS for rBP/rSP bases) or the override; in
                         64-bit mode only FS and GS overrides count */
    uint8_t base, index; /* 0..15, INSN_NO_REG, INSN_RIP (base only: disp is from the next instruction) */
    uint8_t scale;    /* shift 0..3 */
    uint8_t map;      /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
    uint8_t prefix;   /* mandatory-prefix column: 0 none, 1 66, 2 F3, 3 F2 (F2/F3 beat 66; of both, the last) */
    uint8_t opcode;   /* last opcode byte */
    uint8_t modrm;    /* if INSN_MODRM */
    uint8_t reg, rm;  /* ModRM.reg and ModRM.rm with REX.R / REX.B */
    int64_t disp;     /* displacement, sign-extended; moffs: the whole address */
    uint64_t imm;     /* immediate or relative displacement, sign-extended to 64 bits as the operation wants it; far
                         pointer: offset */
    uint16_t imm2;    /* far pointer: selector; enter: nesting level */
};

enum decode_status {
    DECODE_OK,
    DECODE_MORE, /* `avail` bytes are not enough (and fewer than 15 were given) */
    DECODE_UD,   /* #UD; `len` is valid up to the opcode */
    DECODE_LONG  /* longer than 15 bytes: #GP(0) */
};

enum code_size { CODE16, CODE32, CODE64 };

/* Decode one instruction of at most min(avail, 15) bytes. `out` is wholly written on DECODE_OK. */
enum decode_status decode_insn(const uint8_t *bytes, unsigned avail, enum code_size mode, struct insn *out);

/* Mnemonic, for traces. Static string. */
const char *op_name(unsigned op);

#endif
