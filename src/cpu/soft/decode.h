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
    INSN_REP = 1u << 1,   /* F3 is the last of F2 and F3 */
    INSN_REPNE = 1u << 2, /* F2 is the last of F2 and F3 */
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
    uint8_t seg;         /* segment of the memory operand: the default (DS, or SS for rBP/rSP bases) or the override; in
                            64-bit mode only FS and GS overrides count */
    uint8_t base, index; /* 0..15, INSN_NO_REG, INSN_RIP (base only: disp is from the next instruction) */
    uint8_t scale;       /* shift 0..3 */
    uint8_t map;         /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
    uint8_t prefix;      /* mandatory-prefix column: 0 none, 1 66, 2 F3, 3 F2 (F2/F3 beat 66; of both, the last) */
    uint8_t opcode;      /* last opcode byte */
    uint8_t modrm;       /* if INSN_MODRM */
    uint8_t reg, rm;     /* ModRM.reg and ModRM.rm with REX.R / REX.B */
    int64_t disp;        /* displacement, sign-extended; moffs: the whole address */
    uint64_t imm;        /* immediate or relative displacement, sign-extended to 64 bits as the operation wants it; far
                            pointer: offset */
    uint16_t imm2;       /* far pointer: selector; enter: nesting level */
};

/* Operands, operation by operation, where the names alone don't tell.
 *
 * Immediates: imm is sign-extended to 64 bits and the operand's size says how much of it counts, except where it is
 * unsigned by nature (zero-extended): shift counts, INT, IN/OUT, AAM/AAD, ENTER, RET, bit numbers, SSE imm8.
 *   add .. cmp test mov xchg xadd cmpxchg movbe   dst, src of one size (crc32: dst 4 or 8, src 1, 2, 4 or 8)
 *   shifts, rotates       dst; src: IMM (1 or imm8) or REG CL of size 1. shld, shrd: dst, src, src2: IMM or REG CL
 *   inc dec neg not bswap setcc    dst
 *   mul imul1 div idiv    dst: the explicit r/m operand; rAX and rDX are implied by opsize
 *   imul2: dst, src.      imul3: dst, src, src2 = IMM
 *   bt bts btr btc        dst, src: REG (for memory a signed bit offset of any size) or IMM (taken modulo the size)
 *   movzx movsx           dst of opsize, src smaller (movsxd is movsx with src of 4; without REX.W src and dst are of
 *                         one size and it is a plain move)
 *   lea                   dst, src: MEM of size 0. cbw, cwd: none; opsize 2, 4, 8 tells cbw/cwde/cdqe and cwd/cdq/cqo
 *   push: src (IMM is sign-extended). pop: dst. pushf, popf, pusha, popa, leave: opsize
 *   jmp call              src: IMM (displacement; opsize 2 wraps IP to 16 bits) or the REG or MEM that holds the target
 *   jcc loop.. jcxz       src: IMM displacement; rCX has addrsize. ret, retf: src: IMM if bytes are to be released
 *   jmpf callf            src: IMM (offset in imm, selector in imm2) or MEM of size 0: offset of opsize, then selector
 *   int: src IMM. enter: src IMM, src2 IMM (level, in imm2). iret: opsize
 *   in: dst AL/rAX, src IMM or REG DX. out: dst IMM or REG DX, src AL/rAX
 *   movs cmps lods outs   no operands: opsize is the element's, seg the source's (base rSI); stos scas ins: seg ES, rDI
 *   xlat                  no operands: seg, base rBX
 *   mov_to_seg: dst.reg, mov_from_seg: src.reg is enum cpu_seg; the other operand: REG of opsize (from) or 2 (to), or
 *                         MEM of 2. push_seg: src, pop_seg: dst
 *   load_far_ptr          dst: general register, src: MEM of size 0 (offset of opsize, then selector), src2.reg: enum
 *                         cpu_seg
 *   mov_to_cr, .._dr: dst.reg the control register (0, 2, 3, 4, 8; DR 0..7), src; mov_from_..: dst, src.reg. Size is 8
 *                         in 64-bit code, else 4
 *   lgdt lidt invlpg: src, sgdt sidt: dst: MEM of size 0; opsize is 8 in 64-bit code
 *   sldt str smsw: dst REG of opsize or MEM of 2. lldt ltr verr verw lmsw: src of 2. lar lsl: dst, src of 2
 *   cmpxchg8b cmpxchg16b: dst MEM of size 0. invpcid: dst REG, src MEM of size 0. bound: dst REG, src MEM of size 0
 *   clflush prefetch: src MEM of 1. tpause umwait umonitor: src REG
 *   rd/wr fs/gs base, rdrand, rdseed, rdpid: dst (wr: src) REG of opsize
 *   arpl: dst, src of 2. aam aad: src IMM
 *   sse x87               no operands: map, prefix, opcode, modrm, reg, rm, imm, and the memory operand if INSN_MEM.
 *                         Unknown encodings of the x87 and SSE opcodes are DECODE_OK: their executors say #UD
 */

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
