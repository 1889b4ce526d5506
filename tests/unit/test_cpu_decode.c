/* The decoder against Zydis: random bytes in all three code sizes, lengths and operands; and directed cases for what
 * Zydis does not say (status codes, truncation, implied addresses).
 *
 * Where the two disagree on purpose:
 * - extensions our CPU model does not have are #UD here (outside_the_model());
 * - unknown encodings of x87 and SSE opcodes are DECODE_OK here, their executors say #UD;
 * - F3 90 with REX.B is XCHG r8, rAX here and on AMD's CPUs, and PAUSE in Zydis;
 * - MOVSXD with 66 reads 16 bits here (SDM 2, MOVSXD), 32 in Zydis;
 * - Zydis 4.0 names r13d as base and no displacement for SIB without a base when both 67 and REX.B are there;
 * - some operands are written differently: see shape_differs() and mem_agrees().
 */
#include "base/bits.h"
#include "cpu/soft/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <Zydis/Zydis.h>
#include <cmocka.h>

static const char *const mode_names[] = {"16", "32", "64"};

struct ctx {
    ZydisDecoder dec[3];
    uint64_t rng;
    unsigned long compared, complaints;
};

static uint64_t rnd(struct ctx *c)
{
    c->rng ^= c->rng << 13;
    c->rng ^= c->rng >> 7;
    c->rng ^= c->rng << 17;
    return c->rng * 0x2545f4914f6cdd1d;
}

static void ctx_init(struct ctx *c)
{
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_KNC, ZYDIS_DECODER_MODE_CET,
                                           ZYDIS_DECODER_MODE_CLDEMOTE};
    *c = (struct ctx){.rng = 0x9e3779b97f4a7c15};
    ZydisDecoderInit(&c->dec[CODE16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&c->dec[CODE32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&c->dec[CODE64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < ARRAY_SIZE(off); j++)
            ZydisDecoderEnableMode(&c->dec[i], off[j], ZYAN_FALSE);
}

/* ---- differences that are meant ---- */

static bool outside_the_model(const ZydisDecodedInstruction *z)
{
    static const uint16_t sets[] = {
        ZYDIS_ISA_SET_AMD, /* SYSCALL and SYSRET outside 64-bit code */
        ZYDIS_ISA_SET_AMD3DNOW,    ZYDIS_ISA_SET_AMD_INVLPGB, ZYDIS_ISA_SET_VMFUNC,
        ZYDIS_ISA_SET_VTX,         ZYDIS_ISA_SET_SVM,         ZYDIS_ISA_SET_SMX,
        ZYDIS_ISA_SET_SGX,         ZYDIS_ISA_SET_SGX_ENCLV,   ZYDIS_ISA_SET_XSAVE,
        ZYDIS_ISA_SET_XSAVEC,      ZYDIS_ISA_SET_XSAVEOPT,    ZYDIS_ISA_SET_XSAVES,
        ZYDIS_ISA_SET_RTM,         ZYDIS_ISA_SET_PKU,         ZYDIS_ISA_SET_CET,
        ZYDIS_ISA_SET_MONITORX,    ZYDIS_ISA_SET_CLZERO,      ZYDIS_ISA_SET_RDPRU,
        ZYDIS_ISA_SET_SNP,         ZYDIS_ISA_SET_MCOMMIT,     ZYDIS_ISA_SET_PCONFIG,
        ZYDIS_ISA_SET_PT,          ZYDIS_ISA_SET_MOVDIR,      ZYDIS_ISA_SET_ENQCMD,
        ZYDIS_ISA_SET_UINTR,       ZYDIS_ISA_SET_HRESET,      ZYDIS_ISA_SET_SSE4A,
        ZYDIS_ISA_SET_TDX,         ZYDIS_ISA_SET_KEYLOCKER,   ZYDIS_ISA_SET_KEYLOCKER_WIDE,
        ZYDIS_ISA_SET_TSX_LDTRK,   ZYDIS_ISA_SET_PADLOCK_ACE, ZYDIS_ISA_SET_PADLOCK_PHE,
        ZYDIS_ISA_SET_PADLOCK_PMM, ZYDIS_ISA_SET_PADLOCK_RNG,
    };
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return true;
    for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
        if (z->meta.isa_set == sets[i])
            return true;
    return false;
}

/* Operations whose operands we write otherwise than Zydis (decode.h says how), or whose memory sizes differ in name
 * only. */
static bool shape_differs(unsigned op)
{
    switch (op) {
    case OP_sse:
    case OP_x87:
    case OP_nop:
    case OP_pause:
    case OP_movs:
    case OP_cmps:
    case OP_scas:
    case OP_lods:
    case OP_stos:
    case OP_ins:
    case OP_outs:
    case OP_ud:
    case OP_load_far_ptr:
    case OP_int1:
    case OP_int3:
        return true;
    default:
        return false;
    }
}

/* ---- comparing ---- */

static ZydisRegister gpr_name(unsigned reg, unsigned size)
{
    static const ZydisRegister high[] = {ZYDIS_REGISTER_AH, ZYDIS_REGISTER_CH, ZYDIS_REGISTER_DH, ZYDIS_REGISTER_BH};
    switch (size) {
    case 1:
        if (reg >= OPND_AH)
            return high[reg - OPND_AH];
        return reg < 4 ? ZYDIS_REGISTER_AL + (ZydisRegister)reg : ZYDIS_REGISTER_SPL + (ZydisRegister)(reg - 4);
    case 2:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, (uint8_t)reg);
    case 4:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, (uint8_t)reg);
    default:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, (uint8_t)reg);
    }
}

