/* The assembler against a disassembler: every function of asm.h, said with every register in every role, every form of
 * address, every size, immediates and displacements where encodings change; Zydis must read exactly what was asked for.
 * And buffers that end at every byte. */
#include "cpu/jit/asm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <Zydis/Zydis.h>
#include <cmocka.h>

#define AWAY INT64_C(0x345670) /* where code runs, from where it is written */

static const unsigned sizes[] = {1, 2, 4, 8};

/* ---- what is expected ---- */

enum kind { W_NONE, W_REG, W_HIGH, W_RM, W_IMM, W_TO }; /* W_HIGH: AH, CH, DH, BH */

struct operand {
    enum kind kind;
    unsigned size; /* bytes */
    struct rm rm;  /* W_REG, too */
    uint64_t imm;  /* W_TO: where to */
};

struct want {
    ZydisMnemonic name;
    bool lock;
    struct operand op[3];
};

static struct operand reg(unsigned size, unsigned r)
{
    return (struct operand){.kind = W_REG, .size = size, .rm = rm_reg(r)};
}

static struct operand rm(unsigned size, struct rm at)
{
    return (struct operand){.kind = at.kind == RM_REG ? W_REG : W_RM, .size = size, .rm = at};
}

/* `size` is that of the operand it is used with. */
static struct operand imm(unsigned size, uint64_t val)
{
    return (struct operand){.kind = W_IMM, .size = size, .imm = val};
}

static struct operand to(const void *p)
{
    return (struct operand){.kind = W_TO, .imm = (uintptr_t)p};
}

/* ---- the comparison ---- */

struct rig {
    ZydisDecoder dec;
    uint8_t code[64];
    struct asm_buf a;
};

struct read {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t end; /* as run */
};

static struct asm_buf *begin(struct rig *r)
{
    memset(r->code, 0xcc, sizeof r->code);
    r->a = (struct asm_buf){.at = r->code, .end = r->code + sizeof r->code, .run = AWAY};
    return &r->a;
}

static ZydisRegister zydis_reg(unsigned size, unsigned r)
{
    if (r == H_NONE)
        return ZYDIS_REGISTER_NONE;
    switch (size) {
    case 1:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR8, (ZyanU8)(r < 4 ? r : r + 4)); /* behind AL .. BL are AH .. BH */
    case 2:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, (ZyanU8)r);
    case 4:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, (ZyanU8)r);
    default:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, (ZyanU8)r);
    }
}

static bool same_memory(const struct read *d, const ZydisDecodedOperand *o, const struct rm *w)
{
    bool plain = o->mem.segment == ZYDIS_REGISTER_DS || o->mem.segment == ZYDIS_REGISTER_SS;
    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !plain || d->z.address_width != 64)
        return false;
    if (w->kind == RM_NEAR)
        return o->mem.base == ZYDIS_REGISTER_RIP && o->mem.index == ZYDIS_REGISTER_NONE &&
               d->end + (uint64_t)o->mem.disp.value == (uintptr_t)w->near;
    return o->mem.base == zydis_reg(8, w->base) && o->mem.index == zydis_reg(8, w->index) &&
           (w->index == H_NONE || o->mem.scale == 1 << w->scale) && o->mem.disp.value == w->disp;
}

static bool same_imm(const struct operand *w, const ZydisDecodedOperand *o)
{
    uint64_t mask = w->size == 8 ? ~UINT64_C(0) : (UINT64_C(1) << 8 * w->size) - 1;
    return o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !((o->imm.value.u ^ w->imm) & mask);
}

static bool same_operand(const struct read *d, const ZydisDecodedOperand *o, const struct operand *w)
{
    switch (w->kind) {
    case W_REG:
        return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == zydis_reg(w->size, w->rm.reg);
    case W_HIGH:
        return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value - ZYDIS_REGISTER_AH == w->rm.reg;
    case W_RM:
        return same_memory(d, o, &w->rm) && (o->size == w->size * 8 || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN);
    case W_IMM:
        return same_imm(w, o);
    case W_TO:
        return o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative && d->end + o->imm.value.u == w->imm;
    default:
        return false;
    }
}

