/* The pieces translated instructions are made of. */
#include "cpu/jit/emit.h"

#include <assert.h>

/* ---- flags ---- */

void eflags_save(struct tx *t)
{
    if (t->saved)
        return;
    assert(t->native);
    asm_byte(&t->a, 0x9f);                                   /* lahf */
    asm_modrm(&t->a, 1, A_0F | 0x90, 0, rm_reg(T_FLAGS), 0); /* seto al */
    asm_store(&t->a, 2, VCPU(jit_flags), T_FLAGS);
    t->saved = true;
}

void eflags_spoil(struct tx *t)
{
    if (t->native && !t->saved && t->wanted[t->i])
        eflags_save(t);
    t->native = false;
}

void eflags_load(struct tx *t)
{
    if (t->native)
        return;
    assert(t->saved);
    asm_modrm(&t->a, 4, A_0F | 0xb7, T_FLAGS, VCPU(jit_flags), 0);
    asm_alu_imm(&t->a, 0, A_ADD, 1, rm_reg(T_FLAGS), 127); /* overflows if AL is 1 */
    asm_byte(&t->a, 0x9e);                                 /* sahf */
    t->native = true;
}

void eflags_part(struct tx *t)
{
    if (t->wanted[t->i + 1])
        eflags_load(t);
    else
        eflags_spoil(t);
}

void eflags_made(struct tx *t)
{
    t->native = true;
    t->saved = false;
}

/* ---- registers ---- */

unsigned edit_reg(struct tx *t, unsigned greg, unsigned scratch, bool load)
{
    unsigned h = host_of(greg);
    if (h != H_NONE)
        return h;
    if (load)
        asm_load(&t->a, 8, scratch, GPR(greg));
    return scratch;
}

unsigned use_reg(struct tx *t, unsigned greg, unsigned scratch)
{
    return edit_reg(t, greg, scratch, true);
}

unsigned read_reg(struct tx *t, const struct opnd *o, unsigned scratch)
{
    if (o->reg < OPND_AH)
        return use_reg(t, o->reg, scratch);
    unsigned h = host_of(o->reg - OPND_AH); /* RCX, RDX and RBX are their own; RAX gets into its own */
    if (h >= H_SP) {
        asm_mov(&t->a, 4, H_AX, h);
        h = H_AX;
    }
    asm_load_high(&t->a, T_FLAGS, h);
    return T_FLAGS;
}

void put_reg(struct tx *t, unsigned greg, unsigned host)
{
    if (host_of(greg) == H_NONE)
        asm_store(&t->a, 8, GPR(greg), host);
}

/* ---- memory ---- */

bool plain_mem(const struct insn *in)
{
    int64_t disp = in->disp + (in->base == INSN_RIP ? 4096 + 15 : 0);
    return in->flags & INSN_MEM && in->addrsize == 8 && disp == (int32_t)disp && in->disp == (int32_t)in->disp;
}

static struct rm segment_base(unsigned seg)
{
    return vcpu_at(offsetof(struct soft_vcpu, st.seg) + seg * sizeof(struct cpu_segment) +
                   offsetof(struct cpu_segment, base));
}

/* base + index + disp as one host operand; a register that is not a host register goes through scratch. */
static struct rm plain_operand(struct tx *t, const struct insn *in)
{
    struct rm rm = rm_sib(H_NONE, H_NONE, in->scale, (int32_t)in->disp);
    if (in->base == INSN_RIP) {
        asm_load(&t->a, 8, T_ADDR, VCPU(rip_bias));
        rm.base = T_ADDR;
        rm.disp += tx_uop(t)->off + in->len;
    } else if (in->base != INSN_NO_REG) {
        rm.base = (uint8_t)use_reg(t, in->base, T_ADDR);
    }
    if (in->index != INSN_NO_REG)
        rm.index = (uint8_t)use_reg(t, in->index, T_VAL);
    if (rm.index == H_NONE)
        rm.scale = 0;
    return rm;
}

