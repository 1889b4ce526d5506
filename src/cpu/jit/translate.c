/* One block: decode it again, choose how each instruction is done, emit, and add the slow ways behind. */
#include "cpu/jit/emit.h"

#include <string.h>

enum { ROOM = 32 << 10 }; /* more than any block takes */

/* ---- choosing ---- */

/* Whether it may raise an exception, whose frame shows the flags, or leave the vCPU before it, with them to be seen. */
static bool may_fault(const struct insn *in)
{
    switch (in->op) {
    case OP_lea:
    case OP_nop:
    case OP_prefetch:
        return false;
    case OP_push:
    case OP_pop:
    case OP_leave:
    case OP_pause:
    case OP_pushf:
    case OP_cli:
    case OP_div:
        return true;
    default:
        return in->flags & INSN_MEM;
    }
}

static struct how choose(const struct insn *in, unsigned mode)
{
    struct how h = {.fn = NULL};
    struct how (*const rooms[])(const struct insn *) = {how_lock, how_alu, how_mov, how_bit, how_cond};
    if (in->op == OP_jcc || in->op == OP_jmp || in->op == OP_call || in->op == OP_ret)
        h = how_jump(in);
    for (unsigned i = 0; !h.fn && i < ARRAY_SIZE(rooms); i++)
        h = rooms[i](in);
    if (!h.fn)
        h = how_flag(in, mode);
    if (!h.fn)
        h.flags = FLAGS_READ;
    h.faults = may_fault(in);
    return h;
}

static void want_flags(struct tx *t)
{
    t->wanted[t->n] = true;
    for (unsigned i = t->n; i-- > 0;) {
        uint8_t use = t->how[i].flags;
        t->wanted[i] = t->how[i].faults || use & FLAGS_READ ? true : use & FLAGS_SET ? false : t->wanted[i + 1];
    }
}

/* The bytes may be newer than the block, which is then about to be killed: what doesn't fit its uops is not taken. */
static bool decode_all(struct tx *t, const uint8_t *bytes)
{
    const struct block *b = t->b;
    unsigned off = b->key & 0xfff, at = 0;
    for (t->n = 0; t->n < b->n && at < b->bytes; t->n++) {
        struct insn *in = &t->in[t->n];
        if (decode_insn(bytes + at, b->bytes - at, CODE64, in) != DECODE_OK)
            break;
        if (in->len != b->uops[t->n].len || b->uops[t->n].off != off + at)
            return false;
        t->how[t->n] = choose(in, b->key >> 52);
        at += in->len;
    }
    return t->n && (t->n == b->n || t->n + 1u == b->n);
}

/* A straddling instruction ends on a page that need not be the next one in RAM. */
static void copy_code(uint8_t *to, const struct block *b, const struct ram *ram)
{
    unsigned first = b->page2 ? 4096 - (b->key & 0xfff) : b->bytes;
    guest_copy(to, ram_hva(ram, block_gpa(b), 1), first);
    if (b->page2)
        guest_copy(to + first, ram_hva(ram, b->gpa2, 1), b->bytes - first);
}

/* ---- emitting ---- */

/* Leave before anything has happened if the block is dead, the budget is short, or somebody wants attention. */
static void emit_gate(struct tx *t, uint8_t *refused[2])
{
    struct asm_buf *a = &t->a;
    asm_load(a, 8, T_FLAGS, VCPU(budget));
    asm_alu(a, A_SUB, 8, T_FLAGS, rm_near(&t->b->gate));
    refused[0] = asm_jcc(a, A_S);
    asm_alu_imm(a, 0, A_CMP, 4, VCPU(attn), 0);
    refused[1] = asm_jcc(a, A_NE);
    asm_store(a, 8, VCPU(budget), T_FLAGS);
}

/* The address of a block or one of its uops. */
static void address_of(struct tx *t, unsigned reg, const void *p)
{
    asm_lea(&t->a, 8, reg, rm_near(p));
}

static void leave_at(struct tx *t, unsigned i)
{
    address_of(t, T_FLAGS, &t->b->uops[i]);
    if (!i)
        asm_lea(&t->a, 8, T_FLAGS, rm_mem(T_FLAGS, BACK_FIRST));
    address_of(t, T_ADDR, t->b);
    asm_jmp(&t->a, t->j->leave_uop);
}

static void call_generic(struct tx *t, unsigned i)
{
    struct jit_site *s = emit_constant(t, sizeof *s);
    if (t->a.full)
        return;
    *s = (struct jit_site){.u = &t->b->uops[i], .b = t->b, .in = t->in[i]};
    address_of(t, T_FLAGS, (uint8_t *)s + t->a.run);
    asm_call(&t->a, t->j->generic);
}

