/* struct insn -> uops. The forms that kernels use most get a handler of their own; every other one becomes a cold uop
 * that calls the operation's executor with the decoded instruction. */
#include "cpu/soft/block.h"

#include "cpu/soft/event.h"

struct lower {
    struct block_draft *d;
    unsigned mode;
    struct uop *prev; /* the uop before, if a jcc may be fused with it */
    unsigned prev_op, prev_form, prev_log2;
};

enum { OFF_ZERO = offsetof(struct soft_vcpu, zero), OFF_BIAS = offsetof(struct soft_vcpu, rip_bias) };
_Static_assert(sizeof(struct soft_vcpu) < 65536, "uop.base and uop.index are 16 bits");

static bool code64(const struct lower *l)
{
    return (l->mode & MODE_CODE) == CODE64;
}

/* ---- operands ---- */

static uint8_t reg_off(const struct opnd *o)
{
    return o->reg < OPND_AH ? (uint8_t)(o->reg * 8) : (uint8_t)((o->reg - OPND_AH) * 8 + 1);
}

static bool high_byte(const struct opnd *o)
{
    return o->kind == OPND_REG && o->size == 1 && o->reg >= OPND_AH;
}

static uint16_t gpr_off(unsigned reg)
{
    return reg < 16 ? (uint16_t)(reg * 8) : OFF_ZERO;
}

static uint16_t seg_base_off(unsigned seg)
{
    return (uint16_t)(offsetof(struct soft_vcpu, st.seg) + seg * sizeof(struct cpu_segment) +
                      offsetof(struct cpu_segment, base));
}

/* The memory operand. False: only the generic executor can address it. */
static bool address(const struct lower *l, struct uop *u, const struct insn *in)
{
    bool fsgs = in->seg == SEG_FS || in->seg == SEG_GS;
    int64_t disp = in->disp;
    u->base = in->base == INSN_RIP ? OFF_BIAS : gpr_off(in->base);
    u->index = gpr_off(in->index);
    u->scale = in->scale;
    u->aflags = (uint8_t)(in->seg << AF_SEG_SHIFT);
    if (in->base == INSN_RIP)
        disp += u->off + u->len;
    if (in->addrsize != 8)
        u->aflags |= in->addrsize == 4 ? AF_MASK32 : AF_MASK16;
    if (code64(l) && fsgs) {
        if (in->index == INSN_NO_REG && in->addrsize == 8)
            u->index = seg_base_off(in->seg), u->scale = 0;
        else
            u->aflags |= AF_BASE;
    } else if (!code64(l) && (!(l->mode & MODE_FLAT) || fsgs || in->seg == SEG_CS)) {
        u->aflags |= AF_SEG;
    }
    u->disp = (int32_t)disp;
    return u->disp == disp;
}

/* ---- emitting ---- */

static struct uop *emit(struct lower *l, const struct insn *in, unsigned off, uop_fn *fn)
{
    struct uop *u = &l->d->uop[l->d->uops++];
    memset(u, 0, sizeof *u);
    u->fn = fn;
    u->off = (uint16_t)off;
    u->len = in ? in->len : 0;
    u->left = (uint8_t)l->d->n; /* the instruction's number, until finish() */
    u->base = u->index = OFF_ZERO;
    return u;
}

static void emit_cold(struct lower *l, const struct insn *in, unsigned off)
{
    struct uop *u = emit(l, in, off, op_cold);
    l->d->insn[l->d->insns] = *in;
    u->in = &l->d->insn[l->d->insns++];
}

static void emit_end(struct lower *l, unsigned off)
{
    struct uop *u = emit(l, NULL, off, op_end);
    atomic_init(&u->link, &block_nowhere);
}

/* ---- hot forms: each returns the handler, with the operands in `u`, or NULL ---- */

static bool form_of(const struct insn *in, enum uop_form *form)
{
    bool dst_mem = in->dst.kind == OPND_MEM;
    if (in->src.kind == OPND_IMM)
        *form = dst_mem ? FORM_MI : FORM_RI;
    else if (in->src.kind == OPND_MEM)
        *form = FORM_RM;
    else if (in->src.kind == OPND_REG)
        *form = dst_mem ? FORM_MR : FORM_RR;
    else
        return false;
    return true;
}

/* dst, src in any of the five forms. */
static bool binary(struct lower *l, struct uop *u, const struct insn *in, enum uop_form *form)
{
    if (!form_of(in, form))
        return false;
    if (in->dst.kind == OPND_REG)
        u->dst = reg_off(&in->dst);
    if (in->src.kind == OPND_REG)
        u->src = reg_off(&in->src);
    if (in->src.kind == OPND_IMM)
        u->imm = in->imm;
    return !(in->flags & INSN_MEM) || address(l, u, in);
}