static bool same_instruction(const struct read *d, const struct want *w)
{
    unsigned n = 0;
    bool lock = d->z.attributes & ZYDIS_ATTRIB_HAS_LOCK;
    while (n < ARRAY_SIZE(w->op) && w->op[n].kind) {
        if (n == d->z.operand_count_visible || !same_operand(d, &d->ops[n], &w->op[n]))
            return false;
        n++;
    }
    return d->z.mnemonic == w->name && n == d->z.operand_count_visible && lock == w->lock &&
           !(d->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT);
}

static void complain(const struct rig *r, const struct want *w)
{
    char hex[64] = "";
    for (const uint8_t *p = r->code; p < r->a.at && p < r->code + 20; p++)
        snprintf(hex + 3 * (p - r->code), 4, "%02x ", *p);
    fail_msg("not what was asked for, %s: %s", ZydisMnemonicGetString(w->name), hex);
}

/* Since begin() this one instruction has been written. */
static void expect(struct rig *r, const struct want *w)
{
    struct read d;
    size_t len = (size_t)(r->a.at - r->code);
    d.end = (uintptr_t)r->a.at + AWAY;
    assert_false(r->a.full);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&r->dec, r->code, len, &d.z, d.ops)) || d.z.length != len ||
        !same_instruction(&d, w))
        complain(r, w);
}

/* ---- addresses ---- */

typedef void with_rm(struct rig *r, unsigned size, unsigned reg, struct rm at);

static const int32_t disps[] = {0, 1, -1, 127, 128, -128, -129, 0x1234, INT32_MAX, INT32_MIN};

static void each_based(struct rig *r, with_rm *fn, unsigned size, unsigned reg)
{
    for (unsigned base = 0; base < 16; base++)
        for (unsigned d = 0; d < ARRAY_SIZE(disps); d++)
            fn(r, size, reg, rm_mem(base, disps[d]));
}

static void each_indexed(struct rig *r, with_rm *fn, unsigned size, unsigned reg)
{
    for (unsigned i = 0; i < 17 * 16 * 4; i++) { /* base, or H_NONE; index; scale */
        unsigned base = i >> 6, index = i >> 2 & 15;
        if (index != H_SP)
            for (unsigned d = 0; d < ARRAY_SIZE(disps); d++)
                fn(r, size, reg, rm_sib(base, index, i & 3, disps[d]));
    }
}

static void each_near(struct rig *r, with_rm *fn, unsigned size, unsigned reg)
{
    static const int64_t from[] = {0, 1, -1, 127, 128, -129, 4096, INT32_MAX - 100, INT32_MIN + 100};
    for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
        fn(r, size, reg, rm_near(r->code + AWAY + from[i]));
}

static void each_memory(struct rig *r, with_rm *fn, unsigned size, unsigned reg)
{
    each_based(r, fn, size, reg);
    each_indexed(r, fn, size, reg);
    each_near(r, fn, size, reg);
    for (unsigned d = 0; d < ARRAY_SIZE(disps); d++)
        fn(r, size, reg, rm_sib(H_NONE, H_NONE, 0, disps[d]));
}

/* Every register with every register, and with a few addresses; every address with a few registers. */
static void each_rm(struct rig *r, with_rm *fn, unsigned size, bool registers)
{
    for (unsigned reg = 0; reg < 16; reg++) {
        for (unsigned other = 0; other < 16 && registers; other++)
            fn(r, size, reg, rm_reg(other));
        each_based(r, fn, size, reg);
        each_near(r, fn, size, reg);
        fn(r, size, reg, rm_sib(H_12, H_13, 3, -8));
        fn(r, size, reg, rm_sib(H_NONE, H_DI, 2, 8));
    }
    each_memory(r, fn, size, H_CX);
    each_memory(r, fn, size, H_14);
}

static void each_size(struct rig *r, with_rm *fn, unsigned from)
{
    for (unsigned i = from; i < ARRAY_SIZE(sizes); i++)
        each_rm(r, fn, sizes[i], true);
}

/* ---- moves ---- */

static void load(struct rig *r, unsigned size, unsigned to, struct rm at)
{
    asm_load(begin(r), size, to, at);
    expect(r, &(struct want){ZYDIS_MNEMONIC_MOV, .op = {reg(size, to), rm(size, at)}});
}

static void store(struct rig *r, unsigned size, unsigned from, struct rm at)
{
    asm_store(begin(r), size, at, from);
    expect(r, &(struct want){ZYDIS_MNEMONIC_MOV, .op = {rm(size, at), reg(size, from)}});
}

