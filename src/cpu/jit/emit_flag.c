/* PUSHF, CLI, CLD, STD and the instructions on CF. SDM 2, the instructions' own pages. */
#include "cpu/jit/emit.h"

/* RFLAGS as they are pushed: without VM and RF, the arithmetic ones from where host code keeps them. */
static void pushf(struct tx *t, const struct insn *in)
{
    struct asm_buf *a = &t->a;
    unsigned sp = host_of(RSP);
    if (t->native)
        eflags_save(t);
    t->native = false;
    asm_load(a, 4, T_FLAGS, VCPU(st.rflags));
    asm_alu_imm(a, 0, A_AND, 4, rm_reg(T_FLAGS), ~(RF_ARITH | RF_VM | RF_RF) & 0x7fffffff);
    asm_modrm(a, 4, A_0F | 0xb6, T_VAL, vcpu_at(offsetof(struct soft_vcpu, jit_flags) + 1), 0);
    asm_alu_imm(a, 0, A_AND, 4, rm_reg(T_VAL), RF_ARITH & 0xff);
    asm_alu(a, A_OR, 4, T_FLAGS, rm_reg(T_VAL));
    asm_modrm(a, 4, A_0F | 0xb6, T_VAL, VCPU(jit_flags), 0);
    asm_shift_imm(a, A_SHL, 4, rm_reg(T_VAL), 11);
    asm_alu(a, A_OR, 4, T_FLAGS, rm_reg(T_VAL));
    asm_lea(a, 8, T_ADDR, rm_mem(sp, -8));
    emit_probe(t, 8, ACC_WRITE);
    asm_store(a, 8, rm_mem(T_ADDR, 0), T_FLAGS);
    asm_lea(a, 8, sp, rm_mem(sp, -8));
}

/* CPL 0 may always do it; what IOPL lets others do is the generic executor's. */
static void cli(struct tx *t, const struct insn *in)
{
    size_t ss = offsetof(struct soft_vcpu, st.seg) + SEG_SS * sizeof(struct cpu_segment);
    eflags_spoil(t);
    asm_test_imm(&t->a, 4, vcpu_at(ss + offsetof(struct cpu_segment, attr)), 3u << SEGA_DPL_SHIFT);
    emit_slow(t, A_NE, SLOW_GENERIC);
    asm_alu_imm(&t->a, 0, A_AND, 4, VCPU(st.rflags), ~RF_IF);
}

static void direction(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    asm_alu_imm(&t->a, 0, in->op == OP_std ? A_OR : A_AND, 4, VCPU(st.rflags), in->op == OP_std ? RF_DF : ~RF_DF);
}

/* CLC, STC, CMC: CF alone changes. */
static void carry(struct tx *t, const struct insn *in)
{
    eflags_load(t);
    asm_byte(&t->a, in->op == OP_clc ? 0xf8 : in->op == OP_stc ? 0xf9 : 0xf5);
    eflags_made(t);
}

struct how how_flag(const struct insn *in, unsigned mode)
{
    switch (in->op) {
    case OP_pushf:
        return (struct how){.fn = in->opsize == 8 ? pushf : NULL, .flags = FLAGS_READ};
    case OP_cli:
        return (struct how){.fn = mode & MODE_USER ? NULL : cli};
    case OP_cld:
    case OP_std:
        return (struct how){.fn = direction};
    case OP_clc:
    case OP_stc:
    case OP_cmc:
        return (struct how){.fn = carry, .flags = FLAGS_READ};
    default:
        return (struct how){.fn = NULL};
    }
}
