#include "cpu/soft/decode_tables.h"

/* clang-format off */

_Static_assert(OP_COUNT <= 256, "an entry holds the operation in a byte");

#define INSN(o, d, s, s2, i, f) {DK_INSN, OP_##o, DO_##d, DO_##s, DO_##s2, DI_##i, (f)}
#define I0(o, f)          INSN(o, NONE, NONE, NONE, NONE, f)
#define I1(o, d, f)       INSN(o, d, NONE, NONE, NONE, f)
#define IS(o, s, f)       INSN(o, NONE, s, NONE, NONE, f)
#define I2(o, d, s, f)    INSN(o, d, s, NONE, NONE, f)
#define I2I(o, d, s, i, f) INSN(o, d, s, NONE, i, f)
#define ROW(k, r, f)      {DK_##k, ROW_##r, 0, 0, 0, 0, (f)}

#define M   DF_MODRM
#define L   DF_LOCK
#define B   DF_BYTE
#define D64 DF_D64
#define F64 DF_F64
#define I64 DF_I64
#define O64 DF_O64
#define NP  DF_NP
#define NR  DF_NOREP
#define Z   DF_Z

#define X2(x, ...) [x ... (x) + 2 - 1] = __VA_ARGS__
#define X4(x, ...) [x ... (x) + 4 - 1] = __VA_ARGS__
#define X8(x, ...) [x ... (x) + 8 - 1] = __VA_ARGS__
#define X16(x, ...) [x ... (x) + 16 - 1] = __VA_ARGS__

#define ALU(x, o, lock)                                                                                                \
    [x] = I2(o, Eb, Gb, M | B | (lock)), [(x) + 1] = I2(o, Ev, Gv, M | (lock)), [(x) + 2] = I2(o, Gb, Eb, M | B),      \
    [(x) + 3] = I2(o, Gv, Ev, M), [(x) + 4] = I2I(o, AL, Ib, IB, B), [(x) + 5] = I2I(o, rAX, Iv, IZ, 0)

#define SSE  INSN(sse, NONE, NONE, NONE, NONE, M)
#define SSEI INSN(sse, NONE, NONE, NONE, UB, M)

enum row {
    ROW_63, ROW_C4, ROW_C4M, ROW_C5, ROW_C5M, ROW_62, ROW_62M, ROW_82, ROW_90, ROW_90P,
    ROW_1_80, ROW_1_81, ROW_1_83, ROW_1A, ROW_2_C0, ROW_2_C1, ROW_2_D0, ROW_2_D1, ROW_2_D2, ROW_2_D3,
    ROW_3B, ROW_3V, ROW_4, ROW_5, ROW_6, ROW_7, ROW_7_0, ROW_7_0R, ROW_7_1, ROW_7_1R, ROW_7_2, ROW_7_2R, ROW_7_3,
    ROW_7_3R,
    ROW_7_5, ROW_7_5R, ROW_7_7, ROW_7_7R, ROW_8, ROW_9, ROW_9_1, ROW_9_6, ROW_9_6R, ROW_9_7R, ROW_11B, ROW_11V,
    ROW_15, ROW_15M, ROW_15R, ROW_15M0, ROW_15M1, ROW_15M2, ROW_15M3, ROW_15M6, ROW_15M7, ROW_15R0, ROW_15R1, ROW_15R2,
    ROW_15R3, ROW_15R5, ROW_15R6,
    ROW_15R7, ROW_0F0D, ROW_0FB8, ROW_0FBC, ROW_0FBD, ROW_0FC3, ROW_38F0, ROW_38F1, ROW_38F6, ROW_3882, ROW_COUNT
};