static void mov(struct rig *r, unsigned size, unsigned to, struct rm from)
{
    if (from.kind != RM_REG)
        return;
    asm_mov(begin(r), size, to, from.reg);
    if (to == from.reg && size != 4)
        assert_ptr_equal(r->a.at, r->code); /* nothing would change */
    else
        expect(r, &(struct want){ZYDIS_MNEMONIC_MOV, .op = {reg(size, to), rm(size, from)}});
}

static void lea(struct rig *r, unsigned size, unsigned to, struct rm at)
{
    asm_lea(begin(r), size, to, at);
    expect(r, &(struct want){ZYDIS_MNEMONIC_LEA, .op = {reg(size, to), rm(size, at)}});
}

static void moves_are_what_was_asked_for(void **state)
{
    struct rig *r = *state;
    each_size(r, load, 0);
    each_size(r, store, 0);
    each_size(r, mov, 0);
    for (unsigned i = 1; i < ARRAY_SIZE(sizes); i++)
        each_rm(r, lea, sizes[i], false);
}

static void high_bytes_are_read(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < 16; i++) {
        unsigned to = i & 3, from = i >> 2;
        struct operand high = {.kind = W_HIGH, .rm = rm_reg(from)};
        asm_load_high(begin(r), to, from);
        expect(r, &(struct want){ZYDIS_MNEMONIC_MOVZX, .op = {reg(4, to), high}});
    }
}

/* ---- immediates ---- */

/* Edges of 8, 16, 31, 32 bits, signed and not. */
static const uint64_t imms[] = {0,
                                1,
                                0x7e,
                                0x7f,
                                0x80,
                                0x81,
                                0xff,
                                0x100,
                                0x7fff,
                                0x8000,
                                0xff7f,
                                0xff80,
                                0xffff,
                                0x10000,
                                0x7ffffffe,
                                0x7fffffff,
                                UINT64_C(0x80000000),
                                UINT64_C(0xffffff7f),
                                UINT64_C(0xffffff80),
                                UINT64_C(0xffffffff),
                                UINT64_C(-1),
                                UINT64_C(-0x7f),
                                UINT64_C(-0x80),
                                UINT64_C(-0x81),
                                UINT64_C(-0x8000),
                                UINT64_C(-0x7fffffff),
                                UINT64_C(-0x80000000)};
static const uint64_t wide[] = {UINT64_C(0x100000000), UINT64_C(0x7fffffffffffffff), UINT64_C(0x8000000000000000),
                                UINT64_C(-0x80000001), UINT64_C(0xffffffff00000000), UINT64_C(0x123456789abcdef0)};

/* Whether an instruction of this size can say it: with 64 bits, what a sign makes of 32. */
static bool sayable(unsigned size, uint64_t val)
{
    return size < 8 || val == (uint64_t)(int64_t)(int32_t)val;
}

typedef void with_imm(struct rig *r, unsigned size, struct rm at, uint64_t val);

static void each_imm_at(struct rig *r, with_imm *fn, struct rm at)
{
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        for (unsigned k = 0; k < ARRAY_SIZE(imms); k++)
            if (sayable(sizes[i], imms[k]))
                fn(r, sizes[i], at, imms[k]);
}

static void each_imm(struct rig *r, with_imm *fn)
{
    for (unsigned reg = 0; reg < 16; reg++) {
        each_imm_at(r, fn, rm_reg(reg));
        for (unsigned d = 0; d < ARRAY_SIZE(disps); d++)
            each_imm_at(r, fn, rm_mem(reg, disps[d]));
        each_imm_at(r, fn, rm_sib(reg, H_13, 1, 0));
        each_imm_at(r, fn, rm_sib(reg, H_BP, 3, 128));
        each_imm_at(r, fn, rm_sib(H_NONE, reg == H_SP ? H_12 : reg, 2, -1));
    }
    for (int i = -2; i <= 2; i++) /* the displacement counts from behind the immediate */
        each_imm_at(r, fn, rm_near(r->code + AWAY + i * 0x1234));
}

static void store_imm(struct rig *r, unsigned size, struct rm at, uint64_t val)
{
    asm_store_imm(begin(r), size, at, val);
    expect(r, &(struct want){ZYDIS_MNEMONIC_MOV, .op = {rm(size, at), imm(size, val)}});
}

