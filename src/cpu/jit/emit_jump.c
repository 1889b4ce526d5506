/* Near branches of 64-bit code, SETcc, CMOVcc. SDM 2, the instructions' own pages. */
#include "cpu/jit/emit.h"

/* ---- to another page: by the jump cache ---- */

/* Go to the block at the RIP in T_FLAGS, of which nothing is known; the jump that is returned goes where the cache has
 * no answer. The flags are saved. */
static uint8_t *emit_go(struct tx *t)
{
    struct asm_buf *a = &t->a;
    _Static_assert(sizeof(struct jump_entry) == 16, "the slot's number is shifted by 4");
    asm_mov(a, 4, T_ADDR, T_FLAGS);
    asm_shift_imm(a, A_SHR, 4, rm_reg(T_ADDR), JUMP_BITS);
    asm_alu(a, A_XOR, 4, T_ADDR, rm_reg(T_FLAGS));
    asm_alu_imm(a, 0, A_AND, 4, rm_reg(T_ADDR), JUMP_SLOTS - 1);
    asm_shift_imm(a, A_SHL, 4, rm_reg(T_ADDR), 4);
    asm_alu(a, A_ADD, 8, T_ADDR, VCPU(jump));
    asm_alu_to(a, 0, A_CMP, 8, rm_mem(T_ADDR, offsetof(struct jump_entry, rip)), T_FLAGS);
    return asm_jcc(a, A_NE);
}

/* Behind emit_go(): the block is known. */
static void emit_enter(struct tx *t)
{
    struct asm_buf *a = &t->a;
    asm_load(a, 8, T_ADDR, rm_mem(T_ADDR, offsetof(struct jump_entry, b)));
    asm_alu_imm(a, 0, A_AND, 8, rm_reg(T_FLAGS), ~UINT64_C(0xfff));
    asm_store(a, 8, VCPU(rip_bias), T_FLAGS);
    asm_alu(a, A_XOR, 4, T_VAL, rm_reg(T_VAL));
    asm_jmp_rm(a, rm_mem(T_ADDR, offsetof(struct block, code)));
}

/* The instruction is done but for its RIP. */
static void go_done(struct tx *t)
{
    uint8_t *miss = emit_go(t);
    emit_enter(t);
    asm_land(&t->a, miss);
    asm_jmp(&t->a, t->j->go_rip);
}

/* Nothing of the instruction has happened: without an answer the interpreter does it. */
static void go_or_leave(struct tx *t, void last(struct tx *, const struct insn *), const struct insn *in)
{
    uint8_t *miss = emit_go(t);
    t->slow[t->slows++] = (struct slow){.from = miss, .i = (uint16_t)t->i, .kind = SLOW_LEAVE};
    if (last)
        last(t, in);
    emit_enter(t);
}

/* Bits 63..47 of T_FLAGS are equal, or the slow way raises #GP. */
static void check_canonical(struct tx *t)
{
    asm_mov(&t->a, 8, T_ADDR, T_FLAGS);
    asm_shift_imm(&t->a, A_SAR, 8, rm_reg(T_ADDR), 47);
    asm_alu_imm(&t->a, 0, A_ADD, 8, rm_reg(T_ADDR), 1);
    asm_alu_imm(&t->a, 0, A_CMP, 8, rm_reg(T_ADDR), 1);
    emit_slow(t, A_A, SLOW_LEAVE);
}

/* ---- JMP, Jcc ---- */

static bool in_page(const struct tx *t, const struct insn *in)
{
    int64_t to = (int64_t)tx_uop(t)->off + in->len + (int64_t)in->imm;
    return to >= 0 && to < 4096;
}

/* rip_bias + offset into T_FLAGS. */
static void rip_of(struct tx *t, int64_t off)
{
    asm_load(&t->a, 8, T_FLAGS, VCPU(rip_bias));
    if (off == (int32_t)off) {
        asm_lea(&t->a, 8, T_FLAGS, rm_mem(T_FLAGS, (int32_t)off));
    } else {
        asm_mov_imm(&t->a, T_VAL, (uint64_t)off);
        asm_lea(&t->a, 8, T_FLAGS, rm_sib(T_FLAGS, T_VAL, 0, 0));
    }
}

static void target(struct tx *t, const struct insn *in)
{
    rip_of(t, (int64_t)tx_uop(t)->off + in->len + (int64_t)in->imm);
}

void emit_onward(struct tx *t, const struct uop *end)
{
    if (end->off < 4096) {
        emit_link(t, end);
        return;
    }
    rip_of(t, end->off);
    go_done(t);
}

static void jump(struct tx *t, const struct insn *in)
{
    if (in_page(t, in)) {
        emit_link(t, tx_uop(t));
        return;
    }
    target(t, in);
    go_done(t);
}

static void jmp(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    jump(t, in);
}