static uop_fn *hot_alu(struct lower *l, struct uop *u, const struct insn *in)
{
    enum uop_form form;
    unsigned log2 = (unsigned)__builtin_ctz(in->dst.size);
    bool reads_only = in->op == OP_cmp || in->op == OP_test;
    if (high_byte(&in->dst) && !reads_only)
        return NULL;
    if (!binary(l, u, in, &form))
        return NULL;
    if (in->flags & INSN_LOCK)
        return uop_locked(in->op, form, log2);
    l->prev = u;
    l->prev_op = in->op;
    l->prev_form = form;
    l->prev_log2 = log2;
    return uop_alu(in->op, form, log2);
}

static uop_fn *hot_unary(struct lower *l, struct uop *u, const struct insn *in)
{
    bool mem = in->dst.kind == OPND_MEM;
    unsigned log2 = (unsigned)__builtin_ctz(in->dst.size);
    if (high_byte(&in->dst) || (mem && !address(l, u, in)))
        return NULL;
    if (in->flags & INSN_LOCK)
        return uop_locked(in->op, FORM_MI, log2);
    if (!mem) {
        u->dst = reg_off(&in->dst);
        l->prev = u;
        l->prev_op = in->op;
        l->prev_form = FORM_RR;
        l->prev_log2 = log2;
    }
    return uop_unary(in->op, mem, log2);
}

static uop_fn *hot_mov(struct lower *l, struct uop *u, const struct insn *in)
{
    enum uop_form form;
    if (high_byte(&in->dst) || !binary(l, u, in, &form))
        return NULL;
    return uop_mov(form, (unsigned)__builtin_ctz(in->dst.size), u->index != OFF_ZERO);
}

static uop_fn *hot_extend(struct lower *l, struct uop *u, const struct insn *in)
{
    enum uop_form form;
    if (!binary(l, u, in, &form))
        return NULL;
    return uop_extend(in->op == OP_movsx, form == FORM_RM, in->src.size, in->dst.size);
}

static uop_fn *hot_lea(struct lower *l, struct uop *u, const struct insn *in)
{
    u->dst = reg_off(&in->dst);
    if (!address(l, u, in) || in->addrsize != (code64(l) ? 8 : 4) || in->dst.size < 4)
        return NULL;
    if (in->seg == SEG_FS || in->seg == SEG_GS) /* segments don't count here, their base sits in the index */
        return NULL;
    return uop_misc(OP_lea, false, (unsigned)__builtin_ctz(in->dst.size));
}

static uop_fn *hot_shift(struct lower *l, struct uop *u, const struct insn *in)
{
    unsigned size = in->dst.size, count = in->imm & (size == 8 ? 63 : 31);
    bool by_cl = in->src.kind == OPND_REG;
    if (in->dst.kind != OPND_REG || size < 4)
        return NULL;
    if (!by_cl && !count)
        return size == 8 ? op_nop : NULL;
    u->dst = reg_off(&in->dst);
    u->imm = count;
    l->prev = by_cl ? NULL : u;
    l->prev_op = in->op;
    l->prev_form = FORM_RI;
    l->prev_log2 = (unsigned)__builtin_ctz(size);
    return uop_shift(in->op, by_cl, (unsigned)__builtin_ctz(size));
}

static uop_fn *hot_bits(struct lower *l, struct uop *u, const struct insn *in)
{
    enum uop_form form;
    unsigned log2 = (unsigned)__builtin_ctz(in->dst.size);
    bool bit = in->op == OP_bt || in->op == OP_bts || in->op == OP_btr || in->op == OP_btc;
    if (in->op == OP_imul3 && in->dst.kind == OPND_REG && in->src.kind == OPND_REG) {
        u->dst = reg_off(&in->dst);
        u->src = reg_off(&in->src);
        u->imm = in->imm;
        return uop_bits(OP_imul3, FORM_RR, log2);
    }
    if (in->op == OP_imul3 || !binary(l, u, in, &form))
        return NULL;
    if (bit)
        u->imm &= in->dst.size * 8 - 1;
    if (in->flags & INSN_LOCK)
        return form == FORM_MI ? uop_locked(in->op, form, log2) : NULL;
    if (bit) {
        l->prev = in->op == OP_bt ? u : NULL;
        l->prev_op = in->op;
        l->prev_form = form;
        l->prev_log2 = log2;
    }
    return uop_bits(in->op, form, log2);
}