static void test_imm(struct rig *r, unsigned size, struct rm at, uint64_t val)
{
    asm_test_imm(begin(r), size, at, val);
    expect(r, &(struct want){ZYDIS_MNEMONIC_TEST, .op = {rm(size, at), imm(size, val)}});
}

static const ZydisMnemonic alu_names[] = {ZYDIS_MNEMONIC_ADD, ZYDIS_MNEMONIC_OR,  ZYDIS_MNEMONIC_ADC,
                                          ZYDIS_MNEMONIC_SBB, ZYDIS_MNEMONIC_AND, ZYDIS_MNEMONIC_SUB,
                                          ZYDIS_MNEMONIC_XOR, ZYDIS_MNEMONIC_CMP};

static void alu_imm(struct rig *r, unsigned size, struct rm at, uint64_t val)
{
    for (enum asm_alu op = A_ADD; op <= A_CMP; op++)
        for (uint32_t lock = 0; lock <= (at.kind != RM_REG && op != A_CMP); lock++) {
            asm_alu_imm(begin(r), lock ? A_LOCK : 0, op, size, at, val);
            expect(r, &(struct want){alu_names[op], lock, {rm(size, at), imm(size, val)}});
        }
}

static void immediates_are_what_was_asked_for(void **state)
{
    each_imm(*state, store_imm);
    each_imm(*state, test_imm);
    each_imm(*state, alu_imm);
}

static void mov_imm(struct rig *r, unsigned to, uint64_t val)
{
    struct read d;
    asm_mov_imm(begin(r), to, val);
    assert_false(r->a.full);
    assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&r->dec, r->code, (size_t)(r->a.at - r->code), &d.z, d.ops)));
    unsigned size = d.z.operand_width / 8; /* 4: the upper half is cleared */
    assert_true(size == 8 || (size == 4 && val >> 32 == 0));
    expect(r, &(struct want){ZYDIS_MNEMONIC_MOV, .op = {reg(size, to), imm(size, val)}});
}

static void registers_take_any_64_bits(void **state)
{
    for (unsigned reg = 0; reg < 16; reg++) {
        for (unsigned k = 0; k < ARRAY_SIZE(imms); k++)
            mov_imm(*state, reg, imms[k]);
        for (unsigned k = 0; k < ARRAY_SIZE(wide); k++)
            mov_imm(*state, reg, wide[k]);
    }
}

/* ---- arithmetic ---- */

static void alu(struct rig *r, unsigned size, unsigned to, struct rm with)
{
    for (enum asm_alu op = A_ADD; op <= A_CMP; op++) {
        asm_alu(begin(r), op, size, to, with);
        expect(r, &(struct want){alu_names[op], .op = {reg(size, to), rm(size, with)}});
    }
}

static void alu_to(struct rig *r, unsigned size, unsigned from, struct rm at)
{
    for (enum asm_alu op = A_ADD; op <= A_CMP; op++)
        for (uint32_t lock = 0; lock <= (at.kind != RM_REG && op != A_CMP); lock++) {
            asm_alu_to(begin(r), lock ? A_LOCK : 0, op, size, at, from);
            expect(r, &(struct want){alu_names[op], lock, {rm(size, at), reg(size, from)}});
        }
}

static void test(struct rig *r, unsigned size, unsigned with, struct rm at)
{
    asm_test(begin(r), size, at, with);
    expect(r, &(struct want){ZYDIS_MNEMONIC_TEST, .op = {rm(size, at), reg(size, with)}});
}

static void arithmetic_is_what_was_asked_for(void **state)
{
    each_size(*state, alu, 0);
    each_size(*state, alu_to, 0);
    each_size(*state, test, 0);
}

static const struct {
    enum asm_shift op;
    ZydisMnemonic name;
} shifts[] = {{A_ROL, ZYDIS_MNEMONIC_ROL}, {A_ROR, ZYDIS_MNEMONIC_ROR}, {A_RCL, ZYDIS_MNEMONIC_RCL},
              {A_RCR, ZYDIS_MNEMONIC_RCR}, {A_SHL, ZYDIS_MNEMONIC_SHL}, {A_SHR, ZYDIS_MNEMONIC_SHR},
              {A_SAR, ZYDIS_MNEMONIC_SAR}};

