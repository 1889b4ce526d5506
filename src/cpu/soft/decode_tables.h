/* The opcode map as data. Private to decode.c and decode_tables.c. SDM 2, "Opcode Map". */
#ifndef HEC_CPU_SOFT_DECODE_TABLES_H
#define HEC_CPU_SOFT_DECODE_TABLES_H

#include "cpu/soft/decode.h"

/* What an entry is: an instruction, or a further choice among the eight of dec_rows[op]. */
enum dec_kind {
    DK_UD, /* zero, so that a hole in a table is #UD */
    DK_INSN,
    DK_REG,  /* by ModRM.reg (without REX.R) */
    DK_RM,   /* by ModRM.rm (without REX.B) */
    DK_PFX,  /* by mandatory prefix: none, 66, F3, F2 */
    DK_MOD,  /* memory, register */
    DK_MODE, /* 16- or 32-bit code, 64-bit code */
    DK_REXB  /* REX.B clear, set */
};

enum dec_flag {
    DF_MODRM = 1u << 0,   /* has a ModRM byte (only looked at in the first table) */
    DF_LOCK = 1u << 1,    /* LOCK is allowed with a memory destination */
    DF_BYTE = 1u << 2,    /* operates on bytes */
    DF_D64 = 1u << 3,     /* 64-bit code: operand size is 8, or 2 with 66 */
    DF_F64 = 1u << 4,     /* 64-bit code: operand size is 8 whatever the prefixes */
    DF_Z = 1u << 5,       /* operand size is at most 4 */
    DF_I64 = 1u << 6,     /* does not exist in 64-bit code */
    DF_O64 = 1u << 7,     /* exists in 64-bit code only */
    DF_NP = 1u << 8,      /* #UD with 66, F2 or F3 */
    DF_NOREP = 1u << 9,   /* #UD with F2 or F3 */
    DF_RMREG = 1u << 10,  /* ModRM.mod is ignored: rm is a register */
    DF_SRC_SI = 1u << 11, /* the memory operand is seg:rSI */
    DF_DST_DI = 1u << 12, /* the memory operand is ES:rDI */
    DF_BX = 1u << 13,     /* the memory operand is seg:rBX (+ AL) */
    DF_Y = 1u << 15,      /* operand size is 8 with REX.W, else 4 */
    DF_WIDE = 1u << 14    /* operand size is 8 in 64-bit code, else 4 */
};

enum dec_imm {
    DI_NONE,
    DI_IB,    /* a sign-extended byte */
    DI_UB,    /* a zero-extended byte */
    DI_UW,    /* a zero-extended word */
    DI_IZ,    /* a word or doubleword by operand size, sign-extended */
    DI_V,     /* a word, doubleword or quadword by operand size, sign-extended */
    DI_1,     /* the constant 1, no byte */
    DI_FAR,   /* offset by operand size, then a selector */
    DI_ENTER, /* a word, then a byte */
    DI_MOFFS  /* an address by address size */
};

/* Operand forms, named as the opcode map names them where it does. */
enum dec_form {
    DO_NONE,
    DO_Eb,
    DO_Ew,
    DO_Ed,
    DO_Ev,
    DO_Ey,
    DO_Ez,
    DO_Evw, /* Evw: register by operand size, memory a word */
    DO_Rd,
    DO_Rv, /* ModRM.rm, register only */
    DO_Gb,
    DO_Gw,
    DO_Gv,
    DO_Gy,
    DO_Zb,
    DO_Zv, /* register in the opcode byte */
    DO_Ma,
    DO_Mv, /* memory only; Ma: size 0 */
    DO_AL,
    DO_CL,
    DO_rAX,
    DO_DX,
    DO_Ib,
    DO_Iv, /* immediate; its bytes are dec_imm's business */
    DO_Sw,
    DO_SegOp,
    DO_ES,
    DO_SS,
    DO_DS,
    DO_FS,
    DO_GS,
    DO_C, /* control or debug register in ModRM.reg */
    DO_COUNT
};

struct dec_entry {
    uint8_t kind;           /* enum dec_kind */
    uint8_t op;             /* enum op, or a row number */
    uint8_t dst, src, src2; /* enum dec_form */
    uint8_t imm;            /* enum dec_imm */
    uint16_t flags;
};

extern const struct dec_entry dec_map[4][256]; /* one-byte, 0F, 0F38, 0F3A */
extern const struct dec_entry dec_rows[][8];

#endif