const struct dec_entry dec_map[4][256] = {
[0] = {
    ALU(0x00, add, L), ALU(0x08, or, L), ALU(0x10, adc, L), ALU(0x18, sbb, L),
    ALU(0x20, and, L), ALU(0x28, sub, L), ALU(0x30, xor, L), ALU(0x38, cmp, 0),
    [0x06] = IS(push_seg, SegOp, I64), [0x07] = I1(pop_seg, SegOp, I64), [0x0e] = IS(push_seg, SegOp, I64),
    [0x16] = IS(push_seg, SegOp, I64), [0x17] = I1(pop_seg, SegOp, I64),
    [0x1e] = IS(push_seg, SegOp, I64), [0x1f] = I1(pop_seg, SegOp, I64),
    [0x27] = I0(daa, I64 | B), [0x2f] = I0(das, I64 | B), [0x37] = I0(aaa, I64 | B), [0x3f] = I0(aas, I64 | B),
    X8(0x40, I1(inc, Zv, I64)), X8(0x48, I1(dec, Zv, I64)),
    X8(0x50, IS(push, Zv, D64)), X8(0x58, I1(pop, Zv, D64)),
    [0x60] = I0(pusha, I64), [0x61] = I0(popa, I64), [0x62] = ROW(MODE, 62, M), [0x63] = ROW(MODE, 63, M),
    [0x68] = INSN(push, NONE, Iv, NONE, IZ, D64), [0x69] = INSN(imul3, Gv, Ev, Iv, IZ, M),
    [0x6a] = INSN(push, NONE, Iv, NONE, IB, D64), [0x6b] = INSN(imul3, Gv, Ev, Iv, IB, M),
    [0x6c] = I0(ins, B | DF_DST_DI), [0x6d] = I0(ins, Z | DF_DST_DI),
    [0x6e] = I0(outs, B | DF_SRC_SI), [0x6f] = I0(outs, Z | DF_SRC_SI),
    X16(0x70, INSN(jcc, NONE, Iv, NONE, IB, F64)),
    [0x80] = ROW(REG, 1_80, M), [0x81] = ROW(REG, 1_81, M), [0x82] = ROW(MODE, 82, M), [0x83] = ROW(REG, 1_83, M),
    [0x84] = I2(test, Eb, Gb, M | B), [0x85] = I2(test, Ev, Gv, M),
    [0x86] = I2(xchg, Eb, Gb, M | B | L), [0x87] = I2(xchg, Ev, Gv, M | L),
    [0x88] = I2(mov, Eb, Gb, M | B), [0x89] = I2(mov, Ev, Gv, M), [0x8a] = I2(mov, Gb, Eb, M | B),
    [0x8b] = I2(mov, Gv, Ev, M),
    [0x8c] = I2(mov_from_seg, Evw, Sw, M), [0x8d] = I2(lea, Gv, Ma, M), [0x8e] = I2(mov_to_seg, Sw, Ew, M),
    [0x8f] = ROW(REG, 1A, M),
    [0x90] = ROW(REXB, 90, 0), [0x91] = I2(xchg, Zv, rAX, 0), [0x92] = I2(xchg, Zv, rAX, 0),
    [0x93] = I2(xchg, Zv, rAX, 0),
    X4(0x94, I2(xchg, Zv, rAX, 0)),
    [0x98] = I0(cbw, 0), [0x99] = I0(cwd, 0), [0x9a] = INSN(callf, NONE, Iv, NONE, FAR, I64), [0x9b] = I0(x87, 0),
    [0x9c] = I0(pushf, D64), [0x9d] = I0(popf, D64), [0x9e] = I0(sahf, B), [0x9f] = I0(lahf, B),
    [0xa0] = I2I(mov, AL, Mv, MOFFS, B), [0xa1] = I2I(mov, rAX, Mv, MOFFS, 0),
    [0xa2] = I2I(mov, Mv, AL, MOFFS, B), [0xa3] = I2I(mov, Mv, rAX, MOFFS, 0),
    [0xa4] = I0(movs, B | DF_SRC_SI), [0xa5] = I0(movs, DF_SRC_SI), [0xa6] = I0(cmps, B | DF_SRC_SI),
    [0xa7] = I0(cmps, DF_SRC_SI),
    [0xa8] = I2I(test, AL, Ib, IB, B), [0xa9] = I2I(test, rAX, Iv, IZ, 0),
    [0xaa] = I0(stos, B | DF_DST_DI), [0xab] = I0(stos, DF_DST_DI), [0xac] = I0(lods, B | DF_SRC_SI),
    [0xad] = I0(lods, DF_SRC_SI),
    [0xae] = I0(scas, B | DF_DST_DI), [0xaf] = I0(scas, DF_DST_DI),
    X8(0xb0, I2I(mov, Zb, Ib, IB, B)), X8(0xb8, I2I(mov, Zv, Iv, V, 0)),
    [0xc0] = ROW(REG, 2_C0, M), [0xc1] = ROW(REG, 2_C1, M),
    [0xc2] = INSN(ret, NONE, Iv, NONE, UW, F64), [0xc3] = I0(ret, F64),
    [0xc4] = ROW(MODE, C4, M), [0xc5] = ROW(MODE, C5, M), [0xc6] = ROW(REG, 11B, M), [0xc7] = ROW(REG, 11V, M),
    [0xc8] = INSN(enter, NONE, Iv, Ib, ENTER, D64), [0xc9] = I0(leave, D64),
    [0xca] = INSN(retf, NONE, Iv, NONE, UW, 0), [0xcb] = I0(retf, 0), [0xcc] = I0(int3, 0),
    [0xcd] = INSN(int, NONE, Ib, NONE, UB, 0), [0xce] = I0(into, I64), [0xcf] = I0(iret, 0),
    [0xd0] = ROW(REG, 2_D0, M), [0xd1] = ROW(REG, 2_D1, M), [0xd2] = ROW(REG, 2_D2, M), [0xd3] = ROW(REG, 2_D3, M),
    [0xd4] = INSN(aam, NONE, Ib, NONE, UB, I64 | B), [0xd5] = INSN(aad, NONE, Ib, NONE, UB, I64 | B),
    [0xd6] = I0(salc, I64 | B), [0xd7] = I0(xlat, B | DF_BX), X8(0xd8, I0(x87, M)),
    [0xe0] = INSN(loopne, NONE, Iv, NONE, IB, F64), [0xe1] = INSN(loope, NONE, Iv, NONE, IB, F64),
    [0xe2] = INSN(loop, NONE, Iv, NONE, IB, F64), [0xe3] = INSN(jcxz, NONE, Iv, NONE, IB, F64),
    [0xe4] = I2I(in, AL, Ib, UB, B), [0xe5] = I2I(in, rAX, Ib, UB, Z), [0xe6] = I2I(out, Ib, AL, UB, B),
    [0xe7] = I2I(out, Ib, rAX, UB, Z),
    [0xe8] = INSN(call, NONE, Iv, NONE, IZ, F64), [0xe9] = INSN(jmp, NONE, Iv, NONE, IZ, F64),
    [0xea] = INSN(jmpf, NONE, Iv, NONE, FAR, I64), [0xeb] = INSN(jmp, NONE, Iv, NONE, IB, F64),
    [0xec] = I2(in, AL, DX, B), [0xed] = I2(in, rAX, DX, Z), [0xee] = I2(out, DX, AL, B), [0xef] = I2(out, DX, rAX, Z),
    [0xf1] = I0(int1, 0), [0xf4] = I0(hlt, 0), [0xf5] = I0(cmc, 0), [0xf6] = ROW(REG, 3B, M), [0xf7] = ROW(REG, 3V, M),
    [0xf8] = I0(clc, 0), [0xf9] = I0(stc, 0), [0xfa] = I0(cli, 0), [0xfb] = I0(sti, 0), [0xfc] = I0(cld, 0),
    [0xfd] = I0(std, 0),
    [0xfe] = ROW(REG, 4, M), [0xff] = ROW(REG, 5, M),
},
[1] = {
    [0x00] = ROW(REG, 6, M), [0x01] = ROW(REG, 7, M), [0x02] = I2(lar, Gv, Ew, M), [0x03] = I2(lsl, Gv, Ew, M),
    [0x05] = I0(syscall, O64), [0x06] = I0(clts, 0), [0x07] = I0(sysret, O64), [0x08] = I0(invd, 0),
    [0x09] = I0(wbinvd, 0),
    [0x0b] = I0(ud, 0), [0x0d] = ROW(MOD, 0F0D, M),
    X8(0x10, SSE), X8(0x18, I0(nop, M)),
    [0x20] = I2(mov_from_cr, Rv, C, M | DF_RMREG | DF_WIDE), [0x21] = I2(mov_from_dr, Rv, C, M | DF_RMREG | DF_WIDE),
    [0x22] = I2(mov_to_cr, C, Rv, M | DF_RMREG | DF_WIDE), [0x23] = I2(mov_to_dr, C, Rv, M | DF_RMREG | DF_WIDE),
    X8(0x28, SSE),
    [0x30] = I0(wrmsr, 0), [0x31] = I0(rdtsc, 0), [0x32] = I0(rdmsr, 0), [0x33] = I0(rdpmc, 0),
    [0x34] = I0(sysenter, 0), [0x35] = I0(sysexit, 0),
    X16(0x40, I2(cmovcc, Gv, Ev, M)),
    X16(0x50, SSE), X16(0x60, SSE), X4(0x70, SSEI), [0x74] = SSE, [0x75] = SSE, [0x76] = SSE, [0x77] = I0(sse, 0),
    [0x7c] = SSE, [0x7d] = SSE, [0x7e] = SSE, [0x7f] = SSE,
    X16(0x80, INSN(jcc, NONE, Iv, NONE, IZ, F64)), X16(0x90, I1(setcc, Eb, M | B)),
    [0xa0] = IS(push_seg, SegOp, D64), [0xa1] = I1(pop_seg, SegOp, D64), [0xa2] = I0(cpuid, 0),
    [0xa3] = I2(bt, Ev, Gv, M),
    [0xa4] = INSN(shld, Ev, Gv, Ib, UB, M), [0xa5] = INSN(shld, Ev, Gv, CL, NONE, M),
    [0xa8] = IS(push_seg, SegOp, D64), [0xa9] = I1(pop_seg, SegOp, D64), [0xaa] = I0(rsm, 0),
    [0xab] = I2(bts, Ev, Gv, M | L),
    [0xac] = INSN(shrd, Ev, Gv, Ib, UB, M), [0xad] = INSN(shrd, Ev, Gv, CL, NONE, M),
    [0xae] = ROW(MOD, 15, M), [0xaf] = I2(imul2, Gv, Ev, M),
    [0xb0] = I2(cmpxchg, Eb, Gb, M | B | L), [0xb1] = I2(cmpxchg, Ev, Gv, M | L),
    [0xb2] = INSN(load_far_ptr, Gv, Ma, SS, NONE, M), [0xb3] = I2(btr, Ev, Gv, M | L),
    [0xb4] = INSN(load_far_ptr, Gv, Ma, FS, NONE, M), [0xb5] = INSN(load_far_ptr, Gv, Ma, GS, NONE, M),
    [0xb6] = I2(movzx, Gv, Eb, M), [0xb7] = I2(movzx, Gv, Ew, M), [0xb8] = ROW(PFX, 0FB8, M), [0xb9] = I0(ud, M),
    [0xba] = ROW(REG, 8, M), [0xbb] = I2(btc, Ev, Gv, M | L), [0xbc] = ROW(PFX, 0FBC, M), [0xbd] = ROW(PFX, 0FBD, M),
    [0xbe] = I2(movsx, Gv, Eb, M), [0xbf] = I2(movsx, Gv, Ew, M),
    [0xc0] = I2(xadd, Eb, Gb, M | B | L), [0xc1] = I2(xadd, Ev, Gv, M | L),
    [0xc2] = SSEI, [0xc3] = ROW(MOD, 0FC3, M), [0xc4] = SSEI, [0xc5] = SSEI, [0xc6] = SSEI, [0xc7] = ROW(MOD, 9, M),
    X8(0xc8, I1(bswap, Zv, 0)),
    X16(0xd0, SSE), X16(0xe0, SSE), X8(0xf0, SSE), X4(0xf8, SSE), X2(0xfc, SSE), [0xfe] = SSE, [0xff] = I0(ud, M),
},
[2] = {
    X8(0x00, SSE), X4(0x08, SSE), [0x10] = SSE, [0x14] = SSE, [0x15] = SSE, [0x17] = SSE, [0x1c] = SSE, [0x1d] = SSE,
    [0x1e] = SSE,
    X4(0x20, SSE), [0x24] = SSE, [0x25] = SSE, X4(0x28, SSE), X4(0x30, SSE), X2(0x34, SSE), [0x37] = SSE, X8(0x38, SSE),
    [0x40] = SSE, [0x41] = SSE, [0x82] = ROW(PFX, 3882, M), X4(0xc8, SSE), [0xcc] = SSE, [0xcd] = SSE, [0xcf] = SSE,
    [0xdb] = SSE, X4(0xdc, SSE), [0xf0] = ROW(PFX, 38F0, M), [0xf1] = ROW(PFX, 38F1, M), [0xf6] = ROW(PFX, 38F6, M),
},
[3] = {
    X8(0x08, SSEI), X4(0x14, SSEI), [0x20] = SSEI, [0x21] = SSEI, [0x22] = SSEI,
    [0x40] = SSEI, [0x41] = SSEI, [0x42] = SSEI, [0x44] = SSEI, X4(0x60, SSEI), [0xcc] = SSEI, [0xce] = SSEI,
    [0xcf] = SSEI,
    [0xdf] = SSEI,
},
};