static void shift_by(struct rig *r, unsigned size, unsigned unused, struct rm at)
{
    static const uint8_t by[] = {0, 1, 7, 31, 32, 63, 0xff};
    for (unsigned i = 0; i < ARRAY_SIZE(shifts); i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(by); k++) {
            asm_shift_imm(begin(r), shifts[i].op, size, at, by[k]);
            expect(r, &(struct want){shifts[i].name, .op = {rm(size, at), imm(1, by[k])}});
        }
        asm_shift_cl(begin(r), shifts[i].op, size, at);
        expect(r, &(struct want){shifts[i].name, .op = {rm(size, at), reg(1, H_CX)}});
    }
}

static void shifts_are_what_was_asked_for(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        each_memory(*state, shift_by, sizes[i], 0);
        for (unsigned reg = 0; reg < 16; reg++)
            shift_by(*state, sizes[i], 0, rm_reg(reg));
    }
}

/* ---- opcodes as such ---- */

/* One of every map and prefix. */
static const struct {
    uint32_t op;
    ZydisMnemonic name;
    uint8_t from, least; /* bytes of the source, 0: as the destination; least size of the destination */
    bool memory;         /* only */
} maps[] = {
    {A_0F | 0xaf, ZYDIS_MNEMONIC_IMUL, 0, 2, false},
    {A_0F | A_F3 | 0xb8, ZYDIS_MNEMONIC_POPCNT, 0, 2, false},
    {A_0F38 | 0xf0, ZYDIS_MNEMONIC_MOVBE, 0, 2, true},
    {A_0F38 | A_F2 | A_RM8 | 0xf0, ZYDIS_MNEMONIC_CRC32, 1, 4, false},
    {A_0F38 | A_66 | 0xf6, ZYDIS_MNEMONIC_ADCX, 0, 4, false},
    {A_0F | A_RM8 | 0xb6, ZYDIS_MNEMONIC_MOVZX, 1, 2, false},
    {A_0F | A_RM8 | 0xbe, ZYDIS_MNEMONIC_MOVSX, 1, 2, false},
    {A_0F | 0xb7, ZYDIS_MNEMONIC_MOVZX, 2, 4, false},
    {0x63, ZYDIS_MNEMONIC_MOVSXD, 4, 8, false},
};

static void of_a_map(struct rig *r, unsigned size, unsigned to, struct rm at)
{
    for (unsigned i = 0; i < ARRAY_SIZE(maps); i++) {
        if (size < maps[i].least || (maps[i].memory && at.kind == RM_REG))
            continue;
        asm_modrm(begin(r), size, maps[i].op, to, at, 0);
        expect(r, &(struct want){maps[i].name, .op = {reg(size, to), rm(maps[i].from ? maps[i].from : size, at)}});
    }
}

/* XADD, whose byte form is the even opcode. */
static void even_and_odd(struct rig *r, unsigned size, unsigned from, struct rm at)
{
    for (uint32_t lock = 0; lock <= (at.kind != RM_REG); lock++) {
        asm_op(begin(r), size, A_0F | (lock ? A_LOCK : 0) | 0xc0, from, at);
        expect(r, &(struct want){ZYDIS_MNEMONIC_XADD, lock, {rm(size, at), reg(size, from)}});
    }
}

static void extended(struct rig *r, unsigned size, struct rm at, uint64_t val)
{
    if (size == 1)
        return;
    asm_modrm(begin(r), size, A_0F | 0xba, 7, at, 1);
    asm_imm(&r->a, val, 1);
    expect(r, &(struct want){ZYDIS_MNEMONIC_BTC, .op = {rm(size, at), imm(1, val)}});
}

static void opcodes_of_every_map(void **state)
{
    each_size(*state, of_a_map, 1);
    each_size(*state, even_and_odd, 0);
    each_imm(*state, extended);
}

static void bytes_in_the_order_of_memory(void **state)
{
    struct asm_buf *a = begin(*state);
    static const uint8_t want[] = {0x90, 0x88, 0x88, 0x77, 0x88, 0x77, 0x66, 0x55, 0x88,
                                   0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xcc};
    asm_byte(a, 0x90);
    asm_imm(a, 0, 0);
    for (unsigned len = 1; len <= 8; len *= 2)
        asm_imm(a, UINT64_C(0x1122334455667788), len);
    assert_memory_equal(((struct rig *)*state)->code, want, sizeof want);
    assert_ptr_equal(asm_here(a), a->at + AWAY);
}

/* ---- control ---- */