static bool reg_agrees(const struct insn *in, const struct opnd *o, const ZydisDecodedOperand *z)
{
    switch (ZydisRegisterGetClass(z->reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
    case ZYDIS_REGCLASS_DEBUG:
        return ZydisRegisterGetId(z->reg.value) == o->reg;
    default:
        break;
    }
    /* 16-bit sources that Zydis shows as the whole register */
    if (in->op == OP_lsl || in->op == OP_lar || in->op == OP_mov_to_seg || in->op == OP_rdpid || in->op == OP_umonitor)
        return ZydisRegisterGetId(z->reg.value) == o->reg;
    return z->reg.value == gpr_name(o->reg, o->size);
}

static ZydisRegister address_reg(const struct insn *in, unsigned reg)
{
    if (reg == INSN_NO_REG)
        return ZYDIS_REGISTER_NONE;
    if (reg == INSN_RIP)
        return in->addrsize == 8 ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
    return gpr_name(reg, in->addrsize);
}

static bool mem_agrees(const struct insn *in, const struct opnd *o, const ZydisDecodedOperand *z)
{
    uint64_t mask = size_mask(in->addrsize);
    bool moffs = in->base == INSN_NO_REG && in->index == INSN_NO_REG && !(in->flags & INSN_MODRM);
    uint64_t disp = z->mem.disp.has_displacement ? (uint64_t)z->mem.disp.value : 0;
    bool seg = in->op == OP_lea || ZydisRegisterGetId(z->mem.segment) == in->seg;
    bool size = !o->size || z->size == o->size * 8u || in->op == OP_clflush || in->op == OP_prefetch ||
                (in->op == OP_movsx && in->opsize == 2);
    return seg && size && z->mem.base == address_reg(in, in->base) && z->mem.index == address_reg(in, in->index) &&
           (in->index == INSN_NO_REG || z->mem.scale == 1u << in->scale) &&
           (moffs ? !(((uint64_t)in->disp ^ disp) & mask) : (uint64_t)in->disp == disp);
}

static bool opnd_agrees(const struct insn *in, const struct opnd *o, const ZydisDecodedOperand *z)
{
    switch (z->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return o->kind == OPND_REG && reg_agrees(in, o, z);
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return o->kind == OPND_MEM && mem_agrees(in, o, z);
    case ZYDIS_OPERAND_TYPE_POINTER:
        return o->kind == OPND_IMM && in->imm == z->ptr.offset && in->imm2 == z->ptr.segment;
    default:
        if (in->op == OP_enter && o == &in->src2)
            return o->kind == OPND_IMM && in->imm2 == z->imm.value.u;
        return o->kind == OPND_IMM && !((in->imm ^ z->imm.value.u) & size_mask(z->imm.is_signed ? 8 : o->size));
    }
}

static bool operands_agree(const struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    const struct opnd *ours[] = {&in->dst, &in->src, &in->src2};
    unsigned j = 0;
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        while (j < 3 && ours[j]->kind == OPND_NONE)
            j++;
        if (j == 3 || !opnd_agrees(in, ours[j++], &ops[i]))
            return false;
    }
    while (j < 3 && ours[j]->kind == OPND_NONE)
        j++;
    return j == 3;
}