static void generic(struct tx *t)
{
    if (t->native)
        eflags_save(t);
    t->native = false;
    call_generic(t, t->i);
    t->saved = true;
}

static void emit_insn(struct tx *t)
{
    const struct insn *in = &t->in[t->i];
    unsigned first = t->slows;
    if (t->how[t->i].fn)
        t->how[t->i].fn(t, in);
    else
        generic(t);
    for (unsigned s = first; s < t->slows; s++) {
        t->slow[s].resume = asm_here(&t->a);
        t->slow[s].load_flags = t->native;
    }
}

/* The probe left gva ^ tag in T_ADDR and the slot's place in T_VAL. T_FLAGS may hold something a later part wants. */
static void refill(struct tx *t, const struct slow *w)
{
    struct asm_buf *a = &t->a;
    int32_t bank = w->access & ACC_WRITE ? offsetof(struct tlb_bank, w) : offsetof(struct tlb_bank, r);
    asm_alu(a, A_XOR, 8, T_ADDR, rm_mem(T_VAL, bank + (int32_t)offsetof(struct tlb_entry, tag)));
    asm_store(a, 8, VCPU(tmp), T_FLAGS);
    asm_mov_imm(a, T_FLAGS, w->access);
    asm_call(a, t->j->refill);
    asm_load(a, 8, T_FLAGS, VCPU(tmp));
    asm_jcc_to(a, A_NE, w->found);
}

static void emit_slow_way(struct tx *t, const struct slow *w)
{
    asm_land(&t->a, w->from);
    if (w->kind == SLOW_REFILL)
        refill(t, w);
    if (w->kind == SLOW_LEAVE || t->how[w->i].ends) {
        leave_at(t, w->i);
        return;
    }
    call_generic(t, w->i);
    t->native = false;
    t->saved = true;
    if (w->load_flags)
        eflags_load(t);
    asm_jmp(&t->a, w->resume);
}

/* Several jumps of one instruction may share what follows; they are few. */
static void emit_slows(struct tx *t)
{
    for (unsigned s = 0; s < t->slows; s++)
        emit_slow_way(t, &t->slow[s]);
}

static void emit_block(struct tx *t)
{
    uint8_t *refused[2];
    t->entry = asm_here(&t->a);
    t->saved = true;
    emit_gate(t, refused);
    t->body = asm_here(&t->a);
    for (t->i = 0; t->i < t->n; t->i++)
        emit_insn(t);
    if (t->n < t->b->n) {
        eflags_spoil(t);
        leave_at(t, t->n);
    } else if (!t->how[t->n - 1].ends) {
        eflags_spoil(t);
        emit_onward(t, &t->b->uops[t->n]);
    }
    emit_slows(t);
    asm_land(&t->a, refused[0]);
    asm_land(&t->a, refused[1]);
    address_of(t, T_ADDR, t->b);
    asm_jmp(&t->a, t->j->refuse);
}

/* Publish: whoever sees the code sees it whole, and whoever sees `body` sees the new `code`, too. Other vCPUs may run
 * the block meanwhile, as it was. */
static void settle(struct tx *t)
{
    struct jit *j = t->j;
    uop_fn *enter = op_jit;
    j->front = (uint32_t)align_up((uint64_t)(t->a.at - j->rw), 16);
    j->back = (uint32_t)(t->back - j->rw);
    __atomic_store_n(&t->b->code, t->entry, __ATOMIC_RELEASE);
    __atomic_store_n(&t->b->body, t->body, __ATOMIC_RELEASE);
    __atomic_store_n(&t->b->uops[0].fn, enter, __ATOMIC_RELEASE);
}

void jit_translate(struct jit *j, struct block *b, const struct ram *ram)
{
    struct tx t = {.j = j, .b = b, .back = j->rw + j->back};
    uint8_t bytes[BLOCK_MAX * 15];
    t.a = (struct asm_buf){.at = j->rw + j->front, .end = t.back, .run = j->rx - j->rw};
    copy_code(bytes, b, ram);
    if (!decode_all(&t, bytes))
        return;
    want_flags(&t);
    if (j->back - j->front < ROOM)
        t.a.full = true;
    else
        emit_block(&t);
    if (t.a.full)
        atomic_store_explicit(&j->full, true, memory_order_relaxed);
    else
        settle(&t);
}