#define GRP1(d, s, i, f)                                                                                               \
    {I2I(add, d, s, i, L | f), I2I(or, d, s, i, L | f), I2I(adc, d, s, i, L | f), I2I(sbb, d, s, i, L | f),            \
     I2I(and, d, s, i, L | f), I2I(sub, d, s, i, L | f), I2I(xor, d, s, i, L | f), I2I(cmp, d, s, i, f)}
#define GRP2(d, s, i, f)                                                                                               \
    {I2I(rol, d, s, i, f), I2I(ror, d, s, i, f), I2I(rcl, d, s, i, f), I2I(rcr, d, s, i, f),                           \
     I2I(shl, d, s, i, f), I2I(shr, d, s, i, f), I2I(shl, d, s, i, f), I2I(sar, d, s, i, f)}
#define GRP3(d, s, i, f)                                                                                               \
    {I2I(test, d, s, i, f), I2I(test, d, s, i, f), I1(not, d, L | f), I1(neg, d, L | f), I1(mul, d, f),                \
     I1(imul1, d, f), I1(div, d, f), I1(idiv, d, f)}

const struct dec_entry dec_rows[ROW_COUNT][8] = {
    [ROW_62] = {[0] = ROW(MOD, 62M, 0)}, /* 64-bit: EVEX */
    [ROW_62M] = {[0] = I2(bound, Gv, Ma, 0)},
    [ROW_63] = {[0] = I2(arpl, Ew, Gw, 0), [1] = I2(movsx, Gv, Ez, 0)},
    [ROW_C4] = {[0] = ROW(MOD, C4M, 0)}, /* 64-bit: VEX */
    [ROW_C4M] = {[0] = INSN(load_far_ptr, Gv, Ma, ES, NONE, 0)},
    [ROW_C5] = {[0] = ROW(MOD, C5M, 0)},
    [ROW_C5M] = {[0] = INSN(load_far_ptr, Gv, Ma, DS, NONE, 0)},
    [ROW_82] = {[0] = ROW(REG, 1_80, 0)},
    [ROW_90] = {[0] = ROW(PFX, 90P, 0), [1] = I2(xchg, Zv, rAX, 0)},
    [ROW_90P] = {I0(nop, 0), I0(nop, 0), I0(pause, 0), I0(nop, 0)},
    [ROW_1_80] = GRP1(Eb, Ib, IB, B), [ROW_1_81] = GRP1(Ev, Iv, IZ, 0), [ROW_1_83] = GRP1(Ev, Iv, IB, 0),
    [ROW_1A] = {[0] = I1(pop, Ev, D64)}, /* others: XOP */
    [ROW_2_C0] = GRP2(Eb, Ib, UB, B), [ROW_2_C1] = GRP2(Ev, Ib, UB, 0), [ROW_2_D0] = GRP2(Eb, Ib, 1, B),
    [ROW_2_D1] = GRP2(Ev, Ib, 1, 0), [ROW_2_D2] = GRP2(Eb, CL, NONE, B), [ROW_2_D3] = GRP2(Ev, CL, NONE, 0),
    [ROW_3B] = GRP3(Eb, Ib, IB, B), [ROW_3V] = GRP3(Ev, Iv, IZ, 0),
    [ROW_4] = {I1(inc, Eb, B | L), I1(dec, Eb, B | L)},
    [ROW_5] = {I1(inc, Ev, L), I1(dec, Ev, L), IS(call, Ev, F64), IS(callf, Ma, 0), IS(jmp, Ev, F64), IS(jmpf, Ma, 0),
        IS(push, Ev, D64)},
    [ROW_6] = {I1(sldt, Evw, 0), I1(str, Evw, 0), IS(lldt, Ew, 0), IS(ltr, Ew, 0), IS(verr, Ew, 0), IS(verw, Ew, 0)},
    [ROW_7] = {ROW(MOD, 7_0, 0), ROW(MOD, 7_1, 0), ROW(MOD, 7_2, 0), ROW(MOD, 7_3, 0), I1(smsw, Evw, 0),
        ROW(MOD, 7_5, 0), IS(lmsw, Ew, 0), ROW(MOD, 7_7, 0)},
    [ROW_7_0] = {I1(sgdt, Ma, F64), ROW(RM, 7_0R, 0)},
    [ROW_7_0R] = {[1] = I0(vmcall, NP)},
    [ROW_7_1] = {I1(sidt, Ma, F64), ROW(RM, 7_1R, 0)},
    [ROW_7_1R] = {I0(monitor, NP), I0(mwait, NP), I0(clac, NP), I0(stac, NP)},
    [ROW_7_2] = {IS(lgdt, Ma, F64), ROW(RM, 7_2R, 0)},
    [ROW_7_2R] = {I0(xgetbv, NP), I0(xsetbv, NP)},
    [ROW_7_3] = {IS(lidt, Ma, F64), ROW(RM, 7_3R, 0)},
    [ROW_7_3R] = {[1] = I0(vmmcall, 0)},
    [ROW_7_5] = {[1] = ROW(RM, 7_5R, 0)},
    [ROW_7_5R] = {I0(serialize, NP)},
    [ROW_7_7] = {IS(invlpg, Ma, F64), ROW(RM, 7_7R, 0)},
    [ROW_7_7R] = {I0(swapgs, O64), I0(rdtscp, 0)},
    [ROW_8] = {[4] = I2I(bt, Ev, Ib, UB, 0), [5] = I2I(bts, Ev, Ib, UB, L), [6] = I2I(btr, Ev, Ib, UB, L),
        [7] = I2I(btc, Ev, Ib, UB, L)},
    [ROW_9] = {ROW(REG, 9_1, 0), ROW(REG, 9_6, 0)},
    [ROW_9_1] = {[1] = I1(cmpxchg8b, Ma, L)}, /* REX.W turns it into cmpxchg16b */
    [ROW_9_6] = {[6] = ROW(PFX, 9_6R, 0), [7] = ROW(PFX, 9_7R, 0)},
    [ROW_9_6R] = {I1(rdrand, Rv, 0), I1(rdrand, Rv, 0)},
    [ROW_9_7R] = {I1(rdseed, Rv, 0), I1(rdseed, Rv, 0), I1(rdpid, Rv, DF_WIDE)},
    [ROW_11B] = {I2I(mov, Eb, Ib, IB, B)}, [ROW_11V] = {I2I(mov, Ev, Iv, IZ, 0)},
    [ROW_15] = {ROW(REG, 15M, 0), ROW(REG, 15R, 0)},
    [ROW_15M] = {ROW(PFX, 15M0, 0), ROW(PFX, 15M1, 0), ROW(PFX, 15M2, 0), ROW(PFX, 15M3, 0), [6] = ROW(PFX, 15M6, 0),
        [7] = ROW(PFX, 15M7, 0)},
    [ROW_15M0] = {I0(sse, 0)}, [ROW_15M1] = {I0(sse, 0)}, [ROW_15M2] = {I0(sse, 0)}, [ROW_15M3] = {I0(sse, 0)},
    [ROW_15M6] = {[1] = IS(clflush, Eb, 0)}, [ROW_15M7] = {IS(clflush, Eb, 0), IS(clflush, Eb, 0)},
    [ROW_15R] = {ROW(PFX, 15R0, 0), ROW(PFX, 15R1, 0), ROW(PFX, 15R2, 0), ROW(PFX, 15R3, 0), [5] = ROW(PFX, 15R5, 0),
        [6] = ROW(PFX, 15R6, 0), [7] = ROW(PFX, 15R7, 0)},
    [ROW_15R0] = {[2] = I1(rdfsbase, Rv, O64 | DF_Y)}, [ROW_15R1] = {[2] = I1(rdgsbase, Rv, O64 | DF_Y)},
    [ROW_15R2] = {[2] = IS(wrfsbase, Rv, O64 | DF_Y)}, [ROW_15R3] = {[2] = IS(wrgsbase, Rv, O64 | DF_Y)},
    [ROW_15R5] = {I0(lfence, 0)}, [ROW_15R7] = {I0(sfence, 0)},
    [ROW_15R6] = {I0(mfence, 0), IS(tpause, Rd, 0), IS(umonitor, Rv, 0), IS(umwait, Rd, 0)},
    [ROW_0F0D] = {IS(prefetch, Eb, 0), I0(nop, 0)},
    [ROW_0FB8] = {[2] = I2(popcnt, Gv, Ev, 0)},
    [ROW_0FBC] = {I2(bsf, Gv, Ev, 0), I2(bsf, Gv, Ev, 0), I2(tzcnt, Gv, Ev, 0), I2(bsf, Gv, Ev, 0)},
    [ROW_0FBD] = {I2(bsr, Gv, Ev, 0), I2(bsr, Gv, Ev, 0), I2(lzcnt, Gv, Ev, 0), I2(bsr, Gv, Ev, 0)},
    [ROW_0FC3] = {I2(movnti, Ey, Gy, NP)},
    [ROW_38F0] = {I2(movbe, Gv, Mv, 0), I2(movbe, Gv, Mv, 0), [3] = I2(crc32, Gy, Eb, 0)},
    [ROW_38F1] = {I2(movbe, Mv, Gv, 0), I2(movbe, Mv, Gv, 0), [3] = I2(crc32, Gy, Ev, 0)},
    [ROW_38F6] = {[1] = I2(adcx, Gy, Ey, 0), [2] = I2(adox, Gy, Ey, 0)},
    [ROW_3882] = {[1] = I2(invpcid, Gv, Ma, DF_WIDE)},
};