static void complain(struct ctx *c, const char *what, const uint8_t *b, unsigned mode, const struct insn *in,
                     const ZydisDecodedInstruction *z)
{
    if (c->complaints++ > 60)
        return;
    printf("%s: %s-bit:", what, mode_names[mode]);
    for (unsigned i = 0; i < 15; i++)
        printf(" %02x", b[i]);
    printf(" | ours %s len %u opsize %u", op_name(in->op), in->len, in->opsize);
    if (z)
        printf(" | zydis %s len %u opsize %u set %s", ZydisMnemonicGetString(z->mnemonic), z->length,
               z->operand_width / 8, ZydisISASetGetString(z->meta.isa_set));
    printf("\n");
}

/* XCHG against PAUSE, and the base that is not there. */
static bool zydis_errs(const struct insn *in)
{
    bool no_base = in->flags & INSN_MEM && in->flags & INSN_MODRM && (in->modrm & 0xc7) == 4 && in->base == INSN_NO_REG;
    return (in->op == OP_xchg && in->opcode == 0x90 && in->prefix == 2) ||
           (no_base && in->addrsize == 4 && in->flags & INSN_REX);
}

static void compare(struct ctx *c, const uint8_t *b, unsigned mode)
{
    struct insn in;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    enum decode_status st = decode_insn(b, 15, mode, &in);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&c->dec[mode], b, 15, &z, ops))) {
        if (st == DECODE_OK && in.op != OP_sse && in.op != OP_x87)
            complain(c, "only ours", b, mode, &in, NULL);
        return;
    }
    if (st != DECODE_OK) {
        if (!outside_the_model(&z))
            complain(c, "only zydis", b, mode, &in, &z);
        return;
    }
    c->compared++;
    if (in.len != z.length)
        complain(c, "length", b, mode, &in, &z);
    else if (in.addrsize != z.address_width / 8)
        complain(c, "address size", b, mode, &in, &z);
    else if (!shape_differs(in.op) && !zydis_errs(&in) && !operands_agree(&in, &z, ops))
        complain(c, "operands", b, mode, &in, &z);
}

/* Random bytes, with prefixes and the longer maps much more likely than chance makes them. */
static void random_insn(struct ctx *c, uint8_t b[16])
{
    static const uint8_t pfx[16] = {0x66, 0x66, 0xf2, 0xf3, 0xf3, 0xf0, 0x67, 0x64,
                                    0x65, 0x2e, 0x36, 0x48, 0x41, 0x4c, 0x40, 0x45};
    uint64_t r = rnd(c);
    st64(b, rnd(c));
    st64(b + 8, rnd(c));
    unsigned n = 0;
    for (; n < 5 && r & 1; n++, r >>= 5)
        b[n] = pfx[r >> 1 & 15];
    r >>= 5;
    if (r & 1)
        b[n++] = 0x0f;
    if ((r & 7) == 7)
        b[n++] = 0x38 | (r >> 3 & 2);
}

static void random_bytes_agree(void **state)
{
    struct ctx c;
    ctx_init(&c);
    for (unsigned i = 0; i < 3000000; i++) {
        uint8_t b[16];
        random_insn(&c, b);
        compare(&c, b, i % 3);
    }
    assert_int_equal(c.complaints, 0);
    assert_true(c.compared > 1500000);
}

/* Every opcode of every map with every ModRM byte, every mandatory prefix, with and without REX. */
static void every_opcode_and_modrm_agrees(void **state)
{
    static const char *const starts[] = {"",         "\x66",     "\xf3", "\xf2",     "\x48",    "\x66\x48",
                                         "\xf3\x48", "\xf2\x4f", "\x41", "\x67\x64", "\xf0\x66"};
    static const char *const maps[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};
    struct ctx c;
    ctx_init(&c);
    for (unsigned i = 0; i < ARRAY_SIZE(starts) * 4 * 65536; i++) {
        uint8_t b[24] = {0};
        const char *start = starts[i >> 18], *map = maps[i >> 16 & 3];
        size_t n = strlen(start), m = strlen(map);
        memcpy(b, start, n);
        memcpy(b + n, map, m);
        b[n + m] = (uint8_t)(i >> 8);
        b[n + m + 1] = (uint8_t)i;
        st64(b + n + m + 2, rnd(&c));
        for (unsigned mode = 0; mode < 3; mode++)
            compare(&c, b, mode);
    }
    assert_int_equal(c.complaints, 0);
}