static uop_fn *hot_cond(struct lower *l, struct uop *u, const struct insn *in)
{
    bool mem = in->flags & INSN_MEM;
    if (mem && !address(l, u, in))
        return NULL;
    if (high_byte(&in->dst))
        return NULL;
    if (in->dst.kind == OPND_REG)
        u->dst = reg_off(&in->dst);
    if (in->src.kind == OPND_REG)
        u->src = reg_off(&in->src);
    if (in->op == OP_cmovcc && !mem)
        u->scale = in->cond;
    else
        u->src = in->cond;
    return uop_cond(in->op, mem, (unsigned)__builtin_ctz(in->dst.size), in->cond);
}

/* PUSH, POP, LEAVE in 64-bit mode with 8-byte operands. */
static uop_fn *hot_stack(struct lower *l, struct uop *u, const struct insn *in)
{
    if (!code64(l) || in->opsize != 8)
        return NULL;
    u->aflags = SEG_SS << AF_SEG_SHIFT;
    if (in->op == OP_leave)
        return uop_misc(OP_leave, false, 3);
    const struct opnd *o = in->op == OP_push ? &in->src : &in->dst;
    if (o->kind == OPND_MEM)
        return NULL;
    u->dst = u->src = reg_off(o);
    u->imm = in->imm;
    return uop_misc(in->op, o->kind == OPND_IMM, 3);
}

/* One register operand, or two. */
static uop_fn *hot_misc(struct lower *l, struct uop *u, const struct insn *in)
{
    if (in->flags & INSN_MEM && in->op != OP_xchg && in->op != OP_xadd && in->op != OP_cmpxchg)
        return NULL;
    unsigned log2 = (unsigned)__builtin_ctz(in->dst.size ? in->dst.size : in->opsize);
    if (high_byte(&in->dst) || high_byte(&in->src))
        return NULL;
    if (in->dst.kind == OPND_REG)
        u->dst = reg_off(&in->dst);
    if (in->src.kind == OPND_REG)
        u->src = reg_off(&in->src);
    if (!(in->flags & INSN_MEM))
        return uop_misc(in->op, false, log2);
    if (!address(l, u, in) || (in->op != OP_xchg && !(in->flags & INSN_LOCK)))
        return NULL;
    return uop_locked(in->op, FORM_MR, log2);
}

static uop_fn *hot_call(struct lower *l, struct uop *u, const struct insn *in)
{
    if (in->src.kind == OPND_IMM) {
        u->disp = (int32_t)in->imm;
        atomic_init(&u->link, &block_nowhere);
        return op_call;
    }
    if (in->src.kind == OPND_REG) {
        u->src = reg_off(&in->src);
        return op_call_reg;
    }
    return address(l, u, in) ? op_call_mem : NULL;
}

static uop_fn *hot_jmp(struct lower *l, struct uop *u, const struct insn *in)
{
    if (in->src.kind == OPND_IMM) {
        int64_t to = (int64_t)u->off + u->len + (int64_t)in->imm;
        u->disp = (int32_t)in->imm;
        atomic_init(&u->link, &block_nowhere);
        return to >= 0 && to < 4096 ? op_jmp : op_jmp_far;
    }
    if (!code64(l))
        return NULL;
    if (in->src.kind == OPND_REG) {
        u->src = reg_off(&in->src);
        return op_jmp_reg;
    }
    return address(l, u, in) ? op_jmp_mem : NULL;
}

/* Near branches where RIP has no limit to check: 64-bit and flat 32-bit code. One that is alone in its block goes back
 * to the dispatcher. */
static uop_fn *hot_branch(struct lower *l, struct uop *u, const struct insn *in)
{
    if (!(l->mode & MODE_FLAT) || l->mode & MODE_SINGLE || in->opsize != (code64(l) ? 8 : 4))
        return NULL;
    switch (in->op) {
    case OP_jcc:
        u->src = in->cond;
        u->disp = (int32_t)in->imm;
        atomic_init(&u->link, &block_nowhere);
        return uop_cond(OP_jcc, false, 0, in->cond);
    case OP_jmp:
        return hot_jmp(l, u, in);
    case OP_call:
        return code64(l) ? hot_call(l, u, in) : NULL;
    case OP_ret:
        u->imm = in->imm;
        u->aflags = SEG_SS << AF_SEG_SHIFT;
        return !code64(l) ? NULL : in->src.kind == OPND_IMM ? op_ret_imm : op_ret;
    default:
        return NULL;
    }
}