static void push_pop(struct rig *r, unsigned which)
{
    asm_push(begin(r), which);
    expect(r, &(struct want){ZYDIS_MNEMONIC_PUSH, .op = {reg(8, which)}});
    asm_pop(begin(r), which);
    expect(r, &(struct want){ZYDIS_MNEMONIC_POP, .op = {reg(8, which)}});
}

static void go_rm(struct rig *r, unsigned unused, unsigned unused_reg, struct rm at)
{
    asm_jmp_rm(begin(r), at);
    expect(r, &(struct want){ZYDIS_MNEMONIC_JMP, .op = {rm(8, at)}});
    asm_call_rm(begin(r), at);
    expect(r, &(struct want){ZYDIS_MNEMONIC_CALL, .op = {rm(8, at)}});
}

static void the_stack_and_indirect_jumps(void **state)
{
    struct rig *r = *state;
    for (unsigned reg = 0; reg < 16; reg++) {
        push_pop(r, reg);
        go_rm(r, 8, 0, rm_reg(reg));
    }
    each_memory(r, go_rm, 8, 0);
    asm_ret(begin(r));
    expect(r, &(struct want){.name = ZYDIS_MNEMONIC_RET});
}

static const ZydisMnemonic jcc_names[] = {
    ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB,  ZYDIS_MNEMONIC_JNB,
    ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
    ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP,  ZYDIS_MNEMONIC_JNP,
    ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE};
_Static_assert(A_O == 0 && A_G == 15 && ARRAY_SIZE(jcc_names) == 16, "in the order of enum asm_cond");

static void jumps_to_known_places(void **state)
{
    static const int64_t by[] = {0, 1, -1, 127, 128, -200, 0x12345678, INT32_MAX - 100, INT32_MIN + 100};
    struct rig *r = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(by); i++) {
        const void *there = r->code + AWAY + by[i];
        asm_jmp(begin(r), there);
        expect(r, &(struct want){ZYDIS_MNEMONIC_JMP, .op = {to(there)}});
        asm_call(begin(r), there);
        expect(r, &(struct want){ZYDIS_MNEMONIC_CALL, .op = {to(there)}});
        for (unsigned cc = A_O; cc <= A_G; cc++) {
            asm_jcc_to(begin(r), cc, there);
            expect(r, &(struct want){jcc_names[cc], .op = {to(there)}});
        }
    }
}

/* A jump over `gap` bytes that are written before anybody knows where it leads; cc 16: always. */
static void jump_over(struct rig *r, unsigned cc, unsigned gap)
{
    struct asm_buf *a = begin(r);
    uint8_t *jump = cc < 16 ? asm_jcc(a, cc) : asm_jmp_ahead(a);
    uint8_t *behind = a->at;
    for (unsigned i = 0; i < gap; i++)
        asm_byte(a, 0x90);
    const void *there = asm_here(a);
    asm_land(a, jump);
    assert_ptr_equal(asm_here(a), there);
    a->at = behind; /* the jump alone */
    expect(r, &(struct want){cc < 16 ? jcc_names[cc] : ZYDIS_MNEMONIC_JMP, .op = {to(there)}});
    for (unsigned i = 0; i < gap; i++)
        assert_int_equal(behind[i], 0x90);
}

static void jumps_land_where_they_are_told(void **state)
{
    for (unsigned cc = 0; cc <= 16; cc++)
        for (unsigned gap = 0; gap < 40; gap++)
            jump_over(*state, cc, gap);
}

/* ---- a buffer's end ---- */

/* Something of everything; the longest instructions there are. */
static void piece(struct asm_buf *a, unsigned which)
{
    struct rm far = rm_sib(H_12, H_13, 3, 0x12345678);
    uint8_t *jump;
    switch (which) {
    case 0:
        asm_alu_imm(a, A_LOCK, A_ADD, 2, far, 0x1234);
        break;
    case 1:
        asm_store_imm(a, 8, far, 0x12345678);
        break;
    case 2:
        asm_mov_imm(a, H_15, UINT64_C(0x123456789abcdef0));
        break;
    case 3:
        asm_jmp(a, asm_here(a));
        break;
    case 4:
        jump = asm_jcc(a, A_NE);
        asm_push(a, H_12);
        asm_land(a, jump);
        break;
    case 5:
        asm_test_imm(a, 8, rm_near(asm_here(a)), 0x12345678);
        break;
    case 6:
        asm_modrm(a, 2, A_0F | 0xba, 7, far, 1);
        asm_imm(a, 5, 1);
        break;
    case 7:
        jump = asm_jmp_ahead(a);
        asm_shift_imm(a, A_SHL, 2, far, 3);
        asm_land(a, jump);
        break;
    default:
        asm_byte(a, 0x90);
        asm_imm(a, 0x11223344, 4);
        asm_call(a, asm_here(a));
        asm_ret(a);
    }
}
enum { PIECES = 9, MOST = 400 };