/* ---- directed ---- */

static void a_cut_instruction_asks_for_more_at_every_byte(void **state)
{
    struct ctx c;
    ctx_init(&c);
    for (unsigned i = 0; i < 300000; i++) {
        uint8_t b[16];
        struct insn whole, cut;
        random_insn(&c, b);
        if (decode_insn(b, 15, i % 3, &whole) != DECODE_OK)
            continue;
        for (unsigned n = 0; n < whole.len; n++)
            assert_int_equal(decode_insn(b, n, i % 3, &cut), DECODE_MORE);
        assert_int_equal(decode_insn(b, whole.len, i % 3, &cut), DECODE_OK);
        assert_memory_equal(&whole, &cut, sizeof cut);
    }
}

static void more_than_15_bytes_is_too_long(void **state)
{
    uint8_t b[64];
    struct insn in;
    memset(b, 0x66, sizeof b);
    for (unsigned mode = 0; mode < 3; mode++) {
        assert_int_equal(decode_insn(b, sizeof b, mode, &in), DECODE_LONG);
        assert_int_equal(decode_insn(b, 14, mode, &in), DECODE_MORE);
    }
    b[14] = 0x90;
    assert_int_equal(decode_insn(b, sizeof b, CODE64, &in), DECODE_OK);
    assert_int_equal(in.len, 15);
    b[14] = 0xb0; /* MOV AL, imm8: the 16th byte */
    assert_int_equal(decode_insn(b, sizeof b, CODE64, &in), DECODE_LONG);
    assert_int_equal(decode_insn(b, 15, CODE64, &in), DECODE_LONG);
}

static struct insn ok(enum code_size mode, const char *bytes, unsigned n)
{
    struct insn in;
    assert_int_equal(decode_insn((const uint8_t *)bytes, n, mode, &in), DECODE_OK);
    assert_int_equal(in.len, n);
    return in;
}
#define OK(mode, bytes) ok(mode, bytes, sizeof(bytes) - 1)

static void ud(enum code_size mode, const char *bytes, unsigned n)
{
    struct insn in;
    assert_int_equal(decode_insn((const uint8_t *)bytes, n, mode, &in), DECODE_UD);
}
#define UD(mode, bytes) ud(mode, bytes, sizeof(bytes) - 1)

static void implied_addresses_are_filled_in(void **state)
{
    struct insn in = OK(CODE64, "\x65\xf3\x48\xa5"); /* REP MOVSQ from GS */
    assert_int_equal(in.op, OP_movs);
    assert_int_equal(in.opsize, 8);
    assert_int_equal(in.seg, SEG_GS);
    assert_int_equal(in.base, RSI);
    assert_true(in.flags & INSN_REP && in.flags & INSN_MEM);
    in = OK(CODE32, "\x64\xaa"); /* STOSB ignores the override */
    assert_int_equal(in.seg, SEG_ES);
    assert_int_equal(in.base, RDI);
    in = OK(CODE32, "\x2e\xd7");
    assert_int_equal(in.op, OP_xlat);
    assert_int_equal(in.seg, SEG_CS);
    assert_int_equal(in.base, RBX);
}

static void operand_sizes_default_to_64_bits_where_they_should(void **state)
{
    assert_int_equal(OK(CODE64, "\x50").opsize, 8);
    assert_int_equal(OK(CODE64, "\x66\x50").opsize, 2);
    assert_int_equal(OK(CODE64, "\x66\x9c").opsize, 2);
    assert_int_equal(OK(CODE64, "\x66\xc3").opsize, 8); /* near branches: 66 does not count */
    assert_int_equal(OK(CODE64, "\x66\xe8\0\0\0\0").opsize, 8);
    assert_int_equal(OK(CODE64, "\xcb").opsize, 4);
    assert_int_equal(OK(CODE64, "\x48\xcf").opsize, 8);
    assert_int_equal(OK(CODE32, "\x66\xe9\x00\x80").imm, (uint64_t)-0x8000);
    assert_int_equal(OK(CODE64, "\x48\xed").opsize, 4);
    assert_int_equal(OK(CODE64, "\x0f\x20\xc0").opsize, 8);
    assert_int_equal(OK(CODE64, "\x44\x0f\x22\xc0").dst.reg, 8);
}