/* A link may lead to another page: the dispatcher then never links it. */
static void jcc(struct tx *t, const struct insn *in)
{
    eflags_load(t);
    eflags_save(t);
    uint8_t *taken = asm_jcc(&t->a, (enum asm_cond)in->cond);
    t->native = false;
    emit_onward(t, tx_uop(t) + 1);
    asm_land(&t->a, taken);
    jump(t, in);
}

static void target_register(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    asm_mov(&t->a, 8, T_FLAGS, use_reg(t, in->src.reg, T_FLAGS));
}

static void target_memory(struct tx *t, const struct insn *in)
{
    emit_operand(t, in, 8, ACC_READ);
    asm_load(&t->a, 8, T_FLAGS, rm_mem(T_ADDR, 0));
}

static void jmp_reg(struct tx *t, const struct insn *in)
{
    target_register(t, in);
    go_or_leave(t, NULL, in);
}

static void jmp_mem(struct tx *t, const struct insn *in)
{
    target_memory(t, in);
    go_or_leave(t, NULL, in);
}

/* ---- CALL, RET ---- */

/* Keeps T_FLAGS. */
static void push_return(struct tx *t, const struct insn *in)
{
    unsigned sp = host_of(RSP);
    asm_lea(&t->a, 8, T_ADDR, rm_mem(sp, -8));
    emit_probe(t, 8, ACC_WRITE);
    asm_load(&t->a, 8, T_VAL, VCPU(rip_bias));
    asm_lea(&t->a, 8, T_VAL, rm_mem(T_VAL, tx_uop(t)->off + in->len));
    asm_store(&t->a, 8, rm_mem(T_ADDR, 0), T_VAL);
    asm_lea(&t->a, 8, sp, rm_mem(sp, -8));
}

static void call(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    push_return(t, in);
    target(t, in);
    go_done(t);
}

static void call_reg(struct tx *t, const struct insn *in)
{
    target_register(t, in);
    check_canonical(t);
    push_return(t, in);
    go_done(t);
}

static void call_mem(struct tx *t, const struct insn *in)
{
    target_memory(t, in);
    check_canonical(t);
    push_return(t, in);
    go_done(t);
}

static void drop_return(struct tx *t, const struct insn *in)
{
    unsigned sp = host_of(RSP);
    asm_lea(&t->a, 8, sp, rm_mem(sp, 8 + (in->src.kind == OPND_IMM ? (int32_t)in->imm : 0)));
}

static void ret(struct tx *t, const struct insn *in)
{
    eflags_spoil(t);
    asm_mov(&t->a, 8, T_ADDR, host_of(RSP));
    emit_probe(t, 8, ACC_READ);
    asm_load(&t->a, 8, T_FLAGS, rm_mem(T_ADDR, 0));
    go_or_leave(t, drop_return, in);
}

static emit_fn *jump_form(const struct insn *in)
{ /* opcode switch */
    bool imm = in->src.kind == OPND_IMM, reg = plain_reg(&in->src), mem = plain_mem(in);
    switch (in->op) {
    case OP_jcc:
        return jcc;
    case OP_jmp:
        return imm ? jmp : reg ? jmp_reg : mem ? jmp_mem : NULL;
    case OP_call:
        return imm ? call : reg ? call_reg : mem ? call_mem : NULL;
    case OP_ret:
        return ret;
    default:
        return NULL;
    }
}

struct how how_jump(const struct insn *in)
{
    struct how h = {.fn = in->opsize == 8 ? jump_form(in) : NULL, .ends = true};
    h.flags = in->op == OP_jcc ? FLAGS_READ : FLAGS_NONE;
    return h;
}

/* ---- SETcc, CMOVcc ---- */

static void setcc(struct tx *t, const struct insn *in)
{
    bool mem = in->dst.kind == OPND_MEM;
    if (mem)
        emit_operand(t, in, 1, ACC_WRITE);
    eflags_load(t);
    unsigned d = mem ? H_NONE : edit_reg(t, in->dst.reg, T_VAL, true);
    asm_modrm(&t->a, 1, A_0F | (0x90 + in->cond), 0, mem ? rm_mem(T_ADDR, 0) : rm_reg(d), 0);
    if (!mem)
        put_reg(t, in->dst.reg, d);
}

/* The source is read, and a 32-bit destination widened, whatever the condition says. */
static void cmovcc(struct tx *t, const struct insn *in)
{
    struct rm from = emit_source(t, in, &in->src);
    eflags_load(t);
    unsigned d = edit_reg(t, in->dst.reg, T_VAL, true);
    asm_modrm(&t->a, in->dst.size, A_0F | (0x40 + in->cond), d, from, 0);
    put_reg(t, in->dst.reg, d);
}

struct how how_cond(const struct insn *in)
{
    struct how h = {.flags = FLAGS_READ};
    if (in->op == OP_setcc)
        h.fn = plain_reg(&in->dst) || plain_mem(in) ? setcc : NULL;
    else if (in->op == OP_cmovcc)
        h.fn = plain_reg(&in->src) || plain_mem(in) ? cmovcc : NULL;
    return h;
}