static uop_fn *hot(struct lower *l, struct uop *u, const struct insn *in)
{ /* opcode switch */
    switch (in->op) {
    case OP_add:
    case OP_or:
    case OP_adc:
    case OP_sbb:
    case OP_and:
    case OP_sub:
    case OP_xor:
    case OP_cmp:
    case OP_test:
        return hot_alu(l, u, in);
    case OP_inc:
    case OP_dec:
    case OP_neg:
    case OP_not:
        return hot_unary(l, u, in);
    case OP_mov:
    case OP_movnti:
        return hot_mov(l, u, in);
    case OP_movzx:
    case OP_movsx:
        return hot_extend(l, u, in);
    case OP_lea:
        return hot_lea(l, u, in);
    case OP_shl:
    case OP_shr:
    case OP_sar:
    case OP_rol:
    case OP_ror:
        return hot_shift(l, u, in);
    case OP_bt:
    case OP_bts:
    case OP_btr:
    case OP_btc:
    case OP_bsf:
    case OP_bsr:
    case OP_tzcnt:
    case OP_popcnt:
    case OP_imul2:
    case OP_imul3:
        return hot_bits(l, u, in);
    case OP_setcc:
    case OP_cmovcc:
        return hot_cond(l, u, in);
    case OP_push:
    case OP_pop:
    case OP_leave:
        return hot_stack(l, u, in);
    case OP_xchg:
    case OP_xadd:
    case OP_cmpxchg:
    case OP_cbw:
    case OP_cwd:
    case OP_bswap:
    case OP_mul:
    case OP_imul1:
    case OP_div:
    case OP_idiv:
        return hot_misc(l, u, in);
    case OP_jcc:
    case OP_jmp:
    case OP_call:
    case OP_ret:
        return hot_branch(l, u, in);
    case OP_nop:
    case OP_lfence:
    case OP_sfence:
        return op_nop;
    case OP_pause:
        return op_pause;
    default:
        return NULL;
    }
}

/* ---- blocks ---- */

/* After these nothing of the block is ever reached, or the bytes behind are no code. */
static bool ends_block(const struct insn *in)
{
    switch (in->op) {
    case OP_jcc:
    case OP_jmp:
    case OP_call:
    case OP_ret:
    case OP_loop:
    case OP_loope:
    case OP_loopne:
    case OP_jcxz:
    case OP_int:
    case OP_int3:
    case OP_int1:
    case OP_iret:
    case OP_jmpf:
    case OP_callf:
    case OP_retf:
    case OP_syscall:
    case OP_sysret:
    case OP_sysenter:
    case OP_sysexit:
    case OP_hlt:
    case OP_rsm:
    case OP_ud:
    case OP_mov_to_cr:
    case OP_lmsw:
        return true;
    default:
        return false;
    }
}

/* The uop before becomes both halves; the jcc's own stays, for its target. */
static void fuse(struct lower *l, const struct insn *in)
{
    if (!l->prev || !(l->mode & MODE_FLAT) || l->mode & MODE_SINGLE)
        return;
    uop_fn *fn = uop_fused(l->prev_op, l->prev_form, l->prev_log2, in->cond);
    if (fn)
        l->prev->fn = fn;
}

static void lower_insn(struct lower *l, const struct insn *in, unsigned off)
{
    struct uop *u = emit(l, in, off, NULL), *before = l->prev;
    l->prev = NULL;
    u->fn = hot(l, u, in);
    if (u->fn && in->op == OP_jcc) {
        l->prev = before;
        fuse(l, in);
        l->prev = NULL;
    }
    if (!u->fn) {
        l->prev = NULL;
        l->d->uops--;
        emit_cold(l, in, off);
    }
}

static void lower_bad(struct lower *l, unsigned off, enum decode_status why)
{
    struct uop *u = emit(l, NULL, off, op_bad);
    u->imm = why == DECODE_LONG ? VEC_GP : VEC_UD;
    l->d->n++;
}

static void finish(struct block_draft *d, unsigned bytes)
{
    d->bytes = bytes;
    for (unsigned i = 0; i < d->uops; i++)
        d->uop[i].left = (uint8_t)(d->n - d->uop[i].left);
}

void lower_block(struct block_draft *d, const uint8_t *bytes, unsigned avail, unsigned off, unsigned mode,
                 unsigned most)
{
    struct lower l = {.d = d, .mode = mode};
    unsigned at = 0, max = mode & MODE_SINGLE ? 1 : most;
    enum decode_status s = DECODE_OK;
    struct insn in = {.len = 0};
    d->uops = d->insns = d->n = 0;
    d->straddles = false;
    while (d->n < max && at < avail) {
        s = decode_insn(bytes + at, avail - at, mode & MODE_CODE, &in);
        if (s != DECODE_OK)
            break;
        lower_insn(&l, &in, off + at);
        d->n++;
        at += in.len;
        if (ends_block(&in))
            break;
    }
    if (s == DECODE_MORE && !d->n) {
        d->straddles = true;
        return;
    }
    if (s == DECODE_UD || s == DECODE_LONG) {
        lower_bad(&l, off + at, s);
        at += 15 < avail - at ? 15 : avail - at;
    }
    emit_end(&l, off + at);
    finish(d, at);
}