static void rex_counts_only_right_before_the_opcode(void **state)
{
    struct insn in = OK(CODE64, "\x48\x66\x01\xc0");
    assert_int_equal(in.opsize, 2);
    assert_false(in.flags & INSN_REX);
    in = OK(CODE64, "\x88\xe0");
    assert_int_equal(in.src.reg, OPND_AH);
    in = OK(CODE64, "\x40\x88\xe0");
    assert_int_equal(in.src.reg, RSP);
}

static void lock_needs_a_memory_destination_of_the_right_kind(void **state)
{
    OK(CODE64, "\xf0\x01\x00");
    OK(CODE64, "\xf0\x0f\xc7\x08");
    OK(CODE64, "\xf0\x86\x00");
    UD(CODE64, "\xf0\x01\xc0");
    UD(CODE64, "\xf0\x03\x00");
    UD(CODE64, "\xf0\x39\x00");
    UD(CODE64, "\xf0\x90");
    UD(CODE64, "\xf0\x0f\x20\xc0");
    UD(CODE32, "\xf0\xa4");
}

static void moffs_and_far_pointers_are_whole(void **state)
{
    struct insn in = OK(CODE64, "\x64\xa1\x88\x77\x66\x55\x44\x33\x22\x91");
    assert_true(in.disp == (int64_t)0x9122334455667788);
    assert_int_equal(in.seg, SEG_FS);
    assert_int_equal(in.src.kind, OPND_MEM);
    in = OK(CODE64, "\x67\xa0\x88\x77\x66\x85");
    assert_true(in.disp == 0x85667788);
    in = OK(CODE32, "\xea\x88\x77\x66\x85\x34\x12");
    assert_int_equal(in.imm, 0x85667788);
    assert_int_equal(in.imm2, 0x1234);
}

static void prefixed_families_resolve(void **state)
{
    assert_int_equal(OK(CODE64, "\xf3\x90").op, OP_pause);
    assert_int_equal(OK(CODE64, "\x66\x90").op, OP_nop);
    assert_int_equal(OK(CODE64, "\x41\x90").op, OP_xchg);
    assert_int_equal(OK(CODE64, "\xf3\x0f\x1e\xfa").op, OP_nop);
    assert_int_equal(OK(CODE64, "\xf3\x0f\xbc\xc0").op, OP_tzcnt);
    assert_int_equal(OK(CODE64, "\x66\x0f\xae\xf1").op, OP_tpause);
    assert_int_equal(OK(CODE64, "\xf3\x0f\xae\xf1").op, OP_umonitor);
    assert_int_equal(OK(CODE64, "\xf2\x0f\xae\xf1").op, OP_umwait);
    assert_int_equal(OK(CODE64, "\xf3\x0f\xae\xd8").op, OP_wrgsbase);
    assert_int_equal(OK(CODE64, "\x0f\xae\x00").op, OP_sse);
    assert_int_equal(OK(CODE64, "\x48\x0f\xc7\x08").op, OP_cmpxchg16b);
    assert_int_equal(OK(CODE64, "\xf3\x0f\xc7\xf8").op, OP_rdpid);
    assert_int_equal(OK(CODE64, "\x66\xf2\x0f\x38\xf1\xc0").op, OP_crc32);
    assert_int_equal(OK(CODE32, "\xc4\x00").op, OP_load_far_ptr);
    UD(CODE32, "\xc4\xc0\0\0\0");
    UD(CODE64, "\xc5\xf8\x77");
    UD(CODE64, "\x62\xf1\x7c\x48\x28\xc0");
}

static void names_are_known(void **state)
{
    assert_string_equal(op_name(OP_cmpxchg16b), "cmpxchg16b");
    assert_string_equal(op_name(OP_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_bytes_agree),
        cmocka_unit_test(every_opcode_and_modrm_agrees),
        cmocka_unit_test(a_cut_instruction_asks_for_more_at_every_byte),
        cmocka_unit_test(more_than_15_bytes_is_too_long),
        cmocka_unit_test(implied_addresses_are_filled_in),
        cmocka_unit_test(operand_sizes_default_to_64_bits_where_they_should),
        cmocka_unit_test(rex_counts_only_right_before_the_opcode),
        cmocka_unit_test(lock_needs_a_memory_destination_of_the_right_kind),
        cmocka_unit_test(moffs_and_far_pointers_are_whole),
        cmocka_unit_test(prefixed_families_resolve),
        cmocka_unit_test(names_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