void emit_address(struct tx *t, const struct insn *in)
{
    struct rm rm = plain_operand(t, in);
    bool segment = in->seg == SEG_FS || in->seg == SEG_GS;
    if (rm.base == H_NONE && rm.index == H_NONE)
        asm_mov_imm(&t->a, T_ADDR, (uint64_t)(int64_t)rm.disp);
    else if (rm.index == H_NONE && !rm.disp)
        asm_mov(&t->a, 8, T_ADDR, rm.base);
    else
        asm_lea(&t->a, 8, T_ADDR, rm);
    if (segment && in->op != OP_lea) {
        asm_load(&t->a, 8, T_VAL, segment_base(in->seg));
        asm_lea(&t->a, 8, T_ADDR, rm_sib(T_ADDR, T_VAL, 0, 0));
    }
}

void emit_slow(struct tx *t, enum asm_cond cc, enum slow_kind kind)
{
    assert(t->slows < SLOW_MOST);
    t->slow[t->slows++] = (struct slow){.from = asm_jcc(&t->a, cc), .i = (uint16_t)t->i, .kind = (uint8_t)kind};
}

/* struct tlb_entry's rule: off = gva ^ tag, a hit if off <= 4096 - size. */
void emit_probe(struct tx *t, unsigned size, enum access acc)
{
    int32_t bank = acc == ACC_WRITE ? offsetof(struct tlb_bank, w) : offsetof(struct tlb_bank, r);
    _Static_assert(sizeof(struct tlb_entry) == 16, "the slot's number is shifted by 4");
    eflags_spoil(t);
    asm_mov(&t->a, 4, T_VAL, T_ADDR);
    asm_shift_imm(&t->a, A_SHR, 4, rm_reg(T_VAL), 8);
    asm_alu_imm(&t->a, 0, A_AND, 4, rm_reg(T_VAL), (TLB_SIZE - 1) << 4);
    asm_alu(&t->a, A_ADD, 8, T_VAL, VCPU(tlb));
    asm_alu(&t->a, A_XOR, 8, T_ADDR, rm_mem(T_VAL, bank + (int32_t)offsetof(struct tlb_entry, tag)));
    asm_alu_imm(&t->a, 0, A_CMP, 8, rm_reg(T_ADDR), 4096 - size);
    emit_slow(t, A_A, SLOW_REFILL);
    asm_alu(&t->a, A_ADD, 8, T_ADDR, rm_mem(T_VAL, bank + (int32_t)offsetof(struct tlb_entry, host)));
    struct slow *w = &t->slow[t->slows - 1];
    w->found = asm_here(&t->a);
    w->access = (uint16_t)(size << 8 | acc);
}

void emit_operand(struct tx *t, const struct insn *in, unsigned size, enum access acc)
{
    emit_address(t, in);
    emit_probe(t, size, acc);
}

struct rm emit_source(struct tx *t, const struct insn *in, const struct opnd *o)
{
    if (o->kind != OPND_MEM)
        return rm_reg(read_reg(t, o, T_ADDR));
    emit_operand(t, in, o->size, ACC_READ);
    return rm_mem(T_ADDR, 0);
}

/* ---- leaving ---- */

void *emit_constant(struct tx *t, size_t size)
{
    t->back -= align_up(size, 16);
    if (t->back <= t->a.at + size) {
        t->a.full = true;
        t->back += align_up(size, 16);
    }
    t->a.end = t->back;
    return t->back;
}

void emit_link(struct tx *t, const struct uop *u)
{
    struct jit_link *l = emit_constant(t, sizeof *l);
    if (t->a.full)
        return;
    *l = (struct jit_link){.code = t->j->unlinked, .u = u, .b = t->b};
    void *run = (uint8_t *)l + t->a.run;
    asm_lea(&t->a, 8, T_VAL, rm_near(run));
    asm_jmp_rm(&t->a, rm_mem(T_VAL, offsetof(struct jit_link, code)));
}