/* All pieces, `first` first, into `room` bytes. What lies around has a pattern. */
struct filled {
    struct asm_buf a;
    uint8_t bytes[16 + MOST + 64];
};

static void fill(struct filled *f, unsigned first, unsigned room)
{
    memset(f->bytes, 0xa5, sizeof f->bytes);
    f->a = (struct asm_buf){.at = f->bytes + 16, .end = f->bytes + 16 + room, .run = AWAY};
    for (unsigned i = 0; i < PIECES; i++)
        piece(&f->a, (first + i) % PIECES);
}

static void assert_untouched(const uint8_t *p, const uint8_t *end)
{
    for (; p < end; p++)
        assert_int_equal(*p, 0xa5);
}

static void check_fill(unsigned first, unsigned room, const struct filled *whole)
{
    struct filled f;
    size_t len = (size_t)(whole->a.at - whole->bytes);
    fill(&f, first, room);
    assert_untouched(f.bytes, f.bytes + 16);
    assert_untouched(f.bytes + 16 + room, f.bytes + sizeof f.bytes);
    if (16 + room < len)
        assert_true(f.a.full);
    if (!f.a.full) /* then all of it is there */
        assert_int_equal(f.a.at - f.bytes, len);
}

static void a_buffer_ends_at_any_byte(void **state)
{
    for (unsigned first = 0; first < PIECES; first++) {
        struct filled whole;
        fill(&whole, first, MOST);
        assert_false(whole.a.full);
        for (unsigned room = 0; room <= MOST; room++)
            check_fill(first, room, &whole);
    }
}

/* Whatever follows is not written, though it would have room. */
static void a_full_buffer_stays_as_it_is(void **state)
{
    for (unsigned room = 0; room < 100; room++) {
        uint8_t bytes[128], before[128];
        struct asm_buf a = {.at = bytes, .end = bytes + room, .run = AWAY};
        memset(bytes, 0xa5, sizeof bytes);
        while (!a.full)
            asm_store_imm(&a, 8, rm_sib(H_12, H_13, 3, 0x12345678), 0x12345678);
        uint8_t *at = a.at;
        memcpy(before, bytes, sizeof bytes);
        for (unsigned i = 0; i < PIECES; i++)
            piece(&a, i);
        assert_true(a.full);
        assert_ptr_equal(a.at, at);
        assert_memory_equal(bytes, before, sizeof bytes);
    }
}

/* As an emitter's who takes room for constants from the end. */
static void an_end_before_the_beginning_is_full(void **state)
{
    uint8_t bytes[128], before[128];
    memset(bytes, 0xa5, sizeof bytes);
    memcpy(before, bytes, sizeof bytes);
    for (unsigned i = 0; i < PIECES; i++) {
        struct asm_buf a = {.at = bytes + 64, .end = bytes + 60, .run = AWAY};
        piece(&a, i);
        assert_true(a.full);
        assert_memory_equal(bytes, before, sizeof bytes);
    }
}

static int setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof *r);
    ZydisDecoderInit(&r->dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    test_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_are_what_was_asked_for),
        cmocka_unit_test(high_bytes_are_read),
        cmocka_unit_test(immediates_are_what_was_asked_for),
        cmocka_unit_test(registers_take_any_64_bits),
        cmocka_unit_test(arithmetic_is_what_was_asked_for),
        cmocka_unit_test(shifts_are_what_was_asked_for),
        cmocka_unit_test(opcodes_of_every_map),
        cmocka_unit_test(bytes_in_the_order_of_memory),
        cmocka_unit_test(the_stack_and_indirect_jumps),
        cmocka_unit_test(jumps_to_known_places),
        cmocka_unit_test(jumps_land_where_they_are_told),
        cmocka_unit_test(a_buffer_ends_at_any_byte),
        cmocka_unit_test(a_full_buffer_stays_as_it_is),
        cmocka_unit_test(an_end_before_the_beginning_is_full),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
